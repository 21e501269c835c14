//! What the fuzz targets are made of: the property that must hold of any bytes, mutations that keep models well formed
//! enough to get deep into the compiler, and the models they start from.
//!
//! Not here: libFuzzer and its flags, which are the targets' and `scripts/fuzz`'s.

pub mod dictionary;
pub mod mutate;
pub mod property;
pub mod random;
pub mod seeds;
