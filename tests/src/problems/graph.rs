//! A problem as a graph of one operation, for the reference evaluator and for the whole way to a plan.

use std::sync::Arc;

use lapidary::ir::builder::Builder;
use lapidary::ir::{Expr, Graph, Op, Origin, Range, Symbol, SymbolSource, Type, ValueId};
use lapidary_runtime::DType;
use lapidary_templates::{Kind, Problem};

/// How far the symbols' ranges reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// Those of [`super::range`].
    Wide,
    /// To 160: what an arena of the wide ranges would be too large for.
    Narrow,
}

impl Spread {
    fn range(self, symbol: &str) -> Range {
        let (min, opt, max) = super::range(symbol);
        let limit = if self == Spread::Wide { max } else { 160 };
        Range { min: min.min(limit), opt: opt.min(limit), max: max.min(limit) }
    }
}

/// The graph of a problem. Symbols that no operand shows are the extents of one more input, which is not read.
///
/// # Errors
/// Why the operation does not fit its operands.
pub fn graph(problem: &Problem, spread: Spread) -> Result<Graph, String> {
    let mut graph = Graph::new("problem");
    let mut inputs: Vec<Option<ValueId>> = Vec::new();
    for (k, operand) in problem.inputs.iter().enumerate() {
        inputs.push(operand.as_ref().map(|ty| input(&mut graph, &format!("x{k}"), ty.clone(), spread)));
    }
    let unseen = symbols(problem).into_iter().filter(|name| !graph.symbols.contains_key(name));
    let hidden: Vec<Expr> = unseen.map(|name| Expr::symbol(&name)).collect();
    if !hidden.is_empty() {
        input(&mut graph, "extents", Type { dtype: DType::U8, dims: hidden }, spread);
    }
    let Some(op) = op(problem) else {
        // A copy: lowering makes one where an input is an output.
        graph.add_output("y0", inputs[0].ok_or("a copy of nothing")?);
        return Ok(graph);
    };
    let mut builder = Builder::new(&mut graph, Origin(vec!["problem".into()]), "y");
    if let Kind::Pair(pair) = &problem.kind {
        let mut rest = inputs.split_off(pair.first.inputs.len());
        let between = builder.node_with(self::op(&pair.first).ok_or("a copy in a pair")?, &inputs, 1)?;
        rest.insert(pair.at, between[0]);
        inputs = rest;
    }
    let results = builder.node_with(op, &inputs, problem.outputs.len())?;
    for (k, wanted) in problem.outputs.iter().enumerate() {
        let Some(wanted) = wanted else { continue };
        let value = results[k].ok_or_else(|| format!("result {k} is not there"))?;
        let given = graph.ty(value);
        if given != wanted {
            return Err(format!("result {k} is {given:?}, the problem says {wanted:?}"));
        }
        graph.add_output(&format!("y{k}"), value);
    }
    Ok(graph)
}

fn input(graph: &mut Graph, name: &str, ty: Type, spread: Spread) -> ValueId {
    let number = graph.inputs().len();
    for (axis, dim) in ty.dims.iter().enumerate() {
        if let Some(symbol) = dim.as_symbol() {
            let source = SymbolSource::Input { input: number, axis };
            let ranges = vec![spread.range(symbol)];
            graph.symbols.entry(symbol.into()).or_insert(Symbol { source, ranges });
        }
    }
    graph.add_input(name, ty)
}

/// The symbols of a problem, sorted.
fn symbols(problem: &Problem) -> Vec<Arc<str>> {
    let operands = problem.inputs.iter().chain(&problem.outputs).flatten();
    let mut found: Vec<_> = operands.flat_map(|operand| &operand.dims).flat_map(Expr::symbols).collect();
    if let Kind::Extents(values) = &problem.kind {
        found.extend(values.iter().flat_map(Expr::symbols));
    }
    found.sort();
    found.dedup();
    found
}

/// The operation; `None` for a copy.
fn op(problem: &Problem) -> Option<Op> {
    let result = |k: usize| problem.outputs[k].as_ref().map(|operand| operand.dims.clone()).unwrap_or_default();
    let spatial = || result(0).split_off(2);
    let op = match problem.kind.clone() {
        Kind::Pointwise(program) => Op::Pointwise(program),
        Kind::MatMul(spec, epilogue) => Op::MatMul(spec, epilogue),
        Kind::Conv(spec, epilogue) => Op::Conv(spec, epilogue),
        Kind::ConvTranspose(spec) => Op::ConvTranspose(spec, spatial()),
        Kind::Pool(spec) => Op::Pool(spec, spatial()),
        Kind::Reduce(spec) => Op::Reduce(spec),
        Kind::ArgReduce(spec) => Op::ArgReduce(spec),
        Kind::Softmax(spec) => Op::Softmax(spec),
        Kind::Attention(spec, _) => Op::Attention(spec),
        Kind::Norm(spec, epilogue) => Op::Norm(spec, epilogue),
        Kind::GroupNorm(spec, epilogue) => Op::GroupNorm(spec, epilogue),
        Kind::Transpose(spec) => Op::Transpose(spec),
        Kind::Expand => Op::Expand(result(0)),
        Kind::Slice { starts, steps } => Op::Slice { starts, steps, dims: result(0) },
        Kind::Concat { axis } => Op::Concat { axis },
        Kind::Pad { mode, lo } => {
            let before = problem.inputs[0].as_ref().map(|operand| operand.dims.clone()).unwrap_or_default();
            let hi =
                result(0).into_iter().zip(before).zip(&lo).map(|((after, before), lo)| after - before - lo.clone());
            Op::Pad { mode, hi: hi.collect(), lo }
        }
        Kind::Gather { axis } => Op::Gather { axis },
        Kind::GatherElements { axis } => Op::GatherElements { axis },
        Kind::GatherNd { batch_dims } => Op::GatherNd { batch_dims },
        Kind::ScatterElements { axis, mode } => Op::ScatterElements { axis, mode },
        Kind::ScatterNd { mode } => Op::ScatterNd { mode },
        Kind::Resize(spec) => Op::Resize(spec, result(0)),
        Kind::RegionPool(spec) => Op::RegionPool(spec),
        Kind::Recurrent(spec) => Op::Recurrent(spec),
        Kind::Suppress => Op::Suppress,
        Kind::CumSum { axis, exclusive, reverse } => Op::CumSum { axis, exclusive, reverse },
        Kind::TopK { axis, largest } => Op::TopK { axis, largest, k: result(0)[usize::from(axis)].clone() },
        Kind::Range => Op::Range { count: result(0)[0].clone() },
        Kind::Extents(values) => Op::Extents { values, rank: result(0).len() as u8 },
        Kind::Copy => return None,
        Kind::Pair(pair) => return op(&pair.second),
    };
    Some(op)
}
