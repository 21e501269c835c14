//! Compiles the text recognizer, and takes its alphabet from the model's metadata.

use std::error::Error;
use std::path::Path;

const MODEL: &str = "../../target/models/ppocr_v4_rec/model.onnx";

fn main() -> Result<(), Box<dyn Error>> {
    if !Path::new(MODEL).is_file() {
        return Err("the model is not here: run `python3 scripts/fetch-models ppocr_v4_rec` in the repository".into());
    }
    // One line of text, 48 pixels high: the network takes no other height.
    let emitted = lapidary_build::Compiler::new(MODEL)
        .name("recognizer")
        .target("cpu")
        .dim("p2o.DynamicDimension.0", 1, 1, 1)
        .dim("x.2", 48, 48, 48)
        .dim("p2o.DynamicDimension.1", 16, 320, 960)
        .emit()?;
    let alphabet = emitted.metadata.get("character").ok_or("the model states no alphabet")?;
    std::fs::write(emitted.folder.with_extension("txt"), alphabet)?;
    Ok(())
}
