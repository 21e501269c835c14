//! The 8-bit, 4-bit and 2-bit storage types: packing, and conversion from and to doubles.
//!
//! Conversion to a float type rounds to nearest, ties to even, and what is too large becomes the largest number, as in
//! ONNX `Cast` by default (operators, Cast, table "Float 8 types"). An infinity stays one where the type has it: tensors
//! hold it; [`saturate`] is the cast's part. Formats: ONNX "Float stored in 8 bits", "Float stored in 4 bits"; OCP
//! Microscaling Formats (MX) v1.0 for E8M0 and E2M1.

use lapidary_runtime::DType;

/// A small float format: a sign, `exponent` bits with a bias, `mantissa` bits, subnormals.
struct Format {
    mantissa: i32,
    bias: i32,
    /// The largest number.
    max: f64,
    /// The code of the positive NaN; `None` where the format has no NaN.
    nan: Option<u8>,
    /// The code of the positive infinity; `None` where the format has none.
    infinity: Option<u8>,
    zeros: Zeros,
    /// The sign's bit.
    sign: u8,
}

/// Whether a format has a negative zero.
#[derive(PartialEq)]
enum Zeros {
    Two,
    /// The code of the negative zero is NaN.
    One,
}

fn format(dtype: DType) -> Option<Format> {
    let byte = |mantissa, bias, max, nan, zeros| {
        let infinity = (dtype == DType::F8E5M2).then_some(0x7c);
        Some(Format { mantissa, bias, max, nan: Some(nan), infinity, zeros, sign: 0x80 })
    };
    match dtype {
        DType::F8E4M3FN => byte(3, 7, 448.0, 0x7f, Zeros::Two),
        DType::F8E4M3FNUZ => byte(3, 8, 240.0, 0x80, Zeros::One),
        DType::F8E5M2 => byte(2, 15, 57344.0, 0x7f, Zeros::Two),
        DType::F8E5M2FNUZ => byte(2, 16, 57344.0, 0x80, Zeros::One),
        DType::F4E2M1 => {
            Some(Format { mantissa: 1, bias: 1, max: 6.0, nan: None, infinity: None, zeros: Zeros::Two, sign: 0x8 })
        }
        DType::F8E8M0
        | DType::F64
        | DType::F32
        | DType::F16
        | DType::BF16
        | DType::I64
        | DType::I32
        | DType::I16
        | DType::I8
        | DType::U64
        | DType::U32
        | DType::U16
        | DType::U8
        | DType::Bool
        | DType::I4
        | DType::U4
        | DType::I2
        | DType::U2 => None,
    }
}

/// The number that a code of `dtype` stands for; NaN for types that are no small floats.
pub fn decode_float(dtype: DType, code: u8) -> f64 {
    if dtype == DType::F8E8M0 {
        return if code == 0xff { f64::NAN } else { power_of_two(i32::from(code) - 127) };
    }
    let Some(format) = format(dtype) else { return f64::NAN };
    let magnitude = code & (format.sign - 1);
    if format.zeros == Zeros::One && code == format.sign {
        return f64::NAN;
    }
    if format.zeros == Zeros::Two && format.nan.is_some() {
        // E5M2 keeps IEEE's infinities and NaNs; E4M3FN has one NaN and no infinity.
        match (dtype, magnitude) {
            (DType::F8E5M2, 0x7c) => return if code == 0x7c { f64::INFINITY } else { f64::NEG_INFINITY },
            (DType::F8E5M2, 0x7d..) | (DType::F8E4M3FN, 0x7f) => return f64::NAN,
            _ => {}
        }
    }
    let field = i32::from(magnitude) >> format.mantissa;
    let fraction = i32::from(magnitude) & ((1 << format.mantissa) - 1);
    let (significand, exponent) =
        if field == 0 { (fraction, 1 - format.bias) } else { (fraction + (1 << format.mantissa), field - format.bias) };
    let value = f64::from(significand) * power_of_two(exponent - format.mantissa);
    if code & format.sign != 0 { -value } else { value }
}

/// The code of `dtype` that `value` rounds to. What E2M1, which has no NaN, makes of NaN is -0, as in ONNX's
/// reference. E8M0 rounds up to the next power of two and ignores the sign. Types that are no small floats give 0.
pub fn encode_float(dtype: DType, value: f64) -> u8 {
    if dtype == DType::F8E8M0 {
        return encode_power(value.abs());
    }
    let Some(format) = format(dtype) else { return 0 };
    let sign = if value.is_sign_negative() { format.sign } else { 0 };
    if value.is_nan() {
        return format.nan.map_or(format.sign, |nan| nan | if format.zeros == Zeros::Two { sign } else { 0 });
    }
    if let (true, Some(infinity)) = (value.is_infinite(), format.infinity) {
        return infinity | sign;
    }
    let magnitude = value.abs().min(format.max);
    let lowest = 1 - format.bias;
    let ulp = power_of_two(exponent_of(magnitude).max(lowest) - format.mantissa);
    let rounded = ((magnitude / ulp).round_ties_even() * ulp).min(format.max);
    if rounded == 0.0 {
        return if format.zeros == Zeros::Two { sign } else { 0 };
    }
    let exponent = exponent_of(rounded).max(lowest);
    // The significand counts the hidden bit, which is the unit of the exponent field; subnormals lack it.
    let significand = (rounded / power_of_two(exponent - format.mantissa)) as i32;
    let code = ((exponent - lowest) << format.mantissa) + significand;
    code as u8 | sign
}

/// An infinity as the largest number of the type; other values as they are.
pub fn saturate(dtype: DType, value: f64) -> f64 {
    match format(dtype) {
        Some(format) if value.is_infinite() => format.max.copysign(value),
        Some(_) | None => value,
    }
}

fn encode_power(magnitude: f64) -> u8 {
    if magnitude.is_nan() {
        return 0xff;
    }
    let exponent = exponent_of(magnitude);
    let up = i32::from(magnitude > power_of_two(exponent.clamp(-1000, 1000)));
    (exponent + up + 127).clamp(0, 254) as u8
}

/// floor(log2(x)) for positive normal doubles; below them a number that is small enough for every use here.
fn exponent_of(x: f64) -> i32 {
    (x.to_bits() >> 52) as i32 - 1023
}

/// 2^exponent for exponents of normal doubles.
fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(((exponent + 1023) as u64) << 52)
}

/// The codes of `count` packed elements, a byte each; the unused high bits are zero.
pub fn unpack(dtype: DType, bytes: &[u8], count: usize) -> Vec<u8> {
    let bits = dtype.bits();
    if bits >= 8 {
        return bytes.to_vec();
    }
    let per_byte = 8 / bits;
    let mask = (1u8 << bits) - 1;
    (0..count).map(|k| bytes[k / per_byte] >> (k % per_byte * bits) & mask).collect()
}

/// Packs codes, low bits first; the high bits of each that the type does not have are dropped.
pub fn pack(dtype: DType, codes: impl Iterator<Item = u8>) -> Vec<u8> {
    let bits = dtype.bits();
    if bits >= 8 {
        return codes.collect();
    }
    let per_byte = 8 / bits;
    let mask = (1u8 << bits) - 1;
    let mut bytes = Vec::new();
    for (k, code) in codes.enumerate() {
        if k % per_byte == 0 {
            bytes.push(0);
        }
        if let Some(last) = bytes.last_mut() {
            *last |= (code & mask) << (k % per_byte * bits);
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOATS: [DType; 6] =
        [DType::F8E4M3FN, DType::F8E4M3FNUZ, DType::F8E5M2, DType::F8E5M2FNUZ, DType::F4E2M1, DType::F8E8M0];

    fn codes(dtype: DType) -> impl Iterator<Item = u8> {
        0..=((1u16 << dtype.bits()) - 1) as u8
    }

    #[test]
    fn every_number_round_trips() {
        for dtype in FLOATS {
            for code in codes(dtype) {
                let value = decode_float(dtype, code);
                let again = encode_float(dtype, value);
                if value.is_nan() {
                    assert!(decode_float(dtype, again).is_nan());
                } else {
                    assert_eq!(again, code, "{dtype} {code:#x} {value}");
                }
            }
        }
    }

    #[test]
    fn anchors_of_the_formats() {
        let cases = [
            (DType::F8E4M3FN, 0x7e, 448.0),
            (DType::F8E4M3FN, 0x01, 2f64.powi(-9)),
            (DType::F8E4M3FN, 0x08, 2f64.powi(-6)),
            (DType::F8E4M3FN, 0x38, 1.0),
            (DType::F8E4M3FNUZ, 0x7f, 240.0),
            (DType::F8E4M3FNUZ, 0x01, 2f64.powi(-10)),
            (DType::F8E4M3FNUZ, 0x40, 1.0),
            (DType::F8E5M2, 0x7b, 57344.0),
            (DType::F8E5M2, 0x01, 2f64.powi(-16)),
            (DType::F8E5M2, 0x3c, 1.0),
            (DType::F8E5M2FNUZ, 0x7f, 57344.0),
            (DType::F8E5M2FNUZ, 0x01, 2f64.powi(-17)),
            (DType::F8E5M2FNUZ, 0x40, 1.0),
            (DType::F8E8M0, 0, 2f64.powi(-127)),
            (DType::F8E8M0, 127, 1.0),
            (DType::F8E8M0, 254, 2f64.powi(127)),
        ];
        for (dtype, code, value) in cases {
            assert_eq!(decode_float(dtype, code), value, "{dtype} {code:#x}");
        }
        let e2m1: Vec<f64> = (0..8).map(|code| decode_float(DType::F4E2M1, code)).collect();
        assert_eq!(e2m1, [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]);
    }

    /// Nearest of all numbers of the format, ties to the even code, by search.
    #[test]
    fn rounding_is_to_nearest_even() {
        for dtype in &FLOATS[..5] {
            let mut numbers: Vec<(f64, u8)> = codes(*dtype)
                .map(|code| (decode_float(*dtype, code), code))
                .filter(|(value, _)| value.is_finite() && value.is_sign_positive())
                .collect();
            numbers.sort_by(|a, b| a.0.total_cmp(&b.0));
            for pair in numbers.windows(2) {
                let ((low, a), (high, b)) = (pair[0], pair[1]);
                let tie = (low + high) / 2.0;
                let even = if a & 1 == 0 { a } else { b };
                assert_eq!(encode_float(*dtype, tie), even, "{dtype} {tie}");
                assert_eq!(encode_float(*dtype, tie * (1.0 - 1e-12)), a, "{dtype} below {tie}");
                assert_eq!(encode_float(*dtype, tie * (1.0 + 1e-12)), b, "{dtype} above {tie}");
            }
        }
    }

    #[test]
    fn special_values_follow_the_cast_table() {
        assert_eq!(encode_float(DType::F8E4M3FN, f64::INFINITY), 0x7e);
        assert_eq!(encode_float(DType::F8E4M3FN, -1e9), 0xfe);
        assert_eq!(encode_float(DType::F8E4M3FN, -0.0), 0x80);
        assert_eq!(encode_float(DType::F8E4M3FNUZ, -0.0), 0);
        assert_eq!(encode_float(DType::F8E4M3FNUZ, -1e-9), 0);
        assert_eq!(encode_float(DType::F8E4M3FNUZ, f64::NAN), 0x80);
        assert_eq!(encode_float(DType::F8E5M2, f64::NEG_INFINITY), 0xfc);
        assert_eq!(encode_float(DType::F8E5M2, saturate(DType::F8E5M2, f64::NEG_INFINITY)), 0xfb);
        assert_eq!(encode_float(DType::F8E5M2, 1e9), 0x7b);
        assert_eq!(saturate(DType::F8E5M2, 1e9), 1e9);
        assert_eq!(encode_float(DType::F4E2M1, f64::NAN), 0x8);
        assert_eq!(encode_float(DType::F4E2M1, -100.0), 0xf);
        // E8M0 rounds up and saturates.
        assert_eq!(encode_float(DType::F8E8M0, 1.0), 127);
        assert_eq!(encode_float(DType::F8E8M0, 1.0001), 128);
        assert_eq!(encode_float(DType::F8E8M0, 0.0), 0);
        assert_eq!(encode_float(DType::F8E8M0, 1e300), 254);
        assert_eq!(encode_float(DType::F8E8M0, f64::INFINITY), 254);
        assert!(decode_float(DType::F8E8M0, encode_float(DType::F8E8M0, f64::NAN)).is_nan());
    }

    #[test]
    fn low_bits_come_first() {
        assert_eq!(pack(DType::I4, [1, 0xf, 2].into_iter()), [0xf1, 0x02]);
        assert_eq!(unpack(DType::I4, &[0xf1, 0x02], 3), [1, 0xf, 2]);
        assert_eq!(pack(DType::U2, [3, 0, 1, 2, 1].into_iter()), [0b10_01_00_11, 1]);
    }
}
