//! Operands that are read where they lie: transposes, slices and reshapes whose readers take strided operands.
//!
//! Such a node is put off: its result is a [`View`] of a tensor that is there. The reader compares what it costs to read the
//! views with what it costs to copy them first, and the copies are lowered only then. A result whose one reader is a
//! transpose is written in the transpose's order.
//!
//! Not here: programs that read views (`readings.rs`); the `cpu` target, whose functions read contiguous tensors.

use std::collections::BTreeSet;

use lapidary_runtime::op::{Attention, Transpose};
use lapidary_templates::view::contiguous;
use lapidary_templates::{Kind, Problem, Strided};

use super::readings::picked;
use super::{Alternatives, Lowering, SegmentId, Target, TensorId, Tensors, kind_of};
use crate::ir::{Expr, Graph, Node, NodeId, Op, Use, ValueId};

/// What a view is a part of.
#[derive(Clone, Copy, Debug)]
pub(super) enum Base {
    /// The tensor of a value, which is there.
    Value(ValueId),
    Tensor(TensorId),
}

/// A value as a part of a tensor.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub base: Base,
    pub dims: Vec<Expr>,
    pub place: Strided,
    /// Rows of it that an index tensor picks; programs alone read such a view.
    pub rows: Option<Rows>,
}

/// How far in its base an element of a view lies further on: by a row for each that its index says.
#[derive(Clone, Debug)]
pub(super) struct Rows {
    pub indices: ValueId,
    /// Where the view's indices lie in that tensor.
    pub place: Strided,
    /// Elements from one row to the next, and how many rows there are.
    pub stride: Expr,
    pub count: Expr,
}

/// The nodes of a graph that may be put off: views alone read them, or attention.
pub(super) fn put_off(graph: &Graph, target: Target) -> BTreeSet<NodeId> {
    let mut nodes = BTreeSet::new();
    if target == Target::Cpu {
        return nodes;
    }
    for id in graph.order().into_iter().rev() {
        let node = graph.node(id);
        let moves = matches!(node.op, Op::Transpose(_) | Op::Slice { .. } | Op::Reshape(_));
        let &[Some(result)] = &node.outputs[..] else { continue };
        if moves && is_read_in_place(graph, result, &nodes) {
            nodes.insert(id);
        }
    }
    nodes
}

/// Whether all that reads a value takes a view of it: attention as q, k or v, and nodes that are put off.
pub(super) fn is_read_in_place(graph: &Graph, value: ValueId, put_off: &BTreeSet<NodeId>) -> bool {
    let uses = graph.uses(value);
    let takes_views = |use_: &Use| match use_ {
        Use::Operand(reader, k) => match &graph.node(*reader).op {
            Op::Attention(_) => *k < 3,
            _ => put_off.contains(reader),
        },
        Use::Output(_) => false,
    };
    !uses.is_empty() && uses.iter().all(takes_views)
}

impl View {
    pub(super) fn whole(graph: &Graph, value: ValueId) -> View {
        let dims = graph.ty(value).dims.clone();
        View { base: Base::Value(value), place: Strided::contiguous(&dims), dims, rows: None }
    }

    /// The result of a node of this operand; `None` if its elements have no strides.
    fn through(&self, op: &Op) -> Option<View> {
        let (dims, place) = through(op, &self.dims, &self.place)?;
        let rows = match &self.rows {
            Some(rows) => Some(Rows { place: through(op, &self.dims, &rows.place)?.1, ..rows.clone() }),
            None => None,
        };
        Some(View { base: self.base, dims, place, rows })
    }
}

/// The shape of a node's result, and where the elements of its operand lie in it.
fn through(op: &Op, dims: &[Expr], place: &Strided) -> Option<(Vec<Expr>, Strided)> {
    let Strided { mut offset, strides } = place.clone();
    match op {
        Op::Transpose(Transpose { rank, perm }) => {
            let moved = |all: &[Expr]| -> Vec<Expr> {
                perm[..usize::from(*rank)].iter().map(|&k| all[usize::from(k)].clone()).collect()
            };
            Some((moved(dims), Strided { offset, strides: moved(&strides) }))
        }
        Op::Slice { starts, steps, dims } => {
            let mut stepped = Vec::new();
            for ((start, step), stride) in starts.iter().zip(steps).zip(strides) {
                offset = offset + start.clone() * stride.clone();
                stepped.push(Expr::constant(*step) * stride);
            }
            Some((dims.clone(), Strided { offset, strides: stepped }))
        }
        Op::Reshape(to) => {
            let strides = reshaped(dims, &strides, to)?;
            Some((to.clone(), Strided { offset, strides }))
        }
        _ => None,
    }
}

/// The strides of elements of shape `dims` and these strides, in the same order, under another shape.
fn reshaped(dims: &[Expr], strides: &[Expr], to: &[Expr]) -> Option<Vec<Expr>> {
    // Runs of axes over which the elements lie at one distance: their extent, and that distance.
    let mut runs: Vec<(Expr, Expr)> = Vec::new();
    for (dim, stride) in dims.iter().zip(strides).filter(|(dim, _)| !dim.is(1)) {
        match runs.last_mut() {
            Some((extent, inner)) if *inner == dim.clone() * stride.clone() => {
                *extent = extent.clone() * dim.clone();
                *inner = stride.clone();
            }
            Some(_) | None => runs.push((dim.clone(), stride.clone())),
        }
    }
    let mut result = vec![Expr::constant(0); to.len()];
    let mut axes = (0..to.len()).filter(|&axis| !to[axis].is(1));
    for (extent, stride) in runs {
        let mut covered = Expr::constant(1);
        let mut own = Vec::new();
        while covered != extent {
            let axis = axes.next()?;
            covered = covered * to[axis].clone();
            own.push(axis);
        }
        let mut inner = stride;
        for axis in own.into_iter().rev() {
            result[axis] = inner.clone();
            inner = inner * to[axis].clone();
        }
    }
    axes.next().is_none().then_some(result)
}

impl Lowering<'_> {
    /// Puts off a node that moves elements: its result is a view. Where it has no strides, its operand is copied first.
    pub(super) fn defer(&mut self, graph: &Graph, node: &Node, tensors: &mut Tensors, segment: SegmentId) {
        let (&[Some(operand), ..], &[Some(result)]) = (&node.inputs[..], &node.outputs[..]) else {
            crate::bug!("a view without operand or result");
        };
        if let (Op::Gather { axis }, Some(&Some(indices))) = (&node.op, node.inputs.get(1)) {
            self.views.insert(result, picked(graph, operand, indices, usize::from(*axis)));
            return;
        }
        let view = self.views.get(&operand).cloned().unwrap_or_else(|| View::whole(graph, operand));
        let whole = View::whole(graph, operand);
        let view = view.through(&node.op).or_else(|| {
            self.there(graph, operand, tensors, segment);
            whole.through(&node.op)
        });
        let Some(view) = view else {
            // A reshape whose extents agree by what a constraint says, not as formulas.
            return self.view(graph, node, tensors);
        };
        self.views.insert(result, view);
    }

    /// Lowers what was put off to make a value.
    pub(super) fn there(&mut self, graph: &Graph, value: ValueId, tensors: &mut Tensors, segment: SegmentId) {
        if tensors.contains_key(&value) || !self.views.contains_key(&value) {
            return;
        }
        let Some(producer) = graph.producer(value) else { return };
        let node = graph.node(producer);
        if let (Op::MatMul(..), Some(view)) = (&node.op, self.views.get(&value).cloned()) {
            return self.cut_out(graph, value, &view, tensors, segment);
        }
        for operand in node.inputs.iter().flatten() {
            self.there(graph, *operand, tensors, segment);
        }
        match kind_of(graph, node) {
            Some(Kind::Slice { .. }) if self.range(graph, node, tensors) => {}
            Some(kind) => self.problem(graph, node, kind, tensors, segment),
            None => self.view(graph, node, tensors),
        }
    }

    /// Copies a part of a product that holds several.
    fn cut_out(&mut self, graph: &Graph, value: ValueId, view: &View, tensors: &mut Tensors, segment: SegmentId) {
        let from = self.base(graph, view.base, tensors);
        let to = self.arena_tensor(graph, value);
        tensors.insert(value, to);
        let rank = view.dims.len();
        let mut starts = vec![Expr::constant(0); rank];
        if let Some(last) = starts.last_mut() {
            *last = view.place.offset.clone();
        }
        let kind = Kind::Slice { starts, steps: vec![1; rank] };
        let [input, output] = [from, to].map(|tensor| Some(self.program.tensor(tensor).ty.clone()));
        let problem = Problem { kind, inputs: vec![input], outputs: vec![output] };
        let label = format!("part {} of a product", graph.value(value).name);
        self.work(problem, vec![Some(from)], vec![Some(to)], label, segment);
    }

    /// The tensor that a view is a part of.
    pub(super) fn base(&mut self, graph: &Graph, base: Base, tensors: &mut Tensors) -> TensorId {
        match base {
            Base::Value(value) => self.tensor(graph, value, tensors),
            Base::Tensor(tensor) => tensor,
        }
    }

    /// Attention, on views of its operands and into a view of its result where that costs less than copies.
    pub(super) fn attention(
        &mut self,
        graph: &Graph,
        node: &Node,
        spec: Attention,
        tensors: &mut Tensors,
        segment: SegmentId,
    ) {
        let (Some(plain), &[Some(result)]) = (kind_of(graph, node), &node.outputs[..]) else {
            crate::bug!("attention without a result");
        };
        let operands: Vec<ValueId> = node.inputs.iter().flatten().copied().collect();
        let views: Vec<View> = operands
            .iter()
            .map(|value| self.views.get(value).cloned().unwrap_or_else(|| View::whole(graph, *value)))
            .collect();
        let sink = if self.target == Target::Cpu { None } else { transposed(graph, result) };
        let written = match sink {
            Some((_, to, spec)) => written_through(&graph.ty(to).dims, spec),
            None => Strided::contiguous(&graph.ty(result).dims),
        };
        let Ok(places) = <[Strided; 4]>::try_from(
            views.iter().take(3).map(|view| view.place.clone()).chain([written]).collect::<Vec<_>>(),
        ) else {
            crate::bug!("attention without q, k or v");
        };
        let strided = Kind::Attention(spec, Box::new(places));
        let ty = |value: &ValueId| Some(graph.ty(*value).clone());
        let asked = |kind: &Kind| Problem {
            kind: kind.clone(),
            inputs: operands.iter().map(ty).collect(),
            outputs: vec![ty(&result)],
        };
        let copies: Vec<ValueId> = operands.iter().filter(|value| self.views.contains_key(value)).copied().collect();
        let reads_views = strided != plain && {
            let mut moved = Vec::new();
            copies.iter().for_each(|&value| self.put_off_for(graph, value, &mut moved));
            let copied: f64 = moved.iter().filter_map(|id| self.node_cost(graph, graph.node(*id))).sum();
            let sunk = sink.and_then(|(id, ..)| self.node_cost(graph, graph.node(id))).unwrap_or(0.0);
            match (self.cost(&asked(&strided)), self.cost(&asked(&plain))) {
                (Some(strided), Some(plain)) => strided <= plain + copied + sunk,
                (strided, None) => strided.is_some(),
                (None, Some(_)) => false,
            }
        };
        if !reads_views {
            copies.iter().for_each(|&value| self.there(graph, value, tensors, segment));
            self.problem(graph, node, plain, tensors, segment);
            return;
        }
        let inputs: Vec<Option<TensorId>> =
            views.iter().map(|view| Some(self.base(graph, view.base, tensors))).collect();
        let to = match sink {
            Some((id, to, _)) => {
                self.done.insert(id);
                to
            }
            None => result,
        };
        let output = self.arena_tensor(graph, to);
        tensors.insert(to, output);
        self.work(asked(&strided), inputs, vec![Some(output)], node.origin.to_string(), segment);
    }

    /// The nodes that were put off to make a value, and are not lowered yet.
    pub(super) fn put_off_for(&self, graph: &Graph, value: ValueId, found: &mut Vec<NodeId>) {
        if !self.views.contains_key(&value) {
            return;
        }
        let Some(producer) = graph.producer(value).filter(|producer| !found.contains(producer)) else { return };
        found.push(producer);
        graph.node(producer).inputs.iter().flatten().for_each(|operand| self.put_off_for(graph, *operand, found));
    }

    /// Predicted microseconds of a node by itself; `None` for one that is a view anyway.
    pub(super) fn node_cost(&self, graph: &Graph, node: &Node) -> Option<f64> {
        let types = |values: &[Option<ValueId>]| {
            values.iter().map(|value| value.map(|value| graph.ty(value).clone())).collect()
        };
        let problem =
            Problem { kind: kind_of(graph, node)?, inputs: types(&node.inputs), outputs: types(&node.outputs) };
        self.cost(&problem)
    }

    /// Predicted microseconds of the quickest kernels for a problem.
    pub(super) fn cost(&self, problem: &Problem) -> Option<f64> {
        let Target::Cuda(arch) = self.target else { return None };
        let Alternatives::Cuda { candidates, .. } = self.answer(problem, arch) else { return None };
        candidates.iter().map(|candidate| candidate.cost).min_by(f64::total_cmp)
    }
}

/// The transpose that alone reads a value, what it gives, and how.
fn transposed(graph: &Graph, value: ValueId) -> Option<(NodeId, ValueId, Transpose)> {
    let &[Use::Operand(reader, _)] = &graph.uses(value)[..] else { return None };
    let node = graph.node(reader);
    match (&node.op, &node.outputs[..]) {
        (Op::Transpose(spec), &[Some(result)]) => Some((reader, result, *spec)),
        _ => None,
    }
}

/// Where the elements of a transpose's operand lie in its result, a contiguous tensor of shape `dims`.
fn written_through(dims: &[Expr], spec: Transpose) -> Strided {
    let mut strides = vec![Expr::constant(0); dims.len()];
    for (&axis, stride) in spec.perm.iter().zip(contiguous(dims)) {
        strides[usize::from(axis)] = stride;
    }
    Strided { offset: Expr::constant(0), strides }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exprs(text: &str) -> Vec<Expr> {
        text.split(' ').map(|dim| dim.parse().expect("a formula")).collect()
    }

    #[test]
    fn reshapes_of_strided_elements() {
        let strides = |dims: &str, strides: &str, to: &str| reshaped(&exprs(dims), &exprs(strides), &exprs(to));
        // A third of packed projections, split into heads.
        assert_eq!(strides("1 n 768", "2304*n 2304 1", "1 n 12 64"), Some(exprs("0 2304 64 1")));
        assert_eq!(strides("n 768", "768 1", "n 768"), Some(exprs("768 1")));
        assert_eq!(strides("2 n 8", "8*n 8 1", "2*n 8"), Some(exprs("8 1")));
        // Transposed axes do not merge.
        assert_eq!(strides("3 4", "1 3", "12"), None);
        assert_eq!(strides("3 4", "1 3", "3 1 2 2"), Some(exprs("1 0 6 3")));
        assert_eq!(strides("6 4", "4 1", "4 6"), Some(exprs("6 1")));
        assert_eq!(strides("6 4", "8 1", "4 6"), None);
    }

    #[test]
    fn a_transpose_is_written_through() {
        let spec = Transpose { rank: 4, perm: [0, 2, 1, 3, 0, 0, 0, 0] };
        let place = written_through(&exprs("2 n 12 64"), spec);
        assert_eq!(place.strides, exprs("768*n 64 768 1"));
    }
}
