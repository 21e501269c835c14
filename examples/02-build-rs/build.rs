//! Compiles the model to the module that `src/main.rs` includes.

fn main() -> Result<(), lapidary_build::Error> {
    lapidary_build::Compiler::new("../01-quickstart/model.onnx")
        .name("digits")
        .target("cpu")
        .dim("batch", 1, 10, 64)
        .emit()?;
    Ok(())
}
