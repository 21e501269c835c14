//! File tests of the report: a graph, and which neighbours stay apart behind the passes, with the reasons.
//!
//! Each file in `tests/explain` says on its first lines what it shows; then come the graph, a line `---`, and the report.
//! `LAPIDARY_BLESS=1` writes what comes out (with RUST_TEST_THREADS=1, as other tests read the files).

use bytes::Bytes;
use lapidary::ir::{text, verify};
use lapidary::passes::{self, Limits, Reason, Report};
use lapidary_tests::root;

struct Case {
    name: String,
    head: String,
    expected: String,
}

impl Case {
    fn graph(&self) -> lapidary::ir::Graph {
        let start = self.head.find("graph ").unwrap_or_else(|| panic!("{}: no graph", self.name));
        // Of a constant called `init "NAME:BYTES"` the elements do not matter here.
        let zeros = |name: &str| name.rsplit_once(':')?.1.parse().ok().map(|bytes| Bytes::from(vec![0; bytes]));
        let graph = text::parse(&self.head[start..], &zeros).unwrap_or_else(|error| panic!("{}: {error}", self.name));
        verify::verify(&graph).unwrap_or_else(|errors| panic!("{}: {errors:?}", self.name));
        graph
    }

    fn report(&self) -> Report {
        passes::run(self.graph()).1
    }
}

fn cases() -> Vec<Case> {
    let entries = std::fs::read_dir(root().join("tests/explain")).expect("a folder");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    let case = |path: std::path::PathBuf| {
        let content = std::fs::read_to_string(&path).expect("a readable file");
        let (head, expected) = content.split_once("\n---\n").unwrap_or((content.trim_end(), ""));
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        Case { name, head: head.to_owned(), expected: expected.to_owned() }
    };
    paths.into_iter().map(case).collect()
}

#[test]
fn each_file_holds() {
    let bless = std::env::var_os("LAPIDARY_BLESS").is_some();
    let mut wrong = Vec::new();
    for case in cases() {
        let report = case.report();
        assert!(report.apart.iter().any(|apart| apart.reason.id() == case.name), "{}:\n{report}", case.name);
        let printed = report.to_string();
        if printed == case.expected {
            continue;
        }
        if bless {
            let path = root().join("tests/explain").join(&case.name).with_extension("txt");
            std::fs::write(path, format!("{}\n---\n{printed}", case.head)).expect("a writable file");
        } else {
            wrong.push(format!("{}:\n{printed}", case.name));
        }
    }
    assert!(wrong.is_empty(), "other reports came out (LAPIDARY_BLESS=1 accepts them):\n{}", wrong.join("\n"));
}

#[test]
fn each_reason_has_its_file_and_its_name() {
    let cases = cases();
    for reason in Reason::ALL {
        assert!(cases.iter().any(|case| case.name == reason.id()), "no file of {}", reason.id());
        assert_eq!(reason.id().parse(), Ok(reason));
    }
    let unknown = "unfused".parse::<Reason>().expect_err("no reason");
    assert!(unknown.contains("unfused-attention, unfused-epilogue"), "{unknown}");
}

#[test]
fn two_runs_report_the_same_bytes() {
    for case in cases() {
        assert_eq!(case.report().to_string(), case.report().to_string(), "{}", case.name);
    }
}

/// The first N rewrites are the same ones however many follow, so that a bisection narrows down to one.
#[test]
fn a_limit_makes_the_first_rewrites_alone() {
    for case in cases() {
        let all = case.report().firings;
        for most in 0..=all.len() {
            let limits = Limits { stop_after: Some(most), ..Limits::default() };
            let (graph, report) = passes::run_within(case.graph(), &limits);
            verify::verify(&graph).unwrap_or_else(|errors| panic!("{} behind {most}: {errors:?}", case.name));
            assert_eq!(report.firings, all[..most], "{}", case.name);
        }
    }
}

#[test]
fn a_rule_that_is_disabled_does_not_fire_and_is_named() {
    let case = cases().into_iter().find(|case| case.name == "transpose-left").expect("a case with an attention");
    assert_eq!(case.report().count("attention"), 1);
    let disabled = ["attention".parse().expect("a rule")].into();
    let (_, report) = passes::run_within(case.graph(), &Limits { disabled, stop_after: None });
    assert_eq!(report.count("attention"), 0);
    let left = report.apart.iter().find(|apart| apart.reason == Reason::UnfusedAttention);
    assert!(left.is_some_and(|left| left.why.starts_with("`attention` takes such neighbours")), "{report}");
    assert!(report.to_string().starts_with("# Rewrites, numbered in order, with --disable attention\n"), "{report}");
}
