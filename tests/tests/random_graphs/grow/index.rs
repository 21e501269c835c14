//! Gathers and scatters. Indices are in range: constants, or values taken modulo the extent. Where a later write
//! would win over an earlier one, no place is written twice, since the order is nobody's promise.

use lapidary::ir::{Expr, Op, ValueId};
use lapidary_runtime::DType;
use lapidary_runtime::op::{Arg, ScalarOp, ScatterMode};

use super::super::data::Random;
use super::super::recipe::Choices;
use super::{Grower, Grown};

/// An axis with a constant extent that is not 0, and the extent.
fn axis(g: &Grower<'_>, x: ValueId, choices: &mut Choices<'_>) -> Result<(usize, i64), String> {
    let dims = &g.graph.ty(x).dims;
    let axis = choices.below(dims.len());
    let extent = dims.get(axis).and_then(Expr::as_const).filter(|&extent| extent > 0);
    extent.map(|extent| (axis, extent)).ok_or_else(|| "no constant extent".to_owned())
}

fn index_type(choices: &mut Choices<'_>) -> DType {
    choices.pick(&[DType::I64, DType::I32])
}

/// Values from `-extent` to `extent - 1`.
fn random_indices(count: i64, extent: i64, choices: &mut Choices<'_>) -> Vec<i64> {
    let mut random = Random::new(choices.seed());
    (0..count).map(|_| random.below(2 * extent as usize) as i64 - extent).collect()
}

/// Integers of the shape of `like`, from 0 to `extent - 1`.
fn computed_indices(
    g: &mut Grower<'_>,
    like: ValueId,
    extent: i64,
    choices: &mut Choices<'_>,
) -> Result<ValueId, String> {
    let dtype = index_type(choices);
    let mut b = g.builder();
    let whole = b.cast(like, dtype)?;
    b.program(&[whole], |p| {
        let extent = p.imm(Arg::Input(0), extent as f64);
        p.push(ScalarOp::Mod, &[Arg::Input(0), extent])
    })
}

pub fn gather(g: &mut Grower<'_>, choices: &mut Choices<'_>) -> Grown {
    let x = g.value(choices, |ty| !ty.dims.is_empty())?;
    let (axis, extent) = axis(g, x, choices)?;
    let indices = if choices.once_in(3) {
        let like = g.value(choices, |ty| ty.dims.len() <= 2)?;
        computed_indices(g, like, extent, choices)?
    } else {
        let dims = choices.pick::<&[i64]>(&[&[], &[1], &[3], &[2, 2], &[0]]);
        let values = random_indices(dims.iter().product(), extent, choices);
        g.indices(index_type(choices), dims, &values)
    };
    Ok(vec![g.builder().node(Op::Gather { axis: axis as u8 }, &[x, indices])?])
}

pub fn gather_elements(g: &mut Grower<'_>, choices: &mut Choices<'_>) -> Grown {
    let x = g.value(choices, |ty| !ty.dims.is_empty())?;
    let (axis, extent) = axis(g, x, choices)?;
    let like = g.value(choices, |ty| ty.dims == g.graph.ty(x).dims)?;
    let indices = computed_indices(g, like, extent, choices)?;
    Ok(vec![g.builder().node(Op::GatherElements { axis: axis as u8 }, &[x, indices])?])
}

/// Constant indices of `points` places in the leading `depth` axes, and those extents.
fn points(g: &mut Grower<'_>, x: ValueId, points: i64, choices: &mut Choices<'_>) -> Result<(ValueId, usize), String> {
    let dims = g.ty(x).dims;
    let leading: Vec<i64> = dims.iter().map_while(Expr::as_const).take_while(|&extent| extent > 0).collect();
    if leading.is_empty() {
        return Err("no leading constant extents".to_owned());
    }
    let depth = 1 + choices.below(leading.len());
    // Different places: the points count through the leading axes from a random one.
    let places: i64 = leading[..depth].iter().product();
    let points = points.min(places);
    let first = choices.between(0, places - 1);
    let mut values = Vec::new();
    for k in 0..points {
        let mut place = (first + k) % places;
        let mut index = Vec::new();
        for &extent in leading[..depth].iter().rev() {
            index.insert(0, place % extent);
            place /= extent;
        }
        values.extend(index);
    }
    let indices = g.indices(DType::I64, &[points, depth as i64], &values);
    Ok((indices, depth))
}

pub fn gather_nd(g: &mut Grower<'_>, choices: &mut Choices<'_>) -> Grown {
    let x = g.value(choices, |ty| !ty.dims.is_empty())?;
    let count = choices.between(1, 4);
    let (indices, _) = points(g, x, count, choices)?;
    Ok(vec![g.builder().node(Op::GatherNd { batch_dims: 0 }, &[x, indices])?])
}

/// Each of a batch has places of its own.
pub fn gather_nd_in_batches(g: &mut Grower<'_>, choices: &mut Choices<'_>) -> Grown {
    let x = g.value(choices, |ty| ty.dims.len() >= 2)?;
    let dims = g.ty(x).dims;
    let leading: Vec<i64> = dims.iter().map_while(Expr::as_const).take_while(|&extent| extent > 0).collect();
    if leading.len() < 2 {
        return Err("no two leading constant extents".to_owned());
    }
    let batch = 1 + choices.below(leading.len() - 1);
    let depth = 1 + choices.below(leading.len() - batch);
    let points: i64 = leading[..batch].iter().product::<i64>() * choices.between(1, 3);
    let extents = &leading[batch..batch + depth];
    let mut random = Random::new(choices.seed());
    let place = |extent: i64, random: &mut Random| random.below(2 * extent as usize) as i64 - extent;
    let tuples =
        (0..points).flat_map(|_| extents.iter().map(|&extent| place(extent, &mut random)).collect::<Vec<i64>>());
    let values: Vec<i64> = tuples.collect();
    let mut shape = leading[..batch].to_vec();
    shape.push(points / leading[..batch].iter().product::<i64>());
    shape.push(depth as i64);
    let indices = g.indices(index_type(choices), &shape, &values);
    Ok(vec![g.builder().node(Op::GatherNd { batch_dims: batch as u8 }, &[x, indices])?])
}

fn mode(dtype: DType, choices: &mut Choices<'_>) -> ScatterMode {
    use ScatterMode::*;
    if dtype == DType::Bool { Set } else { choices.pick(&[Set, Add, Mul, Max, Min]) }
}

pub fn scatter_elements(g: &mut Grower<'_>, choices: &mut Choices<'_>) -> Grown {
    let x = g.value(choices, |ty| !ty.dims.is_empty())?;
    let ty = g.ty(x);
    let (axis, extent) = axis(g, x, choices)?;
    let updates = g.value(choices, |other| *other == ty)?;
    let mut mode = mode(ty.dtype, choices);
    if mode == ScatterMode::Mul && ty.dtype.is_float() {
        // Products of many large numbers leave the range of a type in one order and not in another.
        mode = ScatterMode::Add;
    }
    let indices = if mode == ScatterMode::Set {
        // The axis backwards, broadcast to the whole.
        let values: Vec<i64> = (0..extent).rev().collect();
        let mut dims = vec![1; ty.dims.len()];
        dims[axis] = extent;
        let line = g.indices(DType::I64, &dims, &values);
        g.builder().expand(line, ty.dims.clone())?
    } else {
        let like = g.value(choices, |other| other.dims == ty.dims)?;
        computed_indices(g, like, extent, choices)?
    };
    let op = Op::ScatterElements { axis: axis as u8, mode };
    Ok(vec![g.builder().node(op, &[x, indices, updates])?])
}

pub fn scatter_nd(g: &mut Grower<'_>, choices: &mut Choices<'_>) -> Grown {
    let x = g.value(choices, |ty| !ty.dims.is_empty())?;
    let ty = g.ty(x);
    let count = choices.between(1, 4);
    let (indices, depth) = points(g, x, count, choices)?;
    let rest: Option<Vec<i64>> = ty.dims[depth..].iter().map(Expr::as_const).collect();
    let points = g.ty(indices).dims[0].as_const().unwrap_or(0);
    let dims = [&[points][..], &rest.ok_or("not constant")?].concat();
    let updates = g.constant(ty.dtype, &dims, choices);
    let mode = mode(ty.dtype, choices);
    Ok(vec![g.builder().node(Op::ScatterNd { mode }, &[x, indices, updates])?])
}
