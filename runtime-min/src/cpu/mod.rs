//! The `cpu` target: one function per operation of a plan, in Rust alone; matrix products come from the `gemm` crate.
//!
//! An [`Engine`] holds what requests share (weights, derived weights, prepared programs); an [`Exec`] holds one
//! request's memory and runs the plan's segments. Nothing is chosen here: the steps and their order are the plan's.
//! The kernels are safe code over slices; `memory` and `pointwise` hold the borders, and `team` the threads.

mod attention;
mod blocks;
mod bytes;
mod check;
mod conv;
mod dispatch;
mod element;
mod engine;
mod exec;
mod gather;
mod matmul;
mod memory;
mod movement;
mod norm;
mod packed;
mod pointwise;
mod pool;
mod product;
mod recurrent;
mod reduce;
mod region;
mod repeat;
mod resize;
mod scan;
mod scatter;
mod sheet;
mod simd;
mod softmax;
mod suppress;
mod team;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod threads;
mod window;

pub use check::{Operand, supports};
pub use engine::Engine;
pub use exec::Exec;
