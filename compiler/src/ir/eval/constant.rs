//! Values that follow from constants alone, evaluated while compiling: exporters compute scales, ranges, sizes and masks with
//! chains that the formulas of [`crate::ir::Known`] do not follow.
//!
//! Only tensors and chains within bounds; `None` means that a value is not such, never that something is wrong.

use std::cell::Cell;
use std::collections::BTreeMap;

use super::Tensor;
use crate::ir::{Expr, Graph, ValueId};

/// How many nodes deep a chain is followed.
const MAX_DEPTH: usize = 64;

/// The elements of `value`, if neither inputs nor symbols play a part in them, and neither it nor what it follows from has
/// more than `most` elements.
pub fn constant(graph: &Graph, value: ValueId, most: i64) -> Option<Tensor> {
    evaluate(graph, value, most, &mut BTreeMap::new(), MAX_DEPTH)
}

fn evaluate(
    graph: &Graph,
    value: ValueId,
    most: i64,
    done: &mut BTreeMap<ValueId, Option<Tensor>>,
    depth: usize,
) -> Option<Tensor> {
    if let Some(known) = done.get(&value) {
        return known.clone();
    }
    let result = evaluate_new(graph, value, most, done, depth);
    done.insert(value, result.clone());
    result
}

fn evaluate_new(
    graph: &Graph,
    value: ValueId,
    most: i64,
    done: &mut BTreeMap<ValueId, Option<Tensor>>,
    depth: usize,
) -> Option<Tensor> {
    let ty = graph.ty(value);
    if ty.count().as_const()? > most {
        return None;
    }
    if let Some(constant) = graph.constant(value) {
        let dims: Option<Vec<usize>> = ty.dims.iter().map(|dim| usize::try_from(dim.as_const()?).ok()).collect();
        return Tensor::new(ty.dtype, dims?, constant.bytes.clone()).ok();
    }
    if let Some(tensor) = known_numbers(graph, value) {
        return Some(tensor);
    }
    let depth = depth.checked_sub(1)?;
    let node = graph.node(graph.producer(value)?);
    if !node.op.regions().is_empty() {
        return None;
    }
    let mut operands = Vec::new();
    for input in &node.inputs {
        operands.push(match input {
            Some(input) => Some(evaluate(graph, *input, most, done, depth)?),
            None => None,
        });
    }
    let operands: Vec<Option<&Tensor>> = operands.iter().map(Option::as_ref).collect();
    let asked = Cell::new(false);
    let symbol = |_: &str| {
        asked.set(true);
        0
    };
    let results = super::eval_node(&node.op, &operands, &symbol).ok()?;
    let at = node.outputs.iter().position(|output| *output == Some(value))?;
    if asked.get() { None } else { results.into_iter().nth(at) }
}

/// The elements of a value of which formulas say that they are the same numbers for all shapes.
fn known_numbers(graph: &Graph, value: ValueId) -> Option<Tensor> {
    let known = graph.value(value).known.as_ref()?;
    let numbers: Option<Vec<i64>> = known.0.iter().map(Expr::as_const).collect();
    let ty = graph.ty(value);
    let dims: Option<Vec<usize>> = ty.dims.iter().map(|dim| usize::try_from(dim.as_const()?).ok()).collect();
    Some(Tensor::from_i64s(ty.dtype, dims?, &numbers?))
}
