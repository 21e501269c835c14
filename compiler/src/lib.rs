//! Lapidary: an ahead-of-time compiler from ONNX models to standalone Rust crates.

pub mod diag;
pub mod ir;
pub mod kernels;
pub mod lower;
pub mod onnx;
pub mod passes;
pub mod plan;
pub mod profiles;
pub mod select;
