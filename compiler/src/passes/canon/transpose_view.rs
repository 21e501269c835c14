//! Axes that are merged, put in or taken out around a transpose, which moves none of them apart.
//!
//! Does: `reshape(transpose(reshape(x))) -> transpose(x)`, and `transpose(reshape(transpose(x)))` with one transpose, if
//! the inner reshape puts in and takes out axes of extent 1, and makes one axis of neighbours, but splits none. Needs:
//! `reshape-chain`. Keeps: types. Not here: reshapes without such a gain, which stay where other rules expect them.

use lapidary_runtime::op::{MAX_RANK, Transpose};

use crate::ir::{Expr, Graph, NodeId, Op, Patch, ValueId};
use crate::passes::fuse::only_user;
use crate::passes::matching::result;

/// `r(t(v(x))) -> t(x)`, `t(v(t(x))) -> r(t(x))`, where `v` merges axes that follow each other
pub fn rewrite(graph: &Graph, id: NodeId) -> Option<Patch> {
    let y = result(graph, id)?;
    around(graph, id, y).or_else(|| inside(graph, id, y))
}

/// `r(t(v(x))) -> t(x)`
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

/// `t(v(t(x))) -> r(t(x))`
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

/// The transpose of `x` that moves its axes as `spec` moves those of its view, each of which is one of `x` or some that
/// follow each other as one; axes of extent 1 stay in their places. `None` if the view has other axes.
fn across(x: &[Expr], view: &[Expr], spec: Transpose) -> Option<Transpose> {
    let runs = runs(x, view)?;
    let moved = spec.perm[..usize::from(spec.rank)].iter().flat_map(|&axis| &runs[usize::from(axis)]);
    let mut perm = [0; MAX_RANK];
    (0..x.len()).for_each(|axis| perm[axis] = axis as u8);
    for (to, &from) in longer(x).zip(moved) {
        perm[to] = from as u8;
    }
    Some(Transpose { rank: x.len() as u8, perm })
}

/// For each axis of the view, the axes of `x` that it is made of; none where its extent is 1.
fn runs(x: &[Expr], view: &[Expr]) -> Option<Vec<Vec<usize>>> {
    let mut left = longer(x);
    let mut run_of = |extent: &Expr| {
        let (mut run, mut count) = (Vec::new(), Expr::constant(1));
        while count != *extent {
            let axis = left.next()?;
            count = count * x[axis].clone();
            run.push(axis);
        }
        Some(run)
    };
    let runs = view.iter().map(&mut run_of).collect::<Option<Vec<Vec<usize>>>>()?;
    left.next().is_none().then_some(runs)
}

/// The axes whose extent is not 1.
fn longer(dims: &[Expr]) -> impl Iterator<Item = usize> {
    (0..dims.len()).filter(|&axis| !dims[axis].is(1))
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
