//! Operations that move elements and compute nothing: transpositions, broadcasts, slices, concatenations, padding.
//!
//! They work on words of the elements' size. A transposition, a broadcast and a slice are one loop nest with strides
//! ([`strided`]).

use crate::cpu::element::word;
use crate::cpu::memory::{Buffer, Inputs, Plain, Tensor, TensorMut};
use crate::cpu::pointwise::{packed, set_packed};
use crate::cpu::team::{Team, parts};
use crate::op::{MAX_RANK, PadMode, Transpose};
use crate::shapes::Extents;
use crate::table::Dim;

/// `out[i] = x[permuted i]`
pub fn transpose(spec: &Transpose, x: &Tensor<'_>, out: &mut TensorMut<'_>, team: &mut Team) {
    let strides = row_major(&x.dims);
    let mut steps = [0isize; MAX_RANK];
    for (step, &axis) in steps.iter_mut().zip(&spec.perm[..usize::from(spec.rank)]) {
        *step = strides[usize::from(axis)];
    }
    let dims = out.dims;
    word!(x.dtype, T => shared(x.words::<T>(), &dims, &steps[..dims.len()], out.words::<T>(), team));
}

/// Elements whose move is worth a part of its own.
const PART: usize = 1 << 13;

/// [`strided`], in parts along the outermost axis.
fn shared<T: Plain>(x: &[T], dims: &Extents, steps: &[isize], out: &mut [T], team: &mut Team) {
    let Some(axis) = dims.iter().position(|&extent| extent != 1) else { return strided(x, 0, dims, steps, out) };
    let count = dims[axis].div_ceil(parts(out.len(), PART));
    // Whole squares, where this axis is one of their sides.
    let count = if steps[axis] == 1 { count.next_multiple_of(SQUARE) } else { count };
    let row = dims[axis + 1..].iter().product::<usize>();
    team.pieces(out, count * row, |part, out, _| {
        let dims = dims.with(axis, out.len() / row);
        strided(x, (part * count) as isize * steps[axis], &dims, steps, out);
    });
}

/// `out` = `x` broadcast to its shape.
pub fn expand(x: &Tensor<'_>, out: &mut TensorMut<'_>) {
    let strides = row_major(&x.dims);
    let dims = out.dims;
    let missing = dims.len() - x.dims.len();
    let mut steps = [0isize; MAX_RANK];
    for axis in missing..dims.len() {
        steps[axis] = if x.dims[axis - missing] == 1 { 0 } else { strides[axis - missing] };
    }
    word!(x.dtype, T => strided(x.words::<T>(), 0, &dims, &steps[..dims.len()], out.words::<T>()));
}

/// `out[i] = x[start + i * step]` on every axis.
pub fn slice(starts: &[i64], steps: &[i64], x: &Tensor<'_>, out: &mut TensorMut<'_>) {
    let strides = row_major(&x.dims);
    let dims = out.dims;
    let mut by = [0isize; MAX_RANK];
    let mut first = 0isize;
    for axis in 0..dims.len() {
        first += starts[axis] as isize * strides[axis];
        by[axis] = steps[axis] as isize * strides[axis];
    }
    word!(x.dtype, T => strided(x.words::<T>(), first, &dims, &by[..dims.len()], out.words::<T>()));
}

/// The distance between neighbours along each axis.
fn row_major(dims: &[usize]) -> [isize; MAX_RANK] {
    let mut strides = [0; MAX_RANK];
    let mut stride = 1;
    for axis in (0..dims.len()).rev() {
        strides[axis] = stride as isize;
        stride *= dims[axis];
    }
    strides
}

/// Axes of a loop nest, innermost first: extent, and step in the operand.
struct Loops {
    rank: usize,
    axes: [(usize, isize); MAX_RANK],
}

impl Loops {
    fn new(dims: &[usize], steps: &[isize]) -> Loops {
        let mut loops = Loops { rank: 0, axes: [(1, 0); MAX_RANK] };
        for (&extent, &step) in dims.iter().zip(steps).rev() {
            if extent == 1 {
                continue;
            }
            if loops.rank > 0 {
                let (inner, by) = &mut loops.axes[loops.rank - 1];
                if step == *by * *inner as isize {
                    *inner *= extent;
                    continue;
                }
            }
            loops.axes[loops.rank] = (extent, step);
            loops.rank += 1;
        }
        loops
    }
}

/// `out[i, j, ..] = x[first + i * steps[0] + j * steps[1] + ..]`, `out` contiguous.
pub fn strided<T: Plain>(x: &[T], first: isize, dims: &[usize], steps: &[isize], out: &mut [T]) {
    if out.is_empty() {
        return;
    }
    let loops = Loops::new(dims, steps);
    let axes = &loops.axes[..loops.rank];
    let &[(inner, step), ref outer @ ..] = axes else {
        out[0] = x[first as usize];
        return;
    };
    // Where the operand's neighbours are the result's neighbours on another axis, squares of both are exchanged.
    let unit = outer.iter().position(|&(_, by)| by == 1);
    if let (true, Some(unit)) = (step != 0 && step != 1, unit) {
        return transposed(x, first, axes, unit + 1, out);
    }
    for (row, out) in out.chunks_exact_mut(inner).enumerate() {
        let from = first + offset(outer, row);
        match step {
            1 => out.copy_from_slice(&x[from as usize..][..inner]),
            0 => out.fill(x[from as usize]),
            _ => {
                for (k, out) in out.iter_mut().enumerate() {
                    *out = x[(from + k as isize * step) as usize];
                }
            }
        }
    }
}

/// The operand's offset at position `index` of loops that are given innermost first.
fn offset(axes: &[(usize, isize)], mut index: usize) -> isize {
    let mut offset = 0;
    for &(extent, step) in axes {
        offset += (index % extent) as isize * step;
        index /= extent;
    }
    offset
}

/// The side of a square that is read by rows and written by columns.
const SQUARE: usize = 16;

fn transposed<T: Plain>(x: &[T], first: isize, axes: &[(usize, isize)], unit: usize, out: &mut [T]) {
    let (inner, step) = axes[0];
    let (height, _) = axes[unit];
    // The result's step along the unit axis.
    let stride: usize = axes[..unit].iter().map(|axis| axis.0).product();
    // The loops around the two axes: between them, and outside of both.
    let between = &axes[1..unit];
    let outside = &axes[unit + 1..];
    let (middle, blocks) = (between.iter().map(|axis| axis.0).product::<usize>(), stride * height);
    let mut square = [x[first as usize]; SQUARE * SQUARE];
    for (block, out) in out.chunks_exact_mut(blocks).enumerate() {
        for m in 0..middle {
            let from = first + offset(outside, block) + offset(between, m);
            for i in (0..height).step_by(SQUARE) {
                let rows = SQUARE.min(height - i);
                for j in (0..inner).step_by(SQUARE) {
                    let cols = SQUARE.min(inner - j);
                    for c in 0..cols {
                        let at = (from + (j + c) as isize * step) as usize + i;
                        for (r, value) in x[at..at + rows].iter().enumerate() {
                            square[r * SQUARE + c] = *value;
                        }
                    }
                    for r in 0..rows {
                        let at = (i + r) * stride + m * inner + j;
                        out[at..at + cols].copy_from_slice(&square[r * SQUARE..][..cols]);
                    }
                }
            }
        }
    }
}

/// `out` = the operands one behind the other along `axis`.
pub fn concat(axis: usize, inputs: Inputs<'_>, out: &mut TensorMut<'_>) {
    let dims = out.dims;
    if out.dtype.bits() < 8 {
        return concat_packed(axis, inputs, out);
    }
    let size = out.dtype.bits() / 8;
    let row = dims[axis..].iter().product::<usize>() * size;
    if out.bytes.is_empty() {
        return;
    }
    let mut at = 0;
    for k in 0..inputs.len() {
        let x = inputs.need(k);
        let piece = x.dims[axis..].iter().product::<usize>() * size;
        if piece > 0 {
            for (out, x) in out.bytes.chunks_exact_mut(row).zip(x.bytes.chunks_exact(piece)) {
                out[at..at + piece].copy_from_slice(x);
            }
        }
        at += piece;
    }
}

/// [`concat`] of elements smaller than a byte, one by one.
fn concat_packed(axis: usize, inputs: Inputs<'_>, out: &mut TensorMut<'_>) {
    let bits = out.dtype.bits();
    let row: usize = out.dims[axis..].iter().product();
    out.bytes.fill(0);
    let mut at = 0;
    for k in 0..inputs.len() {
        let x = inputs.need(k);
        let piece: usize = x.dims[axis..].iter().product();
        for element in 0..x.dims.count() {
            let to = element / piece * row + at + element % piece;
            set_packed(out.bytes, bits, to, packed(x.bytes, bits, element));
        }
        at += piece;
    }
}

/// `out` = `x` with `lo[axis]` elements put before each axis (or, negative, cut off), and behind it what the result's
/// extent asks for. What is cut off is cut before the rest is mirrored or repeated.
pub fn pad(
    mode: PadMode,
    lo: &[i64],
    x: &Tensor<'_>,
    value: Option<&Tensor<'_>>,
    out: &mut TensorMut<'_>,
    scratch: &mut Buffer,
) {
    let dims = out.dims;
    if dims.count() == 0 {
        return;
    }
    // Where each position of each axis comes from, axis by axis.
    let sources = scratch.take::<i64>(dims.iter().sum());
    let mut at = 0;
    for (axis, &extent) in dims.iter().enumerate() {
        fill_sources(mode, lo[axis], x.dims[axis], &mut sources[at..at + extent]);
        at += extent;
    }
    word!(x.dtype, T => {
        let value = match (mode, value) {
            (PadMode::Constant, Some(value)) => value.words::<T>()[0],
            _ => 0,
        };
        padded(x.words::<T>(), &x.dims, &dims, sources, value, out.words::<T>());
    });
}

/// The element of an axis that each position shows, or -1 for the constant.
fn fill_sources(mode: PadMode, lo: i64, extent: usize, sources: &mut [i64]) {
    let count = extent as i64;
    for (k, source) in sources.iter_mut().enumerate() {
        let at = k as i64 - lo;
        *source = if (0..count).contains(&at) {
            at
        } else if count == 0 {
            -1
        } else {
            match mode {
                PadMode::Constant => -1,
                PadMode::Edge => at.clamp(0, count - 1),
                PadMode::Wrap => at.rem_euclid(count),
                PadMode::Reflect if count == 1 => 0,
                PadMode::Reflect => {
                    let period = 2 * (count - 1);
                    let at = at.rem_euclid(period);
                    at.min(period - at)
                }
            }
        };
    }
}

fn padded<T: Plain>(x: &[T], from: &[usize], dims: &[usize], sources: &[i64], value: T, out: &mut [T]) {
    let Some((&width, outer)) = dims.split_last() else {
        out[0] = x[0];
        return;
    };
    let row = from[outer.len()];
    let (outer_sources, inner_sources) = sources.split_at(sources.len() - width);
    // The run of positions in the middle that show neighbours.
    let begin = inner_sources.windows(2).position(|pair| pair[0] >= 0 && pair[1] == pair[0] + 1).unwrap_or(0);
    let run = match inner_sources.first() {
        Some(_) if inner_sources[begin] >= 0 => {
            let start = inner_sources[begin];
            inner_sources[begin..].iter().enumerate().take_while(|&(k, s)| *s == start + k as i64).count()
        }
        _ => 0,
    };
    for (index, out) in out.chunks_exact_mut(width).enumerate() {
        let Some(start) = outer_offset(outer, from, outer_sources, index) else {
            out.fill(value);
            continue;
        };
        let x = &x[start * row..][..row];
        let pick = |source: i64| if source < 0 { value } else { x[source as usize] };
        if run > 0 {
            out[begin..begin + run].copy_from_slice(&x[inner_sources[begin] as usize..][..run]);
        }
        for k in (0..begin).chain(begin + run..width) {
            out[k] = pick(inner_sources[k]);
        }
    }
}

/// The operand's row for row `index` of the result; none where an outer axis shows the constant.
fn outer_offset(outer: &[usize], from: &[usize], sources: &[i64], mut index: usize) -> Option<usize> {
    let mut offset = 0;
    let mut scale = 1;
    let mut end = sources.len();
    for (axis, &extent) in outer.iter().enumerate().rev() {
        let source = sources[end - extent + index % extent];
        offset += usize::try_from(source).ok()? * scale;
        scale *= from[axis];
        index /= extent;
        end -= extent;
    }
    Some(offset)
}

/// The values of extents, such as a slice's starts.
pub fn values(dims: &[Dim], inputs: &Inputs<'_>) -> [i64; MAX_RANK] {
    let mut values = [0; MAX_RANK];
    for (value, dim) in values.iter_mut().zip(dims) {
        *value = inputs.dim(*dim);
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::{Random, tensor, tensor_mut};

    #[test]
    fn transpositions_move_every_element() {
        let mut random = Random::new(31);
        for _ in 0..200 {
            let rank = 1 + random.below(5);
            let dims: Vec<usize> = (0..rank).map(|_| 1 + random.below(if rank < 4 { 40 } else { 6 })).collect();
            let mut perm: Vec<u8> = (0..rank as u8).collect();
            for k in 0..rank {
                perm.swap(k, random.below(rank));
            }
            let x: Vec<u32> = (0..dims.iter().product::<usize>() as u32).collect();
            let out_dims: Vec<usize> = perm.iter().map(|&axis| dims[usize::from(axis)]).collect();
            let mut out = vec![0u32; x.len()];
            let mut spec = Transpose { rank: rank as u8, perm: [0; MAX_RANK] };
            spec.perm[..rank].copy_from_slice(&perm);
            transpose(&spec, &tensor(&x, &dims), &mut tensor_mut(&mut out, &out_dims), &mut Team::new(2));
            let strides = row_major(&dims);
            for (k, value) in out.iter().enumerate() {
                let (mut rest, mut from) = (k, 0);
                for axis in (0..rank).rev() {
                    from += rest % out_dims[axis] * strides[usize::from(perm[axis])] as usize;
                    rest /= out_dims[axis];
                }
                assert_eq!(*value, from as u32, "{dims:?} {perm:?}");
            }
        }
    }

    #[test]
    fn broadcasts() {
        let mut out = [0u8; 12];
        expand(&tensor(&[1u8, 2], &[2, 1]), &mut tensor_mut(&mut out, &[2, 2, 3]));
        assert_eq!(out, [1, 1, 1, 2, 2, 2, 1, 1, 1, 2, 2, 2]);
        let mut out = [0u64; 4];
        expand(&tensor(&[7u64], &[]), &mut tensor_mut(&mut out, &[4]));
        assert_eq!(out, [7; 4]);
    }

    #[test]
    fn slices_step_forward_and_backward() {
        let x: Vec<i32> = (0..24).collect();
        let mut out = [0i32; 6];
        slice(&[1, 2], &[-1, -1], &tensor(&x, &[4, 6]), &mut tensor_mut(&mut out, &[2, 3]));
        assert_eq!(out, [8, 7, 6, 2, 1, 0]);
        slice(&[0, 1], &[2, 2], &tensor(&x, &[4, 6]), &mut tensor_mut(&mut out, &[2, 3]));
        assert_eq!(out, [1, 3, 5, 13, 15, 17]);
    }

    fn padded_row(mode: PadMode, lo: i64, x: &[i32], len: usize) -> Vec<i32> {
        let mut out = vec![0; len];
        let value = [9];
        let value = tensor(&value, &[]);
        let (x, mut out_tensor) = (tensor(x, &[x.len()]), tensor_mut(&mut out, &[len]));
        pad(mode, &[lo], &x, Some(&value), &mut out_tensor, &mut Buffer::default());
        out
    }

    #[test]
    fn pads_in_all_modes() {
        let x = [1, 2, 3];
        assert_eq!(padded_row(PadMode::Constant, 2, &x, 6), [9, 9, 1, 2, 3, 9]);
        assert_eq!(padded_row(PadMode::Edge, 2, &x, 6), [1, 1, 1, 2, 3, 3]);
        assert_eq!(padded_row(PadMode::Reflect, 2, &x, 7), [3, 2, 1, 2, 3, 2, 1]);
        assert_eq!(padded_row(PadMode::Reflect, 5, &x, 8), [2, 1, 2, 3, 2, 1, 2, 3]);
        assert_eq!(padded_row(PadMode::Wrap, 2, &x, 7), [2, 3, 1, 2, 3, 1, 2]);
        assert_eq!(padded_row(PadMode::Constant, -1, &x, 2), [2, 3]);
        assert_eq!(padded_row(PadMode::Constant, -1, &x, 3), [2, 3, 9]);
        assert_eq!(padded_row(PadMode::Edge, -1, &x, 4), [2, 3, 3, 3]);
        assert_eq!(padded_row(PadMode::Constant, 1, &x, 2), [9, 1]);
        // What is cropped at one end is still there for the other.
        assert_eq!(padded_row(PadMode::Wrap, 1, &x, 3), [3, 1, 2]);
        assert_eq!(padded_row(PadMode::Reflect, -1, &x, 4), [2, 3, 2, 1]);
        assert_eq!(padded_row(PadMode::Constant, 1, &[], 2), [9, 9]);
    }

    #[test]
    fn pads_on_several_axes() {
        let mut out = [0i16; 12];
        let x = tensor(&[1i16, 2, 3, 4], &[2, 2]);
        pad(PadMode::Constant, &[1, 0], &x, None, &mut tensor_mut(&mut out, &[4, 3]), &mut Buffer::default());
        assert_eq!(out, [0, 0, 0, 1, 2, 0, 3, 4, 0, 0, 0, 0]);
        let mut out = [0i16; 16];
        pad(PadMode::Reflect, &[1, 1], &x, None, &mut tensor_mut(&mut out, &[4, 4]), &mut Buffer::default());
        assert_eq!(out, [4, 3, 4, 3, 2, 1, 2, 1, 4, 3, 4, 3, 2, 1, 2, 1]);
    }
}
