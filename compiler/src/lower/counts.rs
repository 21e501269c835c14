//! Extents that only a run knows: where the host has to learn them.
//!
//! A count is computed like any tensor. The `cpu` target reads it at once. On a GPU reading it makes the host wait, so
//! it is put off until a step cannot do without: steps that treat the elements along a counted outermost axis one by one
//! run on as many as there can be, and what they make of those beyond the count is never looked at.

use std::sync::Arc;

use lapidary_templates::{Kind, Operand, Problem};

use super::{Lowering, Program, SegmentId, Step, Target, TensorId, Tensors};
use crate::ir::{Expr, Graph, Symbol, SymbolSource, ValueId};

/// A count whose tensor is there, and whose symbol the host does not know yet.
pub(super) struct OpenCount {
    /// Its place in [`Program::symbols`].
    symbol: usize,
    name: Arc<str>,
    at: TensorId,
    label: String,
}

/// The symbols of a graph: those of inputs, then counts, each behind those that bound it.
pub(super) fn in_order(graph: &Graph) -> Vec<(Arc<str>, Symbol)> {
    let all = graph.symbols.iter().map(|(name, symbol)| (name.clone(), symbol.clone()));
    let (mut ordered, mut open): (Vec<_>, Vec<_>) =
        all.partition(|(_, symbol)| matches!(symbol.source, SymbolSource::Input { .. }));
    while !open.is_empty() {
        let known = |name: &str, ordered: &[(Arc<str>, Symbol)]| ordered.iter().any(|(other, _)| &**other == name);
        let bounded = |(_, symbol): &(Arc<str>, Symbol)| match &symbol.source {
            SymbolSource::Count(count) => count.bound.symbols().iter().all(|name| known(name, &ordered)),
            SymbolSource::Input { .. } | SymbolSource::Outer => true,
        };
        let Some(next) = open.iter().position(bounded) else { crate::bug!("counts bound each other in a circle") };
        ordered.push(open.remove(next));
    }
    ordered
}

impl Lowering<'_> {
    /// Whether a symbol has its value from `value`. Regions have values of the same numbers, and no counts.
    pub(super) fn is_count(&self, graph: &Graph, value: ValueId) -> bool {
        std::ptr::eq(graph, self.symbols) && graph.is_count(value)
    }

    /// Takes note of the counts that `value` holds, which has just been computed.
    pub(super) fn counted(&mut self, graph: &Graph, value: ValueId, tensors: &mut Tensors) {
        if !self.is_count(graph, value) {
            return;
        }
        let holds = |symbol: &Symbol| matches!(&symbol.source, SymbolSource::Count(count) if count.at == value);
        let symbols = self.program.symbols.iter().enumerate().filter(|(_, (_, symbol))| holds(symbol));
        let found: Vec<(usize, Arc<str>)> = symbols.map(|(k, (name, _))| (k, name.clone())).collect();
        for (symbol, name) in found {
            let at = self.tensor(graph, value, tensors);
            let label = match graph.producer(value) {
                Some(node) => graph.node(node).origin.to_string(),
                None => graph.value(value).name.to_string(),
            };
            self.open.push(OpenCount { symbol, name, at, label });
        }
        if self.target == Target::Cpu {
            self.settle_counts(Program::MAIN);
        }
    }

    /// Lets the host learn every open count.
    pub(super) fn settle_counts(&mut self, segment: SegmentId) {
        for OpenCount { symbol, at, label, .. } in std::mem::take(&mut self.open) {
            self.program.segments[segment.0 as usize].push(Step::Count { symbol, at, label });
        }
    }

    /// Whether a problem may be solved for the bounds of the open counts instead of the counts.
    pub(super) fn runs_on_bounds(&self, problem: &Problem) -> bool {
        self.open.iter().all(|count| {
            let bound = match &self.program.symbols[count.symbol].1.source {
                SymbolSource::Count(count) => &count.bound,
                SymbolSource::Input { .. } | SymbolSource::Outer => return false,
            };
            let holds = |extent: &Expr| self.symbols.range(&(extent.clone() - bound.clone())).0 >= 0;
            is_indifferent(problem, &count.name, &holds)
        })
    }
}

/// Whether what a problem computes for elements along the outermost axis of extent `count` depends on those elements
/// alone, or whether it has nothing to do with the count at all. `holds` says whether an axis has room for the bound.
fn is_indifferent(problem: &Problem, count: &str, holds: &dyn Fn(&Expr) -> bool) -> bool {
    let has = |expr: &Expr| expr.symbols().iter().any(|name| &**name == count);
    let touched = |ty: &Operand| ty.dims.iter().any(has);
    let outermost = |ty: &Operand| {
        let (first, rest) = match ty.dims.split_first() {
            Some(split) => split,
            None => return true,
        };
        (!has(first) || first.as_symbol() == Some(count)) && !rest.iter().any(has)
    };
    let operands = || problem.inputs.iter().chain(&problem.outputs).flatten();
    let payload = super::extents_of(&problem.kind);
    if !operands().any(touched) {
        return !payload.iter().any(|extent| has(extent));
    }
    let rows = |ty: &Operand| ty.dims.first().and_then(Expr::as_symbol) == Some(count);
    let Some(result) = problem.outputs.first().and_then(Option::as_ref).filter(|result| rows(result)) else {
        return false;
    };
    // An operand has the rows of the result, or the same for all of them. One with another extent there would be
    // repeated if there is one row, and only the count says so.
    let aligned = |ty: &Operand| match touched(ty) {
        true => ty.dims.len() == result.dims.len(),
        false => ty.dims.len() < result.dims.len() || ty.dims[0].is(1),
    };
    let operand = |k: usize| problem.inputs.get(k).and_then(Option::as_ref);
    let untouched = |k: usize| operand(k).is_some_and(|ty| !touched(ty));
    operands().all(outermost)
        && match &problem.kind {
            Kind::Pointwise(_) => operands().all(aligned),
            Kind::Copy => operands().all(rows),
            // The first rows, as many as there are.
            Kind::Slice { starts, steps } => {
                steps.first() == Some(&1)
                    && starts.first().is_some_and(|start| start.is(0))
                    && !payload.iter().any(|extent| has(extent))
                    && operand(0).and_then(|x| x.dims.first()).is_some_and(|first| has(first) || holds(first))
            }
            // Rows of what is not counted, by counted indices; a kernel keeps indices in range.
            Kind::Gather { axis: 0 } | Kind::GatherNd { batch_dims: 0 } => untouched(0),
            // Regions of images that are not counted, each by itself.
            Kind::RegionPool(_) => untouched(0),
            Kind::Gather { .. } => untouched(1),
            Kind::Concat { axis } => *axis > 0 && operands().all(rows),
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::text;
    use crate::lower::lower;

    /// The first rows of x, doubled: as many as a sum says; and their mean.
    const GRAPH: &str = r#"graph "g" {
  symbol c = count %3 of (8), 0..8..8
  input %0 "x" f32[8, 4]
  input %1 "flags" i64[8]
  %2 "sum" i64[1] = reduce(%1) { kind sum axes [0] } from "S"
  %3 "count" i64[] = reshape(%2) { dims [] } from "C"
  %4 "front" f32[c, 4] = slice(%0) { starts [0, 0] steps [1, 1] dims [c, 4] } from "F"
  %5 "double" f32[c, 4] = pointwise(%4) { in f32; s0 = add f32 in0 in0; out s0 } from "D"
  %6 "mean" f32[1, 4] = reduce(%5) { kind mean axes [0] } from "M"
  output "double" %5
OUTPUT
}"#;

    fn steps(target: &str, outputs: &str) -> Vec<String> {
        let graph = text::parse(&GRAPH.replace("OUTPUT", outputs), &|_| None).expect("a graph");
        let program = lower(&graph, target.parse().expect("a target")).expect("kernels");
        let label = |step: &Step| match step {
            Step::Work(work) => work.label.clone(),
            Step::Count { label, .. } => format!("count {label}"),
            Step::If { label, .. } => label.clone(),
            Step::Loop(step) => step.label.clone(),
        };
        program.segment(Program::MAIN).iter().map(label).collect()
    }

    /// With one row, eight rows of w would each meet that one.
    #[test]
    fn what_a_count_broadcasts_waits_for_it() {
        let graph = GRAPH.replace(
            r#"  %6 "mean" f32[1, 4] = reduce(%5) { kind mean axes [0] } from "M""#,
            r#"  constraint broadcast(c, 8) "A"
  %6 "sum" f32[8, 4] = pointwise(%5, %0) { in f32 f32; s0 = add f32 in0 in1; out s0 } from "A""#,
        );
        let graph = text::parse(&graph.replace("OUTPUT", r#"  output "sum" %6"#), &|_| None).expect("a graph");
        let program = lower(&graph, "sm_90a".parse().expect("a target")).expect("kernels");
        let is_count = |step: &Step| matches!(step, Step::Count { .. });
        let steps = program.segment(Program::MAIN);
        assert_eq!(steps.iter().position(is_count), Some(steps.len() - 2));
    }

    /// Where a view begins is a formula of the kernel's, and may be a count.
    #[test]
    fn a_view_that_begins_at_a_count_waits_for_it() {
        let graph = r#"graph "g" {
  symbol c = count %4 of (8), 0..8..8
  input %0 "marks" i64[8]
  input %1 "q" f32[1, 1, 4, 8]
  input %2 "table" f32[1, 1, 16, 8]
  %3 "sum" i64[1] = reduce(%0) { kind sum axes [0] } from "S"
  %4 "count" i64[] = reshape(%3) { dims [] } from "R"
  %5 "k" f32[1, 1, 4, 8] = slice(%2) { starts [0, 0, c, 0] steps [1, 1, 1, 1] dims [1, 1, 4, 8] } from "K"
  %6 "y" f32[1, 1, 4, 8] = attention(%1, %5, %5) { scale 0.5f32 } from "Y"
  output "y" %6
}"#;
        let graph = text::parse(graph, &|_| None).expect("a graph");
        let program = lower(&graph, "sm_90a".parse().expect("a target")).expect("kernels");
        let steps = program.segment(Program::MAIN);
        let count = steps.iter().position(|step| matches!(step, Step::Count { .. })).expect("a count");
        let attention = steps.iter().position(|step| step.label() == "Y").expect("attention");
        assert!(count < attention, "the count is read at {count}, attention runs at {attention}");
    }

    #[test]
    fn a_gpu_runs_on_the_bound_as_long_as_it_can() {
        let with_mean = r#"  output "mean" %6"#;
        let without = steps("sm_90a", "");
        assert_eq!(without[..3], ["S", "F", "D"]);
        assert_eq!(steps("sm_90a", with_mean), ["S", "F", "D", "count C", "M"]);
        assert_eq!(steps("cpu", with_mean), ["S", "count C", "F", "D", "M"]);
    }
}
