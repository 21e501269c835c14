//! Choosing among boxes (ONNX `NonMaxSuppression`, once boxes are sorted by score).

use lapidary_runtime::DType;

use super::tensor::{Tensor, Values};

/// Which boxes stay, in the order that is given: each that is eligible and shares at most `threshold` with those that
/// stay before it, `most` of them. Operands boxes `[batches, n, 4]` (top, left, bottom, right), order and eligible
/// `[batches, classes, n]`, threshold and most scalars; the result has the order's shape.
pub(super) fn suppress(
    boxes: &Tensor,
    order: &Tensor,
    eligible: &Tensor,
    threshold: &Tensor,
    most: &Tensor,
) -> Result<Vec<Tensor>, String> {
    let &[_, classes, n] = order.dims.as_slice() else { return Err("the order has another rank".to_owned()) };
    let boxes: Vec<f32> = boxes.to_f64s().into_iter().map(|value| value as f32).collect();
    let dims = order.dims.clone();
    let (order, eligible) = (order.to_i64s(), eligible.to_i64s());
    let (threshold, most) = (threshold.to_f64s()[0] as f32, most.to_i64s()[0]);
    let mut keep = vec![0i64; order.len()];
    for row in 0..order.len().checked_div(n).unwrap_or(0) {
        let of_batch = row / classes * n;
        let mut kept: Vec<&[f32]> = Vec::new();
        for k in row * n..(row + 1) * n {
            let index = usize::try_from(order[k]).ok().filter(|index| *index < n);
            let at = of_batch + index.ok_or_else(|| format!("there is no box {}", order[k]))?;
            let candidate = &boxes[at * 4..][..4];
            let stays = eligible[k] != 0
                && (kept.len() as i64) < most
                && !kept.iter().any(|other| overlap(other, candidate, threshold));
            if stays {
                kept.push(candidate);
                keep[k] = 1;
            }
        }
    }
    Ok(vec![Tensor::encode(DType::Bool, dims, &Values::Int(keep))])
}

/// Whether two boxes share more than `threshold` of what they cover together. In `f32`, step by step, as every target
/// does it: a box on the threshold is judged alike everywhere.
fn overlap(a: &[f32], b: &[f32], threshold: f32) -> bool {
    let area = |box_: &[f32]| (box_[2] - box_[0]) * (box_[3] - box_[1]);
    let (height, width) = (a[2].min(b[2]) - a[0].max(b[0]), a[3].min(b[3]) - a[1].max(b[1]));
    if area(a) <= 0.0 || area(b) <= 0.0 || height <= 0.0 || width <= 0.0 {
        return false;
    }
    let shared = height * width;
    let covered = area(a) + area(b) - shared;
    covered > 0.0 && shared / covered > threshold
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_of_each_heap_stays() {
        // Two heaps of two boxes, in the order of their scores: 2, 0, 1, 3.
        let boxes = [0., 0., 1., 1., 0., 0.1, 1., 1.1, 5., 5., 6., 6., 5., 5., 6., 5.5];
        let boxes = Tensor::from_f64s(DType::F32, vec![1, 4, 4], &boxes);
        let order = Tensor::from_i64s(DType::I64, vec![1, 1, 4], &[2, 0, 1, 3]);
        let kept = |eligible: [i64; 4], threshold: f64, most: i64| {
            let eligible = Tensor::from_i64s(DType::Bool, vec![1, 1, 4], &eligible);
            let threshold = Tensor::from_f64s(DType::F32, Vec::new(), &[threshold]);
            let most = Tensor::from_i64s(DType::I64, Vec::new(), &[most]);
            suppress(&boxes, &order, &eligible, &threshold, &most).unwrap()[0].to_i64s()
        };
        assert_eq!(kept([1; 4], 0.5, 9), [1, 1, 0, 1]); // half of it is not more than half
        assert_eq!(kept([1; 4], 0.4, 9), [1, 1, 0, 0]);
        assert_eq!(kept([1; 4], 0.4, 1), [1, 0, 0, 0]);
        assert_eq!(kept([0, 0, 1, 1], 0.4, 9), [0, 0, 1, 1]);
        assert_eq!(kept([1; 4], 0.4, 0), [0; 4]);
    }
}
