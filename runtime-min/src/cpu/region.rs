//! Pooling of regions of images (ONNX `RoiAlign`, `MaxRoiPool`). What is sampled along y and along x is worked out once a
//! region, and serves all channels.

use core::ops::Range;

use crate::cpu::element::{Arith, Number, float};
use crate::cpu::gather::OutOfRange;
use crate::cpu::memory::{Buffer, Inputs, Scratch, Tensor, TensorMut};
use crate::dtype::DType;
use crate::op::{MAX_SAMPLES, RegionKind, RegionPool};

/// Operands x `[n, c, h, w]`, regions `[count, 4]`, images `[count]`; `out` is `[count, c, bins..]`.
pub fn run(
    spec: &RegionPool,
    inputs: &Inputs<'_>,
    out: &mut TensorMut<'_>,
    scratch: &mut Scratch,
) -> Result<(), OutOfRange> {
    let [x, regions, images] = [0, 1, 2].map(|k| inputs.need(k));
    let cells: usize = out.dims[1..].iter().product();
    let image: usize = x.dims[1..].iter().product();
    if cells * out.dims[0] == 0 {
        return Ok(());
    }
    float!(x.dtype, T => {
        let results = out.data::<T>().chunks_exact_mut(cells);
        for (k, (&index, out)) in images.data::<i64>().iter().zip(results).enumerate() {
            let found = usize::try_from(index).ok().filter(|at| *at < x.dims[0]);
            let at = found.ok_or(OutOfRange { index, extent: x.dims[0] as i64 })?;
            let region = Region { spec, height: x.dims[2], width: x.dims[3], corners: corners(&regions, k) };
            region.pool::<T>(&x.data()[at * image..][..image], out, scratch);
        }
    });
    Ok(())
}

/// Left, top, right, bottom of region `k`, and how their type rounds.
fn corners(regions: &Tensor<'_>, k: usize) -> ([f64; 4], Round) {
    let of = |side| k * 4 + side;
    match regions.dtype {
        DType::F64 => (core::array::from_fn(|side| regions.data::<f64>()[of(side)]), |value| value),
        _ => (core::array::from_fn(|side| f64::from(regions.data::<f32>()[of(side)])), |value| f64::from(value as f32)),
    }
}

/// Rounds to the regions' type. A double that holds the result of one operation on floats rounds to that of the floats.
type Round = fn(f64) -> f64;

/// A region of an image of these extents.
struct Region<'r> {
    spec: &'r RegionPool,
    height: usize,
    width: usize,
    corners: ([f64; 4], Round),
}

impl Region<'_> {
    /// All bins of all channels.
    fn pool<T: Number>(&self, x: &[T], out: &mut [T], scratch: &mut Scratch) {
        let plane = self.height * self.width;
        let bins = self.spec.bins.map(|bins| bins as usize);
        let planes = x.chunks_exact(plane).zip(out.chunks_exact_mut(bins[0] * bins[1]));
        let Scratch { a, b, c, d, e, index, .. } = scratch;
        if let RegionKind::Elements = self.spec.kind {
            let rows = self.elements(0, a);
            let columns = self.elements(1, b);
            for (x, out) in planes {
                for (k, out) in out.iter_mut().enumerate() {
                    let largest = |found: T::Acc, row: usize| {
                        let row = &x[row * self.width..][range(columns, k % bins[1])];
                        row.iter().fold(found, |found, x| found.larger(x.widen()))
                    };
                    let (rows, columns) = (range(rows, k / bins[1]), range(columns, k % bins[1]));
                    let empty = rows.is_empty() || columns.is_empty();
                    let start = if empty { T::Acc::ZERO } else { T::Acc::LOWEST };
                    *out = T::narrow(rows.fold(start, largest));
                }
            }
            return;
        }
        let rows = self.line(0).samples(a, b, c);
        let columns = self.line(1).samples(d, e, index);
        let taken = rows.count * columns.count;
        for (x, out) in planes {
            for (k, out) in out.iter_mut().enumerate() {
                let (rows, columns) = (rows.of(k / bins[1]), columns.of(k % bins[1]));
                let inside = rows.len() * columns.len();
                let all = rows.flat_map(|row| columns.clone().map(move |column| (row, column)));
                let weighted = all.map(|(row, column)| corner_terms::<T>(x, self.width, row, column));
                *out = T::narrow(match self.spec.kind {
                    RegionKind::Mean => {
                        let sum = weighted.fold(T::Acc::ZERO, |sum, four| four.into_iter().fold(sum, Arith::add));
                        sum.share(taken.max(1))
                    }
                    RegionKind::Max | RegionKind::Elements => {
                        // What lies outside is 0.
                        let start = if inside < taken || taken == 0 { T::Acc::ZERO } else { T::Acc::LOWEST };
                        weighted.fold(start, |found, four| four.into_iter().fold(found, Arith::larger))
                    }
                });
            }
        }
    }

    /// The length of the image along an axis, and the region's sides there.
    fn sides(&self, axis: usize) -> (usize, [f64; 2]) {
        let (corners, round) = self.corners;
        let scaled = [1 - axis, 3 - axis].map(|side| round(corners[side] * f64::from(self.spec.scale)));
        ([self.height, self.width][axis], scaled)
    }

    fn line(&self, axis: usize) -> Line {
        let (length, sides) = self.sides(axis);
        let (_, round) = self.corners;
        let bins = self.spec.bins[axis];
        let [start, end] = sides.map(|side| if self.spec.half_pixel { round(side - 0.5) } else { side });
        let size = round(end - start);
        let size = if self.spec.half_pixel { size } else { size.max(1.0) };
        let bin = round(size / f64::from(bins));
        let samples = match self.spec.samples {
            // None where the size is negative or NaN.
            0 => (bin.ceil() as u32).min(MAX_SAMPLES),
            samples => samples,
        };
        Line { start, bin, bins: bins as usize, samples, length, round }
    }

    /// The first element of each bin, and the one behind its last.
    fn elements<'s>(&self, axis: usize, buffer: &'s mut Buffer) -> &'s [u64] {
        let (length, sides) = self.sides(axis);
        let (_, round) = self.corners;
        // Far from where a sum overflows, and from any image.
        let [start, end] = sides.map(|side| side.round().clamp(-FAR, FAR) as i64);
        let size = round((end - start + 1).max(1) as f64);
        let bin = round(size / f64::from(self.spec.bins[axis]));
        let ends = buffer.take::<u64>(self.spec.bins[axis] as usize * 2);
        let clamped = |edge: f64| (edge as i64 + start).clamp(0, length as i64) as u64;
        for (k, ends) in ends.chunks_exact_mut(2).enumerate() {
            ends[0] = clamped(round(k as f64 * bin).floor());
            ends[1] = clamped(round((k + 1) as f64 * bin).ceil());
        }
        ends
    }
}

const FAR: f64 = (1u64 << 40) as f64;

fn range(ends: &[u64], k: usize) -> Range<usize> {
    ends[2 * k] as usize..ends[2 * k + 1] as usize
}

/// One axis of a region.
struct Line {
    start: f64,
    /// The size of a bin.
    bin: f64,
    bins: usize,
    /// Of each bin.
    samples: u32,
    length: usize,
    round: Round,
}

impl Line {
    /// The coordinate of sample `k` of a bin.
    fn coordinate(&self, bin: usize, k: u32) -> f64 {
        let round = self.round;
        let start = round(self.start + round(bin as f64 * self.bin));
        let moved = round(round(round(f64::from(k) + 0.5) * self.bin) / f64::from(self.samples));
        round(start + moved)
    }

    /// The samples of a bin that lie inside: their coordinates rise or fall, so that these are neighbours.
    fn inside(&self, bin: usize) -> Range<u32> {
        let inside = |k: &u32| (-1.0..=self.length as f64).contains(&self.coordinate(bin, *k));
        let first = (0..self.samples).find(inside).unwrap_or(self.samples);
        let end = (first..self.samples).find(|k| !inside(k)).unwrap_or(self.samples);
        first..end
    }

    /// The samples of all bins that lie inside.
    fn samples<'s>(&self, places: &'s mut Buffer, shares: &'s mut Buffer, ends: &'s mut Buffer) -> Samples<'s> {
        let ends = ends.take::<u64>(self.bins * 2);
        let mut total = 0;
        for (bin, ends) in ends.chunks_exact_mut(2).enumerate() {
            ends[0] = total;
            total += self.inside(bin).len() as u64;
            ends[1] = total;
        }
        let places = places.take::<u64>(total as usize * 2);
        let shares = shares.take::<f64>(total as usize);
        let last = self.length as f64 - 1.0;
        let inside = (0..self.bins).flat_map(|bin| self.inside(bin).map(move |k| (bin, k)));
        for ((bin, k), (places, share)) in inside.zip(places.chunks_exact_mut(2).zip(&mut *shares)) {
            let at = self.coordinate(bin, k).clamp(0.0, last);
            places[0] = at.floor() as u64;
            places[1] = (at.floor() + 1.0).min(last) as u64;
            *share = at - at.floor();
        }
        Samples { count: self.samples as usize, ends, places, shares }
    }
}

/// What is sampled along an axis.
struct Samples<'s> {
    /// How many samples a bin has, those outside among them.
    count: usize,
    ends: &'s [u64],
    places: &'s [u64],
    shares: &'s [f64],
}

/// A sample along an axis: the elements on both sides of it, and its distance from the first.
#[derive(Clone, Copy)]
struct Sample {
    places: [usize; 2],
    share: f64,
}

impl Samples<'_> {
    /// Those of a bin.
    fn of(&self, bin: usize) -> impl ExactSizeIterator<Item = Sample> + Clone + '_ {
        range(self.ends, bin).map(|k| Sample {
            places: [self.places[2 * k] as usize, self.places[2 * k + 1] as usize],
            share: self.shares[k],
        })
    }
}

/// The four elements around a sample, times their weights.
#[inline(always)]
fn corner_terms<T: Number>(x: &[T], width: usize, row: Sample, column: Sample) -> [T::Acc; 4] {
    let weights = |sample: Sample| [1.0 - sample.share, sample.share].map(T::Acc::from_f64);
    let (down, right) = (weights(row), weights(column));
    core::array::from_fn(|k| {
        let value = x[row.places[k / 2] * width + column.places[k % 2]].widen();
        down[k / 2].mul(right[k % 2]).mul(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(spec: &RegionPool, corners: [f32; 4], axis: usize) -> Line {
        let corners = (corners.map(f64::from), (|value| f64::from(value as f32)) as Round);
        Region { spec, height: 8, width: 8, corners }.line(axis)
    }

    const SPEC: RegionPool =
        RegionPool { kind: RegionKind::Mean, bins: [2, 2], samples: 0, half_pixel: true, scale: 1.0 };

    #[test]
    fn a_region_says_how_many_samples_its_bins_have() {
        let count = |bottom: f32| line(&SPEC, [0.0, 1.0, 8.0, bottom], 0).samples;
        assert_eq!([1.5, 3.0, 3.5, 5.0, 5.5].map(count), [1, 1, 2, 2, 3]);
        assert_eq!([1.0, 0.0, f32::NAN, f32::NEG_INFINITY].map(count), [0; 4]);
        assert_eq!(count(f32::INFINITY), MAX_SAMPLES);
        let small = RegionPool { half_pixel: false, ..SPEC };
        assert_eq!(line(&small, [0.0, 1.0, 8.0, 1.0], 0).samples, 1);
    }

    #[test]
    fn samples_outside_are_left_out_from_both_ends_and_in_both_directions() {
        // Steps of 4 from -6: -4, 0 | 4, 8 and with the sides swapped from 10: 8, 4 | 0, -4.
        let two = RegionPool { samples: 2, half_pixel: false, ..SPEC };
        let turned = RegionPool { samples: 2, half_pixel: true, ..SPEC };
        let inside = |line: Line| [0, 1].map(|bin| line.inside(bin));
        assert_eq!(inside(line(&two, [-6.0, 0.0, 10.0, 8.0], 1)), [1..2, 0..2]);
        assert_eq!(inside(line(&turned, [10.5, 0.0, -5.5, 8.0], 1)), [0..2, 0..1]);
        assert!(inside(line(&SPEC, [f32::NAN, 0.0, 8.0, 8.0], 1)).iter().all(Range::is_empty));
        assert!(inside(line(&two, [f32::INFINITY, 0.0, 8.0, 8.0], 1)).iter().all(Range::is_empty));
    }
}
