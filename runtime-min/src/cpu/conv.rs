//! Convolutions (ONNX `Conv`, `ConvTranspose`): as matrix products with what lies under the window, gathered at once or
//! block by block, or directly where each result channel reads one channel.

use core::ops::Range;

use crate::cpu::blocks::{Columns, Shape, multiply};
use crate::cpu::bytes::{self, Lefts, is_signed};
use crate::cpu::matmul::Room;
use crate::cpu::memory::{Buffer, Plain, Tensor, TensorMut, cast_mut};
use crate::cpu::pointwise::{Epilogue, Finish};
use crate::cpu::product::{Accumulator, Matrix, Onto, accumulator, widened};
use crate::cpu::sheet::{Sheets, every};
use crate::cpu::simd::vectorize;
use crate::cpu::team::{Team, parts};
use crate::cpu::window::{Axis, Geometry};
use crate::op::{Conv, ConvTranspose};

/// Elements that are gathered at once: they stay in the caches that the threads share.
const AT_ONCE: usize = 1 << 19;

/// Gathered elements that are worth a part of their own.
const GATHERED: usize = 1 << 14;

/// Elements of a panel of a transposed convolution.
const PANEL: usize = 1 << 18;

/// Result channels of a group that are computed one by one where the group reads one channel.
const FEW: usize = 4;

/// What splitting a plane costs, for each position, in products.
const SPLIT: usize = 4;

/// Products of a depthwise convolution that are worth a part of their own.
const PART: usize = 1 << 16;

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
    epilogue: &Epilogue<'_>,
    room: Room<'_>,
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
    match (is_signed(w.dtype), is_signed(x.dtype)) {
        (Some(left), Some(right)) if !extents.is_depthwise() => {
            of_bytes(&extents, [left, right], [x, w], out, epilogue, room);
        }
        _ => accumulator!(x.dtype, A => images::<A>(&extents, x, w, out, epilogue, room)),
    }
}

impl Extents {
    /// Whether each result channel is computed by itself, from one channel.
    fn is_depthwise(&self) -> bool {
        self.channels == 1 && self.maps <= FEW
    }

    /// The products that the convolution is: weights times what lies under the window, for each image and group.
    fn shape(&self) -> Shape {
        let inner = self.channels * self.geometry.taps();
        Shape { batch: self.batch * self.groups, rows: self.maps, inner, cols: self.geometry.output_count() }
    }

    /// The weights of a group as rows.
    fn weights<'w, T>(&self, w: &'w [T], group: usize) -> Matrix<'w, T> {
        let Shape { rows, inner, .. } = self.shape();
        Matrix::new(&w[group * rows * inner..][..rows * inner], rows, inner)
    }
}

/// Bytes by bytes.
fn of_bytes(
    e: &Extents,
    signed: [bool; 2],
    [x, w]: [&Tensor<'_>; 2],
    out: &mut TensorMut<'_>,
    epilogue: &Epilogue<'_>,
    room: Room<'_>,
) {
    let shape = e.shape();
    let weights = |group: usize| e.weights(w.bytes, group);
    let left = Lefts { count: e.groups, matrix: &weights, of: &|index| index % e.groups };
    if e.geometry.is_identity() {
        bytes::multiply(shape, signed, &left, &Planes { shape, x: x.bytes }, out, epilogue, room);
    } else {
        bytes::multiply(shape, signed, &left, &Windows { extents: e, x: x.bytes }, out, epilogue, room);
    }
}

fn images<A: Accumulator>(
    e: &Extents,
    x: &Tensor<'_>,
    w: &Tensor<'_>,
    out: &mut TensorMut<'_>,
    epilogue: &Epilogue<'_>,
    room: Room<'_>,
) {
    let (x, w) = (widened::<A>(x, room.a), widened::<A>(w, room.b));
    if e.is_depthwise() {
        return depthwise(e, x, w, out, epilogue, room.team);
    }
    let shape = e.shape();
    let weights = |index: usize| e.weights(w, index % e.groups);
    let windows = Windows { extents: e, x };
    if e.geometry.is_identity() {
        multiply(shape, weights, &Planes { shape, x }, out, epilogue, room.team);
    } else if shape.batch.saturating_mul(shape.inner).saturating_mul(shape.cols) <= AT_ONCE {
        let columns = windows.gather(shape, room.c, room.team);
        multiply(shape, weights, &Planes { shape, x: columns }, out, epilogue, room.team);
    } else {
        multiply(shape, weights, &windows, out, epilogue, room.team);
    }
}

/// Columns of channels, where each position reads its own element.
struct Planes<'p, A> {
    shape: Shape,
    x: &'p [A],
}

impl<A: Plain + Default> Columns<A> for Planes<'_, A> {
    const GATHERED: bool = false;

    fn columns<'s>(&'s self, index: usize, range: Range<usize>, _: &'s mut Buffer) -> Matrix<'s, A> {
        let Shape { inner, cols, .. } = self.shape;
        Matrix::new(&self.x[index * inner * cols..][..inner * cols], inner, cols).columns(range.start, range.len())
    }
}

/// Columns of what lies under the window: one row a channel and tap.
struct Windows<'p, A> {
    extents: &'p Extents,
    x: &'p [A],
}

impl<A: Plain + Default> Windows<'_, A> {
    /// Fills `panel`, whose rows are `count` long, with the rows from number `row` of all images on, at the positions
    /// from `first` on.
    fn fill(&self, row: usize, first: usize, count: usize, panel: &mut [A]) {
        let geometry = &self.extents.geometry;
        let (taps, plane) = (geometry.taps(), geometry.input_count());
        for (k, panel) in panel.chunks_exact_mut(count).enumerate() {
            let (channel, tap) = ((row + k) / taps, (row + k) % taps);
            let (x, tap) = (&self.x[channel * plane..][..plane], geometry.tap(tap));
            if geometry.is_shift() {
                fill_shifted(geometry, x, tap, first, panel);
            } else {
                vectorize(
                    #[inline(always)]
                    || fill_row(geometry, x, tap, first, panel),
                );
            }
        }
    }

    /// All columns, in `buffer`.
    fn gather<'b>(&self, shape: Shape, buffer: &'b mut Buffer, team: &mut Team) -> &'b [A] {
        let rows = shape.batch * shape.inner;
        let columns = buffer.take::<A>(rows * shape.cols);
        let height = rows.div_ceil(parts(columns.len(), GATHERED));
        team.pieces(columns, height * shape.cols, |part, panel, _| self.fill(part * height, 0, shape.cols, panel));
        columns
    }
}

impl<A: Plain + Default> Columns<A> for Windows<'_, A> {
    const GATHERED: bool = true;

    fn columns<'s>(&'s self, index: usize, range: Range<usize>, buffer: &'s mut Buffer) -> Matrix<'s, A> {
        let inner = self.extents.channels * self.extents.geometry.taps();
        let panel = buffer.take::<A>(inner * range.len());
        self.fill(index * inner, range.start, range.len(), panel);
        Matrix::new(panel, inner, range.len())
    }
}

/// [`fill_row`] where the elements under a tap follow each other as the positions do: one copy, and zeros where a
/// row's end would run into the next row.
fn fill_shifted<A: Plain + Default>(
    geometry: &Geometry,
    x: &[A],
    [_, kh, kw]: [usize; 3],
    first: usize,
    panel: &mut [A],
) {
    let [_, h, w] = &geometry.axes;
    let len = panel.len() as isize;
    let shift = |axis: &Axis, tap: usize| (tap * axis.dilation) as isize - axis.pad_lo as isize;
    // The element under the tap at the first position, if the plane had no ends.
    let from = first as isize + shift(h, kh) * w.input as isize + shift(w, kw);
    let lo = (-from).clamp(0, len);
    let hi = (x.len() as isize - from).clamp(lo, len);
    panel[..lo as usize].fill(A::default());
    panel[hi as usize..].fill(A::default());
    if lo < hi {
        panel[lo as usize..hi as usize].copy_from_slice(&x[(from + lo) as usize..(from + hi) as usize]);
    }
    let span = w.span(kw);
    for column in (0..span.start).chain(span.end..w.output) {
        let start = (column + w.output - first % w.output) % w.output;
        panel.iter_mut().skip(start).step_by(w.output).for_each(|value| *value = A::default());
    }
}

/// `panel[i]` = the element under a tap at position `first + i`, or zero.
#[inline(always)]
fn fill_row<A: Plain + Default>(geometry: &Geometry, x: &[A], [kd, kh, kw]: [usize; 3], first: usize, panel: &mut [A]) {
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
            piece.fill(A::default());
            continue;
        };
        let (lo, hi) = (span.start.clamp(from, to), span.end.clamp(from, to));
        piece[..lo - from].fill(A::default());
        piece[hi.max(lo) - from..].fill(A::default());
        if lo < hi {
            let row = &x[(z * h.input + y) * w.input..][..w.input];
            let row = &row[lo * w.stride + kw * w.dilation - w.pad_lo..];
            let piece = &mut piece[lo - from..hi - from];
            every(row, w.stride, piece);
        }
    }
}

/// Each result channel from one channel.
fn depthwise<A: Accumulator>(
    e: &Extents,
    x: &[A],
    weights: &[A],
    out: &mut TensorMut<'_>,
    epilogue: &Epilogue<'_>,
    team: &mut Team,
) {
    let (elements, positions, taps) = (e.geometry.input_count(), e.geometry.output_count(), e.geometry.taps());
    let sheets = Sheets::new(&e.geometry);
    let (planes, size) = (e.batch * e.groups, e.maps * positions);
    let cost = planes.saturating_mul(size).saturating_mul(taps + SPLIT);
    // Planes of a part; all of them where two could share a byte.
    let count = if out.dtype.bits() < 8 { planes } else { planes.div_ceil(parts(cost, PART)) };
    let dtype = out.dtype;
    team.pieces(out.bytes, dtype.bytes(count * size), |part, out, lane| {
        let mut finish = epilogue.bind(&mut lane.registers);
        let split = lane.a.take::<A>(sheets.room());
        let offsets = sheets.offsets(&mut lane.c);
        let direct = dtype == A::DTYPE;
        let sums = lane.b.take::<A>(if direct { 0 } else { size });
        for (k, place) in out.chunks_mut(dtype.bytes(size)).enumerate() {
            let plane = part * count + k;
            let weights = &weights[plane % e.groups * e.maps * taps..][..e.maps * taps];
            sheets.split(&x[plane * elements..][..elements], A::ZERO, split);
            let to = if direct { cast_mut(place) } else { &mut *sums };
            for (to, weights) in to.chunks_exact_mut(positions).zip(weights.chunks_exact(taps)) {
                sheets.fold(offsets, split, to, A::ZERO, |tap| weights[tap], |sum, x, weight| sum.add(weight.mul(x)));
            }
            if !direct {
                finish.store(sums, place, plane * size);
            }
        }
        if direct {
            finish.in_place(out, part * count * size);
        }
    });
}

/// `out` = the transposed convolution of `x` with `w`: the products of every element with the window, summed where they
/// fall.
pub fn run_transposed(spec: &ConvTranspose, x: &Tensor<'_>, w: &Tensor<'_>, out: &mut TensorMut<'_>, room: Room<'_>) {
    let groups = spec.groups as usize;
    // The geometry of the convolution whose gradient this is: its window moves over the result.
    let geometry = Geometry::new(&spec.window, &out.dims[2..], &x.dims[2..]);
    let extents =
        Extents { batch: x.dims[0], groups, channels: x.dims[1] / groups, maps: out.dims[1] / groups, geometry };
    if out.dims.count() == 0 {
        return;
    }
    accumulator!(x.dtype, A => scattered::<A>(&extents, x, w, out, room));
}

fn scattered<A: Accumulator>(e: &Extents, x: &Tensor<'_>, w: &Tensor<'_>, out: &mut TensorMut<'_>, room: Room<'_>) {
    let taps = e.geometry.taps();
    let (elements, positions) = (e.geometry.input_count(), e.geometry.output_count());
    let (x, weights) = (widened::<A>(x, room.a), widened::<A>(w, room.b));
    let rows = e.maps * taps;
    let width = (PANEL / rows.max(1)).next_multiple_of(64).min(positions.max(1));
    let mut finish = Finish::rounding(out.dtype);
    let bytes = out.dtype.bytes(e.maps * elements);
    for index in 0..e.batch * e.groups {
        let group = index % e.groups;
        let weights = &weights[group * e.channels * rows..][..e.channels * rows];
        let image = &x[index * e.channels * positions..][..e.channels * positions];
        let place = &mut out.bytes[index * bytes..][..bytes];
        let buffer = room.c.take::<A>(rows * width + e.maps * elements);
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
            // Sometimes long rows, of whole blocks and what is left.
            let more = if axis + 1 == rank && random.below(4) == 0 { 150 } else { 9 };
            let extent = window.extent(axis) as usize + random.below(more);
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

    fn buffers() -> [Buffer; 3] {
        core::array::from_fn(|_| Buffer::default())
    }

    #[test]
    fn convolutions_agree_with_sums_over_taps() {
        let mut random = Random::new(11);
        let mut team = Team::new(2);
        for round in 0..60 {
            let (groups, per_group) = [(1, [3, 5]), (4, [1, 1]), (3, [1, 2]), (2, [4, 3])][round % 4];
            let c = case(&mut random, 1 + round % 3, groups, per_group);
            let x = random.floats(c.x.iter().product());
            let w = random.floats(c.w.iter().product());
            let mut exact = vec![0.0; c.out.iter().product()];
            visit(&c, |i, k, o| exact[o] += f64::from(x[i]) * f64::from(w[k]));
            let spec = Conv { window: c.window, groups: groups as u32, math: Math::Exact };
            let [mut a, mut b, mut gathered] = buffers();
            let mut out = vec![0f32; exact.len()];
            let finish = Epilogue::rounding(DType::F32);
            let (xt, wt) = (tensor(&x, &c.x), tensor(&w, &c.w));
            run(
                &spec,
                &xt,
                &wt,
                &mut tensor_mut(&mut out, &c.out),
                &finish,
                Room { a: &mut a, b: &mut b, c: &mut gathered, team: &mut team },
            );
            assert_close(&out, &exact, 1e-5);

            let halves: Vec<BF16> = x.iter().map(|x| BF16::from_f32(*x)).collect();
            let narrow: Vec<BF16> = w.iter().map(|x| BF16::from_f32(*x)).collect();
            let mut out = vec![BF16::default(); exact.len()];
            let finish = Epilogue::rounding(DType::BF16);
            let (xt, wt) = (tensor(&halves, &c.x), tensor(&narrow, &c.w));
            run(
                &spec,
                &xt,
                &wt,
                &mut tensor_mut(&mut out, &c.out),
                &finish,
                Room { a: &mut a, b: &mut b, c: &mut gathered, team: &mut team },
            );
            let out: Vec<f32> = out.iter().map(|x| x.to_f32()).collect();
            assert_close(&out, &exact, 0.05);
        }
    }

    #[test]
    fn threads_change_no_bit() {
        let mut random = Random::new(13);
        let window =
            Window { rank: 2, size: [3, 5, 1], stride: [1; 3], dilation: [1; 3], pad_lo: [1, 2, 0], pad_hi: [1, 2, 0] };
        let point = Window { size: [1; 3], pad_lo: [0; 3], pad_hi: [0; 3], ..window };
        // Gathered at once, block by block, not at all; one channel a result.
        let cases = [
            (window, 1, [33, 21, 19], 47),
            (window, 1, [9, 70, 70], 20),
            (point, 1, [65, 33, 31], 70),
            (window, 40, [40, 33, 31], 40),
            (window, 2, [32, 23, 23], 66),
        ];
        for (window, groups, [channels, height, width], maps) in cases {
            let x_dims = [2, channels, height, width];
            let w_dims = [maps, channels / groups, window.size[0] as usize, window.size[1] as usize];
            let x = random.floats(x_dims.iter().product());
            let w = random.floats(w_dims.iter().product());
            let spec = Conv { window, groups: groups as u32, math: Math::Exact };
            let convolve = |threads: usize| {
                let out_dims = [2, maps, height, width];
                let [mut a, mut b, mut gathered] = buffers();
                let room = Room { a: &mut a, b: &mut b, c: &mut gathered, team: &mut Team::new(threads) };
                let mut out = vec![0f32; out_dims.iter().product()];
                let (xt, wt) = (tensor(&x, &x_dims), tensor(&w, &w_dims));
                let finish = Epilogue::rounding(DType::F32);
                run(&spec, &xt, &wt, &mut tensor_mut(&mut out, &out_dims), &finish, room);
                out.into_iter().map(f32::to_bits).collect::<Vec<_>>()
            };
            let alone = convolve(1);
            let c = Case { x: x_dims.to_vec(), w: w_dims.to_vec(), groups, window, out: vec![2, maps, height, width] };
            let mut exact = vec![0.0; alone.len()];
            visit(&c, |i, k, o| exact[o] += f64::from(x[i]) * f64::from(w[k]));
            assert_close(&alone.iter().map(|bits| f32::from_bits(*bits)).collect::<Vec<_>>(), &exact, 1e-4);
            assert!(alone == convolve(2) && alone == convolve(3), "{window:?}");
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
            let [mut a, mut b, mut gathered] = buffers();
            let room = Room { a: &mut a, b: &mut b, c: &mut gathered, team: &mut Team::default() };
            let mut out = vec![0f32; exact.len()];
            let (xt, wt) = (tensor(&x, &c.out), tensor(&w, &c.w));
            run_transposed(&spec, &xt, &wt, &mut tensor_mut(&mut out, &c.x), room);
            assert_close(&out, &exact, 1e-5);
        }
    }

    #[test]
    fn halves_round_once() {
        let window =
            Window { rank: 1, size: [3, 1, 1], stride: [1; 3], dilation: [1; 3], pad_lo: [0; 3], pad_hi: [0; 3] };
        let spec = Conv { window, groups: 1, math: Math::Exact };
        let (x, w) = ([2048.0, 1.0, 1.0].map(F16::from_f32), [1.0, 1.0, 1.0].map(F16::from_f32));
        let [mut a, mut b, mut gathered] = buffers();
        let room = Room { a: &mut a, b: &mut b, c: &mut gathered, team: &mut Team::default() };
        let mut out = [F16::default()];
        let finish = Epilogue::rounding(DType::F16);
        let (xt, wt) = (tensor(&x, &[1, 1, 3]), tensor(&w, &[1, 1, 3]));
        run(&spec, &xt, &wt, &mut tensor_mut(&mut out, &[1, 1, 1]), &finish, room);
        assert_eq!(out[0].to_f32(), 2050.0);
    }
}
