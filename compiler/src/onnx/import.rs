//! A [`Model`] to a typed graph: names become values, nodes become IR operations, everything that is not supported is
//! reported together.
//!
//! Contract: the graph that comes out verifies; its nodes are in order whatever order the file has; initializers are
//! constants even where the file lists them as inputs; what an `If` branch needs of the graph around it is an explicit
//! capture. Declared shapes of anything but the inputs are not read. Recursion is bounded by protobuf's own limit.

mod item;
mod loops;
mod regions;
mod typical;
mod unsupported;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lapidary_runtime::op::MAX_RANK;

pub use self::item::{Item, ItemCx};
pub use self::loops::{Body, Carried, Takes};
use self::unsupported::Unsupported;
use super::attrs::Attrs;
use super::elements::element_name;
use super::inputs::too_many_axes;
use super::ops::{self, Cx, Fault, Import, Imported, Items, OpDef, Turn};
use super::proto::{GraphProto, NodeProto};
use super::{Model, TensorRef};
use super::{formats, functions};
use crate::diag::{Diagnostic, Diagnostics, Place, Result, quoted};
use crate::ir::{Builder, Constant, Expr, Graph, Origin, Range, Symbol, SymbolSource, Type, ValueId, check_bytes};
use crate::profiles::{self, Profiles};

/// Imports the main graph of `model`. `profiles` give the ranges of its symbolic dimensions; a dimension that they pin
/// to one value becomes a constant.
///
/// # Errors
/// All of them together: E04xx, and those of stored tensors and attributes.
pub fn import(model: &Model, profiles: &Profiles) -> Result<Graph> {
    let expanded = functions::expand(model)?;
    let proto = expanded.as_ref().map_or(model.graph(), |expanded| &expanded.graph);
    let mut importer = Importer {
        model,
        opsets: expanded.as_ref().map(|expanded| &expanded.opsets),
        profiles,
        graphs: vec![Frame::new(Graph::new(proto.name()))],
        scopes: vec![Scope::new(BTreeMap::new(), 0)],
        diagnostics: Diagnostics::new(),
        unsupported: Unsupported::default(),
        faults: 0,
        unnamed: 0,
        imported: 0,
        turns: BTreeMap::new(),
        bodies: 0,
    };
    importer.initializers(proto);
    importer.inputs();
    importer.nodes(proto);
    let outputs = importer.outputs(proto);
    let complete = outputs.len() == proto.output.len() && !outputs.is_empty();
    let outputs = if complete { importer.output_tensors(outputs) } else { Vec::new() };
    importer.distinct_outputs(&outputs);
    importer.unknown_dims();
    let Importer { mut graphs, mut diagnostics, unsupported, .. } = importer;
    diagnostics.extend(unsupported.diagnostics());
    diagnostics.check()?;
    let Some(Frame { mut graph, .. }) = graphs.pop() else { crate::bug!("the main graph is gone") };
    for (name, value) in outputs {
        graph.add_output(&name, value);
    }
    drop_unread_symbols(&mut graph);
    typical::settle(&mut graph, profiles)?;
    formats::apply(&mut graph, &model.formats)?;
    Ok(graph)
}

/// The state of an import.
struct Importer<'m> {
    model: &'m Model,
    /// Versions of operator sets that only the model's functions import.
    opsets: Option<&'m BTreeMap<String, i64>>,
    profiles: &'m Profiles,
    /// The graphs under construction, the innermost last.
    graphs: Vec<Frame>,
    /// The names in sight, the innermost last.
    scopes: Vec<Scope>,
    diagnostics: Diagnostics,
    unsupported: Unsupported,
    /// How many faults were found so far. Diagnostics that say the same are kept once, so their number does not tell.
    faults: usize,
    /// How many nodes without a name there were, by operator order; part of their place.
    unnamed: usize,
    /// How many nodes were imported, and how many times each, by its address, which is looked up and never walked.
    imported: u32,
    turns: BTreeMap<*const NodeProto, u32>,
    /// How many times a graph in an attribute was imported: loops in loops are a power of their rounds.
    bodies: usize,
}

/// A graph under construction.
#[derive(Clone)]
struct Frame {
    graph: Graph,
    /// Values of the next outer graph, and the input or constant they are here.
    captures: BTreeMap<ValueId, ValueId>,
    /// The captured values that are inputs here, in the order of the inputs.
    inputs: Vec<ValueId>,
    /// Whether it is the body of a loop, which a run goes through again and again.
    repeats: bool,
}

impl Frame {
    fn new(graph: Graph) -> Frame {
        Frame { graph, captures: BTreeMap::new(), inputs: Vec::new(), repeats: false }
    }
}

/// Names and what they stand for; `None` for what could not be imported and has been reported.
struct Scope {
    names: BTreeMap<String, Option<Item>>,
    /// The graph that the values live in.
    graph: usize,
}

impl Scope {
    fn new(names: BTreeMap<String, Option<Item>>, graph: usize) -> Scope {
        Scope { names, graph }
    }
}

/// What looking for a name gives.
enum Found {
    Item(Item),
    /// It could not be imported, which has been reported.
    Reported,
    Nothing,
}

impl<'m> Importer<'m> {
    fn complain(&mut self, found: impl Into<Diagnostics>) {
        self.faults += 1;
        self.diagnostics.append(found.into());
    }

    /// The value of `result`, or what is wrong with it is reported.
    fn keep<T>(&mut self, result: Result<T>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(found) => {
                self.complain(found);
                None
            }
        }
    }

    fn graph(&mut self) -> &mut Graph {
        match self.graphs.last_mut() {
            Some(frame) => &mut frame.graph,
            None => crate::bug!("no graph is under construction"),
        }
    }

    fn bind(&mut self, name: &str, item: Option<Item>) {
        let Some(scope) = self.scopes.last_mut() else { crate::bug!("no names are in sight") };
        if !name.is_empty() && scope.names.insert(name.to_owned(), item).is_some() {
            self.complain(
                Diagnostic::error("E0402", Place::value(name), format!("{} is defined twice", quoted(name)))
                    .why("ONNX graphs are in single-assignment form")
                    .help("rename one of the two; the exporter that wrote this has a bug"),
            );
        }
    }

    /// Finds a name, and captures its values into the innermost graph.
    fn find(&mut self, name: &str) -> Found {
        let here = self.graphs.len() - 1;
        let scope = self.scopes.iter().rev().find_map(|scope| Some((scope.names.get(name)?.clone(), scope.graph)));
        match scope {
            None => Found::Nothing,
            Some((None, _)) => Found::Reported,
            Some((Some(item), from)) => {
                Found::Item(item.map(|value| (from + 1..=here).fold(value, |value, graph| self.capture(graph, value))))
            }
        }
    }

    /// The value in graph `into` that stands for `value` of the graph around it.
    fn capture(&mut self, into: usize, value: ValueId) -> ValueId {
        if let Some(&captured) = self.graphs[into].captures.get(&value) {
            return captured;
        }
        let outer = self.graphs[into - 1].graph.value(value).clone();
        let frame = &mut self.graphs[into];
        let captured = match outer.def {
            crate::ir::Def::Constant(constant) => frame.graph.add_constant(&outer.name, outer.ty, constant),
            crate::ir::Def::Input(_) | crate::ir::Def::Node(..) => {
                let input = frame.graph.add_input(&outer.name, outer.ty);
                if let Some(known) = outer.known {
                    frame.graph.set_known(input, known);
                }
                if let Some(known) = outer.integral {
                    frame.graph.set_integral(input, known);
                }
                frame.inputs.push(value);
                input
            }
        };
        frame.captures.insert(value, captured);
        captured
    }

    fn initializers(&mut self, proto: &'m GraphProto) {
        for tensor in &proto.initializer {
            let at = Place::tensor(tensor.name());
            let decoded = self.model.tensor(tensor, &at);
            self.initializer(tensor.name(), decoded);
        }
        for sparse in &proto.sparse_initializer {
            let name = sparse.values.as_ref().map_or("", |values| values.name());
            let decoded = self.model.sparse_tensor(sparse, &Place::tensor(name));
            self.initializer(name, decoded);
        }
    }

    fn initializer(&mut self, name: &str, decoded: Result<TensorRef>) {
        let value = self.keep(decoded).and_then(|tensor| {
            if tensor.dims.len() > MAX_RANK {
                self.complain(too_many_axes(Place::tensor(name), tensor.dims.len()));
                return None;
            }
            let ty = Type { dtype: tensor.dtype, dims: tensor.dims.iter().map(|&dim| Expr::from(dim)).collect() };
            let constant = Constant { bytes: tensor.data, initializer: Some(name.into()) };
            Some(self.graph().add_constant(name, ty, constant))
        });
        self.bind(name, value.map(Item::Tensor));
    }

    fn inputs(&mut self) {
        let Some(inputs) = self.keep(super::inputs(self.model)) else {
            // Whoever reads them is not at fault.
            let names: Vec<&str> = self.model.graph().input.iter().map(|info| info.name()).collect();
            let unbound = |scope: &Scope, name: &str| !name.is_empty() && !scope.names.contains_key(name);
            for name in names {
                if self.scopes.last().is_some_and(|scope| unbound(scope, name)) {
                    self.bind(name, None);
                }
            }
            return;
        };
        for (index, input) in inputs.into_iter().enumerate() {
            let dims =
                input.dims.iter().zip(&input.symbols).enumerate().map(|(axis, (&extent, symbol))| match symbol {
                    Some(name) => self.symbol(name, index, axis),
                    None => Expr::constant(extent),
                });
            let ty = Type { dtype: input.dtype, dims: dims.collect() };
            self.check_size(&input.name, &ty);
            let value = self.graph().add_input(&input.name, ty);
            if input.name.is_empty() {
                self.complain(
                    Diagnostic::error("E0410", Place::Model, format!("input {index} has no name"))
                        .why("an empty name stands for an operand that is absent, so nothing can read this input")
                        .help("name the input, or remove it"),
                );
            }
            self.bind(&input.name, Some(Item::Tensor(value)));
        }
    }

    /// The extent that a dimension's name stands for: its symbol, or the one value the profiles give it.
    fn symbol(&mut self, name: &str, input: usize, axis: usize) -> Expr {
        let ranges = self.profiles.ranges(name);
        let source = SymbolSource::Input { input, axis };
        self.graph().symbols.entry(name.into()).or_insert(Symbol { source, ranges });
        self.profiles.pinned(name).map_or_else(|| Expr::symbol(name), Expr::constant)
    }

    /// Reports an input that no memory holds.
    fn check_size(&mut self, name: &str, ty: &Type) {
        let graph = self.graph();
        if let Err(why) = check_bytes(ty, &|expr| graph.range(expr)) {
            self.complain(
                Diagnostic::error("E0412", Place::value(name), "the input is too large").why(why).help(
                    "state smaller ranges of its dimensions, with --dim, or export the model with a smaller input",
                ),
            );
        }
    }

    /// Reports profile ranges for dimensions that the model does not have.
    fn unknown_dims(&mut self) {
        let of_inputs = self.graph().symbols.iter().filter(|(_, symbol)| symbol.is_of_input());
        let known: Vec<Arc<str>> = of_inputs.map(|(name, _)| name.clone()).collect();
        for name in self.profiles.names() {
            if known.iter().any(|symbol| &**symbol == name) {
                continue;
            }
            let names: Vec<String> = known.iter().map(|symbol| quoted(symbol)).collect();
            let has = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            self.complain(
                Diagnostic::error("E0406", Place::Model, format!("the model has no dimension {}", quoted(name)))
                    .help(format!("its symbolic dimensions are: {has}")),
            );
        }
    }

    /// Imports a graph's nodes, in an order in which each comes behind its operands.
    fn nodes(&mut self, proto: &'m GraphProto) {
        for node in self.sorted(&proto.node) {
            self.node(node);
        }
    }

    /// Sorts nodes by their names; those that take part in a cycle are reported and left out.
    fn sorted(&mut self, nodes: &'m [NodeProto]) -> Vec<&'m NodeProto> {
        let mut producer: BTreeMap<&str, usize> = BTreeMap::new();
        for (k, node) in nodes.iter().enumerate() {
            for output in node.output.iter().filter(|name| !name.is_empty()) {
                producer.entry(output).or_insert(k);
            }
        }
        let needs: Vec<BTreeSet<usize>> = nodes
            .iter()
            .map(|node| names_read(node).iter().filter_map(|name| producer.get(name).copied()).collect())
            .collect();
        let mut users: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
        let mut missing: Vec<usize> = needs.iter().map(BTreeSet::len).collect();
        for (k, needed) in needs.iter().enumerate() {
            for &producer in needed {
                users[producer].push(k);
            }
        }
        let mut ready: BTreeSet<usize> = (0..nodes.len()).filter(|&k| missing[k] == 0).collect();
        let mut order = Vec::with_capacity(nodes.len());
        while let Some(k) = ready.pop_first() {
            order.push(&nodes[k]);
            for &user in &users[k] {
                missing[user] -= 1;
                if missing[user] == 0 {
                    ready.insert(user);
                }
            }
        }
        if let Some(k) = (0..nodes.len()).find(|&k| missing[k] > 0) {
            self.complain(
                Diagnostic::error("E0403", Place::from(&nodes[k]), "the nodes form a cycle through this one")
                    .why("each value must be computed before it is read")
                    .help("the file is damaged, or the exporter that wrote it has a bug"),
            );
            for node in (0..nodes.len()).filter(|&k| missing[k] > 0).map(|k| &nodes[k]) {
                for output in &node.output {
                    self.bind(output, None);
                }
            }
        }
        order
    }

    fn node(&mut self, node: &'m NodeProto) {
        let outputs = match self.try_node(node) {
            Ok(outputs) => outputs,
            Err(fault) => {
                self.report(node, fault);
                for name in &node.output {
                    self.bind(name, None);
                }
                return;
            }
        };
        let mut outputs = outputs.into_iter();
        for (k, name) in node.output.iter().enumerate() {
            let item = outputs.next().flatten();
            if name.is_empty() {
                continue;
            }
            match &item {
                Some(Item::Tensor(value)) => {
                    if self.graph().producer(*value).is_some() {
                        self.graph().set_name(*value, name);
                    }
                }
                Some(Item::Sequence(_) | Item::Absent) => {}
                None => {
                    self.report(
                        node,
                        Fault::unsupported(
                            format!("output {k}, {}, is not supported", quoted(name)),
                            "remove the output from the node if nothing needs it",
                        ),
                    );
                }
            }
            self.bind(name, item);
        }
    }

    fn try_node(&mut self, node: &'m NodeProto) -> Items {
        let attrs = Attrs::new(node)?;
        let opset = self.opset(node.domain());
        let def = ops::find(node.domain(), node.op_type(), opset).ok_or_else(|| unknown_operator(node, opset))?;
        let inputs = self.operands(node, def)?;
        check_count("operands", node.input.len(), def.inputs)?;
        check_count("results", node.output.len(), def.outputs)?;
        let origin = self.origin(node);
        let name = node.output.iter().find(|name| !name.is_empty()).map_or("", String::as_str);
        match def.import {
            Import::Compose(import) => {
                let inputs = tensors(node, inputs)?;
                let wanted = node.output.iter().map(|name| !name.is_empty()).collect();
                let (model, turn) = (self.model, self.turn(node));
                let in_region = self.graphs.len() > 1;
                let repeats = self.graphs.iter().any(|frame| frame.repeats);
                let b = Builder::new(self.graph(), origin, name);
                let mut cx = Cx { b, attrs, model, opset, turn, inputs, wanted, in_region, repeats };
                let outputs = import(&mut cx)?;
                cx.attrs.finish()?;
                Ok(outputs.into_iter().map(|value| value.map(Item::Tensor)).collect())
            }
            Import::Items(import) => {
                let mut context = ItemCx { importer: self, attrs, inputs, node, origin, name };
                let outputs = import(&mut context)?;
                context.attrs.finish()?;
                Ok(outputs)
            }
        }
    }

    fn turn(&mut self, node: &NodeProto) -> Turn {
        let round = self.turns.entry(node).or_insert(0);
        let turn = Turn { node: self.imported, round: *round };
        self.imported += 1;
        *round += 1;
        turn
    }

    fn opset(&self, domain: &str) -> i64 {
        let of_functions = || self.opsets.and_then(|opsets| opsets.get(domain).copied());
        self.model.opset(domain).or_else(of_functions).unwrap_or(0)
    }

    /// What a node's operands stand for, all missing ones reported.
    fn operands(&mut self, node: &NodeProto, def: &OpDef) -> Items {
        let mut inputs = Vec::new();
        let mut missing = Vec::new();
        let mut reported = false;
        for name in node.input.iter().take(def.inputs.1) {
            if name.is_empty() {
                inputs.push(None);
                continue;
            }
            match self.find(name) {
                Found::Item(item) => inputs.push(Some(item)),
                Found::Reported => reported = true,
                Found::Nothing => missing.push(quoted(name)),
            }
        }
        if !missing.is_empty() {
            return Err(Fault::Invalid(format!("nothing defines {}", missing.join(", "))));
        }
        if reported { Err(Fault::Attribute(Diagnostics::new())) } else { Ok(inputs) }
    }

    fn origin(&mut self, node: &NodeProto) -> Origin {
        let label = if node.name().is_empty() {
            self.unnamed += 1;
            format!("{}#{}", node.op_type(), self.unnamed)
        } else {
            format!("{} ({})", node.name(), node.op_type())
        };
        Origin(vec![label.into()])
    }

    fn report(&mut self, node: &NodeProto, fault: Fault) {
        let at = Place::from(node);
        match fault {
            Fault::Invalid(what) => {
                let operands: Vec<String> = node.input.iter().map(|name| self.describe(name)).collect();
                let help = self.unstated(node);
                self.complain(
                    Diagnostic::error("E0407", at, what)
                        .why(format!("its operands are {}", operands.join(", ")))
                        .help(help),
                );
            }
            Fault::Unsupported { what, help } => {
                self.faults += 1;
                self.unsupported.add(at, what, help);
            }
            Fault::Attribute(found) => self.complain(found),
        }
    }

    /// What to say of a node that does not fit, if the ranges of its extents are assumed: a dimension that is 224 in
    /// every use of the model contradicts the range it has by default.
    fn unstated(&mut self, node: &NodeProto) -> String {
        let mut names: BTreeSet<Arc<str>> = BTreeSet::new();
        for name in &node.input {
            if let Found::Item(Item::Tensor(value)) = self.find(name) {
                names.extend(self.graph().ty(value).dims.iter().flat_map(Expr::symbols));
            }
        }
        let names = names.iter().filter(|name| self.profiles.names().all(|stated| stated != &***name));
        let options: Vec<String> =
            names.map(|name| format!("--dim {}=MIN:OPT:MAX", quoted(name).trim_matches('"'))).collect();
        if options.is_empty() {
            return String::new();
        }
        let Range { min, max, .. } = profiles::DEFAULT;
        format!("dimensions are taken to be {min} to {max}; if these are not, say {}", options.join(" "))
    }

    fn describe(&mut self, name: &str) -> String {
        match self.find(name) {
            Found::Item(Item::Tensor(value)) => {
                let ty = self.graph().ty(value).clone();
                format!("{} {}{:?}", quoted(name), ty.dtype, ty.dims)
            }
            Found::Item(Item::Sequence(values)) => format!("{} sequence of {}", quoted(name), values.len()),
            Found::Item(Item::Absent) => format!("{} absent", quoted(name)),
            Found::Reported | Found::Nothing => quoted(name).to_string(),
        }
    }

    fn outputs(&mut self, proto: &GraphProto) -> Vec<(String, Item)> {
        let mut outputs = Vec::new();
        for info in &proto.output {
            match self.find(info.name()) {
                Found::Item(item) => outputs.push((info.name().to_owned(), item)),
                Found::Reported => {}
                Found::Nothing => self.complain(
                    Diagnostic::error("E0408", Place::value(info.name()), "nothing computes this output")
                        .help("the file is damaged, or the exporter that wrote it has a bug"),
                ),
            }
        }
        if proto.output.is_empty() {
            self.complain(
                Diagnostic::error("E0408", Place::Model, "the graph has no outputs")
                    .help("mark what the model is to compute as an output"),
            );
        }
        outputs
    }

    /// The tensors that are the model's outputs: of a sequence its elements, `NAME.0`, `NAME.1`, ..
    fn output_tensors(&mut self, outputs: Vec<(String, Item)>) -> Vec<(String, ValueId)> {
        let mut tensors = Vec::new();
        let before = self.faults;
        for (name, item) in outputs {
            match item {
                Item::Tensor(value) => tensors.push((name, value)),
                Item::Sequence(values) => {
                    tensors.extend(values.into_iter().enumerate().map(|(k, value)| (element_name(&name, k), value)));
                }
                Item::Absent => self.complain(
                    Diagnostic::error("E0408", Place::value(&name), "this output is an optional value that is absent")
                        .why("the results of a model are tensors, and this one never has a value")
                        .help("remove the output from the model"),
                ),
            }
        }
        if tensors.is_empty() && self.faults == before {
            self.complain(
                Diagnostic::error("E0408", Place::Model, "the outputs are sequences without elements")
                    .why("nothing is left to compute")
                    .help("add an output that is a tensor, or a sequence with elements"),
            );
        }
        tensors
    }

    /// Reports outputs of the model that share a name: the emitted crate's results are known by their names.
    fn distinct_outputs(&mut self, outputs: &[(String, ValueId)]) {
        let mut names = BTreeSet::new();
        for (name, _) in outputs {
            if !names.insert(name) {
                self.complain(
                    Diagnostic::error("E0402", Place::value(name), format!("{} is an output twice", quoted(name)))
                        .why("a result is known by its name")
                        .help("list the output once; an Identity node gives a value a second name"),
                );
            }
        }
    }
}

/// The names that a node reads: its operands, and what the graphs in its attributes take from around them.
pub fn names_read(node: &NodeProto) -> Vec<&str> {
    let mut names: Vec<&str> = node.input.iter().map(String::as_str).filter(|name| !name.is_empty()).collect();
    for attribute in &node.attribute {
        for graph in attribute.g.as_deref().into_iter().chain(&attribute.graphs) {
            let own = names_defined(graph);
            let read = graph.node.iter().flat_map(names_read).chain(graph.output.iter().map(|info| info.name()));
            names.extend(read.filter(|name| !own.contains(name)));
        }
    }
    names
}

/// The names that a graph defines; ONNX Runtime lets them hide those of the graph around it.
fn names_defined(graph: &GraphProto) -> BTreeSet<&str> {
    let inputs = graph.input.iter().map(|info| info.name());
    let sparse = graph.sparse_initializer.iter().filter_map(|sparse| sparse.values.as_ref());
    let stored = graph.initializer.iter().map(|tensor| tensor.name()).chain(sparse.map(|values| values.name()));
    let computed = graph.node.iter().flat_map(|node| &node.output).map(String::as_str);
    inputs.chain(stored).chain(computed).collect()
}

/// The tensors that a node's operands are.
fn tensors(node: &NodeProto, items: Vec<Option<Item>>) -> Imported {
    let tensor = |(item, name): (Option<Item>, &String)| match item {
        None => Ok(None),
        Some(Item::Tensor(value)) => Ok(Some(value)),
        Some(Item::Sequence(_)) => Err(Fault::unsupported(
            format!("{} is a sequence, and this operator takes tensors here", quoted(name)),
            "take the elements with SequenceAt or ConcatFromSequence",
        )),
        Some(Item::Absent) => {
            Err(Fault::Invalid(format!("{} is an optional value that is absent, and is read here", quoted(name))))
        }
    };
    items.into_iter().zip(&node.input).map(tensor).collect()
}

fn check_count(what: &str, given: usize, (low, high): (usize, usize)) -> std::result::Result<(), Fault> {
    if (low..=high).contains(&given) {
        return Ok(());
    }
    let expected = if low == high { format!("{low}") } else { format!("{low} to {high}") };
    Err(Fault::Invalid(format!("it has {given} {what}, the operator takes {expected}")))
}

fn unknown_operator(node: &NodeProto, opset: i64) -> Fault {
    let domain = if node.domain().is_empty() { "ai.onnx" } else { node.domain() };
    let newer = ops::find(node.domain(), node.op_type(), i64::MAX).map(|def| def.since);
    match newer {
        Some(since) => Fault::unsupported(
            format!("{} is not defined in operator set {opset} of {domain}", node.op_type()),
            format!("it is from version {since} on: correct the model's opset_import"),
        ),
        None => Fault::unsupported(
            format!("the operator {}::{} is not supported", domain.escape_debug(), node.op_type().escape_debug()),
            "express it by supported operators when exporting (SUPPORTED.md lists them)",
        ),
    }
}

/// Drops the symbols that nothing needs: pinned ones, whose extents are constants.
fn drop_unread_symbols(graph: &mut Graph) {
    let mut read: BTreeSet<Arc<str>> = BTreeSet::new();
    for &input in graph.inputs() {
        read.extend(graph.ty(input).dims.iter().flat_map(Expr::symbols));
    }
    graph.symbols.retain(|name, symbol| read.contains(name) || matches!(symbol.source, SymbolSource::Count(_)));
}
