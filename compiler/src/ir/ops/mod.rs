//! The closed set of IR operations. Each group of operations has a file with its shape inference and its slow,
//! obvious evaluation; this one has the enum and the dispatch.
//!
//! Most payloads are the records of [`lapidary_runtime::op`], which also say what operands and results there are.
//! Composition does the rest: an activation, a bias, a comparison is a pointwise program; a fused operation is an
//! operation with an epilogue program, never a new variant.

mod extents;
mod infer;
mod known;
mod size;

pub use extents::{extents_of, symbols_of};
pub use infer::{Inference, check_bytes, infer};
pub use known::known;

use lapidary_runtime::DType;
use lapidary_runtime::op::{
    ArgReduce, Attention, Conv, ConvTranspose, GroupNorm, MatMul, Norm, PadMode, Pool, Recurrent, Reduce, RegionPool,
    Resize, ScatterMode, Softmax, Transpose,
};

use super::{Expr, Graph, Program};

/// An operation.
#[derive(Clone, Debug)]
pub enum Op {
    /// A scalar program on each element of the operands' broadcast shape.
    Pointwise(Program),
    /// Operands a, b, then the epilogue's (its input 0 is the product; the others broadcast to the result's shape).
    MatMul(MatMul, Option<Program>),
    /// Operands x, w, then the epilogue's, as for `MatMul`.
    Conv(Conv, Option<Program>),
    /// Operands x, w. The result's spatial extents.
    ConvTranspose(ConvTranspose, Vec<Expr>),
    /// Operand x. The result's spatial extents (ceil mode shows here). Results y, and optionally `i64` indices.
    Pool(Pool, Vec<Expr>),
    Reduce(Reduce),
    ArgReduce(ArgReduce),
    Softmax(Softmax),
    /// Operands q, k, v, mask?.
    Attention(Attention),
    /// Operands x, scale?, bias?. Results y, mean?, inverse deviation?.
    Norm(Norm, Option<Program>),
    /// Operands x, scale, bias.
    GroupNorm(GroupNorm, Option<Program>),
    /// The same elements in the same order under another shape.
    Reshape(Vec<Expr>),
    /// The same bits as elements of this type, which has as many and is not `bool`.
    BitCast(DType),
    Transpose(Transpose),
    /// Broadcasts to this shape.
    Expand(Vec<Expr>),
    /// `y[i] = x[starts[k] + i_k * steps[k]]`, of shape `dims`.
    Slice {
        starts: Vec<Expr>,
        steps: Vec<i64>,
        dims: Vec<Expr>,
    },
    Concat {
        axis: u8,
    },
    /// Elements added (negative: cropped) before and behind each axis. Operands x, and the value for `Constant`.
    Pad {
        mode: PadMode,
        lo: Vec<Expr>,
        hi: Vec<Expr>,
    },
    /// Operands data, indices. `axis` of data is replaced by the indices' shape.
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
    /// Operands x, roi?. The result's shape.
    Resize(Resize, Vec<Expr>),
    /// Operands x, regions, images.
    RegionPool(RegionPool),
    /// Operands and results of ONNX's LSTM, GRU, RNN in layout 0.
    Recurrent(Recurrent),
    /// Operands boxes `f32[batches, n, 4]` (top, left, bottom, right), order `i64[batches, classes, n]` (box indices, best
    /// first), eligible `bool` of that shape, threshold `f32` and most `i64`, scalars. The `bool` result says which boxes
    /// stay, in that order: the eligible ones that share at most the threshold of what they cover together with one that
    /// stays before them; no more than most of each class.
    Suppress,
    CumSum {
        axis: u8,
        exclusive: bool,
        reverse: bool,
    },
    /// Results values and `i64` indices; `k` elements along `axis`, sorted.
    TopK {
        axis: u8,
        largest: bool,
        k: Expr,
    },
    /// Operands start and delta, scalars of one type; `count` elements.
    Range {
        count: Expr,
    },
    /// A vector (or, with `rank` 0, a scalar) of these `i64` extents.
    Extents {
        values: Vec<Expr>,
        rank: u8,
    },
    /// How many runs the session has done before this one: a `u64` of rank 0. Random numbers are functions of it.
    RunCount,
    /// Operands the condition (one `bool`), then the captures, which are the inputs of both regions.
    If {
        then_region: Region,
        else_region: Region,
    },
    /// Rounds of a region, at most `most` (`i64::MAX`: any number). Operands: the most rounds (one `i64`) and whether
    /// to start (one `bool`), both optional; the `carried` first values; the captures. The region takes the number of
    /// the round (an `i64` scalar), the carried values and the captures; it gives whether to go on (one `bool`, where
    /// the operand is there), the next carried values, and rows. Results: the carried values behind the last round; the
    /// rows of all rounds along a new first axis of extent `most`, of which those behind the last round may be anything
    /// (the evaluator says 0); the number of rounds, an `i64` scalar.
    Loop {
        body: Region,
        carried: u32,
        most: Expr,
    },
}

/// A graph inside a node. Its inputs are the node's captures, in order (of a loop, behind what changes from round to
/// round); it shares the outer graph's symbols.
#[derive(Clone)]
pub struct Region(pub Box<Graph>);

impl std::fmt::Debug for Region {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Region({} nodes)", self.0.node_count())
    }
}

impl Op {
    /// The name in text forms and labels.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Pointwise(_) => "pointwise",
            Op::MatMul(..) => "matmul",
            Op::Conv(..) => "conv",
            Op::ConvTranspose(..) => "conv_transpose",
            Op::Pool(..) => "pool",
            Op::Reduce(_) => "reduce",
            Op::ArgReduce(_) => "arg_reduce",
            Op::Softmax(_) => "softmax",
            Op::Attention(_) => "attention",
            Op::Norm(..) => "norm",
            Op::GroupNorm(..) => "group_norm",
            Op::Reshape(_) => "reshape",
            Op::BitCast(_) => "bit_cast",
            Op::Transpose(_) => "transpose",
            Op::Expand(_) => "expand",
            Op::Slice { .. } => "slice",
            Op::Concat { .. } => "concat",
            Op::Pad { .. } => "pad",
            Op::Gather { .. } => "gather",
            Op::GatherElements { .. } => "gather_elements",
            Op::GatherNd { .. } => "gather_nd",
            Op::ScatterElements { .. } => "scatter_elements",
            Op::ScatterNd { .. } => "scatter_nd",
            Op::Resize(..) => "resize",
            Op::RegionPool(_) => "region_pool",
            Op::Recurrent(_) => "recurrent",
            Op::Suppress => "suppress",
            Op::CumSum { .. } => "cum_sum",
            Op::TopK { .. } => "top_k",
            Op::Range { .. } => "range",
            Op::Extents { .. } => "extents",
            Op::RunCount => "run_count",
            Op::If { .. } => "if",
            Op::Loop { .. } => "loop",
        }
    }

    /// The regions, and what each is called; none of most operations.
    pub fn regions(&self) -> Vec<(&'static str, &Region)> {
        match self {
            Op::If { then_region, else_region } => vec![("then", then_region), ("else", else_region)],
            Op::Loop { body, .. } => vec![("body", body)],
            _ => Vec::new(),
        }
    }

    /// The operation with each region replaced.
    pub fn map_regions(&self, mut f: impl FnMut(&Graph) -> Graph) -> Op {
        let mut region = |region: &Region| Region(Box::new(f(&region.0)));
        match self {
            Op::If { then_region, else_region } => {
                Op::If { then_region: region(then_region), else_region: region(else_region) }
            }
            Op::Loop { body, carried, most } => Op::Loop { body: region(body), carried: *carried, most: most.clone() },
            op => op.clone(),
        }
    }

    /// The epilogue program, where the operation has one.
    pub fn epilogue(&self) -> Option<&Program> {
        match self {
            Op::MatMul(_, epilogue) | Op::Conv(_, epilogue) | Op::Norm(_, epilogue) | Op::GroupNorm(_, epilogue) => {
                epilogue.as_ref()
            }
            _ => None,
        }
    }
}
