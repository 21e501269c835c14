//! Owned memory: on the device, and page-locked on the host.
//!
//! Contract: a buffer is freed when it is dropped; whoever enqueues work on a buffer keeps it alive until that work is
//! done. The safe copies here wait for their own completion.

use core::ffi::c_void;
use core::fmt;
use std::sync::Arc;

use super::device::{Device, same_device};
use super::error::DriverError;
use super::ffi::{CuDevicePtr, HOST_ALLOC_PORTABLE};
use super::stream::Stream;

/// Device memory, aligned to at least 256 bytes; its first contents are whatever lay there.
///
/// `Send` and `Sync`: it is an address, and the host never dereferences it.
pub struct DeviceBuffer {
    device: Arc<Device>,
    /// 0 for an empty buffer, for which the driver has no allocation.
    address: CuDevicePtr,
    len: usize,
}

impl DeviceBuffer {
    /// Allocates `len` bytes.
    ///
    /// # Errors
    /// [`DriverError::Call`] with the bytes asked for, if the device has not as much.
    pub fn new(device: &Arc<Device>, len: usize) -> Result<DeviceBuffer, DriverError> {
        let mut address = 0;
        if len > 0 {
            let _current = device.make_current()?;
            // SAFETY: `address` outlives the call; freed once, in `drop`.
            unsafe { device.driver.mem_alloc(&mut address, len) }.map_err(|error| asked_for(error, len))?;
        }
        Ok(DeviceBuffer { device: device.clone(), address, len })
    }

    /// Allocates `len` bytes, sets them to zero behind the stream's earlier work, and waits.
    ///
    /// # Errors
    /// As [`DeviceBuffer::new`], or a failure of the work.
    pub fn zeroed(stream: &Stream, len: usize) -> Result<DeviceBuffer, DriverError> {
        let buffer = DeviceBuffer::new(stream.device(), len)?;
        // SAFETY: the buffer's own bytes, which live until the wait below.
        let filled = unsafe { stream.fill(buffer.address, 0, len) };
        stream.synchronize()?;
        filled.map(|()| buffer)
    }

    pub fn device(&self) -> &Arc<Device> {
        &self.device
    }

    /// The address of the first byte; 0 if the buffer is empty.
    pub fn address(&self) -> CuDevicePtr {
        self.address
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Copies `from` to the bytes at `offset`, behind the stream's earlier work, and waits.
    ///
    /// # Errors
    /// [`DriverError::OutOfRange`], or a failure of the copy or of the work before it.
    pub fn upload(&mut self, stream: &Stream, offset: usize, from: &[u8]) -> Result<(), DriverError> {
        same_device(&self.device, stream.device(), "upload")?;
        let address = self.range(offset, from.len())?;
        // SAFETY: the range lies in this buffer, and `from` is borrowed until the stream is done.
        unsafe { stream.copy_to_device(address, from.as_ptr(), from.len())? };
        stream.synchronize()
    }

    /// Copies the bytes at `offset` to `to`, behind the stream's earlier work, and waits.
    ///
    /// # Errors
    /// [`DriverError::OutOfRange`], or a failure of the copy or of the work before it.
    pub fn download(&self, stream: &Stream, offset: usize, to: &mut [u8]) -> Result<(), DriverError> {
        same_device(&self.device, stream.device(), "download")?;
        let address = self.range(offset, to.len())?;
        // SAFETY: the range lies in this buffer, and `to` is borrowed until the stream is done.
        unsafe { stream.copy_to_host(to.as_mut_ptr(), address, to.len())? };
        stream.synchronize()
    }

    /// The address of `bytes` bytes at `offset`.
    fn range(&self, offset: usize, bytes: usize) -> Result<CuDevicePtr, DriverError> {
        match offset.checked_add(bytes) {
            Some(end) if end <= self.len => Ok(self.address + offset as u64),
            _ => Err(DriverError::OutOfRange { offset, bytes, len: self.len }),
        }
    }
}

impl Drop for DeviceBuffer {
    fn drop(&mut self) {
        if self.address == 0 {
            return;
        }
        if let Ok(_current) = self.device.make_current() {
            // SAFETY: allocated in `new`, freed once. A failure leaves nothing to do.
            let _ = unsafe { self.device.driver.mem_free(self.address) };
        }
    }
}

impl fmt::Debug for DeviceBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceBuffer({:#x}, {} bytes)", self.address, self.len)
    }
}

/// Page-locked host memory, zeroed at first. The device copies to and from it without a staging copy.
///
/// It is cached (not write-combined), so the host may read it at full rate. `Send` and `Sync`: ordinary memory behind
/// an owning pointer, reached through `&` and `&mut` as a `Vec` is.
pub struct PinnedBuffer {
    device: Arc<Device>,
    /// Dangling for an empty buffer.
    address: *mut u8,
    len: usize,
}

// SAFETY: the buffer owns its memory, which any thread may read and write.
unsafe impl Send for PinnedBuffer {}
// SAFETY: `&PinnedBuffer` gives `&[u8]` only.
unsafe impl Sync for PinnedBuffer {}

impl PinnedBuffer {
    /// Allocates `len` zeroed bytes.
    ///
    /// # Errors
    /// [`DriverError::Call`] with the bytes asked for, if the system cannot lock as much.
    pub fn new(device: &Arc<Device>, len: usize) -> Result<PinnedBuffer, DriverError> {
        let mut address: *mut c_void = core::ptr::NonNull::<u64>::dangling().as_ptr().cast();
        if len > 0 {
            let _current = device.make_current()?;
            // SAFETY: `address` outlives the call; freed once, in `drop`.
            unsafe { device.driver.mem_host_alloc(&mut address, len, HOST_ALLOC_PORTABLE) }
                .map_err(|error| asked_for(error, len))?;
            // SAFETY: the driver gave `len` bytes at `address`.
            unsafe { address.cast::<u8>().write_bytes(0, len) };
        }
        Ok(PinnedBuffer { device: device.clone(), address: address.cast(), len })
    }

    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: `len` initialized bytes (or a dangling, aligned pointer and none); device writes are enqueued only
        // through unsafe calls, whose callers keep them apart from borrows.
        unsafe { core::slice::from_raw_parts(self.address, self.len) }
    }

    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as above, and the borrow is exclusive.
        unsafe { core::slice::from_raw_parts_mut(self.address, self.len) }
    }

    /// The address of the first byte.
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.address
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Drop for PinnedBuffer {
    fn drop(&mut self) {
        if self.len == 0 {
            return;
        }
        if let Ok(_current) = self.device.make_current() {
            // SAFETY: allocated in `new`, freed once. A failure leaves nothing to do.
            let _ = unsafe { self.device.driver.mem_free_host(self.address.cast()) };
        }
    }
}

impl fmt::Debug for PinnedBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PinnedBuffer({} bytes)", self.len)
    }
}

/// Adds the size to the error of an allocation.
fn asked_for(mut error: DriverError, len: usize) -> DriverError {
    if let DriverError::Call { detail, .. } = &mut error {
        *detail = format!("{len} bytes were asked for");
    }
    error
}
