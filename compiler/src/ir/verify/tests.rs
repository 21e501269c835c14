use bytes::Bytes;
use lapidary_runtime::op::{Axes, MatMul, Math, Reduce, ReduceKind, ScalarOp};

use super::*;
use crate::ir::{Constant, Constraint, Count, Op, Origin, Program, Range, Region};

fn expr(text: &str) -> Expr {
    text.parse().unwrap()
}

fn ty(dtype: DType, dims: &[&str]) -> Type {
    Type { dtype, dims: dims.iter().map(|dim| expr(dim)).collect() }
}

fn f32s(dims: &[&str]) -> Type {
    ty(DType::F32, dims)
}

fn add() -> Op {
    Op::Pointwise(Program::single(ScalarOp::Add, DType::F32, &[DType::F32; 2]))
}

fn node(graph: &mut Graph, op: Op, inputs: &[ValueId], result: Type) -> ValueId {
    let inputs = inputs.iter().copied().map(Some).collect();
    let id = graph.add_node(op, inputs, vec![Some(("y".into(), result))], Origin(vec!["Op_1 (Op)".into()]));
    graph.node(id).outputs[0].unwrap()
}

fn declare(graph: &mut Graph, name: &str, input: usize, axis: usize) {
    let source = SymbolSource::Input { input, axis };
    graph.symbols.insert(name.into(), Symbol { source, ranges: vec![Range { min: 1, opt: 4, max: 64 }] });
}

/// Inputs x `[a]` and y `[b]`.
fn two_vectors() -> (Graph, ValueId, ValueId) {
    let mut graph = Graph::new("test");
    let x = graph.add_input("x", f32s(&["a"]));
    let y = graph.add_input("y", f32s(&["b"]));
    declare(&mut graph, "a", 0, 0);
    declare(&mut graph, "b", 1, 0);
    (graph, x, y)
}

fn constrain(graph: &mut Graph, kind: ConstraintKind, left: &str, right: &str) {
    graph.constraints.push(Constraint { kind, left: expr(left), right: expr(right), why: "Op_1 (Op)".into() });
}

fn errors(graph: &Graph) -> Vec<String> {
    verify(graph).err().unwrap_or_default()
}

#[test]
fn a_graph_that_states_what_it_relies_on_is_right() {
    let (mut graph, x, y) = two_vectors();
    let sum = node(&mut graph, add(), &[x, y], f32s(&["bcast(a, b)"]));
    graph.add_output("sum", sum);
    assert_eq!(errors(&graph), ["%2 = pointwise from Op_1 (Op): no constraint states that a and b broadcast"]);
    constrain(&mut graph, ConstraintKind::Broadcast, "b", "a");
    assert_eq!(errors(&graph), [""; 0]);
}

#[test]
fn types_are_equal_up_to_constraints() {
    let (mut graph, x, y) = two_vectors();
    let sum = node(&mut graph, add(), &[x, y], f32s(&["b"]));
    let twice = node(&mut graph, Op::Reshape(vec![expr("b"), expr("1")]), &[sum], f32s(&["a", "1"]));
    graph.add_output("twice", twice);
    constrain(&mut graph, ConstraintKind::Equal, "a", "b");
    assert_eq!(errors(&graph), [""; 0]);
    graph.constraints.clear();
    constrain(&mut graph, ConstraintKind::Broadcast, "a", "b");
    assert_eq!(
        errors(&graph),
        [
            "%2 = pointwise from Op_1 (Op): result 0 is f32[b], and should be f32[bcast(a, b)]",
            "%3 = reshape from Op_1 (Op): result 0 is f32[a, 1], and should be f32[b, 1]",
        ]
    );
}

#[test]
fn multiples_of_an_equation_follow() {
    let (mut graph, x, _) = two_vectors();
    let y = node(&mut graph, Op::Concat { axis: 0 }, &[x, x, x], f32s(&["3*a"]));
    let pairs = Op::Reshape(vec![expr("floor(a, 2)"), expr("6")]);
    let z = node(&mut graph, pairs, &[y], f32s(&["floor(a, 2)", "6"]));
    graph.add_output("z", z);
    assert_eq!(errors(&graph), ["%3 = reshape from Op_1 (Op): no constraint states that 3*a equals 6*floor(a, 2)"]);
    constrain(&mut graph, ConstraintKind::Equal, "2*floor(a, 2)", "a");
    assert_eq!(errors(&graph), [""; 0]);
}

#[test]
fn wrong_types_and_operands_are_found() {
    let mut graph = Graph::new("test");
    let x = graph.add_input("x", f32s(&["2", "3"]));
    let y = graph.add_input("x", f32s(&["4", "5"]));
    let spec = MatMul { transpose_a: false, transpose_b: false, math: Math::Exact };
    let product = node(&mut graph, Op::MatMul(spec, None), &[x, y], f32s(&["2", "5"]));
    let sum = node(&mut graph, Op::Reduce(Reduce { kind: ReduceKind::Sum, axes: Axes::of([1]) }), &[x], f32s(&["2"]));
    graph.add_output("y", product);
    graph.add_output("y", sum);
    assert_eq!(
        errors(&graph),
        [
            "two inputs have the name \"x\"",
            "two outputs have the name \"y\"",
            "%2 = matmul from Op_1 (Op): the inner extents of a and b differ: 3 and 4",
            "%3 = reduce from Op_1 (Op): result 0 is f32[2], and should be f32[2, 1]",
        ]
    );
}

#[test]
fn a_cycle_is_found() {
    let mut graph = Graph::new("test");
    let x = graph.add_input("x", f32s(&["2"]));
    let first = node(&mut graph, add(), &[x, x], f32s(&["2"]));
    let second = node(&mut graph, add(), &[first, x], f32s(&["2"]));
    graph.add_output("y", second);
    graph.replace_uses(x, second);
    assert_eq!(errors(&graph), ["the nodes form a cycle"]);
}

#[test]
fn constants_have_the_bytes_of_their_types() {
    let mut graph = Graph::new("test");
    let constant = |n: usize| Constant { bytes: Bytes::from(vec![0; n]), initializer: None };
    graph.add_constant("a", ty(DType::I4, &["3"]), constant(2));
    graph.add_constant("b", f32s(&["3"]), constant(11));
    graph.add_constant("c", f32s(&["9223372036854775807", "2"]), constant(1));
    assert_eq!(
        errors(&graph),
        [
            "%1 \"b\": f32[3] has 12 bytes, and the constant 11",
            "%2 \"c\": f32[9223372036854775807, 2] is larger than memory",
        ]
    );
}

#[test]
fn symbols_are_declared_and_bounded() {
    let (mut graph, x, _) = two_vectors();
    let y = node(&mut graph, Op::Expand(vec![expr("c"), expr("a")]), &[x], f32s(&["c", "a"]));
    graph.add_output("y", y);
    assert_eq!(
        errors(&graph),
        [
            "%2 \"y\": the symbol \"c\" is not declared",
            "%2 = expand from Op_1 (Op): the symbol \"c\" is not declared",
            // It may be anything.
            "%2 = expand from Op_1 (Op): f32[c, a] takes up to 4e19 bytes, which is more than a TiB",
        ]
    );
    let count = SymbolSource::Count(Count { at: x, bound: expr("d") });
    graph.symbols.insert("c".into(), Symbol { source: count, ranges: vec![Range { min: 0, opt: 9, max: 8 }] });
    declare(&mut graph, "b", 1, 1);
    assert_eq!(
        errors(&graph),
        [
            "the symbol \"b\" is axis 1 of input 1, which is not there",
            "the symbol \"c\" has the range 0..9..8, which is out of order",
            "the symbol \"c\" counts by %0, which is f32[a] and not an i64 scalar",
        ]
    );
}

#[test]
fn regions_are_checked_inside() {
    let (mut graph, x, _) = two_vectors();
    let condition = graph.add_input("condition", ty(DType::Bool, &[]));
    let region = |result: &str| {
        let mut region = Graph::new("branch");
        let x = region.add_input("x", f32s(&["a"]));
        let y = node(&mut region, add(), &[x, x], f32s(&[result]));
        region.add_output("y", y);
        Region(Box::new(region))
    };
    let op = Op::If { then_region: region("a"), else_region: region("2*a") };
    let y = node(&mut graph, op, &[condition, x], f32s(&["a"]));
    graph.add_output("y", y);
    assert_eq!(
        errors(&graph),
        [
            "%3 = if from Op_1 (Op): no constraint states that a equals 2*a",
            "%3 = if from Op_1 (Op), else: %1 = pointwise from Op_1 (Op): \
             result 0 is f32[2*a], and should be f32[a]",
        ]
    );
}
