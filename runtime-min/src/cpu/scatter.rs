//! Writes by index (ONNX `ScatterElements`, `ScatterND`): a copy of the data, then the updates in order, so that of
//! several to one place all count (or, set, the last).

use crate::cpu::element::{Arith, Number, number, word};
use crate::cpu::gather::{OutOfRange, Tuples, indices, lines, position};
use crate::cpu::memory::{Buffer, Tensor, TensorMut};
use crate::op::ScatterMode;

/// The operands of a scatter.
pub struct Operands<'t> {
    pub x: Tensor<'t>,
    pub indices: Tensor<'t>,
    pub updates: Tensor<'t>,
}

/// `out[i, indices[i, j, ..], ..]` takes `updates[i, j, ..]`, the index standing on `axis`.
pub fn scatter_elements(
    axis: usize,
    mode: ScatterMode,
    operands: &Operands<'_>,
    out: &mut TensorMut<'_>,
    buffer: &mut Buffer,
) -> Result<(), OutOfRange> {
    let Operands { x, indices: picks, updates } = operands;
    out.bytes.copy_from_slice(x.bytes);
    let step: usize = x.dims[axis + 1..].iter().product();
    let (extent, dims) = (x.dims[axis], picks.dims);
    let picks = indices(picks, buffer);
    let place = |k: usize, start: usize| Ok(start + position(picks[k], extent)? * step);
    if mode == ScatterMode::Set {
        return word!(x.dtype, T => {
            let (updates, out) = (updates.words::<T>(), out.words::<T>());
            lines(axis, &dims, &x.dims, |k, start| {
                out[place(k, start)?] = updates[k];
                Ok(())
            })
        });
    }
    number!(x.dtype, T => {
        let (updates, out) = (updates.data::<T>(), out.data::<T>());
        lines(axis, &dims, &x.dims, |k, start| {
            let at = place(k, start)?;
            out[at] = combined(mode, out[at], updates[k]);
            Ok(())
        })
    })
}

/// `out[indices[j.., :]]` takes `updates[j..]`.
pub fn scatter_nd(
    mode: ScatterMode,
    operands: &Operands<'_>,
    out: &mut TensorMut<'_>,
    buffer: &mut Buffer,
) -> Result<(), OutOfRange> {
    let Operands { x, indices: picks, updates } = operands;
    out.bytes.copy_from_slice(x.bytes);
    let Some((&depth, outer)) = picks.dims.split_last() else { return Ok(()) };
    let count: usize = outer.iter().product();
    let tuples = Tuples::new(indices(picks, buffer), depth, &x.dims);
    if mode == ScatterMode::Set {
        word!(x.dtype, T => {
            let (updates, out) = (updates.words::<T>(), out.words::<T>());
            for k in 0..count {
                let start = tuples.start(k)?;
                out[start..][..tuples.block].copy_from_slice(&updates[k * tuples.block..][..tuples.block]);
            }
        });
        return Ok(());
    }
    number!(x.dtype, T => {
        let (updates, out) = (updates.data::<T>(), out.data::<T>());
        for k in 0..count {
            let start = tuples.start(k)?;
            for (out, update) in out[start..][..tuples.block].iter_mut().zip(&updates[k * tuples.block..]) {
                *out = combined(mode, *out, *update);
            }
        }
    });
    Ok(())
}

fn combined<T: Number>(mode: ScatterMode, old: T, update: T) -> T {
    let (a, b) = (old.widen(), update.widen());
    match mode {
        ScatterMode::Set => update,
        ScatterMode::Add => T::narrow(a.add(b)),
        ScatterMode::Mul => T::narrow(a.mul(b)),
        ScatterMode::Max => T::narrow(a.larger(b)),
        ScatterMode::Min => T::narrow(a.smaller(b)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::{tensor, tensor_mut};

    fn row(mode: ScatterMode, picks: &[i64], updates: &[f32]) -> Result<Vec<f32>, OutOfRange> {
        let x = [1.0f32, 2.0, 3.0, 4.0, 5.0];
        let count = picks.len();
        let operands = Operands {
            x: tensor(&x, &[1, 5]),
            indices: tensor(picks, &[1, count]),
            updates: tensor(updates, &[1, count]),
        };
        let mut out = vec![0f32; 5];
        scatter_elements(1, mode, &operands, &mut tensor_mut(&mut out, &[1, 5]), &mut Buffer::default())?;
        Ok(out)
    }

    #[test]
    fn elements_in_all_modes() {
        // The examples of the ONNX specification.
        assert_eq!(row(ScatterMode::Set, &[1, 3], &[1.1, 2.1]).unwrap(), [1.0, 1.1, 3.0, 2.1, 5.0]);
        assert_eq!(row(ScatterMode::Set, &[1, -3], &[1.1, 2.1]).unwrap(), [1.0, 1.1, 2.1, 4.0, 5.0]);
        assert_eq!(row(ScatterMode::Add, &[1, 1], &[0.5, 2.0]).unwrap(), [1.0, 4.5, 3.0, 4.0, 5.0]);
        assert_eq!(row(ScatterMode::Mul, &[4, 4], &[2.0, 3.0]).unwrap(), [1.0, 2.0, 3.0, 4.0, 30.0]);
        assert_eq!(row(ScatterMode::Max, &[0, 1], &[7.0, 0.0]).unwrap(), [7.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(row(ScatterMode::Min, &[0, 1], &[7.0, 0.0]).unwrap(), [1.0, 0.0, 3.0, 4.0, 5.0]);
        assert_eq!(row(ScatterMode::Set, &[5], &[7.0]), Err(OutOfRange { index: 5, extent: 5 }));
    }

    #[test]
    fn blocks() {
        let x = [1i32, 2, 3, 4, 5, 6, 7, 8];
        let (picks, updates) = ([3i64, 0], [10i32, 20, 30, 40]);
        let operands =
            Operands { x: tensor(&x, &[4, 2]), indices: tensor(&picks, &[2, 1]), updates: tensor(&updates, &[2, 2]) };
        let mut out = [0i32; 8];
        scatter_nd(ScatterMode::Set, &operands, &mut tensor_mut(&mut out, &[4, 2]), &mut Buffer::default()).unwrap();
        assert_eq!(out, [30, 40, 3, 4, 5, 6, 10, 20]);
        scatter_nd(ScatterMode::Add, &operands, &mut tensor_mut(&mut out, &[4, 2]), &mut Buffer::default()).unwrap();
        assert_eq!(out, [31, 42, 3, 4, 5, 6, 17, 28]);
    }
}
