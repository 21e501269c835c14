//! Normalizations: of rows (ONNX `LayerNormalization`, `RMSNormalization`) and of groups of channels (ONNX
//! `GroupNormalization`, `InstanceNormalization`). Statistics are formed in double precision, in two passes.

use crate::cpu::element::{Arith, Number, float, sum};
use crate::cpu::memory::{Scratch, Tensor, TensorMut};
use crate::cpu::pointwise::Layout;
use crate::cpu::simd::vectorize;
use crate::op::{GroupNorm, Norm, NormKind};

/// Mean and inverse deviation.
#[derive(Clone, Copy)]
struct Statistics {
    mean: f64,
    inverse: f64,
}

#[inline(always)]
fn statistics<T: Number>(kind: NormKind, x: &[T], epsilon: f64) -> Statistics {
    let count = x.len() as f64;
    let mean = match kind {
        NormKind::Layer => sum(x, |x| x.to_wide()).to_f64() / count,
        NormKind::Rms => 0.0,
    };
    let center = <T::Acc as Arith>::Wide::from_f64(mean);
    let squares = sum(x, |x| {
        let distance = x.to_wide().sub(center);
        distance.mul(distance)
    });
    Statistics { mean, inverse: 1.0 / (squares.to_f64() / count + epsilon).sqrt() }
}

/// `outputs` = the normalized `x` and, where wanted, the mean and the inverse deviation (`f32`) of each row.
pub fn run(
    spec: &Norm,
    x: &Tensor<'_>,
    scale: Option<Tensor<'_>>,
    bias: Option<Tensor<'_>>,
    outputs: &mut [Option<TensorMut<'_>>; 3],
    scratch: &mut Scratch,
) {
    let [Some(out), mean, inverse] = outputs else { return };
    if x.dims.count() == 0 {
        // A row without elements has no statistics; it still has a place.
        for statistic in [mean, inverse].into_iter().flatten() {
            statistic.data::<f32>().fill(f32::NAN);
        }
        return;
    }
    let row: usize = x.dims[usize::from(spec.axis)..].iter().product();
    let mut mean = mean.as_mut().map(|tensor| tensor.data::<f32>());
    let mut inverse = inverse.as_mut().map(|tensor| tensor.data::<f32>());
    float!(x.dtype, T => {
        let mut scale = Factor::<<T as Number>::Acc>::new(scale, &x.dims, row, scratch.a.take(row), Arith::ONE);
        let mut bias = Factor::<<T as Number>::Acc>::new(bias, &x.dims, row, scratch.b.take(row), Arith::ZERO);
        for (k, (x, out)) in x.data::<T>().chunks_exact(row).zip(out.data::<T>().chunks_exact_mut(row)).enumerate() {
            let (scale, bias) = (scale.row(k), bias.row(k));
            let found = vectorize(
                #[inline(always)]
                || {
                    let found = statistics(spec.kind, x, spec.epsilon.as_f64());
                    scale_row(x, found, scale, bias, out);
                    found
                },
            );
            if let Some(mean) = &mut mean {
                mean[k] = found.mean as f32;
            }
            if let Some(inverse) = &mut inverse {
                inverse[k] = found.inverse as f32;
            }
        }
    });
}

#[inline(always)]
fn scale_row<T: Number>(x: &[T], found: Statistics, scale: &[T::Acc], bias: &[T::Acc], out: &mut [T]) {
    let (mean, inverse) = (T::Acc::from_f64(found.mean), T::Acc::from_f64(found.inverse));
    for (((out, x), scale), bias) in out.iter_mut().zip(x).zip(scale).zip(bias) {
        *out = T::narrow(x.widen().sub(mean).mul(inverse).mul(*scale).add(*bias));
    }
}

/// A scale or a bias that broadcasts against x, a row at a time.
struct Factor<'f, A> {
    tensor: Option<(Tensor<'f>, Layout)>,
    row: &'f mut [A],
    /// Whether the row at hand serves all.
    done: bool,
}

impl<'f, A: Arith> Factor<'f, A> {
    fn new(tensor: Option<Tensor<'f>>, dims: &[usize], len: usize, row: &'f mut [A], absent: A) -> Factor<'f, A> {
        let tensor = tensor.map(|tensor| (tensor, Layout::new(dims, &tensor.dims)));
        row.fill(absent);
        let mut factor = Factor { tensor, row, done: tensor.is_none() };
        if let Some((_, layout)) = tensor
            && layout.repeats_every(len)
        {
            factor.load(0);
            factor.done = true;
        }
        factor
    }

    fn row(&mut self, k: usize) -> &[A] {
        if !self.done {
            self.load(k);
        }
        self.row
    }

    fn load(&mut self, k: usize) {
        let Some((tensor, layout)) = &self.tensor else { return };
        let len = self.row.len();
        float!(tensor.dtype, T => {
            let data = tensor.data::<T>();
            layout.runs(k * len, len, |at, from, count, stride| {
                for (i, to) in self.row[at..at + count].iter_mut().enumerate() {
                    *to = A::from_f64(data[from + i * stride].widen().to_f64());
                }
            });
        });
    }
}

/// `out` = `x` normalized over groups of channels, then scaled by channel.
pub fn run_groups(spec: &GroupNorm, x: &Tensor<'_>, scale: &Tensor<'_>, bias: &Tensor<'_>, out: &mut TensorMut<'_>) {
    let groups = spec.groups as usize;
    let channels = x.dims[1];
    let plane: usize = x.dims[2..].iter().product();
    if x.dims.count() == 0 {
        return;
    }
    let per_group = channels / groups;
    float!(x.dtype, T => {
        let (x, out) = (x.data::<T>(), out.data::<T>());
        let size = per_group * plane;
        for (index, (x, out)) in x.chunks_exact(size).zip(out.chunks_exact_mut(size)).enumerate() {
            let first = index % groups * per_group;
            vectorize(
                #[inline(always)]
                || {
                    let found = statistics(NormKind::Layer, x, spec.epsilon.as_f64());
                    for (c, (x, out)) in x.chunks_exact(plane).zip(out.chunks_exact_mut(plane)).enumerate() {
                        scale_channel(x, found, scalar(scale, first + c), scalar(bias, first + c), out);
                    }
                },
            );
        }
    });
}

fn scalar(tensor: &Tensor<'_>, k: usize) -> f64 {
    float!(tensor.dtype, T => tensor.data::<T>()[k].widen().to_f64())
}

#[inline(always)]
fn scale_channel<T: Number>(x: &[T], found: Statistics, scale: f64, bias: f64, out: &mut [T]) {
    let mean = T::Acc::from_f64(found.mean);
    let (factor, bias) = (T::Acc::from_f64(found.inverse * scale), T::Acc::from_f64(bias));
    for (out, x) in out.iter_mut().zip(x) {
        *out = T::narrow(x.widen().sub(mean).mul(factor).add(bias));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::{Random, assert_close, tensor, tensor_mut};
    use crate::dtype::DType;
    use crate::op::Scalar;

    const EPSILON: f64 = 1e-5;

    fn exact(kind: NormKind, row: &[f32]) -> (f64, f64) {
        let mean = match kind {
            NormKind::Layer => row.iter().map(|x| f64::from(*x)).sum::<f64>() / row.len() as f64,
            NormKind::Rms => 0.0,
        };
        let variance = row.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / row.len() as f64;
        (mean, 1.0 / (variance + EPSILON).sqrt())
    }

    #[test]
    fn rows() {
        let mut random = Random::new(21);
        let dims = [2, 3, 5, 8];
        let x = random.floats(240);
        for kind in [NormKind::Layer, NormKind::Rms] {
            for (axis, scale_dims) in [(3, vec![8]), (2, vec![5, 8]), (2, vec![5, 1]), (3, vec![3, 1, 8]), (1, vec![])]
            {
                let row: usize = dims[axis..].iter().product();
                let scale = random.floats(scale_dims.iter().product());
                let bias = random.floats(scale.len());
                let layout = Layout::new(&dims, &scale_dims);
                let mut expected = Vec::new();
                for (k, value) in x.iter().enumerate() {
                    let (mean, inverse) = exact(kind, &x[k / row * row..][..row]);
                    let at = layout.at(k);
                    expected.push((f64::from(*value) - mean) * inverse * f64::from(scale[at]) + f64::from(bias[at]));
                }
                let (mut out, mut mean, mut inverse) = (vec![0f32; 240], vec![0f32; 240 / row], vec![0f32; 240 / row]);
                let rows = [240 / row];
                let mut outputs = [
                    Some(tensor_mut(&mut out, &dims)),
                    Some(tensor_mut(&mut mean, &rows)),
                    Some(tensor_mut(&mut inverse, &rows)),
                ];
                let spec = Norm { kind, axis: axis as u8, epsilon: Scalar::float(DType::F32, EPSILON) };
                let (s, b) = (tensor(&scale, &scale_dims), tensor(&bias, &scale_dims));
                run(&spec, &tensor(&x, &dims), Some(s), Some(b), &mut outputs, &mut Scratch::default());
                assert_close(&out, &expected, 1e-6);
                assert_close(&mean, &x.chunks(row).map(|r| exact(kind, r).0).collect::<Vec<_>>(), 1e-6);
                assert_close(&inverse, &x.chunks(row).map(|r| exact(kind, r).1).collect::<Vec<_>>(), 1e-6);
            }
        }
    }

    #[test]
    fn groups() {
        let mut random = Random::new(22);
        let (x, scale, bias) = (random.floats(2 * 6 * 9), random.floats(6), random.floats(6));
        for groups in [1, 2, 6] {
            let size = 54 / groups;
            let expected: Vec<f64> = (0..108)
                .map(|k| {
                    let (mean, inverse) = exact(NormKind::Layer, &x[k / size * size..][..size]);
                    let c = k / 9 % 6;
                    (f64::from(x[k]) - mean) * inverse * f64::from(scale[c]) + f64::from(bias[c])
                })
                .collect();
            let mut out = vec![0f32; 108];
            let spec = GroupNorm { groups: groups as u32, epsilon: Scalar::float(DType::F32, EPSILON) };
            let (s, b) = (tensor(&scale, &[6]), tensor(&bias, &[6]));
            run_groups(&spec, &tensor(&x, &[2, 6, 3, 3]), &s, &b, &mut tensor_mut(&mut out, &[2, 6, 3, 3]));
            assert_close(&out, &expected, 1e-6);
        }
    }
}
