//! Regions of images in a fixed size (ONNX RoiAlign).
//!
//! Each region has a grid of bins, and each bin a grid of samples between elements; the images are gathered as rows of
//! channels, so that a region costs what it samples.

use lapidary_runtime::DType;
use lapidary_runtime::op::{Arg, ReduceKind, ScalarOp};

use super::entry::op;
use super::positions::positions;
use super::{Cx, Fault, Imported, OpDef, one};
use crate::ir::builder::ProgramWriter;
use crate::ir::{Expr, Op, ValueId};

pub const DEFS: &[OpDef] = &[
    op("RoiAlign", 10, (3, 3), |cx| roi_align(cx, Offset::None)),
    op("RoiAlign", 16, (3, 3), |cx| roi_align(cx, Offset::HalfPixel)),
];

/// What a bin is of its samples.
#[derive(Clone, Copy)]
enum Mode {
    Mean,
    /// Of each sample's four weighted elements the largest, as ONNX has it.
    Max,
}

/// Where the coordinates of a region are counted from.
#[derive(Clone, Copy, PartialEq)]
enum Offset {
    /// The middle of the first element. A region may have any size.
    HalfPixel,
    /// The first element. A region has at least the size of an element.
    None,
}

/// The attributes.
struct Spec {
    mode: Mode,
    /// Bins and samples a bin along one axis.
    bins: [i64; 2],
    samples: i64,
    scale: f64,
    offset: Offset,
}

fn spec(cx: &Cx<'_, '_>, default: Offset) -> Result<Spec, Fault> {
    let size = |name: &str| match cx.attrs.int_or(name, 1)? {
        size if (1..1 << 20).contains(&size) => Ok(size),
        size => Err(Fault::from(cx.attrs.bad_value(name, format!("is {size}"), "it must be positive, and not huge"))),
    };
    let samples = cx.attrs.int_or("sampling_ratio", 0)?;
    if !(1..1 << 10).contains(&samples) {
        return Err(Fault::unsupported(
            format!(
                "RoiAlign with sampling_ratio {samples} is not supported: the number of samples depends on the data"
            ),
            "export with a positive sampling_ratio; 2 is usual",
        ));
    }
    let modes = [("avg", Mode::Mean), ("max", Mode::Max)];
    let offsets = [("half_pixel", Offset::HalfPixel), ("output_half_pixel", Offset::None)];
    Ok(Spec {
        mode: cx.attrs.choice_or("mode", Mode::Mean, &modes)?,
        bins: [size("output_height")?, size("output_width")?],
        samples,
        scale: f64::from(cx.attrs.float_or("spatial_scale", 1.0)?),
        offset: cx.attrs.choice_or("coordinate_transformation_mode", default, &offsets)?,
    })
}

fn roi_align(cx: &mut Cx<'_, '_>, default: Offset) -> Imported {
    let spec = spec(cx, default)?;
    let (x, rois, images) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let dims = cx.b.dims(x);
    let [_, channels, height, width] = dims.as_slice() else {
        return Err(format!("the operand has rank {}, and 4 is needed", dims.len()).into());
    };
    if cx.b.rank(rois) != 2 || cx.b.rank(images) != 1 {
        return Err("the regions must be a matrix, and their images a vector".into());
    }
    let count = cx.b.dims(rois)[0].clone();
    let [ys, xs] = [0, 1].map(|axis| samples_along(cx, &spec, rois, axis));
    let (ys, xs) = (ys?, xs?);
    let rows = cx.b.transpose(x, &[0, 2, 3, 1])?;
    let rows = cx.b.reshape(rows, vec![dims[0].clone() * height.clone() * width.clone(), channels.clone()])?;
    let images = cx.b.append_axes(images, 3)?;
    let lengths = [cx.b.extents(vec![height.clone()], 0)?, cx.b.extents(vec![width.clone()], 0)?];
    let around = [ys, xs, lengths[0], lengths[1], images];
    let mut corners = Vec::with_capacity(4);
    for (down, right) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        corners.push(corner(cx, &around, rows, down, right)?);
    }
    let dtype = cx.b.dtype(x);
    let op = match spec.mode {
        Mode::Mean => ScalarOp::Add,
        Mode::Max => ScalarOp::Max,
    };
    let sampled =
        cx.b.program(&corners, |p| (1..4).fold(Arg::Input(0), |folded, k| p.push(op, &[folded, Arg::Input(k)])))?;
    let [bins_down, bins_right] = spec.bins.map(Expr::constant);
    let samples = Expr::constant(spec.samples);
    let split = vec![count.clone(), bins_down.clone(), samples.clone(), bins_right.clone(), samples, channels.clone()];
    let sampled = cx.b.reshape(sampled, split)?;
    let kind = match spec.mode {
        Mode::Mean => ReduceKind::Mean,
        Mode::Max => ReduceKind::Max,
    };
    let bins = cx.b.reduce(kind, sampled, &[2, 4])?;
    let bins = cx.b.reshape(bins, vec![count, bins_down, bins_right, channels.clone()])?;
    let bins = cx.b.cast(bins, dtype)?;
    one(cx.b.transpose(bins, &[0, 3, 1, 2])?)
}

/// Where each region is sampled along an axis: rows `[regions, samples, 1]` or columns `[regions, 1, samples]`.
fn samples_along(cx: &mut Cx<'_, '_>, spec: &Spec, rois: ValueId, axis: usize) -> Result<ValueId, Fault> {
    // The regions list x before y.
    let column = 1 - axis;
    let [start, end] = [column, column + 2].map(|k| {
        let part = cx.b.slice_axis(rois, 1, Expr::from(k), Expr::constant(1))?;
        cx.b.append_axes(part, 3)
    });
    let line = positions(&mut cx.b, Expr::constant(spec.bins[axis] * spec.samples), 1 + axis, 3)?;
    let wide = if cx.b.dtype(rois) == DType::F64 { DType::F64 } else { DType::F32 };
    Ok(cx.b.program(&[start?, end?, line], |p| {
        let offset = match spec.offset {
            Offset::HalfPixel => 0.5,
            Offset::None => 0.0,
        };
        let [start, end] = [0, 1].map(|k| {
            let side = p.cast(Arg::Input(k), wide);
            let scaled = p.push(ScalarOp::Mul, &[side, p.imm(side, spec.scale)]);
            p.push(ScalarOp::Sub, &[scaled, p.imm(scaled, offset)])
        });
        let mut size = p.push(ScalarOp::Sub, &[end, start]);
        if spec.offset == Offset::None {
            size = p.push(ScalarOp::Max, &[size, p.imm(size, 1.0)]);
        }
        let step = p.push(ScalarOp::Div, &[size, p.imm(size, (spec.bins[axis] * spec.samples) as f64)]);
        let place = p.cast(Arg::Input(2), wide);
        let middle = p.push(ScalarOp::Add, &[place, p.imm(place, 0.5)]);
        let moved = p.push(ScalarOp::Mul, &[middle, step]);
        p.push(ScalarOp::Add, &[start, moved])
    })?)
}

/// The weighted elements on one side of all samples, `[regions, rows, columns, channels]`.
fn corner(cx: &mut Cx<'_, '_>, around: &[ValueId; 5], rows: ValueId, down: u8, right: u8) -> Result<ValueId, Fault> {
    let index = cx.b.program(around, |p| {
        let (y, _) = side(p, 0, down);
        let (x, _) = side(p, 1, right);
        let image = p.cast(Arg::Input(4), DType::I64);
        let row = p.push(ScalarOp::Mul, &[image, Arg::Input(2)]);
        let (y, x) = (p.cast(y, DType::I64), p.cast(x, DType::I64));
        let row = p.push(ScalarOp::Add, &[row, y]);
        let start = p.push(ScalarOp::Mul, &[row, Arg::Input(3)]);
        p.push(ScalarOp::Add, &[start, x])
    })?;
    let weight = cx.b.program(&around[..4], |p| {
        let (_, of_y) = side(p, 0, down);
        let (_, of_x) = side(p, 1, right);
        p.push(ScalarOp::Mul, &[of_y, of_x])
    })?;
    let weight = cx.b.append_axes(weight, 4)?;
    let values = cx.b.node(Op::Gather { axis: 0 }, &[rows, index])?;
    let values = cx.b.cast(values, cx.b.dtype(weight))?;
    Ok(cx.b.binary(ScalarOp::Mul, values, weight)?)
}

/// The element before or behind a sample along an axis, and its weight: 0 for samples more than one element outside.
fn side(p: &mut ProgramWriter, axis: u16, behind: u8) -> (Arg, Arg) {
    let at = Arg::Input(axis);
    let wide = p.dtype(at);
    let length = p.cast(Arg::Input(2 + axis), wide);
    let last = p.push(ScalarOp::Sub, &[length, p.imm(length, 1.0)]);
    let low = p.push(ScalarOp::Less, &[at, p.imm(at, -1.0)]);
    let high = p.push(ScalarOp::Greater, &[at, length]);
    let outside = p.push(ScalarOp::Or, &[low, high]);
    let clamped = p.push(ScalarOp::Max, &[at, p.imm(at, 0.0)]);
    let clamped = p.push(ScalarOp::Min, &[clamped, last]);
    let before = p.push(ScalarOp::Floor, &[clamped]);
    let share = p.push(ScalarOp::Sub, &[clamped, before]);
    let (element, weight) = if behind == 0 {
        (before, p.push(ScalarOp::Sub, &[p.imm(share, 1.0), share]))
    } else {
        let next = p.push(ScalarOp::Add, &[before, p.imm(before, 1.0)]);
        (p.push(ScalarOp::Min, &[next, last]), share)
    };
    let weight = p.push(ScalarOp::Select, &[outside, p.imm(weight, 0.0), weight]);
    (element, weight)
}
