//! The halves of squeeze-and-excitation: a reduction of planes with the product behind it, and a product with the pointwise
//! program that spreads it over planes.
//!
//! Both answer pairs of problems. What a pair costs by itself is for `lower` to compare.

use lapidary_runtime::DType;
use lapidary_runtime::op::{Conv, Reduce, ReduceKind};

use crate::arch::Arch;
use crate::candidate::{Answer, Candidate, Launch, Shapes};
use crate::cost::{self, Clocks};
use crate::entry::{self, Args, Entry, input};
use crate::epilogue::Epilogue;
use crate::extent::Expr;
use crate::predict::Work;
use crate::print;
use crate::problem::{Kind, Operand, Pair, Problem};
use crate::program::Program;
use crate::split::{Split, Tiles};
use crate::tile;
use crate::view::product;

const FAMILY: &str = "squeeze";
/// The largest extent of a grid along y and z.
const GRID_YZ: i64 = 65535;
/// Microseconds of a round of loads from L2 that nothing hides.
const ROUND: f64 = 0.35;

/// Implementations of the pairs.
pub fn answer(problem: &Problem, arch: Arch, shapes: &Shapes<'_>) -> Answer {
    let Kind::Pair(pair) = &problem.kind else { return Answer::default() };
    let Pair { first, second, at } = &**pair;
    let job = Job { problem, arch, shapes };
    match (&first.kind, &second.kind) {
        (Kind::Reduce(reduce), Kind::Conv(conv, program)) if *at == 0 => {
            Answer::or_refusal(FAMILY, job.squeeze(pair, *reduce, conv, program.as_ref()))
        }
        (Kind::Conv(conv, inner), Kind::Pointwise(outer)) => {
            Answer::or_refusal(FAMILY, job.excite(pair, conv, inner.as_ref(), outer))
        }
        _ => Answer::default(),
    }
}

struct Job<'a> {
    problem: &'a Problem,
    arch: Arch,
    shapes: &'a Shapes<'a>,
}

impl Job<'_> {
    /// Planes to numbers, and those through a product.
    fn squeeze(&self, pair: &Pair, reduce: Reduce, conv: &Conv, program: Option<&Program>) -> Result<Answer, String> {
        const THREADS: u32 = 512;
        const MOST_PARTS: i64 = 32;
        const MOST_HELD: u32 = 4;
        // Channels of a block.
        const EACH: [i64; 6] = [4, 8, 16, 32, 64, 128];
        let x = self.problem.input(0)?;
        let w = self.problem.input(1)?;
        let between = pair.first.output(0)?;
        check_product(between, w, conv)?;
        check_types([x, w, between])?;
        let spatial = (2..x.dims.len()).collect::<Vec<usize>>();
        let mean = match reduce.kind {
            ReduceKind::Mean => true,
            ReduceKind::Sum => false,
            ReduceKind::Max
            | ReduceKind::Min
            | ReduceKind::Prod
            | ReduceKind::L1
            | ReduceKind::L2
            | ReduceKind::SumSquare
            | ReduceKind::LogSum
            | ReduceKind::LogSumExp => return Err("it reduces by sums and means".to_owned()),
        };
        if spatial.is_empty() || reduce.axes.iter().collect::<Vec<usize>>() != spatial {
            return Err("it reduces the spatial axes, all of them".to_owned());
        }
        let epilogue = Epilogue::of(&pair.second, program, 1, DType::F32)?;
        let (images, channels, plane) = (x.dims[0].clone(), x.dims[1].clone(), product(&x.dims[2..]));
        let outputs = w.dims[0].clone();
        let held = self.shapes.max(&outputs).max(1).unsigned_abs().div_ceil(u64::from(THREADS));
        let held = u32::try_from(held).ok().filter(|held| *held <= MOST_HELD);
        let held = held.ok_or_else(|| format!("a block holds {} outputs", MOST_HELD * THREADS))?;
        let (Some(outputs_each), Some(count)) = (outputs.as_const(), channels.as_const()) else {
            return Err("its channels are constants".to_owned());
        };
        let parts = |each: &i64| (count + each - 1) / each;
        let each = EACH.into_iter().find(|each| parts(each) <= MOST_PARTS);
        let each = each.ok_or_else(|| format!("there are {count} channels, too many for {MOST_PARTS} blocks"))?;
        let parts = parts(&each);
        self.check(&[&channels, &plane], &images)?;
        let vec_x = tile::vector(self.shapes, x.dtype, &[&plane], 8);
        let vec_w = tile::vector(self.shapes, w.dtype, &[&channels, &Expr::from(each)], 8);
        let tiles = Tiles { count: images.clone(), sums: held * THREADS, threads: THREADS };
        let split = Split::of(parts, Expr::from(each), tiles);
        let dtype = print::memory_type(x.dtype);
        let policy = format!(
            "struct Policy {{\n  using T = {dtype};\n  static constexpr int THREADS = {THREADS}, CHANNELS = {each}, HELD \
             = {held}, VEC_X = {vec_x}, VEC_W = {vec_w};\n  static constexpr bool MEAN = {mean};\n}};"
        );
        let mut args = Args::default();
        args.pointer(&format!("const {dtype}"), "x", input(0));
        args.pointer(&format!("const {dtype}"), "w", input(1));
        epilogue.declare(&mut args);
        let join = split.declare(epilogue.acc, &mut args);
        for (name, extent) in [("channels", &channels), ("outputs", &outputs), ("plane", &plane)] {
            args.int(name, extent);
        }
        let entry = Entry {
            title: format!("The {} of each plane, and a product of them.", if mean { "mean" } else { "sum" }),
            headers: &epilogue.headers("families/squeeze/kernel.cuh"),
            declarations: vec![policy, epilogue.text.clone()],
            threads: THREADS,
            call: format!(
                "squeeze::squeeze<Policy, Epi>({{x, w, channels, outputs, plane}}, {}{join})",
                epilogue.init()
            ),
        };
        let launch = Launch {
            source: entry::source(format!("squeeze{}", epilogue.stem), &entry, &args),
            grid: [Expr::from(1i64), images.clone(), Expr::from(parts)],
            block: [THREADS, 1, 1],
            shared: 0,
            params: args.params,
        };
        let typical = |expr: &Expr| (self.shapes.typical)(expr).max(1) as f64;
        let blocks = typical(&images) * parts as f64;
        let size = f64::from(tile::bytes(x.dtype));
        let planes = each as f64 / f64::from(THREADS / 32);
        let loads = (typical(&plane) / f64::from(32 * 4 * vec_x)).ceil();
        let read = typical(&plane) * typical(&images) * count as f64 * size;
        let weights = outputs_each as f64 * count as f64 * size * typical(&images);
        let work = Work {
            bytes: read + weights,
            blocks,
            threads: f64::from(THREADS),
            in_flight: (read + weights) / blocks,
            instructions: (read + weights) / size * 2.0,
        };
        let cost = work.microseconds(self.arch)
            + ROUND * (planes.ceil() * loads + f64::from(held))
            + cost::put(f64::from(held * THREADS * 4)).latency / (self.arch.limits().clock * 1e3)
            + split.join_time(self.arch.limits(), Clocks::default(), epilogue.acc);
        let workspace = split.workspace(epilogue.acc).into_iter().collect();
        let key = format!("squeeze/c{each}h{held}");
        Ok(Answer { candidates: vec![Candidate { key, launches: vec![launch], workspace, cost }], ..Answer::default() })
    }

    /// A product to numbers, and those over planes.
    fn excite(&self, pair: &Pair, conv: &Conv, inner: Option<&Program>, outer: &Program) -> Result<Answer, String> {
        const THREADS: u32 = 256;
        const WARPS: u32 = THREADS / 32;
        let h = self.problem.input(0)?;
        let w = self.problem.input(1)?;
        let y = self.problem.output(0)?;
        let scale = pair.first.output(0)?;
        check_product(h, w, conv)?;
        check_types([h, w, scale])?;
        if self.problem.outputs.len() != 1 || outer.outputs.len() != 1 {
            return Err("it has one result".to_owned());
        }
        let is_spread = y.dims.len() == scale.dims.len() && y.dims[..2] == scale.dims[..2];
        if !is_spread {
            return Err("the product is a number for each channel of the result".to_owned());
        }
        // What the convolution's epilogue reads has the shape of the product, in which a number of an output is one of a
        // channel and an image.
        let per_channel = |operand: &Operand| operand.dims.iter().rev().skip(scale.dims.len() - 1).all(|dim| dim.is(1));
        if !pair.first.inputs.iter().skip(2).flatten().all(per_channel) {
            return Err("the convolution's epilogue reads more than a number a channel".to_owned());
        }
        let program = composed(inner.unwrap_or(&Program::identity(scale.dtype)), outer, pair.at)?;
        let epilogue = Epilogue::of(self.problem, Some(&program), 1, DType::F32)?;
        let (images, channels, plane) = (y.dims[0].clone(), y.dims[1].clone(), product(&y.dims[2..]));
        let inputs = h.dims[1].clone();
        self.check(&[&inputs, &channels, &plane], &images)?;
        let vec_w = tile::vector(self.shapes, w.dtype, &[&inputs], 8);
        let vec_y = tile::vector(self.shapes, y.dtype, &[&plane], 4);
        let dtype = print::memory_type(h.dtype);
        let policy = format!(
            "struct Policy {{\n  using T = {dtype};\n  static constexpr int THREADS = {THREADS}, VEC_W = {vec_w}, VEC_Y = \
             {vec_y};\n}};"
        );
        let mut args = Args::default();
        args.pointer(&format!("const {dtype}"), "h", input(0));
        args.pointer(&format!("const {dtype}"), "w", input(1));
        epilogue.declare(&mut args);
        for (name, extent) in [("inputs", &inputs), ("channels", &channels), ("plane", &plane)] {
            args.int(name, extent);
        }
        let entry = Entry {
            title: "A product of one pixel, and what is done with it over a plane a channel.".to_owned(),
            headers: &epilogue.headers("families/squeeze/kernel.cuh"),
            declarations: vec![policy, epilogue.text.clone()],
            threads: THREADS,
            call: format!("squeeze::excite<Policy, Epi>({{h, w, inputs, channels, plane}}, {})", epilogue.init()),
        };
        let blocks = channels.ceil_div(&Expr::from(i64::from(WARPS)));
        let launch = Launch {
            source: entry::source(format!("excite{}", epilogue.stem), &entry, &args),
            grid: [blocks.clone(), images.clone(), Expr::from(1i64)],
            block: [THREADS, 1, 1],
            shared: 0,
            params: args.params,
        };
        let typical = |expr: &Expr| (self.shapes.typical)(expr).max(1) as f64;
        let elements = typical(&y.count());
        let size = f64::from(tile::bytes(y.dtype));
        let weights = typical(&w.count()) * typical(&images);
        let bytes = elements * size * (1 + epilogue.full_reads()) as f64 + weights * size;
        let blocks = typical(&(blocks * images));
        let work = Work {
            bytes,
            blocks,
            threads: f64::from(THREADS),
            in_flight: bytes / blocks,
            instructions: elements * (8 + program.steps.len()) as f64 + weights * 2.0,
        };
        let rounds = (typical(&inputs) / f64::from(32 * 2 * vec_w)).ceil()
            + (typical(&plane) / f64::from(32 * 2 * vec_y)).ceil();
        let mut answer = Answer::default();
        answer.offer(format!("excite/w{vec_w}y{vec_y}"), vec![launch], work.microseconds(self.arch) + ROUND * rounds);
        Ok(answer)
    }

    /// Whether kernels count these extents by 32 bits, and a grid's y the images.
    fn check(&self, extents: &[&Expr], images: &Expr) -> Result<(), String> {
        for extent in extents {
            if self.shapes.max(extent) > i64::from(i32::MAX) {
                return Err(format!("{extent} may be {}, and kernels index it by 32 bits", self.shapes.max(extent)));
            }
        }
        match self.shapes.max(images) {
            0..=GRID_YZ => Ok(()),
            most => Err(format!("there may be {most} images, and a grid has at most {GRID_YZ} along y")),
        }
    }
}

/// The product's program and what follows it, as one program on the product, the first one's operands, the second one's.
fn composed(inner: &Program, outer: &Program, at: usize) -> Result<Program, String> {
    let at = u16::try_from(at).map_err(|_| "it has too many operands".to_owned())?;
    let joined = outer.inline(at, inner, 0);
    let (own, others) = (inner.inputs.len() as u16, outer.inputs.len() as u16 - 1);
    let to: Vec<u16> = (0..others).map(|k| own + k).chain(0..own).collect();
    Ok(joined.renumber_inputs(&to, usize::from(own + others)))
}

/// Whether a convolution is a product of matrices of one pixel.
fn check_product(x: &Operand, w: &Operand, conv: &Conv) -> Result<(), String> {
    let one_pixel = |operand: &Operand| operand.dims.len() > 2 && operand.dims[2..].iter().all(|dim| dim.is(1));
    let window = &conv.window;
    let plain = window.pad_lo.iter().chain(&window.pad_hi).all(|pad| *pad == 0) && conv.groups == 1;
    if one_pixel(x) && one_pixel(w) && plain { Ok(()) } else { Err("it multiplies one pixel's channels".to_owned()) }
}

fn check_types(operands: [&Operand; 3]) -> Result<(), String> {
    let first = operands[0].dtype;
    let sums = matches!(first, DType::F32 | DType::F16 | DType::BF16);
    if sums && operands.iter().all(|operand| operand.dtype == first) {
        return Ok(());
    }
    let types: Vec<&str> = operands.iter().map(|operand| operand.dtype.name()).collect();
    Err(format!("its operands are of one type, f32, f16 or bf16, and these are {}", types.join(", ")))
}

#[cfg(test)]
mod tests {
    use lapidary_runtime::op::{Arg, Instr, ScalarOp};

    use super::*;

    #[test]
    fn programs_read_the_product_first() {
        let step = |op, a, b| Instr::binary(op, DType::F16, a, b);
        let inner = Program {
            inputs: vec![DType::F16; 2],
            steps: vec![step(ScalarOp::Add, Arg::Input(0), Arg::Input(1))],
            outputs: vec![Arg::Step(0)],
        };
        let outer = Program {
            inputs: vec![DType::F16; 2],
            steps: vec![step(ScalarOp::Sub, Arg::Input(0), Arg::Input(1))],
            outputs: vec![Arg::Step(0)],
        };
        for (at, expected) in [
            (0, step(ScalarOp::Sub, Arg::Step(0), Arg::Input(2))),
            (1, step(ScalarOp::Sub, Arg::Input(2), Arg::Step(0))),
        ] {
            let program = composed(&inner, &outer, at).unwrap();
            assert_eq!(program.inputs.len(), 3);
            assert_eq!(program.steps, [inner.steps[0], expected]);
        }
    }
}
