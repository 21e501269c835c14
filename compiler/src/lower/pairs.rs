//! Two operations in one kernel: where one alone reads what the other gives, and a family does both at once in less time.
//!
//! Does: covers a node and the one that reads its one result by one problem, [`Kind::Pair`], which stands where the second node
//! stood. Needs: the nodes that are put off or form groups, which are left alone. Chosen by predicted cost, in order; a node
//! is in one pair at most. Not here: the `cpu` target, which has a function for each operation.

use std::collections::{BTreeMap, BTreeSet};

use lapidary_templates::{Kind, Pair, Problem};

use super::{Lowering, SegmentId, Target, Tensors, kind_of};
use crate::ir::{Graph, Node, NodeId, Use, ValueId};

/// A node that the one at hand is computed together with.
pub(super) struct With {
    pub first: NodeId,
    kind: Kind,
    /// The operands of both.
    inputs: Vec<Option<ValueId>>,
}

impl Lowering<'_> {
    /// The pairs of a graph, by their second nodes. `taken` nodes are in none.
    pub(super) fn pairs(&self, graph: &Graph, taken: &BTreeSet<NodeId>) -> BTreeMap<NodeId, With> {
        let mut pairs = BTreeMap::new();
        if self.target == Target::Cpu {
            return pairs;
        }
        let mut paired: BTreeSet<NodeId> = taken.clone();
        for id in graph.order().into_iter().filter(|id| !taken.contains(id)) {
            let Some((reader, with)) = self.pair_of(graph, id) else { continue };
            if !paired.contains(&id) && !paired.contains(&reader) {
                paired.extend([id, reader]);
                pairs.insert(reader, with);
            }
        }
        pairs
    }

    /// The node that alone reads what this one gives, if both together cost less.
    fn pair_of(&self, graph: &Graph, id: NodeId) -> Option<(NodeId, With)> {
        let node = graph.node(id);
        let &[Some(result)] = &node.outputs[..] else { return None };
        let &[Use::Operand(reader, at)] = &graph.uses(result)[..] else { return None };
        // What weights alone decide is computed once, at load.
        let computed = node.inputs.iter().flatten().any(|value| graph.constant(*value).is_none());
        if !computed || self.is_count(graph, result) {
            return None;
        }
        let second = graph.node(reader);
        let kept = second.inputs.iter().enumerate().filter(|(k, _)| *k != at).map(|(_, value)| *value);
        let inputs = node.inputs.iter().copied().chain(kept).collect();
        let pair = Pair { first: problem_of(graph, node)?, second: problem_of(graph, second)?, at };
        let together = pair.problem();
        let cost = self.cost(&together)?;
        let apart = self.node_cost(graph, node)? + self.node_cost(graph, second)?;
        (cost <= apart).then_some((reader, With { first: id, kind: together.kind, inputs }))
    }

    /// Lowers a node together with its first.
    pub(super) fn pair(&mut self, graph: &Graph, with: &With, node: &Node, tensors: &mut Tensors, segment: SegmentId) {
        let origin = graph.node(with.first).origin.merge(&node.origin);
        let both = Node { inputs: with.inputs.clone(), origin, ..node.clone() };
        self.problem(graph, &both, with.kind.clone(), tensors, segment);
    }
}

/// A node as a problem; `None` for views and control flow.
fn problem_of(graph: &Graph, node: &Node) -> Option<Problem> {
    let types =
        |values: &[Option<ValueId>]| values.iter().map(|value| value.map(|value| graph.ty(value).clone())).collect();
    Some(Problem { kind: kind_of(graph, node)?, inputs: types(&node.inputs), outputs: types(&node.outputs) })
}

#[cfg(test)]
mod tests {
    use crate::ir::text;
    use crate::lower::{Program, Step, lower};

    /// Squeeze and excitation of x.
    const GRAPH: &str = r#"graph "g" {
  input %0 "x" f16[1, 64, 14, 14]
  const %1 "w1" f16[16, 64, 1, 1] = init "w1"
  const %2 "w2" f16[64, 16, 1, 1] = init "w2"
  %3 "mean" f16[1, 64, 1, 1] = reduce(%0) { kind mean axes [2, 3] } from "M"
  %4 "h" f16[1, 16, 1, 1] = conv(%3, %1) { window 1x1 epilogue { in f16; s0 = max f16 in0 0.0f16; out s0 } } from "H"
  %5 "s" f16[1, 64, 1, 1] = conv(%4, %2) { window 1x1 } from "S"
  %6 "y" f16[1, 64, 14, 14] = pointwise(%0, %5) { in f16 f16; s0 = mul f16 in0 in1; out s0 } from "Y"
  output "y" %6
}"#;

    fn labels(graph: &str, target: &str) -> Vec<String> {
        let weight = |_: &str| Some(vec![0u8; 2 * 64 * 16].into());
        let graph = text::parse(graph, &weight).expect("a graph");
        let program = lower(&graph, target.parse().expect("a target")).expect("kernels");
        let steps = program.segment(Program::MAIN).iter().map(|step| match step {
            Step::Work(work) => work.label.clone(),
            Step::If { .. } | Step::Loop(_) | Step::Count { .. } => String::new(),
        });
        steps.collect()
    }

    #[test]
    fn what_one_node_alone_reads_is_not_stored() {
        assert_eq!(labels(GRAPH, "sm_90a"), ["M + H", "S + Y"]);
        assert_eq!(labels(GRAPH, "cpu"), ["M", "H", "S", "Y"]);
    }

    #[test]
    fn what_others_read_too_is_stored() {
        let read = GRAPH.replace("output \"y\" %6", "output \"y\" %6\n  output \"mean\" %3\n  output \"s\" %5");
        assert_eq!(labels(&read, "sm_90a"), ["M", "H", "S", "Y"]);
        let twice = GRAPH.replace("pointwise(%0, %5) { in f16 f16;", "pointwise(%5, %5, %0) { in f16 f16 f16;");
        assert_eq!(labels(&twice, "sm_90a"), ["M + H", "S", "Y"]);
    }

    #[test]
    fn other_reductions_and_larger_products_are_apart() {
        assert_eq!(labels(&GRAPH.replace("kind mean", "kind max"), "sm_90a"), ["M", "H", "S + Y"]);
        let rows = GRAPH.replace("axes [2, 3]", "axes [3]").replace("[1, 64, 1, 1]", "[1, 64, 14, 1]");
        let rows = rows.replace("[1, 16, 1, 1] =", "[1, 16, 14, 1] =");
        assert_eq!(labels(&rows, "sm_90a"), ["M", "H", "S", "Y"]);
    }
}
