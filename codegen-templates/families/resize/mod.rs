//! Resize: axes that keep their extent are merged, the others are interpolated, one thread a result.

use lapidary_runtime::op::{CoordinateMode, NearestMode, Resize, ResizeMode};

use crate::arch::Arch;
use crate::call::{As, Call, Place};
use crate::candidate::{Answer, Shapes};
use crate::extent::Expr;
use crate::predict::Work;
use crate::print;
use crate::problem::{Kind, Problem};
use crate::view::Index;

const FAMILY: &str = "resize";
const THREADS: u32 = 256;
/// The most axes that are left after merging.
const MOST_AXES: usize = 5;

/// Implementations of resizing.
pub fn answer(problem: &Problem, arch: Arch, shapes: &Shapes<'_>) -> Answer {
    let Kind::Resize(spec) = &problem.kind else { return Answer::default() };
    Answer::or_refusal(FAMILY, candidates(problem, spec, arch, shapes))
}

/// An axis, or merged axes that are not resized.
struct Axis {
    from: Expr,
    to: Expr,
    scale: f32,
    interpolated: bool,
}

fn axes(problem: &Problem, spec: &Resize) -> Result<Vec<Axis>, String> {
    let (x, y) = (problem.input(0)?, problem.output(0)?);
    // The region of this mode has an entry for each axis.
    let crops = spec.coordinates == CoordinateMode::TfCropAndResize;
    let mut axes: Vec<Axis> = Vec::new();
    for ((from, to), &scale) in x.dims.iter().zip(&y.dims).zip(&spec.scales) {
        let interpolated = crops || from != to || (scale != 0.0 && scale != 1.0);
        match axes.last_mut() {
            Some(last) if !interpolated && !last.interpolated => {
                last.from = last.from.clone() * from.clone();
                last.to = last.to.clone() * to.clone();
            }
            _ => axes.push(Axis { from: from.clone(), to: to.clone(), scale, interpolated }),
        }
    }
    match axes.len() {
        0 => Err("the operand has no axis".to_owned()),
        1..=MOST_AXES => Ok(axes),
        many => Err(format!("{many} axes are left after merging, and {MOST_AXES} is the most")),
    }
}

fn candidates(problem: &Problem, spec: &Resize, arch: Arch, shapes: &Shapes<'_>) -> Result<Answer, String> {
    let (x, y) = (problem.input(0)?, problem.output(0)?);
    print::check_type(x.dtype)?;
    let axes = axes(problem, spec)?;
    let (name, mode, taps) = match spec.mode {
        ResizeMode::Nearest(_) => ("nearest", "NEAREST", 1),
        ResizeMode::Linear => ("linear", "LINEAR", 2),
        ResizeMode::Cubic => ("cubic", "CUBIC", 4),
    };
    let index = Index::of(&[x.count(), y.count()], shapes);
    let mut call = Call::new(FAMILY, format!("resize_{name}_{}", x.dtype), format!("Resizes, {name}"));
    call.using("X", print::type_name(x.dtype));
    call.using("Index", index.name());
    call.ints(&[("RANK", axes.len() as i64), ("THREADS", i64::from(THREADS))]);
    call.constant("resize::Mode", &format!("MODE = resize::Mode::{mode}"));
    call.constant("resize::Rounding", &format!("ROUNDING = resize::Rounding::{}", rounding(spec.mode)));
    let coordinates = coordinates(spec.coordinates);
    call.constant("resize::Coordinates", &format!("COORDINATES = resize::Coordinates::{coordinates}"));
    let (antialias, exclude) = (spec.antialias, spec.exclude_outside);
    call.constant("bool", &format!("ANTIALIAS = {antialias}, EXCLUDE_OUTSIDE = {exclude}"));
    let interpolated: Vec<String> = axes.iter().map(|axis| axis.interpolated.to_string()).collect();
    call.constant("bool", &format!("interpolated[] = {{{}}}", interpolated.join(", ")));
    let dims = |pick: fn(&Axis) -> &Expr| -> Vec<Expr> { axes.iter().map(|axis| pick(axis).clone()).collect() };
    call.pointer("const void", "x", &Place::input(0));
    call.pointer("const float", "roi", &problem.optional_input(1).map_or(Place::Absent, |_| Place::input(1)));
    call.pointer("void", "y", &Place::output(0));
    call.extents("xd", &dims(|axis| &axis.from), As::Index(index));
    call.extents("yd", &dims(|axis| &axis.to), As::Index(index));
    call.floats("s", &axes.iter().map(|axis| axis.scale).collect::<Vec<_>>());
    call.float("cubic_a", spec.cubic_coeff_a);
    call.float("extrapolation", spec.extrapolation_value);
    let blocks = y.count().ceil_div(&Expr::constant(i64::from(THREADS)));

    let typical = |expr: &Expr| (shapes.typical)(expr).max(0) as f64;
    let bytes = x.dtype.bits() as f64 / 8.0;
    let resized = axes.iter().filter(|axis| axis.interpolated).count() as i32;
    let taps = f64::from(taps).powi(resized);
    let results = typical(&y.count());
    let work = Work {
        bytes: (typical(&x.count()) + results) * bytes,
        blocks: typical(&blocks),
        threads: f64::from(THREADS),
        in_flight: f64::from(THREADS) * bytes * taps.min(4.0),
        // Coordinates are doubles, which the SMs compute at half the rate or less.
        instructions: results * (60.0 + 120.0 * f64::from(resized) + taps * 15.0),
    };
    let mut answer = Answer::default();
    let key = format!("resize_{name}/r{}", axes.len());
    answer.offer(key, vec![call.launch("resize::run", THREADS, blocks)], work.microseconds(arch));
    Ok(answer)
}

fn rounding(mode: ResizeMode) -> &'static str {
    match mode {
        ResizeMode::Nearest(NearestMode::RoundPreferFloor) | ResizeMode::Linear | ResizeMode::Cubic => {
            "ROUND_PREFER_FLOOR"
        }
        ResizeMode::Nearest(NearestMode::RoundPreferCeil) => "ROUND_PREFER_CEIL",
        ResizeMode::Nearest(NearestMode::Floor) => "FLOOR",
        ResizeMode::Nearest(NearestMode::Ceil) => "CEIL",
    }
}

fn coordinates(mode: CoordinateMode) -> &'static str {
    match mode {
        CoordinateMode::HalfPixel => "HALF_PIXEL",
        CoordinateMode::HalfPixelSymmetric => "HALF_PIXEL_SYMMETRIC",
        CoordinateMode::PytorchHalfPixel => "PYTORCH_HALF_PIXEL",
        CoordinateMode::AlignCorners => "ALIGN_CORNERS",
        CoordinateMode::Asymmetric => "ASYMMETRIC",
        CoordinateMode::TfCropAndResize => "TF_CROP_AND_RESIZE",
    }
}
