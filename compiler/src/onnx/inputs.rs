//! The inputs of a model: names, types and dimensions, with a name for every dimension that is not a number.

use std::collections::BTreeSet;

use lapidary_runtime::DType;
use lapidary_runtime::op::MAX_RANK;

use super::elements::{Structure, structure};
use super::proto::ValueInfoProto;
use super::proto::tensor_shape_proto::dimension::Value as DimValue;
use super::proto::type_proto::Value as TypeValue;
use super::{Model, dtype_of};
use crate::diag::{Diagnostic, Diagnostics, Place, Result, quoted};

/// An input that the caller of a model gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    pub name: String,
    pub dtype: DType,
    /// The extent of each axis; 0 where it is symbolic.
    pub dims: Vec<i64>,
    /// Of each symbolic axis the symbol's name: the model's, or `INPUT.AXIS` where the model has none.
    pub symbols: Vec<Option<String>>,
}

/// The inputs of a model, in order. Initializers that older files list as inputs are none.
///
/// # Errors
/// E0404 and E0405, for all inputs together.
pub fn inputs(model: &Model) -> Result<Vec<Input>> {
    let graph = model.graph();
    let sparse = graph.sparse_initializer.iter().filter_map(|sparse| sparse.values.as_deref());
    let initialized: BTreeSet<&str> = graph.initializer.iter().chain(sparse).map(|tensor| tensor.name()).collect();
    let mut errors = Diagnostics::new();
    let infos = graph.input.iter().filter(|info| !initialized.contains(info.name()));
    let inputs = infos.filter_map(|info| errors.keep(input(info))).collect();
    errors.or(inputs)
}

/// The inputs of a model as the compiled model takes them: in the formats that were asked for.
///
/// # Errors
/// As [`inputs`].
pub fn interface(model: &Model) -> Result<Vec<Input>> {
    let asked = |input: Input| match model.formats.iter().find(|(name, _)| *name == input.name) {
        Some((_, format)) => format.input(input),
        None => input,
    };
    Ok(inputs(model)?.into_iter().map(asked).collect())
}

fn input(info: &ValueInfoProto) -> Result<Input> {
    let at = Place::value(info.name());
    let refused = |what: &str| Diagnostic::error("E0405", at.clone(), what);
    let ty = match structure(info.r#type.as_ref()) {
        Structure::Tensor => info.r#type.as_ref(),
        // Taken to be there, unless the caller said that it is absent.
        Structure::OptionalTensor(element) => Some(element),
        Structure::Sequence(_) | Structure::OptionalSequence(_) => {
            return Err(refused("a sequence, of which is not said how many elements it has")
                .why("each number of elements is another graph")
                .help(format!("state it: --elements {}=COUNT", quoted(info.name()).trim_matches('"')))
                .into());
        }
        Structure::Other => None,
    };
    let Some(TypeValue::TensorType(tensor)) = ty.and_then(|ty| ty.value.as_ref()) else {
        return Err(refused("an input that is not a tensor")
            .help("maps, sparse tensors and sequences of sequences are not supported as inputs")
            .into());
    };
    let dtype = dtype_of(tensor.elem_type(), &at)?;
    let Some(shape) = &tensor.shape else {
        return Err(refused("an input without a shape")
            .why("kernels are compiled for a rank")
            .help(format!(
                "state it: --rank {}=RANK, and the dimensions with --dim",
                quoted(info.name()).trim_matches('"')
            ))
            .into());
    };
    if shape.dim.len() > MAX_RANK {
        return Err(too_many_axes(at, shape.dim.len()).into());
    }
    let mut input = Input { name: info.name().to_owned(), dtype, dims: Vec::new(), symbols: Vec::new() };
    for (axis, dim) in shape.dim.iter().enumerate() {
        let (extent, symbol) = match &dim.value {
            Some(DimValue::DimValue(value)) if *value >= 0 => (*value, None),
            Some(DimValue::DimParam(name)) if !name.is_empty() && name != "?" => (0, Some(name.clone())),
            // Neither value nor name: a symbol of its own.
            Some(DimValue::DimValue(_) | DimValue::DimParam(_)) | None => (0, Some(format!("{}.{axis}", info.name()))),
        };
        input.dims.push(extent);
        input.symbols.push(symbol);
    }
    Ok(input)
}

/// A tensor with more axes than the compiler has room for.
pub(super) fn too_many_axes(at: Place, rank: usize) -> Diagnostic {
    Diagnostic::error("E0404", at, format!("a tensor of rank {rank}"))
        .why(format!("tensors have at most {MAX_RANK} axes here"))
        .help("merge axes in the model")
}
