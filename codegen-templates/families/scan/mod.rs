//! CumSum along one axis of the view `[outer, n, inner]`.

use crate::arch::Arch;
use crate::call::{As, Call, Place};
use crate::candidate::{Answer, Shapes};
use crate::extent::Expr;
use crate::families::reduce::around;
use crate::predict::Work;
use crate::print;
use crate::problem::{Kind, Problem};

const FAMILY: &str = "scan";
const THREADS: u32 = 256;
/// Neighbouring elements that a thread sums in a step.
const PER_THREAD: i64 = 4;

/// Implementations of running sums.
pub fn answer(problem: &Problem, arch: Arch, shapes: &Shapes<'_>) -> Answer {
    let Kind::CumSum { axis, exclusive, reverse } = problem.kind else { return Answer::default() };
    let modes = format!("EXCLUSIVE = {exclusive}, REVERSE = {reverse}");
    Answer::or_refusal(FAMILY, candidates(problem, usize::from(axis), &modes, arch, shapes))
}

fn candidates(problem: &Problem, axis: usize, modes: &str, arch: Arch, shapes: &Shapes<'_>) -> Result<Answer, String> {
    let x = problem.input(0)?;
    print::check_type(x.dtype)?;
    problem.output(0)?;
    let [outer, n, inner] = around(&x.dims, axis);
    let call = |variant: &str| {
        let mut call = Call::new(FAMILY, format!("cumsum_{variant}_{}", x.dtype), "Running sums along one axis");
        call.using("T", print::type_name(x.dtype));
        call.constant("bool", modes);
        call.ints(&[("THREADS", i64::from(THREADS)), ("PER_THREAD", PER_THREAD)]);
        call.pointer("const void", "x", &Place::input(0));
        call.pointer("void", "y", &Place::output(0));
        call.extent("outer", &outer, As::Wide);
        call.extent("n", &n, As::Wide);
        call.extent("inner", &inner, As::Wide);
        call
    };
    let typical = |expr: &Expr| (shapes.typical)(expr).max(0) as f64;
    let elements = typical(&x.count());
    let bytes = x.dtype.bits() as f64 / 8.0;
    let mut answer = Answer::default();
    let columns = outer.clone() * inner.clone();
    let blocks = columns.ceil_div(&Expr::constant(i64::from(THREADS)));
    // Columns that lie apart are read by the sector.
    let apart = (32.0 / (typical(&inner) * bytes)).max(1.0);
    let work = Work {
        bytes: 2.0 * elements * bytes * apart,
        blocks: typical(&blocks),
        threads: f64::from(THREADS),
        in_flight: f64::from(THREADS).min(typical(&columns)) * bytes * 4.0 * apart,
        instructions: elements * 10.0,
    };
    let launch = call("columns").launch("scan::columns", THREADS, blocks);
    answer.offer("scan_columns/t256".to_owned(), vec![launch], work.microseconds(arch));
    if inner.is(1) {
        let step = f64::from(THREADS) * PER_THREAD as f64;
        let work = Work {
            bytes: 2.0 * elements * bytes,
            blocks: typical(&outer),
            threads: f64::from(THREADS),
            in_flight: typical(&n).min(step) * bytes / 2.0,
            instructions: elements * 15.0 + typical(&outer) * (typical(&n) / step).ceil() * f64::from(THREADS) * 80.0,
        };
        let launch = call("rows").launch("scan::rows", THREADS, outer.clone());
        answer.offer("scan_rows/t256".to_owned(), vec![launch], work.microseconds(arch));
    } else {
        answer.refuse("scan_rows", "the axis is not the innermost");
    }
    Ok(answer)
}
