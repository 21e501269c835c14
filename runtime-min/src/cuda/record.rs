//! The main segment of a plan as a CUDA graph: a kernel node a launch, and a conditional node a branch or loop.
//!
//! Contract: the nodes form a chain in the order of the steps, which is the order that the arena's layout relies on; the
//! segments of branches and loops are the bodies of conditional nodes, chains like it. A record stands for one profile.
//! [`Record::update`] brings it to other shapes of that profile, where it has no conditional nodes: launches that the shapes
//! leave empty are then skipped nodes. With conditional nodes it is built anew, and they are left out.
//!
//! Not here: steps that wait for a count, and drivers that know no conditional nodes. Such plans run on the stream, see
//! [`Record::is_possible`].

use super::engine::{Engine, during};
use super::error::DriverError;
use super::ffi::CuConditionalHandle;
use super::graph::{Condition, Conditional, Graph, GraphExec, Node, NodeState};
use super::launch::{self, Memory};
use super::module::{KernelArgs, LaunchShape};
use super::stream::Stream;
use crate::error::Error;
use crate::shapes::Shapes;
use crate::table::{Action, Launch, PlanTables, Step};

/// The graph of one profile.
pub struct Record {
    exec: GraphExec,
    /// What an update changes.
    nodes: Nodes,
}

enum Nodes {
    /// One node a launch of the main segment.
    Chain(Vec<Placed>),
    /// There are conditional nodes.
    Nested,
}

struct Placed {
    node: Node,
    state: NodeState,
}

impl Record {
    /// Whether the main segment runs as one graph at these shapes: it launches something, all that waits for the host are
    /// counts at its end, its branches and loops can be decided on the device, and whichever is taken takes the shapes.
    pub fn is_possible(engine: &Engine<'_>, shapes: &Shapes<'_>) -> bool {
        let steps = recorded(engine.tables);
        !steps.is_empty() && steps.iter().all(|step| is_recordable(engine, shapes, step))
    }

    /// Records the main segment for the shapes at hand.
    ///
    /// # Errors
    /// The driver's, with the step's label.
    pub fn new<'a>(
        engine: &Engine<'a>,
        shapes: &Shapes<'a>,
        memory: &Memory<'_>,
        stream: &Stream,
        args: &mut KernelArgs,
    ) -> Result<Record, Error> {
        let mut graph = Graph::new(&engine.device).map_err(during("making a graph"))?;
        let mut recorder = Recorder { engine, shapes, memory, args };
        let steps = recorded(engine.tables);
        let is_chain = steps.iter().all(|step| matches!(step.action, Action::Launch(_)));
        let nodes = if is_chain {
            Nodes::Chain(recorder.chain(&mut graph, steps)?)
        } else {
            recorder.body(&mut graph, None, steps)?;
            Nodes::Nested
        };
        let mut exec = graph.instantiate().map_err(during("instantiating the graph"))?;
        if let Nodes::Chain(nodes) = &nodes {
            for placed in nodes.iter().filter(|placed| placed.state == NodeState::Skip) {
                exec.set_state(placed.node, placed.state).map_err(during("instantiating the graph"))?;
            }
        }
        exec.upload(stream).map_err(during("uploading the graph"))?;
        Ok(Record { exec, nodes })
    }

    /// Brings the nodes whose launch depends on the shapes up to date. `false` if that cannot be, or the driver refuses a
    /// change: then the record is of no further use.
    ///
    /// # Errors
    /// [`DriverError::Extent`] with the step's label.
    pub fn update<'a>(
        &mut self,
        engine: &Engine<'a>,
        shapes: &Shapes<'a>,
        memory: &Memory<'_>,
        args: &mut KernelArgs,
    ) -> Result<bool, Error> {
        let Nodes::Chain(nodes) = &mut self.nodes else { return Ok(false) };
        for ((step, launch), placed) in launches(recorded(engine.tables)).zip(nodes) {
            if launch::is_fixed(engine.tables, step, launch) {
                continue;
            }
            let (shape, state) = place(step, launch, shapes, memory, args).map_err(during(step.label))?;
            let function = engine.function(launch).map_err(during(step.label))?;
            // SAFETY: as in `Recorder::add`; the node was made with this function.
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

/// What is added to a graph, and with what.
struct Recorder<'r, 'a> {
    engine: &'r Engine<'a>,
    shapes: &'r Shapes<'a>,
    memory: &'r Memory<'a>,
    args: &'r mut KernelArgs,
}

impl<'a> Recorder<'_, 'a> {
    /// Adds launches, the empty ones too.
    fn chain(&mut self, graph: &mut Graph, steps: &[Step<'a>]) -> Result<Vec<Placed>, Error> {
        let mut nodes: Vec<Placed> = Vec::new();
        for (step, launch) in launches(steps) {
            let (shape, state) =
                place(step, launch, self.shapes, self.memory, self.args).map_err(during(step.label))?;
            let last = nodes.last().map(|placed| placed.node);
            let node = self.add(graph, last, launch, &shape).map_err(during(step.label))?;
            nodes.push(Placed { node, state });
        }
        Ok(nodes)
    }

    /// Adds steps behind `last`; returns the last node.
    fn body(&mut self, graph: &mut Graph, last: Option<Node>, steps: &[Step<'a>]) -> Result<Option<Node>, Error> {
        let mut last = last;
        for step in steps {
            let added = match &step.action {
                Action::Launch(launch) => self.launch(graph, last, step, launch, &[]).map_err(during(step.label)),
                Action::If { then_segment, else_segment, decide } => {
                    self.branch(graph, last, step, decide, [*then_segment, *else_segment])
                }
                Action::Loop { body, begin, next, .. } => self.rounds(graph, last, step, (begin, next), *body),
                Action::Count { .. } | Action::Cpu(_) => Err(during(step.label)(DriverError::NotALaunch)),
            };
            last = added?;
        }
        Ok(last)
    }

    /// Two nodes, one of which runs its body.
    fn branch(
        &mut self,
        graph: &mut Graph,
        last: Option<Node>,
        step: &Step<'a>,
        decide: &[Launch<'a>],
        segments: [u32; 2],
    ) -> Result<Option<Node>, Error> {
        let failed = || during(step.label);
        let conditions = [graph.condition().map_err(failed())?, graph.condition().map_err(failed())?];
        let handles = conditions.map(|Condition(handle)| handle);
        let mut last = self.all(graph, last, step, decide, &handles)?;
        for (condition, segment) in conditions.into_iter().zip(segments) {
            let (node, mut body) = graph.conditional(last.as_slice(), condition, Conditional::If).map_err(failed())?;
            self.body(&mut body, None, self.engine.tables.segments[segment as usize].steps)?;
            last = Some(node);
        }
        Ok(last)
    }

    /// A node that runs its body for each round.
    fn rounds(
        &mut self,
        graph: &mut Graph,
        last: Option<Node>,
        step: &Step<'a>,
        (begin, next): (&[Launch<'a>], &[Launch<'a>]),
        segment: u32,
    ) -> Result<Option<Node>, Error> {
        let condition = graph.condition().map_err(during(step.label))?;
        let last = self.all(graph, last, step, begin, &[condition.0])?;
        let added = graph.conditional(last.as_slice(), condition, Conditional::While);
        let (node, mut body) = added.map_err(during(step.label))?;
        let end = self.body(&mut body, None, self.engine.tables.segments[segment as usize].steps)?;
        self.all(&mut body, end, step, next, &[condition.0])?;
        Ok(Some(node))
    }

    /// Adds the launches that decide a step.
    fn all(
        &mut self,
        graph: &mut Graph,
        last: Option<Node>,
        step: &Step<'a>,
        launches: &[Launch<'a>],
        handles: &[CuConditionalHandle],
    ) -> Result<Option<Node>, Error> {
        let add = |last, launch| self.launch(graph, last, step, launch, handles);
        launches.iter().try_fold(last, add).map_err(during(step.label))
    }

    /// Adds a launch that is not empty; returns the last node.
    fn launch(
        &mut self,
        graph: &mut Graph,
        last: Option<Node>,
        step: &Step<'a>,
        launch: &Launch<'a>,
        handles: &[CuConditionalHandle],
    ) -> Result<Option<Node>, DriverError> {
        match launch::prepare(step, launch, self.shapes, self.memory, handles, self.args)? {
            Some(shape) => self.add(graph, last, launch, &shape).map(Some),
            None => Ok(last),
        }
    }

    /// Adds the launch whose arguments are at hand.
    fn add(
        &mut self,
        graph: &mut Graph,
        last: Option<Node>,
        launch: &Launch<'a>,
        shape: &LaunchShape,
    ) -> Result<Node, DriverError> {
        let function = self.engine.function(launch)?;
        // SAFETY: the tables were checked by the compiler: the parameters are the kernel's, and all tensors lie in the
        // memory that `memory` names. The session keeps engine and memory while the graph lives.
        unsafe { graph.kernel(last.as_slice(), function, shape, self.args) }
    }
}

/// The steps at the end of the main segment that read counts: they follow a launch of the graph.
pub fn counts_at_end<'a>(tables: &PlanTables<'a>) -> &'a [Step<'a>] {
    let steps = tables.segments[PlanTables::MAIN].steps;
    &steps[recorded(tables).len()..]
}

/// The steps of the main segment that a graph holds.
fn recorded<'a>(tables: &PlanTables<'a>) -> &'a [Step<'a>] {
    let steps = tables.segments[PlanTables::MAIN].steps;
    let counts = steps.iter().rev().take_while(|step| matches!(step.action, Action::Count { .. })).count();
    &steps[..steps.len() - counts]
}

fn is_recordable(engine: &Engine<'_>, shapes: &Shapes<'_>, step: &Step<'_>) -> bool {
    let takes_shapes = |segment: u32| {
        let segment = segment as usize;
        engine.device.has_conditional_nodes()
            && shapes.check_constraints(segment).is_ok()
            && engine.tables.segments[segment].steps.iter().all(|step| is_recordable(engine, shapes, step))
    };
    match &step.action {
        Action::Launch(_) => true,
        Action::If { then_segment, else_segment, decide } => {
            !decide.is_empty() && takes_shapes(*then_segment) && takes_shapes(*else_segment)
        }
        Action::Loop { body, begin, next, .. } => !begin.is_empty() && !next.is_empty() && takes_shapes(*body),
        Action::Count { .. } | Action::Cpu(_) => false,
    }
}

/// The launches of a segment, in order.
fn launches<'t, 'a>(steps: &'t [Step<'a>]) -> impl Iterator<Item = (&'t Step<'a>, &'t Launch<'a>)> {
    steps.iter().filter_map(|step| match &step.action {
        Action::Launch(launch) => Some((step, launch)),
        Action::If { .. } | Action::Loop { .. } | Action::Count { .. } | Action::Cpu(_) => None,
    })
}

/// The shape of a launch as a node that can be skipped: an empty one has a grid of one block.
fn place(
    step: &Step<'_>,
    launch: &Launch<'_>,
    shapes: &Shapes<'_>,
    memory: &Memory<'_>,
    args: &mut KernelArgs,
) -> Result<(LaunchShape, NodeState), DriverError> {
    let shape = launch::prepare(step, launch, shapes, memory, &[], args)?;
    let empty = LaunchShape { grid: [1; 3], block: launch.block, shared_bytes: launch.shared, cluster: None };
    Ok(shape.map_or((empty, NodeState::Skip), |shape| (shape, NodeState::Run)))
}
