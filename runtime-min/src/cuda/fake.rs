//! A driver for tests, written in Rust: device memory is host memory, kernels are closures, streams run at once.
//!
//! Contract: implements what this crate calls, checks that a context is current where the real driver needs one, and
//! counts allocations and waits. One fake a thread, so tests run side by side. A stream is in order, so running at
//! once is one of the schedules that a real device may choose; races between streams do not show.

use core::ffi::{CStr, c_char, c_void};
use std::cell::RefCell;
use std::collections::BTreeMap;

use super::driver::Driver;
use super::ffi::*;

/// A kernel: reads its arguments by address and computes on memory.
pub type Kernel = fn(&Call);

/// The arguments of a launch.
pub struct Call {
    pub blocks: [u32; 3],
    args: Vec<u64>,
}

impl Call {
    pub fn i64(&self, k: usize) -> i64 {
        self.args[k] as i64
    }

    pub fn handle(&self, k: usize) -> usize {
        self.args[k] as usize
    }

    pub fn i32(&self, k: usize) -> i32 {
        self.args[k] as u32 as i32
    }

    pub fn f32(&self, k: usize) -> f32 {
        f32::from_bits(self.args[k] as u32)
    }

    /// `len` bytes at the address in argument `k`, which must lie in one live allocation.
    pub fn bytes(&self, k: usize, len: usize) -> &'static mut [u8] {
        let address = self.args[k];
        with(|fake| fake.check(address, len));
        // SAFETY: as in `floats`.
        unsafe { core::slice::from_raw_parts_mut(address as *mut u8, len) }
    }

    /// `len` floats at the address in argument `k`, which must lie in one live allocation.
    pub fn floats(&self, k: usize, len: usize) -> &'static mut [f32] {
        let address = self.args[k];
        with(|fake| fake.check(address, 4 * len));
        // SAFETY: checked; a test uses the slice only inside the kernel, and kernels do not overlap operands.
        unsafe { core::slice::from_raw_parts_mut(address as *mut f32, len) }
    }
}

/// What the fake knows and counts.
#[derive(Default)]
pub struct Fake {
    /// Entry name, number of parameters, code.
    pub kernels: Vec<(&'static str, usize, Kernel)>,
    /// Live device and page-locked allocations: address to words.
    memory: BTreeMap<u64, (Vec<u64>, usize)>,
    current: u64,
    pub retained: i32,
    pub allocations: u32,
    pub waits: u32,
    pub launches: u32,
    pub graph_launches: u32,
    pub graphs_made: u32,
    pub node_updates: u32,
    /// Live handles other than memory: streams, events, modules, graphs.
    pub live: i32,
    /// The next wait fails with this code.
    pub fail_wait: Option<CuResult>,
    /// Updates of nodes are refused.
    pub refuse_updates: bool,
    /// Device memory, in bytes.
    pub capacity: usize,
    graphs: Vec<Vec<Recorded>>,
    /// The value of each condition; its handle is its place.
    pub conditions: Vec<u32>,
    /// The CUDA version of the driver, 13.0 if 0.
    pub version: i32,
    next: u64,
}

#[derive(Clone)]
struct Recorded {
    node: RecordedNode,
    after: usize,
    enabled: bool,
}

#[derive(Clone)]
enum RecordedNode {
    Kernel { function: usize, grid: [u32; 3], args: Vec<u64> },
    Conditional { condition: usize, kind: u32, body: Box<CuGraph> },
}

pub const ILLEGAL_ADDRESS: CuResult = 700;
const NOT_FOUND: CuResult = 500;
const INVALID_VALUE: CuResult = 1;
const INVALID_CONTEXT: CuResult = 201;
const UPDATE_FAILURE: CuResult = 910;
const CONTEXT: u64 = 0xc0de;

thread_local! {
    static FAKE: RefCell<Fake> = RefCell::new(Fake { capacity: 1 << 30, ..Fake::default() });
}

/// Looks at or changes this thread's fake.
pub fn with<T>(f: impl FnOnce(&mut Fake) -> T) -> T {
    FAKE.with(|fake| f(&mut fake.borrow_mut()))
}

impl Fake {
    fn check(&self, address: u64, bytes: usize) {
        let found = self.memory.range(..=address).next_back();
        let fits = found.is_some_and(|(&start, &(_, len))| address + bytes as u64 <= start + len as u64);
        assert!(fits || bytes == 0, "{bytes} bytes at {address:#x} are not in one allocation");
    }

    fn allocate(&mut self, bytes: usize) -> u64 {
        self.allocations += 1;
        // Room to align, and poison: fresh device memory holds anything.
        let mut words = vec![0x7fc0_dead_7fc0_deadu64; bytes.div_ceil(8) + 32];
        let address = (words.as_mut_ptr() as u64).next_multiple_of(256);
        self.memory.insert(address, (words, bytes));
        address
    }

    fn handle(&mut self) -> *mut c_void {
        self.live += 1;
        self.next += 1;
        (0x1000 + self.next) as *mut c_void
    }

    /// The arguments behind a parameter list.
    ///
    /// # Safety
    /// The list is as long as the function says, each entry is readable for 8 bytes.
    unsafe fn read(&self, function: usize, params: *mut *mut c_void) -> Vec<u64> {
        // SAFETY: promised by the caller.
        (0..self.kernels[function].1).map(|k| unsafe { params.add(k).read().cast::<u64>().read() }).collect()
    }
}

/// Runs a kernel outside of the borrow, since kernels check their memory with the fake.
fn run(function: usize, blocks: [u32; 3], args: Vec<u64>) {
    let kernel = with(|fake| {
        assert_eq!(fake.current, CONTEXT, "a launch without a current context");
        fake.kernels[function].2
    });
    kernel(&Call { blocks, args });
}

/// Declares a function of the driver whose body sees the fake.
macro_rules! fake_functions {
    ($(fn $name:ident($fake:ident $(, $argument:ident: $type:ty)*) $body:block)*) => { $(
        #[allow(unused_variables, reason = "the fake does not look at every argument")]
        unsafe extern "system" fn $name($($argument: $type),*) -> CuResult {
            with(|$fake: &mut Fake| -> CuResult {
                // SAFETY: this crate's wrappers pass what the driver's reference asks for.
                #[allow(unused_unsafe, reason = "not every function dereferences")]
                unsafe { $body }
            })
        }
    )* };
}

fake_functions! {
    fn device_count(fake, count: *mut i32) { *count = 1; SUCCESS }
    fn device_get(fake, device: *mut CuDevice, ordinal: i32) { *device = ordinal + 7; SUCCESS }
    fn device_name(fake, name: *mut c_char, len: i32, device: CuDevice) {
        let text = c"Fake GPU".to_bytes_with_nul();
        core::ptr::copy_nonoverlapping(text.as_ptr().cast(), name, text.len());
        SUCCESS
    }
    fn device_attribute(fake, value: *mut i32, attribute: i32, device: CuDevice) {
        *value = match attribute {
            DEVICE_COMPUTE_CAPABILITY_MAJOR => 9,
            DEVICE_COMPUTE_CAPABILITY_MINOR => 0,
            DEVICE_MULTIPROCESSOR_COUNT => 132,
            _ => 1 << 16,
        };
        SUCCESS
    }
    fn device_total_mem(fake, bytes: *mut usize, device: CuDevice) { *bytes = fake.capacity; SUCCESS }
    fn driver_version(fake, version: *mut i32) {
        *version = if fake.version == 0 { 13000 } else { fake.version };
        SUCCESS
    }
    fn primary_context_retain(fake, context: *mut CuContext, device: CuDevice) {
        fake.retained += 1;
        *context = CuContext(CONTEXT as *mut c_void);
        SUCCESS
    }
    fn primary_context_release(fake, device: CuDevice) { fake.retained -= 1; SUCCESS }
    fn context_set_current(fake, context: CuContext) { fake.current = context.0 as u64; SUCCESS }
    fn context_get_current(fake, context: *mut CuContext) {
        *context = CuContext(fake.current as *mut c_void);
        SUCCESS
    }
    fn module_load_data_ex(
        fake, module: *mut CuModule, image: *const c_void, count: u32, options: *mut i32, values: *mut *mut c_void
    ) {
        *module = CuModule(fake.handle());
        SUCCESS
    }
    fn module_unload(fake, module: CuModule) { fake.live -= 1; SUCCESS }
    fn module_get_function(fake, function: *mut CuFunction, module: CuModule, name: *const c_char) {
        let name = CStr::from_ptr(name).to_str().expect("ASCII");
        match fake.kernels.iter().position(|kernel| kernel.0 == name) {
            Some(k) => { *function = CuFunction((k + 1) as *mut c_void); SUCCESS }
            None => NOT_FOUND,
        }
    }
    fn function_set_attribute(fake, function: CuFunction, attribute: i32, value: i32) { SUCCESS }
    fn stream_create(fake, stream: *mut CuStream, flags: u32) { *stream = CuStream(fake.handle()); SUCCESS }
    fn stream_destroy(fake, stream: CuStream) { fake.live -= 1; SUCCESS }
    fn stream_synchronize(fake, stream: CuStream) {
        fake.waits += 1;
        fake.fail_wait.unwrap_or(SUCCESS)
    }
    fn stream_wait_event(fake, stream: CuStream, event: CuEvent, flags: u32) { SUCCESS }
    fn event_create(fake, event: *mut CuEvent, flags: u32) { *event = CuEvent(fake.handle()); SUCCESS }
    fn event_destroy(fake, event: CuEvent) { fake.live -= 1; SUCCESS }
    fn event_record(fake, event: CuEvent, stream: CuStream) { SUCCESS }
    fn event_synchronize(fake, event: CuEvent) { fake.waits += 1; fake.fail_wait.unwrap_or(SUCCESS) }
    fn event_elapsed_time(fake, milliseconds: *mut f32, start: CuEvent, end: CuEvent) {
        *milliseconds = 0.25;
        SUCCESS
    }
    fn mem_alloc(fake, address: *mut CuDevicePtr, bytes: usize) {
        if fake.current != CONTEXT { return INVALID_CONTEXT; }
        if bytes == 0 { return INVALID_VALUE; }
        if bytes > fake.capacity { return ERROR_OUT_OF_MEMORY; }
        *address = fake.allocate(bytes);
        SUCCESS
    }
    fn mem_free(fake, address: CuDevicePtr) {
        assert_eq!(fake.current, CONTEXT);
        if fake.memory.remove(&address).is_some() { SUCCESS } else { INVALID_VALUE }
    }
    fn mem_host_alloc(fake, address: *mut *mut c_void, bytes: usize, flags: u32) {
        if fake.current != CONTEXT { return INVALID_CONTEXT; }
        *address = fake.allocate(bytes) as *mut c_void;
        SUCCESS
    }
    fn mem_free_host(fake, address: *mut c_void) {
        if fake.memory.remove(&(address as u64)).is_some() { SUCCESS } else { INVALID_VALUE }
    }
    fn memcpy_htod_async(fake, to: CuDevicePtr, from: *const c_void, bytes: usize, stream: CuStream) {
        fake.check(to, bytes);
        core::ptr::copy_nonoverlapping(from.cast::<u8>(), to as *mut u8, bytes);
        SUCCESS
    }
    fn memcpy_dtoh_async(fake, to: *mut c_void, from: CuDevicePtr, bytes: usize, stream: CuStream) {
        fake.check(from, bytes);
        core::ptr::copy_nonoverlapping(from as *const u8, to.cast::<u8>(), bytes);
        SUCCESS
    }
    fn memcpy_dtod_async(fake, to: CuDevicePtr, from: CuDevicePtr, bytes: usize, stream: CuStream) {
        fake.check(to, bytes);
        fake.check(from, bytes);
        core::ptr::copy_nonoverlapping(from as *const u8, to as *mut u8, bytes);
        SUCCESS
    }
    fn memset_d8_async(fake, to: CuDevicePtr, value: u8, bytes: usize, stream: CuStream) {
        fake.check(to, bytes);
        (to as *mut u8).write_bytes(value, bytes);
        SUCCESS
    }
    fn memset_d32_async(fake, to: CuDevicePtr, value: u32, words: usize, stream: CuStream) {
        fake.check(to, 4 * words);
        for k in 0..words {
            (to as *mut u32).add(k).write(value);
        }
        SUCCESS
    }
    fn graph_create(fake, graph: *mut CuGraph, flags: u32) {
        fake.graphs_made += 1;
        fake.graphs.push(Vec::new());
        fake.live += 1;
        *graph = CuGraph(fake.graphs.len() as *mut c_void);
        SUCCESS
    }
    fn graph_destroy(fake, graph: CuGraph) { fake.live -= 1; SUCCESS }
    fn graph_add_kernel_node(
        fake, node: *mut CuGraphNode, graph: CuGraph, after: *const CuGraphNode, count: usize,
        params: *const KernelNodeParams
    ) {
        let params = &*params;
        let function = params.function.0 as usize - 1;
        let args = fake.read(function, params.params);
        assert!(count <= 1 && !params.grid.contains(&0));
        let after = if count == 0 { 0 } else { (*after).0 as usize };
        let node_of = RecordedNode::Kernel { function, grid: params.grid, args };
        let recorded = Recorded { node: node_of, after, enabled: true };
        let nodes = &mut fake.graphs[graph.0 as usize - 1];
        nodes.push(recorded);
        *node = CuGraphNode(nodes.len() as *mut c_void);
        SUCCESS
    }
    fn graph_conditional_handle_create(
        fake, handle: *mut CuConditionalHandle, graph: CuGraph, context: CuContext, default: u32, flags: u32
    ) {
        *handle = fake.conditions.len() as u64;
        // Undefined until it is set.
        fake.conditions.push(u32::MAX);
        SUCCESS
    }
    fn graph_add_conditional_node(
        fake, node: *mut CuGraphNode, graph: CuGraph, after: *const CuGraphNode, count: usize,
        params: *mut ConditionalNodeParams
    ) {
        let params = &mut *params;
        assert!(count <= 1 && params.node_type == NODE_CONDITIONAL && params.size == 1);
        let after = if count == 0 { 0 } else { (*after).0 as usize };
        fake.graphs.push(Vec::new());
        let mut body = Box::new(CuGraph(fake.graphs.len() as *mut c_void));
        params.bodies = &mut *body;
        let (condition, kind) = (params.handle as usize, params.condition_type);
        let nodes = &mut fake.graphs[graph.0 as usize - 1];
        nodes.push(Recorded { node: RecordedNode::Conditional { condition, kind, body }, after, enabled: true });
        *node = CuGraphNode(nodes.len() as *mut c_void);
        SUCCESS
    }
    fn graph_instantiate(fake, exec: *mut CuGraphExec, graph: CuGraph, flags: u64) {
        fake.live += 1;
        *exec = CuGraphExec(graph.0);
        SUCCESS
    }
    fn graph_exec_destroy(fake, exec: CuGraphExec) { fake.live -= 1; SUCCESS }
    fn graph_exec_kernel_node_set_params(
        fake, exec: CuGraphExec, node: CuGraphNode, params: *const KernelNodeParams
    ) {
        if fake.refuse_updates { return UPDATE_FAILURE; }
        fake.node_updates += 1;
        let params = &*params;
        let args = fake.read(params.function.0 as usize - 1, params.params);
        let recorded = &mut fake.graphs[exec.0 as usize - 1][node.0 as usize - 1];
        let RecordedNode::Kernel { function, .. } = recorded.node else { return INVALID_VALUE };
        recorded.node = RecordedNode::Kernel { function, grid: params.grid, args };
        SUCCESS
    }
    fn graph_node_set_enabled(fake, exec: CuGraphExec, node: CuGraphNode, enabled: u32) {
        fake.graphs[exec.0 as usize - 1][node.0 as usize - 1].enabled = enabled == 1;
        SUCCESS
    }
    fn graph_upload(fake, exec: CuGraphExec, stream: CuStream) { SUCCESS }
}

unsafe extern "system" fn launch_kernel(
    function: CuFunction,
    x: u32,
    y: u32,
    z: u32,
    _: u32,
    _: u32,
    _: u32,
    _: u32,
    _: CuStream,
    params: *mut *mut c_void,
    _: *mut *mut c_void,
) -> CuResult {
    let function = function.0 as usize - 1;
    let args = with(|fake| {
        fake.launches += 1;
        // SAFETY: the wrappers pass a list of 8-byte cells, as long as the kernel's parameters in the tables.
        unsafe { fake.read(function, params) }
    });
    run(function, [x, y, z], args);
    SUCCESS
}

unsafe extern "system" fn graph_launch(exec: CuGraphExec, _: CuStream) -> CuResult {
    with(|fake| fake.graph_launches += 1);
    run_graph(exec.0 as usize);
    SUCCESS
}

fn run_graph(graph: usize) {
    let nodes = with(|fake| fake.graphs[graph - 1].clone());
    for (k, recorded) in nodes.into_iter().enumerate() {
        assert_eq!(recorded.after, k, "the nodes are a chain");
        match recorded.node {
            RecordedNode::Kernel { function, grid, args } if recorded.enabled => run(function, grid, args),
            RecordedNode::Kernel { .. } => {}
            RecordedNode::Conditional { condition, kind, body } => {
                let asked = || match with(|fake| fake.conditions[condition]) {
                    u32::MAX => panic!("a condition that no kernel has set"),
                    value => value != 0,
                };
                while asked() {
                    run_graph(body.0 as usize);
                    if kind == CONDITION_IF {
                        break;
                    }
                }
            }
        }
    }
}

unsafe extern "system" fn error_name(_: CuResult, text: *mut *const c_char) -> CuResult {
    // SAFETY: the caller passes a place for one pointer.
    unsafe { *text = c"CUDA_ERROR_FAKE".as_ptr() };
    SUCCESS
}

/// The fake as a driver.
pub fn driver() -> Driver {
    Driver {
        error_texts: [Some(error_name), None],
        device_count: Some(device_count),
        device_get: Some(device_get),
        device_name: Some(device_name),
        device_attribute: Some(device_attribute),
        device_total_mem: Some(device_total_mem),
        driver_version: Some(driver_version),
        primary_context_retain: Some(primary_context_retain),
        primary_context_release: Some(primary_context_release),
        context_set_current: Some(context_set_current),
        context_get_current: Some(context_get_current),
        module_load_data_ex: Some(module_load_data_ex),
        module_unload: Some(module_unload),
        module_get_function: Some(module_get_function),
        function_set_attribute: Some(function_set_attribute),
        launch_kernel: Some(launch_kernel),
        stream_create: Some(stream_create),
        stream_destroy: Some(stream_destroy),
        stream_synchronize: Some(stream_synchronize),
        stream_wait_event: Some(stream_wait_event),
        event_create: Some(event_create),
        event_destroy: Some(event_destroy),
        event_record: Some(event_record),
        event_synchronize: Some(event_synchronize),
        event_elapsed_time: Some(event_elapsed_time),
        mem_alloc: Some(mem_alloc),
        mem_free: Some(mem_free),
        mem_host_alloc: Some(mem_host_alloc),
        mem_free_host: Some(mem_free_host),
        memcpy_htod_async: Some(memcpy_htod_async),
        memcpy_dtoh_async: Some(memcpy_dtoh_async),
        memcpy_dtod_async: Some(memcpy_dtod_async),
        memset_d8_async: Some(memset_d8_async),
        memset_d32_async: Some(memset_d32_async),
        graph_create: Some(graph_create),
        graph_destroy: Some(graph_destroy),
        graph_add_kernel_node: Some(graph_add_kernel_node),
        graph_conditional_handle_create: Some(graph_conditional_handle_create),
        graph_add_conditional_node: Some(graph_add_conditional_node),
        graph_instantiate: Some(graph_instantiate),
        graph_exec_destroy: Some(graph_exec_destroy),
        graph_exec_kernel_node_set_params: Some(graph_exec_kernel_node_set_params),
        graph_node_set_enabled: Some(graph_node_set_enabled),
        graph_upload: Some(graph_upload),
        graph_launch: Some(graph_launch),
        ..Driver::EMPTY
    }
}

impl Fake {
    /// Bytes in live allocations.
    pub fn live_bytes(&self) -> usize {
        self.memory.values().map(|(_, bytes)| bytes).sum()
    }

    /// The context that is current on this thread.
    pub fn current(&self) -> u64 {
        self.current
    }

    /// Makes a foreign context current.
    pub fn set_current(&mut self, context: u64) {
        self.current = context;
    }
}
