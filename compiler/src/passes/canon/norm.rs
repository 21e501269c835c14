//! Normalizations of rows, written out.
//!
//! Does: make layer and root-mean-square norms of the chains that exporters write where their operator set has no such
//! operator: squares as products or powers, the root under a quotient or as an inverse in a product. Needs: one step a
//! node, scalars bound. Keeps: types; the statistics are then formed in `f32` at least, so that squares of narrow types
//! do not overflow. Not here: scale and bias, which `norm-operand` takes in; axes that are not the last ones; variances
//! as `mean(x^2) - mean(x)^2`, which cancel as the operation does not.

use lapidary_runtime::DType;
use lapidary_runtime::op::{Norm, NormKind, ReduceKind, Scalar, ScalarOp};

use crate::ir::{Graph, NodeId, Op, Patch, ValueId};
use crate::passes::matching::{
    Operand, between, binary, either_way, inverse_root_of, reduced, result, root_of, shifted, square_of, trailing,
    with_scalar,
};

/// `d / sqrt(mean(d^2) + e) -> norm(x)`, where `d` is `x - mean(x)` (layer), or `x` itself (root mean square)
pub fn rewrite(graph: &Graph, id: NodeId) -> Option<Patch> {
    let y = result(graph, id)?;
    let (d, radicand) = over_root(graph, y)?;
    let (variance, epsilon) = with_scalar(graph, radicand, ScalarOp::Add)?;
    let (squares, axes) = reduced(graph, variance, ReduceKind::Mean)?;
    if square_of(graph, squares)? != d {
        return None;
    }
    let (kind, x) = match shifted(graph, d, ReduceKind::Mean, axes) {
        Some(x) => (NormKind::Layer, x),
        None => (NormKind::Rms, d),
    };
    let ty = graph.ty(x);
    let axis = trailing(axes, ty.dims.len())?;
    // Kernels hold it as an `f32`.
    let held = epsilon >= 0.0 && f64::from(epsilon as f32) == epsilon;
    if !held || !ty.dtype.is_float() || ty != graph.ty(y) {
        return None;
    }
    let spec = Norm { kind, axis, epsilon: Scalar::float(DType::F32, epsilon) };
    let mut patch = Patch::new(&between(graph, &[x], id)?);
    let norm = patch.node(Op::Norm(spec, None), [x.into()]);
    Some(patch.replace(y, norm))
}

/// `a` and `b` of `a / sqrt(b)`, or of the product of `a` and `1 / sqrt(b)`.
fn over_root(graph: &Graph, value: ValueId) -> Option<(ValueId, ValueId)> {
    let quotient = || {
        let (a, root) = binary(graph, value, ScalarOp::Div)?;
        Some((a.value()?, root_of(graph, root.value()?)?))
    };
    let product = |(a, inverse): (Operand, Operand)| Some((a.value()?, inverse_root_of(graph, inverse.value()?)?));
    quotient().or_else(|| either_way(graph, value, ScalarOp::Mul).find_map(product))
}
