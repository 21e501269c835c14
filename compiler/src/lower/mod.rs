//! Graph to [`Program`]: every node becomes a kernel problem on tensors, with all its alternatives.
//!
//! Does: turn reshapes into views, split off what depends on weights alone (the init segment), lay out branches
//! and loops as segments. Needs: a verified graph. Chooses nothing. What no kernel can do is reported here at the latest, all of it
//! together.

mod control;
mod counts;
mod cpu;
mod pairs;
mod parallel;
mod parts;
mod program;
mod views;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lapidary_runtime::DType;
use lapidary_templates::{Arch, Kind, Problem, Shapes, Strided, families};

use crate::diag::{Diagnostic, Diagnostics, Place, Result};
use crate::ir::{Def, Expr, Graph, Node, NodeId, Op, Type, ValueId};
use control::Body;
use counts::OpenCount;
pub use cpu::cpu_op;
use parts::{Places, constants};
pub use program::{
    Alternatives, Buffer, BufferId, Loop, Program, Residency, Rounds, SegmentId, Step, Tensor, TensorId, Work,
};
use views::View;

/// What a model is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    Cpu,
    Cuda(Arch),
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Target::Cpu => f.write_str("cpu"),
            Target::Cuda(arch) => arch.fmt(f),
        }
    }
}

impl std::str::FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Target, String> {
        if text == "cpu" { Ok(Target::Cpu) } else { text.parse().map(Target::Cuda).map_err(|e| format!("{e}, cpu")) }
    }
}

/// Lowers a graph for one target.
///
/// # Errors
/// E0501 for each operation that has no kernel on the target.
pub fn lower(graph: &Graph, target: Target) -> Result<Program> {
    let symbols = counts::in_order(graph);
    let mut lowering = Lowering {
        target,
        symbols: graph,
        program: Program {
            name: graph.name.clone(),
            symbols,
            constraints: Vec::new(),
            buffers: Vec::new(),
            tensors: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            run_count: None,
            segments: vec![Vec::new(), Vec::new()],
        },
        weights: BTreeMap::new(),
        open: Vec::new(),
        views: BTreeMap::new(),
        done: BTreeSet::new(),
        places: Places::default(),
        at_load: BTreeSet::new(),
        diagnostics: Diagnostics::new(),
    };
    lowering.main(graph);
    let Lowering { program, mut diagnostics, .. } = lowering;
    diagnostics.check()?;
    Ok(program)
}

struct Lowering<'g> {
    target: Target,
    /// The outermost graph, which has the symbols.
    symbols: &'g Graph,
    program: Program,
    /// The buffer of each weight, by the address and length of its bytes: one that several regions share is stored
    /// once.
    weights: BTreeMap<(usize, usize, Type), TensorId>,
    /// Counts that are computed, and that no step has needed yet.
    open: Vec<OpenCount>,
    /// What was put off in the graph at hand.
    views: BTreeMap<ValueId, View>,
    /// The nodes of the graph at hand that need no steps of their own.
    done: BTreeSet<NodeId>,
    /// What of the graph at hand is computed inside of something else.
    places: Places,
    /// What of it depends on weights alone, and is computed once, at load.
    at_load: BTreeSet<ValueId>,
    diagnostics: Diagnostics,
}

/// The tensors that the values of one graph became.
type Tensors = BTreeMap<ValueId, TensorId>;

impl Lowering<'_> {
    fn main(&mut self, graph: &Graph) {
        let mut tensors = Tensors::new();
        self.constraints(graph, Program::MAIN);
        for &input in graph.inputs() {
            let tensor = self.arena_tensor(graph, input);
            tensors.insert(input, tensor);
            self.program.inputs.push((graph.value(input).name.to_string(), tensor));
        }
        for value in graph.value_ids().filter(|&value| graph.producer(value).is_none()) {
            self.counted(graph, value, &mut tensors);
        }
        self.nodes(graph, &mut tensors, Program::MAIN);
        for (name, value) in graph.outputs() {
            let tensor = self.output(graph, *value, &mut tensors);
            self.program.outputs.push((name.clone(), tensor));
        }
        self.settle_counts(Program::MAIN);
    }

    /// What a graph relies on is checked when its segment runs.
    fn constraints(&mut self, graph: &Graph, segment: SegmentId) {
        self.program.constraints.extend(graph.constraints.iter().map(|constraint| (segment, constraint.clone())));
    }

    /// The tensor of an output: its value's own, or a copy where that is an input, a weight, a part, or given out already.
    fn output(&mut self, graph: &Graph, value: ValueId, tensors: &mut Tensors) -> TensorId {
        let tensor = self.tensor(graph, value, tensors);
        let buffer = self.program.tensor(tensor).buffer;
        let ports = self.program.inputs.iter().chain(&self.program.outputs).map(|(_, tensor)| tensor);
        let mut taken = ports.chain(&self.program.run_count).map(|other| self.program.tensor(*other).buffer);
        let shared = taken.any(|other| other == buffer);
        let computed = matches!(self.program.buffer(buffer).residency, Residency::Arena);
        if computed && !shared && self.program.tensor(tensor).at.is_none() {
            return tensor;
        }
        let copy = self.arena_tensor(graph, value);
        let label = format!("copy to {}", graph.value(value).name);
        self.copy(tensor, copy, label, Program::MAIN);
        copy
    }

    fn copy(&mut self, from: TensorId, to: TensorId, label: String, segment: SegmentId) {
        let (input, output) = (self.program.tensor(from), self.program.tensor(to));
        let problem =
            Problem { kind: Kind::Copy, inputs: vec![Some(input.ty.clone())], outputs: vec![Some(output.ty.clone())] };
        self.work(problem, vec![Some(from)], vec![Some(to)], label, segment);
    }

    fn nodes(&mut self, graph: &Graph, tensors: &mut Tensors, segment: SegmentId) {
        let at_load = constants(graph);
        let places = self.places(graph, &at_load);
        let places = std::mem::replace(&mut self.places, places);
        let at_load = std::mem::replace(&mut self.at_load, at_load);
        let outer = (std::mem::take(&mut self.views), std::mem::take(&mut self.done), places, at_load);
        let put_off = views::put_off(graph, self.target);
        let groups = parallel::groups(graph, self.target, &put_off, &self.at_load);
        let grouped = groups.values().flatten().copied().collect::<BTreeSet<NodeId>>();
        let pairs = self.pairs(graph, &put_off.union(&grouped).copied().collect());
        self.done.extend(pairs.values().map(|pair| pair.first));
        for id in graph.order() {
            let together = |lowering: &mut Self, tensors: &mut Tensors| {
                groups.get(&id).is_some_and(|members| lowering.side_by_side(graph, members, tensors, segment))
            };
            if self.done.contains(&id) || together(self, tensors) {
                continue;
            }
            let node = graph.node(id);
            if put_off.contains(&id) {
                self.defer(graph, node, tensors, segment);
            } else if let Some(pair) = pairs.get(&id) {
                self.pair(graph, pair, node, tensors, segment);
            } else {
                self.node(graph, node, tensors, segment);
            }
            for value in node.outputs.iter().flatten() {
                self.counted(graph, *value, tensors);
            }
        }
        (self.views, self.done, self.places, self.at_load) = outer;
    }

    fn node(&mut self, graph: &Graph, node: &Node, tensors: &mut Tensors, segment: SegmentId) {
        match &node.op {
            Op::Attention(spec) => self.attention(graph, node, *spec, tensors, segment),
            Op::Reshape(_) | Op::BitCast(_) => self.view(graph, node, tensors),
            Op::Concat { axis } if self.join(graph, node, *axis, tensors, segment) => {}
            Op::Slice { .. } if self.range(graph, node, tensors) => {}
            Op::RunCount => self.run_count(graph, node, tensors),
            Op::If { then_region, else_region } => {
                self.branch(graph, node, [&then_region.0, &else_region.0], tensors, segment);
            }
            Op::Loop { body, carried, most } => {
                let body = Body { region: &body.0, carried: *carried as usize, most };
                self.repeat(graph, node, body, tensors, segment);
            }
            op => match kind_of(graph, node) {
                Some(kind) => self.problem(graph, node, kind, tensors, segment),
                None => crate::bug!("{} is no problem, and nothing else", op.name()),
            },
        }
    }

    /// The tensor of what is computed at load; nothing has to be there for it but weights, so its turn is at any time.
    fn loaded(&mut self, graph: &Graph, value: ValueId, tensors: &mut Tensors) -> TensorId {
        if let (false, Some(producer)) = (tensors.contains_key(&value), graph.producer(value)) {
            let node = graph.node(producer);
            for operand in node.inputs.iter().flatten() {
                self.loaded(graph, *operand, tensors);
            }
            self.done.insert(producer);
            self.node(graph, node, tensors, Program::MAIN);
            for result in node.outputs.iter().flatten() {
                self.counted(graph, *result, tensors);
            }
        }
        self.tensor(graph, value, tensors)
    }

    /// The one tensor that the runtime writes before each run.
    fn run_count(&mut self, graph: &Graph, node: &Node, tensors: &mut Tensors) {
        let Some(Some(result)) = node.outputs.first() else { crate::bug!("a run count without result") };
        let tensor = match self.program.run_count {
            Some(tensor) => tensor,
            None => self.arena_tensor(graph, *result),
        };
        self.program.run_count = Some(tensor);
        tensors.insert(*result, tensor);
    }

    /// Another shape, or another type of the same bits, is another view of the operand's buffer.
    fn view(&mut self, graph: &Graph, node: &Node, tensors: &mut Tensors) {
        let (Some(Some(input)), Some(Some(output))) = (node.inputs.first(), node.outputs.first()) else {
            crate::bug!("a view without operand or result");
        };
        let operand = self.tensor(graph, *input, tensors);
        let name = graph.value(*output).name.clone();
        let view = Tensor { name, ty: graph.ty(*output).clone(), ..self.program.tensor(operand).clone() };
        let view = self.push_tensor(view);
        tensors.insert(*output, view);
    }

    fn problem(&mut self, graph: &Graph, node: &Node, kind: Kind, tensors: &mut Tensors, segment: SegmentId) {
        let inputs: Vec<Option<TensorId>> =
            node.inputs.iter().map(|value| value.map(|value| self.tensor(graph, value, tensors))).collect();
        let derived = self.is_derived(graph, node, &kind, &inputs);
        let wanted = node.outputs.iter().map(|value| {
            let value = (*value)?;
            let first = node.outputs.first().copied().flatten() == Some(value);
            // A second result that nothing reads is not computed; the first is what kernels always write.
            (first || !graph.uses(value).is_empty() || self.is_count(graph, value)).then_some(value)
        });
        let wanted: Vec<Option<ValueId>> = wanted.collect();
        let outputs: Vec<Option<TensorId>> = wanted
            .iter()
            .map(|value| {
                let value = (*value)?;
                let tensor = if derived {
                    let buffer = self.add_buffer(Residency::Derived, graph.ty(value));
                    self.add_tensor(graph, value, buffer)
                } else {
                    self.arena_tensor(graph, value)
                };
                tensors.insert(value, tensor);
                Some(tensor)
            })
            .collect();
        let problem = Problem {
            kind,
            inputs: inputs.iter().map(|tensor| tensor.map(|tensor| self.program.tensor(tensor).ty.clone())).collect(),
            outputs: outputs.iter().map(|tensor| tensor.map(|tensor| self.program.tensor(tensor).ty.clone())).collect(),
        };
        let segment = if derived { Program::INIT } else { segment };
        self.work(problem, inputs, outputs, node.origin.to_string(), segment);
    }

    /// Whether a node depends on weights alone, so that it can run once at load.
    fn is_derived(&self, graph: &Graph, node: &Node, kind: &Kind, inputs: &[Option<TensorId>]) -> bool {
        let constant_operands = inputs.iter().flatten().all(|tensor| {
            let tensor = self.program.tensor(*tensor);
            let starts_here = tensor.at.as_ref().is_none_or(|at| at.as_const().is_some());
            starts_here && !matches!(self.program.buffer(tensor.buffer).residency, Residency::Arena)
        });
        let constant_results =
            node.outputs.iter().flatten().all(|value| graph.ty(*value).dims.iter().all(|dim| dim.as_const().is_some()));
        constant_operands && constant_results && extents_of(kind).iter().all(|extent| extent.as_const().is_some())
    }

    fn work(
        &mut self,
        problem: Problem,
        inputs: Vec<Option<TensorId>>,
        outputs: Vec<Option<TensorId>>,
        label: String,
        segment: SegmentId,
    ) {
        if !self.runs_on_bounds(&problem) {
            self.settle_counts(segment);
        }
        let alternatives = match self.target {
            Target::Cpu => self.cpu(&problem, &label),
            Target::Cuda(arch) => self.cuda(&problem, arch, &label),
        };
        self.program.segments[segment.0 as usize].push(Step::Work(Box::new(Work {
            problem,
            inputs,
            outputs,
            alternatives,
            label,
        })));
    }

    fn cpu(&mut self, problem: &Problem, label: &str) -> Alternatives {
        if let Err(reason) = cpu::check(problem) {
            self.no_kernel(problem, label, &reason);
        }
        Alternatives::Cpu
    }

    fn cuda(&mut self, problem: &Problem, arch: Arch, label: &str) -> Alternatives {
        let answer = self.answer(problem, arch);
        if let Alternatives::Cuda { candidates, refusals } = &answer
            && candidates.is_empty()
        {
            let reasons: Vec<String> =
                refusals.iter().map(|refusal| format!("{}: {}", refusal.key, refusal.reason)).collect();
            self.no_kernel(problem, label, &reasons.join("; "));
        }
        answer
    }

    /// What the kernel families offer.
    fn answer(&self, problem: &Problem, arch: Arch) -> Alternatives {
        let range = |expr: &Expr| self.symbols.range(expr);
        let typical = |expr: &Expr| {
            expr.eval(&|name| {
                self.symbols.symbols.get(name).and_then(|symbol| symbol.ranges.first()).map_or(1, |range| range.opt)
            })
        };
        let answer = families::answer(problem, arch, &Shapes { range: &range, typical: &typical });
        Alternatives::Cuda { candidates: answer.candidates, refusals: answer.refusals }
    }

    fn no_kernel(&mut self, problem: &Problem, label: &str, reason: &str) {
        let operands: Vec<String> =
            problem.inputs.iter().flatten().map(|ty| format!("{}{:?}", ty.dtype, ty.dims)).collect();
        let usual = problem.inputs.iter().flatten().all(|ty| ty.dtype == DType::F32 || ty.dtype == DType::I64);
        let help = match self.target {
            Target::Cuda(_) if usual => "give its dimensions smaller ranges by --dim, or compile for the target cpu",
            Target::Cuda(_) | Target::Cpu => "convert the operands to f32 in the model, or compile for another target",
        };
        let at = Place::Node {
            name: label.to_owned(),
            op: kind_name(&problem.kind).to_owned(),
            domain: String::new(),
            output: String::new(),
        };
        self.diagnostics.push(
            Diagnostic::error("E0501", at, format!("no kernel of target {} does this", self.target))
                .why(format!("its operands are {}; {reason}", operands.join(", ")))
                .help(help),
        );
    }

    fn tensor(&mut self, graph: &Graph, value: ValueId, tensors: &mut Tensors) -> TensorId {
        if let Some(&tensor) = tensors.get(&value) {
            return tensor;
        }
        let Def::Constant(constant) = &graph.value(value).def else {
            crate::bug!("{value} is read before it is computed");
        };
        let key = (constant.bytes.as_ptr() as usize, constant.bytes.len(), graph.ty(value).clone());
        let tensor = match self.weights.get(&key) {
            Some(&tensor) => tensor,
            None => {
                let buffer = self.add_buffer(Residency::Weight(constant.clone()), graph.ty(value));
                let tensor = self.add_tensor(graph, value, buffer);
                self.weights.insert(key, tensor);
                tensor
            }
        };
        tensors.insert(value, tensor);
        tensor
    }

    fn add_buffer(&mut self, residency: Residency, ty: &Type) -> BufferId {
        let bits = Expr::from(ty.dtype.bits()) * ty.count();
        self.program.buffers.push(Buffer { residency, bytes: bits.ceil_div(&Expr::constant(8)) });
        BufferId(self.program.buffers.len() as u32 - 1)
    }

    fn add_tensor(&mut self, graph: &Graph, value: ValueId, buffer: BufferId) -> TensorId {
        self.add_tensor_of(graph, value, graph.ty(value).clone(), buffer)
    }

    /// A tensor with the name of a value and another type.
    fn add_tensor_of(&mut self, graph: &Graph, value: ValueId, ty: Type, buffer: BufferId) -> TensorId {
        let name: Arc<str> = graph.value(value).name.clone();
        self.push_tensor(Tensor { name, ty, buffer, at: None })
    }

    fn push_tensor(&mut self, tensor: Tensor) -> TensorId {
        self.program.tensors.push(tensor);
        TensorId(self.program.tensors.len() as u32 - 1)
    }
}

/// The kernel problem of an operation; `None` for views and control flow.
fn kind_of(graph: &Graph, node: &Node) -> Option<Kind> {
    let kind = match &node.op {
        Op::Reshape(_) | Op::BitCast(_) | Op::RunCount | Op::If { .. } | Op::Loop { .. } => return None,
        Op::Pointwise(program) => Kind::Pointwise(program.clone()),
        Op::MatMul(spec, epilogue) => Kind::MatMul(*spec, epilogue.clone()),
        Op::Conv(spec, epilogue) => Kind::Conv(*spec, epilogue.clone()),
        Op::ConvTranspose(spec, _) => Kind::ConvTranspose(*spec),
        Op::Pool(spec, _) => Kind::Pool(*spec),
        Op::Reduce(spec) => Kind::Reduce(*spec),
        Op::ArgReduce(spec) => Kind::ArgReduce(*spec),
        Op::Softmax(spec) => Kind::Softmax(*spec),
        Op::Attention(spec) => {
            let ends = node.inputs.iter().take(3).chain(&node.outputs);
            let whole = ends.flatten().map(|value| Strided::contiguous(&graph.ty(*value).dims));
            let Ok(places) = <[Strided; 4]>::try_from(whole.collect::<Vec<_>>()) else {
                crate::bug!("attention without an operand or result");
            };
            Kind::Attention(*spec, Box::new(places))
        }
        Op::Norm(spec, epilogue) => Kind::Norm(*spec, epilogue.clone()),
        Op::GroupNorm(spec, epilogue) => Kind::GroupNorm(*spec, epilogue.clone()),
        Op::Transpose(spec) => Kind::Transpose(*spec),
        Op::Expand(_) => Kind::Expand,
        Op::Slice { starts, steps, .. } => Kind::Slice { starts: starts.clone(), steps: steps.clone() },
        Op::Concat { axis } => Kind::Concat { axis: *axis },
        Op::Pad { mode, lo, .. } => Kind::Pad { mode: *mode, lo: lo.clone() },
        Op::Gather { axis } => Kind::Gather { axis: *axis },
        Op::GatherElements { axis } => Kind::GatherElements { axis: *axis },
        Op::GatherNd { batch_dims } => Kind::GatherNd { batch_dims: *batch_dims },
        Op::ScatterElements { axis, mode } => Kind::ScatterElements { axis: *axis, mode: *mode },
        Op::ScatterNd { mode } => Kind::ScatterNd { mode: *mode },
        Op::Resize(spec, _) => Kind::Resize(*spec),
        Op::RegionPool(spec) => Kind::RegionPool(*spec),
        Op::Recurrent(spec) => Kind::Recurrent(*spec),
        Op::Suppress => Kind::Suppress,
        Op::CumSum { axis, exclusive, reverse } => {
            Kind::CumSum { axis: *axis, exclusive: *exclusive, reverse: *reverse }
        }
        Op::TopK { axis, largest, .. } => Kind::TopK { axis: *axis, largest: *largest },
        Op::Range { .. } => Kind::Range,
        Op::Extents { values, .. } => Kind::Extents(values.clone()),
    };
    Some(kind)
}

/// The formulas in a problem's attributes.
fn extents_of(kind: &Kind) -> Vec<&Expr> {
    match kind {
        Kind::Slice { starts, .. } => starts.iter().collect(),
        Kind::Pad { lo, .. } => lo.iter().collect(),
        Kind::Extents(values) => values.iter().collect(),
        Kind::Pair(pair) => {
            [&pair.first, &pair.second].into_iter().flat_map(|problem| extents_of(&problem.kind)).collect()
        }
        Kind::Attention(_, places) => {
            places.iter().flat_map(|place| std::iter::once(&place.offset).chain(&place.strides)).collect()
        }
        Kind::Pointwise(_)
        | Kind::MatMul(..)
        | Kind::Conv(..)
        | Kind::ConvTranspose(_)
        | Kind::Pool(_)
        | Kind::Reduce(_)
        | Kind::ArgReduce(_)
        | Kind::Softmax(_)
        | Kind::Norm(..)
        | Kind::GroupNorm(..)
        | Kind::Transpose(_)
        | Kind::Expand
        | Kind::Concat { .. }
        | Kind::Gather { .. }
        | Kind::GatherElements { .. }
        | Kind::GatherNd { .. }
        | Kind::ScatterElements { .. }
        | Kind::ScatterNd { .. }
        | Kind::Resize(_)
        | Kind::RegionPool(_)
        | Kind::Recurrent(_)
        | Kind::Suppress
        | Kind::CumSum { .. }
        | Kind::TopK { .. }
        | Kind::Range
        | Kind::Copy => Vec::new(),
    }
}

/// The name of a kind of problem, for messages.
pub fn kind_name(kind: &Kind) -> &'static str {
    match kind {
        Kind::Pointwise(_) => "pointwise",
        Kind::MatMul(..) => "matmul",
        Kind::Conv(..) => "conv",
        Kind::ConvTranspose(_) => "conv_transpose",
        Kind::Pool(_) => "pool",
        Kind::Reduce(_) => "reduce",
        Kind::ArgReduce(_) => "arg_reduce",
        Kind::Softmax(_) => "softmax",
        Kind::Attention(..) => "attention",
        Kind::Norm(..) => "norm",
        Kind::GroupNorm(..) => "group_norm",
        Kind::Transpose(_) => "transpose",
        Kind::Expand => "expand",
        Kind::Slice { .. } => "slice",
        Kind::Concat { .. } => "concat",
        Kind::Pad { .. } => "pad",
        Kind::Gather { .. } => "gather",
        Kind::GatherElements { .. } => "gather_elements",
        Kind::GatherNd { .. } => "gather_nd",
        Kind::ScatterElements { .. } => "scatter_elements",
        Kind::ScatterNd { .. } => "scatter_nd",
        Kind::Resize(_) => "resize",
        Kind::RegionPool(_) => "region_pool",
        Kind::Recurrent(_) => "recurrent",
        Kind::Suppress => "suppress",
        Kind::CumSum { .. } => "cum_sum",
        Kind::TopK { .. } => "top_k",
        Kind::Range => "range",
        Kind::Extents(_) => "extents",
        Kind::Copy => "copy",
        Kind::Pair(_) => "pair",
    }
}
