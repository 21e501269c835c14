//! An independent judge of plans: replays the schedule over a shadow of each memory.
//!
//! It knows nothing of lifetimes. Each byte range of the shadow says which buffer wrote it last; a step may read a
//! buffer only where all its bytes are still its own. Behind an `If` only what both branches leave is there.

use std::collections::BTreeMap;

use super::{Plan, arena};
use crate::lower::{BufferId, Residency, SegmentId, Step, TensorId};

/// A plan that [`check`] has found right.
#[derive(Clone, Debug)]
pub struct CheckedPlan(Plan);

impl std::ops::Deref for CheckedPlan {
    type Target = Plan;

    fn deref(&self) -> &Plan {
        &self.0
    }
}

/// Judges a plan. What it says is about a bug of ours, in `plan` or before.
pub fn check(plan: Plan) -> Result<CheckedPlan, Vec<String>> {
    let mut errors = Vec::new();
    for profile in 0..plan.arenas.len() {
        let mut replay = Replay { plan: &plan, profile, shadow: Shadow::default(), errors: &mut errors };
        replay.whole();
    }
    if errors.is_empty() { Ok(CheckedPlan(plan)) } else { Err(errors) }
}

/// A memory space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Space {
    Weights,
    Derived,
    Arena,
}

/// Who wrote what last: start to (end, owner), ranges disjoint.
#[derive(Clone, Debug, Default, PartialEq)]
struct Shadow(BTreeMap<(Space, u64), (u64, BufferId)>);

impl Shadow {
    fn write(&mut self, space: Space, start: u64, end: u64, owner: BufferId) {
        let overlapping: Vec<_> = self
            .0
            .range((space, 0)..(space, end.max(start + 1)))
            .filter(|(_, (other_end, _))| *other_end > start)
            .map(|(key, value)| (*key, *value))
            .collect();
        for ((space, other_start), (other_end, other)) in overlapping {
            self.0.remove(&(space, other_start));
            if other_start < start {
                self.0.insert((space, other_start), (start, other));
            }
            if other_end > end {
                self.0.insert((space, end), (other_end, other));
            }
        }
        if end > start {
            self.0.insert((space, start), (end, owner));
        }
    }

    fn holds(&self, space: Space, start: u64, end: u64, owner: BufferId) -> bool {
        let mut at = start;
        while at < end {
            match self.0.range(..=(space, at)).next_back() {
                Some((&(found, _), &(other_end, other))) if found == space && other == owner && other_end > at => {
                    at = other_end;
                }
                Some(_) | None => return false,
            }
        }
        true
    }

    /// What both shadows agree on.
    fn meet(&self, other: &Shadow) -> Shadow {
        Shadow(self.0.iter().filter(|(key, value)| other.0.get(key) == Some(value)).map(|(k, v)| (*k, *v)).collect())
    }
}

struct Replay<'p> {
    plan: &'p Plan,
    profile: usize,
    shadow: Shadow,
    errors: &'p mut Vec<String>,
}

impl Replay<'_> {
    fn whole(&mut self) {
        let program = &self.plan.chosen.program;
        for (k, buffer) in program.buffers.iter().enumerate() {
            let id = BufferId(k as u32);
            if let Residency::Weight(constant) = &buffer.residency {
                if buffer.bytes.as_const() != i64::try_from(constant.bytes.len()).ok() {
                    self.error(format!("weight {id:?} has {} bytes, its type {}", constant.bytes.len(), buffer.bytes));
                }
                self.write(id, "the weights");
            }
        }
        self.segment(crate::lower::Program::INIT);
        for (name, input) in &program.inputs {
            self.write(program.tensor(*input).buffer, name);
        }
        self.segment(crate::lower::Program::MAIN);
        for (name, output) in &program.outputs {
            self.read(*output, name);
        }
    }

    fn segment(&mut self, id: SegmentId) {
        let program = &self.plan.chosen.program;
        for (k, step) in program.segment(id).iter().enumerate() {
            match step {
                Step::Work(work) => {
                    for input in work.inputs.iter().flatten() {
                        self.read(*input, &work.label);
                    }
                    for scratch in self.plan.scratch.iter().filter(|s| (s.segment, s.step) == (id, k)) {
                        self.write(scratch.buffer, &work.label);
                    }
                    for output in work.outputs.iter().flatten() {
                        self.write(program.tensor(*output).buffer, &work.label);
                    }
                    // Results and scratch must leave the operands, and each other, alone.
                    for tensor in work.inputs.iter().chain(&work.outputs).flatten() {
                        self.read(*tensor, &work.label);
                    }
                    for scratch in self.plan.scratch.iter().filter(|s| (s.segment, s.step) == (id, k)) {
                        self.read_buffer(scratch.buffer, &work.label);
                    }
                }
                Step::If { condition, then_segment, else_segment, label } => {
                    self.read(*condition, label);
                    let before = self.shadow.clone();
                    self.segment(*then_segment);
                    let after_then = std::mem::replace(&mut self.shadow, before);
                    self.segment(*else_segment);
                    self.shadow = self.shadow.meet(&after_then);
                }
            }
        }
    }

    fn place(&mut self, id: BufferId, step: &str) -> Option<(Space, u64, u64)> {
        let plan = self.plan;
        let program = &plan.chosen.program;
        let arena = &plan.arenas[self.profile];
        let found = [
            (Space::Weights, plan.weights.get(&id), plan.weight_bytes),
            (Space::Derived, plan.derived.get(&id), plan.derived_bytes),
            (Space::Arena, arena.offsets.get(&id), arena.bytes),
        ];
        let places: Vec<(Space, u64, u64)> =
            found.into_iter().filter_map(|(space, offset, end)| offset.map(|&offset| (space, offset, end))).collect();
        let [(space, offset, end)] = places.as_slice() else {
            self.error(format!("{step}: buffer {id:?} has {} places", places.len()));
            return None;
        };
        let size = arena::size_in(program, &plan.scratch, id, self.profile);
        if offset % arena::ALIGNMENT != 0 || offset + size > *end {
            self.error(format!("{step}: buffer {id:?}, {size} bytes at {offset}, does not fit its memory of {end}"));
        }
        Some((*space, *offset, offset + size))
    }

    fn write(&mut self, id: BufferId, step: &str) {
        if let Some((space, start, end)) = self.place(id, step) {
            self.shadow.write(space, start, end, id);
        }
    }

    fn read(&mut self, tensor: TensorId, step: &str) {
        let tensor = self.plan.chosen.program.tensor(tensor).clone();
        self.read_buffer(tensor.buffer, step);
    }

    fn read_buffer(&mut self, id: BufferId, step: &str) {
        if let Some((space, start, end)) = self.place(id, step)
            && !self.shadow.holds(space, start, end, id)
        {
            let profile = self.profile;
            self.error(format!("{step}: buffer {id:?} at {start}..{end} is not intact in profile {profile}"));
        }
    }

    fn error(&mut self, what: String) {
        self.errors.push(what);
    }
}
