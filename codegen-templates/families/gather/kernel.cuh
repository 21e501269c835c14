// gather - elements and slices picked by index tensors: Gather, GatherElements, GatherND.
//
// Contract: see README.md. Data are raw bytes of 1, 2, 4, 8 or 16; indices are i32 or i64 and count from the end
// where negative. An index outside the axis, which ONNX leaves undefined, is clamped into it; an axis without elements
// gives zeros.
#pragma once

#include "lapidary/wide.cuh"

namespace lapidary::gather {

// ---------------------------------------------------------------------------------------------
// Gather: y[o, k, i] = x[o, indices[k], i].

struct Params {
  const void* x;
  const void* indices;
  void* y;
  i64 outer, axis, inner;
  // Elements of `indices`.
  i64 count;
};

// VEC elements of the inner extent a thread and step; VEC divides it.
template <class Policy>
LAPIDARY_FN void run(const Params& p) {
  using Index = typename Policy::Index;
  using Element = Raw<Policy::ELEMENT>;
  using I = typename Policy::Indices;
  constexpr int VEC = Policy::VEC;
  const Index dims[3] = {static_cast<Index>(p.outer), static_cast<Index>(p.count), static_cast<Index>(p.inner / VEC)};
  const Index total = product<3>(dims);
  for (Index linear = grid_thread<Index>(); linear < total; linear += grid_threads<Index>()) {
    Index at[3];
    unravel<3>(linear, dims, at);
    const i64 k = position(static_cast<const I*>(p.indices)[at[1]], p.axis);
    Element values[VEC] = {};
    if (p.axis > 0)
      load_wide<Element, VEC>(static_cast<const Element*>(p.x) + (at[0] * p.axis + k) * p.inner + at[2] * VEC, values);
    store_wide<Element, VEC>(static_cast<Element*>(p.y) + static_cast<i64>(linear) * VEC, values);
  }
}

// ---------------------------------------------------------------------------------------------
// GatherElements: y has the indices' shape; y[.., i_axis, ..] = x[.., indices[.., i_axis, ..], ..].

template <class Policy>
struct ElementsParams {
  const void* x;
  const void* indices;
  void* y;
  // The shape of indices and y.
  typename Policy::Index dims[Policy::RANK];
  // Of x, in elements.
  typename Policy::Index x_strides[Policy::RANK];
  // The extent of x along the axis.
  i64 axis;
};

template <class Policy>
LAPIDARY_FN void elements(const ElementsParams<Policy>& p) {
  using Index = typename Policy::Index;
  using Element = Raw<Policy::ELEMENT>;
  using I = typename Policy::Indices;
  const Index total = product<Policy::RANK>(p.dims);
  for (Index linear = grid_thread<Index>(); linear < total; linear += grid_threads<Index>()) {
    Index at[Policy::RANK];
    unravel<Policy::RANK>(linear, p.dims, at);
    at[Policy::AXIS] = static_cast<Index>(position(static_cast<const I*>(p.indices)[linear], p.axis));
    Element value = {};
    if (p.axis > 0) value = static_cast<const Element*>(p.x)[dot<Policy::RANK>(at, p.x_strides)];
    static_cast<Element*>(p.y)[linear] = value;
  }
}

// ---------------------------------------------------------------------------------------------
// GatherND: x [batch, dims.., inner], indices [batch, count, DEPTH], y [batch, count, inner].

template <class Policy>
struct NdParams {
  const void* x;
  const void* indices;
  void* y;
  i64 batch, count, inner;
  // The extents that an index tuple addresses.
  i64 dims[Policy::DEPTH];
};

template <class Policy>
LAPIDARY_FN void nd(const NdParams<Policy>& p) {
  using Index = typename Policy::Index;
  using Element = Raw<Policy::ELEMENT>;
  using I = typename Policy::Indices;
  constexpr int VEC = Policy::VEC;
  const Index dims[3] = {static_cast<Index>(p.batch), static_cast<Index>(p.count), static_cast<Index>(p.inner / VEC)};
  const Index total = product<3>(dims);
  for (Index linear = grid_thread<Index>(); linear < total; linear += grid_threads<Index>()) {
    Index at[3];
    unravel<3>(linear, dims, at);
    const I* tuple = static_cast<const I*>(p.indices) + (at[0] * p.count + at[1]) * Policy::DEPTH;
    i64 from = at[0];
    bool some = true;
#pragma unroll
    for (int d = 0; d < Policy::DEPTH; ++d) {
      from = from * p.dims[d] + position(tuple[d], p.dims[d]);
      some = some && p.dims[d] > 0;
    }
    Element values[VEC] = {};
    if (some) load_wide<Element, VEC>(static_cast<const Element*>(p.x) + from * p.inner + at[2] * VEC, values);
    store_wide<Element, VEC>(static_cast<Element*>(p.y) + static_cast<i64>(linear) * VEC, values);
  }
}

}  // namespace lapidary::gather
