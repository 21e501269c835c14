//! Dequantization behind what only moves its elements.
//!
//! Does: `move(dequantize(x)) -> dequantize(move(x))`, so that bytes are moved, and the dequantization meets its product.
//! Moves: reshape, transpose, slice, gather of data, concatenation of operands of one scale, and the maximum of a window.
//! Needs: nothing. Keeps: every bit: each element is dequantized alone, and the maximum is that of the integers as the scale
//! is positive. Not here: dequantized values that something else reads too; scales of an axis past anything but a
//! transpose.

use lapidary_runtime::op::{Pool, PoolKind};

use super::linear::{self, Linear, dequantized};
use crate::ir::{Expr, Graph, NodeId, Op, Patch, Ref, Use, ValueId};
use crate::passes::fuse::pointwise::pointwise;
use crate::passes::matching::Operand;

/// `move(dequantize(x)) -> dequantize(move(x))`
pub fn rewrite(graph: &Graph, id: NodeId) -> Option<Patch> {
    let node = graph.node(id);
    // A pool's second result, its places, is none where nothing reads it.
    let (&Some(y), others) = node.outputs.split_first()? else { return None };
    if others.iter().flatten().any(|other| !graph.uses(*other).is_empty()) {
        return None;
    }
    let inputs: Vec<ValueId> = node.inputs.iter().copied().collect::<Option<_>>()?;
    let &first = inputs.first()?;
    let producer = graph.producer(first)?;
    let (program, operands, _) = pointwise(graph, producer)?;
    let of = movable(graph, first)?;
    let per_tensor = operands.iter().all(|operand| *operand == of.x || graph.ty(*operand).count().is(1));
    let moved = match &node.op {
        Op::Transpose(_) => vec![of.x],
        Op::Reshape(_) | Op::Slice { .. } if per_tensor => vec![of.x],
        Op::Gather { .. } if per_tensor => vec![of.x, *inputs.get(1)?],
        Op::Pool(pool, _) if per_tensor && meets_x(pool) && linear::is_ordinary(graph, of.scale) => vec![of.x],
        Op::Concat { .. } if per_tensor => {
            let alike = |other: &ValueId| {
                let other = movable(graph, *other).filter(|other| (other.scale, other.zero) == (of.scale, of.zero))?;
                (graph.ty(other.x).dtype == graph.ty(of.x).dtype).then_some(other.x)
            };
            inputs.iter().map(alike).collect::<Option<_>>()?
        }
        _ => return None,
    };
    let mut patch = Patch::new(&[producer, id]);
    let moved = patch.node(node.op.clone(), moved.into_iter().map(Ref::from));
    let rank = graph.ty(y).dims.len();
    let mut again: Vec<Ref> = Vec::new();
    for &operand in &operands {
        again.push(if operand == of.x { moved } else { beside(graph, &mut patch, operand, &node.op, rank)? });
    }
    let numbers = patch.node(Op::Pointwise(program.clone()), again);
    Some(patch.replace(y, numbers))
}

/// Whether each window of a maximum pool has an element of the operand: a maximum of nothing is no byte's.
fn meets_x(pool: &Pool) -> bool {
    let window = &pool.window;
    let axes = 0..usize::from(window.rank);
    let dense = |axis: usize| {
        let pads = window.pad_lo[axis].max(window.pad_hi[axis]);
        window.dilation[axis] == 1 && pads < window.size[axis]
    };
    pool.kind == PoolKind::Max && axes.into_iter().all(dense)
}

/// How `value` is dequantized in one node, where all that read it move it.
fn movable(graph: &Graph, value: ValueId) -> Option<Linear> {
    let of = dequantized(graph, value)?;
    let (_, operands, _) = pointwise(graph, graph.producer(value)?)?;
    let bytes = linear::is_byte(graph.ty(of.x).dtype) && operands.contains(&of.x);
    let parameters = [Some(of.scale), of.zero].into_iter().flatten();
    let own = |parameter: Operand| parameter.value().is_none_or(|value| operands.contains(&value));
    let moves = |used: Use| match used {
        Use::Operand(node, 0) => is_move(&graph.node(node).op),
        Use::Operand(node, _) => matches!(graph.node(node).op, Op::Concat { .. }),
        Use::Output(_) => false,
    };
    (bytes && parameters.into_iter().all(own) && graph.uses(value).into_iter().all(moves)).then_some(of)
}

fn is_move(op: &Op) -> bool {
    match op {
        Op::Reshape(_) | Op::Transpose(_) | Op::Slice { .. } | Op::Gather { .. } | Op::Concat { .. } => true,
        Op::Pool(spec, _) => spec.kind == PoolKind::Max,
        _ => false,
    }
}

/// A parameter as it broadcasts to what `op` makes, of `rank` axes.
fn beside(graph: &Graph, patch: &mut Patch, parameter: ValueId, op: &Op, rank: usize) -> Option<Ref> {
    let dims = &graph.ty(parameter).dims;
    if graph.ty(parameter).count().is(1) {
        return Some(if dims.len() <= rank {
            parameter.into()
        } else {
            patch.node(Op::Reshape(vec![]), [parameter.into()])
        });
    }
    let Op::Transpose(_) = op else { return None };
    // The axes in front, which broadcasting implies, move too.
    let mut whole = vec![Expr::constant(1); rank.checked_sub(dims.len())?];
    whole.extend(dims.iter().cloned());
    let whole = if whole == *dims { parameter.into() } else { patch.node(Op::Reshape(whole), [parameter.into()]) };
    Some(patch.node(op.clone(), [whole]))
}
