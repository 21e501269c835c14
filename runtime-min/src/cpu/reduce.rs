//! Reductions (ONNX `Reduce*`, `ArgMax`, `ArgMin`). Sums and products are formed in double precision (64 bits, wrapping,
//! for integers) and rounded once. NaN wins a maximum and a minimum.

use crate::cpu::element::{Arith, Number, number};
use crate::cpu::memory::{Buffer, Plain, Tensor, TensorMut};
use crate::cpu::simd::vectorize;
use crate::dtype::DType;
use crate::op::{ArgReduce, Axes, MAX_RANK, Reduce, ReduceKind};

/// Axes in row-major order with their strides, to be walked through.
#[derive(Clone, Copy, Default)]
struct Walk {
    rank: usize,
    extents: [usize; MAX_RANK],
    strides: [usize; MAX_RANK],
}

impl Walk {
    fn push_outer(&mut self, extent: usize, stride: usize) {
        self.extents[self.rank] = extent;
        self.strides[self.rank] = stride;
        self.rank += 1;
    }

    fn count(&self) -> usize {
        self.extents[..self.rank].iter().product()
    }

    /// The offset of position `index`; the axes were pushed innermost first.
    fn offset(&self, mut index: usize) -> usize {
        let mut offset = 0;
        for axis in 0..self.rank {
            offset += index % self.extents[axis] * self.strides[axis];
            index /= self.extents[axis];
        }
        offset
    }
}

/// The operand of a reduction as nested loops: the innermost axis, and the kept and the reduced ones around it.
struct Nest {
    inner: usize,
    inner_is_reduced: bool,
    kept: Walk,
    reduced: Walk,
}

impl Nest {
    fn new(dims: &[usize], axes: Axes) -> Nest {
        // Innermost first; neighbours of one kind are one axis.
        let mut merged: [(usize, usize, bool); MAX_RANK] = [(1, 1, false); MAX_RANK];
        let mut rank = 0;
        let mut stride = 1;
        for axis in (0..dims.len()).rev() {
            let (extent, reduced) = (dims[axis], axes.contains(axis));
            if extent != 1 {
                if rank > 0 && merged[rank - 1].2 == reduced {
                    merged[rank - 1].0 *= extent;
                } else {
                    merged[rank] = (extent, stride, reduced);
                    rank += 1;
                }
            }
            stride *= extent;
        }
        let (inner, _, inner_is_reduced) = merged[0];
        let mut nest = Nest { inner, inner_is_reduced, kept: Walk::default(), reduced: Walk::default() };
        for &(extent, stride, reduced) in merged[..rank].iter().skip(1) {
            if reduced { nest.reduced.push_outer(extent, stride) } else { nest.kept.push_outer(extent, stride) }
        }
        nest
    }
}

/// Elements that are brought to the wide type at a time.
const CHUNK: usize = 512;

/// How values are folded: from `start` by `step`, running results brought together by `join`.
struct Fold<S, F, J> {
    start: S,
    step: F,
    join: J,
}

/// The operand of a reduction: its loops, and how to bring elements from `.0` on to the wide type. The folds see wide
/// values alone, so that there is one of each for floats and not one for each storage type.
struct Source<'s, W> {
    nest: &'s Nest,
    load: &'s dyn Fn(usize, &mut [W]),
}

impl<S: Copy, F, J> Fold<S, F, J> {
    /// Folds the operand; `done(index, state)` gets each result.
    fn run<W: Arith>(&self, source: &Source<'_, W>, states: &mut [S], mut done: impl FnMut(usize, S))
    where
        F: Fn(S, W) -> S,
        J: Fn(S, S) -> S,
    {
        let nest = source.nest;
        let rounds = nest.reduced.count();
        let mut chunk = [W::ZERO; CHUNK];
        for kept in 0..nest.kept.count() {
            let base = nest.kept.offset(kept);
            let mut total = self.start;
            states.fill(self.start);
            for round in 0..rounds {
                let row = base + nest.reduced.offset(round);
                for at in (0..nest.inner).step_by(CHUNK) {
                    let values = &mut chunk[..CHUNK.min(nest.inner - at)];
                    (source.load)(row + at, values);
                    vectorize(
                        #[inline(always)]
                        || {
                            if nest.inner_is_reduced {
                                total = (self.join)(total, self.row(values));
                            } else {
                                for (state, x) in states[at..].iter_mut().zip(values.iter()) {
                                    *state = (self.step)(*state, *x);
                                }
                            }
                        },
                    );
                }
            }
            if nest.inner_is_reduced {
                done(kept, total);
            } else {
                states.iter().enumerate().for_each(|(k, state)| done(kept * nest.inner + k, *state));
            }
        }
    }

    /// One contiguous row, in 16 running results.
    #[inline(always)]
    fn row<W: Arith>(&self, x: &[W]) -> S
    where
        F: Fn(S, W) -> S,
        J: Fn(S, S) -> S,
    {
        const LANES: usize = 16;
        let chunks = x.chunks_exact(LANES);
        let mut total = chunks.remainder().iter().fold(self.start, |state, x| (self.step)(state, *x));
        if x.len() >= LANES {
            let mut lanes = [self.start; LANES];
            for chunk in chunks {
                for (lane, x) in lanes.iter_mut().zip(chunk) {
                    *lane = (self.step)(*lane, *x);
                }
            }
            for lane in lanes {
                total = (self.join)(total, lane);
            }
        }
        total
    }
}

/// The running state of a logarithm of a sum of exponentials: the maximum, and the sum relative to it.
#[derive(Clone, Copy)]
#[repr(C)]
struct LogSum {
    max: f64,
    sum: f64,
}

// SAFETY: two doubles.
unsafe impl Plain for LogSum {}

impl LogSum {
    const EMPTY: LogSum = LogSum { max: f64::NEG_INFINITY, sum: 0.0 };

    fn join(self, other: LogSum) -> LogSum {
        let (high, low) = if other.max <= self.max { (self, other) } else { (other, self) };
        if low.max == f64::NEG_INFINITY && low.sum == 0.0 {
            return high;
        }
        let distance = if low.max == high.max { 0.0 } else { low.max - high.max };
        LogSum { max: high.max, sum: high.sum + low.sum * distance.exp() }
    }

    fn value(self) -> f64 {
        self.max + self.sum.ln()
    }
}

/// `out` = `x` reduced over the axes.
pub fn run(spec: &Reduce, x: &Tensor<'_>, out: &mut TensorMut<'_>, scratch: &mut Buffer) {
    let count = out.dims.count();
    if count == 0 {
        return;
    }
    let nest = Nest::new(&x.dims, spec.axes);
    // A bool is a number here: only the extrema come with it.
    let dtype = if x.dtype == DType::Bool { DType::U8 } else { x.dtype };
    number!(dtype, T => reduce::<T>(spec.kind, &nest, x.words(), out.words(), scratch));
    if x.dtype == DType::Bool {
        // The neutral element of a minimum is that of the bytes.
        out.bytes.iter_mut().for_each(|byte| *byte = u8::from(*byte != 0));
    }
}

fn reduce<T: Number>(kind: ReduceKind, nest: &Nest, x: &[T], out: &mut [T], scratch: &mut Buffer) {
    let load = |start: usize, to: &mut [<T::Acc as Arith>::Wide]| {
        vectorize(
            #[inline(always)]
            || to.iter_mut().zip(&x[start..]).for_each(|(to, x)| *to = x.widen().to_wide()),
        );
    };
    let source = Source { nest, load: &load };
    // The neutral elements of the extrema are those of the narrow type.
    let bounds = [T::Acc::LOWEST.to_wide(), T::Acc::HIGHEST.to_wide()];
    let mut done = |k: usize, result: Folded<_>| {
        out[k] = T::narrow(match result {
            Folded::Wide(wide) => T::Acc::from_wide(wide),
            Folded::Real(value) => T::Acc::from_f64(value),
        });
    };
    fold_wide(kind, &source, bounds, scratch, &mut done);
}

/// A result before it is brought to the operand's type.
enum Folded<W> {
    Wide(W),
    Real(f64),
}

fn fold_wide<W: Arith>(
    kind: ReduceKind,
    source: &Source<'_, W>,
    [lowest, highest]: [W; 2],
    scratch: &mut Buffer,
    done: &mut dyn FnMut(usize, Folded<W>),
) {
    use Folded::{Real, Wide};
    let nest = source.nest;
    let count = if nest.inner_is_reduced { 0 } else { nest.inner };
    let reduced = if nest.inner_is_reduced { nest.inner } else { 1 } * nest.reduced.count();
    if kind == ReduceKind::LogSumExp {
        let step = |state: LogSum, x: W| state.join(LogSum { max: x.to_f64(), sum: 1.0 });
        let fold = Fold { start: LogSum::EMPTY, step, join: LogSum::join };
        return fold.run(source, scratch.take(count), |k, state| done(k, Real(state.value())));
    }
    let states = scratch.take::<W>(count);
    let (zero, join) = (W::ZERO, W::add);
    let square = |sum: W, x: W| sum.add(x.mul(x));
    match kind {
        ReduceKind::Max => {
            Fold { start: lowest, step: W::larger, join: W::larger }.run(source, states, |k, s| done(k, Wide(s)))
        }
        ReduceKind::Min => {
            Fold { start: highest, step: W::smaller, join: W::smaller }.run(source, states, |k, s| done(k, Wide(s)))
        }
        ReduceKind::Sum => Fold { start: zero, step: W::add, join }.run(source, states, |k, s| done(k, Wide(s))),
        ReduceKind::Mean => {
            Fold { start: zero, step: W::add, join }.run(source, states, |k, s| done(k, Wide(s.share(reduced))))
        }
        ReduceKind::LogSum => {
            Fold { start: zero, step: W::add, join }.run(source, states, |k, s| done(k, Real(s.to_f64().ln())))
        }
        ReduceKind::L1 => {
            Fold { start: zero, step: |sum: W, x: W| sum.add(x.abs()), join }
                .run(source, states, |k, s| done(k, Wide(s)))
        }
        ReduceKind::L2 => {
            Fold { start: zero, step: square, join }.run(source, states, |k, s| done(k, Real(s.to_f64().sqrt())))
        }
        ReduceKind::SumSquare => Fold { start: zero, step: square, join }.run(source, states, |k, s| done(k, Wide(s))),
        ReduceKind::Prod | ReduceKind::LogSumExp => {
            Fold { start: W::ONE, step: W::mul, join: W::mul }.run(source, states, |k, s| done(k, Wide(s)))
        }
    }
}

/// `out` (`i64`) = the position of the extremum along the axis. NaN is an extremum, the first of them.
pub fn run_arg(spec: &ArgReduce, x: &Tensor<'_>, out: &mut TensorMut<'_>, scratch: &mut Buffer) {
    let axis = usize::from(spec.axis);
    let inner: usize = x.dims[axis + 1..].iter().product();
    let extent = x.dims[axis];
    let dtype = if x.dtype == DType::Bool { DType::U8 } else { x.dtype };
    let out = out.data::<i64>();
    if out.is_empty() || extent == 0 {
        return;
    }
    number!(dtype, T => {
        let x = x.words::<T>();
        let best = scratch.take::<<T as Number>::Acc>(inner);
        for (block, out) in x.chunks_exact(extent * inner).zip(out.chunks_exact_mut(inner)) {
            first_extrema::<T>(spec, block, best, out);
        }
    });
}

fn first_extrema<T: Number>(spec: &ArgReduce, block: &[T], best: &mut [T::Acc], out: &mut [i64]) {
    for (position, row) in block.chunks_exact(best.len()).enumerate() {
        for ((best, out), x) in best.iter_mut().zip(out.iter_mut()).zip(row) {
            let x = x.widen();
            let better = if spec.largest { x > *best } else { x < *best };
            let equal = x == *best || (x.is_nan() && best.is_nan());
            let wins = if best.is_nan() { false } else { better || x.is_nan() };
            if position == 0 || wins || (equal && spec.select_last) {
                *best = x;
                *out = position as i64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::{Random, assert_close, tensor, tensor_mut};

    const KINDS: [ReduceKind; 10] = [
        ReduceKind::Sum,
        ReduceKind::Mean,
        ReduceKind::Max,
        ReduceKind::Min,
        ReduceKind::Prod,
        ReduceKind::L1,
        ReduceKind::L2,
        ReduceKind::SumSquare,
        ReduceKind::LogSum,
        ReduceKind::LogSumExp,
    ];

    fn reduced<T: Number + Plain>(kind: ReduceKind, axes: Axes, x: &[T], dims: &[usize]) -> Vec<T> {
        let out_dims: Vec<usize> =
            dims.iter().enumerate().map(|(k, &d)| if axes.contains(k) { 1 } else { d }).collect();
        let mut out = vec![T::default(); out_dims.iter().product()];
        let spec = Reduce { kind, axes };
        run(&spec, &tensor(x, dims), &mut tensor_mut(&mut out, &out_dims), &mut Buffer::default());
        out
    }

    fn naive(kind: ReduceKind, values: &[f64]) -> f64 {
        let sum: f64 = values.iter().sum();
        match kind {
            ReduceKind::Sum => sum,
            ReduceKind::Mean => sum / values.len() as f64,
            ReduceKind::Max => values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            ReduceKind::Min => values.iter().copied().fold(f64::INFINITY, f64::min),
            ReduceKind::Prod => values.iter().product(),
            ReduceKind::L1 => values.iter().map(|x| x.abs()).sum(),
            ReduceKind::L2 => values.iter().map(|x| x * x).sum::<f64>().sqrt(),
            ReduceKind::SumSquare => values.iter().map(|x| x * x).sum(),
            ReduceKind::LogSum => sum.ln(),
            ReduceKind::LogSumExp => values.iter().map(|x| x.exp()).sum::<f64>().ln(),
        }
    }

    #[test]
    fn all_kinds_over_all_sets_of_axes() {
        let mut random = Random::new(5);
        let dims = [2, 3, 4, 37];
        let x: Vec<f32> = random.floats(dims.iter().product()).into_iter().map(|x| 1.1 + x * 0.2).collect();
        for kind in KINDS {
            for bits in 0..16u8 {
                let axes = Axes(bits);
                let mut groups: Vec<Vec<f64>> = Vec::new();
                let mut keys: Vec<usize> = Vec::new();
                for (k, value) in x.iter().enumerate() {
                    let (mut rest, mut key, mut scale) = (k, 0, 1);
                    for axis in (0..4).rev() {
                        if !axes.contains(axis) {
                            key += rest % dims[axis] * scale;
                            scale *= dims[axis];
                        }
                        rest /= dims[axis];
                    }
                    match keys.iter().position(|have| *have == key) {
                        Some(found) => groups[found].push(f64::from(*value)),
                        None => {
                            keys.push(key);
                            groups.push(vec![f64::from(*value)]);
                        }
                    }
                }
                let expected: Vec<f64> = (0..keys.len())
                    .map(|key| naive(kind, &groups[keys.iter().position(|k| *k == key).unwrap()]))
                    .collect();
                assert_close(&reduced(kind, axes, &x, &dims), &expected, 2e-6);
            }
        }
    }

    #[test]
    fn nothing_reduces_to_the_neutral_element() {
        let empty: [f32; 0] = [];
        let of = |kind| reduced(kind, Axes::of([1]), &empty, &[1, 0])[0];
        assert_eq!((of(ReduceKind::Sum), of(ReduceKind::Prod)), (0.0, 1.0));
        assert_eq!((of(ReduceKind::Max), of(ReduceKind::Min)), (f32::NEG_INFINITY, f32::INFINITY));
        assert_eq!(of(ReduceKind::LogSumExp), f32::NEG_INFINITY);
        assert_eq!(reduced(ReduceKind::Max, Axes::of([0]), &[] as &[i32], &[0, 2]), [i32::MIN; 2]);
    }

    #[test]
    fn extrema_of_no_bools_are_bools() {
        for (kind, expected) in [(ReduceKind::Min, 1), (ReduceKind::Max, 0)] {
            let spec = Reduce { kind, axes: Axes::of([0]) };
            let none = Tensor { dtype: DType::Bool, ..tensor(&[] as &[u8], &[0, 2]) };
            let mut out = [7u8; 2];
            let mut result = tensor_mut(&mut out, &[1, 2]);
            result.dtype = DType::Bool;
            run(&spec, &none, &mut result, &mut Buffer::default());
            assert_eq!(out, [expected; 2]);
        }
    }

    #[test]
    fn integers_wrap_and_truncate() {
        assert_eq!(reduced(ReduceKind::Sum, Axes::of([0]), &[100i8, 100], &[2]), [-56]);
        assert_eq!(reduced(ReduceKind::Mean, Axes::of([0]), &[1i32, 2], &[2]), [1]);
        assert_eq!(reduced(ReduceKind::Mean, Axes::of([0]), &[-1i32, -2], &[2]), [-1]);
        assert_eq!(reduced(ReduceKind::Mean, Axes::of([0]), &[(1i64 << 53) + 1; 2], &[2]), [(1 << 53) + 1]);
        assert_eq!(reduced(ReduceKind::Mean, Axes::of([0]), &[u64::MAX, 3], &[2]), [1]);
    }

    #[test]
    fn infinities_and_nan() {
        let inf = f32::INFINITY;
        assert_eq!(reduced(ReduceKind::LogSumExp, Axes::of([0]), &[inf, inf, 1.0], &[3]), [inf]);
        assert_eq!(reduced(ReduceKind::LogSumExp, Axes::of([0]), &[-inf, -inf], &[2]), [-inf]);
        assert!(reduced(ReduceKind::LogSumExp, Axes::of([0]), &[f32::NAN, 1.0, 2.0], &[3])[0].is_nan());
        assert!(reduced(ReduceKind::Max, Axes::of([0]), &[1.0, f32::NAN, 2.0], &[3])[0].is_nan());
    }

    #[test]
    fn extremum_positions() {
        let arg = |largest, select_last, x: &[f32], dims: &[usize], out_dims: &[usize]| {
            let mut out = vec![0i64; out_dims.iter().product()];
            let spec = ArgReduce { largest, axis: 1, select_last };
            run_arg(&spec, &tensor(x, dims), &mut tensor_mut(&mut out, out_dims), &mut Buffer::default());
            out
        };
        let x = [1.0, 3.0, 3.0, 0.0, 0.0, 2.0];
        assert_eq!(arg(true, false, &x, &[2, 3], &[2, 1]), [1, 2]);
        assert_eq!(arg(true, true, &x, &[2, 3], &[2, 1]), [2, 2]);
        assert_eq!(arg(false, false, &x, &[1, 3, 2], &[1, 1, 2]), [2, 1]);
        assert_eq!(arg(true, false, &[1.0, f32::NAN, 9.0], &[1, 3], &[1, 1]), [1]);
    }
}
