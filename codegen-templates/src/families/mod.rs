//! The kernel families: for each kind of problem, who offers implementations.
//!
//! A family's Rust side lies in a file here and its CUDA side in `families/<name>/kernel.cuh` at the crate's root.

use crate::arch::Arch;
use crate::candidate::{Answer, Family, Shapes};
use crate::problem::Problem;

/// Every family, in the order in which ties are broken.
pub const FAMILIES: &[Family] = &[];

/// What all families offer for a problem.
pub fn answer(problem: &Problem, arch: Arch, shapes: &Shapes<'_>) -> Answer {
    let mut all = Answer::default();
    for family in FAMILIES {
        let Answer { candidates, refusals } = (family.answer)(problem, arch, shapes);
        all.candidates.extend(candidates);
        all.refusals.extend(refusals);
    }
    all
}
