//! Putting together what was taken apart (ONNX Col2Im, MaxUnpool), and grids for sampling (AffineGrid).

use lapidary_runtime::DType;
use lapidary_runtime::op::{Arg, ConvTranspose, MAX_SPATIAL, ScalarOp, ScatterMode, Window};

use super::entry::{binary, op};
use super::positions::positions;
use super::window::{Frame, Padding, amount};
use super::{Cx, Fault, Imported, OpDef, one, operands};
use crate::ir::builder::round_scalar;
use crate::ir::{Expr, Op, ValueId};

pub const DEFS: &[OpDef] = &[
    binary("AffineGrid", 20, affine_grid),
    op("Col2Im", 18, (3, 3), col_to_image),
    op("MaxUnpool", 9, (2, 3), max_unpool),
];

fn product(dims: &[Expr]) -> Expr {
    dims.iter().cloned().fold(Expr::constant(1), |count, dim| count * dim)
}

/// Columns of blocks, added up where the blocks overlap: a transposed convolution whose weights are a unit matrix, one
/// group for each channel.
fn col_to_image(cx: &mut Cx<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    let image = operands::known(cx, 1, "shape of the image")?;
    let block = operands::optional_ints(cx, 2, "shape of the blocks")?.ok_or("operand 2 is missing")?;
    let rank = block.len();
    if image.len() != rank || !(1..=MAX_SPATIAL).contains(&rank) || cx.b.rank(x) != 3 {
        return Err(Fault::unsupported(
            format!("Col2Im over {rank} axes of an operand of rank {} is not supported", cx.b.rank(x)),
            format!("give an operand of rank 3, and from 1 to {MAX_SPATIAL} axes"),
        ));
    }
    let numbers = |name: &str, count: usize, default: i64| -> Result<Vec<u32>, Fault> {
        let given = cx.attrs.ints_opt(name)?.map_or_else(|| vec![default; count], <[i64]>::to_vec);
        if given.len() != count || given.iter().any(|&value| value < default) {
            return Err(format!("{name} is {given:?}, and {count} numbers from {default} on are needed").into());
        }
        given.into_iter().map(amount).collect()
    };
    let (stride, dilation, pads) =
        (numbers("strides", rank, 1)?, numbers("dilations", rank, 1)?, numbers("pads", 2 * rank, 0)?);
    let size: Vec<u32> = block.iter().map(|&extent| amount(extent)).collect::<Result<_, _>>()?;
    if size.contains(&0) {
        return Err(format!("the block {block:?} is empty").into());
    }
    let mut window =
        Window { rank: rank as u8, size: [1; 3], stride: [1; 3], dilation: [1; 3], pad_lo: [0; 3], pad_hi: [0; 3] };
    window.size[..rank].copy_from_slice(&size);
    window.stride[..rank].copy_from_slice(&stride);
    window.dilation[..rank].copy_from_slice(&dilation);
    window.pad_lo[..rank].copy_from_slice(&pads[..rank]);
    window.pad_hi[..rank].copy_from_slice(&pads[rank..]);
    let dims = cx.b.dims(x);
    let elements: i64 = block.iter().product();
    let channels = dims[1].exact_div(&Expr::constant(elements));
    let Some(groups) = channels.and_then(|count| u32::try_from(count.as_const()?).ok()).filter(|&count| count > 0)
    else {
        return Err(Fault::unsupported(
            format!("{} rows are not known to be blocks of {elements} elements", dims[1]),
            "pin the number of channels with a profile",
        ));
    };
    let mut blocks = Vec::with_capacity(rank);
    for (axis, extent) in image.iter().enumerate() {
        let padded = extent.clone() + Expr::constant(i64::from(window.pad_lo[axis] + window.pad_hi[axis]));
        let room = padded - Expr::constant(i64::from(window.extent(axis)));
        blocks.push(room.floor_div(&Expr::constant(i64::from(window.stride[axis]))) + Expr::constant(1));
    }
    cx.b.require_equal(&product(&blocks), &dims[2])?;
    let mut shape = vec![dims[0].clone(), dims[1].clone()];
    shape.extend(blocks);
    let x = cx.b.reshape(x, shape)?;
    let dtype = cx.b.dtype(x);
    let wide = if matches!(dtype, DType::F64 | DType::F32 | DType::F16 | DType::BF16) { dtype } else { DType::F64 };
    if wide != dtype && dtype.bits() > 32 {
        return Err(Fault::unsupported(format!("Col2Im of {dtype} is not supported"), "convert the operand to floats"));
    }
    let x = cx.b.cast(x, wide)?;
    let unit = unit_weights(cx, wide, elements, groups, &block)?;
    let y = cx.b.node(Op::ConvTranspose(ConvTranspose { window, groups }, image), &[x, unit])?;
    one(cx.b.cast(y, dtype)?)
}

/// `[groups * elements, 1, block..]`: row k of a group is 1 at element k of the block.
fn unit_weights(
    cx: &mut Cx<'_, '_>,
    dtype: DType,
    elements: i64,
    groups: u32,
    block: &[i64],
) -> Result<ValueId, Fault> {
    let rows = positions(&mut cx.b, Expr::constant(elements), 0, 2)?;
    let columns = positions(&mut cx.b, Expr::constant(elements), 1, 2)?;
    let unit = cx.b.program(&[rows, columns], |p| {
        let hit = p.push(ScalarOp::Equal, &[Arg::Input(0), Arg::Input(1)]);
        p.cast(hit, dtype)
    })?;
    let groups = i64::from(groups);
    let unit = cx.b.expand(unit, vec![Expr::constant(groups), Expr::constant(elements), Expr::constant(elements)])?;
    let mut shape = vec![Expr::constant(groups * elements), Expr::constant(1)];
    shape.extend(block.iter().map(|&extent| Expr::constant(extent)));
    Ok(cx.b.reshape(unit, shape)?)
}

/// Maxima back at the places they were taken from, zeros elsewhere. The places count in the tensor that was pooled.
fn max_unpool(cx: &mut Cx<'_, '_>) -> Imported {
    let (x, places) = (cx.input(0)?, cx.input(1)?);
    let frame = Frame::of_pool(cx, x)?;
    let Padding::Explicit { lo, hi } = frame.padding() else {
        return Err("MaxUnpool has no auto_pad".into());
    };
    let dims = cx.b.dims(x);
    let mut pooled = dims[..2].to_vec();
    for axis in 0..frame.rank() {
        let starts = (dims[axis + 2].clone() - Expr::constant(1)) * Expr::constant(frame.stride(axis));
        pooled.push(starts + Expr::constant(frame.reach(axis) - i64::from(lo[axis]) - i64::from(hi[axis])));
    }
    let count = cx.b.ty(x).count();
    let zero = cx.b.scalar(round_scalar(cx.b.dtype(x), 0.0));
    let empty = cx.b.expand(zero, vec![product(&pooled)])?;
    let (x, places) = (cx.b.reshape(x, vec![count.clone()])?, cx.b.reshape(places, vec![count])?);
    let scatter = Op::ScatterElements { axis: 0, mode: ScatterMode::Set };
    let y = cx.b.node(scatter, &[empty, places, x])?;
    let y = cx.b.reshape(y, pooled.clone())?;
    if cx.optional(2).is_none() {
        return one(y);
    }
    let asked = operands::known(cx, 2, "shape of the result")?;
    if asked.len() != pooled.len() {
        return Err(
            format!("the shape of the result has {} extents, and {} are needed", asked.len(), pooled.len()).into()
        );
    }
    let hi: Vec<Expr> = asked.iter().zip(&pooled).map(|(asked, own)| asked.clone() - own.clone()).collect();
    if let Some(short) = hi.iter().find(|extra| cx.b.range(extra).0 < 0) {
        return Err(Fault::unsupported(
            format!("whether the result of MaxUnpool is as large as what was pooled depends on {short}"),
            "leave output_shape out, or make it at least as large",
        ));
    }
    let lo = vec![Expr::constant(0); hi.len()];
    one(cx.b.node(Op::Pad { mode: lapidary_runtime::op::PadMode::Constant, lo, hi }, &[y])?)
}

/// Where an affine map takes each place of an image, all in coordinates from -1 to 1; x comes first.
fn affine_grid(cx: &mut Cx<'_, '_>) -> Imported {
    let theta = cx.input(0)?;
    let size = operands::known(cx, 1, "size")?;
    let corners = cx.attrs.flag_or("align_corners", 0)?;
    let Some(rank @ 2..=3) = size.len().checked_sub(2) else {
        return Err(format!("the size has {} extents, and 4 or 5 are needed", size.len()).into());
    };
    let dims = cx.b.dims(theta);
    let [batch, rows, columns] = dims.as_slice() else {
        return Err(format!("the maps have rank {}, and 3 is needed", dims.len()).into());
    };
    cx.b.require_equal(batch, &size[0])?;
    cx.b.require_equal(rows, &Expr::from(rank))?;
    cx.b.require_equal(columns, &Expr::from(rank + 1))?;
    let dtype = cx.b.dtype(theta);
    let wide = if dtype == DType::F64 { DType::F64 } else { DType::F32 };
    let mut lines = Vec::with_capacity(rank);
    for axis in 0..rank {
        // x, the first coordinate, runs along the last axis.
        let at = rank - axis;
        let line = positions(&mut cx.b, size[at + 1].clone(), at, rank + 1)?;
        let extent = cx.b.extents(vec![size[at + 1].clone()], 0)?;
        lines.push(cx.b.program(&[line, extent], |p| {
            let (place, extent) = (p.cast(Arg::Input(0), wide), p.cast(Arg::Input(1), wide));
            let twice = p.push(ScalarOp::Mul, &[place, p.imm(place, 2.0)]);
            let (raised, over) = if corners {
                let last = p.push(ScalarOp::Sub, &[extent, p.imm(extent, 1.0)]);
                (twice, p.push(ScalarOp::Max, &[last, p.imm(last, 1.0)]))
            } else {
                (p.push(ScalarOp::Add, &[twice, p.imm(twice, 1.0)]), extent)
            };
            let ratio = p.push(ScalarOp::Div, &[raised, over]);
            p.push(ScalarOp::Sub, &[ratio, p.imm(ratio, 1.0)])
        })?);
    }
    let mut shape = vec![batch.clone()];
    shape.extend_from_slice(&size[2..]);
    shape.push(Expr::constant(1));
    let mut coordinates = Vec::with_capacity(rank);
    for row in 0..rank {
        let mut inputs = lines.clone();
        for column in 0..=rank {
            let row = cx.b.slice_axis(theta, 1, Expr::from(row), Expr::constant(1))?;
            let factor = cx.b.slice_axis(row, 2, Expr::from(column), Expr::constant(1))?;
            let mut flat = vec![Expr::constant(1); rank + 1];
            flat[0] = batch.clone();
            inputs.push(cx.b.reshape(factor, flat)?);
        }
        let coordinate = cx.b.program(&inputs, |p| {
            let mut sum = p.cast(Arg::Input((2 * rank) as u16), wide);
            for k in 0..rank {
                let factor = p.cast(Arg::Input((rank + k) as u16), wide);
                let part = p.push(ScalarOp::Mul, &[factor, Arg::Input(k as u16)]);
                sum = p.push(ScalarOp::Add, &[sum, part]);
            }
            p.cast(sum, dtype)
        })?;
        coordinates.push(cx.b.reshape(coordinate, shape.clone())?);
    }
    one(cx.b.concat(&coordinates, rank + 1)?)
}
