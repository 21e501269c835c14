//! External data: what is read, and every way out of the model's folder.

use std::path::Path;

use lapidary::diag::Result;
use lapidary::onnx::proto::tensor_proto::DataLocation;
use lapidary::onnx::proto::{AttributeProto, TensorProto};
use lapidary::onnx::{Model, TensorRef, load, load_bytes};
use prost::Message;
use tempfile::TempDir;

use crate::{entry, model, place, raw, refused};

/// A tensor of 4 bytes in another file.
fn tensor(entries: &[(&str, &str)]) -> TensorProto {
    TensorProto {
        raw_data: None,
        data_location: Some(DataLocation::External as i32),
        external_data: entries.iter().map(|(key, value)| entry(key, value)).collect(),
        ..raw(2, &[4], &[])
    }
}

/// A folder `inner` with a model and `w.bin` of bytes 0..16, beside a file `secret`.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let inner = folder.path().join("inner");
    std::fs::create_dir_all(inner.join("sub")).expect("a folder");
    let bytes: Vec<u8> = (0..16).collect();
    std::fs::write(inner.join("w.bin"), &bytes).expect("written");
    std::fs::write(inner.join("sub/w.bin"), &bytes[8..]).expect("written");
    std::fs::write(folder.path().join("secret"), b"0123456789").expect("written");
    folder
}

fn open(folder: &Path, tensors: Vec<TensorProto>) -> Model {
    let path = folder.join("inner/m.onnx");
    std::fs::write(&path, model(tensors).encode_to_vec()).expect("written");
    load(&path).unwrap_or_else(|found| panic!("{found}"))
}

fn read(folder: &Path, entries: &[(&str, &str)]) -> Result<TensorRef> {
    let model = open(folder, vec![tensor(entries)]);
    model.tensor(&model.graph().initializer[0], &place())
}

#[test]
fn data_beside_the_model_is_read() {
    let folder = folder();
    let data =
        |entries: &[(&str, &str)]| read(folder.path(), entries).unwrap_or_else(|found| panic!("{found}")).data.to_vec();
    assert_eq!(data(&[("location", "w.bin")]), [0, 1, 2, 3]);
    assert_eq!(data(&[("location", "w.bin"), ("offset", "12"), ("length", "4")]), [12, 13, 14, 15]);
    assert_eq!(data(&[("location", "./sub/w.bin"), ("offset", "2"), ("checksum", "?")]), [10, 11, 12, 13]);
}

#[test]
fn a_file_is_mapped_once() {
    let folder = folder();
    let spelled = ["w.bin", "./w.bin", "w.bin"].map(|location| tensor(&[("location", location)]));
    let model = open(folder.path(), spelled.to_vec());
    let starts: Vec<_> = model
        .graph()
        .initializer
        .iter()
        .map(|tensor| model.tensor(tensor, &place()).expect("a tensor").data.as_ptr())
        .collect();
    assert!(starts.iter().all(|start| *start == starts[0]));
}

#[test]
fn a_tensor_in_an_attribute_is_found() {
    let folder = folder();
    let mut proto = model(Vec::new());
    if let Some(graph) = &mut proto.graph {
        graph.node[0].attribute.push(AttributeProto {
            name: Some("value".into()),
            t: Some(Box::new(tensor(&[("location", "w.bin")]))),
            ..Default::default()
        });
    }
    let model = load_bytes(proto.encode_to_vec().into(), Some(&folder.path().join("inner"))).expect("a model");
    let value = model.graph().node[0].attribute[0].t.as_deref().expect("a tensor");
    assert_eq!(&model.tensor(value, &place()).expect("its data").data[..], [0, 1, 2, 3]);
}

#[test]
fn paths_that_leave_the_folder_are_refused() {
    let folder = folder();
    let absolute = folder.path().join("secret").display().to_string();
    for location in
        ["../secret", "sub/../../secret", "sub/../w.bin", "/etc/passwd", &absolute, "C:\\x", "..\\secret", "w.bin\nx"]
    {
        let text = refused(read(folder.path(), &[("location", location)]), "E0210");
        assert!(text.contains("outside the model's folder"), "{text}");
    }
}

#[cfg(unix)]
#[test]
fn symbolic_links_may_not_lead_out() {
    use std::os::unix::fs::symlink;
    let folder = folder();
    let inner = folder.path().join("inner");
    symlink("../secret", inner.join("file")).expect("a link");
    symlink("..", inner.join("up")).expect("a link");
    symlink("w.bin", inner.join("near")).expect("a link");
    for location in ["file", "up/secret"] {
        let text = refused(read(folder.path(), &[("location", location)]), "E0210");
        assert!(text.contains("symbolic link"), "{text}");
    }
    assert!(read(folder.path(), &[("location", "near")]).is_ok());
    // The folder itself may be reached by a link.
    symlink(&inner, folder.path().join("alias")).expect("a link");
    let model = load(&folder.path().join("alias/m.onnx")).expect("a model");
    assert!(model.tensor(&model.graph().initializer[0], &place()).is_ok());
}

#[test]
fn files_that_cannot_be_read_are_refused() {
    let folder = folder();
    for location in ["none.bin", "sub", "", "*/_ORT_MEM_ADDR_/*"] {
        refused(read(folder.path(), &[("location", location)]), "E0211");
    }
    #[cfg(unix)]
    {
        // Opening a pipe would wait for ever.
        let pipe = folder.path().join("inner/pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        if made.is_ok_and(|status| status.success()) {
            refused(read(folder.path(), &[("location", "pipe")]), "E0211");
        }
    }
    let bytes = model(vec![tensor(&[("location", "w.bin")])]).encode_to_vec();
    let model = load_bytes(bytes.into(), None).expect("the model alone can be inspected");
    let text = refused(model.tensor(&model.graph().initializer[0], &place()), "E0211");
    assert!(text.contains("without a folder"), "{text}");
}

#[test]
fn ranges_lie_within_the_file() {
    let folder = folder();
    let max = usize::MAX.to_string();
    for (offset, length) in [("13", "4"), ("0", "17"), ("17", "0"), (&*max, "4"), ("4", &*max), (&*max, &*max)] {
        let text =
            refused(read(folder.path(), &[("location", "w.bin"), ("offset", offset), ("length", length)]), "E0212");
        assert!(text.contains("which has 16 bytes"), "{text}");
    }
    // In the file, but not what the dimensions need.
    refused(read(folder.path(), &[("location", "w.bin"), ("length", "3")]), "E0203");
}

#[test]
fn entries_must_make_sense() {
    let folder = folder();
    refused(read(folder.path(), &[]), "E0213");
    for bad in ["-1", "0x10", "4 ", "", "99999999999999999999999"] {
        refused(read(folder.path(), &[("location", "w.bin"), ("offset", bad)]), "E0213");
        refused(read(folder.path(), &[("location", "w.bin"), ("length", bad)]), "E0213");
    }
    let both = TensorProto { raw_data: Some(vec![0; 4].into()), ..tensor(&[("location", "w.bin")]) };
    let model = open(folder.path(), vec![both]);
    refused(model.tensor(&model.graph().initializer[0], &place()), "E0204");
}
