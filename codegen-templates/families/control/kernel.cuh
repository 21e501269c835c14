// control - branches and loops that a CUDA graph decides by itself.
//
// Contract: see README.md. These kernels run in graphs only: a handle belongs to a conditional node of the graph that the
// launch is part of.
#pragma once

#include "lapidary/wide.cuh"

// The driver's own function (CUDA C++ Programming Guide, "Conditional Graph Nodes"). It is linked when a module that
// names it is loaded, by drivers of CUDA 12.4 and later.
extern "C" __device__ void cudaGraphSetConditional(unsigned long long handle, unsigned int value);

namespace lapidary::control {

struct Branch {
  const u8* condition;
  u64 then_handle, else_handle;
};

// One thread: the branch that the condition names runs, the other does not.
template <class Policy>
LAPIDARY_FN void branch(const Branch& p) {
  const u32 taken = *p.condition != 0;
  cudaGraphSetConditional(p.then_handle, taken);
  cudaGraphSetConditional(p.else_handle, 1 - taken);
}

struct Rounds {
  // Null where the loop has none.
  const u8* condition;
  const i64* limit;
  i64* round;
  u64 handle;
  i64 most;
};

// One thread: counts the round, and asks for it if there is one more. FIRST stands before the loop, else in its body.
template <class Policy>
LAPIDARY_FN void rounds(const Rounds& p) {
  const i64 round = Policy::FIRST ? 0 : *p.round + 1;
  *p.round = round;
  const i64 most = p.limit != nullptr && *p.limit < p.most ? *p.limit : p.most;
  const bool again = round < most && (p.condition == nullptr || *p.condition != 0);
  cudaGraphSetConditional(p.handle, again);
}

struct Collect {
  const u8* row;
  u8* rows;
  const i64* round;
  i64 bytes;
};

// Copies what a round computed to its place behind what earlier rounds did, UNIT bytes at a time and the rest singly.
template <class Policy>
LAPIDARY_FN void collect(const Collect& p) {
  using Unit = Raw<Policy::UNIT>;
  u8* to = p.rows + *p.round * p.bytes;
  const i64 stride = static_cast<i64>(gridDim.x) * Policy::THREADS;
  const i64 thread = grid_thread<i64>();
  i64 units = 0;
  if (is_aligned(to, Policy::UNIT)) {
    units = p.bytes / Policy::UNIT;
    for (i64 k = thread; k < units; k += stride) {
      reinterpret_cast<Unit*>(to)[k] = reinterpret_cast<const Unit*>(p.row)[k];
    }
  }
  for (i64 k = units * Policy::UNIT + thread; k < p.bytes; k += stride) to[k] = p.row[k];
}

}  // namespace lapidary::control
