// scatter - a copy of a tensor with updates written into it: ScatterElements, ScatterND.
//
// Contract: see README.md. Results repeat bit for bit: there are no atomics. The ordered forms own one output
// element a thread and apply its updates in the order of the index tensor, as numpy does; the unique forms write
// the updates in parallel into data already copied to y, and need every index to occur once.
#pragma once

#include "lapidary/wide.cuh"

namespace lapidary::scatter {

enum class Mode { SET, ADD, MUL, MAX, MIN };

template <Mode MODE, class T>
LAPIDARY_FN T combine(T old, T update) {
  if constexpr (MODE == Mode::ADD) {
    return math::add(old, update);
  } else if constexpr (MODE == Mode::MUL) {
    return math::mul(old, update);
  } else if constexpr (MODE == Mode::MAX) {
    return math::max(old, update);
  } else if constexpr (MODE == Mode::MIN) {
    return math::min(old, update);
  } else {
    return update;
  }
}

// An update outside the tensor, which ONNX leaves undefined, is dropped: no position compares equal to -1.
template <class I>
LAPIDARY_FN i64 target(I index, i64 extent) {
  i64 i = static_cast<i64>(index);
  i = i < 0 ? i + extent : i;
  return i < extent ? i : -1;
}

// ---------------------------------------------------------------------------------------------
// ScatterElements: y = x; y[.., indices[u], ..] = combine(.., updates[u]) for each position u of the indices.

template <class Policy>
struct ElementsParams {
  // Ordered form only; y may be the same memory.
  const void* x;
  const void* indices;
  const void* updates;
  void* y;
  // The shape of x and y, and that of indices and updates.
  i64 dims[Policy::RANK];
  i64 index_dims[Policy::RANK];
};

// One thread an element of y: index_dims[AXIS] index reads each.
template <class Policy>
LAPIDARY_FN void elements_ordered(const ElementsParams<Policy>& p) {
  using T = typename Policy::T;
  using I = typename Policy::Indices;
  constexpr int RANK = Policy::RANK, AXIS = Policy::AXIS;
  const i64 total = product<RANK>(p.dims);
  for (i64 linear = grid_thread<i64>(); linear < total; linear += grid_threads<i64>()) {
    i64 at[RANK];
    unravel<RANK>(linear, p.dims, at);
    const i64 here = at[AXIS];
    at[AXIS] = 0;
    bool covered = true;
    i64 first = 0, step = 1;
#pragma unroll
    for (int d = 0; d < RANK; ++d) {
      covered = covered && (d == AXIS || at[d] < p.index_dims[d]);
      first = first * p.index_dims[d] + at[d];
      if (d > AXIS) step *= p.index_dims[d];
    }
    Compute<T> value = widen<T>(static_cast<const Memory<T>*>(p.x)[linear]);
    if (covered) {
      const I* index = static_cast<const I*>(p.indices) + first;
      for (i64 k = 0; k < p.index_dims[AXIS]; ++k) {
        if (target(index[k * step], p.dims[AXIS]) == here) {
          value = combine<Policy::MODE>(value, widen<T>(static_cast<const Memory<T>*>(p.updates)[first + k * step]));
        }
      }
    }
    static_cast<Memory<T>*>(p.y)[linear] = narrow<T>(value);
  }
}

// One thread an update.
template <class Policy>
LAPIDARY_FN void elements_unique(const ElementsParams<Policy>& p) {
  using T = typename Policy::T;
  using I = typename Policy::Indices;
  constexpr int RANK = Policy::RANK, AXIS = Policy::AXIS;
  const i64 total = product<RANK>(p.index_dims);
  for (i64 linear = grid_thread<i64>(); linear < total; linear += grid_threads<i64>()) {
    i64 at[RANK];
    unravel<RANK>(linear, p.index_dims, at);
    at[AXIS] = target(static_cast<const I*>(p.indices)[linear], p.dims[AXIS]);
    if (at[AXIS] < 0) continue;
    i64 to = 0;
#pragma unroll
    for (int d = 0; d < RANK; ++d) to = to * p.dims[d] + at[d];
    Memory<T>* y = static_cast<Memory<T>*>(p.y) + to;
    const Compute<T> update = widen<T>(static_cast<const Memory<T>*>(p.updates)[linear]);
    *y = narrow<T>(Policy::MODE == Mode::SET ? update : combine<Policy::MODE>(widen<T>(*y), update));
  }
}

// ---------------------------------------------------------------------------------------------
// ScatterND: x, y [dims.., inner], indices [count, DEPTH], updates [count, inner].

template <class Policy>
struct NdParams {
  // Ordered form only; y may be the same memory.
  const void* x;
  const void* indices;
  const void* updates;
  void* y;
  i64 count, inner;
  // The extents that an index tuple addresses.
  i64 dims[Policy::DEPTH];
};

template <class Policy>
LAPIDARY_FN i64 slice_of(const NdParams<Policy>& p, i64 update) {
  using I = typename Policy::Indices;
  const I* tuple = static_cast<const I*>(p.indices) + update * Policy::DEPTH;
  i64 slice = 0;
  bool inside = true;
#pragma unroll
  for (int d = 0; d < Policy::DEPTH; ++d) {
    const i64 i = target(tuple[d], p.dims[d]);
    inside = inside && i >= 0;
    slice = slice * p.dims[d] + i;
  }
  return inside ? slice : -1;
}

// One thread an element of y. A CTA works out the slices of THREADS updates at a time, then each of its threads
// looks for its own among them.
template <class Policy>
LAPIDARY_FN void nd_ordered(const NdParams<Policy>& p) {
  using T = typename Policy::T;
  constexpr int THREADS = Policy::THREADS;
  __shared__ i64 slices[THREADS];
  const i64 total = product<Policy::DEPTH>(p.dims) * p.inner;
  const i64 steps = ceil_div<i64>(total, grid_threads<i64>());
  for (i64 step = 0; step < steps; ++step) {
    const i64 linear = step * grid_threads<i64>() + grid_thread<i64>();
    const bool live = linear < total;
    i64 slice = 0, element = 0;
    Compute<T> value = static_cast<Compute<T>>(0);
    if (live) {
      divide(linear, p.inner, slice, element);
      value = widen<T>(static_cast<const Memory<T>*>(p.x)[linear]);
    }
    for (i64 first = 0; first < p.count; first += THREADS) {
      __syncthreads();
      if (first + threadIdx.x < p.count) slices[threadIdx.x] = slice_of(p, first + threadIdx.x);
      __syncthreads();
      const int n = static_cast<int>(lapidary::min<i64>(THREADS, p.count - first));
      if (live) {
        // Hits are rare: unrolling would only cost registers.
#pragma unroll 1
        for (int k = 0; k < n; ++k) {
          if (slices[k] == slice) {
            const i64 from = (first + k) * p.inner + element;
            value = combine<Policy::MODE>(value, widen<T>(static_cast<const Memory<T>*>(p.updates)[from]));
          }
        }
      }
    }
    if (live) static_cast<Memory<T>*>(p.y)[linear] = narrow<T>(value);
  }
}

// One thread an element of the updates.
template <class Policy>
LAPIDARY_FN void nd_unique(const NdParams<Policy>& p) {
  using T = typename Policy::T;
  const i64 total = p.count * p.inner;
  for (i64 linear = grid_thread<i64>(); linear < total; linear += grid_threads<i64>()) {
    i64 update, element;
    divide(linear, p.inner, update, element);
    const i64 slice = slice_of(p, update);
    if (slice < 0) continue;
    Memory<T>* y = static_cast<Memory<T>*>(p.y) + slice * p.inner + element;
    const Compute<T> value = widen<T>(static_cast<const Memory<T>*>(p.updates)[linear]);
    *y = narrow<T>(Policy::MODE == Mode::SET ? value : combine<Policy::MODE>(widen<T>(*y), value));
  }
}

}  // namespace lapidary::scatter
