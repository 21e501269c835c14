//! Gather, GatherElements, GatherND. Data are raw elements; indices are `i32` or `i64`.

use lapidary_runtime::DType;

use crate::arch::Arch;
use crate::call::{As, Call, Place};
use crate::candidate::{Answer, Launch, Shapes};
use crate::extent::Expr;
use crate::families::copy::element;
use crate::families::reduce::{around, widest};
use crate::predict::Work;
use crate::problem::{Kind, Operand, Problem};
use crate::view::{Index, contiguous, product};

const FAMILY: &str = "gather";
const THREADS: u32 = 256;

/// Implementations of gathers.
pub fn answer(problem: &Problem, arch: Arch, shapes: &Shapes<'_>) -> Answer {
    let kernel = if let Kind::Gather { axis } = problem.kind {
        gather(problem, usize::from(axis), shapes)
    } else if let Kind::GatherElements { axis } = problem.kind {
        gather_elements(problem, usize::from(axis), shapes)
    } else if let Kind::GatherNd { batch_dims } = problem.kind {
        gather_nd(problem, usize::from(batch_dims), shapes)
    } else {
        return Answer::default();
    };
    let answer = kernel.map(|(key, launch, work)| {
        let mut answer = Answer::default();
        answer.offer(key, vec![launch], work.microseconds(arch));
        answer
    });
    Answer::or_refusal(FAMILY, answer)
}

type Kernel = (String, Launch, Work);

/// Data, indices, result and what their kernels have in common.
struct Operands<'p> {
    x: &'p Operand,
    indices: &'p Operand,
    y: &'p Operand,
    element: i64,
    index: Index,
}

impl<'p> Operands<'p> {
    fn of(problem: &'p Problem, shapes: &Shapes<'_>) -> Result<Operands<'p>, String> {
        let (x, indices, y) = (problem.input(0)?, problem.input(1)?, problem.output(0)?);
        check_indices(indices)?;
        let index = Index::of(&[x.count(), indices.count(), y.count()], shapes);
        Ok(Operands { x, indices, y, element: element(x)?, index })
    }

    fn call(&self, name: &str, vec: i64) -> Call {
        let mut call =
            Call::new(FAMILY, format!("{name}_b{}", self.element * 8), "Picks elements or slices by an index tensor");
        call.using("Index", self.index.name());
        call.using("Indices", self.indices.dtype.name());
        call.ints(&[("ELEMENT", self.element), ("VEC", vec), ("THREADS", i64::from(THREADS))]);
        call.pointer("const void", "x", &Place::input(0));
        call.pointer("const void", "indices", &Place::input(1));
        call.pointer("void", "y", &Place::output(0));
        call
    }

    fn launch(&self, call: Call, function: &str, vec: i64, inner: f64, shapes: &Shapes<'_>) -> (Launch, Work) {
        let typical = |expr: &Expr| (shapes.typical)(expr).max(0) as f64;
        let blocks = self.y.count().ceil_div(&Expr::constant(i64::from(THREADS) * vec));
        let elements = typical(&self.y.count());
        let element = self.element as f64;
        // A slice shorter than a sector brings the rest of it along.
        let read = element * (32.0 / (inner * element)).max(1.0);
        let work = Work {
            bytes: elements * (element + read)
                + typical(&self.indices.count()) * self.indices.dtype.bits() as f64 / 8.0,
            blocks: typical(&blocks),
            threads: f64::from(THREADS),
            // The indices come first.
            in_flight: f64::from(THREADS) * vec as f64 * read / 2.0,
            instructions: elements / vec as f64 * 60.0,
        };
        (call.launch(function, THREADS, blocks), work)
    }
}

/// Whether index tensors may have the operand's type.
///
/// # Errors
/// In words, that they may not.
pub fn check_indices(indices: &Operand) -> Result<(), String> {
    if matches!(indices.dtype, DType::I32 | DType::I64) {
        Ok(())
    } else {
        Err(format!("{} is no type of indices", indices.dtype))
    }
}

fn gather(problem: &Problem, axis: usize, shapes: &Shapes<'_>) -> Result<Kernel, String> {
    let operands = Operands::of(problem, shapes)?;
    let [outer, extent, inner] = around(&operands.x.dims, axis);
    let vec = widest(&inner, operands.element, shapes);
    let mut call = operands.call("gather", vec);
    call.extent("outer", &outer, As::Wide);
    call.extent("axis", &extent, As::Wide);
    call.extent("inner", &inner, As::Wide);
    call.extent("count", &operands.indices.count(), As::Wide);
    let inner = (shapes.typical)(&inner).max(1) as f64;
    let (launch, work) = operands.launch(call, "gather::run", vec, inner, shapes);
    Ok((format!("gather_slices/v{vec}"), launch, work))
}

fn gather_elements(problem: &Problem, axis: usize, shapes: &Shapes<'_>) -> Result<Kernel, String> {
    let operands = Operands::of(problem, shapes)?;
    let (dims, x_dims) = (&operands.y.dims, &operands.x.dims);
    let mut call = operands.call("gather_elements", 1);
    call.ints(&[("RANK", dims.len() as i64), ("AXIS", axis as i64)]);
    call.extents("d", dims, As::Index(operands.index));
    call.extents("xs", &contiguous(x_dims), As::Index(operands.index));
    call.extent("axis", &x_dims[axis], As::Wide);
    let behind = (shapes.typical)(&product(&dims[axis + 1..])).max(1) as f64;
    let (launch, work) = operands.launch(call, "gather::elements", 1, behind, shapes);
    Ok(("gather_elements/v1".to_owned(), launch, work))
}

fn gather_nd(problem: &Problem, batch: usize, shapes: &Shapes<'_>) -> Result<Kernel, String> {
    let operands = Operands::of(problem, shapes)?;
    let points = &operands.indices.dims;
    let depth = points.last().and_then(Expr::as_const).and_then(|depth| usize::try_from(depth).ok());
    let Some(depth) = depth.filter(|&depth| depth > 0) else {
        return Err("the number of axes that an index addresses is no positive constant".to_owned());
    };
    let (Some(addressed), Some(rest)) =
        (operands.x.dims.get(batch..batch + depth), operands.x.dims.get(batch + depth..))
    else {
        return Err(format!("an index addresses {depth} axes behind {batch} of {}", operands.x.dims.len()));
    };
    let inner = product(rest);
    let vec = widest(&inner, operands.element, shapes);
    let mut call = operands.call("gather_nd", vec);
    call.ints(&[("DEPTH", depth as i64)]);
    call.extent("batch", &product(&points[..batch]), As::Wide);
    call.extent("count", &product(&points[batch..points.len() - 1]), As::Wide);
    call.extent("inner", &inner, As::Wide);
    call.extents("d", addressed, As::Wide);
    let inner = (shapes.typical)(&inner).max(1) as f64;
    let (launch, work) = operands.launch(call, "gather::nd", vec, inner, shapes);
    Ok((format!("gather_nd/v{vec}"), launch, work))
}
