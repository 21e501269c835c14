//! `emitted-runner TARGET OUT MODEL..`: emits crates of real models for a target, builds the program that runs them all
//! on saved cases, and puts it into OUT with a list of its models. Their weights stay here: another machine makes the
//! same `weights.bin` of the same model.

use std::path::Path;
use std::process::ExitCode;

use lapidary_tests::{case_dir, emitted, root};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.as_slice() {
        [target, out, names @ ..] if !names.is_empty() => make(target, Path::new(out), names),
        _ => Err("expected TARGET OUT MODEL..".to_owned()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("emitted-runner: {error}");
            ExitCode::FAILURE
        }
    }
}

fn make(target: &str, out: &Path, names: &[String]) -> Result<(), String> {
    let said = |error: std::io::Error| error.to_string();
    let workspace = root().canonicalize().map_err(said)?.join("target/emitted-models").join(target);
    for name in names {
        let dir = case_dir(name).ok_or_else(|| format!("no model {name}"))?;
        // The cases' extents are the same wherever they run; the outputs are saved again where the runner runs.
        let saved = workspace.join("saved").join(name);
        emitted::save(&dir, "cpu", &saved)?;
        emitted::emit(&dir, name, target, &saved, &workspace)?;
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    std::fs::create_dir_all(out).map_err(said)?;
    let runner = emitted::build(&names, &workspace)?;
    std::fs::write(out.join("models"), names.join("\n") + "\n").map_err(said)?;
    std::fs::copy(runner, out.join("runner")).map(|_| ()).map_err(said)
}
