//! Reshapes between a product and what is applied to it.
//!
//! Does: `g(reshape(p), y) -> reshape(g(p, reshape(y)))` behind a matrix product or convolution `p`, so that `g` can become
//! its epilogue. Needs: pointwise regions. Keeps: types. Not here: operands that broadcast, but for numbers and for one
//! element a column of a matrix product.

use super::only_user;
use super::pointwise::pointwise;
use crate::ir::{Expr, Graph, NodeId, Op, Patch, Ref, Type, ValueId};

/// `g(reshape(p), y) -> reshape(g(p, reshape(y)))`, where `g` is at `id` and is the only user of the reshape.
pub fn rewrite(graph: &Graph, id: NodeId) -> Option<Patch> {
    let (program, inputs, result) = pointwise(graph, id)?;
    let to = graph.ty(result);
    inputs.iter().enumerate().find_map(|(at, &reshaped)| {
        let product = product_behind(graph, reshaped, id)?;
        let from = graph.ty(product);
        let sole = inputs.iter().filter(|other| **other == reshaped).count() == 1;
        if !sole || graph.ty(reshaped).dims != to.dims {
            return None;
        }
        let last_axis = matches!(graph.node(graph.producer(product)?).op, Op::MatMul(..));
        let shapes: Vec<Option<Vec<Expr>>> = inputs
            .iter()
            .enumerate()
            .map(|(k, &input)| match k == at {
                true => Some(None),
                false => shape_in_front(graph.ty(input), to, from, last_axis).map(Some),
            })
            .collect::<Option<_>>()?;
        let mut patch = Patch::new(&[id]);
        let operands: Vec<Ref> = inputs
            .iter()
            .zip(shapes)
            .map(|(&input, shape)| match shape {
                None => product.into(),
                Some(dims) if dims == graph.ty(input).dims => input.into(),
                Some(dims) => patch.node(Op::Reshape(dims), [input.into()]),
            })
            .collect();
        let applied = patch.node(Op::Pointwise(program.clone()), operands);
        let shaped = patch.node(Op::Reshape(to.dims.clone()), [applied]);
        Some(patch.replace(result, shaped))
    })
}

/// The product whose reshape `value` is, where nothing but the reshape and `user` stand behind it.
fn product_behind(graph: &Graph, value: ValueId, user: NodeId) -> Option<ValueId> {
    let reshape = graph.producer(value).filter(|_| only_user(graph, value) == Some(user))?;
    let (Op::Reshape(_), &[Some(product)]) = (&graph.node(reshape).op, &graph.node(reshape).inputs[..]) else {
        return None;
    };
    let producer = graph.producer(product).filter(|_| only_user(graph, product) == Some(reshape))?;
    matches!(graph.node(producer).op, Op::MatMul(..) | Op::Conv(..)).then_some(product)
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
