//! Matrix products over strided slices: floats by the `gemm` crate (vectors by loops of our own), integers by plain
//! loops. On the calling thread alone: `blocks` shares a product among threads.

use crate::cpu::element::{Arith, Number, Real, unchecked, widen};
use crate::cpu::memory::{Buffer, Tensor};
use crate::cpu::simd::vectorize;
use crate::dtype::{BF16, DType, F16};

/// A matrix in a slice: element `(i, j)` at `i * row_stride + j * col_stride`.
#[derive(Clone, Copy)]
pub struct Matrix<'m, T> {
    pub data: &'m [T],
    pub rows: usize,
    pub cols: usize,
    pub row_stride: usize,
    pub col_stride: usize,
}

impl<'m, T> Matrix<'m, T> {
    /// A contiguous row-major matrix.
    pub fn new(data: &'m [T], rows: usize, cols: usize) -> Matrix<'m, T> {
        Matrix { data, rows, cols, row_stride: cols, col_stride: 1 }
    }

    /// The same elements with rows and columns exchanged.
    pub fn transposed(self) -> Matrix<'m, T> {
        let Matrix { data, rows, cols, row_stride, col_stride } = self;
        Matrix { data, rows: cols, cols: rows, row_stride: col_stride, col_stride: row_stride }
    }

    /// `count` rows from row `first` on.
    pub fn rows(self, first: usize, count: usize) -> Matrix<'m, T> {
        assert!(first + count <= self.rows, "rows outside of a matrix");
        let data = self.data.get(first * self.row_stride..).unwrap_or(&[]);
        Matrix { data, rows: count, ..self }
    }

    /// `count` columns from column `first` on.
    pub fn columns(self, first: usize, count: usize) -> Matrix<'m, T> {
        self.transposed().rows(first, count).transposed()
    }

    fn check(&self) {
        let last = (self.rows.max(1) - 1) * self.row_stride + (self.cols.max(1) - 1) * self.col_stride;
        assert!(self.rows == 0 || self.cols == 0 || last < self.data.len(), "a matrix lies outside of its slice");
    }
}

/// What a product does with the values already there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Onto {
    Nothing,
    /// Adds to them.
    Sum,
}

/// A type that products accumulate in.
pub trait Accumulator: Number<Acc = Self> + Arith {
    /// `c = a b` (or `c += a b`), `c` row-major with rows `row_stride` apart.
    fn product(a: Matrix<'_, Self>, b: Matrix<'_, Self>, c: &mut [Self], row_stride: usize, onto: Onto);

    /// `to[i] = from[i]` for a storage type that is accumulated in this type.
    fn widen_from(from: &Tensor<'_>, to: &mut [Self]);
}

/// The elements of `tensor` in the accumulator's type: in place where they have it, else converted to `buffer`.
pub fn widened<'t, A: Accumulator>(tensor: &Tensor<'t>, buffer: &'t mut Buffer) -> &'t [A] {
    if tensor.dtype == A::DTYPE {
        return tensor.words();
    }
    let to = buffer.take(tensor.dims.count());
    A::widen_from(tensor, to);
    to
}

/// The type that products of `dtype` accumulate in.
pub fn accumulator_of(dtype: DType) -> Option<DType> {
    match dtype {
        DType::F64 => Some(DType::F64),
        DType::F32 | DType::F16 | DType::BF16 => Some(DType::F32),
        DType::I32 | DType::I8 | DType::U8 => Some(DType::I32),
        DType::I64 => Some(DType::I64),
        DType::U32 => Some(DType::U32),
        DType::U64 => Some(DType::U64),
        DType::I16
        | DType::U16
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
        | DType::U2 => None,
    }
}

/// `$body` with `$a` the type that products of `$dtype` accumulate in.
macro_rules! accumulator {
    ($dtype:expr, $a:ident => $body:expr) => {
        match $crate::cpu::product::accumulator_of($dtype) {
            Some($crate::dtype::DType::F64) => {
                type $a = f64;
                $body
            }
            Some($crate::dtype::DType::F32) => {
                type $a = f32;
                $body
            }
            Some($crate::dtype::DType::I32) => {
                type $a = i32;
                $body
            }
            Some($crate::dtype::DType::I64) => {
                type $a = i64;
                $body
            }
            Some($crate::dtype::DType::U32) => {
                type $a = u32;
                $body
            }
            Some($crate::dtype::DType::U64) => {
                type $a = u64;
                $body
            }
            _ => $crate::cpu::element::unchecked($dtype),
        }
    };
}

pub(crate) use accumulator;

fn check<T>(a: &Matrix<'_, T>, b: &Matrix<'_, T>, c: &[T], row_stride: usize) {
    a.check();
    b.check();
    assert_eq!(a.cols, b.rows, "the inner extents of a product");
    assert!(b.cols <= row_stride || a.rows <= 1, "rows of a product overlap");
    let end = (a.rows.max(1) - 1) * row_stride + b.cols;
    assert!(a.rows == 0 || b.cols == 0 || end <= c.len(), "a product does not fit its result");
}

fn clear<T: Arith>(c: &mut [T], rows: usize, cols: usize, row_stride: usize) {
    for row in 0..rows {
        c[row * row_stride..][..cols].fill(T::ZERO);
    }
}

macro_rules! float_product {
    ($t:ident, $from:ident => $widen:expr) => {
        impl Accumulator for $t {
            fn product(a: Matrix<'_, $t>, b: Matrix<'_, $t>, c: &mut [$t], row_stride: usize, onto: Onto) {
                check(&a, &b, c, row_stride);
                if a.rows == 0 || b.cols == 0 {
                    return;
                }
                if a.cols == 0 || vector_product(&a, &b, c, row_stride, onto) {
                    if a.cols == 0 && onto == Onto::Nothing {
                        clear(c, a.rows, b.cols, row_stride);
                    }
                    return;
                }
                // SAFETY: the matrices lie inside of their slices (`check`), and `c` is borrowed uniquely.
                unsafe {
                    gemm::gemm(
                        a.rows,
                        b.cols,
                        a.cols,
                        c.as_mut_ptr(),
                        1,
                        row_stride as isize,
                        onto == Onto::Sum,
                        a.data.as_ptr(),
                        a.col_stride as isize,
                        a.row_stride as isize,
                        b.data.as_ptr(),
                        b.col_stride as isize,
                        b.row_stride as isize,
                        1.0,
                        1.0,
                        false,
                        false,
                        false,
                        gemm::Parallelism::None,
                    );
                }
            }

            fn widen_from($from: &Tensor<'_>, to: &mut [$t]) {
                $widen(to)
            }
        }
    };
}

float_product!(f32, from => |to| match from.dtype {
    DType::F16 => widen(from.data::<F16>(), to),
    DType::BF16 => widen(from.data::<BF16>(), to),
    other => unchecked(other),
});
float_product!(f64, from => |_: &mut [f64]| unchecked(from.dtype));

/// Products with a vector on one side; `false` where the general product must do it.
fn vector_product<T: Real>(a: &Matrix<'_, T>, b: &Matrix<'_, T>, c: &mut [T], row_stride: usize, onto: Onto) -> bool {
    let (x, m, y) = if a.rows == 1 {
        ((a.data, a.col_stride), *b, &mut c[..b.cols])
    } else if b.cols == 1 && row_stride == 1 {
        ((b.data, b.row_stride), a.transposed(), &mut c[..a.rows])
    } else {
        return false;
    };
    if m.col_stride != 1 && m.row_stride != 1 {
        return false;
    }
    if onto == Onto::Nothing {
        y.fill(T::ZERO);
    }
    vectorize(
        #[inline(always)]
        || if m.col_stride == 1 { add_rows(x, &m, y) } else { add_dots(x, &m, y) },
    );
    true
}

/// `y += x m` for rows of `m` that are contiguous: four rows at a time over pieces of `y` that stay in the cache.
#[inline(always)]
fn add_rows<T: Real>((x, step): (&[T], usize), m: &Matrix<'_, T>, y: &mut [T]) {
    const PIECE: usize = 2048;
    for (k, piece) in y.chunks_mut(PIECE).enumerate() {
        let len = piece.len();
        let row = |p: usize| &m.data[p * m.row_stride + k * PIECE..][..len];
        let quads = m.rows / 4 * 4;
        for p in (0..quads).step_by(4) {
            let [x0, x1, x2, x3] = [0, 1, 2, 3].map(|i| x[(p + i) * step]);
            let rows = row(p).iter().zip(row(p + 1)).zip(row(p + 2)).zip(row(p + 3));
            for (y, (((r0, r1), r2), r3)) in piece.iter_mut().zip(rows) {
                *y = y.add(x0.mul(*r0).add(x1.mul(*r1)).add(x2.mul(*r2).add(x3.mul(*r3))));
            }
        }
        for p in quads..m.rows {
            let x = x[p * step];
            for (y, r) in piece.iter_mut().zip(row(p)) {
                *y = y.add(x.mul(*r));
            }
        }
    }
}

/// `y += x m` for columns of `m` that are contiguous: one dot product a column, in 64 running sums.
#[inline(always)]
fn add_dots<T: Real>((x, step): (&[T], usize), m: &Matrix<'_, T>, y: &mut [T]) {
    for (j, y) in y.iter_mut().enumerate() {
        let column = &m.data[j * m.col_stride..][..m.rows];
        let mut sum = T::ZERO;
        if step == 1 {
            let (xs, x_rest) = x[..m.rows].as_chunks::<LANES>();
            let (ms, m_rest) = column.as_chunks::<LANES>();
            for (x, m) in x_rest.iter().zip(m_rest) {
                sum = sum.add(x.mul(*m));
            }
            // Four at a time, as a sum waits for the last one.
            let [mut a, mut b, mut c, mut d] = [[T::ZERO; LANES]; 4];
            let ((x_fours, xs), (m_fours, ms)) = (xs.as_chunks::<4>(), ms.as_chunks::<4>());
            for (x, m) in x_fours.iter().zip(m_fours) {
                a = add_products(a, &x[0], &m[0]);
                b = add_products(b, &x[1], &m[1]);
                c = add_products(c, &x[2], &m[2]);
                d = add_products(d, &x[3], &m[3]);
            }
            for (x, m) in xs.iter().zip(ms) {
                a = add_products(a, x, m);
            }
            for lane in 0..LANES {
                sum = sum.add(a[lane].add(b[lane]).add(c[lane].add(d[lane])));
            }
        } else {
            for (p, m) in column.iter().enumerate() {
                sum = sum.add(x[p * step].mul(*m));
            }
        }
        *y = y.add(sum);
    }
}

/// Sums that fill a vector register.
const LANES: usize = 16;

#[inline(always)]
fn add_products<T: Real>(sums: [T; LANES], x: &[T; LANES], m: &[T; LANES]) -> [T; LANES] {
    core::array::from_fn(|k| sums[k].add(x[k].mul(m[k])))
}

macro_rules! int_product {
    ($($t:ident, $from:ident => $widen:expr;)*) => {$(
        impl Accumulator for $t {
            fn product(a: Matrix<'_, $t>, b: Matrix<'_, $t>, c: &mut [$t], row_stride: usize, onto: Onto) {
                check(&a, &b, c, row_stride);
                if onto == Onto::Nothing {
                    clear(c, a.rows, b.cols, row_stride);
                }
                vectorize(
                    #[inline(always)]
                    || add_product(&a, &b, c, row_stride),
                );
            }

            fn widen_from($from: &Tensor<'_>, to: &mut [$t]) {
                $widen(to)
            }
        }
    )*};
}

int_product! {
    i32, from => |to: &mut [i32]| match from.dtype {
        DType::I8 => to.iter_mut().zip(from.data::<i8>()).for_each(|(to, from)| *to = i32::from(*from)),
        DType::U8 => to.iter_mut().zip(from.data::<u8>()).for_each(|(to, from)| *to = i32::from(*from)),
        other => unchecked(other),
    };
    i64, from => |_: &mut [i64]| unchecked(from.dtype);
    u32, from => |_: &mut [u32]| unchecked(from.dtype);
    u64, from => |_: &mut [u64]| unchecked(from.dtype);
}

/// `c += a b`, wrapping: row by row where rows of `b` are contiguous, else by dot products.
#[inline(always)]
fn add_product<T: Arith>(a: &Matrix<'_, T>, b: &Matrix<'_, T>, c: &mut [T], row_stride: usize) {
    for i in 0..a.rows {
        if b.cols == 0 {
            return;
        }
        let row = &mut c[i * row_stride..][..b.cols];
        for p in 0..a.cols {
            let x = a.data[i * a.row_stride + p * a.col_stride];
            if b.col_stride == 1 {
                for (c, b) in row.iter_mut().zip(&b.data[p * b.row_stride..][..b.cols]) {
                    *c = c.add(x.mul(*b));
                }
            } else {
                for (j, c) in row.iter_mut().enumerate() {
                    *c = c.add(x.mul(b.data[p * b.row_stride + j * b.col_stride]));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::Random;

    fn naive(a: &Matrix<'_, f32>, b: &Matrix<'_, f32>) -> Vec<f64> {
        let mut c = Vec::new();
        for i in 0..a.rows {
            for j in 0..b.cols {
                c.push(
                    (0..a.cols)
                        .map(|p| {
                            f64::from(a.data[i * a.row_stride + p * a.col_stride])
                                * f64::from(b.data[p * b.row_stride + j * b.col_stride])
                        })
                        .sum(),
                );
            }
        }
        c
    }

    #[test]
    fn products_of_all_shapes_and_strides_agree_with_sums() {
        let mut random = Random::new(7);
        for (m, n, k) in [(1, 1, 1), (1, 70, 33), (70, 1, 33), (5, 6, 0), (17, 19, 23), (1, 3000, 9), (0, 4, 3)] {
            let (x, y) = (random.floats(m * k), random.floats(k * n));
            for transposed in 0..4 {
                let a = match transposed & 1 {
                    0 => Matrix::new(&x, m, k),
                    _ => Matrix::new(&x, k, m).transposed(),
                };
                let b = match transposed & 2 {
                    0 => Matrix::new(&y, k, n),
                    _ => Matrix::new(&y, n, k).transposed(),
                };
                let mut c = vec![1.0f32; m * n];
                f32::product(a, b, &mut c, n, Onto::Nothing);
                let exact = naive(&a, &b);
                for (c, e) in c.iter().zip(&exact) {
                    assert!((f64::from(*c) - e).abs() < 1e-4, "{m} {n} {k}: {c} {e}");
                }
                f32::product(a, b, &mut c, n, Onto::Sum);
                for (c, e) in c.iter().zip(&exact) {
                    assert!((f64::from(*c) - 2.0 * e).abs() < 2e-4);
                }
            }
        }
    }

    #[test]
    fn integers_wrap() {
        let (a, b) = ([i32::MAX, 2], [2, 3]);
        let mut c = [0];
        i32::product(Matrix::new(&a, 1, 2), Matrix::new(&b, 2, 1), &mut c, 1, Onto::Nothing);
        assert_eq!(c, [i32::MAX.wrapping_mul(2).wrapping_add(6)]);
    }
}
