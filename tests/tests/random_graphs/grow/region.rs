//! Branches and loops.

use lapidary::ir::{Expr, Graph, Op, Region, Type, ValueId};
use lapidary_runtime::DType;
use lapidary_runtime::op::{Arg, MAX_RANK, ReduceKind, Scalar, ScalarOp};

use super::super::recipe::{Choices, Words};
use super::{Grower, Grown};

/// A branch, or one time in three a loop.
pub fn region_op(g: &mut Grower<'_>, choices: &mut Choices<'_>, inner: &[Vec<Words>; 2]) -> Grown {
    if choices.once_in(3) { repeat(g, choices, &inner[0]) } else { branch(g, choices, inner) }
}

/// A `Loop` of up to three rounds that carries one or two values of the pool and captures up to two. Some have their
/// number of rounds as an operand, some a condition; those that have neither collect a row. What a round gives is the
/// last value that it made of the type that is carried.
fn repeat(g: &mut Grower<'_>, choices: &mut Choices<'_>, steps: &[Words]) -> Grown {
    let carried = choices.between(1, 2) as usize;
    let mut values: Vec<ValueId> = Vec::new();
    for _ in 0..carried + choices.below(3) {
        values.push(g.value(choices, |_| true)?);
    }
    let rounds = choices.between(0, 3);
    let limited = choices.once_in(3);
    let limit = limited.then(|| g.builder().scalar(Scalar::int(DType::I64, rounds)));
    let start = if choices.once_in(3) { Some(flag(g, choices)?) } else { None };
    let mut graph = Graph::new("body");
    graph.symbols = g.graph.symbols_inside();
    let round = graph.add_input("round", Type { dtype: DType::I64, dims: Vec::new() });
    let inputs: Vec<ValueId> =
        values.iter().enumerate().map(|(k, &value)| graph.add_input(&format!("c{k}"), g.ty(value))).collect();
    let mut pool: Vec<ValueId> = [&[round], inputs.as_slice()].concat();
    for (k, words) in steps.iter().enumerate() {
        let name = format!("{}b{k}", g.name);
        Grower { graph: &mut graph, pool: &mut pool, name, outermost: false }.step(words, None);
    }
    if start.is_some() {
        // Goes on but for the round in which it is 1.
        let name = format!("{}on", g.name);
        let mut inside = Grower { graph: &mut graph, pool: &mut pool, name, outermost: false };
        let again = inside.builder().program(&[round], |p| {
            let one = p.imm(Arg::Input(0), 1.0);
            p.push(ScalarOp::NotEqual, &[Arg::Input(0), one])
        })?;
        graph.add_output("on", again);
    }
    for (k, &input) in inputs[..carried].iter().enumerate() {
        let made = pool.iter().rev().find(|&&value| graph.ty(value) == graph.ty(input) && value != input);
        graph.add_output(&format!("r{k}"), made.copied().unwrap_or(input));
    }
    let counted = limit.is_none() && start.is_none();
    if let (true, Some(&last)) = (counted, pool.last())
        && graph.ty(last).dims.len() < MAX_RANK
        && graph.ty(last).dtype.bits() >= 8
    {
        graph.add_output("row", last);
    }
    graph.symbols.clear();
    let wanted = graph.outputs().len() - usize::from(start.is_some()) + 1;
    let most = Expr::constant(if limited { i64::MAX } else { rounds });
    let op = Op::Loop { body: Region(Box::new(graph)), carried: carried as u32, most };
    let mut operands = vec![limit, start];
    operands.extend(values.into_iter().map(Some));
    let results = g.builder().node_with(op, &operands, wanted)?;
    Ok(results.into_iter().flatten().collect())
}

/// Whether any element of some `bool` of the pool is true.
fn flag(g: &mut Grower<'_>, choices: &mut Choices<'_>) -> Result<ValueId, String> {
    let flags = g.value(choices, |ty| ty.dtype == DType::Bool)?;
    let axes: Vec<usize> = (0..g.rank(flags)).collect();
    let mut b = g.builder();
    let any = if axes.is_empty() { flags } else { b.reduce(ReduceKind::Max, flags, &axes)? };
    b.reshape(any, Vec::new())
}

/// An `If` on some `bool` of the pool (any of its elements), with up to three captures, each of which a region gives
/// back or replaces by the last value that it made of the same type.
fn branch(g: &mut Grower<'_>, choices: &mut Choices<'_>, inner: &[Vec<Words>; 2]) -> Grown {
    let condition = flag(g, choices)?;
    let mut captures: Vec<ValueId> = Vec::new();
    for _ in 0..choices.between(1, 3) {
        let capture = g.value(choices, |_| true)?;
        if !captures.contains(&capture) {
            captures.push(capture);
        }
    }
    let types: Vec<Type> = captures.iter().map(|&value| g.ty(value)).collect();
    let [then_region, else_region] = [0, 1].map(|k| region(g, &types, &inner[k], ["t", "e"][k]));
    let operands: Vec<Option<ValueId>> = std::iter::once(condition).chain(captures).map(Some).collect();
    let wanted = types.len();
    let results = g.builder().node_with(Op::If { then_region, else_region }, &operands, wanted)?;
    Ok(results.into_iter().flatten().collect())
}

fn region(g: &Grower<'_>, captures: &[Type], steps: &[Words], name: &str) -> Region {
    let mut graph = Graph::new(name);
    // The builder asks for ranges; afterwards the symbols are the outer graph's again.
    graph.symbols = g.graph.symbols_inside();
    let mut pool: Vec<ValueId> =
        captures.iter().enumerate().map(|(k, ty)| graph.add_input(&format!("c{k}"), ty.clone())).collect();
    let inputs = pool.clone();
    for (k, words) in steps.iter().enumerate() {
        let name = format!("{}{name}{k}", g.name);
        Grower { graph: &mut graph, pool: &mut pool, name, outermost: false }.step(words, None);
    }
    for (k, ty) in captures.iter().enumerate() {
        let made = pool.iter().rev().find(|&&value| graph.ty(value) == ty && !inputs.contains(&value));
        graph.add_output(&format!("r{k}"), made.copied().unwrap_or(inputs[k]));
    }
    graph.symbols.clear();
    Region(Box::new(graph))
}
