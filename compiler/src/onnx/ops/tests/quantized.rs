//! Quantized operators, each against its formula on a few numbers.

use lapidary_runtime::DType;

use super::fixture::{Attr, Case, floats};
use crate::ir::eval::Tensor;

fn bytes(dtype: DType, dims: &[usize], values: &[i64]) -> Tensor {
    Tensor::from_i64s(dtype, dims.to_vec(), values)
}

/// Names of a scale and a zero point are constants of the case.
fn with_params(case: Case, name: &str, dtype: DType, scale: f64, zero: i64) -> Case {
    case.constant(&format!("{name}_scale"), floats(&[], &[scale]))
        .constant(&format!("{name}_zero"), bytes(dtype, &[], &[zero]))
}

/// The formula: round half to even, then saturate.
fn quantized(values: &[f64], scale: f64, zero: f64, (low, high): (f64, f64)) -> Vec<i64> {
    values.iter().map(|value| ((value / scale).round_ties_even() + zero).clamp(low, high) as i64).collect()
}

fn real(values: &[i64], scale: f64, zero: i64) -> Vec<f64> {
    values.iter().map(|value| (value - zero) as f64 * scale).collect()
}

const U8: (f64, f64) = (0.0, 255.0);
const X: [i64; 6] = [0, 255, 128, 120, 140, 3];
const Y: [i64; 6] = [9, 200, 4, 255, 1, 77];

#[test]
fn sums_and_products_of_quantized_tensors() {
    for (op, f) in [("QLinearAdd", (|a, b| a + b) as fn(f64, f64) -> f64), ("QLinearMul", |a, b| a * b)] {
        let case = Case::new(15).input("a", DType::U8, &["2", "3"]).input("b", DType::U8, &["2", "3"]);
        let case = with_params(case, "a", DType::U8, 0.5, 128);
        let case = with_params(case, "b", DType::U8, 0.25, 3);
        let case = with_params(case, "c", DType::U8, 4.0, 100);
        let operands = "a a_scale a_zero b b_scale b_zero c_scale c_zero";
        let case = case.node(&format!("com.microsoft::{op}"), operands, "y", &[]);
        let got = case.run(&[bytes(DType::U8, &[2, 3], &X), bytes(DType::U8, &[2, 3], &Y)]);
        let exact: Vec<f64> = real(&X, 0.5, 128).iter().zip(real(&Y, 0.25, 3)).map(|(&a, b)| f(a, b)).collect();
        assert_eq!(got.to_i64s(), quantized(&exact, 4.0, 100.0, U8), "{op}");
    }
}

#[test]
fn functions_of_quantized_tensors() {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let leaky = |x: f64| if x < 0.0 { 0.125 * x } else { x };
    let leaks = [("alpha", Attr::Float(0.125))];
    let functions: [fn(f64) -> f64; 2] = [sigmoid, leaky];
    let operators = [("QLinearSigmoid", &leaks[..0]), ("QLinearLeakyRelu", &leaks[..])];
    for ((op, attrs), f) in operators.into_iter().zip(functions) {
        let case = with_params(Case::new(15).input("x", DType::U8, &["6"]), "x", DType::U8, 0.03125, 128);
        let case = with_params(case, "y", DType::U8, 0.0625, 90);
        let case = case.node(&format!("com.microsoft::{op}"), "x x_scale x_zero y_scale y_zero", "y", attrs);
        let exact: Vec<f64> = real(&X, 0.03125, 128).into_iter().map(f).collect();
        let got = case.run(&[bytes(DType::U8, &[6], &X)]);
        assert_eq!(got.to_i64s(), quantized(&exact, 0.0625, 90.0, U8), "{op}");
    }
}

#[test]
fn means_of_quantized_tensors() {
    let exact: Vec<f64> = X.chunks(3).map(|row| real(row, 0.5, 128).iter().sum::<f64>() / 3.0).collect();
    let want = quantized(&exact, 0.25, 130.0, U8);
    let case = |dims: &[&str]| {
        let case = with_params(Case::new(15).input("x", DType::U8, dims), "x", DType::U8, 0.5, 128);
        with_params(case, "y", DType::U8, 0.25, 130)
    };
    let operands = "x x_scale x_zero y_scale y_zero";
    let pool = case(&["1", "2", "3"]).node("com.microsoft::QLinearGlobalAveragePool", operands, "y", &[]);
    assert_eq!(pool.run(&[bytes(DType::U8, &[1, 2, 3], &X)]).to_i64s(), want);
    let attrs = [("axes", Attr::Ints(&[-1])), ("keepdims", Attr::Int(0))];
    let mean = case(&["2", "3"]).node("com.microsoft::QLinearReduceMean", operands, "y", &attrs);
    let got = mean.run(&[bytes(DType::U8, &[2, 3], &X)]);
    assert_eq!((got.dims.clone(), got.to_i64s()), (vec![2], want));
}

#[test]
fn softmax_concat_and_choice_of_quantized_tensors() {
    let case = with_params(Case::new(15).input("x", DType::U8, &["2", "3"]), "x", DType::U8, 0.03125, 128);
    let case = with_params(case, "y", DType::U8, 1.0 / 256.0, 0);
    let attrs = [("axis", Attr::Int(-1)), ("opset", Attr::Int(13))];
    let case = case.node("com.microsoft::QLinearSoftmax", "x x_scale x_zero y_scale y_zero", "y", &attrs);
    let exact: Vec<f64> = X
        .chunks(3)
        .flat_map(|row| {
            let exps: Vec<f64> = real(row, 0.03125, 128).into_iter().map(f64::exp).collect();
            let sum: f64 = exps.iter().sum();
            exps.into_iter().map(move |exp| exp / sum)
        })
        .collect();
    assert_eq!(case.run(&[bytes(DType::U8, &[2, 3], &X)]).to_i64s(), quantized(&exact, 1.0 / 256.0, 0.0, U8));

    let case = with_params(Case::new(15).input("a", DType::U8, &["6"]), "a", DType::U8, 0.5, 128);
    let case = with_params(case.input("b", DType::U8, &["6"]), "b", DType::U8, 0.25, 3);
    let case = with_params(case, "c", DType::U8, 0.5, 128);
    let operands = "c_scale c_zero a a_scale a_zero b b_scale b_zero";
    let both = case.node("com.microsoft::QLinearConcat", operands, "y", &[("axis", Attr::Int(0))]);
    let want = [X.to_vec(), quantized(&real(&Y, 0.25, 3), 0.5, 128.0, U8)].concat();
    assert_eq!(both.run(&[bytes(DType::U8, &[6], &X), bytes(DType::U8, &[6], &Y)]).to_i64s(), want);

    let case = with_params(Case::new(15).input("a", DType::U8, &["6"]), "a", DType::U8, 0.5, 128);
    let case = with_params(case.input("b", DType::U8, &["6"]), "b", DType::U8, 0.25, 3);
    let case = with_params(case.input("if", DType::Bool, &["6"]), "c", DType::U8, 0.5, 128);
    let operands = "if a a_scale a_zero b b_scale b_zero c_scale c_zero";
    let chosen = case.node("com.microsoft::QLinearWhere", operands, "y", &[]);
    let condition = bytes(DType::Bool, &[6], &[1, 0, 0, 1, 1, 0]);
    let got = chosen.run(&[bytes(DType::U8, &[6], &X), bytes(DType::U8, &[6], &Y), condition]);
    assert_eq!(got.to_i64s(), [X[0], want[7], want[8], X[3], X[4], want[11]]);
}

/// 2 x 3 times 3 x 2, both less their zero points.
fn product(zero_b: [i64; 2]) -> Vec<i64> {
    let mut sums = Vec::new();
    for row in 0..2 {
        for column in 0..2 {
            sums.push((0..3).map(|k| (X[row * 3 + k] - 128) * (Y[k * 2 + column] - zero_b[column])).sum::<i64>());
        }
    }
    sums
}

#[test]
fn gemm_of_quantized_tensors() {
    let transposed: Vec<i64> = (0..6).map(|k| Y[k % 3 * 2 + k / 3]).collect();
    for (flag, b_dims, b) in [(0, [3, 2], Y.to_vec()), (1, [2, 3], transposed)] {
        // Zero points that say nothing, that of a shift to i8, and others, which are products of another kind.
        for zeros in [[0, 0], [128, 128], [7, 200]] {
            let sums: Vec<i64> = product(zeros).iter().enumerate().map(|(k, sum)| sum + [1000, -9][k % 2]).collect();
            let case = with_params(Case::new(15).input("a", DType::U8, &["2", "3"]), "a", DType::U8, 0.5, 128);
            let case = case
                .constant("b", bytes(DType::U8, &b_dims, &b))
                .constant("b_scale", floats(&[], &[0.25]))
                .constant("b_zero", bytes(DType::U8, &[2], &zeros))
                .constant("c", bytes(DType::I32, &[2], &[1000, -9]));
            let case = with_params(case, "y", DType::U8, 64.0, 110);
            let attrs = [("transB", Attr::Int(flag)), ("alpha", Attr::Float(2.0))];
            let exact: Vec<f64> = sums.iter().map(|&sum| sum as f64 * 0.25).collect();
            let a = bytes(DType::U8, &[2, 3], &X);
            let operands = "a a_scale a_zero b b_scale b_zero c y_scale y_zero";
            let with_scale = case.node("com.microsoft::QGemm", operands, "y", &attrs);
            assert_eq!(with_scale.run(&[a]).to_i64s(), quantized(&exact, 64.0, 110.0, U8), "{zeros:?}");
        }
    }
}

#[test]
fn a_gemm_without_a_scale_of_its_result_gives_floats() {
    let case = with_params(Case::new(15).input("a", DType::U8, &["2", "3"]), "a", DType::U8, 0.5, 128);
    let case = with_params(case.input("b", DType::U8, &["3", "2"]), "b", DType::U8, 0.25, 3);
    let case = case.node("com.microsoft::QGemm", "a a_scale a_zero b b_scale b_zero", "y", &[]);
    let got = case.run(&[bytes(DType::U8, &[2, 3], &X), bytes(DType::U8, &[3, 2], &Y)]);
    let want: Vec<f64> = product([3, 3]).iter().map(|&sum| sum as f64 * 0.125).collect();
    assert_eq!((got.dtype, got.to_f64s()), (DType::F32, want));
}

/// Every combination of zero points of a convolution with padding, by brute force.
#[test]
fn convolutions_pad_with_the_zero_point() {
    for zero_x in [0, 5] {
        for zeros_w in [[0, 0], [128, 128], [7, 200]] {
            let (x, w) = ([1, 2, 3, 250, 5, 6, 7, 8], [1i64, 255, 128, 3, 4, 9, 77, 130]);
            // x is [1, 2, 4] in two groups, w is [2, 1, 3] .. with a window of 3 and padding of 1.
            let w = [&w[..3], &w[3..6]].concat();
            let mut want = Vec::new();
            for channel in 0..2 {
                for place in 0..4i64 {
                    let mut sum = 0;
                    for k in 0..3i64 {
                        let at = place + k - 1;
                        if (0..4).contains(&at) {
                            let value = x[channel * 4 + at as usize] - zero_x;
                            sum += value * (w[channel * 3 + k as usize] - zeros_w[channel]);
                        }
                    }
                    want.push(sum);
                }
            }
            let case = Case::new(15)
                .input("x", DType::U8, &["1", "2", "4"])
                .constant("w", bytes(DType::U8, &[2, 1, 3], &w))
                .constant("x_zero", bytes(DType::U8, &[], &[zero_x]))
                .constant("w_zero", bytes(DType::U8, &[2], &zeros_w))
                .node(
                    "ConvInteger",
                    "x w x_zero w_zero",
                    "y",
                    &[("group", Attr::Int(2)), ("pads", Attr::Ints(&[1, 1]))],
                );
            let got = case.run(&[bytes(DType::U8, &[1, 2, 4], &x)]);
            assert_eq!(got.to_i64s(), want, "zeros {zero_x} and {zeros_w:?}");
        }
    }
}

#[test]
fn quantized_products_of_other_types_are_refused() {
    let case = Case::new(21).input("a", DType::F8E4M3FN, &["2", "3"]).input("b", DType::F8E4M3FN, &["3", "2"]).node(
        "MatMulInteger",
        "a b",
        "y",
        &[],
    );
    assert_eq!(case.fault(), "quantized products of f8e4m3fn are not supported");
}

#[test]
fn a_quantized_concat_lists_triples() {
    let case = with_params(Case::new(15).input("a", DType::U8, &["6"]), "a", DType::U8, 0.5, 128).node(
        "com.microsoft::QLinearConcat",
        "a_scale a_zero a a_scale a_zero a",
        "y",
        &[("axis", Attr::Int(0))],
    );
    assert!(case.fault().starts_with("4 operands behind the zero point"), "{}", case.fault());
}

#[test]
fn means_of_quantized_windows_are_of_real_numbers() {
    for last in [0, 1] {
        let dims: &[usize] = if last == 1 { &[1, 2, 2, 1] } else { &[1, 1, 2, 2] };
        let extents: Vec<String> = dims.iter().map(usize::to_string).collect();
        let extents: Vec<&str> = extents.iter().map(String::as_str).collect();
        let case = Case::new(15).input("x", DType::U8, &extents);
        let case = with_params(case, "x", DType::U8, 0.5, 10);
        let case = with_params(case, "y", DType::U8, 0.25, 3);
        let attrs = [
            ("kernel_shape", Attr::Ints(&[2, 2])),
            ("pads", Attr::Ints(&[0, 0, 0, 1])),
            ("count_include_pad", Attr::Int(1)),
            ("channels_last", Attr::Int(last)),
        ];
        let case = case.node("com.microsoft::QLinearAveragePool", "x x_scale x_zero y_scale y_zero", "y", &attrs);
        let got = case.run(&[bytes(DType::U8, dims, &[10, 30, 50, 14])]);
        // Real elements are 0, 10, 20, 2; the padding is a real zero.
        assert_eq!(got.to_i64s(), quantized(&[8.0, 3.0], 0.25, 3.0, U8));
        assert_eq!(got.dims, if last == 1 { [1, 1, 2, 1] } else { [1, 1, 1, 2] });
    }
}
