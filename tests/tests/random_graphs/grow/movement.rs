//! Steps that move elements, and those that make some from shapes.

use lapidary::ir::{Expr, Op};
use lapidary_runtime::DType;
use lapidary_runtime::op::{CoordinateMode, MAX_RANK, NearestMode, PadMode, Resize, ResizeMode, Scalar};

use super::super::recipe::Choices;
use super::{Grower, Grown};

pub fn transpose(g: &mut Grower<'_>, choices: &mut Choices<'_>) -> Grown {
    let x = g.value(choices, |ty| ty.dims.len() >= 2)?;
    let mut perm: Vec<usize> = (0..g.rank(x)).collect();
    for k in (1..perm.len()).rev() {
        perm.swap(k, choices.below(k + 1));
    }
    Ok(vec![g.builder().transpose(x, &perm)?])
}

pub fn reshape(g: &mut Grower<'_>, choices: &mut Choices<'_>) -> Grown {
    let x = g.value(choices, |_| true)?;
    let mut dims = g.ty(x).dims;
    let at = choices.below(dims.len());
    match choices.below(5) {
        0 if dims.len() < 5 => dims.insert(at, Expr::constant(1)),
        1 if dims.len() >= 2 => {
            let at = at.min(dims.len() - 2);
            let next = dims.remove(at + 1);
            dims[at] = dims[at].clone() * next;
        }
        2 if dims.len() < 5 && !dims.is_empty() => {
            let factor = choices.pick(&[2, 3, 4]);
            let extent = dims[at].as_const().filter(|extent| extent % factor == 0).ok_or("not divisible")?;
            dims[at] = Expr::constant(extent / factor);
            dims.insert(at + choices.below(2), Expr::constant(factor));
        }
        3 => dims.retain(|dim| !dim.is(1)),
        _ => dims = vec![g.graph.ty(x).count()],
    }
    Ok(vec![g.builder().reshape(x, dims)?])
}

/// An integer under the other sign: of a float, a rounding that is one off would be another number.
pub fn bit_cast(g: &mut Grower<'_>, choices: &mut Choices<'_>) -> Grown {
    let x = g.value(choices, |ty| ty.dtype.is_int())?;
    let to = match g.dtype(x) {
        DType::I64 => DType::U64,
        DType::I32 => DType::U32,
        DType::I16 => DType::U16,
        DType::I8 => DType::U8,
        DType::U64 => DType::I64,
        DType::U32 => DType::I32,
        DType::U16 => DType::I16,
        DType::U8 => DType::I8,
        dtype => return Err(format!("{dtype} has no sign")),
    };
    Ok(vec![g.builder().bit_cast(x, to)?])
}

/// An integer, in which no rounding moves, to a storage type, moved there, and back again.
pub fn stored(g: &mut Grower<'_>, choices: &mut Choices<'_>) -> Grown {
    let x = g.value(choices, |ty| ty.dtype.is_int() && !ty.dims.is_empty())?;
    let ty = g.ty(x);
    let to = choices.pick(STORAGE);
    let mut packed = g.builder().cast(x, to)?;
    packed = match choices.below(4) {
        0 => packed,
        1 => {
            let perm: Vec<usize> = (0..ty.dims.len()).rev().collect();
            g.builder().transpose(packed, &perm)?
        }
        2 => g.builder().concat(&[packed, packed], ty.dims.len() - 1)?,
        _ => {
            let extent = ty.dims[0].as_const().filter(|&extent| extent > 1).ok_or("nothing to cut off")?;
            g.builder().slice_axis(packed, 0, Expr::constant(1), Expr::constant(extent - 1))?
        }
    };
    Ok(vec![g.builder().cast(packed, choices.pick(&[ty.dtype, DType::F32]))?])
}

const STORAGE: &[DType] = &[
    DType::I4,
    DType::U4,
    DType::I2,
    DType::U2,
    DType::F4E2M1,
    DType::F8E4M3FN,
    DType::F8E4M3FNUZ,
    DType::F8E5M2,
    DType::F8E5M2FNUZ,
];

pub fn expand(g: &mut Grower<'_>, choices: &mut Choices<'_>) -> Grown {
    let x = g.value(choices, |ty| ty.dims.len() < 5)?;
    let mut dims = g.ty(x).dims;
    let symbolic: Vec<Expr> = g.graph.symbols.keys().map(|name| Expr::symbol(name)).collect();
    let new = match symbolic.get(choices.below(3)) {
        Some(symbol) => symbol.clone(),
        None => Expr::constant(choices.between(1, 3)),
    };
    match dims.iter().position(|dim| dim.is(1)) {
        Some(at) if choices.below(2) == 0 => dims[at] = new,
        Some(_) | None => dims.insert(0, new),
    }
    Ok(vec![g.builder().expand(x, dims)?])
}

pub fn slice(g: &mut Grower<'_>, choices: &mut Choices<'_>) -> Grown {
    let x = g.value(choices, |ty| !ty.dims.is_empty())?;
    let (mut starts, mut steps, mut dims) = (Vec::new(), Vec::new(), Vec::new());
    for dim in g.ty(x).dims {
        let (start, step, count) = match dim.as_const() {
            Some(extent) if choices.below(2) == 0 => {
                let step: i64 = choices.pick(&[1, 2, -1, -2, 1, 3]);
                let start = choices.between(0, (extent - 1).max(0));
                let room = if step > 0 { extent - start } else { start + 1 };
                let most = (room + step.abs() - 1) / step.abs();
                let count = if extent == 0 { 0 } else { choices.between(most.min(1), most) };
                (Expr::constant(start), step, Expr::constant(count))
            }
            Some(_) => (Expr::constant(0), 1, dim),
            None => match choices.below(5) {
                0 => (Expr::constant(0), 2, dim.ceil_div(&Expr::constant(2))),
                1 => (dim.clone() - Expr::constant(1), -1, dim),
                2 => (dim.floor_div(&Expr::constant(2)), 1, dim.ceil_div(&Expr::constant(2))),
                _ => (Expr::constant(0), 1, dim),
            },
        };
        starts.push(start);
        steps.push(step);
        dims.push(count);
    }
    Ok(vec![g.builder().slice(x, starts, steps, dims)?])
}

pub fn concat(g: &mut Grower<'_>, choices: &mut Choices<'_>) -> Grown {
    let x = g.value(choices, |ty| !ty.dims.is_empty())?;
    let ty = g.ty(x);
    let axis = choices.below(ty.dims.len());
    let fits = |other: &lapidary::ir::Type| {
        let same = |(k, (a, b)): (usize, (&Expr, &Expr))| k == axis || a == b;
        other.dtype == ty.dtype
            && other.dims.len() == ty.dims.len()
            && other.dims.iter().zip(&ty.dims).enumerate().all(same)
    };
    let mut operands = vec![x];
    for _ in 0..choices.between(1, 3) {
        operands.push(g.value(choices, fits)?);
    }
    Ok(vec![g.builder().concat(&operands, axis)?])
}

pub fn pad(g: &mut Grower<'_>, choices: &mut Choices<'_>) -> Grown {
    let x = g.value(choices, |ty| !ty.dims.is_empty())?;
    let ty = g.ty(x);
    let mode = choices.pick(&[PadMode::Constant, PadMode::Constant, PadMode::Edge, PadMode::Reflect, PadMode::Wrap]);
    let mut ends = [Vec::new(), Vec::new()];
    for dim in &ty.dims {
        let (least, _) = g.graph.range(dim);
        let most = if mode == PadMode::Constant { 2 } else { (least - 1).clamp(0, 2) };
        for end in &mut ends {
            let amount = if choices.below(2) == 0 { 0 } else { choices.between(-i64::from(least > 2), most) };
            end.push(Expr::constant(amount));
        }
    }
    let [lo, hi] = ends;
    let mut operands = vec![x];
    if mode == PadMode::Constant && choices.below(2) == 0 {
        operands.push(g.constant(ty.dtype, &[], choices));
    }
    Ok(vec![g.builder().node(Op::Pad { mode, lo, hi }, &operands)?])
}

pub fn resize(g: &mut Grower<'_>, choices: &mut Choices<'_>) -> Grown {
    use CoordinateMode::*;
    let x = match choices.below(4) {
        0 => g.value(choices, |ty| !ty.dims.is_empty())?,
        _ => g.floats(choices, 1)?,
    };
    let ty = g.ty(x);
    let nearest = choices.pick(&[
        NearestMode::RoundPreferFloor,
        NearestMode::RoundPreferCeil,
        NearestMode::Floor,
        NearestMode::Ceil,
    ]);
    let mode = if ty.dtype.is_float() {
        choices.pick(&[ResizeMode::Nearest(nearest), ResizeMode::Linear, ResizeMode::Linear, ResizeMode::Cubic])
    } else {
        ResizeMode::Nearest(nearest)
    };
    let coordinates =
        choices.pick(&[HalfPixel, HalfPixelSymmetric, PytorchHalfPixel, AlignCorners, Asymmetric, TfCropAndResize]);
    let mut scales = [0.0; MAX_RANK];
    let stated = choices.below(2) == 0;
    let mut dims = Vec::new();
    for (axis, dim) in ty.dims.iter().enumerate() {
        let (scale, new) = match choices.below(5) {
            0 => (2.0, dim.clone() * Expr::constant(2)),
            1 => (0.5, dim.floor_div(&Expr::constant(2))),
            2 => (1.5, (dim.clone() * Expr::constant(3)).floor_div(&Expr::constant(2))),
            _ => (1.0, dim.clone()),
        };
        scales[axis] = if stated { scale } else { 0.0 };
        dims.push(new);
    }
    let spec = Resize {
        mode,
        coordinates,
        antialias: !matches!(mode, ResizeMode::Nearest(_)) && choices.once_in(3),
        exclude_outside: mode == ResizeMode::Cubic && choices.below(2) == 0,
        cubic_coeff_a: -0.75,
        extrapolation_value: 0.25,
        scales,
    };
    let mut operands = vec![x];
    if coordinates == TfCropAndResize {
        let rank = ty.dims.len() as i64;
        operands.push(g.constant(DType::F32, &[2 * rank], choices));
    }
    Ok(vec![g.builder().node(Op::Resize(spec, dims), &operands)?])
}

pub fn range(g: &mut Grower<'_>, choices: &mut Choices<'_>) -> Grown {
    let dtype = choices.pick(&[DType::I64, DType::F32, DType::I32]);
    let number = |value: i64| match dtype.is_float() {
        true => Scalar::float(dtype, value as f64 / 2.0),
        false => Scalar::int(dtype, value),
    };
    let symbol = g.graph.symbols.keys().next().map(|name| Expr::symbol(name));
    let count = match symbol {
        Some(symbol) if choices.below(2) == 0 => symbol,
        Some(_) | None => Expr::constant(choices.between(0, 5)),
    };
    let (start, delta) = (number(choices.between(-3, 3)), number(choices.between(-2, 2)));
    let mut b = g.builder();
    let (start, delta) = (b.scalar(start), b.scalar(delta));
    Ok(vec![b.node(Op::Range { count }, &[start, delta])?])
}

/// The number of the run, as the low bits of what random numbers are made from.
pub fn run_count(g: &mut Grower<'_>, choices: &mut Choices<'_>) -> Grown {
    let dtype = choices.pick(&[DType::I64, DType::F32, DType::U64]);
    let mut b = g.builder();
    let count = b.node(Op::RunCount, &[])?;
    Ok(vec![b.cast(count, dtype)?])
}

/// A shape as a tensor, which shape arithmetic follows.
pub fn extents(g: &mut Grower<'_>, choices: &mut Choices<'_>) -> Grown {
    let x = g.value(choices, |_| true)?;
    let dims = g.ty(x).dims;
    Ok(vec![match dims.first() {
        Some(first) if choices.below(2) == 0 => g.builder().extents(vec![first.clone()], 0)?,
        Some(_) | None => g.builder().extents(dims, 1)?,
    }])
}
