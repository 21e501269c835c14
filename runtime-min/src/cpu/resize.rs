//! Resizing by interpolation (ONNX `Resize`): separable, one axis after another.
//!
//! Coordinates and weights are formed in double precision as the operator's formulas say, with `scale` the stated one
//! or the quotient of the extents. Floats are interpolated in `f32` (`f64` for `f64`), integers in `f64`, truncated.

use crate::cpu::element::{Arith, Number, number, word};
use crate::cpu::memory::{Buffer, Plain, Scratch, Tensor, TensorMut};
use crate::cpu::simd::vectorize;
use crate::dtype::DType;
use crate::op::{CoordinateMode, MAX_RANK, NearestMode, Resize, ResizeMode};

/// The resizing of one axis.
#[derive(Clone, Copy)]
struct Axis {
    coordinates: CoordinateMode,
    input: usize,
    output: usize,
    scale: f64,
    /// The resized length before it is rounded down.
    length: f64,
    roi: [f64; 2],
}

impl Axis {
    fn new(spec: &Resize, axis: usize, input: usize, output: usize, roi: [f64; 2]) -> Axis {
        let stated = f64::from(spec.scales[axis]);
        let (scale, length) =
            if stated > 0.0 { (stated, stated * input as f64) } else { (output as f64 / input as f64, output as f64) };
        Axis { coordinates: spec.coordinates, input, output, scale, length, roi }
    }

    fn is_identity(&self) -> bool {
        self.scale == 1.0 && self.input == self.output && self.roi == [0.0, 1.0]
    }

    /// The operand's coordinate for element `at` of the result; none where the extrapolation value stands.
    fn coordinate(&self, at: usize) -> Option<f64> {
        let at = at as f64;
        let last = self.input as f64 - 1.0;
        let half_pixel = (at + 0.5) / self.scale - 0.5;
        match self.coordinates {
            CoordinateMode::HalfPixel => Some(half_pixel),
            CoordinateMode::HalfPixelSymmetric => {
                let center = self.input as f64 / 2.0;
                Some(center * (1.0 - self.output as f64 / self.length) + half_pixel)
            }
            CoordinateMode::PytorchHalfPixel => Some(if self.length > 1.0 { half_pixel } else { 0.0 }),
            CoordinateMode::AlignCorners if self.length == 1.0 => Some(0.0),
            CoordinateMode::AlignCorners => Some(at * last / (self.length - 1.0)),
            CoordinateMode::Asymmetric => Some(at / self.scale),
            CoordinateMode::TfCropAndResize => {
                let [start, end] = self.roi;
                let found = if self.length > 1.0 {
                    start * last + at * (end - start) * last / (self.length - 1.0)
                } else {
                    0.5 * (start + end) * last
                };
                (0.0..=last).contains(&found).then_some(found)
            }
        }
    }

    fn clamp(&self, at: i64) -> usize {
        at.clamp(0, self.input.max(1) as i64 - 1) as usize
    }

    fn nearest(&self, mode: NearestMode, at: usize) -> Option<usize> {
        let coordinate = self.coordinate(at)?;
        let rounded = match mode {
            NearestMode::RoundPreferFloor => (coordinate - 0.5).ceil(),
            NearestMode::RoundPreferCeil => (coordinate + 0.5).floor(),
            NearestMode::Floor => coordinate.floor(),
            NearestMode::Ceil => coordinate.ceil(),
        };
        Some(self.clamp(rounded as i64))
    }
}

/// The interpolation kernel of an axis.
#[derive(Clone, Copy)]
struct Kernel {
    /// Its reach, before it is stretched.
    reach: f64,
    /// With antialiasing it is stretched to the distance of the result's elements: the inverse of the stretch.
    squeeze: f64,
    /// The coefficient of a cubic kernel.
    cubic: Option<f64>,
    exclude_outside: bool,
    normalize: bool,
}

impl Kernel {
    fn new(spec: &Resize, axis: &Axis) -> Kernel {
        let (reach, cubic) = match spec.mode {
            ResizeMode::Cubic => (2.0, Some(f64::from(spec.cubic_coeff_a))),
            ResizeMode::Linear | ResizeMode::Nearest(_) => (1.0, None),
        };
        let squeeze = if spec.antialias { axis.scale.min(1.0) } else { 1.0 };
        let exclude_outside = spec.exclude_outside;
        Kernel { reach, squeeze, cubic, exclude_outside, normalize: spec.antialias || exclude_outside }
    }

    /// The first neighbour, relative to the element below the coordinate.
    fn first(&self) -> i64 {
        (-self.reach / self.squeeze).floor() as i64 + 1
    }

    fn taps(&self) -> usize {
        (2 - 2 * self.first()).max(0) as usize
    }

    fn weight(&self, x: f64) -> f64 {
        let x = x.abs();
        match self.cubic {
            None => (1.0 - x).max(0.0),
            Some(a) if x <= 1.0 => ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0,
            Some(a) if x < 2.0 => ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a,
            Some(_) => 0.0,
        }
    }

    /// The neighbours of a coordinate and their weights.
    fn sample(&self, axis: &Axis, coordinate: f64, places: &mut [u64], weights: &mut [f64]) {
        let base = coordinate.floor();
        let ratio = coordinate - base;
        let mut sum = 0.0;
        for (k, (place, weight)) in (self.first()..).zip(places.iter_mut().zip(weights.iter_mut())) {
            let at = base as i64 + k;
            let outside = self.exclude_outside && !(0..axis.input as i64).contains(&at);
            *place = axis.clamp(at) as u64;
            *weight = if outside { 0.0 } else { self.weight((k as f64 - ratio) * self.squeeze) };
            sum += *weight;
        }
        if self.normalize && sum != 0.0 {
            weights.iter_mut().for_each(|weight| *weight /= sum);
        }
    }
}

/// `out` = `x` resized to its extents; `roi` holds the starts, then the ends, for tf_crop_and_resize.
pub fn run(spec: &Resize, x: &Tensor<'_>, roi: Option<&Tensor<'_>>, out: &mut TensorMut<'_>, scratch: &mut Scratch) {
    if out.dims.count() == 0 {
        return;
    }
    let rank = x.dims.len();
    let mut axes = [None; MAX_RANK];
    for (k, axis) in axes[..rank].iter_mut().enumerate() {
        let part = match roi {
            Some(roi) if spec.coordinates == CoordinateMode::TfCropAndResize => {
                [roi_value(roi, k), roi_value(roi, rank + k)]
            }
            Some(_) | None => [0.0, 1.0],
        };
        *axis = Some(Axis::new(spec, k, x.dims[k], out.dims[k], part));
    }
    match spec.mode {
        ResizeMode::Nearest(mode) => {
            let value = f64::from(spec.extrapolation_value);
            let outside = if spec.coordinates == CoordinateMode::TfCropAndResize { bits_of(x.dtype, value) } else { 0 };
            let places = places(mode, &axes, &out.dims, &mut scratch.index);
            word!(x.dtype, T => picked(x.words::<T>(), &x.dims, &out.dims.clone(), places, outside as T, out.words::<T>()));
        }
        ResizeMode::Linear | ResizeMode::Cubic => {
            let float = x.dtype.is_float();
            match (x.dtype, float) {
                (DType::F64, _) | (_, false) => interpolated::<f64>(spec, &axes, x, out, scratch),
                (_, true) => interpolated::<f32>(spec, &axes, x, out, scratch),
            }
        }
    }
}

fn roi_value(roi: &Tensor<'_>, k: usize) -> f64 {
    f64::from(roi.data::<f32>()[k])
}

/// The bits of a value in a numeric type, or of whether it is not 0.
fn bits_of(dtype: DType, value: f64) -> u64 {
    if dtype == DType::Bool {
        return u64::from(value != 0.0);
    }
    let mut word = [0u64];
    number!(dtype, T => {
        let to: &mut [T] = crate::cpu::memory::cast_mut(crate::cpu::memory::bytes_of_mut(&mut word));
        to[0] = T::narrow(Arith::from_f64(value));
    });
    word[0]
}

/// For each position of each axis the operand's position, or `u64::MAX` for the extrapolation value.
fn places<'s>(mode: NearestMode, axes: &[Option<Axis>], dims: &[usize], buffer: &'s mut Buffer) -> &'s [u64] {
    let places = buffer.take::<u64>(dims.iter().sum());
    let mut rest = &mut *places;
    for axis in axes.iter().flatten() {
        let (part, behind) = rest.split_at_mut(axis.output);
        for (at, place) in part.iter_mut().enumerate() {
            *place = axis.nearest(mode, at).map_or(u64::MAX, |place| place as u64);
        }
        rest = behind;
    }
    places
}

fn picked<T: Plain>(x: &[T], from: &[usize], dims: &[usize], places: &[u64], outside: T, out: &mut [T]) {
    let Some((&width, outer)) = dims.split_last() else {
        out[0] = x[0];
        return;
    };
    let (outer_places, inner_places) = places.split_at(places.len() - width);
    let row = from[outer.len()];
    for (index, out) in out.chunks_exact_mut(width).enumerate() {
        let (mut rest, mut end, mut scale, mut start) = (index, outer_places.len(), 1, Some(0));
        for (axis, &extent) in outer.iter().enumerate().rev() {
            let place = outer_places[end - extent + rest % extent];
            start = start.filter(|_| place != u64::MAX).map(|start| start + place as usize * scale);
            scale *= from[axis];
            rest /= extent;
            end -= extent;
        }
        let Some(start) = start else {
            out.fill(outside);
            continue;
        };
        let x = &x[start * row..][..row];
        for (out, place) in out.iter_mut().zip(inner_places) {
            *out = if *place == u64::MAX { outside } else { x[*place as usize] };
        }
    }
}

/// Interpolates axis by axis, from one buffer to the other.
fn interpolated<A: Arith>(
    spec: &Resize,
    axes: &[Option<Axis>; MAX_RANK],
    x: &Tensor<'_>,
    out: &mut TensorMut<'_>,
    scratch: &mut Scratch,
) {
    let Scratch { a, b, c, index, .. } = scratch;
    let mut dims = x.dims;
    let (mut from, mut to) = (a, b);
    number!(x.dtype, T => {
        for (to, x) in from.take::<A>(dims.count()).iter_mut().zip(x.data::<T>()) {
            *to = A::from_f64(x.widen().to_f64());
        }
    });
    for (k, axis) in axes.iter().enumerate().filter_map(|(k, axis)| Some((k, axis.as_ref()?))) {
        if axis.is_identity() {
            continue;
        }
        let kernel = Kernel::new(spec, axis);
        let taps = kernel.taps();
        let places = index.take::<u64>(axis.output * taps);
        let weights = c.take::<f64>(axis.output * taps + taps);
        let (weights, _) = weights.split_at_mut(axis.output * taps);
        for at in 0..axis.output {
            let part = at * taps..(at + 1) * taps;
            match axis.coordinate(at) {
                Some(coordinate) => kernel.sample(axis, coordinate, &mut places[part.clone()], &mut weights[part]),
                None => places[part].fill(u64::MAX),
            }
        }
        let next = dims.with(k, axis.output);
        let line = Line {
            input: axis.input,
            inner: dims[k + 1..].iter().product(),
            taps,
            places,
            weights,
            outside: A::from_f64(f64::from(spec.extrapolation_value)),
        };
        let (source, target) = (from.take::<A>(dims.count()), to.take::<A>(next.count()));
        vectorize(
            #[inline(always)]
            || line.run(source, target),
        );
        core::mem::swap(&mut from, &mut to);
        dims = next;
    }
    let values = from.take::<A>(dims.count());
    number!(x.dtype, T => {
        for (out, value) in out.data::<T>().iter_mut().zip(values) {
            *out = T::narrow(Arith::from_f64(value.to_f64()));
        }
    });
}

/// The weighted sums along one axis of `[outer, input, inner]`.
struct Line<'l, A> {
    input: usize,
    inner: usize,
    taps: usize,
    places: &'l [u64],
    weights: &'l [f64],
    outside: A,
}

impl<A: Arith> Line<'_, A> {
    #[inline(always)]
    fn run(&self, x: &[A], out: &mut [A]) {
        let Line { input, inner, taps, .. } = *self;
        if input * inner == 0 {
            return;
        }
        let output = self.places.len() / taps;
        for (x, out) in x.chunks_exact(input * inner).zip(out.chunks_exact_mut(output * inner)) {
            let samples = self.places.chunks_exact(taps).zip(self.weights.chunks_exact(taps));
            for ((places, weights), out) in samples.zip(out.chunks_exact_mut(inner)) {
                if places[0] == u64::MAX {
                    out.fill(self.outside);
                    continue;
                }
                out.fill(A::ZERO);
                for (place, weight) in places.iter().zip(weights) {
                    // A weight of zero takes nothing, not even the NaN of an infinity.
                    if *weight == 0.0 {
                        continue;
                    }
                    let weight = A::from_f64(*weight);
                    let row = &x[*place as usize * inner..][..inner];
                    for (out, x) in out.iter_mut().zip(row) {
                        *out = out.add(weight.mul(*x));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::{assert_close, tensor, tensor_mut};

    fn spec(mode: ResizeMode, coordinates: CoordinateMode, scale: f32) -> Resize {
        let mut scales = [1.0; MAX_RANK];
        scales[0] = scale;
        Resize {
            mode,
            coordinates,
            antialias: false,
            exclude_outside: false,
            cubic_coeff_a: -0.75,
            extrapolation_value: 0.0,
            scales,
        }
    }

    fn row(spec: &Resize, x: &[f32], len: usize) -> Vec<f32> {
        let mut out = vec![0f32; len];
        run(spec, &tensor(x, &[x.len()]), None, &mut tensor_mut(&mut out, &[len]), &mut Scratch::default());
        out
    }

    const NEAREST: ResizeMode = ResizeMode::Nearest(NearestMode::RoundPreferFloor);

    #[test]
    fn nearest_neighbours() {
        let x = [1.0, 2.0, 3.0, 4.0];
        let half = spec(NEAREST, CoordinateMode::HalfPixel, 2.0);
        assert_eq!(row(&half, &x, 8), [1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0, 4.0]);
        let down = spec(ResizeMode::Nearest(NearestMode::Ceil), CoordinateMode::Asymmetric, 0.5);
        assert_eq!(row(&down, &x, 2), [1.0, 3.0]);
        let tie = spec(ResizeMode::Nearest(NearestMode::RoundPreferCeil), CoordinateMode::HalfPixel, 0.5);
        assert_eq!(row(&tie, &x, 2), [2.0, 4.0]);
        let tie = spec(NEAREST, CoordinateMode::HalfPixel, 0.5);
        assert_eq!(row(&tie, &x, 2), [1.0, 3.0]);
    }

    #[test]
    fn linear_by_the_specification() {
        // Rows of the examples of the ONNX operator.
        let x = [1.0, 2.0];
        let half = spec(ResizeMode::Linear, CoordinateMode::HalfPixel, 2.0);
        assert_close(&row(&half, &x, 4), &[1.0, 1.25, 1.75, 2.0], 1e-6);
        let corners = spec(ResizeMode::Linear, CoordinateMode::AlignCorners, 2.0);
        assert_close(&row(&corners, &x, 4), &[1.0, 4.0 / 3.0, 5.0 / 3.0, 2.0], 1e-6);
        let down = spec(ResizeMode::Linear, CoordinateMode::HalfPixel, 0.6);
        assert_close(&row(&down, &[1.0, 2.0, 3.0, 4.0], 2), &[4.0 / 3.0, 3.0], 1e-6);
        let smooth = Resize { antialias: true, ..down };
        // A kernel stretched by 1 / 0.6, cut off at the borders where samples repeat.
        assert_close(&row(&smooth, &[1.0, 2.0, 3.0, 4.0], 2), &[1.4375, 2.9375], 0.2);
    }

    #[test]
    fn cubic_keeps_constants_and_lines() {
        for (antialias, exclude_outside) in [(false, false), (true, false), (false, true), (true, true)] {
            for scale in [0.4, 0.8, 2.5] {
                for mode in [ResizeMode::Linear, ResizeMode::Cubic] {
                    let spec = Resize { antialias, exclude_outside, ..spec(mode, CoordinateMode::HalfPixel, scale) };
                    let len = (10.0 * scale) as usize;
                    assert_close(&row(&spec, &[3.0; 10], len), &vec![3.0; len], 1e-6);
                }
            }
        }
        // At half the way between samples the coefficients are -3/32, 19/32, 19/32, -3/32.
        let spec = spec(ResizeMode::Cubic, CoordinateMode::Asymmetric, 2.0);
        let out = row(&spec, &[0.0, 0.0, 1.0, 0.0, 0.0], 10);
        assert_close(&out, &[0.0, -0.09375, 0.0, 0.59375, 1.0, 0.59375, 0.0, -0.09375, 0.0, 0.0], 1e-6);
    }

    #[test]
    fn cropping_extrapolates() {
        let mut scales = [0.0; MAX_RANK];
        scales[1] = 0.0;
        for mode in [NEAREST, ResizeMode::Linear] {
            let spec = Resize { extrapolation_value: 10.0, scales, ..spec(mode, CoordinateMode::TfCropAndResize, 0.0) };
            let x: Vec<f32> = (0..8).map(|x| x as f32).collect();
            let roi = [0.0f32, 0.0, 1.0, 2.0];
            let mut out = [0f32; 6];
            let (x, roi) = (tensor(&x, &[2, 4]), tensor(&roi, &[4]));
            run(&spec, &x, Some(&roi), &mut tensor_mut(&mut out, &[2, 3]), &mut Scratch::default());
            assert_eq!(out, [0.0, 3.0, 10.0, 4.0, 7.0, 10.0]);
        }
    }

    #[test]
    fn planes_of_bytes() {
        let x = [0u8, 10, 20, 30];
        let mut scales = [2.0; MAX_RANK];
        scales[0] = 1.0;
        let spec = Resize { scales, ..spec(ResizeMode::Linear, CoordinateMode::AlignCorners, 0.0) };
        let mut out = [0u8; 16];
        run(&spec, &tensor(&x, &[1, 2, 2]), None, &mut tensor_mut(&mut out, &[1, 4, 4]), &mut Scratch::default());
        assert_eq!(out[..4], [0, 3, 6, 10]);
        assert_eq!(out[12..], [20, 23, 26, 30]);
    }
}
