//! Lapidary: an ahead-of-time compiler from ONNX models to standalone Rust crates.
//!
//! The flow is one-way, and [`compile`] is all of it up to the plans:
//!
//! ```text
//! bytes -onnx::load-> Model -onnx::import-> Graph -passes::run-> Graph
//!       -lower-> Program -select-> Chosen -plan-> Plan -plan::check-> CheckedPlan -emit-> the files of a crate
//! ```
//!
//! Each stage reads its predecessor's product and nothing else. Only passes rewrite, and only the graph. The stages
//! print nothing and touch no file but the model's. Beside them stand two helpers of the CLI and of `lapidary-build`
//! that do touch the machine, when they are called: [`kernels`] looks for a CUDA compiler and runs it, and [`folder`]
//! writes what was emitted.

pub mod diag;
pub mod emit;
pub mod folder;
pub mod ir;
pub mod kernels;
pub mod lower;
pub mod onnx;
pub mod passes;
pub mod plan;
pub mod profiles;
pub mod select;

use std::collections::BTreeSet;
use std::path::Path;

use diag::Result;
use emit::ModelFacts;
use ir::Graph;
use kernels::KernelSet;
use lower::Target;
use onnx::Numbers;
use passes::{Limits, Precision, Reason, Report};
use plan::CheckedPlan;
use profiles::Profiles;

/// What a model is compiled to.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// In the order in which they are planned; one that is named twice is planned once.
    pub targets: Vec<Target>,
    pub precision: Precision,
    pub profiles: Profiles,
    /// Which passes run.
    pub limits: Limits,
    /// Reasons for which no neighbours may stay apart.
    pub deny: BTreeSet<Reason>,
}

/// A compiled model: the graph that all targets share, and a plan for each.
pub struct Compiled {
    /// The graph behind the passes.
    pub graph: Graph,
    /// What the passes did, and what they left apart.
    pub report: Report,
    pub plans: Vec<TargetPlan>,
}

/// A checked plan for one target, and the kernels it launches.
pub struct TargetPlan {
    pub target: Target,
    pub plan: CheckedPlan,
    pub kernels: KernelSet,
}

/// Compiles a model: the whole pipeline.
///
/// # Errors
/// Everything that is wrong with the model, all together; E0502 for each pair of neighbours that `options` denies.
pub fn compile(model: &onnx::Model, options: &Options) -> Result<Compiled> {
    let graph = onnx::import(model, &options.profiles)?;
    verified(&graph, "import");
    let (graph, report) = optimize_within(graph, options.precision, &options.limits);
    let mut errors = report.denied(&options.deny);
    let mut seen = BTreeSet::new();
    let targets = options.targets.iter().filter(|target| seen.insert(**target));
    let plans = targets.filter_map(|&target| errors.keep(plan_for(&graph, target))).collect();
    errors.check()?;
    Ok(Compiled { graph, report, plans })
}

/// Runs the passes on an imported graph.
pub fn optimize(graph: Graph, precision: Precision) -> (Graph, Report) {
    optimize_within(graph, precision, &Limits::default())
}

/// Runs the passes that the limits allow.
pub fn optimize_within(graph: Graph, precision: Precision, limits: &Limits) -> (Graph, Report) {
    let graph = passes::precision::apply(graph, precision);
    verified(&graph, "precision");
    let (graph, report) = passes::run_within(graph, limits);
    verified(&graph, "passes");
    (graph, report)
}

/// Lowers, selects and plans a graph for one target.
///
/// # Errors
/// E0501 for each operation that has no kernel on the target.
pub fn plan_for(graph: &Graph, target: Target) -> Result<TargetPlan> {
    let program = lower::lower(graph, target)?;
    let chosen = select::select(program);
    let kernels = KernelSet::of(&chosen);
    match plan::check(plan::plan(chosen)) {
        Ok(plan) => Ok(TargetPlan { target, plan, kernels }),
        Err(errors) => bug!(dump: ir::text::print(graph); "the plan is wrong: {}", errors.join("; ")),
    }
}

/// What a model card says of the model that was loaded from the file at `path`.
pub fn facts(path: &Path, model: &onnx::Model, precision: Precision) -> ModelFacts {
    let producer = [model.proto.producer_name(), model.proto.producer_version()].join(" ");
    ModelFacts {
        file: path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
        sha256: model.sha256().iter().map(|byte| format!("{byte:02x}")).collect(),
        opset: model.opset("").unwrap_or(0),
        producer: producer.trim().to_owned(),
        fixed: model.fixed.iter().map(|fixed| (fixed.name.clone(), Numbers::from(&fixed.value).to_string())).collect(),
        precision,
    }
}

fn verified(graph: &Graph, stage: &str) {
    if let Err(errors) = ir::verify::verify(graph) {
        bug!(dump: ir::text::print(graph); "the graph behind {stage} is wrong: {}", errors.join("; "));
    }
}
