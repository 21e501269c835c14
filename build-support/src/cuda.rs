//! The CUDA compiler that the user named, and its cubins.

use std::path::{Path, PathBuf};

use lapidary::TargetPlan;
use lapidary::kernels::{self, Toolchain};
use lapidary::lower::Target;

use crate::Error;

/// The variables that name a toolkit, in the order in which they count.
pub const VARIABLES: [&str; 2] = ["CUDA_HOME", "NVCC"];

/// The compiler at `explicit`, else that of `CUDA_HOME`, else that of `NVCC`.
///
/// # Errors
/// A path that holds no compiler, or none named at all.
pub fn toolchain(explicit: Option<&Path>) -> Result<Toolchain, Error> {
    let home = || std::env::var_os("CUDA_HOME").map(PathBuf::from);
    let Some(path) = explicit.map(Path::to_owned).or_else(home).or_else(nvcc) else {
        return Err(Error::Model(Toolchain::missing().into()));
    };
    Toolchain::find(Some(&path)).ok_or_else(|| {
        Error::Call(vec![format!(
            "{} holds neither NVRTC nor nvcc; name a CUDA toolkit by `Compiler::cuda`, CUDA_HOME or NVCC",
            path.display()
        )])
    })
}

/// The nvcc that `NVCC` names, or a form of it for this target (`NVCC_x86_64_unknown_linux_gnu`), as `cc` reads them.
fn nvcc() -> Option<PathBuf> {
    let is_named = |(name, _): (std::ffi::OsString, _)| name.to_string_lossy().starts_with("NVCC");
    if !std::env::vars_os().any(is_named) {
        return None;
    }
    let tool = cc::Build::new().cuda(true).cargo_metadata(false).try_get_compiler();
    // Outside of a build script `cc` does not know the target, and then the plain variable counts.
    tool.map(|tool| tool.path().to_owned()).ok().or_else(|| std::env::var_os("NVCC").map(PathBuf::from))
}

/// The cubins of a plan; none on `cpu`.
pub fn cubins(plan: &TargetPlan, toolchain: Option<&Toolchain>) -> Result<Vec<Vec<u8>>, Error> {
    match (plan.target, toolchain) {
        (Target::Cuda(arch), Some(toolchain)) => Ok(kernels::compile(&plan.kernels, arch, toolchain, &|_| ())?),
        (Target::Cuda(_), None) | (Target::Cpu, _) => Ok(Vec::new()),
    }
}
