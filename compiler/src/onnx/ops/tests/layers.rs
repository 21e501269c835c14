//! Normalizations, recurrent layers and resizing, beyond ONNX's own backend cases.

use lapidary_runtime::DType;

use super::fixture::{Attr, Case, counted, floats};
use crate::ir::Op;
use crate::ir::eval::Tensor;

fn batch_norm(attrs: &[(&str, Attr)]) -> Case {
    Case::new(15)
        .input("x", DType::F32, &["n", "2", "3"])
        .constant("scale", floats(&[2], &[2.0, -1.0]))
        .constant("bias", floats(&[2], &[1.0, 0.5]))
        .constant("mean", floats(&[2], &[3.0, 4.0]))
        .constant("var", floats(&[2], &[4.0, 0.25]))
        .node("BatchNormalization", "x scale bias mean var", "y", attrs)
}

#[test]
fn batch_normalization_ends_in_one_product_and_one_sum() {
    let case = batch_norm(&[("epsilon", Attr::Float(0.0)), ("momentum", Attr::Float(0.5))]);
    let x = floats(&[1, 2, 3], &[3.0, 5.0, 7.0, 4.0, 5.0, 6.0]);
    assert_eq!(case.run(&[x]).to_f64s(), [1.0, 3.0, 5.0, 0.5, -1.5, -3.5]);
    let graph = case.import().expect("a graph");
    let on_data: Vec<usize> = graph
        .order()
        .into_iter()
        .filter(|&id| graph.input_types(id).iter().flatten().any(|ty| ty.dims.len() == 3))
        .map(|id| match &graph.node(id).op {
            Op::Pointwise(program) => program.steps.len(),
            other => panic!("{} on the data", other.name()),
        })
        .collect();
    assert_eq!(on_data, [1, 1]);
}

#[test]
fn batch_normalization_in_training_takes_the_statistics_of_the_batch() {
    let attrs = [("training_mode", Attr::Int(1)), ("epsilon", Attr::Float(0.0)), ("momentum", Attr::Float(0.75))];
    let case = Case::new(15).input("x", DType::F32, &["n", "2"]).constant("p", floats(&[2], &[2.0, 4.0]));
    let case = case.outputs("y mean var").node("BatchNormalization", "x p p p p", "y mean var", &attrs);
    let got = case.run_all(&[floats(&[2, 2], &[1.0, 10.0, 5.0, 12.0])]);
    let values: Vec<Vec<f64>> = got.iter().map(|(_, value)| value.to_f64s()).collect();
    assert_eq!(values, [vec![0.0, 0.0, 4.0, 8.0], vec![2.25, 5.75], vec![2.5, 3.25]]);
}

#[test]
fn parameters_of_another_number_of_channels_are_refused() {
    let case = Case::new(15).input("x", DType::F32, &["n", "4", "3"]).constant("p", floats(&[1], &[2.0])).node(
        "BatchNormalization",
        "x p p p p",
        "y",
        &[],
    );
    assert_eq!(case.fault(), "the extents 1 and 4 must be equal");
}

#[test]
fn a_root_mean_square_norm_gives_its_deviation_second() {
    let case = Case::new(17).input("x", DType::F32, &["n", "2"]).constant("scale", floats(&[2], &[1.0, 1.0])).node(
        "SimplifiedLayerNormalization",
        "x scale",
        "z y",
        &[("epsilon", Attr::Float(0.0))],
    );
    let deviation = case.run(&[floats(&[1, 2], &[1.0, 7.0])]);
    assert_eq!((deviation.dims.clone(), deviation.to_f64s()), (vec![1, 1], vec![f64::from(0.2f32)]));
}

#[test]
fn a_skipped_sum_is_a_result() {
    let case = Case::new(17)
        .input("x", DType::F32, &["n", "2"])
        .input("skip", DType::F32, &["n", "2"])
        .constant("scale", floats(&[2], &[1.0, 1.0]))
        .constant("bias", floats(&[2], &[10.0, 20.0]))
        .node("com.microsoft::SkipSimplifiedLayerNormalization", "x skip scale bias", "z _ _ y", &[]);
    let sum = case.run(&[floats(&[1, 2], &[1.0, 2.0]), floats(&[1, 2], &[3.0, 4.0])]);
    assert_eq!(sum.to_f64s(), [14.0, 26.0]);
}

fn recurrent(op: &str, dims: &[&str], attrs: &[(&str, Attr)]) -> Case {
    let case = Case::new(14)
        .input("x", DType::F32, dims)
        .constant("w", counted(&[1, 12, 3]))
        .constant("r", counted(&[1, 12, 3]));
    case.node(op, "x w r", "y", attrs)
}

#[test]
fn the_batch_layout_is_the_other_one_transposed() {
    let x = Tensor::from_f64s(DType::F32, vec![2, 1, 3], &[0.1, -0.2, 0.05, 0.3, 0.02, -0.1]);
    let swapped = x.reshaped(vec![1, 2, 3]).expect("a tensor");
    let by_step = recurrent("LSTM", &["s", "1", "3"], &[("hidden_size", Attr::Int(3))]).run(&[x]);
    let by_batch = recurrent("LSTM", &["1", "s", "3"], &[("layout", Attr::Int(1))]).run(&[swapped]);
    assert_eq!((by_step.dims.as_slice(), by_batch.dims.as_slice()), (&[2, 1, 1, 3][..], &[1, 2, 1, 3][..]));
    assert_eq!(by_step.bytes, by_batch.bytes);
}

#[test]
fn activations_without_a_default_need_their_parameters() {
    let fault = |names: &'static [&'static str]| {
        recurrent("LSTM", &["s", "1", "3"], &[("activations", Attr::Texts(names))]).fault()
    };
    assert_eq!(
        fault(&["Sigmoid", "ScaledTanh", "Tanh"]),
        "attribute \"activation_alpha\" has no number for ScaledTanh"
    );
    assert_eq!(fault(&["Sigmoid", "Swish", "Tanh"]), "attribute \"activations\" has \"Swish\"");
    assert_eq!(fault(&["Sigmoid"]), "attribute \"activations\" has 1 names");
}

fn resized(scale: f64) -> Case {
    Case::new(13)
        .input("x", DType::F32, &["1", "h"])
        .dim("h=1:4:200")
        .constant("scales", floats(&[2], &[1.0, scale]))
        .node("Resize", "x _ scales", "y", &[("mode", Attr::Text("nearest"))])
}

#[test]
fn scaled_extents_are_quotients_of_integers() {
    assert_eq!(resized(2.0).dims()[1], "2*h");
    assert_eq!(resized(0.6).dims()[1], "floor(3*h, 5)");
    assert_eq!(resized(2.3).dims()[1], "floor(23*h, 10)");
    assert_eq!(resized(1.0 / 3.0).dims()[1], "floor(h, 3)");
    assert_eq!(resized(0.0).fault(), "a scale is 0, and must be positive");
    // An identity is no node.
    assert_eq!(resized(1.0).import().map(|graph| graph.node_count()), Ok(0));
}

#[test]
fn scales_may_be_computed_from_constants() {
    let case = Case::new(13)
        .input("x", DType::F32, &["1", "h"])
        .constant("whole", floats(&[2], &[2.0, 6.0]))
        .constant("half", floats(&[1], &[0.5]))
        .node("Mul", "whole half", "scales", &[])
        .node("Resize", "x _ scales", "y", &[]);
    assert_eq!(case.dims()[1], "3*h");
}
