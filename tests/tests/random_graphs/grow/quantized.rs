//! Integers that stand for numbers, as quantizers leave them around products, and chains that miss one by a little.

use lapidary::ir::builder::{Built, round_scalar};
use lapidary::ir::eval::Tensor;
use lapidary::ir::{Expr, Op, Type, ValueId};
use lapidary_runtime::DType;
use lapidary_runtime::op::{Arg, Conv, MatMul, Math, ScalarOp, Window};

use super::super::recipe::Choices;
use super::{Grower, Grown};

/// How numbers become integers.
#[derive(Clone, Copy)]
struct Linear {
    dtype: DType,
    scale: f64,
    zero: i64,
}

fn linear(choices: &mut Choices<'_>) -> Linear {
    let dtype = choices.pick(&[DType::U8, DType::U8, DType::I8]);
    let zero = choices.pick(if dtype == DType::U8 { &[0, 128, 3, 255] } else { &[0, 0, -7, 127] });
    // One that no rule trusts.
    let scale = if choices.once_in(12) { 0.0 } else { choices.pick(&[0.02, 0.125, 0.5]) };
    Linear { dtype, scale, zero }
}

/// A matrix of dequantized bytes times dequantized weights or itself, with a bias and a quantization, or not.
pub fn matmul(g: &mut Grower<'_>, choices: &mut Choices<'_>) -> Grown {
    let x = g.floats(choices, 2)?;
    let x = g.builder().cast(x, DType::F32)?;
    let of = linear(choices);
    let rank = g.rank(x);
    let mut swapped: Vec<usize> = (0..rank).collect();
    swapped.swap(rank - 2, rank - 1);
    // A transpose on either side of the bytes, or on none.
    let turned = choices.below(4);
    let turn = |g: &mut Grower<'_>, x: ValueId, at: usize| {
        if turned == at { g.builder().transpose(x, &swapped) } else { Ok(x) }
    };
    let x = if turned == 1 { g.builder().unary(ScalarOp::Tanh, x)? } else { x };
    let x = turn(g, x, 1)?;
    let bytes = quantize(g, x, of)?;
    let numbers = dequantize(g, bytes, of)?;
    let a = turn(g, numbers, 2)?;
    let mut found = Vec::new();
    if choices.once_in(3) {
        // The same bytes again, or others.
        let other = Linear { scale: if choices.below(3) == 0 { 0.25 } else { of.scale }, ..of };
        found.push(quantize(g, numbers, other)?);
    }
    let ty = g.ty(a);
    let (b, columns, scale) = if choices.once_in(4) {
        (a, None, None)
    } else {
        let inner = ty.dims[rank - 1].as_const().ok_or("the inner extent is not constant")?;
        let columns = choices.between(1, 6);
        let (b, scale) = weights(g, &[columns, inner], inner, choices)?;
        (b, Some(columns), scale)
    };
    let spec = MatMul { transpose_a: false, transpose_b: true, math: Math::Exact };
    let mut y = g.builder().node(Op::MatMul(spec, None), &[a, b])?;
    if let Some(columns) = columns.filter(|_| choices.below(2) == 0) {
        y = biased(g, y, &[columns], of, scale, choices)?;
    }
    found.push(finished(g, y, choices)?);
    Ok(found)
}

/// A convolution of dequantized bytes with padding.
pub fn conv(g: &mut Grower<'_>, choices: &mut Choices<'_>) -> Grown {
    let (x, channels) = g.image(choices)?;
    let x = g.builder().cast(x, DType::F32)?;
    let of = linear(choices);
    let spatial = g.rank(x) - 2;
    let mut window =
        Window { rank: spatial as u8, size: [1; 3], stride: [1; 3], dilation: [1; 3], pad_lo: [0; 3], pad_hi: [0; 3] };
    for axis in 0..spatial {
        window.size[axis] = choices.between(1, 2) as u32;
        window.pad_lo[axis] = choices.below(2) as u32;
        window.pad_hi[axis] = choices.below(2) as u32;
    }
    let groups = if choices.once_in(3) { channels } else { 1 };
    let rows = groups * choices.between(1, 2);
    let mut dims = vec![rows, channels / groups];
    dims.extend(window.size[..spatial].iter().map(|size| i64::from(*size)));
    let terms = dims[1..].iter().product();
    let bytes = quantize(g, x, of)?;
    let a = dequantize(g, bytes, of)?;
    let (w, scale) = weights(g, &dims, terms, choices)?;
    let spec = Conv { window, groups: groups as u32, math: Math::Exact };
    let mut y = g.builder().node(Op::Conv(spec, None), &[a, w])?;
    if choices.below(2) == 0 {
        let along = [&[rows][..], &vec![1; spatial]].concat();
        y = biased(g, y, &along, of, scale, choices)?;
    }
    Ok(vec![finished(g, y, choices)?])
}

/// Weights of `dims`, whose first axis is that of the channels, as numbers, with a scale for each; or the scale of a tensor.
fn weights(
    g: &mut Grower<'_>,
    dims: &[i64],
    terms: i64,
    choices: &mut Choices<'_>,
) -> Result<(ValueId, Option<ValueId>), String> {
    let zero = choices.pick(&[0, 0, 0, 128, 1]);
    let of = Linear { dtype: if zero == 128 { DType::U8 } else { DType::I8 }, scale: 0.25, zero };
    let bytes = g.constant(of.dtype, dims, choices);
    if choices.below(2) == 0 {
        return Ok((dequantize(g, bytes, of)?, None));
    }
    // Mostly along the channels.
    let miss = choices.once_in(6) && terms > 1 && dims.len() == 2;
    let along = if miss { vec![1, dims[1]] } else { [&dims[..1], &vec![1; dims.len() - 1]].concat() };
    let count: i64 = along.iter().product();
    let scales: Vec<f64> = (0..count).map(|k| [0.5, 0.125, 0.3][k as usize % 3]).collect();
    let scale = filled(g, &along, &scales);
    let w = g.builder().program(&[bytes, scale], |p| {
        let x = p.cast(Arg::Input(0), DType::I32);
        let x = p.push(ScalarOp::Sub, &[x, p.imm(x, zero as f64)]);
        let x = p.cast(x, DType::F32);
        p.push(ScalarOp::Mul, &[x, Arg::Input(1)])
    })?;
    Ok((w, (!miss).then_some(scale)))
}

/// `y` and a bias in `i32`, which mostly has the scale of the sums, of `along`.
fn biased(
    g: &mut Grower<'_>,
    y: ValueId,
    along: &[i64],
    of: Linear,
    weights: Option<ValueId>,
    choices: &mut Choices<'_>,
) -> Built {
    let count: i64 = along.iter().product();
    let values: Vec<i64> = (0..count).map(|k| k * 37 - 50).collect();
    let elements = Tensor::from_i64s(DType::I32, vec![count as usize], &values);
    let ty = Type { dtype: DType::I32, dims: vec![Expr::constant(count)] };
    let bias = g.builder().constant(ty, elements.bytes);
    let product = |scale: f64| f64::from(of.scale as f32 * scale as f32);
    let scales: Vec<f64> = match weights {
        _ if choices.once_in(4) => vec![0.1; count as usize],
        None => vec![product(0.25); count as usize],
        Some(_) => (0..count).map(|k| product([0.5, 0.125, 0.3][k as usize % 3])).collect(),
    };
    let scale = filled(g, &[count], &scales);
    let bias = g.builder().program(&[bias, scale], |p| {
        let x = p.cast(Arg::Input(0), DType::F32);
        p.push(ScalarOp::Mul, &[x, Arg::Input(1)])
    })?;
    let dims = along.iter().map(|&dim| Expr::constant(dim)).collect();
    let bias = g.builder().reshape(bias, dims)?;
    g.builder().binary(ScalarOp::Add, y, bias)
}

/// As it is, behind an activation, moved, or as bytes.
fn finished(g: &mut Grower<'_>, y: ValueId, choices: &mut Choices<'_>) -> Built {
    let to = Linear { scale: 0.125, ..linear(choices) };
    match choices.below(4) {
        0 => Ok(y),
        1 => {
            let zero = g.builder().float_like(y, 0.0);
            let y = g.builder().binary(ScalarOp::Max, y, zero)?;
            quantize(g, y, to)
        }
        2 => quantize(g, y, to),
        _ => {
            let back: Vec<usize> = (0..g.rank(y)).rev().collect();
            let y = g.builder().transpose(y, &back)?;
            quantize(g, y, to)
        }
    }
}

fn quantize(g: &mut Grower<'_>, x: ValueId, of: Linear) -> Built {
    let scale = filled(g, &[], &[of.scale]);
    g.builder().program(&[x, scale], |p| {
        let ratio = p.push(ScalarOp::Div, &[Arg::Input(0), Arg::Input(1)]);
        let rounded = p.push(ScalarOp::Round, &[ratio]);
        let shifted = p.push(ScalarOp::Add, &[rounded, p.imm(rounded, of.zero as f64)]);
        p.cast(shifted, of.dtype)
    })
}

fn dequantize(g: &mut Grower<'_>, x: ValueId, of: Linear) -> Built {
    let scale = filled(g, &[], &[of.scale]);
    g.builder().program(&[x, scale], |p| {
        let x = p.cast(Arg::Input(0), DType::I32);
        let x = p.push(ScalarOp::Sub, &[x, p.imm(x, of.zero as f64)]);
        let x = p.cast(x, DType::F32);
        p.push(ScalarOp::Mul, &[x, Arg::Input(1)])
    })
}

/// A constant of these `f32` elements.
fn filled(g: &mut Grower<'_>, dims: &[i64], elements: &[f64]) -> ValueId {
    let rounded: Vec<f64> = elements.iter().map(|&x| round_scalar(DType::F32, x).as_f64()).collect();
    let tensor = Tensor::from_f64s(DType::F32, dims.iter().map(|&dim| dim as usize).collect(), &rounded);
    let ty = Type { dtype: DType::F32, dims: dims.iter().map(|&dim| Expr::constant(dim)).collect() };
    g.builder().constant(ty, tensor.bytes)
}
