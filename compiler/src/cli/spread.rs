//! How far apart right results of a case are, measured on the reference evaluator.
//!
//! Only models that round while they run (quantize) are measured: there an error of the last bit becomes one of a whole
//! step, and a chain of such steps has no bound that is known beforehand.

use std::collections::BTreeMap;

use lapidary::ir::eval::{self, Tensor};
use lapidary::ir::{Graph, Op};
use lapidary_runtime::op::ScalarOp;

use super::Failure;
use super::case::{Bar, Yardstick};

/// How many jittered evaluations there are at most.
pub const MOST_JITTERS: u64 = 8;

/// What a sum is moved by, as a share of itself: rounding of `f32` in another order.
const SHARE: f64 = 1e-6;

/// Of each output the least and the largest value of every element, over the evaluations so far.
pub struct Spread(BTreeMap<String, Vec<(f64, f64)>>);

impl Spread {
    /// The spread of the evaluation itself: none.
    pub fn start(graph: &Graph, inputs: &[Tensor]) -> Result<Spread, Failure> {
        let outputs = eval::run(graph, inputs)?;
        let bounds = outputs.iter().map(|output| output.to_f64s().into_iter().map(|x| (x, x)).collect());
        Ok(Spread(graph.outputs().iter().map(|(name, _)| name.clone()).zip(bounds).collect()))
    }

    /// Takes one jittered evaluation in.
    pub fn widen(&mut self, graph: &Graph, inputs: &[Tensor], seed: u64) -> Result<(), Failure> {
        let outputs = eval::run_jittered(graph, inputs, SHARE, seed)?;
        for ((name, _), output) in graph.outputs().iter().zip(outputs) {
            let Some(bounds) = self.0.get_mut(name) else { continue };
            for (bound, x) in bounds.iter_mut().zip(output.to_f64s()) {
                *bound = (bound.0.min(x), bound.1.max(x));
            }
        }
        Ok(())
    }

    /// `bar`, or the spread of output `name` where that is wider.
    pub fn bar(&self, name: &str, expected: &Tensor, bar: Bar) -> Bar {
        let Bar::OfRange(stated, _) = bar else { return bar };
        let range = expected.to_f64s().iter().fold(0.0f64, |range, x| range.max(x.abs()));
        let widest = self.0.get(name).into_iter().flatten().map(|(low, high)| high - low).fold(0.0, f64::max);
        let share = widest / range;
        if share > stated { Bar::OfRange(share, Yardstick::Measured) } else { bar }
    }
}

/// Whether the model rounds while it runs.
pub fn rounds(graph: &Graph) -> bool {
    let rounding = |op: &Op| match op {
        Op::Pointwise(program) => program.steps.iter().any(|step| step.op == ScalarOp::Round),
        _ => false,
    };
    graph.order().into_iter().any(|id| rounding(&graph.node(id).op))
}
