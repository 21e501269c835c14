//! Emitted crates of the real models: each runs all cases of its manifest, unrecompiled, and gives bit by bit what the
//! same model gave in the compiler's process.

use lapidary_tests::{case_dir, emitted, root};

const MODELS: [&str; 10] = [
    "mnist_cntk",
    "ultraface_rfb320",
    "ppocr_cls",
    "pplcnet_orientation",
    "ppocr_v4_rec",
    "open_nsfw_resnet",
    "superres_core_derived",
    "magika_v3_3",
    "minilm_l6_w8",
    "eeg_seizure_bilstm",
];

#[test]
fn emitted_crates_give_the_bits_of_the_process() -> Result<(), String> {
    let workspace = root().canonicalize().map_err(|error| error.to_string())?.join("target/emitted-models");
    let mut names = Vec::new();
    for name in MODELS {
        let Some(dir) = case_dir(name) else { continue };
        let saved = workspace.join("saved").join(name);
        emitted::save(&dir, "cpu", &saved)?;
        emitted::emit(&dir, name, "cpu", &saved, &workspace)?;
        names.push(name);
    }
    if names.is_empty() {
        return Ok(());
    }
    let runner = emitted::build(&names, &workspace)?;
    for name in names {
        let weights = workspace.join(name).join("weights.bin");
        let said = emitted::compare(&runner, name, &weights, &workspace.join("saved").join(name))?;
        println!("{name}: {}", said.trim());
    }
    Ok(())
}
