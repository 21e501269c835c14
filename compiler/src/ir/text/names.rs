//! The words for variants without data: one table each, read in both directions.

use lapidary_runtime::op::{
    ActivationKind, CoordinateMode, Direction, Math, NearestMode, NormKind, PadMode, ReduceKind, RegionKind, ScalarOp,
    ScatterMode, Unseen,
};

use super::Printer;
use super::reader::Reader;
use super::value::Text;

macro_rules! names {
    ($type:ident, $what:literal { $($variant:ident $name:literal),* $(,)? }) => {
        impl Text for $type {
            fn print(&self, out: &mut Printer) {
                out.text += match self {
                    $($type::$variant => $name,)*
                };
            }

            fn read(reader: &mut Reader<'_>) -> Result<$type, String> {
                reader.one_of($what, |word| match word {
                    $($name => Some($type::$variant),)*
                    _ => None,
                })
            }
        }
    };
}

names!(ScalarOp, "a scalar operation" {
    Identity "identity", Neg "neg", Abs "abs", Sign "sign", Floor "floor", Ceil "ceil", Round "round", Sqrt "sqrt",
    Rsqrt "rsqrt", Reciprocal "reciprocal", Exp "exp", Log "log", Sin "sin", Cos "cos", Tan "tan", Asin "asin",
    Acos "acos", Atan "atan", Sinh "sinh", Cosh "cosh", Tanh "tanh", Asinh "asinh", Acosh "acosh", Atanh "atanh",
    Erf "erf", Sigmoid "sigmoid", Softplus "softplus", Not "not", BitNot "bit_not", IsNan "is_nan",
    IsPosInf "is_pos_inf", IsNegInf "is_neg_inf", Cast "cast", Add "add", Sub "sub", Mul "mul", Div "div", Mod "mod",
    Fmod "fmod", Pow "pow", Min "min", Max "max", BitAnd "bit_and", BitOr "bit_or", BitXor "bit_xor",
    ShiftLeft "shift_left", ShiftRight "shift_right", And "and", Or "or", Xor "xor", Equal "equal",
    NotEqual "not_equal", Less "less", LessEqual "less_equal", Greater "greater", GreaterEqual "greater_equal",
    Select "select",
});

names!(Math, "how products are formed" { Exact "exact", Tf32 "tf32" });

names!(ReduceKind, "a kind of reduction" {
    Sum "sum", Mean "mean", Max "max", Min "min", Prod "prod", L1 "l1", L2 "l2", SumSquare "sum_square",
    LogSum "log_sum", LogSumExp "log_sum_exp",
});

names!(Unseen, "what an unseeing query gives" { Nan "nan", Zero "zero" });

names!(RegionKind, "what a region's bin is" { Mean "mean", Max "max", Elements "elements" });

names!(NormKind, "a kind of normalization" { Layer "layer", Rms "rms" });

names!(PadMode, "a mode of padding" { Constant "constant", Edge "edge", Reflect "reflect", Wrap "wrap" });

names!(ScatterMode, "a mode of scattering" { Set "set", Add "add", Mul "mul", Max "max", Min "min" });

names!(NearestMode, "a rounding" {
    RoundPreferFloor "round_prefer_floor", RoundPreferCeil "round_prefer_ceil", Floor "floor", Ceil "ceil",
});

names!(CoordinateMode, "a mapping of coordinates" {
    HalfPixel "half_pixel", HalfPixelSymmetric "half_pixel_symmetric", PytorchHalfPixel "pytorch_half_pixel",
    AlignCorners "align_corners", Asymmetric "asymmetric", TfCropAndResize "tf_crop_and_resize",
});

names!(Direction, "a direction" { Forward "forward", Reverse "reverse", Bidirectional "bidirectional" });

names!(ActivationKind, "an activation" {
    Sigmoid "sigmoid", Tanh "tanh", Relu "relu", Affine "affine", LeakyRelu "leaky_relu",
    ThresholdedRelu "thresholded_relu", ScaledTanh "scaled_tanh", HardSigmoid "hard_sigmoid", Elu "elu",
    Softsign "softsign", Softplus "softplus",
});
