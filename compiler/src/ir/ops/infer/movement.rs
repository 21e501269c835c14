//! Operations that move elements without computing on them, and the resize.

use lapidary_runtime::DType;
use lapidary_runtime::op::{CoordinateMode, MAX_RANK, PadMode, Resize, ResizeMode, Transpose};

use super::{Inference, Operands, check_axis, check_dtype, check_same_dtype, elements, is_arithmetic, tensor};
use crate::ir::{Expr, Type};

/// The number of elements stays.
pub(super) fn reshape(dims: &[Expr], inputs: &[Option<&Type>], cx: &mut Inference<'_>) -> Result<Vec<Type>, String> {
    let x = Operands::only(inputs)?;
    check_result_rank(dims)?;
    let result = tensor(x.dtype, dims.to_vec());
    for (axis, dim) in dims.iter().enumerate() {
        cx.at_least(&format!("the extent of axis {axis} of the result"), dim, 0)?;
    }
    let (old, new) = (elements(x)?, elements(&result)?);
    cx.equal(&old, &new).map_err(|_| format!("{:?} has {old} elements, and {dims:?} has {new}", x.dims))?;
    Ok(vec![result])
}

/// The size of an element stays. A `bool` is 0 or 1, which bits of another type need not be.
pub(super) fn bit_cast(dtype: DType, inputs: &[Option<&Type>]) -> Result<Vec<Type>, String> {
    let x = Operands::only(inputs)?;
    if x.dtype.bits() != dtype.bits() || dtype == DType::Bool {
        return Err(format!("the bits of {} are not taken for {dtype}", x.dtype));
    }
    Ok(vec![tensor(dtype, x.dims.clone())])
}

pub(super) fn transpose(spec: &Transpose, inputs: &[Option<&Type>]) -> Result<Vec<Type>, String> {
    let x = Operands::only(inputs)?;
    let rank = usize::from(spec.rank);
    if rank != x.dims.len() || rank > MAX_RANK {
        return Err(format!("the permutation has {rank} axes, and x has {}", x.dims.len()));
    }
    let perm = &spec.perm[..rank];
    if let Some(missing) = (0..rank).find(|&axis| !perm.contains(&(axis as u8))) {
        return Err(format!("the permutation {perm:?} has no axis {missing}"));
    }
    let dims = perm.iter().map(|&axis| x.dims[usize::from(axis)].clone()).collect();
    Ok(vec![tensor(x.dtype, dims)])
}

pub(super) fn expand(dims: &[Expr], inputs: &[Option<&Type>], cx: &mut Inference<'_>) -> Result<Vec<Type>, String> {
    let x = Operands::only(inputs)?;
    check_result_rank(dims)?;
    cx.fits("x", x, dims)?;
    Ok(vec![tensor(x.dtype, dims.to_vec())])
}

/// The importer has clamped the starts and counted the elements; here only what is certainly outside is refused.
pub(super) fn slice(
    starts: &[Expr],
    steps: &[i64],
    dims: &[Expr],
    inputs: &[Option<&Type>],
    cx: &mut Inference<'_>,
) -> Result<Vec<Type>, String> {
    let x = Operands::only(inputs)?;
    let rank = x.dims.len();
    if [starts.len(), steps.len(), dims.len()] != [rank; 3] {
        return Err(format!(
            "there are {} starts, {} steps and {} extents for rank {rank}",
            starts.len(),
            steps.len(),
            dims.len()
        ));
    }
    for axis in 0..rank {
        if steps[axis] == 0 {
            return Err(format!("the step of axis {axis} is 0"));
        }
        cx.at_least(&format!("the extent of axis {axis} of the result"), &dims[axis], 0)?;
        if (cx.range)(&dims[axis]).0 > 0 {
            let moved = (dims[axis].clone() - Expr::constant(1)) * Expr::constant(steps[axis]);
            let last = starts[axis].clone() + moved;
            check_inside(axis, &starts[axis], &x.dims[axis], cx)?;
            check_inside(axis, &last, &x.dims[axis], cx)?;
        }
    }
    Ok(vec![tensor(x.dtype, dims.to_vec())])
}

fn check_inside(axis: usize, position: &Expr, extent: &Expr, cx: &Inference<'_>) -> Result<(), String> {
    let outside = (cx.range)(position).1 < 0 || (cx.range)(&(position.clone() - extent.clone())).0 >= 0;
    if outside { Err(format!("position {position} is outside axis {axis} of extent {extent}")) } else { Ok(()) }
}

pub(super) fn concat(axis: u8, inputs: &[Option<&Type>], cx: &mut Inference<'_>) -> Result<Vec<Type>, String> {
    let Some(Some(first)) = inputs.first() else {
        return Err("there is no operand 0".to_owned());
    };
    let axis = check_axis(axis, first)?;
    let mut dims = first.dims.clone();
    for (k, ty) in inputs.iter().enumerate().skip(1) {
        let Some(ty) = ty else { return Err(format!("operand {k} is missing")) };
        check_same_dtype(&format!("operand {k}"), ty, first.dtype)?;
        if ty.dims.len() != dims.len() {
            return Err(format!("operand {k} has rank {}, and operand 0 {}", ty.dims.len(), dims.len()));
        }
        for (at, dim) in ty.dims.iter().enumerate() {
            dims[at] = if at == axis {
                dims[at].clone() + dim.clone()
            } else {
                cx.agree(&format!("the extents of axis {at} of operands 0 and {k}"), &dims[at], dim)?
            };
        }
    }
    Ok(vec![tensor(first.dtype, dims)])
}

/// Operands x and, for a constant padding, the value.
pub(super) fn pad(
    mode: PadMode,
    lo: &[Expr],
    hi: &[Expr],
    inputs: &[Option<&Type>],
    cx: &mut Inference<'_>,
) -> Result<Vec<Type>, String> {
    let operands = Operands::new(inputs, &["x", "value"], 1)?;
    let x = operands.get(0)?;
    if lo.len() != x.dims.len() || hi.len() != x.dims.len() {
        return Err(format!("there are {} and {} paddings for rank {}", lo.len(), hi.len(), x.dims.len()));
    }
    if let Some(value) = operands.optional(1) {
        if mode != PadMode::Constant {
            return Err(format!("{mode:?} padding takes no value"));
        }
        check_same_dtype("value", value, x.dtype)?;
        cx.agree("the elements of value and 1", &elements(value)?, &Expr::constant(1))?;
    }
    let mut dims = Vec::with_capacity(x.dims.len());
    for (axis, dim) in x.dims.iter().enumerate() {
        let padded = dim.clone() + lo[axis].clone() + hi[axis].clone();
        cx.at_least(&format!("the padded extent of axis {axis}"), &padded, 0)?;
        if mode != PadMode::Constant && dim.is(0) && !padded.is(0) {
            return Err(format!("axis {axis} has no element to pad with"));
        }
        dims.push(padded);
    }
    Ok(vec![tensor(x.dtype, dims)])
}

/// Operands x and, where the coordinates need it, roi.
pub(super) fn resize(
    spec: &Resize,
    dims: &[Expr],
    inputs: &[Option<&Type>],
    cx: &mut Inference<'_>,
) -> Result<Vec<Type>, String> {
    let operands = Operands::new(inputs, &["x", "roi"], 1)?;
    let x = operands.get(0)?;
    match spec.mode {
        ResizeMode::Nearest(_) => {
            check_dtype("x", x, "a number type or bool", |dtype| is_arithmetic(dtype) || dtype == DType::Bool)?;
        }
        ResizeMode::Linear | ResizeMode::Cubic => check_dtype("x", x, "a number type", is_arithmetic)?,
    }
    if dims.len() != x.dims.len() {
        return Err(format!("there are {} result extents for rank {}", dims.len(), x.dims.len()));
    }
    let needs_roi = spec.coordinates == CoordinateMode::TfCropAndResize;
    match operands.optional(1) {
        Some(roi) if needs_roi => {
            check_same_dtype("roi", roi, DType::F32)?;
            cx.agree("the elements of roi and twice the rank", &elements(roi)?, &Expr::from(2 * x.dims.len()))?;
        }
        Some(_) => return Err("roi is given, and the coordinates do not use it".to_owned()),
        None if needs_roi => return Err("operand roi is missing".to_owned()),
        None => {}
    }
    for (axis, (old, new)) in x.dims.iter().zip(dims).enumerate() {
        cx.at_least(&format!("the extent of axis {axis} of the result"), new, 0)?;
        if old.is(0) && !new.is(0) {
            return Err(format!("axis {axis} has no element to resize"));
        }
    }
    Ok(vec![tensor(x.dtype, dims.to_vec())])
}

/// Checked before the extents are multiplied.
fn check_result_rank(dims: &[Expr]) -> Result<(), String> {
    if dims.len() > MAX_RANK {
        return Err(format!("the result has rank {}, and the largest is {MAX_RANK}", dims.len()));
    }
    Ok(())
}
