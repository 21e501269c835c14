//! Epilogues of normalizations.
//!
//! Does: `g(norm(x)) -> norm_g(x)` for a program of one input, such as an activation. Needs: pointwise regions, so that `g` is
//! the whole chain. Keeps: types. Not here: programs that read anything else, or that change the type.

use super::only_user;
use super::pointwise::pointwise;
use crate::ir::{Graph, NodeId, Op, Patch, Program, Ref};
use crate::passes::why::{self, Why};

/// `g(norm(x)) -> norm_g(x)`, where `g` is at `id` and is the only user of the normalized value.
pub fn rewrite(graph: &Graph, id: NodeId) -> Option<Patch> {
    let (_, inputs, _) = pointwise(graph, id)?;
    (0..inputs.len()).find_map(|at| fuse(graph, id, at)?.ok())
}

/// Why the node at `id` is no epilogue of the normalization that its operand `at` is; `None` where it is none.
pub fn why_not(graph: &Graph, id: NodeId, at: usize) -> Option<Why> {
    fuse(graph, id, at).map(|found| why::why_not("norm-epilogue", found))
}

/// The rule on operand `at` of the pointwise node at `id`; `None` where the operand is not normalized.
fn fuse(graph: &Graph, id: NodeId, at: usize) -> Option<Result<Patch, Why>> {
    let (program, inputs, result) = pointwise(graph, id)?;
    let normalized = *inputs.get(at)?;
    let producer = graph.producer(normalized)?;
    let node = graph.node(producer);
    let behind =
        |own: &Option<Program>| Some(own.as_ref().map_or_else(|| program.clone(), |own| program.inline(0, own, 0)));
    let op = match &node.op {
        Op::Norm(spec, own) => Op::Norm(*spec, behind(own)),
        Op::GroupNorm(spec, own) => Op::GroupNorm(*spec, behind(own)),
        _ => return None,
    };
    if node.outputs.first() != Some(&Some(normalized)) {
        return None;
    }
    if inputs.len() > 1 {
        return Some(Err(Why::OneInput(inputs.len() - 1)));
    }
    if only_user(graph, normalized) != Some(id) {
        return Some(Err(Why::Readers(normalized)));
    }
    if let Some(read) = node.outputs[1..].iter().flatten().find(|value| !graph.uses(**value).is_empty()) {
        return Some(Err(Why::Statistics(*read)));
    }
    if graph.ty(result) != graph.ty(normalized) {
        return Some(Err(Why::OtherType(result)));
    }
    let mut patch = Patch::new(&[producer, id]);
    let operands = node.inputs.iter().map(|operand| operand.map(Ref::from)).collect();
    let fused = patch.node_with_gaps(op, operands);
    Some(Ok(patch.replace(result, fused)))
}
