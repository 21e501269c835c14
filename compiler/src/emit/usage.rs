//! How a caller uses an emitted crate, as lines of Rust: for the crate's documentation, example and test alike.

use super::interface::{Extent, Interface, Port};
use crate::ir::Expr;

/// The first code that a reader sees.
pub fn example(interface: &Interface, embedded: bool) -> String {
    let zeros = |port: &Port| format!("let {} = vec![{}; {}];", port.variable, zero(port), count(interface, port));
    let symbols = interface
        .symbols
        .iter()
        .map(|symbol| format!("let {} = {}::new({})?;", symbol.variable, symbol.ty, symbol.typical()));
    let inputs = interface.inputs.iter().map(zeros);
    let weights = if embedded { "" } else { ".weights(\"weights.bin\")" };
    let mut lines = vec![format!("use {}::{{{}}};\n", interface.krate, imports(interface, &[]))];
    lines.push(format!("let model = {}::builder(){weights}.build()?;", interface.model));
    lines.push("let mut session = model.session()?;".to_owned());
    lines.extend(symbols);
    lines.extend(inputs);
    match interface.inputs.as_slice() {
        [] => lines.push("let outputs = session.run(&Inputs::default())?;".to_owned()),
        [input] => lines.push(format!(
            "let outputs = session.run(&Inputs {{ {}: {} }})?;",
            input.field,
            view(interface, input)
        )),
        several => {
            lines.push("let outputs = session.run(&Inputs {".to_owned());
            lines.extend(several.iter().map(|input| format!("    {}: {},", input.field, view(interface, input))));
            lines.push("})?;".to_owned());
        }
    }
    for output in interface.outputs.iter().take(1) {
        let data = if output.element().is_some() { "data" } else { "bytes" };
        lines.push(format!("println!(\"{{:?}}\", outputs.{}.{data}());", output.field));
    }
    lines.join("\n")
}

/// What code that makes inputs imports from the crate, besides `others`.
pub fn imports(interface: &Interface, others: &[&str]) -> String {
    let mut names: Vec<&str> = vec!["Error", "Inputs", &interface.model];
    names.extend(others);
    let typed = interface.inputs.iter().filter(|port| port.element().is_some());
    for port in typed {
        names.push("View");
        names.extend(port.element().filter(|element| matches!(*element, "F16" | "BF16")));
        if !is_constant(port) {
            let extent = |dim: &Extent| match dim {
                Extent::Const(_) => "C",
                Extent::Symbol(_) => "",
                Extent::Formula(_) => "Dyn",
            };
            names.extend(port.dims.iter().map(extent).filter(|name| !name.is_empty()));
        }
    }
    names.extend(interface.symbols.iter().map(|symbol| symbol.ty.as_str()));
    if interface.inputs.iter().any(|port| port.element().is_none()) {
        names.push("InputRef");
    }
    names.sort_unstable();
    names.dedup();
    names.join(", ")
}

fn is_constant(port: &Port) -> bool {
    port.dims.iter().all(|dim| matches!(dim, Extent::Const(_)))
}

/// The view of an input over the variable that holds its data.
pub fn view(interface: &Interface, port: &Port) -> String {
    let data = &port.variable;
    let dims = |wrap: &dyn Fn(&Extent) -> String| port.dims.iter().map(wrap).collect::<Vec<_>>().join(", ");
    if port.element().is_none() {
        let extents = dims(&|dim| match dim {
            Extent::Const(value) => value.to_string(),
            Extent::Symbol(k) => format!("{}.get()", interface.symbols[*k].variable),
            Extent::Formula(formula) => interface.typical(formula).to_string(),
        });
        return format!(
            "InputRef::from_bytes(lapidary_runtime::DType::{:?}, lapidary_runtime::Extents::new(&[{extents}]), &{data})",
            port.dtype
        );
    }
    if is_constant(port) {
        return format!("View::of(&{data})?");
    }
    let shape = dims(&|dim| match dim {
        Extent::Const(_) => "C".to_owned(),
        Extent::Symbol(k) => interface.symbols[*k].variable.clone(),
        Extent::Formula(formula) => format!("Dyn({})", interface.typical(formula)),
    });
    let comma = if port.dims.len() == 1 { "," } else { "" };
    format!("View::new(&{data}, ({shape}{comma}))?")
}

/// The number of elements of an input (of bytes, for a storage type), from the variables of its dimensions.
pub fn count(interface: &Interface, port: &Port) -> String {
    let mut constant = Expr::constant(1);
    let mut factors = Vec::new();
    for dim in &port.dims {
        match dim {
            Extent::Const(value) => constant = constant * Expr::constant(*value),
            Extent::Symbol(k) => factors.push(format!("{}.get()", interface.symbols[*k].variable)),
            Extent::Formula(formula) => constant = constant * Expr::constant(interface.typical(formula)),
        }
    }
    if factors.is_empty() || !constant.is(1) {
        factors.insert(0, constant.to_string());
    }
    let elements = factors.join(" * ");
    if port.element().is_some() { elements } else { format!("({elements} * {}).div_ceil(8)", port.dtype.bits()) }
}

/// A literal of an input's elements.
pub fn zero(port: &Port) -> &'static str {
    match port.element() {
        Some("F16") => "F16::default()",
        Some("BF16") => "BF16::default()",
        Some("bool") => "false",
        Some("f32" | "f64") => "0.0",
        Some(_) => "0",
        None => "0u8",
    }
}

/// An expression for a made-up element: noise for floats, 1 for others (a valid index nearly everywhere).
pub fn made_up(port: &Port) -> &'static str {
    match port.element() {
        Some("f32") => "noise()",
        Some("f64") => "f64::from(noise())",
        Some("F16") => "F16::from_f32(noise())",
        Some("BF16") => "BF16::from_f32(noise())",
        Some("bool") => "true",
        Some(_) => "1",
        None => "0",
    }
}
