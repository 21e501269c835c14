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

#[test]
fn other_loops_say_why_they_are_refused() {
    assert_eq!(
        only(looped(65, "_")),
        "this loop is not supported: up to 65 rounds are more than the 64 that are unrolled"
    );
    assert_eq!(only(looped(3, "flag")), "this loop is not supported: whether it goes on depends on the data");
    assert_eq!(
        only(looped(0, "_")),
        "this loop is not supported: it has no rounds, so the extents of what it collects are not known"
    );
}
