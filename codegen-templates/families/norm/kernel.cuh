// norm - layer, RMS, group and instance normalization: each row of n elements by its own statistics.
//
// Contract: see README.md. Statistics are f32 (f64 for f64 x) in two passes: the mean, then the mean square of the
// deviations. x and y may be the same memory.
#pragma once

#include "lapidary/team.cuh"
#include "lapidary/wide.cuh"

namespace lapidary::norm {

enum class Kind {
  LAYER,  // (x - mean) / sqrt(variance + epsilon)
  RMS,    // x / sqrt(mean(x^2) + epsilon)
};

// What scale and bias are indexed by.
enum class Affine {
  NONE,
  ELEMENT,  // the position in the row
  CHANNEL,  // row % groups * channels + position / spatial, the channel of a row that is a group
};

template <class Policy>
struct Params {
  const void* x;
  const void* scale;
  const void* bias;
  void* y;
  // One a row; null where not wanted.
  float* mean;
  float* inv_std;
  i64 rows, n;
  // CHANNEL only: groups of an image, channels of a group, elements of a channel; channels * spatial == n.
  i64 groups, channels, spatial;
  double epsilon;
};

// The affine part of one row.
template <class Policy>
struct Scaling {
  using R = Compute<typename Policy::X>;
  const Memory<typename Policy::Scale>* scale;
  const Memory<typename Policy::Bias>* bias;
  i64 spatial;

  static LAPIDARY_FN Scaling of(const Params<Policy>& p, i64 row) {
    const i64 first = Policy::AFFINE == Affine::CHANNEL ? row % p.groups * p.channels : 0;
    return {static_cast<const Memory<typename Policy::Scale>*>(p.scale) + first,
            static_cast<const Memory<typename Policy::Bias>*>(p.bias) + first, p.spatial};
  }
  // values[e] is the normalized element i + e.
  template <int VEC>
  LAPIDARY_FN void apply(i64 i, R (&values)[VEC]) const {
    if constexpr (Policy::AFFINE == Affine::ELEMENT) {
      if constexpr (Policy::HAS_SCALE) {
        Compute<typename Policy::Scale> s[VEC];
        load_values<typename Policy::Scale, VEC>(scale + i, s);
#pragma unroll
        for (int e = 0; e < VEC; ++e) values[e] *= static_cast<R>(s[e]);
      }
      if constexpr (Policy::HAS_BIAS) {
        Compute<typename Policy::Bias> b[VEC];
        load_values<typename Policy::Bias, VEC>(bias + i, b);
#pragma unroll
        for (int e = 0; e < VEC; ++e) values[e] += static_cast<R>(b[e]);
      }
    } else if constexpr (Policy::AFFINE == Affine::CHANNEL) {
#pragma unroll
      for (int e = 0; e < VEC; ++e) {
        i64 channel, rest;
        divide(i + e, spatial, channel, rest);
        if constexpr (Policy::HAS_SCALE) values[e] *= static_cast<R>(widen<typename Policy::Scale>(scale[channel]));
        if constexpr (Policy::HAS_BIAS) values[e] += static_cast<R>(widen<typename Policy::Bias>(bias[channel]));
      }
    }
  }
};

template <class Policy>
LAPIDARY_FN void store_stats(const Params<Policy>& p, i64 row, Compute<typename Policy::X> mean,
                             Compute<typename Policy::X> inv_std) {
  if (p.mean != nullptr) p.mean[row] = static_cast<float>(mean);
  if (p.inv_std != nullptr) p.inv_std[row] = static_cast<float>(inv_std);
}

// A team of ROW_THREADS a row. PER_THREAD > 0 holds the row in registers (n <= ROW_THREADS * PER_THREAD); 0 reads
// it three times.
// Program::apply is what becomes of each normalized element.
template <class Policy, class Program>
LAPIDARY_FN void rows(const Params<Policy>& p) {
  using X = typename Policy::X;
  using Y = typename Policy::Y;
  using R = Compute<X>;
  using T = Team<Policy::THREADS, Policy::ROW_THREADS>;
  constexpr int VEC = Policy::VEC, STEP = VEC * Policy::ROW_THREADS;
  constexpr bool CACHED = Policy::PER_THREAD > 0;
  constexpr int CHUNKS = CACHED ? Policy::PER_THREAD / VEC : 1;
  static_assert(Policy::PER_THREAD % VEC == 0, "a thread holds whole chunks");
  const auto plus = [](R a, R b) { return a + b; };
  for (i64 first = static_cast<i64>(blockIdx.x) * T::ROWS; first < p.rows;
       first += static_cast<i64>(gridDim.x) * T::ROWS) {
    const i64 row = first + T::row();
    const i64 n = row < p.rows ? p.n : 0;
    const i64 begin = T::member() * VEC;
    const Memory<X>* x = static_cast<const Memory<X>*>(p.x) + row * p.n;
    R cache[CHUNKS][VEC];
    // Calls use(i, values) for each chunk of this thread, from the registers or from memory.
    const auto each = [&](auto use) {
      if constexpr (CACHED) {
#pragma unroll
        for (int c = 0; c < CHUNKS; ++c) {
          if (begin + c * STEP < n) use(begin + c * STEP, cache[c]);
        }
      } else {
#pragma unroll 2
        for (i64 i = begin; i < n; i += STEP) {
          R values[VEC];
          load_values<X, VEC>(x + i, values);
          use(i, values);
        }
      }
    };
    if constexpr (CACHED) {
#pragma unroll
      for (int c = 0; c < CHUNKS; ++c) {
        if (begin + c * STEP < n) load_values<X, VEC>(x + begin + c * STEP, cache[c]);
      }
    }
    R mean = 0;
    if constexpr (Policy::KIND == Kind::LAYER) {
      R sum = 0;
      each([&](i64, R(&values)[VEC]) {
#pragma unroll
        for (int e = 0; e < VEC; ++e) sum += values[e];
      });
      mean = T::reduce(sum, plus) / static_cast<R>(p.n);
    }
    R square = 0;
    each([&](i64, R(&values)[VEC]) {
#pragma unroll
      for (int e = 0; e < VEC; ++e) {
        const R deviation = values[e] - mean;
        square += deviation * deviation;
      }
    });
    const R variance = T::reduce(square, plus) / static_cast<R>(p.n);
    const R inv_std = static_cast<R>(1) / math::sqrt(variance + static_cast<R>(p.epsilon));
    const Scaling<Policy> scaling = Scaling<Policy>::of(p, row);
    Memory<Y>* y = static_cast<Memory<Y>*>(p.y) + row * p.n;
    each([&](i64 i, R(&values)[VEC]) {
      R normal[VEC];
#pragma unroll
      for (int e = 0; e < VEC; ++e) normal[e] = (values[e] - mean) * inv_std;
      scaling.template apply<VEC>(i, normal);
      Compute<Y> out[VEC];
#pragma unroll
      for (int e = 0; e < VEC; ++e) out[e] = math::cast<Y>(Program::apply(normal[e]));
      store_values<Y, VEC>(y + i, out);
    });
    if (T::member() == 0 && row < p.rows) store_stats(p, row, mean, inv_std);
  }
}

}  // namespace lapidary::norm
