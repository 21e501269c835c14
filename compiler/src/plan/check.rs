//! An independent judge of plans: replays the schedule over a shadow of each memory.
//!
//! It knows nothing of lifetimes, and takes sizes from the tensors that view a buffer and from the chosen candidates, not
//! from the planner. Each byte range of the shadow says which buffer wrote it last; a step may read a buffer only where
//! all its bytes are still its own. A tensor that is a part of a buffer is a range of its own: written over in part, it is
//! gone, so parts of one buffer leave each other alone, and together fill what is read as one. Behind an `If` only what both branches leave is there, behind a loop what any number
//! of rounds leaves.

use std::collections::BTreeMap;

use lapidary_templates::candidate::Param;
use lapidary_templates::{Expr, Launch};

use super::{Plan, Scratch};
use crate::lower::{BufferId, Loop, Program, Residency, SegmentId, Step, Tensor, TensorId, Work};
use crate::select::Pick;

/// A part of a buffer that kernels read or write begins at a multiple of this many bytes.
const LOAD: i64 = 16;

/// What kernels may rely on: each buffer starts at a multiple of this many bytes.
const ALIGNMENT: u64 = 256;

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
        let sizes = sizes(&plan, profile, &mut errors);
        let mut replay = Replay { plan: &plan, profile, sizes, shadow: Shadow::default(), errors: &mut errors };
        replay.whole();
    }
    if errors.is_empty() { Ok(CheckedPlan(plan)) } else { Err(errors) }
}

/// The bytes that each buffer must have in a profile: as many as the tensors that view all of it, or as the candidate asks for
/// that uses it as scratch memory. Views have equal sizes at every shape that the constraints accept, so the least of
/// their bounds holds for all: `[4, 16]` viewed as `[h, 16]` is no larger for an `h` that could be 64.
fn sizes(plan: &Plan, profile: usize, errors: &mut Vec<String>) -> BTreeMap<BufferId, u64> {
    let program = &plan.chosen.program;
    let mut wanted: Vec<(BufferId, &str, Expr)> = Vec::new();
    for tensor in program.tensors.iter().filter(|tensor| tensor.at.is_none()) {
        wanted.push((tensor.buffer, &tensor.name, bytes(tensor)));
    }
    for tensor in &program.tensors {
        let Some(at) = &tensor.at else { continue };
        let end = at.clone() + bytes(tensor);
        let mut wholes = program.tensors.iter().filter(|whole| whole.at.is_none() && whole.buffer == tensor.buffer);
        let is_inside = program.range(at, profile).0 >= 0
            && wholes.any(|whole| program.range(&(bytes(whole) - end.clone()), profile).0 >= 0);
        if !is_inside {
            errors.push(format!("{} reaches from byte {at} of {:?} to {end}", tensor.name, tensor.buffer));
        }
    }
    for scratch in &plan.scratch {
        let Pick::Kernels(candidate) = plan.chosen.pick(scratch.segment, scratch.step) else { continue };
        // Which of the candidate's buffers it is: the step's are numbered in order.
        let of_step = |other: &&Scratch| (other.segment, other.step) == (scratch.segment, scratch.step);
        let number = plan.scratch.iter().filter(of_step).position(|other| other.buffer == scratch.buffer);
        match number.and_then(|number| candidate.workspace.get(number)) {
            Some(bytes) => wanted.push((scratch.buffer, &candidate.key, bytes.clone())),
            None => errors.push(format!("{:?} is scratch memory of nothing", scratch.buffer)),
        }
    }
    let mut sizes = BTreeMap::new();
    for (buffer, what, bytes) in wanted {
        let (_, most) = program.range(&bytes, profile);
        // Sums of sizes must not overflow either.
        // An extent below 0 breaks a constraint, so that no shape of the profile reaches the runtime with it.
        match u64::try_from(most.max(0)) {
            Ok(most) if most < 1 << 56 => {
                let size = sizes.entry(buffer).or_insert(most);
                *size = most.min(*size);
            }
            Ok(_) | Err(_) => errors.push(format!("{what} takes up to {most} bytes")),
        }
    }
    sizes
}

fn bytes(tensor: &Tensor) -> Expr {
    (Expr::from(tensor.ty.dtype.bits()) * tensor.ty.count()).ceil_div(&Expr::constant(8))
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
        if start >= end {
            return;
        }
        let overlapping: Vec<_> = self
            .0
            .range((space, 0)..(space, end))
            .filter(|(_, (other_end, _))| *other_end > start)
            .map(|(key, value)| (*key, *value))
            .collect();
        // What is written over in part is no longer what was written there, not even the rest of it.
        for (key, _) in overlapping {
            self.0.remove(&key);
        }
        self.0.insert((space, start), (end, owner));
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
    sizes: BTreeMap<BufferId, u64>,
    shadow: Shadow,
    errors: &'p mut Vec<String>,
}

impl Replay<'_> {
    fn whole(&mut self) {
        let program = &self.plan.chosen.program;
        for (k, buffer) in program.buffers.iter().enumerate() {
            let id = BufferId(k as u32);
            if let Residency::Weight(constant) = &buffer.residency {
                let size = self.sizes.get(&id).copied().unwrap_or(0);
                if size != constant.bytes.len() as u64 {
                    self.error(format!("weight {id:?} has {} bytes, its tensors {size}", constant.bytes.len()));
                }
                self.write_buffer(id, "the weights");
            }
        }
        self.segment(Program::INIT);
        // A session's arena is not there yet when the init steps run.
        if self.shadow.0.keys().any(|(space, _)| *space == Space::Arena) {
            self.error("an init step writes an activation".to_owned());
        }
        for (name, input) in &program.inputs {
            self.write(*input, name);
        }
        if let Some(run_count) = program.run_count {
            self.write(run_count, "the run count");
        }
        self.segment(Program::MAIN);
        for (name, output) in &program.outputs {
            self.read(*output, name);
        }
    }

    fn segment(&mut self, id: SegmentId) {
        let program = &self.plan.chosen.program;
        for (k, step) in program.segment(id).iter().enumerate() {
            match step {
                Step::Work(work) => self.work(work, id, k),
                Step::Count { at, label, .. } => self.read(*at, label),
                Step::If { condition, then_segment, else_segment, label, .. } => {
                    self.read(*condition, label);
                    let before = self.shadow.clone();
                    self.segment(*then_segment);
                    let after_then = std::mem::replace(&mut self.shadow, before);
                    self.segment(*else_segment);
                    self.shadow = self.shadow.meet(&after_then);
                }
                Step::Loop(step) => self.rounds(step),
            }
        }
    }

    /// Two rounds: the second reads what the first left, and what was there before must have outlived it. More change
    /// nothing, as each round writes the same places. Behind the loop only what every number of rounds leaves is there.
    fn rounds(&mut self, step: &Loop) {
        let label = &step.label;
        step.limit.iter().for_each(|&limit| self.read(limit, label));
        for &(_, all) in &step.rows {
            self.write(all, label);
        }
        if let Some(rounds) = &step.rounds {
            self.write(rounds.round, label);
        }
        let none = self.shadow.clone();
        for _ in 0..2 {
            step.condition.iter().for_each(|&condition| self.read(condition, label));
            self.segment(step.body);
            for &(row, all) in &step.rows {
                self.read(row, label);
                self.read(all, label);
            }
            step.rounds.iter().for_each(|rounds| self.read(rounds.round, label));
        }
        step.condition.iter().for_each(|&condition| self.read(condition, label));
        self.shadow = self.shadow.meet(&none);
    }

    fn work(&mut self, work: &Work, segment: SegmentId, step: usize) {
        let plan = self.plan;
        let scratch = || plan.scratch.iter().filter(move |scratch| (scratch.segment, scratch.step) == (segment, step));
        if let Pick::Kernels(candidate) = plan.chosen.pick(segment, step)
            && scratch().count() != candidate.workspace.len()
        {
            self.error(format!("{}: {} needs other scratch memory", work.label, candidate.key));
        }
        if let Pick::Kernels(candidate) = plan.chosen.pick(segment, step) {
            candidate.launches.iter().for_each(|launch| self.counters(launch, &work.label));
            for tensor in work.inputs.iter().chain(&work.outputs).flatten() {
                self.begins_well(*tensor, &work.label);
            }
        }
        for input in work.inputs.iter().flatten() {
            self.read(*input, &work.label);
        }
        for scratch in scratch() {
            self.write_buffer(scratch.buffer, &work.label);
        }
        for output in work.outputs.iter().flatten() {
            self.write(*output, &work.label);
        }
        // Results and scratch must leave the operands, and each other, alone.
        for tensor in work.inputs.iter().chain(&work.outputs).flatten() {
            self.read(*tensor, &work.label);
        }
        for scratch in scratch() {
            self.read_buffer(scratch.buffer, &work.label);
        }
    }

    /// Whether a tensor of kernels begins where their widest loads may.
    fn begins_well(&mut self, tensor: TensorId, step: &str) {
        let tensor = self.plan.chosen.program.tensor(tensor);
        if let Some(at) = tensor.at.clone().filter(|at| at.terms().any(|(_, bytes)| bytes % LOAD != 0)) {
            let name = tensor.name.clone();
            self.error(format!("{step}: {name} begins at byte {at}, and kernels load {LOAD} bytes at once"));
        }
    }

    /// Whether the counters that a launch asks for are there. They are memory of their own, so nothing else writes them.
    fn counters(&mut self, launch: &Launch, step: &str) {
        for param in &launch.params {
            let Param::Counters(wanted) = param else { continue };
            let (_, most) = self.plan.chosen.program.range(wanted, self.profile);
            let has = self.plan.counter_bytes / 4;
            if u64::try_from(most.max(0)).map_or(true, |most| most > has) {
                self.error(format!("{step}: up to {most} counters, and there are {has}"));
            }
        }
    }

    fn place(&mut self, id: BufferId, step: &str) -> Option<(Space, u64, u64)> {
        let plan = self.plan;
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
        let size = self.sizes.get(&id).copied().unwrap_or(0);
        if offset % ALIGNMENT != 0 || offset + size > *end {
            self.error(format!("{step}: buffer {id:?}, {size} bytes at {offset}, does not fit its memory of {end}"));
        }
        Some((*space, *offset, offset + size))
    }

    /// The range of a tensor. Where parts of a buffer meet, the end of one and the start of the next are one formula, and
    /// so have one bound.
    fn range(&mut self, id: TensorId, step: &str) -> Option<(Space, u64, u64)> {
        let program = &self.plan.chosen.program;
        let tensor = program.tensor(id);
        let (space, start, end) = self.place(tensor.buffer, step)?;
        let Some(at) = &tensor.at else { return Some((space, start, end)) };
        let bound = |expr: &Expr| {
            let most = program.range(expr, self.profile).1;
            start.saturating_add(u64::try_from(most).unwrap_or(0)).min(end)
        };
        Some((space, bound(at), bound(&(at.clone() + bytes(tensor)))))
    }

    fn write(&mut self, id: TensorId, step: &str) {
        if let Some((space, start, end)) = self.range(id, step) {
            self.shadow.write(space, start, end, self.plan.chosen.program.tensor(id).buffer);
        }
    }

    fn write_buffer(&mut self, id: BufferId, step: &str) {
        if let Some((space, start, end)) = self.place(id, step) {
            self.shadow.write(space, start, end, id);
        }
    }

    fn read(&mut self, id: TensorId, step: &str) {
        let range = self.range(id, step);
        self.intact(self.plan.chosen.program.tensor(id).buffer, range, step);
    }

    fn read_buffer(&mut self, id: BufferId, step: &str) {
        let range = self.place(id, step);
        self.intact(id, range, step);
    }

    fn intact(&mut self, id: BufferId, range: Option<(Space, u64, u64)>, step: &str) {
        if let Some((space, start, end)) = range
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::text;
    use crate::lower::{Target, lower};
    use crate::plan::plan;
    use crate::select::select_by;

    /// Two products of sums, so that buffers come and go; a packed weight; a product with scratch memory on a GPU.
    const GRAPH: &str = r#"graph "g" {
  symbol n = input 0 axis 0, 1..2..4
  input %0 "x" f16[n, 512]
  const %1 "w" f16[512, 512] = init "w"
  %2 "a" f16[n, 512] = matmul(%0, %1) from "A"
  %3 "b" f16[n, 512] = matmul(%2, %1) from "B"
  %4 "c" f16[n, 512] = pointwise(%2, %3) { in f16 f16; s0 = add f16 in0 in1; out s0 } from "C"
  %5 "d" f16[n, 512] = matmul(%4, %1) from "D"
  output "d" %5
}"#;

    fn planned(target: &str) -> Plan {
        let weight = |_: &str| Some(vec![0u8; 2 * 512 * 512].into());
        let graph = text::parse(GRAPH, &weight).expect("a graph");
        let program = lower(&graph, target.parse::<Target>().expect("a target")).expect("kernels");
        plan(select_by(program, &mut |_, candidates| {
            candidates.iter().position(|candidate| !candidate.workspace.is_empty()).unwrap_or(0)
        }))
    }

    fn offset(plan: &mut Plan, name: &str) -> (BufferId, u64) {
        let tensor = plan.chosen.program.tensors.iter().find(|tensor| &*tensor.name == name).expect("a tensor");
        (tensor.buffer, plan.arenas[0].offsets[&tensor.buffer])
    }

    /// Says that a plan is good, and no longer behind `damage`.
    fn notices(target: &str, damage: impl FnOnce(&mut Plan), expected: &str) {
        let mut plan = planned(target);
        check(plan.clone()).expect("a good plan");
        damage(&mut plan);
        let errors = check(plan).map(|_| ()).expect_err(expected).join("; ");
        assert!(errors.contains(expected), "{errors}");
    }

    #[test]
    fn a_buffer_in_the_place_of_one_that_is_read_later() {
        notices(
            "cpu",
            |plan| {
                let (_, a) = offset(plan, "a");
                let (b, _) = offset(plan, "b");
                plan.arenas[0].offsets.insert(b, a);
            },
            "is not intact",
        );
    }

    #[test]
    fn a_step_before_its_operands_are_there() {
        notices("cpu", |plan| plan.chosen.program.segments[1].swap(0, 1), "is not intact");
    }

    #[test]
    fn a_buffer_without_a_place_or_with_a_crooked_one() {
        let without = |plan: &mut Plan| {
            let (a, _) = offset(plan, "a");
            plan.arenas[0].offsets.remove(&a);
        };
        notices("cpu", without, "has 0 places");
        let crooked = |plan: &mut Plan| {
            let (a, at) = offset(plan, "a");
            plan.arenas[0].offsets.insert(a, at + 4);
        };
        notices("cpu", crooked, "does not fit");
    }

    #[test]
    fn an_arena_or_a_weight_file_that_is_too_short() {
        notices("cpu", |plan| plan.arenas[0].bytes -= 256, "does not fit");
        notices("cpu", |plan| plan.weight_bytes -= 256, "does not fit");
    }

    #[test]
    fn a_tensor_that_is_larger_than_its_buffer() {
        let grown = |plan: &mut Plan| {
            let tensor = plan.chosen.program.tensors.iter_mut().find(|tensor| &*tensor.name == "a").expect("a tensor");
            tensor.ty.dims[1] = Expr::constant(1 << 20);
        };
        notices("cpu", grown, "does not fit");
    }

    /// A reshape that relies on an extent: its view is bounded by its operand, not by the extent's range.
    #[test]
    fn a_view_is_as_large_as_what_it_views() {
        let graph = r#"graph "g" {
  symbol h = input 0 axis 0, 1..4..64
  constraint equal(64, 16*h) "R"
  input %0 "x" f32[h]
  input %1 "v" f32[4, 16]
  %2 "r" f32[h, 16] = reshape(%1) { dims [h, 16] } from "R"
  %3 "y" f32[h, 16] = pointwise(%2) { in f32; s0 = neg f32 in0; out s0 } from "N"
  output "y" %3
}"#;
        let graph = text::parse(graph, &|_| None).expect("a graph");
        let program = lower(&graph, Target::Cpu).expect("functions");
        check(plan(select_by(program, &mut |_, _| 0))).expect("a good plan");
    }

    /// Two parts that are computed in their places, and a part that is read.
    const PARTS: &str = r#"graph "g" {
  symbol n = input 0 axis 1, 1..2..4
  input %0 "x" f32[1, n, 64]
  %1 "a" f32[1, n, 64] = pointwise(%0) { in f32; s0 = neg f32 in0; out s0 } from "A"
  %2 "b" f32[1, n, 64] = pointwise(%1) { in f32; s0 = exp f32 in0; out s0 } from "B"
  %3 "c" f32[1, 2*n, 64] = concat(%1, %2) { axis 1 } from "C"
  %4 "d" f32[1, 1, 64] = slice(%3) { starts [0, n, 0] steps [1, 1, 1] dims [1, 1, 64] } from "S"
  %5 "e" f32[1, 2*n, 64] = pointwise(%3, %4) { in f32 f32; s0 = add f32 in0 in1; out s0 } from "E"
  output "e" %5
}"#;

    fn notices_in_parts(name: &str, at: &str, expected: &str) {
        for target in ["cpu", "sm_90a"] {
            let graph = text::parse(PARTS, &|_| None).expect("a graph");
            let program = lower(&graph, target.parse::<Target>().expect("a target")).expect("kernels");
            let mut plan = plan(select_by(program, &mut |_, _| 0));
            check(plan.clone()).expect("a good plan");
            let mut tensors = plan.chosen.program.tensors.iter_mut();
            let part = tensors.find(|tensor| &*tensor.name == name).and_then(|tensor| tensor.at.as_mut());
            *part.expect("a part") = at.parse().expect("a formula");
            let errors = check(plan).map(|_| ()).expect_err(expected).join("; ");
            assert!(errors.contains(expected), "{errors}");
        }
    }

    #[test]
    fn parts_that_overlap_leave_a_hole_or_reach_beyond_the_whole() {
        notices_in_parts("b", "0", "is not intact");
        notices_in_parts("b", "256*n - 16", "is not intact");
        notices_in_parts("a", "256", "is not intact");
        notices_in_parts("b", "256*n + 16", "reaches from byte");
        notices_in_parts("a", "-16", "reaches from byte");
        notices_in_parts("d", "512*n", "reaches from byte");
        let graph = text::parse(PARTS, &|_| None).expect("a graph");
        let program = lower(&graph, "sm_90a".parse::<Target>().expect("a target")).expect("kernels");
        let mut plan = plan(select_by(program, &mut |_, _| 0));
        let part = plan.chosen.program.tensors.iter_mut().find(|tensor| &*tensor.name == "d");
        part.expect("a part").at = Some("256*n + 8".parse().expect("a formula"));
        let errors = check(plan).map(|_| ()).expect_err("a crooked part").join("; ");
        assert!(errors.contains("begins at byte"), "{errors}");
    }

    /// A loop that carries a and reads the capture c in every round, and collects b.
    const LOOP: &str = r#"graph "g" {
  input %0 "x" f32[512]
  %1 "c" f32[512] = pointwise(%0) { in f32; s0 = neg f32 in0; out s0 } from "C"
  %2 "a" f32[512], %3 "all" f32[9, 512] = loop(_, _, %0, %1) { carried 1 most (9) body "body" {
    input %0 "round" i64[]
    input %1 "s" f32[512]
    input %2 "c" f32[512]
    %3 "t" f32[512] = pointwise(%1, %2) { in f32 f32; s0 = add f32 in0 in1; out s0 } from "T"
    %4 "b" f32[512] = pointwise(%3) { in f32; s0 = exp f32 in0; out s0 } from "B"
    output "next" %3
    output "row" %4
  } } from "L"
  output "a" %2
  output "all" %3
}"#;

    fn notices_in_loop(target: &str, damage: impl FnOnce(&mut Plan), expected: &str) {
        let graph = text::parse(LOOP, &|_| None).expect("a graph");
        let program = lower(&graph, target.parse::<Target>().expect("a target")).expect("kernels");
        let mut plan = plan(select_by(program, &mut |_, _| 0));
        check(plan.clone()).expect("a good plan");
        damage(&mut plan);
        let errors = check(plan).map(|_| ()).expect_err(expected).join("; ");
        assert!(errors.contains(expected), "{errors}");
    }

    /// Puts the buffer of one tensor in the place of another's.
    fn put(plan: &mut Plan, name: &str, at: &str) {
        let (_, at) = offset(plan, at);
        let (buffer, _) = offset(plan, name);
        plan.arenas[0].offsets.insert(buffer, at);
    }

    #[test]
    fn what_a_loop_reads_again_outlives_its_rounds() {
        // In the first round the capture is still there, in the second it is not.
        notices_in_loop("cpu", |plan| put(plan, "b", "c"), "is not intact");
        notices_in_loop("cpu", |plan| put(plan, "b", "a"), "is not intact");
        notices_in_loop("cpu", |plan| put(plan, "t", "all"), "is not intact");
        notices_in_loop("cpu", |plan| put(plan, "b", "t"), "is not intact");
    }

    #[test]
    fn the_number_of_the_round_outlives_the_loop() {
        notices_in_loop("sm_90a", |plan| put(plan, "round", "t"), "is not intact");
        notices_in_loop("sm_90a", |plan| put(plan, "round", "c"), "is not intact");
        notices_in_loop("sm_90a", |plan| put(plan, "b", "round"), "is not intact");
    }

    #[test]
    fn a_round_that_does_not_write_what_the_next_one_reads() {
        let forgets = |plan: &mut Plan| drop(plan.chosen.program.segments[2].remove(0));
        notices_in_loop("cpu", forgets, "is not intact");
    }

    #[test]
    fn counters_that_are_missing_or_too_few() {
        assert!(planned("sm_90a").counter_bytes > 0, "the graph shows nothing: no kernel with counters");
        notices("sm_90a", |plan| plan.counter_bytes = 0, "counters, and there are 0");
        notices("sm_90a", |plan| plan.counter_bytes -= 4, "counters, and there are");
    }

    #[test]
    fn scratch_memory_that_is_missing_or_shared() {
        assert!(!planned("sm_90a").scratch.is_empty(), "the graph shows nothing: no candidate with scratch memory");
        notices("sm_90a", |plan| plan.scratch.clear(), "needs other scratch memory");
        let shared = |plan: &mut Plan| {
            let scratch = plan.scratch[0].buffer;
            let (_, at) = offset(plan, "a");
            plan.arenas[0].offsets.insert(scratch, at);
        };
        notices("sm_90a", shared, "is not intact");
    }
}
