//! Matrix products and determinants (ONNX MatMul, Gemm, Det; `com.microsoft` FusedMatMul of ONNX Runtime's
//! ContribOperators.md).
//!
//! Operands are composed into the IR's batched product; scale and bias are pointwise programs around it, which fusion
//! may take in. Products of quantized operands are in [`super::qlinear`].

use lapidary_runtime::DType;
use lapidary_runtime::op::{Arg, MatMul, Math, ScalarOp};

use super::entry::{binary, contrib, op, unary};
use super::{Cx, Fault, Imported, OpDef, one};
use crate::ir::builder::{Built, ProgramWriter};
use crate::ir::{Builder, Expr, Op, ValueId};

pub const DEFS: &[OpDef] = &[
    unary("Det", 11, determinant),
    op("Gemm", 7, (2, 3), gemm),
    binary("MatMul", 1, matmul),
    contrib("FusedMatMul", (2, 2), fused_matmul),
];

fn matmul(cx: &mut Cx<'_, '_>) -> Imported {
    let (a, b) = (cx.input(0)?, cx.input(1)?);
    one(product(&mut cx.b, a, b, plain())?)
}

/// Neither operand transposed, products in the operands' type.
fn plain() -> MatMul {
    MatMul { transpose_a: false, transpose_b: false, math: Math::Exact }
}

/// numpy's `matmul`: a vector on the left is a row, on the right a column, and its axis is not in the result.
pub(super) fn product(b: &mut Builder<'_>, left: ValueId, right: ValueId, spec: MatMul) -> Built {
    let (left_dims, right_dims) = (b.dims(left), b.dims(right));
    if left_dims.is_empty() || right_dims.is_empty() {
        return Err("a matrix product takes no scalars".to_owned());
    }
    let unit = Expr::constant(1);
    let mut spec = spec;
    let (mut row, mut column) = (left, right);
    if let [inner] = left_dims.as_slice() {
        row = b.reshape(left, vec![unit.clone(), inner.clone()])?;
        spec.transpose_a = false;
    }
    if let [inner] = right_dims.as_slice() {
        column = b.reshape(right, vec![inner.clone(), unit])?;
        spec.transpose_b = false;
    }
    let result = b.node(Op::MatMul(spec, None), &[row, column])?;
    let mut dims = b.dims(result);
    if right_dims.len() == 1 {
        dims.pop();
    }
    if left_dims.len() == 1 {
        // The row axis is the last but the columns, where there are any.
        dims.remove(dims.len() - if right_dims.len() == 1 { 1 } else { 2 });
    }
    b.reshape(result, dims)
}

/// alpha * A * B + beta * C
fn gemm(cx: &mut Cx<'_, '_>) -> Imported {
    let (a, b, c) = (cx.input(0)?, cx.input(1)?, cx.optional(2));
    let alpha = factor(cx, "alpha", a)?;
    let beta = factor(cx, "beta", a)?;
    for (name, value) in [("A", a), ("B", b)] {
        let rank = cx.b.rank(value);
        if rank != 2 {
            return Err(format!("{name} has rank {rank}, and 2 is needed").into());
        }
    }
    let spec = MatMul {
        transpose_a: cx.attrs.flag_or("transA", 0)?,
        transpose_b: cx.attrs.flag_or("transB", 0)?,
        math: Math::Exact,
    };
    let product = cx.b.node(Op::MatMul(spec, None), &[a, b])?;
    let Some(c) = c.filter(|_| beta != 0.0) else { return one(scaled(&mut cx.b, product, alpha)?) };
    one(cx.b.program(&[product, c], |p| {
        let product = scale(p, Arg::Input(0), alpha);
        let bias = scale(p, Arg::Input(1), beta);
        p.push(ScalarOp::Add, &[product, bias])
    })?)
}

/// An attribute that multiplies values of the type of `like`; 1 where it is absent.
fn factor(cx: &Cx<'_, '_>, name: &str, like: ValueId) -> Result<f64, Fault> {
    let value = f64::from(cx.attrs.float_or(name, 1.0)?);
    if cx.b.dtype(like).is_int() && value.fract() != 0.0 {
        return Err(Fault::unsupported(
            format!("{name} is {value}, and the operands are integers"),
            format!("convert the operands to floats, or make {name} an integer"),
        ));
    }
    Ok(value)
}

fn scale(p: &mut ProgramWriter, x: Arg, factor: f64) -> Arg {
    if factor == 1.0 { x } else { p.push(ScalarOp::Mul, &[x, p.imm(x, factor)]) }
}

fn scaled(b: &mut Builder<'_>, x: ValueId, factor: f64) -> Built {
    if factor == 1.0 { Ok(x) } else { b.program(&[x], |p| scale(p, Arg::Input(0), factor)) }
}

fn fused_matmul(cx: &mut Cx<'_, '_>) -> Imported {
    let (a, b) = (cx.input(0)?, cx.input(1)?);
    for name in ["transBatchA", "transBatchB"] {
        if cx.attrs.flag_or(name, 0)? {
            return Err(Fault::unsupported(
                format!("FusedMatMul with {name} is not supported"),
                "turn ONNX Runtime's graph optimizations off when saving the model",
            ));
        }
    }
    let spec = MatMul {
        transpose_a: cx.attrs.flag_or("transA", 0)?,
        transpose_b: cx.attrs.flag_or("transB", 0)?,
        math: Math::Exact,
    };
    let alpha = factor(cx, "alpha", a)?;
    let product = product(&mut cx.b, a, b, spec)?;
    one(scaled(&mut cx.b, product, alpha)?)
}

/// The largest matrix whose determinant is written out.
const MAX_DET: i64 = 4;

/// By cofactors of the first row.
fn determinant(cx: &mut Cx<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    let dims = cx.b.dims(x);
    let [batch @ .., rows, columns] = dims.as_slice() else {
        return Err(format!("the operand has rank {}, and at least 2 is needed", dims.len()).into());
    };
    cx.b.require_equal(rows, columns)?;
    let Some(size) = rows.as_const().filter(|size| (1..=MAX_DET).contains(size)) else {
        return Err(Fault::unsupported(
            format!("determinants of matrices of {rows} rows are not supported"),
            format!("keep them to {MAX_DET} rows, or compute them in the application"),
        ));
    };
    let count = batch.iter().cloned().fold(Expr::constant(1), |count, dim| count * dim);
    let flat = cx.b.reshape(x, vec![count, Expr::constant(size * size)])?;
    let mut elements = Vec::new();
    for k in 0..size * size {
        elements.push(cx.b.slice_axis(flat, 1, Expr::constant(k), Expr::constant(1))?);
    }
    let dtype = cx.b.dtype(x);
    let wide = if dtype == DType::F64 { DType::F64 } else { DType::F32 };
    let all: Vec<usize> = (0..size as usize).collect();
    let det = cx.b.program(&elements, |p| {
        let det = minor(p, size as usize, 0, &all, wide);
        p.cast(det, dtype)
    })?;
    one(cx.b.reshape(det, batch.to_vec())?)
}

/// The determinant of the rows from `row` on and the given columns.
fn minor(p: &mut ProgramWriter, size: usize, row: usize, columns: &[usize], wide: DType) -> Arg {
    let mut sum: Option<Arg> = None;
    for (k, &column) in columns.iter().enumerate() {
        let element = p.cast(Arg::Input((row * size + column) as u16), wide);
        let rest: Vec<usize> = columns.iter().copied().filter(|&other| other != column).collect();
        let term = if rest.is_empty() {
            element
        } else {
            let minor = minor(p, size, row + 1, &rest, wide);
            p.push(ScalarOp::Mul, &[element, minor])
        };
        sum = Some(match sum {
            None => term,
            Some(sum) => p.push(if k % 2 == 0 { ScalarOp::Add } else { ScalarOp::Sub }, &[sum, term]),
        });
    }
    sum.unwrap_or_else(|| p.imm(Arg::Input(0), 1.0))
}
