//! What goes through an axis in order: the largest elements, running sums and products (ONNX TopK, CumSum, CumProd).

use lapidary_runtime::op::{Arg, ReduceKind, ScalarOp};

use super::entry::{binary, op};
use super::positions::positions;
use super::{Cx, Fault, Imported, OpDef, one, operands};
use crate::ir::{Expr, Op};

pub const DEFS: &[OpDef] = &[
    OpDef { outputs: (1, 2), ..op("TopK", 1, (1, 1), top_k_attribute) },
    OpDef { outputs: (1, 2), ..op("TopK", 10, (2, 2), top_k_operand) },
    binary("CumProd", 26, cum_prod),
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

/// The one axis that operand 1 names.
fn axis_operand(cx: &Cx<'_, '_>, rank: usize) -> Result<usize, Fault> {
    let axes = operands::optional_ints(cx, 1, "axis")?.unwrap_or_default();
    let [axis] = axes.as_slice() else {
        return Err(Fault::Invalid(format!("the axis must be one number, and has {}", axes.len())));
    };
    cx.axis(*axis, rank)
}

fn cum_sum(cx: &mut Cx<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    let (exclusive, reverse) = (cx.attrs.flag_or("exclusive", 0)?, cx.attrs.flag_or("reverse", 0)?);
    let axis = axis_operand(cx, cx.b.rank(x))? as u8;
    one(cx.b.node(Op::CumSum { axis, exclusive, reverse }, &[x])?)
}

/// The longest axis of a running product.
const MAX_FACTORS: i64 = 1024;

/// Each result is the product of a row of its own, with ones for what does not count in it: quadratic in the extent.
fn cum_prod(cx: &mut Cx<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    let dims = cx.b.dims(x);
    let (exclusive, reverse) = (cx.attrs.flag_or("exclusive", 0)?, cx.attrs.flag_or("reverse", 0)?);
    let axis = axis_operand(cx, dims.len())?;
    if cx.b.range(&dims[axis]).1 > MAX_FACTORS {
        return Err(Fault::unsupported(
            format!("CumProd along an axis of {} elements is not supported", dims[axis]),
            format!("keep the extent to {MAX_FACTORS}, or compute exp(CumSum(log(x))) of positive elements"),
        ));
    }
    // The factors of a result lie along the axis behind it.
    let mut apart = dims.clone();
    apart.insert(axis, Expr::constant(1));
    let rows = cx.b.reshape(x, apart)?;
    let result = positions(&mut cx.b, dims[axis].clone(), axis, dims.len() + 1)?;
    let factor = positions(&mut cx.b, dims[axis].clone(), axis + 1, dims.len() + 1)?;
    let op = match (exclusive, reverse) {
        (false, false) => ScalarOp::LessEqual,
        (true, false) => ScalarOp::Less,
        (false, true) => ScalarOp::GreaterEqual,
        (true, true) => ScalarOp::Greater,
    };
    let factors = cx.b.program(&[rows, result, factor], |p| {
        let counts = p.push(op, &[Arg::Input(2), Arg::Input(1)]);
        p.push(ScalarOp::Select, &[counts, Arg::Input(0), p.imm(Arg::Input(0), 1.0)])
    })?;
    let product = cx.b.reduce(ReduceKind::Prod, factors, &[axis + 1])?;
    one(cx.b.reshape(product, dims)?)
}
