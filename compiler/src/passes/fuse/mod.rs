//! Fusions that cannot lose.

pub mod attention;
pub mod causal;
pub mod conv_affine;
pub mod epilogue;
pub mod matmul_transpose;
pub mod norm_epilogue;
pub mod pointwise;
pub mod product_view;

use std::collections::BTreeSet;

use crate::ir::{Graph, NodeId, Use, ValueId};

/// The one node that uses a value, if nothing else does.
pub fn only_user(graph: &Graph, value: ValueId) -> Option<NodeId> {
    match graph.uses(value).as_slice() {
        [Use::Operand(first, _), rest @ ..] => {
            rest.iter().all(|other| matches!(other, Use::Operand(node, _) if node == first)).then_some(*first)
        }
        _ => None,
    }
}

/// Whether a value depends on constants alone, so that it is computed once at load.
pub fn is_derived(graph: &Graph, value: ValueId) -> bool {
    let (mut left, mut seen) = (vec![value], BTreeSet::new());
    while let Some(value) = left.pop() {
        if graph.constant(value).is_some() || !seen.insert(value) {
            continue;
        }
        match graph.producer(value).map(|node| &graph.node(node).inputs) {
            Some(inputs) if !inputs.is_empty() => left.extend(inputs.iter().flatten()),
            Some(_) | None => return false,
        }
    }
    true
}
