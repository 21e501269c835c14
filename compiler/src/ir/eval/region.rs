//! Pooling of regions of images (ONNX `RoiAlign`, `MaxRoiPool`).

use lapidary_runtime::DType;
use lapidary_runtime::op::{MAX_SAMPLES, RegionKind, RegionPool};

use super::parallel;
use super::scalar::max;
use super::tensor::Tensor;

/// Pooling of x `[n, c, h, w]` over regions `[count, 4]` (left, top, right, bottom) of the images `[count]`; the result
/// is `[count, c, bins..]`.
pub(super) fn region_pool(
    spec: &RegionPool,
    x: &Tensor,
    regions: &Tensor,
    images: &Tensor,
) -> Result<Vec<Tensor>, String> {
    let &[n, channels, height, width] = x.dims.as_slice() else { return Err("images have another rank".to_owned()) };
    if height * width == 0 {
        return Err("the images have no elements".to_owned());
    }
    let image = |&at: &i64| usize::try_from(at).ok().filter(|at| *at < n).ok_or(format!("there is no image {at}"));
    let images: Vec<usize> = images.to_i64s().iter().map(image).collect::<Result<_, _>>()?;
    let [down, right] = spec.bins.map(|bins| bins as usize);
    let corners = regions.to_f64s();
    let round: Round = if regions.dtype == DType::F64 { |value| value } else { |value| f64::from(value as f32) };
    let values = x.to_f64s();
    let rows = parallel::map(images.len(), channels * height * width, |k| {
        let corners = &corners[k * 4..][..4];
        let axes = [(1, height), (0, width)].map(|(side, length)| {
            let bins = spec.bins[1 - side];
            Axis { spec, start: corners[side], end: corners[side + 2], bins, length, round }
        });
        let planes = values[images[k] * channels * height * width..].chunks_exact(height * width).take(channels);
        let bin = |x: &[f64], bin: usize| match spec.kind {
            RegionKind::Elements => largest(x, &axes, [bin / right, bin % right]),
            RegionKind::Mean | RegionKind::Max => sampled(spec.kind, x, &axes, [bin / right, bin % right]),
        };
        planes.flat_map(|x| (0..down * right).map(|k| bin(x, k)).collect::<Vec<f64>>()).collect::<Vec<f64>>()
    });
    Ok(vec![Tensor::from_f64s(x.dtype, vec![images.len(), channels, down, right], &rows.concat())])
}

/// Rounds to the regions' type.
type Round = fn(f64) -> f64;

/// One axis of a region.
struct Axis<'a> {
    spec: &'a RegionPool,
    start: f64,
    end: f64,
    bins: u32,
    length: usize,
    round: Round,
}

impl Axis<'_> {
    /// The samples of a bin: of those inside the element before each and its share of the distance to the next; `None` for
    /// those outside.
    fn samples(&self, bin: usize) -> Vec<Option<(usize, f64)>> {
        let round = self.round;
        let offset = if self.spec.half_pixel { 0.5 } else { 0.0 };
        let [start, end] = [self.start, self.end].map(|side| round(round(side * f64::from(self.spec.scale)) - offset));
        let size = round(end - start);
        let size = if self.spec.half_pixel { size } else { size.max(1.0) };
        let step = round(size / f64::from(self.bins));
        // What is not a number converts to 0.
        let found = (step.ceil() as u32).min(MAX_SAMPLES);
        let count = if self.spec.samples == 0 { found } else { self.spec.samples };
        let first = round(start + round(bin as f64 * step));
        let last = self.length as f64 - 1.0;
        let sample = |k: u32| {
            let moved = round(round(round(f64::from(k) + 0.5) * step) / f64::from(count));
            let at = round(first + moved);
            let inside = (-1.0..=self.length as f64).contains(&at);
            let at = at.clamp(0.0, last);
            inside.then(|| (at.floor() as usize, at - at.floor()))
        };
        (0..count).map(sample).collect()
    }

    /// The elements of a bin.
    fn elements(&self, bin: usize) -> std::ops::Range<usize> {
        let round = self.round;
        let far = 2f64.powi(40);
        let [start, end] =
            [self.start, self.end].map(|side| round(side * f64::from(self.spec.scale)).round().clamp(-far, far) as i64);
        let step = round(round((end - start + 1).max(1) as f64) / f64::from(self.bins));
        let edge = |at: f64| (at as i64 + start).clamp(0, self.length as i64) as usize;
        edge(round(bin as f64 * step).floor())..edge(round((bin + 1) as f64 * step).ceil())
    }
}

/// The largest element of a bin, 0 if there is none.
fn largest(x: &[f64], [down, right]: &[Axis<'_>; 2], bin: [usize; 2]) -> f64 {
    let columns = right.elements(bin[1]);
    let all = down.elements(bin[0]).flat_map(|row| columns.clone().map(move |column| x[row * right.length + column]));
    all.reduce(max).unwrap_or(0.0)
}

/// What a bin is of its samples.
fn sampled(kind: RegionKind, x: &[f64], [down, right]: &[Axis<'_>; 2], bin: [usize; 2]) -> f64 {
    let (rows, columns) = (down.samples(bin[0]), right.samples(bin[1]));
    let mut terms = Vec::new();
    for row in &rows {
        for column in &columns {
            let (Some((row, below)), Some((column, behind))) = (*row, *column) else {
                terms.push(0.0);
                continue;
            };
            for (row, of_row) in [(row, 1.0 - below), ((row + 1).min(down.length - 1), below)] {
                for (column, of_column) in [(column, 1.0 - behind), ((column + 1).min(right.length - 1), behind)] {
                    terms.push(of_row * of_column * x[row * right.length + column]);
                }
            }
        }
    }
    match kind {
        RegionKind::Mean => terms.iter().sum::<f64>() / (rows.len() * columns.len()).max(1) as f64,
        RegionKind::Max | RegionKind::Elements => terms.into_iter().reduce(max).unwrap_or(0.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 0, 1, .. 15 in four rows.
    fn pooled(spec: &RegionPool, regions: &[f64], image: i64) -> Result<Vec<f64>, String> {
        let elements: Vec<f64> = (0..16).map(f64::from).collect();
        let x = Tensor::from_f64s(DType::F32, vec![1, 1, 4, 4], &elements);
        let regions = Tensor::from_f64s(DType::F32, vec![1, 4], regions);
        let images = Tensor::from_i64s(DType::I64, vec![1], &[image]);
        Ok(region_pool(spec, &x, &regions, &images)?[0].to_f64s())
    }

    const SPEC: RegionPool =
        RegionPool { kind: RegionKind::Mean, bins: [1, 2], samples: 0, half_pixel: true, scale: 1.0 };

    #[test]
    fn means_are_those_of_a_plane() {
        // Rows 0.5, 1.5 and columns 0.125, 0.875 and 1.625, 2.375: the mean over a plane is what is in the middle.
        assert_eq!(pooled(&SPEC, &[0.25, 0.5, 3.25, 2.5], 0), Ok(vec![4.5, 6.0]));
        let one = RegionPool { samples: 1, ..SPEC };
        assert_eq!(pooled(&one, &[0.25, 0.5, 3.25, 2.5], 0), Ok(vec![4.5, 6.0]));
        // Half as large in elements.
        let scaled = RegionPool { scale: 0.5, ..SPEC };
        assert_eq!(pooled(&scaled, &[0.5, 1.0, 6.5, 5.0], 0), Ok(vec![4.5, 6.0]));
        // One of two columns of samples lies outside of the image.
        assert_eq!(pooled(&RegionPool { bins: [1, 1], samples: 2, ..SPEC }, &[-3.5, 1.5, 4.5, 1.5], 0), Ok(vec![3.0]));
    }

    #[test]
    fn a_region_without_extent_is_0_or_an_element() {
        assert_eq!(pooled(&SPEC, &[1.0, 1.0, 1.0, 3.0], 0), Ok(vec![0.0; 2]));
        let least = RegionPool { bins: [1, 1], half_pixel: false, ..SPEC };
        assert_eq!(pooled(&least, &[1.0, 1.0, 1.0, 1.0], 0), Ok(vec![7.5]));
    }

    #[test]
    fn the_largest_is_of_weighted_elements_or_of_whole_ones() {
        let max = RegionPool { kind: RegionKind::Max, bins: [1, 1], samples: 1, ..SPEC };
        // A quarter of 0, 1, 4, 5.
        assert_eq!(pooled(&max, &[0.5, 0.5, 1.5, 1.5], 0), Ok(vec![1.25]));
        // Rows 1 and 2; of columns 0 to 2 the first two, and the last two.
        let whole = RegionPool { kind: RegionKind::Elements, half_pixel: false, ..SPEC };
        assert_eq!(pooled(&whole, &[0.0, 1.4, 2.4, 1.5], 0), Ok(vec![9.0, 10.0]));
        assert_eq!(pooled(&whole, &[5.0, 0.0, 6.0, 1.0], 0), Ok(vec![0.0; 2]));
    }

    #[test]
    fn there_must_be_the_image() {
        let x = Tensor::from_f64s(DType::F32, vec![1, 1, 4, 0], &[]);
        let (none, nobody) =
            (Tensor::from_f64s(DType::F32, vec![0, 4], &[]), Tensor::from_i64s(DType::I64, vec![0], &[]));
        assert_eq!(region_pool(&SPEC, &x, &none, &nobody).err(), Some("the images have no elements".to_owned()));
        assert_eq!(pooled(&SPEC, &[0.0; 4], 1), Err("there is no image 1".to_owned()));
    }
}
