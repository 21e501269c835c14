//! Products of dequantized operands, on the integers.
//!
//! Does: `product(dequantize(a), dequantize(b)) -> (product(a, b) - corrections) * (scale_a * scale_b)`: the product takes
//! bytes, its sums are exact in `i32`, and one program behind it, which becomes its epilogue, makes numbers of them. The
//! corrections are what the zero points add to the sums of bytes ([`super::sums`]). Needs: one step a node, the products
//! without epilogues. Keeps: types; where the numbers of the product were sums of rounded products, they are one rounded
//! product of an exact sum. Not here: weights of bytes and activations of floats, which stay a product of floats; scales
//! that differ along the summed axis or along the first operand.

use lapidary_runtime::DType;
use lapidary_runtime::op::{Arg, Conv, MatMul, PadMode, ScalarOp};
use lapidary_templates::Program;

use super::linear::{self, Linear, dequantized, is_byte};
use super::sums::{self, Along};
use crate::ir::builder::ProgramWriter;
use crate::ir::builder::round_scalar;
use crate::ir::{Expr, Graph, NodeId, Op, Patch, Ref, ValueId};
use crate::passes::fuse::is_derived;
use crate::passes::matching::{Operand, spans};
use crate::passes::why::{self, Why};

/// `product(dequantize(a), dequantize(b)) -> (product(a, b) - corrections) * (scale_a * scale_b)`
pub fn rewrite(graph: &Graph, id: NodeId) -> Option<Patch> {
    quantize(graph, id)?.ok()
}

/// Why the product at `id` takes its operand `at` as numbers; `None` where that is not dequantized, or no factor.
pub fn why_not(graph: &Graph, id: NodeId, at: usize) -> Option<Why> {
    let operand = graph.node(id).inputs.get(at).copied().flatten().filter(|_| at < 2)?;
    dequantized(graph, operand)?;
    quantize(graph, id).map(|found| why::why_not("quantized-product", found))
}

/// The operands of a product, as integers.
struct Factors {
    /// Matrices, or `x` and the weights of a convolution.
    a: Factor,
    b: Factor,
    /// Terms of a sum.
    terms: Expr,
}

/// Bytes with their scale and their zero point.
#[derive(Clone, Copy)]
struct Factor {
    x: ValueId,
    dtype: DType,
    scale: Operand,
    /// None where it is 0.
    zero: Option<i64>,
}

impl Factor {
    fn new(graph: &Graph, Linear { x, scale, zero }: Linear) -> Result<Factor, Why> {
        let dtype = graph.ty(x).dtype;
        if !is_byte(dtype) {
            return Err(Why::NotBytes(x));
        }
        if !linear::is_ordinary(graph, scale) {
            return Err(Why::OtherScale(x));
        }
        let zero = match zero.map(|zero| linear::number(graph, zero)) {
            Some(Some(zero)) if bounds(dtype).contains(&zero) => Some(zero),
            Some(_) => return Err(Why::OtherZero(x)),
            None => None,
        };
        Ok(Factor { x, dtype, scale, zero })
    }

    /// The largest magnitude of `x - zero`.
    fn reach(&self) -> i64 {
        let (bounds, zero) = (bounds(self.dtype), self.zero.unwrap_or(0));
        (bounds.end() - zero).max(zero - bounds.start())
    }
}

fn bounds(dtype: DType) -> std::ops::RangeInclusive<i64> {
    if dtype == DType::U8 { 0..=255 } else { -128..=127 }
}

/// The rule; `None` where neither operand is dequantized.
fn quantize(graph: &Graph, id: NodeId) -> Option<Result<Patch, Why>> {
    let node = graph.node(id);
    let (epilogue, &[Some(result)]) = (node.op.epilogue(), &node.outputs[..]) else { return None };
    if !matches!(node.op, Op::MatMul(..) | Op::Conv(..)) {
        return None;
    }
    let [a, b] = [node.inputs.first().copied()??, node.inputs.get(1).copied()??];
    let factors = match [dequantized(graph, a), dequantized(graph, b)] {
        [None, None] => return None,
        [Some(a), Some(b)] => Ok((a, b)),
        [Some(_), None] => Err(Why::NotDequantized(b)),
        [None, Some(_)] => Err(Why::NotDequantized(a)),
    };
    Some(factors.and_then(|(a, b)| {
        if epilogue.is_some() {
            return Err(Why::HasEpilogue(id));
        }
        if is_derived(graph, result) {
            return Err(Why::AtLoad(result));
        }
        let factors = Factors { a: Factor::new(graph, a)?, b: Factor::new(graph, b)?, terms: terms(graph, id) };
        factors.check(graph, &node.op)?;
        factors.patch(graph, id, result)
    }))
}

/// How many products a sum of the node at `id` has.
pub(super) fn terms(graph: &Graph, id: NodeId) -> Expr {
    let node = graph.node(id);
    let dims = |k: usize| node.inputs[k].map(|value| graph.ty(value).dims.as_slice()).unwrap_or_default();
    match &node.op {
        Op::MatMul(spec, _) => {
            let a = dims(0);
            a[a.len() - if spec.transpose_a { 2 } else { 1 }].clone()
        }
        _ => dims(1)[1..].iter().fold(Expr::constant(1), |count, dim| count * dim.clone()),
    }
}

impl Factors {
    /// What the integers must be for the product of them to be exact and to have one scale a channel.
    fn check(&self, graph: &Graph, op: &Op) -> Result<(), Why> {
        let Factors { a, b, terms } = self;
        if !linear::is_one(graph, a.scale) {
            return Err(Why::ScaleOfAxis(a.x));
        }
        if !linear::is_one(graph, b.scale) {
            let (ty, axis) = (graph.ty(b.x), channels(op, graph.ty(b.x).dims.len()));
            let along = b.scale.value().is_some_and(|scale| spans(graph.ty(scale), ty, axis..axis + 1));
            if !along {
                return Err(Why::ScaleOfAxis(b.x));
            }
        }
        let most = graph.range(terms).1.saturating_mul(a.reach()).saturating_mul(b.reach());
        if most > i64::from(i32::MAX) {
            return Err(Why::SumsOverflow { terms: graph.range(terms).1 });
        }
        Ok(())
    }

    fn patch(&self, graph: &Graph, id: NodeId, result: ValueId) -> Result<Patch, Why> {
        let node = graph.node(id);
        let mut patch = Patch::new(&sources(graph, id));
        let (mut b, mut b_zero) = (Ref::from(self.b.x), self.b.zero);
        // Bytes around 128 are signed bytes around 0.
        if self.b.dtype == DType::U8 && is_derived(graph, self.b.x) && b_zero == Some(128) {
            b = patch.node(Op::Pointwise(shifted()), [b]);
            b_zero = None;
        }
        let (a_type, b_type) = (graph.ty(self.a.x), graph.ty(self.b.x));
        let (product, along) = match &node.op {
            Op::MatMul(spec, _) => {
                let product = patch.node(Op::MatMul(*spec, None), [self.a.x.into(), b]);
                (product, Along::Matrices(*spec))
            }
            Op::Conv(spec, _) => {
                let (x, spec) = padded(graph, &mut patch, spec, self.a)?;
                (patch.node(Op::Conv(spec, None), [x, b]), Along::Windows)
            }
            _ => crate::bug!("no product"),
        };
        let operands = sums::Operands {
            a: (self.a.x.into(), a_type),
            b: (b, b_type, is_derived(graph, self.b.x)),
            zeros: [self.a.zero, b_zero],
            terms: &self.terms,
        };
        let corrections = operands.corrections(&mut patch, along)?;
        let scale = self.scale(graph, &mut patch, &node.op, graph.ty(result).dims.len());
        let to = graph.ty(result).dtype;
        let numbers = corrections.numbers(&mut patch, product, scale, to);
        Ok(patch.replace(result, numbers))
    }

    /// `scale_a * scale_b` along the channels of the result, as far as it is known at load.
    fn scale(&self, graph: &Graph, patch: &mut Patch, op: &Op, rank: usize) -> Scale {
        let (a, b) = (self.a.scale, self.b.scale);
        if let (Operand::Scalar(a), Operand::Scalar(b)) = (a, b) {
            return Scale::Number(round_scalar(DType::F32, a.as_f64() * b.as_f64()).as_f64());
        }
        let count = channels_of(graph, op, self.b.x);
        let mut dims = vec![Expr::constant(1); if let Op::MatMul(..) = op { 1 } else { rank - 1 }];
        let mut vector = |patch: &mut Patch, operand: Operand| match operand {
            Operand::Scalar(scalar) => Err(scalar),
            Operand::Value(value) => {
                dims[0] = if graph.ty(value).count().is(1) { Expr::constant(1) } else { count.clone() };
                Ok(patch.node(Op::Reshape(dims.clone()), [value.into()]))
            }
        };
        let (a, b) = (vector(patch, a), vector(patch, b));
        let (mut operands, mut program) = (Vec::new(), ProgramWriter::new(vec![DType::F32; 2]));
        let mut arg = |factor: Result<Ref, lapidary_runtime::op::Scalar>| match factor {
            Ok(value) => {
                operands.push(value);
                Arg::Input(operands.len() as u16 - 1)
            }
            Err(scalar) => Arg::Imm(scalar),
        };
        let args = [arg(a), arg(b)];
        let product = program.push(ScalarOp::Mul, &args);
        let mut program = Program { outputs: vec![product], ..program.finish() };
        program.inputs.truncate(operands.len());
        Scale::Channels(patch.node(Op::Pointwise(program), operands))
    }
}

/// The scale of a product.
pub enum Scale {
    Number(f64),
    /// A tensor of `f32` that broadcasts to the result.
    Channels(Ref),
}

/// The axis of the second operand, of `rank` axes, that becomes the result's channels.
fn channels(op: &Op, rank: usize) -> usize {
    match op {
        Op::MatMul(MatMul { transpose_b: true, .. }, _) => rank - 2,
        Op::MatMul(..) => rank - 1,
        _ => 0,
    }
}

fn channels_of(graph: &Graph, op: &Op, b: ValueId) -> Expr {
    let dims = &graph.ty(b).dims;
    dims[channels(op, dims.len())].clone()
}

/// The product at `id` and the nodes that dequantize its operands.
fn sources(graph: &Graph, id: NodeId) -> Vec<NodeId> {
    let operands = graph.node(id).inputs.iter().take(2).flatten();
    operands.filter_map(|operand| graph.producer(*operand)).chain([id]).collect()
}

/// `x - 128` of bytes, as signed bytes.
fn shifted() -> Program {
    let mut p = ProgramWriter::new(vec![DType::U8]);
    let x = p.cast(Arg::Input(0), DType::I32);
    let shifted = p.push(ScalarOp::Sub, &[x, p.imm(x, 128.0)]);
    let bytes = p.cast(shifted, DType::I8);
    Program { outputs: vec![bytes], ..p.finish() }
}

/// `x` with its padding as elements, which are its zero point, and the convolution without them; as they are where padding
/// of zeros is right.
fn padded(graph: &Graph, patch: &mut Patch, spec: &Conv, x: Factor) -> Result<(Ref, Conv), Why> {
    let window = &spec.window;
    let (dims, spatial) = (&graph.ty(x.x).dims, usize::from(window.rank));
    let rank = dims.len();
    let any = (0..spatial).any(|axis| window.pad_lo[axis] + window.pad_hi[axis] > 0);
    let Some(zero) = x.zero.filter(|_| any) else { return Ok((x.x.into(), *spec)) };
    // An axis that padding does not make as long as the window has no results, which no convolution without padding says.
    let fits = |axis: usize| {
        let pads = i64::from(window.pad_lo[axis]) + i64::from(window.pad_hi[axis]);
        let reach = i64::from(window.size[axis] - 1) * i64::from(window.dilation[axis]) + 1;
        graph.range(&dims[rank - spatial + axis]).0 + pads >= reach
    };
    if !(0..spatial).all(fits) {
        return Err(Why::ShorterThanWindow(x.x));
    }
    let fill = sums::byte(patch, x.dtype, zero);
    let along = |pads: &[u32]| {
        let pads = pads[..spatial].iter().map(|pad| Expr::constant(i64::from(*pad)));
        std::iter::repeat_n(Expr::constant(0), rank - spatial).chain(pads).collect()
    };
    let op = Op::Pad { mode: PadMode::Constant, lo: along(&window.pad_lo), hi: along(&window.pad_hi) };
    let mut spec = *spec;
    (spec.window.pad_lo, spec.window.pad_hi) = Default::default();
    Ok((patch.node(op, [x.x.into(), fill]), spec))
}
