// prelude.cuh - the types, conversions and small helpers that every kernel uses.
//
// Contract: compiles under NVRTC and nvcc (-std=c++17, sm_80 and later) and includes no header but
// ours. All names live in namespace lapidary, so they cannot clash with a system header.
// Bool tensors are u8 holding 0 or 1. Half types are PODs: arithmetic happens in their Acc type.
// Not here: asynchronous copies (cp_async.cuh), tensor cores (mma.cuh), anything about one operator.
#pragma once

#define LAPIDARY_FN __device__ __forceinline__

namespace lapidary {

using i8 = signed char;
using i16 = short;
using i32 = int;
using i64 = long long;
using u8 = unsigned char;
using u16 = unsigned short;
using u32 = unsigned int;
using u64 = unsigned long long;

struct alignas(2) f16 {
  u16 bits;
};
struct alignas(2) bf16 {
  u16 bits;
};
// A float whose products may be computed at TF32 precision; in memory it is a float.
struct alignas(4) tf32 {
  float value;
};

// ---------------------------------------------------------------------------------------------
// Type facts.

template <class T, class U>
struct IsSame {
  static constexpr bool value = false;
};
template <class T>
struct IsSame<T, T> {
  static constexpr bool value = true;
};
template <class T, class U>
inline constexpr bool is_same = IsSame<T, U>::value;

template <class T>
inline constexpr bool is_half = is_same<T, f16> || is_same<T, bf16>;
template <class T>
inline constexpr bool is_float = is_half<T> || is_same<T, float> || is_same<T, double> || is_same<T, tf32>;
template <class T>
inline constexpr bool is_integer = !is_float<T>;

template <bool C, class A, class B>
struct Select {
  using type = A;
};
template <class A, class B>
struct Select<false, A, B> {
  using type = B;
};
template <bool C, class A, class B>
using select_t = typename Select<C, A, B>::type;

// What sums and products of T are held in: f32 for every float up to 32 bits, i32 for integers up
// to 16 bits, the type itself otherwise.
template <class T>
struct AccOf {
  using type = T;
};
template <>
struct AccOf<f16> {
  using type = float;
};
template <>
struct AccOf<bf16> {
  using type = float;
};
template <>
struct AccOf<tf32> {
  using type = float;
};
template <>
struct AccOf<i8> {
  using type = i32;
};
template <>
struct AccOf<u8> {
  using type = i32;
};
template <>
struct AccOf<i16> {
  using type = i32;
};
template <>
struct AccOf<u16> {
  using type = i32;
};
template <class T>
using Acc = typename AccOf<T>::type;

// ---------------------------------------------------------------------------------------------
// Integers and loops.

template <class T>
LAPIDARY_FN constexpr T min(T a, T b) {
  return b < a ? b : a;
}
template <class T>
LAPIDARY_FN constexpr T max(T a, T b) {
  return a < b ? b : a;
}
// Both operands non-negative.
template <class T>
LAPIDARY_FN constexpr T ceil_div(T a, T b) {
  return (a + b - 1) / b;
}
template <class T>
LAPIDARY_FN constexpr T round_up(T a, T b) {
  return ceil_div(a, b) * b;
}
LAPIDARY_FN constexpr int log2_floor(int x) {
  int r = 0;
  while (x > 1) {
    x >>= 1;
    ++r;
  }
  return r;
}

template <int V>
struct Int {
  static constexpr int value = V;
  LAPIDARY_FN constexpr operator int() const { return V; }
};
// static_for<N>(f) calls f(Int<0>{}) .. f(Int<N-1>{}); the index is a constant expression in f.
template <int N, int I = 0, class F>
LAPIDARY_FN constexpr void static_for(F&& f) {
  if constexpr (I < N) {
    f(Int<I>{});
    static_for<N, I + 1>(f);
  }
}

LAPIDARY_FN int lane_id() { return static_cast<int>(threadIdx.x & 31); }
// Equal over the warp; the shuffle tells the compiler so.
LAPIDARY_FN int warp_id() { return __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x >> 5), 0); }

// The CTA's dynamic shared memory, 16-byte aligned (128 under every driver we know).
LAPIDARY_FN u8* dynamic_smem() {
  extern __shared__ __align__(128) u8 lapidary_smem[];
  return lapidary_smem;
}
LAPIDARY_FN u32 smem_address(const void* p) { return static_cast<u32>(__cvta_generic_to_shared(p)); }

// ---------------------------------------------------------------------------------------------
// Conversions. Float to a narrower float rounds to nearest even.

LAPIDARY_FN float to_float(f16 x) {
  float r;
  asm("cvt.f32.f16 %0, %1;" : "=f"(r) : "h"(x.bits));
  return r;
}
LAPIDARY_FN float to_float(bf16 x) { return __uint_as_float(static_cast<u32>(x.bits) << 16); }
LAPIDARY_FN float to_float(tf32 x) { return x.value; }
LAPIDARY_FN float to_float(float x) { return x; }
LAPIDARY_FN float to_float(double x) { return static_cast<float>(x); }
LAPIDARY_FN float to_float(i8 x) { return static_cast<float>(x); }
LAPIDARY_FN float to_float(u8 x) { return static_cast<float>(x); }
LAPIDARY_FN float to_float(i16 x) { return static_cast<float>(x); }
LAPIDARY_FN float to_float(u16 x) { return static_cast<float>(x); }
LAPIDARY_FN float to_float(i32 x) { return static_cast<float>(x); }
LAPIDARY_FN float to_float(u32 x) { return static_cast<float>(x); }
LAPIDARY_FN float to_float(i64 x) { return static_cast<float>(x); }
LAPIDARY_FN float to_float(u64 x) { return static_cast<float>(x); }

// x as a float, rounded to odd: toward zero, with the last bit set where something was cut off, so that a second
// rounding to a type with a few bits less is right (S. Boldo, G. Melquiond, "Emulation of a FMA and correctly rounded
// sums: proved algorithms using rounding to odd").
template <class T>
LAPIDARY_FN float to_odd(T x) {
  if constexpr (is_same<T, double> || (is_integer<T> && sizeof(T) >= 4)) {
    float f;
    if constexpr (is_same<T, double>) {
      f = __double2float_rz(x);
    } else if constexpr (sizeof(T) == 8) {
      f = static_cast<T>(-1) < static_cast<T>(0) ? __ll2float_rz(x) : __ull2float_rz(x);
    } else {
      f = static_cast<T>(-1) < static_cast<T>(0) ? __int2float_rz(x) : __uint2float_rz(x);
    }
    // Toward zero, so that the way back is in the type's range.
    const u32 sticky = static_cast<T>(f) != x ? 1u : 0u;
    return __uint_as_float(__float_as_uint(f) | sticky);
  } else {
    return to_float(x);
  }
}

// convert<To>(x): the value of x in To. Floats to integers truncate; to 8 and 16 bits they wrap as a
// 64-bit integer does, to 32 and 64 bits they saturate, NaN gives 0. Never rounds twice.
template <class To>
struct Convert {
  template <class From>
  static LAPIDARY_FN To from(From x) {
    if constexpr (is_same<From, f16> || is_same<From, bf16> || is_same<From, tf32>) {
      return from(to_float(x));
    } else if constexpr (is_float<From> && is_integer<To> && sizeof(To) <= 2) {
      return static_cast<To>(static_cast<i64>(x));
    } else {
      return static_cast<To>(x);
    }
  }
};
template <>
struct Convert<tf32> {
  template <class From>
  static LAPIDARY_FN tf32 from(From x) {
    return tf32{Convert<float>::from(x)};
  }
};
template <>
struct Convert<f16> {
  static LAPIDARY_FN f16 from(f16 x) { return x; }
  static LAPIDARY_FN f16 from(bf16 x) { return from(to_float(x)); }
  static LAPIDARY_FN f16 from(tf32 x) { return from(x.value); }
  static LAPIDARY_FN f16 from(float x) {
    f16 r;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(r.bits) : "f"(x));
    return r;
  }
  static LAPIDARY_FN f16 from(double x) {
    f16 r;
    asm("cvt.rn.f16.f64 %0, %1;" : "=h"(r.bits) : "d"(x));
    return r;
  }
  template <class Integer>
  static LAPIDARY_FN f16 from(Integer x) {
    return from(static_cast<double>(x));
  }
};
template <>
struct Convert<bf16> {
  static LAPIDARY_FN bf16 from(bf16 x) { return x; }
  static LAPIDARY_FN bf16 from(f16 x) { return from(to_float(x)); }
  static LAPIDARY_FN bf16 from(tf32 x) { return from(x.value); }
  static LAPIDARY_FN bf16 from(float x) {
    bf16 r;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(r.bits) : "f"(x));
    return r;
  }
  // Doubles and integers, which a float may not hold.
  template <class Wide>
  static LAPIDARY_FN bf16 from(Wide x) {
    return from(to_odd(x));
  }
};
template <class To, class From>
LAPIDARY_FN To convert(From x) {
  return Convert<To>::from(x);
}
template <class To>
LAPIDARY_FN To from_float(float x) {
  return Convert<To>::from(x);
}

// Two halves in one register, element 0 in the low 16 bits.
template <class Half>
LAPIDARY_FN u32 pack_x2(float lo, float hi) {
  static_assert(is_half<Half>, "pack_x2 packs f16 or bf16");
  u32 r;
  if constexpr (is_same<Half, f16>) {
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
  } else {
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
  }
  return r;
}
template <class Half>
LAPIDARY_FN void unpack_x2(u32 x, float& lo, float& hi) {
  lo = to_float(Half{static_cast<u16>(x & 0xffffu)});
  hi = to_float(Half{static_cast<u16>(x >> 16)});
}

// ---------------------------------------------------------------------------------------------
// Vectors: N elements moved by one instruction; N * sizeof(T) is 1, 2, 4, 8 or 16 bytes and the
// address a multiple of it.

template <int BYTES>
struct RawOf;
template <>
struct RawOf<1> {
  using type = u8;
};
template <>
struct RawOf<2> {
  using type = u16;
};
template <>
struct RawOf<4> {
  using type = u32;
};
template <>
struct RawOf<8> {
  using type = uint2;
};
template <>
struct RawOf<16> {
  using type = uint4;
};
template <int BYTES>
using Raw = typename RawOf<BYTES>::type;

template <class T, int N>
struct alignas(sizeof(T) * N) Vec {
  T v[N];
  LAPIDARY_FN T& operator[](int i) { return v[i]; }
  LAPIDARY_FN const T& operator[](int i) const { return v[i]; }
};

template <class To, class From>
LAPIDARY_FN To bit_cast(const From& x) {
  static_assert(sizeof(To) == sizeof(From), "bit_cast keeps the size");
  To r;
  memcpy(&r, &x, sizeof(To));
  return r;
}

template <class T, int N>
LAPIDARY_FN Vec<T, N> load(const T* p) {
  using R = Raw<int(sizeof(T)) * N>;
  return bit_cast<Vec<T, N>>(*reinterpret_cast<const R*>(p));
}
// Through the read-only path: nothing may write the memory while the kernel runs.
template <class T, int N>
LAPIDARY_FN Vec<T, N> load_const(const T* p) {
  using R = Raw<int(sizeof(T)) * N>;
  return bit_cast<Vec<T, N>>(__ldg(reinterpret_cast<const R*>(p)));
}
// From L2, past this SM's L1, which may hold what the memory held before another SM wrote it.
template <class T, int N>
LAPIDARY_FN Vec<T, N> load_l2(const T* p) {
  using R = Raw<int(sizeof(T)) * N>;
  return bit_cast<Vec<T, N>>(__ldcg(reinterpret_cast<const R*>(p)));
}
// One element through the read-only path, or zero bits without touching memory. Predicated rather
// than branched over, so that a row of them stays one straight line of loads in flight.
template <class T>
LAPIDARY_FN T load_const_if(bool exists, const T* p) {
  const u32 on = exists ? 1u : 0u;
  const u64 address = __cvta_generic_to_global(p);
  if constexpr (sizeof(T) == 1) {
    u32 r;
    asm("{ .reg .pred p; setp.ne.u32 p, %2, 0; mov.u32 %0, 0; @p ld.global.nc.u8 %0, [%1]; }" : "=r"(r) : "l"(address), "r"(on));
    return bit_cast<T>(static_cast<u8>(r));
  } else if constexpr (sizeof(T) == 2) {
    u16 r;
    asm("{ .reg .pred p; setp.ne.u32 p, %2, 0; mov.u16 %0, 0; @p ld.global.nc.u16 %0, [%1]; }" : "=h"(r) : "l"(address), "r"(on));
    return bit_cast<T>(r);
  } else if constexpr (sizeof(T) == 4) {
    u32 r;
    asm("{ .reg .pred p; setp.ne.u32 p, %2, 0; mov.u32 %0, 0; @p ld.global.nc.u32 %0, [%1]; }" : "=r"(r) : "l"(address), "r"(on));
    return bit_cast<T>(r);
  } else {
    u64 r;
    asm("{ .reg .pred p; setp.ne.u32 p, %2, 0; mov.u64 %0, 0; @p ld.global.nc.u64 %0, [%1]; }" : "=l"(r) : "l"(address), "r"(on));
    return bit_cast<T>(r);
  }
}
template <class T, int N>
LAPIDARY_FN void store(T* p, const Vec<T, N>& x) {
  using R = Raw<int(sizeof(T)) * N>;
  *reinterpret_cast<R*>(p) = bit_cast<R>(x);
}
LAPIDARY_FN bool is_aligned(const void* p, int bytes) {
  return (reinterpret_cast<u64>(p) & static_cast<u64>(bytes - 1)) == 0;
}

}  // namespace lapidary

#include "lapidary/trace.cuh"
