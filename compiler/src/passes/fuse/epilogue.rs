//! Epilogues of matrix products and convolutions.
//!
//! Does: `g(conv(x, w), y) -> conv_g(x, w, y)`. Needs: pointwise regions, so that `g` is the whole chain.
//! Keeps: types. Not here: operands of `g` that broadcast along other axes than to channels, and to rows or columns of
//! matrices, which the kernels' epilogues do not address; operands and results of storage types, of which an epilogue would have to find parts of bytes.

use super::pointwise::{merge_equal, pointwise};
use crate::ir::{Graph, NodeId, Op, Patch, Program, Ref, Type, ValueId};
use crate::passes::why::{self, Why};

/// How many operands an epilogue may read besides the product.
const MAX_OPERANDS: usize = 6;

/// `g(product(a, b), y) -> product_g(a, b, y)`, where `g` is at `id` and is the only user of the product.
pub fn rewrite(graph: &Graph, id: NodeId) -> Option<Patch> {
    let (_, inputs, _) = pointwise(graph, id)?;
    (0..inputs.len()).find_map(|at| fuse(graph, id, at)?.ok())
}

/// Why the node at `id` is no epilogue of the product that its operand `at` is; `None` where it is none.
pub fn why_not(graph: &Graph, id: NodeId, at: usize) -> Option<Why> {
    fuse(graph, id, at).map(|found| why::why_not("epilogue", found))
}

/// The rule on operand `at` of the pointwise node at `id`; `None` where the operand is no product.
fn fuse(graph: &Graph, id: NodeId, at: usize) -> Option<Result<Patch, Why>> {
    let (program, inputs, result) = pointwise(graph, id)?;
    let product = *inputs.get(at)?;
    let producer = graph.producer(product)?;
    let node = graph.node(producer);
    let (own, channel) = match &node.op {
        Op::MatMul(_, epilogue) => (epilogue, graph.ty(product).dims.len() - 1),
        Op::Conv(_, epilogue) => (epilogue, 1),
        _ => return None,
    };
    let others: Vec<ValueId> = inputs.iter().enumerate().filter(|(k, _)| *k != at).map(|(_, value)| *value).collect();
    if let Err(why) = fits(graph, id, product, result, &others, channel) {
        return Some(Err(why));
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
    let earlier: Vec<ValueId> = node.inputs[2..].iter().copied().collect::<Option<_>>()?;
    let (program, extras) = compose(&program, own.as_ref(), others, earlier, product);
    if extras.len() > MAX_OPERANDS {
        return Some(Err(Why::Operands { needs: extras.len(), most: MAX_OPERANDS }));
    }
    let op = match &node.op {
        Op::MatMul(spec, _) => Op::MatMul(*spec, Some(program)),
        Op::Conv(spec, _) => Op::Conv(*spec, Some(program)),
        _ => return None,
    };
    let operands: Vec<ValueId> = node.inputs[..2].iter().copied().collect::<Option<_>>()?;
    let mut patch = Patch::new(&[producer, id]);
    let fused = patch.node(op, operands.into_iter().chain(extras).map(Ref::from));
    Some(Ok(patch.replace(result, fused)))
}

/// Whether the node at `id`, which gives `result` of `product` and `others`, can run on the accumulators.
fn fits(
    graph: &Graph,
    id: NodeId,
    product: ValueId,
    result: ValueId,
    others: &[ValueId],
    channel: usize,
) -> Result<(), Why> {
    if super::is_derived(graph, product) {
        return Err(Why::AtLoad(product));
    }
    if super::only_user(graph, product) != Some(id) {
        return Err(Why::Readers(product));
    }
    if others.contains(&product) {
        return Err(Why::ReadTwice(product));
    }
    if graph.ty(product).dims != graph.ty(result).dims {
        return Err(Why::Broadcast(product, result));
    }
    if let Some(&value) = [result].iter().chain(others).find(|value| graph.ty(**value).dtype.is_storage()) {
        return Err(Why::Storage(value));
    }
    match others.iter().find(|value| !addressable(graph.ty(**value), graph.ty(result), channel)) {
        Some(&value) => Err(Why::NotAddressable(value)),
        None => Ok(()),
    }
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

/// Whether an epilogue can read a tensor of type `ty`: it has the result's shape, one element a channel, or one; or, where the
/// channel is the last axis, one for each row or for each column of each matrix.
fn addressable(ty: &Type, result: &Type, channel: usize) -> bool {
    let rank = result.dims.len();
    let lead = rank - ty.dims.len().min(rank);
    let full = |k: usize| lead <= k && ty.dims[k - lead] == result.dims[k];
    let one = |k: usize| k < lead || ty.dims[k - lead].is(1);
    let all_but = |axis: usize| one(axis) && (0..rank).all(|k| k == axis || full(k));
    (0..rank).all(full)
        || (0..rank).all(|k| one(k) || k == channel && full(k))
        || channel + 1 == rank && (all_but(rank - 1) || rank > 1 && all_but(rank - 2))
}
