// mma_tile.cuh - one CTA's product of a BM x BK by BK x BN tile sequence on tensor cores.
//
// Contract: a family gives two sources (source.cuh) and a map (epilogue.cuh); this file pipelines the
// operand tiles through STAGES shared memory buffers, multiplies, and stores through the epilogue.
// Shape is any struct with BM, BN, BK, WM, WN (the warp's tile) and STAGES:
//   BM % WM == 0, BN % WN == 0, WM % 16 == 0, WN % 16 == 0, BK % 16 == 0, STAGES >= 2;
//   a CTA is 32 * (BM / WM) * (BN / WN) threads in x.
// Not here: which tile a CTA works on, batches, splits.
#pragma once
#include "lapidary/cp_async.cuh"
#include "lapidary/epilogue.cuh"
#include "lapidary/join.cuh"
#include "lapidary/mma.cuh"
#include "lapidary/source.cuh"

namespace lapidary {

// ROWS x COLS elements in shared memory, addressed so that the eight rows of an ldmatrix fall into
// eight different 16-byte banks: by XOR where a row is a power of two of 16-byte chunks, by padding
// otherwise. WORDWISE tiles are read one 32-bit word per lane, 4 rows by 8 columns a warp: rows 8
// words apart modulo 32 keep those apart.
template <class T, int ROWS, int COLS, bool WORDWISE>
struct SmemTile {
  static constexpr int CHUNK = 16 / int(sizeof(T));
  static constexpr int CHUNKS = COLS / CHUNK;
  static_assert(COLS % (2 * CHUNK) == 0, "a row is a whole number of 32-byte pairs");
  static constexpr bool SWIZZLED = !WORDWISE && (CHUNKS & (CHUNKS - 1)) == 0;
  static constexpr int STRIDE = SWIZZLED ? COLS : WORDWISE ? COLS + 8 : COLS + CHUNK;
  static constexpr int BYTES = ROWS * STRIDE * int(sizeof(T));

  // In bytes. Elements of one 16-byte chunk stay adjacent.
  static LAPIDARY_FN u32 offset(int row, int col) {
    if constexpr (SWIZZLED) {
      constexpr int PERIOD = CHUNKS >= 8 ? 1 : 8 / CHUNKS;  // rows that share one 128-byte line
      constexpr int MASK = CHUNKS >= 8 ? 7 : CHUNKS - 1;
      const int chunk = (col / CHUNK) ^ (row / PERIOD & MASK);
      return static_cast<u32>(row * (COLS * int(sizeof(T))) + chunk * 16 + col % CHUNK * int(sizeof(T)));
    }
    return static_cast<u32>((row * STRIDE + col) * int(sizeof(T)));
  }
};

// Moves a source's tile into shared memory: cp.async where a run is at least 4 bytes of one load,
// otherwise through registers, fetched before the products of an iteration and stored after them.
template <class Tile, class Source>
struct AsyncLoader {
  using T = typename Source::T;
  using C = typename Source::C;
  Source source;
  LAPIDARY_FN void fetch(u32 stage, int k, int k_end) {
    source.seek(k, k_end);
#pragma unroll
    for (int i = 0; i < C::COUNT; ++i) {
      if (C::active(i)) {
        cp_async<C::W * int(sizeof(T))>(stage + Tile::offset(source.cover.row(i), source.cover.col(i)), source.pointer(i),
                                        source.valid(i) * int(sizeof(T)));
      }
    }
  }
  LAPIDARY_FN void commit(u32) {}
};
template <class Tile, class Source>
struct StagedLoader {
  using T = typename Source::T;
  using C = typename Source::C;
  static_assert(C::W * sizeof(T) == 4, "a staged run is one word");
  Source source;
  u32 words[C::COUNT];
  LAPIDARY_FN void fetch(u32, int k, int k_end) {
    source.seek(k, k_end);
#pragma unroll
    for (int i = 0; i < C::COUNT; ++i) words[i] = C::active(i) ? bit_cast<u32>(source.run(i)) : 0u;
  }
  LAPIDARY_FN void commit(u32 stage) {
#pragma unroll
    for (int i = 0; i < C::COUNT; ++i) {
      if (C::active(i)) store_shared(stage + Tile::offset(source.cover.row(i), source.cover.col(i)), words[i]);
    }
  }
};
template <class Tile, class Source, int LOAD_BYTES>
using Loader = select_t<(LOAD_BYTES >= 4), AsyncLoader<Tile, Source>, StagedLoader<Tile, Source>>;

// The run width that suits loads of VEC elements.
template <class T, int VEC>
inline constexpr int run_width = VEC * int(sizeof(T)) >= 4 ? VEC : 4 / int(sizeof(T));

// Bytes: A lies along K. B may lie either way: no instruction transposes bytes, so where it lies along n
// a lane loads words of four columns from four rows and exchanges them. It then has four columns where a
// fragment takes one, and gives each to a fragment of its own: within 32 columns, column 4g + j is column g
// of fragment j (SPREAD).
template <class T, class Shape, bool A_K_CONTIGUOUS, bool B_K_CONTIGUOUS, class TB = T>
struct MmaTile {
  static constexpr int BM = Shape::BM, BN = Shape::BN, BK = Shape::BK, WM = Shape::WM, WN = Shape::WN;
  static constexpr int STAGES = Shape::STAGES;
  static constexpr int WARPS_M = BM / WM, WARPS_N = BN / WN, THREADS = 32 * WARPS_M * WARPS_N;
  static constexpr int CHUNK = 16 / int(sizeof(T));
  static constexpr int K_STEP = 2 * CHUNK;  // 16 halves or 8 words
  static constexpr int MI = WM / 16, NI = WN / 8;
  static_assert(BM % WM == 0 && BN % WN == 0 && WM % 16 == 0 && WN % 16 == 0, "warps tile the CTA's tile");
  static_assert(BK % K_STEP == 0 && STAGES >= 2, "whole mma steps, and a buffer to fill while one is read");

  using A = select_t<sizeof(T) == 1, int, float>;
  static constexpr bool SPREAD = sizeof(T) == 1 && !B_K_CONTIGUOUS;
  static_assert(sizeof(TB) == sizeof(T), "factors of one size");
  static_assert(sizeof(T) > 1 || A_K_CONTIGUOUS, "bytes of A lie along K");
  static_assert(!SPREAD || WN % 32 == 0, "a warp's columns are spread over fragments by 32");

  // ldmatrix transposes 16-bit elements only.
  static constexpr bool A_WORDWISE = !A_K_CONTIGUOUS && sizeof(T) == 4;
  static constexpr bool B_WORDWISE = !B_K_CONTIGUOUS && sizeof(T) == 4;
  using ATile = select_t<A_K_CONTIGUOUS, SmemTile<T, BM, BK, false>, SmemTile<T, BK, BM, A_WORDWISE>>;
  using BTile = select_t<B_K_CONTIGUOUS, SmemTile<TB, BN, BK, false>, SmemTile<TB, BK, BN, B_WORDWISE>>;
  static constexpr int STAGE_BYTES = ATile::BYTES + BTile::BYTES;

  // The epilogue stages 16 rows a warp; rows 8 words apart modulo 32 (see SmemTile).
  static constexpr int SLAB_STRIDE = WN + 8;
  static constexpr int SLAB_BYTES = 16 * SLAB_STRIDE * 4;
  static constexpr int PIPE_BYTES = STAGES * STAGE_BYTES;
  static constexpr int EPILOGUE_BYTES = WARPS_M * WARPS_N * SLAB_BYTES;
  static constexpr int SMEM_BYTES = PIPE_BYTES > EPILOGUE_BYTES ? PIPE_BYTES : EPILOGUE_BYTES;

  A acc[MI][NI][4];
  int warp_m, warp_n;  // the warp's corner in the CTA's tile

  LAPIDARY_FN MmaTile() {
    const int w = warp_id();
    warp_m = w / WARPS_N * WM;
    warp_n = w % WARPS_N * WN;
#pragma unroll
    for (int i = 0; i < MI; ++i)
#pragma unroll
      for (int j = 0; j < NI; ++j)
#pragma unroll
        for (int r = 0; r < 4; ++r) acc[i][j][r] = A{};
  }

  LAPIDARY_FN void load_a(u32 (&a)[MI][4], u32 stage, int kk) const {
    const int lane = lane_id();
#pragma unroll
    for (int i = 0; i < MI; ++i) {
      const int m = warp_m + i * 16;
      if constexpr (A_K_CONTIGUOUS) {
        ldmatrix_x4(a[i], stage + ATile::offset(m + lane % 16, kk + lane / 16 * CHUNK));
      } else if constexpr (!A_WORDWISE) {
        ldmatrix_x4_trans(a[i], stage + ATile::offset(kk + lane % 8 + lane / 16 * 8, m + lane / 8 % 2 * 8));
      } else {
#pragma unroll
        for (int r = 0; r < 4; ++r) {
          a[i][r] = load_shared(stage + ATile::offset(kk + lane % 4 + r / 2 * 4, m + lane / 4 + r % 2 * 8));
        }
      }
      if constexpr (is_same<T, tf32>) {
#pragma unroll
        for (int r = 0; r < 4; ++r) a[i][r] = round_to_tf32(a[i][r]);
      }
    }
  }
  // b[j] holds columns 16j .. 16j + 15: words 0, 1 of the first eight, 2, 3 of the others.
  LAPIDARY_FN void load_b(u32 (&b)[NI / 2][4], u32 stage, int kk) const {
    const int lane = lane_id();
    if constexpr (SPREAD) {
#pragma unroll
      for (int j = 0; j < NI; j += 4) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          u32 words[4];
#pragma unroll
          for (int r = 0; r < 4; ++r) {
            words[r] = load_shared(stage + BTile::offset(kk + half * 16 + lane % 4 * 4 + r, warp_n + j * 8 + lane / 4 * 4));
          }
          transpose_bytes(words);
#pragma unroll
          for (int q = 0; q < 4; ++q) b[(j + q) / 2][q % 2 * 2 + half] = words[q];
        }
      }
      return;
    }
#pragma unroll
    for (int j = 0; j < NI / 2; ++j) {
      const int n = warp_n + j * 16;
      if constexpr (B_K_CONTIGUOUS) {
        ldmatrix_x4(b[j], stage + BTile::offset(n + lane % 8 + lane / 16 * 8, kk + lane / 8 % 2 * CHUNK));
      } else if constexpr (!B_WORDWISE) {
        ldmatrix_x4_trans(b[j], stage + BTile::offset(kk + lane % 16, n + lane / 16 * 8));
      } else {
#pragma unroll
        for (int r = 0; r < 4; ++r) {
          b[j][r] = load_shared(stage + BTile::offset(kk + lane % 4 + r % 2 * 4, n + lane / 4 + r / 2 * 8));
        }
      }
      if constexpr (is_same<T, tf32>) {
#pragma unroll
        for (int r = 0; r < 4; ++r) b[j][r] = round_to_tf32(b[j][r]);
      }
    }
  }

  // acc += the product of one stage; the next step's fragments load while this step's multiply.
  LAPIDARY_FN void multiply(u32 stage) {
    u32 a[2][MI][4], b[2][NI / 2][4];
    load_a(a[0], stage, 0);
    load_b(b[0], stage + ATile::BYTES, 0);
#pragma unroll
    for (int kk = 0; kk < BK; kk += K_STEP) {
      const int now = kk / K_STEP % 2;
      if (kk + K_STEP < BK) {
        load_a(a[1 - now], stage, kk + K_STEP);
        load_b(b[1 - now], stage + ATile::BYTES, kk + K_STEP);
      }
#pragma unroll
      for (int i = 0; i < MI; ++i)
#pragma unroll
        for (int j = 0; j < NI; ++j) {
          const u32 b0 = b[now][j / 2][j % 2 * 2], b1 = b[now][j / 2][j % 2 * 2 + 1];
          if constexpr (sizeof(T) == 1) {
            mma<T, TB>(acc[i][j], a[now][i], b0, b1);
          } else {
            mma<T>(acc[i][j], a[now][i], b0, b1);
          }
        }
    }
  }

  // acc += A[:, k_begin..k_end] * B[k_begin..k_end, :]. Leaves shared memory free.
  template <class LoaderA, class LoaderB>
  LAPIDARY_FN void accumulate(LoaderA& a, LoaderB& b, u32 smem, int k_begin, int k_end) {
    const int tiles = k_end > k_begin ? ceil_div(k_end - k_begin, BK) : 0;
#pragma unroll
    for (int s = 0; s < STAGES - 1; ++s) {
      if (s < tiles) {
        const u32 stage = smem + s * STAGE_BYTES;
        a.fetch(stage, k_begin + s * BK, k_end);
        b.fetch(stage + ATile::BYTES, k_begin + s * BK, k_end);
        a.commit(stage);
        b.commit(stage + ATile::BYTES);
      }
      cp_async_commit();
    }
    u32 read = smem, write = smem + (STAGES - 1) * STAGE_BYTES;
    const u32 end = smem + STAGES * STAGE_BYTES;
#pragma unroll 1
    for (int t = 0; t < tiles; ++t) {
      // Tile t has arrived for this thread, and behind the barrier for all; the buffer to be
      // written is the one that every warp left in the previous iteration.
      cp_async_wait<STAGES - 2>();
      __syncthreads();
      const int ahead = t + STAGES - 1;
      if (ahead < tiles) {
        a.fetch(write, k_begin + ahead * BK, k_end);
        b.fetch(write + ATile::BYTES, k_begin + ahead * BK, k_end);
      }
      cp_async_commit();
      multiply(read);
      if (ahead < tiles) {
        a.commit(write);
        b.commit(write + ATile::BYTES);
      }
      read = read + STAGE_BYTES == end ? smem : read + STAGE_BYTES;
      write = write + STAGE_BYTES == end ? smem : write + STAGE_BYTES;
    }
    cp_async_wait<0>();
    __syncthreads();
  }

  // See join.cuh.
  template <class Join>
  LAPIDARY_FN bool join(const Join& with) {
    return with.template join<THREADS>(reinterpret_cast<A(&)[MI * NI * 4]>(acc));
  }

  // Stores the tile whose corner in the product is (m0, n0), VEC adjacent columns a store, through
  // a slab of shared memory per warp so that whole rows leave together.
  template <class Epi, int VEC, class Map>
  LAPIDARY_FN void finish(const typename Epi::Params& e, const Map& map, u8* smem, int m0, int n0) const {
    static_assert(WN % VEC == 0 && VEC <= 8, "a row of the warp's tile is whole vectors");
    constexpr int RUNS = WN / VEC;
    const int lane = lane_id();
    A* slab = reinterpret_cast<A*>(smem) + warp_id() * (SLAB_BYTES / 4);
    m0 += warp_m;
    n0 += warp_n;
#pragma unroll
    for (int i = 0; i < MI; ++i) {
#pragma unroll
      for (int j = 0; j < NI; ++j) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          A* const row = slab + (lane / 4 + h * 8) * SLAB_STRIDE;
          if constexpr (!SPREAD) {
            store(row + j * 8 + lane % 4 * 2, Vec<A, 2>{{acc[i][j][h * 2], acc[i][j][h * 2 + 1]}});
          } else if (j % 4 == 0) {
#pragma unroll
            for (int c = h * 2; c < h * 2 + 2; ++c) {
              store(row + j * 8 + (lane % 4 * 2 + c % 2) * 4, Vec<A, 4>{{acc[i][j][c], acc[i][j + 1][c], acc[i][j + 2][c], acc[i][j + 3][c]}});
            }
          }
        }
      }
      __syncwarp();
#pragma unroll
      for (int at = 0; at < 16 * RUNS; at += 32) {
        const int row = (at + lane) / RUNS, col = (at + lane) % RUNS * VEC;
        const int m = m0 + i * 16 + row, n = n0 + col;
        if (16 * RUNS % 32 != 0 && at + lane >= 16 * RUNS) continue;
        if (m >= map.m || n >= map.n) continue;
        A x[VEC];
#pragma unroll
        for (int q = 0; q < VEC; ++q) x[q] = slab[row * SLAB_STRIDE + col + q];
        emit<Epi, VEC, Map::CHANNEL_STEP>(e, x, map.row(m) + map.column(n), map.channel(m, n));
      }
      __syncwarp();
    }
  }
};

}  // namespace lapidary
