//! Checked plans to the files of a crate: typed Rust where a person reads, tables where a machine runs.
//!
//! Does: print. Needs: the plans of one model, for one or several targets, with their kernels. Keeps: every number of
//! the plans; the tables are those that the runtime gets in process. Pure and deterministic: the same emission gives
//! the same bytes, and no path, clock or machine is in them. Not here: compiling kernels ([`crate::kernels`]), writing
//! files (the CLI and `lapidary-build` do).

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
use crate::lower::Target;
use interface::Interface;
use text::Page;

/// Prints a crate.
pub fn emit(emission: &Emission<'_>) -> CrateFiles {
    let Some(first) = emission.targets.first() else { crate::bug!("a crate without a target") };
    let plan = &first.plan.plan;
    for target in emission.targets {
        let other = &target.plan.plan;
        if (&other.weights, other.weight_bytes) != (&plan.weights, plan.weight_bytes) {
            crate::bug!(
                "the targets {} and {} lay out their weights differently",
                first.plan.target,
                target.plan.target
            );
        }
    }
    let interface = Interface::of(emission.package, &plan.chosen.program);
    let arenas = emission.targets.iter().flat_map(|target| &target.plan.plan.arenas);
    let page = Page {
        emission,
        interface: &interface,
        weight_bytes: plan.weight_bytes,
        arena_bytes: arenas.map(|arena| arena.bytes).max().unwrap_or(0),
    };
    let mut files = CrateFiles::new();
    texts(&page, &mut files);
    for target in emission.targets {
        put(&mut files, &format!("src/plan/{}.rs", target.plan.target), tables::module(target));
        sources::kernels(target, &mut files);
    }
    files.insert("weights.bin".to_owned(), plan.weight_file());
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

/// What a crate is made from.
pub struct Emission<'a> {
    /// The package's name, such as `resnet50`. Other characters than those of a package name are replaced.
    pub package: &'a str,
    pub model: &'a ModelFacts,
    /// At least one; all of the same graph.
    pub targets: &'a [EmittedTarget<'a>],
    pub runtime: Runtime<'a>,
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

fn texts(page: &Page<'_>, files: &mut CrateFiles) {
    let targets: Vec<Target> = page.emission.targets.iter().map(|target| target.plan.target).collect();
    let facts = api::Facts {
        targets: &targets,
        file: &page.emission.model.file,
        arena_bytes: page.arena_bytes,
        weight_bytes: page.weight_bytes,
        example: usage::example(page.interface, page.embeds()),
    };
    put(files, "Cargo.toml", page.manifest());
    put(files, "README.md", page.readme());
    put(files, "src/lib.rs", api::lib(page.interface, &facts));
    put(files, "src/plan.rs", page.plan());
    put(files, "examples/run.rs", page.example());
    put(files, "tests/smoke.rs", page.smoke());
    if page.has_sources() {
        put(files, "build.rs", page.build());
    }
}

fn put(files: &mut CrateFiles, path: &str, text: String) {
    files.insert(path.to_owned(), text.into_bytes());
}
