//! Indices that count along an axis, in the spellings of exporters: ranges and grids of them, and what compares them.

use lapidary::ir::{Expr, Op, ValueId};
use lapidary_runtime::DType;
use lapidary_runtime::op::{Scalar, ScalarOp};

use super::super::recipe::Choices;
use super::{Grower, Grown};

/// `start, start + 1, ..`, as many as an axis has.
fn range(g: &mut Grower<'_>, start: i64, count: Expr) -> Result<ValueId, String> {
    let mut b = g.builder();
    let [start, one] = [start, 1].map(|number| b.scalar(Scalar::int(DType::I64, number)));
    b.node(Op::Range { count }, &[start, one])
}

/// Rows by their numbers, elements by the grid of their places, or whether a number is that of a row.
pub fn counting(g: &mut Grower<'_>, choices: &mut Choices<'_>) -> Grown {
    let x = g.value(choices, |ty| (1..=2).contains(&ty.dims.len()))?;
    let dims = g.ty(x).dims;
    match choices.below(3) {
        0 => {
            let axis = choices.below(dims.len());
            let indices = range(g, 0, dims[axis].clone())?;
            let indices = match choices.below(2) {
                0 => g.builder().cast(indices, DType::I32)?,
                _ => g.builder().reshape(indices, vec![Expr::constant(1), dims[axis].clone()])?,
            };
            Ok(vec![g.builder().node(Op::Gather { axis: axis as u8 }, &[x, indices])?])
        }
        1 => {
            let last = dims.len();
            let mut columns = Vec::new();
            for (axis, dim) in dims.iter().enumerate() {
                let count = range(g, 0, dim.clone())?;
                let mut shape = vec![Expr::constant(1); last + 1];
                shape[axis] = dim.clone();
                let placed = g.builder().reshape(count, shape)?;
                let grid = dims.iter().cloned().chain([Expr::constant(1)]).collect();
                columns.push(g.builder().expand(placed, grid)?);
            }
            let grid = g.builder().concat(&columns, last)?;
            Ok(vec![g.builder().node(Op::GatherNd { batch_dims: 0 }, &[x, grid])?])
        }
        _ => {
            let number = choices.between(-1, 2);
            let count = range(g, 0, dims[0].clone())?;
            let mut b = g.builder();
            let number = b.scalar(Scalar::int(DType::I64, number));
            let op = choices.pick(&[ScalarOp::GreaterEqual, ScalarOp::Greater, ScalarOp::Less, ScalarOp::LessEqual]);
            let sides = if choices.once_in(2) { [count, number] } else { [number, count] };
            Ok(vec![b.binary(op, sides[0], sides[1])?])
        }
    }
}
