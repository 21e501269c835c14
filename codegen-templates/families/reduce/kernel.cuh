// reduce - one result for each row, column or set of axes; and the position of the largest or smallest element.
//
// Contract: see README.md. Floats are summed in f32 (f64 for f64), integers in 64 bits that wrap. The order of
// summation depends on the policy and the extents alone. NaN wins every comparison, as in numpy.
#pragma once

#include "lapidary/team.cuh"
#include "lapidary/wide.cuh"

namespace lapidary::reduce {

enum class Kind {
  SUM,
  MEAN,
  MAX,
  MIN,
  PROD,
  L1,           // sum |x|
  L2,           // sqrt(sum x^2)
  SUM_SQUARE,   // sum x^2
  LOG_SUM,      // log(sum x)
  LOG_SUM_EXP,  // log(sum exp x), shifted by the maximum
};

// What sums of dtype T are held in.
template <class T>
using Sum = select_t<is_float<Compute<T>>, Compute<T>, select_t<is_signed<Compute<T>>, i64, u64>>;
// What log and sqrt of such a sum are computed in.
template <class A>
using Real = select_t<is_float<A>, A, double>;

// ---------------------------------------------------------------------------------------------
// The reducers: init, add an element, merge two states, finish.

template <Kind KIND, class X>
struct Reducer {
  using State = select_t<KIND == Kind::MAX || KIND == Kind::MIN, Compute<X>, Sum<X>>;

  static LAPIDARY_FN State init() {
    if constexpr (KIND == Kind::MAX) {
      return math::lowest<State>();
    } else if constexpr (KIND == Kind::MIN) {
      return math::highest<State>();
    } else {
      return static_cast<State>(KIND == Kind::PROD ? 1 : 0);
    }
  }
  static LAPIDARY_FN State merge(const State& a, const State& b) {
    if constexpr (KIND == Kind::MAX) {
      return math::max(a, b);
    } else if constexpr (KIND == Kind::MIN) {
      return math::min(a, b);
    } else if constexpr (KIND == Kind::PROD) {
      return math::mul(a, b);
    } else {
      return math::add(a, b);
    }
  }
  static LAPIDARY_FN State add(const State& state, Compute<X> x) {
    const State value = static_cast<State>(x);
    if constexpr (KIND == Kind::L1) {
      return math::add(state, math::abs(value));
    } else if constexpr (KIND == Kind::L2 || KIND == Kind::SUM_SQUARE) {
      return math::add(state, math::mul(value, value));
    } else {
      return merge(state, value);
    }
  }
  // The result of n elements in dtype Y.
  template <class Y>
  static LAPIDARY_FN Compute<Y> finish(const State& state, i64 n) {
    using R = Real<State>;
    if constexpr (KIND == Kind::MEAN && is_float<State>) {
      return math::cast<Y>(state / static_cast<State>(n));
    } else if constexpr (KIND == Kind::MEAN) {
      return math::cast<Y>(math::div(state, static_cast<State>(n)));
    } else if constexpr (KIND == Kind::L2) {
      return math::cast<Y>(math::sqrt(static_cast<R>(state)));
    } else if constexpr (KIND == Kind::LOG_SUM) {
      return math::cast<Y>(math::log(static_cast<R>(state)));
    } else {
      return math::cast<Y>(state);
    }
  }
};

// The maximum so far, and the sum of exp(x - maximum).
template <class X>
struct Reducer<Kind::LOG_SUM_EXP, X> {
  using R = Real<Sum<X>>;
  struct State {
    R top;
    R sum;
  };

  static LAPIDARY_FN State init() { return {-math::infinity<R>(), 0}; }
  // Equal maxima, infinite ones included, need no rescaling.
  static LAPIDARY_FN R scale(R from, R to) { return from == to ? static_cast<R>(1) : math::exp(from - to); }
  static LAPIDARY_FN State merge(const State& a, const State& b) {
    const R top = math::max(a.top, b.top);
    return {top, a.sum * scale(a.top, top) + b.sum * scale(b.top, top)};
  }
  static LAPIDARY_FN State add(const State& state, Compute<X> x) { return merge(state, {static_cast<R>(x), 1}); }
  template <class Y>
  static LAPIDARY_FN Compute<Y> finish(const State& state, i64) {
    return math::cast<Y>(math::isposinf(math::abs(state.top)) ? state.top : state.top + math::log(state.sum));
  }
};

// ---------------------------------------------------------------------------------------------
// Rows: x [rows, n], the reduced axis innermost. A team of ROW_THREADS a row.

template <class Policy>
struct RowParams {
  const void* x;
  void* y;
  i64 rows, n;
};

// The state of the elements first, first + step, .. of one row, in chunks of VEC.
template <class Policy, class R>
LAPIDARY_FN typename R::State row_state(const Memory<typename Policy::X>* x, i64 begin, i64 end, int member) {
  using X = typename Policy::X;
  constexpr int VEC = Policy::VEC, STEP = VEC * Policy::ROW_THREADS, UNROLL = 4;
  typename R::State states[UNROLL];
#pragma unroll
  for (int u = 0; u < UNROLL; ++u) states[u] = R::init();
  i64 i = begin + member * VEC;
  for (; i + (UNROLL - 1) * STEP < end; i += UNROLL * STEP) {
    Compute<X> values[UNROLL][VEC];
#pragma unroll
    for (int u = 0; u < UNROLL; ++u) load_values<X, VEC>(x + i + u * STEP, values[u]);
#pragma unroll
    for (int u = 0; u < UNROLL; ++u) {
#pragma unroll
      for (int e = 0; e < VEC; ++e) states[u] = R::add(states[u], values[u][e]);
    }
  }
  for (; i < end; i += STEP) {
    Compute<X> values[VEC];
    load_values<X, VEC>(x + i, values);
#pragma unroll
    for (int e = 0; e < VEC; ++e) states[0] = R::add(states[0], values[e]);
  }
  return R::merge(R::merge(states[0], states[1]), R::merge(states[2], states[3]));
}

template <class Policy>
LAPIDARY_FN void rows(const RowParams<Policy>& p) {
  using X = typename Policy::X;
  using Y = typename Policy::Y;
  using R = Reducer<Policy::KIND, X>;
  using T = Team<Policy::THREADS, Policy::ROW_THREADS>;
  for (i64 first = static_cast<i64>(blockIdx.x) * T::ROWS; first < p.rows;
       first += static_cast<i64>(gridDim.x) * T::ROWS) {
    const i64 row = first + T::row();
    const i64 n = row < p.rows ? p.n : 0;
    const Memory<X>* x = static_cast<const Memory<X>*>(p.x) + row * p.n;
    typename R::State state = row_state<Policy, R>(x, 0, n, T::member());
    state = T::reduce(state, R::merge);
    if (T::member() == 0 && row < p.rows) {
      static_cast<Memory<Y>*>(p.y)[row] = narrow<Y>(R::template finish<Y>(state, p.n));
    }
  }
}

// ---------------------------------------------------------------------------------------------
// Few long rows: `partial` gives each of `splits` parts of a row to a CTA and writes its state, `finish` merges
// the states of a row.

template <class Policy>
struct PartialParams {
  const void* x;
  // [rows, splits] states.
  void* states;
  i64 rows, n, splits;
};

template <class Policy>
LAPIDARY_FN void partial(const PartialParams<Policy>& p) {
  using X = typename Policy::X;
  using R = Reducer<Policy::KIND, X>;
  using T = Team<Policy::THREADS, Policy::ROW_THREADS>;
  static_assert(Policy::ROW_THREADS == Policy::THREADS, "a part of a row is the work of a CTA");
  const i64 row = static_cast<i64>(blockIdx.x) / p.splits;
  const i64 split = static_cast<i64>(blockIdx.x) % p.splits;
  // Parts are whole chunks, so that every part begins aligned.
  const i64 part = round_up<i64>(ceil_div<i64>(p.n, p.splits), Policy::VEC);
  const i64 begin = lapidary::min(split * part, p.n);
  const i64 end = lapidary::min(begin + part, p.n);
  const Memory<X>* x = static_cast<const Memory<X>*>(p.x) + row * p.n;
  typename R::State state = row_state<Policy, R>(x, begin, end, T::member());
  state = T::reduce(state, R::merge);
  if (T::member() == 0) static_cast<typename R::State*>(p.states)[blockIdx.x] = state;
}

template <class Policy>
struct FinishParams {
  const void* states;
  void* y;
  i64 rows, n, splits;
};

// A warp a row.
template <class Policy>
LAPIDARY_FN void finish(const FinishParams<Policy>& p) {
  using X = typename Policy::X;
  using Y = typename Policy::Y;
  using R = Reducer<Policy::KIND, X>;
  using T = Team<Policy::THREADS, 32>;
  const i64 row = static_cast<i64>(blockIdx.x) * T::ROWS + T::row();
  const typename R::State* states = static_cast<const typename R::State*>(p.states) + row * p.splits;
  typename R::State state = R::init();
  if (row < p.rows) {
    for (i64 i = T::member(); i < p.splits; i += 32) state = R::merge(state, states[i]);
  }
  state = T::reduce(state, R::merge);
  if (T::member() == 0 && row < p.rows) {
    static_cast<Memory<Y>*>(p.y)[row] = narrow<Y>(R::template finish<Y>(state, p.n));
  }
}

// ---------------------------------------------------------------------------------------------
// Columns: x [outer, n, inner], inner > 1. BX neighbouring columns a CTA, BY threads a column.

template <class Policy>
struct ColumnParams {
  const void* x;
  void* y;
  i64 outer, n, inner;
};

template <class Policy>
LAPIDARY_FN void columns(const ColumnParams<Policy>& p) {
  using X = typename Policy::X;
  using Y = typename Policy::Y;
  using R = Reducer<Policy::KIND, X>;
  constexpr int BX = Policy::BX, BY = Policy::BY;
  const int tx = static_cast<int>(threadIdx.x) % BX, ty = static_cast<int>(threadIdx.x) / BX;
  const i64 blocks = ceil_div<i64>(p.inner, BX);
  const i64 outer = static_cast<i64>(blockIdx.x) / blocks;
  const i64 column = static_cast<i64>(blockIdx.x) % blocks * BX + tx;
  const Memory<X>* x = static_cast<const Memory<X>*>(p.x) + outer * p.n * p.inner + column;
  typename R::State state = R::init();
  if (column < p.inner) {
#pragma unroll 4
    for (i64 i = ty; i < p.n; i += BY) state = R::add(state, widen<X>(x[i * p.inner]));
  }
  state = reduce_column<BX, BY>(state, R::merge);
  if (ty == 0 && column < p.inner) {
    static_cast<Memory<Y>*>(p.y)[outer * p.inner + column] = narrow<Y>(R::template finish<Y>(state, p.n));
  }
}

// ---------------------------------------------------------------------------------------------
// Any axes: the kept ones and the reduced ones with their strides. One thread a result, one element at a time.

template <class Policy>
struct GeneralParams {
  const void* x;
  void* y;
  i64 kept[Policy::KEPT], kept_strides[Policy::KEPT];
  i64 reduced[Policy::REDUCED], reduced_strides[Policy::REDUCED];
};

template <class Policy>
LAPIDARY_FN void general(const GeneralParams<Policy>& p) {
  using X = typename Policy::X;
  using Y = typename Policy::Y;
  using R = Reducer<Policy::KIND, X>;
  const i64 results = product<Policy::KEPT>(p.kept);
  const i64 n = product<Policy::REDUCED>(p.reduced);
  for (i64 result = grid_thread<i64>(); result < results; result += grid_threads<i64>()) {
    i64 at[Policy::KEPT];
    unravel<Policy::KEPT>(result, p.kept, at);
    const Memory<X>* x = static_cast<const Memory<X>*>(p.x) + dot<Policy::KEPT>(at, p.kept_strides);
    typename R::State state = R::init();
    for (i64 i = 0; i < n; ++i) {
      i64 inner[Policy::REDUCED];
      unravel<Policy::REDUCED>(i, p.reduced, inner);
      state = R::add(state, widen<X>(x[dot<Policy::REDUCED>(inner, p.reduced_strides)]));
    }
    static_cast<Memory<Y>*>(p.y)[result] = narrow<Y>(R::template finish<Y>(state, n));
  }
}

// ---------------------------------------------------------------------------------------------
// ArgMax and ArgMin over x [outer, n, inner]; y [outer, inner].

template <class T>
struct Found {
  T value;
  i64 at;
};

template <class Policy>
struct ArgReducer {
  using C = Compute<typename Policy::X>;
  using State = Found<C>;

  // Of an empty team; an index below zero loses against everything.
  static LAPIDARY_FN State init() { return {static_cast<C>(0), -1}; }
  static LAPIDARY_FN bool beats(const C& a, const C& b) {
    if (math::isnan(a) || math::isnan(b)) return math::isnan(a) && !math::isnan(b);
    return Policy::LARGEST ? a > b : a < b;
  }
  static LAPIDARY_FN State merge(const State& a, const State& b) {
    if (b.at < 0) return a;
    if (a.at < 0 || beats(b.value, a.value)) return b;
    if (beats(a.value, b.value)) return a;
    return (a.at < b.at) != Policy::LAST ? a : b;
  }
};

template <class Policy>
struct ArgParams {
  const void* x;
  i64* y;
  i64 outer, n, inner;
};

// inner == 1: a team of ROW_THREADS a row.
template <class Policy>
LAPIDARY_FN void arg_rows(const ArgParams<Policy>& p) {
  using X = typename Policy::X;
  using R = ArgReducer<Policy>;
  using T = Team<Policy::THREADS, Policy::ROW_THREADS>;
  for (i64 first = static_cast<i64>(blockIdx.x) * T::ROWS; first < p.outer;
       first += static_cast<i64>(gridDim.x) * T::ROWS) {
    const i64 row = first + T::row();
    const Memory<X>* x = static_cast<const Memory<X>*>(p.x) + row * p.n;
    typename R::State state = R::init();
    if (row < p.outer) {
#pragma unroll 4
      for (i64 i = T::member(); i < p.n; i += Policy::ROW_THREADS) state = R::merge(state, {widen<X>(x[i]), i});
    }
    state = T::reduce(state, R::merge);
    if (T::member() == 0 && row < p.outer) p.y[row] = state.at;
  }
}

// Any inner: one thread a result.
template <class Policy>
LAPIDARY_FN void arg_columns(const ArgParams<Policy>& p) {
  using X = typename Policy::X;
  using R = ArgReducer<Policy>;
  const i64 results = p.outer * p.inner;
  for (i64 result = grid_thread<i64>(); result < results; result += grid_threads<i64>()) {
    const Memory<X>* x = static_cast<const Memory<X>*>(p.x) + result / p.inner * p.n * p.inner + result % p.inner;
    typename R::State state = R::init();
#pragma unroll 4
    for (i64 i = 0; i < p.n; ++i) state = R::merge(state, {widen<X>(x[i * p.inner]), i});
    p.y[result] = state.at;
  }
}

}  // namespace lapidary::reduce
