//! What stands around a normalization and belongs to it.
//!
//! Does: take a scale and a bias along the normalized axes into the operation, and the conversions between which narrow
//! types are normalized. Needs: one step a node. Keeps: types; a result of a narrow type is rounded once.
//! Not here: factors along other axes, which the kernels apply in a pass of their own anyway.

use lapidary_runtime::op::{Norm, ScalarOp};

use crate::ir::{Graph, NodeId, Op, Patch, Ref, ValueId};
use crate::passes::fuse::only_user;
use crate::passes::matching::{cast_of, either_way, is_narrower, result, spans};

/// `norm(x) * g -> norm(x, g)`, `norm(x, g) + b -> norm(x, g, b)`, `cast(norm(cast(x), ..)) -> norm(x, ..)`
pub fn rewrite(graph: &Graph, id: NodeId) -> Option<Patch> {
    let y = result(graph, id)?;
    factor(graph, id, y, ScalarOp::Mul).or_else(|| factor(graph, id, y, ScalarOp::Add)).or_else(|| narrow(graph, id, y))
}

/// A normalization whose result only `user` reads: the node, the record, and the operands x, scale, bias.
fn norm_for(graph: &Graph, value: ValueId, user: NodeId) -> Option<(NodeId, Norm, [Option<ValueId>; 3])> {
    let id = graph.producer(value)?;
    let node = graph.node(id);
    let Op::Norm(spec, None) = &node.op else { return None };
    let statistics = node.outputs[1..].iter().flatten().any(|value| !graph.uses(*value).is_empty());
    if node.outputs.first() != Some(&Some(value)) || statistics || only_user(graph, value) != Some(user) {
        return None;
    }
    let operand = |k: usize| node.inputs.get(k).copied().flatten();
    Some((id, *spec, [0, 1, 2].map(operand)))
}

fn factor(graph: &Graph, id: NodeId, y: ValueId, op: ScalarOp) -> Option<Patch> {
    either_way(graph, y, op).find_map(|(normalized, factor)| {
        let (normalized, factor) = (normalized.value()?, factor.value()?);
        let (norm, spec, mut operands) = norm_for(graph, normalized, id)?;
        let x = graph.ty(operands[0]?);
        let row = usize::from(spec.axis)..x.dims.len();
        let at = match operands {
            [Some(_), None, None] if op == ScalarOp::Mul => 1,
            [Some(_), _, None] if op == ScalarOp::Add => 2,
            _ => return None,
        };
        if graph.ty(y) != x || !spans(graph.ty(factor), x, row) {
            return None;
        }
        operands[at] = Some(factor);
        Some(replaced(&[norm, id], spec, operands.map(|value| value.map(Ref::from)), y))
    })
}

fn narrow(graph: &Graph, id: NodeId, y: ValueId) -> Option<Patch> {
    let (norm, spec, operands) = norm_for(graph, cast_of(graph, y)?, id)?;
    let x = operands[0]?;
    if cast_of(graph, x).is_none_or(|x| graph.ty(x) != graph.ty(y))
        || !is_narrower(graph.ty(y).dtype, graph.ty(x).dtype)
    {
        return None;
    }
    let (mut from, mut sources) = (Vec::new(), [None; 3]);
    for (source, value) in sources.iter_mut().zip(operands) {
        let Some(value) = value else { continue };
        let narrow = cast_of(graph, value).filter(|narrow| graph.ty(*narrow).dtype == graph.ty(y).dtype)?;
        from.extend(graph.producer(value));
        *source = Some(Ref::from(narrow));
    }
    from.extend([norm, id]);
    Some(replaced(&from, spec, sources, y))
}

fn replaced(from: &[NodeId], spec: Norm, operands: [Option<Ref>; 3], y: ValueId) -> Patch {
    let count = operands.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
    let mut patch = Patch::new(from);
    let norm = patch.node_with_gaps(Op::Norm(spec, None), operands[..count].to_vec());
    patch.replace(y, norm)
}
