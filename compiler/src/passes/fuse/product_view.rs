//! Views between a product and the steps behind it.
//!
//! Does: `f(view(p), y) -> view(f(p, view(y)))`, so that `epilogue` finds the steps right behind the product: exporters
//! flatten the batch for a linear layer and add bias and residual in the shape from before. Needs: nothing.
//! Keeps: types. Not here: operands that broadcast along axes which the view merges or splits; a second product, in
//! the shape of the result.

use crate::ir::{Expr, Graph, NodeId, Op, Patch, Ref, ValueId};
use crate::passes::fuse::pointwise::pointwise;

/// `f(view(p), y) -> view(f(p, view(y)))`, where `p` is a product, or steps of one shape behind it
pub fn rewrite(graph: &Graph, id: NodeId) -> Option<Patch> {
    let (program, inputs, result) = pointwise(graph, id)?;
    let (at, view, product) = inputs.iter().enumerate().find_map(|(at, &input)| {
        let view = graph.producer(input)?;
        let (Op::Reshape(_), &[Some(product)]) = (&graph.node(view).op, &graph.node(view).inputs[..]) else {
            return None;
        };
        let sole = super::only_user(graph, input) == Some(id) && super::only_user(graph, product) == Some(view);
        let whole = graph.ty(input).dims == graph.ty(result).dims && sole;
        (whole && is_behind_product(graph, product)).then_some((at, view, product))
    })?;
    let (from, to) = (&graph.ty(result).dims, &graph.ty(product).dims);
    // Of two products in two shapes each would have the steps in its own, in turn.
    let takes = |input: ValueId| {
        graph.ty(input).dims == *from && super::only_user(graph, input) == Some(id) && is_behind_product(graph, input)
    };
    if inputs.iter().any(|&input| takes(input)) {
        return None;
    }
    let others: Vec<Vec<Expr>> =
        inputs.iter().map(|&input| viewed(&graph.ty(input).dims, from, to)).collect::<Option<_>>()?;
    let mut patch = Patch::new(&[view, id]);
    let mut operands: Vec<Ref> = Vec::new();
    for (k, (&input, dims)) in inputs.iter().zip(others).enumerate() {
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
    Some(patch.replace(result, view))
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
fn viewed(dims: &[Expr], from: &[Expr], to: &[Expr]) -> Option<Vec<Expr>> {
    if dims == from {
        return Some(to.to_vec());
    }
    let shared = from.iter().rev().zip(to.iter().rev()).take_while(|(a, b)| a == b).count();
    let lead = dims.len().saturating_sub(shared);
    dims[..lead].iter().all(|dim| dim.is(1)).then(|| dims[lead..].to_vec())
}
