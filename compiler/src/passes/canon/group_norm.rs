//! Normalizations of groups of channels, written out.
//!
//! Does: make a group norm of a normalization without factors between two reshapes, scaled and shifted by channel:
//! PyTorch exports it around an instance normalization, others around the plain chain, which `norm` has found by now.
//! Needs: `norm`. Keeps: types. Not here: groups without a scale, of which the reshapes cost nothing.
//!
//! The ones and zeros of the instance normalization are constants that exporters write; they are read as such.

use bytes::Bytes;
use lapidary_runtime::DType;
use lapidary_runtime::op::{GroupNorm, NormKind, Scalar, ScalarOp};

use crate::ir::{Constant, Expr, Graph, NodeId, Op, Patch, Ref, Type, ValueId};
use crate::passes::fuse::only_user;
use crate::passes::matching::{Operand, between, either_way, is_filled, result, spans};

/// `view(normalize(view(x))) * g -> group_norm(x, g, 0)`, `group_norm(x, g, 0) + b -> group_norm(x, g, b)`
pub fn rewrite(graph: &Graph, id: NodeId) -> Option<Patch> {
    let y = result(graph, id)?;
    let scaled = either_way(graph, y, ScalarOp::Mul).find_map(|factors| scaled(graph, id, y, factors));
    scaled.or_else(|| either_way(graph, y, ScalarOp::Add).find_map(|terms| shifted(graph, id, y, terms)))
}

fn scaled(graph: &Graph, id: NodeId, y: ValueId, (normalized, scale): (Operand, Operand)) -> Option<Patch> {
    let (normalized, scale) = (normalized.value()?, scale.value()?);
    let (sets, view, epsilon) = normalization(graph, viewed(graph, normalized))?;
    let x = viewed(graph, view);
    let ty = graph.ty(x);
    if ty != graph.ty(y) || !of_channels(graph.ty(scale), ty) {
        return None;
    }
    let channels = ty.dims.get(1)?.as_const()?;
    let groups = sets.exact_div(&ty.dims[0])?.as_const().filter(|groups| *groups > 0 && channels % groups == 0)?;
    let spec = GroupNorm { groups: u32::try_from(groups).ok()?, epsilon: Scalar::float(DType::F64, epsilon) };
    let mut patch = Patch::new(&between(graph, &[x, scale], id)?);
    let per_channel = vec![ty.dims[1].clone()];
    let scale = patch.node(Op::Reshape(per_channel.clone()), [scale.into()]);
    let zeros = Bytes::from(vec![0; ty.dtype.bits() / 8 * channels as usize]);
    let zeros = Constant { bytes: zeros, initializer: None };
    let bias = patch.constant(Type { dtype: ty.dtype, dims: per_channel }, zeros);
    let norm = patch.node(Op::GroupNorm(spec, None), [x.into(), scale, bias]);
    Some(patch.replace(y, norm))
}

fn shifted(graph: &Graph, id: NodeId, y: ValueId, (scaled, bias): (Operand, Operand)) -> Option<Patch> {
    let (scaled, bias) = (scaled.value()?, bias.value()?);
    let norm = graph.producer(scaled)?;
    let node = graph.node(norm);
    let (Op::GroupNorm(spec, None), &[Some(x), Some(scale), Some(zeros)]) = (&node.op, &node.inputs[..]) else {
        return None;
    };
    let ty = graph.ty(x);
    let fits = graph.ty(y) == ty && of_channels(graph.ty(bias), ty);
    if !fits || only_user(graph, scaled) != Some(id) || !is_filled(graph, zeros, 0.0) {
        return None;
    }
    let mut patch = Patch::new(&[norm, id]);
    let bias = patch.node(Op::Reshape(vec![ty.dims[1].clone()]), [bias.into()]);
    let norm = patch.node(Op::GroupNorm(*spec, None), [Ref::from(x), scale.into(), bias]);
    Some(patch.replace(y, norm))
}

/// A normalization without factors: how many sets of adjacent elements it normalizes, its operand, and epsilon.
fn normalization(graph: &Graph, value: ValueId) -> Option<(Expr, ValueId, f64)> {
    let node = graph.node(graph.producer(value)?);
    let x = node.inputs.first().copied().flatten()?;
    let dims = &graph.ty(x).dims;
    match (&node.op, &node.inputs[1..]) {
        (Op::Norm(spec, None), []) if spec.kind == NormKind::Layer && node.outputs.first() == Some(&Some(value)) => {
            let sets = dims[..usize::from(spec.axis)].iter().fold(Expr::constant(1), |count, dim| count * dim.clone());
            Some((sets, x, spec.epsilon.as_f64()))
        }
        (Op::GroupNorm(spec, None), &[Some(scale), Some(bias)])
            if is_filled(graph, scale, 1.0) && is_filled(graph, bias, 0.0) =>
        {
            Some((dims[0].clone() * Expr::from(spec.groups as usize), x, spec.epsilon.as_f64()))
        }
        _ => None,
    }
}

/// What a value is a view of, or itself.
fn viewed(graph: &Graph, value: ValueId) -> ValueId {
    let source = || {
        let node = graph.node(graph.producer(value)?);
        if let Op::Reshape(_) = node.op { node.inputs.first().copied().flatten() } else { None }
    };
    source().unwrap_or(value)
}

/// Whether there is one element for each channel, axis 1 of `like`.
fn of_channels(ty: &Type, like: &Type) -> bool {
    like.dims.len() > 1 && spans(ty, like, 1..2)
}
