//! Linear attention (ONNX LinearAttention): a matrix of state for each head, updated and read once for each position.
//!
//! The positions are unrolled, so their number must be a small constant; decoding has one. Computed in `f32` at least.

use lapidary_runtime::DType;
use lapidary_runtime::op::{Arg, ScalarOp};

use super::attention::{merged, split};
use super::entry::op;
use super::unroll::MAX_ROUNDS;
use super::{Cx, Fault, Imported, OpDef};
use crate::ir::builder::{Built, round_scalar};
use crate::ir::{Builder, Expr, ValueId};

pub const DEFS: &[OpDef] = &[OpDef { outputs: (1, 2), ..op("LinearAttention", 27, (3, 6), linear_attention) }];

/// How a position changes the state S, with key k, value v, decay g and rate beta.
#[derive(Clone, Copy)]
struct Rule {
    decays: Decay,
    writes: Write,
}

#[derive(Clone, Copy, PartialEq)]
enum Decay {
    /// S stays.
    None,
    /// S is multiplied by exp(g) first.
    Exp,
}

#[derive(Clone, Copy, PartialEq)]
enum Write {
    /// S + k v^T
    Sum,
    /// S + beta k (v - S^T k)^T
    Delta,
}

fn rule(cx: &Cx<'_, '_>) -> Result<Rule, Fault> {
    let gated_delta = Rule { decays: Decay::Exp, writes: Write::Delta };
    let rules = [
        ("linear", Rule { decays: Decay::None, writes: Write::Sum }),
        ("gated", Rule { decays: Decay::Exp, writes: Write::Sum }),
        ("delta", Rule { decays: Decay::None, writes: Write::Delta }),
        ("gated_delta", gated_delta),
    ];
    let rule = cx.attrs.choice_or("update_rule", gated_delta, &rules)?;
    if cx.optional(4).is_some() != (rule.decays == Decay::Exp) {
        return Err("the decay is needed by the rules gated and gated_delta, and by no other".into());
    }
    if cx.optional(5).is_some() != (rule.writes == Write::Delta) {
        return Err("beta is needed by the rules delta and gated_delta, and by no other".into());
    }
    Ok(rule)
}

fn linear_attention(cx: &mut Cx<'_, '_>) -> Imported {
    // How many positions a kernel takes at once changes nothing in the result.
    cx.attrs.ignore(&["chunk_size"]);
    let rule = rule(cx)?;
    let (q_heads, kv_heads) = (cx.attrs.int("q_num_heads")?, cx.attrs.int("kv_num_heads")?);
    if kv_heads < 1 || q_heads < 1 || q_heads % kv_heads != 0 {
        return Err(format!("{q_heads} heads of queries are no positive multiple of {kv_heads}").into());
    }
    let query = cx.input(0)?;
    let dtype = cx.b.dtype(query);
    let wide = if dtype == DType::F64 { DType::F64 } else { DType::F32 };
    let heads = |cx: &mut Cx<'_, '_>, k: usize, count: i64| -> Result<ValueId, Fault> {
        let x = cx.input(k)?;
        if cx.b.rank(x) != 3 {
            return Err(format!("operand {k} has rank {}, and 3 is needed", cx.b.rank(x)).into());
        }
        let x = cx.b.cast(x, wide)?;
        Ok(split(&mut cx.b, x, count)?)
    };
    let (q, k, v) = (heads(cx, 0, q_heads)?, heads(cx, 1, kv_heads)?, heads(cx, 2, kv_heads)?);
    let decay = match rule.decays {
        Decay::Exp => Some(heads(cx, 4, kv_heads)?),
        Decay::None => None,
    };
    let beta = match rule.writes {
        Write::Sum => None,
        Write::Delta => {
            let beta = cx.input(5)?;
            let shared = cx.b.dims(beta).get(2).is_some_and(|dim| dim.is(1));
            Some(heads(cx, 5, if shared { 1 } else { kv_heads })?)
        }
    };
    let (q_dims, v_dims) = (cx.b.dims(q), cx.b.dims(v));
    let scale = scale(cx, &q_dims[3])?;
    let Some(steps) = q_dims[2].as_const().filter(|&steps| (1..=MAX_ROUNDS).contains(&steps)) else {
        return Err(Fault::unsupported(
            format!("LinearAttention over {} positions is not supported", q_dims[2]),
            format!("pin the number of positions to at most {MAX_ROUNDS}, as when decoding one by one"),
        ));
    };
    let state_dims = vec![q_dims[0].clone(), Expr::constant(kv_heads), q_dims[3].clone(), v_dims[3].clone()];
    let (mut state, state_type) = match cx.optional(3) {
        Some(state) => (cx.b.cast(state, wide)?, cx.b.dtype(state)),
        None => {
            let zero = cx.b.scalar(round_scalar(wide, 0.0));
            (cx.b.expand(zero, state_dims)?, dtype)
        }
    };
    let mut rows = Vec::new();
    for step in 0..steps {
        let at = |b: &mut Builder<'_>, x: ValueId| b.slice_axis(x, 2, Expr::constant(step), Expr::constant(1));
        let (key, mut value) = (at(&mut cx.b, k)?, at(&mut cx.b, v)?);
        let column = swapped(&mut cx.b, key)?;
        if let Some(decay) = decay {
            let decay = at(&mut cx.b, decay)?;
            let decay = swapped(&mut cx.b, decay)?;
            state = cx.b.program(&[state, decay], |p| {
                let factor = p.push(ScalarOp::Exp, &[Arg::Input(1)]);
                p.push(ScalarOp::Mul, &[Arg::Input(0), factor])
            })?;
        }
        if let Some(beta) = beta {
            let beta = at(&mut cx.b, beta)?;
            let known = cx.b.matmul(key, state)?;
            value = cx.b.program(&[value, known, beta], |p| {
                let new = p.push(ScalarOp::Sub, &[Arg::Input(0), Arg::Input(1)]);
                p.push(ScalarOp::Mul, &[Arg::Input(2), new])
            })?;
        }
        state = cx.b.program(&[state, column, value], |p| {
            let written = p.push(ScalarOp::Mul, &[Arg::Input(1), Arg::Input(2)]);
            p.push(ScalarOp::Add, &[Arg::Input(0), written])
        })?;
        // The heads of queries that share a state are the rows of one product.
        let query = at(&mut cx.b, q)?;
        let group = Expr::constant(q_heads / kv_heads);
        let query = cx.b.reshape(query, vec![q_dims[0].clone(), Expr::constant(kv_heads), group, q_dims[3].clone()])?;
        let read = cx.b.matmul(query, state)?;
        rows.push(
            cx.b.reshape(read, vec![q_dims[0].clone(), Expr::constant(q_heads), Expr::constant(1), v_dims[3].clone()])?,
        );
    }
    let y = cx.b.concat(&rows, 2)?;
    let y = cx.b.program(&[y], |p| {
        let scaled = p.push(ScalarOp::Mul, &[Arg::Input(0), p.imm(Arg::Input(0), scale)]);
        p.cast(scaled, dtype)
    })?;
    Ok(vec![Some(merged(&mut cx.b, y)?), Some(cx.b.cast(state, state_type)?)])
}

/// The last two axes swapped, one of which has extent 1.
fn swapped(b: &mut Builder<'_>, x: ValueId) -> Built {
    let mut dims = b.dims(x);
    dims.swap(2, 3);
    b.reshape(x, dims)
}

/// 1 / sqrt(size of a key), unless the node says otherwise.
fn scale(cx: &Cx<'_, '_>, size: &Expr) -> Result<f64, Fault> {
    match (cx.attrs.float_or("scale", 0.0)?, size.as_const()) {
        (scale, _) if scale != 0.0 => Ok(f64::from(scale)),
        (_, Some(size)) => Ok(1.0 / (size as f64).sqrt()),
        (_, None) => Err(Fault::unsupported(
            "the size of a key is not known while compiling, and scale follows from it",
            "give the attribute scale, or pin the dimension with a profile",
        )),
    }
}
