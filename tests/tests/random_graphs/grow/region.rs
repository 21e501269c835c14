//! Branches.

use lapidary::ir::{Graph, Op, Region, Type, ValueId};
use lapidary_runtime::DType;
use lapidary_runtime::op::ReduceKind;

use super::super::recipe::{Choices, Words};
use super::{Grower, Grown};

/// An `If` on some `bool` of the pool (any of its elements), with up to three captures, each of which a region gives
/// back or replaces by the last value that it made of the same type.
pub fn branch(g: &mut Grower<'_>, choices: &mut Choices<'_>, inner: &[Vec<Words>; 2]) -> Grown {
    let flags = g.value(choices, |ty| ty.dtype == DType::Bool)?;
    let axes: Vec<usize> = (0..g.rank(flags)).collect();
    let mut b = g.builder();
    let any = if axes.is_empty() { flags } else { b.reduce(ReduceKind::Max, flags, &axes)? };
    let condition = b.reshape(any, Vec::new())?;
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
