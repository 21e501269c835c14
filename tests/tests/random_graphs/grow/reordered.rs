//! Steps between a transpose and its inverse, as exporters of channels-last models write them around each convolution.

use lapidary::ir::{Expr, Op, ValueId};
use lapidary_runtime::DType;
use lapidary_runtime::op::{PadMode, ReduceKind, ScalarOp, Softmax};

use super::super::recipe::Choices;
use super::{Grower, Grown};

/// A transpose, some steps that compute in any order of axes, and the transpose back; sometimes another one, or none.
pub fn reordered(g: &mut Grower<'_>, choices: &mut Choices<'_>) -> Grown {
    let x = g.value(choices, |ty| ty.dims.len() >= 2)?;
    let rank = g.rank(x);
    let mut perm: Vec<usize> = (0..rank).collect();
    perm.rotate_left(choices.between(1, rank as i64 - 1) as usize);
    if choices.below(2) == 0 {
        perm = (0..rank).collect();
        perm[rank.min(2) - 1..].rotate_left(1);
    }
    let mut y = g.builder().transpose(x, &perm)?;
    let mut results = Vec::new();
    for _ in 0..choices.between(1, 3) {
        y = step(g, y, choices)?;
        if choices.once_in(6) {
            results.push(y);
        }
    }
    let mut back: Vec<usize> = (0..rank).collect();
    perm.iter().enumerate().for_each(|(k, &axis)| back[axis] = k);
    match choices.below(8) {
        0 => {}
        1 => y = g.builder().transpose(y, &perm)?,
        _ => y = g.builder().transpose(y, &back)?,
    }
    results.push(y);
    Ok(results)
}

/// `y` behind a step that has no order of axes of its own.
fn step(g: &mut Grower<'_>, y: ValueId, choices: &mut Choices<'_>) -> Result<ValueId, String> {
    let dims = g.ty(y).dims;
    let axis = choices.below(dims.len());
    let float = g.dtype(y).is_float();
    match choices.below(9) {
        0 => g.builder().unary(if float { ScalarOp::Tanh } else { ScalarOp::Identity }, y),
        1 if float => g.builder().node(Op::Softmax(Softmax { axis: axis as u8, log: false }), &[y]),
        2 if float => {
            let axes: Vec<usize> = (axis..dims.len().min(axis + 2)).collect();
            let largest = g.builder().reduce(ReduceKind::Max, y, &axes)?;
            g.builder().binary(ScalarOp::Sub, y, largest)
        }
        3 => g.builder().concat(&[y, y], axis),
        4 => {
            let extent = dims[axis].as_const().filter(|&extent| extent > 1).ok_or("nothing to cut off")?;
            g.builder().slice_axis(y, axis, Expr::constant(1), Expr::constant(extent - 1))
        }
        5 => {
            let (mut lo, mut hi) = (vec![Expr::constant(0); dims.len()], vec![Expr::constant(0); dims.len()]);
            (lo[axis], hi[axis]) = (Expr::constant(choices.between(0, 2)), Expr::constant(1));
            g.builder().node(Op::Pad { mode: PadMode::Constant, lo, hi }, &[y])
        }
        _ => {
            let other = g.partner(y, choices)?;
            let op = if g.dtype(y) == DType::Bool { ScalarOp::Xor } else { ScalarOp::Add };
            g.builder().binary(op, y, other)
        }
    }
}
