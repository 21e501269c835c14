//! When each arena buffer holds something that is still read.
//!
//! Steps are numbered in one walk from the main segment through its branches: a branch's steps come behind the step
//! that takes it, the other branch's behind those. Buffers that live in both branches of an `If` thus never share
//! memory, which costs a little and is simple. A loop's body is walked once.

use std::collections::BTreeMap;

use super::Scratch;
use crate::lower::{BufferId, Loop, Program, Residency, SegmentId, Step, TensorId};

/// The first and the last step at which a buffer is in use, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    pub first: usize,
    pub last: usize,
}

impl Lifetime {
    /// Whether both are in use at some step.
    pub fn overlaps(&self, other: &Lifetime) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

/// The lifetime of every arena buffer that the main segment touches. Inputs and the run
/// count live from the start, outputs to the end.
pub fn lifetimes(program: &Program, scratch: &[Scratch]) -> BTreeMap<BufferId, Lifetime> {
    let mut walk = Walk { program, scratch, now: 0, found: BTreeMap::new() };
    for (_, input) in &program.inputs {
        walk.touch(*input);
    }
    if let Some(run_count) = program.run_count {
        walk.touch(run_count);
    }
    walk.now = 1;
    walk.segment(Program::MAIN);
    for (_, output) in &program.outputs {
        walk.touch(*output);
    }
    walk.found
}

struct Walk<'p> {
    program: &'p Program,
    scratch: &'p [Scratch],
    now: usize,
    found: BTreeMap<BufferId, Lifetime>,
}

impl Walk<'_> {
    fn segment(&mut self, id: SegmentId) {
        for (k, step) in self.program.segment(id).iter().enumerate() {
            match step {
                Step::Work(work) => {
                    for tensor in work.inputs.iter().chain(&work.outputs).flatten() {
                        self.touch(*tensor);
                    }
                    for scratch in self.scratch.iter().filter(|scratch| (scratch.segment, scratch.step) == (id, k)) {
                        self.touch_buffer(scratch.buffer);
                    }
                    self.now += 1;
                }
                Step::Count { at, .. } => {
                    self.touch(*at);
                    self.now += 1;
                }
                Step::If { condition, then_segment, else_segment, .. } => {
                    self.touch(*condition);
                    self.now += 1;
                    self.segment(*then_segment);
                    self.segment(*else_segment);
                }
                Step::Loop(step) => self.rounds(step),
            }
        }
    }

    /// What is there before the first round and used in one is used in all, so it lives to the end of the last.
    fn rounds(&mut self, step: &Loop) {
        let around = |walk: &mut Self| {
            let results = step.rows.iter().map(|(_, all)| all).chain(step.rounds.iter().map(|rounds| &rounds.round));
            step.condition.iter().chain(&step.limit).chain(results).for_each(|&tensor| walk.touch(tensor));
        };
        around(self);
        let before = self.now;
        self.now += 1;
        self.segment(step.body);
        step.rows.iter().for_each(|&(row, _)| self.touch(row));
        around(self);
        let now = self.now;
        for lifetime in self.found.values_mut() {
            if lifetime.first <= before && lifetime.last > before {
                lifetime.last = now;
            }
        }
        self.now += 1;
    }

    fn touch(&mut self, tensor: TensorId) {
        let buffer = self.program.tensor(tensor).buffer;
        if matches!(self.program.buffer(buffer).residency, Residency::Arena) {
            self.touch_buffer(buffer);
        }
    }

    fn touch_buffer(&mut self, buffer: BufferId) {
        let now = self.now;
        let lifetime = self.found.entry(buffer).or_insert(Lifetime { first: now, last: now });
        lifetime.last = now;
    }
}
