// attention - y = softmax(scale q k^T + mask) v for each head, whose scores are never in memory (T. Dao,
// "FlashAttention-2: Faster Attention with Better Parallelism and Work Partitioning", 2023).
//
// Contract: see README.md. A block has some queries of one head and goes over the keys in tiles; of a query it keeps
// the largest score so far, the sum of exp(score - largest) and the sums of values with these weights, and multiplies
// the sums by exp(old - new) where the largest grows. No atomics: results repeat bit for bit.
#pragma once

#include "lapidary/mma_tile.cuh"
#include "lapidary/team.cuh"
#include "lapidary/wide.cuh"

namespace lapidary::attention {

// q [b, h, n, d], k [b, g, m, d], v [b, g, m, e], y [b, h, n, e], each by its strides over these axes; the mask by
// strides over [b, h, n, m], 0 where it broadcasts. In elements.
struct Params {
  const void *q, *k, *v, *mask;
  void* y;
  i64 q_strides[4], k_strides[4], v_strides[4], mask_strides[4], y_strides[4];
  int heads;
  int share;  // h / g: neighbouring heads of queries that have one head of keys and values
  int queries, keys;
  int depth, width;  // d, e
  float scale;
};

// Policy::MASK.
constexpr int NO_MASK = 0;
constexpr int KEY_MASK = 1;    // one row for all queries
constexpr int SCORE_MASK = 2;  // a row for each query

// The BM queries of one head that a block (or a warp, which then passes its number) works on.
template <class Policy, int BM>
struct Place {
  using T = typename Policy::T;
  const T *q, *k, *v, *mask;  // of this head, from its first query, key or value on
  T* y;
  int first;  // the first query
  int seen;   // keys that any of the queries sees

  LAPIDARY_FN Place(const Params& p, int number) {
    const int tiles = ceil_div(p.queries, BM);
    const int tile = number % tiles, rest = number / tiles;
    const i64 batch = rest / p.heads, head = rest % p.heads, shared = rest % p.heads / p.share;
    // Under a causal mask the last queries have the most to do: they begin first.
    first = (Policy::CAUSAL ? tiles - 1 - tile : tile) * BM;
    seen = Policy::CAUSAL ? min(p.keys, first + BM) : p.keys;
    q = static_cast<const T*>(p.q) + batch * p.q_strides[0] + head * p.q_strides[1];
    k = static_cast<const T*>(p.k) + batch * p.k_strides[0] + shared * p.k_strides[1];
    v = static_cast<const T*>(p.v) + batch * p.v_strides[0] + shared * p.v_strides[1];
    y = static_cast<T*>(p.y) + batch * p.y_strides[0] + head * p.y_strides[1];
    mask = nullptr;
    if constexpr (Policy::MASK != NO_MASK) {
      mask = static_cast<const T*>(p.mask) + batch * p.mask_strides[0] + head * p.mask_strides[1];
    }
  }

  // What the mask has for a score, which may be beyond the end.
  LAPIDARY_FN T masked(const Params& p, int query, int key) const {
    const i64 row = Policy::MASK == SCORE_MASK ? query * p.mask_strides[2] : 0;
    return load_const_if(query < p.queries && key < p.keys, mask + row + key * p.mask_strides[3]);
  }
  // Two of them in one word, for keys that follow each other, the first of them even. T is a half.
  LAPIDARY_FN u32 masked_pair(const Params& p, int query, int key) const {
    if constexpr (Policy::MASK_PAIRED) {
      const i64 row = Policy::MASK == SCORE_MASK ? query * p.mask_strides[2] : 0;
      return load_const_if(query < p.queries && key < p.keys, reinterpret_cast<const u32*>(mask + row + key));
    } else {
      return masked(p, query, key).bits | static_cast<u32>(masked(p, query, key + 1).bits) << 16;
    }
  }
  // Whether a query sees a key, both of which may be beyond the end.
  static LAPIDARY_FN bool sees(const Params& p, int query, int key) {
    return key < p.keys && (!Policy::CAUSAL || key <= query);
  }
};

// What scores are reduced by in front of exp: the largest, or 0 where all are -inf, whose weights then are 0, not NaN.
template <class A>
LAPIDARY_FN A shift_of(A top) {
  return top == -math::infinity<A>() ? static_cast<A>(0) : top;
}
// What the sums of a query are multiplied by in the end. Its weights sum to 0 only where all its scores are -inf: then
// 0 * inf gives the NaN that the definition has. A NaN or +inf among its scores makes the sum NaN.
template <class Policy, class A>
LAPIDARY_FN A share_of(A sum, int keys) {
  return sum == 0 && (Policy::UNSEEN_ZERO || keys == 0) ? static_cast<A>(0) : static_cast<A>(1) / sum;
}
// A sum with its share; zero instead where the weights are NaN and that is asked for.
template <class Policy, class A>
LAPIDARY_FN A shared_out(A sum, A share) {
  return Policy::UNSEEN_ZERO && share != share ? static_cast<A>(0) : sum * share;
}

// ---------------------------------------------------------------------------------------------
// Tensor cores: f16 and bf16. WARPS_M by WARPS_N warps; a warp has BM / WARPS_M queries and, of each tile of BN keys,
// BN / WARPS_N. Warps that share queries merge their sums behind the last tile. Weights pass from the first product to
// the second in registers: the accumulators of two 16 x 8 products are the fragment of one 16 x 16 factor.

// ex2.approx: within 2^-22, and weights are rounded to a half behind it.
LAPIDARY_FN float exp2_approx(float x) {
  float r;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
}

template <class Policy>
struct Mma {
  using T = typename Policy::T;
  static constexpr int BM = Policy::BM, BN = Policy::BN, D = Policy::D, E = Policy::E, STAGES = Policy::STAGES;
  static constexpr int WARPS_M = Policy::WARPS_M, WARPS_N = Policy::WARPS_N, THREADS = 32 * WARPS_M * WARPS_N;
  static constexpr int WM = BM / WARPS_M, WN = BN / WARPS_N, MI = WM / 16, NI = WN / 8;
  // Depths as whole steps of the products; zeros are behind the operands' own.
  static constexpr int D_PADDED = (D + 15) / 16 * 16, E_PADDED = (E + 15) / 16 * 16, EI = E_PADDED / 8;
  static_assert(BM % (16 * WARPS_M) == 0 && BN % (16 * WARPS_N) == 0, "warps have whole fragments");
  static_assert(D % 8 == 0 && E % 8 == 0, "rows are copied 16 bytes at a time");
  static_assert(STAGES == 1 || STAGES == 2, "one tile of keys, or one that arrives while another is read");

  using QTile = SmemTile<T, BM, D_PADDED, false>;
  using KTile = SmemTile<T, BN, D_PADDED, false>;
  using VTile = SmemTile<T, BN, E_PADDED, false>;
  using YTile = SmemTile<T, BM, E_PADDED, false>;
  static constexpr int Q_BYTES = QTile::BYTES > YTile::BYTES ? QTile::BYTES : YTile::BYTES;
  static constexpr int STAGE_BYTES = KTile::BYTES + VTile::BYTES;
  // Sums of a warp to be merged: rows 8 words apart modulo 16, their statistics behind them.
  static constexpr int PART_STRIDE = E_PADDED + 8;
  static constexpr int PARTS_BYTES = (WARPS_N - 1) * BM * PART_STRIDE * 4;
  static constexpr int REST_BYTES = STAGES * STAGE_BYTES > PARTS_BYTES ? STAGES * STAGE_BYTES : PARTS_BYTES;
  static constexpr int SMEM_BYTES = Q_BYTES + REST_BYTES;
  static_assert(SMEM_BYTES == Policy::SHARED && THREADS == Policy::THREADS, "as launched");

  // Queries stay in registers where there is room, else each step reads them again.
  static constexpr bool Q_HELD = MI * (D_PADDED + E_PADDED) <= 256;
  static constexpr int Q_FRAGMENTS = Q_HELD ? D_PADDED / 16 : 1;
  // Without a mask scores are in units of log 2. A mask may be the lowest number there is, which the factor of these
  // units would make infinite.
  static constexpr bool MASKED = Policy::MASK != NO_MASK;
  static constexpr float LOG2_E = 1.44269504088896341f;

  const Params& p;
  const Place<Policy, BM> place;
  const int lane, warp_m, warp_n;  // the warp's corner in a tile of scores
  float o[MI][EI][4];
  // Of the rows that the lane has in a fragment, 8 apart; a quad of lanes shares a row, and each has a part of its sum.
  float top[MI][2], sum[MI][2];

  LAPIDARY_FN explicit Mma(const Params& p)
      : p(p), place(p, static_cast<int>(blockIdx.x)), lane(lane_id()), warp_m(warp_id() / WARPS_N * WM),
        warp_n(warp_id() % WARPS_N * WN) {
#pragma unroll
    for (int i = 0; i < MI; ++i) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        top[i][h] = -math::infinity<float>();
        sum[i][h] = 0.f;
      }
#pragma unroll
      for (int j = 0; j < EI; ++j)
#pragma unroll
        for (int r = 0; r < 4; ++r) o[i][j][r] = 0.f;
    }
  }

  static LAPIDARY_FN float weight(float x) { return exp2_approx(MASKED ? x * LOG2_E : x); }

  // Requests ROWS rows of x into shared memory, of which the first `rows` are there and have COLUMNS elements; zeros
  // are beyond. A power of two of threads shares a row, so that a thread stays in its column.
  template <class Tile, int ROWS, int COLUMNS>
  static LAPIDARY_FN void fetch(u32 at, const T* x, i64 stride, int rows) {
    constexpr int PADDED = (COLUMNS + 15) / 16 * 16, LINE = 2 << log2_floor(PADDED / 8 - 1), STEP = THREADS / LINE;
    const int first = static_cast<int>(threadIdx.x) / LINE, col = static_cast<int>(threadIdx.x) % LINE * 8;
    if (LINE * 8 != PADDED && col >= PADDED) return;
    const T* from = x + first * stride + col;
#pragma unroll
    for (int i = 0; i < ROWS; i += STEP) {
      if (ROWS % STEP != 0 && i + first >= ROWS) continue;
      const bool there = i + first < rows && (PADDED == COLUMNS || col < COLUMNS);
      cp_async<16>(at + Tile::offset(i + first, col), from, there ? 16 : 0);
      from += STEP * stride;
    }
  }
  LAPIDARY_FN void fetch_keys(u32 at, int key) const {
    fetch<KTile, BN, D>(at, place.k + key * p.k_strides[2], p.k_strides[2], p.keys - key);
  }
  LAPIDARY_FN void fetch_values(u32 at, int key) const {
    fetch<VTile, BN, E>(at + KTile::BYTES, place.v + key * p.v_strides[2], p.v_strides[2], p.keys - key);
  }

  LAPIDARY_FN void load_queries(u32 (&a)[MI][4], u32 queries, int step) const {
#pragma unroll
    for (int i = 0; i < MI; ++i) {
      ldmatrix_x4(a[i], queries + QTile::offset(warp_m + i * 16 + lane % 16, step * 16 + lane / 16 * 8));
    }
  }

  // s = q k^T of a tile.
  LAPIDARY_FN void multiply_keys(float (&s)[MI][NI][4], u32 (&q)[Q_FRAGMENTS][MI][4], u32 queries, u32 keys) const {
#pragma unroll
    for (int i = 0; i < MI; ++i)
#pragma unroll
      for (int j = 0; j < NI; ++j)
#pragma unroll
        for (int r = 0; r < 4; ++r) s[i][j][r] = 0.f;
#pragma unroll
    for (int step = 0; step < D_PADDED / 16; ++step) {
      u32(&a)[MI][4] = q[step % Q_FRAGMENTS];
      if constexpr (!Q_HELD) load_queries(a, queries, step);
#pragma unroll
      for (int j = 0; j < NI / 2; ++j) {
        u32 b[4];
        const int key = warp_n + j * 16 + lane % 8 + lane / 16 * 8;
        ldmatrix_x4(b, keys + KTile::offset(key, step * 16 + lane / 8 % 2 * 8));
#pragma unroll
        for (int i = 0; i < MI; ++i) {
          mma<T>(s[i][j * 2], a[i], b[0], b[1]);
          mma<T>(s[i][j * 2 + 1], a[i], b[2], b[3]);
        }
      }
    }
  }

  // o += s v of a tile, s rounded to T.
  LAPIDARY_FN void multiply_values(const float (&s)[MI][NI][4], u32 values) {
#pragma unroll
    for (int step = 0; step < NI / 2; ++step) {
      u32 a[MI][4];
#pragma unroll
      for (int i = 0; i < MI; ++i)
#pragma unroll
        for (int r = 0; r < 4; ++r) {
          const float(&pair)[4] = s[i][step * 2 + r / 2];
          a[i][r] = pack_x2<T>(pair[r % 2 * 2], pair[r % 2 * 2 + 1]);
        }
#pragma unroll
      for (int j = 0; j < EI / 2; ++j) {
        u32 b[4];
        ldmatrix_x4_trans(b, values + VTile::offset(warp_n + step * 16 + lane % 16, j * 16 + lane / 16 * 8));
#pragma unroll
        for (int i = 0; i < MI; ++i) {
          mma<T>(o[i][j * 2], a[i], b[0], b[1]);
          mma<T>(o[i][j * 2 + 1], a[i], b[2], b[3]);
        }
      }
    }
  }

  // The query and the key of element r of fragment (i, j), the keys from `key` on.
  LAPIDARY_FN int query_of(int i, int r) const { return place.first + warp_m + i * 16 + lane / 4 + r / 2 * 8; }
  LAPIDARY_FN int key_of(int key, int j, int r) const { return key + j * 8 + lane % 4 * 2 + r % 2; }

  // The mask's part for a tile, in pairs of keys. Queries that share a row share its elements.
  static constexpr bool MASK_SHARED = Policy::MASK != SCORE_MASK;
  static constexpr int MASK_ROWS = MASK_SHARED ? 1 : MI, MASK_PAIRS = MASK_SHARED ? 1 : 2;
  LAPIDARY_FN void load_mask(u32 (&m)[MASK_ROWS][NI][MASK_PAIRS], int key) const {
    if constexpr (MASKED) {
#pragma unroll
      for (int i = 0; i < MASK_ROWS; ++i)
#pragma unroll
        for (int j = 0; j < NI; ++j)
#pragma unroll
          for (int h = 0; h < MASK_PAIRS; ++h) {
            m[i][j][h] = place.masked_pair(p, MASK_SHARED ? 0 : query_of(i, h * 2), key_of(key, j, 0));
          }
    }
  }

  // From products to weights, with the sums so far brought to the same largest score.
  LAPIDARY_FN void weigh(float (&s)[MI][NI][4], const u32 (&m)[MASK_ROWS][NI][MASK_PAIRS], int key) {
    const float factor = MASKED ? p.scale : p.scale * LOG2_E;
    // Only tiles at the end of the keys, or on the diagonal, have scores that do not count.
    const bool edge = key + WN > p.keys || (Policy::CAUSAL && key + WN - 1 > place.first + warp_m);
#pragma unroll
    for (int i = 0; i < MI; ++i) {
#pragma unroll
      for (int j = 0; j < NI; ++j)
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          float add[2] = {};
          if constexpr (MASKED) unpack_x2<T>(m[i % MASK_ROWS][j][h % MASK_PAIRS], add[0], add[1]);
#pragma unroll
          for (int r = 0; r < 2; ++r) s[i][j][h * 2 + r] = s[i][j][h * 2 + r] * factor + add[r];
        }
      if (edge) {
#pragma unroll
        for (int j = 0; j < NI; ++j)
#pragma unroll
          for (int r = 0; r < 4; ++r) {
            if (!place.sees(p, query_of(i, r), key_of(key, j, r))) s[i][j][r] = -math::infinity<float>();
          }
      }
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        float most = top[i][h];
#pragma unroll
        for (int j = 0; j < NI; ++j) most = math::max(most, math::max(s[i][j][h * 2], s[i][j][h * 2 + 1]));
        most = math::max(most, __shfl_xor_sync(0xffffffffu, most, 1));
        most = math::max(most, __shfl_xor_sync(0xffffffffu, most, 2));
        const float shift = shift_of(most), fade = weight(top[i][h] - shift);
        top[i][h] = most;
        sum[i][h] *= fade;
#pragma unroll
        for (int j = 0; j < NI; ++j)
#pragma unroll
          for (int r = h * 2; r < h * 2 + 2; ++r) {
            s[i][j][r] = weight(s[i][j][r] - shift);
            sum[i][h] += s[i][j][r];
          }
#pragma unroll
        for (int j = 0; j < EI; ++j) {
          o[i][j][h * 2] *= fade;
          o[i][j][h * 2 + 1] *= fade;
        }
      }
    }
  }

  // Adds to the sums of the first warp those of the others with the same queries.
  LAPIDARY_FN void merge(float* parts) {
    const int part = warp_n / WN;
#pragma unroll
    for (int i = 0; i < MI; ++i)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const int row = warp_m + i * 16 + lane / 4 + h * 8;
        if (part > 0) {
          float* to = parts + ((part - 1) * BM + row) * PART_STRIDE;
#pragma unroll
          for (int j = 0; j < EI; ++j) {
            store(to + j * 8 + lane % 4 * 2, Vec<float, 2>{{o[i][j][h * 2], o[i][j][h * 2 + 1]}});
          }
          if (lane % 4 == 0) store(to + E_PADDED, Vec<float, 2>{{top[i][h], sum[i][h]}});
        }
      }
    __syncthreads();
    if (part > 0) return;
#pragma unroll
    for (int other = 0; other < WARPS_N - 1; ++other)
#pragma unroll
      for (int i = 0; i < MI; ++i)
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          const float* from = parts + (other * BM + warp_m + i * 16 + lane / 4 + h * 8) * PART_STRIDE;
          const Vec<float, 2> statistics = load<float, 2>(from + E_PADDED);
          const float most = math::max(top[i][h], statistics[0]), shift = shift_of(most);
          const float fade = weight(top[i][h] - shift), fade_other = weight(statistics[0] - shift);
          top[i][h] = most;
          sum[i][h] = sum[i][h] * fade + statistics[1] * fade_other;
#pragma unroll
          for (int j = 0; j < EI; ++j) {
            const Vec<float, 2> more = load<float, 2>(from + j * 8 + lane % 4 * 2);
#pragma unroll
            for (int r = 0; r < 2; ++r) o[i][j][h * 2 + r] = o[i][j][h * 2 + r] * fade + more[r] * fade_other;
          }
        }
  }

  // Stores the warp's queries, through shared memory so that whole rows leave together.
  LAPIDARY_FN void finish(u8* memory) const {
#pragma unroll
    for (int i = 0; i < MI; ++i)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const float share = share_of<Policy>(sum[i][h], p.keys);
        const int row = warp_m + i * 16 + lane / 4 + h * 8;
#pragma unroll
        for (int j = 0; j < EI; ++j) {
          const u32 pair = pack_x2<T>(shared_out<Policy>(o[i][j][h * 2], share),
                                     shared_out<Policy>(o[i][j][h * 2 + 1], share));
          store_shared(smem_address(memory) + YTile::offset(row, j * 8 + lane % 4 * 2), pair);
        }
      }
    __syncwarp();
    constexpr int RUNS = E / 8, COUNT = WM * RUNS;
#pragma unroll
    for (int at = 0; at < COUNT; at += 32) {
      if (COUNT % 32 != 0 && at + lane >= COUNT) continue;
      const int row = warp_m + (at + lane) / RUNS, col = (at + lane) % RUNS * 8;
      if (place.first + row >= p.queries) continue;
      const Vec<T, 8> x = load<T, 8>(reinterpret_cast<const T*>(memory + YTile::offset(row, col)));
      store(place.y + (place.first + row) * p.y_strides[2] + col, x);
    }
  }

  LAPIDARY_FN void run(u8* memory) {
    const u32 queries = smem_address(memory), stages = queries + Q_BYTES;
    const int tiles = ceil_div(place.seen, BN);
    fetch<QTile, BM, D>(queries, place.q + place.first * p.q_strides[2], p.q_strides[2], p.queries - place.first);
    fetch_keys(stages, 0);
    cp_async_commit();
    fetch_values(stages, 0);
    cp_async_commit();
    u32 q[Q_FRAGMENTS][MI][4];
#pragma unroll 1
    for (int tile = 0; tile < tiles; ++tile) {
      const u32 stage = stages + tile % STAGES * STAGE_BYTES;
      const int key = tile * BN + warp_n;
      // The first products need not wait for the first values.
      if (tile == 0) {
        cp_async_wait<1>();
      } else {
        cp_async_wait<0>();
      }
      // Behind the barrier all of the tile is there, and the other stage is free.
      __syncthreads();
      if constexpr (Q_HELD) {
        if (tile == 0) {
#pragma unroll
          for (int step = 0; step < Q_FRAGMENTS; ++step) load_queries(q[step], queries, step);
        }
      }
      if (tile + 1 < tiles) {
        const u32 next = stages + (tile + 1) % STAGES * STAGE_BYTES;
        fetch_keys(next, (tile + 1) * BN);
        fetch_values(next, (tile + 1) * BN);
      }
      cp_async_commit();
      float s[MI][NI][4];
      const bool seen = !Policy::CAUSAL || key < place.first + warp_m + WM;
      if (seen) {
        u32 m[MASK_ROWS][NI][MASK_PAIRS];
        load_mask(m, key);
        multiply_keys(s, q, queries, stage);
        weigh(s, m, key);
      }
      if (tile == 0) {
        cp_async_wait<1>();
        __syncthreads();
      }
      if (seen) multiply_values(s, stage + KTile::BYTES);
    }
    cp_async_wait<0>();
#pragma unroll
    for (int i = 0; i < MI; ++i)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        sum[i][h] += __shfl_xor_sync(0xffffffffu, sum[i][h], 1);
        sum[i][h] += __shfl_xor_sync(0xffffffffu, sum[i][h], 2);
      }
    // Shared memory is free for sums and results.
    __syncthreads();
    if constexpr (WARPS_N > 1) merge(reinterpret_cast<float*>(memory + Q_BYTES));
    if (warp_n == 0) finish(memory);
  }
};

template <class Policy>
LAPIDARY_FN void mma(const Params& p) {
  Mma<Policy>(p).run(dynamic_smem());
}

// ---------------------------------------------------------------------------------------------
// Scalar units: every float type in its compute type, any strides. LANES lanes share TM queries: of a tile of scores
// each has every LANES-th key, of the result COLUMNS adjacent columns here and there.

template <class Policy>
struct Simt {
  using T = typename Policy::T;
  using A = Compute<T>;
  static constexpr int BM = Policy::BM, BN = Policy::BN, TM = Policy::TM, D = Policy::D, E = Policy::E;
  static constexpr int LANES = 16, TN = BN / LANES, THREADS = LANES * BM / TM;
  static constexpr int CHUNK = 16 / int(sizeof(A));  // what one access of shared memory takes
  static constexpr int COLUMNS = E <= LANES ? 1 : E <= 2 * LANES ? 2 : CHUNK;
  static constexpr int GROUPS = (E + LANES * COLUMNS - 1) / (LANES * COLUMNS);
  static constexpr int D_PADDED = (D + CHUNK - 1) / CHUNK * CHUNK, E_PADDED = LANES * COLUMNS * GROUPS;
  // Rows an odd number of accesses apart fall into different banks.
  static constexpr int D_STRIDE = D_PADDED / CHUNK % 2 == 1 ? D_PADDED : D_PADDED + CHUNK;
  static constexpr int W_STRIDE = BN + CHUNK;
  static constexpr int SMEM_BYTES = ((BM + BN) * D_STRIDE + BN * E_PADDED + BM * W_STRIDE) * int(sizeof(A));
  static_assert(BM % (2 * TM) == 0 && BN % LANES == 0 && BN % CHUNK == 0, "whole warps, and whole accesses");
  static_assert(SMEM_BYTES == Policy::SHARED && THREADS == Policy::THREADS, "as launched");

  // Reads ROWS rows of x, of which the first `rows` are there and have COUNT elements; zeros are beyond. VEC > 1 needs
  // adjacent elements, and whole vectors of them.
  template <int ROWS, int COUNT, int PADDED, int STRIDE>
  static LAPIDARY_FN void fill(A* to, const T* x, const i64 (&strides)[4], int rows) {
    constexpr int VEC = Policy::VEC, RUNS = PADDED / VEC;
    static_assert(PADDED % VEC == 0 && (VEC == 1 || COUNT % VEC == 0), "whole vectors");
#pragma unroll 4
    for (int run = static_cast<int>(threadIdx.x); run < ROWS * RUNS; run += THREADS) {
      const int row = run / RUNS, col = run % RUNS * VEC;
      A values[VEC] = {};
      if (row < rows && col < COUNT) {
        if constexpr (VEC == 1) {
          values[0] = widen<T>(x[row * strides[2] + col * strides[3]]);
        } else {
          load_values<T, VEC>(x + row * strides[2] + col, values);
        }
      }
      store_wide<A, VEC>(to + row * STRIDE + col, values);
    }
  }

  static LAPIDARY_FN void run(const Params& p, A* memory) {
    const Place<Policy, BM> place(p, static_cast<int>(blockIdx.x));
    A* const q = memory;
    A* const k = q + BM * D_STRIDE;
    A* const v = k + BN * D_STRIDE;
    A* const weights = v + BN * E_PADDED;
    const int lane = static_cast<int>(threadIdx.x) % LANES, first = static_cast<int>(threadIdx.x) / LANES * TM;
    const auto largest = [](A a, A b) { return math::max(a, b); };
    const auto added = [](A a, A b) { return a + b; };
    A o[TM][GROUPS][COLUMNS] = {}, top[TM], sum[TM];
#pragma unroll
    for (int i = 0; i < TM; ++i) {
      top[i] = -math::infinity<A>();
      sum[i] = 0;
    }
    fill<BM, D, D_PADDED, D_STRIDE>(q, place.q + place.first * p.q_strides[2], p.q_strides, p.queries - place.first);
#pragma unroll 1
    for (int key = 0; key < place.seen; key += BN) {
      // The last tile has been read.
      __syncthreads();
      fill<BN, D, D_PADDED, D_STRIDE>(k, place.k + key * p.k_strides[2], p.k_strides, p.keys - key);
      fill<BN, E, E_PADDED, E_PADDED>(v, place.v + key * p.v_strides[2], p.v_strides, p.keys - key);
      __syncthreads();
      A s[TM][TN] = {};
#pragma unroll 2
      for (int c = 0; c < D_PADDED; c += CHUNK) {
        Vec<A, CHUNK> a[TM], b[TN];
#pragma unroll
        for (int i = 0; i < TM; ++i) a[i] = load<A, CHUNK>(q + (first + i) * D_STRIDE + c);
#pragma unroll
        for (int j = 0; j < TN; ++j) b[j] = load<A, CHUNK>(k + (lane + j * LANES) * D_STRIDE + c);
#pragma unroll
        for (int e = 0; e < CHUNK; ++e)
#pragma unroll
          for (int i = 0; i < TM; ++i)
#pragma unroll
            for (int j = 0; j < TN; ++j) s[i][j] += a[i][e] * b[j][e];
      }
#pragma unroll
      for (int i = 0; i < TM; ++i) {
        const int query = place.first + first + i;
        A most = top[i];
#pragma unroll
        for (int j = 0; j < TN; ++j) {
          const int at = key + lane + j * LANES;
          s[i][j] *= static_cast<A>(p.scale);
          if constexpr (Policy::MASK != NO_MASK) s[i][j] += widen<T>(place.masked(p, query, at));
          if (!place.sees(p, query, at)) s[i][j] = -math::infinity<A>();
          most = math::max(most, s[i][j]);
        }
        most = Team<THREADS, LANES>::reduce(most, largest);
        const A shift = shift_of(most), fade = math::exp(top[i] - shift);
        top[i] = most;
        sum[i] *= fade;
#pragma unroll
        for (int j = 0; j < TN; ++j) {
          const A weight = math::exp(s[i][j] - shift);
          sum[i] += weight;
          weights[(first + i) * W_STRIDE + lane + j * LANES] = weight;
        }
#pragma unroll
        for (int g = 0; g < GROUPS; ++g)
#pragma unroll
          for (int c = 0; c < COLUMNS; ++c) o[i][g][c] *= fade;
      }
      // The lanes that share a query are in one warp.
      __syncwarp();
#pragma unroll 1
      for (int at = 0; at < BN; at += CHUNK) {
        Vec<A, CHUNK> a[TM];
#pragma unroll
        for (int i = 0; i < TM; ++i) a[i] = load<A, CHUNK>(weights + (first + i) * W_STRIDE + at);
#pragma unroll
        for (int e = 0; e < CHUNK; ++e)
#pragma unroll
          for (int g = 0; g < GROUPS; ++g) {
            const Vec<A, COLUMNS> b = load<A, COLUMNS>(v + (at + e) * E_PADDED + (g * LANES + lane) * COLUMNS);
#pragma unroll
            for (int i = 0; i < TM; ++i)
#pragma unroll
              for (int c = 0; c < COLUMNS; ++c) o[i][g][c] += a[i][e] * b[c];
          }
      }
    }
#pragma unroll
    for (int i = 0; i < TM; ++i) {
      const A share = share_of<Policy>(Team<THREADS, LANES>::reduce(sum[i], added), p.keys);
      const int query = place.first + first + i;
      if (query >= p.queries) continue;
#pragma unroll
      for (int g = 0; g < GROUPS; ++g)
#pragma unroll
        for (int c = 0; c < COLUMNS; ++c) {
          const int column = (g * LANES + lane) * COLUMNS + c;
          if (column < E) {
            const A value = shared_out<Policy>(o[i][g][c], share);
            place.y[query * p.y_strides[2] + column * p.y_strides[3]] = narrow<T>(value);
          }
        }
    }
  }
};

template <class Policy>
LAPIDARY_FN void simt(const Params& p) {
  Simt<Policy>::run(p, reinterpret_cast<typename Simt<Policy>::A*>(dynamic_smem()));
}

// ---------------------------------------------------------------------------------------------
// Any depth: a warp has one query and 32 * COLUMNS columns of its result. Of 32 keys each lane has one, and all lanes
// add up their values one after the other.

template <class Policy>
LAPIDARY_FN void direct(const Params& p) {
  using T = typename Policy::T;
  using A = Compute<T>;
  constexpr int COLUMNS = Policy::COLUMNS, LANES = 32;
  const int slices = ceil_div(p.width, LANES * COLUMNS);
  const int number = static_cast<int>(blockIdx.x);
  const Place<Policy, 1> place(p, number / slices);
  const int lane = lane_id(), left = number % slices * (LANES * COLUMNS) + lane;
  const T* q = place.q + place.first * p.q_strides[2];
  A o[COLUMNS] = {}, top = -math::infinity<A>(), sum = 0;
#pragma unroll 1
  for (int first = 0; first < place.seen; first += LANES) {
    const int key = first + lane;
    A score = -math::infinity<A>();
    if (key < place.seen) {
      const T* k = place.k + key * p.k_strides[2];
      A dot = 0;
#pragma unroll 4
      for (int c = 0; c < p.depth; ++c) dot += widen<T>(q[c * p.q_strides[3]]) * widen<T>(k[c * p.k_strides[3]]);
      score = dot * static_cast<A>(p.scale);
      if constexpr (Policy::MASK != NO_MASK) score += widen<T>(place.masked(p, place.first, key));
    }
    using Warp = Team<LANES, LANES>;
    const A most = math::max(top, Warp::reduce(score, [](A a, A b) { return math::max(a, b); }));
    const A shift = shift_of(most), fade = math::exp(top - shift), weight = math::exp(score - shift);
    top = most;
    sum = sum * fade + weight;
#pragma unroll
    for (int c = 0; c < COLUMNS; ++c) o[c] *= fade;
    const int count = min(LANES, place.seen - first);
#pragma unroll 2
    for (int j = 0; j < count; ++j) {
      const A shared = shuffle_words(weight, [j](u32 word) { return __shfl_sync(0xffffffffu, word, j); });
      const T* v = place.v + (first + j) * p.v_strides[2];
#pragma unroll
      for (int c = 0; c < COLUMNS; ++c) {
        const int column = left + c * LANES;
        if (column < p.width) o[c] += shared * widen<T>(v[column * p.v_strides[3]]);
      }
    }
  }
  sum = Team<LANES, LANES>::reduce(sum, [](A a, A b) { return a + b; });
  const A share = share_of<Policy>(sum, p.keys);
#pragma unroll
  for (int c = 0; c < COLUMNS; ++c) {
    const int column = left + c * LANES;
    if (column < p.width) {
      place.y[place.first * p.y_strides[2] + column * p.y_strides[3]] = narrow<T>(shared_out<Policy>(o[c], share));
    }
  }
}

}  // namespace lapidary::attention
