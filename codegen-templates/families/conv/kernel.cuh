// conv - convolution as an implicit matrix product, with a fused epilogue; NCHW, 1 to 3 spatial axes.
//
//   y[n, oc, o] = sum over c, tap of w[oc, c, tap] * x[n, group * C/g + c, o * stride - pad + tap * dilation]
// Per group the product is M = output channels, N = batch * output pixels, K = C/g * window, K in
// the order of the stored weights. Fewer than 3 spatial axes: the leading extents and windows are 1.
//   conv::mma        tensor cores: f16, bf16, tf32, FP32 accumulate; i8 and u8, i32
//   conv::simt       scalar units: f32 (true FP32) and every other type
//   conv::transpose  transposed convolution, one thread an output: slow and obvious
// K may be split over gridDim.z: the last CTA of a tile to finish adds the parts (join.cuh).
// Not here: other layouts (a source beside GatherNCHW and a map beside MapNCHW would add them),
// Winograd, repacked weights.
#pragma once
#include "lapidary/mma_tile.cuh"
#include "lapidary/simt_tile.cuh"

namespace lapidary::conv {

// channels, filters: of all groups. in, out: extents, out as the operator defines it; pad: before
// the first element (what follows the last needs no name, out says it). k_per_split as in
// gemm. The input of one image holds fewer than 2^31 elements.
template <class TX, class TW>
struct Params {
  const TX* x;
  const TW* w;
  int batch, channels, filters, groups;
  int in[3], out[3], pad[3];
  int k_per_split;
};

// Compile-time facts of a window: extent, stride and dilation per axis.
template <int KD_, int KH_, int KW_, int SD_, int SH_, int SW_, int DD_, int DH_, int DW_>
struct Window {
  static constexpr int KD = KD_, KH = KH_, KW = KW_, SD = SD_, SH = SH_, SW = SW_, DD = DD_, DH = DH_, DW = DW_;
  static constexpr int TAPS = KD * KH * KW;
};

// Output channel `first_filter + m` of pixel n, n counting pixels over the batch.
struct MapNCHW {
  static constexpr int CHANNEL_STEP = 0;
  int m, n;
  int pixels, filters, first_filter;
  LAPIDARY_FN i64 row(int i) const { return static_cast<i64>(first_filter + i) * pixels; }
  LAPIDARY_FN i64 column(int j) const {
    const int image = j / pixels;
    return static_cast<i64>(image) * filters * pixels + (j - image * pixels);
  }
  LAPIDARY_FN int channel(int i, int) const { return first_filter + i; }
};

// Column n of an unpadded 1x1 stride-1 convolution's input, seen as a matrix [C, pixels] per image.
struct PointwiseColumns {
  int pixels;
  i64 image_stride;
  LAPIDARY_FN i64 operator()(int j) const {
    const int image = j / pixels;
    return image * image_stride + (j - image * pixels);
  }
};

// The input under the window: tile rows are k = (channel, tap), tile columns output pixels.
// A thread keeps its W pixels for the whole product: where each window begins and which taps fall
// inside the input are worked out once. What a row of the tile means (an offset and a tap) is the same
// for all pixels, so each lane works out one row of those that its warp needs, and shuffles hand
// them round.
template <class T_, class Cover_, class Window>
struct GatherNCHW {
  using T = T_;
  using C = Cover_;
  static constexpr bool K_CONTIGUOUS = false;
  static constexpr int W = C::W;
  static_assert(C::TALL && C::FULL, "a thread keeps its pixels, and every thread has some");

  // Up to 63 taps a bit of a mask says whether a tap lies inside, and the highest is never set; a
  // longer window's taps are compared one by one.
  static constexpr bool MASKED = Window::TAPS <= 63;
  using Mask = select_t<(Window::TAPS <= 31), u32, u64>;
  static constexpr u32 NO_TAP = MASKED ? u32(sizeof(Mask)) * 8 - 1 : 1u << 31;
  static_assert(MASKED || (Window::KD < 128 && Window::KH < 256 && Window::KW < 65536), "a tap fits one word");

  // Rows that one warp reads: LEVELS side by side, COUNT times.
  static constexpr int LEVELS = C::RUNS < 32 ? 32 / C::RUNS : 1;
  static constexpr int SLOTS = (C::COUNT * LEVELS + 31) / 32;

  C cover;
  const T* corner[W];  // of the pixel's window in the group's first channel; may lie outside
  Mask inside[W];
  int z[W], y[W], x[W];
  int in_d, in_h, in_w;
  int offsets[SLOTS];  // of the sought rows, spread over the lanes
  u32 taps[SLOTS];

  template <class TW>
  LAPIDARY_FN GatherNCHW(const Params<T, TW>& p, int group, int n0, int n_extent) : in_d(p.in[0]), in_h(p.in[1]), in_w(p.in[2]) {
    const int pixels = p.out[0] * p.out[1] * p.out[2];
    const i64 channel = static_cast<i64>(in_d) * in_h * in_w;
#pragma unroll
    for (int j = 0; j < W; ++j) {
      const int n = n0 + cover.col0 + j;
      const int image = n / pixels, pixel = n - image * pixels;
      const int ow = pixel % p.out[2], rows = pixel / p.out[2];
      const int oh = rows % p.out[1], od = rows / p.out[1];
      z[j] = od * Window::SD - p.pad[0];
      y[j] = oh * Window::SH - p.pad[1];
      x[j] = ow * Window::SW - p.pad[2];
      corner[j] = p.x + (static_cast<i64>(image) * p.channels + group * (p.channels / p.groups)) * channel +
                  ((static_cast<i64>(z[j]) * in_h + y[j]) * in_w + x[j]);
      inside[j] = 0;
      if (n >= n_extent) z[j] = -(1 << 30);
      if constexpr (MASKED) inside[j] = taps_inside(j);
    }
  }

  LAPIDARY_FN void seek(int k, int k_end) {
    const int first = k + __shfl_sync(0xffffffffu, cover.row0, 0);
#pragma unroll
    for (int s = 0; s < SLOTS; ++s) {
      const int entry = s * 32 + lane_id();
      const u32 at = static_cast<u32>(first + entry / LEVELS * C::ROW_STEP + entry % LEVELS);
      const u32 c = at / Window::TAPS, tap = at - c * Window::TAPS;
      const u32 kw = tap % Window::KW, kh = tap / Window::KW % Window::KH, kd = tap / (Window::KW * Window::KH);
      offsets[s] = static_cast<int>(((c * in_d + kd * Window::DD) * in_h + kh * Window::DH) * in_w + kw * Window::DW);
      taps[s] = at >= static_cast<u32>(k_end) ? NO_TAP : MASKED ? tap : kd << 24 | kh << 16 | kw;
    }
  }
  LAPIDARY_FN int offset(int i) const { return __shfl_sync(0xffffffffu, offsets[i * LEVELS / 32], lane_of(i)); }
  LAPIDARY_FN u32 tap(int i) const { return __shfl_sync(0xffffffffu, taps[i * LEVELS / 32], lane_of(i)); }
  LAPIDARY_FN bool exists(int j, u32 tap) const {
    if constexpr (MASKED) return (inside[j] >> tap & 1) != 0;
    const int kd = static_cast<int>(tap >> 24 & 0x7f), kh = static_cast<int>(tap >> 16 & 0xff), kw = static_cast<int>(tap & 0xffff);
    return tap != NO_TAP && in_range(z[j] + kd * Window::DD, in_d) && in_range(y[j] + kh * Window::DH, in_h) &&
           in_range(x[j] + kw * Window::DW, in_w);
  }

  LAPIDARY_FN const T* pointer(int i) const { return corner[0] + offset(i); }
  LAPIDARY_FN int valid(int i) const {
    static_assert(W == 1, "pixels of a longer run are not adjacent");
    return exists(0, tap(i)) ? 1 : 0;
  }
  LAPIDARY_FN Vec<T, W> run(int i) const {
    Vec<T, W> r;
    const int at = offset(i);
    const u32 t = tap(i);
#pragma unroll
    for (int j = 0; j < W; ++j) r[j] = load_const_if(exists(j, t), corner[j] + at);
    return r;
  }

 private:
  static LAPIDARY_FN bool in_range(int at, int extent) { return static_cast<u32>(at) < static_cast<u32>(extent); }
  LAPIDARY_FN int lane_of(int i) const { return (i * LEVELS + lane_id() / C::RUNS) % 32; }
  // Bit t: tap t of pixel j's window lies inside the input.
  LAPIDARY_FN Mask taps_inside(int j) const {
    Mask row = 0, plane = 0, all = 0;
#pragma unroll
    for (int kw = 0; kw < Window::KW; ++kw) row |= static_cast<Mask>(in_range(x[j] + kw * Window::DW, in_w)) << kw;
#pragma unroll
    for (int kh = 0; kh < Window::KH; ++kh) plane |= (in_range(y[j] + kh * Window::DH, in_h) ? row : Mask(0)) << (kh * Window::KW);
#pragma unroll
    for (int kd = 0; kd < Window::KD; ++kd) all |= (in_range(z[j] + kd * Window::DD, in_d) ? plane : Mask(0)) << (kd * Window::KW * Window::KH);
    return all;
  }
};

// One CTA's share of a convolution. blockIdx: x tile, y group, z split.
struct Work {
  TileIndex tile;
  int group, k_begin, k_end;
  MapNCHW map;
};
template <int BM, int BN, int BAND, int TAPS, class TX, class TW>
LAPIDARY_FN Work work_of(const Params<TX, TW>& p) {
  const int group = static_cast<int>(blockIdx.y), filters = p.filters / p.groups;
  const int pixels = p.out[0] * p.out[1] * p.out[2], n = p.batch * pixels;
  const int k = p.channels / p.groups * TAPS, k_begin = static_cast<int>(blockIdx.z) * p.k_per_split;
  return {tile_index<BAND>(static_cast<int>(blockIdx.x), ceil_div(filters, BM), ceil_div(n, BN)), group, k_begin,
          min(k, k_begin + p.k_per_split), MapNCHW{filters, n, pixels, p.filters, group * filters}};
}

// The operands' sources for either kind of arithmetic. RUN_A, RUN_B: elements a thread moves at once.
template <class Policy, int THREADS, int RUN_A, int RUN_B>
struct Sources {
  using TX = typename Policy::TX;
  using TW = typename Policy::TW;
  using Window = typename Policy::Window;
  static_assert(!Policy::POINTWISE || Window::TAPS == 1, "a pointwise window is one tap");
  using A = MatrixSource<TW, Cover<Policy::BM, Policy::BK, RUN_A, THREADS>, Policy::VEC_A, true>;
  using CoverB = Cover<Policy::BK, Policy::BN, RUN_B, THREADS>;
  // A run of several loads could cross into the next image, so those pixels are gathered one by one.
  static constexpr bool AS_MATRIX = Policy::POINTWISE && RUN_B == Policy::VEC_B;
  using B = select_t<AS_MATRIX, MatrixSource<TX, CoverB, Policy::VEC_B, false, PointwiseColumns>, GatherNCHW<TX, CoverB, Window>>;

  static LAPIDARY_FN A weights(const Params<TX, TW>& p, const Work& w) {
    const int k = p.channels / p.groups * Window::TAPS;
    return A(p.w + static_cast<i64>(w.map.first_filter) * k, k, w.tile.m * Policy::BM, w.map.m);
  }
  static LAPIDARY_FN B input(const Params<TX, TW>& p, const Work& w) {
    const int n0 = w.tile.n * Policy::BN;
    if constexpr (AS_MATRIX) {
      const i64 pixels = w.map.pixels;
      return B(p.x + w.group * (p.channels / p.groups) * pixels, pixels, n0, w.map.n, PointwiseColumns{w.map.pixels, p.channels * pixels});
    } else {
      return B(p, w.group, n0, w.map.n);
    }
  }
};

// Policy: TX, TW, Window, POINTWISE, BM, BN, BK, WM, WN, STAGES, VEC_A, VEC_B, VEC_C, BAND.
template <class Policy>
struct Mma {
  using TX = typename Policy::TX;
  using TW = typename Policy::TW;
  using Tile = MmaTile<TW, Policy, true, false, TX>;
  static constexpr int THREADS = Tile::THREADS, SMEM_BYTES = Tile::SMEM_BYTES;
  // What one load of the input takes: a gather goes pixel by pixel.
  static constexpr int VEC_B = Policy::POINTWISE ? Policy::VEC_B : 1;
  using S = Sources<Policy, THREADS, run_width<TW, Policy::VEC_A>, run_width<TX, VEC_B>>;
  using LoaderA = Loader<typename Tile::ATile, typename S::A, Policy::VEC_A * int(sizeof(TW))>;
  using LoaderB = Loader<typename Tile::BTile, typename S::B, VEC_B * int(sizeof(TX))>;

  template <class Epi, class Join>
  static LAPIDARY_FN void run(const Params<TX, TW>& p, const typename Epi::Params& e, const Join& with) {
    const Work w = work_of<Policy::BM, Policy::BN, Policy::BAND, Policy::Window::TAPS>(p);
    u8* smem = dynamic_smem();
    LoaderA a{S::weights(p, w)};
    LoaderB b{S::input(p, w)};
    Tile tile;
    tile.accumulate(a, b, smem_address(smem), w.k_begin, w.k_end);
    if (!tile.join(with)) return;
    tile.template finish<Epi, Policy::VEC_C>(e, w.map, smem, w.tile.m * Policy::BM, w.tile.n * Policy::BN);
  }
};
template <class Policy, class Epi, class Join = Whole>
LAPIDARY_FN void mma(const Params<typename Policy::TX, typename Policy::TW>& p, const typename Epi::Params& e, const Join& with = {}) {
  Mma<Policy>::template run<Epi>(p, e, with);
}

// Policy: TX, TW, Window, POINTWISE, BM, BN, BK, TM, TN, VEC_A, VEC_B, VEC_C, BAND.
template <class Policy>
struct Simt {
  using TX = typename Policy::TX;
  using TW = typename Policy::TW;
  using A = Acc<TX>;
  using Tile = SimtTile<A, Policy>;
  static constexpr int THREADS = Tile::THREADS;
  using S = Sources<Policy, THREADS, Policy::VEC_A, Policy::POINTWISE ? Policy::VEC_B : 1>;

  template <class Epi, class Join>
  static LAPIDARY_FN void run(const Params<TX, TW>& p, const typename Epi::Params& e, const Join& with) {
    __shared__ __align__(16) A smem[Tile::SMEM_BYTES / sizeof(A)];
    const Work w = work_of<Policy::BM, Policy::BN, Policy::BAND, Policy::Window::TAPS>(p);
    WideningLoader<A, typename S::A, Tile::A_STRIDE> a{S::weights(p, w)};
    WideningLoader<A, typename S::B, Tile::B_STRIDE> b{S::input(p, w)};
    Tile tile;
    tile.accumulate(a, b, smem, w.k_begin, w.k_end);
    if (!tile.join(with)) return;
    tile.template finish<Epi, Policy::VEC_C>(e, w.map, w.tile.m * Policy::BM, w.tile.n * Policy::BN);
  }
};
template <class Policy, class Epi, class Join = Whole>
LAPIDARY_FN void simt(const Params<typename Policy::TX, typename Policy::TW>& p, const typename Epi::Params& e, const Join& with = {}) {
  Simt<Policy>::template run<Epi>(p, e, with);
}

// y[n, oc, o] = sum over c, tap of x[n, c, i] * w[c, oc in its group, tap], i * stride = o + pad - tap * dilation.
// Everything is a runtime value; weights are [channels, filters / groups, window].
template <class T>
struct TransposeParams {
  const T* x;
  const T* w;
  int batch, channels, filters, groups;
  int in[3], out[3], pad[3], window[3], stride[3], dilation[3];
};
// One axis: the input index that tap `t` brings to output index o, or -1.
LAPIDARY_FN int transposed_index(int o, int t, int extent, int pad, int stride, int dilation) {
  const int at = o + pad - t * dilation;
  if (at < 0 || at % stride != 0) return -1;
  return at / stride < extent ? at / stride : -1;
}
template <class T, class Epi>
LAPIDARY_FN void transpose(const TransposeParams<T>& p, const typename Epi::Params& e) {
  using A = Acc<T>;
  const i64 pixels = static_cast<i64>(p.out[0]) * p.out[1] * p.out[2];
  const i64 o = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (o >= pixels * p.batch * p.filters) return;
  const int plane = static_cast<int>(o / pixels), pixel = static_cast<int>(o - plane * pixels);
  const int oc = plane % p.filters, image = plane / p.filters;
  const int ow = pixel % p.out[2], oh = pixel / p.out[2] % p.out[1], od = pixel / p.out[2] / p.out[1];
  const int filters = p.filters / p.groups, channels = p.channels / p.groups, group = oc / filters;
  const i64 in_pixels = static_cast<i64>(p.in[0]) * p.in[1] * p.in[2];
  const i64 taps = static_cast<i64>(p.window[0]) * p.window[1] * p.window[2];
  const T* x = p.x + (static_cast<i64>(image) * p.channels + group * channels) * in_pixels;
  const T* w = p.w + (static_cast<i64>(group) * channels * filters + oc % filters) * taps;
  A sum = A{};
  int tap = 0;
  for (int kd = 0; kd < p.window[0]; ++kd) {
    const int z = transposed_index(od, kd, p.in[0], p.pad[0], p.stride[0], p.dilation[0]);
    for (int kh = 0; kh < p.window[1]; ++kh) {
      const int y = transposed_index(oh, kh, p.in[1], p.pad[1], p.stride[1], p.dilation[1]);
      for (int kw = 0; kw < p.window[2]; ++kw, ++tap) {
        const int v = transposed_index(ow, kw, p.in[2], p.pad[2], p.stride[2], p.dilation[2]);
        if (z < 0 || y < 0 || v < 0) continue;
        const i64 at = (static_cast<i64>(z) * p.in[1] + y) * p.in[2] + v;
        for (int c = 0; c < channels; ++c) sum += convert<A>(x[c * in_pixels + at]) * convert<A>(w[c * filters * taps + tap]);
      }
    }
  }
  const A one[1] = {sum};
  emit<Epi, 1, 0>(e, one, o, oc);
}

}  // namespace lapidary::conv
