//! Between tensors and registers: the storage types that are computed in another type, packed ones included.
//!
//! The 8-bit and 4-bit floats and their conversions are those of the ONNX specification ("Float stored in 8 bits",
//! "4 bit float"): a cast saturates, and a store keeps the infinity of a type that has one.

use super::program::Class;
use crate::cpu::element::{Number, narrow, widen};
use crate::cpu::simd::vectorize;
use crate::dtype::{BF16, DType, F16};

/// A float of 8 bits or fewer: a sign (but for E8M0), an exponent and a mantissa.
struct Tiny {
    exponent_bits: u32,
    mantissa_bits: u32,
    bias: i32,
    /// The largest finite magnitude's bits.
    largest: u8,
    nan: Option<u8>,
    infinity: Option<u8>,
    /// NaN is the negative zero, and there is no other.
    unsigned_zero: Sign,
}

#[derive(Clone, Copy, PartialEq)]
enum Sign {
    Signed,
    SignedButZero,
}

fn tiny(dtype: DType) -> Tiny {
    let new = |exponent_bits, mantissa_bits, bias, largest, nan, infinity, unsigned_zero| Tiny {
        exponent_bits,
        mantissa_bits,
        bias,
        largest,
        nan,
        infinity,
        unsigned_zero,
    };
    match dtype {
        DType::F8E4M3FN => new(4, 3, 7, 0x7e, Some(0x7f), None, Sign::Signed),
        DType::F8E4M3FNUZ => new(4, 3, 8, 0x7f, Some(0x80), None, Sign::SignedButZero),
        DType::F8E5M2 => new(5, 2, 15, 0x7b, Some(0x7f), Some(0x7c), Sign::Signed),
        DType::F8E5M2FNUZ => new(5, 2, 16, 0x7f, Some(0x80), None, Sign::SignedButZero),
        DType::F4E2M1 => new(2, 1, 1, 0x7, None, None, Sign::Signed),
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
        | DType::U2 => unreachable!("{dtype} is not a signed float of 8 bits or fewer"),
    }
}

impl Tiny {
    fn sign_bit(&self) -> u8 {
        1 << (self.exponent_bits + self.mantissa_bits)
    }

    fn decode(&self, bits: u8) -> f32 {
        let magnitude = bits & (self.sign_bit() - 1);
        let special_nan = match self.unsigned_zero {
            Sign::Signed => self.nan.is_some_and(|nan| magnitude > self.infinity.unwrap_or(nan - 1)),
            Sign::SignedButZero => Some(bits) == self.nan,
        };
        if special_nan {
            return f32::NAN;
        }
        let sign = if bits & self.sign_bit() != 0 { -1.0 } else { 1.0 };
        if Some(magnitude) == self.infinity {
            return sign * f32::INFINITY;
        }
        let mantissa = i32::from(magnitude & ((1 << self.mantissa_bits) - 1));
        let exponent = i32::from(magnitude >> self.mantissa_bits);
        let (mantissa, exponent) =
            if exponent == 0 { (mantissa, 1) } else { (mantissa + (1 << self.mantissa_bits), exponent) };
        sign * mantissa as f32 * 2f32.powi(exponent - self.bias - self.mantissa_bits as i32)
    }

    /// Rounds to nearest even; what is too large becomes the largest finite value, but an infinity stays one where the
    /// type has it.
    fn encode(&self, value: f32) -> u8 {
        let sign = if value.is_sign_negative() { self.sign_bit() } else { 0 };
        if value.is_nan() {
            return match self.unsigned_zero {
                Sign::Signed => self.nan.map_or(self.sign_bit(), |nan| nan | sign),
                Sign::SignedButZero => self.sign_bit(),
            };
        }
        if let (true, Some(infinity)) = (value.is_infinite(), self.infinity) {
            return infinity | sign;
        }
        let magnitude = value.abs();
        // The unit of the last place where the value lies; subnormals share the smallest normal one's.
        let exponent = (((magnitude.to_bits() >> 23) as i32) - 127).max(1 - self.bias);
        let unit = exponent - self.mantissa_bits as i32;
        let scaled = f64::from(magnitude) * 2f64.powi(-unit);
        let steps = scaled.round_ties_even();
        let base = (exponent + self.bias - 1) as f64 * f64::from(1u32 << self.mantissa_bits);
        let code = base + steps;
        let bits = if code >= f64::from(self.largest) { self.largest } else { code as u8 };
        if bits == 0 && self.unsigned_zero == Sign::SignedButZero { 0 } else { bits | sign }
    }
}

/// The value that a cast to `dtype`, a float of 8 bits or fewer, gives.
fn convert(dtype: DType, value: f32) -> f32 {
    if dtype == DType::F8E8M0 {
        return decode_e8m0(encode_e8m0(value));
    }
    let tiny = tiny(dtype);
    let largest = tiny.decode(tiny.largest);
    let saturated = if value.is_infinite() { largest.copysign(value) } else { value };
    tiny.decode(tiny.encode(saturated))
}

/// 2^(bits - 127); 255 is NaN.
fn decode_e8m0(bits: u8) -> f32 {
    if bits == 0xff { f32::NAN } else { 2f64.powi(i32::from(bits) - 127) as f32 }
}

/// The next power of two, as ONNX's `Cast` rounds by default; what is too large or too small becomes the largest or
/// smallest. The sign is ignored.
fn encode_e8m0(value: f32) -> u8 {
    if value.is_nan() {
        return 0xff;
    }
    let bits = f64::from(value.abs()).to_bits();
    let exponent = ((bits >> 52) as i32) - 1023 + i32::from(bits & ((1 << 52) - 1) != 0);
    (exponent + 127).clamp(0, 0xfe) as u8
}

fn decode(dtype: DType, bits: u8) -> f32 {
    if dtype == DType::F8E8M0 { decode_e8m0(bits) } else { tiny(dtype).decode(bits) }
}

fn encode(dtype: DType, value: f32) -> u8 {
    if dtype == DType::F8E8M0 { encode_e8m0(value) } else { tiny(dtype).encode(value) }
}

/// Element `index` of a packed tensor of elements of at most 8 bits.
pub fn packed(data: &[u8], bits: usize, index: usize) -> u8 {
    let per_byte = 8 / bits;
    let shift = index % per_byte * bits;
    (data[index / per_byte] >> shift) & (0xffu8 >> (8 - bits))
}

/// Sets element `index` of a packed tensor.
pub fn set_packed(data: &mut [u8], bits: usize, index: usize, value: u8) {
    let per_byte = 8 / bits;
    let shift = index % per_byte * bits;
    let mask = (0xffu8 >> (8 - bits)) << shift;
    let byte = &mut data[index / per_byte];
    *byte = (*byte & !mask) | ((value << shift) & mask);
}

fn sign_extend(value: u8, bits: usize) -> i8 {
    let shift = 8 - bits;
    ((value << shift) as i8) >> shift
}

/// Loads `len` elements of `dtype` from index `start` of the tensor at `from` into the register at `to`.
///
/// # Safety
/// The tensor has that many elements; the register has room for them and overlaps nothing.
pub unsafe fn load(dtype: DType, from: *const u8, start: usize, to: *mut u8, len: usize) {
    // SAFETY: the caller's.
    unsafe {
        match dtype {
            DType::F16 => widen(
                core::slice::from_raw_parts(from.cast::<F16>().add(start), len),
                core::slice::from_raw_parts_mut(to.cast::<f32>(), len),
            ),
            DType::BF16 => widen(
                core::slice::from_raw_parts(from.cast::<BF16>().add(start), len),
                core::slice::from_raw_parts_mut(to.cast::<f32>(), len),
            ),
            DType::F8E4M3FN | DType::F8E4M3FNUZ | DType::F8E5M2 | DType::F8E5M2FNUZ | DType::F8E8M0 | DType::F4E2M1 => {
                let data = core::slice::from_raw_parts(from, dtype.bytes(start + len));
                for (k, to) in core::slice::from_raw_parts_mut(to.cast::<f32>(), len).iter_mut().enumerate() {
                    *to = decode(dtype, packed(data, dtype.bits(), start + k));
                }
            }
            DType::I4 | DType::U4 | DType::I2 | DType::U2 => {
                let data = core::slice::from_raw_parts(from, dtype.bytes(start + len));
                for (k, to) in core::slice::from_raw_parts_mut(to, len).iter_mut().enumerate() {
                    let value = packed(data, dtype.bits(), start + k);
                    *to = if dtype.is_signed_int() { sign_extend(value, dtype.bits()) as u8 } else { value };
                }
            }
            DType::F64
            | DType::F32
            | DType::I64
            | DType::I32
            | DType::I16
            | DType::I8
            | DType::U64
            | DType::U32
            | DType::U16
            | DType::U8
            | DType::Bool => {
                let size = dtype.bits() / 8;
                core::ptr::copy_nonoverlapping(from.add(start * size), to, len * size);
            }
        }
    }
}

/// Stores the register at `from` to `len` elements of `dtype` from index `start` of the tensor at `to`.
///
/// # Safety
/// The tensor has that many elements and does not overlap the register.
pub unsafe fn store(dtype: DType, from: *const u8, to: *mut u8, start: usize, len: usize) {
    // SAFETY: the caller's.
    unsafe {
        match dtype {
            DType::F16 => narrow(
                core::slice::from_raw_parts(from.cast::<f32>(), len),
                core::slice::from_raw_parts_mut(to.cast::<F16>().add(start), len),
            ),
            DType::BF16 => narrow(
                core::slice::from_raw_parts(from.cast::<f32>(), len),
                core::slice::from_raw_parts_mut(to.cast::<BF16>().add(start), len),
            ),
            DType::F8E4M3FN | DType::F8E4M3FNUZ | DType::F8E5M2 | DType::F8E5M2FNUZ | DType::F8E8M0 | DType::F4E2M1 => {
                let data = core::slice::from_raw_parts_mut(to, dtype.bytes(start + len));
                for (k, from) in core::slice::from_raw_parts(from.cast::<f32>(), len).iter().enumerate() {
                    set_packed(data, dtype.bits(), start + k, encode(dtype, *from));
                }
            }
            DType::I4 | DType::U4 | DType::I2 | DType::U2 => {
                let data = core::slice::from_raw_parts_mut(to, dtype.bytes(start + len));
                for (k, from) in core::slice::from_raw_parts(from, len).iter().enumerate() {
                    set_packed(data, dtype.bits(), start + k, *from);
                }
            }
            DType::F64
            | DType::F32
            | DType::I64
            | DType::I32
            | DType::I16
            | DType::I8
            | DType::U64
            | DType::U32
            | DType::U16
            | DType::U8
            | DType::Bool => {
                let size = dtype.bits() / 8;
                core::ptr::copy_nonoverlapping(from, to.add(start * size), len * size);
            }
        }
    }
}

/// Cuts a register of bytes to the range of `dtype`, an integer of at most 8 bits: what a float is converted to.
///
/// # Safety
/// The register holds `len` values of the class of `dtype`.
pub unsafe fn saturate(dtype: DType, register: *mut u8, len: usize) {
    let unused = 8 - dtype.bits();
    if unused == 0 {
        return;
    }
    // SAFETY: the caller's.
    let values = unsafe { core::slice::from_raw_parts_mut(register, len) };
    if dtype.is_signed_int() {
        let (low, high) = (i8::MIN >> unused, i8::MAX >> unused);
        values.iter_mut().for_each(|value| *value = (*value as i8).clamp(low, high) as u8);
    } else {
        values.iter_mut().for_each(|value| *value = (*value).min(0xff >> unused));
    }
}

/// Rounds a register of the class of `dtype` to the values that `dtype` has.
///
/// # Safety
/// The register holds `len` values of the class.
pub unsafe fn round(dtype: DType, register: *mut u8, len: usize) {
    match Class::of(dtype) {
        Class::F32 => {
            // SAFETY: the caller's.
            let values = unsafe { core::slice::from_raw_parts_mut(register.cast::<f32>(), len) };
            match dtype {
                DType::F32 => {}
                DType::F16 => round_as::<F16>(values),
                DType::BF16 => round_as::<BF16>(values),
                other => values.iter_mut().for_each(|value| *value = convert(other, *value)),
            }
        }
        Class::I8 if dtype.bits() < 8 => {
            // SAFETY: the caller's.
            let values = unsafe { core::slice::from_raw_parts_mut(register, len) };
            for value in values {
                *value = sign_extend(*value, dtype.bits()) as u8;
            }
        }
        Class::U8 if dtype.bits() < 8 => {
            // SAFETY: the caller's.
            let values = unsafe { core::slice::from_raw_parts_mut(register, len) };
            for value in values {
                *value &= 0xff >> (8 - dtype.bits());
            }
        }
        Class::F64
        | Class::I64
        | Class::I32
        | Class::I16
        | Class::I8
        | Class::U64
        | Class::U32
        | Class::U16
        | Class::U8
        | Class::Bool => {}
    }
}

fn round_as<T: Number<Acc = f32>>(values: &mut [f32]) {
    vectorize(
        #[inline(always)]
        || {
            for value in values {
                *value = T::narrow(*value).widen();
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiny_floats_survive_the_round_trip() {
        let types =
            [DType::F8E4M3FN, DType::F8E4M3FNUZ, DType::F8E5M2, DType::F8E5M2FNUZ, DType::F8E8M0, DType::F4E2M1];
        for dtype in types {
            for bits in 0..1u32 << dtype.bits() {
                let value = decode(dtype, bits as u8);
                if !value.is_nan() {
                    assert_eq!(u32::from(encode(dtype, value)), bits, "{dtype} {value}");
                }
            }
        }
    }

    #[test]
    fn tiny_floats_saturate_and_round_to_even() {
        assert_eq!(decode(DType::F8E4M3FN, encode(DType::F8E4M3FN, 1e6)), 448.0);
        assert_eq!(convert(DType::F8E5M2, f32::NEG_INFINITY), -57344.0);
        assert_eq!(decode(DType::F8E5M2, encode(DType::F8E5M2, f32::NEG_INFINITY)), f32::NEG_INFINITY);
        assert_eq!(decode(DType::F8E4M3FNUZ, encode(DType::F8E4M3FNUZ, 1e6)), 240.0);
        assert_eq!(decode(DType::F4E2M1, encode(DType::F4E2M1, 2.5)), 2.0);
        assert_eq!(decode(DType::F4E2M1, encode(DType::F4E2M1, 100.0)), 6.0);
        assert_eq!(decode(DType::F8E4M3FN, encode(DType::F8E4M3FN, 1.0625)), 1.0);
        assert!(decode(DType::F8E5M2, encode(DType::F8E5M2, f32::NAN)).is_nan());
        assert_eq!(encode(DType::F8E4M3FNUZ, -0.0), 0);
        assert_eq!(encode(DType::F8E4M3FN, 2f32.powi(-10)), 0);
    }

    #[test]
    fn packing_is_low_bits_first() {
        let mut data = [0u8; 2];
        for (k, value) in [1u8, 2, 3].into_iter().enumerate() {
            set_packed(&mut data, 4, k, value);
        }
        assert_eq!(data, [0x21, 0x03]);
        assert_eq!(packed(&data, 4, 1), 2);
        assert_eq!(sign_extend(0xf, 4), -1);
    }
}
