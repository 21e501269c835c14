//! Softmax, written out, and its logarithm.
//!
//! Does: make the operation of the chains that subtract the maximum, and of a logarithm behind it. Needs: one step a
//! node. Keeps: types; a logarithm of what underflowed becomes the number that it stands for.
//! Not here: chains without the maximum, whose exponentials overflow where softmax has a value; scales and masks, which
//! stay in front as pointwise steps.

use lapidary_runtime::op::{Axes, ReduceKind, ScalarOp, Softmax};

use crate::ir::{Graph, NodeId, Op, Patch, ValueId};
use crate::passes::matching::{Operand, between, binary, either_way, inverse_of, reduced, result, shifted, unary};

/// `e / sum(e) -> softmax(x)` and `s - log(sum(e)) -> log_softmax(x)`, where `e = exp(s)` and `s = x - max(x)`;
/// `log(softmax(x)) -> log_softmax(x)`
pub fn rewrite(graph: &Graph, id: NodeId) -> Option<Patch> {
    let y = result(graph, id)?;
    let (x, spec) = quotient(graph, y).or_else(|| difference(graph, y)).or_else(|| logarithm(graph, y))?;
    if !graph.ty(x).dtype.is_float() || graph.ty(x) != graph.ty(y) {
        return None;
    }
    let mut patch = Patch::new(&between(graph, &[x], id)?);
    let softmax = patch.node(Op::Softmax(spec), [x.into()]);
    Some(patch.replace(y, softmax))
}

fn quotient(graph: &Graph, y: ValueId) -> Option<(ValueId, Softmax)> {
    let divided = || binary(graph, y, ScalarOp::Div).and_then(|(e, sum)| Some((e.value()?, sum.value()?)));
    let inverse = |(e, inverse): (Operand, Operand)| Some((e.value()?, inverse_of(graph, inverse.value()?)?));
    let (e, sum) = divided().or_else(|| either_way(graph, y, ScalarOp::Mul).find_map(inverse))?;
    let (summed, axis) = along_one(reduced(graph, sum, ReduceKind::Sum)?)?;
    let s = unary(graph, e, ScalarOp::Exp).filter(|_| summed == e)?;
    let x = shifted(graph, s, ReduceKind::Max, Axes::of([axis]))?;
    Some((x, Softmax { axis: axis as u8, log: false }))
}

fn difference(graph: &Graph, y: ValueId) -> Option<(ValueId, Softmax)> {
    let (s, logarithm) = binary(graph, y, ScalarOp::Sub)?;
    let sum = unary(graph, logarithm.value()?, ScalarOp::Log)?;
    let (e, axis) = along_one(reduced(graph, sum, ReduceKind::Sum)?)?;
    let s = s.value().filter(|s| unary(graph, e, ScalarOp::Exp) == Some(*s))?;
    let x = shifted(graph, s, ReduceKind::Max, Axes::of([axis]))?;
    Some((x, Softmax { axis: axis as u8, log: true }))
}

fn logarithm(graph: &Graph, y: ValueId) -> Option<(ValueId, Softmax)> {
    let node = graph.node(graph.producer(unary(graph, y, ScalarOp::Log)?)?);
    match (&node.op, &node.inputs[..]) {
        (Op::Softmax(spec), &[Some(x)]) if !spec.log => Some((x, Softmax { log: true, ..*spec })),
        _ => None,
    }
}

/// What is reduced, and the axis if there is only one.
fn along_one((x, axes): (ValueId, Axes)) -> Option<(ValueId, usize)> {
    let axis = axes.iter().next()?;
    (axes == Axes::of([axis])).then_some((x, axis))
}
