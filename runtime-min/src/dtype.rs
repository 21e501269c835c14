//! Element types, and the two 16-bit floats that Rust does not have.
//!
//! `DType` names every element type that ONNX defines up to IR version 13. Floats of 8 bits and fewer and integers below
//! 8 bits are storage types, which are converted before any arithmetic. Elements below a byte are packed as ONNX packs
//! them, low bits first.

/// The element type of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DType {
    F64,
    F32,
    F16,
    BF16,
    I64,
    I32,
    I16,
    I8,
    U64,
    U32,
    U16,
    U8,
    Bool,
    F8E4M3FN,
    F8E4M3FNUZ,
    F8E5M2,
    F8E5M2FNUZ,
    F8E8M0,
    F4E2M1,
    I4,
    U4,
    I2,
    U2,
}

impl DType {
    /// Every element type, in declaration order.
    pub const ALL: [DType; 23] = [
        DType::F64,
        DType::F32,
        DType::F16,
        DType::BF16,
        DType::I64,
        DType::I32,
        DType::I16,
        DType::I8,
        DType::U64,
        DType::U32,
        DType::U16,
        DType::U8,
        DType::Bool,
        DType::F8E4M3FN,
        DType::F8E4M3FNUZ,
        DType::F8E5M2,
        DType::F8E5M2FNUZ,
        DType::F8E8M0,
        DType::F4E2M1,
        DType::I4,
        DType::U4,
        DType::I2,
        DType::U2,
    ];

    /// Bits one element occupies in a packed tensor.
    pub const fn bits(self) -> usize {
        match self {
            DType::F64 | DType::I64 | DType::U64 => 64,
            DType::F32 | DType::I32 | DType::U32 => 32,
            DType::F16 | DType::BF16 | DType::I16 | DType::U16 => 16,
            DType::I8
            | DType::U8
            | DType::Bool
            | DType::F8E4M3FN
            | DType::F8E4M3FNUZ
            | DType::F8E5M2
            | DType::F8E5M2FNUZ
            | DType::F8E8M0 => 8,
            DType::F4E2M1 | DType::I4 | DType::U4 => 4,
            DType::I2 | DType::U2 => 2,
        }
    }

    /// Bytes of a packed tensor of `elements` elements; the last byte may be partly used.
    pub const fn bytes(self, elements: usize) -> usize {
        (elements * self.bits()).div_ceil(8)
    }

    /// The name used in text forms and messages, such as `f32`.
    pub const fn name(self) -> &'static str {
        match self {
            DType::F64 => "f64",
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            DType::I64 => "i64",
            DType::I32 => "i32",
            DType::I16 => "i16",
            DType::I8 => "i8",
            DType::U64 => "u64",
            DType::U32 => "u32",
            DType::U16 => "u16",
            DType::U8 => "u8",
            DType::Bool => "bool",
            DType::F8E4M3FN => "f8e4m3fn",
            DType::F8E4M3FNUZ => "f8e4m3fnuz",
            DType::F8E5M2 => "f8e5m2",
            DType::F8E5M2FNUZ => "f8e5m2fnuz",
            DType::F8E8M0 => "f8e8m0",
            DType::F4E2M1 => "f4e2m1",
            DType::I4 => "i4",
            DType::U4 => "u4",
            DType::I2 => "i2",
            DType::U2 => "u2",
        }
    }

    /// The inverse of [`DType::name`].
    pub fn from_name(name: &str) -> Option<DType> {
        DType::ALL.into_iter().find(|t| t.name() == name)
    }

    /// Whether the type is a floating-point type, storage types included.
    pub const fn is_float(self) -> bool {
        matches!(
            self,
            DType::F64
                | DType::F32
                | DType::F16
                | DType::BF16
                | DType::F8E4M3FN
                | DType::F8E4M3FNUZ
                | DType::F8E5M2
                | DType::F8E5M2FNUZ
                | DType::F8E8M0
                | DType::F4E2M1
        )
    }

    /// Whether tensors are only stored in the type: steps convert from and to it, and compute in another.
    pub const fn is_storage(self) -> bool {
        match self {
            DType::F8E4M3FN
            | DType::F8E4M3FNUZ
            | DType::F8E5M2
            | DType::F8E5M2FNUZ
            | DType::F8E8M0
            | DType::F4E2M1
            | DType::I4
            | DType::U4
            | DType::I2
            | DType::U2 => true,
            DType::F64
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
            | DType::Bool => false,
        }
    }

    /// Whether the type is an integer type; `bool` is not.
    pub const fn is_int(self) -> bool {
        !self.is_float() && !matches!(self, DType::Bool)
    }

    /// Whether the type is a signed integer type.
    pub const fn is_signed_int(self) -> bool {
        matches!(self, DType::I64 | DType::I32 | DType::I16 | DType::I8 | DType::I4 | DType::I2)
    }
}

impl core::fmt::Display for DType {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

/// A Rust type whose values are the elements of a tensor.
///
/// # Safety
/// `DTYPE.bits()` must be `8 * size_of::<Self>()`, and every bit pattern that the runtime writes for `DTYPE` must be
/// a valid `Self` (for `bool` it writes 0 and 1 only).
pub unsafe trait Element: Copy + Default + Send + Sync + 'static {
    /// The element type this Rust type stores.
    const DTYPE: DType;
}

macro_rules! elements {
    ($($rust:ty => $dtype:ident),* $(,)?) => {
        $(
            // SAFETY: the size of the Rust type is that of the element type, and all patterns written are valid.
            unsafe impl Element for $rust {
                const DTYPE: DType = DType::$dtype;
            }
        )*
    };
}

elements! {
    f64 => F64, f32 => F32, F16 => F16, BF16 => BF16,
    i64 => I64, i32 => I32, i16 => I16, i8 => I8,
    u64 => U64, u32 => U32, u16 => U16, u8 => U8, bool => Bool,
}

/// IEEE 754 binary16. Equality and ordering are those of the bits, not of the numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct F16(pub u16);

/// bfloat16: the upper half of an IEEE 754 binary32. Equality is that of the bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct BF16(pub u16);

impl F16 {
    /// Rounds to nearest, ties to even; overflow gives infinity, NaN stays NaN.
    pub fn from_f32(value: f32) -> F16 {
        let bits = value.to_bits();
        let sign = ((bits >> 16) & 0x8000) as u16;
        let magnitude = bits & 0x7fff_ffff;
        if magnitude > 0x7f80_0000 {
            return F16(sign | 0x7e00);
        }
        // 65520 is the smallest magnitude that rounds to infinity.
        if magnitude >= 0x477f_f000 {
            return F16(sign | 0x7c00);
        }
        // Below 2^-14 the result is subnormal: adding 2^-1 aligns its last bit with that of the sum (ulp 2^-24),
        // so the addition itself rounds to nearest even.
        if magnitude < 0x3880_0000 {
            let aligned = f32::from_bits(magnitude) + 0.5;
            return F16(sign | (aligned.to_bits() - 0x3f00_0000) as u16);
        }
        let odd = (magnitude >> 13) & 1;
        let rounded = magnitude - 0x3800_0000 + 0x0fff + odd;
        F16(sign | (rounded >> 13) as u16)
    }

    /// Exact.
    pub fn to_f32(self) -> f32 {
        let sign = u32::from(self.0 & 0x8000) << 16;
        let magnitude = u32::from(self.0 & 0x7fff);
        if magnitude >= 0x7c00 {
            return f32::from_bits(sign | 0x7f80_0000 | ((magnitude & 0x3ff) << 13));
        }
        if magnitude < 0x400 {
            let value = magnitude as f32 * f32::from_bits(0x3380_0000);
            return f32::from_bits(sign | value.to_bits());
        }
        f32::from_bits(sign | ((magnitude << 13) + 0x3800_0000))
    }

    /// Rounds to nearest even in one step (not by way of `f32`).
    pub fn from_f64(value: f64) -> F16 {
        F16::from_f32(round_to_odd(value))
    }
}

impl BF16 {
    /// Rounds to nearest, ties to even; NaN stays NaN.
    pub fn from_f32(value: f32) -> BF16 {
        let bits = value.to_bits();
        if value.is_nan() {
            return BF16(((bits >> 16) | 0x40) as u16);
        }
        BF16((bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16) as u16)
    }

    /// Exact.
    pub fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(self.0) << 16)
    }

    /// Rounds to nearest even in one step (not by way of `f32`).
    pub fn from_f64(value: f64) -> BF16 {
        BF16::from_f32(round_to_odd(value))
    }
}

/// `value` as `f32`, rounded to odd, so that a second rounding to a narrower type is right.
/// S. Boldo, G. Melquiond, "Emulation of a FMA and correctly rounded sums: proved algorithms using rounding to odd".
fn round_to_odd(value: f64) -> f32 {
    let nearest = value as f32;
    if !nearest.is_finite() || f64::from(nearest) == value {
        return nearest;
    }
    let bits = nearest.to_bits();
    let toward_zero = if f64::from(nearest).abs() > value.abs() { bits - 1 } else { bits };
    f32::from_bits(toward_zero | 1)
}

#[cfg(feature = "half")]
mod interop {
    use super::{BF16, F16};

    impl From<half::f16> for F16 {
        fn from(value: half::f16) -> F16 {
            F16(value.to_bits())
        }
    }

    impl From<F16> for half::f16 {
        fn from(value: F16) -> half::f16 {
            half::f16::from_bits(value.0)
        }
    }

    impl From<half::bf16> for BF16 {
        fn from(value: half::bf16) -> BF16 {
            BF16(value.to_bits())
        }
    }

    impl From<BF16> for half::bf16 {
        fn from(value: BF16) -> half::bf16 {
            half::bf16::from_bits(value.0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_survives_the_round_trip() {
        for bits in 0..=u16::MAX {
            let value = F16(bits).to_f32();
            if value.is_nan() {
                assert!(F16::from_f32(value).to_f32().is_nan());
            } else {
                assert_eq!(F16::from_f32(value).0, bits);
            }
            let value = BF16(bits).to_f32();
            if !value.is_nan() {
                assert_eq!(BF16::from_f32(value).0, bits);
            }
        }
    }

    #[test]
    fn ties_round_to_even() {
        let one_ulp = 2f32.powi(-10);
        assert_eq!(F16::from_f32(1.0 + one_ulp / 2.0).to_f32(), 1.0);
        assert_eq!(F16::from_f32(1.0 + one_ulp * 1.5).to_f32(), 1.0 + 2.0 * one_ulp);
        assert_eq!(F16::from_f32(65519.0).to_f32(), 65504.0);
        assert!(F16::from_f32(65520.0).to_f32().is_infinite());
        // A double just above the tie must not be rounded down by way of f32.
        assert_eq!(F16::from_f64(1.0 + f64::from(one_ulp) / 2.0 + 1e-12).to_f32(), 1.0 + one_ulp);
    }

    #[test]
    fn names_are_unique_and_parse_back() {
        for dtype in DType::ALL {
            assert_eq!(DType::from_name(dtype.name()), Some(dtype));
        }
    }
}
