//! Tensors made of a few numbers: Range and Extents.

use crate::arch::Arch;
use crate::call::{As, Call, Place};
use crate::candidate::{Answer, Shapes};
use crate::extent::Expr;
use crate::predict::{Work, in_turn};
use crate::print;
use crate::problem::{Kind, Problem};

const FAMILY: &str = "fill";
const THREADS: u32 = 256;
/// Numbers that one launch writes.
const MOST_EXTENTS: usize = 16;

/// Implementations of Range and Extents.
pub fn answer(problem: &Problem, arch: Arch, shapes: &Shapes<'_>) -> Answer {
    let answer = if let Kind::Range = problem.kind {
        range(problem, arch, shapes)
    } else if let Kind::Extents(values) = &problem.kind {
        extents(problem, values, arch)
    } else {
        Ok(Answer::default())
    };
    Answer::or_refusal(FAMILY, answer)
}

fn range(problem: &Problem, arch: Arch, shapes: &Shapes<'_>) -> Result<Answer, String> {
    let y = problem.output(0)?;
    print::check_type(y.dtype)?;
    let mut call = Call::new(FAMILY, format!("range_{}", y.dtype), "y[i] = start + i * delta");
    call.using("T", print::type_name(y.dtype));
    call.ints(&[("THREADS", i64::from(THREADS))]);
    call.pointer("const void", "start", &Place::input(0));
    call.pointer("const void", "delta", &Place::input(1));
    call.pointer("void", "y", &Place::output(0));
    call.extent("n", &y.count(), As::Wide);
    let blocks = y.count().ceil_div(&Expr::constant(i64::from(THREADS)));
    let elements = (shapes.typical)(&y.count()).max(0) as f64;
    let bytes = y.dtype.bits() as f64 / 8.0;
    let work = Work {
        bytes: elements * bytes,
        blocks: (elements / f64::from(THREADS)).ceil(),
        threads: f64::from(THREADS),
        in_flight: f64::from(THREADS) * bytes,
        instructions: elements * 10.0,
    };
    let mut answer = Answer::default();
    answer.offer(
        "fill_range/v1".to_owned(),
        vec![call.launch("fill::range", THREADS, blocks)],
        work.microseconds(arch),
    );
    Ok(answer)
}

fn extents(problem: &Problem, values: &[Expr], arch: Arch) -> Result<Answer, String> {
    let y = problem.output(0)?;
    print::check_type(y.dtype)?;
    let work = Work { bytes: 128.0, blocks: 1.0, threads: 32.0, in_flight: 128.0, instructions: 64.0 };
    let launches: Vec<_> = values
        .chunks(MOST_EXTENTS)
        .enumerate()
        .map(|(k, values)| {
            let mut call = Call::new(FAMILY, format!("extents_{}", y.dtype), "Writes numbers that the launch states");
            call.using("T", print::type_name(y.dtype));
            call.ints(&[("COUNT", values.len() as i64)]);
            call.pointer("void", "y", &Place::output(0).offset(&Expr::from(k * MOST_EXTENTS)));
            call.extents("v", values, As::Wide);
            call.launch("fill::dims", 32, Expr::constant(1))
        })
        .collect();
    let cost = in_turn(launches.iter().map(|_| &work), arch);
    let mut answer = Answer::default();
    answer.offer("fill_extents/c16".to_owned(), launches, cost);
    Ok(answer)
}
