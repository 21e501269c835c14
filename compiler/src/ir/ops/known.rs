//! What is known of a small integer result while compiling: shape arithmetic, carried out on formulas.
//!
//! Models compute shapes with ordinary operations (Shape, Gather, Mul, Concat, Reshape). [`known`] follows them
//! element by element, so that the importer sees formulas over the symbols where it needs a shape. `None` means that
//! the value is not known, never that something is wrong.
//!
//! Floats are followed where they are whole numbers that their type holds exactly, through sums, differences and
//! products alone: exporters count in floats.

use lapidary_runtime::DType;
use lapidary_runtime::op::{Arg, Instr, Reduce, ReduceKind, ScalarOp};

use super::Op;
use super::size::parts;
use crate::ir::{Expr, Known, Program, Type};

/// The largest number of elements that is followed.
const MAX_ELEMENTS: usize = 256;

/// How large an element's formula may be; more are no shape, and could double with every operation.
const MAX_PARTS: usize = 256;

/// The bounds of a formula.
type Bounds<'a> = &'a dyn Fn(&Expr) -> (i64, i64);

/// The elements of the first result of `op`, of type `result`, in row-major order, where they follow from those of the
/// operands. `inputs` holds what is known of each operand. Formulas are followed through rank 0 and 1, constants
/// through any rank: exporters turn paddings around as a matrix.
pub fn known(op: &Op, inputs: &[Option<Known>], result: &Type, range: Bounds<'_>) -> Option<Known> {
    if !is_tracked(result.dtype) {
        return None;
    }
    let dims: Vec<usize> =
        result.const_dims()?.into_iter().map(|dim| usize::try_from(dim).ok()).collect::<Option<_>>()?;
    let count = dims.iter().try_fold(1usize, |count, &dim| count.checked_mul(dim))?;
    if count > MAX_ELEMENTS {
        return None;
    }
    if result.dtype.is_float() && !keeps_whole(op) {
        return None;
    }
    let elements = elements(op, inputs, &dims, range)?;
    let is_shape = |element: &Expr| dims.len() <= 1 || element.as_const().is_some();
    let fits = |element: &Expr| is_shape(element) && holds(result.dtype, element, range);
    (elements.len() == count && elements.iter().all(fits)).then_some(Known(elements))
}

fn is_tracked(dtype: DType) -> bool {
    matches!(dtype, DType::I64 | DType::I32 | DType::Bool | DType::F32 | DType::F64)
}

/// Whether float elements go through the operation as they are, or by a program, which looks at each step.
fn keeps_whole(op: &Op) -> bool {
    matches!(
        op,
        Op::Pointwise(_) | Op::Reshape(_) | Op::Transpose(_) | Op::Expand(_) | Op::Slice { .. } | Op::Concat { .. }
    )
}

fn elements(op: &Op, inputs: &[Option<Known>], dims: &[usize], range: Bounds<'_>) -> Option<Vec<Expr>> {
    let count = dims.iter().product();
    let operand = |k: usize| inputs.get(k).and_then(Option::as_ref).map(|known| known.0.as_slice());
    match op {
        Op::Pointwise(program) => pointwise(program, inputs, count, range),
        Op::Reshape(_) => operand(0).map(<[Expr]>::to_vec),
        Op::Transpose(spec) => transpose(operand(0)?, &spec.perm[..usize::from(spec.rank)], dims),
        Op::Expand(_) => (0..count).map(|i| broadcast_element(operand(0)?, i)).collect(),
        Op::Slice { starts, steps, .. } => slice(operand(0)?, starts, steps, dims),
        Op::Concat { axis: 0 } => {
            let parts: Option<Vec<&[Expr]>> = (0..inputs.len()).map(operand).collect();
            Some(parts?.concat())
        }
        Op::Gather { axis: 0 } => gather(operand(0)?, operand(1)?, count),
        Op::GatherElements { axis: 0 } if dims.len() == 1 => gather(operand(0)?, operand(1)?, count),
        Op::Range { .. } => {
            let (start, delta) = (operand(0)?.first()?, operand(1)?.first()?);
            Some((0..count).map(|i| start.clone() + delta.clone() * Expr::from(i)).collect())
        }
        Op::Extents { values, .. } => Some(values.clone()),
        Op::Reduce(spec) if dims.len() <= 1 => reduce(spec, operand(0)?, range),
        Op::MatMul(..)
        | Op::Reduce(_)
        | Op::Conv(..)
        | Op::ConvTranspose(..)
        | Op::Pool(..)
        | Op::ArgReduce(_)
        | Op::Softmax(_)
        | Op::Attention(_)
        | Op::Norm(..)
        | Op::GroupNorm(..)
        | Op::BitCast(_)
        | Op::Concat { .. }
        | Op::Pad { .. }
        | Op::Gather { .. }
        | Op::GatherElements { .. }
        | Op::GatherNd { .. }
        | Op::ScatterElements { .. }
        | Op::ScatterNd { .. }
        | Op::Resize(..)
        | Op::RegionPool(_)
        | Op::Recurrent(_)
        | Op::Suppress
        | Op::CumSum { .. }
        | Op::TopK { .. }
        | Op::RunCount
        | Op::If { .. }
        | Op::Loop { .. } => None,
    }
}

/// Element `i` of the result's shape, where a scalar repeats. An operand of as many elements as the result has its
/// order; any other reaches its end too early.
fn broadcast_element(elements: &[Expr], i: usize) -> Option<Expr> {
    if elements.len() == 1 { elements.first().cloned() } else { elements.get(i).cloned() }
}

fn transpose(x: &[Expr], perm: &[u8], dims: &[usize]) -> Option<Vec<Expr>> {
    let mut source = vec![0; dims.len()];
    for (&axis, &dim) in perm.iter().zip(dims) {
        *source.get_mut(usize::from(axis))? = dim;
    }
    let strides = strides(&source);
    let at = |position: &[usize]| {
        let offsets = position.iter().zip(perm).map(|(&at, &axis)| Some(at * strides.get(usize::from(axis))?));
        x.get(offsets.sum::<Option<usize>>()?).cloned()
    };
    positions(dims).iter().map(|position| at(position)).collect()
}

fn slice(x: &[Expr], starts: &[Expr], steps: &[i64], dims: &[usize]) -> Option<Vec<Expr>> {
    if dims.contains(&0) {
        return Some(Vec::new());
    }
    let starts: Vec<i64> = starts.iter().map(Expr::as_const).collect::<Option<_>>()?;
    let index = |axis: usize, at: usize| {
        let moved = steps.get(axis)?.checked_mul(i64::try_from(at).ok()?)?;
        usize::try_from(starts.get(axis)?.checked_add(moved)?).ok()
    };
    // The extents of the operand are not given. They are at least what the slice reaches, so where that makes up all
    // its elements, they are that.
    let reach = |axis: usize| index(axis, 0)?.max(index(axis, dims[axis] - 1)?).checked_add(1);
    let source: Vec<usize> = match dims.len() {
        0 | 1 => vec![x.len(); dims.len()],
        rank => (0..rank).map(reach).collect::<Option<_>>()?,
    };
    let reached = source.iter().try_fold(1usize, |count, &dim| count.checked_mul(dim))?;
    if reached != x.len() {
        return None;
    }
    let strides = strides(&source);
    let at = |position: &[usize]| {
        let offsets = position.iter().enumerate().map(|(axis, &at)| Some(index(axis, at)? * strides[axis]));
        x.get(offsets.sum::<Option<usize>>()?).cloned()
    };
    positions(dims).iter().map(|position| at(position)).collect()
}

/// Along axis 0: each index takes a row.
fn gather(data: &[Expr], indices: &[Expr], count: usize) -> Option<Vec<Expr>> {
    let row = count.checked_div(indices.len())?;
    let rows = i64::try_from(data.len().checked_div(row)?).ok()?;
    let at = |index: &Expr| {
        let index = index.as_const()?;
        let first = usize::try_from(if index < 0 { index + rows } else { index }).ok()?.checked_mul(row)?;
        data.get(first..first.checked_add(row)?)
    };
    indices.iter().map(at).collect::<Option<Vec<_>>>().map(|rows| rows.concat())
}

fn strides(dims: &[usize]) -> Vec<usize> {
    (0..dims.len()).map(|axis| dims[axis + 1..].iter().product()).collect()
}

/// Every position of a tensor, in row-major order.
fn positions(dims: &[usize]) -> Vec<Vec<usize>> {
    let strides = strides(dims);
    let count = dims.iter().product();
    (0..count).map(|i: usize| strides.iter().zip(dims).map(|(stride, dim)| i / stride % dim).collect()).collect()
}

fn reduce(spec: &Reduce, x: &[Expr], range: Bounds<'_>) -> Option<Vec<Expr>> {
    if !spec.axes.contains(0) {
        // Of one element each: what is no identity then is not followed.
        return match spec.kind {
            ReduceKind::Sum | ReduceKind::Mean | ReduceKind::Max | ReduceKind::Min | ReduceKind::Prod => {
                Some(x.to_vec())
            }
            ReduceKind::L1 | ReduceKind::L2 | ReduceKind::SumSquare | ReduceKind::LogSum | ReduceKind::LogSumExp => {
                None
            }
        };
    }
    let fold = |start: Option<Expr>, step: &dyn Fn(Expr, &Expr) -> Expr| {
        let (first, rest) = match start {
            Some(start) => (start, x),
            None => (x.first()?.clone(), &x[1..]),
        };
        let step = |all: Expr, element: &Expr| Some(step(all, element)).filter(|all| parts(all) <= MAX_PARTS);
        rest.iter().try_fold(first, step).map(|all| vec![all])
    };
    match spec.kind {
        ReduceKind::Sum => fold(Some(Expr::constant(0)), &|a, b| a + b.clone()),
        ReduceKind::Prod => fold(Some(Expr::constant(1)), &|a, b| a * b.clone()),
        ReduceKind::Max => fold(None, &|a, b| larger(&a, b, range)),
        ReduceKind::Min => fold(None, &|a, b| smaller(&a, b, range)),
        ReduceKind::Mean
        | ReduceKind::L1
        | ReduceKind::L2
        | ReduceKind::SumSquare
        | ReduceKind::LogSum
        | ReduceKind::LogSumExp => None,
    }
}

fn pointwise(program: &Program, inputs: &[Option<Known>], count: usize, range: Bounds<'_>) -> Option<Vec<Expr>> {
    let output = *program.outputs.first()?;
    let element = |i: usize| {
        let mut steps: Vec<Option<Expr>> = Vec::with_capacity(program.steps.len());
        for instr in &program.steps {
            let args = instr.args.map(|arg| argument(arg, inputs, &steps, i));
            let of = instr.args.map(|arg| program.dtype_of(arg));
            steps.push(step(instr, &args, &of, range).filter(|value| holds(instr.dtype, value, range)));
        }
        argument(output, inputs, &steps, i)
    };
    (0..count).map(element).collect()
}

fn argument(arg: Arg, inputs: &[Option<Known>], steps: &[Option<Expr>], i: usize) -> Option<Expr> {
    match arg {
        Arg::Input(k) => broadcast_element(&inputs.get(usize::from(k))?.as_ref()?.0, i),
        Arg::Step(k) => steps.get(usize::from(k))?.clone(),
        Arg::Imm(scalar) if scalar.dtype.is_float() => {
            let (value, (_, most)) = (scalar.as_f64(), bounds(scalar.dtype)?);
            (value.fract() == 0.0 && value.abs() <= most as f64).then(|| Expr::constant(value as i64))
        }
        Arg::Imm(scalar) => Some(Expr::constant(scalar.as_i64())),
    }
}

/// Whether the type holds the value for every shape, so that no wrapping is lost, and the formula is of a size to
/// work with. A formula of 64 bits is taken to fit.
fn holds(dtype: DType, value: &Expr, range: Bounds<'_>) -> bool {
    match bounds(dtype).filter(|_| parts(value) <= MAX_PARTS) {
        Some((low, high)) => {
            let (least, most) = range(value);
            least >= low && most <= high
        }
        None => false,
    }
}

/// The values of a type that are followed; `u64` does not fit in `i64`.
fn bounds(dtype: DType) -> Option<(i64, i64)> {
    match dtype {
        DType::I64 => Some((i64::MIN, i64::MAX)),
        DType::I32 => Some((i64::from(i32::MIN), i64::from(i32::MAX))),
        DType::I16 => Some((i64::from(i16::MIN), i64::from(i16::MAX))),
        DType::I8 => Some((i64::from(i8::MIN), i64::from(i8::MAX))),
        DType::U32 => Some((0, i64::from(u32::MAX))),
        DType::U16 => Some((0, i64::from(u16::MAX))),
        DType::U8 => Some((0, i64::from(u8::MAX))),
        DType::Bool => Some((0, 1)),
        // The whole numbers up to which each is told from the next.
        DType::F64 => Some((-(1 << 53), 1 << 53)),
        DType::F32 => Some((-(1 << 24), 1 << 24)),
        DType::F16
        | DType::BF16
        | DType::U64
        | DType::F8E4M3FN
        | DType::F8E4M3FNUZ
        | DType::F8E5M2
        | DType::F8E5M2FNUZ
        | DType::F8E8M0
        | DType::F4E2M1
        | DType::I4
        | DType::U4
        | DType::I2
        | DType::U2 => None,
    }
}

/// One step on formulas; `bool` values are 0 and 1. The caller drops what the step's type does not hold.
fn step(instr: &Instr, args: &[Option<Expr>; 3], of: &[DType; 3], range: Bounds<'_>) -> Option<Expr> {
    use ScalarOp::*;
    if instr.op == Select {
        return select(args);
    }
    if instr.op == Cast {
        return cast(instr, args[0].as_ref(), of[0], range);
    }
    bounds(of[0])?;
    if of[0].is_float() && !is_exact(instr.op) {
        return None;
    }
    let a = args[0].as_ref()?;
    let b = args[1].as_ref();
    let compare = |decide: fn(i64, i64) -> Option<bool>| {
        let (low, high) = difference(a, b?, range);
        decide(low, high).map(truth)
    };
    match instr.op {
        Identity => Some(a.clone()),
        Neg => arithmetic(a, &Expr::constant(-1), i64::checked_mul, |a, b| a * b),
        Abs => Some(larger(a, &-a.clone(), range)),
        Sign => sign(range(a)).map(Expr::constant),
        Add => arithmetic(a, b?, i64::checked_add, |a, b| a + b),
        Sub => arithmetic(a, b?, i64::checked_sub, |a, b| a - b),
        Mul => arithmetic(a, b?, i64::checked_mul, |a, b| a * b),
        Div => divide(a, b?, range),
        Mod => modulo(a, b?, range),
        Fmod => remainder(a, b?, range),
        Pow => power(a, b?.as_const()?),
        Min => Some(smaller(a, b?, range)),
        Max => Some(larger(a, b?, range)),
        BitNot => a.as_const().map(|a| Expr::constant(!a)),
        BitAnd => Some(Expr::constant(a.as_const()? & b?.as_const()?)),
        BitOr => Some(Expr::constant(a.as_const()? | b?.as_const()?)),
        BitXor | Xor => Some(Expr::constant(a.as_const()? ^ b?.as_const()?)),
        Not => a.as_const().map(|a| Expr::constant(1 - a)),
        And => Some(Expr::constant(a.as_const()? & b?.as_const()?)),
        Or => Some(Expr::constant(a.as_const()? | b?.as_const()?)),
        Equal => compare(equality),
        NotEqual => compare(|low, high| equality(low, high).map(|equal| !equal)),
        Less => compare(|low, high| below(low, high, 0)),
        LessEqual => compare(|low, high| below(low, high, 1)),
        Greater => compare(|low, high| below(low, high, 1).map(|below| !below)),
        GreaterEqual => compare(|low, high| below(low, high, 0).map(|below| !below)),
        // Not used on shapes.
        ShiftLeft | ShiftRight => None,
        // Float functions.
        Floor | Ceil | Round | Sqrt | Rsqrt | Reciprocal | Exp | Log | Sin | Cos | Tan | Asin | Acos | Atan | Sinh
        | Cosh | Tanh | Asinh | Acosh | Atanh | Erf | Sigmoid | Softplus | IsNan | IsPosInf | IsNegInf => None,
        // Handled above.
        Select | Cast => None,
    }
}

/// Whether a float step on whole numbers gives a whole number, and without rounding where its type holds it.
fn is_exact(op: ScalarOp) -> bool {
    use ScalarOp::*;
    matches!(
        op,
        Identity | Neg | Add | Sub | Mul | Min | Max | Equal | NotEqual | Less | LessEqual | Greater | GreaterEqual
    )
}

/// Formulas saturate where the operation wraps, so constants that overflow are not followed.
fn arithmetic(
    a: &Expr,
    b: &Expr,
    checked: fn(i64, i64) -> Option<i64>,
    formula: fn(Expr, Expr) -> Expr,
) -> Option<Expr> {
    match (a.as_const(), b.as_const()) {
        (Some(a), Some(b)) => checked(a, b).map(Expr::constant),
        (_, _) => Some(formula(a.clone(), b.clone())),
    }
}

fn truth(value: bool) -> Expr {
    Expr::constant(i64::from(value))
}

fn select(args: &[Option<Expr>; 3]) -> Option<Expr> {
    match args[0].as_ref().and_then(Expr::as_const) {
        Some(0) => args[2].clone(),
        Some(_) => args[1].clone(),
        None if args[1] == args[2] => args[1].clone(),
        None => None,
    }
}

/// Between integers, and from constants: wraps. To `bool`: whether it is not 0. Float constants saturate; whole numbers
/// stay what they are, where the type holds them.
fn cast(instr: &Instr, value: Option<&Expr>, from: DType, range: Bounds<'_>) -> Option<Expr> {
    let (low, high) = bounds(instr.dtype)?;
    if let (true, Arg::Imm(scalar)) = (from.is_float(), instr.args[0]) {
        let value = scalar.as_f64();
        if instr.dtype.is_float() {
            return (value.fract() == 0.0 && value.abs() <= high as f64).then(|| Expr::constant(value as i64));
        }
        // `as` truncates toward zero, saturates, and makes NaN 0, as the step does.
        return Some(if instr.dtype == DType::Bool {
            truth(value != 0.0)
        } else {
            Expr::constant((value as i64).clamp(low, high))
        });
    }
    let value = value?;
    if instr.dtype == DType::Bool {
        let (least, most) = range(value);
        return if least > 0 || most < 0 { Some(truth(true)) } else { value.as_const().map(|v| truth(v != 0)) };
    }
    match value.as_const() {
        Some(value) if instr.dtype.is_float() || from.is_float() => Some(Expr::constant(value)),
        Some(value) => Some(Expr::constant(wrap(instr.dtype, value))),
        None => Some(value.clone()),
    }
}

/// The low bits of `value`, as the type reads them.
fn wrap(dtype: DType, value: i64) -> i64 {
    let unused = 64 - dtype.bits().min(64) as u32;
    let high = value << unused;
    if dtype.is_signed_int() { high >> unused } else { ((high as u64) >> unused) as i64 }
}

/// The bounds of `a - b`; terms that both have cancel.
fn difference(a: &Expr, b: &Expr, range: Bounds<'_>) -> (i64, i64) {
    range(&(a.clone() - b.clone()))
}

fn equality(low: i64, high: i64) -> Option<bool> {
    match (low, high) {
        (0, 0) => Some(true),
        (low, high) if low > 0 || high < 0 => Some(false),
        (_, _) => None,
    }
}

/// Whether a value within the bounds is below `limit`, where all of them or none are.
fn below(low: i64, high: i64, limit: i64) -> Option<bool> {
    if high < limit {
        Some(true)
    } else if low >= limit {
        Some(false)
    } else {
        None
    }
}

fn sign((low, high): (i64, i64)) -> Option<i64> {
    match (low, high) {
        (0, 0) => Some(0),
        (low, _) if low > 0 => Some(1),
        (_, high) if high < 0 => Some(-1),
        (_, _) => None,
    }
}

fn smaller(a: &Expr, b: &Expr, range: Bounds<'_>) -> Expr {
    let (low, high) = difference(a, b, range);
    if high <= 0 {
        a.clone()
    } else if low >= 0 {
        b.clone()
    } else {
        a.smaller(b)
    }
}

fn larger(a: &Expr, b: &Expr, range: Bounds<'_>) -> Expr {
    let (low, high) = difference(a, b, range);
    if low >= 0 {
        a.clone()
    } else if high <= 0 {
        b.clone()
    } else {
        a.larger(b)
    }
}

/// Truncated division.
fn divide(a: &Expr, b: &Expr, range: Bounds<'_>) -> Option<Expr> {
    if let (Some(a), Some(b)) = (a.as_const(), b.as_const()) {
        return Some(Expr::constant(if b == 0 { 0 } else { a.wrapping_div(b) }));
    }
    let (low, high) = range(b);
    if low <= 0 && high >= 0 {
        return None;
    }
    if let Some(exact) = a.exact_div(b) {
        return Some(exact);
    }
    // Rounding down is truncation where nothing is negative.
    (range(a).0 >= 0 && low > 0).then(|| a.floor_div(b))
}

/// `a - b floor(a / b)`, which has the sign of the divisor.
fn modulo(a: &Expr, b: &Expr, range: Bounds<'_>) -> Option<Expr> {
    let (low, high) = range(b);
    if low <= 0 && high >= 0 {
        return None;
    }
    let (least, most) = range(a);
    if least >= 0 && most < low {
        return Some(a.clone());
    }
    Some(a.clone() - b.clone() * a.floor_div(b))
}

/// The remainder with the sign of the dividend.
fn remainder(a: &Expr, b: &Expr, range: Bounds<'_>) -> Option<Expr> {
    match (a.as_const(), b.as_const()) {
        (Some(a), Some(b)) if b != 0 => Some(Expr::constant(a.wrapping_rem(b))),
        (_, _) if range(a).0 >= 0 && range(b).0 > 0 => modulo(a, b, range),
        (_, _) => None,
    }
}

fn power(base: &Expr, exponent: i64) -> Option<Expr> {
    if let Some(base) = base.as_const() {
        return base.checked_pow(u32::try_from(exponent).ok()?).map(Expr::constant);
    }
    // Shape arithmetic squares and cubes; a larger power of a formula is not an extent.
    (0..=4).contains(&exponent).then(|| (0..exponent).fold(Expr::constant(1), |power, _| power * base.clone()))
}

#[cfg(test)]
mod tests;
