// resize - ONNX Resize: each result is a separable weighted sum of source elements, or the nearest one.
//
// Contract: see README.md. Coordinates are f64, weights and sums f32 (f64 for f64). One thread a result.
#pragma once

#include "lapidary/wide.cuh"

namespace lapidary::resize {

enum class Mode { NEAREST, LINEAR, CUBIC };
enum class Rounding { ROUND_PREFER_FLOOR, ROUND_PREFER_CEIL, FLOOR, CEIL };
enum class Coordinates {
  HALF_PIXEL,
  HALF_PIXEL_SYMMETRIC,
  PYTORCH_HALF_PIXEL,
  ALIGN_CORNERS,
  ASYMMETRIC,
  TF_CROP_AND_RESIZE,
};

template <class Policy>
struct Params {
  const void* x;
  // [2 * RANK]: the starts, then the ends, of the region; TF_CROP_AND_RESIZE only.
  const float* roi;
  void* y;
  typename Policy::Index x_dims[Policy::RANK];
  typename Policy::Index y_dims[Policy::RANK];
  // 0: the quotient of the extents.
  float scales[Policy::RANK];
  float cubic_a;
  float extrapolation;
};

// The source elements first, first + 1, .. of one axis, and their weights.
template <class Policy, class R>
struct Taps {
  typename Policy::Index first, extent;
  int count;
  // Tap t lies at distance (t - center) * squeeze from the wanted coordinate.
  R center, squeeze;
  R inv_norm;
};

template <class Policy>
struct Resizer {
  using Index = typename Policy::Index;
  using X = typename Policy::X;
  using R = select_t<is_same<X, double>, double, float>;
  using T = Taps<Policy, R>;
  static constexpr int RANK = Policy::RANK;
  static constexpr int FIXED_TAPS = Policy::ANTIALIAS ? 0 : Policy::MODE == Mode::LINEAR ? 2 : 4;

  const Params<Policy>& p;
  const Memory<X>* x;
  T taps[RANK];

  // A product that is rounded by itself: which element is nearest may hang on the last bit of a coordinate.
  static LAPIDARY_FN double times(double a, double b) {
    double product;
    asm("mul.rn.f64 %0, %1, %2;" : "=d"(product) : "d"(a), "d"(b));
    return product;
  }

  // The source coordinate of position i of an axis, which is resized to `length` (not always whole).
  LAPIDARY_FN double coordinate(int axis, Index i, double scale, double length) const {
    const double in = static_cast<double>(p.x_dims[axis]);
    const double at = static_cast<double>(i);
    const double half_pixel = (at + 0.5) / scale - 0.5;
    if constexpr (Policy::COORDINATES == Coordinates::ALIGN_CORNERS) {
      return length == 1.0 ? 0.0 : at * (in - 1.0) / (length - 1.0);
    } else if constexpr (Policy::COORDINATES == Coordinates::ASYMMETRIC) {
      return at / scale;
    } else if constexpr (Policy::COORDINATES == Coordinates::TF_CROP_AND_RESIZE) {
      const double start = p.roi[axis], end = p.roi[RANK + axis], last = in - 1.0;
      if (length > 1.0) return times(start, last) + times(times(at, end - start), last) / (length - 1.0);
      return times(0.5 * (start + end), last);
    } else if constexpr (Policy::COORDINATES == Coordinates::PYTORCH_HALF_PIXEL) {
      return length > 1.0 ? half_pixel : 0.0;
    } else if constexpr (Policy::COORDINATES == Coordinates::HALF_PIXEL_SYMMETRIC) {
      return times(in / 2.0, 1.0 - static_cast<double>(p.y_dims[axis]) / length) + half_pixel;
    } else {
      return half_pixel;
    }
  }

  // The interpolation kernel at a distance.
  LAPIDARY_FN R kernel(R d) const {
    d = math::abs(d);
    if constexpr (Policy::MODE == Mode::LINEAR) {
      return lapidary::max(static_cast<R>(1) - d, static_cast<R>(0));
    } else {
      const R a = static_cast<R>(p.cubic_a);
      if (d <= static_cast<R>(1)) return ((a + 2) * d - (a + 3)) * d * d + 1;
      if (d < static_cast<R>(2)) return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a;
      return 0;
    }
  }
  LAPIDARY_FN R raw_weight(const T& t, int k) const {
    if constexpr (Policy::EXCLUDE_OUTSIDE) {
      const Index i = t.first + k;
      if (i < 0 || i >= t.extent) return 0;
    }
    return kernel((static_cast<R>(k) - t.center) * t.squeeze);
  }

  // `left` is the element strictly left of the coordinate: the ratio behind it is in (0, 1].
  LAPIDARY_FN T taps_at(int axis, double coordinate, double scale) const {
    const double left = math::ceil(coordinate) - 1.0;
    const double ratio = coordinate - left;
    T t;
    t.extent = p.x_dims[axis];
    t.squeeze = 1;
    t.inv_norm = 1;
    if constexpr (Policy::MODE == Mode::NEAREST) {
      // A whole coordinate has ratio 1 and is its own nearest element in every mode.
      bool right = ratio == 1.0;
      if constexpr (Policy::ROUNDING == Rounding::ROUND_PREFER_FLOOR) {
        right = right || ratio > 0.5;
      } else if constexpr (Policy::ROUNDING == Rounding::ROUND_PREFER_CEIL) {
        right = right || ratio >= 0.5;
      } else if constexpr (Policy::ROUNDING == Rounding::CEIL) {
        right = true;
      }
      t.first = static_cast<Index>(left) + (right ? 1 : 0);
      t.count = 1;
      t.center = 0;
    } else {
      constexpr double REACH = Policy::MODE == Mode::LINEAR ? 1.0 : 2.0;
      const double squeeze = Policy::ANTIALIAS && scale < 1.0 ? scale : 1.0;
      const double start = math::floor(-REACH / squeeze) + 1.0;
      t.first = static_cast<Index>(left + start);
      t.count = FIXED_TAPS != 0 ? FIXED_TAPS : static_cast<int>(2.0 - 2.0 * start);
      t.center = static_cast<R>(ratio - start);
      t.squeeze = static_cast<R>(squeeze);
      if constexpr (Policy::ANTIALIAS || Policy::EXCLUDE_OUTSIDE) {
        R norm = 0;
        for (int k = 0; k < t.count; ++k) norm += raw_weight(t, k);
        t.inv_norm = norm == static_cast<R>(0) ? static_cast<R>(1) : static_cast<R>(1) / norm;
      }
    }
    return t;
  }
  LAPIDARY_FN i64 clamped(const T& t, int k) const {
    return static_cast<i64>(lapidary::min<Index>(lapidary::max<Index>(t.first + k, 0), t.extent - 1));
  }

  // A weight of zero takes nothing, not even the NaN of an infinity.
  template <int D>
  LAPIDARY_FN R term(const T& t, int k, i64 offset) const {
    const R weight = raw_weight(t, k);
    return weight == static_cast<R>(0) ? weight : weight * sum<D + 1>(offset * t.extent + clamped(t, k));
  }
  template <int D>
  LAPIDARY_FN R sum(i64 offset) const {
    if constexpr (D == RANK) {
      return static_cast<R>(widen<X>(x[offset]));
    } else {
      const T& t = taps[D];
      if constexpr (!Policy::interpolated[D]) {
        return sum<D + 1>(offset * t.extent + t.first);
      } else {
        R total = 0;
        if constexpr (FIXED_TAPS != 0) {
#pragma unroll
          for (int k = 0; k < FIXED_TAPS; ++k) total += term<D>(t, k, offset);
        } else {
#pragma unroll 1
          for (int k = 0; k < t.count; ++k) total += term<D>(t, k, offset);
        }
        return total * t.inv_norm;
      }
    }
  }
  LAPIDARY_FN i64 nearest() const {
    i64 offset = 0;
#pragma unroll
    for (int d = 0; d < RANK; ++d) offset = offset * taps[d].extent + clamped(taps[d], 0);
    return offset;
  }
};

template <class Policy>
LAPIDARY_FN void run(const Params<Policy>& p) {
  using Index = typename Policy::Index;
  using X = typename Policy::X;
  using Z = Resizer<Policy>;
  constexpr int RANK = Policy::RANK;
  Memory<X>* y = static_cast<Memory<X>*>(p.y);
  const Index total = product<RANK>(p.y_dims);
  for (Index linear = grid_thread<Index>(); linear < total; linear += grid_threads<Index>()) {
    Index at[RANK];
    unravel<RANK>(linear, p.y_dims, at);
    Z z{p, static_cast<const Memory<X>*>(p.x), {}};
    bool outside = false;
    static_for<RANK>([&](auto axis) {
      constexpr int D = decltype(axis)::value;
      if constexpr (Policy::interpolated[D]) {
        const double in = static_cast<double>(p.x_dims[D]);
        const double scale = p.scales[D] == 0.0f ? static_cast<double>(p.y_dims[D]) / in
                                                 : static_cast<double>(p.scales[D]);
        const double length = p.scales[D] == 0.0f ? static_cast<double>(p.y_dims[D]) : scale * in;
        const double coordinate = z.coordinate(D, at[D], scale, length);
        if constexpr (Policy::COORDINATES == Coordinates::TF_CROP_AND_RESIZE) {
          outside = outside || coordinate < 0.0 || coordinate > in - 1.0;
        }
        z.taps[D] = z.taps_at(D, coordinate, scale);
      } else {
        z.taps[D] = {at[D], p.x_dims[D], 1, 0, 1, 1};
      }
    });
    if (outside) {
      y[linear] = narrow<X>(math::cast<X>(p.extrapolation));
    } else if constexpr (Policy::MODE == Mode::NEAREST) {
      y[linear] = z.x[z.nearest()];
    } else {
      const typename Z::R value = z.template sum<0>(0);
      y[linear] = narrow<X>(math::cast<X>(value));
    }
  }
}

}  // namespace lapidary::resize
