//! Which neighbours stay apart behind the passes, and why.
//!
//! Does: look at each value that one kernel of the graph stores and another reads, and ask the rule for such neighbours;
//! where there is none, say so. Needs: the graph behind the passes, and the [`Notes`] of rules whose operands later
//! passes rewrite. Not here: what runs once at load; what costs nothing (reshapes); conditions, which the rules have.

use std::cell::LazyCell;
use std::collections::{BTreeMap, BTreeSet};

use super::fuse::{epilogue, matmul_transpose, norm_epilogue, pointwise, product_view};
use super::layout;
use super::matching::at_load;
use super::quant::product;
use super::report::{Apart, Kernel, Reason};
use super::why::Why;
use crate::diag::quoted;
use crate::ir::{Graph, NodeId, Op, Origin, Use, ValueId};

/// Why chains were left, in the words of their rule right behind its last firing, by the origin of their softmax.
pub type Notes = BTreeMap<Origin, String>;

/// Notes why the rule leaves the chains in `graph`.
pub fn note(graph: &Graph, why_not: fn(&Graph, NodeId) -> Why, notes: &mut Notes) {
    for id in graph.order() {
        if let Some(Chain { second, .. }) = Chain::around(graph, id) {
            notes.insert(graph.node(id).origin.clone(), why_not(graph, second).text(graph));
        }
    }
}

/// All neighbours of a graph, and of its regions.
pub fn apart(graph: &Graph, notes: &Notes) -> Vec<Apart> {
    let mut found = Vec::new();
    let at_load = at_load(graph);
    for id in graph.order() {
        let node = graph.node(id);
        for (_, region) in node.op.regions() {
            found.extend(apart(&region.0, notes));
        }
        if at_load.contains(&id) || !is_kernel(&node.op) {
            continue;
        }
        found.extend(chain(graph, id, notes));
        found.extend(transpose(graph, id, &at_load));
        let mut seen = BTreeSet::new();
        for (at, value) in node.inputs.iter().enumerate() {
            let Some(value) = value.filter(|value| seen.insert(*value)) else { continue };
            let Some((producer, viewed)) = source(graph, value) else { continue };
            if !at_load.contains(&producer) && is_kernel(&graph.node(producer).op) {
                found.extend(pair(graph, &Pair { producer, viewed, consumer: id, at, value }));
            }
        }
    }
    found
}

/// Two kernels, of which one reads what the other stores.
struct Pair {
    producer: NodeId,
    /// Whether views stand between.
    viewed: bool,
    consumer: NodeId,
    /// The consumer's operand, and its value.
    at: usize,
    value: ValueId,
}

fn pair(graph: &Graph, pair: &Pair) -> Option<Apart> {
    let &Pair { producer, viewed, consumer, at, value } = pair;
    let (from, to) = (&graph.node(producer).op, &graph.node(consumer).op);
    let (reason, why) = match (from, to) {
        // What chains and transposes say of themselves.
        (Op::Softmax(_), _) if Chain::around(graph, producer).is_some() => return None,
        (_, Op::Softmax(_)) if Chain::around(graph, consumer).is_some() => return None,
        (Op::Transpose(_), _) if !is_beside_attention(graph, producer) => return None,
        (_, Op::Transpose(_)) if !is_beside_attention(graph, consumer) => return None,
        (Op::Transpose(_), Op::Attention(_) | Op::Transpose(_)) | (Op::Attention(_), Op::Transpose(_)) => {
            (Reason::NoRule, BESIDE_ATTENTION.to_owned())
        }
        (Op::MatMul(..) | Op::Conv(..), Op::Pointwise(_)) => {
            let why = if viewed { product_view::why_not } else { epilogue::why_not };
            (Reason::UnfusedEpilogue, why(graph, consumer, at).unwrap_or(Why::View).text(graph))
        }
        (Op::Pointwise(_), Op::Pointwise(_)) => {
            (Reason::UnfusedPointwise, pointwise::why_not(graph, consumer, at).unwrap_or(Why::View).text(graph))
        }
        (Op::Norm(..) | Op::GroupNorm(..), Op::Pointwise(_)) => {
            (Reason::UnfusedNorm, norm_epilogue::why_not(graph, consumer, at).unwrap_or(Why::View).text(graph))
        }
        (Op::Norm(..) | Op::GroupNorm(..), _) => (Reason::UnfusedNorm, behind_norm(to).to_owned()),
        (_, Op::Norm(..) | Op::GroupNorm(..)) => (Reason::UnfusedNorm, before_norm(from).to_owned()),
        (Op::Pointwise(_), Op::MatMul(..) | Op::Conv(..)) if product::why_not(graph, consumer, at).is_some() => {
            let why = product::why_not(graph, consumer, at).map(|why| why.text(graph)).unwrap_or_default();
            (Reason::UnfusedQuantized, why)
        }
        (_, Op::MatMul(..) | Op::Conv(..)) if at >= 2 => {
            (Reason::NoRule, format!("the epilogue of the {} reads it as an operand", to.name()))
        }
        (from, to) => (Reason::NoRule, format!("no rule joins a {} with the {} behind it", from.name(), to.name())),
    };
    let kernels = [producer, consumer].map(|id| Kernel::of(graph, id)).to_vec();
    Some(Apart { reason, kernels, value: graph.value(value).name.to_string(), why })
}

const BESIDE_ATTENTION: &str = "no rule joins them, as attention reads and writes such tensors where they lie on a GPU";

fn behind_norm(to: &Op) -> &'static str {
    match to {
        Op::MatMul(..) | Op::Conv(..) => "no product normalizes the rows that it reads",
        _ => "no rule joins a normalization with what reads it",
    }
}

fn before_norm(from: &Op) -> &'static str {
    match from {
        Op::Pointwise(_) => "no kernel of normalizations runs a program on what it reads",
        Op::MatMul(..) | Op::Conv(..) => "no product computes the statistics of whole rows of its result",
        _ => "no rule joins a normalization with what it reads",
    }
}

/// What is left of an attention, where the node at `id` is its softmax.
fn chain(graph: &Graph, id: NodeId, notes: &Notes) -> Option<Apart> {
    let Chain { first, second } = Chain::around(graph, id)?;
    let noted = notes.get(&graph.node(id).origin).cloned();
    let why = noted.unwrap_or_else(|| Why::WouldFuse("attention").text(graph));
    let kernels = [first, id, second].map(|id| Kernel::of(graph, id)).to_vec();
    let value = graph.node(id).outputs.first().copied().flatten()?;
    Some(Apart { reason: Reason::UnfusedAttention, kernels, value: graph.value(value).name.to_string(), why })
}

/// A transpose at `id` that is a kernel, with all that read it.
fn transpose(graph: &Graph, id: NodeId, at_load: &BTreeSet<NodeId>) -> Option<Apart> {
    let (Op::Transpose(_), &[Some(result)]) = (&graph.node(id).op, &graph.node(id).outputs[..]) else { return None };
    if is_beside_attention(graph, id) {
        return None;
    }
    let around = LazyCell::new(|| layout::Around::of(graph, id, at_load));
    let mut kernels = vec![Kernel::of(graph, id)];
    let mut readers = Vec::new();
    for reader in readers_behind(graph, result, is_view) {
        match reader {
            Use::Operand(node, at) => {
                let kernel = Kernel::of(graph, node);
                let why = match (&graph.node(node).op, matmul_transpose::why_not(graph, node, at)) {
                    (_, Some(why)) => why.text(graph),
                    (Op::MatMul(..), None) if at < 2 => Why::View.text(graph),
                    (op, None) => match around.as_ref().and_then(|around| around.why_not(node)) {
                        Some(why) => why.text(graph),
                        None => format!("no {} reads through a transpose", op.name()),
                    },
                };
                readers.push(format!("{kernel} reads it: {why}"));
                kernels.push(kernel);
            }
            Use::Output(k) => readers.push(format!("it is the output {}", quoted(&graph.outputs()[k].0))),
        }
    }
    let value = graph.value(result).name.to_string();
    Some(Apart { reason: Reason::TransposeLeft, kernels, value, why: readers.join("; ") })
}

/// Whether attention is what the transpose at `id` reads, or all that reads it past views and other transposes.
fn is_beside_attention(graph: &Graph, id: NodeId) -> bool {
    let (&[Some(x)], &[Some(result)]) = (&graph.node(id).inputs[..], &graph.node(id).outputs[..]) else { return false };
    let attends = |id: NodeId| matches!(graph.node(id).op, Op::Attention(_));
    if source(graph, x).is_some_and(|(producer, _)| attends(producer)) {
        return true;
    }
    let readers = readers_behind(graph, result, |op| is_view(op) || matches!(op, Op::Transpose(_)));
    readers.iter().all(|reader| matches!(reader, Use::Operand(node, at) if attends(*node) && *at < 3))
}

/// Who reads a value, past the nodes to `pass`.
fn readers_behind(graph: &Graph, value: ValueId, pass: impl Fn(&Op) -> bool) -> Vec<Use> {
    let mut found = Vec::new();
    let mut values = vec![value];
    while let Some(value) = values.pop() {
        for reader in graph.uses(value) {
            match reader {
                Use::Operand(node, _) if pass(&graph.node(node).op) => {
                    values.extend(graph.node(node).outputs.iter().flatten());
                }
                Use::Operand(..) | Use::Output(_) => found.push(reader),
            }
        }
    }
    found
}

fn is_view(op: &Op) -> bool {
    matches!(op, Op::Reshape(_) | Op::BitCast(_))
}

/// A softmax's products, in front of it and behind it, with nothing but views, transposes and programs in between.
struct Chain {
    first: NodeId,
    second: NodeId,
}

impl Chain {
    /// The chain of the softmax at `id`.
    fn around(graph: &Graph, id: NodeId) -> Option<Chain> {
        let Op::Softmax(_) = graph.node(id).op else { return None };
        let before = |id: NodeId| -> Vec<NodeId> {
            graph.node(id).inputs.iter().flatten().filter_map(|value| graph.producer(*value)).collect()
        };
        let behind = |id: NodeId| -> Vec<NodeId> {
            let uses = graph.node(id).outputs.iter().flatten().flat_map(|value| graph.uses(*value));
            uses.filter_map(|reader| if let Use::Operand(node, _) = reader { Some(node) } else { None }).collect()
        };
        Some(Chain { first: nearest_product(graph, id, before)?, second: nearest_product(graph, id, behind)? })
    }
}

/// The first product on the ways from `id` that lead through nothing but views, transposes and programs.
fn nearest_product(graph: &Graph, id: NodeId, next: impl Fn(NodeId) -> Vec<NodeId>) -> Option<NodeId> {
    let mut ways = next(id);
    let mut seen = BTreeSet::new();
    while let Some(id) = ways.pop() {
        match graph.node(id).op {
            Op::MatMul(..) => return Some(id),
            Op::Pointwise(_) | Op::Reshape(_) | Op::BitCast(_) | Op::Transpose(_) if seen.insert(id) => {
                ways.extend(next(id));
            }
            _ => {}
        }
    }
    None
}

/// The node whose result `value` is, past views, and whether there are any.
fn source(graph: &Graph, value: ValueId) -> Option<(NodeId, bool)> {
    let mut producer = graph.producer(value)?;
    let mut viewed = false;
    while is_view(&graph.node(producer).op) {
        producer = graph.producer(graph.node(producer).inputs.first().copied().flatten()?)?;
        viewed = true;
    }
    Some((producer, viewed))
}

/// Whether a node moves or computes elements of its own: views do not, nor do regions, whose nodes do.
fn is_kernel(op: &Op) -> bool {
    !is_view(op) && !matches!(op, Op::Extents { .. } | Op::RunCount | Op::If { .. } | Op::Loop { .. })
}
