//! A model made in a test: inputs, constants, nodes, and the output `y`.

use lapidary_runtime::DType;
use prost::Message;

use crate::diag::Diagnostics;
use crate::ir::eval::{self, Tensor};
use crate::ir::{Expr, Graph};
use crate::onnx::proto::attribute_proto::AttributeType;
use crate::onnx::proto::tensor_shape_proto::{Dimension, dimension};
use crate::onnx::proto::type_proto::{self, Value};
use crate::onnx::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto, TypeProto,
    ValueInfoProto,
};
use crate::onnx::{import, load_bytes};
use crate::profiles::Profiles;

/// A model under construction.
#[derive(Clone)]
pub struct Case {
    graph: GraphProto,
    opset: i64,
    profiles: Profiles,
    elements: Vec<(&'static str, usize)>,
    ranks: Vec<(&'static str, usize)>,
}

/// An attribute's value.
pub enum Attr {
    Int(i64),
    Ints(&'static [i64]),
    Float(f32),
    Floats(&'static [f32]),
    Text(&'static str),
    Texts(&'static [&'static str]),
    /// A graph: the case's, without its operator set.
    Graph(Box<Case>),
}

impl Attr {
    /// A graph, such as the body of a loop.
    pub fn graph(case: Case) -> Attr {
        Attr::Graph(Box::new(case))
    }
}

impl Case {
    /// A model of this operator set, and of `com.microsoft` and `ai.onnx.preview` 1.
    pub fn new(opset: i64) -> Case {
        let output = ValueInfoProto { name: Some("y".to_owned()), r#type: None };
        let graph = GraphProto { output: vec![output], ..GraphProto::default() };
        Case { graph, opset, profiles: Profiles::new(), elements: Vec::new(), ranks: Vec::new() }
    }

    /// An input; `dims` are numbers and symbols.
    pub fn input(mut self, name: &str, dtype: DType, dims: &[&str]) -> Case {
        let value = |dim: &&str| match dim.parse() {
            Ok(extent) => dimension::Value::DimValue(extent),
            Err(_) => dimension::Value::DimParam((*dim).to_owned()),
        };
        let dim = dims.iter().map(|dim| Dimension { value: Some(value(dim)) }).collect();
        let tensor = type_proto::Tensor { elem_type: Some(number(dtype)), shape: Some(TensorShapeProto { dim }) };
        let ty = TypeProto { value: Some(Value::TensorType(tensor)) };
        self.graph.input.push(ValueInfoProto { name: Some(name.to_owned()), r#type: Some(ty) });
        self
    }

    /// The outputs, instead of `y`; names are parted by spaces.
    pub fn outputs(mut self, names: &str) -> Case {
        let info = |name: &str| ValueInfoProto { name: Some(name.to_owned()), r#type: None };
        self.graph.output = names.split(' ').map(info).collect();
        self
    }

    /// The number of elements of an input that is a sequence, as on the command line.
    pub fn elements(mut self, name: &'static str, count: usize) -> Case {
        self.elements.push((name, count));
        self
    }

    /// The rank of an input without a shape, as on the command line.
    pub fn rank(mut self, name: &'static str, rank: usize) -> Case {
        self.ranks.push((name, rank));
        self
    }

    /// Takes the shape from the last input.
    pub fn shapeless(mut self) -> Case {
        let last = self.graph.input.last_mut().and_then(|info| info.r#type.as_mut());
        if let Some(Value::TensorType(tensor)) = last.and_then(|ty| ty.value.as_mut()) {
            tensor.shape = None;
        }
        self
    }

    /// Makes the last input a sequence of what it was.
    pub fn sequence(mut self) -> Case {
        let last = self.graph.input.last_mut().expect("an input");
        let element = last.r#type.take().map(Box::new);
        last.r#type =
            Some(TypeProto { value: Some(Value::SequenceType(Box::new(type_proto::Sequence { elem_type: element }))) });
        self
    }

    /// Makes the last input optional.
    pub fn maybe(mut self) -> Case {
        let last = self.graph.input.last_mut().expect("an input");
        let element = last.r#type.take().map(Box::new);
        last.r#type =
            Some(TypeProto { value: Some(Value::OptionalType(Box::new(type_proto::Optional { elem_type: element }))) });
        self
    }

    /// A constant.
    pub fn constant(mut self, name: &str, tensor: Tensor) -> Case {
        self.graph.initializer.push(TensorProto {
            name: Some(name.to_owned()),
            data_type: Some(number(tensor.dtype)),
            dims: tensor.dims.iter().map(|&dim| dim as i64).collect(),
            raw_data: Some(tensor.bytes),
            ..TensorProto::default()
        });
        self
    }

    /// A vector of `i64` constants.
    pub fn ints(self, name: &str, values: &[i64]) -> Case {
        self.constant(name, Tensor::from_i64s(DType::I64, vec![values.len()], values))
    }

    /// The range of a symbol, as on the command line.
    pub fn dim(mut self, text: &str) -> Case {
        let (name, range) = Profiles::parse(text).expect("a profile");
        self.profiles.add(&name, range);
        self
    }

    /// A node; names are parted by spaces, `_` is an absent one, and an empty text has none. `com.microsoft` operators are written so.
    pub fn node(mut self, op: &str, inputs: &str, outputs: &str, attrs: &[(&str, Attr)]) -> Case {
        let names = |text: &str| {
            text.split(' ')
                .filter(|_| !text.is_empty())
                .map(|name| if name == "_" { String::new() } else { name.to_owned() })
                .collect()
        };
        let (domain, op) = op.split_once("::").unwrap_or(("", op));
        self.graph.node.push(NodeProto {
            input: names(inputs),
            output: names(outputs),
            op_type: Some(op.to_owned()),
            domain: Some(domain.to_owned()),
            attribute: attrs.iter().map(|(name, value)| attribute(name, value)).collect(),
            ..NodeProto::default()
        });
        self
    }

    /// The graph, or what is wrong.
    pub fn import(&self) -> Result<Graph, Diagnostics> {
        let opset =
            |domain: &str, version| OperatorSetIdProto { domain: Some(domain.to_owned()), version: Some(version) };
        let proto = ModelProto {
            ir_version: Some(10),
            graph: Some(self.graph.clone()),
            opset_import: vec![opset("", self.opset), opset("com.microsoft", 1), opset("ai.onnx.preview", 1)],
            ..ModelProto::default()
        };
        let mut model = load_bytes(proto.encode_to_vec().into(), None)?;
        for (name, count) in &self.elements {
            model.set_elements(name, *count)?;
        }
        for (name, rank) in &self.ranks {
            model.set_rank(name, *rank)?;
        }
        import(&model, &self.profiles)
    }

    /// The output on the given inputs.
    pub fn run(&self, inputs: &[Tensor]) -> Tensor {
        self.run_all(inputs).into_iter().next().expect("an output").1
    }

    /// All outputs on the given inputs, with their names.
    pub fn run_all(&self, inputs: &[Tensor]) -> Vec<(String, Tensor)> {
        let graph = self.import().unwrap_or_else(|found| panic!("{found}"));
        let outputs = eval::run(&graph, inputs).unwrap_or_else(|error| panic!("{error}"));
        graph.outputs().iter().map(|(name, _)| name.clone()).zip(outputs).collect()
    }

    /// The output's extents.
    pub fn dims(&self) -> Vec<String> {
        let graph = self.import().unwrap_or_else(|found| panic!("{found}"));
        graph.ty(graph.outputs()[0].1).dims.iter().map(Expr::to_string).collect()
    }

    /// The first line of what is wrong.
    pub fn fault(&self) -> String {
        match self.import() {
            Ok(_) => panic!("nothing is wrong"),
            Err(found) => found.iter().next().expect("a diagnostic").what.clone(),
        }
    }
}

/// An `f32` tensor of the given values.
pub fn floats(dims: &[usize], values: &[f64]) -> Tensor {
    Tensor::from_f64s(DType::F32, dims.to_vec(), values)
}

/// An `f32` tensor of small numbers that differ.
pub fn counted(dims: &[usize]) -> Tensor {
    let count = dims.iter().product::<usize>();
    let values: Vec<f64> = (0..count).map(|i| f64::from((i * 7 % 23) as u32) - 11.0).collect();
    floats(dims, &values)
}

fn attribute(name: &str, value: &Attr) -> AttributeProto {
    let named = AttributeProto { name: Some(name.to_owned()), ..AttributeProto::default() };
    let of = |kind: AttributeType| Some(kind as i32);
    match value {
        Attr::Int(value) => AttributeProto { i: Some(*value), r#type: of(AttributeType::Int), ..named },
        Attr::Ints(values) => AttributeProto { ints: values.to_vec(), r#type: of(AttributeType::Ints), ..named },
        Attr::Float(value) => AttributeProto { f: Some(*value), r#type: of(AttributeType::Float), ..named },
        Attr::Floats(values) => AttributeProto { floats: values.to_vec(), r#type: of(AttributeType::Floats), ..named },
        Attr::Texts(texts) => {
            let strings = texts.iter().map(|text| text.as_bytes().to_vec()).collect();
            AttributeProto { strings, r#type: of(AttributeType::Strings), ..named }
        }
        Attr::Graph(case) => {
            let graph = Some(Box::new(case.graph.clone()));
            AttributeProto { g: graph, r#type: of(AttributeType::Graph), ..named }
        }
        Attr::Text(text) => {
            AttributeProto { s: Some(text.as_bytes().to_vec()), r#type: of(AttributeType::String), ..named }
        }
    }
}

/// ONNX's number of an element type (onnx.proto, TensorProto.DataType).
fn number(dtype: DType) -> i32 {
    let at = crate::diag::Place::Model;
    (1..32).find(|&number| crate::onnx::dtype_of(number, &at) == Ok(dtype)).expect("a number for the type")
}
