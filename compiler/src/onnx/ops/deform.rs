//! Deformable convolution (ONNX DeformConv): the elements that each window reads lie at computed offsets, between
//! elements; sampled, they are the columns of a matrix product.

use lapidary_runtime::DType;
use lapidary_runtime::op::{Arg, Scalar, ScalarOp};

use super::entry::op;
use super::positions::positions;
use super::sample::{Beside, Mode, Places, sample};
use super::window::{Frame, Padding};
use super::{Cx, Fault, Imported, OpDef, one};
use crate::ir::{Expr, ValueId};

pub const DEFS: &[OpDef] = &[op("DeformConv", 19, (3, 5), deform_conv)];

fn deform_conv(cx: &mut Cx<'_, '_>) -> Imported {
    let (x, w, offset) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let frame = Frame::of_weights(cx, x, w)?;
    if frame.rank() != 2 {
        return Err(Fault::unsupported(
            format!("DeformConv over {} spatial axes is not supported", frame.rank()),
            "use two spatial axes; one of them may have extent 1",
        ));
    }
    let (groups, parts) = (positive(cx, "group")?, positive(cx, "offset_group")?);
    let (dims, w_dims, out) = (cx.b.dims(x), cx.b.dims(w), cx.b.dims(offset));
    let window = w_dims[2].clone() * w_dims[3].clone();
    let (Some(channels), Some(rows)) = (dims[1].exact_div(&parts), w_dims[0].exact_div(&groups)) else {
        return Err("the channels are no multiple of the groups".into());
    };
    if out.len() != 4 {
        return Err(format!("the offsets have rank {}, and 4 is needed", out.len()).into());
    }
    let own = w_dims[1].clone() * groups.clone();
    cx.b.require_equal(&dims[1], &own)?;
    let places = out[2].clone() * out[3].clone();
    let shape =
        vec![dims[0].clone() * parts.clone(), window.clone(), Expr::constant(2), out[2].clone(), out[3].clone()];
    let offset = cx.b.reshape(offset, shape)?;
    let flat = vec![dims[0].clone() * parts.clone(), Expr::constant(1), window.clone() * places.clone()];
    let mut coordinates = Vec::with_capacity(2);
    for axis in 0..2 {
        let moved = read_along(cx, &frame, axis, offset, &w_dims)?;
        coordinates.push(cx.b.reshape(moved, flat.clone())?);
    }
    let elements = dims[2].clone() * dims[3].clone();
    let x = cx.b.reshape(x, vec![dims[0].clone() * parts, channels, elements])?;
    let places_of_x = Places { dims: dims[2..].to_vec(), coordinates };
    let mut columns = sample(&mut cx.b, x, &places_of_x, Mode::Linear, Beside::Zeros)?;
    if let Some(mask) = cx.optional(4) {
        let mask = cx.b.reshape(mask, flat)?;
        columns = cx.b.binary(ScalarOp::Mul, columns, mask)?;
    }
    let inner = w_dims[1].clone() * window;
    let columns = cx.b.reshape(columns, vec![dims[0].clone(), groups.clone(), inner.clone(), places])?;
    let w = cx.b.reshape(w, vec![groups, rows, inner])?;
    let y = cx.b.matmul(w, columns)?;
    let y = cx.b.reshape(y, vec![dims[0].clone(), w_dims[0].clone(), out[2].clone(), out[3].clone()])?;
    let Some(bias) = cx.optional(3) else { return one(y) };
    let given = cx.b.ty(bias).count();
    cx.b.require_equal(&given, &w_dims[0])?;
    let bias = cx.b.append_axes(bias, 3)?;
    one(cx.b.binary(ScalarOp::Add, y, bias)?)
}

fn positive(cx: &Cx<'_, '_>, name: &str) -> Result<Expr, Fault> {
    match cx.attrs.int_or(name, 1)? {
        count if count > 0 => Ok(Expr::constant(count)),
        count => Err(cx.attrs.bad_value(name, format!("is {count}"), "it must be positive").into()),
    }
}

/// Where each window reads along one axis, `[.., window, rows, columns]`: its start, the element's place in it, and the
/// offset.
fn read_along(
    cx: &mut Cx<'_, '_>,
    frame: &Frame,
    axis: usize,
    offset: ValueId,
    w_dims: &[Expr],
) -> Result<ValueId, Fault> {
    let Padding::Explicit { lo, .. } = frame.padding() else {
        return Err("DeformConv has no auto_pad".into());
    };
    let before = i64::from(lo[axis]);
    let mut dims = cx.b.dims(offset);
    let offset = cx.b.slice_axis(offset, 2, Expr::from(axis), Expr::constant(1))?;
    dims.remove(2);
    let offset = cx.b.reshape(offset, dims.clone())?;
    let starts = positions(&mut cx.b, dims[2 + axis].clone(), 2 + axis, 4)?;
    // The places within a window, row by row, as the offsets list them.
    let inner = positions(&mut cx.b, w_dims[2 + axis].clone(), axis, 2)?;
    let inner = cx.b.expand(inner, w_dims[2..].to_vec())?;
    let one_extent = Expr::constant(1);
    let inner = cx.b.reshape(inner, vec![dims[1].clone(), one_extent.clone(), one_extent])?;
    let (stride, dilation) = (frame.stride(axis), frame.dilation(axis));
    let wide = if cx.b.dtype(offset) == DType::F64 { DType::F64 } else { DType::F32 };
    Ok(cx.b.program(&[offset, starts, inner], |p| {
        let number = |value: i64| Arg::Imm(Scalar::int(DType::I64, value));
        let start = p.push(ScalarOp::Mul, &[Arg::Input(1), number(stride)]);
        let start = p.push(ScalarOp::Sub, &[start, number(before)]);
        let inner = p.push(ScalarOp::Mul, &[Arg::Input(2), number(dilation)]);
        let at = p.push(ScalarOp::Add, &[start, inner]);
        let (at, offset) = (p.cast(at, wide), p.cast(Arg::Input(0), wide));
        p.push(ScalarOp::Add, &[at, offset])
    })?)
}
