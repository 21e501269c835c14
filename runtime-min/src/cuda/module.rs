//! Loaded kernels: modules, functions, and how a kernel is launched.
//!
//! Contract: a [`Function`] keeps its module loaded. Launching is unsafe, because a kernel writes wherever its
//! parameters point.

use core::ffi::{CStr, c_void};
use core::fmt;
use std::ffi::CString;
use std::sync::Arc;

use super::device::{Device, same_device};
use super::error::DriverError;
use super::ffi::*;
use super::stream::Stream;

/// Compiled code.
#[derive(Clone, Copy)]
pub enum Image<'a> {
    /// Machine code for one architecture.
    Cubin(&'a [u8]),
    /// PTX text, compiled by the driver while loading.
    Ptx(&'a [u8]),
}

/// A loaded module.
pub struct Module {
    device: Arc<Device>,
    handle: CuModule,
}

impl Module {
    /// Loads an image.
    ///
    /// # Errors
    /// [`DriverError::Call`] if the image does not fit the device or the driver; with PTX the compiler's log is its
    /// detail.
    ///
    /// # Safety
    /// A cubin is whole, as the compiler wrote it: the driver trusts the sizes that it states.
    pub unsafe fn load(device: &Arc<Device>, image: Image<'_>) -> Result<Arc<Module>, DriverError> {
        let text;
        let bytes = match image {
            Image::Cubin(bytes) => bytes,
            // The driver reads PTX up to a zero.
            Image::Ptx(bytes) => {
                let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
                text = [&bytes[..end], &[0]].concat();
                &text
            }
        };
        let _current = device.make_current()?;
        let mut log = [0u8; 2048];
        let mut options = [JIT_ERROR_LOG_BUFFER, JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
        let mut values = [log.as_mut_ptr().cast::<c_void>(), log.len() as *mut c_void];
        let mut handle = CuModule::NULL;
        // SAFETY: the image is whole (a cubin as promised, PTX up to its zero); options and values have two
        // entries each, of the types that the reference states; all outlive the call. Unloaded once, in `drop`.
        let loaded = unsafe {
            device.driver.module_load_data_ex(
                &mut handle,
                bytes.as_ptr().cast(),
                2,
                options.as_mut_ptr(),
                values.as_mut_ptr(),
            )
        };
        match loaded {
            Ok(()) => Ok(Arc::new(Module { device: device.clone(), handle })),
            Err(DriverError::Call { function, code, name, text, .. }) => {
                let log = CStr::from_bytes_until_nul(&log).unwrap_or_default();
                let detail = log.to_string_lossy().trim().to_owned();
                Err(DriverError::Call { function, code, name, text, detail })
            }
            Err(other) => Err(other),
        }
    }

    /// The kernel with the `extern "C"` name `entry`.
    ///
    /// # Errors
    /// [`DriverError::Call`] (not found) with the name as its detail.
    pub fn function(self: &Arc<Module>, entry: &str) -> Result<Function, DriverError> {
        // A name with a zero inside cannot exist; the driver then says so for the empty name.
        let name = CString::new(entry).unwrap_or_default();
        let _current = self.device.make_current()?;
        let mut handle = CuFunction::NULL;
        // SAFETY: the module lives, `name` is a C string, `handle` outlives the call.
        unsafe { self.device.driver.module_get_function(&mut handle, self.handle, name.as_ptr()) }.map_err(
            |mut error| {
                if let DriverError::Call { detail, .. } = &mut error {
                    *detail = format!("kernel `{entry}`");
                }
                error
            },
        )?;
        Ok(Function { module: self.clone(), handle })
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        if let Ok(_current) = self.device.make_current() {
            // SAFETY: loaded in `load`, unloaded once; functions hold the module alive.
            let _ = unsafe { self.device.driver.module_unload(self.handle) };
        }
    }
}

impl fmt::Debug for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Module").finish_non_exhaustive()
    }
}

/// A kernel of a loaded module.
#[derive(Clone, Debug)]
pub struct Function {
    module: Arc<Module>,
    pub(super) handle: CuFunction,
}

/// What the compiler made of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FunctionFacts {
    pub registers_per_thread: u32,
    /// Bytes of local memory a thread; spilled registers live there.
    pub local_bytes: u32,
    pub static_shared_bytes: u32,
    pub max_threads_per_block: u32,
}

impl Function {
    pub fn device(&self) -> &Arc<Device> {
        &self.module.device
    }

    /// Lets launches ask for up to `bytes` of dynamic shared memory. Without it the limit is 48 KiB.
    pub fn allow_shared_bytes(&self, bytes: u32) -> Result<(), DriverError> {
        let device = self.device();
        let _current = device.make_current()?;
        let value = i32::try_from(bytes).unwrap_or(i32::MAX);
        // SAFETY: the function lives. A value that the device cannot grant is refused.
        unsafe { device.driver.function_set_attribute(self.handle, FUNCTION_MAX_DYNAMIC_SHARED_SIZE_BYTES, value) }
    }

    pub fn facts(&self) -> Result<FunctionFacts, DriverError> {
        let device = self.device();
        let _current = device.make_current()?;
        let attribute = |attribute| {
            let mut value = 0;
            // SAFETY: the function lives, `value` outlives the call.
            unsafe { device.driver.function_get_attribute(&mut value, attribute, self.handle)? };
            Ok::<u32, DriverError>(u32::try_from(value).unwrap_or(0))
        };
        Ok(FunctionFacts {
            registers_per_thread: attribute(FUNCTION_NUM_REGS)?,
            local_bytes: attribute(FUNCTION_LOCAL_SIZE_BYTES)?,
            static_shared_bytes: attribute(FUNCTION_SHARED_SIZE_BYTES)?,
            max_threads_per_block: attribute(FUNCTION_MAX_THREADS_PER_BLOCK)?,
        })
    }

    /// How many blocks of `threads` threads and `shared_bytes` of dynamic shared memory one multiprocessor holds.
    pub fn blocks_per_sm(&self, threads: u32, shared_bytes: u32) -> Result<u32, DriverError> {
        let device = self.device();
        let _current = device.make_current()?;
        let mut blocks = 0;
        let threads = i32::try_from(threads).unwrap_or(i32::MAX);
        // SAFETY: the function lives, `blocks` outlives the call.
        unsafe {
            device.driver.occupancy_max_active_blocks(&mut blocks, self.handle, threads, shared_bytes as usize)?;
        }
        Ok(u32::try_from(blocks).unwrap_or(0))
    }

    /// Enqueues the kernel.
    ///
    /// # Safety
    /// `args` match the kernel's parameters in number, order and size, and what they point to is valid, and not
    /// touched by anything that is not ordered with the stream, until the kernel is done.
    pub unsafe fn launch(
        &self,
        stream: &Stream,
        shape: &LaunchShape,
        args: &mut KernelArgs,
    ) -> Result<(), DriverError> {
        let device = self.device();
        same_device(device, stream.device(), "launch")?;
        let _current = device.make_current()?;
        let params = args.pointers();
        let none = core::ptr::null_mut();
        let [x, y, z] = shape.grid;
        let [block_x, block_y, block_z] = shape.block;
        let Some(cluster) = shape.cluster else {
            // SAFETY: promised by the caller.
            return unsafe {
                device.driver.launch_kernel(
                    self.handle,
                    x,
                    y,
                    z,
                    block_x,
                    block_y,
                    block_z,
                    shape.shared_bytes,
                    stream.handle(),
                    params,
                    none,
                )
            };
        };
        let attribute = LaunchAttribute { id: LAUNCH_CLUSTER_DIMENSION, pad: 0, value: cluster_value(cluster) };
        let config = LaunchConfig {
            grid: shape.grid,
            block: shape.block,
            shared_bytes: shape.shared_bytes,
            stream: stream.handle(),
            attributes: &attribute,
            attribute_count: 1,
        };
        // SAFETY: promised by the caller; the configuration outlives the call.
        unsafe { device.driver.launch_kernel_ex(&config, self.handle, params, none) }
    }
}

/// The shape of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaunchShape {
    /// Blocks along x, y, z; none of them 0.
    pub grid: [u32; 3],
    /// Threads of a block along x, y, z.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory a block.
    pub shared_bytes: u32,
    /// Blocks of a thread block cluster along x, y, z, if the kernel uses clusters (sm_90 and newer).
    pub cluster: Option<[u32; 3]>,
}

/// The value of the cluster attribute.
pub(super) fn cluster_value([x, y, z]: [u32; 3]) -> LaunchAttributeValue {
    let mut words = [0; 16];
    words[..3].copy_from_slice(&[x, y, z]);
    LaunchAttributeValue { words }
}

/// The arguments of a launch, in the order of the kernel's parameters. Reused between launches without allocation.
#[derive(Default)]
pub struct KernelArgs {
    /// One argument each, at the cell's first byte.
    cells: Vec<u64>,
    pointers: Vec<*mut c_void>,
}

// SAFETY: the pointers are made from the cells for each launch and mean nothing in between.
unsafe impl Send for KernelArgs {}
// SAFETY: as above; `&KernelArgs` gives nothing.
unsafe impl Sync for KernelArgs {}

impl KernelArgs {
    /// Forgets all arguments; keeps the memory.
    pub fn clear(&mut self) {
        self.cells.clear();
    }

    pub fn address(&mut self, value: CuDevicePtr) {
        self.cells.push(value);
    }

    pub fn i64(&mut self, value: i64) {
        self.cells.push(u64::from_ne_bytes(value.to_ne_bytes()));
    }

    pub fn i32(&mut self, value: i32) {
        self.word(value.to_ne_bytes());
    }

    pub fn f32(&mut self, value: f32) {
        self.word(value.to_ne_bytes());
    }

    /// A 4-byte argument: the driver reads as many bytes as the parameter has, from the cell's start.
    fn word(&mut self, bytes: [u8; 4]) {
        let [a, b, c, d] = bytes;
        self.cells.push(u64::from_ne_bytes([a, b, c, d, 0, 0, 0, 0]));
    }

    /// Addresses of the arguments, as the driver wants them; valid until the arguments change.
    pub(super) fn pointers(&mut self) -> *mut *mut c_void {
        self.pointers.clear();
        self.pointers.extend(self.cells.iter_mut().map(|cell| core::ptr::from_mut(cell).cast::<c_void>()));
        self.pointers.as_mut_ptr()
    }
}
