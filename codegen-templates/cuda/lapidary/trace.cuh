// trace.cuh - the device timestamp hook: when a launch's first CTA began and its last one ended.
//
// Off (the default) the macros expand to nothing. With LAPIDARY_TRACE defined each entry takes one
// more last parameter that points at two u64 in device memory: [0] earliest begin, [1] latest end,
// in %globaltimer nanoseconds. The host sets [0] to ~0 and [1] to 0 before the launch.
// An entry is written
//   extern "C" __global__ void k(const float* x, int n LAPIDARY_TRACE_PARAM) {
//     LAPIDARY_TRACE_BEGIN;
//     body(x, n);
//     LAPIDARY_TRACE_END;
//   }
// Every thread of the CTA must reach both macros (a body may return early, an entry may not).
#pragma once

namespace lapidary {

#ifdef LAPIDARY_TRACE
LAPIDARY_FN u64 global_timer() {
  u64 t;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(t)::"memory");
  return t;
}
LAPIDARY_FN bool is_first_thread() { return (threadIdx.x | threadIdx.y | threadIdx.z) == 0; }
LAPIDARY_FN void trace_begin(u64* trace) {
  if (is_first_thread()) atomicMin(trace, global_timer());
}
// The barrier makes the end that of the CTA's last thread.
LAPIDARY_FN void trace_end(u64* trace) {
  __syncthreads();
  if (is_first_thread()) atomicMax(trace + 1, global_timer());
}
#define LAPIDARY_TRACE_PARAM , lapidary::u64* lapidary_trace
#define LAPIDARY_TRACE_BEGIN lapidary::trace_begin(lapidary_trace)
#define LAPIDARY_TRACE_END lapidary::trace_end(lapidary_trace)
#else
#define LAPIDARY_TRACE_PARAM
#define LAPIDARY_TRACE_BEGIN
#define LAPIDARY_TRACE_END
#endif

}  // namespace lapidary
