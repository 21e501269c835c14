//! What an operation is, apart from its operands: the attribute records that the compiler's IR, the plan tables and
//! the kernels of the `cpu` target share.
//!
//! All are plain data with fixed capacity, so that the tables of an emitted crate are constants. Spatial ranks go to 3
//! ([`MAX_SPATIAL`]), tensor ranks to 8 ([`MAX_RANK`]). Shapes live with the operands, not here.

use crate::dtype::DType;

/// The largest rank of a tensor.
pub const MAX_RANK: usize = 8;
/// The largest number of spatial axes of a convolution or pooling window.
pub const MAX_SPATIAL: usize = 3;

/// A scalar constant: a value and its type.
///
/// Floats are held as the bits of an `f64` (each float type embeds in it), integers and `bool` as an `i64`
/// (`u64` by its bit pattern).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scalar {
    pub dtype: DType,
    bits: u64,
}

impl Scalar {
    /// A float constant of type `dtype`. The caller has rounded `value` to `dtype`.
    pub const fn float(dtype: DType, value: f64) -> Scalar {
        Scalar { dtype, bits: value.to_bits() }
    }

    /// An integer or `bool` constant of type `dtype`.
    pub const fn int(dtype: DType, value: i64) -> Scalar {
        Scalar { dtype, bits: value as u64 }
    }

    /// The value as a double; integers are converted.
    pub const fn as_f64(self) -> f64 {
        if self.dtype.is_float() {
            f64::from_bits(self.bits)
        } else if matches!(self.dtype, DType::U64) {
            self.bits as f64
        } else {
            self.bits as i64 as f64
        }
    }

    /// The value as an integer; floats are truncated.
    pub const fn as_i64(self) -> i64 {
        if self.dtype.is_float() { f64::from_bits(self.bits) as i64 } else { self.bits as i64 }
    }
}

impl core::fmt::Debug for Scalar {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        if self.dtype.is_float() {
            write!(f, "{:?}{}", self.as_f64(), self.dtype)
        } else {
            write!(f, "{}{}", self.as_i64(), self.dtype)
        }
    }
}

/// One step of a pointwise program. The comment gives the operand and result types: `T` is the type of the first
/// operand unless said otherwise.
///
/// Floats narrower than 32 bits are computed in `f32` and rounded to the step's type where the program says
/// [`ScalarOp::Cast`] or stores an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ScalarOp {
    // T -> T
    Identity,
    Neg,
    Abs,
    /// -1, 0, 1; NaN stays NaN.
    Sign,
    Floor,
    Ceil,
    /// Half to even.
    Round,
    Sqrt,
    Rsqrt,
    Reciprocal,
    Exp,
    Log,
    Sin,
    Cos,
    Tan,
    Asin,
    Acos,
    Atan,
    Sinh,
    Cosh,
    Tanh,
    Asinh,
    Acosh,
    Atanh,
    Erf,
    /// 1 / (1 + exp(-x))
    Sigmoid,
    /// ln(1 + exp(x)), without overflow.
    Softplus,
    // Bool -> Bool
    Not,
    // integer T -> T
    BitNot,
    // float T -> Bool
    IsNan,
    IsPosInf,
    IsNegInf,
    // any -> the step's type. Float to integer truncates toward zero and saturates, NaN gives 0; integer to integer
    // wraps; to bool is `!= 0`.
    Cast,
    // T, T -> T
    Add,
    Sub,
    Mul,
    /// Integers truncate toward zero; a zero divisor gives 0 (the one undefined case in ONNX).
    Div,
    /// Remainder with the sign of the divisor (Python's `%`).
    Mod,
    /// Remainder with the sign of the dividend (C's `fmod`).
    Fmod,
    /// T, U -> T: the exponent may have another type.
    Pow,
    /// NaN if either operand is NaN.
    Min,
    /// NaN if either operand is NaN.
    Max,
    BitAnd,
    BitOr,
    BitXor,
    /// A distance that is negative or not below the width moves every bit out: the result is 0. ONNX leaves this open;
    /// it is what numpy does.
    ShiftLeft,
    /// Logical for unsigned types, arithmetic for signed ones. A distance that is negative or not below the width moves
    /// every bit out: the result is 0, or -1 where a signed operand is negative.
    ShiftRight,
    // Bool, Bool -> Bool
    And,
    Or,
    Xor,
    // T, T -> Bool
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    // Bool, T, T -> T
    Select,
}

impl ScalarOp {
    /// How many operands the step reads.
    pub const fn arity(self) -> usize {
        use ScalarOp::*;
        match self {
            Identity | Neg | Abs | Sign | Floor | Ceil | Round | Sqrt | Rsqrt | Reciprocal | Exp | Log | Sin | Cos
            | Tan | Asin | Acos | Atan | Sinh | Cosh | Tanh | Asinh | Acosh | Atanh | Erf | Sigmoid | Softplus
            | Not | BitNot | IsNan | IsPosInf | IsNegInf | Cast => 1,
            Add | Sub | Mul | Div | Mod | Fmod | Pow | Min | Max | BitAnd | BitOr | BitXor | ShiftLeft | ShiftRight
            | And | Or | Xor | Equal | NotEqual | Less | LessEqual | Greater | GreaterEqual => 2,
            Select => 3,
        }
    }

    /// Whether the result is `bool` whatever the operands are.
    pub const fn is_predicate(self) -> bool {
        use ScalarOp::*;
        matches!(
            self,
            Not | IsNan
                | IsPosInf
                | IsNegInf
                | And
                | Or
                | Xor
                | Equal
                | NotEqual
                | Less
                | LessEqual
                | Greater
                | GreaterEqual
        )
    }
}

/// An operand of a pointwise step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Arg {
    /// The program's input with this number.
    Input(u16),
    /// The result of an earlier step.
    Step(u16),
    /// A constant.
    Imm(Scalar),
}

/// One step of a pointwise program: `result = op(args)`, of type `dtype`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Instr {
    pub op: ScalarOp,
    /// The type of the result.
    pub dtype: DType,
    /// `op.arity()` operands; the rest repeat the first.
    pub args: [Arg; 3],
}

impl Instr {
    /// A step with one operand.
    pub const fn unary(op: ScalarOp, dtype: DType, a: Arg) -> Instr {
        Instr { op, dtype, args: [a, a, a] }
    }

    /// A step with two operands.
    pub const fn binary(op: ScalarOp, dtype: DType, a: Arg, b: Arg) -> Instr {
        Instr { op, dtype, args: [a, b, a] }
    }

    /// A step with three operands.
    pub const fn ternary(op: ScalarOp, dtype: DType, a: Arg, b: Arg, c: Arg) -> Instr {
        Instr { op, dtype, args: [a, b, c] }
    }

    /// The operands that the step reads.
    pub fn operands(&self) -> &[Arg] {
        &self.args[..self.op.arity()]
    }
}

/// The window of a convolution or a pooling: `rank` spatial axes, outermost first; the rest of each array is unused
/// and holds 1 (sizes, strides, dilations) or 0 (pads).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Window {
    pub rank: u8,
    pub size: [u32; MAX_SPATIAL],
    pub stride: [u32; MAX_SPATIAL],
    pub dilation: [u32; MAX_SPATIAL],
    /// Elements added before the first one of each axis.
    pub pad_lo: [u32; MAX_SPATIAL],
    /// Elements added behind the last one of each axis.
    pub pad_hi: [u32; MAX_SPATIAL],
}

impl Window {
    /// The distance between the first and the last element that the window reads along `axis`, plus one.
    pub const fn extent(&self, axis: usize) -> u32 {
        (self.size[axis] - 1) * self.dilation[axis] + 1
    }
}

/// Convolution (ONNX `Conv`): operands x `[n, c, spatial..]` and w `[m, c / groups, window..]`, result
/// `[n, m, spatial..]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Conv {
    pub window: Window,
    pub groups: u32,
    pub math: Math,
}

/// Transposed convolution (ONNX `ConvTranspose`): operands x `[n, c, spatial..]` and w `[c, m / groups, window..]`.
/// The pads crop the full result; output padding shows in the result's shape alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConvTranspose {
    pub window: Window,
    pub groups: u32,
}

/// Batched matrix product of a `[batch.., m, k]` and b `[batch.., k, n]`; batch axes broadcast. A transposed operand
/// has its last two axes swapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MatMul {
    pub transpose_a: bool,
    pub transpose_b: bool,
    pub math: Math,
}

/// How float products are formed. Sums are `f32` (`f64` for `f64`, `i32` for 8-bit integers) in every case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Math {
    /// In the operands' own type.
    #[default]
    Exact,
    /// `f32` operands rounded to TF32 (10 bits of mantissa).
    Tf32,
}

/// What a pooling window computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PoolKind {
    Max,
    /// The mean over the elements inside the tensor.
    Average,
    /// The mean over the whole window; padding counts as zeros (not the part beyond `pad_hi` that ceil mode adds).
    AverageCountPad,
    /// (sum |x|^p)^(1/p)
    Lp(u32),
}

/// Pooling over `[n, c, spatial..]` (ONNX `MaxPool`, `AveragePool`, `LpPool`). Ceil mode shows in the result's shape.
/// A second result, where one is asked for, holds the `i64` flat indices of the maxima.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pool {
    pub kind: PoolKind,
    pub window: Window,
    /// Order of the flattened indices: row-major (0) or column-major (1) over the spatial axes.
    pub index_order: u8,
}

/// What a reduction computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ReduceKind {
    Sum,
    Mean,
    Max,
    Min,
    Prod,
    /// sum |x|
    L1,
    /// sqrt(sum x^2)
    L2,
    SumSquare,
    /// log(sum x)
    LogSum,
    /// log(sum exp x), shifted by the maximum.
    LogSumExp,
}

/// Reduction over a set of axes, which stay in the result with extent 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reduce {
    pub kind: ReduceKind,
    pub axes: Axes,
}

/// A set of axes, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Axes(pub u8);

impl Axes {
    /// The set of the given axes.
    pub fn of(axes: impl IntoIterator<Item = usize>) -> Axes {
        Axes(axes.into_iter().fold(0, |bits, axis| bits | (1 << axis)))
    }

    /// Whether `axis` is in the set.
    pub const fn contains(self, axis: usize) -> bool {
        axis < MAX_RANK && self.0 & (1 << axis) != 0
    }

    /// The axes in ascending order.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..MAX_RANK).filter(move |&axis| self.contains(axis))
    }
}

/// Position of the largest or smallest element along `axis`, which stays with extent 1; the result is `i64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ArgReduce {
    pub largest: bool,
    pub axis: u8,
    /// Of equal elements, take the last.
    pub select_last: bool,
}

/// Softmax along one axis, or its logarithm. The statistics are `f32` (`f64` for `f64`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Softmax {
    pub axis: u8,
    pub log: bool,
}

/// Scaled dot-product attention of each batch and head: `softmax(scale q k^T + mask) v`, softmax along the keys. Operands q
/// `[b, h, n, d]`, k `[b, g, m, d]`, v `[b, g, m, e]`, and where present a mask that is added and broadcasts to
/// `[b, h, n, m]`; result `[b, h, n, e]`. `g` divides `h`: neighbouring `h / g` heads of queries share a head of keys and
/// values. All of one float type; scores, statistics and sums are `f32` (`f64` for `f64`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Attention {
    /// An `f32`.
    pub scale: Scalar,
    /// Query `i` sees the keys up to `i` alone.
    pub causal: bool,
    pub unseen: Unseen,
    pub math: Math,
}

/// What attention gives a query whose weights are NaN: it sees no key, as all its scores are negative infinity, or one of
/// them is NaN or infinite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Unseen {
    Nan,
    Zero,
}

/// Which statistics a normalization takes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NormKind {
    /// (x - mean) / sqrt(var + eps)
    Layer,
    /// x / sqrt(mean(x^2) + eps)
    Rms,
}

/// Normalization of each row: the axes from `axis` to the last. Operands x, and where present scale and bias, which
/// broadcast against x. Optional further results: mean and inverse deviation, with the row axes at extent 1, `f32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Norm {
    pub kind: NormKind,
    pub axis: u8,
    pub epsilon: Scalar,
}

/// Normalization over groups of channels of `[n, c, spatial..]`; operands x, scale `[c]`, bias `[c]`.
/// `groups == c` is instance normalization.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupNorm {
    pub groups: u32,
    pub epsilon: Scalar,
}

/// `result[.., i_perm[k], ..] = x[.., i_k, ..]`: result axis `k` is operand axis `perm[k]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Transpose {
    pub rank: u8,
    pub perm: [u8; MAX_RANK],
}

/// How a padding fills. Amounts may be negative, which crops; the other end still mirrors or repeats the whole axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PadMode {
    /// With the operand `value`, or zero without one.
    Constant,
    Edge,
    /// Mirrored, the border element not repeated.
    Reflect,
    Wrap,
}

/// What a scatter does where it writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ScatterMode {
    Set,
    Add,
    Mul,
    Max,
    Min,
}

/// Interpolation of a resize.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ResizeMode {
    Nearest(NearestMode),
    Linear,
    Cubic,
}

/// Rounding of a nearest-neighbour resize.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NearestMode {
    RoundPreferFloor,
    RoundPreferCeil,
    Floor,
    Ceil,
}

/// How a result coordinate maps to an operand coordinate (ONNX `coordinate_transformation_mode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CoordinateMode {
    HalfPixel,
    HalfPixelSymmetric,
    PytorchHalfPixel,
    AlignCorners,
    Asymmetric,
    TfCropAndResize,
}

/// Resize (ONNX `Resize`): operand x, and where the mode needs it `roi` `[2 * rank]` as `f32`.
///
/// `scales[axis]` is the scale the model states, or 0 where the model states sizes: then the scale is
/// result extent / operand extent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Resize {
    pub mode: ResizeMode,
    pub coordinates: CoordinateMode,
    pub antialias: bool,
    pub exclude_outside: bool,
    pub cubic_coeff_a: f32,
    pub extrapolation_value: f32,
    pub scales: [f32; MAX_RANK],
}

/// How a bin of a region becomes one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RegionKind {
    /// The mean of samples between elements, each the weighted sum of the four around it.
    Mean,
    /// The largest of the four weighted elements around any sample.
    Max,
    /// The largest element of a bin whose edges are whole elements; 0 where it has none.
    Elements,
}

/// The most samples of a bin along an axis where the region says how many: a bound for regions that are no regions.
pub const MAX_SAMPLES: u32 = 1 << 20;

/// Pooling of regions of images into bins (ONNX `RoiAlign`, `MaxRoiPool`): operands x `[n, c, h, w]`, regions
/// `[count, 4]` (left, top, right, bottom) and the `i64` image of each, `[count]`; result `[count, c, bins..]`.
///
/// Coordinates are `scale` times those of the region. They are formed in the regions' type, `f32` or `f64`, in steps
/// that are each rounded, so that every target takes the same samples. One is outside of the image beyond -1 and the
/// extent, or where it is NaN, and counts as 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RegionPool {
    pub kind: RegionKind,
    /// Bins along y and x.
    pub bins: [u32; 2],
    /// Samples of a bin along each axis. With 0 they are as many as the bin has elements, rounded up. Also 0 without
    /// samples.
    pub samples: u32,
    /// Samples' coordinates count from the edge of the first element, and a region may have any size. Otherwise they
    /// count from its middle, and a region has at least the size of an element.
    pub half_pixel: bool,
    pub scale: f32,
}

/// The cell of a recurrent layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cell {
    Lstm,
    /// `linear_before_reset`: the recurrent product is formed before the reset gate is applied.
    Gru {
        linear_before_reset: bool,
    },
    Rnn,
}

/// The direction of a recurrent layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    Forward,
    Reverse,
    Bidirectional,
}

/// An activation of a recurrent layer, with its `alpha` and `beta`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ActivationKind {
    Sigmoid,
    Tanh,
    Relu,
    Affine,
    LeakyRelu,
    ThresholdedRelu,
    ScaledTanh,
    HardSigmoid,
    Elu,
    Softsign,
    Softplus,
}

/// An activation and its parameters (0 where the kind takes none).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Activation {
    pub kind: ActivationKind,
    pub alpha: f32,
    pub beta: f32,
}

/// A recurrent layer (ONNX `LSTM`, `GRU`, `RNN`) in layout 0. Operands as in ONNX, absent ones allowed: x
/// `[seq, batch, in]`, w `[dirs, gates * hidden, in]`, r `[dirs, gates * hidden, hidden]`, b
/// `[dirs, 2 * gates * hidden]`, sequence_lens `[batch]` (i32), initial_h and initial_c `[dirs, batch, hidden]`,
/// p `[dirs, 3 * hidden]`. Results: y `[seq, dirs, batch, hidden]`, y_h, and for LSTM y_c, `[dirs, batch, hidden]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recurrent {
    pub cell: Cell,
    pub direction: Direction,
    pub hidden: u32,
    /// Clips the input of each activation to [-clip, clip]; infinity does nothing.
    pub clip: f32,
    /// Up to three activations a direction (f, g, h); the second direction's follow.
    pub activations: [Activation; 6],
    /// Couples the input and forget gates: f = 1 - i.
    pub input_forget: bool,
}
