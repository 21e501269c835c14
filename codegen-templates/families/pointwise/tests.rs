//! How operands of pointwise programs are read.

use lapidary_runtime::op::Arg;

use super::*;
use crate::problem::{Operand, Strided};

fn operand(dims: &str) -> Operand {
    let dims = dims.split_whitespace().map(|dim| dim.parse().expect("a formula")).collect();
    Operand { dtype: DType::F16, dims }
}

fn add(a: &str, b: &str, result: &str) -> Problem {
    let program = Program::single(ScalarOp::Add, DType::F16, &[DType::F16; 2]);
    Problem {
        kind: Kind::Pointwise(program),
        inputs: vec![Some(operand(a)), Some(operand(b))],
        outputs: vec![Some(operand(result))],
    }
}

fn with_shapes<R>(test: impl FnOnce(&Shapes<'_>) -> R) -> R {
    let range = |expr: &Expr| expr.range(&|_| (1, 64));
    let typical = |expr: &Expr| expr.eval(&|_| 4);
    test(&Shapes { range: &range, typical: &typical })
}

/// How the second operand is read, the axes that are left, and the widest vector.
fn read(a: &str, b: &str, result: &str) -> (Access, usize, i64) {
    let elementwise = elementwise(&add(a, b, result)).expect("operands").expect("a program");
    with_shapes(|shapes| {
        let layout = elementwise.layout(shapes);
        (layout.access[1], layout.view.dims.len(), elementwise.widest(&layout, shapes))
    })
}

#[test]
fn operands_are_read_as_they_lie() {
    assert_eq!(read("n 3 5", "n 3 5", "n 3 5"), (Access::Linear, 1, 8));
    assert_eq!(read("n 3 5", "1", "n 3 5"), (Access::Scalar, 1, 8));
    assert_eq!(read("n 12 64", "64", "n 12 64"), (Access::Inner, 2, 8));
    assert_eq!(read("n 12 63", "63", "n 12 63"), (Access::Inner, 2, 1));
    assert_eq!(read("n 16 8 8", "16 1 1", "n 16 8 8"), (Access::Splat, 3, 8));
    assert_eq!(read("a 4", "b 4", "bcast(a,b) 4"), (Access::Inner, 2, 4));
    assert_eq!(read("4 a", "4 b", "4 bcast(a,b)"), (Access::Strided, 2, 1));
}

#[test]
fn what_nobody_wants_is_not_computed() {
    let mut problem = add("n", "n", "n");
    if let Kind::Pointwise(program) = &mut problem.kind {
        program.steps.push(Instr::unary(ScalarOp::Exp, DType::F16, Arg::Step(0)));
        program.outputs = vec![Arg::Step(1), Arg::Step(0)];
    }
    problem.outputs = vec![None, Some(operand("n"))];
    let elementwise = elementwise(&problem).expect("operands").expect("a program");
    assert_eq!(elementwise.program.steps.len(), 1);
    assert_eq!(elementwise.outputs, [(Place::output(1), DType::F16)]);
}

/// The keys of the kernels that convert a tensor of these extents.
fn conversion(from: DType, to: DType, dims: &str) -> Vec<String> {
    let (x, y) = (Operand { dtype: from, ..operand(dims) }, Operand { dtype: to, ..operand(dims) });
    let kind = Kind::Pointwise(Program::single(ScalarOp::Cast, to, &[from]));
    let problem = Problem { kind, inputs: vec![Some(x)], outputs: vec![Some(y)] };
    let arch = "sm_80".parse().expect("a known architecture");
    let answer = with_shapes(|shapes| answer(&problem, arch, shapes));
    assert!(answer.refusals.is_empty());
    answer.candidates.into_iter().map(|candidate| candidate.key).collect()
}

#[test]
fn packed_results_are_written_in_whole_bytes() {
    assert_eq!(conversion(DType::F32, DType::I4, "n 7"), ["pointwise/r1v8u4", "pointwise/r1v4u4", "pointwise/r1v1u1"]);
    assert_eq!(conversion(DType::F64, DType::U2, "n 7"), ["pointwise/r1v4u4", "pointwise/r1v1u1"]);
    assert_eq!(conversion(DType::I2, DType::I8, "n 7"), ["pointwise/r1v16u4", "pointwise/r1v8u4", "pointwise/r1v1u4"]);
    // Rows of 6 are whole bytes of two elements, not of four; rows of 7 are neither.
    let rows = |dtype, row: &str| {
        let shape = |dims: &str| dims.replace("row", row);
        let mut problem = add(&shape("n row"), &shape("row"), &shape("n row"));
        let steps = vec![
            Instr::binary(ScalarOp::Add, DType::F16, Arg::Input(0), Arg::Input(1)),
            Instr::unary(ScalarOp::Cast, dtype, Arg::Step(0)),
        ];
        problem.kind = Kind::Pointwise(Program { inputs: vec![DType::F16; 2], steps, outputs: vec![Arg::Step(1)] });
        problem.outputs = vec![Some(Operand { dtype, ..operand(&shape("n row")) })];
        let elementwise = elementwise(&problem).expect("operands").expect("a program");
        with_shapes(|shapes| elementwise.widest(&elementwise.layout(shapes), shapes))
    };
    assert_eq!((rows(DType::U4, "6"), rows(DType::U4, "7")), (2, 1));
    assert_eq!((rows(DType::U2, "6"), rows(DType::U2, "8")), (1, 8));
}

fn exprs(text: &str) -> Vec<Expr> {
    text.split_whitespace().map(|dim| dim.parse().expect("a formula")).collect()
}

fn place(offset: i64, strides: &str) -> Strided {
    Strided { offset: Expr::constant(offset), strides: exprs(strides) }
}

/// The sum of a whole tensor and one that is read like this: how, and the widest vector.
fn read_at(dims: &str, place: Strided, rows: Option<&str>) -> Result<(Access, i64), String> {
    let through = rows.map(|strides| Through {
        indices: 2,
        place: Strided { offset: Expr::constant(0), strides: exprs(strides) },
        stride: Expr::constant(64),
        rows: Expr::constant(1000),
    });
    let whole = Reading { place: Strided::contiguous(&exprs(dims)), through: None };
    let program = Program::single(ScalarOp::Add, DType::F16, &[DType::F16; 2]);
    let indices = rows.map(|_| Some(Operand { dtype: DType::I64, dims: exprs("n") }));
    let problem = Problem {
        kind: Kind::Elementwise(program, vec![whole, Reading { place, through }]),
        inputs: [Some(operand(dims)), Some(operand(dims))].into_iter().chain(indices).collect(),
        outputs: vec![Some(operand(dims))],
    };
    let elementwise = elementwise(&problem)?.expect("a program");
    with_shapes(|shapes| {
        elementwise.kernels(shapes)?;
        let layout = elementwise.layout(shapes);
        Ok((layout.access[1], elementwise.widest(&layout, shapes)))
    })
}

#[test]
fn operands_are_read_where_they_lie() {
    assert_eq!(read_at("n 64", place(0, "64 1"), None), Ok((Access::Linear, 8)));
    assert_eq!(read_at("n 64", place(0, "1 n"), None), Ok((Access::Strided, 8)));
    assert_eq!(read_at("n 64", place(8, "192 1"), None), Ok((Access::Inner, 8)));
    // What begins, or goes on, in the middle of a vector.
    assert_eq!(read_at("n 64", place(2, "192 1"), None), Ok((Access::Inner, 2)));
    assert_eq!(read_at("n 64", place(3, "64 1"), None), Ok((Access::Linear, 1)));
    assert_eq!(read_at("n 64", place(0, "77 1"), None), Ok((Access::Inner, 1)));
}

#[test]
fn rows_are_read_through_their_indices() {
    assert_eq!(read_at("n 64", place(0, "0 1"), Some("1 0")), Ok((Access::Rows, 8)));
    assert_eq!(read_at("n 64", place(4, "0 1"), Some("1 0")), Ok((Access::Rows, 4)));
    let single = read_at("64 n", place(0, "n 0"), Some("0 1")).expect_err("single elements");
    assert_eq!(single, "what an index picks is no row of contiguous elements");
}
