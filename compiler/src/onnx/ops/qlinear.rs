//! Products of quantized tensors (ONNX QLinearConv, QLinearMatMul, ConvInteger, MatMulInteger; `com.microsoft` QGemm of
//! ONNX Runtime's ContribOperators.md).
//!
//! Sums of products of differences with the zero points are exact in `i32`: `sum (a - za)(b - zb)` is the product of
//! the bytes less `za` times the sums of `b - zb` less `zb` times the sums of `a`, so that the product itself takes
//! bytes. The result is `saturate(round(sum * factor) + zero point)` with a factor in `f32`, rounded half to even.

use lapidary_runtime::DType;
use lapidary_runtime::op::{Arg, MatMul, Math, ReduceKind, ScalarOp};

use super::conv::convolve;
use super::entry::{contrib, op};
use super::matmul::product;
use super::{Cx, Fault, Imported, OpDef, one};
use crate::ir::builder::{Built, round_scalar};
use crate::ir::{Builder, ValueId};

pub const DEFS: &[OpDef] = &[
    op("ConvInteger", 10, (2, 4), conv_integer),
    op("MatMulInteger", 10, (2, 4), matmul_integer),
    op("QLinearConv", 10, (8, 9), qlinear_conv),
    op("QLinearMatMul", 10, (8, 8), qlinear_matmul),
    contrib("QGemm", (6, 9), qgemm),
];

fn conv_integer(cx: &mut Cx<'_, '_>) -> Imported {
    let (x, w) = (bytes(cx, 0)?, bytes(cx, 1)?);
    let (zero_x, zero_w) = (cx.optional(2), cx.optional(3));
    one(conv_of_differences(cx, x, w, zero_x, zero_w)?)
}

fn matmul_integer(cx: &mut Cx<'_, '_>) -> Imported {
    let (a, b) = (bytes(cx, 0)?, bytes(cx, 1)?);
    let zero_a = cx.optional(2).map(|zero| per_row(&mut cx.b, zero, a)).transpose()?;
    let zero_b = cx.optional(3);
    one(product_of_differences(&mut cx.b, a, b, zero_a, zero_b, PLAIN)?)
}

fn qlinear_conv(cx: &mut Cx<'_, '_>) -> Imported {
    let (x, w) = (bytes(cx, 0)?, bytes(cx, 3)?);
    let (zero_x, zero_w) = (cx.optional(2), cx.optional(5));
    let mut sum = conv_of_differences(cx, x, w, zero_x, zero_w)?;
    let behind = cx.b.rank(x) - 1;
    if let Some(bias) = cx.optional(8) {
        let (given, channels) = (cx.b.dims(bias), cx.b.dims(sum)[1].clone());
        let [given] = given.as_slice() else {
            return Err(format!("the bias has rank {}, and 1 is needed", given.len()).into());
        };
        // A bias of one element would broadcast, which ONNX does not say.
        cx.b.require_equal(given, &channels)?;
        let bias = cx.b.append_axes(bias, behind)?;
        sum = cx.b.binary(ScalarOp::Add, sum, bias)?;
    }
    let (scale_x, scale_w, scale_y) = (cx.input(1)?, cx.input(4)?, cx.input(6)?);
    let scale_w = along_channels(&mut cx.b, scale_w, behind)?;
    let scale_x = cx.b.reshape(scale_x, Vec::new())?;
    let scale_y = cx.b.reshape(scale_y, Vec::new())?;
    let factor = factor(&mut cx.b, &[scale_x, scale_w], Some(scale_y), 1.0)?;
    let zero = cx.input(7)?;
    let zero = cx.b.reshape(zero, Vec::new())?;
    one(requantize(&mut cx.b, sum, factor, Some(zero), DType::U8)?)
}

fn qlinear_matmul(cx: &mut Cx<'_, '_>) -> Imported {
    let (a, b) = (bytes(cx, 0)?, bytes(cx, 3)?);
    let [scale_a, zero_a, scale_y, zero_y] = [1, 2, 6, 7].map(|k| {
        let given = cx.input(k)?;
        Ok::<_, Fault>(per_row(&mut cx.b, given, a)?)
    });
    let (scale_b, zero_b) = (cx.input(4)?, cx.input(5)?);
    let sum = product_of_differences(&mut cx.b, a, b, Some(zero_a?), Some(zero_b), PLAIN)?;
    let factor = factor(&mut cx.b, &[scale_a?, scale_b], Some(scale_y?), 1.0)?;
    one(requantize(&mut cx.b, sum, factor, Some(zero_y?), DType::U8)?)
}

/// alpha * A * B + C, where C has the scale of the product. Without a scale of the result it is `f32`.
fn qgemm(cx: &mut Cx<'_, '_>) -> Imported {
    let (a, b) = (bytes(cx, 0)?, bytes(cx, 3)?);
    let alpha = f64::from(cx.attrs.float_or("alpha", 1.0)?);
    let spec = MatMul {
        transpose_a: cx.attrs.flag_or("transA", 0)?,
        transpose_b: cx.attrs.flag_or("transB", 0)?,
        math: Math::Exact,
    };
    for (name, value) in [("A", a), ("B", b)] {
        if cx.b.rank(value) != 2 {
            return Err(format!("{name} has rank {}, and 2 is needed", cx.b.rank(value)).into());
        }
    }
    let (scale_a, scale_b) = (cx.input(1)?, cx.input(4)?);
    let scale_a = cx.b.reshape(scale_a, Vec::new())?;
    let zero_a = match cx.optional(2) {
        Some(zero) => Some(cx.b.reshape(zero, Vec::new())?),
        None => None,
    };
    let zero_b = match cx.optional(5) {
        Some(zero) if spec.transpose_b && cx.b.rank(zero) == 1 => Some(cx.b.append_axes(zero, 2)?),
        zero => zero,
    };
    let mut sum = product_of_differences(&mut cx.b, a, b, zero_a, zero_b, spec)?;
    if let Some(c) = cx.optional(6) {
        sum = cx.b.binary(ScalarOp::Add, sum, c)?;
    }
    let scale_y = match cx.optional(7) {
        Some(scale) => Some(cx.b.reshape(scale, Vec::new())?),
        None => None,
    };
    let factor = factor(&mut cx.b, &[scale_a, scale_b], scale_y, alpha)?;
    if scale_y.is_none() {
        return one(cx.b.program(&[sum, factor], |p| {
            let sum = p.cast(Arg::Input(0), DType::F32);
            p.push(ScalarOp::Mul, &[sum, Arg::Input(1)])
        })?);
    }
    let zero = match cx.optional(8) {
        Some(zero) => Some(cx.b.reshape(zero, Vec::new())?),
        None => None,
    };
    let dtype = cx.b.dtype(a);
    one(requantize(&mut cx.b, sum, factor, zero, dtype)?)
}

/// Neither operand transposed.
pub(super) const PLAIN: MatMul = MatMul { transpose_a: false, transpose_b: false, math: Math::Exact };

/// Operand `k`, which must be of 8-bit integers.
fn bytes(cx: &Cx<'_, '_>, k: usize) -> Result<ValueId, Fault> {
    let value = cx.input(k)?;
    match cx.b.dtype(value) {
        DType::I8 | DType::U8 => Ok(value),
        dtype => Err(Fault::unsupported(
            format!("quantized products of {dtype} are not supported"),
            "quantize to i8 or u8, or dequantize the operands in front of a product of floats",
        )),
    }
}

/// A vector that has an element for each row of `a`; anything else broadcasts as it is.
fn per_row(b: &mut Builder<'_>, value: ValueId, a: ValueId) -> Built {
    if b.rank(value) == 1 && b.rank(a) > 1 { b.append_axes(value, 2) } else { Ok(value) }
}

/// One element, or one for each channel, in front of `behind - 1` axes of extent 1.
fn along_channels(b: &mut Builder<'_>, value: ValueId, behind: usize) -> Built {
    let count = b.ty(value).count();
    if count.is(1) { b.reshape(value, Vec::new()) } else { b.append_axes(value, behind) }
}

/// Whether a value is certain to be this number everywhere.
fn is_all(b: &Builder<'_>, value: ValueId, number: f64) -> bool {
    b.constant_value(value).is_some_and(|tensor| tensor.to_f64s().iter().all(|&element| element == number))
}

/// A zero point that makes a difference.
pub(super) fn telling(b: &Builder<'_>, zero: Option<ValueId>) -> Option<ValueId> {
    zero.filter(|&zero| !is_all(b, zero, 0.0))
}

/// `sum (x - zero of x) (w - zero of w)` over each window, where padding counts as the zero of x.
fn conv_of_differences(
    cx: &mut Cx<'_, '_>,
    x: ValueId,
    w: ValueId,
    zero_x: Option<ValueId>,
    zero_w: Option<ValueId>,
) -> Result<ValueId, Fault> {
    let mut zero_x = telling(&cx.b, zero_x);
    if let Some(zero) = zero_x {
        zero_x = Some(cx.b.reshape(zero, Vec::new())?);
    }
    let (w, zero_w) = symmetric(&mut cx.b, w, zero_w)?;
    let rank = cx.b.rank(w);
    let dims = cx.b.dims(w);
    let zero_w = match zero_w {
        Some(zero) => Some(along_channels(&mut cx.b, zero, rank)?),
        None => None,
    };
    let mut sum = convolve(cx, x, w, zero_x)?;
    if let Some(zero_w) = zero_w {
        // The sums of x over each window.
        let ones = cx.b.scalar(round_scalar(DType::U8, 1.0));
        let ones = cx.b.expand(ones, dims)?;
        let windows = convolve(cx, x, ones, zero_x)?;
        let zero = one_axis_less(&mut cx.b, zero_w)?;
        sum = less_product(&mut cx.b, sum, zero, windows)?;
    }
    if let Some(zero_x) = zero_x {
        let centered = centered(&mut cx.b, w, zero_w)?;
        let axes: Vec<usize> = (1..rank).collect();
        let sums = cx.b.reduce(ReduceKind::Sum, centered, &axes)?;
        let sums = one_axis_less(&mut cx.b, sums)?;
        sum = less_product(&mut cx.b, sum, zero_x, sums)?;
    }
    Ok(sum)
}

/// `[m, 1, 1, ..]` as `[m, 1, ..]`, which broadcasts along the channels of a result.
fn one_axis_less(b: &mut Builder<'_>, value: ValueId) -> Built {
    let mut dims = b.dims(value);
    dims.pop();
    b.reshape(value, dims)
}

/// `w` and its zero point as `i8` and none, where the zero point is that of `u8` halves, 128, or says nothing.
pub(super) fn symmetric(
    b: &mut Builder<'_>,
    w: ValueId,
    zero: Option<ValueId>,
) -> Result<(ValueId, Option<ValueId>), String> {
    let Some(zero) = telling(b, zero) else { return Ok((w, None)) };
    if b.dtype(w) != DType::U8 || !is_all(b, zero, 128.0) {
        return Ok((w, Some(zero)));
    }
    let shifted = b.program(&[w], |p| {
        let w = p.cast(Arg::Input(0), DType::I32);
        let shifted = p.push(ScalarOp::Sub, &[w, p.imm(w, 128.0)]);
        p.cast(shifted, DType::I8)
    })?;
    Ok((shifted, None))
}

/// The matrix product of `a` less its zero point and `b` less its zero point, in `i32`.
fn product_of_differences(
    b: &mut Builder<'_>,
    left: ValueId,
    right: ValueId,
    zero_left: Option<ValueId>,
    zero_right: Option<ValueId>,
    spec: MatMul,
) -> Built {
    let zero_left = telling(b, zero_left);
    let (right, zero_right) = symmetric(b, right, zero_right)?;
    // The sums of a vector have no axis of their own in the result.
    if zero_right.is_some() || b.rank(left) < 2 || b.rank(right) < 2 {
        let left = centered(b, left, zero_left)?;
        let right = centered(b, right, zero_right)?;
        return product(b, left, right, spec);
    }
    let sum = product(b, left, right, spec)?;
    let Some(zero) = zero_left else { return Ok(sum) };
    let rank = b.rank(right);
    let wide = b.cast(right, DType::I32)?;
    let inner = if spec.transpose_b { rank - 1 } else { rank - 2 };
    let mut columns = b.reduce(ReduceKind::Sum, wide, &[inner])?;
    if spec.transpose_b {
        let mut dims = b.dims(columns);
        dims.swap(rank - 1, rank - 2);
        columns = b.reshape(columns, dims)?;
    }
    less_product(b, sum, zero, columns)
}

/// `sum - zero * sums`, in `i32`.
pub(super) fn less_product(b: &mut Builder<'_>, sum: ValueId, zero: ValueId, sums: ValueId) -> Built {
    b.program(&[sum, zero, sums], |p| {
        let zero = p.cast(Arg::Input(1), DType::I32);
        let product = p.push(ScalarOp::Mul, &[zero, Arg::Input(2)]);
        p.push(ScalarOp::Sub, &[Arg::Input(0), product])
    })
}

/// `x` less its zero point, in `i32`.
pub(super) fn centered(b: &mut Builder<'_>, x: ValueId, zero: Option<ValueId>) -> Built {
    let Some(zero) = zero else { return b.cast(x, DType::I32) };
    b.program(&[x, zero], |p| {
        let (x, zero) = (p.cast(Arg::Input(0), DType::I32), p.cast(Arg::Input(1), DType::I32));
        p.push(ScalarOp::Sub, &[x, zero])
    })
}

/// The product of the scales, times `alpha`, over the scale of the result, in `f32`.
fn factor(b: &mut Builder<'_>, scales: &[ValueId; 2], result: Option<ValueId>, alpha: f64) -> Built {
    let inputs: Vec<ValueId> = scales.iter().copied().chain(result).collect();
    b.program(&inputs, |p| {
        let [left, right] = [Arg::Input(0), Arg::Input(1)].map(|scale| p.cast(scale, DType::F32));
        let mut factor = p.push(ScalarOp::Mul, &[left, right]);
        if alpha != 1.0 {
            factor = p.push(ScalarOp::Mul, &[factor, p.imm(factor, alpha)]);
        }
        if inputs.len() == 3 {
            let result = p.cast(Arg::Input(2), DType::F32);
            factor = p.push(ScalarOp::Div, &[factor, result]);
        }
        factor
    })
}

/// `saturate(round(sum * factor) + zero)` in the zero point's type, or in `dtype` where there is none.
fn requantize(b: &mut Builder<'_>, sum: ValueId, factor: ValueId, zero: Option<ValueId>, dtype: DType) -> Built {
    let dtype = zero.map_or(dtype, |zero| b.dtype(zero));
    let inputs: Vec<ValueId> = [Some(sum), Some(factor), zero].into_iter().flatten().collect();
    b.program(&inputs, |p| {
        let sum = p.cast(Arg::Input(0), DType::F32);
        let scaled = p.push(ScalarOp::Mul, &[sum, Arg::Input(1)]);
        let mut result = p.push(ScalarOp::Round, &[scaled]);
        if inputs.len() == 3 {
            let zero = p.cast(Arg::Input(2), DType::F32);
            result = p.push(ScalarOp::Add, &[result, zero]);
        }
        p.cast(result, dtype)
    })
}
