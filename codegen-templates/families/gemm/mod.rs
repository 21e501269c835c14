//! Matrix products: which of the kernels in `kernel.cuh` form one, with which tiles, and how long each takes.
//!
//! Also does convolutions whose window covers their whole input, which are matrix products.

mod gemv;
mod product;
mod tiled;

use lapidary_runtime::DType;
use lapidary_runtime::op::{Conv, Math};

use crate::arch::Arch;
use crate::candidate::{Answer, Candidate, Launch, Shapes};
use crate::epilogue::Epilogue;
use crate::problem::{Kind, Problem};
use crate::program::Program;
use crate::split::{self, Split, Tiles};
use crate::{Expr, cost, print, tile};

use product::Product;

/// Implementations of a matrix product.
pub fn answer(problem: &Problem, arch: Arch, shapes: &Shapes<'_>) -> Answer {
    let product = match &problem.kind {
        Kind::MatMul(spec, program) => {
            Product::of_matmul(problem, spec, program.as_ref()).map(|product| (product, spec.math))
        }
        Kind::Conv(spec, program) => match dense_conv(problem, spec, program.as_ref()) {
            Some(product) => product.map(|product| (product, spec.math)),
            None => return Answer::default(),
        },
        Kind::Pointwise(_)
        | Kind::ConvTranspose(_)
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
    Answer::or_refusal("gemm", product.and_then(|(product, math)| offers(&product, math, arch, shapes)))
}

/// The product that a convolution is; `None` if it is none.
fn dense_conv(problem: &Problem, spec: &Conv, program: Option<&Program>) -> Option<Result<Product, String>> {
    let window = &spec.window;
    let rank = usize::from(window.rank);
    let unpadded = window.pad_lo.iter().chain(&window.pad_hi).all(|pad| *pad == 0);
    let undilated = (0..rank).all(|axis| window.dilation[axis] == 1 || window.size[axis] == 1);
    let x = problem.optional_input(0)?;
    if spec.groups != 1 || !unpadded || !undilated || problem.optional_input(1)?.dtype != x.dtype {
        return None;
    }
    match Epilogue::of(problem, program, 1, tile::accumulator(x.dtype)) {
        Ok(epilogue) => Product::of_conv(problem, epilogue),
        // The families of convolutions say what is wrong.
        Err(_) => None,
    }
}

fn offers(product: &Product, math: Math, arch: Arch, shapes: &Shapes<'_>) -> Result<Answer, String> {
    for (name, extent) in [("m", &product.m), ("n", &product.n), ("k", &product.k)] {
        if shapes.max(extent) > i64::from(i32::MAX) {
            return Err(format!("{name} may be {}, and kernels index it by 32 bits", shapes.max(extent)));
        }
    }
    let job = Job { product, arch, shapes };
    let mut answer = Answer::default();
    job.offer_mma(math, &mut answer);
    job.offer_simt(&mut answer);
    job.offer_gemv(&mut answer);
    Ok(answer)
}

/// A product to be offered kernels for.
struct Job<'a> {
    product: &'a Product,
    arch: Arch,
    shapes: &'a Shapes<'a>,
}

/// A candidate's kernel, and what it takes.
struct Offered {
    key: String,
    launch: Launch,
    microseconds: f64,
}

impl Job<'_> {
    fn typical(&self, expr: &Expr) -> i64 {
        (self.shapes.typical)(expr).max(0)
    }

    /// Blocks of tiles of `bm` by `bn`.
    fn blocks(&self, bm: u32, bn: u32) -> Expr {
        let along = |extent: &Expr, tile: u32| extent.ceil_div(&Expr::from(i64::from(tile)));
        along(&self.product.m, bm) * along(&self.product.n, bn) * self.product.batches()
    }

    /// Bytes that a product reads and writes at least, where K is split into `parts`.
    fn bytes(&self, split: &Split) -> f64 {
        let p = self.product;
        let matrix = |rows: &Expr, batched: bool| {
            let batches = if batched { self.typical(&p.batches()) } else { 1 };
            self.typical(rows) as f64 * self.typical(&p.k) as f64 * batches as f64
        };
        let a = matrix(&p.m, p.batch.iter().any(|axis| !axis.a_stride.is(0))) * f64::from(tile::bytes(p.a.dtype));
        let b = matrix(&p.n, p.batch.iter().any(|axis| !axis.b_stride.is(0))) * f64::from(tile::bytes(p.b.dtype));
        let outputs = self.typical(&p.outputs()) as f64;
        let c = outputs * f64::from(tile::bytes(p.epilogue.out)) * (1 + p.epilogue.full_reads()) as f64;
        let sums = split.workspace(p.epilogue.acc).map_or(0, |bytes| self.typical(&bytes)) as f64;
        a + b + c + sums
    }

    /// How K may be divided among tiles of `bm` by `bn`, of which a block of `threads` holds `sums`.
    fn splits(&self, [bm, bn, step]: [u32; 3], sums: u32, threads: u32) -> Vec<Split> {
        let tiles = Tiles { count: self.blocks(bm, bn), sums, threads };
        let acc = self.product.epilogue.acc;
        split::splits(self.arch.limits(), self.shapes, tiles, &self.product.k, step, acc)
    }

    /// Adds a candidate.
    fn offer(&self, kernel: Offered, split: &Split, answer: &mut Answer) {
        let Offered { key, launch, microseconds: cost } = kernel;
        let blocks = self.shapes.max(&launch.grid[0]);
        if blocks > i64::from(i32::MAX) {
            let reason = format!("it may need {blocks} thread blocks, and a grid has at most 2^31 - 1");
            return answer.refuse(key, reason);
        }
        let workspace = split.workspace(self.product.epilogue.acc).into_iter().collect();
        answer.candidates.push(Candidate { key, launches: vec![launch], workspace, cost });
    }
}

/// Whether the tensor cores multiply the factors' types, and as which.
fn mma_type(product: &Product, math: Math) -> Result<([&'static str; 2], cost::MmaType), String> {
    match (product.a.dtype, math) {
        (DType::F16, Math::Exact | Math::Tf32) => Ok((["f16"; 2], cost::MmaType::Half)),
        (DType::BF16, Math::Exact | Math::Tf32) => Ok((["bf16"; 2], cost::MmaType::Half)),
        (DType::F32, Math::Tf32) => Ok((["tf32"; 2], cost::MmaType::Tf32)),
        (DType::I8 | DType::U8, Math::Exact | Math::Tf32) if product.a.transposed => {
            Err("no instruction transposes bytes of a, which lie along m".to_owned())
        }
        (DType::I8 | DType::U8, Math::Exact | Math::Tf32) if matches!(product.b.dtype, DType::I8 | DType::U8) => {
            Ok(([product.a.dtype, product.b.dtype].map(print::memory_type), cost::MmaType::Byte))
        }
        (DType::F32, Math::Exact) => Err("tensor cores round f32 to TF32, which the model does not allow".to_owned()),
        (dtype, Math::Exact | Math::Tf32) => Err(format!("its tensor core kernels multiply no {dtype}")),
    }
}
