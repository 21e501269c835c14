//! Reads by index (ONNX `Gather`, `GatherElements`, `GatherND`). Negative indices count from the end; an index out of
//! range is the caller's error.

use crate::cpu::element::word;
use crate::cpu::memory::{Buffer, Tensor, TensorMut};
use crate::dtype::DType;

/// An index that its axis does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfRange {
    pub index: i64,
    pub extent: i64,
}

/// The position that `index` means on an axis of `extent`.
#[inline]
pub fn position(index: i64, extent: usize) -> Result<usize, OutOfRange> {
    let wrapped = if index < 0 { index.wrapping_add(extent as i64) } else { index };
    match usize::try_from(wrapped) {
        Ok(at) if at < extent => Ok(at),
        _ => Err(OutOfRange { index, extent: extent as i64 }),
    }
}

/// Indices as `i64`; those of 32 bits are widened to `buffer`.
pub fn indices<'t>(tensor: &Tensor<'t>, buffer: &'t mut Buffer) -> &'t [i64] {
    if tensor.dtype == DType::I64 {
        return tensor.data();
    }
    let to = buffer.take::<i64>(tensor.dims.count());
    for (to, from) in to.iter_mut().zip(tensor.data::<i32>()) {
        *to = i64::from(*from);
    }
    to
}

/// `out[.., j.., ..] = x[.., indices[j..], ..]` on `axis`.
pub fn gather(
    axis: usize,
    x: &Tensor<'_>,
    picks: &Tensor<'_>,
    out: &mut TensorMut<'_>,
    buffer: &mut Buffer,
) -> Result<(), OutOfRange> {
    let extent = x.dims[axis];
    let outer: usize = x.dims[..axis].iter().product();
    let inner: usize = x.dims[axis + 1..].iter().product();
    let picks = indices(picks, buffer);
    if inner * outer == 0 {
        return picks.iter().try_for_each(|&index| position(index, extent).map(drop));
    }
    word!(x.dtype, T => {
        let (x, out) = (x.words::<T>(), out.words::<T>());
        let mut rest = out;
        for outer in 0..outer {
            let x = &x[outer * extent * inner..][..extent * inner];
            for &index in picks {
                let at = position(index, extent)?;
                let (block, behind) = rest.split_at_mut(inner);
                if inner == 1 {
                    block[0] = x[at];
                } else {
                    block.copy_from_slice(&x[at * inner..][..inner]);
                }
                rest = behind;
            }
        }
    });
    Ok(())
}

/// For each element of a tensor of extents `dims`, in order, the start of its line along `axis` in a tensor of extents
/// `from`: calls `line(k, start)`, where the line's elements are `from[axis + 1..]`'s product apart.
pub fn lines(
    axis: usize,
    dims: &[usize],
    from: &[usize],
    mut line: impl FnMut(usize, usize) -> Result<(), OutOfRange>,
) -> Result<(), OutOfRange> {
    let count: usize = dims.iter().product();
    let mut index = [0usize; crate::op::MAX_RANK];
    for k in 0..count {
        let mut start = 0;
        for (a, extent) in from.iter().enumerate() {
            start = start * extent + if a == axis { 0 } else { index[a] };
        }
        line(k, start)?;
        for a in (0..dims.len()).rev() {
            index[a] += 1;
            if index[a] < dims[a] {
                break;
            }
            index[a] = 0;
        }
    }
    Ok(())
}

/// `out[i, j, ..] = x[i, indices[i, j, ..], ..]`, the index standing on `axis`.
pub fn gather_elements(
    axis: usize,
    x: &Tensor<'_>,
    picks: &Tensor<'_>,
    out: &mut TensorMut<'_>,
    buffer: &mut Buffer,
) -> Result<(), OutOfRange> {
    let step: usize = x.dims[axis + 1..].iter().product();
    let (extent, dims) = (x.dims[axis], picks.dims);
    let picks = indices(picks, buffer);
    word!(x.dtype, T => {
        let (data, out) = (x.words::<T>(), out.words::<T>());
        lines(axis, &dims, &x.dims, |k, start| {
            out[k] = data[start + position(picks[k], extent)? * step];
            Ok(())
        })
    })
}

/// The tuples of an n-dimensional gather or scatter.
pub struct Tuples<'t> {
    indices: &'t [i64],
    /// Indices of a tuple.
    depth: usize,
    /// The extents that they index.
    extents: &'t [usize],
    /// Elements that a tuple names.
    pub block: usize,
}

impl<'t> Tuples<'t> {
    /// Tuples along the last axis of `indices` into the axes of `dims`.
    pub fn new(indices: &'t [i64], depth: usize, dims: &'t [usize]) -> Tuples<'t> {
        Tuples { indices, depth, extents: &dims[..depth], block: dims[depth..].iter().product() }
    }

    /// The first element that tuple `k` names.
    pub fn start(&self, k: usize) -> Result<usize, OutOfRange> {
        let tuple = &self.indices[k * self.depth..][..self.depth];
        let mut at = 0;
        for (&index, &extent) in tuple.iter().zip(self.extents) {
            at = at * extent + position(index, extent)?;
        }
        Ok(at * self.block)
    }
}

/// `out[b.., j..] = x[b.., indices[b.., j.., :]]` with `batch` common leading axes.
pub fn gather_nd(
    batch: usize,
    x: &Tensor<'_>,
    picks: &Tensor<'_>,
    out: &mut TensorMut<'_>,
    buffer: &mut Buffer,
) -> Result<(), OutOfRange> {
    let Some((&depth, outer)) = picks.dims.split_last() else { return Ok(()) };
    let batches: usize = x.dims[..batch].iter().product();
    let per_batch: usize = outer[batch..].iter().product();
    let size: usize = x.dims[batch..].iter().product();
    let tuples = Tuples::new(indices(picks, buffer), depth, &x.dims[batch..]);
    word!(x.dtype, T => {
        let (x, out) = (x.words::<T>(), out.words::<T>());
        for k in 0..batches * per_batch {
            let start = k / per_batch * size + tuples.start(k)?;
            out[k * tuples.block..][..tuples.block].copy_from_slice(&x[start..][..tuples.block]);
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::{tensor, tensor_mut};

    #[test]
    fn rows_and_columns() {
        let x = [1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0];
        let mut out = [0f32; 4];
        let picks = [-1i32, 0];
        let mut buffer = Buffer::default();
        let (x, picks) = (tensor(&x, &[2, 3]), tensor(&picks, &[2]));
        gather(0, &x, &picks, &mut tensor_mut(&mut [0f32; 6], &[2, 3]), &mut buffer).unwrap();
        gather(1, &x, &picks, &mut tensor_mut(&mut out, &[2, 2]), &mut buffer).unwrap();
        assert_eq!(out, [3.0, 1.0, 6.0, 4.0]);
        let far = [3i64, 0];
        let error = gather(1, &x, &tensor(&far, &[2]), &mut tensor_mut(&mut out, &[2, 2]), &mut buffer);
        assert_eq!(error, Err(OutOfRange { index: 3, extent: 3 }));
        let far = [-4i64, 0];
        let error = gather(1, &x, &tensor(&far, &[2]), &mut tensor_mut(&mut out, &[2, 2]), &mut buffer);
        assert_eq!(error, Err(OutOfRange { index: -4, extent: 3 }));
    }

    #[test]
    fn elements() {
        // The examples of the ONNX specification.
        let x = [1u8, 2, 3, 4, 5, 6, 7, 8, 9];
        let picks = [1i64, 2, 0, 2, 0, 0];
        let mut out = [0u8; 6];
        let mut buffer = Buffer::default();
        let (x, picks) = (tensor(&x, &[3, 3]), tensor(&picks, &[2, 3]));
        gather_elements(0, &x, &picks, &mut tensor_mut(&mut out, &[2, 3]), &mut buffer).unwrap();
        assert_eq!(out, [4, 8, 3, 7, 2, 3]);
    }

    #[test]
    fn tuples() {
        let x = [0u64, 1, 2, 3, 4, 5, 6, 7];
        let mut buffer = Buffer::default();
        let mut out = [0u64; 4];
        let picks = [0i64, 1, 1, 0];
        let (cube, pairs) = (tensor(&x, &[2, 2, 2]), tensor(&picks, &[2, 1, 2]));
        gather_nd(0, &cube, &pairs, &mut tensor_mut(&mut out, &[2, 1, 2]), &mut buffer).unwrap();
        assert_eq!(out, [2, 3, 4, 5]);
        let picks = [1i64, 0];
        let singles = tensor(&picks, &[2, 1]);
        gather_nd(1, &cube, &singles, &mut tensor_mut(&mut out, &[2, 2]), &mut buffer).unwrap();
        assert_eq!(out, [2, 3, 4, 5]);
    }
}
