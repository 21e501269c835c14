//! The golden case of an emitted crate: made-up inputs, and what the reference evaluator computes from them.
//!
//! A case has to be small in bytes, as it is part of the crate, and in work, as the evaluator is slow. Both are
//! measured on the case itself, before it is evaluated. Typical shapes come first, then the smallest; integers that are
//! no valid index become zeros. A model that none of them suits gets no case; that is no reason to refuse a crate.

use lapidary::emit::{Array, Golden};
use lapidary::ir::eval::{self, Tensor};
use lapidary::ir::{Graph, Node, Op, Type, ValueId};

use super::inputs::{self, Extents, Integers};
use super::progress;

/// The most bytes of inputs and outputs together.
const MAX_BYTES: f64 = (256 << 10) as f64;
/// The most element operations (multiply-adds of a product, elements elsewhere): a few seconds of the evaluator.
const MAX_WORK: f64 = 2e9;

/// How many rounds a loop is taken to have where only a condition ends it.
const UNBOUNDED_ROUNDS: f64 = 1024.0;

/// The case, or why there is none.
pub fn golden(graph: &Graph) -> Result<Golden, String> {
    let mut why = Vec::new();
    for (extents, name) in [(Extents::Typical, "typical"), (Extents::Smallest, "smallest")] {
        if let Err(reason) = fits(graph, extents) {
            why.push(format!("the {name} shape {reason}"));
            continue;
        }
        for integers in [Integers::Random, Integers::Zeros] {
            let inputs = inputs::made_up(graph, extents, integers);
            let spinner = progress::spinner("evaluating a golden case".to_owned());
            let outputs = eval::run(graph, &inputs);
            spinner.finish_and_clear();
            match outputs {
                Ok(outputs) => return Ok(Golden { inputs: arrays(inputs), outputs: arrays(outputs) }),
                Err(error) => why.push(format!("made-up inputs of the {name} shape do not suit the model ({error})")),
            }
        }
    }
    why.dedup();
    Err(why.join("; "))
}

fn arrays(tensors: Vec<Tensor>) -> Vec<Array> {
    let array = |x: Tensor| Array { dtype: x.dtype, dims: x.dims, bytes: x.bytes.to_vec() };
    tensors.into_iter().map(array).collect()
}

fn fits(graph: &Graph, extents: Extents) -> Result<(), String> {
    if !extents.fit(graph) {
        return Err("breaks a rule of the model".to_owned());
    }
    let ports = graph.inputs().iter().chain(graph.outputs().iter().map(|(_, value)| value));
    let bytes: f64 = ports.map(|&value| count(graph, extents, graph.ty(value)) * bytes_of(graph.ty(value))).sum();
    if bytes > MAX_BYTES {
        return Err(format!("has {:.1} MB of inputs and outputs", bytes / 1e6));
    }
    let work = work(graph, graph, extents);
    if work > MAX_WORK { Err(format!("takes {:.1} billion operations", work / 1e9)) } else { Ok(()) }
}

fn bytes_of(ty: &Type) -> f64 {
    ty.dtype.bits() as f64 / 8.0
}

fn count(symbols: &Graph, extents: Extents, ty: &Type) -> f64 {
    extents.dims(symbols, &ty.dims).iter().map(|&extent| extent as f64).product()
}

/// Element operations of a graph or a region; `symbols` is the outermost graph.
fn work(graph: &Graph, symbols: &Graph, extents: Extents) -> f64 {
    graph.order().into_iter().map(|node| work_of(graph.node(node), graph, symbols, extents)).sum()
}

fn work_of(node: &Node, graph: &Graph, symbols: &Graph, extents: Extents) -> f64 {
    let all = |values: &[Option<ValueId>]| -> f64 {
        values.iter().flatten().map(|&value| count(symbols, extents, graph.ty(value))).sum()
    };
    let operand = |k: usize| node.inputs.get(k).copied().flatten();
    let elements = |k: usize| operand(k).map_or(0.0, |value| count(symbols, extents, graph.ty(value)));
    let extent = |k: usize, axis: fn(usize) -> usize| -> f64 {
        let dims = operand(k).map(|value| extents.dims(symbols, &graph.ty(value).dims)).unwrap_or_default();
        let extent = dims.get(axis(dims.len())).copied().unwrap_or(1);
        extent.max(1) as f64
    };
    let results = all(&node.outputs);
    match &node.op {
        // Of each result one product a weight of its channel.
        Op::Conv(..) => results * elements(1) / extent(1, |_| 0),
        Op::ConvTranspose(..) => elements(0) * elements(1) / extent(1, |_| 0),
        Op::MatMul(spec, _) => {
            let behind: fn(usize) -> usize = |rank| rank.saturating_sub(1);
            let depth: fn(usize) -> usize = if spec.transpose_a { |rank| rank.saturating_sub(2) } else { behind };
            results * extent(0, depth)
        }
        // Operand x is [steps, batch, inputs]: every step and row meets every weight.
        Op::Recurrent(_) => extent(0, |_| 0) * extent(0, |_| 1) * (elements(1) + elements(2)),
        // A score is a sum over the depth, and a result one over the keys.
        Op::Attention(_) => results * extent(1, |_| 2) * 2.0,
        Op::Pool(spec, _) => {
            let window = spec.window.size.iter().take(usize::from(spec.window.rank)).map(|&size| f64::from(size));
            results * window.product::<f64>()
        }
        Op::If { then_region, else_region } => {
            work(&then_region.0, symbols, extents).max(work(&else_region.0, symbols, extents))
        }
        // A loop without a bound is taken to have few rounds: it is made up what it runs on.
        Op::Loop { body, most, .. } => {
            let most = extents.dims(symbols, std::slice::from_ref(most)).first().map_or(0.0, |&most| most as f64);
            work(&body.0, symbols, extents) * most.min(UNBOUNDED_ROUNDS)
        }
        Op::Pointwise(program) => results * (1 + program.steps.len()) as f64,
        Op::Reduce(_)
        | Op::ArgReduce(_)
        | Op::Softmax(_)
        | Op::Norm(..)
        | Op::GroupNorm(..)
        | Op::Reshape(_)
        | Op::BitCast(_)
        | Op::Transpose(_)
        | Op::Expand(_)
        | Op::Slice { .. }
        | Op::Concat { .. }
        | Op::Pad { .. }
        | Op::Gather { .. }
        | Op::GatherElements { .. }
        | Op::GatherNd { .. }
        | Op::ScatterElements { .. }
        | Op::ScatterNd { .. }
        | Op::Resize(..)
        | Op::RegionPool(_)
        | Op::Suppress
        | Op::CumSum { .. }
        | Op::TopK { .. }
        | Op::Range { .. }
        | Op::Extents { .. }
        | Op::RunCount => all(&node.inputs) + results,
    }
}
