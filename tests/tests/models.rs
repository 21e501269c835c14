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
    basic_pitch,
    caustic_painn_gnn,
    pplcnet_qdq_derived,
    pplcnet_qlinear_derived,
    smart_turn_v3_qdq,
    slanet_plus,
);

/// The model with 25 `If`s in 50 subgraphs imports and runs.
mod silero_vad_v6 {
    use lapidary::ir::text;
    use lapidary::onnx;
    use lapidary::passes::Precision;
    use lapidary::profiles::Profiles;
    use lapidary_tests::{case_dir, emitted};

    #[test]
    fn reference() {
        super::verify("silero_vad_v6", "reference");
    }

    #[test]
    fn cpu() {
        super::verify("silero_vad_v6", "cpu");
    }

    /// Printed, read and printed again it is the same text, as imported and behind the passes.
    #[test]
    fn round_trip() {
        let Some(dir) = case_dir("silero_vad_v6") else { return };
        let saved = tempfile::tempdir().unwrap();
        emitted::save(&dir, "reference", saved.path()).unwrap();
        let mut profiles = Profiles::new();
        for dim in std::fs::read_to_string(saved.path().join("dims.txt")).unwrap().lines() {
            let (name, range) = Profiles::parse(dim).unwrap();
            profiles.add(&name, range);
        }
        let model = onnx::load(&dir.join("model.onnx")).unwrap();
        let imported = onnx::import(&model, &profiles).unwrap();
        let (passed, _) = lapidary::optimize(imported.clone(), Precision::default());
        for graph in [imported, passed] {
            let printed = text::print(&graph);
            assert!(printed.matches(" = if(").count() > 0, "no branch is left");
            let constants = text::named_constants(&graph);
            let read = text::parse(&printed, &|name| constants.get(name).cloned()).unwrap();
            let again = text::print(&read);
            let differs = printed.lines().zip(again.lines()).find(|(a, b)| a != b);
            assert!(printed == again, "{differs:?}");
        }
    }
}

/// Every product of a quantized model multiplies bytes, and nothing makes numbers of the bytes of weights.
mod quantized {
    use std::process::Command;

    use lapidary_tests::{case_dir, lapidary};
    use serde_json::Value;

    /// The steps of a model's plan for `cpu`.
    fn steps(dir: &std::path::Path) -> Vec<Value> {
        let model = dir.join("model.onnx");
        let arguments = ["--stage", "plan", "--target", "cpu", "--json"];
        let output = Command::new(lapidary()).arg("inspect").arg(model).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
        plan["steps"].as_array().unwrap().clone()
    }

    /// The types in a step's list, such as `u8[400, 384]`, and where each tensor lies.
    fn types(step: &Value, list: &str) -> Vec<(String, String)> {
        let of = |text: &str| {
            let ty = &text[text[..text.rfind('[').unwrap()].rfind(' ').unwrap() + 1..];
            (text.split(' ').next().unwrap().to_owned(), ty.to_owned())
        };
        step[list].as_array().unwrap().iter().filter_map(Value::as_str).map(of).collect()
    }

    fn is_of_bytes(ty: &str) -> bool {
        ty.starts_with("i8[") || ty.starts_with("u8[")
    }

    fn holds(name: &str, products: usize) {
        let Some(dir) = case_dir(name) else { return };
        let mut found = 0;
        for step in steps(&dir) {
            let (operands, results) = (types(&step, "operands"), types(&step, "results"));
            if step["step"].as_str().unwrap().starts_with("init") {
                let weights = operands.iter().any(|(_, ty)| is_of_bytes(ty) && ty.contains(','));
                let numbers = results.iter().any(|(_, ty)| ty.starts_with('f') && ty.contains(','));
                assert!(!weights || !numbers, "{name}: the weights become numbers at load: {step}");
            } else if matches!(step["op"].as_str(), Some("matmul" | "conv")) {
                found += 1;
                assert!(operands[..2].iter().all(|(_, ty)| is_of_bytes(ty)), "{name}: a product of numbers: {step}");
            }
        }
        assert!(found >= products, "{name}: {found} products");
    }

    #[test]
    fn smart_turn_v3_qdq() {
        holds("smart_turn_v3_qdq", 38);
    }

    #[test]
    fn pplcnet_qdq_derived() {
        holds("pplcnet_qdq_derived", 32);
    }
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
