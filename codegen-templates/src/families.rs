//! The kernel families: for each kind of problem, who offers implementations.
//!
//! A family is one folder, `families/<name>` at the crate's root: `mod.rs` (candidates, legality, predicted cost),
//! `kernel.cuh` (the kernel itself), `README.md` (the algorithm and its limits). To add one, add the folder, its `mod`
//! line and its [`Family`] here, and its header to [`crate::headers`]. [`control`] stands apart: it solves no problem.

use crate::arch::Arch;
use crate::candidate::{Answer, Family, Shapes};
use crate::packed;
use crate::problem::Problem;

#[path = "../families/attention/mod.rs"]
pub mod attention;
#[path = "../families/control/mod.rs"]
pub mod control;
#[path = "../families/conv/mod.rs"]
pub mod conv;
#[path = "../families/copy/mod.rs"]
pub mod copy;
#[path = "../families/depthwise/mod.rs"]
pub mod depthwise;
#[path = "../families/fill/mod.rs"]
pub mod fill;
#[path = "../families/gather/mod.rs"]
pub mod gather;
#[path = "../families/gemm/mod.rs"]
pub mod gemm;
#[path = "../families/norm/mod.rs"]
pub mod norm;
#[path = "../families/pointwise/mod.rs"]
pub mod pointwise;
#[path = "../families/pool/mod.rs"]
pub mod pool;
#[path = "../families/recurrent/mod.rs"]
pub mod recurrent;
#[path = "../families/reduce/mod.rs"]
pub mod reduce;
#[path = "../families/region/mod.rs"]
pub mod region;
#[path = "../families/resize/mod.rs"]
pub mod resize;
#[path = "../families/scan/mod.rs"]
pub mod scan;
#[path = "../families/scatter/mod.rs"]
pub mod scatter;
#[path = "../families/softmax/mod.rs"]
pub mod softmax;
#[path = "../families/squeeze/mod.rs"]
pub mod squeeze;
#[path = "../families/suppress/mod.rs"]
pub mod suppress;
#[path = "../families/topk/mod.rs"]
pub mod topk;

/// Every family, in the order in which ties are broken.
pub const FAMILIES: &[Family] = &[
    Family { name: "gemm", answer: gemm::answer },
    Family { name: "conv", answer: conv::answer },
    Family { name: "depthwise", answer: depthwise::answer },
    Family { name: "copy", answer: copy::answer },
    Family { name: "pointwise", answer: pointwise::answer },
    Family { name: "reduce", answer: reduce::answer },
    Family { name: "softmax", answer: softmax::answer },
    Family { name: "attention", answer: attention::answer },
    Family { name: "norm", answer: norm::answer },
    Family { name: "pool", answer: pool::answer },
    Family { name: "resize", answer: resize::answer },
    Family { name: "gather", answer: gather::answer },
    Family { name: "scatter", answer: scatter::answer },
    Family { name: "fill", answer: fill::answer },
    Family { name: "recurrent", answer: recurrent::answer },
    Family { name: "region", answer: region::answer },
    Family { name: "scan", answer: scan::answer },
    Family { name: "squeeze", answer: squeeze::answer },
    Family { name: "suppress", answer: suppress::answer },
    Family { name: "topk", answer: topk::answer },
];

/// What all families offer for a problem.
pub fn answer(problem: &Problem, arch: Arch, shapes: &Shapes<'_>) -> Answer {
    if let Some(bytes) = packed::on_bytes(problem) {
        return Answer::or_refusal("packed", packed::of_bytes(problem, answer(&bytes, arch, shapes), arch, shapes));
    }
    let mut all = Answer::default();
    for family in FAMILIES {
        let Answer { candidates, refusals } = (family.answer)(problem, arch, shapes);
        all.candidates.extend(candidates);
        all.refusals.extend(refusals);
    }
    all
}
