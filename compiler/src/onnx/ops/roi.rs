//! Regions of images in a fixed size (ONNX RoiAlign, MaxRoiPool).

use lapidary_runtime::DType;
use lapidary_runtime::op::{MAX_SAMPLES, RegionKind, RegionPool};

use super::entry::op;
use super::{Cx, Fault, Imported, OpDef, one};
use crate::ir::{Expr, Op, ValueId};

pub const DEFS: &[OpDef] = &[
    op("RoiAlign", 10, (3, 3), |cx| roi_align(cx, Offset::None)),
    op("RoiAlign", 16, (3, 3), |cx| roi_align(cx, Offset::HalfPixel)),
    op("MaxRoiPool", 1, (2, 2), max_roi_pool),
];

/// Where the coordinates of a region are counted from.
#[derive(Clone, Copy, PartialEq)]
enum Offset {
    /// The edge of the first element. A region may have any size.
    HalfPixel,
    /// The middle of the first element. A region has at least the size of an element.
    None,
}

fn roi_align(cx: &mut Cx<'_, '_>, default: Offset) -> Imported {
    let kinds = [("avg", RegionKind::Mean), ("max", RegionKind::Max)];
    let offsets = [("half_pixel", Offset::HalfPixel), ("output_half_pixel", Offset::None)];
    let bins = |name: &str| size(cx, name, cx.attrs.int_or(name, 1)?);
    let samples = cx.attrs.int_or("sampling_ratio", 0)?;
    let spec = RegionPool {
        kind: cx.attrs.choice_or("mode", RegionKind::Mean, &kinds)?,
        bins: [bins("output_height")?, bins("output_width")?],
        samples: u32::try_from(samples).ok().filter(|samples| *samples <= MAX_SAMPLES).ok_or_else(|| {
            cx.attrs.bad_value("sampling_ratio", format!("is {samples}"), "it must not be negative, and not huge")
        })?,
        half_pixel: cx.attrs.choice_or("coordinate_transformation_mode", default, &offsets)? == Offset::HalfPixel,
        scale: cx.attrs.float_or("spatial_scale", 1.0)?,
    };
    let (x, regions, images) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    pooled(cx, spec, x, regions, images)
}

/// Each region is a row of its image and its sides.
fn max_roi_pool(cx: &mut Cx<'_, '_>) -> Imported {
    let bins = cx.attrs.ints("pooled_shape")?;
    let &[down, right] = bins else {
        let given = format!("has {} numbers", bins.len());
        return Err(cx.attrs.bad_value("pooled_shape", given, "the height and the width of the result").into());
    };
    let spec = RegionPool {
        kind: RegionKind::Elements,
        bins: [size(cx, "pooled_shape", down)?, size(cx, "pooled_shape", right)?],
        samples: 0,
        half_pixel: false,
        scale: cx.attrs.float_or("spatial_scale", 1.0)?,
    };
    let (x, rows) = (cx.input(0)?, cx.input(1)?);
    let dims = cx.b.dims(rows);
    let [count, columns] = dims.as_slice() else {
        return Err(format!("the regions have rank {}, and 2 is needed", dims.len()).into());
    };
    cx.b.require_equal(columns, &Expr::constant(5))?;
    let images = cx.b.slice_axis(rows, 1, Expr::constant(0), Expr::constant(1))?;
    let images = cx.b.reshape(images, vec![count.clone()])?;
    let images = cx.b.cast(images, DType::I64)?;
    let regions = cx.b.slice_axis(rows, 1, Expr::constant(1), Expr::constant(4))?;
    pooled(cx, spec, x, regions, images)
}

/// A number of bins.
fn size(cx: &Cx<'_, '_>, name: &str, bins: i64) -> Result<u32, Fault> {
    let fits = u32::try_from(bins).ok().filter(|bins| (1..1 << 20).contains(bins));
    fits.ok_or_else(|| cx.attrs.bad_value(name, format!("says {bins}"), "it must be positive, and not huge").into())
}

/// Coordinates are formed in `f32`, or `f64` for regions of that type.
fn pooled(cx: &mut Cx<'_, '_>, spec: RegionPool, x: ValueId, regions: ValueId, images: ValueId) -> Imported {
    let wide = if cx.b.dtype(regions) == DType::F64 { DType::F64 } else { DType::F32 };
    let regions = cx.b.cast(regions, wide)?;
    one(cx.b.node(Op::RegionPool(spec), &[x, regions, images])?)
}
