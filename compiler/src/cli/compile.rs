//! `lapidary compile`: a model as the files of a crate.

use std::path::PathBuf;

use clap::Args;
use lapidary::emit::{self, Code, CrateFiles, Emission, EmittedTarget, Runtime};
use lapidary::folder::{self, Stale};
use lapidary::kernels::Toolchain;
use lapidary::lower::Target;
use lapidary::{Compiled, Options};

use super::{DenyArgs, Failure, ModelArgs, engine, golden, output, progress};

/// The command's arguments.
#[derive(Args)]
pub struct Compile {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    deny: DenyArgs,
    /// The folder that becomes the crate.
    #[arg(short, long)]
    output: PathBuf,
    /// What to compile for: cpu, sm_80, sm_90a; several separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "cpu")]
    target: Vec<Target>,
    /// The package's name; the folder's by default.
    #[arg(long)]
    name: Option<String>,
    /// Copy the runtime's source into the crate: the default, so that the crate builds wherever it is.
    #[arg(long, conflicts_with_all = ["runtime_path", "runtime_version"])]
    vendor_runtime: bool,
    /// Take the runtime from this folder, relative to the emitted crate.
    #[arg(long, value_name = "DIR", conflicts_with = "runtime_version")]
    runtime_path: Option<String>,
    /// Take this version of the runtime from the package registry.
    #[arg(long, value_name = "VERSION")]
    runtime_version: Option<String>,
    /// The CUDA toolkit that compiles the kernels; found by CUDA_HOME otherwise.
    #[arg(long, value_name = "PATH", conflicts_with = "kernel_sources")]
    toolkit: Option<PathBuf>,
    /// Write sources only; the crate's build script compiles the kernels with nvcc.
    #[arg(long)]
    kernel_sources: bool,
    /// Write into a folder that holds something else.
    #[arg(long)]
    force: bool,
}

impl Compile {
    /// Compiles and writes.
    pub fn run(self) -> Result<(), Failure> {
        let package = self.package()?;
        let stale = self.stale()?;
        let model = self.model.load()?;
        let options =
            Options { targets: self.target.clone(), deny: self.deny.reasons(), ..engine::options(&self.model.shape) };
        let spinner = progress::spinner("compiling".to_owned());
        let compiled = lapidary::compile(&model, &options)?;
        spinner.finish_and_clear();
        let toolchain = self.toolchain(&compiled)?;
        let compiler = toolchain.as_ref().map(Toolchain::to_string).unwrap_or_default();
        let mut cubins = Vec::new();
        for plan in &compiled.plans {
            cubins.push(match (plan.target, &toolchain) {
                (Target::Cuda(arch), Some(toolchain)) => Some(engine::compile_kernels(&plan.kernels, arch, toolchain)?),
                (Target::Cpu, _) => Some(Vec::new()),
                (Target::Cuda(_), None) => None,
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
        let golden = match golden::golden(&compiled.graph) {
            Ok(golden) => Some(golden),
            Err(why) => {
                output::note(format_args!("the crate's test only runs the model, as there is no golden case: {why}"));
                None
            }
        };
        let files = emit::emit(&Emission {
            package: &package,
            model: &lapidary::facts(&self.model.model, &model, options.precision),
            targets: &targets,
            runtime: self.runtime(),
            report: &compiled.report,
            golden: golden.as_ref(),
        });
        folder::write(&self.output, &files, stale)?;
        self.report(&compiled, &files)
    }

    fn package(&self) -> Result<String, Failure> {
        let folder = self.output.file_name().map(|name| name.to_string_lossy().into_owned());
        self.name.clone().or(folder).ok_or_else(|| {
            Failure::usage(format!("{} has no name", self.output.display()), "give the package a --name")
        })
    }

    /// What is stale in the folder. One that holds anything but an emitted crate is left alone, unless it is forced;
    /// and then nothing in it is removed.
    fn stale(&self) -> Result<Stale, Failure> {
        let occupied = std::fs::read_dir(&self.output).is_ok_and(|mut entries| entries.next().is_some());
        let emitted = self.output.join("src/plan.rs").is_file() && self.output.join("weights.bin").is_file();
        match (occupied, emitted) {
            (_, true) => Ok(Stale::Emitted),
            (true, false) if !self.force => Err(Failure::usage(
                format!("{} holds something that is no emitted crate", self.output.display()),
                "choose another folder, or say --force",
            )),
            (true | false, false) => Ok(Stale::Nothing),
        }
    }

    /// The CUDA compiler, where kernels are compiled here.
    fn toolchain(&self, compiled: &Compiled) -> Result<Option<Toolchain>, Failure> {
        let on_gpu = compiled.plans.iter().any(|plan| plan.target != Target::Cpu);
        if !on_gpu || self.kernel_sources {
            return Ok(None);
        }
        let found = Toolchain::find(self.toolkit.as_deref());
        match (&found, &self.toolkit) {
            (Some(_), _) => {}
            (None, Some(path)) => {
                return Err(Failure::usage(
                    format!("{} holds neither NVRTC nor nvcc", path.display()),
                    "name the folder of a CUDA toolkit, an NVRTC library or an nvcc; or leave --toolkit out",
                ));
            }
            (None, None) => output::note(
                "no CUDA compiler was found: the crate holds the kernels' sources, and its build script will run nvcc",
            ),
        }
        Ok(found)
    }

    fn runtime(&self) -> Runtime<'_> {
        match (&self.runtime_path, &self.runtime_version) {
            (Some(path), _) => Runtime::Path(path),
            (None, Some(version)) => Runtime::Version(version),
            (None, None) => Runtime::Vendored,
        }
    }

    fn report(&self, compiled: &Compiled, files: &CrateFiles) -> Result<(), Failure> {
        let bytes: usize = files.values().map(Vec::len).sum();
        output::line(format_args!("{}: {} files, {:.1} MB", self.output.display(), files.len(), bytes as f64 / 1e6))?;
        for plan in &compiled.plans {
            output::line(format_args!(
                "  {:<7} {} steps, {} kernels, {:.1} MB weights, {:.1} MB arena",
                plan.target.to_string(),
                plan.plan.step_count(),
                plan.kernels.kernels.len(),
                plan.plan.weight_bytes as f64 / 1e6,
                plan.plan.arenas.iter().map(|arena| arena.bytes).max().unwrap_or(0) as f64 / 1e6,
            ))?;
        }
        Ok(())
    }
}
