//! Softmax and normalizations (ONNX `Softmax`, `LogSoftmax`, `LayerNormalization`, `RMSNormalization`,
//! `GroupNormalization`, `InstanceNormalization`). Statistics and results are formed in doubles and rounded once.

use lapidary_runtime::DType;
use lapidary_runtime::op::{GroupNorm, Norm, NormKind, Softmax};

use super::index::{self, Walk};
use super::pointwise;
use super::scalar;
use super::tensor::{Tensor, Values};
use crate::ir::Program;

fn floats(x: &Tensor) -> Result<Vec<f64>, String> {
    match x.decode() {
        Values::Float(values) => Ok(values),
        Values::Int(_) => Err(format!("{} elements are not normalized", x.dtype)),
    }
}

/// `exp(x - max) / sum exp(x - max)` along the axis, or its logarithm.
pub(super) fn softmax(spec: &Softmax, x: &Tensor) -> Result<Vec<Tensor>, String> {
    let (outer, extent, inner) = index::around(&x.dims, spec.axis)?;
    let mut values = floats(x)?;
    for line in 0..outer * inner {
        let place = |k: usize| (line / inner * extent + k) * inner + line % inner;
        let largest = (0..extent).fold(f64::NEG_INFINITY, |best, k| scalar::max(best, values[place(k)]));
        let sum: f64 = (0..extent).map(|k| (values[place(k)] - largest).exp()).sum();
        for k in 0..extent {
            let shifted = values[place(k)] - largest;
            values[place(k)] = if spec.log { shifted - sum.ln() } else { shifted.exp() / sum };
        }
    }
    Ok(vec![Tensor::from_f64s(x.dtype, x.dims.clone(), &values)])
}

/// Normalization of each row of x, the axes from the record's to the last; scale and bias broadcast against x.
/// Results y, the rows' means, and their inverse deviations (both `f32`, the row axes at extent 1).
pub(super) fn norm(
    spec: &Norm,
    epilogue: Option<&Program>,
    x: &Tensor,
    scale: Option<&Tensor>,
    bias: Option<&Tensor>,
) -> Result<Vec<Tensor>, String> {
    let axis = usize::from(spec.axis);
    if axis > x.rank() {
        return Err(format!("there is no axis {axis} in extents {:?}", x.dims));
    }
    let row: usize = x.dims[axis..].iter().product();
    let mut values = floats(x)?;
    let (mut means, mut inverses) = (Vec::new(), Vec::new());
    for row in values.chunks_exact_mut(row.max(1)) {
        let (mean, inverse) = normalize(spec.kind, spec.epsilon.as_f64(), row);
        means.push(mean);
        inverses.push(inverse);
    }
    if let Some(scale) = scale {
        let factors = floats(scale)?;
        let walk = Walk::new(&x.dims, &index::broadcast_strides(&scale.dims, &x.dims)?, 0);
        values.iter_mut().zip(walk).for_each(|(value, at)| *value *= factors[at]);
    }
    if let Some(bias) = bias {
        let terms = floats(bias)?;
        let walk = Walk::new(&x.dims, &index::broadcast_strides(&bias.dims, &x.dims)?, 0);
        values.iter_mut().zip(walk).for_each(|(value, at)| *value += terms[at]);
    }
    let mut dims = x.dims.clone();
    dims[axis..].fill(1);
    // A row without elements has no statistics; it still has a place.
    let rows = dims.iter().product();
    means.resize(rows, f64::NAN);
    inverses.resize(rows, f64::NAN);
    let mut results = pointwise::finish(Values::Float(values), x.dtype, x.dims.clone(), epilogue, &[])?;
    results.push(Tensor::from_f64s(DType::F32, dims.clone(), &means));
    results.push(Tensor::from_f64s(DType::F32, dims, &inverses));
    Ok(results)
}

/// Normalizes in place; the mean (0 where it is not taken out) and the inverse deviation.
fn normalize(kind: NormKind, epsilon: f64, row: &mut [f64]) -> (f64, f64) {
    let count = row.len() as f64;
    let mean = match kind {
        NormKind::Layer => row.iter().sum::<f64>() / count,
        NormKind::Rms => 0.0,
    };
    let variance = row.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / count;
    let inverse = 1.0 / (variance + epsilon).sqrt();
    row.iter_mut().for_each(|v| *v = (*v - mean) * inverse);
    (mean, inverse)
}

/// Normalization over groups of channels of x `[n, c, spatial..]`; scale and bias `[c]`.
pub(super) fn group_norm(
    spec: &GroupNorm,
    epilogue: Option<&Program>,
    x: &Tensor,
    scale: &Tensor,
    bias: &Tensor,
) -> Result<Vec<Tensor>, String> {
    let [_, channels, spatial @ ..] = x.dims.as_slice() else {
        return Err(format!("no groups of channels in extents {:?}", x.dims));
    };
    let groups = spec.groups as usize;
    if groups == 0 || channels % groups != 0 || scale.dims != [*channels] || bias.dims != [*channels] {
        return Err(format!("{groups} groups of {channels} channels, scale {:?}, bias {:?}", scale.dims, bias.dims));
    }
    let area: usize = spatial.iter().product();
    let (factors, terms) = (floats(scale)?, floats(bias)?);
    let mut values = floats(x)?;
    for group in values.chunks_exact_mut((channels / groups * area).max(1)) {
        normalize(NormKind::Layer, spec.epsilon.as_f64(), group);
    }
    for (k, plane) in values.chunks_exact_mut(area.max(1)).enumerate() {
        plane.iter_mut().for_each(|v| *v = *v * factors[k % channels] + terms[k % channels]);
    }
    pointwise::finish(Values::Float(values), x.dtype, x.dims.clone(), epilogue, &[])
}

#[cfg(test)]
mod tests {
    use lapidary_runtime::op::Scalar;

    use super::*;

    fn f64s(dims: &[usize], values: &[f64]) -> Tensor {
        Tensor::from_f64s(DType::F64, dims.to_vec(), values)
    }

    fn close(a: &[f64], b: &[f64]) {
        assert_eq!(a.len(), b.len());
        assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12), "{a:?} {b:?}");
    }

    #[test]
    fn softmax_along_an_axis() {
        let x = f64s(&[2, 2], &[0.0, 2f64.ln(), 3f64.ln(), 2f64.ln()]);
        let run = |axis, log| softmax(&Softmax { axis, log }, &x).unwrap()[0].to_f64s();
        close(&run(1, false), &[1.0 / 3.0, 2.0 / 3.0, 0.6, 0.4]);
        close(&run(0, false), &[0.25, 0.5, 0.75, 0.5]);
        close(&run(0, true), &[0.25f64.ln(), 0.5f64.ln(), 0.75f64.ln(), 0.5f64.ln()]);
        let large = f64s(&[2], &[1e4, 1e4]);
        close(&softmax(&Softmax { axis: 0, log: false }, &large).unwrap()[0].to_f64s(), &[0.5, 0.5]);
        let masked = f64s(&[2], &[f64::NEG_INFINITY; 2]);
        assert!(softmax(&Softmax { axis: 0, log: false }, &masked).unwrap()[0].to_f64s()[0].is_nan());
    }

    #[test]
    fn layer_norm_with_statistics() {
        let epsilon = Scalar::float(DType::F32, 0.25);
        let x = f64s(&[2, 2], &[1.0, 3.0, -2.0, -2.0]);
        let scale = f64s(&[2], &[1.0, 10.0]);
        let bias = f64s(&[1], &[100.0]);
        let spec = Norm { kind: NormKind::Layer, axis: 1, epsilon };
        let y = norm(&spec, None, &x, Some(&scale), Some(&bias)).unwrap();
        let inverse = 1.0 / 1.25f64.sqrt();
        close(&y[0].to_f64s(), &[100.0 - inverse, 100.0 + 10.0 * inverse, 100.0, 100.0]);
        assert_eq!((y[1].dims.as_slice(), y[1].to_f64s()), ([2, 1].as_slice(), vec![2.0, -2.0]));
        assert_eq!(y[2].to_f64s(), [f64::from(inverse as f32), 2.0]);
        // From axis 0: one row of four.
        let y = norm(&Norm { axis: 0, ..spec }, None, &x, None, None).unwrap();
        assert_eq!((y[1].dims.as_slice(), y[1].to_f64s()), ([1, 1].as_slice(), vec![0.0]));
        let y = norm(&Norm { kind: NormKind::Rms, ..spec }, None, &f64s(&[1, 2], &[1.0, 7.0]), None, None).unwrap();
        close(&y[0].to_f64s(), &[1.0 / 25.25f64.sqrt(), 7.0 / 25.25f64.sqrt()]);
    }

    #[test]
    fn groups_of_channels() {
        let spec = GroupNorm { groups: 2, epsilon: Scalar::float(DType::F32, 0.0) };
        let x = f64s(&[1, 4, 1], &[1.0, 3.0, 10.0, 30.0]);
        let (scale, bias) = (f64s(&[4], &[1.0, 1.0, 2.0, 2.0]), f64s(&[4], &[0.0, 0.0, 0.0, 5.0]));
        close(&group_norm(&spec, None, &x, &scale, &bias).unwrap()[0].to_f64s(), &[-1.0, 1.0, -2.0, 7.0]);
        // As many groups as channels: instance normalization.
        let spec = GroupNorm { groups: 2, epsilon: Scalar::float(DType::F32, 0.0) };
        let x = f64s(&[1, 2, 2], &[1.0, 3.0, 10.0, 30.0]);
        let ones = f64s(&[2], &[1.0, 1.0]);
        let zeros = f64s(&[2], &[0.0, 0.0]);
        close(&group_norm(&spec, None, &x, &ones, &zeros).unwrap()[0].to_f64s(), &[-1.0, 1.0, -1.0, 1.0]);
        assert!(group_norm(&GroupNorm { groups: 3, ..spec }, None, &x, &ones, &zeros).is_err());
    }
}
