//! A session on a device: its memory, its stream, and how it runs the tables.
//!
//! Contract: [`Exec::run`] copies the inputs in, enqueues everything, and waits once; it allocates nothing when the
//! shapes are no larger than before. A failure of the device poisons the session, because what the failed work has
//! written is unknown. Branches (`If`) and the rounds of loops are decided inside the CUDA graph; where the plan does not
//! run as one (see [`Record::is_possible`]) the host decides, and waits for the condition. It waits for counts, too, where a
//! step or an output needs one.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use super::engine::{Engine, during};
use super::error::DriverError;
use super::ffi::CuDevicePtr;
use super::launch::{self, Memory};
use super::memory::{DeviceBuffer, PinnedBuffer};
use super::module::KernelArgs;
use super::record::{Record, counts_at_end};
use super::stream::{Event, EventUse, Stream};
use crate::dtype::DType;
use crate::error::Error;
use crate::model::{LaunchMode, Timing, TimingMode};
use crate::shapes::{Change, Shapes};
use crate::table::{Action, NONE, PlanTables, Port, Step};
use crate::view::{InputRef, OutputRef};

/// What runs a model's steps, one request at a time.
pub struct Exec<'a> {
    pub(super) engine: Arc<Engine<'a>>,
    pub(super) stream: Stream,
    arena: DeviceBuffer,
    /// What the blocks of a launch meet at; every launch leaves them zero.
    counters: DeviceBuffer,
    inputs: Staging,
    outputs: Staging,
    args: KernelArgs,
    /// One graph a profile, made when the profile is first used.
    graphs: Vec<Option<Record>>,
    /// What runs the present shapes.
    ready: Ready,
    stopwatch: Option<Stopwatch>,
    timing: Option<Timing>,
    /// How many runs there were, or what the caller says instead.
    pub runs: u64,
    /// The first failure of the device; shared with what is still under way.
    pub(super) poison: Arc<OnceLock<String>>,
}

impl<'a> Exec<'a> {
    /// Allocates an arena that is large enough for every profile.
    ///
    /// # Errors
    /// The driver's.
    pub fn new(engine: Arc<Engine<'a>>) -> Result<Exec<'a>, Error> {
        let tables = engine.tables;
        let bytes = tables.profiles.iter().map(|profile| profile.arena_bytes).max().unwrap_or(0);
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        let arena = DeviceBuffer::new(&engine.device, bytes).map_err(during("allocating the activations"))?;
        let stream = Stream::new(&engine.device).map_err(during("making a session"))?;
        Ok(Exec {
            counters: engine.counters(&stream)?,
            stream,
            arena,
            inputs: Staging::default(),
            outputs: Staging::default(),
            args: KernelArgs::default(),
            graphs: tables.profiles.iter().map(|_| None).collect(),
            ready: Ready::Unknown,
            stopwatch: None,
            timing: None,
            runs: 0,
            poison: Arc::new(OnceLock::new()),
            engine,
        })
    }

    /// Runs the model and waits for its outputs.
    ///
    /// # Errors
    /// [`Error::Poisoned`] after an earlier failure; else the driver's.
    pub fn run(&mut self, shapes: &Shapes<'a>, change: Change, inputs: &[InputRef<'_>]) -> Result<(), Error> {
        let engine = self.engine.clone();
        let _current = engine.device.make_current().map_err(during("running the model"))?;
        self.prepare(shapes, change)?;
        self.stage(shapes, inputs)?;
        let enqueued = self.enqueue_run(shapes);
        self.finish(enqueued)
    }

    /// The bytes of output `port` of the last run; none before the first.
    pub fn output(&self, port: usize) -> &[u8] {
        self.outputs.bytes(port)
    }

    /// Runs step by step and shows `observe` each result behind the step that wrote it.
    ///
    /// # Errors
    /// As [`Exec::run`].
    pub fn run_observed(
        &mut self,
        shapes: &Shapes<'a>,
        change: Change,
        inputs: &[InputRef<'_>],
        observe: &mut dyn FnMut(&str, u32, OutputRef<'_>),
    ) -> Result<(), Error> {
        let engine = self.engine.clone();
        let _current = engine.device.make_current().map_err(during("running the model"))?;
        self.invalidate(change)?;
        self.stage(shapes, inputs)?;
        let tables = self.engine.tables;
        let memory = self.memory(shapes);
        let counted = self.enqueue_run_count(&memory);
        // Words, so that elements of every type are aligned in it.
        let mut words: Vec<u64> = Vec::new();
        let stream = &self.stream;
        let mut show = |step: &Step<'a>, at: At| {
            let At::Behind = at else { return Ok(()) };
            for &tensor in step.outputs.iter().filter(|&&tensor| tensor != NONE) {
                let len = shapes.bytes(tensor);
                words.resize(len.div_ceil(8), 0);
                // SAFETY: the tensor has that many bytes on the device, and the words are left alone until the wait.
                unsafe { stream.copy_to_host(words.as_mut_ptr().cast(), memory.address(tensor), len)? };
                stream.synchronize()?;
                // SAFETY: at least `len` initialized bytes.
                let bytes = unsafe { core::slice::from_raw_parts(words.as_ptr().cast::<u8>(), len) };
                let dtype = tables.tensors[tensor as usize].dtype;
                let extents = shapes.extents(tensor);
                observe(step.label, tensor, OutputRef { name: step.label, dtype, extents, bytes });
            }
            Ok(())
        };
        let enqueued = counted
            .and_then(|()| self.inputs.enqueue_in(tables.inputs, &memory, stream))
            .and_then(|()| {
                let main = PlanTables::MAIN;
                run_segment(&self.engine, main, shapes, &memory, stream, &mut self.args, &mut show)
            })
            .and_then(|()| self.outputs.enqueue_out(tables.outputs, shapes, &memory, stream));
        self.finish(enqueued)
    }

    /// Runs step by step with a time stamp before and behind each launch, and shows `observe` each step's label and
    /// its milliseconds on the device. What is measured includes the launch itself (a few microseconds).
    ///
    /// # Errors
    /// As [`Exec::run`].
    pub fn run_profiled(
        &mut self,
        shapes: &Shapes<'a>,
        change: Change,
        inputs: &[InputRef<'_>],
        observe: &mut dyn FnMut(&str, f64),
    ) -> Result<(), Error> {
        let engine = self.engine.clone();
        let _current = engine.device.make_current().map_err(during("running the model"))?;
        self.invalidate(change)?;
        self.stage(shapes, inputs)?;
        let tables = self.engine.tables;
        let memory = self.memory(shapes);
        let counted = self.enqueue_run_count(&memory);
        let stream = &self.stream;
        // Made beforehand, so that the host stays ahead of the device where it can.
        let event = || Event::new(stream.device(), EventUse::Time);
        let count = 2 * tables.segments[PlanTables::MAIN].steps.len();
        let mut spare = (0..count).map(|_| event()).collect::<Result<Vec<_>, _>>().map_err(during("making events"))?;
        let mut marks: Vec<(&'a str, Event)> = Vec::with_capacity(count);
        let mut mark = |step: &Step<'a>, _: At| {
            let event = spare.pop().map_or_else(event, Ok)?;
            event.record(stream)?;
            marks.push((step.label, event));
            Ok(())
        };
        let enqueued = counted
            .and_then(|()| self.inputs.enqueue_in(tables.inputs, &memory, stream))
            .and_then(|()| {
                let main = PlanTables::MAIN;
                run_segment(&self.engine, main, shapes, &memory, stream, &mut self.args, &mut mark)
            })
            .and_then(|()| self.outputs.enqueue_out(tables.outputs, shapes, &memory, stream));
        self.finish(enqueued)?;
        for pair in marks.chunks_exact(2) {
            let milliseconds = pair[1].1.milliseconds_since(&pair[0].1).map_err(during(pair[0].0))?;
            observe(pair[0].0, f64::from(milliseconds));
        }
        Ok(())
    }

    /// The times of the last run; `None` while measuring is off.
    pub fn timing(&self) -> Option<Timing> {
        self.timing
    }

    /// Turns measuring on or off.
    ///
    /// # Errors
    /// The driver's.
    pub fn set_timing(&mut self, mode: TimingMode) -> Result<(), Error> {
        self.timing = None;
        self.stopwatch = match mode {
            TimingMode::Off => None,
            TimingMode::On => Some(Stopwatch::new(&self.stream).map_err(during("making events"))?),
        };
        Ok(())
    }

    /// Refuses a poisoned session; takes note that shapes have changed.
    fn invalidate(&mut self, change: Change) -> Result<(), Error> {
        match change {
            Change::None => {}
            Change::Shape | Change::Profile => self.ready = Ready::Unknown,
        }
        match self.poison.get() {
            Some(cause) => Err(Error::Poisoned { cause: cause.clone() }),
            None => Ok(()),
        }
    }

    /// Brings the graph of the profile up to date with the shapes.
    pub(super) fn prepare(&mut self, shapes: &Shapes<'a>, change: Change) -> Result<(), Error> {
        self.invalidate(change)?;
        if self.ready != Ready::Unknown {
            return Ok(());
        }
        let profile = shapes.profile_index();
        let replay = match self.engine.launch {
            LaunchMode::Graph => Record::is_possible(&self.engine, shapes),
            LaunchMode::Stream => false,
        };
        if !replay {
            self.ready = Ready::Stream;
            return Ok(());
        }
        let memory = self.memory(shapes);
        let engine = &self.engine;
        let record = &mut self.graphs[profile];
        let updated = match record {
            Some(record) => record.update(engine, shapes, &memory, &mut self.args)?,
            None => false,
        };
        if !updated {
            *record = None;
            *record = Some(Record::new(engine, shapes, &memory, &self.stream, &mut self.args)?);
        }
        self.ready = Ready::Graph(profile);
        Ok(())
    }

    /// Copies the inputs to page-locked memory, and makes room for the outputs.
    fn stage(&mut self, shapes: &Shapes<'a>, inputs: &[InputRef<'_>]) -> Result<(), Error> {
        let tables = self.engine.tables;
        let locked = during("allocating page-locked memory");
        let result = self
            .inputs
            .lay_out(&self.stream, tables.inputs, shapes)
            .and_then(|()| self.outputs.lay_out(&self.stream, tables.outputs, shapes));
        result.map_err(locked)?;
        for (port, input) in inputs.iter().enumerate() {
            let staged = self.inputs.bytes_mut(port);
            match input.dtype {
                // The caller's bytes may be anything; outputs that are theirs, moved, are read as 0 and 1.
                DType::Bool => staged.iter_mut().zip(input.bytes).for_each(|(to, from)| *to = u8::from(*from != 0)),
                _ => staged.copy_from_slice(input.bytes),
            }
        }
        Ok(())
    }

    fn enqueue_run(&mut self, shapes: &Shapes<'a>) -> Result<(), Error> {
        let start = Instant::now();
        let memory = self.memory(shapes);
        let tables = self.engine.tables;
        self.inputs.enqueue_in(tables.inputs, &memory, &self.stream)?;
        self.enqueue_run_count(&memory)?;
        self.enqueue_steps(shapes, &memory)?;
        self.outputs.enqueue_out(tables.outputs, shapes, &memory, &self.stream)?;
        if let Some(stopwatch) = &mut self.stopwatch {
            stopwatch.enqueue_ms = start.elapsed().as_secs_f64() * 1e3;
        }
        Ok(())
    }

    /// Enqueues the main segment, between the marks of the stopwatch if there is one.
    pub(super) fn enqueue_steps(&mut self, shapes: &Shapes<'a>, memory: &Memory<'_>) -> Result<(), Error> {
        let stream = &self.stream;
        let stopwatch = self.stopwatch.as_ref();
        let mark = |event: fn(&Stopwatch) -> &Event| {
            stopwatch.map_or(Ok(()), |stopwatch| event(stopwatch).record(stream)).map_err(during("measuring"))
        };
        mark(|stopwatch| &stopwatch.start)?;
        let record = match self.ready {
            Ready::Graph(profile) => self.graphs[profile].as_mut(),
            Ready::Stream | Ready::Unknown => None,
        };
        match record {
            // SAFETY: the graph was recorded for this arena and brought up to date with these shapes; the engine and
            // the arena live until the stream is done (see `drop`).
            Some(record) => {
                unsafe { record.launch(stream) }.map_err(during("launching the graph"))?;
                // What the host waits for behind the last kernel is no computing.
                mark(|stopwatch| &stopwatch.end)?;
                for step in counts_at_end(self.engine.tables) {
                    if let Action::Count { symbol } = step.action {
                        count(step, symbol, shapes, memory, stream)?;
                    }
                }
            }
            None => {
                let main = PlanTables::MAIN;
                run_segment(&self.engine, main, shapes, memory, stream, &mut self.args, &mut |_, _| Ok(()))?;
                mark(|stopwatch| &stopwatch.end)?;
            }
        }
        Ok(())
    }

    /// Waits for what was enqueued; a failure of the device poisons the session. A branch that does not take the shapes
    /// has harmed nothing.
    fn finish(&mut self, enqueued: Result<(), Error>) -> Result<(), Error> {
        self.timing = None;
        // Also after a failure: nothing may be copying to or from our memory when we return.
        let done = self.stream.synchronize().map_err(during("running the model"));
        for failure in [&enqueued, &done] {
            if let Err(error @ Error::Cuda { .. }) = failure {
                let _ = self.poison.set(error.to_string());
            }
        }
        enqueued.and(done)?;
        if let Some(stopwatch) = &self.stopwatch {
            self.timing = Some(stopwatch.read().map_err(during("measuring"))?);
        }
        Ok(())
    }

    /// Enqueues the number of the run, which lies outside of the graph: a launch of it sees what was written last.
    pub(super) fn enqueue_run_count(&mut self, memory: &Memory<'_>) -> Result<(), Error> {
        let tensor = self.engine.tables.run_count;
        if tensor != NONE {
            let words = [self.runs as u32, (self.runs >> 32) as u32];
            // SAFETY: the tensor has eight bytes in the arena, which lives until the stream is done.
            unsafe { self.stream.write_words(memory.address(tensor), words) }.map_err(during("counting the run"))?;
        }
        self.runs = self.runs.wrapping_add(1);
        Ok(())
    }

    pub(super) fn memory<'s>(&self, shapes: &'s Shapes<'a>) -> Memory<'s> {
        self.engine.memory(&self.arena, &self.counters, shapes)
    }
}

impl Drop for Exec<'_> {
    fn drop(&mut self) {
        // The arena and the page-locked memory must outlive what is enqueued. A failure leaves nothing to do.
        let _ = self.stream.synchronize();
    }
}

/// What runs the shapes at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ready {
    /// It is to be decided.
    Unknown,
    /// The graph of this profile.
    Graph(usize),
    /// One launch after the other.
    Stream,
}

/// The two sides of a step at which an observer is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum At {
    Before,
    Behind,
}

/// Called before and behind each launch.
pub(super) type Observer<'o, 'a> = &'o mut dyn FnMut(&Step<'a>, At) -> Result<(), DriverError>;

/// Enqueues the steps of a segment in order. Waits where a branch or another round has to be decided.
pub(super) fn run_segment<'a>(
    engine: &Engine<'a>,
    segment: usize,
    shapes: &Shapes<'a>,
    memory: &Memory<'_>,
    stream: &Stream,
    args: &mut KernelArgs,
    observe: Observer<'_, 'a>,
) -> Result<(), Error> {
    for step in engine.tables.segments[segment].steps {
        match &step.action {
            Action::Launch(launch) => {
                let shape = launch::prepare(step, launch, shapes, memory, &[], args).map_err(during(step.label))?;
                observe(step, At::Before).map_err(during(step.label))?;
                if let Some(shape) = shape {
                    let function = engine.function(launch).map_err(during(step.label))?;
                    // SAFETY: the tables were checked by the compiler: the parameters are the kernel's, and all
                    // tensors lie in the memory that `memory` names, which lives until the stream is done.
                    unsafe { function.launch(stream, &shape, args) }.map_err(during(step.label))?;
                }
                observe(step, At::Behind).map_err(during(step.label))?;
            }
            Action::If { then_segment, else_segment, .. } => {
                let [condition] = read(stream, memory.address(step.inputs[0])).map_err(during(step.label))?;
                let branch = if condition != 0 { then_segment } else { else_segment };
                shapes.check_constraints(*branch as usize)?;
                run_segment(engine, *branch as usize, shapes, memory, stream, args, observe)?;
            }
            Action::Count { symbol } => count(step, *symbol, shapes, memory, stream)?,
            Action::Loop { body, most, .. } => {
                let rounds = read_limit(step, shapes.dim(*most), stream, memory).map_err(during(step.label))?;
                let mut round = 0;
                while round < rounds && goes_on(step, stream, memory).map_err(during(step.label))? {
                    if round == 0 {
                        shapes.check_constraints(*body as usize)?;
                    }
                    run_segment(engine, *body as usize, shapes, memory, stream, args, observe)?;
                    collect(step, round, shapes, stream, memory).map_err(during(step.label))?;
                    round += 1;
                }
            }
            Action::Cpu(_) => return Err(during(step.label)(DriverError::NotALaunch)),
        }
    }
    Ok(())
}

/// Reads a count, behind the stream's work so far.
fn count(step: &Step<'_>, symbol: u32, shapes: &Shapes<'_>, memory: &Memory<'_>, stream: &Stream) -> Result<(), Error> {
    let bytes = read(stream, memory.address(step.inputs[0])).map_err(during(step.label))?;
    shapes.set_count(symbol, i64::from_le_bytes(bytes))
}

/// Bytes on the device, behind the stream's work so far.
fn read<const N: usize>(stream: &Stream, address: CuDevicePtr) -> Result<[u8; N], DriverError> {
    let mut value = [0u8; N];
    // SAFETY: N bytes on either side; `value` is left alone until the wait, which is reached also after an error.
    let copied = unsafe { stream.copy_to_host(value.as_mut_ptr(), address, N) };
    stream.synchronize()?;
    copied?;
    Ok(value)
}

/// How many rounds a loop has at most: `most`, or fewer where its operand 1 says so.
fn read_limit(step: &Step<'_>, most: i64, stream: &Stream, memory: &Memory<'_>) -> Result<i64, DriverError> {
    let Some(&limit) = step.inputs.get(1).filter(|&&limit| limit != NONE) else { return Ok(most) };
    let bytes = read(stream, memory.address(limit))?;
    Ok(most.min(i64::from_le_bytes(bytes)))
}

/// Whether a loop's condition, where it has one, asks for another round.
fn goes_on(step: &Step<'_>, stream: &Stream, memory: &Memory<'_>) -> Result<bool, DriverError> {
    match step.inputs.first() {
        Some(&condition) if condition != NONE => Ok(read::<1>(stream, memory.address(condition))? != [0]),
        Some(_) | None => Ok(true),
    }
}

/// Enqueues the copies of round `round`'s rows to their place among all rows.
fn collect(
    step: &Step<'_>,
    round: i64,
    shapes: &Shapes<'_>,
    stream: &Stream,
    memory: &Memory<'_>,
) -> Result<(), DriverError> {
    for (&row, &rows) in step.inputs.iter().skip(2).zip(step.outputs) {
        let bytes = shapes.bytes(row);
        let offset = round as u64 * bytes as u64;
        debug_assert!(offset + bytes as u64 <= shapes.bytes(rows) as u64, "{}: a row behind the rows", step.label);
        // SAFETY: the tables were checked by the compiler: there is a row for each round, and the rows are disjoint
        // from it. Both lie in memory that lives until the stream is done.
        unsafe { stream.copy_on_device(memory.address(rows) + offset, memory.address(row), bytes) }?;
    }
    Ok(())
}

/// Page-locked memory for all inputs or all outputs.
#[derive(Default)]
struct Staging {
    buffer: Option<PinnedBuffer>,
    /// For each port the range of its bytes.
    ranges: Vec<core::ops::Range<usize>>,
}

impl Staging {
    /// Gives each port room for its tensor at the present shapes. Nothing is copying: each run waits for its copies.
    fn lay_out(&mut self, stream: &Stream, ports: &[Port<'_>], shapes: &Shapes<'_>) -> Result<(), DriverError> {
        self.ranges.clear();
        let mut end = 0usize;
        for port in ports {
            let start = end.next_multiple_of(256);
            end = start + shapes.bytes(port.tensor);
            self.ranges.push(start..end);
        }
        if self.buffer.as_ref().is_none_or(|buffer| buffer.len() < end) {
            self.buffer = None;
            match PinnedBuffer::new(stream.device(), end) {
                Ok(buffer) => self.buffer = Some(buffer),
                Err(error) => {
                    self.ranges.clear();
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn bytes(&self, port: usize) -> &[u8] {
        let bytes = self.buffer.as_ref().map_or(&[][..], PinnedBuffer::as_slice);
        self.ranges.get(port).and_then(|range| bytes.get(range.clone())).unwrap_or(&[])
    }

    fn bytes_mut(&mut self, port: usize) -> &mut [u8] {
        let bytes = self.buffer.as_mut().map_or(&mut [][..], PinnedBuffer::as_mut_slice);
        self.ranges.get(port).and_then(|range| bytes.get_mut(range.clone())).unwrap_or(&mut [])
    }

    /// Enqueues the copies to the device. The caller waits before it touches the memory again.
    fn enqueue_in(&self, ports: &[Port<'_>], memory: &Memory<'_>, stream: &Stream) -> Result<(), Error> {
        for (k, port) in ports.iter().enumerate() {
            let bytes = self.bytes(k);
            // SAFETY: the tensor has these many bytes on the device; the caller waits.
            unsafe { stream.copy_to_device(memory.address(port.tensor), bytes.as_ptr(), bytes.len()) }
                .map_err(during(port.name))?;
        }
        Ok(())
    }

    /// Enqueues the copies to the host. The caller waits before it touches the memory again.
    fn enqueue_out(
        &mut self,
        ports: &[Port<'_>],
        shapes: &Shapes<'_>,
        memory: &Memory<'_>,
        stream: &Stream,
    ) -> Result<(), Error> {
        // Counts have made the outputs smaller since they were staged.
        self.lay_out(stream, ports, shapes).map_err(during("laying out the outputs"))?;
        for (k, port) in ports.iter().enumerate() {
            let bytes = self.bytes_mut(k);
            // SAFETY: the tensor has these many bytes on the device; the caller waits.
            unsafe { stream.copy_to_host(bytes.as_mut_ptr(), memory.address(port.tensor), bytes.len()) }
                .map_err(during(port.name))?;
        }
        Ok(())
    }
}

/// Measures a run.
struct Stopwatch {
    start: Event,
    end: Event,
    enqueue_ms: f64,
}

impl Stopwatch {
    fn new(stream: &Stream) -> Result<Stopwatch, DriverError> {
        let event = || Event::new(stream.device(), EventUse::Time);
        Ok(Stopwatch { start: event()?, end: event()?, enqueue_ms: 0.0 })
    }

    /// The times of a run that is done.
    fn read(&self) -> Result<Timing, DriverError> {
        let compute_ms = f64::from(self.end.milliseconds_since(&self.start)?);
        Ok(Timing { enqueue_ms: self.enqueue_ms, compute_ms })
    }
}
