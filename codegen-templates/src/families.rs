//! The kernel families: for each kind of problem, who offers implementations.
//!
//! A family is one folder, `families/<name>` at the crate's root: `mod.rs` (candidates, legality, predicted cost),
//! `kernel.cuh` (the kernel itself), `README.md` (the algorithm and its limits). To add one, add the folder, its `mod`
//! line and its [`Family`] here, and its header to [`crate::headers`].

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
