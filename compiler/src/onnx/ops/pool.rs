//! Pooling (ONNX MaxPool, AveragePool, LpPool and their global forms).
//!
//! The result's extents are formulas given to the operation. With `ceil_mode` a last window may reach over the padding
//! behind the axis, but none starts there: `ceil((d + lo + min(0, hi - k + s)) / s)` windows. A padding before an axis
//! that depends on its extent is a node of its own.

use lapidary_runtime::DType;
use lapidary_runtime::op::{Arg, PadMode, Pool, PoolKind, ReduceKind, Scalar, ScalarOp};

use super::entry::{op, unary};
use super::window::{Frame, Padding, behind_channels};
use super::{Cx, Fault, Imported, OpDef, one};
use crate::ir::builder::{Built, round_scalar};
use crate::ir::{Builder, Expr, Op, ValueId};

pub const DEFS: &[OpDef] = &[
    OpDef { outputs: (1, 2), ..op("MaxPool", 1, (1, 1), max_pool) },
    unary("AveragePool", 7, average_pool),
    unary("LpPool", 2, lp_pool),
    unary("GlobalMaxPool", 1, |cx| global(cx, ReduceKind::Max)),
    unary("GlobalAveragePool", 1, |cx| global(cx, ReduceKind::Mean)),
    unary("GlobalLpPool", 2, global_lp_pool),
];

/// How the number of windows is rounded.
#[derive(Clone, Copy)]
enum Rounding {
    Down,
    Up,
}

fn rounding(cx: &Cx<'_, '_>) -> Result<Rounding, Fault> {
    Ok(if cx.attrs.flag_or("ceil_mode", 0)? { Rounding::Up } else { Rounding::Down })
}

fn max_pool(cx: &mut Cx<'_, '_>) -> Imported {
    let order = cx.attrs.int_or("storage_order", 0)?;
    let Some(index_order) = u8::try_from(order).ok().filter(|&order| order <= 1) else {
        return Err(cx.attrs.bad_value("storage_order", format!("is {order}"), "it must be 0 or 1").into());
    };
    let x = cx.input(0)?;
    let Placed { frame, pads, extents } = place(cx, x)?;
    if let Some(window) = frame.window(&pads)? {
        let spec = Pool { kind: PoolKind::Max, window, index_order };
        let wanted = if cx.wants(1) { 2 } else { 1 };
        return Ok(cx.b.node_with(Op::Pool(spec, extents), &[Some(x)], wanted)?);
    }
    if cx.wants(1) {
        return Err(Fault::unsupported(
            "indices of maxima with a padding that depends on the extents are not supported",
            "give pads instead of auto_pad, or pin the spatial dimensions with a profile",
        ));
    }
    let least = lowest(cx.b.dtype(x));
    let least = cx.b.scalar(least);
    let padded = padded(&mut cx.b, x, pads, Some(least))?;
    let spec = Pool { kind: PoolKind::Max, window: frame.without_pads(), index_order };
    one(cx.b.node(Op::Pool(spec, extents), &[padded])?)
}

/// What is never larger than another value.
fn lowest(dtype: DType) -> Scalar {
    if dtype.is_float() {
        Scalar::float(dtype, f64::NEG_INFINITY)
    } else if dtype.is_signed_int() {
        Scalar::int(dtype, -1 << (dtype.bits() - 1))
    } else {
        Scalar::int(dtype, 0)
    }
}

fn average_pool(cx: &mut Cx<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    one(average(cx, x)?)
}

/// The means of the windows that the node's attributes say, over `x`.
pub(super) fn average(cx: &mut Cx<'_, '_>, x: ValueId) -> Result<ValueId, Fault> {
    let counts_padding = cx.attrs.flag_or("count_include_pad", 0)?;
    let kind = if counts_padding { PoolKind::AverageCountPad } else { PoolKind::Average };
    let Placed { frame, pads, extents } = place(cx, x)?;
    if let Some(window) = frame.window(&pads)? {
        return Ok(cx.b.node(Op::Pool(Pool { kind, window, index_order: 0 }, extents), &[x])?);
    }
    let spec = Pool { kind: PoolKind::AverageCountPad, window: frame.without_pads(), index_order: 0 };
    let pooled = padded(&mut cx.b, x, pads.clone(), None)?;
    let mean = cx.b.node(Op::Pool(spec, extents.clone()), &[pooled])?;
    if counts_padding {
        return Ok(mean);
    }
    // The mean over a window and the share of it that is inside the operand have the same divisor.
    let mut dims = cx.b.dims(x);
    dims[..2].fill(Expr::constant(1));
    let ones = cx.b.scalar(round_scalar(cx.b.dtype(x), 1.0));
    let ones = cx.b.expand(ones, dims)?;
    let inside = padded(&mut cx.b, ones, pads, None)?;
    let share = cx.b.node(Op::Pool(spec, extents), &[inside])?;
    Ok(cx.b.binary(ScalarOp::Div, mean, share)?)
}

fn lp_pool(cx: &mut Cx<'_, '_>) -> Imported {
    let kind = PoolKind::Lp(exponent(cx)?);
    let x = cx.input(0)?;
    let Placed { frame, pads, extents } = place(cx, x)?;
    let (x, window) = match frame.window(&pads)? {
        Some(window) => (x, window),
        None => (padded(&mut cx.b, x, pads, None)?, frame.without_pads()),
    };
    one(cx.b.node(Op::Pool(Pool { kind, window, index_order: 0 }, extents), &[x])?)
}

/// The attribute `p` of a norm.
fn exponent(cx: &Cx<'_, '_>) -> Result<u32, Fault> {
    let p = cx.attrs.int_or("p", 2)?;
    match u32::try_from(p) {
        Ok(p) if p > 0 => Ok(p),
        Ok(_) | Err(_) => Err(cx.attrs.bad_value("p", format!("is {p}"), "it must be positive").into()),
    }
}

/// The windows of a pooling node.
struct Placed {
    frame: Frame,
    /// Before and behind each spatial axis.
    pads: Vec<(Expr, Expr)>,
    /// The result's spatial extents.
    extents: Vec<Expr>,
}

fn place(cx: &Cx<'_, '_>, x: ValueId) -> Result<Placed, Fault> {
    let frame = Frame::of_pool(cx, x)?;
    let rounding = rounding(cx)?;
    let dims = &cx.b.dims(x)[2..];
    let pads: Vec<(Expr, Expr)> = dims.iter().enumerate().map(|(axis, dim)| frame.pads(&cx.b, axis, dim)).collect();
    let extents = dims.iter().enumerate().map(|(axis, dim)| windows(&frame, rounding, axis, dim)).collect();
    Ok(Placed { frame, pads, extents })
}

/// How many windows there are along a spatial axis of extent `dim`. With `auto_pad`, rounding makes no difference.
fn windows(frame: &Frame, rounding: Rounding, axis: usize, dim: &Expr) -> Expr {
    let stride = Expr::constant(frame.stride(axis));
    let (lo, hi) = match frame.padding() {
        Padding::Same(_) => return dim.ceil_div(&stride),
        Padding::Explicit { lo, hi } => (i64::from(lo[axis]), i64::from(hi[axis])),
    };
    let reach = frame.reach(axis);
    match rounding {
        Rounding::Down => (dim.clone() + Expr::constant(lo + hi - reach)).floor_div(&stride) + Expr::constant(1),
        Rounding::Up => {
            let over = (hi - reach + frame.stride(axis)).min(0);
            (dim.clone() + Expr::constant(lo + over)).ceil_div(&stride)
        }
    }
}

/// `x` with its spatial axes padded with `value`, or with zeros.
fn padded(b: &mut Builder<'_>, x: ValueId, pads: Vec<(Expr, Expr)>, value: Option<ValueId>) -> Built {
    let (lo, hi) = behind_channels(pads);
    let inputs: Vec<ValueId> = [Some(x), value].into_iter().flatten().collect();
    b.node(Op::Pad { mode: PadMode::Constant, lo, hi }, &inputs)
}

fn global(cx: &mut Cx<'_, '_>, kind: ReduceKind) -> Imported {
    let x = cx.input(0)?;
    let axes = spatial_axes(cx, x)?;
    one(if axes.is_empty() { x } else { cx.b.reduce(kind, x, &axes)? })
}

/// (sum |x|^p)^(1/p)
fn global_lp_pool(cx: &mut Cx<'_, '_>) -> Imported {
    let p = exponent(cx)?;
    match p {
        1 => global(cx, ReduceKind::L1),
        2 => global(cx, ReduceKind::L2),
        p => {
            let x = cx.input(0)?;
            let axes = spatial_axes(cx, x)?;
            let dtype = cx.b.dtype(x);
            // Powers of halves leave their range soon.
            let wide = if dtype == DType::F64 { DType::F64 } else { DType::F32 };
            let powers = cx.b.program(&[x], |w| {
                let x = w.cast(Arg::Input(0), wide);
                let size = w.push(ScalarOp::Abs, &[x]);
                let p = w.imm(size, f64::from(p));
                w.push(ScalarOp::Pow, &[size, p])
            })?;
            let sum = cx.b.reduce(ReduceKind::Sum, powers, &axes)?;
            one(cx.b.program(&[sum], |w| {
                let root = w.imm(Arg::Input(0), 1.0 / f64::from(p));
                let root = w.push(ScalarOp::Pow, &[Arg::Input(0), root]);
                w.cast(root, dtype)
            })?)
        }
    }
}

fn spatial_axes(cx: &Cx<'_, '_>, x: ValueId) -> Result<Vec<usize>, Fault> {
    match cx.b.rank(x) {
        rank @ 2.. => Ok((2..rank).collect()),
        rank => Err(Fault::Invalid(format!("the operand has rank {rank}, and at least 2 is needed"))),
    }
}
