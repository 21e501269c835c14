//! ScatterElements and ScatterND, without atomics.
//!
//! The ordered kernels serve every problem. The others need each target once, which ONNX promises of a scatter without
//! a reduction.

use lapidary_runtime::op::ScatterMode;

use crate::arch::Arch;
use crate::call::{As, Call, Place};
use crate::candidate::{Answer, Shapes};
use crate::extent::Expr;
use crate::families::copy::{element, flat};
use crate::families::gather::check_indices;
use crate::predict::Work;
use crate::print;
use crate::problem::{Kind, Operand, Problem};
use crate::view::product;

const FAMILY: &str = "scatter";
const THREADS: u32 = 256;

/// Implementations of scatters.
pub fn answer(problem: &Problem, arch: Arch, shapes: &Shapes<'_>) -> Answer {
    let answer = if let Kind::ScatterElements { axis, mode } = problem.kind {
        Scatter::elements(problem, usize::from(axis), mode).and_then(|scatter| scatter.candidates(arch, shapes))
    } else if let Kind::ScatterNd { mode } = problem.kind {
        Scatter::nd(problem, mode).and_then(|scatter| scatter.candidates(arch, shapes))
    } else {
        Ok(Answer::default())
    };
    Answer::or_refusal(FAMILY, answer)
}

/// A scatter of either form.
struct Scatter<'p> {
    form: Form,
    mode: ScatterMode,
    x: &'p Operand,
    indices: &'p Operand,
    updates: &'p Operand,
}

enum Form {
    Elements { axis: usize },
    Nd { depth: usize },
}

impl<'p> Scatter<'p> {
    fn new(problem: &'p Problem, mode: ScatterMode, form: Form) -> Result<Scatter<'p>, String> {
        let (x, indices, updates) = (problem.input(0)?, problem.input(1)?, problem.input(2)?);
        print::check_type(x.dtype)?;
        check_indices(indices)?;
        problem.output(0)?;
        Ok(Scatter { form, mode, x, indices, updates })
    }

    fn elements(problem: &'p Problem, axis: usize, mode: ScatterMode) -> Result<Scatter<'p>, String> {
        Scatter::new(problem, mode, Form::Elements { axis })
    }

    fn nd(problem: &'p Problem, mode: ScatterMode) -> Result<Scatter<'p>, String> {
        let points = &problem.input(1)?.dims;
        let depth = points.last().and_then(Expr::as_const).and_then(|depth| usize::try_from(depth).ok());
        let rank = problem.input(0)?.dims.len();
        let depth = depth.filter(|depth| (1..=rank).contains(depth));
        let depth = depth.ok_or("the number of axes that an index addresses is no constant within the rank")?;
        Scatter::new(problem, mode, Form::Nd { depth })
    }

    fn candidates(&self, arch: Arch, shapes: &Shapes<'_>) -> Result<Answer, String> {
        let typical = |expr: &Expr| (shapes.typical)(expr).max(0) as f64;
        let bytes = self.x.dtype.bits() as f64 / 8.0;
        let threads = Expr::constant(i64::from(THREADS));
        let name = self.name();
        let mut answer = Answer::default();

        let blocks = self.x.count().ceil_div(&threads);
        let elements = typical(&self.x.count());
        let tried = match self.form {
            Form::Elements { axis } => typical(&self.indices.dims[axis]),
            Form::Nd { .. } => typical(&self.count()),
        };
        let work = Work {
            bytes: elements * 2.0 * bytes + typical(&self.updates.count()) * bytes,
            blocks: typical(&blocks),
            threads: f64::from(THREADS),
            in_flight: f64::from(THREADS) * bytes,
            instructions: elements * (40.0 + tried * 12.0),
        };
        let launch = self.call("ordered").launch(&format!("scatter::{name}_ordered"), THREADS, blocks);
        answer.offer(format!("scatter_{name}/ordered"), vec![launch], work.microseconds(arch));

        if self.mode != ScatterMode::Set {
            answer.refuse(format!("scatter_{name}/unique"), "an element may be updated more than once");
            return Ok(answer);
        }
        let places = [Place::input(0), Place::output(0)];
        let (copy, copied) = flat("scatter_base", element(self.x)?, &self.x.count(), places, shapes);
        let blocks = self.updates.count().ceil_div(&threads);
        let work = Work {
            // Targets are written by the sector.
            bytes: typical(&self.updates.count()) * (bytes + 32.0),
            blocks: typical(&blocks),
            threads: f64::from(THREADS),
            in_flight: f64::from(THREADS) * 32.0,
            instructions: typical(&self.updates.count()) * 60.0,
        };
        let launch = self.call("unique").launch(&format!("scatter::{name}_unique"), THREADS, blocks);
        answer.offer(
            format!("scatter_{name}/unique"),
            vec![copy, launch],
            copied.microseconds(arch) + work.microseconds(arch),
        );
        Ok(answer)
    }

    fn name(&self) -> &'static str {
        match self.form {
            Form::Elements { .. } => "elements",
            Form::Nd { .. } => "nd",
        }
    }

    /// The slices that a ScatterND updates.
    fn count(&self) -> Expr {
        let points = &self.indices.dims;
        product(&points[..points.len().saturating_sub(1)])
    }

    fn call(&self, variant: &str) -> Call {
        let mode = match self.mode {
            ScatterMode::Set => "SET",
            ScatterMode::Add => "ADD",
            ScatterMode::Mul => "MUL",
            ScatterMode::Max => "MAX",
            ScatterMode::Min => "MIN",
        };
        let mut call = Call::new(
            FAMILY,
            format!("scatter_{}_{variant}_{}", self.name(), self.x.dtype),
            "Writes updates where an index tensor says",
        );
        call.using("T", print::type_name(self.x.dtype));
        call.using("Indices", self.indices.dtype.name());
        call.constant("scatter::Mode", &format!("MODE = scatter::Mode::{mode}"));
        call.ints(&[("THREADS", i64::from(THREADS))]);
        call.pointer("const void", "x", &if variant == "ordered" { Place::input(0) } else { Place::Absent });
        call.pointer("const void", "indices", &Place::input(1));
        call.pointer("const void", "updates", &Place::input(2));
        call.pointer("void", "y", &Place::output(0));
        match self.form {
            Form::Elements { axis } => {
                call.ints(&[("RANK", self.x.dims.len() as i64), ("AXIS", axis as i64)]);
                call.extents("d", &self.x.dims, As::Wide);
                call.extents("i", &self.indices.dims, As::Wide);
            }
            Form::Nd { depth } => {
                call.ints(&[("DEPTH", depth as i64)]);
                call.extent("count", &self.count(), As::Wide);
                call.extent("inner", &product(&self.x.dims[depth..]), As::Wide);
                call.extents("d", &self.x.dims[..depth], As::Wide);
            }
        }
        call
    }
}
