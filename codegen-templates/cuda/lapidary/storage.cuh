// storage.cuh - the types of 8 bits and fewer that tensors are stored in and nothing is computed in: the floats of 8
// and 4 bits (ONNX, "Float stored in 8 bits", "4 bit float"; OCP Microscaling Formats v1.0) and the packed integers.
//
// Contract: a value is held in its compute type, float or a byte; its *code* is the bits that a tensor holds, in the
// low bits of a u32. `value_of` is exact. `code_of` rounds to nearest even and takes what is too large as the largest
// number, but keeps an infinity where the type has one; `saturated` takes that as the largest number, too. E8M0 has
// neither sign nor zero: it takes magnitudes, rounded up. Integers keep their low bits.
// Not here: where a code lies in a tensor (wide.cuh), rounding before a conversion (math.cuh).
#pragma once

#include "lapidary/prelude.cuh"

namespace lapidary {

struct f8e4m3fn {
  u8 bits;
};
struct f8e4m3fnuz {
  u8 bits;
};
struct f8e5m2 {
  u8 bits;
};
struct f8e5m2fnuz {
  u8 bits;
};
struct f8e8m0 {
  u8 bits;
};
// Names of packed types: in memory there are bytes.
struct f4e2m1 {};
struct i4 {};
struct u4 {};
struct i2 {};
struct u2 {};

// How many zeros a format has. Where there is one, the code of -0 is NaN.
enum class Zeros { ONE, TWO };

// A sign, an exponent with a bias, MANTISSA bits. HIGHEST is the largest magnitude that is no NaN: the largest number
// or the infinity. NAN is what NaN becomes: -0 where the format has none.
template <int BITS, int MANTISSA_, int BIAS_, u32 LARGEST_, u32 HIGHEST_, u32 NAN_, Zeros ZEROS_>
struct Format {
  static constexpr int MANTISSA = MANTISSA_;
  static constexpr u32 BIAS = BIAS_, SIGN = 1u << (BITS - 1);
  static constexpr u32 LARGEST = LARGEST_, HIGHEST = HIGHEST_, NOT_A_NUMBER = NAN_;
  static constexpr bool INFINITE = HIGHEST != LARGEST;
  static constexpr Zeros ZEROS = ZEROS_;
};
template <class T>
struct FormatOf;
template <>
struct FormatOf<f8e4m3fn> {
  using type = Format<8, 3, 7, 0x7e, 0x7e, 0x7f, Zeros::TWO>;
};
template <>
struct FormatOf<f8e4m3fnuz> {
  using type = Format<8, 3, 8, 0x7f, 0x7f, 0x80, Zeros::ONE>;
};
template <>
struct FormatOf<f8e5m2> {
  using type = Format<8, 2, 15, 0x7b, 0x7c, 0x7f, Zeros::TWO>;
};
template <>
struct FormatOf<f8e5m2fnuz> {
  using type = Format<8, 2, 16, 0x7f, 0x7f, 0x80, Zeros::ONE>;
};
template <>
struct FormatOf<f4e2m1> {
  using type = Format<4, 1, 1, 0x7, 0x7, 0x8, Zeros::TWO>;
};

template <class T>
inline constexpr bool is_small_float = is_same<T, f8e4m3fn> || is_same<T, f8e4m3fnuz> || is_same<T, f8e5m2> ||
                                       is_same<T, f8e5m2fnuz> || is_same<T, f8e8m0> || is_same<T, f4e2m1>;
template <class T>
inline constexpr bool is_small_integer = is_same<T, i4> || is_same<T, u4> || is_same<T, i2> || is_same<T, u2>;
template <class T>
inline constexpr bool is_storage = is_small_float<T> || is_small_integer<T>;
template <class T>
inline constexpr bool is_packed = is_small_integer<T> || is_same<T, f4e2m1>;
// Bits of a packed type, and how many elements share a byte.
template <class T>
inline constexpr int packed_bits = is_same<T, i2> || is_same<T, u2> ? 2 : 4;
template <class T>
inline constexpr int per_byte = is_packed<T> ? 8 / packed_bits<T> : 1;

// What a value is held in.
template <class T>
using StorageValue = select_t<is_small_float<T>, float, select_t<is_same<T, i4> || is_same<T, i2>, i8, u8>>;

template <class T>
LAPIDARY_FN float small_float_of(u32 code) {
  using F = typename FormatOf<T>::type;
  const u32 magnitude = code & (F::SIGN - 1);
  const u32 sign = (code & F::SIGN) != 0 ? 0x80000000u : 0u;
  const bool is_nan = F::ZEROS == Zeros::ONE ? code == F::SIGN : magnitude > F::HIGHEST;
  if (is_nan) return __uint_as_float(0x7fc00000u);
  if (F::INFINITE && magnitude == F::HIGHEST) return __uint_as_float(0x7f800000u | sign);
  // The exponent as float's own, subnormals included: the product with a power of two makes up for the bias, exactly.
  const float biased = __uint_as_float(magnitude << (23 - F::MANTISSA));
  return __uint_as_float(__float_as_uint(biased * __uint_as_float((254u - F::BIAS) << 23)) | sign);
}
template <class T>
LAPIDARY_FN u32 small_float_code(float x) {
  using F = typename FormatOf<T>::type;
  const u32 bits = __float_as_uint(x);
  const u32 magnitude = bits & 0x7fffffffu;
  const u32 sign = (bits >> 31) * F::SIGN;
  if (magnitude > 0x7f800000u) return F::ZEROS == Zeros::ONE ? F::NOT_A_NUMBER : F::NOT_A_NUMBER | sign;
  if (F::INFINITE && magnitude == 0x7f800000u) return F::HIGHEST | sign;
  u32 code;
  if (magnitude < (128u - F::BIAS) << 23) {
    // The last bit of this sum counts the format's smallest steps, so that the addition rounds.
    constexpr u32 ALIGN = (151u - F::BIAS - F::MANTISSA) << 23;
    code = __float_as_uint(__uint_as_float(magnitude) + __uint_as_float(ALIGN)) - ALIGN;
  } else {
    constexpr int DROPPED = 23 - F::MANTISSA;
    const u32 below_half = (1u << (DROPPED - 1)) - 1 + (magnitude >> DROPPED & 1u);
    code = ((magnitude + below_half) >> DROPPED) - ((127u - F::BIAS) << F::MANTISSA);
  }
  code = code < F::LARGEST ? code : F::LARGEST;
  return F::ZEROS == Zeros::ONE && code == 0 ? 0u : code | sign;
}

// 2^(code - 127). The lowest is subnormal as a float.
LAPIDARY_FN float power_of(u32 code) {
  return __uint_as_float(code == 0xff ? 0x7fc00000u : code == 0 ? 0x00400000u : code << 23);
}
LAPIDARY_FN u32 power_code(float x) {
  const u32 magnitude = __float_as_uint(x) & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return 0xff;
  if (magnitude < 0x00800000u) return magnitude > 0x00400000u ? 1u : 0u;
  const u32 up = (magnitude + 0x007fffffu) >> 23;
  return up < 254u ? up : 254u;
}

template <class T>
LAPIDARY_FN StorageValue<T> value_of(u32 code) {
  if constexpr (is_same<T, f8e8m0>) {
    return power_of(code);
  } else if constexpr (is_small_float<T>) {
    return small_float_of<T>(code);
  } else if constexpr (is_same<T, i4> || is_same<T, i2>) {
    constexpr int UNUSED = 32 - packed_bits<T>;
    return static_cast<i8>(static_cast<i32>(code << UNUSED) >> UNUSED);
  } else {
    return static_cast<u8>(code);
  }
}
template <class T>
LAPIDARY_FN u32 code_of(StorageValue<T> x) {
  if constexpr (is_same<T, f8e8m0>) {
    return power_code(x);
  } else if constexpr (is_small_float<T>) {
    return small_float_code<T>(x);
  } else {
    return static_cast<u32>(x) & ((1u << packed_bits<T>) - 1);
  }
}

// The number of small float type T that x is converted to.
template <class T>
LAPIDARY_FN float saturated(float x) {
  u32 code = code_of<T>(x);
  if constexpr (!is_same<T, f8e8m0>) {
    using F = typename FormatOf<T>::type;
    if (F::INFINITE && (code & (F::SIGN - 1)) == F::HIGHEST) --code;
  }
  return value_of<T>(code);
}

}  // namespace lapidary
