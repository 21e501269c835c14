//! The formulas over symbols that an operation holds itself, beside those in the types of its operands.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Op;
use crate::ir::Expr;

/// The formulas in an operation's payload.
pub fn extents_of(op: &Op) -> Vec<&Expr> {
    match op {
        Op::ConvTranspose(_, dims)
        | Op::Pool(_, dims)
        | Op::Reshape(dims)
        | Op::Expand(dims)
        | Op::Resize(_, dims)
        | Op::Extents { values: dims, .. } => dims.iter().collect(),
        Op::Slice { starts, dims, .. } => starts.iter().chain(dims).collect(),
        Op::Pad { lo, hi, .. } => lo.iter().chain(hi).collect(),
        Op::TopK { k: count, .. } | Op::Range { count } | Op::Loop { most: count, .. } => vec![count],
        Op::Pointwise(_)
        | Op::MatMul(..)
        | Op::Conv(..)
        | Op::Reduce(_)
        | Op::ArgReduce(_)
        | Op::Softmax(_)
        | Op::Attention(_)
        | Op::Norm(..)
        | Op::GroupNorm(..)
        | Op::BitCast(_)
        | Op::Transpose(_)
        | Op::Concat { .. }
        | Op::Gather { .. }
        | Op::GatherElements { .. }
        | Op::GatherNd { .. }
        | Op::ScatterElements { .. }
        | Op::ScatterNd { .. }
        | Op::RegionPool(_)
        | Op::Recurrent(_)
        | Op::Suppress
        | Op::CumSum { .. }
        | Op::RunCount
        | Op::If { .. } => Vec::new(),
    }
}

/// The symbols that carrying out `op` takes: those in its payload, and for a node with regions all that are in them.
pub fn symbols_of(op: &Op) -> BTreeSet<Arc<str>> {
    let mut symbols: BTreeSet<Arc<str>> = extents_of(op).into_iter().flat_map(Expr::symbols).collect();
    for (_, region) in op.regions() {
        let graph = &region.0;
        symbols.extend(graph.order().into_iter().flat_map(|node| symbols_of(&graph.node(node).op)));
        let types = graph.value_ids().flat_map(|value| graph.ty(value).dims.iter());
        symbols.extend(types.flat_map(Expr::symbols));
        let relied_on = graph.constraints.iter().flat_map(|constraint| [&constraint.left, &constraint.right]);
        symbols.extend(relied_on.flat_map(Expr::symbols));
    }
    symbols
}
