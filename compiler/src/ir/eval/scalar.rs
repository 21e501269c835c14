//! The scalar functions of pointwise programs, in doubles and in wide integers, before rounding to a type.
//!
//! Semantics: [`ScalarOp`], which are those of ONNX's elementwise operators and, for NaN, numpy's.

use lapidary_runtime::op::ScalarOp;

/// What a step computes.
pub(super) enum Meaning {
    /// Conversion to the step's type.
    Cast,
    Pow,
    Select,
    /// A function for float operands and one for integers (and `bool`); `None` where there is none.
    Rules(Option<Rule<f64>>, Option<Rule<i128>>),
}

/// A function of one or two operands of a type, to that type or to `bool`.
pub(super) enum Rule<T> {
    Unary(fn(T) -> T),
    Binary(fn(T, T) -> T),
    Test(fn(T) -> bool),
    Compare(fn(T, T) -> bool),
}

/// The meaning of an operation.
pub(super) fn meaning(op: ScalarOp) -> Meaning {
    use ScalarOp as S;
    match op {
        S::Cast => Meaning::Cast,
        S::Pow => Meaning::Pow,
        S::Select => Meaning::Select,
        S::Identity => unary(|x| x, |x| x),
        S::Neg => unary(|x| -x, |x| -x),
        S::Abs => unary(f64::abs, i128::abs),
        S::Sign => unary(sign, i128::signum),
        S::Floor => unary(f64::floor, |x| x),
        S::Ceil => unary(f64::ceil, |x| x),
        S::Round => unary(f64::round_ties_even, |x| x),
        S::Sqrt => float(f64::sqrt),
        S::Rsqrt => float(|x| 1.0 / x.sqrt()),
        S::Reciprocal => float(|x| 1.0 / x),
        S::Exp => float(f64::exp),
        S::Log => float(f64::ln),
        S::Sin => float(f64::sin),
        S::Cos => float(f64::cos),
        S::Tan => float(f64::tan),
        S::Asin => float(f64::asin),
        S::Acos => float(f64::acos),
        S::Atan => float(f64::atan),
        S::Sinh => float(f64::sinh),
        S::Cosh => float(f64::cosh),
        S::Tanh => float(f64::tanh),
        S::Asinh => float(f64::asinh),
        S::Acosh => float(acosh),
        S::Atanh => float(f64::atanh),
        S::Erf => float(erf),
        S::Sigmoid => float(sigmoid),
        S::Softplus => float(softplus),
        S::Not => Meaning::Rules(None, Some(Rule::Test(|x| x == 0))),
        S::BitNot => Meaning::Rules(None, Some(Rule::Unary(|x| !x))),
        S::IsNan => Meaning::Rules(Some(Rule::Test(f64::is_nan)), Some(Rule::Test(|_| false))),
        S::IsPosInf => Meaning::Rules(Some(Rule::Test(|x| x == f64::INFINITY)), Some(Rule::Test(|_| false))),
        S::IsNegInf => Meaning::Rules(Some(Rule::Test(|x| x == f64::NEG_INFINITY)), Some(Rule::Test(|_| false))),
        S::Add => binary(|a, b| a + b, i128::wrapping_add),
        S::Sub => binary(|a, b| a - b, i128::wrapping_sub),
        S::Mul => binary(|a, b| a * b, i128::wrapping_mul),
        S::Div => binary(|a, b| a / b, |a, b| a.checked_div(b).unwrap_or(0)),
        S::Mod => binary(floor_mod, int_floor_mod),
        S::Fmod => binary(|a, b| a % b, |a, b| a.checked_rem(b).unwrap_or(0)),
        S::Min => binary(min, i128::min),
        S::Max => binary(max, i128::max),
        S::BitAnd => integer(|a, b| a & b),
        S::BitOr => integer(|a, b| a | b),
        S::BitXor => integer(|a, b| a ^ b),
        S::ShiftLeft => integer(|a, b| a << distance(b)),
        S::ShiftRight => integer(|a, b| a >> distance(b)),
        S::And => integer_test(|a, b| a != 0 && b != 0),
        S::Or => integer_test(|a, b| a != 0 || b != 0),
        S::Xor => integer_test(|a, b| (a != 0) != (b != 0)),
        S::Equal => compare(|a, b| a == b, |a, b| a == b),
        S::NotEqual => compare(|a, b| a != b, |a, b| a != b),
        S::Less => compare(|a, b| a < b, |a, b| a < b),
        S::LessEqual => compare(|a, b| a <= b, |a, b| a <= b),
        S::Greater => compare(|a, b| a > b, |a, b| a > b),
        S::GreaterEqual => compare(|a, b| a >= b, |a, b| a >= b),
    }
}

fn unary(float: fn(f64) -> f64, int: fn(i128) -> i128) -> Meaning {
    Meaning::Rules(Some(Rule::Unary(float)), Some(Rule::Unary(int)))
}

fn float(function: fn(f64) -> f64) -> Meaning {
    Meaning::Rules(Some(Rule::Unary(function)), None)
}

fn binary(float: fn(f64, f64) -> f64, int: fn(i128, i128) -> i128) -> Meaning {
    Meaning::Rules(Some(Rule::Binary(float)), Some(Rule::Binary(int)))
}

fn integer(function: fn(i128, i128) -> i128) -> Meaning {
    Meaning::Rules(None, Some(Rule::Binary(function)))
}

fn integer_test(function: fn(i128, i128) -> bool) -> Meaning {
    Meaning::Rules(None, Some(Rule::Compare(function)))
}

fn compare(float: fn(f64, f64) -> bool, int: fn(i128, i128) -> bool) -> Meaning {
    Meaning::Rules(Some(Rule::Compare(float)), Some(Rule::Compare(int)))
}

/// How far a shift goes: 64 moves every bit of any type out, as a distance outside of the width does.
fn distance(b: i128) -> u32 {
    u32::try_from(b).map_or(64, |b| b.min(64))
}

fn sign(x: f64) -> f64 {
    if x.is_nan() || x == 0.0 { x } else { x.signum() }
}

/// The smaller, NaN if either is NaN.
pub(super) fn min(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.min(b) }
}

/// The larger, NaN if either is NaN.
pub(super) fn max(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}

/// Python's `%`: the remainder has the divisor's sign, a zero too.
fn floor_mod(a: f64, b: f64) -> f64 {
    let rest = a % b;
    if rest == 0.0 {
        rest.copysign(b)
    } else if (rest < 0.0) != (b < 0.0) {
        rest + b
    } else {
        rest
    }
}

fn int_floor_mod(a: i128, b: i128) -> i128 {
    let rest = a.checked_rem(b).unwrap_or(0);
    if rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest }
}

/// `base` to an integer power, exact modulo 2^128; a negative power of anything but 1 and -1 truncates to 0.
pub(super) fn int_pow(base: i128, exponent: i128) -> i128 {
    if exponent < 0 {
        return match base {
            1 => 1,
            -1 => {
                if exponent % 2 == 0 {
                    1
                } else {
                    -1
                }
            }
            _ => 0,
        };
    }
    let (mut result, mut square, mut rest) = (1i128, base, exponent);
    while rest > 0 {
        if rest & 1 == 1 {
            result = result.wrapping_mul(square);
        }
        square = square.wrapping_mul(square);
        rest >>= 1;
    }
    result
}

/// 1 / (1 + exp(-x)), without an overflow that would flush small results to zero.
pub(super) fn sigmoid(x: f64) -> f64 {
    if x >= 0.0 {
        1.0 / (1.0 + (-x).exp())
    } else {
        let e = x.exp();
        e / (1.0 + e)
    }
}

/// ln(1 + exp(x)), without overflow.
pub(super) fn softplus(x: f64) -> f64 {
    if x.is_nan() { x } else { x.max(0.0) + (-x.abs()).exp().ln_1p() }
}

/// Keeps its precision near 1, where ln(x + sqrt(x^2 - 1)) loses it.
fn acosh(x: f64) -> f64 {
    let t = x - 1.0;
    (t + (t * (t + 2.0)).sqrt()).ln_1p()
}

/// The error function, to a few units in the last place of a double.
///
/// Rational Chebyshev approximations of W. J. Cody, "Rational Chebyshev approximations for the error function",
/// Math. Comp. 23 (1969), on |x| <= 0.46875 (of erf) and on the two intervals beyond (of erfc).
#[expect(clippy::excessive_precision, reason = "the coefficients are as published")]
pub(super) fn erf(x: f64) -> f64 {
    const A: [f64; 5] = [
        1.857_777_061_846_031_53e-1,
        3.161_123_743_870_565_60,
        1.138_641_541_510_501_56e2,
        3.774_852_376_853_020_21e2,
        3.209_377_589_138_469_47e3,
    ];
    const B: [f64; 5] = [
        1.0,
        2.360_129_095_234_412_09e1,
        2.440_246_379_344_441_73e2,
        1.282_616_526_077_372_28e3,
        2.844_236_833_439_170_62e3,
    ];
    const C: [f64; 9] = [
        2.153_115_354_744_038_46e-8,
        5.641_884_969_886_700_89e-1,
        8.883_149_794_388_375_94,
        6.611_919_063_714_162_95e1,
        2.986_351_381_974_001_31e2,
        8.819_522_212_417_690_90e2,
        1.712_047_612_634_070_58e3,
        2.051_078_377_826_071_47e3,
        1.230_339_354_797_997_25e3,
    ];
    const D: [f64; 9] = [
        1.0,
        1.574_492_611_070_983_47e1,
        1.176_939_508_913_124_99e2,
        5.371_811_018_620_098_58e2,
        1.621_389_574_566_690_19e3,
        3.290_799_235_733_459_63e3,
        4.362_619_090_143_247_16e3,
        3.439_367_674_143_721_64e3,
        1.230_339_354_803_749_42e3,
    ];
    const P: [f64; 6] = [
        1.631_538_713_730_209_78e-2,
        3.053_266_349_612_323_44e-1,
        3.603_448_999_498_044_39e-1,
        1.257_817_261_112_292_46e-1,
        1.608_378_514_874_227_66e-2,
        6.587_491_615_298_378_03e-4,
    ];
    const Q: [f64; 6] = [
        1.0,
        2.568_520_192_289_822_42,
        1.872_952_849_923_467_25,
        5.279_051_029_514_284_12e-1,
        6.051_834_131_244_131_91e-2,
        2.335_204_976_268_691_85e-3,
    ];
    let y = x.abs();
    if x.is_nan() {
        return x;
    }
    if y <= 0.46875 {
        return x * polynomial(&A, y * y) / polynomial(&B, y * y);
    }
    // Beyond 6, 1 - erfc(y) is 1 in doubles.
    let erfc = if y <= 4.0 {
        (-y * y).exp() * polynomial(&C, y) / polynomial(&D, y)
    } else if y < 6.0 {
        let z = 1.0 / (y * y);
        let tail = z * polynomial(&P, z) / polynomial(&Q, z);
        (-y * y).exp() * (std::f64::consts::FRAC_2_SQRT_PI / 2.0 - tail) / y
    } else {
        0.0
    };
    (1.0 - erfc).copysign(x)
}

/// By Horner's rule, the leading coefficient first.
fn polynomial(coefficients: &[f64], x: f64) -> f64 {
    coefficients.iter().fold(0.0, |sum, coefficient| sum * x + coefficient)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn erf_is_accurate_to_a_few_ulp() {
        // Values of C's erf.
        let cases = [
            (1e-300, 1.1283791670955126e-300),
            (1e-05, 1.1283791670579e-05),
            (0.1, 0.1124629160182849),
            (0.3, 0.3286267594591274),
            (0.46875, 0.49261347321793797),
            (0.47, 0.4937450508860821),
            (0.7, 0.6778011938374184),
            (1.0, 0.8427007929497149),
            (1.5, 0.9661051464753108),
            (2.0, 0.9953222650189527),
            (2.7, 0.9998656672600594),
            (3.3, 0.9999969422902035),
            (3.99, 0.9999999832607886),
            (4.0, 0.9999999845827421),
            (4.01, 0.9999999858030606),
            (5.0, 0.9999999999984626),
            (5.9, 0.9999999999999999),
            (6.5, 1.0),
        ];
        for (x, expected) in cases {
            let error = (erf(x) - expected).abs() / expected.abs();
            assert!(error < 4e-16, "erf({x}) = {} not {expected}: {error:e}", erf(x));
            assert_eq!(erf(-x), -erf(x));
        }
        assert_eq!(erf(0.0), 0.0);
        assert_eq!(erf(f64::INFINITY), 1.0);
        assert!(erf(f64::NAN).is_nan());
    }

    #[test]
    fn remainders_have_the_right_sign() {
        assert_eq!(floor_mod(-7.0, 3.0), 2.0);
        assert_eq!(floor_mod(7.0, -3.0), -2.0);
        assert!(floor_mod(-6.0, 3.0).is_sign_positive());
        assert_eq!(floor_mod(-1.0, f64::INFINITY), f64::INFINITY);
        assert_eq!((int_floor_mod(-7, 3), int_floor_mod(7, -3), int_floor_mod(5, 0)), (2, -2, 0));
    }

    #[test]
    fn edges_of_functions() {
        assert_eq!(sigmoid(-740.0), (-740f64).exp());
        assert_eq!((sigmoid(f64::INFINITY), sigmoid(f64::NEG_INFINITY)), (1.0, 0.0));
        assert_eq!((softplus(1000.0), softplus(f64::NEG_INFINITY)), (1000.0, 0.0));
        assert!((acosh(1.0 + 1e-10) / 1.414_213_562_361_3e-5 - 1.0).abs() < 1e-7);
        assert!(max(f64::NAN, 1.0).is_nan() && min(1.0, f64::NAN).is_nan());
        assert_eq!((int_pow(-3, 3), int_pow(2, -1), int_pow(-1, -3), int_pow(0, 0)), (-27, 0, -1, 1));
        assert_eq!(int_pow(3, 41) as i64, 3i64.wrapping_pow(41));
    }
}
