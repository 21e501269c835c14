//! Operations that move elements or make them up, and compute nothing (ONNX `Transpose`, `Expand`, `Slice`, `Concat`,
//! `Pad`, `Range`, and the IR's `Extents`). Every element type moves, as cells of bytes.

use lapidary_runtime::DType;
use lapidary_runtime::op::{PadMode, Transpose};

use super::index::{self, Walk};
use super::tensor::{Tensor, Values};

/// Result axis `k` is operand axis `perm[k]`.
pub(super) fn transpose(spec: &Transpose, x: &Tensor) -> Result<Vec<Tensor>, String> {
    let rank = usize::from(spec.rank);
    let perm: Vec<usize> = spec.perm.iter().take(rank).map(|&axis| usize::from(axis)).collect();
    if rank != x.rank() || !(0..rank).all(|axis| perm.contains(&axis)) {
        return Err(format!("{perm:?} does not permute the axes of extents {:?}", x.dims));
    }
    let strides = index::strides(&x.dims);
    let dims = perm.iter().map(|&axis| x.dims[axis]).collect();
    strided(x, dims, &perm.iter().map(|&axis| strides[axis]).collect::<Vec<_>>(), 0)
}

/// Broadcasts x to `dims`.
pub(super) fn expand(dims: Vec<usize>, x: &Tensor) -> Result<Vec<Tensor>, String> {
    let strides = index::broadcast_strides(&x.dims, &dims)?;
    strided(x, dims, &strides, 0)
}

/// `y[i] = x[starts[k] + i_k * steps[k]]`, of shape `dims`.
pub(super) fn slice(starts: &[i64], steps: &[i64], dims: Vec<usize>, x: &Tensor) -> Result<Vec<Tensor>, String> {
    let error = || format!("elements {starts:?}, steps {steps:?}, extents {dims:?} of extents {:?}", x.dims);
    if starts.len() != x.rank() || steps.len() != x.rank() || dims.len() != x.rank() {
        return Err(error());
    }
    let inside = |axis: usize| {
        let last = (dims[axis] as i64 - 1).checked_mul(steps[axis]).and_then(|way| way.checked_add(starts[axis]));
        let extent = 0..x.dims[axis] as i64;
        extent.contains(&starts[axis]) && last.is_some_and(|last| extent.contains(&last))
    };
    if !dims.contains(&0) && !(0..dims.len()).all(inside) {
        return Err(error());
    }
    let own = index::strides(&x.dims);
    let origin = if dims.contains(&0) { 0 } else { own.iter().zip(starts).map(|(s, &at)| s * at as isize).sum() };
    let strides: Vec<isize> = own.iter().zip(steps).map(|(stride, &step)| stride.wrapping_mul(step as isize)).collect();
    strided(x, dims, &strides, origin)
}

/// The elements of x at the given strides and origin, as a tensor of `dims`.
fn strided(x: &Tensor, dims: Vec<usize>, strides: &[isize], origin: isize) -> Result<Vec<Tensor>, String> {
    index::count(&dims)?;
    let walk = Walk::new(&dims, strides, origin);
    pick(x, dims, walk.map(Some), &[])
}

/// A tensor of `dims` from elements of x, by flat offset; `fill` is the cell that stands where there is none.
pub(super) fn pick(
    x: &Tensor,
    dims: Vec<usize>,
    sources: impl Iterator<Item = Option<usize>>,
    fill: &[u8],
) -> Result<Vec<Tensor>, String> {
    let (size, cells) = x.cells();
    let mut out = Vec::with_capacity(index::count(&dims)? * size);
    for source in sources {
        out.extend_from_slice(source.map_or(fill, |at| &cells[at * size..][..size]));
    }
    Ok(vec![Tensor::from_cells(x.dtype, dims, out)?])
}

/// The operands one behind the other along `axis`.
pub(super) fn concat(axis: u8, operands: &[&Tensor]) -> Result<Vec<Tensor>, String> {
    let [first, ..] = operands else { return Err("nothing to concatenate".to_owned()) };
    let at = usize::from(axis);
    let (outer, _, _) = index::around(&first.dims, axis)?;
    let mut dims = first.dims.clone();
    dims[at] = 0;
    let mut parts = Vec::new();
    for operand in operands {
        let fits = operand.dtype == first.dtype
            && operand.rank() == dims.len()
            && (0..dims.len()).all(|k| k == at || operand.dims[k] == dims[k]);
        if !fits {
            return Err(format!("extents {:?} and {:?} do not join along axis {axis}", first.dims, operand.dims));
        }
        dims[at] += operand.dims[at];
        let (size, cells) = operand.cells();
        parts.push((operand.dims[at..].iter().product::<usize>() * size, cells));
    }
    let mut out = Vec::new();
    for row in 0..outer {
        parts.iter().for_each(|(length, cells)| out.extend_from_slice(&cells[row * length..][..*length]));
    }
    Ok(vec![Tensor::from_cells(first.dtype, dims, out)?])
}

/// `lo[k]` and `hi[k]` elements before and behind axis `k`; negative ones crop. Fills with `value`, a scalar of x's
/// type (zero without one), or as the mode says.
pub(super) fn pad(
    mode: PadMode,
    lo: &[i64],
    hi: &[i64],
    x: &Tensor,
    value: Option<&Tensor>,
) -> Result<Vec<Tensor>, String> {
    let error = || format!("extents {:?} padded by {lo:?} and {hi:?}", x.dims);
    if lo.len() != x.rank() || hi.len() != x.rank() {
        return Err(error());
    }
    let extent = |axis: usize| {
        let sum = (x.dims[axis] as i64).checked_add(lo[axis])?.checked_add(hi[axis])?;
        usize::try_from(sum).ok()
    };
    let dims: Vec<usize> = (0..x.rank()).map(|axis| extent(axis).ok_or_else(error)).collect::<Result<_, _>>()?;
    let count = index::count(&dims)?;
    let empty = x.dims.contains(&0);
    if empty && count > 0 && mode != PadMode::Constant {
        return Err(error());
    }
    let fill = match value {
        Some(value) if value.dtype != x.dtype || value.count() != 1 => {
            return Err(format!("{} elements filled with {}{:?}", x.dtype, value.dtype, value.dims));
        }
        Some(value) => value.cells().1.to_vec(),
        None => vec![0; x.cells().0],
    };
    // For each axis, where each element of the result comes from.
    let maps: Vec<Vec<Option<usize>>> = (0..x.rank())
        .map(|axis| (0..dims[axis] as i64).map(|k| padded_source(mode, k - lo[axis], x.dims[axis])).collect())
        .collect();
    pick(x, dims.clone(), separable(&dims, &x.dims, &maps), &fill)
}

/// The flat offset in a tensor of extents `from` of each element of a tensor of extents `dims`, where `maps` say it
/// for each axis by itself.
pub(super) fn separable<'a>(
    dims: &'a [usize],
    from: &'a [usize],
    maps: &'a [Vec<Option<usize>>],
) -> impl Iterator<Item = Option<usize>> + 'a {
    let total = dims.iter().product::<usize>();
    (0..total).map(move |flat| {
        let (mut rest, mut offset, mut stride) = (flat, Some(0), 1);
        for axis in (0..dims.len()).rev() {
            offset = offset.zip(maps[axis][rest % dims[axis]]).map(|(sum, at)| sum + at * stride);
            rest /= dims[axis];
            stride *= from[axis];
        }
        offset
    })
}

/// The position along an axis of `extent` elements that fills position `at`, which may lie outside.
fn padded_source(mode: PadMode, at: i64, extent: usize) -> Option<usize> {
    let extent = extent as i64;
    let inside = match mode {
        PadMode::Constant => at,
        PadMode::Edge => at.clamp(0, (extent - 1).max(0)),
        PadMode::Reflect => {
            let period = (2 * (extent - 1)).max(1);
            let turn = at.rem_euclid(period);
            turn.min(period - turn).min((extent - 1).max(0))
        }
        PadMode::Wrap => at.rem_euclid(extent.max(1)),
    };
    (0..extent).contains(&inside).then_some(inside as usize)
}

/// `start + i * delta` for `count` elements; both scalars of one type, which is the result's.
pub(super) fn range(start: &Tensor, delta: &Tensor, count: usize) -> Result<Vec<Tensor>, String> {
    index::count(&[count])?;
    if start.dtype != delta.dtype || start.count() != 1 || delta.count() != 1 {
        return Err(format!("a range from a {}{:?} by a {}{:?}", start.dtype, start.dims, delta.dtype, delta.dims));
    }
    let values = match (start.decode(), delta.decode()) {
        (Values::Float(start), Values::Float(delta)) => {
            Values::Float((0..count).map(|i| start[0] + i as f64 * delta[0]).collect())
        }
        (Values::Int(start), Values::Int(delta)) => {
            let at = |i: usize| start[0].wrapping_add((i as i64).wrapping_mul(delta[0]));
            Values::Int((0..count).map(at).collect())
        }
        (Values::Float(_), Values::Int(_)) | (Values::Int(_), Values::Float(_)) => {
            return Err("a range of two types".to_owned());
        }
    };
    Ok(vec![Tensor::encode(start.dtype, vec![count], &values)])
}

/// The extents as an `i64` vector, or with `rank` 0 as a scalar.
pub(super) fn extents(values: &[i64], rank: u8) -> Result<Vec<Tensor>, String> {
    let dims = match (rank, values.len()) {
        (0, 1) => Vec::new(),
        (1, count) => vec![count],
        (rank, count) => return Err(format!("{count} extents as a tensor of rank {rank}")),
    };
    Ok(vec![Tensor::from_i64s(DType::I64, dims, values)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counting(dtype: DType, dims: &[usize]) -> Tensor {
        let count = dims.iter().product::<usize>() as i64;
        Tensor::from_i64s(dtype, dims.to_vec(), &(0..count).collect::<Vec<_>>())
    }

    fn ints(result: Result<Vec<Tensor>, String>) -> (Vec<usize>, Vec<i64>) {
        let tensor = result.unwrap().remove(0);
        (tensor.dims.clone(), tensor.to_i64s())
    }

    #[test]
    fn transposes_of_every_width() {
        let mut perm = [0; 8];
        perm[..3].copy_from_slice(&[2, 0, 1]);
        for dtype in [DType::I4, DType::U8, DType::F16, DType::F32, DType::I64] {
            let y = transpose(&Transpose { rank: 3, perm }, &counting(dtype, &[2, 1, 3]));
            assert_eq!(ints(y), (vec![3, 2, 1], vec![0, 3, 1, 4, 2, 5]), "{dtype}");
        }
        perm[2] = 0;
        assert!(transpose(&Transpose { rank: 3, perm }, &counting(DType::U8, &[2, 1, 3])).is_err());
    }

    #[test]
    fn expand_repeats() {
        let y = expand(vec![2, 3, 2], &counting(DType::I32, &[3, 1]));
        assert_eq!(ints(y).1, [0, 0, 1, 1, 2, 2, 0, 0, 1, 1, 2, 2]);
        assert!(expand(vec![2], &counting(DType::I32, &[3])).is_err());
    }

    #[test]
    fn slices_step_both_ways() {
        let x = counting(DType::I32, &[3, 4]);
        assert_eq!(ints(slice(&[1, 3], &[1, -2], vec![2, 2], &x)), (vec![2, 2], vec![7, 5, 11, 9]));
        assert_eq!(ints(slice(&[5, 0], &[1, 1], vec![0, 4], &x)), (vec![0, 4], vec![]));
        assert!(slice(&[1, 3], &[1, -2], vec![2, 3], &x).is_err());
        assert!(slice(&[0, 0], &[i64::MAX, 1], vec![3, 1], &x).is_err());
    }

    #[test]
    fn concatenation() {
        let y = concat(1, &[&counting(DType::I32, &[2, 1]), &counting(DType::I32, &[2, 2])]);
        assert_eq!(ints(y), (vec![2, 3], vec![0, 0, 1, 1, 2, 3]));
        let y = concat(0, &[&counting(DType::U4, &[3]), &counting(DType::U4, &[2])]);
        assert_eq!(ints(y), (vec![5], vec![0, 1, 2, 0, 1]));
        assert!(concat(0, &[&counting(DType::I32, &[2, 1]), &counting(DType::I32, &[2, 2])]).is_err());
        assert!(concat(0, &[]).is_err());
    }

    #[test]
    fn padding_modes() {
        let x = counting(DType::I32, &[3]);
        let run = |mode, lo, hi| ints(pad(mode, &[lo], &[hi], &x, None)).1;
        assert_eq!(run(PadMode::Constant, 2, 1), [0, 0, 0, 1, 2, 0]);
        assert_eq!(run(PadMode::Edge, 2, 1), [0, 0, 0, 1, 2, 2]);
        assert_eq!(run(PadMode::Reflect, 2, 1), [2, 1, 0, 1, 2, 1]);
        // numpy.pad(range(3), (5, 4), 'reflect')
        assert_eq!(run(PadMode::Reflect, 5, 4), [1, 0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2]);
        assert_eq!(run(PadMode::Wrap, 2, 4), [1, 2, 0, 1, 2, 0, 1, 2, 0]);
        assert_eq!(run(PadMode::Constant, -1, 2), [1, 2, 0, 0]);
        assert_eq!(run(PadMode::Edge, -2, 1), [2, 2]);
        assert_eq!(run(PadMode::Wrap, 1, -1), [2, 0, 1]);
        assert_eq!(run(PadMode::Reflect, -1, 2), [1, 2, 1, 0]);
        let value = Tensor::from_i64s(DType::I32, vec![], &[7]);
        let y = pad(PadMode::Constant, &[0, 1], &[1, 0], &counting(DType::I32, &[1, 2]), Some(&value));
        assert_eq!(ints(y), (vec![2, 3], vec![7, 0, 1, 7, 7, 7]));
        assert!(pad(PadMode::Constant, &[-4], &[0], &x, None).is_err());
        assert!(pad(PadMode::Edge, &[1], &[0], &counting(DType::I32, &[0]), None).is_err());
        assert_eq!(ints(pad(PadMode::Reflect, &[2], &[1], &counting(DType::I32, &[1]), None)).1, [0, 0, 0, 0]);
    }

    #[test]
    fn ranges_round_once() {
        let scalar = |value| Tensor::from_f64s(DType::F32, vec![], &[value]);
        let y = range(&scalar(1.0), &scalar(0.1), 3).unwrap();
        let step = f64::from(0.1f32);
        assert_eq!(y[0].to_f64s(), [1.0, f64::from((1.0 + step) as f32), f64::from((1.0 + 2.0 * step) as f32)]);
        let scalar = |value| Tensor::from_i64s(DType::I64, vec![], &[value]);
        assert_eq!(ints(range(&scalar(10), &scalar(-3), 4)), (vec![4], vec![10, 7, 4, 1]));
        assert!(range(&scalar(0), &scalar(1), usize::MAX).is_err());
    }

    #[test]
    fn extents_are_a_vector_or_a_scalar() {
        assert_eq!(ints(extents(&[3, 4], 1)), (vec![2], vec![3, 4]));
        assert_eq!(ints(extents(&[3], 0)), (vec![], vec![3]));
        assert!(extents(&[3, 4], 0).is_err());
    }
}
