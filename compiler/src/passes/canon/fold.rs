//! Constant and shape folding.
//!
//! Does: replace values whose elements are known (integer formulas) by their extents, and small integer or one-element
//! results of constants by constants. Needs: what the builder tracked while importing. Keeps: types.
//! Not here: arithmetic on weights, which a refit must redo: it becomes init steps of the plan.

use std::cell::Cell;

use bytes::Bytes;
use lapidary_runtime::DType;
use lapidary_runtime::op::ScalarOp;
use lapidary_templates::Program;

use crate::ir::eval::{self, Tensor};
use crate::ir::{Constant, Expr, Graph, NodeId, Op, Patch, Type, ValueId, apply};

/// How many elements a folded integer constant may have: index tables, never weights.
const MAX_ELEMENTS: i64 = 4096;

/// Folds in one walk in order, and says how many values became constants or extents.
pub fn run(graph: &mut Graph) -> usize {
    let mut folded = 0;
    for id in graph.order() {
        if !graph.contains(id) {
            continue;
        }
        let patch = known_result(graph, id).or_else(|| constant_result(graph, id));
        let Some(patch) = patch else { continue };
        match apply(graph, patch) {
            Ok(()) => folded += 1,
            Err(reason) => crate::bug!("folding {:?}: {reason}", graph.node(id).op.name()),
        }
    }
    graph.remove_dead();
    folded
}

/// `f(known extents) -> extents`
fn known_result(graph: &Graph, id: NodeId) -> Option<Patch> {
    let node = graph.node(id);
    let value = sole_result(graph, id)?;
    let known = graph.value(value).known.clone()?.0;
    if matches!(node.op, Op::Extents { .. }) && known.iter().any(|extent| extent.as_const().is_none()) {
        return None;
    }
    let ty = graph.ty(value).clone();
    if let Some(constants) = known.iter().map(Expr::as_const).collect::<Option<Vec<i64>>>() {
        return Some(by_constant(id, value, &ty, &constants));
    }
    // Already extents, cast.
    let from_extents = node.inputs.first().copied().flatten().and_then(|input| graph.producer(input));
    if let (Op::Pointwise(_), Some(producer)) = (&node.op, from_extents)
        && matches!(graph.node(producer).op, Op::Extents { .. })
        && node.inputs.len() == 1
    {
        return None;
    }
    let mut patch = Patch::new(&[id]);
    let extents = patch.node(Op::Extents { values: known, rank: ty.dims.len() as u8 }, []);
    let result = match ty.dtype {
        DType::I64 => extents,
        DType::I32 | DType::Bool => {
            let cast = Program::single(ScalarOp::Cast, ty.dtype, &[DType::I64]);
            patch.node(Op::Pointwise(cast), [extents])
        }
        _ => return None,
    };
    Some(patch.replace(value, result))
}

fn by_constant(id: NodeId, value: ValueId, ty: &Type, elements: &[i64]) -> Patch {
    let width = ty.dtype.bits() / 8;
    let bytes: Vec<u8> = elements.iter().flat_map(|element| element.to_le_bytes()[..width].to_vec()).collect();
    let mut patch = Patch::new(&[id]);
    let constant = patch.constant(ty.clone(), Constant { bytes: Bytes::from(bytes), initializer: None });
    patch.replace(value, constant)
}

/// `f(constants) -> constant`, evaluated by the reference.
fn constant_result(graph: &Graph, id: NodeId) -> Option<Patch> {
    let node = graph.node(id);
    if !node.op.regions().is_empty() {
        return None;
    }
    let value = sole_result(graph, id)?;
    let ty = graph.ty(value);
    let count = ty.count().as_const()?;
    let index_like = ty.dtype.is_int() && ty.dtype.bits() >= 32 || ty.dtype == DType::Bool;
    if !(count == 1 || index_like && count <= MAX_ELEMENTS) {
        return None;
    }
    let mut operands = Vec::new();
    for input in &node.inputs {
        operands.push(match input {
            Some(input) => {
                let constant = graph.constant(*input)?;
                let ty = graph.ty(*input);
                if ty.count().as_const()? > MAX_ELEMENTS {
                    return None;
                }
                let dims: Option<Vec<usize>> =
                    ty.dims.iter().map(|dim| usize::try_from(dim.as_const()?).ok()).collect();
                Some(Tensor::new(ty.dtype, dims?, constant.bytes.clone()).ok()?)
            }
            None => None,
        });
    }
    let operands: Vec<Option<&Tensor>> = operands.iter().map(Option::as_ref).collect();
    // A formula that reads a symbol is no constant, whatever its operands are.
    let reads_symbol = Cell::new(false);
    let symbol = |_: &str| {
        reads_symbol.set(true);
        0
    };
    let results = eval::eval_node(&node.op, &operands, &symbol).ok().filter(|_| !reads_symbol.get())?;
    let bytes = results.into_iter().next()?.bytes;
    let mut patch = Patch::new(&[id]);
    let constant = patch.constant(ty.clone(), Constant { bytes, initializer: None });
    Some(patch.replace(value, constant))
}

/// The one result of a node that has only one in use.
fn sole_result(graph: &Graph, id: NodeId) -> Option<ValueId> {
    let mut used = graph.node(id).outputs.iter().flatten().filter(|value| !graph.uses(**value).is_empty());
    let first = graph.node(id).outputs.first().copied().flatten()?;
    (used.next() == Some(&first) && used.next().is_none()).then_some(first)
}
