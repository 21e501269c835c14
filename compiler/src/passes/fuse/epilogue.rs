//! Epilogues of matrix products and convolutions.
//!
//! Does: `g(conv(x, w), y) -> conv_g(x, w, y)`. Needs: pointwise regions, so that `g` is the whole chain.
//! Keeps: types. Not here: operands of `g` that broadcast along anything but the channel, which the kernels' epilogues
//! do not address; operands and results of storage types, of which an epilogue would have to find parts of bytes.

use super::pointwise::{merge_equal, pointwise};
use crate::ir::{Graph, NodeId, Op, Patch, Program, Ref, Type, ValueId};

/// How many operands an epilogue may read besides the product.
const MAX_OPERANDS: usize = 6;

/// `g(product(a, b), y) -> product_g(a, b, y)`, where `g` is at `id` and is the only user of the product.
pub fn rewrite(graph: &Graph, id: NodeId) -> Option<Patch> {
    let (program, inputs, result) = pointwise(graph, id)?;
    for (at, &product) in inputs.iter().enumerate() {
        let Some(producer) = graph.producer(product) else { continue };
        let node = graph.node(producer);
        let (own, channel) = match &node.op {
            Op::MatMul(_, epilogue) => (epilogue, graph.ty(product).dims.len() - 1),
            Op::Conv(_, epilogue) => (epilogue, 1),
            _ => continue,
        };
        let sole =
            super::only_user(graph, product) == Some(id) && inputs.iter().filter(|v| **v == product).count() == 1;
        let same_shape = graph.ty(product).dims == graph.ty(result).dims;
        let others = inputs.iter().enumerate().filter(|(k, _)| *k != at).map(|(_, value)| *value);
        let whole = |value: ValueId| !graph.ty(value).dtype.is_storage();
        let reachable = whole(result)
            && others.clone().all(|value| whole(value) && addressable(graph.ty(value), graph.ty(result), channel));
        if !(sole && same_shape && reachable) || super::is_derived(graph, product) {
            continue;
        }
        // The product becomes input 0, whatever its place was.
        let order: Vec<u16> = (0..inputs.len() as u16)
            .map(|k| match (k as usize).cmp(&at) {
                std::cmp::Ordering::Less => k + 1,
                std::cmp::Ordering::Equal => 0,
                std::cmp::Ordering::Greater => k,
            })
            .collect();
        let program = program.renumber_inputs(&order, inputs.len());
        let others: Vec<ValueId> = others.collect();
        let earlier: Vec<ValueId> = node.inputs[2..].iter().copied().collect::<Option<_>>()?;
        let (program, extras) = compose(&program, own.as_ref(), others, earlier, product);
        if extras.len() > MAX_OPERANDS {
            continue;
        }
        let op = match &node.op {
            Op::MatMul(spec, _) => Op::MatMul(*spec, Some(program)),
            Op::Conv(spec, _) => Op::Conv(*spec, Some(program)),
            _ => return None,
        };
        let operands: Vec<ValueId> = node.inputs[..2].iter().copied().collect::<Option<_>>()?;
        let mut patch = Patch::new(&[producer, id]);
        let fused = patch.node(op, operands.into_iter().chain(extras).map(Ref::from));
        return Some(patch.replace(result, fused));
    }
    None
}

/// The program behind an epilogue that is there already, and the operands of both; input 0 is the product.
fn compose(
    program: &Program,
    own: Option<&Program>,
    others: Vec<ValueId>,
    earlier: Vec<ValueId>,
    product: ValueId,
) -> (Program, Vec<ValueId>) {
    // `product` stands for input 0 while equal operands are merged.
    let (composed, operands) = match own {
        None => (program.clone(), [vec![product], others].concat()),
        Some(own) => {
            // Inputs: the others, then the product and the earlier operands.
            let inlined = program.inline(0, own, 0);
            let shift = others.len() as u16;
            let to: Vec<u16> = (0..inlined.inputs.len() as u16)
                .map(|k| match k {
                    k if k < shift => k + 1,
                    k if k == shift => 0,
                    k => k,
                })
                .collect();
            (inlined.renumber_inputs(&to, to.len()), [vec![product], others, earlier].concat())
        }
    };
    let (merged, operands) = merge_equal(&composed, &operands);
    (merged.simplify(), operands[1..].to_vec())
}

/// Whether an epilogue can read a tensor of type `ty`: it has the result's shape, one element a channel, or one.
fn addressable(ty: &Type, result: &Type, channel: usize) -> bool {
    if ty.dims == result.dims {
        return true;
    }
    let lead = result.dims.len() - ty.dims.len().min(result.dims.len());
    ty.dims.iter().enumerate().all(|(k, dim)| dim.is(1) || (lead + k == channel && dim == &result.dims[channel]))
}
