//! `squeeze::excite`: a product to a number a channel, and what a pointwise program does with it over planes.

use lapidary_runtime::DType;
use lapidary_runtime::op::Conv;

use super::{ROUND, check_extents, check_product, check_types};
use crate::arch::Arch;
use crate::candidate::{Candidate, Launch, Shapes};
use crate::entry::{self, Args, Entry, input};
use crate::epilogue::Epilogue;
use crate::extent::Expr;
use crate::predict::Work;
use crate::print;
use crate::problem::{Operand, Pair, Problem};
use crate::program::Program;
use crate::tile;
use crate::view::product;

const THREADS: u32 = 256;
const WARPS: u32 = THREADS / 32;

/// How the pair is done.
pub struct Excite {
    /// Of the whole: the product's own and the program behind it.
    epilogue: Epilogue,
    steps: usize,
    /// Of the factors and of the result.
    types: [DType; 2],
    images: Expr,
    inputs: Expr,
    channels: Expr,
    plane: Expr,
    /// Elements of a load of h and w, and of a store.
    vectors: [u32; 2],
}

impl Excite {
    /// # Errors
    /// In words, what the kernel cannot do.
    pub fn of(
        problem: &Problem,
        pair: &Pair,
        (conv, inner, outer): (&Conv, Option<&Program>, &Program),
        shapes: &Shapes<'_>,
    ) -> Result<Excite, String> {
        let (h, w, y) = (problem.input(0)?, problem.input(1)?, problem.output(0)?);
        let scale = pair.first.output(0)?;
        check_product(h, w, conv)?;
        check_types([h, w, scale])?;
        if problem.outputs.len() != 1 || outer.outputs.len() != 1 {
            return Err("it has one result".to_owned());
        }
        if y.dims.len() != scale.dims.len() || y.dims[..2] != scale.dims[..2] {
            return Err("the product is a number for each channel of the result".to_owned());
        }
        // An operand of the product's shape has a number for each channel and image, which no epilogue reads.
        let rank = scale.dims.len();
        let per_channel = |operand: &Operand| operand.dims.iter().rev().skip(rank - 1).all(|dim| dim.is(1));
        if !pair.first.inputs.iter().skip(2).flatten().all(per_channel) {
            return Err("the convolution's epilogue reads more than a number a channel".to_owned());
        }
        let program = outer.behind(inner.unwrap_or(&Program::identity(scale.dtype)), pair.at);
        let (images, channels, plane) = (y.dims[0].clone(), y.dims[1].clone(), product(&y.dims[2..]));
        let inputs = h.dims[1].clone();
        check_extents(&[&inputs, &channels, &plane], &images, shapes)?;
        Ok(Excite {
            epilogue: Epilogue::of(problem, Some(&program), 1, DType::F32)?,
            steps: program.steps.len(),
            types: [h.dtype, y.dtype],
            vectors: [tile::vector(shapes, w.dtype, &[&inputs], 8), tile::vector(shapes, y.dtype, &[&plane], 4)],
            images,
            inputs,
            channels,
            plane,
        })
    }

    pub fn candidate(&self, arch: Arch, shapes: &Shapes<'_>) -> Candidate {
        let [vec_w, vec_y] = self.vectors;
        Candidate {
            key: format!("excite/w{vec_w}y{vec_y}"),
            launches: vec![self.launch()],
            workspace: Vec::new(),
            cost: self.time(arch, shapes),
        }
    }

    /// Blocks along x: a warp has a channel.
    fn blocks(&self) -> Expr {
        self.channels.ceil_div(&Expr::from(i64::from(WARPS)))
    }

    fn launch(&self) -> Launch {
        let Excite { epilogue, vectors: [vec_w, vec_y], .. } = self;
        let dtype = print::memory_type(self.types[0]);
        let policy = format!(
            "struct Policy {{\n  using T = {dtype};\n  static constexpr int THREADS = {THREADS}, VEC_W = {vec_w}, VEC_Y = \
             {vec_y};\n}};"
        );
        let mut args = Args::default();
        args.pointer(&format!("const {dtype}"), "h", input(0));
        args.pointer(&format!("const {dtype}"), "w", input(1));
        epilogue.declare(&mut args);
        for (name, extent) in [("inputs", &self.inputs), ("channels", &self.channels), ("plane", &self.plane)] {
            args.int(name, extent);
        }
        let entry = Entry {
            title: "A product of one pixel, and what is done with it over a plane a channel.".to_owned(),
            headers: &epilogue.headers("families/squeeze/kernel.cuh"),
            declarations: vec![policy, epilogue.text.clone()],
            threads: THREADS,
            call: format!("squeeze::excite<Policy, Epi>({{h, w, inputs, channels, plane}}, {})", epilogue.init()),
        };
        Launch {
            source: entry::source(format!("excite{}", epilogue.stem), &entry, &args),
            grid: [self.blocks(), self.images.clone(), Expr::from(1i64)],
            block: [THREADS, 1, 1],
            shared: 0,
            params: args.params,
        }
    }

    /// Predicted microseconds: the traffic, and the rounds of loads of a warp.
    fn time(&self, arch: Arch, shapes: &Shapes<'_>) -> f64 {
        let typical = |expr: &Expr| (shapes.typical)(expr).max(1) as f64;
        let [of_factors, of_result] = self.types.map(|dtype| f64::from(tile::bytes(dtype)));
        let (images, inputs, plane) = (typical(&self.images), typical(&self.inputs), typical(&self.plane));
        let rows = typical(&self.channels) * images;
        let bytes = rows * (plane * of_result * (1 + self.epilogue.full_reads()) as f64 + inputs * of_factors);
        let blocks = typical(&self.blocks()) * images;
        let work = Work {
            bytes,
            blocks,
            threads: f64::from(THREADS),
            in_flight: bytes / blocks,
            instructions: rows * (plane * (8 + self.steps) as f64 + inputs * 2.0),
        };
        let rounds = |count: f64, vector: u32| (count / f64::from(32 * 2 * vector)).ceil();
        work.microseconds(arch) + ROUND * (rounds(inputs, self.vectors[0]) + rounds(plane, self.vectors[1]))
    }
}
