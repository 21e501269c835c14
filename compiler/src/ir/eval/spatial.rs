//! The geometry of windows over spatial axes, for convolutions and pooling: always three axes, outer ones of extent 1
//! where there are fewer.

use lapidary_runtime::op::{MAX_SPATIAL, Window};

use super::index;

/// A window over the spatial axes of an operand and of a result.
pub(super) struct Grid {
    pub(super) input: [usize; MAX_SPATIAL],
    pub(super) output: [usize; MAX_SPATIAL],
    pub(super) size: [usize; MAX_SPATIAL],
    pub(super) stride: [usize; MAX_SPATIAL],
    pub(super) dilation: [usize; MAX_SPATIAL],
    pub(super) lo: [usize; MAX_SPATIAL],
    pub(super) hi: [usize; MAX_SPATIAL],
}

impl Grid {
    /// The window over `input` spatial extents, with `output` spatial extents.
    pub(super) fn new(window: &Window, input: &[usize], output: &[usize]) -> Result<Grid, String> {
        let rank = usize::from(window.rank);
        if rank > MAX_SPATIAL || input.len() != rank || output.len() != rank {
            return Err(format!("a window of {rank} axes over extents {input:?}, to {output:?}"));
        }
        let lead = MAX_SPATIAL - rank;
        let align = |values: &[usize], fill: usize| {
            std::array::from_fn(|axis| axis.checked_sub(lead).map_or(fill, |k| values[k]))
        };
        let field = |values: &[u32; MAX_SPATIAL], fill| align(&values.map(|v| v as usize), fill);
        let grid = Grid {
            input: align(input, 1),
            output: align(output, 1),
            size: field(&window.size, 1),
            stride: field(&window.stride, 1),
            dilation: field(&window.dilation, 1),
            lo: field(&window.pad_lo, 0),
            hi: field(&window.pad_hi, 0),
        };
        if [grid.size, grid.stride, grid.dilation].iter().flatten().any(|&v| v == 0) {
            return Err("a window has a size, stride or dilation of 0".to_owned());
        }
        index::count(&grid.size)?;
        Ok(grid)
    }

    /// The extents of a convolution's result: `(in + lo + hi - extent) / stride + 1` along each axis, 0 where the
    /// window does not fit.
    pub(super) fn output_of(window: &Window, input: &[usize]) -> Result<Vec<usize>, String> {
        if input.len() != usize::from(window.rank) || input.len() > MAX_SPATIAL {
            return Err(format!("a window of {} axes over extents {input:?}", window.rank));
        }
        let along = |(axis, &extent): (usize, &usize)| {
            if window.size[axis] == 0 || window.stride[axis] == 0 {
                return Err("a window has a size or stride of 0".to_owned());
            }
            let padded = extent + window.pad_lo[axis] as usize + window.pad_hi[axis] as usize;
            let reach = (window.size[axis] as usize - 1) * window.dilation[axis] as usize + 1;
            let room = padded.checked_sub(reach);
            Ok(room.map_or(0, |room| room / window.stride[axis] as usize + 1))
        };
        input.iter().enumerate().map(along).collect()
    }

    /// The number of elements of a window.
    pub(super) fn taps(&self) -> usize {
        self.size.iter().product()
    }

    /// The number of elements of a channel of the operand.
    pub(super) fn input_count(&self) -> usize {
        self.input.iter().product()
    }

    /// The number of elements of a channel of the result.
    pub(super) fn output_count(&self) -> usize {
        self.output.iter().product()
    }

    /// Where along `axis` element `tap` of the window at `output` lies, counted from the first padding element.
    pub(super) fn padded(&self, axis: usize, output: usize, tap: usize) -> usize {
        output * self.stride[axis] + tap * self.dilation[axis]
    }

    /// The same, counted in the operand; `None` in the padding.
    pub(super) fn source(&self, axis: usize, output: usize, tap: usize) -> Option<usize> {
        self.padded(axis, output, tap).checked_sub(self.lo[axis]).filter(|&at| at < self.input[axis])
    }

    /// The flat offset in the operand's channel of window element `tap` at the flat position `output`.
    pub(super) fn flat_source(&self, output: usize, tap: usize) -> Option<usize> {
        let at = unflatten(output, &self.output);
        let tap = unflatten(tap, &self.size);
        let mut offset = 0;
        for axis in 0..MAX_SPATIAL {
            offset = offset * self.input[axis] + self.source(axis, at[axis], tap[axis])?;
        }
        Some(offset)
    }
}

/// The coordinates of a row-major position.
pub(super) fn unflatten(flat: usize, extents: &[usize; MAX_SPATIAL]) -> [usize; MAX_SPATIAL] {
    let inner = extents[2].max(1);
    let middle = extents[1].max(1);
    [flat / inner / middle, flat / inner % middle, flat % inner]
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A window of equal numbers along each of its axes.
    pub(in super::super) fn window(size: &[u32], stride: u32, dilation: u32, lo: u32, hi: u32) -> Window {
        let mut window = Window {
            rank: size.len() as u8,
            size: [1; 3],
            stride: [1; 3],
            dilation: [1; 3],
            pad_lo: [0; 3],
            pad_hi: [0; 3],
        };
        for (axis, &size) in size.iter().enumerate() {
            window.size[axis] = size;
            window.stride[axis] = stride;
            window.dilation[axis] = dilation;
            window.pad_lo[axis] = lo;
            window.pad_hi[axis] = hi;
        }
        window
    }

    #[test]
    fn windows_read_where_they_should() {
        let window = window(&[3], 2, 2, 1, 0);
        assert_eq!(Grid::output_of(&window, &[8]), Ok(vec![3]));
        assert_eq!(Grid::output_of(&window, &[3]), Ok(vec![0]));
        let grid = Grid::new(&window, &[8], &[3]).unwrap();
        let sources: Vec<Option<usize>> = (0..9).map(|k| grid.flat_source(k / 3, k % 3)).collect();
        assert_eq!(sources, [None, Some(1), Some(3), Some(1), Some(3), Some(5), Some(3), Some(5), Some(7)]);
        assert!(Grid::new(&window, &[8, 8], &[3, 3]).is_err());
    }
}
