//! The product of lowering: kernel problems on tensors, in segments, each with its alternatives.

use std::sync::Arc;

use lapidary_templates::{Candidate, Problem, Refusal, candidate::Launch};

use crate::ir::{Constant, Constraint, Expr, Range, Symbol, Type};

/// A number of a tensor of a [`Program`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TensorId(pub u32);

/// A number of a buffer of a [`Program`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BufferId(pub u32);

/// A number of a segment of a [`Program`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SegmentId(pub u32);

/// A lowered model.
#[derive(Clone, Debug)]
pub struct Program {
    pub name: String,
    pub symbols: Vec<(Arc<str>, Symbol)>,
    /// What must hold of the shapes when a segment runs.
    pub constraints: Vec<(SegmentId, Constraint)>,
    pub buffers: Vec<Buffer>,
    pub tensors: Vec<Tensor>,
    pub inputs: Vec<(String, TensorId)>,
    pub outputs: Vec<(String, TensorId)>,
    /// The tensor that gets the number of runs before this one, where the model asks for it.
    pub run_count: Option<TensorId>,
    /// [`Program::INIT`] runs once at load, [`Program::MAIN`] at every run; others are branches and bodies.
    pub segments: Vec<Vec<Step>>,
}

impl Program {
    /// The segment that computes what depends on weights alone.
    pub const INIT: SegmentId = SegmentId(0);
    /// The segment of a run.
    pub const MAIN: SegmentId = SegmentId(1);

    /// A tensor.
    pub fn tensor(&self, id: TensorId) -> &Tensor {
        &self.tensors[id.0 as usize]
    }

    /// A tensor's buffer.
    pub fn buffer(&self, id: BufferId) -> &Buffer {
        &self.buffers[id.0 as usize]
    }

    /// The steps of a segment.
    pub fn segment(&self, id: SegmentId) -> &[Step] {
        &self.segments[id.0 as usize]
    }

    /// The number of optimization profiles.
    pub fn profile_count(&self) -> usize {
        self.symbols.iter().map(|(_, symbol)| symbol.ranges.len()).max().unwrap_or(1)
    }

    /// The range of a symbol in a profile.
    pub fn symbol_range(&self, name: &str, profile: usize) -> Range {
        let symbol = self.symbols.iter().find(|(symbol, _)| &**symbol == name);
        match symbol.and_then(|(_, symbol)| symbol.ranges.get(profile)) {
            Some(range) => *range,
            None => crate::bug!("symbol {name} has no range in profile {profile}"),
        }
    }

    /// The bounds of a formula in a profile.
    pub fn range(&self, expr: &Expr, profile: usize) -> (i64, i64) {
        expr.range(&|name| {
            let range = self.symbol_range(name, profile);
            (range.min, range.max)
        })
    }
}

/// A tensor: a view of a buffer, or a part of it, under one type. Reshapes make several tensors of one buffer.
#[derive(Clone, Debug)]
pub struct Tensor {
    pub name: Arc<str>,
    pub ty: Type,
    pub buffer: BufferId,
    /// The byte of the buffer at which a tensor begins that is a part of it; `None` views all of it.
    pub at: Option<Expr>,
}

/// Memory that tensors view.
#[derive(Clone, Debug)]
pub struct Buffer {
    pub residency: Residency,
    pub bytes: Expr,
}

/// Where a buffer lives, and for how long.
#[derive(Clone, Debug)]
pub enum Residency {
    /// In `weights.bin`.
    Weight(Constant),
    /// Written once at load, kept.
    Derived,
    /// In the session's arena.
    Arena,
}

/// A step of a segment.
#[derive(Clone, Debug)]
pub enum Step {
    Work(Box<Work>),
    /// Runs one of two segments, each of which writes the results.
    If {
        condition: TensorId,
        then_segment: SegmentId,
        else_segment: SegmentId,
        /// What names the branch in a CUDA graph; nothing on the `cpu` target.
        decide: Option<Box<Launch>>,
        label: String,
    },
    /// Gives a symbol the one element of a tensor: from here on it is known how many there are.
    Count {
        /// Its place in [`Program::symbols`].
        symbol: usize,
        at: TensorId,
        label: String,
    },
    Loop(Box<Loop>),
}

/// Runs a segment again and again. What it carries lies in buffers of its own: steps before this one fill them, and the
/// last steps of the body fill them again, so that nothing moves between the rounds.
#[derive(Clone, Debug)]
pub struct Loop {
    /// One `bool`, which the body writes: whether there is another round.
    pub condition: Option<TensorId>,
    /// One `i64`: the most rounds.
    pub limit: Option<TensorId>,
    /// The most rounds that the shapes allow.
    pub most: Expr,
    pub body: SegmentId,
    /// What the body computes in each round, and where all of it goes, one round behind the other.
    pub rows: Vec<(TensorId, TensorId)>,
    /// What runs the loop in a CUDA graph; nothing on the `cpu` target.
    pub rounds: Option<Rounds>,
    pub label: String,
}

/// How a CUDA graph runs a loop by itself.
#[derive(Clone, Debug)]
pub struct Rounds {
    /// One `i64`: the number of the round.
    pub round: TensorId,
    /// In front of the loop: numbers the first round, and asks for it.
    pub begin: Launch,
    /// At the end of the body: collects the rows, numbers the next round, and asks for it.
    pub next: Vec<Launch>,
}

impl Step {
    /// The ONNX nodes it came from.
    pub fn label(&self) -> &str {
        match self {
            Step::Work(work) => &work.label,
            Step::If { label, .. } | Step::Count { label, .. } => label,
            Step::Loop(step) => &step.label,
        }
    }

    /// The launches that a CUDA graph needs to decide this step.
    pub fn deciding(&self) -> Vec<&Launch> {
        match self {
            Step::If { decide, .. } => decide.iter().map(|launch| &**launch).collect(),
            Step::Loop(step) => {
                step.rounds.iter().flat_map(|rounds| std::iter::once(&rounds.begin).chain(&rounds.next)).collect()
            }
            Step::Work(_) | Step::Count { .. } => Vec::new(),
        }
    }
}

/// A kernel problem to solve.
#[derive(Clone, Debug)]
pub struct Work {
    pub problem: Problem,
    pub inputs: Vec<Option<TensorId>>,
    pub outputs: Vec<Option<TensorId>>,
    pub alternatives: Alternatives,
    /// The ONNX nodes it came from.
    pub label: String,
}

/// Ways to solve a problem.
#[derive(Clone, Debug)]
pub enum Alternatives {
    /// The runtime's function for it.
    Cpu,
    Cuda {
        candidates: Vec<Candidate>,
        refusals: Vec<Refusal>,
    },
}
