//! Resizing by interpolation (ONNX `Resize`): separable, one axis after another, in doubles.
//!
//! Coordinates, weights and neighbours are those of the operator's formulas, with `scale` the stated one (widened
//! from `f32`) or the quotient of the extents, and the resized length `scale * extent`, which may be fractional.

use lapidary_runtime::op::{CoordinateMode, NearestMode, Resize, ResizeMode};

use super::index;
use super::movement::{pick, separable};
use super::tensor::{Tensor, Values};

/// Resizes x to `dims`. `roi` `[2 * rank]` holds the starts, then the ends, for tf_crop_and_resize. Nearest moves
/// elements of any type; the other modes interpolate floats and truncate to integer types.
pub(super) fn resize(spec: &Resize, dims: Vec<usize>, x: &Tensor, roi: Option<&Tensor>) -> Result<Vec<Tensor>, String> {
    let error = || format!("extents {:?} resized to {dims:?}", x.dims);
    if dims.len() != x.rank() || x.rank() > spec.scales.len() || (x.count() == 0 && index::count(&dims)? > 0) {
        return Err(error());
    }
    let crops = spec.coordinates == CoordinateMode::TfCropAndResize;
    let roi = match roi.filter(|_| crops) {
        Some(roi) if roi.count() == 2 * x.rank() => roi.to_f64s(),
        None if !crops => [vec![0.0; x.rank()], vec![1.0; x.rank()]].concat(),
        Some(_) | None => return Err("cropping needs a roi of two numbers an axis".to_owned()),
    };
    let axes: Vec<Axis> = (0..x.rank())
        .map(|axis| Axis::new(spec, axis, x.dims[axis], dims[axis], [roi[axis], roi[axis + x.rank()]]))
        .collect();
    match spec.mode {
        ResizeMode::Nearest(mode) => {
            let maps: Vec<Vec<Option<usize>>> = axes.iter().map(|axis| axis.nearest(mode)).collect();
            let outside = Tensor::from_f64s(x.dtype, vec![1], &[f64::from(spec.extrapolation_value)]);
            pick(x, dims.clone(), separable(&dims, &x.dims, &maps), &outside.cells().1)
        }
        ResizeMode::Linear | ResizeMode::Cubic => {
            let mut values = x.to_f64s();
            for (k, axis) in axes.iter().enumerate().filter(|(_, axis)| !axis.is_identity()) {
                let outer = dims[..k].iter().product();
                let inner = x.dims[k + 1..].iter().product();
                values = axis.interpolate(spec, &values, outer, inner);
            }
            Ok(vec![Tensor::encode(x.dtype, dims, &Values::Float(values))])
        }
    }
}

/// The resizing of one axis.
struct Axis {
    coordinates: CoordinateMode,
    input: usize,
    output: usize,
    scale: f64,
    /// The resized length before it is rounded down.
    length: f64,
    roi: [f64; 2],
}

/// The operand's elements that make one of the result, with their weights; `None`: the extrapolation value.
type Sample = Option<Vec<(usize, f64)>>;

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

    /// The operand's coordinate of element `at`; `None` outside of what cropping allows.
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
                let coordinate = if self.length > 1.0 {
                    start * last + at * (end - start) * last / (self.length - 1.0)
                } else {
                    0.5 * (start + end) * last
                };
                (0.0..=last).contains(&coordinate).then_some(coordinate)
            }
        }
    }

    /// For each element of the result the nearest of the operand.
    fn nearest(&self, mode: NearestMode) -> Vec<Option<usize>> {
        let round = |coordinate: f64| match mode {
            NearestMode::RoundPreferFloor => (coordinate - 0.5).ceil(),
            NearestMode::RoundPreferCeil => (coordinate + 0.5).floor(),
            NearestMode::Floor => coordinate.floor(),
            NearestMode::Ceil => coordinate.ceil(),
        };
        (0..self.output).map(|at| self.coordinate(at).map(|coordinate| self.clamp(round(coordinate) as i64))).collect()
    }

    fn clamp(&self, at: i64) -> usize {
        at.clamp(0, self.input.max(1) as i64 - 1) as usize
    }

    /// The elements that are interpolated: an even number about the coordinate, clamped to the axis, and their weights.
    fn sample(&self, spec: &Resize, at: usize) -> Sample {
        let coordinate = self.coordinate(at)?;
        let base = coordinate.floor();
        let ratio = coordinate - base;
        let (reach, kernel): (f64, &dyn Fn(f64) -> f64) = match spec.mode {
            ResizeMode::Cubic => (2.0, &|x| cubic(x, f64::from(spec.cubic_coeff_a))),
            ResizeMode::Linear | ResizeMode::Nearest(_) => (1.0, &|x: f64| (1.0 - x.abs()).max(0.0)),
        };
        // With antialiasing the kernel is stretched to the distance of the result's elements.
        let squeeze = if spec.antialias { self.scale.min(1.0) } else { 1.0 };
        let first = (-reach / squeeze).floor() as i64 + 1;
        let neighbours = first..=1 - first;
        let outside = |at: i64| spec.exclude_outside && !(0..self.input as i64).contains(&at);
        let mut weights: Vec<(i64, f64)> = neighbours
            .map(|k| (base as i64 + k, kernel((k as f64 - ratio) * squeeze)))
            .map(|(at, weight)| (at, if outside(at) { 0.0 } else { weight }))
            .collect();
        let sum: f64 = weights.iter().map(|(_, weight)| weight).sum();
        if (spec.antialias || spec.exclude_outside) && sum != 0.0 {
            weights.iter_mut().for_each(|(_, weight)| *weight /= sum);
        }
        Some(weights.into_iter().map(|(at, weight)| (self.clamp(at), weight)).collect())
    }

    /// Resizes this axis of `values`, which is `[outer, input, inner]`.
    fn interpolate(&self, spec: &Resize, values: &[f64], outer: usize, inner: usize) -> Vec<f64> {
        let samples: Vec<Sample> = (0..self.output).map(|at| self.sample(spec, at)).collect();
        let mut out = Vec::with_capacity(outer * self.output * inner);
        for plane in values.chunks_exact((self.input * inner).max(1)).take(outer) {
            for sample in &samples {
                let Some(sample) = sample else {
                    out.extend(std::iter::repeat_n(f64::from(spec.extrapolation_value), inner));
                    continue;
                };
                let start = out.len();
                out.resize(start + inner, 0.0);
                // A weight of zero takes nothing, not even the NaN of an infinity.
                for &(at, weight) in sample.iter().filter(|(_, weight)| *weight != 0.0) {
                    let row = &plane[at * inner..][..inner];
                    out[start..].iter_mut().zip(row).for_each(|(sum, value)| *sum += weight * value);
                }
            }
        }
        out
    }
}

/// The cubic convolution kernel (R. Keys, "Cubic convolution interpolation for digital image processing", eq. 4).
fn cubic(x: f64, a: f64) -> f64 {
    let x = x.abs();
    if x <= 1.0 {
        ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use lapidary_runtime::DType;

    use CoordinateMode as C;
    use NearestMode as N;
    use ResizeMode as M;

    use super::*;

    /// Whether a case filters, and whether it leaves out what lies outside.
    type Extra = [bool; 2];
    const PLAIN: Extra = [false, false];
    const ANTIALIAS: Extra = [true, false];
    const EXCLUDE: Extra = [false, true];
    const BOTH: Extra = [true, true];

    fn spec(mode: ResizeMode, coordinates: CoordinateMode, scales: &[f32]) -> Resize {
        let mut all = [0.0; 8];
        all[..scales.len()].copy_from_slice(scales);
        Resize {
            mode,
            coordinates,
            antialias: false,
            exclude_outside: false,
            cubic_coeff_a: -0.75,
            extrapolation_value: -7.0,
            scales: all,
        }
    }

    fn f32s(dims: &[usize], values: &[f64]) -> Tensor {
        Tensor::from_f64s(DType::F32, dims.to_vec(), values)
    }

    fn row() -> Tensor {
        f32s(&[5], &[1.0, 5.0, 2.0, 8.0, 3.0])
    }

    fn run(spec: &Resize, dims: &[usize], x: &Tensor, roi: Option<&Tensor>) -> Vec<f64> {
        resize(spec, dims.to_vec(), x, roi).unwrap()[0].to_f64s()
    }

    fn close(a: &[f64], b: &[f64]) {
        assert!(a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5), "{a:?} {b:?}");
    }

    // The expectations are those of the ONNX project's reference implementation.

    #[test]
    fn nearest_in_every_mode() {
        let cases: [(NearestMode, CoordinateMode, f32, &[i64]); 40] = [
            (N::RoundPreferFloor, C::HalfPixel, 0.6, &[1, 2, 3]),
            (N::RoundPreferFloor, C::HalfPixel, 2.3, &[1, 1, 5, 5, 5, 2, 2, 8, 8, 3, 3]),
            (N::RoundPreferCeil, C::HalfPixel, 0.6, &[1, 2, 3]),
            (N::RoundPreferCeil, C::HalfPixel, 2.3, &[1, 1, 5, 5, 5, 2, 2, 8, 8, 3, 3]),
            (N::Floor, C::HalfPixel, 0.6, &[1, 5, 8]),
            (N::Floor, C::HalfPixel, 2.3, &[1, 1, 1, 5, 5, 5, 2, 2, 8, 8, 3]),
            (N::Ceil, C::HalfPixel, 0.6, &[5, 2, 3]),
            (N::Ceil, C::HalfPixel, 2.3, &[1, 5, 5, 2, 2, 2, 8, 8, 3, 3, 3]),
            (N::RoundPreferFloor, C::HalfPixelSymmetric, 0.6, &[1, 2, 3]),
            (N::RoundPreferFloor, C::HalfPixelSymmetric, 2.3, &[1, 1, 5, 5, 2, 2, 2, 8, 8, 3, 3]),
            (N::RoundPreferCeil, C::HalfPixelSymmetric, 0.6, &[1, 2, 3]),
            (N::RoundPreferCeil, C::HalfPixelSymmetric, 2.3, &[1, 1, 5, 5, 2, 2, 2, 8, 8, 3, 3]),
            (N::Floor, C::HalfPixelSymmetric, 0.6, &[1, 2, 8]),
            (N::Floor, C::HalfPixelSymmetric, 2.3, &[1, 1, 1, 5, 5, 2, 2, 2, 8, 8, 3]),
            (N::Ceil, C::HalfPixelSymmetric, 0.6, &[5, 2, 3]),
            (N::Ceil, C::HalfPixelSymmetric, 2.3, &[1, 5, 5, 2, 2, 2, 8, 8, 3, 3, 3]),
            (N::RoundPreferFloor, C::PytorchHalfPixel, 0.6, &[1, 2, 3]),
            (N::RoundPreferFloor, C::PytorchHalfPixel, 2.3, &[1, 1, 5, 5, 5, 2, 2, 8, 8, 3, 3]),
            (N::RoundPreferCeil, C::PytorchHalfPixel, 0.6, &[1, 2, 3]),
            (N::RoundPreferCeil, C::PytorchHalfPixel, 2.3, &[1, 1, 5, 5, 5, 2, 2, 8, 8, 3, 3]),
            (N::Floor, C::PytorchHalfPixel, 0.6, &[1, 5, 8]),
            (N::Floor, C::PytorchHalfPixel, 2.3, &[1, 1, 1, 5, 5, 5, 2, 2, 8, 8, 3]),
            (N::Ceil, C::PytorchHalfPixel, 0.6, &[5, 2, 3]),
            (N::Ceil, C::PytorchHalfPixel, 2.3, &[1, 5, 5, 2, 2, 2, 8, 8, 3, 3, 3]),
            (N::RoundPreferFloor, C::AlignCorners, 0.6, &[1, 2, 3]),
            (N::RoundPreferFloor, C::AlignCorners, 2.3, &[1, 1, 5, 5, 2, 2, 2, 8, 8, 8, 3]),
            (N::RoundPreferCeil, C::AlignCorners, 0.6, &[1, 2, 3]),
            (N::RoundPreferCeil, C::AlignCorners, 2.3, &[1, 1, 5, 5, 2, 2, 2, 8, 8, 8, 3]),
            (N::Floor, C::AlignCorners, 0.6, &[1, 5, 8]),
            (N::Floor, C::AlignCorners, 2.3, &[1, 1, 1, 5, 5, 5, 2, 2, 8, 8, 8]),
            (N::Ceil, C::AlignCorners, 0.6, &[1, 2, 3]),
            (N::Ceil, C::AlignCorners, 2.3, &[1, 5, 5, 2, 2, 2, 8, 8, 3, 3, 3]),
            (N::RoundPreferFloor, C::Asymmetric, 0.6, &[1, 2, 8]),
            (N::RoundPreferFloor, C::Asymmetric, 2.3, &[1, 1, 5, 5, 2, 2, 8, 8, 8, 3, 3]),
            (N::RoundPreferCeil, C::Asymmetric, 0.6, &[1, 2, 8]),
            (N::RoundPreferCeil, C::Asymmetric, 2.3, &[1, 1, 5, 5, 2, 2, 8, 8, 8, 3, 3]),
            (N::Floor, C::Asymmetric, 0.6, &[1, 5, 8]),
            (N::Floor, C::Asymmetric, 2.3, &[1, 1, 1, 5, 5, 2, 2, 8, 8, 8, 3]),
            (N::Ceil, C::Asymmetric, 0.6, &[1, 2, 3]),
            (N::Ceil, C::Asymmetric, 2.3, &[1, 5, 5, 2, 2, 8, 8, 3, 3, 3, 3]),
        ];
        for (mode, coordinates, scale, expected) in cases {
            let y = run(&spec(M::Nearest(mode), coordinates, &[scale]), &[expected.len()], &row(), None);
            assert_eq!(y.iter().map(|&v| v as i64).collect::<Vec<_>>(), expected, "{mode:?} {coordinates:?} {scale}");
        }
        // Every element type moves.
        let bytes = Tensor::from_i64s(DType::I4, vec![2], &[-3, 5]);
        let y = resize(&spec(M::Nearest(N::Floor), C::Asymmetric, &[2.0]), vec![4], &bytes, None).unwrap();
        assert_eq!(y[0].to_i64s(), [-3, -3, 5, 5]);
    }

    #[test]
    fn interpolation_in_every_mode() {
        let cases: [(ResizeMode, CoordinateMode, f32, Extra, &[f64]); 32] = [
            (M::Linear, C::HalfPixel, 0.6, PLAIN, &[2.33333, 2.0, 4.66667]),
            (
                M::Linear,
                C::HalfPixel,
                1.7,
                PLAIN,
                &[1.0, 2.52941, 4.88235, 3.32353, 2.88235, 6.41176, 6.38235, 3.44118],
            ),
            (M::Linear, C::HalfPixelSymmetric, 0.6, PLAIN, &[2.33333, 2.0, 4.66667]),
            (
                M::Linear,
                C::HalfPixelSymmetric,
                1.7,
                PLAIN,
                &[1.0, 3.11765, 4.64706, 2.88235, 3.76471, 7.29412, 5.64706, 3.0],
            ),
            (M::Linear, C::PytorchHalfPixel, 0.6, PLAIN, &[2.33333, 2.0, 4.66667]),
            (
                M::Linear,
                C::PytorchHalfPixel,
                1.7,
                PLAIN,
                &[1.0, 2.52941, 4.88235, 3.32353, 2.88235, 6.41176, 6.38235, 3.44118],
            ),
            (M::Linear, C::AlignCorners, 0.6, PLAIN, &[1.0, 2.0, 3.0]),
            (M::Linear, C::AlignCorners, 1.7, PLAIN, &[1.0, 3.13333, 4.8, 3.2, 2.8, 6.0, 7.0, 4.33333]),
            (M::Linear, C::Asymmetric, 0.6, PLAIN, &[1.0, 3.0, 6.33333]),
            (M::Linear, C::Asymmetric, 1.7, PLAIN, &[1.0, 3.35294, 4.47059, 2.70588, 4.11765, 7.64706, 5.35294, 3.0]),
            (M::Linear, C::HalfPixel, 0.6, ANTIALIAS, &[2.5, 4.0, 4.875]),
            (
                M::Linear,
                C::HalfPixel,
                1.7,
                ANTIALIAS,
                &[1.0, 2.52941, 4.88235, 3.32353, 2.88235, 6.41176, 6.38235, 3.44118],
            ),
            (M::Linear, C::HalfPixel, 0.6, EXCLUDE, &[2.33333, 2.0, 4.66667]),
            (
                M::Linear,
                C::HalfPixel,
                1.7,
                EXCLUDE,
                &[1.0, 2.52941, 4.88235, 3.32353, 2.88235, 6.41176, 6.38235, 3.44118],
            ),
            (M::Linear, C::HalfPixel, 0.6, BOTH, &[2.71429, 4.0, 5.14286]),
            (M::Linear, C::HalfPixel, 1.7, BOTH, &[1.0, 2.52941, 4.88235, 3.32353, 2.88235, 6.41176, 6.38235, 3.44118]),
            (M::Cubic, C::HalfPixel, 0.6, PLAIN, &[2.42593, 2.0, 4.90741]),
            (
                M::Cubic,
                C::HalfPixel,
                1.7,
                PLAIN,
                &[0.610497, 2.67701, 4.97156, 3.0081, 2.578, 6.96991, 7.14514, 3.3903],
            ),
            (M::Cubic, C::HalfPixelSymmetric, 0.6, PLAIN, &[2.42593, 2.0, 4.90741]),
            (
                M::Cubic,
                C::HalfPixelSymmetric,
                1.7,
                PLAIN,
                &[0.843681, 3.42907, 4.92642, 2.34195, 3.53572, 7.72919, 6.2589, 2.8046],
            ),
            (M::Cubic, C::PytorchHalfPixel, 0.6, PLAIN, &[2.42593, 2.0, 4.90741]),
            (
                M::Cubic,
                C::PytorchHalfPixel,
                1.7,
                PLAIN,
                &[0.610497, 2.67701, 4.97156, 3.0081, 2.578, 6.96991, 7.14514, 3.3903],
            ),
            (M::Cubic, C::AlignCorners, 0.6, PLAIN, &[1.0, 2.0, 3.0]),
            (M::Cubic, C::AlignCorners, 1.7, PLAIN, &[1.0, 3.44859, 4.996, 2.804, 2.50533, 6.5, 7.696, 4.45393]),
            (M::Cubic, C::Asymmetric, 0.6, PLAIN, &[1.0, 2.5, 7.09259]),
            (M::Cubic, C::Asymmetric, 1.7, PLAIN, &[1.0, 3.71626, 4.78476, 2.14227, 3.98667, 7.90841, 5.8622, 2.65652]),
            (M::Cubic, C::HalfPixel, 0.6, ANTIALIAS, &[2.43132, 4.46429, 5.08193]),
            (
                M::Cubic,
                C::HalfPixel,
                1.7,
                ANTIALIAS,
                &[0.610498, 2.67701, 4.97156, 3.0081, 2.57799, 6.96991, 7.14514, 3.3903],
            ),
            (M::Cubic, C::HalfPixel, 0.6, EXCLUDE, &[2.28333, 2.0, 4.71667]),
            (
                M::Cubic,
                C::HalfPixel,
                1.7,
                EXCLUDE,
                &[0.523928, 2.51164, 4.96906, 3.0081, 2.578, 6.96991, 6.93611, 3.36995],
            ),
            (M::Cubic, C::HalfPixel, 0.6, BOTH, &[2.5153, 4.39583, 5.20408]),
            (
                M::Cubic,
                C::HalfPixel,
                1.7,
                BOTH,
                &[0.523931, 2.51164, 4.96906, 3.0081, 2.578, 6.96991, 6.93611, 3.36995],
            ),
        ];
        for (mode, coordinates, scale, [antialias, exclude_outside], expected) in cases {
            let spec = Resize { antialias, exclude_outside, ..spec(mode, coordinates, &[scale]) };
            let y = run(&spec, &[expected.len()], &row(), None);
            let near = y.iter().zip(expected).all(|(a, b)| (a - b).abs() < 2e-5);
            assert!(near, "{mode:?} {coordinates:?} {scale} {antialias} {exclude_outside}: {y:?}, not {expected:?}");
        }
    }

    #[test]
    fn cropping_extrapolates() {
        let roi = f32s(&[2], &[0.2, 1.3]);
        let y = run(&spec(M::Linear, C::TfCropAndResize, &[]), &[4], &row(), Some(&roi));
        close(&y, &[4.2, 3.6, 4.333_333, -7.0]);
        let y = run(&spec(M::Nearest(N::RoundPreferFloor), C::TfCropAndResize, &[]), &[4], &row(), Some(&roi));
        close(&y, &[5.0, 2.0, 3.0, -7.0]);
        assert!(resize(&spec(M::Linear, C::TfCropAndResize, &[]), vec![4], &row(), None).is_err());
    }

    #[test]
    fn sizes_give_the_scale() {
        close(&run(&spec(M::Linear, C::HalfPixel, &[]), &[3], &row(), None), &[2.333_333, 2.0, 4.666_667]);
        let keys = Resize { cubic_coeff_a: -0.5, ..spec(M::Cubic, C::AlignCorners, &[]) };
        let expected = [1.0, 4.037_037, 4.185_188, 2.0, 6.481_483, 6.962_964, 3.0];
        close(&run(&keys, &[7], &row(), None), &expected);
    }

    #[test]
    fn axes_are_separable() {
        let x = f32s(&[2, 3], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        let y = run(&spec(M::Linear, C::AlignCorners, &[]), &[3, 4], &x, None);
        let thirds = |from: f64| (0..4).map(move |k| from + f64::from(k) * 2.0 / 3.0);
        close(&y, &[0.0, 1.5, 3.0].into_iter().flat_map(thirds).collect::<Vec<_>>());
        let y = run(&spec(M::Cubic, C::HalfPixel, &[2.0, 2.0]), &[4, 6], &x, None);
        close(&y[..6], &[-0.421875, -0.125, 0.3515625, 1.015625, 1.4921875, 1.7890625]);
        close(&y[18..], &[3.2109375, 3.5078125, 3.984375, 4.6484375, 5.125, 5.421875]);
    }
}
