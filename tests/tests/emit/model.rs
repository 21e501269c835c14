//! Small models made by hand, with names that no Rust identifier may have.

use lapidary::ir::eval::Tensor;
use lapidary::onnx::proto::tensor_shape_proto::{Dimension, dimension};
use lapidary::onnx::proto::type_proto::{self, Value};
use lapidary::onnx::proto::{
    GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto, TypeProto, ValueInfoProto,
};
use lapidary_runtime::DType;
use prost::Message;

/// ONNX's number of `f32` and of `i64` (onnx.proto, `TensorProto.DataType`).
const FLOAT: i32 = 1;
const INT64: i32 = 7;

/// A graph under construction.
#[derive(Default)]
pub struct Builder(GraphProto);

impl Builder {
    pub fn new(name: &str) -> Builder {
        Builder(GraphProto { name: Some(name.to_owned()), ..GraphProto::default() })
    }

    /// An input; `dims` are numbers and symbols.
    pub fn input(mut self, name: &str, elem_type: i32, dims: &[&str]) -> Builder {
        let value = |dim: &&str| match dim.parse() {
            Ok(extent) => dimension::Value::DimValue(extent),
            Err(_) => dimension::Value::DimParam((*dim).to_owned()),
        };
        let dim = dims.iter().map(|dim| Dimension { value: Some(value(dim)) }).collect();
        let tensor = type_proto::Tensor { elem_type: Some(elem_type), shape: Some(TensorShapeProto { dim }) };
        let ty = TypeProto { value: Some(Value::TensorType(tensor)) };
        self.0.input.push(ValueInfoProto { name: Some(name.to_owned()), r#type: Some(ty) });
        self
    }

    /// A constant of `f32`s that depend on their index alone.
    pub fn weight(mut self, name: &str, dims: &[usize]) -> Builder {
        let count: usize = dims.iter().product();
        let values: Vec<f64> = (0..count).map(|k| ((k * 37 + 11) % 64) as f64 / 32.0 - 1.0).collect();
        let tensor = Tensor::from_f64s(DType::F32, dims.to_vec(), &values);
        self.0.initializer.push(TensorProto {
            name: Some(name.to_owned()),
            data_type: Some(FLOAT),
            dims: dims.iter().map(|&dim| dim as i64).collect(),
            raw_data: Some(tensor.bytes),
            ..TensorProto::default()
        });
        self
    }

    pub fn node(mut self, op: &str, inputs: &[&str], output: &str) -> Builder {
        self.0.node.push(NodeProto {
            name: Some(format!("{op} of\n{output}")),
            op_type: Some(op.to_owned()),
            input: inputs.iter().map(|&name| name.to_owned()).collect(),
            output: vec![output.to_owned()],
            ..NodeProto::default()
        });
        self
    }

    pub fn output(mut self, name: &str) -> Builder {
        self.0.output.push(ValueInfoProto { name: Some(name.to_owned()), r#type: None });
        self
    }

    /// The bytes of the model.
    pub fn bytes(self) -> Vec<u8> {
        let opset = OperatorSetIdProto { domain: None, version: Some(21) };
        let model = ModelProto {
            ir_version: Some(10),
            producer_name: Some("tests".to_owned()),
            graph: Some(self.0),
            opset_import: vec![opset],
            ..ModelProto::default()
        };
        model.encode_to_vec()
    }
}

/// A dense layer over a batch, and a gathered row of a table: two inputs of two types, two outputs.
pub fn dense() -> Vec<u8> {
    Builder::new("dense")
        .input("serving_default_input:0", FLOAT, &["batch-size", "6"])
        .input("1252", INT64, &["batch-size"])
        .weight("w", &[6, 5])
        .weight("b", &[5])
        .weight("table", &[3, 5])
        .node("MatMul", &["serving_default_input:0", "w"], "product")
        .node("Add", &["product", "b"], "sum")
        .node("Relu", &["sum"], "type")
        .node("Gather", &["table", "1252"], "rows")
        .node("Mul", &["type", "rows"], "session.run()")
        .output("type")
        .output("session.run()")
        .bytes()
}

/// Names that an emitted crate uses itself.
pub const NAMES: [&str; 28] = [
    "self",
    "Self",
    "type",
    "builder",
    "check",
    "compare",
    "decode",
    "error",
    "expected",
    "inputs",
    "loaded",
    "model",
    "no_gpu",
    "noise",
    "outputs",
    "session",
    "shape",
    "start",
    "target",
    "times",
    "number",
    "instant",
    "write",
    "view",
    "c",
    "driver_error",
    "range",
    "vec",
];

/// An input, its dimension and an output of each of [`NAMES`].
pub fn namesake() -> Vec<u8> {
    let mut model = Builder::new("namesake");
    for name in NAMES {
        model = model.input(name, FLOAT, &[name, "2"]);
    }
    for name in NAMES {
        let output = format!("{name}:1");
        model = model.node("Relu", &[name], &output).output(&output);
    }
    model.bytes()
}

/// Fixed shapes and one output; every target has kernels for it.
pub fn fixed() -> Vec<u8> {
    Builder::new("fixed")
        .input("x", FLOAT, &["4", "6"])
        .weight("w", &[6, 5])
        .node("MatMul", &["x", "w"], "product")
        .node("Sigmoid", &["product"], "y")
        .output("y")
        .bytes()
}

/// A chain of `length` steps that no pass joins.
pub fn chain(length: usize) -> Vec<u8> {
    let mut model = Builder::new("chain").input("x", FLOAT, &["8", "8"]).weight("w", &[8, 8]);
    let mut value = "x".to_owned();
    for k in 0..length {
        let next = format!("v{k}");
        model = model.node("MatMul", &[&value, "w"], &next);
        value = next;
    }
    model.output(&value).bytes()
}
