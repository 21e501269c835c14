//! The operands of pointwise programs.
//!
//! Does: bind constants of one element, merge operands that are one value, drop operands that are not read, and
//! simplify the program. Needs: nothing. Keeps: types; an operand whose shape shapes the result stays.

use lapidary_templates::Program;

use super::super::fuse::pointwise::merge_equal;
use crate::ir::builder::scalar_of;
use crate::ir::{Graph, NodeId, Op, Patch, Ref, ValueId};

/// `f(x, c) -> f_c(x)`, `f(x, x) -> g(x)`, `f(x, unread) -> f(x)`
pub fn rewrite(graph: &Graph, id: NodeId) -> Option<Patch> {
    let node = graph.node(id);
    let Op::Pointwise(program) = &node.op else { return None };
    let result = node.outputs.first().copied().flatten()?;
    if node.outputs.len() != 1 {
        return None;
    }
    let inputs: Vec<ValueId> = node.inputs.iter().copied().collect::<Option<_>>()?;
    let (new_program, new_inputs) = bind(graph, program, &inputs, result);
    if new_inputs.len() == inputs.len() && new_program == *program {
        return None;
    }
    let mut patch = Patch::new(&[id]);
    let merged = patch.node(Op::Pointwise(new_program), new_inputs.into_iter().map(Ref::from));
    Some(patch.replace(result, merged))
}

fn bind(graph: &Graph, program: &Program, inputs: &[ValueId], result: ValueId) -> (Program, Vec<ValueId>) {
    let (mut program, mut inputs) = merge_equal(program, inputs);
    let mut at = 0;
    while at < inputs.len() {
        let rest: Vec<ValueId> = inputs.iter().enumerate().filter(|(k, _)| *k != at).map(|(_, v)| *v).collect();
        let unread = !program.used_inputs()[at];
        let scalar = scalar_of(graph, inputs[at]);
        if (unread || scalar.is_some()) && shapes(graph, &rest, result) {
            program = match scalar {
                Some(scalar) => program.bind(at as u16, scalar),
                // Nothing reads it, so that any constant will do.
                None => program.bind(at as u16, lapidary_runtime::op::Scalar::int(lapidary_runtime::DType::Bool, 0)),
            };
            inputs = rest;
        } else {
            at += 1;
        }
    }
    (program.simplify(), inputs)
}

/// Whether `inputs` alone broadcast to the result's shape.
fn shapes(graph: &Graph, inputs: &[ValueId], result: ValueId) -> bool {
    let dims = &graph.ty(result).dims;
    inputs.iter().any(|input| &graph.ty(*input).dims == dims)
}
