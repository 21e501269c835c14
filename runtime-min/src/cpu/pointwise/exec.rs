//! The loops of the interpreter: one step of a program over one chunk of values.
//!
//! Operands and result are registers (or memory) of the step's class; [`super::program`] has checked the types, and
//! that the result overlaps no operand.

use super::math;
use super::program::{Class, Prepared, Side, Task};
use crate::cpu::element::Arith;
use crate::cpu::memory::Plain;
use crate::cpu::simd::vectorize;
use crate::dtype::DType;
use crate::op::ScalarOp;

/// The chunk of one step: addresses of result and operands, and the number of elements.
#[derive(Clone, Copy)]
pub struct Chunk {
    pub to: *mut u8,
    pub args: [*const u8; 3],
    pub len: usize,
}

impl Chunk {
    /// Operand `k`.
    ///
    /// # Safety
    /// The address holds `len` values of `T`, which nothing writes meanwhile.
    #[inline(always)]
    unsafe fn arg<'c, T: Plain>(&self, k: usize) -> &'c [T] {
        // SAFETY: the caller's.
        unsafe { core::slice::from_raw_parts(self.args[k].cast::<T>(), self.len) }
    }

    /// The result.
    ///
    /// # Safety
    /// The address holds room for `len` values of `T`, which nothing else touches meanwhile.
    #[inline(always)]
    unsafe fn result<'c, T: Plain>(&self) -> &'c mut [T] {
        // SAFETY: the caller's.
        unsafe { core::slice::from_raw_parts_mut(self.to.cast::<T>(), self.len) }
    }

    #[inline(always)]
    unsafe fn map<A: Plain, R: Plain>(&self, f: impl Fn(A) -> R) {
        // SAFETY: the caller's.
        let (to, a) = unsafe { (self.result::<R>(), self.arg::<A>(0)) };
        for (to, a) in to.iter_mut().zip(a) {
            *to = f(*a);
        }
    }

    #[inline(always)]
    unsafe fn zip<A: Plain, B: Plain, R: Plain>(&self, f: impl Fn(A, B) -> R) {
        // SAFETY: the caller's.
        let (to, a, b) = unsafe { (self.result::<R>(), self.arg::<A>(0), self.arg::<B>(1)) };
        for ((to, a), b) in to.iter_mut().zip(a).zip(b) {
            *to = f(*a, *b);
        }
    }

    #[inline(always)]
    unsafe fn select<T: Plain>(&self) {
        // SAFETY: the caller's.
        let (to, c, a, b) = unsafe { (self.result::<T>(), self.arg::<u8>(0), self.arg::<T>(1), self.arg::<T>(2)) };
        for (((to, c), a), b) in to.iter_mut().zip(c).zip(a).zip(b) {
            *to = if *c != 0 { *a } else { *b };
        }
    }
}

/// Runs one step.
///
/// # Safety
/// The chunk's addresses hold `len` values of the step's classes; the result overlaps no operand.
pub unsafe fn exec(step: &Prepared, chunk: Chunk) {
    // SAFETY: the caller's, in every arm; `compile` has checked that the arm's types are those of the operands.
    unsafe {
        if step.task == Task::Op(ScalarOp::Cast) {
            return cast(step, chunk);
        }
        match step.class {
            Class::F32 => f32_step(step.task, chunk),
            Class::F64 => f64_step(step.task, chunk),
            Class::I64 => i64_step(step.task, chunk),
            Class::I32 => i32_step(step.task, chunk),
            Class::I16 => i16_step(step.task, chunk),
            Class::I8 => i8_step(step.task, chunk),
            Class::U64 => u64_step(step.task, chunk),
            Class::U32 => u32_step(step.task, chunk),
            Class::U16 => u16_step(step.task, chunk),
            Class::U8 => u8_step(step.task, chunk),
            Class::Bool => bool_step(step.task, chunk),
        }
    }
}

#[cold]
fn missing(task: Task) -> ! {
    unreachable!("compile lets no such step through: {task:?}")
}

#[inline(always)]
fn sign<T: Arith>(x: T) -> T {
    if x > T::ZERO {
        T::ONE
    } else if x < T::ZERO {
        T::ZERO.sub(T::ONE)
    } else {
        x
    }
}

/// Defines the steps of a float class; the functions named in the brackets are those that differ by type.
macro_rules! float_step {
    ($name:ident, $t:ident, [$exp:expr, $ln:expr, $tanh:expr, $erf:expr, $sigmoid:expr, $softplus:expr]) => {
        unsafe fn $name(task: Task, chunk: Chunk) {
            vectorize(
                #[inline(always)]
                || {
                    use ScalarOp::*;
                    // SAFETY: that of `exec`.
                    unsafe {
                        match task {
                            Task::Square => chunk.map(|x: $t| x * x),
                            Task::Gate(gate) => {
                                let [scale, shift, low, high] = [gate.scale, gate.shift, gate.low, gate.high]
                                    .map(|bits| <$t>::from(f32::from_bits(bits)));
                                // The bounds are numbers, so that NaN passes both.
                                let raised = |x: $t| if x <= low { low } else { x };
                                let lowered = |x: $t| if x >= high { high } else { x };
                                match gate.first {
                                    Side::Low => chunk.map(|x: $t| x * lowered(raised(x * scale + shift))),
                                    Side::High => chunk.map(|x: $t| x * raised(lowered(x * scale + shift))),
                                }
                            }
                            Task::Op(op) => match op {
                                Identity => chunk.map(|x: $t| x),
                                Neg => chunk.map(|x: $t| -x),
                                Abs => chunk.map(|x: $t| x.abs()),
                                Sign => chunk.map(|x: $t| sign(x)),
                                Floor => chunk.map(|x: $t| x.floor()),
                                Ceil => chunk.map(|x: $t| x.ceil()),
                                Round => chunk.map(|x: $t| x.round_ties_even()),
                                Sqrt => chunk.map(|x: $t| x.sqrt()),
                                Rsqrt => chunk.map(|x: $t| 1.0 / x.sqrt()),
                                Reciprocal => chunk.map(|x: $t| 1.0 / x),
                                Exp => chunk.map($exp),
                                Log => chunk.map($ln),
                                Sin => chunk.map(|x: $t| x.sin()),
                                Cos => chunk.map(|x: $t| x.cos()),
                                Tan => chunk.map(|x: $t| x.tan()),
                                Asin => chunk.map(|x: $t| x.asin()),
                                Acos => chunk.map(|x: $t| x.acos()),
                                Atan => chunk.map(|x: $t| x.atan()),
                                Sinh => chunk.map(|x: $t| x.sinh()),
                                Cosh => chunk.map(|x: $t| x.cosh()),
                                Tanh => chunk.map($tanh),
                                Asinh => chunk.map(|x: $t| f64::from(x).asinh() as $t),
                                Acosh => chunk.map(|x: $t| math::acosh(f64::from(x)) as $t),
                                Atanh => chunk.map(|x: $t| f64::from(x).atanh() as $t),
                                Erf => chunk.map($erf),
                                Sigmoid => chunk.map($sigmoid),
                                Softplus => chunk.map($softplus),
                                IsNan => chunk.map(|x: $t| u8::from(x.is_nan())),
                                IsPosInf => chunk.map(|x: $t| u8::from(x == $t::INFINITY)),
                                IsNegInf => chunk.map(|x: $t| u8::from(x == $t::NEG_INFINITY)),
                                Add => chunk.zip(|a: $t, b: $t| a + b),
                                Sub => chunk.zip(|a: $t, b: $t| a - b),
                                Mul => chunk.zip(|a: $t, b: $t| a * b),
                                Div => chunk.zip(|a: $t, b: $t| a / b),
                                Mod => chunk.zip(|a: $t, b: $t| {
                                    let rest = a % b;
                                    let moved = if (rest < 0.0) != (b < 0.0) { rest + b } else { rest };
                                    if rest == 0.0 { rest.copysign(b) } else { moved }
                                }),
                                Fmod => chunk.zip(|a: $t, b: $t| a % b),
                                Pow => chunk.zip(|a: $t, b: $t| a.powf(b)),
                                Min => chunk.zip(|a: $t, b: $t| Arith::smaller(a, b)),
                                Max => chunk.zip(|a: $t, b: $t| Arith::larger(a, b)),
                                Equal => chunk.zip(|a: $t, b: $t| u8::from(a == b)),
                                NotEqual => chunk.zip(|a: $t, b: $t| u8::from(a != b)),
                                Less => chunk.zip(|a: $t, b: $t| u8::from(a < b)),
                                LessEqual => chunk.zip(|a: $t, b: $t| u8::from(a <= b)),
                                Greater => chunk.zip(|a: $t, b: $t| u8::from(a > b)),
                                GreaterEqual => chunk.zip(|a: $t, b: $t| u8::from(a >= b)),
                                Select => chunk.select::<$t>(),
                                Cast | Not | And | Or | Xor | BitNot | BitAnd | BitOr | BitXor | ShiftLeft
                                | ShiftRight => missing(task),
                            },
                            Task::IntPow | Task::UnsignedPow => missing(task),
                        }
                    }
                },
            )
        }
    };
}

float_step!(f32_step, f32, [math::exp, math::ln, math::tanh, math::erf, math::sigmoid, math::softplus]);
float_step!(f64_step, f64, [f64::exp, f64::ln, f64::tanh, math::erf_f64, math::sigmoid_f64, math::softplus_f64]);

/// Exponentiation by squaring; a negative exponent gives the reciprocal truncated toward zero, 0 for a zero base.
#[inline(always)]
fn int_pow<T: Arith>(base: T, exponent: i64) -> T {
    let minus_one = T::ZERO.sub(T::ONE);
    let is_unit = base == T::ONE || (base == minus_one && minus_one < T::ZERO);
    if exponent < 0 && !is_unit {
        return T::ZERO;
    }
    unsigned_pow(base, exponent.unsigned_abs())
}

#[inline(always)]
fn unsigned_pow<T: Arith>(base: T, exponent: u64) -> T {
    let mut left = exponent;
    let (mut result, mut power) = (T::ONE, base);
    while left > 0 {
        if left & 1 == 1 {
            result = result.mul(power);
        }
        power = power.mul(power);
        left >>= 1;
    }
    result
}

/// Defines the steps of an integer class.
macro_rules! int_step {
    ($($name:ident $t:ident $neg:expr),*) => {$(
        unsafe fn $name(task: Task, chunk: Chunk) {
            vectorize(
                #[inline(always)]
                || {
                    use ScalarOp::*;
                    // SAFETY: that of `exec`.
                    unsafe {
                        match task {
                            Task::Square => chunk.map(|x: $t| x.wrapping_mul(x)),
                            Task::Gate(_) => missing(task),
                            Task::IntPow => chunk.zip(|a: $t, b: i64| int_pow(a, b)),
                            Task::UnsignedPow => chunk.zip(|a: $t, b: u64| unsigned_pow(a, b)),
                            Task::Op(op) => match op {
                                Identity | Floor | Ceil | Round => chunk.map(|x: $t| x),
                                Neg => chunk.map(|x: $t| x.wrapping_neg()),
                                Abs => chunk.map(|x: $t| Arith::abs(x)),
                                Sign => chunk.map(|x: $t| sign(x)),
                                BitNot => chunk.map(|x: $t| !x),
                                Add => chunk.zip(|a: $t, b: $t| a.wrapping_add(b)),
                                Sub => chunk.zip(|a: $t, b: $t| a.wrapping_sub(b)),
                                Mul => chunk.zip(|a: $t, b: $t| a.wrapping_mul(b)),
                                Div => chunk.zip(|a: $t, b: $t| if b == 0 { 0 } else { a.wrapping_div(b) }),
                                Mod => chunk.zip(|a: $t, b: $t| {
                                    let rest = if b == 0 { 0 } else { a.wrapping_rem(b) };
                                    if rest != 0 && $neg(rest) != $neg(b) { rest.wrapping_add(b) } else { rest }
                                }),
                                Fmod => chunk.zip(|a: $t, b: $t| if b == 0 { 0 } else { a.wrapping_rem(b) }),
                                Min => chunk.zip(|a: $t, b: $t| Ord::min(a, b)),
                                Max => chunk.zip(|a: $t, b: $t| Ord::max(a, b)),
                                BitAnd => chunk.zip(|a: $t, b: $t| a & b),
                                BitOr => chunk.zip(|a: $t, b: $t| a | b),
                                BitXor => chunk.zip(|a: $t, b: $t| a ^ b),
                                ShiftLeft => chunk.zip(|a: $t, b: $t| {
                                    if (0..$t::BITS as i64).contains(&(b as i64)) { a << b } else { 0 }
                                }),
                                ShiftRight => chunk.zip(|a: $t, b: $t| {
                                    let fill = if $neg(a) { !0 } else { 0 };
                                    if (0..$t::BITS as i64).contains(&(b as i64)) { a >> b } else { fill }
                                }),
                                Equal => chunk.zip(|a: $t, b: $t| u8::from(a == b)),
                                NotEqual => chunk.zip(|a: $t, b: $t| u8::from(a != b)),
                                Less => chunk.zip(|a: $t, b: $t| u8::from(a < b)),
                                LessEqual => chunk.zip(|a: $t, b: $t| u8::from(a <= b)),
                                Greater => chunk.zip(|a: $t, b: $t| u8::from(a > b)),
                                GreaterEqual => chunk.zip(|a: $t, b: $t| u8::from(a >= b)),
                                Select => chunk.select::<$t>(),
                                IsNan | IsPosInf | IsNegInf => chunk.map(|_: $t| 0u8),
                                Cast | Sqrt | Rsqrt | Reciprocal | Exp | Log | Sin | Cos | Tan | Asin | Acos | Atan
                                | Sinh | Cosh | Tanh | Asinh | Acosh | Atanh | Erf | Sigmoid | Softplus | Not | Pow | And | Or | Xor => missing(task),
                            },
                        }
                    }
                },
            )
        }
    )*};
}

int_step!(
    i64_step i64 i64::is_negative, i32_step i32 i32::is_negative, i16_step i16 i16::is_negative,
    i8_step i8 i8::is_negative, u64_step u64 never, u32_step u32 never, u16_step u16 never, u8_step u8 never
);

#[inline(always)]
fn never<T>(_: T) -> bool {
    false
}

unsafe fn bool_step(task: Task, chunk: Chunk) {
    vectorize(
        #[inline(always)]
        || {
            use ScalarOp::*;
            // SAFETY: that of `exec`.
            unsafe {
                match task {
                    Task::Op(op) => match op {
                        Identity => chunk.map(|x: u8| x),
                        Not => chunk.map(|x: u8| x ^ 1),
                        And | Min => chunk.zip(|a: u8, b: u8| a & b),
                        Or | Max => chunk.zip(|a: u8, b: u8| a | b),
                        Xor | NotEqual => chunk.zip(|a: u8, b: u8| a ^ b),
                        Equal => chunk.zip(|a: u8, b: u8| a ^ b ^ 1),
                        Less => chunk.zip(|a: u8, b: u8| u8::from(a < b)),
                        LessEqual => chunk.zip(|a: u8, b: u8| u8::from(a <= b)),
                        Greater => chunk.zip(|a: u8, b: u8| u8::from(a > b)),
                        GreaterEqual => chunk.zip(|a: u8, b: u8| u8::from(a >= b)),
                        Select => chunk.select::<u8>(),
                        Cast | Neg | Abs | Sign | Floor | Ceil | Round | Sqrt | Rsqrt | Reciprocal | Exp | Log
                        | Sin | Cos | Tan | Asin | Acos | Atan | Sinh | Cosh | Tanh | Asinh | Acosh | Atanh | Erf
                        | Sigmoid | Softplus | BitNot | IsNan | IsPosInf | IsNegInf | Add | Sub | Mul | Div | Mod
                        | Fmod | Pow | BitAnd | BitOr | BitXor | ShiftLeft | ShiftRight => missing(task),
                    },
                    Task::Square | Task::IntPow | Task::UnsignedPow | Task::Gate(_) => missing(task),
                }
            }
        },
    )
}

/// Defines the casts of a class to all others by `as`: floats to integers truncate and saturate, NaN gives 0;
/// integers wrap.
macro_rules! casts {
    ($($name:ident $t:ident),*) => {$(
        unsafe fn $name(to: Class, chunk: Chunk) {
            vectorize(
                #[inline(always)]
                || {
                    // SAFETY: that of `exec`.
                    unsafe {
                        match to {
                            Class::F64 => chunk.map(|x: $t| x as f64),
                            Class::F32 => chunk.map(|x: $t| x as f32),
                            Class::I64 => chunk.map(|x: $t| x as i64),
                            Class::I32 => chunk.map(|x: $t| x as i32),
                            Class::I16 => chunk.map(|x: $t| x as i16),
                            Class::I8 => chunk.map(|x: $t| x as i8),
                            Class::U64 => chunk.map(|x: $t| x as u64),
                            Class::U32 => chunk.map(|x: $t| x as u32),
                            Class::U16 => chunk.map(|x: $t| x as u16),
                            Class::U8 => chunk.map(|x: $t| x as u8),
                            Class::Bool => chunk.map(|x: $t| u8::from(x != 0 as $t)),
                        }
                    }
                },
            )
        }
    )*};
}

casts!(
    cast_f64 f64, cast_f32 f32, cast_i64 i64, cast_i32 i32, cast_i16 i16, cast_i8 i8, cast_u64 u64, cast_u32 u32,
    cast_u16 u16, cast_u8 u8
);

unsafe fn cast(step: &Prepared, chunk: Chunk) {
    let to = Class::of(step.dtype);
    let narrow = to == Class::F32 && step.dtype != DType::F32;
    // SAFETY: that of `exec`.
    unsafe {
        match step.class {
            // Rounded twice, a double or a wide integer could end up one off.
            Class::F64 if narrow => chunk.map(|x: f64| to_odd(x)),
            Class::I64 if narrow => chunk.map(|x: i64| to_odd(sticky(x.unsigned_abs()).copysign(x as f64))),
            Class::U64 if narrow => chunk.map(|x: u64| to_odd(sticky(x))),
            Class::I32 if narrow => chunk.map(|x: i32| to_odd(f64::from(x))),
            Class::U32 if narrow => chunk.map(|x: u32| to_odd(f64::from(x))),
            Class::F64 => cast_f64(to, chunk),
            Class::F32 => cast_f32(to, chunk),
            Class::I64 => cast_i64(to, chunk),
            Class::I32 => cast_i32(to, chunk),
            Class::I16 => cast_i16(to, chunk),
            Class::I8 => cast_i8(to, chunk),
            Class::U64 => cast_u64(to, chunk),
            Class::U32 => cast_u32(to, chunk),
            Class::U16 => cast_u16(to, chunk),
            Class::U8 | Class::Bool => cast_u8(to, chunk),
        }
        if matches!(step.class, Class::F32 | Class::F64) && matches!(to, Class::I8 | Class::U8) {
            super::storage::saturate(step.dtype, chunk.to, chunk.len);
        } else if !Class::is_stored_as(step.dtype) {
            super::storage::round(step.dtype, chunk.to, chunk.len);
        }
    }
}

/// A large integer as a double whose last bit tells of bits cut off.
fn sticky(x: u64) -> f64 {
    if x >> 53 == 0 { x as f64 } else { ((x >> 11 << 11) | (u64::from(x & 0x7ff != 0) << 11)) as f64 }
}

/// `value` rounded to odd, so that a second rounding to a narrower type is right.
/// S. Boldo, G. Melquiond, "Emulation of a FMA and correctly rounded sums: proved algorithms using rounding to odd".
fn to_odd(value: f64) -> f32 {
    let nearest = value as f32;
    if !nearest.is_finite() || f64::from(nearest) == value {
        // A finite value that overflows here overflows every narrower type with an f32 exponent or less.
        return nearest;
    }
    let bits = nearest.to_bits();
    let toward_zero = if f64::from(nearest).abs() > value.abs() { bits - 1 } else { bits };
    f32::from_bits(toward_zero | 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integer_powers_wrap_and_truncate() {
        assert_eq!(int_pow(3i32, 4), 81);
        assert_eq!(int_pow(2i8, 8), 0);
        assert_eq!(int_pow(-1i32, -3), -1);
        assert_eq!(int_pow(2i32, -1), 0);
        assert_eq!(int_pow(255u8, -1), 0);
    }

    #[test]
    fn signs() {
        assert_eq!(sign(-3i8), -1);
        assert!(sign(f32::NAN).is_nan());
        assert_eq!(sign(7u8), 1);
    }
}
