//! The halves of squeeze-and-excitation: a reduction of planes with the product behind it, and a product with the pointwise
//! program that spreads it over planes.
//!
//! Both answer pairs of problems. What a pair costs by itself is for `lower` to compare.

mod excite;
mod planes;

use lapidary_runtime::DType;
use lapidary_runtime::op::Conv;

use crate::arch::Arch;
use crate::candidate::{Answer, Candidate, Shapes};
use crate::extent::Expr;
use crate::problem::{Kind, Operand, Pair, Problem};

use excite::Excite;
use planes::Squeeze;

const FAMILY: &str = "squeeze";
/// The largest extent of a grid along y.
const GRID_Y: i64 = 65535;
/// Microseconds of a round of loads from L2 that nothing hides.
const ROUND: f64 = 0.35;

/// Implementations of the pairs.
pub fn answer(problem: &Problem, arch: Arch, shapes: &Shapes<'_>) -> Answer {
    let Kind::Pair(pair) = &problem.kind else { return Answer::default() };
    let Pair { first, second, at } = &**pair;
    let candidate = match (&first.kind, &second.kind) {
        (Kind::Reduce(reduce), Kind::Conv(conv, program)) if *at == 0 => {
            Squeeze::of(problem, pair, (*reduce, conv, program.as_ref()), shapes)
                .map(|squeeze| squeeze.candidate(arch, shapes))
        }
        (Kind::Conv(conv, inner), Kind::Pointwise(outer)) => {
            Excite::of(problem, pair, (conv, inner.as_ref(), outer), shapes)
                .map(|excite| excite.candidate(arch, shapes))
        }
        _ => return Answer::default(),
    };
    let only = |candidate: Candidate| Answer { candidates: vec![candidate], refusals: Vec::new() };
    Answer::or_refusal(FAMILY, candidate.map(only))
}

/// Whether kernels count these extents by 32 bits, and a grid's y the images.
fn check_extents(extents: &[&Expr], images: &Expr, shapes: &Shapes<'_>) -> Result<(), String> {
    for extent in extents {
        if shapes.max(extent) > i64::from(i32::MAX) {
            return Err(format!("{extent} may be {}, and kernels index it by 32 bits", shapes.max(extent)));
        }
    }
    match shapes.max(images) {
        ..=GRID_Y => Ok(()),
        most => Err(format!("there may be {most} images, and a grid has at most {GRID_Y} along y")),
    }
}

/// Whether a convolution is a product of matrices of one pixel.
fn check_product(x: &Operand, w: &Operand, conv: &Conv) -> Result<(), String> {
    let one_pixel = |operand: &Operand| operand.dims.len() > 2 && operand.dims[2..].iter().all(|dim| dim.is(1));
    let window = &conv.window;
    let plain = window.pad_lo.iter().chain(&window.pad_hi).all(|pad| *pad == 0) && conv.groups == 1;
    if one_pixel(x) && one_pixel(w) && plain { Ok(()) } else { Err("it multiplies one pixel's channels".to_owned()) }
}

fn check_types(operands: [&Operand; 3]) -> Result<(), String> {
    let first = operands[0].dtype;
    let sums = matches!(first, DType::F32 | DType::F16 | DType::BF16);
    if sums && operands.iter().all(|operand| operand.dtype == first) {
        return Ok(());
    }
    let types: Vec<&str> = operands.iter().map(|operand| operand.dtype.name()).collect();
    Err(format!("its operands are of one type, f32, f16 or bf16, and these are {}", types.join(", ")))
}
