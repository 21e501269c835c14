//! Operators as operator set 6 has them, where set 7 changed them: broadcasting only where an attribute asks for it, and
//! `is_test` for inference (ONNX Changelog, versions 1 to 6 of these operators). What is left is what set 7 says.

use super::entry::{binary, op, unary};
use super::{Cx, Fault, Import, Imported, MANY, OpDef, find};
use crate::ir::ValueId;

/// The operator set whose definitions do the work.
const NEXT: i64 = 7;

pub const DEFS: &[OpDef] = &[
    binary("Add", 6, |cx| zip(cx, "Add")),
    binary("And", 1, |cx| zip(cx, "And")),
    binary("Div", 6, |cx| zip(cx, "Div")),
    binary("Equal", 1, |cx| zip(cx, "Equal")),
    binary("Greater", 1, |cx| zip(cx, "Greater")),
    binary("Less", 1, |cx| zip(cx, "Less")),
    binary("Mul", 6, |cx| zip(cx, "Mul")),
    binary("Or", 1, |cx| zip(cx, "Or")),
    binary("Pow", 1, |cx| zip(cx, "Pow")),
    binary("Sub", 6, |cx| zip(cx, "Sub")),
    binary("Xor", 1, |cx| zip(cx, "Xor")),
    binary("PRelu", 6, prelu),
    unary("AveragePool", 1, |cx| as_next(cx, "AveragePool")),
    op("Gemm", 6, (3, 3), gemm),
    OpDef { outputs: (1, MANY), ..op("BatchNormalization", 6, (5, 5), |cx| in_inference(cx, "BatchNormalization")) },
    OpDef { outputs: (1, 2), ..unary("Dropout", 6, |cx| in_inference(cx, "Dropout")) },
];

/// What the next operator set makes of the node.
fn as_next(cx: &mut Cx<'_, '_>, name: &str) -> Imported {
    match find("", name, NEXT).map(|def| def.import) {
        Some(Import::Compose(import)) => import(cx),
        Some(Import::Items(_)) | None => {
            crate::bug!("{name} is not composed in operator set {NEXT}")
        }
    }
}

/// An operator of two operands: of equal shapes, or the second one's axes are those of the first from `axis` on, or its
/// last ones.
fn zip(cx: &mut Cx<'_, '_>, name: &str) -> Imported {
    let (a, b) = (cx.input(0)?, cx.input(1)?);
    let (rank, inner) = (cx.b.rank(a), cx.b.rank(b));
    let broadcasts = cx.attrs.flag_or("broadcast", 0)?;
    let axis = cx.attrs.int_opt("axis")?;
    if !broadcasts {
        if cx.b.dims(a) != cx.b.dims(b) {
            return Err(Fault::Invalid("its operands have different shapes, and it has no broadcast = 1".to_owned()));
        }
        return as_next(cx, name);
    }
    if let Some(axis) = axis {
        let axis = cx.axis(axis, rank)?;
        if axis + inner > rank {
            return Err(Fault::Invalid(format!("an operand of rank {inner} at axis {axis} of one of rank {rank}")));
        }
        let b = cx.b.append_axes(b, rank - axis)?;
        replace(cx, 1, b);
    }
    as_next(cx, name)
}

/// A vector of slopes has one for each channel, axis 1.
fn prelu(cx: &mut Cx<'_, '_>) -> Imported {
    let (x, slope) = (cx.input(0)?, cx.input(1)?);
    let rank = cx.b.rank(x);
    if cx.b.rank(slope) == 1 && rank > 2 {
        let slope = cx.b.append_axes(slope, rank - 1)?;
        replace(cx, 1, slope);
    }
    as_next(cx, "PRelu")
}

/// Whether the bias broadcasts is told by its shape.
fn gemm(cx: &mut Cx<'_, '_>) -> Imported {
    cx.attrs.ignore(&["broadcast"]);
    as_next(cx, "Gemm")
}

/// An operator that trains unless `is_test` says otherwise.
fn in_inference(cx: &mut Cx<'_, '_>, name: &str) -> Imported {
    if !cx.attrs.flag_or("is_test", 0)? {
        return Err(Fault::unsupported(
            format!("{name} in training mode is not supported"),
            "export the model for inference (model.eval() in PyTorch), which sets is_test = 1",
        ));
    }
    as_next(cx, name)
}

fn replace(cx: &mut Cx<'_, '_>, k: usize, value: ValueId) {
    if let Some(operand) = cx.inputs.get_mut(k) {
        *operand = Some(value);
    }
}
