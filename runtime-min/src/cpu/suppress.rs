//! Greedy non-maximum suppression of boxes in falling order of their scores (ONNX `NonMaxSuppression`).

use crate::cpu::gather::OutOfRange;
use crate::cpu::memory::{Inputs, TensorMut};

/// Operands boxes `[batches, n, 4]`, order and eligible `[batches, classes, n]`, threshold and most, scalars; the result,
/// of the order's shape, says which stay.
pub fn run(inputs: &Inputs<'_>, out: &mut TensorMut<'_>) -> Result<(), OutOfRange> {
    let operands = [0, 1, 2, 3, 4].map(|k| inputs.need(k));
    let [boxes, order, eligible, threshold, most] = &operands;
    let (classes, n) = (order.dims[1], order.dims[2]);
    let (threshold, most) = (threshold.data::<f32>()[0], most.data::<i64>()[0]);
    if order.dims.count() == 0 {
        return Ok(());
    }
    let rows =
        order.data::<i64>().chunks_exact(n).zip(eligible.bytes.chunks_exact(n)).zip(out.bytes.chunks_exact_mut(n));
    for (row, ((order, eligible), keep)) in rows.enumerate() {
        let boxes = &boxes.data::<f32>()[row / classes * n * 4..][..n * 4];
        if let Some(&index) = order.iter().find(|&&index| !(0..n as i64).contains(&index)) {
            return Err(OutOfRange { index, extent: n as i64 });
        }
        let at = |k: usize| -> [f32; 4] {
            let start = order[k] as usize * 4;
            [boxes[start], boxes[start + 1], boxes[start + 2], boxes[start + 3]]
        };
        keep.copy_from_slice(eligible);
        let mut kept = 0;
        for k in 0..n {
            if keep[k] == 0 {
                continue;
            }
            if kept >= most {
                keep[k..].fill(0);
                break;
            }
            kept += 1;
            let best = at(k);
            for (keep, j) in keep[k + 1..].iter_mut().zip(k + 1..) {
                if *keep != 0 && overlap(best, at(j), threshold) {
                    *keep = 0;
                }
            }
        }
    }
    Ok(())
}

/// Whether two boxes share more than `threshold` of what they cover together.
fn overlap(a: [f32; 4], b: [f32; 4], threshold: f32) -> bool {
    let area = |[top, left, bottom, right]: [f32; 4]| (bottom - top) * (right - left);
    let areas = [area(a), area(b)];
    if areas[0] <= 0.0 || areas[1] <= 0.0 {
        return false;
    }
    let (height, width) = (a[2].min(b[2]) - a[0].max(b[0]), a[3].min(b[3]) - a[1].max(b[1]));
    if height <= 0.0 || width <= 0.0 {
        return false;
    }
    let shared = height * width;
    let covered = areas[0] + areas[1] - shared;
    covered > 0.0 && shared / covered > threshold
}
