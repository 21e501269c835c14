// copy - moves elements between two views of the same shape: transpose, slice, expand, concat, split; and padding.
//
// Contract: see README.md. Elements are raw bytes of 1, 2, 4, 8 or 16. Views may overlap nowhere in memory.
// Negative strides and zero input strides are allowed.
#pragma once

#include "lapidary/wide.cuh"

namespace lapidary::copy {

// ---------------------------------------------------------------------------------------------
// Any view to any view.

template <class Policy>
struct Params {
  const void* x;
  void* y;
  // In elements, from the pointers to each view's first element.
  i64 x_base, y_base;
  typename Policy::Index dims[Policy::RANK];
  typename Policy::Index x_strides[Policy::RANK];
  typename Policy::Index y_strides[Policy::RANK];
};

// By `blocks` blocks, of which this is number `block`. Threads follow the dims in row-major order, VEC elements of the
// innermost axis at a time.
template <class Policy>
LAPIDARY_FN void move(const Params<Policy>& p, i64 block, i64 blocks) {
  using Index = typename Policy::Index;
  using Element = Raw<Policy::ELEMENT>;
  constexpr int RANK = Policy::RANK, VEC = Policy::VEC, UNROLL = Policy::UNROLL, THREADS = Policy::THREADS;
  const Element* x = static_cast<const Element*>(p.x) + p.x_base;
  Element* y = static_cast<Element*>(p.y) + p.y_base;
  Index chunk_dims[RANK];
#pragma unroll
  for (int d = 0; d < RANK; ++d) chunk_dims[d] = p.dims[d];
  chunk_dims[RANK - 1] /= VEC;
  const Index chunks = product<RANK>(chunk_dims);
  const Index stride = static_cast<Index>(blocks) * (THREADS * UNROLL);
  for (Index first = static_cast<Index>(block) * (THREADS * UNROLL) + threadIdx.x; first < chunks; first += stride) {
    Element values[UNROLL][VEC];
    Index y_at[UNROLL];
#pragma unroll
    for (int u = 0; u < UNROLL; ++u) {
      const Index chunk = first + u * THREADS;
      if (chunk < chunks) {
        Index at[RANK];
        unravel<RANK>(chunk, chunk_dims, at);
        at[RANK - 1] *= VEC;
        y_at[u] = dot<RANK>(at, p.y_strides);
        load_wide<Element, VEC>(x + dot<RANK>(at, p.x_strides), values[u]);
      }
    }
#pragma unroll
    for (int u = 0; u < UNROLL; ++u) {
      if (first + u * THREADS < chunks) store_wide<Element, VEC>(y + y_at[u], values[u]);
    }
  }
  if constexpr (RANK == 1 && VEC > 1) {
    const Index tail = chunks * VEC + static_cast<Index>(block) * THREADS + threadIdx.x;
    if (tail < p.dims[0]) y[tail] = x[tail];
  }
}

template <class Policy>
LAPIDARY_FN void run(const Params<Policy>& p) {
  move<Policy>(p, blockIdx.x, gridDim.x);
}

// ---------------------------------------------------------------------------------------------
// Several copies in one launch, each by the blocks behind those of the one before.

template <class Policy>
struct PartsParams {
  const void* x[Policy::PARTS];
  void* y[Policy::PARTS];
  typename Policy::Index dims[Policy::PARTS][Policy::RANK];
  typename Policy::Index x_strides[Policy::PARTS][Policy::RANK];
  typename Policy::Index y_strides[Policy::PARTS][Policy::RANK];
  // The first block behind each copy's own.
  i64 end[Policy::PARTS];
};

template <class Policy>
LAPIDARY_FN void parts(const PartsParams<Policy>& p) {
  const i64 block = blockIdx.x;
  i64 first = 0;
#pragma unroll
  for (int k = 0; k < Policy::PARTS; ++k) {
    if (block >= first && block < p.end[k]) {
      Params<Policy> part = {p.x[k], p.y[k], 0, 0};
#pragma unroll
      for (int d = 0; d < Policy::RANK; ++d) {
        part.dims[d] = p.dims[k][d];
        part.x_strides[d] = p.x_strides[k][d];
        part.y_strides[d] = p.y_strides[k][d];
      }
      move<Policy>(part, block - first, p.end[k] - first);
    }
    first = p.end[k];
  }
}

// ---------------------------------------------------------------------------------------------
// The two innermost axes swapped, through shared memory, so that both sides move whole lines.

template <class Policy>
struct TransposeParams {
  const void* x;
  void* y;
  i64 x_base, y_base;
  // The axes above the swapped two.
  typename Policy::Index outer[Policy::OUTER];
  typename Policy::Index x_outer[Policy::OUTER];
  typename Policy::Index y_outer[Policy::OUTER];
  // y[.., c, r] = x[.., r, c]; x has stride 1 along c, y along r.
  typename Policy::Index rows, columns;
  typename Policy::Index x_row, y_column;
};

template <class Policy>
LAPIDARY_FN void transpose(const TransposeParams<Policy>& p) {
  using Index = typename Policy::Index;
  using Element = Raw<Policy::ELEMENT>;
  constexpr int TILE = Policy::TILE, OUTER = Policy::OUTER, THREADS = Policy::THREADS;
  constexpr int VEC_X = Policy::VEC_X, VEC_Y = Policy::VEC_Y;
  // One bank of padding a row keeps the column walks apart.
  constexpr int PAD = Policy::ELEMENT < 4 ? 4 / Policy::ELEMENT : 1;
  __shared__ Element tile[TILE][TILE + PAD];

  Index tiles_r, tiles_c, tile_number = static_cast<Index>(blockIdx.x), r0, c0, outer;
  tiles_r = ceil_div<Index>(p.rows, TILE);
  tiles_c = ceil_div<Index>(p.columns, TILE);
  divide(tile_number, tiles_c, tile_number, c0);
  divide(tile_number, tiles_r, outer, r0);
  r0 *= TILE;
  c0 *= TILE;
  Index at[OUTER];
  unravel<OUTER>(outer, p.outer, at);
  const Element* x = static_cast<const Element*>(p.x) + p.x_base + dot<OUTER>(at, p.x_outer);
  Element* y = static_cast<Element*>(p.y) + p.y_base + dot<OUTER>(at, p.y_outer);
  const int rows = static_cast<int>(lapidary::min<Index>(TILE, p.rows - r0));
  const int columns = static_cast<int>(lapidary::min<Index>(TILE, p.columns - c0));

  // VEC_X divides the columns, so a chunk is inside or outside as a whole.
  constexpr int X_CHUNKS = TILE / VEC_X;
#pragma unroll
  for (int i = threadIdx.x; i < TILE * X_CHUNKS; i += THREADS) {
    const int r = i / X_CHUNKS, c = i % X_CHUNKS * VEC_X;
    if (r < rows && c < columns) {
      Element values[VEC_X];
      load_wide<Element, VEC_X>(x + (r0 + r) * p.x_row + c0 + c, values);
#pragma unroll
      for (int e = 0; e < VEC_X; ++e) tile[r][c + e] = values[e];
    }
  }
  __syncthreads();
  // A warp covers LANES chunks of one output line and 32 / LANES neighbouring lines: with 2-byte elements more
  // chunks of a line would meet in the same banks.
  constexpr int Y_CHUNKS = TILE / VEC_Y;
  constexpr int LANES = Policy::ELEMENT == 2 && VEC_Y == 8 ? lapidary::min(4, Y_CHUNKS) : lapidary::min(32, Y_CHUNKS);
  constexpr int LINES = 32 / LANES;
  static_assert(TILE % LINES == 0 && Y_CHUNKS % LANES == 0, "a warp's patch divides the tile");
#pragma unroll
  for (int i = threadIdx.x; i < TILE * Y_CHUNKS; i += THREADS) {
    const int patch = i / 32, lane = i % 32;
    const int c = patch / (Y_CHUNKS / LANES) * LINES + lane / LANES;
    const int r = (patch % (Y_CHUNKS / LANES) * LANES + lane % LANES) * VEC_Y;
    if (r < rows && c < columns) {
      Element values[VEC_Y];
#pragma unroll
      for (int e = 0; e < VEC_Y; ++e) values[e] = tile[r + e][c];
      store_wide<Element, VEC_Y>(y + (c0 + c) * p.y_column + r0 + r, values);
    }
  }
}

// ---------------------------------------------------------------------------------------------
// Padding, as a gather: every output element asks where it comes from.

enum class PadMode {
  CONSTANT,
  EDGE,
  REFLECT,  // the border element is not repeated
  WRAP,
};

template <class Policy>
struct PadParams {
  const void* x;
  // One element, or null for zero; CONSTANT only.
  const void* value;
  void* y;
  typename Policy::Index x_dims[Policy::RANK];
  typename Policy::Index y_dims[Policy::RANK];
  // Elements added before each axis; negative ones crop.
  typename Policy::Index lo[Policy::RANK];
};

template <PadMode MODE, class Index>
LAPIDARY_FN Index source_of(Index i, Index extent) {
  if constexpr (MODE == PadMode::EDGE) {
    return lapidary::min(lapidary::max<Index>(i, 0), extent - 1);
  } else if constexpr (MODE == PadMode::REFLECT) {
    if (extent == 1) return 0;
    const Index period = 2 * (extent - 1);
    i = i < 0 ? -i : i;
    i %= period;
    return i < extent ? i : period - i;
  } else if constexpr (MODE == PadMode::WRAP) {
    i %= extent;
    return i < 0 ? i + extent : i;
  } else {
    return i;
  }
}

template <class Policy>
LAPIDARY_FN void pad(const PadParams<Policy>& p) {
  using Index = typename Policy::Index;
  using Element = Raw<Policy::ELEMENT>;
  constexpr int RANK = Policy::RANK;
  Element fill = {};
  if (Policy::MODE == PadMode::CONSTANT && p.value != nullptr) fill = *static_cast<const Element*>(p.value);
  const Index total = product<RANK>(p.y_dims);
  for (Index linear = grid_thread<Index>(); linear < total; linear += grid_threads<Index>()) {
    Index at[RANK];
    unravel<RANK>(linear, p.y_dims, at);
    Index from = 0;
    bool inside = true;
#pragma unroll
    for (int d = 0; d < RANK; ++d) {
      const Index i = source_of<Policy::MODE>(at[d] - p.lo[d], p.x_dims[d]);
      inside = inside && i >= 0 && i < p.x_dims[d];
      from = from * p.x_dims[d] + i;
    }
    static_cast<Element*>(p.y)[linear] = inside ? static_cast<const Element*>(p.x)[from] : fill;
  }
}

}  // namespace lapidary::copy
