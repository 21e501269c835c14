//! Quantized functions of `com.microsoft` (ONNX Runtime's ContribOperators.md, QLinear*): dequantized to `f32`, computed,
//! and quantized again, half to even. Each tensor has one scale and one zero point. ONNX Runtime reads some of them from
//! tables of its own, so that results may differ by one step.

use lapidary_runtime::DType;
use lapidary_runtime::op::{Arg, ReduceKind, ScalarOp};

use super::entry::contrib;
use super::pool::average;
use super::quantize::{dequantize_step, quantize_step, quantized};
use super::softmax::{as_one_axis, softmax};
use super::{Cx, Fault, Imported, MANY, OpDef, one};
use crate::ir::ValueId;
use crate::ir::builder::{Built, ProgramWriter};

pub const DEFS: &[OpDef] = &[
    contrib("QLinearAdd", (7, 8), |cx| zip(cx, ScalarOp::Add)),
    contrib("QLinearAveragePool", (4, 5), average_pool),
    contrib("QLinearConcat", (5, MANY), concat),
    contrib("QLinearGlobalAveragePool", (4, 5), global_average_pool),
    contrib("QLinearLeakyRelu", (4, 5), leaky_relu),
    contrib("QLinearMul", (7, 8), |cx| zip(cx, ScalarOp::Mul)),
    contrib("QLinearReduceMean", (4, 5), reduce_mean),
    contrib("QLinearSigmoid", (4, 5), |cx| map(cx, |p, x| p.push(ScalarOp::Sigmoid, &[x]))),
    contrib("QLinearSoftmax", (5, 5), quantized_softmax),
    contrib("QLinearWhere", (9, 9), choose),
];

/// A scale and a zero point, which are scalars.
#[derive(Clone, Copy)]
struct Params {
    scale: ValueId,
    zero: Option<ValueId>,
}

/// The scale in operand `k` and the zero point behind it.
fn params(cx: &mut Cx<'_, '_>, k: usize) -> Result<Params, Fault> {
    let scale = cx.input(k)?;
    let scale = cx.b.reshape(scale, Vec::new())?;
    let zero = match cx.optional(k + 1) {
        Some(zero) => Some(cx.b.reshape(zero, Vec::new())?),
        None => None,
    };
    Ok(Params { scale, zero })
}

/// Operands of a program under construction, and where they stand in it.
struct Operands(Vec<ValueId>);

impl Operands {
    fn add(&mut self, value: ValueId) -> Arg {
        self.0.push(value);
        Arg::Input(self.0.len() as u16 - 1)
    }

    fn params(&mut self, params: Params) -> (Arg, Option<Arg>) {
        (self.add(params.scale), params.zero.map(|zero| self.add(zero)))
    }
}

/// The type of the result: that of its zero point, or of the operand.
fn result_type(cx: &Cx<'_, '_>, x: ValueId, of: Params) -> DType {
    cx.b.dtype(of.zero.unwrap_or(x))
}

/// `f(x)`, in one program.
fn map(cx: &mut Cx<'_, '_>, f: impl FnOnce(&mut ProgramWriter, Arg) -> Arg) -> Imported {
    let (x, of_x, of_y) = (cx.input(0)?, params(cx, 1)?, params(cx, 3)?);
    let dtype = result_type(cx, x, of_y);
    let mut operands = Operands(vec![x]);
    let ((scale_x, zero_x), (scale_y, zero_y)) = (operands.params(of_x), operands.params(of_y));
    one(cx.b.program(&operands.0, |p| {
        let x = dequantize_step(p, Arg::Input(0), scale_x, zero_x);
        let y = f(p, x);
        quantize_step(p, y, scale_y, zero_y, dtype)
    })?)
}

/// `op(a, b)`, broadcast, in one program.
fn zip(cx: &mut Cx<'_, '_>, op: ScalarOp) -> Imported {
    let (a, b) = (cx.input(0)?, cx.input(3)?);
    let (of_a, of_b, of_c) = (params(cx, 1)?, params(cx, 4)?, params(cx, 6)?);
    let dtype = result_type(cx, a, of_c);
    let mut operands = Operands(vec![a, b]);
    let ((scale_a, zero_a), (scale_b, zero_b)) = (operands.params(of_a), operands.params(of_b));
    let (scale_c, zero_c) = operands.params(of_c);
    one(cx.b.program(&operands.0, |p| {
        let a = dequantize_step(p, Arg::Input(0), scale_a, zero_a);
        let b = dequantize_step(p, Arg::Input(1), scale_b, zero_b);
        let c = p.push(op, &[a, b]);
        quantize_step(p, c, scale_c, zero_c, dtype)
    })?)
}

/// x < 0 ? alpha * x : x
fn leaky_relu(cx: &mut Cx<'_, '_>) -> Imported {
    let alpha = f64::from(cx.attrs.float_or("alpha", 0.01)?);
    map(cx, |p, x| {
        let below = p.push(ScalarOp::Mul, &[x, p.imm(x, alpha)]);
        let negative = p.push(ScalarOp::Less, &[x, p.imm(x, 0.0)]);
        p.push(ScalarOp::Select, &[negative, below, x])
    })
}

fn dequantized(cx: &mut Cx<'_, '_>, x: ValueId, of_x: Params) -> Built {
    let mut operands = Operands(vec![x]);
    let (scale, zero) = operands.params(of_x);
    cx.b.program(&operands.0, |p| dequantize_step(p, Arg::Input(0), scale, zero))
}

/// `y` in the type of its zero point; without one, in that of `x`.
fn requantized(cx: &mut Cx<'_, '_>, y: ValueId, of_y: Params, x: ValueId) -> Built {
    let dtype = result_type(cx, x, of_y);
    let mut operands = Operands(vec![y]);
    let (scale, zero) = operands.params(of_y);
    cx.b.program(&operands.0, |p| quantize_step(p, Arg::Input(0), scale, zero, dtype))
}

/// The mean of the integers over `axes`, then scaled.
fn mean(cx: &mut Cx<'_, '_>, axes: &[usize]) -> Result<ValueId, Fault> {
    let (x, of_x, of_y) = (cx.input(0)?, params(cx, 1)?, params(cx, 3)?);
    let mut operands = Operands(vec![x]);
    let zero = of_x.zero.map(|zero| operands.add(zero));
    let difference = cx.b.program(&operands.0, |p| {
        let mut x = p.cast(Arg::Input(0), DType::F32);
        if let Some(zero) = zero {
            let zero = p.cast(zero, DType::F32);
            x = p.push(ScalarOp::Sub, &[x, zero]);
        }
        x
    })?;
    let mean = if axes.is_empty() { difference } else { cx.b.reduce(ReduceKind::Mean, difference, axes)? };
    let mean = cx.b.binary(ScalarOp::Mul, mean, of_x.scale)?;
    Ok(requantized(cx, mean, of_y, x)?)
}

fn global_average_pool(cx: &mut Cx<'_, '_>) -> Imported {
    let channels_last = cx.attrs.flag_or("channels_last", 0)?;
    let x = cx.input(0)?;
    let rank = cx.b.rank(x);
    if rank < 2 {
        return Err(format!("the operand has rank {rank}, and at least 2 is needed").into());
    }
    let axes: Vec<usize> = if channels_last { (1..rank - 1).collect() } else { (2..rank).collect() };
    one(mean(cx, &axes)?)
}

fn average_pool(cx: &mut Cx<'_, '_>) -> Imported {
    let (x, of_x, of_y) = (cx.input(0)?, params(cx, 1)?, params(cx, 3)?);
    let channels_last = cx.attrs.flag_or("channels_last", 0)?;
    let rank = cx.b.rank(x);
    if rank < 3 {
        return Err(format!("the operand has rank {rank}, and at least 3 is needed").into());
    }
    // Where the channels go, and back.
    let inward: Vec<usize> = [0, rank - 1].into_iter().chain(1..rank - 1).collect();
    let outward: Vec<usize> = [0].into_iter().chain(2..rank).chain([1]).collect();
    let mut real = dequantized(cx, x, of_x)?;
    if channels_last {
        real = cx.b.transpose(real, &inward)?;
    }
    let mut mean = average(cx, real)?;
    if channels_last {
        mean = cx.b.transpose(mean, &outward)?;
    }
    one(requantized(cx, mean, of_y, x)?)
}

fn reduce_mean(cx: &mut Cx<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    let rank = cx.b.rank(x);
    let axes = cx.attrs.ints_opt("axes")?.map(<[i64]>::to_vec);
    let axes = match axes {
        Some(axes) => cx.axes(&axes, rank)?,
        None => (0..rank).collect(),
    };
    let keep = cx.attrs.flag_or("keepdims", 1)?;
    let result = mean(cx, &axes)?;
    if keep {
        return one(result);
    }
    let dims = cx.b.dims(result);
    let kept = dims.into_iter().enumerate().filter(|(axis, _)| !axes.contains(axis)).map(|(_, dim)| dim);
    one(cx.b.reshape(result, kept.collect())?)
}

/// Up to operator set 12, which the attribute `opset` names, all axes from `axis` on count as one.
fn quantized_softmax(cx: &mut Cx<'_, '_>) -> Imported {
    let (x, of_x, of_y) = (cx.input(0)?, params(cx, 1)?, params(cx, 3)?);
    let opset = cx.attrs.int("opset")?;
    let axis = cx.attrs.int_or("axis", -1)?;
    let axis = cx.axis(axis, cx.b.rank(x))?;
    let y = dequantized(cx, x, of_x)?;
    let y = if opset < 13 { as_one_axis(&mut cx.b, y, axis, softmax)? } else { softmax(&mut cx.b, y, axis)? };
    one(requantized(cx, y, of_y, x)?)
}

/// Each tensor is brought to the scale of the result; one that has it already is rounded to itself.
fn concat(cx: &mut Cx<'_, '_>) -> Imported {
    let of_y = params(cx, 0)?;
    let count = cx.input_count() - 2;
    if !count.is_multiple_of(3) {
        return Err(
            format!("{count} operands behind the zero point are no triples of tensor, scale and zero point").into()
        );
    }
    let axis = cx.attrs.int("axis")?;
    let mut parts = Vec::new();
    for k in (2..cx.input_count()).step_by(3) {
        let (x, of_x) = (cx.input(k)?, params(cx, k + 1)?);
        let real = dequantized(cx, x, of_x)?;
        parts.push(quantized(&mut cx.b, real, of_y.scale, of_y.zero)?);
    }
    let rank = parts.first().map_or(0, |&first| cx.b.rank(first));
    let axis = cx.axis(axis, rank)?;
    one(cx.b.concat(&parts, axis)?)
}

/// condition ? x : y
fn choose(cx: &mut Cx<'_, '_>) -> Imported {
    let (condition, x, y) = (cx.input(0)?, cx.input(1)?, cx.input(4)?);
    let (of_x, of_y, of_z) = (params(cx, 2)?, params(cx, 5)?, params(cx, 7)?);
    let dtype = result_type(cx, x, of_z);
    let mut operands = Operands(vec![condition, x, y]);
    let ((scale_x, zero_x), (scale_y, zero_y)) = (operands.params(of_x), operands.params(of_y));
    let (scale_z, zero_z) = operands.params(of_z);
    one(cx.b.program(&operands.0, |p| {
        let x = dequantize_step(p, Arg::Input(1), scale_x, zero_x);
        let y = dequantize_step(p, Arg::Input(2), scale_y, zero_y);
        let chosen = p.push(ScalarOp::Select, &[Arg::Input(0), x, y]);
        quantize_step(p, chosen, scale_z, zero_z, dtype)
    })?)
}
