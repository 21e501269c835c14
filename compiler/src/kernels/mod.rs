//! The kernels of a plan: which there are, what they are called, and their machine code.
//!
//! [`KernelSet::of`] collects the distinct sources that a chosen program launches and names them; the names depend on
//! nothing but the sources. [`compile`] makes a cubin of each, with the [`Toolchain`] of this machine.

mod compile;
mod nvcc;
mod nvrtc;
mod toolchain;

use std::collections::{BTreeMap, BTreeSet};

use lapidary_templates::candidate::{ENTRY, Source};
use sha2::{Digest, Sha256};

use crate::lower::SegmentId;
use crate::select::{Chosen, Pick};

use compile::Failure;
pub use compile::compile;
pub use nvcc::{OPTIONS as NVCC_OPTIONS, gencode};
pub use toolchain::Toolchain;

/// A kernel: the text that NVRTC or nvcc compiles, without the headers that it includes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// The `extern "C"` name, also the stem of its file: what it does, and eight digits of the SHA-256 of its source.
    pub entry: String,
    /// CUDA C++ with the entry point's name in place.
    pub text: String,
}

/// The distinct kernels of a plan, sorted by name.
#[derive(Clone, Debug, Default)]
pub struct KernelSet {
    pub kernels: Vec<Kernel>,
    indices: BTreeMap<Source, u32>,
}

impl KernelSet {
    /// The kernels that `chosen` launches.
    pub fn of(chosen: &Chosen) -> KernelSet {
        let mut sources = BTreeSet::new();
        for (segment, steps) in chosen.program.segments.iter().enumerate() {
            for (k, step) in steps.iter().enumerate() {
                sources.extend(step.deciding().into_iter().map(|launch| &launch.source));
                match chosen.pick(SegmentId(segment as u32), k) {
                    Pick::Runtime => {}
                    Pick::Kernels(candidate) => sources.extend(candidate.launches.iter().map(|launch| &launch.source)),
                }
            }
        }
        KernelSet::named(sources)
    }

    /// The number of the kernel that `source` became, in [`KernelSet::kernels`].
    pub fn index(&self, source: &Source) -> u32 {
        match self.indices.get(source) {
            Some(&index) => index,
            None => crate::bug!(dump: source.text; "the kernel {} is not in the set", source.stem),
        }
    }

    /// The kernels of some sources.
    pub fn named(sources: BTreeSet<&Source>) -> KernelSet {
        let mut named: BTreeMap<String, &Source> = BTreeMap::new();
        for source in sources {
            named.insert(name(source, |name| !named.contains_key(name)), source);
        }
        let indices = named.values().zip(0..).map(|(source, index)| ((*source).clone(), index)).collect();
        let kernels = named
            .into_iter()
            .map(|(entry, source)| Kernel { text: source.text.replace(ENTRY, &entry), entry })
            .collect();
        KernelSet { kernels, indices }
    }
}

/// Digits of the hash in a name; more only where two sources of one stem share them.
const HASH_DIGITS: usize = 8;

/// Longer stems are cut, so that file names stay within every file system's limit.
const LONGEST_STEM: usize = 80;

fn name(source: &Source, is_free: impl Fn(&str) -> bool) -> String {
    let hash: String = Sha256::digest(&source.text).iter().map(|byte| format!("{byte:02x}")).collect();
    let stem = identifier(&source.stem);
    let names = (HASH_DIGITS..=hash.len()).map(|digits| format!("{stem}_{}", &hash[..digits]));
    match names.into_iter().find(|name| is_free(name)) {
        Some(name) => name,
        None => crate::bug!(dump: source.text; "two kernels {stem} have the hash {hash}"),
    }
}

/// `stem` as the start of a C identifier.
fn identifier(stem: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let name: String = stem.chars().map(allowed).take(LONGEST_STEM).collect();
    if name.starts_with(|c: char| c.is_ascii_alphabetic()) { name } else { format!("k_{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(stem: &str, text: &str) -> Source {
        Source { stem: stem.to_owned(), text: text.to_owned() }
    }

    #[test]
    fn a_name_is_the_stem_and_the_hash_of_the_source() {
        let text = "__global__ void LAPIDARY_ENTRY() {}";
        let (one, two) = (source("gemm/a", text), source("1x1", text));
        let set = KernelSet::named([&one, &two].into());
        // printf '%s' '__global__ void LAPIDARY_ENTRY() {}' | sha256sum
        let entries: Vec<&str> = set.kernels.iter().map(|kernel| kernel.entry.as_str()).collect();
        let hash = entries[0].rsplit('_').next().unwrap_or("");
        assert_eq!(entries, [format!("gemm_a_{hash}"), format!("k_1x1_{hash}")]);
        assert_eq!(hash.len(), HASH_DIGITS);
        assert_eq!(set.kernels[0].text, format!("__global__ void gemm_a_{hash}() {{}}"));
        assert_eq!((set.index(&one), set.index(&two)), (0, 1));
    }

    #[test]
    fn a_taken_name_gets_more_of_the_hash() {
        let source = source("gemm", "text");
        let short = name(&source, |_| true);
        let longer = name(&source, |name| name != short);
        assert_eq!(longer.len(), short.len() + 1);
        assert!(longer.starts_with(&short));
    }
}
