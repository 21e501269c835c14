//! LSTM, GRU and RNN: the products of all inputs with W as one matrix product, then a kernel that walks the time steps.

use lapidary_runtime::DType;
use lapidary_runtime::op::{Activation, ActivationKind, Cell, Direction, MatMul, Math, Recurrent};

use crate::arch::Arch;
use crate::call::{As, Call, Place};
use crate::candidate::{Answer, Candidate, Launch, Param, Shapes};
use crate::extent::Expr;
use crate::families;
use crate::families::softmax::check_float;
use crate::predict::Work;
use crate::print;
use crate::problem::{Kind, Operand, Problem};
use crate::program::Program;
use crate::view::powers_of_two;

const FAMILY: &str = "recurrent";
/// Operands, as ONNX numbers them.
const X: usize = 0;
const W: usize = 1;
const R: usize = 2;
const BIAS: usize = 3;
const LENGTHS: usize = 4;
const H: usize = 5;
const C: usize = 6;
const PEEPHOLES: usize = 7;

/// Implementations of recurrent layers.
pub fn answer(problem: &Problem, arch: Arch, shapes: &Shapes<'_>) -> Answer {
    let Kind::Recurrent(spec) = &problem.kind else { return Answer::default() };
    Answer::or_refusal(FAMILY, candidates(problem, spec, arch, shapes))
}

/// The extents of a layer.
struct Layer<'p> {
    spec: &'p Recurrent,
    x: &'p Operand,
    seq: Expr,
    batch: Expr,
    hidden: i64,
    dirs: i64,
    gates: i64,
}

impl<'p> Layer<'p> {
    fn of(problem: &'p Problem, spec: &'p Recurrent) -> Result<Layer<'p>, String> {
        let x = problem.input(X)?;
        check_float(x)?;
        let [seq, batch, _] = x.dims.as_slice() else { return Err("x has not three axes".to_owned()) };
        Ok(Layer {
            spec,
            x,
            seq: seq.clone(),
            batch: batch.clone(),
            hidden: i64::from(spec.hidden),
            dirs: match spec.direction {
                Direction::Forward | Direction::Reverse => 1,
                Direction::Bidirectional => 2,
            },
            gates: match spec.cell {
                Cell::Lstm => 4,
                Cell::Gru { .. } => 3,
                Cell::Rnn => 1,
            },
        })
    }

    /// The rows of W of all directions: the columns of the projection.
    fn columns(&self) -> i64 {
        self.dirs * self.gates * self.hidden
    }

    /// Vectors of `hidden` elements that a sequence keeps in shared memory.
    fn vectors(&self) -> i64 {
        match self.spec.cell {
            Cell::Lstm => 6,
            Cell::Gru { .. } => 5,
            Cell::Rnn => 2,
        }
    }

    /// Threads of a block: doubles take twice the registers.
    fn threads(&self) -> u32 {
        if self.x.dtype == DType::F64 { 256 } else { 512 }
    }

    fn bytes(&self) -> i64 {
        self.x.dtype.bits() as i64 / 8
    }

    /// Bytes of shared memory for `batch` sequences, with R or without.
    fn shared(&self, batch: i64, keeps_r: bool) -> i64 {
        let state = self.bytes().max(4);
        let vectors = self.vectors() * batch * ((self.hidden + 7) / 8 * 8) * state;
        vectors + if keeps_r { self.gates * self.hidden * self.hidden * self.bytes() } else { 0 }
    }
}

fn candidates(problem: &Problem, spec: &Recurrent, arch: Arch, shapes: &Shapes<'_>) -> Result<Answer, String> {
    let layer = Layer::of(problem, spec)?;
    let projection = projection(problem, &layer, arch, shapes)?;
    // The kernel has a few bytes of static shared memory, too.
    let room = i64::from(arch.limits().shared_per_block) - 256;
    let sequences = (shapes.typical)(&layer.batch).max(1);
    let mut answer = Answer::default();
    for keeps_r in [false, true] {
        for batch in [1, 2, 4, 8] {
            let wide = batch > 1 && batch > sequences;
            let key = format!("recurrent_steps/b{batch}{}", if keeps_r { "_kept" } else { "" });
            if layer.shared(batch, keeps_r) > room {
                answer.refuse(key, "the state does not fit into shared memory");
            } else if !wide {
                let (launch, cost) = steps(problem, &layer, batch, keeps_r, projection.result, arch, shapes);
                let launches = projection.launches.iter().cloned().chain([launch]).collect();
                let (workspace, cost) = (projection.workspace.clone(), projection.cost + cost);
                answer.candidates.push(Candidate { key, launches, workspace, cost });
            }
        }
    }
    Ok(answer)
}

/// The kernels of `x W^T`, whose result is scratch buffer 0.
struct Projection {
    launches: Vec<Launch>,
    workspace: Vec<Expr>,
    cost: f64,
    result: DType,
}

/// The products of the inputs with W, by whichever family multiplies matrices; sums stay unrounded where one can.
fn projection(problem: &Problem, layer: &Layer<'_>, arch: Arch, shapes: &Shapes<'_>) -> Result<Projection, String> {
    let (x, w) = (layer.x, problem.input(W)?);
    let rows = layer.seq.clone() * layer.batch.clone();
    let (columns, width) = (Expr::constant(layer.columns()), x.dims[2].clone());
    let operand = |dtype: DType, dims: Vec<Expr>| Some(Operand { dtype, dims });
    let spec = MatMul { transpose_a: false, transpose_b: true, math: Math::Exact };
    let half = x.dtype.bits() == 16;
    let unrounded = half.then(|| (Some(Program::identity(DType::F32)), DType::F32));
    for (epilogue, result) in unrounded.into_iter().chain([(None, x.dtype)]) {
        let product = Problem {
            kind: Kind::MatMul(spec, epilogue),
            inputs: vec![
                operand(x.dtype, vec![rows.clone(), width.clone()]),
                operand(w.dtype, vec![columns.clone(), width.clone()]),
            ],
            outputs: vec![operand(result, vec![rows.clone(), columns.clone()])],
        };
        let answer = families::answer(&product, arch, shapes);
        let quickest = answer.candidates.into_iter().min_by(|a, b| a.cost.total_cmp(&b.cost));
        if let Some(Candidate { launches, workspace, cost, .. }) = quickest {
            let bytes = rows * columns * Expr::from(result.bits() / 8);
            let workspace = [bytes].into_iter().chain(workspace).collect();
            return Ok(Projection {
                launches: launches.into_iter().map(into_scratch).collect(),
                workspace,
                cost,
                result,
            });
        }
    }
    Err(format!("no kernel multiplies matrices of {}", x.dtype))
}

/// The launch with its result in scratch buffer 0, and its own scratch buffers behind it. Operands keep their numbers:
/// x and W are the first two of the layer, too.
fn into_scratch(mut launch: Launch) -> Launch {
    for param in &mut launch.params {
        *param = match param {
            Param::Output(..) => Param::Workspace(0, Expr::constant(0)),
            Param::Workspace(k, at) => Param::Workspace(*k + 1, at.clone()),
            Param::Input(..)
            | Param::Counters(_)
            | Param::I32(_)
            | Param::I64(_)
            | Param::F32(_)
            | Param::Handle(_) => continue,
        };
    }
    launch
}

/// The launch that walks the time steps, and its predicted time.
fn steps(
    problem: &Problem,
    layer: &Layer<'_>,
    batch: i64,
    keeps_r: bool,
    projected: DType,
    arch: Arch,
    shapes: &Shapes<'_>,
) -> (Launch, f64) {
    let Layer { spec, hidden, dirs, gates, .. } = *layer;
    let name = match spec.cell {
        Cell::Lstm => "lstm",
        Cell::Gru { .. } => "gru",
        Cell::Rnn => "rnn",
    };
    let most = (16 / layer.bytes()).min(if layer.bytes() == 2 { 8 } else { 4 });
    let vec = powers_of_two(most).find(|vec| hidden % vec == 0).unwrap_or(1);
    let mut call = Call::new(FAMILY, format!("{name}_{}", layer.x.dtype), format!("{name}, all time steps"));
    policy(&mut call, layer, projected, keeps_r);
    call.ints(&[("BATCH", batch), ("VEC", vec), ("THREADS", i64::from(layer.threads()))]);
    let there = |k: usize| problem.optional_input(k).map_or(Place::Absent, |_| Place::input(k));
    let wanted = |k: usize| problem.optional_output(k).map_or(Place::Absent, |_| Place::output(k));
    call.pointer("const void", "xw", &Place::Workspace(0));
    call.pointer("const void", "r", &Place::input(R));
    call.pointer("const void", "bias", &there(BIAS));
    call.pointer("const i32", "sequence_lens", &there(LENGTHS));
    call.pointer("const void", "initial_h", &there(H));
    call.pointer("const void", "initial_c", &there(C));
    call.pointer("const void", "peepholes", &there(PEEPHOLES));
    call.pointer("void", "y", &wanted(0));
    call.pointer("void", "y_h", &wanted(1));
    call.pointer("void", "y_c", &wanted(2));
    let size = Expr::constant;
    let state = layer.batch.clone() * size(hidden);
    call.extent("seq", &layer.seq, As::Wide);
    call.extent("batch", &layer.batch, As::Wide);
    call.extent("hidden", &size(hidden), As::Wide);
    call.extent("xw_seq", &(layer.batch.clone() * size(layer.columns())), As::Wide);
    call.extent("xw_batch", &size(layer.columns()), As::Wide);
    call.extent("y_seq", &(state.clone() * size(dirs)), As::Wide);
    call.extent("y_dir", &state, As::Wide);
    call.extent("y_batch", &size(hidden), As::Wide);
    call.extent("state_dir", &state, As::Wide);
    call.extent("state_batch", &size(hidden), As::Wide);
    call.float("clip", spec.clip);
    let blocks = size(dirs) * layer.batch.ceil_div(&size(batch));
    let shared = layer.shared(batch, keeps_r) as u32;

    let typical = |expr: &Expr| (shapes.typical)(expr).max(1) as f64;
    let products = (gates * hidden * hidden) as f64;
    let steps = typical(&layer.seq);
    let weights = products * layer.bytes() as f64;
    let work = Work {
        // R comes from the second level of cache, or once from it and then from shared memory.
        bytes: typical(&blocks) * weights * if keeps_r { 1.0 } else { steps / 3.0 },
        blocks: typical(&blocks),
        threads: f64::from(layer.threads()),
        in_flight: f64::from(layer.threads()) * 4.0 * (vec * layer.bytes()) as f64,
        instructions: typical(&blocks) * steps * (products * batch as f64 * 1.5 + hidden as f64 * 100.0),
    };
    let cost = work.microseconds(arch) + steps * 2.0;
    (call.launch_with("recurrent::run", layer.threads(), blocks, shared), cost)
}

fn policy(call: &mut Call, layer: &Layer<'_>, projected: DType, keeps_r: bool) {
    let spec = layer.spec;
    call.using("T", print::type_name(layer.x.dtype));
    call.using("XW", print::type_name(projected));
    let (cell, linear) = match spec.cell {
        Cell::Lstm => ("LSTM", false),
        Cell::Gru { linear_before_reset } => ("GRU", linear_before_reset),
        Cell::Rnn => ("RNN", false),
    };
    let direction = match spec.direction {
        Direction::Forward => "FORWARD",
        Direction::Reverse => "REVERSE",
        Direction::Bidirectional => "BIDIRECTIONAL",
    };
    call.constant("recurrent::Cell", &format!("CELL = recurrent::Cell::{cell}"));
    call.constant("recurrent::Direction", &format!("DIRECTION = recurrent::Direction::{direction}"));
    call.constant("bool", &format!("LINEAR_BEFORE_RESET = {linear}, INPUT_FORGET = {}", spec.input_forget));
    call.constant("bool", &format!("HAS_CLIP = {}, KEEP_R = {keeps_r}", spec.clip.is_finite()));
    // One direction reads the first three alone.
    let own = if layer.dirs == 2 { &spec.activations[..] } else { &spec.activations[..3] };
    let all: Vec<&Activation> = own.iter().chain(own).take(6).collect();
    let kinds: Vec<String> =
        all.iter().map(|a| format!("\n      recurrent::Activation::{}", spelled(a.kind))).collect();
    call.constant("recurrent::Activation", &format!("activations[] = {{{}}}", kinds.join(",")));
    let floats = |pick: fn(&Activation) -> f32| -> String {
        let values: Vec<String> = all.iter().map(|activation| format!("{:?}f", pick(activation))).collect();
        values.join(", ")
    };
    call.constant("float", &format!("alphas[] = {{{}}}", floats(|activation| activation.alpha)));
    call.constant("float", &format!("betas[] = {{{}}}", floats(|activation| activation.beta)));
}

fn spelled(kind: ActivationKind) -> &'static str {
    match kind {
        ActivationKind::Sigmoid => "SIGMOID",
        ActivationKind::Tanh => "TANH",
        ActivationKind::Relu => "RELU",
        ActivationKind::Affine => "AFFINE",
        ActivationKind::LeakyRelu => "LEAKY_RELU",
        ActivationKind::ThresholdedRelu => "THRESHOLDED_RELU",
        ActivationKind::ScaledTanh => "SCALED_TANH",
        ActivationKind::HardSigmoid => "HARD_SIGMOID",
        ActivationKind::Elu => "ELU",
        ActivationKind::Softsign => "SOFTSIGN",
        ActivationKind::Softplus => "SOFTPLUS",
    }
}
