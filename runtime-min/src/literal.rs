//! Plan tables as Rust source: what the compiler prints into an emitted crate's `src/plan.rs`.
//!
//! [`Literal::literal`] writes a constant expression of the value. Types are written by their bare names, so the text
//! goes below `use lapidary_runtime::{DType, op::*, table::*};`; enum variants carry their type's name. Strings and
//! floats are written so that they read back as the same bits.

use core::fmt::Write;

use crate::dtype::DType;
use crate::op::*;
use crate::table::*;

/// A value that can be written as a Rust constant expression.
pub trait Literal {
    /// Appends the expression.
    fn literal(&self, out: &mut String);

    /// The expression.
    fn to_literal(&self) -> String {
        let mut out = String::new();
        self.literal(&mut out);
        out
    }
}

macro_rules! debug_literals {
    ($($ty:ty),*) => {
        $(impl Literal for $ty {
            fn literal(&self, out: &mut String) {
                // Writing to a String cannot fail.
                let _ = write!(out, "{self:?}");
            }
        })*
    };
}

debug_literals!(bool, u8, u16, u32, u64, i64, str);

impl Literal for f32 {
    fn literal(&self, out: &mut String) {
        let _ = if self.is_finite() {
            write!(out, "{self:?}")
        } else {
            write!(out, "f32::from_bits({:#x})", self.to_bits())
        };
    }
}

impl<T: Literal> Literal for [T] {
    fn literal(&self, out: &mut String) {
        out.push('[');
        for (k, item) in self.iter().enumerate() {
            if k > 0 {
                out.push_str(", ");
            }
            item.literal(out);
        }
        out.push(']');
    }
}

impl<T: Literal, const N: usize> Literal for [T; N] {
    fn literal(&self, out: &mut String) {
        self.as_slice().literal(out);
    }
}

impl<T: Literal + ?Sized> Literal for &T {
    fn literal(&self, out: &mut String) {
        // A string literal is a reference already.
        let start = out.len();
        (**self).literal(out);
        if !out[start..].starts_with('"') {
            out.insert(start, '&');
        }
    }
}

impl<T: Literal> Literal for Option<T> {
    fn literal(&self, out: &mut String) {
        match self {
            None => out.push_str("None"),
            Some(value) => {
                out.push_str("Some(");
                value.literal(out);
                out.push(')');
            }
        }
    }
}

impl Literal for Scalar {
    fn literal(&self, out: &mut String) {
        if !self.dtype.is_float() {
            let _ = write!(out, "Scalar::int(DType::{:?}, {})", self.dtype, self.as_i64());
        } else if self.as_f64().is_finite() {
            let _ = write!(out, "Scalar::float(DType::{:?}, {:?})", self.dtype, self.as_f64());
        } else {
            let bits = self.as_f64().to_bits();
            let _ = write!(out, "Scalar::float(DType::{:?}, f64::from_bits({bits:#x}))", self.dtype);
        }
    }
}

macro_rules! structs {
    ($($name:ident $(<$life:lifetime>)? { $($field:ident),* $(,)? })*) => {
        $(impl $(<$life>)? Literal for $name $(<$life>)? {
            fn literal(&self, out: &mut String) {
                // Naming every field makes a new one fail to compile here.
                let $name { $($field),* } = self;
                out.push_str(concat!(stringify!($name), " { "));
                $(
                    out.push_str(concat!(stringify!($field), ": "));
                    $field.literal(out);
                    out.push_str(", ");
                )*
                out.push('}');
            }
        })*
    };
}

macro_rules! unit_enums {
    ($($name:ident),* $(,)?) => {
        $(impl Literal for $name {
            fn literal(&self, out: &mut String) {
                let _ = write!(out, concat!(stringify!($name), "::{:?}"), self);
            }
        })*
    };
}

macro_rules! enums {
    ($($name:ident $(<$life:lifetime>)? {
        $($tuple:ident($($item:ident),*)),* ; $($record:ident { $($field:ident),* $(,)? }),* ; $($unit:ident),*
    })*) => {
        $(impl $(<$life>)? Literal for $name $(<$life>)? {
            fn literal(&self, out: &mut String) {
                match self {
                    $($name::$tuple($($item),*) => {
                        out.push_str(concat!(stringify!($name), "::", stringify!($tuple), "("));
                        $($item.literal(out); out.push_str(", ");)*
                        out.push(')');
                    })*
                    $($name::$record { $($field),* } => {
                        out.push_str(concat!(stringify!($name), "::", stringify!($record), " { "));
                        $(
                            out.push_str(concat!(stringify!($field), ": "));
                            $field.literal(out);
                            out.push_str(", ");
                        )*
                        out.push('}');
                    })*
                    $($name::$unit => out.push_str(concat!(stringify!($name), "::", stringify!($unit))),)*
                }
            }
        })*
    };
}

unit_enums!(
    DType,
    ScalarOp,
    Math,
    ReduceKind,
    RegionKind,
    NormKind,
    Unseen,
    PadMode,
    ScatterMode,
    NearestMode,
    CoordinateMode,
    Direction,
    ActivationKind,
    Target,
    ConstraintKind,
    ArchKind,
);

structs! {
    Instr { op, dtype, args }
    Window { rank, size, stride, dilation, pad_lo, pad_hi }
    Conv { window, groups, math }
    ConvTranspose { window, groups }
    MatMul { transpose_a, transpose_b, math }
    Pool { kind, window, index_order }
    Reduce { kind, axes }
    ArgReduce { largest, axis, select_last }
    Softmax { axis, log }
    Attention { scale, causal, unseen, math }
    Norm { kind, axis, epsilon }
    GroupNorm { groups, epsilon }
    Transpose { rank, perm }
    Resize { mode, coordinates, antialias, exclude_outside, cubic_coeff_a, extrapolation_value, scales }
    RegionPool { kind, bins, samples, half_pixel, scale }
    Activation { kind, alpha, beta }
    Recurrent { cell, direction, hidden, clip, activations, input_forget }
    Symbol<'a> { name, source }
    Profile<'a> { ranges, arena_bytes, offsets }
    Range { min, opt, max }
    Formula<'a> { code, text }
    Constraint<'a> { segment, counts, kind, left, right, why }
    Port<'a> { name, tensor }
    Tensor<'a> { dtype, dims, place, at }
    Segment<'a> { steps }
    Step<'a> { action, inputs, outputs, label }
    Program<'a> { inputs, steps, outputs }
    Launch<'a> { kernel, grid, block, shared, params }
    Kernel<'a> { entry }
    Arch { sm, kind }
}

impl Literal for Axes {
    fn literal(&self, out: &mut String) {
        let _ = write!(out, "Axes({:#b})", self.0);
    }
}

enums! {
    Arg { Input(k), Step(k), Imm(value); ; }
    PoolKind { Lp(p); ; Max, Average, AverageCountPad }
    ResizeMode { Nearest(mode); ; Linear, Cubic }
    Cell { ; Gru { linear_before_reset }; Lstm, Rnn }
    Dim { Const(value), Slot(slot); ; }
    FormulaOp { Const(value), Symbol(k), Slot(k); ; Add, Mul, FloorDiv, Min, Max, Broadcast }
    Place { Weight(offset), Derived(offset), Arena(buffer); ; }
    Action<'a> { Cpu(op), Launch(launch); If { then_segment, else_segment, decide },
        Loop { body, most, begin, next }, Count { symbol }; }
    Source<'a> { ; Extent { input, axis }, Count { bound }; }
    Param { Input(k, offset), Output(k, offset), I32(dim), I64(dim), F32(value), Handle(k); ; Counters }
    CpuOp<'a> {
        Pointwise(program), ConvTranspose(spec), Pool(spec), Reduce(spec), ArgReduce(spec), Softmax(spec),
        Attention(spec), Transpose(spec), Resize(spec), RegionPool(spec), Recurrent(spec),
        Extents(values);
        MatMul { spec, epilogue }, Conv { spec, epilogue }, Norm { spec, epilogue }, GroupNorm { spec, epilogue }, Slice { starts, steps }, Concat { axis },
        Pad { mode, lo }, Gather { axis }, GatherElements { axis }, GatherNd { batch_dims },
        ScatterElements { axis, mode }, ScatterNd { mode }, CumSum { axis, exclusive, reverse },
        TopK { axis, largest };
        Expand, Range, Suppress, Copy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_read_as_source() {
        let instr = Instr::binary(ScalarOp::Add, DType::F32, Arg::Input(0), Arg::Imm(Scalar::float(DType::F32, 0.5)));
        let args = "[Arg::Input(0, ), Arg::Imm(Scalar::float(DType::F32, 0.5), ), Arg::Input(0, )]";
        assert_eq!(instr.to_literal(), format!("Instr {{ op: ScalarOp::Add, dtype: DType::F32, args: {args}, }}"));
        let port = Port { name: "a \"b\"", tensor: 3 };
        assert_eq!(port.to_literal(), r#"Port { name: "a \"b\"", tensor: 3, }"#);
        assert_eq!([1i64, 2].as_slice().to_literal(), "&[1, 2]".trim_start_matches('&'));
        assert_eq!(f32::INFINITY.to_literal(), "f32::from_bits(0x7f800000)");
    }
}
