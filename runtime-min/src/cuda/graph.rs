//! A CUDA graph of kernel launches and of branches and loops around them, built node by node.
//!
//! Contract: nodes form the order that their dependencies state; the shape of the graph is fixed once it is
//! instantiated, the parameters of its kernels are not. The driver wants calls on one graph serialized: all of them
//! take `&mut self`.

use std::sync::Arc;

use super::device::{Device, same_device};
use super::error::DriverError;
use super::ffi::*;
use super::module::{Function, KernelArgs, LaunchShape, cluster_value};
use super::stream::Stream;

/// A graph under construction.
#[derive(Debug)]
pub struct Graph {
    device: Arc<Device>,
    handle: CuGraph,
    owner: Owner,
}

/// Who destroys a graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    /// Its value here.
    Us,
    /// The conditional node whose body it is.
    Node,
}

/// What decides a conditional node: kernels of the graph set it, by its number, before the node and in its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Condition(pub CuConditionalHandle);

/// How often a conditional node runs its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conditional {
    /// Once, if the condition is not 0.
    If,
    /// Again and again, as long as it is not.
    While,
}

/// A node of a graph; means nothing to another graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Node(CuGraphNode);

impl Graph {
    /// An empty graph.
    pub fn new(device: &Arc<Device>) -> Result<Graph, DriverError> {
        let _current = device.make_current()?;
        let mut handle = CuGraph::NULL;
        // SAFETY: `handle` outlives the call; 0 is the one defined flag value. Destroyed once, in `drop`.
        unsafe { device.driver.graph_create(&mut handle, 0)? };
        Ok(Graph { device: device.clone(), handle, owner: Owner::Us })
    }

    /// Adds a kernel that starts when all of `after` are done. The arguments are copied.
    ///
    /// # Safety
    /// At every launch of the graph what [`Function::launch`] asks must hold of these arguments (or those that
    /// replace them); `function` must live as long as the graph and what is made from it; `after` are this graph's.
    pub unsafe fn kernel(
        &mut self,
        after: &[Node],
        function: &Function,
        shape: &LaunchShape,
        args: &mut KernelArgs,
    ) -> Result<Node, DriverError> {
        same_device(&self.device, function.device(), "kernel")?;
        let _current = self.device.make_current()?;
        let params = node_params(function, shape, args);
        let mut node = CuGraphNode::NULL;
        // SAFETY: `Node` is a transparent wrapper of the handle; all arguments outlive the call, which copies them.
        unsafe {
            self.device.driver.graph_add_kernel_node(
                &mut node,
                self.handle,
                after.as_ptr().cast(),
                after.len(),
                &params,
            )?;
        }
        if let Some(cluster) = shape.cluster {
            let value = cluster_value(cluster);
            // SAFETY: the node was just made; the value is that of this attribute and outlives the call.
            unsafe {
                self.device.driver.graph_kernel_node_set_attribute(node, LAUNCH_CLUSTER_DIMENSION, &value)?;
            }
        }
        Ok(Node(node))
    }

    /// A condition for a node of this graph. Its value is undefined until a kernel has set it.
    pub fn condition(&mut self) -> Result<Condition, DriverError> {
        let _current = self.device.make_current()?;
        let mut handle = 0;
        let context = self.device.context();
        // SAFETY: the graph lives, `handle` outlives the call; no flag is set, so the default value means nothing.
        unsafe { self.device.driver.graph_conditional_handle_create(&mut handle, self.handle, context, 0, 0)? };
        Ok(Condition(handle))
    }

    /// Adds a node that runs its body, a graph to be filled, as the condition says; each condition decides one node. The
    /// body must not outlive this graph.
    pub fn conditional(
        &mut self,
        after: &[Node],
        condition: Condition,
        kind: Conditional,
    ) -> Result<(Node, Graph), DriverError> {
        let _current = self.device.make_current()?;
        let condition_type = match kind {
            Conditional::If => CONDITION_IF,
            Conditional::While => CONDITION_WHILE,
        };
        let mut params = ConditionalNodeParams {
            node_type: NODE_CONDITIONAL,
            reserved0: [0; 3],
            handle: condition.0,
            condition_type,
            size: 1,
            bodies: core::ptr::null_mut(),
            context: self.device.context(),
            rest: [0; 25],
            reserved2: 0,
        };
        let mut node = CuGraphNode::NULL;
        // SAFETY: `Node` is a transparent wrapper of the handle; all arguments outlive the call. It leaves in `bodies`
        // the address of as many graphs as `size` says, which is one.
        let body = unsafe {
            self.device.driver.graph_add_conditional_node(
                &mut node,
                self.handle,
                after.as_ptr().cast(),
                after.len(),
                &mut params,
            )?;
            *params.bodies
        };
        Ok((Node(node), Graph { device: self.device.clone(), handle: body, owner: Owner::Node }))
    }

    /// Makes the graph launchable.
    pub fn instantiate(self) -> Result<GraphExec, DriverError> {
        let _current = self.device.make_current()?;
        let mut handle = CuGraphExec::NULL;
        // SAFETY: the graph lives, `handle` outlives the call. Destroyed once, in `drop`.
        unsafe { self.device.driver.graph_instantiate(&mut handle, self.handle, 0)? };
        drop(_current);
        Ok(GraphExec { handle, graph: self })
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        if self.owner == Owner::Us
            && let Ok(_current) = self.device.make_current()
        {
            // SAFETY: made in `new`, destroyed once.
            let _ = unsafe { self.device.driver.graph_destroy(self.handle) };
        }
    }
}

/// A launchable graph.
#[derive(Debug)]
pub struct GraphExec {
    handle: CuGraphExec,
    /// Its nodes name what is updated.
    graph: Graph,
}

impl GraphExec {
    /// Replaces shape and arguments of a kernel for later launches. The cluster shape stays.
    ///
    /// # Errors
    /// The driver may refuse a change; then the graph is as before, and must be built anew to make it.
    ///
    /// # Safety
    /// As for [`Graph::kernel`], with the function that the node was made with.
    pub unsafe fn set_kernel(
        &mut self,
        node: Node,
        function: &Function,
        shape: &LaunchShape,
        args: &mut KernelArgs,
    ) -> Result<(), DriverError> {
        let device = &self.graph.device;
        let _current = device.make_current()?;
        let params = node_params(function, shape, args);
        // SAFETY: the node is of the graph that this was made from; the parameters outlive the call.
        unsafe { device.driver.graph_exec_kernel_node_set_params(self.handle, node.0, &params) }
    }

    /// Makes later launches skip a kernel, or run it again.
    pub fn set_state(&mut self, node: Node, state: NodeState) -> Result<(), DriverError> {
        let device = &self.graph.device;
        let _current = device.make_current()?;
        let enabled = match state {
            NodeState::Run => 1,
            NodeState::Skip => 0,
        };
        // SAFETY: the node is of the graph that this was made from.
        unsafe { device.driver.graph_node_set_enabled(self.handle, node.0, enabled) }
    }

    /// Moves the graph's description to the device, so that the first launch does not have to.
    pub fn upload(&mut self, stream: &Stream) -> Result<(), DriverError> {
        let device = &self.graph.device;
        same_device(device, stream.device(), "upload")?;
        let _current = device.make_current()?;
        // SAFETY: both live.
        unsafe { device.driver.graph_upload(self.handle, stream.handle()) }
    }

    /// Enqueues the graph.
    ///
    /// # Safety
    /// What was promised for each kernel holds now and until the launch is done.
    pub unsafe fn launch(&mut self, stream: &Stream) -> Result<(), DriverError> {
        let device = &self.graph.device;
        same_device(device, stream.device(), "launch")?;
        let _current = device.make_current()?;
        // SAFETY: promised by the caller.
        unsafe { device.driver.graph_launch(self.handle, stream.handle()) }
    }
}

impl Drop for GraphExec {
    fn drop(&mut self) {
        let device = &self.graph.device;
        if let Ok(_current) = device.make_current() {
            // SAFETY: made in `instantiate`, destroyed once; a launch under way ends by itself.
            let _ = unsafe { device.driver.graph_exec_destroy(self.handle) };
        }
    }
}

/// Whether a launch of a graph runs a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeState {
    Run,
    Skip,
}

fn node_params(function: &Function, shape: &LaunchShape, args: &mut KernelArgs) -> KernelNodeParams {
    KernelNodeParams {
        function: function.handle,
        grid: shape.grid,
        block: shape.block,
        shared_bytes: shape.shared_bytes,
        params: args.pointers(),
        extra: core::ptr::null_mut(),
        kernel: core::ptr::null_mut(),
        context: CuContext::NULL,
    }
}
