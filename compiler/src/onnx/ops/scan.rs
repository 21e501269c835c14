//! Scan (ONNX Scan): a body that takes one row of its scanned operands in each round, unrolled round by round. The
//! number of rounds is the extent of the scanned axis, which must be a small constant.
//!
//! Operator set 8 has a batch as the first axis of everything, and may give each of it a length: rounds behind it leave
//! the states as they are, and collect zeros (ONNX leaves these open).

use lapidary_runtime::DType;
use lapidary_runtime::op::{Arg, Scalar, ScalarOp};

use super::unroll::{MAX_NODES, MAX_ROUNDS, open_ended};
use super::{Fault, Import, Items, MANY, OpDef, normalize_axis};
use crate::ir::{Expr, ValueId};
use crate::onnx::import::{Item, ItemCx};
use crate::onnx::proto::GraphProto;

pub const DEFS: &[OpDef] = &[with_body(8, batched), with_body(9, scan)];

const fn with_body(since: i64, import: fn(&mut ItemCx<'_, '_>) -> Items) -> OpDef {
    OpDef { domain: "", name: "Scan", since, inputs: (1, MANY), outputs: (1, MANY), import: Import::Items(import) }
}

/// A scanned operand or result: its axis, and from which end it is read or written.
#[derive(Clone, Copy)]
struct Track {
    axis: i64,
    end: End,
}

#[derive(Clone, Copy)]
enum End {
    First,
    Last,
}

/// The tracks that two attributes describe; without them, first axes from the first row on.
fn tracks(r: &ItemCx<'_, '_>, count: usize, axes: &str, directions: &str) -> Result<Vec<Track>, Fault> {
    let list = |name: &str| match r.attrs.ints_opt(name)? {
        None => Ok(vec![0; count]),
        Some(values) if values.len() == count => Ok(values.to_vec()),
        Some(values) => Err(Fault::Invalid(format!("{name} has {} numbers, and {count} are needed", values.len()))),
    };
    let pairs = list(axes)?.into_iter().zip(list(directions)?);
    Ok(pairs
        .map(|(axis, direction)| Track { axis, end: if direction == 0 { End::First } else { End::Last } })
        .collect())
}

/// What a body is unrolled over.
struct Rounds<'m> {
    body: &'m GraphProto,
    count: i64,
    /// The scanned operands.
    sources: Vec<Source>,
    /// How many results are collected.
    collected: usize,
    /// A scalar: how many rounds count. All do where there is none.
    length: Option<ValueId>,
}

struct Source {
    value: ValueId,
    axis: usize,
    end: End,
}

/// The body, how many states it has, and how many results it collects.
fn body_of<'m>(r: &ItemCx<'_, 'm>, operands: usize, scanned: usize) -> Result<(&'m GraphProto, usize, usize), Fault> {
    let body = r.attrs.graph("body")?;
    let (Some(states), true) = (operands.checked_sub(scanned), scanned > 0) else {
        return Err(format!("num_scan_inputs is {scanned}, and the node has {operands} operands").into());
    };
    let collected = r.output_count().checked_sub(states).ok_or("the node has fewer results than states")?;
    if body.input.len() != operands || body.output.len() != states + collected {
        let (inputs, outputs) = (body.input.len(), body.output.len());
        return Err(format!("the body has {inputs} inputs and {outputs} outputs, which are not the node's").into());
    }
    Ok((body, states, collected))
}

fn scan(r: &mut ItemCx<'_, '_>) -> Items {
    let scanned = usize::try_from(r.attrs.int("num_scan_inputs")?).unwrap_or(usize::MAX);
    let count = r.input_count();
    let (body, states, collected) = body_of(r, count, scanned)?;
    let reads = tracks(r, scanned, "scan_input_axes", "scan_input_directions")?;
    let writes = tracks(r, collected, "scan_output_axes", "scan_output_directions")?;
    let values: Vec<ValueId> = (0..states).map(|k| r.input(k)).collect::<Result<_, _>>()?;
    let mut sources = Vec::with_capacity(scanned);
    for (k, track) in (states..count).zip(reads) {
        let value = r.input(k)?;
        let axis = normalize_axis(track.axis, r.builder().rank(value))?;
        sources.push(Source { value, axis, end: track.end });
    }
    let count = rounds(r, &sources)?;
    let (values, rows) = unrolled(r, &Rounds { body, count, sources, collected, length: None }, values)?;
    let mut outputs: Vec<Option<Item>> = values.into_iter().map(|value| Some(Item::Tensor(value))).collect();
    for (mut rows, track) in rows.into_iter().zip(writes) {
        if let End::Last = track.end {
            rows.reverse();
        }
        outputs.push(Some(Item::Tensor(stacked(r, &rows, track.axis)?)));
    }
    Ok(outputs)
}

/// Scan of operator set 8: operand 0 has the lengths, and each of the batch is scanned by itself.
fn batched(r: &mut ItemCx<'_, '_>) -> Items {
    let scanned = usize::try_from(r.attrs.int("num_scan_inputs")?).unwrap_or(usize::MAX);
    let operands = r.input_count() - 1;
    let (body, states, collected) = body_of(r, operands, scanned)?;
    let ends = match r.attrs.ints_opt("directions")? {
        None => vec![End::First; scanned],
        Some(given) if given.len() == scanned => {
            given.iter().map(|&direction| if direction == 0 { End::First } else { End::Last }).collect()
        }
        Some(given) => {
            return Err(format!("directions has {} numbers, and {scanned} are needed", given.len()).into());
        }
    };
    let lengths = r.optional(0)?;
    if lengths.is_some() && ends.iter().any(|end| matches!(end, End::Last)) {
        return Err(Fault::unsupported(
            "a scan from the last row on with lengths for the sequences is not supported",
            "reverse the operand with ReverseSequence, and scan from the first row on",
        ));
    }
    let values: Vec<ValueId> = (1..=operands).map(|k| r.input(k)).collect::<Result<_, _>>()?;
    let mut b = r.builder();
    if let Some(&value) =
        values.iter().enumerate().find(|&(k, &v)| b.rank(v) < 1 + usize::from(k >= states)).map(|(_, v)| v)
    {
        return Err(format!("an operand has rank {}, and has no batch or no rows", b.rank(value)).into());
    }
    let first = b.dims(values[states])[0].clone();
    for &value in values.iter().chain(&lengths) {
        let extent = b.dims(value).first().cloned().ok_or("the lengths have rank 0")?;
        b.require_equal(&first, &extent)?;
    }
    let Some(batch) = first.as_const() else {
        return Err(open_ended(format!("its batch, {first}, is not known while compiling")));
    };
    let sources = |values: &[ValueId], axis: usize| -> Vec<Source> {
        values[states..].iter().zip(&ends).map(|(&value, &end)| Source { value, axis, end }).collect()
    };
    let count = rounds(r, &sources(&values, 1))?;
    if count.saturating_mul(batch) > MAX_ROUNDS {
        return Err(open_ended(format!(
            "its {count} rounds for each of {batch} are more than the {MAX_ROUNDS} that are unrolled"
        )));
    }
    let mut results: Vec<Vec<ValueId>> = vec![Vec::new(); states + collected];
    for item in 0..batch {
        let own: Vec<ValueId> = values.iter().map(|&value| row(r, value, 0, item)).collect::<Result<_, _>>()?;
        let length = lengths.map(|lengths| row(r, lengths, 0, item)).transpose()?;
        let spec = Rounds { body, count, sources: sources(&own, 0), collected, length };
        let (last, rows) = unrolled(r, &spec, own[..states].to_vec())?;
        results.iter_mut().zip(last).for_each(|(result, state)| result.push(state));
        for (result, rows) in results[states..].iter_mut().zip(rows) {
            result.push(stacked(r, &rows, 0)?);
        }
    }
    results.iter().map(|items| Ok(Some(Item::Tensor(stacked(r, items, 0)?)))).collect()
}

/// The last states, and the rows of each collected result.
fn unrolled<'m>(
    r: &mut ItemCx<'_, 'm>,
    rounds: &Rounds<'m>,
    mut values: Vec<ValueId>,
) -> Result<(Vec<ValueId>, Vec<Vec<ValueId>>), Fault> {
    let states = values.len();
    let mut rows: Vec<Vec<ValueId>> = vec![Vec::new(); rounds.collected];
    for round in 0..rounds.count {
        if r.node_count() > MAX_NODES {
            return Err(open_ended(format!("its {} rounds are too many nodes", rounds.count)));
        }
        let mut operands = values.clone();
        for source in &rounds.sources {
            let at = match source.end {
                End::First => round,
                End::Last => rounds.count - 1 - round,
            };
            operands.push(row(r, source.value, source.axis, at)?);
        }
        let bindings: Vec<(&str, ValueId)> = rounds.body.input.iter().map(|info| info.name()).zip(operands).collect();
        let mut results = r.inline_tensors(rounds.body, &bindings)?;
        if let Some(length) = rounds.length {
            for (k, result) in results.iter_mut().enumerate() {
                *result = while_counted(r, length, round, *result, values.get(k).copied())?;
            }
        }
        let (state, row) = results.split_at(states);
        values = state.to_vec();
        rows.iter_mut().zip(row).for_each(|(rows, &row)| rows.push(row));
    }
    Ok((values, rows))
}

/// What a round gives, if it is one of the first `length`; otherwise the state before it, or zeros.
fn while_counted(
    r: &mut ItemCx<'_, '_>,
    length: ValueId,
    round: i64,
    new: ValueId,
    before: Option<ValueId>,
) -> Result<ValueId, Fault> {
    let mut b = r.builder();
    let inputs: Vec<ValueId> = [Some(length), Some(new), before].into_iter().flatten().collect();
    Ok(b.program(&inputs, |p| {
        let length = p.cast(Arg::Input(0), DType::I64);
        let counts = p.push(ScalarOp::Greater, &[length, Arg::Imm(Scalar::int(DType::I64, round))]);
        let otherwise = if before.is_some() { Arg::Input(2) } else { p.imm(Arg::Input(1), 0.0) };
        p.push(ScalarOp::Select, &[counts, Arg::Input(1), otherwise])
    })?)
}

/// The extent that all scanned axes have.
fn rounds(r: &mut ItemCx<'_, '_>, sources: &[Source]) -> Result<i64, Fault> {
    let mut b = r.builder();
    let extents: Vec<Expr> = sources.iter().map(|source| b.dims(source.value)[source.axis].clone()).collect();
    let first = extents.first().ok_or("nothing is scanned")?;
    for extent in &extents[1..] {
        b.require_equal(first, extent)?;
    }
    match first.as_const() {
        Some(rounds) if rounds <= MAX_ROUNDS => Ok(rounds),
        Some(rounds) => {
            Err(open_ended(format!("its {rounds} rounds are more than the {MAX_ROUNDS} that are unrolled")))
        }
        None => Err(open_ended(format!("its number of rounds, {first}, is not known while compiling"))),
    }
}

/// One row of a scanned operand, without the axis.
fn row(r: &mut ItemCx<'_, '_>, source: ValueId, axis: usize, at: i64) -> Result<ValueId, Fault> {
    let mut b = r.builder();
    let row = b.slice_axis(source, axis, Expr::constant(at), Expr::constant(1))?;
    let mut dims = b.dims(row);
    dims.remove(axis);
    Ok(b.reshape(row, dims)?)
}

/// The rows of all rounds along a new axis.
fn stacked(r: &mut ItemCx<'_, '_>, rows: &[ValueId], axis: i64) -> Result<ValueId, Fault> {
    let Some(&first) = rows.first() else {
        return Err(open_ended("it has no rounds, so the extents of what it collects are not known"));
    };
    let mut b = r.builder();
    let axis = normalize_axis(axis, b.rank(first) + 1)?;
    let mut apart = Vec::with_capacity(rows.len());
    for &row in rows {
        let mut dims = b.dims(row);
        dims.insert(axis, Expr::constant(1));
        apart.push(b.reshape(row, dims)?);
    }
    Ok(b.concat(&apart, axis)?)
}
