//! The kernel for a few rows: `gemm::gemv`, bound by reading b once.

use lapidary_runtime::DType;

use super::tiled::{arguments, title};
use super::{Job, Offered};
use crate::candidate::{Answer, Launch};
use crate::cost;
use crate::entry::{self, Entry};
use crate::extent::Expr;
use crate::print;
use crate::split::Split;

/// How a block's threads are laid over b.
#[derive(Clone, Copy)]
struct Shape {
    warps: u32,
    /// Columns of a block (b stored `[n, k]`), or lanes side by side on a row of b (`[k, n]`).
    columns: u32,
}

const ALONG_K: [Shape; 3] =
    [Shape { warps: 4, columns: 4 }, Shape { warps: 4, columns: 2 }, Shape { warps: 8, columns: 1 }];
const ALONG_N: [Shape; 3] =
    [Shape { warps: 8, columns: 4 }, Shape { warps: 16, columns: 8 }, Shape { warps: 8, columns: 32 }];

/// The most rows.
const ROWS: i64 = 8;

impl Job<'_> {
    pub(super) fn offer_gemv(&self, answer: &mut Answer) {
        let p = self.product;
        if !matches!(p.a.dtype, DType::F32 | DType::F16 | DType::BF16) {
            return answer.refuse("gemm_gemv", format!("it multiplies f32, f16 and bf16, and this is {}", p.a.dtype));
        }
        let rows = self.shapes.max(&p.m);
        if rows > ROWS {
            return answer.refuse("gemm_gemv", format!("it holds {ROWS} rows, and there may be {rows}"));
        }
        let held = [1, 2, 4, 8].into_iter().find(|held| rows <= i64::from(*held)).unwrap_or(8);
        let shapes = if p.b.transposed { ALONG_K } else { ALONG_N };
        for shape in shapes {
            self.offer_gemv_shape(held, shape, answer);
        }
    }

    fn offer_gemv_shape(&self, rows: u32, shape: Shape, answer: &mut Answer) {
        const STATIC_SHARED: u32 = 48 << 10;
        let p = self.product;
        let Shape { warps, columns } = shape;
        let vec = p.vec_b(self.shapes, 8);
        let (bn, letter) = if p.b.transposed { (columns, 'c') } else { (columns * vec, 'l') };
        let name = format!("gemm_gemv/r{rows}{letter}{columns}w{warps}");
        let shared = warps * rows * bn * 4;
        if p.b.transposed && columns * rows > 32 {
            return answer.refuse(name, format!("{columns} columns of {rows} rows do not fit the registers"));
        }
        if shared > STATIC_SHARED {
            let reason = format!("it needs {shared} bytes of static shared memory, of which there are {STATIC_SHARED}");
            return answer.refuse(name, reason);
        }
        let along_k = p.b.transposed && !p.a.transposed;
        let vec_a = if along_k && p.vec_a(self.shapes, vec) == vec { vec } else { 1 };
        let threads = 32 * warps;
        let blocks = self.blocks(rows, bn);
        // What the block takes of K in one go; a part of a split is several of these.
        let stride = if p.b.transposed { 32 * warps * vec } else { warps * 32 / columns * 4 };
        let sums = (rows * bn).next_multiple_of(threads);
        for split in self.splits([rows, bn, stride], sums, threads) {
            let policy = format!(
                "struct Policy {{\n  using T = {};\n  static constexpr int M = {rows}, VEC = {vec}, VEC_A = {vec_a}, \
                 WARPS = {warps}, COLS = {columns}, \
                 LANES = {columns};\n  static constexpr bool TRANS_A = {}, TRANS_B = {};\n}};",
                print::memory_type(p.a.dtype),
                p.a.transposed,
                p.b.transposed
            );
            let (args, call) = arguments(p, &split, [p.a.dtype, p.b.dtype].map(print::memory_type));
            let entry = Entry {
                title: title(p, rows, bn),
                headers: &p.epilogue.headers("families/gemm/kernel.cuh"),
                declarations: vec![policy, p.epilogue.text.clone()],
                threads,
                call: format!("gemm::gemv<Policy, Epi>({call})"),
            };
            let offered = Offered {
                key: format!("{name}x{}", split.parts),
                launch: Launch {
                    source: entry::source(format!("gemm_gemv{}{}", p.epilogue.stem, split.stem()), &entry, &args),
                    grid: [blocks.clone(), Expr::from(1i64), split.grid()],
                    block: [threads, 1, 1],
                    shared: 0,
                    params: args.params,
                },
                microseconds: self.gemv_time(&split, self.typical(&blocks), stride, rows),
            };
            self.offer(offered, &split, answer);
        }
    }

    /// Microseconds: bound by the bandwidth, by the rows' multiply-adds, or by the latency of a block's loads.
    fn gemv_time(&self, split: &Split, blocks: i64, stride: u32, rows: u32) -> f64 {
        // Shares of the bandwidth, multiply-adds per SM and clock, and clocks of a round of loads, as measured.
        const RATE: f64 = 20.0;
        let (share, round) = if self.product.b.transposed { (0.72, 800.0) } else { (0.57, 2500.0) };
        let limits = self.arch.limits();
        let memory = self.bytes(split) / (limits.bandwidth * share) * 1e6;
        let products = self.typical(&self.product.b_elements()) as f64 * f64::from(rows);
        let arithmetic = products / (f64::from(limits.sms) * RATE * limits.clock * 1e3);
        let rounds = self.typical(&split.k_per_split.ceil_div(&Expr::from(i64::from(stride)))) as f64;
        let waves = (blocks * split.parts) as f64 / (f64::from(limits.sms) * 4.0);
        let latency = rounds * round * waves.ceil().max(1.0) / (limits.clock * 1e3);
        let join = split.join_time(limits, cost::Clocks::default(), self.product.epilogue.acc);
        cost::LAUNCH + 0.6 + cost::overlapped(memory, arithmetic.max(latency)) + join
    }
}
