//! Pooling of regions of images: one thread a bin of a channel.

use lapidary_runtime::op::{MAX_SAMPLES, RegionKind, RegionPool};

use crate::arch::Arch;
use crate::call::{As, Call, Place};
use crate::candidate::{Answer, Shapes};
use crate::extent::Expr;
use crate::predict::Work;
use crate::print;
use crate::problem::{Kind, Problem};
use crate::view::Index;

const FAMILY: &str = "region";
const THREADS: u32 = 256;

/// Implementations of pooling over regions.
pub fn answer(problem: &Problem, arch: Arch, shapes: &Shapes<'_>) -> Answer {
    let Kind::RegionPool(spec) = &problem.kind else { return Answer::default() };
    Answer::or_refusal(FAMILY, candidates(problem, spec, arch, shapes))
}

fn candidates(problem: &Problem, spec: &RegionPool, arch: Arch, shapes: &Shapes<'_>) -> Result<Answer, String> {
    let (x, regions, y) = (problem.input(0)?, problem.input(1)?, problem.output(0)?);
    print::check_type(x.dtype)?;
    let [n, channels, height, width] = x.dims.as_slice() else { return Err("x has another rank".to_owned()) };
    let count = regions.dims.first().ok_or("the regions have another rank")?;
    let (name, kind) = match spec.kind {
        RegionKind::Mean => ("mean", "MEAN"),
        RegionKind::Max => ("max", "MAX"),
        RegionKind::Elements => ("elements", "ELEMENTS"),
    };
    let index = Index::of(&[x.count(), y.count()], shapes);
    let mut call = Call::new(FAMILY, format!("region_{name}_{}", x.dtype), format!("Pools regions of images, {name}"));
    call.using("X", print::type_name(x.dtype));
    call.using("Coordinate", print::type_name(regions.dtype));
    call.using("Index", index.name());
    call.constant("region::Kind", &format!("KIND = region::Kind::{kind}"));
    call.constant("int", &format!("bins[] = {{{}, {}}}", spec.bins[0], spec.bins[1]));
    call.ints(&[
        ("SAMPLES", i64::from(spec.samples)),
        ("MAX_SAMPLES", i64::from(MAX_SAMPLES)),
        ("THREADS", i64::from(THREADS)),
    ]);
    call.constant("bool", &format!("HALF_PIXEL = {}", spec.half_pixel));
    call.pointer("const void", "x", &Place::input(0));
    call.pointer("const void", "regions", &Place::input(1));
    call.pointer("const i64", "images", &Place::input(2));
    call.pointer("void", "y", &Place::output(0));
    for (name, extent) in [("count", count), ("n", n), ("channels", channels), ("height", height), ("width", width)] {
        call.extent(name, extent, As::Wide);
    }
    call.float("scale", spec.scale);
    let blocks = y.count().ceil_div(&Expr::constant(i64::from(THREADS)));

    let typical = |expr: &Expr| (shapes.typical)(expr).max(0) as f64;
    let bytes = x.dtype.bits() as f64 / 8.0;
    let results = typical(&y.count());
    // Where the regions say how many samples there are, two along each axis are usual.
    let samples = if spec.samples == 0 { 4.0 } else { f64::from(spec.samples).powi(2) };
    let work = Work {
        bytes: (typical(&x.count()) + results) * bytes,
        blocks: typical(&blocks),
        threads: f64::from(THREADS),
        in_flight: f64::from(THREADS) * bytes * 4.0,
        instructions: results * (150.0 + samples * 40.0),
    };
    let mut answer = Answer::default();
    let launch = call.launch("region::run", THREADS, blocks);
    answer.offer(format!("region_{name}/t{THREADS}"), vec![launch], work.microseconds(arch));
    Ok(answer)
}
