//! Scaled dot-product attention (ONNX Attention): `softmax(Q K^T * scale + bias) V`, as one operation where that has all that is
//! asked for, else as matrix products, a pointwise program for the bias, and a softmax.
//!
//! A head of keys and values that several heads of queries share (GQA) is not repeated: the queries of such a group are
//! rows of one product. What may not be attended has the bias -inf; a row in which nothing may be attended is zero.

use lapidary_runtime::DType;
use lapidary_runtime::op::{self, Arg, MatMul, Math, PadMode, ReduceKind, Scalar, ScalarOp, Unseen};

use super::entry;
use super::positions::positions;
use super::softmax::softmax;
use super::{Cx, Fault, Imported, OpDef};
use crate::ir::builder::Built;
use crate::ir::{Builder, Expr, Op, ValueId};
use crate::onnx::dtype_of;

pub const DEFS: &[OpDef] = &[OpDef { outputs: (1, 4), ..entry::op("Attention", 23, (3, 7), attention) }];

/// The operands with heads as their second axis, keys and values with what was cached in front.
pub(super) struct Heads {
    /// `[batch, heads of queries, length of queries, size]`
    pub(super) q: ValueId,
    /// `[batch, heads of keys, length in all, size]`
    pub(super) k: ValueId,
    pub(super) v: ValueId,
    /// How many keys were cached.
    pub(super) past: Option<Expr>,
}

fn attention(cx: &mut Cx<'_, '_>) -> Imported {
    let rank = cx.b.rank(cx.input(0)?);
    let heads = heads(cx, rank)?;
    let softcap = f64::from(cx.attrs.float_or("softcap", 0.0)?);
    let mode = cx.attrs.int_or("qk_matmul_output_mode", 0)?;
    if !(0..=3).contains(&mode) {
        return Err(cx.attrs.bad_value("qk_matmul_output_mode", format!("is {mode}"), "it must be from 0 to 3").into());
    }
    let dtype = cx.b.dtype(heads.q);
    let precision = match cx.attrs.int_opt("softmax_precision")? {
        None => dtype,
        Some(number) => dtype_of(i32::try_from(number).unwrap_or(i32::MAX), cx.attrs.at())?,
    };
    let scale = scale(&cx.b, &heads, cx.attrs.float_opt("scale")?.map(f64::from))?;
    let from_the_start = heads.past.is_none() && cx.optional(3).is_none() && cx.optional(6).is_none();
    let causal = from_the_start && matches!(sight(cx)?, Sight { left: None, right: Some(0) });
    let bias = if causal { None } else { bias(cx, &heads)? };
    if softcap <= 0.0 && !cx.wants(3) && is_one_operation(&cx.b, &heads, bias) {
        let y = whole(&mut cx.b, &heads, bias, scale, causal)?;
        let y = if rank == 3 { merged(&mut cx.b, y)? } else { y };
        return Ok(vec![Some(y), Some(heads.k), Some(heads.v), None]);
    }
    let bias = if causal { self::bias(cx, &heads)? } else { bias };
    let product = scores(&mut cx.b, &heads, scale)?;
    let capped = if softcap > 0.0 { capped(&mut cx.b, product, softcap)? } else { product };
    let biased = match bias {
        Some(bias) => cx.b.binary(ScalarOp::Add, capped, bias)?,
        None => capped,
    };
    let wide = cx.b.cast(biased, precision)?;
    let axis = cx.b.rank(wide) - 1;
    let mut shares = softmax(&mut cx.b, wide, axis)?;
    if let Some(bias) = bias {
        let highest = cx.b.reduce(ReduceKind::Max, bias, &[cx.b.rank(bias) - 1])?;
        shares = zero_where_hidden(&mut cx.b, shares, highest)?;
    }
    let shares = cx.b.cast(shares, dtype)?;
    let y = weighted(&mut cx.b, shares, &heads)?;
    let y = if rank == 3 { merged(&mut cx.b, y)? } else { y };
    let shown = [product, capped, biased, shares][mode as usize];
    Ok(vec![Some(y), Some(heads.k), Some(heads.v), Some(shown)])
}

fn heads(cx: &mut Cx<'_, '_>, rank: usize) -> Result<Heads, Fault> {
    let [q, k, v] = [0, 1, 2].map(|operand| cx.input(operand));
    let (q, k, v) = (q?, k?, v?);
    if [k, v].iter().any(|&value| cx.b.rank(value) != rank) || !(3..=4).contains(&rank) {
        return Err("Q, K and V must all have rank 3, or all have rank 4".into());
    }
    let (q_heads, kv_heads) = (cx.attrs.int_opt("q_num_heads")?, cx.attrs.int_opt("kv_num_heads")?);
    let (q, mut k, mut v) = if rank == 4 {
        (q, k, v)
    } else {
        let missing = "q_num_heads and kv_num_heads are needed where Q, K and V have rank 3";
        let (of_q, of_kv) = (q_heads.ok_or(missing)?, kv_heads.ok_or(missing)?);
        (split(&mut cx.b, q, of_q)?, split(&mut cx.b, k, of_kv)?, split(&mut cx.b, v, of_kv)?)
    };
    let past = match (cx.optional(4), cx.optional(5)) {
        (None, None) => None,
        (Some(past_k), Some(past_v)) => {
            let length = cx.b.dims(past_k).get(2).cloned().ok_or("past_key must have rank 4")?;
            k = cx.b.concat(&[past_k, k], 2)?;
            v = cx.b.concat(&[past_v, v], 2)?;
            Some(length)
        }
        (Some(_), None) | (None, Some(_)) => {
            return Err("past_key and past_value are given together or not at all".into());
        }
    };
    check_groups(&cx.b, q, k)?;
    Ok(Heads { q, k, v, past })
}

/// Each head of keys serves a whole number of heads of queries.
pub(super) fn check_groups(b: &Builder<'_>, q: ValueId, k: ValueId) -> Result<(), Fault> {
    let (of_q, of_k) = (b.dims(q)[1].clone(), b.dims(k)[1].clone());
    if of_q != of_k && of_q.exact_div(&of_k).is_none() {
        return Err(format!("{of_q} heads of queries are no multiple of {of_k} heads of keys").into());
    }
    Ok(())
}

/// `[batch, length, heads * size]` as `[batch, heads, length, size]`.
pub(super) fn split(b: &mut Builder<'_>, x: ValueId, heads: i64) -> Built {
    let dims = b.dims(x);
    let heads = Expr::constant(heads);
    let size = match dims[2].exact_div(&heads) {
        Some(size) if b.range(&heads).0 > 0 => size,
        Some(_) | None => return Err(format!("{} features are not {heads} heads of one size", dims[2])),
    };
    let apart = b.reshape(x, vec![dims[0].clone(), dims[1].clone(), heads, size])?;
    b.transpose(apart, &[0, 2, 1, 3])
}

/// `[batch, heads, length, size]` as `[batch, length, heads * size]`.
pub(super) fn merged(b: &mut Builder<'_>, x: ValueId) -> Built {
    let moved = b.transpose(x, &[0, 2, 1, 3])?;
    let dims = b.dims(moved);
    b.reshape(moved, vec![dims[0].clone(), dims[1].clone(), dims[2].clone() * dims[3].clone()])
}

/// The heads of a group behind one another: `[batch, heads / group, group * length, size]`.
fn grouped(b: &mut Builder<'_>, x: ValueId, groups: &Expr) -> Built {
    let dims = b.dims(x);
    let rows = dims[1].floor_div(groups) * dims[2].clone();
    b.reshape(x, vec![dims[0].clone(), groups.clone(), rows, dims[3].clone()])
}

/// Whether one operation takes operands and bias: they have one type, and how the bias broadcasts is known.
fn is_one_operation(b: &Builder<'_>, heads: &Heads, bias: Option<ValueId>) -> bool {
    let (q, k) = (b.dims(heads.q), b.dims(heads.k));
    let scores = [&q[..3], &k[2..3]].concat();
    let one_type = [heads.k, heads.v].iter().all(|&value| b.dtype(value) == b.dtype(heads.q));
    let spreads = bias.is_none_or(|bias| {
        let dims = b.dims(bias);
        let fits = |(own, all): (&Expr, &Expr)| own.is(1) || own == all;
        dims.len() <= 4 && dims.iter().rev().zip(scores.iter().rev()).all(fits)
    });
    one_type && spreads
}

/// All of it as one operation. A row in which nothing may be attended is zero, whatever its keys are.
fn whole(b: &mut Builder<'_>, heads: &Heads, bias: Option<ValueId>, scale: f64, causal: bool) -> Built {
    let scale = Scalar::float(DType::F32, scale);
    let spec = op::Attention { scale, causal, unseen: Unseen::Nan, math: Math::Exact };
    let operands: Vec<ValueId> = [heads.q, heads.k, heads.v].into_iter().chain(bias).collect();
    let y = b.node(Op::Attention(spec), &operands)?;
    let Some(bias) = bias else { return Ok(y) };
    let highest = b.reduce(ReduceKind::Max, bias, &[b.rank(bias) - 1])?;
    zero_where_hidden(b, y, highest)
}

/// The value, and 0 where the highest bias is -inf.
fn zero_where_hidden(b: &mut Builder<'_>, x: ValueId, highest: ValueId) -> Built {
    b.program(&[x, highest], |p| {
        let nothing = p.push(ScalarOp::IsNegInf, &[Arg::Input(1)]);
        p.push(ScalarOp::Select, &[nothing, p.imm(Arg::Input(0), 0.0), Arg::Input(0)])
    })
}

/// What the scores are multiplied by: 1 / sqrt(size) where it is not given.
pub(super) fn scale(b: &Builder<'_>, heads: &Heads, given: Option<f64>) -> Result<f64, Fault> {
    match (given, b.dims(heads.q)[3].as_const()) {
        (Some(scale), _) => Ok(scale),
        (None, Some(size)) => Ok(1.0 / (size as f64).sqrt()),
        (None, None) => Err(Fault::unsupported(
            "the size of a head is not known while compiling, and scale follows from it",
            "give the attribute scale, or pin the dimension with a profile",
        )),
    }
}

/// Q K^T * scale.
pub(super) fn scores(b: &mut Builder<'_>, heads: &Heads, scale: f64) -> Result<ValueId, Fault> {
    let (q_dims, k_dims) = (b.dims(heads.q), b.dims(heads.k));
    // Scaled first, so that products of halves stay in their range.
    let q = b.program(&[heads.q], |p| p.push(ScalarOp::Mul, &[Arg::Input(0), p.imm(Arg::Input(0), scale)]))?;
    let q = grouped(b, q, &k_dims[1])?;
    let spec = MatMul { transpose_a: false, transpose_b: true, math: Math::Exact };
    let product = b.node(Op::MatMul(spec, None), &[q, heads.k])?;
    Ok(b.reshape(product, vec![q_dims[0].clone(), q_dims[1].clone(), q_dims[2].clone(), k_dims[2].clone()])?)
}

/// softcap * tanh(x / softcap)
fn capped(b: &mut Builder<'_>, x: ValueId, softcap: f64) -> Built {
    b.program(&[x], |p| {
        let ratio = p.push(ScalarOp::Div, &[Arg::Input(0), p.imm(Arg::Input(0), softcap)]);
        let bounded = p.push(ScalarOp::Tanh, &[ratio]);
        p.push(ScalarOp::Mul, &[bounded, p.imm(bounded, softcap)])
    })
}

/// The rows of V, weighted.
pub(super) fn weighted(b: &mut Builder<'_>, shares: ValueId, heads: &Heads) -> Built {
    let (dims, v_dims) = (b.dims(shares), b.dims(heads.v));
    let shares = grouped(b, shares, &v_dims[1])?;
    let v = b.cast(heads.v, b.dtype(shares))?;
    let y = b.matmul(shares, v)?;
    b.reshape(y, vec![dims[0].clone(), dims[1].clone(), dims[2].clone(), v_dims[3].clone()])
}

/// Which keys a query sees, by their distance.
struct Sight {
    /// How many positions back.
    left: Option<i64>,
    /// How many positions ahead.
    right: Option<i64>,
}

fn sight(cx: &Cx<'_, '_>) -> Result<Sight, Fault> {
    let side = |name: &str| match cx.attrs.int_or(name, -1)? {
        -1 => Ok(None),
        size if size >= 0 => Ok(Some(size)),
        size => Err(Fault::from(cx.attrs.bad_value(name, format!("is {size}"), "it must be -1 or more"))),
    };
    let (left, right) = (side("left_window_size")?, side("right_window_size")?);
    Ok(if cx.attrs.flag_or("is_causal", 0)? { Sight { left, right: Some(0) } } else { Sight { left, right } })
}

/// What is added to the scores: the mask, and -inf where a key may not be attended; `None` where all may.
fn bias(cx: &mut Cx<'_, '_>, heads: &Heads) -> Result<Option<ValueId>, Fault> {
    let Sight { left, right } = sight(cx)?;
    let (rows, keys) = (cx.b.dims(heads.q)[2].clone(), cx.b.dims(heads.k)[2].clone());
    let mask = match cx.optional(3) {
        Some(mask) => Some(padded_mask(cx, mask, &keys)?),
        None => None,
    };
    let valid = match cx.optional(6) {
        Some(_) if heads.past.is_some() => return Err("nonpad_kv_seqlen and past_key are not given together".into()),
        Some(valid) => Some(cx.b.append_axes(valid, 4)?),
        None => None,
    };
    let by_distance = left.is_some() || right.is_some();
    if mask.is_none() && valid.is_none() && !by_distance {
        return Ok(None);
    }
    let dtype = cx.b.dtype(heads.q);
    let mut inputs = Vec::new();
    let mut add = |value: ValueId| {
        inputs.push(value);
        Arg::Input(inputs.len() as u16 - 1)
    };
    let column = add(positions(&mut cx.b, keys, 1, 2)?);
    let row = add(positions(&mut cx.b, rows.clone(), 0, 2)?);
    // Cached keys are in front of the first query.
    let before = add(cx.b.extents(vec![heads.past.clone().unwrap_or_else(|| Expr::constant(0))], 0)?);
    let rows = add(cx.b.extents(vec![rows], 0)?);
    let valid = valid.map(&mut add);
    let mask_type = mask.map(|mask| cx.b.dtype(mask));
    let mask = mask.map(&mut add);
    let bias = cx.b.program(&inputs, |p| {
        let number = |value: f64| p_imm(dtype, value);
        let mut allowed = None;
        let mut result = number(0.0);
        let mut demand = |p: &mut crate::ir::builder::ProgramWriter, more: Arg| {
            allowed = Some(match allowed {
                Some(before) => p.push(ScalarOp::And, &[before, more]),
                None => more,
            });
        };
        let offset = match valid {
            Some(valid) => p.push(ScalarOp::Sub, &[valid, rows]),
            None => before,
        };
        if by_distance {
            let at = p.push(ScalarOp::Add, &[row, offset]);
            let ahead = p.push(ScalarOp::Sub, &[column, at]);
            if let Some(right) = right {
                let near = p.push(ScalarOp::LessEqual, &[ahead, Arg::Imm(Scalar::int(DType::I64, right))]);
                demand(p, near);
            }
            if let Some(left) = left {
                let near = p.push(ScalarOp::GreaterEqual, &[ahead, Arg::Imm(Scalar::int(DType::I64, -left))]);
                demand(p, near);
            }
        }
        if let Some(valid) = valid {
            let inside = p.push(ScalarOp::Less, &[column, valid]);
            demand(p, inside);
        }
        match (mask, mask_type) {
            (Some(mask), Some(DType::Bool)) => demand(p, mask),
            (Some(mask), Some(_)) => result = p.cast(mask, dtype),
            (_, _) => {}
        }
        match allowed {
            Some(allowed) => p.push(ScalarOp::Select, &[allowed, result, number(f64::NEG_INFINITY)]),
            None => p.push(ScalarOp::Identity, &[result]),
        }
    })?;
    Ok(Some(bias))
}

/// A number of a type that holds it.
fn p_imm(dtype: DType, value: f64) -> Arg {
    Arg::Imm(Scalar::float(dtype, value))
}

/// The mask over all keys: those behind its end may not be attended.
fn padded_mask(cx: &mut Cx<'_, '_>, mask: ValueId, keys: &Expr) -> Result<ValueId, Fault> {
    let dims = cx.b.dims(mask);
    let Some(own) = dims.last().cloned() else { return Err("the mask has rank 0".into()) };
    if own == *keys {
        return Ok(mask);
    }
    let missing = keys.clone() - own;
    if cx.b.range(&missing).0 < 0 {
        return Err(Fault::unsupported(
            format!("whether the mask ends before the last key depends on {missing}"),
            "give the mask and the keys one length",
        ));
    }
    let zero = vec![Expr::constant(0); dims.len()];
    let mut hi = zero.clone();
    hi[dims.len() - 1] = missing;
    let dtype = cx.b.dtype(mask);
    let nothing = match dtype {
        DType::Bool => Scalar::int(dtype, 0),
        dtype if dtype.is_float() => Scalar::float(dtype, f64::NEG_INFINITY),
        dtype => return Err(format!("a mask of {dtype} is neither bool nor float").into()),
    };
    let nothing = cx.b.scalar(nothing);
    Ok(cx.b.node(Op::Pad { mode: PadMode::Constant, lo: zero, hi }, &[mask, nothing])?)
}
