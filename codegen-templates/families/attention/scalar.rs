//! The kernels on scalar units: `attention::simt` in tiles, and `attention::direct`, which does any depth.

use lapidary_runtime::DType;

use super::{CACHED, Job};
use crate::candidate::Answer;
use crate::cost::{self, Clocks, Wave};
use crate::extent::Expr;
use crate::problem::Strided;
use crate::tile;

/// A tile of scores: queries, keys, and the queries of a thread.
#[derive(Clone, Copy)]
struct Tile {
    bm: u32,
    bn: u32,
    tm: u32,
}

const fn tile_of(bm: u32, bn: u32, tm: u32) -> Tile {
    Tile { bm, bn, tm }
}

const TILES: [Tile; 6] = [
    tile_of(64, 64, 4),
    tile_of(32, 64, 2),
    tile_of(32, 32, 4),
    tile_of(16, 64, 1),
    tile_of(16, 32, 2),
    tile_of(8, 32, 1),
];

/// Threads that share a query: `Simt::LANES`.
const LANES: u32 = 16;
/// The sides of the tile that does what leaves others half empty.
const LEAST: [u32; 2] = [8, 32];
/// Registers of a thread.
const REGISTERS: u32 = 255;

/// The type in which a type's scores and sums are, as bytes.
fn computed(dtype: DType) -> u32 {
    tile::bytes(tile::accumulator(dtype))
}

impl Tile {
    fn threads(&self) -> u32 {
        LANES * self.bm / self.tm
    }

    fn name(&self) -> String {
        format!("m{}n{}t{}", self.bm, self.bn, self.tm)
    }

    /// Columns of the result that a thread has: `E_PADDED / LANES` of `Simt`.
    fn columns(width: u32, size: u32) -> u32 {
        let adjacent = if width <= LANES {
            1
        } else if width <= 2 * LANES {
            2
        } else {
            16 / size
        };
        adjacent * width.div_ceil(LANES * adjacent)
    }

    /// Bytes of shared memory: `Simt::SMEM_BYTES` of `kernel.cuh`, which compares itself with this.
    fn shared(&self, [depth, width]: [u32; 2], size: u32) -> u32 {
        let chunk = 16 / size;
        let chunks = depth.div_ceil(chunk);
        let row = (chunks + u32::from(chunks.is_multiple_of(2))) * chunk;
        let values = self.bn * LANES * Tile::columns(width, size);
        ((self.bm + self.bn) * row + values + self.bm * (self.bn + chunk)) * size
    }

    /// Registers of a thread, about: scores, sums, and what is read of both sides at a time.
    fn registers(&self, width: u32, size: u32) -> u32 {
        let keys = self.bn / LANES;
        let held = self.tm * keys + self.tm * Tile::columns(width, size);
        (held + (self.tm + keys) * 16 / size + 2 * self.tm) * size / 4 + 50
    }
}

impl Job<'_> {
    pub(super) fn offer_simt(&self, answer: &mut Answer) {
        let depths = match self.depths() {
            Ok(depths) => depths,
            Err(reason) => return answer.refuse("attention_simt", reason),
        };
        for tile in &TILES {
            let key = format!("attention_simt/{}", tile.name());
            match self.check_simt_tile(tile, depths) {
                Ok(shared) => self.offer_simt_tile(key, tile, depths, shared, answer),
                Err(reason) => answer.refuse(key, reason),
            }
        }
    }

    /// The bytes of shared memory of a tile.
    fn check_simt_tile(&self, tile: &Tile, depths: [u32; 2]) -> Result<u32, String> {
        self.check_tile(tile.bm, tile.bn, LEAST)?;
        let size = computed(self.dtype);
        let registers = tile.registers(depths[1], size);
        if registers > REGISTERS {
            return Err(format!("a thread would take about {registers} registers, and there are {REGISTERS}"));
        }
        let shared = tile.shared(depths, size);
        self.check_shared(shared)?;
        Ok(shared)
    }

    fn offer_simt_tile(&self, key: String, tile: &Tile, depths: [u32; 2], shared: u32, answer: &mut Answer) {
        let Tile { bm, bn, tm } = *tile;
        let size = computed(self.dtype);
        let mut call = self.call("simt", bm);
        let int = |name, value: u32| (name, i64::from(value));
        call.ints(&[int("BM", bm), int("BN", bn), int("TM", tm), int("VEC", self.vector(depths))]);
        call.ints(&[int("D", depths[0]), int("E", depths[1])]);
        call.ints(&[int("THREADS", tile.threads()), int("SHARED", shared)]);
        let launch = self.launch(call, "simt", tile.threads(), self.blocks(bm), shared);
        let limits = self.arch.limits();
        let rate = cost::scalar_rate(limits, self.arch.sm, tile::accumulator(self.dtype));
        // Operands come from shared memory: of a product of 16 by 16 bytes each side is read once by a thread.
        let by_thread = match tile.tm {
            4.. => 0.5,
            2.. => 0.4,
            _ => 0.25,
        };
        // An exp and a reduction's part a score, in multiply-adds; clocks of the loads and barriers of a step.
        const SCORE: f64 = 24.0;
        const LOADS: f64 = 1200.0;
        let busy = f64::from(bm * bn) * (f64::from(depths[0] + depths[1]) + SCORE) / (rate * by_thread);
        let read = f64::from(bn * (depths[0] + depths[1]) * tile::bytes(self.dtype)) / CACHED;
        let step = Clocks { latency: LOADS + busy, busy: busy + read };
        let outputs = f64::from(bm * depths[1]);
        let wave = Wave {
            blocks: self.typical(&self.blocks(bm)),
            resident: cost::resident(limits, tile.threads(), tile.registers(depths[1], size), shared),
            steps: 1,
            step: step.times(self.steps(bm, bn)),
            end: Clocks { latency: 300.0, busy: outputs / 16.0 },
            bytes: self.bytes,
        };
        self.offer(key, launch, wave.time(limits), answer);
    }

    /// The elements that one load of queries, keys and values takes.
    fn vector(&self, depths: [u32; 2]) -> u32 {
        let [q, k, v, _] = self.places;
        let adjacent = |place: &&Strided| place.strides.last().is_some_and(|last| last.is(1));
        if ![q, k, v].iter().all(adjacent) {
            return 1;
        }
        let depths = depths.map(|depth| Expr::from(i64::from(depth)));
        let starts = [q, k, v].into_iter().flat_map(|place| place.strides[..3].iter().chain([&place.offset]));
        let multiples: Vec<&Expr> = starts.chain(&depths).collect();
        tile::vector(self.shapes, self.dtype, &multiples, 16 / computed(self.dtype))
    }

    pub(super) fn offer_direct(&self, answer: &mut Answer) {
        // Columns of a lane, and threads of a block.
        const COLUMNS: u32 = 4;
        const THREADS: u32 = 32;
        let mut call = self.call("direct", 1);
        call.ints(&[("COLUMNS", i64::from(COLUMNS))]);
        let slices = self.width.ceil_div(&Expr::from(i64::from(THREADS * COLUMNS)));
        let blocks = self.blocks(1) * slices;
        // Each score is a chain of loads, and of the values a lane reads one after the other.
        let (keys, depth) = (self.steps(1, 1), self.typical(&self.depth) as f64);
        let products = keys / f64::from(THREADS) * depth + keys * f64::from(COLUMNS);
        let threads = self.typical(&blocks) * i64::from(THREADS);
        let cost = cost::direct(self.arch.limits(), threads, products.ceil() as i64);
        let launch = self.launch(call, "direct", THREADS, blocks, 0);
        self.offer(format!("attention_direct/c{COLUMNS}"), launch, cost, answer);
    }
}
