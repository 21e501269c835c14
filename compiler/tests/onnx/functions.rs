//! Model-local functions: expanded before import, with attributes bound and names kept apart; and what is refused.

use lapidary::ir::eval::{self, Tensor};
use lapidary::onnx::import;
use lapidary::onnx::proto::attribute_proto::AttributeType;
use lapidary::onnx::proto::tensor_shape_proto::{Dimension, dimension};
use lapidary::onnx::proto::type_proto::{self, Value};
use lapidary::onnx::proto::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, TensorShapeProto, TypeProto, ValueInfoProto,
};
use lapidary::profiles::Profiles;
use lapidary_runtime::DType;

use super::{loaded, opset};

/// A node of the domain `domain`; names are parted by spaces, and `_` is an absent one.
pub(super) fn node(domain: &str, op: &str, inputs: &str, outputs: &str, attribute: Vec<AttributeProto>) -> NodeProto {
    let names = |text: &str| {
        text.split_whitespace().map(|name| if name == "_" { String::new() } else { name.to_owned() }).collect()
    };
    NodeProto {
        domain: Some(domain.to_owned()),
        op_type: Some(op.to_owned()),
        input: names(inputs),
        output: names(outputs),
        attribute,
        ..NodeProto::default()
    }
}

pub(super) fn named(name: &str, kind: AttributeType) -> AttributeProto {
    AttributeProto { name: Some(name.to_owned()), r#type: Some(kind as i32), ..AttributeProto::default() }
}

pub(super) fn float(name: &str, value: f32) -> AttributeProto {
    AttributeProto { f: Some(value), ..named(name, AttributeType::Float) }
}

/// A value that an attribute of the call gives.
fn reference(name: &str, to: &str) -> AttributeProto {
    AttributeProto { ref_attr_name: Some(to.to_owned()), ..named(name, AttributeType::Float) }
}

pub(super) fn input(name: &str, elem_type: i32, dims: &[i64]) -> ValueInfoProto {
    let dim = dims.iter().map(|&dim| Dimension { value: Some(dimension::Value::DimValue(dim)) }).collect();
    let tensor = type_proto::Tensor { elem_type: Some(elem_type), shape: Some(TensorShapeProto { dim }) };
    ValueInfoProto { name: Some(name.to_owned()), r#type: Some(TypeProto { value: Some(Value::TensorType(tensor)) }) }
}

pub(super) fn output(name: &str) -> ValueInfoProto {
    ValueInfoProto { name: Some(name.to_owned()), r#type: None }
}

fn function(name: &str, inputs: &str, outputs: &str, nodes: Vec<NodeProto>) -> FunctionProto {
    let names = |text: &str| text.split_whitespace().map(str::to_owned).collect();
    FunctionProto {
        name: Some(name.to_owned()),
        domain: Some("my".to_owned()),
        input: names(inputs),
        output: names(outputs),
        node: nodes,
        opset_import: vec![opset("", 17), opset("my", 1)],
        ..FunctionProto::default()
    }
}

/// A model on x, a vector of two, with result y.
fn model(nodes: Vec<NodeProto>, functions: Vec<FunctionProto>) -> ModelProto {
    let graph = GraphProto {
        node: nodes,
        input: vec![input("x", 1, &[2])],
        output: vec![output("y")],
        ..GraphProto::default()
    };
    ModelProto {
        ir_version: Some(8),
        opset_import: vec![opset("", 17), opset("my", 1)],
        graph: Some(graph),
        functions,
        ..ModelProto::default()
    }
}

fn run(proto: &ModelProto, x: &[f64]) -> Vec<f64> {
    let model = loaded(proto).expect("a model");
    let graph = import(&model, &Profiles::new()).unwrap_or_else(|found| panic!("{found}"));
    let x = Tensor::from_f64s(DType::F32, vec![x.len()], x);
    eval::run(&graph, &[x]).unwrap_or_else(|error| panic!("{error}"))[0].to_f64s()
}

#[track_caller]
fn refused(proto: &ModelProto) -> String {
    let found = import(&loaded(proto).expect("a model"), &Profiles::new()).err().expect("this must be refused");
    let one = found.iter().next().expect("there is one");
    assert_eq!((found.len(), one.code), (1, "E0409"), "{found}");
    one.what.clone()
}

/// `slope` below zero; 0.5 where a call does not say.
fn leaky() -> FunctionProto {
    let body = vec![node("", "LeakyRelu", "a", "o", vec![reference("alpha", "slope")])];
    FunctionProto { attribute_proto: vec![float("slope", 0.5)], ..function("Leaky", "a", "o", body) }
}

#[test]
fn attributes_are_the_calls_or_the_defaults() {
    let call = |attributes| model(vec![node("my", "Leaky", "x", "y", attributes)], vec![leaky()]);
    assert_eq!(run(&call(vec![float("slope", 0.25)]), &[-4.0, 4.0]), [-1.0, 4.0]);
    assert_eq!(run(&call(Vec::new()), &[-4.0, 4.0]), [-2.0, 4.0]);
}

#[test]
fn an_attribute_without_a_default_is_left_out() {
    let body = vec![node("", "LeakyRelu", "a", "o", vec![reference("alpha", "slope")])];
    let plain = FunctionProto { attribute: vec!["slope".to_owned()], ..function("Plain", "a", "o", body) };
    let proto = model(vec![node("my", "Plain", "x", "y", Vec::new())], vec![plain]);
    // LeakyRelu's own default.
    assert_eq!(run(&proto, &[-100.0, 4.0]), [-1.0, 4.0]);
}

#[test]
fn calls_do_not_share_names() {
    // Both bodies have a value `t`, and so has the caller.
    let twice = function(
        "Twice",
        "a",
        "o",
        vec![node("my", "Leaky", "a", "t", vec![float("slope", 1.0)]), node("", "Add", "t a", "o", Vec::new())],
    );
    let nodes = vec![
        node("my", "Twice", "x", "t", Vec::new()),
        node("my", "Twice", "t", "u", Vec::new()),
        node("", "Add", "t u", "y", Vec::new()),
    ];
    assert_eq!(run(&model(nodes, vec![twice, leaky()]), &[1.0, -2.0]), [6.0, -12.0]);
}

#[test]
fn a_result_may_be_an_operand_and_an_operand_absent() {
    let body = vec![node("", "Clip", "a low high", "c", Vec::new())];
    let clip = function("Clipped", "a low high", "c a", body);
    let nodes = vec![node("my", "Clipped", "x", "c same", Vec::new()), node("", "Add", "c same", "y", Vec::new())];
    assert_eq!(run(&model(nodes, vec![clip]), &[1.5, -2.0]), [3.0, -4.0]);
}

#[test]
fn graphs_inside_a_body_read_its_values() {
    let branch = |name: &str, op: &str| {
        let graph = GraphProto {
            node: vec![node("", op, "t", name, Vec::new())],
            output: vec![output(name)],
            ..GraphProto::default()
        };
        Box::new(graph)
    };
    let graphs = [("then_branch", branch("p", "Identity")), ("else_branch", branch("n", "Neg"))];
    let attributes =
        graphs.into_iter().map(|(name, graph)| AttributeProto { g: Some(graph), ..named(name, AttributeType::Graph) });
    let body = vec![
        node("", "ReduceMax", "a", "top", vec![AttributeProto { i: Some(0), ..named("keepdims", AttributeType::Int) }]),
        node("", "Sub", "a top", "t", Vec::new()),
        node("", "IsNaN", "top", "nan", Vec::new()),
        node("", "If", "nan", "o", attributes.collect()),
    ];
    let proto = model(vec![node("my", "Branch", "x", "y", Vec::new())], vec![function("Branch", "a", "o", body)]);
    assert_eq!(run(&proto, &[1.0, 4.0]), [3.0, -0.0]);
}

#[test]
fn what_does_not_end_or_fit_is_refused() {
    let recursive = function("Again", "a", "o", vec![node("my", "Again", "a", "o", Vec::new())]);
    let call = |name: &str, inputs: &str| vec![node("my", name, inputs, "y", Vec::new())];
    assert_eq!(refused(&model(call("Again", "x"), vec![recursive])), "function \"Again\" calls itself");
    assert_eq!(refused(&model(call("Leaky", "x x"), vec![leaky()])), "the call has 2 operands, and the function 1");
    // ReduceMax took its axes as an attribute before version 18.
    let body = vec![node("", "ReduceMax", "a", "o", Vec::new())];
    let newer = FunctionProto { opset_import: vec![opset("", 18)], ..function("Top", "a", "o", body) };
    assert_eq!(
        refused(&model(call("Top", "x"), vec![newer])),
        "function \"Top\" uses \"ReduceMax\" of operator set 18"
    );
    // Each function calls the one before twice: 2^24 nodes in the end.
    let mut functions = vec![leaky()];
    for level in 0..24 {
        let inner = if level == 0 { "Leaky".to_owned() } else { format!("F{}", level - 1) };
        let body = vec![node("my", &inner, "a", "t", Vec::new()), node("my", &inner, "t", "o", Vec::new())];
        functions.push(function(&format!("F{level}"), "a", "o", body));
    }
    assert_eq!(refused(&model(call("F23", "x"), functions)), "the model's functions expand to too much");
}
