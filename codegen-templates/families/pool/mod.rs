//! Pooling over 1 to 3 spatial axes: one thread a result walks its window.

use lapidary_runtime::op::{Pool, PoolKind};

use crate::arch::Arch;
use crate::call::{As, Call, Place};
use crate::candidate::{Answer, Shapes};
use crate::extent::Expr;
use crate::predict::Work;
use crate::print;
use crate::problem::{Kind, Problem};
use crate::view::Index;

const FAMILY: &str = "pool";
const THREADS: u32 = 256;

/// Implementations of pooling.
pub fn answer(problem: &Problem, arch: Arch, shapes: &Shapes<'_>) -> Answer {
    let Kind::Pool(spec) = &problem.kind else { return Answer::default() };
    Answer::or_refusal(FAMILY, candidates(problem, spec, arch, shapes))
}

fn candidates(problem: &Problem, spec: &Pool, arch: Arch, shapes: &Shapes<'_>) -> Result<Answer, String> {
    let (x, y) = (problem.input(0)?, problem.output(0)?);
    [x, y].into_iter().try_for_each(|operand| print::check_type(operand.dtype))?;
    let rank = usize::from(spec.window.rank);
    let ([batch, channels, x_dims @ ..], [_, _, y_dims @ ..]) = (x.dims.as_slice(), y.dims.as_slice()) else {
        return Err("the operand has fewer than two axes".to_owned());
    };
    if rank == 0 || x_dims.len() != rank || y_dims.len() != rank {
        return Err(format!("{rank} spatial axes of an operand of rank {}", x.dims.len()));
    }
    if x_dims.iter().chain(y_dims).any(|dim| shapes.max(dim) > i64::from(i32::MAX)) {
        return Err("a spatial axis has 2^31 elements or more".to_owned());
    }
    let (name, kind, exponent) = match spec.kind {
        PoolKind::Max => ("max_pool", "MAX", 0),
        PoolKind::Average => ("average_pool", "AVERAGE", 0),
        PoolKind::AverageCountPad => ("average_pool", "AVERAGE_COUNT_PAD", 0),
        PoolKind::Lp(p) => ("lp_pool", "LP", p),
    };
    if spec.kind != PoolKind::Max && !y.dtype.is_float() {
        return Err(format!("averages of {}", y.dtype));
    }
    let indices = problem.optional_output(1).map_or(Place::Absent, |_| Place::output(1));
    let order = match (&indices, spec.index_order) {
        (Place::Absent, _) => "NONE",
        (_, 0) => "ROW_MAJOR",
        (_, _) => "COLUMN_MAJOR",
    };
    let index = Index::of(&[x.count(), y.count()], shapes);
    let mut call = Call::new(FAMILY, format!("{name}{rank}d_{}", x.dtype), format!("{name} over {rank} spatial axes"));
    call.using("X", print::type_name(x.dtype));
    call.using("Y", print::type_name(y.dtype));
    call.using("Index", index.name());
    call.constant("pool::Kind", &format!("KIND = pool::Kind::{kind}"));
    call.constant("pool::IndexOrder", &format!("ORDER = pool::IndexOrder::{order}"));
    call.ints(&[("RANK", rank as i64), ("THREADS", i64::from(THREADS))]);
    call.pointer("const void", "x", &Place::input(0));
    call.pointer("void", "y", &Place::output(0));
    call.pointer("i64", "indices", &indices);
    call.extent("planes", &(batch.clone() * channels.clone()), As::Wide);
    call.extents("xd", x_dims, As::Int);
    call.extents("yd", y_dims, As::Int);
    let window = &spec.window;
    let lists = [
        ("k", window.size),
        ("s", window.stride),
        ("d", window.dilation),
        ("lo", window.pad_lo),
        ("hi", window.pad_hi),
    ];
    for (prefix, values) in lists {
        let values: Vec<Expr> = values[..rank].iter().map(|&value| Expr::constant(i64::from(value))).collect();
        call.extents(prefix, &values, As::Int);
    }
    call.float("p", exponent as f32);
    let blocks = y.count().ceil_div(&Expr::constant(i64::from(THREADS)));

    let typical = |expr: &Expr| (shapes.typical)(expr).max(0) as f64;
    let bytes = |bits: usize| bits as f64 / 8.0;
    let taps: f64 = window.size[..rank].iter().map(|&size| f64::from(size)).product();
    let results = typical(&y.count());
    let work = Work {
        bytes: typical(&x.count()) * bytes(x.dtype.bits()) + results * bytes(y.dtype.bits()),
        blocks: typical(&blocks),
        threads: f64::from(THREADS),
        in_flight: f64::from(THREADS) * bytes(x.dtype.bits()) * taps.min(4.0),
        instructions: results * (30.0 + 20.0 * rank as f64 + taps * 10.0),
    };
    let mut answer = Answer::default();
    answer.offer(
        format!("pool_windows/{rank}d"),
        vec![call.launch("pool::run", THREADS, blocks)],
        work.microseconds(arch),
    );
    Ok(answer)
}
