//! Emitted crates of real models, and one program that runs them on saved cases.
//!
//! `lapidary verify --save` writes what a run in the compiler's process took and gave. The program runs the emitted
//! crates on the same inputs and wants the same bits: both must be the same tables on the same runtime.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{lapidary, root};

/// What the program does with the sessions; see there.
const CHECK: &str = include_str!("emitted/check.rs");

/// Verifies the model in `case_dir` on `target` and saves its cases in `folder`.
///
/// # Errors
/// What the command said.
pub fn save(case_dir: &Path, target: &str, folder: &Path) -> Result<(), String> {
    let mut verify = Command::new(lapidary());
    verify.arg("verify").arg(case_dir).args(["--target", target, "--save"]).arg(folder);
    run(&mut verify).map(|_| ())
}

/// Emits a crate called `name` of the model in `case_dir` into `workspace`, with the profiles of the cases in `saved`.
///
/// # Errors
/// What the command said.
pub fn emit(case_dir: &Path, name: &str, target: &str, saved: &Path, workspace: &Path) -> Result<PathBuf, String> {
    let folder = workspace.join(name);
    let mut compile = Command::new(lapidary());
    compile.arg("compile").arg(case_dir.join("model.onnx")).arg("-o").arg(&folder);
    compile.args(["--target", target, "--name", name, "--runtime-path"]).arg(runtime()?);
    let dims = std::fs::read_to_string(saved.join("dims.txt")).map_err(|error| error.to_string())?;
    for dim in dims.lines() {
        compile.args(["--dim", dim]);
    }
    run(&mut compile)?;
    Ok(folder)
}

/// Builds a program from the crates `names` in `workspace`; called with a crate's name, its weights and a folder of
/// saved cases, it runs them. The crates' cubins are embedded, their weights are not.
///
/// # Errors
/// What cargo said.
pub fn build(names: &[&str], workspace: &Path) -> Result<PathBuf, String> {
    let write = |path: &str, text: &str| {
        let path = workspace.join(path);
        let folder = path.parent().unwrap_or(workspace);
        let written = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&path, text));
        written.map_err(|error| format!("{}: {error}", path.display()))
    };
    let members: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
    write(
        "Cargo.toml",
        &format!(
            "[workspace]\nresolver = \"3\"\nmembers = [\"runner\", {}]\n\n[profile.release]\nstrip = true\n",
            members.join(", ")
        ),
    )?;
    let mut manifest = format!(
        "[package]\nname = \"runner\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[dependencies]\n\
         lapidary-runtime = {{ path = {:?} }}\n",
        runtime()?
    );
    let mut arms = String::new();
    for name in names {
        let library = std::fs::read_to_string(workspace.join(name).join("src/lib.rs"));
        let library = library.map_err(|error| format!("{name}: {error}"))?;
        let model =
            library.lines().find_map(|line| line.strip_prefix("pub struct ")?.strip_suffix("(Model<'static>);"));
        let model = model.ok_or_else(|| format!("{name}: no model in its src/lib.rs"))?;
        manifest += &format!("{name} = {{ path = \"../{name}\", default-features = false }}\n");
        arms += &format!(
            "        {name:?} => check::cases({name}::{model}::builder().weights(weights).build()?.session()?.untyped(), \
             cases),\n"
        );
    }
    write("runner/Cargo.toml", &manifest)?;
    write("runner/src/check.rs", CHECK)?;
    write(
        "runner/src/main.rs",
        &format!(
            "//! `runner NAME WEIGHTS CASES`: runs an emitted crate on saved cases and wants the same bits.\n\nmod check;\n\n\
             fn main() -> Result<(), Box<dyn std::error::Error>> {{\n    \
             let arguments: Vec<String> = std::env::args().skip(1).collect();\n    \
             let [name, weights, cases] = arguments.as_slice() else {{ return Err(\"NAME WEIGHTS CASES\".into()) }};\n    \
             match name.as_str() {{\n{arms}        _ => Err(format!(\"no crate {{name}}\").into()),\n    }}\n}}\n"
        ),
    )?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--release", "--offline", "-p", "runner"]).current_dir(workspace);
    build.env("CARGO_TARGET_DIR", workspace.join("target")).env_remove("RUSTFLAGS");
    run(&mut build)?;
    Ok(workspace.join("target/release/runner"))
}

fn runtime() -> Result<String, String> {
    let folder = root().canonicalize().map_err(|error| error.to_string())?.join("runtime-min");
    folder.to_str().map(str::to_owned).ok_or_else(|| format!("{} is no text", folder.display()))
}

/// Runs a command; an error is all it said.
fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() { Ok(said) } else { Err(format!("{command:?}:\n{said}")) }
}

/// Calls the program of [`build`].
///
/// # Errors
/// What it said.
pub fn compare(runner: &Path, name: &str, weights: &Path, saved: &Path) -> Result<String, String> {
    run(Command::new(runner).arg(name).arg(weights).arg(saved))
}
