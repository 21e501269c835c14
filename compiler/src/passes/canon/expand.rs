//! Operands that repeat what one element, or a smaller tensor, says.
//!
//! Does: `f(expand(x), y) -> f(x, y)` where `y` has the result's shape, `f(expand(x)) -> expand(f(x))` where nothing else is
//! read, `f(expand(c), y) -> expand(f_c(y))` and `f(expand(c)) -> expand(f(c))` for a constant `c`; attention reads a mask
//! that repeats as it is. So work is done once for what is equal, and a repetition is left only where it is read as such.
//! Needs: `scalar-operand`. Keeps: types. Not here: expands that only the run's extents tell from none.

use lapidary_runtime::op::Scalar;
use lapidary_templates::Program;

use crate::ir::builder::scalar_of;
use crate::ir::eval::{self, Tensor};
use crate::ir::{Constant, Expr, Graph, Node, NodeId, Op, Patch, Ref, Type, ValueId};
use crate::passes::matching::result;

/// `f(expand(x), y) -> f(x, y)`, `f(expand(x)) -> expand(f(x))`, `attention(q, k, v, expand(m)) -> attention(q, k, v, m)`
pub fn rewrite(graph: &Graph, id: NodeId) -> Option<Patch> {
    let node = graph.node(id);
    let y = result(graph, id)?;
    let mut inputs: Vec<ValueId> = node.inputs.iter().copied().collect::<Option<_>>()?;
    let mut patch = Patch::new(&[id]);
    let (program, dims) = match &node.op {
        Op::Pointwise(program) => (program, &graph.ty(y).dims),
        Op::Attention(_) => {
            let mask = inputs.get_mut(3)?;
            *mask = expanded(graph, *mask)?;
            let attention = patch.node(node.op.clone(), inputs.into_iter().map(Ref::from));
            return Some(patch.replace(y, attention));
        }
        _ => return None,
    };
    let (k, x) = inputs.iter().enumerate().find_map(|(k, input)| Some((k, expanded(graph, *input)?)))?;
    let shapes = |value: &ValueId| graph.ty(*value).dims == *dims;
    if inputs.iter().enumerate().any(|(other, value)| other != k && shapes(value)) {
        inputs[k] = x;
        let read = patch.node(node.op.clone(), inputs.into_iter().map(Ref::from));
        return Some(patch.replace(y, read));
    }
    let (program, inputs) = match scalar_of(graph, x) {
        Some(_) if inputs.len() == 1 => {
            let once = evaluated(graph, node, x)?;
            let once = patch.constant(once.0, once.1);
            let everywhere = patch.node(Op::Expand(dims.clone()), [once]);
            return Some(patch.replace(y, everywhere));
        }
        Some(scalar) => bound(program, &inputs, k, scalar),
        _ if inputs.len() == 1 => (program.clone(), vec![x]),
        _ => return None,
    };
    // All that is left has to repeat to the result's shape.
    let fits = |value: &ValueId| broadcasts(&graph.ty(*value).dims, dims);
    if !inputs.iter().all(fits) {
        return None;
    }
    let once = patch.node(Op::Pointwise(program), inputs.into_iter().map(Ref::from));
    let everywhere = patch.node(Op::Expand(dims.clone()), [once]);
    Some(patch.replace(y, everywhere))
}

/// What a program makes of a constant of one element.
fn evaluated(graph: &Graph, node: &Node, x: ValueId) -> Option<(Type, Constant)> {
    let dtype = graph.ty(x).dtype;
    let operand = Tensor::new(dtype, Vec::new(), graph.constant(x)?.bytes.clone()).ok()?;
    let results = eval::eval_node(&node.op, &[Some(&operand)], &|_| 0).ok()?;
    let result = results.into_iter().next()?;
    let ty = Type { dtype: result.dtype, dims: Vec::new() };
    Some((ty, Constant { bytes: result.bytes, initializer: None }))
}

/// The program without operand `k`, which is a constant.
fn bound(program: &Program, inputs: &[ValueId], k: usize, scalar: Scalar) -> (Program, Vec<ValueId>) {
    let rest = inputs.iter().enumerate().filter(|(other, _)| *other != k).map(|(_, value)| *value).collect();
    (program.bind(k as u16, scalar).simplify(), rest)
}

/// What an expand repeats, where the formulas say along which axes.
fn expanded(graph: &Graph, value: ValueId) -> Option<ValueId> {
    let node = graph.node(graph.producer(value)?);
    let (Op::Expand(_), &[Some(x)]) = (&node.op, &node.inputs[..]) else { return None };
    broadcasts(&graph.ty(x).dims, &graph.ty(value).dims).then_some(x)
}

/// Whether each extent is that of the larger shape, or 1.
fn broadcasts(from: &[Expr], to: &[Expr]) -> bool {
    let lead = to.len().checked_sub(from.len());
    lead.is_some_and(|lead| from.iter().zip(&to[lead..]).all(|(from, to)| from == to || from.is(1)))
}
