//! What the passes did with a graph, and which neighbours they left apart, for people to read.
//!
//! The text is a function of the graph and the limits: no clock, no path. Not here: how the reasons are found
//! ([`super::explain`]), and JSON, which the CLI prints.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use super::Limits;
use crate::diag::{Diagnostic, Diagnostics, Place, quoted};
use crate::ir::{Graph, NodeId, Origin};

/// What the passes did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What was left out.
    pub limits: Limits,
    /// In order; the number of a rewrite is its place, from 1.
    pub firings: Vec<Firing>,
    /// The neighbours in the graph behind the passes that are kernels of their own, in the graph's order.
    pub apart: Vec<Apart>,
}

/// One application of a rule, or of a sweep that changed something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Firing {
    pub pass: &'static str,
    /// The ONNX nodes of the nodes that were rewritten; of a sweep, of those that it removed.
    pub onnx: Origin,
    /// 1; of a sweep, how often it changed something.
    pub changes: usize,
}

/// Neighbours that were not fused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Apart {
    pub reason: Reason,
    /// In the order of the data: producer and consumer; product, softmax, product; a transpose and who reads it.
    pub kernels: Vec<Kernel>,
    /// The ONNX name of what is stored between the last two, or of the transpose's result.
    pub value: String,
    /// A sentence without its stop.
    pub why: String,
}

/// A node as the user knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// The IR operation.
    pub op: &'static str,
    pub onnx: Origin,
}

/// What kind of fusion is missing. The names are what `--deny` takes and what JSON says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// A softmax between two products.
    UnfusedAttention,
    /// Steps behind a product or convolution.
    UnfusedEpilogue,
    /// Steps behind steps.
    UnfusedPointwise,
    /// Something in front of or behind a normalization.
    UnfusedNorm,
    /// A product of numbers that were integers.
    UnfusedQuantized,
    /// A transpose that moves its operand.
    TransposeLeft,
    /// Neighbours of kinds that no rule joins.
    NoRule,
}

impl Reason {
    /// All of them, in the order in which they are listed.
    pub const ALL: [Reason; 7] = [
        Reason::UnfusedAttention,
        Reason::UnfusedEpilogue,
        Reason::UnfusedPointwise,
        Reason::UnfusedNorm,
        Reason::UnfusedQuantized,
        Reason::TransposeLeft,
        Reason::NoRule,
    ];

    /// Such as `unfused-epilogue`.
    pub fn id(self) -> &'static str {
        match self {
            Reason::UnfusedAttention => "unfused-attention",
            Reason::UnfusedEpilogue => "unfused-epilogue",
            Reason::UnfusedPointwise => "unfused-pointwise",
            Reason::UnfusedNorm => "unfused-norm",
            Reason::UnfusedQuantized => "unfused-quantized",
            Reason::TransposeLeft => "transpose-left",
            Reason::NoRule => "no-rule",
        }
    }
}

impl FromStr for Reason {
    type Err = String;

    fn from_str(text: &str) -> Result<Reason, String> {
        Reason::ALL.into_iter().find(|reason| reason.id() == text).ok_or_else(|| {
            let ids: Vec<&str> = Reason::ALL.into_iter().map(Reason::id).collect();
            format!("there is no such reason; the reasons are {}", ids.join(", "))
        })
    }
}

impl Report {
    /// How often a pass fired.
    pub fn count(&self, pass: &str) -> usize {
        self.firings.iter().filter(|firing| firing.pass == pass).count()
    }

    /// An error for all neighbours that are apart for a reason which the caller does not accept.
    pub fn denied(&self, deny: &BTreeSet<Reason>) -> Diagnostics {
        let denied = self.apart.iter().filter(|apart| deny.contains(&apart.reason));
        denied
            .map(|apart| {
                let kernels: Vec<String> = apart.kernels.iter().map(Kernel::to_string).collect();
                let what = format!("{}: {} stay apart", apart.reason.id(), kernels.join(" and "));
                let help = format!("change the model there, or leave out --deny {}", apart.reason.id());
                Diagnostic::error("E0502", Place::value(&apart.value), what).why(apart.why.clone()).help(help)
            })
            .collect()
    }
}

impl Kernel {
    /// The node at `id`.
    pub fn of(graph: &Graph, id: NodeId) -> Kernel {
        let node = graph.node(id);
        Kernel { op: node.op.name(), onnx: node.origin.clone() }
    }
}

/// How many of a list a sentence names; the others are counted.
const MOST_NAMES: usize = 4;

/// The first of a list, and how many more there are.
pub fn listed(names: &[String]) -> String {
    let more = names.len().saturating_sub(MOST_NAMES);
    let named = names[..names.len() - more].join(", ");
    if more == 0 { named } else { format!("{named} and {more} more") }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.onnx.0.iter().map(|name| name.escape_debug().to_string()).collect();
        write!(f, "{} `{}`", self.op, listed(&names))
    }
}

impl fmt::Display for Firing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let times = if self.changes == 1 { String::new() } else { format!(" {} times:", self.changes) };
        let names = self.onnx.to_string();
        write!(f, "{}:{times} {}", self.pass, names.escape_debug())
    }
}

impl fmt::Display for Apart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kernels: Vec<String> = self.kernels.iter().map(Kernel::to_string).collect();
        write!(f, "{}: {}, at {}\n    {}", self.reason.id(), kernels.join(" -> "), quoted(&self.value), self.why)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limits = self.limits.to_string();
        writeln!(f, "# Rewrites, numbered in order{}{limits}", if limits.is_empty() { "" } else { ", with " })?;
        for (k, firing) in self.firings.iter().enumerate() {
            writeln!(f, "{:>5} {firing}", k + 1)?;
        }
        writeln!(f, "\n# Neighbours that stay apart, and why")?;
        for reason in Reason::ALL {
            for apart in self.apart.iter().filter(|apart| apart.reason == reason) {
                writeln!(f, "{apart}")?;
            }
        }
        Ok(())
    }
}
