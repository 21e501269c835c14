//! Quantization in front of what only moves its elements.
//!
//! Does: `f(move(x)) -> move(f(x))` where `f` makes bytes of the elements of one tensor, as quantization does, and
//! `move` is a reshape or a transpose: bytes move, and `f` meets the step in front. Needs: pointwise regions, so that `f` is
//! the whole chain. Keeps: every bit, as each element is computed alone. Not here: what is computed at load.

use super::linear::is_byte;
use crate::ir::{Graph, NodeId, Op, Patch, Ref, ValueId};
use crate::passes::fuse::pointwise::pointwise;
use crate::passes::fuse::{is_derived, only_user};

/// `f(move(x), c) -> move(f(x, c))`, where `c` have one element each
pub fn rewrite(graph: &Graph, id: NodeId) -> Option<Patch> {
    let (program, inputs, y) = pointwise(graph, id)?;
    let (at, moved) = the_tensor(graph, &inputs)?;
    let mover = graph.producer(moved)?;
    let node = graph.node(mover);
    let (Op::Reshape(_) | Op::Transpose(_), &[Some(x)]) = (&node.op, &node.inputs[..]) else { return None };
    let narrower = is_byte(graph.ty(y).dtype) && graph.ty(x).dtype.bits() >= 8;
    let alone = only_user(graph, moved) == Some(id) && only_user(graph, x) == Some(mover);
    let fits = |value: &ValueId| graph.ty(*value).dims.len() <= graph.ty(x).dims.len();
    if !narrower || !alone || is_derived(graph, x) || graph.ty(moved).dims != graph.ty(y).dims {
        return None;
    }
    let mut operands = inputs.clone();
    operands[at] = x;
    if !operands.iter().all(fits) {
        return None;
    }
    let mut patch = Patch::new(&[mover, id]);
    let narrow = patch.node(Op::Pointwise(program.clone()), operands.into_iter().map(Ref::from));
    let again = patch.node(node.op.clone(), [narrow]);
    Some(patch.replace(y, again))
}

/// The one operand of more than one element, and its place.
fn the_tensor(graph: &Graph, inputs: &[ValueId]) -> Option<(usize, ValueId)> {
    let mut tensors = inputs.iter().enumerate().filter(|(_, value)| !graph.ty(**value).count().is(1));
    let (at, &value) = tensors.next()?;
    tensors.next().is_none().then_some((at, value))
}
