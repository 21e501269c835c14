//! Common subexpressions.
//!
//! Does: of nodes with the same operation and operands keep the first. Needs: operations without side effects, which
//! all are. Keeps: types. Not here: operations with regions, which are compared by nobody.
//!
//! `f(a, b), f(a, b) -> f(a, b)`; constants with the same bytes count as one.

use std::collections::BTreeMap;

use crate::ir::{Graph, Patch, ValueId, apply};

/// Merges equal nodes and says how many went away.
pub fn run(graph: &mut Graph) -> usize {
    let mut seen: BTreeMap<String, Vec<Option<ValueId>>> = BTreeMap::new();
    let mut merged = 0;
    let canonical = equal_constants(graph);
    for id in graph.order() {
        let node = graph.node(id);
        if !node.op.regions().is_empty() {
            continue;
        }
        let operands: Vec<Option<ValueId>> =
            node.inputs.iter().map(|value| value.map(|value| *canonical.get(&value).unwrap_or(&value))).collect();
        let key = format!("{:?} {operands:?}", node.op);
        let outputs = node.outputs.clone();
        let Some(first) = seen.get(&key) else {
            seen.insert(key, outputs);
            continue;
        };
        let pairs: Vec<(ValueId, ValueId)> =
            outputs.iter().zip(first).filter_map(|(from, to)| Some(((*from)?, (*to)?))).collect();
        if pairs.len() != outputs.iter().flatten().count() {
            continue;
        }
        let patch = pairs.into_iter().fold(Patch::new(&[id]), |patch, (from, to)| patch.replace(from, to));
        match apply(graph, patch) {
            Ok(()) => merged += 1,
            Err(reason) => crate::bug!("equal nodes of different types: {reason}"),
        }
    }
    graph.remove_dead();
    merged
}

/// Constants that another constant equals, and that other.
fn equal_constants(graph: &Graph) -> BTreeMap<ValueId, ValueId> {
    let mut by_content: BTreeMap<(String, &[u8]), ValueId> = BTreeMap::new();
    let mut equal = BTreeMap::new();
    for value in graph.value_ids() {
        let Some(constant) = graph.constant(value) else { continue };
        let ty = graph.ty(value);
        let first = *by_content.entry((format!("{}{:?}", ty.dtype, ty.dims), &constant.bytes)).or_insert(value);
        if first != value {
            equal.insert(value, first);
        }
    }
    equal
}
