// cp_async.cuh - asynchronous copies from global to shared memory (sm_80), and the plain shared
// memory accesses that go by 32-bit address.
//
// A copy of BYTES (4, 8 or 16) needs both addresses to be multiples of BYTES. `valid` is how many
// leading bytes are read; the rest of the destination becomes zero, and with valid == 0 the source
// is never touched, so its address may lie anywhere.
#pragma once
#include "lapidary/prelude.cuh"

namespace lapidary {

template <int BYTES>
LAPIDARY_FN void cp_async(u32 dst, const void* src, int valid) {
  static_assert(BYTES == 4 || BYTES == 8 || BYTES == 16, "cp.async moves 4, 8 or 16 bytes");
  // Only 16-byte copies may bypass L1 (.cg), which a tile read once per CTA should.
  if constexpr (BYTES == 16) {
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(dst),
                 "l"(__cvta_generic_to_global(src)), "r"(valid)
                 : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(dst),
                 "l"(__cvta_generic_to_global(src)), "n"(BYTES), "r"(valid)
                 : "memory");
  }
}
LAPIDARY_FN void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until at most PENDING of this thread's newest groups are still in flight.
template <int PENDING>
LAPIDARY_FN void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

LAPIDARY_FN void store_shared(u32 dst, u32 x) { asm volatile("st.shared.b32 [%0], %1;" ::"r"(dst), "r"(x) : "memory"); }
LAPIDARY_FN u32 load_shared(u32 src) {
  u32 r;
  asm volatile("ld.shared.b32 %0, [%1];" : "=r"(r) : "r"(src) : "memory");
  return r;
}

}  // namespace lapidary
