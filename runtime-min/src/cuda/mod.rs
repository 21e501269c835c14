//! The `cuda` target: a small binding of the NVIDIA driver, and the executor of plan tables on it.
//!
//! Contract: the driver library is opened at run time, so a program with this module starts where there is no driver,
//! and gets a [`DriverError`] when it asks for a device. Nothing here depends on another crate or on the CUDA toolkit.

mod device;
mod driver;
mod engine;
mod error;
mod exec;
mod ffi;
mod graph;
mod launch;
mod library;
mod memory;
mod module;
mod pending;
mod record;
mod stream;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;

pub use device::{Device, DeviceFacts};
pub use driver::{Driver, OLDEST_DRIVER};
pub use engine::{Engine, best_plan};
pub use error::DriverError;
pub use exec::Exec;
pub use ffi::{CuContext, CuDevicePtr, CuEvent, CuStream};
pub use graph::{Graph, GraphExec, Node, NodeState};
pub use memory::{DeviceBuffer, PinnedBuffer};
pub use module::{Function, FunctionFacts, Image, KernelArgs, LaunchShape, Module};
pub use pending::{Buffers, Pending};
pub use stream::{Event, EventUse, Stream};
