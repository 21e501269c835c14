//! What a caller states of inputs where the model leaves it open: how many elements a sequence has, whether an optional
//! value is there, the rank of a tensor without a shape.
//!
//! A compiled model takes tensors, and its structure is static, so a caller states how many elements a sequence has
//! ([`Model::set_elements`]). That is no dimension: it has no range, as each number is another graph. The input `x` of
//! three elements becomes the inputs `x.0`, `x.1` and `x.2`, which a SequenceConstruct node joins; every axis of them
//! that has no number is a dimension of its own, as the elements of a sequence may differ in shape. An optional input
//! with no element is absent; one of which nothing is stated is there. An output that is a sequence becomes the outputs
//! `y.0`, `y.1`, .. in the same way.

use super::{Model, Stored};
use lapidary_runtime::op::MAX_RANK;

use super::inputs::too_many_axes;
use super::proto::tensor_shape_proto::Dimension;
use super::proto::tensor_shape_proto::dimension::Value as DimValue;
use super::proto::type_proto::Value as TypeValue;
use super::proto::{NodeProto, TensorShapeProto, TypeProto, ValueInfoProto};
use crate::diag::{Diagnostic, Place, Result, quoted};

/// The most elements of an input.
const MAX_ELEMENTS: usize = 1024;

/// The name of element `k` of the input or output `name`.
pub fn element_name(name: &str, k: usize) -> String {
    format!("{name}.{k}")
}

/// What a type is made of, as far as models have it for inputs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Structure<'t> {
    Tensor,
    /// The type of the elements, tensors.
    Sequence(&'t TypeProto),
    /// The type of a tensor.
    OptionalTensor(&'t TypeProto),
    /// The type of the elements, tensors.
    OptionalSequence(&'t TypeProto),
    /// Maps, sparse tensors, sequences of sequences.
    Other,
}

/// The structure of a type; a type that is not stated is a tensor's.
pub fn structure(ty: Option<&TypeProto>) -> Structure<'_> {
    let Some(value) = ty.and_then(|ty| ty.value.as_ref()) else { return Structure::Tensor };
    match value {
        TypeValue::TensorType(_) => Structure::Tensor,
        TypeValue::SequenceType(sequence) => match sequence.elem_type.as_deref() {
            Some(element) if is_tensor(element) => Structure::Sequence(element),
            Some(_) | None => Structure::Other,
        },
        TypeValue::OptionalType(optional) => match optional.elem_type.as_deref() {
            Some(element) if is_tensor(element) => Structure::OptionalTensor(element),
            Some(element) => match structure(Some(element)) {
                Structure::Sequence(element) => Structure::OptionalSequence(element),
                _ => Structure::Other,
            },
            None => Structure::Other,
        },
        TypeValue::MapType(_) | TypeValue::OpaqueType(_) | TypeValue::SparseTensorType(_) => Structure::Other,
    }
}

fn is_tensor(ty: &TypeProto) -> bool {
    matches!(ty.value, Some(TypeValue::TensorType(_)))
}

impl Model {
    /// States the rank of the input `name`, whose type has no shape. Each axis is a dimension of its own, `NAME.AXIS`.
    ///
    /// # Errors
    /// E0414, if there is no such input, or it has a shape; E0404 for a rank that is not supported.
    pub fn set_rank(&mut self, name: &str, rank: usize) -> Result<()> {
        let at = Place::value(name);
        let refused = |why: &str| {
            Diagnostic::error("E0414", at.clone(), format!("{} cannot be given the rank {rank}", quoted(name))).why(why)
        };
        if rank > MAX_RANK {
            return Err(too_many_axes(at, rank).into());
        }
        let Some(shape) = self.input_shape(name) else {
            return Err(refused("there is no such tensor").help("name an input of the model that is a tensor").into());
        };
        if shape.is_some() {
            return Err(refused("the model states its shape").help("state its dimensions with --dim").into());
        }
        *shape = Some(TensorShapeProto { dim: vec![Dimension::default(); rank] });
        Ok(())
    }

    /// States of the input `name` what a value of it shows and the model does not.
    ///
    /// # Errors
    /// E0414 for a value that the input's type does not hold; E0404.
    pub fn take_structure(&mut self, name: &str, value: &Stored) -> Result<()> {
        if let Some(count) = value.elements() {
            self.set_elements(name, count)?;
        }
        for (name, tensor) in value.clone().tensors(name) {
            if let Some(None) = self.input_shape(&name) {
                self.set_rank(&name, tensor.dims.len())?;
            }
        }
        Ok(())
    }

    /// The shape in the type of an input that is a tensor, or an optional one.
    fn input_shape(&mut self, name: &str) -> Option<&mut Option<TensorShapeProto>> {
        let graph = self.proto.graph.as_mut()?;
        let info = graph.input.iter_mut().find(|info| info.name() == name)?;
        let mut ty = info.r#type.as_mut()?;
        if let Some(TypeValue::OptionalType(_)) = ty.value {
            let Some(TypeValue::OptionalType(optional)) = ty.value.as_mut() else { return None };
            ty = optional.elem_type.as_mut()?;
        }
        match ty.value.as_mut()? {
            TypeValue::TensorType(tensor) => Some(&mut tensor.shape),
            _ => None,
        }
    }

    /// States how many elements the input `name` has, a sequence or an optional value; of the latter, none says that it
    /// is absent in every run.
    ///
    /// # Errors
    /// E0414, if there is no such input, or it cannot have that many.
    pub fn set_elements(&mut self, name: &str, count: usize) -> Result<()> {
        let refused = |why: String| {
            let what = format!("{} cannot have {count} elements", quoted(name));
            Diagnostic::error("E0414", Place::value(name), what).why(why)
        };
        let graph = self.proto.graph.get_or_insert_default();
        let Some(at) = graph.input.iter().position(|info| info.name() == name) else {
            let names: Vec<String> = graph.input.iter().map(|info| quoted(info.name()).to_string()).collect();
            let help = format!("its inputs are: {}", names.join(", "));
            return Err(refused("the model has no such input".to_owned()).help(help).into());
        };
        if count > MAX_ELEMENTS {
            return Err(refused(format!("at most {MAX_ELEMENTS} are supported")).into());
        }
        let info = graph.input[at].clone();
        let (element, operator) = match (structure(info.r#type.as_ref()), count) {
            (Structure::Sequence(element), 0) => (element, "SequenceEmpty"),
            (Structure::Sequence(element) | Structure::OptionalSequence(element), 1..) => {
                (element, "SequenceConstruct")
            }
            (Structure::OptionalTensor(element) | Structure::OptionalSequence(element), 0) => (element, "Optional"),
            (Structure::OptionalTensor(element), 1) => {
                graph.input[at].r#type = Some(element.clone());
                return Ok(());
            }
            (Structure::OptionalTensor(_), _) => {
                return Err(refused("it is an optional tensor: there or absent".to_owned()).help("say 1 or 0").into());
            }
            (Structure::Tensor | Structure::Other, _) => {
                let why = "it is neither a sequence of tensors nor an optional value".to_owned();
                return Err(refused(why).help("leave it out: a tensor has its shape").into());
            }
        };
        let inputs: Vec<ValueInfoProto> = (0..count).map(|k| element_input(element_name(name, k), element)).collect();
        graph.node.push(NodeProto {
            input: inputs.iter().map(|info| info.name().to_owned()).collect(),
            output: vec![name.to_owned()],
            op_type: Some(operator.to_owned()),
            ..NodeProto::default()
        });
        graph.input.splice(at..=at, inputs);
        Ok(())
    }
}

/// An element of a sequence as an input: what the type calls an extent holds for one element only.
fn element_input(name: String, element: &TypeProto) -> ValueInfoProto {
    let mut ty = element.clone();
    if let Some(TypeValue::TensorType(tensor)) = &mut ty.value {
        for dim in tensor.shape.iter_mut().flat_map(|shape| &mut shape.dim) {
            if matches!(dim.value, Some(DimValue::DimParam(_))) {
                dim.value = None;
            }
        }
    }
    ValueInfoProto { name: Some(name), r#type: Some(ty) }
}
