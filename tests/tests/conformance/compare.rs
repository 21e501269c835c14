//! ONNX's rule of comparison (`onnx.backend.test.runner`, `assert_similar_outputs`), and where it is lax, more: the
//! same type and extents, integers equal, floats within `atol + rtol * |expected|`, NaN and infinities where they are
//! expected and nowhere else. A bf16 may be off by 2^-6 of its value, two of its units, and an f16 by what its operator
//! asks for.

use lapidary::ir::eval::Tensor;
use lapidary_runtime::DType;

use super::case::Tolerance;

/// Why `given` is not what was expected.
pub fn compare(given: &Tensor, expected: &Tensor, tolerance: Tolerance) -> Result<(), String> {
    if (given.dtype, &given.dims) != (expected.dtype, &expected.dims) {
        return Err(format!("{}{:?} instead of {}{:?}", given.dtype, given.dims, expected.dtype, expected.dims));
    }
    let mut off = if expected.dtype.is_float() {
        let rtol = tolerance.rtol_of(expected.dtype);
        let pairs = given.to_f64s().into_iter().zip(expected.to_f64s());
        let near = |g: f64, e: f64| {
            g == e || g.is_nan() && e.is_nan() || e.is_finite() && (g - e).abs() <= tolerance.atol + rtol * e.abs()
        };
        pairs
            .enumerate()
            .filter(|&(_, (g, e))| !near(g, e))
            .map(|(k, (g, e))| format!("element {k} is {g:e}, not {e:e}"))
            .collect()
    } else {
        let pairs = given.to_i64s().into_iter().zip(expected.to_i64s());
        let off = pairs.enumerate().filter(|(_, (g, e))| g != e);
        off.map(|(k, (g, e))| format!("element {k} is {g}, not {e}")).collect::<Vec<String>>()
    };
    if off.is_empty() {
        return Ok(());
    }
    let count = off.len();
    off.truncate(3);
    Err(format!(
        "{count} of {} elements of {}{:?} are off: {}",
        expected.count(),
        given.dtype,
        given.dims,
        off.join("; ")
    ))
}

/// The rule lets pass what it should, and nothing else.
pub fn self_test() -> Result<(), String> {
    let floats = |dtype, values: &[f64]| Tensor::from_f64s(dtype, vec![values.len()], values);
    let (nan, infinity) = (f64::NAN, f64::INFINITY);
    let f32s = |values: &[f64]| floats(DType::F32, values);
    let table = [
        (f32s(&[1.0, 0.0]), f32s(&[1.0009, 5e-8]), true),
        (f32s(&[1.0]), f32s(&[1.002]), false),
        (f32s(&[0.0]), f32s(&[2e-7]), false),
        (f32s(&[nan, infinity]), f32s(&[nan, infinity]), true),
        (f32s(&[nan]), f32s(&[1.0]), false),
        (f32s(&[1.0]), f32s(&[nan]), false),
        (f32s(&[1.0]), f32s(&[infinity]), false),
        (f32s(&[infinity]), f32s(&[-infinity]), false),
        (f32s(&[1.0]), floats(DType::F64, &[1.0]), false),
        (f32s(&[1.0]), Tensor::from_f64s(DType::F32, vec![1, 1], &[1.0]), false),
        (floats(DType::BF16, &[1.0]), floats(DType::BF16, &[1.0 + 2f64.powi(-7)]), true),
        (floats(DType::F16, &[1.0]), floats(DType::F16, &[1.0 + 2f64.powi(-9)]), true),
        (floats(DType::F16, &[1.0]), floats(DType::F16, &[1.0 + 3.0 * 2f64.powi(-10)]), false),
        (floats(DType::I32, &[1e6]), floats(DType::I32, &[1e6 + 1.0]), false),
    ];
    for (given, expected, right) in table {
        let said = compare(&given, &expected, Tolerance { rtol: 1e-3, atol: 1e-7, half: 2f64.powi(-9) });
        if said.is_ok() != right {
            return Err(format!("{given:?} for {expected:?}: {said:?}"));
        }
    }
    Ok(())
}
