//! Integers that stand for numbers: `(x - zero) * scale`, and how numbers become such integers.
//!
//! Does: read a value as dequantized or quantized from the steps that compute it, in one program or in several nodes.
//! Spellings: the difference with the zero point in integers or in floats, or none; a scale on either side; a result in a
//! narrower float. Needs: nothing; reads the graph alone. Not here: what follows from it; scales of blocks, whose tensors
//! have more axes than the result.

use lapidary_runtime::DType;
use lapidary_runtime::op::{Arg, Instr, ScalarOp};

use crate::ir::builder::scalar_of;
use crate::ir::eval::Tensor;
use crate::ir::{Graph, NodeId, Op, ValueId};
use crate::passes::fuse::pointwise::pointwise;
use crate::passes::matching::{Operand, binary};

/// How a value is dequantized or quantized.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Linear {
    /// What it is computed from, of its shape: integers or numbers.
    pub x: ValueId,
    /// An `f32`.
    pub scale: Operand,
    /// An integer; none where it is known to be 0.
    pub zero: Option<Operand>,
}

/// The integers behind `value = (x - zero) * scale`, rounded to `value`'s type.
pub fn dequantized(graph: &Graph, value: ValueId) -> Option<Linear> {
    let number = Term::of(graph, value);
    // Rounded to a narrower float, or not.
    let rounded = number.under(graph, ScalarOp::Cast).filter(|inner| inner.is_f32(graph));
    let number = rounded.filter(|_| graph.ty(value).dtype.is_float()).unwrap_or(number);
    let (instr, [a, b, _]) = number.step(graph)?;
    if instr.op != ScalarOp::Mul || instr.dtype != DType::F32 {
        return None;
    }
    [(a, b), (b, a)].into_iter().find_map(|(integer, scale)| {
        let (x, zero) = difference(graph, integer)?;
        let scale = scale.operand(graph).filter(|_| scale.is_f32(graph))?;
        (graph.ty(x).dims == graph.ty(value).dims).then_some(Linear { x, scale, zero })
    })
}

/// The numbers behind `value = saturate(round(x / scale) + zero)`.
pub fn quantized(graph: &Graph, value: ValueId) -> Option<Linear> {
    let shifted = Term::of(graph, value).under(graph, ScalarOp::Cast)?;
    let (rounded, zero) = match shifted.step(graph)? {
        (Instr { op: ScalarOp::Add, .. }, [rounded, zero, _]) => {
            let zero = zero.under(graph, ScalarOp::Cast).unwrap_or(zero).operand(graph)?;
            (rounded, Some(zero))
        }
        _ => (shifted, None),
    };
    let ratio = rounded.under(graph, ScalarOp::Round)?;
    let (instr, [x, scale, _]) = ratio.step(graph)?;
    if instr.op != ScalarOp::Div || instr.dtype != DType::F32 || !is_byte(graph.ty(value).dtype) {
        return None;
    }
    let (Operand::Value(x), scale) = (x.operand(graph)?, scale.operand(graph)?) else { return None };
    let zero = zero.filter(|zero| !is_zero(graph, *zero));
    (graph.ty(x).dims == graph.ty(value).dims).then_some(Linear { x, scale, zero })
}

/// `x` and `zero` of `x - zero`, as a float.
fn difference(graph: &Graph, integer: Term) -> Option<(ValueId, Option<Operand>)> {
    let whole = |term: Term| match term.operand(graph)? {
        Operand::Value(x) if is_whole(graph.ty(x).dtype) => Some(x),
        Operand::Value(_) | Operand::Scalar(_) => None,
    };
    // The operands of the difference are widened, to integers or to floats, and so is what is no difference.
    let widened = |term: Term| match term.step(graph) {
        Some((Instr { op: ScalarOp::Cast, dtype: DType::I32 | DType::F32, .. }, [x, ..])) => x,
        Some(_) | None => term,
    };
    let inside = widened(integer);
    if let Some(x) = whole(inside).or_else(|| whole(widened(inside))) {
        return Some((x, None));
    }
    let (instr, [a, b, _]) = [inside, integer].into_iter().find_map(|term| {
        let (instr, args) = term.step(graph)?;
        (instr.op == ScalarOp::Sub).then_some((instr, args))
    })?;
    if !matches!(instr.dtype, DType::I32 | DType::F32) {
        return None;
    }
    let x = whole(widened(a)).or_else(|| whole(a))?;
    let zero = match widened(b).operand(graph)? {
        Operand::Value(zero) if !graph.ty(zero).dtype.is_int() => return None,
        Operand::Scalar(zero) if zero.as_f64().fract() != 0.0 => return None,
        zero => zero,
    };
    Some((x, Some(zero).filter(|zero| !is_zero(graph, *zero))))
}

/// The types whose differences are exact in `i32` and in `f32`, and `i32` itself, of biases.
fn is_whole(dtype: DType) -> bool {
    is_byte(dtype) || dtype == DType::I32
}

/// The types that products of integers take.
pub fn is_byte(dtype: DType) -> bool {
    matches!(dtype, DType::I8 | DType::U8)
}

/// Whether an operand has one element.
pub fn is_one(graph: &Graph, operand: Operand) -> bool {
    match operand {
        Operand::Value(value) => graph.ty(value).count().is(1),
        Operand::Scalar(_) => true,
    }
}

/// Scales between these bounds keep every product of two of them with a sum of differences a normal number.
const ORDINARY: std::ops::RangeInclusive<f64> = 1e-12..=1e12;

/// Whether each element of a scale is known to be an ordinary positive number.
pub fn is_ordinary(graph: &Graph, scale: Operand) -> bool {
    elements(graph, scale).is_some_and(|elements| elements.iter().all(|scale| ORDINARY.contains(scale)))
}

/// The whole number that each element is known to be.
pub fn number(graph: &Graph, zero: Operand) -> Option<i64> {
    let elements = elements(graph, zero)?;
    let &first = elements.first()?;
    (first.fract() == 0.0 && elements.iter().all(|&zero| zero == first)).then_some(first as i64)
}

fn is_zero(graph: &Graph, zero: Operand) -> bool {
    number(graph, zero) == Some(0)
}

/// The most elements of a constant that is looked into: one a channel of the widest layers.
const MAX_ELEMENTS: i64 = 1 << 16;

/// How deep views and products of constants are followed.
const DEPTH: usize = 4;

/// The elements of an operand, where it is a constant, a view of one, or a product of such.
pub fn elements(graph: &Graph, operand: Operand) -> Option<Vec<f64>> {
    elements_within(graph, operand, DEPTH)
}

fn elements_within(graph: &Graph, operand: Operand, depth: usize) -> Option<Vec<f64>> {
    let value = match operand {
        Operand::Scalar(scalar) => return Some(vec![scalar.as_f64()]),
        Operand::Value(value) => value,
    };
    if let Some(constant) = graph.constant(value) {
        let ty = graph.ty(value);
        let count = ty.count().as_const().filter(|count| *count <= MAX_ELEMENTS)?;
        let tensor = Tensor::new(ty.dtype, vec![usize::try_from(count).ok()?], constant.bytes.clone()).ok()?;
        return Some(tensor.to_f64s());
    }
    let depth = depth.checked_sub(1)?;
    let node = graph.node(graph.producer(value)?);
    match (&node.op, &node.inputs[..]) {
        (Op::Reshape(_), &[Some(x)]) => elements_within(graph, Operand::Value(x), depth),
        _ => multiplied(graph, value, depth),
    }
}

/// The elements of a product of scales, in `f32`, of which one may have one element.
fn multiplied(graph: &Graph, value: ValueId, depth: usize) -> Option<Vec<f64>> {
    let (a, b) = binary(graph, value, ScalarOp::Mul).filter(|_| graph.ty(value).dtype == DType::F32)?;
    let (a, b) = (elements_within(graph, a, depth)?, elements_within(graph, b, depth)?);
    let count = a.len().max(b.len());
    let spread = |x: Vec<f64>| if x.len() == 1 { Some(x.repeat(count)) } else { Some(x).filter(|x| x.len() == count) };
    Some(spread(a)?.into_iter().zip(spread(b)?).map(|(a, b)| f64::from(a as f32 * b as f32)).collect())
}

/// What a step reads: the result of another step, wherever that stands, or an operand.
#[derive(Clone, Copy)]
enum Term {
    Step(NodeId, u16),
    Operand(Operand),
}

impl Term {
    /// A value, as the step that computes it where there is one.
    fn of(graph: &Graph, value: ValueId) -> Term {
        let computed = graph.producer(value).and_then(|id| match pointwise(graph, id)?.0.outputs[0] {
            Arg::Step(k) => Some(Term::Step(id, k)),
            Arg::Input(_) | Arg::Imm(_) => None,
        });
        computed.unwrap_or(Term::Operand(scalar_of(graph, value).map_or(Operand::Value(value), Operand::Scalar)))
    }

    /// The value or scalar that it is, where it is none computed inside of a program.
    fn operand(self, graph: &Graph) -> Option<Operand> {
        match self {
            Term::Operand(operand) => Some(operand),
            Term::Step(id, k) => {
                let (program, _, result) = pointwise(graph, id)?;
                (program.outputs[0] == Arg::Step(k)).then_some(Operand::Value(result))
            }
        }
    }

    /// The step and what it reads.
    fn step(self, graph: &Graph) -> Option<(Instr, [Term; 3])> {
        let Term::Step(id, k) = self else { return None };
        let (program, inputs, _) = pointwise(graph, id)?;
        let instr = program.steps[usize::from(k)];
        let term = |arg: Arg| match arg {
            Arg::Step(k) => Term::Step(id, k),
            Arg::Imm(scalar) => Term::Operand(Operand::Scalar(scalar)),
            Arg::Input(k) => Term::of(graph, inputs[usize::from(k)]),
        };
        Some((instr, instr.args.map(term)))
    }

    /// What a step `op(x)` reads.
    fn under(self, graph: &Graph, op: ScalarOp) -> Option<Term> {
        let (instr, [x, ..]) = self.step(graph)?;
        (instr.op == op).then_some(x)
    }

    fn is_f32(self, graph: &Graph) -> bool {
        match self {
            Term::Operand(Operand::Value(value)) => graph.ty(value).dtype == DType::F32,
            Term::Operand(Operand::Scalar(scalar)) => scalar.dtype == DType::F32,
            Term::Step(..) => self.step(graph).is_some_and(|(instr, _)| instr.dtype == DType::F32),
        }
    }
}
