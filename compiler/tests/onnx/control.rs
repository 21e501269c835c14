//! Control flow: branches that are decided, that are not, that differ; loops that are unrolled or refused.

use lapidary::diag::Diagnostics;
use lapidary::ir::eval::{self, Tensor};
use lapidary::ir::verify::verify;
use lapidary::ir::{Graph, Op};
use lapidary::onnx::import;
use lapidary::onnx::proto::attribute_proto::AttributeType;
use lapidary::onnx::proto::tensor_shape_proto::{Dimension, dimension};
use lapidary::onnx::proto::type_proto::{self, Value};
use lapidary::onnx::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, TensorShapeProto, TypeProto, ValueInfoProto,
};
use lapidary::profiles::Profiles;
use lapidary_runtime::DType;

use super::functions::{input, named, node, output};
use super::{loaded, opset};

const FLOAT: i32 = 1;
const INT64: i32 = 7;
const BOOL: i32 = 9;

pub(super) fn graph(name: &str, nodes: Vec<NodeProto>) -> AttributeProto {
    graph_of(name, nodes, Vec::new(), vec![output("r")])
}

fn graph_of(
    name: &str,
    nodes: Vec<NodeProto>,
    inputs: Vec<ValueInfoProto>,
    outputs: Vec<ValueInfoProto>,
) -> AttributeProto {
    let graph = GraphProto { node: nodes, input: inputs, output: outputs, ..GraphProto::default() };
    AttributeProto { g: Some(Box::new(graph)), ..named(name, AttributeType::Graph) }
}

pub(super) fn plain(op: &str, inputs: &str, outputs: &str) -> NodeProto {
    node("", op, inputs, outputs, Vec::new())
}

pub(super) fn integer(name: &str, value: i64) -> AttributeProto {
    AttributeProto { i: Some(value), ..named(name, AttributeType::Int) }
}

pub(super) fn i64s(name: &str, dims: &[i64], values: &[i64]) -> TensorProto {
    let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    TensorProto { name: Some(name.to_owned()), ..super::raw(INT64, dims, &data) }
}

pub(super) fn imported(
    nodes: Vec<NodeProto>,
    inputs: Vec<ValueInfoProto>,
    initializer: Vec<TensorProto>,
    dims: &str,
) -> Result<Graph, Diagnostics> {
    let graph =
        GraphProto { node: nodes, input: inputs, output: vec![output("y")], initializer, ..GraphProto::default() };
    let proto = ModelProto {
        ir_version: Some(8),
        opset_import: vec![opset("", 17)],
        graph: Some(graph),
        ..ModelProto::default()
    };
    let mut profiles = Profiles::new();
    for text in dims.split_whitespace() {
        let (name, range) = Profiles::parse(text).expect("a profile");
        profiles.add(&name, range);
    }
    let graph = import(&loaded(&proto).expect("a model"), &profiles)?;
    verify(&graph).unwrap_or_else(|errors| panic!("{}", errors.join("\n")));
    Ok(graph)
}

/// A tensor input whose extents are symbols.
pub(super) fn symbolic(name: &str, dims: &[&str]) -> ValueInfoProto {
    let dim = dims.iter().map(|dim| Dimension { value: Some(dimension::Value::DimParam((*dim).to_owned())) }).collect();
    let tensor = type_proto::Tensor { elem_type: Some(FLOAT), shape: Some(TensorShapeProto { dim }) };
    ValueInfoProto { name: Some(name.to_owned()), r#type: Some(TypeProto { value: Some(Value::TensorType(tensor)) }) }
}

fn floats(dims: &[usize], values: &[f64]) -> Tensor {
    Tensor::from_f64s(DType::F32, dims.to_vec(), values)
}

#[track_caller]
fn only(found: Result<Graph, Diagnostics>) -> String {
    let found = found.err().expect("this must be refused");
    assert_eq!(found.len(), 1, "{found}");
    found.iter().next().map(|one| one.what.clone()).unwrap_or_default()
}

/// y = flag ? then(x) : else(x)
fn choice(then_nodes: Vec<NodeProto>, else_nodes: Vec<NodeProto>) -> Result<Graph, Diagnostics> {
    let graphs = vec![graph("then_branch", then_nodes), graph("else_branch", else_nodes)];
    let inputs = vec![input("x", FLOAT, &[2]), input("flag", BOOL, &[])];
    imported(vec![node("", "If", "flag", "y", graphs)], inputs, Vec::new(), "")
}

#[test]
fn an_open_branch_is_two_regions() {
    let graph = choice(vec![plain("Neg", "x", "r")], vec![plain("Add", "x x", "t"), plain("Exp", "t", "r")]);
    let graph = graph.unwrap_or_else(|found| panic!("{found}"));
    assert!(graph.order().iter().all(|&id| matches!(graph.node(id).op, Op::If { .. })));
    for (flag, expected) in [(1, [-1.0, 0.0]), (0, [f64::from(2f32.exp()), 1.0])] {
        let flag = Tensor::from_i64s(DType::Bool, Vec::new(), &[flag]);
        let results = eval::run(&graph, &[floats(&[2], &[1.0, 0.0]), flag]).expect("results");
        for (value, expected) in results[0].to_f64s().iter().zip(expected) {
            assert!((value - expected).abs() < 1e-6);
        }
    }
}

#[test]
fn faults_of_both_branches_are_reported() {
    let found = choice(vec![plain("Wat", "x", "r")], vec![plain("Huh", "x", "r")]).err().expect("faults");
    assert_eq!(found.len(), 2, "{found}");
    // The same fault again is a fault of the branch that has it, though it reads the same.
    let same = || vec![plain("Wat", "x", "r")];
    assert_eq!(only(choice(same(), same())), "the operator ai.onnx::Wat is not supported");
}

#[test]
fn branches_with_results_of_two_kinds_are_refused() {
    let found = only(choice(vec![plain("Neg", "x", "r")], vec![plain("IsNaN", "x", "r")]));
    assert_eq!(found, "output 0 of the branches differ: f32[2] and bool[2]");
}

#[test]
fn branches_of_different_extents_are_refused() {
    let graphs = vec![
        graph("then_branch", vec![plain("Neg", "x", "r")]),
        graph("else_branch", vec![node("", "Concat", "x x", "r", vec![integer("axis", 0)])]),
    ];
    let inputs = vec![symbolic("x", &["n"]), input("flag", BOOL, &[])];
    assert_eq!(
        only(imported(vec![node("", "If", "flag", "y", graphs)], inputs, Vec::new(), "n=1:1:8")),
        "output 0 of the branches has the extents n and 2*n, which are never equal"
    );
}

/// What exporters write for `squeeze` of axis 1 of x `[b, n]`, to which z `[b]` is added.
fn squeezed(dims: &str) -> Result<Graph, Diagnostics> {
    let branches = vec![
        graph("then_branch", vec![plain("Squeeze", "x axis", "r")]),
        graph("else_branch", vec![plain("Identity", "x", "r")]),
    ];
    let nodes = vec![
        plain("Shape", "x", "shape"),
        plain("Gather", "shape axis", "extent"),
        plain("Equal", "extent one", "unit"),
        node("", "If", "unit", "y", branches),
    ];
    let constants = vec![i64s("axis", &[1], &[1]), i64s("one", &[1], &[1])];
    imported(nodes, vec![symbolic("x", &["b", "n"])], constants, dims)
}

#[test]
fn a_branch_on_an_extent_is_decided_by_the_profile_or_relied_on() {
    let rank = |graph: &Graph| graph.ty(graph.outputs()[0].1).dims.len();
    let decided = squeezed("n=2:3:4").unwrap_or_else(|found| panic!("{found}"));
    assert_eq!((rank(&decided), decided.constraints.len()), (2, 0));
    let pinned = squeezed("n=1").unwrap_or_else(|found| panic!("{found}"));
    assert_eq!((rank(&pinned), pinned.constraints.len()), (1, 0));
    // Open: the rank cannot be, so the model relies on an extent of 1.
    let open = squeezed("n=1:1:4").unwrap_or_else(|found| panic!("{found}"));
    let constraints: Vec<String> = open.constraints.iter().map(|c| format!("{} = {}", c.left, c.right)).collect();
    assert_eq!((rank(&open), constraints.first().map(String::as_str)), (1, Some("n = 1")));
}

/// Adds x to a state in each round, and collects the squares.
fn looped(rounds: i64, condition: &str) -> Result<Graph, Diagnostics> {
    // The names in the body hide those around it.
    let body = graph_of(
        "body",
        vec![
            plain("Add", "s x", "y"),
            plain("Mul", "y y", "squares"),
            plain("IsNaN", "zero", "never"),
            plain("Not", "never", "on"),
        ],
        vec![output("i"), output("on_in"), output("s")],
        vec![output("on"), output("y"), output("squares")],
    );
    let zero = TensorProto { name: Some("zero".to_owned()), ..super::raw(FLOAT, &[], &[0; 4]) };
    let yes = TensorProto { name: Some("yes".to_owned()), ..super::raw(BOOL, &[], &[1]) };
    let nodes = vec![node("", "Loop", &format!("rounds {condition} x"), "final squares", vec![body])];
    let nodes = [nodes, vec![plain("Add", "final squares", "y")]].concat();
    let inputs = vec![input("x", FLOAT, &[2]), input("flag", BOOL, &[])];
    imported(nodes, inputs, vec![i64s("rounds", &[], &[rounds]), zero, yes], "")
}

#[test]
fn short_loops_are_unrolled() {
    for condition in ["_", "yes"] {
        let graph = looped(2, condition).unwrap_or_else(|found| panic!("{found}"));
        let flag = Tensor::from_i64s(DType::Bool, Vec::new(), &[1]);
        let results = eval::run(&graph, &[floats(&[2], &[1.0, -2.0]), flag]).expect("results");
        // States 2x and 3x; the squares of both, with the last state added.
        assert_eq!((results[0].dims.as_slice(), results[0].to_f64s()), (&[2, 2][..], vec![7.0, 10.0, 12.0, 30.0]));
    }
}

/// The name of the operation that each node of the graph is.
fn operations(graph: &Graph) -> Vec<&'static str> {
    graph.order().iter().map(|&id| graph.node(id).op.name()).collect()
}

#[test]
fn a_long_loop_is_one_operation() {
    let graph = looped(1000, "_").unwrap_or_else(|found| panic!("{found}"));
    assert_eq!(operations(&graph), ["loop", "pointwise"]);
    let flag = Tensor::from_i64s(DType::Bool, Vec::new(), &[1]);
    let results = eval::run(&graph, &[floats(&[2], &[1.0, 0.0]), flag]).expect("results");
    // The squares of 2 to 1001, with the last state added.
    let rows: Vec<f64> = results[0].to_f64s().chunks(2).map(|row| row[0]).collect();
    assert_eq!((rows.len(), rows[0], rows[999]), (1000, 4.0 + 1001.0, 1_002_001.0 + 1001.0));
    // No round gives no rows, of the extents that the body says.
    let none = looped(0, "_").unwrap_or_else(|found| panic!("{found}"));
    assert_eq!(none.ty(none.outputs()[0].1).const_dims(), Some(vec![0, 2]));
}

#[test]
fn rows_of_an_open_number_of_rounds_are_counted() {
    let graph = looped(3, "flag").unwrap_or_else(|found| panic!("{found}"));
    for (flag, expected) in [(0, vec![]), (1, vec![8.0, 13.0, 20.0])] {
        let flag = Tensor::from_i64s(DType::Bool, Vec::new(), &[flag]);
        let results = eval::run(&graph, &[floats(&[2], &[1.0, 0.0]), flag]).expect("results");
        // The squares of 2 to 4, with the last state added.
        assert_eq!(results[0].dims, [expected.len(), 2]);
        assert_eq!(results[0].to_f64s().into_iter().step_by(2).collect::<Vec<f64>>(), expected);
    }
}

/// A loop over x `[2]` with the given body, which takes i, c and s and gives on and next.
fn round(nodes: Vec<NodeProto>, rounds: &str, condition: &str) -> Result<Graph, Diagnostics> {
    let body = graph_of("body", nodes, vec![output("i"), output("c"), output("s")], vec![output("on"), output("next")]);
    let yes = TensorProto { name: Some("yes".to_owned()), ..super::raw(BOOL, &[], &[1]) };
    let inputs = vec![input("x", FLOAT, &[2]), input("n", INT64, &[]), input("flag", BOOL, &[])];
    let constants = vec![i64s("ten", &[], &[10]), i64s("most", &[], &[100_000]), yes];
    imported(vec![node("", "Loop", &format!("{rounds} {condition} x"), "y", vec![body])], inputs, constants, "")
}

fn run_round(graph: &Graph, n: i64, flag: i64) -> Vec<f64> {
    let n = Tensor::from_i64s(DType::I64, Vec::new(), &[n]);
    let flag = Tensor::from_i64s(DType::Bool, Vec::new(), &[flag]);
    eval::run(graph, &[floats(&[2], &[1.0, -1.0]), n, flag]).expect("results")[0].to_f64s()
}

#[test]
fn the_data_decides_how_many_rounds_there_are() {
    let doubled = || vec![plain("Add", "s s", "next"), plain("Identity", "c", "on")];
    let graph = round(doubled(), "n", "_").unwrap_or_else(|found| panic!("{found}"));
    for (n, last) in [(0, 1.0), (-5, 1.0), (10, 1024.0)] {
        assert_eq!(run_round(&graph, n, 1), [last, -last]);
    }
    // The condition at the start is the caller's; behind it there is none.
    let graph = round(doubled(), "ten", "flag").unwrap_or_else(|found| panic!("{found}"));
    assert_eq!((run_round(&graph, 0, 0), run_round(&graph, 0, 1)), (vec![1.0, -1.0], vec![1024.0, -1024.0]));
    // Ends by what it computes: behind the round in which i is 10.
    let watched = vec![plain("Add", "s s", "next"), plain("Less", "i ten", "on")];
    let graph = round(watched, "_", "flag").unwrap_or_else(|found| panic!("{found}"));
    assert_eq!(run_round(&graph, 0, 1), [2048.0, -2048.0]);
}

#[test]
fn a_condition_on_the_number_of_the_round_bounds_it() {
    let watched = vec![plain("Add", "s s", "next"), plain("Less", "i ten", "on")];
    let graph = round(watched, "most", "flag").unwrap_or_else(|found| panic!("{found}"));
    let most = graph.order().iter().find_map(|&id| match &graph.node(id).op {
        Op::Loop { most, .. } => Some(most.clone()),
        _ => None,
    });
    assert_eq!(most.and_then(|most| most.as_const()), Some(11));
}

#[test]
fn a_loop_that_never_ends_is_refused() {
    let endless = "this loop never ends: it has no number of rounds, and no condition that can become false";
    let doubled = || vec![plain("Add", "s s", "next"), plain("Identity", "c", "on")];
    assert_eq!(only(round(doubled(), "_", "_")), endless);
    assert_eq!(only(round(doubled(), "_", "yes")), endless);
}

#[test]
fn what_a_loop_carries_keeps_its_shape() {
    let growing = || vec![node("", "Concat", "s x", "next", vec![integer("axis", 0)]), plain("Identity", "c", "on")];
    assert_eq!(only(round(growing(), "n", "_")), "this loop carries f32[2], which a round makes f32[4]");
    // Unrolled it may.
    let graph = round(growing(), "ten", "_").unwrap_or_else(|found| panic!("{found}"));
    assert_eq!(graph.ty(graph.outputs()[0].1).const_dims(), Some(vec![22]));
}

#[test]
fn loops_in_loops_end_while_compiling() {
    // Each level is imported several times by each round of the one around it.
    let mut nodes = vec![plain("Add", "s s", "next"), plain("Identity", "c", "on")];
    for _ in 0..24 {
        let ios = (vec![output("i"), output("c"), output("s")], vec![output("on"), output("next")]);
        let body = graph_of("body", nodes, ios.0, ios.1);
        nodes = vec![node("", "Loop", "ten _ s", "next", vec![body]), plain("Identity", "c", "on")];
    }
    assert!(only(round(nodes, "ten", "_")).starts_with("its loops and branches are more than"));
}
