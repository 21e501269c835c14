// fill - tensors that are computed from a few numbers: ranges, shapes, constants.
//
// Contract: see README.md.
#pragma once

#include "lapidary/wide.cuh"

namespace lapidary::fill {

// y[i] = start + i * delta, in the dtype's compute type; start and delta are one-element tensors.
struct RangeParams {
  const void* start;
  const void* delta;
  void* y;
  i64 n;
};

template <class Policy>
LAPIDARY_FN void range(const RangeParams& p) {
  using T = typename Policy::T;
  using C = Compute<T>;
  const C start = widen<T>(static_cast<const Memory<T>*>(p.start)[0]);
  const C delta = widen<T>(static_cast<const Memory<T>*>(p.delta)[0]);
  for (i64 i = grid_thread<i64>(); i < p.n; i += grid_threads<i64>()) {
    static_cast<Memory<T>*>(p.y)[i] = narrow<T>(math::add(start, math::mul(static_cast<C>(i), delta)));
  }
}

// Writes COUNT numbers that are known at launch, such as the extents of a shape.
template <class Policy>
struct DimsParams {
  void* y;
  i64 values[Policy::COUNT];
};

template <class Policy>
LAPIDARY_FN void dims(const DimsParams<Policy>& p) {
  using T = typename Policy::T;
  // One thread: picking a parameter by thread number would put them all into local memory.
  if (threadIdx.x != 0) return;
#pragma unroll
  for (int i = 0; i < Policy::COUNT; ++i) static_cast<Memory<T>*>(p.y)[i] = narrow<T>(math::cast<T>(p.values[i]));
}

// n elements, each the low bytes of `bits`.
struct ValueParams {
  void* y;
  i64 n;
  u64 bits;
};

template <class Policy>
LAPIDARY_FN void value(const ValueParams& p) {
  using Element = Raw<Policy::ELEMENT>;
  constexpr int VEC = Policy::VEC;
  Element values[VEC];
#pragma unroll
  for (int e = 0; e < VEC; ++e) memcpy(&values[e], &p.bits, sizeof(Element));
  Element* y = static_cast<Element*>(p.y);
  const i64 chunks = p.n / VEC;
  for (i64 chunk = grid_thread<i64>(); chunk < chunks; chunk += grid_threads<i64>()) {
    store_wide<Element, VEC>(y + chunk * VEC, values);
  }
  const i64 tail = chunks * VEC + grid_thread<i64>();
  if (tail < p.n) y[tail] = values[0];
}

}  // namespace lapidary::fill
