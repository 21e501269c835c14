//! Recurrent layers and made-up tensors.

use lapidary_runtime::DType;
use lapidary_runtime::op::{Cell, Direction, Recurrent};

use super::{
    Inference, Operands, check_dtype, check_rank, check_same_dtype, elements, is_arithmetic, is_arithmetic_float,
    tensor,
};
use crate::ir::{Expr, Type};

const RECURRENT: &[&str] = &["x", "w", "r", "b", "sequence_lens", "initial_h", "initial_c", "p"];

/// Results y, y_h, and of an LSTM y_c.
pub(super) fn recurrent(
    spec: &Recurrent,
    inputs: &[Option<&Type>],
    cx: &mut Inference<'_>,
) -> Result<Vec<Type>, String> {
    let operands = Operands::new(inputs, RECURRENT, 3)?;
    let x = operands.get(0)?;
    check_dtype("x", x, "a float type", is_arithmetic_float)?;
    check_rank("x", x, 3)?;
    if spec.hidden == 0 {
        return Err("the hidden size is 0".to_owned());
    }
    let (gates, is_lstm) = match spec.cell {
        Cell::Lstm => (4, true),
        Cell::Gru { .. } => (3, false),
        Cell::Rnn => (1, false),
    };
    let directions = match spec.direction {
        Direction::Forward | Direction::Reverse => 1,
        Direction::Bidirectional => 2,
    };
    let hidden = Expr::constant(i64::from(spec.hidden));
    let times = |n: i64| hidden.clone() * Expr::constant(n);
    let dirs = Expr::constant(directions);
    let (seq, batch, width) = (x.dims[0].clone(), x.dims[1].clone(), x.dims[2].clone());
    let state = vec![dirs.clone(), batch.clone(), hidden.clone()];
    let expected: [(DType, Vec<Expr>); 7] = [
        (x.dtype, vec![dirs.clone(), times(gates), width]),
        (x.dtype, vec![dirs.clone(), times(gates), hidden.clone()]),
        (x.dtype, vec![dirs.clone(), times(2 * gates)]),
        (DType::I32, vec![batch.clone()]),
        (x.dtype, state.clone()),
        (x.dtype, state.clone()),
        (x.dtype, vec![dirs.clone(), times(3)]),
    ];
    for (k, (dtype, dims)) in expected.iter().enumerate() {
        let name = RECURRENT[k + 1];
        let Some(ty) = operands.optional(k + 1) else { continue };
        if k >= 5 && !is_lstm {
            return Err(format!("{name} is given, and only an LSTM reads it"));
        }
        check_same_dtype(name, ty, *dtype)?;
        check_rank(name, ty, dims.len())?;
        for (axis, (dim, expected)) in ty.dims.iter().zip(dims).enumerate() {
            cx.agree(&format!("the extent of axis {axis} of {name} and what the layer needs"), dim, expected)?;
        }
    }
    let mut types = vec![tensor(x.dtype, vec![seq, dirs, batch, hidden]), tensor(x.dtype, state.clone())];
    if is_lstm {
        types.push(tensor(x.dtype, state));
    }
    Ok(types)
}

/// Operands start and delta.
pub(super) fn range(count: &Expr, inputs: &[Option<&Type>], cx: &mut Inference<'_>) -> Result<Vec<Type>, String> {
    let operands = Operands::new(inputs, &["start", "delta"], 2)?;
    let (start, delta) = (operands.get(0)?, operands.get(1)?);
    check_dtype("start", start, "a number type", is_arithmetic)?;
    check_same_dtype("delta", delta, start.dtype)?;
    for (name, ty) in [("start", start), ("delta", delta)] {
        cx.agree(&format!("the elements of {name} and 1"), &elements(ty)?, &Expr::constant(1))?;
    }
    cx.at_least("the number of elements", count, 0)?;
    Ok(vec![tensor(start.dtype, vec![count.clone()])])
}

pub(super) fn extents(values: &[Expr], rank: u8, inputs: &[Option<&Type>]) -> Result<Vec<Type>, String> {
    Operands::new(inputs, &[], 0)?;
    match (rank, values.len()) {
        (0, 1) => Ok(vec![tensor(DType::I64, Vec::new())]),
        (0, n) => Err(format!("a scalar holds one extent, and there are {n}")),
        (1, n) => Ok(vec![tensor(DType::I64, vec![Expr::from(n)])]),
        (rank, _) => Err(format!("extents have rank 0 or 1, not {rank}")),
    }
}

pub(super) fn run_count(inputs: &[Option<&Type>]) -> Result<Vec<Type>, String> {
    Operands::new(inputs, &[], 0)?;
    Ok(vec![tensor(DType::U64, Vec::new())])
}
