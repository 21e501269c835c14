//! How operands of pointwise programs are read.

use lapidary_runtime::op::Arg;

use super::*;
use crate::problem::Operand;

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

#[test]
fn storage_types_are_refused() {
    let mut problem = add("n", "n", "n");
    problem.kind = Kind::Pointwise(Program::single(ScalarOp::Add, DType::I4, &[DType::I4; 2]));
    let arch = "sm_80".parse().expect("a known architecture");
    let answer = with_shapes(|shapes| answer(&problem, arch, shapes));
    assert!(answer.candidates.is_empty());
    assert_eq!(answer.refusals[0].reason, "i4 is a storage type, which kernels do not compute with");
}
