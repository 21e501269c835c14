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
