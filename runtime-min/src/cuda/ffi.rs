//! Types of the CUDA driver API: handles, constants and the structs that its calls read.
//!
//! Contract: names, layouts and values are those of the public "CUDA Driver API" reference (Data types used by CUDA
//! driver), for 64-bit systems. No behaviour lives here.

use core::ffi::c_void;

/// The result of a call; 0 is success.
pub type CuResult = i32;
/// A device's number inside the driver.
pub type CuDevice = i32;
/// The value that decides a conditional node, by the driver's number for it.
pub type CuConditionalHandle = u64;
/// An address in device memory.
pub type CuDevicePtr = u64;

macro_rules! handles {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => { $(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(transparent)]
        pub struct $name(pub *mut c_void);

        impl $name {
            /// The handle of nothing.
            pub const NULL: $name = $name(core::ptr::null_mut());
        }

        // SAFETY: a handle is a token that only the driver dereferences; the driver accepts it on any thread on
        // which the handle's context is current. Rules about simultaneous use are kept by the owning wrappers.
        unsafe impl Send for $name {}
        // SAFETY: as above.
        unsafe impl Sync for $name {}
    )* };
}

handles! {
    /// `CUcontext`
    CuContext,
    /// `CUmodule`
    CuModule,
    /// `CUfunction`
    CuFunction,
    /// `CUstream`
    CuStream,
    /// `CUevent`
    CuEvent,
    /// `CUgraph`
    CuGraph,
    /// `CUgraphNode`
    CuGraphNode,
    /// `CUgraphExec`
    CuGraphExec,
}

pub const SUCCESS: CuResult = 0;
pub const ERROR_OUT_OF_MEMORY: CuResult = 2;
pub const ERROR_NO_DEVICE: CuResult = 100;

// CUdevice_attribute
pub const DEVICE_MULTIPROCESSOR_COUNT: i32 = 16;
pub const DEVICE_L2_CACHE_SIZE: i32 = 38;
pub const DEVICE_COMPUTE_CAPABILITY_MAJOR: i32 = 75;
pub const DEVICE_COMPUTE_CAPABILITY_MINOR: i32 = 76;
pub const DEVICE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN: i32 = 97;

// CUfunction_attribute
pub const FUNCTION_MAX_THREADS_PER_BLOCK: i32 = 0;
pub const FUNCTION_SHARED_SIZE_BYTES: i32 = 1;
pub const FUNCTION_LOCAL_SIZE_BYTES: i32 = 3;
pub const FUNCTION_NUM_REGS: i32 = 4;
pub const FUNCTION_MAX_DYNAMIC_SHARED_SIZE_BYTES: i32 = 8;

// CUjit_option
pub const JIT_ERROR_LOG_BUFFER: i32 = 5;
pub const JIT_ERROR_LOG_BUFFER_SIZE_BYTES: i32 = 6;

/// `CU_STREAM_NON_BLOCKING`: no implicit order with the legacy default stream.
pub const STREAM_NON_BLOCKING: u32 = 1;
/// `CU_EVENT_DEFAULT`
pub const EVENT_DEFAULT: u32 = 0;
/// `CU_EVENT_DISABLE_TIMING`
pub const EVENT_DISABLE_TIMING: u32 = 2;
/// `CU_MEMHOSTALLOC_PORTABLE`: page-locked for every context.
pub const HOST_ALLOC_PORTABLE: u32 = 1;

/// `CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION`
pub const LAUNCH_CLUSTER_DIMENSION: u32 = 4;

/// `CUDA_KERNEL_NODE_PARAMS_v2`
#[derive(Clone, Copy)]
#[repr(C)]
pub struct KernelNodeParams {
    pub function: CuFunction,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub shared_bytes: u32,
    pub params: *mut *mut c_void,
    pub extra: *mut *mut c_void,
    /// `CUkernel`, read only if `function` is null.
    pub kernel: *mut c_void,
    pub context: CuContext,
}

/// `CU_GRAPH_NODE_TYPE_CONDITIONAL`
pub const NODE_CONDITIONAL: u32 = 13;
/// `CU_GRAPH_COND_TYPE_IF`
pub const CONDITION_IF: u32 = 0;
/// `CU_GRAPH_COND_TYPE_WHILE`
pub const CONDITION_WHILE: u32 = 1;

/// `CUgraphNodeParams` with its union's `CUDA_CONDITIONAL_NODE_PARAMS`; what is not used is zero.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct ConditionalNodeParams {
    /// The kind of node.
    pub node_type: u32,
    pub reserved0: [u32; 3],
    pub handle: CuConditionalHandle,
    /// The kind of condition.
    pub condition_type: u32,
    /// The number of bodies.
    pub size: u32,
    /// Written by the call: the bodies, in memory of the driver's.
    pub bodies: *mut CuGraph,
    pub context: CuContext,
    pub rest: [u64; 25],
    pub reserved2: u64,
}

/// `CUlaunchAttribute`: `CUlaunchAttributeID`, four bytes of padding, and a 64-byte union that starts at offset 8.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct LaunchAttribute {
    pub id: u32,
    pub pad: u32,
    pub value: LaunchAttributeValue,
}

/// `CUlaunchAttributeValue`: 64 bytes, aligned as its pointers.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub struct LaunchAttributeValue {
    pub words: [u32; 16],
}

/// `CUlaunchConfig`
#[repr(C)]
pub struct LaunchConfig {
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub shared_bytes: u32,
    pub stream: CuStream,
    pub attributes: *const LaunchAttribute,
    pub attribute_count: u32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::{align_of, offset_of, size_of};

    /// The numbers were printed by a C program from NVIDIA's own header (CUDA 13.0, x86-64).
    #[test]
    fn layouts_are_those_of_the_driver() {
        assert_eq!(size_of::<CuFunction>(), 8);
        assert_eq!(size_of::<KernelNodeParams>(), 72);
        assert_eq!(offset_of!(KernelNodeParams, grid), 8);
        assert_eq!(offset_of!(KernelNodeParams, block), 20);
        assert_eq!(offset_of!(KernelNodeParams, shared_bytes), 32);
        assert_eq!(offset_of!(KernelNodeParams, params), 40);
        assert_eq!(offset_of!(KernelNodeParams, extra), 48);
        assert_eq!(offset_of!(KernelNodeParams, kernel), 56);
        assert_eq!(offset_of!(KernelNodeParams, context), 64);
        assert_eq!(size_of::<ConditionalNodeParams>(), 256);
        assert_eq!(offset_of!(ConditionalNodeParams, handle), 16);
        assert_eq!(offset_of!(ConditionalNodeParams, condition_type), 24);
        assert_eq!(offset_of!(ConditionalNodeParams, size), 28);
        assert_eq!(offset_of!(ConditionalNodeParams, bodies), 32);
        assert_eq!(offset_of!(ConditionalNodeParams, context), 40);
        assert_eq!(offset_of!(ConditionalNodeParams, reserved2), 248);
        assert_eq!(size_of::<LaunchConfig>(), 56);
        assert_eq!(offset_of!(LaunchConfig, stream), 32);
        assert_eq!(offset_of!(LaunchConfig, attributes), 40);
        assert_eq!(offset_of!(LaunchConfig, attribute_count), 48);
        assert_eq!(size_of::<LaunchAttribute>(), 72);
        assert_eq!(align_of::<LaunchAttribute>(), 8);
        assert_eq!(offset_of!(LaunchAttribute, value), 8);
    }
}
