//! A copy of the checkout that holds every drawn change, each behind `crate::mutant::on(NUMBER)`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::sites::{Change, Site};

/// The switch: at most one change is on in a process.
const SWITCH: &str = r#"
/// Written by lapidary-mutants.
pub mod mutant {
    pub fn on(number: usize) -> bool {
        static ON: std::sync::OnceLock<Option<usize>> = std::sync::OnceLock::new();
        *ON.get_or_init(|| std::env::var("LAPIDARY_MUTANT").ok()?.parse().ok()) == Some(number)
    }
}
"#;

/// Copies the checkout with the first `count` changes that compile, in the order given, no two of which overlap.
pub fn compiling(root: &Path, copy: &Path, sites: Vec<Site>, count: usize) -> Result<Vec<Site>, String> {
    let files = listed(root)?;
    for file in &files {
        let to = copy.join(file);
        fs::create_dir_all(to.parent().unwrap_or(copy)).map_err(|e| format!("{}: {e}", to.display()))?;
        fs::copy(root.join(file), &to).map_err(|e| format!("{file}: {e}"))?;
    }
    let library = "compiler/src/lib.rs";
    let text = read(root, library)?;
    write(copy, library, &format!("{text}{SWITCH}"))?;
    let changeable: BTreeSet<String> = sites.iter().map(|site| site.file.clone()).collect();
    let mut left = sites.into_iter();
    let mut drawn: Vec<Site> = Vec::new();
    loop {
        let missing = count - drawn.len();
        for site in left.by_ref() {
            let overlaps = |other: &Site| {
                other.file == site.file && other.range.start <= site.range.end && site.range.start <= other.range.end
            };
            if !drawn.iter().any(overlaps) {
                drawn.push(site);
            }
            if drawn.len() == count {
                break;
            }
        }
        weave(root, copy, &changeable, &drawn)?;
        let broken = refused(copy)?;
        println!("{missing} woven, {} of them do not compile", broken.len());
        if broken.is_empty() {
            return Ok(drawn);
        }
        let mut number = 0;
        drawn.retain(|_| {
            number += 1;
            !broken.contains(&(number - 1))
        });
    }
}

/// Writes every changeable file with the changes that are drawn in it.
fn weave(root: &Path, copy: &Path, changeable: &BTreeSet<String>, drawn: &[Site]) -> Result<(), String> {
    let mut by_file: BTreeMap<&str, Vec<(usize, &Site)>> =
        changeable.iter().map(|file| (file.as_str(), Vec::new())).collect();
    for (number, site) in drawn.iter().enumerate() {
        by_file.entry(&site.file).or_default().push((number, site));
    }
    for (file, mut sites) in by_file {
        let mut text = read(root, file)?;
        sites.sort_by_key(|(_, site)| std::cmp::Reverse(site.range.start));
        for (number, site) in sites {
            let old = &text[site.range.clone()];
            let on = format!("crate::mutant::on({number})");
            let new = match &site.change {
                Change::Expr(other) => format!("(if {on} {{ {other} }} else {{ {old} }})"),
                Change::Omit => format!("if !{on} {{ {old} }}"),
                Change::Return(value) => format!("{old} if {on} {{ return {value}; }}"),
            };
            text.replace_range(site.range.clone(), &new);
        }
        write(copy, file, &text)?;
    }
    Ok(())
}

/// The numbers of the changes that the compiler refuses.
fn refused(copy: &Path) -> Result<BTreeSet<usize>, String> {
    let output = Command::new("cargo")
        .args(["check", "--release", "-p", "lapidary", "--lib", "--message-format=json"])
        .current_dir(copy)
        .output()
        .map_err(|e| format!("cargo: {e}"))?;
    if output.status.success() {
        return Ok(BTreeSet::new());
    }
    let mut broken = BTreeSet::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let Ok(message) = serde_json::from_str::<serde_json::Value>(line) else { continue };
        let message = &message["message"];
        if message["level"] != "error" {
            continue;
        }
        for span in message["spans"].as_array().into_iter().flatten() {
            let Some(file) = span["file_name"].as_str() else { continue };
            let first = span["line_start"].as_u64().unwrap_or(1) as usize;
            let last = span["line_end"].as_u64().unwrap_or(1) as usize;
            let text = read(copy, file)?;
            let lines = text.lines().skip(first - 1).take(last + 1 - first);
            broken.extend(lines.flat_map(switches));
        }
    }
    if broken.is_empty() {
        return Err(format!("the copy does not build:\n{}", String::from_utf8_lossy(&output.stderr)));
    }
    Ok(broken)
}

/// The changes whose switches stand in a line.
fn switches(line: &str) -> Vec<usize> {
    let behind = line.split("crate::mutant::on(").skip(1);
    behind.filter_map(|rest| rest.split(')').next()?.parse().ok()).collect()
}

/// The files of the checkout, tracked or new.
fn listed(root: &Path) -> Result<Vec<String>, String> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard", "--deduplicate"])
        .current_dir(root)
        .output()
        .map_err(|e| format!("git: {e}"))?;
    let text = String::from_utf8(output.stdout).map_err(|e| format!("git: {e}"))?;
    Ok(text.split('\0').filter(|file| !file.is_empty() && root.join(file).is_file()).map(str::to_owned).collect())
}

fn read(root: &Path, file: &str) -> Result<String, String> {
    fs::read_to_string(root.join(file)).map_err(|e| format!("{file}: {e}"))
}

fn write(root: &Path, file: &str, text: &str) -> Result<(), String> {
    fs::write(root.join(file), text).map_err(|e| format!("{file}: {e}"))
}
