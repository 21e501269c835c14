//! Axes of extent 1 that are put in or taken out around a transpose.
//!
//! Does: `reshape(transpose(reshape(x))) -> transpose(x)`, and `transpose(reshape(transpose(x)))` with one transpose, if
//! the reshapes put in and take out axes of extent 1 alone. Needs: `reshape-chain`. Keeps: types.
//! Not here: reshapes without such a gain, which stay where other rules expect them.

use lapidary_runtime::op::{MAX_RANK, Transpose};

use crate::ir::{Expr, Graph, NodeId, Op, Patch, ValueId};
use crate::passes::fuse::only_user;
use crate::passes::matching::result;

/// `r(t(r(x))) -> t(x)`, `t(r(t(x))) -> r(t(x))`, where `r` adds or drops axes of extent 1
pub fn rewrite(graph: &Graph, id: NodeId) -> Option<Patch> {
    let y = result(graph, id)?;
    around(graph, id, y).or_else(|| inside(graph, id, y))
}

/// `r(t(r(x))) -> t(x)`
fn around(graph: &Graph, id: NodeId, y: ValueId) -> Option<Patch> {
    let transposed = reshaped(graph, y)?;
    let (viewed, spec) = transpose(graph, transposed)?;
    let x = reshaped(graph, viewed)?;
    let spec = across(dims(graph, x), dims(graph, viewed), spec)?;
    if permuted(dims(graph, x), spec) != *dims(graph, y) || only_user(graph, transposed) != Some(id) {
        return None;
    }
    let mut patch = Patch::new(&[graph.producer(transposed)?, id]);
    let moved = if in_order(spec) { x.into() } else { patch.node(Op::Transpose(spec), [x.into()]) };
    Some(patch.replace(y, moved))
}

/// `t(r(t(x))) -> r(t(x))`
fn inside(graph: &Graph, id: NodeId, y: ValueId) -> Option<Patch> {
    let (viewed, spec) = transpose(graph, y)?;
    let first = reshaped(graph, viewed)?;
    transpose(graph, first)?;
    let spec = across(dims(graph, first), dims(graph, viewed), spec).filter(|spec| !in_order(*spec))?;
    let mut patch = Patch::new(&[id]);
    // `transpose-chain` makes one of the two.
    let transposed = patch.node(Op::Transpose(spec), [first.into()]);
    let viewed = patch.node(Op::Reshape(dims(graph, y).clone()), [transposed]);
    Some(patch.replace(y, viewed))
}

fn dims(graph: &Graph, value: ValueId) -> &Vec<Expr> {
    &graph.ty(value).dims
}

/// The transpose of `x` that moves its axes as `spec` moves those of its view, axes of extent 1 staying in their
/// places; `None` if the extents of the view are others.
fn across(x: &[Expr], view: &[Expr], spec: Transpose) -> Option<Transpose> {
    let (of_x, of_view) = (longer(x), longer(view));
    if of_x.len() != of_view.len() || of_x.iter().zip(&of_view).any(|(&a, &b)| x[a] != view[b]) {
        return None;
    }
    let mut perm = [0; MAX_RANK];
    (0..x.len()).for_each(|axis| perm[axis] = axis as u8);
    let moved = spec.perm[..usize::from(spec.rank)]
        .iter()
        .filter_map(|&axis| of_view.iter().position(|&other| other == usize::from(axis)));
    for (&to, from) in of_x.iter().zip(moved) {
        perm[to] = of_x[from] as u8;
    }
    Some(Transpose { rank: x.len() as u8, perm })
}

/// The axes whose extent is not 1.
fn longer(dims: &[Expr]) -> Vec<usize> {
    (0..dims.len()).filter(|&axis| !dims[axis].is(1)).collect()
}

fn permuted(dims: &[Expr], spec: Transpose) -> Vec<Expr> {
    spec.perm[..usize::from(spec.rank)].iter().map(|&axis| dims[usize::from(axis)].clone()).collect()
}

/// Whether nothing moves.
fn in_order(spec: Transpose) -> bool {
    spec.perm[..usize::from(spec.rank)].iter().enumerate().all(|(k, &axis)| k == usize::from(axis))
}

fn reshaped(graph: &Graph, value: ValueId) -> Option<ValueId> {
    let node = graph.node(graph.producer(value)?);
    match (&node.op, &node.inputs[..]) {
        (Op::Reshape(_), &[Some(x)]) => Some(x),
        _ => None,
    }
}

fn transpose(graph: &Graph, value: ValueId) -> Option<(ValueId, Transpose)> {
    let node = graph.node(graph.producer(value)?);
    match (&node.op, &node.inputs[..]) {
        (Op::Transpose(spec), &[Some(x)]) => Some((x, *spec)),
        _ => None,
    }
}
