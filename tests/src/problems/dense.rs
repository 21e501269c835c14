//! Problems of the dense families: matrix products and convolutions.

use lapidary_runtime::DType::{self, BF16, F16, F32, F64, I8, I32, U8};
use lapidary_runtime::op::{Arg, Conv, ConvTranspose, Instr, MatMul, Math, Scalar, ScalarOp, Window};
use lapidary_templates::{Kind, Operand, Problem, Program};

use super::operand;

/// What an epilogue is tried with.
#[derive(Clone, Copy)]
pub enum Tail {
    None,
    /// `max(acc + bias[ch] + x[o], 0)`
    BiasAddRelu,
    /// `gelu(acc + bias[ch])`
    BiasGelu,
    /// To `f32`, times a scalar.
    Scale,
    /// `u8(round((acc - offset[ch]) * scale[ch]) + 128)` of sums in `i32`
    Quantize,
}

/// An epilogue on a product of type `dtype`, its operands, and the result.
fn tail(tail: Tail, dtype: DType, out: &str, channels: &str) -> (Option<Program>, Vec<Operand>, Operand) {
    let step = |op, a, b| Instr::binary(op, dtype, a, b);
    let imm = |value: f64| {
        Arg::Imm(if dtype.is_float() { Scalar::float(dtype, value) } else { Scalar::int(dtype, value as i64) })
    };
    let bias = step(ScalarOp::Add, Arg::Input(0), Arg::Input(1));
    let (steps, extras, result) = match tail {
        Tail::None => return (None, Vec::new(), operand(dtype, out)),
        Tail::BiasAddRelu => (
            vec![bias, step(ScalarOp::Add, Arg::Step(0), Arg::Input(2)), step(ScalarOp::Max, Arg::Step(1), imm(0.0))],
            vec![operand(dtype, channels), operand(dtype, out)],
            dtype,
        ),
        Tail::BiasGelu => (
            vec![
                bias,
                step(ScalarOp::Mul, Arg::Step(0), imm(0.5)),
                step(ScalarOp::Mul, Arg::Step(0), imm(std::f64::consts::FRAC_1_SQRT_2)),
                Instr::unary(ScalarOp::Erf, dtype, Arg::Step(2)),
                step(ScalarOp::Add, Arg::Step(3), imm(1.0)),
                step(ScalarOp::Mul, Arg::Step(1), Arg::Step(4)),
            ],
            vec![operand(dtype, channels)],
            dtype,
        ),
        Tail::Scale => (
            vec![
                Instr::unary(ScalarOp::Cast, F32, Arg::Input(0)),
                Instr::binary(ScalarOp::Mul, F32, Arg::Step(0), Arg::Input(1)),
            ],
            vec![operand(F32, "1")],
            F32,
        ),
        Tail::Quantize => (
            vec![
                step(ScalarOp::Sub, Arg::Input(0), Arg::Input(1)),
                Instr::unary(ScalarOp::Cast, F32, Arg::Step(0)),
                Instr::binary(ScalarOp::Mul, F32, Arg::Step(1), Arg::Input(2)),
                Instr::unary(ScalarOp::Round, F32, Arg::Step(2)),
                Instr::binary(ScalarOp::Add, F32, Arg::Step(3), Arg::Imm(Scalar::float(F32, 128.0))),
                Instr::unary(ScalarOp::Cast, U8, Arg::Step(4)),
            ],
            vec![operand(I32, channels), operand(F32, channels)],
            U8,
        ),
    };
    let inputs = std::iter::once(dtype).chain(extras.iter().map(|operand| operand.dtype)).collect();
    let outputs = vec![Arg::Step(steps.len() as u16 - 1)];
    (Some(Program { inputs, steps, outputs }), extras, operand(result, out))
}

/// A matrix product: the factors' types, the extents of a, b and the result, which factors are transposed.
fn matmul(types: [DType; 2], dims: [&str; 3], transposed: &str, math: Math, end: Tail) -> Problem {
    let [a, b, out] = dims;
    let spec = MatMul { transpose_a: transposed.contains('a'), transpose_b: transposed.contains('b'), math };
    let dtype = if types[0].bits() == 8 { I32 } else { types[0] };
    let channels = out.split_whitespace().last().expect("a rank above 0");
    let (program, extras, result) = tail(end, dtype, out, channels);
    let inputs = [operand(types[0], a), operand(types[1], b)].into_iter().chain(extras).map(Some).collect();
    Problem { kind: Kind::MatMul(spec, program), inputs, outputs: vec![Some(result)] }
}

/// Matrix products of every kind of kernel, layout, type and epilogue.
pub fn matmuls() -> Vec<(&'static str, Problem)> {
    let exact = |types, dims, transposed, end| matmul(types, dims, transposed, Math::Exact, end);
    vec![
        ("square", exact([F16; 2], ["1024 1024", "1024 1024", "1024 1024"], "", Tail::None)),
        ("bert", exact([F16; 2], ["1 128 768", "768 3072", "1 128 3072"], "", Tail::BiasGelu)),
        ("residual", exact([BF16; 2], ["b s 3072", "768 3072", "b s 768"], "b", Tail::BiasAddRelu)),
        ("scores", exact([F16; 2], ["b 12 s 64", "b 12 s 64", "b 12 s s"], "b", Tail::Scale)),
        ("odd", exact([F16; 2], ["37 111", "111 53", "37 53"], "", Tail::BiasAddRelu)),
        ("odd_transposed", exact([BF16; 2], ["3 111 37", "53 111", "3 37 53"], "ab", Tail::BiasAddRelu)),
        ("shared_a", exact([F16; 2], ["1 64 s", "b s 64", "b 64 64"], "", Tail::None)),
        ("row", exact([F16; 2], ["1 768", "768 1000", "1 1000"], "", Tail::BiasAddRelu)),
        ("rows", exact([F16; 2], ["t 4096", "4096 4096", "t 4096"], "b", Tail::BiasGelu)),
        ("column", exact([F32; 2], ["b 128 77", "77 1", "b 128 1"], "", Tail::BiasAddRelu)),
        ("f32", exact([F32; 2], ["b 512", "512 768", "b 768"], "", Tail::BiasGelu)),
        ("f32_transposed", exact([F32; 2], ["b 65 512", "b 512 65", "b 512 512"], "ab", Tail::None)),
        ("tf32", matmul([F32; 2], ["512 512", "512 768", "512 768"], "", Math::Tf32, Tail::BiasAddRelu)),
        ("tf32_ab", matmul([F32; 2], ["515 511", "767 515", "511 767"], "ab", Math::Tf32, Tail::BiasAddRelu)),
        ("f64", exact([F64; 2], ["b 64 63", "63 65", "b 64 65"], "", Tail::BiasAddRelu)),
        ("bytes", exact([U8, I8], ["b 256", "256 512", "b 512"], "", Tail::Scale)),
        ("bytes_transposed", exact([I8, I8], ["256 97", "101 256", "97 101"], "ab", Tail::BiasAddRelu)),
        ("bytes_layer", exact([U8, I8], ["b 400 384", "384 1536", "b 400 1536"], "", Tail::Quantize)),
        ("bytes_rows", exact([U8, I8], ["b 384", "256 384", "b 256"], "b", Tail::Quantize)),
        ("bytes_odd", exact([I8, U8], ["37 75", "75 53", "37 53"], "", Tail::BiasAddRelu)),
        ("bytes_odd_rows", exact([I8, I8], ["37 75", "54 75", "37 54"], "b", Tail::None)),
        ("bytes_heads", exact([U8, U8], ["b 6 s 64", "b 6 64 s", "b 6 s s"], "", Tail::None)),
        // Few outputs of long sums, which are split.
        ("deep", exact([F16; 2], ["s 1537", "1537 72", "s 72"], "", Tail::BiasAddRelu)),
        ("deep_dynamic", exact([BF16; 2], ["b 40 s", "24 s", "b 40 24"], "b", Tail::BiasGelu)),
        ("deep_rows", exact([F32; 2], ["t 2050", "2050 44", "t 44"], "", Tail::BiasAddRelu)),
        ("deep_f32", exact([F32; 2], ["3 33 1100", "1100 65", "3 33 65"], "", Tail::Scale)),
        ("deep_f64", exact([F64; 2], ["19 700", "700 35", "19 35"], "", Tail::BiasAddRelu)),
        ("deep_bytes", exact([I8, I8], ["b 1030", "70 1030", "b 70"], "b", Tail::Scale)),
        ("deep_tf32", matmul([F32; 2], ["37 1027", "1027 90", "37 90"], "", Math::Tf32, Tail::BiasAddRelu)),
        ("integers", exact([I32; 2], ["2 3 4 5", "3 5 6", "2 3 4 6"], "", Tail::None)),
        ("broadcast", exact([F16; 2], ["2 1 16 32", "1 3 32 16", "2 3 16 16"], "", Tail::BiasAddRelu)),
        ("maybe_one", exact([F32; 2], ["b 8 16", "c 16 8", "bcast(b,c) 8 8"], "", Tail::None)),
    ]
}

/// A window of `rank` axes, alike along all of them.
fn window(rank: u8, size: u32, stride: u32, dilation: u32, pad: u32) -> Window {
    let fill = |value: u32, rest: u32| std::array::from_fn(|axis| if axis < usize::from(rank) { value } else { rest });
    Window {
        rank,
        size: fill(size, 1),
        stride: fill(stride, 1),
        dilation: fill(dilation, 1),
        pad_lo: fill(pad, 0),
        pad_hi: fill(pad, 0),
    }
}

/// A convolution: the factors' types, the extents of x, w and the result.
fn conv(types: [DType; 2], dims: [&str; 3], window: Window, groups: u32, math: Math, end: Tail) -> Problem {
    let [x, w, out] = dims;
    let dtype = if types[0].bits() == 8 { I32 } else { types[0] };
    let filters = out.split_whitespace().nth(1).expect("an axis of filters");
    let channels = format!("{filters}{}", " 1".repeat(usize::from(window.rank)));
    let (program, extras, result) = tail(end, dtype, out, &channels);
    let inputs = [operand(types[0], x), operand(types[1], w)].into_iter().chain(extras).map(Some).collect();
    Problem { kind: Kind::Conv(Conv { window, groups, math }, program), inputs, outputs: vec![Some(result)] }
}

/// Convolutions of every kind of kernel, rank, type and epilogue.
pub fn convs() -> Vec<(&'static str, Problem)> {
    let exact = |dtype, dims, window, groups, end| conv([dtype; 2], dims, window, groups, Math::Exact, end);
    let tf32 = |dims, window, end| conv([F32; 2], dims, window, 1, Math::Tf32, end);
    vec![
        ("stem", exact(F16, ["b 3 224 224", "64 3 7 7", "b 64 112 112"], window(2, 7, 2, 1, 3), 1, Tail::BiasAddRelu)),
        (
            "resnet",
            exact(F16, ["1 256 14 14", "256 256 3 3", "1 256 14 14"], window(2, 3, 1, 1, 1), 1, Tail::BiasAddRelu),
        ),
        (
            "pointwise",
            exact(BF16, ["b 64 56 56", "256 64 1 1", "b 256 56 56"], window(2, 1, 1, 1, 0), 1, Tail::BiasAddRelu),
        ),
        (
            "odd_pointwise",
            exact(F16, ["1 100 7 7", "33 100 1 1", "1 33 7 7"], window(2, 1, 1, 1, 0), 1, Tail::BiasAddRelu),
        ),
        (
            "strided",
            exact(
                F16,
                ["b 256 h w", "512 256 1 1", "b 512 floor(h-1,2)+1 floor(w-1,2)+1"],
                window(2, 1, 2, 1, 0),
                1,
                Tail::None,
            ),
        ),
        ("speech", exact(F16, ["1 80 s", "384 80 3", "1 384 s"], window(1, 3, 1, 1, 1), 1, Tail::BiasGelu)),
        ("volume", exact(F16, ["1 8 9 9 9", "16 8 3 3 3", "1 16 9 9 9"], window(3, 3, 1, 1, 1), 1, Tail::None)),
        ("large", exact(F16, ["1 8 30 30", "16 8 9 9", "1 16 22 22"], window(2, 9, 1, 1, 0), 1, Tail::None)),
        ("groups", exact(BF16, ["1 64 14 14", "128 8 3 3", "1 128 14 14"], window(2, 3, 1, 1, 1), 8, Tail::BiasGelu)),
        (
            "f32_conv",
            exact(F32, ["1 24 28 28", "48 24 3 3", "1 48 28 28"], window(2, 3, 1, 1, 1), 1, Tail::BiasAddRelu),
        ),
        ("f32_pointwise", exact(F32, ["b 24 28 28", "48 24 1 1", "b 48 28 28"], window(2, 1, 1, 1, 0), 1, Tail::None)),
        ("f64_conv", exact(F64, ["1 4 9 9", "8 4 3 3", "1 8 9 9"], window(2, 3, 1, 1, 1), 1, Tail::BiasAddRelu)),
        ("tf32_gathered", tf32(["1 64 28 28", "64 64 3 3", "1 64 28 28"], window(2, 3, 1, 1, 1), Tail::BiasAddRelu)),
        ("tf32_pointwise", tf32(["1 64 28 28", "64 64 1 1", "1 64 28 28"], window(2, 1, 1, 1, 0), Tail::BiasGelu)),
        (
            "bytes_conv",
            conv([U8, I8], ["1 16 9 9", "8 16 3 3", "1 8 9 9"], window(2, 3, 1, 1, 1), 1, Math::Exact, Tail::Scale),
        ),
        (
            "bytes_speech",
            conv([U8, I8], ["b 80 s", "384 80 3", "b 384 s"], window(1, 3, 1, 1, 1), 1, Math::Exact, Tail::Quantize),
        ),
        (
            "bytes_pointwise",
            conv(
                [I8; 2],
                ["b 64 28 28", "96 64 1 1", "b 96 28 28"],
                window(2, 1, 1, 1, 0),
                1,
                Math::Exact,
                Tail::Quantize,
            ),
        ),
        (
            "bytes_strided",
            conv([U8; 2], ["1 3 31 33", "17 3 3 3", "1 17 16 17"], window(2, 3, 2, 1, 1), 1, Math::Exact, Tail::Scale),
        ),
        (
            "bytes_groups",
            conv([U8, I8], ["1 32 9 9", "64 8 3 3", "1 64 9 9"], window(2, 3, 1, 1, 1), 4, Math::Exact, Tail::Quantize),
        ),
        ("signed_bytes", exact(I8, ["1 16 9 9", "8 16 3 3", "1 8 9 9"], window(2, 3, 1, 1, 1), 1, Tail::Scale)),
        ("deep_conv", exact(F16, ["b 250 7 7", "70 250 3 3", "b 70 7 7"], window(2, 3, 1, 1, 1), 1, Tail::BiasAddRelu)),
        (
            "deep_groups",
            exact(F32, ["b 192 9 5", "24 96 3 3", "b 24 9 5"], window(2, 3, 1, 1, 1), 2, Tail::BiasAddRelu),
        ),
        ("pooled", exact(F16, ["b 960 1 1", "1280 960 1 1", "b 1280 1 1"], window(2, 1, 1, 1, 0), 1, Tail::BiasGelu)),
        ("whole", exact(F32, ["b 16 7 7", "10 16 7 7", "b 10 1 1"], window(2, 7, 1, 1, 0), 1, Tail::BiasAddRelu)),
        (
            "depthwise",
            exact(F16, ["1 96 112 112", "96 1 3 3", "1 96 112 112"], window(2, 3, 1, 1, 1), 96, Tail::BiasAddRelu),
        ),
        (
            "depthwise_strided",
            exact(F32, ["b 96 112 112", "96 1 5 5", "b 96 56 56"], window(2, 5, 2, 1, 2), 96, Tail::BiasGelu),
        ),
        (
            "depthwise_odd",
            exact(BF16, ["b 96 7 7", "192 1 7 7", "b 192 7 7"], window(2, 7, 1, 1, 3), 96, Tail::BiasAddRelu),
        ),
        ("depthwise_rows", exact(F16, ["1 64 s", "64 1 31", "1 64 s"], window(1, 31, 1, 1, 15), 64, Tail::None)),
        ("depthwise_bytes", exact(U8, ["1 8 9 9", "8 1 3 3", "1 8 9 9"], window(2, 3, 1, 1, 1), 8, Tail::Scale)),
    ]
}

/// Transposed convolutions.
pub fn transposed() -> Vec<(&'static str, Problem)> {
    let problem = |dtype, dims: [&str; 3], window, groups| Problem {
        kind: Kind::ConvTranspose(ConvTranspose { window, groups }),
        inputs: vec![Some(operand(dtype, dims[0])), Some(operand(dtype, dims[1]))],
        outputs: vec![Some(operand(dtype, dims[2]))],
    };
    vec![
        ("upsample", problem(F16, ["b 64 32 32", "64 32 2 2", "b 32 64 64"], window(2, 2, 2, 1, 0), 1)),
        ("transposed_rows", problem(F32, ["1 8 s", "8 4 5", "1 8 2*s-1"], window(1, 5, 2, 1, 2), 2)),
        ("transposed_f64", problem(F64, ["1 4 5 5 5", "4 4 3 3 3", "1 4 5 5 5"], window(3, 3, 1, 1, 1), 1)),
    ]
}
