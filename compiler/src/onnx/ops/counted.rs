//! Results that have as many elements as the data decides: what they are made of, and ONNX NonZero and Compress.
//!
//! All work at the size that bounds the result, with one more place at the end for what does not count, and take the
//! counted elements from the front last of all: so most of them runs before anybody has to know the count.

use lapidary_runtime::DType;
use lapidary_runtime::op::{Arg, ReduceKind, Scalar, ScalarOp, ScatterMode};

use super::entry::{binary, unary};
use super::positions::positions;
use super::{Cx, Fault, Imported, OpDef, one};
use crate::ir::builder::Built;
use crate::ir::{Builder, Expr, Op, ValueId};

pub const DEFS: &[OpDef] = &[unary("NonZero", 9, non_zero), binary("Compress", 9, compress)];

/// The elements of a vector that a mask marks.
pub(super) struct Marked {
    /// How many elements the mask has.
    pub(super) extent: Expr,
    /// Of each element its place among the marked ones, and for those that are not, the extent: the last place of
    /// [`Marked::gathered`].
    pub(super) places: ValueId,
    /// How many are marked, an `i64` scalar.
    count: ValueId,
}

impl Marked {
    /// `mask` is a `bool` vector.
    pub(super) fn new(b: &mut Builder<'_>, mask: ValueId) -> Result<Marked, String> {
        let extent = b.dims(mask)[0].clone();
        let ones = b.cast(mask, DType::I64)?;
        let before = b.node(Op::CumSum { axis: 0, exclusive: true, reverse: false }, &[ones])?;
        let last = b.extents(vec![extent.clone()], 0)?;
        let places = b.select(mask, before, last)?;
        let count = b.reduce(ReduceKind::Sum, ones, &[0])?;
        let count = b.reshape(count, Vec::new())?;
        Ok(Marked { extent, places, count })
    }

    /// The marked of `values` in their order, then `rest`: as long as the mask, and one element more.
    pub(super) fn gathered(&self, b: &mut Builder<'_>, values: ValueId, rest: ValueId) -> Built {
        let rest = b.expand(rest, vec![self.extent.clone() + Expr::constant(1)])?;
        b.node(Op::ScatterElements { axis: 0, mode: ScatterMode::Set }, &[rest, self.places, values])
    }

    /// The positions of the marked elements, then zeros: as long as the mask, and one element more.
    pub(super) fn positions(&self, b: &mut Builder<'_>) -> Built {
        let all = positions(b, self.extent.clone(), 0, 1)?;
        let zero = b.scalar(Scalar::int(DType::I64, 0));
        self.gathered(b, all, zero)
    }

    /// The extent of what is marked; `most` is what the operator says of it beyond the mask's extent.
    pub(super) fn count(&self, cx: &mut Cx<'_, '_>, most: Option<Expr>) -> Result<Expr, Fault> {
        cx.count(self.count, most.unwrap_or_else(|| self.extent.clone()))
    }
}

/// Whether each element is not 0, as a vector.
pub(super) fn mask_of(b: &mut Builder<'_>, x: ValueId) -> Built {
    let mask = b.cast(x, DType::Bool)?;
    let count = b.ty(mask).count();
    b.reshape(mask, vec![count])
}

/// The positions of the elements that are not 0, an `i64` of shape `[rank, count]`.
fn non_zero(cx: &mut Cx<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    let dims = cx.b.dims(x);
    let mask = mask_of(&mut cx.b, x)?;
    let marked = Marked::new(&mut cx.b, mask)?;
    let flat = marked.positions(&mut cx.b)?;
    let count = marked.count(cx, None)?;
    let b = &mut cx.b;
    if dims.len() <= 1 {
        let found = b.slice_axis(flat, 0, Expr::constant(0), count.clone())?;
        let found = b.reshape(found, vec![Expr::constant(1), count])?;
        return one(b.slice_axis(found, 0, Expr::constant(0), Expr::from(dims.len()))?);
    }
    let rows = coordinates(b, flat, &dims)?;
    let extent = marked.extent.clone() + Expr::constant(1);
    let rows: Vec<ValueId> = rows
        .into_iter()
        .map(|row| b.reshape(row, vec![Expr::constant(1), extent.clone()]))
        .collect::<Result<_, _>>()?;
    let rows = b.concat(&rows, 0)?;
    one(b.slice_axis(rows, 1, Expr::constant(0), count)?)
}

/// Of each position in a tensor of shape `dims`, counted in row-major order, the index along each axis.
pub(super) fn coordinates(b: &mut Builder<'_>, flat: ValueId, dims: &[Expr]) -> Result<Vec<ValueId>, String> {
    let mut rest = flat;
    let mut rows = Vec::with_capacity(dims.len());
    for dim in dims.iter().rev() {
        let dim = b.extents(vec![dim.clone()], 0)?;
        // An empty tensor has no positions; what stands in for them must not divide by 0.
        let dim = b.program(&[dim], |p| p.push(ScalarOp::Max, &[Arg::Input(0), p.imm(Arg::Input(0), 1.0)]))?;
        rows.push(b.binary(ScalarOp::Mod, rest, dim)?);
        rest = b.binary(ScalarOp::Div, rest, dim)?;
    }
    rows.reverse();
    Ok(rows)
}

/// The parts along an axis (or, without one, the elements) that a mask marks. A mask may be shorter than the axis.
fn compress(cx: &mut Cx<'_, '_>) -> Imported {
    let (x, mask) = (cx.input(0)?, cx.input(1)?);
    let (x, axis) = match cx.attrs.int_opt("axis")? {
        Some(axis) => (x, cx.axis(axis, cx.b.rank(x))?),
        None => {
            let count = cx.b.ty(x).count();
            (cx.b.reshape(x, vec![count])?, 0)
        }
    };
    if cx.b.dtype(mask) != DType::Bool || cx.b.rank(mask) != 1 {
        return Err(Fault::Invalid("the condition must be a vector of bool".to_owned()));
    }
    let (given, whole) = (cx.b.dims(mask)[0].clone(), cx.b.dims(x)[axis].clone());
    let mask = if cx.b.range(&(whole.clone() - given.clone())).0 >= 0 {
        mask
    } else if cx.b.range(&(given.clone() - whole.clone())).0 > 0 {
        return Err(Fault::Invalid(format!("the condition has {given} elements, and the axis {whole}")));
    } else {
        // Only the shape of a run says which is shorter.
        cx.b.require_equal(&given, &whole)?;
        mask
    };
    let marked = Marked::new(&mut cx.b, mask)?;
    let positions = marked.positions(&mut cx.b)?;
    let count = marked.count(cx, None)?;
    let found = cx.b.slice_axis(positions, 0, Expr::constant(0), count)?;
    one(cx.b.node(Op::Gather { axis: axis as u8 }, &[x, found])?)
}
