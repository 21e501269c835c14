//! A model run in this process: the same runtime and the same tables as in an emitted crate.

use std::path::Path;

use bumpalo::Bump;
use lapidary::kernels::{self, KernelSet, Toolchain};
use lapidary::lower::Target;
use lapidary::onnx::Model;
use lapidary::plan::{CheckedPlan, tables};
use lapidary::{Compiled, Options};
use lapidary_runtime::table::{self, ArchKind, Images};
use lapidary_runtime::{LaunchMode, Session, Weights};
use lapidary_templates::Arch;

use super::{Failure, ShapeArgs, progress};

/// Where a model is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Place {
    /// The reference evaluator on the imported graph: slow and right.
    Reference,
    Cpu,
    /// The first NVIDIA GPU.
    Cuda,
}

/// Compiles a model for the CPU or the GPU that is here.
pub fn compile(model: &Model, place: Place, options: Options) -> Result<Compiled, Failure> {
    let targets = vec![match place {
        Place::Cuda => Target::Cuda(local_arch()?),
        Place::Cpu | Place::Reference => Target::Cpu,
    }];
    Ok(lapidary::compile(model, &Options { targets, ..options })?)
}

/// Options without targets.
pub fn options(shape: &ShapeArgs) -> Options {
    Options { targets: Vec::new(), precision: shape.precision, profiles: shape.profiles() }
}

/// The architecture of the first GPU.
fn local_arch() -> Result<Arch, Failure> {
    let device = lapidary_runtime::cuda::Device::open(0).map_err(|error| {
        Failure::usage(format!("no GPU: {error}"), "run with --target cpu, or on a machine with a GPU")
    })?;
    let facts = device.facts();
    let (major, minor) = facts.compute_capability;
    Arch::for_device(major * 10 + minor).ok_or_else(|| {
        Failure::usage(
            format!("{} (compute capability {major}.{minor}) is not supported", facts.name),
            "GPUs from compute capability 8.0 on are",
        )
    })
}

/// Loads the first plan of `compiled` and hands a session of it to `work`.
pub fn with_session<T>(
    compiled: &Compiled,
    launch: LaunchMode,
    work: impl FnOnce(&mut Session<'_>, &table::PlanTables<'_>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let Some(target_plan) = compiled.plans.first() else { lapidary::bug!("nothing was compiled") };
    let (plan, kernel_set): (&CheckedPlan, &KernelSet) = (&target_plan.plan, &target_plan.kernels);
    let bump = Bump::new();
    let code: Vec<Vec<u8>> = match target_plan.target {
        Target::Cpu => Vec::new(),
        Target::Cuda(arch) => compile_kernels(kernel_set, arch, None)?,
    };
    let code: Vec<&[u8]> = code.iter().map(Vec::as_slice).collect();
    let (table_target, images) = match target_plan.target {
        Target::Cpu => (table::Target::Cpu, Vec::new()),
        Target::Cuda(arch) => (table::Target::Cuda, vec![Images { arch: table_arch(arch), code: &code }]),
    };
    let tables = tables(plan, table_target, kernel_set, &images, &bump);
    let weights = plan.weight_file();
    let options = lapidary_runtime::Options { device: 0, launch };
    let model = lapidary_runtime::Model::load(&tables, Weights::borrowed(&weights), options)?;
    let mut session = model.session()?;
    work(&mut session, &tables)
}

/// Compiles kernels with the toolchain that is here, showing progress.
pub fn compile_kernels(set: &KernelSet, arch: Arch, toolkit: Option<&Path>) -> Result<Vec<Vec<u8>>, Failure> {
    let toolchain = Toolchain::find(toolkit).ok_or_else(|| {
        Failure::usage(
            "no CUDA compiler: neither NVRTC nor nvcc was found",
            "set CUDA_HOME to a CUDA toolkit; scripts/setup-cuda installs one without root",
        )
    })?;
    let bar = progress::bar("compiling kernels", set.kernels.len());
    let cubins = kernels::compile(set, arch, &toolchain, &|done| bar.set_position(done as u64))?;
    bar.finish_and_clear();
    Ok(cubins)
}

/// The runtime's name of an architecture.
pub fn table_arch(arch: Arch) -> table::Arch {
    let kind = if arch.exact { ArchKind::CubinExact } else { ArchKind::Cubin };
    table::Arch { sm: arch.sm, kind }
}
