//! Greedy non-maximum suppression of sorted boxes.

use crate::arch::Arch;
use crate::call::{As, Call, Place};
use crate::candidate::{Answer, Shapes};
use crate::extent::Expr;
use crate::predict::Work;
use crate::problem::{Kind, Problem};

const FAMILY: &str = "suppress";
const THREADS: u32 = 256;

/// Implementations of the choice of boxes.
pub fn answer(problem: &Problem, arch: Arch, shapes: &Shapes<'_>) -> Answer {
    let Kind::Suppress = problem.kind else { return Answer::default() };
    Answer::or_refusal(FAMILY, candidates(problem, arch, shapes))
}

fn candidates(problem: &Problem, arch: Arch, shapes: &Shapes<'_>) -> Result<Answer, String> {
    let order = problem.input(1)?;
    let [batches, classes, n] = order.dims.as_slice() else { return Err("the order has another rank".to_owned()) };
    let rows = batches.clone() * classes.clone();
    let mut call = Call::new(FAMILY, "suppress", "Greedy non-maximum suppression");
    call.ints(&[("THREADS", i64::from(THREADS))]);
    for (k, (ctype, name)) in [
        ("const float", "boxes"),
        ("const i64", "order"),
        ("const u8", "eligible"),
        ("const float", "threshold"),
        ("const i64", "most"),
    ]
    .into_iter()
    .enumerate()
    {
        call.pointer(ctype, name, &Place::input(k));
    }
    call.pointer("u8", "keep", &Place::output(0));
    call.extent("classes", classes, As::Wide);
    call.extent("n", n, As::Wide);
    let typical = |expr: &Expr| (shapes.typical)(expr).max(0) as f64;
    let (rows_typical, n_typical) = (typical(&rows), typical(n));
    // A tenth of the boxes is kept, each of which looks at those behind it.
    let compared = rows_typical * n_typical * n_typical / 20.0;
    let work = Work {
        bytes: rows_typical * n_typical * 26.0,
        blocks: rows_typical,
        threads: f64::from(THREADS),
        in_flight: f64::from(THREADS) * 16.0,
        instructions: compared * 30.0 + rows_typical * n_typical * f64::from(THREADS) * 2.0,
    };
    let mut answer = Answer::default();
    let launch = call.launch("suppress::rows", THREADS, rows);
    answer.offer("suppress_rows/t256".to_owned(), vec![launch], work.microseconds(arch));
    Ok(answer)
}
