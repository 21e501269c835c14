//! Per-channel scales and shifts behind a convolution, batch normalization first of all.
//!
//! Does: `(conv(x, w) + b) * s + t -> conv(x, w * s) + (b * s + t)`, for any chain of additions, subtractions,
//! multiplications and divisions by per-channel constants. Needs: the chain as single-use pointwise nodes right behind
//! the convolution. Keeps: types; the products with `w` are nodes on constants, which run once at load and again on
//! refit. Breaks: nothing. Not here: convolutions whose weights are computed, and those of integers.

use lapidary_runtime::op::{Arg, Instr, ScalarOp};

use super::pointwise::pointwise;
use crate::ir::{Expr, Graph, NodeId, Op, Patch, Program, Ref, Type, ValueId};

/// `(conv(x, w) + b) * s + t -> conv(x, w * s) + (b * s + t)`, where `id` is the last of the chain that scales.
pub fn rewrite(graph: &Graph, id: NodeId) -> Option<Patch> {
    let chain = chain(graph, id)?;
    let scale = chain.affine.scale?;
    let conv = graph.node(chain.conv);
    let Op::Conv(spec, None) = &conv.op else { return None };
    let (x, w) = (conv.inputs[0]?, conv.inputs[1]?);
    if !super::is_derived(graph, w) {
        return None;
    }
    let weight = graph.ty(w).clone();
    let result_ty = graph.ty(chain.result).clone();
    // Products of integers are wider than the weights, and a quotient of integers is no product.
    if weight.dtype != result_ty.dtype || !weight.dtype.is_float() {
        return None;
    }
    let channels = result_ty.dims.get(1)?.clone();
    let mut patch = Patch::new(&[chain.conv, id]);
    // The scale as [m, 1, .., 1], so that it broadcasts over the weights.
    let scale = vector(&mut patch, &chain, scale, &channels)?;
    let mut along_rows = vec![Expr::constant(1); weight.dims.len()];
    along_rows[0] = channels.clone();
    let scale = patch.node(Op::Reshape(along_rows), [scale]);
    let product = Program::single(ScalarOp::Mul, weight.dtype, &[weight.dtype, weight.dtype]);
    let scaled = patch.node(Op::Pointwise(product), [w.into(), scale]);
    let mut result = patch.node(Op::Conv(*spec, None), [x.into(), scaled]);
    if let Some(shift) = chain.affine.shift {
        let shift = vector(&mut patch, &chain, shift, &channels)?;
        let mut along_channels = vec![Expr::constant(1); result_ty.dims.len() - 1];
        along_channels[0] = channels;
        let shift = patch.node(Op::Reshape(along_channels), [shift]);
        let sum = Program::single(ScalarOp::Add, result_ty.dtype, &[result_ty.dtype, result_ty.dtype]);
        result = patch.node(Op::Pointwise(sum), [result, shift]);
    }
    Some(patch.replace(chain.result, result))
}

/// A run of pointwise nodes behind a convolution, as one affine function of its result.
struct Chain {
    conv: NodeId,
    /// The constants that the coefficients read.
    operands: Vec<ValueId>,
    affine: Affine,
    steps: Vec<Instr>,
    /// The operands as vectors over the channels, or of one element.
    types: Vec<Type>,
    result: ValueId,
}

/// `scale * x + shift`; no scale is 1, no shift is 0.
#[derive(Clone)]
struct Affine {
    scale: Option<Arg>,
    shift: Option<Arg>,
}

/// The chain that ends at `id`, walking up to the convolution.
fn chain(graph: &Graph, id: NodeId) -> Option<Chain> {
    let (program, inputs, result) = pointwise(graph, id)?;
    let (at, source) = inputs.iter().enumerate().find(|(_, value)| !super::is_derived(graph, **value))?;
    let others: Vec<ValueId> = inputs.iter().enumerate().filter(|(k, _)| *k != at).map(|(_, v)| *v).collect();
    let result_ty = graph.ty(result);
    let per_channel = |value: &ValueId| super::is_derived(graph, *value) && is_per_channel(graph.ty(*value), result_ty);
    let sole = super::only_user(graph, *source) == Some(id) && graph.ty(*source) == result_ty;
    if !sole || !others.iter().all(per_channel) {
        return None;
    }
    let producer = graph.producer(*source)?;
    let mut chain = match &graph.node(producer).op {
        Op::Conv(_, None) => Chain {
            conv: producer,
            operands: Vec::new(),
            affine: Affine { scale: None, shift: None },
            steps: Vec::new(),
            types: Vec::new(),
            result,
        },
        Op::Pointwise(_) => chain(graph, producer)?,
        _ => return None,
    };
    chain.result = result;
    chain.append(graph, program, at, &others)?;
    Some(chain)
}

/// Whether a tensor has one element for each channel (axis 1 of `result`), or one element.
fn is_per_channel(ty: &Type, result: &Type) -> bool {
    let Some(lead) = result.dims.len().checked_sub(ty.dims.len()) else { return false };
    ty.dtype == result.dtype
        && ty.dims.iter().enumerate().all(|(k, dim)| dim.is(1) || (lead + k == 1 && dim == &result.dims[1]))
}

impl Chain {
    /// Puts an affine program behind the chain; `None` if it is not affine in input `at`.
    fn append(&mut self, graph: &Graph, program: &Program, at: usize, others: &[ValueId]) -> Option<()> {
        let base = self.operands.len() as u16;
        self.operands.extend(others);
        self.types.extend(others.iter().map(|value| graph.ty(*value).clone()));
        let mut values: Vec<Value> = Vec::new();
        for instr in &program.steps {
            let operand = |arg: Arg| match arg {
                Arg::Input(k) if usize::from(k) == at => Value::Affine(self.affine.clone()),
                Arg::Input(k) => Value::Constant(Arg::Input(base + if usize::from(k) > at { k - 1 } else { k })),
                Arg::Step(k) => values[usize::from(k)].clone(),
                Arg::Imm(_) => Value::Constant(arg),
            };
            let operands: Vec<Value> = instr.operands().iter().map(|arg| operand(*arg)).collect();
            let value = self.step(instr, &operands)?;
            values.push(value);
        }
        let Arg::Step(last) = *program.outputs.first()? else { return None };
        let Value::Affine(affine) = values.get(usize::from(last))?.clone() else { return None };
        self.affine = affine;
        Some(())
    }

    fn step(&mut self, instr: &Instr, operands: &[Value]) -> Option<Value> {
        use Value::{Affine as Aff, Constant as Con};
        let affine = |scale, shift| Some(Aff(Affine { scale, shift }));
        match (instr.op, operands) {
            (ScalarOp::Identity, [value]) => Some(value.clone()),
            (ScalarOp::Add, [Aff(x), Con(c)] | [Con(c), Aff(x)]) => {
                let shift = self.add(instr, x.shift, *c);
                affine(x.scale, Some(shift))
            }
            (ScalarOp::Sub, [Aff(x), Con(c)]) => {
                let minus = self.push(Instr::unary(ScalarOp::Neg, instr.dtype, *c));
                let shift = self.add(instr, x.shift, minus);
                affine(x.scale, Some(shift))
            }
            (ScalarOp::Mul, [Aff(x), Con(c)] | [Con(c), Aff(x)]) => {
                let scale = self.multiply(instr, x.scale, *c);
                let shift = x.shift.map(|shift| self.multiply(instr, Some(shift), *c));
                affine(Some(scale), shift)
            }
            (ScalarOp::Div, [Aff(x), Con(c)]) => {
                let inverse = self.push(Instr::unary(ScalarOp::Reciprocal, instr.dtype, *c));
                let scale = self.multiply(instr, x.scale, inverse);
                let shift = x.shift.map(|shift| self.multiply(instr, Some(shift), inverse));
                affine(Some(scale), shift)
            }
            (op, operands) if operands.iter().all(|value| matches!(value, Con(_))) => {
                let args: Vec<Arg> = operands.iter().filter_map(Value::constant).collect();
                let at = |k: usize| args.get(k).copied().unwrap_or(args[0]);
                Some(Con(self.push(Instr { op, dtype: instr.dtype, args: [at(0), at(1), at(2)] })))
            }
            _ => None,
        }
    }

    fn push(&mut self, instr: Instr) -> Arg {
        self.steps.push(instr);
        Arg::Step(self.steps.len() as u16 - 1)
    }

    fn add(&mut self, like: &Instr, sum: Option<Arg>, c: Arg) -> Arg {
        match sum {
            Some(sum) => self.push(Instr::binary(ScalarOp::Add, like.dtype, sum, c)),
            None => c,
        }
    }

    fn multiply(&mut self, like: &Instr, product: Option<Arg>, c: Arg) -> Arg {
        match product {
            Some(product) => self.push(Instr::binary(ScalarOp::Mul, like.dtype, product, c)),
            None => c,
        }
    }
}

/// A step's value: affine in the convolution's result, or constant.
#[derive(Clone)]
enum Value {
    Affine(Affine),
    Constant(Arg),
}

impl Value {
    fn constant(&self) -> Option<Arg> {
        match self {
            Value::Constant(arg) => Some(*arg),
            Value::Affine(_) => None,
        }
    }
}

/// A node that computes `coefficient` as a vector over the channels; `None` where it reads no operand.
fn vector(patch: &mut Patch, chain: &Chain, coefficient: Arg, channels: &Expr) -> Option<Ref> {
    let program = Program {
        inputs: chain.types.iter().map(|ty| ty.dtype).collect(),
        steps: chain.steps.clone(),
        outputs: vec![coefficient],
    }
    .simplify();
    let used = program.used_inputs();
    let mut operands = Vec::new();
    for ((value, ty), _) in chain.operands.iter().zip(&chain.types).zip(&used).filter(|(_, used)| **used) {
        let dims = if ty.count().is(1) { vec![Expr::constant(1)] } else { vec![channels.clone()] };
        operands.push(patch.node(Op::Reshape(dims), [(*value).into()]));
    }
    let spread = chain.types.iter().zip(&used).all(|(ty, used)| !used || ty.count().is(1)) && !channels.is(1);
    let program = program.keep_inputs(&used);
    let vector = match operands.as_slice() {
        [] => return None,
        [one] if program.is_identity() => *one,
        _ => patch.node(Op::Pointwise(program), operands),
    };
    Some(if spread { patch.node(Op::Expand(vec![channels.clone()]), [vector]) } else { vector })
}
