//! Orders of axes: which nodes compute in the order that a transpose takes from, and which in the one that it gives.
//!
//! Does: of the nodes around a transpose that compute the same with their axes in another order, chooses those that do, such
//! that the transposes that are left move least; `t(conv) -> scale -> t'(conv)` has none left then. Needs: transposes that
//! meet are one (`transpose-chain`), norms and softmaxes are nodes. Keeps: types, and every element's arithmetic. Breaks:
//! single transposes in places of their own. Not here: products, windows and reshapes, which have one order of axes (a
//! transpose of axes of extent 1 is a reshape, and moves nothing); prices, which depend on the target.
//!
//! The measure of a graph is what its transposes move: their elements (at the typical shape), [`STEP`] for each of them, and a
//! little for one between a product or a program and a program, which keeps them from fusing; what follows from constants is
//! moved at load, and counts nothing. A choice for the nodes around a transpose is a cut through them, and the least is the
//! minimum cut. The rule fires where that is less than what is there. The measure is a natural number, so the rule ends.

mod change;
mod cut;
mod follow;
mod order;
mod region;

use std::collections::{BTreeMap, BTreeSet};

use crate::ir::{Graph, NodeId, Op, Patch};
use crate::passes::matching;
use crate::passes::why::Why;
use cut::Network;
use order::{Order, Orders};
use region::{Reader, Region, Tensor};

/// What a transpose costs however little it moves, in elements.
const STEP: u64 = 1 << 14;

/// An element that is moved. What is below one only decides between choices that move the same.
const ELEMENT: u64 = 1 << 16;

/// A transpose that keeps a program from what computes its operand.
const APART: u64 = 64;

/// A node that computes in another order than it is written in.
const CHANGED: u64 = 1;

/// `f(t(x), t(y)) -> t(f(x, y))` and back, wherever that moves less around the transpose at `id`
pub fn rewrite(graph: &Graph, id: NodeId) -> Option<Patch> {
    let at_load = at_load(graph, id)?;
    let region = region(graph, id, &at_load)?;
    // All transposes of a region have the same one around them.
    if region.moves.first() != Some(&id) {
        return None;
    }
    let changed = choose(&region);
    (region.cost(&changed) < region.cost(&BTreeSet::new())).then(|| change::patch(graph, id, &region, &changed))
}

/// What [`rewrite`] finds around a transpose that it leaves.
pub struct Around {
    nodes: BTreeSet<NodeId>,
    moves_less: bool,
}

impl Around {
    /// The surroundings of the transpose at `id`; `None` where there are none in either order. `at_load` follows from constants.
    pub fn of(graph: &Graph, id: NodeId, at_load: &BTreeSet<NodeId>) -> Option<Around> {
        let region = region(graph, id, at_load)?;
        let moves_less = region.cost(&choose(&region)) < region.cost(&BTreeSet::new());
        Some(Around { nodes: region.nodes.into_keys().collect(), moves_less })
    }

    /// Why the transpose stands in front of `reader`; `None` where that computes in one order only.
    pub fn why_not(&self, reader: NodeId) -> Option<Why> {
        let why = match self.moves_less {
            true => Why::WouldFuse("layout"),
            false => Why::NoLessMoved { nodes: self.nodes.len() },
        };
        self.nodes.contains(&reader).then_some(why)
    }
}

/// What follows from constants, where the node at `id` is a transpose.
fn at_load(graph: &Graph, id: NodeId) -> Option<BTreeSet<NodeId>> {
    matches!(graph.node(id).op, Op::Transpose(_)).then(|| matching::at_load(graph))
}

/// What is around the transpose at `id`.
fn region<'a>(graph: &Graph, id: NodeId, at_load: &'a BTreeSet<NodeId>) -> Option<Region<'a>> {
    match (&graph.node(id).op, &graph.node(id).inputs[..]) {
        (Op::Transpose(spec), &[Some(x)]) => Region::around(graph, x, Orders::of(*spec), at_load),
        _ => None,
    }
}

/// The nodes that compute in the other order than they are written in, where the least is moved.
fn choose(region: &Region<'_>) -> BTreeSet<NodeId> {
    let mut network = Network::new();
    let places: BTreeMap<NodeId, usize> = region.nodes.keys().map(|id| (*id, network.place())).collect();
    let at = |node: Option<NodeId>, order: Order| match (node, order) {
        (Some(id), _) => places[&id],
        (None, Order::Front) => Network::SOURCE,
        (None, Order::Behind) => Network::SINK,
    };
    for (id, order) in &region.nodes {
        match order {
            Order::Front => network.edge(Network::SOURCE, places[id], CHANGED),
            Order::Behind => network.edge(places[id], Network::SINK, CHANGED),
        }
    }
    for tensor in &region.tensors {
        let home = at(tensor.producer, tensor.order());
        let of = |reader: &Reader| at(reader.node, reader.order);
        network.disagree(home, tensor.readers.iter().map(of), tensor.moved);
        network.disagree(home, tensor.fusing().map(of), APART);
    }
    let front = network.cut();
    let nodes = region.nodes.iter().filter(|(id, order)| front[places[id]] != (**order == Order::Front));
    nodes.map(|(id, _)| *id).collect()
}

impl Region<'_> {
    /// The measure of what is around, where the nodes `changed` compute in the other order than they are written in.
    fn cost(&self, changed: &BTreeSet<NodeId>) -> u64 {
        let cost = |tensor: &Tensor| {
            let home = self.home(tensor, changed);
            let away = |reader: &Reader| reader.at(changed) != home;
            let moved = if tensor.readers.iter().any(away) { tensor.moved } else { 0 };
            let apart = if tensor.fusing().any(away) { APART } else { 0 };
            moved + apart
        };
        self.tensors.iter().map(cost).sum::<u64>() + CHANGED * changed.len() as u64
    }
}
