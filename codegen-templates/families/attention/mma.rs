//! The kernel on tensor cores: `attention::mma`.

use lapidary_runtime::DType;

use super::{CACHED, Job, Mask};
use crate::arch::Limits;
use crate::candidate::Answer;
use crate::cost::{self, Clocks, Wave};
use crate::extent::Expr;
use crate::problem::Strided;

/// A tile of scores and the warps that share it.
#[derive(Clone, Copy)]
struct Tile {
    bm: u32,
    bn: u32,
    /// Warps along the queries, and along the keys.
    warps: [u32; 2],
}

const fn tile(bm: u32, bn: u32, warps: [u32; 2]) -> Tile {
    Tile { bm, bn, warps }
}

const TILES: [Tile; 9] = [
    tile(128, 64, [8, 1]),
    tile(128, 64, [4, 1]),
    tile(64, 128, [4, 1]),
    tile(64, 64, [4, 1]),
    tile(64, 32, [4, 1]),
    tile(32, 64, [2, 2]),
    tile(32, 32, [2, 1]),
    tile(16, 128, [1, 4]),
    tile(16, 64, [1, 4]),
];

/// The sides of tiles that do what leaves others half empty.
const LEAST: [u32; 2] = [16, 64];
/// Elements that a copy of 16 bytes takes.
const RUN: i64 = 8;
/// Bytes of an element.
const SIZE: u32 = 2;
/// Registers of a thread.
const REGISTERS: u32 = 255;

impl Tile {
    fn threads(&self) -> u32 {
        32 * self.warps[0] * self.warps[1]
    }

    fn name(&self, stages: u32) -> String {
        format!("m{}n{}w{}x{}s{stages}", self.bm, self.bn, self.warps[0], self.warps[1])
    }

    /// Queries and keys of a warp.
    fn warp(&self) -> [u32; 2] {
        [self.bm / self.warps[0], self.bn / self.warps[1]]
    }

    /// Bytes of shared memory: `Mma::SMEM_BYTES` of `kernel.cuh`, which compares itself with this.
    fn shared(&self, [depth, width]: [u32; 2], stages: u32) -> u32 {
        let rows = |rows: u32, depth: u32| {
            let padded = depth.next_multiple_of(16);
            let padding = if (padded / 8).is_power_of_two() { 0 } else { 8 };
            rows * (padded + padding) * SIZE
        };
        let queries = rows(self.bm, depth).max(rows(self.bm, width));
        let stage = rows(self.bn, depth) + rows(self.bn, width);
        let parts = (self.warps[1] - 1) * self.bm * (width.next_multiple_of(16) + 8) * 4;
        queries + (stages * stage).max(parts)
    }

    /// Registers of a thread, about: sums, scores, queries where they are held, the mask's elements with the loads under
    /// way, and the rest.
    fn registers(&self, [depth, width]: [u32; 2], mask: &Mask) -> u32 {
        let [wm, wn] = self.warp();
        let [depth, width] = [depth, width].map(|depth| depth.next_multiple_of(16));
        let held = if wm / 16 * (depth + width) <= 256 { wm * depth / 64 } else { wm / 4 };
        let masked = match mask {
            Mask::None => 0,
            Mask::Keys(_) => wn / 8 * 5 / 2,
            Mask::Scores(_) => wm * wn / 64 * 7 / 2,
        };
        wm * width / 32 + wm * wn / 32 + held + masked + 40
    }
}

impl Job<'_> {
    pub(super) fn offer_mma(&self, answer: &mut Answer) {
        let depths = match self.check_mma() {
            Ok(depths) => depths,
            Err(reason) => return answer.refuse("attention_mma", reason),
        };
        for tile in &TILES {
            // One stage does where all keys are one tile.
            let stages = if self.shapes.max(&self.keys) <= i64::from(tile.bn) { 1 } else { 2 };
            let key = format!("attention_mma/{}", tile.name(stages));
            match self.check_mma_tile(tile, depths, stages) {
                Ok(shared) => self.offer_mma_tile(key, tile, depths, [stages, shared], answer),
                Err(reason) => answer.refuse(key, reason),
            }
        }
    }

    /// The depths, where operands are what the tensor cores multiply and 16-byte copies can move.
    fn check_mma(&self) -> Result<[u32; 2], String> {
        if !matches!(self.dtype, DType::F16 | DType::BF16) {
            return Err(format!("its tensor core kernels multiply f16 and bf16, and this is {}", self.dtype));
        }
        let depths = self.depths()?;
        if let Some(odd) = depths.iter().find(|depth| **depth % RUN as u32 != 0) {
            return Err(format!("rows are copied {RUN} elements at a time, and a depth is {odd}"));
        }
        let names = ["queries", "keys", "values", "results"];
        for (name, place) in names.into_iter().zip(self.places) {
            self.check_place(place).map_err(|reason| format!("the {name} {reason}"))?;
        }
        Ok(depths)
    }

    fn check_place(&self, place: &Strided) -> Result<(), String> {
        let [outer @ .., last] = &place.strides[..] else { return Err("have no axes".to_owned()) };
        if !last.is(1) {
            return Err(format!("have elements {last} apart, and rows are copied {RUN} adjacent ones at a time"));
        }
        if let Some(odd) = outer.iter().chain([&place.offset]).find(|at| !self.shapes.is_multiple(at, RUN)) {
            return Err(format!("have rows that begin at multiples of {odd}, which {RUN} does not divide"));
        }
        match outer.last().map(|row| self.shapes.max(row)) {
            Some(apart) if apart > i64::from(i32::MAX) => Err("have rows more than 2^31 apart".to_owned()),
            Some(_) | None => Ok(()),
        }
    }

    /// The bytes of shared memory of a tile.
    fn check_mma_tile(&self, tile: &Tile, depths: [u32; 2], stages: u32) -> Result<u32, String> {
        self.check_tile(tile.bm, tile.bn, LEAST)?;
        let registers = tile.registers(depths, &self.mask);
        if registers > REGISTERS {
            return Err(format!("a thread would take about {registers} registers, and there are {REGISTERS}"));
        }
        let shared = tile.shared(depths, stages);
        self.check_shared(shared)?;
        Ok(shared)
    }

    /// Whether the mask's elements of keys 2 k and 2 k + 1 are one aligned word.
    fn mask_is_paired(&self) -> bool {
        let (Mask::Keys(strides) | Mask::Scores(strides)) = &self.mask else { return false };
        let even = |expr: &Expr| self.shapes.is_multiple(expr, 2);
        strides[3].is(1) && strides[..3].iter().all(even) && even(&self.keys)
    }

    fn offer_mma_tile(
        &self,
        key: String,
        tile: &Tile,
        depths: [u32; 2],
        [stages, shared]: [u32; 2],
        answer: &mut Answer,
    ) {
        let Tile { bm, bn, warps } = *tile;
        let mut call = self.call("mma", bm);
        call.constant("bool", &format!("MASK_PAIRED = {}", self.mask_is_paired()));
        let int = |name, value: u32| (name, i64::from(value));
        call.ints(&[int("BM", bm), int("BN", bn), int("WARPS_M", warps[0]), int("WARPS_N", warps[1])]);
        call.ints(&[int("D", depths[0]), int("E", depths[1]), int("STAGES", stages)]);
        call.ints(&[int("THREADS", tile.threads()), int("SHARED", shared)]);
        let launch = self.launch(call, "mma", tile.threads(), self.blocks(bm), shared);
        let limits = self.arch.limits();
        let registers = tile.registers(depths, &self.mask);
        let wave = Wave {
            blocks: self.typical(&self.blocks(bm)),
            resident: cost::resident(limits, tile.threads(), registers, shared),
            steps: 1,
            step: step(limits, tile, depths, &self.mask).times(self.steps(bm, bn)),
            end: end(tile, depths),
            bytes: self.bytes,
        };
        self.offer(key, launch, wave.time(limits), answer);
    }
}

/// The work on a tile of keys.
fn step(limits: &Limits, tile: &Tile, [depth, width]: [u32; 2], mask: &Mask) -> Clocks {
    // The share of the tensor cores' rate that short chains of products reach, as matrix products of halves do.
    const RATE: f64 = 0.6;
    // Lanes' instructions for a score: its scaling, the largest, exp, the sum, the rounding. An SM issues 128 a clock.
    const SCORE: f64 = 10.0;
    const ISSUED: f64 = 100.0;
    // Clocks from a barrier to the next, of a round of loads of the mask.
    const BARRIER: f64 = 350.0;
    const LOADS: f64 = 500.0;
    let padded = |depth: u32| f64::from(depth.next_multiple_of(16));
    let [wm, wn] = tile.warp().map(f64::from);
    let both = padded(depth) + padded(width);
    // Operands of a warp with 16 rows are read from shared memory as long as they are multiplied.
    let rate = limits.mma_f16 * if wm >= 32.0 { RATE } else { 0.75 * RATE };
    let of_mask = match mask {
        Mask::None => 0.0,
        Mask::Keys(_) => 1.0 + 2.0 * 16.0 / wm,
        Mask::Scores(_) => 5.0,
    };
    let elements = f64::from(tile.bm * tile.bn);
    let computing = elements * both / rate + elements * (SCORE + of_mask) / ISSUED;
    let busy = cost::overlapped(computing, f64::from(tile.bn * (depth + width) * SIZE) / CACHED);
    let alone = wm * wn * both / (limits.mma_f16 / 4.0 * RATE) + wm * wn / 32.0 * (SCORE + of_mask) * 1.5;
    let waits = if matches!(mask, Mask::None) { BARRIER } else { BARRIER + LOADS };
    Clocks { latency: waits + alone, busy }
}

/// The end of a block: merging, and the stores.
fn end(tile: &Tile, [_, width]: [u32; 2]) -> Clocks {
    let elements = f64::from(tile.bm * width);
    let merges = f64::from(tile.warps[1] - 1) * f64::from(width) * 4.0;
    Clocks { latency: 300.0 + merges, busy: elements / 16.0 }
}
