//! Pointwise programs on operands that are read where they lie: transposed, sliced, or in the rows that a gather picks.
//!
//! Such a node is put off like those in front of attention (`views.rs`), if nothing but programs reads it. The program
//! compares what it costs to read the views, an element at a time where they are not contiguous, with copies.
//! Not here: results that are written elsewhere, counted extents, elements of parts of bytes.

use std::collections::BTreeSet;

use lapidary_runtime::DType;
use lapidary_templates::view::contiguous;
use lapidary_templates::{Kind, Problem, Reading, Strided, Through};

use super::parts::range_start;
use super::views::{Base, Rows, View};
use super::{Lowering, SegmentId, TensorId, Tensors};
use crate::ir::{Expr, Graph, Node, NodeId, Op, Use, ValueId};

/// The nodes that may be put off, beside those of attention: programs alone read them, or nodes that are put off.
pub(super) fn put_off(
    graph: &Graph,
    of_attention: BTreeSet<NodeId>,
    at_load: &BTreeSet<ValueId>,
    is_counted: &dyn Fn(&Expr) -> bool,
) -> BTreeSet<NodeId> {
    let mut nodes = of_attention.clone();
    for id in graph.order().into_iter().rev() {
        let node = graph.node(id);
        let &[Some(result)] = &node.outputs[..] else { continue };
        let ty = graph.ty(result);
        let fits = !at_load.contains(&result)
            && !graph.is_count(result)
            && is_whole_bytes(ty.dtype)
            && !ty.dims.iter().any(is_counted);
        if fits && moves(graph, node) && is_read(graph, node, result, &nodes, at_load) {
            nodes.insert(id);
        }
    }
    // A reshape of what is there is a view for every reader.
    for id in graph.order() {
        let node = graph.node(id);
        let of_view = || node.inputs.first().copied().flatten().and_then(|operand| graph.producer(operand));
        let is_plain =
            matches!(node.op, Op::Reshape(_)) && !of_view().is_some_and(|producer| nodes.contains(&producer));
        if is_plain && !of_attention.contains(&id) {
            nodes.remove(&id);
        }
    }
    nodes
}

fn is_whole_bytes(dtype: DType) -> bool {
    dtype.bits().is_multiple_of(8) && !dtype.is_storage()
}

/// Whether a node moves elements in a way that a program can follow.
fn moves(graph: &Graph, node: &Node) -> bool {
    match (&node.op, &node.inputs[..]) {
        (Op::Transpose(_) | Op::Reshape(_), _) => true,
        // One range is read where it lies by everything.
        (Op::Slice { .. }, &[Some(operand)]) => range_start(graph, node, operand).is_none(),
        (Op::Gather { axis }, &[Some(x), Some(_)]) => {
            let (dims, axis) = (&graph.ty(x).dims, usize::from(*axis));
            axis + 1 < dims.len() && graph.range(&dims[axis]).0 > 0
        }
        _ => false,
    }
}

fn is_read(
    graph: &Graph,
    node: &Node,
    result: ValueId,
    put_off: &BTreeSet<NodeId>,
    at_load: &BTreeSet<ValueId>,
) -> bool {
    let picks_rows = matches!(node.op, Op::Gather { .. });
    let takes = |use_: &Use| {
        let Use::Operand(reader, k) = use_ else { return false };
        match (&graph.node(*reader).op, &graph.node(*reader).outputs[..]) {
            (Op::Pointwise(_), &[Some(y)]) => !at_load.contains(&y) && is_whole_bytes(graph.ty(y).dtype),
            (Op::Attention(_), _) => *k < 3 && !picks_rows,
            _ => put_off.contains(reader) && !picks_rows,
        }
    };
    let uses = graph.uses(result);
    !uses.is_empty() && uses.iter().all(takes)
}

/// The rows that a gather picks, as a view of its data.
pub(super) fn picked(graph: &Graph, x: ValueId, indices: ValueId, axis: usize) -> View {
    let (from, by) = (&graph.ty(x).dims, &graph.ty(indices).dims);
    let strides = contiguous(from);
    let none = |count: usize| vec![Expr::constant(0); count];
    let place = [&strides[..axis], &none(by.len()), &strides[axis + 1..]].concat();
    let of_indices = [none(axis), contiguous(by), none(from.len() - axis - 1)].concat();
    View {
        base: Base::Value(x),
        dims: [&from[..axis], by, &from[axis + 1..]].concat(),
        place: Strided { offset: Expr::constant(0), strides: place },
        rows: Some(Rows {
            indices,
            place: Strided { offset: Expr::constant(0), strides: of_indices },
            stride: strides[axis].clone(),
            count: from[axis].clone(),
        }),
    }
}

impl Lowering<'_> {
    /// Lowers a program some of whose operands are views on these, if that costs less than copies of them; else the views
    /// are lowered, and `false`.
    pub(super) fn program(&mut self, graph: &Graph, node: &Node, tensors: &mut Tensors, segment: SegmentId) -> bool {
        let (Op::Pointwise(program), &[Some(result)]) = (&node.op, &node.outputs[..]) else { return false };
        let operands: Vec<ValueId> = node.inputs.iter().flatten().copied().collect();
        let is_view = |value: &ValueId| self.views.contains_key(value) && !tensors.contains_key(value);
        let viewed: Vec<ValueId> = operands.iter().copied().filter(is_view).collect();
        if viewed.is_empty() {
            return false;
        }
        let views: Vec<View> = operands
            .iter()
            .map(|value| match self.views.get(value) {
                Some(view) if viewed.contains(value) => view.clone(),
                Some(_) | None => View::whole(graph, *value),
            })
            .collect();
        let ty = |value: ValueId| Some(graph.ty(value).clone());
        let indices: Vec<ValueId> = views.iter().filter_map(|view| Some(view.rows.as_ref()?.indices)).collect();
        let mut readings = Vec::new();
        for view in &views {
            let before = readings.iter().filter(|reading: &&Reading| reading.through.is_some()).count();
            readings.push(self.reading(view, &graph.ty(result).dims, operands.len() + before));
        }
        let problem = Problem {
            kind: Kind::Elementwise(program.clone(), readings),
            inputs: operands.iter().chain(&indices).map(|value| ty(*value)).collect(),
            outputs: vec![ty(result)],
        };
        let mut moved = Vec::new();
        viewed.iter().for_each(|&value| self.put_off_for(graph, value, &mut moved));
        let copied: f64 = moved.iter().filter_map(|id| self.node_cost(graph, graph.node(*id))).sum();
        let costs_less = match (self.cost(&problem), self.node_cost(graph, node)) {
            (Some(strided), Some(plain)) => strided <= plain + copied,
            (strided, None) => strided.is_some(),
            (None, Some(_)) => false,
        };
        if !costs_less {
            viewed.iter().for_each(|&value| self.there(graph, value, tensors, segment));
            return false;
        }
        let mut inputs: Vec<Option<TensorId>> = Vec::new();
        for view in &views {
            inputs.push(Some(self.base(graph, view.base, tensors)));
        }
        for value in indices {
            inputs.push(Some(self.tensor(graph, value, tensors)));
        }
        let output = self.arena_tensor(graph, result);
        tensors.insert(result, output);
        let moves = moved.iter().map(|id| &graph.node(*id).origin);
        let origin = moves.fold(node.origin.clone(), |origin, other| other.merge(&origin));
        self.work(problem, inputs, vec![Some(output)], origin.to_string(), segment);
        true
    }

    /// A view along the axes of a result that it broadcasts to; `indices` is the operand that it may be read through.
    fn reading(&self, view: &View, to: &[Expr], indices: usize) -> Reading {
        let lead = to.len() - view.dims.len();
        let along = |place: &Strided| {
            let own = view.dims.iter().zip(&to[lead..]).zip(&place.strides);
            let one = Expr::constant(1);
            let stride = own.map(|((dim, to), stride)| match self.symbols.range(dim) {
                _ if dim == to => stride.clone(),
                (1, 1) => Expr::constant(0),
                (low, _) if low > 1 => stride.clone(),
                // 0 where the axis broadcasts, which a run's extents say.
                (_, _) => stride.clone() * (dim.clone() - one.clone()).smaller(&one),
            });
            let strides = std::iter::repeat_n(Expr::constant(0), lead).chain(stride).collect();
            Strided { offset: place.offset.clone(), strides }
        };
        let through = view.rows.as_ref().map(|rows| Through {
            indices,
            place: along(&rows.place),
            stride: rows.stride.clone(),
            rows: rows.count.clone(),
        });
        Reading { place: along(&view.place), through }
    }
}

#[cfg(test)]
mod tests {
    use crate::ir::text;
    use crate::lower::{Program, lower};

    fn steps(target: &str, nodes: &str) -> Vec<String> {
        let graph = format!(
            r#"graph "g" {{
  symbol n = input 0 axis 0, 1..64..128
  input %0 "x" f16[n, 64]
  input %1 "y" f16[64, n]
  input %2 "ids" i64[n]
  const %3 "table" f16[1000, 64] = init "t"
{nodes}
}}"#
        );
        let graph = text::parse(&graph, &|_| Some(vec![0; 2000 * 64].into())).expect("a graph");
        let program = lower(&graph, target.parse().expect("a target")).expect("kernels");
        program.segment(Program::MAIN).iter().map(|step| step.label().to_owned()).collect()
    }

    const TRANSPOSED: &str = r#"  %4 "t" f16[n, 64] = transpose(%1) { perm [1, 0] } from "T"
  %5 "s" f16[n, 64] = pointwise(%0, %4) { in f16 f16; s0 = add f16 in0 in1; out s0 } from "S"
  output "s" %5"#;

    #[test]
    fn a_transposed_operand_is_read_where_it_lies() {
        assert_eq!(steps("sm_90a", TRANSPOSED), ["T + S"]);
        assert_eq!(steps("cpu", TRANSPOSED), ["T", "S"]);
    }

    #[test]
    fn what_others_read_is_copied() {
        assert_eq!(steps("sm_90a", &format!("{TRANSPOSED}\n  output \"t\" %4")), ["T", "S"]);
    }

    #[test]
    fn rows_are_picked_as_they_are_read() {
        let nodes = r#"  %4 "e" f16[n, 64] = gather(%3, %2) { axis 0 } from "E"
  %5 "p" f16[n, 64] = slice(%3) { starts [0, 0] steps [1, 1] dims [n, 64] } from "P"
  %6 "s" f16[n, 64] = pointwise(%4, %5) { in f16 f16; s0 = add f16 in0 in1; out s0 } from "S"
  output "s" %6"#;
        assert_eq!(steps("sm_90a", nodes), ["E + S"]);
        assert_eq!(steps("cpu", nodes), ["E", "S"]);
    }

    /// Single elements are no rows, and a table may have none.
    #[test]
    fn single_elements_are_gathered_first() {
        let nodes = r#"  %4 "e" f16[64, n] = gather(%1, %2) { axis 1 } from "E"
  %5 "s" f16[64, n] = pointwise(%4, %1) { in f16 f16; s0 = add f16 in0 in1; out s0 } from "S"
  output "s" %5"#;
        assert_eq!(steps("sm_90a", nodes), ["E", "S"]);
    }
}
