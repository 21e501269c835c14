//! Chosen to [`Plan`]: the order of steps, the life of each buffer, and where it lies.
//!
//! Does: put weights and derived buffers one behind the other, pack the activations of each profile into one arena.
//! Needs: a chosen program. Keeps: the order of the program's steps. Not here: whether it is right; [`check`] judges
//! that on its own, and only a [`CheckedPlan`] goes on.

mod arena;
mod check;
mod lifetime;
mod tables;

use std::collections::BTreeMap;

use lapidary_templates::Expr;
use lapidary_templates::candidate::Param;

use crate::lower::{BufferId, Program, Residency, SegmentId, Step};
use crate::select::{Chosen, Pick};

pub use arena::ALIGNMENT;
pub use check::{CheckedPlan, check};
pub use lifetime::Lifetime;
pub use tables::tables;

/// A chosen program with a place for every buffer.
#[derive(Clone, Debug)]
pub struct Plan {
    pub chosen: Chosen,
    /// Scratch buffers, behind the program's own: the step that uses it, and its size.
    pub scratch: Vec<Scratch>,
    /// Of each weight the offset in `weights.bin`.
    pub weights: BTreeMap<BufferId, u64>,
    pub weight_bytes: u64,
    /// Of each derived buffer, and of each scratch buffer of the init segment, the offset in derived memory.
    pub derived: BTreeMap<BufferId, u64>,
    pub derived_bytes: u64,
    /// The counters that the kernels of a session share.
    pub counter_bytes: u64,
    /// Of each arena buffer the steps between which it holds something.
    pub lifetimes: BTreeMap<BufferId, Lifetime>,
    /// Of each profile the arena.
    pub arenas: Vec<Arena>,
}

/// A buffer that one step's kernels share.
#[derive(Clone, Debug)]
pub struct Scratch {
    pub buffer: BufferId,
    pub segment: SegmentId,
    pub step: usize,
    pub bytes: Expr,
}

/// The memory of a profile's activations.
#[derive(Clone, Debug, Default)]
pub struct Arena {
    pub bytes: u64,
    /// The most bytes that live at once; no arena can be smaller.
    pub least_bytes: u64,
    pub offsets: BTreeMap<BufferId, u64>,
}

/// Plans a chosen program.
pub fn plan(chosen: Chosen) -> Plan {
    let scratch = scratch_of(&chosen);
    let lifetimes = lifetime::lifetimes(&chosen.program, &scratch);
    let program = &chosen.program;
    let mut weights = Packer::default();
    let mut derived = Packer::default();
    for (k, buffer) in program.buffers.iter().enumerate() {
        let id = BufferId(k as u32);
        match buffer.residency {
            Residency::Weight(_) => weights.put(id, constant_bytes(&buffer.bytes)),
            Residency::Derived => derived.put(id, constant_bytes(&buffer.bytes)),
            Residency::Arena => {}
        }
    }
    for scratch in scratch.iter().filter(|scratch| scratch.segment == Program::INIT) {
        derived.put(scratch.buffer, constant_bytes(&scratch.bytes));
    }
    let arenas = (0..program.profile_count())
        .map(|profile| {
            let size = |id: BufferId| arena::size_in(program, &scratch, id, profile);
            arena::pack(&lifetimes, size)
        })
        .collect();
    Plan {
        counter_bytes: counter_bytes(&chosen),
        scratch,
        weights: weights.offsets,
        weight_bytes: weights.end,
        derived: derived.offsets,
        derived_bytes: derived.end,
        lifetimes,
        arenas,
        chosen,
    }
}

/// The scratch buffers that picked kernels ask for, numbered behind the program's buffers.
fn scratch_of(chosen: &Chosen) -> Vec<Scratch> {
    let mut scratch = Vec::new();
    for (k, steps) in chosen.program.segments.iter().enumerate() {
        let segment = SegmentId(k as u32);
        for step in 0..steps.len() {
            let Pick::Kernels(candidate) = chosen.pick(segment, step) else { continue };
            for bytes in &candidate.workspace {
                let buffer = BufferId((chosen.program.buffers.len() + scratch.len()) as u32);
                scratch.push(Scratch { buffer, segment, step, bytes: bytes.clone() });
            }
        }
    }
    scratch
}

/// As many counters as the launch that uses most of them. One launch runs at a time, and leaves them as they were.
fn counter_bytes(chosen: &Chosen) -> u64 {
    const WORD: u64 = 4;
    let program = &chosen.program;
    let most = |counters: &Expr| (0..program.profile_count()).map(|profile| program.range(counters, profile).1).max();
    let launches = chosen.launches();
    let counters = launches.flat_map(|launch| &launch.params).filter_map(|param| match param {
        Param::Counters(counters) => most(counters),
        Param::Input(..)
        | Param::Output(..)
        | Param::Workspace(..)
        | Param::I32(_)
        | Param::I64(_)
        | Param::F32(_)
        | Param::Handle(_) => None,
    });
    WORD * u64::try_from(counters.max().unwrap_or(0)).unwrap_or(0)
}

/// Lays buffers one behind the other.
#[derive(Default)]
struct Packer {
    offsets: BTreeMap<BufferId, u64>,
    end: u64,
}

impl Packer {
    fn put(&mut self, id: BufferId, bytes: u64) {
        self.offsets.insert(id, self.end);
        self.end += bytes.next_multiple_of(ALIGNMENT);
    }
}

fn constant_bytes(bytes: &Expr) -> u64 {
    match bytes.as_const().and_then(|bytes| u64::try_from(bytes).ok()) {
        Some(bytes) => bytes,
        None => crate::bug!("a persistent buffer of {bytes} bytes"),
    }
}

impl Plan {
    /// The bytes of `weights.bin`.
    pub fn weight_file(&self) -> Vec<u8> {
        let mut file = vec![0; self.weight_bytes as usize];
        for (id, &offset) in &self.weights {
            let Residency::Weight(constant) = &self.chosen.program.buffer(*id).residency else {
                crate::bug!("buffer {id:?} is no weight");
            };
            file[offset as usize..][..constant.bytes.len()].copy_from_slice(&constant.bytes);
        }
        file
    }

    /// The number of kernel launches and other steps of a run, all branches counted, and loops once.
    pub fn step_count(&self) -> usize {
        let segments = self.chosen.program.segments.iter().enumerate();
        segments
            .filter(|(k, _)| SegmentId(*k as u32) != Program::INIT)
            .map(|(k, steps)| {
                let count = |(step, item): (usize, &Step)| match (item, self.chosen.pick(SegmentId(k as u32), step)) {
                    (Step::Work(_), Pick::Kernels(candidate)) => candidate.launches.len(),
                    (Step::Work(_) | Step::If { .. } | Step::Loop(_) | Step::Count { .. }, _) => 1,
                };
                steps.iter().enumerate().map(count).sum::<usize>()
            })
            .sum()
    }
}
