//! ONNX operators: one [`OpDef`] each, listed in one slice, which composes IR operations.
//!
//! To add an operator, add a value to the group's `DEFS` in its file. An importer sees typed operands and typed
//! attributes; it never sees the graph's names.

mod activation;
mod attention;
mod cache;
mod constant;
mod control;
mod conv;
mod convert;
mod counted;
mod deform;
mod dynamic_lstm;
mod einsum;
mod elementwise;
mod entry;
mod flex_attention;
mod gather;
mod generate;
mod legacy;
mod linear_attention;
mod loops;
mod loss;
mod matmul;
mod mel;
mod norm;
mod operands;
mod pad;
mod pool;
mod positions;
mod qlinear;
mod qpointwise;
mod quantize;
mod random;
mod recurrent;
mod reduce;
mod resize;
mod roi;
mod rounds;
mod sample;
mod scan;
mod scatter;
mod sequence;
mod shape;
mod signal;
mod slice;
mod softmax;
mod sort;
mod suppress;
#[cfg(test)]
mod tests;
mod unfold;
mod unique;
mod unroll;
mod window;

use std::collections::BTreeMap;
use std::sync::OnceLock;

pub use self::operands::advice_in;
use super::Model;
use super::attrs::Attrs;
use super::import::{Item, ItemCx};
use crate::ir::{Builder, Expr, ValueId};

/// An ONNX operator, from one operator set version on.
#[derive(Clone, Copy, Debug)]
pub struct OpDef {
    /// The operator's domain; empty for `ai.onnx`.
    pub domain: &'static str,
    pub name: &'static str,
    /// The operator set version from which this definition holds, until the next definition of the same name.
    pub since: i64,
    /// How many operands there may be.
    pub inputs: (usize, usize),
    /// How many results there may be.
    pub outputs: (usize, usize),
    pub import: Import,
}

/// How an operator becomes IR.
#[derive(Clone, Copy, Debug)]
pub enum Import {
    /// By composing operations.
    Compose(fn(&mut Cx<'_, '_>) -> Imported),
    /// By taking or giving sequences and optional values too, or by importing the graphs in its attributes.
    Items(fn(&mut ItemCx<'_, '_>) -> Items),
}

/// Any number of operands or results.
pub const MANY: usize = usize::MAX;

/// The results of an operator in ONNX's order; a `None`, or one left out at the end, is not computed.
pub type Imported = Result<Vec<Option<ValueId>>, Fault>;

/// As [`Imported`], where results may be sequences or absent; operands too.
pub type Items = Result<Vec<Option<Item>>, Fault>;

/// Why a node cannot be imported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The model is wrong: one sentence.
    Invalid(String),
    /// The model may be right, but this is not supported: what, and what to do instead.
    Unsupported { what: String, help: String },
    /// An attribute is wrong: the diagnostic of [`Attrs`].
    Attribute(crate::diag::Diagnostics),
}

impl From<String> for Fault {
    fn from(what: String) -> Fault {
        Fault::Invalid(what)
    }
}

impl From<&str> for Fault {
    fn from(what: &str) -> Fault {
        Fault::Invalid(what.to_owned())
    }
}

impl From<crate::diag::Diagnostic> for Fault {
    fn from(diagnostic: crate::diag::Diagnostic) -> Fault {
        Fault::Attribute(diagnostic.into())
    }
}

impl From<crate::diag::Diagnostics> for Fault {
    fn from(diagnostics: crate::diag::Diagnostics) -> Fault {
        Fault::Attribute(diagnostics)
    }
}

impl Fault {
    /// A fault that the user can do something about.
    pub fn unsupported(what: impl Into<String>, help: impl Into<String>) -> Fault {
        Fault::Unsupported { what: what.into(), help: help.into() }
    }
}

/// One ONNX node while it is imported.
pub struct Cx<'g, 'm> {
    /// Composes the node's operations.
    pub b: Builder<'g>,
    pub attrs: Attrs<'m>,
    /// The model, whose files hold the tensors in attributes.
    pub model: &'m Model,
    /// The version of the node's operator set.
    pub opset: i64,
    /// Which import this is.
    pub turn: Turn,
    pub(super) inputs: Vec<Option<ValueId>>,
    pub(super) wanted: Vec<bool>,
    /// Whether the node is in a branch or in the body of a loop.
    pub(super) in_region: bool,
    /// Whether it is in the body of a loop, or in a branch there, that a run goes through again and again.
    pub repeats: bool,
}

/// Tells the imports of nodes apart: a node in the body of a loop is imported once a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// How many nodes were imported before.
    pub node: u32,
    /// How many times this one was.
    pub round: u32,
}

impl Cx<'_, '_> {
    /// The extent that `at`, an `i64` scalar, says, which is `bound` at most.
    ///
    /// # Errors
    /// The node is in a region, whose extents the graph around it has to know.
    pub fn count(&mut self, at: ValueId, bound: Expr) -> Result<Expr, Fault> {
        if let Some(&[count]) = self.b.known_ints(at).as_deref() {
            return Ok(Expr::constant(count));
        }
        if self.in_region {
            return Err(Fault::unsupported(
                "the number of elements of the result depends on the data of a run, in a branch or loop",
                "move the node out of the If or Loop, or compute with a mask of known shape",
            ));
        }
        Ok(self.b.graph_mut().add_count(at, bound))
    }

    /// Operand `k`, which must be there.
    ///
    /// # Errors
    /// One sentence, if it is absent.
    pub fn input(&self, k: usize) -> Result<ValueId, Fault> {
        self.optional(k).ok_or_else(|| Fault::Invalid(format!("operand {k} is missing")))
    }

    /// Operand `k`, where it is there.
    pub fn optional(&self, k: usize) -> Option<ValueId> {
        self.inputs.get(k).copied().flatten()
    }

    /// All operands, none of which may be absent.
    ///
    /// # Errors
    /// One sentence, if one is absent.
    pub fn inputs(&self) -> Result<Vec<ValueId>, Fault> {
        (0..self.inputs.len()).map(|k| self.input(k)).collect()
    }

    /// How many operands the node lists, absent ones among them.
    pub fn input_count(&self) -> usize {
        self.inputs.len()
    }

    /// How many results the node lists.
    pub fn output_count(&self) -> usize {
        self.wanted.len()
    }

    /// Whether result `k` has a name.
    pub fn wants(&self, k: usize) -> bool {
        self.wanted.get(k).copied().unwrap_or(false)
    }

    /// `axis` of a tensor of rank `rank`, counted from the end where it is negative.
    ///
    /// # Errors
    /// One sentence, if it is out of range.
    pub fn axis(&self, axis: i64, rank: usize) -> Result<usize, Fault> {
        normalize_axis(axis, rank).map_err(Fault::Invalid)
    }

    /// `axes` of a tensor of rank `rank`, ascending, each once.
    ///
    /// # Errors
    /// One sentence, if one is out of range or stands twice.
    pub fn axes(&self, axes: &[i64], rank: usize) -> Result<Vec<usize>, Fault> {
        let mut out: Vec<usize> = axes.iter().map(|&axis| self.axis(axis, rank)).collect::<Result<_, _>>()?;
        out.sort_unstable();
        if out.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(Fault::Invalid(format!("the axes {axes:?} name one axis twice")));
        }
        Ok(out)
    }
}

/// `axis` of a tensor of rank `rank`, counted from the end where it is negative.
pub fn normalize_axis(axis: i64, rank: usize) -> Result<usize, String> {
    let signed = i64::try_from(rank).unwrap_or(i64::MAX);
    let from_start = if axis < 0 { axis + signed } else { axis };
    if (0..signed).contains(&from_start) {
        Ok(from_start as usize)
    } else {
        Err(format!("axis {axis} is out of range for a tensor of rank {rank}"))
    }
}

/// One result.
pub fn one(value: ValueId) -> Imported {
    Ok(vec![Some(value)])
}

/// One result, a tensor, of an importer of [`Items`].
pub fn one_tensor(value: ValueId) -> Items {
    Ok(vec![Some(Item::Tensor(value))])
}

/// Every operator, group by group.
pub const GROUPS: &[&[OpDef]] = &[
    elementwise::DEFS,
    convert::DEFS,
    activation::DEFS,
    softmax::DEFS,
    reduce::DEFS,
    matmul::DEFS,
    einsum::DEFS,
    attention::DEFS,
    flex_attention::DEFS,
    linear_attention::DEFS,
    cache::DEFS,
    shape::DEFS,
    slice::DEFS,
    generate::DEFS,
    constant::DEFS,
    quantize::DEFS,
    qlinear::DEFS,
    qpointwise::DEFS,
    conv::DEFS,
    deform::DEFS,
    pool::DEFS,
    unfold::DEFS,
    norm::DEFS,
    loss::DEFS,
    recurrent::DEFS,
    dynamic_lstm::DEFS,
    signal::DEFS,
    mel::DEFS,
    resize::DEFS,
    sample::DEFS,
    roi::DEFS,
    random::DEFS,
    gather::DEFS,
    scatter::DEFS,
    pad::DEFS,
    sort::DEFS,
    counted::DEFS,
    unique::DEFS,
    suppress::DEFS,
    control::DEFS,
    loops::DEFS,
    legacy::DEFS,
    scan::DEFS,
    sequence::DEFS,
];

/// What the importer takes of an operator, from one operator set version on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operator {
    /// The operator's domain; empty for `ai.onnx`.
    pub domain: &'static str,
    pub name: &'static str,
    /// The operator set version from which this holds, until the next entry of the same name.
    pub since: i64,
    /// How many operands there may be.
    pub inputs: (usize, usize),
    /// How many results there may be.
    pub outputs: (usize, usize),
}

/// Every operator that is imported, group by group.
pub fn operators() -> impl Iterator<Item = Operator> {
    let defs = GROUPS.iter().copied().flatten();
    defs.map(|&OpDef { domain, name, since, inputs, outputs, import: _ }| Operator {
        domain,
        name,
        since,
        inputs,
        outputs,
    })
}

/// The definition of an operator for a version of its operator set.
pub fn find(domain: &str, name: &str, opset: i64) -> Option<&'static OpDef> {
    static INDEX: OnceLock<BTreeMap<(&str, &str), Vec<&OpDef>>> = OnceLock::new();
    let index = INDEX.get_or_init(|| {
        let mut index: BTreeMap<(&str, &str), Vec<&OpDef>> = BTreeMap::new();
        for def in GROUPS.iter().copied().flatten() {
            index.entry((def.domain, def.name)).or_default().push(def);
        }
        for defs in index.values_mut() {
            defs.sort_by_key(|def| def.since);
        }
        index
    });
    let domain = if domain == "ai.onnx" { "" } else { domain };
    index.get(&(domain, name))?.iter().rev().find(|def| def.since <= opset).copied()
}
