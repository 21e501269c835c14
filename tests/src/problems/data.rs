//! Data for a problem's graph at given extents: random, but such that the result is defined.

use lapidary::ir::Graph;
use lapidary::ir::eval::Tensor;
use lapidary_runtime::DType;
use lapidary_runtime::op::{ReduceKind, ScalarOp};
use lapidary_templates::{Kind, Problem, Program};

/// xorshift64* (S. Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled").
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Between 0 and 1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 40) as f64 / (1u64 << 24) as f64
    }

    /// From `from` up to, without, `to`.
    fn whole(&mut self, from: i64, to: i64) -> i64 {
        from + (self.next() >> 33) as i64 % (to - from).max(1)
    }
}

/// Tensors for the inputs of `graph`, which is that of `problem`, where symbols have these values.
pub fn inputs(problem: &Problem, graph: &Graph, symbol: &dyn Fn(&str) -> i64, seed: u64) -> Vec<Tensor> {
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15 ^ (seed << 17 | 1));
    let dims_of = |k: usize| -> Vec<usize> {
        graph.ty(graph.inputs()[k]).dims.iter().map(|dim| usize::try_from(dim.eval(symbol)).unwrap_or(0)).collect()
    };
    // Which operand an input is: absent operands have no input.
    let present: Vec<usize> = (0..problem.inputs.len()).filter(|&k| problem.inputs[k].is_some()).collect();
    let all = 0..graph.inputs().len();
    all.map(|number| {
        let (dtype, dims) = (graph.ty(graph.inputs()[number]).dtype, dims_of(number));
        let data = dims_of(0);
        match present.get(number) {
            Some(&operand) => tensor(&problem.kind, operand, dtype, dims, &data, &mut noise),
            None => plain(dtype, dims, Domain::Any, &mut noise),
        }
    })
    .collect()
}

/// Operand `operand` of an operation whose first operand has the extents `data`.
fn tensor(kind: &Kind, operand: usize, dtype: DType, dims: Vec<usize>, data: &[usize], noise: &mut Noise) -> Tensor {
    let count: usize = dims.iter().product();
    let index = |extent: usize, noise: &mut Noise| noise.whole(-(extent as i64), extent as i64);
    let integers = |values: Vec<i64>| Tensor::from_i64s(dtype, dims.clone(), &values);
    match (kind, operand) {
        (Kind::Pair(pair), k) if k < pair.first.inputs.len() => tensor(&pair.first.kind, k, dtype, dims, data, noise),
        (Kind::Gather { axis } | Kind::GatherElements { axis }, 1) => {
            integers((0..count).map(|_| index(data[usize::from(*axis)], noise)).collect())
        }
        (Kind::GatherNd { batch_dims }, 1) => {
            let depth = dims.last().copied().unwrap_or(1);
            let extents = &data[usize::from(*batch_dims)..];
            integers((0..count).map(|k| index(extents[k % depth], noise)).collect())
        }
        // Each line has its indices once, so that the order of writing does not show.
        (Kind::ScatterElements { axis, .. }, 1) => {
            let axis = usize::from(*axis);
            let inner: usize = dims[axis + 1..].iter().product();
            let (given, extent) = (dims[axis], data[axis] as i64);
            integers((0..count).map(|k| extent - 1 - (k / inner % given) as i64).collect())
        }
        (Kind::ScatterNd { .. }, 1) => {
            let depth = dims.last().copied().unwrap_or(1);
            let strides: Vec<usize> = (0..depth).map(|k| data[k + 1..depth].iter().product()).collect();
            integers((0..count).map(|k| (k / depth / strides[k % depth] % data[k % depth]) as i64).collect())
        }
        (Kind::Resize(_), 1) => {
            let half = dims[0] / 2;
            let (starts, ends) = ([0.0, 0.0, 0.1, 0.25], [1.0, 1.0, 0.8, 1.1]);
            let roi: Vec<f64> = (0..dims[0]).map(|k| if k < half { starts[k % 4] } else { ends[k % 4] }).collect();
            Tensor::from_f64s(dtype, dims, &roi)
        }
        // Weights as a trained layer has them: with larger ones each step multiplies the last one's rounding.
        (Kind::Recurrent(spec), 1 | 2) => {
            let spread = 1.0 / f64::from(spec.hidden).sqrt();
            Tensor::from_f64s(dtype, dims, &(0..count).map(|_| spread * (2.0 * noise.unit() - 1.0)).collect::<Vec<_>>())
        }
        (Kind::Attention(..), 3) => Tensor::from_f64s(dtype, dims.clone(), &masking(&dims, noise)),
        (Kind::Recurrent(_), 4) => integers((0..count).map(|_| noise.whole(1, data[0] as i64 + 1)).collect()),
        // Boxes from 0 to 2, so that about half of them overlap.
        (Kind::Suppress, 0) => {
            let corner = |k: usize| if k % 4 < 2 { 0.0 } else { 1.0 };
            let values: Vec<f64> = (0..count).map(|k| corner(k) + noise.unit()).collect();
            Tensor::from_f64s(dtype, dims, &values)
        }
        (Kind::Suppress, 1) => {
            let boxes = data[1] as i64;
            integers((0..count as i64).map(|k| (k * 7 + 3) % boxes.max(1)).collect())
        }
        (Kind::Suppress, 3) => Tensor::from_f64s(dtype, dims, &[0.6]),
        (Kind::Suppress, 4) => integers(vec![9]),
        // Sides from -2 to 26, a few of which are swapped; scaled they reach over the images' ends.
        (Kind::RegionPool(_), 1) => {
            let side = |k: usize| if k % 4 < 2 { -2.0 } else { 8.0 };
            let values: Vec<f64> = (0..count).map(|k| side(k) + noise.unit() * 18.0).collect();
            Tensor::from_f64s(dtype, dims, &values)
        }
        (Kind::RegionPool(_), 2) => integers((0..count).map(|_| noise.whole(0, data[0] as i64)).collect()),
        (Kind::Range, _) => Tensor::from_f64s(dtype, dims, &[if operand == 0 { 3.0 } else { 2.0 }]),
        (Kind::Reduce(spec), _) => plain(dtype, dims, reduced(spec.kind), noise),
        // Means that cancel say nothing of the sum.
        (Kind::Norm(..), 0) => plain(dtype, dims, Domain::Positive, noise),
        (Kind::Pointwise(program), _) if converts_to_storage(program) => plain(dtype, dims, Domain::Whole, noise),
        (Kind::Pointwise(program), _) if program.steps.iter().any(|step| partial(step.op)) => {
            plain(dtype, dims, Domain::Positive, noise)
        }
        _ => plain(dtype, dims, Domain::Any, noise),
    }
}

/// A mask of attention: what hides a key in part, nearly, and altogether; some rows hide all.
fn masking(dims: &[usize], noise: &mut Noise) -> Vec<f64> {
    let row = dims.last().copied().unwrap_or(1);
    let value = |k: usize, noise: &mut Noise| match noise.whole(0, 8) {
        _ if row > 1 && k / row % 7 == 3 => f64::NEG_INFINITY,
        0 => f64::NEG_INFINITY,
        1 => -60.0,
        _ => 2.0 * noise.unit() - 1.0,
    };
    (0..dims.iter().product()).map(|k| value(k, noise)).collect()
}

/// What of a type's numbers an operation is defined for.
#[derive(Clone, Copy)]
enum Domain {
    Any,
    /// From one half to one and a half, or from 1 to 8.
    Positive,
    /// Every code of the types of at most 8 bits; of the others numbers of every magnitude, infinities and NaN.
    Whole,
}

fn converts_to_storage(program: &Program) -> bool {
    program.inputs.iter().chain(program.steps.iter().map(|step| &step.dtype)).any(|dtype| dtype.is_storage())
}

fn reduced(kind: ReduceKind) -> Domain {
    match kind {
        // Logarithms of negative numbers, and sums that cancel, say nothing of the kernel.
        ReduceKind::Prod | ReduceKind::LogSum | ReduceKind::LogSumExp | ReduceKind::Sum | ReduceKind::Mean => {
            Domain::Positive
        }
        ReduceKind::Max | ReduceKind::Min | ReduceKind::L1 | ReduceKind::L2 | ReduceKind::SumSquare => Domain::Any,
    }
}

/// Whether an operation has arguments without a result.
fn partial(op: ScalarOp) -> bool {
    matches!(op, ScalarOp::Pow | ScalarOp::Mod | ScalarOp::Fmod | ScalarOp::Div | ScalarOp::Log | ScalarOp::Sqrt)
}

fn plain(dtype: DType, dims: Vec<usize>, domain: Domain, noise: &mut Noise) -> Tensor {
    let count = dims.iter().product();
    if let Domain::Whole = domain {
        return whole(dtype, dims, noise);
    }
    if dtype.is_float() {
        let value = |noise: &mut Noise| match domain {
            Domain::Any => 2.0 * noise.unit() - 1.0,
            Domain::Positive | Domain::Whole => 0.5 + noise.unit(),
        };
        return Tensor::from_f64s(dtype, dims, &(0..count).map(|_| value(noise)).collect::<Vec<_>>());
    }
    let (from, to) = match (domain, dtype) {
        (_, DType::Bool) => (0, 2),
        (Domain::Positive | Domain::Whole, _) => (1, 8),
        (Domain::Any, _) if dtype.is_signed_int() => (-8, 8),
        (Domain::Any, _) => (0, 16),
    };
    Tensor::from_i64s(dtype, dims, &(0..count).map(|_| noise.whole(from, to)).collect::<Vec<_>>())
}

fn whole(dtype: DType, dims: Vec<usize>, noise: &mut Noise) -> Tensor {
    let count = dims.iter().product();
    if dtype.is_float() && dtype.bits() > 8 {
        let value = |noise: &mut Noise| match noise.whole(0, 16) {
            0 => f64::INFINITY,
            1 => f64::NEG_INFINITY,
            2 => f64::NAN,
            // What the small formats tell apart, ties included: three bits of mantissa, and one more.
            3..=9 => {
                let sign = if noise.whole(0, 2) == 0 { 1.0 } else { -1.0 };
                sign * noise.whole(0, 33) as f64 * 2f64.powi(noise.whole(-24, 14) as i32)
            }
            10 => (2.0 * noise.unit() - 1.0) * 2f64.powi(noise.whole(-140, 128) as i32),
            _ => (2.0 * noise.unit() - 1.0) * 2f64.powi(noise.whole(-12, 12) as i32),
        };
        return Tensor::from_f64s(dtype, dims, &(0..count).map(|_| value(noise)).collect::<Vec<_>>());
    }
    if dtype.is_float() {
        let mut bytes: Vec<u8> = (0..dtype.bytes(count)).map(|_| (noise.next() >> 40) as u8).collect();
        // The bits behind the last element are zero.
        if let (Some(last), used @ 1..) = (bytes.last_mut(), count * dtype.bits() % 8) {
            *last &= (1u8 << used) - 1;
        }
        return Tensor::new(dtype, dims, bytes).expect("as many bytes as the type asks for");
    }
    let shift = |noise: &mut Noise| noise.whole(0, 64);
    let value =
        |noise: &mut Noise| if dtype == DType::Bool { noise.whole(0, 2) } else { noise.next() as i64 >> shift(noise) };
    Tensor::from_i64s(dtype, dims, &(0..count).map(|_| value(noise)).collect::<Vec<_>>())
}
