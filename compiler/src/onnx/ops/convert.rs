//! Cast, CastLike and BitCast (ONNX operators of these names), and the conversion to small floats that QuantizeLinear
//! shares with them.
//!
//! A conversion step rounds to nearest even and saturates, to E8M0 it rounds up. What the attributes `saturate` and
//! `round_mode` ask for beyond that is composed of comparisons and selections around such a step.

use lapidary_runtime::DType;
use lapidary_runtime::op::{Arg, ScalarOp};

use super::entry::{binary, unary};
use super::{Cx, Fault, Imported, OpDef, one};
use crate::ir::builder::ProgramWriter;
use crate::onnx::dtype_of;

pub const DEFS: &[OpDef] = &[unary("Cast", 6, cast), binary("CastLike", 15, cast_like), unary("BitCast", 26, bit_cast)];

fn cast(cx: &mut Cx<'_, '_>) -> Imported {
    let dtype = target(cx)?;
    convert(cx, dtype)
}

fn cast_like(cx: &mut Cx<'_, '_>) -> Imported {
    let like = cx.input(1)?;
    let dtype = cx.b.dtype(like);
    convert(cx, dtype)
}

/// The element type in the attribute `to`.
fn target(cx: &Cx<'_, '_>) -> Result<DType, Fault> {
    // A number that is no i32 is no element type either, and is reported as one.
    let to = i32::try_from(cx.attrs.int("to")?).unwrap_or(i32::MAX);
    Ok(dtype_of(to, cx.attrs.at())?)
}

fn convert(cx: &mut Cx<'_, '_>, dtype: DType) -> Imported {
    let choices = [("up", Power::Up), ("down", Power::Down), ("nearest", Power::Nearest)];
    let power = cx.attrs.choice_or("round_mode", Power::Up, &choices)?;
    let power = if dtype == DType::F8E8M0 { power } else { Power::Up };
    let conversion = Conversion { power, ..Conversion::of(cx, dtype)? };
    let x = cx.input(0)?;
    // Packed integers wrap around, also when a float is converted to them (ONNX Cast, its backend tests).
    let x = if dtype.is_int() && dtype.bits() < 8 && cx.b.dtype(x).is_float() { cx.b.cast(x, DType::I32)? } else { x };
    if conversion.is_plain() {
        return one(cx.b.cast(x, dtype)?);
    }
    one(cx.b.program(&[x], |p| conversion.push(p, Arg::Input(0)))?)
}

/// The same bits under a type of as many. A `bool` is stored as 0 or 1, so that other bytes become 1.
fn bit_cast(cx: &mut Cx<'_, '_>) -> Imported {
    let (x, dtype) = (cx.input(0)?, target(cx)?);
    let from = cx.b.dtype(x);
    if from.bits() != dtype.bits() {
        let (bits, asked) = (from.bits(), dtype.bits());
        return Err(Fault::Invalid(format!("{from} has {bits} bits and {dtype} {asked}, and they must be as many")));
    }
    if dtype == DType::Bool {
        let bytes = cx.b.bit_cast(x, DType::U8)?;
        return one(cx.b.cast(bytes, DType::Bool)?);
    }
    one(cx.b.bit_cast(x, dtype)?)
}

/// What becomes of a value beyond the range of a small float.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Beyond {
    /// The largest number, or for E8M0 the smallest.
    Nearest,
    /// An infinity where the type has one, else NaN.
    Special,
}

/// Which power of two a number between two becomes in E8M0.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Power {
    Up,
    Down,
    /// The upper one from the middle on.
    Nearest,
}

/// A conversion as the attributes ask for it.
pub(super) struct Conversion {
    dtype: DType,
    beyond: Beyond,
    power: Power,
}

impl Conversion {
    /// The conversion to `dtype`, which rounds powers up; only floats of 8 bits heed the attribute `saturate` (ONNX Cast,
    /// tables of "Float 8 types" and of FLOAT8E8M0).
    pub(super) fn of(cx: &Cx<'_, '_>, dtype: DType) -> Result<Conversion, Fault> {
        let applies = dtype.is_float() && dtype.bits() == 8;
        let saturates = cx.attrs.flag_or("saturate", 1)? || !applies;
        Ok(Conversion { dtype, beyond: if saturates { Beyond::Nearest } else { Beyond::Special }, power: Power::Up })
    }

    /// Whether a conversion step alone does it.
    fn is_plain(&self) -> bool {
        self.beyond == Beyond::Nearest && self.power == Power::Up
    }

    /// Appends the steps.
    pub(super) fn push(&self, p: &mut ProgramWriter, x: Arg) -> Arg {
        if self.is_plain() {
            return p.cast(x, self.dtype);
        }
        if self.dtype == DType::F8E8M0 { self.push_power(p, x) } else { self.push_special(p, x) }
    }

    /// What rounds to more than the largest number is selected out. The bound is the middle between that number and
    /// the one that would follow: a tie goes to the even mantissa, which in E4M3FN is the number's, and elsewhere is
    /// the follower's.
    fn push_special(&self, p: &mut ProgramWriter, x: Arg) -> Arg {
        let (is_beyond, bound) = match self.dtype {
            DType::F8E4M3FN => (ScalarOp::Greater, 464.0),
            DType::F8E4M3FNUZ => (ScalarOp::GreaterEqual, 248.0),
            _ => (ScalarOp::GreaterEqual, 61440.0),
        };
        // All that is below the bound is exact in f32, whatever integer it was.
        let x = if p.dtype(x).is_float() && !p.dtype(x).is_storage() { x } else { p.cast(x, DType::F32) };
        let size = p.push(ScalarOp::Abs, &[x]);
        let beyond = p.push(is_beyond, &[size, p.imm(x, bound)]);
        let rounded = p.cast(x, self.dtype);
        let special = if self.dtype == DType::F8E5M2 {
            let negative = p.push(ScalarOp::Less, &[x, p.imm(x, 0.0)]);
            let [low, high] = [f64::NEG_INFINITY, f64::INFINITY].map(|value| p.imm(rounded, value));
            p.push(ScalarOp::Select, &[negative, low, high])
        } else {
            p.imm(rounded, f64::NAN)
        };
        p.push(ScalarOp::Select, &[beyond, special, rounded])
    }

    /// The step gives the power of two at or above |x|; another rounding takes half of it where x is too small.
    fn push_power(&self, p: &mut ProgramWriter, x: Arg) -> Arg {
        let x = if p.dtype(x) == DType::F64 { x } else { p.cast(x, DType::F32) };
        let size = p.push(ScalarOp::Abs, &[x]);
        let above = p.cast(size, self.dtype);
        let least = match self.power {
            Power::Up => None,
            Power::Down => Some(1.0),
            Power::Nearest => Some(0.75),
        };
        let rounded = match least {
            None => above,
            Some(least) => {
                let power = p.cast(above, p.dtype(x));
                let least = p.push(ScalarOp::Mul, &[power, p.imm(x, least)]);
                let reached = p.push(ScalarOp::LessEqual, &[least, size]);
                let half = p.push(ScalarOp::Mul, &[power, p.imm(x, 0.5)]);
                let below = p.cast(half, self.dtype);
                p.push(ScalarOp::Select, &[reached, above, below])
            }
        };
        if self.beyond == Beyond::Nearest {
            return rounded;
        }
        let not_below = p.push(ScalarOp::GreaterEqual, &[size, p.imm(x, 2f64.powi(-127))]);
        let not_above = p.push(ScalarOp::LessEqual, &[size, p.imm(x, 2f64.powi(127))]);
        let within = p.push(ScalarOp::And, &[not_below, not_above]);
        p.push(ScalarOp::Select, &[within, rounded, p.imm(rounded, f64::NAN)])
    }
}
