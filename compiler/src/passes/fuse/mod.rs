//! Fusions that cannot lose.

pub mod attention;
pub mod causal;
pub mod conv_affine;
pub mod epilogue;
pub mod matmul_transpose;
pub mod norm_epilogue;
pub mod pointwise;
pub mod product_view;

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
    if graph.constant(value).is_some() {
        return true;
    }
    match graph.producer(value) {
        Some(node) => {
            let node = graph.node(node);
            !node.inputs.is_empty() && node.inputs.iter().flatten().all(|input| is_derived(graph, *input))
        }
        None => false,
    }
}
