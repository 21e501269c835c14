// team.cuh - threads that work on one row together, and combine their results.
//
// Contract: ROW_THREADS is a power of two up to 32 (several rows a warp or a CTA), or THREADS (one row a CTA).
// Every thread of the CTA calls `reduce`, also those whose row is beyond the end. The order of combination is
// fixed, so results repeat bit for bit. State is a plain struct; merge(a, b) must be associative enough for its
// purpose and symmetric.
#pragma once

#include "lapidary/math.cuh"

namespace lapidary {

// Applies `shuffle` to each 32-bit word of x.
template <class T, class Shuffle>
LAPIDARY_FN T shuffle_words(const T& x, Shuffle shuffle) {
  constexpr int WORDS = (int(sizeof(T)) + 3) / 4;
  u32 words[WORDS] = {};
  memcpy(words, &x, sizeof(T));
#pragma unroll
  for (int i = 0; i < WORDS; ++i) words[i] = shuffle(words[i]);
  T r;
  memcpy(&r, words, sizeof(T));
  return r;
}
template <class T>
LAPIDARY_FN T shuffle_xor(const T& x, int mask) {
  return shuffle_words(x, [mask](u32 word) { return __shfl_xor_sync(0xffffffffu, word, mask); });
}
template <class T>
LAPIDARY_FN T shuffle_up(const T& x, int distance) {
  return shuffle_words(x, [distance](u32 word) { return __shfl_up_sync(0xffffffffu, word, distance); });
}

template <int THREADS, int ROW_THREADS>
struct Team {
  static_assert(ROW_THREADS <= 32 || ROW_THREADS == THREADS, "a team is a part of a warp, or a CTA");
  static_assert(THREADS % 32 == 0 && THREADS % ROW_THREADS == 0, "a CTA is made of whole warps and teams");
  static constexpr int ROWS = THREADS / ROW_THREADS;

  // This thread's number in its team, and its team's in the CTA.
  static LAPIDARY_FN int member() { return static_cast<int>(threadIdx.x) % ROW_THREADS; }
  static LAPIDARY_FN int row() { return static_cast<int>(threadIdx.x) / ROW_THREADS; }

  // All members receive the merge of all states.
  template <class State, class Merge>
  static LAPIDARY_FN State reduce(State state, Merge merge) {
    constexpr int LANES = ROW_THREADS < 32 ? ROW_THREADS : 32;
#pragma unroll
    for (int mask = LANES / 2; mask > 0; mask /= 2) state = merge(state, shuffle_xor(state, mask));
    if constexpr (ROW_THREADS > 32) {
      __shared__ State of_warp[THREADS / 32];
      __syncthreads();
      if (lane_id() == 0) of_warp[threadIdx.x / 32] = state;
      __syncthreads();
      state = of_warp[0];
#pragma unroll 4
      for (int w = 1; w < THREADS / 32; ++w) state = merge(state, of_warp[w]);
    }
    return state;
  }
};

// A CTA of BX columns by BY threads a column (threadIdx.x = y * BX + x): merges the states of a column. All BY
// threads of it receive the result.
template <int BX, int BY, class State, class Merge>
LAPIDARY_FN State reduce_column(State state, Merge merge) {
  if constexpr (BY > 1) {
    __shared__ State states[BY][BX];
    const int x = static_cast<int>(threadIdx.x) % BX;
    const int y = static_cast<int>(threadIdx.x) / BX;
    __syncthreads();
    states[y][x] = state;
    __syncthreads();
    state = states[0][x];
#pragma unroll 4
    for (int i = 1; i < BY; ++i) state = merge(state, states[i][x]);
  }
  return state;
}

}  // namespace lapidary
