//! Branches and loops: regions that are run or not, and run again.

use lapidary_runtime::DType;

use super::{Operands, Tensor, extent, movement, run_region};
use crate::ir::Graph;

/// Operands the condition and the captures.
pub(super) fn branch(
    then_region: &Graph,
    else_region: &Graph,
    x: &Operands<'_>,
    symbols: &dyn Fn(&str) -> i64,
) -> Result<Vec<Tensor>, String> {
    let region = if one("condition", x.get(0)?)? != 0 { then_region } else { else_region };
    let captures: Vec<Tensor> = x.from(1)?.into_iter().cloned().collect();
    run_region(region, &captures, symbols).map_err(|error| error.to_string())
}

/// Operands the most rounds?, whether to start?, the `carried` first values, the captures.
pub(super) fn repeat(
    body: &Graph,
    carried: usize,
    bound: i64,
    x: &Operands<'_>,
    symbols: &dyn Fn(&str) -> i64,
) -> Result<Vec<Tensor>, String> {
    let limit = x.optional(0).map_or(Ok(bound), |limit| one("number of rounds", limit))?;
    let most = limit.min(bound);
    let start = x.optional(1);
    let mut goes_on = start.map_or(Ok(true), |start| one("condition", start).map(|start| start != 0))?;
    let mut states: Vec<Tensor> = x.from(2)?.into_iter().cloned().collect();
    let captures = states.split_off(carried.min(states.len()));
    let watched = usize::from(start.is_some());
    let mut rows: Vec<Vec<Tensor>> = vec![Vec::new(); body.outputs().len() - watched - carried];
    let mut round = 0;
    while goes_on && round < most {
        let mut inputs = vec![Tensor::from_i64s(DType::I64, Vec::new(), &[round])];
        inputs.extend(states);
        inputs.extend_from_slice(&captures);
        let mut results = run_region(body, &inputs, symbols).map_err(|error| error.to_string())?;
        let collected = results.split_off(watched + carried);
        rows.iter_mut().zip(collected).for_each(|(rows, row)| rows.push(row));
        states = results.split_off(watched);
        if let Some(again) = results.first() {
            goes_on = one("condition", again)? != 0;
        }
        round += 1;
    }
    let mut results = states;
    for (rows, (_, value)) in rows.iter().zip(&body.outputs()[watched + carried..]) {
        let ty = body.ty(*value);
        let mut dims = vec![1];
        dims.extend(ty.dims.iter().map(|dim| extent(dim, symbols)).collect::<Result<Vec<_>, _>>()?);
        let mut all: Vec<Tensor> = rows.iter().map(|row| row.reshaped(dims.clone())).collect::<Result<_, _>>()?;
        let missing = usize::try_from(bound).unwrap_or(0).saturating_sub(all.len());
        dims[0] = missing;
        let count = dims.iter().product();
        all.push(Tensor::from_f64s(ty.dtype, dims, &vec![0.0; count]));
        results.extend(movement::concat(0, &all.iter().collect::<Vec<_>>())?);
    }
    results.push(Tensor::from_i64s(DType::I64, Vec::new(), &[round]));
    Ok(results)
}

/// The one element of an operand.
fn one(name: &str, x: &Tensor) -> Result<i64, String> {
    match x.to_i64s().as_slice() {
        [element] => Ok(*element),
        elements => Err(format!("the {name} has {} elements, and not one", elements.len())),
    }
}
