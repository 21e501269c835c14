//! A CUDA device and its primary context.
//!
//! Contract: the primary context is the one that the CUDA runtime, cudarc, candle and PyTorch use, so device pointers
//! of theirs work here and ours work there. It is retained while the [`Device`] lives. Every entry of this crate makes
//! the context current on the calling thread and puts the former one back when it returns, so that other libraries
//! on the thread see no change.

use core::ffi::{CStr, c_char};
use core::fmt;
use core::marker::PhantomData;
use std::sync::Arc;

use super::driver::Driver;
use super::error::DriverError;
use super::ffi::*;

/// A device with its primary context retained. Shared by everything that lives on the device.
///
/// `Send` and `Sync`: after `open` it is read-only, and the driver's functions may be called from any thread.
pub struct Device {
    pub(super) driver: Driver,
    ordinal: u32,
    handle: CuDevice,
    context: CuContext,
    facts: DeviceFacts,
}

/// What is known of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceFacts {
    /// The marketing name, such as `NVIDIA H200`.
    pub name: String,
    /// Compute capability, such as `(9, 0)`.
    pub compute_capability: (u32, u32),
    /// Number of streaming multiprocessors.
    pub sm_count: u32,
    pub l2_bytes: usize,
    pub memory_bytes: usize,
    /// The most dynamic shared memory that one block may ask for.
    pub shared_bytes_per_block: u32,
    /// The CUDA version that the driver supports, as 1000 * major + 10 * minor.
    pub driver_version: u32,
}

impl Device {
    /// Opens device `ordinal`, counted as the driver counts (after `CUDA_VISIBLE_DEVICES`).
    ///
    /// # Errors
    /// Those of [`Driver::load`]; [`DriverError::NoDevice`] if there are fewer devices.
    pub fn open(ordinal: u32) -> Result<Arc<Device>, DriverError> {
        Device::open_with(Driver::load()?, ordinal)
    }

    /// Opens a device through the given driver.
    pub(super) fn open_with(driver: Driver, ordinal: u32) -> Result<Arc<Device>, DriverError> {
        let mut count = 0;
        // SAFETY: `count` outlives the call, and the driver is initialized.
        unsafe { driver.device_count(&mut count)? };
        let count = u32::try_from(count).unwrap_or(0);
        let wanted = i32::try_from(ordinal).ok().filter(|_| ordinal < count);
        let Some(wanted) = wanted else { return Err(DriverError::NoDevice { ordinal, count }) };
        let mut handle = 0;
        // SAFETY: `handle` outlives the call.
        unsafe { driver.device_get(&mut handle, wanted)? };
        let facts = DeviceFacts::read(&driver, handle)?;
        let mut context = CuContext::NULL;
        // SAFETY: `context` outlives the call. Released once, in `drop`.
        unsafe { driver.primary_context_retain(&mut context, handle)? };
        Ok(Arc::new(Device { driver, ordinal, handle, context, facts }))
    }

    /// The number it was opened with.
    pub fn ordinal(&self) -> u32 {
        self.ordinal
    }

    pub fn facts(&self) -> &DeviceFacts {
        &self.facts
    }

    /// The primary context, as a `CUcontext`.
    pub fn context(&self) -> CuContext {
        self.context
    }

    /// Free and total device memory in bytes.
    pub fn memory(&self) -> Result<(usize, usize), DriverError> {
        let _current = self.make_current()?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: both outlive the call.
        unsafe { self.driver.mem_info(&mut free, &mut total)? };
        Ok((free, total))
    }

    /// Waits until everything enqueued in the primary context, by anyone, is done.
    pub fn synchronize(&self) -> Result<(), DriverError> {
        let _current = self.make_current()?;
        // SAFETY: no arguments; the context is current.
        unsafe { self.driver.context_synchronize() }
    }

    /// Whether graphs may hold conditional nodes: with drivers of CUDA 12.4 and later.
    pub fn has_conditional_nodes(&self) -> bool {
        self.facts.driver_version >= 12040
    }

    /// Makes the context current on this thread until the guard is dropped.
    pub(super) fn make_current(&self) -> Result<Current<'_>, DriverError> {
        let mut former = CuContext::NULL;
        // SAFETY: `former` outlives the call.
        unsafe { self.driver.context_get_current(&mut former)? };
        if former == self.context {
            return Ok(Current { device: self, former: None, thread: PhantomData });
        }
        // SAFETY: the context is retained while `self` lives.
        unsafe { self.driver.context_set_current(self.context)? };
        Ok(Current { device: self, former: Some(former), thread: PhantomData })
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: retained once in `open_with`. A failure (the process is ending) leaves nothing to do.
        let _ = unsafe { self.driver.primary_context_release(self.handle) };
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device").field("ordinal", &self.ordinal).field("facts", &self.facts).finish_non_exhaustive()
    }
}

/// While it lives, the device's context is current on this thread. Not `Send`: "current" is a state of the thread.
pub(super) struct Current<'a> {
    device: &'a Device,
    /// The context to put back, if it was another one.
    former: Option<CuContext>,
    thread: PhantomData<*const ()>,
}

impl Drop for Current<'_> {
    fn drop(&mut self) {
        if let Some(former) = self.former {
            // SAFETY: it was current on this thread when the guard was made; null is allowed.
            let _ = unsafe { self.device.driver.context_set_current(former) };
        }
    }
}

impl DeviceFacts {
    fn read(driver: &Driver, device: CuDevice) -> Result<DeviceFacts, DriverError> {
        let attribute = |attribute| {
            let mut value = 0;
            // SAFETY: `value` outlives the call; `device` came from the driver.
            unsafe { driver.device_attribute(&mut value, attribute, device)? };
            Ok::<u32, DriverError>(u32::try_from(value).unwrap_or(0))
        };
        let mut name = [0 as c_char; 256];
        // SAFETY: the buffer has the stated length, the driver ends the text with a zero within it.
        let name = unsafe {
            driver.device_name(name.as_mut_ptr(), 256, device)?;
            CStr::from_ptr(name.as_ptr())
        };
        let mut memory_bytes = 0;
        let mut version = 0;
        // SAFETY: both outlive the calls.
        unsafe {
            driver.device_total_mem(&mut memory_bytes, device)?;
            driver.driver_version(&mut version)?;
        }
        Ok(DeviceFacts {
            name: name.to_string_lossy().into_owned(),
            compute_capability: (
                attribute(DEVICE_COMPUTE_CAPABILITY_MAJOR)?,
                attribute(DEVICE_COMPUTE_CAPABILITY_MINOR)?,
            ),
            sm_count: attribute(DEVICE_MULTIPROCESSOR_COUNT)?,
            l2_bytes: attribute(DEVICE_L2_CACHE_SIZE)? as usize,
            memory_bytes,
            shared_bytes_per_block: attribute(DEVICE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
            driver_version: u32::try_from(version).unwrap_or(0),
        })
    }
}

/// Says that two objects live on one device, or names the call that mixes them.
pub(super) fn same_device(a: &Arc<Device>, b: &Arc<Device>, function: &'static str) -> Result<(), DriverError> {
    if a.context == b.context { Ok(()) } else { Err(DriverError::WrongDevice { function }) }
}
