//! Control flow (ONNX If, Loop; Scan is in [`super::scan`]).
//!
//! A branch that is decided while compiling is imported in place; so is a loop with a small constant number of rounds,
//! round by round. Otherwise an `If` becomes an operation with two regions, and a loop is not supported.

use lapidary_runtime::DType;
use lapidary_runtime::op::{Arg, Scalar, ScalarOp};

use super::constants::constant_value;
use super::{Fault, Import, Items, MANY, OpDef};
use crate::ir::{Builder, Expr, Op, ValueId};
use crate::onnx::import::{Item, ItemCx};
use crate::onnx::proto::GraphProto;

pub const DEFS: &[OpDef] = &[with_graphs("If", 1, (1, 1), branch), with_graphs("Loop", 1, (2, MANY), repeat)];

const fn with_graphs(
    name: &'static str,
    since: i64,
    inputs: (usize, usize),
    import: fn(&mut ItemCx<'_, '_>) -> Items,
) -> OpDef {
    OpDef { domain: "", name, since, inputs, outputs: (1, MANY), import: Import::Items(import) }
}

fn branch(r: &mut ItemCx<'_, '_>) -> Items {
    let (then_branch, else_branch) = (r.attrs.graph("then_branch")?, r.attrs.graph("else_branch")?);
    let condition = r.input(0)?;
    for proto in [then_branch, else_branch] {
        if proto.output.len() != r.output_count() {
            return Err(
                format!("a branch has {} outputs, and the node {}", proto.output.len(), r.output_count()).into()
            );
        }
    }
    match known_int(r, condition) {
        Some(0) => taken(r, else_branch),
        Some(_) => taken(r, then_branch),
        None => undecided(r, condition, then_branch, else_branch),
    }
}

fn taken<'m>(r: &mut ItemCx<'_, 'm>, branch: &'m GraphProto) -> Items {
    Ok(r.inline(branch, Vec::new())?.into_iter().map(Some).collect())
}

fn undecided<'m>(
    r: &mut ItemCx<'_, 'm>,
    condition: ValueId,
    then_branch: &'m GraphProto,
    else_branch: &'m GraphProto,
) -> Items {
    let on_shapes = compared_extents(&r.builder(), condition).map(|compared| (compared, r.snapshot()));
    // Both are imported before either fails, so that both are reported.
    let (then_region, else_region) = (r.region(then_branch), r.region(else_branch));
    let (then_region, else_region) = (then_region?, else_region?);
    match on_shapes {
        Some((compared, before)) if !then_region.same_kind(&else_region) => {
            r.restore(before);
            r.builder().require_equal(&compared.left, &compared.right)?;
            taken(r, if compared.then_if_equal { then_branch } else { else_branch })
        }
        Some(_) | None => r.branch(condition, then_region, else_region),
    }
}

/// A condition on shapes: two extents are equal, or they are not.
struct Compared {
    left: Expr,
    right: Expr,
    then_if_equal: bool,
}

/// What a condition compares, where that is extents which the profiles leave open. Exporters write `squeeze` of an axis
/// as a branch on its extent being 1; as the rank of the result would depend on the shape, the model can only be
/// compiled for one of the two, and equality is what can be checked when shapes are set.
fn compared_extents(b: &Builder<'_>, condition: ValueId) -> Option<Compared> {
    let (mut value, mut then_if_equal) = (condition, true);
    loop {
        let node = b.graph().node(b.graph().producer(value)?);
        if let Op::Reshape(_) = node.op {
            value = node.inputs.first().copied().flatten()?;
            continue;
        }
        let Op::Pointwise(program) = &node.op else { return None };
        let [step] = program.steps.as_slice() else { return None };
        let operand = |arg: Arg| match arg {
            Arg::Input(k) => node.inputs.get(usize::from(k)).copied().flatten(),
            Arg::Step(_) | Arg::Imm(_) => None,
        };
        let extent = |arg: Arg| match (arg, operand(arg)) {
            (Arg::Imm(scalar), _) => Some(Expr::constant(scalar.as_i64())),
            (Arg::Input(_) | Arg::Step(_), value) => match b.known(value?)? {
                [extent] => Some(extent.clone()),
                _ => None,
            },
        };
        if step.op == ScalarOp::Equal {
            return Some(Compared { left: extent(step.args[0])?, right: extent(step.args[1])?, then_if_equal });
        }
        if step.op != ScalarOp::Not {
            return None;
        }
        then_if_equal = !then_if_equal;
        value = operand(step.args[0])?;
    }
}

/// The one element of a value, if it is a constant; a `bool` is 0 or 1.
fn known_int(r: &mut ItemCx<'_, '_>, value: ValueId) -> Option<i64> {
    let b = r.builder();
    let elements = b.known_ints(value).or_else(|| constant_value(&b, value).map(|tensor| tensor.to_i64s()))?;
    match elements.as_slice() {
        [element] => Some(*element),
        _ => None,
    }
}

/// How many rounds of a loop are imported one behind the other.
pub(super) const MAX_ROUNDS: i64 = 64;

/// A graph of this many nodes is not made larger by another round.
pub(super) const MAX_NODES: usize = 1 << 17;

fn repeat(r: &mut ItemCx<'_, '_>) -> Items {
    let body = r.attrs.graph("body")?;
    let limit = match r.optional(0)? {
        None => None,
        Some(limit) => {
            let rounds = match known_int(r, limit) {
                Some(rounds) => rounds,
                None => return Err(decided_by(r, limit, "the number of rounds depends on the data")),
            };
            if rounds > MAX_ROUNDS {
                return Err(open_ended(format!(
                    "up to {rounds} rounds are more than the {MAX_ROUNDS} that are unrolled"
                )));
            }
            Some(rounds)
        }
    };
    let mut states: Vec<Item> = (2..r.input_count()).map(|k| r.item(k)).collect::<Result<_, _>>()?;
    let scans = check_body(r, body, states.len())?;
    let mut condition = r.optional(1)?;
    let watched = condition.is_some();
    let mut collected: Vec<Vec<ValueId>> = vec![Vec::new(); scans];
    for round in 0.. {
        if limit.is_some_and(|limit| round >= limit) {
            break;
        }
        if let Some(condition) = condition {
            match known_int(r, condition) {
                Some(0) => break,
                Some(_) => {}
                None => return Err(decided_by(r, condition, "whether it goes on depends on the data")),
            }
        }
        if round >= MAX_ROUNDS || r.node_count() > MAX_NODES {
            return Err(open_ended(format!("it has more than the {MAX_ROUNDS} rounds that are unrolled")));
        }
        let mut results = one_round(r, body, round, &states)?.into_iter();
        condition = match results.next() {
            Some(Item::Tensor(goes_on)) => Some(goes_on).filter(|_| watched),
            Some(Item::Sequence(_) | Item::Absent) | None => {
                return Err("the first output of the body, whether the loop goes on, is no tensor".into());
            }
        };
        for (k, item) in results.enumerate() {
            match (k.checked_sub(states.len()), item) {
                (None, item) => states[k] = item,
                (Some(scan), Item::Tensor(value)) => collected[scan].push(value),
                (Some(scan), Item::Sequence(_) | Item::Absent) => {
                    return Err(
                        format!("what the loop collects as output {scan} behind its states is no tensor").into()
                    );
                }
            }
        }
    }
    let mut outputs: Vec<Option<Item>> = states.into_iter().map(Some).collect();
    for values in collected {
        outputs.push(Some(Item::Tensor(stacked(r, &values)?)));
    }
    Ok(outputs)
}

/// The body has an operand and a result for each state; the answer is how many results it collects besides.
fn check_body(r: &ItemCx<'_, '_>, body: &GraphProto, states: usize) -> Result<usize, Fault> {
    if body.input.len() != states + 2 {
        return Err(format!("the body has {} inputs, and {} are needed", body.input.len(), states + 2).into());
    }
    match body.output.len().checked_sub(states + 1) {
        Some(scans) if states + scans == r.output_count() => Ok(scans),
        Some(_) | None => {
            let (body, node) = (body.output.len(), r.output_count());
            Err(format!("the body has {body} outputs, and the node {node} with {states} states").into())
        }
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
    if values.is_empty() {
        return Err(open_ended("it has no rounds, so the extents of what it collects are not known"));
    }
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

/// The fault for a loop that cannot be unrolled because of a value.
fn decided_by(r: &mut ItemCx<'_, '_>, value: ValueId, why: &str) -> Fault {
    r.open(value, not_unrolled(why), TO_UNROLL)
}

fn not_unrolled(why: impl Into<String>) -> String {
    format!("this loop is not supported: {}", why.into())
}

const TO_UNROLL: &str =
    "unroll the loop when exporting (trace the model with inputs of fixed size), or run the body in the application";
