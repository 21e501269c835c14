//! Values in files of their own, as ONNX's test data has them: tensors, sequences and optional values.
//! Source: onnx-data.proto (SequenceProto, OptionalProto), of which only what holds tensors is read.

use prost::Message;

use super::elements::{Structure, element_name, structure};
use super::proto::{TensorProto, TypeProto};
use super::{Model, TensorRef};
use crate::diag::{Diagnostic, Place, Result};

/// A value of a file.
#[derive(Clone, Debug)]
pub enum Stored {
    Tensor(TensorRef),
    Sequence(Vec<TensorRef>),
    /// An optional value that is not there.
    Absent,
}

impl Stored {
    /// How many elements the value has, for [`Model::set_elements`]; `None` for a tensor, of which nothing is to be
    /// stated.
    pub fn elements(&self) -> Option<usize> {
        match self {
            Stored::Tensor(_) => None,
            Stored::Sequence(values) => Some(values.len()),
            Stored::Absent => Some(0),
        }
    }

    /// The tensors of the input or output `name` that a compiled model has instead, and their names.
    pub fn tensors(self, name: &str) -> Vec<(String, TensorRef)> {
        match self {
            Stored::Tensor(value) => vec![(name.to_owned(), value)],
            Stored::Sequence(values) => {
                values.into_iter().enumerate().map(|(k, value)| (element_name(name, k), value)).collect()
            }
            Stored::Absent => Vec::new(),
        }
    }
}

#[derive(Clone, PartialEq, Message)]
struct SequenceProto {
    #[prost(message, repeated, tag = "3")]
    tensor_values: Vec<TensorProto>,
}

#[derive(Clone, PartialEq, Message)]
struct OptionalProto {
    #[prost(message, optional, tag = "3")]
    tensor_value: Option<TensorProto>,
    #[prost(message, optional, tag = "5")]
    sequence_value: Option<SequenceProto>,
}

impl Model {
    /// The value that `bytes` hold for an input or output of type `ty`.
    ///
    /// # Errors
    /// E0101 for bytes that do not decode; E02xx of stored tensors; E0405 for types that are neither tensors nor made of them.
    pub fn stored(&self, bytes: &[u8], ty: Option<&TypeProto>, at: &Place) -> Result<Stored> {
        let sequence = |values: &[TensorProto]| {
            values.iter().map(|value| self.tensor(value, at)).collect::<Result<_>>().map(Stored::Sequence)
        };
        match structure(ty) {
            Structure::Tensor => Ok(Stored::Tensor(self.tensor(&decoded::<TensorProto>(bytes, at)?, at)?)),
            Structure::Sequence(_) => sequence(&decoded::<SequenceProto>(bytes, at)?.tensor_values),
            Structure::OptionalTensor(_) | Structure::OptionalSequence(_) => {
                match decoded::<OptionalProto>(bytes, at)? {
                    OptionalProto { tensor_value: Some(value), .. } => Ok(Stored::Tensor(self.tensor(&value, at)?)),
                    OptionalProto { sequence_value: Some(value), .. } => sequence(&value.tensor_values),
                    OptionalProto { tensor_value: None, sequence_value: None } => Ok(Stored::Absent),
                }
            }
            Structure::Other => Err(Diagnostic::error("E0405", at.clone(), "a value that is not made of tensors")
                .help("maps, sparse tensors and sequences of sequences are not supported as inputs and outputs")
                .into()),
        }
    }
}

fn decoded<T: Message + Default>(bytes: &[u8], at: &Place) -> Result<T> {
    T::decode(bytes).map_err(|error| {
        Diagnostic::error("E0101", at.clone(), "the file does not hold what its type says")
            .why(error.to_string())
            .into()
    })
}
