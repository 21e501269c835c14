//! Reductions, ArgMax and ArgMin.
//!
//! Neighbouring axes of one fate, kept or reduced, are merged first; which kernel applies follows from what is left.

use lapidary_runtime::DType;
use lapidary_runtime::op::{ArgReduce, Reduce, ReduceKind};

use crate::arch::Arch;
use crate::call::{As, Call, Place};
use crate::candidate::{Answer, Candidate, Shapes};
use crate::extent::Expr;
use crate::predict::{Work, in_turn};
use crate::print;
use crate::problem::{Kind, Problem};
use crate::view::{powers_of_two, product};

const FAMILY: &str = "reduce";
const THREADS: u32 = 256;
/// Loads that a thread of a row keeps under way.
const ROW_UNROLL: f64 = 4.0;
/// Bytes of the largest state of a reduction.
const STATE: i64 = 16;

/// Implementations of reductions.
pub fn answer(problem: &Problem, arch: Arch, shapes: &Shapes<'_>) -> Answer {
    let answer = if let Kind::Reduce(spec) = &problem.kind {
        reduce(problem, spec, arch, shapes)
    } else if let Kind::ArgReduce(spec) = &problem.kind {
        arg_reduce(problem, spec, arch, shapes)
    } else {
        Ok(Answer::default())
    };
    Answer::or_refusal(FAMILY, answer)
}

/// A run of merged axes.
struct Run {
    reduced: bool,
    extent: Expr,
    stride: Expr,
}

fn runs(dims: &[Expr], spec: &Reduce) -> Vec<Run> {
    merge(dims.iter().enumerate().map(|(axis, dim)| (dim.clone(), spec.axes.contains(axis))).collect())
}

/// The axes of a contiguous operand, each with whether it is reduced, as runs.
fn merge(axes: Vec<(Expr, bool)>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let mut stride = Expr::constant(1);
    for (dim, reduced) in axes.into_iter().rev().filter(|(dim, _)| !dim.is(1)) {
        match runs.last_mut() {
            Some(last) if last.reduced == reduced => last.extent = dim.clone() * last.extent.clone(),
            _ => runs.push(Run { reduced, extent: dim.clone(), stride: stride.clone() }),
        }
        stride = stride * dim;
    }
    runs.reverse();
    runs
}

/// The reductions that a reduction is made of, and the type between them; `None` where the result would differ.
fn stage_kinds(kind: ReduceKind, x: DType) -> Option<(ReduceKind, DType, ReduceKind)> {
    let is_unsigned = matches!(x, DType::U64 | DType::U32 | DType::U16 | DType::U8 | DType::Bool);
    let sums = match (x.is_float(), is_unsigned) {
        (true, _) if x == DType::F64 => DType::F64,
        (true, _) => DType::F32,
        (false, true) => DType::U64,
        (false, false) => DType::I64,
    };
    match kind {
        ReduceKind::Max | ReduceKind::Min => Some((kind, x, kind)),
        ReduceKind::Sum | ReduceKind::Prod => Some((kind, sums, kind)),
        ReduceKind::L1 | ReduceKind::SumSquare => Some((kind, sums, ReduceKind::Sum)),
        ReduceKind::LogSum => Some((ReduceKind::Sum, sums, kind)),
        // A mean, a root or a logarithm of integers would be truncated in between.
        ReduceKind::Mean | ReduceKind::L2 | ReduceKind::LogSumExp => x.is_float().then_some((kind, sums, kind)),
    }
}

/// A key as a part of another's.
fn short(key: &str) -> String {
    key.trim_start_matches("reduce_").replace('/', "_")
}

/// A reduction of one operand, and what its kernels have in common.
struct Reduction<'p> {
    kind: ReduceKind,
    /// Place and type of the operand and of the result.
    from: (Place, DType),
    to: (Place, DType),
    arch: Arch,
    shapes: &'p Shapes<'p>,
}

fn reduce(problem: &Problem, spec: &Reduce, arch: Arch, shapes: &Shapes<'_>) -> Result<Answer, String> {
    let (x, y) = (problem.input(0)?, problem.output(0)?);
    [x, y].into_iter().try_for_each(|operand| print::check_type(operand.dtype))?;
    let (from, to) = ((Place::input(0), x.dtype), (Place::output(0), y.dtype));
    let mut answer = Answer::default();
    Reduction { kind: spec.kind, from, to, arch, shapes }.of(&runs(&x.dims, spec), &mut answer);
    Ok(answer)
}

impl Reduction<'_> {
    /// The kernels for a contiguous operand of these axes.
    fn of(&self, runs: &[Run], answer: &mut Answer) {
        let one = Expr::constant(1);
        match runs {
            [] => self.rows(&one, &one, answer),
            [all] if all.reduced => self.rows(&one, &all.extent, answer),
            [all] => self.rows(&all.extent, &one, answer),
            [rows, n] if n.reduced => self.rows(&rows.extent, &n.extent, answer),
            [n, inner] => self.columns([&one, &n.extent, &inner.extent], answer),
            [outer, n, inner] if n.reduced => self.columns([&outer.extent, &n.extent, &inner.extent], answer),
            runs => {
                self.general(runs, answer);
                self.stages(runs, answer);
            }
        }
    }

    /// The innermost reduced axis first, into a scratch buffer, then the others.
    fn stages(&self, runs: &[Run], answer: &mut Answer) {
        let Some((first, between, second)) = stage_kinds(self.kind, self.from.1) else {
            answer.refuse("reduce_stages", "the reduction of reductions rounds otherwise");
            return;
        };
        let Some(at) = runs.iter().rposition(|run| run.reduced) else { return };
        let extents = |runs: &[Run]| product(&runs.iter().map(|run| run.extent.clone()).collect::<Vec<_>>());
        let [outer, inner] = [&runs[..at], &runs[at + 1..]].map(extents);
        let scratch = (Place::Workspace(0), between);
        let quickest = |answer: Answer| {
            let plain = answer.candidates.into_iter().filter(|candidate| candidate.workspace.is_empty());
            plain.min_by(|a, b| a.cost.total_cmp(&b.cost))
        };
        let (mut inside, mut outside) = (Answer::default(), Answer::default());
        let stage = Reduction { kind: first, from: self.from.clone(), to: scratch.clone(), ..*self };
        if inner.is(1) {
            stage.rows(&outer, &runs[at].extent, &mut inside);
        } else {
            stage.columns([&outer, &runs[at].extent, &inner], &mut inside);
        }
        let left: Vec<(Expr, bool)> = runs
            .iter()
            .enumerate()
            .filter(|(k, _)| *k != at)
            .map(|(_, run)| (run.extent.clone(), run.reduced))
            .collect();
        Reduction { kind: second, from: scratch, to: self.to.clone(), ..*self }.of(&merge(left), &mut outside);
        if let (Some(inside), Some(outside)) = (quickest(inside), quickest(outside)) {
            answer.candidates.push(Candidate {
                key: format!("reduce_stages/{}_{}", short(&inside.key), short(&outside.key)),
                launches: inside.launches.into_iter().chain(outside.launches).collect(),
                workspace: vec![outer * inner * Expr::from(between.bits() / 8)],
                cost: inside.cost + outside.cost,
            });
        }
    }

    fn typical(&self, expr: &Expr) -> f64 {
        (self.shapes.typical)(expr).max(0) as f64
    }

    fn bytes(&self) -> i64 {
        self.from.1.bits() as i64 / 8
    }

    fn call(&self, variant: &str) -> Call {
        let (name, spelled) = kind(self.kind);
        let (x, y) = (self.from.1, self.to.1);
        let mut call = Call::new(FAMILY, format!("reduce_{name}_{variant}_{x}"), format!("Reduces by {name}"));
        call.using("X", print::type_name(x));
        call.using("Y", print::type_name(y));
        call.constant("reduce::Kind", &format!("KIND = reduce::Kind::{spelled}"));
        call
    }

    /// The reduced axis is the innermost: teams of several sizes a row, and parts of rows where there are few.
    fn rows(&self, rows: &Expr, n: &Expr, answer: &mut Answer) {
        let vec = widest(n, self.bytes(), self.shapes);
        let longest = self.shapes.max(n);
        let mut teams = teams(self.typical(n), vec);
        if !teams.contains(&i64::from(THREADS)) && longest / teams[0] > LONGEST_SUM {
            teams.push(i64::from(THREADS));
        }
        for team in teams {
            if team < i64::from(THREADS) && longest / team > LONGEST_SUM {
                let each = longest / team;
                answer
                    .refuse(format!("reduce_rows/t{team}v{vec}"), format!("a thread would add {each} numbers in turn"));
                continue;
            }
            let mut call = self.call("rows");
            call.ints(&[("THREADS", i64::from(THREADS)), ("ROW_THREADS", team), ("VEC", vec)]);
            call.pointer("const void", "x", &self.from.0);
            call.pointer("void", "y", &self.to.0);
            call.extent("rows", rows, As::Wide);
            call.extent("n", n, As::Wide);
            let blocks = rows.ceil_div(&Expr::constant(i64::from(THREADS) / team));
            let work = row_work(self.typical(rows), self.typical(n), self.bytes(), team, vec);
            let launch = call.launch("reduce::rows", THREADS, blocks);
            answer.offer(format!("reduce_rows/t{team}v{vec}"), vec![launch], work.microseconds(self.arch));
        }
        let sms = f64::from(self.arch.limits().sms);
        if self.typical(rows) >= sms || self.typical(n) < 16384.0 {
            answer.refuse("reduce_split", "there are rows enough for all SMs, or they are short");
            return;
        }
        answer.candidates.push(self.split(rows, n, vec, (2.0 * sms / self.typical(rows).max(1.0)).ceil() as i64));
    }

    /// `splits` thread blocks a row write partial states, which a second kernel merges.
    fn split(&self, rows: &Expr, n: &Expr, vec: i64, splits: i64) -> Candidate {
        let parts = Expr::constant(splits);
        let policy = [("THREADS", i64::from(THREADS)), ("ROW_THREADS", i64::from(THREADS)), ("VEC", vec)];
        let extents = |call: &mut Call| {
            call.extent("rows", rows, As::Wide);
            call.extent("n", n, As::Wide);
            call.extent("splits", &parts, As::Wide);
        };
        let mut partial = self.call("partial");
        partial.ints(&policy);
        partial.pointer("const void", "x", &self.from.0);
        partial.pointer("void", "states", &Place::Workspace(0));
        extents(&mut partial);
        let mut finish = self.call("finish");
        finish.ints(&policy);
        finish.pointer("const void", "states", &Place::Workspace(0));
        finish.pointer("void", "y", &self.to.0);
        extents(&mut finish);
        let states = rows.clone() * parts;
        let warps = Expr::constant(i64::from(THREADS) / 32);
        let (count, part) = (self.typical(rows) * splits as f64, self.typical(n) / splits as f64);
        let works = [
            row_work(count, part, self.bytes(), i64::from(THREADS), vec),
            row_work(self.typical(rows), splits as f64, STATE, 32, 1),
        ];
        Candidate {
            key: format!("reduce_split/s{splits}v{vec}"),
            launches: vec![
                partial.launch("reduce::partial", THREADS, states.clone()),
                finish.launch("reduce::finish", THREADS, rows.ceil_div(&warps)),
            ],
            workspace: vec![states * Expr::constant(STATE)],
            cost: in_turn(&works, self.arch),
        }
    }

    /// `[outer, n, inner]`: neighbouring columns side by side in a thread block, some threads a column.
    fn columns(&self, [outer, n, inner]: [&Expr; 3], answer: &mut Answer) {
        for (bx, by) in [(32, 8), (128, 1)] {
            let mut call = self.call("columns");
            call.ints(&[("BX", bx), ("BY", by)]);
            call.pointer("const void", "x", &self.from.0);
            call.pointer("void", "y", &self.to.0);
            call.extent("outer", outer, As::Wide);
            call.extent("n", n, As::Wide);
            call.extent("inner", inner, As::Wide);
            let threads = (bx * by) as u32;
            let blocks = outer.clone() * inner.ceil_div(&Expr::constant(bx));
            let work = column_work([outer, n, inner].map(|extent| self.typical(extent)), self.bytes(), bx, by);
            let launch = call.launch("reduce::columns", threads, blocks);
            answer.offer(format!("reduce_columns/x{bx}y{by}"), vec![launch], work.microseconds(self.arch));
        }
    }

    /// Kept and reduced axes in turn: one thread a result.
    fn general(&self, runs: &[Run], answer: &mut Answer) {
        let list = |reduced: bool, pick: fn(&Run) -> &Expr, absent: i64| -> Vec<Expr> {
            let picked: Vec<Expr> =
                runs.iter().filter(|run| run.reduced == reduced).map(|run| pick(run).clone()).collect();
            if picked.is_empty() { vec![Expr::constant(absent)] } else { picked }
        };
        let kept = list(false, |run| &run.extent, 1);
        let reduced = list(true, |run| &run.extent, 1);
        let mut call = self.call("general");
        call.ints(&[("KEPT", kept.len() as i64), ("REDUCED", reduced.len() as i64)]);
        call.pointer("const void", "x", &self.from.0);
        call.pointer("void", "y", &self.to.0);
        call.extents("k", &kept, As::Wide);
        call.extents("ks", &list(false, |run| &run.stride, 0), As::Wide);
        call.extents("r", &reduced, As::Wide);
        call.extents("rs", &list(true, |run| &run.stride, 0), As::Wide);
        let results = product(&kept);
        let blocks = results.ceil_div(&Expr::constant(i64::from(THREADS)));
        let (results, n) = (self.typical(&results), self.typical(&product(&reduced)));
        let work = Work {
            // Each element is read alone.
            bytes: results * n * 32.0,
            blocks: self.typical(&blocks),
            threads: f64::from(THREADS),
            in_flight: f64::from(THREADS).min(results) * 32.0,
            instructions: results * n * (10.0 + 25.0 * reduced.len() as f64),
        };
        let launch = call.launch("reduce::general", THREADS, blocks);
        answer.offer("reduce_general/t256".to_owned(), vec![launch], work.microseconds(self.arch));
    }
}

/// As many numbers a thread of a small team may add to one sum in turn: the error of a sum in f32 grows with them (N. J.
/// Higham, "The accuracy of floating point summation"). Larger teams, which sum in a tree, come first.
const LONGEST_SUM: i64 = 1 << 14;

/// The name of a kind, and how `reduce::Kind` spells it.
fn kind(kind: ReduceKind) -> (&'static str, &'static str) {
    match kind {
        ReduceKind::Sum => ("sum", "SUM"),
        ReduceKind::Mean => ("mean", "MEAN"),
        ReduceKind::Max => ("max", "MAX"),
        ReduceKind::Min => ("min", "MIN"),
        ReduceKind::Prod => ("prod", "PROD"),
        ReduceKind::L1 => ("l1", "L1"),
        ReduceKind::L2 => ("l2", "L2"),
        ReduceKind::SumSquare => ("sum_square", "SUM_SQUARE"),
        ReduceKind::LogSum => ("log_sum", "LOG_SUM"),
        ReduceKind::LogSumExp => ("log_sum_exp", "LOG_SUM_EXP"),
    }
}

/// The most elements of a row of `n` that one instruction may load.
pub fn widest(n: &Expr, bytes: i64, shapes: &Shapes<'_>) -> i64 {
    powers_of_two(16 / bytes).find(|&vec| shapes.is_multiple(n, vec)).unwrap_or(1)
}

/// Sizes of the teams that share rows of about `n` elements: what keeps a few loads a thread, and its neighbours.
fn teams(n: f64, vec: i64) -> Vec<i64> {
    let block = i64::from(THREADS);
    let chunks = (n / vec as f64).ceil().max(1.0) as i64;
    let even = powers_of_two(32).find(|&team| team <= (chunks + 1) / 2).unwrap_or(1);
    let mut teams = vec![even];
    if even > 4 {
        teams.push(even / 4);
    }
    if chunks > 32 {
        teams.push(block);
    }
    teams
}

/// A pass over `rows` rows of `n` elements of `bytes` bytes by teams of `team` threads.
pub fn row_work(rows: f64, n: f64, bytes: i64, team: i64, vec: i64) -> Work {
    let threads = f64::from(THREADS);
    let (team, vec, bytes) = (team as f64, vec as f64, bytes as f64);
    let in_block = threads / team;
    let chunks = (n / vec).ceil().max(1.0);
    let of_team = team.min(chunks) * (chunks / team).ceil().clamp(1.0, ROW_UNROLL);
    let merges = 8.0 * (team.log2() + if team > 32.0 { 8.0 } else { 0.0 });
    Work {
        bytes: rows * n * bytes,
        blocks: (rows / in_block).ceil(),
        threads,
        in_flight: in_block.min(rows) * of_team * vec * bytes,
        instructions: rows * (team * (40.0 + merges) + n * 2.0 + chunks * 4.0),
    }
}

/// A pass over `[outer, n, inner]` by `bx` columns and `by` threads a column.
pub fn column_work([outer, n, inner]: [f64; 3], bytes: i64, bx: i64, by: i64) -> Work {
    let (bytes, bx, by) = (bytes as f64, bx as f64, by as f64);
    let columns = bx.min(inner);
    Work {
        bytes: outer * n * (inner * bytes).max(32.0),
        blocks: outer * (inner / bx).ceil(),
        threads: bx * by,
        in_flight: columns * by.min(n) * (n / by).clamp(1.0, 4.0) * bytes,
        instructions: outer * inner * (n * 6.0 + by * 40.0),
    }
}

fn arg_reduce(problem: &Problem, spec: &ArgReduce, arch: Arch, shapes: &Shapes<'_>) -> Result<Answer, String> {
    let x = problem.input(0)?;
    print::check_type(x.dtype)?;
    problem.output(0)?;
    let axis = usize::from(spec.axis);
    let [outer, n, inner] = around(&x.dims, axis);
    let typical = |expr: &Expr| (shapes.typical)(expr).max(0) as f64;
    let bytes = x.dtype.bits() as i64 / 8;
    let name = if spec.largest { "argmax" } else { "argmin" };
    let call = |variant: &str, team: i64| {
        let mut call = Call::new(FAMILY, format!("{name}_{variant}_{}", x.dtype), format!("{name} along one axis"));
        call.using("X", print::type_name(x.dtype));
        call.constant("bool", &format!("LARGEST = {}, LAST = {}", spec.largest, spec.select_last));
        call.ints(&[("THREADS", i64::from(THREADS)), ("ROW_THREADS", team)]);
        call.pointer("const void", "x", &Place::input(0));
        call.pointer("i64", "y", &Place::output(0));
        call.extent("outer", &outer, As::Wide);
        call.extent("n", &n, As::Wide);
        call.extent("inner", &inner, As::Wide);
        call
    };
    let mut answer = Answer::default();
    let threads = Expr::constant(i64::from(THREADS));
    let results = outer.clone() * inner.clone();
    let pass = column_work([typical(&outer), typical(&n), typical(&inner)], bytes, 32, 1);
    let work = Work {
        blocks: (typical(&results) / f64::from(THREADS)).ceil(),
        threads: f64::from(THREADS),
        in_flight: f64::from(THREADS).min(typical(&results))
            * (32.0 / typical(&inner).max(1.0)).max(bytes as f64)
            * 4.0,
        ..pass
    };
    answer.offer(
        "reduce_arg/columns".to_owned(),
        vec![call("columns", 1).launch("reduce::arg_columns", THREADS, results.ceil_div(&threads))],
        work.microseconds(arch),
    );
    if inner.is(1) {
        for team in teams(typical(&n), 1) {
            let blocks = outer.ceil_div(&Expr::constant(i64::from(THREADS) / team));
            let work = row_work(typical(&outer), typical(&n), bytes, team, 1);
            let launch = call("rows", team).launch("reduce::arg_rows", THREADS, blocks);
            answer.offer(format!("reduce_arg/rows_t{team}"), vec![launch], work.microseconds(arch));
        }
    } else {
        answer.refuse("reduce_arg/rows", "the axis is not the innermost");
    }
    Ok(answer)
}

/// The extents before an axis, of it, and behind it.
pub fn around(dims: &[Expr], axis: usize) -> [Expr; 3] {
    [product(&dims[..axis]), dims[axis].clone(), product(&dims[axis + 1..])]
}

#[cfg(test)]
mod tests {
    use lapidary_runtime::op::Axes;

    use super::*;

    fn described(dims: &str, axes: &[usize]) -> Vec<String> {
        let dims: Vec<Expr> = dims.split_whitespace().map(|dim| dim.parse().expect("a formula")).collect();
        let spec = Reduce { kind: ReduceKind::Sum, axes: Axes::of(axes.iter().copied()) };
        let letter = |run: &Run| if run.reduced { 'r' } else { 'k' };
        runs(&dims, &spec).iter().map(|run| format!("{}{} by {}", letter(run), run.extent, run.stride)).collect()
    }

    #[test]
    fn neighbours_of_one_fate_are_one_axis() {
        assert_eq!(described("b 3 h w", &[2, 3]), ["k3*b by h*w", "rh*w by 1"]);
        assert_eq!(described("b 3 1 w", &[0, 3]), ["rb by 3*w", "k3 by w", "rw by 1"]);
        assert_eq!(described("b 1 4", &[1]), ["k4*b by 1"]);
        assert_eq!(described("b 2 3", &[1]), ["kb by 6", "r2 by 3", "k3 by 1"]);
    }

    #[test]
    fn reductions_are_split_only_where_nothing_is_rounded_in_between() {
        assert_eq!(stage_kinds(ReduceKind::Mean, DType::I32), None);
        assert_eq!(stage_kinds(ReduceKind::L1, DType::U8), Some((ReduceKind::L1, DType::U64, ReduceKind::Sum)));
        assert_eq!(stage_kinds(ReduceKind::Mean, DType::F16), Some((ReduceKind::Mean, DType::F32, ReduceKind::Mean)));
    }
}
