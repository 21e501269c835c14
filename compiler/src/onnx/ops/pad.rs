//! Padding and cropping at the ends of axes (ONNX Pad, CenterCropPad). The amounts may be formulas.

use lapidary_runtime::op::PadMode;

use super::entry::{binary, op, unary};
use super::{Cx, Fault, Imported, OpDef, one, operands};
use crate::ir::builder::round_scalar;
use crate::ir::{Expr, Op, ValueId};

pub const DEFS: &[OpDef] = &[
    binary("CenterCropPad", 18, center_crop_pad),
    unary("Pad", 2, pad_attributes),
    op("Pad", 11, (2, 4), pad_operands),
];

fn mode(cx: &Cx<'_, '_>) -> Result<PadMode, Fault> {
    let modes = [
        ("constant", PadMode::Constant),
        ("edge", PadMode::Edge),
        ("reflect", PadMode::Reflect),
        ("wrap", PadMode::Wrap),
    ];
    Ok(cx.attrs.choice_or("mode", PadMode::Constant, &modes)?)
}

fn pad_attributes(cx: &mut Cx<'_, '_>) -> Imported {
    let pads = cx.attrs.ints("pads")?.iter().map(|&amount| Expr::constant(amount)).collect();
    let value = f64::from(cx.attrs.float_or("value", 0.0)?);
    let x = cx.input(0)?;
    let value = (value != 0.0).then(|| cx.b.scalar(round_scalar(cx.b.dtype(x), value)));
    pad(cx, pads, value, None)
}

fn pad_operands(cx: &mut Cx<'_, '_>) -> Imported {
    let pads = operands::known(cx, 1, "paddings")?;
    let value = operands::scalar(cx, 2)?;
    let axes = operands::optional_ints(cx, 3, "axes")?;
    pad(cx, pads, value, axes)
}

/// `pads` are the amounts before each axis, then those behind.
fn pad(cx: &mut Cx<'_, '_>, pads: Vec<Expr>, value: Option<ValueId>, axes: Option<Vec<i64>>) -> Imported {
    let x = cx.input(0)?;
    let mode = mode(cx)?;
    let rank = cx.b.rank(x);
    let axes = axes.unwrap_or_else(|| (0..rank as i64).collect());
    if pads.len() != 2 * axes.len() {
        return Err(format!("there are {} paddings for {} axes", pads.len(), axes.len()).into());
    }
    cx.axes(&axes, rank)?;
    let zero = Expr::constant(0);
    let (mut lo, mut hi) = (vec![zero.clone(); rank], vec![zero.clone(); rank]);
    for (k, &axis) in axes.iter().enumerate() {
        let axis = cx.axis(axis, rank)?;
        lo[axis] = pads[k].clone();
        hi[axis] = pads[axes.len() + k].clone();
    }
    if lo.iter().chain(&hi).all(|amount| *amount == zero) {
        return one(x);
    }
    let value = value.filter(|_| mode == PadMode::Constant);
    let inputs: Vec<ValueId> = [Some(x), value].into_iter().flatten().collect();
    one(cx.b.node(Op::Pad { mode, lo, hi }, &inputs)?)
}

/// Crops or pads each axis to an extent, as much on both ends; what is odd at the end.
fn center_crop_pad(cx: &mut Cx<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    let target = operands::known(cx, 1, "shape")?;
    let dims = cx.b.dims(x);
    let axes = cx.attrs.ints_opt("axes")?.map_or_else(|| (0..dims.len() as i64).collect(), <[i64]>::to_vec);
    if axes.len() != target.len() {
        return Err(format!("the shape has {} extents for {} axes", target.len(), axes.len()).into());
    }
    cx.axes(&axes, dims.len())?;
    let (zero, two) = (Expr::constant(0), Expr::constant(2));
    let (mut lo, mut hi) = (vec![zero.clone(); dims.len()], vec![zero.clone(); dims.len()]);
    for (&axis, target) in axes.iter().zip(target) {
        let axis = cx.axis(axis, dims.len())?;
        let more = target - dims[axis].clone();
        // Halves of what is padded and of what is cropped are both rounded down.
        lo[axis] = match cx.b.range(&more) {
            (low, _) if low >= 0 => more.floor_div(&two),
            (_, high) if high <= 0 => more.ceil_div(&two),
            (_, _) => more.larger(&zero).floor_div(&two) - (-more.clone()).larger(&zero).floor_div(&two),
        };
        hi[axis] = more - lo[axis].clone();
    }
    one(cx.b.node(Op::Pad { mode: PadMode::Constant, lo, hi }, &[x])?)
}
