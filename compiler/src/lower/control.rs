//! Regions to segments: branches and loops.
//!
//! A loop carries its values in buffers that are its results: steps before it copy the first values there, and the body
//! ends by copying the next ones. So zero rounds give the first values, and nothing is swapped.

use lapidary_runtime::DType;
use lapidary_runtime::op::{Arg, Scalar, ScalarOp};
use lapidary_templates::families::control::{self as decide, At};
use lapidary_templates::{Kind, Problem};

use super::{Loop, Lowering, Residency, Rounds, SegmentId, Step, Target, TensorId, Tensors};
use crate::ir::builder::scalar_bytes;
use crate::ir::{Constant, Expr, Graph, Node, Program, Type, ValueId};

/// A loop's payload.
pub(super) struct Body<'n> {
    pub region: &'n Graph,
    pub carried: usize,
    pub most: &'n Expr,
}

impl Lowering<'_> {
    /// Both branches become segments that end by writing the node's results.
    pub(super) fn branch(
        &mut self,
        graph: &Graph,
        node: &Node,
        regions: [&Graph; 2],
        tensors: &mut Tensors,
        segment: SegmentId,
    ) {
        let operands: Vec<TensorId> =
            node.inputs.iter().flatten().map(|value| self.tensor(graph, *value, tensors)).collect();
        self.settle_counts(segment);
        let Some((&condition, captures)) = operands.split_first() else { crate::bug!("an If without a condition") };
        let results: Vec<Option<TensorId>> = node
            .outputs
            .iter()
            .map(|value| {
                let value = (*value)?;
                let tensor = self.arena_tensor(graph, value);
                tensors.insert(value, tensor);
                Some(tensor)
            })
            .collect();
        let [then_segment, else_segment] = regions.map(|region| {
            let inner = self.begin(region);
            let mut inside: Tensors = region.inputs().iter().copied().zip(captures.iter().copied()).collect();
            self.nodes(region, &mut inside, inner);
            for ((_, value), result) in region.outputs().iter().zip(&results) {
                if let Some(result) = result {
                    let from = self.tensor(region, *value, &mut inside);
                    self.copy(from, *result, self.copied_to(*result), inner);
                }
            }
            inner
        });
        let label = node.origin.to_string();
        let decide = self.is_graph().then(|| Box::new(decide::branch()));
        let step = Step::If { condition, then_segment, else_segment, decide, label };
        self.program.segments[segment.0 as usize].push(step);
    }

    /// A new segment for a region, and what it relies on.
    fn begin(&mut self, region: &Graph) -> SegmentId {
        self.program.segments.push(Vec::new());
        let inner = SegmentId(self.program.segments.len() as u32 - 1);
        self.constraints(region, inner);
        inner
    }

    /// The body becomes a segment that ends by writing what the next round reads.
    pub(super) fn repeat(
        &mut self,
        graph: &Graph,
        node: &Node,
        body: Body<'_>,
        tensors: &mut Tensors,
        segment: SegmentId,
    ) {
        let Body { region: body, carried, most } = body;
        let operands: Vec<Option<TensorId>> =
            node.inputs.iter().map(|value| value.map(|value| self.tensor(graph, value, tensors))).collect();
        let (Some(&[limit, start]), Some((round, inputs))) = (operands.first_chunk(), body.inputs().split_first())
        else {
            crate::bug!("a loop without operands or a round");
        };
        self.settle_counts(segment);
        let values: Vec<TensorId> = operands.iter().skip(2).flatten().copied().collect();
        let (first, captures) = values.split_at(carried);
        let inner = self.begin(body);
        let mut inside: Tensors = inputs[carried..].iter().copied().zip(captures.iter().copied()).collect();

        // What changes from round to round, each with its value in the body: the condition, the carried values, and the
        // number of the round where anybody reads it.
        let watched = usize::from(start.is_some());
        let mut carry: Vec<(TensorId, Next)> = Vec::new();
        let condition = start.map(|start| {
            let state = self.state(start, segment);
            carry.push((state, Next::Value(body.outputs()[0].1)));
            state
        });
        for (k, &from) in first.iter().enumerate() {
            let state = self.state(from, segment);
            if let Some(result) = node.outputs.get(k).copied().flatten() {
                self.rename(state, &graph.value(result).name);
                tensors.insert(result, state);
            }
            inside.insert(inputs[k], state);
            carry.push((state, Next::Value(body.outputs()[watched + k].1)));
        }
        let rows = body.outputs()[watched + carried..].iter();
        let count = node.outputs.get(carried + rows.len()).copied().flatten();
        let asked = |count: ValueId| !graph.uses(count).is_empty() || self.is_count(graph, count);
        let counted = count.is_some_and(asked) || !body.uses(*round).is_empty();
        if counted {
            let zero = self.scalar(Scalar::int(DType::I64, 0));
            let state = self.state(zero, segment);
            inside.insert(*round, state);
            if let Some(count) = count {
                tensors.insert(count, state);
            }
            carry.push((state, Next::Successor));
        }

        self.nodes(body, &mut inside, inner);
        let label = node.origin.to_string();
        let rows = rows.enumerate().filter_map(|(k, (_, value))| {
            let result = node.outputs.get(carried + k).copied().flatten()?;
            let row = self.tensor(body, *value, &mut inside);
            let all = self.arena_tensor(graph, result);
            tensors.insert(result, all);
            Some((row, all))
        });
        let rows: Vec<(TensorId, TensorId)> = rows.collect();
        // All that is next is there before the first of it overwrites what it was computed from: a value that is a
        // state itself, or one that comes from elsewhere, is copied first.
        let next: Vec<(TensorId, TensorId)> = carry
            .iter()
            .map(|(state, next)| {
                let from = match next {
                    Next::Value(value) => self.tensor(body, *value, &mut inside),
                    Next::Successor => self.successor(*state, &label, inner),
                };
                let stays = self.buffer_of(from) == self.buffer_of(*state);
                (if stays { from } else { self.apart(from, &carry, inner) }, *state)
            })
            .collect();
        let rows: Vec<(TensorId, TensorId)> =
            rows.into_iter().map(|(row, all)| (self.row(row, &carry, inner), all)).collect();
        for (from, state) in next {
            if self.buffer_of(from) != self.buffer_of(state) {
                self.copy(from, state, self.copied_to(state), inner);
            }
        }
        let rounds = self.is_graph().then(|| self.rounds([condition, limit].map(|at| at.is_some()), most, &rows));
        let step = Loop { condition, limit, most: most.clone(), body: inner, rows, rounds, label };
        self.program.segments[segment.0 as usize].push(Step::Loop(Box::new(step)));
    }

    /// Whether the plan may run as a CUDA graph.
    fn is_graph(&self) -> bool {
        matches!(self.target, Target::Cuda(_))
    }

    /// What runs a loop in a CUDA graph.
    fn rounds(&mut self, [condition, limit]: [bool; 2], most: &Expr, rows: &[(TensorId, TensorId)]) -> Rounds {
        let round = self.number();
        let place = rows.len();
        let rounds = decide::Rounds { condition, limit, most: most.clone(), round: place };
        let collect = rows.iter().enumerate().map(|(k, (row, _))| {
            let buffer = self.buffer_of(*row);
            // Operands before the rows are condition and limit.
            decide::collect(2 + k, k, place, &self.program.buffer(buffer).bytes)
        });
        let next = collect.chain([decide::rounds(&rounds, At::End)]).collect();
        Rounds { round, begin: decide::rounds(&rounds, At::Start), next }
    }

    /// A tensor of one `i64`.
    fn number(&mut self) -> TensorId {
        let ty = Type { dtype: DType::I64, dims: Vec::new() };
        let buffer = self.add_buffer(Residency::Arena, &ty);
        self.push_tensor(super::Tensor { name: "round".into(), ty, buffer, at: None })
    }

    /// The tensor, or a copy of it where it lies in the buffer of something that is carried.
    fn apart(&mut self, tensor: TensorId, carry: &[(TensorId, Next)], segment: SegmentId) -> TensorId {
        let is_state = carry.iter().any(|(state, _)| self.buffer_of(*state) == self.buffer_of(tensor));
        if is_state { self.duplicate(tensor, segment) } else { tensor }
    }

    /// A row that fills a buffer of its own, as it is collected whole.
    fn row(&mut self, row: TensorId, carry: &[(TensorId, Next)], segment: SegmentId) -> TensorId {
        let is_part = self.program.tensor(row).at.is_some();
        if is_part { self.duplicate(row, segment) } else { self.apart(row, carry, segment) }
    }

    /// What a copy of the compiler's own is labelled.
    fn copied_to(&self, tensor: TensorId) -> String {
        format!("copy to {}", self.program.tensor(tensor).name)
    }

    /// A buffer for what a loop carries, filled with its first value.
    fn state(&mut self, first: TensorId, segment: SegmentId) -> TensorId {
        self.duplicate(first, segment)
    }

    /// A copy of a tensor in a buffer of its own.
    fn duplicate(&mut self, from: TensorId, segment: SegmentId) -> TensorId {
        let tensor = self.program.tensor(from).clone();
        let buffer = self.add_buffer(Residency::Arena, &tensor.ty);
        let copy = self.push_tensor(super::Tensor { buffer, at: None, ..tensor });
        self.copy(from, copy, self.copied_to(copy), segment);
        copy
    }

    fn rename(&mut self, tensor: TensorId, name: &std::sync::Arc<str>) {
        self.program.tensors[tensor.0 as usize].name = name.clone();
    }

    fn buffer_of(&self, tensor: TensorId) -> super::BufferId {
        self.program.tensor(tensor).buffer
    }

    /// A constant of the compiler's.
    fn scalar(&mut self, scalar: Scalar) -> TensorId {
        let ty = Type { dtype: scalar.dtype, dims: Vec::new() };
        let constant = Constant { bytes: scalar_bytes(scalar).into(), initializer: None };
        let buffer = self.add_buffer(Residency::Weight(constant), &ty);
        self.push_tensor(super::Tensor { name: "round".into(), ty, buffer, at: None })
    }

    /// The number behind the one in `state`.
    fn successor(&mut self, state: TensorId, label: &str, segment: SegmentId) -> TensorId {
        let tensor = self.program.tensor(state).clone();
        let ty = tensor.ty.clone();
        let one = Arg::Imm(Scalar::int(ty.dtype, 1));
        let step = lapidary_runtime::op::Instr::binary(ScalarOp::Add, ty.dtype, Arg::Input(0), one);
        let program = Program { inputs: vec![ty.dtype], steps: vec![step], outputs: vec![Arg::Step(0)] };
        let problem =
            Problem { kind: Kind::Pointwise(program), inputs: vec![Some(ty.clone())], outputs: vec![Some(ty.clone())] };
        let buffer = self.add_buffer(Residency::Arena, &ty);
        let next = self.push_tensor(super::Tensor { buffer, at: None, ..tensor });
        self.work(problem, vec![Some(state)], vec![Some(next)], label.to_owned(), segment);
        next
    }
}

/// Where the next value of what a loop carries comes from.
enum Next {
    /// A value of the body.
    Value(ValueId),
    /// It is one more than the last: the number of the round.
    Successor,
}
