//! Transposed convolution: `conv::transpose`, a thread an output.

use lapidary_runtime::op::ConvTranspose;

use super::geometry::{Axes, Geometry, list};
use crate::arch::Arch;
use crate::candidate::{Answer, Launch, Shapes};
use crate::cost;
use crate::entry::{self, Args, Entry, input};
use crate::epilogue::Epilogue;
use crate::extent::Expr;
use crate::print;
use crate::problem::Problem;
use crate::tile;

const THREADS: u32 = 256;

pub(super) fn offers(
    problem: &Problem,
    spec: &ConvTranspose,
    arch: Arch,
    shapes: &Shapes<'_>,
) -> Result<Answer, String> {
    let geometry = Geometry::of(problem, &spec.window, spec.groups, shapes)?;
    let [x, w] = geometry.types;
    if x != w {
        return Err(format!("it multiplies factors of one type, and these are {x} and {w}"));
    }
    let epilogue = Epilogue::of(problem, None, 1, tile::accumulator(x))?;
    let dtype = print::memory_type(x);
    let mut args = Args::default();
    args.pointer(&format!("const {dtype}"), "x", input(0));
    args.pointer(&format!("const {dtype}"), "w", input(1));
    epilogue.declare(&mut args);
    let extents = geometry.declare(&mut args);
    let Axes { size, stride, dilation, .. } = &geometry.window;
    let entry = Entry {
        title: format!("Transposed convolution {}: an output a thread.", geometry.title()),
        headers: &["families/conv/kernel.cuh"],
        declarations: vec![epilogue.text.clone()],
        threads: THREADS,
        call: format!(
            "conv::transpose<{dtype}, Epi>({{x, w, {extents},\n      /*window*/ {{{}}}, /*stride*/ {{{}}}, \
             /*dilation*/ {{{}}}}}, {})",
            list(size),
            list(stride),
            list(dilation),
            epilogue.init()
        ),
    };
    let outputs = geometry.outputs();
    let launch = Launch {
        source: entry::source("conv_transpose".to_owned(), &entry, &args),
        grid: [outputs.ceil_div(&Expr::from(i64::from(THREADS))), Expr::from(1i64), Expr::from(1i64)],
        block: [THREADS, 1, 1],
        shared: 0,
        params: args.params,
    };
    let products = (shapes.typical)(&geometry.k()).max(0);
    let cost = cost::direct(arch.limits(), (shapes.typical)(&outputs).max(0), products);
    let mut answer = Answer::default();
    answer.offer("conv_transpose/direct".to_owned(), vec![launch], cost);
    Ok(answer)
}
