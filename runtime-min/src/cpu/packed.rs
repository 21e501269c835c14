//! Tensors of elements smaller than a byte, spread out to a byte an element so that they can be moved.

use crate::cpu::memory::{Buffer, Tensor, TensorMut};
use crate::cpu::pointwise::{packed, set_packed};
use crate::dtype::DType;

/// Buffers for the tensors of a step.
#[derive(Default)]
pub struct Unpacked {
    pub operands: [Buffer; 3],
    pub result: Buffer,
}

/// A tensor of bytes with the elements of `tensor`; others are as they were.
pub fn unpack<'t>(tensor: &Tensor<'t>, buffer: &'t mut Buffer) -> Tensor<'t> {
    let bits = tensor.dtype.bits();
    if bits >= 8 {
        return *tensor;
    }
    let to = buffer.take::<u8>(tensor.dims.count());
    for (k, to) in to.iter_mut().enumerate() {
        *to = packed(tensor.bytes, bits, k);
    }
    Tensor { dtype: DType::U8, dims: tensor.dims, bytes: to }
}

/// Packs bytes, an element each, into a tensor; what is left of its last byte is zero.
pub fn pack(elements: &[u8], out: &mut TensorMut<'_>) {
    let bits = out.dtype.bits();
    out.bytes.fill(0);
    for (k, element) in elements.iter().enumerate() {
        set_packed(out.bytes, bits, k, *element);
    }
}
