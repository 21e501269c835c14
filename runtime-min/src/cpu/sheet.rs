//! Windows over one plane whose taps are long contiguous runs: the plane with its padding is split into sheets, one for
//! each remainder of a coordinate by the stride. Under a given tap, neighbouring positions then read neighbouring
//! elements of one sheet, also across the ends of rows, so that the work of a tap is one loop over the whole plane.
//!
//! For windows with a function of their own in each plane: pooling and depthwise convolution.

use crate::cpu::element::Arith;
use crate::cpu::memory::Buffer;
use crate::cpu::simd::vectorize;
use crate::cpu::window::{Axis, Geometry};

/// Elements of a block: positions that are folded side by side, and what is copied at a time.
const BLOCK: usize = 16;

/// The sheets of a window: their extents, and how many there are along each axis (the strides).
#[derive(Clone, Copy)]
pub struct Sheets {
    axes: [Axis; 3],
    extents: [usize; 3],
}

impl Sheets {
    /// The sheets for a geometry.
    pub fn new(geometry: &Geometry) -> Sheets {
        let reach = |axis: &Axis| axis.output.max(1) * axis.stride - axis.stride + (axis.size - 1) * axis.dilation + 1;
        let axes = geometry.axes;
        Sheets { axes, extents: [0, 1, 2].map(|k| reach(&axes[k]).div_ceil(axes[k].stride)) }
    }

    fn size(&self) -> usize {
        self.extents.iter().product()
    }

    /// Elements of working memory: the sheets, and one plane of positions.
    pub fn room(&self) -> usize {
        self.size() * (self.axes.iter().map(|axis| axis.stride).product::<usize>() + 1)
    }

    /// Splits the plane `x`; what lies outside of it is `outside`.
    pub fn split<A: Arith>(&self, x: &[A], outside: A, sheets: &mut [A]) {
        vectorize(
            #[inline(always)]
            || self.split_rows(x, outside, sheets),
        );
    }

    #[inline(always)]
    fn split_rows<A: Arith>(&self, x: &[A], outside: A, sheets: &mut [A]) {
        let [d, h, w] = &self.axes;
        let [depth, height, width] = self.extents;
        let inside = |axis: &Axis, at: usize| at.checked_sub(axis.pad_lo).filter(|&at| at < axis.input);
        let mut row = 0;
        for sheet in 0..d.stride * h.stride * w.stride {
            let (of_d, of_h, of_w) = (sheet / (h.stride * w.stride), sheet / w.stride % h.stride, sheet % w.stride);
            // The first of a row's elements, and where they end.
            let first = w.pad_lo.saturating_sub(of_w).div_ceil(w.stride).min(width);
            let end = (w.pad_lo + w.input).saturating_sub(of_w).div_ceil(w.stride).clamp(first, width);
            for z in (0..depth).map(|z| inside(d, z * d.stride + of_d)) {
                for y in (0..height).map(|y| inside(h, y * h.stride + of_h)) {
                    // With the rows that come, which a copy may reach into.
                    let to = &mut sheets[row * width..];
                    row += 1;
                    let (Some(z), Some(y)) = (z, y) else {
                        to[..width].fill(outside);
                        continue;
                    };
                    if first < end {
                        let from = &x[(z * h.input + y) * w.input + first * w.stride + of_w - w.pad_lo..];
                        match w.stride {
                            1 => copy_row(from, &mut to[first..], end - first),
                            stride => every(from, stride, &mut to[first..end]),
                        }
                    }
                    to[..first].fill(outside);
                    to[end..width].fill(outside);
                }
            }
        }
    }

    /// Where the element under each tap lies, relative to the position's place in a sheet.
    pub fn offsets<'b>(&self, buffer: &'b mut Buffer) -> &'b [u64] {
        let [d, h, w] = self.axes.map(|axis| axis.size);
        let offsets = buffer.take::<u64>(d * h * w);
        for (tap, offset) in offsets.iter_mut().enumerate() {
            *offset = self.offset([tap / (h * w), tap / w % h, tap % w]) as u64;
        }
        offsets
    }

    fn offset(&self, tap: [usize; 3]) -> usize {
        let (mut sheet, mut place) = (0, 0);
        for ((axis, extent), tap) in self.axes.iter().zip(self.extents).zip(tap) {
            let reach = tap * axis.dilation;
            sheet = sheet * axis.stride + reach % axis.stride;
            place = place * extent + reach / axis.stride;
        }
        sheet * self.size() + place
    }

    /// `out[position]` = the fold of the elements under the window, from `start` by
    /// `step(folded, element, weight(tap))`.
    /// `offsets` are those of the sheets, with which `room` begins.
    pub fn fold<A: Arith, W: Copy>(
        &self,
        offsets: &[u64],
        room: &mut [A],
        out: &mut [A],
        start: A,
        weight: impl Fn(usize) -> W,
        step: impl Fn(A, A, W) -> A,
    ) {
        let [_, h, w] = &self.axes;
        let [_, height, width] = self.extents;
        let (sheets, flat) = room.split_at_mut(room.len() - self.size());
        let count = (h.output.max(1) - 1) * width + w.output;
        for (z, out) in out.chunks_exact_mut((h.output * w.output).max(1)).enumerate() {
            // A row of positions is as long as a row of the sheet; where that is longer, the rest is dropped.
            let direct = width == w.output;
            let sheets = &sheets[z * height * width..];
            vectorize(
                #[inline(always)]
                || {
                    if direct {
                        return fold_line(sheets, offsets, out, start, &weight, &step);
                    }
                    fold_line(sheets, offsets, &mut flat[..count], start, &weight, &step);
                    for row in 0..h.output {
                        copy_row(&flat[row * width..], &mut out[row * w.output..], w.output);
                    }
                },
            );
        }
    }
}

/// `out[i]` = the fold of the elements at `i` behind each offset.
#[inline(always)]
fn fold_line<A: Arith, W: Copy>(
    x: &[A],
    offsets: &[u64],
    out: &mut [A],
    start: A,
    weight: &impl Fn(usize) -> W,
    step: &impl Fn(A, A, W) -> A,
) {
    let mut at = 0;
    while at + 4 * BLOCK <= out.len() {
        // Four blocks at a time, as a sum waits for the last one; each stays in registers from tap to tap.
        let [mut a, mut b, mut c, mut d] = [[start; BLOCK]; 4];
        for (tap, &offset) in offsets.iter().enumerate() {
            let (blocks, _) = x[at + offset as usize..][..4 * BLOCK].as_chunks::<BLOCK>();
            let weight = weight(tap);
            a = fold_tap(a, &blocks[0], weight, step);
            b = fold_tap(b, &blocks[1], weight, step);
            c = fold_tap(c, &blocks[2], weight, step);
            d = fold_tap(d, &blocks[3], weight, step);
        }
        let (to, _) = out[at..][..4 * BLOCK].as_chunks_mut::<BLOCK>();
        (to[0], to[1], to[2], to[3]) = (a, b, c, d);
        at += 4 * BLOCK;
    }
    while at < out.len() {
        if out.len() < BLOCK {
            let fold = |folded: A, (tap, &offset): (usize, &u64)| step(folded, x[at + offset as usize], weight(tap));
            out[at] = offsets.iter().enumerate().fold(start, fold);
            at += 1;
            continue;
        }
        // The last block ends with the line, and folds again what the one before has.
        at = at.min(out.len() - BLOCK);
        let mut folded = [start; BLOCK];
        for (tap, &offset) in offsets.iter().enumerate() {
            let (blocks, _) = x[at + offset as usize..][..BLOCK].as_chunks::<BLOCK>();
            folded = fold_tap(folded, &blocks[0], weight(tap), step);
        }
        out[at..][..BLOCK].copy_from_slice(&folded);
        at += BLOCK;
    }
}

/// Neighbouring positions with one more tap.
#[inline(always)]
fn fold_tap<A: Arith, W: Copy>(
    folded: [A; BLOCK],
    x: &[A; BLOCK],
    weight: W,
    step: &impl Fn(A, A, W) -> A,
) -> [A; BLOCK] {
    core::array::from_fn(|k| step(folded[k], x[k], weight))
}

/// Copies `from` to the front of `to`. Up to a block more is written behind it, with whatever follows in `source` behind
/// `from`: rows that are written one behind the other are copied block by block then, not call by call.
#[inline(always)]
fn copy_row<A: Copy>(source: &[A], to: &mut [A], len: usize) {
    let padded = len.next_multiple_of(BLOCK);
    if source.len() < padded || to.len() < padded {
        return to[..len].copy_from_slice(&source[..len]);
    }
    let (from, _) = source[..padded].as_chunks::<BLOCK>();
    let (to, _) = to[..padded].as_chunks_mut::<BLOCK>();
    for (to, from) in to.iter_mut().zip(from) {
        *to = *from;
    }
}

/// `to[i] = from[i * stride]`
#[inline(always)]
pub fn every<A: Copy>(from: &[A], stride: usize, to: &mut [A]) {
    match stride {
        1 => to.copy_from_slice(&from[..to.len()]),
        2 => {
            // The last element may end the row, without a neighbour.
            let Some((last, to)) = to.split_last_mut() else { return };
            *last = from[to.len() * 2];
            for (to, from) in to.iter_mut().zip(from.chunks_exact(2)) {
                *to = from[0];
            }
        }
        _ => to.iter_mut().zip(from.iter().step_by(stride)).for_each(|(to, from)| *to = *from),
    }
}
