//! Shapes and changes of shape (ONNX Shape, Size, Reshape, Flatten, Squeeze, Unsqueeze, Transpose, Expand, Tile,
//! DepthToSpace, SpaceToDepth).
//!
//! The rank of every result is known while compiling; its extents are formulas.

use lapidary_runtime::op::MAX_RANK;

use super::entry::{binary, op, unary};
use super::{Cx, Fault, Imported, OpDef, one, operands};
use crate::diag::quoted;
use crate::ir::builder::Built;
use crate::ir::{Builder, Expr, ValueId};

pub const DEFS: &[OpDef] = &[
    unary("Shape", 1, shape),
    unary("Size", 1, size),
    binary("Reshape", 5, reshape),
    unary("Flatten", 1, flatten),
    unary("Squeeze", 1, squeeze_attribute),
    op("Squeeze", 13, (1, 2), squeeze_operand),
    unary("Unsqueeze", 1, unsqueeze_attribute),
    binary("Unsqueeze", 13, unsqueeze_operand),
    unary("Transpose", 1, transpose),
    binary("Expand", 8, expand),
    binary("Tile", 6, tile),
    unary("DepthToSpace", 1, depth_to_space),
    unary("SpaceToDepth", 1, space_to_depth),
];

fn product(dims: &[Expr]) -> Expr {
    dims.iter().cloned().fold(Expr::constant(1), |count, dim| count * dim)
}

/// The extents from axis `start` to before `end`, both clamped to the rank.
fn shape(cx: &mut Cx<'_, '_>) -> Imported {
    let dims = cx.b.dims(cx.input(0)?);
    let rank = dims.len() as i64;
    let clamp = |axis: i64| (if axis < 0 { axis.saturating_add(rank) } else { axis }).clamp(0, rank) as usize;
    let start = clamp(cx.attrs.int_or("start", 0)?);
    let end = clamp(cx.attrs.int_or("end", rank)?).max(start);
    one(cx.b.extents(dims[start..end].to_vec(), 1)?)
}

fn size(cx: &mut Cx<'_, '_>) -> Imported {
    let dims = cx.b.dims(cx.input(0)?);
    one(cx.b.extents(vec![product(&dims)], 0)?)
}

/// 0 takes the operand's extent of that axis, -1 what is left.
fn reshape(cx: &mut Cx<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    let zero_is_zero = cx.attrs.flag_or("allowzero", 0)?;
    let mut target = operands::known(cx, 1, "shape")?;
    let dims = cx.b.dims(x);
    let mut open = None;
    for (axis, extent) in target.iter_mut().enumerate() {
        if extent.is(-1) {
            if open.replace(axis).is_some() {
                return Err("the shape has more than one -1".into());
            }
            *extent = Expr::constant(1);
        } else if extent.is(0) && !zero_is_zero {
            let Some(same) = dims.get(axis) else {
                return Err(format!("extent {axis} of the shape is 0, and the operand has rank {}", dims.len()).into());
            };
            *extent = same.clone();
        }
    }
    if let Some(axis) = open {
        let (total, others) = (product(&dims), product(&target));
        if others.is(0) {
            return Err("the shape has a -1 beside an extent of 0, so that it says nothing".into());
        }
        target[axis] = total.floor_div(&others);
    }
    one(cx.b.reshape(x, target)?)
}

/// Two axes: those before `axis`, and the rest.
fn flatten(cx: &mut Cx<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    let dims = cx.b.dims(x);
    let given = cx.attrs.int_or("axis", 1)?;
    // `axis` may be the rank, which no axis of the operand has.
    let axis = if given == dims.len() as i64 { dims.len() } else { cx.axis(given, dims.len())? };
    let (outer, inner) = dims.split_at(axis);
    one(cx.b.reshape(x, vec![product(outer), product(inner)])?)
}

fn squeeze_attribute(cx: &mut Cx<'_, '_>) -> Imported {
    let axes = cx.attrs.ints_opt("axes")?.map(<[i64]>::to_vec);
    squeeze(cx, axes)
}

fn squeeze_operand(cx: &mut Cx<'_, '_>) -> Imported {
    let axes = operands::optional_ints(cx, 1, "axes")?;
    squeeze(cx, axes)
}

fn squeeze(cx: &mut Cx<'_, '_>, axes: Option<Vec<i64>>) -> Imported {
    let x = cx.input(0)?;
    let dims = cx.b.dims(x);
    let axes = match axes {
        Some(axes) => cx.axes(&axes, dims.len())?,
        None => unit_axes(cx, x, &dims)?,
    };
    for &axis in &axes {
        cx.b.require_equal(&dims[axis], &Expr::constant(1))?;
    }
    let kept = dims.iter().enumerate().filter(|(axis, _)| !axes.contains(axis)).map(|(_, dim)| dim.clone());
    one(cx.b.reshape(x, kept.collect())?)
}

/// The axes of extent 1, where it is certain of each axis whether it has that.
fn unit_axes(cx: &Cx<'_, '_>, x: ValueId, dims: &[Expr]) -> Result<Vec<usize>, Fault> {
    let mut units = Vec::new();
    for (axis, dim) in dims.iter().enumerate() {
        match cx.b.range(dim) {
            (1, 1) => units.push(axis),
            (low, high) if low <= 1 && high >= 1 => {
                let name = quoted(&cx.b.graph().value(x).name);
                return Err(Fault::unsupported(
                    format!("whether axis {axis} of {name} is squeezed depends on {dim}, and so does the rank"),
                    "give the node its axes, or give the dimension a profile that leaves out 1 or pins it",
                ));
            }
            _ => {}
        }
    }
    Ok(units)
}

fn unsqueeze_attribute(cx: &mut Cx<'_, '_>) -> Imported {
    let axes = cx.attrs.ints("axes")?.to_vec();
    unsqueeze(cx, &axes)
}

fn unsqueeze_operand(cx: &mut Cx<'_, '_>) -> Imported {
    let axes = operands::optional_ints(cx, 1, "axes")?.ok_or("operand 1 is missing")?;
    unsqueeze(cx, &axes)
}

fn unsqueeze(cx: &mut Cx<'_, '_>, axes: &[i64]) -> Imported {
    let x = cx.input(0)?;
    let mut dims = cx.b.dims(x);
    // Ascending, so that each lands where the result has it.
    for axis in cx.axes(axes, dims.len() + axes.len())? {
        dims.insert(axis, Expr::constant(1));
    }
    one(cx.b.reshape(x, dims)?)
}

fn transpose(cx: &mut Cx<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    let rank = cx.b.rank(x);
    let perm = match cx.attrs.ints_opt("perm")? {
        None => (0..rank).rev().collect(),
        Some(perm) => {
            cx.axes(perm, rank)?;
            if perm.len() != rank {
                return Err(format!("perm has {} axes, and the operand {rank}", perm.len()).into());
            }
            perm.iter().map(|&axis| cx.axis(axis, rank)).collect::<Result<Vec<usize>, _>>()?
        }
    };
    one(cx.b.transpose(x, &perm)?)
}

/// Broadcasts both ways: the result may be larger than the given shape.
fn expand(cx: &mut Cx<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    let target = operands::known(cx, 1, "shape")?;
    if let Some(negative) = target.iter().find(|extent| cx.b.range(extent).1 < 0) {
        return Err(format!("the shape has the extent {negative}").into());
    }
    let dims = cx.b.dims(x);
    let rank = dims.len().max(target.len());
    let one_extent = Expr::constant(1);
    let at = |dims: &[Expr], axis: usize| match (axis + dims.len()).checked_sub(rank) {
        Some(k) => dims[k].clone(),
        None => one_extent.clone(),
    };
    let extents = (0..rank).map(|axis| {
        let (own, asked) = (at(&dims, axis), at(&target, axis));
        // An extent that is never 1 is the result's.
        if cx.b.range(&asked).0 > 1 { asked } else { own.broadcast(&asked) }
    });
    let extents = extents.collect();
    one(cx.b.expand(x, extents)?)
}

fn tile(cx: &mut Cx<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    let repeats = operands::known(cx, 1, "repeats")?;
    if repeats.len() != cx.b.rank(x) {
        return Err(format!("there are {} repeats for rank {}", repeats.len(), cx.b.rank(x)).into());
    }
    one(tile_by(&mut cx.b, x, &repeats)?)
}

/// Each repeated axis gets an axis of extent 1 in front, which is broadcast and then merged with it.
fn tile_by(b: &mut Builder<'_>, x: ValueId, repeats: &[Expr]) -> Built {
    let dims = b.dims(x);
    let tiled: Vec<usize> = (0..dims.len()).filter(|&axis| !repeats[axis].is(1)).collect();
    if dims.len() + tiled.len() > MAX_RANK {
        return tiled.into_iter().try_fold(x, |x, axis| tile_axis(b, x, axis, &repeats[axis]));
    }
    let (mut split, mut repeated, mut merged) = (Vec::new(), Vec::new(), Vec::new());
    for (dim, repeat) in dims.iter().zip(repeats) {
        if !repeat.is(1) {
            split.push(Expr::constant(1));
            repeated.push(repeat.clone());
        }
        split.push(dim.clone());
        repeated.push(dim.clone());
        merged.push(dim.clone() * repeat.clone());
    }
    let split = b.reshape(x, split)?;
    let repeated = b.expand(split, repeated)?;
    b.reshape(repeated, merged)
}

/// One axis of a tensor of large rank, its neighbours merged.
fn tile_axis(b: &mut Builder<'_>, x: ValueId, axis: usize, repeat: &Expr) -> Built {
    let mut dims = b.dims(x);
    let merged = vec![product(&dims[..axis]), dims[axis].clone(), product(&dims[axis + 1..])];
    let flat = b.reshape(x, merged)?;
    let tiled = tile_by(b, flat, &[Expr::constant(1), repeat.clone(), Expr::constant(1)])?;
    dims[axis] = dims[axis].clone() * repeat.clone();
    b.reshape(tiled, dims)
}

/// The order of a block's rows and columns and the channels within the depth.
#[derive(Clone, Copy)]
enum DepthOrder {
    /// Block row, block column, channel.
    Dcr,
    /// Channel, block row, block column.
    Crd,
}

/// The block size and the order in the depth, and that the operand has four axes.
fn blocks(cx: &Cx<'_, '_>) -> Result<(Expr, DepthOrder, [Expr; 4]), Fault> {
    let size = cx.attrs.int("blocksize")?;
    let order = cx.attrs.choice_or("mode", DepthOrder::Dcr, &[("DCR", DepthOrder::Dcr), ("CRD", DepthOrder::Crd)])?;
    if size < 1 {
        return Err(Fault::Invalid(format!("blocksize is {size}, and must be positive")));
    }
    let dims = cx.b.dims(cx.input(0)?);
    match <[Expr; 4]>::try_from(dims) {
        Ok(dims) => Ok((Expr::constant(size), order, dims)),
        Err(dims) => Err(Fault::Invalid(format!("the operand has rank {}, and 4 is needed", dims.len()))),
    }
}

fn depth_to_space(cx: &mut Cx<'_, '_>) -> Imported {
    let (size, order, [n, c, h, w]) = blocks(cx)?;
    let channels = c.floor_div(&(size.clone() * size.clone()));
    let (split, perm) = match order {
        DepthOrder::Dcr => {
            (vec![n.clone(), size.clone(), size.clone(), channels.clone(), h.clone(), w.clone()], [0, 3, 4, 1, 5, 2])
        }
        DepthOrder::Crd => {
            (vec![n.clone(), channels.clone(), size.clone(), size.clone(), h.clone(), w.clone()], [0, 1, 4, 2, 5, 3])
        }
    };
    let x = cx.input(0)?;
    let split = cx.b.reshape(x, split)?;
    let moved = cx.b.transpose(split, &perm)?;
    one(cx.b.reshape(moved, vec![n, channels, h * size.clone(), w * size])?)
}

fn space_to_depth(cx: &mut Cx<'_, '_>) -> Imported {
    let (size, order, [n, c, h, w]) = blocks(cx)?;
    let (rows, columns) = (h.floor_div(&size), w.floor_div(&size));
    let split = vec![n.clone(), c.clone(), rows.clone(), size.clone(), columns.clone(), size.clone()];
    let perm = match order {
        DepthOrder::Dcr => [0, 3, 5, 1, 2, 4],
        DepthOrder::Crd => [0, 1, 3, 5, 2, 4],
    };
    let x = cx.input(0)?;
    let split = cx.b.reshape(x, split)?;
    let moved = cx.b.transpose(split, &perm)?;
    one(cx.b.reshape(moved, vec![n, c * size.clone() * size, rows, columns])?)
}
