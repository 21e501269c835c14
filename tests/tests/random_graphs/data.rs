//! The elements of inputs and constants, from a seed.

use lapidary::ir::eval::Tensor;
use lapidary_runtime::DType;

/// xorshift64*: Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled".
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        // splitmix64, so that small seeds differ in all bits.
        let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x1234_5678_9abc_def1);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        Random((z ^ (z >> 27)) | 1)
    }

    pub fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.bits() >> 33) as usize % n.max(1)
    }

    /// From -1 to 1.
    pub fn signed(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }
}

/// What kind of numbers floats are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numbers {
    /// Between -2 and 2.
    Smooth,
    /// Multiples of 1/4, so that elements are often equal, and sums exact.
    Grid,
    /// Some infinite, not a number, or a negative zero.
    Special,
}

/// A tensor of seeded elements.
pub fn tensor(dtype: DType, dims: Vec<usize>, numbers: Numbers, seed: u64) -> Tensor {
    let mut random = Random::new(seed);
    let count = dims.iter().product();
    if dtype.is_float() {
        let values: Vec<f64> = (0..count).map(|_| float(numbers, &mut random)).collect();
        return Tensor::from_f64s(dtype, dims, &values);
    }
    let values: Vec<i64> = (0..count).map(|_| integer(dtype, &mut random)).collect();
    Tensor::from_i64s(dtype, dims, &values)
}

fn float(numbers: Numbers, random: &mut Random) -> f64 {
    match numbers {
        Numbers::Smooth => 2.0 * random.signed(),
        Numbers::Grid => (random.below(17) as f64 - 8.0) / 4.0,
        Numbers::Special => match random.below(12) {
            0 => f64::NAN,
            1 => f64::INFINITY,
            2 => f64::NEG_INFINITY,
            3 => -0.0,
            4 => 0.0,
            _ => 2.0 * random.signed(),
        },
    }
}

fn integer(dtype: DType, random: &mut Random) -> i64 {
    match dtype {
        DType::Bool => random.below(2) as i64,
        _ if random.below(40) == 0 => random.bits() as i64,
        dtype if dtype.is_signed_int() => random.below(13) as i64 - 5,
        _ => random.below(13) as i64,
    }
}
