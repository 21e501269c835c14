//! Normalizations (ONNX operators; `com.microsoft` of ONNX Runtime's ContribOperators.md).
//!
//! Batch normalization is a scale and a shift for each channel, both made of constants, so that a convolution in front
//! can take them into its weights. The others are the IR's `Norm` and `GroupNorm`, or reductions and pointwise programs.

use lapidary_runtime::DType;
use lapidary_runtime::op::{Arg, GroupNorm, Norm, NormKind, Pool, PoolKind, ReduceKind, Scalar, ScalarOp, Window};

use super::entry::{op, unary};
use super::{Cx, Fault, Import, Imported, OpDef, one};
use crate::ir::builder::ProgramWriter;
use crate::ir::{Expr, Op, ValueId};
use crate::onnx::dtype_of;

pub const DEFS: &[OpDef] = &[
    OpDef { outputs: (1, 5), ..op("BatchNormalization", 7, (5, 5), batch_norm) },
    // ONNX Runtime had both before the standard, in its domain.
    OpDef { outputs: (1, 3), ..op("LayerNormalization", 1, (2, 3), layer_norm) },
    OpDef { outputs: (1, 2), ..op("SimplifiedLayerNormalization", 1, (2, 2), simplified_layer_norm) },
    microsoft("SimplifiedLayerNormalization", (2, 2), 2, simplified_layer_norm),
    microsoft("SkipLayerNormalization", (3, 5), 4, |cx| skip_layer_norm(cx, NormKind::Layer)),
    microsoft("SkipSimplifiedLayerNormalization", (3, 4), 4, |cx| skip_layer_norm(cx, NormKind::Rms)),
    op("RMSNormalization", 23, (2, 2), rms_norm),
    op("InstanceNormalization", 6, (3, 3), instance_norm),
    op("GroupNormalization", 18, (3, 3), |cx| group_norm(cx, ScaleOf::Group)),
    op("GroupNormalization", 21, (3, 3), |cx| group_norm(cx, ScaleOf::Channel)),
    unary("LpNormalization", 1, lp_norm),
    unary("MeanVarianceNormalization", 9, mean_variance_norm),
    unary("LRN", 1, local_response_norm),
];

/// An operator of `com.microsoft` with more than one result.
const fn microsoft(
    name: &'static str,
    inputs: (usize, usize),
    outputs: usize,
    import: fn(&mut Cx<'_, '_>) -> Imported,
) -> OpDef {
    OpDef { domain: "com.microsoft", name, since: 1, inputs, outputs: (1, outputs), import: Import::Compose(import) }
}

/// y = x * s + t with s = scale / sqrt(var + epsilon) and t = bias - mean * s. One product and one sum, as two nodes.
fn batch_norm(cx: &mut Cx<'_, '_>) -> Imported {
    let momentum = f64::from(cx.attrs.float_or("momentum", 0.9)?);
    let epsilon = epsilon(cx, 1e-5)?;
    let per_channel = cx.attrs.flag_or("spatial", 1)?;
    if cx.attrs.flag_or("training_mode", 0)? {
        return batch_norm_in_training(cx, epsilon, momentum);
    }
    let x = cx.input(0)?;
    let [scale, bias, mean, var] = [cx.input(1)?, cx.input(2)?, cx.input(3)?, cx.input(4)?];
    let dtype = cx.b.dtype(x);
    let wide = wide_type([scale, bias, mean, var].map(|value| cx.b.dtype(value)));
    let slope = cx.b.program(&[scale, var], |p| {
        let slope = slope_of(p, wide, epsilon, Arg::Input(0), Arg::Input(1));
        p.cast(slope, dtype)
    })?;
    let shift = cx.b.program(&[bias, mean, scale, var], |p| {
        let slope = slope_of(p, wide, epsilon, Arg::Input(2), Arg::Input(3));
        let [bias, mean] = [Arg::Input(0), Arg::Input(1)].map(|arg| p.cast(arg, wide));
        let moved = p.push(ScalarOp::Mul, &[mean, slope]);
        let shift = p.push(ScalarOp::Sub, &[bias, moved]);
        p.cast(shift, dtype)
    })?;
    let (slope, shift) = if per_channel {
        check_channels(cx, x, &[scale, bias, mean, var])?;
        // The axes behind the channels; a vector is one channel.
        let rank = cx.b.rank(x).saturating_sub(1).max(1);
        (cx.b.append_axes(slope, rank)?, cx.b.append_axes(shift, rank)?)
    } else {
        (slope, shift)
    };
    let scaled = cx.b.binary(ScalarOp::Mul, x, slope)?;
    one(cx.b.binary(ScalarOp::Add, scaled, shift)?)
}

/// Normalization by the mean and the variance of the batch; results 1 and 2 are the running ones,
/// `running * momentum + batch * (1 - momentum)`. The variance is that of the elements, not an estimate.
fn batch_norm_in_training(cx: &mut Cx<'_, '_>, epsilon: f64, momentum: f64) -> Imported {
    let x = cx.input(0)?;
    let [scale, bias, mean, var] = [cx.input(1)?, cx.input(2)?, cx.input(3)?, cx.input(4)?];
    check_channels(cx, x, &[scale, bias, mean, var])?;
    let (rank, dtype) = (cx.b.rank(x), cx.b.dtype(x));
    let axes: Vec<usize> = (0..rank).filter(|&axis| axis != 1).collect();
    let wide = wide_type([dtype, cx.b.dtype(scale), cx.b.dtype(bias), cx.b.dtype(mean), cx.b.dtype(var)]);
    let x = cx.b.cast(x, wide)?;
    let of_batch = cx.b.reduce(ReduceKind::Mean, x, &axes)?;
    let centered = cx.b.binary(ScalarOp::Sub, x, of_batch)?;
    let squares = cx.b.binary(ScalarOp::Mul, centered, centered)?;
    let spread = cx.b.reduce(ReduceKind::Mean, squares, &axes)?;
    let behind = rank.saturating_sub(1).max(1);
    let (scale, bias) = (cx.b.append_axes(scale, behind)?, cx.b.append_axes(bias, behind)?);
    let y = cx.b.program(&[centered, scale, spread, bias], |p| {
        let slope = slope_of(p, wide, epsilon, Arg::Input(1), Arg::Input(2));
        let scaled = p.push(ScalarOp::Mul, &[Arg::Input(0), slope]);
        let bias = p.cast(Arg::Input(3), wide);
        let sum = p.push(ScalarOp::Add, &[scaled, bias]);
        p.cast(sum, dtype)
    })?;
    let mut results = vec![Some(y)];
    for (running, batch) in [(mean, of_batch), (var, spread)] {
        let dims = cx.b.dims(running);
        let batch = cx.b.reshape(batch, dims)?;
        let kept = cx.b.dtype(running);
        results.push(Some(cx.b.program(&[running, batch], |p| {
            let running = p.cast(Arg::Input(0), wide);
            let old = p.push(ScalarOp::Mul, &[running, p.imm(running, momentum)]);
            let new = p.push(ScalarOp::Mul, &[Arg::Input(1), p.imm(running, 1.0 - momentum)]);
            let sum = p.push(ScalarOp::Add, &[old, new]);
            p.cast(sum, kept)
        })?));
    }
    Ok(results)
}

/// The type in which parameters of the given types are combined.
fn wide_type<const N: usize>(types: [DType; N]) -> DType {
    if types.contains(&DType::F64) { DType::F64 } else { DType::F32 }
}

/// scale / sqrt(var + epsilon)
fn slope_of(p: &mut ProgramWriter, wide: DType, epsilon: f64, scale: Arg, var: Arg) -> Arg {
    let (scale, var) = (p.cast(scale, wide), p.cast(var, wide));
    let raised = p.push(ScalarOp::Add, &[var, p.imm(var, epsilon)]);
    let deviation = p.push(ScalarOp::Sqrt, &[raised]);
    p.push(ScalarOp::Div, &[scale, deviation])
}

/// Each parameter has one element for each channel of `x`.
fn check_channels(cx: &mut Cx<'_, '_>, x: ValueId, parameters: &[ValueId]) -> Result<(), Fault> {
    let dims = cx.b.dims(x);
    let channels = if dims.len() < 2 { Expr::constant(1) } else { dims[1].clone() };
    for &parameter in parameters {
        let given = cx.b.dims(parameter);
        let [given] = given.as_slice() else {
            return Err(Fault::Invalid(format!("a parameter has rank {}, and 1 is needed", given.len())));
        };
        cx.b.require_equal(given, &channels)?;
    }
    Ok(())
}

fn epsilon(cx: &Cx<'_, '_>, default: f32) -> Result<f64, Fault> {
    Ok(f64::from(cx.attrs.float_or("epsilon", default)?))
}

/// The normalization of the axes from `axis` on, with what is asked of its statistics.
fn normalize(cx: &mut Cx<'_, '_>, kind: NormKind, x: ValueId, parameters: &[Option<ValueId>]) -> Imported {
    let epsilon = epsilon(cx, 1e-5)?;
    let axis = cx.attrs.int_or("axis", -1)?;
    let axis = cx.axis(axis, cx.b.rank(x))?;
    norm_from(cx, kind, x, parameters, axis, epsilon)
}

fn norm_from(
    cx: &mut Cx<'_, '_>,
    kind: NormKind,
    x: ValueId,
    parameters: &[Option<ValueId>],
    axis: usize,
    epsilon: f64,
) -> Imported {
    let dtype = cx.b.dtype(x);
    let mut inputs = vec![Some(x)];
    for &parameter in parameters {
        inputs.push(parameter.map(|parameter| cx.b.cast(parameter, dtype)).transpose()?);
    }
    let spec = Norm { kind, axis: axis as u8, epsilon: Scalar::float(DType::F32, epsilon) };
    let wanted = (0..3).rev().find(|&k| wants_statistic(cx, kind, k)).map_or(1, |k| k + 1);
    Ok(cx.b.node_with(Op::Norm(spec, None), &inputs, wanted)?)
}

/// Whether result `k` of the IR's operation is needed. Root-mean-square norms have no mean among their results.
fn wants_statistic(cx: &Cx<'_, '_>, kind: NormKind, k: usize) -> bool {
    match kind {
        NormKind::Layer => cx.wants(k),
        NormKind::Rms => k == 2 && (cx.wants(1) || cx.wants(2)),
    }
}

/// The type of the statistics, which are computed in `f32` at least.
fn stash_type(cx: &Cx<'_, '_>) -> Result<DType, Fault> {
    let number = cx.attrs.int_or("stash_type", 1)?;
    Ok(dtype_of(i32::try_from(number).unwrap_or(i32::MAX), cx.attrs.at())?)
}

fn layer_norm(cx: &mut Cx<'_, '_>) -> Imported {
    let stash = stash_type(cx)?;
    let (x, scale, bias) = (cx.input(0)?, cx.input(1)?, cx.optional(2));
    let results = normalize(cx, NormKind::Layer, x, &[Some(scale), bias])?;
    with_statistics(cx, results, stash)
}

/// The results with the statistics in the type that the node asks for.
fn with_statistics(cx: &mut Cx<'_, '_>, results: Vec<Option<ValueId>>, stash: DType) -> Imported {
    let mut results = results.into_iter();
    let mut out = vec![results.next().flatten()];
    for statistic in results {
        out.push(statistic.map(|statistic| cx.b.cast(statistic, stash)).transpose()?);
    }
    Ok(out)
}

/// Root-mean-square normalization with results y and the inverse deviation.
fn simplified_layer_norm(cx: &mut Cx<'_, '_>) -> Imported {
    let stash = stash_type(cx)?;
    let (x, scale) = (cx.input(0)?, cx.input(1)?);
    let results = normalize(cx, NormKind::Rms, x, &[Some(scale)])?;
    let results = with_statistics(cx, results, stash)?;
    Ok(vec![results.first().copied().flatten(), results.get(2).copied().flatten()])
}

/// The result has the type of the scale.
fn rms_norm(cx: &mut Cx<'_, '_>) -> Imported {
    stash_type(cx)?;
    let (x, scale) = (cx.input(0)?, cx.input(1)?);
    let dtype = cx.b.dtype(scale);
    if dtype == cx.b.dtype(x) {
        return normalize(cx, NormKind::Rms, x, &[Some(scale)]);
    }
    let results = normalize(cx, NormKind::Rms, x, &[])?;
    let Some(Some(normalized)) = results.first().copied() else { return Err("the operation has no result".into()) };
    let normalized = cx.b.cast(normalized, dtype)?;
    one(cx.b.binary(ScalarOp::Mul, normalized, scale)?)
}

/// The normalization of input + skip (+ bias); results y, mean, inverse deviation, and the sum.
fn skip_layer_norm(cx: &mut Cx<'_, '_>, kind: NormKind) -> Imported {
    let epsilon = epsilon(cx, 1e-12)?;
    let (scale, shift, bias) = match kind {
        NormKind::Layer => (cx.input(2)?, cx.optional(3), cx.optional(4)),
        NormKind::Rms => (cx.input(2)?, None, cx.optional(3)),
    };
    let addends: Vec<ValueId> = [Some(cx.input(0)?), Some(cx.input(1)?), bias].into_iter().flatten().collect();
    let sum = cx.b.program(&addends, |p| {
        (1..addends.len()).fold(Arg::Input(0), |sum, k| p.push(ScalarOp::Add, &[sum, Arg::Input(k as u16)]))
    })?;
    let Some(axis) = cx.b.rank(sum).checked_sub(1) else { return Err("the operand has rank 0".into()) };
    let mut results = norm_from(cx, kind, sum, &[Some(scale), shift], axis, epsilon)?;
    results.resize(3, None);
    results.push(Some(sum));
    Ok(results)
}

/// Each channel is a group of its own.
fn instance_norm(cx: &mut Cx<'_, '_>) -> Imported {
    let (x, scale, bias) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let channels = channels(cx, x, scale)?;
    one(grouped(cx, x, scale, bias, channels)?)
}

/// What a scale and a bias of GroupNormalization belong to, which changed with operator set 21.
#[derive(Clone, Copy)]
enum ScaleOf {
    Group,
    Channel,
}

fn group_norm(cx: &mut Cx<'_, '_>, scale_of: ScaleOf) -> Imported {
    stash_type(cx)?;
    let groups = cx.attrs.int("num_groups")?;
    if groups < 1 {
        return Err(cx.attrs.bad_value("num_groups", format!("is {groups}"), "it must be positive").into());
    }
    let (x, mut scale, mut bias) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    if let ScaleOf::Group = scale_of {
        let Some(channels) = cx.b.dims(x).get(1).cloned() else { return Err("the operand has no channels".into()) };
        let groups = Expr::constant(groups);
        for parameter in [&mut scale, &mut bias] {
            let column = cx.b.reshape(*parameter, vec![groups.clone(), Expr::constant(1)])?;
            let rows = vec![groups.clone(), channels.floor_div(&groups)];
            let repeated = cx.b.expand(column, rows)?;
            *parameter = cx.b.reshape(repeated, vec![channels.clone()])?;
        }
    }
    one(grouped(cx, x, scale, bias, groups)?)
}

/// The number of channels of `x`, which may only show in its scale.
fn channels(cx: &Cx<'_, '_>, x: ValueId, scale: ValueId) -> Result<i64, Fault> {
    let of_x = cx.b.dims(x).get(1).and_then(Expr::as_const);
    let of_scale = cx.b.dims(scale).first().and_then(Expr::as_const);
    of_x.or(of_scale).ok_or_else(|| {
        Fault::unsupported(
            "the number of channels is not known while compiling",
            "pin the dimension of the channels with a profile",
        )
    })
}

fn grouped(cx: &mut Cx<'_, '_>, x: ValueId, scale: ValueId, bias: ValueId, groups: i64) -> Result<ValueId, Fault> {
    let dtype = cx.b.dtype(x);
    let (scale, bias) = (cx.b.cast(scale, dtype)?, cx.b.cast(bias, dtype)?);
    let groups = u32::try_from(groups).map_err(|_| Fault::Invalid(format!("there are {groups} groups")))?;
    let epsilon = Scalar::float(DType::F64, epsilon(cx, 1e-5)?);
    Ok(cx.b.node(Op::GroupNorm(GroupNorm { groups, epsilon }, None), &[x, scale, bias])?)
}

/// x / norm(x), and 0 where the norm is 0.
fn lp_norm(cx: &mut Cx<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    let axis = cx.attrs.int_or("axis", -1)?;
    let axis = cx.axis(axis, cx.b.rank(x))?;
    let kind = match cx.attrs.int_or("p", 2)? {
        1 => ReduceKind::L1,
        2 => ReduceKind::L2,
        p => return Err(cx.attrs.bad_value("p", format!("is {p}"), "it must be 1 or 2").into()),
    };
    let norm = cx.b.reduce(kind, x, &[axis])?;
    one(cx.b.program(&[x, norm], |p| {
        let zero = p.imm(Arg::Input(0), 0.0);
        let vanishes = p.push(ScalarOp::Equal, &[Arg::Input(1), zero]);
        let ratio = p.push(ScalarOp::Div, &[Arg::Input(0), Arg::Input(1)]);
        p.push(ScalarOp::Select, &[vanishes, zero, ratio])
    })?)
}

/// (x - mean) / (sqrt(mean of (x - mean)^2) + 1e-9), the constant being the function's in the standard.
fn mean_variance_norm(cx: &mut Cx<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    let axes = cx.attrs.ints_or("axes", &[0, 2, 3])?.to_vec();
    let axes = cx.axes(&axes, cx.b.rank(x))?;
    let dtype = cx.b.dtype(x);
    let wide = cx.b.cast(x, wide_type([dtype]))?;
    let mean = cx.b.reduce(ReduceKind::Mean, wide, &axes)?;
    let centered = cx.b.binary(ScalarOp::Sub, wide, mean)?;
    let squares = cx.b.program(&[centered], |p| p.push(ScalarOp::Mul, &[Arg::Input(0), Arg::Input(0)]))?;
    let variance = cx.b.reduce(ReduceKind::Mean, squares, &axes)?;
    one(cx.b.program(&[centered, variance], |p| {
        let deviation = p.push(ScalarOp::Sqrt, &[Arg::Input(1)]);
        let raised = p.push(ScalarOp::Add, &[deviation, p.imm(deviation, 1e-9)]);
        let ratio = p.push(ScalarOp::Div, &[Arg::Input(0), raised]);
        p.cast(ratio, dtype)
    })?)
}

/// x / (bias + alpha * mean of x^2 over `size` channels)^beta, where channels outside count as zeros.
fn local_response_norm(cx: &mut Cx<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    let size = cx.attrs.int("size")?;
    let [alpha, beta, bias] = [("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0)]
        .map(|(name, default)| cx.attrs.float_or(name, default).map(f64::from));
    let (alpha, beta, bias) = (alpha?, beta?, bias?);
    let Some(size) = u32::try_from(size).ok().filter(|&size| size > 0) else {
        return Err(cx.attrs.bad_value("size", format!("is {size}"), "it must be positive").into());
    };
    let dims = cx.b.dims(x);
    let [batch, channels, rest @ ..] = dims.as_slice() else {
        return Err(format!("the operand has rank {}, and at least 2 is needed", dims.len()).into());
    };
    let dtype = cx.b.dtype(x);
    let wide = wide_type([dtype]);
    let squares = cx.b.program(&[x], |p| {
        let x = p.cast(Arg::Input(0), wide);
        p.push(ScalarOp::Mul, &[x, x])
    })?;
    let rest = rest.iter().cloned().fold(Expr::constant(1), |count, dim| count * dim);
    // The channels as a spatial axis: the mean over a window of them, padding and all.
    let plane = vec![batch.clone(), Expr::constant(1), channels.clone(), rest.clone()];
    let squares = cx.b.reshape(squares, plane)?;
    let mut window = Window { rank: 2, size: [1; 3], stride: [1; 3], dilation: [1; 3], pad_lo: [0; 3], pad_hi: [0; 3] };
    window.size[0] = size;
    window.pad_lo[0] = (size - 1) / 2;
    window.pad_hi[0] = size - 1 - (size - 1) / 2;
    let spec = Pool { kind: PoolKind::AverageCountPad, window, index_order: 0 };
    let mean = cx.b.node(Op::Pool(spec, vec![channels.clone(), rest]), &[squares])?;
    let mean = cx.b.reshape(mean, dims)?;
    one(cx.b.program(&[x, mean], |p| {
        let x = p.cast(Arg::Input(0), wide);
        let scaled = p.push(ScalarOp::Mul, &[Arg::Input(1), p.imm(x, alpha)]);
        let raised = p.push(ScalarOp::Add, &[scaled, p.imm(x, bias)]);
        let power = p.push(ScalarOp::Pow, &[raised, p.imm(x, beta)]);
        let ratio = p.push(ScalarOp::Div, &[x, power]);
        p.cast(ratio, dtype)
    })?)
}
