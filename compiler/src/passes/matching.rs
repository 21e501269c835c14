//! What rules match on: which step computes a value, and from what.
//!
//! The rules that use this stand before `pointwise` fuses, so that each step of a model's arithmetic is a node of its
//! own, and a rule reads like the algebra it rewrites. Constants of one element count as scalars wherever they stand.
//! Not here: shapes. A rule compares the types of what it replaces and what stands for it.

use std::collections::BTreeSet;

use lapidary_runtime::DType;
use lapidary_runtime::op::{Arg, Axes, Instr, ReduceKind, Scalar, ScalarOp};

use super::fuse::pointwise::pointwise;
use crate::ir::builder::scalar_of;
use crate::ir::eval::Tensor;
use crate::ir::{Expr, Graph, NodeId, Op, Type, Use, ValueId};

/// An operand of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Operand {
    Value(ValueId),
    Scalar(Scalar),
}

impl Operand {
    /// The value, where it is no scalar.
    pub fn value(self) -> Option<ValueId> {
        match self {
            Operand::Value(value) => Some(value),
            Operand::Scalar(_) => None,
        }
    }

    /// The scalar, where it is one.
    pub fn scalar(self) -> Option<f64> {
        match self {
            Operand::Value(_) => None,
            Operand::Scalar(scalar) => Some(scalar.as_f64()),
        }
    }
}

/// The one result of a node.
pub fn result(graph: &Graph, id: NodeId) -> Option<ValueId> {
    match graph.node(id).outputs[..] {
        [Some(result)] => Some(result),
        _ => None,
    }
}

/// The operand of the step `op(x)` that computes `value`.
pub fn unary(graph: &Graph, value: ValueId, op: ScalarOp) -> Option<ValueId> {
    let (instr, operands) = step(graph, value)?;
    if instr.op == op { operands[0].value() } else { None }
}

/// The operands of the step `op(a, b)` that computes `value`.
pub fn binary(graph: &Graph, value: ValueId, op: ScalarOp) -> Option<(Operand, Operand)> {
    let (instr, operands) = step(graph, value)?;
    (instr.op == op).then_some((operands[0], operands[1]))
}

/// The operands of `a op b`, in both orders where `op` is; none of either where another step computes `value`.
pub fn either_way(graph: &Graph, value: ValueId, op: ScalarOp) -> impl Iterator<Item = (Operand, Operand)> + use<> {
    binary(graph, value, op).into_iter().flat_map(|(a, b)| [(a, b), (b, a)])
}

/// `x` and `c` of `x op c` or `c op x`, where `op` does not mind the order.
pub fn with_scalar(graph: &Graph, value: ValueId, op: ScalarOp) -> Option<(ValueId, f64)> {
    either_way(graph, value, op).find_map(|(x, c)| Some((x.value()?, c.scalar()?)))
}

/// `x` of `cast(x)`.
pub fn cast_of(graph: &Graph, value: ValueId) -> Option<ValueId> {
    unary(graph, value, ScalarOp::Cast)
}

/// `x` of `x * x` or `x^2`.
pub fn square_of(graph: &Graph, value: ValueId) -> Option<ValueId> {
    match binary(graph, value, ScalarOp::Mul) {
        Some((a, b)) if a == b => a.value(),
        _ => power_of(graph, value, 2.0),
    }
}

/// `x` of `sqrt(x)` or `x^(1/2)`.
pub fn root_of(graph: &Graph, value: ValueId) -> Option<ValueId> {
    unary(graph, value, ScalarOp::Sqrt).or_else(|| power_of(graph, value, 0.5))
}

/// `x` of `1 / x`.
pub fn inverse_of(graph: &Graph, value: ValueId) -> Option<ValueId> {
    let quotient = || match binary(graph, value, ScalarOp::Div)? {
        (one, x) if one.scalar() == Some(1.0) => x.value(),
        _ => None,
    };
    unary(graph, value, ScalarOp::Reciprocal).or_else(quotient).or_else(|| power_of(graph, value, -1.0))
}

/// `x` of `1 / sqrt(x)`.
pub fn inverse_root_of(graph: &Graph, value: ValueId) -> Option<ValueId> {
    let of_root = || root_of(graph, inverse_of(graph, value)?);
    unary(graph, value, ScalarOp::Rsqrt).or_else(of_root).or_else(|| power_of(graph, value, -0.5))
}

fn power_of(graph: &Graph, value: ValueId, exponent: f64) -> Option<ValueId> {
    let (x, power) = binary(graph, value, ScalarOp::Pow)?;
    if power.scalar() == Some(exponent) { x.value() } else { None }
}

/// `x` and the axes of a reduction of this kind.
pub fn reduced(graph: &Graph, value: ValueId, kind: ReduceKind) -> Option<(ValueId, Axes)> {
    let node = graph.node(graph.producer(value)?);
    match (&node.op, &node.inputs[..]) {
        (Op::Reduce(spec), &[Some(x)]) if spec.kind == kind => Some((x, spec.axes)),
        _ => None,
    }
}

/// `x` of `x - r(x)`, where `r` reduces along `axes` by `kind`.
pub fn shifted(graph: &Graph, value: ValueId, kind: ReduceKind, axes: Axes) -> Option<ValueId> {
    let (x, statistic) = binary(graph, value, ScalarOp::Sub)?;
    let x = x.value()?;
    (reduced(graph, statistic.value()?, kind)? == (x, axes)).then_some(x)
}

/// The nodes between `from` and the node `to`, in order, if nothing else reads what they compute: then they go away when
/// the result of `to`, the last of them, is computed in another way.
pub fn between(graph: &Graph, from: &[ValueId], to: NodeId) -> Option<Vec<NodeId>> {
    let mut nodes = Vec::new();
    collect(graph, from, to, &mut nodes);
    let inside = |used: Use| matches!(used, Use::Operand(node, _) if nodes.contains(&node));
    let mut values = nodes[..nodes.len() - 1].iter().flat_map(|&node| graph.node(node).outputs.iter().flatten());
    values.all(|&value| graph.uses(value).into_iter().all(inside)).then_some(nodes)
}

/// Appends what `node` is computed by, then `node`.
fn collect(graph: &Graph, from: &[ValueId], node: NodeId, nodes: &mut Vec<NodeId>) {
    let operands = graph.node(node).inputs.iter().flatten().filter(|value| !from.contains(value));
    for producer in operands.filter_map(|&value| graph.producer(value)) {
        if !nodes.contains(&producer) {
            collect(graph, from, producer, nodes);
        }
    }
    nodes.push(node);
}

/// Whether `ty` has an element for each of `axes` of `like`, and one along all others.
pub fn spans(ty: &Type, like: &Type, axes: std::ops::Range<usize>) -> bool {
    let Some(lead) = like.dims.len().checked_sub(ty.dims.len()) else { return false };
    lead <= axes.start
        && ty
            .dims
            .iter()
            .zip(&like.dims[lead..])
            .enumerate()
            .all(|(k, (dim, full))| if axes.contains(&(lead + k)) { dim == full } else { dim.is(1) })
}

/// The most elements of a constant that is looked into.
const MAX_ELEMENTS: i64 = 4096;

/// Whether a value is a small constant of which each element is `number`.
pub fn is_filled(graph: &Graph, value: ValueId, number: f64) -> bool {
    let (Some(constant), ty) = (graph.constant(value), graph.ty(value)) else { return false };
    let dims: Option<Vec<usize>> = ty.dims.iter().map(|dim| usize::try_from(dim.as_const()?).ok()).collect();
    let small = ty.count().as_const().is_some_and(|count| count <= MAX_ELEMENTS);
    let Some(dims) = dims.filter(|_| small) else { return false };
    Tensor::new(ty.dtype, dims, constant.bytes.clone())
        .is_ok_and(|tensor| tensor.to_f64s().iter().all(|x| *x == number))
}

/// The number of elements along `axes`.
pub fn extent(ty: &Type, axes: Axes) -> Expr {
    axes.iter().filter_map(|axis| ty.dims.get(axis)).fold(Expr::constant(1), |count, dim| count * dim.clone())
}

/// The first of the axes, if they are all from there to the last.
pub fn trailing(axes: Axes, rank: usize) -> Option<u8> {
    let first = axes.iter().next()?;
    (axes == Axes::of(first..rank)).then_some(first as u8)
}

/// Whether a type is a float narrower than another.
pub fn is_narrower(a: DType, b: DType) -> bool {
    a.is_float() && b.is_float() && a.bits() < b.bits()
}

/// The nodes that follow from constants alone.
pub fn at_load(graph: &Graph) -> BTreeSet<NodeId> {
    let mut found = BTreeSet::new();
    for id in graph.order() {
        let mut operands = graph.node(id).inputs.iter().flatten().peekable();
        let is_constant = |value: &ValueId| match graph.producer(*value) {
            Some(producer) => found.contains(&producer),
            None => graph.constant(*value).is_some(),
        };
        if operands.peek().is_some() && operands.all(is_constant) {
            found.insert(id);
        }
    }
    found
}

/// The one step of the node that computes a value, and its operands.
fn step(graph: &Graph, value: ValueId) -> Option<(Instr, [Operand; 3])> {
    let (program, inputs, _) = pointwise(graph, graph.producer(value)?)?;
    let (&[instr], &[Arg::Step(0)]) = (&program.steps[..], &program.outputs[..]) else { return None };
    let operand = |arg: Arg| match arg {
        Arg::Input(k) => {
            let value = inputs[usize::from(k)];
            scalar_of(graph, value).map_or(Operand::Value(value), Operand::Scalar)
        }
        Arg::Imm(scalar) => Operand::Scalar(scalar),
        Arg::Step(_) => crate::bug!("the first step reads one before it"),
    };
    Some((instr, instr.args.map(operand)))
}
