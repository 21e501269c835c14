//! The functions of the CUDA driver that this crate calls, found in the driver library at run time.
//!
//! Contract: [`Driver::load`] succeeds wherever a driver library can be opened and initialized; a function that the
//! driver lacks is an error of the call that needs it, never of the loading. Each method is one driver function, with
//! the same arguments; its result code becomes a [`DriverError`]. Symbols are named in full, `_v2` included: the
//! header's macros hide those suffixes, the library does not.
//!
//! Not here: lifetimes, contexts, threads. The wrappers beside this file own those.

use core::ffi::{CStr, c_char, c_void};

use super::error::DriverError;
use super::ffi::*;
use super::library::Library;

/// The oldest driver interface that has every function used unconditionally: CUDA 12.0 (driver 525).
pub const OLDEST_DRIVER: i32 = 12000;

#[cfg(unix)]
const NAMES: [&CStr; 3] = [c"libcuda.so.1", c"libcuda.so", c"/usr/lib/wsl/lib/libcuda.so.1"];
#[cfg(unix)]
const NAME_TEXTS: &[&str] = &["libcuda.so.1", "libcuda.so", "/usr/lib/wsl/lib/libcuda.so.1"];
#[cfg(windows)]
const NAMES: [&CStr; 1] = [c"nvcuda.dll"];
#[cfg(windows)]
const NAME_TEXTS: &[&str] = &["nvcuda.dll"];

/// Writes the address of a static text about a code.
type ErrorText = unsafe extern "system" fn(code: CuResult, text: *mut *const c_char) -> CuResult;

/// Declares the table of functions, one field and one method each. Where two symbols are given, they have the same
/// signature and meaning, and the first one that exists is taken.
macro_rules! functions {
    ($($method:ident = $($symbol:literal)|+ ($($argument:ident: $type:ty),* $(,)?);)*) => {
        /// The driver's functions.
        #[derive(Clone)]
        pub struct Driver {
            /// `cuGetErrorName` and `cuGetErrorString`, whose own failure is no error.
            pub(super) error_texts: [Option<ErrorText>; 2],
            $(pub(super) $method: Option<unsafe extern "system" fn($($type),*) -> CuResult>,)*
        }

        impl Driver {
            /// A driver without any function.
            pub(super) const EMPTY: Driver = Driver { error_texts: [None; 2], $($method: None,)* };

            fn resolve(library: &Library) -> Driver {
                let mut driver = Driver::EMPTY;
                driver.error_texts = [c"cuGetErrorName", c"cuGetErrorString"].map(|name| {
                    // SAFETY: the signature is that of both functions, as their reference states.
                    library.symbol(name).map(|address| unsafe {
                        core::mem::transmute::<*mut c_void, ErrorText>(address)
                    })
                });
                $(
                    let address = [$($symbol),+].into_iter().find_map(|name| library.symbol(name));
                    // SAFETY: the symbol is the driver function with this signature, as its reference states;
                    // `Option` of a function pointer has the null niche, and both are one pointer wide.
                    driver.$method = address.map(|address| unsafe {
                        core::mem::transmute::<*mut c_void, unsafe extern "system" fn($($type),*) -> CuResult>(address)
                    });
                )*
                driver
            }

            $(
                /// The driver function of this name.
                ///
                /// # Safety
                /// What the driver's reference asks of the arguments must hold.
                #[allow(clippy::too_many_arguments, reason = "the driver's own lists")]
                pub(super) unsafe fn $method(&self, $($argument: $type),*) -> Result<(), DriverError> {
                    const NAME: &str = name_of(&[$($symbol),+]);
                    let Some(function) = self.$method else {
                        return Err(DriverError::SymbolMissing { name: NAME });
                    };
                    // SAFETY: promised by the caller.
                    let code = unsafe { function($($argument),*) };
                    if code == SUCCESS { Ok(()) } else { Err(self.describe(NAME, code)) }
                }
            )*
        }
    };
}

functions! {
    init = c"cuInit"(flags: u32);
    driver_version = c"cuDriverGetVersion"(version: *mut i32);

    device_count = c"cuDeviceGetCount"(count: *mut i32);
    device_get = c"cuDeviceGet"(device: *mut CuDevice, ordinal: i32);
    device_name = c"cuDeviceGetName"(name: *mut c_char, len: i32, device: CuDevice);
    device_attribute = c"cuDeviceGetAttribute"(value: *mut i32, attribute: i32, device: CuDevice);
    device_total_mem = c"cuDeviceTotalMem_v2"(bytes: *mut usize, device: CuDevice);
    primary_context_retain = c"cuDevicePrimaryCtxRetain"(context: *mut CuContext, device: CuDevice);
    primary_context_release = c"cuDevicePrimaryCtxRelease_v2"(device: CuDevice);
    context_set_current = c"cuCtxSetCurrent"(context: CuContext);
    context_get_current = c"cuCtxGetCurrent"(context: *mut CuContext);
    context_synchronize = c"cuCtxSynchronize"();
    mem_info = c"cuMemGetInfo_v2"(free: *mut usize, total: *mut usize);

    module_load_data_ex = c"cuModuleLoadDataEx"(
        module: *mut CuModule,
        image: *const c_void,
        option_count: u32,
        options: *mut i32,
        values: *mut *mut c_void,
    );
    module_unload = c"cuModuleUnload"(module: CuModule);
    module_get_function = c"cuModuleGetFunction"(function: *mut CuFunction, module: CuModule, name: *const c_char);
    function_set_attribute = c"cuFuncSetAttribute"(function: CuFunction, attribute: i32, value: i32);
    function_get_attribute = c"cuFuncGetAttribute"(value: *mut i32, attribute: i32, function: CuFunction);
    occupancy_max_active_blocks = c"cuOccupancyMaxActiveBlocksPerMultiprocessor"(
        blocks: *mut i32,
        function: CuFunction,
        block_size: i32,
        shared_bytes: usize,
    );

    launch_kernel = c"cuLaunchKernel"(
        function: CuFunction,
        grid_x: u32,
        grid_y: u32,
        grid_z: u32,
        block_x: u32,
        block_y: u32,
        block_z: u32,
        shared_bytes: u32,
        stream: CuStream,
        params: *mut *mut c_void,
        extra: *mut *mut c_void,
    );
    launch_kernel_ex = c"cuLaunchKernelEx"(
        config: *const LaunchConfig,
        function: CuFunction,
        params: *mut *mut c_void,
        extra: *mut *mut c_void,
    );

    stream_create = c"cuStreamCreate"(stream: *mut CuStream, flags: u32);
    stream_destroy = c"cuStreamDestroy_v2"(stream: CuStream);
    stream_synchronize = c"cuStreamSynchronize"(stream: CuStream);
    stream_wait_event = c"cuStreamWaitEvent"(stream: CuStream, event: CuEvent, flags: u32);
    event_create = c"cuEventCreate"(event: *mut CuEvent, flags: u32);
    event_destroy = c"cuEventDestroy_v2"(event: CuEvent);
    event_record = c"cuEventRecord"(event: CuEvent, stream: CuStream);
    event_synchronize = c"cuEventSynchronize"(event: CuEvent);
    event_elapsed_time = c"cuEventElapsedTime_v2" | c"cuEventElapsedTime"(
        milliseconds: *mut f32,
        start: CuEvent,
        end: CuEvent,
    );

    mem_alloc = c"cuMemAlloc_v2"(address: *mut CuDevicePtr, bytes: usize);
    mem_free = c"cuMemFree_v2"(address: CuDevicePtr);
    mem_host_alloc = c"cuMemHostAlloc"(address: *mut *mut c_void, bytes: usize, flags: u32);
    mem_free_host = c"cuMemFreeHost"(address: *mut c_void);
    memcpy_htod_async = c"cuMemcpyHtoDAsync_v2"(
        to: CuDevicePtr,
        from: *const c_void,
        bytes: usize,
        stream: CuStream,
    );
    memcpy_dtoh_async = c"cuMemcpyDtoHAsync_v2"(to: *mut c_void, from: CuDevicePtr, bytes: usize, stream: CuStream);
    memcpy_dtod_async = c"cuMemcpyDtoDAsync_v2"(to: CuDevicePtr, from: CuDevicePtr, bytes: usize, stream: CuStream);
    memset_d8_async = c"cuMemsetD8Async"(to: CuDevicePtr, value: u8, bytes: usize, stream: CuStream);
    memset_d32_async = c"cuMemsetD32Async"(to: CuDevicePtr, value: u32, words: usize, stream: CuStream);

    graph_create = c"cuGraphCreate"(graph: *mut CuGraph, flags: u32);
    graph_destroy = c"cuGraphDestroy"(graph: CuGraph);
    graph_add_kernel_node = c"cuGraphAddKernelNode_v2"(
        node: *mut CuGraphNode,
        graph: CuGraph,
        dependencies: *const CuGraphNode,
        dependency_count: usize,
        params: *const KernelNodeParams,
    );
    graph_conditional_handle_create = c"cuGraphConditionalHandleCreate"(
        handle: *mut CuConditionalHandle,
        graph: CuGraph,
        context: CuContext,
        default_value: u32,
        flags: u32,
    );
    graph_add_conditional_node = c"cuGraphAddNode"(
        node: *mut CuGraphNode,
        graph: CuGraph,
        dependencies: *const CuGraphNode,
        dependency_count: usize,
        params: *mut ConditionalNodeParams,
    );
    graph_kernel_node_set_attribute = c"cuGraphKernelNodeSetAttribute"(
        node: CuGraphNode,
        attribute: u32,
        value: *const LaunchAttributeValue,
    );
    graph_instantiate = c"cuGraphInstantiateWithFlags"(exec: *mut CuGraphExec, graph: CuGraph, flags: u64);
    graph_exec_destroy = c"cuGraphExecDestroy"(exec: CuGraphExec);
    graph_exec_kernel_node_set_params = c"cuGraphExecKernelNodeSetParams_v2"(
        exec: CuGraphExec,
        node: CuGraphNode,
        params: *const KernelNodeParams,
    );
    graph_node_set_enabled = c"cuGraphNodeSetEnabled"(exec: CuGraphExec, node: CuGraphNode, enabled: u32);
    graph_upload = c"cuGraphUpload"(exec: CuGraphExec, stream: CuStream);
    graph_launch = c"cuGraphLaunch"(exec: CuGraphExec, stream: CuStream);
}

impl Driver {
    /// Opens the driver library and initializes the driver.
    ///
    /// # Errors
    /// [`DriverError::LibraryNotFound`], [`DriverError::DriverTooOld`], or what `cuInit` says; a machine with a driver
    /// but without a device gives [`DriverError::NoDevice`].
    pub fn load() -> Result<Driver, DriverError> {
        let library =
            Library::open(&NAMES).map_err(|reason| DriverError::LibraryNotFound { tried: NAME_TEXTS, reason })?;
        let driver = Driver::resolve(&library);
        let mut have = 0;
        // SAFETY: `have` outlives the call, which may be made before `cuInit`.
        unsafe { driver.driver_version(&mut have)? };
        if have < OLDEST_DRIVER {
            return Err(DriverError::DriverTooOld { have, need: OLDEST_DRIVER });
        }
        // SAFETY: 0 is the one defined value; the call may be repeated.
        match unsafe { driver.init(0) } {
            Ok(()) => Ok(driver),
            Err(DriverError::Call { code: ERROR_NO_DEVICE, .. }) => Err(DriverError::NoDevice { ordinal: 0, count: 0 }),
            Err(other) => Err(other),
        }
    }

    /// The error of a failed call, in the driver's own words where it has some.
    fn describe(&self, function: &'static str, code: CuResult) -> DriverError {
        let text = |look_up: Option<ErrorText>| {
            let mut text = core::ptr::null();
            // SAFETY: `text` outlives the call; a code that the driver does not know leaves it null.
            let found = look_up.map(|look_up| unsafe { look_up(code, &mut text) });
            if found != Some(SUCCESS) || text.is_null() {
                return None;
            }
            // SAFETY: a static C string of the driver.
            Some(unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
        };
        let [name, string] = self.error_texts;
        DriverError::Call {
            function,
            code,
            name: text(name).unwrap_or_else(|| String::from("unknown error")),
            text: text(string).unwrap_or_else(|| String::from("the driver gives no text")),
            detail: String::new(),
        }
    }
}

/// The name to report: the first of the symbols that serve a function.
const fn name_of(symbols: &[&'static CStr]) -> &'static str {
    match symbols[0].to_str() {
        Ok(name) => name,
        Err(_) => panic!("a symbol is ASCII"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where no driver is installed the error says what was looked for; where one is, loading it works.
    #[test]
    fn loading_gives_a_driver_or_a_typed_error() {
        match Driver::load() {
            Ok(driver) => assert!(driver.launch_kernel.is_some()),
            Err(DriverError::LibraryNotFound { tried, reason }) => {
                assert!(tried.contains(&NAME_TEXTS[0]));
                assert!(!reason.is_empty());
            }
            Err(DriverError::NoDevice { count, .. }) => assert_eq!(count, 0),
            Err(DriverError::DriverTooOld { have, need }) => assert!(have < need),
            Err(DriverError::Call { function, .. }) => assert_eq!(function, "cuInit"),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn a_missing_function_is_an_error_of_its_call() {
        // SAFETY: the function is absent, so nothing is called.
        let error = unsafe { Driver::EMPTY.mem_free(0) }.expect_err("absent");
        assert_eq!(error, DriverError::SymbolMissing { name: "cuMemFree_v2" });
    }

    #[test]
    fn a_code_without_text_is_still_reported() {
        unsafe extern "system" fn refuse(_: CuDevicePtr) -> CuResult {
            717
        }
        let driver = Driver { mem_free: Some(refuse), ..Driver::EMPTY };
        // SAFETY: `refuse` has no preconditions.
        let error = unsafe { driver.mem_free(0) }.expect_err("refused");
        let DriverError::Call { function: "cuMemFree_v2", code: 717, .. } = error else { panic!("{error}") };
    }

    #[test]
    fn both_lists_of_names_agree() {
        assert!(NAMES.iter().map(|n| n.to_str().expect("ASCII")).eq(NAME_TEXTS.iter().copied()));
    }
}
