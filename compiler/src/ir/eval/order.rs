//! What depends on the order of elements: positions of extremes, and the k largest (ONNX `ArgMax`, `ArgMin`, `TopK`).
//!
//! NaN is the largest value to a sort and the extreme of every search, as in numpy.

use std::cmp::Ordering;

use lapidary_runtime::DType;
use lapidary_runtime::op::ArgReduce;

use super::index;
use super::tensor::{self, Tensor, Values};

/// The elements of a tensor, to be compared.
struct Keys {
    dtype: DType,
    values: Values,
}

impl Keys {
    fn is_nan(&self, at: usize) -> bool {
        matches!(&self.values, Values::Float(values) if values[at].is_nan())
    }

    /// NaN behind all numbers, equal to itself.
    fn compare(&self, a: usize, b: usize) -> Ordering {
        match &self.values {
            Values::Float(values) => {
                let numbers = values[a].partial_cmp(&values[b]);
                numbers.unwrap_or_else(|| values[a].is_nan().cmp(&values[b].is_nan()))
            }
            Values::Int(values) => tensor::widen(self.dtype, values[a]).cmp(&tensor::widen(self.dtype, values[b])),
        }
    }
}

/// The position along the axis of the largest or smallest element of x; the axis stays with extent 1. Result `i64`.
pub(super) fn arg_reduce(spec: &ArgReduce, x: &Tensor) -> Result<Vec<Tensor>, String> {
    let (outer, extent, inner) = index::around(&x.dims, spec.axis)?;
    if extent == 0 {
        return Err(format!("no element is the largest of none, in extents {:?}", x.dims));
    }
    let keys = Keys { dtype: x.dtype, values: x.decode() };
    let better = |a: usize, b: usize| {
        let order = match (keys.is_nan(a), keys.is_nan(b)) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) if spec.largest => keys.compare(a, b),
            (false, false) => keys.compare(b, a),
        };
        order == Ordering::Greater || (order == Ordering::Equal && spec.select_last)
    };
    let search = |line: usize| {
        let place = |k: usize| (line / inner * extent + k) * inner + line % inner;
        (1..extent).fold(0, |best, k| if better(place(k), place(best)) { k } else { best }) as i64
    };
    let mut dims = x.dims.clone();
    dims[usize::from(spec.axis)] = 1;
    Ok(vec![Tensor::from_i64s(DType::I64, dims, &(0..outer * inner).map(search).collect::<Vec<_>>())])
}

/// The `k` largest or smallest elements of x along `axis`, sorted, the earlier of equals first; and their `i64`
/// positions along the axis.
pub(super) fn top_k(axis: u8, largest: bool, k: usize, x: &Tensor) -> Result<Vec<Tensor>, String> {
    let (outer, extent, inner) = index::around(&x.dims, axis)?;
    if k > extent {
        return Err(format!("the {k} first of {extent} elements"));
    }
    let (size, cells) = x.cells();
    let keys = Keys { dtype: x.dtype, values: x.decode() };
    let mut values = vec![0u8; outer * k * inner * size];
    let mut indices = vec![0i64; outer * k * inner];
    for line in 0..outer * inner {
        let place = |at: usize| (line / inner * extent + at) * inner + line % inner;
        let mut order: Vec<usize> = (0..extent).collect();
        // The sort is stable, so that equals keep their order.
        order.sort_by(
            |&a, &b| {
                if largest { keys.compare(place(b), place(a)) } else { keys.compare(place(a), place(b)) }
            },
        );
        for (rank, &at) in order[..k].iter().enumerate() {
            let to = (line / inner * k + rank) * inner + line % inner;
            indices[to] = at as i64;
            values[to * size..][..size].copy_from_slice(&cells[place(at) * size..][..size]);
        }
    }
    let mut dims = x.dims.clone();
    dims[usize::from(axis)] = k;
    Ok(vec![Tensor::from_cells(x.dtype, dims.clone(), values)?, Tensor::from_i64s(DType::I64, dims, &indices)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn f32s(dims: &[usize], values: &[f64]) -> Tensor {
        Tensor::from_f64s(DType::F32, dims.to_vec(), values)
    }

    #[test]
    fn positions_of_extremes() {
        let x = f32s(&[2, 3], &[2.0, 5.0, 5.0, 1.0, 0.0, 0.0]);
        let run = |largest, select_last, axis| {
            arg_reduce(&ArgReduce { largest, axis, select_last }, &x).unwrap()[0].to_i64s()
        };
        assert_eq!(run(true, false, 1), [1, 0]);
        assert_eq!(run(true, true, 1), [2, 0]);
        assert_eq!(run(false, false, 1), [0, 1]);
        assert_eq!(run(false, true, 1), [0, 2]);
        assert_eq!(run(true, false, 0), [0, 0, 0]);
        let nan = f32s(&[4], &[9.0, f64::NAN, 1.0, f64::NAN]);
        for largest in [true, false] {
            let y = arg_reduce(&ArgReduce { largest, axis: 0, select_last: false }, &nan).unwrap();
            assert_eq!(y[0].to_i64s(), [1]);
        }
        assert!(arg_reduce(&ArgReduce { largest: true, axis: 0, select_last: false }, &f32s(&[0], &[])).is_err());
        let unsigned = Tensor::from_i64s(DType::U64, vec![2], &[1, -1]);
        let y = arg_reduce(&ArgReduce { largest: true, axis: 0, select_last: false }, &unsigned).unwrap();
        assert_eq!(y[0].to_i64s(), [1]);
    }

    #[test]
    fn the_first_k() {
        let x = f32s(&[2, 4], &[0.0, 3.0, 1.0, 3.0, 7.0, 6.0, 5.0, 4.0]);
        let y = top_k(1, true, 3, &x).unwrap();
        assert_eq!((y[0].dims.as_slice(), y[0].to_f64s()), ([2, 3].as_slice(), vec![3.0, 3.0, 1.0, 7.0, 6.0, 5.0]));
        assert_eq!(y[1].to_i64s(), [1, 3, 2, 0, 1, 2]);
        let y = top_k(0, false, 1, &x).unwrap();
        assert_eq!((y[0].to_f64s(), y[1].to_i64s()), (vec![0.0, 3.0, 1.0, 3.0], vec![0, 0, 0, 0]));
        assert!(top_k(1, true, 5, &x).is_err());
        // numpy sorts NaN last.
        let nan = f32s(&[3], &[1.0, f64::NAN, 2.0]);
        assert_eq!(top_k(0, true, 2, &nan).unwrap()[1].to_i64s(), [1, 2]);
        assert_eq!(top_k(0, false, 2, &nan).unwrap()[1].to_i64s(), [0, 2]);
    }
}
