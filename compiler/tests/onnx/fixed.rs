//! Inputs that a caller fixes: they become constants, and dimensions and advice follow.

use lapidary::diag::Diagnostics;
use lapidary::ir::Graph;
use lapidary::ir::eval::{self, Tensor};
use lapidary::onnx::proto::{GraphProto, ModelProto, NodeProto, ValueInfoProto};
use lapidary::onnx::{Model, import, inputs};
use lapidary::profiles::Profiles;
use lapidary_runtime::DType;

use super::control::{plain, symbolic};
use super::functions::{input, output};
use super::{loaded, opset};

const FLOAT: i32 = 1;
const INT64: i32 = 7;

fn model(nodes: Vec<NodeProto>, inputs: Vec<ValueInfoProto>) -> Model {
    let graph = GraphProto { node: nodes, input: inputs, output: vec![output("y")], ..GraphProto::default() };
    let proto = ModelProto {
        ir_version: Some(8),
        opset_import: vec![opset("", 18)],
        graph: Some(graph),
        ..ModelProto::default()
    };
    loaded(&proto).expect("a model")
}

fn summed() -> Model {
    model(vec![plain("ReduceSum", "x axes", "y")], vec![input("x", FLOAT, &[2, 3]), input("axes", INT64, &[1])])
}

fn imported(model: &Model) -> Result<Graph, Diagnostics> {
    import(model, &Profiles::new())
}

#[track_caller]
fn fix(model: &mut Model, name: &str, value: &str) {
    model.fix_input(name, &value.parse().expect("numbers")).expect("it fits");
}

#[track_caller]
fn refused(model: &mut Model, name: &str, value: &str) -> String {
    let found = model.fix_input(name, &value.parse().expect("numbers")).expect_err("it does not fit");
    let first = found.iter().next().expect("a diagnostic");
    assert_eq!(first.code, "E0413");
    [first.why.as_str(), first.help.as_str()].join(" ").trim().to_owned()
}

#[test]
fn a_fixed_input_is_a_constant() {
    let mut model = summed();
    fix(&mut model, "axes", "-1");
    let graph = imported(&model).expect("it is supported now");
    let [x] = graph.inputs() else { panic!("x alone is left") };
    assert_eq!(&*graph.value(*x).name, "x");
    let x = Tensor::from_f64s(DType::F32, vec![2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let y = eval::run(&graph, &[x]).expect("it runs");
    assert_eq!(y, [Tensor::from_f64s(DType::F32, vec![2, 1], &[6.0, 15.0])]);
    assert_eq!(refused(&mut model, "axes", "0"), "the model has no input \"axes\" its inputs are: \"x\"");
}

#[test]
fn a_refusal_says_what_to_fix() {
    let found = imported(&summed()).err().expect("the axes are not known");
    let help = &found.iter().next().expect("a diagnostic").help;
    assert_eq!(help, "if the input has the same value in every run, fix it: --value axes=VALUE,..");
    // Computed from two inputs.
    let nodes = vec![plain("Add", "a b", "axes"), plain("ReduceSum", "x axes", "y")];
    let ports = vec![input("x", FLOAT, &[2, 3]), input("a", INT64, &[1]), input("b", INT64, &[1])];
    let found = imported(&model(nodes, ports)).err().expect("the axes are not known");
    let help = &found.iter().next().expect("a diagnostic").help;
    assert!(help.ends_with("fix it: --value a=VALUE,.. --value b=VALUE,.."), "{help}");
    // From an input that nobody types.
    let nodes = vec![plain("Cast", "x", "i"), plain("Reshape", "i flat", "axes"), plain("ReduceSum", "x axes", "y")];
    let ports = vec![input("x", FLOAT, &[2, 3]), input("flat", INT64, &[1])];
    let found = imported(&model(nodes, ports)).err().expect("the axes are not known");
    assert!(found.iter().all(|one| !one.help.contains("--value x=")), "{found}");
}

#[test]
fn the_number_of_elements_tells_a_dimension() {
    let nodes = vec![plain("Mul", "x w", "y")];
    let mut model = model(nodes, vec![symbolic("x", &["n"]), symbolic("w", &["n"])]);
    fix(&mut model, "w", "0.5, 2,-1e3");
    let left = inputs(&model).expect("inputs");
    assert_eq!((left.len(), &left[0].dims), (1, &vec![3]));
    let graph = imported(&model).expect("it is supported");
    assert!(graph.symbols.is_empty());
}

#[test]
fn values_that_do_not_fit_are_refused() {
    let mut model = model(
        vec![plain("Identity", "x", "y")],
        vec![input("x", INT64, &[2]), input("u", 2, &[]), symbolic("w", &["a", "b"]), symbolic("n", &["k"])],
    );
    assert!(refused(&mut model, "x", "1").starts_with("its shape is [2], which 1 elements do not fill"));
    assert!(refused(&mut model, "x", "0.5,1").starts_with("the elements are i64, which 0.5,1 is not"));
    assert!(refused(&mut model, "u", "256").starts_with("the elements are u8, which 256 is not"));
    assert!(refused(&mut model, "u", "1,2").starts_with("its shape is [], which 2 elements do not fill"));
    let open = "2 of its axes have no extent, and the elements tell that of one";
    assert!(refused(&mut model, "w", "1,2").starts_with(open));
    fix(&mut model, "n", "");
    fix(&mut model, "u", "255");
    assert!("1,x".parse::<lapidary::onnx::Numbers>().is_err());
}
