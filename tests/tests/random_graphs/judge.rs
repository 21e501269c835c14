//! Whether two results of a graph are the same, as far as rounding lets them be.
//!
//! The allowance of an element is measured, not guessed: the graph is evaluated again and again with every operation's
//! float operands and results moved at random by a few units in the last place, and what an element moves by is what
//! rounding may do to it. (A sum, a product, a normalization computed in another order has the result of operands
//! moved by a few units: Higham, "Accuracy and Stability of Numerical Algorithms", 3.1.) A decision that a rounding
//! error can turn, such as a comparison or a truncation, moves too. What does not move must be equal.

use std::collections::BTreeMap;

use lapidary::ir::eval::{self, Tensor, Values};
use lapidary::ir::{Def, Expr, Graph, Op, Program, SymbolSource, Type, ValueId};
use lapidary_runtime::DType;
use lapidary_runtime::op::{PoolKind, ReduceKind, ScalarOp};

use super::data::Random;

/// What an element may be.
#[derive(Clone, Debug)]
pub enum Expected {
    /// The outputs as evaluated, and what they were under each perturbation.
    Numbers { outputs: Vec<Tensor>, looks: Looks },
    /// The evaluator refuses the inputs.
    Refused(String),
}

/// How many perturbed evaluations measure an allowance; [`SECOND_LOOK`] where the first ones were exceeded.
const LOOKS: u64 = 5;
const SECOND_LOOK: u64 = 150;

/// Units in the last place of an operation's type by which its operands and results move: in every third look by one, as
/// what many units always turn (which of several elements is the largest) one may leave.
const UNITS: [f64; 3] = [6.0, 6.0, 1.0];

/// Evaluates a graph, and measures.
pub fn expected(graph: &Graph, inputs: &[Tensor]) -> Expected {
    let outputs = match eval::run(graph, inputs) {
        Ok(outputs) => outputs,
        Err(error) => return Expected::Refused(error.to_string()),
    };
    let looks = looks(graph, inputs, 0..LOOKS);
    Expected::Numbers { outputs, looks }
}

/// Perturbed evaluations.
#[derive(Clone, Debug, Default)]
pub struct Looks {
    outputs: Vec<Vec<Tensor>>,
    /// The largest finite float of 32 bits or fewer that was met.
    peak: f64,
    /// Whether the graph has roots of sums of squares, as operations or written out: deviations make zeros of what they
    /// divide where they are infinite.
    roots: bool,
}

fn looks(graph: &Graph, inputs: &[Tensor], seeds: std::ops::Range<u64>) -> Looks {
    let symbols = symbols(graph, inputs);
    let roots = |id| match &graph.node(id).op {
        Op::Norm(..) | Op::GroupNorm(..) => true,
        Op::Pool(spec, _) => matches!(spec.kind, PoolKind::Lp(_)),
        Op::Reduce(spec) => spec.kind == ReduceKind::L2,
        Op::Pointwise(program) => has_step(program, &[ScalarOp::Sqrt, ScalarOp::Rsqrt, ScalarOp::Pow]),
        _ => false,
    };
    let mut looks = Looks { roots: graph.order().into_iter().any(roots), ..Looks::default() };
    for seed in seeds {
        let units = UNITS[seed as usize % UNITS.len()];
        let random = Random::new(seed * 7919 + 17);
        let mut shaker = Shaker { random, units, symbols: symbols.clone(), peak: 0.0 };
        looks.outputs.extend(shaker.run(graph, inputs).ok());
        looks.peak = looks.peak.max(shaker.peak);
    }
    looks
}

fn has_step(program: &Program, ops: &[ScalarOp]) -> bool {
    program.steps.iter().any(|step| ops.contains(&step.op))
}

/// Where `given` is not what was expected: the output's number and why. `None` if all is well.
pub fn difference(graph: &Graph, inputs: &[Tensor], expected: &Expected, given: &[Tensor]) -> Option<String> {
    let Expected::Numbers { outputs, looks: first } = expected else { return None };
    first_difference(outputs, first, given)?;
    // Rare turns of a decision are found by looking harder.
    let second = looks(graph, inputs, LOOKS..SECOND_LOOK);
    let (output, why) = first_difference(outputs, &second, given)?;
    let (name, value) = &graph.outputs()[output];
    Some(format!("output {name} ({value}): {why}"))
}

/// Where two evaluations are not bit for bit the same; numbers that are not are as good as each other.
pub fn bit_difference(graph: &Graph, expected: &[Tensor], given: &[Tensor]) -> Option<String> {
    let pairs = expected.iter().zip(given).zip(graph.outputs());
    pairs.into_iter().find_map(|((a, b), (name, value))| {
        if (a.dtype, &a.dims) != (b.dtype, &b.dims) {
            return Some(format!("output {name} ({value}): {}{:?}, not {}{:?}", b.dtype, b.dims, a.dtype, a.dims));
        }
        let (x, y) = (a.to_f64s(), b.to_f64s());
        let width = a.dtype.bits() / 8;
        let differs = |&k: &usize| {
            let both_nan = x[k].is_nan() && y[k].is_nan();
            !both_nan && a.bytes[k * width..][..width] != b.bytes[k * width..][..width]
        };
        let at = (0..a.count()).find(differs)?;
        Some(format!("output {name} ({value}): element {at} is {:e}, not {:e} bit for bit", y[at], x[at]))
    })
}

/// Squares of larger numbers are beyond an `f32`, in which a kernel, or the graph as written, may form them.
const SQUARE_IS_FINITE: f64 = 1e18;

/// Squares of smaller numbers are zeros there.
const SQUARE_IS_NONE: f64 = 1e-18;

fn first_difference(outputs: &[Tensor], looks: &Looks, given: &[Tensor]) -> Option<(usize, String)> {
    outputs.iter().zip(given).enumerate().find_map(|(k, (expected, given))| {
        if (expected.dtype, &expected.dims) != (given.dtype, &given.dims) {
            let types = [given, expected].map(|t| format!("{}{:?}", t.dtype, t.dims));
            return Some((k, format!("{}, not {}", types[0], types[1])));
        }
        let exact = !expected.dtype.is_float();
        let (x, y) = (expected.to_f64s(), given.to_f64s());
        let moved: Vec<Vec<f64>> = looks.outputs.iter().map(|outputs| outputs[k].to_f64s()).collect();
        (0..x.len()).find_map(|i| {
            let others: Vec<f64> = moved.iter().map(|values| values[i]).collect();
            let allowed = Allowed::of(expected.dtype, x[i], &others);
            let equal = if exact { word(expected, i) == word(given, i) } else { false };
            let infinite = !x[i].is_finite() || !y[i].is_finite();
            let overflow = looks.peak > SQUARE_IS_FINITE && (looks.roots || infinite);
            let underflow = looks.roots && x[i].abs().max(y[i].abs()) < SQUARE_IS_NONE;
            (!equal && !overflow && !underflow && !allowed.admits(y[i])).then(|| {
                (
                    k,
                    format!(
                        "element {i} of {}{:?} is {:e}, not {:e} ({allowed:?})",
                        given.dtype, given.dims, y[i], x[i]
                    ),
                )
            })
        })
    })
}

fn word(tensor: &Tensor, i: usize) -> &[u8] {
    let width = tensor.dtype.bits() / 8;
    &tensor.bytes[i * width..][..width]
}

/// The values that an element may have.
#[derive(Debug)]
enum Allowed {
    /// Anything: rounding can make it a number or not.
    Any,
    Nan,
    Infinite(f64),
    Between(f64, f64),
}

impl Allowed {
    fn of(dtype: DType, value: f64, moved: &[f64]) -> Allowed {
        let huge = largest(dtype) / 16.0;
        let beyond = |v: f64| !v.is_nan() && v.abs() > huge;
        if moved.iter().any(|other| other.is_nan() != value.is_nan()) {
            return Allowed::Any;
        }
        if value.is_nan() {
            return Allowed::Nan;
        }
        let all = || moved.iter().copied().chain([value]);
        if value.is_infinite() && all().all(|other| other == value) {
            return Allowed::Infinite(value);
        }
        // Near the end of the range a number and infinity are neighbours.
        if dtype.is_float() && all().any(beyond) {
            return Allowed::Any;
        }
        let (low, high) = all().fold((value, value), |(low, high), other| (low.min(other), high.max(other)));
        let spread = high - low;
        if dtype.is_float() && spread > value.abs() && low < 0.0 && high > 0.0 && spread > 1.0 {
            // A quotient by what rounding can make nothing.
            return Allowed::Any;
        }
        let own = if dtype.is_float() { 4.0 * unit(dtype) * value.abs() + smallest(dtype) } else { 0.0 };
        Allowed::Between(low - 4.0 * spread - own, high + 4.0 * spread + own)
    }

    fn admits(&self, value: f64) -> bool {
        match *self {
            Allowed::Any => true,
            Allowed::Nan => value.is_nan(),
            Allowed::Infinite(infinite) => value == infinite,
            Allowed::Between(low, high) => low <= value && value <= high,
        }
    }
}

fn unit(dtype: DType) -> f64 {
    match dtype {
        DType::F64 => 2f64.powi(-52),
        DType::F16 => 2f64.powi(-10),
        DType::BF16 => 2f64.powi(-7),
        _ => 2f64.powi(-23),
    }
}

fn largest(dtype: DType) -> f64 {
    match dtype {
        DType::F64 => f64::MAX,
        DType::F16 => 65504.0,
        _ => f64::from(f32::MAX),
    }
}

/// The smallest number that is not zero.
fn least(dtype: DType) -> f64 {
    match dtype {
        DType::F64 => 5e-324,
        DType::F16 => 2f64.powi(-24),
        DType::BF16 => 2f64.powi(-133),
        _ => 2f64.powi(-149),
    }
}

/// What counts as nothing: a few of the smallest numbers.
fn smallest(dtype: DType) -> f64 {
    match dtype {
        DType::F64 => 1e-300,
        DType::F16 => 2f64.powi(-22),
        _ => 2f64.powi(-126),
    }
}

fn symbols(graph: &Graph, inputs: &[Tensor]) -> BTreeMap<String, i64> {
    // A first run.
    let mut symbols = BTreeMap::from([(eval::RUN_COUNT.to_owned(), 0)]);
    for (name, symbol) in &graph.symbols {
        if let SymbolSource::Input { input, axis } = symbol.source {
            symbols.insert(name.to_string(), inputs[input].dims[axis] as i64);
        }
    }
    symbols
}

/// Evaluates a graph with moved operands and results.
struct Shaker {
    random: Random,
    units: f64,
    /// Counts are added as they are computed.
    symbols: BTreeMap<String, i64>,
    peak: f64,
}

impl Shaker {
    /// Runs a body again and again, as the evaluator does.
    fn rounds(
        &mut self,
        body: &Graph,
        carried: usize,
        most: &Expr,
        operands: &[Option<Tensor>],
    ) -> Result<Vec<Tensor>, String> {
        let limit = operands[0].as_ref().map_or(i64::MAX, |limit| limit.to_i64s()[0]);
        let most = most.as_const().unwrap_or(i64::MAX).min(limit);
        let watched = usize::from(operands[1].is_some());
        let mut goes_on = operands[1].as_ref().is_none_or(|start| start.to_i64s()[0] != 0);
        let mut states: Vec<Tensor> = operands[2..].iter().flatten().cloned().collect();
        let captures = states.split_off(carried);
        let rows = body.outputs().len() - watched - carried;
        let mut collected: Vec<Vec<Tensor>> = vec![Vec::new(); rows];
        let mut round = 0;
        while goes_on && round < most {
            let number = Tensor::from_i64s(DType::I64, Vec::new(), &[round]);
            let inputs = [&[number], states.as_slice(), &captures].concat();
            let mut results = self.run(body, &inputs)?;
            collected.iter_mut().zip(results.split_off(watched + carried)).for_each(|(rows, row)| rows.push(row));
            states = results.split_off(watched);
            goes_on = results.first().is_none_or(|again| again.to_i64s()[0] != 0);
            round += 1;
        }
        let mut results = states;
        for (rows, (_, value)) in collected.into_iter().zip(&body.outputs()[watched + carried..]) {
            results.push(self.stacked(rows, body.ty(*value))?);
        }
        results.push(Tensor::from_i64s(DType::I64, Vec::new(), &[round]));
        Ok(results)
    }

    /// Rows along a new first axis.
    fn stacked(&mut self, rows: Vec<Tensor>, ty: &Type) -> Result<Tensor, String> {
        let symbol = |name: &str| self.symbols[name];
        if rows.is_empty() {
            let dims = ty.dims.iter().map(|dim| dim.eval(&symbol) as usize);
            return Ok(Tensor::from_f64s(ty.dtype, std::iter::once(0).chain(dims).collect(), &[]));
        }
        let rows: Vec<Tensor> =
            rows.into_iter().map(|row| row.reshaped([&[1], row.dims.as_slice()].concat())).collect::<Result<_, _>>()?;
        let rows: Vec<Option<&Tensor>> = rows.iter().map(Some).collect();
        eval::eval_node(&Op::Concat { axis: 0 }, &rows, &symbol).map(|mut joined| joined.remove(0))
    }

    fn run(&mut self, graph: &Graph, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
        let mut values: BTreeMap<ValueId, Tensor> =
            graph.inputs().iter().copied().zip(inputs.iter().cloned()).collect();
        for id in graph.order() {
            let node = graph.node(id);
            let operands: Vec<Option<Tensor>> =
                node.inputs.iter().map(|value| value.map(|value| tensor(graph, &values, value))).collect();
            let results = match &node.op {
                Op::If { then_region, else_region } => {
                    let operands: Vec<Tensor> = operands.into_iter().flatten().collect();
                    let region = if operands[0].to_i64s()[0] != 0 { then_region } else { else_region };
                    self.run(&region.0, &operands[1..])?
                }
                Op::Loop { body, carried, most } => self.rounds(&body.0, *carried as usize, most, &operands)?,
                op => self.node(op, operands)?,
            };
            for (value, result) in node.outputs.iter().zip(results) {
                if let Some(value) = value {
                    self.learn(graph, *value, &result);
                    values.insert(*value, result);
                }
            }
        }
        Ok(graph.outputs().iter().map(|(_, value)| tensor(graph, &values, *value)).collect())
    }

    fn learn(&mut self, graph: &Graph, value: ValueId, result: &Tensor) {
        for (name, symbol) in &graph.symbols {
            if matches!(&symbol.source, SymbolSource::Count(count) if count.at == value) {
                self.symbols.insert(name.to_string(), result.to_i64s()[0]);
            }
        }
    }

    fn node(&mut self, op: &Op, operands: Vec<Option<Tensor>>) -> Result<Vec<Tensor>, String> {
        let rounds = rounds(op);
        let moved: Vec<Option<Tensor>> = match rounds {
            Rounds::No => operands,
            Rounds::Yes => operands.into_iter().map(|x| x.map(|x| self.shake(x, 0.0))).collect(),
        };
        let operands: Vec<Option<&Tensor>> = moved.iter().map(Option::as_ref).collect();
        let symbols = &self.symbols;
        let results = eval::eval_node(op, &operands, &|name| symbols.get(name).copied().unwrap_or(-1))?;
        Ok(match rounds {
            Rounds::No => results,
            Rounds::Yes => {
                let floor = match op {
                    // States and normalized numbers are sums of some of a magnitude around 1, which may cancel.
                    Op::Recurrent(_) | Op::Norm(..) | Op::GroupNorm(..) => 4.0,
                    // Here it is the operand's elements that may cancel.
                    Op::Resize(..) => largest_of(&moved),
                    Op::Softmax(spec) if spec.log => largest_of(&moved),
                    _ => 0.0,
                };
                let exponentials = match op {
                    Op::Softmax(spec) => !spec.log,
                    Op::Pointwise(program) => has_step(program, &[ScalarOp::Exp]),
                    _ => false,
                };
                let raised = results.into_iter().map(|x| if exponentials { raised(x) } else { x });
                raised.map(|x| self.shake(x, floor)).collect()
            }
        })
    }

    /// Each element moved by a few units in the last place, its own and that of `magnitude`. An f16 may have lost small
    /// numbers to zero and large ones to infinity, which a fused kernel would have kept.
    fn shake(&mut self, x: Tensor, magnitude: f64) -> Tensor {
        let Values::Float(values) = x.decode() else { return x };
        let unit = unit(x.dtype);
        if x.dtype != DType::F64 {
            let finite = values.iter().filter(|v| v.is_finite());
            self.peak = finite.fold(self.peak, |peak, v| peak.max(v.abs()));
        }
        let half = x.dtype == DType::F16;
        let floor = if half { 2f64.powi(-24) } else { 0.0 } + self.units * unit * magnitude;
        let moved: Vec<f64> = values
            .iter()
            .map(|&v| {
                let by = self.random.signed();
                if half && v.is_infinite() && by > 0.0 {
                    return largest(DType::F16).copysign(v);
                }
                if v == 0.0 {
                    // Which of two zeros is the larger, and what sign a sum of nothing has, is nobody's promise.
                    return (by * floor).abs().copysign(by);
                }
                if v.abs() < self.units * unit * magnitude && by > 0.0 {
                    return 0.0;
                }
                // Below the normal range there are fewer digits.
                let moved = v + v * by * self.units * unit + by * floor.max(self.units * least(x.dtype));
                if v.is_finite() && moved.abs() <= largest(x.dtype) { moved } else { v }
            })
            .collect();
        Tensor::from_f64s(x.dtype, x.dims, &moved)
    }
}

/// Exponentials that became zeros, as numbers that are nearly so, of which a sum's share is none yet: a logarithm behind
/// them may bring back what they were.
fn raised(x: Tensor) -> Tensor {
    let Values::Float(values) = x.decode() else { return x };
    let raised: Vec<f64> = values.iter().map(|&v| if v == 0.0 { 64.0 * least(x.dtype) } else { v }).collect();
    Tensor::from_f64s(x.dtype, x.dims, &raised)
}

/// The largest magnitude of an operand's elements.
fn largest_of(operands: &[Option<Tensor>]) -> f64 {
    let values = operands.iter().flatten().flat_map(Tensor::to_f64s);
    values.filter(|value| value.is_finite()).fold(0.0, |largest, value| value.abs().max(largest))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Rounds {
    /// Every element of the result is one of the operands'.
    No,
    Yes,
}

fn rounds(op: &Op) -> Rounds {
    match op {
        Op::Reshape(_)
        | Op::BitCast(_)
        | Op::Transpose(_)
        | Op::Expand(_)
        | Op::Slice { .. }
        | Op::Concat { .. }
        | Op::Pad { .. }
        | Op::Gather { .. }
        | Op::GatherElements { .. }
        | Op::GatherNd { .. }
        | Op::Extents { .. }
        | Op::TopK { .. }
        | Op::Suppress
        | Op::ArgReduce(_)
        | Op::RunCount
        | Op::If { .. }
        | Op::Loop { .. } => Rounds::No,
        Op::Pointwise(_)
        | Op::MatMul(..)
        | Op::Conv(..)
        | Op::ConvTranspose(..)
        | Op::Pool(..)
        | Op::Reduce(_)
        | Op::Softmax(_)
        | Op::Attention(_)
        | Op::Norm(..)
        | Op::GroupNorm(..)
        | Op::ScatterElements { .. }
        | Op::ScatterNd { .. }
        | Op::Resize(..)
        | Op::RegionPool(_)
        | Op::Recurrent(_)
        | Op::CumSum { .. }
        | Op::Range { .. } => Rounds::Yes,
    }
}

fn tensor(graph: &Graph, values: &BTreeMap<ValueId, Tensor>, value: ValueId) -> Tensor {
    if let Some(tensor) = values.get(&value) {
        return tensor.clone();
    }
    let ty = graph.ty(value);
    let Def::Constant(constant) = &graph.value(value).def else { panic!("{value} is read before it is computed") };
    let dims = ty.dims.iter().map(|dim| dim.as_const().unwrap_or(0) as usize).collect();
    Tensor::new(ty.dtype, dims, constant.bytes.clone()).expect("a verified constant")
}
