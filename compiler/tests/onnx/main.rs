//! Bytes to a checked model: what must load, what must be refused, and with which words. The models are made here, by
//! encoding messages, so that nothing is downloaded; real ones are loaded by the tests crate.

mod attrs;
mod bounds;
mod control;
mod external;
mod fixed;
mod functions;
mod hostile;
mod hostile_graphs;
mod load;
mod sparse;
mod tensor;
mod typical;

use bytes::Bytes;
use lapidary::diag::{Diagnostics, Place, Result};
use lapidary::onnx::proto::{
    GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto, TensorProto,
};
use lapidary::onnx::{Model, load_bytes};
use prost::Message;

/// A model with one Relu and the given stored tensors.
fn model(initializer: Vec<TensorProto>) -> ModelProto {
    let relu = NodeProto {
        input: vec!["x".into()],
        output: vec!["y".into()],
        op_type: Some("Relu".into()),
        ..Default::default()
    };
    let graph = GraphProto { node: vec![relu], initializer, ..Default::default() };
    ModelProto { ir_version: Some(8), opset_import: vec![opset("", 17)], graph: Some(graph), ..Default::default() }
}

fn opset(domain: &str, version: i64) -> OperatorSetIdProto {
    OperatorSetIdProto { domain: Some(domain.into()), version: Some(version) }
}

fn loaded(proto: &ModelProto) -> Result<Model> {
    load_bytes(proto.encode_to_vec().into(), None)
}

/// A tensor with raw data; `data_type` is ONNX's number.
fn raw(data_type: i32, dims: &[i64], data: &[u8]) -> TensorProto {
    TensorProto {
        name: Some("w".into()),
        data_type: Some(data_type),
        dims: dims.to_vec(),
        raw_data: Some(Bytes::copy_from_slice(data)),
        ..Default::default()
    }
}

fn entry(key: &str, value: &str) -> StringStringEntryProto {
    StringStringEntryProto { key: Some(key.into()), value: Some(value.into()) }
}

fn place() -> Place {
    Place::tensor("w")
}

/// The only diagnostic of a failure, as text; fails the test unless it has this code, a reason and a help.
#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T>, code: &str) -> String {
    let found: Diagnostics = result.expect_err("this must be refused");
    assert_eq!(found.len(), 1, "{found}");
    let one = found.iter().next().expect("there is one");
    assert_eq!(one.code, code, "{found}");
    assert!(!one.why.is_empty() && !one.help.is_empty(), "{found}");
    found.to_string()
}
