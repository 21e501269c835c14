//! Parts of tensors and tensors of parts (ONNX Slice, Split, Concat).
//!
//! Starts and ends may be formulas over the symbols. They are counted from the start and clamped here; where the
//! bounds of the symbols prove that a clamp does nothing, it is left out, so that the extents stay plain.

use super::entry::{op, unary, variadic};
use super::{Cx, Fault, Imported, MANY, OpDef, one, operands};
use crate::ir::{Builder, Expr};

pub const DEFS: &[OpDef] = &[
    unary("Slice", 1, slice_attributes),
    op("Slice", 10, (3, 5), slice_operands),
    OpDef { outputs: (1, MANY), ..unary("Split", 2, split_attribute) },
    OpDef { outputs: (1, MANY), ..op("Split", 13, (1, 2), split_operand) },
    variadic("Concat", 4, concat),
];

fn slice_attributes(cx: &mut Cx<'_, '_>) -> Imported {
    let constants = |values: &[i64]| values.iter().map(|&value| Expr::constant(value)).collect();
    let starts = constants(cx.attrs.ints("starts")?);
    let ends = constants(cx.attrs.ints("ends")?);
    let axes = cx.attrs.ints_opt("axes")?.map(<[i64]>::to_vec);
    slice(cx, starts, ends, axes, None)
}

fn slice_operands(cx: &mut Cx<'_, '_>) -> Imported {
    let starts = operands::known(cx, 1, "starts")?;
    let ends = operands::known(cx, 2, "ends")?;
    let axes = operands::optional_ints(cx, 3, "axes")?;
    let steps = operands::optional_ints(cx, 4, "steps")?;
    slice(cx, starts, ends, axes, steps)
}

fn slice(
    cx: &mut Cx<'_, '_>,
    starts: Vec<Expr>,
    ends: Vec<Expr>,
    axes: Option<Vec<i64>>,
    steps: Option<Vec<i64>>,
) -> Imported {
    let x = cx.input(0)?;
    let rank = cx.b.rank(x);
    let axes = axes.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = steps.unwrap_or_else(|| vec![1; starts.len()]);
    if [ends.len(), axes.len(), steps.len()] != [starts.len(); 3] {
        return Err("starts, ends, axes and steps must have one length".into());
    }
    cx.axes(&axes, rank)?;
    let mut dims = cx.b.dims(x);
    let mut from = vec![Expr::constant(0); rank];
    let mut by = vec![1; rank];
    for (k, &axis) in axes.iter().enumerate() {
        let axis = cx.axis(axis, rank)?;
        if steps[k] == 0 {
            return Err("a step is 0".into());
        }
        by[axis] = steps[k];
        (from[axis], dims[axis]) = span(&cx.b, &starts[k], &ends[k], steps[k], &dims[axis]);
    }
    one(cx.b.slice(x, from, by, dims)?)
}

/// Where a slice of an axis of extent `dim` starts, and how many elements it has (ONNX Slice-13). That an extent is
/// never negative is used where the bounds of its formula do not show it.
fn span(b: &Builder<'_>, start: &Expr, end: &Expr, step: i64, dim: &Expr) -> (Expr, Expr) {
    let (zero, one) = (Expr::constant(0), Expr::constant(1));
    let start = from_the_start(b, start, dim);
    let end = from_the_start(b, end, dim);
    let (start, distance) = if step > 0 {
        let (start, end) = (within(b, start, &zero, dim), within(b, end, &zero, dim));
        (start.clone(), end - start)
    } else {
        let last = dim.clone() - one;
        let start = at_most(b, at_least(b, start, &zero), &last);
        let end = within(b, end, &Expr::constant(-1), &last);
        (start.clone(), start - end)
    };
    let distance = if distance == *dim { distance } else { at_least(b, distance, &zero) };
    (start, rounded_up(&distance, step.saturating_abs()))
}

/// max(low, min(high, position)), where `low` is not above `high`.
fn within(b: &Builder<'_>, position: Expr, low: &Expr, high: &Expr) -> Expr {
    let raised = at_least(b, position, low);
    if raised == *low { raised } else { at_most(b, raised, high) }
}

/// `distance / step` rounded up, for a positive step; in the form that other counts of windows have, so that equal
/// counts are equal formulas.
pub(super) fn rounded_up(distance: &Expr, step: i64) -> Expr {
    (distance.clone() + Expr::constant(step - 1)).floor_div(&Expr::constant(step))
}

/// More than any extent, and a power of two.
const BEYOND: i64 = 1 << 62;

/// A position counted from the start, where a negative one counts from the end.
fn from_the_start(b: &Builder<'_>, position: &Expr, dim: &Expr) -> Expr {
    match b.range(position) {
        (low, _) if low >= 0 => position.clone(),
        (_, high) if high < 0 => position.clone() + dim.clone(),
        // Rounding down makes -1 of negative positions, and 0 of all others.
        (_, _) => position.clone() - dim.clone() * position.floor_div(&Expr::constant(BEYOND)),
    }
}

/// min(value, bound), without the `min` where the ranges decide.
fn at_most(b: &Builder<'_>, value: Expr, bound: &Expr) -> Expr {
    match b.range(&(value.clone() - bound.clone())) {
        (_, high) if high <= 0 => value,
        (low, _) if low >= 0 => bound.clone(),
        (_, _) => value.smaller(bound),
    }
}

/// max(value, bound), without the `max` where the ranges decide.
fn at_least(b: &Builder<'_>, value: Expr, bound: &Expr) -> Expr {
    match b.range(&(value.clone() - bound.clone())) {
        (low, _) if low >= 0 => value,
        (_, high) if high <= 0 => bound.clone(),
        (_, _) => value.larger(bound),
    }
}

fn split_attribute(cx: &mut Cx<'_, '_>) -> Imported {
    let sizes = cx.attrs.ints_opt("split")?;
    let sizes = sizes.map(|sizes| sizes.iter().map(|&size| Expr::constant(size)).collect());
    split(cx, sizes)
}

fn split_operand(cx: &mut Cx<'_, '_>) -> Imported {
    let sizes = match cx.optional(1) {
        Some(_) => Some(operands::known(cx, 1, "sizes")?),
        None => None,
    };
    split(cx, sizes)
}

fn split(cx: &mut Cx<'_, '_>, sizes: Option<Vec<Expr>>) -> Imported {
    let x = cx.input(0)?;
    let axis = cx.attrs.int_or("axis", 0)?;
    let axis = cx.axis(axis, cx.b.rank(x))?;
    let count = cx.output_count();
    if let Some(asked) = cx.attrs.int_opt("num_outputs")?.filter(|&asked| asked != count as i64) {
        return Err(format!("num_outputs is {asked}, and the node has {count} results").into());
    }
    let dim = cx.b.dims(x)[axis].clone();
    let sizes = match sizes {
        Some(sizes) => sizes,
        None => even_sizes(cx, &dim, count)?,
    };
    if sizes.len() != count {
        return Err(format!("there are {} sizes for {count} results", sizes.len()).into());
    }
    let total = sizes.iter().cloned().fold(Expr::constant(0), |sum, size| sum + size);
    cx.b.require_equal(&total, &dim)?;
    let mut start = Expr::constant(0);
    let mut parts = Vec::with_capacity(count);
    for (k, size) in sizes.into_iter().enumerate() {
        let next = start.clone() + size.clone();
        parts.push(if cx.wants(k) { Some(cx.b.slice_axis(x, axis, start, size)?) } else { None });
        start = next;
    }
    Ok(parts)
}

/// Sizes as equal as ONNX makes them: since operator set 18 the last may be smaller, before that all are equal.
fn even_sizes(cx: &Cx<'_, '_>, dim: &Expr, count: usize) -> Result<Vec<Expr>, Fault> {
    let parts = Expr::from(count);
    if let Some(size) = dim.exact_div(&parts) {
        return Ok(vec![size; count]);
    }
    if cx.opset < 18 {
        if dim.as_const().is_some() {
            return Err(Fault::Invalid(format!("an extent of {dim} does not split into {count} equal parts")));
        }
        // The sum of the parts is compared with the extent, so that what is left over is not lost.
        return Ok(vec![dim.floor_div(&parts); count]);
    }
    let size = rounded_up(dim, count as i64);
    let zero = Expr::constant(0);
    let rest = |k: usize| at_least(&cx.b, dim.clone() - size.clone() * Expr::from(k), &zero);
    let mut sizes: Vec<Expr> = (0..count).map(|k| at_most(&cx.b, rest(k), &size)).collect();
    // The sizes add up by construction, which their sum then shows.
    if dim.as_const().is_none() {
        let before = sizes[..count - 1].iter().cloned().fold(Expr::constant(0), |sum, size| sum + size);
        sizes[count - 1] = dim.clone() - before;
    }
    Ok(sizes)
}

fn concat(cx: &mut Cx<'_, '_>) -> Imported {
    let inputs = cx.inputs()?;
    let axis = cx.attrs.int("axis")?;
    let rank = inputs.first().map_or(0, |&first| cx.b.rank(first));
    let axis = cx.axis(axis, rank)?;
    one(cx.b.concat(&inputs, axis)?)
}
