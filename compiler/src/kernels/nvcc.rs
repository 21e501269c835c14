//! nvcc: CUDA C++ to machine code by one process a kernel; for machines without NVRTC.

use std::path::{Path, PathBuf};
use std::process::Command;

use lapidary_templates::{Arch, headers};

use super::{Failure, Kernel};

/// An nvcc, and the version that it states.
#[derive(Debug)]
pub struct Nvcc {
    path: PathBuf,
    version: String,
}

/// What nvcc is told besides the architecture and the files.
pub const OPTIONS: [&str; 3] = ["-O3", "-std=c++17", "-cubin"];

/// The exact architecture, so that no other one's restrictions apply.
pub fn gencode(arch: Arch) -> String {
    format!("-gencode=arch={},code={arch}", arch.compute())
}

impl Nvcc {
    /// Asks the program at `path` for its version; `None` if it does not run or is no nvcc.
    pub fn open(path: &Path) -> Option<Nvcc> {
        let output = Command::new(path).arg("--version").output().ok()?;
        let version = super::toolchain::build_in(&String::from_utf8_lossy(&output.stdout))?;
        output.status.success().then(|| Nvcc { path: path.to_owned(), version })
    }

    /// Such as `13.0.88`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Compiles a kernel to a cubin, in a temporary folder.
    pub fn compile(&self, kernel: &Kernel, arch: Arch) -> Result<Vec<u8>, Failure> {
        let folder = tempfile::tempdir().map_err(|error| Failure::Tool(format!("no temporary folder: {error}")))?;
        let file = |name: &str| folder.path().join(name);
        write(&file("kernel.cu"), &kernel.text)?;
        for (name, text) in headers::closure(&kernel.text) {
            write(&file(name), text)?;
        }
        let output = Command::new(&self.path)
            .current_dir(folder.path())
            .args(OPTIONS)
            .arg(gencode(arch))
            .args(["-I", ".", "-o", "kernel.cubin", "kernel.cu"])
            .output()
            .map_err(|error| Failure::Tool(format!("nvcc does not start: {error}")))?;
        if !output.status.success() {
            let log = String::from_utf8_lossy(&output.stderr).into_owned();
            let unknown = log.contains("Unsupported gpu architecture");
            // The host compiler that nvcc wants in front of its own work.
            let no_host = log.contains("cannot find compiler") || log.contains("No such file or directory\nnvcc");
            return Err(match (unknown, no_host) {
                (true, _) => Failure::UnknownArch(log),
                (false, true) => Failure::Tool(log),
                (false, false) => Failure::Rejected(log),
            });
        }
        std::fs::read(file("kernel.cubin")).map_err(|error| Failure::Tool(format!("nvcc wrote no cubin: {error}")))
    }
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let folder = path.parent().map_or(Ok(()), std::fs::create_dir_all);
    folder.and_then(|()| std::fs::write(path, text)).map_err(|error| Failure::Tool(format!("temporary file: {error}")))
}
