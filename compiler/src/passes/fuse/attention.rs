//! Attention from its chain.
//!
//! Does: `softmax(c q k^T + mask) v -> attention(q, k, v, mask)`, in the spellings of exporters: scales on either side of
//! the first product, any sum of masks, `where(mask, score, -inf)`, a softmax in another float type, and the guard that
//! turns the NaN of a query without keys into 0. Needs: pointwise regions, so that what stands between the products is one
//! program; products without epilogues. Keeps: types. Breaks: behind the guard, a
//! query whose weights are NaN gives zeros even where the values that they weigh are NaN or infinite.
//! Not here: masks known to be causal, quantized chains, heads that are repeated by copies.

use lapidary_runtime::DType;
use lapidary_runtime::op::{Arg, Attention, Instr, MAX_RANK, MatMul, Scalar, ScalarOp, Transpose, Unseen};

use super::only_user;
use super::pointwise::pointwise;
use crate::ir::{Expr, Graph, NodeId, Op, Patch, Program, Ref, ValueId};
use crate::passes::why::{self, Why};

/// The largest depth of a head that kernels keep at hand.
const MOST_DEPTH: i64 = 256;

/// `softmax(c q k^T + mask) v -> attention(q, k, v, mask)`, where the product with v is at `id`.
pub fn rewrite(graph: &Graph, id: NodeId) -> Option<Patch> {
    fuse(graph, id).ok()
}

/// Why a softmax and the products on both sides of it, the second of which is at `id`, are no attention.
pub fn why_not(graph: &Graph, id: NodeId) -> Why {
    why::why_not("attention", fuse(graph, id))
}

fn fuse(graph: &Graph, id: NodeId) -> Result<Patch, Why> {
    let second = product(graph, id).ok_or(Why::HasEpilogue(id))?;
    let mut from = vec![id];
    let (softmax, unseen) = weights(graph, second.a, id, &mut from)?;
    let scores = scores(graph, softmax, &mut from)?;
    let first = product(graph, scores.product).ok_or(Why::HasEpilogue(scores.product))?;
    if first.spec.math != second.spec.math {
        return Err(Why::Math);
    }
    if second.spec.transpose_a {
        return Err(Why::ProbabilitiesTransposed);
    }
    let rank = graph.ty(first.result).dims.len();
    let (q, q_factor) = unscaled(graph, first.a, scores.product, &mut from);
    let (k, k_factor) = unscaled(graph, first.b, scores.product, &mut from);
    let v = second.b;
    let dtype = graph.ty(q).dtype;
    let like_q = |value: &ValueId| graph.ty(*value).dtype == dtype && graph.ty(*value).dims.len() == rank;
    if !(3..=4).contains(&rank) {
        return Err(Why::Rank(q));
    }
    if let Some(&unlike) = [q, k, v].iter().find(|value| !like_q(value)) {
        return Err(Why::Unlike(unlike));
    }
    if !dtype.is_float() {
        return Err(Why::NotFloat(q));
    }
    from.reverse();
    let mut patch = Patch::new(&from);
    let operands = [(q, first.spec.transpose_a), (k, !first.spec.transpose_b), (v, second.spec.transpose_b)];
    shapes_fit(graph, &operands, &graph.ty(first.result).dims)?;
    let [q, k, v] = operands.map(|(value, swapped)| of_heads(&mut patch, graph, value, swapped));
    let mask = match scores.mask {
        Some(mask) if mask.program.dtype_of(mask.program.outputs[0]) != dtype => return Err(Why::MaskType),
        Some(mask) if mask.program.is_identity() => Some(mask.operands[0].into()),
        Some(mask) => Some(patch.node(Op::Pointwise(mask.program), mask.operands.into_iter().map(Ref::from))),
        None => None,
    };
    let scale = scores.factor * q_factor * k_factor;
    // Attention takes it as an f32, which for doubles must be all of it.
    if !(scale as f32).is_finite() || (dtype == DType::F64 && f64::from(scale as f32) != scale) {
        return Err(Why::Scale(scale));
    }
    let spec = Attention { scale: Scalar::float(DType::F32, scale), causal: false, unseen, math: first.spec.math };
    let mut result = patch.node(Op::Attention(spec), [q, k, v].into_iter().chain(mask));
    if rank == 3 {
        result = patch.node(Op::Reshape(graph.ty(second.result).dims.clone()), [result]);
    }
    Ok(patch.replace(second.result, result))
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
fn weights(graph: &Graph, value: ValueId, user: NodeId, from: &mut Vec<NodeId>) -> Result<(NodeId, Unseen), Why> {
    let producer = graph.producer(value).ok_or(Why::NotProbabilities(value))?;
    if only_user(graph, value) != Some(user) {
        return Err(Why::Readers(value));
    }
    from.push(producer);
    match &graph.node(producer).op {
        Op::Softmax(spec) if !spec.log && usize::from(spec.axis) + 1 == graph.ty(value).dims.len() => {
            Ok((producer, Unseen::Nan))
        }
        Op::Softmax(_) => Err(Why::OtherSoftmax),
        Op::Pointwise(program) => {
            let &[Some(x)] = &graph.node(producer).inputs[..] else { return Err(Why::Between(producer)) };
            let guarded = guard(program).ok_or(Why::Between(producer))?;
            let (softmax, unseen) = weights(graph, x, producer, from)?;
            Ok((softmax, if unseen == Unseen::Zero { unseen } else { guarded }))
        }
        _ => Err(Why::Between(producer)),
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
fn scores(graph: &Graph, id: NodeId, from: &mut Vec<NodeId>) -> Result<Scores, Why> {
    let &[Some(x)] = &graph.node(id).inputs[..] else { return Err(Why::Between(id)) };
    let producer = graph.producer(x).ok_or(Why::Between(id))?;
    if only_user(graph, x) != Some(id) {
        return Err(Why::Readers(x));
    }
    from.push(producer);
    if product(graph, producer).is_some() {
        return Ok(Scores { product: producer, factor: 1.0, mask: None });
    }
    let (program, inputs, result) = pointwise(graph, producer).ok_or(Why::Between(producer))?;
    let mut why = Why::Between(producer);
    for (at, &value) in inputs.iter().enumerate() {
        let Some(behind) = graph.producer(value).filter(|behind| product(graph, *behind).is_some()) else { continue };
        match scaled_and_masked(graph, producer, (program, &inputs, result), at) {
            Ok((factor, mask)) => {
                from.push(behind);
                return Ok(Scores { product: behind, factor, mask });
            }
            Err(found) => why = found,
        }
    }
    Err(why)
}

/// The program of the node at `id`, with its operands and result, as scale and mask of its operand `at`.
fn scaled_and_masked(
    graph: &Graph,
    id: NodeId,
    (program, inputs, result): (&Program, &[ValueId], ValueId),
    at: usize,
) -> Result<(f64, Option<Mask>), Why> {
    let value = inputs[at];
    if only_user(graph, value) != Some(id) {
        return Err(Why::Readers(value));
    }
    if inputs.iter().filter(|v| **v == value).count() > 1 {
        return Err(Why::ReadTwice(value));
    }
    if graph.ty(value).dims != graph.ty(result).dims {
        return Err(Why::Broadcast(value, result));
    }
    let (factor, mask) = affine(program, at as u16)?;
    let mask = mask.map(|program| {
        let used = program.used_inputs();
        let kept = inputs.iter().zip(&used).filter(|(_, used)| **used).map(|(value, _)| *value);
        Mask { operands: kept.collect(), program: program.keep_inputs(&used) }
    });
    // A mask of constants alone has no shape of its own.
    match mask {
        Some(mask) if mask.operands.is_empty() => Err(Why::MaskOfNumbers),
        mask => Ok((factor, mask)),
    }
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
fn affine(program: &Program, at: u16) -> Result<(f64, Option<Program>), Why> {
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
    let &[Arg::Step(k)] = &program.outputs[..] else { return Err(Why::NotAffine(ScalarOp::Identity)) };
    let Form::Score { factor, added } = forms[usize::from(k)].clone() else {
        return Err(Why::NotAffine(program.steps[usize::from(k)].op));
    };
    let mask = added.map(|added| Program { outputs: vec![added], ..mask }.simplify());
    if mask.as_ref().is_some_and(|mask| mask.used_inputs().get(usize::from(at)) != Some(&false)) {
        return Err(Why::NotAffine(program.steps[usize::from(k)].op));
    }
    Ok((factor, mask))
}

/// The form of one step; an error if it is no longer affine in the score.
fn step(program: &Program, mask: &mut Program, instr: &Instr, operands: &[(Arg, Form)]) -> Result<Form, Why> {
    let number = |arg: &Arg| match arg {
        Arg::Imm(value) => Ok(value.as_f64()),
        Arg::Input(_) | Arg::Step(_) => Err(Why::ComputedScale),
    };
    match (instr.op, operands) {
        (_, all) if all.iter().all(|(_, form)| matches!(form, Form::Free)) => Ok(Form::Free),
        (ScalarOp::Cast, [(from, score)]) if instr.dtype.is_float() && program.dtype_of(*from).is_float() => {
            let mut converted = score.clone();
            if let Form::Score { added: Some(added), .. } = &mut converted {
                mask.steps.push(Instr::unary(ScalarOp::Cast, instr.dtype, *added));
                *added = Arg::Step(mask.steps.len() as u16 - 1);
            }
            Ok(converted)
        }
        (ScalarOp::Mul, [(_, Form::Score { factor, added: None }), (by, Form::Free)])
        | (ScalarOp::Mul, [(by, Form::Free), (_, Form::Score { factor, added: None })]) => {
            Ok(Form::Score { factor: factor * number(by)?, added: None })
        }
        (ScalarOp::Div, [(_, Form::Score { factor, added: None }), (by, Form::Free)]) => {
            Ok(Form::Score { factor: factor / number(by)?, added: None })
        }
        (ScalarOp::Mul | ScalarOp::Div, [(_, Form::Score { added: Some(_), .. }), (_, Form::Free)])
        | (ScalarOp::Mul, [(_, Form::Free), (_, Form::Score { added: Some(_), .. })]) => Err(Why::MaskInFrontOfScale),
        (ScalarOp::Add, [(_, Form::Score { factor, added }), (term, Form::Free)])
        | (ScalarOp::Add, [(term, Form::Free), (_, Form::Score { factor, added })]) => {
            let added = match added {
                None => *term,
                Some(first) => {
                    mask.steps.push(Instr::binary(ScalarOp::Add, instr.dtype, *first, *term));
                    Arg::Step(mask.steps.len() as u16 - 1)
                }
            };
            Ok(Form::Score { factor: *factor, added: Some(added) })
        }
        (
            ScalarOp::Select,
            [(condition, Form::Free), (_, Form::Score { factor, added: None }), (hidden, Form::Free)],
        ) => {
            let zero = Arg::Imm(Scalar::float(instr.dtype, 0.0));
            if number(hidden) != Ok(f64::NEG_INFINITY) {
                return Err(Why::OtherHidden);
            }
            mask.steps.push(Instr::ternary(ScalarOp::Select, instr.dtype, *condition, zero, *hidden));
            Ok(Form::Score { factor: *factor, added: Some(Arg::Step(mask.steps.len() as u16 - 1)) })
        }
        (op, _) => Err(Why::NotAffine(op)),
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
fn shapes_fit(graph: &Graph, operands: &[(ValueId, bool); 3], scores: &[Expr]) -> Result<(), Why> {
    let [q, k, v] = operands.map(|(value, _)| value);
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
    let conditions = [
        (small(q_depth), Why::Depth(q, MOST_DEPTH)),
        (small(v_depth), Why::Depth(v, MOST_DEPTH)),
        (q_batch == batch, Why::Batch(q)),
        (k_batch[..outer] == batch[..outer] && shared, Why::Batch(k)),
        (k_batch == v_batch, Why::Batch(v)),
    ];
    conditions.into_iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, why)| Err(why))
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
