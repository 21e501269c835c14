//! TopK along one axis of the view `[outer, n, inner]`.

use crate::arch::Arch;
use crate::call::{As, Call, Place};
use crate::candidate::{Answer, Shapes};
use crate::extent::Expr;
use crate::families::reduce::around;
use crate::predict::Work;
use crate::print;
use crate::problem::{Kind, Problem};

const FAMILY: &str = "topk";
const THREADS: u32 = 256;
/// The largest number of elements sorted at a time, and the bytes that every kernel may use without asking for more.
const MOST_SORTED: i64 = 8192;
const SHARED: i64 = 48 * 1024;

/// Implementations of TopK.
pub fn answer(problem: &Problem, arch: Arch, shapes: &Shapes<'_>) -> Answer {
    let Kind::TopK { axis, largest } = problem.kind else { return Answer::default() };
    Answer::or_refusal(FAMILY, candidates(problem, usize::from(axis), largest, arch, shapes))
}

fn candidates(
    problem: &Problem,
    axis: usize,
    largest: bool,
    arch: Arch,
    shapes: &Shapes<'_>,
) -> Result<Answer, String> {
    let x = problem.input(0)?;
    print::check_type(x.dtype)?;
    let [values, indices] = [0, 1].map(|k| problem.optional_output(k));
    let Some(result) = values.or(indices) else { return Err("no result is wanted".to_owned()) };
    let [outer, n, inner] = around(&x.dims, axis);
    if shapes.max(&n) > i64::from(i32::MAX) {
        return Err("the axis has 2^31 elements or more".to_owned());
    }
    let k = &result.dims[axis];
    let call = |variant: &str, size: Option<i64>| {
        let title = "The largest or smallest elements of each row, sorted";
        let mut call = Call::new(FAMILY, format!("topk_{variant}_{}", x.dtype), title);
        call.using("X", print::type_name(x.dtype));
        call.constant("bool", &format!("LARGEST = {largest}"));
        call.ints(&[("THREADS", i64::from(THREADS))]);
        if let Some(size) = size {
            call.ints(&[("SIZE", size)]);
        }
        call.pointer("const void", "x", &Place::input(0));
        call.pointer("void", "values", &values.map_or(Place::Absent, |_| Place::output(0)));
        call.pointer("i64", "indices", &indices.map_or(Place::Absent, |_| Place::output(1)));
        call.extent("outer", &outer, As::Wide);
        call.extent("n", &n, As::Wide);
        call.extent("inner", &inner, As::Wide);
        call.extent("k", k, As::Wide);
        call
    };
    let typical = |expr: &Expr| (shapes.typical)(expr).max(0) as f64;
    let (rows, length) = (outer.clone() * inner.clone(), typical(&n));
    let bytes = x.dtype.bits() as f64 / 8.0;
    let moved = typical(&x.count()) * bytes + typical(&(rows.clone() * k.clone())) * (bytes + 8.0);
    let mut answer = Answer::default();

    let blocks = rows.clone() * n.ceil_div(&Expr::constant(i64::from(THREADS)));
    let work = Work {
        bytes: moved,
        blocks: typical(&blocks),
        threads: f64::from(THREADS),
        in_flight: f64::from(THREADS).min(length) * bytes,
        instructions: typical(&blocks) * f64::from(THREADS) * (60.0 + length * 10.0),
    };
    let launch = call("counted", None).launch("topk::counted", THREADS, blocks);
    answer.offer("topk_counted/t256".to_owned(), vec![launch], work.microseconds(arch));

    let of_pair = x.dtype.bits() as i64 / 8;
    let of_pair = of_pair.max(4) + 4;
    let (most, longest) = (shapes.max(k), shapes.max(&n));
    let legal = |size: &i64| {
        let holds = most <= size / 2 || longest <= *size;
        holds && size * of_pair <= SHARED
    };
    let sizes = (6..=MOST_SORTED.ilog2()).map(|bits| 1i64 << bits);
    let legal: Vec<i64> = sizes.filter(legal).take(3).collect();
    if legal.is_empty() {
        answer.refuse("topk_sorted", "the elements asked for do not fit into shared memory twice");
    }
    for size in legal {
        let half = size as f64 / 2.0;
        let rounds = 1.0 + ((length - size as f64) / half).ceil().max(0.0);
        let passes = f64::from(size.ilog2());
        let sort = half * passes * (passes + 1.0) / 2.0;
        let work = Work {
            bytes: moved,
            blocks: typical(&rows),
            threads: f64::from(THREADS),
            in_flight: half.min(f64::from(THREADS)) * bytes,
            instructions: typical(&rows) * rounds * sort * 20.0,
        };
        // The passes of one block follow each other: its own time bounds all.
        let serial = rounds * passes * (passes + 1.0) / 2.0 * (half / f64::from(THREADS)).max(1.0) * 0.05;
        let launch =
            call("sorted", Some(size)).launch_with("topk::sorted", THREADS, rows.clone(), (size * of_pair) as u32);
        answer.offer(format!("topk_sorted/s{size}"), vec![launch], work.microseconds(arch) + serial);
    }
    Ok(answer)
}
