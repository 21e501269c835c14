//! ONNX Einsum: any equation, as sums, broadcast products and batched matrix products.
//!
//! Operands are contracted from left to right. A label that no later operand and not the result has is summed as soon
//! as both operands that have it have met. A label twice in one operand takes its diagonal. Source: ONNX Einsum-12.

use std::collections::{BTreeMap, BTreeSet};

use lapidary_runtime::op::{Arg, ReduceKind, ScalarOp};

use super::entry::variadic;
use super::positions::positions;
use super::{Cx, Fault, Imported, OpDef, one};
use crate::ir::builder::Built;
use crate::ir::{Builder, Expr, ValueId};

pub const DEFS: &[OpDef] = &[variadic("Einsum", 12, einsum)];

/// What an axis is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Label {
    /// An axis of the ellipsis, counted from its last.
    Ellipsis(usize),
    Letter(char),
}

/// A tensor and the names of its axes.
struct Term {
    value: ValueId,
    labels: Vec<Label>,
}

/// An axis of a term as it is written.
#[derive(Clone, Copy, PartialEq)]
enum Written {
    Ellipsis,
    Letter(char),
}

fn einsum(cx: &mut Cx<'_, '_>) -> Imported {
    let inputs = cx.inputs()?;
    let equation: String = cx.attrs.str("equation")?.chars().filter(|c| !c.is_whitespace()).collect();
    let (left, right) = match equation.split_once("->") {
        Some((left, right)) => (left, Some(right)),
        None => (equation.as_str(), None),
    };
    let written: Vec<Vec<Written>> = left.split(',').map(parse).collect::<Result<_, _>>()?;
    if written.len() != inputs.len() {
        return Err(format!("the equation has {} terms for {} operands", written.len(), inputs.len()).into());
    }
    let mut terms = Vec::new();
    for (term, &value) in written.iter().zip(&inputs) {
        terms.push(Term { value, labels: labels_of(term, cx.b.rank(value))? });
    }
    let result = match right {
        Some(right) => result_labels(&parse(right)?, &terms)?,
        None => implied_labels(&terms),
    };
    let extents = extents(&mut cx.b, &terms)?;
    let mut rest = Vec::new();
    for term in terms {
        rest.push(simple(&mut cx.b, term, &extents)?);
    }
    let mut rest = rest.into_iter();
    let Some(mut sum) = rest.next() else { return Err("it has no operands".into()) };
    while let Some(next) = rest.next() {
        let mut needed: BTreeSet<Label> = result.iter().copied().collect();
        needed.extend(rest.as_slice().iter().flat_map(|term| term.labels.iter().copied()));
        sum = contract(&mut cx.b, sum, next, &needed)?;
    }
    let needed = result.iter().copied().collect();
    let sum = summed(&mut cx.b, sum, &needed)?;
    one(arranged(&mut cx.b, &sum, &result)?)
}

fn parse(term: &str) -> Result<Vec<Written>, Fault> {
    let mut written = Vec::new();
    let mut rest = term;
    while let Some(c) = rest.chars().next() {
        if let Some(behind) = rest.strip_prefix("...") {
            written.push(Written::Ellipsis);
            rest = behind;
        } else if c.is_ascii_alphabetic() {
            written.push(Written::Letter(c));
            rest = &rest[1..];
        } else {
            return Err(Fault::Invalid(format!("{c:?} stands in the equation, which is made of letters and ellipses")));
        }
    }
    if written.iter().filter(|&&w| w == Written::Ellipsis).count() > 1 {
        return Err(Fault::Invalid("a term of the equation has two ellipses".to_owned()));
    }
    Ok(written)
}

/// The names of the axes of an operand.
fn labels_of(written: &[Written], rank: usize) -> Result<Vec<Label>, Fault> {
    let letters = written.iter().filter(|&&w| w != Written::Ellipsis).count();
    let has_ellipsis = letters < written.len();
    if letters > rank || (letters < rank && !has_ellipsis) {
        return Err(Fault::Invalid(format!("a term of the equation names {letters} axes, and its operand has {rank}")));
    }
    Ok(spread(written, rank - letters))
}

fn spread(written: &[Written], ellipsis: usize) -> Vec<Label> {
    let spread = |w: &Written| match *w {
        Written::Ellipsis => (0..ellipsis).rev().map(Label::Ellipsis).collect(),
        Written::Letter(c) => vec![Label::Letter(c)],
    };
    written.iter().flat_map(spread).collect()
}

/// The names of the axes of a result that the equation states.
fn result_labels(written: &[Written], terms: &[Term]) -> Result<Vec<Label>, Fault> {
    let given: BTreeSet<Label> = terms.iter().flat_map(|term| term.labels.iter().copied()).collect();
    let ellipsis = given.iter().filter(|label| matches!(label, Label::Ellipsis(_))).count();
    let labels = spread(written, ellipsis);
    for (k, label) in labels.iter().enumerate() {
        if labels[..k].contains(label) || !given.contains(label) {
            return Err(Fault::Invalid(
                "the result of the equation must name axes of the operands, each once".to_owned(),
            ));
        }
    }
    Ok(labels)
}

/// The ellipsis, then the letters that stand once, in the order of ASCII.
fn implied_labels(terms: &[Term]) -> Vec<Label> {
    let mut counts: BTreeMap<Label, usize> = BTreeMap::new();
    for label in terms.iter().flat_map(|term| &term.labels) {
        *counts.entry(*label).or_default() += 1;
    }
    let ellipsis = counts.keys().rev().filter(|label| matches!(label, Label::Ellipsis(_)));
    let once = counts.iter().filter(|(label, count)| matches!(label, Label::Letter(_)) && **count == 1);
    ellipsis.copied().chain(once.map(|(label, _)| *label)).collect()
}

/// The extent of each label: that of any axis of the name, but for those that are 1 and broadcast.
fn extents(b: &mut Builder<'_>, terms: &[Term]) -> Result<BTreeMap<Label, Expr>, Fault> {
    let mut extents: BTreeMap<Label, Expr> = BTreeMap::new();
    for term in terms {
        for (label, dim) in term.labels.iter().zip(b.dims(term.value)) {
            let known = extents.entry(*label).or_insert_with(|| dim.clone());
            if known.is(1) {
                *known = dim;
            } else if !dim.is(1) {
                b.require_equal(known, &dim)?;
            }
        }
    }
    Ok(extents)
}

/// The term without the axes that broadcast, and with each label once.
fn simple(b: &mut Builder<'_>, term: Term, extents: &BTreeMap<Label, Expr>) -> Result<Term, Fault> {
    let dims = b.dims(term.value);
    let (mut labels, mut kept) = (Vec::new(), Vec::new());
    for (label, dim) in term.labels.into_iter().zip(dims) {
        if !dim.is(1) || extents.get(&label).is_none_or(|extent| extent.is(1)) {
            labels.push(label);
            kept.push(dim);
        }
    }
    let mut value = b.reshape(term.value, kept)?;
    while let Some((first, second)) = repeated(&labels) {
        value = diagonal(b, value, first, second)?;
        labels.remove(second);
    }
    Ok(Term { value, labels })
}

/// Two axes of one name.
fn repeated(labels: &[Label]) -> Option<(usize, usize)> {
    let of = |second: usize| labels[..second].iter().position(|label| *label == labels[second]);
    (0..labels.len()).find_map(|second| Some((of(second)?, second)))
}

/// The elements with equal positions along two axes, of which the second goes: the sum of the rest being zero.
fn diagonal(b: &mut Builder<'_>, x: ValueId, first: usize, second: usize) -> Built {
    let dims = b.dims(x);
    let along_first = positions(b, dims[first].clone(), first, dims.len())?;
    let along_second = positions(b, dims[second].clone(), second, dims.len())?;
    let masked = b.program(&[x, along_first, along_second], |p| {
        let same = p.push(ScalarOp::Equal, &[Arg::Input(1), Arg::Input(2)]);
        p.push(ScalarOp::Select, &[same, Arg::Input(0), p.imm(Arg::Input(0), 0.0)])
    })?;
    sum_away(b, masked, &[second])
}

fn sum_away(b: &mut Builder<'_>, x: ValueId, axes: &[usize]) -> Built {
    if axes.is_empty() {
        return Ok(x);
    }
    let reduced = b.reduce(ReduceKind::Sum, x, axes)?;
    let dims = b.dims(reduced).into_iter().enumerate();
    let kept = dims.filter(|(axis, _)| !axes.contains(axis)).map(|(_, dim)| dim).collect();
    b.reshape(reduced, kept)
}

/// The term summed over all labels but `needed`.
fn summed(b: &mut Builder<'_>, term: Term, needed: &BTreeSet<Label>) -> Result<Term, Fault> {
    let axes: Vec<usize> = (0..term.labels.len()).filter(|&axis| !needed.contains(&term.labels[axis])).collect();
    let value = sum_away(b, term.value, &axes)?;
    let labels = term.labels.into_iter().filter(|label| needed.contains(label)).collect();
    Ok(Term { value, labels })
}

/// The product of two terms, summed over the labels that both have and that are not needed.
fn contract(b: &mut Builder<'_>, left: Term, right: Term, needed: &BTreeSet<Label>) -> Result<Term, Fault> {
    let of_left: BTreeSet<Label> = left.labels.iter().copied().collect();
    let of_right: BTreeSet<Label> = right.labels.iter().copied().collect();
    let left = summed(b, left, &needed.union(&of_right).copied().collect())?;
    let right = summed(b, right, &needed.union(&of_left).copied().collect())?;
    let pick = |labels: &[Label], keep: &dyn Fn(&Label) -> bool| -> Vec<Label> {
        labels.iter().copied().filter(|label| keep(label)).collect()
    };
    let batch = pick(&left.labels, &|label| right.labels.contains(label) && needed.contains(label));
    let inner = pick(&left.labels, &|label| right.labels.contains(label) && !needed.contains(label));
    let rows = pick(&left.labels, &|label| !right.labels.contains(label));
    let columns = pick(&right.labels, &|label| !left.labels.contains(label));
    let labels = [batch.as_slice(), &rows, &columns].concat();
    let value = if inner.is_empty() {
        let a = arranged(b, &left, &[batch.as_slice(), &rows].concat())?;
        let a = b.append_axes(a, labels.len())?;
        let c = arranged(b, &right, &[batch.as_slice(), &columns].concat())?;
        let mut dims = b.dims(c);
        dims.splice(batch.len()..batch.len(), vec![Expr::constant(1); rows.len()]);
        let c = b.reshape(c, dims)?;
        b.binary(ScalarOp::Mul, a, c)?
    } else {
        let a = arranged(b, &left, &[batch.as_slice(), &rows, &inner].concat())?;
        let c = arranged(b, &right, &[batch.as_slice(), &inner, &columns].concat())?;
        let (a_dims, c_dims) = (b.dims(a), b.dims(c));
        let result = [&a_dims[..batch.len() + rows.len()], &c_dims[batch.len() + inner.len()..]].concat();
        let a = matrices(b, a, batch.len(), rows.len())?;
        let c = matrices(b, c, batch.len(), inner.len())?;
        let product = b.matmul(a, c)?;
        b.reshape(product, result)?
    };
    Ok(Term { value, labels })
}

/// The term with its axes in the order of `labels`.
fn arranged(b: &mut Builder<'_>, term: &Term, labels: &[Label]) -> Built {
    let at = |label: &Label| term.labels.iter().position(|own| own == label);
    let perm: Option<Vec<usize>> = labels.iter().map(at).collect();
    match perm {
        Some(perm) if perm.len() == term.labels.len() => b.transpose(term.value, &perm),
        _ => Err(format!("the equation needs axes {labels:?} of a term that has {:?}", term.labels)),
    }
}

/// `x` as a batch of matrices: `batch` axes, then `rows` axes merged, then the rest merged.
fn matrices(b: &mut Builder<'_>, x: ValueId, batch: usize, rows: usize) -> Built {
    let dims = b.dims(x);
    let product = |dims: &[Expr]| dims.iter().cloned().fold(Expr::constant(1), |count, dim| count * dim);
    let (outer, inner) = dims.split_at(batch);
    let (rows, columns) = inner.split_at(rows);
    let mut merged = outer.to_vec();
    merged.extend([product(rows), product(columns)]);
    b.reshape(x, merged)
}
