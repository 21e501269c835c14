//! What the requests of a loaded model share.

use crate::cpu::check::{self, Prepared};
use crate::cpu::dispatch::run_steps;
use crate::cpu::memory::{Buffer, Derived, Memory, Scratch};
use crate::error::Error;
use crate::shapes::Shapes;
use crate::table::{Place, PlanTables};
use crate::weights::Weights;

/// A plan with its weights, derived weights and prepared programs.
pub struct Engine<'a> {
    pub(super) tables: &'a PlanTables<'a>,
    weights: Stored<'a>,
    derived: Buffer,
    /// For each segment and step its prepared program.
    pub(super) prepared: Vec<Vec<Prepared>>,
}

/// The weights where they lie, or copied to where they are aligned.
enum Stored<'a> {
    Given(Weights<'a>),
    Copied(Buffer, usize),
}

impl<'a> Engine<'a> {
    /// Checks that every step can run, and runs the init segment.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a step that this target has no function for, and the errors of the init steps.
    pub fn load(tables: &'a PlanTables<'a>, weights: Weights<'a>) -> Result<Engine<'a>, Error> {
        let prepared = check::prepare(tables)?;
        let mut derived = Buffer::new(usize::try_from(tables.derived_bytes).unwrap_or(usize::MAX));
        let weights = Stored::new(weights);
        let shapes = Shapes::new(tables);
        let mut arena = Buffer::new(init_arena(tables));
        let mut scratch = Scratch::default();
        let mut memory = Memory::new(tables, &shapes, weights.bytes(), Derived::Write(&mut derived), &mut arena);
        run_steps(tables, &prepared, PlanTables::INIT, &mut memory, &mut scratch, &mut |_, _, _| {})?;
        Ok(Engine { tables, weights, derived, prepared })
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

/// Bytes of activation memory that the init segment uses, if any: it runs under the first profile.
fn init_arena(tables: &PlanTables<'_>) -> usize {
    let steps = tables.segments.get(PlanTables::INIT).map_or(&[][..], |segment| segment.steps);
    let tensors = steps.iter().flat_map(|step| step.inputs.iter().chain(step.outputs));
    let in_arena =
        |&index: &u32| tables.tensors.get(index as usize).is_some_and(|tensor| matches!(tensor.place, Place::Arena(_)));
    match tables.profiles.first() {
        Some(profile) if tensors.into_iter().any(in_arena) => {
            usize::try_from(profile.arena_bytes).unwrap_or(usize::MAX)
        }
        _ => 0,
    }
}

impl<'a> Stored<'a> {
    fn new(weights: Weights<'a>) -> Stored<'a> {
        let bytes = weights.bytes();
        // Every element type is at most 8 bytes wide; beyond that alignment is a matter of speed.
        if (bytes.as_ptr() as usize).is_multiple_of(8) {
            return Stored::Given(weights);
        }
        let mut copy = Buffer::new(bytes.len());
        copy.bytes_mut()[..bytes.len()].copy_from_slice(bytes);
        Stored::Copied(copy, bytes.len())
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Stored::Given(weights) => weights.bytes(),
            Stored::Copied(copy, len) => &copy.bytes()[..*len],
        }
    }
}
