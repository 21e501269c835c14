//! Extents, strides, and walks over the elements of a strided box.

/// Elements that one result may have: far beyond every model, and below what would exhaust memory by mistake.
const MAX_ELEMENTS: usize = 1 << 32;

/// The number of elements; an error if a tensor of these extents, an extent of 0 counted as 1, is out of reach.
pub(super) fn count(dims: &[usize]) -> Result<usize, String> {
    let reach = dims.iter().try_fold(1usize, |count, &dim| count.checked_mul(dim.max(1)));
    match reach {
        Some(reach) if reach <= MAX_ELEMENTS => Ok(dims.iter().product()),
        Some(_) | None => Err(format!("a tensor of extents {dims:?} is too large")),
    }
}

/// Row-major strides, in elements.
pub(super) fn strides(dims: &[usize]) -> Vec<isize> {
    let mut strides = vec![1isize; dims.len()];
    for axis in (1..dims.len()).rev() {
        strides[axis - 1] = strides[axis] * dims[axis] as isize;
    }
    strides
}

/// The shape that two shapes broadcast to (ONNX "Broadcasting": multidirectional).
pub(super) fn broadcast(a: &[usize], b: &[usize]) -> Result<Vec<usize>, String> {
    let rank = a.len().max(b.len());
    let extent = |dims: &[usize], axis: usize| (axis + dims.len()).checked_sub(rank).map_or(1, |k| dims[k]);
    let axes = (0..rank).map(|axis| match (extent(a, axis), extent(b, axis)) {
        (1, y) => Ok(y),
        (x, 1) => Ok(x),
        (x, y) if x == y => Ok(x),
        _ => Err(format!("extents {a:?} and {b:?} do not broadcast")),
    });
    axes.collect()
}

/// The strides with which a tensor of `dims` is read as one of the larger shape `to`; 0 along broadcast axes.
pub(super) fn broadcast_strides(dims: &[usize], to: &[usize]) -> Result<Vec<isize>, String> {
    if broadcast(dims, to)? != to {
        return Err(format!("extents {dims:?} do not broadcast to {to:?}"));
    }
    let own = strides(dims);
    let lead = to.len() - dims.len();
    let along = |axis: usize| if axis < lead || dims[axis - lead] == 1 { 0 } else { own[axis - lead] };
    Ok((0..to.len()).map(along).collect())
}

/// The product of the extents before, at, and behind `axis`: the tensor as `[outer, axis, inner]`.
pub(super) fn around(dims: &[usize], axis: u8) -> Result<(usize, usize, usize), String> {
    let axis = usize::from(axis);
    if axis >= dims.len() {
        return Err(format!("there is no axis {axis} in extents {dims:?}"));
    }
    Ok((dims[..axis].iter().product(), dims[axis], dims[axis + 1..].iter().product()))
}

/// The flat offsets of the elements of a strided box, in row-major order.
pub(super) struct Walk {
    dims: Vec<usize>,
    strides: Vec<isize>,
    coordinates: Vec<usize>,
    at: isize,
    left: usize,
}

impl Walk {
    /// All elements of `dims`, the first one at `origin`. Every element must have an offset that is not negative;
    /// the strides of axes of one element may be anything.
    pub(super) fn new(dims: &[usize], strides: &[isize], origin: isize) -> Walk {
        let left = dims.iter().product();
        Walk { dims: dims.to_vec(), strides: strides.to_vec(), coordinates: vec![0; dims.len()], at: origin, left }
    }

    /// The walk without its first `skip` elements.
    pub(super) fn skip_to(mut self, skip: usize) -> Walk {
        let mut rest = skip;
        for axis in (0..self.dims.len()).rev() {
            let extent = self.dims[axis].max(1);
            self.coordinates[axis] = rest % extent;
            self.at = self.at.wrapping_add(self.strides[axis].wrapping_mul(self.coordinates[axis] as isize));
            rest /= extent;
        }
        self.left = self.left.saturating_sub(skip);
        self
    }
}

impl Iterator for Walk {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        self.left = self.left.checked_sub(1)?;
        let at = self.at as usize;
        for axis in (0..self.dims.len()).rev() {
            self.at = self.at.wrapping_add(self.strides[axis]);
            self.coordinates[axis] += 1;
            if self.coordinates[axis] < self.dims[axis] {
                break;
            }
            self.at = self.at.wrapping_sub(self.strides[axis].wrapping_mul(self.dims[axis] as isize));
            self.coordinates[axis] = 0;
        }
        Some(at)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn walks_cover_a_box() {
        let transposed: Vec<usize> = Walk::new(&[3, 2], &[1, 3], 0).collect();
        assert_eq!(transposed, [0, 3, 1, 4, 2, 5]);
        let tail: Vec<usize> = Walk::new(&[3, 2], &[1, 3], 0).skip_to(3).collect();
        assert_eq!(tail, [4, 2, 5]);
        assert_eq!(Walk::new(&[], &[], 7).collect::<Vec<_>>(), [7]);
        assert_eq!(Walk::new(&[2, 0], &[1, 1], 0).count(), 0);
    }

    #[test]
    fn shapes_broadcast() {
        assert_eq!(broadcast(&[3, 1], &[2, 1, 4]), Ok(vec![2, 3, 4]));
        assert_eq!(broadcast(&[0], &[1]), Ok(vec![0]));
        assert!(broadcast(&[2], &[3]).is_err());
        assert_eq!(broadcast_strides(&[3, 1], &[2, 3, 4]), Ok(vec![0, 1, 0]));
        assert!(broadcast_strides(&[3], &[1]).is_err());
        assert!(count(&[1 << 20, 1 << 20]).is_err());
        assert!(count(&[usize::MAX, 0]).is_err());
        assert_eq!(count(&[3, 0]), Ok(0));
    }
}
