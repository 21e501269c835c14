//! Mutations of a model as a model: the bytes that come out decode, so that what lies behind decoding is reached.
//!
//! Names, dims, element types, attributes, edges, operators and versions change; nodes come, go and wander into branches
//! and functions. Most results are wrong models, as they should be; small steps keep many of them nearly right.

use lapidary::onnx::proto::attribute_proto::AttributeType;
use lapidary::onnx::proto::tensor_shape_proto::{Dimension, dimension};
use lapidary::onnx::proto::type_proto::Value as TypeValue;
use lapidary::onnx::proto::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, ValueInfoProto,
};
use lapidary::onnx::{Operator, operators};
use prost::Message;

use crate::dictionary::{ATTRIBUTES, FLOATS, INTEGERS, NAMES, TEXTS};
use crate::random::Random;

/// `bytes` with a few changes; `None` if they are no model with a graph.
pub fn mutate(bytes: &[u8], seed: u32) -> Option<Vec<u8>> {
    let mut model = ModelProto::decode(bytes).ok()?;
    model.graph.as_ref()?;
    let mut random = Random::new(seed);
    for _ in 0..=random.below(4) {
        mutate_model(&mut model, &mut random);
    }
    Some(model.encode_to_vec())
}

fn mutate_model(model: &mut ModelProto, random: &mut Random) {
    match random.below(24) {
        0 => mutate_opset(&mut model.opset_import, random),
        1 => outline(model, random),
        2 => {
            if let Some(function) = random.pick_mut(&mut model.functions) {
                mutate_function(function, random);
            }
        }
        _ => {
            if let Some(graph) = &mut model.graph {
                mutate_graph(graph, random, 0);
            }
        }
    }
}

fn mutate_opset(imports: &mut Vec<OperatorSetIdProto>, random: &mut Random) {
    match random.pick_mut(imports) {
        Some(import) if !random.once_in(8) => import.version = Some(7 + random.below(23) as i64),
        Some(_) | None => {
            let domain = ["", "ai.onnx", "com.microsoft", "my"][random.below(4)].to_owned();
            imports.push(OperatorSetIdProto { domain: Some(domain), version: Some(1 + random.below(22) as i64) });
        }
    }
}

/// Moves the operator of a node into a function that the node calls.
fn outline(model: &mut ModelProto, random: &mut Random) {
    let Some(node) = model.graph.as_mut().and_then(|graph| random.pick_mut(&mut graph.node)) else { return };
    let names = |prefix: &str, count: usize| -> Vec<String> { (0..count).map(|k| format!("{prefix}{k}")).collect() };
    let (input, output) = (names("in", node.input.len()), names("out", node.output.len()));
    let inner = NodeProto { name: None, input: input.clone(), output: output.clone(), ..node.clone() };
    let name = format!("F{}", model.functions.len());
    model.functions.push(FunctionProto {
        name: Some(name.clone()),
        domain: Some("my".to_owned()),
        input,
        output,
        node: vec![inner],
        opset_import: model.opset_import.clone(),
        ..FunctionProto::default()
    });
    node.domain = Some("my".to_owned());
    node.op_type = Some(name);
}

fn mutate_function(function: &mut FunctionProto, random: &mut Random) {
    let mut known: Vec<String> = function.input.clone();
    known.extend(function.node.iter().flat_map(|node| node.output.iter().cloned()));
    match random.below(5) {
        0 => mutate_opset(&mut function.opset_import, random),
        1 => function.input.push(name(&known, random)),
        2 => function.output.push(name(&known, random)),
        _ => {
            if let Some(node) = random.pick_mut(&mut function.node) {
                mutate_node(node, &known, random, 0);
            }
        }
    }
}

fn mutate_graph(graph: &mut GraphProto, random: &mut Random, depth: usize) {
    let known = names(graph);
    match random.below(20) {
        0 | 1 => {
            if let Some(info) = random.pick_mut(&mut graph.input) {
                mutate_info(info, &known, random);
            }
        }
        2..=4 => {
            if let Some(tensor) = random.pick_mut(&mut graph.initializer) {
                mutate_tensor(tensor, &known, random);
            }
        }
        5 => add_node(graph, &known, random),
        6 => {
            if !graph.node.is_empty() {
                let at = random.below(graph.node.len());
                let removed = graph.node.remove(at);
                if random.once_in(2) {
                    graph.node.insert(random.below(graph.node.len() + 1), removed);
                }
            }
        }
        7 => mutate_outputs(graph, &known, random),
        8 => into_branch(graph, random),
        9 => {
            // An input that is stored, or the other way round.
            if let Some(tensor) = random.pick(&graph.initializer).cloned() {
                graph.input.push(input_like(&tensor));
                if random.once_in(2) {
                    graph.initializer.retain(|other| other.name != tensor.name);
                }
            }
        }
        10 => rename(graph, &known, random),
        11 => {
            if let Some(info) = random.pick(&graph.input).cloned() {
                graph.input.push(ValueInfoProto { name: Some(fresh(&known)), ..info });
            }
        }
        _ => {
            if let Some(node) = random.pick_mut(&mut graph.node) {
                mutate_node(node, &known, random, depth);
            }
        }
    }
}

/// All names that a graph defines.
fn names(graph: &GraphProto) -> Vec<String> {
    let infos = graph.input.iter().map(|info| info.name());
    let tensors = graph.initializer.iter().map(|tensor| tensor.name());
    let results = graph.node.iter().flat_map(|node| node.output.iter().map(String::as_str));
    infos.chain(tensors).chain(results).map(str::to_owned).collect()
}

/// A name that is there, mostly.
fn name(known: &[String], random: &mut Random) -> String {
    match random.pick(known) {
        Some(name) if !random.once_in(10) => name.clone(),
        Some(_) | None => NAMES[random.below(NAMES.len())].to_owned(),
    }
}

fn fresh(known: &[String]) -> String {
    (known.len()..).map(|k| format!("v{k}")).find(|name| !known.contains(name)).unwrap_or_default()
}

fn integer(random: &mut Random) -> i64 {
    // Small numbers are what keeps a model meaningful.
    if random.once_in(2) { random.below(9) as i64 - 2 } else { INTEGERS[random.below(INTEGERS.len())] }
}

fn mutate_info(info: &mut ValueInfoProto, known: &[String], random: &mut Random) {
    let tensor = match info.r#type.as_mut().and_then(|ty| ty.value.as_mut()) {
        Some(TypeValue::TensorType(tensor)) => tensor,
        Some(_) | None => return,
    };
    let dims = tensor.shape.as_mut().map(|shape| &mut shape.dim);
    match (random.below(8), dims) {
        (0, _) => tensor.elem_type = Some(random.below(29) as i32),
        (1, _) => info.name = Some(name(known, random)),
        (2, Some(dims)) => dims.insert(random.below(dims.len() + 1), dim(random)),
        (3, Some(dims)) if !dims.is_empty() => drop(dims.remove(random.below(dims.len()))),
        (4, _) if random.once_in(4) => tensor.shape = None,
        (_, Some(dims)) => {
            if let Some(slot) = random.pick_mut(dims) {
                *slot = dim(random);
            }
        }
        (_, None) => {}
    }
}

fn dim(random: &mut Random) -> Dimension {
    let value = match random.below(3) {
        0 => dimension::Value::DimParam(NAMES[random.below(NAMES.len())].to_owned()),
        1 => dimension::Value::DimParam(["batch", "N", "h"][random.below(3)].to_owned()),
        _ => dimension::Value::DimValue(integer(random)),
    };
    Dimension { value: Some(value) }
}

fn mutate_tensor(tensor: &mut TensorProto, known: &[String], random: &mut Random) {
    match random.below(10) {
        0 => tensor.name = Some(name(known, random)),
        1 => tensor.data_type = Some(random.below(29) as i32),
        2 => {
            let count = 1 + random.below(4);
            *tensor = int64s(tensor.name(), (0..count).map(|_| integer(random)).collect());
        }
        3 => tensor.dims.push(integer(random)),
        4 => drop(tensor.dims.pop()),
        5 => {
            if let Some(dim) = random.pick_mut(&mut tensor.dims) {
                *dim = integer(random);
            }
        }
        _ => mutate_data(tensor, random),
    }
}

/// Changes one stored number, wherever it is stored.
fn mutate_data(tensor: &mut TensorProto, random: &mut Random) {
    if let Some(slot) = random.pick_mut(&mut tensor.int64_data) {
        *slot = integer(random);
    } else if let Some(slot) = random.pick_mut(&mut tensor.float_data) {
        *slot = FLOATS[random.below(FLOATS.len())];
    } else if let Some(slot) = random.pick_mut(&mut tensor.int32_data) {
        *slot = integer(random) as i32;
    } else if let Some(raw) = &tensor.raw_data {
        let mut data = raw.to_vec();
        let width = if tensor.data_type == Some(7) { 8 } else { 4 };
        let at = random.below(data.len() / width) * width;
        let bytes = match width {
            8 => integer(random).to_le_bytes().to_vec(),
            _ if random.once_in(2) => FLOATS[random.below(FLOATS.len())].to_le_bytes().to_vec(),
            _ => (integer(random) as i32).to_le_bytes().to_vec(),
        };
        if let Some(slot) = data.get_mut(at..at + width) {
            slot.copy_from_slice(&bytes);
        }
        tensor.raw_data = Some(data.into());
    }
}

/// A vector of integers, as shapes, axes and pads are.
fn int64s(name: &str, values: Vec<i64>) -> TensorProto {
    TensorProto {
        name: Some(name.to_owned()),
        data_type: Some(7),
        dims: vec![values.len() as i64],
        int64_data: values,
        ..TensorProto::default()
    }
}

fn input_like(tensor: &TensorProto) -> ValueInfoProto {
    let dims: Vec<String> = tensor.dims.iter().map(i64::to_string).collect();
    let dims: Vec<&str> = dims.iter().map(String::as_str).collect();
    crate::seeds::input(tensor.name(), tensor.data_type(), &dims)
}

fn mutate_outputs(graph: &mut GraphProto, known: &[String], random: &mut Random) {
    match random.below(3) {
        0 if !graph.output.is_empty() => drop(graph.output.remove(random.below(graph.output.len()))),
        1 => {
            let name = name(known, random);
            if let Some(info) = random.pick_mut(&mut graph.output) {
                info.name = Some(name);
            }
        }
        _ => graph.output.push(ValueInfoProto { name: Some(name(known, random)), r#type: None }),
    }
}

/// Gives a value another name, everywhere.
fn rename(graph: &mut GraphProto, known: &[String], random: &mut Random) {
    let Some(old) = random.pick(known) else { return };
    let new = NAMES[random.below(NAMES.len())];
    let change = |name: &mut String| {
        if name == old {
            *name = new.to_owned();
        }
    };
    for node in &mut graph.node {
        node.input.iter_mut().chain(&mut node.output).for_each(change);
    }
    for info in graph.input.iter_mut().chain(&mut graph.output) {
        info.name.iter_mut().for_each(change);
    }
    for tensor in &mut graph.initializer {
        tensor.name.iter_mut().for_each(change);
    }
}

/// Appends a node that reads what is there.
fn add_node(graph: &mut GraphProto, known: &[String], random: &mut Random) {
    let Some(operator) = operator(random) else { return };
    let (low, high) = operator.inputs;
    let count = low + random.below(high.min(low + 2) - low + 1);
    let results = operator.outputs.0.max(1);
    let output: Vec<String> = (0..results).map(|k| format!("{}.{k}", fresh(known))).collect();
    graph.node.push(NodeProto {
        domain: Some(operator.domain.to_owned()),
        op_type: Some(operator.name.to_owned()),
        input: (0..count).map(|_| name(known, random)).collect(),
        output: output.clone(),
        ..NodeProto::default()
    });
    graph.output.push(ValueInfoProto { name: output.first().cloned(), r#type: None });
}

fn operator(random: &mut Random) -> Option<Operator> {
    operators().nth(random.below(operators().count()))
}

/// Moves a node into both branches of an `If`.
fn into_branch(graph: &mut GraphProto, random: &mut Random) {
    let condition = graph.initializer.iter().find(|tensor| tensor.data_type == Some(9)).map(|t| t.name().to_owned());
    let condition = condition.unwrap_or_else(|| {
        let name = fresh(&names(graph));
        graph.input.push(crate::seeds::input(&name, 9, &[]));
        name
    });
    let Some(node) = random.pick_mut(&mut graph.node) else { return };
    let branch = GraphProto {
        node: vec![node.clone()],
        output: node.output.iter().map(|name| ValueInfoProto { name: Some(name.clone()), r#type: None }).collect(),
        ..GraphProto::default()
    };
    let attribute = ["then_branch", "else_branch"]
        .map(|name| AttributeProto { g: Some(Box::new(branch.clone())), ..named(name, AttributeType::Graph) });
    *node = NodeProto {
        op_type: Some("If".to_owned()),
        input: vec![condition],
        output: std::mem::take(&mut node.output),
        attribute: attribute.to_vec(),
        ..NodeProto::default()
    };
}

fn mutate_node(node: &mut NodeProto, known: &[String], random: &mut Random, depth: usize) {
    let graphs = node.attribute.iter_mut().filter_map(|attribute| attribute.g.as_deref_mut());
    let mut graphs: Vec<&mut GraphProto> = graphs.collect();
    if depth < 8 && !random.once_in(3) && !graphs.is_empty() {
        let at = random.below(graphs.len());
        return mutate_graph(graphs.swap_remove(at), random, depth + 1);
    }
    match random.below(10) {
        0 => {
            if let Some(operator) = operator(random) {
                node.domain = Some(operator.domain.to_owned());
                node.op_type = Some(operator.name.to_owned());
            }
        }
        1..=3 => {
            let name = name(known, random);
            if let Some(slot) = random.pick_mut(&mut node.input) {
                *slot = name;
            }
        }
        4 => node.input.push(name(known, random)),
        5 => drop(node.input.pop()),
        6 if random.once_in(2) => node.output.push(fresh(known)),
        6 => node.name = Some(NAMES[random.below(NAMES.len())].to_owned()),
        7 => add_attribute(node, random),
        _ => mutate_attribute(node, random),
    }
}

fn named(name: &str, kind: AttributeType) -> AttributeProto {
    AttributeProto { name: Some(name.to_owned()), r#type: Some(kind as i32), ..AttributeProto::default() }
}

fn add_attribute(node: &mut NodeProto, random: &mut Random) {
    let (name, kind) = ATTRIBUTES[random.below(ATTRIBUTES.len())];
    let mut attribute = named(name, kind);
    let count = 1 + random.below(4);
    match kind {
        AttributeType::Int => attribute.i = Some(integer(random)),
        AttributeType::Ints => attribute.ints = (0..count).map(|_| integer(random)).collect(),
        AttributeType::Float => attribute.f = Some(FLOATS[random.below(FLOATS.len())]),
        AttributeType::Floats => {
            attribute.floats = (0..count).map(|_| FLOATS[random.below(FLOATS.len())]).collect();
        }
        AttributeType::String => attribute.s = Some(text(random)),
        AttributeType::Strings => attribute.strings = (0..count).map(|_| text(random)).collect(),
        AttributeType::Tensor => attribute.t = Some(Box::new(int64s("", vec![integer(random)]))),
        AttributeType::Graph => attribute.g = Some(Box::default()),
        _ => {}
    }
    node.attribute.retain(|other| other.name() != name || random.once_in(16));
    node.attribute.push(attribute);
}

fn text(random: &mut Random) -> Vec<u8> {
    TEXTS[random.below(TEXTS.len())].as_bytes().to_vec()
}

fn mutate_attribute(node: &mut NodeProto, random: &mut Random) {
    if node.attribute.is_empty() {
        return add_attribute(node, random);
    }
    let at = random.below(node.attribute.len());
    if random.once_in(8) {
        node.attribute.remove(at);
        return;
    }
    let attribute = &mut node.attribute[at];
    if let Some(value) = &mut attribute.i {
        *value = integer(random);
    } else if let Some(value) = &mut attribute.f {
        *value = FLOATS[random.below(FLOATS.len())];
    } else if let Some(value) = &mut attribute.s {
        *value = text(random);
    } else if let Some(tensor) = &mut attribute.t {
        mutate_tensor(tensor, &[], random);
    } else if random.once_in(4) {
        attribute.ints.push(integer(random));
    } else if let Some(slot) = random.pick_mut(&mut attribute.ints) {
        *slot = integer(random);
    } else if let Some(slot) = random.pick_mut(&mut attribute.floats) {
        *slot = FLOATS[random.below(FLOATS.len())];
    } else if let Some(slot) = random.pick_mut(&mut attribute.strings) {
        *slot = text(random);
    }
}
