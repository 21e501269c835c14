//! A model run in this process: the same runtime and the same tables as in an emitted crate.

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

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Place::Reference => "reference",
            Place::Cpu => "cpu",
            Place::Cuda => "cuda",
        })
    }
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
    Options {
        precision: shape.precision,
        profiles: shape.profiles(),
        limits: shape.limits.limits(),
        ..Options::default()
    }
}

/// The architecture of the first GPU.
fn local_arch() -> Result<Arch, Failure> {
    let device = lapidary_runtime::cuda::Device::open(0).map_err(|error| {
        Failure::usage(format!("no GPU: {error}"), "run with --target cpu, or on a machine with a GPU")
    })?;
    let facts = device.facts();
    let (major, minor) = facts.compute_capability;
    Arch::for_device(major * 10 + minor).ok_or_else(|| unsupported(&facts.name, major, minor))
}

/// What is said of a GPU that no architecture here fits.
fn unsupported(name: &str, major: u32, minor: u32) -> Failure {
    let why = if major < OLDEST { "is too old" } else { "is not supported yet" };
    let known: Vec<String> = Arch::all().map(|arch| arch.to_string()).collect();
    Failure::usage(
        format!("{name} (compute capability {major}.{minor}) {why}: there are kernels for {}", known.join(", ")),
        "run with --target cpu, or on another GPU",
    )
}

/// The least major compute capability that kernels are written for: cp.async and bf16 begin with it.
const OLDEST: u32 = 8;

/// What a measurement was made on, such as `NVIDIA H200, driver for CUDA 13.0`.
pub fn device_name(place: Place) -> String {
    match place {
        Place::Cuda => match lapidary_runtime::cuda::Device::open(0) {
            Ok(device) => {
                let facts = device.facts();
                let (major, minor) = (facts.driver_version / 1000, facts.driver_version % 1000 / 10);
                format!("{}, driver for CUDA {major}.{minor}", facts.name)
            }
            Err(error) => format!("no GPU: {error}"),
        },
        Place::Cpu | Place::Reference => {
            let threads = std::thread::available_parallelism().map_or(1, usize::from);
            format!("{}, {threads} threads", processor())
        }
    }
}

/// The processor's name where the system tells it.
fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.trim().to_owned())
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
        Target::Cuda(arch) => {
            let toolchain = Toolchain::find(None).ok_or_else(|| Failure::Model(Toolchain::missing().into()))?;
            compile_kernels(kernel_set, arch, &toolchain)?
        }
    };
    let code: Vec<&[u8]> = code.iter().map(Vec::as_slice).collect();
    let (table_target, images) = match target_plan.target {
        Target::Cpu => (table::Target::Cpu, Vec::new()),
        Target::Cuda(arch) => (table::Target::Cuda, vec![Images { arch: table_arch(arch), code: &code }]),
    };
    let tables = tables(plan, table_target, kernel_set, &images, &bump);
    let weights = plan.weight_file();
    let options = lapidary_runtime::Options { launch, ..lapidary_runtime::Options::default() };
    let model = lapidary_runtime::Model::load(&tables, Weights::borrowed(&weights), options)?;
    let mut session = model.session()?;
    work(&mut session, &tables)
}

/// Compiles kernels, showing progress.
pub fn compile_kernels(set: &KernelSet, arch: Arch, toolchain: &Toolchain) -> Result<Vec<Vec<u8>>, Failure> {
    let bar = progress::bar("compiling kernels", set.kernels.len());
    let cubins = kernels::compile(set, arch, toolchain, &|done| bar.set_position(done as u64))?;
    bar.finish_and_clear();
    Ok(cubins)
}

/// The runtime's name of an architecture.
pub fn table_arch(arch: Arch) -> table::Arch {
    let kind = if arch.exact { ArchKind::CubinExact } else { ArchKind::Cubin };
    table::Arch { sm: arch.sm, kind }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_without_kernels_is_too_old_or_too_new() {
        let old = unsupported("Tesla T4", 7, 5).to_string();
        assert!(
            old.starts_with("error: Tesla T4 (compute capability 7.5) is too old: there are kernels for sm_80"),
            "{old}"
        );
        let new = unsupported("NVIDIA B200", 10, 0).to_string();
        assert!(new.contains("(compute capability 10.0) is not supported yet"), "{new}");
    }
}
