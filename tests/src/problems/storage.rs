//! Problems of the types that tensors are only stored in: conversions from and to each, packed results whose rows are no
//! whole bytes, quantization, and moves of parts of bytes.

use lapidary_runtime::DType::{self, BF16, Bool, F16, F32, F64, I8, I32, I64, U8, U64};
use lapidary_runtime::op::{Arg, Instr, PadMode, ScalarOp, ScatterMode, Transpose};
use lapidary_templates::{Kind, Operand, Problem, Program};

use super::operand;

type Problems = Vec<(&'static str, Problem)>;

/// Every problem of these types.
pub fn problems() -> Problems {
    [conversions(), rows(), quantization(), moves()].into_iter().flatten().collect()
}

fn small() -> Vec<DType> {
    DType::ALL.into_iter().filter(|dtype| dtype.is_storage()).collect()
}

fn pointwise(program: Program, inputs: &[Operand], dims: &str) -> Problem {
    let outputs = (0..program.outputs.len()).map(|k| Some(operand(program.output_dtype(k), dims))).collect();
    Problem { kind: Kind::Pointwise(program), inputs: inputs.iter().cloned().map(Some).collect(), outputs }
}

/// Input `from[k]` to result `to[k]`; the last of `from` stands for those that are not there.
fn casts(from: &[DType], to: &[DType]) -> Program {
    let input = |k: usize| Arg::Input(k.min(from.len() - 1) as u16);
    Program {
        inputs: from.to_vec(),
        steps: to.iter().enumerate().map(|(k, &to)| Instr::unary(ScalarOp::Cast, to, input(k))).collect(),
        outputs: (0..to.len() as u16).map(Arg::Step).collect(),
    }
}

fn conversions() -> Problems {
    let mut all = Problems::new();
    let convert = |from: &[DType], to: &[DType], dims: &str| {
        let inputs: Vec<Operand> = from.iter().map(|&dtype| operand(dtype, dims)).collect();
        pointwise(casts(from, to), &inputs, dims)
    };
    for dtype in small() {
        for other in [F32, F16] {
            all.push(("to a storage type", convert(&[other], &[dtype], "b s 7")));
            all.push(("from a storage type", convert(&[dtype], &[other], "b s 7")));
        }
        all.push(("copy of a storage type", convert(&[dtype], &[dtype], "b s 7")));
    }
    for from in [F64, BF16, I64, U64, I32, I8, U8, Bool] {
        all.push(("to all storage types", convert(&[from], &small(), "b s 3")));
    }
    for to in [F64, F32, BF16, I64, I8, U8, Bool] {
        all.push(("from all storage types", convert(&small(), &[to; 10], "b s 3")));
    }
    for through in small() {
        let steps =
            vec![Instr::unary(ScalarOp::Cast, through, Arg::Input(0)), Instr::unary(ScalarOp::Cast, F16, Arg::Step(0))];
        let program = Program { inputs: vec![F32], steps, outputs: vec![Arg::Step(1)] };
        all.push(("through a storage type", pointwise(program, &[operand(F32, "b s 8")], "b s 8")));
    }
    all
}

/// Operands that broadcast, and rows that begin within bytes or do not.
fn rows() -> Problems {
    let mut all = Problems::new();
    let select = |dtype: DType, shapes: [&str; 3], dims: &str| {
        let program = Program::single(ScalarOp::Select, dtype, &[Bool, dtype, dtype]);
        let [condition, a, b] = shapes;
        pointwise(program, &[operand(Bool, condition), operand(dtype, a), operand(dtype, b)], dims)
    };
    for dtype in [DType::I4, DType::U2, DType::F4E2M1, DType::F8E5M2] {
        for (name, row) in [("rows of odd length", "7"), ("rows of half bytes", "6"), ("rows of bytes", "8")] {
            let dims = format!("b s {row}");
            let condition = format!("s {row}");
            all.push((name, select(dtype, [&condition, &dims, row], &dims)));
        }
        all.push(("columns", select(dtype, ["b s 1", "b 1 1", "s 9"], "b s 9")));
        all.push(("columns of bytes", select(dtype, ["b s 1", "b 1 1", "s 16"], "b s 16")));
        all.push(("undecided rows", select(dtype, ["a 3 s", "b 3 1", "3 s"], "bcast(a,b) 3 s")));
        all.push(("one element", select(dtype, ["", "", ""], "")));
        let kind = |kind, from: &str, to: &str| Problem {
            kind,
            inputs: vec![Some(operand(dtype, from))],
            outputs: vec![Some(operand(dtype, to))],
        };
        all.push(("expand of a storage type", kind(Kind::Expand, "b 1 s 1", "b 3 s 5")));
    }
    all
}

/// QuantizeLinear and DequantizeLinear as they are imported, per tensor, axis and block.
fn quantization() -> Problems {
    let mut all = Problems::new();
    let shapes = [("", "b s 12", "b s 12"), ("s 1", "b s 5", "b s 5"), ("b s 3 1", "b s 3 4", "b s 3 4")];
    for dtype in [DType::I4, DType::U4, DType::I2, DType::U2, DType::F8E4M3FN, DType::F8E5M2, DType::F4E2M1] {
        for (scale, x, y) in shapes {
            let exact = if dtype.is_int() { I32 } else { F32 };
            let steps = vec![
                Instr::unary(ScalarOp::Cast, exact, Arg::Input(0)),
                Instr::unary(ScalarOp::Cast, exact, Arg::Input(2)),
                Instr::binary(ScalarOp::Sub, exact, Arg::Step(0), Arg::Step(1)),
                Instr::unary(ScalarOp::Cast, F32, Arg::Step(2)),
                Instr::binary(ScalarOp::Mul, F32, Arg::Step(3), Arg::Input(1)),
            ];
            let program = Program { inputs: vec![dtype, F32, dtype], steps, outputs: vec![Arg::Step(4)] };
            let inputs = [operand(dtype, x), operand(F32, scale), operand(dtype, scale)];
            all.push(("dequantize", pointwise(program, &inputs, y)));
            let steps = vec![
                Instr::binary(ScalarOp::Div, F32, Arg::Input(0), Arg::Input(1)),
                Instr::unary(ScalarOp::Round, F32, Arg::Step(0)),
                Instr::unary(ScalarOp::Cast, F32, Arg::Input(2)),
                Instr::binary(ScalarOp::Add, F32, Arg::Step(1), Arg::Step(2)),
                Instr::unary(ScalarOp::Cast, dtype, Arg::Step(3)),
            ];
            let program = Program { inputs: vec![F32, F32, dtype], steps, outputs: vec![Arg::Step(4)] };
            let inputs = [operand(F32, x), operand(F32, scale), operand(dtype, scale)];
            all.push(("quantize", pointwise(program, &inputs, y)));
        }
    }
    all
}

/// What places elements without looking at them.
fn moves() -> Problems {
    let mut all = Problems::new();
    for dtype in [DType::I4, DType::U2, DType::F4E2M1, DType::F8E8M0] {
        let mut add = |name, kind, inputs: &[Operand], dims: &str| {
            let inputs = inputs.iter().cloned().map(Some).collect();
            all.push((name, Problem { kind, inputs, outputs: vec![Some(operand(dtype, dims))] }));
        };
        let exprs = |text: &str| operand(dtype, text).dims;
        let mut spec = Transpose { rank: 3, perm: [0; 8] };
        spec.perm[..3].copy_from_slice(&[0, 2, 1]);
        add("transpose of a storage type", Kind::Transpose(spec), &[operand(dtype, "b 7 s")], "b s 7");
        let kind = Kind::Slice { starts: exprs("0 1 5"), steps: vec![1, 1, -2] };
        add("slice of a storage type", kind, &[operand(dtype, "b 4 7")], "b 3 3");
        let parts = ["b 3 s", "b 1 s", "b 5 s"].map(|dims| operand(dtype, dims));
        add("concat of a storage type", Kind::Concat { axis: 1 }, &parts, "b 9 s");
        let kind = Kind::Pad { mode: PadMode::Constant, lo: exprs("0 1") };
        add("pad of a storage type", kind, &[operand(dtype, "b s"), operand(dtype, "")], "b s+3");
        let indices = operand(I64, "3 2");
        add("gather of a storage type", Kind::Gather { axis: 0 }, &[operand(dtype, "s 5"), indices], "3 2 5");
        let (kind, indices) = (Kind::GatherElements { axis: 1 }, operand(I64, "b 3"));
        add("gather of elements of a storage type", kind, &[operand(dtype, "b s"), indices], "b 3");
        let (kind, points) = (Kind::GatherNd { batch_dims: 0 }, operand(I64, "3 2"));
        add("gather by points of a storage type", kind, &[operand(dtype, "b s 3"), points], "3 3");
        let (kind, indices) = (Kind::ScatterElements { axis: 1, mode: ScatterMode::Set }, operand(I64, "b 3"));
        add("scatter to a storage type", kind, &[operand(dtype, "b 7"), indices, operand(dtype, "b 3")], "b 7");
        let (kind, points) = (Kind::ScatterNd { mode: ScatterMode::Set }, operand(I64, "b 1"));
        add(
            "scatter by points to a storage type",
            kind,
            &[operand(dtype, "b 5"), points, operand(dtype, "b 5")],
            "b 5",
        );
    }
    all
}
