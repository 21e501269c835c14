// math.cuh - the scalar operations of pointwise programs, on typed values.
//
// Contract: one function for each step of a program, found by name and operand type. A value is held in its
// *compute type*: f16, bf16, tf32 and the smaller floats in float, bool in bool, integers below 8 bits in i8 and u8,
// everything else in itself; `widen` and `narrow` go between memory and compute types, but for packed types, which
// only wide.cuh reads and writes. Every result is defined: integer arithmetic wraps, a zero divisor gives
// 0, a float out of an integer's range saturates and NaN becomes 0, min and max propagate NaN as numpy does.
// Floats are computed by CUDA's own functions at their documented accuracy (at most 4 ulp in binary32), never
// the approximate ones.
// Not here: loads and stores (wide.cuh), reductions (team.cuh).
#pragma once

#include "lapidary/storage.cuh"

namespace lapidary {

// ---------------------------------------------------------------------------------------------
// Compute and memory types.

template <class T>
struct ComputeOf {
  using type = select_t<is_storage<T>, StorageValue<T>, T>;
};
template <>
struct ComputeOf<f16> {
  using type = float;
};
template <>
struct ComputeOf<bf16> {
  using type = float;
};
template <>
struct ComputeOf<tf32> {
  using type = float;
};
// What a step computes in when its dtype is T.
template <class T>
using Compute = typename ComputeOf<T>::type;

template <class T>
struct MemoryOf {
  using type = select_t<is_packed<T>, u8, T>;
};
template <>
struct MemoryOf<bool> {
  using type = u8;
};
// What a tensor of dtype T is an array of. bool tensors are bytes: a foreign byte above 1 still reads as true. Packed
// ones are bytes of several elements.
template <class T>
using Memory = typename MemoryOf<T>::type;

template <class T>
LAPIDARY_FN Compute<T> widen(Memory<T> x) {
  static_assert(!is_packed<T>, "a byte of a packed tensor is several elements");
  if constexpr (is_same<T, bool>) {
    return x != 0;
  } else if constexpr (is_storage<T>) {
    return value_of<T>(x.bits);
  } else if constexpr (is_same<T, f16> || is_same<T, bf16> || is_same<T, tf32>) {
    return to_float(x);
  } else {
    return x;
  }
}
template <class T>
LAPIDARY_FN Memory<T> narrow(Compute<T> x) {
  static_assert(!is_packed<T>, "a byte of a packed tensor is several elements");
  if constexpr (is_same<T, bool>) {
    return x ? 1 : 0;
  } else if constexpr (is_storage<T>) {
    return T{static_cast<u8>(code_of<T>(x))};
  } else if constexpr (is_same<T, f16> || is_same<T, bf16> || is_same<T, tf32>) {
    return from_float<T>(x);
  } else {
    return x;
  }
}

template <class T>
inline constexpr bool is_signed = static_cast<T>(-1) < static_cast<T>(0);
// The unsigned type in which integer arithmetic on T wraps.
template <class T>
using Wrapping = select_t<sizeof(T) == 8, u64, u32>;

template <class T>
LAPIDARY_FN constexpr T highest_integer() {
  constexpr int bits = static_cast<int>(sizeof(T)) * 8;
  return static_cast<T>(is_signed<T> ? (1ull << (bits - 1)) - 1 : ~0ull >> (64 - bits));
}
template <class T>
LAPIDARY_FN constexpr T lowest_integer() {
  return static_cast<T>(is_signed<T> ? ~highest_integer<T>() : static_cast<T>(0));
}

namespace math {

// Constants that have no literal.
template <class T>
LAPIDARY_FN T infinity() {
  if constexpr (is_same<T, double>) {
    return __longlong_as_double(0x7ff0000000000000ll);
  } else {
    return __int_as_float(0x7f800000);
  }
}
template <class T>
LAPIDARY_FN T nan() {
  if constexpr (is_same<T, double>) {
    return __longlong_as_double(0x7ff8000000000000ll);
  } else {
    return __int_as_float(0x7fc00000);
  }
}
// The neutral elements of max and min.
template <class T>
LAPIDARY_FN T lowest() {
  if constexpr (is_float<T>) {
    return -infinity<T>();
  } else if constexpr (is_same<T, bool>) {
    return false;
  } else {
    return lowest_integer<T>();
  }
}
template <class T>
LAPIDARY_FN T highest() {
  if constexpr (is_float<T>) {
    return infinity<T>();
  } else if constexpr (is_same<T, bool>) {
    return true;
  } else {
    return highest_integer<T>();
  }
}

// ---------------------------------------------------------------------------------------------
// Predicates on floats.

template <class T>
LAPIDARY_FN bool isnan(T x) {
  if constexpr (is_float<T>) {
    return x != x;
  } else {
    return false;
  }
}
template <class T>
LAPIDARY_FN bool isposinf(T x) {
  return x == infinity<T>();
}
template <class T>
LAPIDARY_FN bool isneginf(T x) {
  return x == -infinity<T>();
}

// ---------------------------------------------------------------------------------------------
// Casts.

template <class To>
LAPIDARY_FN To saturate_to(float x) {
  if constexpr (sizeof(To) == 8) {
    if (isnan(x)) return 0;
    if constexpr (is_signed<To>) {
      return __float2ll_rz(x);
    } else {
      return x < 0.0f ? 0 : __float2ull_rz(x);
    }
  } else if constexpr (is_same<To, u32>) {
    return isnan(x) ? 0 : __float2uint_rz(x);
  } else {
    if (isnan(x)) return 0;
    const i32 wide = __float2int_rz(x);
    return static_cast<To>(lapidary::min(lapidary::max(wide, static_cast<i32>(lowest_integer<To>())),
                                         static_cast<i32>(highest_integer<To>())));
  }
}
template <class To>
LAPIDARY_FN To saturate_to(double x) {
  if (isnan(x)) return 0;
  if constexpr (sizeof(To) == 8) {
    if constexpr (is_signed<To>) {
      return __double2ll_rz(x);
    } else {
      return x < 0.0 ? 0 : __double2ull_rz(x);
    }
  } else if constexpr (is_same<To, u32>) {
    return x < 0.0 ? 0 : __double2uint_rz(x);
  } else {
    const i32 wide = __double2int_rz(x);
    return static_cast<To>(lapidary::min(lapidary::max(wide, static_cast<i32>(lowest_integer<To>())),
                                         static_cast<i32>(highest_integer<To>())));
  }
}

// cast<To>(x): the value of x in dtype To, held in To's compute type. To floats below 32 bits it rounds, and the
// result is a float that the type represents; those of 8 bits and fewer saturate.
template <class To, class From>
LAPIDARY_FN Compute<To> cast(From x) {
  if constexpr (is_same<To, bool>) {
    return x != static_cast<From>(0);
  } else if constexpr (is_small_float<To>) {
    if constexpr (is_same<From, bool>) {
      return saturated<To>(x ? 1.0f : 0.0f);
    } else {
      return saturated<To>(to_odd(x));
    }
  } else if constexpr (is_small_integer<To>) {
    if constexpr (is_float<From>) {
      constexpr int UNUSED = 8 - packed_bits<To>;
      using Byte = Compute<To>;
      constexpr i32 low = lowest_integer<Byte>() >> UNUSED, high = highest_integer<Byte>() >> UNUSED;
      return static_cast<Byte>(lapidary::min(lapidary::max(saturate_to<i32>(x), low), high));
    } else {
      return value_of<To>(code_of<To>(static_cast<Compute<To>>(x)));
    }
  } else if constexpr (is_half<To>) {
    if constexpr (is_same<From, bool>) {
      return x ? 1.0f : 0.0f;
    } else {
      return to_float(convert<To>(x));
    }
  } else if constexpr (is_float<From> && is_integer<To>) {
    return saturate_to<To>(x);
  } else {
    return static_cast<Compute<To>>(x);
  }
}

// ---------------------------------------------------------------------------------------------
// One operand.

template <class T>
LAPIDARY_FN T identity(T x) {
  return x;
}
template <class T>
LAPIDARY_FN T neg(T x) {
  if constexpr (is_float<T>) {
    return -x;
  } else {
    return static_cast<T>(0 - static_cast<Wrapping<T>>(x));
  }
}
template <class T>
LAPIDARY_FN T abs(T x) {
  if constexpr (is_same<T, float>) {
    return ::fabsf(x);
  } else if constexpr (is_same<T, double>) {
    return ::fabs(x);
  } else if constexpr (is_signed<T>) {
    return x < 0 ? neg(x) : x;
  } else {
    return x;
  }
}
// -0 and NaN stay as they are.
template <class T>
LAPIDARY_FN T sign(T x) {
  if (x > static_cast<T>(0)) return static_cast<T>(1);
  if constexpr (is_float<T> || is_signed<T>) {
    if (x < static_cast<T>(0)) return static_cast<T>(-1);
  }
  return x;
}
LAPIDARY_FN bool not_(bool x) { return !x; }
template <class T>
LAPIDARY_FN T bit_not(T x) {
  return static_cast<T>(~static_cast<Wrapping<T>>(x));
}

#define LAPIDARY_FLOAT_FUNCTION(NAME, F32, F64)        \
  LAPIDARY_FN float NAME(float x) { return ::F32(x); } \
  LAPIDARY_FN double NAME(double x) { return ::F64(x); }
LAPIDARY_FLOAT_FUNCTION(floor, floorf, floor)
LAPIDARY_FLOAT_FUNCTION(ceil, ceilf, ceil)
// Half to even.
LAPIDARY_FLOAT_FUNCTION(round, rintf, rint)
LAPIDARY_FLOAT_FUNCTION(sqrt, sqrtf, sqrt)
LAPIDARY_FLOAT_FUNCTION(rsqrt, rsqrtf, rsqrt)
LAPIDARY_FLOAT_FUNCTION(exp, expf, exp)
LAPIDARY_FLOAT_FUNCTION(expm1, expm1f, expm1)
LAPIDARY_FLOAT_FUNCTION(log, logf, log)
LAPIDARY_FLOAT_FUNCTION(log1p, log1pf, log1p)
LAPIDARY_FLOAT_FUNCTION(sin, sinf, sin)
LAPIDARY_FLOAT_FUNCTION(cos, cosf, cos)
LAPIDARY_FLOAT_FUNCTION(tan, tanf, tan)
LAPIDARY_FLOAT_FUNCTION(asin, asinf, asin)
LAPIDARY_FLOAT_FUNCTION(acos, acosf, acos)
LAPIDARY_FLOAT_FUNCTION(atan, atanf, atan)
LAPIDARY_FLOAT_FUNCTION(sinh, sinhf, sinh)
LAPIDARY_FLOAT_FUNCTION(cosh, coshf, cosh)
LAPIDARY_FLOAT_FUNCTION(tanh, tanhf, tanh)
LAPIDARY_FLOAT_FUNCTION(asinh, asinhf, asinh)
LAPIDARY_FLOAT_FUNCTION(acosh, acoshf, acosh)
LAPIDARY_FLOAT_FUNCTION(atanh, atanhf, atanh)
LAPIDARY_FLOAT_FUNCTION(erf, erff, erf)
#undef LAPIDARY_FLOAT_FUNCTION

template <class T>
LAPIDARY_FN T reciprocal(T x) {
  return static_cast<T>(1) / x;
}
// Both halves use exp of a non-positive number, which cannot overflow and keeps small results exact.
template <class T>
LAPIDARY_FN T sigmoid(T x) {
  const T z = exp(-abs(x));
  const T r = static_cast<T>(1) / (static_cast<T>(1) + z);
  return x >= static_cast<T>(0) ? r : z * r;
}
template <class T>
LAPIDARY_FN T softplus(T x) {
  return (x > static_cast<T>(0) ? x : static_cast<T>(0)) + log1p(exp(-abs(x)));
}

// ---------------------------------------------------------------------------------------------
// Two operands.

template <class T>
LAPIDARY_FN T add(T a, T b) {
  if constexpr (is_float<T>) {
    return a + b;
  } else {
    return static_cast<T>(static_cast<Wrapping<T>>(a) + static_cast<Wrapping<T>>(b));
  }
}
template <class T>
LAPIDARY_FN T sub(T a, T b) {
  if constexpr (is_float<T>) {
    return a - b;
  } else {
    return static_cast<T>(static_cast<Wrapping<T>>(a) - static_cast<Wrapping<T>>(b));
  }
}
template <class T>
LAPIDARY_FN T mul(T a, T b) {
  if constexpr (is_float<T>) {
    return a * b;
  } else {
    return static_cast<T>(static_cast<Wrapping<T>>(a) * static_cast<Wrapping<T>>(b));
  }
}
// Integers truncate; a zero divisor gives 0, the lowest integer over -1 wraps to itself.
template <class T>
LAPIDARY_FN T div(T a, T b) {
  if constexpr (is_float<T>) {
    return a / b;
  } else {
    if (b == 0) return 0;
    if constexpr (is_signed<T>) {
      if (b == static_cast<T>(-1)) return neg(a);
    }
    return static_cast<T>(a / b);
  }
}
// The sign of the dividend (C).
template <class T>
LAPIDARY_FN T fmod(T a, T b) {
  if constexpr (is_same<T, float>) {
    return ::fmodf(a, b);
  } else if constexpr (is_same<T, double>) {
    return ::fmod(a, b);
  } else {
    if (b == 0) return 0;
    if constexpr (is_signed<T>) {
      if (b == static_cast<T>(-1)) return 0;
    }
    return static_cast<T>(a % b);
  }
}
// The sign of the divisor (Python).
template <class T>
LAPIDARY_FN T mod(T a, T b) {
  const T r = fmod(a, b);
  if constexpr (is_same<T, float>) {
    if (r == 0.0f) return ::copysignf(0.0f, b);
    return (r < 0.0f) != (b < 0.0f) ? r + b : r;
  } else if constexpr (is_same<T, double>) {
    if (r == 0.0) return ::copysign(0.0, b);
    return (r < 0.0) != (b < 0.0) ? r + b : r;
  } else if constexpr (is_signed<T>) {
    return r != 0 && (r < 0) != (b < 0) ? static_cast<T>(r + b) : r;
  } else {
    return r;
  }
}

// An integer base with an integer exponent wraps; a negative exponent truncates the real result toward 0.
template <class T, class E>
LAPIDARY_FN T integer_pow(T base, E exponent) {
  if constexpr (is_signed<E>) {
    if (exponent < 0) {
      if (base == static_cast<T>(1)) return 1;
      if constexpr (is_signed<T>) {
        if (base == static_cast<T>(-1)) return (exponent & 1) != 0 ? static_cast<T>(-1) : static_cast<T>(1);
      }
      return 0;
    }
  }
  u64 e = static_cast<u64>(exponent);
  Wrapping<T> power = static_cast<Wrapping<T>>(base);
  Wrapping<T> result = 1;
  while (e != 0) {
    if ((e & 1) != 0) result *= power;
    power *= power;
    e >>= 1;
  }
  return static_cast<T>(result);
}
// The result has the base's type. Small exponents that programs hold as constants fold to products.
template <class T, class E>
LAPIDARY_FN T pow(T base, E exponent) {
  if constexpr (is_float<T>) {
    const T e = static_cast<T>(exponent);
    if (e == static_cast<T>(2)) return base * base;
    if (e == static_cast<T>(1)) return base;
    if (e == static_cast<T>(3)) return base * base * base;
    if constexpr (is_same<T, float>) {
      return ::powf(base, e);
    } else {
      return ::pow(base, e);
    }
  } else if constexpr (is_float<E>) {
    return cast<T>(::pow(static_cast<double>(base), static_cast<double>(exponent)));
  } else {
    return integer_pow(base, exponent);
  }
}

LAPIDARY_FN float min(float a, float b) {
  float r;
  asm("min.NaN.f32 %0, %1, %2;" : "=f"(r) : "f"(a), "f"(b));
  return r;
}
LAPIDARY_FN float max(float a, float b) {
  float r;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(r) : "f"(a), "f"(b));
  return r;
}
template <class T>
LAPIDARY_FN T min(T a, T b) {
  return isnan(a) || a < b ? a : b;
}
template <class T>
LAPIDARY_FN T max(T a, T b) {
  return isnan(a) || a > b ? a : b;
}

LAPIDARY_FN bool and_(bool a, bool b) { return a && b; }
LAPIDARY_FN bool or_(bool a, bool b) { return a || b; }
LAPIDARY_FN bool xor_(bool a, bool b) { return a != b; }
template <class T>
LAPIDARY_FN T bit_and(T a, T b) {
  return static_cast<T>(a & b);
}
template <class T>
LAPIDARY_FN T bit_or(T a, T b) {
  return static_cast<T>(a | b);
}
template <class T>
LAPIDARY_FN T bit_xor(T a, T b) {
  return static_cast<T>(a ^ b);
}
// A distance outside [0, bits) shifts everything out; a negative one is a large `u64`.
template <class T>
LAPIDARY_FN T shift_left(T a, T b) {
  const u64 distance = static_cast<u64>(b);
  return distance >= sizeof(T) * 8 ? static_cast<T>(0) : static_cast<T>(static_cast<Wrapping<T>>(a) << distance);
}
template <class T>
LAPIDARY_FN T shift_right(T a, T b) {
  const u64 distance = static_cast<u64>(b);
  if (distance >= sizeof(T) * 8) {
    if constexpr (is_signed<T>) {
      return a < 0 ? static_cast<T>(-1) : static_cast<T>(0);
    } else {
      return 0;
    }
  }
  return static_cast<T>(a >> distance);
}

template <class T>
LAPIDARY_FN bool equal(T a, T b) {
  return a == b;
}
template <class T>
LAPIDARY_FN bool not_equal(T a, T b) {
  return a != b;
}
template <class T>
LAPIDARY_FN bool less(T a, T b) {
  return a < b;
}
template <class T>
LAPIDARY_FN bool less_equal(T a, T b) {
  return a <= b;
}
template <class T>
LAPIDARY_FN bool greater(T a, T b) {
  return a > b;
}
template <class T>
LAPIDARY_FN bool greater_equal(T a, T b) {
  return a >= b;
}

template <class T>
LAPIDARY_FN T select(bool condition, T a, T b) {
  return condition ? a : b;
}

}  // namespace math
}  // namespace lapidary
