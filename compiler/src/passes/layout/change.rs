//! The patch that has nodes compute in another order of axes.

use std::collections::{BTreeMap, BTreeSet};

use lapidary_runtime::op::Transpose;

use super::follow::{Part, follow, widened};
use super::order::{Order, moves_nothing, permuted};
use super::region::{Region, Tensor};
use crate::ir::{Expr, Graph, NodeId, Op, Patch, Ref, Type, ValueId};

/// Has the nodes `changed` of the region around the transpose `seed` compute in the other order than they are written in.
pub fn patch(graph: &Graph, seed: NodeId, region: &Region<'_>, changed: &BTreeSet<NodeId>) -> Patch {
    let from: Vec<NodeId> = region.moves.iter().copied().collect();
    let tensor_of = region.tensors.iter().enumerate();
    let tensor_of = tensor_of.flat_map(|(k, tensor)| tensor.values.iter().map(move |(value, _)| (*value, k)));
    let mut change = Change {
        graph,
        region,
        changed,
        seed,
        tensor_of: tensor_of.collect(),
        results: BTreeMap::new(),
        moved: BTreeMap::new(),
        patch: Patch::new(&from),
    };
    for id in graph.order().into_iter().filter(|id| changed.contains(id)) {
        change.node(id);
    }
    for tensor in &region.tensors {
        change.readers(tensor);
    }
    change.patch
}

struct Change<'g> {
    graph: &'g Graph,
    region: &'g Region<'g>,
    changed: &'g BTreeSet<NodeId>,
    /// The transpose that the new ones are named after.
    seed: NodeId,
    /// The tensor of the region that a value is.
    tensor_of: BTreeMap<ValueId, usize>,
    /// What the changed nodes give in place of their results.
    results: BTreeMap<ValueId, Ref>,
    /// The new transposes.
    moved: BTreeMap<ValueId, Ref>,
    patch: Patch,
}

impl Change<'_> {
    /// Adds a node in the other order.
    fn node(&mut self, id: NodeId) {
        let written = self.region.nodes[&id];
        let spec = self.region.orders.from(written);
        let Some(follower) = follow(self.graph, id, &spec, self.region.at_load) else {
            crate::bug!("a node of a region does not follow")
        };
        let mut operands = Vec::new();
        for part in follower.parts {
            operands.push(match part {
                Part::Tensor(value) => self.tensor(&self.region.tensors[self.tensor_of[&value]], written.other()),
                Part::Aside(value) => self.aside(id, value, &spec),
                Part::Same(value) => value.into(),
            });
        }
        let changed = self.patch.node_like(id, follower.op, operands);
        self.results.insert(follower.result, changed);
    }

    /// A tensor in an order.
    fn tensor(&mut self, tensor: &Tensor, order: Order) -> Ref {
        let root = tensor.root();
        let home = self.region.home(tensor, self.changed);
        let given = self.results.get(&root).copied().unwrap_or(Ref::Value(root));
        if order == home {
            return given;
        }
        // A transpose that is there already stays.
        let there = tensor.values.iter().find(|(_, of)| *of == order && !self.results.contains_key(&root));
        if let Some((value, _)) = there {
            return (*value).into();
        }
        if let Some(moved) = self.moved.get(&root) {
            return *moved;
        }
        let ty = self.graph.ty(root);
        let dims =
            if home == tensor.order() { ty.dims.clone() } else { permuted(&self.region.orders.from(order), &ty.dims) };
        let moved = self.transposed(self.seed, given, &dims, &self.region.orders.from(home));
        self.moved.insert(root, moved);
        moved
    }

    /// Gives the readers that stay as they are what they read.
    fn readers(&mut self, tensor: &Tensor) {
        let stays = |value: ValueId| {
            let mut readers = tensor.readers.iter().filter(|reader| reader.value == value);
            readers.any(|reader| !reader.node.is_some_and(|node| self.changed.contains(&node)))
        };
        let read: Vec<(ValueId, Order)> = tensor.values.iter().copied().filter(|(value, _)| stays(*value)).collect();
        for (value, order) in read {
            let with = self.tensor(tensor, order);
            if with != Ref::Value(value) {
                self.patch = std::mem::take(&mut self.patch).replace(value, with);
            }
        }
    }

    /// An operand of the node at `reader` that costs nothing to bring into the order that `spec` gives.
    fn aside(&mut self, reader: NodeId, value: ValueId, spec: &Transpose) -> Ref {
        let ty: &Type = self.graph.ty(value);
        let wide = widened(ty, spec);
        if wide == ty.dims || moves_nothing(spec, &wide) {
            return self.transposed(reader, value.into(), &wide, spec);
        }
        let widened = self.patch.node_like(reader, Op::Reshape(wide.clone()), [value.into()]);
        self.transposed(reader, widened, &wide, spec)
    }

    /// A transpose of a tensor of these extents, on behalf of a node; a reshape, where that does it.
    fn transposed(&mut self, like: NodeId, x: Ref, dims: &[Expr], spec: &Transpose) -> Ref {
        let op = match moves_nothing(spec, dims) {
            true => Op::Reshape(permuted(spec, dims)),
            false => Op::Transpose(*spec),
        };
        self.patch.node_like(like, op, [x])
    }
}
