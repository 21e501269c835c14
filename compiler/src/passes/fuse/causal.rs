//! Causal masks.
//!
//! Does: `attention(q, k, v, mask) -> causal attention(q, k, v)`, where the mask follows from constants, adds 0 to the scores
//! of the keys up to the query's own, and hides all others. Needs: attention from its chain, and the mask's elements.
//! Keeps: types. Breaks: a mask of finite numbers hides by outweighing; where a query's visible scores are all below
//! -65,000 themselves, it would have let others through.
//! Not here: masks that depend on inputs or on symbolic extents, and causal masks that are summed up with others.

use lapidary_runtime::op::Attention;

use crate::ir::eval::{self, Tensor};
use crate::ir::{Expr, Graph, NodeId, Op, Patch, Ref};

/// The largest mask that is looked at: 2,048 queries and keys.
const MOST_ELEMENTS: i64 = 1 << 22;

/// What at least is added to hide a score: the lowest `f16`.
const HIDES: f64 = -65504.0;

/// `attention(q, k, v, mask) -> causal attention(q, k, v)`, where the attention is at `id`.
pub fn rewrite(graph: &Graph, id: NodeId) -> Option<Patch> {
    let node = graph.node(id);
    let (Op::Attention(spec), &[Some(q), Some(k), Some(v), Some(mask)], &[Some(result)]) =
        (&node.op, &node.inputs[..], &node.outputs[..])
    else {
        return None;
    };
    let extent = |value, axis: usize| graph.ty(value).dims.get(axis).and_then(Expr::as_const);
    let (queries, keys) = (extent(q, 2)?, extent(k, 2)?);
    let [.., rows, columns] = &graph.ty(mask).dims[..] else { return None };
    if !rows.is(queries) || !columns.is(keys) || !is_causal(&eval::constant(graph, mask, MOST_ELEMENTS)?) {
        return None;
    }
    let mut patch = Patch::new(&[id]);
    let causal = Op::Attention(Attention { causal: true, ..*spec });
    let attention = patch.node(causal, [q, k, v].map(Ref::from));
    Some(patch.replace(result, attention))
}

/// Whether each query of each head, which all have their own row in the mask, sees the keys up to its own and no others.
fn is_causal(mask: &Tensor) -> bool {
    let [.., rows, columns] = mask.dims[..] else { return false };
    let added = mask.to_f64s();
    let as_causal = |(place, &added): (usize, &f64)| {
        let (query, key) = (place / columns % rows, place % columns);
        if key <= query { added == 0.0 } else { added <= HIDES }
    };
    added.iter().enumerate().all(as_causal)
}
