//! Conversions to small floats beside their plain form, against the tables of ONNX Cast by search; BitCast.

use lapidary_runtime::DType;

use super::fixture::{Attr, Case, floats};
use crate::ir::eval::Tensor;

/// Every number of a type of 8 bits with its code, by magnitude; no NaN, no infinity, nothing negative.
fn numbers(dtype: DType) -> Vec<(f64, u8)> {
    let codes = Tensor::new(dtype, vec![256], (0..=255).collect::<Vec<u8>>()).unwrap();
    let mut numbers: Vec<(f64, u8)> = codes.to_f64s().into_iter().zip(0..=255).collect();
    numbers.retain(|(value, _)| value.is_finite() && value.is_sign_positive());
    numbers.sort_by(|a, b| a.0.total_cmp(&b.0));
    numbers
}

fn cast(op: &str, dtype: DType, attrs: &[(&str, Attr)], from: DType, values: &[f64]) -> Vec<f64> {
    let count = values.len().to_string();
    let like = Tensor::from_f64s(dtype, vec![], &[1.0]);
    let case = Case::new(25).input("x", from, &[&count]).constant("like", like);
    let case = case.node(op, "x like", "y", attrs);
    let y = case.run(&[Tensor::from_f64s(from, vec![values.len()], values)]);
    assert_eq!(y.dtype, dtype);
    y.to_f64s()
}

/// The numbers of a type, the middles between them, and what lies beside; beyond the largest, the middle between it and
/// what would follow, twice it, and infinity.
fn probes(numbers: &[(f64, u8)]) -> Vec<f64> {
    let mut probes = Vec::new();
    for pair in numbers.windows(2) {
        let middle = (pair[0].0 + pair[1].0) / 2.0;
        probes.extend([pair[0].0, middle, middle * (1.0 - 1e-6), middle * (1.0 + 1e-6)]);
    }
    let (largest, before) = (numbers[numbers.len() - 1].0, numbers[numbers.len() - 2].0);
    let bound = largest + (largest - before) / 2.0;
    probes.extend([largest, bound * (1.0 - 1e-6), bound, bound * (1.0 + 1e-6), 2.0 * largest, f64::INFINITY]);
    probes.iter().flat_map(|value| [*value, -value]).chain([f64::NAN]).collect()
}

/// The nearest number, ties to the even code, as if the format went on; what is then too large is `beyond`.
fn nearest(numbers: &[(f64, u8)], value: f64, beyond: f64) -> f64 {
    if value.is_nan() {
        return value;
    }
    let (largest, code) = numbers[numbers.len() - 1];
    let follower = (2.0 * largest - numbers[numbers.len() - 2].0, code.wrapping_add(1));
    let all = numbers.iter().chain([&follower]);
    let distance = |number: &(f64, u8)| ((number.0 - value.abs()).abs(), number.1 & 1);
    let found = all.min_by(|a, b| distance(a).partial_cmp(&distance(b)).unwrap()).unwrap();
    let size = if found.0 > largest || value.is_infinite() { beyond } else { found.0 };
    if size == 0.0 { size } else { size.copysign(value) }
}

fn agree(given: &[f64], expected: &[f64], what: &str) {
    for (k, (g, e)) in given.iter().zip(expected).enumerate() {
        assert!(g == e || g.is_nan() && e.is_nan(), "{what}, {k}: {g} instead of {e}");
    }
}

#[test]
fn saturation_is_a_property_of_the_conversion() {
    for dtype in [DType::F8E4M3FN, DType::F8E4M3FNUZ, DType::F8E5M2, DType::F8E5M2FNUZ] {
        let numbers = numbers(dtype);
        let special = if dtype == DType::F8E5M2 { f64::INFINITY } else { f64::NAN };
        let largest = numbers[numbers.len() - 1].0;
        for from in [DType::F32, DType::F64, DType::F16] {
            // What the type of the operand makes of the probes.
            let probes = probes(&numbers);
            let values = Tensor::from_f64s(from, vec![probes.len()], &probes).to_f64s();
            for (saturate, beyond) in [(1, largest), (0, special)] {
                let expected: Vec<f64> = values.iter().map(|&value| nearest(&numbers, value, beyond)).collect();
                let what = format!("{from} to {dtype}, saturate {saturate}");
                agree(&cast("CastLike", dtype, &[("saturate", Attr::Int(saturate))], from, &values), &expected, &what);
            }
        }
    }
    // Integers have no infinity, but numbers that are too large.
    let integers = cast("CastLike", DType::F8E4M3FN, &[("saturate", Attr::Int(0))], DType::I64, &[464.0, 465.0, -9e15]);
    agree(&integers, &[448.0, f64::NAN, f64::NAN], "integers");
}

#[test]
fn quantization_saturates_as_asked() {
    let case = |saturate| {
        let zero = Tensor::from_f64s(DType::F8E4M3FN, vec![], &[0.0]);
        let case = Case::new(25).input("x", DType::F32, &["3"]).constant("scale", floats(&[], &[2.0]));
        let case = case.constant("zero", zero);
        let case = case.node("QuantizeLinear", "x scale zero", "y", &[("saturate", Attr::Int(saturate))]);
        case.run(&[floats(&[3], &[928.0, 930.0, -3000.0])]).to_f64s()
    };
    agree(&case(1), &[448.0, 448.0, -448.0], "saturating");
    agree(&case(0), &[448.0, f64::NAN, f64::NAN], "not saturating");
}

#[test]
fn powers_of_two_round_as_asked() {
    let (low, high) = (2f64.powi(-127), 2f64.powi(127));
    let values =
        [1.0, 1.25, 1.5, 1.75, 2.0, 0.0, low, 1.5 * low, 1.25 * low, 0.5 * low, high, 1.75 * high, f64::INFINITY];
    let up = [1.0, 2.0, 2.0, 2.0, 2.0, low, low, 2.0 * low, 2.0 * low, low, high, high, high];
    let down = [1.0, 1.0, 1.0, 1.0, 2.0, low, low, low, low, low, high, high, high];
    let nearest = [1.0, 1.0, 2.0, 2.0, 2.0, low, low, 2.0 * low, low, low, high, high, high];
    // Beyond the range: 0, half the smallest, and what is above the largest.
    let beyond = [5, 9, 11, 12];
    for (mode, expected) in [("up", up), ("down", down), ("nearest", nearest)] {
        for from in [DType::F32, DType::F64] {
            let run = |saturate| {
                let attrs = [("round_mode", Attr::Text(mode)), ("saturate", Attr::Int(saturate))];
                cast("CastLike", DType::F8E8M0, &attrs, from, &values)
            };
            agree(&run(1), &expected, mode);
            let mut special = expected;
            beyond.iter().for_each(|&k| special[k] = f64::NAN);
            agree(&run(0), &special, mode);
        }
        let nan = cast("CastLike", DType::F8E8M0, &[("round_mode", Attr::Text(mode))], DType::F32, &[f64::NAN]);
        assert!(nan[0].is_nan());
    }
}

#[test]
fn bits_are_taken_as_they_are() {
    let run = |from: DType, to: i64, bytes: &[u8], count: usize| {
        let case = Case::new(26).input("x", from, &[&count.to_string()]);
        let case = case.node("BitCast", "x", "y", &[("to", Attr::Int(to))]);
        case.run(&[Tensor::new(from, vec![count], bytes.to_vec()).unwrap()])
    };
    // A signaling NaN of f32 (type 1) as i32 (type 6), and back.
    let bytes = [1, 0, 0xa0, 0x7f];
    assert_eq!(&run(DType::F32, 6, &bytes, 1).bytes[..], bytes);
    assert_eq!(&run(DType::I32, 1, &bytes, 1).bytes[..], bytes);
    // Packed i4 (three elements) as u4 (type 21): the codes stay.
    assert_eq!(run(DType::I4, 21, &[0xf8, 0x07], 3).to_i64s(), [8, 15, 7]);
    // A bool (type 9) is 0 or 1.
    assert_eq!(&run(DType::U8, 9, &[0, 1, 2], 3).bytes[..], [0, 1, 1]);
    let case = Case::new(26).input("x", DType::F32, &["2"]).node("BitCast", "x", "y", &[("to", Attr::Int(7))]);
    assert_eq!(case.fault(), "f32 has 32 bits and i64 64, and they must be as many");
}
