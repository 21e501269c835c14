// pool - maximum, average and Lp pooling over windows of 1 to 3 spatial axes of x [planes, spatial..].
//
// Contract: see README.md. One thread a result. Sums are f32 (f64 for f64). NaN wins a maximum.
#pragma once

#include "lapidary/wide.cuh"

namespace lapidary::pool {

enum class Kind {
  MAX,
  AVERAGE,            // over the elements inside the tensor
  AVERAGE_COUNT_PAD,  // padding counts as zeros, up to pad_hi
  LP,                 // (sum |x|^p)^(1/p)
};

// How `indices` flatten the spatial position.
enum class IndexOrder { NONE, ROW_MAJOR, COLUMN_MAJOR };

template <class Policy>
struct Params {
  const void* x;
  void* y;
  // MAX with an IndexOrder only.
  i64* indices;
  // n * c.
  i64 planes;
  i32 x_dims[Policy::RANK], y_dims[Policy::RANK];
  i32 size[Policy::RANK], stride[Policy::RANK], dilation[Policy::RANK];
  i32 pad_lo[Policy::RANK], pad_hi[Policy::RANK];
  // LP only.
  float p;
};

template <class Policy>
struct Window {
  using X = typename Policy::X;
  using C = Compute<X>;
  using R = select_t<is_float<C>, C, float>;
  static constexpr int RANK = Policy::RANK;

  const Params<Policy>& p;
  const Memory<X>* x;
  i32 start[RANK];
  // The state: the maximum and where it is, or a sum and how many elements it counts.
  C top;
  i64 top_at;
  i32 at[RANK];
  R sum;
  i64 count;

  LAPIDARY_FN void take(i64 offset) {
    const C value = widen<X>(x[offset]);
    if constexpr (Policy::KIND == Kind::MAX) {
      if (top_at < 0 || value > top || (math::isnan(value) && !math::isnan(top))) {
        top = value;
        top_at = offset;
        if constexpr (Policy::ORDER == IndexOrder::COLUMN_MAJOR) {
          i64 column = 0;
#pragma unroll
          for (int d = RANK - 1; d >= 0; --d) column = column * p.x_dims[d] + at[d];
          top_at = column;
        }
      }
    } else if constexpr (Policy::KIND == Kind::LP) {
      const R magnitude = math::abs(static_cast<R>(value));
      sum += math::pow(magnitude, p.p);
    } else {
      sum += static_cast<R>(value);
      count += Policy::KIND == Kind::AVERAGE ? 1 : 0;
    }
  }
  template <int D>
  LAPIDARY_FN void walk(i64 offset) {
    if constexpr (D == RANK) {
      take(offset);
    } else {
      // Three unrolled loops around each other take more registers than they save time.
      constexpr int UNROLL = D == RANK - 1 && RANK < 3 ? 4 : 1;
#pragma unroll UNROLL
      for (i32 k = 0; k < p.size[D]; ++k) {
        const i32 i = start[D] + k * p.dilation[D];
        if (i < 0 || i >= p.x_dims[D]) continue;
        at[D] = i;
        walk<D + 1>(offset * p.x_dims[D] + i);
      }
    }
  }
  // How many positions of the window lie in the padded tensor.
  LAPIDARY_FN i64 padded_count() const {
    i64 n = 1;
#pragma unroll
    for (int d = 0; d < RANK; ++d) {
      const i32 room = p.x_dims[d] + p.pad_hi[d] - start[d];
      n *= lapidary::min(p.size[d], ceil_div(lapidary::max(room, 0), p.dilation[d]));
    }
    return n;
  }
};

template <class Policy>
LAPIDARY_FN void run(const Params<Policy>& p) {
  using Index = typename Policy::Index;
  using X = typename Policy::X;
  using Y = typename Policy::Y;
  using W = Window<Policy>;
  constexpr int RANK = Policy::RANK;
  Index dims[RANK + 1];
  dims[0] = static_cast<Index>(p.planes);
  i64 plane = 1;
#pragma unroll
  for (int d = 0; d < RANK; ++d) {
    dims[d + 1] = static_cast<Index>(p.y_dims[d]);
    plane *= p.x_dims[d];
  }
  const Index total = product<RANK + 1>(dims);
  for (Index linear = grid_thread<Index>(); linear < total; linear += grid_threads<Index>()) {
    Index at[RANK + 1];
    unravel<RANK + 1>(linear, dims, at);
    W w{p, static_cast<const Memory<X>*>(p.x) + at[0] * plane, {}, math::lowest<typename W::C>(), -1, {}, 0, 0};
#pragma unroll
    for (int d = 0; d < RANK; ++d) w.start[d] = static_cast<i32>(at[d + 1]) * p.stride[d] - p.pad_lo[d];
    w.template walk<0>(0);
    Compute<Y> y;
    if constexpr (Policy::KIND == Kind::MAX) {
      y = math::cast<Y>(w.top);
      if constexpr (Policy::ORDER != IndexOrder::NONE) p.indices[linear] = at[0] * plane + w.top_at;
    } else if constexpr (Policy::KIND == Kind::LP) {
      y = math::cast<Y>(math::pow(w.sum, static_cast<typename W::R>(1) / static_cast<typename W::R>(p.p)));
    } else {
      if constexpr (Policy::KIND == Kind::AVERAGE_COUNT_PAD) w.count = w.padded_count();
      y = math::cast<Y>(w.sum / static_cast<typename W::R>(w.count));
    }
    static_cast<Memory<Y>*>(p.y)[linear] = narrow<Y>(y);
  }
}

}  // namespace lapidary::pool
