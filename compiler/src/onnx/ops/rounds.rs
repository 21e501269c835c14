//! Rounds of steps that an importer composes: few of them one behind the other, others as an operation with a region.
//!
//! Contract: the steps read what changes from round to round, and of the graph around them only what they name before.
//! Not here: loops that a model writes as graphs, which are in [`super::loops`].

use std::collections::BTreeMap;

use lapidary_runtime::DType;
use lapidary_runtime::op::Scalar;

use super::unroll::{MAX_NODES, MAX_ROUNDS};
use crate::ir::{Builder, Expr, Graph, Op, Region, Type, ValueId};

/// What the steps of a round are given.
pub(super) struct Round {
    /// The number of the round, an `i64` scalar.
    pub number: ValueId,
    pub carried: Vec<ValueId>,
    captures: BTreeMap<ValueId, ValueId>,
}

impl Round {
    /// What stands here for a value of the graph around.
    pub fn inside(&self, value: ValueId) -> ValueId {
        match self.captures.get(&value) {
            Some(&inside) => inside,
            None => crate::bug!("{value} is read in a round, and is not captured"),
        }
    }
}

/// What a round gives: the carried values for the next one, and a row of each collected result. Of all rounds: the
/// carried values behind the last, and the rows along a new first axis.
pub(super) struct Given {
    pub carried: Vec<ValueId>,
    pub rows: Vec<ValueId>,
}

/// The steps of a round.
pub(super) type Steps<'s> = &'s dyn Fn(&mut Builder<'_>, &Round) -> Result<Given, String>;

/// `count` rounds of `steps`, which start from `first` and read `captures`.
pub(super) fn rounds(
    b: &mut Builder<'_>,
    count: &Expr,
    first: &[ValueId],
    captures: &[ValueId],
    steps: Steps<'_>,
) -> Result<Given, String> {
    match count.as_const() {
        Some(count) if (1..=MAX_ROUNDS).contains(&count) && b.graph().node_count() <= MAX_NODES => {
            unrolled(b, count, first, captures, steps)
        }
        Some(_) | None => repeated(b, count, first, captures, steps),
    }
}

fn unrolled(
    b: &mut Builder<'_>,
    count: i64,
    first: &[ValueId],
    captures: &[ValueId],
    steps: Steps<'_>,
) -> Result<Given, String> {
    let captures: BTreeMap<ValueId, ValueId> = captures.iter().map(|&value| (value, value)).collect();
    let mut carried = first.to_vec();
    let mut collected: Vec<Vec<ValueId>> = Vec::new();
    for round in 0..count {
        let number = b.scalar(Scalar::int(DType::I64, round));
        let given = steps(b, &Round { number, carried, captures: captures.clone() })?;
        carried = given.carried;
        collected.resize(given.rows.len(), Vec::new());
        for (rows, row) in collected.iter_mut().zip(given.rows) {
            let mut dims = b.dims(row);
            dims.insert(0, Expr::constant(1));
            rows.push(b.reshape(row, dims)?);
        }
    }
    let rows = collected.iter().map(|rows| b.concat(rows, 0)).collect::<Result<_, _>>()?;
    Ok(Given { carried, rows })
}

fn repeated(
    b: &mut Builder<'_>,
    count: &Expr,
    first: &[ValueId],
    captures: &[ValueId],
    steps: Steps<'_>,
) -> Result<Given, String> {
    let outer = b.graph();
    let mut region = Graph::new("round");
    region.symbols = outer.symbols_inside();
    let number = region.add_input("round", Type { dtype: DType::I64, dims: Vec::new() });
    let like = |region: &mut Graph, value: ValueId| {
        let value = outer.value(value);
        let input = region.add_input(&value.name, value.ty.clone());
        if let Some(known) = &value.known {
            region.set_known(input, known.clone());
        }
        input
    };
    // What is known of a first value need not hold for the next ones.
    let carried = first.iter().map(|&value| {
        let value = outer.value(value);
        region.add_input(&value.name, value.ty.clone())
    });
    let carried = carried.collect();
    let mut inputs = vec![None, None];
    inputs.extend(first.iter().copied().map(Some));
    let mut inside = BTreeMap::new();
    for &value in captures {
        if inside.contains_key(&value) {
            continue;
        }
        let captured = match outer.constant(value) {
            Some(constant) => {
                let value = outer.value(value);
                region.add_constant(&value.name, value.ty.clone(), constant.clone())
            }
            None => {
                inputs.push(Some(value));
                like(&mut region, value)
            }
        };
        inside.insert(value, captured);
    }
    let given = steps(&mut b.inside(&mut region), &Round { number, carried, captures: inside })?;
    for &value in given.carried.iter().chain(&given.rows) {
        let name = region.value(value).name.to_string();
        region.add_output(&name, value);
    }
    region.symbols.clear();
    region.remove_dead();
    let op = Op::Loop { body: Region(Box::new(region)), carried: first.len() as u32, most: count.clone() };
    let results = b.node_with(op, &inputs, first.len() + given.rows.len())?;
    let mut results = results.into_iter().flatten();
    let carried = results.by_ref().take(first.len()).collect();
    Ok(Given { carried, rows: results.take(given.rows.len()).collect() })
}
