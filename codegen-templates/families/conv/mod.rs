//! Convolutions as implicit matrix products, and transposed convolutions: which kernels of `kernel.cuh` do one, with
//! which tiles, and how long each takes. Convolutions of few channels a group are `depthwise`'s.

pub mod geometry;
mod tiled;
mod transposed;

use lapidary_runtime::DType;
use lapidary_runtime::op::{Conv, Math};

use crate::arch::Arch;
use crate::candidate::{Answer, Shapes};
use crate::epilogue::Epilogue;
use crate::problem::{Kind, Problem};
use crate::program::Program;
use crate::tile;

use geometry::Geometry;

/// Implementations of a convolution, plain or transposed.
pub fn answer(problem: &Problem, arch: Arch, shapes: &Shapes<'_>) -> Answer {
    let answer = match &problem.kind {
        Kind::Conv(spec, program) => plain(problem, spec, program.as_ref(), arch, shapes),
        Kind::ConvTranspose(spec) => transposed::offers(problem, spec, arch, shapes),
        Kind::Pointwise(_)
        | Kind::MatMul(_, _)
        | Kind::Pool(_)
        | Kind::Reduce(_)
        | Kind::ArgReduce(_)
        | Kind::Softmax(_)
        | Kind::Attention(..)
        | Kind::Norm(..)
        | Kind::GroupNorm(..)
        | Kind::Transpose(_)
        | Kind::Expand
        | Kind::Slice { .. }
        | Kind::Concat { .. }
        | Kind::Pad { .. }
        | Kind::Gather { .. }
        | Kind::GatherElements { .. }
        | Kind::GatherNd { .. }
        | Kind::ScatterElements { .. }
        | Kind::ScatterNd { .. }
        | Kind::Resize(_)
        | Kind::RegionPool(_)
        | Kind::Recurrent(_)
        | Kind::Suppress
        | Kind::CumSum { .. }
        | Kind::TopK { .. }
        | Kind::Range
        | Kind::Extents(_)
        | Kind::Copy
        | Kind::Pair(_) => return Answer::default(),
    };
    Answer::or_refusal("conv", answer)
}

/// Fewer filters a group than this leave a matrix product's tiles empty.
const LEAST_FILTERS: i64 = 4;
/// The largest extent of a grid along y.
const GRID_Y: u32 = 65535;

fn plain(
    problem: &Problem,
    spec: &Conv,
    program: Option<&Program>,
    arch: Arch,
    shapes: &Shapes<'_>,
) -> Result<Answer, String> {
    let geometry = Geometry::of(problem, &spec.window, spec.groups, shapes)?;
    let [x, w] = geometry.types;
    let bytes = [x, w].iter().all(|dtype| matches!(dtype, DType::I8 | DType::U8));
    if x != w && !bytes {
        return Err(format!("its tiles multiply factors of one type, and these are {x} and {w}"));
    }
    let filters = shapes.max(&geometry.group_filters());
    if spec.groups > 1 && filters < LEAST_FILTERS {
        return Err(format!("a group has {filters} filters, which leaves a tile empty"));
    }
    if spec.groups > GRID_Y {
        return Err(format!("there are {} groups, and a grid has at most {GRID_Y} along y", spec.groups));
    }
    let epilogue = Epilogue::of(problem, program, 1, tile::accumulator(x))?;
    let job = Job { geometry, epilogue, math: spec.math, arch, shapes };
    let mut answer = Answer::default();
    job.offer_mma(&mut answer);
    job.offer_simt(&mut answer);
    Ok(answer)
}

/// A convolution to be offered kernels for.
struct Job<'a> {
    geometry: Geometry,
    epilogue: Epilogue,
    math: Math,
    arch: Arch,
    shapes: &'a Shapes<'a>,
}
