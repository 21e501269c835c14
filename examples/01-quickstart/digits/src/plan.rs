//! The plans of the model, one a target, and the weights that they share.

pub mod cpu;

#[cfg(feature = "embed-weights")]
use lapidary_runtime::Aligned;
use lapidary_runtime::Error;
use lapidary_runtime::Weights;
use lapidary_runtime::table::Range;

/// The weights in the binary.
#[cfg(feature = "embed-weights")]
pub fn weights() -> Weights<'static> {
    static BYTES: &Aligned<[u8]> = &Aligned(*include_bytes!("../weights.bin"));
    Weights::borrowed(&BYTES.0)
}

/// No weights: the builder takes them from a file.
#[cfg(not(feature = "embed-weights"))]
pub fn weights() -> Weights<'static> {
    Weights::borrowed(&[])
}

/// The extent, if a profile takes it.
pub fn checked(symbol: &str, extent: usize, ranges: &[Range]) -> Result<usize, Error> {
    let given = i64::try_from(extent).unwrap_or(i64::MAX);
    if ranges.iter().any(|range| (range.min..=range.max).contains(&given)) {
        return Ok(extent);
    }
    Err(Error::OutsideProfiles {
        symbol: symbol.to_owned(),
        given,
        ranges: ranges.to_vec(),
    })
}
