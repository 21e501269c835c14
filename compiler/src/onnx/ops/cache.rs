//! What language models do beside attention (ONNX RotaryEmbedding, TensorScatter, CausalConvWithState; `com.microsoft`
//! RotaryEmbedding of ONNX Runtime's ContribOperators.md, which has other operands).

use lapidary_runtime::DType;
use lapidary_runtime::op::{Arg, Conv, Math, ScalarOp, ScatterMode, Window};

use super::entry::{contrib, op};
use super::positions::positions;
use super::{Cx, Fault, Imported, OpDef, one};
use crate::ir::builder::{Built, round_scalar};
use crate::ir::{Builder, Expr, Op, ValueId};

pub const DEFS: &[OpDef] = &[
    OpDef { outputs: (1, 2), ..op("CausalConvWithState", 27, (2, 4), causal_conv) },
    op("RotaryEmbedding", 23, (3, 4), rotary_embedding),
    contrib("RotaryEmbedding", (4, 4), rotary_embedding_with_caches),
    op("TensorScatter", 24, (2, 3), tensor_scatter),
];

fn rotary_embedding(cx: &mut Cx<'_, '_>) -> Imported {
    let heads = cx.attrs.int_opt("num_heads")?.filter(|&heads| heads > 0);
    rotated(cx, heads.map(Expr::constant), angles)
}

/// Operand 1 has the positions: of each row, or of the first one, from which the others count on. Without a number of
/// heads it follows from the caches.
fn rotary_embedding_with_caches(cx: &mut Cx<'_, '_>) -> Imported {
    let (x, places, cache) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    if cx.attrs.flag_or("is_packed_batching", 0)? {
        return Err(Fault::unsupported(
            "RotaryEmbedding of packed batches is not supported",
            "export the model with batches that are padded",
        ));
    }
    if cx.attrs.float_or("scale", 1.0)? != 1.0 {
        return Err(Fault::unsupported(
            "RotaryEmbedding with a scale is not supported: ONNX Runtime does not say what it scales",
            "put the scale into the caches when exporting",
        ));
    }
    let shape = cx.b.dims(x);
    let length = match shape.as_slice() {
        [_, length, _] | [_, _, length, _] => length.clone(),
        _ => return Err(format!("the operand has rank {}, and 3 or 4 is needed", shape.len()).into()),
    };
    let places = match cx.b.rank(places) {
        1 => {
            let first = cx.b.reshape(places, vec![Expr::constant(1), Expr::constant(1)])?;
            let line = positions(&mut cx.b, length, 1, 2)?;
            let line = cx.b.reshape(line, vec![Expr::constant(1), cx.b.dims(line)[0].clone()])?;
            cx.b.binary(ScalarOp::Add, first, line)?
        }
        2 => places,
        rank => return Err(format!("the positions have rank {rank}, and 1 or 2 is needed").into()),
    };
    let given = cx.attrs.int_opt("num_heads")?.filter(|&heads| heads > 0).map(Expr::constant);
    let heads = match (given, cx.b.dims(cache).as_slice(), cx.attrs.int_or("rotary_embedding_dim", 0)?) {
        (Some(heads), _, _) => Some(heads),
        (None, [_, half], 0) => {
            shape.last().and_then(|features| features.exact_div(&(half.clone() * Expr::constant(2))))
        }
        (None, _, _) => None,
    };
    rotated(cx, heads, |cx, k, heads_axis| {
        let table = cx.input(k + 1)?;
        let rows = cx.b.node(Op::Gather { axis: 0 }, &[table, places])?;
        with_heads(cx, rows, heads_axis)
    })
}

/// Pairs of features are turned by an angle: `(a, b)` becomes `(a cos - b sin, a sin + b cos)`. `angles` gives the cosines
/// as 1 and the sines as 2, with an axis of extent 1 for the heads.
fn rotated(
    cx: &mut Cx<'_, '_>,
    heads: Option<Expr>,
    angles: impl Fn(&mut Cx<'_, '_>, usize, usize) -> Result<ValueId, Fault>,
) -> Imported {
    let x = cx.input(0)?;
    let shape = cx.b.dims(x);
    let interleaved = cx.attrs.flag_or("interleaved", 0)?;
    let rotated = cx.attrs.int_or("rotary_embedding_dim", 0)?;
    // Which axis the angles, a row for each position, do not have.
    let (x, heads_axis) = match (shape.len(), heads) {
        (4, _) => (x, 1),
        (3, Some(heads)) => {
            let Some(size) = shape[2].exact_div(&heads) else {
                return Err(format!("{} features are not {heads} heads of one size", shape[2]).into());
            };
            (cx.b.reshape(x, vec![shape[0].clone(), shape[1].clone(), heads, size])?, 2)
        }
        (3, None) => return Err("num_heads is needed for an operand of rank 3".into()),
        (rank, _) => return Err(format!("the operand has rank {rank}, and 3 or 4 is needed").into()),
    };
    let [cos, sin] = [1, 2].map(|k| angles(cx, k, heads_axis));
    let (cos, sin) = (cos?, sin?);
    let size = cx.b.dims(x)[3].clone();
    let turned = if rotated == 0 { size.clone() } else { Expr::constant(rotated) };
    let Some(half) = turned.exact_div(&Expr::constant(2)) else {
        return Err(format!("{turned} features are not pairs").into());
    };
    for part in [cos, sin] {
        let given = cx.b.dims(part)[3].clone();
        cx.b.require_equal(&given, &half)?;
    }
    let head = cx.b.slice_axis(x, 3, Expr::constant(0), turned.clone())?;
    let turned_head = if interleaved {
        let mut pairs = cx.b.dims(head);
        let flat = pairs.clone();
        pairs.splice(3..=3, [half.clone(), Expr::constant(2)]);
        let head = cx.b.reshape(head, pairs)?;
        let parts = [0, 1].map(|k| {
            let part = cx.b.slice_axis(head, 4, Expr::constant(k), Expr::constant(1))?;
            let mut dims = cx.b.dims(part);
            dims.pop();
            cx.b.reshape(part, dims)
        });
        let [a, b] = parts;
        let parts = turn(&mut cx.b, a?, b?, cos, sin)?;
        let columns = parts.map(|part| cx.b.append_axes(part, 5));
        let [a, b] = columns;
        let joined = cx.b.concat(&[a?, b?], 4)?;
        cx.b.reshape(joined, flat)?
    } else {
        let a = cx.b.slice_axis(head, 3, Expr::constant(0), half.clone())?;
        let b = cx.b.slice_axis(head, 3, half.clone(), half)?;
        let parts = turn(&mut cx.b, a, b, cos, sin)?;
        cx.b.concat(&parts, 3)?
    };
    let whole = if turned == size {
        turned_head
    } else {
        let rest = cx.b.slice_axis(x, 3, turned.clone(), size - turned)?;
        cx.b.concat(&[turned_head, rest], 3)?
    };
    one(cx.b.reshape(whole, shape)?)
}

/// The cosines or sines of each position, with an axis of extent 1 for the heads.
fn angles(cx: &mut Cx<'_, '_>, k: usize, heads_axis: usize) -> Result<ValueId, Fault> {
    let mut table = cx.input(k)?;
    if let Some(places) = cx.optional(3) {
        table = cx.b.node(Op::Gather { axis: 0 }, &[table, places])?;
    }
    with_heads(cx, table, heads_axis)
}

fn with_heads(cx: &mut Cx<'_, '_>, table: ValueId, heads_axis: usize) -> Result<ValueId, Fault> {
    let mut dims = cx.b.dims(table);
    if dims.len() != 3 {
        return Err(format!("the angles have rank {}, and 3 is needed, or 2 with positions", dims.len()).into());
    }
    dims.insert(heads_axis, Expr::constant(1));
    Ok(cx.b.reshape(table, dims)?)
}

fn turn(b: &mut Builder<'_>, x: ValueId, y: ValueId, cos: ValueId, sin: ValueId) -> Result<[ValueId; 2], String> {
    let inputs = [x, y, cos, sin];
    let combine = |b: &mut Builder<'_>, op: ScalarOp, of_x: u16, of_y: u16| -> Built {
        b.program(&inputs, |p| {
            let left = p.push(ScalarOp::Mul, &[Arg::Input(0), Arg::Input(of_x)]);
            let right = p.push(ScalarOp::Mul, &[Arg::Input(1), Arg::Input(of_y)]);
            p.push(op, &[left, right])
        })
    };
    Ok([combine(b, ScalarOp::Sub, 2, 3)?, combine(b, ScalarOp::Add, 3, 2)?])
}

/// Where a run of positions that reaches the end of the cache goes on.
#[derive(Clone, Copy)]
enum Writing {
    /// It may not reach the end.
    Linear,
    /// At the start.
    Circular,
}

/// Overwrites a run of positions of each sample of a cache.
fn tensor_scatter(cx: &mut Cx<'_, '_>) -> Imported {
    let (cache, update) = (cx.input(0)?, cx.input(1)?);
    let dims = cx.b.dims(update);
    let axis = cx.attrs.int_or("axis", -2)?;
    let axis = cx.axis(axis, cx.b.rank(cache))?;
    if axis == 0 || dims.len() != cx.b.rank(cache) {
        return Err("the axis is not that of the batch, and the update has the rank of the cache".into());
    }
    let modes = [("linear", Writing::Linear), ("circular", Writing::Circular)];
    let writing = cx.attrs.choice_or("mode", Writing::Linear, &modes)?;
    let length = cx.b.dims(cache)[axis].clone();
    let line = positions(&mut cx.b, dims[axis].clone(), axis, dims.len())?;
    let mut inputs = vec![line];
    if let Some(start) = cx.optional(2) {
        inputs.push(cx.b.append_axes(start, dims.len())?);
    }
    let length = cx.b.extents(vec![length], 0)?;
    inputs.push(length);
    let places = cx.b.program(&inputs, |p| {
        let mut place = Arg::Input(0);
        if inputs.len() == 3 {
            let start = p.cast(Arg::Input(1), DType::I64);
            place = p.push(ScalarOp::Add, &[place, start]);
        }
        match writing {
            Writing::Linear => p.push(ScalarOp::Identity, &[place]),
            Writing::Circular => p.push(ScalarOp::Mod, &[place, Arg::Input(inputs.len() as u16 - 1)]),
        }
    })?;
    let places = cx.b.expand(places, dims)?;
    one(cx.b.node(Op::ScatterElements { axis: axis as u8, mode: ScatterMode::Set }, &[cache, places, update])?)
}

/// What is fused behind the convolution.
#[derive(Clone, Copy)]
enum Activation {
    None,
    Silu,
}

/// A depthwise convolution over this position and those before it, of which the last are handed on.
fn causal_conv(cx: &mut Cx<'_, '_>) -> Imported {
    let (x, w) = (cx.input(0)?, cx.input(1)?);
    let (x_dims, w_dims) = (cx.b.dims(x), cx.b.dims(w));
    let activations = [("none", Activation::None), ("silu", Activation::Silu), ("swish", Activation::Silu)];
    let activation = cx.attrs.choice_or("activation", Activation::None, &activations)?;
    if x_dims.len() != 3 || w_dims.len() != 3 {
        return Err("the operand and the weights must have rank 3".into());
    }
    let constant = |dim: &Expr| dim.as_const().and_then(|dim| u32::try_from(dim).ok()).filter(|&dim| dim > 0);
    let (Some(groups), Some(size)) = (constant(&w_dims[0]), constant(&w_dims[2])) else {
        return Err(Fault::unsupported(
            format!("weights of {w_dims:?} are not known while compiling, or empty"),
            "give the weights constant extents",
        ));
    };
    let before = Expr::constant(i64::from(size) - 1);
    let state = match cx.optional(3) {
        Some(state) => state,
        None => {
            let zero = cx.b.scalar(round_scalar(cx.b.dtype(x), 0.0));
            cx.b.expand(zero, vec![x_dims[0].clone(), x_dims[1].clone(), before.clone()])?
        }
    };
    let whole = if size == 1 { x } else { cx.b.concat(&[state, x], 2)? };
    let window =
        Window { rank: 1, size: [size, 1, 1], stride: [1; 3], dilation: [1; 3], pad_lo: [0; 3], pad_hi: [0; 3] };
    let mut y = cx.b.node(Op::Conv(Conv { window, groups, math: Math::Exact }, None), &[whole, w])?;
    if let Some(bias) = cx.optional(2) {
        let given = cx.b.ty(bias).count();
        cx.b.require_equal(&given, &w_dims[0])?;
        let bias = cx.b.append_axes(bias, 2)?;
        y = cx.b.binary(ScalarOp::Add, y, bias)?;
    }
    if let Activation::Silu = activation {
        let dtype = cx.b.dtype(y);
        let wide = if dtype == DType::F64 { DType::F64 } else { DType::F32 };
        y = cx.b.program(&[y], |p| {
            let y = p.cast(Arg::Input(0), wide);
            let gate = p.push(ScalarOp::Sigmoid, &[y]);
            let gated = p.push(ScalarOp::Mul, &[y, gate]);
            p.cast(gated, dtype)
        })?;
    }
    let last = cx.b.slice_axis(whole, 2, x_dims[2].clone(), before)?;
    Ok(vec![Some(y), Some(last)])
}
