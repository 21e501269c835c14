//! Reading at computed places (ONNX Gather, GatherElements, GatherND, ReverseSequence).

use lapidary_runtime::DType;
use lapidary_runtime::op::{Arg, ScalarOp};

use super::entry::binary;
use super::positions::positions;
use super::{Cx, Imported, OpDef, one};
use crate::ir::builder::Built;
use crate::ir::{Builder, Expr, Op, ValueId};

pub const DEFS: &[OpDef] = &[
    binary("Gather", 1, gather),
    binary("GatherElements", 11, gather_elements),
    binary("GatherND", 11, gather_nd),
    binary("ReverseSequence", 10, reverse_sequence),
];

fn gather(cx: &mut Cx<'_, '_>) -> Imported {
    let (data, indices) = (cx.input(0)?, cx.input(1)?);
    let axis = cx.attrs.int_or("axis", 0)?;
    let axis = cx.axis(axis, cx.b.rank(data))? as u8;
    one(cx.b.node(Op::Gather { axis }, &[data, indices])?)
}

fn gather_elements(cx: &mut Cx<'_, '_>) -> Imported {
    let (data, indices) = (cx.input(0)?, cx.input(1)?);
    let axis = cx.attrs.int_or("axis", 0)?;
    let axis = cx.axis(axis, cx.b.rank(data))? as u8;
    one(cx.b.node(Op::GatherElements { axis }, &[data, indices])?)
}

fn gather_nd(cx: &mut Cx<'_, '_>) -> Imported {
    let (data, indices) = (cx.input(0)?, cx.input(1)?);
    let batch = cx.attrs.int_or("batch_dims", 0)?;
    let Some(batch_dims) = u8::try_from(batch).ok().filter(|&batch| usize::from(batch) < cx.b.rank(data)) else {
        return Err(format!("batch_dims is {batch}, and the data has rank {}", cx.b.rank(data)).into());
    };
    one(cx.b.node(Op::GatherNd { batch_dims }, &[data, indices])?)
}

/// Position t of a sequence of length n reads n - 1 - t, and t itself from n on.
fn reverse_sequence(cx: &mut Cx<'_, '_>) -> Imported {
    let (x, lengths) = (cx.input(0)?, cx.input(1)?);
    let dims = cx.b.dims(x);
    let time = cx.attrs.int_or("time_axis", 0)?;
    let time = cx.axis(time, dims.len())?;
    let batch = cx.attrs.int_or("batch_axis", 1)?;
    let batch = cx.axis(batch, dims.len())?;
    one(reversed(&mut cx.b, x, lengths, time, batch)?)
}

/// The sequences along axis `time` of `x` from their ends on; `lengths` has that of each along axis `batch`.
pub(super) fn reversed(b: &mut Builder<'_>, x: ValueId, lengths: ValueId, time: usize, batch: usize) -> Built {
    let dims = b.dims(x);
    if time == batch || b.rank(lengths) != 1 {
        return Err("it needs two different axes, and a vector of lengths".into());
    }
    let given = b.dims(lengths)[0].clone();
    b.require_equal(&given, &dims[batch])?;
    let mut along_batch = vec![Expr::constant(1); dims.len()];
    along_batch[batch] = given;
    let lengths = b.reshape(lengths, along_batch)?;
    let steps = positions(b, dims[time].clone(), time, dims.len())?;
    let places = b.program(&[steps, lengths], |p| {
        let (step, length) = (Arg::Input(0), p.cast(Arg::Input(1), DType::I64));
        let last = p.push(ScalarOp::Sub, &[length, p.imm(length, 1.0)]);
        let mirrored = p.push(ScalarOp::Sub, &[last, step]);
        let inside = p.push(ScalarOp::Less, &[step, length]);
        p.push(ScalarOp::Select, &[inside, mirrored, step])
    })?;
    let places = b.expand(places, dims)?;
    b.node(Op::GatherElements { axis: time as u8 }, &[x, places])
}
