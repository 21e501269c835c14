//! Operations with their axes in another order: which compute the same, element by element and in the same steps.

use std::collections::BTreeSet;

use lapidary_runtime::op::{Axes, Norm, Reduce, Softmax, Transpose};

use super::order::{axes, moves_nothing, permuted, place};
use crate::ir::{Expr, Graph, NodeId, Op, Type, ValueId};

/// An operand of a node that follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// It has to be in the node's order.
    Tensor(ValueId),
    /// It is brought there where it stands, and that moves nothing when the model runs.
    Aside(ValueId),
    /// It is the same in any order.
    Same(ValueId),
}

/// A node with its axes in another order.
pub struct Follower {
    pub op: Op,
    pub parts: Vec<Part>,
    pub result: ValueId,
}

/// The node at `id` in the order that `spec` gives; `None` where it has one order only. `at_load` follows from constants.
pub fn follow(graph: &Graph, id: NodeId, spec: &Transpose, at_load: &BTreeSet<NodeId>) -> Option<Follower> {
    let node = graph.node(id);
    let rank = usize::from(spec.rank);
    let (&Some(result), statistics) = node.outputs.split_first()? else { return None };
    if graph.ty(result).dims.len() != rank || statistics.iter().any(Option::is_some) || at_load.contains(&id) {
        return None;
    }
    let inputs: Vec<ValueId> = node.inputs.iter().copied().collect::<Option<_>>()?;
    let part = |value: &ValueId| part(graph, *value, spec, at_load);
    let (&first, rest) = inputs.split_first()?;
    let along = |axis: u8| place(spec, usize::from(axis)).map(|axis| axis as u8);
    let behind = |first: Part| [vec![first], rest.iter().map(|value| Part::Same(*value)).collect()].concat();
    let whole = || if graph.ty(first).dims.len() == rank { Some(Part::Tensor(first)) } else { None };
    let (op, parts) = match &node.op {
        Op::Pointwise(_) => (node.op.clone(), inputs.iter().map(part).collect::<Option<_>>()?),
        Op::Concat { axis } => (Op::Concat { axis: along(*axis)? }, inputs.iter().map(part).collect::<Option<_>>()?),
        Op::Pad { mode, lo, hi } => {
            let moved = |of: &Vec<Expr>| permuted(spec, of);
            (Op::Pad { mode: *mode, lo: moved(lo), hi: moved(hi) }, behind(whole()?))
        }
        Op::Slice { starts, steps, dims } => {
            let (starts, dims) = (permuted(spec, starts), permuted(spec, dims));
            (Op::Slice { starts, steps: permuted(spec, steps), dims }, vec![whole()?])
        }
        Op::Reduce(reduce) => {
            // In the same order among themselves, so that sums are formed in the same steps.
            let moved: Vec<usize> = reduce.axes.iter().map(|axis| place(spec, axis)).collect::<Option<_>>()?;
            if !moved.is_sorted() {
                return None;
            }
            (Op::Reduce(Reduce { axes: Axes::of(moved), ..*reduce }), vec![whole()?])
        }
        Op::Softmax(softmax) => (Op::Softmax(Softmax { axis: along(softmax.axis)?, ..*softmax }), vec![whole()?]),
        // The axes of a row stay where they are, and with them what its scale and bias broadcast along.
        Op::Norm(Norm { axis, .. }, None) => {
            let rows = usize::from(*axis);
            let narrow = |value: &ValueId| graph.ty(*value).dims.len() <= rank - rows;
            let stays = axes(spec).enumerate().skip(rows).all(|(k, from)| k == from);
            (node.op.clone(), if stays && rest.iter().all(narrow) { behind(whole()?) } else { return None })
        }
        _ => return None,
    };
    parts.iter().any(|part| matches!(part, Part::Tensor(_))).then_some(Follower { op, parts, result })
}

/// An operand that broadcasts to the rank of the order.
fn part(graph: &Graph, value: ValueId, spec: &Transpose, at_load: &BTreeSet<NodeId>) -> Option<Part> {
    let ty = graph.ty(value);
    if ty.dims.iter().all(|dim| dim.is(1)) {
        return Some(Part::Same(value));
    }
    let constant = match graph.producer(value) {
        Some(producer) => at_load.contains(&producer),
        None => graph.constant(value).is_some(),
    };
    if constant || (ty.dims.len() < usize::from(spec.rank) && moves_nothing(spec, &widened(ty, spec))) {
        return Some(Part::Aside(value));
    }
    (ty.dims.len() == usize::from(spec.rank)).then_some(Part::Tensor(value))
}

/// The extents with axes of extent 1 in front, as many as the order has.
pub fn widened(ty: &Type, spec: &Transpose) -> Vec<Expr> {
    let lead = usize::from(spec.rank).saturating_sub(ty.dims.len());
    [vec![Expr::constant(1); lead], ty.dims.clone()].concat()
}
