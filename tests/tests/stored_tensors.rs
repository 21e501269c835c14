//! Every tensor that the real models store, against numpy: `models/stored.json` has, for each model, how many there are
//! (initializers, then those in attributes, graph by graph), their bytes, and the SHA-256 over `name|bits|[dims]|` and
//! the data of each. It was made with onnx.numpy_helper.to_array of onnx 1.23.2.
//!
//! Models are looked for where scripts/fetch-models puts them, and in the folder that it copies from.

use std::path::{Path, PathBuf};

use lapidary::diag::Place;
use lapidary::onnx::proto::{GraphProto, TensorProto};
use lapidary::onnx::{Model, load};
use serde_json::Value;
use sha2::{Digest, Sha256};

#[test]
fn stored_tensors_are_those_that_numpy_reads() {
    let root = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let sources = json(&root.join("models/sources.json"));
    let stored = json(&root.join("models/stored.json"));
    let mut wrong = Vec::new();
    for (name, source) in sources.as_object().expect("models by name") {
        let Some(path) = find(&root, name) else {
            eprintln!("SKIPPED {name}: it is not here; scripts/fetch-models fetches it");
            continue;
        };
        let model = load(&path).unwrap_or_else(|found| panic!("{name}: {found}"));
        if hex(model.sha256()) != source["sha256"] {
            wrong.push(format!("{name}: {} is another file than sources.json says", path.display()));
            continue;
        }
        let mut found = Found::default();
        found.graph(&model, model.graph());
        let found = (found.tensors, found.bytes, hex(&found.hash.finalize()));
        let expected = &stored[name];
        let same = expected["tensors"] == found.0 && expected["bytes"] == found.1 && expected["sha256"] == found.2;
        if !same {
            wrong.push(format!("{name}: {found:?}, expected {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[derive(Default)]
struct Found {
    tensors: usize,
    bytes: usize,
    hash: Sha256,
}

impl Found {
    fn graph(&mut self, model: &Model, graph: &GraphProto) {
        let attributes = || graph.node.iter().flat_map(|node| &node.attribute);
        for tensor in graph.initializer.iter().chain(attributes().filter_map(|a| a.t.as_deref())) {
            self.tensor(model, tensor);
        }
        for inner in attributes().filter_map(|a| a.g.as_deref()) {
            self.graph(model, inner);
        }
    }

    fn tensor(&mut self, model: &Model, tensor: &TensorProto) {
        let tensor = model.tensor(tensor, &Place::tensor(tensor.name())).unwrap_or_else(|found| panic!("{found}"));
        self.tensors += 1;
        self.bytes += tensor.data.len();
        self.hash.update(format!("{}|{}|{:?}|", tensor.name, tensor.dtype.bits(), tensor.dims));
        self.hash.update(&tensor.data);
    }
}

fn find(root: &Path, name: &str) -> Option<PathBuf> {
    let further = std::env::var_os("LAPIDARY_MODELS").map_or_else(|| root.join("../../shared/models"), PathBuf::from);
    let folders = [root.join("../target/models"), further];
    folders.iter().map(|folder| folder.join(name).join("model.onnx")).find(|path| path.is_file())
}

fn json(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
