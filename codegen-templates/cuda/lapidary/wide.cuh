// wide.cuh - moving several consecutive elements at once, and taking linear indices apart.
//
// Contract: N is a power of two. N elements move in instructions of at most 16 bytes, so the address must be a
// multiple of min(16, N * sizeof(T)); the compiler that chose N has proved it. N == 1 asks for nothing. Packed elements
// lie in their bytes from the low bits up, and only whole bytes are written.
#pragma once

#include "lapidary/math.cuh"

namespace lapidary {

// The elements of one instruction.
template <class T, int N>
inline constexpr int piece_of = N * int(sizeof(T)) <= 16 ? N : 16 / int(sizeof(T));

template <class T, int N>
LAPIDARY_FN void load_wide(const T* p, T (&x)[N]) {
  constexpr int P = piece_of<T, N>;
#pragma unroll
  for (int i = 0; i < N; i += P) {
    const Vec<T, P> piece = load<T, P>(p + i);
#pragma unroll
    for (int j = 0; j < P; ++j) x[i + j] = piece[j];
  }
}
template <class T, int N>
LAPIDARY_FN void store_wide(T* p, const T (&x)[N]) {
  constexpr int P = piece_of<T, N>;
#pragma unroll
  for (int i = 0; i < N; i += P) {
    Vec<T, P> piece;
#pragma unroll
    for (int j = 0; j < P; ++j) piece[j] = x[i + j];
    store<T, P>(p + i, piece);
  }
}

// N elements of dtype T as compute values.
template <class T, int N>
LAPIDARY_FN void load_values(const Memory<T>* p, Compute<T> (&x)[N]) {
  Memory<T> raw[N];
  load_wide<Memory<T>, N>(p, raw);
#pragma unroll
  for (int i = 0; i < N; ++i) x[i] = widen<T>(raw[i]);
}
template <class T, int N>
LAPIDARY_FN void store_values(Memory<T>* p, const Compute<T> (&x)[N]) {
  Memory<T> raw[N];
#pragma unroll
  for (int i = 0; i < N; ++i) raw[i] = narrow<T>(x[i]);
  store_wide<Memory<T>, N>(p, raw);
}

// N elements of dtype T from element `at` of a tensor on, a multiple of N, as compute values.
template <class T, int N, class Index>
LAPIDARY_FN void load_elements(const Memory<T>* x, Index at, Compute<T> (&values)[N]) {
  if constexpr (is_packed<T>) {
    constexpr int BITS = packed_bits<T>, PER_BYTE = per_byte<T>, BYTES = N > PER_BYTE ? N / PER_BYTE : 1;
    u8 bytes[BYTES];
    load_wide<u8, BYTES>(x + at / PER_BYTE, bytes);
    // Fewer than fill a byte are somewhere in it.
    const int first = N < PER_BYTE ? static_cast<int>(at % PER_BYTE) : 0;
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const u32 byte = bytes[i / PER_BYTE];
      values[i] = value_of<T>(byte >> ((first + i % PER_BYTE) * BITS) & ((1u << BITS) - 1));
    }
  } else {
    load_values<T, N>(x + at, values);
  }
}
// The byte of a packed tensor that holds elements first .. of these, of which there are `count`; zeros are beyond.
template <class T, int N>
LAPIDARY_FN u8 packed_byte(const Compute<T> (&values)[N], int first, int count) {
  u32 byte = 0;
#pragma unroll
  for (int i = 0; i < per_byte<T>; ++i) {
    if (first + i < count) byte |= code_of<T>(values[first + i]) << (i * packed_bits<T>);
  }
  return static_cast<u8>(byte);
}
// N elements from element `at` on, a multiple of N. Those of a packed type are whole bytes.
template <class T, int N, class Index>
LAPIDARY_FN void store_elements(Memory<T>* y, Index at, const Compute<T> (&values)[N]) {
  if constexpr (is_packed<T>) {
    static_assert(N % per_byte<T> == 0, "elements of a byte are written together");
    constexpr int BYTES = N / per_byte<T>;
    u8 bytes[BYTES];
#pragma unroll
    for (int i = 0; i < BYTES; ++i) bytes[i] = packed_byte<T, N>(values, i * per_byte<T>, N);
    store_wide<u8, BYTES>(y + at / per_byte<T>, bytes);
  } else {
    store_values<T, N>(y + at, values);
  }
}
// The first `count` of them, the tensor's last ones if there are fewer than N.
template <class T, int N, class Index>
LAPIDARY_FN void store_first(Memory<T>* y, Index at, const Compute<T> (&values)[N], int count) {
#pragma unroll
  for (int i = 0; i < N; i += per_byte<T>) {
    if (i >= count) continue;
    if constexpr (is_packed<T>) {
      y[at / per_byte<T> + i / per_byte<T>] = packed_byte<T, N>(values, i, count);
    } else {
      y[at + i] = narrow<T>(values[i]);
    }
  }
}

// quotient and remainder of non-negative operands; 64-bit ones take the 32-bit way where they fit.
LAPIDARY_FN void divide(i32 a, i32 b, i32& quotient, i32& remainder) {
  quotient = static_cast<i32>(static_cast<u32>(a) / static_cast<u32>(b));
  remainder = a - quotient * b;
}
LAPIDARY_FN void divide(i64 a, i64 b, i64& quotient, i64& remainder) {
  if (((a | b) >> 32) == 0) {
    quotient = static_cast<i64>(static_cast<u32>(a) / static_cast<u32>(b));
  } else {
    quotient = a / b;
  }
  remainder = a - quotient * b;
}

// Where an index points along an axis of `extent` elements: it counts from the end where it is negative, and is clamped into
// the axis where it is outside.
template <class I>
LAPIDARY_FN i64 position(I index, i64 extent) {
  i64 i = static_cast<i64>(index);
  i = i < 0 ? i + extent : i;
  return lapidary::min(lapidary::max<i64>(i, 0), extent - 1);
}

// coordinates[d] of the row-major position `linear` in dims; coordinate 0 takes what is left.
template <int RANK, class Index>
LAPIDARY_FN void unravel(Index linear, const Index (&dims)[RANK], Index (&coordinates)[RANK]) {
#pragma unroll
  for (int d = RANK - 1; d > 0; --d) {
    Index quotient;
    divide(linear, dims[d], quotient, coordinates[d]);
    linear = quotient;
  }
  coordinates[0] = linear;
}
template <int RANK, class Index>
LAPIDARY_FN Index dot(const Index (&a)[RANK], const Index (&b)[RANK]) {
  Index sum = 0;
#pragma unroll
  for (int d = 0; d < RANK; ++d) sum += a[d] * b[d];
  return sum;
}
template <int RANK, class Index>
LAPIDARY_FN Index product(const Index (&dims)[RANK]) {
  Index n = 1;
#pragma unroll
  for (int d = 0; d < RANK; ++d) n *= dims[d];
  return n;
}

// This thread's number in the grid and the number of threads, one-dimensional launches.
template <class Index>
LAPIDARY_FN Index grid_thread() {
  return static_cast<Index>(blockIdx.x) * static_cast<Index>(blockDim.x) + static_cast<Index>(threadIdx.x);
}
template <class Index>
LAPIDARY_FN Index grid_threads() {
  return static_cast<Index>(gridDim.x) * static_cast<Index>(blockDim.x);
}

}  // namespace lapidary
