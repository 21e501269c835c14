//! Reshapes between a product and what is applied to it.
//!
//! Does: `g(reshape(p), y) -> reshape(g(p, reshape(y)))` behind a matrix product or convolution `p`, so that `g` can become
//! its epilogue. Needs: pointwise regions. Keeps: types. Not here: operands that broadcast, but for numbers and for one
//! element a column of a matrix product.

use super::only_user;
use super::pointwise::pointwise;
use crate::ir::{Expr, Graph, NodeId, Op, Patch, Ref, Type, ValueId};
use crate::passes::why::{self, Why};

/// `g(reshape(p), y) -> reshape(g(p, reshape(y)))`, where `g` is at `id` and is the only user of the reshape.
pub fn rewrite(graph: &Graph, id: NodeId) -> Option<Patch> {
    let (_, inputs, _) = pointwise(graph, id)?;
    (0..inputs.len()).find_map(|at| move_behind(graph, id, at)?.ok())
}

/// Why operand `at` of the node at `id`, the reshape of a product, stays in front of it; `None` where it is none.
pub fn why_not(graph: &Graph, id: NodeId, at: usize) -> Option<Why> {
    move_behind(graph, id, at).map(|found| why::why_not("reshape-behind", found))
}

/// The rule on operand `at` of the pointwise node at `id`; `None` where the operand is no product's reshape.
fn move_behind(graph: &Graph, id: NodeId, at: usize) -> Option<Result<Patch, Why>> {
    let (program, inputs, result) = pointwise(graph, id)?;
    let reshaped = *inputs.get(at)?;
    let (reshape, product, last_axis) = product_behind(graph, reshaped)?;
    let (from, to) = (graph.ty(product), graph.ty(result));
    if only_user(graph, reshaped) != Some(id) {
        return Some(Err(Why::Readers(reshaped)));
    }
    if only_user(graph, product) != Some(reshape) {
        return Some(Err(Why::Readers(product)));
    }
    if inputs.iter().filter(|other| **other == reshaped).count() > 1 {
        return Some(Err(Why::ReadTwice(reshaped)));
    }
    if graph.ty(reshaped).dims != to.dims {
        return Some(Err(Why::Broadcast(reshaped, result)));
    }
    let mut patch = Patch::new(&[id]);
    let mut operands: Vec<Ref> = Vec::new();
    for (k, &input) in inputs.iter().enumerate() {
        if k == at {
            operands.push(product.into());
            continue;
        }
        operands.push(match shape_in_front(graph.ty(input), to, from, last_axis) {
            None => return Some(Err(Why::NoShapeInFront(input))),
            Some(dims) if dims == graph.ty(input).dims => input.into(),
            Some(dims) => patch.node(Op::Reshape(dims), [input.into()]),
        });
    }
    let applied = patch.node(Op::Pointwise(program.clone()), operands);
    let shaped = patch.node(Op::Reshape(to.dims.clone()), [applied]);
    Some(Ok(patch.replace(result, shaped)))
}

/// The reshape and the product in front of it that `value` is, and whether the product is one of matrices.
fn product_behind(graph: &Graph, value: ValueId) -> Option<(NodeId, ValueId, bool)> {
    let reshape = graph.producer(value)?;
    let (Op::Reshape(_), &[Some(product)]) = (&graph.node(reshape).op, &graph.node(reshape).inputs[..]) else {
        return None;
    };
    match graph.node(graph.producer(product)?).op {
        Op::MatMul(..) => Some((reshape, product, true)),
        Op::Conv(..) => Some((reshape, product, false)),
        _ => None,
    }
}

/// The shape in which an operand of type `ty`, read along `to`, is read along `from` instead.
fn shape_in_front(ty: &Type, to: &Type, from: &Type, last_axis: bool) -> Option<Vec<Expr>> {
    if ty.dims == to.dims {
        return Some(from.dims.clone());
    }
    if ty.count().is(1) {
        return Some(Vec::new());
    }
    let (last, outer) = ty.dims.split_last()?;
    let is_row = outer.iter().all(|dim| dim.is(1)) && Some(last) == to.dims.last() && Some(last) == from.dims.last();
    (last_axis && is_row).then(|| vec![last.clone()])
}
