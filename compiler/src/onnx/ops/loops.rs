//! Loops (ONNX Loop; Scan is in [`super::scan`]).
//!
//! A short loop whose number of rounds is known while compiling is imported round by round: then the rounds fuse, nothing
//! waits for a condition, and what it carries may change its shape. Any other becomes an operation with a region, whose
//! size does not grow with the rounds; what it carries must keep its shape. A loop that carries sequences or optional
//! values can only be unrolled.

use lapidary_runtime::op::{Scalar, ScalarOp};
use lapidary_runtime::{DType, op::Arg};

use super::control::{known_int, with_graphs};
use super::unroll::{MAX_ROUNDS, Unrolled, unroll, unroll_only};
use super::{Fault, Items, MANY, OpDef};
use crate::ir::{Expr, Graph, Known, Op, Type, ValueId};
use crate::onnx::import::{Body, Carried, Item, ItemCx, Takes, names_read};
use crate::onnx::proto::GraphProto;

pub const DEFS: &[OpDef] = &[with_graphs("Loop", 1, (2, MANY), repeat)];

/// How many nodes the rounds of a loop may have together for it to be unrolled by choice. A large model has as many: up
/// to there the time to compile is what users know, and a launch saved in each round is worth it; beyond, it is one
/// body's work again and again.
const UNROLLED: usize = 2048;

/// The most rounds where nothing bounds them; far from where sums of them overflow.
const UNBOUNDED: i64 = 1 << 40;

/// A Loop node: its operands and what its body makes of them.
pub(super) struct Loop<'m> {
    pub(super) body: &'m GraphProto,
    pub(super) limit: Option<ValueId>,
    pub(super) condition: Option<ValueId>,
    pub(super) states: Vec<State<'m>>,
    /// How many results are collected from all rounds.
    pub(super) rows: usize,
}

/// What a loop carries.
pub(super) struct State<'m> {
    /// Its name in the body.
    name: &'m str,
    pub(super) first: Item,
    role: Role,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// The body hands it on as it is: exporters carry their weights.
    Fixed,
    /// The body does not read it: only the last round's counts.
    Written,
    Carried,
}

fn repeat(r: &mut ItemCx<'_, '_>) -> Items {
    let node = Loop::of(r)?;
    if node.states.iter().any(|state| !matches!(state.first, Item::Tensor(_))) {
        return unroll_only(r, &node);
    }
    let rounds = node.limit.and_then(|limit| known_int(r, limit));
    let nodes = nodes_of(node.body).saturating_add(1);
    let fits = |rounds: i64| usize::try_from(rounds).unwrap_or(0).saturating_mul(nodes) <= UNROLLED;
    let before = r.snapshot();
    let few = rounds.map_or(UNROLLED / nodes, |rounds| usize::try_from(rounds.max(0)).unwrap_or(usize::MAX));
    if rounds.is_none_or(fits) || rounds.is_some_and(|rounds| rounds <= 1) {
        let (why, fixable) = match unroll(r, &node, few as i64)? {
            Unrolled::Done(outputs) => return Ok(outputs),
            Unrolled::Open { why, fixable } => (why, fixable),
        };
        r.restore(before);
        return at_run_time(r, &node).map_err(|fault| match fault {
            // The body has said what it lacks; to fix the input and unroll the loop is another way.
            Fault::Attribute(_) if fixable => why,
            fault => fault,
        });
    }
    let fault = match at_run_time(r, &node) {
        Ok(outputs) => return Ok(outputs),
        Err(fault) => fault,
    };
    // What changes its shape in every round can only be unrolled.
    let failed = r.snapshot();
    r.restore(before);
    if rounds.is_some_and(|rounds| rounds <= MAX_ROUNDS)
        && let Ok(Unrolled::Done(outputs)) = unroll(r, &node, MAX_ROUNDS)
    {
        return Ok(outputs);
    }
    r.restore(failed);
    Err(fault)
}

/// The nodes of a graph and of those in its attributes.
fn nodes_of(graph: &GraphProto) -> usize {
    let inner = graph.node.iter().flat_map(|node| &node.attribute);
    let inner = inner.flat_map(|attribute| attribute.g.as_deref().into_iter().chain(&attribute.graphs));
    graph.node.len() + inner.map(nodes_of).sum::<usize>()
}

impl<'m> Loop<'m> {
    /// The body has an operand and a result for each state; the other results are collected.
    fn of(r: &ItemCx<'_, 'm>) -> Result<Loop<'m>, Fault> {
        let body = r.attrs.graph("body")?;
        let firsts: Vec<Item> = (2..r.input_count()).map(|k| r.item(k)).collect::<Result<_, _>>()?;
        let states = firsts.len();
        if body.input.len() != states + 2 {
            return Err(format!("the body has {} inputs, and {} are needed", body.input.len(), states + 2).into());
        }
        let rows = match body.output.len().checked_sub(states + 1) {
            Some(rows) if states + rows == r.output_count() => rows,
            Some(_) | None => {
                let (body, node) = (body.output.len(), r.output_count());
                return Err(format!("the body has {body} outputs, and the node {node} with {states} states").into());
            }
        };
        let read: std::collections::BTreeSet<&str> = body.node.iter().flat_map(names_read).collect();
        let state = |(k, first): (usize, Item)| {
            let (name, next) = (body.input[k + 2].name(), body.output[k + 1].name());
            let handed_on = body.output.iter().any(|output| output.name() == name);
            let role = if same_value(body, next, name) {
                Role::Fixed
            } else if read.contains(name) || handed_on {
                Role::Carried
            } else {
                Role::Written
            };
            State { name, first, role }
        };
        let states = firsts.into_iter().enumerate().map(state).collect();
        Ok(Loop { body, limit: r.optional(0)?, condition: r.optional(1)?, states, rows })
    }

    /// The tensors that are carried in one way or another, each with its number and its first value.
    fn carried(&self, role: Role) -> impl Iterator<Item = (usize, &State<'m>, ValueId)> {
        self.states.iter().enumerate().filter_map(move |(k, state)| match state.first {
            Item::Tensor(first) if state.role == role => Some((k, state, first)),
            Item::Tensor(_) | Item::Sequence(_) | Item::Absent => None,
        })
    }
}

/// Whether `next` is `name`, or an Identity of it.
fn same_value(body: &GraphProto, next: &str, name: &str) -> bool {
    let mut at = next;
    // Each step goes to another node, or the graph has a cycle, which is reported when it is imported.
    for _ in 0..=body.node.len() {
        if at == name {
            return true;
        }
        let producer = body.node.iter().find(|node| node.output.iter().any(|output| output == at));
        match producer.filter(|node| node.op_type() == "Identity" && node.domain().is_empty()) {
            Some(node) => at = node.input.first().map_or("", String::as_str),
            None => return false,
        }
    }
    false
}

/// How many rounds there are, as far as compiling can tell.
struct Rounds {
    /// The most rounds, where only a run knows them.
    limit: Option<ValueId>,
    most: Expr,
    /// Whether to start, where that or anything later is open.
    start: Option<ValueId>,
    /// Whether it starts for certain, given a round.
    starts: bool,
    /// Whether there is a round for certain.
    certain: bool,
}

fn rounds(r: &mut ItemCx<'_, '_>, node: &Loop<'_>) -> Result<Rounds, Fault> {
    let b = r.builder();
    let (limit, mut most) = match node.limit.map(|limit| (limit, b.known(limit).map(<[Expr]>::to_vec))) {
        None => (None, Expr::constant(i64::MAX)),
        Some((limit, None)) => (Some(limit), Expr::constant(i64::MAX)),
        Some((_, Some(known))) => match known.as_slice() {
            [rounds] if b.range(rounds).0 >= 0 => (None, rounds.clone()),
            [rounds] => (None, rounds.larger(&Expr::constant(0))),
            _ => return Err("the number of rounds is not one number".into()),
        },
    };
    let least = if limit.is_some() { 0 } else { b.range(&most).0 };
    let first = node.condition.map(|condition| known_int(r, condition));
    if first == Some(Some(0)) {
        most = Expr::constant(0);
    }
    if node.limit.is_none() && node.condition.is_none() {
        return Err(endless());
    }
    let starts = first.is_none_or(|first| first.is_some_and(|first| first != 0));
    let start = node.condition.filter(|_| first != Some(Some(0)));
    Ok(Rounds { limit, most, start, starts, certain: starts && least > 0 })
}

fn endless() -> Fault {
    Fault::unsupported(
        "this loop never ends: it has no number of rounds, and no condition that can become false",
        "give it one of the two",
    )
}

fn at_run_time<'m>(r: &mut ItemCx<'_, 'm>, node: &Loop<'m>) -> Items {
    let Rounds { limit, mut most, mut start, starts, certain } = rounds(r, node)?;
    let bound = r.builder().range(&most).1.min(UNBOUNDED);
    let Region { mut body, last, counters } = region(r, node, bound, start.is_some())?;
    if last < bound - 1 {
        most = most.smaller(&Expr::constant(last + 1));
    }
    if start.is_some() && body.known(0).is_some_and(|again| again.is(1)) && starts {
        start = None;
    }
    let counted = limit.is_none() && start.is_none();
    let bounded = r.builder().range(&most).1 < UNBOUNDED;
    if counted && !bounded {
        return Err(endless());
    }
    if node.rows > 0 && !counted && !(bounded && r.is_outermost()) {
        let what = "this loop collects a row in each round, and how many rounds there are depends on the data";
        let help = "bound the rounds by a constant outside of other loops and branches";
        return Err(open(r, limit.or(start), what, help));
    }
    let mut kept: Vec<usize> = if start.is_some() { vec![0] } else { Vec::new() };
    let mut firsts = Vec::new();
    let mut places = Vec::new();
    for (k, state, first) in node.carried(Role::Carried).chain(node.carried(Role::Written)) {
        body.settle_rank(k + 1, r.builder().ty(first), &node.body.output[k + 1])?;
        let next = body.graph.ty(body.results[k + 1]).clone();
        let overwritten = state.role == Role::Written && certain;
        let first = same_shape(r, first, &next, overwritten, limit)?;
        if state.role == Role::Written {
            let ty = r.builder().ty(first).clone();
            body.add_carried(state.name, ty);
        }
        kept.push(k + 1);
        firsts.push(first);
        places.push(k);
    }
    let states = node.states.len();
    for k in 0..node.rows {
        let row = body.graph.ty(body.results[states + 1 + k]);
        if row.dtype.bits() < 8 {
            return Err(Fault::unsupported(
                format!("this loop collects rows of {}", row.dtype),
                "convert them to a type of whole bytes in the body",
            ));
        }
        kept.push(states + 1 + k);
    }
    if !body.settle(&kept) {
        crate::bug!(dump: crate::ir::text::print(&body.graph); "the number of the round is left in a formula");
    }
    let results = r.repeat(body, limit, start, &firsts, most.clone())?;
    let wants_count = node.rows > 0 || counters.iter().any(Option::is_some);
    let count = match results.last() {
        _ if counted => Some(most),
        Some(&Some(rounds)) if wants_count && bounded && r.is_outermost() => {
            Some(r.builder().graph_mut().add_count(rounds, most))
        }
        Some(_) | None => None,
    };
    let mut outputs: Vec<Option<Item>> = node.states.iter().map(|state| Some(state.first.clone())).collect();
    for (&k, &result) in places.iter().zip(&results) {
        outputs[k] = result.map(Item::Tensor);
        // A counter says by how much it has counted.
        if let (Some(result), Some(first), Some(count)) = (result, counters[k], &count) {
            let last = Expr::constant(first) + count.clone();
            r.builder().graph_mut().set_known(result, Known(vec![last]));
        }
    }
    for rows in results.into_iter().skip(firsts.len()).take(node.rows).flatten() {
        let mut b = r.builder();
        let row = match &count {
            Some(count) if !counted => b.slice_axis(rows, 0, Expr::constant(0), count.clone())?,
            Some(_) | None => rows,
        };
        outputs.push(Some(Item::Tensor(row)));
    }
    Ok(outputs)
}

/// The value that a carried tensor starts from, of the type that a round gives. `overwritten`: nothing reads it.
/// `limit` says how many rounds there are, where only a run knows: a loop that is unrolled may change shapes.
fn same_shape(
    r: &mut ItemCx<'_, '_>,
    first: ValueId,
    next: &Type,
    overwritten: bool,
    limit: Option<ValueId>,
) -> Result<ValueId, Fault> {
    let mut b = r.builder();
    let ty = b.ty(first).clone();
    let apart = |(a, b_dim): (&Expr, &Expr)| {
        let (low, high) = b.range(&(a.clone() - b_dim.clone()));
        low > 0 || high < 0
    };
    let differ = ty.dims.len() != next.dims.len() || ty.dims.iter().zip(&next.dims).any(apart);
    if ty.dtype == next.dtype && !differ {
        return Ok(first);
    }
    if overwritten {
        let zero = b.scalar(Scalar::int(DType::Bool, 0));
        let zero = b.cast(zero, next.dtype)?;
        return Ok(b.expand(zero, next.dims.clone())?);
    }
    let show = |ty: &Type| {
        let dims: Vec<String> = ty.dims.iter().map(Expr::to_string).collect();
        format!("{}[{}]", ty.dtype, dims.join(", "))
    };
    let what = format!("this loop carries {}, which a round makes {}", show(&ty), show(next));
    let help = "carry tensors of fixed shape: allocate them at their final size before the loop, and write a part in each round";
    Err(open(r, limit, &what, help))
}

/// The fault for what `value` decides, where there is one.
fn open(r: &mut ItemCx<'_, '_>, value: Option<ValueId>, what: &str, help: &str) -> Fault {
    match value {
        Some(value) => r.open(value, what, help),
        None => Fault::unsupported(what, help),
    }
}

/// A body, and the largest number that a round can have.
struct Region {
    body: Body,
    last: i64,
    /// Of each state what it counts the rounds from, if it does.
    counters: Vec<Option<i64>>,
}

/// Imports the body, following the number of the round where that helps: a carried integer is first taken to be a
/// counter, and imported again without that where the body disproves it. A condition on a counter bounds the rounds.
fn region<'m>(r: &mut ItemCx<'_, 'm>, node: &Loop<'m>, bound: i64, watched: bool) -> Result<Region, Fault> {
    let mut counters: Vec<Option<i64>> = vec![None; node.states.len()];
    for (k, _, first) in node.carried(Role::Carried) {
        counters[k] = known_int(r, first);
    }
    let mut last = bound.saturating_sub(1).max(0);
    for _ in 0..MAX_ATTEMPTS {
        let before = r.snapshot();
        let taken = takes(r, node, &counters, Some(last));
        let Ok(body) = r.body(node.body, &taken) else {
            r.restore(before);
            break;
        };
        let follows = |(k, first): (usize, Option<i64>)| {
            let Some(first) = first else { return true };
            let next = Expr::constant(first + 1) + Expr::symbol(&body.round);
            body.known(k + 1) == Some(&next)
        };
        let proved: Vec<bool> = counters.iter().copied().enumerate().map(follows).collect();
        if proved.iter().any(|proved| !proved) {
            for (counter, proved) in counters.iter_mut().zip(proved) {
                *counter = counter.filter(|_| proved);
            }
            r.restore(before);
            continue;
        }
        let ends = watched.then(|| last_true(&body.graph, body.results[0], &body.round, MAX_STEPS)).flatten();
        // The round behind the last one after which the condition can hold.
        let tighter = ends.map_or(last, |ends| ends.saturating_add(1).clamp(0, last));
        if tighter < last {
            last = tighter;
            r.restore(before);
            continue;
        }
        let mut trial = body.trial();
        let all: Vec<usize> = (0..body.results.len()).collect();
        if trial.settle(&all) {
            return Ok(Region { body, last, counters });
        }
        r.restore(before);
        break;
    }
    let counters = vec![None; node.states.len()];
    let taken = takes(r, node, &counters, None);
    let body = r.body(node.body, &taken)?;
    Ok(Region { body, last: bound.saturating_sub(1).max(0), counters })
}

/// How often a body is imported to learn about its counters.
const MAX_ATTEMPTS: usize = 4;

fn takes<'m>(r: &mut ItemCx<'_, 'm>, node: &Loop<'m>, counters: &[Option<i64>], last: Option<i64>) -> Takes<'m> {
    let b = r.builder();
    let carried = node.carried(Role::Carried);
    Takes {
        round: node.body.input[0].name(),
        condition: node.body.input[1].name(),
        fixed: node.carried(Role::Fixed).map(|(_, state, first)| (state.name, first)).collect(),
        carried: carried
            .map(|(k, state, first)| Carried { name: state.name, ty: b.ty(first).clone(), counts_from: counters[k] })
            .collect(),
        last,
    }
}

/// How far back a condition is followed.
const MAX_STEPS: usize = 32;

/// The largest number of a round for which `value` can be true, if comparisons of counters bound it.
fn last_true(graph: &Graph, value: ValueId, round: &str, steps: usize) -> Option<i64> {
    let steps = steps.checked_sub(1)?;
    let node = graph.node(graph.producer(value)?);
    let program = match &node.op {
        Op::Reshape(_) => return last_true(graph, node.inputs.first().copied().flatten()?, round, steps),
        Op::Pointwise(program) => program,
        _ => return None,
    };
    let [step] = program.steps.as_slice() else { return None };
    let operand = |k: usize| match step.args[k] {
        Arg::Input(input) => node.inputs.get(usize::from(input)).copied().flatten(),
        Arg::Step(_) | Arg::Imm(_) => None,
    };
    let number = |k: usize| match (step.args[k], operand(k)) {
        (Arg::Imm(scalar), _) if !scalar.dtype.is_float() => Some(Expr::constant(scalar.as_i64())),
        (_, Some(value)) => {
            let value = graph.value(value);
            match value.known.as_ref().or(value.integral.as_ref())?.0.as_slice() {
                [element] => Some(element.clone()),
                _ => None,
            }
        }
        (_, None) => None,
    };
    match step.op {
        ScalarOp::Cast | ScalarOp::Identity => last_true(graph, operand(0)?, round, steps),
        ScalarOp::Add => {
            let zero = (0..2).find(|&k| number(k).is_some_and(|number| number.is(0)))?;
            last_true(graph, operand(1 - zero)?, round, steps)
        }
        ScalarOp::And => {
            let both = (0..2).filter_map(|k| last_true(graph, operand(k)?, round, steps));
            both.min()
        }
        ScalarOp::Less => last_at_most(graph, number(0)? - number(1)?, -1, round),
        ScalarOp::LessEqual => last_at_most(graph, number(0)? - number(1)?, 0, round),
        ScalarOp::Greater => last_at_most(graph, number(1)? - number(0)?, -1, round),
        ScalarOp::GreaterEqual => last_at_most(graph, number(1)? - number(0)?, 0, round),
        _ => None,
    }
}

/// The largest round at which `expr`, which must grow with it, is at most `limit`: `k r + m <= limit`.
fn last_at_most(graph: &Graph, expr: Expr, limit: i64, round: &str) -> Option<i64> {
    let at = |number: i64| expr.substitute(&|name| (name == round).then(|| Expr::constant(number)));
    let offset = at(0);
    let slope = (at(1) - offset.clone()).as_const().filter(|&slope| slope > 0)?;
    let line = Expr::constant(slope) * Expr::symbol(round) + offset.clone();
    let (least, _) = graph.range(&offset);
    (line == expr && least > i64::MIN / 2).then(|| limit.saturating_sub(least).div_euclid(slope))
}
