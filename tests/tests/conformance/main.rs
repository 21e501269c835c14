//! ONNX's own backend suite on the reference evaluator, on `cpu`, and where a GPU is on `cuda`: one test a case and
//! runner, named `GROUP::CASE::RUNNER`.
//!
//! `scripts/onnx-cases` makes the cases; without them nothing is tested, and that is said. `tests/conformance/ledger.txt`
//! says how each test ends: right, refused with a diagnostic, or random as a statistical test tells. A wrong result fails
//! whatever the ledger says; so does every other end than the ledger's, until `LAPIDARY_BLESS=1` writes what the tests that
//! ran gave into the ledger, and SUPPORTED.md from it. `LAPIDARY_ONNX_CASES` names another folder with all the cases,
//! `LAPIDARY_GPU=require` demands a GPU.

mod case;
mod compare;
mod ledger;
mod runner;
mod statistics;
mod supported;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use case::{Case, Group};
use ledger::{Ledger, Verdict};
use libtest_mimic::{Arguments, Failed, FormatSetting, Trial};
use runner::{Runner, RunnerKind};

/// How the tests of this run ended that did not go wrong.
type Seen = Arc<Mutex<Vec<(Group, String, RunnerKind, Verdict)>>>;

fn main() -> ExitCode {
    let mut args = Arguments::from_args();
    if args.format.is_none() && args.filter.is_none() {
        args.format = Some(FormatSetting::Terse);
    }
    let Some(cases) = cases() else {
        eprintln!("SKIPPED conformance: no cases in {}; run scripts/onnx-cases", cases_dir().display());
        return libtest_mimic::run(&args, Vec::new()).exit_code();
    };
    let bless = std::env::var_os("LAPIDARY_BLESS").is_some();
    let ledger = match Ledger::read(&ledger_path()) {
        Ok(ledger) => Arc::new(ledger),
        Err(why) => {
            eprintln!("{}: {why}", ledger_path().display());
            return ExitCode::FAILURE;
        }
    };
    let seen = Seen::default();
    let runners = Runner::all(args.list);
    let mut trials = held(&ledger, &cases, bless);
    for case in &cases {
        for runner in &runners {
            trials.push(trial(case, runner, &ledger, bless, &seen));
        }
    }
    let conclusion = libtest_mimic::run(&args, trials);
    if bless && !args.list {
        let ledger = blessed(&ledger, &cases, &seen);
        std::fs::write(ledger_path(), ledger.to_string()).expect("a ledger that may be written");
        std::fs::write(supported_path(), supported::page(&ledger, &cases)).expect("a page that may be written");
        println!("blessed {} and {}", ledger_path().display(), supported_path().display());
    }
    conclusion.exit_code()
}

fn trial(case: &Arc<Case>, runner: &Arc<Runner>, ledger: &Arc<Ledger>, bless: bool, seen: &Seen) -> Trial {
    let (case, runner, ledger, seen) = (case.clone(), runner.clone(), ledger.clone(), seen.clone());
    let name = format!("{}::{}::{}", case.group, case.name, runner.kind());
    Trial::test(name, move || {
        let verdict = runner.run(&case)?;
        let listed = ledger.verdict(case.group, &case.name, runner.kind()).cloned();
        seen.lock().expect("no panic").push((case.group, case.name.clone(), runner.kind(), verdict.clone()));
        if bless || listed.as_ref() == Some(&verdict) {
            return Ok(());
        }
        let listed = listed.map_or("does not have it".to_owned(), |listed| format!("says {listed}"));
        Err(Failed::from(format!("{verdict}\nbut the ledger {listed}\nif that is as it should be: LAPIDARY_BLESS=1")))
    })
}

/// What holds between the files whatever the runners do.
fn held(ledger: &Arc<Ledger>, cases: &[Arc<Case>], bless: bool) -> Vec<Trial> {
    let mut trials = vec![
        Trial::test("the_rule_of_comparison_holds", || Ok(compare::self_test()?)),
        Trial::test("the_statistics_notice", || Ok(statistics::self_test()?)),
        Trial::test("the_ledger_reads_what_it_writes", || Ok(ledger::self_test()?)),
    ];
    if bless {
        return trials;
    }
    let (kept, all) = (ledger.clone(), cases.to_vec());
    trials.push(Trial::test("the_ledger_lists_the_cases_that_there_are", move || {
        let there = |group: Group, name: &str| all.iter().any(|case| case.group == group && case.name == name);
        match kept.cases().find(|(group, name)| !there(*group, name)) {
            Some((group, name)) => Err(format!("there is no {group}::{name}; LAPIDARY_BLESS=1").into()),
            None => Ok(()),
        }
    }));
    let (kept, all) = (ledger.clone(), cases.to_vec());
    trials.push(Trial::test("supported_md_is_current", move || {
        let written = std::fs::read_to_string(supported_path())?;
        if written == supported::page(&kept, &all) {
            return Ok(());
        }
        Err("SUPPORTED.md is not what the ledger and the operators say: LAPIDARY_BLESS=1 writes it".into())
    }));
    trials
}

/// The ledger with what this run gave; lines of cases that are no more go.
fn blessed(ledger: &Ledger, cases: &[Arc<Case>], seen: &Seen) -> Ledger {
    let mut blessed = Ledger::default();
    let there: BTreeMap<(Group, &str), ()> = cases.iter().map(|case| ((case.group, &*case.name), ())).collect();
    for (group, name, runner, verdict) in ledger.lines() {
        if there.contains_key(&(group, name)) {
            blessed.set(group, name, runner, verdict.clone());
        }
    }
    for (group, name, runner, verdict) in &*seen.lock().expect("no panic") {
        blessed.set(*group, name, *runner, verdict.clone());
    }
    blessed
}

fn cases_dir() -> PathBuf {
    let given = std::env::var_os("LAPIDARY_ONNX_CASES").map(PathBuf::from);
    given.unwrap_or_else(|| lapidary_tests::root().join("target/onnx-cases"))
}

/// Every case; `None` where they were not made, or not to the end.
fn cases() -> Option<Vec<Arc<Case>>> {
    let dir = cases_dir();
    dir.join("complete").is_file().then(|| case::all(&dir).into_iter().map(Arc::new).collect())
}

fn ledger_path() -> PathBuf {
    lapidary_tests::root().join("tests/conformance/ledger.txt")
}

fn supported_path() -> PathBuf {
    lapidary_tests::root().join("SUPPORTED.md")
}
