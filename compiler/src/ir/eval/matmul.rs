//! Matrix products (ONNX `MatMul`, `Gemm`, `MatMulInteger`), and the inner loop that convolutions share.
//!
//! Sums are formed in doubles, or in wrapping 64-bit integers, in ascending order of k.

use lapidary_runtime::DType;
use lapidary_runtime::op::{MatMul, Math};
use lapidary_templates::Program;

use super::index::{self, Walk};
use super::parallel;
use super::pointwise;
use super::tensor::{Tensor, Values};

/// A number that products are summed in.
pub(super) trait Number: Copy + Default + Send + Sync {
    /// `self + a * b`.
    fn mul_add(self, a: Self, b: Self) -> Self;
}

impl Number for f64 {
    fn mul_add(self, a: f64, b: f64) -> f64 {
        self + a * b
    }
}

impl Number for i64 {
    fn mul_add(self, a: i64, b: i64) -> i64 {
        self.wrapping_add(a.wrapping_mul(b))
    }
}

/// The type of a sum of products of elements of `dtype`, before an epilogue: 8-bit integers give `i32`.
pub(super) fn product_dtype(dtype: DType) -> DType {
    if matches!(dtype, DType::I8 | DType::U8) { DType::I32 } else { dtype }
}

/// Rounds the elements as [`Math`] asks: TF32 keeps 10 bits of mantissa, nearest with ties away from zero, as the
/// hardware's conversion does (PTX ISA, `cvt.rna.tf32.f32`).
pub(super) fn round_operand(math: Math, dtype: DType, values: Values) -> Values {
    match (math, values) {
        (Math::Tf32, Values::Float(values)) if dtype == DType::F32 => {
            let round = |v: f64| {
                let bits = (v as f32).to_bits();
                f64::from(if v.is_finite() { f32::from_bits((bits + 0x1000) & !0x1fff) } else { v as f32 })
            };
            Values::Float(values.into_iter().map(round).collect())
        }
        (Math::Tf32 | Math::Exact, values) => values,
    }
}

/// Batched matrix product. Operands a `[batch.., m, k]`, b `[batch.., k, n]` (last two axes swapped where the record
/// says so), then the epilogue's; batch axes broadcast. Result `[batch.., m, n]`.
pub(super) fn matmul(
    spec: &MatMul,
    epilogue: Option<&Program>,
    a: &Tensor,
    b: &Tensor,
    operands: &[&Tensor],
) -> Result<Vec<Tensor>, String> {
    let shape = Shape::of(spec, &a.dims, &b.dims)?;
    let left = round_operand(spec.math, a.dtype, a.decode());
    let right = round_operand(spec.math, b.dtype, b.decode());
    let values = match (left, right) {
        (Values::Float(a), Values::Float(b)) => Values::Float(shape.product(spec, &a, &b)),
        (Values::Int(a), Values::Int(b)) => Values::Int(shape.product(spec, &a, &b)),
        (Values::Float(_), Values::Int(_)) | (Values::Int(_), Values::Float(_)) => {
            return Err(format!("{} times {}", a.dtype, b.dtype));
        }
    };
    pointwise::finish(values, product_dtype(a.dtype), shape.dims, epilogue, operands)
}

struct Shape {
    m: usize,
    n: usize,
    k: usize,
    /// For each batch of the result the number of its matrix in a and in b.
    batches: Vec<(usize, usize)>,
    /// Of the result.
    dims: Vec<usize>,
}

/// Rows of the result that are one piece of work.
const ROWS: usize = 32;

impl Shape {
    fn of(spec: &MatMul, a: &[usize], b: &[usize]) -> Result<Shape, String> {
        let error = || format!("no matrix product of extents {a:?} and {b:?}");
        let ([batch_a @ .., p, q], [batch_b @ .., r, s]) = (a, b) else { return Err(error()) };
        let (m, k) = if spec.transpose_a { (*q, *p) } else { (*p, *q) };
        let (inner, n) = if spec.transpose_b { (*s, *r) } else { (*r, *s) };
        if k != inner {
            return Err(error());
        }
        let batch = index::broadcast(batch_a, batch_b)?;
        let walk = |dims| Ok::<_, String>(Walk::new(&batch, &index::broadcast_strides(dims, &batch)?, 0));
        let batches = walk(batch_a)?.zip(walk(batch_b)?).collect();
        let dims = [batch.as_slice(), &[m, n]].concat();
        index::count(&dims)?;
        Ok(Shape { m, n, k, batches, dims })
    }

    fn product<T: Number>(&self, spec: &MatMul, a: &[T], b: &[T]) -> Vec<T> {
        let (m, n, k) = (self.m, self.n, self.k);
        let a = if spec.transpose_a { transposed(a, k, m) } else { a.to_vec() };
        let b = if spec.transpose_b { transposed(b, n, k) } else { b.to_vec() };
        let blocks = m.div_ceil(ROWS);
        let work = self.batches.len() * m * n * k;
        let pieces = parallel::map(self.batches.len() * blocks, work, |piece| {
            let (of_a, of_b) = self.batches[piece / blocks];
            let first = piece % blocks * ROWS;
            let rows = ROWS.min(m - first);
            let mut out = vec![T::default(); rows * n];
            let left = Matrix { data: &a[of_a * m * k + first * k..], rows, columns: k, pitch: k };
            let right = Matrix { data: &b[of_b * k * n..], rows: k, columns: n, pitch: n };
            accumulate(&left, &right, &mut out);
            out
        });
        pieces.concat()
    }
}

/// The matrices of `[.., rows, columns]`, each transposed.
fn transposed<T: Number>(data: &[T], rows: usize, columns: usize) -> Vec<T> {
    let mut out = Vec::with_capacity(data.len());
    for matrix in data.chunks_exact((rows * columns).max(1)) {
        for column in 0..columns {
            out.extend((0..rows).map(|row| matrix[row * columns + column]));
        }
    }
    out
}

/// A row-major matrix whose rows begin `pitch` elements apart.
pub(super) struct Matrix<'a, T> {
    pub(super) data: &'a [T],
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) pitch: usize,
}

/// Columns whose sums are kept close while k runs.
const TILE: usize = 256;

/// `out += a * b`, where out is `[a.rows, b.columns]` without gaps. Each sum takes its terms in ascending k.
pub(super) fn accumulate<T: Number>(a: &Matrix<'_, T>, b: &Matrix<'_, T>, out: &mut [T]) {
    let n = b.columns;
    for first in (0..n).step_by(TILE) {
        let width = TILE.min(n - first);
        for row in 0..a.rows {
            let factors = &a.data[row * a.pitch..][..a.columns];
            let sums = &mut out[row * n + first..][..width];
            let terms = |k: usize| &b.data[k * b.pitch + first..][..width];
            let mut k = 0;
            // Four terms a visit: the sums are loaded and stored a quarter as often.
            while let Some(&[f0, f1, f2, f3]) = factors.get(k..k + 4) {
                let (t0, t1, t2, t3) = (terms(k), terms(k + 1), terms(k + 2), terms(k + 3));
                for (j, sum) in sums.iter_mut().enumerate() {
                    *sum = sum.mul_add(f0, t0[j]).mul_add(f1, t1[j]).mul_add(f2, t2[j]).mul_add(f3, t3[j]);
                }
                k += 4;
            }
            for (k, &factor) in factors.iter().enumerate().skip(k) {
                sums.iter_mut().zip(terms(k)).for_each(|(sum, &term)| *sum = sum.mul_add(factor, term));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use lapidary_runtime::op::{Arg, Instr, ScalarOp};

    use super::*;

    fn spec(transpose_a: bool, transpose_b: bool) -> MatMul {
        MatMul { transpose_a, transpose_b, math: Math::Exact }
    }

    fn counting(dtype: DType, dims: &[usize]) -> Tensor {
        let count = dims.iter().product::<usize>() as i64;
        Tensor::from_i64s(dtype, dims.to_vec(), &(0..count).collect::<Vec<_>>())
    }

    #[test]
    fn batches_broadcast() {
        // numpy: np.arange(12).reshape(2,2,3) @ np.arange(6).reshape(3,2)
        let (a, b) = (counting(DType::F32, &[2, 2, 3]), counting(DType::F32, &[3, 2]));
        let y = matmul(&spec(false, false), None, &a, &b, &[]).unwrap().remove(0);
        assert_eq!(y.dims, [2, 2, 2]);
        assert_eq!(y.to_f64s(), [10.0, 13.0, 28.0, 40.0, 46.0, 67.0, 64.0, 94.0]);
    }

    #[test]
    fn operands_may_be_transposed() {
        let (a, b) = (counting(DType::F32, &[3, 2]), counting(DType::F32, &[2, 3]));
        let y = matmul(&spec(true, true), None, &a, &b, &[]).unwrap().remove(0);
        // a^T b^T: [[0,2,4],[1,3,5]] x [[0,3],[1,4],[2,5]]
        assert_eq!(y.to_f64s(), [10.0, 28.0, 13.0, 40.0]);
        let a = counting(DType::F32, &[2, 3, 2]);
        let b = counting(DType::F32, &[2, 2, 3]);
        let y = matmul(&spec(true, true), None, &a, &b, &[]).unwrap().remove(0);
        assert_eq!(y.to_f64s(), [10.0, 28.0, 13.0, 40.0, 172.0, 244.0, 193.0, 274.0]);
    }

    #[test]
    fn eight_bit_products_are_i32() {
        let a = Tensor::from_i64s(DType::U8, vec![1, 2], &[255, 255]);
        let b = Tensor::from_i64s(DType::I8, vec![2, 1], &[-128, -128]);
        let y = matmul(&spec(false, false), None, &a, &b, &[]).unwrap().remove(0);
        assert_eq!((y.dtype, y.to_i64s()), (DType::I32, vec![-65280]));
    }

    #[test]
    fn sums_are_rounded_once() {
        // In f32 the small terms would vanish one by one.
        let mut terms = vec![2f64.powi(-25); 1025];
        terms[0] = 1.0;
        let a = Tensor::from_f64s(DType::F32, vec![1, 1025], &terms);
        let b = Tensor::from_f64s(DType::F32, vec![1025, 1], &[1.0; 1025]);
        let y = matmul(&spec(false, false), None, &a, &b, &[]).unwrap().remove(0);
        assert_eq!(y.to_f64s(), [1.0 + 2f64.powi(-15)]);
    }

    #[test]
    fn epilogues_see_the_product() {
        let program = Program {
            inputs: vec![DType::F32, DType::F32],
            steps: vec![Instr::binary(ScalarOp::Add, DType::F32, Arg::Input(0), Arg::Input(1))],
            outputs: vec![Arg::Step(0)],
        };
        let (a, b) = (counting(DType::F32, &[2, 2]), counting(DType::F32, &[2, 2]));
        let bias = Tensor::from_f64s(DType::F32, vec![2], &[100.0, 200.0]);
        let y = matmul(&spec(false, false), Some(&program), &a, &b, &[&bias]).unwrap().remove(0);
        assert_eq!(y.to_f64s(), [102.0, 203.0, 106.0, 211.0]);
    }

    #[test]
    fn large_products_match_their_definition() {
        let (m, n, k) = (67, 300, 129);
        let a: Vec<i64> = (0..m * k).map(|v| (v * 7919 % 23) as i64 - 11).collect();
        let b: Vec<i64> = (0..k * n).map(|v| (v * 104_729 % 19) as i64 - 9).collect();
        let tensor = |dims: [usize; 2], values: &[i64]| Tensor::from_i64s(DType::F32, dims.to_vec(), values);
        let y = matmul(&spec(false, false), None, &tensor([m, k], &a), &tensor([k, n], &b), &[]).unwrap().remove(0);
        let expected: Vec<i64> =
            (0..m * n).map(|at| (0..k).map(|x| a[at / n * k + x] * b[x * n + at % n]).sum()).collect();
        assert_eq!(y.to_i64s(), expected);
    }

    #[test]
    fn empty_sums_are_zero() {
        let y = matmul(&spec(false, false), None, &counting(DType::F32, &[2, 0]), &counting(DType::F32, &[0, 2]), &[]);
        assert_eq!(y.unwrap()[0].to_f64s(), [0.0; 4]);
        assert!(
            matmul(&spec(false, false), None, &counting(DType::F32, &[2, 3]), &counting(DType::F32, &[2, 3]), &[])
                .is_err()
        );
    }

    #[test]
    fn tf32_drops_thirteen_bits() {
        let x = Values::Float(vec![1.0 + 2f64.powi(-11), 1.0 + 2f64.powi(-12), f64::INFINITY]);
        let rounded = round_operand(Math::Tf32, DType::F32, x);
        assert_eq!(rounded, Values::Float(vec![1.0 + 2f64.powi(-10), 1.0, f64::INFINITY]));
    }
}
