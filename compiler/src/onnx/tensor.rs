//! A stored tensor of the file to a [`TensorRef`]: element type, dimensions, canonical little-endian bytes.
//!
//! `raw_data` and external data are views, never copies (but for a bool tensor that holds other bytes than 0 and 1).
//! The typed fields, which spend at least a byte of file on each entry, are converted. Elements below 8 bits stay
//! packed as ONNX packs them: the first element in the lowest bits. Nothing is allocated by what dimensions claim, only
//! by bytes that are there. Source: the comments of TensorProto in onnx.proto, and docs/IR.md.

use bytes::Bytes;
use lapidary_runtime::DType;

use super::external::{External, is_external};
use super::proto::TensorProto;
use super::proto::tensor_proto::DataType;
use super::seeded;
use crate::diag::{Diagnostic, Diagnostics, Place, Result};

/// Dimensions a tensor may have; numpy's limit, and eight times what real models use.
const MAX_RANK: usize = 64;

/// A stored tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorRef {
    /// Its name; empty in attributes.
    pub name: String,
    /// The element type.
    pub dtype: DType,
    /// The dimensions; none for a scalar. The product of those that are not 0 fits `isize`.
    pub dims: Vec<usize>,
    /// `dtype.bytes(elements)` bytes, row-major, little-endian; aligned to nothing.
    pub data: Bytes,
}

impl TensorRef {
    /// The number of elements.
    pub fn elements(&self) -> usize {
        self.dims.iter().product()
    }
}

/// The largest stand-in for a weight that is not at hand, so that absurd dimensions cannot fill the memory.
const MAX_SEEDED: usize = 1 << 31;

/// Decodes `tensor`; `at` is where a diagnostic says it is.
///
/// # Errors
/// E0201 to E0206 (type, dimensions, amount and place of the data), E0210 to E0213 (external data).
pub fn decode(tensor: &TensorProto, external: &External, at: &Place) -> Result<TensorRef> {
    let dtype = dtype_of(tensor.data_type(), at)?;
    let (dims, elements) = extents(&tensor.dims, dtype, at)?;
    if tensor.segment.is_some() {
        return Err(Diagnostic::error("E0206", at.clone(), "the tensor is stored in segments")
            .why("no ONNX version says how segments are put together")
            .help("save the model again with a current onnx package")
            .into());
    }
    let need = dtype.bytes(elements);
    let data = match stored(tensor, dtype, at)? {
        Source::External if external.is_seeded() && need <= MAX_SEEDED => seeded::elements(tensor.name(), dtype, &dims),
        Source::External => external.data(tensor, need, at)?,
        Source::Raw(raw) => raw,
        Source::Typed => typed(tensor, dtype, at)?,
    };
    if data.len() != need {
        return Err(wrong_size(dtype, &dims, need, data.len(), at).into());
    }
    let data = if dtype == DType::Bool { canonical_bools(data) } else { data };
    Ok(TensorRef { name: tensor.name().to_owned(), dtype, dims, data })
}

/// The element type that ONNX numbers `data_type` (`TensorProto.DataType`).
///
/// # Errors
/// E0201 for strings, complex numbers, 6-bit floats, and numbers that ONNX does not define.
pub fn dtype_of(data_type: i32, at: &Place) -> Result<DType> {
    let unsupported = |what: String, help: &str| {
        let why = "kernels exist for numbers of 2 to 64 bits and for bool";
        Err(Diagnostic::error("E0201", at.clone(), what).why(why).help(help).into())
    };
    let Ok(known) = DataType::try_from(data_type) else {
        let what = format!("element type {data_type} is not one that ONNX 1.23 defines");
        return unsupported(what, "export the model with an older onnx package");
    };
    Ok(match known {
        DataType::Float => DType::F32,
        DataType::Double => DType::F64,
        DataType::Float16 => DType::F16,
        DataType::Bfloat16 => DType::BF16,
        DataType::Int64 => DType::I64,
        DataType::Int32 => DType::I32,
        DataType::Int16 => DType::I16,
        DataType::Int8 => DType::I8,
        DataType::Uint64 => DType::U64,
        DataType::Uint32 => DType::U32,
        DataType::Uint16 => DType::U16,
        DataType::Uint8 => DType::U8,
        DataType::Bool => DType::Bool,
        DataType::Float8e4m3fn => DType::F8E4M3FN,
        DataType::Float8e4m3fnuz => DType::F8E4M3FNUZ,
        DataType::Float8e5m2 => DType::F8E5M2,
        DataType::Float8e5m2fnuz => DType::F8E5M2FNUZ,
        DataType::Float8e8m0 => DType::F8E8M0,
        DataType::Float4e2m1 => DType::F4E2M1,
        DataType::Int4 => DType::I4,
        DataType::Uint4 => DType::U4,
        DataType::Int2 => DType::I2,
        DataType::Uint2 => DType::U2,
        DataType::Undefined => {
            return unsupported("the element type is not given".into(), "export the model again");
        }
        DataType::String => {
            let what = "tensors of strings are not supported".into();
            return unsupported(what, "cut the part that handles text out of the model, and run it before");
        }
        DataType::Complex64 | DataType::Complex128 => {
            let what = "tensors of complex numbers are not supported".into();
            return unsupported(what, "give the real and the imaginary part as a dimension of their own");
        }
        DataType::Float6e2m3 | DataType::Float6e3m2 => {
            let what = format!("element type {} is not supported", known.as_str_name());
            return unsupported(what, "quantize the model to FLOAT8E4M3FN or FLOAT4E2M1 instead");
        }
    })
}

/// Checked dimensions, and their product.
///
/// # Errors
/// E0202: one is negative, there are more than 64, or the bytes of the tensor cannot be counted in an `isize`. Zeros
/// are left out of that product, so that strides can be computed without care.
pub(super) fn extents(dims: &[i64], dtype: DType, at: &Place) -> Result<(Vec<usize>, usize)> {
    let impossible = |why: String| {
        let what = format!("the dimensions {} are impossible", shown(dims));
        let help = "export the model again: the file is damaged or was made by a faulty exporter";
        Diagnostics::from(Diagnostic::error("E0202", at.clone(), what).why(why).help(help))
    };
    if dims.len() > MAX_RANK {
        return Err(impossible(format!("there are {}; at most {MAX_RANK} are supported", dims.len())));
    }
    let checked: std::result::Result<Vec<usize>, _> = dims.iter().map(|&d| usize::try_from(d)).collect();
    let Ok(checked) = checked else {
        return Err(impossible("a stored tensor has fixed dimensions of 0 or more".into()));
    };
    let bits = checked.iter().filter(|&&d| d != 0).try_fold(dtype.bits(), |bits, &d| bits.checked_mul(d));
    if bits.is_none_or(|bits| bits > isize::MAX as usize) {
        return Err(impossible(format!("a {dtype} tensor of that size does not fit any memory")));
    }
    let elements = checked.iter().product();
    Ok((checked, elements))
}

/// Where the data of a tensor is.
enum Source {
    External,
    Raw(Bytes),
    Typed,
}

/// The typed fields. Each element type has one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Field {
    Float,
    Int32,
    Int64,
    Double,
    Uint64,
}

impl Field {
    const ALL: [Field; 5] = [Field::Float, Field::Int32, Field::Int64, Field::Double, Field::Uint64];

    fn of(dtype: DType) -> Field {
        match dtype {
            DType::F32 => Field::Float,
            DType::F64 => Field::Double,
            DType::I64 => Field::Int64,
            DType::U64 | DType::U32 => Field::Uint64,
            DType::F16
            | DType::BF16
            | DType::I32
            | DType::I16
            | DType::I8
            | DType::U16
            | DType::U8
            | DType::Bool
            | DType::F8E4M3FN
            | DType::F8E4M3FNUZ
            | DType::F8E5M2
            | DType::F8E5M2FNUZ
            | DType::F8E8M0
            | DType::F4E2M1
            | DType::I4
            | DType::U4
            | DType::I2
            | DType::U2 => Field::Int32,
        }
    }

    fn entries(self, tensor: &TensorProto) -> usize {
        match self {
            Field::Float => tensor.float_data.len(),
            Field::Int32 => tensor.int32_data.len(),
            Field::Int64 => tensor.int64_data.len(),
            Field::Double => tensor.double_data.len(),
            Field::Uint64 => tensor.uint64_data.len(),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Field::Float => "float_data",
            Field::Int32 => "int32_data",
            Field::Int64 => "int64_data",
            Field::Double => "double_data",
            Field::Uint64 => "uint64_data",
        }
    }
}

fn stored(tensor: &TensorProto, dtype: DType, at: &Place) -> Result<Source> {
    let own = Field::of(dtype);
    let raw = tensor.raw_data.clone().unwrap_or_default();
    let mut used: Vec<&str> = Field::ALL.iter().filter(|f| f.entries(tensor) > 0).map(|f| f.name()).collect();
    used.extend((!raw.is_empty()).then_some("raw_data"));
    used.extend((!tensor.string_data.is_empty()).then_some("string_data"));
    used.extend(is_external(tensor).then_some("an external file"));
    let expected = match used.as_slice() {
        [] | ["raw_data"] | ["an external file"] => true,
        [one] => *one == own.name(),
        _ => false,
    };
    if !expected {
        let what = format!("the data of a {dtype} tensor is in {}", used.join(" and in "));
        return Err(Diagnostic::error("E0204", at.clone(), what)
            .why(format!("it belongs in one of raw_data, {} and an external file", own.name()))
            .help("save the model again with a current onnx package")
            .into());
    }
    Ok(match used.as_slice() {
        ["an external file"] => Source::External,
        ["raw_data"] => Source::Raw(raw),
        _ => Source::Typed,
    })
}

/// The typed field's entries as bytes. `int32_data` holds one element an entry, or for types below 8 bits one byte of
/// packed elements; floats are held as their bits.
fn typed(tensor: &TensorProto, dtype: DType, at: &Place) -> Result<Bytes> {
    Ok(match dtype {
        DType::F32 => tensor.float_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DType::F64 => tensor.double_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DType::I64 => tensor.int64_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DType::U64 => tensor.uint64_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DType::U32 => {
            let entries = tensor.uint64_data.iter().map(|&v| i128::from(v));
            narrowed(entries, 4, (0, u32::MAX.into()), dtype, at)?
        }
        DType::I32 => tensor.int32_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DType::I16 => int32_entries(tensor, 2, (i16::MIN.into(), i16::MAX.into()), dtype, at)?,
        DType::I8 => int32_entries(tensor, 1, (i8::MIN.into(), i8::MAX.into()), dtype, at)?,
        DType::U16 => int32_entries(tensor, 2, (0, u16::MAX.into()), dtype, at)?,
        DType::U8 => int32_entries(tensor, 1, (0, u8::MAX.into()), dtype, at)?,
        DType::Bool => tensor.int32_data.iter().map(|&v| u8::from(v != 0)).collect(),
        // Bits. The standard asks for the unsigned number; its signed twin means the same, and is seen.
        DType::F16 | DType::BF16 => int32_entries(tensor, 2, (i16::MIN.into(), u16::MAX.into()), dtype, at)?,
        DType::F8E4M3FN
        | DType::F8E4M3FNUZ
        | DType::F8E5M2
        | DType::F8E5M2FNUZ
        | DType::F8E8M0
        | DType::F4E2M1
        | DType::I4
        | DType::U4
        | DType::I2
        | DType::U2 => int32_entries(tensor, 1, (i8::MIN.into(), u8::MAX.into()), dtype, at)?,
    })
}

fn int32_entries(tensor: &TensorProto, width: usize, range: (i128, i128), dtype: DType, at: &Place) -> Result<Bytes> {
    narrowed(tensor.int32_data.iter().map(|&v| i128::from(v)), width, range, dtype, at)
}

/// The low `width` bytes of each entry, all of which must lie in `range`.
fn narrowed(
    entries: impl Iterator<Item = i128>,
    width: usize,
    range: (i128, i128),
    dtype: DType,
    at: &Place,
) -> Result<Bytes> {
    let mut data = Vec::with_capacity(entries.size_hint().0 * width);
    for (index, entry) in entries.enumerate() {
        if entry < range.0 || entry > range.1 {
            let what = format!("entry {index} of a {dtype} tensor is {entry}");
            return Err(Diagnostic::error("E0205", at.clone(), what)
                .why(format!("it must lie in {} to {}", range.0, range.1))
                .help("export the model again: the exporter wrote a number that its own type cannot hold")
                .into());
        }
        data.extend_from_slice(&entry.to_le_bytes()[..width]);
    }
    Ok(data.into())
}

fn wrong_size(dtype: DType, dims: &[usize], need: usize, given: usize, at: &Place) -> Diagnostic {
    let what = format!("a {dtype} tensor of dimensions {} needs {need} bytes, but has {given}", shown(dims));
    let why = match given {
        0 => "its data is missing, or in a field that is not read".to_owned(),
        _ => format!("{dtype} takes {} bits an element", dtype.bits()),
    };
    let help = "export or fetch the model again: the file is damaged";
    Diagnostic::error("E0203", at.clone(), what).why(why).help(help)
}

/// Bytes 0 and 1 only, which everything downstream relies on; other bytes mean true.
fn canonical_bools(data: Bytes) -> Bytes {
    if data.iter().all(|&b| b <= 1) {
        return data;
    }
    data.iter().map(|&b| u8::from(b != 0)).collect()
}

/// Dimensions for a message, cut where there are absurdly many.
fn shown<T: std::fmt::Display>(dims: &[T]) -> String {
    let mut parts: Vec<String> = dims.iter().take(8).map(T::to_string).collect();
    if dims.len() > parts.len() {
        parts.push("...".into());
    }
    format!("[{}]", parts.join(", "))
}
