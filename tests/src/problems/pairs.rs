//! Problems of two operations in one kernel.

use lapidary_runtime::DType::{self, BF16, F16, F32};
use lapidary_runtime::op::{Arg, Axes, Conv, Instr, Math, Reduce, ReduceKind, Scalar, ScalarOp, Window};
use lapidary_templates::{Kind, Operand, Pair, Problem, Program};

use super::operand;

/// A convolution of one pixel, `w [m, c]`, whose epilogue adds a bias and takes the maximum with 0.
fn product(dtype: DType, images: &str, [m, c]: [&str; 2], rank: usize) -> Problem {
    let ones = " 1".repeat(rank);
    let step = |op, a, b| Instr::binary(op, dtype, a, b);
    let program = Program {
        inputs: vec![dtype; 2],
        steps: vec![
            step(ScalarOp::Add, Arg::Input(0), Arg::Input(1)),
            step(ScalarOp::Max, Arg::Step(0), Arg::Imm(Scalar::float(dtype, 0.0))),
        ],
        outputs: vec![Arg::Step(1)],
    };
    let window =
        Window { rank: rank as u8, size: [1; 3], stride: [1; 3], dilation: [1; 3], pad_lo: [0; 3], pad_hi: [0; 3] };
    let operands = [format!("{images} {c}{ones}"), format!("{m} {c}{ones}"), format!("{m}{ones}")];
    Problem {
        kind: Kind::Conv(Conv { window, groups: 1, math: Math::Exact }, Some(program)),
        inputs: operands.iter().map(|dims| Some(operand(dtype, dims))).collect(),
        outputs: vec![Some(operand(dtype, &format!("{images} {m}{ones}")))],
    }
}

fn problem(first: Problem, second: Problem, at: usize) -> Problem {
    Pair { first, second, at }.problem()
}

/// Planes of `x [images, c, plane]` to their means or sums, and those through a product with `w [m, c]`.
fn squeeze(dtype: DType, kind: ReduceKind, images: &str, plane: &str, extents: [&str; 2]) -> Problem {
    let rank = plane.split_whitespace().count();
    let second = product(dtype, images, extents, rank);
    let x = operand(dtype, &format!("{images} {} {plane}", extents[1]));
    let axes = Axes::of(2..2 + rank);
    let first = Problem {
        kind: Kind::Reduce(Reduce { kind, axes }),
        inputs: vec![Some(x)],
        outputs: vec![second.inputs[0].clone()],
    };
    problem(first, second, 0)
}

/// A product with `w [m, c]`, by which planes of `[images, m, plane]` are scaled; the scale is operand `at`.
fn excite(dtype: DType, at: usize, images: &str, plane: &str, extents: [&str; 2]) -> Problem {
    let rank = plane.split_whitespace().count();
    let first = product(dtype, images, extents, rank);
    let y: Operand = operand(dtype, &format!("{images} {} {plane}", extents[0]));
    let steps = vec![
        Instr::binary(ScalarOp::Sub, dtype, Arg::Input(0), Arg::Input(1)),
        Instr::binary(ScalarOp::Mul, dtype, Arg::Step(0), Arg::Input(1 - at as u16)),
    ];
    let program = Program { inputs: vec![dtype; 2], steps, outputs: vec![Arg::Step(1)] };
    let mut inputs = vec![Some(y.clone()), Some(y.clone())];
    inputs[at] = first.outputs[0].clone();
    problem(first, Problem { kind: Kind::Pointwise(program), inputs, outputs: vec![Some(y)] }, at)
}

/// Both halves of squeeze-and-excitation.
pub fn problems() -> Vec<(&'static str, Problem)> {
    use ReduceKind::{Mean, Sum};
    vec![
        ("squeeze", squeeze(F16, Mean, "1", "7 7", ["240", "960"])),
        ("squeeze_few", squeeze(F32, Sum, "t", "5 7", ["9", "3"])),
        ("squeeze_odd", squeeze(BF16, Mean, "t", "t t", ["37", "75"])),
        ("squeeze_many", squeeze(F16, Mean, "2", "28 28", ["1000", "72"])),
        ("squeeze_line", squeeze(F32, Mean, "t", "40", ["530", "200"])),
        ("excite", excite(F16, 0, "1", "14 14", ["480", "120"])),
        ("excite_odd", excite(BF16, 1, "t", "t t", ["37", "9"])),
        ("excite_line", excite(F32, 1, "1", "36", ["100", "130"])),
    ]
}
