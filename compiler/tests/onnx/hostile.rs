//! Damaged and malicious files: always an answer, soon, and within a memory bound.

use lapidary::diag::Result;
use lapidary::onnx::proto::attribute_proto::AttributeType;
use lapidary::onnx::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto, ValueInfoProto,
};
use lapidary::onnx::{Attrs, Model, load_bytes};
use prost::Message;

use crate::{model, place, raw, refused};

/// A model with a bit of everything: typed and raw tensors, attributes of all kinds, a branch, a sparse tensor.
fn rich() -> Vec<u8> {
    let floats = TensorProto { float_data: vec![0.5; 40], raw_data: None, ..raw(1, &[5, 8], &[]) };
    let longs = TensorProto { int64_data: (0..20).collect(), raw_data: None, ..raw(7, &[20], &[]) };
    let mut proto = model(vec![floats, longs.clone(), raw(10, &[16, 3], &[60; 96])]);
    let named = |name: &str, kind: AttributeType| AttributeProto {
        name: Some(name.into()),
        r#type: Some(kind as i32),
        ..Default::default()
    };
    let branch = GraphProto {
        node: vec![NodeProto { op_type: Some("Add".into()), ..Default::default() }],
        initializer: vec![raw(6, &[2], &[1; 8])],
        ..Default::default()
    };
    let node = NodeProto {
        input: vec!["x".into(), String::new(), "w".into()],
        output: vec!["z".into()],
        op_type: Some("If".into()),
        attribute: vec![
            AttributeProto { ints: vec![1, -1, 300], ..named("ints", AttributeType::Ints) },
            AttributeProto { floats: vec![1.5], ..named("floats", AttributeType::Floats) },
            AttributeProto { s: Some(b"text".to_vec()), ..named("s", AttributeType::String) },
            AttributeProto { t: Some(Box::new(longs.clone())), ..named("t", AttributeType::Tensor) },
            AttributeProto { g: Some(Box::new(branch)), ..named("g", AttributeType::Graph) },
        ],
        ..Default::default()
    };
    if let Some(graph) = &mut proto.graph {
        graph.node.push(node);
        graph.input.push(ValueInfoProto { name: Some("x".into()), r#type: None });
        graph.sparse_initializer.push(SparseTensorProto {
            values: Some(Box::new(raw(2, &[20], &[3; 20]))),
            indices: Some(Box::new(longs)),
            dims: vec![5, 100],
        });
    }
    proto.encode_to_vec()
}

/// Loads the bytes and decodes whatever they hold; the answer does not matter.
fn exercise(bytes: Vec<u8>) -> Result<Model> {
    let model = load_bytes(bytes.into(), None)?;
    decode_all(&model, model.graph());
    Ok(model)
}

fn decode_all(model: &Model, graph: &GraphProto) {
    for tensor in &graph.initializer {
        let _ = model.tensor(tensor, &place());
    }
    for tensor in &graph.sparse_initializer {
        let _ = model.sparse_tensor(tensor, &place());
    }
    for node in &graph.node {
        let Ok(attrs) = Attrs::new(node) else { continue };
        for name in ["ints", "floats", "s", "t", "g"] {
            let _ = (attrs.ints(name), attrs.floats(name), attrs.str(name));
            if let Ok(tensor) = attrs.tensor(name) {
                let _ = model.tensor(tensor, &place());
            }
            if let Ok(inner) = attrs.graph(name) {
                decode_all(model, inner);
            }
        }
        let _ = attrs.finish();
    }
}

#[test]
fn the_undamaged_model_is_read() {
    let model = exercise(rich()).unwrap_or_else(|found| panic!("{found}"));
    for tensor in &model.graph().initializer {
        assert!(model.tensor(tensor, &place()).is_ok());
    }
    assert!(model.sparse_tensor(&model.graph().sparse_initializer[0], &place()).is_ok());
}

#[test]
fn a_file_cut_short_anywhere_is_answered() {
    let whole = rich();
    for length in 0..whole.len() {
        let _ = exercise(whole[..length].to_vec());
    }
}

#[test]
fn mutated_files_are_answered() {
    let whole = rich();
    for seed in 0..2000u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        // xorshift64*: G. Marsaglia, "Xorshift RNGs", 2003.
        let mut next = move || {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
        };
        let mut bytes = whole.clone();
        for _ in 0..=next() % 8 {
            let at = next() as usize % bytes.len();
            match next() % 4 {
                0 => bytes[at] ^= 1 << (next() % 8),
                1 => bytes[at] = next() as u8,
                2 => drop(bytes.remove(at)),
                _ => bytes.insert(at, next() as u8),
            }
        }
        let _ = exercise(bytes);
    }
}

#[test]
fn nesting_is_bounded() {
    let mut graph = GraphProto::default();
    for _ in 0..200 {
        let body = AttributeProto { g: Some(Box::new(graph)), ..Default::default() };
        let node = NodeProto { attribute: vec![body], ..Default::default() };
        graph = GraphProto { node: vec![node], ..Default::default() };
    }
    let deep = ModelProto { graph: Some(graph), ..model(Vec::new()) };
    let text = refused(load_bytes(deep.encode_to_vec().into(), None), "E0107");
    assert!(text.contains("nested more than 100 deep"), "{text}");
    // 100,000 open groups of a field that is not read.
    refused(load_bytes([0xa3, 0x06].repeat(100_000).into(), None), "E0102");
}

/// An empty message takes two bytes here, and some 300 when it is decoded.
#[test]
fn a_small_file_cannot_hold_millions_of_messages() {
    for graph_field in [0x0a, 0x2a, 0x7a] {
        let graph = [graph_field, 0].repeat(3 << 20);
        let mut bytes = vec![8, 8, 0x3a];
        prost::encoding::encode_varint(graph.len() as u64, &mut bytes);
        bytes.extend(graph);
        let text = refused(load_bytes(bytes.into(), None), "E0107");
        assert!(text.contains("more than 1048576 messages, in graph."), "{text}");
    }
}

#[test]
fn a_length_that_is_not_there_allocates_nothing() {
    // Field 7 (graph), and a graph's field 5 (initializer), of 2^62 bytes.
    for head in [&[0x3a][..], &[0x3a, 12, 0x2a]] {
        let mut bytes = head.to_vec();
        bytes.extend([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x3f]);
        let text = refused(load_bytes(bytes.into(), None), "E0102");
        assert!(text.contains("runs past the end of its message"), "{text}");
    }
}
