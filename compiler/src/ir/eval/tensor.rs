//! `Tensor`: a type, extents, and packed little-endian bytes; and `Values`, its elements decoded for arithmetic.
//!
//! Decoding is exact. Encoding rounds once, from the double (or the integer) to the element type. Nothing here knows
//! what an operation is.

use bytes::Bytes;
use lapidary_runtime::op::{MAX_RANK, Transpose};
use lapidary_runtime::{BF16, DType, F16};

use super::{index, lowp, movement};

/// A tensor: row-major elements, packed as ONNX packs `raw_data` (little-endian; sub-byte types low bits first).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    pub dtype: DType,
    /// Extents, outermost first; empty for a scalar.
    pub dims: Vec<usize>,
    pub bytes: Bytes,
}

/// The elements of a tensor as numbers.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// Elements of a float type.
    Float(Vec<f64>),
    /// Elements of an integer type or `bool` (0 and 1); `u64` by its bit pattern.
    Int(Vec<i64>),
}

impl Tensor {
    /// A tensor of the given bytes; an error if their number is not that of the elements.
    pub fn new(dtype: DType, dims: Vec<usize>, bytes: impl Into<Bytes>) -> Result<Tensor, String> {
        let bytes = bytes.into();
        if dtype.bytes(index::count(&dims)?) != bytes.len() {
            return Err(format!("{} bytes cannot be a {dtype}{dims:?}", bytes.len()));
        }
        Ok(Tensor { dtype, dims, bytes })
    }

    /// The number of elements.
    pub fn count(&self) -> usize {
        self.dims.iter().product()
    }

    /// The number of axes.
    pub fn rank(&self) -> usize {
        self.dims.len()
    }

    /// The same elements under other extents.
    pub fn reshaped(&self, dims: Vec<usize>) -> Result<Tensor, String> {
        Tensor::new(self.dtype, dims, self.bytes.clone())
    }

    /// The tensor whose axis `k` is this one's axis `axes[k]`, each of which is named once.
    pub fn transposed(&self, axes: &[usize]) -> Tensor {
        let mut spec = Transpose { rank: axes.len() as u8, perm: [0; MAX_RANK] };
        spec.perm.iter_mut().zip(axes).for_each(|(to, axis)| *to = *axis as u8);
        match movement::transpose(&spec, self) {
            Ok(moved) => moved.into_iter().next().unwrap_or_else(|| self.clone()),
            Err(why) => crate::bug!("{why}"),
        }
    }

    /// The elements, decoded exactly.
    pub fn decode(&self) -> Values {
        let bytes = &self.bytes[..];
        match self.dtype {
            DType::F64 => Values::Float(words(bytes, f64::from_le_bytes)),
            DType::F32 => Values::Float(words(bytes, |b| f64::from(f32::from_le_bytes(b)))),
            DType::F16 => Values::Float(words(bytes, |b| f64::from(F16(u16::from_le_bytes(b)).to_f32()))),
            DType::BF16 => Values::Float(words(bytes, |b| f64::from(BF16(u16::from_le_bytes(b)).to_f32()))),
            DType::I64 => Values::Int(words(bytes, i64::from_le_bytes)),
            DType::I32 => Values::Int(words(bytes, |b| i64::from(i32::from_le_bytes(b)))),
            DType::I16 => Values::Int(words(bytes, |b| i64::from(i16::from_le_bytes(b)))),
            DType::I8 => Values::Int(words(bytes, |b| i64::from(i8::from_le_bytes(b)))),
            DType::U64 => Values::Int(words(bytes, |b| u64::from_le_bytes(b) as i64)),
            DType::U32 => Values::Int(words(bytes, |b| i64::from(u32::from_le_bytes(b)))),
            DType::U16 => Values::Int(words(bytes, |b| i64::from(u16::from_le_bytes(b)))),
            DType::U8 => Values::Int(words(bytes, |[b]: [u8; 1]| i64::from(b))),
            DType::Bool => Values::Int(words(bytes, |[b]: [u8; 1]| i64::from(b != 0))),
            DType::F8E4M3FN | DType::F8E4M3FNUZ | DType::F8E5M2 | DType::F8E5M2FNUZ | DType::F8E8M0 | DType::F4E2M1 => {
                let codes = lowp::unpack(self.dtype, bytes, self.count());
                Values::Float(codes.into_iter().map(|code| lowp::decode_float(self.dtype, code)).collect())
            }
            DType::I4 | DType::U4 | DType::I2 | DType::U2 => {
                let codes = lowp::unpack(self.dtype, bytes, self.count());
                Values::Int(codes.into_iter().map(|code| wrap(self.dtype, i64::from(code))).collect())
            }
        }
    }

    /// A tensor of the given elements; the conversion is that of ONNX `Cast` (see [`Tensor::from_f64s`] and
    /// [`Tensor::from_i64s`]).
    pub fn encode(dtype: DType, dims: Vec<usize>, values: &Values) -> Tensor {
        match values {
            Values::Float(values) => Tensor::from_f64s(dtype, dims, values),
            Values::Int(values) => Tensor::from_i64s(dtype, dims, values),
        }
    }

    /// The elements as doubles; integers are converted, `bool` gives 0 and 1.
    pub fn to_f64s(&self) -> Vec<f64> {
        match self.decode() {
            Values::Float(values) => values,
            Values::Int(values) if self.dtype == DType::U64 => values.into_iter().map(|v| v as u64 as f64).collect(),
            Values::Int(values) => values.into_iter().map(|v| v as f64).collect(),
        }
    }

    /// The elements as integers (`u64` by bit pattern); floats are truncated, and saturate.
    pub fn to_i64s(&self) -> Vec<i64> {
        match self.decode() {
            Values::Float(values) => values.into_iter().map(|v| v as i64).collect(),
            Values::Int(values) => values,
        }
    }

    /// A tensor of `dims` from doubles. Floats are rounded once, to nearest even; beyond the range they become
    /// infinity, or with the 8- and 4-bit types the largest number (an infinity of E5M2 stays one). Integers are truncated and saturate, NaN gives 0.
    /// `bool` is `!= 0`. The caller gives as many values as `dims` say.
    pub fn from_f64s(dtype: DType, dims: Vec<usize>, values: &[f64]) -> Tensor {
        debug_assert_eq!(dims.iter().product::<usize>(), values.len());
        let bytes = match dtype {
            DType::F64 => bytes_of(values, |v| v.to_le_bytes()),
            DType::F32 => bytes_of(values, |v| (v as f32).to_le_bytes()),
            DType::F16 => bytes_of(values, |v| F16::from_f64(v).0.to_le_bytes()),
            DType::BF16 => bytes_of(values, |v| BF16::from_f64(v).0.to_le_bytes()),
            DType::I64 => bytes_of(values, |v| (v as i64).to_le_bytes()),
            DType::U64 => bytes_of(values, |v| (v as u64).to_le_bytes()),
            DType::F8E4M3FN | DType::F8E4M3FNUZ | DType::F8E5M2 | DType::F8E5M2FNUZ | DType::F8E8M0 | DType::F4E2M1 => {
                lowp::pack(dtype, values.iter().map(|&v| lowp::encode_float(dtype, v)))
            }
            DType::I32
            | DType::I16
            | DType::I8
            | DType::U32
            | DType::U16
            | DType::U8
            | DType::Bool
            | DType::I4
            | DType::U4
            | DType::I2
            | DType::U2 => {
                let whole: Vec<i64> = values.iter().map(|&v| float_to_int(dtype, v)).collect();
                return Tensor::from_i64s(dtype, dims, &whole);
            }
        };
        Tensor { dtype, dims, bytes: bytes.into() }
    }

    /// A tensor of `dims` from signed integers: integers wrap, floats are rounded once, `bool` is `!= 0`.
    pub fn from_i64s(dtype: DType, dims: Vec<usize>, values: &[i64]) -> Tensor {
        debug_assert_eq!(dims.iter().product::<usize>(), values.len());
        let bytes = match dtype {
            DType::I64 | DType::U64 => bytes_of(values, |v| v.to_le_bytes()),
            DType::I32 | DType::U32 => bytes_of(values, |v| (v as u32).to_le_bytes()),
            DType::I16 | DType::U16 => bytes_of(values, |v| (v as u16).to_le_bytes()),
            DType::I8 | DType::U8 => bytes_of(values, |v| (v as u8).to_le_bytes()),
            DType::Bool => bytes_of(values, |v| [u8::from(v != 0)]),
            DType::I4 | DType::U4 | DType::I2 | DType::U2 => lowp::pack(dtype, values.iter().map(|&v| v as u8)),
            DType::F64
            | DType::F32
            | DType::F16
            | DType::BF16
            | DType::F8E4M3FN
            | DType::F8E4M3FNUZ
            | DType::F8E5M2
            | DType::F8E5M2FNUZ
            | DType::F8E8M0
            | DType::F4E2M1 => {
                let floats: Vec<f64> = values.iter().map(|&v| int_to_float(dtype, i128::from(v))).collect();
                return Tensor::from_f64s(dtype, dims, &floats);
            }
        };
        Tensor { dtype, dims, bytes: bytes.into() }
    }

    /// The elements as cells that can be moved about: their size in bytes, and the bytes. Sub-byte elements get a
    /// byte each.
    pub(super) fn cells(&self) -> (usize, Bytes) {
        match self.dtype.bits() {
            bits if bits < 8 => (1, lowp::unpack(self.dtype, &self.bytes, self.count()).into()),
            bits => (bits / 8, self.bytes.clone()),
        }
    }

    /// The inverse of [`Tensor::cells`].
    pub(super) fn from_cells(dtype: DType, dims: Vec<usize>, cells: Vec<u8>) -> Result<Tensor, String> {
        let bytes = if dtype.bits() < 8 { lowp::pack(dtype, cells.into_iter()) } else { cells };
        Tensor::new(dtype, dims, bytes)
    }
}

impl Values {
    /// The number of elements.
    pub fn len(&self) -> usize {
        match self {
            Values::Float(values) => values.len(),
            Values::Int(values) => values.len(),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// `value` converted to the float type, as a double: rounded, and saturated where the type has at most 8 bits. Integer
/// types leave it as it is.
pub(super) fn round_float(dtype: DType, value: f64) -> f64 {
    match dtype {
        DType::F32 => f64::from(value as f32),
        DType::F16 => f64::from(F16::from_f64(value).to_f32()),
        DType::BF16 => f64::from(BF16::from_f64(value).to_f32()),
        DType::F8E4M3FN | DType::F8E4M3FNUZ | DType::F8E5M2 | DType::F8E5M2FNUZ | DType::F8E8M0 | DType::F4E2M1 => {
            lowp::decode_float(dtype, lowp::encode_float(dtype, lowp::saturate(dtype, value)))
        }
        DType::F64
        | DType::I64
        | DType::I32
        | DType::I16
        | DType::I8
        | DType::U64
        | DType::U32
        | DType::U16
        | DType::U8
        | DType::Bool
        | DType::I4
        | DType::U4
        | DType::I2
        | DType::U2 => value,
    }
}

/// The low bits of `value` that the integer type keeps, extended to 64 bits by sign or zeros; `bool` is `!= 0`.
pub(super) fn wrap(dtype: DType, value: i64) -> i64 {
    if dtype == DType::Bool {
        return i64::from(value != 0);
    }
    let unused = 64 - dtype.bits();
    if dtype.is_signed_int() { value << unused >> unused } else { ((value as u64) << unused >> unused) as i64 }
}

/// A decoded integer as a number: `u64` is held by its bit pattern.
pub(super) fn widen(dtype: DType, value: i64) -> i128 {
    if dtype == DType::U64 { i128::from(value as u64) } else { i128::from(value) }
}

/// A float as a decoded integer: truncated toward zero, saturating; NaN gives 0, `bool` is `!= 0`.
pub(crate) fn float_to_int(dtype: DType, value: f64) -> i64 {
    if dtype == DType::Bool {
        return i64::from(value != 0.0);
    }
    if dtype == DType::U64 {
        return value as u64 as i64;
    }
    let unused = 64 - dtype.bits();
    if dtype.is_signed_int() {
        (value as i64).clamp(i64::MIN >> unused, i64::MAX >> unused)
    } else {
        (value as i64).clamp(0, (u64::MAX >> unused) as i64)
    }
}

/// An integer as a value of the float type, rounded once.
pub(super) fn int_to_float(dtype: DType, value: i128) -> f64 {
    if dtype == DType::F32 {
        return f64::from(value as f32);
    }
    let inexact = dtype != DType::F64 && value.unsigned_abs() >> 53 != 0 && value & 0x7ff != 0;
    // A double holds 53 bits of up to 64. Rounded to odd in the others, it leaves the one rounding to a much narrower
    // type right.
    let value = if inexact { value & !0x7ff | 0x800 } else { value };
    round_float(dtype, value as f64)
}

fn words<const N: usize, T>(bytes: &[u8], decode: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks::<N>().0.iter().map(|&word| decode(word)).collect()
}

fn bytes_of<T: Copy, const N: usize>(values: &[T], encode: impl Fn(T) -> [u8; N]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(values.len() * N);
    values.iter().for_each(|&value| bytes.extend_from_slice(&encode(value)));
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_round_trips() {
        for dtype in DType::ALL {
            let values = [0.0, 1.0, 1.0, 0.0, 1.0];
            // E8M0 has no zero.
            let values = if dtype == DType::F8E8M0 { [1.0; 5] } else { values };
            let tensor = Tensor::from_f64s(dtype, vec![5], &values);
            assert_eq!(tensor.bytes.len(), dtype.bytes(5));
            assert_eq!(tensor.to_f64s(), values, "{dtype}");
            let (_, cells) = tensor.cells();
            assert_eq!(Tensor::from_cells(dtype, vec![5], cells.to_vec()).unwrap(), tensor);
            assert_eq!(Tensor::encode(dtype, vec![5], &tensor.decode()), tensor);
        }
    }

    #[test]
    fn integers_wrap_and_floats_saturate() {
        assert_eq!(Tensor::from_i64s(DType::I8, vec![3], &[200, -129, 5]).to_i64s(), [-56, 127, 5]);
        assert_eq!(Tensor::from_i64s(DType::U4, vec![2], &[17, -1]).to_i64s(), [1, 15]);
        assert_eq!(Tensor::from_i64s(DType::I2, vec![4], &[1, 2, 3, -2]).to_i64s(), [1, -2, -1, -2]);
        assert_eq!(Tensor::from_f64s(DType::I8, vec![3], &[200.7, -1e9, f64::NAN]).to_i64s(), [127, -128, 0]);
        assert_eq!(Tensor::from_f64s(DType::U32, vec![2], &[5e9, -3.0]).to_i64s(), [0xffff_ffff, 0]);
        assert_eq!(Tensor::from_f64s(DType::U64, vec![1], &[1.8e19]).to_f64s(), [1.8e19]);
        assert_eq!(Tensor::from_f64s(DType::Bool, vec![3], &[f64::NAN, 0.0, -0.5]).to_i64s(), [1, 0, 1]);
    }

    #[test]
    fn integers_round_once() {
        // 2^60 + 2^36 + 1 lies just above a tie of f32: by way of f64 it would round down to even.
        let value = (1i64 << 60) + (1 << 36) + 1;
        assert_eq!(Tensor::from_i64s(DType::F32, vec![1], &[value]).to_f64s(), [((1i64 << 60) + (1 << 37)) as f64]);
        let value = (1i64 << 60) + (1 << 52) + 1;
        assert_eq!(Tensor::from_i64s(DType::BF16, vec![1], &[value]).to_f64s(), [((1i64 << 60) + (1 << 53)) as f64]);
        assert_eq!(Tensor::from_i64s(DType::BF16, vec![2], &[-3, 2047]).to_f64s(), [-3.0, 2048.0]);
        assert_eq!(Tensor::from_i64s(DType::F16, vec![2], &[-2049, 1 << 62]).to_f64s(), [-2048.0, f64::INFINITY]);
    }

    #[test]
    fn the_number_of_bytes_is_checked() {
        assert!(Tensor::new(DType::F32, vec![2], vec![0u8; 7]).is_err());
        assert!(Tensor::new(DType::I8, vec![usize::MAX, 2], vec![]).is_err());
        assert!(Tensor::new(DType::U4, vec![3], vec![0u8; 2]).is_ok());
    }
}
