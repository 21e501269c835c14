//! One place along an axis.
//!
//! Does: `gather(x, [i]) -> reshape(slice(x, i))` for a known `i`. Needs: folded indices. Keeps: types.
//! Not here: rows of weights, which a gather picks at load.

use crate::ir::{Expr, Graph, NodeId, Op, Patch};

/// `gather(x, [i]) -> reshape(slice(x, i .. i + 1))`
pub fn rewrite(graph: &Graph, id: NodeId) -> Option<Patch> {
    let node = graph.node(id);
    let (Op::Gather { axis }, &[Some(x), Some(index)], &[Some(result)]) =
        (&node.op, &node.inputs[..], &node.outputs[..])
    else {
        return None;
    };
    let [place] = graph.value(index).known.as_ref()?.0.as_slice() else { return None };
    let place = place.as_const()?;
    let axis = usize::from(*axis);
    let mut dims = graph.ty(x).dims.clone();
    let extent = dims[axis].clone();
    let start = if place < 0 { extent.clone() + Expr::constant(place) } else { Expr::constant(place) };
    // Inside for every shape, or the gather has something to say.
    let inside = graph.range(&start).0 >= 0 && graph.range(&(extent - start.clone())).0 > 0;
    if graph.constant(x).is_some() || !inside {
        return None;
    }
    dims[axis] = Expr::constant(1);
    let mut starts = vec![Expr::constant(0); dims.len()];
    starts[axis] = start;
    let mut patch = Patch::new(&[id]);
    let slice = patch.node(Op::Slice { starts, steps: vec![1; dims.len()], dims }, [x.into()]);
    let taken = patch.node(Op::Reshape(graph.ty(result).dims.clone()), [slice]);
    Some(patch.replace(result, taken))
}
