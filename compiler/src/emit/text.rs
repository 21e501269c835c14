//! The values that go into the templates of an emitted crate's text files.

use lapidary_runtime::DType;
use lapidary_templates::package::Text;
use serde::Serialize;

use super::interface::{Extent, Interface, Port};
use super::layout::size;
use super::names::code;
use super::{Code, Emission, EmittedTarget, Form, Golden, Runtime, usage};
use crate::kernels::{NVCC_OPTIONS, gencode};
use crate::lower::Target;

/// Weights larger than this are not put into the binary by default.
const MOST_EMBEDDED_BYTES: u64 = 128 << 20;

/// The version of Lapidary, and of its runtime.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What several files state.
pub struct Page<'a> {
    pub emission: &'a Emission<'a>,
    pub form: Form,
    pub interface: &'a Interface,
    pub weight_bytes: u64,
    pub arena_bytes: u64,
}

/// How a program that lies in the crate gives the path of weights that are not embedded.
const WEIGHTS_BY_PATH: &str = ".weights(concat!(env!(\"CARGO_MANIFEST_DIR\"), \"/weights.bin\"))";

impl Page<'_> {
    /// Whether the feature `embed-weights` is on by default.
    pub fn embeds(&self) -> bool {
        self.weight_bytes <= MOST_EMBEDDED_BYTES
    }

    fn has_cpu(&self) -> bool {
        self.emission.targets.iter().any(|target| target.plan.target == Target::Cpu)
    }

    fn has_cuda(&self) -> bool {
        self.emission.targets.iter().any(|target| target.plan.target != Target::Cpu)
    }

    /// Whether the crate's build script compiles kernels.
    pub fn has_sources(&self) -> bool {
        let needs = |target: &EmittedTarget<'_>| {
            matches!(target.code, Code::Sources) && !target.plan.kernels.kernels.is_empty()
        };
        self.emission.targets.iter().any(needs)
    }

    /// `Cargo.toml`.
    pub fn manifest(&self) -> String {
        #[derive(Serialize)]
        struct Values<'v> {
            lapidary: &'v str,
            file: String,
            package: &'v str,
            sources: bool,
            embed: bool,
            runtime: String,
            cpu: bool,
        }
        let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "/").replace('"', ""));
        let source = match self.emission.runtime {
            Runtime::Version(version) => format!("version = {}", quoted(version)),
            Runtime::Path(path) => format!("path = {}", quoted(path)),
            Runtime::Vendored => "path = \"vendor/lapidary-runtime\"".to_owned(),
        };
        let features = if self.has_cpu() { ", features = [\"cpu\"]" } else { "" };
        render(
            Text::Manifest,
            &Values {
                lapidary: VERSION,
                file: super::layout::comment(&self.emission.model.file),
                package: &self.interface.package,
                sources: self.has_sources(),
                embed: self.embeds(),
                runtime: format!("{{ {source}{features} }}"),
                cpu: self.has_cpu(),
            },
        )
    }

    /// `Cargo.toml` of the vendored runtime.
    pub fn vendor_manifest(&self) -> String {
        #[derive(Serialize)]
        struct Values<'v> {
            lapidary: &'v str,
            cpu: bool,
        }
        render(Text::VendorManifest, &Values { lapidary: VERSION, cpu: self.has_cpu() })
    }

    /// `src/plan.rs`.
    pub fn plan(&self) -> String {
        let weights = match self.form {
            Form::Crate => "feature",
            Form::Module if self.embeds() => "embedded",
            Form::Module => "file",
            Form::Stub => "none",
        };
        let names = |wanted: &dyn Fn(Target) -> bool| -> Vec<String> {
            let targets = self.emission.targets.iter().map(|target| target.plan.target);
            let mut names: Vec<String> = targets.filter(|target| wanted(*target)).map(|t| t.to_string()).collect();
            names.sort();
            names
        };
        let archs = names(&|target| target != Target::Cpu);
        // With one architecture there is nothing to choose.
        let archs = if archs.len() > 1 { archs } else { Vec::new() };
        let symbols = !self.interface.symbols.is_empty();
        render(Text::Plan, &PlanValues { targets: names(&|_| true), archs, symbols, weights })
    }

    /// `build.rs`, for the targets whose kernels were not compiled.
    pub fn build(&self) -> String {
        #[derive(Serialize)]
        struct Kernel<'v> {
            entry: &'v str,
            arch: String,
            gencode: String,
        }
        #[derive(Serialize)]
        struct Values<'v> {
            kernels: Vec<Kernel<'v>>,
            options: [&'v str; 3],
        }
        let mut kernels = Vec::new();
        for target in self.emission.targets {
            let (Target::Cuda(arch), Code::Sources) = (target.plan.target, &target.code) else { continue };
            kernels.extend(target.plan.kernels.kernels.iter().map(|kernel| Kernel {
                entry: &kernel.entry,
                arch: arch.to_string(),
                gencode: gencode(arch),
            }));
        }
        render(Text::Build, &Values { kernels, options: NVCC_OPTIONS })
    }

    /// `README.md`.
    pub fn readme(&self) -> String {
        #[derive(Serialize)]
        struct PortRow<'v> {
            onnx: String,
            field: &'v str,
            dtype: DTypeName,
            shape: String,
        }
        #[derive(Serialize)]
        struct FixedRow {
            onnx: String,
            value: String,
        }
        #[derive(Serialize)]
        struct SymbolRow<'v> {
            onnx: String,
            ty: &'v str,
            values: String,
        }
        #[derive(Serialize)]
        struct Values<'v> {
            package: &'v str,
            file: String,
            file_code: String,
            lapidary: &'v str,
            targets_text: String,
            sources: bool,
            cuda: bool,
            cpu: bool,
            vendored: bool,
            embed: bool,
            golden: bool,
            example: String,
            inputs: Vec<PortRow<'v>>,
            outputs: Vec<PortRow<'v>>,
            symbols: Vec<SymbolRow<'v>>,
            plans: Vec<PlanRow>,
            weights: String,
            sha256: &'v str,
            opset: i64,
            precision: String,
            producer: String,
            fixed: Vec<FixedRow>,
        }
        let interface = self.interface;
        let port = |port: &'_ Port| -> (String, DTypeName, String) {
            (code(&port.onnx), DTypeName(port.dtype.name()), code(&port.shape(&interface.symbols)))
        };
        let row = |ports: &'_ [Port]| -> Vec<(String, DTypeName, String)> { ports.iter().map(port).collect() };
        fn rows(cells: Vec<(String, DTypeName, String)>, ports: &[Port]) -> Vec<PortRow<'_>> {
            let both = cells.into_iter().zip(ports);
            both.map(|((onnx, dtype, shape), port)| PortRow { onnx, field: &port.field, dtype, shape }).collect()
        }
        let symbols = interface.symbols.iter().map(|symbol| SymbolRow {
            onnx: code(&symbol.onnx),
            ty: &symbol.ty,
            values: code(&symbol.values()),
        });
        let model = self.emission.model;
        let targets: Vec<String> =
            self.emission.targets.iter().map(|target| format!("`{}`", target.plan.target)).collect();
        render(
            Text::Readme,
            &Values {
                package: &interface.package,
                file: super::layout::comment(&model.file).replace('`', "'"),
                file_code: code(&model.file),
                lapidary: VERSION,
                targets_text: targets.join(", "),
                sources: self.has_sources(),
                cuda: self.has_cuda(),
                cpu: self.has_cpu(),
                vendored: self.emission.runtime == Runtime::Vendored,
                embed: self.embeds(),
                golden: self.emission.golden.is_some(),
                example: usage::example(interface, self.embeds()),
                inputs: rows(row(&interface.inputs), &interface.inputs),
                outputs: rows(row(&interface.outputs), &interface.outputs),
                symbols: symbols.collect(),
                plans: self.emission.targets.iter().flat_map(plan_rows).collect(),
                weights: size(self.weight_bytes),
                sha256: &model.sha256,
                opset: model.opset,
                precision: model.precision.to_string(),
                producer: if model.producer.is_empty() { "unknown".to_owned() } else { code(&model.producer) },
                fixed: model
                    .fixed
                    .iter()
                    .map(|(name, value)| FixedRow { onnx: code(name), value: code(value) })
                    .collect(),
            },
        )
    }

    /// `examples/run.rs`.
    pub fn example(&self) -> String {
        #[derive(Serialize)]
        struct Output {
            printed: String,
            shape: String,
        }
        #[derive(Serialize)]
        struct Values<'v> {
            krate: &'v str,
            model: &'v str,
            imports: String,
            weights: &'v str,
            both: bool,
            noise: bool,
            symbols: Vec<SymbolValue<'v>>,
            inputs: Vec<InputValue<'v>>,
            outputs: Vec<Output>,
        }
        let interface = self.interface;
        let output = |port: &Port| Output {
            // In a format string.
            printed: super::layout::comment(&port.onnx).replace('{', "{{").replace('}', "}}").replace('"', "\\\""),
            shape: if port.element().is_some() {
                format!("outputs.{}.shape().extents()", port.field)
            } else {
                format!("outputs.{}.dims()", port.field)
            },
        };
        let both = self.has_cpu() && self.has_cuda();
        let shapes = interface.outputs.iter().any(|port| port.element().is_some());
        let others: Vec<&str> = both.then_some("Target").into_iter().chain(shapes.then_some("Shape")).collect();
        let symbols = interface.symbols.iter().map(|symbol| SymbolValue {
            variable: &symbol.variable,
            ty: &symbol.ty,
            value: symbol.typical(),
        });
        let inputs: Vec<InputValue<'_>> = interface.inputs.iter().map(|port| self.input(port)).collect();
        render(
            Text::Example,
            &Values {
                krate: &interface.krate,
                model: &interface.model,
                imports: usage::imports(interface, &others),
                weights: if self.embeds() { "" } else { WEIGHTS_BY_PATH },
                both,
                noise: inputs.iter().any(|input| input.made_up.contains("noise")),
                symbols: symbols.collect(),
                inputs,
                outputs: interface.outputs.iter().map(output).collect(),
            },
        )
    }

    /// `tests/smoke.rs`.
    pub fn smoke(&self) -> String {
        #[derive(Serialize)]
        struct Output<'v> {
            field: &'v str,
            typed: bool,
            dims: String,
            file: String,
        }
        #[derive(Serialize)]
        struct Values<'v> {
            krate: &'v str,
            model: &'v str,
            imports: String,
            weights: &'v str,
            golden: bool,
            typed: bool,
            cuda: bool,
            both: bool,
            symbols: Vec<SymbolValue<'v>>,
            inputs: Vec<InputValue<'v>>,
            outputs: Vec<Output<'v>>,
            numbers: Vec<Number>,
            tolerance: &'v str,
        }
        let interface = self.interface;
        let golden = self.emission.golden;
        let both = self.has_cpu() && self.has_cuda();
        let symbols = interface.symbols.iter().enumerate().map(|(k, symbol)| SymbolValue {
            variable: &symbol.variable,
            ty: &symbol.ty,
            value: golden.and_then(|golden| golden_extent(interface, golden, k)).unwrap_or(symbol.typical()),
        });
        let outputs = interface.outputs.iter().enumerate().map(|(k, port)| {
            let array = golden.and_then(|golden| golden.outputs.get(k));
            Output {
                field: &port.field,
                typed: port.element().is_some(),
                dims: format!("{:?}", array.map_or(&[][..], |array| &array.dims)),
                file: output_file(port),
            }
        });
        let ports = || interface.inputs.iter().chain(&interface.outputs);
        let half = ports().any(|port| matches!(port.dtype, DType::F16 | DType::BF16));
        let mut others = if both { vec!["Builder", "Target"] } else { vec![] };
        let typed = interface.outputs.iter().any(|port| port.element().is_some());
        if golden.is_some() && typed {
            others.extend(["Element", "Shape", "View"]);
            others.extend(ports().filter_map(Port::element).filter(|element| matches!(*element, "F16" | "BF16")));
        }
        render(
            Text::Smoke,
            &Values {
                krate: &interface.krate,
                model: &interface.model,
                imports: usage::imports(interface, &others),
                weights: if self.embeds() { "" } else { WEIGHTS_BY_PATH },
                golden: golden.is_some(),
                typed,
                cuda: self.has_cuda(),
                both,
                symbols: symbols.collect(),
                inputs: interface.inputs.iter().map(|port| self.input(port)).collect(),
                outputs: outputs.collect(),
                numbers: numbers(ports()),
                tolerance: if half { "1e-2" } else { "1e-3" },
            },
        )
    }

    fn input<'v>(&'v self, port: &'v Port) -> InputValue<'v> {
        InputValue {
            field: &port.field,
            variable: &port.variable,
            element: port.element().unwrap_or("u8"),
            typed: port.element().is_some(),
            count: usage::count(self.interface, port),
            made_up: usage::made_up(port),
            zero: usage::zero(port),
            view: usage::view(self.interface, port),
            file: input_file(port),
        }
    }
}

/// What `src/plan.rs` declares.
#[derive(Serialize)]
struct PlanValues {
    targets: Vec<String>,
    archs: Vec<String>,
    symbols: bool,
    weights: &'static str,
}

/// `src/plan.rs` of a stub, which has no plan.
pub fn stub_plan(interface: &Interface) -> String {
    let symbols = !interface.symbols.is_empty();
    render(Text::Plan, &PlanValues { targets: Vec::new(), archs: Vec::new(), symbols, weights: "none" })
}

/// The name of an input's file in `tests/golden`.
pub fn input_file(port: &Port) -> String {
    format!("input_{}.bin", port.field)
}

/// The name of an output's file in `tests/golden`.
pub fn output_file(port: &Port) -> String {
    format!("output_{}.bin", port.field)
}

fn render(text: Text, values: &impl Serialize) -> String {
    match text.render(values) {
        Ok(text) => text,
        Err(error) => crate::bug!("the template of {text:?}: {error}"),
    }
}

/// An element type's name, as ONNX users know it.
#[derive(Serialize)]
struct DTypeName(&'static str);

#[derive(Serialize)]
struct SymbolValue<'v> {
    variable: &'v str,
    ty: &'v str,
    value: i64,
}

#[derive(Serialize)]
struct InputValue<'v> {
    field: &'v str,
    variable: &'v str,
    element: &'v str,
    typed: bool,
    count: String,
    made_up: &'v str,
    zero: &'v str,
    view: String,
    file: String,
}

/// How a test reads an element type.
#[derive(Serialize)]
struct Number {
    ty: &'static str,
    is_float: bool,
    read: String,
    value: &'static str,
}

fn numbers<'p>(ports: impl Iterator<Item = &'p Port>) -> Vec<Number> {
    let mut dtypes: Vec<(DType, &'static str)> = ports.filter_map(|port| Some((port.dtype, port.element()?))).collect();
    dtypes.sort_unstable();
    dtypes.dedup();
    let number = |(dtype, ty): (DType, &'static str)| {
        let bytes: Vec<String> = (0..dtype.bits() / 8).map(|k| format!("bytes[{k}]")).collect();
        let bytes = bytes.join(", ");
        let (read, value) = match ty {
            "F16" | "BF16" => (format!("{ty}(u16::from_le_bytes([{bytes}]))"), "f64::from(self.to_f32())"),
            "bool" => (format!("{bytes} != 0"), "f64::from(u8::from(self))"),
            "f64" => (format!("f64::from_le_bytes([{bytes}])"), "self"),
            "i64" | "u64" => (format!("{ty}::from_le_bytes([{bytes}])"), "self as f64"),
            _ => (format!("{ty}::from_le_bytes([{bytes}])"), "f64::from(self)"),
        };
        Number { ty, is_float: dtype.is_float(), read, value }
    };
    dtypes.into_iter().map(number).collect()
}

/// The extent that symbol `k` has in the golden inputs.
fn golden_extent(interface: &Interface, golden: &Golden, k: usize) -> Option<i64> {
    let ports = interface.inputs.iter().zip(&golden.inputs);
    let mut extents = ports.flat_map(|(port, array)| port.dims.iter().zip(&array.dims));
    let (_, &extent) = extents.find(|(dim, _)| **dim == Extent::Symbol(k))?;
    i64::try_from(extent).ok()
}

#[derive(Serialize)]
struct PlanRow {
    target: String,
    profile: String,
    steps: usize,
    kernels: usize,
    arena: String,
    derived: String,
    compiler: String,
}

fn plan_rows(target: &EmittedTarget<'_>) -> Vec<PlanRow> {
    let plan = &target.plan.plan;
    let program = &plan.chosen.program;
    let compiler = match (&target.code, target.plan.target) {
        (_, Target::Cpu) => "-",
        (Code::Cubins { compiler, .. }, Target::Cuda(_)) => compiler,
        (Code::Sources, Target::Cuda(_)) => "nvcc, by this crate's build script",
    };
    let row = |(profile, arena): (usize, &crate::plan::Arena)| {
        let ranges: Vec<String> = program
            .symbols
            .iter()
            .map(|(name, _)| {
                let range = program.symbol_range(name, profile);
                code(&format!("{name} = {}..={}", range.min, range.max))
            })
            .collect();
        PlanRow {
            target: format!("`{}`", target.plan.target),
            profile: if ranges.is_empty() { "fixed shapes".to_owned() } else { ranges.join(", ") },
            steps: plan.step_count(),
            kernels: target.plan.kernels.kernels.len(),
            arena: size(arena.bytes),
            derived: size(plan.derived_bytes),
            compiler: compiler.to_owned(),
        }
    };
    plan.arenas.iter().enumerate().map(row).collect()
}
