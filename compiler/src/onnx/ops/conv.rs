//! Convolutions (ONNX Conv, ConvTranspose).
//!
//! The bias is an addition behind the convolution, which fusion takes into its epilogue.

use lapidary_runtime::op::{Conv, ConvTranspose, Math, PadMode, ScalarOp};

use super::entry::op;
use super::window::{Frame, OddSide, Padding, amount, behind_channels};
use super::{Cx, Fault, Imported, OpDef, one};
use crate::ir::builder::Built;
use crate::ir::{Builder, Expr, Op, ValueId};

pub const DEFS: &[OpDef] = &[op("Conv", 1, (2, 3), conv), op("ConvTranspose", 1, (2, 3), conv_transpose)];

fn conv(cx: &mut Cx<'_, '_>) -> Imported {
    let (x, w) = (cx.input(0)?, cx.input(1)?);
    let y = convolve(cx, x, w, None)?;
    let bias = cx.optional(2);
    one(biased(&mut cx.b, y, bias)?)
}

/// The convolution of `x` and `w` that the node's attributes describe, padded with the scalar `fill`, or with zeros.
///
/// # Errors
/// The attributes do not fit the operands.
pub(super) fn convolve(cx: &mut Cx<'_, '_>, x: ValueId, w: ValueId, fill: Option<ValueId>) -> Result<ValueId, Fault> {
    let frame = Frame::of_weights(cx, x, w)?;
    let groups = groups(cx)?;
    let dims = cx.b.dims(x);
    let pads: Vec<(Expr, Expr)> = (0..frame.rank()).map(|axis| frame.pads(&cx.b, axis, &dims[axis + 2])).collect();
    let in_window = fill.is_none() || pads.iter().all(|(lo, hi)| lo.is(0) && hi.is(0));
    let (x, window) = match frame.window(&pads)?.filter(|_| in_window) {
        Some(window) => (x, window),
        None => {
            let (lo, hi) = behind_channels(pads);
            let operands: Vec<ValueId> = [Some(x), fill].into_iter().flatten().collect();
            (cx.b.node(Op::Pad { mode: PadMode::Constant, lo, hi }, &operands)?, frame.without_pads())
        }
    };
    Ok(cx.b.node(Op::Conv(Conv { window, groups, math: Math::Exact }, None), &[x, w])?)
}

fn groups(cx: &Cx<'_, '_>) -> Result<u32, Fault> {
    let groups = cx.attrs.int_or("group", 1)?;
    match u32::try_from(groups) {
        Ok(groups) if groups > 0 => Ok(groups),
        Ok(_) | Err(_) => Err(Fault::Invalid(format!("group is {groups}, and must be positive"))),
    }
}

/// `y` plus a bias for each of its channels.
fn biased(b: &mut Builder<'_>, y: ValueId, bias: Option<ValueId>) -> Built {
    let Some(bias) = bias else { return Ok(y) };
    if b.rank(bias) != 1 {
        return Err(format!("the bias has rank {}, and 1 is needed", b.rank(bias)));
    }
    let channels = b.dims(y)[1].clone();
    let given = b.dims(bias)[0].clone();
    // A bias of one element would broadcast, which ONNX does not say.
    b.require_equal(&given, &channels)?;
    let along_channels = b.append_axes(bias, b.rank(y) - 1)?;
    b.binary(ScalarOp::Add, y, along_channels)
}

fn conv_transpose(cx: &mut Cx<'_, '_>) -> Imported {
    let (x, w) = (cx.input(0)?, cx.input(1)?);
    let frame = Frame::of_weights(cx, x, w)?;
    let groups = groups(cx)?;
    let rank = frame.rank();
    let extra = output_padding(cx, rank)?;
    let stated = output_shape(cx, rank)?;
    let dims = cx.b.dims(x);
    let mut window = frame.without_pads();
    let mut spatial = Vec::with_capacity(rank);
    for axis in 0..rank {
        let asked = stated.as_ref().map(|shape| Expr::constant(shape[axis]));
        let cropped = crop(&frame, axis, &dims[axis + 2], extra[axis], asked);
        let (Some(lo), Some(hi)) = (cropped.lo.as_const(), cropped.hi.as_const()) else {
            return Err(Fault::unsupported(
                format!("what is cropped of spatial axis {axis} depends on its extent {}", dims[axis + 2]),
                "give pads instead of output_shape, or pin the dimension with a profile",
            ));
        };
        window.pad_lo[axis] = amount(lo)?;
        window.pad_hi[axis] = amount(hi)?;
        spatial.push(cropped.extent);
    }
    let y = cx.b.node(Op::ConvTranspose(ConvTranspose { window, groups }, spatial), &[x, w])?;
    let bias = cx.optional(2);
    one(biased(&mut cx.b, y, bias)?)
}

fn output_padding(cx: &Cx<'_, '_>, rank: usize) -> Result<Vec<i64>, Fault> {
    match cx.attrs.ints_opt("output_padding")?.filter(|values| !values.is_empty()) {
        None => Ok(vec![0; rank]),
        Some(values) if values.len() == rank && values.iter().all(|&value| value >= 0) => Ok(values.to_vec()),
        Some(values) => {
            Err(Fault::Invalid(format!("output_padding is {values:?}, and {rank} numbers of 0 or more are needed")))
        }
    }
}

/// The spatial extents that the model asks for. Some exporters put the batch and the channels in front.
fn output_shape<'m>(cx: &Cx<'_, 'm>, rank: usize) -> Result<Option<&'m [i64]>, Fault> {
    match cx.attrs.ints_opt("output_shape")?.filter(|shape| !shape.is_empty()) {
        None => Ok(None),
        Some(shape) if shape.len() == rank || shape.len() == rank + 2 => Ok(Some(&shape[shape.len() - rank..])),
        Some(shape) => Err(Fault::Invalid(format!("output_shape is {shape:?}, and {rank} extents are needed"))),
    }
}

/// The result's extent of one axis, and what is cropped of the full result to get there.
struct Crop {
    lo: Expr,
    hi: Expr,
    extent: Expr,
}

/// The full result has `(dim - 1) * stride + reach` elements, and `extra` zeros behind them.
fn crop(frame: &Frame, axis: usize, dim: &Expr, extra: i64, asked: Option<Expr>) -> Crop {
    let stride = Expr::constant(frame.stride(axis));
    let full =
        (dim.clone() - Expr::constant(1)) * stride.clone() + Expr::constant(frame.reach(axis)) + Expr::constant(extra);
    let zero = Expr::constant(0);
    let (odd, total, extent) = match (frame.padding(), asked) {
        (Padding::Explicit { lo, hi }, None) => {
            let (lo, hi) = (Expr::from(i64::from(lo[axis])), Expr::from(i64::from(hi[axis])));
            let extent = full - lo.clone() - hi.clone();
            return Crop { lo, hi, extent };
        }
        // A result that is asked to be larger than the full one has zeros behind it.
        (Padding::Explicit { .. }, Some(asked)) => (OddSide::Before, (full - asked.clone()).larger(&zero), asked),
        (Padding::Same(odd), Some(asked)) => (*odd, (full - asked.clone()).larger(&zero), asked),
        // `dim * stride`, and the full result where that has fewer elements.
        (Padding::Same(odd), None) => {
            let total = (full.clone() - dim.clone() * stride).larger(&zero);
            (*odd, total.clone(), full - total)
        }
    };
    let half = total.floor_div(&Expr::constant(2));
    let rest = total - half.clone();
    let (lo, hi) = match odd {
        OddSide::Before => (rest, half),
        OddSide::Behind => (half, rest),
    };
    Crop { lo, hi, extent }
}
