//! Resizing by interpolation (ONNX Resize, and its predecessor Upsample).
//!
//! Scales are constants; sizes may be formulas. An extent is `floor(dim * scale)` in `f32`, as the standard's shape
//! inference and every runtime compute it; for a symbolic extent it is the same as a quotient of integers, which is
//! compared with the `f32` product over the range of the dimension.

use lapidary_runtime::DType;
use lapidary_runtime::op::{CoordinateMode, MAX_RANK, NearestMode, Resize, ResizeMode};

use super::entry::{binary, op, unary};
use super::{Cx, Fault, Imported, OpDef, one, operands};
use crate::diag::quoted;
use crate::ir::{Builder, Expr, Op, ValueId};

pub const DEFS: &[OpDef] = &[
    unary("Upsample", 7, upsample_attribute),
    binary("Upsample", 9, resize_by_scales),
    binary("Resize", 10, resize_by_scales),
    op("Resize", 11, (1, 4), resize),
];

fn upsample_attribute(cx: &mut Cx<'_, '_>) -> Imported {
    let scales = cx.attrs.floats("scales")?.to_vec();
    before_modes(cx, &scales)
}

fn resize_by_scales(cx: &mut Cx<'_, '_>) -> Imported {
    let scales = constant_scales(cx, 1)?.ok_or("the scales are missing")?;
    before_modes(cx, &scales)
}

/// Up to operator set 10: coordinates are quotients by the scale; the nearest element is the one below where an axis
/// grows, and the one above where it shrinks.
fn before_modes(cx: &mut Cx<'_, '_>, scales: &[f32]) -> Imported {
    let x = cx.input(0)?;
    let rank = cx.b.rank(x);
    if scales.len() != rank {
        return Err(format!("there are {} scales for rank {rank}", scales.len()).into());
    }
    let modes = [("nearest", None), ("linear", Some(ResizeMode::Linear)), ("bilinear", Some(ResizeMode::Linear))];
    let passes = match cx.attrs.choice_or("mode", None, &modes)? {
        Some(mode) => vec![(mode, scales.to_vec())],
        None => {
            let part = |keep: fn(f32) -> bool| scales.iter().map(|&s| if keep(s) { s } else { 1.0 }).collect();
            vec![
                (ResizeMode::Nearest(NearestMode::Floor), part(|scale| scale >= 1.0)),
                (ResizeMode::Nearest(NearestMode::Ceil), part(|scale| scale < 1.0)),
            ]
        }
    };
    let mut result = x;
    for (mode, scales) in passes {
        let mut spec = Resize {
            mode,
            coordinates: CoordinateMode::Asymmetric,
            antialias: false,
            exclude_outside: false,
            cubic_coeff_a: 0.0,
            extrapolation_value: 0.0,
            scales: [1.0; MAX_RANK],
        };
        let dims = scaled(cx, result, &scales, &mut spec)?;
        if scales.iter().any(|&scale| scale != 1.0) {
            result = cx.b.node(Op::Resize(spec, dims), &[result])?;
        }
    }
    one(result)
}

/// The extents after scaling every axis of `x`; the scales are noted in `spec`.
fn scaled(cx: &Cx<'_, '_>, x: ValueId, scales: &[f32], spec: &mut Resize) -> Result<Vec<Expr>, Fault> {
    spec.scales[..scales.len()].copy_from_slice(scales);
    let dims = cx.b.dims(x);
    dims.iter().zip(scales).map(|(dim, &scale)| scaled_extent(&cx.b, dim, scale)).collect()
}

fn resize(cx: &mut Cx<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    let dims = cx.b.dims(x);
    let axes = match cx.attrs.ints_opt("axes")? {
        None => (0..dims.len()).collect(),
        Some(axes) => {
            cx.axes(axes, dims.len())?;
            axes.iter().map(|&axis| cx.axis(axis, dims.len())).collect::<Result<Vec<usize>, Fault>>()?
        }
    };
    let policy = policy(cx)?;
    let mut spec = modes(cx)?;
    let roi =
        if spec.coordinates == CoordinateMode::TfCropAndResize { Some(roi(cx, &axes, dims.len())?) } else { None };
    let sizes = match cx.optional(3).filter(|&sizes| !cx.b.ty(sizes).count().is(0)) {
        Some(_) => Some(operands::known(cx, 3, "sizes")?),
        None => None,
    };
    let scales = constant_scales(cx, 2)?;
    let target = match (sizes, scales) {
        (Some(sizes), None) => Target::Sizes(sizes),
        (None, Some(scales)) => Target::Scales(scales),
        (Some(_), Some(_)) => return Err("it has both scales and sizes".into()),
        (None, None) => return Err("it has neither scales nor sizes".into()),
    };
    if target.len() != axes.len() {
        return Err(format!("there are {} scales or sizes for {} axes", target.len(), axes.len()).into());
    }
    let extents = match target {
        Target::Sizes(sizes) => resize_to(&mut spec, &dims, &axes, sizes, policy)?,
        Target::Scales(scales) => resize_by(cx, &mut spec, &dims, &axes, &scales, roi.as_ref())?,
    };
    match roi {
        Some(roi) => {
            let roi = roi.operand(cx)?;
            one(cx.b.node(Op::Resize(spec, extents), &[x, roi])?)
        }
        None if extents == dims && spec.scales.iter().all(|&scale| scale == 0.0 || scale == 1.0) => one(x),
        None => one(cx.b.node(Op::Resize(spec, extents), &[x])?),
    }
}

/// What a node asks for, axis by axis.
enum Target {
    Scales(Vec<f32>),
    Sizes(Vec<Expr>),
}

impl Target {
    fn len(&self) -> usize {
        match self {
            Target::Scales(scales) => scales.len(),
            Target::Sizes(sizes) => sizes.len(),
        }
    }
}

/// Interpolation and coordinates, with no axis scaled.
fn modes(cx: &Cx<'_, '_>) -> Result<Resize, Fault> {
    use NearestMode::{Ceil, Floor, RoundPreferCeil, RoundPreferFloor};
    let nearest = [
        ("round_prefer_floor", RoundPreferFloor),
        ("round_prefer_ceil", RoundPreferCeil),
        ("floor", Floor),
        ("ceil", Ceil),
    ];
    let nearest = ResizeMode::Nearest(cx.attrs.choice_or("nearest_mode", RoundPreferFloor, &nearest)?);
    let modes = [("nearest", nearest), ("linear", ResizeMode::Linear), ("cubic", ResizeMode::Cubic)];
    let mode = cx.attrs.choice_or("mode", nearest, &modes)?;
    let antialias = cx.attrs.flag_or("antialias", 0)?;
    if antialias && mode == nearest {
        return Err(cx.attrs.bad_value("antialias", "is 1", "the mode nearest has no filter to stretch").into());
    }
    Ok(Resize {
        mode,
        coordinates: coordinates(cx)?,
        antialias,
        exclude_outside: cx.attrs.flag_or("exclude_outside", 0)?,
        cubic_coeff_a: cx.attrs.float_or("cubic_coeff_a", -0.75)?,
        extrapolation_value: cx.attrs.float_or("extrapolation_value", 0.0)?,
        scales: [1.0; MAX_RANK],
    })
}

fn coordinates(cx: &Cx<'_, '_>) -> Result<CoordinateMode, Fault> {
    const NAME: &str = "coordinate_transformation_mode";
    if cx.attrs.str_or(NAME, "")? == "tf_half_pixel_for_nn" {
        return Err(Fault::unsupported(
            "the coordinates tf_half_pixel_for_nn are not supported",
            "use half_pixel with nearest_mode floor, which picks the same elements, and operator set 13",
        ));
    }
    let modes = [
        ("half_pixel", CoordinateMode::HalfPixel),
        ("half_pixel_symmetric", CoordinateMode::HalfPixelSymmetric),
        ("pytorch_half_pixel", CoordinateMode::PytorchHalfPixel),
        ("align_corners", CoordinateMode::AlignCorners),
        ("asymmetric", CoordinateMode::Asymmetric),
        ("tf_crop_and_resize", CoordinateMode::TfCropAndResize),
    ];
    Ok(cx.attrs.choice_or(NAME, CoordinateMode::HalfPixel, &modes)?)
}

/// What sizes mean to the ratio of the axes.
#[derive(Clone, Copy, PartialEq)]
enum Policy {
    Stretch,
    NotLarger,
    NotSmaller,
}

fn policy(cx: &Cx<'_, '_>) -> Result<Policy, Fault> {
    let policies =
        [("stretch", Policy::Stretch), ("not_larger", Policy::NotLarger), ("not_smaller", Policy::NotSmaller)];
    Ok(cx.attrs.choice_or("keep_aspect_ratio_policy", Policy::Stretch, &policies)?)
}

/// The result's extents for stated sizes.
fn resize_to(
    spec: &mut Resize,
    dims: &[Expr],
    axes: &[usize],
    sizes: Vec<Expr>,
    policy: Policy,
) -> Result<Vec<Expr>, Fault> {
    let mut extents = dims.to_vec();
    if policy == Policy::Stretch {
        for (&axis, size) in axes.iter().zip(sizes) {
            spec.scales[axis] = 0.0;
            extents[axis] = size;
        }
        return Ok(extents);
    }
    // One scale for all axes: the smallest or the largest of theirs.
    let ratio = |(&axis, size): (&usize, &Expr)| Some((dims[axis].as_const()? as f64, size.as_const()? as f64));
    let Some(ratios) = axes.iter().zip(&sizes).map(ratio).collect::<Option<Vec<(f64, f64)>>>() else {
        return Err(Fault::unsupported(
            "sizes that keep the aspect ratio of symbolic extents are not supported",
            "pin the dimensions with a profile, or give the node scales",
        ));
    };
    let scales = ratios.iter().map(|(dim, size)| size / dim);
    let scale = match policy {
        Policy::NotSmaller => scales.fold(f64::NEG_INFINITY, f64::max),
        Policy::NotLarger | Policy::Stretch => scales.fold(f64::INFINITY, f64::min),
    };
    if !scale.is_finite() || scale <= 0.0 {
        return Err(Fault::Invalid(format!("sizes {sizes:?} of extents {dims:?} are no scale")));
    }
    for (&axis, (dim, _)) in axes.iter().zip(&ratios) {
        spec.scales[axis] = scale as f32;
        extents[axis] = Expr::constant((scale * dim + 0.5).floor() as i64);
    }
    Ok(extents)
}

/// The result's extents for stated scales.
fn resize_by(
    cx: &Cx<'_, '_>,
    spec: &mut Resize,
    dims: &[Expr],
    axes: &[usize],
    scales: &[f32],
    roi: Option<&Roi>,
) -> Result<Vec<Expr>, Fault> {
    let mut extents = dims.to_vec();
    for (k, (&axis, &scale)) in axes.iter().zip(scales).enumerate() {
        let Some(roi) = roi else {
            spec.scales[axis] = scale;
            extents[axis] = scaled_extent(&cx.b, &dims[axis], scale)?;
            continue;
        };
        // The scale is that of the region, and the coordinates only need the result's extent.
        let Some(values) = &roi.values else {
            return Err(Fault::unsupported(
                "cropping to a region that is not constant, by scales, is not supported",
                "give the node sizes instead of scales, or a constant region",
            ));
        };
        spec.scales[axis] = 0.0;
        let part = (values[axes.len() + k] - values[k]) as f32;
        extents[axis] = scaled_extent(&cx.b, &dims[axis], part * scale)?;
    }
    Ok(extents)
}

/// `floor(dim * scale)`
fn scaled_extent(b: &Builder<'_>, dim: &Expr, scale: f32) -> Result<Expr, Fault> {
    if !scale.is_finite() || scale <= 0.0 {
        return Err(Fault::Invalid(format!("a scale is {scale}, and must be positive")));
    }
    let product = |dim: i64| (dim as f32 * scale).floor() as i64;
    if let Some(dim) = dim.as_const() {
        return Ok(Expr::constant(product(dim)));
    }
    let (numerator, denominator) = ratio(scale);
    let (low, high) = b.range(dim);
    let agrees = high.saturating_sub(low) <= MAX_COMPARED
        && (low..=high)
            .all(|dim| i128::from(product(dim)) == i128::from(dim) * i128::from(numerator) / i128::from(denominator));
    if !agrees {
        return Err(Fault::unsupported(
            format!("the extent {dim} times {scale} is not supported"),
            "give the node sizes, a scale that is a small fraction, or the dimension a narrower profile",
        ));
    }
    Ok((dim.clone() * Expr::constant(numerator)).floor_div(&Expr::constant(denominator)))
}

/// How many values of a dimension are compared.
const MAX_COMPARED: i64 = 1 << 20;

/// The fraction with the smallest denominator that rounds to `scale`, by continued fractions.
fn ratio(scale: f32) -> (i64, i64) {
    let mut rest = f64::from(scale);
    let (mut before, mut now) = ((0i64, 1i64), (1i64, 0i64));
    loop {
        let whole = rest.floor();
        let digit = whole as i64;
        let next = (
            digit.saturating_mul(now.0).saturating_add(before.0),
            digit.saturating_mul(now.1).saturating_add(before.1),
        );
        (before, now) = (now, next);
        // A double holds the float exactly, so the loop ends before the digits are noise.
        if (now.0 as f64 / now.1 as f64) as f32 == scale || rest == whole {
            return now;
        }
        rest = 1.0 / (rest - whole);
    }
}

/// Operand `k`, the scales; `None` where it is absent or empty.
fn constant_scales(cx: &Cx<'_, '_>, k: usize) -> Result<Option<Vec<f32>>, Fault> {
    let Some(value) = cx.optional(k).filter(|&value| !cx.b.ty(value).count().is(0)) else { return Ok(None) };
    match constant_floats(cx, value) {
        Some(scales) => Ok(Some(scales.into_iter().map(|scale| scale as f32).collect())),
        None => Err(Fault::unsupported(
            format!("the scales in {} are not constant", quoted(&cx.b.graph().value(value).name)),
            super::operands::advice(cx, value)
                .unwrap_or_else(|| "give the node sizes computed from shapes, or constant scales".to_owned()),
        )),
    }
}

/// The elements of a value that follows from constants.
fn constant_floats(cx: &Cx<'_, '_>, value: ValueId) -> Option<Vec<f64>> {
    cx.b.constant_value(value).map(|tensor| tensor.to_f64s())
}

/// The region that cropping takes.
struct Roi {
    /// The node's operand: the starts of its axes, then the ends.
    given: ValueId,
    /// Its elements, where they are constants.
    values: Option<Vec<f64>>,
    axes: Vec<usize>,
    rank: usize,
}

fn roi(cx: &Cx<'_, '_>, axes: &[usize], rank: usize) -> Result<Roi, Fault> {
    let given = cx.input(1)?;
    let count = cx.b.ty(given).count();
    if !count.is(2 * axes.len() as i64) {
        return Err(Fault::Invalid(format!("roi has {count} elements, and {} are needed", 2 * axes.len())));
    }
    Ok(Roi { given, values: constant_floats(cx, given), axes: axes.to_vec(), rank })
}

impl Roi {
    /// The starts of all axes of the tensor, then the ends, in `f32`; axes that are not resized are taken whole.
    fn operand(&self, cx: &mut Cx<'_, '_>) -> Result<ValueId, Fault> {
        let given = cx.b.cast(self.given, DType::F32)?;
        if self.axes.iter().copied().eq(0..self.rank) {
            return Ok(given);
        }
        let mut parts = Vec::with_capacity(2 * self.rank);
        for (side, whole) in [0.0, 1.0].into_iter().enumerate() {
            let whole = cx.b.float_like(given, whole);
            let whole = cx.b.reshape(whole, vec![Expr::constant(1)])?;
            for axis in 0..self.rank {
                parts.push(match self.axes.iter().position(|&at| at == axis) {
                    Some(k) => {
                        let at = Expr::from(side * self.axes.len() + k);
                        cx.b.slice_axis(given, 0, at, Expr::constant(1))?
                    }
                    None => whole,
                });
            }
        }
        Ok(cx.b.concat(&parts, 0)?)
    }
}
