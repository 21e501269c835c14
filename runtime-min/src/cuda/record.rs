//! The main segment of a plan as a CUDA graph, one kernel node a launch.
//!
//! Contract: the nodes form a chain in the order of the steps, which is the order that the arena's layout relies on. A
//! record stands for one profile; [`Record::update`] brings it to other shapes of that profile. Launches that the
//! shapes leave empty are skipped nodes.
//!
//! Not here: plans with branches or loops, or with steps that wait for a count. They run on the stream, see [`Record::is_possible`].

use super::engine::{Engine, during};
use super::error::DriverError;
use super::graph::{Graph, GraphExec, Node, NodeState};
use super::launch::{self, Memory};
use super::module::{KernelArgs, LaunchShape};
use super::stream::Stream;
use crate::error::Error;
use crate::shapes::Shapes;
use crate::table::{Action, Launch, PlanTables, Step};

/// The graph of one profile.
pub struct Record {
    exec: GraphExec,
    /// One node a launch of the main segment.
    nodes: Vec<Placed>,
}

struct Placed {
    node: Node,
    state: NodeState,
}

impl Record {
    /// Whether the main segment is launches alone, at least one, and behind them counts at most.
    pub fn is_possible(tables: &PlanTables<'_>) -> bool {
        let steps = tables.segments[PlanTables::MAIN].steps;
        let launches = steps.len() - counts_at_end(tables).len();
        launches > 0 && steps[..launches].iter().all(|step| matches!(step.action, Action::Launch(_)))
    }

    /// Records the main segment for the shapes at hand.
    ///
    /// # Errors
    /// The driver's, with the step's label.
    pub fn new<'a>(
        engine: &Engine<'a>,
        shapes: &Shapes<'a>,
        memory: &Memory<'a>,
        stream: &Stream,
        args: &mut KernelArgs,
    ) -> Result<Record, Error> {
        let mut graph = Graph::new(&engine.device).map_err(during("making a graph"))?;
        let mut nodes: Vec<Placed> = Vec::new();
        for (step, launch) in launches(engine.tables) {
            let (shape, state) = place(step, launch, shapes, memory, args).map_err(during(step.label))?;
            let last = nodes.last().map(|placed| placed.node);
            let function = &engine.functions[launch.kernel as usize];
            // SAFETY: the tables were checked by the compiler: the parameters are the kernel's, and all tensors lie in
            // the memory that `memory` names. The session keeps engine and memory while the graph lives.
            let node = unsafe { graph.kernel(last.as_slice(), function, &shape, args) };
            nodes.push(Placed { node: node.map_err(during(step.label))?, state });
        }
        let mut exec = graph.instantiate().map_err(during("instantiating the graph"))?;
        for placed in nodes.iter().filter(|placed| placed.state == NodeState::Skip) {
            exec.set_state(placed.node, placed.state).map_err(during("instantiating the graph"))?;
        }
        exec.upload(stream).map_err(during("uploading the graph"))?;
        Ok(Record { exec, nodes })
    }

    /// Brings the nodes whose launch depends on the shapes up to date. `false` if the driver refuses a change: then
    /// the record is of no further use.
    ///
    /// # Errors
    /// [`DriverError::Extent`] with the step's label.
    pub fn update<'a>(
        &mut self,
        engine: &Engine<'a>,
        shapes: &Shapes<'a>,
        memory: &Memory<'a>,
        args: &mut KernelArgs,
    ) -> Result<bool, Error> {
        for ((step, launch), placed) in launches(engine.tables).zip(&mut self.nodes) {
            if launch::is_fixed(launch) {
                continue;
            }
            let (shape, state) = place(step, launch, shapes, memory, args).map_err(during(step.label))?;
            let function = &engine.functions[launch.kernel as usize];
            // SAFETY: as in `new`; the node was made with this function.
            let changed = unsafe { self.exec.set_kernel(placed.node, function, &shape, args) };
            let changed = changed.and_then(|()| match placed.state == state {
                true => Ok(()),
                false => self.exec.set_state(placed.node, state),
            });
            if changed.is_err() {
                return Ok(false);
            }
            placed.state = state;
        }
        Ok(true)
    }

    /// Enqueues the segment.
    ///
    /// # Safety
    /// The memory and the engine that the record was made for live until the stream is done.
    pub unsafe fn launch(&mut self, stream: &Stream) -> Result<(), DriverError> {
        // SAFETY: promised by the caller.
        unsafe { self.exec.launch(stream) }
    }
}

/// The steps at the end of the main segment that read counts: they follow a launch of the graph.
pub fn counts_at_end<'a>(tables: &PlanTables<'a>) -> &'a [Step<'a>] {
    let steps = tables.segments[PlanTables::MAIN].steps;
    let counts = steps.iter().rev().take_while(|step| matches!(step.action, Action::Count { .. })).count();
    &steps[steps.len() - counts..]
}

/// The launches of the main segment, in order.
fn launches<'a>(tables: &'a PlanTables<'a>) -> impl Iterator<Item = (&'a Step<'a>, &'a Launch<'a>)> {
    tables.segments[PlanTables::MAIN].steps.iter().filter_map(|step| match &step.action {
        Action::Launch(launch) => Some((step, launch)),
        Action::If { .. } | Action::Loop { .. } | Action::Count { .. } | Action::Cpu(_) => None,
    })
}

/// The shape of a launch as a node: an empty one has a grid of one block, and is skipped.
fn place(
    step: &Step<'_>,
    launch: &Launch<'_>,
    shapes: &Shapes<'_>,
    memory: &Memory<'_>,
    args: &mut KernelArgs,
) -> Result<(LaunchShape, NodeState), DriverError> {
    let shape = launch::prepare(step, launch, shapes, memory, args)?;
    let empty = LaunchShape { grid: [1; 3], block: launch.block, shared_bytes: launch.shared, cluster: None };
    Ok(shape.map_or((empty, NodeState::Skip), |shape| (shape, NodeState::Run)))
}
