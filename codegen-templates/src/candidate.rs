//! What a kernel family answers: implementations of a problem, each with its launches and its predicted time.
//!
//! A family enumerates; `legal` says in words why an implementation does not apply; nothing here is chosen.

use crate::arch::Arch;
use crate::extent::Expr;
use crate::problem::Problem;

/// One implementation of a problem.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Its only name, such as `gemm_mma/m128n128k32s4`.
    pub key: String,
    /// Kernels to launch, in order.
    pub launches: Vec<Launch>,
    /// Bytes of each scratch buffer that the launches share.
    pub workspace: Vec<Expr>,
    /// Predicted microseconds at the profiles' typical shapes.
    pub cost: f64,
}

/// A kernel and how it is launched.
#[derive(Clone, Debug)]
pub struct Launch {
    pub source: Source,
    /// Thread blocks, as formulas over the symbols.
    pub grid: [Expr; 3],
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub shared: u32,
    pub params: Vec<Param>,
}

/// The text of a kernel: headers to include, and the few lines that instantiate one of their templates.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source {
    /// The family and what it does in a few words, such as `gemm` or `pointwise_add_relu`; part of the kernel's name.
    pub stem: String,
    /// CUDA C++. The entry point is spelled [`ENTRY`], which the compiler replaces by the kernel's name.
    pub text: String,
}

/// Stands for the entry point's name in a [`Source`].
pub const ENTRY: &str = "LAPIDARY_ENTRY";

/// A kernel parameter, in the order of the entry point's.
#[derive(Clone, Debug, PartialEq)]
pub enum Param {
    /// The address of operand `0`, plus `1` elements; null where the operand is absent.
    Input(usize, Expr),
    /// The address of result `0`, plus `1` elements; null where the result is absent.
    Output(usize, Expr),
    /// The address of scratch buffer `0`, plus `1` bytes.
    Workspace(usize, Expr),
    /// The address of as many 32-bit counters: zero before the launch, which leaves them zero again. Launches that run
    /// one after the other share them.
    Counters(Expr),
    I32(Expr),
    I64(Expr),
    F32(f32),
    /// The handle of a conditional node of the step, by number: in a launch that stands in a CUDA graph.
    Handle(usize),
}

/// What is known of a model's shapes: the range and the typical value of a formula, over all profiles.
pub struct Shapes<'a> {
    pub range: &'a dyn Fn(&Expr) -> (i64, i64),
    pub typical: &'a dyn Fn(&Expr) -> i64,
}

impl Shapes<'_> {
    /// The largest value of a formula.
    pub fn max(&self, expr: &Expr) -> i64 {
        (self.range)(expr).1
    }

    /// Whether a formula is a multiple of `factor` for every shape: each of its coefficients is.
    pub fn is_multiple(&self, expr: &Expr, factor: i64) -> bool {
        expr.terms().all(|(_, coefficient)| coefficient % factor == 0)
    }
}

/// Why a family does not offer an implementation, in words for `inspect`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub key: String,
    pub reason: String,
}

/// What a family answers to a problem.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    pub candidates: Vec<Candidate>,
    pub refusals: Vec<Refusal>,
}

impl Answer {
    /// Adds an implementation without scratch buffers.
    pub fn offer(&mut self, key: String, launches: Vec<Launch>, cost: f64) {
        self.candidates.push(Candidate { key, launches, workspace: Vec::new(), cost });
    }

    /// Adds the reason why there is no such implementation.
    pub fn refuse(&mut self, key: impl Into<String>, reason: impl Into<String>) {
        self.refusals.push(Refusal { key: key.into(), reason: reason.into() });
    }

    /// The answer of a family that could give a reason against all of its implementations.
    pub fn or_refusal(family: &str, answer: Result<Answer, String>) -> Answer {
        answer.unwrap_or_else(|reason| {
            let mut refused = Answer::default();
            refused.refuse(family, reason);
            refused
        })
    }
}

/// A kernel family.
pub struct Family {
    /// The first part of its candidates' keys.
    pub name: &'static str,
    /// Implementations of the problem on `arch`; empty where the family has nothing to do with it.
    pub answer: fn(&Problem, Arch, &Shapes<'_>) -> Answer,
}
