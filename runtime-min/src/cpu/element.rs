//! Arithmetic on elements: each storage type computes in its accumulator type ([`Number::Acc`]), `f32` for the 16-bit
//! floats, itself otherwise. Integers wrap. Also the macros that turn a [`DType`] into a Rust type.

use crate::cpu::memory::Plain;
use crate::dtype::{BF16, DType, Element, F16};

/// A type that kernels compute in.
pub trait Arith: Plain + PartialOrd + Default + core::fmt::Debug {
    const ZERO: Self;
    const ONE: Self;
    /// Not above any value (negative infinity for floats).
    const LOWEST: Self;
    /// Not below any value.
    const HIGHEST: Self;
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    fn abs(self) -> Self;
    /// NaN if either is.
    fn larger(self, other: Self) -> Self;
    /// NaN if either is.
    fn smaller(self, other: Self) -> Self;
    fn is_nan(self) -> bool;
    fn to_f64(self) -> f64;
    /// Rounds to nearest for floats; truncates and saturates for integers.
    fn from_f64(value: f64) -> Self;
    /// What kind of number it is.
    const KIND: Kind;
    /// The value as 64 bits: those of an `i64` or `u64`, or of an `f64`.
    fn to_bits_wide(self) -> u64;
    /// The type that long sums and products are formed in: `f64` for floats, 64 bits for integers.
    type Wide: Arith;
    fn to_wide(self) -> Self::Wide;
    /// Rounds for floats, wraps for integers.
    fn from_wide(wide: Self::Wide) -> Self;
    /// The share of each of `count`: truncated for integers, and 0 of none.
    fn share(self, count: usize) -> Self;
}

/// The kinds of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Float,
    Signed,
    Unsigned,
}

/// A float that kernels compute in.
pub trait Real: Arith {
    fn exp(self) -> Self;
}

/// An element type with arithmetic.
pub trait Number: Element + Plain {
    type Acc: Arith;
    fn widen(self) -> Self::Acc;
    /// Rounds to nearest even.
    fn narrow(value: Self::Acc) -> Self;
}

macro_rules! floats {
    ($($t:ident $exp:path),*) => {$(
        impl Arith for $t {
            const ZERO: $t = 0.0;
            const ONE: $t = 1.0;
            const LOWEST: $t = $t::NEG_INFINITY;
            const HIGHEST: $t = $t::INFINITY;
            #[inline(always)]
            fn add(self, other: $t) -> $t {
                self + other
            }
            #[inline(always)]
            fn sub(self, other: $t) -> $t {
                self - other
            }
            #[inline(always)]
            fn mul(self, other: $t) -> $t {
                self * other
            }
            #[inline(always)]
            fn abs(self) -> $t {
                $t::abs(self)
            }
            #[inline(always)]
            fn larger(self, other: $t) -> $t {
                if self > other || self.is_nan() { self } else { other }
            }
            #[inline(always)]
            fn smaller(self, other: $t) -> $t {
                if self < other || self.is_nan() { self } else { other }
            }
            #[inline(always)]
            fn is_nan(self) -> bool {
                $t::is_nan(self)
            }
            #[inline(always)]
            fn to_f64(self) -> f64 {
                f64::from(self)
            }
            #[inline(always)]
            fn from_f64(value: f64) -> $t {
                value as $t
            }
            const KIND: Kind = Kind::Float;
            #[inline(always)]
            fn to_bits_wide(self) -> u64 {
                f64::from(self).to_bits()
            }
            type Wide = f64;
            #[inline(always)]
            fn to_wide(self) -> f64 {
                f64::from(self)
            }
            #[inline(always)]
            fn from_wide(wide: f64) -> $t {
                wide as $t
            }
            #[inline(always)]
            fn share(self, count: usize) -> $t {
                self / count as $t
            }
        }
        impl Real for $t {
            #[inline(always)]
            fn exp(self) -> $t {
                $exp(self)
            }
        }
        impl Number for $t {
            type Acc = $t;
            #[inline(always)]
            fn widen(self) -> $t {
                self
            }
            #[inline(always)]
            fn narrow(value: $t) -> $t {
                value
            }
        }
    )*};
}

floats!(f32 crate::cpu::pointwise::math::exp, f64 f64::exp);

macro_rules! integers {
    ($($t:ident $wide:ident $abs:expr),*) => {$(
        impl Arith for $t {
            const ZERO: $t = 0;
            const ONE: $t = 1;
            const LOWEST: $t = $t::MIN;
            const HIGHEST: $t = $t::MAX;
            #[inline(always)]
            fn add(self, other: $t) -> $t {
                self.wrapping_add(other)
            }
            #[inline(always)]
            fn sub(self, other: $t) -> $t {
                self.wrapping_sub(other)
            }
            #[inline(always)]
            fn mul(self, other: $t) -> $t {
                self.wrapping_mul(other)
            }
            #[inline(always)]
            fn abs(self) -> $t {
                $abs(self)
            }
            #[inline(always)]
            fn larger(self, other: $t) -> $t {
                Ord::max(self, other)
            }
            #[inline(always)]
            fn smaller(self, other: $t) -> $t {
                Ord::min(self, other)
            }
            #[inline(always)]
            fn is_nan(self) -> bool {
                false
            }
            #[inline(always)]
            fn to_f64(self) -> f64 {
                self as f64
            }
            #[inline(always)]
            fn from_f64(value: f64) -> $t {
                value as $t
            }
            const KIND: Kind = if $t::MIN == 0 { Kind::Unsigned } else { Kind::Signed };
            #[inline(always)]
            fn to_bits_wide(self) -> u64 {
                $wide::from(self) as u64
            }
            type Wide = $wide;
            #[inline(always)]
            fn to_wide(self) -> $wide {
                $wide::from(self)
            }
            #[inline(always)]
            fn from_wide(wide: $wide) -> $t {
                wide as $t
            }
            #[inline(always)]
            fn share(self, count: usize) -> $t {
                $wide::from(self).checked_div(count as $wide).unwrap_or(0) as $t
            }
        }
        impl Number for $t {
            type Acc = $t;
            #[inline(always)]
            fn widen(self) -> $t {
                self
            }
            #[inline(always)]
            fn narrow(value: $t) -> $t {
                value
            }
        }
    )*};
}

integers!(
    i64 i64 i64::wrapping_abs, i32 i64 i32::wrapping_abs, i16 i64 i16::wrapping_abs, i8 i64 i8::wrapping_abs,
    u64 u64 core::convert::identity, u32 u64 core::convert::identity, u16 u64 core::convert::identity,
    u8 u64 core::convert::identity
);

impl Number for F16 {
    type Acc = f32;
    #[inline(always)]
    fn widen(self) -> f32 {
        f16_to_f32(self.0)
    }
    #[inline(always)]
    fn narrow(value: f32) -> F16 {
        F16(f32_to_f16(value))
    }
}

impl Number for BF16 {
    type Acc = f32;
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.0) << 16)
    }
    #[inline(always)]
    fn narrow(value: f32) -> BF16 {
        BF16(f32_to_bf16(value))
    }
}

/// [`F16::to_f32`] without branches, so that loops of it vectorize: the bits are aligned to those of an `f32` and the
/// exponent is corrected by an exact multiplication.
#[inline(always)]
fn f16_to_f32(bits: u16) -> f32 {
    let sign = (u32::from(bits) & 0x8000) << 16;
    let magnitude = u32::from(bits) & 0x7fff;
    let scaled = f32::from_bits(magnitude << 13) * f32::from_bits(0x7780_0000);
    let special = if magnitude >= 0x7c00 { 0x7f80_0000 } else { 0 };
    f32::from_bits(scaled.to_bits() | special | sign)
}

/// [`F16::from_f32`] without branches.
#[inline(always)]
fn f32_to_f16(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = (bits >> 16) & 0x8000;
    let magnitude = bits & 0x7fff_ffff;
    let subnormal = (f32::from_bits(magnitude) + 0.5).to_bits().wrapping_sub(0x3f00_0000);
    let normal = magnitude.wrapping_sub(0x3800_0000).wrapping_add(0x0fff + ((magnitude >> 13) & 1)) >> 13;
    let finite = if magnitude < 0x3880_0000 { subnormal } else { normal };
    let infinite = if magnitude >= 0x477f_f000 { 0x7c00 } else { finite };
    let all = if magnitude > 0x7f80_0000 { 0x7e00 } else { infinite };
    (sign | all) as u16
}

/// [`BF16::from_f32`] without branches.
#[inline(always)]
fn f32_to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1));
    let nan = (bits & 0x7fff_ffff) > 0x7f80_0000;
    ((if nan { bits | 0x40_0000 } else { rounded }) >> 16) as u16
}

/// `to[i] = from[i]`, widened.
pub fn widen<T: Number>(from: &[T], to: &mut [T::Acc]) {
    crate::cpu::simd::vectorize(
        #[inline(always)]
        || {
            for (to, from) in to.iter_mut().zip(from) {
                *to = from.widen();
            }
        },
    );
}

/// `to[i] = from[i]`, rounded.
pub fn narrow<T: Number>(from: &[T::Acc], to: &mut [T]) {
    crate::cpu::simd::vectorize(
        #[inline(always)]
        || {
            for (to, from) in to.iter_mut().zip(from) {
                *to = T::narrow(*from);
            }
        },
    );
}

/// The sum of a slice, in 16 running sums of the wide type.
#[inline(always)]
pub fn sum<T: Number>(data: &[T], map: impl Fn(T::Acc) -> <T::Acc as Arith>::Wide) -> <T::Acc as Arith>::Wide {
    const LANES: usize = 16;
    let zero = <T::Acc as Arith>::Wide::ZERO;
    let mut lanes = [zero; LANES];
    let chunks = data.chunks_exact(LANES);
    let mut total = chunks.remainder().iter().fold(zero, |sum, x| sum.add(map(x.widen())));
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane = lane.add(map(x.widen()));
        }
    }
    for lane in lanes {
        total = total.add(lane);
    }
    total
}

/// Stops on a type that the check at load does not let through.
#[cold]
pub fn unchecked(dtype: DType) -> ! {
    unreachable!("the check at load lets no {dtype} tensor come here")
}

/// `$body` with `$t` the Rust type of a numeric element type.
macro_rules! number {
    ($dtype:expr, $t:ident => $body:expr) => {{
        use $crate::dtype::DType as D;
        match $dtype {
            D::F64 => {
                type $t = f64;
                $body
            }
            D::F32 => {
                type $t = f32;
                $body
            }
            D::F16 => {
                type $t = $crate::dtype::F16;
                $body
            }
            D::BF16 => {
                type $t = $crate::dtype::BF16;
                $body
            }
            D::I64 => {
                type $t = i64;
                $body
            }
            D::I32 => {
                type $t = i32;
                $body
            }
            D::I16 => {
                type $t = i16;
                $body
            }
            D::I8 => {
                type $t = i8;
                $body
            }
            D::U64 => {
                type $t = u64;
                $body
            }
            D::U32 => {
                type $t = u32;
                $body
            }
            D::U16 => {
                type $t = u16;
                $body
            }
            D::U8 => {
                type $t = u8;
                $body
            }
            other @ (D::Bool
            | D::F8E4M3FN
            | D::F8E4M3FNUZ
            | D::F8E5M2
            | D::F8E5M2FNUZ
            | D::F8E8M0
            | D::F4E2M1
            | D::I4
            | D::U4
            | D::I2
            | D::U2) => $crate::cpu::element::unchecked(other),
        }
    }};
}

/// `$body` with `$t` the Rust type of a float element type of 16 bits or more.
macro_rules! float {
    ($dtype:expr, $t:ident => $body:expr) => {{
        use $crate::dtype::DType as D;
        match $dtype {
            D::F64 => {
                type $t = f64;
                $body
            }
            D::F32 => {
                type $t = f32;
                $body
            }
            D::F16 => {
                type $t = $crate::dtype::F16;
                $body
            }
            D::BF16 => {
                type $t = $crate::dtype::BF16;
                $body
            }
            other @ (D::I64
            | D::I32
            | D::I16
            | D::I8
            | D::U64
            | D::U32
            | D::U16
            | D::U8
            | D::Bool
            | D::F8E4M3FN
            | D::F8E4M3FNUZ
            | D::F8E5M2
            | D::F8E5M2FNUZ
            | D::F8E8M0
            | D::F4E2M1
            | D::I4
            | D::U4
            | D::I2
            | D::U2) => $crate::cpu::element::unchecked(other),
        }
    }};
}

/// `$body` with `$t` an unsigned integer of the size of an element; smaller ones are unpacked to bytes.
macro_rules! word {
    ($dtype:expr, $t:ident => $body:expr) => {
        match $dtype.bits() {
            64 => {
                type $t = u64;
                $body
            }
            32 => {
                type $t = u32;
                $body
            }
            16 => {
                type $t = u16;
                $body
            }
            _ => {
                type $t = u8;
                $body
            }
        }
    };
}

pub(crate) use {float, number, word};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branchless_halves_are_those_of_dtype() {
        for bits in 0..=u16::MAX {
            assert_eq!(f16_to_f32(bits).to_bits(), F16(bits).to_f32().to_bits(), "{bits:#x}");
        }
        let mut bits = 0u32;
        loop {
            let value = f32::from_bits(bits);
            assert_eq!(f32_to_f16(value), F16::from_f32(value).0, "{bits:#x}");
            assert_eq!(f32_to_bf16(value), BF16::from_f32(value).0, "{bits:#x}");
            let Some(next) = bits.checked_add(997) else {
                break;
            };
            bits = next;
        }
    }

    #[test]
    fn extrema_pass_nan_on() {
        assert!(f32::NAN.larger(1.0).is_nan() && 1f32.larger(f32::NAN).is_nan());
        assert!(f32::NAN.smaller(1.0).is_nan() && 1f32.smaller(f32::NAN).is_nan());
        assert_eq!(2f32.larger(1.0), 2.0);
        assert_eq!(2i8.smaller(1), 1);
    }
}
