//! Operators with a graph in an attribute: attention with graphs between its steps, scans, maps, loops over sequences.

use lapidary_runtime::DType;

use super::fixture::{Attr, Case, counted, floats};
use crate::ir::eval::Tensor;

fn scalar(value: i64) -> Tensor {
    Tensor::from_i64s(DType::I64, Vec::new(), &[value])
}

/// q `[1, 2, 2, 2]`, k and v `[1, 1, 3, 2]`: two heads of queries share one of keys.
fn attention(attrs: &[(&str, Attr)]) -> Case {
    let case = Case::new(18).input("q", DType::F32, &["1", "2", "2", "2"]);
    let case = case.input("k", DType::F32, &["1", "1", "3", "2"]).input("v", DType::F32, &["1", "1", "3", "2"]);
    case.node("ai.onnx.preview::FlexAttention", "q k v", "y", attrs)
}

fn body(op: &str, inputs: &str) -> Case {
    Case::new(18).input("s", DType::F32, &[]).node(op, inputs, "y", &[])
}

#[test]
fn flex_attention_goes_through_its_graphs() {
    let operands = [counted(&[1, 2, 2, 2]), counted(&[1, 1, 3, 2]), counted(&[1, 1, 3, 2])];
    // Scores of zero share alike, and probabilities of one add up what there is.
    let nothing = || ("score_mod", Attr::graph(body("Sub", "s s")));
    let everything = ("prob_mod", Attr::graph(body("Div", "s s")));
    let means: Vec<f64> = {
        let v = operands[2].to_f64s();
        (0..2).map(|k| (v[k] + v[k + 2] + v[k + 4]) / 3.0).collect()
    };
    for (attrs, count) in [(vec![nothing()], 1.0), (vec![nothing(), everything], 3.0)] {
        let got = attention(&attrs).run(&operands);
        assert_eq!(got.dims, [1, 2, 2, 2]);
        for (k, value) in got.to_f64s().into_iter().enumerate() {
            assert!((value - count * means[k % 2]).abs() < 1e-4, "{value}");
        }
    }
}

#[test]
fn the_graphs_of_flex_attention_keep_type_and_shape() {
    let of = |body: Case| attention(&[("score_mod", Attr::graph(body))]).fault();
    assert_eq!(
        of(body("IsNaN", "s")),
        "score_mod gives bool[1, 2, 2, 3], and must give the type and shape of its operand, f32[1, 2, 2, 3]"
    );
    assert_eq!(of(body("Transpose", "s")), "the extents 1 and 3 must be equal");
    assert_eq!(
        of(body("Add", "s t").input("t", DType::F32, &[])),
        "score_mod has 2 inputs and 1 outputs, and must have one of each"
    );
    assert_eq!(of(body("Wat", "s")), "the operator ai.onnx::Wat is not supported");
    let precision = attention(&[("softmax_precision", Attr::Int(7))]);
    assert_eq!(precision.fault(), "attribute \"softmax_precision\" is the number of i64");
}

/// Sums of rows, and the sums on the way: x `[2, 3, 2]`, a batch of two.
fn batched_scan(lengths: &str) -> Case {
    let sums = Case::new(8).input("s", DType::F32, &["2"]).input("x", DType::F32, &["2"]).outputs("t u");
    let sums = sums.node("Add", "s x", "t", &[]).node("Identity", "t", "u", &[]);
    let case = Case::new(8).input("n", DType::I64, &["2"]).input("s", DType::F32, &["2", "2"]);
    let case = case.input("x", DType::F32, &["2", "3", "2"]).outputs("y z");
    let attrs = [("body", Attr::graph(sums)), ("num_scan_inputs", Attr::Int(1))];
    case.node("Scan", &format!("{lengths} s x"), "y z", &attrs)
}

#[test]
fn a_scan_of_operator_set_8_has_a_batch_and_lengths() {
    let x = floats(&[2, 3, 2], &(1..=12).map(f64::from).collect::<Vec<_>>());
    let s = floats(&[2, 2], &[100.0, 0.0, 0.0, 0.0]);
    let n = Tensor::from_i64s(DType::I64, vec![2], &[2, 3]);
    let all: Vec<Vec<f64>> =
        batched_scan("_").run_all(&[n.clone(), s.clone(), x.clone()]).iter().map(|(_, y)| y.to_f64s()).collect();
    assert_eq!(all[0], [109.0, 12.0, 27.0, 30.0]);
    assert_eq!(all[1], [101.0, 2.0, 104.0, 6.0, 109.0, 12.0, 7.0, 8.0, 16.0, 18.0, 27.0, 30.0]);
    let cut: Vec<Vec<f64>> = batched_scan("n").run_all(&[n, s, x]).iter().map(|(_, y)| y.to_f64s()).collect();
    assert_eq!(cut[0], [104.0, 6.0, 27.0, 30.0]);
    assert_eq!(cut[1][2..8], [104.0, 6.0, 0.0, 0.0, 7.0, 8.0]);
}

#[test]
fn a_map_takes_element_by_element() {
    let sum = Case::new(18).input("p", DType::F32, &[]).input("q", DType::F32, &[]).outputs("r p");
    let sum = sum.node("Add", "p q", "r", &[]);
    let case = ["a", "b", "c"].into_iter().fold(Case::new(18), |case, name| case.input(name, DType::F32, &["2"]));
    let map = |operands: &str| {
        let case = case.clone().node("SequenceConstruct", "a b", "s", &[]).node("SequenceConstruct", "c", "t", &[]);
        case.outputs("y z").node("SequenceMap", operands, "y z", &[("body", Attr::graph(sum.clone()))])
    };
    let [a, b, c] = [[1.0, 2.0], [3.0, 4.0], [10.0, 20.0]].map(|values| floats(&[2], &values));
    let got = map("s c").run_all(&[a.clone(), b.clone(), c]);
    let names: Vec<&str> = got.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["y.0", "y.1", "z.0", "z.1"]);
    assert_eq!((got[0].1.to_f64s(), got[1].1.to_f64s()), (vec![11.0, 22.0], vec![13.0, 24.0]));
    assert_eq!((&got[2].1, &got[3].1), (&a, &b));
    assert_eq!(map("s t").fault(), "operand 1 has 1 elements, and the first one 2");
    assert_eq!(map("c s").fault(), "operand 0 is a tensor, and a sequence is needed");
}

#[test]
fn a_loop_carries_a_sequence_and_a_branch_gives_one() {
    let body = Case::new(18).input("round", DType::I64, &[]).input("on", DType::Bool, &[]).input("s", DType::F32, &[]);
    let body = body.node("Identity", "on", "go", &[]).node("SequenceInsert", "s x round", "t", &[]).outputs("go t");
    let collected = |case: Case| {
        let case = case.input("x", DType::F32, &["2"]).node("SequenceEmpty", "", "none", &[]);
        case.node("Loop", "count _ none", "y", &[("body", Attr::graph(body.clone()))])
    };
    let x = floats(&[2], &[1.0, 2.0]);
    let got = collected(Case::new(18).constant("count", scalar(3))).run_all(std::slice::from_ref(&x));
    assert_eq!(got, ["y.0", "y.1", "y.2"].map(|name| (name.to_owned(), x.clone())));
    // Only unrolling gives a sequence its length.
    assert_eq!(
        collected(Case::new(18).constant("count", scalar(65))).fault(),
        "this loop is not supported: up to 65 rounds are more than the 64 that are unrolled"
    );
    assert_eq!(
        collected(Case::new(18).input("count", DType::I64, &[])).fault(),
        "this loop is not supported: the number of rounds depends on the data"
    );

    let choose = |otherwise: &str| {
        let branch = |operands: &str| Attr::graph(Case::new(18).node("SequenceConstruct", operands, "y", &[]));
        let case = Case::new(18).input("x", DType::F32, &["2"]).input("z", DType::F32, &["2"]);
        let attrs = [("then_branch", branch("x z")), ("else_branch", branch(otherwise))];
        case.input("flag", DType::Bool, &[]).node("If", "flag", "y", &attrs)
    };
    let z = floats(&[2], &[3.0, 4.0]);
    for (flag, expected) in [(1, [&x, &z]), (0, [&z, &x])] {
        let flag = Tensor::from_i64s(DType::Bool, Vec::new(), &[flag]);
        let got = choose("z x").run_all(&[x.clone(), z.clone(), flag]);
        assert_eq!([&got[0].1, &got[1].1], expected);
    }
    assert_eq!(
        choose("x").fault(),
        "output 0 of the branches is a sequence of 2 in one and a sequence of 1 in the other"
    );
}

#[test]
fn the_bands_of_a_mel_matrix_meet_at_their_corners() {
    let number = |name: &'static str, dtype| (name, dtype);
    let inputs = [number("rate", DType::I32), number("low", DType::F32), number("high", DType::F32)];
    let case = inputs.into_iter().fold(Case::new(17), |case, (name, dtype)| case.input(name, dtype, &[]));
    let case = case.constant("bands", scalar(8)).constant("length", scalar(16));
    let case = case.node("MelWeightMatrix", "bands length rate low high", "y", &[]);
    let rate = Tensor::from_i64s(DType::I32, Vec::new(), &[8192]);
    let got = case.run(&[rate, floats(&[], &[0.0]), floats(&[], &[4096.0])]);
    assert_eq!(got.dims, [9, 8]);
    // Bins of the corners: floor(17 f / 8192) of ten frequencies evenly apart on the mel scale.
    let mel = 2595.0 * (1.0f64 + 4096.0 / 700.0).log10() / 10.0;
    let corner = |k: usize| (17.0 * 700.0 * (10f64.powf(k as f64 * mel / 2595.0) - 1.0) / 8192.0).floor();
    for (at, value) in got.to_f64s().into_iter().enumerate() {
        let (row, band) = ((at / 8) as f64, at % 8);
        let [left, center, right] = [0, 1, 2].map(|k| corner(band + k));
        let expected = if row == center {
            1.0
        } else if row < center {
            ((row - left) / (center - left)).max(0.0)
        } else {
            ((right - row) / (right - center)).max(0.0)
        };
        let expected = if row < left || row > right { 0.0 } else { expected };
        assert!((value - expected).abs() < 1e-6, "row {row}, band {band}: {value}, not {expected}");
    }
}
