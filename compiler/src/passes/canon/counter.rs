//! Indices that count: positions along an axis, as exporters write them out.
//!
//! Does: `gather(x, 0 1 2 ..) -> slice(x)`, the same of `gather_nd` and the grid of all places, and `counter >= 0 -> true`.
//! Needs: nothing. Keeps: types. Not here: counters by other steps than 1, and grids whose axes change places.

use lapidary_runtime::DType;
use lapidary_runtime::op::{Scalar, ScalarOp};

use crate::ir::builder::{scalar_bytes, scalar_of};
use crate::ir::eval;
use crate::ir::{Constant, Expr, Graph, NodeId, Op, Patch, Ref, Type, ValueId};
use crate::passes::matching::{Operand, binary, cast_of, result};

/// The most elements of a constant that is looked into, and how many nodes deep a counter is followed.
const MOST_ELEMENTS: i64 = 1 << 14;
const DEPTH: usize = 16;

/// Integers that are `start` plus the position along an axis, or `start` everywhere.
#[derive(Clone, Debug, PartialEq)]
struct Counter {
    start: Expr,
    axis: Option<usize>,
}

/// `gather(x, counter) -> slice(x)`, `gather_nd(x, counters) -> slice(x)`, `counter < c -> true`, where it is so
pub fn rewrite(graph: &Graph, id: NodeId) -> Option<Patch> {
    let node = graph.node(id);
    let y = result(graph, id)?;
    match (&node.op, &node.inputs[..]) {
        (Op::Gather { axis }, &[Some(x), Some(indices)]) => {
            let axis = usize::from(*axis);
            let counter = counter(graph, indices, DEPTH).filter(|counter| counter.axis.is_some())?;
            let lead: Vec<Expr> = graph.ty(x).dims[..axis].to_vec();
            let picked = Picked { x, first: axis, lead, indices: graph.ty(indices).dims.clone() };
            picked.sliced(graph, id, y, &[counter])
        }
        (Op::GatherNd { batch_dims: 0 }, &[Some(x), Some(indices)]) => {
            let counters = columns(graph, indices)?;
            let axes: Vec<usize> = counters.iter().filter_map(|counter| counter.axis).collect();
            let in_order = axes.windows(2).all(|pair| pair[0] < pair[1]);
            let (_, indices) = graph.ty(indices).dims.split_last()?;
            let picked = Picked { x, first: 0, lead: Vec::new(), indices: indices.to_vec() };
            if in_order { picked.sliced(graph, id, y, &counters) } else { None }
        }
        (Op::Pointwise(_), _) => decided(graph, id, y),
        _ => None,
    }
}

/// Elements of `x`: along its axes from `first` on by counters, one for each axis, along the others all of them.
struct Picked {
    x: ValueId,
    first: usize,
    /// The extents in front of those axes.
    lead: Vec<Expr>,
    /// The extents of the counters.
    indices: Vec<Expr>,
}

impl Picked {
    fn sliced(&self, graph: &Graph, id: NodeId, y: ValueId, counters: &[Counter]) -> Option<Patch> {
        let from = &graph.ty(self.x).dims;
        let mut starts = vec![Expr::constant(0); from.len()];
        let mut dims = from.clone();
        let mut places = vec![Expr::constant(1); self.indices.len()];
        for (counter, at) in counters.iter().zip(self.first..) {
            let count = counter.axis.map_or(Expr::constant(1), |axis| self.indices[axis].clone());
            let rest = from.get(at)?.clone() - counter.start.clone() - count.clone();
            if graph.range(&counter.start).0 < 0 || graph.range(&rest).0 < 0 {
                return None;
            }
            starts[at] = counter.start.clone();
            dims[at] = count.clone();
            if let Some(axis) = counter.axis {
                places[axis] = count;
            }
        }
        let behind = from.get(self.first + counters.len()..)?;
        let seen = [&self.lead[..], &places, behind].concat();
        let mut patch = Patch::new(&[id]);
        let steps = vec![1; from.len()];
        let mut taken: Ref = self.x.into();
        if dims != *from {
            taken = patch.node(Op::Slice { starts, steps, dims: dims.clone() }, [taken]);
        }
        if seen != dims {
            taken = patch.node(Op::Reshape(seen.clone()), [taken]);
        }
        if seen != graph.ty(y).dims {
            taken = patch.node(Op::Expand(graph.ty(y).dims.clone()), [taken]);
        }
        Some(patch.replace(y, taken))
    }
}

/// The counters that stand side by side along the last axis of an index tensor.
fn columns(graph: &Graph, indices: ValueId) -> Option<Vec<Counter>> {
    let last = graph.ty(indices).dims.len().checked_sub(1)?;
    let node = graph.node(graph.producer(indices)?);
    let columns: Vec<ValueId> = match node.op {
        Op::Concat { axis } if usize::from(axis) == last => node.inputs.iter().flatten().copied().collect(),
        _ => vec![indices],
    };
    let one = |value: ValueId| graph.ty(value).dims[last].is(1).then(|| counter(graph, value, DEPTH)).flatten();
    columns.into_iter().map(one).collect()
}

/// How a tensor of integers counts, if it does.
fn counter(graph: &Graph, value: ValueId, depth: usize) -> Option<Counter> {
    let dims = &graph.ty(value).dims;
    if !matches!(graph.ty(value).dtype, DType::I64 | DType::I32) {
        return None;
    }
    if let Some(found) = constant_counter(graph, value) {
        return Some(found);
    }
    let node = graph.node(graph.producer(value)?);
    let operand = node.inputs.first().copied().flatten()?;
    let of_operand = || counter(graph, operand, depth.checked_sub(1)?);
    let from = &graph.ty(operand).dims;
    let moved = |axis: Option<usize>, to: &dyn Fn(usize) -> Option<usize>| match axis {
        Some(axis) => to(axis).map(Some),
        None => Some(None),
    };
    match &node.op {
        Op::Range { .. } => {
            let delta = node.inputs.get(1).copied().flatten()?;
            let whole = |value: ValueId| scalar_of(graph, value).map(|scalar| scalar.as_i64());
            (whole(delta)? == 1).then_some(Counter { start: Expr::constant(whole(operand)?), axis: Some(0) })
        }
        Op::Reshape(_) => {
            let found = of_operand()?;
            let [inner, outer] = [from, dims].map(|dims| longer(dims));
            let same = inner.iter().map(|&axis| &from[axis]).eq(outer.iter().map(|&axis| &dims[axis]));
            let to = |axis: usize| outer.get(inner.iter().position(|&other| other == axis)?).copied();
            let axis = moved(found.axis, &to)?;
            (same || axis.is_none()).then_some(Counter { axis, ..found })
        }
        Op::Expand(_) => {
            let found = of_operand()?;
            let lead = dims.len() - from.len();
            let axis = moved(found.axis, &|axis| (from[axis] == dims[axis + lead]).then_some(axis + lead))?;
            Some(Counter { axis, ..found })
        }
        Op::Slice { starts, steps, .. } => {
            let found = of_operand()?;
            let start = match found.axis {
                Some(axis) if steps[axis] != 1 => return None,
                Some(axis) => found.start.clone() + starts[axis].clone(),
                None => found.start.clone(),
            };
            Some(Counter { start, ..found })
        }
        Op::Pointwise(_) => counter(graph, cast_of(graph, value)?, depth.checked_sub(1)?),
        _ => None,
    }
}

/// The axes whose extent is not 1.
fn longer(dims: &[Expr]) -> Vec<usize> {
    (0..dims.len()).filter(|&axis| !dims[axis].is(1)).collect()
}

fn constant_counter(graph: &Graph, value: ValueId) -> Option<Counter> {
    let tensor = eval::constant(graph, value, MOST_ELEMENTS)?;
    let elements = tensor.to_i64s();
    let &start = elements.first()?;
    let along = |axis: Option<usize>| {
        let inner: usize = axis.map_or(1, |axis| tensor.dims[axis + 1..].iter().product());
        let extent = axis.map_or(1, |axis| tensor.dims[axis]);
        let is_there = |(k, &element): (usize, &i64)| start.checked_add((k / inner % extent) as i64) == Some(element);
        elements.iter().enumerate().all(is_there)
    };
    let mut axes = std::iter::once(None).chain((0..tensor.dims.len()).map(Some));
    axes.find(|&axis| along(axis)).map(|axis| Counter { start: Expr::constant(start), axis })
}

/// A comparison of a counter with a number that comes out alike everywhere.
fn decided(graph: &Graph, id: NodeId, y: ValueId) -> Option<Patch> {
    let comparisons = [ScalarOp::Less, ScalarOp::LessEqual, ScalarOp::Greater, ScalarOp::GreaterEqual];
    let (op, (a, b)) = comparisons.into_iter().find_map(|op| Some((op, binary(graph, y, op)?)))?;
    let (value, number, op) = match (a, b) {
        (Operand::Value(value), Operand::Scalar(number)) => (value, number, op),
        (Operand::Scalar(number), Operand::Value(value)) => (value, number, turned(op)),
        _ => return None,
    };
    if graph.ty(value).dims != graph.ty(y).dims {
        return None;
    }
    let Counter { start, axis } = counter(graph, value, DEPTH)?;
    let count = axis.map_or(Expr::constant(1), |axis| graph.ty(value).dims[axis].clone());
    let (low, high) = (graph.range(&start).0, graph.range(&(start + count - Expr::constant(1))).1);
    let is = |number: i64| match op {
        ScalarOp::Less => (high < number, low >= number),
        ScalarOp::LessEqual => (high <= number, low > number),
        ScalarOp::Greater => (low > number, high <= number),
        _ => (low >= number, high < number),
    };
    let truth = match is(number.as_i64()) {
        (true, _) => 1,
        (_, true) => 0,
        (false, false) => return None,
    };
    let mut patch = Patch::new(&[id]);
    let bytes = scalar_bytes(Scalar::int(DType::Bool, truth)).into();
    let ty = Type { dtype: DType::Bool, dims: Vec::new() };
    let truth = patch.constant(ty, Constant { bytes, initializer: None });
    let everywhere = patch.node(Op::Expand(graph.ty(y).dims.clone()), [truth]);
    Some(patch.replace(y, everywhere))
}

/// The comparison of the operands in the other order.
fn turned(op: ScalarOp) -> ScalarOp {
    match op {
        ScalarOp::Less => ScalarOp::Greater,
        ScalarOp::LessEqual => ScalarOp::GreaterEqual,
        ScalarOp::Greater => ScalarOp::Less,
        _ => ScalarOp::LessEqual,
    }
}
