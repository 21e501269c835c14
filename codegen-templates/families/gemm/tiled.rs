//! The tiled kernels: `gemm::mma` on tensor cores and `gemm::simt` on the scalar units.

use lapidary_runtime::op::Math;

use super::product::{Axis, BATCH_AXES, Product};
use super::{Job, Offered, mma_type};
use crate::candidate::{Answer, Launch};
use crate::cost::{self, MmaType, Wave};
use crate::entry::{self, Args, Entry, input};
use crate::extent::Expr;
use crate::print;
use crate::split::Split;
use crate::tile::{self, MmaTile, SIMT_TILES, SimtTile};

/// Tiles for halves, the largest first.
const HALF_TILES: [MmaTile; 8] = [
    MmaTile::new([128, 256, 64], [64, 64], 3),
    MmaTile::new([128, 128, 32], [64, 64], 4),
    MmaTile::new([128, 128, 64], [64, 32], 3),
    MmaTile::new([64, 128, 64], [32, 64], 4),
    MmaTile::new([64, 64, 64], [32, 32], 5),
    MmaTile::new([32, 64, 64], [16, 32], 5),
    MmaTile::new([32, 32, 64], [16, 16], 6),
    MmaTile::new([16, 64, 64], [16, 16], 4),
];

const TF32_TILES: [MmaTile; 6] = [
    MmaTile::new([128, 128, 32], [64, 32], 3),
    MmaTile::new([64, 128, 32], [32, 64], 3),
    MmaTile::new([64, 64, 32], [32, 32], 4),
    MmaTile::new([32, 64, 32], [16, 32], 5),
    MmaTile::new([32, 32, 32], [16, 16], 6),
    MmaTile::new([16, 64, 32], [16, 16], 4),
];

const BYTE_TILES: [MmaTile; 6] = [
    MmaTile::new([128, 128, 64], [64, 32], 4),
    MmaTile::new([64, 128, 64], [32, 64], 4),
    MmaTile::new([64, 64, 128], [32, 32], 4),
    MmaTile::new([32, 64, 128], [16, 32], 4),
    MmaTile::new([32, 32, 128], [16, 32], 5),
    MmaTile::new([16, 64, 128], [16, 32], 5),
];

/// What a tiled kernel's entry says besides its operands.
struct Kernel<'a> {
    /// `mma` or `simt`.
    name: &'static str,
    types: String,
    tile_lines: String,
    bm: u32,
    bn: u32,
    /// Elements of a load of a, of b, and of a store.
    vectors: [u32; 3],
    check: String,
    threads: u32,
    shared: u32,
    /// The types as which the entry reads a and b.
    factors: [&'a str; 2],
}

impl Job<'_> {
    pub(super) fn offer_mma(&self, math: Math, answer: &mut Answer) {
        let (factors, kind) = match mma_type(self.product, math) {
            Ok(found) => found,
            Err(reason) => return answer.refuse("gemm_mma", reason),
        };
        let tiles: &[MmaTile] = match kind {
            MmaType::Half => &HALF_TILES,
            MmaType::Tf32 => &TF32_TILES,
            MmaType::Byte => &BYTE_TILES,
        };
        for tile in tiles {
            self.offer_mma_tile(tile, factors, kind, answer);
        }
    }

    fn offer_mma_tile(&self, tile: &MmaTile, factors: [&'static str; 2], kind: MmaType, answer: &mut Answer) {
        let p = self.product;
        let limits = self.arch.limits();
        let shared = tile.shared(tile::bytes(p.a.dtype), p.a_contiguous(), p.b_contiguous());
        if shared > limits.shared_per_block {
            let reason =
                format!("it needs {shared} bytes of shared memory, and {} has {}", self.arch, limits.shared_per_block);
            return answer.refuse(format!("gemm_mma/{}", tile.name()), reason);
        }
        let [vec_a, vec_b] = [p.vec_a(self.shapes, 16), p.vec_b(self.shapes, 16)];
        if let Err(reason) = tile.check_registers(tile::bytes(p.a.dtype), [vec_a, vec_b]) {
            return answer.refuse(format!("gemm_mma/{}", tile.name()), reason);
        }
        let resident = cost::resident(limits, tile.threads(), tile.registers(), shared);
        for split in self.splits([tile.bm, tile.bn, tile.bk], tile.bm * tile.bn, tile.threads()) {
            let vec_c = tile::vector(self.shapes, p.epilogue.out, &[&p.n], 8);
            let kernel = Kernel {
                name: "mma",
                types: format!("  using TA = {};\n  using TB = {};\n", factors[0], factors[1]),
                tile_lines: tile.policy(),
                bm: tile.bm,
                bn: tile.bn,
                vectors: [vec_a, vec_b, vec_c],
                check: format!(
                    "static_assert(gemm::Mma<Policy>::THREADS == {} && gemm::Mma<Policy>::SMEM_BYTES == {shared}, \"as \
                     launched\");",
                    tile.threads()
                ),
                threads: tile.threads(),
                shared,
                factors,
            };
            let wave = Wave {
                blocks: self.typical(&self.blocks(tile.bm, tile.bn)) * split.parts,
                resident,
                steps: self.typical(&split.k_per_split.ceil_div(&Expr::from(i64::from(tile.bk)))),
                step: cost::mma_step(limits, tile, kind),
                end: cost::mma_end(tile, vec_c, p.epilogue.full_reads()),
                bytes: self.bytes(&split),
            };
            let offered = Offered {
                key: format!("gemm_mma/{}x{}", tile.name(), split.parts),
                launch: self.launch(&kernel, &split),
                microseconds: split.time(limits, wave, p.epilogue.acc),
            };
            self.offer(offered, &split, answer);
        }
    }

    pub(super) fn offer_simt(&self, answer: &mut Answer) {
        let dtype = self.product.a.dtype;
        if dtype.is_float() && dtype.bits() == 16 {
            return answer.refuse("gemm_simt", format!("tensor cores form products of {dtype} exactly"));
        }
        for tile in &SIMT_TILES {
            self.offer_simt_tile(tile, answer);
        }
    }

    fn offer_simt_tile(&self, tile: &SimtTile, answer: &mut Answer) {
        const STATIC_SHARED: u32 = 48 << 10;
        let p = self.product;
        let limits = self.arch.limits();
        let acc = p.epilogue.acc;
        let shared = tile.shared(tile::bytes(acc));
        if shared > STATIC_SHARED {
            let reason = format!("it needs {shared} bytes of static shared memory, of which there are {STATIC_SHARED}");
            return answer.refuse(format!("gemm_simt/{}", tile.name()), reason);
        }
        let side = |transposed: bool, own: u32| if transposed { own } else { tile.bk };
        let resident =
            cost::resident(limits, tile.threads(), cost::simt_registers(tile, tile::bytes(acc).div_ceil(4)), shared);
        let factors = [p.a.dtype, p.b.dtype].map(print::memory_type);
        for split in self.splits([tile.bm, tile.bn, tile.bk], tile.bm * tile.bn, tile.threads()) {
            let kernel = Kernel {
                name: "simt",
                types: format!(
                    "  using TA = {};\n  using TB = {};\n  using A = {};\n",
                    factors[0],
                    factors[1],
                    print::memory_type(acc)
                ),
                tile_lines: tile.policy(),
                bm: tile.bm,
                bn: tile.bn,
                vectors: [
                    p.vec_a(self.shapes, side(p.a.transposed, tile.bm)),
                    p.vec_b(self.shapes, side(!p.b.transposed, tile.bn)),
                    tile::vector(self.shapes, p.epilogue.out, &[&p.n], 4),
                ],
                check: format!("static_assert(gemm::Simt<Policy>::THREADS == {}, \"as launched\");", tile.threads()),
                threads: tile.threads(),
                shared: 0,
                factors,
            };
            let wave = Wave {
                blocks: self.typical(&self.blocks(tile.bm, tile.bn)) * split.parts,
                resident,
                steps: self.typical(&split.k_per_split.ceil_div(&Expr::from(i64::from(tile.bk)))),
                step: cost::simt_step(tile, cost::scalar_rate(limits, self.arch.sm, acc)),
                end: cost::simt_end(tile, p.epilogue.full_reads()),
                bytes: self.bytes(&split),
            };
            let offered = Offered {
                key: format!("gemm_simt/{}x{}", tile.name(), split.parts),
                launch: self.launch(&kernel, &split),
                microseconds: split.time(limits, wave, p.epilogue.acc),
            };
            self.offer(offered, &split, answer);
        }
    }

    fn launch(&self, kernel: &Kernel<'_>, split: &Split) -> Launch {
        let p = self.product;
        let Kernel { name, vectors: [vec_a, vec_b, vec_c], .. } = kernel;
        let policy = format!(
            "struct Policy {{\n{}{}  static constexpr int VEC_A = {vec_a}, VEC_B = {vec_b}, VEC_C = {vec_c}, BAND = \
             {};\n  static constexpr bool TRANS_A = {}, TRANS_B = {};\n}};\n{}",
            kernel.types,
            kernel.tile_lines,
            tile::band(kernel.bm),
            p.a.transposed,
            p.b.transposed,
            kernel.check
        );
        let (args, call) = arguments(p, split, kernel.factors);
        let entry = Entry {
            title: title(p, kernel.bm, kernel.bn),
            headers: &p.epilogue.headers("families/gemm/kernel.cuh"),
            declarations: vec![policy, p.epilogue.text.clone()],
            threads: kernel.threads,
            call: format!("gemm::{name}<Policy, Epi>({call})"),
        };
        Launch {
            source: entry::source(format!("gemm_{name}{}{}", p.epilogue.stem, split.stem()), &entry, &args),
            grid: [self.blocks(kernel.bm, kernel.bn), Expr::from(1i64), split.grid()],
            block: [kernel.threads, 1, 1],
            shared: kernel.shared,
            params: args.params,
        }
    }
}

/// What a kernel computes, in a line.
pub(super) fn title(p: &Product, bm: u32, bn: u32) -> String {
    let side = |name: &str, axes: &str, transposed: bool| format!("{name}{axes}{}", if transposed { "^T" } else { "" });
    let a = if p.a.transposed { "[k, m]" } else { "[m, k]" };
    let b = if p.b.transposed { "[n, k]" } else { "[k, n]" };
    let (a, b) = (side("a", a, p.a.transposed), side("b", b, p.b.transposed));
    format!("Matrix product y[m, n] = {a} {b}, {bm} x {bn} outputs a block.")
}

/// The parameters of an entry, and the arguments of the body.
pub(super) fn arguments(p: &Product, split: &Split, factors: [&str; 2]) -> (Args, String) {
    let mut args = Args::default();
    args.pointer(&format!("const {}", factors[0]), "a", input(p.a.input));
    args.pointer(&format!("const {}", factors[1]), "b", input(p.b.input));
    p.epilogue.declare(&mut args);
    let join = split.declare(p.epilogue.acc, &mut args);
    args.int("m", &p.m);
    args.int("n", &p.n);
    args.int("k", &p.k);
    // Absent axes have extent 1; they are the outer ones.
    let mut lists =
        [vec!["1".to_owned(); BATCH_AXES], vec!["0".to_owned(); BATCH_AXES], vec!["0".to_owned(); BATCH_AXES]];
    let first = BATCH_AXES - p.batch.len();
    for (k, Axis { extent, a_stride, b_stride }) in p.batch.iter().enumerate() {
        let name = format!("batch{k}");
        args.int(&name, extent);
        lists[0][first + k] = name;
        for (list, side, stride) in [(1, "a", a_stride), (2, "b", b_stride)] {
            if !stride.is(0) {
                let name = format!("{side}_stride{k}");
                args.long(&name, stride);
                lists[list][first + k] = name;
            }
        }
    }
    let [extents, a_strides, b_strides] = lists.map(|list| format!("{{{}}}", list.join(", ")));
    let k_per_split = split.declare_k("k", &mut args);
    let (lda, ldb) = (p.lda().1, p.ldb().1);
    let call = format!(
        "{{a, b, m, n, k, /*lda*/ {lda}, /*ldb*/ {ldb},\n      /*batch*/ {extents}, /*a_stride*/ {a_strides}, \
         /*b_stride*/ {b_strides},\n      {k_per_split}}}, {}{join}",
        p.epilogue.init()
    );
    (args, call)
}
