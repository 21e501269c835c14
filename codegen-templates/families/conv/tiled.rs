//! The tiled kernels: `conv::mma` on tensor cores and `conv::simt` on the scalar units.

use lapidary_runtime::DType;
use lapidary_runtime::op::Math;

use super::Job;
use super::geometry::{Axes, list};
use crate::candidate::{Answer, Candidate, Launch};
use crate::cost::{self, Clocks, MmaType, Wave};
use crate::entry::{self, Args, Entry, input};
use crate::extent::Expr;
use crate::print;
use crate::split::{self, Split, Tiles};
use crate::tile::{self, Contiguous, MmaTile, SIMT_TILES, SimtTile};

/// Tiles for halves whose input is gathered: tall ones gather a pixel for more filters.
const GATHERED_TILES: [MmaTile; 9] = [
    MmaTile::new([256, 64, 32], [64, 32], 3),
    MmaTile::new([128, 128, 32], [64, 32], 3),
    MmaTile::new([128, 64, 32], [64, 32], 4),
    MmaTile::new([64, 128, 32], [32, 64], 3),
    MmaTile::new([64, 64, 64], [32, 32], 3),
    MmaTile::new([64, 32, 64], [32, 16], 4),
    MmaTile::new([32, 64, 64], [16, 32], 3),
    MmaTile::new([32, 32, 64], [16, 16], 4),
    MmaTile::new([16, 64, 64], [16, 16], 4),
];

/// Tiles for halves whose input is a matrix.
const POINTWISE_TILES: [MmaTile; 8] = [
    MmaTile::new([128, 128, 32], [64, 64], 4),
    MmaTile::new([128, 64, 64], [64, 32], 3),
    MmaTile::new([64, 128, 64], [32, 64], 3),
    MmaTile::new([64, 64, 64], [32, 32], 4),
    MmaTile::new([64, 32, 64], [32, 16], 4),
    MmaTile::new([32, 64, 64], [16, 32], 5),
    MmaTile::new([32, 32, 64], [16, 16], 6),
    MmaTile::new([16, 64, 64], [16, 16], 4),
];

const TF32_TILES: [MmaTile; 6] = [
    MmaTile::new([128, 128, 32], [64, 32], 3),
    MmaTile::new([64, 64, 32], [32, 32], 4),
    MmaTile::new([64, 32, 32], [32, 16], 4),
    MmaTile::new([32, 64, 32], [16, 32], 4),
    MmaTile::new([32, 32, 32], [16, 16], 5),
    MmaTile::new([16, 64, 32], [16, 16], 4),
];

const BYTE_TILES: [MmaTile; 6] = [
    MmaTile::new([128, 128, 64], [64, 32], 3),
    MmaTile::new([64, 128, 64], [32, 32], 3),
    MmaTile::new([64, 64, 64], [32, 32], 4),
    MmaTile::new([32, 64, 64], [16, 32], 4),
    MmaTile::new([32, 32, 64], [16, 32], 5),
    MmaTile::new([16, 64, 64], [16, 32], 4),
];

/// The most taps whose presence a thread keeps in a mask, and the window beyond which a tap does not fit its word.
const MASKED_TAPS: i64 = 63;
const LARGEST_WINDOW: [u32; 3] = [127, 255, 65535];

/// What a tiled kernel's entry says besides its operands.
struct Kernel {
    /// `mma` or `simt`.
    name: &'static str,
    /// The types as which the entry reads the input and the weights.
    factors: [&'static str; 2],
    tile_lines: String,
    bm: u32,
    bn: u32,
    bk: u32,
    /// Elements of a load of the weights, of the input, and of a store.
    vectors: [u32; 3],
    check: String,
    threads: u32,
    shared: u32,
}

/// How a tile's kernel runs, for the prediction.
struct Run {
    resident: i64,
    step: Clocks,
    end: Clocks,
}

impl Job<'_> {
    fn mma_type(&self) -> Result<([&'static str; 2], MmaType), String> {
        match (self.geometry.types[0], self.math) {
            (DType::F16, Math::Exact | Math::Tf32) => Ok((["f16"; 2], MmaType::Half)),
            (DType::BF16, Math::Exact | Math::Tf32) => Ok((["bf16"; 2], MmaType::Half)),
            (DType::F32, Math::Tf32) => Ok((["tf32"; 2], MmaType::Tf32)),
            (DType::I8 | DType::U8, Math::Exact | Math::Tf32) => {
                Ok((self.geometry.types.map(print::memory_type), MmaType::Byte))
            }
            (DType::F32, Math::Exact) => {
                Err("tensor cores round f32 to TF32, which the model does not allow".to_owned())
            }
            (dtype, Math::Exact | Math::Tf32) => Err(format!("its tensor core kernels multiply no {dtype}")),
        }
    }

    pub(super) fn offer_mma(&self, answer: &mut Answer) {
        let (factors, kind) = match self.mma_type() {
            Ok(found) => found,
            Err(reason) => return answer.refuse("conv_mma", reason),
        };
        let tiles: &[MmaTile] = match kind {
            MmaType::Half if self.geometry.is_pointwise() => &POINTWISE_TILES,
            MmaType::Half => &GATHERED_TILES,
            MmaType::Tf32 => &TF32_TILES,
            MmaType::Byte => &BYTE_TILES,
        };
        for tile in tiles {
            if let Err(reason) = self.offer_mma_tile(tile, factors, kind, answer) {
                answer.refuse(format!("conv_mma/{}", tile.name()), reason);
            }
        }
    }

    fn offer_mma_tile(
        &self,
        tile: &MmaTile,
        factors: [&'static str; 2],
        kind: MmaType,
        answer: &mut Answer,
    ) -> Result<(), String> {
        let limits = self.arch.limits();
        let size = tile::bytes(self.geometry.types[0]);
        let shared = tile.shared(size, Contiguous::K, Contiguous::Free);
        if shared > limits.shared_per_block {
            let has = limits.shared_per_block;
            return Err(format!("it needs {shared} bytes of shared memory, and {} has {has}", self.arch));
        }
        let vec_a = tile::vector(self.shapes, self.geometry.types[1], &[&self.geometry.k()], 16);
        let vec_b = self.vec_b(16);
        tile.check_registers(size, [vec_a, vec_b])?;
        let gathers = !self.geometry.is_pointwise() || vec_b * size < 4;
        if gathers {
            self.check_gather(tile.threads(), tile.bn, tile.bk, (4 / size).max(1))?;
        }
        let step = cost::mma_step(limits, tile, kind);
        let step = if gathers { cost::gather(step, tile.bk * tile.bn, self.geometry.window.stride[2]) } else { step };
        let resident = cost::resident(limits, tile.threads(), tile.registers(), shared);
        for split in self.splits([tile.bm, tile.bn, tile.bk], tile.threads()) {
            let vec_c = tile::vector(self.shapes, self.epilogue.out, &[&self.geometry.output_pixels()], 8);
            let kernel = Kernel {
                name: "mma",
                factors,
                tile_lines: tile.policy(),
                bm: tile.bm,
                bn: tile.bn,
                bk: tile.bk,
                vectors: [vec_a, vec_b, vec_c],
                check: format!(
                    "static_assert(conv::Mma<Policy>::THREADS == {} && conv::Mma<Policy>::SMEM_BYTES == {shared}, \
                     \"as launched\");",
                    tile.threads()
                ),
                threads: tile.threads(),
                shared,
            };
            let run = Run { resident, step, end: cost::mma_end(tile, vec_c, self.epilogue.full_reads()) };
            self.offer(format!("conv_mma/{}x{}", tile.name(), split.parts), &kernel, &split, &run, answer);
        }
        Ok(())
    }

    pub(super) fn offer_simt(&self, answer: &mut Answer) {
        let [dtype, _] = self.geometry.types;
        if dtype.is_float() && dtype.bits() == 16 {
            return answer.refuse("conv_simt", format!("tensor cores form products of {dtype} exactly"));
        }
        for tile in &SIMT_TILES {
            if let Err(reason) = self.offer_simt_tile(tile, answer) {
                answer.refuse(format!("conv_simt/{}", tile.name()), reason);
            }
        }
    }

    fn offer_simt_tile(&self, tile: &SimtTile, answer: &mut Answer) -> Result<(), String> {
        const STATIC_SHARED: u32 = 48 << 10;
        let limits = self.arch.limits();
        let [dtype, _] = self.geometry.types;
        let acc = self.epilogue.acc;
        let shared = tile.shared(tile::bytes(acc));
        if shared > STATIC_SHARED {
            return Err(format!("it needs {shared} bytes of static shared memory, of which there are {STATIC_SHARED}"));
        }
        let gathers = !self.geometry.is_pointwise();
        if gathers {
            self.check_gather(tile.threads(), tile.bn, tile.bk, 1)?;
        }
        let step = cost::simt_step(tile, cost::scalar_rate(limits, self.arch.sm, acc));
        let step = if gathers { cost::gather(step, tile.bk * tile.bn, self.geometry.window.stride[2]) } else { step };
        let registers = cost::simt_registers(tile, tile::bytes(acc).div_ceil(4));
        let resident = cost::resident(limits, tile.threads(), registers, shared);
        for split in self.splits([tile.bm, tile.bn, tile.bk], tile.threads()) {
            let pixels = self.geometry.output_pixels();
            let kernel = Kernel {
                name: "simt",
                factors: self.geometry.types.map(print::memory_type),
                tile_lines: tile.policy(),
                bm: tile.bm,
                bn: tile.bn,
                bk: tile.bk,
                vectors: [
                    tile::vector(self.shapes, dtype, &[&self.geometry.k()], tile.bk),
                    self.vec_b(tile.bn),
                    tile::vector(self.shapes, self.epilogue.out, &[&pixels], 4),
                ],
                check: format!("static_assert(conv::Simt<Policy>::THREADS == {}, \"as launched\");", tile.threads()),
                threads: tile.threads(),
                shared: 0,
            };
            let run = Run { resident, step, end: cost::simt_end(tile, self.epilogue.full_reads()) };
            self.offer(format!("conv_simt/{}x{}", tile.name(), split.parts), &kernel, &split, &run, answer);
        }
        Ok(())
    }

    /// Pixels of one load of the input.
    fn vec_b(&self, most: u32) -> u32 {
        let geometry = &self.geometry;
        if !geometry.is_pointwise() {
            return 1;
        }
        tile::vector(self.shapes, geometry.types[0], &[&geometry.input_pixels()], most)
    }

    /// Whether the threads can gather a tile's pixels, `width` adjacent ones each.
    fn check_gather(&self, threads: u32, bn: u32, bk: u32, width: u32) -> Result<(), String> {
        let runs = bn / width;
        if !threads.is_multiple_of(runs) || !(bk * runs).is_multiple_of(threads) {
            return Err(format!("{threads} threads do not share out {bk} rows of {bn} gathered pixels evenly"));
        }
        let size = self.geometry.window.size;
        if self.geometry.taps() > MASKED_TAPS && size.iter().zip(LARGEST_WINDOW).any(|(size, most)| *size > most) {
            return Err(format!("a window of {} is too large to gather", list(&size)));
        }
        Ok(())
    }

    fn typical(&self, expr: &Expr) -> i64 {
        (self.shapes.typical)(expr).max(0)
    }

    /// Blocks of tiles of a group.
    fn blocks(&self, bm: u32, bn: u32) -> Expr {
        let pixels = self.geometry.batch.clone() * self.geometry.output_pixels();
        let along = |extent: Expr, tile: u32| extent.ceil_div(&Expr::from(i64::from(tile)));
        along(self.geometry.group_filters(), bm) * along(pixels, bn)
    }

    /// How K may be divided among tiles of `bm` by `bn`.
    fn splits(&self, [bm, bn, step]: [u32; 3], threads: u32) -> Vec<Split> {
        let geometry = &self.geometry;
        let count = self.blocks(bm, bn) * Expr::from(i64::from(geometry.groups));
        let tiles = Tiles { count, sums: bm * bn, threads };
        split::splits(self.arch.limits(), self.shapes, tiles, &geometry.k(), step, self.epilogue.acc)
    }

    /// Bytes that it reads and writes at least.
    fn bytes(&self, split: &Split) -> f64 {
        let geometry = &self.geometry;
        let size = f64::from(tile::bytes(geometry.types[0]));
        let read = geometry.batch.clone() * geometry.channels.clone() * geometry.input_pixels()
            + geometry.filters.clone() * geometry.k();
        let written = self.typical(&geometry.outputs()) as f64 * f64::from(tile::bytes(self.epilogue.out));
        let sums = split.workspace(self.epilogue.acc).map_or(0, |bytes| self.typical(&bytes)) as f64;
        self.typical(&read) as f64 * size + written * (1 + self.epilogue.full_reads()) as f64 + sums
    }

    fn offer(&self, key: String, kernel: &Kernel, split: &Split, run: &Run, answer: &mut Answer) {
        let acc = self.epilogue.acc;
        let wave = Wave {
            blocks: self.typical(&self.blocks(kernel.bm, kernel.bn)) * i64::from(self.geometry.groups) * split.parts,
            resident: run.resident,
            steps: self.typical(&split.k_per_split.ceil_div(&Expr::from(i64::from(kernel.bk)))),
            step: run.step,
            end: run.end,
            bytes: self.bytes(split),
        };
        let cost = split.time(self.arch.limits(), wave, acc);
        let workspace = split.workspace(acc).into_iter().collect();
        answer.candidates.push(Candidate { key, launches: vec![self.launch(kernel, split)], workspace, cost });
    }

    fn launch(&self, kernel: &Kernel, split: &Split) -> Launch {
        let geometry = &self.geometry;
        let Kernel { name, factors: [x, w], vectors: [vec_a, vec_b, vec_c], .. } = kernel;
        let Axes { size, stride, dilation, .. } = &geometry.window;
        let policy = format!(
            "struct Policy {{\n  using TX = {x};\n  using TW = {w};\n  using Window = conv::Window<{}, {}, {}>;\n  \
             static constexpr bool POINTWISE = {};\n{}  static constexpr int VEC_A = {vec_a}, VEC_B = {vec_b}, \
             VEC_C = {vec_c}, BAND = {};\n}};\n{}",
            list(size),
            list(stride),
            list(dilation),
            geometry.is_pointwise(),
            kernel.tile_lines,
            tile::band(kernel.bm),
            kernel.check
        );
        let mut args = Args::default();
        args.pointer(&format!("const {x}"), "x", input(0));
        args.pointer(&format!("const {w}"), "w", input(1));
        self.epilogue.declare(&mut args);
        let join = split.declare(self.epilogue.acc, &mut args);
        let extents = geometry.declare(&mut args);
        let group = if geometry.groups == 1 { String::new() } else { format!(" / {}", geometry.groups) };
        let taps = if geometry.taps() == 1 { String::new() } else { format!(" * {}", geometry.taps()) };
        let k_per_split = split.declare_k(&format!("channels{group}{taps}"), &mut args);
        let entry = Entry {
            title: format!("Convolution {}: {} x {} outputs a block.", geometry.title(), kernel.bm, kernel.bn),
            headers: &self.epilogue.headers("families/conv/kernel.cuh"),
            declarations: vec![policy, self.epilogue.text.clone()],
            threads: kernel.threads,
            call: format!(
                "conv::{name}<Policy, Epi>({{x, w, {extents},\n      {k_per_split}}}, {}{join})",
                self.epilogue.init()
            ),
        };
        Launch {
            source: entry::source(format!("conv_{name}{}{}", self.epilogue.stem, split.stem()), &entry, &args),
            grid: [self.blocks(kernel.bm, kernel.bn), Expr::from(i64::from(geometry.groups)), split.grid()],
            block: [kernel.threads, 1, 1],
            shared: kernel.shared,
            params: args.params,
        }
    }
}
