//! Pointwise programs as CUDA C++: one statement a step, in the functions of `cuda/lapidary/math.cuh`.
//!
//! Contract: input `k` of the program is the variable `x<k>`, step `k` becomes `v<k>`; both are of the *compute type* of
//! their dtype (all floats below 64 bits in `float`, integers below 8 bits in `i8` and `u8`). Rounding to a narrow float happens where the program casts and where the
//! caller stores. Immediates read back bit for bit. Not here: loads, stores, and what surrounds the statements.

use lapidary_runtime::DType;
use lapidary_runtime::op::{Arg, Instr, Scalar, ScalarOp};

use crate::program::Program;

/// The statements that compute the program's steps, each on a line behind `indent`.
pub fn statements(program: &Program, indent: &str) -> String {
    let line = |(k, instr): (usize, &Instr)| {
        format!("{indent}const {} v{k} = {};\n", compute_type(instr.dtype), expression(instr))
    };
    program.steps.iter().enumerate().map(line).collect()
}

/// An operand, as it is read in a statement: `x0`, `v3` or a literal.
pub fn operand(arg: Arg) -> String {
    match arg {
        Arg::Input(k) => format!("x{k}"),
        Arg::Step(k) => format!("v{k}"),
        Arg::Imm(scalar) => literal(scalar),
    }
}

/// Whether a kernel reads and writes elements of each of the program's operands and results one by one. Its steps may
/// convert to any type.
///
/// # Errors
/// In words, the type that it does not.
pub fn check(program: &Program) -> Result<(), String> {
    let outputs = program.outputs.iter().map(|arg| program.dtype_of(*arg));
    program.inputs.iter().copied().chain(outputs).try_for_each(check_type)
}

/// Whether kernels other than pointwise ones read, write and compute with elements of a type.
///
/// # Errors
/// In words, that they do not.
pub fn check_type(dtype: DType) -> Result<(), String> {
    if dtype.is_storage() {
        return Err(format!("{dtype} is a storage type, which kernels do not compute with"));
    }
    Ok(())
}

/// A dtype as a template argument, such as `f16` or `float`; `bool` is `bool`.
pub fn type_name(dtype: DType) -> &'static str {
    match dtype {
        DType::F64 => "double",
        DType::F32 => "float",
        DType::F16
        | DType::BF16
        | DType::I64
        | DType::I32
        | DType::I16
        | DType::I8
        | DType::U64
        | DType::U32
        | DType::U16
        | DType::U8
        | DType::Bool
        | DType::F8E4M3FN
        | DType::F8E4M3FNUZ
        | DType::F8E5M2
        | DType::F8E5M2FNUZ
        | DType::F8E8M0
        | DType::F4E2M1
        | DType::I4
        | DType::U4
        | DType::I2
        | DType::U2 => dtype.name(),
    }
}

/// The C++ type of a dtype's elements in memory; `bool` is stored as `u8`. The type has passed [`check_type`].
pub fn memory_type(dtype: DType) -> &'static str {
    if dtype == DType::Bool { "u8" } else { type_name(dtype) }
}

/// The C++ type that a dtype's values are computed in.
pub fn compute_type(dtype: DType) -> &'static str {
    match dtype {
        DType::F64
        | DType::I64
        | DType::I32
        | DType::I16
        | DType::I8
        | DType::U64
        | DType::U32
        | DType::U16
        | DType::U8
        | DType::Bool => type_name(dtype),
        DType::F32
        | DType::F16
        | DType::BF16
        | DType::F8E4M3FN
        | DType::F8E4M3FNUZ
        | DType::F8E5M2
        | DType::F8E5M2FNUZ
        | DType::F8E8M0
        | DType::F4E2M1 => "float",
        DType::I4 | DType::I2 => "i8",
        DType::U4 | DType::U2 => "u8",
    }
}

fn expression(instr: &Instr) -> String {
    let operands: Vec<String> = instr.operands().iter().map(|&arg| operand(arg)).collect();
    let operands = operands.join(", ");
    match instr.op {
        ScalarOp::Identity => operands,
        ScalarOp::Cast => format!("math::cast<{}>({operands})", type_name(instr.dtype)),
        op => format!("math::{}({operands})", function(op)),
    }
}

/// The name of a step in `math.cuh`.
pub fn function(op: ScalarOp) -> &'static str {
    match op {
        ScalarOp::Identity => "identity",
        ScalarOp::Neg => "neg",
        ScalarOp::Abs => "abs",
        ScalarOp::Sign => "sign",
        ScalarOp::Floor => "floor",
        ScalarOp::Ceil => "ceil",
        ScalarOp::Round => "round",
        ScalarOp::Sqrt => "sqrt",
        ScalarOp::Rsqrt => "rsqrt",
        ScalarOp::Reciprocal => "reciprocal",
        ScalarOp::Exp => "exp",
        ScalarOp::Log => "log",
        ScalarOp::Sin => "sin",
        ScalarOp::Cos => "cos",
        ScalarOp::Tan => "tan",
        ScalarOp::Asin => "asin",
        ScalarOp::Acos => "acos",
        ScalarOp::Atan => "atan",
        ScalarOp::Sinh => "sinh",
        ScalarOp::Cosh => "cosh",
        ScalarOp::Tanh => "tanh",
        ScalarOp::Asinh => "asinh",
        ScalarOp::Acosh => "acosh",
        ScalarOp::Atanh => "atanh",
        ScalarOp::Erf => "erf",
        ScalarOp::Sigmoid => "sigmoid",
        ScalarOp::Softplus => "softplus",
        ScalarOp::Not => "not_",
        ScalarOp::BitNot => "bit_not",
        ScalarOp::IsNan => "isnan",
        ScalarOp::IsPosInf => "isposinf",
        ScalarOp::IsNegInf => "isneginf",
        ScalarOp::Cast => "cast",
        ScalarOp::Add => "add",
        ScalarOp::Sub => "sub",
        ScalarOp::Mul => "mul",
        ScalarOp::Div => "div",
        ScalarOp::Mod => "mod",
        ScalarOp::Fmod => "fmod",
        ScalarOp::Pow => "pow",
        ScalarOp::Min => "min",
        ScalarOp::Max => "max",
        ScalarOp::BitAnd => "bit_and",
        ScalarOp::BitOr => "bit_or",
        ScalarOp::BitXor => "bit_xor",
        ScalarOp::ShiftLeft => "shift_left",
        ScalarOp::ShiftRight => "shift_right",
        ScalarOp::And => "and_",
        ScalarOp::Or => "or_",
        ScalarOp::Xor => "xor_",
        ScalarOp::Equal => "equal",
        ScalarOp::NotEqual => "not_equal",
        ScalarOp::Less => "less",
        ScalarOp::LessEqual => "less_equal",
        ScalarOp::Greater => "greater",
        ScalarOp::GreaterEqual => "greater_equal",
        ScalarOp::Select => "select",
    }
}

/// A constant as a C++ expression of its dtype's compute type.
fn literal(scalar: Scalar) -> String {
    let compute = compute_type(scalar.dtype);
    let value = scalar.as_i64();
    match scalar.dtype {
        DType::Bool => if value != 0 { "true" } else { "false" }.to_owned(),
        // The lowest value has no literal: the sign is an operator, and the magnitude is out of range.
        DType::I64 if value == i64::MIN => format!("({}ll - 1)", i64::MIN + 1),
        DType::I64 => format!("{value}ll"),
        DType::U64 => format!("{}ull", value as u64),
        DType::I32 if value == i64::from(i32::MIN) => format!("({} - 1)", i32::MIN + 1),
        DType::I32 => value.to_string(),
        DType::U32 => format!("{}u", value as u32),
        DType::I16 | DType::I8 | DType::U16 | DType::U8 | DType::I4 | DType::U4 | DType::I2 | DType::U2 => {
            format!("{compute}({value})")
        }
        DType::F64
        | DType::F32
        | DType::F16
        | DType::BF16
        | DType::F8E4M3FN
        | DType::F8E4M3FNUZ
        | DType::F8E5M2
        | DType::F8E5M2FNUZ
        | DType::F8E8M0
        | DType::F4E2M1 => float_literal(scalar.as_f64(), compute),
    }
}

/// The shortest decimal that reads back equal, with a point or an exponent.
fn float_literal(value: f64, compute: &str) -> String {
    if value.is_nan() {
        format!("math::nan<{compute}>()")
    } else if value.is_infinite() {
        let sign = if value < 0.0 { "-" } else { "" };
        format!("{sign}math::infinity<{compute}>()")
    } else if compute == "double" {
        format!("{value:?}")
    } else {
        format!("{:?}f", value as f32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_read_inputs_steps_and_literals() {
        let program = Program {
            inputs: vec![DType::F16, DType::Bool],
            steps: vec![
                Instr::binary(ScalarOp::Max, DType::F16, Arg::Input(0), Arg::Imm(Scalar::float(DType::F16, 0.0))),
                Instr::unary(ScalarOp::Cast, DType::F16, Arg::Step(0)),
                Instr::ternary(ScalarOp::Select, DType::F16, Arg::Input(1), Arg::Step(1), Arg::Input(0)),
                Instr::unary(ScalarOp::IsNan, DType::Bool, Arg::Step(2)),
            ],
            outputs: vec![Arg::Step(2)],
        };
        assert_eq!(
            statements(&program, "  "),
            "  const float v0 = math::max(x0, 0.0f);\n  const float v1 = math::cast<f16>(v0);\n  \
             const float v2 = math::select(x1, v1, x0);\n  const bool v3 = math::isnan(v2);\n"
        );
        assert_eq!(check(&program), Ok(()));
    }

    #[test]
    fn literals_read_back() {
        let float = |dtype, value| literal(Scalar::float(dtype, value));
        assert_eq!(float(DType::F32, f64::from(0.1f32)), "0.1f");
        assert_eq!(float(DType::F32, f64::from(1e-5f32)), "1e-5f");
        assert_eq!(float(DType::F64, 1e300), "1e300");
        assert_eq!(float(DType::F16, -2.0), "-2.0f");
        assert_eq!(float(DType::F32, -0.0), "-0.0f");
        assert_eq!(float(DType::F32, f64::NEG_INFINITY), "-math::infinity<float>()");
        assert_eq!(float(DType::F64, f64::NAN), "math::nan<double>()");
        let int = |dtype, value| literal(Scalar::int(dtype, value));
        assert_eq!(int(DType::I64, i64::MIN), "(-9223372036854775807ll - 1)");
        assert_eq!(int(DType::I32, i64::from(i32::MIN)), "(-2147483647 - 1)");
        assert_eq!(int(DType::U64, -1), "18446744073709551615ull");
        assert_eq!(int(DType::I8, -3), "i8(-3)");
        assert_eq!(int(DType::Bool, 1), "true");
    }

    #[test]
    fn storage_types_pass_within_a_program() {
        let program = Program::identity(DType::I4);
        assert_eq!(check(&program), Err("i4 is a storage type, which kernels do not compute with".to_owned()));
        let program = Program {
            inputs: vec![DType::F16],
            steps: vec![
                Instr::unary(ScalarOp::Cast, DType::U2, Arg::Input(0)),
                Instr::unary(ScalarOp::Cast, DType::F8E5M2, Arg::Step(0)),
                Instr::unary(ScalarOp::Cast, DType::F16, Arg::Step(1)),
            ],
            outputs: vec![Arg::Step(2)],
        };
        assert_eq!(check(&program), Ok(()));
        assert_eq!(
            statements(&program, ""),
            "const u8 v0 = math::cast<u2>(x0);\nconst float v1 = math::cast<f8e5m2>(v0);\n\
             const float v2 = math::cast<f16>(v1);\n"
        );
    }
}
