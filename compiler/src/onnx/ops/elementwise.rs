//! Arithmetic, comparison and logic, element by element (ONNX "Elementwise" operators). Operands broadcast as in numpy.
//! Activations, which have parameters, are in [`super::activation`], conversions in [`super::convert`].

use lapidary_runtime::op::{Arg, ScalarOp};

use super::entry::{binary, op, unary, variadic};
use super::{Cx, Imported, OpDef, one, operands};
use crate::ir::ValueId;
use crate::ir::builder::Built;

pub const DEFS: &[OpDef] = &[
    unary("Abs", 6, |cx| map(cx, ScalarOp::Abs)),
    unary("Acos", 7, |cx| map(cx, ScalarOp::Acos)),
    unary("Acosh", 9, |cx| map(cx, ScalarOp::Acosh)),
    unary("Asin", 7, |cx| map(cx, ScalarOp::Asin)),
    unary("Asinh", 9, |cx| map(cx, ScalarOp::Asinh)),
    unary("Atan", 7, |cx| map(cx, ScalarOp::Atan)),
    unary("Atanh", 9, |cx| map(cx, ScalarOp::Atanh)),
    unary("BitwiseNot", 18, |cx| map(cx, ScalarOp::BitNot)),
    unary("Ceil", 6, |cx| map(cx, ScalarOp::Ceil)),
    unary("Cos", 7, |cx| map(cx, ScalarOp::Cos)),
    unary("Cosh", 9, |cx| map(cx, ScalarOp::Cosh)),
    unary("Erf", 9, |cx| map(cx, ScalarOp::Erf)),
    unary("Exp", 6, |cx| map(cx, ScalarOp::Exp)),
    unary("Floor", 6, |cx| map(cx, ScalarOp::Floor)),
    unary("IsInf", 10, is_inf),
    unary("IsNaN", 9, |cx| map(cx, ScalarOp::IsNan)),
    unary("Log", 6, |cx| map(cx, ScalarOp::Log)),
    unary("Neg", 6, |cx| map(cx, ScalarOp::Neg)),
    unary("Not", 1, |cx| map(cx, ScalarOp::Not)),
    unary("Reciprocal", 6, |cx| map(cx, ScalarOp::Reciprocal)),
    unary("Round", 11, |cx| map(cx, ScalarOp::Round)),
    unary("Sign", 9, |cx| map(cx, ScalarOp::Sign)),
    unary("Sin", 7, |cx| map(cx, ScalarOp::Sin)),
    unary("Sinh", 9, |cx| map(cx, ScalarOp::Sinh)),
    unary("Sqrt", 6, |cx| map(cx, ScalarOp::Sqrt)),
    unary("Tan", 7, |cx| map(cx, ScalarOp::Tan)),
    unary("Tanh", 6, |cx| map(cx, ScalarOp::Tanh)),
    binary("Add", 7, |cx| zip(cx, ScalarOp::Add)),
    binary("And", 7, |cx| zip(cx, ScalarOp::And)),
    binary("BitShift", 11, bit_shift),
    binary("BitwiseAnd", 18, |cx| zip(cx, ScalarOp::BitAnd)),
    binary("BitwiseOr", 18, |cx| zip(cx, ScalarOp::BitOr)),
    binary("BitwiseXor", 18, |cx| zip(cx, ScalarOp::BitXor)),
    binary("Div", 7, |cx| zip(cx, ScalarOp::Div)),
    binary("Equal", 7, |cx| zip(cx, ScalarOp::Equal)),
    binary("Greater", 7, |cx| zip(cx, ScalarOp::Greater)),
    binary("GreaterOrEqual", 12, |cx| zip(cx, ScalarOp::GreaterEqual)),
    binary("Less", 7, |cx| zip(cx, ScalarOp::Less)),
    binary("LessOrEqual", 12, |cx| zip(cx, ScalarOp::LessEqual)),
    binary("Mod", 10, modulo),
    binary("Mul", 7, |cx| zip(cx, ScalarOp::Mul)),
    binary("Or", 7, |cx| zip(cx, ScalarOp::Or)),
    binary("Pow", 7, |cx| zip(cx, ScalarOp::Pow)),
    binary("Sub", 7, |cx| zip(cx, ScalarOp::Sub)),
    binary("Xor", 7, |cx| zip(cx, ScalarOp::Xor)),
    variadic("Max", 6, |cx| fold(cx, ScalarOp::Max)),
    variadic("Mean", 6, mean),
    variadic("Min", 6, |cx| fold(cx, ScalarOp::Min)),
    variadic("Sum", 6, |cx| fold(cx, ScalarOp::Add)),
    op("Where", 9, (3, 3), choose),
    unary("Clip", 6, clip_to_attributes),
    op("Clip", 11, (1, 3), clip_to_operands),
];

fn map(cx: &mut Cx<'_, '_>, op: ScalarOp) -> Imported {
    let x = cx.input(0)?;
    one(cx.b.unary(op, x)?)
}

fn zip(cx: &mut Cx<'_, '_>, op: ScalarOp) -> Imported {
    let (a, b) = (cx.input(0)?, cx.input(1)?);
    one(cx.b.binary(op, a, b)?)
}

fn fold(cx: &mut Cx<'_, '_>, op: ScalarOp) -> Imported {
    let inputs = cx.inputs()?;
    one(fold_all(cx, op, &inputs)?)
}

/// How many operands of `Sum`, `Max` or `Min` one program takes: it keeps half-precision sums in `f32`, and a kernel
/// reads each operand through a pointer of its own.
const FOLD_WIDTH: usize = 8;

/// `op(op(x0, x1), x2) ..`, with as few nodes as [`FOLD_WIDTH`] allows.
fn fold_all(cx: &mut Cx<'_, '_>, op: ScalarOp, inputs: &[ValueId]) -> Built {
    let (&first, rest) = inputs.split_first().ok_or("it has no operands")?;
    rest.chunks(FOLD_WIDTH - 1).try_fold(first, |folded, chunk| {
        let operands: Vec<ValueId> = [&[folded], chunk].concat();
        cx.b.program(&operands, |p| {
            (1..operands.len()).fold(Arg::Input(0), |folded, k| p.push(op, &[folded, Arg::Input(k as u16)]))
        })
    })
}

fn mean(cx: &mut Cx<'_, '_>) -> Imported {
    let inputs = cx.inputs()?;
    let sum = fold_all(cx, ScalarOp::Add, &inputs)?;
    if inputs.len() == 1 {
        return one(sum);
    }
    one(cx.b.program(&[sum], |p| {
        let count = p.imm(Arg::Input(0), inputs.len() as f64);
        p.push(ScalarOp::Div, &[Arg::Input(0), count])
    })?)
}

fn modulo(cx: &mut Cx<'_, '_>) -> Imported {
    let op = if cx.attrs.flag_or("fmod", 0)? { ScalarOp::Fmod } else { ScalarOp::Mod };
    zip(cx, op)
}

fn bit_shift(cx: &mut Cx<'_, '_>) -> Imported {
    // The attribute has no default.
    cx.attrs.str("direction")?;
    let choices = [("LEFT", ScalarOp::ShiftLeft), ("RIGHT", ScalarOp::ShiftRight)];
    let op = cx.attrs.choice_or("direction", ScalarOp::ShiftLeft, &choices)?;
    zip(cx, op)
}

fn is_inf(cx: &mut Cx<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    let negative = cx.attrs.flag_or("detect_negative", 1)?;
    let positive = cx.attrs.flag_or("detect_positive", 1)?;
    one(cx.b.program(&[x], |p| match (negative, positive) {
        (true, true) => {
            let low = p.push(ScalarOp::IsNegInf, &[Arg::Input(0)]);
            let high = p.push(ScalarOp::IsPosInf, &[Arg::Input(0)]);
            p.push(ScalarOp::Or, &[low, high])
        }
        (true, false) => p.push(ScalarOp::IsNegInf, &[Arg::Input(0)]),
        (false, true) => p.push(ScalarOp::IsPosInf, &[Arg::Input(0)]),
        (false, false) => {
            let nan = p.push(ScalarOp::IsNan, &[Arg::Input(0)]);
            let number = p.push(ScalarOp::Not, &[nan]);
            p.push(ScalarOp::And, &[nan, number])
        }
    })?)
}

fn choose(cx: &mut Cx<'_, '_>) -> Imported {
    let (condition, a, b) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    one(cx.b.select(condition, a, b)?)
}

/// min(high, max(low, x)), where the bounds are attributes.
fn clip_to_attributes(cx: &mut Cx<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    let bounds = [(ScalarOp::Max, cx.attrs.float_opt("min")?), (ScalarOp::Min, cx.attrs.float_opt("max")?)];
    if bounds.iter().all(|(_, bound)| bound.is_none()) {
        return one(x);
    }
    one(cx.b.program(&[x], |p| {
        bounds.into_iter().fold(Arg::Input(0), |x, (op, bound)| match bound {
            Some(bound) => p.push(op, &[x, p.imm(x, f64::from(bound))]),
            None => x,
        })
    })?)
}

/// min(high, max(low, x)), where the bounds are scalar operands.
fn clip_to_operands(cx: &mut Cx<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    let mut inputs = vec![x];
    let mut steps = Vec::new();
    for (k, op) in [(1, ScalarOp::Max), (2, ScalarOp::Min)] {
        if let Some(bound) = operands::scalar(cx, k)? {
            steps.push((op, inputs.len() as u16));
            inputs.push(bound);
        }
    }
    if steps.is_empty() {
        return one(x);
    }
    one(cx.b.program(&inputs, |p| {
        steps.into_iter().fold(Arg::Input(0), |x, (op, bound)| p.push(op, &[x, Arg::Input(bound)]))
    })?)
}
