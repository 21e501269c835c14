//! Splitting the sum of a product over blocks: which splits are worth trying, and the launch that adds the parts.
//!
//! Part `z` of the grid writes its bare sums to a slice of a workspace; a second kernel adds the slices in order and
//! runs the epilogue. No atomics: the same sums in the same order, always.

use lapidary_runtime::DType;

use crate::arch::Limits;
use crate::candidate::{Launch, Param, Shapes};
use crate::entry::{self, Args, Entry};
use crate::epilogue::Epilogue;
use crate::extent::Expr;
use crate::print;
use crate::tile;

/// How K is divided.
#[derive(Clone, Debug)]
pub struct Split {
    pub parts: i64,
    /// K of a part, a multiple of the tile's step; all of K where there is one part.
    pub k_per_split: Expr,
}

/// What the parts' sums are, one an output.
#[derive(Clone, Debug)]
pub struct Sums<'a> {
    pub count: &'a Expr,
    /// Adjacent outputs that share a channel.
    pub inner: &'a Expr,
    pub channels: &'a Expr,
}

const PARTS: [i64; 6] = [2, 3, 4, 6, 8, 16];
/// More blocks than this many an SM gain nothing from a split.
const BLOCKS_PER_SM: i64 = 3;
/// A part shorter than this many steps is mostly start and end.
const LEAST_STEPS: i64 = 2;
/// The largest workspace, in bytes.
const LARGEST_WORKSPACE: i64 = 64 << 20;
/// The sums of a part begin at a multiple of this many elements.
const SLICE: i64 = 4;

/// One part, and the splits worth trying where `blocks` (typical) do not fill the GPU. `step`: a tile's step along K.
pub fn splits(limits: &Limits, shapes: &Shapes<'_>, blocks: i64, k: &Expr, step: u32, sums: &Sums<'_>) -> Vec<Split> {
    let step = Expr::from(i64::from(step));
    let steps = (shapes.typical)(&k.ceil_div(&step));
    let mut found = vec![Split { parts: 1, k_per_split: k.clone() }];
    for parts in PARTS {
        let k_per_split = k.ceil_div(&(step.clone() * Expr::from(parts))) * step.clone();
        // Rounding up may leave nothing for the last parts.
        let parts = match (k.as_const(), k_per_split.as_const()) {
            (Some(k), Some(each)) if each > 0 => (k + each - 1) / each,
            (Some(_) | None, Some(_) | None) => parts,
        };
        let worthwhile = blocks * parts <= i64::from(limits.sms) * BLOCKS_PER_SM && steps >= parts * LEAST_STEPS;
        let fits = shapes.max(sums.count) <= LARGEST_WORKSPACE / (8 * parts.max(1));
        if worthwhile && fits && found.iter().all(|split| split.parts != parts) {
            found.push(Split { parts, k_per_split });
        }
    }
    found
}

impl Split {
    /// Bytes of the workspace; `None` where there is one part.
    pub fn workspace(&self, sums: &Sums<'_>, acc: DType) -> Option<Expr> {
        let element = i64::from(tile::bytes(acc));
        (self.parts > 1).then(|| Expr::from(self.parts * element) * slice(sums))
    }
}

/// Elements from one part's sums to the next one's.
fn slice(sums: &Sums<'_>) -> Expr {
    sums.count.ceil_div(&Expr::from(SLICE)) * Expr::from(SLICE)
}

/// What a kernel of a product ends in: the epilogue, or the bare sums where K is split.
pub struct Ending<'a> {
    epilogue: &'a Epilogue,
    split: &'a Split,
}

impl<'a> Ending<'a> {
    pub fn new(epilogue: &'a Epilogue, split: &'a Split) -> Ending<'a> {
        Ending { epilogue, split }
    }

    fn is_whole(&self) -> bool {
        self.split.parts == 1
    }

    /// The type that is stored.
    pub fn out(&self) -> DType {
        if self.is_whole() { self.epilogue.out } else { self.epilogue.acc }
    }

    /// How many operands of the result's shape it reads.
    pub fn full_reads(&self) -> usize {
        if self.is_whole() { self.epilogue.full_reads() } else { 0 }
    }

    /// `Epi`, as the template's argument.
    pub fn name(&self) -> String {
        if self.is_whole() {
            "Epi".to_owned()
        } else {
            format!("PartialSums<{}>", print::memory_type(self.epilogue.acc))
        }
    }

    /// The initializer of its parameters.
    pub fn init(&self) -> String {
        if self.is_whole() { self.epilogue.init() } else { "{sums}".to_owned() }
    }

    /// The struct to declare.
    pub fn declaration(&self) -> Option<String> {
        self.is_whole().then(|| self.epilogue.text.clone())
    }

    /// The header of the family and those of the epilogue.
    pub fn headers(&self, family: &'static str) -> Vec<&'static str> {
        let own: &[&str] = if self.is_whole() { self.epilogue.headers } else { &[] };
        std::iter::once(family).chain(own.iter().copied()).collect()
    }

    /// The end of the kernel's stem.
    pub fn stem(&self) -> &str {
        if self.is_whole() { &self.epilogue.stem } else { "_split" }
    }

    /// Declares where it writes and what it reads.
    pub fn declare(&self, args: &mut Args) {
        if self.is_whole() {
            self.epilogue.declare(args);
        } else {
            args.pointer(print::memory_type(self.epilogue.acc), "sums", Param::Workspace(0, Expr::constant(0)));
        }
    }

    /// Declares the split's extents and gives `k_per_split` and `slice` as the entry spells them; `k` is all of K.
    pub fn declare_extents(&self, sums: &Sums<'_>, k: &str, args: &mut Args) -> String {
        if self.is_whole() {
            return format!("/*k_per_split*/ {k}, /*slice*/ 0");
        }
        args.int("k_per_split", &self.split.k_per_split);
        args.long("slice", &slice(sums));
        "k_per_split, slice".to_owned()
    }
}

/// Threads of a block of the reduction.
const THREADS: u32 = 256;

/// The launch that adds the parts and runs the epilogue.
pub fn reduce(limits: &Limits, shapes: &Shapes<'_>, epilogue: &Epilogue, split: &Split, sums: &Sums<'_>) -> Launch {
    let fills = (shapes.typical)(sums.count) >= i64::from(limits.sms * THREADS * 4);
    let width = if fills { 4 } else { 1 };
    let acc = print::memory_type(epilogue.acc);
    let mut args = Args::default();
    args.pointer(&format!("const {acc}"), "sums", Param::Workspace(0, Expr::constant(0)));
    epilogue.declare(&mut args);
    args.int("parts", &Expr::from(split.parts));
    args.int("total", sums.count);
    args.long("slice", &slice(sums));
    args.int("inner", sums.inner);
    args.int("channels", sums.channels);
    let headers: Vec<&str> = std::iter::once("lapidary/epilogue.cuh").chain(epilogue.headers.iter().copied()).collect();
    let entry = Entry {
        title: "The parts of a product whose K was split, added in order; then the epilogue.".to_owned(),
        headers: &headers,
        declarations: vec![epilogue.text.clone()],
        threads: THREADS,
        call: format!(
            "splitk_reduce<{width}, {acc}, Epi>({{sums, parts, total, slice, inner, channels}}, {})",
            epilogue.init()
        ),
    };
    Launch {
        source: entry::source(format!("splitk_reduce{}", epilogue.stem), &entry, &args),
        grid: [sums.count.ceil_div(&Expr::from(i64::from(THREADS * width))), Expr::from(1i64), Expr::from(1i64)],
        block: [THREADS, 1, 1],
        shared: 0,
        params: args.params,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::ARCHS;

    fn tried(k: &str, blocks: i64) -> Vec<Split> {
        let value = |expr: &Expr| expr.eval(&|_| 1000);
        let range = |expr: &Expr| (value(expr), value(expr));
        let shapes = Shapes { range: &range, typical: &value };
        let (count, inner, channels) = (Expr::from(101i64), Expr::from(1i64), Expr::from(101i64));
        let sums = Sums { count: &count, inner: &inner, channels: &channels };
        splits(&ARCHS[0].1, &shapes, blocks, &k.parse().unwrap(), 64, &sums)
    }

    #[test]
    fn parts_are_whole_steps_and_cover_k() {
        for split in tried("1000", 4).iter().skip(1) {
            let each = split.k_per_split.as_const().unwrap();
            assert!(each % 64 == 0 && (split.parts - 1) * each < 1000 && split.parts * each >= 1000, "{split:?}");
        }
        // A K that only the shapes tell: the parts' number is given, and their extent follows.
        let dynamic = tried("k", 4);
        assert!(dynamic.len() > 2);
        for split in &dynamic {
            let each = split.k_per_split.eval(&|_| 777);
            assert!(split.parts * each >= 777 && (split.parts == 1 || each % 64 == 0), "{split:?}");
        }
    }

    #[test]
    fn what_fills_the_gpu_is_not_split() {
        assert_eq!(tried("4096", 1000).len(), 1);
        assert_eq!(tried("64", 1).len(), 1);
    }

    #[test]
    fn slices_begin_at_whole_vectors() {
        let (count, one) = (Expr::from(101i64), Expr::from(1i64));
        let sums = Sums { count: &count, inner: &one, channels: &one };
        let split = Split { parts: 3, k_per_split: Expr::from(64i64) };
        assert_eq!(split.workspace(&sums, DType::F32), Some(Expr::from(3 * 104 * 4i64)));
        let whole = Split { parts: 1, k_per_split: Expr::from(64i64) };
        assert_eq!(whole.workspace(&sums, DType::F32), None);
    }
}
