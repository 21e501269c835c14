//! Problems of the families that move data: pointwise programs, moves, reductions, normalizations, indexing, windows,
//! recurrent layers.

use std::slice::from_ref;

use lapidary_runtime::DType::{self, BF16, Bool, F16, F32, F64, I8, I16, I32, I64, U8, U16, U32, U64};
use lapidary_runtime::op::{
    Activation, ActivationKind, Arg, ArgReduce, Axes, Cell, CoordinateMode, Direction, GroupNorm, Instr, NearestMode,
    Norm, NormKind, PadMode, Pool, PoolKind, Recurrent, Reduce, ReduceKind, RegionKind, RegionPool, Resize, ResizeMode,
    Scalar, ScalarOp, ScatterMode, Softmax, Transpose, Window,
};
use lapidary_templates::{Expr, Kind, Operand, Problem, Program, Reading, Strided};

use super::operand;

type Problems = Vec<(&'static str, Problem)>;

const NUMBERS: [DType; 12] = [F64, F32, F16, BF16, I64, I32, I16, I8, U64, U32, U16, U8];
const FLOATS: [DType; 4] = [F64, F32, F16, BF16];

/// Every problem of these families.
pub fn problems() -> Problems {
    let groups = [
        pointwise(),
        moves(),
        reductions(),
        rows(),
        indexing(),
        scatters(),
        windows(),
        regions(),
        resizes(),
        recurrents(),
        fills(),
    ];
    groups.into_iter().flatten().collect()
}

fn problem(kind: Kind, inputs: &[Operand], outputs: &[Operand]) -> Problem {
    let some = |operands: &[Operand]| operands.iter().cloned().map(Some).collect();
    Problem { kind, inputs: some(inputs), outputs: some(outputs) }
}

fn exprs(text: &str) -> Vec<Expr> {
    operand(F32, text).dims
}

fn pointwise() -> Problems {
    let mut all = Problems::new();
    let binary = |op, dtype: DType, shapes: [&str; 3]| {
        let program = Program::single(op, dtype, &[dtype; 2]);
        let [a, b, y] = shapes.map(|dims| operand(dtype, dims));
        problem(Kind::Pointwise(program), &[a, b], &[y])
    };
    for dtype in NUMBERS {
        all.push(("add of equal shapes", binary(ScalarOp::Add, dtype, ["b 3 8", "b 3 8", "b 3 8"])));
    }
    all.push(("mul by a channel", binary(ScalarOp::Mul, F16, ["b 64 56 56", "64 1 1", "b 64 56 56"])));
    all.push(("mul by a row", binary(ScalarOp::Mul, F16, ["b s 768", "768", "b s 768"])));
    all.push(("add of a column", binary(ScalarOp::Add, F32, ["b s 77", "b s 1", "b s 77"])));
    all.push(("div by a scalar", binary(ScalarOp::Div, F32, ["3 5 7", "", "3 5 7"])));
    all.push(("outer sum", binary(ScalarOp::Add, F32, ["b 1 s 1", "1 h 1 w", "b h s w"])));
    all.push(("undecided broadcast", binary(ScalarOp::Sub, F32, ["a 12 s", "b 1 s", "bcast(a,b) 12 s"])));
    all.push(("scalars", binary(ScalarOp::Add, I64, ["", "", ""])));
    all.push(("beyond 32 bits", binary(ScalarOp::Add, U8, ["b s h w", "b s h w", "b s h w"])));
    for (op, dtype) in [(ScalarOp::Pow, F64), (ScalarOp::Mod, I64), (ScalarOp::Max, BF16), (ScalarOp::Fmod, F32)] {
        all.push(("arithmetic", binary(op, dtype, ["b 96", "b 96", "b 96"])));
    }
    for (op, dtype) in [(ScalarOp::Erf, F16), (ScalarOp::Tanh, F32), (ScalarOp::Erf, F64), (ScalarOp::Softplus, F16)] {
        let program = Program::single(op, dtype, &[dtype]);
        let x = operand(dtype, "b s 3072");
        all.push(("function", problem(Kind::Pointwise(program), from_ref(&x), from_ref(&x))));
    }
    all.push(("gelu", gelu()));
    all.push(("mixed types", mixed()));
    for (name, offset, strides) in [
        ("add of a transposed operand", 0, "1 48"),
        ("add of a part", 24, "96 1"),
        ("add of a crooked part", 3, "77 1"),
        ("add of every other element", 0, "128 2"),
    ] {
        let whole = Reading { place: Strided { offset: Expr::constant(0), strides: exprs("64 1") }, through: None };
        let place = Strided { offset: Expr::constant(offset), strides: exprs(strides) };
        let program = Program::single(ScalarOp::Add, F16, &[F16; 2]);
        let kind = Kind::Elementwise(program, vec![whole, Reading { place, through: None }]);
        let ty = operand(F16, "48 64");
        all.push((name, problem(kind, &[ty.clone(), ty.clone()], &[ty])));
    }
    let empty = Program { inputs: Vec::new(), steps: Vec::new(), outputs: vec![Arg::Imm(Scalar::float(F32, 1.5))] };
    all.push(("constant", problem(Kind::Pointwise(empty), &[], &[operand(F32, "")])));
    all
}

/// 0.5 x (1 + erf(x / sqrt 2)) of a biased product, and the biased product itself.
fn gelu() -> Problem {
    let constant = |value: f32| Arg::Imm(Scalar::float(F16, f64::from(value)));
    let program = Program {
        inputs: vec![F16, F16],
        steps: vec![
            Instr::binary(ScalarOp::Add, F16, Arg::Input(0), Arg::Input(1)),
            Instr::binary(ScalarOp::Mul, F16, Arg::Step(0), constant(0.707)),
            Instr::unary(ScalarOp::Erf, F16, Arg::Step(1)),
            Instr::binary(ScalarOp::Add, F16, Arg::Step(2), constant(1.0)),
            Instr::binary(ScalarOp::Mul, F16, Arg::Step(0), Arg::Step(3)),
            Instr::binary(ScalarOp::Mul, F16, Arg::Step(4), constant(0.5)),
        ],
        outputs: vec![Arg::Step(5), Arg::Step(0)],
    };
    let (x, bias) = (operand(F16, "b s 3072"), operand(F16, "3072"));
    problem(Kind::Pointwise(program), &[x.clone(), bias], &[x.clone(), x])
}

/// `where(mask, x, -inf)` and a quantization to `i8`.
fn mixed() -> Problem {
    let program = Program {
        inputs: vec![Bool, F32, I64, U8],
        steps: vec![
            Instr::ternary(
                ScalarOp::Select,
                F32,
                Arg::Input(0),
                Arg::Input(1),
                Arg::Imm(Scalar::float(F32, f64::NEG_INFINITY)),
            ),
            Instr::unary(ScalarOp::Cast, F32, Arg::Input(2)),
            Instr::binary(ScalarOp::Add, F32, Arg::Step(0), Arg::Step(1)),
            Instr::unary(ScalarOp::Cast, I8, Arg::Step(2)),
            Instr::unary(ScalarOp::Cast, I8, Arg::Input(3)),
            Instr::binary(ScalarOp::Max, I8, Arg::Step(3), Arg::Step(4)),
        ],
        outputs: vec![Arg::Step(5), Arg::Step(2)],
    };
    let inputs = [operand(Bool, "b 1 1 s"), operand(F32, "b 12 s s"), operand(I64, ""), operand(U8, "s 1")];
    problem(Kind::Pointwise(program), &inputs, &[operand(I8, "b 12 s s"), operand(F32, "b 12 s s")])
}

fn moves() -> Problems {
    let mut all = Problems::new();
    let transpose = |dtype, from: &str, perm: &[u8]| {
        let x = operand(dtype, from);
        let y = Operand { dtype, dims: perm.iter().map(|&axis| x.dims[usize::from(axis)].clone()).collect() };
        let mut spec = Transpose { rank: perm.len() as u8, perm: [0; 8] };
        spec.perm[..perm.len()].copy_from_slice(perm);
        problem(Kind::Transpose(spec), &[x], &[y])
    };
    for dtype in [F64, F32, F16, I8, Bool] {
        all.push(("transpose of a matrix", transpose(dtype, "b 72 s", &[0, 2, 1])));
    }
    all.push(("heads", transpose(F16, "b s 12 64", &[0, 2, 1, 3])));
    all.push(("channels last", transpose(F16, "b 64 56 56", &[0, 2, 3, 1])));
    all.push(("keys", transpose(F32, "b s 12 64", &[0, 2, 3, 1])));
    all.push(("all axes", transpose(F32, "3 4 5 6", &[3, 2, 1, 0])));
    all.push(("nothing moves", transpose(F32, "1 7 1", &[2, 1, 0])));
    let expand = |dtype, from: &str, to: &str| problem(Kind::Expand, &[operand(dtype, from)], &[operand(dtype, to)]);
    all.push(("expand of a class token", expand(F32, "1 1 768", "b 1 768")));
    all.push(("expand of columns", expand(Bool, "b s 1", "b s 48")));
    all.push(("expand undecided", expand(I64, "a s", "bcast(a,b) s")));
    let slice = |from: &str, starts: &str, steps: &[i64], to: &str| {
        let kind = Kind::Slice { starts: exprs(starts), steps: steps.to_vec() };
        problem(kind, &[operand(F16, from)], &[operand(F16, to)])
    };
    all.push(("slice of rows", slice("b s 768", "0 1 0", &[1, 1, 1], "b s-1 768")));
    all.push(("slice backwards", slice("b 10", "0 9", &[1, -3], "b 4")));
    all.push(("split of heads", slice("b s 2304", "0 0 768", &[1, 1, 1], "b s 768")));
    let concat = |parts: &[&str], to: &str, axis| {
        let inputs: Vec<Operand> = parts.iter().map(|dims| operand(F16, dims)).collect();
        problem(Kind::Concat { axis }, &inputs, &[operand(F16, to)])
    };
    all.push(("concat of channels", concat(&["b 64 h w", "b 32 h w", "b 3 h w"], "b 99 h w", 1)));
    all.push(("concat of a cache", concat(&["b 12 s 64", "b 12 1 64"], "b 12 s+1 64", 2)));
    for (name, mode) in [
        ("pad constant", PadMode::Constant),
        ("pad edge", PadMode::Edge),
        ("pad reflect", PadMode::Reflect),
        ("pad wrap", PadMode::Wrap),
    ] {
        let kind = Kind::Pad { mode, lo: exprs("0 0 2 -1") };
        all.push((name, problem(kind, &[operand(F32, "b 3 h 9")], &[operand(F32, "b 3 h+4 12")])));
    }
    let kind = Kind::Pad { mode: PadMode::Constant, lo: exprs("1") };
    all.push(("pad with a value", problem(kind, &[operand(I64, "s"), operand(I64, "")], &[operand(I64, "s+3")])));
    for dtype in [F32, DType::I4] {
        all.push(("copy", problem(Kind::Copy, &[operand(dtype, "b 3")], &[operand(dtype, "b 3")])));
    }
    all
}

fn reductions() -> Problems {
    let mut all = Problems::new();
    let reduce = |kind, dtype, from: &str, axes: &[usize]| {
        let x = operand(dtype, from);
        let mut y = x.clone();
        axes.iter().for_each(|&axis| y.dims[axis] = Expr::constant(1));
        problem(Kind::Reduce(Reduce { kind, axes: Axes::of(axes.iter().copied()) }), &[x], &[y])
    };
    let kinds = [
        ReduceKind::Sum,
        ReduceKind::Mean,
        ReduceKind::Max,
        ReduceKind::Min,
        ReduceKind::Prod,
        ReduceKind::L1,
        ReduceKind::L2,
        ReduceKind::SumSquare,
        ReduceKind::LogSum,
        ReduceKind::LogSumExp,
    ];
    for kind in kinds {
        all.push(("reduction of rows", reduce(kind, F16, "b s 96", &[2])));
        all.push(("reduction of integers", reduce(kind, I32, "b 7 h", &[1])));
    }
    for dtype in NUMBERS {
        all.push(("sum", reduce(ReduceKind::Sum, dtype, "b 12 s", &[2])));
    }
    all.push(("any", reduce(ReduceKind::Max, Bool, "b s", &[1])));
    all.push(("global pooling", reduce(ReduceKind::Mean, F16, "b 2048 7 7", &[2, 3])));
    all.push(("everything", reduce(ReduceKind::Sum, F32, "65536 s", &[0, 1])));
    all.push(("statistics of channels", reduce(ReduceKind::Mean, F64, "b 64 h w", &[0, 2, 3])));
    all.push(("the first axis", reduce(ReduceKind::Max, F32, "b 3 5", &[0])));
    all.push(("no axis", reduce(ReduceKind::L2, F32, "b 5", &[])));
    all.push(("a scalar", reduce(ReduceKind::LogSumExp, F32, "", &[])));
    for (dtype, axis) in [(F32, 2), (F16, 1), (I64, 2), (U8, 0)] {
        let x = operand(dtype, "b 11 s");
        let mut y = Operand { dtype: I64, ..x.clone() };
        y.dims[axis] = Expr::constant(1);
        let spec = ArgReduce { largest: axis != 1, axis: axis as u8, select_last: axis == 0 };
        all.push(("position of the extremum", problem(Kind::ArgReduce(spec), &[x], &[y])));
    }
    all
}

/// `x * sigmoid(x)`
fn silu(dtype: DType) -> Program {
    let steps = vec![
        Instr::unary(ScalarOp::Sigmoid, dtype, Arg::Input(0)),
        Instr::binary(ScalarOp::Mul, dtype, Arg::Input(0), Arg::Step(0)),
    ];
    Program { inputs: vec![dtype], steps, outputs: vec![Arg::Step(1)] }
}

/// What works on rows: softmax, normalizations, running sums, the largest elements.
fn rows() -> Problems {
    let mut all = Problems::new();
    for dtype in FLOATS {
        for (dims, axis, log) in
            [("b 12 s s", 3, false), ("b 1000", 1, true), ("b 21 h w", 1, false), ("b 50000", 1, false)]
        {
            let x = operand(dtype, dims);
            all.push(("softmax", problem(Kind::Softmax(Softmax { axis, log }), from_ref(&x), from_ref(&x))));
        }
        let spec = |kind, axis| Norm { kind, axis, epsilon: Scalar::float(F32, 1e-5) };
        let norm = |kind, axis| Kind::Norm(spec(kind, axis), None);
        let silu = Some(silu(dtype));
        let (x, row) = (operand(dtype, "b s 768"), operand(dtype, "768"));
        all.push((
            "layer norm",
            problem(norm(NormKind::Layer, 2), &[x.clone(), row.clone(), row.clone()], from_ref(&x)),
        ));
        all.push(("rms norm", problem(norm(NormKind::Rms, 2), &[x.clone(), row.clone()], from_ref(&x))));
        let mean = operand(F32, "b s 1");
        let with_statistics = problem(norm(NormKind::Layer, 2), from_ref(&x), &[x.clone(), mean.clone(), mean]);
        all.push(("norm without scale", with_statistics));
        let column = operand(dtype, "s 1");
        let columns = [x.clone(), column.clone(), column];
        all.push(("norm scaled otherwise", problem(norm(NormKind::Layer, 1), &columns, from_ref(&x))));
        let odd = Kind::Norm(spec(NormKind::Layer, 1), silu.clone());
        all.push(("norm scaled otherwise with silu", problem(odd, &columns, from_ref(&x))));
        let rows = [x.clone(), row.clone()];
        let rms = Kind::Norm(spec(NormKind::Rms, 2), silu.clone());
        all.push(("rms norm with silu", problem(rms, &rows, from_ref(&x))));
        let mut half = problem(norm(NormKind::Layer, 2), &[x.clone(), row.clone(), row], &[x]);
        half.inputs[1] = None;
        all.push(("norm with a bias alone", half));
        let (x, channel) = (operand(dtype, "b 32 h w"), operand(dtype, "32"));
        let spec = GroupNorm { groups: 8, epsilon: Scalar::float(F32, 1e-5) };
        let channels = [x.clone(), channel.clone(), channel];
        all.push(("group norm", problem(Kind::GroupNorm(spec, None), &channels, from_ref(&x))));
        all.push(("group norm with silu", problem(Kind::GroupNorm(spec, silu), &channels, &[x])));
    }
    // An epsilon that is no f32.
    let x = operand(F64, "b 96");
    let doubles = Norm { kind: NormKind::Rms, axis: 1, epsilon: Scalar::float(F64, 0.1) };
    all.push(("rms norm of doubles", problem(Kind::Norm(doubles, None), from_ref(&x), from_ref(&x))));
    for dtype in NUMBERS {
        let x = operand(dtype, "b s");
        let kind = Kind::CumSum { axis: 1, exclusive: dtype == F16, reverse: dtype == I32 };
        all.push(("running sum", problem(kind, from_ref(&x), from_ref(&x))));
    }
    let x = operand(F32, "b s 6");
    let kind = Kind::CumSum { axis: 1, exclusive: false, reverse: true };
    all.push(("running sum of columns", problem(kind, from_ref(&x), from_ref(&x))));
    for (dtype, dims, result, axis) in
        [(F32, "b 1000", "b 5", 1), (F16, "b 40 7", "b 3 7", 1), (I64, "s", "s", 0), (F32, "b 200000", "b 4000", 1)]
    {
        let outputs = [operand(dtype, result), operand(I64, result)];
        let kind = Kind::TopK { axis, largest: dtype != I64 };
        all.push(("largest", problem(kind, &[operand(dtype, dims)], &outputs)));
    }
    for (boxes, order) in [("b 40 4", "b 3 40"), ("2 s 4", "2 2 s"), ("1 3000 4", "1 2 3000")] {
        let scalars = [operand(F32, ""), operand(I64, "")];
        let [threshold, most] = scalars;
        let inputs = [operand(F32, boxes), operand(I64, order), operand(Bool, order), threshold, most];
        all.push(("suppression", problem(Kind::Suppress, &inputs, &[operand(Bool, order)])));
    }
    let mut values = problem(Kind::TopK { axis: 0, largest: true }, &[operand(F32, "90")], &[operand(F32, "4")]);
    values.outputs.push(None);
    all.push(("largest without positions", values));
    all
}

fn regions() -> Problems {
    let mut all = Problems::new();
    let (mean, max, elements) = (RegionKind::Mean, RegionKind::Max, RegionKind::Elements);
    for (dtype, sides, kind, samples, half_pixel) in [
        (F32, F32, mean, 0, true),
        (F32, F32, mean, 2, false),
        (F16, F32, mean, 0, false),
        (F64, F64, mean, 3, true),
        (F32, F32, max, 0, true),
        (BF16, F32, max, 0, false),
        (F64, F64, max, 2, true),
        (F32, F32, elements, 0, false),
        (F16, F32, elements, 0, false),
        (F64, F64, elements, 0, false),
    ] {
        let spec = RegionPool { kind, bins: [3, 5], samples, half_pixel, scale: 0.75 };
        let inputs = [operand(dtype, "b 6 13 h"), operand(sides, "s 4"), operand(I64, "s")];
        all.push(("regions", problem(Kind::RegionPool(spec), &inputs, &[operand(dtype, "s 6 3 5")])));
    }
    all
}

fn indexing() -> Problems {
    let mut all = Problems::new();
    let gather = |kind, dtype, index, [x, indices, y]: [&str; 3]| {
        problem(kind, &[operand(dtype, x), operand(index, indices)], &[operand(dtype, y)])
    };
    let embedding = ["30522 768", "b s", "b s 768"];
    all.push(("embedding", gather(Kind::Gather { axis: 0 }, F16, I64, embedding)));
    all.push(("one of an axis", gather(Kind::Gather { axis: 1 }, F32, I32, ["b s 768", "", "b 768"])));
    all.push(("elements of a shape", gather(Kind::Gather { axis: 0 }, I64, I64, ["4", "2", "2"])));
    all.push(("gather of flags", gather(Kind::Gather { axis: 1 }, Bool, I64, ["b s", "7", "b 7"])));
    let elements = ["b s 5", "b h 5", "b h 5"];
    all.push(("gather elements", gather(Kind::GatherElements { axis: 1 }, F32, I64, elements)));
    let points = ["b h w 4", "b s 2", "b s 4"];
    all.push(("gather points", gather(Kind::GatherNd { batch_dims: 1 }, F16, I64, points)));
    all.push(("gather scalars", gather(Kind::GatherNd { batch_dims: 0 }, I64, I32, ["b h", "s 2", "s"])));
    all
}

fn scatters() -> Problems {
    let mut all = Problems::new();
    let scatter = |kind, dtype, index, [x, indices, updates]: [&str; 3]| {
        let x = operand(dtype, x);
        problem(kind, &[x.clone(), operand(index, indices), operand(dtype, updates)], &[x])
    };
    let modes = [ScatterMode::Set, ScatterMode::Add, ScatterMode::Mul, ScatterMode::Max, ScatterMode::Min];
    for (mode, dtype) in modes.into_iter().zip([F16, F32, I64, BF16, I32]) {
        let elements = Kind::ScatterElements { axis: 1, mode };
        all.push(("scatter elements", scatter(elements, dtype, I64, ["b s 5", "b h 5", "b h 5"])));
        let points = ["b s 64", "h 2", "h 64"];
        all.push(("scatter points", scatter(Kind::ScatterNd { mode }, dtype, I64, points)));
    }
    let flags = Kind::ScatterNd { mode: ScatterMode::Set };
    all.push(("scatter flags", scatter(flags, Bool, I32, ["h s", "b 1", "b s"])));
    all
}

fn windows() -> Problems {
    let mut all = Problems::new();
    let pool = |kind, rank: u8, dtype, x: &str, y: &str| {
        let mut window =
            Window { rank, size: [1; 3], stride: [1; 3], dilation: [1; 3], pad_lo: [0; 3], pad_hi: [0; 3] };
        for axis in 0..usize::from(rank) {
            (window.size[axis], window.stride[axis], window.pad_lo[axis], window.pad_hi[axis]) = (3, 2, 1, 1);
        }
        let spec = Pool { kind, window, index_order: 0 };
        problem(Kind::Pool(spec), &[operand(dtype, x)], &[operand(dtype, y)])
    };
    let kinds = [PoolKind::Max, PoolKind::Average, PoolKind::AverageCountPad, PoolKind::Lp(2)];
    for kind in kinds {
        for dtype in FLOATS {
            all.push(("pooling of images", pool(kind, 2, dtype, "b 64 112 112", "b 64 56 56")));
        }
        all.push(("pooling of signals", pool(kind, 1, F32, "b 3 s", "b 3 floor(s+1,2)")));
        all.push(("pooling of volumes", pool(kind, 3, F16, "b 3 9 h 11", "b 3 5 floor(h+1,2) 6")));
    }
    for dtype in [I8, U8] {
        all.push(("maxima of integers", pool(PoolKind::Max, 2, dtype, "b 3 8 8", "b 3 4 4")));
    }
    for order in [0, 1] {
        let mut indexed = pool(PoolKind::Max, 2, F32, "b 3 8 8", "b 3 4 4");
        indexed.outputs.push(Some(operand(I64, "b 3 4 4")));
        if let Kind::Pool(spec) = &mut indexed.kind {
            spec.index_order = order;
        }
        all.push(("maxima and positions", indexed));
    }
    all
}

fn resizes() -> Problems {
    let mut all = Problems::new();
    let resize = |mode, coordinates, antialias, dtype| {
        let spec = Resize {
            mode,
            coordinates,
            antialias,
            exclude_outside: false,
            cubic_coeff_a: -0.75,
            extrapolation_value: 0.0,
            scales: [0.0; 8],
        };
        problem(Kind::Resize(spec), &[operand(dtype, "b 3 h w")], &[operand(dtype, "b 3 2*h 224")])
    };
    for coordinates in [
        CoordinateMode::HalfPixel,
        CoordinateMode::HalfPixelSymmetric,
        CoordinateMode::PytorchHalfPixel,
        CoordinateMode::AlignCorners,
        CoordinateMode::Asymmetric,
    ] {
        all.push(("resize linear", resize(ResizeMode::Linear, coordinates, false, F32)));
    }
    for rounding in [NearestMode::RoundPreferFloor, NearestMode::RoundPreferCeil, NearestMode::Floor, NearestMode::Ceil]
    {
        let mode = ResizeMode::Nearest(rounding);
        all.push(("resize nearest", resize(mode, CoordinateMode::Asymmetric, false, F16)));
    }
    for dtype in [F64, F16, U8] {
        all.push(("resize cubic", resize(ResizeMode::Cubic, CoordinateMode::HalfPixel, false, dtype)));
    }
    for mode in [ResizeMode::Linear, ResizeMode::Cubic] {
        all.push(("resize antialiased", resize(mode, CoordinateMode::HalfPixel, true, F32)));
    }
    let mut crop = resize(ResizeMode::Linear, CoordinateMode::TfCropAndResize, false, F32);
    crop.inputs.push(Some(operand(F32, "8")));
    all.push(("crop and resize", crop));
    all
}

fn recurrents() -> Problems {
    let mut all = Problems::new();
    let activation = |kind| Activation { kind, alpha: 0.2, beta: 0.5 };
    let recurrent = |cell, direction, dtype, hidden: u32| {
        let gates = match cell {
            Cell::Lstm => 4,
            Cell::Gru { .. } => 3,
            Cell::Rnn => 1,
        };
        let dirs = if direction == Direction::Bidirectional { 2 } else { 1 };
        let kinds = match cell {
            Cell::Lstm => [ActivationKind::Sigmoid, ActivationKind::Tanh, ActivationKind::Tanh],
            Cell::Gru { .. } => [ActivationKind::HardSigmoid, ActivationKind::Softsign, ActivationKind::Elu],
            Cell::Rnn => [ActivationKind::Relu, ActivationKind::Affine, ActivationKind::Affine],
        };
        let [f, g, h] = kinds.map(activation);
        let spec = Recurrent {
            cell,
            direction,
            hidden,
            clip: if hidden == 10 { 3.0 } else { f32::INFINITY },
            activations: [f, g, h, f, g, h],
            input_forget: false,
        };
        let rows = gates * hidden;
        let shapes = [
            "s b 40".to_owned(),
            format!("{dirs} {rows} 40"),
            format!("{dirs} {rows} {hidden}"),
            format!("{dirs} {}", 2 * rows),
        ];
        let inputs = shapes.map(|dims| operand(dtype, &dims));
        let state = operand(dtype, &format!("{dirs} b {hidden}"));
        let mut outputs = vec![operand(dtype, &format!("s {dirs} b {hidden}")), state.clone()];
        if cell == Cell::Lstm {
            outputs.push(state);
        }
        problem(Kind::Recurrent(spec), &inputs, &outputs)
    };
    all.push(("lstm", recurrent(Cell::Lstm, Direction::Bidirectional, F32, 64)));
    all.push(("gru", recurrent(Cell::Gru { linear_before_reset: true }, Direction::Forward, F16, 128)));
    all.push(("gru by the book", recurrent(Cell::Gru { linear_before_reset: false }, Direction::Reverse, F64, 10)));
    all.push(("rnn", recurrent(Cell::Rnn, Direction::Forward, BF16, 33)));
    let mut last = recurrent(Cell::Lstm, Direction::Forward, F32, 128);
    last.inputs[3] = None;
    last.inputs.extend([Some(operand(I32, "b")), Some(operand(F32, "1 b 128")), Some(operand(F32, "1 b 128"))]);
    last.inputs.push(Some(operand(F32, "1 384")));
    last.outputs[0] = None;
    all.push(("last state of an lstm with all operands", last));
    all
}

fn fills() -> Problems {
    let mut all = Problems::new();
    for dtype in NUMBERS {
        let one = operand(dtype, "");
        all.push(("range", problem(Kind::Range, &[one.clone(), one], &[operand(dtype, "s")])));
    }
    all.push(("shape", problem(Kind::Extents(exprs("b 3 floor(h,2)")), &[], &[operand(I64, "3")])));
    all.push(("size", problem(Kind::Extents(exprs("b*s")), &[], &[operand(I64, "")])));
    let many = Kind::Extents((0..35).map(Expr::constant).collect());
    all.push(("many numbers", problem(many, &[], &[operand(I64, "35")])));
    all
}
