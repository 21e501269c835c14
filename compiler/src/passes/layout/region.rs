//! What is around a transpose: the nodes that compute in either of its orders, and the tensors between them.
//!
//! A tensor is one whatever its order: a value, its transposes to the other order and back are one tensor with one producer.
//! Nodes that have one order only stand at the border, and take and give tensors in the order that the graph has there.

use std::collections::{BTreeMap, BTreeSet};

use super::follow::{Part, follow};
use super::order::{Order, Orders, elements, moves_nothing};
use super::{ELEMENT, STEP};
use crate::ir::{Graph, NodeId, Op, Use, ValueId};
use crate::passes::matching::result;

/// The surroundings of a transpose.
pub struct Region<'a> {
    pub orders: Orders,
    /// The nodes that compute in either order, each with the one that it is written in.
    pub nodes: BTreeMap<NodeId, Order>,
    pub tensors: Vec<Tensor>,
    /// The transposes between the two orders.
    pub moves: BTreeSet<NodeId>,
    pub at_load: &'a BTreeSet<NodeId>,
    /// Nodes that rewrites have left behind.
    unread: BTreeSet<NodeId>,
}

/// A tensor in either order.
pub struct Tensor {
    /// The value that its producer gives, and what is transposed from it, each in its order.
    pub values: Vec<(ValueId, Order)>,
    /// The node that computes it, where that is one of the region.
    pub producer: Option<NodeId>,
    pub readers: Vec<Reader>,
    /// What a transpose of it costs.
    pub moved: u64,
    /// Whether a product or a program gives it, which a program could fuse with.
    pub computed: bool,
}

/// What reads a tensor.
pub struct Reader {
    /// The value that it reads, and its order.
    pub value: ValueId,
    pub order: Order,
    /// The reader, where it is one of the region.
    pub node: Option<NodeId>,
    /// Whether it is a program.
    pub program: bool,
}

impl Reader {
    /// The order that it takes, where the nodes `changed` compute in the other order than they are written in.
    pub fn at(&self, changed: &BTreeSet<NodeId>) -> Order {
        if self.node.is_some_and(|node| changed.contains(&node)) { self.order.other() } else { self.order }
    }
}

impl Tensor {
    /// The value that its producer gives.
    pub fn root(&self) -> ValueId {
        self.values[0].0
    }

    /// The order in which the graph has its producer give it.
    pub fn order(&self) -> Order {
        self.values[0].1
    }

    /// The programs that could fuse with what computes it.
    pub fn fusing(&self) -> impl Iterator<Item = &Reader> {
        self.readers.iter().filter(|reader| self.computed && reader.program)
    }
}

impl<'a> Region<'a> {
    /// The region around the transpose from `x`, which is in the order in front of it; `None` where a value is in both orders.
    pub fn around(graph: &Graph, x: ValueId, orders: Orders, at_load: &'a BTreeSet<NodeId>) -> Option<Region<'a>> {
        let mut region = Region {
            orders,
            nodes: BTreeMap::new(),
            tensors: Vec::new(),
            moves: BTreeSet::new(),
            at_load,
            unread: unread(graph),
        };
        let mut seen: BTreeMap<ValueId, Order> = BTreeMap::new();
        let mut left = vec![(x, Order::Front)];
        while let Some((value, order)) = left.pop() {
            let (root, order) = region.root(graph, value, order);
            match seen.insert(root, order) {
                None => region.tensor(graph, root, order, &mut left)?,
                Some(known) if known == order => {}
                Some(_) => return None,
            }
        }
        Some(region)
    }

    /// The order in which a tensor's producer gives it.
    pub fn home(&self, tensor: &Tensor, changed: &BTreeSet<NodeId>) -> Order {
        let changed = tensor.producer.is_some_and(|node| changed.contains(&node));
        if changed { tensor.order().other() } else { tensor.order() }
    }

    /// The value that a tensor is transposed from, through transposes between the orders.
    fn root(&self, graph: &Graph, mut value: ValueId, mut order: Order) -> (ValueId, Order) {
        while let Some(x) = graph.producer(value).and_then(|node| self.moved_by(graph, node, order.other())) {
            (value, order) = (x, order.other());
        }
        (value, order)
    }

    /// The operand of a transpose from `order` to the other.
    fn moved_by(&self, graph: &Graph, id: NodeId, order: Order) -> Option<ValueId> {
        match (&graph.node(id).op, &graph.node(id).inputs[..]) {
            (Op::Transpose(spec), &[Some(x)]) if *spec == self.orders.from(order) => Some(x),
            _ => None,
        }
    }

    /// Adds the tensor of a value, and what is next to it to `left`.
    fn tensor(&mut self, graph: &Graph, root: ValueId, order: Order, left: &mut Vec<(ValueId, Order)>) -> Option<()> {
        let (mut values, mut readers) = (vec![(root, order)], Vec::new());
        let mut at = 0;
        while let Some(&(value, order)) = values.get(at) {
            for use_ in graph.uses(value) {
                let node = match use_ {
                    Use::Operand(node, _) if self.unread.contains(&node) => continue,
                    Use::Operand(node, _) if self.moved_by(graph, node, order).is_some() => {
                        self.moves.insert(node);
                        values.extend(result(graph, node).map(|moved| (moved, order.other())));
                        continue;
                    }
                    Use::Operand(node, _) => Some(node),
                    Use::Output(_) => None,
                };
                let program = node.is_some_and(|node| matches!(graph.node(node).op, Op::Pointwise(_)));
                let node = match node {
                    Some(node) => self.join(graph, node, order, left)?.then_some(node),
                    None => None,
                };
                readers.push(Reader { value, order, node, program });
            }
            at += 1;
        }
        let producer = match graph.producer(root) {
            Some(node) => self.join(graph, node, order, left)?.then_some(node),
            None => None,
        };
        let computed = graph
            .producer(root)
            .is_some_and(|node| matches!(graph.node(node).op, Op::Pointwise(_) | Op::MatMul(..) | Op::Conv(..)));
        let ty = graph.ty(root);
        let moved = match moves_nothing(&self.orders.from(order), &ty.dims) {
            true => 0,
            false => (elements(graph, ty) + STEP) * ELEMENT,
        };
        self.tensors.push(Tensor { values, producer, readers, moved, computed });
        Some(())
    }

    /// Takes a node in, if it computes in either order, and says whether it does; `None` where it is there in the other one.
    fn join(&mut self, graph: &Graph, id: NodeId, order: Order, left: &mut Vec<(ValueId, Order)>) -> Option<bool> {
        if let Some(written) = self.nodes.get(&id) {
            return (*written == order).then_some(true);
        }
        let Some(follower) = follow(graph, id, &self.orders.from(order), self.at_load) else { return Some(false) };
        self.nodes.insert(id, order);
        let tensors = follower.parts.iter().filter_map(|part| match part {
            Part::Tensor(value) => Some(*value),
            Part::Aside(_) | Part::Same(_) => None,
        });
        left.extend(tensors.chain([follower.result]).map(|value| (value, order)));
        Some(true)
    }
}

/// The nodes whose results lead to no output.
fn unread(graph: &Graph) -> BTreeSet<NodeId> {
    let mut found = BTreeSet::new();
    for id in graph.order().into_iter().rev() {
        let mut uses = graph.node(id).outputs.iter().flatten().flat_map(|value| graph.uses(*value));
        if uses.all(|reader| matches!(reader, Use::Operand(node, _) if found.contains(&node))) {
            found.insert(id);
        }
    }
    found
}
