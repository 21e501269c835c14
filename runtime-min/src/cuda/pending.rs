//! Work under way: running a model on tensors that already lie on the device.
//!
//! Contract: the safe form takes the buffers and hands them back when the work is done, so nobody can free or read
//! them too early. The raw form takes addresses and a stream of the caller's, and is unsafe. Both keep the order of
//! the session: one request after the other.

use std::sync::{Arc, OnceLock};

use super::device::same_device;
use super::engine::during;
use super::exec::Exec;
use super::ffi::{CuDevicePtr, CuStream};
use super::memory::DeviceBuffer;
use super::stream::{Event, EventUse};
use crate::error::Error;
use crate::shapes::{Change, Shapes};
use crate::table::{PlanTables, Port};

/// A request under way. Dropping it waits for the request.
#[must_use = "the outputs come from `wait`"]
pub struct Pending {
    done: Event,
    buffers: Buffers,
    poison: Arc<OnceLock<String>>,
}

/// Tensors on the device, in the order of the model's ports.
#[derive(Debug, Default)]
pub struct Buffers {
    pub inputs: Vec<DeviceBuffer>,
    pub outputs: Vec<DeviceBuffer>,
}

impl Pending {
    /// Waits for the request and hands the buffers back.
    ///
    /// # Errors
    /// A failure of the device, which poisons the session.
    pub fn wait(mut self) -> Result<Buffers, Error> {
        let buffers = std::mem::take(&mut self.buffers);
        let waited = self.done.synchronize().map_err(during("running the model"));
        if let Err(error) = waited {
            let _ = self.poison.set(error.to_string());
            return Err(error);
        }
        match self.poison.get() {
            Some(cause) => Err(Error::Poisoned { cause: cause.clone() }),
            None => Ok(buffers),
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        // The buffers must outlive the work; a failure is found again by the session's next run.
        let _ = self.done.synchronize();
    }
}

impl<'a> Exec<'a> {
    /// Enqueues a run on `buffers`: each holds its tensor from its first byte, contiguous and row-major, and may be
    /// longer. Returns at once (a plan that does not run as one CUDA graph waits for its branches, loops and counts).
    ///
    /// # Errors
    /// [`Error::InputCount`] and [`Error::OutputCount`], [`Error::Bytes`] for a buffer that is too short,
    /// [`Error::Poisoned`] after an earlier failure; else the driver's. The buffers are then dropped.
    pub fn enqueue(&mut self, shapes: &Shapes<'a>, change: Change, buffers: Buffers) -> Result<Pending, Error> {
        let engine = self.engine.clone();
        let _current = engine.device.make_current().map_err(during("enqueueing"))?;
        self.prepare(shapes, change)?;
        let tables = self.engine.tables;
        check_counts(tables, buffers.inputs.len(), buffers.outputs.len())?;
        check_lengths(tables.inputs, shapes, &buffers.inputs)?;
        check_lengths(tables.outputs, shapes, &buffers.outputs)?;
        for buffer in buffers.inputs.iter().chain(&buffers.outputs) {
            same_device(buffer.device(), self.stream.device(), "enqueue").map_err(during("enqueueing"))?;
        }
        let done = Event::new(self.stream.device(), EventUse::Order).map_err(during("enqueueing"))?;
        let [inputs, outputs] = [&buffers.inputs, &buffers.outputs]
            .map(|buffers| buffers.iter().map(DeviceBuffer::address).collect::<Vec<_>>());
        // SAFETY: the buffers are long enough, and `Pending` keeps them until the work is done.
        let enqueued = unsafe { self.enqueue_between(shapes, &inputs, &outputs) }
            .and_then(|()| done.record(&self.stream).map_err(during("enqueueing")));
        if let Err(error) = enqueued {
            return Err(self.abandon(error));
        }
        Ok(Pending { done, buffers, poison: self.poison.clone() })
    }

    /// Enqueues a run behind the work of `stream`, reading and writing device memory at the given addresses (in the
    /// order of the ports); later work of `stream` waits for it. The host does not wait, but for what the CUDA graph leaves to it: some branches, loops and counts.
    ///
    /// # Errors
    /// [`Error::InputCount`] and [`Error::OutputCount`] for the wrong number of addresses, [`Error::Poisoned`], or the driver's.
    ///
    /// # Safety
    /// Each address is valid for the bytes of its tensor at these shapes, and nothing that is not ordered with
    /// `stream` touches them until the work is done; the session is not dropped before. `stream` is a `CUstream` of
    /// the device's primary context.
    pub unsafe fn enqueue_raw(
        &mut self,
        shapes: &Shapes<'a>,
        change: Change,
        inputs: &[CuDevicePtr],
        outputs: &[CuDevicePtr],
        stream: CuStream,
    ) -> Result<(), Error> {
        let engine = self.engine.clone();
        let _current = engine.device.make_current().map_err(during("enqueueing"))?;
        self.prepare(shapes, change)?;
        let tables = self.engine.tables;
        check_counts(tables, inputs.len(), outputs.len())?;
        let mark = Event::new(self.stream.device(), EventUse::Order).map_err(during("enqueueing"))?;
        // SAFETY: `stream` is valid, as promised.
        let enqueued = unsafe { mark.record_raw(stream) }
            .and_then(|()| self.stream.wait(&mark))
            .map_err(during("enqueueing"))
            // SAFETY: promised by the caller.
            .and_then(|()| unsafe { self.enqueue_between(shapes, inputs, outputs) })
            .and_then(|()| {
                // SAFETY: `stream` is valid, as promised.
                let joined = mark.record(&self.stream).and_then(|()| unsafe { mark.wait_raw(stream) });
                joined.map_err(during("enqueueing"))
            });
        enqueued.map_err(|error| self.abandon(error))
    }

    /// Copies the inputs into the arena, runs, and copies the outputs from it, all on the device.
    ///
    /// # Safety
    /// Each address is valid for its tensor until the stream is done.
    unsafe fn enqueue_between(
        &mut self,
        shapes: &Shapes<'a>,
        inputs: &[CuDevicePtr],
        outputs: &[CuDevicePtr],
    ) -> Result<(), Error> {
        let memory = self.memory(shapes);
        let tables = self.engine.tables;
        for (port, &from) in tables.inputs.iter().zip(inputs) {
            let bytes = shapes.bytes(port.tensor);
            // SAFETY: promised by the caller; the arena holds the tensor.
            unsafe { self.stream.copy_on_device(memory.address(port.tensor), from, bytes) }
                .map_err(during(port.name))?;
        }
        self.enqueue_run_count(&memory)?;
        self.enqueue_steps(shapes, &memory)?;
        for (port, &to) in tables.outputs.iter().zip(outputs) {
            let bytes = shapes.bytes(port.tensor);
            // SAFETY: promised by the caller; the arena holds the tensor.
            unsafe { self.stream.copy_on_device(to, memory.address(port.tensor), bytes) }.map_err(during(port.name))?;
        }
        Ok(())
    }

    /// Waits for what was enqueued before a failure; one of the device poisons the session.
    fn abandon(&mut self, error: Error) -> Error {
        let done = self.stream.synchronize();
        if done.is_err() || matches!(error, Error::Cuda { .. }) {
            let _ = self.poison.set(error.to_string());
        }
        error
    }
}

/// Says that there is one buffer or address for each port.
fn check_counts(tables: &PlanTables<'_>, inputs: usize, outputs: usize) -> Result<(), Error> {
    if inputs != tables.inputs.len() {
        return Err(Error::InputCount { expected: tables.inputs.len(), given: inputs });
    }
    if outputs != tables.outputs.len() {
        return Err(Error::OutputCount { expected: tables.outputs.len(), given: outputs });
    }
    Ok(())
}

/// Says that each buffer is long enough.
fn check_lengths(ports: &[Port<'_>], shapes: &Shapes<'_>, buffers: &[DeviceBuffer]) -> Result<(), Error> {
    for (port, buffer) in ports.iter().zip(buffers) {
        let expected = shapes.bytes(port.tensor);
        if buffer.len() < expected {
            return Err(Error::Bytes { tensor: port.name.to_owned(), expected, given: buffer.len() });
        }
    }
    Ok(())
}
