// simt_tile.cuh - one CTA's product of a BM x BK by BK x BN tile sequence on the scalar units.
//
// Contract: as mma_tile.cuh, but for any element types with an exact accumulator A: float products
// are true FP32 fused multiply-adds, never TF32. Shape is any struct with BM, BN, BK, TM, TN (the
// thread's tile, powers of two): a CTA is (BM / TM) * (BN / TN) threads in x.
#pragma once
#include "lapidary/epilogue.cuh"
#include "lapidary/join.cuh"
#include "lapidary/source.cuh"

namespace lapidary {

// Fetches a source's tile into registers and stores it, widened to A, as [k][free axis].
template <class A, class Source, int STRIDE>
struct WideningLoader {
  using T = typename Source::T;
  using C = typename Source::C;
  Source source;
  Vec<T, C::W> runs[C::COUNT];
  LAPIDARY_FN void fetch(int k, int k_end) {
    source.seek(k, k_end);
#pragma unroll
    for (int i = 0; i < C::COUNT; ++i) {
      if (C::active(i)) runs[i] = source.run(i);
    }
  }
  LAPIDARY_FN void commit(A* tile) const {
#pragma unroll
    for (int i = 0; i < C::COUNT; ++i) {
      if (!C::active(i)) continue;
#pragma unroll
      for (int j = 0; j < C::W; ++j) {
        const A x = convert<A>(runs[i][j]);
        if constexpr (Source::K_CONTIGUOUS) {
          tile[(source.cover.col(i) + j) * STRIDE + source.cover.row(i)] = x;
        } else {
          tile[source.cover.row(i) * STRIDE + source.cover.col(i) + j] = x;
        }
      }
    }
  }
};

template <class A, class Shape>
struct SimtTile {
  static constexpr int BM = Shape::BM, BN = Shape::BN, BK = Shape::BK, TM = Shape::TM, TN = Shape::TN;
  static constexpr int THREADS_M = BM / TM, THREADS_N = BN / TN, THREADS = THREADS_M * THREADS_N;
  static_assert(BM % TM == 0 && BN % TN == 0, "threads tile the CTA's tile");
  // A thread owns groups of GM adjacent rows, THREADS_M * GM apart, so that the groups that a warp
  // reads together are adjacent in shared memory; columns alike.
  static constexpr int GM = TM < 4 ? TM : 4, GN = TN < 4 ? TN : 4;
  // Four elements of padding keep rows 16-byte aligned and spread a transposing store over banks.
  static constexpr int A_STRIDE = BM + 4, B_STRIDE = BN + 4;
  static constexpr int STAGE = BK * (A_STRIDE + B_STRIDE);  // elements of A
  static constexpr int SMEM_BYTES = 2 * STAGE * int(sizeof(A));
  static_assert(SMEM_BYTES <= 48 * 1024, "two stages fit static shared memory");

  A acc[TM][TN];
  int row, col;  // the thread's first group

  LAPIDARY_FN SimtTile() {
    row = static_cast<int>(threadIdx.x) / THREADS_N * GM;
    col = static_cast<int>(threadIdx.x) % THREADS_N * GN;
#pragma unroll
    for (int i = 0; i < TM; ++i)
#pragma unroll
      for (int j = 0; j < TN; ++j) acc[i][j] = A{};
  }
  static LAPIDARY_FN int row_step(int i) { return i / GM * (THREADS_M * GM) + i % GM; }
  static LAPIDARY_FN int col_step(int j) { return j / GN * (THREADS_N * GN) + j % GN; }

  template <int COUNT, int GROUP>
  static LAPIDARY_FN void read(A (&r)[COUNT], const A* from, int stride) {
    constexpr int PIECE = GROUP * int(sizeof(A)) > 16 ? 16 / int(sizeof(A)) : GROUP;
#pragma unroll
    for (int i = 0; i < COUNT; i += PIECE) {
      const Vec<A, PIECE> v = load<A, PIECE>(from + i / GROUP * stride + i % GROUP);
#pragma unroll
      for (int q = 0; q < PIECE; ++q) r[i + q] = v[q];
    }
  }
  LAPIDARY_FN void multiply(const A* stage) {
    const A* a_tile = stage + row;
    const A* b_tile = stage + BK * A_STRIDE + col;
#pragma unroll
    for (int k = 0; k < BK; ++k) {
      A a[TM], b[TN];
      read<TM, GM>(a, a_tile + k * A_STRIDE, THREADS_M * GM);
      read<TN, GN>(b, b_tile + k * B_STRIDE, THREADS_N * GN);
#pragma unroll
      for (int i = 0; i < TM; ++i)
#pragma unroll
        for (int j = 0; j < TN; ++j) acc[i][j] += a[i] * b[j];
    }
  }

  // acc += A[:, k_begin..k_end] * B[k_begin..k_end, :], one tile in registers ahead of two in shared
  // memory (`smem`, SMEM_BYTES).
  template <class LoaderA, class LoaderB>
  LAPIDARY_FN void accumulate(LoaderA& a, LoaderB& b, A* smem, int k_begin, int k_end) {
    if (k_begin >= k_end) return;
    a.fetch(k_begin, k_end);
    b.fetch(k_begin, k_end);
    a.commit(smem);
    b.commit(smem + BK * A_STRIDE);
    __syncthreads();
    int now = 0;
#pragma unroll 1
    for (int k = k_begin; k < k_end; k += BK) {
      const bool more = k + BK < k_end;
      if (more) {
        a.fetch(k + BK, k_end);
        b.fetch(k + BK, k_end);
      }
      multiply(smem + now * STAGE);
      now ^= 1;
      if (more) {
        a.commit(smem + now * STAGE);
        b.commit(smem + now * STAGE + BK * A_STRIDE);
      }
      __syncthreads();
    }
  }

  // See join.cuh.
  template <class Join>
  LAPIDARY_FN bool join(const Join& with) {
    return with.template join<THREADS>(reinterpret_cast<A(&)[TM * TN]>(acc));
  }

  // Stores the tile whose corner in the product is (m0, n0), up to VEC adjacent columns a store.
  template <class Epi, int VEC, class Map>
  LAPIDARY_FN void finish(const typename Epi::Params& e, const Map& map, int m0, int n0) const {
    constexpr int N = VEC < GN ? VEC : GN;
#pragma unroll
    for (int j = 0; j < TN; j += N) {
      const int n = n0 + col + col_step(j);
      if (n >= map.n) continue;
      const i64 column = map.column(n);
#pragma unroll
      for (int i = 0; i < TM; ++i) {
        const int m = m0 + row + row_step(i);
        if (m >= map.m) continue;
        A x[N];
#pragma unroll
        for (int q = 0; q < N; ++q) x[q] = acc[i][j + q];
        emit<Epi, N, Map::CHANNEL_STEP>(e, x, map.row(m) + column, map.channel(m, n));
      }
    }
  }
};

}  // namespace lapidary
