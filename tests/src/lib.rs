//! Helpers that the integration tests share.

pub mod emitted;
mod gpu;
pub mod problems;

use std::path::{Path, PathBuf};

pub use gpu::{arch, gpu};

/// The checkout's root. Read when the test runs, so that test binaries can be carried to another machine.
pub fn root() -> PathBuf {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from("tests"), PathBuf::from);
    manifest.parent().map(Path::to_path_buf).unwrap_or_default()
}

/// The `lapidary` command: `$LAPIDARY_BIN`, or the one that cargo built beside this program.
///
/// # Panics
/// If it is not built: `cargo test --workspace` builds it, `cargo test -p lapidary-tests` alone does not.
pub fn lapidary() -> PathBuf {
    if let Some(path) = std::env::var_os("LAPIDARY_BIN") {
        return path.into();
    }
    let program = std::env::current_exe().expect("a program knows its own path");
    let name = format!("lapidary{}", std::env::consts::EXE_SUFFIX);
    // Programs are built into target/PROFILE, tests into target/PROFILE/deps.
    let found = program.ancestors().skip(1).take(2).map(|folder| folder.join(&name)).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("no {name} beside {}: cargo build -p lapidary in its profile", program.display()))
}

/// Where a model's case folder is; `None`, said out loud, where it is nowhere.
///
/// Models that the project may not hold are looked for in `$LAPIDARY_MODELS`, in `target/models`, where
/// `scripts/fetch-models` puts those that it may fetch, and in `../shared/models` beside the checkout.
pub fn case_dir(name: &str) -> Option<PathBuf> {
    let given = std::env::var_os("LAPIDARY_MODELS").map(PathBuf::from);
    let folders = [given, Some(root().join("target/models")), Some(root().join("../shared/models"))];
    let complete = |dir: &Path| dir.join("model.onnx").is_file() && dir.join("golden.npz").is_file();
    let found = folders.into_iter().flatten().map(|folder| folder.join(name)).find(|dir| complete(dir));
    if found.is_none() {
        eprintln!("SKIPPED {name}: no model; run scripts/fetch-models, or set LAPIDARY_MODELS");
    }
    found
}
