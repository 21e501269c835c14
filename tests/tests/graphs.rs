//! The benchmark models' graphs, which are committed without their weights: each is planned for every target, and the
//! counts of what comes out stand in `tests/graphs/counts.txt`. `LAPIDARY_BLESS=1` writes them anew.

use std::fmt::Write;
use std::path::Path;

use lapidary::lower::Target;
use lapidary::onnx;
use lapidary::passes::Precision;
use lapidary::plan::Arena;
use lapidary::profiles::Profiles;
use lapidary_tests::root;

const TARGETS: [&str; 3] = ["cpu", "sm_80", "sm_90a"];

/// A line of counts; the header names them.
fn counts(path: &Path) -> String {
    let name = path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut model = onnx::load(path).unwrap_or_else(|errors| panic!("{name}: {errors}"));
    model.seed_weights();
    let imported = onnx::import(&model, &Profiles::new()).unwrap_or_else(|errors| panic!("{name}: {errors}"));
    let before = imported.node_count();
    let (graph, _) = lapidary::optimize(imported, Precision::default());
    let mut line = format!("{name:<26}{:>6}{before:>9}{:>7}", model.graph().node.len(), graph.node_count());
    for target in TARGETS {
        let target: Target = target.parse().expect("a target");
        let planned = lapidary::plan_for(&graph, target).unwrap_or_else(|errors| panic!("{name}: {errors}"));
        let arena = planned.plan.arenas.iter().map(|arena| arena.bytes).max().unwrap_or(0);
        for arena in &planned.plan.arenas {
            let Arena { bytes, least_bytes, .. } = arena;
            assert!(
                *bytes as f64 <= 1.05 * *least_bytes as f64,
                "{name}: {bytes} bytes, and {least_bytes} live at once"
            );
        }
        let (steps, kernels) = (planned.plan.step_count(), planned.kernels.kernels.len());
        write!(line, "{steps:>8}{kernels:>4}{:>7}", arena >> 10).expect("a string grows");
    }
    line
}

#[test]
fn every_graph_has_its_plans() {
    let folder = root().join("tests/graphs");
    let entries = std::fs::read_dir(&folder).expect("a folder");
    let mut graphs: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    graphs.retain(|path| path.extension().is_some_and(|extension| extension == "onnx"));
    graphs.sort();
    let mut found = String::from(
        "# Nodes as ONNX has them, as imported, and behind the passes; then for cpu, sm_80 and sm_90a: steps (launches), distinct\n\
         # kernels, and KiB of activations.\n",
    );
    for graph in &graphs {
        found += &counts(graph);
        found.push('\n');
    }
    let path = folder.join("counts.txt");
    if std::env::var_os("LAPIDARY_BLESS").is_some() {
        std::fs::write(&path, &found).expect("a writable file");
    }
    let expected = std::fs::read_to_string(&path).expect("counts.txt");
    assert!(graphs.len() >= 9 && found == expected, "tests/graphs/counts.txt says\n{expected}\nand there are\n{found}");
}
