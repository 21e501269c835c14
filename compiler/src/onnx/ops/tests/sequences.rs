//! Sequences and optional values, of which nothing is left in the graph.

use lapidary_runtime::DType;

use super::fixture::{Attr, Case, counted, floats};
use crate::ir::eval::Tensor;

fn scalar(value: i64) -> Tensor {
    Tensor::from_i64s(DType::I64, Vec::new(), &[value])
}

fn three() -> Case {
    ["a", "b", "c"].into_iter().fold(Case::new(18), |case, name| case.input(name, DType::F32, &["2"]))
}

fn inputs() -> [Tensor; 3] {
    [floats(&[2], &[1.0, 2.0]), floats(&[2], &[3.0, 4.0]), floats(&[2], &[5.0, 6.0])]
}

#[test]
fn elements_are_put_in_and_taken_out() {
    let case = three()
        .constant("first", scalar(0))
        .constant("last", scalar(-1))
        .node("SequenceConstruct", "a", "s1", &[])
        .node("SequenceInsert", "s1 b", "s2", &[])
        .node("SequenceInsert", "s2 c first", "s3", &[])
        .node("SequenceErase", "s3 last", "s4", &[])
        .node("ConcatFromSequence", "s4", "y", &[("axis", Attr::Int(0)), ("new_axis", Attr::Int(1))]);
    let got = case.run(&inputs());
    assert_eq!((got.dims.clone(), got.to_f64s()), (vec![2, 2], vec![5.0, 6.0, 1.0, 2.0]));
}

#[test]
fn a_position_of_the_data_reads_from_elements_of_one_shape() {
    let case = three().input("at", DType::I64, &[]);
    let case = case.node("SequenceConstruct", "a b c", "s", &[]).node("SequenceAt", "s at", "y", &[]);
    let [a, b, c] = inputs();
    assert_eq!(case.run(&[a, b.clone(), c, scalar(-2)]), b);
    let case = three().input("at", DType::I64, &[]).input("d", DType::F32, &["3"]);
    let case = case.node("SequenceConstruct", "a b d", "s", &[]).node("SequenceAt", "s at", "y", &[]);
    assert_eq!(case.fault(), "the position of elements that differ in shape depends on the data of a run");
}

#[test]
fn a_tensor_is_split_into_rows_and_into_parts() {
    let x = counted(&[5, 2]);
    let rows = Case::new(18)
        .input("x", DType::F32, &["5", "2"])
        .constant("at", scalar(3))
        .node("SplitToSequence", "x", "s", &[("keepdims", Attr::Int(0))])
        .node("SequenceAt", "s at", "y", &[]);
    let got = rows.run(std::slice::from_ref(&x));
    assert_eq!((got.dims.clone(), got.to_f64s()), (vec![2], x.to_f64s()[6..8].to_vec()));
    let parts = Case::new(18)
        .input("x", DType::F32, &["5", "2"])
        .constant("size", scalar(2))
        .constant("at", scalar(-1))
        .node("SplitToSequence", "x size", "s", &[])
        .node("SequenceAt", "s at", "y", &[]);
    let got = parts.run(std::slice::from_ref(&x));
    assert_eq!((got.dims.clone(), got.to_f64s()), (vec![1, 2], x.to_f64s()[8..].to_vec()));
    let wrong = Case::new(18).input("x", DType::F32, &["5", "2"]).ints("sizes", &[2, 2]);
    let wrong = wrong.node("SplitToSequence", "x sizes", "s", &[]).node("SequenceLength", "s", "y", &[]);
    assert_eq!(wrong.fault(), "parts of [2, 2] elements do not add up to 5");
}

#[test]
fn lengths_and_presence_are_constants() {
    let case = three().node("SequenceConstruct", "a b c", "s", &[]).node("SequenceLength", "s", "y", &[]);
    assert_eq!(case.run(&inputs()).to_i64s(), [3]);
    for (operand, there) in [("a", 1), ("_", 0)] {
        let case = three().node("OptionalHasElement", operand, "y", &[]);
        assert_eq!(case.run(&inputs()).to_i64s(), [there]);
    }
    let case = three().node("Optional", "b", "o", &[]).node("OptionalGetElement", "o", "y", &[]);
    assert_eq!(case.run(&inputs()), inputs()[1]);
}

#[test]
fn what_is_no_tensor_is_named() {
    let output = three().node("Optional", "_", "y", &[]);
    assert_eq!(output.fault(), "this output is an optional value that is absent");
    let output = three().node("SequenceEmpty", "", "y", &[]);
    assert_eq!(output.fault(), "the outputs are sequences without elements");
    let taken = three().node("Optional", "_", "o", &[]).node("OptionalGetElement", "o", "y", &[]);
    assert_eq!(taken.fault(), "the optional value is absent, and its element is taken");
    let operand = three().node("SequenceConstruct", "a b c", "s", &[]).node("Relu", "s", "y", &[]);
    assert_eq!(operand.fault(), "\"s\" is a sequence, and this operator takes tensors here");
    let tensor = three().node("SequenceLength", "a", "y", &[]);
    assert_eq!(tensor.fault(), "operand 0 is a tensor, and a sequence is needed");
    let twice = three().node("SequenceConstruct", "a", "s", &[]).node("SequenceConstruct", "b", "s", &[]);
    let twice = twice.node("SequenceLength", "s", "y", &[]);
    assert_eq!(twice.fault(), "\"s\" is defined twice");
    let beyond = three().constant("at", scalar(3)).node("SequenceConstruct", "a b c", "s", &[]);
    assert_eq!(beyond.node("SequenceAt", "s at", "y", &[]).fault(), "there is no position 3 among 3");
}

#[test]
fn an_output_that_is_a_sequence_is_an_output_for_each_element() {
    let case = three().node("SequenceConstruct", "c a", "y", &[]);
    let [a, b, c] = inputs();
    assert_eq!(case.run_all(&[a.clone(), b, c.clone()]), [("y.0".to_owned(), c), ("y.1".to_owned(), a)]);
    let taken = three().outputs("y z").node("SequenceConstruct", "a", "y", &[]).node("Relu", "b", "y.0", &[]);
    let taken = taken.node("Relu", "b", "z", &[]).outputs("y y.0");
    assert_eq!(taken.fault(), "\"y.0\" is an output twice");
}

#[test]
fn an_input_that_is_a_sequence_is_an_input_for_each_element() {
    let case = Case::new(18).input("x", DType::F32, &["n", "2"]).sequence().input("at", DType::I64, &[]).maybe();
    let case = case.node("ConcatFromSequence", "x", "y", &[("axis", Attr::Int(0))]);
    assert_eq!(case.fault(), "a sequence, of which is not said how many elements it has");
    let two = case.clone().elements("x", 2);
    let graph = two.import().unwrap_or_else(|found| panic!("{found}"));
    let names: Vec<String> = graph.inputs().iter().map(|&input| graph.value(input).name.to_string()).collect();
    assert_eq!(names, ["x.0", "x.1", "at"]);
    // One dimension of the element's type is one of each element.
    assert_eq!(two.dims(), ["x.0.0 + x.1.0", "2"]);
    let got = two.run(&[counted(&[3, 2]), counted(&[1, 2]), scalar(0)]);
    assert_eq!(got.to_f64s(), [counted(&[3, 2]).to_f64s(), counted(&[1, 2]).to_f64s()].concat());
    assert_eq!(case.clone().elements("x", 1025).fault(), "\"x\" cannot have 1025 elements");
    assert_eq!(case.clone().elements("at", 2).fault(), "\"at\" cannot have 2 elements");
    assert_eq!(case.elements("y", 2).fault(), "\"y\" cannot have 2 elements");
}

#[test]
fn an_optional_input_is_there_unless_the_caller_says_that_it_is_absent() {
    let case = Case::new(18).input("x", DType::F32, &["2"]).maybe().input("z", DType::F32, &["2"]);
    let case = case.node("OptionalHasElement", "x", "there", &[]).node("Not", "there", "y", &[]);
    let x = floats(&[2], &[1.0, 2.0]);
    assert_eq!(case.run(&[x.clone(), x.clone()]).to_i64s(), [0]);
    assert_eq!(case.clone().elements("x", 1).run(&[x.clone(), x.clone()]).to_i64s(), [0]);
    assert_eq!(case.elements("x", 0).run(&[x]).to_i64s(), [1]);
    let sequence = Case::new(18).input("x", DType::F32, &["2"]).sequence().maybe();
    let sequence = sequence.node("OptionalGetElement", "x", "s", &[]).node("SequenceLength", "s", "y", &[]);
    let x = floats(&[2], &[1.0, 2.0]);
    assert_eq!(sequence.clone().elements("x", 2).run(&[x.clone(), x]).to_i64s(), [2]);
    assert_eq!(sequence.elements("x", 0).fault(), "the optional value is absent, and its element is taken");
}

#[test]
fn an_input_without_a_shape_has_the_rank_that_the_caller_states() {
    let case = Case::new(18).input("x", DType::F32, &["7"]).shapeless().sequence();
    let case = case.node("ConcatFromSequence", "x", "y", &[("axis", Attr::Int(1))]).elements("x", 2);
    assert_eq!(case.fault(), "an input without a shape");
    let stated = case.clone().rank("x.0", 2).rank("x.1", 2);
    assert_eq!(stated.dims(), ["x.0.0", "x.0.1 + x.1.1"]);
    assert_eq!(case.clone().rank("x", 2).fault(), "\"x\" cannot be given the rank 2");
    assert_eq!(stated.rank("x.0", 3).fault(), "\"x.0\" cannot be given the rank 3");
    assert_eq!(case.rank("x.0", 9).fault(), "a tensor of rank 9");
}
