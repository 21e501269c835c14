//! LSTM layers with weights of bytes (`com.microsoft` DynamicQuantizeLSTM of ONNX Runtime's ContribOperators.md).
//!
//! The sequences are quantized once, the state before each step, both as DynamicQuantizeLinear does it, over the whole
//! batch; rows of sequences that have ended count as 0. So products are of bytes, and exact, as in the other quantized
//! operators. [`crate::ir::Op::Recurrent`] would need a range over its whole state in each step, which its kernels share
//! out among blocks: here a step is composed.

use lapidary_runtime::DType;
use lapidary_runtime::op::{Activation, Arg, Direction, ReduceKind, ScalarOp};

use super::activation::of_layer;
use super::entry::contrib;
use super::gather::reversed;
use super::matmul::product;
use super::positions::positions;
use super::qlinear::{PLAIN, centered, less_product, symmetric, telling};
use super::quantize::{Dynamic, dynamically};
use super::recurrent::{Kind, activations, clip, direction};
use super::rounds::{Given, Round, rounds};
use super::{Cx, Fault, Imported, OpDef};
use crate::ir::builder::{Built, ProgramWriter};
use crate::ir::{Builder, Expr, Op, ValueId};

/// Operands as of LSTM (x, w, r, b, sequence_lens, initial_h, initial_c, p), w and r transposed and of bytes; then the
/// scale and the zero point of w, and those of r.
pub const DEFS: &[OpDef] =
    &[OpDef { outputs: (0, 3), ..contrib("DynamicQuantizeLSTM", (11, 12), dynamic_quantize_lstm) }];

/// What holds for both directions.
struct Layer {
    sequence: Expr,
    batch: Expr,
    hidden: Expr,
    clip: f32,
    /// Couples the input and forget gates: f = 1 - i.
    input_forget: bool,
    /// The lengths of the sequences as a column, `i64[batch, 1]`.
    lengths: Option<ValueId>,
}

fn dynamic_quantize_lstm(cx: &mut Cx<'_, '_>) -> Imported {
    let (x, r) = (cx.input(0)?, cx.input(2)?);
    if cx.b.dtype(x) != DType::F32 {
        return Err(Fault::unsupported(
            format!("DynamicQuantizeLSTM of {} is not supported", cx.b.dtype(x)),
            "convert the sequences to f32 in front of it, as ONNX Runtime asks for",
        ));
    }
    let (of_x, of_r) = (cx.b.dims(x), cx.b.dims(r));
    let ([sequence, batch, features], [directions, hidden, _]) = (of_x.as_slice(), of_r.as_slice()) else {
        return Err(format!("x and r have the ranks {} and {}, and 3 is needed", of_x.len(), of_r.len()).into());
    };
    let direction = direction(cx)?;
    let backward: &[bool] = match direction {
        Direction::Forward => &[false],
        Direction::Reverse => &[true],
        Direction::Bidirectional => &[false, true],
    };
    cx.b.require_equal(directions, &Expr::from(backward.len()))?;
    if let Some(size) = cx.attrs.int_opt("hidden_size")? {
        cx.b.require_equal(&Expr::constant(size), hidden)?;
    }
    let lengths = match cx.optional(4) {
        Some(lengths) => {
            let wide = cx.b.cast(lengths, DType::I64)?;
            Some(cx.b.append_axes(wide, 2)?)
        }
        None => None,
    };
    let layer = Layer {
        sequence: sequence.clone(),
        batch: batch.clone(),
        hidden: hidden.clone(),
        clip: clip(cx)?,
        input_forget: cx.attrs.flag_or("input_forget", 0)?,
        lengths,
    };
    let functions = activations(cx, Kind::Lstm, direction)?;
    let x = layer.before_ends(&mut cx.b, x)?;
    let x = cx.b.reshape(x, vec![sequence.clone() * batch.clone(), features.clone()])?;
    let x = dynamically(&mut cx.b, x)?;
    let mut results: [Vec<ValueId>; 3] = Default::default();
    for (k, (&backward, functions)) in backward.iter().zip(functions.chunks_exact(3)).enumerate() {
        for (all, result) in results.iter_mut().zip(one_direction(cx, &layer, k, backward, functions, x)?) {
            all.push(result);
        }
    }
    let [y, h, c] = results;
    Ok(vec![Some(cx.b.concat(&y, 1)?), Some(cx.b.concat(&h, 0)?), Some(cx.b.concat(&c, 0)?)])
}

/// What direction `k` adds to the results: y `[sequence, 1, batch, hidden]`, and the last states `[1, batch, hidden]`.
fn one_direction(
    cx: &mut Cx<'_, '_>,
    layer: &Layer,
    k: usize,
    backward: bool,
    functions: &[Activation],
    x: Dynamic,
) -> Result<[ValueId; 3], Fault> {
    let w = Matrix::of(cx, k, [1, 8, 9])?;
    let r = Matrix::of(cx, k, [2, 10, 11])?;
    let mut gates = w.product(&mut cx.b, x)?;
    let all = layer.hidden.clone() * Expr::constant(4);
    if let Some(bias) = cx.optional(3) {
        let bias = of_direction(&mut cx.b, bias, k)?;
        for start in [Expr::constant(0), all.clone()] {
            let part = cx.b.slice_axis(bias, 1, start, all.clone())?;
            gates = cx.b.binary(ScalarOp::Add, gates, part)?;
        }
    }
    let gates = cx.b.reshape(gates, vec![layer.sequence.clone(), layer.batch.clone(), all])?;
    let lengths = cx.optional(4);
    let gates = if backward { turned(&mut cx.b, gates, lengths)? } else { gates };
    let first = [initial(cx, layer, k, 5)?, initial(cx, layer, k, 6)?];
    let peepholes = match cx.optional(7) {
        Some(all) => Some(of_direction(&mut cx.b, all, k)?),
        None => None,
    };
    let step = Step { layer, functions, gates, r, peepholes };
    let Given { carried, rows } =
        rounds(&mut cx.b, &layer.sequence, &first, &step.captures(), &|b, round| step.write(b, round))?;
    let (&[h, c], &[y]) = (carried.as_slice(), rows.as_slice()) else {
        return Err("the steps give other values".into());
    };
    let y = if backward { turned(&mut cx.b, y, lengths)? } else { y };
    let unit = || Expr::constant(1);
    let state = [unit(), layer.batch.clone(), layer.hidden.clone()];
    let y = cx.b.reshape(y, vec![layer.sequence.clone(), unit(), layer.batch.clone(), layer.hidden.clone()])?;
    Ok([y, cx.b.reshape(h, state.to_vec())?, cx.b.reshape(c, state.to_vec())?])
}

/// Part `k` along the first axis, `[1, n]` or `[n, m]`: of vectors, the one element.
fn of_direction(b: &mut Builder<'_>, value: ValueId, k: usize) -> Built {
    let part = b.slice_axis(value, 0, Expr::from(k), Expr::constant(1))?;
    let mut dims = b.dims(part);
    match dims.len() {
        1 => dims.insert(0, Expr::constant(1)),
        2 => {}
        _ => drop(dims.remove(0)),
    }
    b.reshape(part, dims)
}

/// The sequences along the first axis from their ends on.
fn turned(b: &mut Builder<'_>, x: ValueId, lengths: Option<ValueId>) -> Built {
    if let Some(lengths) = lengths {
        return reversed(b, x, lengths, 0, 1);
    }
    let dims = b.dims(x);
    let mut starts = vec![Expr::constant(0); dims.len()];
    starts[0] = dims[0].clone() - Expr::constant(1);
    let mut steps = vec![1; dims.len()];
    steps[0] = -1;
    b.slice(x, starts, steps, dims)
}

/// A state before the first step: operand `operand`, or zeros.
fn initial(cx: &mut Cx<'_, '_>, layer: &Layer, k: usize, operand: usize) -> Result<ValueId, Fault> {
    let dims = vec![layer.batch.clone(), layer.hidden.clone()];
    let state = match cx.optional(operand) {
        Some(states) => of_direction(&mut cx.b, states, k)?,
        None => cx.b.scalar(lapidary_runtime::op::Scalar::float(DType::F32, 0.0)),
    };
    Ok(cx.b.expand(state, dims)?)
}

impl Layer {
    /// x `[sequence, batch, features]`, and 0 from the end of the longest sequence on: what lies there is not looked at,
    /// and would widen the range.
    fn before_ends(&self, b: &mut Builder<'_>, x: ValueId) -> Built {
        let Some(lengths) = self.lengths else { return Ok(x) };
        let longest = b.reduce(ReduceKind::Max, lengths, &[0, 1])?;
        let longest = b.reshape(longest, Vec::new())?;
        let steps = positions(b, self.sequence.clone(), 0, 3)?;
        b.program(&[steps, longest, x], |p| {
            let inside = p.push(ScalarOp::Less, &[Arg::Input(0), Arg::Input(1)]);
            p.push(ScalarOp::Select, &[inside, Arg::Input(2), p.imm(Arg::Input(2), 0.0)])
        })
    }
}

/// A matrix of weights of one direction, `[n, 4 * hidden]`.
struct Matrix {
    /// Bytes, or where they have a zero point `i32` differences with it.
    elements: ValueId,
    /// The sums of columns of bytes.
    columns: Option<ValueId>,
    /// One number, or one a column.
    scale: ValueId,
}

impl Matrix {
    /// Direction `k` of the operands elements, scale, zero point.
    fn of(cx: &mut Cx<'_, '_>, k: usize, operands: [usize; 3]) -> Result<Matrix, Fault> {
        let (all, scale) = (cx.input(operands[0])?, cx.input(operands[1])?);
        let dtype = cx.b.dtype(all);
        if !matches!(dtype, DType::I8 | DType::U8) || cx.b.rank(all) != 3 {
            return Err(
                format!("weights are {dtype} of rank {}, and bytes of rank 3 are needed", cx.b.rank(all)).into()
            );
        }
        let zero = telling(&cx.b, cx.optional(operands[2]));
        let b = &mut cx.b;
        let elements = of_direction(b, all, k)?;
        let scale = of_direction(b, scale, k)?;
        let zero = match zero {
            Some(zero) => Some(of_direction(b, zero, k)?),
            None => None,
        };
        let (elements, zero) = symmetric(b, elements, zero)?;
        let wide = centered(b, elements, zero)?;
        if zero.is_some() {
            return Ok(Matrix { elements: wide, columns: None, scale });
        }
        let columns = b.reduce(ReduceKind::Sum, wide, &[0])?;
        Ok(Matrix { elements, columns: Some(columns), scale })
    }

    /// The product with the rows of `x`, in `f32`.
    fn product(&self, b: &mut Builder<'_>, x: Dynamic) -> Built {
        let sum = match self.columns {
            Some(columns) => {
                let sum = product(b, x.elements, self.elements, PLAIN)?;
                less_product(b, sum, x.zero, columns)?
            }
            None => {
                let x = centered(b, x.elements, Some(x.zero))?;
                product(b, x, self.elements, PLAIN)?
            }
        };
        b.program(&[sum, x.scale, self.scale], |p| {
            let sum = p.cast(Arg::Input(0), DType::F32);
            let scale = p.push(ScalarOp::Mul, &[Arg::Input(1), Arg::Input(2)]);
            p.push(ScalarOp::Mul, &[sum, scale])
        })
    }
}

/// A step of one direction.
struct Step<'l> {
    layer: &'l Layer,
    functions: &'l [Activation],
    /// What the input adds to the gates, `[sequence, batch, 4 * hidden]`: input, output, forget, cell.
    gates: ValueId,
    r: Matrix,
    /// `[1, 3 * hidden]`: input, output, forget.
    peepholes: Option<ValueId>,
}

impl Step<'_> {
    /// What it reads of the graph around.
    fn captures(&self) -> Vec<ValueId> {
        let Matrix { elements, columns, scale } = self.r;
        let optional = [columns, self.peepholes, self.layer.lengths];
        [self.gates, elements, scale].into_iter().chain(optional.into_iter().flatten()).collect()
    }

    /// Carries h and c, `[batch, hidden]`; the row is y.
    fn write(&self, b: &mut Builder<'_>, round: &Round) -> Result<Given, String> {
        let &[h, c] = round.carried.as_slice() else { return Err("a step carries two states".to_owned()) };
        let Matrix { elements, columns, scale } = self.r;
        let inside = |value: Option<ValueId>| value.map(|value| round.inside(value));
        let r = Matrix { elements: round.inside(elements), columns: inside(columns), scale: round.inside(scale) };
        let lengths = inside(self.layer.lengths);
        let seen = match lengths {
            // The state behind the last step of a sequence is still in the range, as in ONNX Runtime.
            Some(lengths) => while_counted(b, ScalarOp::GreaterEqual, lengths, round.number, h, None)?,
            None => h,
        };
        let state = dynamically(b, seen)?;
        let of_h = r.product(b, state)?;
        let of_x = b.node(Op::Gather { axis: 0 }, &[round.inside(self.gates), round.number])?;
        let sum = b.binary(ScalarOp::Add, of_x, of_h)?;
        let hidden = &self.layer.hidden;
        let part = |b: &mut Builder<'_>, value: ValueId, k: i64| {
            b.slice_axis(value, 1, hidden.clone() * Expr::constant(k), hidden.clone())
        };
        let [input, output, forget, cell] = [part(b, sum, 0)?, part(b, sum, 1)?, part(b, sum, 2)?, part(b, sum, 3)?];
        let peepholes = match inside(self.peepholes) {
            Some(all) => Some([part(b, all, 0)?, part(b, all, 1)?, part(b, all, 2)?]),
            None => None,
        };
        let next_c = {
            let others = peepholes.map_or(Vec::new(), |[input, _, forget]| vec![input, forget]);
            b.program(&[&[c, input, forget, cell][..], &others].concat(), |p| self.cell(p, others.len() == 2))?
        };
        let next_h = {
            let others: Vec<ValueId> = peepholes.iter().map(|&[_, output, _]| output).collect();
            b.program(&[&[next_c, output][..], &others].concat(), |p| {
                let output =
                    looked_through(p, Arg::Input(1), Arg::Input(0), (others.len() == 1).then_some(Arg::Input(2)));
                let gate = self.activated(p, 0, output);
                let out = of_layer(p, self.functions[2], Arg::Input(0));
                p.push(ScalarOp::Mul, &[gate, out])
            })?
        };
        let Some(lengths) = lengths else { return Ok(Given { carried: vec![next_h, next_c], rows: vec![next_h] }) };
        let counted = |b: &mut Builder<'_>, new: ValueId, before: Option<ValueId>| {
            while_counted(b, ScalarOp::Greater, lengths, round.number, new, before)
        };
        let carried = vec![counted(b, next_h, Some(h))?, counted(b, next_c, Some(c))?];
        Ok(Given { carried, rows: vec![counted(b, next_h, None)?] })
    }

    /// The next c, of c, the sums of the gates input, forget, cell, and with `peepholes` those of the first two.
    fn cell(&self, p: &mut ProgramWriter, peepholes: bool) -> Arg {
        let c = Arg::Input(0);
        let input = looked_through(p, Arg::Input(1), c, peepholes.then_some(Arg::Input(4)));
        let input = self.activated(p, 0, input);
        let forget = if self.layer.input_forget {
            p.push(ScalarOp::Sub, &[p.imm(input, 1.0), input])
        } else {
            let forget = looked_through(p, Arg::Input(2), c, peepholes.then_some(Arg::Input(5)));
            self.activated(p, 0, forget)
        };
        let cell = self.activated(p, 1, Arg::Input(3));
        let kept = p.push(ScalarOp::Mul, &[forget, c]);
        let added = p.push(ScalarOp::Mul, &[input, cell]);
        p.push(ScalarOp::Add, &[kept, added])
    }

    /// A function of a sum that is clipped before.
    fn activated(&self, p: &mut ProgramWriter, which: usize, sum: Arg) -> Arg {
        let clip = f64::from(self.layer.clip);
        let mut sum = sum;
        if clip.is_finite() {
            sum = p.push(ScalarOp::Max, &[sum, p.imm(sum, -clip)]);
            sum = p.push(ScalarOp::Min, &[sum, p.imm(sum, clip)]);
        }
        of_layer(p, self.functions[which], sum)
    }
}

/// `sum + peephole * c`
fn looked_through(p: &mut ProgramWriter, sum: Arg, c: Arg, peephole: Option<Arg>) -> Arg {
    let Some(peephole) = peephole else { return sum };
    let seen = p.push(ScalarOp::Mul, &[peephole, c]);
    p.push(ScalarOp::Add, &[sum, seen])
}

/// `new` where a sequence's length is to the number of the step as `holds` says; otherwise what was before, or 0.
fn while_counted(
    b: &mut Builder<'_>,
    holds: ScalarOp,
    lengths: ValueId,
    number: ValueId,
    new: ValueId,
    before: Option<ValueId>,
) -> Built {
    let inputs: Vec<ValueId> = [Some(lengths), Some(number), Some(new), before].into_iter().flatten().collect();
    b.program(&inputs, |p| {
        let counts = p.push(holds, &[Arg::Input(0), Arg::Input(1)]);
        let otherwise = if before.is_some() { Arg::Input(3) } else { p.imm(Arg::Input(2), 0.0) };
        p.push(ScalarOp::Select, &[counts, Arg::Input(2), otherwise])
    })
}
