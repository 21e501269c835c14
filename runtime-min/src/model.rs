//! A loaded model and its sessions: the same two types for every target.
//!
//! A [`Model`] owns the weights and is shared; a [`Session`] owns the activations and runs one request at a time.

use std::num::NonZeroUsize;
use std::sync::Arc;

use crate::cuda::{Buffers, CuDevicePtr, CuStream, Device, Pending};
use crate::error::Error;
use crate::shapes::{Change, Extents, Shapes};
use crate::table::{PlanTables, Target};
use crate::view::{InputRef, OutputRef};
use crate::weights::Weights;

/// A compiled model with its weights, ready to make sessions. Cloning shares it.
#[derive(Clone)]
pub struct Model<'a> {
    tables: &'a PlanTables<'a>,
    engine: Engine<'a>,
}

#[derive(Clone)]
enum Engine<'a> {
    #[cfg(feature = "cpu")]
    Cpu(Arc<crate::cpu::Engine<'a>>),
    Cuda(Arc<crate::cuda::Engine<'a>>),
}

/// How a model is loaded.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// The GPU's ordinal; the `cpu` target has no use for it.
    pub device: u32,
    /// Whether a session replays a CUDA graph or launches kernel by kernel.
    pub launch: LaunchMode,
    /// The number of threads that a session of the `cpu` target runs on, the caller's included; `None` for as many as
    /// the machine runs at a time. Results are the same bits for any number.
    pub threads: Option<NonZeroUsize>,
}

/// How a session on a GPU launches its kernels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LaunchMode {
    /// One CUDA graph per profile.
    #[default]
    Graph,
    /// One launch a kernel on the session's stream.
    Stream,
}

impl<'a> Model<'a> {
    /// Loads `weights` for the plan in `tables` and runs its init steps.
    ///
    /// # Errors
    /// [`Error::Weights`] for weights of another length, [`Error::TargetNotBuilt`], and the driver's errors.
    pub fn load(tables: &'a PlanTables<'a>, weights: Weights<'a>, options: Options) -> Result<Model<'a>, Error> {
        let given_bytes = weights.bytes().len() as u64;
        if given_bytes != tables.weight_bytes {
            return Err(Error::Weights { expected_bytes: tables.weight_bytes, given_bytes });
        }
        let engine = match tables.target {
            #[cfg(feature = "cpu")]
            Target::Cpu => Engine::Cpu(Arc::new(crate::cpu::Engine::load(tables, weights, options.threads)?)),
            #[cfg(not(feature = "cpu"))]
            Target::Cpu => return Err(Error::TargetNotBuilt { target: "cpu", feature: "cpu" }),
            Target::Cuda => Engine::Cuda(Arc::new(crate::cuda::Engine::load(tables, weights, options)?)),
        };
        Ok(Model { tables, engine })
    }

    /// Loads the one of several plans, each for another GPU architecture, that fits the device of `options` best.
    ///
    /// # Errors
    /// [`Error::NoImage`] if none fits, else as [`Model::load`].
    pub fn load_best(plans: &[&'a PlanTables<'a>], weights: Weights<'a>, options: Options) -> Result<Model<'a>, Error> {
        Model::load(crate::cuda::best_plan(plans, options.device)?, weights, options)
    }

    /// The device that the model was loaded on, for buffers of the caller's; `None` on the `cpu` target.
    pub fn device(&self) -> Option<&Arc<Device>> {
        match &self.engine {
            #[cfg(feature = "cpu")]
            Engine::Cpu(_) => None,
            Engine::Cuda(engine) => Some(engine.device()),
        }
    }

    /// The plan.
    pub fn tables(&self) -> &'a PlanTables<'a> {
        self.tables
    }

    /// A session: memory for one request at a time.
    ///
    /// # Errors
    /// The driver's, where memory runs out.
    pub fn session(&self) -> Result<Session<'a>, Error> {
        let exec = match &self.engine {
            #[cfg(feature = "cpu")]
            Engine::Cpu(engine) => Exec::Cpu(crate::cpu::Exec::new(engine.clone())?),
            Engine::Cuda(engine) => Exec::Cuda(crate::cuda::Exec::new(engine.clone())?),
        };
        Ok(Session { tables: self.tables, shapes: Shapes::new(self.tables), exec, finished: false })
    }
}

/// Activations of a model, and what runs it. `Send`, not shared.
pub struct Session<'a> {
    tables: &'a PlanTables<'a>,
    shapes: Shapes<'a>,
    exec: Exec<'a>,
    /// Whether the memory of the outputs holds those of the shapes.
    finished: bool,
}

enum Exec<'a> {
    #[cfg(feature = "cpu")]
    Cpu(crate::cpu::Exec<'a>),
    Cuda(crate::cuda::Exec<'a>),
}

impl<'a> Exec<'a> {
    fn on_device(&mut self, call: &'static str) -> Result<&mut crate::cuda::Exec<'a>, Error> {
        match self {
            #[cfg(feature = "cpu")]
            Exec::Cpu(_) => Err(Error::NotOnTarget { call, target: "cpu" }),
            Exec::Cuda(exec) => {
                // Without the feature `cpu` there is nothing to refuse.
                let _ = call;
                Ok(exec)
            }
        }
    }
}

impl<'a> Session<'a> {
    /// Runs the model on `inputs`, in the order of [`PlanTables::inputs`], and waits for the outputs.
    ///
    /// # Errors
    /// Wrong inputs leave the session as it was; an error of the device poisons it.
    pub fn run(&mut self, inputs: &[InputRef<'_>]) -> Result<(), Error> {
        let change = self.begin(inputs)?;
        match &mut self.exec {
            #[cfg(feature = "cpu")]
            Exec::Cpu(exec) => exec.run(&self.shapes, inputs)?,
            Exec::Cuda(exec) => exec.run(&self.shapes, change, inputs)?,
        }
        self.finished = true;
        Ok(())
    }

    /// Checks the inputs and takes their shapes. From here on the outputs of the last run are gone.
    fn begin(&mut self, inputs: &[InputRef<'_>]) -> Result<Change, Error> {
        self.check(inputs)?;
        let change = self.shapes.resolve(|k| &inputs[k].extents)?;
        self.finished = false;
        Ok(change)
    }

    fn check(&self, inputs: &[InputRef<'_>]) -> Result<(), Error> {
        let expected = self.tables.inputs.len();
        if inputs.len() != expected {
            return Err(Error::InputCount { expected, given: inputs.len() });
        }
        for (port, input) in self.tables.inputs.iter().zip(inputs) {
            let dtype = self.tables.tensors[port.tensor as usize].dtype;
            if input.dtype != dtype {
                return Err(Error::InputType { input: port.name.to_owned(), expected: dtype, given: input.dtype });
            }
            let bytes = dtype.bytes(input.extents.count());
            if input.bytes.len() != bytes {
                let (expected, given) = (bytes, input.bytes.len());
                return Err(Error::Bytes { tensor: port.name.to_owned(), expected, given });
            }
        }
        Ok(())
    }

    /// Runs the model on tensors that lie on the device and returns at once (a plan that does not run as one CUDA graph
    /// waits for them). `extents` are those of the inputs; each buffer holds its tensor from its first byte, contiguous
    /// and row-major, and may be longer: outputs may be made for the largest shapes. [`Pending::wait`] hands the
    /// buffers back. Requests of a session are done in the order of their calls.
    ///
    /// # Errors
    /// [`Error::NotOnTarget`] on the `cpu` target; [`Error::InputCount`], [`Error::OutputCount`] and
    /// [`Error::Bytes`] for buffers that do not fit; else as [`Session::run`]. The buffers are then dropped.
    pub fn enqueue(&mut self, extents: &[Extents], buffers: Buffers) -> Result<Pending, Error> {
        self.exec.on_device("enqueue")?;
        let change = self.resolve(extents)?;
        self.exec.on_device("enqueue")?.enqueue(&self.shapes, change, buffers)
    }

    /// Like [`Session::enqueue`], on device memory of the caller's (in the order of the ports) and behind the work of
    /// `stream`; later work of `stream` waits for the outputs. The host does not wait, but for what the CUDA graph leaves to it: some branches, loops and counts.
    ///
    /// # Errors
    /// As [`Session::enqueue`].
    ///
    /// # Safety
    /// Each address is valid for the bytes of its tensor at these extents, and nothing that is not ordered with
    /// `stream` touches them until the work is done; the session is not dropped before. `stream` is a `CUstream` of
    /// the device's primary context.
    pub unsafe fn enqueue_raw(
        &mut self,
        extents: &[Extents],
        inputs: &[CuDevicePtr],
        outputs: &[CuDevicePtr],
        stream: CuStream,
    ) -> Result<(), Error> {
        self.exec.on_device("enqueue_raw")?;
        let change = self.resolve(extents)?;
        let exec = self.exec.on_device("enqueue_raw")?;
        // SAFETY: promised by the caller.
        unsafe { exec.enqueue_raw(&self.shapes, change, inputs, outputs, stream) }
    }

    fn resolve(&mut self, extents: &[Extents]) -> Result<Change, Error> {
        let expected = self.tables.inputs.len();
        if extents.len() != expected {
            return Err(Error::InputCount { expected, given: extents.len() });
        }
        let change = self.shapes.resolve(|k| &extents[k])?;
        self.finished = false;
        Ok(change)
    }

    /// The extents of output `index` as of the last run, one that [`Session::enqueue`] started too: the first of them
    /// that are in its buffer.
    ///
    /// # Errors
    /// [`Error::NoOutput`] for an index beyond the outputs.
    pub fn output_extents(&self, index: usize) -> Result<Extents, Error> {
        let count = self.tables.outputs.len();
        let port = self.tables.outputs.get(index).ok_or(Error::NoOutput { index, count })?;
        Ok(self.shapes.extents(port.tensor))
    }

    /// Output `index` of the last [`Session::run`].
    ///
    /// # Errors
    /// [`Error::NoOutput`] for an index beyond the outputs; [`Error::NotRun`] before the first run, and behind one that
    /// failed after it had begun.
    pub fn output(&self, index: usize) -> Result<OutputRef<'_>, Error> {
        let count = self.tables.outputs.len();
        let port = self.tables.outputs.get(index).ok_or(Error::NoOutput { index, count })?;
        if !self.finished {
            return Err(Error::NotRun);
        }
        let extents = self.shapes.extents(port.tensor);
        let bytes = match &self.exec {
            #[cfg(feature = "cpu")]
            Exec::Cpu(exec) => exec.output(&self.shapes, port.tensor),
            Exec::Cuda(exec) => exec.output(index),
        };
        Ok(OutputRef { name: port.name, dtype: self.tables.tensors[port.tensor as usize].dtype, extents, bytes })
    }

    /// Runs the model like [`Session::run`] and shows `observe` every result of every step right after it was
    /// written, with the step's label. For debugging: slow on a GPU, where a step that has run before the host knew a count
    /// shows as many elements as there could have been; those beyond the count mean nothing.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub fn run_observed(
        &mut self,
        inputs: &[InputRef<'_>],
        observe: &mut dyn FnMut(&str, u32, OutputRef<'_>),
    ) -> Result<(), Error> {
        let change = self.begin(inputs)?;
        match &mut self.exec {
            #[cfg(feature = "cpu")]
            Exec::Cpu(exec) => exec.run_observed(&self.shapes, inputs, observe)?,
            Exec::Cuda(exec) => exec.run_observed(&self.shapes, change, inputs, observe)?,
        }
        self.finished = true;
        Ok(())
    }

    /// Runs the model like [`Session::run`], launch by launch, and shows `observe` each step's label and its
    /// milliseconds on the device, which include the launch itself (a few microseconds).
    ///
    /// # Errors
    /// [`Error::NotOnTarget`] on the `cpu` target; else as [`Session::run`].
    pub fn run_profiled(&mut self, inputs: &[InputRef<'_>], observe: &mut dyn FnMut(&str, f64)) -> Result<(), Error> {
        self.exec.on_device("run_profiled")?;
        let change = self.begin(inputs)?;
        self.exec.on_device("run_profiled")?.run_profiled(&self.shapes, change, inputs, observe)?;
        self.finished = true;
        Ok(())
    }

    /// Makes the next run the one behind `runs` others. Random numbers of a model depend on its seeds, on the element,
    /// and on how many runs the session has done before; so each run has others, and every session starts with the same.
    /// To repeat a run, or to give sessions different numbers, say where in the stream they are.
    pub fn set_run_count(&mut self, runs: u64) {
        match &mut self.exec {
            #[cfg(feature = "cpu")]
            Exec::Cpu(exec) => exec.runs = runs,
            Exec::Cuda(exec) => exec.runs = runs,
        }
    }

    /// Where the time of the last run went; `None` where the target does not measure it.
    pub fn timing(&self) -> Option<Timing> {
        match &self.exec {
            #[cfg(feature = "cpu")]
            Exec::Cpu(_) => None,
            Exec::Cuda(exec) => exec.timing(),
        }
    }

    /// Turns the measuring of [`Session::timing`] on or off.
    ///
    /// # Errors
    /// The driver's.
    pub fn set_timing(&mut self, timing: TimingMode) -> Result<(), Error> {
        match &mut self.exec {
            #[cfg(feature = "cpu")]
            Exec::Cpu(_) => Ok(()),
            Exec::Cuda(exec) => exec.set_timing(timing),
        }
    }
}

/// Whether a session measures its runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimingMode {
    #[default]
    Off,
    On,
}

/// Times of one run, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timing {
    /// Host time spent enqueueing the work.
    pub enqueue_ms: f64,
    /// Device time from the first to the last kernel, without transfers.
    pub compute_ms: f64,
}
