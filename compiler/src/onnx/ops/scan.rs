//! Scan (ONNX Scan since operator set 9): a body that takes one row of its scanned operands in each round, unrolled
//! round by round. The number of rounds is the extent of the scanned axis, which must be a small constant.

use super::control::{MAX_NODES, MAX_ROUNDS, open_ended};
use super::{Fault, Import, Imported, MANY, OpDef, normalize_axis};
use crate::ir::{Expr, ValueId};
use crate::onnx::import::Regions;

pub const DEFS: &[OpDef] = &[with_body(8, |_| Err(batched())), with_body(9, scan)];

const fn with_body(since: i64, import: fn(&mut Regions<'_, '_>) -> Imported) -> OpDef {
    OpDef { domain: "", name: "Scan", since, inputs: (1, MANY), outputs: (1, MANY), import: Import::Regions(import) }
}

/// Operator set 8 has a batch axis and lengths of sequences.
fn batched() -> Fault {
    Fault::unsupported(
        "Scan of operator set 8 is not supported",
        "convert the model to operator set 9 or later: onnx.version_converter.convert_version(model, 17)",
    )
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
fn tracks(r: &Regions<'_, '_>, count: usize, axes: &str, directions: &str) -> Result<Vec<Track>, Fault> {
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

fn scan(r: &mut Regions<'_, '_>) -> Imported {
    let body = r.attrs.graph("body")?;
    let scanned = usize::try_from(r.attrs.int("num_scan_inputs")?).unwrap_or(usize::MAX);
    let count = r.input_count();
    let (Some(states), true) = (count.checked_sub(scanned), scanned > 0) else {
        return Err(format!("num_scan_inputs is {scanned}, and the node has {count} operands").into());
    };
    let collected = r.output_count().checked_sub(states).ok_or("the node has fewer results than states")?;
    if body.input.len() != count || body.output.len() != states + collected {
        let (inputs, outputs) = (body.input.len(), body.output.len());
        return Err(format!("the body has {inputs} inputs and {outputs} outputs, which are not the node's").into());
    }
    let reads = tracks(r, scanned, "scan_input_axes", "scan_input_directions")?;
    let writes = tracks(r, collected, "scan_output_axes", "scan_output_directions")?;
    let mut values: Vec<ValueId> = (0..states).map(|k| r.input(k)).collect::<Result<_, _>>()?;
    let sources: Vec<ValueId> = (states..count).map(|k| r.input(k)).collect::<Result<_, _>>()?;
    let mut axes = Vec::with_capacity(scanned);
    for (&source, track) in sources.iter().zip(&reads) {
        axes.push(normalize_axis(track.axis, r.builder().rank(source))?);
    }
    let rounds = rounds(r, &sources, &axes)?;
    let mut rows: Vec<Vec<ValueId>> = vec![Vec::new(); collected];
    for round in 0..rounds {
        if r.node_count() > MAX_NODES {
            return Err(open_ended(format!("its {rounds} rounds are too many nodes")));
        }
        let mut operands = values.clone();
        for ((&source, &axis), track) in sources.iter().zip(&axes).zip(&reads) {
            let at = match track.end {
                End::First => round,
                End::Last => rounds - 1 - round,
            };
            operands.push(row(r, source, axis, at)?);
        }
        let bindings: Vec<(&str, ValueId)> = body.input.iter().map(|info| info.name()).zip(operands).collect();
        let results: Vec<ValueId> = r.inline(body, &bindings)?.into_iter().flatten().collect();
        let (state, row) = results.split_at(states);
        values = state.to_vec();
        rows.iter_mut().zip(row).for_each(|(rows, &row)| rows.push(row));
    }
    let mut outputs: Vec<Option<ValueId>> = values.into_iter().map(Some).collect();
    for (mut rows, track) in rows.into_iter().zip(writes) {
        if let End::Last = track.end {
            rows.reverse();
        }
        outputs.push(Some(stacked(r, &rows, track.axis)?));
    }
    Ok(outputs)
}

/// The extent that all scanned axes have.
fn rounds(r: &mut Regions<'_, '_>, sources: &[ValueId], axes: &[usize]) -> Result<i64, Fault> {
    let mut b = r.builder();
    let extents: Vec<Expr> = sources.iter().zip(axes).map(|(&source, &axis)| b.dims(source)[axis].clone()).collect();
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
fn row(r: &mut Regions<'_, '_>, source: ValueId, axis: usize, at: i64) -> Result<ValueId, Fault> {
    let mut b = r.builder();
    let row = b.slice_axis(source, axis, Expr::constant(at), Expr::constant(1))?;
    let mut dims = b.dims(row);
    dims.remove(axis);
    Ok(b.reshape(row, dims)?)
}

/// The rows of all rounds along a new axis.
fn stacked(r: &mut Regions<'_, '_>, rows: &[ValueId], axis: i64) -> Result<ValueId, Fault> {
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
