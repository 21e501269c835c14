// gemm - batched matrix products C[b, m, n] = A[b, m, k] * B[b, k, n] with a fused epilogue.
//
// Bodies of four kernels, each called from a small entry that the compiler writes (README.md):
//   gemm::mma    tensor cores: f16, bf16, tf32, FP32 accumulate; i8 and u8, i32; cp.async pipeline
//   gemm::simt   scalar units: f32 (true FP32), f64, integers, any mix that Acc holds
//   gemm::gemv   m <= 8, bound by reading B once
// K may be split over gridDim.z: the last CTA of a tile to finish adds the parts (join.cuh).
// C is contiguous. A is stored [m, k] or, with TRANS_A, [k, m]; B [k, n] or, with TRANS_B, [n, k].
// Not here: convolution, wgmma, the choice of a policy.
#pragma once
#include "lapidary/mma_tile.cuh"
#include "lapidary/simt_tile.cuh"

namespace lapidary::gemm {

// Extents and strides are in elements. A batch stride of 0 broadcasts that operand over the axis;
// absent batch axes have extent 1. k_per_split is k, or a multiple of BK when gridDim.z > 1, and
// then the body is given Parts.
template <class TA, class TB>
struct Params {
  const TA* a;
  const TB* b;
  int m, n, k;
  i64 lda, ldb;
  int batch[3];
  i64 a_stride[3], b_stride[3];
  int k_per_split;
};

struct Map {
  static constexpr int CHANNEL_STEP = 1;
  int m, n;
  i64 first;  // of this matrix of the batch
  LAPIDARY_FN i64 row(int i) const { return first + static_cast<i64>(i) * n; }
  LAPIDARY_FN i64 column(int j) const { return j; }
  LAPIDARY_FN int channel(int, int j) const { return j; }
};

// One CTA's share: its operands' matrices, its tile, its part of K.
template <class TA, class TB>
struct Work {
  const TA* a;
  const TB* b;
  TileIndex tile;
  int k_begin, k_end;
  Map map;
};
template <int BM, int BN, int BAND, class TA, class TB>
LAPIDARY_FN Work<TA, TB> work_of(const Params<TA, TB>& p) {
  const int tiles_m = ceil_div(p.m, BM), tiles_n = ceil_div(p.n, BN), tiles = tiles_m * tiles_n;
  const int batch = static_cast<int>(blockIdx.x) / tiles;
  const int i2 = batch % p.batch[2], outer = batch / p.batch[2];
  const int i1 = outer % p.batch[1], i0 = outer / p.batch[1];
  const int k_begin = static_cast<int>(blockIdx.z) * p.k_per_split;
  return {p.a + i0 * p.a_stride[0] + i1 * p.a_stride[1] + i2 * p.a_stride[2],
          p.b + i0 * p.b_stride[0] + i1 * p.b_stride[1] + i2 * p.b_stride[2],
          tile_index<BAND>(static_cast<int>(blockIdx.x) - batch * tiles, tiles_m, tiles_n),
          k_begin,
          min(p.k, k_begin + p.k_per_split),
          Map{p.m, p.n, static_cast<i64>(batch) * p.m * p.n}};
}
// Policy: TA, TB, BM, BN, BK, WM, WN, STAGES, TRANS_A, TRANS_B, VEC_A, VEC_B, VEC_C, BAND.
template <class Policy>
struct Mma {
  using TA = typename Policy::TA;
  using TB = typename Policy::TB;
  using Tile = MmaTile<TA, Policy, !Policy::TRANS_A, Policy::TRANS_B, TB>;
  static constexpr int THREADS = Tile::THREADS, SMEM_BYTES = Tile::SMEM_BYTES;

  static constexpr int WA = run_width<TA, Policy::VEC_A>, WB = run_width<TB, Policy::VEC_B>;
  using CoverA = select_t<Policy::TRANS_A, Cover<Policy::BK, Policy::BM, WA, THREADS>, Cover<Policy::BM, Policy::BK, WA, THREADS>>;
  using CoverB = select_t<Policy::TRANS_B, Cover<Policy::BN, Policy::BK, WB, THREADS>, Cover<Policy::BK, Policy::BN, WB, THREADS>>;
  using SourceA = MatrixSource<TA, CoverA, Policy::VEC_A, !Policy::TRANS_A>;
  using SourceB = MatrixSource<TB, CoverB, Policy::VEC_B, Policy::TRANS_B>;
  using LoaderA = Loader<typename Tile::ATile, SourceA, Policy::VEC_A * int(sizeof(TA))>;
  using LoaderB = Loader<typename Tile::BTile, SourceB, Policy::VEC_B * int(sizeof(TB))>;

  template <class Epi, class Join>
  static LAPIDARY_FN void run(const Params<TA, TB>& p, const typename Epi::Params& e, const Join& with) {
    const Work<TA, TB> w = work_of<Policy::BM, Policy::BN, Policy::BAND>(p);
    const int m0 = w.tile.m * Policy::BM, n0 = w.tile.n * Policy::BN;
    u8* smem = dynamic_smem();
    LoaderA a{SourceA(w.a, p.lda, m0, p.m)};
    LoaderB b{SourceB(w.b, p.ldb, n0, p.n)};
    Tile tile;
    tile.accumulate(a, b, smem_address(smem), w.k_begin, w.k_end);
    if (!tile.join(with)) return;
    tile.template finish<Epi, Policy::VEC_C>(e, w.map, smem, m0, n0);
  }
};
template <class Policy, class Epi, class Join = Whole>
LAPIDARY_FN void mma(const Params<typename Policy::TA, typename Policy::TB>& p, const typename Epi::Params& e, const Join& with = {}) {
  Mma<Policy>::template run<Epi>(p, e, with);
}

// Policy: TA, TB, A (accumulator), BM, BN, BK, TM, TN, TRANS_A, TRANS_B, VEC_A, VEC_B, VEC_C, BAND.
template <class Policy>
struct Simt {
  using TA = typename Policy::TA;
  using TB = typename Policy::TB;
  using A = typename Policy::A;
  using Tile = SimtTile<A, Policy>;
  static constexpr int THREADS = Tile::THREADS;

  using CoverA = select_t<Policy::TRANS_A, Cover<Policy::BK, Policy::BM, Policy::VEC_A, THREADS>, Cover<Policy::BM, Policy::BK, Policy::VEC_A, THREADS>>;
  using CoverB = select_t<Policy::TRANS_B, Cover<Policy::BN, Policy::BK, Policy::VEC_B, THREADS>, Cover<Policy::BK, Policy::BN, Policy::VEC_B, THREADS>>;
  using SourceA = MatrixSource<TA, CoverA, Policy::VEC_A, !Policy::TRANS_A>;
  using SourceB = MatrixSource<TB, CoverB, Policy::VEC_B, Policy::TRANS_B>;

  template <class Epi, class Join>
  static LAPIDARY_FN void run(const Params<TA, TB>& p, const typename Epi::Params& e, const Join& with) {
    __shared__ __align__(16) A smem[Tile::SMEM_BYTES / sizeof(A)];
    const Work<TA, TB> w = work_of<Policy::BM, Policy::BN, Policy::BAND>(p);
    const int m0 = w.tile.m * Policy::BM, n0 = w.tile.n * Policy::BN;
    WideningLoader<A, SourceA, Tile::A_STRIDE> a{SourceA(w.a, p.lda, m0, p.m)};
    WideningLoader<A, SourceB, Tile::B_STRIDE> b{SourceB(w.b, p.ldb, n0, p.n)};
    Tile tile;
    tile.accumulate(a, b, smem, w.k_begin, w.k_end);
    if (!tile.join(with)) return;
    tile.template finish<Epi, Policy::VEC_C>(e, w.map, m0, n0);
  }
};
template <class Policy, class Epi, class Join = Whole>
LAPIDARY_FN void simt(const Params<typename Policy::TA, typename Policy::TB>& p, const typename Epi::Params& e, const Join& with = {}) {
  Simt<Policy>::template run<Epi>(p, e, with);
}

// Policy: T, M (rows held in registers: 1, 2, 4 or 8; m <= M), TRANS_A, TRANS_B, VEC (elements one
// load of B takes), VEC_A (likewise for A: VEC or 1), WARPS, and COLS (TRANS_B: columns a CTA
// computes) or LANES (B [k, n]: lanes side by side on a row, a power of two up to 32).
template <class Policy>
struct Gemv {
  using T = typename Policy::T;
  static constexpr int M = Policy::M, VEC = Policy::VEC, WARPS = Policy::WARPS, THREADS = 32 * WARPS;
  static constexpr int BN = Policy::TRANS_B ? Policy::COLS : Policy::LANES * VEC;
  static constexpr int ROWS = M * BN;

  static LAPIDARY_FN T a_at(const Params<T, T>& p, const T* a, int i, int k) {
    return Policy::TRANS_A ? a[k * p.lda + i] : a[i * p.lda + k];
  }
  // Elements k .. k + VEC - 1 of row i of A, zero from k_end on.
  static LAPIDARY_FN Vec<T, VEC> a_run(const Params<T, T>& p, const T* a, int i, int k, int k_end) {
    if constexpr (!Policy::TRANS_A && Policy::VEC_A == VEC) {
      if (k + VEC <= k_end) return load_const<T, VEC>(a + i * p.lda + k);
    }
    Vec<T, VEC> r{};
#pragma unroll
    for (int q = 0; q < VEC; ++q) {
      if (k + q < k_end) r[q] = a_at(p, a, i, k + q);
    }
    return r;
  }

  // Sums over the warps in their order, joins, and stores. sums[w][i * BN + j] is warp w's share of (i, j).
  template <class Epi, class Join>
  static LAPIDARY_FN void finish(const Params<T, T>& p, const typename Epi::Params& e, const Join& with, const Map& map, const float (&sums)[WARPS][ROWS], int n0) {
    constexpr int EACH = ceil_div(ROWS, THREADS);
    __syncthreads();
    float total[EACH];
#pragma unroll
    for (int q = 0; q < EACH; ++q) {
      const int r = static_cast<int>(threadIdx.x) + q * THREADS;
      total[q] = 0.f;
      if (r >= ROWS) continue;
#pragma unroll
      for (int w = 0; w < WARPS; ++w) total[q] += sums[w][r];
    }
    if (!with.template join<THREADS>(total)) return;
#pragma unroll
    for (int q = 0; q < EACH; ++q) {
      const int r = static_cast<int>(threadIdx.x) + q * THREADS;
      const int i = r / BN, n = n0 + r % BN;
      if (r >= ROWS || i >= p.m || n >= p.n) continue;
      const float one[1] = {total[q]};
      emit<Epi, 1, 1>(e, one, map.row(i) + n, n);
    }
  }

  // B [n, k]: a warp's lanes walk along K, each warp takes every WARPS-th run of 32 * VEC.
  template <class Epi, class Join>
  static LAPIDARY_FN void along_k(const Params<T, T>& p, const typename Epi::Params& e, const Join& with, float (&sums)[WARPS][ROWS]) {
    constexpr int COLS = BN;
    const Work<T, T> w = work_of<M, BN, 1>(p);
    const int n0 = w.tile.n * BN, lane = lane_id(), warp = warp_id();
    float acc[M][COLS] = {};
    // Two loads of B in flight, unless the accumulators leave no registers for them.
#pragma unroll (M * COLS > 16 ? 1 : 2)
    for (int k = w.k_begin + (warp * 32 + lane) * VEC; k < w.k_end; k += THREADS * VEC) {
      Vec<T, VEC> b[COLS];
#pragma unroll
      for (int j = 0; j < COLS; ++j) {
        const T* from = w.b + min(n0 + j, p.n - 1) * p.ldb + k;
        if (k + VEC <= w.k_end) {
          b[j] = load_const<T, VEC>(from);
        } else {
#pragma unroll
          for (int q = 0; q < VEC; ++q) b[j][q] = k + q < w.k_end ? from[q] : T{};
        }
      }
#pragma unroll
      for (int i = 0; i < M; ++i) {
        if (i >= p.m) continue;
        const Vec<T, VEC> a = a_run(p, w.a, i, k, w.k_end);
#pragma unroll
        for (int q = 0; q < VEC; ++q)
#pragma unroll
          for (int j = 0; j < COLS; ++j) acc[i][j] += to_float(a[q]) * to_float(b[j][q]);
      }
    }
#pragma unroll
    for (int i = 0; i < M; ++i)
#pragma unroll
      for (int j = 0; j < COLS; ++j) {
#pragma unroll
        for (int d = 16; d > 0; d /= 2) acc[i][j] += __shfl_xor_sync(0xffffffffu, acc[i][j], d);
        if (lane == 0) sums[warp][i * COLS + j] = acc[i][j];
      }
    finish<Epi>(p, e, with, w.map, sums, n0);
  }

  // B [k, n]: LANES lanes side by side read one row of B; lane groups and warps take rows in turn.
  template <class Epi, class Join>
  static LAPIDARY_FN void along_n(const Params<T, T>& p, const typename Epi::Params& e, const Join& with, float (&sums)[WARPS][ROWS]) {
    constexpr int LANES = Policy::LANES, GROUPS = 32 / LANES;
    const Work<T, T> w = work_of<M, BN, 1>(p);
    const int n0 = w.tile.n * BN, lane = lane_id(), warp = warp_id();
    const int col = lane % LANES * VEC, left = p.n - n0 - col;
    float acc[M][VEC] = {};
#pragma unroll 4
    for (int k = w.k_begin + warp * GROUPS + lane / LANES; k < w.k_end; k += WARPS * GROUPS) {
      const T* from = w.b + k * p.ldb + n0 + col;
      Vec<T, VEC> b{};
      if (left >= VEC) {
        b = load_const<T, VEC>(from);
      } else {
#pragma unroll
        for (int q = 0; q < VEC; ++q) {
          if (q < left) b[q] = from[q];
        }
      }
#pragma unroll
      for (int i = 0; i < M; ++i) {
        const float x = i < p.m ? to_float(a_at(p, w.a, i, k)) : 0.f;
#pragma unroll
        for (int q = 0; q < VEC; ++q) acc[i][q] += x * to_float(b[q]);
      }
    }
#pragma unroll
    for (int i = 0; i < M; ++i)
#pragma unroll
      for (int q = 0; q < VEC; ++q) {
#pragma unroll
        for (int d = 16; d >= LANES; d /= 2) acc[i][q] += __shfl_xor_sync(0xffffffffu, acc[i][q], d);
        if (lane < LANES) sums[warp][i * BN + col + q] = acc[i][q];
      }
    finish<Epi>(p, e, with, w.map, sums, n0);
  }

  template <class Epi, class Join>
  static LAPIDARY_FN void run(const Params<T, T>& p, const typename Epi::Params& e, const Join& with) {
    __shared__ float sums[WARPS][ROWS];
    if constexpr (Policy::TRANS_B) {
      along_k<Epi>(p, e, with, sums);
    } else {
      along_n<Epi>(p, e, with, sums);
    }
  }
};
template <class Policy, class Epi, class Join = Whole>
LAPIDARY_FN void gemv(const Params<typename Policy::T, typename Policy::T>& p, const typename Epi::Params& e, const Join& with = {}) {
  Gemv<Policy>::template run<Epi>(p, e, with);
}

}  // namespace lapidary::gemm
