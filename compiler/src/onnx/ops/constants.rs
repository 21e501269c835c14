//! Values that follow from constants alone, evaluated while importing: exporters compute scales, ranges and sizes with
//! chains of floats, which the formulas of [`crate::ir::Known`] do not follow.
//!
//! Only small tensors and short chains; `None` means that a value is not such, never that something is wrong.

use std::cell::Cell;
use std::collections::BTreeMap;

use crate::ir::eval::{self, Tensor};
use crate::ir::{Builder, Expr, Graph, ValueId};

/// The largest number of elements of a value on the way.
const MAX_ELEMENTS: i64 = 4096;

/// How many nodes deep a chain is followed.
const MAX_DEPTH: usize = 64;

/// The elements of `value`, if neither inputs nor symbols play a part in them.
pub(super) fn constant_value(b: &Builder<'_>, value: ValueId) -> Option<Tensor> {
    evaluate(b.graph(), value, &mut BTreeMap::new(), MAX_DEPTH)
}

fn evaluate(
    graph: &Graph,
    value: ValueId,
    done: &mut BTreeMap<ValueId, Option<Tensor>>,
    depth: usize,
) -> Option<Tensor> {
    if let Some(known) = done.get(&value) {
        return known.clone();
    }
    let result = evaluate_new(graph, value, done, depth);
    done.insert(value, result.clone());
    result
}

fn evaluate_new(
    graph: &Graph,
    value: ValueId,
    done: &mut BTreeMap<ValueId, Option<Tensor>>,
    depth: usize,
) -> Option<Tensor> {
    let ty = graph.ty(value);
    if ty.count().as_const()? > MAX_ELEMENTS {
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
            Some(input) => Some(evaluate(graph, *input, done, depth)?),
            None => None,
        });
    }
    let operands: Vec<Option<&Tensor>> = operands.iter().map(Option::as_ref).collect();
    let asked = Cell::new(false);
    let symbol = |_: &str| {
        asked.set(true);
        0
    };
    let results = eval::eval_node(&node.op, &operands, &symbol).ok()?;
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
