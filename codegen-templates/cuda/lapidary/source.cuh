// source.cuh - which thread of a CTA fetches which run of an operand tile, and from where.
//
// A source stands for one operand of a matrix product. After seek(k, k_end) it serves the tile of rows
// by columns that starts at k on the K axis, in runs of W elements adjacent in the shared tile:
//   cover        this thread's runs: run i is at (cover.row(i), cover.col(i))
//   pointer(i)   address of run i
//   valid(i)     how many of its leading elements exist (the rest are zero)
//   run(i)       the run itself, zero-filled, read by plain loads
// Whole warps call seek together. MatrixSource is a strided matrix; families add their own
// (convolution: GatherNCHW).
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

  int row0, col0;

  LAPIDARY_FN Cover() {
    const int t = static_cast<int>(threadIdx.x);
    // A row that fills whole warps is the same for all lanes, and the compiler should know.
    row0 = !TALL ? 0 : RUNS % 32 == 0 ? warp_id() / (RUNS / 32) : t / RUNS;
    col0 = TALL ? t % RUNS * W : 0;
  }
  LAPIDARY_FN int row(int i) const {
    if constexpr (TALL) return row0 + i * ROW_STEP;
    if constexpr (WIDE) return i / RUNS_PER_THREAD;
    return (static_cast<int>(threadIdx.x) + i * THREADS) / RUNS;
  }
  LAPIDARY_FN int col(int i) const {
    const int t = static_cast<int>(threadIdx.x);
    if constexpr (TALL) return col0;
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

  C cover;
  const T* base;  // of the thread's first run (TALL) or of the tile, at k = 0
  const T* at;    // likewise at the sought k
  i64 ld, step;   // step: between a thread's runs
  int x0, left;   // the tile's corner on the free axis, and how much of the matrix lies beyond it
  int k_left;     // likewise on the K axis
  Columns columns;

  LAPIDARY_FN MatrixSource(const T* matrix, i64 ld_, int x0_, int extent, Columns columns_ = Columns{})
      : base(matrix), at(matrix), ld(ld_), step(C::ROW_STEP * ld_), x0(x0_), left(extent - x0_), k_left(0), columns(columns_) {
    if constexpr (K_CONTIGUOUS) {
      base += (x0 + cover.row0) * ld + cover.col0;
    } else if constexpr (C::TALL) {
      base += cover.row0 * ld + columns(x0 + cover.col0);
    }
  }
  LAPIDARY_FN void seek(int k, int k_end) {
    at = base + (K_CONTIGUOUS ? static_cast<i64>(k) : k * ld);
    k_left = k_end - k;
  }
  LAPIDARY_FN const T* pointer(int i) const {
    if constexpr (C::TALL) return at + i * step;
    return at + cover.row(i) * ld + (K_CONTIGUOUS ? cover.col(i) : columns(x0 + cover.col(i)));
  }
  LAPIDARY_FN int valid(int i) const {
    const int row_end = K_CONTIGUOUS ? left : k_left, col_end = K_CONTIGUOUS ? k_left : left;
    return cover.row(i) < row_end ? max(0, min(W, col_end - cover.col(i))) : 0;
  }
  LAPIDARY_FN Vec<T, W> run(int i) const {
    Vec<T, W> r{};
    const T* p = pointer(i);
    const int n = valid(i);
#pragma unroll
    for (int j = 0; j < W; j += VEC) {
      if constexpr (VEC == 1) {
        r[j] = load_const_if(j < n, p + j);
      } else if (j + VEC <= n) {
        const Vec<T, VEC> v = load_const<T, VEC>(p + j);
#pragma unroll
        for (int q = 0; q < VEC; ++q) r[j + q] = v[q];
      } else {
#pragma unroll
        for (int q = 0; q < VEC; ++q) r[j + q] = load_const_if(j + q < n, p + j + q);
      }
    }
    return r;
  }
};

}  // namespace lapidary
