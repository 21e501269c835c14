//! What a name stands for while a model is imported, and what the importers of nodes see that take or give more than
//! tensors, or have graphs in their attributes.
//!
//! Contract: how many elements a sequence has, and whether an optional value is there, is known while compiling; nothing
//! of either is left in the graph.

use super::Importer;
use crate::ir::{Builder, Origin, ValueId};
use crate::onnx::attrs::Attrs;
use crate::onnx::ops::{Fault, advice_in};
use crate::onnx::proto::NodeProto;

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    Tensor(ValueId),
    /// The elements of a sequence.
    Sequence(Vec<ValueId>),
    /// An optional value that is not there; one that is, is the value.
    Absent,
}

impl Item {
    /// The item with each of its tensors replaced.
    pub fn map(self, mut f: impl FnMut(ValueId) -> ValueId) -> Item {
        match self {
            Item::Tensor(value) => Item::Tensor(f(value)),
            Item::Sequence(values) => Item::Sequence(values.into_iter().map(f).collect()),
            Item::Absent => Item::Absent,
        }
    }

    /// Its tensors, in order.
    pub fn values(&self) -> &[ValueId] {
        match self {
            Item::Tensor(value) => std::slice::from_ref(value),
            Item::Sequence(values) => values,
            Item::Absent => &[],
        }
    }
}

/// A node while it is imported, all kinds of operands included.
pub struct ItemCx<'i, 'm> {
    pub(super) importer: &'i mut Importer<'m>,
    pub attrs: Attrs<'m>,
    pub(super) inputs: Vec<Option<Item>>,
    pub(super) node: &'m NodeProto,
    pub(super) origin: Origin,
    pub(super) name: &'m str,
}

impl ItemCx<'_, '_> {
    /// Composes operations beside the node.
    pub fn builder(&mut self) -> Builder<'_> {
        let origin = self.origin.clone();
        Builder::new(self.importer.graph(), origin, self.name)
    }

    /// A fault for what the compiler has to know and that `value` decides. Where `value` follows from small inputs of
    /// the model, the help is to fix them; otherwise it is `help`.
    pub fn open(&mut self, value: ValueId, what: impl Into<String>, help: impl Into<String>) -> Fault {
        let model = self.importer.model;
        let advice = advice_in(self.importer.graph(), model, value);
        Fault::unsupported(what, advice.unwrap_or_else(|| help.into()))
    }

    /// Whether `value` follows from small inputs of the model.
    pub fn is_fixable(&mut self, value: ValueId) -> bool {
        let model = self.importer.model;
        advice_in(self.importer.graph(), model, value).is_some()
    }

    /// How many operands the node lists, absent ones among them.
    pub fn input_count(&self) -> usize {
        self.inputs.len()
    }

    /// How many results the node lists.
    pub fn output_count(&self) -> usize {
        self.node.output.len()
    }

    /// Operand `k`, where the node lists it.
    pub fn optional_item(&self, k: usize) -> Option<Item> {
        self.inputs.get(k).cloned().flatten()
    }

    /// Operand `k`, which must be listed.
    ///
    /// # Errors
    /// One sentence, if it is not.
    pub fn item(&self, k: usize) -> Result<Item, Fault> {
        self.optional_item(k).ok_or_else(|| Fault::Invalid(format!("operand {k} is missing")))
    }

    /// Operand `k`, a tensor, where it is listed.
    ///
    /// # Errors
    /// One sentence, if it is no tensor.
    pub fn optional(&self, k: usize) -> Result<Option<ValueId>, Fault> {
        match self.optional_item(k) {
            None => Ok(None),
            Some(Item::Tensor(value)) => Ok(Some(value)),
            Some(Item::Sequence(_)) => {
                Err(Fault::Invalid(format!("operand {k} is a sequence, and a tensor is needed")))
            }
            Some(Item::Absent) => Err(Fault::Invalid(format!("operand {k} is an optional value that is absent"))),
        }
    }

    /// Operand `k`, a tensor.
    ///
    /// # Errors
    /// One sentence, if it is missing or no tensor.
    pub fn input(&self, k: usize) -> Result<ValueId, Fault> {
        self.optional(k)?.ok_or_else(|| Fault::Invalid(format!("operand {k} is missing")))
    }

    /// The elements of operand `k`, a sequence.
    ///
    /// # Errors
    /// One sentence, if it is missing or no sequence.
    pub fn sequence(&self, k: usize) -> Result<Vec<ValueId>, Fault> {
        match self.item(k)? {
            Item::Sequence(values) => Ok(values),
            Item::Tensor(_) => Err(Fault::Invalid(format!("operand {k} is a tensor, and a sequence is needed"))),
            Item::Absent => Err(Fault::Invalid(format!("operand {k} is an optional value that is absent"))),
        }
    }
}
