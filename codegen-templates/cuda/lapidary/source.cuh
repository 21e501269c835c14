// source.cuh - which thread of a CTA fetches which run of an operand tile, and from where.
//
// A source stands for one operand of a matrix product. It serves the tile of rows by columns that
// starts at `k` on the K axis, in runs of W elements that are adjacent in the shared tile:
//   pointer(i, k)        address of this thread's i-th run
//   valid(i, k, k_end)   how many of its leading elements exist (the rest are zero)
//   run(i, k, k_end)     the run itself, zero-filled, read by plain loads
// MatrixSource is a strided matrix; families add their own (convolution: GatherNCHW).
#pragma once
#include "lapidary/prelude.cuh"

namespace lapidary {

// THREADS threads cover ROWS x COLS in runs of W_ columns, COUNT runs each.
template <int ROWS_, int COLS_, int W_, int THREADS_>
struct Cover {
  static constexpr int ROWS = ROWS_, COLS = COLS_, W = W_, THREADS = THREADS_;
  static_assert(COLS % W == 0, "a row is a whole number of runs");
  static constexpr int RUNS = COLS / W;
  static constexpr int COUNT = (ROWS * RUNS + THREADS - 1) / THREADS;
  static constexpr bool FULL = ROWS * RUNS % THREADS == 0;
  // A thread keeps its column over all its runs; or its rows are the same as every other's.
  static constexpr bool TALL = THREADS % RUNS == 0;
  static constexpr bool WIDE = !TALL && RUNS % THREADS == 0;
  static constexpr int ROW_STEP = TALL ? THREADS / RUNS : 1;
  static constexpr int RUNS_PER_THREAD = WIDE ? RUNS / THREADS : 1;

  static LAPIDARY_FN int row(int i) {
    const int t = static_cast<int>(threadIdx.x);
    if constexpr (TALL && RUNS % 32 == 0) return warp_id() / (RUNS / 32) + i * ROW_STEP;
    if constexpr (TALL) return t / RUNS + i * ROW_STEP;
    if constexpr (WIDE) return i / RUNS_PER_THREAD;
    return (t + i * THREADS) / RUNS;
  }
  static LAPIDARY_FN int col(int i) {
    const int t = static_cast<int>(threadIdx.x);
    if constexpr (TALL) return t % RUNS * W;
    if constexpr (WIDE) return (t + i % RUNS_PER_THREAD * THREADS) * W;
    return (t + i * THREADS) % RUNS * W;
  }
  static LAPIDARY_FN bool active(int i) {
    if constexpr (FULL) return true;
    return static_cast<int>(threadIdx.x) + i * THREADS < ROWS * RUNS;
  }
};

// Column x of a matrix lies x elements from its row's start.
struct PlainColumns {
  LAPIDARY_FN i64 operator()(int x) const { return x; }
};

// A matrix whose K axis is contiguous (K_CONTIGUOUS: tile rows are the free axis, tile columns K) or
// whose free axis is (tile rows are K). VEC: elements one load may take; the matrix, ld and the
// column map are multiples of it. The extents need not be.
template <class T_, class Cover_, int VEC, bool K_CONTIGUOUS_, class Columns = PlainColumns>
struct MatrixSource {
  using T = T_;
  using C = Cover_;
  static constexpr bool K_CONTIGUOUS = K_CONTIGUOUS_;
  static constexpr int W = C::W;
  static_assert(W % VEC == 0, "a run is a whole number of loads");

  const T* base;
  i64 ld;
  int left;  // free-axis elements from the tile's first to the matrix's end
  Columns columns;
  int x0;

  LAPIDARY_FN MatrixSource(const T* matrix, i64 ld_, int x0_, int extent, Columns columns_ = Columns{})
      : base(matrix), ld(ld_), left(extent - x0_), columns(columns_), x0(x0_) {
    if constexpr (K_CONTIGUOUS) {
      base += (C::TALL ? x0 + C::row(0) : x0) * ld + (C::TALL ? C::col(0) : 0);
    } else if constexpr (C::TALL) {
      base += C::row(0) * ld + columns(x0 + C::col(0));
    }
  }
  LAPIDARY_FN const T* pointer(int i, int k) const {
    if constexpr (K_CONTIGUOUS) {
      if constexpr (C::TALL) return base + i * C::ROW_STEP * ld + k;
      return base + C::row(i) * ld + C::col(i) + k;
    } else {
      if constexpr (C::TALL) return base + (k + i * C::ROW_STEP) * ld;
      return base + (k + C::row(i)) * ld + columns(x0 + C::col(i));
    }
  }
  LAPIDARY_FN int valid(int i, int k, int k_end) const {
    if constexpr (K_CONTIGUOUS) {
      return C::row(i) < left ? max(0, min(W, k_end - k - C::col(i))) : 0;
    } else {
      return k + C::row(i) < k_end ? max(0, min(W, left - C::col(i))) : 0;
    }
  }
  LAPIDARY_FN Vec<T, W> run(int i, int k, int k_end) const {
    Vec<T, W> r{};
    const T* p = pointer(i, k);
    const int n = valid(i, k, k_end);
#pragma unroll
    for (int j = 0; j < W; j += VEC) {
      if (j + VEC <= n) {
        const Vec<T, VEC> v = load_const<T, VEC>(p + j);
#pragma unroll
        for (int q = 0; q < VEC; ++q) r[j + q] = v[q];
      } else if constexpr (VEC > 1) {
#pragma unroll
        for (int q = 0; q < VEC; ++q) {
          if (j + q < n) r[j + q] = p[j + q];
        }
      }
    }
    return r;
  }
};

}  // namespace lapidary
