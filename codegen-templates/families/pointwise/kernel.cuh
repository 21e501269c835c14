// pointwise - the frame around a generated program: reads each input through its view, runs the program on every
// element of the output's shape, writes the outputs contiguously.
//
// Contract: see README.md. The program is pure scalar code on compute types (lapidary/math.cuh); the frame owns
// every load, store, conversion and index. An output may be written over an input of the same dtype whose access
// is LINEAR; other overlaps are not allowed. A thread writes whole bytes: elements of packed outputs that share one go
// together, whatever rows they are of.
#pragma once

#include "lapidary/wide.cuh"

namespace lapidary {

// A list of dtypes.
template <class... Ts>
struct Types {
  static constexpr int count = int(sizeof...(Ts));
};

namespace pointwise {

// How an input's view lies against the output's.
enum class Access {
  LINEAR,   // the output's own shape, contiguous
  SCALAR,   // one element
  INNER,    // any outer strides, innermost stride 1
  SPLAT,    // any outer strides, innermost stride 0
  STRIDED,  // any strides
  ROWS,     // any outer strides, innermost stride 1, in the row that an index picks
};

template <int I, class List>
struct TypeAt;
template <int I, class T, class... Ts>
struct TypeAt<I, Types<T, Ts...>> {
  using type = typename TypeAt<I - 1, Types<Ts...>>::type;
};
template <class T, class... Ts>
struct TypeAt<0, Types<T, Ts...>> {
  using type = T;
};
template <int I, class List>
using type_at = typename TypeAt<I, List>::type;

template <int... I>
struct Indices {};
template <int N, int... I>
struct MakeIndices : MakeIndices<N - 1, N - 1, I...> {};
template <int... I>
struct MakeIndices<0, I...> {
  using type = Indices<I...>;
};

// N values of each dtype of a list.
template <int N, class List>
struct Registers;
template <int N>
struct Registers<N, Types<>> {};
template <int N, class T, class... Ts>
struct Registers<N, Types<T, Ts...>> {
  Compute<T> values[N];
  Registers<N, Types<Ts...>> rest;

  template <int I>
  LAPIDARY_FN auto& at() {
    if constexpr (I == 0) {
      return values;
    } else {
      return rest.template at<I - 1>();
    }
  }
};

// How many consecutive elements a thread must write for each output to get whole bytes.
template <class List>
inline constexpr int group_of = 1;
template <class T, class... Ts>
inline constexpr int group_of<Types<T, Ts...>> =
    per_byte<T> > group_of<Types<Ts...>> ? per_byte<T> : group_of<Types<Ts...>>;

constexpr int at_least_one(int n) { return n > 0 ? n : 1; }

template <class Policy, class Program>
struct Params {
  const void* x[at_least_one(Program::Inputs::count)];
  void* y[Program::Outputs::count];
  // The output's extents, outermost first.
  typename Policy::Index dims[Policy::RANK];
  // In elements; not read for LINEAR and SCALAR inputs.
  typename Policy::Index strides[at_least_one(Program::Inputs::count)][Policy::RANK];
  // Of ROWS inputs: the indices, their strides, and in elements how far rows lie apart, and how many there are.
  const void* rows[at_least_one(Program::Inputs::count)];
  typename Policy::Index row_strides[at_least_one(Program::Inputs::count)][Policy::RANK];
  i64 row_stride[at_least_one(Program::Inputs::count)];
  i64 row_count[at_least_one(Program::Inputs::count)];
};

template <class Policy, class Program>
struct Frame {
  using Index = typename Policy::Index;
  using Inputs = typename Program::Inputs;
  using Outputs = typename Program::Outputs;
  using P = Params<Policy, Program>;
  static constexpr int RANK = Policy::RANK;
  static constexpr int VEC = Policy::VEC;
  static constexpr int GROUP = group_of<Outputs>;
  static_assert(VEC == 1 || VEC % GROUP == 0, "elements of a byte are written together");

  template <int I>
  static LAPIDARY_FN const Memory<type_at<I, Inputs>>* input(const P& p) {
    return static_cast<const Memory<type_at<I, Inputs>>*>(p.x[I]);
  }

  // Where the row of a ROWS input begins that its index picks.
  template <int I>
  static LAPIDARY_FN i64 row_start(const P& p, const Index (&at)[RANK]) {
    using Rows = typename Policy::Rows;
    const Rows row = static_cast<const Rows*>(p.rows[I])[dot<RANK>(at, p.row_strides[I])];
    return position(row, p.row_count[I]) * p.row_stride[I];
  }

  static LAPIDARY_FN void load_scalars(const P& p, Registers<1, Inputs>& scalars) {
    // The registers of no inputs have no member that the lambda could name.
    if constexpr (Inputs::count > 0) {
      static_for<Inputs::count>([&](auto i) {
        constexpr int I = decltype(i)::value;
        if constexpr (Policy::access[I] == Access::SCALAR) {
          load_elements<type_at<I, Inputs>, 1>(input<I>(p), Index(0), scalars.template at<I>());
        }
      });
    }
  }

  // The N elements that begin at the output's position `linear`.
  template <int N>
  static LAPIDARY_FN void load(const P& p, Registers<1, Inputs>& scalars, Index linear, const Index (&at)[RANK],
                               Registers<N, Inputs>& in) {
    if constexpr (Inputs::count > 0) {
      static_for<Inputs::count>([&](auto i) {
        constexpr int I = decltype(i)::value;
        using T = type_at<I, Inputs>;
        constexpr Access access = Policy::access[I];
        auto& values = in.template at<I>();
        if constexpr (access == Access::SCALAR) {
#pragma unroll
          for (int e = 0; e < N; ++e) values[e] = scalars.template at<I>()[0];
        } else if constexpr (access == Access::LINEAR) {
          load_elements<T, N>(input<I>(p), linear, values);
        } else if constexpr (access == Access::ROWS) {
          load_elements<T, N>(input<I>(p), dot<RANK>(at, p.strides[I]) + row_start<I>(p, at), values);
        } else {
          const Index first = dot<RANK>(at, p.strides[I]);
          if constexpr (access == Access::INNER) {
            load_elements<T, N>(input<I>(p), first, values);
          } else {
            Compute<T> value[1];
            load_elements<T, 1>(input<I>(p), first, value);
            values[0] = value[0];
#pragma unroll
            for (int e = 1; e < N; ++e) {
              if constexpr (access == Access::STRIDED) {
                load_elements<T, 1>(input<I>(p), first + e * p.strides[I][RANK - 1], value);
              }
              values[e] = value[0];
            }
          }
        }
      });
    }
  }

  template <int N, int... I, int... O>
  static LAPIDARY_FN void step(Registers<N, Inputs>& in, Registers<N, Outputs>& out, Indices<I...>, Indices<O...>) {
#pragma unroll
    for (int e = 0; e < N; ++e) Program::step(in.template at<I>()[e]..., out.template at<O>()[e]...);
  }

  template <int N>
  static LAPIDARY_FN void finish(const P& p, Index linear, Registers<N, Inputs>& in) {
    Registers<N, Outputs> out;
    step<N>(in, out, typename MakeIndices<Inputs::count>::type{}, typename MakeIndices<Outputs::count>::type{});
    static_for<Outputs::count>([&](auto o) {
      constexpr int O = decltype(o)::value;
      using T = type_at<O, Outputs>;
      store_elements<T, N>(static_cast<Memory<T>*>(p.y[O]), linear, out.template at<O>());
    });
  }

  // GROUP elements from `linear` on one by one, fewer where the output of `count` elements ends.
  static LAPIDARY_FN void finish_group(const P& p, Registers<1, Inputs>& scalars, Index linear, Index count) {
    Registers<GROUP, Inputs> in;
    const int left = static_cast<int>(lapidary::min(count - linear, Index(GROUP)));
#pragma unroll
    for (int e = 0; e < GROUP; ++e) {
      // Past the end the last element stands in: it can be read, and is not written.
      const Index position = linear + lapidary::min(e, left - 1);
      Index at[RANK];
      unravel<RANK>(position, p.dims, at);
      Registers<1, Inputs> one;
      load<1>(p, scalars, position, at, one);
      if constexpr (Inputs::count > 0) {
        static_for<Inputs::count>([&](auto i) {
          constexpr int I = decltype(i)::value;
          in.template at<I>()[e] = one.template at<I>()[0];
        });
      }
    }
    Registers<GROUP, Outputs> out;
    step<GROUP>(in, out, typename MakeIndices<Inputs::count>::type{}, typename MakeIndices<Outputs::count>::type{});
    static_for<Outputs::count>([&](auto o) {
      constexpr int O = decltype(o)::value;
      using T = type_at<O, Outputs>;
      store_first<T, GROUP>(static_cast<Memory<T>*>(p.y[O]), linear, out.template at<O>(), left);
    });
  }

  // For rows that are no multiple of a group.
  static LAPIDARY_FN void run_groups(const P& p) {
    Registers<1, Inputs> scalars;
    load_scalars(p, scalars);
    const Index count = product<RANK>(p.dims);
    const Index stride = grid_threads<Index>() * GROUP;
    for (Index linear = grid_thread<Index>() * GROUP; linear < count; linear += stride) {
      finish_group(p, scalars, linear, count);
    }
  }

  static LAPIDARY_FN void run(const P& p) {
    Registers<1, Inputs> scalars;
    load_scalars(p, scalars);
    Index chunk_dims[RANK];
#pragma unroll
    for (int d = 0; d < RANK; ++d) chunk_dims[d] = p.dims[d];
    chunk_dims[RANK - 1] /= VEC;
    const Index chunks = product<RANK>(chunk_dims);
    const Index stride = static_cast<Index>(gridDim.x) * (Policy::THREADS * Policy::UNROLL);
    for (Index first = static_cast<Index>(blockIdx.x) * (Policy::THREADS * Policy::UNROLL) + threadIdx.x;
         first < chunks; first += stride) {
      Registers<VEC, Inputs> in[Policy::UNROLL];
#pragma unroll
      for (int u = 0; u < Policy::UNROLL; ++u) {
        const Index chunk = first + u * Policy::THREADS;
        if (chunk < chunks) {
          Index at[RANK];
          unravel<RANK>(chunk, chunk_dims, at);
          at[RANK - 1] *= VEC;
          load<VEC>(p, scalars, chunk * VEC, at, in[u]);
        }
      }
#pragma unroll
      for (int u = 0; u < Policy::UNROLL; ++u) {
        const Index chunk = first + u * Policy::THREADS;
        if (chunk < chunks) finish<VEC>(p, chunk * VEC, in[u]);
      }
    }
    if constexpr (RANK == 1 && VEC > 1) {
      const Index linear = chunks * VEC + grid_thread<Index>() * GROUP;
      if (linear < p.dims[0]) finish_group(p, scalars, linear, p.dims[0]);
    }
  }
};

template <class Policy, class Program>
LAPIDARY_FN void run(const Params<Policy, Program>& p) {
  using F = Frame<Policy, Program>;
  if constexpr (F::VEC < F::GROUP) {
    F::run_groups(p);
  } else {
    F::run(p);
  }
}

}  // namespace pointwise
}  // namespace lapidary
