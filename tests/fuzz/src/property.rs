//! What must hold of any bytes: the compiler answers with a plan or with diagnostics.
//!
//! A panic, a hang and an unbounded allocation are libFuzzer's to notice; what is checked here is that diagnostics are
//! real ones, that an imported graph verifies, and that it survives its text form.

use bytes::Bytes;
use lapidary::diag::{CODES, Diagnostics};
use lapidary::ir::{Graph, Range, text, verify};
use lapidary::lower::Target;
use lapidary::onnx::{self, Model};
use lapidary::passes::Precision;
use lapidary::profiles::Profiles;

/// Graphs with more nodes are not planned: planning is for another target, and fuzzing lives from the number of runs.
const MOST_NODES: usize = 48;

/// Compiles `data` as far as it goes, with default ranges and with all dimensions pinned.
pub fn check(data: &[u8]) {
    let model = match onnx::load_bytes(Bytes::copy_from_slice(data), None) {
        Ok(model) => model,
        Err(found) => return check_diagnostics(&found),
    };
    import(&model, &Profiles::new());
    if let Some(pinned) = pinned(&model) {
        import(&model, &pinned);
    }
}

/// A profile that gives every symbolic dimension one small value; `None` if there are none.
fn pinned(model: &Model) -> Option<Profiles> {
    let inputs = onnx::inputs(model).ok()?;
    let mut profiles = Profiles::new();
    let names: std::collections::BTreeSet<&String> = inputs.iter().flat_map(|i| i.symbols.iter().flatten()).collect();
    for (k, name) in names.iter().enumerate() {
        let value = 1 + (k as i64 + name.len() as i64) % 5;
        profiles.add(name, Range { min: value, opt: value, max: value });
    }
    (!names.is_empty()).then_some(profiles)
}

fn import(model: &Model, profiles: &Profiles) {
    let graph = match onnx::import(model, profiles) {
        Ok(graph) => graph,
        Err(found) => return check_diagnostics(&found),
    };
    check_graph(&graph, "import");
    let nodes = graph.node_count();
    let (graph, _) = lapidary::optimize(graph, Precision::default());
    check_graph(&graph, "the passes");
    if nodes > MOST_NODES {
        return;
    }
    for target in ["cpu", "sm_80"] {
        let target: Target = target.parse().expect("a target");
        if let Err(found) = lapidary::plan_for(&graph, target) {
            check_diagnostics(&found);
        }
    }
}

fn check_graph(graph: &Graph, stage: &str) {
    if let Err(errors) = verify::verify(graph) {
        panic!("the graph behind {stage} is wrong: {}\n{}", errors.join("; "), text::print(graph));
    }
    let printed = text::print(graph);
    let constants = text::named_constants(graph);
    match text::parse(&printed, &|name| constants.get(name).cloned()) {
        Ok(again) => assert_eq!(text::print(&again), printed, "the text form of the graph behind {stage} changed"),
        Err(error) => panic!("the text form of the graph behind {stage} is not read: {error}\n{printed}"),
    }
}

fn check_diagnostics(found: &Diagnostics) {
    assert!(found.has_errors(), "refused without an error: {found}");
    for one in found.iter() {
        assert!(CODES.iter().any(|code| code.code == one.code), "{} has no meaning", one.code);
        assert!(!one.what.is_empty(), "{} says nothing", one.code);
    }
    // A name from the model can neither forge a line nor flood the terminal.
    assert!(found.to_string().len() <= 16_384 * (1 + found.len()), "{} diagnostics of too much text", found.len());
}
