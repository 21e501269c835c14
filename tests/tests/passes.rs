//! File tests of the passes: a graph before, and what one pass makes of it.
//!
//! Each file in `tests/passes` says on its first line which pass it is of and whether it fires: `# pass NAME fires` or
//! `# pass NAME does not fire`, why on the next, then the graph, a line `---`, and the graph that comes out (the same
//! one where nothing fires). A constant called `init "NAME:BYTES"` gets that many bytes of seeded f32 numbers. Both
//! graphs are evaluated on seeded inputs and must agree. `LAPIDARY_BLESS=1` writes what comes out.

use std::path::PathBuf;

use bytes::Bytes;
use lapidary::ir::eval::{self, Tensor};
use lapidary::ir::{Graph, text, verify};
use lapidary::passes;
use lapidary_runtime::DType;
use lapidary_tests::root;

struct Case {
    path: PathBuf,
    header: String,
    before: String,
    after: String,
}

impl Case {
    fn read(path: PathBuf) -> Case {
        let content = std::fs::read_to_string(&path).unwrap();
        let (head, after) = content.split_once("\n---\n").unwrap_or((content.trim_end(), ""));
        let split = head.find("graph ").unwrap_or_else(|| panic!("{}: no graph", path.display()));
        Case {
            header: head[..split].to_owned(),
            before: head[split..].to_owned(),
            after: after.trim_end().to_owned(),
            path,
        }
    }

    /// The pass's name, and whether it must fire.
    fn expectation(&self) -> (&str, bool) {
        let line = self.header.lines().next().unwrap_or_default();
        let rest = line.strip_prefix("# pass ").unwrap_or_else(|| panic!("{}: {line}", self.path.display()));
        if let Some(name) = rest.strip_suffix(" does not fire") {
            return (name, false);
        }
        let name = rest.strip_suffix(" fires").unwrap_or_else(|| panic!("{}: {line}", self.path.display()));
        (name, true)
    }
}

fn cases() -> Vec<Case> {
    let folder = root().join("tests/passes");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(Case::read).collect()
}

/// Seeded f32 numbers between 0.5 and 1.5.
fn seeded(name: &str) -> Option<Bytes> {
    let bytes: usize = name.rsplit_once(':')?.1.parse().ok()?;
    let mut state = 88_172_645_463_325_252_u64 ^ name.len() as u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        0.5 + (state >> 40) as f32 / (1u64 << 24) as f32
    };
    Some((0..bytes / 4).flat_map(|_| next().to_le_bytes()).collect())
}

fn parse(case: &Case, source: &str) -> Graph {
    let graph = text::parse(source, &seeded).unwrap_or_else(|error| panic!("{}: {error}", case.path.display()));
    verify::verify(&graph).unwrap_or_else(|errors| panic!("{}: {errors:?}", case.path.display()));
    graph
}

/// Inputs at the largest extents.
fn inputs(graph: &Graph) -> Vec<Tensor> {
    let shapes = graph.inputs().iter().map(|input| graph.ty(*input).clone());
    shapes
        .enumerate()
        .map(|(seed, ty)| {
            let dims: Vec<usize> =
                ty.dims.iter().map(|dim| dim.eval(&|name| graph.symbol_range(name).1) as usize).collect();
            let count = dims.iter().product();
            match ty.dtype {
                dtype if dtype.is_float() => {
                    let values: Vec<f64> = (0..count).map(|k| ((k * 37 + seed * 11) % 17) as f64 / 8.0 - 1.0).collect();
                    Tensor::from_f64s(dtype, dims, &values)
                }
                dtype => Tensor::from_i64s(dtype, dims, &vec![1; count]),
            }
        })
        .collect()
}

fn assert_same_values(case: &Case, before: &Graph, after: &Graph) {
    let inputs = inputs(before);
    let expected = eval::run(before, &inputs).unwrap_or_else(|error| panic!("{}: {error}", case.path.display()));
    let given = eval::run(after, &inputs).unwrap_or_else(|error| panic!("{}: {error}", case.path.display()));
    for (expected, given) in expected.iter().zip(&given) {
        assert_eq!((expected.dtype, &expected.dims), (given.dtype, &given.dims), "{}", case.path.display());
        if expected.dtype == DType::Bool || !expected.dtype.is_float() {
            assert_eq!(expected.bytes, given.bytes, "{}", case.path.display());
            continue;
        }
        // Rewritten, what was rounded after each step is rounded once.
        let share = match expected.dtype {
            DType::F16 => 4e-3,
            DType::BF16 => 3e-2,
            _ => 1e-5,
        };
        for (a, b) in expected.to_f64s().iter().zip(given.to_f64s()) {
            let same = (a.is_nan() && b.is_nan()) || (a - b).abs() <= share * a.abs().max(1.0);
            assert!(same, "{}: expected {a}, given {b}", case.path.display());
        }
    }
}

#[test]
fn each_file_holds() {
    let bless = std::env::var_os("LAPIDARY_BLESS").is_some();
    let cases = cases();
    assert!(!cases.is_empty());
    let mut wrong = Vec::new();
    for case in &cases {
        let (name, fires) = case.expectation();
        assert!(passes::PIPELINE.iter().any(|pass| pass.name == name), "{}: no pass {name}", case.path.display());
        let before = parse(case, &case.before);
        let (after, report) = passes::run_only(name, before.clone());
        assert_eq!(report.count(name) > 0, fires, "{}: {:?}", case.path.display(), report.firings);
        verify::verify(&after).unwrap_or_else(|errors| panic!("{}: {errors:?}", case.path.display()));
        assert_same_values(case, &before, &after);
        let printed = text::print(&after);
        if printed.trim_end() == case.after {
            continue;
        }
        if bless {
            let content = format!("{}{}\n---\n{}", case.header, case.before, printed);
            std::fs::write(&case.path, content).unwrap();
        } else {
            wrong.push(format!("{}:\n{printed}", case.path.display()));
        }
    }
    assert!(wrong.is_empty(), "other graphs came out (LAPIDARY_BLESS=1 accepts them):\n{}", wrong.join("\n"));
}

/// A rule without a file for each direction is not tested.
#[test]
fn each_rule_has_a_file_that_fires_and_one_that_must_not() {
    let cases = cases();
    for pass in passes::PIPELINE {
        for fires in [true, false] {
            let there = cases.iter().any(|case| case.expectation() == (pass.name, fires));
            assert!(there, "no file for `# pass {} {}`", pass.name, if fires { "fires" } else { "does not fire" });
        }
    }
}
