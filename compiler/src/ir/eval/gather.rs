//! Reading and writing at computed places (ONNX `Gather`, `GatherElements`, `GatherND`, `ScatterElements`,
//! `ScatterND`). Indices are `i32` or `i64`; negative ones count from the end; others outside are an error.

use lapidary_runtime::op::ScatterMode;

use super::index;
use super::movement::pick;
use super::scalar;
use super::tensor::{self, Tensor, Values};

/// `index` as a position along an axis of `extent` elements.
fn position(index: i64, extent: usize) -> Result<usize, String> {
    let at = if index < 0 { index.checked_add(extent as i64) } else { Some(index) };
    let at = at.and_then(|at| usize::try_from(at).ok()).filter(|&at| at < extent);
    at.ok_or_else(|| format!("index {index} is outside of an axis of {extent} elements"))
}

/// `axis` of data is replaced by the indices' shape.
pub(super) fn gather(axis: u8, data: &Tensor, indices: &Tensor) -> Result<Vec<Tensor>, String> {
    let (outer, extent, inner) = index::around(&data.dims, axis)?;
    let places: Vec<usize> =
        indices.to_i64s().into_iter().map(|index| position(index, extent)).collect::<Result<_, _>>()?;
    let at = usize::from(axis);
    let dims = [&data.dims[..at], &indices.dims, &data.dims[at + 1..]].concat();
    let count = index::count(&dims)?;
    let (size, cells) = data.cells();
    let length = inner * size;
    let mut out = Vec::with_capacity(count * size);
    for row in 0..outer {
        for place in &places {
            out.extend_from_slice(&cells[(row * extent + place) * length..][..length]);
        }
    }
    Ok(vec![Tensor::from_cells(data.dtype, dims, out)?])
}

/// `y[i][j][k] = data[i][indices[i][j][k]][k]` for axis 1 of three, of the indices' shape.
pub(super) fn gather_elements(axis: u8, data: &Tensor, indices: &Tensor) -> Result<Vec<Tensor>, String> {
    let places = element_places(axis, &data.dims, indices)?;
    pick(data, indices.dims.clone(), places.into_iter().map(Some), &[])
}

/// The flat offset in a tensor of extents `dims` that each index names, the other coordinates being its own.
fn element_places(axis: u8, dims: &[usize], indices: &Tensor) -> Result<Vec<usize>, String> {
    let (_, extent, _) = index::around(dims, axis)?;
    let axis = usize::from(axis);
    let fits = indices.rank() == dims.len() && (0..dims.len()).all(|k| k == axis || indices.dims[k] <= dims[k]);
    if !fits {
        return Err(format!("indices of extents {:?} along axis {axis} of {dims:?}", indices.dims));
    }
    let strides = index::strides(dims);
    let place = |(flat, index): (usize, i64)| {
        let mut rest = flat;
        let mut offset = position(index, extent)? * strides[axis] as usize;
        for k in (0..dims.len()).rev() {
            if k != axis {
                offset += rest % indices.dims[k] * strides[k] as usize;
            }
            rest /= indices.dims[k];
        }
        Ok(offset)
    };
    indices.to_i64s().into_iter().enumerate().map(place).collect()
}

/// The last axis of indices `[batch.., i.., r]` holds coordinates of data's axes behind the batch axes; result
/// `[batch.., i.., rest of data..]`.
pub(super) fn gather_nd(batch_dims: u8, data: &Tensor, indices: &Tensor) -> Result<Vec<Tensor>, String> {
    let batch = usize::from(batch_dims);
    let error = || format!("indices of extents {:?} into {:?}, {batch} batch axes", indices.dims, data.dims);
    let Some((&depth, lead)) = indices.dims.split_last() else { return Err(error()) };
    if lead.len() < batch || data.rank() < batch + depth || lead[..batch] != data.dims[..batch] {
        return Err(error());
    }
    let slices = slice_places(&data.dims[batch..], depth, indices)?;
    let length: usize = data.dims[batch + depth..].iter().product();
    let per_batch: usize = data.dims[batch..].iter().product();
    let indices_per_batch: usize = lead[batch..].iter().product();
    let dims = [lead, &data.dims[batch + depth..]].concat();
    let sources = slices.into_iter().enumerate().flat_map(|(k, slice)| {
        let start = k / indices_per_batch.max(1) * per_batch + slice;
        (start..start + length).map(Some)
    });
    pick(data, dims, sources, &[])
}

/// The flat offset in a tensor of extents `dims` of the slice that each tuple of `depth` indices names.
fn slice_places(dims: &[usize], depth: usize, indices: &Tensor) -> Result<Vec<usize>, String> {
    let strides = index::strides(dims);
    let tuples: usize = indices.dims[..indices.rank() - 1].iter().product();
    let values = indices.to_i64s();
    let place = |tuple: usize| {
        (0..depth).try_fold(0, |sum, axis| {
            Ok(sum + position(values[tuple * depth + axis], dims[axis])? * strides[axis] as usize)
        })
    };
    (0..tuples).map(place).collect()
}

/// Data with each element of updates written, or combined, where [`gather_elements`] would read it.
pub(super) fn scatter_elements(
    axis: u8,
    mode: ScatterMode,
    data: &Tensor,
    indices: &Tensor,
    updates: &Tensor,
) -> Result<Vec<Tensor>, String> {
    if updates.dims != indices.dims {
        return Err(format!("updates of extents {:?} for indices of {:?}", updates.dims, indices.dims));
    }
    let places = element_places(axis, &data.dims, indices)?;
    write(mode, data, updates, &places)
}

/// Data with slices of updates `[i.., rest of data..]` written, or combined, where indices `[i.., r]` say.
pub(super) fn scatter_nd(
    mode: ScatterMode,
    data: &Tensor,
    indices: &Tensor,
    updates: &Tensor,
) -> Result<Vec<Tensor>, String> {
    let error = || format!("updates {:?} at indices {:?} of {:?}", updates.dims, indices.dims, data.dims);
    let Some((&depth, lead)) = indices.dims.split_last() else { return Err(error()) };
    if depth > data.rank() || updates.dims != [lead, &data.dims[depth..]].concat() {
        return Err(error());
    }
    let length: usize = data.dims[depth..].iter().product();
    let starts = slice_places(&data.dims, depth, indices)?;
    let places: Vec<usize> = starts.into_iter().flat_map(|start| start..start + length).collect();
    write(mode, data, updates, &places)
}

/// Element `k` of updates goes to flat offset `places[k]`, in this order.
fn write(mode: ScatterMode, data: &Tensor, updates: &Tensor, places: &[usize]) -> Result<Vec<Tensor>, String> {
    if data.dtype != updates.dtype {
        return Err(format!("{} updates of {} elements", updates.dtype, data.dtype));
    }
    let (size, updated) = updates.cells();
    if mode == ScatterMode::Set {
        let mut cells = data.cells().1.to_vec();
        for (k, at) in places.iter().enumerate() {
            cells[at * size..][..size].copy_from_slice(&updated[k * size..][..size]);
        }
        return Ok(vec![Tensor::from_cells(data.dtype, data.dims.clone(), cells)?]);
    }
    let values = match (data.decode(), updates.decode()) {
        (Values::Float(mut values), Values::Float(updates)) => {
            for (&at, update) in places.iter().zip(updates) {
                values[at] = combine_floats(mode, values[at], update);
            }
            Values::Float(values)
        }
        (Values::Int(mut values), Values::Int(updates)) => {
            for (&at, update) in places.iter().zip(updates) {
                let (old, new) = (tensor::widen(data.dtype, values[at]), tensor::widen(data.dtype, update));
                values[at] = tensor::wrap(data.dtype, combine_ints(mode, old, new) as i64);
            }
            Values::Int(values)
        }
        (Values::Float(_), Values::Int(_)) | (Values::Int(_), Values::Float(_)) => {
            return Err("updates of another type".to_owned());
        }
    };
    Ok(vec![Tensor::encode(data.dtype, data.dims.clone(), &values)])
}

fn combine_floats(mode: ScatterMode, old: f64, new: f64) -> f64 {
    match mode {
        ScatterMode::Set => new,
        ScatterMode::Add => old + new,
        ScatterMode::Mul => old * new,
        ScatterMode::Max => scalar::max(old, new),
        ScatterMode::Min => scalar::min(old, new),
    }
}

fn combine_ints(mode: ScatterMode, old: i128, new: i128) -> i128 {
    match mode {
        ScatterMode::Set => new,
        ScatterMode::Add => old.wrapping_add(new),
        ScatterMode::Mul => old.wrapping_mul(new),
        ScatterMode::Max => old.max(new),
        ScatterMode::Min => old.min(new),
    }
}

#[cfg(test)]
mod tests {
    use lapidary_runtime::DType;

    use super::*;

    fn i64s(dims: &[usize], values: &[i64]) -> Tensor {
        Tensor::from_i64s(DType::I64, dims.to_vec(), values)
    }

    fn f32s(dims: &[usize], values: &[f64]) -> Tensor {
        Tensor::from_f64s(DType::F32, dims.to_vec(), values)
    }

    fn floats(result: Result<Vec<Tensor>, String>) -> (Vec<usize>, Vec<f64>) {
        let tensor = result.unwrap().remove(0);
        (tensor.dims.clone(), tensor.to_f64s())
    }

    #[test]
    fn gather_replaces_an_axis() {
        let rows = [1.0, 1.25, 2.25, 3.5, 4.5, 5.75];
        let x = f32s(&[3, 2], &rows);
        let y = gather(0, &x, &i64s(&[2, 1], &[2, -3]));
        assert_eq!(floats(y), (vec![2, 1, 2], vec![rows[4], rows[5], rows[0], rows[1]]));
        let y = gather(1, &x, &i64s(&[], &[1]));
        assert_eq!(floats(y), (vec![3], vec![rows[1], rows[3], rows[5]]));
        let error = gather(0, &x, &i64s(&[1], &[3])).unwrap_err();
        assert_eq!(error, "index 3 is outside of an axis of 3 elements");
        assert!(gather(0, &x, &i64s(&[1], &[-4])).is_err());
        let nibbles = Tensor::from_i64s(DType::I4, vec![3], &[1, -2, 3]);
        assert_eq!(gather(0, &nibbles, &i64s(&[2], &[1, 2])).unwrap()[0].to_i64s(), [-2, 3]);
    }

    #[test]
    fn gather_by_element() {
        // The examples of ONNX "GatherElements".
        let x = f32s(&[2, 2], &[1.0, 2.0, 3.0, 4.0]);
        assert_eq!(floats(gather_elements(1, &x, &i64s(&[2, 2], &[0, 0, 1, 0]))).1, [1.0, 1.0, 4.0, 3.0]);
        let x = f32s(&[3, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]);
        let y = gather_elements(0, &x, &i64s(&[2, 3], &[-2, -1, -2, 2, 0, 0]));
        assert_eq!(floats(y).1, [4.0, 8.0, 6.0, 7.0, 2.0, 3.0]);
    }

    #[test]
    fn gather_by_tuple() {
        // The examples of ONNX "GatherND".
        let x = f32s(&[2, 2], &[0.0, 1.0, 2.0, 3.0]);
        assert_eq!(floats(gather_nd(0, &x, &i64s(&[2, 2], &[0, 0, 1, 1]))), (vec![2], vec![0.0, 3.0]));
        assert_eq!(floats(gather_nd(0, &x, &i64s(&[2, 1], &[1, 0]))), (vec![2, 2], vec![2.0, 3.0, 0.0, 1.0]));
        let x = f32s(&[2, 2, 2], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
        let y = gather_nd(1, &x, &i64s(&[2, 1], &[1, 0]));
        assert_eq!(floats(y), (vec![2, 2], vec![2.0, 3.0, 4.0, 5.0]));
        let y = gather_nd(0, &x, &i64s(&[2, 1, 2], &[0, 1, 1, 0]));
        assert_eq!(floats(y), (vec![2, 1, 2], vec![2.0, 3.0, 4.0, 5.0]));
    }

    #[test]
    fn scatter_by_element() {
        // The examples of ONNX "ScatterElements".
        let x = f32s(&[1, 5], &[1.0, 2.0, 3.0, 4.0, 5.0]);
        let (at, updates) = (i64s(&[1, 2], &[1, -2]), f32s(&[1, 2], &[1.5, 2.5]));
        let y = scatter_elements(1, ScatterMode::Set, &x, &at, &updates);
        assert_eq!(floats(y).1, [1.0, 1.5, 3.0, 2.5, 5.0]);
        let twice = i64s(&[1, 2], &[1, 1]);
        let run = |mode| floats(scatter_elements(1, mode, &x, &twice, &updates)).1[1];
        assert_eq!((run(ScatterMode::Set), run(ScatterMode::Add), run(ScatterMode::Mul)), (2.5, 6.0, 7.5));
        assert_eq!((run(ScatterMode::Max), run(ScatterMode::Min)), (2.5, 1.5));
        let zeros = f32s(&[3, 3], &[0.0; 9]);
        let at = i64s(&[2, 3], &[1, 0, 2, 0, 2, 1]);
        let updates = f32s(&[2, 3], &[10.0, 11.0, 12.0, 20.0, 21.0, 22.0]);
        let y = scatter_elements(0, ScatterMode::Set, &zeros, &at, &updates);
        assert_eq!(floats(y).1, [20.0, 11.0, 0.0, 10.0, 0.0, 22.0, 0.0, 21.0, 12.0]);
    }

    #[test]
    fn scatter_by_tuple() {
        // ONNX "ScatterND", example 1.
        let x = i64s(&[8], &[1, 2, 3, 4, 5, 6, 7, 8]);
        let y = scatter_nd(ScatterMode::Set, &x, &i64s(&[4, 1], &[4, 3, 1, 7]), &i64s(&[4], &[9, 10, 11, 12]));
        assert_eq!(y.unwrap()[0].to_i64s(), [1, 11, 3, 10, 9, 6, 7, 12]);
        let x = i64s(&[2, 2], &[1, 2, 3, 4]);
        let y = scatter_nd(ScatterMode::Add, &x, &i64s(&[2, 1], &[0, 0]), &i64s(&[2, 2], &[10, 20, 30, 40]));
        assert_eq!(y.unwrap()[0].to_i64s(), [41, 62, 3, 4]);
        assert!(scatter_nd(ScatterMode::Add, &x, &i64s(&[2, 1], &[0, 2]), &i64s(&[2, 2], &[0; 4])).is_err());
        assert!(scatter_nd(ScatterMode::Add, &x, &i64s(&[2, 1], &[0, 1]), &i64s(&[2], &[0; 2])).is_err());
    }
}
