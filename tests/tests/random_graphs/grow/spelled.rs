//! Operations written out in steps, as exporters write them, and chains that miss one by a little.

use lapidary::ir::builder::{Built, round_scalar, scalar_bytes};
use lapidary::ir::{Builder, Expr, Op, Type, ValueId};
use lapidary_runtime::DType;
use lapidary_runtime::op::{Arg, Axes, GroupNorm, Reduce, ReduceKind, Scalar, ScalarOp};

use super::super::recipe::Choices;
use super::{Grower, Grown};

const EPSILON: f64 = 1e-3;

/// `(x - mean) / sqrt(variance + epsilon) * scale + bias`, converted to `f32` and back or not.
pub fn norm(g: &mut Grower<'_>, choices: &mut Choices<'_>) -> Grown {
    let x = g.floats(choices, 1)?;
    let (rank, dtype) = (g.rank(x), g.dtype(x));
    let wide = if dtype.bits() < 32 && choices.below(3) > 0 { DType::F32 } else { dtype };
    let first = choices.below(rank);
    let x = g.builder().cast(x, wide)?;
    let miss = choices.below(10);
    // One time in ten the axes are not the last ones.
    let axes: Vec<usize> = (first..if miss == 1 { rank - 1 } else { rank }).collect();
    let (normalized, inside) = normalize(g, x, &axes, miss, choices)?;
    let early = choices.below(2) == 0;
    let mut y = if early { g.builder().cast(normalized, dtype)? } else { normalized };
    let dims = g.ty(x).dims;
    for op in [ScalarOp::Mul, ScalarOp::Add] {
        if choices.below(4) == 0 {
            continue;
        }
        // Mostly one row, sometimes more or less of the axes.
        let lead = if choices.once_in(6) { choices.below(rank) } else { first };
        let row: Vec<i64> = dims[lead..].iter().map(|dim| dim.as_const().unwrap_or(1)).collect();
        let of_type = g.dtype(y);
        let factor = if early || of_type == dtype { of_type } else { dtype };
        let factor = g.constant(factor, &row, choices);
        let factor = g.builder().cast(factor, of_type)?;
        y = either_order(g, op, y, factor, choices)?;
    }
    y = g.builder().cast(y, dtype)?;
    // Sometimes a value from between is read elsewhere.
    Ok(if miss == 3 { vec![inside, y] } else { vec![y] })
}

/// The normalized `x`, and a value that is computed on the way.
fn normalize(
    g: &mut Grower<'_>,
    x: ValueId,
    axes: &[usize],
    miss: usize,
    choices: &mut Choices<'_>,
) -> Result<(ValueId, ValueId), String> {
    let d = if choices.below(2) == 0 {
        let mean = g.builder().reduce(ReduceKind::Mean, x, axes)?;
        g.builder().binary(ScalarOp::Sub, x, mean)?
    } else {
        x
    };
    let squares = power(g, d, 2.0, choices)?;
    let variance = average(g, squares, axes, choices)?;
    let y = if miss == 2 {
        let deviation = g.builder().unary(ScalarOp::Sqrt, variance)?;
        let raised = with_scalar(g, ScalarOp::Add, deviation, EPSILON)?;
        g.builder().binary(ScalarOp::Div, d, raised)?
    } else {
        let raised = with_scalar(g, ScalarOp::Add, variance, EPSILON)?;
        over_root(g, d, raised, choices)?
    };
    Ok((y, variance))
}

/// A reshape to groups, a normalization, a reshape back, a scale and a bias for each channel.
pub fn group_norm(g: &mut Grower<'_>, choices: &mut Choices<'_>) -> Grown {
    let (x, channels) = g.image(choices)?;
    let (ty, dtype) = (g.ty(x), g.dtype(x));
    let divisors: Vec<i64> = (1..=channels).filter(|d| channels % d == 0).collect();
    let groups = choices.pick(&divisors);
    let rest = ty.dims[2..].iter().fold(Expr::constant(channels / groups), |count, dim| count * dim.clone());
    let view = g.builder().reshape(x, vec![ty.dims[0].clone(), Expr::constant(groups), rest])?;
    let normalized = if choices.below(2) == 0 {
        let scale = filled(g, dtype, groups, if choices.once_in(5) { 2.0 } else { 1.0 });
        let bias = filled(g, dtype, groups, 0.0);
        let spec = GroupNorm { groups: groups as u32, epsilon: Scalar::float(DType::F64, EPSILON) };
        g.builder().node(Op::GroupNorm(spec, None), &[view, scale, bias])?
    } else {
        normalize(g, view, &[2], 0, choices)?.0
    };
    let mut y = g.builder().reshape(normalized, ty.dims.clone())?;
    let other_axis = choices.once_in(8);
    for op in [ScalarOp::Mul, ScalarOp::Add] {
        if choices.once_in(5) {
            continue;
        }
        let mut per_channel = vec![1; ty.dims.len() - 1];
        per_channel[0] = channels;
        if other_axis {
            per_channel.rotate_right(1);
        }
        let factor = g.constant(dtype, &per_channel, choices);
        y = either_order(g, op, y, factor, choices)?;
    }
    Ok(vec![y])
}

/// `exp(x - max) / sum`, its logarithm, or the logarithm of the operation.
pub fn softmax(g: &mut Grower<'_>, choices: &mut Choices<'_>) -> Grown {
    let x = g.floats(choices, 1)?;
    let axis = choices.below(g.rank(x));
    let miss = choices.below(10);
    let mut b = g.builder();
    let largest = b.reduce(if miss == 1 { ReduceKind::Mean } else { ReduceKind::Max }, x, &[axis])?;
    let shifted = b.binary(ScalarOp::Sub, x, largest)?;
    let exponentials = b.unary(ScalarOp::Exp, shifted)?;
    let axes = if miss == 2 { Axes::of([0, axis]) } else { Axes::of([axis]) };
    let sum = b.node(Op::Reduce(Reduce { kind: ReduceKind::Sum, axes }), &[exponentials])?;
    let y = match choices.below(4) {
        0 => b.binary(ScalarOp::Div, exponentials, sum)?,
        1 => {
            let inverse = b.unary(ScalarOp::Reciprocal, sum)?;
            b.binary(ScalarOp::Mul, inverse, exponentials)?
        }
        2 => {
            let logarithm = b.unary(ScalarOp::Log, sum)?;
            b.binary(ScalarOp::Sub, shifted, logarithm)?
        }
        _ => {
            let quotients = b.binary(ScalarOp::Div, exponentials, sum)?;
            b.unary(ScalarOp::Log, quotients)?
        }
    };
    Ok(if miss == 3 { vec![sum, y] } else { vec![y] })
}

/// A reduction with a step before and behind it.
pub fn reduction(g: &mut Grower<'_>, choices: &mut Choices<'_>) -> Grown {
    let x = g.value(choices, |ty| ty.dtype != DType::Bool && !ty.dims.is_empty())?;
    let float = g.dtype(x).is_float();
    let axes: Vec<usize> = (0..g.rank(x)).filter(|_| choices.below(3) > 0).collect();
    let before = match choices.below(if float { 5 } else { 3 }) {
        0 => g.builder().unary(ScalarOp::Abs, x)?,
        1 => power(g, x, 2.0, choices)?,
        2 => x,
        3 => power(g, x, 3.0, choices)?,
        _ => g.builder().unary(ScalarOp::Exp, x)?,
    };
    let sum = average_or_sum(g, before, &axes, choices)?;
    let y = match choices.below(if float { 3 } else { 1 }) {
        0 => sum,
        1 => g.builder().unary(ScalarOp::Sqrt, sum)?,
        _ => g.builder().unary(ScalarOp::Log, sum)?,
    };
    Ok(if choices.once_in(8) { vec![before, y] } else { vec![y] })
}

/// A transpose between reshapes that put in, take out and merge axes, behind another transpose or not.
pub fn transpose_view(g: &mut Grower<'_>, choices: &mut Choices<'_>) -> Grown {
    let mut x = g.value(choices, |ty| (2..=5).contains(&ty.dims.len()))?;
    if choices.once_in(3) {
        let perm = shuffled(g.rank(x), choices);
        x = g.builder().transpose(x, &perm)?;
    }
    // Each axis of the view is a run of axes; ones come and go.
    let mut runs: Vec<Vec<Expr>> = Vec::new();
    for dim in g.ty(x).dims {
        match runs.last_mut() {
            Some(run) if choices.once_in(4) => run.push(dim),
            Some(_) if dim.is(1) && choices.below(2) == 0 => {}
            Some(_) | None => runs.push(vec![dim]),
        }
    }
    if choices.below(2) == 0 {
        runs.insert(choices.below(runs.len() + 1), Vec::new());
    }
    let product = |run: &Vec<Expr>| run.iter().fold(Expr::constant(1), |count, dim| count * dim.clone());
    let view = g.builder().reshape(x, runs.iter().map(product).collect())?;
    let perm = shuffled(runs.len(), choices);
    let moved = g.builder().transpose(view, &perm)?;
    let mut dims: Vec<Expr> = perm.iter().flat_map(|&axis| runs[axis].clone()).collect();
    while dims.len() < g.rank(x) {
        dims.insert(choices.below(dims.len() + 1), Expr::constant(1));
    }
    let y = g.builder().reshape(moved, dims)?;
    Ok(if choices.once_in(8) { vec![moved, y] } else { vec![y] })
}

/// A product of flattened rows, with steps behind the reshape back.
pub fn linear(g: &mut Grower<'_>, choices: &mut Choices<'_>) -> Grown {
    let x = g.floats(choices, 2)?;
    let (mut dims, dtype) = (g.ty(x).dims, g.dtype(x));
    let inner = dims.pop().and_then(|inner| inner.as_const()).ok_or("the inner extent is not constant")?;
    let rows = dims.iter().fold(Expr::constant(1), |count, dim| count * dim.clone());
    let flat = g.builder().reshape(x, vec![rows, Expr::constant(inner)])?;
    let columns = if choices.below(2) == 0 { inner } else { choices.between(1, 6) };
    let weight = g.constant(dtype, &[inner, columns], choices);
    let mut y = g.builder().matmul(flat, weight)?;
    if choices.once_in(3) {
        y = g.builder().unary(ScalarOp::Tanh, y)?;
    }
    dims.push(Expr::constant(columns));
    y = g.builder().reshape(y, dims)?;
    for _ in 0..choices.between(1, 2) {
        let other = g.partner(y, choices)?;
        y = either_order(g, ScalarOp::Add, y, other, choices)?;
    }
    Ok(vec![y])
}

fn shuffled(rank: usize, choices: &mut Choices<'_>) -> Vec<usize> {
    let mut left: Vec<usize> = (0..rank).collect();
    (0..rank).map(|_| left.remove(choices.below(left.len()))).collect()
}

/// `x` to a power, as a product where it can be.
fn power(g: &mut Grower<'_>, x: ValueId, exponent: f64, choices: &mut Choices<'_>) -> Built {
    if exponent == 2.0 && choices.below(2) == 0 {
        return g.builder().program(&[x], |p| p.push(ScalarOp::Mul, &[Arg::Input(0), Arg::Input(0)]));
    }
    with_scalar(g, ScalarOp::Pow, x, exponent)
}

/// The mean along the axes, in one of its spellings.
fn average(g: &mut Grower<'_>, x: ValueId, axes: &[usize], choices: &mut Choices<'_>) -> Built {
    let dims = g.ty(x).dims;
    let count: Option<i64> = axes.iter().map(|&axis| dims[axis].as_const()).product();
    let mut b = g.builder();
    match (choices.below(4), count) {
        (0, Some(count)) => {
            let sum = b.reduce(ReduceKind::Sum, x, axes)?;
            with_scalar(g, ScalarOp::Div, sum, count as f64)
        }
        (1, Some(count)) if b.dtype(x).is_float() => {
            let sum = b.reduce(ReduceKind::Sum, x, axes)?;
            with_scalar(g, ScalarOp::Mul, sum, 1.0 / count as f64)
        }
        (_, _) => b.reduce(ReduceKind::Mean, x, axes),
    }
}

fn average_or_sum(g: &mut Grower<'_>, x: ValueId, axes: &[usize], choices: &mut Choices<'_>) -> Built {
    if choices.once_in(4) { average(g, x, axes, choices) } else { g.builder().reduce(ReduceKind::Sum, x, axes) }
}

/// `x / sqrt(y)` in one of its spellings.
fn over_root(g: &mut Grower<'_>, x: ValueId, y: ValueId, choices: &mut Choices<'_>) -> Built {
    let inverse = match choices.below(5) {
        0 => {
            let root = g.builder().unary(ScalarOp::Sqrt, y)?;
            return g.builder().binary(ScalarOp::Div, x, root);
        }
        1 => g.builder().unary(ScalarOp::Rsqrt, y)?,
        2 => with_scalar(g, ScalarOp::Pow, y, -0.5)?,
        3 => {
            let root = g.builder().unary(ScalarOp::Sqrt, y)?;
            g.builder().unary(ScalarOp::Reciprocal, root)?
        }
        _ => {
            let root = with_scalar(g, ScalarOp::Pow, y, 0.5)?;
            let one = g.builder().float_like(root, 1.0);
            g.builder().binary(ScalarOp::Div, one, root)?
        }
    };
    either_order(g, ScalarOp::Mul, x, inverse, choices)
}

fn either_order(g: &mut Grower<'_>, op: ScalarOp, a: ValueId, b: ValueId, choices: &mut Choices<'_>) -> Built {
    if choices.below(2) == 0 { g.builder().binary(op, a, b) } else { g.builder().binary(op, b, a) }
}

/// `x op c` with the constant as a tensor, as models have it.
fn with_scalar(g: &mut Grower<'_>, op: ScalarOp, x: ValueId, c: f64) -> Built {
    let mut b: Builder<'_> = g.builder();
    let c = b.float_like(x, c);
    b.binary(op, x, c)
}

fn filled(g: &mut Grower<'_>, dtype: DType, count: i64, number: f64) -> ValueId {
    let element = scalar_bytes(round_scalar(dtype, number));
    let ty = Type { dtype, dims: vec![Expr::constant(count)] };
    g.builder().constant(ty, element.repeat(count as usize))
}
