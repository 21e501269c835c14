//! What the requests of a loaded model share.

use std::num::NonZeroUsize;
use std::thread::available_parallelism;

use crate::cpu::check::{self, Prepared};
use crate::cpu::dispatch::run_steps;
use crate::cpu::memory::{Buffer, Derived, Memory, Scratch};
use crate::cpu::team::Team;
use crate::error::Error;
use crate::shapes::Shapes;
use crate::table::PlanTables;
use crate::weights::Weights;

/// A plan with its weights, derived weights and prepared programs.
pub struct Engine<'a> {
    pub(super) tables: &'a PlanTables<'a>,
    weights: Stored<'a>,
    derived: Buffer,
    /// For each segment and step its prepared program.
    pub(super) prepared: Vec<Vec<Prepared>>,
    threads: usize,
}

/// The weights where they lie, or copied to where they are aligned.
enum Stored<'a> {
    Given(Weights<'a>),
    Copied(Buffer, usize),
}

impl<'a> Engine<'a> {
    /// Checks that every step can run, and runs the init segment. Sessions get `threads`, or as many as the machine
    /// runs at a time.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a step that this target has no function for, and the errors of the init steps.
    pub fn load(
        tables: &'a PlanTables<'a>,
        weights: Weights<'a>,
        threads: Option<NonZeroUsize>,
    ) -> Result<Engine<'a>, Error> {
        let prepared = check::prepare(tables)?;
        let mut derived = Buffer::new(tables.derived_bytes)?;
        let weights = Stored::new(weights)?;
        let shapes = Shapes::new(tables);
        // Init steps keep what they write: none of it is an activation.
        let mut arena = Buffer::default();
        let mut scratch = Scratch::default();
        let mut memory = Memory::new(tables, &shapes, weights.bytes(), Derived::Write(&mut derived), &mut arena);
        run_steps(tables, &prepared, PlanTables::INIT, &mut memory, &mut scratch, &mut |_, _, _| {})?;
        let threads = threads.or_else(|| available_parallelism().ok()).map_or(1, NonZeroUsize::get);
        Ok(Engine { tables, weights, derived, prepared, threads })
    }

    /// The working memory and the threads of a session.
    pub(super) fn scratch(&self) -> Scratch {
        Scratch { team: Team::new(self.threads), ..Scratch::default() }
    }

    /// The weights.
    pub(super) fn weight_bytes(&self) -> &[u8] {
        self.weights.bytes()
    }

    /// The derived weights.
    pub(super) fn derived_bytes(&self) -> &[u8] {
        self.derived.bytes()
    }

    /// The memory of a run over `arena`.
    pub(super) fn memory<'m>(&'m self, shapes: &'m Shapes<'m>, arena: &'m mut Buffer) -> Memory<'m> {
        Memory::new(self.tables, shapes, self.weights.bytes(), Derived::Read(&self.derived), arena)
    }
}

impl<'a> Stored<'a> {
    fn new(weights: Weights<'a>) -> Result<Stored<'a>, Error> {
        let bytes = weights.bytes();
        // Every element type is at most 8 bytes wide; beyond that alignment is a matter of speed.
        if (bytes.as_ptr() as usize).is_multiple_of(8) {
            return Ok(Stored::Given(weights));
        }
        let mut copy = Buffer::new(bytes.len() as u64)?;
        copy.bytes_mut()[..bytes.len()].copy_from_slice(bytes);
        Ok(Stored::Copied(copy, bytes.len()))
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Stored::Given(weights) => weights.bytes(),
            Stored::Copied(copy, len) => &copy.bytes()[..*len],
        }
    }
}
