//! `lapidary compile`: a model as the files of a crate.

use std::path::{Path, PathBuf};

use clap::Args;
use lapidary::emit::{self, Array, Code, CrateFiles, Emission, EmittedTarget, Golden, ModelFacts, Runtime};
use lapidary::ir::eval::{self, Tensor};
use lapidary::ir::{Graph, Range};
use lapidary::kernels::Toolchain;
use lapidary::lower::Target;
use lapidary::onnx::Model;
use lapidary::{Compiled, Options};

use super::{Failure, ModelArgs, bench, engine, progress};

/// The command's arguments.
#[derive(Args)]
pub struct Compile {
    #[command(flatten)]
    model: ModelArgs,
    /// The folder that becomes the crate.
    #[arg(short, long)]
    output: PathBuf,
    /// What to compile for: cpu, sm_80, sm_90a; several separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "cpu")]
    target: Vec<Target>,
    /// The package's name; the folder's by default.
    #[arg(long)]
    name: Option<String>,
    /// Copy the runtime's source into the crate.
    #[arg(long, conflicts_with = "runtime_path")]
    vendor_runtime: bool,
    /// Take the runtime from this folder, relative to the emitted crate.
    #[arg(long)]
    runtime_path: Option<String>,
    /// The CUDA toolkit that compiles the kernels; found by CUDA_HOME otherwise.
    #[arg(long)]
    toolkit: Option<PathBuf>,
    /// Write sources only; the crate's build script compiles the kernels with nvcc.
    #[arg(long)]
    kernel_sources: bool,
    /// Write into a folder that holds something else.
    #[arg(long)]
    force: bool,
}

/// A golden larger than this stays out of the crate.
const MAX_GOLDEN_BYTES: usize = 256 << 10;
/// So does one whose evaluation would take long: activations of this many bytes and more.
const MAX_GOLDEN_ARENA: u64 = 16 << 20;

impl Compile {
    /// Compiles and writes.
    pub fn run(self) -> Result<(), Failure> {
        let package = self.package()?;
        self.check_folder()?;
        let model = self.model.load()?;
        let options = Options {
            targets: self.target.clone(),
            precision: self.model.shape.precision,
            profiles: self.model.shape.profiles(),
        };
        let spinner = progress::spinner("compiling".to_owned());
        let compiled = lapidary::compile(&model, &options)?;
        spinner.finish_and_clear();
        let toolchain = if self.kernel_sources { None } else { Toolchain::find(self.toolkit.as_deref()) };
        let compiler = toolchain.as_ref().map(Toolchain::to_string).unwrap_or_default();
        let mut cubins = Vec::new();
        for plan in &compiled.plans {
            cubins.push(match (plan.target, &toolchain) {
                (Target::Cuda(arch), Some(_)) => {
                    Some(engine::compile_kernels(&plan.kernels, arch, self.toolkit.as_deref())?)
                }
                (Target::Cpu, _) => Some(Vec::new()),
                (Target::Cuda(_), None) => {
                    eprintln!("note: no CUDA compiler was used: the crate's build script will run nvcc");
                    None
                }
            });
        }
        let targets: Vec<EmittedTarget<'_>> = compiled
            .plans
            .iter()
            .zip(&cubins)
            .map(|(plan, cubins)| EmittedTarget {
                plan,
                code: match cubins {
                    Some(cubins) => Code::Cubins { cubins, compiler: &compiler },
                    None => Code::Sources,
                },
            })
            .collect();
        let golden = golden(&compiled)?;
        let runtime = match (&self.runtime_path, self.vendor_runtime) {
            (Some(path), _) => Runtime::Path(path),
            (None, true) => Runtime::Vendored,
            (None, false) => Runtime::Version(env!("CARGO_PKG_VERSION")),
        };
        let facts = facts(&self.model.model, &model);
        let files = emit::emit(&Emission {
            package: &package,
            model: &facts,
            targets: &targets,
            runtime,
            golden: golden.as_ref(),
        });
        self.write(&files)?;
        self.report(&compiled, &files);
        Ok(())
    }

    fn package(&self) -> Result<String, Failure> {
        let folder = self.output.file_name().map(|name| name.to_string_lossy().into_owned());
        self.name.clone().or(folder).ok_or_else(|| {
            Failure::usage(format!("{} has no name", self.output.display()), "give the package a --name")
        })
    }

    /// A folder that holds anything but an emitted crate is left alone.
    fn check_folder(&self) -> Result<(), Failure> {
        let occupied = std::fs::read_dir(&self.output).is_ok_and(|mut entries| entries.next().is_some());
        let emitted = self.output.join("src/plan.rs").is_file() && self.output.join("weights.bin").is_file();
        if occupied && !emitted && !self.force {
            return Err(Failure::usage(
                format!("{} holds something that is no emitted crate", self.output.display()),
                "choose another folder, or say --force",
            ));
        }
        Ok(())
    }

    fn write(&self, files: &CrateFiles) -> Result<(), Failure> {
        // Kernels of an earlier emission have other names.
        let kernels = self.output.join("kernels");
        if kernels.is_dir() {
            std::fs::remove_dir_all(&kernels).map_err(|error| Failure::file(&kernels, error))?;
        }
        for (path, bytes) in files {
            let path = self.output.join(path);
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder).map_err(|error| Failure::file(folder, error))?;
            }
            // An unchanged file keeps its time stamp, so that cargo builds nothing anew.
            if std::fs::read(&path).is_ok_and(|old| old == *bytes) {
                continue;
            }
            std::fs::write(&path, bytes).map_err(|error| Failure::file(&path, error))?;
        }
        Ok(())
    }

    fn report(&self, compiled: &Compiled, files: &CrateFiles) {
        let bytes: usize = files.values().map(Vec::len).sum();
        println!("{}: {} files, {:.1} MB", self.output.display(), files.len(), bytes as f64 / 1e6);
        for plan in &compiled.plans {
            println!(
                "  {:<7} {} steps, {} kernels, {:.1} MB weights, {:.1} MB arena",
                plan.target.to_string(),
                plan.plan.step_count(),
                plan.kernels.kernels.len(),
                plan.plan.weight_bytes as f64 / 1e6,
                plan.plan.arenas.iter().map(|arena| arena.bytes).max().unwrap_or(0) as f64 / 1e6,
            );
        }
    }
}

fn facts(path: &Path, model: &Model) -> ModelFacts {
    let producer = [model.proto.producer_name(), model.proto.producer_version()].join(" ");
    ModelFacts {
        file: path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
        sha256: model.sha256().iter().map(|byte| format!("{byte:02x}")).collect(),
        opset: model.opset("").unwrap_or(0),
        producer: producer.trim().to_owned(),
    }
}

/// Seeded inputs at the smallest shapes that the model accepts, and what the reference evaluator makes of them, where
/// both are small. Where the smallest extents do not go together, the typical ones do.
fn golden(compiled: &Compiled) -> Result<Option<Golden>, Failure> {
    let arena = |plan: &lapidary::TargetPlan| plan.plan.arenas.iter().map(|arena| arena.bytes).max().unwrap_or(0);
    if compiled.plans.iter().map(arena).max().unwrap_or(0) > MAX_GOLDEN_ARENA {
        return Ok(None);
    }
    let graph = &compiled.graph;
    let smallest = |name: &str| bench::extent_of(graph, name, |range| range.min);
    let extent: fn(&Range) -> i64 = match graph.constraints.iter().all(|constraint| constraint.holds(&smallest)) {
        true => |range| range.min,
        false => |range| range.opt,
    };
    let inputs = bench::random_inputs(graph, extent);
    let outputs = evaluate(graph, &inputs)?;
    let arrays = |tensors: Vec<Tensor>| -> Vec<Array> {
        tensors
            .into_iter()
            .map(|tensor| Array { dtype: tensor.dtype, dims: tensor.dims, bytes: tensor.bytes.to_vec() })
            .collect()
    };
    let golden = Golden { inputs: arrays(inputs), outputs: arrays(outputs) };
    let bytes: usize = golden.inputs.iter().chain(&golden.outputs).map(|array| array.bytes.len()).sum();
    Ok((bytes <= MAX_GOLDEN_BYTES).then_some(golden))
}

fn evaluate(graph: &Graph, inputs: &[Tensor]) -> Result<Vec<Tensor>, Failure> {
    let spinner = progress::spinner("evaluating a golden case".to_owned());
    let outputs = eval::run(graph, inputs).map_err(|error| Failure::Result(format!("error: {error}")))?;
    spinner.finish_and_clear();
    Ok(outputs)
}
