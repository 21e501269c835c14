//! Model-local functions, expanded: a node that calls one becomes the nodes of its body, before anything is imported.
//!
//! Contract: the graph that comes out calls no function of the model. Names of a body get a prefix of their call, so
//! that they meet no others; attributes that refer to the call's get its values or the function's defaults. A function
//! of the model goes before an operator of the same name: it is what the model's author wrote. Recursion, and more
//! nodes or bytes than [`MAX_NODES`] and [`MAX_BYTES`], are refused.
//! Source: onnx.proto, FunctionProto; IR.md, "Functions". A function may import other versions of an operator set than
//! the model, as long as the operators that it uses are the same in both.

use std::collections::BTreeMap;

use prost::Message;

use super::Model;
use super::ops;
use super::proto::{AttributeProto, FunctionProto, GraphProto, NodeProto};
use crate::diag::{Diagnostic, Diagnostics, Place, Result, quoted};

/// How many nodes the bodies of all calls may have together.
const MAX_NODES: usize = 1 << 18;

/// How many bytes the bodies of all calls may take together, as stored.
const MAX_BYTES: usize = 1 << 30;

/// A graph without calls, and what its bodies import beyond the model.
pub(super) struct Expanded {
    pub(super) graph: GraphProto,
    /// Versions of operator sets that only functions import.
    pub(super) opsets: BTreeMap<String, i64>,
}

/// The main graph with all calls of the model's functions expanded; `None` if there are none to expand.
///
/// # Errors
/// E0409: recursion, too many nodes, too many operands or results in a call, a node whose operator means one thing in
/// the function's operator set and another in the model's.
pub(super) fn expand(model: &Model) -> Result<Option<Expanded>> {
    if model.proto.functions.is_empty() {
        return Ok(None);
    }
    let mut expander = Expander {
        model,
        functions: model.proto.functions.iter().map(|function| (function_id(function), function)).collect(),
        opsets: BTreeMap::new(),
        calls: 0,
        nodes: 0,
        bytes: 0,
        active: Vec::new(),
        found: Diagnostics::new(),
    };
    let mut graph = model.graph().clone();
    expander.graph(&mut graph);
    let Expander { opsets, found, .. } = expander;
    found.or(Some(Expanded { graph, opsets }))
}

/// Domain, name and overload, which name a function.
type FunctionId = (String, String, String);

fn function_id(function: &FunctionProto) -> FunctionId {
    (domain(function.domain()), function.name().to_owned(), function.overload().to_owned())
}

fn domain(name: &str) -> String {
    if name == "ai.onnx" { String::new() } else { name.to_owned() }
}

struct Expander<'m> {
    model: &'m Model,
    functions: BTreeMap<FunctionId, &'m FunctionProto>,
    opsets: BTreeMap<String, i64>,
    /// How many calls were expanded.
    calls: usize,
    nodes: usize,
    bytes: usize,
    /// The functions whose bodies are being expanded, the innermost last.
    active: Vec<FunctionId>,
    found: Diagnostics,
}

impl Expander<'_> {
    fn graph(&mut self, graph: &mut GraphProto) {
        graph.node = self.expand_nodes(std::mem::take(&mut graph.node));
    }

    fn expand_nodes(&mut self, nodes: Vec<NodeProto>) -> Vec<NodeProto> {
        let mut expanded = Vec::with_capacity(nodes.len());
        for mut node in nodes {
            let id = (domain(node.domain()), node.op_type().to_owned(), node.overload().to_owned());
            match self.functions.get(&id).copied() {
                None => {
                    for graph in node.attribute.iter_mut().flat_map(graphs_of) {
                        self.graph(graph);
                    }
                    expanded.push(node);
                }
                Some(function) => {
                    match self.call(&node, id, function) {
                        Ok(body) => expanded.extend(body),
                        Err(Stop::Refused(diagnostic)) => self.found.push(*diagnostic),
                        // Said once, of the call in the model's graph that led here.
                        Err(Stop::TooMuch) if self.active.is_empty() => {
                            self.found.push(
                            refused(&node, "the model's functions expand to too much")
                                .why(format!("their bodies have more than {MAX_NODES} nodes or {MAX_BYTES} bytes, call by call"))
                                .help("use a Loop for what repeats, and keep data out of functions"),
                        );
                            return expanded;
                        }
                        Err(Stop::TooMuch) => return expanded,
                    }
                }
            }
        }
        expanded
    }

    /// The nodes that stand for a call, those of calls inside included.
    fn call(
        &mut self,
        node: &NodeProto,
        id: FunctionId,
        function: &FunctionProto,
    ) -> std::result::Result<Vec<NodeProto>, Stop> {
        if self.active.contains(&id) {
            return Err(refused(node, format!("function {} calls itself", quoted(function.name())))
                .why("ONNX allows no recursion, and expanding it would not end")
                .help("unroll the recursion when exporting, or use a Loop")
                .into());
        }
        for (what, given, declared) in [
            ("operands", node.input.len(), function.input.len()),
            ("results", node.output.len(), function.output.len()),
        ] {
            if given > declared {
                return Err(refused(node, format!("the call has {given} {what}, and the function {declared}"))
                    .help("export the model again")
                    .into());
            }
        }
        self.take(node, function);
        if self.is_too_much() {
            return Err(Stop::TooMuch);
        }
        self.check_opsets(node, function)?;
        self.calls += 1;
        let mut scope = Scope::new(node, function, self.calls);
        let mut body: Vec<NodeProto> = function.node.iter().map(|inner| scope.node(inner)).collect();
        body.extend(scope.copies);
        self.active.push(id);
        let body = self.expand_nodes(body);
        self.active.pop();
        if self.is_too_much() { Err(Stop::TooMuch) } else { Ok(body) }
    }

    /// Counts the nodes and bytes of a body.
    fn take(&mut self, node: &NodeProto, function: &FunctionProto) {
        self.nodes = self.nodes.saturating_add(function.node.len());
        self.bytes = self.bytes.saturating_add(function.encoded_len()).saturating_add(node.encoded_len());
    }

    fn is_too_much(&self) -> bool {
        self.nodes > MAX_NODES || self.bytes > MAX_BYTES
    }

    /// Each operator of the body means the same in the model's operator sets as in the function's.
    fn check_opsets(&mut self, node: &NodeProto, function: &FunctionProto) -> std::result::Result<(), Stop> {
        for import in &function.opset_import {
            let name = domain(import.domain());
            let stated = self.model.opset(&name).or_else(|| self.opsets.get(&name).copied());
            let Some(outer) = stated else {
                self.opsets.insert(name, import.version());
                continue;
            };
            let definition = |op: &str, version: i64| ops::find(&name, op, version).map(|def| def.since);
            let changed = function
                .node
                .iter()
                .filter(|inner| domain(inner.domain()) == name)
                .find(|inner| definition(inner.op_type(), outer) != definition(inner.op_type(), import.version()));
            if let Some(inner) = changed {
                let what = format!(
                    "function {} uses {} of operator set {}",
                    quoted(function.name()),
                    quoted(inner.op_type()),
                    import.version()
                );
                return Err(refused(node, what)
                    .why(format!("it is another operator in version {outer}, which the model uses"))
                    .help("export the model with one operator set version, or inline its functions with onnx.inliner")
                    .into());
            }
        }
        Ok(())
    }
}

/// Why a call is not expanded.
enum Stop {
    Refused(Box<Diagnostic>),
    /// The limits are passed.
    TooMuch,
}

impl From<Diagnostic> for Stop {
    fn from(diagnostic: Diagnostic) -> Stop {
        Stop::Refused(Box::new(diagnostic))
    }
}

fn refused(node: &NodeProto, what: impl Into<String>) -> Diagnostic {
    Diagnostic::error("E0409", Place::from(node), what)
}

/// The graphs in an attribute.
fn graphs_of(attribute: &mut AttributeProto) -> impl Iterator<Item = &mut GraphProto> {
    attribute.g.as_deref_mut().into_iter().chain(&mut attribute.graphs)
}

/// What the names and attributes of a body stand for in one call.
struct Scope<'c> {
    call: &'c NodeProto,
    function: &'c FunctionProto,
    prefix: String,
    /// The caller's names of the function's operands and results; empty for an operand that is absent.
    names: BTreeMap<&'c str, &'c str>,
    /// Nodes that give results their names where the body's value has another.
    copies: Vec<NodeProto>,
}

impl<'c> Scope<'c> {
    fn new(call: &'c NodeProto, function: &'c FunctionProto, number: usize) -> Scope<'c> {
        let name = if call.name().is_empty() { call.op_type() } else { call.name() };
        let mut scope = Scope {
            call,
            function,
            prefix: format!("{name}#call{number}/"),
            names: BTreeMap::new(),
            copies: Vec::new(),
        };
        for (k, formal) in function.input.iter().enumerate() {
            scope.names.insert(formal, call.input.get(k).map_or("", String::as_str));
        }
        for (formal, actual) in function.output.iter().zip(&call.output).filter(|(_, actual)| !actual.is_empty()) {
            // A result that is an operand, or another result, has a name already.
            match scope.names.get(formal.as_str()) {
                Some(&value) => scope.copies.push(copy(value, actual)),
                None => {
                    scope.names.insert(formal, actual);
                }
            }
        }
        scope
    }

    fn name(&self, name: &str) -> String {
        match self.names.get(name) {
            Some(actual) => (*actual).to_owned(),
            None if name.is_empty() => String::new(),
            None => format!("{}{name}", self.prefix),
        }
    }

    fn rename(&self, names: &mut [String]) {
        for name in names {
            *name = self.name(name);
        }
    }

    /// A node of the body, or of a graph inside it, as it stands in the caller.
    fn node(&mut self, node: &NodeProto) -> NodeProto {
        let mut node = node.clone();
        self.rename(&mut node.input);
        self.rename(&mut node.output);
        if !node.name().is_empty() {
            node.name = Some(format!("{}{}", self.prefix, node.name()));
        }
        node.attribute = std::mem::take(&mut node.attribute).into_iter().filter_map(|a| self.attribute(a)).collect();
        node
    }

    /// An attribute of the body; `None` if it refers to one that the call leaves out and that has no default.
    fn attribute(&mut self, mut attribute: AttributeProto) -> Option<AttributeProto> {
        let referred = attribute.ref_attr_name().to_owned();
        if !referred.is_empty() {
            let given = self.call.attribute.iter().find(|given| given.name() == referred);
            let given =
                given.or_else(|| self.function.attribute_proto.iter().find(|default| default.name() == referred));
            return match given {
                // Its graphs, if it has any, are the caller's: their names stay.
                Some(given) => Some(AttributeProto { name: attribute.name, ..given.clone() }),
                None if self.function.attribute.contains(&referred) => None,
                // Reported when the node is read.
                None => Some(attribute),
            };
        }
        for graph in graphs_of(&mut attribute) {
            self.graph(graph);
        }
        Some(attribute)
    }

    fn graph(&mut self, graph: &mut GraphProto) {
        graph.node = graph.node.iter().map(|node| self.node(node)).collect();
        for info in graph.input.iter_mut().chain(&mut graph.output) {
            info.name = Some(self.name(info.name()));
        }
        for tensor in &mut graph.initializer {
            tensor.name = Some(self.name(tensor.name()));
        }
        for values in graph.sparse_initializer.iter_mut().filter_map(|sparse| sparse.values.as_mut()) {
            values.name = Some(self.name(values.name()));
        }
    }
}

/// A node that gives a value another name.
fn copy(from: &str, to: &str) -> NodeProto {
    NodeProto {
        input: vec![from.to_owned()],
        output: vec![to.to_owned()],
        op_type: Some("Identity".to_owned()),
        ..NodeProto::default()
    }
}
