//! Quantized arithmetic: what QuantizeLinear and DequantizeLinear mean, read from programs, and the rules on it.
//!
//! There is no operation for either. The importer writes both as pointwise programs, other exporters write them as steps,
//! and behind these rules both must melt into epilogues and regions like any other step. What the rules need of them is one
//! question, asked of a value ([`linear`]).

pub mod bias;
pub mod linear;
pub mod moves;
pub mod narrow;
pub mod pair;
pub mod product;
mod sums;
