//! Compiles ONNX models to Rust from a build script.
//!
//! ```no_run
//! // build.rs
//! fn main() -> Result<(), lapidary_build::Error> {
//!     lapidary_build::Compiler::new("model.onnx").name("digits").target("cpu").dim("batch", 1, 1, 64).emit()?;
//!     Ok(())
//! }
//! ```
//!
//! ```ignore
//! // src/main.rs
//! include!(concat!(env!("OUT_DIR"), "/digits.rs"));   // declares `pub mod digits`
//! ```
//!
//! The module is what `lapidary compile` writes as a crate; the package around it depends on `lapidary-runtime` (with
//! the feature `cpu` for that target). Everything lies below `OUT_DIR`.
//!
//! The machine is not probed: CUDA kernels are compiled by the toolkit that [`Compiler::cuda`], `CUDA_HOME` or `NVCC`
//! names, and by no other. With `LAPIDARY_STUB=1` in the environment only the module's types are written: no kernels, no
//! plans (`ARENA_BYTES` and `WEIGHT_BYTES` are 0), and no weights, whose files need not be there. Loading such a model
//! is an error that says so. That is for `cargo check`, documentation and rust-analyzer (`"rust-analyzer.cargo.extraEnv": { "LAPIDARY_STUB": "1" }`, and a target folder of its own).
//!
//! Cargo does not optimize build scripts. Where a large model compiles slowly, say in the manifest of the workspace:
//! `[profile.dev.build-override] opt-level = 2`, and the same for `release`.

mod cargo;
mod compiler;
mod cuda;
mod error;

pub use compiler::{Compiler, Emitted};
pub use error::Error;
