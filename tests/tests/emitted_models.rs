//! Emitted crates of the real models: each runs all cases of its manifest, unrecompiled, and gives bit by bit what the
//! same model gave in the compiler's process.

use std::path::Path;
use std::process::Command;

use lapidary_tests::{case_dir, emitted, root};

const MODELS: [&str; 13] = [
    "mnist_cntk",
    "ultraface_rfb320",
    "ppocr_cls",
    "pplcnet_orientation",
    "ppocr_v4_rec",
    "open_nsfw_resnet",
    "superres_core_derived",
    "magika_v3_3",
    "minilm_l6_w8",
    "eeg_seizure_bilstm",
    "silero_vad_v6",
    "caustic_painn_gnn",
    "slanet_plus",
];

#[test]
fn emitted_crates_give_the_bits_of_the_process() -> Result<(), String> {
    let workspace = root().canonicalize().map_err(|error| error.to_string())?.join("target/emitted-models");
    let mut names = Vec::new();
    for name in MODELS {
        let Some(dir) = case_dir(name) else { continue };
        let saved = workspace.join("saved").join(name);
        emitted::save(&dir, "cpu", &saved)?;
        emitted::emit(&dir, name, "cpu", &saved, &workspace)?;
        names.push(name);
    }
    if names.is_empty() {
        return Ok(());
    }
    let runner = emitted::build(&names, &workspace)?;
    for name in names {
        let weights = workspace.join(name).join("weights.bin");
        let said = emitted::compare(&runner, name, &weights, &workspace.join("saved").join(name))?;
        println!("{name}: {}", said.trim());
    }
    Ok(())
}

/// What the binary of an emitted crate may add to its kernels, in bytes.
const MOST: usize = 1_500_000;

/// A crate for a GPU is built where there is neither the compiler nor CUDA, depends on the runtime alone, links the
/// system's libraries alone, and is small.
#[test]
fn a_crate_for_a_gpu_needs_rust_alone() -> Result<(), String> {
    let name = "ppocr_v4_rec";
    let (Some(dir), Some(_)) = (case_dir(name), lapidary::kernels::Toolchain::find(None)) else {
        eprintln!("SKIPPED: no model, or no CUDA compiler to compile its kernels with; set CUDA_HOME");
        return Ok(());
    };
    let said = |error: std::io::Error| error.to_string();
    let workspace = root().canonicalize().map_err(said)?.join("target/emitted/for_a_gpu");
    let saved = workspace.join("saved").join(name);
    emitted::save(&dir, "cpu", &saved)?;
    let folder = emitted::emit(&dir, name, "sm_90a", &saved, &workspace)?;
    let tree = bare(&folder, &["tree", "--offline", "--edges", "normal", "--prefix", "none"])?;
    let crates: Vec<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(crates, [name, "lapidary-runtime"], "{tree}");
    bare(&folder, &["build", "--offline", "--release", "--no-default-features", "--example", "run"])?;
    let binary = folder.join("target/release/examples/run");
    let cubins: usize = std::fs::read_dir(folder.join("kernels"))
        .map_err(said)?
        .filter_map(Result::ok)
        .filter(|entry| entry.path().extension().is_some_and(|extension| extension == "cubin"))
        .filter_map(|entry| usize::try_from(entry.metadata().ok()?.len()).ok())
        .sum();
    let bytes = std::fs::metadata(&binary).map_err(said)?.len() as usize;
    println!("{bytes} bytes, of which kernels {cubins}");
    assert!(cubins > 0 && bytes < MOST + cubins, "{bytes} bytes, of which kernels {cubins}");
    if let Ok(output) = Command::new("ldd").arg(&binary).output() {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let libraries: Vec<&str> = text.lines().filter_map(|line| line.split_whitespace().next()).collect();
        let usual = ["linux-vdso", "libgcc_s", "libc.", "libm.", "libpthread", "libdl", "ld-linux", "/lib"];
        assert!(libraries.iter().all(|library| usual.iter().any(|usual| library.starts_with(usual))), "{text}");
    }
    Ok(())
}

/// Runs cargo in an environment that knows of no CUDA: only where programs and cargo's files are.
fn bare(folder: &Path, args: &[&str]) -> Result<String, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(args).current_dir(folder).env_clear();
    for kept in ["HOME", "PATH", "CARGO_HOME", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN"] {
        if let Some(value) = std::env::var_os(kept) {
            command.env(kept, value);
        }
    }
    command.env("CARGO_TARGET_DIR", folder.join("target")).env("CARGO_PROFILE_RELEASE_STRIP", "true");
    let output = command.output().map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(text) } else { Err(format!("cargo {args:?}:\n{text}{said}")) }
}
