//! What may be asked of a kernel family: an operation and its operands' types and shapes. No graph, no names.

use lapidary_runtime::DType;
use lapidary_runtime::op::{
    ArgReduce, Attention, Conv, ConvTranspose, GroupNorm, MatMul, Norm, PadMode, Pool, Recurrent, Reduce, RegionPool,
    Resize, ScatterMode, Softmax, Transpose,
};

use crate::extent::Expr;
use crate::program::Program;
use crate::view;

/// An operation on operands of known type and shape.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    pub kind: Kind,
    /// The operands; `None` where an optional one is absent.
    pub inputs: Vec<Option<Operand>>,
    /// The results; `None` where one is not wanted.
    pub outputs: Vec<Option<Operand>>,
}

impl Problem {
    /// Operand `k`, which must be there.
    ///
    /// # Errors
    /// In words, that it is not.
    pub fn input(&self, k: usize) -> Result<&Operand, String> {
        self.inputs.get(k).and_then(Option::as_ref).ok_or_else(|| format!("operand {k} is missing"))
    }

    /// Result `k`, which must be wanted.
    ///
    /// # Errors
    /// In words, that it is not.
    pub fn output(&self, k: usize) -> Result<&Operand, String> {
        self.outputs.get(k).and_then(Option::as_ref).ok_or_else(|| format!("result {k} is missing"))
    }

    /// Operand `k`, where there is one.
    pub fn optional_input(&self, k: usize) -> Option<&Operand> {
        self.inputs.get(k).and_then(Option::as_ref)
    }

    /// Result `k`, where it is wanted.
    pub fn optional_output(&self, k: usize) -> Option<&Operand> {
        self.outputs.get(k).and_then(Option::as_ref)
    }
}

/// A contiguous row-major tensor.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Operand {
    pub dtype: DType,
    pub dims: Vec<Expr>,
}

impl Operand {
    /// The number of elements.
    pub fn count(&self) -> Expr {
        self.dims.iter().cloned().fold(Expr::constant(1), |count, dim| count * dim)
    }

    /// The extents as constants; `None` if one is not.
    pub fn const_dims(&self) -> Option<Vec<i64>> {
        self.dims.iter().map(Expr::as_const).collect()
    }
}

/// Where the elements of a tensor lie in a larger one: element `i` at `offset` plus the sum of `i[k] * strides[k]`, all in
/// elements.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Strided {
    pub offset: Expr,
    pub strides: Vec<Expr>,
}

impl Strided {
    /// A whole tensor of this shape.
    pub fn contiguous(dims: &[Expr]) -> Strided {
        Strided { offset: Expr::constant(0), strides: view::contiguous(dims) }
    }
}

/// The operation. Operands, results and semantics are those of the record it holds (`lapidary_runtime::op`) and of
/// the variant of the same name of `lapidary_runtime::table::CpuOp`.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    Pointwise(Program),
    /// The epilogue's input 0 is the product; the operands behind a and b are its further inputs.
    MatMul(MatMul, Option<Program>),
    /// The epilogue's input 0 is the sum of products; the operands behind x and w are its further inputs.
    Conv(Conv, Option<Program>),
    ConvTranspose(ConvTranspose),
    Pool(Pool),
    Reduce(Reduce),
    ArgReduce(ArgReduce),
    Softmax(Softmax),
    /// Where q, k, v and the result lie, whose shapes are those of the operands; the mask is contiguous.
    Attention(Attention, Box<[Strided; 4]>),
    /// The epilogue's one input is the normalized, scaled value, as for the next.
    Norm(Norm, Option<Program>),
    GroupNorm(GroupNorm, Option<Program>),
    Transpose(Transpose),
    Expand,
    Slice {
        starts: Vec<Expr>,
        steps: Vec<i64>,
    },
    Concat {
        axis: u8,
    },
    Pad {
        mode: PadMode,
        lo: Vec<Expr>,
    },
    Gather {
        axis: u8,
    },
    GatherElements {
        axis: u8,
    },
    GatherNd {
        batch_dims: u8,
    },
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
    Suppress,
    CumSum {
        axis: u8,
        exclusive: bool,
        reverse: bool,
    },
    TopK {
        axis: u8,
        largest: bool,
    },
    Range,
    Extents(Vec<Expr>),
    Copy,
    Pair(Box<Pair>),
}

/// Two operations, of which the second alone reads what the first gives: that is not stored. Operands are the first's, then
/// the second's without operand `at`, which is the first's one result.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    pub first: Problem,
    pub second: Problem,
    pub at: usize,
}

impl Pair {
    /// The pair as a problem.
    pub fn problem(self) -> Problem {
        let kept = self.second.inputs.iter().enumerate().filter(|(k, _)| *k != self.at).map(|(_, operand)| operand);
        let inputs = self.first.inputs.iter().chain(kept).cloned().collect();
        let outputs = self.second.outputs.clone();
        Problem { kind: Kind::Pair(Box::new(self)), inputs, outputs }
    }
}
