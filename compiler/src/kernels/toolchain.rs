//! The CUDA compiler of this machine: NVRTC where it can be loaded, else nvcc.
//!
//! Looks at the machine only when [`Toolchain::find`] is called, which the CLI and build scripts do.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use lapidary_templates::Arch;

use super::nvcc::Nvcc;
use super::nvrtc::Nvrtc;
use super::{Failure, Kernel};
use crate::diag::{Diagnostic, Place};

/// A CUDA compiler, and what it has compiled already in this process.
#[derive(Debug)]
pub struct Toolchain {
    compiler: Compiler,
    file: Option<PathBuf>,
    cubins: Mutex<BTreeMap<(Arch, String), Vec<u8>>>,
}

#[derive(Debug)]
enum Compiler {
    Nvrtc(Nvrtc),
    Nvcc(Nvcc),
}

impl Toolchain {
    /// The CUDA compiler at `explicit` (a toolkit's folder, an NVRTC library or an nvcc), and only there if it is
    /// given; else the first of `CUDA_HOME`, `CUDA_PATH`, the toolkit of the nvcc on `PATH`, the wheels of the active
    /// Python environment, `/usr/local/cuda`, and what the loader finds by name.
    pub fn find(explicit: Option<&Path>) -> Option<Toolchain> {
        if let Some(path) = explicit {
            return at(path);
        }
        let found = roots(&|name| std::env::var_os(name)).iter().find_map(|root| in_folder(root));
        found.or_else(|| Some(Toolchain::new(Compiler::Nvrtc(Nvrtc::by_name()?), None)))
    }

    /// The library or the program; `None` where the system's loader found it by name.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// What is said where kernels must be compiled and [`Toolchain::find`] found nothing.
    pub fn missing() -> Diagnostic {
        Diagnostic::error("E0601", Place::Model, "no CUDA compiler was found")
            .why("a cuda target needs NVRTC or nvcc, 12.0 or newer, to compile its kernels; a GPU is not needed")
            .help(
                "set CUDA_HOME to a CUDA toolkit, or install one without root: \
                 pip install 'cuda-toolkit[nvcc,crt,nvvm,cudart,cccl,nvrtc]==13.0.2' in an active virtual environment",
            )
    }

    /// The cubin of a kernel, compiled at most once in this process.
    pub(super) fn cubin(&self, kernel: &Kernel, arch: Arch) -> Result<Vec<u8>, Failure> {
        let key = (arch, kernel.text.clone());
        // A thread that panicked has left the map whole: insertions are its only changes.
        if let Some(cubin) = self.cubins.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(cubin.clone());
        }
        let cubin = match &self.compiler {
            Compiler::Nvrtc(nvrtc) => nvrtc.compile(kernel, arch),
            Compiler::Nvcc(nvcc) => nvcc.compile(kernel, arch),
        }?;
        self.cubins.lock().unwrap_or_else(PoisonError::into_inner).insert(key, cubin.clone());
        Ok(cubin)
    }

    fn new(compiler: Compiler, file: Option<&Path>) -> Toolchain {
        Toolchain { compiler, file: file.map(Path::to_owned), cubins: Mutex::default() }
    }

    fn nvrtc(path: &Path) -> Option<Toolchain> {
        Some(Toolchain::new(Compiler::Nvrtc(Nvrtc::open(path)?), Some(path)))
    }

    fn nvcc(path: &Path) -> Option<Toolchain> {
        Some(Toolchain::new(Compiler::Nvcc(Nvcc::open(path)?), Some(path)))
    }
}

/// Such as `nvrtc 13.0.88`: what a lock file and a model card state.
impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.compiler {
            Compiler::Nvrtc(nvrtc) => write!(f, "nvrtc {}", nvrtc.version()),
            Compiler::Nvcc(nvcc) => write!(f, "nvcc {}", nvcc.version()),
        }
    }
}

/// The folders of a toolkit that hold its libraries: the installers', then the wheels'.
const LIBRARY_FOLDERS: [&str; 4] = ["lib64", "lib", "targets/x86_64-linux/lib", "bin"];

fn at(path: &Path) -> Option<Toolchain> {
    if path.is_dir() {
        return in_folder(path);
    }
    if is_nvrtc(path) { Toolchain::nvrtc(path) } else { Toolchain::nvcc(path) }
}

fn in_folder(root: &Path) -> Option<Toolchain> {
    let libraries = LIBRARY_FOLDERS.iter().flat_map(|folder| listed(&root.join(folder)));
    let nvrtc = libraries.filter(|path| is_nvrtc(path)).find_map(|path| Toolchain::nvrtc(&path));
    nvrtc.or_else(|| Toolchain::nvcc(&root.join("bin").join(NVCC)))
}

const NVCC: &str = if cfg!(windows) { "nvcc.exe" } else { "nvcc" };

/// Whether a file is the NVRTC library (and not its built-ins, its static form or its variant with other ptxas).
fn is_nvrtc(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    name.starts_with("libnvrtc.so") || name.starts_with("nvrtc64_") && name.ends_with(".dll") && !name.contains(".alt.")
}

fn roots(variable: &dyn Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let mut roots: Vec<PathBuf> =
        ["CUDA_HOME", "CUDA_PATH"].iter().filter_map(|name| variable(name)).map(PathBuf::from).collect();
    let path = variable("PATH").unwrap_or_default();
    let programs = std::env::split_paths(&path).filter(|folder| folder.join(NVCC).is_file());
    roots.extend(programs.filter_map(|folder| folder.parent().map(Path::to_owned)));
    for environment in ["VIRTUAL_ENV", "CONDA_PREFIX"].iter().filter_map(|name| variable(name)) {
        let pythons = listed(&Path::new(&environment).join("lib"));
        let wheels = pythons.iter().flat_map(|python| listed(&python.join("site-packages/nvidia")));
        let is_toolkit = |path: &PathBuf| {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            name == "cuda_nvrtc" || name.strip_prefix("cu").is_some_and(|v| v.bytes().all(|b| b.is_ascii_digit()))
        };
        roots.extend(wheels.filter(is_toolkit));
    }
    roots.push(PathBuf::from("/usr/local/cuda"));
    roots
}

/// The entries of a folder, sorted; none if it cannot be read.
fn listed(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    paths
}

/// The version with its build in a text of NVIDIA's tools: `..., release 13.0, V13.0.88`.
pub(super) fn build_in(text: &str) -> Option<String> {
    let (_, rest) = text.split_once("release ")?;
    let (_, build) = rest.split_once(", V")?;
    let end = build.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(build.len());
    (end > 0).then(|| build[..end].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_build_is_read_off_what_the_tools_print() {
        let ptx = "// Compiler Build ID: CL-1\n// Cuda compilation tools, release 13.0, V13.0.88\n// Based on NVVM";
        assert_eq!(build_in(ptx).as_deref(), Some("13.0.88"));
        assert_eq!(build_in("gcc (Debian) 12.2.0"), None);
    }

    #[test]
    fn variants_and_builtins_are_not_nvrtc() {
        let is = |name: &str| is_nvrtc(Path::new(name));
        assert!(is("lib/libnvrtc.so.13") && is("libnvrtc.so") && is("bin/nvrtc64_130_0.dll"));
        assert!(!is("libnvrtc-builtins.so.13.0") && !is("libnvrtc.alt.so.13") && !is("libnvrtc_static.a"));
        assert!(!is("nvrtc64_130_0.alt.dll") && !is("nvcc"));
    }

    #[test]
    fn an_explicit_path_without_a_compiler_finds_nothing() {
        let empty = tempfile::tempdir().expect("a temporary folder");
        assert!(Toolchain::find(Some(empty.path())).is_none());
        assert!(Toolchain::find(Some(&empty.path().join("nvcc"))).is_none());
    }

    #[test]
    fn the_environment_comes_before_the_usual_places() {
        let variable = |name: &str| (name == "CUDA_HOME").then(|| OsString::from("toolkit"));
        assert_eq!(roots(&variable), [PathBuf::from("toolkit"), PathBuf::from("/usr/local/cuda")]);
    }
}
