//! Convolutions (ONNX `Conv`, `ConvTranspose`): as matrix products over panels that stay in the cache, or directly where
//! each result channel reads one channel.

use crate::cpu::matmul::Panels;
use crate::cpu::memory::{Buffer, Tensor, TensorMut, cast_mut};
use crate::cpu::pointwise::Finish;
use crate::cpu::product::{Accumulator, Matrix, Onto, accumulator, widened};
use crate::cpu::sheet::Sheets;
use crate::cpu::simd::vectorize;
use crate::cpu::window::{Axis, Geometry};
use crate::op::{Conv, ConvTranspose};

/// Elements of a panel.
const PANEL: usize = 1 << 18;

/// The extents of a convolution, a group at a time.
struct Extents {
    batch: usize,
    groups: usize,
    /// Channels of x in a group.
    channels: usize,
    /// Result channels in a group.
    maps: usize,
    geometry: Geometry,
}

/// `out = x * w`.
pub fn run(
    spec: &Conv,
    x: &Tensor<'_>,
    w: &Tensor<'_>,
    out: &mut TensorMut<'_>,
    finish: &mut Finish<'_>,
    panels: Panels<'_>,
) {
    let groups = spec.groups as usize;
    let extents = Extents {
        batch: x.dims[0],
        groups,
        channels: x.dims[1] / groups,
        maps: w.dims[0] / groups,
        geometry: Geometry::new(&spec.window, &x.dims[2..], &out.dims[2..]),
    };
    if out.dims.count() == 0 {
        return;
    }
    accumulator!(x.dtype, A => images::<A>(&extents, x, w, out, finish, panels));
}

fn images<A: Accumulator>(
    e: &Extents,
    x: &Tensor<'_>,
    w: &Tensor<'_>,
    out: &mut TensorMut<'_>,
    finish: &mut Finish<'_>,
    panels: Panels<'_>,
) {
    let taps = e.geometry.taps();
    let positions = e.geometry.output_count();
    let weights = widened::<A>(w, panels.a);
    let inner = e.channels * taps;
    let image = e.channels * e.geometry.input_count();
    // Sums go where they belong, or to a buffer behind the panel if the result has another type.
    let direct = out.dtype == A::DTYPE;
    let size = e.maps * positions;
    let bytes = out.dtype.bytes(size);
    for index in 0..e.batch * e.groups {
        let group = index % e.groups;
        let plane = Part { tensor: x, start: index * image, count: image };
        let weights = &weights[group * e.maps * inner..][..e.maps * inner];
        let place = &mut out.bytes[index * bytes..][..bytes];
        let mut convolve = |sums: &mut [A]| {
            let x = plane.read(panels.b);
            if e.channels == 1 && e.maps <= 4 {
                depthwise(e, x, weights, sums, [panels.d, panels.index]);
            } else if e.geometry.is_identity() {
                let columns = Matrix::new(x, inner, positions);
                A::product(Matrix::new(weights, e.maps, inner), columns, sums, positions, Onto::Nothing);
            } else {
                by_panels(e, x, weights, sums, panels.d);
            }
        };
        if direct {
            convolve(cast_mut(place));
            finish.in_place(place, index * size);
        } else {
            let sums = panels.c.take::<A>(size);
            convolve(sums);
            finish.store(sums, place, index * size);
        }
    }
}

/// A contiguous range of a tensor's elements.
struct Part<'p> {
    tensor: &'p Tensor<'p>,
    start: usize,
    count: usize,
}

impl Part<'_> {
    fn tensor(&self) -> Tensor<'_> {
        let dtype = self.tensor.dtype;
        let bytes = &self.tensor.bytes[dtype.bytes(self.start)..][..dtype.bytes(self.count)];
        Tensor { dtype, dims: crate::shapes::Extents::new(&[self.count]), bytes }
    }

    /// The elements in the accumulator's type.
    fn read<'b, A: Accumulator>(&'b self, buffer: &'b mut Buffer) -> &'b [A] {
        if self.tensor.dtype == A::DTYPE {
            return &self.tensor.words()[self.start..][..self.count];
        }
        let to = buffer.take(self.count);
        A::widen_from(&self.tensor(), to);
        to
    }
}

/// Gathers the elements under the window at a range of positions into a panel, one row a channel and tap, and
/// multiplies.
fn by_panels<A: Accumulator>(e: &Extents, x: &[A], weights: &[A], sums: &mut [A], buffer: &mut Buffer) {
    let (inner, positions) = (e.channels * e.geometry.taps(), e.geometry.output_count());
    let width = (PANEL / inner.max(1)).next_multiple_of(64).min(positions);
    for first in (0..positions).step_by(width) {
        let count = width.min(positions - first);
        let panel = buffer.take::<A>(inner * count);
        fill_panel(e, x, first, count, panel);
        let (a, b) = (Matrix::new(weights, e.maps, inner), Matrix::new(panel, inner, count));
        A::product(a, b, &mut sums[first..], positions, Onto::Nothing);
    }
}

/// `panel[channel * taps + tap][i]` = the element of `channel` under `tap` at position `first + i`, or zero.
fn fill_panel<A: Accumulator>(e: &Extents, x: &[A], first: usize, count: usize, panel: &mut [A]) {
    let taps = e.geometry.taps();
    let plane = e.geometry.input_count();
    for (row, panel) in panel.chunks_exact_mut(count).enumerate() {
        let (channel, tap) = (row / taps, row % taps);
        vectorize(
            #[inline(always)]
            || fill_row(&e.geometry, &x[channel * plane..][..plane], e.geometry.tap(tap), first, panel),
        );
    }
}

#[inline(always)]
fn fill_row<A: Accumulator>(geometry: &Geometry, x: &[A], [kd, kh, kw]: [usize; 3], first: usize, panel: &mut [A]) {
    let [d, h, w] = &geometry.axes;
    let span = w.span(kw);
    let end = first + panel.len();
    let mut at = first;
    while at < end {
        let (line, from) = (at / w.output, at % w.output);
        let to = w.output.min(from + end - at);
        let piece = &mut panel[at - first..][..to - from];
        at += to - from;
        let (Some(z), Some(y)) = (d.at(line / h.output, kd), h.at(line % h.output, kh)) else {
            piece.fill(A::ZERO);
            continue;
        };
        let (lo, hi) = (span.start.clamp(from, to), span.end.clamp(from, to));
        piece[..lo - from].fill(A::ZERO);
        piece[hi.max(lo) - from..].fill(A::ZERO);
        if lo < hi {
            let row = &x[(z * h.input + y) * w.input..][..w.input];
            let row = &row[lo * w.stride + kw * w.dilation - w.pad_lo..];
            let piece = &mut piece[lo - from..hi - from];
            if w.stride == 1 {
                piece.copy_from_slice(&row[..piece.len()]);
            } else {
                piece.iter_mut().zip(row.iter().step_by(w.stride)).for_each(|(to, from)| *to = *from);
            }
        }
    }
}

/// Each result channel from one channel.
fn depthwise<A: Accumulator>(e: &Extents, x: &[A], weights: &[A], sums: &mut [A], [buffer, index]: [&mut Buffer; 2]) {
    let positions = e.geometry.output_count();
    let sheets = Sheets::new(&e.geometry);
    let room = buffer.take::<A>(sheets.room());
    let offsets = sheets.offsets(index);
    sheets.split(x, A::ZERO, room);
    for (sums, weights) in sums.chunks_exact_mut(positions).zip(weights.chunks_exact(e.geometry.taps())) {
        sheets.fold(offsets, room, sums, A::ZERO, |tap| weights[tap], |sum, x, weight| sum.add(weight.mul(x)));
    }
}

/// `out` = the transposed convolution of `x` with `w`: the products of every element with the window, summed where they
/// fall.
pub fn run_transposed(
    spec: &ConvTranspose,
    x: &Tensor<'_>,
    w: &Tensor<'_>,
    out: &mut TensorMut<'_>,
    panels: Panels<'_>,
) {
    let groups = spec.groups as usize;
    // The geometry of the convolution whose gradient this is: its window moves over the result.
    let geometry = Geometry::new(&spec.window, &out.dims[2..], &x.dims[2..]);
    let extents =
        Extents { batch: x.dims[0], groups, channels: x.dims[1] / groups, maps: out.dims[1] / groups, geometry };
    if out.dims.count() == 0 {
        return;
    }
    accumulator!(x.dtype, A => scattered::<A>(&extents, x, w, out, panels));
}

fn scattered<A: Accumulator>(e: &Extents, x: &Tensor<'_>, w: &Tensor<'_>, out: &mut TensorMut<'_>, panels: Panels<'_>) {
    let taps = e.geometry.taps();
    let (elements, positions) = (e.geometry.input_count(), e.geometry.output_count());
    let weights = widened::<A>(w, panels.a);
    let x = widened::<A>(x, panels.b);
    let rows = e.maps * taps;
    let width = (PANEL / rows.max(1)).next_multiple_of(64).min(positions.max(1));
    let mut finish = Finish::rounding(out.dtype);
    let bytes = out.dtype.bytes(e.maps * elements);
    for index in 0..e.batch * e.groups {
        let group = index % e.groups;
        let weights = &weights[group * e.channels * rows..][..e.channels * rows];
        let image = &x[index * e.channels * positions..][..e.channels * positions];
        let place = &mut out.bytes[index * bytes..][..bytes];
        let buffer = panels.c.take::<A>(rows * width + e.maps * elements);
        let (panel, spare) = buffer.split_at_mut(rows * width);
        let direct = A::DTYPE == finish.dtype();
        {
            let sums: &mut [A] = if direct { cast_mut(place) } else { &mut *spare };
            sums.fill(A::ZERO);
            for first in (0..positions).step_by(width) {
                let count = width.min(positions - first);
                let columns = Matrix { cols: count, ..Matrix::new(&image[first..], e.channels, positions) };
                let panel = &mut panel[..rows * count];
                A::product(Matrix::new(weights, e.channels, rows).transposed(), columns, panel, count, Onto::Nothing);
                for (row, panel) in panel.chunks_exact(count).enumerate() {
                    let sums = &mut sums[row / taps * elements..][..elements];
                    add_row(&e.geometry, sums, e.geometry.tap(row % taps), first, panel);
                }
            }
        }
        if !direct {
            finish.store(spare, place, index * e.maps * elements);
        }
    }
}

/// The inverse of `fill_row`: adds the products of one tap to where they fall.
fn add_row<A: Accumulator>(geometry: &Geometry, sums: &mut [A], [kd, kh, kw]: [usize; 3], first: usize, panel: &[A]) {
    let [d, h, w]: &[Axis; 3] = &geometry.axes;
    let span = w.span(kw);
    let end = first + panel.len();
    let mut at = first;
    while at < end {
        let (line, from) = (at / w.output, at % w.output);
        let to = w.output.min(from + end - at);
        let piece = &panel[at - first..][..to - from];
        at += to - from;
        let (Some(z), Some(y)) = (d.at(line / h.output, kd), h.at(line % h.output, kh)) else { continue };
        let (lo, hi) = (span.start.clamp(from, to), span.end.clamp(from, to));
        if lo < hi {
            let row = &mut sums[(z * h.input + y) * w.input..][..w.input];
            let row = &mut row[lo * w.stride + kw * w.dilation - w.pad_lo..];
            for (sum, value) in row.iter_mut().step_by(w.stride).zip(&piece[lo - from..hi - from]) {
                *sum = sum.add(*value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::{Random, assert_close, tensor, tensor_mut};
    use crate::dtype::{BF16, DType, F16};
    use crate::op::{Math, Window};

    struct Case {
        x: Vec<usize>,
        w: Vec<usize>,
        groups: usize,
        window: Window,
        out: Vec<usize>,
    }

    fn case(random: &mut Random, rank: usize, groups: usize, per_group: [usize; 2]) -> Case {
        let mut window =
            Window { rank: rank as u8, size: [1; 3], stride: [1; 3], dilation: [1; 3], pad_lo: [0; 3], pad_hi: [0; 3] };
        let mut x = vec![2, groups * per_group[0]];
        let mut w = vec![groups * per_group[1], per_group[0]];
        let mut out = vec![2, groups * per_group[1]];
        for axis in 0..rank {
            window.size[axis] = 1 + random.below(3) as u32;
            window.stride[axis] = 1 + random.below(2) as u32;
            window.dilation[axis] = 1 + random.below(2) as u32;
            window.pad_lo[axis] = random.below(3) as u32;
            window.pad_hi[axis] = random.below(3) as u32;
            let extent = window.extent(axis) as usize + random.below(9);
            let padded = extent + (window.pad_lo[axis] + window.pad_hi[axis]) as usize;
            x.push(extent);
            w.push(window.size[axis] as usize);
            out.push((padded - window.extent(axis) as usize) / window.stride[axis] as usize + 1);
        }
        Case { x, w, groups, window, out }
    }

    /// Visits every product of a convolution: indices in x, w and the result.
    fn visit(c: &Case, mut product: impl FnMut(usize, usize, usize)) {
        let geometry = Geometry::new(&c.window, &c.x[2..], &c.out[2..]);
        let (taps, elements, positions) = (geometry.taps(), geometry.input_count(), geometry.output_count());
        let (channels, maps) = (c.x[1] / c.groups, c.out[1] / c.groups);
        let [d, h, w] = geometry.axes;
        for nm in 0..c.out[0] * c.out[1] {
            let (n, m) = (nm / c.out[1], nm % c.out[1]);
            for channel in 0..channels {
                let plane = n * c.x[1] + m / maps * channels + channel;
                for tap in 0..taps {
                    let [kd, kh, kw] = geometry.tap(tap);
                    for p in 0..positions {
                        let at = [p / (h.output * w.output), p / w.output % h.output, p % w.output];
                        let (Some(z), Some(y), Some(x)) = (d.at(at[0], kd), h.at(at[1], kh), w.at(at[2], kw)) else {
                            continue;
                        };
                        let element = plane * elements + (z * h.input + y) * w.input + x;
                        product(element, (m * channels + channel) * taps + tap, nm * positions + p);
                    }
                }
            }
        }
    }

    fn buffers() -> [Buffer; 5] {
        core::array::from_fn(|_| Buffer::default())
    }

    #[test]
    fn convolutions_agree_with_sums_over_taps() {
        let mut random = Random::new(11);
        for round in 0..60 {
            let (groups, per_group) = [(1, [3, 5]), (4, [1, 1]), (3, [1, 2]), (2, [4, 3])][round % 4];
            let c = case(&mut random, 1 + round % 3, groups, per_group);
            let x = random.floats(c.x.iter().product());
            let w = random.floats(c.w.iter().product());
            let mut exact = vec![0.0; c.out.iter().product()];
            visit(&c, |i, k, o| exact[o] += f64::from(x[i]) * f64::from(w[k]));
            let spec = Conv { window: c.window, groups: groups as u32, math: Math::Exact };
            let [mut a, mut b, mut sums, mut d, mut index] = buffers();
            let mut out = vec![0f32; exact.len()];
            let mut finish = Finish::rounding(DType::F32);
            let (xt, wt) = (tensor(&x, &c.x), tensor(&w, &c.w));
            run(
                &spec,
                &xt,
                &wt,
                &mut tensor_mut(&mut out, &c.out),
                &mut finish,
                Panels { a: &mut a, b: &mut b, c: &mut sums, d: &mut d, index: &mut index },
            );
            assert_close(&out, &exact, 1e-5);

            let halves: Vec<BF16> = x.iter().map(|x| BF16::from_f32(*x)).collect();
            let narrow: Vec<BF16> = w.iter().map(|x| BF16::from_f32(*x)).collect();
            let mut out = vec![BF16::default(); exact.len()];
            let mut finish = Finish::rounding(DType::BF16);
            let (xt, wt) = (tensor(&halves, &c.x), tensor(&narrow, &c.w));
            run(
                &spec,
                &xt,
                &wt,
                &mut tensor_mut(&mut out, &c.out),
                &mut finish,
                Panels { a: &mut a, b: &mut b, c: &mut sums, d: &mut d, index: &mut index },
            );
            let out: Vec<f32> = out.iter().map(|x| x.to_f32()).collect();
            assert_close(&out, &exact, 0.05);
        }
    }

    #[test]
    fn transposed_convolutions_are_the_adjoint() {
        let mut random = Random::new(12);
        for round in 0..40 {
            let (groups, per_group) = [(1, [3, 2]), (3, [1, 1]), (2, [2, 3])][round % 3];
            // The result of the convolution is the operand here, and the other way round.
            let c = case(&mut random, 1 + round % 3, groups, per_group);
            let x = random.floats(c.out.iter().product());
            let w = random.floats(c.w.iter().product());
            let mut exact = vec![0.0; c.x.iter().product()];
            visit(&c, |i, k, o| exact[i] += f64::from(x[o]) * f64::from(w[k]));
            let spec = ConvTranspose { window: c.window, groups: groups as u32 };
            let [mut a, mut b, mut sums, mut d, mut index] = buffers();
            let panels = Panels { a: &mut a, b: &mut b, c: &mut sums, d: &mut d, index: &mut index };
            let mut out = vec![0f32; exact.len()];
            let (xt, wt) = (tensor(&x, &c.out), tensor(&w, &c.w));
            run_transposed(&spec, &xt, &wt, &mut tensor_mut(&mut out, &c.x), panels);
            assert_close(&out, &exact, 1e-5);
        }
    }

    #[test]
    fn halves_round_once() {
        let window =
            Window { rank: 1, size: [3, 1, 1], stride: [1; 3], dilation: [1; 3], pad_lo: [0; 3], pad_hi: [0; 3] };
        let spec = Conv { window, groups: 1, math: Math::Exact };
        let (x, w) = ([2048.0, 1.0, 1.0].map(F16::from_f32), [1.0, 1.0, 1.0].map(F16::from_f32));
        let [mut a, mut b, mut sums, mut d, mut index] = buffers();
        let panels = Panels { a: &mut a, b: &mut b, c: &mut sums, d: &mut d, index: &mut index };
        let mut out = [F16::default()];
        let mut finish = Finish::rounding(DType::F16);
        let (xt, wt) = (tensor(&x, &[1, 1, 3]), tensor(&w, &[1, 1, 3]));
        run(&spec, &xt, &wt, &mut tensor_mut(&mut out, &[1, 1, 1]), &mut finish, panels);
        assert_eq!(out[0].to_f32(), 2050.0);
    }
}
