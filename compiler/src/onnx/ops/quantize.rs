//! QuantizeLinear, DequantizeLinear and DynamicQuantizeLinear (ONNX operators of these names) as pointwise programs.
//!
//! The scale is one number, one for each index of an axis, or one for each block of an axis; the two latter become
//! broadcasts. Division, rounding (half to even) and multiplication are in `f32` or `f64`; differences with the zero
//! point are exact in `i32`.

use lapidary_runtime::DType;
use lapidary_runtime::op::{Arg, ReduceKind, ScalarOp};

use super::convert::Conversion;
use super::entry::op;
use super::{Cx, Fault, Imported, OpDef, one};
use crate::ir::builder::{Built, ProgramWriter};
use crate::ir::{Builder, Expr, ValueId};
use crate::onnx::dtype_of;

pub const DEFS: &[OpDef] = &[
    op("QuantizeLinear", 10, (2, 3), quantize),
    op("DequantizeLinear", 10, (2, 3), dequantize),
    OpDef { outputs: (3, 3), ..op("DynamicQuantizeLinear", 11, (1, 1), dynamic_quantize) },
];

/// y = saturate(round(x / scale) + zero point)
fn quantize(cx: &mut Cx<'_, '_>) -> Imported {
    let asked = dtype_attribute(cx, "output_dtype")?;
    let precision = dtype_attribute(cx, "precision")?;
    let zero_type = cx.optional(2).map(|zero| cx.b.dtype(zero));
    let dtype = zero_type.or(asked).unwrap_or(DType::U8);
    let conversion = Conversion::of(cx, dtype)?;
    let math = if precision == Some(DType::F64) { DType::F64 } else { DType::F32 };
    apply(cx, |p, x, scale, zero| {
        let (x, scale) = (p.cast(x, math), p.cast(scale, math));
        let ratio = p.push(ScalarOp::Div, &[x, scale]);
        // A conversion to a small float rounds by itself.
        let rounded = if dtype.is_int() { p.push(ScalarOp::Round, &[ratio]) } else { ratio };
        let shifted = match zero {
            Some(zero) => {
                let zero = p.cast(zero, math);
                p.push(ScalarOp::Add, &[rounded, zero])
            }
            None => rounded,
        };
        conversion.push(p, shifted)
    })
}

/// y = (x - zero point) * scale
fn dequantize(cx: &mut Cx<'_, '_>) -> Imported {
    let x_type = cx.b.dtype(cx.input(0)?);
    let asked = dtype_attribute(cx, "output_dtype")?;
    let dtype = asked.unwrap_or(cx.b.dtype(cx.input(1)?));
    let math = if dtype == DType::F64 { DType::F64 } else { DType::F32 };
    // Differences of two integers of up to 16 bits are exact in 32.
    let exact = if x_type.is_int() { DType::I32 } else { math };
    apply(cx, |p, x, scale, zero| {
        let x = p.cast(x, exact);
        let difference = match zero {
            Some(zero) => {
                let zero = p.cast(zero, exact);
                p.push(ScalarOp::Sub, &[x, zero])
            }
            None => x,
        };
        let (difference, scale) = (p.cast(difference, math), p.cast(scale, math));
        let product = p.push(ScalarOp::Mul, &[difference, scale]);
        p.cast(product, dtype)
    })
}

fn dynamic_quantize(cx: &mut Cx<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    if cx.b.dtype(x) != DType::F32 {
        return Err(Fault::Invalid(format!("the operator takes f32, and is given {}", cx.b.dtype(x))));
    }
    let Dynamic { elements, scale, zero } = dynamically(&mut cx.b, x)?;
    Ok(vec![Some(elements), Some(scale), Some(zero)])
}

/// An `f32` tensor as bytes, with a scale and a zero point that suit it, both scalars.
#[derive(Clone, Copy)]
pub(super) struct Dynamic {
    pub elements: ValueId,
    pub scale: ValueId,
    pub zero: ValueId,
}

/// scale = (max(x, 0) - min(x, 0)) / 255, zero point = saturate(round(-min / scale)), in `u8`. All zeros have the scale
/// 1 / 255, which the standard leaves open.
pub(super) fn dynamically(b: &mut Builder<'_>, x: ValueId) -> Result<Dynamic, String> {
    let axes: Vec<usize> = (0..b.rank(x)).collect();
    let [low, high] = [ReduceKind::Min, ReduceKind::Max].map(|kind| {
        let extreme = if axes.is_empty() { x } else { b.reduce(kind, x, &axes)? };
        b.reshape(extreme, Vec::new())
    });
    let (low, high) = (low?, high?);
    let scale = b.program(&[low, high], |p| {
        let low = p.push(ScalarOp::Min, &[Arg::Input(0), p.imm(Arg::Input(0), 0.0)]);
        let high = p.push(ScalarOp::Max, &[Arg::Input(1), p.imm(Arg::Input(1), 0.0)]);
        let range = p.push(ScalarOp::Sub, &[high, low]);
        let empty = p.push(ScalarOp::Equal, &[range, p.imm(range, 0.0)]);
        let range = p.push(ScalarOp::Select, &[empty, p.imm(range, 1.0), range]);
        p.push(ScalarOp::Div, &[range, p.imm(range, 255.0)])
    })?;
    let zero = b.program(&[low, scale], |p| {
        let low = p.push(ScalarOp::Min, &[Arg::Input(0), p.imm(Arg::Input(0), 0.0)]);
        let ratio = p.push(ScalarOp::Div, &[low, Arg::Input(1)]);
        let zero = p.push(ScalarOp::Sub, &[p.imm(ratio, 0.0), ratio]);
        let zero = p.push(ScalarOp::Round, &[zero]);
        p.cast(zero, DType::U8)
    })?;
    Ok(Dynamic { elements: quantized(b, x, scale, Some(zero))?, scale, zero })
}

/// `saturate(round(x / scale) + zero)` of an `f32` tensor, in the zero point's type, or in `u8`; one scale for all.
pub(super) fn quantized(b: &mut Builder<'_>, x: ValueId, scale: ValueId, zero: Option<ValueId>) -> Built {
    let dtype = zero.map_or(DType::U8, |zero| b.dtype(zero));
    let inputs: Vec<ValueId> = [Some(x), Some(scale), zero].into_iter().flatten().collect();
    b.program(&inputs, |p| {
        let zero = if inputs.len() == 3 { Some(Arg::Input(2)) } else { None };
        quantize_step(p, Arg::Input(0), Arg::Input(1), zero, dtype)
    })
}

/// The steps of [`quantized`].
pub(super) fn quantize_step(p: &mut ProgramWriter, x: Arg, scale: Arg, zero: Option<Arg>, dtype: DType) -> Arg {
    let (x, scale) = (p.cast(x, DType::F32), p.cast(scale, DType::F32));
    let ratio = p.push(ScalarOp::Div, &[x, scale]);
    let mut result = p.push(ScalarOp::Round, &[ratio]);
    if let Some(zero) = zero {
        let zero = p.cast(zero, DType::F32);
        result = p.push(ScalarOp::Add, &[result, zero]);
    }
    p.cast(result, dtype)
}

/// The steps of `(x - zero) * scale`, in `f32`.
pub(super) fn dequantize_step(p: &mut ProgramWriter, x: Arg, scale: Arg, zero: Option<Arg>) -> Arg {
    let mut x = p.cast(x, DType::I32);
    if let Some(zero) = zero {
        let zero = p.cast(zero, DType::I32);
        x = p.push(ScalarOp::Sub, &[x, zero]);
    }
    let (x, scale) = (p.cast(x, DType::F32), p.cast(scale, DType::F32));
    p.push(ScalarOp::Mul, &[x, scale])
}

/// An element type that an attribute gives; `None` where it is absent or 0.
fn dtype_attribute(cx: &Cx<'_, '_>, name: &str) -> Result<Option<DType>, Fault> {
    match cx.attrs.int_or(name, 0)? {
        0 => Ok(None),
        number => Ok(Some(dtype_of(i32::try_from(number).unwrap_or(i32::MAX), cx.attrs.at())?)),
    }
}

/// How many elements share a scale.
enum Grain {
    Tensor,
    /// Those of one index of an axis.
    Axis(usize),
    /// This many along an axis.
    Block(usize, i64),
}

/// `f(x, scale, zero point)`, the latter two aligned with `x`.
fn apply(cx: &mut Cx<'_, '_>, f: impl FnOnce(&mut ProgramWriter, Arg, Arg, Option<Arg>) -> Arg) -> Imported {
    let (x, scale, zero) = (cx.input(0)?, cx.input(1)?, cx.optional(2));
    let dims = cx.b.dims(x);
    let grain = grain(cx, &dims, scale)?;
    let x = match grain {
        Grain::Block(axis, size) => blocked(&mut cx.b, x, axis, size)?,
        Grain::Tensor | Grain::Axis(_) => x,
    };
    let mut inputs = vec![x, aligned(&mut cx.b, scale, &dims, &grain)?];
    if let Some(zero) = zero {
        let (rank, expected) = (cx.b.rank(zero), cx.b.rank(scale));
        if rank != expected && !matches!(grain, Grain::Tensor) {
            return Err(Fault::Invalid(format!("the zero point has rank {rank}, and the scale has {expected}")));
        }
        inputs.push(aligned(&mut cx.b, zero, &dims, &grain)?);
    }
    let zero = zero.map(|_| Arg::Input(2));
    let result = cx.b.program(&inputs, |p| f(p, Arg::Input(0), Arg::Input(1), zero))?;
    one(cx.b.reshape(result, dims)?)
}

fn grain(cx: &Cx<'_, '_>, dims: &[Expr], scale: ValueId) -> Result<Grain, Fault> {
    let axis = cx.attrs.int_or("axis", 1)?;
    let size = cx.attrs.int_or("block_size", 0)?;
    let shape = cx.b.dims(scale);
    if size < 0 {
        return Err(Fault::Invalid(format!("block_size is {size}, and must not be negative")));
    }
    if size > 0 {
        if shape.len() != dims.len() {
            return Err(Fault::Invalid("blocked quantization takes a scale of the rank of its operand".to_owned()));
        }
        return Ok(Grain::Block(cx.axis(axis, dims.len())?, size));
    }
    match shape.as_slice() {
        [] => Ok(Grain::Tensor),
        [extent] if extent.is(1) => Ok(Grain::Tensor),
        [_] => Ok(Grain::Axis(cx.axis(axis, dims.len())?)),
        _ => Err(Fault::Invalid(format!("the scale has rank {}, and without block_size at most 1", shape.len()))),
    }
}

/// `x` with the axis as blocks and the elements of one; as it is where the last block is short.
fn blocked(b: &mut Builder<'_>, x: ValueId, axis: usize, size: i64) -> Built {
    let mut dims = b.dims(x);
    let Some(blocks) = dims[axis].exact_div(&Expr::constant(size)) else { return Ok(x) };
    dims.splice(axis..=axis, [blocks, Expr::constant(size)]);
    b.reshape(x, dims)
}

/// A scale or zero point in a shape that broadcasts to that of [`blocked`].
fn aligned(b: &mut Builder<'_>, value: ValueId, dims: &[Expr], grain: &Grain) -> Built {
    match *grain {
        Grain::Tensor => b.reshape(value, Vec::new()),
        Grain::Axis(axis) => b.append_axes(value, dims.len() - axis),
        Grain::Block(axis, size) => {
            let mut shape = b.dims(value);
            let blocks = shape[axis].clone();
            shape.insert(axis + 1, Expr::constant(1));
            let value = b.reshape(value, shape.clone())?;
            if dims[axis].exact_div(&Expr::constant(size)).is_some() {
                return Ok(value);
            }
            shape[axis + 1] = Expr::constant(size);
            let repeated = b.expand(value, shape.clone())?;
            shape.splice(axis..=axis + 1, [blocks * Expr::constant(size)]);
            let repeated = b.reshape(repeated, shape)?;
            b.slice_axis(repeated, axis, Expr::constant(0), dims[axis].clone())
        }
    }
}
