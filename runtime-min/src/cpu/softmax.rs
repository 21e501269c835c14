//! Softmax and its logarithm along one axis (ONNX `Softmax`, `LogSoftmax`), shifted by the maximum. Sums are formed in
//! double precision.

use crate::cpu::element::{Arith, Number, Real, float, sum};
use crate::cpu::memory::{Scratch, Tensor, TensorMut};
use crate::cpu::simd::vectorize;
use crate::cpu::team::{Team, parts};
use crate::op::Softmax;

/// Elements that are worth a part of their own.
const PART: usize = 1 << 13;

/// `out` = the softmax of `x`.
pub fn run(spec: &Softmax, x: &Tensor<'_>, out: &mut TensorMut<'_>, scratch: &mut Scratch) {
    let axis = usize::from(spec.axis);
    let extent = x.dims[axis];
    let inner: usize = x.dims[axis + 1..].iter().product();
    if x.dims.count() == 0 {
        return;
    }
    float!(x.dtype, T => blocks::<T>(spec, extent, inner, x.data(), out.data(), &mut scratch.team));
}

fn blocks<T: Number>(spec: &Softmax, extent: usize, inner: usize, x: &[T], out: &mut [T], team: &mut Team)
where
    T::Acc: Real + Number<Acc = T::Acc>,
{
    let size = extent * inner;
    let blocks = out.len() / size;
    let count = blocks.div_ceil(parts(out.len(), PART));
    team.pieces(out, count * size, |part, out, lane| {
        let values = lane.a.take::<T::Acc>(size);
        let max = lane.b.take::<T::Acc>(inner);
        let sums = lane.c.take::<f64>(inner);
        for (x, out) in x[part * count * size..].chunks_exact(size).zip(out.chunks_exact_mut(size)) {
            vectorize(
                #[inline(always)]
                || {
                    if inner == 1 {
                        row(spec, x, values, out);
                    } else {
                        columns(spec, x, values, max, sums, out);
                    }
                },
            );
        }
    });
}

/// The softmax of one contiguous row.
#[inline(always)]
fn row<T: Number>(spec: &Softmax, x: &[T], values: &mut [T::Acc], out: &mut [T])
where
    T::Acc: Real + Number<Acc = T::Acc>,
{
    let max = maximum(x);
    for (value, x) in values.iter_mut().zip(x) {
        *value = x.widen().sub(max).exp();
    }
    let total = sum(values, |x| x.to_wide()).to_f64();
    if spec.log {
        let shift = T::Acc::from_f64(total.ln());
        for (out, x) in out.iter_mut().zip(x) {
            *out = T::narrow(x.widen().sub(max).sub(shift));
        }
    } else {
        let scale = T::Acc::from_f64(1.0 / total);
        for (out, value) in out.iter_mut().zip(values.iter()) {
            *out = T::narrow(value.mul(scale));
        }
    }
}

/// The maximum of a row, in 16 running ones. A NaN may get lost here: its exponential brings it back.
#[inline(always)]
fn maximum<T: Number>(x: &[T]) -> T::Acc {
    let max = |a: T::Acc, b: T::Acc| if b > a { b } else { a };
    let chunks = x.chunks_exact(16);
    let mut lanes = [T::Acc::LOWEST; 16];
    let rest = chunks.remainder().iter().fold(T::Acc::LOWEST, |m, x| max(m, x.widen()));
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane = max(*lane, x.widen());
        }
    }
    lanes.into_iter().fold(rest, max)
}

/// The softmax of the columns of a block, row by row.
#[inline(always)]
fn columns<T: Number>(
    spec: &Softmax,
    x: &[T],
    values: &mut [T::Acc],
    max: &mut [T::Acc],
    sums: &mut [f64],
    out: &mut [T],
) where
    T::Acc: Real,
{
    let inner = max.len();
    max.fill(T::Acc::LOWEST);
    sums.fill(0.0);
    for x in x.chunks_exact(inner) {
        for (max, x) in max.iter_mut().zip(x) {
            *max = max.larger(x.widen());
        }
    }
    for (x, values) in x.chunks_exact(inner).zip(values.chunks_exact_mut(inner)) {
        for (((value, x), max), sum) in values.iter_mut().zip(x).zip(max.iter()).zip(sums.iter_mut()) {
            *value = x.widen().sub(*max).exp();
            *sum += value.to_f64();
        }
    }
    if spec.log {
        sums.iter_mut().for_each(|sum| *sum = sum.ln());
        for (x, out) in x.chunks_exact(inner).zip(out.chunks_exact_mut(inner)) {
            for (((out, x), max), sum) in out.iter_mut().zip(x).zip(max.iter()).zip(sums.iter()) {
                *out = T::narrow(x.widen().sub(*max).sub(T::Acc::from_f64(*sum)));
            }
        }
    } else {
        sums.iter_mut().for_each(|sum| *sum = 1.0 / *sum);
        for (values, out) in values.chunks_exact(inner).zip(out.chunks_exact_mut(inner)) {
            for ((out, value), sum) in out.iter_mut().zip(values).zip(sums.iter()) {
                *out = T::narrow(value.mul(T::Acc::from_f64(*sum)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::{Random, assert_close, tensor, tensor_mut};
    use crate::dtype::F16;

    fn softmax(axis: u8, log: bool, x: &[f32], dims: &[usize]) -> Vec<f32> {
        let mut out = vec![0f32; x.len()];
        let spec = Softmax { axis, log };
        run(&spec, &tensor(x, dims), &mut tensor_mut(&mut out, dims), &mut Scratch::default());
        out
    }

    #[test]
    fn every_axis_agrees_with_the_formula() {
        let mut random = Random::new(9);
        let dims = [3, 50, 7];
        let x: Vec<f32> = random.floats(3 * 50 * 7).into_iter().map(|x| x * 20.0).collect();
        for (axis, stride) in [(0, 350), (1, 7), (2, 1)] {
            let line = |k: usize| {
                let at = k / stride % dims[axis];
                let base = k - at * stride;
                (0..dims[axis]).map(move |i| base + i * stride)
            };
            let log: Vec<f64> = (0..x.len())
                .map(|k| f64::from(x[k]) - line(k).map(|i| f64::from(x[i]).exp()).sum::<f64>().ln())
                .collect();
            let plain: Vec<f64> = log.iter().map(|x| x.exp()).collect();
            assert_close(&softmax(axis as u8, false, &x, &dims), &plain, 3e-7);
            assert_close(&softmax(axis as u8, true, &x, &dims), &log, 3e-7);
        }
    }

    #[test]
    fn limits() {
        let inf = f32::INFINITY;
        assert_eq!(softmax(0, false, &[-inf, 0.0, 0.0], &[3]), [0.0, 0.5, 0.5]);
        assert!(softmax(0, false, &[-inf, -inf], &[2]).iter().all(|x| x.is_nan()));
        assert!(softmax(0, false, &[f32::NAN, 1.0], &[2]).iter().all(|x| x.is_nan()));
        let x = [F16::from_f32(60000.0), F16::from_f32(60000.0)];
        let mut out = [F16::default(); 2];
        let spec = Softmax { axis: 0, log: false };
        run(&spec, &tensor(&x, &[2]), &mut tensor_mut(&mut out, &[2]), &mut Scratch::default());
        assert_eq!(out.map(F16::to_f32), [0.5, 0.5]);
    }
}
