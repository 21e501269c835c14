//! Products, windows and recurrent layers.

use lapidary::ir::eval::Tensor;
use lapidary::ir::{Expr, Op, Type, ValueId};
use lapidary_runtime::DType;
use lapidary_runtime::op::{
    Activation, ActivationKind, Cell, Conv, ConvTranspose, Direction, MatMul, Math, Pool, PoolKind, Recurrent,
    RegionKind, RegionPool, ScalarOp, Window,
};

use super::super::data::Random;
use super::super::recipe::Choices;
use super::{Grower, Grown};

pub fn matmul(g: &mut Grower<'_>, choices: &mut Choices<'_>) -> Grown {
    let number = |dtype: DType| dtype != DType::Bool;
    let mut x = g.value(choices, |ty| ty.dims.len() >= 2 && number(ty.dtype))?;
    let rank = g.rank(x);
    if choices.once_in(5) {
        let mut swapped: Vec<usize> = (0..rank).collect();
        swapped.swap(rank - 2, rank - 1);
        x = g.builder().transpose(x, &swapped)?;
    }
    let ty = g.ty(x);
    let transpose_a = choices.once_in(4);
    let transpose_b = choices.once_in(3);
    let inner = &ty.dims[if transpose_a { rank - 2 } else { rank - 1 }];
    let other = if choices.once_in(4) {
        let at = |dims: &[Expr]| dims[dims.len() - if transpose_b { 1 } else { 2 }].clone();
        g.value(choices, |other| other.dtype == ty.dtype && other.dims.len() >= 2 && &at(&other.dims) == inner)?
    } else {
        let inner = inner.as_const().ok_or("the inner extent is not constant")?;
        let columns = choices.between(1, 9);
        let mut dims = if transpose_b { vec![columns, inner] } else { vec![inner, columns] };
        if rank > 2 && choices.once_in(4) {
            dims.insert(0, ty.dims[rank - 3].as_const().unwrap_or(1));
        }
        let bytes = matches!(ty.dtype, DType::I8 | DType::U8);
        let dtype = if bytes { choices.pick(&[DType::I8, DType::U8]) } else { ty.dtype };
        g.constant(dtype, &dims, choices)
    };
    let spec = MatMul { transpose_a, transpose_b, math: Math::Exact };
    let y = g.builder().node(Op::MatMul(spec, None), &[x, other])?;
    let columns = g.ty(y).dims.last().and_then(Expr::as_const);
    match columns {
        Some(columns) if choices.below(2) == 0 => {
            let bias = g.constant(g.graph.ty(y).dtype, &[columns], choices);
            Ok(vec![g.builder().binary(ScalarOp::Add, y, bias)?])
        }
        Some(_) | None => Ok(vec![y]),
    }
}

/// A window over `rank` axes; pads stay below `most_pad`.
fn window(rank: usize, choices: &mut Choices<'_>, most_pad: impl Fn(u32) -> u32) -> Window {
    let mut w =
        Window { rank: rank as u8, size: [1; 3], stride: [1; 3], dilation: [1; 3], pad_lo: [0; 3], pad_hi: [0; 3] };
    for axis in 0..rank {
        w.size[axis] = choices.between(1, 3) as u32;
        w.stride[axis] = choices.pick(&[1, 1, 2, 3]);
        w.dilation[axis] = choices.pick(&[1, 1, 1, 2]);
        let most = i64::from(most_pad(w.extent(axis)));
        let pads = choices.below(16) as i64;
        w.pad_lo[axis] = (pads % 4).min(most) as u32;
        w.pad_hi[axis] = (pads / 4).min(most) as u32;
    }
    w
}

pub fn conv(g: &mut Grower<'_>, choices: &mut Choices<'_>) -> Grown {
    let (mut x, channels) = g.image(choices)?;
    let rank = g.rank(x) - 2;
    let spec = Conv { window: window(rank, choices, |_| 2), groups: groups(channels, choices), math: Math::Exact };
    let rows = i64::from(spec.groups) * choices.between(1, 4);
    let mut dims = vec![rows, channels / i64::from(spec.groups)];
    dims.extend(spec.window.size[..rank].iter().map(|&size| i64::from(size)));
    let mut dtype = g.dtype(x);
    if choices.once_in(12) {
        dtype = choices.pick(&[DType::I8, DType::U8]);
        x = g.builder().cast(x, dtype)?;
    }
    let w = g.constant(dtype, &dims, choices);
    let mut y = g.builder().node(Op::Conv(spec, None), &[x, w])?;
    let mut results = Vec::new();
    for _ in 0..choices.below(4) {
        // What batch normalization is made of, and what stands behind it.
        let like = g.dtype(y);
        let vector = [&[rows][..], &vec![1; rank]].concat();
        let per_channel: &[i64] = if choices.once_in(4) { &[] } else { &vector };
        y = match choices.below(6) {
            0..5 => {
                let op = choices.pick(&[ScalarOp::Mul, ScalarOp::Add, ScalarOp::Sub, ScalarOp::Div]);
                // A division by zero makes other infinities in the weights than behind the sum.
                let c = g.nonzero(like, per_channel, choices);
                let (a, b) = if choices.once_in(4) { (c, y) } else { (y, c) };
                g.builder().binary(op, a, b)?
            }
            _ => g.builder().unary(if like.is_float() { ScalarOp::Sigmoid } else { ScalarOp::Abs }, y)?,
        };
        if choices.once_in(8) {
            results.push(y);
        }
    }
    results.push(y);
    Ok(results)
}

fn groups(channels: i64, choices: &mut Choices<'_>) -> u32 {
    let divisors: Vec<i64> = (1..=channels).filter(|d| channels % d == 0).collect();
    if choices.below(2) == 0 { 1 } else { choices.pick(&divisors) as u32 }
}

pub fn conv_transpose(g: &mut Grower<'_>, choices: &mut Choices<'_>) -> Grown {
    let (x, channels) = g.image(choices)?;
    let rank = g.rank(x) - 2;
    let spec = ConvTranspose { window: window(rank, choices, |extent| extent - 1), groups: groups(channels, choices) };
    let mut dims = vec![channels, choices.between(1, 3)];
    dims.extend(spec.window.size[..rank].iter().map(|&size| i64::from(size)));
    let w = g.constant(g.graph.ty(x).dtype, &dims, choices);
    let extents = g.ty(x).dims[2..].to_vec();
    let mut spatial = Vec::new();
    for (axis, extent) in extents.into_iter().enumerate() {
        let window = &spec.window;
        let more = choices.below(window.stride[axis] as usize) as i64;
        let edge = i64::from(window.extent(axis)) - i64::from(window.pad_lo[axis] + window.pad_hi[axis]) + more;
        spatial.push((extent - Expr::constant(1)) * Expr::from(window.stride[axis] as usize) + Expr::constant(edge));
    }
    Ok(vec![g.builder().node(Op::ConvTranspose(spec, spatial), &[x, w])?])
}

pub fn pool(g: &mut Grower<'_>, choices: &mut Choices<'_>) -> Grown {
    let (x, _) = g.image(choices)?;
    let rank = g.rank(x) - 2;
    let kind = choices.pick(&[PoolKind::Max, PoolKind::Average, PoolKind::AverageCountPad, PoolKind::Lp(2)]);
    let mut window = window(rank, choices, |extent| extent - 1);
    let wanted = if kind == PoolKind::Max { choices.below(2) + 1 } else { 1 };
    if wanted == 2 {
        // The holes of a dilated window may be all that lies inside; ONNX does not say where such a maximum is. Without
        // padding in front its first element is inside.
        let dilated = choices.below(2) == 0;
        for axis in 0..rank {
            if dilated {
                window.pad_lo[axis] = 0;
            } else {
                window.dilation[axis] = 1;
                window.pad_lo[axis] = window.pad_lo[axis].min(window.size[axis] - 1);
                window.pad_hi[axis] = window.pad_hi[axis].min(window.size[axis] - 1);
            }
        }
    }
    let up = choices.once_in(3);
    let extents = g.ty(x).dims[2..].to_vec();
    let mut spatial = Vec::new();
    for (axis, extent) in extents.into_iter().enumerate() {
        let pads = i64::from(window.pad_lo[axis] + window.pad_hi[axis]);
        let span = extent.clone() + Expr::constant(pads - i64::from(window.extent(axis)));
        let stride = Expr::from(window.stride[axis] as usize);
        let down = span.floor_div(&stride) + Expr::constant(1);
        // Rounded up, as long as the last window begins inside of the tensor or its front padding.
        let last = (extent + Expr::constant(i64::from(window.pad_lo[axis]) - 1)).floor_div(&stride) + Expr::constant(1);
        spatial.push(if up { (span.ceil_div(&stride) + Expr::constant(1)).smaller(&last) } else { down });
    }
    let spec = Pool { kind, window, index_order: choices.below(2) as u8 };
    let results = g.builder().node_with(Op::Pool(spec, spatial), &[Some(x)], wanted)?;
    Ok(results.into_iter().flatten().collect())
}

pub fn recurrent(g: &mut Grower<'_>, choices: &mut Choices<'_>) -> Grown {
    let x = g.floats(choices, 3)?;
    let ty = g.ty(x);
    let [_, batch, width] = &ty.dims[..] else { return Err("not of rank 3".to_owned()) };
    let width = width.as_const().ok_or("the width is not constant")?;
    let cell = choices.pick(&[
        Cell::Lstm,
        Cell::Gru { linear_before_reset: false },
        Cell::Gru { linear_before_reset: true },
        Cell::Rnn,
    ]);
    let (gates, first) = match cell {
        Cell::Lstm => (4, ActivationKind::Sigmoid),
        Cell::Gru { .. } => (3, ActivationKind::Sigmoid),
        Cell::Rnn => (1, ActivationKind::Tanh),
    };
    let direction = choices.pick(&[Direction::Forward, Direction::Reverse, Direction::Bidirectional]);
    let dirs = if direction == Direction::Bidirectional { 2 } else { 1 };
    let hidden = choices.between(1, 3);
    let of = |kind| Activation { kind, alpha: 0.0, beta: 0.0 };
    let activations = [first, ActivationKind::Tanh, ActivationKind::Tanh].map(of);
    let [f, a, h] = activations;
    // Each direction has as many activations as its cell reads.
    let spec = Recurrent {
        cell,
        direction,
        hidden: hidden as u32,
        clip: f32::INFINITY,
        activations: [f, a, h, f, a, h],
        input_forget: false,
    };
    let mut operands: Vec<Option<ValueId>> = vec![Some(x)];
    operands.push(Some(g.constant(ty.dtype, &[dirs, gates * hidden, width], choices)));
    operands.push(Some(g.constant(ty.dtype, &[dirs, gates * hidden, hidden], choices)));
    operands.push((choices.below(2) == 0).then(|| g.constant(ty.dtype, &[dirs, 2 * gates * hidden], choices)));
    operands.push(None);
    let state = batch.as_const().filter(|_| choices.below(2) == 0);
    operands.push(state.map(|batch| g.constant(ty.dtype, &[dirs, batch, hidden], choices)));
    let wanted = choices.below(if cell == Cell::Lstm { 3 } else { 2 }) + 1;
    let results = g.builder().node_with(Op::Recurrent(spec), &operands, wanted)?;
    Ok(results.into_iter().flatten().collect())
}

/// Regions with sides in and around the images. They are constants: one that is rounded otherwise has other samples.
pub fn region_pool(g: &mut Grower<'_>, choices: &mut Choices<'_>) -> Grown {
    let x = g.floats(choices, 4)?;
    let dims = g.ty(x).dims;
    let images = g.graph.range(&dims[0]).0;
    if dims.len() != 4 || images < 1 {
        return Err("not some images".to_owned());
    }
    let count = choices.between(0, 3);
    let kind = choices.pick(&[RegionKind::Mean, RegionKind::Max, RegionKind::Elements]);
    let samples = if kind == RegionKind::Elements { 0 } else { choices.pick(&[0, 0, 1, 2]) };
    let bins = [choices.between(1, 3), choices.between(1, 3)].map(|bins| bins as u32);
    let half_pixel = kind != RegionKind::Elements && choices.below(2) == 0;
    let spec = RegionPool { kind, bins, samples, half_pixel, scale: choices.pick(&[1.0, 0.5, 0.3]) };
    let mut random = Random::new(choices.seed());
    let sides: Vec<f64> = (0..4 * count).map(|_| f64::from(random.below(100) as u32) / 8.0 - 2.0).collect();
    let dtype = choices.pick(&[DType::F32, DType::F32, DType::F64]);
    let sides = Tensor::from_f64s(dtype, vec![count as usize, 4], &sides);
    let ty = Type { dtype, dims: vec![Expr::constant(count), Expr::constant(4)] };
    let regions = g.builder().constant(ty, sides.bytes);
    let of: Vec<i64> = (0..count).map(|_| random.below(images as usize) as i64).collect();
    let of = g.indices(DType::I64, &[count], &of);
    Ok(vec![g.builder().node(Op::RegionPool(spec), &[x, regions, of])?])
}
