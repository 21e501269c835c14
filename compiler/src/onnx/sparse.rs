//! Sparse tensors of the file, made dense: what they save on disk has no kernel here.
//!
//! A small file can describe a huge dense tensor, so the bytes are counted over the whole model before anything is
//! allocated. Source: the comments of SparseTensorProto in onnx.proto.

use lapidary_runtime::DType;

use super::external::External;
use super::proto::SparseTensorProto;
use super::tensor::{TensorRef, decode, dtype_of, extents};
use crate::diag::{Diagnostic, Diagnostics, Place, Result};

/// Bytes that all sparse tensors of a model may take together when they are dense: 256 MiB.
pub const DENSE_LIMIT: usize = 256 << 20;

/// The dense tensor that `sparse` means, zero where it says nothing.
///
/// # Errors
/// E0220 where values and indices do not fit each other or the dimensions, E0221 beyond [`DENSE_LIMIT`], and those of
/// `tensor::decode` for its two parts.
pub fn densify(sparse: &SparseTensorProto, external: &External, at: &Place) -> Result<TensorRef> {
    let malformed = |what: &str| malformed(what, at);
    let (Some(values), Some(indices)) = (&sparse.values, &sparse.indices) else {
        return Err(malformed("the sparse tensor has no values or no indices").into());
    };
    let values = decode(values, external, at)?;
    let indices = decode(indices, external, at)?;
    let dtype = values.dtype;
    if dtype.bits() < 8 {
        return Err(malformed("a sparse tensor's values cannot be packed below 8 bits").into());
    }
    let (dims, elements) = extents(&sparse.dims, dtype, at)?;
    if dtype.bytes(elements) > DENSE_LIMIT {
        return Err(too_large(dtype.bytes(elements), at).into());
    }
    let count = values.elements();
    let linear = indices.dims == [count];
    if values.dims.len() != 1 || !linear && indices.dims != [count, dims.len()] {
        return Err(malformed("the sparse tensor's indices do not fit its values").into());
    }
    if indices.dtype != DType::I64 {
        return Err(malformed("the sparse tensor's indices are not int64").into());
    }
    let coordinates: Vec<i64> = indices.data.as_chunks::<8>().0.iter().map(|c| i64::from_le_bytes(*c)).collect();
    let width = dtype.bytes(1);
    let mut data = vec![0; dtype.bytes(elements)];
    let mut last = None;
    for (entry, value) in values.data.chunks_exact(width).enumerate() {
        let position = if linear {
            usize::try_from(coordinates[entry]).ok().filter(|&p| p < elements)
        } else {
            position(&coordinates[entry * dims.len()..][..dims.len()], &dims)
        };
        let Some(position) = position else {
            return Err(malformed("an index of the sparse tensor lies outside its dimensions").into());
        };
        if last.is_some_and(|last| last >= position) {
            return Err(malformed("the sparse tensor's indices do not ascend").into());
        }
        last = Some(position);
        data[position * width..][..width].copy_from_slice(value);
    }
    Ok(TensorRef { name: values.name, dtype, dims, data: data.into() })
}

/// Refuses a model whose sparse tensors would be too large together.
///
/// # Errors
/// E0221. A tensor whose type or dimensions are wrong counts nothing here; [`densify`] refuses it.
pub(super) fn check_total(tensors: &[&SparseTensorProto]) -> Result<()> {
    let bytes = |sparse: &SparseTensorProto| {
        let dtype = dtype_of(sparse.values.as_ref()?.data_type(), &Place::Model).ok()?;
        let (_, elements) = extents(&sparse.dims, dtype, &Place::Model).ok()?;
        Some(dtype.bytes(elements))
    };
    let total = tensors.iter().filter_map(|sparse| bytes(sparse)).fold(0, usize::saturating_add);
    if total > DENSE_LIMIT { Err(Diagnostics::from(too_large(total, &Place::Model))) } else { Ok(()) }
}

/// The row-major position of `coordinate`.
fn position(coordinate: &[i64], dims: &[usize]) -> Option<usize> {
    coordinate.iter().zip(dims).try_fold(0, |position, (&index, &dim)| {
        let index = usize::try_from(index).ok().filter(|&index| index < dim)?;
        Some(position * dim + index)
    })
}

fn malformed(what: &str, at: &Place) -> Diagnostic {
    Diagnostic::error("E0220", at.clone(), what)
        .why("it holds N values, and N ascending int64 indices: [N] into the flat tensor, or [N, rank]")
        .help("store it as a dense tensor, or export the model again")
}

fn too_large(bytes: usize, at: &Place) -> Diagnostic {
    let what = format!("sparse tensors would take {bytes} bytes when they are dense");
    Diagnostic::error("E0221", at.clone(), what)
        .why(format!("sparse tensors are stored densely, up to {DENSE_LIMIT} bytes a model"))
        .help("store the tensors densely in the model")
}
