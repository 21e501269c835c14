//! Attention from its chain.
//!
//! Does: `softmax(c q k^T + mask) v -> attention(q, k, v, mask)`, in the spellings of exporters: scales on either side of
//! the first product, any sum of masks, `where(mask, score, -inf)`, a softmax in another float type, and the guard that
//! turns the NaN of a query without keys into 0. Needs: pointwise regions, so that what stands between the products is one
//! program; products without epilogues. Keeps: types.
//! Not here: masks known to be causal, quantized chains, heads that are repeated by copies.

use lapidary_runtime::DType;
use lapidary_runtime::op::{Arg, Attention, Instr, MAX_RANK, MatMul, Scalar, ScalarOp, Transpose, Unseen};

use super::only_user;
use super::pointwise::pointwise;
use crate::ir::{Expr, Graph, NodeId, Op, Patch, Program, Ref, ValueId};

/// The largest depth of a head that kernels keep at hand.
const MOST_DEPTH: i64 = 256;

/// `softmax(c q k^T + mask) v -> attention(q, k, v, mask)`, where the product with v is at `id`.
pub fn rewrite(graph: &Graph, id: NodeId) -> Option<Patch> {
    let second = product(graph, id)?;
    let mut from = vec![id];
    let (softmax, unseen) = weights(graph, second.a, id, &mut from)?;
    let scores = scores(graph, softmax, &mut from)?;
    let first = product(graph, scores.product)?;
    if first.spec.math != second.spec.math || second.spec.transpose_a {
        return None;
    }
    let rank = graph.ty(first.result).dims.len();
    let (q, q_factor) = unscaled(graph, first.a, scores.product, &mut from);
    let (k, k_factor) = unscaled(graph, first.b, scores.product, &mut from);
    let v = second.b;
    let dtype = graph.ty(q).dtype;
    let like_q = |value: ValueId| graph.ty(value).dtype == dtype && graph.ty(value).dims.len() == rank;
    if !(3..=4).contains(&rank) || !like_q(q) || !like_q(k) || !like_q(v) || !dtype.is_float() {
        return None;
    }
    from.reverse();
    let mut patch = Patch::new(&from);
    let operands = [(q, first.spec.transpose_a), (k, !first.spec.transpose_b), (v, second.spec.transpose_b)];
    if !shapes_fit(graph, &operands, &graph.ty(first.result).dims) {
        return None;
    }
    let [q, k, v] = operands.map(|(value, swapped)| of_heads(&mut patch, graph, value, swapped));
    let mask = match scores.mask {
        Some(mask) if mask.program.dtype_of(mask.program.outputs[0]) != dtype => return None,
        Some(mask) if mask.program.is_identity() => Some(mask.operands[0].into()),
        Some(mask) => Some(patch.node(Op::Pointwise(mask.program), mask.operands.into_iter().map(Ref::from))),
        None => None,
    };
    let spec = Attention {
        scale: Scalar::float(DType::F32, scores.factor * q_factor * k_factor),
        causal: false,
        unseen,
        math: first.spec.math,
    };
    let mut result = patch.node(Op::Attention(spec), [q, k, v].into_iter().chain(mask));
    if rank == 3 {
        result = patch.node(Op::Reshape(graph.ty(second.result).dims.clone()), [result]);
    }
    Some(patch.replace(second.result, result))
}

/// A product without an epilogue.
struct Product {
    spec: MatMul,
    a: ValueId,
    b: ValueId,
    result: ValueId,
}

fn product(graph: &Graph, id: NodeId) -> Option<Product> {
    let node = graph.node(id);
    match (&node.op, &node.inputs[..], &node.outputs[..]) {
        (Op::MatMul(spec, None), &[Some(a), Some(b)], &[Some(result)]) => Some(Product { spec: *spec, a, b, result }),
        _ => None,
    }
}

/// The softmax along the last axis that `value`, which `user` alone reads, comes from; and what a guard in between makes of
/// a row of NaN. The nodes on the way go to `from`.
fn weights(graph: &Graph, value: ValueId, user: NodeId, from: &mut Vec<NodeId>) -> Option<(NodeId, Unseen)> {
    let producer = graph.producer(value).filter(|_| only_user(graph, value) == Some(user))?;
    from.push(producer);
    match &graph.node(producer).op {
        Op::Softmax(spec) if !spec.log && usize::from(spec.axis) + 1 == graph.ty(value).dims.len() => {
            Some((producer, Unseen::Nan))
        }
        Op::Pointwise(program) => {
            let &[Some(x)] = &graph.node(producer).inputs[..] else { return None };
            let guarded = guard(program)?;
            let (softmax, unseen) = weights(graph, x, producer, from)?;
            Some((softmax, if unseen == Unseen::Zero { unseen } else { guarded }))
        }
        _ => None,
    }
}

/// What a program of one input does with NaN, if it does nothing else.
fn guard(program: &Program) -> Option<Unseen> {
    let &[output] = &program.outputs[..] else { return None };
    match uncast(program, output) {
        Arg::Input(_) => Some(Unseen::Nan),
        Arg::Step(k) => {
            let step = &program.steps[usize::from(k)];
            let &[condition, instead, otherwise] = step.operands() else { return None };
            let Arg::Step(test) = condition else { return None };
            let test = &program.steps[usize::from(test)];
            let guards = step.op == ScalarOp::Select
                && test.op == ScalarOp::IsNan
                && matches!(uncast(program, test.operands()[0]), Arg::Input(_))
                && matches!(uncast(program, otherwise), Arg::Input(_))
                && matches!(instead, Arg::Imm(zero) if zero.as_f64() == 0.0);
            guards.then_some(Unseen::Zero)
        }
        Arg::Imm(_) => None,
    }
}

/// The value in front of conversions between float types.
fn uncast(program: &Program, arg: Arg) -> Arg {
    match arg {
        Arg::Step(k) => {
            let step = &program.steps[usize::from(k)];
            let from = step.operands()[0];
            let converts = step.op == ScalarOp::Cast && step.dtype.is_float() && program.dtype_of(from).is_float();
            if converts { uncast(program, from) } else { arg }
        }
        Arg::Input(_) | Arg::Imm(_) => arg,
    }
}

/// `factor * product + mask`, the operand of the softmax.
struct Scores {
    product: NodeId,
    factor: f64,
    mask: Option<Mask>,
}

struct Mask {
    program: Program,
    operands: Vec<ValueId>,
}

/// What the softmax at `id` is taken of, which it alone reads.
fn scores(graph: &Graph, id: NodeId, from: &mut Vec<NodeId>) -> Option<Scores> {
    let &[Some(x)] = &graph.node(id).inputs[..] else { return None };
    let producer = graph.producer(x).filter(|_| only_user(graph, x) == Some(id))?;
    from.push(producer);
    if product(graph, producer).is_some() {
        return Some(Scores { product: producer, factor: 1.0, mask: None });
    }
    let (program, inputs, result) = pointwise(graph, producer)?;
    inputs.iter().enumerate().find_map(|(at, &value)| {
        let behind = graph.producer(value).filter(|behind| product(graph, *behind).is_some())?;
        let sole = only_user(graph, value) == Some(producer) && inputs.iter().filter(|v| **v == value).count() == 1;
        if !sole || graph.ty(value).dims != graph.ty(result).dims {
            return None;
        }
        let (factor, mask) = affine(program, at as u16)?;
        let mask = mask.map(|program| {
            let used = program.used_inputs();
            let kept = inputs.iter().zip(&used).filter(|(_, used)| **used).map(|(value, _)| *value);
            Mask { operands: kept.collect(), program: program.keep_inputs(&used) }
        });
        // A mask of constants alone has no shape of its own.
        let shaped = mask.as_ref().is_none_or(|mask| !mask.operands.is_empty());
        shaped.then(|| {
            from.push(behind);
            Scores { product: behind, factor, mask }
        })
    })
}

/// What a step of a program is, seen from the score.
#[derive(Clone)]
enum Form {
    /// `factor * score + added`
    Score { factor: f64, added: Option<Arg> },
    /// Something that does not depend on the score.
    Free,
}

/// The program as `factor * input + mask`, with the mask as a program of the same inputs.
fn affine(program: &Program, at: u16) -> Option<(f64, Option<Program>)> {
    let mut forms: Vec<Form> = Vec::new();
    // The program's steps, and behind each that adds a second mask the sum of both.
    let mut mask = program.clone();
    for instr in &program.steps {
        let form = |arg: Arg| match arg {
            Arg::Input(k) if k == at => Form::Score { factor: 1.0, added: None },
            Arg::Step(k) => forms[usize::from(k)].clone(),
            Arg::Input(_) | Arg::Imm(_) => Form::Free,
        };
        let operands: Vec<(Arg, Form)> = instr.operands().iter().map(|&arg| (arg, form(arg))).collect();
        forms.push(step(program, &mut mask, instr, &operands)?);
    }
    let &[output] = &program.outputs[..] else { return None };
    let Arg::Step(k) = output else { return None };
    let Form::Score { factor, added } = forms[usize::from(k)].clone() else { return None };
    let mask = added.map(|added| Program { outputs: vec![added], ..mask }.simplify());
    if mask.as_ref().is_some_and(|mask| mask.used_inputs().get(usize::from(at)) != Some(&false)) {
        return None;
    }
    Some((factor, mask))
}

/// The form of one step; `None` if it is no longer affine in the score.
fn step(program: &Program, mask: &mut Program, instr: &Instr, operands: &[(Arg, Form)]) -> Option<Form> {
    let number = |arg: &Arg| match arg {
        Arg::Imm(value) => Some(value.as_f64()),
        Arg::Input(_) | Arg::Step(_) => None,
    };
    match (instr.op, operands) {
        (_, all) if all.iter().all(|(_, form)| matches!(form, Form::Free)) => Some(Form::Free),
        (ScalarOp::Cast, [(from, score)]) => {
            (instr.dtype.is_float() && program.dtype_of(*from).is_float()).then(|| score.clone())
        }
        (ScalarOp::Mul, [(_, Form::Score { factor, added: None }), (by, Form::Free)])
        | (ScalarOp::Mul, [(by, Form::Free), (_, Form::Score { factor, added: None })]) => {
            Some(Form::Score { factor: factor * number(by)?, added: None })
        }
        (ScalarOp::Div, [(_, Form::Score { factor, added: None }), (by, Form::Free)]) => {
            Some(Form::Score { factor: factor / number(by)?, added: None })
        }
        (ScalarOp::Add, [(_, Form::Score { factor, added }), (term, Form::Free)])
        | (ScalarOp::Add, [(term, Form::Free), (_, Form::Score { factor, added })]) => {
            let added = match added {
                None => *term,
                Some(first) => {
                    mask.steps.push(Instr::binary(ScalarOp::Add, instr.dtype, *first, *term));
                    Arg::Step(mask.steps.len() as u16 - 1)
                }
            };
            Some(Form::Score { factor: *factor, added: Some(added) })
        }
        (
            ScalarOp::Select,
            [(condition, Form::Free), (_, Form::Score { factor, added: None }), (hidden, Form::Free)],
        ) => {
            let zero = Arg::Imm(Scalar::float(instr.dtype, 0.0));
            (number(hidden)? == f64::NEG_INFINITY).then(|| {
                mask.steps.push(Instr::ternary(ScalarOp::Select, instr.dtype, *condition, zero, *hidden));
                Form::Score { factor: *factor, added: Some(Arg::Step(mask.steps.len() as u16 - 1)) }
            })
        }
        _ => None,
    }
}

/// The value in front of a multiplication with a number that `user` alone reads, and the number. The multiplication goes to
/// `from`.
fn unscaled(graph: &Graph, value: ValueId, user: NodeId, from: &mut Vec<NodeId>) -> (ValueId, f64) {
    let mut scaled = || {
        let producer = graph.producer(value).filter(|_| only_user(graph, value) == Some(user))?;
        let (program, inputs, _) = pointwise(graph, producer)?;
        let ([step], &[x]) = (&program.steps[..], &inputs[..]) else { return None };
        let factor = match (step.op, step.operands()) {
            (ScalarOp::Mul, [Arg::Input(_), Arg::Imm(by)] | [Arg::Imm(by), Arg::Input(_)]) => by.as_f64(),
            (ScalarOp::Div, [Arg::Input(_), Arg::Imm(by)]) => 1.0 / by.as_f64(),
            _ => return None,
        };
        from.push(producer);
        Some((x, factor))
    };
    scaled().unwrap_or((value, 1.0))
}

/// Whether q, k and v, each with whether its last two axes are swapped, have the shapes of an attention with these scores.
fn shapes_fit(graph: &Graph, operands: &[(ValueId, bool); 3], scores: &[Expr]) -> bool {
    let [(q_batch, _, q_depth), (k_batch, _, _), (v_batch, _, v_depth)] = operands.map(|(value, swapped)| {
        let dims = &graph.ty(value).dims;
        let (batch, last) = dims.split_at(dims.len() - 2);
        if swapped { (batch, &last[1], &last[0]) } else { (batch, &last[0], &last[1]) }
    });
    let small = |depth: &Expr| depth.as_const().is_some_and(|depth| (1..=MOST_DEPTH).contains(&depth));
    let batch = &scores[..scores.len() - 2];
    // One head of keys may serve all queries; batches are each their own.
    let outer = batch.len() - 1;
    let shared = k_batch[outer] == batch[outer] || k_batch[outer].is(1);
    small(q_depth)
        && small(v_depth)
        && q_batch == batch
        && k_batch == v_batch
        && k_batch[..outer] == batch[..outer]
        && shared
}

/// The operand as `[batch, heads, length, depth]`.
fn of_heads(patch: &mut Patch, graph: &Graph, value: ValueId, swapped: bool) -> Ref {
    let mut dims = graph.ty(value).dims.clone();
    let mut operand: Ref = value.into();
    if swapped {
        let rank = dims.len();
        let mut perm = [0; MAX_RANK];
        for (axis, slot) in perm.iter_mut().enumerate().take(rank) {
            *slot = axis as u8;
        }
        perm.swap(rank - 2, rank - 1);
        dims.swap(rank - 2, rank - 1);
        operand = patch.node(Op::Transpose(Transpose { rank: rank as u8, perm }), [operand]);
    }
    if dims.len() == 3 {
        dims.insert(0, Expr::constant(1));
        operand = patch.node(Op::Reshape(dims), [operand]);
    }
    operand
}
