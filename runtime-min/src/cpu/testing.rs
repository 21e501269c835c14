//! What the unit tests share: a small deterministic generator, and tensors built from slices.

use crate::cpu::memory::{Plain, Tensor, TensorMut, bytes_of, bytes_of_mut};
use crate::dtype::Element;
use crate::shapes::Extents;

/// Marsaglia's xorshift generator.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn bits(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.bits() >> 20) as usize % limit.max(1)
    }

    /// Between -1 and 1.
    pub fn float(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u32 << 23) as f32 - 1.0
    }

    pub fn floats(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.float()).collect()
    }
}

/// A tensor over a slice.
pub fn tensor<'t, T: Element + Plain>(data: &'t [T], dims: &[usize]) -> Tensor<'t> {
    assert_eq!(data.len(), dims.iter().product::<usize>());
    Tensor { dtype: T::DTYPE, dims: Extents::try_from(dims).unwrap(), bytes: bytes_of(data) }
}

/// A tensor over a slice, to be written.
pub fn tensor_mut<'t, T: Element + Plain>(data: &'t mut [T], dims: &[usize]) -> TensorMut<'t> {
    assert_eq!(data.len(), dims.iter().product::<usize>());
    TensorMut { dtype: T::DTYPE, dims: Extents::try_from(dims).unwrap(), bytes: bytes_of_mut(data) }
}

/// Asserts that two slices agree to `tolerance`, relative to the larger of 1 and the expected value.
pub fn assert_close(given: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(given.len(), expected.len());
    for (k, (g, e)) in given.iter().zip(expected).enumerate() {
        let error = (f64::from(*g) - e).abs() / e.abs().max(1.0);
        assert!(error <= tolerance || (g.is_nan() && e.is_nan()), "element {k}: {g} instead of {e}");
    }
}
