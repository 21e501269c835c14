//! The tests that judge a change: built once, run once for each change until one notices.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Quick ones first. Target, arguments, seconds: what takes longer hangs, which counts as noticed. `lapidary` names the
/// unit tests of the compiler.
const TESTS: [(&str, &[&str], u64); 7] = [
    ("passes", &[], 60),
    ("explain", &[], 60),
    ("lapidary", &[], 120),
    ("graphs", &[], 240),
    ("random_graphs", &[], 240),
    ("models", &[], 300),
    ("conformance", &["::cpu"], 300),
];

pub struct Test {
    name: &'static str,
    program: PathBuf,
    args: &'static [&'static str],
    folder: &'static str,
    limit: Duration,
}

/// Builds the tests in the copy, and the command line, which some of them run.
pub fn build(copy: &Path) -> Result<Vec<Test>, String> {
    let packages = ["--release", "-p", "lapidary", "-p", "lapidary-tests"];
    let built = Command::new("cargo").arg("build").args(packages).current_dir(copy).status();
    if !built.map_err(|e| format!("cargo: {e}"))?.success() {
        return Err("the copy does not build".to_owned());
    }
    let mut command = Command::new("cargo");
    command.args(["test", "--no-run", "--message-format=json"]).args(packages);
    command
        .arg("--lib")
        .args(TESTS.iter().filter(|(name, ..)| *name != "lapidary").flat_map(|(name, ..)| ["--test", name]));
    let output = command.current_dir(copy).stderr(Stdio::inherit()).output().map_err(|e| format!("cargo: {e}"))?;
    let mut programs: BTreeMap<String, PathBuf> = BTreeMap::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let Ok(message) = serde_json::from_str::<serde_json::Value>(line) else { continue };
        if let (Some(name), Some(program)) = (message["target"]["name"].as_str(), message["executable"].as_str())
            && message["profile"]["test"] == true
        {
            programs.insert(name.to_owned(), PathBuf::from(program));
        }
    }
    let mut test = |&(name, args, seconds): &(&'static str, &'static [&'static str], u64)| {
        Ok(Test {
            name,
            program: programs.remove(name).ok_or_else(|| format!("no program of the test {name}"))?,
            args,
            folder: if name == "lapidary" { "compiler" } else { "tests" },
            limit: Duration::from_secs(seconds),
        })
    };
    TESTS.iter().map(&mut test).collect()
}

/// Checks that no test fails while every change is off: else a failure would say nothing.
pub fn unchanged_passes(tests: &[Test], copy: &Path) -> Result<(), String> {
    for test in tests {
        let start = Instant::now();
        if !passes(test, copy, None)? {
            return Err(format!("{} fails without any change", test.name));
        }
        println!("{} passes without any change, {} s", test.name, start.elapsed().as_secs());
    }
    Ok(())
}

/// The first test that fails, or runs for too long, with a change on.
pub fn noticed_by(tests: &[Test], copy: &Path, number: usize) -> Result<Option<String>, String> {
    for test in tests {
        if !passes(test, copy, Some(number))? {
            return Ok(Some(test.name.to_owned()));
        }
    }
    Ok(None)
}

fn passes(test: &Test, copy: &Path, number: Option<usize>) -> Result<bool, String> {
    let folder = copy.join(test.folder);
    let folder = folder.canonicalize().map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut command = Command::new(&test.program);
    command.args(test.args).current_dir(&folder).env("CARGO_MANIFEST_DIR", &folder);
    // As many graphs as it takes until every rule must have fired.
    command
        .env_remove("LAPIDARY_MUTANT")
        .env("LAPIDARY_RANDOM_GRAPHS", "1000")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if let Some(number) = number {
        command.env("LAPIDARY_MUTANT", number.to_string());
    }
    let mut child = command.spawn().map_err(|e| format!("{}: {e}", test.program.display()))?;
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().map_err(|e| e.to_string())? {
            return Ok(status.success());
        }
        if start.elapsed() > test.limit {
            child.kill().and_then(|()| child.wait()).map_err(|e| e.to_string())?;
            return Ok(false);
        }
        sleep(Duration::from_millis(20));
    }
}
