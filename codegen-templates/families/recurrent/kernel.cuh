// recurrent - LSTM, GRU and RNN over a whole sequence in one launch.
//
// Contract: see README.md. One CTA walks the time steps of one direction and BATCH sequences; their state stays
// in shared memory. The products of inputs and W come in precomputed; R is read from shared memory or L2. State
// and sums are f32 (f64 for f64).
#pragma once

#include "lapidary/wide.cuh"

namespace lapidary::recurrent {

enum class Cell { LSTM, GRU, RNN };
enum class Direction { FORWARD, REVERSE, BIDIRECTIONAL };
enum class Activation {
  SIGMOID,
  TANH,
  RELU,
  AFFINE,
  LEAKY_RELU,
  THRESHOLDED_RELU,
  SCALED_TANH,
  HARD_SIGMOID,
  ELU,
  SOFTSIGN,
  SOFTPLUS,
};

template <Activation KIND, class S>
LAPIDARY_FN S activate(S x, S alpha, S beta) {
  const S zero = 0, one = 1;
  if constexpr (KIND == Activation::SIGMOID) {
    return math::sigmoid(x);
  } else if constexpr (KIND == Activation::TANH) {
    return math::tanh(x);
  } else if constexpr (KIND == Activation::RELU) {
    return math::max(x, zero);
  } else if constexpr (KIND == Activation::AFFINE) {
    return alpha * x + beta;
  } else if constexpr (KIND == Activation::LEAKY_RELU) {
    return x >= zero ? x : alpha * x;
  } else if constexpr (KIND == Activation::THRESHOLDED_RELU) {
    return x > alpha ? x : zero;
  } else if constexpr (KIND == Activation::SCALED_TANH) {
    return alpha * math::tanh(beta * x);
  } else if constexpr (KIND == Activation::HARD_SIGMOID) {
    return math::min(math::max(alpha * x + beta, zero), one);
  } else if constexpr (KIND == Activation::ELU) {
    return x >= zero ? x : alpha * math::expm1(x);
  } else if constexpr (KIND == Activation::SOFTSIGN) {
    return x / (one + math::abs(x));
  } else {
    return math::softplus(x);
  }
}

constexpr int gates_of(Cell cell) { return cell == Cell::LSTM ? 4 : cell == Cell::GRU ? 3 : 1; }
// Vectors of `hidden` elements that a sequence keeps in shared memory: h, the gates, and c or a scratch vector.
constexpr int vectors_of(Cell cell) { return cell == Cell::RNN ? 2 : gates_of(cell) + 2; }

template <class Policy>
struct Params {
  // x W^T: element (t, b, dir, gate, j) at t * xw_seq + b * xw_batch + (dir * gates + gate) * hidden + j.
  const void* xw;
  const void* r;             // [dirs, gates * hidden, hidden]
  const void* bias;          // [dirs, 2 * gates * hidden], or null
  const i32* sequence_lens;  // [batch], or null
  const void* initial_h;     // states: element (dir, b, j) at dir * state_dir + b * state_batch + j; or null
  const void* initial_c;
  const void* peepholes;  // [dirs, 3 * hidden] in the order i, o, f; or null
  void* y;                // element (t, dir, b, j) at t * y_seq + dir * y_dir + b * y_batch + j; or null
  void* y_h;
  void* y_c;
  i64 seq, batch, hidden;
  i64 xw_seq, xw_batch;
  i64 y_seq, y_dir, y_batch;
  i64 state_dir, state_batch;
  float clip;
};

template <class Policy>
struct Layer {
  using T = typename Policy::T;
  using M = Memory<T>;
  using S = Compute<T>;
  using XW = typename Policy::XW;
  static constexpr Cell CELL = Policy::CELL;
  static constexpr int GATES = gates_of(CELL), BATCH = Policy::BATCH, VEC = Policy::VEC, ROWS = 4;
  static constexpr int VECTORS = vectors_of(CELL);
  static constexpr int WARPS = Policy::THREADS / 32;

  const Params<Policy>& p;
  int hidden, padded, dir;
  i64 first;  // this CTA's first sequence
  const M* r;
  S *h, *c, *gates, *scratch;
  int* length;

  // A vector of sequence b.
  LAPIDARY_FN S& of(S* vectors, int b, int j) const { return vectors[b * padded + j]; }
  LAPIDARY_FN S& gate(int b, int row) const { return gates[b * GATES * padded + row]; }
  LAPIDARY_FN bool reverse() const {
    return Policy::DIRECTION == Direction::REVERSE || (Policy::DIRECTION == Direction::BIDIRECTIONAL && dir == 1);
  }
  // The time step that sequence b is at; past its end, the position to fill with zeros.
  LAPIDARY_FN i64 time(int b, i64 step) const {
    return reverse() && step < length[b] ? length[b] - 1 - step : step;
  }
  LAPIDARY_FN S bias(int part, int row) const {
    if (p.bias == nullptr) return 0;
    const i64 at = static_cast<i64>(dir * 2 + part) * GATES * hidden + row;
    return static_cast<S>(widen<T>(static_cast<const M*>(p.bias)[at]));
  }
  LAPIDARY_FN S projected(int b, i64 step, int row) const {
    const i64 at = time(b, step) * p.xw_seq + (first + b) * p.xw_batch + static_cast<i64>(dir) * GATES * hidden + row;
    return static_cast<S>(widen<XW>(static_cast<const Memory<XW>*>(p.xw)[at]));
  }
  template <int SLOT>
  LAPIDARY_FN S activation(S x) const {
    if constexpr (Policy::HAS_CLIP) x = math::min(math::max(x, static_cast<S>(-p.clip)), static_cast<S>(p.clip));
    constexpr int OTHER = Policy::DIRECTION == Direction::BIDIRECTIONAL ? SLOT + 3 : SLOT;
    // As constants: nvcc keeps no host array for the device to read.
    constexpr float alpha = Policy::alphas[SLOT], beta = Policy::betas[SLOT];
    constexpr float other_alpha = Policy::alphas[OTHER], other_beta = Policy::betas[OTHER];
    if (dir == 0) return activate<Policy::activations[SLOT], S>(x, alpha, beta);
    return activate<Policy::activations[OTHER], S>(x, other_alpha, other_beta);
  }
  LAPIDARY_FN S peephole(int gate, int j) const {
    return static_cast<S>(widen<T>(static_cast<const M*>(p.peepholes)[(static_cast<i64>(dir) * 3 + gate) * hidden + j]));
  }

  // gates[b][row] = R[row] . v[b] + what `offset(b, row)` adds, for rows begin .. end; ROWS rows a warp at a time.
  template <class Offset>
  LAPIDARY_FN void products(const S* v, int begin, int end, Offset offset) const {
    const int lane = lane_id();
    for (int row0 = begin + static_cast<int>(threadIdx.x) / 32 * ROWS; row0 < end; row0 += WARPS * ROWS) {
      // Lane b * ROWS + i finishes row i of sequence b: it fetches its summand ahead of the products.
      constexpr int PASSES = (ROWS * BATCH + 31) / 32;
      S extra[PASSES];
#pragma unroll
      for (int q = 0; q < PASSES; ++q) {
        const int item = q * 32 + lane, b = item / ROWS, row = row0 + item % ROWS;
        extra[q] = b < BATCH && first + b < p.batch && row < end ? offset(b, row) : static_cast<S>(0);
      }
      S sums[ROWS][BATCH] = {};
      for (int k = lane * VEC; k < hidden; k += 32 * VEC) {
        S state[BATCH][VEC];
#pragma unroll
        for (int b = 0; b < BATCH; ++b) load_wide<S, VEC>(v + b * padded + k, state[b]);
#pragma unroll
        for (int i = 0; i < ROWS; ++i) {
          Compute<T> weights[VEC];
          const int row = lapidary::min(row0 + i, end - 1);
          load_values<T, VEC>(r + static_cast<i64>(row) * hidden + k, weights);
#pragma unroll
          for (int b = 0; b < BATCH; ++b) {
#pragma unroll
            for (int e = 0; e < VEC; ++e) sums[i][b] += static_cast<S>(weights[e]) * state[b][e];
          }
        }
      }
#pragma unroll
      for (int i = 0; i < ROWS; ++i) {
#pragma unroll
        for (int b = 0; b < BATCH; ++b) {
#pragma unroll
          for (int mask = 16; mask > 0; mask /= 2) sums[i][b] += __shfl_xor_sync(0xffffffffu, sums[i][b], mask);
          constexpr int LANES = 32;
          const int item = b * ROWS + i;
          if (lane == item % LANES && row0 + i < end) gate(b, row0 + i) = sums[i][b] + extra[item / LANES];
        }
      }
    }
  }

  // Calls use(b, j) for the elements of all sequences that are inside the batch.
  template <class Use>
  LAPIDARY_FN void each(Use use) const {
    for (int i = threadIdx.x; i < BATCH * hidden; i += Policy::THREADS) {
      const int b = i / hidden;
      if (first + b < p.batch) use(b, i % hidden);
    }
  }

  // Sets h[b][j], and the output of step `step`; a sequence past its end keeps its state.
  LAPIDARY_FN void put(int b, int j, i64 step, S value) const {
    const bool live = step < length[b];
    if (live) of(h, b, j) = value;
    if (p.y != nullptr) {
      const i64 at = time(b, step) * p.y_seq + dir * p.y_dir + (first + b) * p.y_batch + j;
      static_cast<M*>(p.y)[at] = narrow<T>(live ? static_cast<Compute<T>>(value) : static_cast<Compute<T>>(0));
    }
  }

  LAPIDARY_FN void lstm_step(i64 step) const {
    products(h, 0, 4 * hidden, [&](int b, int row) { return projected(b, step, row) + bias(0, row) + bias(1, row); });
    __syncthreads();
    each([&](int b, int j) {
      const S old = of(c, b, j);
      S input = gate(b, j), output = gate(b, hidden + j), forget = gate(b, 2 * hidden + j);
      const S candidate = activation<1>(gate(b, 3 * hidden + j));
      if (p.peepholes != nullptr) input += peephole(0, j) * old;
      input = activation<0>(input);
      if constexpr (Policy::INPUT_FORGET) {
        forget = static_cast<S>(1) - input;
      } else {
        if (p.peepholes != nullptr) forget += peephole(2, j) * old;
        forget = activation<0>(forget);
      }
      const S fresh = forget * old + input * candidate;
      if (p.peepholes != nullptr) output += peephole(1, j) * fresh;
      output = activation<0>(output);
      if (step < length[b]) of(c, b, j) = fresh;
      put(b, j, step, output * activation<2>(fresh));
    });
    __syncthreads();
  }

  // scratch: the input's part of the candidate (linear_before_reset), or the reset state.
  LAPIDARY_FN void gru_step(i64 step) const {
    const auto both = [&](int b, int row) { return projected(b, step, row) + bias(0, row) + bias(1, row); };
    if constexpr (Policy::LINEAR_BEFORE_RESET) {
      products(h, 0, 3 * hidden, [&](int b, int row) {
        if (row < 2 * hidden) return both(b, row);
        of(scratch, b, row - 2 * hidden) = projected(b, step, row) + bias(0, row);
        return bias(1, row);
      });
      __syncthreads();
    } else {
      products(h, 0, 2 * hidden, both);
      __syncthreads();
      each([&](int b, int j) { of(scratch, b, j) = activation<0>(gate(b, hidden + j)) * of(h, b, j); });
      __syncthreads();
      products(scratch, 2 * hidden, 3 * hidden, both);
      __syncthreads();
    }
    each([&](int b, int j) {
      const S update = activation<0>(gate(b, j));
      S candidate = gate(b, 2 * hidden + j);
      if constexpr (Policy::LINEAR_BEFORE_RESET) {
        candidate = of(scratch, b, j) + activation<0>(gate(b, hidden + j)) * candidate;
      }
      candidate = activation<1>(candidate);
      put(b, j, step, (static_cast<S>(1) - update) * candidate + update * of(h, b, j));
    });
    __syncthreads();
  }

  LAPIDARY_FN void rnn_step(i64 step) const {
    products(h, 0, hidden, [&](int b, int row) { return projected(b, step, row) + bias(0, row) + bias(1, row); });
    __syncthreads();
    each([&](int b, int j) { put(b, j, step, activation<0>(gate(b, j))); });
    __syncthreads();
  }

  LAPIDARY_FN S initial(const void* states, int b, int j) const {
    if (states == nullptr || first + b >= p.batch) return 0;
    const i64 at = dir * p.state_dir + (first + b) * p.state_batch + j;
    return static_cast<S>(widen<T>(static_cast<const M*>(states)[at]));
  }
  LAPIDARY_FN void save(void* states, const S* vectors) const {
    if (states == nullptr) return;
    each([&](int b, int j) {
      const i64 at = dir * p.state_dir + (first + b) * p.state_batch + j;
      static_cast<M*>(states)[at] = narrow<T>(vectors[b * padded + j]);
    });
  }

  LAPIDARY_FN void run() const {
    if (threadIdx.x < BATCH) {
      const bool inside = first + threadIdx.x < p.batch;
      i64 n = p.sequence_lens != nullptr && inside ? p.sequence_lens[first + threadIdx.x] : p.seq;
      length[threadIdx.x] = static_cast<int>(lapidary::min(lapidary::max<i64>(n, 0), p.seq));
    }
    for (int i = threadIdx.x; i < BATCH * padded; i += Policy::THREADS) {
      const int b = i / padded, j = i % padded;
      h[i] = j < hidden ? initial(p.initial_h, b, j) : static_cast<S>(0);
      if constexpr (CELL == Cell::LSTM) c[i] = j < hidden ? initial(p.initial_c, b, j) : static_cast<S>(0);
    }
    __syncthreads();
    for (i64 step = 0; step < p.seq; ++step) {
      if constexpr (CELL == Cell::LSTM) {
        lstm_step(step);
      } else if constexpr (CELL == Cell::GRU) {
        gru_step(step);
      } else {
        rnn_step(step);
      }
    }
    save(p.y_h, h);
    if constexpr (CELL == Cell::LSTM) save(p.y_c, c);
  }
};

template <class Policy>
LAPIDARY_FN void run(const Params<Policy>& p) {
  using L = Layer<Policy>;
  using S = typename L::S;
  using M = typename L::M;
  __shared__ int length[Policy::BATCH];
  const int hidden = static_cast<int>(p.hidden);
  // Rows of 8 elements keep every vector 16-byte aligned.
  const int padded = round_up(hidden, 8);
  const i64 tiles = ceil_div<i64>(p.batch, Policy::BATCH);
  const int dir = static_cast<int>(blockIdx.x / tiles);
  S* h = reinterpret_cast<S*>(dynamic_smem());
  S* gates = h + Policy::BATCH * padded;
  S* last = gates + Policy::BATCH * L::GATES * padded;
  const M* r = static_cast<const M*>(p.r) + static_cast<i64>(dir) * L::GATES * hidden * hidden;
  if constexpr (Policy::KEEP_R) {
    M* kept = reinterpret_cast<M*>(h + L::VECTORS * Policy::BATCH * padded);
    for (int i = threadIdx.x; i < L::GATES * hidden * hidden; i += Policy::THREADS) kept[i] = r[i];
    r = kept;
  }
  const L layer{p, hidden, padded, dir, static_cast<i64>(blockIdx.x) % tiles * Policy::BATCH, r, h, last, gates, last,
                length};
  layer.run();
}

}  // namespace lapidary::recurrent
