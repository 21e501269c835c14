//! Problems whose operands are parts of larger tensors: how the harness gives them those, and takes the results out.
//!
//! Contract: a lowered graph has whole operands; [`seen_through`] makes its one problem that of parts, and of each such
//! input and result a tensor of one axis that holds it. [`spread`] and [`gathered`] go between the two. Extents, offsets
//! and strides are constants.

use lapidary::ir::Expr;
use lapidary::ir::eval::Tensor;
use lapidary::lower::{Alternatives, Program, Step, TensorId};
use lapidary_templates::{Arch, Kind, Operand, Problem, Shapes, Strided, families};

/// Where input `k` of a problem lies, if in a larger tensor.
fn of_input(problem: &Problem, k: usize) -> Option<&Strided> {
    let place = match &problem.kind {
        Kind::Attention(_, places) => places[..3].get(k)?,
        Kind::Elementwise(_, readings) => &readings.get(k)?.place,
        _ => return None,
    };
    (*place != Strided::contiguous(&problem.inputs[k].as_ref()?.dims)).then_some(place)
}

/// Where result `k` lies, if in a larger tensor.
fn of_output(problem: &Problem, k: usize) -> Option<&Strided> {
    let Kind::Attention(_, places) = &problem.kind else { return None };
    let place = places[3..].get(k)?;
    (*place != Strided::contiguous(&problem.outputs[k].as_ref()?.dims)).then_some(place)
}

fn constant(expr: &Expr) -> usize {
    expr.as_const().and_then(|value| usize::try_from(value).ok()).expect("places are constants")
}

/// The position in the larger tensor of each element, in the operand's order.
fn positions(dims: &[usize], place: &Strided) -> Vec<usize> {
    let strides: Vec<usize> = place.strides.iter().map(constant).collect();
    let position = |mut element: usize| {
        let mut at = constant(&place.offset);
        for (dim, stride) in dims.iter().zip(&strides).rev() {
            at += element % dim * stride;
            element /= dim;
        }
        at
    };
    (0..dims.iter().product()).map(position).collect()
}

fn extents(operand: &Operand) -> Vec<usize> {
    operand.dims.iter().map(constant).collect()
}

/// The elements of the larger tensor up to the operand's last.
fn span(operand: &Operand, place: &Strided) -> usize {
    positions(&extents(operand), place).into_iter().max().map_or(0, |last| last + 1)
}

/// Input `k` as the problem's kernels read it: the larger tensor, NaN where it is not the operand.
pub fn spread(problem: &Problem, k: usize, whole: Tensor) -> Tensor {
    let (Some(place), Some(operand)) = (of_input(problem, k), problem.inputs.get(k).and_then(Option::as_ref)) else {
        return whole;
    };
    let size = whole.dtype.bits() / 8;
    let count = span(operand, place);
    let mut bytes = vec![0xff; count * size];
    for (element, at) in whole.bytes.chunks_exact(size).zip(positions(&whole.dims, place)) {
        bytes[at * size..][..size].copy_from_slice(element);
    }
    Tensor::new(whole.dtype, vec![count], bytes).expect("as many bytes as the type asks for")
}

/// Result `k` from what the problem's kernels wrote.
pub fn gathered(problem: &Problem, k: usize, written: Tensor) -> Tensor {
    let (Some(place), Some(operand)) = (of_output(problem, k), problem.outputs.get(k).and_then(Option::as_ref)) else {
        return written;
    };
    let size = written.dtype.bits() / 8;
    let dims = extents(operand);
    let bytes = positions(&dims, place).into_iter().flat_map(|at| written.bytes[at * size..][..size].to_vec());
    Tensor::new(written.dtype, dims.clone(), bytes.collect::<Vec<u8>>()).expect("as many bytes as the type asks for")
}

/// The program of the problem's graph, made one of the problem itself.
pub fn seen_through(problem: &Problem, mut program: Program, arch: Arch) -> Program {
    let inputs = (0..problem.inputs.len()).filter_map(|k| Some((k, of_input(problem, k)?)));
    let outputs = (0..problem.outputs.len()).filter_map(|k| Some((k, of_output(problem, k)?)));
    let (inputs, outputs): (Vec<_>, Vec<_>) = (inputs.collect(), outputs.collect());
    if inputs.is_empty() && outputs.is_empty() {
        return program;
    }
    let mut larger: Vec<(TensorId, usize)> = Vec::new();
    for step in program.segments.iter_mut().flatten() {
        let Step::Work(work) = step else { continue };
        let tensor = |ids: &[Option<TensorId>], k: usize| ids[k].expect("the operand is there");
        let (reads, writes) = (&problem.inputs, &problem.outputs);
        let span = |operand: &Option<Operand>, place| span(operand.as_ref().expect("the operand is there"), place);
        larger.extend(inputs.iter().map(|&(k, place)| (tensor(&work.inputs, k), span(&reads[k], place))));
        larger.extend(outputs.iter().map(|&(k, place)| (tensor(&work.outputs, k), span(&writes[k], place))));
        let value = |expr: &Expr| expr.as_const().expect("places are constants");
        let range = |expr: &Expr| (value(expr), value(expr));
        let answer = families::answer(problem, arch, &Shapes { range: &range, typical: &value });
        work.problem = problem.clone();
        work.alternatives = Alternatives::Cuda { candidates: answer.candidates, refusals: answer.refusals };
    }
    for (id, count) in larger {
        let tensor = &mut program.tensors[id.0 as usize];
        tensor.ty.dims = vec![Expr::from(count)];
        program.buffers[tensor.buffer.0 as usize].bytes = Expr::from(tensor.ty.dtype.bytes(count));
    }
    program
}
