//! Pooling (ONNX `MaxPool`, `AveragePool`, `LpPool`).

use lapidary_runtime::DType;
use lapidary_runtime::op::{MAX_SPATIAL, Pool, PoolKind};

use super::index;
use super::parallel;
use super::spatial::{Grid, unflatten};
use super::tensor::Tensor;

/// Pooling of x `[n, c, spatial..]` to the given spatial extents. The result, and for maxima their `i64` positions in
/// the flattened x. A maximum is NaN where the window holds one; of equal maxima the first counts.
pub(super) fn pool(spec: &Pool, output: &[usize], x: &Tensor) -> Result<Vec<Tensor>, String> {
    let [n, c, spatial @ ..] = x.dims.as_slice() else { return Err(format!("no pooling of extents {:?}", x.dims)) };
    let grid = Grid::new(&spec.window, spatial, output)?;
    let dims = [&[*n, *c], output].concat();
    let work = index::count(&dims)? * grid.taps() * 4;
    let values = x.to_f64s();
    let planes = parallel::map(n * c, work, |plane| {
        let x = &values[plane * grid.input_count()..][..grid.input_count()];
        let cell = |at| match spec.kind {
            PoolKind::Max => maximum(&grid, x, at),
            PoolKind::Average => (average(&grid, x, at, Counted::Inside), 0),
            PoolKind::AverageCountPad => (average(&grid, x, at, Counted::Padding), 0),
            PoolKind::Lp(p) => (norm(&grid, x, at, p), 0),
        };
        (0..grid.output_count()).map(cell).collect::<Vec<(f64, usize)>>()
    });
    let results: Vec<f64> = planes.iter().flatten().map(|(value, _)| *value).collect();
    let y = Tensor::from_f64s(x.dtype, dims.clone(), &results);
    match spec.kind {
        PoolKind::Max => {
            let place = |plane: usize, at: usize| plane * grid.input_count() + ordered(&grid, at, spec.index_order);
            let flat = |(plane, cells): (usize, &Vec<(f64, usize)>)| {
                cells.iter().map(|&(_, at)| place(plane, at) as i64).collect::<Vec<i64>>()
            };
            let indices: Vec<i64> = planes.iter().enumerate().flat_map(flat).collect();
            Ok(vec![y, Tensor::from_i64s(DType::I64, dims, &indices)])
        }
        PoolKind::Average | PoolKind::AverageCountPad | PoolKind::Lp(_) => Ok(vec![y]),
    }
}

/// The elements inside the operand of the window at `output`, with their flat positions.
fn inside<'a>(grid: &'a Grid, x: &'a [f64], output: usize) -> impl Iterator<Item = (usize, f64)> + 'a {
    (0..grid.taps()).filter_map(move |tap| grid.flat_source(output, tap)).map(|at| (at, x[at]))
}

fn maximum(grid: &Grid, x: &[f64], output: usize) -> (f64, usize) {
    let mut best = (f64::NEG_INFINITY, None);
    for (at, value) in inside(grid, x, output) {
        if best.1.is_none() || value > best.0 || (value.is_nan() && !best.0.is_nan()) {
            best = (value, Some(at));
        }
    }
    (best.0, best.1.unwrap_or(0))
}

/// What the divisor of a mean counts.
#[derive(Clone, Copy)]
enum Counted {
    Inside,
    /// The padding too, but not what lies beyond it.
    Padding,
}

fn average(grid: &Grid, x: &[f64], output: usize, counted: Counted) -> f64 {
    let sum: f64 = inside(grid, x, output).map(|(_, value)| value).sum();
    let count = match counted {
        Counted::Inside => inside(grid, x, output).count(),
        Counted::Padding => {
            let at = unflatten(output, &grid.output);
            let reached = |axis: usize| {
                let end = grid.lo[axis] + grid.input[axis] + grid.hi[axis];
                (0..grid.size[axis]).filter(|&tap| grid.padded(axis, at[axis], tap) < end).count()
            };
            (0..MAX_SPATIAL).map(reached).product()
        }
    };
    sum / count as f64
}

fn norm(grid: &Grid, x: &[f64], output: usize, p: u32) -> f64 {
    let power = f64::from(p);
    inside(grid, x, output).map(|(_, value)| value.abs().powf(power)).sum::<f64>().powf(1.0 / power)
}

/// The position in its channel as the indices count it: row-major, or column-major over the spatial axes.
fn ordered(grid: &Grid, at: usize, index_order: u8) -> usize {
    if index_order == 0 {
        return at;
    }
    let [z, y, x] = unflatten(at, &grid.input);
    // Axes of extent 1 in front add nothing.
    z + grid.input[0] * (y + grid.input[1] * x)
}

#[cfg(test)]
mod tests {
    use lapidary_runtime::op::Window;

    use super::super::spatial::tests::window;
    use super::*;

    fn counting(dims: &[usize]) -> Tensor {
        let count = dims.iter().product::<usize>() as i64;
        Tensor::from_i64s(DType::F32, dims.to_vec(), &(1..=count).collect::<Vec<_>>())
    }

    fn run(kind: PoolKind, window: Window, output: &[usize], x: &Tensor) -> Vec<Tensor> {
        pool(&Pool { kind, window, index_order: 0 }, output, x).unwrap()
    }

    #[test]
    fn maxima_and_where_they_are() {
        // ONNX "MaxPool" examples: 2d precomputed pads, with argmax.
        let x = counting(&[1, 1, 5, 5]);
        let results = run(PoolKind::Max, window(&[5, 5], 1, 1, 2, 2), &[5, 5], &x);
        assert_eq!(results[0].to_f64s()[..6], [13.0, 14.0, 15.0, 15.0, 15.0, 18.0]);
        assert_eq!(results[1].to_i64s()[..6], [12, 13, 14, 14, 14, 17]);
        // ... and strides with column-major order.
        let spec = Pool { kind: PoolKind::Max, window: window(&[2, 2], 2, 1, 0, 0), index_order: 1 };
        let results = pool(&spec, &[2, 2], &x).unwrap();
        assert_eq!((results[0].to_f64s(), results[1].to_i64s()), (vec![7.0, 9.0, 17.0, 19.0], vec![6, 16, 8, 18]));
        // The second channel's positions go on from the first's.
        let results = run(PoolKind::Max, window(&[2], 1, 1, 0, 0), &[1], &counting(&[1, 2, 2]));
        assert_eq!(results[1].to_i64s(), [1, 3]);
    }

    #[test]
    fn ceil_windows_end_where_the_tensor_ends() {
        // ONNX "MaxPool" and "AveragePool" examples: 2d ceil.
        let x = counting(&[1, 1, 4, 4]);
        let y = run(PoolKind::Max, window(&[3, 3], 2, 1, 0, 0), &[2, 2], &x);
        assert_eq!(y[0].to_f64s(), [11.0, 12.0, 15.0, 16.0]);
        let y = run(PoolKind::Average, window(&[3, 3], 2, 1, 0, 0), &[2, 2], &x);
        assert_eq!(y[0].to_f64s(), [6.0, 7.5, 12.0, 13.5]);
        // Counting the padding does not count what ceil mode adds behind it: (3 + 4 + pad) / 3, not / 4.
        let y = run(PoolKind::AverageCountPad, window(&[4], 3, 1, 1, 1), &[2], &counting(&[1, 1, 4]));
        assert_eq!(y[0].to_f64s(), [1.5, f64::from(7f32 / 3.0)]);
    }

    #[test]
    fn dilated_windows() {
        let y = run(PoolKind::Max, window(&[2, 2], 1, 2, 0, 0), &[2, 2], &counting(&[1, 1, 4, 4]));
        assert_eq!(y[0].to_f64s(), [11.0, 12.0, 15.0, 16.0]);
    }

    #[test]
    fn norms() {
        let x = Tensor::from_f64s(DType::F32, vec![1, 1, 3], &[3.0, -4.0, 12.0]);
        assert_eq!(run(PoolKind::Lp(2), window(&[2], 1, 1, 0, 0), &[2], &x)[0].to_f64s()[0], 5.0);
        assert_eq!(run(PoolKind::Lp(1), window(&[2], 1, 1, 0, 0), &[2], &x)[0].to_f64s(), [7.0, 16.0]);
    }

    #[test]
    fn nan_wins() {
        let x = Tensor::from_f64s(DType::F32, vec![1, 1, 3], &[1.0, f64::NAN, 2.0]);
        let results = run(PoolKind::Max, window(&[3], 1, 1, 0, 0), &[1], &x);
        assert!(results[0].to_f64s()[0].is_nan());
        assert_eq!(results[1].to_i64s(), [1]);
        let bytes = Tensor::from_i64s(DType::I8, vec![1, 1, 2], &[-128, -7]);
        assert_eq!(run(PoolKind::Max, window(&[2], 1, 1, 0, 0), &[1], &bytes)[0].to_i64s(), [-7]);
    }
}
