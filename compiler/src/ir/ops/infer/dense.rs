//! Matrix products and convolutions.

use lapidary_runtime::DType;
use lapidary_runtime::op::{Conv, ConvTranspose, MatMul};

use super::program::{broadcast_dims, epilogue};
use super::window::{check_window, window_count};
use super::{
    Inference, Operands, check_dtype, check_rank, check_same_dtype, is_arithmetic, is_arithmetic_float, tensor,
};
use crate::ir::{Expr, Program, Type};

/// a `[batch.., m, k]` times b `[batch.., k, n]`; 8-bit integers give `i32`.
pub(super) fn matmul(
    spec: &MatMul,
    program: Option<&Program>,
    inputs: &[Option<&Type>],
    cx: &mut Inference<'_>,
) -> Result<Vec<Type>, String> {
    let (own, extra) = split(inputs);
    let operands = Operands::new(own, &["a", "b"], 2)?;
    let (a, b) = (operands.get(0)?, operands.get(1)?);
    check_dtype("a", a, "a number type other than i16 and u16", |dtype| {
        is_arithmetic(dtype) && !matches!(dtype, DType::I16 | DType::U16)
    })?;
    let dtype = product_dtype(a, b)?;
    for (name, ty) in [("a", a), ("b", b)] {
        if ty.dims.len() < 2 {
            return Err(format!("{name} has rank {}, and at least 2 is needed", ty.dims.len()));
        }
    }
    let (batch_a, rows, inner_a) = matrix(a, spec.transpose_a);
    let (batch_b, inner_b, columns) = matrix(b, spec.transpose_b);
    cx.agree("the inner extents of a and b", inner_a, inner_b)?;
    let mut dims = broadcast_dims(batch_a, batch_b, cx)
        .map_err(|reason| format!("the batch extents of a and b do not fit: {reason}"))?;
    dims.extend([rows.clone(), columns.clone()]);
    epilogue(program, tensor(dtype, dims), extra, cx)
}

/// The batch extents, rows and columns of an operand.
fn matrix(ty: &Type, transposed: bool) -> (&[Expr], &Expr, &Expr) {
    let (batch, last) = ty.dims.split_at(ty.dims.len() - 2);
    if transposed { (batch, &last[1], &last[0]) } else { (batch, &last[0], &last[1]) }
}

/// q `[b, h, n, d]`, k `[b, g, m, d]` and v `[b, g, m, e]` give `[b, h, n, e]`; the mask broadcasts to `[b, h, n, m]`.
pub(super) fn attention(inputs: &[Option<&Type>], cx: &mut Inference<'_>) -> Result<Vec<Type>, String> {
    let operands = Operands::new(inputs, &["q", "k", "v", "mask"], 3)?;
    let (q, k, v) = (operands.get(0)?, operands.get(1)?, operands.get(2)?);
    check_dtype("q", q, "a float type", is_arithmetic_float)?;
    for (name, ty) in [("q", q), ("k", k), ("v", v)] {
        check_rank(name, ty, 4)?;
        check_same_dtype(name, ty, q.dtype)?;
    }
    cx.agree("the batches of q and k", &q.dims[0], &k.dims[0])?;
    cx.agree("the batches of q and v", &q.dims[0], &v.dims[0])?;
    cx.agree("the heads of k and v", &k.dims[1], &v.dims[1])?;
    cx.agree("the depths of q and k", &q.dims[3], &k.dims[3])?;
    cx.agree("the lengths of k and v", &k.dims[2], &v.dims[2])?;
    if let (Some(queries), Some(keys)) = (q.dims[1].as_const(), k.dims[1].as_const())
        && (keys <= 0 || queries % keys != 0)
    {
        return Err(format!("{queries} heads of queries do not share {keys} of keys"));
    }
    if let Some(mask) = operands.optional(3) {
        check_same_dtype("mask", mask, q.dtype)?;
        let scores = [&q.dims[..3], &k.dims[2..3]].concat();
        cx.fits("mask", mask, &scores)?;
    }
    let dims = vec![q.dims[0].clone(), q.dims[1].clone(), q.dims[2].clone(), v.dims[3].clone()];
    Ok(vec![tensor(q.dtype, dims)])
}

/// x `[n, c, spatial..]` and w `[m, c / groups, window..]` give `[n, m, spatial..]`.
pub(super) fn conv(
    spec: &Conv,
    program: Option<&Program>,
    inputs: &[Option<&Type>],
    cx: &mut Inference<'_>,
) -> Result<Vec<Type>, String> {
    let (own, extra) = split(inputs);
    let operands = Operands::new(own, &["x", "w"], 2)?;
    let (x, w) = (operands.get(0)?, operands.get(1)?);
    check_dtype("x", x, "f64, f32, f16, bf16, i8 or u8", |dtype| is_arithmetic_float(dtype) || is_byte(dtype))?;
    let dtype = product_dtype(x, w)?;
    let rank = check_window(&spec.window)?;
    check_rank("x", x, rank + 2)?;
    check_rank("w", w, rank + 2)?;
    let groups = check_groups(spec.groups)?;
    cx.agree("the channels of x and of w times groups", &x.dims[1], &(w.dims[1].clone() * groups.clone()))?;
    check_divides("the result's channels", &w.dims[0], spec.groups)?;
    check_window_extents(w, &spec.window.size[..rank], cx)?;
    let mut dims = vec![x.dims[0].clone(), w.dims[0].clone()];
    for axis in 0..rank {
        dims.push(window_count(&spec.window, axis, &x.dims[axis + 2], cx)?);
    }
    epilogue(program, tensor(dtype, dims), extra, cx)
}

/// x `[n, c, spatial..]` and w `[c, m / groups, window..]` give `[n, m, spatial..]`, of spatial extents `spatial`.
pub(super) fn conv_transpose(
    spec: &ConvTranspose,
    spatial: &[Expr],
    inputs: &[Option<&Type>],
    cx: &mut Inference<'_>,
) -> Result<Vec<Type>, String> {
    let operands = Operands::new(inputs, &["x", "w"], 2)?;
    let (x, w) = (operands.get(0)?, operands.get(1)?);
    check_dtype("x", x, "a float type", is_arithmetic_float)?;
    check_same_dtype("w", w, x.dtype)?;
    let rank = check_window(&spec.window)?;
    check_rank("x", x, rank + 2)?;
    check_rank("w", w, rank + 2)?;
    if spatial.len() != rank {
        return Err(format!("there are {} result extents for {rank} spatial axes", spatial.len()));
    }
    let groups = check_groups(spec.groups)?;
    let channels = cx.agree("the channels of x and w", &x.dims[1], &w.dims[0])?;
    check_divides("the operand's channels", &channels, spec.groups)?;
    check_window_extents(w, &spec.window.size[..rank], cx)?;
    for (axis, extent) in spatial.iter().enumerate() {
        cx.at_least(&format!("the extent of spatial axis {axis} of the result"), extent, 0)?;
    }
    let mut dims = vec![x.dims[0].clone(), w.dims[1].clone() * groups];
    dims.extend_from_slice(spatial);
    Ok(vec![tensor(x.dtype, dims)])
}

/// The operation's own two operands, and those of its epilogue.
fn split<'a, 't>(inputs: &'a [Option<&'t Type>]) -> (&'a [Option<&'t Type>], &'a [Option<&'t Type>]) {
    inputs.split_at(inputs.len().min(2))
}

/// The type of a sum of products: that of the operands, or `i32` for 8-bit integers, which may differ in sign.
fn product_dtype(a: &Type, b: &Type) -> Result<DType, String> {
    if is_byte(a.dtype) && is_byte(b.dtype) {
        return Ok(DType::I32);
    }
    if a.dtype == b.dtype { Ok(a.dtype) } else { Err(format!("the operands are {} and {}", a.dtype, b.dtype)) }
}

fn is_byte(dtype: DType) -> bool {
    matches!(dtype, DType::I8 | DType::U8)
}

fn check_groups(groups: u32) -> Result<Expr, String> {
    if groups == 0 { Err("there are 0 groups".to_owned()) } else { Ok(Expr::constant(i64::from(groups))) }
}

/// `groups` divides an extent, as far as it is a constant.
pub(super) fn check_divides(what: &str, extent: &Expr, groups: u32) -> Result<(), String> {
    match extent.as_const() {
        Some(channels) if channels % i64::from(groups) != 0 => {
            Err(format!("{what} are {channels}, which {groups} groups do not divide"))
        }
        Some(_) | None => Ok(()),
    }
}

fn check_window_extents(w: &Type, sizes: &[u32], cx: &mut Inference<'_>) -> Result<(), String> {
    for (axis, &size) in sizes.iter().enumerate() {
        let what = format!("spatial extent {axis} of w and the window");
        cx.agree(&what, &w.dims[axis + 2], &Expr::constant(i64::from(size)))?;
    }
    Ok(())
}
