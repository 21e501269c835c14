//! The different elements of a tensor, or parts along an axis (ONNX Unique).

use lapidary_runtime::DType;
use lapidary_runtime::op::{Arg, ReduceKind, Scalar, ScalarOp, ScatterMode};

use super::counted::Marked;
use super::entry::unary;
use super::positions::positions;
use super::{Cx, Fault, Imported, OpDef};
use crate::ir::{Builder, Expr, Op, ValueId};

pub const DEFS: &[OpDef] = &[OpDef { outputs: (1, 4), ..unary("Unique", 11, unique) }];

/// Rows are compared column by column, each of which is a sort.
const MAX_COLUMNS: i64 = 64;

/// The different parts along an axis (or, without one, elements): results y, first indices, inverse indices, counts.
/// A NaN is equal to nothing, so each is one of a kind: ONNX leaves it open. Parts are rows of a matrix here. They are sorted, which brings equal ones together, in their order.
fn unique(cx: &mut Cx<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    let sorted = cx.attrs.flag_or("sorted", 1)?;
    let axis = match cx.attrs.int_opt("axis")? {
        Some(axis) => Some(cx.axis(axis, cx.b.rank(x))?),
        None => None,
    };
    let (x, axis) = match axis {
        Some(axis) => (x, axis),
        None => {
            let count = cx.b.ty(x).count();
            (cx.b.reshape(x, vec![count])?, 0)
        }
    };
    let rows = rows_of(cx, x, axis)?;
    let groups = Groups::new(&mut cx.b, rows)?;
    let b = &mut cx.b;
    let zero = b.scalar(Scalar::int(DType::I64, 0));
    let whole = b.extents(vec![groups.starts.extent.clone()], 0)?;
    let line = positions(b, groups.starts.extent.clone(), 0, 1)?;
    // Of each group the first of its parts, and where it starts among the sorted ones.
    let first = groups.starts.gathered(b, groups.order, zero)?;
    let start = groups.starts.gathered(b, line, whole)?;
    let end = b.slice_axis(start, 0, Expr::constant(1), groups.starts.extent.clone())?;
    let begin = b.slice_axis(start, 0, Expr::constant(0), groups.starts.extent.clone())?;
    let sizes = b.binary(ScalarOp::Sub, end, begin)?;
    // Of each part its group.
    let any = b.expand(zero, vec![groups.starts.extent.clone()])?;
    let scatter = Op::ScatterElements { axis: 0, mode: ScatterMode::Set };
    let inverse = b.node(scatter.clone(), &[any, groups.order, groups.of_sorted])?;
    let (first, inverse, sizes) = if sorted {
        (first, inverse, sizes)
    } else {
        // Groups in the order of their first parts.
        let no = b.scalar(Scalar::int(DType::Bool, 0));
        let none = b.expand(no, vec![groups.starts.extent.clone()])?;
        let is_first = b.node(scatter, &[none, groups.order, groups.is_start])?;
        let appearing = Marked::new(b, is_first)?;
        let first_of_part = b.node(Op::Gather { axis: 0 }, &[first, inverse])?;
        let renamed = b.node(Op::Gather { axis: 0 }, &[appearing.places, first_of_part])?;
        let first = appearing.positions(b)?;
        let first = b.slice_axis(first, 0, Expr::constant(0), groups.starts.extent.clone())?;
        let group = b.node(Op::Gather { axis: 0 }, &[inverse, first])?;
        (first, renamed, b.node(Op::Gather { axis: 0 }, &[sizes, group])?)
    };
    let count = groups.starts.count(cx, None)?;
    let b = &mut cx.b;
    let front = |b: &mut Builder<'_>, values| b.slice_axis(values, 0, Expr::constant(0), count.clone());
    let (first, sizes) = (front(b, first)?, front(b, sizes)?);
    let y = b.node(Op::Gather { axis: axis as u8 }, &[x, first])?;
    Ok(vec![Some(y), Some(first), Some(inverse), Some(sizes)])
}

/// The parts of `x` along an axis as rows of a matrix, in a type that can be sorted.
fn rows_of(cx: &mut Cx<'_, '_>, x: ValueId, axis: usize) -> Result<ValueId, Fault> {
    let b = &mut cx.b;
    let extent = b.dims(x)[axis].clone();
    let mut order: Vec<usize> = (0..b.rank(x)).collect();
    order.remove(axis);
    order.insert(0, axis);
    let moved = b.transpose(x, &order)?;
    let moved = if b.dtype(x) == DType::Bool { b.cast(moved, DType::U8)? } else { moved };
    let columns = b.dims(moved)[1..].iter().fold(Expr::constant(1), |count, dim| count * dim.clone());
    if columns.as_const().is_none_or(|columns| columns > MAX_COLUMNS) {
        return Err(Fault::unsupported(
            format!("Unique of parts of {columns} elements is not supported"),
            format!("compare parts of at most {MAX_COLUMNS} elements, or single elements without an axis"),
        ));
    }
    Ok(b.reshape(moved, vec![extent, columns])?)
}

/// Rows in ascending order, equal ones beside each other.
struct Groups {
    /// Of each place in the order the row.
    order: ValueId,
    /// Of each place whether a new group starts there.
    is_start: ValueId,
    /// Of each place the number of its group.
    of_sorted: ValueId,
    starts: Marked,
}

impl Groups {
    fn new(b: &mut Builder<'_>, rows: ValueId) -> Result<Groups, String> {
        let (extent, columns) = (b.dims(rows)[0].clone(), b.dims(rows)[1].as_const().unwrap_or(0));
        let line = positions(b, extent.clone(), 0, 1)?;
        // From the last column to the first, by sorts that keep the order of equals.
        let mut order = line;
        for column in (0..columns).rev() {
            let keys = b.slice_axis(rows, 1, Expr::constant(column), Expr::constant(1))?;
            let keys = b.reshape(keys, vec![extent.clone()])?;
            let keys = b.node(Op::Gather { axis: 0 }, &[keys, order])?;
            let sort = Op::TopK { axis: 0, largest: false, k: extent.clone() };
            let places = b.node_with(sort, &[Some(keys)], 2)?[1].ok_or("the sort has no places")?;
            order = b.node(Op::Gather { axis: 0 }, &[order, places])?;
        }
        let sorted = b.node(Op::Gather { axis: 0 }, &[rows, order])?;
        let before = b.program(&[line], |p| {
            let before = p.push(ScalarOp::Sub, &[Arg::Input(0), p.imm(Arg::Input(0), 1.0)]);
            p.push(ScalarOp::Max, &[before, p.imm(before, 0.0)])
        })?;
        let previous = b.node(Op::Gather { axis: 0 }, &[sorted, before])?;
        let differs = b.program(&[sorted, previous], |p| {
            let differs = p.push(ScalarOp::NotEqual, &[Arg::Input(0), Arg::Input(1)]);
            p.cast(differs, DType::I64)
        })?;
        let differs = b.reduce(ReduceKind::Sum, differs, &[1])?;
        let differs = b.reshape(differs, vec![extent])?;
        let is_start = b.program(&[differs, line], |p| {
            let differs = p.push(ScalarOp::NotEqual, &[Arg::Input(0), p.imm(Arg::Input(0), 0.0)]);
            let first = p.push(ScalarOp::Equal, &[Arg::Input(1), p.imm(Arg::Input(1), 0.0)]);
            p.push(ScalarOp::Or, &[differs, first])
        })?;
        let ones = b.cast(is_start, DType::I64)?;
        let of_sorted = b.node(Op::CumSum { axis: 0, exclusive: false, reverse: false }, &[ones])?;
        let of_sorted =
            b.program(&[of_sorted], |p| p.push(ScalarOp::Sub, &[Arg::Input(0), p.imm(Arg::Input(0), 1.0)]))?;
        Ok(Groups { order, is_start, of_sorted, starts: Marked::new(b, is_start)? })
    }
}
