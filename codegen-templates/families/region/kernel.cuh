// region - pooling of regions of images into bins: RoiAlign, MaxRoiPool.
//
// Contract: see README.md. Coordinates are formed in the regions' type, each step rounded by itself as on the host, so
// that samples are the same everywhere. Sums are f32 (f64 for f64). NaN wins a maximum.
#pragma once

#include "lapidary/wide.cuh"

namespace lapidary::region {

enum class Kind {
  MEAN,      // of the samples
  MAX,       // of the four weighted elements around each sample
  ELEMENTS,  // the largest element of a bin with whole edges, 0 of none
};

template <class Policy>
struct Params {
  const void* x;
  const void* regions;
  const i64* images;
  void* y;
  i64 count, n, channels, height, width;
  float scale;
};

// Products that do not become part of a fused operation.
LAPIDARY_FN float times(float a, float b) { return __fmul_rn(a, b); }
LAPIDARY_FN double times(double a, double b) { return __dmul_rn(a, b); }
// Half away from zero.
LAPIDARY_FN float away(float x) { return ::roundf(x); }
LAPIDARY_FN double away(double x) { return ::round(x); }

// Positions along an axis, from the first up to, without, the end.
struct Span {
  i64 first, end;
};

// A sample along an axis: the elements on both sides of it, and the distance from the first.
template <class R>
struct Sample {
  i64 low, high;
  R share;
};

// One axis of a region.
template <class Policy>
struct Axis {
  using R = Compute<typename Policy::Coordinate>;
  i64 length;
  i32 bin;
  // Where the bin starts, and its size.
  R start, size;
  i32 samples;

  LAPIDARY_FN Axis(R low, R high, float scale, i64 extent, i32 bins, i32 at) : length(extent), bin(at) {
    const R zero = 0, one = 1;
    low = times(low, static_cast<R>(scale));
    high = times(high, static_cast<R>(scale));
    if constexpr (Policy::KIND == Kind::ELEMENTS) {
      // Far from where a sum overflows, and from any image.
      const R far = static_cast<R>(1ll << 40);
      const i64 first = math::cast<i64>(math::max(math::min(away(low), far), -far));
      const i64 last = math::cast<i64>(math::max(math::min(away(high), far), -far));
      start = static_cast<R>(first);
      size = static_cast<R>(lapidary::max<i64>(last - first + 1, 1)) / static_cast<R>(bins);
      samples = 0;
    } else {
      if constexpr (Policy::HALF_PIXEL) {
        low = low - static_cast<R>(0.5);
        high = high - static_cast<R>(0.5);
      }
      R extent_of_region = high - low;
      if constexpr (!Policy::HALF_PIXEL) extent_of_region = extent_of_region > one ? extent_of_region : one;
      size = extent_of_region / static_cast<R>(bins);
      start = low + times(static_cast<R>(bin), size);
      const R found = math::ceil(size);
      const R most = static_cast<R>(Policy::MAX_SAMPLES);
      samples = Policy::SAMPLES != 0 ? Policy::SAMPLES
                                     : static_cast<i32>(found > zero ? (found < most ? found : most) : zero);
    }
  }

  LAPIDARY_FN R coordinate(i32 k) const {
    const R moved = times(static_cast<R>(k) + static_cast<R>(0.5), size) / static_cast<R>(samples);
    return start + moved;
  }
  LAPIDARY_FN bool inside(i32 k) const {
    const R at = coordinate(k);
    return at >= static_cast<R>(-1) && at <= static_cast<R>(length);
  }
  // The samples inside of the image. Their coordinates rise or fall, so that these are neighbours.
  LAPIDARY_FN Span taken() const {
    i32 first = 0;
    while (first < samples && !inside(first)) ++first;
    i32 end = first;
    while (end < samples && inside(end)) ++end;
    return {first, end};
  }
  LAPIDARY_FN Sample<R> sample(i64 k) const {
    const R last = static_cast<R>(length - 1);
    const R at = lapidary::min(lapidary::max(coordinate(static_cast<i32>(k)), static_cast<R>(0)), last);
    const R below = math::floor(at);
    const i64 low = static_cast<i64>(below);
    return {low, lapidary::min(low + 1, length - 1), at - below};
  }

  LAPIDARY_FN i64 edge(R at) const {
    return lapidary::min(lapidary::max<i64>(math::cast<i64>(at) + math::cast<i64>(start), 0), length);
  }
  LAPIDARY_FN Span elements() const {
    return {edge(math::floor(times(static_cast<R>(bin), size))), edge(math::ceil(times(static_cast<R>(bin + 1), size)))};
  }
};

template <class Policy>
LAPIDARY_FN Acc<typename Policy::X> largest(const Memory<typename Policy::X>* x, const Axis<Policy>& down,
                                            const Axis<Policy>& right) {
  using X = typename Policy::X;
  using A = Acc<X>;
  const Span rows = down.elements(), columns = right.elements();
  A found = rows.first < rows.end && columns.first < columns.end ? math::lowest<A>() : static_cast<A>(0);
  for (i64 row = rows.first; row < rows.end; ++row) {
    for (i64 column = columns.first; column < columns.end; ++column) {
      found = math::max(found, static_cast<A>(widen<X>(x[row * right.length + column])));
    }
  }
  return found;
}

template <class Policy>
LAPIDARY_FN Acc<typename Policy::X> sampled(const Memory<typename Policy::X>* x, const Axis<Policy>& down,
                                            const Axis<Policy>& right) {
  using X = typename Policy::X;
  using A = Acc<X>;
  constexpr bool MEAN = Policy::KIND == Kind::MEAN;
  const Span rows = down.taken(), columns = right.taken();
  const i64 all = static_cast<i64>(down.samples) * right.samples;
  // What lies outside is 0.
  const bool beyond = (rows.end - rows.first) * (columns.end - columns.first) < all || all == 0;
  A found = MEAN || beyond ? static_cast<A>(0) : math::lowest<A>();
  for (i64 j = rows.first; j < rows.end; ++j) {
    const auto row = down.sample(j);
    for (i64 i = columns.first; i < columns.end; ++i) {
      const auto column = right.sample(i);
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        const A of_row = k / 2 == 0 ? static_cast<A>(1 - row.share) : static_cast<A>(row.share);
        const A of_column = k % 2 == 0 ? static_cast<A>(1 - column.share) : static_cast<A>(column.share);
        const i64 at = (k / 2 == 0 ? row.low : row.high) * right.length + (k % 2 == 0 ? column.low : column.high);
        const A term = of_row * of_column * static_cast<A>(widen<X>(x[at]));
        found = MEAN ? found + term : math::max(found, term);
      }
    }
  }
  return MEAN ? found / static_cast<A>(lapidary::max<i64>(all, 1)) : found;
}

// A thread a bin of a channel of a region.
template <class Policy>
LAPIDARY_FN void run(const Params<Policy>& p) {
  using Index = typename Policy::Index;
  using X = typename Policy::X;
  using Coordinate = typename Policy::Coordinate;
  constexpr int DOWN = Policy::bins[0], RIGHT = Policy::bins[1];
  const Index dims[4] = {static_cast<Index>(p.count), static_cast<Index>(p.channels), DOWN, RIGHT};
  const Index total = product<4>(dims);
  for (Index linear = grid_thread<Index>(); linear < total; linear += grid_threads<Index>()) {
    Index at[4];
    unravel<4>(linear, dims, at);
    const Coordinate* sides = static_cast<const Coordinate*>(p.regions) + at[0] * 4;
    // There may be rows of nothing in particular behind the regions that count.
    const i64 image = lapidary::min(lapidary::max<i64>(p.images[at[0]], 0), p.n - 1);
    Acc<X> found = 0;
    if (image >= 0) {
      const auto* x = static_cast<const Memory<X>*>(p.x) + (image * p.channels + at[1]) * (p.height * p.width);
      const Axis<Policy> down(sides[1], sides[3], p.scale, p.height, DOWN, static_cast<i32>(at[2]));
      const Axis<Policy> right(sides[0], sides[2], p.scale, p.width, RIGHT, static_cast<i32>(at[3]));
      if constexpr (Policy::KIND == Kind::ELEMENTS) {
        found = largest<Policy>(x, down, right);
      } else {
        found = sampled<Policy>(x, down, right);
      }
    }
    static_cast<Memory<X>*>(p.y)[linear] = narrow<X>(math::cast<X>(found));
  }
}

}  // namespace lapidary::region
