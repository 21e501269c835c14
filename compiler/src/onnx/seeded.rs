//! Seeded stand-ins for weights that are not at hand: so that the graph of a large model can be planned and timed
//! without its weights.
//!
//! Each tensor's numbers depend on its name alone. They are small enough for activations to stay in range: matrices
//! and filters are uniform with variance 1 / fan-in (Y. LeCun et al., "Efficient BackProp", 1998), vectors, which
//! scale and normalize, lie between 0.5 and 1.5, integers are 0.

use bytes::Bytes;
use lapidary_runtime::{BF16, DType, F16};

/// The packed elements of a tensor called `name`.
pub fn elements(name: &str, dtype: DType, dims: &[usize]) -> Bytes {
    let count: usize = dims.iter().product();
    let (low, high) = bounds(dims);
    let mut state = name
        .bytes()
        .fold(0x9e37_79b9_7f4a_7c15_u64, |state, byte| (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
        | 1;
    let mut next = || {
        // Xorshift64: G. Marsaglia, "Xorshift RNGs" (2003).
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        low + (high - low) * (state >> 40) as f32 / (1u64 << 24) as f32
    };
    match dtype {
        DType::F64 => (0..count).flat_map(|_| f64::from(next()).to_le_bytes()).collect(),
        DType::F32 => (0..count).flat_map(|_| next().to_le_bytes()).collect(),
        DType::F16 => (0..count).flat_map(|_| F16::from_f32(next()).0.to_le_bytes()).collect(),
        DType::BF16 => (0..count).flat_map(|_| BF16::from_f32(next()).0.to_le_bytes()).collect(),
        dtype => Bytes::from(vec![0; dtype.bytes(count)]),
    }
}

fn bounds(dims: &[usize]) -> (f32, f32) {
    match dims {
        [] | [_] => (0.5, 1.5),
        [first, rest @ ..] => {
            // A filter sums over its further axes; a matrix over its first.
            let fan_in = if rest.len() == 1 { *first } else { rest.iter().product() };
            let bound = (3.0 / fan_in.max(1) as f32).sqrt();
            (-bound, bound)
        }
    }
}
