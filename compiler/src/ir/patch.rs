//! Patches: what a rewriting rule proposes, and the one driver that carries it out.
//!
//! A rule reads the graph and returns a [`Patch`]: new nodes, and which existing values they replace. [`apply`] infers
//! the new types, refuses a patch that would change one, keeps names and provenance, and only then mutates. Nodes that
//! lose their last use stay until [`Graph::remove_dead`].

use std::sync::Arc;

use lapidary_runtime::table::ConstraintKind;

use super::ops::{Inference, infer};
use super::{Constant, Constraint, Expr, Graph, NodeId, Op, Origin, Type, ValueId};

/// A proposed rewrite.
#[derive(Clone, Debug, Default)]
pub struct Patch {
    nodes: Vec<NewNode>,
    constants: Vec<(Type, Constant)>,
    replace: Vec<(ValueId, Ref)>,
    from: Vec<NodeId>,
}

#[derive(Clone, Debug)]
struct NewNode {
    op: Op,
    inputs: Vec<Option<Ref>>,
    /// The node whose name and provenance it has, where these are not the patch's.
    like: Option<NodeId>,
}

/// A value that a patch reads: one of the graph, or one of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ref {
    Value(ValueId),
    /// Result `1` of new node `0`.
    New(usize, usize),
    Constant(usize),
}

impl From<ValueId> for Ref {
    fn from(value: ValueId) -> Ref {
        Ref::Value(value)
    }
}

impl Patch {
    /// A patch that rewrites the nodes `from`, whose provenance the new nodes inherit.
    pub fn new(from: &[NodeId]) -> Patch {
        Patch { from: from.to_vec(), ..Patch::default() }
    }

    /// Adds a node; the answer is its first result. Of the others it has those that the patch reads.
    pub fn node(&mut self, op: Op, inputs: impl IntoIterator<Item = Ref>) -> Ref {
        self.node_with_gaps(op, inputs.into_iter().map(Some).collect())
    }

    /// Adds a node some of whose operands are absent; the answer is its first result.
    pub fn node_with_gaps(&mut self, op: Op, inputs: Vec<Option<Ref>>) -> Ref {
        self.nodes.push(NewNode { op, inputs, like: None });
        Ref::New(self.nodes.len() - 1, 0)
    }

    /// Adds a node that computes what the one at `like` does, in another way, and has its name and provenance.
    pub fn node_like(&mut self, like: NodeId, op: Op, inputs: impl IntoIterator<Item = Ref>) -> Ref {
        self.nodes.push(NewNode { op, inputs: inputs.into_iter().map(Some).collect(), like: Some(like) });
        Ref::New(self.nodes.len() - 1, 0)
    }

    /// Adds a constant.
    pub fn constant(&mut self, ty: Type, constant: Constant) -> Ref {
        self.constants.push((ty, constant));
        Ref::Constant(self.constants.len() - 1)
    }

    /// The ONNX nodes of what it rewrites.
    pub fn origin(&self, graph: &Graph) -> Origin {
        self.from.iter().fold(Origin::default(), |origin, &node| origin.merge(&graph.node(node).origin))
    }

    /// Makes `with` stand for `value` everywhere.
    pub fn replace(mut self, value: ValueId, with: impl Into<Ref>) -> Patch {
        self.replace.push((value, with.into()));
        self
    }
}

/// Carries out a patch. An error says why the patch is wrong, and leaves the uses of every value as they were.
pub fn apply(graph: &mut Graph, patch: Patch) -> Result<(), String> {
    let origin = patch.origin(graph);
    let name = match patch.replace.first() {
        Some((value, _)) => graph.value(*value).name.clone(),
        None => return Err("the patch replaces nothing".to_owned()),
    };
    let constants: Vec<ValueId> = patch
        .constants
        .into_iter()
        .map(|(ty, constant)| graph.add_constant(&format!("{name}.const"), ty, constant))
        .collect();
    let read: Vec<Ref> = patch
        .nodes
        .iter()
        .flat_map(|node| node.inputs.iter().flatten().copied())
        .chain(patch.replace.iter().map(|(_, with)| *with))
        .collect();
    let mut results: Vec<Vec<Option<ValueId>>> = Vec::new();
    for (at, node) in patch.nodes.into_iter().enumerate() {
        let inputs: Vec<Option<ValueId>> = node
            .inputs
            .iter()
            .map(|input| input.map(|r| resolve(r, &results, &constants)).transpose())
            .collect::<Result<_, _>>()?;
        let types = infer_on(graph, &node.op, &inputs)?;
        let wanted = |k: usize| k == 0 || read.contains(&Ref::New(at, k));
        let (name, origin) = match node.like {
            Some(like) => (name_of(graph, like).unwrap_or(name.clone()), graph.node(like).origin.clone()),
            None => (name.clone(), origin.clone()),
        };
        let named = types.into_iter().enumerate().map(|(k, ty)| wanted(k).then(|| (name.clone(), ty))).collect();
        let id = graph.add_node(node.op, inputs, named, origin);
        results.push(graph.node(id).outputs.clone());
    }
    let mut replacements = Vec::new();
    for (from, to) in patch.replace {
        let to = resolve(to, &results, &constants)?;
        check_same_type(graph, from, to)?;
        replacements.push((from, to));
    }
    for (from, to) in replacements {
        graph.replace_uses(from, to);
        let name = graph.value(from).name.clone();
        if graph.producer(to).is_some() && results.iter().flatten().any(|result| *result == Some(to)) {
            graph.set_name(to, &name);
        }
        if let (Some(known), None) = (graph.value(from).known.clone(), &graph.value(to).known) {
            graph.set_known(to, known);
        }
    }
    if graph.is_cyclic() {
        return Err("the patch makes a cycle".to_owned());
    }
    Ok(())
}

/// The name of a node's first result.
fn name_of(graph: &Graph, id: NodeId) -> Option<Arc<str>> {
    graph.node(id).outputs.iter().flatten().next().map(|value| graph.value(*value).name.clone())
}

fn resolve(r: Ref, results: &[Vec<Option<ValueId>>], constants: &[ValueId]) -> Result<ValueId, String> {
    let found = match r {
        Ref::Value(value) => Some(value),
        Ref::New(node, result) => results.get(node).and_then(|outputs| outputs.get(result).copied().flatten()),
        Ref::Constant(k) => constants.get(k).copied(),
    };
    found.ok_or_else(|| format!("the patch reads {r:?} before it is there"))
}

/// The result types of `op` on values of `graph`; what must hold of the extents is recorded in the graph.
pub(super) fn infer_on(graph: &mut Graph, op: &Op, inputs: &[Option<ValueId>]) -> Result<Vec<Type>, String> {
    let owned: Vec<Option<Type>> = inputs.iter().map(|value| value.map(|value| graph.ty(value).clone())).collect();
    let types: Vec<Option<&Type>> = owned.iter().map(Option::as_ref).collect();
    let range = |expr: &Expr| graph.range(expr);
    let mut inference = Inference { range: &range, constraints: Vec::new() };
    let result = infer(op, &types, &mut inference)?;
    let constraints = inference.constraints;
    for (kind, left, right) in constraints {
        record(graph, kind, left, right, op.name());
    }
    Ok(result)
}

/// Adds a constraint unless it is there already.
pub(super) fn record(graph: &mut Graph, kind: ConstraintKind, left: Expr, right: Expr, why: &str) {
    let known = graph
        .constraints
        .iter()
        .any(|c| c.kind == kind && ((c.left == left && c.right == right) || (c.left == right && c.right == left)));
    if !known {
        graph.constraints.push(Constraint { kind, left, right, why: why.into() });
    }
}

fn check_same_type(graph: &Graph, from: ValueId, to: ValueId) -> Result<(), String> {
    let (old, new) = (graph.ty(from), graph.ty(to));
    let same_dims = old.dims.len() == new.dims.len()
        && old.dims.iter().zip(&new.dims).all(|(a, b)| {
            a == b
                || graph.constraints.iter().any(|c| {
                    c.kind == ConstraintKind::Equal
                        && ((&c.left == a && &c.right == b) || (&c.left == b && &c.right == a))
                })
        });
    if old.dtype == new.dtype && same_dims {
        return Ok(());
    }
    Err(format!(
        "the patch changes the type of {from} from {} {:?} to {} {:?}",
        old.dtype, old.dims, new.dtype, new.dims
    ))
}
