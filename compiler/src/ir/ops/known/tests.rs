use lapidary_runtime::op::{Axes, Scalar};

use super::*;

fn expr(text: &str) -> Expr {
    text.parse().unwrap()
}

fn exprs(texts: &[&str]) -> Known {
    Known(texts.iter().map(|text| expr(text)).collect())
}

fn vector(dtype: DType, count: usize) -> Type {
    Type { dtype, dims: vec![Expr::from(count)] }
}

fn scalar(dtype: DType) -> Type {
    Type { dtype, dims: Vec::new() }
}

/// Symbols are at least 1.
fn follow(op: &Op, inputs: &[Option<Known>], result: &Type) -> Option<Known> {
    known(op, inputs, result, &|expr| expr.range(&|_| (1, 4096)))
}

fn binary(op: ScalarOp, a: &str, b: &str) -> Option<Expr> {
    let program = Program::single(op, DType::I64, &[DType::I64; 2]);
    let dtype = if op.is_predicate() { DType::Bool } else { DType::I64 };
    let mut program = program;
    program.steps[0].dtype = dtype;
    let found = follow(&Op::Pointwise(program), &[Some(exprs(&[a])), Some(exprs(&[b]))], &scalar(dtype));
    found.map(|known| known.0[0].clone())
}

#[test]
fn a_shape_chain_folds_to_formulas() {
    // Reshape's shape from Shape -> Gather -> Mul -> Concat.
    let shape =
        follow(&Op::Extents { values: exprs(&["batch", "seq", "384"]).0, rank: 1 }, &[], &vector(DType::I64, 3));
    let seq = follow(&Op::Gather { axis: 0 }, &[shape.clone(), Some(exprs(&["1"]))], &scalar(DType::I64));
    assert_eq!(seq, Some(exprs(&["seq"])));
    let last = follow(&Op::Gather { axis: 0 }, &[shape, Some(exprs(&["-1"]))], &scalar(DType::I64));
    let mul = Program::single(ScalarOp::Mul, DType::I64, &[DType::I64; 2]);
    let product = follow(&Op::Pointwise(mul), &[seq, last], &scalar(DType::I64));
    let product = follow(&Op::Reshape(vec![Expr::constant(1)]), &[product], &vector(DType::I64, 1));
    let whole = follow(&Op::Concat { axis: 0 }, &[Some(exprs(&["-1"])), product], &vector(DType::I64, 2));
    assert_eq!(whole, Some(exprs(&["-1", "384*seq"])));
}

#[test]
fn scalars_broadcast_over_vectors() {
    let add = Program::single(ScalarOp::Add, DType::I64, &[DType::I64; 2]);
    let sum = follow(&Op::Pointwise(add), &[Some(exprs(&["a", "2"])), Some(exprs(&["b"]))], &vector(DType::I64, 2));
    assert_eq!(sum, Some(exprs(&["a + b", "b + 2"])));
    let expanded = follow(&Op::Expand(vec![Expr::constant(3)]), &[Some(exprs(&["a"]))], &vector(DType::I64, 3));
    assert_eq!(expanded, Some(exprs(&["a", "a", "a"])));
}

#[test]
fn division_truncates_where_the_bounds_allow_it() {
    assert_eq!(binary(ScalarOp::Div, "a", "2"), Some(expr("floor(a, 2)")));
    assert_eq!(binary(ScalarOp::Div, "-a", "2"), None);
    assert_eq!(binary(ScalarOp::Div, "-2*a", "2"), Some(expr("-a")));
    assert_eq!(binary(ScalarOp::Div, "a*b", "b"), Some(expr("a")));
    assert_eq!(binary(ScalarOp::Div, "a", "b - 1"), None);
    assert_eq!(binary(ScalarOp::Div, "-7", "2"), Some(expr("-3")));
    assert_eq!(binary(ScalarOp::Div, "-7", "0"), Some(expr("0")));
    assert_eq!(binary(ScalarOp::Mod, "-7", "2"), Some(expr("1")));
    assert_eq!(binary(ScalarOp::Mod, "a", "5000"), Some(expr("a")));
    assert_eq!(binary(ScalarOp::Mod, "4*a + 3", "4"), Some(expr("3")));
    assert_eq!(binary(ScalarOp::Fmod, "-7", "2"), Some(expr("-1")));
    assert_eq!(binary(ScalarOp::Fmod, "-a", "2"), None);
}

#[test]
fn comparisons_are_decided_by_bounds() {
    assert_eq!(binary(ScalarOp::Equal, "a + b", "b + a"), Some(expr("1")));
    assert_eq!(binary(ScalarOp::Equal, "a", "-1"), Some(expr("0")));
    assert_eq!(binary(ScalarOp::Equal, "a", "7"), None);
    assert_eq!(binary(ScalarOp::Less, "a", "a + 1"), Some(expr("1")));
    assert_eq!(binary(ScalarOp::Less, "a", "1"), Some(expr("0")));
    assert_eq!(binary(ScalarOp::LessEqual, "a", "4096"), Some(expr("1")));
    assert_eq!(binary(ScalarOp::Greater, "a", "0"), Some(expr("1")));
    assert_eq!(binary(ScalarOp::GreaterEqual, "a", "2"), None);
    assert_eq!(binary(ScalarOp::Max, "a", "1"), Some(expr("a")));
    assert_eq!(binary(ScalarOp::Min, "a", "77"), Some(expr("min(77, a)")));
}

/// `Where(shape == -1, 1, shape)`, as exporters write for Expand.
#[test]
fn a_decided_select_takes_its_branch() {
    let program = Program {
        inputs: vec![DType::I64],
        steps: vec![
            Instr::binary(ScalarOp::Equal, DType::Bool, Arg::Input(0), Arg::Imm(Scalar::int(DType::I64, -1))),
            Instr::ternary(
                ScalarOp::Select,
                DType::I64,
                Arg::Step(0),
                Arg::Imm(Scalar::int(DType::I64, 1)),
                Arg::Input(0),
            ),
        ],
        outputs: vec![Arg::Step(1)],
    };
    let found = follow(&Op::Pointwise(program), &[Some(exprs(&["-1", "b"]))], &vector(DType::I64, 2));
    assert_eq!(found, Some(exprs(&["1", "b"])));
}

#[test]
fn casts_keep_what_fits() {
    let cast = |from: DType, to: DType, value: &str| {
        let program = Program {
            inputs: vec![from],
            steps: vec![Instr::unary(ScalarOp::Cast, to, Arg::Input(0))],
            outputs: vec![Arg::Step(0)],
        };
        follow(&Op::Pointwise(program), &[Some(exprs(&[value]))], &scalar(to)).map(|known| known.0[0].clone())
    };
    assert_eq!(cast(DType::I64, DType::I32, "a"), Some(expr("a")));
    assert_eq!(cast(DType::I64, DType::I32, "1048576*a"), None);
    assert_eq!(cast(DType::I64, DType::I32, "4294967297"), Some(expr("1")));
    assert_eq!(cast(DType::I64, DType::I32, "2147483648"), Some(expr("-2147483648")));
    assert_eq!(cast(DType::I64, DType::Bool, "a"), Some(expr("1")));
    assert_eq!(cast(DType::I64, DType::Bool, "a - 1"), None);
    assert_eq!(cast(DType::Bool, DType::I64, "1"), Some(expr("1")));
    assert_eq!(cast(DType::I64, DType::F32, "3"), Some(expr("3")));
    assert_eq!(cast(DType::I64, DType::F32, "16777217"), None);
    assert_eq!(cast(DType::I64, DType::F16, "3"), None);
}

#[test]
fn vectors_are_sliced_and_reduced() {
    let x = || Some(exprs(&["a", "b", "3", "4"]));
    let reverse = Op::Slice { starts: exprs(&["3"]).0, steps: vec![-2], dims: exprs(&["2"]).0 };
    assert_eq!(follow(&reverse, &[x()], &vector(DType::I64, 2)), Some(exprs(&["4", "b"])));
    let outside = Op::Slice { starts: exprs(&["3"]).0, steps: vec![1], dims: exprs(&["2"]).0 };
    assert_eq!(follow(&outside, &[x()], &vector(DType::I64, 2)), None);
    let prod = Op::Reduce(Reduce { kind: ReduceKind::Prod, axes: Axes::of([0]) });
    assert_eq!(follow(&prod, &[x()], &vector(DType::I64, 1)), Some(exprs(&["12*a*b"])));
    // Over no axis each element is a sum of one: a square is not followed, a product is the element.
    let each = |kind| Op::Reduce(Reduce { kind, axes: Axes::of([]) });
    let two = exprs(&["n", "2"]);
    assert_eq!(follow(&each(ReduceKind::SumSquare), &[Some(two.clone())], &vector(DType::I64, 2)), None);
    assert_eq!(follow(&each(ReduceKind::Prod), &[Some(two.clone())], &vector(DType::I64, 2)), Some(two));
    let max = Op::Reduce(Reduce { kind: ReduceKind::Max, axes: Axes::of([0]) });
    assert_eq!(follow(&max, &[Some(Known(Vec::new()))], &vector(DType::I64, 1)), None);
    let range = Op::Range { count: Expr::constant(3) };
    let found = follow(&range, &[Some(exprs(&["a"])), Some(exprs(&["-2"]))], &vector(DType::I64, 3));
    assert_eq!(found, Some(exprs(&["a", "a - 2", "a - 4"])));
}

#[test]
fn overflow_and_large_results_are_not_followed() {
    assert_eq!(binary(ScalarOp::Add, "9223372036854775807", "1"), None);
    let expand = Op::Expand(vec![Expr::constant(257)]);
    assert_eq!(follow(&expand, &[Some(exprs(&["1"]))], &vector(DType::I64, 257)), None);
    assert_eq!(follow(&expand, &[None], &vector(DType::I64, 3)), None);
}

/// A chain of squares, or of nested minima, doubles its formula at every step.
#[test]
fn formulas_that_grow_without_bound_are_dropped() {
    let square = Program::single(ScalarOp::Mul, DType::I64, &[DType::I64; 2]);
    let mut value = Some(exprs(&["a + b"]));
    for _ in 0..64 {
        value = follow(&Op::Pointwise(square.clone()), &[value.clone(), value], &scalar(DType::I64));
    }
    assert_eq!(value, None);
    let prod = Op::Reduce(Reduce { kind: ReduceKind::Prod, axes: Axes::of([0]) });
    let sums = exprs(&["a + b + c + 1"; 200]);
    assert_eq!(follow(&prod, &[Some(sums)], &vector(DType::I64, 1)), None);
}

/// Paddings as PyTorch exports them: from the last axis to the first, in pairs, turned around through a matrix.
#[test]
fn paddings_are_turned_around() {
    let matrix = |rows: usize, columns: usize| Type { dtype: DType::I64, dims: vec![rows.into(), columns.into()] };
    let vector_of = |values: &[i64]| Some(Known(values.iter().map(|&value| value.into()).collect()));
    let pairs = follow(&Op::Reshape(exprs(&["3", "2"]).0), &[vector_of(&[1, 2, 3, 4, 0, 0])], &matrix(3, 2));
    let reverse = Op::Slice { starts: exprs(&["2", "0"]).0, steps: vec![-1, 1], dims: exprs(&["3", "2"]).0 };
    let reversed = follow(&reverse, std::slice::from_ref(&pairs), &matrix(3, 2));
    assert_eq!(reversed, vector_of(&[0, 0, 3, 4, 1, 2]));
    let mut spec = lapidary_runtime::op::Transpose { rank: 2, perm: [0; 8] };
    spec.perm[0] = 1;
    let turned = follow(&Op::Transpose(spec), &[reversed], &matrix(2, 3));
    assert_eq!(turned, vector_of(&[0, 3, 1, 0, 4, 2]));
    let row = follow(&Op::Gather { axis: 0 }, &[turned, vector_of(&[-1])], &matrix(1, 3));
    assert_eq!(row, vector_of(&[0, 4, 2]));
    // What is left of the matrix does not say how wide it was.
    let column = Op::Slice { starts: exprs(&["0", "0"]).0, steps: vec![1, 1], dims: exprs(&["3", "1"]).0 };
    assert_eq!(follow(&column, std::slice::from_ref(&pairs), &matrix(3, 1)), None);
    // Nor does a vector repeat along a matrix.
    let add = Program::single(ScalarOp::Add, DType::I64, &[DType::I64; 2]);
    assert_eq!(follow(&Op::Pointwise(add), &[pairs, vector_of(&[1, 2])], &matrix(3, 2)), None);
    let symbols = follow(&Op::Reshape(exprs(&["1", "2"]).0), &[Some(exprs(&["a", "1"]))], &matrix(1, 2));
    assert_eq!(symbols, None);
}
