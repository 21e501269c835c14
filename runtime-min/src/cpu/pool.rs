//! Pooling (ONNX `MaxPool`, `AveragePool`, `LpPool`), a row of positions at a time. A NaN under the window of a maximum
//! is the maximum.

use crate::cpu::element::{Arith, Number, number};
use crate::cpu::memory::{Buffer, Tensor, TensorMut};
use crate::cpu::simd::vectorize;
use crate::cpu::window::Geometry;
use crate::op::{Pool, PoolKind};

/// `out` = the pooled `x`; `indices` (`i64`, where wanted) = the flat indices of the maxima.
pub fn run(
    spec: &Pool,
    x: &Tensor<'_>,
    out: &mut TensorMut<'_>,
    indices: Option<&mut TensorMut<'_>>,
    scratch: &mut Buffer,
) {
    if out.dims.count() == 0 {
        return;
    }
    let geometry = Geometry::new(&spec.window, &x.dims[2..], &out.dims[2..]);
    number!(x.dtype, T => {
        let (x, out) = (x.data::<T>(), out.data::<T>());
        match (spec.kind, indices) {
            (PoolKind::Max, Some(indices)) => {
                maxima_with_indices(spec, &geometry, x, out, indices.data::<i64>());
            }
            _ => planes(spec, &geometry, x, out, scratch),
        }
    });
}

fn planes<T: Number>(spec: &Pool, geometry: &Geometry, x: &[T], out: &mut [T], scratch: &mut Buffer) {
    let row = scratch.take::<T::Acc>(geometry.axes[2].output);
    let (elements, positions) = (geometry.input_count(), geometry.output_count());
    for (plane, out) in out.chunks_exact_mut(positions).enumerate() {
        let x = &x[plane * elements..][..elements];
        vectorize(
            #[inline(always)]
            || match spec.kind {
                PoolKind::Max => fold_rows(geometry, x, out, row, T::Acc::LOWEST, T::Acc::larger, |_, _, _, sum| sum),
                PoolKind::Average => {
                    let mean = |d: usize, h: usize, w: usize, sum| {
                        let [z, y, x] = &geometry.axes;
                        divide(sum, z.inside(d) * y.inside(h) * x.inside(w))
                    };
                    fold_rows(geometry, x, out, row, T::Acc::ZERO, T::Acc::add, mean);
                }
                PoolKind::AverageCountPad => {
                    let mean = |d: usize, h: usize, w: usize, sum| {
                        let [z, y, x] = &geometry.axes;
                        divide(sum, z.inside_padded(d) * y.inside_padded(h) * x.inside_padded(w))
                    };
                    fold_rows(geometry, x, out, row, T::Acc::ZERO, T::Acc::add, mean);
                }
                PoolKind::Lp(1) => {
                    let add = |sum: T::Acc, x: T::Acc| sum.add(x.abs());
                    fold_rows(geometry, x, out, row, T::Acc::ZERO, add, |_, _, _, sum| sum);
                }
                PoolKind::Lp(2) => {
                    let add = |sum: T::Acc, x: T::Acc| sum.add(x.mul(x));
                    let root = |_, _, _, sum: T::Acc| T::Acc::from_f64(sum.to_f64().sqrt());
                    fold_rows(geometry, x, out, row, T::Acc::ZERO, add, root);
                }
                PoolKind::Lp(p) => {
                    let p = f64::from(p);
                    let add = |sum: T::Acc, x: T::Acc| sum.add(T::Acc::from_f64(x.abs().to_f64().powf(p)));
                    let root = |_, _, _, sum: T::Acc| T::Acc::from_f64(sum.to_f64().powf(1.0 / p));
                    fold_rows(geometry, x, out, row, T::Acc::ZERO, add, root);
                }
            },
        );
    }
}

/// `sum / count`; a window without elements gives NaN (0 for integers).
#[inline(always)]
fn divide<A: Arith>(sum: A, count: usize) -> A {
    A::from_f64(sum.to_f64() / count as f64)
}

#[inline(always)]
fn fold_rows<T: Number>(
    geometry: &Geometry,
    x: &[T],
    out: &mut [T],
    row: &mut [T::Acc],
    start: T::Acc,
    step: impl Fn(T::Acc, T::Acc) -> T::Acc + Copy,
    finish: impl Fn(usize, usize, usize, T::Acc) -> T::Acc,
) {
    let w = geometry.axes[2];
    for ((depth, height), out) in geometry.rows().zip(out.chunks_exact_mut(w.output)) {
        row.fill(start);
        for (_, begin) in geometry.row_taps(depth, height) {
            let x = &x[begin..][..w.input];
            for tap in 0..w.size {
                let span = w.span(tap);
                if span.is_empty() {
                    continue;
                }
                let x = &x[span.start * w.stride + tap * w.dilation - w.pad_lo..];
                let row = &mut row[span];
                if w.stride == 1 {
                    row.iter_mut().zip(x).for_each(|(sum, x)| *sum = step(*sum, x.widen()));
                } else {
                    row.iter_mut().zip(x.iter().step_by(w.stride)).for_each(|(sum, x)| *sum = step(*sum, x.widen()));
                }
            }
        }
        for (position, (out, sum)) in out.iter_mut().zip(row.iter()).enumerate() {
            *out = T::narrow(finish(depth, height, position, *sum));
        }
    }
}

fn maxima_with_indices<T: Number>(spec: &Pool, geometry: &Geometry, x: &[T], out: &mut [T], indices: &mut [i64]) {
    let [d, h, w] = geometry.axes;
    let (elements, positions) = (geometry.input_count(), geometry.output_count());
    for (place, (out, index)) in out.iter_mut().zip(indices).enumerate() {
        let (plane, position) = (place / positions, place % positions);
        let at = [position / (h.output * w.output), position / w.output % h.output, position % w.output];
        let mut best: Option<(T::Acc, usize)> = None;
        for tap in 0..geometry.taps() {
            let [kd, kh, kw] = geometry.tap(tap);
            let (Some(iz), Some(iy), Some(ix)) = (d.at(at[0], kd), h.at(at[1], kh), w.at(at[2], kw)) else { continue };
            let value = x[plane * elements + (iz * h.input + iy) * w.input + ix].widen();
            if best.is_none_or(|(max, _)| value > max || (value.is_nan() && !max.is_nan())) {
                let number = match spec.index_order {
                    0 => (iz * h.input + iy) * w.input + ix,
                    _ => (ix * h.input + iy) * d.input + iz,
                };
                best = Some((value, plane * elements + number));
            }
        }
        let (value, number) = best.unwrap_or((T::Acc::LOWEST, 0));
        *out = T::narrow(value);
        *index = number as i64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::memory::Plain;
    use crate::cpu::testing::{tensor, tensor_mut};
    use crate::op::Window;

    fn pool<T: Number + Plain>(kind: PoolKind, window: Window, x: &[T], dims: &[usize], out_dims: &[usize]) -> Vec<T> {
        let mut out = vec![T::default(); out_dims.iter().product()];
        let spec = Pool { kind, window, index_order: 0 };
        run(&spec, &tensor(x, dims), &mut tensor_mut(&mut out, out_dims), None, &mut Buffer::default());
        out
    }

    fn window(size: u32, stride: u32, pad: u32) -> Window {
        Window { rank: 1, size: [size; 3], stride: [stride; 3], dilation: [1; 3], pad_lo: [pad; 3], pad_hi: [pad; 3] }
    }

    #[test]
    fn maxima_ignore_padding_and_keep_nan() {
        let x = [-3.0f32, -1.0, f32::NAN, -2.0, -5.0];
        let out = pool(PoolKind::Max, window(2, 1, 1), &x, &[1, 1, 5], &[1, 1, 6]);
        assert_eq!((out[0], out[1], out[5]), (-3.0, -1.0, -5.0));
        assert!(out[2].is_nan() && out[3].is_nan());
        assert_eq!(pool(PoolKind::Max, window(2, 2, 0), &[1i8, -4, 3, 2], &[1, 1, 4], &[1, 1, 2]), [1, 3]);
    }

    #[test]
    fn means_count_padding_only_where_told() {
        let x = [1.0f32, 2.0, 3.0];
        assert_eq!(pool(PoolKind::Average, window(3, 2, 1), &x, &[1, 1, 3], &[1, 1, 2]), [1.5, 2.5]);
        assert_eq!(pool(PoolKind::AverageCountPad, window(3, 2, 1), &x, &[1, 1, 3], &[1, 1, 2]), [1.0, 5.0 / 3.0]);
        // Ceil mode: the last window reaches one element beyond the padding, which does not count.
        let out = pool(PoolKind::AverageCountPad, window(3, 3, 1), &[1.0f32, 2.0, 3.0, 4.0], &[1, 1, 4], &[1, 1, 2]);
        assert_eq!(out, [1.0, 7.0 / 3.0]);
        let out = pool(PoolKind::AverageCountPad, window(3, 3, 1), &[1.0f32, 2.0, 3.0], &[1, 1, 3], &[1, 1, 2]);
        assert_eq!(out, [1.0, 1.5]);
    }

    #[test]
    fn norms() {
        assert_eq!(pool(PoolKind::Lp(2), window(2, 2, 0), &[3.0f32, -4.0], &[1, 1, 2], &[1, 1, 1]), [5.0]);
        assert_eq!(pool(PoolKind::Lp(1), window(2, 2, 0), &[3.0f32, -4.0], &[1, 1, 2], &[1, 1, 1]), [7.0]);
        let out = pool(PoolKind::Lp(3), window(2, 2, 0), &[3.0f32, -4.0], &[1, 1, 2], &[1, 1, 1]);
        assert!((f64::from(out[0]) - 91f64.cbrt()).abs() < 1e-6);
    }

    #[test]
    fn indices_are_flat_over_the_whole_tensor() {
        let window = Window { rank: 2, size: [2; 3], stride: [2; 3], dilation: [1; 3], pad_lo: [0; 3], pad_hi: [0; 3] };
        let x = [1.0f32, 2.0, 5.0, 6.0, 3.0, 9.0, 8.0, 7.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0];
        for (index_order, expected) in [(0, [5, 6, 8, 15]), (1, [3, 5, 8, 15])] {
            let (mut out, mut indices) = ([0f32; 4], [0i64; 4]);
            let spec = Pool { kind: PoolKind::Max, window, index_order };
            let mut places = tensor_mut(&mut indices, &[1, 2, 1, 2]);
            run(
                &spec,
                &tensor(&x, &[1, 2, 2, 4]),
                &mut tensor_mut(&mut out, &[1, 2, 1, 2]),
                Some(&mut places),
                &mut Buffer::default(),
            );
            assert_eq!(out, [9.0, 8.0, 0.0, 1.0]);
            assert_eq!(indices, expected);
        }
    }
}
