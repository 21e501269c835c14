//! The CUDA compiler that the user named, and its cubins.

use std::path::{Path, PathBuf};

use lapidary::TargetPlan;
use lapidary::kernels::{self, Toolchain};
use lapidary::lower::Target;

use crate::Error;

/// The variables that name a toolkit: `CUDA_HOME`, and the forms of `NVCC` that `cc` reads for this target.
pub fn variables() -> Vec<String> {
    let mut names = vec!["CUDA_HOME".to_owned()];
    names.extend(nvcc_variables(std::env::var("TARGET").ok().as_deref()));
    names
}

/// `NVCC` and its forms for one target; outside of a build script there is none.
fn nvcc_variables(target: Option<&str>) -> Vec<String> {
    let mut names = vec!["NVCC".to_owned(), "HOST_NVCC".to_owned(), "TARGET_NVCC".to_owned()];
    if let Some(target) = target {
        names.push(format!("NVCC_{target}"));
        names.push(format!("NVCC_{}", target.replace(['-', '.'], "_")));
    }
    names
}

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
    let target = std::env::var("TARGET").ok();
    // Without any of them `cc` would take the nvcc on PATH, and the machine is not probed.
    if !nvcc_variables(target.as_deref()).iter().any(|name| std::env::var_os(name).is_some()) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_nvcc_is_known() {
        let names = nvcc_variables(Some("x86_64-unknown-linux-gnu"));
        let forms =
            ["NVCC", "HOST_NVCC", "TARGET_NVCC", "NVCC_x86_64-unknown-linux-gnu", "NVCC_x86_64_unknown_linux_gnu"];
        assert_eq!(names, forms);
    }
}
