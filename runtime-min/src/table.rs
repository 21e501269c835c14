//! The tables that make a compiled model: what the emitted crate prints as constants, and what the compiler hands to
//! the same runtime in process.
//!
//! Contract: tables are made by the compiler and checked by it; the runtime trusts their structure (indices are in
//! range, tensors lie inside their memory), and checks what comes from the caller (dtypes, shapes, profile ranges).
//!
//! Extents that depend on the caller's shapes are *slots*: formulas evaluated once per new shape, in order.

use crate::dtype::DType;
use crate::op::{
    ArgReduce, Attention, Conv, ConvTranspose, GroupNorm, Instr, MatMul, Norm, PadMode, Pool, Recurrent, Reduce,
    RegionPool, Resize, ScatterMode, Softmax, Transpose,
};

/// A compiled model for one target.
#[derive(Clone, Copy, Debug)]
pub struct PlanTables<'a> {
    /// The model's name.
    pub name: &'a str,
    pub target: Target,
    pub symbols: &'a [Symbol<'a>],
    /// At least one; several give each range of shapes its own memory plan.
    pub profiles: &'a [Profile<'a>],
    /// The formula of each slot. A formula may read symbols and earlier slots.
    pub slots: &'a [Formula<'a>],
    /// What must hold of a shape beyond the profile's ranges.
    pub constraints: &'a [Constraint<'a>],
    pub inputs: &'a [Port<'a>],
    pub outputs: &'a [Port<'a>],
    /// The tensor that gets, before each run, how many runs the session has done (`u64`, rank 0); [`NONE`] where no step
    /// depends on it.
    pub run_count: u32,
    pub tensors: &'a [Tensor<'a>],
    /// Bytes of `weights.bin`.
    pub weight_bytes: u64,
    /// Bytes of the persistent memory that the init segment fills.
    pub derived_bytes: u64,
    /// Bytes of the session's counters: 32-bit words that are zero before each launch, and that each launch leaves zero.
    pub counter_bytes: u64,
    /// Segments of steps. [`PlanTables::INIT`] runs once at load, [`PlanTables::MAIN`] at every run; the others are
    /// branches and bodies that a step of another segment names.
    pub segments: &'a [Segment<'a>],
    /// The programs that `Launch` steps name; empty on the `cpu` target.
    pub kernels: &'a [Kernel<'a>],
    /// Compiled code: for each architecture one image a kernel, in the order of `kernels`.
    pub images: &'a [Images<'a>],
}

impl PlanTables<'_> {
    /// The segment that fills the derived weights.
    pub const INIT: usize = 0;
    /// The segment of a run.
    pub const MAIN: usize = 1;
}

/// What a plan runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    Cpu,
    Cuda,
}

/// A symbolic dimension, and where its value is read.
#[derive(Clone, Copy, Debug)]
pub struct Symbol<'a> {
    pub name: &'a str,
    pub source: Source<'a>,
}

/// Where the value of a symbol comes from. Symbols of inputs stand before counts, and a count before those that it bounds.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// The first input axis that is exactly this symbol.
    Extent { input: u32, axis: u32 },
    /// How many elements an operation of the run has found: an [`Action::Count`] reads it. Up to there the symbol has
    /// the value of `bound`, a formula over the symbols before this one: the most that there can be.
    Count { bound: &'a [FormulaOp] },
}

/// A range of shapes with its own memory plan.
#[derive(Clone, Copy, Debug)]
pub struct Profile<'a> {
    /// For each symbol its smallest, typical and largest value.
    pub ranges: &'a [Range],
    /// Bytes of activation memory; valid for every shape of the profile.
    pub arena_bytes: u64,
    /// The arena offset of each buffer, by number.
    pub offsets: &'a [u64],
}

/// The values that a symbol takes in a profile, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    pub min: i64,
    pub opt: i64,
    pub max: i64,
}

/// An extent: a constant, or a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dim {
    Const(i64),
    Slot(u32),
}

/// A formula in postfix order, and its reading form for documentation.
#[derive(Clone, Copy, Debug)]
pub struct Formula<'a> {
    pub code: &'a [FormulaOp],
    pub text: &'a str,
}

/// One step of a formula: pushes a value, or replaces the topmost two by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FormulaOp {
    Const(i64),
    Symbol(u32),
    Slot(u32),
    Add,
    Mul,
    /// Rounds toward negative infinity; a zero divisor gives 0.
    FloorDiv,
    Min,
    Max,
    /// `a b -> b if a == 1 else a`: the extent of two axes that broadcast.
    Broadcast,
}

/// An equation that a shape must satisfy.
#[derive(Clone, Copy, Debug)]
pub struct Constraint<'a> {
    /// The segment that relies on it: [`PlanTables::MAIN`]'s hold of every accepted shape, those of a branch are
    /// checked when it is taken.
    pub segment: u32,
    /// The counts in it, by symbol; it is checked when the last of them is known.
    pub counts: &'a [u32],
    pub kind: ConstraintKind,
    pub left: Dim,
    pub right: Dim,
    /// The ONNX node that asks for it.
    pub why: &'a str,
}

/// The relation of a [`Constraint`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ConstraintKind {
    Equal,
    /// Equal, or one of them 1.
    Broadcast,
}

/// An input or output of the model.
#[derive(Clone, Copy, Debug)]
pub struct Port<'a> {
    /// The ONNX name.
    pub name: &'a str,
    /// Its tensor; inputs and outputs live in the arena.
    pub tensor: u32,
}

/// A tensor: type, shape and place. Tensors are contiguous and row-major.
#[derive(Clone, Copy, Debug)]
pub struct Tensor<'a> {
    pub dtype: DType,
    pub dims: &'a [Dim],
    pub place: Place,
    /// The byte of its place at which it begins: 0, or for a tensor that is a part of another a multiple of the size of
    /// an element, on a GPU of 16 too.
    pub at: Dim,
}

/// Where a buffer lies. Offsets are bytes and multiples of 256.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// In `weights.bin`.
    Weight(u64),
    /// In the memory that the init segment fills.
    Derived(u64),
    /// In the session's arena, at `profile.offsets[buffer]`.
    Arena(u32),
}

/// A straight run of steps.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    pub steps: &'a [Step<'a>],
}

/// One step of a segment.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    pub action: Action<'a>,
    /// Operands, by tensor number; [`NONE`] where an optional one is absent.
    pub inputs: &'a [u32],
    /// Results, by tensor number; [`NONE`] where one is not wanted.
    pub outputs: &'a [u32],
    /// The ONNX nodes it came from.
    pub label: &'a str,
}

/// An absent operand or result.
pub const NONE: u32 = u32::MAX;

/// What a step does.
#[derive(Clone, Copy, Debug)]
pub enum Action<'a> {
    /// A function of the `cpu` target.
    Cpu(CpuOp<'a>),
    /// A kernel of the `cuda` target.
    Launch(Launch<'a>),
    /// Runs `then_segment` if the one element of input 0 (`bool`) is true, else `else_segment`. In a CUDA graph each of
    /// them is the body of a conditional node, and `decide` sets handles 0 and 1 of those nodes; empty where the host
    /// decides.
    If { then_segment: u32, else_segment: u32, decide: &'a [Launch<'a>] },
    /// Gives a symbol the one element of input 0 (`i64`). Steps before this one work on as many elements as there can
    /// be, where that does no harm.
    Count { symbol: u32 },
    /// Runs segment `body` again and again: at most `most` times, and at most as often as input 1 (one `i64`) says, and
    /// only while the one element of input 0 (`bool`) is true; either may be absent. The segment ends by writing that
    /// element and whatever else the next round reads. Behind round `k` each input from 2 on is copied to the output of
    /// its place, as part `k` of it. In a CUDA graph `begin` stands before the conditional node whose body is the segment,
    /// and `next` at the end of the body: they copy, count the rounds in the last output (one `i64`) and set handle 0.
    /// Both are empty where the host does that.
    Loop { body: u32, most: Dim, begin: &'a [Launch<'a>], next: &'a [Launch<'a>] },
}

/// A pointwise program: `inputs[k]` is the type of input `k`, each step computes one value, `outputs` names the
/// values that are stored, in the order of the step's results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Program<'a> {
    pub inputs: &'a [DType],
    pub steps: &'a [Instr],
    pub outputs: &'a [crate::op::Arg],
}

/// A function of the `cpu` target. Operands and results are those of the record it holds.
///
/// `epilogue` programs are applied to each element of the result before it is stored: input 0 is the result so far,
/// the others are the operands behind the function's own, broadcast to the result's shape.
#[derive(Clone, Copy, Debug)]
pub enum CpuOp<'a> {
    /// Results have the broadcast shape of the operands.
    Pointwise(Program<'a>),
    MatMul {
        spec: MatMul,
        epilogue: Option<Program<'a>>,
    },
    Conv {
        spec: Conv,
        epilogue: Option<Program<'a>>,
    },
    ConvTranspose(ConvTranspose),
    Pool(Pool),
    Reduce(Reduce),
    ArgReduce(ArgReduce),
    Softmax(Softmax),
    Attention(Attention),
    Norm {
        spec: Norm,
        epilogue: Option<Program<'a>>,
    },
    GroupNorm {
        spec: GroupNorm,
        epilogue: Option<Program<'a>>,
    },
    Transpose(Transpose),
    /// Broadcasts to the result's shape.
    Expand,
    /// `result[i] = x[starts[k] + i_k * steps[k]]`; the result's shape says how many.
    Slice {
        starts: &'a [Dim],
        steps: &'a [i64],
    },
    Concat {
        axis: u8,
    },
    /// `lo[k]` elements before axis `k` (negative: cropped); the result's shape says how many behind. Operands x and,
    /// with [`PadMode::Constant`], optionally the scalar value.
    Pad {
        mode: PadMode,
        lo: &'a [Dim],
    },
    /// Operands data, indices (`i32`, `i64`; negative counts from the end).
    Gather {
        axis: u8,
    },
    GatherElements {
        axis: u8,
    },
    GatherNd {
        batch_dims: u8,
    },
    /// Operands data, indices, updates.
    ScatterElements {
        axis: u8,
        mode: ScatterMode,
    },
    ScatterNd {
        mode: ScatterMode,
    },
    Resize(Resize),
    RegionPool(RegionPool),
    Recurrent(Recurrent),
    /// Operands boxes `f32[batches, n, 4]` (top, left, bottom, right), order `i64[batches, classes, n]` (box indices, best
    /// first), eligible `bool` of that shape, threshold `f32` and most `i64`, scalars. The `bool` result says which boxes
    /// stay, in that order: the eligible ones that share at most the threshold of what they cover together with one that
    /// stays before them; no more than most of each class.
    Suppress,
    /// Operand x; the axis is summed up to and including (or, exclusive, without) each element.
    CumSum {
        axis: u8,
        exclusive: bool,
        reverse: bool,
    },
    /// The k of the result's extent along `axis`; results values and `i64` indices, sorted.
    TopK {
        axis: u8,
        largest: bool,
    },
    /// `result[i] = start + i * delta`, operands start and delta, scalars of the result's type.
    Range,
    /// Writes these extents as a vector (or scalar) of the result's integer type.
    Extents(&'a [Dim]),
    /// Copies operand 0.
    Copy,
}

/// A kernel launch.
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    /// Index in [`PlanTables::kernels`].
    pub kernel: u32,
    /// Number of thread blocks; a launch with a zero is left out.
    pub grid: [Dim; 3],
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub shared: u32,
    pub params: &'a [Param],
}

/// A kernel parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Param {
    /// The address of operand `k` of the step plus `offset` bytes; null where the operand is absent.
    Input(u32, Dim),
    /// The address of result `k` of the step plus `offset` bytes; null where the result is absent.
    Output(u32, Dim),
    /// The address of the session's counters.
    Counters,
    I32(Dim),
    I64(Dim),
    F32(f32),
    /// The handle of a conditional node of the step, by number.
    Handle(u32),
}

/// A kernel: its entry point.
#[derive(Clone, Copy, Debug)]
pub struct Kernel<'a> {
    /// The `extern "C"` name, also the stem of its source file.
    pub entry: &'a str,
}

/// The compiled kernels for one architecture.
#[derive(Clone, Copy, Debug)]
pub struct Images<'a> {
    pub arch: Arch,
    /// One cubin (or PTX text) a kernel.
    pub code: &'a [&'a [u8]],
}

/// A GPU architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Arch {
    /// Compute capability times ten, such as 80 or 90.
    pub sm: u32,
    pub kind: ArchKind,
}

/// How far an image's code carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ArchKind {
    /// Machine code: this major version, this or a higher minor one.
    Cubin,
    /// Machine code that uses an architecture's own features (`sm_90a`): exactly this version.
    CubinExact,
    /// PTX: this or any higher version, compiled by the driver at load.
    Ptx,
}
