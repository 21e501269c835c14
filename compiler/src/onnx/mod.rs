//! The ONNX side of the compiler, and the only code that knows protobuf: bytes to a checked [`Model`], its stored
//! tensors and its nodes' attributes.
//!
//! Contract: whatever the bytes are, the answer is a value or `Diagnostics`; never a panic, a hang, or memory beyond a
//! constant factor of the bytes that are really there. Weights are views of the mapped file, never copies.

mod attrs;
mod elements;
mod external;
mod fixed;
mod formats;
mod functions;
mod import;
mod inputs;
mod load;
mod ops;
#[rustfmt::skip]
pub mod proto;
mod seeded;
mod sparse;
mod stored;
mod tensor;
mod wire;

pub use attrs::Attrs;
pub use elements::{Structure, element_name, structure};
pub use external::External;
pub use fixed::{Fixed, Numbers};
pub use formats::Format;
pub use import::import;
pub use inputs::{Input, inputs, interface};
pub use load::{Model, OPSETS, load, load_bytes};
pub use ops::{Operator, operators};
pub use sparse::{DENSE_LIMIT, densify};
pub use stored::Stored;
pub use tensor::{TensorRef, decode, dtype_of};
