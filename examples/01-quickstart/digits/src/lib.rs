//! The model `model.onnx` for `cpu`, compiled by Lapidary.
//!
//! [`Digits`] holds the weights and is shared; a [`Session`] holds the activations and runs
//! one request at a time.
//!
//! ```no_run
//! use digits::{Batch, C, Digits, Error, Inputs, View};
//!
//! let model = Digits::builder().build()?;
//! let mut session = model.session()?;
//! let batch = Batch::new(1)?;
//! let image = vec![0.0; 64 * batch.get()];
//! let outputs = session.run(&Inputs { image: View::new(&image, (batch, C, C, C))? })?;
//! println!("{:?}", outputs.logits.data());
//! # Ok::<(), Error>(())
//! ```

#![forbid(unsafe_code)]

mod plan;

use std::path::PathBuf;

pub use lapidary_runtime::table::Range;
pub use lapidary_runtime::{C, Dimension, Dyn, Element, Error, LaunchMode, Shape, View};
use lapidary_runtime::{Model, Options, Weights};

/// Bytes that a session's activations take, for the largest shapes of the profiles.
pub const ARENA_BYTES: u64 = 163840;

/// Bytes of `weights.bin`.
pub const WEIGHT_BYTES: u64 = 17664;

/// The loaded model. Clones share the weights, also between threads.
#[derive(Clone)]
pub struct Digits(Model<'static>);

impl Digits {
    /// How the model is loaded.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Memory for one request at a time; several sessions run at once.
    ///
    /// # Errors
    /// Those of the device, where memory runs out.
    pub fn session(&self) -> Result<Session, Error> {
        self.0.session().map(Session)
    }
}

/// Loads a [`Digits`].
#[derive(Clone, Debug, Default)]
#[must_use = "`build` loads the model"]
pub struct Builder {
    weights: Option<PathBuf>,
    options: Options,
}

impl Builder {
    /// The GPU's ordinal, as the driver counts; 0 by default. The `cpu` target has none.
    pub fn device(mut self, ordinal: u32) -> Builder {
        self.options.device = ordinal;
        self
    }

    /// How a session launches its kernels; as one CUDA graph by default.
    pub fn launch(mut self, mode: LaunchMode) -> Builder {
        self.options.launch = mode;
        self
    }

    /// Takes the weights from this file, `weights.bin` of this crate or another of the same
    /// layout. By default they are those that the feature `embed-weights` puts into the binary.
    pub fn weights(mut self, path: impl Into<PathBuf>) -> Builder {
        self.weights = Some(path.into());
        self
    }

    /// Loads the weights, and on a GPU the kernels.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Weights`] for the weights, and those of the device.
    pub fn build(self) -> Result<Digits, Error> {
        let weights = match &self.weights {
            Some(path) => Weights::open(path)?,
            None => plan::weights(),
        };
        let loaded = Model::load(&plan::cpu::PLAN, weights, self.options)?;
        Ok(Digits(loaded))
    }
}

/// Memory for one request at a time, and what runs it. Goes from thread to thread, is not
/// shared.
pub struct Session(lapidary_runtime::Session<'static>);

impl Session {
    /// Runs the model and waits for its outputs, which lie in the session's memory until the
    /// next run.
    ///
    /// # Errors
    /// Shapes that the profiles do not hold leave the session as it was; an error of the device
    /// ends it.
    pub fn run(&mut self, inputs: &Inputs<'_>) -> Result<Outputs<'_>, Error> {
        self.0.run(&[inputs.image.erase()])?;
        let logits = self.0.output(0)?;
        Ok(Outputs {
            logits: View::new(logits.data()?, (Batch(logits.dims()[0]), C))?,
        })
    }

    /// The session without the model's types: tensors that lie on the device, timing, and every
    /// step's results.
    pub fn untyped(&mut self) -> &mut lapidary_runtime::Session<'static> {
        &mut self.0
    }
}

/// What [`Session::run`] takes: contiguous row-major tensors of the caller's.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// `image`, f32, shape `[batch, 1, 8, 8]`.
    pub image: View<'a, f32, (Batch, C<1>, C<8>, C<8>)>,
}

/// What [`Session::run`] returns: tensors in the session's memory.
#[derive(Clone, Copy, Debug)]
pub struct Outputs<'s> {
    /// `logits`, f32, shape `[batch, 10]`.
    pub logits: View<'s, f32, (Batch, C<10>)>,
}

/// The dimension `batch` of the model: `1..=64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Batch(usize);

impl Batch {
    /// The values that each optimization profile takes.
    pub const RANGES: &'static [Range] = &[Range { min: 1, opt: 1, max: 64 }];

    /// Checks an extent.
    ///
    /// # Errors
    /// [`Error::OutsideProfiles`] if no profile takes it.
    pub fn new(extent: usize) -> Result<Batch, Error> {
        plan::checked("batch", extent, Batch::RANGES).map(Batch)
    }

    /// The extent.
    pub fn get(self) -> usize {
        self.0
    }
}

impl Dimension for Batch {
    fn extent(self) -> usize {
        self.0
    }
}
