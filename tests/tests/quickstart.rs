//! The quickstart: its committed crate is what the compiler writes today, and README's code is code that runs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use lapidary_tests::{lapidary, root};

/// The files below a folder, by their paths in it, without what a build leaves behind.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            let relative = path.strip_prefix(folder).unwrap().to_owned();
            if relative == Path::new("target") || relative == Path::new("Cargo.lock") {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(relative, std::fs::read(&path).unwrap());
            }
        }
    }
    found
}

#[test]
fn the_committed_crate_is_what_the_compiler_writes() {
    let example = root().join("examples/01-quickstart");
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("digits");
    let output = Command::new(lapidary())
        .args(["compile", "--target", "cpu", "--dim", "batch=1:1:64", "--runtime-path", "../../../runtime-min", "-o"])
        .arg(&folder)
        .arg(example.join("model.onnx"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (committed, written) = (files(&example.join("digits")), files(&folder));
    let names = |files: &BTreeMap<PathBuf, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&committed), names(&written));
    for (path, bytes) in &written {
        assert!(
            committed[path] == *bytes,
            "examples/01-quickstart/digits/{} differs: run the command in examples/01-quickstart/README.md, read the \
             diff, commit it",
            path.display()
        );
    }
}

/// `cargo run` of an example, in a target folder that all examples share.
fn command(name: &str) -> Command {
    let manifest = root().join("examples").join(name).join("Cargo.toml");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["run", "--release", "--quiet", "--locked", "--manifest-path"]).arg(manifest);
    command.env("CARGO_TARGET_DIR", root().join("target/examples")).env_remove("LAPIDARY_STUB");
    command
}

/// What an example prints.
fn example(name: &str) -> String {
    let output = command(name).output().unwrap();
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn the_quickstart_recognizes_its_digits() {
    let said = example("01-quickstart");
    assert!(said.contains("10 of 10 right, median latency "), "{said}");
    for digit in 0..10 {
        assert!(said.contains(&format!("label {digit}, predicted {digit}, ")), "{said}");
    }
}

#[test]
fn the_build_script_compiles_the_same_model() {
    assert_eq!(example("02-build-rs").trim_end(), "0 1 2 3 4 5 6 7 8 9");
    // As a stub it compiles too, and says what it is where it is loaded.
    let output = command("02-build-rs").env("LAPIDARY_STUB", "1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("Stub { model: \"digits\" }"), "{said}");
}

#[test]
fn the_recognizer_reads_its_line() {
    if !root().join("target/models/ppocr_v4_rec/model.onnx").is_file() {
        eprintln!("SKIPPED 03-ocr: no model; run scripts/fetch-models ppocr_v4_rec");
        return;
    }
    let said = example("03-ocr");
    assert_eq!(said.lines().next(), Some("Hello ONNX 2026"), "{said}");
}

/// Each block of Rust in the README stands, line by line, in the example that the comment above it names.
#[test]
fn the_readme_quotes_the_examples() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let mut blocks = 0;
    let mut source = "";
    let mut rest = readme.lines();
    while let Some(line) = rest.next() {
        if let Some(path) = line.strip_prefix("<!-- ").and_then(|line| line.strip_suffix(" -->")) {
            source = path;
        }
        if line != "```rust" {
            continue;
        }
        let block: Vec<&str> = rest.by_ref().take_while(|line| *line != "```").collect();
        let text = std::fs::read_to_string(root().join(source)).unwrap_or_else(|error| panic!("{source:?}: {error}"));
        assert!(text.contains(&block.join("\n")), "{source} does not have README's\n{}", block.join("\n"));
        blocks += 1;
    }
    assert!(blocks > 0, "README has no code");
}
