//! Losses of a classification (ONNX NegativeLogLikelihoodLoss, SoftmaxCrossEntropyLoss).
//!
//! `-weight[target] * x[target]` at each position, 0 where the target is the one to ignore; then the sum, the mean over
//! the weights, or neither. The class of each position is picked by comparing with all of them, so that an ignored
//! target may be any number.

use lapidary_runtime::DType;
use lapidary_runtime::op::{Arg, ReduceKind, Scalar, ScalarOp};

use super::entry::op;
use super::positions::positions;
use super::softmax::log_softmax;
use super::{Cx, Fault, Imported, OpDef, one};
use crate::ir::builder::ProgramWriter;
use crate::ir::{Expr, ValueId};

pub const DEFS: &[OpDef] = &[
    op("NegativeLogLikelihoodLoss", 12, (2, 3), |cx| {
        let x = cx.input(0)?;
        one(loss(cx, x)?)
    }),
    OpDef { outputs: (1, 2), ..op("SoftmaxCrossEntropyLoss", 12, (2, 3), cross_entropy) },
];

/// What becomes of the losses of all positions.
#[derive(Clone, Copy)]
enum Reduction {
    None,
    Sum,
    Mean,
}

fn cross_entropy(cx: &mut Cx<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    if cx.b.rank(x) < 2 {
        return Err(format!("the scores have rank {}, and at least 2 is needed", cx.b.rank(x)).into());
    }
    let logs = log_softmax(&mut cx.b, x, 1)?;
    Ok(vec![Some(loss(cx, logs)?), Some(logs)])
}

fn loss(cx: &mut Cx<'_, '_>, x: ValueId) -> Result<ValueId, Fault> {
    let (target, weight) = (cx.input(1)?, cx.optional(2));
    let reductions = [("none", Reduction::None), ("sum", Reduction::Sum), ("mean", Reduction::Mean)];
    let reduction = cx.attrs.choice_or("reduction", Reduction::Mean, &reductions)?;
    let ignored = cx.attrs.int_opt("ignore_index")?;
    let (dims, places) = (cx.b.dims(x), cx.b.dims(target));
    let rank = dims.len();
    if rank < 2 || places.len() + 1 != rank {
        return Err(format!("the scores have rank {rank}, and the targets {}", places.len()).into());
    }
    let classes = positions(&mut cx.b, dims[1].clone(), 1, rank)?;
    let mut with_classes = places.clone();
    with_classes.insert(1, Expr::constant(1));
    let target = cx.b.reshape(target, with_classes)?;
    let dtype = cx.b.dtype(x);
    let wide = if dtype == DType::F64 { DType::F64 } else { DType::F32 };
    let mut inputs = vec![x, target, classes];
    if let Some(weight) = weight {
        let given = cx.b.ty(weight).count();
        cx.b.require_equal(&given, &dims[1])?;
        inputs.push(cx.b.append_axes(weight, rank - 1)?);
    }
    let weighted = inputs.len() == 4;
    let losses = cx.b.program(&inputs, |p| {
        let x = p.cast(Arg::Input(0), wide);
        let mut loss = p.push(ScalarOp::Neg, &[x]);
        if weighted {
            let weight = p.cast(Arg::Input(3), wide);
            loss = p.push(ScalarOp::Mul, &[loss, weight]);
        }
        let hit = is_target(p, Arg::Input(1), Arg::Input(2), ignored);
        p.push(ScalarOp::Select, &[hit, loss, p.imm(loss, 0.0)])
    })?;
    let losses = cx.b.reduce(ReduceKind::Sum, losses, &[1])?;
    let all: Vec<usize> = (0..rank).collect();
    let result = match reduction {
        Reduction::None => cx.b.reshape(losses, places)?,
        Reduction::Sum => {
            let sum = cx.b.reduce(ReduceKind::Sum, losses, &all)?;
            cx.b.reshape(sum, Vec::new())?
        }
        Reduction::Mean => {
            let sum = cx.b.reduce(ReduceKind::Sum, losses, &all)?;
            let weights = cx.b.program(&inputs[1..], |p| {
                let hit = is_target(p, Arg::Input(0), Arg::Input(1), ignored);
                if weighted {
                    let weight = p.cast(Arg::Input(2), wide);
                    p.push(ScalarOp::Select, &[hit, weight, p.imm(weight, 0.0)])
                } else {
                    p.cast(hit, wide)
                }
            })?;
            let weights = cx.b.reduce(ReduceKind::Sum, weights, &all)?;
            let mean = cx.b.binary(ScalarOp::Div, sum, weights)?;
            cx.b.reshape(mean, Vec::new())?
        }
    };
    Ok(cx.b.cast(result, dtype)?)
}

/// Whether a class is the target, and no target to ignore.
fn is_target(p: &mut ProgramWriter, target: Arg, class: Arg, ignored: Option<i64>) -> Arg {
    let target = p.cast(target, DType::I64);
    let hit = p.push(ScalarOp::Equal, &[target, class]);
    let Some(ignored) = ignored else { return hit };
    let counts = p.push(ScalarOp::NotEqual, &[target, Arg::Imm(Scalar::int(DType::I64, ignored))]);
    p.push(ScalarOp::And, &[hit, counts])
}
