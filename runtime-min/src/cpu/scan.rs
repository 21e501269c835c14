//! Operations along one axis in order: running sums (ONNX `CumSum`), the largest elements (ONNX `TopK`), and ranges.

use crate::cpu::element::{Arith, Kind, Number, number};
use crate::cpu::memory::{Buffer, Plain, Tensor, TensorMut};
use crate::dtype::DType;

/// Which elements a running sum takes in, and from which end.
#[derive(Clone, Copy)]
pub struct Running {
    pub axis: usize,
    pub exclusive: bool,
    pub reverse: bool,
}

/// `out` = the running sums of `x`.
pub fn cumulative_sum(spec: Running, x: &Tensor<'_>, out: &mut TensorMut<'_>, scratch: &mut Buffer) {
    let extent = x.dims[spec.axis];
    let inner: usize = x.dims[spec.axis + 1..].iter().product();
    if x.dims.count() == 0 {
        return;
    }
    number!(x.dtype, T => {
        let sums = scratch.take::<<<T as Number>::Acc as Arith>::Wide>(inner);
        let blocks = x.data::<T>().chunks_exact(extent * inner).zip(out.data::<T>().chunks_exact_mut(extent * inner));
        for (x, out) in blocks {
            sums.fill(Arith::ZERO);
            for k in 0..extent {
                let row = if spec.reverse { extent - 1 - k } else { k } * inner;
                let rows = x[row..row + inner].iter().zip(&mut out[row..row + inner]).zip(sums.iter_mut());
                for ((x, out), sum) in rows {
                    let before = *sum;
                    *sum = before.add(x.widen().to_wide());
                    let wide = if spec.exclusive { before } else { *sum };
                    *out = T::narrow(Arith::from_wide(wide));
                }
            }
        }
    });
}

/// Which end of the order is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Largest,
    Smallest,
}

/// `values` and `indices` (`i64`) = the first elements of `x` along `axis` in falling (or rising) order, as many as the
/// result has; equal ones in the order of their indices. NaN counts as larger than all numbers.
pub fn top_k(axis: usize, end: End, x: &Tensor<'_>, outputs: &mut [Option<TensorMut<'_>>; 3], scratch: &mut Buffer) {
    let Some(dims) = outputs.iter().flatten().next().map(|tensor| tensor.dims) else { return };
    let (extent, count) = (x.dims[axis], dims[axis]);
    let inner: usize = x.dims[axis + 1..].iter().product();
    let outer: usize = x.dims[..axis].iter().product();
    let [values, indices, _] = outputs;
    if dims.count() == 0 {
        return;
    }
    let order = scratch.take::<Ranked>(extent);
    number!(x.dtype, T => {
        let x = x.data::<T>();
        let mut values = values.as_mut().map(|tensor| tensor.data::<T>());
        let mut indices = indices.as_mut().map(|tensor| tensor.data::<i64>());
        for line in 0..outer * inner {
            let (block, column) = (line / inner, line % inner);
            let x = &x[block * extent * inner..][..extent * inner];
            for (k, ranked) in order.iter_mut().enumerate() {
                let rank = rank(x[k * inner + column].widen());
                *ranked = Ranked { rank: if end == End::Largest { !rank } else { rank }, index: k as u64 };
            }
            bring_forward(order, count);
            for (k, ranked) in order[..count].iter().enumerate() {
                let to = (block * count + k) * inner + column;
                if let Some(values) = &mut values {
                    values[to] = x[ranked.index as usize * inner + column];
                }
                if let Some(indices) = &mut indices {
                    indices[to] = ranked.index as i64;
                }
            }
        }
    });
}

/// An element's place in the order, and its index.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
struct Ranked {
    rank: u64,
    index: u64,
}

// SAFETY: two integers.
unsafe impl Plain for Ranked {}

/// Sorts the first `count` in order to the front.
fn bring_forward(order: &mut [Ranked], count: usize) {
    if count < order.len() {
        order.select_nth_unstable(count);
    }
    order[..count].sort_unstable();
}

/// A number that orders values as they are ordered: zeros of both signs are equal, NaN is above all.
fn rank<A: Arith>(value: A) -> u64 {
    const TOP: u64 = 1 << 63;
    if value.is_nan() {
        return u64::MAX;
    }
    match A::KIND {
        Kind::Float => {
            let bits = (value.to_f64() + 0.0).to_bits();
            if bits & TOP == 0 { bits | TOP } else { !bits }
        }
        Kind::Signed => value.to_bits_wide() ^ TOP,
        Kind::Unsigned => value.to_bits_wide(),
    }
}

/// `out[i] = start + i * delta`, rounded once.
pub fn range(start: &Tensor<'_>, delta: &Tensor<'_>, out: &mut TensorMut<'_>) {
    number!(out.dtype, T => {
        let (start, delta) = (start.data::<T>()[0].widen().to_wide(), delta.data::<T>()[0].widen().to_wide());
        for (k, out) in out.data::<T>().iter_mut().enumerate() {
            *out = T::narrow(Arith::from_wide(start.add(delta.mul(Arith::from_f64(k as f64)))));
        }
    });
}

/// `out` = these extents.
pub fn extents(values: impl Iterator<Item = i64>, out: &mut TensorMut<'_>) {
    let wide = out.dtype == DType::I64;
    for (k, value) in values.enumerate() {
        if wide {
            out.data::<i64>()[k] = value;
        } else {
            out.data::<i32>()[k] = value.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::{tensor, tensor_mut};

    fn sums(exclusive: bool, reverse: bool) -> Vec<f32> {
        let mut out = [0f32; 6];
        let spec = Running { axis: 1, exclusive, reverse };
        let x = tensor(&[1f32, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3]);
        cumulative_sum(spec, &x, &mut tensor_mut(&mut out, &[2, 3]), &mut Buffer::default());
        out.to_vec()
    }

    #[test]
    fn running_sums() {
        assert_eq!(sums(false, false), [1.0, 3.0, 6.0, 4.0, 9.0, 15.0]);
        assert_eq!(sums(true, false), [0.0, 1.0, 3.0, 0.0, 4.0, 9.0]);
        assert_eq!(sums(false, true), [6.0, 5.0, 3.0, 15.0, 11.0, 6.0]);
        assert_eq!(sums(true, true), [5.0, 3.0, 0.0, 11.0, 6.0, 0.0]);
        let mut out = [0i32; 4];
        let spec = Running { axis: 0, exclusive: false, reverse: false };
        let x = tensor(&[1, 2, i32::MAX, 4], &[2, 2]);
        cumulative_sum(spec, &x, &mut tensor_mut(&mut out, &[2, 2]), &mut Buffer::default());
        assert_eq!(out, [1, 2, i32::MIN, 6]);
    }

    fn top(end: End, x: &[f32], dims: &[usize], axis: usize, out_dims: &[usize]) -> (Vec<f32>, Vec<i64>) {
        let count = out_dims.iter().product();
        let (mut values, mut indices) = (vec![0f32; count], vec![0i64; count]);
        let mut outputs = [Some(tensor_mut(&mut values, out_dims)), Some(tensor_mut(&mut indices, out_dims)), None];
        top_k(axis, end, &tensor(x, dims), &mut outputs, &mut Buffer::default());
        (values, indices)
    }

    #[test]
    fn first_elements() {
        let x = [1.0, 3.0, 2.0, 3.0, 0.0, 5.0, 5.0, -1.0];
        let (values, indices) = top(End::Largest, &x, &[2, 4], 1, &[2, 2]);
        assert_eq!((values, indices), (vec![3.0, 3.0, 5.0, 5.0], vec![1, 3, 1, 2]));
        let (values, indices) = top(End::Smallest, &x, &[2, 4], 0, &[1, 4]);
        assert_eq!((values, indices), (vec![0.0, 3.0, 2.0, -1.0], vec![1, 0, 0, 1]));
        let (_, indices) = top(End::Largest, &[1.0, f32::NAN, 2.0], &[3], 0, &[3]);
        assert_eq!(indices, [1, 2, 0]);
    }

    #[test]
    fn ranges_and_extents() {
        let mut out = [0f32; 3];
        range(&tensor(&[1.0f32], &[]), &tensor(&[0.1f32], &[]), &mut tensor_mut(&mut out, &[3]));
        assert_eq!(out, [1.0, 1.1, 1.2]);
        let mut out = [0i32; 3];
        range(&tensor(&[5i32], &[]), &tensor(&[-2i32], &[]), &mut tensor_mut(&mut out, &[3]));
        assert_eq!(out, [5, 3, 1]);
        let mut out = [0i64; 2];
        extents([7, 9].into_iter(), &mut tensor_mut(&mut out, &[2]));
        assert_eq!(out, [7, 9]);
    }
}
