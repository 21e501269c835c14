//! Results as long as the data says: their extents are counts, and what follows computes with these.

use lapidary_runtime::DType;

use super::fixture::{Attr, Case, floats};
use crate::ir::eval::Tensor;

fn ints(dims: &[usize], values: &[i64]) -> Tensor {
    Tensor::from_i64s(DType::I64, dims.to_vec(), values)
}

#[test]
fn positions_of_a_symbolic_matrix() {
    let case = Case::new(17).input("x", DType::F32, &["n", "3"]).node("NonZero", "x", "y", &[]);
    assert_eq!(case.dims(), ["2", "count1"]);
    let x = floats(&[2, 3], &[0.0, -1.0, 0.0, f64::NAN, 0.0, 5.0]);
    assert_eq!(case.run(&[x]), ints(&[2, 3], &[0, 1, 1, 1, 0, 2]));
    assert_eq!(case.run(&[floats(&[4, 3], &[0.0; 12])]), ints(&[2, 0], &[]));
}

#[test]
fn positions_of_a_vector_and_of_a_scalar() {
    let vector = Case::new(17).input("x", DType::I32, &["n"]).node("NonZero", "x", "y", &[]);
    let x = Tensor::from_i64s(DType::I32, vec![4], &[0, 7, 0, -1]);
    assert_eq!(vector.run(&[x]), ints(&[1, 2], &[1, 3]));
    let scalar = Case::new(17).input("x", DType::F32, &[]).node("NonZero", "x", "y", &[]);
    assert_eq!(scalar.run(&[floats(&[], &[2.0])]), ints(&[0, 1], &[]));
}

/// What follows a count knows its extent like any other: its shape, a sum over it, a reshape of it.
#[test]
fn counts_go_on() {
    let masked = |case: Case| {
        case.input("x", DType::F32, &["n", "2"]).input("mask", DType::Bool, &["n"]).node(
            "Compress",
            "x mask",
            "rows",
            &[("axis", Attr::Int(0))],
        )
    };
    let shape = masked(Case::new(17)).node("Shape", "rows", "y", &[]);
    let sum = masked(Case::new(17)).node("ReduceMean", "rows", "y", &[("axes", Attr::Ints(&[0]))]);
    let flat = masked(Case::new(17)).ints("all", &[-1]).node("Reshape", "rows all", "y", &[]);
    assert_eq!(flat.dims(), ["2*count1"]);
    let x = floats(&[3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let mask = Tensor::from_i64s(DType::Bool, vec![3], &[1, 0, 1]);
    let inputs = [x, mask];
    assert_eq!(shape.run(&inputs), ints(&[2], &[2, 2]));
    assert_eq!(sum.run(&inputs), floats(&[1, 2], &[3.0, 4.0]));
    assert_eq!(flat.run(&inputs), floats(&[4], &[1.0, 2.0, 5.0, 6.0]));
}

#[test]
fn masks_that_do_not_fit_are_refused() {
    let case = |mask: DType, extent: &str| {
        Case::new(17).input("x", DType::F32, &["2"]).input("mask", mask, &[extent]).node("Compress", "x mask", "y", &[])
    };
    assert_eq!(case(DType::F32, "2").fault(), "the condition must be a vector of bool");
    assert_eq!(case(DType::Bool, "3").fault(), "the condition has 3 elements, and the axis 2");
    // A shorter one leaves the rest out.
    let mask = Tensor::from_i64s(DType::Bool, vec![1], &[1]);
    assert_eq!(case(DType::Bool, "1").run(&[floats(&[2], &[8.0, 9.0]), mask]), floats(&[1], &[8.0]));
}

#[test]
fn rows_of_many_columns_are_not_sorted() {
    let wide = Case::new(17).input("x", DType::F32, &["n", "65"]).node("Unique", "x", "y", &[("axis", Attr::Int(0))]);
    assert_eq!(wide.fault(), "Unique of parts of 65 elements is not supported");
}

/// No rows at all: what stands for those that do not count is not looked for among none.
#[test]
fn nothing_has_no_kinds_and_no_boxes() {
    for sorted in [0, 1] {
        let attrs = [("sorted", Attr::Int(sorted))];
        let case = Case::new(17).input("x", DType::F32, &["n"]).dim("n=0:1:8").node("Unique", "x", "y", &attrs);
        assert_eq!(case.run(&[floats(&[0], &[])]), floats(&[0], &[]));
    }
    let boxes = Case::new(17)
        .input("boxes", DType::F32, &["1", "n", "4"])
        .input("scores", DType::F32, &["1", "2", "n"])
        .dim("n=0:1:8")
        .ints("most", &[3])
        .node("NonMaxSuppression", "boxes scores most", "y", &[]);
    assert_eq!(boxes.run(&[floats(&[1, 0, 4], &[]), floats(&[1, 2, 0], &[])]), ints(&[0, 3], &[]));
    assert_eq!(boxes.run(&[floats(&[1, 1, 4], &[0.0, 0.0, 1.0, 1.0]), floats(&[1, 2, 1], &[0.5, 0.2])]).dims, [2, 3]);
}

#[test]
fn flags_have_two_kinds() {
    let case = Case::new(17).input("x", DType::Bool, &["n"]).node("Unique", "x", "y", &[("sorted", Attr::Int(0))]);
    let flags = |values: &[i64]| Tensor::from_i64s(DType::Bool, vec![values.len()], values);
    assert_eq!(case.run(&[flags(&[1, 1, 0, 1])]), flags(&[1, 0]));
    assert_eq!(case.run(&[flags(&[0, 0])]), flags(&[0]));
}
