//! DynamicQuantizeLSTM, against numbers of a script that takes the steps one by one (numpy 2, `f32`): the sequences and
//! the state of each step rounded to bytes of their range, integer products, then the cell of ONNX's LSTM. ONNX Runtime
//! 1.31.1 gives the same numbers; of zero points it takes one for all.

use lapidary_runtime::DType;

use super::fixture::{Attr, Case, floats};
use crate::ir::eval::Tensor;
use crate::ir::{Graph, Op};

const SEQUENCE: usize = 3;
const BATCH: usize = 2;
const INPUT: usize = 3;
const HIDDEN: usize = 2;

/// `count` numbers that differ: `i * step % modulus - offset`.
fn numbers(count: usize, modulus: usize, offset: i64, step: usize) -> Vec<i64> {
    (0..count).map(|i| (i * step % modulus) as i64 - offset).collect()
}

/// The same over `divisor`.
fn fractions(dims: &[usize], (modulus, offset, step): (usize, i64, usize), divisor: f64) -> Tensor {
    let count = dims.iter().product();
    let values: Vec<f64> = numbers(count, modulus, offset, step).into_iter().map(|n| n as f64 / divisor).collect();
    floats(dims, &values)
}

fn bytes(dtype: DType, dims: &[usize], values: &[i64]) -> Tensor {
    Tensor::from_i64s(dtype, dims.to_vec(), values)
}

fn x() -> Tensor {
    fractions(&[SEQUENCE, BATCH, INPUT], (16, 7, 5), 8.0)
}

/// Weights of one direction, `w` of `u8` around 128 or of `i8` around 0, with one scale.
fn one_direction(sequence: &str, w: DType) -> Case {
    let shift = if w == DType::U8 { 128 } else { 0 };
    let of_w: Vec<i64> = numbers(INPUT * 4 * HIDDEN, 37, 18, 7).into_iter().map(|n| n + shift).collect();
    Case::new(21)
        .input("x", DType::F32, &[sequence, "2", "3"])
        .constant("w", bytes(w, &[1, INPUT, 4 * HIDDEN], &of_w))
        .constant("r", bytes(DType::I8, &[1, HIDDEN, 4 * HIDDEN], &numbers(HIDDEN * 4 * HIDDEN, 29, 14, 11)))
        .constant("w_scale", floats(&[1], &[0.02]))
        .constant("w_zero", bytes(w, &[1], &[shift]))
        .constant("r_scale", floats(&[1], &[0.03]))
        .constant("r_zero", bytes(DType::I8, &[1], &[0]))
        .outputs("y h c")
}

const ONE: &str = "x w r _ _ _ _ _ w_scale w_zero r_scale r_zero";

fn close(case: &Case, inputs: &[Tensor], expected: [&[f64]; 3]) {
    for ((name, given), expected) in case.run_all(inputs).into_iter().zip(expected) {
        let given = given.to_f64s();
        assert_eq!(given.len(), expected.len(), "{name}");
        for (k, (given, expected)) in given.iter().zip(expected).enumerate() {
            assert!((given - expected).abs() < 1e-5, "{name}, element {k}: {given} instead of {expected}");
        }
    }
}

fn loops(graph: &Graph) -> usize {
    graph.order().into_iter().filter(|&id| matches!(graph.node(id).op, Op::Loop { .. })).count()
}

#[test]
fn steps_are_unrolled_or_repeated() {
    let expected: [&[f64]; 3] = [
        &[
            0.028774, 0.000666, -0.060560, -0.054334, -0.041458, -0.055260, -0.078767, -0.095772, -0.061771, -0.097288,
            -0.071011, -0.122968,
        ],
        &[-0.061771, -0.097288, -0.071011, -0.122968],
        &[-0.145534, -0.172523, -0.171677, -0.215350],
    ];
    let hidden = || [("hidden_size", Attr::Int(2))];
    for w in [DType::I8, DType::U8] {
        let fixed = one_direction("3", w).node("com.microsoft::DynamicQuantizeLSTM", ONE, "y h c", &hidden());
        assert_eq!(loops(&fixed.import().expect("a graph")), 0);
        close(&fixed, &[x()], expected);
        let open = one_direction("n", w).node("com.microsoft::DynamicQuantizeLSTM", ONE, "y h c", &hidden());
        assert_eq!(loops(&open.import().expect("a graph")), 1);
        assert_eq!(open.dims(), ["n", "1", "2", "2"]);
        close(&open, &[x()], expected);
    }
}

#[test]
fn other_functions_and_coupled_gates_from_the_last_step_on() {
    let attrs = [
        ("direction", Attr::Text("reverse")),
        ("activations", Attr::Texts(&["Affine", "Softsign", "LeakyRelu"])),
        ("activation_alpha", Attr::Floats(&[0.25, 0.125])),
        ("activation_beta", Attr::Floats(&[0.5])),
        ("input_forget", Attr::Int(1)),
    ];
    for sequence in ["3", "n"] {
        let case = one_direction(sequence, DType::I8).node("com.microsoft::DynamicQuantizeLSTM", ONE, "y h c", &attrs);
        close(
            &case,
            &[x()],
            [
                &[
                    -0.000735, -0.004243, -0.010253, -0.011286, -0.008111, -0.009480, -0.007168, -0.009845, -0.004440,
                    -0.006369, -0.003761, -0.006645,
                ],
                &[-0.000735, -0.004243, -0.010253, -0.011286],
                &[-0.011958, -0.065988, -0.183479, -0.164361],
            ],
        );
    }
}

/// All operands: a scale for each column, zero points, a bias, lengths, states, peepholes; and a bound on the sums.
#[test]
fn both_directions_of_sequences_with_lengths() {
    let columns = [2, 4 * HIDDEN];
    for sequence in ["3", "n"] {
        let w = numbers(2 * INPUT * 4 * HIDDEN, 37, 18, 7);
        let r = numbers(2 * HIDDEN * 4 * HIDDEN, 29, 0, 11);
        let case = Case::new(21)
            .input("x", DType::F32, &[sequence, "2", "3"])
            .input("lengths", DType::I32, &["2"])
            .constant("w", bytes(DType::I8, &[2, INPUT, 4 * HIDDEN], &w))
            .constant("r", bytes(DType::U8, &[2, HIDDEN, 4 * HIDDEN], &r))
            .constant("b", fractions(&[2, 8 * HIDDEN], (11, 5, 4), 16.0))
            .constant("h0", fractions(&[2, BATCH, HIDDEN], (8, 3, 5), 16.0))
            .constant("c0", fractions(&[2, BATCH, HIDDEN], (9, 4, 2), 8.0))
            .constant("p", fractions(&[2, 3 * HIDDEN], (7, 3, 2), 8.0))
            .constant("w_scale", fractions(&columns, (7, -1, 3), 128.0))
            .constant("w_zero", bytes(DType::I8, &columns, &[0; 16]))
            .constant("r_scale", fractions(&columns, (5, -1, 2), 64.0))
            .constant("r_zero", bytes(DType::U8, &[2], &[12, 15]))
            .outputs("y h c");
        let operands = "x w r b lengths h0 c0 p w_scale w_zero r_scale r_zero";
        let attrs = [("direction", Attr::Text("bidirectional")), ("clip", Attr::Float(1.5))];
        let case = case.node("com.microsoft::DynamicQuantizeLSTM", operands, "y h c", &attrs);
        close(
            &case,
            &[x(), Tensor::from_i64s(DType::I32, vec![2], &[3, 2])],
            [
                &[
                    -0.185626, -0.045876, -0.165128, 0.085271, 0.023166, -0.063529, 0.029413, 0.142112, -0.200377,
                    -0.058342, -0.207573, 0.047281, 0.099746, 0.021622, -0.013352, 0.096148, -0.211880, -0.066705,
                    0.000000, 0.000000, 0.153586, -0.101331, 0.000000, 0.000000,
                ],
                &[-0.211880, -0.066705, -0.207573, 0.047281, 0.023166, -0.063529, 0.029413, 0.142112],
                &[-0.771431, -0.154603, -0.616600, 0.107037, 0.048632, -0.092689, 0.046212, 0.351742],
            ],
        );
    }
}

#[test]
fn other_types_are_refused() {
    let of = |x: DType, w: DType| {
        let case = Case::new(21).input("x", x, &["3", "2", "3"]).input("w", w, &["1", "3", "8"]);
        let case = case.input("r", DType::I8, &["1", "2", "8"]).input("s", DType::F32, &["1"]);
        case.node("com.microsoft::DynamicQuantizeLSTM", "x w r _ _ _ _ _ s _ s", "y", &[]).fault()
    };
    assert_eq!(of(DType::F16, DType::I8), "DynamicQuantizeLSTM of f16 is not supported");
    let turned = [("direction", Attr::Text("bidirectional"))];
    let case = one_direction("3", DType::I8).node("com.microsoft::DynamicQuantizeLSTM", ONE, "y h c", &turned);
    assert_eq!(case.fault(), "the extents 1 and 2 must be equal");
    assert_eq!(of(DType::F32, DType::F32), "weights are f32 of rank 3, and bytes of rank 3 are needed");
}
