//! A graph's lines: symbols, constraints, inputs, constants, nodes, outputs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use lapidary_runtime::table::{ConstraintKind, Range};

use super::reader::Reader;
use super::value::Text;
use super::{Place, Printer, fields, hex, place};
use crate::ir::{
    Constant, Constraint, Count, Def, Expr, Graph, Known, NodeId, Origin, Symbol, SymbolSource, Type, ValueId,
};

/// Prints the name and, in braces, the lines.
pub(super) fn print(graph: &Graph, out: &mut Printer) {
    let numbers = number(graph);
    out.text += &format!("{:?} {{", graph.name);
    out.depth += 1;
    for (name, symbol) in &graph.symbols {
        out.line();
        print_symbol(name, symbol, &numbers, out);
    }
    for Constraint { kind, left, right, why } in &graph.constraints {
        out.line();
        let kind = match kind {
            ConstraintKind::Equal => "equal",
            ConstraintKind::Broadcast => "broadcast",
        };
        out.text += &format!("constraint {kind}({left}, {right}) {why:?}");
    }
    for &input in graph.inputs() {
        out.line();
        out.text += "input ";
        print_definition(graph, input, &numbers, out);
    }
    for id in numbers.keys().copied() {
        if let Def::Constant(constant) = &graph.value(id).def {
            out.line();
            print_constant(graph, id, constant, &numbers, out);
        }
    }
    for id in graph.order() {
        out.line();
        print_node(graph, id, &numbers, out);
    }
    for (name, value) in graph.outputs() {
        out.line();
        out.text += &format!("output {name:?} {}", show(Some(*value), &numbers));
    }
    out.depth -= 1;
    out.line();
    out.text.push('}');
}

/// The number of each value in the text, in the order in which the text defines them.
fn number(graph: &Graph) -> BTreeMap<ValueId, usize> {
    let order = graph.order();
    let operands = order.iter().flat_map(|&id| graph.node(id).inputs.iter().flatten().copied());
    let counts = graph.symbols.values().filter_map(|symbol| match &symbol.source {
        SymbolSource::Count(count) => Some(count.at),
        SymbolSource::Input { .. } | SymbolSource::Outer => None,
    });
    let outputs = graph.outputs().iter().map(|(_, value)| *value);
    let used: BTreeSet<ValueId> = operands.chain(counts).chain(outputs).collect();
    let constants = graph.value_ids().filter(|id| graph.constant(*id).is_some() && used.contains(id));
    let results = order.iter().flat_map(|&id| graph.node(id).outputs.iter().flatten().copied());
    graph.inputs().iter().copied().chain(constants).chain(results).zip(0..).collect()
}

/// A value's number; `_` for an absent one.
fn show(value: Option<ValueId>, numbers: &BTreeMap<ValueId, usize>) -> String {
    match value {
        None => "_".to_owned(),
        // A value without a definition has no number; the text then says so and cannot be read.
        Some(value) => numbers.get(&value).map_or_else(|| "%?".to_owned(), |number| format!("%{number}")),
    }
}

fn print_symbol(name: &str, symbol: &Symbol, numbers: &BTreeMap<ValueId, usize>, out: &mut Printer) {
    out.text += &format!("symbol {} = ", Expr::symbol(name));
    out.text += &match &symbol.source {
        SymbolSource::Input { input, axis } => format!("input {input} axis {axis}"),
        SymbolSource::Count(count) => format!("count {} of ({})", show(Some(count.at), numbers), count.bound),
        SymbolSource::Outer => "outer".to_owned(),
    };
    for Range { min, opt, max } in &symbol.ranges {
        out.text += &format!(", {min}..{opt}..{max}");
    }
}

/// `%3 "name" f32[2]`, and what is known of the elements.
fn print_definition(graph: &Graph, id: ValueId, numbers: &BTreeMap<ValueId, usize>, out: &mut Printer) {
    let value = graph.value(id);
    out.text += &format!("{} {:?} ", show(Some(id), numbers), value.name);
    value.ty.print(out);
    // A constant's elements say it themselves.
    if let (Some(known), None) = (&value.known, graph.constant(id)) {
        out.text += " known ";
        known.0.print(out);
    }
}

fn print_constant(
    graph: &Graph,
    id: ValueId,
    constant: &Constant,
    numbers: &BTreeMap<ValueId, usize>,
    out: &mut Printer,
) {
    out.text += "const ";
    print_definition(graph, id, numbers, out);
    out.text += &match (place(constant), &constant.initializer) {
        (Place::Named(name), Some(_)) => format!(" = init {name:?}"),
        (Place::Named(hash), None) => format!(" = blob {hash:?}"),
        (Place::Inline, _) => format!(" = hex {}", hex(&constant.bytes)),
    };
}

fn print_node(graph: &Graph, id: NodeId, numbers: &BTreeMap<ValueId, usize>, out: &mut Printer) {
    let node = graph.node(id);
    for (k, output) in node.outputs.iter().enumerate() {
        if k > 0 {
            out.text += ", ";
        }
        match output {
            Some(value) => print_definition(graph, *value, numbers, out),
            None => out.text.push('_'),
        }
    }
    let operands: Vec<String> = node.inputs.iter().map(|value| show(*value, numbers)).collect();
    out.text += &format!(" = {}({})", node.op.name(), operands.join(", "));
    fields::print(&node.op, out);
    for (k, name) in node.origin.0.iter().enumerate() {
        out.text += &format!(" {} {name:?}", if k == 0 { "from" } else { "+" });
    }
}

/// Reads what [`print`] writes.
pub(super) fn read(reader: &mut Reader<'_>) -> Result<Graph, String> {
    let mut scope = Scope { graph: Graph::new(&reader.string()?), values: BTreeMap::new(), counts: Vec::new() };
    reader.expect("{")?;
    while !reader.eat("}") {
        scope.statement(reader)?;
    }
    for (name, at, bound, ranges) in std::mem::take(&mut scope.counts) {
        let at = scope.find(at).map_err(|reason| format!("the symbol `{name}`: {reason}"))?;
        let source = SymbolSource::Count(Count { at, bound });
        scope.graph.declare(name, Symbol { source, ranges });
    }
    Ok(scope.graph)
}

/// A graph while it is read.
struct Scope {
    graph: Graph,
    /// The values by their numbers in the text.
    values: BTreeMap<u32, ValueId>,
    /// Symbols that count, whose values come later in the text.
    counts: Vec<(Arc<str>, u32, Expr, Vec<Range>)>,
}

/// `%3 "name" f32[2] known [..]`.
struct Definition {
    number: u32,
    name: String,
    ty: Type,
    known: Option<Known>,
}

impl Scope {
    fn statement(&mut self, reader: &mut Reader<'_>) -> Result<(), String> {
        if reader.eat_word("symbol") {
            self.symbol(reader)
        } else if reader.eat_word("constraint") {
            self.constraint(reader)
        } else if reader.eat_word("input") {
            let definition = definition(reader)?;
            let id = self.graph.add_input(&definition.name, definition.ty.clone());
            self.define(&definition, id)
        } else if reader.eat_word("const") {
            self.constant(reader)
        } else if reader.eat_word("output") {
            let name = reader.string()?;
            let value = self.operand(reader)?;
            self.graph.add_output(&name, value);
            Ok(())
        } else if reader.at_char('%') || reader.at_char('=') || reader.at_word("_") {
            self.node(reader)
        } else {
            Err(reader.expected("a line of a graph"))
        }
    }

    fn symbol(&mut self, reader: &mut Reader<'_>) -> Result<(), String> {
        let name: Arc<str> = reader.symbol()?.into();
        let known = self.graph.symbols.contains_key(&name) || self.counts.iter().any(|(other, ..)| *other == name);
        if known {
            return Err(format!("the symbol `{name}` is there twice"));
        }
        reader.expect("=")?;
        if reader.eat_word("input") {
            let input = usize::read(reader)?;
            reader.expect_word("axis")?;
            let source = SymbolSource::Input { input, axis: usize::read(reader)? };
            let ranges = ranges(reader)?;
            self.graph.symbols.insert(name, Symbol { source, ranges });
        } else {
            reader.expect_word("count")?;
            let at = reader.value_number()?;
            reader.expect_word("of")?;
            reader.expect("(")?;
            let bound = reader.expr()?;
            reader.expect(")")?;
            self.counts.push((name, at, bound, ranges(reader)?));
        }
        Ok(())
    }

    fn constraint(&mut self, reader: &mut Reader<'_>) -> Result<(), String> {
        let kind = reader.one_of("a kind of constraint", |word| match word {
            "equal" => Some(ConstraintKind::Equal),
            "broadcast" => Some(ConstraintKind::Broadcast),
            _ => None,
        })?;
        reader.expect("(")?;
        let left = reader.expr()?;
        reader.expect(",")?;
        let right = reader.expr()?;
        reader.expect(")")?;
        let why = reader.string()?.into();
        self.graph.constraints.push(Constraint { kind, left, right, why });
        Ok(())
    }

    fn constant(&mut self, reader: &mut Reader<'_>) -> Result<(), String> {
        let definition = definition(reader)?;
        reader.expect("=")?;
        let constant = if reader.eat_word("hex") {
            Constant { bytes: Bytes::from(reader.hex()?), initializer: None }
        } else if reader.eat_word("init") {
            let name = reader.string()?;
            Constant { bytes: resolve(&name, reader)?, initializer: Some(name.into()) }
        } else {
            reader.expect_word("blob")?;
            let name = reader.string()?;
            Constant { bytes: resolve(&name, reader)?, initializer: None }
        };
        let id = self.graph.add_constant(&definition.name, definition.ty.clone(), constant);
        self.define(&definition, id)
    }

    fn node(&mut self, reader: &mut Reader<'_>) -> Result<(), String> {
        let mut results: Vec<Option<Definition>> = Vec::new();
        while !reader.eat("=") {
            results.push(if reader.eat_word("_") { None } else { Some(definition(reader)?) });
            if !reader.eat(",") {
                reader.expect("=")?;
                break;
            }
        }
        let mut op = fields::read_name(reader)?;
        let inputs = self.operands(reader)?;
        fields::read(&mut op, reader)?;
        let mut origin = Origin::default();
        if reader.eat_word("from") {
            origin.0.push(reader.string()?.into());
            while reader.eat("+") {
                origin.0.push(reader.string()?.into());
            }
        }
        let types = results.iter().map(|d| d.as_ref().map(|d| (d.name.as_str().into(), d.ty.clone()))).collect();
        let id = self.graph.add_node(op, inputs, types, origin);
        let outputs = self.graph.node(id).outputs.clone();
        let defined = results.iter().flatten().zip(outputs.into_iter().flatten());
        for (definition, value) in defined {
            self.define(definition, value)?;
        }
        Ok(())
    }

    fn operands(&self, reader: &mut Reader<'_>) -> Result<Vec<Option<ValueId>>, String> {
        reader.expect("(")?;
        let mut operands = Vec::new();
        while !reader.eat(")") {
            operands.push(if reader.eat_word("_") { None } else { Some(self.operand(reader)?) });
            if !reader.eat(",") {
                reader.expect(")")?;
                break;
            }
        }
        Ok(operands)
    }

    fn operand(&self, reader: &mut Reader<'_>) -> Result<ValueId, String> {
        let number = reader.value_number()?;
        self.find(number)
    }

    fn find(&self, number: u32) -> Result<ValueId, String> {
        self.values.get(&number).copied().ok_or_else(|| format!("%{number} is not defined above"))
    }

    fn define(&mut self, definition: &Definition, id: ValueId) -> Result<(), String> {
        if self.values.insert(definition.number, id).is_some() {
            return Err(format!("%{} is defined twice", definition.number));
        }
        if let Some(known) = &definition.known {
            self.graph.set_known(id, known.clone());
        }
        Ok(())
    }
}

fn definition(reader: &mut Reader<'_>) -> Result<Definition, String> {
    let number = reader.value_number()?;
    let name = reader.string()?;
    let ty = Type::read(reader)?;
    let known = if reader.eat_word("known") { Some(Known(Vec::read(reader)?)) } else { None };
    Ok(Definition { number, name, ty, known })
}

fn ranges(reader: &mut Reader<'_>) -> Result<Vec<Range>, String> {
    let mut ranges = Vec::new();
    while reader.eat(",") {
        let min = reader.int()?;
        reader.expect("..")?;
        let opt = reader.int()?;
        reader.expect("..")?;
        ranges.push(Range { min, opt, max: reader.int()? });
    }
    Ok(ranges)
}

fn resolve(name: &str, reader: &Reader<'_>) -> Result<Bytes, String> {
    (reader.resolve)(name).ok_or_else(|| format!("nobody knows the bytes of {name:?}"))
}
