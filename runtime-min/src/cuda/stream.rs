//! Streams, which order work on a device, and events, which mark points in them.
//!
//! Contract: a stream made here has no implicit order with the legacy default stream; work of other streams is ordered
//! by events only. A failure of a kernel or copy shows at a later call on the stream, at the latest at
//! [`Stream::synchronize`].

use std::sync::Arc;

use super::device::{Device, same_device};
use super::error::DriverError;
use super::ffi::*;

/// A stream of work on a device.
///
/// `Send` and `Sync`: the driver serializes calls on a stream; what is enqueued together is the caller's to order.
#[derive(Debug)]
pub struct Stream {
    device: Arc<Device>,
    handle: CuStream,
}

impl Stream {
    pub fn new(device: &Arc<Device>) -> Result<Stream, DriverError> {
        let _current = device.make_current()?;
        let mut handle = CuStream::NULL;
        // SAFETY: `handle` outlives the call; destroyed once, in `drop`.
        unsafe { device.driver.stream_create(&mut handle, STREAM_NON_BLOCKING)? };
        Ok(Stream { device: device.clone(), handle })
    }

    pub fn device(&self) -> &Arc<Device> {
        &self.device
    }

    /// The `CUstream`.
    pub fn handle(&self) -> CuStream {
        self.handle
    }

    /// Waits until all work enqueued so far is done, and reports the first failure among it.
    pub fn synchronize(&self) -> Result<(), DriverError> {
        let _current = self.device.make_current()?;
        // SAFETY: the stream lives.
        unsafe { self.device.driver.stream_synchronize(self.handle) }
    }

    /// Later work on this stream waits for `event`; the host does not.
    pub fn wait(&self, event: &Event) -> Result<(), DriverError> {
        same_device(&self.device, &event.device, "wait")?;
        let _current = self.device.make_current()?;
        // SAFETY: both live.
        unsafe { self.device.driver.stream_wait_event(self.handle, event.handle, 0) }
    }

    /// Enqueues a copy from host to device.
    ///
    /// # Safety
    /// `to` and `from` are valid for `bytes` bytes, and `from` is left unchanged, until the copy is done.
    pub unsafe fn copy_to_device(&self, to: CuDevicePtr, from: *const u8, bytes: usize) -> Result<(), DriverError> {
        if bytes == 0 {
            return Ok(());
        }
        let _current = self.device.make_current()?;
        // SAFETY: promised by the caller.
        unsafe { self.device.driver.memcpy_htod_async(to, from.cast(), bytes, self.handle) }
    }

    /// Enqueues a copy from device to host.
    ///
    /// # Safety
    /// `to` and `from` are valid for `bytes` bytes, and `to` is not touched, until the copy is done.
    pub unsafe fn copy_to_host(&self, to: *mut u8, from: CuDevicePtr, bytes: usize) -> Result<(), DriverError> {
        if bytes == 0 {
            return Ok(());
        }
        let _current = self.device.make_current()?;
        // SAFETY: promised by the caller.
        unsafe { self.device.driver.memcpy_dtoh_async(to.cast(), from, bytes, self.handle) }
    }

    /// Enqueues a copy on the device; the two ranges do not overlap.
    ///
    /// # Safety
    /// `to` and `from` are valid device addresses of `bytes` bytes until the copy is done.
    pub unsafe fn copy_on_device(&self, to: CuDevicePtr, from: CuDevicePtr, bytes: usize) -> Result<(), DriverError> {
        if bytes == 0 {
            return Ok(());
        }
        let _current = self.device.make_current()?;
        // SAFETY: promised by the caller.
        unsafe { self.device.driver.memcpy_dtod_async(to, from, bytes, self.handle) }
    }

    /// Enqueues setting `bytes` bytes to `value`.
    ///
    /// # Safety
    /// `to` is a valid device address of `bytes` bytes until the work is done.
    pub unsafe fn fill(&self, to: CuDevicePtr, value: u8, bytes: usize) -> Result<(), DriverError> {
        if bytes == 0 {
            return Ok(());
        }
        let _current = self.device.make_current()?;
        // SAFETY: promised by the caller.
        unsafe { self.device.driver.memset_d8_async(to, value, bytes, self.handle) }
    }

    /// Enqueues writing words one behind the other. They travel in the commands: no host memory is read later.
    ///
    /// # Safety
    /// `to` is a valid device address of that many words, aligned to them, until the work is done.
    pub unsafe fn write_words<const N: usize>(&self, to: CuDevicePtr, words: [u32; N]) -> Result<(), DriverError> {
        let _current = self.device.make_current()?;
        for (k, word) in words.into_iter().enumerate() {
            // SAFETY: promised by the caller.
            unsafe { self.device.driver.memset_d32_async(to + 4 * k as u64, word, 1, self.handle)? };
        }
        Ok(())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Ok(_current) = self.device.make_current() {
            // SAFETY: made in `new`, destroyed once. The driver lets enqueued work finish first.
            let _ = unsafe { self.device.driver.stream_destroy(self.handle) };
        }
    }
}

/// What an event is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventUse {
    /// Order between streams; it takes no time stamp.
    Order,
    /// Order, and a time stamp (resolution about half a microsecond).
    Time,
}

/// A point in a stream.
///
/// `Send` and `Sync`: the driver serializes calls on an event.
#[derive(Debug)]
pub struct Event {
    device: Arc<Device>,
    handle: CuEvent,
}

impl Event {
    pub fn new(device: &Arc<Device>, purpose: EventUse) -> Result<Event, DriverError> {
        let flags = match purpose {
            EventUse::Order => EVENT_DISABLE_TIMING,
            EventUse::Time => EVENT_DEFAULT,
        };
        let _current = device.make_current()?;
        let mut handle = CuEvent::NULL;
        // SAFETY: `handle` outlives the call; destroyed once, in `drop`.
        unsafe { device.driver.event_create(&mut handle, flags)? };
        Ok(Event { device: device.clone(), handle })
    }

    /// The `CUevent`.
    pub fn handle(&self) -> CuEvent {
        self.handle
    }

    /// Marks the present end of the stream; an earlier mark is forgotten.
    pub fn record(&self, stream: &Stream) -> Result<(), DriverError> {
        same_device(&self.device, &stream.device, "record")?;
        let _current = self.device.make_current()?;
        // SAFETY: both live.
        unsafe { self.device.driver.event_record(self.handle, stream.handle) }
    }

    /// Marks the present end of a stream that this crate does not own.
    ///
    /// # Safety
    /// `stream` is a live stream of the device's primary context.
    pub(super) unsafe fn record_raw(&self, stream: CuStream) -> Result<(), DriverError> {
        let _current = self.device.make_current()?;
        // SAFETY: promised by the caller; the event lives.
        unsafe { self.device.driver.event_record(self.handle, stream) }
    }

    /// Later work on a stream that this crate does not own waits for the event.
    ///
    /// # Safety
    /// `stream` is a live stream of the device's primary context.
    pub(super) unsafe fn wait_raw(&self, stream: CuStream) -> Result<(), DriverError> {
        let _current = self.device.make_current()?;
        // SAFETY: promised by the caller; the event lives.
        unsafe { self.device.driver.stream_wait_event(stream, self.handle, 0) }
    }

    /// Waits until the marked point is reached.
    pub fn synchronize(&self) -> Result<(), DriverError> {
        let _current = self.device.make_current()?;
        // SAFETY: the event lives.
        unsafe { self.device.driver.event_synchronize(self.handle) }
    }

    /// Milliseconds from `start` to this event; both made for [`EventUse::Time`], recorded and reached.
    pub fn milliseconds_since(&self, start: &Event) -> Result<f32, DriverError> {
        same_device(&self.device, &start.device, "milliseconds_since")?;
        let _current = self.device.make_current()?;
        let mut milliseconds = 0.0;
        // SAFETY: both events live, and the number outlives the call.
        unsafe { self.device.driver.event_elapsed_time(&mut milliseconds, start.handle, self.handle)? };
        Ok(milliseconds)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        if let Ok(_current) = self.device.make_current() {
            // SAFETY: made in `new`, destroyed once; the driver waits for a pending mark by itself.
            let _ = unsafe { self.device.driver.event_destroy(self.handle) };
        }
    }
}
