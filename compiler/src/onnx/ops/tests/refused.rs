//! What the newer operators refuse, in their words.

use lapidary_runtime::DType;

use super::fixture::{Attr, Case};

#[test]
fn attention_says_what_does_not_fit() {
    let qkv = |dims: &[&str]| {
        Case::new(24).input("q", DType::F32, dims).input("k", DType::F32, dims).input("v", DType::F32, dims)
    };
    let flat = qkv(&["1", "4", "8"]);
    let missing = "q_num_heads and kv_num_heads are needed where Q, K and V have rank 3";
    assert_eq!(flat.node("Attention", "q k v", "y", &[]).fault(), missing);
    let heads = [("q_num_heads", Attr::Int(3)), ("kv_num_heads", Attr::Int(3))];
    let flat = qkv(&["1", "4", "8"]).node("Attention", "q k v", "y", &heads);
    assert_eq!(flat.fault(), "8 features are not 3 heads of one size");
    let half = qkv(&["1", "2", "4", "8"]).input("past", DType::F32, &["1", "2", "4", "8"]).node(
        "Attention",
        "q k v _ past",
        "y",
        &[],
    );
    assert_eq!(half.fault(), "past_key and past_value are given together or not at all");
    let open = qkv(&["1", "2", "4", "size"]).node("Attention", "q k v", "y", &[]);
    assert_eq!(open.fault(), "the size of a head is not known while compiling, and scale follows from it");
}

#[test]
fn what_is_quadratic_is_bounded() {
    let case = Case::new(20).input("x", DType::F32, &["1", "5000", "1"]).node("DFT", "x _ axis", "y", &[]);
    assert_eq!(case.ints("axis", &[1]).fault(), "a Fourier transform of length 5000 is not supported");
    let case = Case::new(26).input("x", DType::F32, &["n"]).dim("n=1:8:2000").ints("axis", &[0]);
    let case = case.node("CumProd", "x axis", "y", &[]);
    assert_eq!(case.fault(), "CumProd along an axis of n elements is not supported");
    let case = Case::new(22).input("x", DType::F32, &["2", "5", "5"]).node("Det", "x", "y", &[]);
    assert_eq!(case.fault(), "determinants of matrices of 5 rows are not supported");
}

#[test]
fn grids_over_what_is_not_sampled_are_refused() {
    let case = Case::new(20)
        .input("x", DType::F32, &["1", "1", "3", "3", "3"])
        .input("grid", DType::F32, &["1", "2", "2", "2", "3"])
        .node("GridSample", "x grid", "y", &[("mode", Attr::Text("cubic"))]);
    assert_eq!(case.fault(), "GridSample in this mode over 3 axes is not supported");
    let case = Case::new(20)
        .input("x", DType::I32, &["1", "1", "3", "3"])
        .input("grid", DType::F32, &["1", "2", "2", "2"])
        .node("GridSample", "x grid", "y", &[]);
    assert_eq!(case.fault(), "GridSample of i32 is not supported but for the mode nearest");
}

#[test]
fn a_zero_point_has_the_shape_of_its_scale() {
    for (scale, zero, ranks) in [(&["1", "2"][..], &["2"][..], (1, 2)), (&["2"], &["1", "2"], (2, 1))] {
        let case = Case::new(21)
            .input("x", DType::I8, &["1", "2"])
            .input("scale", DType::F32, scale)
            .input("zero", DType::I8, zero)
            .node("DequantizeLinear", "x scale zero", "y", &[("block_size", Attr::Int(i64::from(ranks.1 == 2)))]);
        assert_eq!(case.fault(), format!("the zero point has rank {}, and the scale has {}", ranks.0, ranks.1));
    }
}

#[test]
fn padding_beyond_all_numbers_is_no_extent() {
    let case = Case::new(22).input("x", DType::F32, &["1", "1", "4"]).input("w", DType::F32, &["1", "1", "2"]).node(
        "ConvTranspose",
        "x w",
        "y",
        &[("output_padding", Attr::Ints(&[i64::MAX]))],
    );
    assert!(case.fault().contains("9223372036854775807"), "{}", case.fault());
}

/// Found by the fuzzer.
#[test]
fn what_is_off_and_what_is_on_are_two_elements() {
    let case = Case::new(13).input("at", DType::I64, &["3"]).input("values", DType::F32, &[]).ints("depth", &[4]);
    let case = case.node("OneHot", "at depth values", "y", &[]);
    assert_eq!(case.fault(), "values has rank 0, and must have rank 1: off and on");
}
