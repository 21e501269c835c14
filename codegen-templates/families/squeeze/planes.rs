//! `squeeze::squeeze`: planes to their means or sums, and those through a product.

use lapidary_runtime::DType;
use lapidary_runtime::op::{Conv, Reduce, ReduceKind};

use super::{ROUND, check_extents, check_product, check_types};
use crate::arch::Arch;
use crate::candidate::{Candidate, Launch, Shapes};
use crate::cost::{self, Clocks};
use crate::entry::{self, Args, Entry, input};
use crate::epilogue::Epilogue;
use crate::extent::Expr;
use crate::predict::Work;
use crate::print;
use crate::problem::{Pair, Problem};
use crate::program::Program;
use crate::split::{Split, Tiles};
use crate::tile;
use crate::view::product;

const THREADS: u32 = 512;
/// The most outputs of a thread.
const MOST_HELD: u32 = 4;
/// Channels of a block, and the most blocks of an image: the last of them adds what all have.
const CHANNELS: [i64; 6] = [4, 8, 16, 32, 64, 128];
const MOST_PARTS: i64 = 32;

/// How the pair is done.
pub struct Squeeze {
    epilogue: Epilogue,
    split: Split,
    dtype: DType,
    /// Whether planes are reduced to their means; else to their sums.
    is_mean: bool,
    images: Expr,
    plane: Expr,
    /// Of x and of the product.
    channels: [i64; 2],
    /// Channels of a block, outputs of a thread.
    each: i64,
    held: u32,
    /// Elements of a load of x and of w.
    vectors: [u32; 2],
}

impl Squeeze {
    /// # Errors
    /// In words, what the kernel cannot do.
    pub fn of(
        problem: &Problem,
        pair: &Pair,
        (reduce, conv, program): (Reduce, &Conv, Option<&Program>),
        shapes: &Shapes<'_>,
    ) -> Result<Squeeze, String> {
        let (x, w, between) = (problem.input(0)?, problem.input(1)?, pair.first.output(0)?);
        check_product(between, w, conv)?;
        check_types([x, w, between])?;
        let is_mean = is_mean(reduce.kind)?;
        if x.dims.len() < 3 || !reduce.axes.iter().eq(2..x.dims.len()) {
            return Err("it reduces the spatial axes, all of them".to_owned());
        }
        let (images, plane) = (x.dims[0].clone(), product(&x.dims[2..]));
        let (Some(channels), Some(outputs)) = (x.dims[1].as_const(), w.dims[0].as_const()) else {
            return Err("its channels are constants".to_owned());
        };
        check_extents(&[&plane, &x.dims[1]], &images, shapes)?;
        let held = u32::try_from(outputs.max(1)).ok().map(|outputs| outputs.div_ceil(THREADS));
        let held = held.filter(|held| *held <= MOST_HELD);
        let held = held.ok_or_else(|| format!("a block holds {} outputs", MOST_HELD * THREADS))?;
        let parts = |each: &i64| (channels + each - 1) / each;
        let each = CHANNELS.into_iter().find(|each| parts(each) <= MOST_PARTS);
        let each = each.ok_or_else(|| format!("there are {channels} channels, too many for {MOST_PARTS} blocks"))?;
        let tiles = Tiles { count: images.clone(), sums: held * THREADS, threads: THREADS };
        Ok(Squeeze {
            epilogue: Epilogue::of(&pair.second, program, 1, DType::F32)?,
            split: Split::of(parts(&each), Expr::from(each), tiles),
            dtype: x.dtype,
            is_mean,
            vectors: [
                tile::vector(shapes, x.dtype, &[&plane], 8),
                tile::vector(shapes, w.dtype, &[&x.dims[1], &Expr::from(each)], 8),
            ],
            images,
            plane,
            channels: [channels, outputs],
            each,
            held,
        })
    }

    pub fn candidate(&self, arch: Arch, shapes: &Shapes<'_>) -> Candidate {
        Candidate {
            key: format!("squeeze/c{}h{}", self.each, self.held),
            launches: vec![self.launch()],
            workspace: self.split.workspace(self.epilogue.acc).into_iter().collect(),
            cost: self.time(arch, shapes),
        }
    }

    fn launch(&self) -> Launch {
        let Squeeze { epilogue, split, is_mean, each, held, vectors: [vec_x, vec_w], .. } = self;
        let dtype = print::memory_type(self.dtype);
        let policy = format!(
            "struct Policy {{\n  using T = {dtype};\n  static constexpr int THREADS = {THREADS}, CHANNELS = {each}, HELD \
             = {held}, VEC_X = {vec_x}, VEC_W = {vec_w};\n  static constexpr bool MEAN = {is_mean};\n}};"
        );
        let mut args = Args::default();
        args.pointer(&format!("const {dtype}"), "x", input(0));
        args.pointer(&format!("const {dtype}"), "w", input(1));
        epilogue.declare(&mut args);
        let join = split.declare(epilogue.acc, &mut args);
        let [channels, outputs] = self.channels.map(Expr::from);
        for (name, extent) in [("channels", &channels), ("outputs", &outputs), ("plane", &self.plane)] {
            args.int(name, extent);
        }
        let call =
            format!("squeeze::squeeze<Policy, Epi>({{x, w, channels, outputs, plane}}, {}{join})", epilogue.init());
        let entry = Entry {
            title: format!("The {} of each plane, and a product of them.", if *is_mean { "mean" } else { "sum" }),
            headers: &epilogue.headers("families/squeeze/kernel.cuh"),
            declarations: vec![policy, epilogue.text.clone()],
            threads: THREADS,
            call,
        };
        Launch {
            source: entry::source(format!("squeeze{}", epilogue.stem), &entry, &args),
            grid: [Expr::from(1i64), self.images.clone(), split.grid()],
            block: [THREADS, 1, 1],
            shared: 0,
            params: args.params,
        }
    }

    /// Predicted microseconds: the traffic, the rounds of loads of a block, and the way from the last block to the end.
    fn time(&self, arch: Arch, shapes: &Shapes<'_>) -> f64 {
        let limits = arch.limits();
        let typical = |expr: &Expr| (shapes.typical)(expr).max(1) as f64;
        let (images, plane, size) = (typical(&self.images), typical(&self.plane), f64::from(tile::bytes(self.dtype)));
        let [channels, outputs] = self.channels.map(|count| count as f64);
        let elements = (plane + outputs) * channels * images;
        let blocks = images * self.split.parts as f64;
        let work = Work {
            bytes: elements * size,
            blocks,
            threads: f64::from(THREADS),
            in_flight: elements * size / blocks,
            instructions: elements * 2.0,
        };
        let planes = (self.each as f64 / f64::from(THREADS / 32)).ceil();
        let loads = (plane / f64::from(32 * 4 * self.vectors[0])).ceil();
        let put = cost::put(f64::from(self.held * THREADS * 4)).latency / (limits.clock * 1e3);
        work.microseconds(arch)
            + ROUND * (planes * loads + f64::from(self.held))
            + put
            + self.split.join_time(limits, Clocks::default(), self.epilogue.acc)
    }
}

fn is_mean(kind: ReduceKind) -> Result<bool, String> {
    match kind {
        ReduceKind::Mean => Ok(true),
        ReduceKind::Sum => Ok(false),
        ReduceKind::Max
        | ReduceKind::Min
        | ReduceKind::Prod
        | ReduceKind::L1
        | ReduceKind::L2
        | ReduceKind::SumSquare
        | ReduceKind::LogSum
        | ReduceKind::LogSumExp => Err("it reduces by sums and means".to_owned()),
    }
}
