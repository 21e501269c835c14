//! Attention with graphs of the model between its steps (ONNX FlexAttention): `prob_mod(softmax(score_mod(Q K^T *
//! scale))) V`. The two graphs are imported in place; without them this is [`super::attention`] without a mask.
//!
//! A row whose scores are all -inf is NaN, as softmax defines it: a mask that a model writes into the scores is the
//! model's own.

use lapidary_runtime::DType;

use super::attention::{self, Heads, check_groups, scores, weighted};
use super::softmax::softmax;
use super::{Fault, Import, Items, OpDef, one_tensor};
use crate::ir::ValueId;
use crate::onnx::dtype_of;
use crate::onnx::import::ItemCx;

pub const DEFS: &[OpDef] = &[OpDef {
    domain: "ai.onnx.preview",
    name: "FlexAttention",
    since: 1,
    inputs: (3, 3),
    outputs: (1, 1),
    import: Import::Items(attention),
}];

fn attention(r: &mut ItemCx<'_, '_>) -> Items {
    let (q, k, v) = (r.input(0)?, r.input(1)?, r.input(2)?);
    let scale = r.attrs.float_opt("scale")?.map(f64::from);
    let precision = r.attrs.int_opt("softmax_precision")?;
    let mut b = r.builder();
    let ranks = [q, k, v].map(|value| b.rank(value));
    if ranks != [4; 3] {
        return Err(format!("Q, K and V have the ranks {ranks:?}, and must have rank 4").into());
    }
    check_groups(&b, q, k)?;
    let (of_k, of_v) = (b.dims(k), b.dims(v));
    for axis in [1, 2] {
        b.require_equal(&of_k[axis], &of_v[axis])?;
    }
    let dtype = b.dtype(q);
    let heads = Heads { q, k, v, past: None };
    let scale = attention::scale(&b, &heads, scale)?;
    let products = scores(&mut b, &heads, scale)?;
    let precision = match precision {
        None if dtype == DType::F64 => DType::F64,
        None => DType::F32,
        Some(number) => dtype_of(i32::try_from(number).unwrap_or(i32::MAX), r.attrs.at())?,
    };
    if !matches!(precision, DType::F64 | DType::F32 | DType::F16 | DType::BF16) {
        let why = "it must be that of a float type: 1, 10, 11 or 16";
        return Err(r.attrs.bad_value("softmax_precision", format!("is the number of {precision}"), why).into());
    }
    let wide = r.builder().cast(products, precision)?;
    let scores = modified(r, "score_mod", wide)?;
    let mut b = r.builder();
    let shares = softmax(&mut b, scores, 3)?;
    let shares = modified(r, "prob_mod", shares)?;
    let mut b = r.builder();
    let y = weighted(&mut b, shares, &heads)?;
    one_tensor(b.cast(y, dtype)?)
}

/// What the graph in the attribute `name` makes of `x`, which has its type and shape; `x` where there is none.
fn modified(r: &mut ItemCx<'_, '_>, name: &str, x: ValueId) -> Result<ValueId, Fault> {
    let Some(graph) = r.attrs.graph_opt(name)? else { return Ok(x) };
    let ([operand], [_]) = (graph.input.as_slice(), graph.output.as_slice()) else {
        let (inputs, outputs) = (graph.input.len(), graph.output.len());
        return Err(format!("{name} has {inputs} inputs and {outputs} outputs, and must have one of each").into());
    };
    let results = r.inline_tensors(graph, &[(operand.name(), x)])?;
    let &[y] = results.as_slice() else { crate::bug!("a graph of one output has {} results", results.len()) };
    let mut b = r.builder();
    let (before, after) = (b.ty(x).clone(), b.ty(y).clone());
    if before.dtype != after.dtype || before.dims.len() != after.dims.len() {
        return Err(format!(
            "{name} gives {}{:?}, and must give the type and shape of its operand, {}{:?}",
            after.dtype, after.dims, before.dtype, before.dims
        )
        .into());
    }
    for (left, right) in before.dims.iter().zip(&after.dims) {
        b.require_equal(left, right)?;
    }
    Ok(y)
}
