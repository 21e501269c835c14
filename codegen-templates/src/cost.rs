//! How long a kernel of tiles takes: a model that orders candidates.
//!
//! A launch runs in waves of blocks. In a wave, each step of a block takes its own latency, or the time that the SM is
//! busy with the steps of all resident blocks, whichever is longer; no launch beats its bytes over the bandwidth. The
//! constants are fitted to measurements of these kernels on an H200 and are given in clocks, or as shares of a rate of
//! [`Limits`], so that they carry over to other parts.

use lapidary_runtime::DType;

use crate::arch::Limits;
use crate::tile::{MmaTile, SimtTile};

/// Microseconds of a launch that does nothing.
pub const LAUNCH: f64 = 2.0;
/// Clocks from a block's start to its first product, and from its last to the end.
const BLOCK: f64 = 1750.0;
/// The share of the bandwidth that a kernel of tiles reaches.
const BANDWIDTH: f64 = 0.75;

/// Clocks of a part of a block's work: alone on an SM, and of the SM's time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clocks {
    pub latency: f64,
    pub busy: f64,
}

impl Clocks {
    /// Of as many such parts, one after the other.
    pub fn times(self, count: f64) -> Clocks {
        Clocks { latency: count * self.latency, busy: count * self.busy }
    }
}

/// A launch whose blocks all do the same.
#[derive(Clone, Copy, Debug)]
pub struct Wave {
    pub blocks: i64,
    /// Blocks that an SM holds.
    pub resident: i64,
    pub steps: i64,
    pub step: Clocks,
    /// What a block does behind its steps.
    pub end: Clocks,
    /// Of device memory, read and written.
    pub bytes: f64,
}

impl Wave {
    /// Microseconds.
    pub fn time(&self, limits: &Limits) -> f64 {
        let sms = i64::from(limits.sms);
        let wave = |resident: i64| {
            let of = |clocks: Clocks| clocks.latency.max(resident as f64 * clocks.busy);
            BLOCK + self.steps as f64 * of(self.step) + of(self.end)
        };
        let capacity = sms * self.resident.max(1);
        let (full, rest) = (self.blocks / capacity, self.blocks % capacity);
        let last = if rest > 0 { wave((rest + sms - 1) / sms) } else { 0.0 };
        let clocks = full as f64 * wave(self.resident.max(1)) + last;
        let memory = self.bytes / (limits.bandwidth * BANDWIDTH) * 1e6;
        LAUNCH + overlapped(clocks / (limits.clock * 1e3), memory)
    }
}

/// The time of two things that happen at once: of the shorter, a little is not hidden.
pub fn overlapped(a: f64, b: f64) -> f64 {
    a.max(b) + 0.1 * a.min(b)
}

/// Blocks that an SM holds, of `threads` with `registers` each and `shared` bytes.
pub fn resident(limits: &Limits, threads: u32, registers: u32, shared: u32) -> i64 {
    const REGISTERS: u32 = 65536;
    const THREADS: u32 = 2048;
    // Each block takes a kilobyte besides its own.
    let by_shared = limits.shared_per_sm / (shared + 1024);
    let by_registers = REGISTERS / (threads * registers.min(255));
    i64::from(by_shared.min(by_registers).min(THREADS / threads).max(1))
}

/// What elements the tensor cores multiply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MmaType {
    Half,
    Tf32,
    /// `i8` and `u8`. Its rate is twice that of halves by the data sheets, and not fitted to measurements.
    Byte,
}

/// A step of a tensor core tile whose operands are matrices.
pub fn mma_step(limits: &Limits, tile: &MmaTile, kind: MmaType) -> Clocks {
    // A warp's fragments are read from shared memory in proportion to its sides, its products grow with its area.
    let by_warp = match tile.wm * tile.wn {
        4096.. => 1.0,
        2048.. => 0.8,
        1024.. => 0.65,
        512.. => 0.5,
        _ => 0.35,
    };
    let (rate, per_warp) = match kind {
        MmaType::Half => (limits.mma_f16 * 0.65, 192.0),
        MmaType::Tf32 => (limits.mma_f16 * 0.5 * 0.56, 96.0),
        MmaType::Byte => (limits.mma_f16 * 2.0 * 0.5, 384.0),
    };
    let products = f64::from(tile.bm * tile.bn * tile.bk);
    Clocks { latency: 207.0 + f64::from(tile.wm * tile.wn * tile.bk) / per_warp, busy: products / (rate * by_warp) }
}

/// The end of a tensor core tile that stores `width` elements at a time and reads `full_reads` operands of the result's
/// shape, element by element.
pub fn mma_end(tile: &MmaTile, width: u32, full_reads: usize) -> Clocks {
    let rounds = f64::from(tile.wm * tile.wn) / f64::from(32 * width);
    let latency = rounds * if full_reads > 0 { 520.0 } else { 70.0 };
    // Lanes that read `width` elements apart touch that many times the sectors.
    let loads = f64::from(tile.bm * tile.bn / 32) * full_reads as f64;
    let stores = f64::from(tile.bm * tile.bn) / 16.0;
    Clocks { latency, busy: stores + loads * 3.0 * f64::from(width) }
}

/// What gathering `elements` of a convolution's input, `stride` apart, adds to a step.
pub fn gather(step: Clocks, elements: u32, stride: u32) -> Clocks {
    // Pixels that lie apart share fewer sectors.
    let apart = if stride > 1 { 1.4 } else { 1.0 };
    let gather = 0.245 * apart * f64::from(elements);
    Clocks { latency: step.latency + gather, busy: 0.8 * (step.busy + gather) }
}

/// A step of a scalar tile; `rate`: multiply-adds per SM and clock.
pub fn simt_step(tile: &SimtTile, rate: f64) -> Clocks {
    // A thread's operands are read from shared memory in proportion to its sides.
    let by_thread = match tile.tm * tile.tn {
        64.. => 0.69,
        16.. => 0.45,
        _ => 0.25,
    };
    let busy = f64::from(tile.bm * tile.bn * tile.bk) / (rate * by_thread);
    Clocks { latency: 200.0 + busy, busy }
}

/// Registers of a thread of a scalar tile with sums of `words` registers.
pub fn simt_registers(tile: &SimtTile, words: u32) -> u32 {
    (tile.tm * tile.tn + tile.tm + tile.tn) * words + 40
}

/// The end of a scalar tile.
pub fn simt_end(tile: &SimtTile, full_reads: usize) -> Clocks {
    let outputs = f64::from(tile.tm * tile.tn);
    let elements = f64::from(tile.bm * tile.bn);
    Clocks { latency: outputs * (10.0 + 60.0 * full_reads as f64), busy: elements / 16.0 * (1.0 + full_reads as f64) }
}

/// What each block of a split product does behind its steps: it writes `bytes` of sums and counts itself. This and
/// [`join`] are put together from latencies and rates, not fitted to measurements of split products.
pub fn put(bytes: f64) -> Clocks {
    const WRITTEN: f64 = 32.0;
    Clocks { latency: 500.0 + bytes / WRITTEN, busy: bytes / WRITTEN }
}

/// Microseconds of what the last block of a tile does when all parts are there: it adds `parts` tiles of `bytes`, of which
/// a thread holds `held` sums, and comes to its `end`.
pub fn join(limits: &Limits, parts: i64, bytes: f64, held: u32, end: Clocks) -> f64 {
    // Clocks of the atomic that tells it, and of a load from L2; bytes that an SM gets from there in a clock while the
    // others read, too.
    const ARRIVE: f64 = 600.0;
    const LOAD: f64 = 400.0;
    const READ: f64 = 32.0;
    // As many parts' loads as are in flight: what join.cuh unrolls.
    let at_once = match held {
        0..=2 => 8.0,
        3..=16 => 4.0,
        17..=32 => 2.0,
        _ => 1.0,
    };
    let parts = parts as f64;
    let clocks = ARRIVE + ((parts / at_once).ceil() * LOAD).max(parts * bytes / READ) + end.latency.max(end.busy);
    clocks / (limits.clock * 1e3)
}

/// Multiply-adds per SM and clock of the scalar units in the type `acc`, on an architecture `sm`.
pub fn scalar_rate(limits: &Limits, sm: u32, acc: DType) -> f64 {
    let share = match (acc, sm) {
        // The parts for data centers have half as many units for doubles, the others a few.
        (DType::F64, 80 | 90) => 0.5,
        (DType::F64, _) => 1.0 / 64.0,
        // Of two 32-bit products and their carries.
        (DType::I64 | DType::U64, _) => 1.0 / 8.0,
        (_, _) if acc.is_int() => 0.5,
        (_, _) => 1.0,
    };
    limits.fma_f32 * share
}

/// Microseconds of a kernel in which a thread forms `products` one after the other for each of `outputs`.
pub fn direct(limits: &Limits, outputs: i64, products: i64) -> f64 {
    // Clocks of a product whose loads nothing hides; instructions of an output and of a product, and how many of
    // them an SM issues a clock.
    const ALONE: f64 = 60.0;
    const OUTPUT: f64 = 300.0;
    const PRODUCT: f64 = 25.0;
    const ISSUED: f64 = 64.0;
    let busy = outputs as f64 * (OUTPUT + PRODUCT * products as f64) / (f64::from(limits.sms) * ISSUED);
    LAUNCH + (BLOCK + (products as f64 * ALONE).max(busy)) / (limits.clock * 1e3)
}
