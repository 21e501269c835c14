//! `src/plan/<target>.rs` of an emitted crate: a plan's tables, one entry a line where it fits, each with its number
//! and the ONNX names in a comment.

use std::fmt::Write;

use bumpalo::Bump;
use lapidary_runtime::literal::Literal;
use lapidary_runtime::table::{self, Action, Dim, NONE, PlanTables, Segment, Step};

use super::layout::{comment, size, tidy, wrap};
use super::{Code, EmittedTarget};
use crate::lower::{Program, Target};

/// The text of a target's module.
pub fn module(target: &EmittedTarget<'_>) -> String {
    let bump = Bump::new();
    let plan = target.plan;
    let table_target = match plan.target {
        Target::Cpu => table::Target::Cpu,
        Target::Cuda(_) => table::Target::Cuda,
    };
    let tables = crate::plan::tables(&plan.plan, table_target, &plan.kernels, &[], &bump);
    let mut printer = Printer { out: String::new(), tables: &tables, program: &plan.plan.chosen.program, target };
    printer.head();
    printer.plan();
    printer.shapes();
    printer.tensors();
    for (k, segment) in tables.segments.iter().enumerate() {
        printer.segment(k, segment);
    }
    printer.kernels();
    printer.out
}

struct Printer<'a> {
    out: String,
    tables: &'a PlanTables<'a>,
    program: &'a Program,
    target: &'a EmittedTarget<'a>,
}

/// The static that holds a segment.
fn segment_name(index: usize) -> String {
    match index {
        PlanTables::INIT => "INIT".to_owned(),
        PlanTables::MAIN => "MAIN".to_owned(),
        branch => format!("BRANCH_{branch}"),
    }
}

/// As [`Literal`] writes it, with absent operands by their name.
fn step_literal(step: &Step<'_>) -> String {
    // Naming every field makes a new one fail to compile here.
    let Step { action, inputs, outputs, label } = step;
    let numbers = |tensors: &[u32]| {
        let number = |&tensor: &u32| if tensor == NONE { "NONE".to_owned() } else { tensor.to_string() };
        tensors.iter().map(number).collect::<Vec<_>>().join(", ")
    };
    let (inputs, outputs) = (numbers(inputs), numbers(outputs));
    let (action, label) = (action.to_literal(), label.to_literal());
    format!("Step {{ action: {action}, inputs: &[{inputs}], outputs: &[{outputs}], label: {label} }}")
}

impl Printer<'_> {
    fn line(&mut self, text: &str) {
        self.out.push_str(text);
        self.out.push('\n');
    }

    fn head(&mut self) {
        let tables = self.tables;
        let steps: usize = tables.segments[PlanTables::MAIN..].iter().map(|segment| segment.steps.len()).sum();
        let kernels = match tables.kernels.len() {
            0 => String::new(),
            1 => ", one kernel".to_owned(),
            count => format!(", {count} kernels"),
        };
        let target = self.target.plan.target;
        self.line(&format!(
            "//! The plan for `{target}`: {steps} steps{kernels}, {} of weights.",
            size(tables.weight_bytes)
        ));
        self.line("//!");
        self.line("//! Steps name tensors by their number in `TENSORS`, extents are constants or numbers in `SLOTS`.");
        self.line("//! `lapidary_runtime::table` documents the records.");
        self.line("");
        self.line("#![allow(unused_imports, reason = \"every plan uses some of the records\")]");
        self.line("");
        self.line("use lapidary_runtime::{Aligned, DType, op::*, table::*};");
    }

    fn plan(&mut self) {
        let tables = self.tables;
        let segments: Vec<String> =
            (0..tables.segments.len()).map(|k| format!("Segment {{ steps: {} }}", segment_name(k))).collect();
        let segments = wrap(&format!("&[{}]", segments.join(", ")), 4, 14);
        let target = tables.target.to_literal();
        let run_count = if tables.run_count == NONE { "NONE".to_owned() } else { tables.run_count.to_string() };
        let text = format!(
            "\n/// All of the plan.\n\
             pub static PLAN: PlanTables<'static> = PlanTables {{\n    \
             name: {:?},\n    target: {target},\n    symbols: SYMBOLS,\n    profiles: PROFILES,\n    slots: SLOTS,\n    \
             constraints: CONSTRAINTS,\n    inputs: INPUTS,\n    outputs: OUTPUTS,\n    run_count: {run_count},\n    \
             tensors: TENSORS,\n    weight_bytes: {},\n    derived_bytes: {},\n    counter_bytes: {},\n    segments: {segments},\n    kernels: KERNELS,\n    \
             images: IMAGES,\n}};",
            tables.name, tables.weight_bytes, tables.derived_bytes, tables.counter_bytes
        );
        self.line(&text);
    }

    /// A static slice: `entry` gives each element's literal and the comment behind it.
    fn list<T>(&mut self, docs: &str, name: &str, ty: &str, items: &[T], entry: impl Fn(&T) -> (String, String)) {
        let _ = write!(self.out, "\n/// {docs}\n");
        if items.is_empty() {
            let _ = writeln!(self.out, "static {name}: &[{ty}] = &[];");
            return;
        }
        let _ = writeln!(self.out, "#[rustfmt::skip]\nstatic {name}: &[{ty}] = &[");
        let digits = (items.len() - 1).to_string().len();
        for (k, item) in items.iter().enumerate() {
            let (literal, note) = entry(item);
            let number = format!("    /* {k:digits$} */ ");
            let literal = wrap(&tidy(&literal), 4, number.len() + 1);
            let note = if note.is_empty() { note } else { format!(" // {}", comment(&note)) };
            let _ = writeln!(self.out, "{number}{literal},{note}");
        }
        self.line("];");
    }

    fn shapes(&mut self) {
        let tables = self.tables;
        let plain = |literal: String| (literal, String::new());
        self.list(
            "The dimensions that callers choose, and where they are read.",
            "SYMBOLS",
            "Symbol<'static>",
            tables.symbols,
            |s| plain(s.to_literal()),
        );
        self.list(
            "The ranges of the dimensions, and where each buffer lies in the arena.",
            "PROFILES",
            "Profile<'static>",
            tables.profiles,
            |p| plain(p.to_literal()),
        );
        self.list("Extents that follow from the dimensions.", "SLOTS", "Formula<'static>", tables.slots, |s| {
            plain(s.to_literal())
        });
        self.list("What must hold of the shapes.", "CONSTRAINTS", "Constraint<'static>", tables.constraints, |c| {
            plain(c.to_literal())
        });
    }

    fn tensors(&mut self) {
        let tables = self.tables;
        let program = self.program;
        self.list("What the model takes.", "INPUTS", "Port<'static>", tables.inputs, |p| {
            (p.to_literal(), String::new())
        });
        self.list("What the model gives.", "OUTPUTS", "Port<'static>", tables.outputs, |p| {
            (p.to_literal(), String::new())
        });
        let named: Vec<(usize, &table::Tensor<'_>)> = tables.tensors.iter().enumerate().collect();
        let name = |k: usize| program.tensors.get(k).map_or("scratch".to_owned(), |tensor| tensor.name.to_string());
        self.list(
            "Every tensor: its type, its shape, and where it lies.",
            "TENSORS",
            "Tensor<'static>",
            &named,
            |(k, tensor)| (Literal::to_literal(*tensor), name(*k)),
        );
    }

    fn segment(&mut self, index: usize, segment: &Segment<'_>) {
        let docs = match index {
            PlanTables::INIT => "Runs once at load: what depends on the weights alone.",
            PlanTables::MAIN => "Runs at every request.",
            _ => "A branch of an `If`, or the body of a loop.",
        };
        let name = segment_name(index);
        let _ = write!(self.out, "\n/// {docs}\n");
        if segment.steps.is_empty() {
            let _ = writeln!(self.out, "static {name}: &[Step<'static>] = &[];");
            return;
        }
        let _ = writeln!(self.out, "#[rustfmt::skip]\nstatic {name}: &[Step<'static>] = &[");
        for (k, step) in segment.steps.iter().enumerate() {
            let kernel = match step.action {
                Action::Launch(launch) => format!(" by {}", self.tables.kernels[launch.kernel as usize].entry),
                Action::Cpu(_) | Action::If { .. } | Action::Loop { .. } | Action::Count { .. } => String::new(),
            };
            let (inputs, outputs) = (self.shapes_of(step.inputs), self.shapes_of(step.outputs));
            let _ = writeln!(self.out, "    // {k}: {inputs} -> {outputs}{kernel}");
            let _ = writeln!(self.out, "    {},", wrap(&tidy(&step_literal(step)), 4, 5));
        }
        self.line("];");
    }

    /// Types and shapes for a reader, such as `f32[batch, 3, 8, 8], -`.
    fn shapes_of(&self, tensors: &[u32]) -> String {
        let shape = |&index: &u32| {
            if index == NONE {
                return "-".to_owned();
            }
            let tensor = &self.tables.tensors[index as usize];
            let dims: Vec<String> = tensor
                .dims
                .iter()
                .map(|dim| match *dim {
                    Dim::Const(value) => value.to_string(),
                    Dim::Slot(slot) => comment(self.tables.slots[slot as usize].text),
                })
                .collect();
            format!("{}[{}]", tensor.dtype, dims.join(", "))
        };
        let shapes: Vec<String> = tensors.iter().map(shape).collect();
        if shapes.is_empty() { "nothing".to_owned() } else { shapes.join(", ") }
    }

    fn kernels(&mut self) {
        let tables = self.tables;
        self.list("The kernels, by the names of their files.", "KERNELS", "Kernel<'static>", tables.kernels, |k| {
            (k.to_literal(), String::new())
        });
        let arch = match self.target.plan.target {
            Target::Cuda(arch) if !tables.kernels.is_empty() => arch,
            Target::Cuda(_) | Target::Cpu => {
                self.line("\n/// Compiled kernels: none.\nstatic IMAGES: &[Images<'static>] = &[];");
                return;
            }
        };
        let kind = if arch.exact { "CubinExact" } else { "Cubin" };
        let _ = write!(
            self.out,
            "\n/// The compiled kernels.\n\
             #[rustfmt::skip]\n\
             static IMAGES: &[Images<'static>] = &[Images {{ arch: Arch {{ sm: {}, kind: ArchKind::{kind} }}, code: CODE }}];\n\n\
             /// Machine code in the order of `KERNELS`.\n#[rustfmt::skip]\nstatic CODE: &[&[u8]] = &[\n",
            arch.sm
        );
        for kernel in tables.kernels {
            let file = format!("{}.{arch}.cubin", kernel.entry);
            let bytes = match self.target.code {
                Code::Cubins { .. } => format!("include_bytes!(\"../../kernels/{file}\")"),
                Code::Sources => format!("include_bytes!(concat!(env!(\"OUT_DIR\"), \"/{file}\"))"),
            };
            let _ = writeln!(self.out, "    &Aligned(*{bytes}).0,");
        }
        self.line("];");
    }
}
