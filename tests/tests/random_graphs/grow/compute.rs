//! Steps that compute element by element or along an axis.

use lapidary::ir::{Expr, Op, ValueId};
use lapidary_runtime::DType;
use lapidary_runtime::op::{
    Arg, ArgReduce, Axes, GroupNorm, Norm, NormKind, Reduce, ReduceKind, Scalar, ScalarOp, Softmax,
};

use super::super::recipe::Choices;
use super::{Grower, Grown, TYPES};

use ScalarOp::*;

const FLOAT_UNARY: &[ScalarOp] = &[
    Neg, Abs, Sign, Floor, Ceil, Round, Sqrt, Rsqrt, Reciprocal, Exp, Log, Sin, Cos, Tan, Asin, Acos, Atan, Sinh, Cosh,
    Tanh, Asinh, Acosh, Atanh, Erf, Sigmoid, Softplus, IsNan, IsPosInf, IsNegInf, Identity,
];
const INT_UNARY: &[ScalarOp] = &[Neg, Abs, Sign, BitNot, Identity];
const NUMBER_BINARY: &[ScalarOp] = &[
    Add,
    Sub,
    Mul,
    Div,
    Add,
    Sub,
    Mul,
    Min,
    Max,
    Mod,
    Fmod,
    Pow,
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
];
const INT_BINARY: &[ScalarOp] = &[BitAnd, BitOr, BitXor, ShiftLeft, ShiftRight];
const BOOL_BINARY: &[ScalarOp] = &[And, Or, Xor, Equal, NotEqual];

fn unary_op(dtype: DType, choices: &mut Choices<'_>) -> ScalarOp {
    if dtype == DType::Bool {
        Not
    } else if dtype.is_float() {
        choices.pick(FLOAT_UNARY)
    } else {
        choices.pick(INT_UNARY)
    }
}

fn binary_op(dtype: DType, choices: &mut Choices<'_>) -> ScalarOp {
    if dtype == DType::Bool {
        choices.pick(BOOL_BINARY)
    } else if dtype.is_int() && choices.once_in(3) {
        choices.pick(INT_BINARY)
    } else {
        choices.pick(NUMBER_BINARY)
    }
}

pub fn unary(g: &mut Grower<'_>, choices: &mut Choices<'_>) -> Grown {
    let x = g.value(choices, |_| true)?;
    let op = unary_op(g.dtype(x), choices);
    Ok(vec![g.builder().unary(op, x)?])
}

pub fn binary(g: &mut Grower<'_>, choices: &mut Choices<'_>) -> Grown {
    let x = g.value(choices, |_| true)?;
    // Whether two rounded numbers are the same is nobody's promise, and perturbed ones hardly ever are.
    let op = match binary_op(g.dtype(x), choices) {
        ScalarOp::Equal if g.dtype(x).is_float() => ScalarOp::LessEqual,
        ScalarOp::NotEqual if g.dtype(x).is_float() => ScalarOp::Greater,
        // Nor is it whether one divides the other.
        ScalarOp::Mod | ScalarOp::Fmod if g.dtype(x).is_float() => ScalarOp::Min,
        op => op,
    };
    let y = g.partner(x, choices)?;
    let (a, b) = if choices.below(3) == 2 { (y, x) } else { (x, y) };
    Ok(vec![g.builder().binary(op, a, b)?])
}

pub fn select(g: &mut Grower<'_>, choices: &mut Choices<'_>) -> Grown {
    let condition = g.value(choices, |ty| ty.dtype == DType::Bool)?;
    let dims = g.ty(condition).dims;
    let x = g.value(choices, |ty| super::broadcasts(&ty.dims, &dims))?;
    let y = g.partner(x, choices)?;
    Ok(vec![g.builder().select(condition, x, y)?])
}

pub fn cast(g: &mut Grower<'_>, choices: &mut Choices<'_>) -> Grown {
    let x = g.value(choices, |_| true)?;
    let to = choices.pick(TYPES);
    Ok(vec![g.builder().cast(x, to)?])
}

/// A program of several steps and constants in one node.
pub fn chain(g: &mut Grower<'_>, choices: &mut Choices<'_>) -> Grown {
    let x = g.value(choices, |ty| ty.dtype != DType::Bool)?;
    let y = g.partner(x, choices)?;
    let dtype = g.dtype(x);
    let arithmetic = |choices: &mut Choices<'_>| choices.pick(&[Add, Sub, Mul, Min, Max, Div]);
    let steps = choices.between(1, 4);
    let built = g.builder().program(&[x, y], |p| {
        let mut last = Arg::Input(0);
        for _ in 0..steps {
            let constant = p.imm(last, (choices.between(-8, 8) as f64) / if dtype.is_float() { 4.0 } else { 1.0 });
            last = match choices.below(4) {
                0 => p.push(arithmetic(choices), &[last, constant]),
                1 => p.push(arithmetic(choices), &[constant, last]),
                2 => p.push(arithmetic(choices), &[last, Arg::Input(1)]),
                _ => {
                    let positive = p.push(Greater, &[last, constant]);
                    p.push(Select, &[positive, last, Arg::Input(1)])
                }
            };
        }
        last
    });
    Ok(vec![built?])
}

pub fn reduce(g: &mut Grower<'_>, choices: &mut Choices<'_>) -> Grown {
    use ReduceKind::*;
    let x = g.value(choices, |ty| !ty.dims.is_empty())?;
    let dtype = g.dtype(x);
    let kind = if dtype == DType::Bool {
        choices.pick(&[Max, Min])
    } else if dtype.is_float() {
        choices.pick(&[Sum, Mean, Max, Min, Prod, L1, L2, SumSquare, LogSum, LogSumExp])
    } else {
        choices.pick(&[Sum, Mean, Max, Min, Prod, L1, SumSquare])
    };
    let axes: Vec<usize> = (0..g.rank(x)).filter(|_| choices.below(2) == 0).collect();
    let spec = Reduce { kind, axes: Axes::of(axes) };
    Ok(vec![g.builder().node(Op::Reduce(spec), &[x])?])
}

pub fn axis(g: &Grower<'_>, x: ValueId, choices: &mut Choices<'_>) -> u8 {
    choices.below(g.rank(x)) as u8
}

pub fn arg_reduce(g: &mut Grower<'_>, choices: &mut Choices<'_>) -> Grown {
    let x = g.value(choices, |ty| ty.dtype != DType::Bool && !ty.dims.is_empty())?;
    let spec =
        ArgReduce { axis: axis(g, x, choices), largest: choices.below(2) == 0, select_last: choices.below(2) == 0 };
    Ok(vec![g.builder().node(Op::ArgReduce(spec), &[x])?])
}

pub fn softmax(g: &mut Grower<'_>, choices: &mut Choices<'_>) -> Grown {
    let x = g.floats(choices, 1)?;
    let spec = Softmax { axis: axis(g, x, choices), log: choices.below(2) == 0 };
    Ok(vec![g.builder().node(Op::Softmax(spec), &[x])?])
}

pub fn norm(g: &mut Grower<'_>, choices: &mut Choices<'_>) -> Grown {
    let x = g.floats(choices, 2)?;
    let axis = axis(g, x, choices);
    let ty = g.ty(x);
    let kind = if choices.below(2) == 0 { NormKind::Layer } else { NormKind::Rms };
    let row: Vec<i64> = ty.dims[usize::from(axis)..].iter().map(|dim| dim.as_const().unwrap_or(1)).collect();
    let mut operands = vec![Some(x)];
    for _ in 0..2 {
        operands.push((choices.below(2) == 0).then(|| g.constant(ty.dtype, &row, choices)));
    }
    let spec = Norm { kind, axis, epsilon: Scalar::float(DType::F32, f64::from(1e-3f32)) };
    let wanted = choices.below(3) + 1;
    let results = g.builder().node_with(Op::Norm(spec, None), &operands, wanted)?;
    Ok(results.into_iter().flatten().collect())
}

pub fn group_norm(g: &mut Grower<'_>, choices: &mut Choices<'_>) -> Grown {
    let (x, channels) = g.image(choices)?;
    let divisors: Vec<i64> = (1..=channels).filter(|d| channels % d == 0).collect();
    let groups = choices.pick(&divisors) as u32;
    let dtype = g.dtype(x);
    let scale = g.constant(dtype, &[channels], choices);
    let bias = g.constant(dtype, &[channels], choices);
    let spec = GroupNorm { groups, epsilon: Scalar::float(DType::F32, f64::from(1e-3f32)) };
    Ok(vec![g.builder().node(Op::GroupNorm(spec, None), &[x, scale, bias])?])
}

pub fn cum_sum(g: &mut Grower<'_>, choices: &mut Choices<'_>) -> Grown {
    let x = g.value(choices, |ty| ty.dtype != DType::Bool && !ty.dims.is_empty())?;
    let op = Op::CumSum { axis: axis(g, x, choices), exclusive: choices.below(2) == 0, reverse: choices.below(2) == 0 };
    Ok(vec![g.builder().node(op, &[x])?])
}

pub fn top_k(g: &mut Grower<'_>, choices: &mut Choices<'_>) -> Grown {
    let x = g.value(choices, |ty| ty.dtype != DType::Bool && !ty.dims.is_empty())?;
    let axis = axis(g, x, choices);
    let extent = g.ty(x).dims[usize::from(axis)].clone();
    let k = match extent.as_const() {
        Some(extent) => Expr::constant(choices.between(0, extent)),
        None if choices.below(2) == 0 => extent,
        None => Expr::constant(1),
    };
    let op = Op::TopK { axis, largest: choices.below(2) == 0, k };
    let wanted = choices.below(2) + 1;
    let results = g.builder().node_with(op, &[Some(x)], wanted)?;
    Ok(results.into_iter().flatten().collect())
}
