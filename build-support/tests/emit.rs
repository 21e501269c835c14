//! A model compiled the way a build script does it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lapidary_build::{Compiler, Error};

fn digits() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/01-quickstart/model.onnx")
}

fn read(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(read(&path));
        } else {
            files.insert(path.clone(), std::fs::read(&path).unwrap());
        }
    }
    files
}

#[test]
fn a_module_is_written_and_written_again_unchanged() {
    let out = tempfile::tempdir().unwrap();
    let compiler = Compiler::new(digits()).name("digits").target("cpu").dim("batch", 1, 1, 8).out_dir(out.path());
    let emitted = compiler.clone().emit().unwrap();
    assert_eq!(emitted.name, "digits");
    let text = std::fs::read_to_string(&emitted.include).unwrap();
    assert!(text.ends_with("#[path = \"digits/src/lib.rs\"]\npub mod digits;\n"), "{text}");
    assert!(emitted.weights.unwrap().is_file());
    let plan = std::fs::read_to_string(emitted.folder.join("src/plan.rs")).unwrap();
    // A feature of the crate around the module is not the module's to read.
    assert!(!plan.contains("feature"), "{plan}");

    std::fs::write(emitted.folder.join("stale.txt"), "of an earlier version").unwrap();
    let before = read(out.path());
    compiler.emit().unwrap();
    let mut after = read(out.path());
    assert!(after.insert(emitted.folder.join("stale.txt"), b"of an earlier version".to_vec()).is_none());
    assert!(before == after);
}

#[test]
fn a_stub_has_types_alone() {
    let out = tempfile::tempdir().unwrap();
    // Kernels would need a CUDA compiler; types need none.
    let compiler = Compiler::new(digits()).name("digits").targets(["cpu", "sm_80"]).out_dir(out.path());
    let emitted = compiler.stub().emit().unwrap();
    assert!(emitted.weights.is_none());
    let files: Vec<PathBuf> = read(&emitted.folder).into_keys().collect();
    assert_eq!(files, ["src/lib.rs", "src/plan.rs"].map(|path| emitted.folder.join(path)));
    let text = std::fs::read_to_string(&files[0]).unwrap();
    assert!(text.contains("pub struct Digits") && text.contains("Err(Error::Stub {"), "{text}");
}

/// The types of a stub are those of the module.
#[test]
fn a_stub_is_the_module_without_its_body() {
    let out = tempfile::tempdir().unwrap();
    let compiler = Compiler::new(digits()).name("digits").targets(["cpu", "cpu"]).dim("batch", 1, 2, 8);
    let module = compiler.clone().out_dir(out.path().join("module")).emit().unwrap();
    let stub = compiler.stub().out_dir(out.path().join("stub")).emit().unwrap();
    let text = |folder: &Path| std::fs::read_to_string(folder.join("src/lib.rs")).unwrap();
    let (module, stub) = (text(&module.folder), text(&stub.folder));
    let items = |text: &str| -> Vec<String> {
        let of_type = |line: &&str| {
            let line = line.trim_start();
            line.starts_with("pub ") && !line.starts_with("pub const") || line.starts_with("impl")
        };
        text.lines().filter(of_type).map(str::to_owned).collect()
    };
    assert!(items(&module).len() > 10);
    assert_eq!(items(&module), items(&stub));
}

/// A model of a weight in an external file, at a location of its choice.
fn external(folder: &Path, location: &str) -> PathBuf {
    use lapidary::onnx::proto::{
        GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto, TensorProto, TensorShapeProto,
        TypeProto, ValueInfoProto, tensor_proto::DataLocation, tensor_shape_proto::Dimension,
        tensor_shape_proto::dimension::Value as Extent, type_proto,
    };
    use prost::Message;
    let dim = vec![Dimension { value: Some(Extent::DimValue(4)) }];
    let tensor = type_proto::Tensor { elem_type: Some(1), shape: Some(TensorShapeProto { dim }) };
    let ty = TypeProto { value: Some(type_proto::Value::TensorType(tensor)) };
    let mut weight = TensorProto { name: Some("w".into()), data_type: Some(1), dims: vec![4], ..Default::default() };
    weight.set_data_location(DataLocation::External);
    let entry = StringStringEntryProto { key: Some("location".into()), value: Some(location.into()) };
    weight.external_data.push(entry);
    let node = NodeProto {
        op_type: Some("Add".into()),
        input: vec!["x".into(), "w".into()],
        output: vec!["y".into()],
        ..Default::default()
    };
    let graph = GraphProto {
        name: Some("external".into()),
        input: vec![ValueInfoProto { name: Some("x".into()), r#type: Some(ty) }],
        output: vec![ValueInfoProto { name: Some("y".into()), r#type: None }],
        initializer: vec![weight],
        node: vec![node],
        ..Default::default()
    };
    let model = ModelProto {
        ir_version: Some(10),
        opset_import: vec![OperatorSetIdProto { domain: None, version: Some(21) }],
        graph: Some(graph),
        ..Default::default()
    };
    let path = folder.join("model.onnx");
    std::fs::write(&path, model.encode_to_vec()).unwrap();
    path
}

/// A checkout without its large files is where a stub is wanted.
#[test]
fn a_stub_needs_no_weights() {
    let out = tempfile::tempdir().unwrap();
    let model = external(out.path(), "w.bin");
    let compiler = Compiler::new(&model).name("m").out_dir(out.path());
    let error = compiler.clone().emit().unwrap_err();
    assert!(error.to_string().contains("E0211"), "{error}");
    let stub = compiler.stub().emit().unwrap();
    let text = std::fs::read_to_string(stub.folder.join("src/lib.rs")).unwrap();
    assert!(text.contains("pub x: View<"), "{text}");
}

/// What a build script prints, as cargo reads it: this program calls itself, as the harness keeps what a test prints.
fn printed(model: &Path, out: &Path) -> (bool, Vec<String>) {
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_build_script", "--nocapture", "--test-threads", "1"])
        .env("LAPIDARY_BUILD_TEST_MODEL", model)
        .env("TARGET", "x86_64-unknown-linux-gnu")
        .env("OUT_DIR", out)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    // The harness writes the test's name in front of the first line.
    let lines = text.lines().filter_map(|line| Some(line[line.find("cargo:")?..].to_owned()));
    (output.status.success(), lines.collect())
}

#[test]
fn a_build_script() {
    let Some(model) = std::env::var_os("LAPIDARY_BUILD_TEST_MODEL") else { return };
    Compiler::new(PathBuf::from(model)).name("m").emit().unwrap();
}

#[test]
fn cargo_is_told_of_every_file_and_variable() {
    let folder = tempfile::tempdir().unwrap();
    let model = external(folder.path(), "weights/w.bin");
    std::fs::create_dir(folder.path().join("weights")).unwrap();
    std::fs::write(folder.path().join("weights/w.bin"), [0; 16]).unwrap();
    let (success, lines) = printed(&model, &folder.path().join("out"));
    assert!(success, "{lines:?}");
    let variables = [
        "CUDA_HOME",
        "NVCC",
        "HOST_NVCC",
        "TARGET_NVCC",
        "NVCC_x86_64-unknown-linux-gnu",
        "NVCC_x86_64_unknown_linux_gnu",
        "LAPIDARY_STUB",
    ];
    let mut expected: Vec<String> =
        variables.iter().map(|variable| format!("cargo::rerun-if-env-changed={variable}")).collect();
    for file in ["model.onnx", "weights/w.bin"] {
        expected.push(format!("cargo::rerun-if-changed={}", folder.path().join(file).display()));
    }
    assert_eq!(lines, expected);
}

/// A model names its external files, and must not be able to tell cargo anything else.
#[test]
fn a_location_is_no_directive() {
    let hostile = "w.bin\ncargo::rustc-env=PWNED=1";
    // Named only, and really there under this name.
    for present in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let model = external(folder.path(), hostile);
        if present {
            std::fs::write(folder.path().join(hostile), [0; 16]).unwrap();
        }
        let (success, lines) = printed(&model, &folder.path().join("out"));
        assert!(!success && !lines.iter().any(|line| line.contains("PWNED")), "{lines:?}");
    }
    // Nor is a file outside of the model's folder looked at.
    let folder = tempfile::tempdir().unwrap();
    let (success, lines) = printed(&external(folder.path(), "../w.bin"), &folder.path().join("out"));
    assert!(!success && !lines.iter().any(|line| line.contains("w.bin")), "{lines:?}");
}

#[test]
fn everything_wrong_with_a_call_is_said_at_once() {
    let out = tempfile::tempdir().unwrap();
    let compiler = Compiler::new(digits()).targets(["cpu", "sm_12"]).precision("fp12").dim("batch", 4, 1, 8);
    let error = compiler.out_dir(out.path()).emit().unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::Call(_)));
    assert!(["sm_12", "fp12", "0 <= min <= opt <= max"].iter().all(|part| text.contains(part)), "{text}");
}

#[test]
fn what_is_wrong_with_a_model_is_the_error() {
    let out = tempfile::tempdir().unwrap();
    let missing = Compiler::new("no/such.onnx").out_dir(out.path()).emit().unwrap_err();
    assert!(missing.to_string().contains("E0101"), "{missing}");
    assert_eq!(format!("{missing:?}"), format!("the model was not compiled\n{missing}"));
}

#[test]
fn a_toolkit_that_is_none_is_an_error() {
    let out = tempfile::tempdir().unwrap();
    let compiler = Compiler::new(digits()).target("sm_80").cuda(out.path()).out_dir(out.path());
    let error = compiler.emit().unwrap_err();
    assert!(error.to_string().contains("neither NVRTC nor nvcc"), "{error}");
}

#[test]
fn kernels_are_compiled_by_the_toolkit_that_is_named() {
    let Some(toolkit) = std::env::var_os("CUDA_HOME") else {
        eprintln!("SKIPPED: CUDA_HOME names no toolkit; eval \"$(scripts/setup-cuda)\"");
        return;
    };
    let out = tempfile::tempdir().unwrap();
    let compiler = Compiler::new(digits()).name("digits").targets(["cpu", "sm_80"]).out_dir(out.path());
    let emitted = compiler.cuda(toolkit).emit().unwrap();
    let files = read(&emitted.folder);
    let count = |suffix: &str| files.keys().filter(|path| path.to_string_lossy().ends_with(suffix)).count();
    assert!(count(".cu") > 0);
    assert_eq!(count(".cu"), count(".sm_80.cubin"));
}
