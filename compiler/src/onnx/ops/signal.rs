//! Spectra and windows (ONNX DFT, STFT, HannWindow, HammingWindow, BlackmanWindow).
//!
//! A transform of length N is a product with an N x N matrix of cosines and one of sines, whose angles are computed from
//! `n k mod N`, so that they are exact. That costs N^2, which is why N is bounded. Sums are in `f64`: where terms cancel,
//! a spectrum has elements far smaller than the terms.

use std::f64::consts::TAU;

use lapidary_runtime::DType;
use lapidary_runtime::op::{Arg, ScalarOp};

use super::entry::{op, unary};
use super::positions::positions;
use super::{Cx, Fault, Imported, OpDef, one, operands};
use crate::ir::builder::{Built, ProgramWriter};
use crate::ir::{Builder, Expr, Op, ValueId};
use crate::onnx::dtype_of;

pub const DEFS: &[OpDef] = &[
    unary("BlackmanWindow", 17, |cx| window(cx, [0.42, -0.5, 0.08])),
    op("DFT", 17, (1, 2), |cx| {
        let axis = cx.attrs.int_or("axis", 1)?;
        dft(cx, axis)
    }),
    op("DFT", 20, (1, 3), |cx| {
        let axis = match operands::optional_ints(cx, 2, "axis")?.as_deref() {
            None => -2,
            Some(&[axis]) => axis,
            Some(_) => return Err("the axis must be one number".into()),
        };
        dft(cx, axis)
    }),
    unary("HammingWindow", 17, |cx| window(cx, [25.0 / 46.0, 25.0 / 46.0 - 1.0, 0.0])),
    unary("HannWindow", 17, |cx| window(cx, [0.5, -0.5, 0.0])),
    op("STFT", 17, (2, 4), stft),
];

/// `a + b cos(2 pi n / N) + c cos(4 pi n / N)`, where N is the size, or one less for a symmetric window.
fn window(cx: &mut Cx<'_, '_>, [a, b, c]: [f64; 3]) -> Imported {
    let size = operands::known_scalar(cx, 0, "size")?;
    let number = cx.attrs.int_or("output_datatype", 1)?;
    let dtype = dtype_of(i32::try_from(number).unwrap_or(i32::MAX), cx.attrs.at())?;
    let period = if cx.attrs.flag_or("periodic", 1)? { size.clone() } else { size.clone() - Expr::constant(1) };
    let line = positions(&mut cx.b, size, 0, 1)?;
    let period = cx.b.extents(vec![period], 0)?;
    let wide = if dtype == DType::F64 { DType::F64 } else { DType::F32 };
    one(cx.b.program(&[line, period], |p| {
        let angle = angle(p, Arg::Input(0), Arg::Input(1), wide);
        let cosine = p.push(ScalarOp::Cos, &[angle]);
        let mut sum = p.push(ScalarOp::Mul, &[cosine, p.imm(cosine, b)]);
        sum = p.push(ScalarOp::Add, &[sum, p.imm(sum, a)]);
        if c != 0.0 {
            let twice = p.push(ScalarOp::Mul, &[angle, p.imm(angle, 2.0)]);
            let cosine = p.push(ScalarOp::Cos, &[twice]);
            let last = p.push(ScalarOp::Mul, &[cosine, p.imm(cosine, c)]);
            sum = p.push(ScalarOp::Add, &[sum, last]);
        }
        p.cast(sum, dtype)
    })?)
}

/// `2 pi n / period`
fn angle(p: &mut ProgramWriter, n: Arg, period: Arg, wide: DType) -> Arg {
    let (n, period) = (p.cast(n, wide), p.cast(period, wide));
    let turns = p.push(ScalarOp::Div, &[n, period]);
    p.push(ScalarOp::Mul, &[turns, p.imm(turns, TAU)])
}

/// The longest transform.
const MAX_LENGTH: i64 = 4096;

#[derive(Clone, Copy, PartialEq)]
enum Sense {
    Forward,
    /// The conjugate, over the length.
    Inverse,
}

/// Whether the spectrum is whole, or its first half, of which the other is the conjugate.
#[derive(Clone, Copy, PartialEq)]
enum Spectrum {
    Whole,
    Half,
}

/// A transform of `length` along the axis in front of the last.
struct Transform {
    length: Expr,
    sense: Sense,
    spectrum: Spectrum,
}

fn dft(cx: &mut Cx<'_, '_>, axis: i64) -> Imported {
    let x = cx.input(0)?;
    let rank = cx.b.rank(x);
    let axis = cx.axis(axis, rank)?;
    if rank < 2 || axis == rank - 1 {
        return Err("the axis must be one in front of the last, which has the real and imaginary parts".into());
    }
    let sense = if cx.attrs.flag_or("inverse", 0)? { Sense::Inverse } else { Sense::Forward };
    let spectrum = if cx.attrs.flag_or("onesided", 0)? { Spectrum::Half } else { Spectrum::Whole };
    let dim = cx.b.dims(x)[axis].clone();
    let length = match (cx.optional(1), sense, spectrum) {
        (Some(_), _, _) => operands::known_scalar(cx, 1, "length of the transform")?,
        (None, Sense::Inverse, Spectrum::Half) => (dim - Expr::constant(1)) * Expr::constant(2),
        (None, _, _) => dim,
    };
    let mut perm: Vec<usize> = (0..rank).collect();
    perm.swap(axis, rank - 2);
    let moved = cx.b.transpose(x, &perm)?;
    let y = transformed(&mut cx.b, moved, &Transform { length, sense, spectrum })?;
    one(cx.b.transpose(y, &perm)?)
}

/// The transform of `[.., length, 1 or 2]`.
fn transformed(b: &mut Builder<'_>, x: ValueId, spec: &Transform) -> Result<ValueId, Fault> {
    let (low, high) = b.range(&spec.length);
    if low < 1 || high > MAX_LENGTH {
        return Err(Fault::unsupported(
            format!("a Fourier transform of length {} is not supported", spec.length),
            format!("keep the length from 1 to {MAX_LENGTH}, and pin it with a profile if it is symbolic"),
        ));
    }
    let dims = b.dims(x);
    let last = dims.len() - 1;
    let parts = match dims[last].as_const() {
        Some(parts @ 1..=2) => parts,
        Some(_) | None => return Err(format!("the last extent is {}, and must be 1 or 2", dims[last]).into()),
    };
    let half = spec.length.floor_div(&Expr::constant(2)) + Expr::constant(1);
    let folded = spec.sense == Sense::Inverse && spec.spectrum == Spectrum::Half;
    // What is behind the transform's length is cut off; what is missing is zero, and adds nothing.
    let given = dims[last - 1].smaller(if folded { &half } else { &spec.length });
    let results =
        if spec.sense == Sense::Forward && spec.spectrum == Spectrum::Half { half } else { spec.length.clone() };
    let dtype = b.dtype(x);
    let x = b.cast(x, DType::F64)?;
    let mut components = Vec::with_capacity(2);
    for part in 0..parts {
        let part = b.slice_axis(x, last, Expr::constant(part), Expr::constant(1))?;
        let part = b.reshape(part, dims[..last].to_vec())?;
        components.push(b.slice_axis(part, last - 1, Expr::constant(0), given.clone())?);
    }
    let [cosines, sines] = [ScalarOp::Cos, ScalarOp::Sin].map(|f| matrix(b, f, spec, &given, &results));
    let (cosines, sines) = (cosines?, sines?);
    let real_x = components[0];
    let (real, imaginary) = match components.get(1) {
        None => (product(b, real_x, cosines)?, product(b, real_x, sines)?),
        Some(&imaginary_x) => {
            let [a, c] = [real_x, imaginary_x].map(|part| product(b, part, cosines));
            let [d, e] = [imaginary_x, real_x].map(|part| product(b, part, sines));
            // (x + i y)(cos + i sin), where the sines have the sign of the transform.
            (b.binary(ScalarOp::Sub, a?, d?)?, b.binary(ScalarOp::Add, c?, e?)?)
        }
    };
    let parts = if folded { vec![real] } else { vec![real, imaginary] };
    let mut columns = Vec::with_capacity(2);
    for part in parts {
        let part = b.cast(part, dtype)?;
        columns.push(b.append_axes(part, last + 1)?);
    }
    Ok(b.concat(&columns, last)?)
}

fn product(b: &mut Builder<'_>, x: ValueId, matrix: ValueId) -> Built {
    let dims = b.dims(x);
    if dims.len() > 1 {
        return b.matmul(x, matrix);
    }
    let row = b.reshape(x, vec![Expr::constant(1), dims[0].clone()])?;
    let y = b.matmul(row, matrix)?;
    let columns = b.dims(y)[1].clone();
    b.reshape(y, vec![columns])
}

/// `f(+-2 pi n k / N)`, over N for an inverse; of half a spectrum, what stands for two terms counts twice.
fn matrix(b: &mut Builder<'_>, f: ScalarOp, spec: &Transform, rows: &Expr, columns: &Expr) -> Built {
    let row = positions(b, rows.clone(), 0, 2)?;
    let column = positions(b, columns.clone(), 1, 2)?;
    let length = b.extents(vec![spec.length.clone()], 0)?;
    b.program(&[row, column, length], |p| {
        let place = p.push(ScalarOp::Mul, &[Arg::Input(0), Arg::Input(1)]);
        let place = p.push(ScalarOp::Mod, &[place, Arg::Input(2)]);
        let angle = angle(p, place, Arg::Input(2), DType::F64);
        let mut value = p.push(f, &[angle]);
        if spec.sense == Sense::Forward {
            if f == ScalarOp::Sin {
                value = p.push(ScalarOp::Neg, &[value]);
            }
            return value;
        }
        let length = p.cast(Arg::Input(2), DType::F64);
        value = p.push(ScalarOp::Div, &[value, length]);
        if spec.spectrum == Spectrum::Half {
            let twice = p.push(ScalarOp::Mul, &[value, p.imm(value, 2.0)]);
            // Term 0, and term N / 2 of an even length, have no conjugate beside them.
            let doubled = p.push(ScalarOp::Mul, &[Arg::Input(0), p.imm(Arg::Input(0), 2.0)]);
            let first = p.push(ScalarOp::Equal, &[doubled, p.imm(doubled, 0.0)]);
            let middle = p.push(ScalarOp::Equal, &[doubled, Arg::Input(2)]);
            let alone = p.push(ScalarOp::Or, &[first, middle]);
            value = p.push(ScalarOp::Select, &[alone, value, twice]);
        }
        value
    })
}

/// The transforms of frames `frame_step` apart, each times the window.
fn stft(cx: &mut Cx<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    let step = operands::known_scalar(cx, 1, "frame step")?;
    let mut dims = cx.b.dims(x);
    if dims.len() == 2 {
        dims.push(Expr::constant(1));
    }
    let [batch, samples, parts] = dims.as_slice() else {
        return Err(format!("the signal has rank {}, and 2 or 3 is needed", dims.len()).into());
    };
    let window = cx.optional(2);
    let length = match (cx.optional(3), window) {
        (Some(_), _) => operands::known_scalar(cx, 3, "frame length")?,
        (None, Some(window)) => cx.b.ty(window).count(),
        (None, None) => samples.clone(),
    };
    if cx.b.range(&step).0 < 1 {
        return Err(format!("the frame step is {step}, and must be positive").into());
    }
    let spectrum = if cx.attrs.flag_or("onesided", 1)? { Spectrum::Half } else { Spectrum::Whole };
    if spectrum == Spectrum::Half && !parts.is(1) {
        return Err("half a spectrum is of real signals only".into());
    }
    let frames = (samples.clone() - length.clone()).floor_div(&step) + Expr::constant(1);
    let starts = positions(&mut cx.b, frames, 0, 2)?;
    let within = positions(&mut cx.b, length.clone(), 1, 2)?;
    let step = cx.b.extents(vec![step], 0)?;
    let places = cx.b.program(&[starts, step, within], |p| {
        let start = p.push(ScalarOp::Mul, &[Arg::Input(0), Arg::Input(1)]);
        p.push(ScalarOp::Add, &[start, Arg::Input(2)])
    })?;
    let x = cx.b.reshape(x, vec![batch.clone(), samples.clone(), parts.clone()])?;
    let mut framed = cx.b.node(Op::Gather { axis: 1 }, &[x, places])?;
    if let Some(window) = window {
        let given = cx.b.ty(window).count();
        cx.b.require_equal(&given, &length)?;
        let window = cx.b.append_axes(window, 2)?;
        framed = cx.b.binary(ScalarOp::Mul, framed, window)?;
    }
    one(transformed(&mut cx.b, framed, &Transform { length, sense: Sense::Forward, spectrum })?)
}
