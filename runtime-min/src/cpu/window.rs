//! The geometry of convolution and pooling windows, brought to three spatial axes.

use core::ops::Range;

use crate::op::{MAX_SPATIAL, Window};

/// One spatial axis: extents of the tensor and of the result, and how the window moves.
#[derive(Clone, Copy, Debug)]
pub struct Axis {
    /// Extent of the tensor that the window moves over.
    pub input: usize,
    /// Number of window positions.
    pub output: usize,
    pub size: usize,
    pub stride: usize,
    pub dilation: usize,
    pub pad_lo: usize,
    pub pad_hi: usize,
}

impl Axis {
    const ONE: Axis = Axis { input: 1, output: 1, size: 1, stride: 1, dilation: 1, pad_lo: 0, pad_hi: 0 };

    /// The positions at which tap `tap` of the window lies inside of the tensor.
    pub fn span(&self, tap: usize) -> Range<usize> {
        let reach = tap * self.dilation;
        let first = self.pad_lo.saturating_sub(reach).div_ceil(self.stride).min(self.output);
        // The first position beyond: position * stride + reach - pad_lo >= input.
        let end = (self.input + self.pad_lo).saturating_sub(reach).div_ceil(self.stride).min(self.output);
        first..end.max(first)
    }

    /// The element under tap `tap` at `position`, if it is inside of the tensor.
    pub fn at(&self, position: usize, tap: usize) -> Option<usize> {
        (position * self.stride + tap * self.dilation).checked_sub(self.pad_lo).filter(|&i| i < self.input)
    }

    /// How many taps at `position` are inside of the tensor.
    pub fn inside(&self, position: usize) -> usize {
        (0..self.size).filter(|&tap| self.at(position, tap).is_some()).count()
    }

    /// How many taps at `position` are inside of the tensor and its padding.
    pub fn inside_padded(&self, position: usize) -> usize {
        let end = self.pad_lo + self.input + self.pad_hi;
        (0..self.size).filter(|&tap| position * self.stride + tap * self.dilation < end).count()
    }
}

/// A window over three spatial axes, outermost first; unused leading axes have extent 1.
#[derive(Clone, Copy, Debug)]
pub struct Geometry {
    pub axes: [Axis; MAX_SPATIAL],
}

impl Geometry {
    /// The window over a tensor of spatial extents `input` with `output` positions.
    pub fn new(window: &Window, input: &[usize], output: &[usize]) -> Geometry {
        let rank = usize::from(window.rank);
        let mut axes = [Axis::ONE; MAX_SPATIAL];
        for k in 0..rank {
            axes[MAX_SPATIAL - rank + k] = Axis {
                input: input[k],
                output: output[k],
                size: window.size[k] as usize,
                stride: window.stride[k] as usize,
                dilation: window.dilation[k] as usize,
                pad_lo: window.pad_lo[k] as usize,
                pad_hi: window.pad_hi[k] as usize,
            };
        }
        Geometry { axes }
    }

    /// Elements of the tensor in one plane (all spatial axes).
    pub fn input_count(&self) -> usize {
        self.axes.iter().map(|axis| axis.input).product()
    }

    /// Positions of the window.
    pub fn output_count(&self) -> usize {
        self.axes.iter().map(|axis| axis.output).product()
    }

    /// Taps of the window.
    pub fn taps(&self) -> usize {
        self.axes.iter().map(|axis| axis.size).product()
    }

    /// Whether every position reads just the element with its own number.
    pub fn is_identity(&self) -> bool {
        self.axes.iter().all(|a| a.size == 1 && a.stride == 1 && a.pad_lo == 0 && a.pad_hi == 0)
    }

    /// Whether, under each tap, neighbouring positions of a plane read neighbouring elements, but for the ends of rows:
    /// a window that moves by one over two axes, which keep their extents.
    pub fn is_shift(&self) -> bool {
        let [d, h, w] = &self.axes;
        let is_one = (d.input, d.output, d.size, d.pad_lo) == (1, 1, 1, 0);
        is_one && [h, w].iter().all(|axis| axis.stride == 1 && axis.input == axis.output)
    }

    /// The coordinates of tap number `tap`.
    pub fn tap(&self, tap: usize) -> [usize; MAX_SPATIAL] {
        let [_, h, w] = &self.axes;
        [tap / (h.size * w.size), tap / w.size % h.size, tap % w.size]
    }

    /// The rows of window positions along the last axis: calls `row(depth, height)`.
    pub fn rows(&self) -> impl Iterator<Item = (usize, usize)> {
        let height = self.axes[1].output;
        (0..self.axes[0].output * height).map(move |row| (row / height, row % height))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_agree_with_single_positions() {
        for stride in 1..4 {
            for dilation in 1..3 {
                for pad_lo in 0..4 {
                    let axis = Axis { input: 5, output: 7, size: 3, stride, dilation, pad_lo, pad_hi: 2 };
                    for tap in 0..3 {
                        let span = axis.span(tap);
                        for position in 0..7 {
                            assert_eq!(span.contains(&position), axis.at(position, tap).is_some());
                        }
                    }
                }
            }
        }
    }
}
