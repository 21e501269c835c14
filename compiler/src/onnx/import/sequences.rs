//! Nodes that take or give sequences: what their importers see.
//!
//! Contract: a sequence is the list of its elements, known while compiling; nothing of it is left in the graph. Sequences
//! do not cross the borders of the graph, nor those of a loop's rounds or a branch.

use super::{Found, Importer};
use crate::diag::quoted;
use crate::ir::{Builder, Origin, ValueId};
use crate::onnx::attrs::Attrs;
use crate::onnx::ops::Fault;
use crate::onnx::proto::NodeProto;

/// A node that takes or gives sequences, while it is imported.
pub struct Sequences<'i, 'm> {
    pub(super) importer: &'i mut Importer<'m>,
    pub attrs: Attrs<'m>,
    pub(super) node: &'m NodeProto,
    pub(super) origin: Origin,
}

/// What a name stands for, where it may be a sequence.
pub enum Item {
    Tensor(ValueId),
    Sequence(Vec<ValueId>),
}

impl Sequences<'_, '_> {
    /// Composes operations beside the node.
    pub fn builder(&mut self) -> Builder<'_> {
        let origin = self.origin.clone();
        let name = self.node.output.first().map_or("", String::as_str);
        Builder::new(self.importer.graph(), origin, name)
    }

    /// How many operands the node lists, absent ones among them.
    pub fn input_count(&self) -> usize {
        self.node.input.len()
    }

    /// Operand `k`, where it is there.
    ///
    /// # Errors
    /// Nothing defines it; or an empty fault where that has been reported.
    pub fn optional(&mut self, k: usize) -> Result<Option<Item>, Fault> {
        let Some(name) = self.node.input.get(k).filter(|name| !name.is_empty()) else { return Ok(None) };
        match self.importer.find(name) {
            Found::Value(value) => Ok(Some(Item::Tensor(value))),
            Found::Sequence(values) => Ok(Some(Item::Sequence(values))),
            Found::Reported => Err(Fault::Attribute(crate::diag::Diagnostics::new())),
            Found::Nothing => Err(Fault::Invalid(format!("nothing defines {}", quoted(name)))),
        }
    }

    /// Operand `k`, a tensor, where it is there.
    ///
    /// # Errors
    /// As [`Self::optional`], and where it is a sequence.
    pub fn optional_tensor(&mut self, k: usize) -> Result<Option<ValueId>, Fault> {
        match self.optional(k)? {
            None => Ok(None),
            Some(Item::Tensor(value)) => Ok(Some(value)),
            Some(Item::Sequence(_)) => {
                Err(Fault::Invalid(format!("operand {k} is a sequence, and a tensor is needed")))
            }
        }
    }

    /// Operand `k`, a tensor.
    ///
    /// # Errors
    /// As [`Self::optional_tensor`], and where it is absent.
    pub fn tensor(&mut self, k: usize) -> Result<ValueId, Fault> {
        self.optional_tensor(k)?.ok_or_else(|| Fault::Invalid(format!("operand {k} is missing")))
    }

    /// The elements of operand `k`, a sequence.
    ///
    /// # Errors
    /// As [`Self::optional`], and where it is absent or a tensor.
    pub fn sequence(&mut self, k: usize) -> Result<Vec<ValueId>, Fault> {
        match self.optional(k)? {
            Some(Item::Sequence(values)) => Ok(values),
            Some(Item::Tensor(_)) => Err(Fault::Invalid(format!("operand {k} is a tensor, and a sequence is needed"))),
            None => Err(Fault::Invalid(format!("operand {k} is missing"))),
        }
    }
}
