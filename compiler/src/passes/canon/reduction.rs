//! Reductions of powers and roots of sums.
//!
//! Does: one operation for a sum with the step before or behind it that its kind has. Needs: one step a node.
//! Keeps: types; sums of integers wrap at the same width either way. Not here: `log(sum(exp(x)))`, which overflows
//! where the operation has a value, and with the maximum taken out is no number where the operation is infinite.

use lapidary_runtime::op::{Axes, Reduce, ReduceKind, ScalarOp};

use crate::ir::builder::round_scalar;
use crate::ir::{Expr, Graph, NodeId, Op, Patch, ValueId};
use crate::passes::matching::{between, binary, extent, reduced, result, root_of, square_of, unary, with_scalar};

/// `sum(|x|) -> l1(x)`, `sum(x^2) -> sum_square(x)`, `sqrt(sum_square(x)) -> l2(x)`, `log(sum(x)) -> log_sum(x)`,
/// `sum(x) / n -> mean(x)` where `n` elements are summed
pub fn rewrite(graph: &Graph, id: NodeId) -> Option<Patch> {
    let y = result(graph, id)?;
    let (kind, (x, axes)) = of_steps(graph, y).or_else(|| step_of_sum(graph, y))?;
    let mut ty = graph.ty(x).clone();
    axes.iter().for_each(|axis| ty.dims[axis] = Expr::constant(1));
    // The sum of no axes is no sum.
    if axes == Axes::default() || ty != *graph.ty(y) {
        return None;
    }
    let mut patch = Patch::new(&between(graph, &[x], id)?);
    let reduced = patch.node(Op::Reduce(Reduce { kind, axes }), [x.into()]);
    Some(patch.replace(y, reduced))
}

/// A sum of what a step computes.
fn of_steps(graph: &Graph, y: ValueId) -> Option<(ReduceKind, (ValueId, Axes))> {
    let (summed, axes) = reduced(graph, y, ReduceKind::Sum)?;
    let magnitude = || Some((ReduceKind::L1, unary(graph, summed, ScalarOp::Abs)?));
    let square = || Some((ReduceKind::SumSquare, square_of(graph, summed)?));
    let (kind, x) = magnitude().or_else(square)?;
    Some((kind, (x, axes)))
}

/// A step behind a sum of floats; integers are truncated and wrap elsewhere.
fn step_of_sum(graph: &Graph, y: ValueId) -> Option<(ReduceKind, (ValueId, Axes))> {
    if !graph.ty(y).dtype.is_float() {
        return None;
    }
    let root = || Some((ReduceKind::L2, reduced(graph, root_of(graph, y)?, ReduceKind::SumSquare)?));
    let logarithm = || Some((ReduceKind::LogSum, reduced(graph, unary(graph, y, ScalarOp::Log)?, ReduceKind::Sum)?));
    root().or_else(logarithm).or_else(|| Some((ReduceKind::Mean, averaged(graph, y)?)))
}

/// `x` and the axes of `sum(x) / n` or `sum(x) * (1 / n)`, where `n` elements are summed.
fn averaged(graph: &Graph, y: ValueId) -> Option<(ValueId, Axes)> {
    let divided = || binary(graph, y, ScalarOp::Div).and_then(|(sum, n)| Some((sum.value()?, n.scalar()?)));
    let (sum, by, inverse) = divided()
        .map(|(sum, n)| (sum, n, false))
        .or_else(|| with_scalar(graph, y, ScalarOp::Mul).map(|(sum, c)| (sum, c, true)))?;
    let (x, axes) = reduced(graph, sum, ReduceKind::Sum)?;
    let n = extent(graph.ty(x), axes).as_const().filter(|n| *n > 0)? as f64;
    let expected = round_scalar(graph.ty(y).dtype, if inverse { 1.0 / n } else { n });
    (expected.as_f64() == by).then_some((x, axes))
}
