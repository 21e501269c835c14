//! How the elements of an operand follow each other when the result is traversed in its flat order.

use crate::op::MAX_RANK;

/// Extents and operand strides (in elements), outermost first, with axes merged where one loop does for both; axes of
/// extent 1 are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    rank: usize,
    extents: [usize; MAX_RANK],
    strides: [usize; MAX_RANK],
}

impl Layout {
    /// An operand of extents `operand`, broadcast (aligned at the last axis) to `result`.
    pub fn new(result: &[usize], operand: &[usize]) -> Layout {
        let mut layout = Layout { rank: 0, extents: [1; MAX_RANK], strides: [0; MAX_RANK] };
        let missing = result.len() - operand.len().min(result.len());
        // From the last axis outward, so that strides accumulate; merged axes are reversed at the end.
        let mut stride = 1;
        for axis in (0..result.len()).rev() {
            let own = if axis >= missing { operand[axis - missing] } else { 1 };
            let step = if own == 1 { 0 } else { stride };
            stride *= own;
            layout.push_outer(result[axis], step);
        }
        layout.extents[..layout.rank].reverse();
        layout.strides[..layout.rank].reverse();
        layout
    }

    fn push_outer(&mut self, extent: usize, stride: usize) {
        if extent == 1 {
            return;
        }
        if self.rank > 0 {
            let (inner, step) = (&mut self.extents[self.rank - 1], self.strides[self.rank - 1]);
            if stride == step * *inner {
                *inner *= extent;
                return;
            }
        }
        self.extents[self.rank] = extent;
        self.strides[self.rank] = stride;
        self.rank += 1;
    }

    /// Whether element `i` of the result reads element `i` of the operand.
    pub fn is_flat(&self) -> bool {
        self.rank == 0 || (self.rank == 1 && self.strides[0] == 1)
    }

    /// Whether all elements of the result read the same element.
    pub fn is_uniform(&self) -> bool {
        self.rank == 0 || (self.rank == 1 && self.strides[0] == 0)
    }

    /// `p` where element `i` of the result reads element `i mod p` of the operand.
    pub fn period(&self) -> Option<usize> {
        let repeats = self.rank == 2 && self.strides[0] == 0 && self.strides[1] == 1;
        repeats.then_some(self.extents[1])
    }

    /// Whether every range of `len` elements that begins at a multiple of `len` reads the same elements.
    pub fn repeats_every(&self, len: usize) -> bool {
        self.is_uniform() || self.period().is_some_and(|period| len.is_multiple_of(period))
    }

    /// The operand's element that element `index` of the result reads.
    pub fn at(&self, index: usize) -> usize {
        let mut found = 0;
        self.runs(index, 1, |_, from, _, _| found = from);
        found
    }

    /// The runs of the flat range `start .. start + len`: calls `run(at, from, count, stride)` for elements
    /// `at .. at + count` of the range, which read the operand from element `from` on with `stride` 0 or 1.
    #[inline]
    pub fn runs(&self, start: usize, len: usize, mut run: impl FnMut(usize, usize, usize, usize)) {
        if self.rank == 0 {
            return run(0, 0, len, 0);
        }
        let last = self.rank - 1;
        let mut index = [0; MAX_RANK];
        let (mut rest, mut from) = (start, 0);
        for axis in (0..=last).rev() {
            index[axis] = rest % self.extents[axis];
            rest /= self.extents[axis];
            from += index[axis] * self.strides[axis];
        }
        let mut at = 0;
        while at < len {
            let count = (self.extents[last] - index[last]).min(len - at);
            run(at, from, count, self.strides[last]);
            at += count;
            from -= index[last] * self.strides[last];
            index[last] = 0;
            for axis in (0..last).rev() {
                index[axis] += 1;
                from += self.strides[axis];
                if index[axis] < self.extents[axis] {
                    break;
                }
                from -= self.extents[axis] * self.strides[axis];
                index[axis] = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn indices(layout: &Layout, start: usize, len: usize) -> Vec<usize> {
        let mut out = Vec::new();
        layout.runs(start, len, |at, from, count, stride| {
            assert_eq!(at, out.len());
            out.extend((0..count).map(|i| from + i * stride));
        });
        out
    }

    #[test]
    fn equal_shapes_are_flat() {
        let layout = Layout::new(&[2, 3, 4], &[2, 3, 4]);
        assert!(layout.is_flat() && !layout.is_uniform());
        assert_eq!(indices(&layout, 5, 3), [5, 6, 7]);
    }

    #[test]
    fn scalars_are_uniform_and_rows_periodic() {
        assert!(Layout::new(&[2, 3], &[]).is_uniform());
        assert!(Layout::new(&[2, 3], &[1, 1]).is_uniform());
        let rows = Layout::new(&[4, 5, 3], &[3]);
        assert_eq!(rows.period(), Some(3));
        assert_eq!(indices(&rows, 4, 5), [1, 2, 0, 1, 2]);
    }

    #[test]
    fn inner_and_middle_axes_broadcast() {
        let layout = Layout::new(&[2, 3, 2, 2], &[1, 3, 1, 1]);
        assert_eq!(indices(&layout, 0, 24), [[0; 4], [1; 4], [2; 4], [0; 4], [1; 4], [2; 4]].concat());
        let layout = Layout::new(&[2, 2, 3], &[2, 1, 3]);
        assert_eq!(indices(&layout, 2, 9), [2, 0, 1, 2, 3, 4, 5, 3, 4]);
    }
}
