//! The real models on the reference evaluator and the `cpu` target, through the command that a user calls.
//!
//! One compile per model and target serves all cases of its manifest. A model that is nowhere is skipped out loud.

use std::process::Command;

use lapidary_tests::{case_dir, lapidary};

fn verify(name: &str, target: &str) {
    let Some(dir) = case_dir(name) else { return };
    let output = Command::new(lapidary()).arg("verify").arg(&dir).args(["--target", target]).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{name} on {target}:\n{said}");
}

macro_rules! models {
    ($($name:ident),* $(,)?) => {
        $(mod $name {
            #[test]
            fn reference() {
                super::verify(stringify!($name), "reference");
            }

            #[test]
            fn cpu() {
                super::verify(stringify!($name), "cpu");
            }
        })*
    };
}

models!(
    mnist_cntk,
    ultraface_rfb320,
    ppocr_cls,
    pplcnet_orientation,
    ppocr_v4_rec,
    open_nsfw_resnet,
    superres_core_derived,
    magika_v3_3,
    minilm_l6_w8,
    eeg_seizure_bilstm,
);

/// The model with 25 `If`s in 50 subgraphs imports, its text form round-trips, and the reference evaluates it.
#[test]
fn silero_vad_v6_on_the_reference() {
    verify("silero_vad_v6", "reference");
}

#[test]
fn a_wrong_golden_fails() {
    let Some(dir) = case_dir("mnist_cntk") else { return };
    let copy = tempfile::tempdir().unwrap();
    for file in ["model.onnx", "golden.npz"] {
        std::fs::copy(dir.join(file), copy.path().join(file)).unwrap();
    }
    // The input stands in for the output: same archive, another array.
    let manifest = std::fs::read_to_string(dir.join("manifest.json")).unwrap();
    let manifest = manifest.replace("\"key\": \"c0_out0\"", "\"key\": \"c0_in0\"");
    std::fs::write(copy.path().join("manifest.json"), manifest).unwrap();
    let output = Command::new(lapidary()).arg("verify").arg(copy.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stdout));
}
