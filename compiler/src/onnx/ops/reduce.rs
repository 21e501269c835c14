//! Reductions over axes, and the positions of extremes (ONNX "Reduction" operators, ArgMax, ArgMin).
//!
//! The axes are an attribute in old operator sets and an operand in new ones. They must be constants: a rank cannot
//! depend on data.

use lapidary_runtime::op::{Arg, ArgReduce, ReduceKind, ScalarOp};

use super::entry::{op, unary};
use super::{Cx, Imported, OpDef, one, operands};
use crate::ir::builder::Built;
use crate::ir::{Builder, Expr, Op, ValueId};

pub const DEFS: &[OpDef] = &[
    unary("ReduceL1", 1, |cx| over_attribute(cx, ReduceKind::L1)),
    op("ReduceL1", 18, (1, 2), |cx| over_operand(cx, ReduceKind::L1)),
    unary("ReduceL2", 1, |cx| over_attribute(cx, ReduceKind::L2)),
    op("ReduceL2", 18, (1, 2), |cx| over_operand(cx, ReduceKind::L2)),
    unary("ReduceLogSum", 1, |cx| over_attribute(cx, ReduceKind::LogSum)),
    op("ReduceLogSum", 18, (1, 2), |cx| over_operand(cx, ReduceKind::LogSum)),
    unary("ReduceLogSumExp", 1, |cx| over_attribute(cx, ReduceKind::LogSumExp)),
    op("ReduceLogSumExp", 18, (1, 2), |cx| over_operand(cx, ReduceKind::LogSumExp)),
    unary("ReduceMax", 1, |cx| over_attribute(cx, ReduceKind::Max)),
    op("ReduceMax", 18, (1, 2), |cx| over_operand(cx, ReduceKind::Max)),
    unary("ReduceMean", 1, |cx| over_attribute(cx, ReduceKind::Mean)),
    op("ReduceMean", 18, (1, 2), |cx| over_operand(cx, ReduceKind::Mean)),
    unary("ReduceMin", 1, |cx| over_attribute(cx, ReduceKind::Min)),
    op("ReduceMin", 18, (1, 2), |cx| over_operand(cx, ReduceKind::Min)),
    unary("ReduceProd", 1, |cx| over_attribute(cx, ReduceKind::Prod)),
    op("ReduceProd", 18, (1, 2), |cx| over_operand(cx, ReduceKind::Prod)),
    unary("ReduceSum", 1, |cx| over_attribute(cx, ReduceKind::Sum)),
    op("ReduceSum", 13, (1, 2), |cx| over_operand(cx, ReduceKind::Sum)),
    unary("ReduceSumSquare", 1, |cx| over_attribute(cx, ReduceKind::SumSquare)),
    op("ReduceSumSquare", 18, (1, 2), |cx| over_operand(cx, ReduceKind::SumSquare)),
    unary("ArgMax", 1, |cx| arg_reduce(cx, Extreme::Largest)),
    unary("ArgMin", 1, |cx| arg_reduce(cx, Extreme::Smallest)),
];

fn over_attribute(cx: &mut Cx<'_, '_>, kind: ReduceKind) -> Imported {
    let axes = cx.attrs.ints_or("axes", &[])?.to_vec();
    reduce(cx, kind, &axes, WithoutAxes::ReduceAll)
}

fn over_operand(cx: &mut Cx<'_, '_>, kind: ReduceKind) -> Imported {
    let axes = operands::optional_ints(cx, 1, "axes")?.unwrap_or_default();
    let noop = cx.attrs.flag_or("noop_with_empty_axes", 0)?;
    reduce(cx, kind, &axes, if noop { WithoutAxes::ReduceNone } else { WithoutAxes::ReduceAll })
}

/// What an empty list of axes means.
enum WithoutAxes {
    ReduceAll,
    ReduceNone,
}

fn reduce(cx: &mut Cx<'_, '_>, kind: ReduceKind, axes: &[i64], without: WithoutAxes) -> Imported {
    let x = cx.input(0)?;
    let keep = cx.attrs.flag_or("keepdims", 1)?;
    let rank = cx.b.rank(x);
    let axes = match without {
        WithoutAxes::ReduceAll if axes.is_empty() => (0..rank).collect(),
        WithoutAxes::ReduceAll | WithoutAxes::ReduceNone => cx.axes(axes, rank)?,
    };
    let reduced = if axes.is_empty() { single(&mut cx.b, kind, x)? } else { cx.b.reduce(kind, x, &axes)? };
    one(if keep { reduced } else { without_axes(&mut cx.b, reduced, &axes)? })
}

/// The reduction of each element by itself.
fn single(b: &mut Builder<'_>, kind: ReduceKind, x: ValueId) -> Built {
    match kind {
        ReduceKind::Sum
        | ReduceKind::Mean
        | ReduceKind::Max
        | ReduceKind::Min
        | ReduceKind::Prod
        | ReduceKind::LogSumExp => Ok(x),
        ReduceKind::L1 | ReduceKind::L2 => b.unary(ScalarOp::Abs, x),
        ReduceKind::SumSquare => b.program(&[x], |p| p.push(ScalarOp::Mul, &[Arg::Input(0), Arg::Input(0)])),
        ReduceKind::LogSum => b.unary(ScalarOp::Log, x),
    }
}

/// `x` without `axes`, which have extent 1.
fn without_axes(b: &mut Builder<'_>, x: ValueId, axes: &[usize]) -> Built {
    let dims = b.dims(x).into_iter().enumerate();
    let kept: Vec<Expr> = dims.filter(|(axis, _)| !axes.contains(axis)).map(|(_, dim)| dim).collect();
    b.reshape(x, kept)
}

/// Which element is looked for.
enum Extreme {
    Largest,
    Smallest,
}

fn arg_reduce(cx: &mut Cx<'_, '_>, extreme: Extreme) -> Imported {
    let x = cx.input(0)?;
    let axis = cx.attrs.int_or("axis", 0)?;
    let axis = cx.axis(axis, cx.b.rank(x))?;
    let keep = cx.attrs.flag_or("keepdims", 1)?;
    let select_last = cx.attrs.flag_or("select_last_index", 0)?;
    let largest = matches!(extreme, Extreme::Largest);
    let found = cx.b.node(Op::ArgReduce(ArgReduce { largest, axis: axis as u8, select_last }), &[x])?;
    one(if keep { found } else { without_axes(&mut cx.b, found, &[axis])? })
}
