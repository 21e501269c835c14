//! The positions along an axis, 0, 1, .., as a tensor that broadcasts: what one-hot, triangular and diagonal patterns
//! are compared with.

use lapidary_runtime::DType;
use lapidary_runtime::op::Scalar;

use crate::ir::builder::Built;
use crate::ir::{Builder, Expr, Op};

/// `i64` positions `0..count` along `axis` of a tensor of rank `rank`; the result's axes start at `axis`.
pub(super) fn positions(b: &mut Builder<'_>, count: Expr, axis: usize, rank: usize) -> Built {
    let start = b.scalar(Scalar::int(DType::I64, 0));
    let delta = b.scalar(Scalar::int(DType::I64, 1));
    let line = b.node(Op::Range { count }, &[start, delta])?;
    b.append_axes(line, rank - axis)
}
