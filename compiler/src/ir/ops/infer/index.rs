//! Gathers and scatters.

use lapidary_runtime::DType;
use lapidary_runtime::op::ScatterMode;

use super::{
    Inference, Operands, check_axis, check_dtype, check_rank, check_same_dtype, is_arithmetic, is_index, tensor,
};
use crate::ir::{Expr, Type};

const INDEX: &str = "i32 or i64";

/// The indices' shape takes the place of `axis`.
pub(super) fn gather(axis: u8, inputs: &[Option<&Type>]) -> Result<Vec<Type>, String> {
    let (data, indices) = data_and_indices(inputs)?;
    let axis = check_axis(axis, data)?;
    let dims = data.dims[..axis].iter().chain(&indices.dims).chain(&data.dims[axis + 1..]);
    Ok(vec![tensor(data.dtype, dims.cloned().collect())])
}

/// The result has the indices' shape.
pub(super) fn gather_elements(axis: u8, inputs: &[Option<&Type>], cx: &mut Inference<'_>) -> Result<Vec<Type>, String> {
    let (data, indices) = data_and_indices(inputs)?;
    let axis = check_axis(axis, data)?;
    check_rank("indices", indices, data.dims.len())?;
    check_covered(axis, data, indices, cx)?;
    Ok(vec![tensor(data.dtype, indices.dims.clone())])
}

/// The last axis of the indices addresses the axes of data behind the batch axes.
pub(super) fn gather_nd(batch_dims: u8, inputs: &[Option<&Type>], cx: &mut Inference<'_>) -> Result<Vec<Type>, String> {
    let (data, indices) = data_and_indices(inputs)?;
    let batch = usize::from(batch_dims);
    if batch >= data.dims.len() || batch >= indices.dims.len() {
        return Err(format!(
            "there are {batch} batch axes, and data and indices have rank {} and {}",
            data.dims.len(),
            indices.dims.len()
        ));
    }
    for axis in 0..batch {
        let what = format!("the extents of batch axis {axis} of data and indices");
        cx.agree(&what, &data.dims[axis], &indices.dims[axis])?;
    }
    let depth = index_depth(indices, data.dims.len() - batch)?;
    let points = &indices.dims[..indices.dims.len() - 1];
    let dims = points.iter().chain(&data.dims[batch + depth..]);
    Ok(vec![tensor(data.dtype, dims.cloned().collect())])
}

/// Boxes in the order of their scores; the result says of each whether it stays.
pub(super) fn suppress(inputs: &[Option<&Type>], cx: &mut Inference<'_>) -> Result<Vec<Type>, String> {
    let names = &["boxes", "order", "eligible", "threshold", "most"];
    let operands = Operands::new(inputs, names, 5)?;
    let types = [(DType::F32, 3), (DType::I64, 3), (DType::Bool, 3), (DType::F32, 0), (DType::I64, 0)];
    for (k, (dtype, rank)) in types.into_iter().enumerate() {
        check_same_dtype(names[k], operands.get(k)?, dtype)?;
        check_rank(names[k], operands.get(k)?, rank)?;
    }
    let [boxes, order, eligible] = [operands.get(0)?, operands.get(1)?, operands.get(2)?];
    cx.agree("the batches of boxes and order", &boxes.dims[0], &order.dims[0])?;
    cx.agree("the numbers of boxes and places", &boxes.dims[1], &order.dims[2])?;
    cx.agree("the numbers of a box", &boxes.dims[2], &Expr::constant(4))?;
    for (a, b) in order.dims.iter().zip(&eligible.dims) {
        cx.agree("the extents of order and eligible", a, b)?;
    }
    Ok(vec![tensor(DType::Bool, order.dims.clone())])
}

pub(super) fn scatter_elements(
    axis: u8,
    mode: ScatterMode,
    inputs: &[Option<&Type>],
    cx: &mut Inference<'_>,
) -> Result<Vec<Type>, String> {
    let (data, indices, updates) = scatter_operands(mode, inputs)?;
    let axis = check_axis(axis, data)?;
    check_rank("indices", indices, data.dims.len())?;
    check_covered(axis, data, indices, cx)?;
    check_updates(updates, &indices.dims, cx)?;
    Ok(vec![data.clone()])
}

pub(super) fn scatter_nd(
    mode: ScatterMode,
    inputs: &[Option<&Type>],
    cx: &mut Inference<'_>,
) -> Result<Vec<Type>, String> {
    let (data, indices, updates) = scatter_operands(mode, inputs)?;
    let depth = index_depth(indices, data.dims.len())?;
    let points = &indices.dims[..indices.dims.len() - 1];
    let expected: Vec<Expr> = points.iter().chain(&data.dims[depth..]).cloned().collect();
    check_updates(updates, &expected, cx)?;
    Ok(vec![data.clone()])
}

fn data_and_indices<'t>(inputs: &'t [Option<&'t Type>]) -> Result<(&'t Type, &'t Type), String> {
    let operands = Operands::new(inputs, &["data", "indices"], 2)?;
    let (data, indices) = (operands.get(0)?, operands.get(1)?);
    check_dtype("indices", indices, INDEX, is_index)?;
    Ok((data, indices))
}

fn scatter_operands<'t>(
    mode: ScatterMode,
    inputs: &'t [Option<&'t Type>],
) -> Result<(&'t Type, &'t Type, &'t Type), String> {
    let operands = Operands::new(inputs, &["data", "indices", "updates"], 3)?;
    let (data, indices, updates) = (operands.get(0)?, operands.get(1)?, operands.get(2)?);
    check_dtype("indices", indices, INDEX, is_index)?;
    check_same_dtype("updates", updates, data.dtype)?;
    match mode {
        ScatterMode::Set => {}
        ScatterMode::Add | ScatterMode::Mul | ScatterMode::Max | ScatterMode::Min => {
            check_dtype("data", data, "a number type", is_arithmetic)?;
        }
    }
    Ok((data, indices, updates))
}

/// How many axes one index addresses: the last extent of the indices, between 1 and `most`.
fn index_depth(indices: &Type, most: usize) -> Result<usize, String> {
    let Some(last) = indices.dims.last() else {
        return Err("indices is a scalar, and at least rank 1 is needed".to_owned());
    };
    let Some(depth) = last.as_const() else {
        return Err(format!("the last extent {last} of indices is not a constant"));
    };
    match usize::try_from(depth) {
        Ok(depth) if (1..=most).contains(&depth) => Ok(depth),
        Ok(_) | Err(_) => Err(format!("indices address {depth} axes, and between 1 and {most} can be")),
    }
}

/// Off the indexed axis, positions are taken as they are, so the indices must not reach over data.
fn check_covered(axis: usize, data: &Type, indices: &Type, cx: &Inference<'_>) -> Result<(), String> {
    for (at, (index, extent)) in indices.dims.iter().zip(&data.dims).enumerate() {
        if at != axis && cx.exceeds(index, extent) {
            return Err(format!("axis {at} of indices has extent {index}, and data has {extent}"));
        }
    }
    Ok(())
}

fn check_updates(updates: &Type, dims: &[Expr], cx: &mut Inference<'_>) -> Result<(), String> {
    check_rank("updates", updates, dims.len())?;
    for (axis, (dim, expected)) in updates.dims.iter().zip(dims).enumerate() {
        cx.agree(&format!("the extents of axis {axis} of updates and of what it updates"), dim, expected)?;
    }
    Ok(())
}
