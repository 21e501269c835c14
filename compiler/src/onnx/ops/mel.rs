//! Weights from a spectrum to bands of the mel scale (ONNX MelWeightMatrix): triangles whose corners are the bins of
//! `num_mel_bins + 2` frequencies, evenly apart on the scale `mel(f) = 2595 log10(1 + f / 700)`.
//!
//! The edges of the last band lie beside the upper frequency, not on it: a step is the range over `num_mel_bins + 2`, as
//! in ONNX's reference. What would lie behind the last bin of the spectrum is left out.

use std::f64::consts::LN_10;

use lapidary_runtime::DType;
use lapidary_runtime::op::{Arg, ScalarOp};

use super::entry::op;
use super::positions::positions;
use super::{Cx, Imported, OpDef, one, operands};
use crate::ir::Expr;
use crate::ir::builder::ProgramWriter;
use crate::onnx::dtype_of;

pub const DEFS: &[OpDef] = &[op("MelWeightMatrix", 17, (5, 5), weights)];

/// The operands of the program: positions along both axes of the result, and five scalars.
const ROW: Arg = Arg::Input(0);
const BAND: Arg = Arg::Input(1);
const BANDS: Arg = Arg::Input(2);
const LENGTH: Arg = Arg::Input(3);
const RATE: Arg = Arg::Input(4);
const LOWER: Arg = Arg::Input(5);
const UPPER: Arg = Arg::Input(6);

fn weights(cx: &mut Cx<'_, '_>) -> Imported {
    let bands = operands::known_scalar(cx, 0, "number of bands")?;
    let length = operands::known_scalar(cx, 1, "length of the transform")?;
    let mut numbers = Vec::with_capacity(3);
    for (k, what) in [(2, "the sample rate"), (3, "the lower edge"), (4, "the upper edge")] {
        numbers.push(operands::scalar(cx, k)?.ok_or_else(|| format!("{what} is missing"))?);
    }
    let number = cx.attrs.int_or("output_datatype", 1)?;
    let dtype = dtype_of(i32::try_from(number).unwrap_or(i32::MAX), cx.attrs.at())?;
    for (what, value) in [("number of bands", &bands), ("length of the transform", &length)] {
        if cx.b.range(value).0 < 0 {
            return Err(format!("the {what} is {value}, and must not be negative").into());
        }
    }
    let rows = length.floor_div(&Expr::constant(2)) + Expr::constant(1);
    let row = positions(&mut cx.b, rows, 0, 2)?;
    let band = positions(&mut cx.b, bands.clone(), 1, 2)?;
    let (bands, length) = (cx.b.extents(vec![bands], 0)?, cx.b.extents(vec![length], 0)?);
    one(cx.b.program(&[row, band, bands, length, numbers[0], numbers[1], numbers[2]], |p| {
        let [left, center, right] = [0.0, 1.0, 2.0].map(|edge| corner(p, edge));
        let row = p.cast(ROW, DType::F64);
        let rising = slope(p, [row, left], [center, left]);
        let falling = slope(p, [right, row], [right, center]);
        let zero = p.imm(row, 0.0);
        let ahead = p.push(ScalarOp::Less, &[row, center]);
        let inside = p.push(ScalarOp::GreaterEqual, &[row, left]);
        let inside_left = p.push(ScalarOp::And, &[ahead, inside]);
        let inside = p.push(ScalarOp::Less, &[row, right]);
        let at_center = p.push(ScalarOp::Equal, &[row, center]);
        let behind = p.push(ScalarOp::Greater, &[row, center]);
        let inside_right = p.push(ScalarOp::And, &[behind, inside]);
        let mut value = p.push(ScalarOp::Select, &[inside_right, falling, zero]);
        value = p.push(ScalarOp::Select, &[inside_left, rising, value]);
        value = p.push(ScalarOp::Select, &[at_center, p.imm(value, 1.0), value]);
        p.cast(value, dtype)
    })?)
}

/// The bin of the frequency `edge` steps beyond the band's first: floor((length + 1) * f / rate).
fn corner(p: &mut ProgramWriter, edge: f64) -> Arg {
    let [band, bands, length, rate] = [BAND, BANDS, LENGTH, RATE].map(|arg| p.cast(arg, DType::F64));
    let [low, high] = [LOWER, UPPER].map(|hertz| {
        let hertz = p.cast(hertz, DType::F64);
        mel(p, hertz)
    });
    let range = p.push(ScalarOp::Sub, &[high, low]);
    let points = p.push(ScalarOp::Add, &[bands, p.imm(bands, 2.0)]);
    let step = p.push(ScalarOp::Div, &[range, points]);
    let place = p.push(ScalarOp::Add, &[band, p.imm(band, edge)]);
    let beyond = p.push(ScalarOp::Mul, &[place, step]);
    let at = p.push(ScalarOp::Add, &[beyond, low]);
    let hertz = hertz(p, at);
    let bins = p.push(ScalarOp::Add, &[length, p.imm(length, 1.0)]);
    let scaled = p.push(ScalarOp::Mul, &[bins, hertz]);
    let bin = p.push(ScalarOp::Div, &[scaled, rate]);
    p.push(ScalarOp::Floor, &[bin])
}

/// 2595 log10(1 + hertz / 700)
fn mel(p: &mut ProgramWriter, hertz: Arg) -> Arg {
    let ratio = p.push(ScalarOp::Div, &[hertz, p.imm(hertz, 700.0)]);
    let sum = p.push(ScalarOp::Add, &[ratio, p.imm(ratio, 1.0)]);
    let log = p.push(ScalarOp::Log, &[sum]);
    let scaled = p.push(ScalarOp::Mul, &[log, p.imm(log, 2595.0)]);
    p.push(ScalarOp::Div, &[scaled, p.imm(scaled, LN_10)])
}

/// 700 (10^(mel / 2595) - 1)
fn hertz(p: &mut ProgramWriter, mel: Arg) -> Arg {
    let ratio = p.push(ScalarOp::Div, &[mel, p.imm(mel, 2595.0)]);
    let exponent = p.push(ScalarOp::Mul, &[ratio, p.imm(ratio, LN_10)]);
    let power = p.push(ScalarOp::Exp, &[exponent]);
    let difference = p.push(ScalarOp::Sub, &[power, p.imm(power, 1.0)]);
    p.push(ScalarOp::Mul, &[difference, p.imm(difference, 700.0)])
}

/// (a - b) / (c - d)
fn slope(p: &mut ProgramWriter, [a, b]: [Arg; 2], [c, d]: [Arg; 2]) -> Arg {
    let part = p.push(ScalarOp::Sub, &[a, b]);
    let whole = p.push(ScalarOp::Sub, &[c, d]);
    p.push(ScalarOp::Div, &[part, whole])
}
