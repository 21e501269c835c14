//! Batched matrix products (ONNX `MatMul`, and what `Gemm` and `MatMulInteger` are made of).

use core::ops::Range;

use crate::cpu::blocks::{Columns, Shape, multiply};
use crate::cpu::bytes::{self, Lefts, is_signed};
use crate::cpu::memory::{Buffer, Plain, Tensor, TensorMut};
use crate::cpu::pointwise::{Epilogue, Layout};
use crate::cpu::product::{Accumulator, Matrix, accumulator, widened};
use crate::cpu::team::Team;
use crate::op::MatMul;

/// Where a product works: room for its operands in the accumulator's type and for what it gathers, and the threads.
pub struct Room<'s> {
    pub a: &'s mut Buffer,
    pub b: &'s mut Buffer,
    pub c: &'s mut Buffer,
    pub team: &'s mut Team,
}

/// `out = a b` on the last two axes, batch axes broadcast.
pub fn run(
    spec: &MatMul,
    a: &Tensor<'_>,
    b: &Tensor<'_>,
    out: &mut TensorMut<'_>,
    epilogue: &Epilogue<'_>,
    room: Room<'_>,
) {
    match (is_signed(a.dtype), is_signed(b.dtype)) {
        (Some(left), Some(right)) => of_bytes(spec, [left, right], [a, b], out, epilogue, room),
        _ => accumulator!(a.dtype, A => batches::<A>(spec, a, b, out, epilogue, room)),
    }
}

fn of_bytes(
    spec: &MatMul,
    signed: [bool; 2],
    [a, b]: [&Tensor<'_>; 2],
    out: &mut TensorMut<'_>,
    epilogue: &Epilogue<'_>,
    room: Room<'_>,
) {
    let Some((shape, left, right)) = stacks(spec, a, b, out) else { return };
    let matrix = |index: usize| left.matrix(a.bytes, index);
    let lefts = Lefts { count: shape.batch, matrix: &matrix, of: &|index| index };
    let right = Stacked { data: b.bytes, stack: right };
    bytes::multiply(shape, signed, &lefts, &right, out, epilogue, room);
}

/// The extents of the products, and the matrices of both operands; `None` where the result is empty.
fn stacks(spec: &MatMul, a: &Tensor<'_>, b: &Tensor<'_>, out: &TensorMut<'_>) -> Option<(Shape, Stack, Stack)> {
    let batch = &out.dims[..out.dims.len() - 2];
    let mut count = batch.iter().product();
    let mut left = Stack::new(&a.dims, spec.transpose_a, batch);
    let right = Stack::new(&b.dims, spec.transpose_b, batch);
    if count * left.rows * right.cols == 0 {
        return None;
    }
    // Rows of all batch elements against one matrix are one product.
    if right.batch.is_uniform() && left.batch.is_flat() && !left.transposed {
        left.rows *= count;
        count = 1;
    }
    Some((Shape { batch: count, rows: left.rows, inner: left.cols, cols: right.cols }, left, right))
}

/// The matrices of one operand: extents after transposition, and where each batch element begins.
struct Stack {
    rows: usize,
    cols: usize,
    transposed: bool,
    batch: Layout,
}

impl Stack {
    fn new(dims: &[usize], transposed: bool, batch: &[usize]) -> Stack {
        let (outer, inner) = dims.split_at(dims.len() - 2);
        let (rows, cols) = if transposed { (inner[1], inner[0]) } else { (inner[0], inner[1]) };
        Stack { rows, cols, transposed, batch: Layout::new(batch, outer) }
    }

    fn matrix<'m, T>(&self, data: &'m [T], index: usize) -> Matrix<'m, T> {
        let size = self.rows * self.cols;
        let data = &data[self.batch.at(index) * size..][..size];
        if self.transposed {
            Matrix::new(data, self.cols, self.rows).transposed()
        } else {
            Matrix::new(data, self.rows, self.cols)
        }
    }
}

fn batches<A: Accumulator>(
    spec: &MatMul,
    a: &Tensor<'_>,
    b: &Tensor<'_>,
    out: &mut TensorMut<'_>,
    epilogue: &Epilogue<'_>,
    room: Room<'_>,
) {
    let Some((shape, left, right)) = stacks(spec, a, b, out) else { return };
    let (a, b) = (widened::<A>(a, room.a), widened::<A>(b, room.b));
    let right = Stacked { data: b, stack: right };
    multiply(shape, |index| left.matrix(a, index), &right, out, epilogue, room.team);
}

/// The matrices of an operand, with its elements.
struct Stacked<'m, A> {
    data: &'m [A],
    stack: Stack,
}

impl<A: Plain> Columns<A> for Stacked<'_, A> {
    const GATHERED: bool = false;

    fn columns<'s>(&'s self, index: usize, range: Range<usize>, _: &'s mut Buffer) -> Matrix<'s, A> {
        self.stack.matrix(self.data, index).columns(range.start, range.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::element::Number;
    use crate::cpu::testing::{Random, assert_close, tensor, tensor_mut};
    use crate::dtype::{Element, F16};

    fn multiply<A: Number + Plain, B: Number + Plain, O: Number + Plain>(
        spec: &MatMul,
        (a, a_dims): (&[A], &[usize]),
        (b, b_dims): (&[B], &[usize]),
        out_dims: &[usize],
    ) -> Vec<O> {
        let mut out = vec![O::default(); out_dims.iter().product()];
        let [mut a_room, mut b_room, mut c] = core::array::from_fn(|_| Buffer::default());
        let room = Room { a: &mut a_room, b: &mut b_room, c: &mut c, team: &mut Team::new(2) };
        let epilogue = Epilogue::rounding(O::DTYPE);
        run(spec, &tensor(a, a_dims), &tensor(b, b_dims), &mut tensor_mut(&mut out, out_dims), &epilogue, room);
        out
    }

    fn spec(transpose_a: bool, transpose_b: bool) -> MatMul {
        MatMul { transpose_a, transpose_b, math: crate::op::Math::Exact }
    }

    #[test]
    fn batches_broadcast() {
        let mut random = Random::new(3);
        let (a, b) = (random.floats(2 * 3 * 4 * 5), random.floats(3 * 5 * 6));
        let out: Vec<f32> = multiply(&spec(false, false), (&a, &[2, 3, 4, 5]), (&b, &[3, 5, 6]), &[2, 3, 4, 6]);
        let mut exact = Vec::new();
        for n in 0..6 {
            for i in 0..4 {
                for j in 0..6 {
                    let term = |p: usize| f64::from(a[n * 20 + i * 5 + p]) * f64::from(b[n % 3 * 30 + p * 6 + j]);
                    exact.push((0..5).map(term).sum());
                }
            }
        }
        assert_close(&out, &exact, 1e-6);
    }

    #[test]
    fn threads_change_no_bit() {
        let mut random = Random::new(5);
        for [batch, m, k, n] in [[1, 12, 384, 390], [3, 130, 70, 65], [1, 1, 900, 1000], [1, 300, 500, 1]] {
            let (a, b) = (random.floats(batch * m * k), random.floats(batch * k * n));
            let product = |threads: usize, transpose_b: bool| {
                let mut out = vec![0f32; batch * m * n];
                let [mut a_room, mut b_room, mut c] = core::array::from_fn(|_| Buffer::default());
                let room = Room { a: &mut a_room, b: &mut b_room, c: &mut c, team: &mut Team::new(threads) };
                let b_dims = if transpose_b { [batch, n, k] } else { [batch, k, n] };
                let (at, bt) = (tensor(&a, &[batch, m, k]), tensor(&b, &b_dims));
                let epilogue = Epilogue::rounding(f32::DTYPE);
                run(&spec(false, transpose_b), &at, &bt, &mut tensor_mut(&mut out, &[batch, m, n]), &epilogue, room);
                out.into_iter().map(f32::to_bits).collect::<Vec<_>>()
            };
            for transpose_b in [false, true] {
                let alone = product(1, transpose_b);
                assert!(alone == product(2, transpose_b) && alone == product(3, transpose_b), "{batch} {m} {k} {n}");
            }
        }
    }

    #[test]
    fn one_matrix_serves_all_batches() {
        let mut random = Random::new(4);
        let (a, b) = (random.floats(2 * 3 * 5), random.floats(5 * 4));
        let out: Vec<f32> = multiply(&spec(false, true), (&a, &[2, 3, 5]), (&b, &[4, 5]), &[2, 3, 4]);
        let exact: Vec<f64> = (0..6)
            .flat_map(|i| {
                let (a, b) = (&a, &b);
                (0..4).map(move |j| (0..5).map(|p| f64::from(a[i * 5 + p]) * f64::from(b[j * 5 + p])).sum())
            })
            .collect();
        assert_close(&out, &exact, 1e-6);
    }

    #[test]
    fn halves_sum_in_single_precision() {
        // 2048 + 1 is not a half, 2048 + 1 + 1 is.
        let a = [2048.0, 1.0, 1.0].map(F16::from_f32);
        let out: Vec<F16> =
            multiply(&spec(false, false), (&a, &[1, 3]), (&[1.0f32; 3].map(F16::from_f32), &[3, 1]), &[1, 1]);
        assert_eq!(out[0].to_f32(), 2050.0);
    }

    #[test]
    fn bytes_of_mixed_sign_sum_in_32_bits() {
        let out: Vec<i32> =
            multiply(&spec(false, false), (&[255u8, 255], &[1, 2]), (&[-128i8, -128], &[2, 1]), &[1, 1]);
        assert_eq!(out, [-65280]);
    }

    #[test]
    fn an_empty_inner_extent_gives_zeros() {
        let out: Vec<f32> = multiply(&spec(false, false), (&[] as &[f32], &[2, 0]), (&[] as &[f32], &[0, 2]), &[2, 2]);
        assert_eq!(out, [0.0; 4]);
    }
}
