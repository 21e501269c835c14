//! Scaled dot-product attention (ONNX `Attention`, and the chain of products and softmax that it stands for).
//!
//! A block of queries at a time: its scores with all keys, their softmax, the sums of values. Scores of one head are never
//! all there at once.

use crate::cpu::element::{Arith, Number, Real, float};
use crate::cpu::memory::{Scratch, Tensor, TensorMut};
use crate::cpu::product::{Accumulator, Matrix, Onto, widened};
use crate::cpu::simd::vectorize;
use crate::op::{Attention, Unseen};
use crate::shapes::Extents;

/// Queries whose scores are formed together.
const BLOCK: usize = 64;

/// `out = softmax(scale q k^T + mask) v`, for `[q, k, v]`.
pub fn run(
    spec: &Attention,
    operands: [&Tensor<'_>; 3],
    mask: Option<&Tensor<'_>>,
    out: &mut TensorMut<'_>,
    scratch: &mut Scratch,
) {
    float!(out.dtype, T => heads::<T>(spec, operands, mask, out, scratch));
}

fn heads<T: Number>(
    spec: &Attention,
    [q, k, v]: [&Tensor<'_>; 3],
    mask: Option<&Tensor<'_>>,
    out: &mut TensorMut<'_>,
    scratch: &mut Scratch,
) where
    T::Acc: Accumulator + Real,
{
    let &[_, heads, queries, depth] = &q.dims[..] else { unreachable!("the check at load has seen four axes") };
    let (groups, keys, width) = (k.dims[1], k.dims[2], v.dims[3]);
    if out.dims.count() == 0 {
        return;
    }
    let Scratch { a, b, c, d, e, .. } = scratch;
    let (q, k, v) = (widened::<T::Acc>(q, a), widened::<T::Acc>(k, b), widened::<T::Acc>(v, c));
    let scale = T::Acc::from_f64(spec.scale.as_f64());
    let rows = queries.min(BLOCK);
    let scores = d.take::<T::Acc>(rows * keys);
    let sums = e.take::<T::Acc>(rows * width);
    let masked = mask.map(|mask| (mask.data::<T>(), mask_strides(&mask.dims)));
    for (head, out) in out.data::<T>().chunks_exact_mut(queries * width).enumerate() {
        // Keys and values of this head, and where its mask begins.
        let shared = head / heads * groups + head % heads / (heads / groups);
        let (k, v) = (&k[shared * keys * depth..], &v[shared * keys * width..]);
        for (block, out) in out.chunks_mut(rows * width).enumerate() {
            let first = block * rows;
            let rows = out.len() / width;
            let q = &q[(head * queries + first) * depth..][..rows * depth];
            let k = Matrix::new(&k[..keys * depth], keys, depth).transposed();
            T::Acc::product(Matrix::new(q, rows, depth), k, scores, keys, Onto::Nothing);
            let scores = &mut scores[..rows * keys];
            let mut blank = [false; BLOCK];
            for (row, scores) in scores.chunks_exact_mut(keys.max(1)).enumerate() {
                let mask = masked.map(|(data, [batch, of_head, of_row, of_key])| {
                    let at = head / heads * batch + head % heads * of_head + (first + row) * of_row;
                    (&data[at..], of_key)
                });
                let seen = if spec.causal { keys.min(first + row + 1) } else { keys };
                blank[row] = vectorize(
                    #[inline(always)]
                    || weigh::<T>(scores, scale, mask, seen, spec.unseen),
                );
            }
            let v = Matrix::new(&v[..keys * width], keys, width);
            T::Acc::product(Matrix::new(scores, rows, keys), v, sums, width, Onto::Nothing);
            for (out, sum) in out.iter_mut().zip(sums.iter()) {
                *out = T::narrow(*sum);
            }
            for (row, _) in blank.iter().enumerate().filter(|(_, blank)| **blank) {
                out[row * width..][..width].fill(T::narrow(T::Acc::ZERO));
            }
        }
    }
}

/// The softmax of a row of scores, of which the first `seen` count. `true` if the row gives zeros instead.
#[inline(always)]
fn weigh<T: Number>(
    scores: &mut [T::Acc],
    scale: T::Acc,
    mask: Option<(&[T], usize)>,
    seen: usize,
    unseen: Unseen,
) -> bool
where
    T::Acc: Real,
{
    let (scores, hidden) = scores.split_at_mut(seen);
    hidden.fill(T::Acc::ZERO);
    match mask {
        Some((mask, 1)) => {
            for (score, mask) in scores.iter_mut().zip(mask) {
                *score = score.mul(scale).add(mask.widen());
            }
        }
        Some((mask, _)) => scores.iter_mut().for_each(|score| *score = score.mul(scale).add(mask[0].widen())),
        None => scores.iter_mut().for_each(|score| *score = score.mul(scale)),
    }
    let most = scores.iter().fold(T::Acc::LOWEST, |most, score| most.larger(*score));
    if most == T::Acc::LOWEST {
        let value = match unseen {
            Unseen::Nan => T::Acc::from_f64(f64::NAN),
            Unseen::Zero => T::Acc::ZERO,
        };
        scores.fill(value);
        hidden.fill(value);
        return unseen == Unseen::Zero;
    }
    let mut total = T::Acc::ZERO;
    for score in scores.iter_mut() {
        *score = score.sub(most).exp();
        total = total.add(*score);
    }
    if total.is_nan() && unseen == Unseen::Zero {
        scores.fill(T::Acc::ZERO);
        return true;
    }
    let share = T::Acc::from_f64(1.0 / total.to_f64());
    scores.iter_mut().for_each(|score| *score = score.mul(share));
    false
}

/// The strides of a mask along batch, head, query and key: 0 where it broadcasts.
fn mask_strides(dims: &Extents) -> [usize; 4] {
    let mut strides = [0; 4];
    let mut stride = 1;
    for (axis, &extent) in dims.iter().rev().enumerate() {
        if extent != 1 {
            strides[3 - axis] = stride;
        }
        stride *= extent;
    }
    strides
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::{Random, assert_close, tensor, tensor_mut};
    use crate::dtype::DType;
    use crate::op::{Math, Scalar};

    fn spec(scale: f64, causal: bool, unseen: Unseen) -> Attention {
        Attention { scale: Scalar::float(DType::F32, scale), causal, unseen, math: Math::Exact }
    }

    /// By the definition, in doubles.
    fn exact(
        spec: &Attention,
        [q, k, v]: [&[f32]; 3],
        dims: [usize; 7],
        mask: impl Fn(usize, usize) -> f64,
    ) -> Vec<f64> {
        let [batches, heads, groups, queries, keys, depth, width] = dims;
        let mut out = Vec::new();
        for row in 0..batches * heads * queries {
            let (head, query) = (row / queries, row % queries);
            let shared = head / heads * groups + head % heads / (heads / groups);
            let score = |key: usize| {
                let dot: f64 = (0..depth)
                    .map(|p| f64::from(q[row * depth + p]) * f64::from(k[(shared * keys + key) * depth + p]))
                    .sum();
                let hidden = spec.causal && key > query;
                if hidden { f64::NEG_INFINITY } else { dot * spec.scale.as_f64() + mask(row, key) }
            };
            let scores: Vec<f64> = (0..keys).map(score).collect();
            let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let total: f64 = scores.iter().map(|score| (score - most).exp()).sum();
            for j in 0..width {
                let term =
                    |key: usize| (scores[key] - most).exp() / total * f64::from(v[(shared * keys + key) * width + j]);
                out.push((0..keys).map(term).sum());
            }
        }
        out
    }

    #[test]
    fn heads_share_keys_and_queries_come_in_blocks() {
        let mut random = Random::new(11);
        let (batches, heads, groups, queries, keys, depth, width) = (2, 4, 2, 70, 33, 8, 5);
        let (q, k, v) = (
            random.floats(batches * heads * queries * depth),
            random.floats(batches * groups * keys * depth),
            random.floats(batches * groups * keys * width),
        );
        let mask = random.floats(batches * queries * keys);
        for (causal, with_mask) in [(false, false), (true, false), (false, true), (true, true)] {
            let spec = spec(0.5, causal, Unseen::Nan);
            let mut out = vec![0f32; batches * heads * queries * width];
            let masking = tensor(&mask, &[batches, 1, queries, keys]);
            run(
                &spec,
                [
                    &tensor(&q, &[batches, heads, queries, depth]),
                    &tensor(&k, &[batches, groups, keys, depth]),
                    &tensor(&v, &[batches, groups, keys, width]),
                ],
                with_mask.then_some(&masking),
                &mut tensor_mut(&mut out, &[batches, heads, queries, width]),
                &mut Scratch::default(),
            );
            let dims = [batches, heads, groups, queries, keys, depth, width];
            let added = |row: usize, key: usize| {
                let at = (row / (heads * queries) * queries + row % queries) * keys + key;
                if with_mask { f64::from(mask[at]) } else { 0.0 }
            };
            assert_close(&out, &exact(&spec, [&q, &k, &v], dims, added), 1e-5);
        }
    }

    #[test]
    fn a_query_without_keys() {
        let mask = [f32::NEG_INFINITY];
        for (unseen, expected) in [(Unseen::Zero, 0.0), (Unseen::Nan, f64::NAN)] {
            let mut out = [1f32; 2];
            run(
                &spec(1.0, false, unseen),
                [
                    &tensor(&[1f32], &[1, 1, 1, 1]),
                    &tensor(&[1f32, 2.0], &[1, 1, 2, 1]),
                    &tensor(&[1f32; 4], &[1, 1, 2, 2]),
                ],
                Some(&tensor(&mask, &[1, 1, 1, 1])),
                &mut tensor_mut(&mut out, &[1, 1, 1, 2]),
                &mut Scratch::default(),
            );
            assert_close(&out, &[expected; 2], 0.0);
        }
    }
}
