//! Operations that change nothing.
//!
//! Does: `f(x) -> x` for pointwise identities and casts to the same type, expands and slices of the whole, pads by
//! nothing, transposes in order, concatenations of one. Needs: nothing. Keeps: types.

use crate::ir::{Expr, Graph, NodeId, Op, Patch};

/// `f(x) -> x` where the types agree and `f` keeps every element in its place.
pub fn rewrite(graph: &Graph, id: NodeId) -> Option<Patch> {
    let node = graph.node(id);
    let (&[result], &[Some(x), ..]) = (&node.outputs[..], &node.inputs[..]) else { return None };
    let result = result?;
    if graph.ty(x) != graph.ty(result) {
        return None;
    }
    let keeps = match &node.op {
        Op::Pointwise(program) => program.simplify().is_identity(),
        Op::Reshape(_) | Op::Expand(_) => true,
        Op::Transpose(spec) => {
            spec.perm[..usize::from(spec.rank)].iter().enumerate().all(|(k, &axis)| k == usize::from(axis))
        }
        Op::Slice { starts, steps, .. } => {
            starts.iter().all(|start| start.is(0)) && steps.iter().all(|&step| step == 1)
        }
        Op::Pad { lo, hi, .. } => lo.iter().chain(hi).all(|amount| amount == &Expr::constant(0)),
        Op::Concat { .. } => node.inputs.len() == 1,
        _ => false,
    };
    keeps.then(|| Patch::new(&[id]).replace(result, x))
}
