// depthwise - convolution in which few input channels reach an output, computed without a matrix.
//
//   depthwise::planes  groups == channels, NCHW, one or two spatial axes; a thread computes a patch
//                      of ROWS x COLS outputs of one plane with its input and taps in registers
//   depthwise::direct  any grouped convolution of any type: one thread an output, slow and obvious
// Both accumulate in Acc<T> (f32 for halves) and end in an epilogue (epilogue.cuh), ch = filter.
// Not here: NHWC, fusion with a neighbouring 1x1 convolution.
#pragma once
#include "lapidary/epilogue.cuh"

namespace lapidary::depthwise {

// x[batch, channels, in_h, in_w], w[channels * multiplier, 1, KH, KW], y[batch, channels * multiplier,
// out_h, out_w]. One spatial axis: in_h = out_h = 1 and KH = 1.
template <class T>
struct Params {
  const T* x;
  const T* w;
  int batch, channels, multiplier;
  int in_h, in_w, out_h, out_w;
};

// Policy: T, KH, KW, SH, SW, DH, DW, PAD_H, PAD_W (before the first element), ROWS, COLS (the patch),
// VEC_X, VEC_Y (elements of a load and a store), THREADS.
template <class Policy>
struct Planes {
  using T = typename Policy::T;
  using A = Acc<T>;
  static constexpr int KH = Policy::KH, KW = Policy::KW, ROWS = Policy::ROWS, COLS = Policy::COLS;
  static constexpr int VEC_X = Policy::VEC_X, VEC_Y = Policy::VEC_Y;
  static_assert(COLS % VEC_Y == 0 && COLS * Policy::SW % VEC_X == 0, "a patch is whole vectors");
  // Input columns that a patch reads, as an interval around its unpadded first column, widened to
  // whole vectors.
  static constexpr int LEFT = (Policy::PAD_W + VEC_X - 1) / VEC_X * VEC_X;
  static constexpr int REACH = (COLS - 1) * Policy::SW + (KW - 1) * Policy::DW - Policy::PAD_W + 1;
  static constexpr int RIGHT = REACH > 0 ? (REACH + VEC_X - 1) / VEC_X * VEC_X : 0;
  static constexpr int SPAN = LEFT + RIGHT;
  static constexpr int IN_ROWS = (ROWS - 1) * Policy::SH + (KH - 1) * Policy::DH + 1;

  // The input row's SPAN columns from first - LEFT on, zero outside the input.
  static LAPIDARY_FN void read_row(A (&v)[SPAN], const T* row, bool exists, int first, int in_w) {
#pragma unroll
    for (int s = 0; s < SPAN; s += VEC_X) {
      const int at = first - LEFT + s;
      // in_w is a multiple of VEC_X, as `at` is: a vector lies inside or outside.
      Vec<T, VEC_X> x{};
      if (exists && at >= 0 && at < in_w) x = load_const<T, VEC_X>(row + at);
#pragma unroll
      for (int q = 0; q < VEC_X; ++q) v[s + q] = convert<A>(x[q]);
    }
  }

  template <class Epi>
  static LAPIDARY_FN void run(const Params<T>& p, const typename Epi::Params& e) {
    const int patches_w = ceil_div(p.out_w, COLS), patches = patches_w * ceil_div(p.out_h, ROWS);
    const i64 t = static_cast<i64>(blockIdx.x) * Policy::THREADS + threadIdx.x;
    const int filters = p.channels * p.multiplier;
    if (t >= static_cast<i64>(p.batch) * filters * patches) return;
    const int plane = static_cast<int>(t / patches), patch = static_cast<int>(t - static_cast<i64>(plane) * patches);
    const int image = plane / filters, filter = plane - image * filters;
    const int oh = patch / patches_w * ROWS, ow = patch % patches_w * COLS;

    A taps[KH * KW];
#pragma unroll
    for (int i = 0; i < KH * KW; ++i) taps[i] = convert<A>(p.w[filter * (KH * KW) + i]);
    A acc[ROWS][COLS] = {};
    const T* x = p.x + (static_cast<i64>(image) * p.channels + filter / p.multiplier) * p.in_h * p.in_w;
    const int first_row = oh * Policy::SH - Policy::PAD_H;
#pragma unroll
    for (int r = 0; r < IN_ROWS; ++r) {
      const int ih = first_row + r;
      A v[SPAN];
      read_row(v, x + static_cast<i64>(ih) * p.in_w, static_cast<u32>(ih) < static_cast<u32>(p.in_h), ow * Policy::SW, p.in_w);
#pragma unroll
      for (int i = 0; i < ROWS; ++i) {
        // Input row r meets output row i under tap row kh where r = i * SH + kh * DH.
        const int kh = (r - i * Policy::SH) / Policy::DH;
        if (r < i * Policy::SH || (r - i * Policy::SH) % Policy::DH != 0 || kh >= KH) continue;
#pragma unroll
        for (int kw = 0; kw < KW; ++kw)
#pragma unroll
          for (int j = 0; j < COLS; ++j) acc[i][j] += v[LEFT - Policy::PAD_W + j * Policy::SW + kw * Policy::DW] * taps[kh * KW + kw];
      }
    }

    const i64 o = (static_cast<i64>(plane) * p.out_h + oh) * p.out_w + ow;
#pragma unroll
    for (int i = 0; i < ROWS; ++i) {
#pragma unroll
      for (int j = 0; j < COLS; j += VEC_Y) {
        // out_w is a multiple of VEC_Y.
        if (oh + i >= p.out_h || ow + j >= p.out_w) continue;
        A run[VEC_Y];
#pragma unroll
        for (int q = 0; q < VEC_Y; ++q) run[q] = acc[i][j + q];
        emit<Epi, VEC_Y, 0>(e, run, o + i * p.out_w + j, filter);
      }
    }
  }
};
template <class Policy, class Epi>
LAPIDARY_FN void planes(const Params<typename Policy::T>& p, const typename Epi::Params& e) {
  Planes<Policy>::template run<Epi>(p, e);
}

// Any grouped convolution, NCHW, 1 to 3 spatial axes (leading extents 1); weights [filters,
// channels / groups, window].
template <class TX, class TW>
struct DirectParams {
  const TX* x;
  const TW* w;
  int batch, channels, filters, groups;
  int in[3], out[3], pad[3], window[3], stride[3], dilation[3];
};
template <class TX, class TW, class A, class Epi>
LAPIDARY_FN void direct(const DirectParams<TX, TW>& p, const typename Epi::Params& e) {
  const i64 pixels = static_cast<i64>(p.out[0]) * p.out[1] * p.out[2];
  const i64 o = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (o >= pixels * p.batch * p.filters) return;
  const int plane = static_cast<int>(o / pixels), pixel = static_cast<int>(o - plane * pixels);
  const int oc = plane % p.filters, image = plane / p.filters;
  const int ow = pixel % p.out[2], oh = pixel / p.out[2] % p.out[1], od = pixel / p.out[2] / p.out[1];
  const int channels = p.channels / p.groups, group = oc / (p.filters / p.groups);
  const i64 in_pixels = static_cast<i64>(p.in[0]) * p.in[1] * p.in[2];
  const i64 taps = static_cast<i64>(p.window[0]) * p.window[1] * p.window[2];
  const TX* x = p.x + (static_cast<i64>(image) * p.channels + group * channels) * in_pixels;
  const TW* w = p.w + oc * channels * taps;
  A sum = A{};
  for (int c = 0; c < channels; ++c) {
    for (int kd = 0; kd < p.window[0]; ++kd) {
      const int z = od * p.stride[0] - p.pad[0] + kd * p.dilation[0];
      if (z < 0 || z >= p.in[0]) continue;
      for (int kh = 0; kh < p.window[1]; ++kh) {
        const int y = oh * p.stride[1] - p.pad[1] + kh * p.dilation[1];
        if (y < 0 || y >= p.in[1]) continue;
        for (int kw = 0; kw < p.window[2]; ++kw) {
          const int v = ow * p.stride[2] - p.pad[2] + kw * p.dilation[2];
          if (v < 0 || v >= p.in[2]) continue;
          const i64 tap = ((c * p.window[0] + kd) * static_cast<i64>(p.window[1]) + kh) * p.window[2] + kw;
          sum += convert<A>(x[c * in_pixels + (static_cast<i64>(z) * p.in[1] + y) * p.in[2] + v]) * convert<A>(w[tap]);
        }
      }
    }
  }
  const A one[1] = {sum};
  emit<Epi, 1, 0>(e, one, o, oc);
}

}  // namespace lapidary::depthwise
