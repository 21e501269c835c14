//! Scaled dot-product attention, by its definition in doubles, rounded once (ONNX `Attention`; Vaswani et al. 2017).

use lapidary_runtime::op::{Attention, Unseen};

use super::index;
use super::scalar;
use super::tensor::Tensor;

/// `softmax(scale q k^T + mask) v`.
pub(super) fn attention(
    spec: &Attention,
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    mask: Option<&Tensor>,
) -> Result<Vec<Tensor>, String> {
    let (&[batches, heads, queries, depth], &[_, groups, keys, _], &[_, _, _, width]) =
        (&q.dims[..], &k.dims[..], &v.dims[..])
    else {
        return Err("queries, keys and values have four axes".to_owned());
    };
    if groups == 0 || heads % groups != 0 {
        return Err(format!("{heads} heads of queries do not share {groups} of keys"));
    }
    let scores_dims = [batches, heads, queries, keys];
    let strides = mask.map(|mask| index::broadcast_strides(&mask.dims, &scores_dims)).transpose()?;
    let dtype = q.dtype;
    let masking = mask.map(Tensor::to_f64s).zip(strides);
    let (q, k, v) = (q.to_f64s(), k.to_f64s(), v.to_f64s());
    let scale = spec.scale.as_f64();
    let mut out = Vec::with_capacity(batches * heads * queries * width);
    for row in 0..batches * heads * queries {
        let (batch, head, query) = (row / queries / heads, row / queries % heads, row % queries);
        // The head of keys and values that this one shares with its neighbours.
        let shared = batch * groups + head / (heads / groups);
        let score = |key: usize| {
            if spec.causal && key > query {
                return f64::NEG_INFINITY;
            }
            let dot: f64 = (0..depth).map(|p| q[row * depth + p] * k[(shared * keys + key) * depth + p]).sum();
            let added = masking.as_ref().map_or(0.0, |(mask, strides)| {
                let place = [batch, head, query, key].into_iter().zip(strides);
                mask[place.map(|(at, &stride)| at * stride.unsigned_abs()).sum::<usize>()]
            });
            scale * dot + added
        };
        let mut weights: Vec<f64> = (0..keys).map(score).collect();
        let most = weights.iter().fold(f64::NEG_INFINITY, |most, &score| scalar::max(most, score));
        weights.iter_mut().for_each(|weight| *weight = (*weight - most).exp());
        let total: f64 = weights.iter().sum();
        if total.is_nan() && spec.unseen == Unseen::Zero {
            out.extend(std::iter::repeat_n(0.0, width));
            continue;
        }
        weights.iter_mut().for_each(|weight| *weight /= total);
        let sum = |j: usize| -> f64 { (0..keys).map(|key| weights[key] * v[(shared * keys + key) * width + j]).sum() };
        out.extend((0..width).map(sum));
    }
    Ok(vec![Tensor::from_f64s(dtype, vec![batches, heads, queries, width], &out)])
}
