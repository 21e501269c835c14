//! What is a model, and which versions are read.

use std::path::Path;

use lapidary::onnx::proto::{AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto};
use lapidary::onnx::{load, load_bytes};
use prost::Message;

use crate::{loaded, model, opset, raw, refused};

#[test]
fn a_model_loads() {
    let loaded = loaded(&model(vec![raw(1, &[1], &[0, 0, 128, 63])])).expect("it is a model");
    assert_eq!(loaded.graph().node.len(), 1);
    assert_eq!(loaded.opset(""), Some(17));
    assert_eq!(loaded.opset("ai.onnx"), Some(17));
    assert_eq!(loaded.opset("com.microsoft"), None);
}

#[test]
fn the_hash_is_that_of_the_bytes() {
    let proto = ModelProto { ir_version: Some(8), graph: Some(GraphProto::default()), ..Default::default() };
    assert_eq!(proto.encode_to_vec(), [8, 8, 58, 0]);
    let hash: String = loaded(&proto).expect("a model").sha256().iter().map(|b| format!("{b:02x}")).collect();
    // printf '\x08\x08\x3a\x00' | sha256sum
    assert_eq!(hash, "52df48736cbdce52053acbe2ccb7d75b16d5b35c9828f3e9d2943223fdf0d2fd");
}

#[test]
fn raw_data_is_a_view() {
    let bytes: bytes::Bytes = model(vec![raw(2, &[64], &[7; 64])]).encode_to_vec().into();
    let range = bytes.as_ptr_range();
    let model = load_bytes(bytes, None).expect("a model");
    let data = model.graph().initializer[0].raw_data.clone().expect("raw data");
    assert!(range.contains(&data.as_ptr()));
    let tensor = model.tensor(&model.graph().initializer[0], &crate::place()).expect("a tensor");
    assert!(range.contains(&tensor.data.as_ptr()));
}

#[test]
fn files_that_are_not_models_say_what_they_look_like() {
    for (bytes, expected) in [
        (&b""[..], "the file is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a Git LFS pointer"),
        (b"PK\x03\x04\x00\x00", "a zip archive"),
        (b"<!DOCTYPE html><html></html>", "a web page"),
        (b"\x1c\x00\x00\x00TFL3\x00\x00", "a TensorFlow Lite model"),
        (b"\xff\xff\xff\xff", "is it cut short?"),
    ] {
        let text = refused(load_bytes(bytes.into(), None), "E0102");
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn a_path_that_cannot_be_read_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    for (path, expected) in [(folder.path(), "not a regular file"), (Path::new("no/such.onnx"), "No such file")] {
        let text = refused(load(path), "E0101");
        assert!(text.contains(expected) && text.contains("--> file"), "{text}");
    }
    #[cfg(unix)]
    refused(load(Path::new("/dev/zero")), "E0101");
    let empty = folder.path().join("empty.onnx");
    std::fs::write(&empty, b"").expect("written");
    refused(load(&empty), "E0102");
}

#[test]
fn a_file_on_disk_loads() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("m.onnx");
    std::fs::write(&path, model(Vec::new()).encode_to_vec()).expect("written");
    assert_eq!(load(&path).expect("a model").dir.as_deref(), Some(folder.path()));
}

#[test]
fn a_model_needs_a_graph_and_a_known_format() {
    let mut proto = model(Vec::new());
    proto.graph = None;
    refused(loaded(&proto), "E0103");
    for version in [None, Some(2), Some(15), Some(i64::MIN)] {
        let mut proto = model(Vec::new());
        proto.ir_version = version;
        refused(loaded(&proto), "E0104");
    }
    for version in [3, 14] {
        let mut proto = model(Vec::new());
        proto.ir_version = Some(version);
        assert!(loaded(&proto).is_ok());
    }
}

#[test]
fn the_opset_must_be_one_that_is_read() {
    let with = |imports: &[(&str, i64)]| {
        let mut proto = model(Vec::new());
        proto.opset_import = imports.iter().map(|(domain, version)| opset(domain, *version)).collect();
        loaded(&proto)
    };
    for version in [6, 28] {
        assert!(with(&[("ai.onnx", version)]).is_ok());
    }
    for version in [0, 5, 29, -1] {
        let text = refused(with(&[("", version)]), "E0105");
        assert!(text.contains(&format!("opset {version}\n")) && text.contains("6 to 28"), "{text}");
    }
    refused(with(&[]), "E0105");
    refused(with(&[("", 17), ("ai.onnx", 18)]), "E0106");
    // The same twice says nothing new, and a domain that no node uses is not looked at.
    assert!(with(&[("", 17), ("", 17), ("org.pytorch.aten", 1), ("x", -5)]).is_ok());
}

#[test]
fn a_model_without_standard_nodes_needs_no_opset() {
    let mut proto = model(Vec::new());
    proto.opset_import.clear();
    if let Some(graph) = &mut proto.graph {
        graph.node[0].domain = Some("com.microsoft".into());
    }
    assert!(loaded(&proto).is_ok());
    // But a branch of one counts.
    let relu = NodeProto { op_type: Some("Relu".into()), ..Default::default() };
    let branch = GraphProto { node: vec![relu], ..Default::default() };
    let branch = AttributeProto { name: Some("then".into()), g: Some(Box::new(branch)), ..Default::default() };
    if let Some(graph) = &mut proto.graph {
        graph.node[0].attribute.push(branch);
    }
    refused(loaded(&proto), "E0105");
}

#[test]
fn all_mistakes_are_reported_together() {
    let mut proto = model(Vec::new());
    proto.ir_version = Some(99);
    proto.opset_import = vec![opset("", 5)];
    let node = NodeProto { op_type: Some("Relu".into()), ..Default::default() };
    proto.functions.push(FunctionProto {
        name: Some("F".into()),
        node: vec![node],
        opset_import: vec![opset("", 40)],
        ..Default::default()
    });
    let found = loaded(&proto).expect_err("three mistakes");
    let codes: Vec<_> = found.iter().map(|d| d.code).collect();
    assert_eq!(codes, ["E0104", "E0105", "E0105"], "{found}");
    assert!(found.to_string().contains("function \"F\" uses ai.onnx opset 40"), "{found}");
}
