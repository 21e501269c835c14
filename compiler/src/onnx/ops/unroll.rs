//! Bodies imported round by round, one behind the other.

use lapidary_runtime::DType;
use lapidary_runtime::op::Scalar;

use super::control::known_int;
use super::loops::Loop;
use super::{Fault, Items};
use crate::ir::{Expr, ValueId};
use crate::onnx::import::{Item, ItemCx};
use crate::onnx::proto::GraphProto;

/// How many rounds of a loop are imported one behind the other, where that is the only way.
pub(super) const MAX_ROUNDS: i64 = 64;

/// A graph of this many nodes is not made larger by another round.
pub(super) const MAX_NODES: usize = 1 << 17;

/// What became of unrolling a loop.
pub(super) enum Unrolled {
    Done(Vec<Option<Item>>),
    /// It cannot be unrolled: why not, where nothing but that would do, and whether an input that a caller can fix
    /// decides it.
    Open {
        why: Fault,
        fixable: bool,
    },
}

/// The results of a loop whose rounds stand one behind the other, which are `most` at most.
///
/// # Errors
/// The body is wrong.
pub(super) fn unroll<'m>(r: &mut ItemCx<'_, 'm>, node: &Loop<'m>, most: i64) -> Result<Unrolled, Fault> {
    let limit = match node.limit {
        None => None,
        Some(limit) => match known_int(r, limit) {
            Some(limit) => Some(limit),
            None => return Ok(decided_by(r, limit, "the number of rounds depends on the data")),
        },
    };
    let mut states: Vec<Item> = node.states.iter().map(|state| state.first.clone()).collect();
    let mut condition = node.condition;
    let mut collected: Vec<Vec<ValueId>> = vec![Vec::new(); node.rows];
    for round in 0.. {
        if limit.is_some_and(|limit| round >= limit) {
            break;
        }
        if let Some(condition) = condition {
            match known_int(r, condition) {
                Some(0) => break,
                Some(_) => {}
                None => return Ok(decided_by(r, condition, "whether it goes on depends on the data")),
            }
        }
        if round >= most || r.node_count() > MAX_NODES {
            let why = open_ended(format!("it has more than the {most} rounds that are unrolled"));
            return Ok(Unrolled::Open { why, fixable: false });
        }
        let mut results = one_round(r, node.body, round, &states)?.into_iter();
        condition = match results.next() {
            Some(Item::Tensor(goes_on)) => Some(goes_on).filter(|_| node.condition.is_some()),
            Some(Item::Sequence(_) | Item::Absent) | None => {
                return Err("the first output of the body, whether the loop goes on, is no tensor".into());
            }
        };
        for (k, item) in results.enumerate() {
            match (k.checked_sub(states.len()), item) {
                (None, item) => states[k] = item,
                (Some(row), Item::Tensor(value)) => collected[row].push(value),
                (Some(row), Item::Sequence(_) | Item::Absent) => {
                    return Err(format!("what the loop collects as output {row} behind its states is no tensor").into());
                }
            }
        }
    }
    if collected.iter().any(Vec::is_empty) {
        // Only the body says what the rows would have been.
        let why = open_ended("it has no rounds, so the extents of what it collects are not known");
        return Ok(Unrolled::Open { why, fixable: false });
    }
    let mut outputs: Vec<Option<Item>> = states.into_iter().map(Some).collect();
    for values in collected {
        outputs.push(Some(Item::Tensor(stacked(r, &values)?)));
    }
    Ok(Unrolled::Done(outputs))
}

/// The results of a loop that has no other way than to be unrolled: it carries sequences, or optional values.
pub(super) fn unroll_only<'m>(r: &mut ItemCx<'_, 'm>, node: &Loop<'m>) -> Items {
    if let Some(rounds) = node.limit.and_then(|limit| known_int(r, limit)).filter(|&rounds| rounds > MAX_ROUNDS) {
        return Err(open_ended(format!("up to {rounds} rounds are more than the {MAX_ROUNDS} that are unrolled")));
    }
    match unroll(r, node, MAX_ROUNDS)? {
        Unrolled::Done(outputs) => Ok(outputs),
        Unrolled::Open { why, .. } => Err(why),
    }
}

/// The body's outputs in one round: the condition, the states, and what is collected.
fn one_round<'m>(
    r: &mut ItemCx<'_, 'm>,
    body: &'m GraphProto,
    round: i64,
    states: &[Item],
) -> Result<Vec<Item>, Fault> {
    let mut b = r.builder();
    let mut operands = vec![
        Item::Tensor(b.scalar(Scalar::int(DType::I64, round))),
        Item::Tensor(b.scalar(Scalar::int(DType::Bool, 1))),
    ];
    operands.extend_from_slice(states);
    r.inline(body, body.input.iter().map(|info| info.name()).zip(operands).collect())
}

/// The values of all rounds along a new first axis.
fn stacked(r: &mut ItemCx<'_, '_>, values: &[ValueId]) -> Result<ValueId, Fault> {
    let mut b = r.builder();
    let mut rows = Vec::with_capacity(values.len());
    for &value in values {
        let mut dims = b.dims(value);
        dims.insert(0, Expr::constant(1));
        rows.push(b.reshape(value, dims)?);
    }
    Ok(b.concat(&rows, 0)?)
}

/// The fault for a loop that cannot be unrolled.
pub(super) fn open_ended(why: impl Into<String>) -> Fault {
    Fault::unsupported(not_unrolled(why), TO_UNROLL)
}

/// A loop that cannot be unrolled because of a value.
fn decided_by(r: &mut ItemCx<'_, '_>, value: ValueId, why: &str) -> Unrolled {
    Unrolled::Open { fixable: r.is_fixable(value), why: r.open(value, not_unrolled(why), TO_UNROLL) }
}

fn not_unrolled(why: impl Into<String>) -> String {
    format!("this loop is not supported: {}", why.into())
}

const TO_UNROLL: &str =
    "unroll the loop when exporting (trace the model with inputs of fixed size), or run the body in the application";
