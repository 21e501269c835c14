//! Writing at computed places (ONNX ScatterElements, its old name Scatter, ScatterND).

use lapidary_runtime::op::ScatterMode;

use super::entry::op;
use super::{Cx, Fault, Imported, OpDef, one};
use crate::ir::Op;

pub const DEFS: &[OpDef] = &[
    op("Scatter", 9, (3, 3), scatter_elements),
    op("ScatterElements", 11, (3, 3), scatter_elements),
    op("ScatterND", 11, (3, 3), scatter_nd),
];

fn mode(cx: &Cx<'_, '_>) -> Result<ScatterMode, Fault> {
    let modes = [
        ("none", ScatterMode::Set),
        ("add", ScatterMode::Add),
        ("mul", ScatterMode::Mul),
        ("max", ScatterMode::Max),
        ("min", ScatterMode::Min),
    ];
    Ok(cx.attrs.choice_or("reduction", ScatterMode::Set, &modes)?)
}

fn scatter_elements(cx: &mut Cx<'_, '_>) -> Imported {
    let (data, indices, updates) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let mode = mode(cx)?;
    let axis = cx.attrs.int_or("axis", 0)?;
    let axis = cx.axis(axis, cx.b.rank(data))? as u8;
    one(cx.b.node(Op::ScatterElements { axis, mode }, &[data, indices, updates])?)
}

fn scatter_nd(cx: &mut Cx<'_, '_>) -> Imported {
    let (data, indices, updates) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let mode = mode(cx)?;
    one(cx.b.node(Op::ScatterNd { mode }, &[data, indices, updates])?)
}
