//! Pointwise regions.
//!
//! Does: `g(f(x), y) -> (g . f)(x, y)`. Needs: programs. Keeps: types.
//! Not here: producers with several uses (their value would be computed twice), producers whose result is broadcast
//! (likewise), and what depends on weights alone (it is computed once, at load).

use crate::ir::{Graph, NodeId, Op, Patch, Program, Ref, ValueId};
use crate::passes::why::{self, Why};

/// Bounds of a region, below what registers and kernel parameters can hold.
const MAX_STEPS: usize = 96;
const MAX_INPUTS: usize = 12;

/// `g(f(x), y) -> (g . f)(x, y)`, where `g` is at `id` and is the only user of `f`.
pub fn rewrite(graph: &Graph, id: NodeId) -> Option<Patch> {
    let (_, inputs, _) = pointwise(graph, id)?;
    (0..inputs.len()).find_map(|at| fuse(graph, id, at)?.ok())
}

/// Why operand `at` of the node at `id` is not computed in its program; `None` where it is not pointwise.
pub fn why_not(graph: &Graph, id: NodeId, at: usize) -> Option<Why> {
    fuse(graph, id, at).map(|found| why::why_not("pointwise", found))
}

/// The rule on operand `at` of the node at `id`; `None` where not both are pointwise.
fn fuse(graph: &Graph, id: NodeId, at: usize) -> Option<Result<Patch, Why>> {
    let (consumer, inputs, result) = pointwise(graph, id)?;
    let input = *inputs.get(at)?;
    let producer_id = graph.producer(input)?;
    let (producer, producer_inputs, _) = pointwise(graph, producer_id)?;
    let (steps, count) = (consumer.steps.len() + producer.steps.len(), inputs.len() - 1 + producer_inputs.len());
    if super::is_derived(graph, input) {
        return Some(Err(Why::AtLoad(input)));
    }
    if super::only_user(graph, input) != Some(id) {
        return Some(Err(Why::Readers(input)));
    }
    // A second use by the consumer itself comes together as one operand in `scalar-operand`.
    if inputs.iter().filter(|v| **v == input).count() > 1 {
        return Some(Err(Why::ReadTwice(input)));
    }
    if graph.ty(input).dims != graph.ty(result).dims {
        return Some(Err(Why::Broadcast(input, result)));
    }
    if steps > MAX_STEPS || count > MAX_INPUTS {
        let (most_steps, most_operands) = (MAX_STEPS, MAX_INPUTS);
        return Some(Err(Why::Size { steps, most_steps, operands: count, most_operands }));
    }
    let fused = consumer.inline(at as u16, producer, 0);
    let mut operands: Vec<ValueId> = inputs.clone();
    operands.remove(at);
    operands.extend(producer_inputs);
    let (fused, operands) = merge_equal(&fused, &operands);
    let mut patch = Patch::new(&[producer_id, id]);
    let merged = patch.node(Op::Pointwise(fused.simplify()), operands.into_iter().map(Ref::from));
    Some(Ok(patch.replace(result, merged)))
}

/// The program, operands and result of a pointwise node with one result.
pub fn pointwise(graph: &Graph, id: NodeId) -> Option<(&Program, Vec<ValueId>, ValueId)> {
    let node = graph.node(id);
    match (&node.op, &node.outputs[..]) {
        (Op::Pointwise(program), &[Some(result)]) => {
            Some((program, node.inputs.iter().copied().collect::<Option<_>>()?, result))
        }
        _ => None,
    }
}

/// The program with one input for each value.
pub fn merge_equal(program: &Program, inputs: &[ValueId]) -> (Program, Vec<ValueId>) {
    let mut kept: Vec<ValueId> = Vec::new();
    let mut number = |input: &ValueId| match kept.iter().position(|other| other == input) {
        Some(k) => k as u16,
        None => {
            kept.push(*input);
            kept.len() as u16 - 1
        }
    };
    let to: Vec<u16> = inputs.iter().map(&mut number).collect();
    (program.renumber_inputs(&to, kept.len()), kept)
}
