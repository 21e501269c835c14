// topk - the k largest or smallest elements along one axis, sorted, and their positions.
//
// Contract: see README.md. Of equal elements the one with the lower position comes first; NaN is the largest.
#pragma once

#include "lapidary/team.cuh"
#include "lapidary/wide.cuh"

namespace lapidary::topk {

// x [outer, n, inner]; values and indices [outer, k, inner], null where not wanted; k <= n < 2^31.
struct Params {
  const void* x;
  void* values;
  i64* indices;
  i64 outer, n, inner, k;
};

template <class Policy, class C>
LAPIDARY_FN bool beats(const C& a, const C& b) {
  if (math::isnan(a) || math::isnan(b)) {
    return Policy::LARGEST ? math::isnan(a) && !math::isnan(b) : !math::isnan(a) && math::isnan(b);
  }
  return Policy::LARGEST ? a > b : a < b;
}
// The order of the result. An empty place (position below zero) comes last.
template <class Policy, class C>
LAPIDARY_FN bool precedes(const C& a, i32 a_at, const C& b, i32 b_at) {
  if (a_at < 0 || b_at < 0) return a_at >= 0 && b_at < 0;
  if (beats<Policy>(a, b)) return true;
  return !beats<Policy>(b, a) && a_at < b_at;
}

// A CTA a row: sorts SIZE elements in shared memory, keeps the first half, takes in SIZE / 2 more, and so on.
// k <= SIZE / 2, or k <= SIZE and n <= SIZE.
template <class Policy>
LAPIDARY_FN void sorted(const Params& p) {
  using X = typename Policy::X;
  using C = Compute<X>;
  constexpr int SIZE = Policy::SIZE, THREADS = Policy::THREADS;
  static_assert((SIZE & (SIZE - 1)) == 0, "a bitonic network sorts a power of two");
  C* values = reinterpret_cast<C*>(dynamic_smem());
  i32* at = reinterpret_cast<i32*>(dynamic_smem() + SIZE * (sizeof(C) < 4 ? 4 : sizeof(C)));
  const i64 row = static_cast<i64>(blockIdx.x);
  const i64 base = row / p.inner * p.n * p.inner + row % p.inner;
  const i32 n = static_cast<i32>(p.n);
  i32 taken = 0;
  int from = 0;
  do {
    for (int i = from + threadIdx.x; i < SIZE; i += THREADS) {
      const i32 source = taken + (i - from);
      at[i] = source < n ? source : -1;
      values[i] = source < n ? widen<X>(static_cast<const Memory<X>*>(p.x)[base + source * p.inner])
                             : static_cast<C>(0);
    }
    taken += lapidary::min(SIZE - from, n - taken);
    from = SIZE / 2;
    for (int run = 2; run <= SIZE; run *= 2) {
      for (int distance = run / 2; distance > 0; distance /= 2) {
        __syncthreads();
        for (int pair = threadIdx.x; pair < SIZE / 2; pair += THREADS) {
          const int low = 2 * pair - (pair & (distance - 1)), high = low + distance;
          const bool ascending = (low & run) == 0;
          if (precedes<Policy>(values[high], at[high], values[low], at[low]) == ascending) {
            const C value = values[low];
            const i32 position = at[low];
            values[low] = values[high];
            at[low] = at[high];
            values[high] = value;
            at[high] = position;
          }
        }
      }
    }
    __syncthreads();
  } while (taken < n);
  for (i64 i = threadIdx.x; i < p.k; i += THREADS) {
    const i64 to = (row / p.inner * p.k + i) * p.inner + row % p.inner;
    if (p.values != nullptr) static_cast<Memory<X>*>(p.values)[to] = narrow<X>(values[i]);
    if (p.indices != nullptr) p.indices[to] = at[i];
  }
}

// Any k: each element counts how many precede it, and that is its place. A CTA takes THREADS elements of a row.
template <class Policy>
LAPIDARY_FN void counted(const Params& p) {
  using X = typename Policy::X;
  using C = Compute<X>;
  constexpr int THREADS = Policy::THREADS;
  __shared__ C others[THREADS];
  const i64 blocks = ceil_div<i64>(p.n, THREADS);
  const i64 row = static_cast<i64>(blockIdx.x) / blocks;
  const i32 mine = static_cast<i32>(static_cast<i64>(blockIdx.x) % blocks * THREADS + threadIdx.x);
  const Memory<X>* x = static_cast<const Memory<X>*>(p.x) + row / p.inner * p.n * p.inner + row % p.inner;
  const i32 n = static_cast<i32>(p.n);
  const C value = mine < n ? widen<X>(x[mine * p.inner]) : static_cast<C>(0);
  i64 place = 0;
  for (i32 first = 0; first < n; first += THREADS) {
    __syncthreads();
    const i32 other = first + static_cast<i32>(threadIdx.x);
    if (other < n) others[threadIdx.x] = widen<X>(x[other * p.inner]);
    __syncthreads();
    const int count = lapidary::min(THREADS, n - first);
    for (int i = 0; i < count; ++i) place += precedes<Policy>(others[i], first + i, value, mine) ? 1 : 0;
  }
  if (mine < n && place < p.k) {
    const i64 to = (row / p.inner * p.k + place) * p.inner + row % p.inner;
    if (p.values != nullptr) static_cast<Memory<X>*>(p.values)[to] = narrow<X>(value);
    if (p.indices != nullptr) p.indices[to] = mine;
  }
}

}  // namespace lapidary::topk
