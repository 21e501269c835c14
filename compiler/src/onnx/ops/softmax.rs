//! Softmax, LogSoftmax and Hardmax (ONNX operators of these names).
//!
//! Up to operator set 12 they flatten: all axes from `axis` on count as one.

use lapidary_runtime::op::{ArgReduce, ScalarOp, Softmax};

use super::entry::unary;
use super::positions::positions;
use super::{Cx, Imported, OpDef, one};
use crate::ir::builder::Built;
use crate::ir::{Builder, Expr, Op, ValueId};

pub const DEFS: &[OpDef] = &[
    unary("Softmax", 1, |cx| flattened(cx, softmax)),
    unary("Softmax", 13, |cx| along_axis(cx, softmax)),
    unary("LogSoftmax", 1, |cx| flattened(cx, log_softmax)),
    unary("LogSoftmax", 13, |cx| along_axis(cx, log_softmax)),
    unary("Hardmax", 1, |cx| flattened(cx, hardmax)),
    unary("Hardmax", 13, |cx| along_axis(cx, hardmax)),
];

/// What is computed along one axis.
pub(super) type Along = fn(&mut Builder<'_>, ValueId, usize) -> Built;

fn along_axis(cx: &mut Cx<'_, '_>, f: Along) -> Imported {
    let x = cx.input(0)?;
    let axis = cx.attrs.int_or("axis", -1)?;
    let axis = cx.axis(axis, cx.b.rank(x))?;
    one(f(&mut cx.b, x, axis)?)
}

fn flattened(cx: &mut Cx<'_, '_>, f: Along) -> Imported {
    let x = cx.input(0)?;
    let axis = cx.attrs.int_or("axis", 1)?;
    let axis = cx.axis(axis, cx.b.rank(x))?;
    one(as_one_axis(&mut cx.b, x, axis, f)?)
}

/// `f` along the axes from `axis` on, as if they were one.
pub(super) fn as_one_axis(b: &mut Builder<'_>, x: ValueId, axis: usize, f: Along) -> Built {
    let dims = b.dims(x);
    let mut flat = dims[..axis].to_vec();
    flat.push(dims[axis..].iter().cloned().fold(Expr::constant(1), |count, dim| count * dim));
    let x = b.reshape(x, flat)?;
    let result = f(b, x, axis)?;
    b.reshape(result, dims)
}

/// exp(x) over its sum along the axis.
pub(super) fn softmax(b: &mut Builder<'_>, x: ValueId, axis: usize) -> Built {
    b.node(Op::Softmax(Softmax { axis: axis as u8, log: false }), &[x])
}

/// The logarithm of [`softmax`].
pub(super) fn log_softmax(b: &mut Builder<'_>, x: ValueId, axis: usize) -> Built {
    b.node(Op::Softmax(Softmax { axis: axis as u8, log: true }), &[x])
}

/// 1 at the first maximum along the axis, 0 elsewhere.
fn hardmax(b: &mut Builder<'_>, x: ValueId, axis: usize) -> Built {
    let (dtype, dims) = (b.dtype(x), b.dims(x));
    let first = b.node(Op::ArgReduce(ArgReduce { largest: true, axis: axis as u8, select_last: false }), &[x])?;
    let positions = positions(b, dims[axis].clone(), axis, dims.len())?;
    let hit = b.binary(ScalarOp::Equal, first, positions)?;
    b.cast(hit, dtype)
}
