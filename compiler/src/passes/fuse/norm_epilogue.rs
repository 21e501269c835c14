//! Epilogues of normalizations.
//!
//! Does: `g(norm(x)) -> norm_g(x)` for a program of one input, such as an activation. Needs: pointwise regions, so that `g` is
//! the whole chain. Keeps: types. Not here: programs that read anything else, or that change the type.

use super::only_user;
use super::pointwise::pointwise;
use crate::ir::{Graph, NodeId, Op, Patch, Program, Ref};

/// `g(norm(x)) -> norm_g(x)`, where `g` is at `id` and is the only user of the normalized value.
pub fn rewrite(graph: &Graph, id: NodeId) -> Option<Patch> {
    let (program, inputs, result) = pointwise(graph, id)?;
    let &[normalized] = &inputs[..] else { return None };
    let producer = graph.producer(normalized).filter(|_| only_user(graph, normalized) == Some(id))?;
    let node = graph.node(producer);
    let behind =
        |own: &Option<Program>| Some(own.as_ref().map_or_else(|| program.clone(), |own| program.inline(0, own, 0)));
    let op = match &node.op {
        Op::Norm(spec, own) => Op::Norm(*spec, behind(own)),
        Op::GroupNorm(spec, own) => Op::GroupNorm(*spec, behind(own)),
        _ => return None,
    };
    let statistics = node.outputs[1..].iter().flatten().any(|value| !graph.uses(*value).is_empty());
    if node.outputs.first() != Some(&Some(normalized)) || statistics || graph.ty(result) != graph.ty(normalized) {
        return None;
    }
    let mut patch = Patch::new(&[producer, id]);
    let operands = node.inputs.iter().map(|operand| operand.map(Ref::from)).collect();
    let fused = patch.node_with_gaps(op, operands);
    Some(patch.replace(result, fused))
}
