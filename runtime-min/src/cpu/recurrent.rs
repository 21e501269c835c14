//! Recurrent layers (ONNX `LSTM`, `GRU`, `RNN`): the input's part of all steps is one matrix product, the state's part
//! one product a step.

use crate::cpu::element::{Arith, Number, float};
use crate::cpu::memory::{Inputs, Scratch, Tensor, TensorMut};
use crate::cpu::pointwise::math;
use crate::cpu::product::{Accumulator, Matrix, Onto, widened};
use crate::cpu::simd::vectorize;
use crate::op::{Activation, ActivationKind, Cell, Direction, Recurrent};

/// The functions of a cell, in the type that a layer computes in.
trait Function: Accumulator {
    fn sigmoid(self) -> Self;
    fn tanh(self) -> Self;
    fn softplus(self) -> Self;
    fn exp_m1(self) -> Self;
    fn div(self, other: Self) -> Self;
}

impl Function for f32 {
    #[inline(always)]
    fn sigmoid(self) -> f32 {
        math::sigmoid(self)
    }
    #[inline(always)]
    fn tanh(self) -> f32 {
        math::tanh(self)
    }
    #[inline(always)]
    fn softplus(self) -> f32 {
        math::softplus(self)
    }
    fn exp_m1(self) -> f32 {
        f32::exp_m1(self)
    }
    #[inline(always)]
    fn div(self, other: f32) -> f32 {
        self / other
    }
}

impl Function for f64 {
    #[inline(always)]
    fn sigmoid(self) -> f64 {
        math::sigmoid_f64(self)
    }
    #[inline(always)]
    fn tanh(self) -> f64 {
        f64::tanh(self)
    }
    #[inline(always)]
    fn softplus(self) -> f64 {
        math::softplus_f64(self)
    }
    fn exp_m1(self) -> f64 {
        f64::exp_m1(self)
    }
    #[inline(always)]
    fn div(self, other: f64) -> f64 {
        self / other
    }
}

/// Gates of a cell, in the order of the rows of its weights: LSTM input, output, forget, cell; GRU update, reset,
/// hidden.
fn gates(cell: Cell) -> usize {
    match cell {
        Cell::Lstm => 4,
        Cell::Gru { .. } => 3,
        Cell::Rnn => 1,
    }
}

/// The extents of a layer.
#[derive(Clone, Copy)]
struct Extents {
    seq: usize,
    batch: usize,
    input: usize,
    hidden: usize,
    dirs: usize,
    /// Rows of the weights: gates times hidden.
    rows: usize,
}

/// One layer's operands in the type it computes in; absent ones are empty.
struct Layer<'l, A> {
    spec: &'l Recurrent,
    extents: Extents,
    /// x W^T `[seq, batch, rows]` of the direction at hand.
    projected: &'l [A],
    r: &'l [A],
    b: &'l [A],
    p: &'l [A],
    direction: usize,
}

/// The state of one direction, and room for a step.
struct State<'s, A> {
    h: &'s mut [A],
    c: &'s mut [A],
    /// h R^T `[batch, rows]`
    of_h: &'s mut [A],
    /// The masked state of a GRU and its product, `[batch, hidden]` each.
    masked: &'s mut [A],
    of_masked: &'s mut [A],
}

/// Runs the layer; `outputs` are y, y_h and y_c, where wanted.
pub fn run(spec: &Recurrent, inputs: Inputs<'_>, outputs: &mut [Option<TensorMut<'_>>; 3], scratch: &mut Scratch) {
    let operand = |k: usize| inputs.get(k);
    let operands: [Option<Tensor<'_>>; 8] = core::array::from_fn(operand);
    layer(spec, &operands, outputs, scratch);
}

fn layer(
    spec: &Recurrent,
    operands: &[Option<Tensor<'_>>; 8],
    outputs: &mut [Option<TensorMut<'_>>; 3],
    scratch: &mut Scratch,
) {
    let Some(x) = &operands[0] else { return };
    float!(x.dtype, T => directions::<T, <T as Number>::Acc>(spec, operands, outputs, scratch));
}

/// Copies an operand to the front of `room`, in the layer's type; absent ones take nothing.
fn place<'r, A: Accumulator>(room: &mut &'r mut [A], operand: Option<&Tensor<'_>>) -> &'r [A] {
    let Some(operand) = operand else { return &[] };
    let (to, rest) = core::mem::take(room).split_at_mut(operand.dims.count());
    *room = rest;
    if operand.dtype == A::DTYPE {
        to.copy_from_slice(operand.words());
    } else {
        A::widen_from(operand, to);
    }
    to
}

fn directions<T: Number<Acc = A>, A: Function>(
    spec: &Recurrent,
    operands: &[Option<Tensor<'_>>; 8],
    outputs: &mut [Option<TensorMut<'_>>; 3],
    scratch: &mut Scratch,
) {
    let [Some(x), Some(w), Some(r), b, lens, initial_h, initial_c, p] = operands else { return };
    let hidden = spec.hidden as usize;
    let dirs = if spec.direction == Direction::Bidirectional { 2 } else { 1 };
    let rows = gates(spec.cell) * hidden;
    let e = Extents { seq: x.dims[0], batch: x.dims[1], input: x.dims[2], hidden, dirs, rows };
    let Scratch { a, b: of_w, c: states, d: products, e: of_r, index: small, .. } = scratch;
    let (x, w, r) = (widened::<A>(x, a), widened::<A>(w, of_w), widened::<A>(r, of_r));
    let small_count = [b, p].into_iter().flatten().map(|tensor| tensor.dims.count()).sum();
    let mut room = small.take::<A>(small_count);
    let (b, p) = (place(&mut room, b.as_ref()), place(&mut room, p.as_ref()));
    let one = e.batch * hidden;
    let parts = states.take::<A>(2 * one + e.batch * rows + 2 * one);
    let projected = products.take::<A>(e.seq * e.batch * rows);
    let [y, y_h, y_c] = outputs;
    if let Some(y) = y {
        y.bytes.fill(0);
    }
    for direction in 0..dirs {
        let w = Matrix::new(&w[direction * rows * e.input..][..rows * e.input], rows, e.input);
        A::product(Matrix::new(x, e.seq * e.batch, e.input), w.transposed(), projected, rows, Onto::Nothing);
        let (h, rest) = parts.split_at_mut(one);
        let (c, rest) = rest.split_at_mut(one);
        let (of_h, rest) = rest.split_at_mut(e.batch * rows);
        let (masked, of_masked) = rest.split_at_mut(one);
        initial::<T>(initial_h.as_ref(), direction, h);
        initial::<T>(initial_c.as_ref(), direction, c);
        let layer = Layer {
            spec,
            extents: e,
            projected,
            r: &r[direction * rows * hidden..][..rows * hidden],
            b: b.get(direction * 2 * rows..(direction + 1) * 2 * rows).unwrap_or(&[]),
            p: p.get(direction * 3 * hidden..(direction + 1) * 3 * hidden).unwrap_or(&[]),
            direction,
        };
        let backward = spec.direction == Direction::Reverse || direction == 1;
        let mut state = State { h, c, of_h, masked, of_masked };
        let y = y.as_mut().map(|tensor| tensor.data::<T>());
        layer.steps::<T>(backward, lens.as_ref(), &mut state, y);
        for (result, state) in [(&mut *y_h, &*state.h), (&mut *y_c, &*state.c)] {
            if let Some(tensor) = result {
                crate::cpu::element::narrow(state, &mut tensor.data::<T>()[direction * one..][..one]);
            }
        }
    }
}

/// The initial state of a direction, zero where absent.
fn initial<T: Number>(tensor: Option<&Tensor<'_>>, direction: usize, to: &mut [T::Acc]) {
    match tensor {
        Some(tensor) => {
            let count = to.len();
            crate::cpu::element::widen(&tensor.data::<T>()[direction * count..][..count], to);
        }
        None => to.fill(Arith::ZERO),
    }
}

impl<A: Function> Layer<'_, A> {
    fn steps<T: Number<Acc = A>>(
        &self,
        backward: bool,
        lens: Option<&Tensor<'_>>,
        state: &mut State<'_, A>,
        mut y: Option<&mut [T]>,
    ) {
        let Extents { seq, batch, hidden, dirs, .. } = self.extents;
        let length = |row: usize| match lens {
            Some(lens) => usize::try_from(lens.data::<i32>()[row]).unwrap_or(0).min(seq),
            None => seq,
        };
        for step in 0..seq {
            let t = if backward { seq - 1 - step } else { step };
            self.products(t, state);
            for row in (0..batch).filter(|&row| t < length(row)) {
                self.cell(t, row, state);
                if let Some(y) = &mut y {
                    let to = &mut y[((t * dirs + self.direction) * batch + row) * hidden..][..hidden];
                    crate::cpu::element::narrow(&state.h[row * hidden..][..hidden], to);
                }
            }
        }
    }

    /// The state's part of a step, for all rows.
    fn products(&self, t: usize, state: &mut State<'_, A>) {
        let Extents { batch, hidden, rows, .. } = self.extents;
        let r = Matrix::new(self.r, rows, hidden).transposed();
        A::product(Matrix::new(state.h, batch, hidden), r, state.of_h, rows, Onto::Nothing);
        for (row, of_h) in state.of_h.chunks_exact_mut(rows.max(1)).enumerate() {
            let projected = &self.projected[(t * batch + row) * rows..][..rows];
            // What is masked by the reset gate of a linear GRU stays apart from the input's part.
            let summed = if self.is_linear_gru() { 2 * hidden } else { rows };
            for (of_h, projected) in of_h[..summed].iter_mut().zip(projected) {
                *of_h = of_h.add(*projected);
            }
            if !self.b.is_empty() {
                let (of_input, of_state) = self.b.split_at(rows);
                of_h.iter_mut().zip(of_state).for_each(|(sum, b)| *sum = sum.add(*b));
                of_h[..summed].iter_mut().zip(of_input).for_each(|(sum, b)| *sum = sum.add(*b));
            }
        }
        if let Cell::Gru { linear_before_reset: false } = self.spec.cell {
            self.mask(state);
        }
    }

    fn is_linear_gru(&self) -> bool {
        self.spec.cell == Cell::Gru { linear_before_reset: true }
    }

    /// (reset * h) R_h^T; the reset gates come from the sums of all gates.
    fn mask(&self, state: &mut State<'_, A>) {
        let Extents { batch, hidden, rows, .. } = self.extents;
        for row in 0..batch {
            let masked = &mut state.masked[row * hidden..][..hidden];
            masked.copy_from_slice(&state.of_h[row * rows + hidden..][..hidden]);
            self.activate(0, masked);
            for (masked, h) in masked.iter_mut().zip(&state.h[row * hidden..]) {
                *masked = masked.mul(*h);
            }
        }
        let r = Matrix::new(&self.r[2 * hidden * hidden..], hidden, hidden).transposed();
        A::product(Matrix::new(state.masked, batch, hidden), r, state.of_masked, hidden, Onto::Nothing);
    }

    /// One step of one row: from the sums of its gates to its new state.
    fn cell(&self, t: usize, row: usize, state: &mut State<'_, A>) {
        let Extents { batch, hidden, rows, .. } = self.extents;
        let sums = &mut state.of_h[row * rows..][..rows];
        let part = row * hidden..(row + 1) * hidden;
        let h = &mut state.h[part.clone()];
        match self.spec.cell {
            Cell::Rnn => {
                self.activate(0, sums);
                h.copy_from_slice(sums);
            }
            Cell::Gru { linear_before_reset } => {
                let (gates, candidate) = sums.split_at_mut(2 * hidden);
                let (update, reset) = gates.split_at_mut(hidden);
                self.activate(0, update);
                if linear_before_reset {
                    self.activate(0, reset);
                    let projected = &self.projected[(t * batch + row) * rows + 2 * hidden..][..hidden];
                    for ((sum, reset), x) in candidate.iter_mut().zip(reset).zip(projected) {
                        *sum = reset.mul(*sum).add(*x);
                    }
                    let of_input = self.b.get(2 * hidden..3 * hidden).unwrap_or(&[]);
                    candidate.iter_mut().zip(of_input).for_each(|(sum, b)| *sum = sum.add(*b));
                } else {
                    // The sums hold the product with the whole state in the place of that with the masked one.
                    let projected = &self.projected[(t * batch + row) * rows + 2 * hidden..][..hidden];
                    for ((sum, masked), x) in candidate.iter_mut().zip(&state.of_masked[part]).zip(projected) {
                        *sum = masked.add(*x);
                    }
                    for from in [2 * hidden, rows + 2 * hidden] {
                        let bias = self.b.get(from..from + hidden).unwrap_or(&[]);
                        candidate.iter_mut().zip(bias).for_each(|(sum, b)| *sum = sum.add(*b));
                    }
                }
                self.activate(1, candidate);
                for ((h, update), candidate) in h.iter_mut().zip(update).zip(candidate) {
                    *h = A::ONE.sub(*update).mul(*candidate).add(update.mul(*h));
                }
            }
            Cell::Lstm => self.lstm_cell(sums, h, &mut state.c[part]),
        }
    }

    fn lstm_cell(&self, sums: &mut [A], h: &mut [A], c: &mut [A]) {
        let hidden = h.len();
        // Peepholes lie in the order input, output, forget.
        let peek = |gate: &mut [A], c: &[A], which: usize| {
            let weights = self.p.get(which * hidden..(which + 1) * hidden).unwrap_or(&[]);
            for ((sum, p), c) in gate.iter_mut().zip(weights).zip(c) {
                *sum = sum.add(p.mul(*c));
            }
        };
        let (input, rest) = sums.split_at_mut(hidden);
        let (output, rest) = rest.split_at_mut(hidden);
        let (forget, cell) = rest.split_at_mut(hidden);
        peek(input, c, 0);
        self.activate(0, input);
        if self.spec.input_forget {
            forget.iter_mut().zip(&*input).for_each(|(forget, input)| *forget = A::ONE.sub(*input));
        } else {
            peek(forget, c, 2);
            self.activate(0, forget);
        }
        self.activate(1, cell);
        for (((c, forget), input), cell) in c.iter_mut().zip(forget).zip(&*input).zip(cell) {
            *c = forget.mul(*c).add(input.mul(*cell));
        }
        peek(output, c, 1);
        self.activate(0, output);
        input.copy_from_slice(c);
        apply(self.activation(2), input);
        for ((h, output), c) in h.iter_mut().zip(output).zip(input) {
            *h = output.mul(*c);
        }
    }

    fn activation(&self, which: usize) -> Activation {
        self.spec.activations[self.direction * 3 + which]
    }

    /// Activation `which` of the direction, of the clipped sums.
    fn activate(&self, which: usize, sums: &mut [A]) {
        let clip = self.spec.clip.abs();
        if clip < f32::INFINITY {
            let (low, high) = (A::from_f64(-f64::from(clip)), A::from_f64(f64::from(clip)));
            for sum in sums.iter_mut() {
                *sum = sum.larger(low).smaller(high);
            }
        }
        apply(self.activation(which), sums);
    }
}

/// `values[i]` = the activation of `values[i]`.
fn apply<A: Function>(activation: Activation, values: &mut [A]) {
    let (alpha, beta) = (A::from_f64(f64::from(activation.alpha)), A::from_f64(f64::from(activation.beta)));
    match activation.kind {
        ActivationKind::Sigmoid => each(values, Function::sigmoid),
        ActivationKind::Tanh => each(values, Function::tanh),
        ActivationKind::Relu => each(values, |x| x.larger(A::ZERO)),
        ActivationKind::Affine => each(values, |x| alpha.mul(x).add(beta)),
        ActivationKind::LeakyRelu => each(values, |x| if x >= A::ZERO { x } else { alpha.mul(x) }),
        ActivationKind::ThresholdedRelu => each(values, |x| if x >= alpha { x } else { A::ZERO }),
        ActivationKind::ScaledTanh => each(values, |x| alpha.mul(beta.mul(x).tanh())),
        ActivationKind::HardSigmoid => each(values, |x| alpha.mul(x).add(beta).larger(A::ZERO).smaller(A::ONE)),
        ActivationKind::Elu => each(values, |x| if x >= A::ZERO { x } else { alpha.mul(x.exp_m1()) }),
        ActivationKind::Softsign => each(values, |x| x.div(A::ONE.add(x.abs()))),
        ActivationKind::Softplus => each(values, Function::softplus),
    }
}

fn each<A: Function>(values: &mut [A], f: impl Fn(A) -> A) {
    vectorize(
        #[inline(always)]
        || {
            for value in values {
                *value = f(*value);
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::{Random, assert_close, tensor, tensor_mut};

    const SEQ: usize = 5;
    const BATCH: usize = 3;
    const INPUT: usize = 4;
    const HIDDEN: usize = 6;

    fn act(kind: ActivationKind) -> Activation {
        Activation { kind, alpha: 0.3, beta: 0.6 }
    }

    fn scalar(activation: Activation, x: f64) -> f64 {
        let (alpha, beta) = (f64::from(activation.alpha), f64::from(activation.beta));
        match activation.kind {
            ActivationKind::Sigmoid => 1.0 / (1.0 + (-x).exp()),
            ActivationKind::Tanh => x.tanh(),
            ActivationKind::Relu => x.max(0.0),
            ActivationKind::Affine => alpha * x + beta,
            ActivationKind::LeakyRelu => {
                if x >= 0.0 {
                    x
                } else {
                    alpha * x
                }
            }
            ActivationKind::ThresholdedRelu => {
                if x >= alpha {
                    x
                } else {
                    0.0
                }
            }
            ActivationKind::ScaledTanh => alpha * (beta * x).tanh(),
            ActivationKind::HardSigmoid => (alpha * x + beta).clamp(0.0, 1.0),
            ActivationKind::Elu => {
                if x >= 0.0 {
                    x
                } else {
                    alpha * (x.exp() - 1.0)
                }
            }
            ActivationKind::Softsign => x / (1.0 + x.abs()),
            ActivationKind::Softplus => (1.0 + x.exp()).ln(),
        }
    }

    struct Data {
        x: Vec<f32>,
        w: Vec<f32>,
        r: Vec<f32>,
        b: Vec<f32>,
        h: Vec<f32>,
        c: Vec<f32>,
        p: Vec<f32>,
        lens: [i32; BATCH],
    }

    /// The formulas of the operators, row by row; y, y_h, y_c.
    fn naive(spec: &Recurrent, d: &Data, dirs: usize) -> [Vec<f64>; 3] {
        let g = gates(spec.cell);
        let mut y = vec![0.0; SEQ * dirs * BATCH * HIDDEN];
        let (mut y_h, mut y_c) = (vec![0.0; dirs * BATCH * HIDDEN], vec![0.0; dirs * BATCH * HIDDEN]);
        for dir in 0..dirs {
            let backward = spec.direction == Direction::Reverse || dir == 1;
            let f = |which: usize, x: f64| {
                let clip = f64::from(spec.clip);
                scalar(spec.activations[dir * 3 + which], x.clamp(-clip, clip))
            };
            for row in 0..BATCH {
                let place = (dir * BATCH + row) * HIDDEN;
                let mut h: Vec<f64> = d.h[place..][..HIDDEN].iter().map(|x| f64::from(*x)).collect();
                let mut c: Vec<f64> = d.c[place..][..HIDDEN].iter().map(|x| f64::from(*x)).collect();
                let length = d.lens[row] as usize;
                for step in 0..length {
                    let t = if backward { length - 1 - step } else { step };
                    let of_x = |k: usize| -> f64 {
                        let dot = |i: usize| {
                            f64::from(d.x[(t * BATCH + row) * INPUT + i])
                                * f64::from(d.w[(dir * g * HIDDEN + k) * INPUT + i])
                        };
                        (0..INPUT).map(dot).sum::<f64>() + f64::from(d.b[dir * 2 * g * HIDDEN + k])
                    };
                    let of_h = |k: usize, h: &[f64]| -> f64 {
                        let dot = |i: usize| h[i] * f64::from(d.r[(dir * g * HIDDEN + k) * HIDDEN + i]);
                        (0..HIDDEN).map(dot).sum::<f64>() + f64::from(d.b[dir * 2 * g * HIDDEN + g * HIDDEN + k])
                    };
                    let p = |k: usize| f64::from(d.p[dir * 3 * HIDDEN + k]);
                    let old = h.clone();
                    match spec.cell {
                        Cell::Rnn => (0..HIDDEN).for_each(|j| h[j] = f(0, of_x(j) + of_h(j, &old))),
                        Cell::Gru { linear_before_reset } => {
                            let z = |j| f(0, of_x(j) + of_h(j, &old));
                            let r: Vec<f64> = (HIDDEN..2 * HIDDEN).map(|k| f(0, of_x(k) + of_h(k, &old))).collect();
                            let masked: Vec<f64> = r.iter().zip(&old).map(|(r, h)| r * h).collect();
                            for j in 0..HIDDEN {
                                let k = 2 * HIDDEN + j;
                                let inner = if linear_before_reset { r[j] * of_h(k, &old) } else { of_h(k, &masked) };
                                h[j] = (1.0 - z(j)) * f(1, of_x(k) + inner) + z(j) * old[j];
                            }
                        }
                        Cell::Lstm => {
                            for j in 0..HIDDEN {
                                let sum = |gate: usize| of_x(gate * HIDDEN + j) + of_h(gate * HIDDEN + j, &old);
                                let i = f(0, sum(0) + p(j) * c[j]);
                                let forget =
                                    if spec.input_forget { 1.0 - i } else { f(0, sum(2) + p(2 * HIDDEN + j) * c[j]) };
                                c[j] = forget * c[j] + i * f(1, sum(3));
                                let o = f(0, sum(1) + p(HIDDEN + j) * c[j]);
                                h[j] = o * scalar(spec.activations[dir * 3 + 2], c[j]);
                            }
                        }
                    }
                    y[((t * dirs + dir) * BATCH + row) * HIDDEN..][..HIDDEN].copy_from_slice(&h);
                }
                y_h[place..][..HIDDEN].copy_from_slice(&h);
                y_c[place..][..HIDDEN].copy_from_slice(&c);
            }
        }
        [y, y_h, y_c]
    }

    fn compare(spec: &Recurrent, random: &mut Random) {
        let dirs = if spec.direction == Direction::Bidirectional { 2 } else { 1 };
        let rows = gates(spec.cell) * HIDDEN;
        let d = Data {
            x: random.floats(SEQ * BATCH * INPUT),
            w: random.floats(dirs * rows * INPUT),
            r: random.floats(dirs * rows * HIDDEN),
            b: random.floats(dirs * 2 * rows),
            h: random.floats(dirs * BATCH * HIDDEN),
            c: random.floats(dirs * BATCH * HIDDEN),
            p: random.floats(dirs * 3 * HIDDEN),
            lens: [5, 0, 3],
        };
        let state = [dirs, BATCH, HIDDEN];
        let all = [SEQ, dirs, BATCH, HIDDEN];
        let operands = [
            Some(tensor(&d.x, &[SEQ, BATCH, INPUT])),
            Some(tensor(&d.w, &[dirs, rows, INPUT])),
            Some(tensor(&d.r, &[dirs, rows, HIDDEN])),
            Some(tensor(&d.b, &[dirs, 2 * rows])),
            Some(tensor(&d.lens, &[BATCH])),
            Some(tensor(&d.h, &state)),
            Some(tensor(&d.c, &state)),
            Some(tensor(&d.p, &[dirs, 3 * HIDDEN])),
        ];
        let count = dirs * BATCH * HIDDEN;
        let (mut y, mut y_h, mut y_c) = (vec![9f32; SEQ * count], vec![9f32; count], vec![9f32; count]);
        let mut outputs =
            [Some(tensor_mut(&mut y, &all)), Some(tensor_mut(&mut y_h, &state)), Some(tensor_mut(&mut y_c, &state))];
        layer(spec, &operands, &mut outputs, &mut Scratch::default());
        let [exact, exact_h, exact_c] = naive(spec, &d, dirs);
        assert_close(&y, &exact, 2e-6);
        assert_close(&y_h, &exact_h, 2e-6);
        assert_close(&y_c, &exact_c, 2e-6);
    }

    #[test]
    fn cells_in_all_directions_agree_with_their_formulas() {
        let mut random = Random::new(41);
        let (s, t) = (act(ActivationKind::Sigmoid), act(ActivationKind::Tanh));
        let cells = [
            (Cell::Rnn, [t; 6]),
            (Cell::Gru { linear_before_reset: false }, [s, t, t, s, t, t]),
            (Cell::Gru { linear_before_reset: true }, [s, t, t, s, t, t]),
            (Cell::Lstm, [s, t, t, s, t, t]),
        ];
        for (cell, activations) in cells {
            for direction in [Direction::Forward, Direction::Reverse, Direction::Bidirectional] {
                for (clip, input_forget) in [(f32::INFINITY, false), (0.7, true)] {
                    let spec = Recurrent { cell, direction, hidden: HIDDEN as u32, clip, activations, input_forget };
                    compare(&spec, &mut random);
                }
            }
        }
    }

    #[test]
    fn every_activation_is_its_formula() {
        let mut random = Random::new(42);
        for kind in [
            ActivationKind::Relu,
            ActivationKind::Affine,
            ActivationKind::LeakyRelu,
            ActivationKind::ThresholdedRelu,
            ActivationKind::ScaledTanh,
            ActivationKind::HardSigmoid,
            ActivationKind::Elu,
            ActivationKind::Softsign,
            ActivationKind::Softplus,
        ] {
            let values: Vec<f32> = random.floats(40).into_iter().map(|x| x * 3.0).collect();
            let mut given = values.clone();
            apply(act(kind), &mut given);
            let exact: Vec<f64> = values.iter().map(|x| scalar(act(kind), f64::from(*x))).collect();
            assert_close(&given, &exact, 1e-6);
        }
    }
}
