//! Chains of reshapes.
//!
//! Does: `reshape(reshape(x)) -> reshape(x)`. Needs: nothing. Keeps: types.

use crate::ir::{Graph, NodeId, Op, Patch, ValueId};

/// `reshape(reshape(x, d), e) -> reshape(x, e)`
pub fn rewrite(graph: &Graph, id: NodeId) -> Option<Patch> {
    let (x, dims, result) = reshape(graph, id)?;
    let (inner, _, _) = reshape(graph, graph.producer(x)?)?;
    let mut patch = Patch::new(&[id]);
    let merged = if graph.ty(inner) == graph.ty(result) {
        inner.into()
    } else {
        patch.node(Op::Reshape(dims.to_vec()), [inner.into()])
    };
    Some(patch.replace(result, merged))
}

fn reshape(graph: &Graph, id: NodeId) -> Option<(ValueId, &[crate::ir::Expr], ValueId)> {
    let node = graph.node(id);
    match (&node.op, &node.inputs[..], &node.outputs[..]) {
        (Op::Reshape(dims), &[Some(x)], &[Some(result)]) => Some((x, dims, result)),
        _ => None,
    }
}
