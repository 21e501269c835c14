//! Program to [`Chosen`]: of each problem's alternatives one. Pure.
//!
//! Needs: a program whose every problem has an alternative (`lower` reports those without). Picks by predicted time;
//! ties go to the candidate whose key sorts first.

use lapidary_templates::Candidate;

use crate::lower::{Alternatives, Program, SegmentId, Step};

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
    /// The runtime's function, or for an `If` the runtime itself.
    Runtime,
    Kernels(Candidate),
}

impl Chosen {
    /// What was picked for a step.
    pub fn pick(&self, segment: SegmentId, step: usize) -> &Pick {
        &self.picks[segment.0 as usize][step]
    }
}

/// Picks the alternative with the smallest predicted time for each problem.
pub fn select(program: Program) -> Chosen {
    let picks = program.segments.iter().map(|steps| steps.iter().map(pick).collect()).collect();
    Chosen { program, picks }
}

fn pick(step: &Step) -> Pick {
    let Step::Work(work) = step else { return Pick::Runtime };
    match &work.alternatives {
        Alternatives::Cpu => Pick::Runtime,
        Alternatives::Cuda { candidates, .. } => {
            let quickest = candidates.iter().min_by(|a, b| a.cost.total_cmp(&b.cost).then_with(|| a.key.cmp(&b.key)));
            match quickest {
                Some(candidate) => Pick::Kernels(candidate.clone()),
                None => crate::bug!("{} has no candidate", work.label),
            }
        }
    }
}
