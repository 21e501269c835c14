//! Choosing boxes of detectors (ONNX NonMaxSuppression).

use lapidary_runtime::DType;
use lapidary_runtime::op::{Arg, Scalar, ScalarOp};

use super::counted::{Marked, coordinates, mask_of};
use super::entry::op;
use super::{Cx, Fault, Imported, OpDef, one, operands};
use crate::ir::{Builder, Expr, Op, ValueId};

pub const DEFS: &[OpDef] = &[op("NonMaxSuppression", 10, (2, 5), non_max_suppression)];

/// The boxes that stay, `i64[count, 3]`: batch, class, box; by batch and class, the best first. Operands boxes
/// `[batches, n, 4]`, scores `[batches, classes, n]`, and scalars: the largest number of boxes of a class, the threshold of
/// what two share of what they cover together, the least score.
fn non_max_suppression(cx: &mut Cx<'_, '_>) -> Imported {
    let (boxes, scores) = (cx.input(0)?, cx.input(1)?);
    if cx.b.rank(boxes) != 3 || cx.b.rank(scores) != 3 {
        return Err(Fault::Invalid("boxes and scores have three axes".to_owned()));
    }
    let most_known = match cx.optional(2) {
        Some(value) => cx.b.known_ints(value).and_then(|most| most.first().copied()),
        None => Some(0),
    };
    let most = match operands::scalar(cx, 2)? {
        Some(most) => most,
        None => cx.b.scalar(Scalar::int(DType::I64, 0)),
    };
    let threshold = match operands::scalar(cx, 3)? {
        Some(threshold) => threshold,
        None => cx.b.scalar(Scalar::float(DType::F32, 0.0)),
    };
    let least = operands::scalar(cx, 4)?;
    let corners = corners(cx, boxes)?;
    let dims = cx.b.dims(scores);
    let [batches, classes, n] = dims.as_slice() else {
        return Err(Fault::Invalid("scores have three axes".to_owned()));
    };
    let sort = Op::TopK { axis: 2, largest: true, k: n.clone() };
    let sorted = cx.b.node_with(sort, &[Some(scores)], 2)?;
    let (Some(scores), Some(order)) = (sorted[0], sorted[1]) else { return Err("the sort has no results".into()) };
    let eligible = match least {
        Some(least) => cx.b.binary(ScalarOp::Greater, scores, least)?,
        None => {
            let yes = cx.b.scalar(Scalar::int(DType::Bool, 1));
            cx.b.expand(yes, dims.clone())?
        }
    };
    let keep = cx.b.node(Op::Suppress, &[corners, order, eligible, threshold, most])?;
    let mask = mask_of(&mut cx.b, keep)?;
    let marked = Marked::new(&mut cx.b, mask)?;
    let flat = marked.positions(&mut cx.b)?;
    let b = &mut cx.b;
    let places = coordinates(b, flat, &dims)?;
    let order = b.reshape(order, vec![marked.extent.clone()])?;
    // One place more, so that what is not kept, and has place 0, finds something where there are no boxes.
    let none = b.i64s(&[0]);
    let order = b.concat(&[order, none], 0)?;
    let index = b.node(Op::Gather { axis: 0 }, &[order, flat])?;
    let extent = marked.extent.clone() + Expr::constant(1);
    let columns: Vec<ValueId> = [places[0], places[1], index]
        .into_iter()
        .map(|column| b.reshape(column, vec![extent.clone(), Expr::constant(1)]))
        .collect::<Result<_, _>>()?;
    let rows = b.concat(&columns, 1)?;
    let bound = most_known
        .map(|most| batches.clone() * classes.clone() * n.smaller(&Expr::constant(most.max(0))))
        .filter(|bound| b.range(&(marked.extent.clone() - bound.clone())).0 >= 0);
    let count = marked.count(cx, bound)?;
    one(cx.b.slice_axis(rows, 0, Expr::constant(0), count)?)
}

/// Boxes as top, left, bottom, right, from any two corners or from centres and sizes, as the node says.
fn corners(cx: &mut Cx<'_, '_>, boxes: ValueId) -> Result<ValueId, Fault> {
    let centres = match cx.attrs.int_or("center_point_box", 0)? {
        0 => false,
        1 => true,
        other => return Err(Fault::Invalid(format!("center_point_box is {other}, and must be 0 or 1"))),
    };
    let b = &mut cx.b;
    let column = |b: &mut Builder<'_>, k: i64| b.slice_axis(boxes, 2, Expr::constant(k), Expr::constant(1));
    let [first, second, third, fourth] = [column(b, 0)?, column(b, 1)?, column(b, 2)?, column(b, 3)?];
    let pair = |b: &mut Builder<'_>, from: ValueId, to: ValueId| -> Result<[ValueId; 2], String> {
        Ok(if centres {
            // A centre and a size.
            let half = b.program(&[to], |p| p.push(ScalarOp::Mul, &[Arg::Input(0), p.imm(Arg::Input(0), 0.5)]))?;
            [b.binary(ScalarOp::Sub, from, half)?, b.binary(ScalarOp::Add, from, half)?]
        } else {
            [b.binary(ScalarOp::Min, from, to)?, b.binary(ScalarOp::Max, from, to)?]
        })
    };
    // Corners are y, x; centres are x, y, width, height.
    let (y, x) = if centres { ((second, fourth), (first, third)) } else { ((first, third), (second, fourth)) };
    let ([top, bottom], [left, right]) = (pair(b, y.0, y.1)?, pair(b, x.0, x.1)?);
    Ok(b.concat(&[top, left, bottom, right], 2)?)
}
