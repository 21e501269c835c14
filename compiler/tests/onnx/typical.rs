//! Typical shapes: chosen where nothing is stated, reported where what is stated cannot be.

use lapidary::diag::Diagnostics;
use lapidary::ir::Graph;

use super::control::{i64s, imported, plain, symbolic};

/// y = reshape(x [h, w], [4, w]), which needs an h of 4.
fn rows(dims: &str) -> Result<Graph, Diagnostics> {
    let nodes = vec![
        plain("Shape", "x", "shape"),
        plain("Gather", "shape one", "w"),
        plain("Concat", "four w", "target"),
        plain("Reshape", "x target", "y"),
    ];
    let mut nodes = nodes;
    nodes[2].attribute = vec![super::control::integer("axis", 0)];
    let constants = vec![i64s("one", &[1], &[1]), i64s("four", &[1], &[4])];
    imported(nodes, vec![symbolic("x", &["h", "w"])], constants, dims)
}

fn typical(graph: &Graph) -> Vec<(i64, i64, i64)> {
    graph.symbols.values().map(|symbol| symbol.ranges[0]).map(|range| (range.min, range.opt, range.max)).collect()
}

#[test]
fn an_unstated_dimension_gets_the_smallest_value_that_is_accepted() {
    let graph = rows("").unwrap_or_else(|found| panic!("{found}"));
    assert_eq!(typical(&graph), [(1, 4, 64), (1, 1, 64)]);
    // What is stated stays, and the other dimension is left as it is.
    let graph = rows("w=1:7:9").unwrap_or_else(|found| panic!("{found}"));
    assert_eq!(typical(&graph), [(1, 4, 64), (1, 7, 9)]);
    let graph = rows("h=2:4:8 h=4:4:4").unwrap_or_else(|found| panic!("{found}"));
    assert_eq!(graph.profile_count(), 2);
}

#[test]
fn a_stated_one_that_is_not_accepted_is_reported() {
    let found = rows("h=2:3:8").err().expect("this must be refused");
    let text = found.to_string();
    assert!(text.starts_with("error[E0411]: the model does not accept the typical shape: \"h\" = 3"), "{text}");
    assert!(text.contains("\"Reshape#4\" needs") && text.contains("to be equal"), "{text}");
    assert!(text.contains("help: state a typical shape that it accepts: --dim h=2:4:8"), "{text}");
    let found = rows("h=4:4:4 h=2:3:8 w=1:1:1").err().expect("this must be refused");
    assert!(found.to_string().contains("typical shape of profile 2: \"h\" = 3"), "{found}");
}

#[test]
fn a_range_that_leaves_no_shape_says_what_it_was_taken_for() {
    let nodes = vec![plain("Add", "x w", "y")];
    let constants = vec![i64s("w", &[224], &[0; 224])];
    let mut x = symbolic("x", &["n"]);
    if let Some(lapidary::onnx::proto::type_proto::Value::TensorType(tensor)) =
        x.r#type.as_mut().and_then(|ty| ty.value.as_mut())
    {
        tensor.elem_type = Some(7);
    }
    let accepted = imported(nodes.clone(), vec![x.clone()], constants.clone(), "n=1:224:300");
    assert!(accepted.is_ok());
    let found = imported(nodes, vec![x], constants, "n=2:100:200").err().expect("this must be refused");
    assert!(found.iter().all(|one| one.code == "E0407"), "{found}");
}
