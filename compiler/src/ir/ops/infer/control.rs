//! Branches and loops: what their regions take and give.

use lapidary_runtime::DType;

use super::{Inference, check_same_dtype, elements, tensor};
use crate::ir::{Expr, Region, Type};

/// Operands the condition and the captures; the results are the outputs of either region.
pub(super) fn branch(
    then_region: &Region,
    else_region: &Region,
    inputs: &[Option<&Type>],
    cx: &mut Inference<'_>,
) -> Result<Vec<Type>, String> {
    let Some((Some(condition), captures)) = inputs.split_first() else {
        return Err("operand condition is missing".to_owned());
    };
    check_same_dtype("condition", condition, DType::Bool)?;
    cx.agree("the elements of condition and 1", &elements(condition)?, &Expr::constant(1))?;
    let then_types = region_types("then", then_region, captures, cx)?;
    let else_types = region_types("else", else_region, captures, cx)?;
    if then_types.len() != else_types.len() {
        return Err(format!("the branches have {} and {} outputs", then_types.len(), else_types.len()));
    }
    let both = then_types.iter().zip(else_types).enumerate();
    both.map(|(k, (a, b))| common_type(&format!("output {k} of the branches"), a, b, cx)).collect()
}

/// The output types of a region whose inputs must be the captures.
fn region_types<'r>(
    name: &str,
    region: &'r Region,
    captures: &[Option<&Type>],
    cx: &mut Inference<'_>,
) -> Result<Vec<&'r Type>, String> {
    let graph = &region.0;
    let inputs: Vec<&Type> = graph.inputs().iter().map(|&input| graph.ty(input)).collect();
    check_captures(&format!("{name} branch"), &inputs, captures, cx)?;
    Ok(graph.outputs().iter().map(|(_, value)| graph.ty(*value)).collect())
}

fn check_captures(
    name: &str,
    inputs: &[&Type],
    captures: &[Option<&Type>],
    cx: &mut Inference<'_>,
) -> Result<(), String> {
    if inputs.len() != captures.len() {
        return Err(format!("the {name} reads {} captures, and there are {}", inputs.len(), captures.len()));
    }
    for (k, (input, capture)) in inputs.iter().zip(captures).enumerate() {
        let Some(capture) = capture else { return Err(format!("capture {k} is missing")) };
        common_type(&format!("capture {k} and the input of the {name}"), capture, input, cx)?;
    }
    Ok(())
}

/// Operands the most rounds?, whether to start?, the first carried values, the captures.
pub(super) fn repeat(
    body: &Region,
    carried: u32,
    most: &Expr,
    inputs: &[Option<&Type>],
    cx: &mut Inference<'_>,
) -> Result<Vec<Type>, String> {
    let carried = carried as usize;
    let Some((&[limit, start], values)) = inputs.split_first_chunk::<2>() else {
        return Err("the number of rounds and the condition are not even left out".to_owned());
    };
    let Some((first, captures)) = values.split_at_checked(carried) else {
        return Err(format!("{carried} values are carried, and {} are given", values.len()));
    };
    for (name, given, dtype) in [("rounds", limit, DType::I64), ("condition", start, DType::Bool)] {
        let Some(ty) = given else { continue };
        check_same_dtype(name, ty, dtype)?;
        cx.agree(&format!("the elements of {name} and 1"), &elements(ty)?, &Expr::constant(1))?;
    }
    let graph = &body.0;
    let takes: Vec<&Type> = graph.inputs().iter().map(|&input| graph.ty(input)).collect();
    let Some((round, takes)) = takes.split_first() else { return Err("the body takes no round".to_owned()) };
    common_type("the round and the body's input", round, &tensor(DType::I64, Vec::new()), cx)?;
    let Some((states, takes)) = takes.split_at_checked(carried) else {
        return Err(format!("{carried} values are carried, and the body takes {}", takes.len()));
    };
    check_captures("body", takes, captures, cx)?;
    let gives: Vec<&Type> = graph.outputs().iter().map(|(_, value)| graph.ty(*value)).collect();
    let watched = usize::from(start.is_some());
    let Some((next, rows)) = gives.get(watched..).and_then(|gives| gives.split_at_checked(carried)) else {
        return Err(format!("{carried} values are carried, and the body gives {}", gives.len()));
    };
    if let (Some(again), true) = (gives.first(), watched == 1) {
        check_same_dtype("condition", again, DType::Bool)?;
        cx.agree("the elements of the condition and 1", &elements(again)?, &Expr::constant(1))?;
    }
    let mut results = Vec::with_capacity(gives.len() + 1);
    for (k, ((first, state), next)) in first.iter().zip(states).zip(next).enumerate() {
        let Some(first) = first else { return Err(format!("carried value {k} is missing")) };
        common_type(&format!("carried value {k} and the body's input"), state, first, cx)?;
        common_type(&format!("carried value {k} before and behind a round"), state, next, cx)?;
        results.push((*state).clone());
    }
    if !rows.is_empty() && (cx.range)(most).1 == i64::MAX {
        return Err("nothing bounds the number of rows".to_owned());
    }
    for row in rows {
        let mut dims = row.dims.clone();
        dims.insert(0, most.clone());
        results.push(tensor(row.dtype, dims));
    }
    results.push(tensor(DType::I64, Vec::new()));
    Ok(results)
}

fn common_type(what: &str, a: &Type, b: &Type, cx: &mut Inference<'_>) -> Result<Type, String> {
    if a.dtype != b.dtype || a.dims.len() != b.dims.len() {
        return Err(format!("{what} differ: {}{:?} and {}{:?}", a.dtype, a.dims, b.dtype, b.dims));
    }
    let dims = a.dims.iter().zip(&b.dims).map(|(a, b)| cx.agree(&format!("the extents of {what}"), a, b));
    Ok(tensor(a.dtype, dims.collect::<Result<_, _>>()?))
}
