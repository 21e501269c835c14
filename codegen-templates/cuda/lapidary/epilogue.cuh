// epilogue.cuh - from accumulators to stored outputs, for every family that computes a matrix product.
//
// An epilogue is what the compiler fused behind the product:
//   struct Epi {
//     using Out = f16;
//     struct Params { Out* y; /* further inputs */ };
//     static __device__ float apply(const Params&, float acc, long long o, int ch);
//   };
// `o` is the linear index in the contiguous output, `ch` its channel. apply takes and returns the
// accumulator's type (float; i32 and f64 for those products); the result is converted to Out.
//
// A map places the product in the output: element (m, n) is at row(m) + column(n).
//   struct Map {
//     static constexpr int CHANNEL_STEP;   // 1: the channel moves with n; 0: with m
//     int m, n;                            // extents of the product
//     i64 row(int) const, column(int) const;
//     int channel(int m, int n) const;
//   };
#pragma once
#include "lapidary/prelude.cuh"

namespace lapidary {

// The row of all rows, and the column of each matrix's own, that output o lies in. 32-bit divisions
// are several times shorter, and they do for all but the largest results.
LAPIDARY_FN i64 row_of(i64 o, int columns) {
  return o >> 32 == 0 ? static_cast<i64>(static_cast<u32>(o) / static_cast<u32>(columns)) : o / columns;
}
LAPIDARY_FN i64 column_of(i64 o, int rows, int columns) {
  const i64 row = row_of(o, columns);
  return row_of(row, rows) * columns + (o - row * columns);
}

// Applies the epilogue to N adjacent outputs from `o` on and stores them; N is a power of two, and
// the compiler has proved y + o a multiple of N elements.
template <class Epi, int N, int CHANNEL_STEP, class A>
LAPIDARY_FN void emit(const typename Epi::Params& e, const A (&acc)[N], i64 o, int ch) {
  using Out = typename Epi::Out;
  constexpr int PIECE = N * int(sizeof(Out)) > 16 ? 16 / int(sizeof(Out)) : N;
#pragma unroll
  for (int p = 0; p < N; p += PIECE) {
    Vec<Out, PIECE> r;
#pragma unroll
    for (int j = 0; j < PIECE; ++j) r[j] = convert<Out>(Epi::apply(e, acc[p + j], o + p + j, ch + (p + j) * CHANNEL_STEP));
    store(e.y + o + p, r);
  }
}

// The tile of the output that a CTA computes. Tiles go in bands of BAND tile rows, down the band and
// then on to its next column, so that the CTAs in flight share rows and columns in L2.
struct TileIndex {
  int m, n;
};
template <int BAND>
LAPIDARY_FN TileIndex tile_index(int t, int tiles_m, int tiles_n) {
  const int band = t / (BAND * tiles_n);
  const int rest = t - band * BAND * tiles_n;
  const int height = min(BAND, tiles_m - band * BAND);
  const int n = rest / height;
  return {band * BAND + rest - n * height, n};
}

}  // namespace lapidary
