//! The verifier: what holds of every graph between two passes.
//!
//! Does: checks that the graph is acyclic, that every value that is read has a definition, that every result has the
//! type that [`infer`] gives it (up to the graph's constraints), that what inference relies on is stated as a
//! constraint, that constants have the bytes of their types, that symbols are declared and their ranges make sense,
//! and the same of every region.
//! Not here: whether the graph computes what the model says, and anything about a target.

mod equal;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use lapidary_runtime::DType;
use lapidary_runtime::table::ConstraintKind;

use self::equal::Equalities;
use super::ops::{Inference, extents_of, infer};
use super::{Def, Expr, Graph, NodeId, Symbol, SymbolSource, Type, ValueId};

/// Checks a whole graph. The errors are one sentence each, every one that was found.
pub fn verify(graph: &Graph) -> Result<(), Vec<String>> {
    let mut errors = Vec::new();
    check_symbols(graph, &mut errors);
    Verifier::new(&[graph], String::new()).run(&mut errors);
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

/// The checks of one graph: the outermost, or a region inside it.
struct Verifier<'g> {
    /// From the outermost graph, which declares the symbols, to the graph at hand.
    graphs: Vec<&'g Graph>,
    graph: &'g Graph,
    /// Which region this is, as a prefix of messages.
    path: String,
    equalities: Equalities<'g>,
    values: usize,
}

impl<'g> Verifier<'g> {
    fn new(graphs: &[&'g Graph], path: String) -> Verifier<'g> {
        let (outer, graph) = (graphs[0], graphs[graphs.len() - 1]);
        let constraints = graphs.iter().flat_map(|graph| &graph.constraints);
        Verifier {
            graphs: graphs.to_vec(),
            graph,
            path,
            equalities: Equalities::new(constraints, outer),
            values: graph.value_ids().count(),
        }
    }

    fn outer(&self) -> &'g Graph {
        self.graphs[0]
    }

    fn run(&self, errors: &mut Vec<String>) {
        let first = errors.len();
        let graph = self.graph;
        if graph.is_cyclic() {
            errors.push("the nodes form a cycle".to_owned());
        } else {
            self.check_values(errors);
            self.check_interface(errors);
            for constraint in &graph.constraints {
                for side in [&constraint.left, &constraint.right] {
                    self.check_declared(side, &format!("the constraint of {}", constraint.why), errors);
                }
            }
            for id in graph.order() {
                self.check_node(id, errors);
            }
        }
        for error in &mut errors[first..] {
            error.insert_str(0, &self.path);
        }
    }

    fn check_values(&self, errors: &mut Vec<String>) {
        for id in self.graph.value_ids().filter(|&id| self.is_there(id)) {
            let value = self.graph.value(id);
            let place = format!("{id} \"{}\"", value.name);
            for dim in &value.ty.dims {
                self.check_declared(dim, &place, errors);
            }
            if let Some(known) = &value.known {
                for element in &known.0 {
                    self.check_declared(element, &place, errors);
                }
                let count = value.ty.const_dims().and_then(|dims| count(&dims));
                if count != Some(known.0.len()) {
                    errors.push(format!("{place}: {} elements are known of {}", known.0.len(), show(&value.ty)));
                }
            }
            if let Def::Constant(constant) = &value.def
                && let Err(reason) = check_bytes(&value.ty, constant.bytes.len())
            {
                errors.push(format!("{place}: {reason}"));
            }
        }
    }

    /// Whether a value's definition is in the graph; results of removed nodes stay in the table of values.
    fn is_there(&self, id: ValueId) -> bool {
        match self.graph.value(id).def {
            Def::Input(k) => self.graph.inputs().get(k) == Some(&id),
            Def::Constant(_) => true,
            Def::Node(node, k) => {
                self.graph.contains(node) && self.graph.node(node).outputs.get(k).copied().flatten() == Some(id)
            }
        }
    }

    fn check_interface(&self, errors: &mut Vec<String>) {
        let graph = self.graph;
        let mut names = BTreeSet::new();
        for &input in graph.inputs() {
            let name = &graph.value(input).name;
            if !self.is_there(input) {
                errors.push(format!("input {input} is defined elsewhere"));
            }
            if !names.insert(name.clone()) && self.is_outermost() {
                errors.push(format!("two inputs have the name \"{name}\""));
            }
        }
        let mut names = BTreeSet::new();
        for (name, value) in graph.outputs() {
            if !self.is_defined(*value) {
                errors.push(format!("output \"{name}\" is {value}, which nothing defines"));
            }
            if !names.insert(name) && self.is_outermost() {
                errors.push(format!("two outputs have the name \"{name}\""));
            }
        }
        if !self.is_outermost() && !graph.symbols.is_empty() {
            errors.push("the region declares symbols, which belong to the graph around it".to_owned());
        }
    }

    fn is_defined(&self, id: ValueId) -> bool {
        id.index() < self.values && self.is_there(id)
    }

    fn is_outermost(&self) -> bool {
        self.graphs.len() == 1
    }

    fn check_node(&self, id: NodeId, errors: &mut Vec<String>) {
        let node = self.graph.node(id);
        let place = self.place(id);
        let missing = node.inputs.iter().flatten().find(|&&value| !self.is_defined(value));
        if let Some(value) = missing {
            errors.push(format!("{place}: operand {value} has no definition"));
            return;
        }
        for expr in extents_of(&node.op) {
            self.check_declared(expr, &place, errors);
        }
        if let Err(reason) = self.check_types(id) {
            errors.push(format!("{place}: {reason}"));
        }
        for (name, region) in node.op.regions() {
            let graphs = [self.graphs.as_slice(), &[&region.0]].concat();
            Verifier::new(&graphs, format!("{place}, {name}: ")).run(errors);
        }
    }

    /// A node's results have the types that inference gives them, and what it relies on is stated.
    fn check_types(&self, id: NodeId) -> Result<(), String> {
        let node = self.graph.node(id);
        let inputs: Vec<Option<&Type>> = node.inputs.iter().map(|v| v.map(|v| self.graph.ty(v))).collect();
        let range = |expr: &Expr| self.outer().range(expr);
        let mut inference = Inference { range: &range, constraints: Vec::new() };
        let inferred = infer(&node.op, &inputs, &mut inference)?;
        if node.outputs.len() > inferred.len() {
            return Err(format!("there are {} results, and at most {} can be", node.outputs.len(), inferred.len()));
        }
        for (k, (output, inferred)) in node.outputs.iter().zip(&inferred).enumerate() {
            let Some(value) = *output else { continue };
            if !self.is_there(value) {
                return Err(format!("result {k} is {value}, which is defined elsewhere"));
            }
            let stated = self.graph.ty(value);
            if !self.same_type(stated, inferred) {
                return Err(format!("result {k} is {}, and should be {}", show(stated), show(inferred)));
            }
        }
        let unstated = inference.constraints.iter().find(|(kind, a, b)| !self.equalities.implied(*kind, a, b));
        match unstated {
            Some((ConstraintKind::Equal, a, b)) => Err(format!("no constraint states that {a} equals {b}")),
            Some((ConstraintKind::Broadcast, a, b)) => Err(format!("no constraint states that {a} and {b} broadcast")),
            None => Ok(()),
        }
    }

    fn same_type(&self, a: &Type, b: &Type) -> bool {
        a.dtype == b.dtype && a.dims.len() == b.dims.len() && a.dims.iter().zip(&b.dims).all(|(a, b)| self.same(a, b))
    }

    fn same(&self, a: &Expr, b: &Expr) -> bool {
        self.equalities.same(a, b)
    }

    fn check_declared(&self, expr: &Expr, place: &str, errors: &mut Vec<String>) {
        for symbol in expr.symbols() {
            if !self.outer().symbols.contains_key(&symbol) {
                errors.push(format!("{place}: the symbol \"{symbol}\" is not declared"));
            }
        }
    }

    fn place(&self, id: NodeId) -> String {
        let node = self.graph.node(id);
        let result = node.outputs.iter().flatten().next();
        let result = result.map_or_else(String::new, |value| format!("{value} = "));
        let origin = if node.origin.0.is_empty() { String::new() } else { format!(" from {}", node.origin) };
        format!("{result}{}{origin}", node.op.name())
    }
}

fn check_symbols(graph: &Graph, errors: &mut Vec<String>) {
    let profiles = graph.profile_count();
    for (name, symbol) in &graph.symbols {
        if symbol.ranges.len() != profiles {
            errors.push(format!("the symbol \"{name}\" has {} ranges for {profiles} profiles", symbol.ranges.len()));
        }
        for range in &symbol.ranges {
            if !(0 <= range.min && range.min <= range.opt && range.opt <= range.max) {
                errors.push(format!(
                    "the symbol \"{name}\" has the range {}..{}..{}, which is out of order",
                    range.min, range.opt, range.max
                ));
            }
        }
        if let Err(reason) = check_source(graph, name, symbol) {
            errors.push(format!("the symbol \"{name}\" {reason}"));
        }
    }
}

fn check_source(graph: &Graph, name: &Arc<str>, symbol: &Symbol) -> Result<(), String> {
    match &symbol.source {
        SymbolSource::Input { input, axis } => {
            let value = graph.inputs().get(*input);
            let dim = value.and_then(|&value| graph.ty(value).dims.get(*axis));
            match dim {
                None => Err(format!("is axis {axis} of input {input}, which is not there")),
                Some(dim) if dim.as_symbol() == Some(&**name) => Ok(()),
                Some(dim) => Err(format!("is axis {axis} of input {input}, which is {dim}")),
            }
        }
        SymbolSource::Outer => Err("is that of a graph around this one, and there is none".to_owned()),
        SymbolSource::Count(count) => {
            let at = count.at;
            let there =
                at.index() < graph.value_ids().count() && graph.producer(at).is_none_or(|id| graph.contains(id));
            if !there {
                return Err(format!("counts by {at}, which is not there"));
            }
            let ty = graph.ty(at);
            if ty.dtype != DType::I64 || !ty.dims.is_empty() {
                return Err(format!("counts by {at}, which is {} and not an i64 scalar", show(ty)));
            }
            match count.bound.symbols().into_iter().find(|symbol| !graph.symbols.contains_key(symbol)) {
                Some(symbol) => Err(format!("is bounded by \"{symbol}\", which is not declared")),
                None => Ok(()),
            }
        }
    }
}

fn check_bytes(ty: &Type, bytes: usize) -> Result<(), String> {
    let Some(dims) = ty.const_dims() else {
        return Err(format!("a constant cannot be {}", show(ty)));
    };
    match count(&dims).filter(|&count| count <= usize::MAX / 64).map(|count| ty.dtype.bytes(count)) {
        Some(expected) if expected == bytes => Ok(()),
        Some(expected) => Err(format!("{} has {expected} bytes, and the constant {bytes}", show(ty))),
        None => Err(format!("{} is larger than memory", show(ty))),
    }
}

/// The number of elements, if a machine can count them.
fn count(dims: &[i64]) -> Option<usize> {
    dims.iter().try_fold(1usize, |count, &dim| count.checked_mul(usize::try_from(dim).ok()?))
}

fn show(ty: &Type) -> String {
    let dims: Vec<String> = ty.dims.iter().map(Expr::to_string).collect();
    format!("{}[{}]", ty.dtype, dims.join(", "))
}
