//! Lapidary: an ahead-of-time compiler from ONNX models to standalone Rust crates.

pub mod diag;
pub mod ir;
pub mod onnx;
pub mod profiles;
