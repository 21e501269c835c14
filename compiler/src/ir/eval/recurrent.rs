//! Recurrent layers (ONNX `LSTM`, `GRU`, `RNN`, layout 0). The state is kept in doubles from step to step.

use lapidary_runtime::op::{Activation, ActivationKind, Cell, Direction, Recurrent};

use super::matmul::{Matrix, accumulate};
use super::scalar;
use super::tensor::{Tensor, Values};

/// The operands, in ONNX's order; shapes are in [`Recurrent`].
pub(super) struct Operands<'a> {
    pub(super) x: &'a Tensor,
    pub(super) w: &'a Tensor,
    pub(super) r: &'a Tensor,
    pub(super) b: Option<&'a Tensor>,
    pub(super) sequence_lens: Option<&'a Tensor>,
    pub(super) initial_h: Option<&'a Tensor>,
    pub(super) initial_c: Option<&'a Tensor>,
    /// Peepholes of an LSTM.
    pub(super) p: Option<&'a Tensor>,
}

/// The number of gates, and of activations a direction.
fn gates(cell: Cell) -> usize {
    match cell {
        Cell::Lstm => 4,
        Cell::Gru { .. } => 3,
        Cell::Rnn => 1,
    }
}

/// Runs the layer. Results y `[seq, dirs, batch, hidden]`, y_h `[dirs, batch, hidden]`, and for an LSTM y_c. Beyond a
/// row's sequence length y is 0, and the final state is that of its last step.
pub(super) fn recurrent(spec: &Recurrent, operands: &Operands<'_>) -> Result<Vec<Tensor>, String> {
    let layer = Layer::of(spec, operands)?;
    let Layer { seq, batch, hidden, dirs, .. } = layer;
    let mut y = vec![0.0; seq * dirs * batch * hidden];
    let mut last_h = Vec::with_capacity(dirs * batch * hidden);
    let mut last_c = Vec::with_capacity(dirs * batch * hidden);
    for direction in 0..dirs {
        let backward = direction == 1 || spec.direction == Direction::Reverse;
        let state = layer.run(direction, backward, &mut y);
        last_h.extend(state.h);
        last_c.extend(state.c);
    }
    let dtype = operands.x.dtype;
    let dims = vec![dirs, batch, hidden];
    let mut results = vec![
        Tensor::from_f64s(dtype, vec![seq, dirs, batch, hidden], &y),
        Tensor::from_f64s(dtype, dims.clone(), &last_h),
    ];
    match spec.cell {
        Cell::Lstm => results.push(Tensor::from_f64s(dtype, dims, &last_c)),
        Cell::Gru { .. } | Cell::Rnn => {}
    }
    Ok(results)
}

/// The layer with its operands decoded; absent ones are zeros.
struct Layer<'a> {
    spec: &'a Recurrent,
    seq: usize,
    batch: usize,
    input: usize,
    hidden: usize,
    dirs: usize,
    x: Vec<f64>,
    w: Vec<f64>,
    r: Vec<f64>,
    b: Vec<f64>,
    p: Vec<f64>,
    h: Vec<f64>,
    c: Vec<f64>,
    lengths: Vec<usize>,
}

/// The state of one direction, `[batch, hidden]`.
struct State {
    h: Vec<f64>,
    c: Vec<f64>,
}

impl<'a> Layer<'a> {
    fn of(spec: &'a Recurrent, operands: &Operands<'_>) -> Result<Layer<'a>, String> {
        let &[seq, batch, input] = operands.x.dims.as_slice() else {
            return Err(format!("a recurrent layer over extents {:?}", operands.x.dims));
        };
        let hidden = spec.hidden as usize;
        let dirs = match spec.direction {
            Direction::Forward | Direction::Reverse => 1,
            Direction::Bidirectional => 2,
        };
        let rows = gates(spec.cell) * hidden;
        let optional = |operand: Option<&Tensor>, dims: &[usize]| match operand {
            Some(operand) => floats(operand, dims),
            None => Ok(vec![0.0; dims.iter().product()]),
        };
        let lengths = match operands.sequence_lens {
            Some(lengths) if lengths.dims == [batch] => {
                lengths.to_i64s().into_iter().map(|length| length.clamp(0, seq as i64) as usize).collect()
            }
            Some(lengths) => return Err(format!("sequence lengths of extents {:?}, batch {batch}", lengths.dims)),
            None => vec![seq; batch],
        };
        Ok(Layer {
            spec,
            seq,
            batch,
            input,
            hidden,
            dirs,
            x: floats(operands.x, &[seq, batch, input])?,
            w: floats(operands.w, &[dirs, rows, input])?,
            r: floats(operands.r, &[dirs, rows, hidden])?,
            b: optional(operands.b, &[dirs, 2 * rows])?,
            p: optional(operands.p, &[dirs, 3 * hidden])?,
            h: optional(operands.initial_h, &[dirs, batch, hidden])?,
            c: optional(operands.initial_c, &[dirs, batch, hidden])?,
            lengths,
        })
    }

    /// All steps of one direction; writes its part of y.
    fn run(&self, direction: usize, backward: bool, y: &mut [f64]) -> State {
        let (hidden, batch) = (self.hidden, self.batch);
        let rows = gates(self.spec.cell) * hidden;
        // x W^T of all steps at once.
        let w = transposed(&self.w[direction * rows * self.input..][..rows * self.input], rows, self.input);
        let mut projected = vec![0.0; self.seq * batch * rows];
        let x = Matrix { data: &self.x, rows: self.seq * batch, columns: self.input, pitch: self.input };
        accumulate(&x, &Matrix { data: &w, rows: self.input, columns: rows, pitch: rows }, &mut projected);
        let r = transposed(&self.r[direction * rows * hidden..][..rows * hidden], rows, hidden);
        let part = direction * batch * hidden..(direction + 1) * batch * hidden;
        let mut state = State { h: self.h[part.clone()].to_vec(), c: self.c[part].to_vec() };
        for step in 0..self.seq {
            for row in 0..batch {
                let length = self.lengths[row];
                if step >= length {
                    continue;
                }
                let t = if backward { length - 1 - step } else { step };
                let place = row * hidden..(row + 1) * hidden;
                let (h, c) = (&mut state.h[place.clone()], &mut state.c[place]);
                self.step(direction, &projected[(t * batch + row) * rows..][..rows], &r, h, c);
                y[((t * self.dirs + direction) * batch + row) * hidden..][..hidden].copy_from_slice(h);
            }
        }
        state
    }

    /// One step of one row. `projected` is x W^T `[gates * hidden]`, `r` is R^T `[hidden, gates * hidden]`.
    fn step(&self, direction: usize, projected: &[f64], r: &[f64], h: &mut [f64], c: &mut [f64]) {
        let hidden = self.hidden;
        let rows = projected.len();
        let b = &self.b[direction * 2 * rows..][..2 * rows];
        let recur = |h: &[f64]| product(h, r, hidden, rows);
        match self.spec.cell {
            Cell::Rnn => {
                let of_h = recur(h);
                for j in 0..hidden {
                    h[j] = self.activate(direction, 0, projected[j] + of_h[j] + b[j] + b[rows + j]);
                }
            }
            Cell::Gru { linear_before_reset } => {
                let of_h = recur(h);
                let gate = |k: usize| self.activate(direction, 0, projected[k] + of_h[k] + b[k] + b[rows + k]);
                let update: Vec<f64> = (0..hidden).map(gate).collect();
                let reset: Vec<f64> = (hidden..2 * hidden).map(gate).collect();
                let of_reset = if linear_before_reset {
                    (0..hidden).map(|j| reset[j] * (of_h[2 * hidden + j] + b[rows + 2 * hidden + j])).collect()
                } else {
                    let masked: Vec<f64> = reset.iter().zip(h.iter()).map(|(reset, h)| reset * h).collect();
                    let of_masked = recur(&masked);
                    (0..hidden).map(|j| of_masked[2 * hidden + j] + b[rows + 2 * hidden + j]).collect::<Vec<f64>>()
                };
                for j in 0..hidden {
                    let k = 2 * hidden + j;
                    let candidate = self.activate(direction, 1, projected[k] + of_reset[j] + b[k]);
                    h[j] = (1.0 - update[j]) * candidate + update[j] * h[j];
                }
            }
            Cell::Lstm => {
                let of_h = recur(h);
                let p = &self.p[direction * 3 * hidden..][..3 * hidden];
                // Gates lie in the order input, output, forget, cell; peepholes in the order input, output, forget.
                let sum = |gate: usize, j: usize| {
                    let k = gate * hidden + j;
                    projected[k] + of_h[k] + b[k] + b[rows + k]
                };
                for j in 0..hidden {
                    let input = self.activate(direction, 0, sum(0, j) + p[j] * c[j]);
                    let forget = if self.spec.input_forget {
                        1.0 - input
                    } else {
                        self.activate(direction, 0, sum(2, j) + p[2 * hidden + j] * c[j])
                    };
                    let cell = self.activate(direction, 1, sum(3, j));
                    c[j] = forget * c[j] + input * cell;
                    let output = self.activate(direction, 0, sum(1, j) + p[hidden + j] * c[j]);
                    h[j] = output * activation(self.activation(direction, 2), c[j]);
                }
            }
        }
    }

    /// Activation `which` of a direction, of the clipped sum.
    fn activate(&self, direction: usize, which: usize, sum: f64) -> f64 {
        let clip = f64::from(self.spec.clip).abs();
        let clipped = if sum.is_nan() { sum } else { sum.max(-clip).min(clip) };
        activation(self.activation(direction, which), clipped)
    }

    fn activation(&self, direction: usize, which: usize) -> Activation {
        self.spec.activations[direction * 3 + which]
    }
}

/// The elements, if they are floats of the given extents.
fn floats(operand: &Tensor, dims: &[usize]) -> Result<Vec<f64>, String> {
    match operand.decode() {
        Values::Float(values) if operand.dims == dims => Ok(values),
        Values::Float(_) | Values::Int(_) => {
            Err(format!("an operand of a recurrent layer is {}{:?}, not {dims:?}", operand.dtype, operand.dims))
        }
    }
}

/// `h r`, for r `[hidden, rows]`.
fn product(h: &[f64], r: &[f64], hidden: usize, rows: usize) -> Vec<f64> {
    let mut out = vec![0.0; rows];
    let h = Matrix { data: h, rows: 1, columns: hidden, pitch: hidden };
    accumulate(&h, &Matrix { data: r, rows: hidden, columns: rows, pitch: rows }, &mut out);
    out
}

fn transposed(matrix: &[f64], rows: usize, columns: usize) -> Vec<f64> {
    (0..columns).flat_map(|column| (0..rows).map(move |row| matrix[row * columns + column])).collect()
}

fn activation(activation: Activation, x: f64) -> f64 {
    let (alpha, beta) = (f64::from(activation.alpha), f64::from(activation.beta));
    match activation.kind {
        ActivationKind::Sigmoid => scalar::sigmoid(x),
        ActivationKind::Tanh => x.tanh(),
        ActivationKind::Relu => scalar::max(x, 0.0),
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
        ActivationKind::HardSigmoid => scalar::min(scalar::max(alpha * x + beta, 0.0), 1.0),
        ActivationKind::Elu => {
            if x >= 0.0 {
                x
            } else {
                alpha * x.exp_m1()
            }
        }
        ActivationKind::Softsign => x / (1.0 + x.abs()),
        ActivationKind::Softplus => scalar::softplus(x),
    }
}

#[cfg(test)]
mod tests {
    use lapidary_runtime::DType;

    use super::*;

    fn f32s(dims: &[usize], values: &[f64]) -> Tensor {
        Tensor::from_f64s(DType::F32, dims.to_vec(), values)
    }

    fn act(kind: ActivationKind, alpha: f32, beta: f32) -> Activation {
        Activation { kind, alpha, beta }
    }

    fn spec(cell: Cell, hidden: u32) -> Recurrent {
        let (sigmoid, tanh) = (act(ActivationKind::Sigmoid, 0.0, 0.0), act(ActivationKind::Tanh, 0.0, 0.0));
        let activations = match cell {
            Cell::Rnn => [tanh; 6],
            Cell::Gru { .. } | Cell::Lstm => [sigmoid, tanh, tanh, sigmoid, tanh, tanh],
        };
        let clip = f32::INFINITY;
        Recurrent { cell, direction: Direction::Forward, hidden, clip, activations, input_forget: false }
    }

    /// One direction, one row, two steps of two inputs, two hidden units; the numbers are eighths.
    struct Case {
        x: Tensor,
        w: Tensor,
        r: Tensor,
        b: Tensor,
        h: Tensor,
    }

    fn case(gates: usize, x: &[f64], w: &[f64], r: &[f64], b: &[f64], h: &[f64]) -> Case {
        Case {
            x: f32s(&[2, 1, 2], x),
            w: f32s(&[1, 2 * gates, 2], w),
            r: f32s(&[1, 2 * gates, 2], r),
            b: f32s(&[1, 4 * gates], b),
            h: f32s(&[1, 1, 2], h),
        }
    }

    impl Case {
        fn operands(&self) -> Operands<'_> {
            Operands {
                x: &self.x,
                w: &self.w,
                r: &self.r,
                b: Some(&self.b),
                sequence_lens: None,
                initial_h: Some(&self.h),
                initial_c: None,
                p: None,
            }
        }
    }

    fn lstm() -> Case {
        case(
            4,
            &[0.5, 0.875, -1.0, -0.625],
            &[
                -0.625, -0.125, 0.125, -0.5, -0.25, 0.5, -0.875, -0.25, -0.125, 0.75, -0.375, 0.625, 0.0, 0.125, 1.0,
                -0.375,
            ],
            &[
                0.875, 0.875, -1.0, -0.625, 0.75, -0.125, -1.0, -0.875, 0.125, -1.0, 0.25, -0.625, 0.375, -0.75, -1.0,
                -1.0,
            ],
            &[
                -0.5, -0.375, -0.25, 0.0, 0.875, -0.5, 0.125, 0.25, -0.875, -0.875, -0.125, 0.125, -0.625, -0.25,
                0.375, 0.75,
            ],
            &[-1.0, 0.75],
        )
    }

    fn gru() -> Case {
        case(
            3,
            &[-0.625, 0.5, -0.5, 0.0],
            &[0.75, 0.875, -0.625, 0.875, 0.625, 1.0, -0.375, 0.125, -0.625, -1.0, -0.375, -1.0],
            &[-0.5, -0.75, 1.0, -0.625, -0.75, 0.25, 0.625, 1.0, -0.125, 0.125, -1.0, 0.25],
            &[0.375, -0.75, -0.75, -0.625, -0.625, 0.75, -0.625, 0.75, 0.125, -0.875, -0.5, 0.25],
            &[0.375, 0.0],
        )
    }

    fn close(a: &Tensor, b: &[f64]) {
        let a = a.to_f64s();
        assert!(a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6), "{a:?} {b:?}");
    }

    // The expectations are those of the ONNX project's reference implementation, where it implements the case.

    #[test]
    fn an_lstm_with_peepholes() {
        let case = lstm();
        let (c, p) = (f32s(&[1, 1, 2], &[-0.625, 0.5]), f32s(&[1, 6], &[0.25, 0.375, -0.5, -0.25, -0.5, 0.875]));
        let operands = Operands { initial_c: Some(&c), p: Some(&p), ..case.operands() };
        let y = recurrent(&spec(Cell::Lstm, 2), &operands).unwrap();
        assert_eq!(y[0].dims, [2, 1, 1, 2]);
        close(&y[0], &[-0.121_833_235, 0.171_368_584, -0.040_234_484, 0.154_802_606]);
        close(&y[1], &[-0.040_234_484, 0.154_802_606]);
        assert_eq!((y.len(), y[2].dims.as_slice()), (3, [1, 1, 2].as_slice()));
    }

    #[test]
    fn a_gru_of_both_kinds() {
        let case = gru();
        let run =
            |linear_before_reset| recurrent(&spec(Cell::Gru { linear_before_reset }, 2), &case.operands()).unwrap();
        close(&run(false)[0], &[-0.377_243_698, 0.126_922_637, -0.555_386_484, 0.524_168_968]);
        close(&run(true)[0], &[-0.297_523_737, 0.097_421_743, -0.383_125_037, 0.447_574_139]);
        assert_eq!(run(true).len(), 2);
    }

    #[test]
    fn a_plain_layer() {
        let case = case(
            1,
            &[0.375, -0.75, 1.0, -1.0],
            &[-1.0, -0.25, 0.75, 0.25],
            &[0.0, 0.625, -0.75, -0.625],
            &[-0.75, 0.375, 0.625, 1.0],
            &[0.0, 0.0],
        );
        let y = recurrent(&spec(Cell::Rnn, 2), &case.operands()).unwrap();
        close(&y[0], &[-0.302_709_728, 0.899_338_782, -0.303_085_059, 0.912_111_223]);
    }

    /// The steps of a `[2, ..]` tensor in the other order.
    fn flipped(x: &Tensor) -> Vec<f64> {
        let values = x.to_f64s();
        let (first, second) = values.split_at(values.len() / 2);
        [second, first].concat()
    }

    #[test]
    fn directions_are_forward_layers_on_turned_time() {
        let case = lstm();
        let forward = recurrent(&spec(Cell::Lstm, 2), &case.operands()).unwrap();
        let turned = f32s(&[2, 1, 2], &flipped(&case.x));
        let reverse = Recurrent { direction: Direction::Reverse, ..spec(Cell::Lstm, 2) };
        let backward = recurrent(&reverse, &Operands { x: &turned, ..case.operands() }).unwrap();
        assert_eq!(flipped(&backward[0]), forward[0].to_f64s());
        assert_eq!((&backward[1], &backward[2]), (&forward[1], &forward[2]));
        // Both at once, with the same weights.
        let both = |x: &Tensor| {
            let mut dims = x.dims.clone();
            dims[0] = 2;
            f32s(&dims, &[x.to_f64s(), x.to_f64s()].concat())
        };
        let (w, r, b, h) = (both(&case.w), both(&case.r), both(&case.b), both(&case.h));
        let bidirectional = Recurrent { direction: Direction::Bidirectional, ..spec(Cell::Lstm, 2) };
        let operands = Operands { w: &w, r: &r, b: Some(&b), initial_h: Some(&h), ..case.operands() };
        let y = recurrent(&bidirectional, &operands).unwrap();
        let backward = recurrent(&reverse, &case.operands()).unwrap();
        assert_eq!(y[0].dims, [2, 2, 1, 2]);
        let part = |y: &Tensor, at: usize| y.to_f64s()[at..at + 2].to_vec();
        assert_eq!((part(&y[0], 0), part(&y[0], 4)), (part(&forward[0], 0), part(&forward[0], 2)));
        assert_eq!((part(&y[0], 2), part(&y[0], 6)), (part(&backward[0], 0), part(&backward[0], 2)));
        assert_eq!((part(&y[1], 0), part(&y[1], 2)), (part(&forward[1], 0), part(&backward[1], 0)));
    }

    #[test]
    fn short_rows_stop_early() {
        let case = gru();
        let x = f32s(&[2, 2, 2], &[-0.625, 0.5, -0.625, 0.5, -0.5, 0.0, -0.5, 0.0]);
        let h = f32s(&[1, 2, 2], &[0.375, 0.0, 0.375, 0.0]);
        let lengths = Tensor::from_i64s(DType::I32, vec![2], &[2, 1]);
        let cell = Cell::Gru { linear_before_reset: false };
        let operands = Operands { x: &x, initial_h: Some(&h), sequence_lens: Some(&lengths), ..case.operands() };
        let y = recurrent(&spec(cell, 2), &operands).unwrap();
        let full = recurrent(&spec(cell, 2), &case.operands()).unwrap()[0].to_f64s();
        let expected = [full[0], full[1], full[0], full[1], full[2], full[3], 0.0, 0.0];
        assert_eq!(y[0].to_f64s(), expected);
        assert_eq!(y[1].to_f64s(), [full[2], full[3], full[0], full[1]]);
        // Backward, a short row begins at its own last step.
        let reverse = Recurrent { direction: Direction::Reverse, ..spec(cell, 2) };
        let y = recurrent(&reverse, &operands).unwrap();
        assert_eq!(y[0].to_f64s()[2..4], full[..2]);
        assert_eq!(y[1].to_f64s()[2..4], full[..2]);
    }

    #[test]
    fn attributes_change_the_step() {
        // One unit, one input, weights 1: h = affine(clip(x)).
        let one = |value: f64| f32s(&[1, 1, 1], &[value]);
        let (x, w, r) = (one(3.0), one(1.0), one(0.0));
        let operands =
            Operands { x: &x, w: &w, r: &r, b: None, sequence_lens: None, initial_h: None, initial_c: None, p: None };
        let affine = [act(ActivationKind::Affine, 2.0, 1.0); 6];
        let rnn = Recurrent { activations: affine, clip: 0.5, ..spec(Cell::Rnn, 1) };
        assert_eq!(recurrent(&rnn, &operands).unwrap()[1].to_f64s(), [2.0]);
        // An LSTM whose activations are the identity: i = o = c~ = x, and f = 1 - i with coupled gates.
        let identity = [act(ActivationKind::Affine, 1.0, 0.0); 6];
        let w = f32s(&[1, 4, 1], &[1.0; 4]);
        let r = f32s(&[1, 4, 1], &[0.0; 4]);
        let c = one(10.0);
        let operands = Operands { w: &w, r: &r, initial_c: Some(&c), ..operands };
        let free = Recurrent { activations: identity, ..spec(Cell::Lstm, 1) };
        assert_eq!(recurrent(&free, &operands).unwrap()[2].to_f64s(), [39.0]);
        let coupled = Recurrent { input_forget: true, ..free };
        assert_eq!(recurrent(&coupled, &operands).unwrap()[2].to_f64s(), [-11.0]);
        assert_eq!(recurrent(&coupled, &operands).unwrap()[1].to_f64s(), [-33.0]);
        assert!(recurrent(&free, &Operands { w: &one(1.0), ..operands }).is_err());
    }

    #[test]
    fn each_activation() {
        let at = |kind, x| activation(act(kind, 0.5, 0.25), x);
        assert_eq!(at(ActivationKind::Relu, -2.0), 0.0);
        assert_eq!(at(ActivationKind::LeakyRelu, -2.0), -1.0);
        assert_eq!((at(ActivationKind::ThresholdedRelu, 0.4), at(ActivationKind::ThresholdedRelu, 0.6)), (0.0, 0.6));
        assert_eq!(at(ActivationKind::ScaledTanh, 2.0), 0.5 * 0.5f64.tanh());
        assert_eq!((at(ActivationKind::HardSigmoid, 1.0), at(ActivationKind::HardSigmoid, 9.0)), (0.75, 1.0));
        assert_eq!(at(ActivationKind::Elu, -1.0), 0.5 * (-1f64).exp_m1());
        assert_eq!(at(ActivationKind::Softsign, -1.0), -0.5);
        assert_eq!(at(ActivationKind::Softplus, 0.0), 2f64.ln());
    }
}
