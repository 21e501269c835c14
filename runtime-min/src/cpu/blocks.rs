//! Batched products of matrices, block by block: each block of the result is multiplied and finished by one thread,
//! while it lies in the cache.
//!
//! The blocks follow from the extents alone, so that the results are the same bits whatever the number of threads.

use core::ops::Range;

use crate::cpu::memory::{Buffer, TensorMut, cast_mut};
use crate::cpu::pointwise::Epilogue;
use crate::cpu::product::{Accumulator, Matrix, Onto};
use crate::cpu::team::{Pieces, Team, parts};

/// Products that are worth a part of their own.
const PART: usize = 1 << 21;

/// What reading a column of the right matrix costs, in rows of products.
const READ: usize = 32;

/// Elements of gathered columns, which shall stay in the second-level cache.
const GATHERED: usize = 1 << 16;

/// Columns that vector units and their registers are filled with.
const WIDTH: usize = 64;

/// Rows for which it pays to pack the columns.
const HEIGHT: usize = 64;

/// The extents of `batch` products of a `rows` by `inner` with an `inner` by `cols` matrix.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub batch: usize,
    pub rows: usize,
    pub inner: usize,
    pub cols: usize,
}

/// Where the columns of the right matrices come from.
pub trait Columns<A>: Sync {
    /// Whether they are gathered into a buffer.
    const GATHERED: bool;

    /// Columns `range` of matrix `index`, where they lie or in `buffer`.
    fn columns<'s>(&'s self, index: usize, range: Range<usize>, buffer: &'s mut Buffer) -> Matrix<'s, A>;
}

/// `out[i] = left(i) right(i)`, finished by `epilogue`.
pub fn multiply<'m, A: Accumulator + Send + Sync, R: Columns<A>>(
    shape: Shape,
    left: impl Fn(usize) -> Matrix<'m, A> + Sync,
    right: &R,
    out: &mut TensorMut<'_>,
    epilogue: &Epilogue<'_>,
    team: &mut Team,
) {
    let Shape { batch, rows, cols, .. } = shape;
    if batch * rows * cols == 0 {
        return;
    }
    let [height, width] = block(shape, R::GATHERED);
    let (down, across) = (rows.div_ceil(height), cols.div_ceil(width));
    let dtype = out.dtype;
    let result = Pieces::new(&mut *out.bytes);
    team.run(batch * down * across, &|part, lane| {
        let (index, top, first) = (part / (down * across), part / across % down * height, part % across * width);
        let (height, width) = (height.min(rows - top), width.min(cols - first));
        let a = left(index).rows(top, height);
        let b = right.columns(index, first..first + width, &mut lane.a);
        let mut finish = epilogue.bind(&mut lane.registers);
        let start = (index * rows + top) * cols + first;
        if width < cols {
            let sums = lane.b.take::<A>(height * width);
            A::product(a, b, sums, width, Onto::Nothing);
            for (row, sums) in sums.chunks_exact(width).enumerate() {
                let start = start + row * cols;
                // SAFETY: rows of different blocks do not overlap.
                let out = unsafe { result.get(dtype.bytes(start), dtype.bytes(width)) };
                finish.store(sums, out, start);
            }
            return;
        }
        // SAFETY: as above; here the rows of a block are contiguous.
        let out = unsafe { result.get(dtype.bytes(start), dtype.bytes(height * width)) };
        if dtype == A::DTYPE {
            A::product(a, b, cast_mut(out), width, Onto::Nothing);
            finish.in_place(out, start);
        } else {
            let sums = lane.b.take::<A>(height * width);
            A::product(a, b, sums, width, Onto::Nothing);
            finish.store(sums, out, start);
        }
    });
}

/// The rows and columns of a block.
fn block(shape: Shape, gathered: bool) -> [usize; 2] {
    let Shape { batch, rows, inner, cols } = shape;
    let cost = [rows + READ, inner, cols].into_iter().fold(batch, usize::saturating_mul);
    let wanted = parts(cost, PART).div_ceil(batch);
    let most = if gathered { (GATHERED / inner.max(1)).next_multiple_of(WIDTH) } else { cols };
    let even = |extent: usize, count: usize, unit: usize| extent.div_ceil(count).next_multiple_of(unit).min(extent);
    // Rows first, as whole rows are finished in long runs; what is gathered is gathered once, for all rows.
    let down = if gathered { 1 } else { wanted.min(rows / HEIGHT).max(1) };
    let across = cols.div_ceil(most).max(wanted.div_ceil(down).min(cols / WIDTH)).max(1);
    let width = even(cols, across, WIDTH);
    [even(rows, down, 1), width]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_have_their_least_extents_and_enough_work() {
        let shape = |batch, rows, inner, cols| Shape { batch, rows, inner, cols };
        assert_eq!(block(shape(1, 3, 5, 7), false), [3, 7]);
        // Not worth a second part.
        assert_eq!(block(shape(1, 16, 64, 256), false), [16, 256]);
        assert_eq!(block(shape(1, 12, 384, 384), false), [12, 128]);
        // Rows are split first.
        assert_eq!(block(shape(1, 256, 2304, 49), false), [64, 49]);
        assert_eq!(block(shape(8, 256, 2304, 49), false), [128, 49]);
        assert_eq!(block(shape(1, 256, 2304, 49), true), [256, 49]);
        // What is gathered stays in the cache.
        assert_eq!(block(shape(1, 64, 147, 12544), true), [64, 448]);
    }
}
