//! Branches and loops that a CUDA graph decides by itself: the launches that set its conditional nodes.
//!
//! Contract: these launches solve no problem. They belong to a step that is a branch or a loop, whose operands they name:
//! the condition is operand 0, a loop's limit operand 1, its rows those behind; results are all rows, and behind them
//! one `i64` for the number of the round. They run in graphs alone, since [`Param::Handle`] is part of one.
//!
//! [`Param::Handle`]: crate::candidate::Param::Handle

use crate::call::{As, Call, Place};
use crate::candidate::Launch;
use crate::extent::Expr;

const FAMILY: &str = "control";
const THREADS: u32 = 256;
/// Bytes that a thread copies at once.
const UNIT: u32 = 16;
/// The most thread blocks that copy a round's results.
const MOST_BLOCKS: i64 = 1024;

/// Names the branch that operand 0 asks for: handle 0 is that of the first, handle 1 that of the other.
pub fn branch() -> Launch {
    let mut call = Call::new(FAMILY, "branch", "Names the branch that a graph takes");
    call.ints(&[("THREADS", 1)]);
    call.pointer("const u8", "condition", &Place::input(0));
    call.handle("then_handle", 0);
    call.handle("else_handle", 1);
    call.launch("control::branch", 1, Expr::constant(1))
}

/// Which rounds a loop runs.
#[derive(Clone, Debug)]
pub struct Rounds {
    /// Whether operand 0, a condition, is there.
    pub condition: bool,
    /// Whether operand 1, a limit, is there.
    pub limit: bool,
    /// The most rounds that the shapes allow.
    pub most: Expr,
    /// The result that numbers the round.
    pub round: usize,
}

/// Where the number of a round is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// In front of the loop.
    Start,
    /// At the end of its body.
    End,
}

/// Numbers the round to come, and asks for it, by handle 0, if the loop goes on.
pub fn rounds(rounds: &Rounds, at: At) -> Launch {
    let (stem, first) = match at {
        At::Start => ("first_round", "true"),
        At::End => ("next_round", "false"),
    };
    let mut call = Call::new(FAMILY, stem, "Numbers a loop's next round, and asks the graph for it");
    call.ints(&[("THREADS", 1)]);
    call.constant("bool", &format!("FIRST = {first}"));
    let optional = |there: bool, k: usize| if there { Place::input(k) } else { Place::Absent };
    call.pointer("const u8", "condition", &optional(rounds.condition, 0));
    call.pointer("const i64", "limit", &optional(rounds.limit, 1));
    call.pointer("i64", "round", &Place::output(rounds.round));
    call.handle("handle", 0);
    call.extent("most", &rounds.most, As::Wide);
    call.launch("control::rounds", 1, Expr::constant(1))
}

/// Copies the `bytes` bytes of operand `row` to their place in result `rows`, by the number in result `round`.
pub fn collect(row: usize, rows: usize, round: usize, bytes: &Expr) -> Launch {
    let mut call = Call::new(FAMILY, "collect_row", "Puts what a round computed behind what earlier rounds did");
    call.ints(&[("THREADS", i64::from(THREADS)), ("UNIT", i64::from(UNIT))]);
    call.pointer("const u8", "row", &Place::input(row));
    call.pointer("u8", "rows", &Place::output(rows));
    call.pointer("const i64", "round", &Place::output(round));
    call.extent("bytes", bytes, As::Wide);
    let blocks = bytes.ceil_div(&Expr::constant(i64::from(THREADS * UNIT))).smaller(&Expr::constant(MOST_BLOCKS));
    call.launch("control::collect", THREADS, blocks)
}
