//! Convolution and transposed convolution (ONNX `Conv`, `ConvInteger`, `ConvTranspose`).

use lapidary_runtime::op::{Conv, ConvTranspose, MAX_SPATIAL};
use lapidary_templates::Program;

use super::index;
use super::matmul::{Matrix, Number, accumulate, product_dtype, round_operand};
use super::parallel;
use super::pointwise;
use super::spatial::{Grid, unflatten};
use super::tensor::{Tensor, Values};

/// Positions of the result that are one piece of work.
const TILE: usize = 256;
/// Products of a sum that are gathered together.
const DEPTH: usize = 512;

/// Convolution. Operands x `[n, c, spatial..]`, w `[m, c / groups, window..]`, then the epilogue's; result
/// `[n, m, spatial..]`.
pub(super) fn conv(
    spec: &Conv,
    epilogue: Option<&Program>,
    x: &Tensor,
    w: &Tensor,
    operands: &[&Tensor],
) -> Result<Vec<Tensor>, String> {
    let error = || format!("no convolution of extents {:?} with {:?} in {} groups", x.dims, w.dims, spec.groups);
    let groups = spec.groups as usize;
    let ([n, c, spatial @ ..], [m, per_group, size @ ..]) = (x.dims.as_slice(), w.dims.as_slice()) else {
        return Err(error());
    };
    let output = Grid::output_of(&spec.window, spatial)?;
    let grid = Grid::new(&spec.window, spatial, &output)?;
    let window_fits = size.iter().zip(&spec.window.size).all(|(&a, &b)| a == b as usize);
    if groups == 0 || per_group * groups != *c || m % groups != 0 || size.len() != spatial.len() || !window_fits {
        return Err(error());
    }
    let dims = [&[*n, *m], output.as_slice()].concat();
    index::count(&dims)?;
    let job = Job { grid, n: *n, c: *c, m: *m, groups };
    let left = round_operand(spec.math, x.dtype, x.decode());
    let right = round_operand(spec.math, w.dtype, w.decode());
    let values = match (left, right) {
        (Values::Float(x), Values::Float(w)) => Values::Float(job.conv(&x, &w)),
        (Values::Int(x), Values::Int(w)) => Values::Int(job.conv(&x, &w)),
        (Values::Float(_), Values::Int(_)) | (Values::Int(_), Values::Float(_)) => {
            return Err(format!("{} times {}", x.dtype, w.dtype));
        }
    };
    pointwise::finish(values, product_dtype(x.dtype), dims, epilogue, operands)
}

struct Job {
    grid: Grid,
    n: usize,
    c: usize,
    m: usize,
    groups: usize,
}

impl Job {
    fn conv<T: Number>(&self, x: &[T], w: &[T]) -> Vec<T> {
        let positions = self.grid.output_count();
        let tiles = positions.div_ceil(TILE);
        let work = self.n * self.m * positions * (self.c / self.groups) * self.grid.taps();
        let pieces = parallel::map(self.n * tiles, work, |piece| self.tile(x, w, piece / tiles, piece % tiles));
        let mut out = vec![T::default(); self.n * self.m * positions];
        for (piece, values) in pieces.iter().enumerate() {
            let first = piece % tiles * TILE;
            let width = TILE.min(positions - first);
            for (m, row) in values.chunks_exact(width).enumerate() {
                out[(piece / tiles * self.m + m) * positions + first..][..width].copy_from_slice(row);
            }
        }
        out
    }

    /// All channels of one tile of positions, `[m, width]`: a matrix product of the weights with the gathered windows.
    fn tile<T: Number>(&self, x: &[T], w: &[T], n: usize, tile: usize) -> Vec<T> {
        let (grid, taps) = (&self.grid, self.grid.taps());
        let first = tile * TILE;
        let width = TILE.min(grid.output_count() - first);
        let (c, m) = (self.c / self.groups, self.m / self.groups);
        let sources: Vec<Option<usize>> =
            (0..taps * width).map(|k| grid.flat_source(first + k % width, k / width)).collect();
        let mut out = vec![T::default(); self.m * width];
        let block = (DEPTH / taps).max(1);
        let mut windows = Vec::with_capacity(block * taps * width);
        for group in 0..self.groups {
            let out = &mut out[group * m * width..][..m * width];
            for start in (0..c).step_by(block) {
                let channels = start..c.min(start + block);
                let depth = channels.len() * taps;
                windows.clear();
                for channel in channels {
                    let plane = &x[((n * self.c) + group * c + channel) * grid.input_count()..];
                    windows.extend(sources.iter().map(|source| source.map_or(T::default(), |at| plane[at])));
                }
                let weights = &w[(group * m * c + start) * taps..];
                let weights = Matrix { data: weights, rows: m, columns: depth, pitch: c * taps };
                let windows = Matrix { data: &windows, rows: depth, columns: width, pitch: width };
                accumulate(&weights, &windows, out);
            }
        }
        out
    }
}

/// Transposed convolution. Operands x `[n, c, spatial..]`, w `[c, m / groups, window..]`; result `[n, m, output..]`.
/// Element i of x adds to the results at `i * stride + tap * dilation - lo`; what falls outside is dropped.
pub(super) fn conv_transpose(
    spec: &ConvTranspose,
    output: &[usize],
    x: &Tensor,
    w: &Tensor,
) -> Result<Vec<Tensor>, String> {
    let error = || format!("no transposed convolution of extents {:?} with {:?}", x.dims, w.dims);
    let groups = spec.groups as usize;
    let ([n, c, spatial @ ..], [c_of_w, m, size @ ..]) = (x.dims.as_slice(), w.dims.as_slice()) else {
        return Err(error());
    };
    let (n, c, m) = (*n, *c, *m);
    // The grid's window runs over the larger side: its input is this operation's result.
    let grid = Grid::new(&spec.window, output, spatial)?;
    let window_fits = size.iter().zip(&spec.window.size).all(|(&a, &b)| a == b as usize);
    if groups == 0 || c != *c_of_w || c % groups != 0 || size.len() != spatial.len() || !window_fits {
        return Err(error());
    }
    let dims = [&[n, m * groups], output].concat();
    let (Values::Float(xs), Values::Float(ws)) = (x.decode(), w.decode()) else {
        return Err(format!("no transposed convolution of {} with {}", x.dtype, w.dtype));
    };
    let per_group = c / groups;
    let work = index::count(&dims)? * per_group * grid.taps();
    let planes = parallel::map(n * m * groups, work, |plane| {
        let (batch, channel) = (plane / (m * groups), plane % (m * groups));
        let mut out = vec![0.0; grid.input_count()];
        for from in channel / m * per_group..(channel / m + 1) * per_group {
            let x = &xs[(batch * c + from) * grid.output_count()..][..grid.output_count()];
            let w = &ws[(from * m + channel % m) * grid.taps()..][..grid.taps()];
            spread(&grid, x, w, &mut out);
        }
        out
    });
    Ok(vec![Tensor::from_f64s(x.dtype, dims, &planes.concat())])
}

/// Adds each element of `x`, times each of `w`, to `out`.
fn spread(grid: &Grid, x: &[f64], w: &[f64], out: &mut [f64]) {
    for (tap, &factor) in w.iter().enumerate() {
        let tap = unflatten(tap, &grid.size);
        for z in 0..grid.output[0] {
            for y in 0..grid.output[1] {
                let (Some(to_z), Some(to_y)) = (grid.source(0, z, tap[0]), grid.source(1, y, tap[1])) else {
                    continue;
                };
                let to = (to_z * grid.input[1] + to_y) * grid.input[MAX_SPATIAL - 1];
                let from = (z * grid.output[1] + y) * grid.output[2];
                for column in 0..grid.output[2] {
                    if let Some(at) = grid.source(2, column, tap[2]) {
                        out[to + at] += factor * x[from + column];
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use lapidary_runtime::DType;
    use lapidary_runtime::op::Math;

    use super::super::spatial::tests::window;
    use super::*;

    fn counting(dims: &[usize]) -> Tensor {
        let count = dims.iter().product::<usize>() as i64;
        Tensor::from_i64s(DType::F32, dims.to_vec(), &(0..count).collect::<Vec<_>>())
    }

    fn ones(dims: &[usize]) -> Tensor {
        Tensor::from_f64s(DType::F32, dims.to_vec(), &vec![1.0; dims.iter().product()])
    }

    fn run(x: &Tensor, w: &Tensor, window: lapidary_runtime::op::Window, groups: u32) -> Tensor {
        conv(&Conv { window, groups, math: Math::Exact }, None, x, w, &[]).unwrap().remove(0)
    }

    #[test]
    fn padding_counts_as_zeros() {
        // ONNX "Conv" example, conv with padding.
        let y = run(&counting(&[1, 1, 5, 5]), &ones(&[1, 1, 3, 3]), window(&[3, 3], 1, 1, 1, 1), 1);
        assert_eq!(y.dims, [1, 1, 5, 5]);
        assert_eq!(y.to_f64s()[..6], [12.0, 21.0, 27.0, 33.0, 24.0, 33.0]);
        assert_eq!(y.to_f64s()[20..], [72.0, 111.0, 117.0, 123.0, 84.0]);
    }

    #[test]
    fn strides_and_dilations_skip() {
        let y = run(&counting(&[1, 1, 7, 5]), &ones(&[1, 1, 3, 3]), window(&[3, 3], 2, 1, 1, 1), 1);
        // ONNX "Conv" example, conv with strides and padding.
        assert_eq!(y.dims, [1, 1, 4, 3]);
        assert_eq!(y.to_f64s(), [12.0, 27.0, 24.0, 63.0, 108.0, 81.0, 123.0, 198.0, 141.0, 112.0, 177.0, 124.0]);
        let y = run(&counting(&[1, 1, 6]), &ones(&[1, 1, 2]), window(&[2], 1, 3, 0, 0), 1);
        assert_eq!(y.to_f64s(), [3.0, 5.0, 7.0]);
    }

    #[test]
    fn groups_do_not_mix() {
        let w = Tensor::from_f64s(DType::F32, vec![4, 1, 1], &[1.0, 10.0, 100.0, 1000.0]);
        let y = run(&counting(&[2, 2, 2]), &w, window(&[1], 1, 1, 0, 0), 2);
        let expected = [0.0, 1.0, 0.0, 10.0, 200.0, 300.0, 2e3, 3e3, 4.0, 5.0, 40.0, 50.0, 600.0, 700.0, 6e3, 7e3];
        assert_eq!(y.to_f64s(), expected);
    }

    /// Many channels and positions: every tile and block boundary, against the definition.
    #[test]
    fn large_convolutions_match_their_definition() {
        let (c, m, h, k) = (130, 3, 21, 3);
        let xs: Vec<i64> = (0..c * h * h).map(|v| (v * 7919 % 13) as i64 - 6).collect();
        let ws: Vec<i64> = (0..m * c * k * k).map(|v| (v * 104_729 % 11) as i64 - 5).collect();
        let x = Tensor::from_i64s(DType::F32, vec![1, c, h, h], &xs);
        let w = Tensor::from_i64s(DType::F32, vec![m, c, k, k], &ws);
        let y = run(&x, &w, window(&[3, 3], 1, 1, 0, 0), 1).to_i64s();
        let o = h - k + 1;
        assert_eq!(y.len(), m * o * o);
        for (at, &actual) in y.iter().enumerate() {
            let (channel, row, column) = (at / (o * o), at / o % o, at % o);
            let mut sum = 0;
            for t in 0..c * k * k {
                let (from, dy, dx) = (t / (k * k), t / k % k, t % k);
                sum += ws[channel * c * k * k + t] * xs[(from * h + row + dy) * h + column + dx];
            }
            assert_eq!(actual, sum);
        }
    }

    #[test]
    fn three_dimensions() {
        let y = run(&counting(&[1, 1, 2, 2, 2]), &ones(&[1, 1, 2, 2, 2]), window(&[2, 2, 2], 1, 1, 0, 0), 1);
        assert_eq!((y.dims.len(), y.to_f64s()), (5, vec![28.0]));
    }

    #[test]
    fn shapes_must_fit() {
        let spec = Conv { window: window(&[3], 1, 1, 0, 0), groups: 1, math: Math::Exact };
        assert!(conv(&spec, None, &ones(&[1, 2, 4]), &ones(&[1, 1, 3]), &[]).is_err());
        assert!(conv(&spec, None, &ones(&[1, 1, 4]), &ones(&[1, 1, 2]), &[]).is_err());
        assert!(conv(&spec, None, &ones(&[4]), &ones(&[1, 1, 3]), &[]).is_err());
    }

    fn transpose(
        x: &Tensor,
        w: &Tensor,
        window: lapidary_runtime::op::Window,
        groups: u32,
        output: &[usize],
    ) -> Tensor {
        conv_transpose(&ConvTranspose { window, groups }, output, x, w).unwrap().remove(0)
    }

    #[test]
    fn transposed_windows_overlap_and_add() {
        // ONNX "ConvTranspose" example, one of its two channels.
        let y = transpose(&counting(&[1, 1, 3, 3]), &ones(&[1, 1, 3, 3]), window(&[3, 3], 1, 1, 0, 0), 1, &[5, 5]);
        assert_eq!(y.to_f64s()[..10], [0.0, 1.0, 3.0, 3.0, 2.0, 3.0, 8.0, 15.0, 12.0, 7.0]);
        // Stride 3 with output padding: the last column gets nothing but what the window leaves.
        let y = transpose(&counting(&[1, 1, 3]), &ones(&[1, 1, 3]), window(&[3], 3, 1, 0, 0), 1, &[10]);
        assert_eq!(y.to_f64s(), [0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 0.0]);
        // Pads crop.
        let y = transpose(&counting(&[1, 1, 3]), &ones(&[1, 1, 3]), window(&[3], 1, 1, 1, 1), 1, &[3]);
        assert_eq!(y.to_f64s(), [1.0, 3.0, 3.0]);
    }

    #[test]
    fn transposed_groups_do_not_mix() {
        let x = Tensor::from_f64s(DType::F32, vec![1, 2, 1], &[3.0, 5.0]);
        let w = Tensor::from_f64s(DType::F32, vec![2, 2, 1], &[1.0, 10.0, 100.0, 1000.0]);
        let y = transpose(&x, &w, window(&[1], 1, 1, 0, 0), 2, &[1]);
        assert_eq!(y.to_f64s(), [3.0, 30.0, 500.0, 5000.0]);
        // The same weights in one group: c = 2, m = 2.
        let y = transpose(&x, &w, window(&[1], 1, 1, 0, 0), 1, &[1]);
        assert_eq!(y.to_f64s(), [503.0, 5030.0]);
    }
}
