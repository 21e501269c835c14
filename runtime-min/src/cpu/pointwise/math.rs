//! Elementary functions of pointwise programs and of the kernels.
//!
//! The `f32` functions are computed in `f64` without branches, so that loops of them vectorize, and rounded once:
//! their error stays within 0.51 ulp (a test holds them to 0.51 of the value in double precision). The `f64` functions
//! that the standard library lacks are good to a few ulp.

/// 1.5 * 2^52: a double of this size has its last bit at 1, so adding it rounds to an integer.
const ROUNDER: f64 = 6755399441055744.0;

/// `(e^r - 1) / r` on [-ln 2 / 2, ln 2 / 2], interpolated at the Chebyshev nodes; relative error 6e-12.
const EXPM1_OVER_R: [f64; 8] = [
    0.9999999999955059,
    0.49999999999955214,
    0.16666666786375128,
    0.04166666678619889,
    0.008333283519890572,
    0.0013888839117251893,
    0.00019907581989957057,
    2.486786986033215e-5,
];

/// The value at `x` of the polynomial with these coefficients, lowest first.
#[inline(always)]
fn horner<const N: usize>(coefficients: [f64; N], x: f64) -> f64 {
    let mut sum = coefficients[N - 1];
    let mut k = N - 1;
    while k > 0 {
        k -= 1;
        sum = sum * x + coefficients[k];
    }
    sum
}

/// `(2^k, e^r - 1)` with `e^x = 2^k e^r`; for |x| <= 700.
#[inline(always)]
fn split_exp(x: f64) -> (f64, f64) {
    let shifted = x * core::f64::consts::LOG2_E + ROUNDER;
    let r = x - (shifted - ROUNDER) * core::f64::consts::LN_2;
    let scale = f64::from_bits((shifted.to_bits() << 52).wrapping_add(0x3ff0_0000_0000_0000));
    (scale, r * horner(EXPM1_OVER_R, r))
}

/// `x` no further from 0 than `limit`; NaN stays.
#[inline(always)]
fn limited(x: f64, limit: f64) -> f64 {
    let x = if x > limit { limit } else { x };
    if x < -limit { -limit } else { x }
}

#[inline(always)]
fn exp_wide(x: f64) -> f64 {
    let (scale, rest) = split_exp(limited(x, 200.0));
    scale + scale * rest
}

/// e^x
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    exp_wide(f64::from(x)) as f32
}

/// 1 / (1 + e^-x)
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    (1.0 / (1.0 + exp_wide(-f64::from(x)))) as f32
}

/// tanh |x| = m / (m + 2) with m = e^2|x| - 1
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    let (scale, rest) = split_exp(limited(f64::from(x.abs()) * 2.0, 40.0));
    let m = (scale - 1.0) + scale * rest;
    ((m / (m + 2.0)) as f32).copysign(x)
}

/// `erf(x) / x` as a polynomial in `(x^2 - 8) / 8` on |x| <= 4, interpolated at the Chebyshev nodes; relative error
/// 4e-10. Beyond 4 the nearest `f32` is 1.
const ERF_OVER_X: [f64; 19] = [
    0.3535309956434049,
    -0.17657623580039228,
    0.13167511777582963,
    -0.10771029288641266,
    0.09020894134279632,
    -0.07473048679705468,
    0.05988782958300683,
    -0.04574431267502724,
    0.033053291696067265,
    -0.022562558293108114,
    0.014381038744396328,
    -0.008384044276092753,
    0.0047749462205666495,
    -0.0029097129559724944,
    0.0014101528932398749,
    -0.00032551962727953547,
    0.0001732295034487736,
    -0.0002464220145300619,
    9.403816578637098e-05,
];

/// 2 / sqrt(pi) * integral of e^-t^2 from 0 to x
#[inline(always)]
pub fn erf(x: f32) -> f32 {
    let x = limited(f64::from(x), 4.0);
    (x * horner(ERF_OVER_X, x * x * 0.125 - 1.0)) as f32
}

/// The series of `2 atanh(s) / s` in `s^2`, to a relative error of 2e-10 for `s <= 1/3`.
#[inline(always)]
fn atanh_series(s2: f64) -> f64 {
    horner(
        [2.0, 2.0 / 3.0, 2.0 / 5.0, 2.0 / 7.0, 2.0 / 9.0, 2.0 / 11.0, 2.0 / 13.0, 2.0 / 15.0, 2.0 / 17.0, 2.0 / 19.0],
        s2,
    )
}

/// ln x = e ln 2 + 2 atanh((m - 1) / (m + 1)) with x = 2^e m and m near 1.
#[inline(always)]
pub fn ln(x: f32) -> f32 {
    let bits = f64::from(x).to_bits();
    // Moves the exponent's border from 1 to sqrt(1/2).
    let moved = bits.wrapping_sub(0x3fe6_a09e_667f_3bcd);
    let exponent = (moved as i64) >> 52;
    let m = f64::from_bits(bits.wrapping_sub((exponent as u64) << 52));
    let s = (m - 1.0) / (m + 1.0);
    let rounded = f64::from_bits((exponent as u64).wrapping_add(ROUNDER.to_bits())) - ROUNDER;
    let finite = (s * atanh_series(s * s) + rounded * core::f64::consts::LN_2) as f32;
    let positive = if x == f32::INFINITY { x } else { finite };
    let signed = if x > 0.0 { positive } else { f32::NAN };
    if x == 0.0 { f32::NEG_INFINITY } else { signed }
}

/// ln(1 + e^x) = max(x, 0) + 2 atanh(e / (2 + e)) with e = e^-|x|
#[inline(always)]
pub fn softplus(x: f32) -> f32 {
    let wide = f64::from(x);
    let e = exp_wide(-wide.abs());
    let s = e / (2.0 + e);
    let linear = if wide > 0.0 { wide } else { 0.0 };
    (linear + s * atanh_series(s * s)) as f32
}

/// [`sigmoid`] in double precision, without an overflow that would flush small results to zero.
pub fn sigmoid_f64(x: f64) -> f64 {
    if x >= 0.0 {
        return 1.0 / (1.0 + (-x).exp());
    }
    let e = x.exp();
    e / (1.0 + e)
}

/// The inverse of cosh; keeps its precision near 1.
pub fn acosh(x: f64) -> f64 {
    let t = x - 1.0;
    (t + (t * (t + 2.0)).sqrt()).ln_1p()
}

/// [`softplus`] in double precision.
pub fn softplus_f64(x: f64) -> f64 {
    if x > 0.0 { x + (-x).exp().ln_1p() } else { x.exp().ln_1p() }
}

/// [`erf`] in double precision: rational approximations on three intervals, from W. J. Cody, "Rational Chebyshev
/// Approximations for the Error Function", Mathematics of Computation 23 (1969), pp. 631-637.
#[allow(clippy::excessive_precision, reason = "the coefficients as published")]
pub fn erf_f64(x: f64) -> f64 {
    let a = x.abs();
    if a.is_nan() {
        return x;
    }
    if a <= 0.46875 {
        const P: [f64; 5] = [
            3209.377589138469472562,
            377.4852376853020208137,
            113.8641541510501556495,
            3.161123743870565596947,
            0.1857777061846031526730,
        ];
        const Q: [f64; 5] =
            [2844.236833439170622273, 1282.616526077372275645, 244.0246379344441733056, 23.60129095234412093499, 1.0];
        return x * horner(P, a * a) / horner(Q, a * a);
    }
    if a >= 6.0 {
        return 1f64.copysign(x);
    }
    let ratio = if a <= 4.0 {
        const P: [f64; 9] = [
            1230.33935479799725272,
            2051.07837782607146532,
            1712.04761263407058314,
            881.952221241769090411,
            298.635138197400131132,
            66.1191906371416294775,
            8.88314979438837594118,
            0.564188496988670089180,
            2.15311535474403846343e-8,
        ];
        const Q: [f64; 9] = [
            1230.33935480374942043,
            3439.36767414372163696,
            4362.61909014324715820,
            3290.79923573345962678,
            1621.38957456669018874,
            537.181101862009857509,
            117.693950891312499305,
            15.7449261107098347253,
            1.0,
        ];
        horner(P, a) / horner(Q, a)
    } else {
        const P: [f64; 6] = [
            -6.58749161529837803157e-4,
            -1.60837851487422766278e-2,
            -1.25781726111229246204e-1,
            -3.60344899949804439429e-1,
            -3.05326634961232344035e-1,
            -1.63153871373020978498e-2,
        ];
        const Q: [f64; 6] = [
            2.33520497626869185443e-3,
            6.05183413124413191178e-2,
            5.27905102951428412248e-1,
            1.87295284992346725209,
            2.56852019228982242072,
            1.0,
        ];
        let z = 1.0 / (a * a);
        (core::f64::consts::FRAC_2_SQRT_PI * 0.5 + z * horner(P, z) / horner(Q, z)) / a
    };
    // e^-a^2 with the square split in two, so that its rounding does not grow with a.
    let high = (a * 16.0).trunc() / 16.0;
    let tail = (-high * high).exp() * (-(a - high) * (a + high)).exp();
    (1.0 - tail * ratio).copysign(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The error of `value` in units of the last place of the `f32` next to `exact`.
    fn ulps(value: f32, exact: f64) -> f64 {
        let nearest = exact as f32;
        if value == nearest || (value.is_nan() && exact.is_nan()) {
            return 0.0;
        }
        let ulp = f64::from(f32::from_bits(nearest.abs().to_bits() + 1)) - f64::from(nearest.abs());
        (f64::from(value) - exact).abs() / ulp
    }

    fn check(name: &str, f: impl Fn(f32) -> f32, exact: impl Fn(f64) -> f64) {
        let mut bits = 0u32;
        loop {
            let x = f32::from_bits(bits);
            let error = ulps(f(x), exact(f64::from(x)));
            assert!(error <= 0.51, "{name}({x:e}) is off by {error} ulp");
            let Some(next) = bits.checked_add(40_009) else {
                break;
            };
            bits = next;
        }
    }

    #[test]
    fn single_precision_is_rounded_well() {
        check("exp", exp, f64::exp);
        check("sigmoid", sigmoid, sigmoid_f64);
        check("tanh", tanh, f64::tanh);
        check("erf", erf, erf_f64);
        check("ln", ln, f64::ln);
        check("softplus", softplus, softplus_f64);
    }

    #[test]
    fn limits_are_reached() {
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert_eq!(exp(89.0), f32::INFINITY);
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(tanh(f32::INFINITY), 1.0);
        assert_eq!(tanh(-0.0).to_bits(), (-0.0f32).to_bits());
        assert_eq!(erf(f32::NEG_INFINITY), -1.0);
        assert_eq!(ln(0.0), f32::NEG_INFINITY);
        assert_eq!(softplus(f32::INFINITY), f32::INFINITY);
        assert!(ln(-1.0).is_nan() && exp(f32::NAN).is_nan() && erf(f32::NAN).is_nan());
    }

    #[test]
    fn double_erf_agrees_with_known_values() {
        // The exact values, rounded to double.
        let known = [
            (1e-30, 1.1283791670955127e-30),
            (1e-09, 1.1283791670955127e-09),
            (0.1, 0.1124629160182849),
            (0.3, 0.3286267594591274),
            (0.46875, 0.49261347321793797),
            (0.5, 0.5204998778130465),
            (0.9, 0.7969082124228322),
            (1.5, 0.9661051464753108),
            (2.5, 0.999593047982555),
            (3.9, 0.9999999652077514),
            (4.0, 0.9999999845827421),
            (4.1, 0.9999999932999724),
            (5.5, 0.9999999999999927),
            (5.9, 0.9999999999999999),
            (6.5, 1.0),
            (-0.7, -0.6778011938374184),
            (-2.0, -0.9953222650189527),
        ];
        for (x, exact) in known {
            let error = (erf_f64(x) - exact).abs() / (exact.abs() * f64::EPSILON);
            assert!(error <= 3.0, "erf({x}) is off by {error} eps");
        }
    }
}
