//! What goes through an axis in order: the largest elements and running sums (ONNX TopK, CumSum).

use super::entry::{binary, op};
use super::{Cx, Fault, Imported, OpDef, one, operands};
use crate::ir::{Expr, Op};

pub const DEFS: &[OpDef] = &[
    OpDef { outputs: (1, 2), ..op("TopK", 1, (1, 1), top_k_attribute) },
    OpDef { outputs: (1, 2), ..op("TopK", 10, (2, 2), top_k_operand) },
    binary("CumSum", 11, cum_sum),
];

fn top_k_attribute(cx: &mut Cx<'_, '_>) -> Imported {
    let k = cx.attrs.int("k")?;
    top_k(cx, Expr::constant(k))
}

fn top_k_operand(cx: &mut Cx<'_, '_>) -> Imported {
    let k = operands::known_scalar(cx, 1, "number of elements")?;
    top_k(cx, k)
}

/// Results values and indices. Where the node asks for no order, the descending one is as good as any.
fn top_k(cx: &mut Cx<'_, '_>, k: Expr) -> Imported {
    cx.attrs.flag_or("sorted", 1)?;
    let x = cx.input(0)?;
    let largest = cx.attrs.flag_or("largest", 1)?;
    let axis = cx.attrs.int_or("axis", -1)?;
    let axis = cx.axis(axis, cx.b.rank(x))? as u8;
    let wanted = if cx.wants(1) { 2 } else { 1 };
    Ok(cx.b.node_with(Op::TopK { axis, largest, k }, &[Some(x)], wanted)?)
}

fn cum_sum(cx: &mut Cx<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    let (exclusive, reverse) = (cx.attrs.flag_or("exclusive", 0)?, cx.attrs.flag_or("reverse", 0)?);
    let axes = operands::optional_ints(cx, 1, "axis")?.unwrap_or_default();
    let [axis] = axes.as_slice() else {
        return Err(Fault::Invalid(format!("the axis must be one number, and has {}", axes.len())));
    };
    let axis = cx.axis(*axis, cx.b.rank(x))? as u8;
    one(cx.b.node(Op::CumSum { axis, exclusive, reverse }, &[x])?)
}
