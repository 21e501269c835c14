//! Pointwise programs on the elements of broadcast tensors (ONNX's elementwise operators, Where, Cast; epilogues).
//!
//! Each step is computed in doubles and rounded to its type; types narrower than `f32` count as `f32` until a cast or
//! an output rounds them. Integers are exact, and wrap at their type.

use std::borrow::Cow;

use lapidary_runtime::DType;
use lapidary_runtime::op::{Arg, Instr, Scalar};
use lapidary_templates::Program;

use super::index::{self, Walk};
use super::parallel;
use super::scalar::{self, Meaning, Rule};
use super::tensor::{self, Tensor, Values};

/// An operand of a program: decoded elements and their extents.
pub(super) struct Array {
    pub(super) dims: Vec<usize>,
    pub(super) values: Values,
}

impl Array {
    /// The elements of a tensor.
    pub(super) fn of(tensor: &Tensor) -> Array {
        Array { dims: tensor.dims.clone(), values: tensor.decode() }
    }
}

/// Elements that are taken through a program together.
const CHUNK: usize = 4096;

/// Runs a program on operands that broadcast to one shape. One result an output of the program, all of that shape.
pub(super) fn pointwise(program: &Program, operands: &[&Tensor]) -> Result<Vec<Tensor>, String> {
    let dims = operands.iter().try_fold(Vec::new(), |dims, operand| index::broadcast(&dims, &operand.dims))?;
    for (k, operand) in operands.iter().enumerate() {
        if program.inputs.get(k) != Some(&operand.dtype) {
            return Err(format!("operand {k} is {}, not what the program reads", operand.dtype));
        }
    }
    let arrays: Vec<Array> = operands.iter().map(|operand| Array::of(operand)).collect();
    run(program, &arrays, &dims)
}

/// The result of an operation with an optional epilogue: `values`, of type `dtype` and extents `dims`, rounded once;
/// or what the epilogue makes of them (input 0) and the further operands, which broadcast to `dims`.
///
/// As a step of the epilogue the values are not rounded below `f32`.
pub(super) fn finish(
    values: Values,
    dtype: DType,
    dims: Vec<usize>,
    epilogue: Option<&Program>,
    operands: &[&Tensor],
) -> Result<Vec<Tensor>, String> {
    let Some(program) = epilogue else { return Ok(vec![Tensor::encode(dtype, dims, &values)]) };
    let values = match values {
        Values::Float(values) => Values::Float(values.into_iter().map(|v| round_step(dtype, v)).collect()),
        Values::Int(values) => Values::Int(values.into_iter().map(|v| tensor::wrap(dtype, v)).collect()),
    };
    let mut arrays = vec![Array { dims: dims.clone(), values }];
    arrays.extend(operands.iter().map(|operand| Array::of(operand)));
    run(program, &arrays, &dims)
}

fn run(program: &Program, operands: &[Array], dims: &[usize]) -> Result<Vec<Tensor>, String> {
    check(program)?;
    if program.inputs.len() != operands.len() {
        return Err(format!("the program reads {} operands, there are {}", program.inputs.len(), operands.len()));
    }
    for (operand, dtype) in operands.iter().zip(&program.inputs) {
        if matches!(operand.values, Values::Float(_)) != dtype.is_float() {
            return Err(format!("an operand is not the {dtype} that the program reads"));
        }
    }
    let strides: Vec<Vec<isize>> =
        operands.iter().map(|operand| index::broadcast_strides(&operand.dims, dims)).collect::<Result<_, _>>()?;
    let count = index::count(dims)?;
    let chunks = count.div_ceil(CHUNK);
    let work = count * (program.steps.len() + 1) * 4;
    let pieces = parallel::map(chunks, work, |chunk| {
        let range = chunk * CHUNK..count.min((chunk + 1) * CHUNK);
        let inputs: Vec<Values> = operands
            .iter()
            .zip(&strides)
            .map(|(operand, strides)| {
                let walk = Walk::new(dims, strides, 0).skip_to(range.start);
                gather(&operand.values, walk.take(range.len()))
            })
            .collect();
        run_chunk(program, &inputs, range.len())
    });
    let mut outputs: Vec<Vec<u8>> = vec![Vec::new(); program.outputs.len()];
    for piece in pieces {
        for (k, values) in piece?.iter().enumerate() {
            let part = Tensor::encode(program.output_dtype(k), vec![values.len()], values);
            outputs[k].extend_from_slice(&part.cells().1);
        }
    }
    outputs
        .into_iter()
        .enumerate()
        .map(|(k, cells)| Tensor::from_cells(program.output_dtype(k), dims.to_vec(), cells))
        .collect()
}

fn gather(values: &Values, at: impl Iterator<Item = usize>) -> Values {
    match values {
        Values::Float(values) => Values::Float(at.map(|k| values[k]).collect()),
        Values::Int(values) => Values::Int(at.map(|k| values[k]).collect()),
    }
}

/// The values of the program's outputs for a chunk of its inputs.
fn run_chunk(program: &Program, inputs: &[Values], len: usize) -> Result<Vec<Values>, String> {
    let mut steps: Vec<Values> = Vec::with_capacity(program.steps.len());
    for instr in &program.steps {
        let args: Vec<(DType, Cow<'_, Values>)> =
            instr.operands().iter().map(|&arg| (program.dtype_of(arg), value_of(inputs, &steps, arg, len))).collect();
        let result = step(instr, &args.iter().map(|(dtype, values)| (*dtype, values.as_ref())).collect::<Vec<_>>())?;
        drop(args);
        steps.push(result);
    }
    Ok(program.outputs.iter().map(|&arg| value_of(inputs, &steps, arg, len).into_owned()).collect())
}

fn value_of<'a>(inputs: &'a [Values], steps: &'a [Values], arg: Arg, len: usize) -> Cow<'a, Values> {
    match arg {
        Arg::Input(k) => Cow::Borrowed(&inputs[usize::from(k)]),
        Arg::Step(k) => Cow::Borrowed(&steps[usize::from(k)]),
        Arg::Imm(scalar) => Cow::Owned(filled(scalar, len)),
    }
}

/// Every operand must be there: an input, or an earlier step.
fn check(program: &Program) -> Result<(), String> {
    let steps =
        program.steps.iter().enumerate().flat_map(|(at, instr)| instr.operands().iter().map(move |arg| (at, arg)));
    let outputs = program.outputs.iter().map(|arg| (program.steps.len(), arg));
    for (at, arg) in steps.chain(outputs) {
        let there = match arg {
            Arg::Input(k) => usize::from(*k) < program.inputs.len(),
            Arg::Step(k) => usize::from(*k) < at,
            Arg::Imm(_) => true,
        };
        if !there {
            return Err(format!("step {at} of the program reads {arg:?}, which is not there"));
        }
    }
    Ok(())
}

fn filled(scalar: Scalar, len: usize) -> Values {
    if scalar.dtype.is_float() {
        Values::Float(vec![scalar.as_f64(); len])
    } else {
        Values::Int(vec![scalar.as_i64(); len])
    }
}

/// One step on a chunk: operands with their types.
fn step(instr: &Instr, args: &[(DType, &Values)]) -> Result<Values, String> {
    let name = || {
        let types: Vec<&str> = args.iter().map(|(dtype, _)| dtype.name()).collect();
        format!("{:?} of {} to {}", instr.op, types.join(", "), instr.dtype)
    };
    let result = match (scalar::meaning(instr.op), args) {
        (Meaning::Cast, [(from, values)]) => cast(*from, instr.dtype, values),
        (Meaning::Select, [(_, Values::Int(which)), (_, a), (_, b)]) => {
            return select(which, a, b).ok_or_else(|| format!("{} does not exist", name()));
        }
        (Meaning::Pow, [(base_type, base), (exponent_type, exponent)]) => {
            pow(*base_type, base, *exponent_type, exponent)
        }
        (Meaning::Rules(Some(rule), _), [(_, Values::Float(a)), rest @ ..]) => {
            float_rule(&rule, instr.dtype, a, rest).ok_or_else(|| format!("{} does not exist", name()))?
        }
        (Meaning::Rules(_, Some(rule)), [(dtype, Values::Int(a)), rest @ ..]) => {
            int_rule(&rule, instr.dtype, *dtype, a, rest).ok_or_else(|| format!("{} does not exist", name()))?
        }
        (Meaning::Cast | Meaning::Select | Meaning::Pow | Meaning::Rules(..), _) => {
            return Err(format!("{} does not exist", name()));
        }
    };
    if matches!(result, Values::Float(_)) != instr.dtype.is_float() {
        return Err(format!("{} does not exist", name()));
    }
    Ok(result)
}

/// Rounds a step's result: to `f32` for all types up to `f32`.
fn round_step(dtype: DType, value: f64) -> f64 {
    if dtype == DType::F64 { value } else { f64::from(value as f32) }
}

fn float_rule(rule: &Rule<f64>, to: DType, a: &[f64], rest: &[(DType, &Values)]) -> Option<Values> {
    let second = || match rest {
        [(_, Values::Float(b))] => Some(b),
        _ => None,
    };
    Some(match rule {
        Rule::Unary(f) => Values::Float(a.iter().map(|&a| round_step(to, f(a))).collect()),
        Rule::Binary(f) => Values::Float(a.iter().zip(second()?).map(|(&a, &b)| round_step(to, f(a, b))).collect()),
        Rule::Test(f) => Values::Int(a.iter().map(|&a| i64::from(f(a))).collect()),
        Rule::Compare(f) => Values::Int(a.iter().zip(second()?).map(|(&a, &b)| i64::from(f(a, b))).collect()),
    })
}

fn int_rule(rule: &Rule<i128>, to: DType, from: DType, a: &[i64], rest: &[(DType, &Values)]) -> Option<Values> {
    let a = a.iter().map(|&a| tensor::widen(from, a));
    let second = || match rest {
        [(dtype, Values::Int(b))] => Some(b.iter().map(|&b| tensor::widen(*dtype, b))),
        _ => None,
    };
    let narrow = |wide: i128| tensor::wrap(to, wide as i64);
    Some(Values::Int(match rule {
        Rule::Unary(f) => a.map(|a| narrow(f(a))).collect(),
        Rule::Binary(f) => a.zip(second()?).map(|(a, b)| narrow(f(a, b))).collect(),
        Rule::Test(f) => a.map(|a| i64::from(f(a))).collect(),
        Rule::Compare(f) => a.zip(second()?).map(|(a, b)| i64::from(f(a, b))).collect(),
    }))
}

/// ONNX `Cast`. Float to integer truncates and saturates, integer to integer wraps, to a float rounds once.
fn cast(from: DType, to: DType, values: &Values) -> Values {
    match values {
        Values::Float(values) if to.is_float() => {
            Values::Float(values.iter().map(|&v| tensor::round_float(to, v)).collect())
        }
        Values::Float(values) => Values::Int(values.iter().map(|&v| tensor::float_to_int(to, v)).collect()),
        Values::Int(values) if to.is_float() => {
            Values::Float(values.iter().map(|&v| tensor::int_to_float(to, tensor::widen(from, v))).collect())
        }
        Values::Int(values) => Values::Int(values.iter().map(|&v| tensor::wrap(to, v)).collect()),
    }
}

fn select(which: &[i64], a: &Values, b: &Values) -> Option<Values> {
    fn pick<T: Copy>(which: &[i64], a: &[T], b: &[T]) -> Vec<T> {
        which.iter().zip(a.iter().zip(b)).map(|(&which, (&a, &b))| if which != 0 { a } else { b }).collect()
    }
    match (a, b) {
        (Values::Float(a), Values::Float(b)) => Some(Values::Float(pick(which, a, b))),
        (Values::Int(a), Values::Int(b)) => Some(Values::Int(pick(which, a, b))),
        (Values::Float(_), Values::Int(_)) | (Values::Int(_), Values::Float(_)) => None,
    }
}

/// ONNX `Pow`: the base's type is the result's. An integer base with a float exponent goes through doubles.
fn pow(base_type: DType, base: &Values, exponent_type: DType, exponent: &Values) -> Values {
    let wide = |values: &[i64], dtype| values.iter().map(|&v| tensor::widen(dtype, v)).collect::<Vec<_>>();
    match (base, exponent) {
        (Values::Int(a), Values::Int(b)) => {
            let pairs = wide(a, base_type).into_iter().zip(wide(b, exponent_type));
            Values::Int(pairs.map(|(a, b)| tensor::wrap(base_type, scalar::int_pow(a, b) as i64)).collect())
        }
        (Values::Int(a), Values::Float(b)) => {
            let pairs = wide(a, base_type).into_iter().zip(b);
            Values::Int(pairs.map(|(a, &b)| tensor::float_to_int(base_type, (a as f64).powf(b))).collect())
        }
        (Values::Float(a), Values::Float(b)) => {
            Values::Float(a.iter().zip(b).map(|(a, &b)| round_step(base_type, a.powf(b))).collect())
        }
        (Values::Float(a), Values::Int(b)) => {
            let pairs = a.iter().zip(wide(b, exponent_type));
            Values::Float(pairs.map(|(a, b)| round_step(base_type, a.powf(b as f64))).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use lapidary_runtime::op::ScalarOp;

    use super::*;

    fn f32s(values: &[f64]) -> Tensor {
        Tensor::from_f64s(DType::F32, vec![values.len()], values)
    }

    fn unary(op: ScalarOp, from: DType, to: DType, values: &Tensor) -> Tensor {
        pointwise(&Program::single(op, to, &[from]), &[values]).unwrap().remove(0)
    }

    fn binary(op: ScalarOp, dtype: DType, a: &[i64], b: &[i64]) -> Vec<i64> {
        let tensor = |values: &[i64]| Tensor::from_i64s(dtype, vec![values.len()], values);
        pointwise(&Program::single(op, dtype, &[dtype; 2]), &[&tensor(a), &tensor(b)]).unwrap()[0].to_i64s()
    }

    #[test]
    fn operands_broadcast() {
        let a = Tensor::from_f64s(DType::F32, vec![2, 1], &[1.0, 2.0]);
        let sum = pointwise(&Program::single(ScalarOp::Add, DType::F32, &[DType::F32; 2]), &[&a, &f32s(&[10.0, 20.0])]);
        let sum = &sum.unwrap()[0];
        assert_eq!((sum.dims.as_slice(), sum.to_f64s()), ([2, 2].as_slice(), vec![11.0, 21.0, 12.0, 22.0]));
        // More than one chunk, the operand's walk starting in the middle.
        let long = Tensor::from_i64s(DType::I64, vec![3, 5000], &(0..15000).collect::<Vec<_>>());
        let row = Tensor::from_i64s(DType::I64, vec![5000], &(0..5000).collect::<Vec<_>>());
        let difference = pointwise(&Program::single(ScalarOp::Sub, DType::I64, &[DType::I64; 2]), &[&long, &row]);
        let expected: Vec<i64> = (0..15000).map(|k| k / 5000 * 5000).collect();
        assert_eq!(difference.unwrap()[0].to_i64s(), expected);
    }

    #[test]
    fn integers_wrap_at_their_type() {
        assert_eq!(binary(ScalarOp::Add, DType::U8, &[250], &[10]), [4]);
        assert_eq!(binary(ScalarOp::Mul, DType::I64, &[i64::MAX], &[2]), [-2]);
        assert_eq!(binary(ScalarOp::Div, DType::I32, &[-7, 7, i32::MIN as i64], &[2, 0, -1]), [-3, 0, i32::MIN as i64]);
        // u64 is unsigned although it is held in an i64.
        assert_eq!(binary(ScalarOp::Div, DType::U64, &[-2], &[2]), [i64::MAX]);
        assert_eq!(binary(ScalarOp::Max, DType::U64, &[-1], &[1]), [-1]);
        assert_eq!(binary(ScalarOp::ShiftRight, DType::U64, &[-1, 8], &[63, 64]), [1, 0]);
        assert_eq!(binary(ScalarOp::ShiftRight, DType::I8, &[-128], &[7]), [-1]);
        assert_eq!(binary(ScalarOp::ShiftLeft, DType::U8, &[0x81, 1], &[1, 8]), [2, 0]);
        // A distance outside of the width, a negative one too, moves every bit out.
        assert_eq!(binary(ScalarOp::ShiftLeft, DType::I32, &[5, 5, 5], &[31, 32, -1]), [i64::from(i32::MIN), 0, 0]);
        assert_eq!(binary(ScalarOp::ShiftRight, DType::I32, &[5, -5, -5], &[-1, -1, 32]), [0, -1, -1]);
        assert_eq!(binary(ScalarOp::ShiftRight, DType::I64, &[i64::MIN, 5], &[64, i64::MIN]), [-1, 0]);
        assert_eq!(binary(ScalarOp::ShiftLeft, DType::U64, &[1], &[-1]), [0]);
        assert_eq!(binary(ScalarOp::Pow, DType::I32, &[2, -1], &[31, 3]), [i32::MIN as i64, -1]);
        assert_eq!(binary(ScalarOp::Mod, DType::I32, &[-4, 5], &[3, -8]), [2, -3]);
        assert_eq!(binary(ScalarOp::Fmod, DType::I32, &[-4, 5], &[3, -8]), [-1, 5]);
    }

    #[test]
    fn narrow_floats_are_rounded_when_stored() {
        // 1 + 2^-11 is no half; with it the sum's first step is kept in f32.
        let half = |v: &[f64]| Tensor::from_f64s(DType::F16, vec![v.len()], v);
        let (x, add) = (Arg::Input(0), ScalarOp::Add);
        let tiny = Arg::Imm(Scalar::float(DType::F16, 2f64.powi(-11)));
        let steps = vec![Instr::binary(add, DType::F16, x, tiny), Instr::binary(add, DType::F16, Arg::Step(0), tiny)];
        let program = Program { inputs: vec![DType::F16], steps, outputs: vec![Arg::Step(1), Arg::Step(0)] };
        let results = pointwise(&program, &[&half(&[1.0])]).unwrap();
        assert_eq!(results[0].to_f64s(), [1.0 + 2f64.powi(-10)]);
        assert_eq!(results[1].to_f64s(), [1.0]);
        // f32 rounds at each step: (1 + 2^-24) - 1 = 0.
        let steps = vec![
            Instr::binary(add, DType::F32, x, Arg::Imm(Scalar::float(DType::F32, 2f64.powi(-24)))),
            Instr::binary(ScalarOp::Sub, DType::F32, Arg::Step(0), Arg::Imm(Scalar::float(DType::F32, 1.0))),
        ];
        let program = Program { inputs: vec![DType::F32], steps, outputs: vec![Arg::Step(1)] };
        assert_eq!(pointwise(&program, &[&f32s(&[1.0])]).unwrap()[0].to_f64s(), [0.0]);
    }

    #[test]
    fn casts_follow_onnx() {
        let x = f32s(&[300.7, -1.5, f64::NAN, 0.0, f64::INFINITY]);
        let to = |dtype| unary(ScalarOp::Cast, DType::F32, dtype, &x).to_i64s();
        assert_eq!(to(DType::U8), [255, 0, 0, 0, 255]);
        assert_eq!(to(DType::I64), [300, -1, 0, 0, i64::MAX]);
        assert_eq!(to(DType::Bool), [1, 1, 1, 0, 1]);
        let big = Tensor::from_i64s(DType::U64, vec![1], &[-1]);
        assert_eq!(unary(ScalarOp::Cast, DType::U64, DType::F32, &big).to_f64s(), [2f64.powi(64)]);
        let e4m3 = unary(ScalarOp::Cast, DType::F32, DType::F8E4M3FN, &x);
        assert_eq!(&e4m3.bytes[..], [0x79, 0xbc, 0x7f, 0, 0x7e]);
        let i4 = Tensor::from_i64s(DType::I4, vec![3], &[-8, 7, 3]);
        assert_eq!(unary(ScalarOp::Cast, DType::I4, DType::F32, &i4).to_f64s(), [-8.0, 7.0, 3.0]);
    }

    #[test]
    fn predicates_select() {
        let steps = vec![
            Instr::binary(ScalarOp::Less, DType::Bool, Arg::Input(0), Arg::Imm(Scalar::float(DType::F32, 0.0))),
            Instr::unary(ScalarOp::Not, DType::Bool, Arg::Step(0)),
            Instr::ternary(
                ScalarOp::Select,
                DType::F32,
                Arg::Step(1),
                Arg::Input(0),
                Arg::Imm(Scalar::float(DType::F32, 9.0)),
            ),
        ];
        let program = Program { inputs: vec![DType::F32], steps, outputs: vec![Arg::Step(2), Arg::Step(0)] };
        let results = pointwise(&program, &[&f32s(&[-1.0, 2.0])]).unwrap();
        assert_eq!(results[0].to_f64s(), [9.0, 2.0]);
        assert_eq!((results[1].dtype, results[1].to_i64s()), (DType::Bool, vec![1, 0]));
    }

    #[test]
    fn what_does_not_exist_is_an_error() {
        let ints = Tensor::from_i64s(DType::I32, vec![1], &[4]);
        let error = pointwise(&Program::single(ScalarOp::Sqrt, DType::I32, &[DType::I32]), &[&ints]).unwrap_err();
        assert_eq!(error, "Sqrt of i32 to i32 does not exist");
        let error = pointwise(&Program::single(ScalarOp::Abs, DType::F32, &[DType::F32]), &[&ints]).unwrap_err();
        assert_eq!(error, "operand 0 is i32, not what the program reads");
        assert_eq!(unary(ScalarOp::Sign, DType::F32, DType::F32, &f32s(&[-2.0, 0.0, 5.0])).to_f64s(), [-1.0, 0.0, 1.0]);
        assert_eq!(
            unary(ScalarOp::Round, DType::F32, DType::F32, &f32s(&[0.5, 1.5, -2.5])).to_f64s(),
            [0.0, 2.0, -2.0]
        );
    }
}
