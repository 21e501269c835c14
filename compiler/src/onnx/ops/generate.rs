//! Tensors made from little (ONNX ConstantOfShape, Range, OneHot, EyeLike, Trilu): broadcasts of a constant, and
//! comparisons of positions along axes.

use lapidary_runtime::DType;
use lapidary_runtime::op::{Arg, Scalar, ScalarOp};

use super::entry::{op, unary};
use super::positions::positions;
use super::slice::rounded_up;
use super::{Cx, Fault, Imported, OpDef, one, operands};
use crate::ir::builder::round_scalar;
use crate::ir::{Expr, Op, Type, ValueId};
use crate::onnx::dtype_of;

pub const DEFS: &[OpDef] = &[
    unary("ConstantOfShape", 9, constant_of_shape),
    op("Range", 11, (3, 3), range),
    op("OneHot", 9, (3, 3), one_hot),
    unary("EyeLike", 9, eye_like),
    op("Trilu", 14, (1, 2), trilu),
];

fn constant_of_shape(cx: &mut Cx<'_, '_>) -> Imported {
    let dims = operands::known(cx, 0, "shape")?;
    let value = match cx.attrs.tensor_opt("value")? {
        None => cx.b.scalar(round_scalar(DType::F32, 0.0)),
        Some(tensor) => {
            let tensor = cx.model.tensor(tensor, cx.attrs.at())?;
            if tensor.elements() != 1 {
                return Err(format!("the value has {} elements, and must have one", tensor.elements()).into());
            }
            cx.b.constant(Type { dtype: tensor.dtype, dims: Vec::new() }, tensor.data)
        }
    };
    one(cx.b.expand(value, dims)?)
}

/// `start + k * delta` for all k up to, and without, `limit`.
fn range(cx: &mut Cx<'_, '_>) -> Imported {
    let stash = cx.attrs.int_or("stash_type", 1)?;
    let count = range_count(cx)?;
    let (start, delta) = (cx.input(0)?, cx.input(2)?);
    let dtype = cx.b.dtype(start);
    // Halves are computed in f32, as the default of `stash_type` says.
    let wide = if matches!(dtype, DType::F16 | DType::BF16) && stash == 1 { DType::F32 } else { dtype };
    let (start, delta) = (cx.b.cast(start, wide)?, cx.b.cast(delta, wide)?);
    let line = cx.b.node(Op::Range { count }, &[start, delta])?;
    one(cx.b.cast(line, dtype)?)
}

/// max(0, ceil((limit - start) / delta))
fn range_count(cx: &Cx<'_, '_>) -> Result<Expr, Fault> {
    let values = [cx.input(0)?, cx.input(1)?, cx.input(2)?];
    let numbers: Option<Vec<f64>> = (0..3).map(|k| operands::constant_number(cx, k)).collect();
    if let Some([start, limit, delta]) = numbers.as_deref() {
        let count = ((limit - start) / delta).ceil();
        if !count.is_finite() || count > 9e15 {
            return Err(Fault::Invalid(format!("from {start} to {limit} by {delta} there is no number of elements")));
        }
        return Ok(Expr::constant(count.max(0.0) as i64));
    }
    if cx.b.dtype(values[0]).is_float() {
        let open = (0..3).find(|&k| operands::constant_number(cx, k).is_none()).unwrap_or(0);
        return Err(operands::depends_on_data(cx, values[open], "range"));
    }
    let start = operands::known_scalar(cx, 0, "start")?;
    let limit = operands::known_scalar(cx, 1, "limit")?;
    let delta = operands::known_scalar(cx, 2, "delta")?;
    let (distance, step) = match cx.b.range(&delta) {
        (low, _) if low > 0 => (limit - start, delta),
        (_, high) if high < 0 => (start - limit, -delta),
        (_, _) => return Err(Fault::Invalid(format!("the delta {delta} may be 0 or of either sign"))),
    };
    let zero = Expr::constant(0);
    let distance = if cx.b.range(&distance).0 >= 0 { distance } else { distance.larger(&zero) };
    Ok(match step.as_const() {
        Some(step) => rounded_up(&distance, step),
        None => distance.ceil_div(&step),
    })
}

/// `values[1]` where the position along the new axis is the index, `values[0]` elsewhere. Negative indices count from
/// the end; an index out of range hits nothing.
fn one_hot(cx: &mut Cx<'_, '_>) -> Imported {
    let (indices, values) = (cx.input(0)?, cx.input(2)?);
    if cx.b.rank(values) != 1 {
        return Err(format!("values has rank {}, and must have rank 1: off and on", cx.b.rank(values)).into());
    }
    let depth = depth(cx)?;
    let rank = cx.b.rank(indices) + 1;
    let axis = cx.attrs.int_or("axis", -1)?;
    let axis = cx.axis(axis, rank)?;
    let [off, on] = [0, 1].map(|k: i64| {
        let part = cx.b.slice_axis(values, 0, Expr::constant(k), Expr::constant(1))?;
        cx.b.reshape(part, Vec::new())
    });
    let mut dims = cx.b.dims(indices);
    dims.insert(axis, Expr::constant(1));
    let indices = cx.b.reshape(indices, dims)?;
    let positions = positions(&mut cx.b, depth.clone(), axis, rank)?;
    let depth = cx.b.extents(vec![depth], 0)?;
    one(cx.b.program(&[indices, positions, depth, off?, on?], |p| {
        let index = p.cast(Arg::Input(0), DType::I64);
        let negative = p.push(ScalarOp::Less, &[index, p.imm(index, 0.0)]);
        let wrapped = p.push(ScalarOp::Add, &[index, Arg::Input(2)]);
        let index = p.push(ScalarOp::Select, &[negative, wrapped, index]);
        let hit = p.push(ScalarOp::Equal, &[index, Arg::Input(1)]);
        p.push(ScalarOp::Select, &[hit, Arg::Input(4), Arg::Input(3)])
    })?)
}

/// The extent of one-hot's new axis: an integer, or a float that is one.
fn depth(cx: &Cx<'_, '_>) -> Result<Expr, Fault> {
    match operands::constant_number(cx, 1) {
        Some(number) => Ok(Expr::constant(number as i64)),
        None => operands::known_scalar(cx, 1, "depth"),
    }
}

fn eye_like(cx: &mut Cx<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    let dtype = match cx.attrs.int_opt("dtype")? {
        None => cx.b.dtype(x),
        Some(number) => dtype_of(i32::try_from(number).unwrap_or(i32::MAX), cx.attrs.at())?,
    };
    let diagonal = cx.attrs.int_or("k", 0)?;
    if cx.b.rank(x) != 2 {
        return Err(format!("the operand has rank {}, and 2 is needed", cx.b.rank(x)).into());
    }
    let (rows, columns) = row_and_column(cx, x)?;
    one(cx.b.program(&[rows, columns], |p| {
        let difference = p.push(ScalarOp::Sub, &[Arg::Input(1), Arg::Input(0)]);
        let hit = p.push(ScalarOp::Equal, &[difference, Arg::Imm(Scalar::int(DType::I64, diagonal))]);
        p.cast(hit, dtype)
    })?)
}

/// The elements on one side of a diagonal, zero on the other.
fn trilu(cx: &mut Cx<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    let upper = cx.attrs.flag_or("upper", 1)?;
    let diagonal = operands::scalar(cx, 1)?;
    if cx.b.rank(x) < 2 {
        return Err(format!("the operand has rank {}, and at least 2 is needed", cx.b.rank(x)).into());
    }
    let (rows, columns) = row_and_column(cx, x)?;
    let inputs: Vec<ValueId> = [Some(x), Some(rows), Some(columns), diagonal].into_iter().flatten().collect();
    one(cx.b.program(&inputs, |p| {
        let difference = p.push(ScalarOp::Sub, &[Arg::Input(2), Arg::Input(1)]);
        let diagonal = if inputs.len() == 4 { Arg::Input(3) } else { p.imm(difference, 0.0) };
        let side = if upper { ScalarOp::GreaterEqual } else { ScalarOp::LessEqual };
        let keep = p.push(side, &[difference, diagonal]);
        p.push(ScalarOp::Select, &[keep, Arg::Input(0), p.imm(Arg::Input(0), 0.0)])
    })?)
}

/// The positions along the last two axes.
fn row_and_column(cx: &mut Cx<'_, '_>, x: ValueId) -> Result<(ValueId, ValueId), Fault> {
    let dims = cx.b.dims(x);
    let rank = dims.len();
    let rows = positions(&mut cx.b, dims[rank - 2].clone(), rank - 2, rank)?;
    let columns = positions(&mut cx.b, dims[rank - 1].clone(), rank - 1, rank)?;
    Ok((rows, columns))
}
