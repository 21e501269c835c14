// softmax - exp(x - max) / sum exp(x - max) along one axis, or its logarithm.
//
// Contract: see README.md. Statistics are f32 (f64 for f64). Rows with a NaN, with +inf, or of -inf alone give
// what numpy's formula gives. x and y may be the same memory.
#pragma once

#include "lapidary/team.cuh"
#include "lapidary/wide.cuh"

namespace lapidary::softmax {

// The maximum so far, and the sum of exp(x - maximum).
template <class R>
struct Stats {
  R top;
  R sum;
};

template <class R>
struct Online {
  static LAPIDARY_FN Stats<R> init() { return {-math::infinity<R>(), 0}; }
  // Equal maxima, infinite ones included, need no rescaling.
  static LAPIDARY_FN R scale(R from, R to) { return from == to ? static_cast<R>(1) : math::exp(from - to); }
  static LAPIDARY_FN Stats<R> merge(const Stats<R>& a, const Stats<R>& b) {
    const R top = math::max(a.top, b.top);
    return {top, a.sum * scale(a.top, top) + b.sum * scale(b.top, top)};
  }
  static LAPIDARY_FN Stats<R> add(const Stats<R>& s, R x) {
    const R top = math::max(s.top, x);
    return {top, s.sum * scale(s.top, top) + scale(x, top)};
  }
};

// What turns the statistics into results: exp(x - shift) * factor, or x - shift for the logarithm.
template <class Policy>
struct Normalizer {
  using R = Compute<typename Policy::X>;
  R top;
  R factor;  // 1 / sum, or log(sum)

  static LAPIDARY_FN Normalizer of(const Stats<R>& s) {
    // exp(inf - inf) is NaN, and a NaN in the sum is one in every result.
    const R sum = math::isposinf(s.top) ? math::nan<R>() : s.sum;
    return {s.top, Policy::LOG ? math::log(sum) : static_cast<R>(1) / sum};
  }
  LAPIDARY_FN R apply(R x) const { return Policy::LOG ? x - top - factor : math::exp(x - top) * factor; }
};

// ---------------------------------------------------------------------------------------------
// Rows: x, y [rows, n]. A team of ROW_THREADS a row.

struct RowParams {
  const void* x;
  void* y;
  i64 rows, n;
};

// The row stays in registers between the passes: n <= ROW_THREADS * PER_THREAD.
template <class Policy>
LAPIDARY_FN void rows_cached(const RowParams& p) {
  using X = typename Policy::X;
  using Y = typename Policy::Y;
  using R = Compute<X>;
  using T = Team<Policy::THREADS, Policy::ROW_THREADS>;
  constexpr int VEC = Policy::VEC, CHUNKS = Policy::PER_THREAD / VEC;
  static_assert(Policy::PER_THREAD % VEC == 0, "a thread holds whole chunks");
  const int n = static_cast<int>(p.n);
  for (i64 first = static_cast<i64>(blockIdx.x) * T::ROWS; first < p.rows;
       first += static_cast<i64>(gridDim.x) * T::ROWS) {
    const i64 row = first + T::row();
    const bool live = row < p.rows;
    const Memory<X>* x = static_cast<const Memory<X>*>(p.x) + row * p.n;
    Memory<Y>* y = static_cast<Memory<Y>*>(p.y) + row * p.n;
    R values[CHUNKS][VEC];
    R top = -math::infinity<R>();
#pragma unroll
    for (int c = 0; c < CHUNKS; ++c) {
      const int i = (c * Policy::ROW_THREADS + T::member()) * VEC;
      if (live && i < n) {
        load_values<X, VEC>(x + i, values[c]);
      } else {
#pragma unroll
        for (int e = 0; e < VEC; ++e) values[c][e] = -math::infinity<R>();
      }
    }
#pragma unroll
    for (int c = 0; c < CHUNKS; ++c) {
#pragma unroll
      for (int e = 0; e < VEC; ++e) top = math::max(top, values[c][e]);
    }
    top = T::reduce(top, [](R a, R b) { return math::max(a, b); });
    R sum = 0;
#pragma unroll
    for (int c = 0; c < CHUNKS; ++c) {
      const int i = (c * Policy::ROW_THREADS + T::member()) * VEC;
#pragma unroll
      for (int e = 0; e < VEC; ++e) {
        if constexpr (Policy::LOG) {
          values[c][e] -= top;
          if (i < n) sum += math::exp(values[c][e]);
        } else {
          values[c][e] = math::exp(values[c][e] - top);
          if (i < n) sum += values[c][e];
        }
      }
    }
    sum = T::reduce(sum, [](R a, R b) { return a + b; });
    const R factor = Policy::LOG ? math::log(sum) : static_cast<R>(1) / sum;
#pragma unroll
    for (int c = 0; c < CHUNKS; ++c) {
      const int i = (c * Policy::ROW_THREADS + T::member()) * VEC;
      if (live && i < n) {
        Compute<Y> out[VEC];
#pragma unroll
        for (int e = 0; e < VEC; ++e) {
          out[e] = math::cast<Y>(Policy::LOG ? values[c][e] - factor : values[c][e] * factor);
        }
        store_values<Y, VEC>(y + i, out);
      }
    }
  }
}

// Rows of any length, read twice.
template <class Policy>
LAPIDARY_FN void rows_streamed(const RowParams& p) {
  using X = typename Policy::X;
  using Y = typename Policy::Y;
  using R = Compute<X>;
  using T = Team<Policy::THREADS, Policy::ROW_THREADS>;
  constexpr int VEC = Policy::VEC, STEP = VEC * Policy::ROW_THREADS;
  for (i64 first = static_cast<i64>(blockIdx.x) * T::ROWS; first < p.rows;
       first += static_cast<i64>(gridDim.x) * T::ROWS) {
    const i64 row = first + T::row();
    const i64 n = row < p.rows ? p.n : 0;
    const Memory<X>* x = static_cast<const Memory<X>*>(p.x) + row * p.n;
    Memory<Y>* y = static_cast<Memory<Y>*>(p.y) + row * p.n;
    Stats<R> stats = Online<R>::init();
#pragma unroll 2
    for (i64 i = T::member() * VEC; i < n; i += STEP) {
      R values[VEC];
      load_values<X, VEC>(x + i, values);
      // One rescaling a chunk.
      R top = stats.top;
#pragma unroll
      for (int e = 0; e < VEC; ++e) top = math::max(top, values[e]);
      R sum = stats.sum * Online<R>::scale(stats.top, top);
#pragma unroll
      for (int e = 0; e < VEC; ++e) sum += Online<R>::scale(values[e], top);
      stats = {top, sum};
    }
    stats = T::reduce(stats, [](const Stats<R>& a, const Stats<R>& b) { return Online<R>::merge(a, b); });
    const Normalizer<Policy> normalizer = Normalizer<Policy>::of(stats);
#pragma unroll 2
    for (i64 i = T::member() * VEC; i < n; i += STEP) {
      R values[VEC];
      load_values<X, VEC>(x + i, values);
      Compute<Y> out[VEC];
#pragma unroll
      for (int e = 0; e < VEC; ++e) out[e] = math::cast<Y>(normalizer.apply(values[e]));
      store_values<Y, VEC>(y + i, out);
    }
  }
}

template <class Policy>
LAPIDARY_FN void rows(const RowParams& p) {
  if constexpr (Policy::PER_THREAD > 0) {
    rows_cached<Policy>(p);
  } else {
    rows_streamed<Policy>(p);
  }
}

// ---------------------------------------------------------------------------------------------
// Columns: x, y [outer, n, inner], inner > 1. BX neighbouring columns a CTA, BY threads a column; x is read twice.

struct ColumnParams {
  const void* x;
  void* y;
  i64 outer, n, inner;
};

template <class Policy>
LAPIDARY_FN void columns(const ColumnParams& p) {
  using X = typename Policy::X;
  using Y = typename Policy::Y;
  using R = Compute<X>;
  constexpr int BX = Policy::BX, BY = Policy::BY;
  // exp of a double takes many registers.
  constexpr int UNROLL = is_same<R, double> ? 1 : 4;
  const int tx = static_cast<int>(threadIdx.x) % BX, ty = static_cast<int>(threadIdx.x) / BX;
  const i64 blocks = ceil_div<i64>(p.inner, BX);
  const i64 outer = static_cast<i64>(blockIdx.x) / blocks;
  const i64 column = static_cast<i64>(blockIdx.x) % blocks * BX + tx;
  const i64 base = outer * p.n * p.inner + column;
  const Memory<X>* x = static_cast<const Memory<X>*>(p.x) + base;
  Memory<Y>* y = static_cast<Memory<Y>*>(p.y) + base;
  const i64 n = column < p.inner ? p.n : 0;
  Stats<R> stats = Online<R>::init();
#pragma unroll UNROLL
  for (i64 i = ty; i < n; i += BY) stats = Online<R>::add(stats, widen<X>(x[i * p.inner]));
  stats = reduce_column<BX, BY>(stats, [](const Stats<R>& a, const Stats<R>& b) { return Online<R>::merge(a, b); });
  const Normalizer<Policy> normalizer = Normalizer<Policy>::of(stats);
#pragma unroll UNROLL
  for (i64 i = ty; i < n; i += BY) {
    y[i * p.inner] = narrow<Y>(math::cast<Y>(normalizer.apply(widen<X>(x[i * p.inner]))));
  }
}

}  // namespace lapidary::softmax
