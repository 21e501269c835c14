//! What each GPU architecture can do, with the source of each number.
//!
//! Limits are from the CUDA C++ Programming Guide, "Compute Capabilities", tables "Feature Support" and "Technical
//! Specifications per Compute Capability"; rates are per SM and clock, dense.

use std::fmt;
use std::str::FromStr;

/// A GPU architecture that kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Arch {
    /// Compute capability times ten.
    pub sm: u32,
    /// Whether code uses features that only this architecture has (the `a` of `sm_90a`).
    pub exact: bool,
}

/// The limits and rates of an architecture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Bytes of shared memory that one thread block may have.
    pub shared_per_block: u32,
    /// Bytes of shared memory of an SM.
    pub shared_per_sm: u32,
    /// SMs of the part that costs are predicted for.
    pub sms: u32,
    /// Fused multiply-adds of a `f32` pair per SM and clock.
    pub fma_f32: f64,
    /// Multiply-adds of an `f16` or `bf16` pair by `mma.sync` per SM and clock.
    pub mma_f16: f64,
    /// GHz, as boosted under load.
    pub clock: f64,
    /// Bytes of device memory per second.
    pub bandwidth: f64,
}

/// The architectures that Lapidary compiles for.
pub const ARCHS: &[(Arch, Limits)] = &[
    // A100-SXM4-80GB.
    (
        Arch { sm: 80, exact: false },
        Limits {
            shared_per_block: 163 * 1024,
            shared_per_sm: 164 * 1024,
            sms: 108,
            fma_f32: 64.0,
            mma_f16: 1024.0,
            clock: 1.41,
            bandwidth: 2.0e12,
        },
    ),
    // GA102: as sm_80 with less shared memory.
    (
        Arch { sm: 86, exact: false },
        Limits {
            shared_per_block: 99 * 1024,
            shared_per_sm: 100 * 1024,
            sms: 84,
            fma_f32: 128.0,
            mma_f16: 512.0,
            clock: 1.7,
            bandwidth: 0.77e12,
        },
    ),
    // AD102.
    (
        Arch { sm: 89, exact: false },
        Limits {
            shared_per_block: 99 * 1024,
            shared_per_sm: 100 * 1024,
            sms: 142,
            fma_f32: 128.0,
            mma_f16: 512.0,
            clock: 2.5,
            bandwidth: 0.86e12,
        },
    ),
    // H200-SXM; mma.sync reaches about 60% of wgmma's 2048.
    (
        Arch { sm: 90, exact: true },
        Limits {
            shared_per_block: 227 * 1024,
            shared_per_sm: 228 * 1024,
            sms: 132,
            fma_f32: 128.0,
            mma_f16: 1228.0,
            clock: 1.755,
            bandwidth: 4.3e12,
        },
    ),
];

impl Arch {
    /// All that there are, in ascending order.
    pub fn all() -> impl Iterator<Item = Arch> {
        ARCHS.iter().map(|(arch, _)| *arch)
    }

    /// The limits of this architecture.
    pub fn limits(self) -> &'static Limits {
        let found = ARCHS.iter().find(|(arch, _)| *arch == self);
        // `Arch` values come from `ARCHS` alone: `from_str` and `for_device` look them up there.
        found.map_or(&ARCHS[0].1, |(_, limits)| limits)
    }

    /// The architecture whose kernels a device of this compute capability (times ten) runs best.
    pub fn for_device(sm: u32) -> Option<Arch> {
        let runs = |arch: &Arch| if arch.exact { arch.sm == sm } else { arch.sm <= sm && arch.sm / 10 == sm / 10 };
        ARCHS.iter().map(|(arch, _)| *arch).filter(runs).max_by_key(|arch| arch.sm)
    }

    /// The virtual architecture that PTX is made for, such as `compute_90a`.
    pub fn compute(self) -> String {
        format!("compute_{}{}", self.sm, if self.exact { "a" } else { "" })
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sm_{}{}", self.sm, if self.exact { "a" } else { "" })
    }
}

impl FromStr for Arch {
    type Err = String;

    fn from_str(text: &str) -> Result<Arch, String> {
        let found = ARCHS.iter().map(|(arch, _)| *arch).find(|arch| arch.to_string() == text);
        found.ok_or_else(|| {
            let names: Vec<String> = ARCHS.iter().map(|(arch, _)| arch.to_string()).collect();
            format!("`{text}` is not an architecture; there are {}", names.join(", "))
        })
    }
}
