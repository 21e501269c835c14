//! Convolutions of few channels a group: the kernels of `kernel.cuh` that do one without a matrix product. Its
//! `direct` kernel does every convolution, slowly.

use lapidary_runtime::DType;
use lapidary_runtime::op::{Conv, MAX_SPATIAL};

use crate::arch::Arch;
use crate::candidate::{Answer, Launch, Refusal, Shapes};
use crate::cost;
use crate::entry::{self, Args, Entry, input};
use crate::epilogue::Epilogue;
use crate::extent::Expr;
use crate::families::conv::geometry::{Axes, Geometry, list};
use crate::print;
use crate::problem::{Kind, Problem};
use crate::program::Program;
use crate::tile;

/// Implementations of a convolution.
pub fn answer(problem: &Problem, arch: Arch, shapes: &Shapes<'_>) -> Answer {
    match &problem.kind {
        Kind::Conv(spec, program) => {
            Answer::or_refusal("depthwise", offers(problem, spec, program.as_ref(), arch, shapes))
        }
        Kind::Pointwise(_)
        | Kind::MatMul(_, _)
        | Kind::ConvTranspose(_)
        | Kind::Pool(_)
        | Kind::Reduce(_)
        | Kind::ArgReduce(_)
        | Kind::Softmax(_)
        | Kind::Attention(..)
        | Kind::Norm(..)
        | Kind::GroupNorm(..)
        | Kind::Transpose(_)
        | Kind::Expand
        | Kind::Slice { .. }
        | Kind::Concat { .. }
        | Kind::Pad { .. }
        | Kind::Gather { .. }
        | Kind::GatherElements { .. }
        | Kind::GatherNd { .. }
        | Kind::ScatterElements { .. }
        | Kind::ScatterNd { .. }
        | Kind::Resize(_)
        | Kind::RegionPool(_)
        | Kind::Recurrent(_)
        | Kind::Suppress
        | Kind::CumSum { .. }
        | Kind::TopK { .. }
        | Kind::Range
        | Kind::Extents(_)
        | Kind::Copy
        | Kind::Pair(_) => Answer::default(),
    }
}

fn offers(
    problem: &Problem,
    spec: &Conv,
    program: Option<&Program>,
    arch: Arch,
    shapes: &Shapes<'_>,
) -> Result<Answer, String> {
    let geometry = Geometry::of(problem, &spec.window, spec.groups, shapes)?;
    let [x, w] = geometry.types;
    let acc = tile::accumulator(x);
    if acc != tile::accumulator(w) {
        return Err(format!("there are no products of {x} and {w}"));
    }
    let epilogue = Epilogue::of(problem, program, 1, acc)?;
    let job = Job { geometry, epilogue, arch, shapes };
    let mut answer = Answer::default();
    job.offer_planes(&mut answer);
    job.offer_direct(&mut answer);
    Ok(answer)
}

/// A convolution to be offered kernels for.
struct Job<'a> {
    geometry: Geometry,
    epilogue: Epilogue,
    arch: Arch,
    shapes: &'a Shapes<'a>,
}

/// The outputs of a plane that a thread computes: rows, columns.
const PATCHES: [[u32; 2]; 7] = [[4, 8], [2, 8], [1, 8], [2, 4], [1, 4], [1, 2], [1, 1]];
const PLANES_THREADS: u32 = 128;
/// The most taps that a thread holds.
const TAPS: i64 = 49;
/// The most values that a thread holds: outputs, taps, and a row of the input.
const VALUES: u32 = 150;

/// A patch and the loads and stores that it allows.
struct Patch {
    rows: u32,
    columns: u32,
    vec_x: u32,
    vec_y: u32,
}

impl Job<'_> {
    fn typical(&self, expr: &Expr) -> i64 {
        (self.shapes.typical)(expr).max(0)
    }

    fn offer_planes(&self, answer: &mut Answer) {
        let geometry = &self.geometry;
        let [dtype, weights] = geometry.types;
        let reason = if dtype != weights || !matches!(dtype, DType::F32 | DType::F16 | DType::BF16) {
            Some(format!("it multiplies f32, f16 and bf16, and these are {dtype} and {weights}"))
        } else if !geometry.channels.is(i64::from(geometry.groups)) {
            Some(format!("there are {} channels in {} groups", geometry.channels, geometry.groups))
        } else if geometry.rank == MAX_SPATIAL {
            Some("it does one or two spatial axes, and there are 3".to_owned())
        } else if geometry.taps() > TAPS {
            Some(format!("a thread holds {TAPS} taps, and the window has {}", geometry.taps()))
        } else {
            None
        };
        if let Some(reason) = reason {
            return answer.refuse("depthwise_planes", reason);
        }
        for [rows, columns] in PATCHES {
            let [_, _, stride] = geometry.window.stride;
            let width = |extent: &Expr, dtype: DType, of: u32| {
                // The largest power of two that divides the patch's side.
                tile::vector(self.shapes, dtype, &[extent], 1 << of.trailing_zeros())
            };
            let patch = Patch {
                rows,
                columns,
                vec_x: width(&geometry.input[2], dtype, columns * stride),
                vec_y: width(&geometry.output[2], self.epilogue.out, columns),
            };
            let key = format!("depthwise_planes/r{rows}c{columns}");
            match self.values(&patch) {
                held if held > VALUES => answer.refusals.push(Refusal {
                    key,
                    reason: format!("a thread would hold {held} values, and registers allow {VALUES}"),
                }),
                held => {
                    let cost = self.planes_time(&patch, held);
                    answer.offer(key, vec![self.planes(&patch)], cost);
                }
            }
        }
    }

    /// Columns of the input that a thread reads of a row.
    fn span(&self, patch: &Patch) -> u32 {
        let Axes { size: [_, _, kw], stride: [_, _, sw], dilation: [_, _, dw], pad_lo: [_, _, pad], .. } =
            self.geometry.window;
        let reach = ((patch.columns - 1) * sw + (kw - 1) * dw + 1).saturating_sub(pad);
        pad.next_multiple_of(patch.vec_x) + reach.next_multiple_of(patch.vec_x)
    }

    /// Values that a thread holds.
    fn values(&self, patch: &Patch) -> u32 {
        patch.rows * patch.columns + self.geometry.taps() as u32 + self.span(patch)
    }

    /// Threads that have a patch.
    fn threads(&self, patch: &Patch) -> Expr {
        let along = |extent: &Expr, of: u32| extent.ceil_div(&Expr::from(i64::from(of)));
        let [_, rows, columns] = &self.geometry.output;
        self.geometry.batch.clone()
            * self.geometry.filters.clone()
            * along(rows, patch.rows)
            * along(columns, patch.columns)
    }

    fn planes(&self, patch: &Patch) -> Launch {
        let geometry = &self.geometry;
        let Patch { rows, columns, vec_x, vec_y } = patch;
        let Axes { size, stride, dilation, pad_lo, .. } = geometry.window;
        let dtype = print::memory_type(geometry.types[0]);
        let policy = format!(
            "struct Policy {{\n  using T = {dtype};\n  static constexpr int KH = {}, KW = {}, SH = {}, SW = {}, DH = \
             {}, DW = {}, PAD_H = {}, PAD_W = {};\n  static constexpr int ROWS = {rows}, COLS = {columns}, VEC_X = \
             {vec_x}, VEC_Y = {vec_y}, THREADS = {PLANES_THREADS};\n}};",
            size[1], size[2], stride[1], stride[2], dilation[1], dilation[2], pad_lo[1], pad_lo[2]
        );
        let mut args = Args::default();
        args.pointer(&format!("const {dtype}"), "x", input(0));
        args.pointer(&format!("const {dtype}"), "w", input(1));
        self.epilogue.declare(&mut args);
        args.int("batch", &geometry.batch);
        args.int("channels", &geometry.channels);
        args.int("multiplier", &geometry.group_filters());
        for (name, extent) in [
            ("in_h", &geometry.input[1]),
            ("in_w", &geometry.input[2]),
            ("out_h", &geometry.output[1]),
            ("out_w", &geometry.output[2]),
        ] {
            args.int(name, extent);
        }
        let entry = Entry {
            title: format!("Depthwise convolution {}: {rows} x {columns} outputs a thread.", geometry.title()),
            headers: &self.epilogue.headers("families/depthwise/kernel.cuh"),
            declarations: vec![policy, self.epilogue.text.clone()],
            threads: PLANES_THREADS,
            call: format!(
                "depthwise::planes<Policy, Epi>({{x, w, batch, channels, multiplier, in_h, in_w, out_h, out_w}}, {})",
                self.epilogue.init()
            ),
        };
        Launch {
            source: entry::source(format!("depthwise_planes{}", self.epilogue.stem), &entry, &args),
            grid: [
                self.threads(patch).ceil_div(&Expr::from(i64::from(PLANES_THREADS))),
                Expr::from(1i64),
                Expr::from(1i64),
            ],
            block: [PLANES_THREADS, 1, 1],
            shared: 0,
            params: args.params,
        }
    }

    /// Microseconds: a thread's rows of loads one after the other, the multiply-adds, or the bandwidth.
    fn planes_time(&self, patch: &Patch, held: u32) -> f64 {
        let geometry = &self.geometry;
        let limits = self.arch.limits();
        let Axes { size: [_, kh, _], stride: [_, sh, _], dilation: [_, dh, _], .. } = geometry.window;
        let threads = self.typical(&self.threads(patch)) as f64;
        let blocks = (threads / f64::from(PLANES_THREADS)).ceil() as i64;
        let resident = cost::resident(limits, PLANES_THREADS, held + 40, 0);
        let waves = (blocks as f64 / (f64::from(limits.sms) * resident as f64)).ceil().max(1.0);
        let in_rows = f64::from((patch.rows - 1) * sh + (kh - 1) * dh + 1);
        let outputs = f64::from(patch.rows * patch.columns);
        let taps = geometry.taps() as f64;
        let reads = self.epilogue.full_reads() as f64 * outputs;
        let stores = outputs / f64::from(patch.vec_y);
        let accesses = in_rows * f64::from(self.span(patch) / patch.vec_x) + taps + stores + reads;
        // Clocks of a warp's access, and the share of the multiply-adds' rate, as measured.
        const ACCESS: f64 = 4.0;
        const RATE: f64 = 0.5;
        let warps = threads / 32.0 / f64::from(limits.sms);
        let busy = warps * (accesses * ACCESS + outputs * taps * 32.0 / (limits.fma_f32 * RATE));
        let latency = waves * (500.0 + in_rows * 60.0 + outputs * taps * 4.0 + (stores + reads) * 30.0);
        let clocks = 1000.0 + latency.max(busy);
        let size = f64::from(tile::bytes(geometry.types[0]));
        let read = geometry.batch.clone() * geometry.channels.clone() * geometry.input_pixels();
        let written = self.typical(&geometry.outputs()) as f64 * f64::from(tile::bytes(self.epilogue.out));
        let bytes = self.typical(&read) as f64 * size + written * (1.0 + self.epilogue.full_reads() as f64);
        cost::LAUNCH + cost::overlapped(clocks / (limits.clock * 1e3), bytes / (limits.bandwidth * 0.75) * 1e6)
    }

    fn offer_direct(&self, answer: &mut Answer) {
        const THREADS: u32 = 256;
        let geometry = &self.geometry;
        let [x, w] = geometry.types.map(print::memory_type);
        let mut args = Args::default();
        args.pointer(&format!("const {x}"), "x", input(0));
        args.pointer(&format!("const {w}"), "w", input(1));
        self.epilogue.declare(&mut args);
        let extents = geometry.declare(&mut args);
        let Axes { size, stride, dilation, .. } = &geometry.window;
        let acc = print::memory_type(self.epilogue.acc);
        let entry = Entry {
            title: format!("Convolution {}: an output a thread.", geometry.title()),
            headers: &self.epilogue.headers("families/depthwise/kernel.cuh"),
            declarations: vec![self.epilogue.text.clone()],
            threads: THREADS,
            call: format!(
                "depthwise::direct<{x}, {w}, {acc}, Epi>({{x, w, {extents},\n      /*window*/ {{{}}}, /*stride*/ \
                 {{{}}}, /*dilation*/ {{{}}}}}, {})",
                list(size),
                list(stride),
                list(dilation),
                self.epilogue.init()
            ),
        };
        let outputs = geometry.outputs();
        let launch = Launch {
            source: entry::source(format!("conv_direct{}", self.epilogue.stem), &entry, &args),
            grid: [outputs.ceil_div(&Expr::from(i64::from(THREADS))), Expr::from(1i64), Expr::from(1i64)],
            block: [THREADS, 1, 1],
            shared: 0,
            params: args.params,
        };
        let cost = cost::direct(self.arch.limits(), self.typical(&outputs), self.typical(&geometry.k()));
        answer.offer("depthwise_direct".to_owned(), vec![launch], cost);
    }
}
