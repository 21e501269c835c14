//! What zero points add to sums of products of bytes, and the steps from such sums to numbers.
//!
//! `sum (a - za) (b - zb) = sum a b - za sum b - zb sum a + k za zb`, all in wrapping `i32`, so that the right side is exact
//! where the left side fits. Sums of weights run once at load; those of activations are products with ones. Padding of a
//! convolution has become elements before, so that each window has all of its elements.

use lapidary_runtime::DType;
use lapidary_runtime::op::{Arg, MatMul, Math, Scalar, ScalarOp};
use lapidary_templates::Program;

use super::product::Scale;
use crate::ir::builder::{ProgramWriter, scalar_bytes};
use crate::ir::{Constant, Expr, Op, Patch, Ref, Type};
use crate::passes::why::Why;

/// What the products of a sum run along.
#[derive(Clone, Copy)]
pub enum Along {
    Matrices(MatMul),
    Windows,
}

/// The bytes of a product.
pub struct Operands<'a> {
    pub a: (Ref, &'a Type),
    /// With whether they follow from constants.
    pub b: (Ref, &'a Type, bool),
    pub zeros: [Option<i64>; 2],
    /// Terms of a sum.
    pub terms: &'a Expr,
}

/// What is taken off the sums of a product.
pub struct Corrections {
    parts: Vec<Part>,
    /// Added at the end.
    constant: i64,
}

/// Sums in `i32` that broadcast to the product's, times a zero point; none where they have been multiplied.
struct Part {
    sums: Ref,
    zero: Option<i64>,
}

impl Operands<'_> {
    /// The corrections for the zero points that there are.
    pub fn corrections(&self, patch: &mut Patch, along: Along) -> Result<Corrections, Why> {
        let [a_zero, b_zero] = self.zeros;
        let mut found = Corrections { parts: Vec::new(), constant: 0 };
        if let (Some(a), Some(b)) = (a_zero, b_zero) {
            found.constant = self.terms.as_const().ok_or(Why::OpenSums)?.wrapping_mul(a * b);
        }
        if let Some(zero) = a_zero {
            let sums = self.of_b(patch, along);
            found.parts.push(if self.b.2 {
                let constant = std::mem::take(&mut found.constant);
                Part { sums: patch.node(Op::Pointwise(multiple(zero, constant)), [sums]), zero: None }
            } else {
                Part { sums, zero: Some(zero) }
            });
        }
        if let Some(zero) = b_zero {
            let Along::Matrices(spec) = along else { return Err(Why::ZeroOfWeights) };
            let ones = self.ones(patch, vec![self.terms.clone(), Expr::constant(1)]);
            let spec = MatMul { transpose_b: false, math: Math::Exact, ..spec };
            let sums = patch.node(Op::MatMul(spec, None), [self.a.0, ones]);
            found.parts.push(Part { sums, zero: Some(zero) });
        }
        Ok(found)
    }

    /// The sums of `b` for each channel.
    fn of_b(&self, patch: &mut Patch, along: Along) -> Ref {
        let one = Expr::constant(1);
        match along {
            Along::Matrices(spec) => {
                let ones = self.ones(patch, vec![one, self.terms.clone()]);
                let spec = MatMul { transpose_a: false, math: Math::Exact, ..spec };
                patch.node(Op::MatMul(spec, None), [ones, self.b.0])
            }
            Along::Windows => {
                let maps = self.b.1.dims[0].clone();
                let rows = patch.node(Op::Reshape(vec![maps.clone(), self.terms.clone()]), [self.b.0]);
                let ones = self.ones(patch, vec![self.terms.clone(), one.clone()]);
                let spec = MatMul { transpose_a: false, transpose_b: false, math: Math::Exact };
                let sums = patch.node(Op::MatMul(spec, None), [rows, ones]);
                let mut channels = vec![one; self.a.1.dims.len() - 1];
                channels[0] = maps;
                patch.node(Op::Reshape(channels), [sums])
            }
        }
    }

    fn ones(&self, patch: &mut Patch, dims: Vec<Expr>) -> Ref {
        let one = byte(patch, DType::U8, 1);
        patch.node(Op::Expand(dims), [one])
    }
}

/// `x * zero - constant`
fn multiple(zero: i64, constant: i64) -> Program {
    let mut p = ProgramWriter::new(vec![DType::I32]);
    let x = Arg::Input(0);
    let mut y = p.push(ScalarOp::Mul, &[x, whole(zero)]);
    if constant != 0 {
        y = p.push(ScalarOp::Sub, &[y, whole(constant)]);
    }
    Program { outputs: vec![y], ..p.finish() }
}

impl Corrections {
    /// The product's sums, corrected, as numbers of type `to`.
    pub fn numbers(self, patch: &mut Patch, product: Ref, scale: Scale, to: DType) -> Ref {
        let mut operands = vec![(product, DType::I32)];
        let mut argument = |value: Ref, dtype: DType| {
            operands.push((value, dtype));
            Arg::Input(operands.len() as u16 - 1)
        };
        let parts: Vec<(Arg, Option<Arg>)> = self
            .parts
            .into_iter()
            .map(|Part { sums, zero }| {
                let sums = argument(sums, DType::I32);
                (sums, zero.map(whole))
            })
            .collect();
        let scale = match scale {
            Scale::Number(scale) => Arg::Imm(Scalar::float(DType::F32, scale)),
            Scale::Channels(scale) => argument(scale, DType::F32),
        };
        let mut p = ProgramWriter::new(operands.iter().map(|(_, dtype)| *dtype).collect());
        let mut sum = Arg::Input(0);
        for (sums, zero) in parts {
            let term = zero.map_or(sums, |zero| p.push(ScalarOp::Mul, &[sums, zero]));
            sum = p.push(ScalarOp::Sub, &[sum, term]);
        }
        if self.constant != 0 {
            sum = p.push(ScalarOp::Add, &[sum, whole(self.constant)]);
        }
        let number = p.cast(sum, DType::F32);
        let scaled = p.push(ScalarOp::Mul, &[number, scale]);
        let result = p.cast(scaled, to);
        let program = Program { outputs: vec![result], ..p.finish() };
        patch.node(Op::Pointwise(program), operands.into_iter().map(|(value, _)| value))
    }
}

/// An `i32`, wrapped like the sums that it is added to.
fn whole(number: i64) -> Arg {
    Arg::Imm(Scalar::int(DType::I32, i64::from(number as i32)))
}

/// A constant of one byte.
pub fn byte(patch: &mut Patch, dtype: DType, number: i64) -> Ref {
    let bytes = scalar_bytes(Scalar::int(dtype, number));
    patch.constant(Type { dtype, dims: Vec::new() }, Constant { bytes: bytes.into(), initializer: None })
}
