// suppress - greedy non-maximum suppression (ONNX NonMaxSuppression, the choice of boxes).
//
// Contract: see README.md. Every step is a rounded f32 operation of its own, as on the host, so that a box on the
// threshold is judged alike everywhere.
#pragma once

#include "lapidary/prelude.cuh"

namespace lapidary::suppress {

// boxes [batches, n, 4], order and eligible and keep [batches, classes, n].
struct Params {
  const float* boxes;
  const i64* order;
  const u8* eligible;
  const float* threshold;
  const i64* most;
  u8* keep;
  i64 classes, n;
};

struct Box {
  float top, left, bottom, right;
};

LAPIDARY_FN Box load(const float* boxes, i64 at) {
  const float* box = boxes + at * 4;
  return {box[0], box[1], box[2], box[3]};
}

LAPIDARY_FN float area(const Box& box) {
  return __fmul_rn(__fsub_rn(box.bottom, box.top), __fsub_rn(box.right, box.left));
}

// Whether the boxes share more than `threshold` of what they cover together.
LAPIDARY_FN bool overlap(const Box& a, const Box& b, float threshold) {
  const float areas[2] = {area(a), area(b)};
  if (areas[0] <= 0.0f || areas[1] <= 0.0f) return false;
  const float height = __fsub_rn(fminf(a.bottom, b.bottom), fmaxf(a.top, b.top));
  const float width = __fsub_rn(fminf(a.right, b.right), fmaxf(a.left, b.left));
  if (height <= 0.0f || width <= 0.0f) return false;
  const float shared = __fmul_rn(height, width);
  const float covered = __fsub_rn(__fadd_rn(areas[0], areas[1]), shared);
  return covered > 0.0f && __fdiv_rn(shared, covered) > threshold;
}

// A CTA a class of a batch.
template <class Policy>
LAPIDARY_FN void rows(const Params& p) {
  constexpr int THREADS = Policy::THREADS;
  const i64 row = static_cast<i64>(blockIdx.x);
  const float* boxes = p.boxes + row / p.classes * p.n * 4;
  const i64* order = p.order + row * p.n;
  u8* keep = p.keep + row * p.n;
  const float threshold = *p.threshold;
  const i64 most = *p.most;
  for (i64 k = threadIdx.x; k < p.n; k += THREADS) keep[k] = p.eligible[row * p.n + k];
  __syncthreads();
  i64 kept = 0;
  for (i64 k = 0; k < p.n; ++k) {
    if (!keep[k]) continue;
    if (kept >= most) {
      // All threads have read keep[k] before one of them clears it.
      __syncthreads();
      for (i64 j = k + threadIdx.x; j < p.n; j += THREADS) keep[j] = 0;
      break;
    }
    ++kept;
    const Box best = load(boxes, order[k]);
    for (i64 j = k + 1 + threadIdx.x; j < p.n; j += THREADS) {
      if (keep[j] && overlap(best, load(boxes, order[j]), threshold)) keep[j] = 0;
    }
    __syncthreads();
  }
}

}  // namespace lapidary::suppress
