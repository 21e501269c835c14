//! Attention written out in steps, as exporters write it, and chains that miss it by a little.

use lapidary::ir::builder::Built;
use lapidary::ir::{Expr, Op, ValueId};
use lapidary_runtime::op::{ScalarOp, Softmax};

use super::super::recipe::Choices;
use super::{Grower, Grown};

/// `softmax(q k^T / c + mask) v` of heads that are views of one value or of projections of it.
pub fn attention(g: &mut Grower<'_>, choices: &mut Choices<'_>) -> Grown {
    let x = g.floats(choices, 2)?;
    // Scores of any size overflow one way in steps and another way in one.
    let x = bounded(g, x)?;
    let mut dims = g.ty(x).dims;
    let (width, length) = (dims.pop().ok_or("no width")?, dims.pop().ok_or("no length")?);
    let width = width.as_const().filter(|width| *width > 0).ok_or("the width is not constant")?;
    let batch = dims.iter().fold(Expr::constant(1), |count, dim| count * dim.clone());
    let x = g.builder().reshape(x, vec![batch.clone(), length.clone(), Expr::constant(width)])?;
    let divisors: Vec<i64> = (1..=width).filter(|d| width % d == 0).collect();
    let heads = choices.pick(&divisors);
    let projected = choices.below(2) == 0;
    let split = vec![batch.clone(), length.clone(), Expr::constant(heads), Expr::constant(width / heads)];
    let mut parts = Vec::new();
    for _ in 0..3 {
        let part = if projected { projection(g, x, width, choices)? } else { x };
        let view = g.builder().reshape(part, split.clone())?;
        parts.push(g.builder().transpose(view, &[0, 2, 1, 3])?);
    }
    let [mut q, mut k, v] = parts[..] else { return Err("not three parts".to_owned()) };
    let scale = 1.0 / ((width / heads) as f64).sqrt();
    let place = choices.below(4);
    if place == 0 {
        q = scaled(g, q, ScalarOp::Mul, scale.sqrt())?;
        k = scaled(g, k, ScalarOp::Mul, scale.sqrt())?;
    }
    k = g.builder().transpose(k, &[0, 1, 3, 2])?;
    let mut scores = g.builder().matmul(q, k)?;
    // Of two near misses one scales behind the mask, the other gives the weights away.
    let miss = choices.below(12);
    let masked = choices.below(2) == 0;
    if miss == 1 && masked {
        let mask = mask(g, scores, choices)?;
        scores = g.builder().binary(ScalarOp::Add, scores, mask)?;
    }
    scores = match place {
        1 => scaled(g, scores, ScalarOp::Mul, scale)?,
        2 => scaled(g, scores, ScalarOp::Div, 1.0 / scale)?,
        _ => scores,
    };
    if miss != 1 && masked {
        let mask = mask(g, scores, choices)?;
        scores = g.builder().binary(ScalarOp::Add, scores, mask)?;
    }
    let mut weights = g.builder().node(Op::Softmax(Softmax { axis: 3, log: false }), &[scores])?;
    if choices.below(2) == 0 {
        let test = g.builder().unary(ScalarOp::IsNan, weights)?;
        let zero = g.builder().float_like(weights, 0.0);
        weights = g.builder().select(test, zero, weights)?;
    }
    let heads_apart = g.builder().matmul(weights, v)?;
    let together = g.builder().transpose(heads_apart, &[0, 2, 1, 3])?;
    let y = g.builder().reshape(together, vec![batch, length, Expr::constant(width)])?;
    Ok(if miss == 2 { vec![weights, y] } else { vec![y] })
}

/// `x W + b`, where the bias is there or not.
fn projection(g: &mut Grower<'_>, x: ValueId, width: i64, choices: &mut Choices<'_>) -> Built {
    let dtype = g.dtype(x);
    let weight = g.constant(dtype, &[width, width], choices);
    let product = g.builder().matmul(x, weight)?;
    if choices.once_in(3) {
        return Ok(product);
    }
    let bias = g.constant(dtype, &[width], choices);
    g.builder().binary(ScalarOp::Add, product, bias)
}

/// A bounded number for each score, or for some of them; or what hides the keys behind each query's own.
fn mask(g: &mut Grower<'_>, scores: ValueId, choices: &mut Choices<'_>) -> Built {
    if let [.., queries, keys] = &g.ty(scores).dims[..]
        && let (Some(queries), Some(keys)) = (queries.as_const(), keys.as_const())
        && choices.below(3) > 0
    {
        return causal(g, scores, (queries, keys), choices);
    }
    let mask = g.partner(scores, choices)?;
    bounded(g, mask)
}

/// 0 up to a key, and -inf or a very low number behind it. Seldom a key too early.
fn causal(g: &mut Grower<'_>, scores: ValueId, (queries, keys): (i64, i64), choices: &mut Choices<'_>) -> Built {
    let early = i64::from(choices.once_in(6));
    let hidden = choices.pick(&[f64::NEG_INFINITY, -65504.0]);
    let b = &mut g.builder();
    let rows = b.i64s(&(0..queries).collect::<Vec<_>>());
    let rows = b.reshape(rows, vec![Expr::constant(queries), Expr::constant(1)])?;
    let columns = b.i64s(&(early..keys + early).collect::<Vec<_>>());
    let seen = b.binary(ScalarOp::LessEqual, columns, rows)?;
    let (zero, hidden) = (b.float_like(scores, 0.0), b.float_like(scores, hidden));
    b.select(seen, zero, hidden)
}

/// `x` between -1 and 1, and 0 where it is NaN: the guard behind the softmax hides where NaN came from.
fn bounded(g: &mut Grower<'_>, x: ValueId) -> Built {
    let x = g.builder().unary(ScalarOp::Tanh, x)?;
    let test = g.builder().unary(ScalarOp::IsNan, x)?;
    let zero = g.builder().float_like(x, 0.0);
    g.builder().select(test, zero, x)
}

fn scaled(g: &mut Grower<'_>, x: ValueId, op: ScalarOp, by: f64) -> Built {
    let by = g.builder().float_like(x, by);
    g.builder().binary(op, x, by)
}
