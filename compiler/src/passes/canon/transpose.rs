//! Transposes that meet, or move nothing.
//!
//! Does: `transpose(transpose(x, p), q) -> transpose(x, p . q)`, or `x` where they cancel; a transpose that only moves
//! axes of extent 1 becomes a reshape. Needs: nothing. Keeps: types. Not here: moving transposes past other operations.

use lapidary_runtime::op::{MAX_RANK, Transpose};

use crate::ir::{Graph, NodeId, Op, Patch, Type, ValueId};

/// The rules above, on one transpose.
pub fn rewrite(graph: &Graph, id: NodeId) -> Option<Patch> {
    let (x, spec, result) = transpose(graph, id)?;
    if let Some((inner, first, _)) = graph.producer(x).and_then(|producer| transpose(graph, producer)) {
        let mut patch = Patch::new(&[id]);
        let composed = compose(first, spec);
        let merged =
            match composed.perm[..usize::from(composed.rank)].iter().enumerate().all(|(k, &a)| k == usize::from(a)) {
                true => inner.into(),
                false => patch.node(Op::Transpose(composed), [inner.into()]),
            };
        return Some(patch.replace(result, merged));
    }
    if moves_only_ones(graph.ty(x), spec) {
        let mut patch = Patch::new(&[id]);
        let reshaped = patch.node(Op::Reshape(graph.ty(result).dims.clone()), [x.into()]);
        return Some(patch.replace(result, reshaped));
    }
    None
}

fn transpose(graph: &Graph, id: NodeId) -> Option<(ValueId, Transpose, ValueId)> {
    let node = graph.node(id);
    match (&node.op, &node.inputs[..], &node.outputs[..]) {
        (Op::Transpose(spec), &[Some(x)], &[Some(result)]) => Some((x, *spec, result)),
        _ => None,
    }
}

/// Result axis `k` of the second is axis `second[k]` of the first's result, which is axis `first[second[k]]` of `x`.
fn compose(first: Transpose, second: Transpose) -> Transpose {
    let mut perm = [0; MAX_RANK];
    for (slot, &axis) in perm.iter_mut().zip(&second.perm[..usize::from(second.rank)]) {
        *slot = first.perm[usize::from(axis)];
    }
    Transpose { rank: second.rank, perm }
}

fn moves_only_ones(ty: &Type, spec: Transpose) -> bool {
    let kept = spec.perm[..usize::from(spec.rank)].iter().filter(|&&axis| !ty.dims[usize::from(axis)].is(1));
    kept.collect::<Vec<_>>().windows(2).all(|pair| pair[0] < pair[1])
}
