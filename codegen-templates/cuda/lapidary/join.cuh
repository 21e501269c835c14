// join.cuh - one result of the sums that several CTAs have formed, each over its part of K.
//
// A kernel whose K is split runs gridDim.z CTAs a tile. Each puts its sums into a workspace; the one
// that finishes last adds all of them, part by part from the first on, and runs the epilogue. The
// order of the sum is fixed, whoever is last, so the bits are the same on every run.
//
// What the order of memory accesses rests on: the barrier puts the stores of a CTA's threads before
// its thread 0's atomic, whose release makes them visible to the GPU before the count; the last CTA's
// atomic reads the counts of the others, and its acquire and second barrier put its loads behind.
// Not here: the epilogue, which a tile's finish runs.
#pragma once
#include "lapidary/prelude.cuh"

namespace lapidary {

// What follows the products of a tile. join<THREADS>(sums) says whether this CTA goes on to the
// epilogue, with the whole sums in `sums`; all of a CTA's threads call it together.

// All of K is this CTA's.
struct Whole {
  template <int THREADS, class A, int N>
  LAPIDARY_FN bool join(A (&)[N]) const {
    return true;
  }
};

// atomicInc with release and acquire: the count before, which becomes 0 again where it was `most`.
LAPIDARY_FN u32 arrive(u32* count, u32 most) {
  u32 before;
  asm volatile("atom.acq_rel.gpu.global.inc.u32 %0, [%1], %2;" : "=r"(before) : "l"(__cvta_generic_to_global(count)), "r"(most) : "memory");
  return before;
}

// K is split over gridDim.z. sums: for each tile (blockIdx.x and y) and part THREADS * N elements,
// 16-byte aligned, with any contents; arrived: for each tile a count, 0 before the launch and behind it.
template <class A>
struct Parts {
  A* sums;
  u32* arrived;

  // A thread keeps its own sums' places in all parts, so that a warp's accesses are adjacent.
  template <int THREADS, int N>
  LAPIDARY_FN bool join(A (&acc)[N]) const {
    constexpr int WIDEST = 16 / int(sizeof(A)), V = N % WIDEST == 0 ? WIDEST : 1;
    constexpr i64 TILE = static_cast<i64>(THREADS) * N;
    const i64 tile = static_cast<i64>(blockIdx.y) * gridDim.x + blockIdx.x;
    A* const first = sums + tile * gridDim.z * TILE + static_cast<int>(threadIdx.x) * V;
    A* const own = first + blockIdx.z * TILE;
#pragma unroll
    for (int q = 0; q < N; q += V) {
      Vec<A, V> x;
#pragma unroll
      for (int j = 0; j < V; ++j) x[j] = acc[q + j];
      store(own + q * THREADS, x);
    }
    __syncthreads();
    const bool last = threadIdx.x == 0 && arrive(arrived + tile, gridDim.z - 1) == gridDim.z - 1;
    if (__syncthreads_or(last) == 0) return false;
#pragma unroll
    for (int q = 0; q < N; ++q) acc[q] = A{};
    // Several parts' loads are in flight where registers hold them.
#pragma unroll(N > 32 ? 1 : N > 16 ? 2 : N > 2 ? 4 : 8)
    for (u32 part = 0; part < gridDim.z; ++part) {
#pragma unroll
      for (int q = 0; q < N; q += V) {
        const Vec<A, V> x = load_l2<A, V>(first + part * TILE + q * THREADS);
#pragma unroll
        for (int j = 0; j < V; ++j) acc[q + j] += x[j];
      }
    }
    return true;
  }
};

}  // namespace lapidary
