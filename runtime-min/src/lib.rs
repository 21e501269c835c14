//! The runtime of crates emitted by the Lapidary model compiler.
//!
//! It loads a plan's tables and weights ([`Model`]), owns a request's memory ([`Session`]), and runs the plan's steps:
//! CUDA kernels through its own small driver binding, or the functions of the `cpu` target. It has no dependencies on
//! the `cuda` path, chooses nothing, and knows nothing of ONNX or of graphs.

pub mod cuda;
mod dtype;
mod error;
mod model;
pub mod op;
mod shapes;
pub mod table;
mod view;
mod weights;

#[cfg(feature = "cpu")]
pub mod cpu;
#[cfg(feature = "literal")]
pub mod literal;
#[cfg(feature = "literal")]
pub mod sources;

pub use dtype::{BF16, DType, Element, F16};
pub use error::Error;
pub use model::{LaunchMode, Model, Options, Session, Timing, TimingMode};
pub use shapes::{Change, Extents, Shapes, evaluate, floor_div};
pub use view::{C, Dimension, Dyn, InputRef, OutputRef, Shape, View};
pub use weights::{Aligned, Weights};
