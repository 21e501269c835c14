//! Pointwise programs: their typing rules, and the shapes of pointwise nodes and epilogues.

use lapidary_runtime::DType;
use lapidary_runtime::op::{Arg, Instr, ScalarOp};

use super::{Inference, is_arithmetic, is_arithmetic_float, is_arithmetic_int, tensor};
use crate::ir::{Expr, Program, Type};

/// One result for each output of the program, of the broadcast shape of all operands.
pub(super) fn pointwise(
    program: &Program,
    inputs: &[Option<&Type>],
    cx: &mut Inference<'_>,
) -> Result<Vec<Type>, String> {
    check_operands(program, 0, inputs)?;
    let mut dims: Vec<Expr> = Vec::new();
    for (k, ty) in inputs.iter().flatten().enumerate() {
        dims = broadcast_dims(&dims, &ty.dims, cx).map_err(|reason| format!("operand {k}: {reason}"))?;
    }
    check(program)?;
    Ok((0..program.outputs.len()).map(|k| tensor(program.output_dtype(k), dims.clone())).collect())
}

/// The result of an operation whose own result is `own` and whose epilogue reads the operands `extra`.
pub(super) fn epilogue(
    program: Option<&Program>,
    own: Type,
    extra: &[Option<&Type>],
    cx: &mut Inference<'_>,
) -> Result<Vec<Type>, String> {
    let Some(program) = program else {
        return match extra.len() {
            0 => Ok(vec![own]),
            n => Err(format!("there are {n} operands for an epilogue that is not there")),
        };
    };
    if program.inputs.first() != Some(&own.dtype) {
        return Err(format!("input 0 of the epilogue must be {}, the type of the result so far", own.dtype));
    }
    if program.outputs.len() != 1 {
        return Err(format!("an epilogue has one output, and this one has {}", program.outputs.len()));
    }
    check_operands(program, 1, extra)?;
    check(program)?;
    for (k, ty) in extra.iter().flatten().enumerate() {
        cx.fits(&format!("input {} of the epilogue", k + 1), ty, &own.dims)?;
    }
    Ok(vec![tensor(program.output_dtype(0), own.dims)])
}

/// The extents of two shapes that broadcast, aligned at the last axis.
pub(super) fn broadcast_dims(a: &[Expr], b: &[Expr], cx: &mut Inference<'_>) -> Result<Vec<Expr>, String> {
    let rank = a.len().max(b.len());
    let one = Expr::constant(1);
    let at =
        |dims: &[Expr], axis: usize| (axis + dims.len()).checked_sub(rank).map_or(one.clone(), |k| dims[k].clone());
    (0..rank).map(|axis| cx.broadcast(&at(a, axis), &at(b, axis))).collect()
}

/// The program's inputs from `first` on must be the operands.
fn check_operands(program: &Program, first: usize, inputs: &[Option<&Type>]) -> Result<(), String> {
    let expected = program.inputs.get(first..).unwrap_or_default();
    if expected.len() != inputs.len() {
        return Err(format!("the program reads {} operands, and there are {}", expected.len(), inputs.len()));
    }
    for (k, (dtype, ty)) in expected.iter().zip(inputs).enumerate() {
        match ty {
            None => return Err(format!("input {} of the program is missing", first + k)),
            Some(ty) if ty.dtype != *dtype => {
                return Err(format!("input {} of the program is {dtype}, and its operand {}", first + k, ty.dtype));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// The typing rules of [`ScalarOp`], and that every operand is there.
pub(super) fn check(program: &Program) -> Result<(), String> {
    for (k, instr) in program.steps.iter().enumerate() {
        check_step(program, k, instr).map_err(|reason| format!("step {k} ({:?}): {reason}", instr.op))?;
    }
    if program.outputs.is_empty() {
        return Err("the program has no outputs".to_owned());
    }
    for (k, &arg) in program.outputs.iter().enumerate() {
        operand_dtype(program, program.steps.len(), arg).map_err(|reason| format!("output {k}: {reason}"))?;
    }
    Ok(())
}

fn check_step(program: &Program, at: usize, instr: &Instr) -> Result<(), String> {
    // The operands behind the arity are not read, but rewriting maps them too.
    let mut types = [DType::Bool; 3];
    for (slot, &arg) in types.iter_mut().zip(&instr.args) {
        *slot = operand_dtype(program, at, arg)?;
    }
    let rule = rule(instr.op);
    let of = if instr.op == ScalarOp::Select { 1 } else { 0 };
    let first = types[of];
    if !(rule.operand)(first) {
        return Err(format!("{first} operands are not defined"));
    }
    let rest = &types[..instr.op.arity()];
    match rule.others {
        Others::Same => {
            if let Some(other) = rest.iter().find(|&&ty| ty != first) {
                return Err(format!("operands are {first} and {other}"));
            }
        }
        Others::Arithmetic => {
            if let Some(other) = rest.iter().find(|&&ty| !is_arithmetic(ty)) {
                return Err(format!("{other} operands are not defined"));
            }
        }
        Others::Branches => {
            if rest[0] != DType::Bool || rest[2] != first {
                return Err(format!("operands are {}, {first} and {}", rest[0], rest[2]));
            }
        }
    }
    let expected = match instr.op {
        ScalarOp::Cast => instr.dtype,
        op if op.is_predicate() => DType::Bool,
        _ => first,
    };
    if instr.dtype != expected {
        return Err(format!("the step is {}, and its result {expected}", instr.dtype));
    }
    Ok(())
}

fn operand_dtype(program: &Program, at: usize, arg: Arg) -> Result<DType, String> {
    match arg {
        Arg::Input(k) => {
            program.inputs.get(usize::from(k)).copied().ok_or_else(|| format!("reads input {k}, which is not there"))
        }
        Arg::Step(k) if usize::from(k) < at => Ok(program.steps[usize::from(k)].dtype),
        Arg::Step(k) => Err(format!("reads step {k}, which comes later")),
        Arg::Imm(scalar) => Ok(scalar.dtype),
    }
}

/// Which operand types a step admits.
struct Rule {
    /// Of the operand whose type is `T`.
    operand: fn(DType) -> bool,
    others: Others,
}

/// What the operands must be beside the first.
enum Others {
    Same,
    Arithmetic,
    Branches,
}

fn rule(op: ScalarOp) -> Rule {
    use ScalarOp::*;
    let any: fn(DType) -> bool = |_| true;
    let boolean: fn(DType) -> bool = |dtype| dtype == DType::Bool;
    let comparable: fn(DType) -> bool = |dtype| dtype == DType::Bool || is_arithmetic(dtype);
    let (operand, others): (fn(DType) -> bool, Others) = match op {
        Identity | Cast => (any, Others::Same),
        Neg | Abs | Sign | Add | Sub | Mul | Div | Mod | Fmod | Min | Max | Less | LessEqual | Greater
        | GreaterEqual => (is_arithmetic, Others::Same),
        Pow => (is_arithmetic, Others::Arithmetic),
        Floor | Ceil | Round | Sqrt | Rsqrt | Reciprocal | Exp | Log | Sin | Cos | Tan | Asin | Acos | Atan | Sinh
        | Cosh | Tanh | Asinh | Acosh | Atanh | Erf | Sigmoid | Softplus | IsNan | IsPosInf | IsNegInf => {
            (is_arithmetic_float, Others::Same)
        }
        BitNot | BitAnd | BitOr | BitXor | ShiftLeft | ShiftRight => (is_arithmetic_int, Others::Same),
        Not | And | Or | Xor => (boolean, Others::Same),
        Equal | NotEqual => (comparable, Others::Same),
        Select => (any, Others::Branches),
    };
    Rule { operand, others }
}
