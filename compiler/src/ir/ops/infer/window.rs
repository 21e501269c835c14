//! Windows over spatial axes, and pooling, of regions too.

use lapidary_runtime::DType;
use lapidary_runtime::op::{MAX_SPATIAL, Pool, PoolKind, RegionKind, RegionPool, Window};

use super::{
    Inference, Operands, check_dtype, check_rank, check_same_dtype, is_arithmetic, is_arithmetic_float, tensor,
};
use crate::ir::{Expr, Type};

/// Results y and, of a maximum, the `i64` indices; `dims` are the spatial extents of both.
pub(super) fn pool(
    spec: &Pool,
    dims: &[Expr],
    inputs: &[Option<&Type>],
    cx: &mut Inference<'_>,
) -> Result<Vec<Type>, String> {
    let x = Operands::only(inputs)?;
    let rank = check_window(&spec.window)?;
    check_rank("x", x, rank + 2)?;
    match spec.kind {
        PoolKind::Max => check_dtype("x", x, "a number type", is_arithmetic)?,
        PoolKind::Average | PoolKind::AverageCountPad => check_dtype("x", x, "a float type", is_arithmetic_float)?,
        PoolKind::Lp(p) => {
            check_dtype("x", x, "a float type", is_arithmetic_float)?;
            if p == 0 {
                return Err("the p of an Lp pooling is 0".to_owned());
            }
        }
    }
    if spec.index_order > 1 {
        return Err(format!("the index order is {}, and must be 0 or 1", spec.index_order));
    }
    if dims.len() != rank {
        return Err(format!("there are {} result extents for {rank} spatial axes", dims.len()));
    }
    for (axis, dim) in dims.iter().enumerate() {
        let (lo, hi) = (spec.window.pad_lo[axis], spec.window.pad_hi[axis]);
        if lo.max(hi) >= spec.window.extent(axis) {
            return Err(format!("the padding {lo}, {hi} of spatial axis {axis} holds a whole window"));
        }
        check_pooled_extent(&spec.window, axis, &x.dims[axis + 2], dim, cx)?;
    }
    let dims: Vec<Expr> = x.dims[..2].iter().chain(dims).cloned().collect();
    let mut types = vec![tensor(x.dtype, dims.clone())];
    if spec.kind == PoolKind::Max {
        types.push(tensor(DType::I64, dims));
    }
    Ok(types)
}

/// Regions of images in a fixed number of bins.
pub(super) fn region_pool(
    spec: &RegionPool,
    inputs: &[Option<&Type>],
    cx: &mut Inference<'_>,
) -> Result<Vec<Type>, String> {
    let operands = Operands::new(inputs, &["x", "regions", "images"], 3)?;
    let [x, regions, images] = [operands.get(0)?, operands.get(1)?, operands.get(2)?];
    check_dtype("x", x, "a float type", is_arithmetic_float)?;
    check_dtype("regions", regions, "f32 or f64", |dtype| matches!(dtype, DType::F32 | DType::F64))?;
    check_same_dtype("images", images, DType::I64)?;
    for (name, ty, rank) in [("x", x, 4), ("regions", regions, 2), ("images", images, 1)] {
        check_rank(name, ty, rank)?;
    }
    cx.agree("the numbers of regions and images", &regions.dims[0], &images.dims[0])?;
    cx.agree("the sides of a region", &regions.dims[1], &Expr::constant(4))?;
    for axis in [2, 3] {
        cx.at_least(&format!("the extent of axis {axis} of x"), &x.dims[axis], 1)?;
    }
    if spec.bins.contains(&0) {
        return Err(format!("there are {}x{} bins", spec.bins[0], spec.bins[1]));
    }
    match spec.kind {
        RegionKind::Elements if spec.samples != 0 || spec.half_pixel => {
            return Err("bins of whole elements have no samples".to_owned());
        }
        RegionKind::Mean | RegionKind::Max | RegionKind::Elements => {}
    }
    let bins = spec.bins.map(|bins| Expr::constant(i64::from(bins)));
    let dims = [regions.dims[0].clone(), x.dims[1].clone()].into_iter().chain(bins);
    Ok(vec![tensor(x.dtype, dims.collect())])
}

/// The stated extent is what rounding down or rounding up gives.
fn check_pooled_extent(
    window: &Window,
    axis: usize,
    extent: &Expr,
    stated: &Expr,
    cx: &mut Inference<'_>,
) -> Result<(), String> {
    let down = window_count(window, axis, extent, cx)?;
    if *stated == down {
        return Ok(());
    }
    let stride = Expr::constant(i64::from(window.stride[axis]));
    let up = span(window, axis, extent).ceil_div(&stride) + Expr::constant(1);
    if cx.exceeds(&down, stated) || cx.exceeds(stated, &up) {
        return Err(format!("spatial axis {axis} of the result has extent {stated}, and its windows are {down}"));
    }
    Ok(())
}

/// Checks a window and answers its number of spatial axes.
pub(super) fn check_window(window: &Window) -> Result<usize, String> {
    let rank = usize::from(window.rank);
    if rank == 0 || rank > MAX_SPATIAL {
        return Err(format!("there are {rank} spatial axes, and between 1 and {MAX_SPATIAL} can be"));
    }
    for axis in 0..rank {
        let (size, stride, dilation) = (window.size[axis], window.stride[axis], window.dilation[axis]);
        if size == 0 || stride == 0 || dilation == 0 {
            return Err(format!(
                "spatial axis {axis} has window {size}, stride {stride}, dilation {dilation}; none may be 0"
            ));
        }
        if i64::from(size - 1) * i64::from(dilation) >= i64::from(i32::MAX) {
            return Err(format!("the window of spatial axis {axis} reaches over 2^31 elements"));
        }
    }
    Ok(rank)
}

/// How many windows fit in an axis of the given extent, rounded down.
pub(super) fn window_count(
    window: &Window,
    axis: usize,
    extent: &Expr,
    cx: &mut Inference<'_>,
) -> Result<Expr, String> {
    let span = span(window, axis, extent);
    let stride = Expr::constant(i64::from(window.stride[axis]));
    let count = span.floor_div(&stride) + Expr::constant(1);
    if (cx.range)(&span).1 < 0 && !extent.is(0) {
        let (reach, lo, hi) = (window.extent(axis), window.pad_lo[axis], window.pad_hi[axis]);
        return Err(format!(
            "the window of {reach} does not fit in spatial axis {axis} of extent {extent} with padding {lo} and {hi}"
        ));
    }
    cx.at_least(&format!("the number of windows of spatial axis {axis}"), &count, 0)?;
    Ok(count)
}

/// How far the window can move.
fn span(window: &Window, axis: usize, extent: &Expr) -> Expr {
    let pads = i64::from(window.pad_lo[axis]) + i64::from(window.pad_hi[axis]);
    extent.clone() + Expr::constant(pads - i64::from(window.extent(axis)))
}
