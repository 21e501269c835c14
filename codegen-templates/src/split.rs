//! Splitting the sum of a product over blocks: which splits are worth trying, and what a kernel needs for one.
//!
//! The parts of a tile are formed by the blocks of the grid's z. Each puts its sums into a workspace and counts itself; the
//! last to arrive adds the parts in order and runs the epilogue (`cuda/lapidary/join.cuh`). The same sums in the same order,
//! whoever is last. Not here: what that takes in clocks, which `cost` says.

use lapidary_runtime::DType;

use crate::arch::Limits;
use crate::candidate::{Param, Shapes};
use crate::cost::{self, Clocks, Wave};
use crate::entry::Args;
use crate::extent::Expr;
use crate::print;
use crate::tile;

/// How K is divided.
#[derive(Clone, Debug)]
pub struct Split {
    pub parts: i64,
    /// K of a part, a multiple of the tile's step; all of K where there is one part.
    pub k_per_split: Expr,
    tiles: Tiles,
}

/// The tiles of a product.
#[derive(Clone, Debug)]
pub struct Tiles {
    pub count: Expr,
    /// Sums that the threads of a block hold.
    pub sums: u32,
    pub threads: u32,
}

const PARTS: [i64; 6] = [2, 3, 4, 6, 8, 16];
/// More blocks than this many an SM gain nothing from a split.
const BLOCKS_PER_SM: i64 = 3;
/// A part shorter than this many steps is mostly start and end.
const LEAST_STEPS: i64 = 2;
/// The largest workspace, in bytes.
const LARGEST_WORKSPACE: i64 = 64 << 20;

/// One part, and the splits worth trying where the tiles do not fill the GPU. `step`: a tile's step along K; `acc`: the
/// type of the sums.
pub fn splits(limits: &Limits, shapes: &Shapes<'_>, tiles: Tiles, k: &Expr, step: u32, acc: DType) -> Vec<Split> {
    let step = Expr::from(i64::from(step));
    let steps = (shapes.typical)(&k.ceil_div(&step));
    let blocks = (shapes.typical)(&tiles.count).max(0);
    let mut found = vec![Split { parts: 1, k_per_split: k.clone(), tiles: tiles.clone() }];
    for parts in PARTS {
        let k_per_split = k.ceil_div(&(step.clone() * Expr::from(parts))) * step.clone();
        // Rounding up may leave nothing for the last parts.
        let parts = match (k.as_const(), k_per_split.as_const()) {
            (Some(k), Some(each)) if each > 0 => (k + each - 1) / each,
            (Some(_) | None, Some(_) | None) => parts,
        };
        let worthwhile = blocks * parts <= i64::from(limits.sms) * BLOCKS_PER_SM && steps >= parts * LEAST_STEPS;
        let split = Split { parts, k_per_split, tiles: tiles.clone() };
        let fits = split.workspace(acc).is_some_and(|bytes| shapes.max(&bytes) <= LARGEST_WORKSPACE);
        if worthwhile && fits && found.iter().all(|other| other.parts != parts) {
            found.push(split);
        }
    }
    found
}

impl Split {
    pub fn of(parts: i64, k_per_split: Expr, tiles: Tiles) -> Split {
        Split { parts, k_per_split, tiles }
    }

    pub fn is_whole(&self) -> bool {
        self.parts == 1
    }

    /// Blocks along z.
    pub fn grid(&self) -> Expr {
        Expr::from(self.parts)
    }

    /// Bytes of the workspace; `None` where there is one part.
    pub fn workspace(&self, acc: DType) -> Option<Expr> {
        let each = self.parts * i64::from(self.tiles.sums) * i64::from(tile::bytes(acc));
        (!self.is_whole()).then(|| Expr::from(each) * self.tiles.count.clone())
    }

    /// Microseconds of a launch in which `wave.end` is what a block with all of K does behind its steps.
    pub fn time(&self, limits: &Limits, wave: Wave, acc: DType) -> f64 {
        let end = if self.is_whole() { wave.end } else { cost::put(self.bytes_of_tile(acc)) };
        Wave { end, ..wave }.time(limits) + self.join_time(limits, wave.end, acc)
    }

    /// Microseconds from the last part to the result, `end` being what a block does with whole sums.
    pub fn join_time(&self, limits: &Limits, end: Clocks, acc: DType) -> f64 {
        let held = self.tiles.sums / self.tiles.threads;
        if self.is_whole() { 0.0 } else { cost::join(limits, self.parts, self.bytes_of_tile(acc), held, end) }
    }

    fn bytes_of_tile(&self, acc: DType) -> f64 {
        f64::from(self.tiles.sums * tile::bytes(acc))
    }

    /// What a kernel's stem says of it.
    pub fn stem(&self) -> &'static str {
        if self.is_whole() { "" } else { "_split" }
    }

    /// Declares what the parts need, and gives the body's last argument as the entry spells it.
    pub fn declare(&self, acc: DType, args: &mut Args) -> String {
        if self.is_whole() {
            return String::new();
        }
        let acc = print::memory_type(acc);
        args.pointer(acc, "sums", Param::Workspace(0, Expr::constant(0)));
        args.pointer("u32", "arrived", Param::Counters(self.tiles.count.clone()));
        format!(", Parts<{acc}>{{sums, arrived}}")
    }

    /// Declares K of a part and gives it as the entry spells it; `k` is all of K.
    pub fn declare_k(&self, k: &str, args: &mut Args) -> String {
        if self.is_whole() {
            return format!("/*k_per_split*/ {k}");
        }
        args.int("k_per_split", &self.k_per_split);
        "k_per_split".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::ARCHS;

    fn tried(k: &str, tiles: &str, acc: DType) -> Vec<Split> {
        let value = |expr: &Expr| expr.eval(&|_| 1000);
        let range = |expr: &Expr| (value(expr), value(expr));
        let shapes = Shapes { range: &range, typical: &value };
        let tiles = Tiles { count: tiles.parse().unwrap(), sums: 4096, threads: 128 };
        splits(&ARCHS[0].1, &shapes, tiles, &k.parse().unwrap(), 64, acc)
    }

    #[test]
    fn parts_are_whole_steps_and_cover_k() {
        for split in tried("1000", "4", DType::F32).iter().skip(1) {
            let each = split.k_per_split.as_const().unwrap();
            assert!(each % 64 == 0 && (split.parts - 1) * each < 1000 && split.parts * each >= 1000, "{split:?}");
        }
        // A K that only the shapes tell: the parts' number is given, and their extent follows.
        let dynamic = tried("k", "4", DType::F32);
        assert!(dynamic.len() > 2);
        for split in &dynamic {
            let each = split.k_per_split.eval(&|_| 777);
            assert!(split.parts * each >= 777 && (split.parts == 1 || each % 64 == 0), "{split:?}");
        }
    }

    #[test]
    fn what_fills_the_gpu_is_not_split() {
        assert_eq!(tried("4096", "1000", DType::F32).len(), 1);
        assert_eq!(tried("64", "1", DType::F32).len(), 1);
    }

    #[test]
    fn each_part_of_a_tile_has_its_place_and_each_tile_a_counter() {
        for split in tried("4096", "3*n-2990", DType::F64).iter().skip(1) {
            let bytes = split.workspace(DType::F64).unwrap();
            assert_eq!(bytes, Expr::from(split.parts * 4096 * 8) * "3*n-2990".parse().unwrap());
            let mut args = Args::default();
            assert_eq!(split.declare(DType::F64, &mut args), ", Parts<double>{sums, arrived}");
            assert_eq!(args.params[1], Param::Counters("3*n-2990".parse().unwrap()));
        }
        let whole = &tried("4096", "10", DType::F64)[0];
        let mut args = Args::default();
        assert_eq!((whole.workspace(DType::F64), whole.declare(DType::F64, &mut args)), (None, String::new()));
        assert!(args.params.is_empty());
    }

    #[test]
    fn a_workspace_has_a_largest_size() {
        // 4 tiles are typical, and there may be 1000.
        let most = |acc| {
            let value = |expr: &Expr| expr.eval(&|_| 4);
            let range = |expr: &Expr| (value(expr), expr.eval(&|_| 1000));
            let shapes = Shapes { range: &range, typical: &value };
            let tiles = Tiles { count: Expr::symbol("n"), sums: 4096, threads: 128 };
            let found = splits(&ARCHS[0].1, &shapes, tiles, &Expr::from(4096i64), 64, acc);
            found.iter().map(|split| split.parts).max()
        };
        assert_eq!((most(DType::F32), most(DType::F64)), (Some(4), Some(2)));
    }
}
