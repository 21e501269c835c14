//! Reductions, and what works along an axis: softmax, normalizations, running sums, the largest elements.

use lapidary_runtime::DType;
use lapidary_runtime::op::{ArgReduce, GroupNorm, Norm, Reduce, ReduceKind, Softmax};

use super::dense::check_divides;
use super::program::epilogue;
use super::{
    Inference, Operands, check_axis, check_dtype, check_rank, check_same_dtype, is_arithmetic, is_arithmetic_float,
    tensor,
};
use crate::ir::{Expr, Program, Type};

/// The reduced axes stay with extent 1.
pub(super) fn reduce(spec: &Reduce, inputs: &[Option<&Type>]) -> Result<Vec<Type>, String> {
    let x = Operands::only(inputs)?;
    match spec.kind {
        ReduceKind::Max | ReduceKind::Min => {
            check_dtype("x", x, "a number type or bool", |dtype| is_arithmetic(dtype) || dtype == DType::Bool)?;
        }
        ReduceKind::Sum
        | ReduceKind::Mean
        | ReduceKind::Prod
        | ReduceKind::L1
        | ReduceKind::L2
        | ReduceKind::SumSquare
        | ReduceKind::LogSum
        | ReduceKind::LogSumExp => check_dtype("x", x, "a number type", is_arithmetic)?,
    }
    if let Some(axis) = spec.axes.iter().find(|&axis| axis >= x.dims.len()) {
        return Err(format!("axis {axis} is outside rank {}", x.dims.len()));
    }
    let dims = x.dims.iter().enumerate();
    let dims = dims.map(|(axis, dim)| if spec.axes.contains(axis) { Expr::constant(1) } else { dim.clone() });
    Ok(vec![tensor(x.dtype, dims.collect())])
}

/// `i64` positions along an axis, which stays with extent 1.
pub(super) fn arg_reduce(
    spec: &ArgReduce,
    inputs: &[Option<&Type>],
    cx: &mut Inference<'_>,
) -> Result<Vec<Type>, String> {
    let x = Operands::only(inputs)?;
    check_dtype("x", x, "a number type", is_arithmetic)?;
    let axis = check_axis(spec.axis, x)?;
    cx.at_least(&format!("the extent of axis {axis}"), &x.dims[axis], 1)?;
    let mut dims = x.dims.clone();
    dims[axis] = Expr::constant(1);
    Ok(vec![tensor(DType::I64, dims)])
}

pub(super) fn softmax(spec: &Softmax, inputs: &[Option<&Type>]) -> Result<Vec<Type>, String> {
    let x = Operands::only(inputs)?;
    check_dtype("x", x, "a float type", is_arithmetic_float)?;
    check_axis(spec.axis, x)?;
    Ok(vec![x.clone()])
}

/// Results y, mean and inverse deviation.
pub(super) fn norm(
    spec: &Norm,
    program: Option<&Program>,
    inputs: &[Option<&Type>],
    cx: &mut Inference<'_>,
) -> Result<Vec<Type>, String> {
    let operands = Operands::new(inputs, &["x", "scale", "bias"], 1)?;
    let x = operands.get(0)?;
    check_dtype("x", x, "a float type", is_arithmetic_float)?;
    let first = check_axis(spec.axis, x)?;
    for (name, ty) in [("scale", operands.optional(1)), ("bias", operands.optional(2))] {
        if let Some(ty) = ty {
            check_same_dtype(name, ty, x.dtype)?;
            cx.fits(name, ty, &x.dims)?;
        }
    }
    let mut rows = x.dims.clone();
    rows[first..].fill(Expr::constant(1));
    let statistic = tensor(DType::F32, rows);
    let mut types = epilogue(program, x.clone(), &[], cx)?;
    types.extend([statistic.clone(), statistic]);
    Ok(types)
}

pub(super) fn group_norm(
    spec: &GroupNorm,
    program: Option<&Program>,
    inputs: &[Option<&Type>],
    cx: &mut Inference<'_>,
) -> Result<Vec<Type>, String> {
    let operands = Operands::new(inputs, &["x", "scale", "bias"], 3)?;
    let x = operands.get(0)?;
    check_dtype("x", x, "a float type", is_arithmetic_float)?;
    let Some(channels) = x.dims.get(1) else {
        return Err(format!("x has rank {}, and at least 2 is needed", x.dims.len()));
    };
    if spec.groups == 0 {
        return Err("there are 0 groups".to_owned());
    }
    check_divides("the channels", channels, spec.groups)?;
    for (k, name) in [(1, "scale"), (2, "bias")] {
        let ty = operands.get(k)?;
        check_same_dtype(name, ty, x.dtype)?;
        check_rank(name, ty, 1)?;
        cx.agree(&format!("the channels of x and {name}"), channels, &ty.dims[0])?;
    }
    epilogue(program, x.clone(), &[], cx)
}

pub(super) fn cum_sum(axis: u8, inputs: &[Option<&Type>]) -> Result<Vec<Type>, String> {
    let x = Operands::only(inputs)?;
    check_dtype("x", x, "a number type", is_arithmetic)?;
    check_axis(axis, x)?;
    Ok(vec![x.clone()])
}

/// Results values and `i64` indices.
pub(super) fn top_k(axis: u8, k: &Expr, inputs: &[Option<&Type>], cx: &mut Inference<'_>) -> Result<Vec<Type>, String> {
    let x = Operands::only(inputs)?;
    check_dtype("x", x, "a number type", is_arithmetic)?;
    let axis = check_axis(axis, x)?;
    if cx.exceeds(k, &x.dims[axis]) {
        return Err(format!("{k} elements are asked of axis {axis}, which has {}", x.dims[axis]));
    }
    cx.at_least("the number of elements asked for", k, 0)?;
    cx.at_least(
        &format!("the extent of axis {axis} less the elements asked for"),
        &(x.dims[axis].clone() - k.clone()),
        0,
    )?;
    let mut dims = x.dims.clone();
    dims[axis] = k.clone();
    Ok(vec![tensor(x.dtype, dims.clone()), tensor(DType::I64, dims)])
}
