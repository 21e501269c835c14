// squeeze - the two halves of squeeze-and-excitation (Hu et al., 2018), each of which is two operations in one kernel.
//
//   squeeze::squeeze   y[n, m] = epilogue(sum over c of w[m, c] * mean over p of x[n, c, p])
//   squeeze::excite    y[n, c, p] = epilogue(sum over k of w[c, k] * h[n, k], p)
// The mean may be a sum. What lies between the two operations is rounded to T, as if it were stored. Sums in f32.
// Not here: products of many columns, which gemm and conv form.
#pragma once
#include "lapidary/epilogue.cuh"
#include "lapidary/join.cuh"

namespace lapidary::squeeze {

// The sum over all lanes, in each of them.
LAPIDARY_FN float sum_of_lanes(float x) {
#pragma unroll
  for (int d = 16; d > 0; d /= 2) x += __shfl_xor_sync(0xffffffffu, x, d);
  return x;
}

template <class T>
struct SqueezeParams {
  const T* x;
  const T* w;
  int channels, outputs, plane;
};

// blockIdx: y image, z the CTA's CHANNELS channels, of which it forms the means, and the products with their columns
// of w. The CTAs of an image join.
// Policy: T, THREADS, CHANNELS, HELD (outputs of a thread; outputs <= HELD * THREADS), MEAN (or the sum), VEC_X (elements
// of one load of a plane; it divides plane), VEC_W (of a row of w; it divides channels and CHANNELS).
template <class Policy, class Epi, class Join = Whole>
LAPIDARY_FN void squeeze(const SqueezeParams<typename Policy::T>& p, const typename Epi::Params& e, const Join& with = {}) {
  using T = typename Policy::T;
  constexpr int WARPS = Policy::THREADS / 32, VEC_X = Policy::VEC_X, VEC_W = Policy::VEC_W;
  __shared__ float squeezed[Policy::CHANNELS];
  const i64 image = blockIdx.y;
  const int c0 = static_cast<int>(blockIdx.z) * Policy::CHANNELS, lane = lane_id();
  for (int c = warp_id(); c < Policy::CHANNELS; c += WARPS) {
    float sum = 0.f;
    if (c0 + c < p.channels) {
      const T* plane = p.x + (image * p.channels + c0 + c) * p.plane;
#pragma unroll 4
      for (int i = lane * VEC_X; i < p.plane; i += 32 * VEC_X) {
        const Vec<T, VEC_X> x = load_const<T, VEC_X>(plane + i);
#pragma unroll
        for (int j = 0; j < VEC_X; ++j) sum += to_float(x[j]);
      }
    }
    sum = sum_of_lanes(sum);
    if (lane == 0) squeezed[c] = to_float(convert<T>(Policy::MEAN ? sum / static_cast<float>(p.plane) : sum));
  }
  __syncthreads();
  float acc[Policy::HELD] = {};
#pragma unroll
  for (int q = 0; q < Policy::HELD; ++q) {
    const int m = static_cast<int>(threadIdx.x) + q * Policy::THREADS;
    if (m >= p.outputs) continue;
    const T* row = p.w + static_cast<i64>(m) * p.channels + c0;
#pragma unroll
    for (int c = 0; c < Policy::CHANNELS; c += VEC_W) {
      if (c0 + c >= p.channels) continue;
      const Vec<T, VEC_W> w = load_const<T, VEC_W>(row + c);
#pragma unroll
      for (int j = 0; j < VEC_W; ++j) acc[q] += to_float(w[j]) * squeezed[c + j];
    }
  }
  if (!with.template join<Policy::THREADS>(acc)) return;
#pragma unroll
  for (int q = 0; q < Policy::HELD; ++q) {
    const int m = static_cast<int>(threadIdx.x) + q * Policy::THREADS;
    if (m >= p.outputs) continue;
    const float one[1] = {acc[q]};
    emit<Epi, 1, 1>(e, one, image * p.outputs + m, m);
  }
}

template <class T>
struct ExciteParams {
  const T* h;
  const T* w;
  int inputs, channels, plane;
};

// blockIdx: x the CTA's channels, one a warp; y image. A warp forms its channel's product and runs the epilogue over the
// plane. Policy: T, THREADS, VEC_W (elements of one load of h and of a row of w; it divides inputs), VEC_Y (of one store;
// it divides plane).
template <class Policy, class Epi>
LAPIDARY_FN void excite(const ExciteParams<typename Policy::T>& p, const typename Epi::Params& e) {
  using T = typename Policy::T;
  constexpr int VEC_W = Policy::VEC_W, VEC_Y = Policy::VEC_Y;
  const i64 image = blockIdx.y;
  const int c = static_cast<int>(blockIdx.x) * (Policy::THREADS / 32) + warp_id(), lane = lane_id();
  if (c >= p.channels) return;
  const T* h = p.h + image * p.inputs;
  const T* row = p.w + static_cast<i64>(c) * p.inputs;
  float sum = 0.f;
#pragma unroll 2
  for (int k = lane * VEC_W; k < p.inputs; k += 32 * VEC_W) {
    const Vec<T, VEC_W> a = load_const<T, VEC_W>(h + k), b = load_const<T, VEC_W>(row + k);
#pragma unroll
    for (int j = 0; j < VEC_W; ++j) sum += to_float(a[j]) * to_float(b[j]);
  }
  sum = sum_of_lanes(sum);
  float sums[VEC_Y];
#pragma unroll
  for (int j = 0; j < VEC_Y; ++j) sums[j] = sum;
  const i64 first = (image * p.channels + c) * p.plane;
#pragma unroll 2
  for (int i = lane * VEC_Y; i < p.plane; i += 32 * VEC_Y) emit<Epi, VEC_Y, 0>(e, sums, first + i, c);
}

}  // namespace lapidary::squeeze
