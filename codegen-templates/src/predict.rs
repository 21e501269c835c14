//! The predicted time of kernels that move data, from what they move and how much of it is under way at once.
//!
//! A roofline of three: the memory's bandwidth, Little's law over the bytes that the resident thread blocks keep
//! requested, and the instructions that the SMs issue; behind them the time to start a kernel.

use crate::arch::Arch;

/// Microseconds between the starts of two dependent kernels of a graph.
const LAUNCH: f64 = 2.0;
/// Microseconds from a load to its data.
const LATENCY: f64 = 0.7;
/// Warp instructions that an SM issues a clock, of the four it could.
const ISSUED: f64 = 2.5;
/// The share of the peak bandwidth that streaming kernels reach.
const STREAMED: f64 = 0.85;
/// Threads that an SM holds.
const RESIDENT: f64 = 2048.0;

/// What a kernel does.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// Bytes between device memory and the SMs; whole sectors where accesses are scattered.
    pub bytes: f64,
    /// Thread blocks, and threads of each.
    pub blocks: f64,
    pub threads: f64,
    /// Bytes that a thread block has requested at a time.
    pub in_flight: f64,
    /// Instructions of all threads.
    pub instructions: f64,
}

impl Work {
    /// Microseconds on `arch`, the launch included.
    pub fn microseconds(&self, arch: Arch) -> f64 {
        let limits = arch.limits();
        let sms = f64::from(limits.sms);
        let resident = self.blocks.clamp(1.0, sms * (RESIDENT / self.threads).max(1.0));
        let bandwidth = limits.bandwidth * STREAMED / 1e6;
        let requested = resident * self.in_flight.max(1.0) / LATENCY;
        let busy = sms.min(self.blocks.max(1.0));
        let issue = self.instructions / 32.0 / (busy * ISSUED * limits.clock * 1e3);
        LAUNCH + LATENCY + (self.bytes / bandwidth.min(requested)).max(issue)
    }
}

/// The time of kernels that run one after the other.
pub fn in_turn<'w>(works: impl IntoIterator<Item = &'w Work>, arch: Arch) -> f64 {
    works.into_iter().map(|work| work.microseconds(arch)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_copies_run_at_the_bandwidth_and_small_ones_at_the_latency() {
        let arch: Arch = "sm_90a".parse().expect("a known architecture");
        let copy = |bytes: f64| Work {
            bytes,
            blocks: (bytes / 16384.0).ceil(),
            threads: 256.0,
            in_flight: 8192.0,
            instructions: bytes / 4.0,
        };
        let large = copy(1e9).microseconds(arch);
        assert!((large - 1e9 / (4.3e6 * STREAMED)).abs() / large < 0.05, "{large}");
        assert!(copy(1024.0).microseconds(arch) < 4.0);
    }
}
