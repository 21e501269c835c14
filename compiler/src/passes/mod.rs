//! Graph to graph, meaning kept: the passes, their order, and the one loop that runs them.
//!
//! A rule looks at one node and proposes a patch; a sweep looks at the whole graph. [`PIPELINE`] is the table of
//! contents. Passes recurse into regions. Types are law: a patch that would change one is refused as a bug.

mod canon;
mod clean;
mod explain;
mod fuse;
mod layout;
mod limits;
mod matching;
pub mod precision;
mod quant;
mod report;
mod why;

use std::collections::BTreeSet;

use crate::ir::{self, Graph, NodeId, Origin, Patch};
use explain::Notes;
pub use limits::{Limits, PassName};
pub use precision::Precision;
pub use report::{Apart, Firing, Kernel, Reason, Report};
use why::Why;

/// A pass and why it stands where it stands.
pub struct Pass {
    pub name: &'static str,
    pub because: &'static str,
    pub kind: Kind,
}

/// What a pass looks at.
#[derive(Clone, Copy)]
pub enum Kind {
    /// One node at a time, again and again until nothing fires.
    Rule(fn(&Graph, NodeId) -> Option<Patch>),
    /// The same, and why it leaves the chain that ends at a node. It is asked right behind the rule's last firing, as later
    /// passes rewrite what the rule looks at.
    Chain(fn(&Graph, NodeId) -> Option<Patch>, fn(&Graph, NodeId) -> Why),
    /// The whole graph; returns how often it changed something.
    Sweep(fn(&mut Graph) -> usize),
}

/// Every pass, in order.
pub const PIPELINE: &[Pass] = &[
    Pass {
        name: "fold",
        because: "shape arithmetic must be gone before anything looks at data flow",
        kind: Kind::Sweep(canon::fold::run),
    },
    Pass {
        name: "identity",
        because: "exporters write no-ops between the operations that fusions look for",
        kind: Kind::Rule(canon::identity::rewrite),
    },
    Pass {
        name: "select",
        because: "a known place along an axis is a view of its operand",
        kind: Kind::Rule(canon::select::rewrite),
    },
    Pass {
        name: "reshape-chain",
        because: "one view of a buffer is enough",
        kind: Kind::Rule(canon::reshape::rewrite),
    },
    Pass {
        name: "transpose-view",
        because: "axes that come and go around a transpose, or are one for its while, hide what it moves",
        kind: Kind::Rule(canon::transpose_view::rewrite),
    },
    Pass {
        name: "transpose-chain",
        because: "transposes that meet cancel or merge",
        kind: Kind::Rule(canon::transpose::rewrite),
    },
    Pass {
        name: "reshape-chain",
        because: "transposes of axes of extent 1 have become reshapes",
        kind: Kind::Rule(canon::reshape::rewrite),
    },
    Pass {
        name: "scalar-operand",
        because: "a scalar in the program costs no load, and programs with few operands fuse further",
        kind: Kind::Rule(canon::scalar::rewrite),
    },
    Pass {
        name: "common-subexpression",
        because: "a value used twice is computed once, before single-use rules ask who uses it",
        kind: Kind::Sweep(clean::cse::run),
    },
    Pass {
        name: "dead-code",
        because: "what nothing reads must not count as a use",
        kind: Kind::Sweep(clean::dead::run),
    },
    Pass {
        name: "counter",
        because: "positions along an axis pick what is there, and exporters compare them with its ends",
        kind: Kind::Rule(canon::counter::rewrite),
    },
    Pass {
        name: "expand",
        because: "what repeats is computed once and read as often, and its readers fuse further",
        kind: Kind::Rule(canon::expand::rewrite),
    },
    Pass {
        name: "reduction",
        because: "a sum with the step around it is one reduction, and the mean that norms are made of",
        kind: Kind::Rule(canon::reduction::rewrite),
    },
    Pass {
        name: "norm",
        because: "a row is read once for its statistics and its result; steps must still be nodes of their own",
        kind: Kind::Rule(canon::norm::rewrite),
    },
    Pass {
        name: "norm-operand",
        because: "scale, bias and conversions of a norm cost nothing inside of it",
        kind: Kind::Rule(canon::norm_operand::rewrite),
    },
    Pass {
        name: "group-norm",
        because: "what is left without factors may be a norm of groups, whose factors stand behind a reshape",
        kind: Kind::Rule(canon::group_norm::rewrite),
    },
    Pass {
        name: "softmax",
        because: "a row is read once for its maximum, sum and result; steps must still be nodes of their own",
        kind: Kind::Rule(canon::softmax::rewrite),
    },
    Pass {
        name: "layout",
        because: "what stands between two transposes is right behind its product without them; norms are nodes now",
        kind: Kind::Rule(layout::rewrite),
    },
    Pass {
        name: "transpose-chain",
        because: "transposes that moved meet others",
        kind: Kind::Rule(canon::transpose::rewrite),
    },
    Pass {
        name: "reshape-chain",
        because: "transposes that moved axes of extent 1 alone are reshapes",
        kind: Kind::Rule(canon::reshape::rewrite),
    },
    Pass {
        name: "quantized-move",
        because: "a dequantization that stands right in front of its product is none; bytes are moved instead",
        kind: Kind::Rule(quant::moves::rewrite),
    },
    Pass {
        name: "quantized-pair",
        because: "integers that were numbers for a moment are themselves",
        kind: Kind::Rule(quant::pair::rewrite),
    },
    Pass {
        name: "quantized-product",
        because: "the operands must still be dequantized in nodes of their own, and scales still stand behind products",
        kind: Kind::Rule(quant::product::rewrite),
    },
    Pass {
        name: "quantized-bias",
        because: "a bias with the scale of the sums is an integer beside them while it still stands alone",
        kind: Kind::Rule(quant::bias::rewrite),
    },
    Pass {
        name: "matmul-transpose",
        because: "a product reads its operands transposed for free",
        kind: Kind::Rule(fuse::matmul_transpose::rewrite),
    },
    Pass {
        name: "conv-affine",
        because: "a per-channel scale goes into the weights while it still stands right behind its convolution",
        kind: Kind::Rule(fuse::conv_affine::rewrite),
    },
    Pass {
        name: "dead-code",
        because: "the scales that went into weights still use their convolutions",
        kind: Kind::Sweep(clean::dead::run),
    },
    Pass {
        name: "product-view",
        because: "an epilogue is what stands right behind its product",
        kind: Kind::Rule(fuse::product_view::rewrite),
    },
    Pass {
        name: "reshape-chain",
        because: "the views of operands and results meet others",
        kind: Kind::Rule(canon::reshape::rewrite),
    },
    Pass {
        name: "pointwise",
        because: "chains become one program, so that an epilogue takes the whole chain",
        kind: Kind::Rule(fuse::pointwise::rewrite),
    },
    Pass {
        name: "quantized-narrow",
        because: "a chain that ends in bytes is one program now, which bytes are moved behind",
        kind: Kind::Rule(quant::narrow::rewrite),
    },
    Pass {
        name: "reshape-chain",
        because: "views that bytes have moved through meet others",
        kind: Kind::Rule(canon::reshape::rewrite),
    },
    Pass {
        name: "pointwise",
        because: "what came in front of a move meets the chain there",
        kind: Kind::Rule(fuse::pointwise::rewrite),
    },
    Pass {
        name: "attention",
        because: "what stands between its products is one program now, and its products have no epilogues yet",
        kind: Kind::Chain(fuse::attention::rewrite, fuse::attention::why_not),
    },
    Pass {
        name: "causal",
        because: "attention visits half of the keys where it knows the mask, and reads none",
        kind: Kind::Rule(fuse::causal::rewrite),
    },
    Pass {
        name: "epilogue",
        because: "the program runs on the accumulators before they are stored",
        kind: Kind::Rule(fuse::epilogue::rewrite),
    },
    Pass {
        name: "norm-epilogue",
        because: "an activation behind a normalization costs no second pass over its elements",
        kind: Kind::Rule(fuse::norm_epilogue::rewrite),
    },
    Pass {
        name: "common-subexpression",
        because: "fusion can make equal programs of different chains",
        kind: Kind::Sweep(clean::cse::run),
    },
    Pass { name: "dead-code", because: "what was fused is left behind", kind: Kind::Sweep(clean::dead::run) },
];

/// Runs every pass of [`PIPELINE`] on a verified graph.
pub fn run(graph: Graph) -> (Graph, Report) {
    run_within(graph, &Limits::default())
}

/// Runs the passes that the limits allow.
pub fn run_within(mut graph: Graph, limits: &Limits) -> (Graph, Report) {
    let mut run = Run::within(limits);
    for pass in PIPELINE {
        run.pass(pass, &mut graph);
    }
    run.report.apart = explain::apart(&graph, &run.notes);
    (graph, run.report)
}

/// Runs one pass, for tests of it alone; its report explains nothing.
pub fn run_only(name: &str, mut graph: Graph) -> (Graph, Report) {
    let mut run = Run::within(&Limits::default());
    if let Some(pass) = PIPELINE.iter().find(|pass| pass.name == name) {
        run.pass(pass, &mut graph);
        graph.remove_dead();
    }
    (graph, run.report)
}

/// The passes under way.
struct Run {
    report: Report,
    notes: Notes,
}

impl Run {
    fn within(limits: &Limits) -> Run {
        Run { report: Report { limits: limits.clone(), ..Report::default() }, notes: Notes::new() }
    }

    /// Whether another rewrite may be made by the pass.
    fn allows(&self, pass: &Pass) -> bool {
        let limits = &self.report.limits;
        limits.allow(pass.name) && !limits.end_at(self.report.firings.len())
    }

    fn pass(&mut self, pass: &Pass, graph: &mut Graph) {
        self.regions(pass, graph);
        match pass.kind {
            Kind::Sweep(run) if self.allows(pass) => self.sweep(pass, run, graph),
            Kind::Sweep(_) => {}
            Kind::Rule(rewrite) => while self.offer(pass, rewrite, graph) {},
            Kind::Chain(rewrite, why_not) => {
                while self.offer(pass, rewrite, graph) {}
                explain::note(graph, why_not, &mut self.notes);
            }
        }
    }

    fn sweep(&mut self, pass: &Pass, run: fn(&mut Graph) -> usize, graph: &mut Graph) {
        let before: Vec<(NodeId, Origin)> =
            graph.order().into_iter().map(|id| (id, graph.node(id).origin.clone())).collect();
        let changes = run(graph);
        if changes > 0 {
            let gone = before.into_iter().filter(|(id, _)| !graph.contains(*id)).flat_map(|(_, origin)| origin.0);
            let mut seen = BTreeSet::new();
            let onnx = Origin(gone.filter(|name| seen.insert(name.clone())).collect());
            self.report.firings.push(Firing { pass: pass.name, onnx, changes });
        }
    }

    /// Offers every node to the rule once. Whether anything fired.
    fn offer(&mut self, pass: &Pass, rewrite: fn(&Graph, NodeId) -> Option<Patch>, graph: &mut Graph) -> bool {
        let mut fired = false;
        for id in graph.order() {
            if !self.allows(pass) {
                break;
            }
            // A node that an earlier firing left without uses is no longer there in effect.
            if !graph.node(id).outputs.iter().flatten().any(|value| !graph.uses(*value).is_empty()) {
                continue;
            }
            let Some(patch) = rewrite(graph, id) else { continue };
            let onnx = patch.origin(graph);
            if let Err(reason) = ir::apply(graph, patch) {
                crate::bug!(dump: ir::text::print(graph); "pass {} at {onnx}: {reason}", pass.name);
            }
            self.report.firings.push(Firing { pass: pass.name, onnx, changes: 1 });
            fired = true;
        }
        if fired {
            graph.remove_dead();
        }
        fired
    }

    /// Runs a pass inside the regions of every node.
    fn regions(&mut self, pass: &Pass, graph: &mut Graph) {
        for id in graph.order() {
            if graph.node(id).op.regions().is_empty() {
                continue;
            }
            let op = graph.node(id).op.map_regions(|inner| {
                let mut inner = inner.clone();
                inner.symbols = graph.symbols_inside();
                self.pass(pass, &mut inner);
                inner.symbols.clear();
                inner
            });
            graph.set_op(id, op);
        }
    }
}
