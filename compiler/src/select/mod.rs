//! Program to [`Chosen`]: of each problem's alternatives one. Pure.
//!
//! Needs: a program whose every problem has an alternative (`lower` reports those without). [`select`] picks by
//! predicted time, ties going to the candidate whose key sorts first; [`select_by`] asks its caller.

use lapidary_templates::{Candidate, Launch};

use crate::lower::{Alternatives, Program, SegmentId, Step, Work};

/// A program and what was picked for each of its steps.
#[derive(Clone, Debug)]
pub struct Chosen {
    pub program: Program,
    /// For each segment and step the pick.
    picks: Vec<Vec<Pick>>,
}

/// What runs a step.
#[derive(Clone, Debug)]
pub enum Pick {
    /// The runtime's function, or for an `If` or a loop the runtime itself.
    Runtime,
    Kernels(Candidate),
}

impl Chosen {
    /// What was picked for a step.
    pub fn pick(&self, segment: SegmentId, step: usize) -> &Pick {
        &self.picks[segment.0 as usize][step]
    }

    /// The launches of all picked candidates.
    pub fn launches(&self) -> impl Iterator<Item = &Launch> {
        self.picks.iter().flatten().flat_map(|pick| match pick {
            Pick::Runtime => &[],
            Pick::Kernels(candidate) => candidate.launches.as_slice(),
        })
    }
}

/// Picks the alternative with the smallest predicted time for each problem.
pub fn select(program: Program) -> Chosen {
    select_by(program, &mut |_, candidates| {
        let quickest = |&a: &usize, &b: &usize| {
            candidates[a].cost.total_cmp(&candidates[b].cost).then_with(|| candidates[a].key.cmp(&candidates[b].key))
        };
        (0..candidates.len()).min_by(quickest).unwrap_or(0)
    })
}

/// Picks the alternative that `choose` names, by its position, for each problem that kernels solve.
pub fn select_by(program: Program, choose: &mut dyn FnMut(&Work, &[Candidate]) -> usize) -> Chosen {
    let mut pick = |step: &Step| {
        let Step::Work(work) = step else { return Pick::Runtime };
        match &work.alternatives {
            Alternatives::Cpu => Pick::Runtime,
            Alternatives::Cuda { candidates, .. } => match candidates.get(choose(work, candidates)) {
                Some(candidate) => Pick::Kernels(candidate.clone()),
                None => crate::bug!("{} has {} candidates, and another was chosen", work.label, candidates.len()),
            },
        }
    };
    let picks = program.segments.iter().map(|steps| steps.iter().map(&mut pick).collect()).collect();
    Chosen { program, picks }
}
