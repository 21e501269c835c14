// mma.cuh - warp-level tensor core instructions of sm_80: ldmatrix and mma.sync; sums are FP32, those
// of bytes i32.
//
// Fragment layout (PTX ISA, "Matrix fragments for mma.m16n8k16"; the k8 tf32 form has the same shape
// in 32-bit words). With g = lane / 4 and t = lane % 4:
//   A (row-major)  a[0] row g,   a[1] row g + 8, a[2] row g, right half of k, a[3] row g + 8, right
//   B (col-major)  b[0] column g, top half of k, b[1] bottom half
//   C              c[0], c[1] row g, columns 2t, 2t + 1;  c[2], c[3] row g + 8
// The k32 form of bytes has it too, four bytes along k in each word ("mma.m16n8k32").
#pragma once
#include "lapidary/prelude.cuh"

namespace lapidary {

// Four 8x8 matrices of b16 (or 8x4 of b32): lane i gives the address of row i % 8 of matrix i / 8.
LAPIDARY_FN void ldmatrix_x4(u32 (&r)[4], u32 row_address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(row_address)
               : "memory");
}
LAPIDARY_FN void ldmatrix_x4_trans(u32 (&r)[4], u32 row_address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(row_address)
               : "memory");
}

// The float in a register rounded to TF32, half away from zero, as mma expects it.
LAPIDARY_FN u32 round_to_tf32(u32 x) {
  u32 r;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(r) : "f"(__uint_as_float(x)));
  return r;
}

// c += a * b for one m16n8 tile; k is 16 for f16 and bf16, 8 for tf32.
template <class T>
LAPIDARY_FN void mma(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
  static_assert(is_half<T> || is_same<T, tf32>, "mma takes f16, bf16 or tf32");
  if constexpr (is_same<T, f16>) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  } else if constexpr (is_same<T, bf16>) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  } else {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
}

// c += a * b for one m16n8k32 tile of bytes, each side of its own sign. Sums wrap.
#define LAPIDARY_MMA_BYTES(A_TYPE, B_TYPE)                                                                              \
  asm volatile("mma.sync.aligned.m16n8k32.row.col.s32." A_TYPE "." B_TYPE ".s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, " \
               "{%0,%1,%2,%3};"                                                                                         \
               : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])                                                         \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1))
template <class TA, class TB>
LAPIDARY_FN void mma(int (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
  if constexpr (is_same<TA, i8> && is_same<TB, i8>) {
    LAPIDARY_MMA_BYTES("s8", "s8");
  } else if constexpr (is_same<TA, i8>) {
    LAPIDARY_MMA_BYTES("s8", "u8");
  } else if constexpr (is_same<TB, i8>) {
    LAPIDARY_MMA_BYTES("u8", "s8");
  } else {
    LAPIDARY_MMA_BYTES("u8", "u8");
  }
}
#undef LAPIDARY_MMA_BYTES

// A 4 x 4 square of bytes with rows and columns exchanged: byte r of word c was byte c of word r.
LAPIDARY_FN void transpose_bytes(u32 (&w)[4]) {
  const u32 even01 = __byte_perm(w[0], w[1], 0x5140), odd01 = __byte_perm(w[0], w[1], 0x7362);
  const u32 even23 = __byte_perm(w[2], w[3], 0x5140), odd23 = __byte_perm(w[2], w[3], 0x7362);
  w[0] = __byte_perm(even01, even23, 0x5410);
  w[1] = __byte_perm(even01, even23, 0x7632);
  w[2] = __byte_perm(odd01, odd23, 0x5410);
  w[3] = __byte_perm(odd01, odd23, 0x7632);
}

}  // namespace lapidary
