//! Activation functions: one line each where a formula says all (ONNX operators; `com.microsoft` of ONNX Runtime's
//! ContribOperators.md).
//!
//! Formulas are computed in `f32` at least, so that neither their constants nor their intermediate results are rounded
//! to half precision. Softmax and its kin, which look along an axis, are in [`super::softmax`].

use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

use lapidary_runtime::DType;
use lapidary_runtime::op::{Activation, ActivationKind, Arg, ScalarOp};

use super::entry::{binary, contrib, op, unary};
use super::{Cx, Fault, Imported, OpDef, one, operands, random};
use crate::ir::ValueId;
use crate::ir::builder::ProgramWriter;

pub const DEFS: &[OpDef] = &[
    unary("Celu", 12, |cx| with_alpha(cx, 1.0, celu)),
    unary("Elu", 6, |cx| with_alpha(cx, 1.0, elu)),
    unary("Gelu", 20, gelu_by_attribute),
    unary("HardSigmoid", 6, hard_sigmoid),
    unary("HardSwish", 14, |cx| formula(cx, hard_swish)),
    unary("LeakyRelu", 6, |cx| with_alpha(cx, 0.01, |p, x, alpha| if_below_zero(p, x, |p| scale(p, x, alpha)))),
    unary("Mish", 18, |cx| formula(cx, mish)),
    binary("PRelu", 7, prelu),
    unary("Relu", 6, relu),
    unary("Selu", 6, selu),
    unary("Shrink", 9, shrink),
    unary("Sigmoid", 6, |cx| formula(cx, |p, x| p.push(ScalarOp::Sigmoid, &[x]))),
    unary("Softplus", 1, |cx| formula(cx, |p, x| p.push(ScalarOp::Softplus, &[x]))),
    unary("Softsign", 1, |cx| formula(cx, softsign)),
    binary("SwiGLU", 28, swiglu),
    unary("Swish", 24, |cx| with_alpha(cx, 1.0, swish)),
    unary("ThresholdedRelu", 10, |cx| with_alpha(cx, 1.0, thresholded_relu)),
    OpDef { outputs: (1, 2), ..unary("Dropout", 7, |cx| dropout(cx, MaskType::OfData)) },
    OpDef { outputs: (1, 2), ..unary("Dropout", 10, |cx| dropout(cx, MaskType::Bool)) },
    OpDef { outputs: (1, 2), ..op("Dropout", 12, (1, 3), dropout_with_operands) },
    contrib("Gelu", (1, 1), |cx| formula(cx, gelu_erf)),
    contrib("BiasGelu", (2, 2), |cx| biased(cx, gelu_erf)),
    contrib("FastGelu", (1, 2), |cx| biased(cx, gelu_tanh)),
    contrib("QuickGelu", (1, 1), |cx| with_alpha(cx, 1.702, swish)),
];

type P = ProgramWriter;

/// Appends the steps of a function of one argument.
type Function = fn(&mut P, Arg) -> Arg;

/// `f(x)`.
fn formula(cx: &mut Cx<'_, '_>, f: impl FnOnce(&mut P, Arg) -> Arg) -> Imported {
    let x = cx.input(0)?;
    float_program(cx, &[x], |p, args| f(p, args[0]))
}

/// `f(x, alpha)`, where `alpha` is an attribute.
fn with_alpha(cx: &mut Cx<'_, '_>, default: f32, f: impl FnOnce(&mut P, Arg, f64) -> Arg) -> Imported {
    let alpha = f64::from(cx.attrs.float_or("alpha", default)?);
    formula(cx, |p, x| f(p, x, alpha))
}

/// `f(x + bias)`; the bias may be absent.
fn biased(cx: &mut Cx<'_, '_>, f: impl FnOnce(&mut P, Arg) -> Arg) -> Imported {
    let inputs: Vec<ValueId> = [Some(cx.input(0)?), cx.optional(1)].into_iter().flatten().collect();
    float_program(cx, &inputs, |p, args| {
        let x = match args {
            [x, bias] => p.push(ScalarOp::Add, &[*x, *bias]),
            _ => args[0],
        };
        f(p, x)
    })
}

/// A program on float operands, computed in `f32` at least; the result has the type of the first operand.
fn float_program(cx: &mut Cx<'_, '_>, inputs: &[ValueId], write: impl FnOnce(&mut P, &[Arg]) -> Arg) -> Imported {
    for &input in inputs {
        let dtype = cx.b.dtype(input);
        if !dtype.is_float() {
            return Err(Fault::Invalid(format!("the operator takes floats, and is given {dtype}")));
        }
    }
    wide_program(cx, inputs, write)
}

/// A program on operands converted to `f32`, or to `f64` where `f32` does not hold them; the result has the type of the
/// first operand.
fn wide_program(cx: &mut Cx<'_, '_>, inputs: &[ValueId], write: impl FnOnce(&mut P, &[Arg]) -> Arg) -> Imported {
    let dtype = cx.b.dtype(inputs[0]);
    let wide = if dtype == DType::F64 || (dtype.is_int() && dtype.bits() > 16) { DType::F64 } else { DType::F32 };
    one(cx.b.program(inputs, |p| {
        let args: Vec<Arg> = (0..inputs.len()).map(|k| p.cast(Arg::Input(k as u16), wide)).collect();
        let result = write(p, &args);
        p.cast(result, dtype)
    })?)
}

fn scale(p: &mut P, x: Arg, factor: f64) -> Arg {
    p.push(ScalarOp::Mul, &[x, p.imm(x, factor)])
}

fn plus(p: &mut P, x: Arg, term: f64) -> Arg {
    p.push(ScalarOp::Add, &[x, p.imm(x, term)])
}

fn times(p: &mut P, a: Arg, b: Arg) -> Arg {
    p.push(ScalarOp::Mul, &[a, b])
}

/// alpha * (exp(x) - 1)
fn exp_minus_one(p: &mut P, x: Arg, alpha: f64) -> Arg {
    let exp = p.push(ScalarOp::Exp, &[x]);
    let less_one = plus(p, exp, -1.0);
    scale(p, less_one, alpha)
}

/// `x < 0 ? below : x`
fn if_below_zero(p: &mut P, x: Arg, below: impl FnOnce(&mut P) -> Arg) -> Arg {
    let below = below(p);
    let negative = p.push(ScalarOp::Less, &[x, p.imm(x, 0.0)]);
    p.push(ScalarOp::Select, &[negative, below, x])
}

/// max(0, min(1, alpha * x + beta))
fn hard_sigmoid_of(p: &mut P, x: Arg, alpha: f64, beta: f64) -> Arg {
    let line = scale(p, x, alpha);
    let line = plus(p, line, beta);
    let low = p.push(ScalarOp::Min, &[line, p.imm(x, 1.0)]);
    p.push(ScalarOp::Max, &[low, p.imm(x, 0.0)])
}

/// max(0, x) + min(0, alpha * (exp(x / alpha) - 1))
fn celu(p: &mut P, x: Arg, alpha: f64) -> Arg {
    let above = p.push(ScalarOp::Max, &[x, p.imm(x, 0.0)]);
    let scaled = p.push(ScalarOp::Div, &[x, p.imm(x, alpha)]);
    let below = exp_minus_one(p, scaled, alpha);
    let below = p.push(ScalarOp::Min, &[below, p.imm(x, 0.0)]);
    p.push(ScalarOp::Add, &[above, below])
}

/// x < 0 ? alpha * (exp(x) - 1) : x
fn elu(p: &mut P, x: Arg, alpha: f64) -> Arg {
    if_below_zero(p, x, |p| exp_minus_one(p, x, alpha))
}

/// x * hard_sigmoid(x) with alpha 1/6 and beta 0.5
fn hard_swish(p: &mut P, x: Arg) -> Arg {
    let gate = hard_sigmoid_of(p, x, 1.0 / 6.0, 0.5);
    times(p, x, gate)
}

/// x * tanh(softplus(x))
fn mish(p: &mut P, x: Arg) -> Arg {
    let softplus = p.push(ScalarOp::Softplus, &[x]);
    let gate = p.push(ScalarOp::Tanh, &[softplus]);
    times(p, x, gate)
}

/// x / (1 + |x|)
fn softsign(p: &mut P, x: Arg) -> Arg {
    let magnitude = p.push(ScalarOp::Abs, &[x]);
    let divisor = plus(p, magnitude, 1.0);
    p.push(ScalarOp::Div, &[x, divisor])
}

/// x * sigmoid(alpha * x)
fn swish(p: &mut P, x: Arg, alpha: f64) -> Arg {
    let scaled = if alpha == 1.0 { x } else { scale(p, x, alpha) };
    let gate = p.push(ScalarOp::Sigmoid, &[scaled]);
    times(p, x, gate)
}

/// a * sigmoid(alpha * a) * b
fn swiglu(cx: &mut Cx<'_, '_>) -> Imported {
    let (a, b) = (cx.input(0)?, cx.input(1)?);
    let alpha = f64::from(cx.attrs.float_or("alpha", 1.0)?);
    let (of_a, of_b) = (cx.b.dims(a), cx.b.dims(b));
    if of_a.len() != of_b.len() {
        return Err(
            format!("the operands have the ranks {} and {}, and do not broadcast", of_a.len(), of_b.len()).into()
        );
    }
    for (left, right) in of_a.iter().zip(&of_b) {
        cx.b.require_equal(left, right)?;
    }
    float_program(cx, &[a, b], |p, args| {
        let gate = swish(p, args[0], alpha);
        times(p, gate, args[1])
    })
}

/// x > alpha ? x : 0
fn thresholded_relu(p: &mut P, x: Arg, alpha: f64) -> Arg {
    let above = p.push(ScalarOp::Greater, &[x, p.imm(x, alpha)]);
    p.push(ScalarOp::Select, &[above, x, p.imm(x, 0.0)])
}

/// The activation of a recurrent layer.
pub(super) fn of_layer(p: &mut P, activation: Activation, x: Arg) -> Arg {
    let (alpha, beta) = (f64::from(activation.alpha), f64::from(activation.beta));
    match activation.kind {
        ActivationKind::Sigmoid => p.push(ScalarOp::Sigmoid, &[x]),
        ActivationKind::Tanh => p.push(ScalarOp::Tanh, &[x]),
        ActivationKind::Relu => p.push(ScalarOp::Max, &[x, p.imm(x, 0.0)]),
        ActivationKind::Affine => {
            let scaled = scale(p, x, alpha);
            plus(p, scaled, beta)
        }
        ActivationKind::LeakyRelu => if_below_zero(p, x, |p| scale(p, x, alpha)),
        // Unlike the operator of this name, x itself at alpha.
        ActivationKind::ThresholdedRelu => {
            let above = p.push(ScalarOp::GreaterEqual, &[x, p.imm(x, alpha)]);
            p.push(ScalarOp::Select, &[above, x, p.imm(x, 0.0)])
        }
        ActivationKind::ScaledTanh => {
            let inner = scale(p, x, beta);
            let tanh = p.push(ScalarOp::Tanh, &[inner]);
            scale(p, tanh, alpha)
        }
        ActivationKind::HardSigmoid => hard_sigmoid_of(p, x, alpha, beta),
        ActivationKind::Elu => elu(p, x, alpha),
        ActivationKind::Softsign => softsign(p, x),
        ActivationKind::Softplus => p.push(ScalarOp::Softplus, &[x]),
    }
}

/// 0.5 * x * (1 + erf(x / sqrt(2)))
fn gelu_erf(p: &mut P, x: Arg) -> Arg {
    let scaled = scale(p, x, FRAC_1_SQRT_2);
    let erf = p.push(ScalarOp::Erf, &[scaled]);
    gelu_of(p, x, erf)
}

/// 0.5 * x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3)))
fn gelu_tanh(p: &mut P, x: Arg) -> Arg {
    let square = times(p, x, x);
    let cubic = scale(p, square, 0.044_715);
    let factor = plus(p, cubic, 1.0);
    let sum = times(p, x, factor);
    let inner = scale(p, sum, FRAC_2_SQRT_PI * FRAC_1_SQRT_2);
    let tanh = p.push(ScalarOp::Tanh, &[inner]);
    gelu_of(p, x, tanh)
}

/// 0.5 * x * (1 + gate)
fn gelu_of(p: &mut P, x: Arg, gate: Arg) -> Arg {
    let half = scale(p, x, 0.5);
    let gate = plus(p, gate, 1.0);
    times(p, half, gate)
}

fn gelu_by_attribute(cx: &mut Cx<'_, '_>) -> Imported {
    let f = cx.attrs.choice_or("approximate", gelu_erf as Function, &[("none", gelu_erf), ("tanh", gelu_tanh)])?;
    formula(cx, f)
}

fn hard_sigmoid(cx: &mut Cx<'_, '_>) -> Imported {
    let beta = f64::from(cx.attrs.float_or("beta", 0.5)?);
    with_alpha(cx, 0.2, |p, x, alpha| hard_sigmoid_of(p, x, alpha, beta))
}

/// max(x, 0), for integers too.
fn relu(cx: &mut Cx<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    one(cx.b.program(&[x], |p| p.push(ScalarOp::Max, &[Arg::Input(0), p.imm(Arg::Input(0), 0.0)]))?)
}

/// x < 0 ? slope * x : x, for integers too.
fn prelu(cx: &mut Cx<'_, '_>) -> Imported {
    let (x, slope) = (cx.input(0)?, cx.input(1)?);
    one(cx.b.program(&[x, slope], |p| if_below_zero(p, Arg::Input(0), |p| times(p, Arg::Input(0), Arg::Input(1))))?)
}

/// x > 0 ? gamma * x : gamma * alpha * (exp(x) - 1)
fn selu(cx: &mut Cx<'_, '_>) -> Imported {
    let gamma = f64::from(cx.attrs.float_or("gamma", 1.050_701)?);
    with_alpha(cx, 1.673_263_2, |p, x, alpha| {
        let below = exp_minus_one(p, x, alpha);
        let positive = p.push(ScalarOp::Greater, &[x, p.imm(x, 0.0)]);
        let chosen = p.push(ScalarOp::Select, &[positive, x, below]);
        scale(p, chosen, gamma)
    })
}

/// x < -lambd ? x + bias : x > lambd ? x - bias : 0, for integers too.
fn shrink(cx: &mut Cx<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    let lambd = f64::from(cx.attrs.float_or("lambd", 0.5)?);
    let bias = f64::from(cx.attrs.float_or("bias", 0.0)?);
    wide_program(cx, &[x], |p, args| {
        let x = args[0];
        let (raised, lowered) = (plus(p, x, bias), plus(p, x, -bias));
        let above = p.push(ScalarOp::Greater, &[x, p.imm(x, lambd)]);
        let otherwise = p.push(ScalarOp::Select, &[above, lowered, p.imm(x, 0.0)]);
        let below = p.push(ScalarOp::Less, &[x, p.imm(x, -lambd)]);
        p.push(ScalarOp::Select, &[below, raised, otherwise])
    })
}

/// The element type of Dropout's mask, which changed with operator set 10.
enum MaskType {
    OfData,
    Bool,
}

/// In inference Dropout changes nothing, and its mask is all ones.
fn dropout(cx: &mut Cx<'_, '_>, mask: MaskType) -> Imported {
    cx.attrs.ignore(&["ratio", "seed"]);
    let x = cx.input(0)?;
    if !cx.wants(1) {
        return one(x);
    }
    let dtype = match mask {
        MaskType::OfData => cx.b.dtype(x),
        MaskType::Bool => DType::Bool,
    };
    let dims = cx.b.dims(x);
    let ones = cx.b.scalar(crate::ir::builder::round_scalar(dtype, 1.0));
    let mask = cx.b.expand(ones, dims)?;
    Ok(vec![Some(x), Some(mask)])
}

/// Where it trains, each element is dropped with the probability `ratio`, and the others are scaled by 1 / (1 - ratio).
fn dropout_with_operands(cx: &mut Cx<'_, '_>) -> Imported {
    // With ratio 0 training drops nothing either.
    let keeps_all = operands::constant_number(cx, 1) == Some(0.0);
    let trains = match cx.optional(2) {
        None => false,
        Some(_) if keeps_all => false,
        Some(trains) => match operands::constant_number(cx, 2) {
            Some(number) => number != 0.0,
            None => return Err(operands::depends_on_data(cx, trains, "mode")),
        },
    };
    if !trains {
        return dropout(cx, MaskType::Bool);
    }
    let x = cx.input(0)?;
    let ratio = operands::scalar(cx, 1)?;
    let mask = random::kept(cx, x, ratio)?;
    let dtype = cx.b.dtype(x);
    let wide = if dtype == DType::F64 { DType::F64 } else { DType::F32 };
    let operands: Vec<ValueId> = [Some(x), Some(mask), ratio].into_iter().flatten().collect();
    let y = cx.b.program(&operands, |p| {
        let x = p.cast(Arg::Input(0), wide);
        let ratio = if ratio.is_some() { p.cast(Arg::Input(2), wide) } else { p.imm(x, 0.5) };
        let rest = p.push(ScalarOp::Sub, &[p.imm(ratio, 1.0), ratio]);
        let scaled = p.push(ScalarOp::Div, &[x, rest]);
        let kept = p.push(ScalarOp::Select, &[Arg::Input(1), scaled, p.imm(scaled, 0.0)]);
        p.cast(kept, dtype)
    })?;
    Ok(vec![Some(y), Some(mask)])
}
