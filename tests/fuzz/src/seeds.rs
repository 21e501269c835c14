//! The models to start from: one small model a line of `seeds.txt`, and windows of the graphs that are committed.
//!
//! A line is a node with typed operands, `OPSET Op(x:f[2,3], axes=[0,1]) { axis = 1 }`; the letters of element types
//! stand in [`data_type`]. A dimension may be a name. `name=[..]` stores integers, `name:f[..]=0` stores zeros.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use lapidary::onnx::proto::attribute_proto::AttributeType;
use lapidary::onnx::proto::tensor_shape_proto::{Dimension, dimension};
use lapidary::onnx::proto::type_proto::{self, Value as TypeValue};
use lapidary::onnx::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto, TypeProto,
    ValueInfoProto,
};
use lapidary::onnx::{self, operators};
use lapidary::profiles::Profiles;
use prost::Message;

/// How many nodes of a committed graph make a seed.
const WINDOW: usize = 10;

/// Stored tensors with more bytes become inputs.
const MOST_STORED: usize = 256;

/// Writes all seeds into `folder`.
///
/// # Errors
/// A file that cannot be read or written, or a line of `seeds.txt` that is malformed.
pub fn write(folder: &Path) -> io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (k, line) in include_str!("../seeds.txt").lines().enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let model = read(line).ok_or_else(|| io::Error::other(format!("seeds.txt, line {}: {line}", k + 1)))?;
        fs::write(folder.join(format!("line-{:03}.onnx", k + 1)), model.encode_to_vec())?;
    }
    for (k, operator) in operators().enumerate() {
        let inputs: Vec<String> = (0..operator.inputs.0.max(1)).map(|k| format!("x{k}:f[2,3,4,4]")).collect();
        let line = format!("{} {}({})", operator.since.max(18), operator.name, inputs.join(", "));
        let mut model = read(&line).ok_or_else(|| io::Error::other(line))?;
        if let Some(node) = model.graph.as_mut().and_then(|graph| graph.node.first_mut()) {
            node.domain = Some(operator.domain.to_owned());
        }
        fs::write(folder.join(format!("operator-{k:03}.onnx")), model.encode_to_vec())?;
    }
    let mut graphs = vec![root.join("../../examples/01-quickstart/model.onnx")];
    for entry in fs::read_dir(root.join("../graphs"))? {
        graphs.push(entry?.path());
    }
    graphs.retain(|path| path.extension().is_some_and(|extension| extension == "onnx"));
    graphs.sort();
    for (k, path) in graphs.iter().enumerate() {
        let model = ModelProto::decode(&*fs::read(path)?).map_err(io::Error::other)?;
        for (j, window) in windows(path, &model).into_iter().enumerate() {
            fs::write(folder.join(format!("graph-{k}-{j:03}.onnx")), window.encode_to_vec())?;
        }
    }
    Ok(())
}

/// Runs of nodes, what they read from before them as inputs.
fn windows(path: &Path, model: &ModelProto) -> Vec<ModelProto> {
    let (Some(graph), Some(types)) = (&model.graph, types(path)) else { return Vec::new() };
    let stored: BTreeMap<&str, &TensorProto> = graph.initializer.iter().map(|t| (t.name(), t)).collect();
    let cut = |nodes: &[NodeProto]| {
        let mut window = GraphProto { node: nodes.to_vec(), ..GraphProto::default() };
        let results: Vec<&String> = nodes.iter().flat_map(|node| &node.output).collect();
        for name in nodes.iter().flat_map(|node| &node.input) {
            let defined = window.input.iter().any(|info| info.name() == name)
                || window.initializer.iter().any(|tensor| tensor.name() == name);
            if defined || name.is_empty() || results.contains(&name) {
                continue;
            }
            match (stored.get(name.as_str()), types.get(name)) {
                (Some(tensor), _) if tensor.raw_data.as_ref().is_some_and(|raw| raw.len() <= MOST_STORED) => {
                    window.initializer.push((*tensor).clone());
                }
                (Some(tensor), _) => {
                    let dims: Vec<String> = tensor.dims.iter().map(i64::to_string).collect();
                    let dims: Vec<&str> = dims.iter().map(String::as_str).collect();
                    window.input.push(input(name, tensor.data_type(), &dims));
                }
                (None, Some((data_type, dims))) => {
                    let dims: Vec<&str> = dims.iter().map(String::as_str).collect();
                    window.input.push(input(name, *data_type, &dims));
                }
                (None, None) => {}
            }
        }
        window.output = nodes.last().into_iter().flat_map(|node| &node.output).map(|name| output(name)).collect();
        ModelProto { graph: Some(window), ..model.clone() }
    };
    graph.node.chunks(WINDOW).map(cut).collect()
}

/// The element type and extents of each value of a committed graph, by name.
fn types(path: &Path) -> Option<BTreeMap<String, (i32, Vec<String>)>> {
    let mut model = onnx::load(path).ok()?;
    model.seed_weights();
    let graph = onnx::import(&model, &Profiles::new()).ok()?;
    let all = graph.value_ids().map(|id| {
        let value = graph.value(id);
        let dims = value.ty.dims.iter().map(|dim| dim.as_const().map_or("n".to_owned(), |dim| dim.to_string()));
        let data_type =
            (1..29).find(|&number| onnx::dtype_of(number, &lapidary::diag::Place::Model).ok() == Some(value.ty.dtype));
        (value.name.to_string(), (data_type.unwrap_or(1), dims.collect()))
    });
    Some(all.collect())
}

/// A tensor input; a dimension that is no number is a name.
pub fn input(name: &str, data_type: i32, dims: &[&str]) -> ValueInfoProto {
    let dim = |text: &&str| Dimension {
        value: Some(match text.parse() {
            Ok(extent) => dimension::Value::DimValue(extent),
            Err(_) => dimension::Value::DimParam((*text).to_owned()),
        }),
    };
    let shape = TensorShapeProto { dim: dims.iter().map(dim).collect() };
    let tensor = type_proto::Tensor { elem_type: Some(data_type), shape: Some(shape) };
    let r#type = TypeProto { value: Some(TypeValue::TensorType(tensor)) };
    ValueInfoProto { name: Some(name.to_owned()), r#type: Some(r#type) }
}

fn output(name: &str) -> ValueInfoProto {
    ValueInfoProto { name: Some(name.to_owned()), r#type: None }
}

/// ONNX's number of an element type.
fn data_type(letter: &str) -> Option<i32> {
    Some(match letter {
        "f" => 1,
        "u8" => 2,
        "i8" => 3,
        "i" => 6,
        "l" => 7,
        "b" => 9,
        "h" => 10,
        "d" => 11,
        "bf" => 16,
        _ => return None,
    })
}

/// The model that a line describes.
fn read(line: &str) -> Option<ModelProto> {
    let (opset, rest) = line.split_once(' ')?;
    let (op, rest) = rest.split_once('(')?;
    let (operands, rest) = rest.split_once(')')?;
    let mut graph = GraphProto::default();
    let mut node = NodeProto { op_type: Some(op.trim().to_owned()), ..NodeProto::default() };
    for operand in operands.split(", ").filter(|operand| !operand.is_empty()) {
        node.input.push(read_operand(operand, &mut graph)?);
    }
    let (results, attributes) = rest.split_once('{').unwrap_or((rest, ""));
    let results: usize = results.trim().trim_start_matches("->").trim().parse().unwrap_or(1);
    node.output = (0..results).map(|k| format!("y{k}")).collect();
    for attribute in attributes.trim_end_matches('}').split("; ").filter(|text| !text.trim().is_empty()) {
        node.attribute.push(read_attribute(attribute.trim())?);
    }
    graph.output = node.output.iter().map(|name| output(name)).collect();
    graph.node.push(node);
    let opset = OperatorSetIdProto { domain: Some(String::new()), version: Some(opset.parse().ok()?) };
    let microsoft = OperatorSetIdProto { domain: Some("com.microsoft".to_owned()), version: Some(1) };
    Some(ModelProto {
        ir_version: Some(8),
        opset_import: vec![opset, microsoft],
        graph: Some(graph),
        ..ModelProto::default()
    })
}

fn read_operand(text: &str, graph: &mut GraphProto) -> Option<String> {
    let list = |text: &str| -> Vec<String> {
        let inner = text.trim_start_matches('[').trim_end_matches(']');
        inner.split(',').filter(|item| !item.is_empty()).map(|item| item.trim().to_owned()).collect()
    };
    if text == "_" {
        return Some(String::new());
    }
    if let Some((name, values)) = text.split_once("=[") {
        let values: Option<Vec<i64>> = list(values).iter().map(|value| value.parse().ok()).collect();
        let values = values?;
        graph.initializer.push(TensorProto {
            name: Some(name.to_owned()),
            data_type: Some(7),
            dims: vec![values.len() as i64],
            int64_data: values,
            ..TensorProto::default()
        });
        return Some(name.to_owned());
    }
    let (name, ty) = text.split_once(':')?;
    let (letter, dims) = ty.split_at(ty.find('[')?);
    let number = data_type(letter)?;
    if let Some(dims) = dims.strip_suffix("=0") {
        let dims: Option<Vec<i64>> = list(dims).iter().map(|dim| dim.parse().ok()).collect();
        let dims = dims?;
        let width = match letter {
            "u8" | "i8" | "b" => 1,
            "h" | "bf" => 2,
            "l" | "d" => 8,
            _ => 4,
        };
        let bytes = dims.iter().product::<i64>() as usize * width;
        graph.initializer.push(TensorProto {
            name: Some(name.to_owned()),
            data_type: Some(number),
            dims,
            raw_data: Some(vec![0; bytes].into()),
            ..TensorProto::default()
        });
    } else {
        let dims = list(dims);
        let dims: Vec<&str> = dims.iter().map(String::as_str).collect();
        graph.input.push(input(name, number, &dims));
    }
    Some(name.to_owned())
}

fn read_attribute(text: &str) -> Option<AttributeProto> {
    let (name, value) = text.split_once(" = ")?;
    let of = |kind: AttributeType| AttributeProto {
        name: Some(name.to_owned()),
        r#type: Some(kind as i32),
        ..AttributeProto::default()
    };
    if let Some(inner) = value.strip_prefix('[') {
        let items: Vec<&str> = inner.trim_end_matches(']').split(',').filter(|item| !item.is_empty()).collect();
        let ints: Option<Vec<i64>> = items.iter().map(|item| item.trim().parse().ok()).collect();
        return Some(match ints {
            Some(ints) => AttributeProto { ints, ..of(AttributeType::Ints) },
            None => {
                let strings = items.iter().map(|item| item.trim().as_bytes().to_vec()).collect();
                AttributeProto { strings, ..of(AttributeType::Strings) }
            }
        });
    }
    Some(if let Ok(i) = value.parse() {
        AttributeProto { i: Some(i), ..of(AttributeType::Int) }
    } else if let Ok(f) = value.parse() {
        AttributeProto { f: Some(f), ..of(AttributeType::Float) }
    } else {
        AttributeProto { s: Some(value.trim_matches('"').as_bytes().to_vec()), ..of(AttributeType::String) }
    })
}
