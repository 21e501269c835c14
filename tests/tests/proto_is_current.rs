//! The checked-in protobuf structs are what the generator makes of the schema.
//!
//! They are checked in because generating them needs 50 crates that nobody who compiles Lapidary should have to build.

use std::fs;
use std::path::Path;

const HEAD: &str = "\
//! The messages of an ONNX file, as prost structs.
//!
//! Generated from `compiler/proto/onnx.proto`; do not edit. The test `proto_is_current` compares it with what the
//! generator makes of that file, and writes it anew when run with `LAPIDARY_BLESS=1`. `raw_data` is a view of the
//! decoded buffer. Large fields that are mostly absent are boxed.

";

/// Fields that most messages lack, and that would make them large.
const BOXED: [&str; 6] = [
    ".onnx.AttributeProto.t",
    ".onnx.AttributeProto.g",
    ".onnx.AttributeProto.tp",
    ".onnx.AttributeProto.sparse_tensor",
    ".onnx.SparseTensorProto.values",
    ".onnx.SparseTensorProto.indices",
];

#[test]
fn proto_is_current() {
    let root = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it");
    let compiler = Path::new(&root).join("../compiler");
    let folder = compiler.join("proto");
    let schema = protox::compile([folder.join("onnx.proto")], [&folder]).expect("a valid schema");
    let out = tempfile::tempdir().expect("a folder");
    let mut config = prost_build::Config::new();
    config.out_dir(out.path()).bytes([".onnx.TensorProto.raw_data"]);
    for field in BOXED {
        config.boxed(field);
    }
    config.compile_fds(schema).expect("structs");
    let generated = HEAD.to_owned() + &fs::read_to_string(out.path().join("onnx.rs")).expect("the structs");

    let checked_in = compiler.join("src/onnx/proto.rs");
    if std::env::var_os("LAPIDARY_BLESS").is_some() {
        fs::write(&checked_in, &generated).expect("written");
    }
    let current = fs::read_to_string(&checked_in).expect("the checked-in file");
    assert!(
        current == generated,
        "compiler/src/onnx/proto.rs is not what compiler/proto/onnx.proto gives: \
         LAPIDARY_BLESS=1 cargo test -p lapidary-tests --test proto_is_current, and read the diff"
    );
}
