//! Products of transposed operands.
//!
//! Does: `matmul(transpose(a), b) -> matmul^T(a, b)`, either operand. Needs: nothing. Keeps: types.
//! Not here: transposes that move batch axes.

use lapidary_runtime::op::{MatMul, Transpose};

use crate::ir::{Graph, NodeId, Op, Patch, Ref, ValueId};
use crate::passes::why::Why;

/// `a^T b -> matmul(transpose_a)(a, b)` and `a b^T -> matmul(transpose_b)(a, b)`
pub fn rewrite(graph: &Graph, id: NodeId) -> Option<Patch> {
    let node = graph.node(id);
    let (Op::MatMul(spec, epilogue), &[Some(result)]) = (&node.op, &node.outputs[..]) else { return None };
    let mut inputs: Vec<ValueId> = node.inputs.iter().copied().collect::<Option<_>>()?;
    let mut spec: MatMul = *spec;
    let at = (0..2).find(|&k| swapped(graph, inputs[k]).is_some())?;
    inputs[at] = swapped(graph, inputs[at])?;
    match at {
        0 => spec.transpose_a = !spec.transpose_a,
        _ => spec.transpose_b = !spec.transpose_b,
    }
    let mut patch = Patch::new(&[id]);
    let product = patch.node(Op::MatMul(spec, epilogue.clone()), inputs.into_iter().map(Ref::from));
    Some(patch.replace(result, product))
}

/// Why the product at `id` does not read its operand `at` through the transpose that it comes from; `None` where it is no
/// operand of a product, or comes from none.
pub fn why_not(graph: &Graph, id: NodeId, at: usize) -> Option<Why> {
    let node = graph.node(id);
    let Op::MatMul(..) = node.op else { return None };
    let value = node.inputs.get(at).copied().flatten().filter(|_| at < 2)?;
    let Op::Transpose(_) = graph.node(graph.producer(value)?).op else { return None };
    Some(if swapped(graph, value).is_some() { Why::WouldFuse("matmul-transpose") } else { Why::OtherAxes })
}

/// The operand of a transpose that swaps the last two axes and nothing else.
fn swapped(graph: &Graph, value: ValueId) -> Option<ValueId> {
    let node = graph.node(graph.producer(value)?);
    let (Op::Transpose(Transpose { rank, perm }), &[Some(x)]) = (&node.op, &node.inputs[..]) else { return None };
    let rank = usize::from(*rank);
    let swaps = rank >= 2
        && (0..rank).all(|k| {
            usize::from(perm[k])
                == match rank - k {
                    1 => rank - 2,
                    2 => rank - 1,
                    _ => k,
                }
        });
    swaps.then_some(x)
}
