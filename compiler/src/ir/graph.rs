//! The graph: nodes, values, and who uses what. The only file that knows petgraph.
//!
//! Every value has one definition and a type; every node's results are its own. Nodes are kept in a DAG whose edges
//! follow the values, so order and cycles are petgraph's business. Nothing here knows what an operation means.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use lapidary_runtime::DType;
use lapidary_runtime::table::ConstraintKind;
use petgraph::Direction;
use petgraph::stable_graph::{NodeIndex, StableDiGraph};
use petgraph::visit::EdgeRef;

use super::ops::symbols_of;
use super::{Expr, Op, Range, Type};

/// A node of a [`Graph`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(NodeIndex);

/// A value of a [`Graph`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(u32);

impl NodeId {
    /// A number that is unique in the graph and stable while the node lives.
    pub fn index(self) -> usize {
        self.0.index()
    }
}

impl ValueId {
    /// A number that is unique in the graph.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node{}", self.0.index())
    }
}

impl fmt::Debug for ValueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "%{}", self.0)
    }
}

impl fmt::Display for ValueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "%{}", self.0)
    }
}

/// A model or a region of one.
#[derive(Clone, Default)]
pub struct Graph {
    /// The model's name.
    pub name: String,
    dag: StableDiGraph<Node, ()>,
    values: Vec<Value>,
    inputs: Vec<ValueId>,
    outputs: Vec<(String, ValueId)>,
    /// The symbols of the extents. A region has none: it reads those of the graph around it.
    pub symbols: BTreeMap<Arc<str>, Symbol>,
    /// What must hold of the symbols beyond their ranges.
    pub constraints: Vec<Constraint>,
}

/// An operation with its operands and results.
#[derive(Clone, Debug)]
pub struct Node {
    pub op: Op,
    /// `None` where an optional operand is absent.
    pub inputs: Vec<Option<ValueId>>,
    /// `None` where an optional result is not wanted.
    pub outputs: Vec<Option<ValueId>>,
    pub origin: Origin,
}

/// The ONNX nodes that a node came from, in order, as `name (OpType)` or `OpType#k` where the model has no name.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin(pub Vec<Arc<str>>);

impl Origin {
    /// The origin of a node that `self` and `other` merged into.
    pub fn merge(&self, other: &Origin) -> Origin {
        let mut names = self.0.clone();
        names.extend(other.0.iter().filter(|name| !self.0.contains(name)).cloned());
        Origin(names)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (k, name) in self.0.iter().enumerate() {
            write!(f, "{}{name}", if k == 0 { "" } else { " + " })?;
        }
        Ok(())
    }
}

/// A tensor value.
#[derive(Clone, Debug)]
pub struct Value {
    /// The ONNX name, or one made from its node's; unique names are not promised.
    pub name: Arc<str>,
    pub ty: Type,
    /// What is known of its elements while compiling.
    pub known: Option<Known>,
    /// Of a float tensor: its elements, where they are known to be these whole numbers. Exporters count in floats; the
    /// importer follows them until they are integers again, and nothing else reads it.
    pub integral: Option<Known>,
    pub def: Def,
}

/// Where a value comes from.
#[derive(Clone, Debug)]
pub enum Def {
    /// Input `k` of the graph.
    Input(usize),
    Constant(Constant),
    /// Result `k` of a node.
    Node(NodeId, usize),
}

/// A constant: its canonical bytes, little-endian and packed, shared with the model file where they lie there.
#[derive(Clone)]
pub struct Constant {
    pub bytes: Bytes,
    /// The initializer it is, where the model names it as a weight; `None` for constants the compiler made.
    pub initializer: Option<Arc<str>>,
}

impl fmt::Debug for Constant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Constant({} bytes, {:?})", self.bytes.len(), self.initializer)
    }
}

/// The elements of a small integer tensor of rank 0 or 1, as formulas over the symbols; `bool` elements are 0 and 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known(pub Vec<Expr>);

/// A symbol and the values it takes.
#[derive(Clone, Debug, PartialEq)]
pub struct Symbol {
    pub source: SymbolSource,
    /// One range a profile; for a count, from 0 to its bound.
    pub ranges: Vec<Range>,
}

/// Where a symbol's value comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum SymbolSource {
    /// An extent of an input.
    Input { input: usize, axis: usize },
    /// A count that a kernel writes.
    Count(Count),
    /// A symbol of the graph around, while a region is looked at by itself.
    Outer,
}

impl Symbol {
    /// Whether its value is an extent of an input, which the caller gives.
    pub fn is_of_input(&self) -> bool {
        matches!(self.source, SymbolSource::Input { .. })
    }
}

/// An extent that only the device knows: the number of elements that a data-dependent operation produced.
/// Memory and grids use the bound; the actual count is the one element of `at`.
#[derive(Clone, Debug, PartialEq)]
pub struct Count {
    /// The `i64` scalar that holds the count.
    pub at: ValueId,
    /// The largest value it can take.
    pub bound: Expr,
}

/// An equation between extents that the model relies on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Constraint {
    pub kind: ConstraintKind,
    pub left: Expr,
    pub right: Expr,
    pub why: Arc<str>,
}

impl Constraint {
    /// Whether it is satisfied by the given symbols.
    pub fn holds(&self, symbol: &dyn Fn(&str) -> i64) -> bool {
        let (left, right) = (self.left.eval(symbol), self.right.eval(symbol));
        match self.kind {
            ConstraintKind::Equal => left == right,
            ConstraintKind::Broadcast => left == right || left == 1 || right == 1,
        }
    }
}

/// A use of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Use {
    /// Operand `1` of a node.
    Operand(NodeId, usize),
    /// Output `k` of the graph.
    Output(usize),
}

impl Graph {
    /// An empty graph.
    pub fn new(name: &str) -> Graph {
        Graph { name: name.to_owned(), ..Graph::default() }
    }

    /// Adds an input.
    pub fn add_input(&mut self, name: &str, ty: Type) -> ValueId {
        let def = Def::Input(self.inputs.len());
        let id = self.add_value(Value { name: name.into(), ty, known: None, integral: None, def });
        self.inputs.push(id);
        id
    }

    /// Adds a constant of `ty`; `bytes` are its packed little-endian elements.
    pub fn add_constant(&mut self, name: &str, ty: Type, constant: Constant) -> ValueId {
        let known = known_of_bytes(&ty, &constant.bytes);
        let integral = integral_of_bytes(&ty, &constant.bytes);
        self.add_value(Value { name: name.into(), ty, known, integral, def: Def::Constant(constant) })
    }

    /// Adds a node and the values of its results, whose types the caller has inferred. A `None` type is a result
    /// that is not wanted.
    pub fn add_node(
        &mut self,
        op: Op,
        inputs: Vec<Option<ValueId>>,
        results: Vec<Option<(Arc<str>, Type)>>,
        origin: Origin,
    ) -> NodeId {
        let node = Node { op, inputs, outputs: Vec::new(), origin };
        let id = NodeId(self.dag.add_node(node));
        let add = |(k, result): (usize, Option<(Arc<str>, Type)>)| {
            result.map(|(name, ty)| {
                self.add_value(Value { name, ty, known: None, integral: None, def: Def::Node(id, k) })
            })
        };
        let outputs = results.into_iter().enumerate().map(add).collect();
        self.dag[id.0].outputs = outputs;
        self.connect(id);
        id
    }

    fn add_value(&mut self, value: Value) -> ValueId {
        self.values.push(value);
        ValueId(self.values.len() as u32 - 1)
    }

    fn connect(&mut self, id: NodeId) {
        let producers: Vec<NodeId> =
            self.dag[id.0].inputs.iter().flatten().filter_map(|&value| self.producer(value)).collect();
        for producer in producers.into_iter().chain(self.counted_by(id)) {
            self.dag.update_edge(producer.0, id.0, ());
        }
    }

    /// The nodes that count what a node's operation takes for known.
    fn counted_by(&self, id: NodeId) -> Vec<NodeId> {
        if self.symbols.values().all(|symbol| !matches!(symbol.source, SymbolSource::Count(_))) {
            return Vec::new();
        }
        let sources =
            symbols_of(&self.dag[id.0].op).into_iter().filter_map(|name| match &self.symbols.get(&name)?.source {
                SymbolSource::Count(count) => self.producer(count.at),
                SymbolSource::Input { .. } | SymbolSource::Outer => None,
            });
        sources.filter(|&producer| producer != id).collect()
    }

    /// Declares a symbol for the number of elements that `at`, an `i64` scalar, says; it is at most `bound`.
    pub fn add_count(&mut self, at: ValueId, bound: Expr) -> Expr {
        let numbers = 1..;
        let mut names = numbers.map(|k| format!("count{k}"));
        let Some(name) = names.find(|name| !self.symbols.contains_key(name.as_str())) else {
            crate::bug!("every name is taken")
        };
        let profiles = 0..self.profile_count();
        let ranges = profiles.map(|profile| {
            let (_, max) = bound.range(&|name| {
                self.symbols.get(name).map_or((0, i64::MAX), |symbol| {
                    symbol
                        .ranges
                        .get(profile)
                        .or(symbol.ranges.last())
                        .map_or((0, i64::MAX), |range| (range.min, range.max))
                })
            });
            // A bound below 0 breaks a constraint, which is told elsewhere.
            let max = max.max(0);
            Range { min: 0, opt: max, max }
        });
        let ranges = ranges.collect();
        let source = SymbolSource::Count(Count { at, bound });
        self.symbols.insert(name.as_str().into(), Symbol { source, ranges });
        Expr::symbol(&name)
    }

    /// Whether a symbol has its value from `value`.
    pub fn is_count(&self, value: ValueId) -> bool {
        self.symbols.values().any(|symbol| matches!(&symbol.source, SymbolSource::Count(count) if count.at == value))
    }

    /// Declares a symbol of a graph that has nodes already.
    pub fn declare(&mut self, name: Arc<str>, symbol: Symbol) {
        self.symbols.insert(name, symbol);
        self.reconnect_all();
    }

    /// Takes over what `from`, a value of another graph, counts there: here it is `to`.
    pub fn take_counts(&mut self, other: &Graph, from: ValueId, to: ValueId) {
        for (name, symbol) in &other.symbols {
            if let SymbolSource::Count(count) = &symbol.source
                && count.at == from
            {
                let source = SymbolSource::Count(Count { at: to, bound: count.bound.clone() });
                self.symbols.insert(name.clone(), Symbol { source, ranges: symbol.ranges.clone() });
            }
        }
    }

    /// The symbols as a region of this graph sees them.
    pub fn symbols_inside(&self) -> BTreeMap<Arc<str>, Symbol> {
        let inside = |symbol: &Symbol| match symbol.source {
            SymbolSource::Count(_) => Symbol { source: SymbolSource::Outer, ranges: symbol.ranges.clone() },
            SymbolSource::Input { .. } | SymbolSource::Outer => symbol.clone(),
        };
        self.symbols.iter().map(|(name, symbol)| (name.clone(), inside(symbol))).collect()
    }

    /// Puts the inputs into another order; `order` holds each input once.
    pub(crate) fn reorder_inputs(&mut self, order: &[ValueId]) {
        self.inputs = order.to_vec();
        for (k, value) in order.iter().enumerate() {
            self.values[value.index()].def = Def::Input(k);
        }
    }

    /// Appends an output.
    pub fn add_output(&mut self, name: &str, value: ValueId) {
        self.outputs.push((name.to_owned(), value));
    }

    /// Makes output `k` another value.
    pub(crate) fn set_output(&mut self, k: usize, value: ValueId) {
        self.outputs[k].1 = value;
    }

    /// The inputs, in order.
    pub fn inputs(&self) -> &[ValueId] {
        &self.inputs
    }

    /// The outputs and their names, in order.
    pub fn outputs(&self) -> &[(String, ValueId)] {
        &self.outputs
    }

    /// A node.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.dag[id.0]
    }

    /// Whether the node is still in the graph.
    pub fn contains(&self, id: NodeId) -> bool {
        self.dag.contains_node(id.0)
    }

    /// A value.
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.index()]
    }

    /// A value's type.
    pub fn ty(&self, id: ValueId) -> &Type {
        &self.values[id.index()].ty
    }

    /// The types of a node's operands.
    pub fn input_types(&self, id: NodeId) -> Vec<Option<Type>> {
        self.node(id).inputs.iter().map(|value| value.map(|value| self.ty(value).clone())).collect()
    }

    /// All values, those that nothing uses too.
    pub fn value_ids(&self) -> impl Iterator<Item = ValueId> + use<> {
        (0..self.values.len() as u32).map(ValueId)
    }

    /// Records what is known of a value's elements.
    pub fn set_known(&mut self, id: ValueId, known: Known) {
        self.values[id.index()].known = Some(known);
    }

    /// Records which whole numbers a float value's elements are.
    pub fn set_integral(&mut self, id: ValueId, known: Known) {
        self.values[id.index()].integral = Some(known);
    }

    /// Forgets what is known of values by formulas that read `symbol`, in the regions too.
    pub(crate) fn forget(&mut self, symbol: &str) {
        let reads = |known: &Known| known.0.iter().any(|expr| expr.symbols().iter().any(|read| &**read == symbol));
        for value in &mut self.values {
            value.known.take_if(|known| reads(known));
            value.integral.take_if(|known| reads(known));
        }
        for id in self.order() {
            if self.node(id).op.regions().is_empty() {
                continue;
            }
            let op = self.node(id).op.map_regions(|region| {
                let mut region = region.clone();
                region.forget(symbol);
                region
            });
            self.set_op(id, op);
        }
    }

    /// Renames a value.
    pub fn set_name(&mut self, id: ValueId, name: &str) {
        self.values[id.index()].name = name.into();
    }

    /// The node that computes a value; `None` for inputs and constants.
    pub fn producer(&self, id: ValueId) -> Option<NodeId> {
        match self.values[id.index()].def {
            Def::Node(node, _) => Some(node),
            Def::Input(_) | Def::Constant(_) => None,
        }
    }

    /// The constant that a value is.
    pub fn constant(&self, id: ValueId) -> Option<&Constant> {
        match &self.values[id.index()].def {
            Def::Constant(constant) => Some(constant),
            Def::Input(_) | Def::Node(..) => None,
        }
    }

    /// Every use of a value, operands first, in order.
    pub fn uses(&self, id: ValueId) -> Vec<Use> {
        let mut uses: Vec<Use> = match self.values[id.index()].def {
            Def::Node(producer, _) => {
                let consumers = self.dag.neighbors_directed(producer.0, Direction::Outgoing).map(NodeId);
                consumers.flat_map(|node| self.operand_uses(node, id)).collect()
            }
            Def::Input(_) | Def::Constant(_) => {
                self.dag.node_indices().flat_map(|node| self.operand_uses(NodeId(node), id)).collect()
            }
        };
        uses.sort();
        let outputs = self.outputs.iter().enumerate().filter(|(_, (_, value))| *value == id);
        uses.extend(outputs.map(|(k, _)| Use::Output(k)));
        uses
    }

    fn operand_uses(&self, node: NodeId, id: ValueId) -> Vec<Use> {
        let operands = self.dag[node.0].inputs.iter().enumerate();
        operands.filter(|(_, value)| **value == Some(id)).map(|(k, _)| Use::Operand(node, k)).collect()
    }

    /// The nodes in an order in which each comes behind the producers of its operands. Deterministic: of the nodes
    /// that are ready, the one that was added first.
    pub fn order(&self) -> Vec<NodeId> {
        let mut missing: BTreeMap<NodeIndex, usize> = self
            .dag
            .node_indices()
            .map(|node| (node, self.dag.edges_directed(node, Direction::Incoming).count()))
            .collect();
        let mut ready: std::collections::BTreeSet<NodeIndex> =
            missing.iter().filter(|(_, count)| **count == 0).map(|(node, _)| *node).collect();
        let mut order = Vec::with_capacity(missing.len());
        while let Some(node) = ready.pop_first() {
            order.push(NodeId(node));
            for edge in self.dag.edges_directed(node, Direction::Outgoing) {
                if let Some(count) = missing.get_mut(&edge.target()) {
                    *count -= 1;
                    if *count == 0 {
                        ready.insert(edge.target());
                    }
                }
            }
        }
        order
    }

    /// The number of nodes.
    pub fn node_count(&self) -> usize {
        self.dag.node_count()
    }

    /// Whether the edges form a cycle, which only a wrong rewrite can make.
    pub fn is_cyclic(&self) -> bool {
        petgraph::algo::is_cyclic_directed(&self.dag)
    }

    /// Makes every use of `from` a use of `to`. The driver of patches calls it, and has compared the types.
    pub(super) fn replace_uses(&mut self, from: ValueId, to: ValueId) {
        for use_ in self.uses(from) {
            match use_ {
                Use::Operand(node, k) => {
                    self.dag[node.0].inputs[k] = Some(to);
                    self.reconnect(node);
                }
                Use::Output(k) => self.outputs[k].1 = to,
            }
        }
        let mut moved = false;
        for symbol in self.symbols.values_mut() {
            if let SymbolSource::Count(count) = &mut symbol.source
                && count.at == from
            {
                count.at = to;
                moved = true;
            }
        }
        if moved {
            self.reconnect_all();
        }
    }

    fn reconnect_all(&mut self) {
        let nodes: Vec<NodeId> = self.dag.node_indices().map(NodeId).collect();
        nodes.into_iter().for_each(|node| self.reconnect(node));
    }

    fn reconnect(&mut self, node: NodeId) {
        let stale: Vec<_> = self.dag.edges_directed(node.0, Direction::Incoming).map(|edge| edge.id()).collect();
        for edge in stale {
            self.dag.remove_edge(edge);
        }
        self.connect(node);
    }

    /// Replaces a node's operation (its regions too), keeping its operands and results.
    pub(crate) fn set_op(&mut self, id: NodeId, op: Op) {
        self.dag[id.0].op = op;
        self.reconnect(id);
    }

    /// Removes the nodes whose results nothing uses, and says how many.
    pub fn remove_dead(&mut self) -> usize {
        let mut live = vec![false; self.values.len()];
        for (_, value) in &self.outputs {
            live[value.index()] = true;
        }
        // The counts that symbols name are read by kernels, not by operands.
        for symbol in self.symbols.values() {
            if let SymbolSource::Count(count) = &symbol.source {
                live[count.at.index()] = true;
            }
        }
        let mut removed = 0;
        for node in self.order().into_iter().rev() {
            let used = self.node(node).outputs.iter().flatten().any(|value| live[value.index()]);
            if used {
                for value in self.node(node).inputs.iter().flatten() {
                    live[value.index()] = true;
                }
            } else {
                self.dag.remove_node(node.0);
                removed += 1;
            }
        }
        removed
    }

    /// The bounds of a symbol over all profiles; an unknown symbol may be anything.
    pub fn symbol_range(&self, name: &str) -> (i64, i64) {
        let Some(symbol) = self.symbols.get(name) else { return (0, i64::MAX) };
        let low = symbol.ranges.iter().map(|range| range.min).min().unwrap_or(0);
        let high = symbol.ranges.iter().map(|range| range.max).max().unwrap_or(i64::MAX);
        (low, high)
    }

    /// The bounds of a formula over all profiles.
    pub fn range(&self, expr: &Expr) -> (i64, i64) {
        expr.range(&|name| self.symbol_range(name))
    }

    /// The number of optimization profiles.
    pub fn profile_count(&self) -> usize {
        self.symbols.values().map(|symbol| symbol.ranges.len()).max().unwrap_or(1)
    }
}

/// How many elements a tensor may have for its value to be tracked while compiling.
const MAX_KNOWN: usize = 256;

fn known_of_bytes(ty: &Type, bytes: &[u8]) -> Option<Known> {
    let count = usize::try_from(ty.count().as_const()?).ok()?;
    if ty.dims.len() > 1 || count > MAX_KNOWN {
        return None;
    }
    let values: Vec<Expr> = match ty.dtype {
        DType::I64 => bytes
            .chunks_exact(8)
            .map(|b| i64::from_le_bytes(b.try_into().unwrap_or_default()))
            .map(Expr::from)
            .collect(),
        DType::I32 => bytes
            .chunks_exact(4)
            .map(|b| Expr::from(i64::from(i32::from_le_bytes(b.try_into().unwrap_or_default()))))
            .collect(),
        DType::Bool => bytes.iter().map(|&b| Expr::from(i64::from(b != 0))).collect(),
        _ => return None,
    };
    (values.len() == count).then_some(Known(values))
}

/// The whole numbers that a small `f32` constant holds, if it holds nothing else.
fn integral_of_bytes(ty: &Type, bytes: &[u8]) -> Option<Known> {
    let count = usize::try_from(ty.count().as_const()?).ok()?;
    if ty.dtype != DType::F32 || ty.dims.len() > 1 || count > MAX_KNOWN {
        return None;
    }
    let whole = |b: &[u8]| {
        let x = f32::from_le_bytes(b.try_into().unwrap_or_default());
        // Beyond 2^24 whole numbers are not told apart.
        (x.fract() == 0.0 && x.abs() <= 16_777_216.0).then(|| Expr::constant(x as i64))
    };
    bytes.chunks_exact(4).map(whole).collect::<Option<Vec<Expr>>>().map(Known)
}
