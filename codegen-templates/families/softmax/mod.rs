//! Softmax and its logarithm along one axis of the view `[outer, n, inner]`.

use lapidary_runtime::op::Softmax;

use crate::arch::Arch;
use crate::call::{As, Call, Place};
use crate::candidate::{Answer, Shapes};
use crate::extent::Expr;
use crate::families::reduce::{around, column_work, row_work, widest};
use crate::predict::Work;
use crate::print;
use crate::problem::{Kind, Operand, Problem};

const FAMILY: &str = "softmax";
const THREADS: u32 = 256;

/// Implementations of softmax.
pub fn answer(problem: &Problem, arch: Arch, shapes: &Shapes<'_>) -> Answer {
    let Kind::Softmax(spec) = &problem.kind else { return Answer::default() };
    Answer::or_refusal(FAMILY, candidates(problem, spec, arch, shapes))
}

fn candidates(problem: &Problem, spec: &Softmax, arch: Arch, shapes: &Shapes<'_>) -> Result<Answer, String> {
    let (x, y) = (problem.input(0)?, problem.output(0)?);
    [x, y].into_iter().try_for_each(check_float)?;
    let [outer, n, inner] = around(&x.dims, usize::from(spec.axis));
    let typical = |expr: &Expr| (shapes.typical)(expr).max(0) as f64;
    let bytes = x.dtype.bits() as i64 / 8;
    let name = if spec.log { "log_softmax" } else { "softmax" };
    let call = |variant: &str| {
        let mut call = Call::new(FAMILY, format!("{name}_{variant}_{}", x.dtype), format!("{name} along one axis"));
        call.using("X", print::type_name(x.dtype));
        call.using("Y", print::type_name(y.dtype));
        call.constant("bool", &format!("LOG = {}", spec.log));
        call
    };
    let mut answer = Answer::default();
    if inner.is(1) {
        for team in row_teams(&n, x, shapes) {
            let Team { threads: team, vec, per_thread } = team;
            let mut call = call("rows");
            call.ints(&[("THREADS", i64::from(THREADS)), ("ROW_THREADS", team)]);
            call.ints(&[("VEC", vec), ("PER_THREAD", per_thread)]);
            call.pointer("const void", "x", &Place::input(0));
            call.pointer("void", "y", &Place::output(0));
            call.extent("rows", &outer, As::Wide);
            call.extent("n", &n, As::Wide);
            let blocks = outer.ceil_div(&Expr::constant(i64::from(THREADS) / team));
            let work = team_work(typical(&outer), typical(&n), bytes, &Team { threads: team, vec, per_thread }, 2.0);
            let launch = call.launch("softmax::rows", THREADS, blocks);
            answer.offer(format!("softmax_rows/t{team}v{vec}p{per_thread}"), vec![launch], work.microseconds(arch));
        }
        answer.refuse("softmax_columns", "the axis is the innermost");
        return Ok(answer);
    }
    answer.refuse("softmax_rows", "the axis is not the innermost");
    for (bx, by) in [(32, 8), (128, 1)] {
        let mut call = call("columns");
        call.ints(&[("BX", bx), ("BY", by)]);
        call.pointer("const void", "x", &Place::input(0));
        call.pointer("void", "y", &Place::output(0));
        call.extent("outer", &outer, As::Wide);
        call.extent("n", &n, As::Wide);
        call.extent("inner", &inner, As::Wide);
        let blocks = outer.clone() * inner.ceil_div(&Expr::constant(bx));
        let pass = column_work([&outer, &n, &inner].map(typical), bytes, bx, by);
        let work = Work { bytes: 2.5 * pass.bytes, instructions: 6.0 * pass.instructions, ..pass };
        let launch = call.launch("softmax::columns", (bx * by) as u32, blocks);
        answer.offer(format!("softmax_columns/x{bx}y{by}"), vec![launch], work.microseconds(arch));
    }
    Ok(answer)
}

/// Whether an operand is of a float type that kernels compute with.
///
/// # Errors
/// In words, that it is not.
pub fn check_float(operand: &Operand) -> Result<(), String> {
    print::check_type(operand.dtype)?;
    if operand.dtype.is_float() { Ok(()) } else { Err(format!("{} is no float type", operand.dtype)) }
}

/// Threads that share a row, and what each holds of it.
#[derive(Clone, Copy, Debug)]
pub struct Team {
    pub threads: i64,
    pub vec: i64,
    /// Elements that a thread keeps in registers; 0 where the row is read again instead.
    pub per_thread: i64,
}

/// The teams that may share rows of `n` elements of x.
pub fn row_teams(n: &Expr, x: &Operand, shapes: &Shapes<'_>) -> Vec<Team> {
    let bytes = x.dtype.bits() as i64 / 8;
    let vec = widest(n, bytes, shapes);
    let most = if bytes == 8 { 16 } else { 32 };
    let longest = shapes.max(n);
    let block = i64::from(THREADS);
    let mut teams: Vec<Team> = Vec::new();
    for threads in [1, 4, 8, 16, 32, block] {
        let per_thread = (longest.max(1) as u64).div_ceil((threads * vec) as u64).saturating_mul(vec as u64);
        let Ok(per_thread) = i64::try_from(per_thread) else { continue };
        // A team much wider than the row leaves threads idle; the next smaller one does as well.
        let idle = per_thread <= vec && teams.len() > 1;
        if per_thread <= most && !idle {
            teams.push(Team { threads, vec, per_thread });
        }
    }
    if longest > 2048 || teams.is_empty() {
        teams.push(Team { threads: block, vec, per_thread: 0 });
    }
    // The smallest two hold the most in registers, the largest have the most threads: all sizes that are left differ.
    teams
}

/// The work of teams that read a row, once if they hold it, else in `passes`, and write it.
pub fn team_work(rows: f64, n: f64, bytes: i64, team: &Team, passes: f64) -> Work {
    let pass = row_work(rows, n, bytes, team.threads, team.vec);
    let held = team.per_thread > 0;
    // What is read again comes from the second level of cache at twice the rate.
    let reads = if held { 1.0 } else { 1.0 + (passes - 1.0) / 2.0 };
    let chunks = (n / team.vec as f64).ceil().max(1.0);
    let per_member = (chunks / team.threads as f64).ceil().min(if held { f64::INFINITY } else { 2.0 });
    let in_block = f64::from(THREADS) / team.threads as f64;
    let in_flight = in_block.min(rows) * per_member * (team.threads as f64).min(chunks) * (team.vec * bytes) as f64;
    // A lane whose row has ended, or whose neighbours read another line, wastes its slot.
    let slots = rows * team.threads as f64 * team.per_thread.max(1) as f64;
    Work {
        bytes: rows * n * bytes as f64 * (1.0 + reads),
        in_flight,
        instructions: pass.instructions * 2.0 + rows * n * 8.0 + slots * 6.0 + uncoalesced(rows * n, bytes, team),
        ..pass
    }
}

/// Further requests where the lanes of a warp read as many rows.
fn uncoalesced(elements: f64, bytes: i64, team: &Team) -> f64 {
    let line = (team.threads * team.vec * bytes) as f64;
    let per_request = (128.0 / line).max(1.0) - 1.0;
    elements / team.vec as f64 * per_request * 8.0
}
