//! Extents that the data decides.

use lapidary::ir::Expr;
use lapidary_runtime::DType;
use lapidary_runtime::op::{Arg, ReduceKind, ScalarOp};

use super::super::recipe::Choices;
use super::{Grower, Grown, compute};

/// The first parts of a value along an axis, as many as there are elements of an input that are not 0, up to all of them.
/// Of an input, as it is the same bits for everyone, so that everyone counts alike.
pub fn front(g: &mut Grower<'_>, choices: &mut Choices<'_>) -> Grown {
    if !g.outermost {
        return Err("a region does not count".to_owned());
    }
    // A half may lose small numbers to zero.
    let inputs: Vec<_> = g.graph.inputs().iter().copied().filter(|&input| g.dtype(input) != DType::F16).collect();
    if inputs.is_empty() {
        return Err("there is nothing to count".to_owned());
    }
    let counted = choices.pick(&inputs);
    let x = g.value(choices, |ty| !ty.dims.is_empty())?;
    let axis = usize::from(compute::axis(g, x, choices));
    let whole = g.ty(x).dims[axis].clone();
    let axes: Vec<usize> = (0..g.rank(counted)).collect();
    let mut b = g.builder();
    let ones = b.program(&[counted], |p| {
        let mark = p.cast(Arg::Input(0), DType::Bool);
        p.cast(mark, DType::I64)
    })?;
    let sum = if axes.is_empty() { ones } else { b.reduce(ReduceKind::Sum, ones, &axes)? };
    let sum = b.reshape(sum, Vec::new())?;
    let all = b.extents(vec![whole.clone()], 0)?;
    let count = b.binary(ScalarOp::Min, sum, all)?;
    let extent = g.graph.add_count(count, whole);
    let found = g.builder().slice_axis(x, axis, Expr::constant(0), extent)?;
    Ok(vec![found, count])
}
