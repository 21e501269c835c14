//! Scaled dot-product attention: which kernels of `kernel.cuh` do one, with which tiles, and how long each takes.
//!
//! Contract: every attention has candidates, whatever its types, depths and strides; what the tensor cores and the tiles
//! of the scalar units cannot do, a kernel without tiles does.

mod mma;
mod scalar;

use lapidary_runtime::DType;
use lapidary_runtime::op::{Attention, Unseen};

use crate::arch::Arch;
use crate::call::{As, Call, Place};
use crate::candidate::{Answer, Launch, Refusal, Shapes};
use crate::extent::Expr;
use crate::families::softmax::check_float;
use crate::problem::{Kind, Operand, Problem, Strided};
use crate::{print, tile, view};

const FAMILY: &str = "attention";
/// The largest depth of the tiled kernels.
const DEEPEST: i64 = 256;
/// Bytes that an SM reads of the L2 cache a clock: each block of a head reads its keys and values again.
const CACHED: f64 = 40.0;

/// Implementations of attention.
pub fn answer(problem: &Problem, arch: Arch, shapes: &Shapes<'_>) -> Answer {
    let Kind::Attention(spec, places) = &problem.kind else { return Answer::default() };
    Answer::or_refusal(FAMILY, offers(problem, spec, places, arch, shapes))
}

fn offers(
    problem: &Problem,
    spec: &Attention,
    places: &[Strided; 4],
    arch: Arch,
    shapes: &Shapes<'_>,
) -> Result<Answer, String> {
    let job = Job::of(problem, spec, places, arch, shapes)?;
    let mut answer = Answer::default();
    job.offer_mma(&mut answer);
    job.offer_simt(&mut answer);
    job.offer_direct(&mut answer);
    Ok(answer)
}

/// An attention to be offered kernels for.
struct Job<'a> {
    spec: &'a Attention,
    dtype: DType,
    batch: Expr,
    heads: Expr,
    /// Heads of queries that share one of keys and values.
    share: Expr,
    queries: Expr,
    keys: Expr,
    /// Of queries and keys.
    depth: Expr,
    /// Of values and the result.
    width: Expr,
    /// Where q, k, v and the result lie.
    places: &'a [Strided; 4],
    mask: Mask,
    /// Bytes of all operands and the result.
    bytes: f64,
    arch: Arch,
    shapes: &'a Shapes<'a>,
}

/// What is added to the scores.
enum Mask {
    None,
    /// By its strides over batch, head, query and key: one row for all queries.
    Keys(Vec<Expr>),
    /// By its strides: a row for each query.
    Scores(Vec<Expr>),
}

impl<'a> Job<'a> {
    fn of(
        problem: &'a Problem,
        spec: &'a Attention,
        places: &'a [Strided; 4],
        arch: Arch,
        shapes: &'a Shapes<'a>,
    ) -> Result<Job<'a>, String> {
        let [q, k, v, y] = [problem.input(0)?, problem.input(1)?, problem.input(2)?, problem.output(0)?];
        let mask = problem.optional_input(3);
        let all: Vec<&Operand> = [q, k, v, y].into_iter().chain(mask).collect();
        all.iter().try_for_each(|operand| check_float(operand))?;
        if let Some(other) = all.iter().find(|operand| operand.dtype != q.dtype) {
            return Err(format!("its operands are of one type, and these are {} and {}", q.dtype, other.dtype));
        }
        let ([batch, heads, queries, depth], [_, groups, keys, _], [_, _, _, width]) =
            (&q.dims[..], &k.dims[..], &v.dims[..])
        else {
            return Err("queries, keys and values have four axes".to_owned());
        };
        if places.iter().any(|place| place.strides.len() != 4) {
            return Err("queries, keys, values and the result have four strides".to_owned());
        }
        let extents = [heads, queries, keys, depth, width];
        if let Some(extent) = extents.into_iter().find(|extent| shapes.max(extent) > i64::from(i32::MAX) / 2) {
            return Err(format!("an extent, {extent}, may be above 2^30"));
        }
        let scores = [batch, heads, queries, keys].map(Expr::clone);
        let typical = |operand: &&Operand| (shapes.typical)(&operand.count()).max(0) as f64;
        Ok(Job {
            spec,
            dtype: q.dtype,
            batch: batch.clone(),
            heads: heads.clone(),
            share: heads.floor_div(groups),
            queries: queries.clone(),
            keys: keys.clone(),
            depth: depth.clone(),
            width: width.clone(),
            places,
            mask: Mask::of(mask, &scores, shapes),
            bytes: all.iter().map(typical).sum::<f64>() * f64::from(tile::bytes(q.dtype)),
            arch,
            shapes,
        })
    }

    fn typical(&self, expr: &Expr) -> i64 {
        (self.shapes.typical)(expr).max(0)
    }

    /// Constant depths of keys and of values, which the tiled kernels have in their types.
    fn depths(&self) -> Result<[u32; 2], String> {
        let constant = |depth: &Expr| match depth.as_const() {
            Some(depth @ 1..=DEEPEST) => Ok(depth as u32),
            Some(depth) => Err(format!("a depth is {depth}, and tiles are for 1 to {DEEPEST}")),
            None => Err(format!("a depth, {depth}, is not constant")),
        };
        Ok([constant(&self.depth)?, constant(&self.width)?])
    }

    /// Thread blocks that have `bm` queries each.
    fn blocks(&self, bm: u32) -> Expr {
        self.queries.ceil_div(&Expr::from(i64::from(bm))) * self.heads.clone() * self.batch.clone()
    }

    /// Whether a tile fits what there is to do: half of it is not empty at every shape.
    fn check_tile(&self, bm: u32, bn: u32, least: [u32; 2]) -> Result<(), String> {
        for (what, extent, tile, least) in
            [("queries", &self.queries, bm, least[0]), ("keys", &self.keys, bn, least[1])]
        {
            let most = self.shapes.max(extent);
            if tile > least && most <= i64::from(tile / 2) {
                return Err(format!("there are at most {most} {what}, which leaves half of a tile of {tile} empty"));
            }
        }
        Ok(())
    }

    /// Whether there is as much shared memory.
    fn check_shared(&self, shared: u32) -> Result<(), String> {
        let limit = self.arch.limits().shared_per_block;
        if shared > limit {
            return Err(format!("it needs {shared} bytes of shared memory, and {} has {limit}", self.arch));
        }
        Ok(())
    }

    /// Keys that the queries of a block see on average, in whole tiles of `bn`.
    fn steps(&self, bm: u32, bn: u32) -> f64 {
        let (queries, keys) = (self.typical(&self.queries), self.typical(&self.keys));
        let tiles = |seen: i64| (seen + i64::from(bn) - 1) / i64::from(bn);
        if !self.spec.causal {
            return tiles(keys) as f64;
        }
        let (bm, blocks) = (i64::from(bm), (queries + i64::from(bm) - 1) / i64::from(bm));
        let total: i64 = (1..=blocks).map(|block| tiles(keys.min(block * bm))).sum();
        total as f64 / blocks.max(1) as f64
    }

    /// A call of a kernel. `bm`: queries of a block.
    fn call(&self, kernel: &str, bm: u32) -> Call {
        let stem = format!("attention_{kernel}_{}", self.dtype);
        let queries = if bm == 1 { "a query".to_owned() } else { format!("{bm} queries") };
        let added = if matches!(self.mask, Mask::None) { "" } else { " + mask" };
        let seen = if self.spec.causal { ", causal" } else { "" };
        let title = format!("Attention: softmax(scale q k^T{added}) v{seen}, {queries} of a head a block.");
        let mut call = Call::new(FAMILY, stem, title);
        call.using("T", print::type_name(self.dtype));
        call.ints(&[("MASK", self.mask.policy())]);
        let zero = self.spec.unseen == Unseen::Zero;
        call.constant("bool", &format!("CAUSAL = {}, UNSEEN_ZERO = {zero}", self.spec.causal));
        call
    }

    /// The call with its arguments, launched.
    fn launch(&self, mut call: Call, kernel: &str, threads: u32, blocks: Expr, shared: u32) -> Launch {
        let [q, k, v, y] = self.places;
        for (input, (name, place)) in [("q", q), ("k", k), ("v", v)].into_iter().enumerate() {
            call.pointer("const void", name, &Place::Input(input, place.offset.clone()));
        }
        let mask = if matches!(self.mask, Mask::None) { Place::Absent } else { Place::input(3) };
        call.pointer("const void", "mask", &mask);
        call.pointer("void", "y", &Place::Output(0, y.offset.clone()));
        for (prefix, place) in [("q_stride", q), ("k_stride", k), ("v_stride", v)] {
            call.extents(prefix, &place.strides, As::Wide);
        }
        match &self.mask {
            Mask::None => call.literal("{}"),
            Mask::Keys(strides) | Mask::Scores(strides) => call.extents("mask_stride", strides, As::Wide),
        }
        call.extents("y_stride", &y.strides, As::Wide);
        for (name, extent) in [
            ("heads", &self.heads),
            ("share", &self.share),
            ("queries", &self.queries),
            ("keys", &self.keys),
            ("depth", &self.depth),
            ("width", &self.width),
        ] {
            call.extent(name, extent, As::Int);
        }
        call.float("scale", self.spec.scale.as_f64() as f32);
        call.launch_with(&format!("attention::{kernel}"), threads, blocks, shared)
    }

    /// Adds a candidate, or the reason against it.
    fn offer(&self, key: String, launch: Launch, cost: f64, answer: &mut Answer) {
        let blocks = self.shapes.max(&launch.grid[0]);
        if blocks > i64::from(i32::MAX) {
            let reason = format!("it may need {blocks} thread blocks, and a grid has at most 2^31 - 1");
            answer.refusals.push(Refusal { key, reason });
            return;
        }
        answer.offer(key, vec![launch], cost);
    }
}

impl Mask {
    /// The mask's strides over `scores`: batch, head, query, key.
    fn of(mask: Option<&Operand>, scores: &[Expr; 4], shapes: &Shapes<'_>) -> Mask {
        let Some(mask) = mask else { return Mask::None };
        let strides = view::broadcast(&mask.dims, scores, shapes);
        if strides[2].is(0) { Mask::Keys(strides) } else { Mask::Scores(strides) }
    }

    /// The policy's `MASK`.
    fn policy(&self) -> i64 {
        match self {
            Mask::None => 0,
            Mask::Keys(_) => 1,
            Mask::Scores(_) => 2,
        }
    }
}

#[cfg(test)]
mod tests;
