//! Biases that are quantized with the scale of the sums they are added to.
//!
//! Does: `dequantize(x; s, z) + dequantize(b; s) -> dequantize(x; s, z - b)`: a bias in `i32`, which quantizers give the scale
//! `scale_a * scale_w`, joins the corrections of the zero points, and is one operand with them. Needs: products on the
//! integers, and one step a node. Keeps: types; what was rounded twice is rounded once. Not here: biases of another scale,
//! which are numbers.

use lapidary_runtime::DType;
use lapidary_runtime::op::{Arg, ScalarOp};
use lapidary_templates::Program;

use super::linear::{dequantized, elements, is_byte};
use super::product::terms;
use crate::ir::builder::ProgramWriter;
use crate::ir::{Expr, Graph, NodeId, Op, Patch, Ref, ValueId};
use crate::passes::fuse::{is_derived, only_user};
use crate::passes::matching::{Operand, either_way, result};

/// `(x - z) * s + b * s -> (x - (z - b)) * s`, where `x`, `z` and `b` are of `i32`, and `z` and `b` follow from constants
pub fn rewrite(graph: &Graph, id: NodeId) -> Option<Patch> {
    let y = result(graph, id)?;
    either_way(graph, y, ScalarOp::Add).find_map(|(sums, bias)| joined(graph, id, y, sums.value()?, bias.value()?))
}

fn joined(graph: &Graph, id: NodeId, y: ValueId, numbers: ValueId, bias: ValueId) -> Option<Patch> {
    let sums = dequantized(graph, numbers)?;
    let (shape, stored) = (&graph.ty(bias).dims, through_reshape(graph, bias));
    let b = dequantized(graph, stored)?;
    let ints = [sums.x, b.x].iter().all(|x| graph.ty(*x).dtype == DType::I32);
    let floats = [numbers, stored, y].iter().all(|value| graph.ty(*value).dtype == DType::F32);
    let offset = match sums.zero {
        Some(Operand::Value(zero)) => Some(zero).filter(|zero| is_derived(graph, *zero)),
        Some(Operand::Scalar(_)) => return None,
        None => None,
    };
    let at_load = is_derived(graph, b.x) && offset.is_some() == sums.zero.is_some() && !is_derived(graph, sums.x);
    let alone = only_user(graph, numbers) == Some(id) && graph.ty(numbers).dims == graph.ty(y).dims;
    let one_scale = same_scale(graph, sums.scale, b.scale) && same_places(graph, sums.scale, b.scale, shape);
    if !ints || !floats || !at_load || !alone || b.zero.is_some() || !one_scale || !fits(graph, sums.x, b.x) {
        return None;
    }
    let mut patch = Patch::new(&[graph.producer(numbers)?, id]);
    let b = patch.node(Op::Reshape(shape.clone()), [b.x.into()]);
    let scale = sums.scale.value();
    let mut operands: Vec<Ref> = vec![sums.x.into()];
    let step = match offset {
        Some(offset) => {
            let program = Program::single(ScalarOp::Sub, DType::I32, &[DType::I32; 2]);
            operands.push(patch.node(Op::Pointwise(program), [offset.into(), b]));
            ScalarOp::Sub
        }
        None => {
            operands.push(b);
            ScalarOp::Add
        }
    };
    operands.extend(scale.map(Ref::from));
    let mut p = ProgramWriter::new([DType::I32, DType::I32, DType::F32][..operands.len()].to_vec());
    let sum = p.push(step, &[Arg::Input(0), Arg::Input(1)]);
    let number = p.cast(sum, DType::F32);
    let scale = match sums.scale {
        Operand::Value(_) => Arg::Input(2),
        Operand::Scalar(scale) => Arg::Imm(scale),
    };
    let scaled = p.push(ScalarOp::Mul, &[number, scale]);
    let numbers = patch.node(Op::Pointwise(Program { outputs: vec![scaled], ..p.finish() }), operands);
    Some(patch.replace(y, numbers))
}

fn through_reshape(graph: &Graph, value: ValueId) -> ValueId {
    let node = graph.producer(value).map(|id| graph.node(id));
    match node.map(|node| (&node.op, &node.inputs[..])) {
        Some((Op::Reshape(_), &[Some(x)])) => x,
        _ => value,
    }
}

/// Whether the sums of bytes that `sums` are and the elements of `bias`, which must be known, add up to an `i32`.
fn fits(graph: &Graph, sums: ValueId, bias: ValueId) -> bool {
    let product = graph.producer(sums).filter(|id| {
        let node = graph.node(*id);
        let bytes = |value: &ValueId| is_byte(graph.ty(*value).dtype);
        matches!(node.op, Op::MatMul(_, None) | Op::Conv(_, None)) && node.inputs.iter().flatten().all(bytes)
    });
    let (Some(product), Some(bias)) = (product, elements(graph, Operand::Value(bias))) else { return false };
    let most = graph.range(&terms(graph, product)).1.saturating_mul(DIFFERENCE * DIFFERENCE);
    let added = bias.iter().fold(0, |most: i64, b| most.max(b.abs() as i64));
    most.saturating_add(added) <= i64::from(i32::MAX)
}

/// The largest difference of a byte and a zero point.
const DIFFERENCE: i64 = 255;

/// Whether the scales of sums and of a bias, where both have several elements, have them along the same axis: that of the
/// bias, as which it is seen under `shape`.
fn same_places(graph: &Graph, sums: Operand, bias: Operand, shape: &[Expr]) -> bool {
    let several = |scale: Operand| scale.value().filter(|value| !graph.ty(*value).count().is(1));
    let (Some(sums), Some(bias)) = (several(sums), several(bias)) else { return true };
    let trimmed = |dims: &[Expr]| dims.iter().skip_while(|dim| dim.is(1)).cloned().collect::<Vec<Expr>>();
    let sums = trimmed(&graph.ty(sums).dims);
    sums == trimmed(shape) && graph.ty(bias).count() == sums.iter().fold(Expr::constant(1), |n, dim| n * dim.clone())
}

/// Whether two scales are known to be the same for each channel; one of them may be one number for all.
fn same_scale(graph: &Graph, a: Operand, b: Operand) -> bool {
    let (Some(a), Some(b)) = (elements(graph, a), elements(graph, b)) else { return false };
    let count = a.len().max(b.len());
    let at = |of: &[f64], k: usize| if of.len() == 1 { of[0] } else { of[k] };
    (a.len() == count || a.len() == 1)
        && (b.len() == count || b.len() == 1)
        && (0..count).all(|k| at(&a, k) == at(&b, k))
}
