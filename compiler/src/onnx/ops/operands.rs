//! Operands whose elements an importer needs while compiling: axes, shapes, starts, counts.
//!
//! A shape may be computed in the model, as long as it follows from extents and constants; what depends on the data of
//! a run is not supported, and the fault names the tensor.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Cx, Fault};
use crate::diag::quoted;
use crate::ir::{Def, Expr, Graph, ValueId};
use crate::onnx::Model;

/// The elements of operand `k` as formulas. `what` is what they are, such as `shape`.
///
/// # Errors
/// The operand is missing, or its elements depend on data.
pub(super) fn known(cx: &Cx<'_, '_>, k: usize, what: &str) -> Result<Vec<Expr>, Fault> {
    let value = cx.input(k)?;
    elements(cx, value).ok_or_else(|| depends_on_data(cx, value, what))
}

fn elements(cx: &Cx<'_, '_>, value: ValueId) -> Option<Vec<Expr>> {
    if let Some(elements) = cx.b.known(value) {
        return Some(elements.to_vec());
    }
    if !cx.b.dtype(value).is_int() || cx.b.rank(value) > 1 {
        return None;
    }
    let elements = cx.b.constant_value(value)?.to_i64s();
    Some(elements.into_iter().map(Expr::constant).collect())
}

/// The elements of operand `k` as numbers; `None` if it is absent.
///
/// # Errors
/// The elements are not the same for all shapes and inputs.
pub(super) fn optional_ints(cx: &Cx<'_, '_>, k: usize, what: &str) -> Result<Option<Vec<i64>>, Fault> {
    let Some(value) = cx.optional(k) else { return Ok(None) };
    let elements = elements(cx, value);
    let constants: Option<Vec<i64>> = elements.and_then(|elements| elements.iter().map(Expr::as_const).collect());
    match constants {
        Some(constants) => Ok(Some(constants)),
        None => Err(Fault::unsupported(
            format!("the {what} in {} are not constant", name(cx, value)),
            advice(cx, value).unwrap_or_else(|| {
                format!("make the {what} constants; `onnxsim` and the exporter's constant folding do that")
            }),
        )),
    }
}

/// The one element of operand `k`.
///
/// # Errors
/// As [`known`], and if there are more elements.
pub(super) fn known_scalar(cx: &Cx<'_, '_>, k: usize, what: &str) -> Result<Expr, Fault> {
    let elements = known(cx, k, what)?;
    match <[Expr; 1]>::try_from(elements) {
        Ok([element]) => Ok(element),
        Err(elements) => Err(Fault::Invalid(format!("the {what} must be one number, and has {}", elements.len()))),
    }
}

/// The one number of operand `k`, if it is a constant.
pub(super) fn constant_number(cx: &Cx<'_, '_>, k: usize) -> Option<f64> {
    match cx.b.constant_value(cx.optional(k)?)?.to_f64s().as_slice() {
        [number] => Some(*number),
        _ => None,
    }
}

/// The fault for an operand whose elements are needed and not known.
pub(super) fn depends_on_data(cx: &Cx<'_, '_>, value: ValueId, what: &str) -> Fault {
    Fault::unsupported(
        format!("the {what} in {} depends on the data of a run", name(cx, value)),
        advice(cx, value)
            .unwrap_or_else(|| format!("compute the {what} from shapes and constants only, or give it as a constant")),
    )
}

/// What to do where `value` follows from small inputs of the model: a caller who knows them can fix them.
pub(super) fn advice(cx: &Cx<'_, '_>, value: ValueId) -> Option<String> {
    advice_in(cx.b.graph(), cx.model, value)
}

/// As [`advice`], for a value of this graph.
pub fn advice_in(graph: &Graph, model: &Model, value: ValueId) -> Option<String> {
    let names = small_inputs(graph, model, value)?;
    let options: Vec<String> =
        names.iter().map(|name| format!("--value {}=VALUE,..", quoted(name).trim_matches('"'))).collect();
    let which = if names.len() == 1 { "the input has" } else { "the inputs have" };
    Some(format!("if {which} the same value in every run, fix it: {}", options.join(" ")))
}

/// The inputs of the model that `value` follows from; `None` if one of them is no vector or scalar, or there is none.
fn small_inputs(graph: &Graph, model: &Model, value: ValueId) -> Option<BTreeSet<Arc<str>>> {
    let (mut names, mut seen, mut open) = (BTreeSet::new(), BTreeSet::new(), vec![value]);
    while let Some(value) = open.pop() {
        if !seen.insert(value) {
            continue;
        }
        let is_known = graph.value(value).known.is_some();
        match graph.value(value).def {
            Def::Constant(_) => {}
            _ if is_known => {}
            Def::Node(node, _) => open.extend(graph.node(node).inputs.iter().flatten()),
            Def::Input(_) => {
                let name = &graph.value(value).name;
                // What a region captures has its name in the graph around it.
                let of_model = model.graph().input.iter().any(|info| info.name() == &**name);
                if !of_model || graph.ty(value).dims.len() > 1 {
                    return None;
                }
                names.insert(name.clone());
            }
        }
    }
    (!names.is_empty()).then_some(names)
}

/// Operand `k` as a tensor of rank 0; exporters also write one element with axes of extent 1.
///
/// # Errors
/// One sentence, if it has more elements.
pub(super) fn scalar(cx: &mut Cx<'_, '_>, k: usize) -> Result<Option<ValueId>, Fault> {
    let Some(value) = cx.optional(k) else { return Ok(None) };
    Ok(Some(cx.b.reshape(value, Vec::new())?))
}

fn name(cx: &Cx<'_, '_>, value: ValueId) -> String {
    quoted(&cx.b.graph().value(value).name).to_string()
}
