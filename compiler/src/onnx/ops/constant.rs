//! ONNX Constant, in all forms but texts.

use lapidary_runtime::DType;
use lapidary_runtime::op::MAX_RANK;

use super::entry::op;
use super::{Cx, Fault, Imported, OpDef, one};
use crate::ir::{Expr, Type, ValueId};
use crate::onnx::TensorRef;

pub const DEFS: &[OpDef] = &[op("Constant", 1, (0, 0), constant)];

/// The attributes of which a node has one.
const FORMS: [&str; 8] = [
    "value",
    "sparse_value",
    "value_float",
    "value_floats",
    "value_int",
    "value_ints",
    "value_string",
    "value_strings",
];

fn constant(cx: &mut Cx<'_, '_>) -> Imported {
    let given: Vec<&str> = FORMS.into_iter().filter(|name| cx.attrs.has(name)).collect();
    let [form] = given.as_slice() else {
        return Err(format!("a constant has one value, and {} are given", given.len()).into());
    };
    let at = cx.attrs.at();
    let value = match *form {
        "value" => {
            let tensor = cx.model.tensor(cx.attrs.tensor("value")?, at)?;
            stored(cx, tensor)?
        }
        "sparse_value" => {
            let tensor = cx.model.sparse_tensor(cx.attrs.sparse_tensor("sparse_value")?, at)?;
            stored(cx, tensor)?
        }
        "value_float" => {
            let bytes = cx.attrs.float("value_float")?.to_le_bytes().to_vec();
            cx.b.constant(Type { dtype: DType::F32, dims: Vec::new() }, bytes)
        }
        "value_floats" => {
            let values = cx.attrs.floats("value_floats")?;
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            cx.b.constant(Type { dtype: DType::F32, dims: vec![Expr::from(values.len())] }, bytes)
        }
        "value_int" => {
            let bytes = cx.attrs.int("value_int")?.to_le_bytes().to_vec();
            cx.b.constant(Type { dtype: DType::I64, dims: Vec::new() }, bytes)
        }
        "value_ints" => {
            let values = cx.attrs.ints("value_ints")?;
            cx.b.i64s(values)
        }
        _ => {
            return Err(Fault::unsupported(
                "constants of texts are not supported",
                "cut the part that handles text out of the model, and run it before",
            ));
        }
    };
    one(value)
}

fn stored(cx: &mut Cx<'_, '_>, tensor: TensorRef) -> Result<ValueId, Fault> {
    if tensor.dims.len() > MAX_RANK {
        return Err(Fault::unsupported(
            format!("the constant has rank {}, and tensors have at most {MAX_RANK} axes here", tensor.dims.len()),
            "merge axes in the model",
        ));
    }
    let dims = tensor.dims.iter().map(|&dim| Expr::from(dim)).collect();
    Ok(cx.b.constant(Type { dtype: tensor.dtype, dims }, tensor.data))
}
