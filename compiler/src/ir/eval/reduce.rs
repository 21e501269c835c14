//! Reductions over sets of axes, and running sums (ONNX `ReduceSum`, `ReduceMean`, ..., `CumSum`).

use lapidary_runtime::DType;
use lapidary_runtime::op::{Axes, Reduce, ReduceKind};

use super::index::{self, Walk};
use super::parallel;
use super::scalar;
use super::tensor::{self, Tensor, Values};

/// Reduces x over the record's axes, which stay with extent 1. Floats are summed in doubles; integers are exact and
/// wrap, and where the formula leaves the integers, the result is truncated. Over no elements: the neutral element
/// (for a maximum -infinity or the type's smallest), a mean gives NaN (integers 0).
pub(super) fn reduce(spec: &Reduce, x: &Tensor) -> Result<Vec<Tensor>, String> {
    let sets = Sets::of(spec.axes, &x.dims)?;
    let work = x.count() * 2;
    let result = match x.decode() {
        Values::Float(values) => {
            let results =
                parallel::map(sets.starts.len(), work, |set| of_floats(spec.kind, &sets.values(&values, set)));
            Tensor::from_f64s(x.dtype, sets.dims, &results)
        }
        Values::Int(values) => {
            let wide: Vec<i128> = values.into_iter().map(|v| tensor::widen(x.dtype, v)).collect();
            let results =
                parallel::map(sets.starts.len(), work, |set| of_ints(spec.kind, x.dtype, &sets.values(&wide, set)));
            Tensor::from_i64s(x.dtype, sets.dims, &results)
        }
    };
    Ok(vec![result])
}

/// The elements that each element of the result stands for.
struct Sets {
    /// Extents of the result.
    dims: Vec<usize>,
    /// The offset of the first element of each set.
    starts: Vec<usize>,
    /// The distance of each element of a set from its first.
    offsets: Vec<usize>,
}

impl Sets {
    fn of(axes: Axes, dims: &[usize]) -> Result<Sets, String> {
        if let Some(axis) = axes.iter().find(|&axis| axis >= dims.len()) {
            return Err(format!("there is no axis {axis} in extents {dims:?}"));
        }
        let strides = index::strides(dims);
        let part = |reduced: bool| -> Vec<usize> {
            (0..dims.len()).map(|axis| if axes.contains(axis) == reduced { dims[axis] } else { 1 }).collect()
        };
        let kept = part(false);
        index::count(&kept)?;
        let offsets = Walk::new(&part(true), &strides, 0).collect();
        Ok(Sets { starts: Walk::new(&kept, &strides, 0).collect(), offsets, dims: kept })
    }

    fn values<T: Copy>(&self, values: &[T], set: usize) -> Vec<T> {
        self.offsets.iter().map(|offset| values[self.starts[set] + offset]).collect()
    }
}

fn of_floats(kind: ReduceKind, x: &[f64]) -> f64 {
    // `sum` of no floats is -0.
    let sum = |f: fn(f64) -> f64| x.iter().fold(0.0, |sum, &v| sum + f(v));
    match kind {
        ReduceKind::Sum => sum(|v| v),
        ReduceKind::Mean => sum(|v| v) / x.len() as f64,
        ReduceKind::Max => x.iter().fold(f64::NEG_INFINITY, |best, &v| scalar::max(best, v)),
        ReduceKind::Min => x.iter().fold(f64::INFINITY, |best, &v| scalar::min(best, v)),
        ReduceKind::Prod => x.iter().product(),
        ReduceKind::L1 => sum(f64::abs),
        ReduceKind::L2 => sum(|v| v * v).sqrt(),
        ReduceKind::SumSquare => sum(|v| v * v),
        ReduceKind::LogSum => sum(|v| v).ln(),
        ReduceKind::LogSumExp => {
            let largest = of_floats(ReduceKind::Max, x);
            // An infinite maximum is the result, and would make NaN of the differences.
            if largest.is_finite() {
                largest + x.iter().map(|v| (v - largest).exp()).sum::<f64>().ln()
            } else {
                largest
            }
        }
    }
}

fn of_ints(kind: ReduceKind, dtype: DType, x: &[i128]) -> i64 {
    let sum = |f: fn(i128) -> i128| x.iter().fold(0i128, |sum, &v| sum.wrapping_add(f(v)));
    let truncated = |value: f64| tensor::float_to_int(dtype, value);
    let lowest = || if dtype.is_signed_int() { i128::from(i64::MIN >> (64 - dtype.bits())) } else { 0 };
    let highest = || {
        let value_bits = if dtype == DType::Bool { 1 } else { dtype.bits() - usize::from(dtype.is_signed_int()) };
        (1i128 << value_bits) - 1
    };
    match kind {
        ReduceKind::Sum => sum(|v| v) as i64,
        ReduceKind::Mean => {
            // The sum wraps at 64 bits, as sums of the widest types do anyway.
            let sum = sum(|v| v);
            let sum = if dtype.is_signed_int() { i128::from(sum as i64) } else { i128::from(sum as u64) };
            sum.checked_div(x.len() as i128).unwrap_or(0) as i64
        }
        ReduceKind::Max => x.iter().copied().max().unwrap_or_else(lowest) as i64,
        ReduceKind::Min => x.iter().copied().min().unwrap_or_else(highest) as i64,
        ReduceKind::Prod => x.iter().fold(1i128, |product, &v| product.wrapping_mul(v)) as i64,
        ReduceKind::L1 => sum(i128::abs) as i64,
        ReduceKind::SumSquare => sum(|v| v.wrapping_mul(v)) as i64,
        ReduceKind::L2 => truncated((sum(|v| v.wrapping_mul(v)) as f64).sqrt()),
        ReduceKind::LogSum => truncated((sum(|v| v) as f64).ln()),
        ReduceKind::LogSumExp => {
            let floats: Vec<f64> = x.iter().map(|&v| v as f64).collect();
            truncated(of_floats(ReduceKind::LogSumExp, &floats))
        }
    }
}

/// How a running sum runs.
pub(super) struct Running {
    pub(super) axis: u8,
    /// Each sum leaves out its own element.
    pub(super) exclusive: bool,
    /// From the last element to the first.
    pub(super) reverse: bool,
}

/// Running sums of x along an axis (ONNX `CumSum`), in doubles or wrapping integers.
pub(super) fn cum_sum(how: &Running, x: &Tensor) -> Result<Vec<Tensor>, String> {
    let (outer, extent, inner) = index::around(&x.dims, how.axis)?;
    let along = |line: usize, k: usize| {
        let at = if how.reverse { extent - 1 - k } else { k };
        (line / inner * extent + at) * inner + line % inner
    };
    let mut values = x.decode();
    for line in 0..outer * inner {
        let places = (0..extent).map(|k| along(line, k));
        match &mut values {
            Values::Float(values) => accumulate(values, places, how.exclusive, 0.0, |sum, v| sum + v),
            Values::Int(values) => accumulate(values, places, how.exclusive, 0, i64::wrapping_add),
        }
    }
    Ok(vec![Tensor::encode(x.dtype, x.dims.clone(), &values)])
}

fn accumulate<T: Copy>(
    values: &mut [T],
    places: impl Iterator<Item = usize>,
    exclusive: bool,
    zero: T,
    add: impl Fn(T, T) -> T,
) {
    let mut sum = zero;
    for at in places {
        let before = sum;
        sum = add(sum, values[at]);
        values[at] = if exclusive { before } else { sum };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(kind: ReduceKind, axes: &[usize], x: &Tensor) -> Tensor {
        reduce(&Reduce { kind, axes: Axes::of(axes.iter().copied()) }, x).unwrap().remove(0)
    }

    #[test]
    fn axes_stay_with_extent_one() {
        let x = Tensor::from_f64s(DType::F32, vec![2, 3, 2], &(1..=12).map(f64::from).collect::<Vec<_>>());
        let y = run(ReduceKind::Sum, &[1], &x);
        assert_eq!((y.dims.as_slice(), y.to_f64s()), ([2, 1, 2].as_slice(), vec![9.0, 12.0, 27.0, 30.0]));
        let y = run(ReduceKind::Max, &[0, 2], &x);
        assert_eq!((y.dims.as_slice(), y.to_f64s()), ([1, 3, 1].as_slice(), vec![8.0, 10.0, 12.0]));
        assert_eq!(run(ReduceKind::Sum, &[], &x), x);
        assert!(reduce(&Reduce { kind: ReduceKind::Sum, axes: Axes::of([3]) }, &x).is_err());
    }

    #[test]
    fn each_kind() {
        let x = Tensor::from_f64s(DType::F64, vec![3], &[3.0, -4.0, 12.0]);
        let of = |kind| run(kind, &[0], &x).to_f64s()[0];
        assert_eq!((of(ReduceKind::Sum), of(ReduceKind::Mean)), (11.0, 11.0 / 3.0));
        assert_eq!((of(ReduceKind::Max), of(ReduceKind::Min), of(ReduceKind::Prod)), (12.0, -4.0, -144.0));
        assert_eq!((of(ReduceKind::L1), of(ReduceKind::L2), of(ReduceKind::SumSquare)), (19.0, 13.0, 169.0));
        assert_eq!(of(ReduceKind::LogSum), 11f64.ln());
        assert!((of(ReduceKind::LogSumExp) - (12.0 + ((-9f64).exp() + (-16f64).exp()).ln_1p())).abs() < 1e-15);
        let large = Tensor::from_f64s(DType::F32, vec![2], &[1000.0, 1000.0]);
        assert_eq!(run(ReduceKind::LogSumExp, &[0], &large).to_f64s(), [f64::from((1000.0 + 2f64.ln()) as f32)]);
    }

    #[test]
    fn empty_sets_give_the_neutral_element() {
        let x = Tensor::from_f64s(DType::F32, vec![2, 0], &[]);
        let of = |kind| run(kind, &[1], &x).to_f64s()[0];
        assert_eq!(of(ReduceKind::Sum).to_bits(), 0);
        assert_eq!((of(ReduceKind::Prod), of(ReduceKind::L2)), (1.0, 0.0));
        assert_eq!((of(ReduceKind::Max), of(ReduceKind::Min)), (f64::NEG_INFINITY, f64::INFINITY));
        assert_eq!((of(ReduceKind::LogSum), of(ReduceKind::LogSumExp)), (f64::NEG_INFINITY, f64::NEG_INFINITY));
        assert!(of(ReduceKind::Mean).is_nan());
        let ints = |dtype, kind| run(kind, &[0], &Tensor::from_i64s(dtype, vec![0], &[])).to_i64s()[0];
        assert_eq!((ints(DType::I8, ReduceKind::Max), ints(DType::I8, ReduceKind::Min)), (-128, 127));
        assert_eq!((ints(DType::Bool, ReduceKind::Max), ints(DType::Bool, ReduceKind::Min)), (0, 1));
        assert_eq!((ints(DType::U64, ReduceKind::Min), ints(DType::I64, ReduceKind::Max)), (-1, i64::MIN));
    }

    #[test]
    fn integers_are_exact_and_wrap() {
        let x = Tensor::from_i64s(DType::I64, vec![2], &[i64::MAX, 1]);
        assert_eq!(run(ReduceKind::Sum, &[0], &x).to_i64s(), [i64::MIN]);
        let x = Tensor::from_i64s(DType::I32, vec![3], &[-3, -4, 0]);
        assert_eq!(run(ReduceKind::Mean, &[0], &x).to_i64s(), [-2]);
        let large = Tensor::from_i64s(DType::U64, vec![2], &[-1, 3]);
        assert_eq!(run(ReduceKind::Mean, &[0], &large).to_i64s(), [1]);
        assert_eq!(run(ReduceKind::L2, &[0], &x).to_i64s(), [5]);
        let flags = Tensor::from_i64s(DType::Bool, vec![2, 2], &[0, 1, 0, 0]);
        assert_eq!(run(ReduceKind::Max, &[1], &flags).to_i64s(), [1, 0]);
    }

    #[test]
    fn nan_spreads() {
        let x = Tensor::from_f64s(DType::F32, vec![3], &[1.0, f64::NAN, 2.0]);
        for kind in [ReduceKind::Max, ReduceKind::Min, ReduceKind::Sum, ReduceKind::LogSumExp] {
            assert!(run(kind, &[0], &x).to_f64s()[0].is_nan());
        }
    }

    #[test]
    fn running_sums() {
        // The four examples of ONNX "CumSum".
        let x = Tensor::from_i64s(DType::I32, vec![3], &[1, 2, 3]);
        let run = |exclusive, reverse| cum_sum(&Running { axis: 0, exclusive, reverse }, &x).unwrap()[0].to_i64s();
        assert_eq!(run(false, false), [1, 3, 6]);
        assert_eq!(run(true, false), [0, 1, 3]);
        assert_eq!(run(false, true), [6, 5, 3]);
        assert_eq!(run(true, true), [5, 3, 0]);
        let x = Tensor::from_f64s(DType::F32, vec![2, 2], &[1.0, 2.0, 3.0, 4.0]);
        let y = cum_sum(&Running { axis: 0, exclusive: false, reverse: false }, &x).unwrap();
        assert_eq!(y[0].to_f64s(), [1.0, 2.0, 4.0, 6.0]);
    }
}
