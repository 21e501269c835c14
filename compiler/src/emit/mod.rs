//! Checked plans to the files of a crate: typed Rust where a person reads, tables where a machine runs.
//!
//! Does: print. Needs: the plans of one model, for one or several targets, with their kernels. Keeps: every number of
//! the plans; the tables are those that the runtime gets in process. Pure and deterministic: the same emission gives
//! the same bytes, and no path, clock or machine is in them. Not here: compiling kernels ([`crate::kernels`]), writing
//! files ([`crate::folder`]).

mod api;
mod interface;
mod layout;
mod names;
mod sources;
mod tables;
mod text;
mod usage;

use std::collections::BTreeMap;

use lapidary_runtime::DType;

use crate::TargetPlan;
use crate::ir::Graph;
use crate::lower::Target;
use crate::passes::{Precision, Report};
use crate::plan::CheckedPlan;
use interface::Interface;
use text::Page;

/// Prints a crate.
pub fn emit(emission: &Emission<'_>) -> CrateFiles {
    let interface = interface(emission);
    let page = Page::new(emission, &interface, Form::Crate);
    let mut files = CrateFiles::new();
    texts(&page, &mut files);
    plans(&page, &mut files);
    if let Some(golden) = emission.golden {
        let inputs = interface.inputs.iter().map(text::input_file).zip(&golden.inputs);
        let outputs = interface.outputs.iter().map(text::output_file).zip(&golden.outputs);
        for (name, array) in inputs.chain(outputs) {
            files.insert(format!("tests/golden/{name}"), array.bytes.clone());
        }
    }
    if emission.runtime == Runtime::Vendored {
        put(&mut files, "vendor/lapidary-runtime/Cargo.toml", page.vendor_manifest());
        for (path, text) in lapidary_runtime::sources::FILES {
            put(&mut files, &format!("vendor/lapidary-runtime/{path}"), (*text).to_owned());
        }
    }
    files
}

/// Prints the sources of a crate as a module of another crate, which has to depend on `lapidary-runtime` itself.
/// Weights that are too large for a binary are not embedded. `runtime`, `report` and `golden` of the emission are not used;
/// `src/lib.rs` is the module's file.
pub fn module(emission: &Emission<'_>) -> Module {
    let interface = interface(emission);
    let mut files = CrateFiles::new();
    let page = Page::new(emission, &interface, Form::Module);
    put(&mut files, "src/lib.rs", api::lib(&interface, &facts(&page)));
    put(&mut files, "src/plan.rs", page.plan());
    plans(&page, &mut files);
    Module { name: interface.krate, files }
}

/// Prints the types of a module alone, for checking the code around a model; loading it is an error that says so.
/// An imported graph is enough: its sizes, which a plan decides, are 0.
pub fn stub(package: &str, model: &ModelFacts, graph: &Graph, targets: &[Target]) -> Module {
    let interface = Interface::of_graph(package, graph);
    let facts = api::Facts {
        targets: targets.to_vec(),
        form: Form::Stub,
        file: &model.file,
        arena_bytes: 0,
        weight_bytes: 0,
        example: usage::example(&interface, true),
    };
    let mut files = CrateFiles::new();
    put(&mut files, "src/lib.rs", api::lib(&interface, &facts));
    put(&mut files, "src/plan.rs", text::stub_plan(&interface));
    Module { name: interface.krate, files }
}

/// The files of a module, and its name.
#[derive(Clone, Debug)]
pub struct Module {
    /// A Rust identifier.
    pub name: String,
    pub files: CrateFiles,
}

/// What the Rust that is printed is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Crate,
    Module,
    Stub,
}

/// What a crate is made from.
pub struct Emission<'a> {
    /// The package's name, such as `resnet50`. Other characters than those of a package name are replaced.
    pub package: &'a str,
    pub model: &'a ModelFacts,
    /// At least one; all of the same graph.
    pub targets: &'a [EmittedTarget<'a>],
    pub runtime: Runtime<'a>,
    /// What the passes did with the graph of all targets.
    pub report: &'a Report,
    /// What the crate's own smoke test compares with.
    pub golden: Option<&'a Golden>,
}

/// A plan, and its machine code.
pub struct EmittedTarget<'a> {
    pub plan: &'a TargetPlan,
    pub code: Code<'a>,
}

/// The machine code of a plan's kernels.
pub enum Code<'a> {
    /// One cubin a kernel, in the order of [`crate::kernels::KernelSet::kernels`]; none on `cpu`. `compiler` names
    /// what made them, such as `nvrtc 13.0.88`.
    Cubins { cubins: &'a [Vec<u8>], compiler: &'a str },
    /// No CUDA compiler was at hand: the emitted crate's build script runs nvcc.
    Sources,
}

/// Where the model came from, for the model card.
#[derive(Clone, Debug, Default)]
pub struct ModelFacts {
    /// The file's name, without its folder.
    pub file: String,
    /// SHA-256 of the ONNX file, in hexadecimal digits.
    pub sha256: String,
    /// The version of the default operator set.
    pub opset: i64,
    /// The program that wrote the model, with its version; may be empty.
    pub producer: String,
    /// Inputs of the model that are constants here, and their elements.
    pub fixed: Vec<(String, String)>,
    /// The type that `f32` arithmetic was compiled to.
    pub precision: Precision,
}

/// Where the emitted crate gets `lapidary-runtime` from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime<'a> {
    /// A version of the registry, such as `0.1.0`.
    Version(&'a str),
    /// A folder, relative to the emitted crate or absolute.
    Path(&'a str),
    /// Its source, copied into the crate.
    Vendored,
}

/// Inputs and the outputs that the reference evaluator computes from them, in the order of the model's.
#[derive(Clone, Debug, Default)]
pub struct Golden {
    pub inputs: Vec<Array>,
    pub outputs: Vec<Array>,
}

/// A dense row-major array in little-endian bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    pub dtype: DType,
    pub dims: Vec<usize>,
    pub bytes: Vec<u8>,
}

/// The files of a crate: path, with `/` between folders, to bytes.
pub type CrateFiles = BTreeMap<String, Vec<u8>>;

/// The names of an emission, whose targets must agree.
fn interface(emission: &Emission<'_>) -> Interface {
    let plan = first_plan(emission);
    for target in emission.targets {
        let other = &target.plan.plan;
        if (&other.weights, other.weight_bytes) != (&plan.weights, plan.weight_bytes) {
            crate::bug!("the plan for {} lays out its weights in its own way", target.plan.target);
        }
    }
    Interface::of(emission.package, &plan.chosen.program)
}

fn first_plan<'e>(emission: &Emission<'e>) -> &'e CheckedPlan {
    match emission.targets.first() {
        Some(first) => &first.plan.plan,
        None => crate::bug!("a crate without a target"),
    }
}

impl<'a> Page<'a> {
    fn new(emission: &'a Emission<'a>, interface: &'a Interface, form: Form) -> Page<'a> {
        let arenas = emission.targets.iter().flat_map(|target| &target.plan.plan.arenas);
        let arena_bytes = arenas.map(|arena| arena.bytes).max().unwrap_or(0);
        Page { emission, form, interface, weight_bytes: first_plan(emission).weight_bytes, arena_bytes }
    }
}

fn facts<'p>(page: &'p Page<'_>) -> api::Facts<'p> {
    api::Facts {
        targets: page.emission.targets.iter().map(|target| target.plan.target).collect(),
        form: page.form,
        file: &page.emission.model.file,
        arena_bytes: page.arena_bytes,
        weight_bytes: page.weight_bytes,
        example: usage::example(page.interface, page.embeds()),
    }
}

fn texts(page: &Page<'_>, files: &mut CrateFiles) {
    put(files, "Cargo.toml", page.manifest());
    put(files, "README.md", page.readme());
    put(files, "passes.txt", page.emission.report.to_string());
    put(files, "src/lib.rs", api::lib(page.interface, &facts(page)));
    put(files, "src/plan.rs", page.plan());
    put(files, "examples/run.rs", page.example());
    put(files, "tests/smoke.rs", page.smoke());
    if page.has_sources() {
        put(files, "build.rs", page.build());
    }
}

/// The tables, kernels and weights.
fn plans(page: &Page<'_>, files: &mut CrateFiles) {
    for target in page.emission.targets {
        put(files, &format!("src/plan/{}.rs", target.plan.target), tables::module(target));
        sources::kernels(target, files);
    }
    files.insert("weights.bin".to_owned(), first_plan(page.emission).weight_file());
}

fn put(files: &mut CrateFiles, path: &str, text: String) {
    files.insert(path.to_owned(), text.into_bytes());
}
