//! Pooling (ONNX `MaxPool`, `AveragePool`, `LpPool`), a row of positions at a time. A NaN under the window of a maximum
//! is the maximum.

use crate::cpu::element::{Arith, Number, float, narrow, number, widen};
use crate::cpu::memory::{Scratch, Tensor, TensorMut, bytes_of, bytes_of_mut, cast, cast_mut};
use crate::cpu::sheet::Sheets;
use crate::cpu::team::{Team, parts};
use crate::cpu::window::{Axis, Geometry};
use crate::dtype::{DType, Element};
use crate::op::{Pool, PoolKind};

/// `out` = the pooled `x`; `indices` (`i64`, where wanted) = the flat indices of the maxima.
pub fn run(
    spec: &Pool,
    x: &Tensor<'_>,
    out: &mut TensorMut<'_>,
    indices: Option<&mut TensorMut<'_>>,
    scratch: &mut Scratch,
) {
    if out.dims.count() == 0 {
        return;
    }
    let geometry = Geometry::new(&spec.window, &x.dims[2..], &out.dims[2..]);
    if let (PoolKind::Max, Some(indices)) = (spec.kind, indices) {
        number!(x.dtype, T => {
            maxima_with_indices(spec, &geometry, x.data::<T>(), out.data::<T>(), indices.data::<i64>());
        });
        return;
    }
    match x.dtype {
        DType::I8 => maxima(&geometry, x.data::<i8>(), out.data(), &mut scratch.team),
        DType::U8 => maxima(&geometry, x.data::<u8>(), out.data(), &mut scratch.team),
        other => float!(other, T => planes::<T>(spec, &geometry, x.data(), out.data(), &mut scratch.team)),
    }
}

/// Whether there is a function for the type: that of ONNX's operators.
pub fn is_supported(kind: PoolKind, dtype: DType) -> bool {
    match dtype {
        DType::F64 | DType::F32 | DType::F16 | DType::BF16 => true,
        DType::I8 | DType::U8 => kind == PoolKind::Max,
        DType::I64
        | DType::I32
        | DType::I16
        | DType::U64
        | DType::U32
        | DType::U16
        | DType::Bool
        | DType::F8E4M3FN
        | DType::F8E4M3FNUZ
        | DType::F8E5M2
        | DType::F8E5M2FNUZ
        | DType::F8E8M0
        | DType::F4E2M1
        | DType::I4
        | DType::U4
        | DType::I2
        | DType::U2 => false,
    }
}

/// Pools plane by plane in the accumulator's type.
fn planes<T: Number>(spec: &Pool, geometry: &Geometry, x: &[T], out: &mut [T], team: &mut Team)
where
    T::Acc: Number<Acc = T::Acc>,
{
    let (elements, positions) = (geometry.input_count(), geometry.output_count());
    let sheets = Sheets::new(geometry);
    let count = planes_of_a_part(geometry, out.len() / positions);
    team.pieces(out, count * positions, |part, out, lane| {
        let room = lane.a.take::<T::Acc>(sheets.room());
        let offsets = sheets.offsets(&mut lane.c);
        let (wide, sums) = lane.b.take::<T::Acc>(elements + positions).split_at_mut(elements);
        for (k, out) in out.chunks_exact_mut(positions).enumerate() {
            let x = &x[(part * count + k) * elements..][..elements];
            if T::DTYPE == <T::Acc as Element>::DTYPE {
                let plane = Plane { geometry, sheets, offsets, room: &mut *room, x: cast(bytes_of(x)) };
                pool_plane::<T::Acc>(spec, plane, cast_mut(bytes_of_mut(out)));
            } else {
                widen(x, wide);
                let plane = Plane { geometry, sheets, offsets, room: &mut *room, x: &*wide };
                pool_plane(spec, plane, sums);
                narrow(sums, out);
            }
        }
    });
}

fn maxima<T: Arith>(geometry: &Geometry, x: &[T], out: &mut [T], team: &mut Team) {
    let (elements, positions) = (geometry.input_count(), geometry.output_count());
    let sheets = Sheets::new(geometry);
    let count = planes_of_a_part(geometry, out.len() / positions);
    team.pieces(out, count * positions, |part, out, lane| {
        let room = lane.a.take::<T>(sheets.room());
        let offsets = sheets.offsets(&mut lane.c);
        for (k, out) in out.chunks_exact_mut(positions).enumerate() {
            let x = &x[(part * count + k) * elements..][..elements];
            Plane { geometry, sheets, offsets, room: &mut *room, x }.fold(out, T::LOWEST, T::larger);
        }
    });
}

/// Elements under the window that are worth a part of their own.
const PART: usize = 1 << 16;

fn planes_of_a_part(geometry: &Geometry, planes: usize) -> usize {
    let cost = geometry.output_count().saturating_mul(geometry.taps() + 4).saturating_mul(planes);
    planes.div_ceil(parts(cost, PART))
}

/// One plane, and room for its sheets.
struct Plane<'p, A> {
    geometry: &'p Geometry,
    sheets: Sheets,
    offsets: &'p [u64],
    room: &'p mut [A],
    x: &'p [A],
}

impl<A: Arith> Plane<'_, A> {
    /// Folds the elements under the window; outside of the plane they are `start`.
    fn fold(self, out: &mut [A], start: A, step: impl Fn(A, A) -> A + Copy) {
        self.sheets.split(self.x, start, self.room);
        self.sheets.fold(self.offsets, self.room, out, start, |_| (), |folded, x, ()| step(folded, x));
    }
}

fn pool_plane<A: Number<Acc = A> + Arith>(spec: &Pool, plane: Plane<'_, A>, out: &mut [A]) {
    let geometry = plane.geometry;
    let [d, h, w] = geometry.axes;
    // What a sum is divided by at each position.
    let mean = |out: &mut [A], inside: fn(&Axis, usize) -> usize| {
        for ((depth, height), out) in geometry.rows().zip(out.chunks_exact_mut(w.output)) {
            let outer = inside(&d, depth) * inside(&h, height);
            for (position, out) in out.iter_mut().enumerate() {
                *out = A::from_f64(out.to_f64() / (outer * inside(&w, position)) as f64);
            }
        }
    };
    match spec.kind {
        PoolKind::Max => plane.fold(out, A::LOWEST, A::larger),
        PoolKind::Average => {
            plane.fold(out, A::ZERO, A::add);
            mean(out, Axis::inside);
        }
        PoolKind::AverageCountPad => {
            plane.fold(out, A::ZERO, A::add);
            mean(out, Axis::inside_padded);
        }
        PoolKind::Lp(2) => {
            plane.fold(out, A::ZERO, |sum, x| sum.add(x.mul(x)));
            out.iter_mut().for_each(|out| *out = A::from_f64(out.to_f64().sqrt()));
        }
        PoolKind::Lp(p) => {
            let p = f64::from(p);
            plane.fold(out, A::ZERO, |sum, x| sum.add(A::from_f64(x.abs().to_f64().powf(p))));
            out.iter_mut().for_each(|out| *out = A::from_f64(out.to_f64().powf(1.0 / p)));
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
    use crate::cpu::testing::{Random, tensor, tensor_mut};
    use crate::dtype::BF16;
    use crate::op::Window;

    fn pool<T: Number + Plain>(kind: PoolKind, window: Window, x: &[T], dims: &[usize], out_dims: &[usize]) -> Vec<T> {
        let mut out = vec![T::default(); out_dims.iter().product()];
        let spec = Pool { kind, window, index_order: 0 };
        run(&spec, &tensor(x, dims), &mut tensor_mut(&mut out, out_dims), None, &mut Scratch::default());
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
                &mut Scratch::default(),
            );
            assert_eq!(out, [9.0, 8.0, 0.0, 1.0]);
            assert_eq!(indices, expected);
        }
    }

    #[test]
    fn windows_of_all_kinds_see_the_elements_under_them() {
        let mut random = Random::new(51);
        for round in 0..60 {
            let rank = 1 + round % 3;
            let mut window = window(1, 1, 0);
            window.rank = rank as u8;
            let (mut dims, mut out_dims) = (vec![2, 3], vec![2, 3]);
            for axis in 0..rank {
                window.size[axis] = 1 + random.below(4) as u32;
                window.stride[axis] = 1 + random.below(3) as u32;
                window.dilation[axis] = 1 + random.below(2) as u32;
                window.pad_lo[axis] = random.below(window.size[axis] as usize) as u32;
                window.pad_hi[axis] = random.below(window.size[axis] as usize) as u32;
                let extent = window.extent(axis) as usize + random.below(40);
                let padded = extent + (window.pad_lo[axis] + window.pad_hi[axis]) as usize;
                dims.push(extent);
                out_dims.push((padded - window.extent(axis) as usize) / window.stride[axis] as usize + 1);
            }
            let x = random.floats(dims.iter().product());
            let geometry = Geometry::new(&window, &dims[2..], &out_dims[2..]);
            let count = out_dims.iter().product();
            let (mut max, mut indices) = (vec![0f32; count], vec![0i64; count]);
            let spec = Pool { kind: PoolKind::Max, window, index_order: 0 };
            maxima_with_indices(&spec, &geometry, &x, &mut max, &mut indices);
            assert_eq!(pool(PoolKind::Max, window, &x, &dims, &out_dims), max);
            let halves: Vec<BF16> = x.iter().map(|x| BF16::from_f32(*x)).collect();
            let of_halves = pool(PoolKind::Max, window, &halves, &dims, &out_dims);
            assert!(of_halves.iter().zip(&max).all(|(half, max)| *half == BF16::from_f32(*max)));
            let means = pool(PoolKind::Average, window, &vec![3f32; x.len()], &dims, &out_dims);
            assert!(means.iter().all(|mean| (mean - 3.0).abs() < 1e-6));
        }
    }
}
