//! Views between a product and the steps behind it.
//!
//! Does: `f(view(p), y) -> view(f(p, view(y)))`, so that `epilogue` finds the steps right behind the product: exporters
//! flatten the batch for a linear layer and add bias and residual in the shape from before. Needs: nothing.
//! Keeps: types. Not here: operands that broadcast along axes which the view merges or splits; a second product, in
//! the shape of the result.

use crate::ir::{Expr, Graph, NodeId, Op, Patch, Ref, ValueId};
use crate::passes::fuse::pointwise::pointwise;
use crate::passes::why::{self, Why};

/// `f(view(p), y) -> view(f(p, view(y)))`, where `p` is a product, or steps of one shape behind it
pub fn rewrite(graph: &Graph, id: NodeId) -> Option<Patch> {
    let (_, inputs, _) = pointwise(graph, id)?;
    (0..inputs.len()).find_map(|at| move_in_front(graph, id, at)?.ok())
}

/// Why the node at `id` stays behind the view that its operand `at` is; `None` where it is none of a product.
pub fn why_not(graph: &Graph, id: NodeId, at: usize) -> Option<Why> {
    move_in_front(graph, id, at).map(|found| why::why_not("product-view", found))
}

/// The rule on operand `at` of the pointwise node at `id`; `None` where the operand is no product's view.
fn move_in_front(graph: &Graph, id: NodeId, at: usize) -> Option<Result<Patch, Why>> {
    let (program, inputs, result) = pointwise(graph, id)?;
    let viewed = *inputs.get(at)?;
    let view = graph.producer(viewed)?;
    let (Op::Reshape(_), &[Some(product)]) = (&graph.node(view).op, &graph.node(view).inputs[..]) else {
        return None;
    };
    if !is_behind_product(graph, product) {
        return None;
    }
    let (from, to) = (&graph.ty(result).dims, &graph.ty(product).dims);
    if super::only_user(graph, viewed) != Some(id) {
        return Some(Err(Why::Readers(viewed)));
    }
    if super::only_user(graph, product) != Some(view) {
        return Some(Err(Why::Readers(product)));
    }
    if graph.ty(viewed).dims != *from {
        return Some(Err(Why::Broadcast(viewed, result)));
    }
    // Of two products in two shapes each would have the steps in its own, in turn.
    let takes = |input: ValueId| {
        graph.ty(input).dims == *from && super::only_user(graph, input) == Some(id) && is_behind_product(graph, input)
    };
    if let Some(&other) = inputs.iter().find(|input| takes(**input)) {
        return Some(Err(Why::OtherProduct(other)));
    }
    let mut patch = Patch::new(&[view, id]);
    let mut operands: Vec<Ref> = Vec::new();
    for (k, &input) in inputs.iter().enumerate() {
        let Some(dims) = in_front(&graph.ty(input).dims, from, to) else {
            return Some(Err(Why::NoShapeInFront(input)));
        };
        operands.push(if k == at {
            product.into()
        } else if graph.ty(input).dims == dims {
            input.into()
        } else {
            patch.node(Op::Reshape(dims), [input.into()])
        });
    }
    let steps = patch.node(Op::Pointwise(program.clone()), operands);
    let view = patch.node(Op::Reshape(from.clone()), [steps]);
    Some(Ok(patch.replace(result, view)))
}

/// Whether a value is a product's, or that of single-use steps on one.
fn is_behind_product(graph: &Graph, value: ValueId) -> bool {
    let Some(id) = graph.producer(value) else { return false };
    if let Op::MatMul(..) | Op::Conv(..) = graph.node(id).op {
        return !super::is_derived(graph, value);
    }
    let Some((_, inputs, _)) = pointwise(graph, id) else { return false };
    inputs.iter().any(|&input| {
        graph.ty(input).dims == graph.ty(value).dims
            && super::only_user(graph, input) == Some(id)
            && is_behind_product(graph, input)
    })
}

/// The shape in which an operand of `dims`, which broadcasts to `from`, broadcasts to `to`, the same elements in the
/// same order: `to` for a whole operand, else its last axes where both shapes agree and it has one element otherwise.
fn in_front(dims: &[Expr], from: &[Expr], to: &[Expr]) -> Option<Vec<Expr>> {
    if dims == from {
        return Some(to.to_vec());
    }
    let shared = from.iter().rev().zip(to.iter().rev()).take_while(|(a, b)| a == b).count();
    let lead = dims.len().saturating_sub(shared);
    dims[..lead].iter().all(|dim| dim.is(1)).then(|| dims[lead..].to_vec())
}
