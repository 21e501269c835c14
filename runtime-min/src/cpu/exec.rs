//! One request at a time: its activations, its scratch memory, and the run of the plan's segments.

use std::sync::Arc;

use crate::cpu::dispatch::run_steps;
use crate::cpu::engine::Engine;
use crate::cpu::memory::{Buffer, Scratch};
use crate::dtype::DType;
use crate::error::Error;
use crate::shapes::Shapes;
use crate::table::{NONE, Place, PlanTables};
use crate::view::{InputRef, OutputRef};

/// The memory of a session, for the largest profile.
pub struct Exec<'a> {
    engine: Arc<Engine<'a>>,
    arena: Buffer,
    scratch: Scratch,
    /// How many runs there were, or what the caller says instead.
    pub runs: u64,
}

impl<'a> Exec<'a> {
    /// A session of `engine`.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn new(engine: Arc<Engine<'a>>) -> Result<Exec<'a>, Error> {
        let bytes = engine.tables.profiles.iter().map(|profile| profile.arena_bytes).max().unwrap_or(0);
        Ok(Exec { arena: Buffer::new(bytes)?, scratch: engine.scratch(), engine, runs: 0 })
    }

    /// Runs the plan on `inputs`, whose types and shapes are those of `shapes`.
    ///
    /// # Errors
    /// [`Error::Index`] for an index operand out of range.
    pub fn run(&mut self, shapes: &Shapes<'_>, inputs: &[InputRef<'_>]) -> Result<(), Error> {
        self.run_observed(shapes, inputs, &mut |_, _, _| {})
    }

    /// Runs like [`Exec::run`] and shows `observe` each result of each step.
    ///
    /// # Errors
    /// As [`Exec::run`].
    pub fn run_observed(
        &mut self,
        shapes: &Shapes<'_>,
        inputs: &[InputRef<'_>],
        observe: &mut dyn FnMut(&str, u32, OutputRef<'_>),
    ) -> Result<(), Error> {
        let tables = self.engine.tables;
        let mut memory = self.engine.memory(shapes, &mut self.arena);
        for (port, input) in tables.inputs.iter().zip(inputs) {
            let tensor = memory.write(port.tensor);
            match input.dtype {
                // The caller's bytes may be anything; ours are 0 and 1.
                DType::Bool => {
                    tensor.bytes.iter_mut().zip(input.bytes).for_each(|(to, from)| *to = u8::from(*from != 0))
                }
                _ => tensor.bytes.copy_from_slice(input.bytes),
            }
        }
        if tables.run_count != NONE {
            memory.write(tables.run_count).bytes.copy_from_slice(&self.runs.to_le_bytes());
        }
        self.runs = self.runs.wrapping_add(1);
        run_steps(tables, &self.engine.prepared, PlanTables::MAIN, &mut memory, &mut self.scratch, observe)
    }

    /// The bytes of `tensor`, as the last run left them.
    pub fn output(&self, shapes: &Shapes<'_>, tensor: u32) -> &[u8] {
        let (memory, offset) = match self.engine.tables.tensors[tensor as usize].place {
            Place::Arena(buffer) => (self.arena.bytes(), shapes.profile().offsets[buffer as usize]),
            Place::Weight(offset) => (self.engine.weight_bytes(), offset),
            Place::Derived(offset) => (self.engine.derived_bytes(), offset),
        };
        &memory[(offset + shapes.start(tensor)) as usize..][..shapes.bytes(tensor)]
    }
}
