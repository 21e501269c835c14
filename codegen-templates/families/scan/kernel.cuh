// scan - running sums along one axis (ONNX CumSum).
//
// Contract: see README.md. Sums are f32 for f16 and bf16, the dtype itself otherwise; integers wrap. The order of
// addition depends on the policy and the extents alone.
#pragma once

#include "lapidary/team.cuh"
#include "lapidary/wide.cuh"

namespace lapidary::scan {

// x, y [outer, n, inner].
struct Params {
  const void* x;
  void* y;
  i64 outer, n, inner;
};

// inner == 1: a CTA a row, PER_THREAD neighbouring elements a thread.
template <class Policy>
LAPIDARY_FN void rows(const Params& p) {
  using T = typename Policy::T;
  using C = Compute<T>;
  constexpr int THREADS = Policy::THREADS, PER_THREAD = Policy::PER_THREAD, WARPS = THREADS / 32;
  __shared__ C warp_sums[WARPS];
  const i64 row = static_cast<i64>(blockIdx.x);
  const Memory<T>* x = static_cast<const Memory<T>*>(p.x) + row * p.n;
  Memory<T>* y = static_cast<Memory<T>*>(p.y) + row * p.n;
  const auto place = [&](i64 i) { return Policy::REVERSE ? p.n - 1 - i : i; };
  C carry = static_cast<C>(0);
  for (i64 first = 0; first < p.n; first += THREADS * PER_THREAD) {
    const i64 begin = first + static_cast<i64>(threadIdx.x) * PER_THREAD;
    C values[PER_THREAD];
    C sum = static_cast<C>(0);
#pragma unroll
    for (int e = 0; e < PER_THREAD; ++e) {
      values[e] = begin + e < p.n ? widen<T>(x[place(begin + e)]) : static_cast<C>(0);
      sum = math::add(sum, values[e]);
    }
    // The sum of the threads before this one: in the warp, then of the warps before.
    C inclusive = sum;
#pragma unroll
    for (int distance = 1; distance < 32; distance *= 2) {
      const C other = shuffle_up(inclusive, distance);
      if (lane_id() >= distance) inclusive = math::add(other, inclusive);
    }
    __syncthreads();
    if (lane_id() == 31) warp_sums[threadIdx.x / 32] = inclusive;
    __syncthreads();
    C before = carry;
    for (int w = 0; w < WARPS; ++w) {
      if (w < static_cast<int>(threadIdx.x) / 32) before = math::add(before, warp_sums[w]);
      carry = math::add(carry, warp_sums[w]);
    }
    const C left = shuffle_up(inclusive, 1);
    if (lane_id() > 0) before = math::add(before, left);
#pragma unroll
    for (int e = 0; e < PER_THREAD; ++e) {
      const C after = math::add(before, values[e]);
      if (begin + e < p.n) y[place(begin + e)] = narrow<T>(Policy::EXCLUSIVE ? before : after);
      before = after;
    }
  }
}

// Any inner: one thread a row.
template <class Policy>
LAPIDARY_FN void columns(const Params& p) {
  using T = typename Policy::T;
  using C = Compute<T>;
  const i64 total = p.outer * p.inner;
  for (i64 column = grid_thread<i64>(); column < total; column += grid_threads<i64>()) {
    i64 outer, inner;
    divide(column, p.inner, outer, inner);
    const i64 base = outer * p.n * p.inner + inner;
    C sum = static_cast<C>(0);
#pragma unroll 4
    for (i64 i = 0; i < p.n; ++i) {
      const i64 at = base + (Policy::REVERSE ? p.n - 1 - i : i) * p.inner;
      const C after = math::add(sum, widen<T>(static_cast<const Memory<T>*>(p.x)[at]));
      static_cast<Memory<T>*>(p.y)[at] = narrow<T>(Policy::EXCLUSIVE ? sum : after);
      sum = after;
    }
  }
}

}  // namespace lapidary::scan
