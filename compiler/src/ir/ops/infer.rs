//! Shape and type inference: from an operation and its operands' types to its results' types.
//!
//! Written once per operation; the builder, the verifier and the patch check all call [`infer`]. What cannot be decided
//! while compiling (two symbols that must agree) is recorded as a constraint, never guessed. An error is one sentence
//! without a place. Element values are not looked at here: that is [`super::known`].

mod control;
mod dense;
mod index;
mod movement;
mod program;
mod reduce;
mod sequence;
#[cfg(test)]
mod tests;
mod window;

use std::collections::BTreeSet;

use lapidary_runtime::DType;
use lapidary_runtime::op::MAX_RANK;
use lapidary_runtime::table::ConstraintKind;
use lapidary_templates::Atom;

use super::Op;
use super::size::{elements, parts};
use crate::ir::{Expr, Type};

/// What inference may ask about extents, and what it found that must hold of them.
pub struct Inference<'g> {
    /// The bounds of a formula over all profiles.
    pub range: &'g dyn Fn(&Expr) -> (i64, i64),
    /// Each relation once, in the order found.
    pub constraints: Vec<(ConstraintKind, Expr, Expr)>,
}

/// The types of all results that `op` can have on operands of the given types, wanted or not: `Pool` with `Max` y and
/// the indices, `Norm` y, mean and inverse deviation, `TopK` values and indices, `Recurrent` y, y_h and for LSTM y_c.
pub fn infer(op: &Op, inputs: &[Option<&Type>], cx: &mut Inference<'_>) -> Result<Vec<Type>, String> {
    let types = results(op, inputs, cx)?;
    for ty in &types {
        if ty.dims.len() > MAX_RANK {
            return Err(format!("the result has rank {}, and the largest is {MAX_RANK}", ty.dims.len()));
        }
        if let Some(axis) = ty.dims.iter().position(|dim| parts(dim) > MAX_PARTS) {
            return Err(format!("the extent of axis {axis} of the result is a formula of more than {MAX_PARTS} parts"));
        }
        if let Some(axis) = ty.dims.iter().position(|dim| (cx.range)(dim).1 < 0) {
            return Err(format!("the extent of axis {axis} of the result is {}", ty.dims[axis]));
        }
        check_bytes(ty, cx.range)?;
    }
    Ok(types)
}

/// How large the formula of an extent may be. Those of real models have a handful of parts.
const MAX_PARTS: usize = 1024;

/// The most bytes that a tensor may take, at the largest extents of the profiles. No machine holds more at once, and
/// sums of such sizes over all the tensors of a model do not overflow.
const MAX_BYTES: i64 = 1 << 40;

/// Checks that a tensor of the type can be stored.
///
/// # Errors
/// One sentence, if it takes more than a TiB, or the number of its elements cannot be formed.
pub fn check_bytes(ty: &Type, range: &dyn Fn(&Expr) -> (i64, i64)) -> Result<(), String> {
    let (_, count) = range(&elements(ty)?);
    let bits = i64::try_from(ty.dtype.bits()).unwrap_or(i64::MAX);
    if count.saturating_mul(bits) / 8 <= MAX_BYTES {
        return Ok(());
    }
    let dims: Vec<String> = ty.dims.iter().map(Expr::to_string).collect();
    Err(format!(
        "{}[{}] takes up to {:.0e} bytes, which is more than a TiB",
        ty.dtype,
        dims.join(", "),
        count as f64 * bits as f64 / 8.0
    ))
}

fn results(op: &Op, inputs: &[Option<&Type>], cx: &mut Inference<'_>) -> Result<Vec<Type>, String> {
    match op {
        Op::Pointwise(program) => program::pointwise(program, inputs, cx),
        Op::MatMul(spec, epilogue) => dense::matmul(spec, epilogue.as_ref(), inputs, cx),
        Op::Conv(spec, epilogue) => dense::conv(spec, epilogue.as_ref(), inputs, cx),
        Op::ConvTranspose(spec, dims) => dense::conv_transpose(spec, dims, inputs, cx),
        Op::Pool(spec, dims) => window::pool(spec, dims, inputs, cx),
        Op::Reduce(spec) => reduce::reduce(spec, inputs),
        Op::ArgReduce(spec) => reduce::arg_reduce(spec, inputs, cx),
        Op::Attention(_) => dense::attention(inputs, cx),
        Op::Softmax(spec) => reduce::softmax(spec, inputs),
        Op::Norm(spec, epilogue) => reduce::norm(spec, epilogue.as_ref(), inputs, cx),
        Op::GroupNorm(spec, epilogue) => reduce::group_norm(spec, epilogue.as_ref(), inputs, cx),
        Op::Reshape(dims) => movement::reshape(dims, inputs, cx),
        Op::BitCast(dtype) => movement::bit_cast(*dtype, inputs),
        Op::Transpose(spec) => movement::transpose(spec, inputs),
        Op::Expand(dims) => movement::expand(dims, inputs, cx),
        Op::Slice { starts, steps, dims } => movement::slice(starts, steps, dims, inputs, cx),
        Op::Concat { axis } => movement::concat(*axis, inputs, cx),
        Op::Pad { mode, lo, hi } => movement::pad(*mode, lo, hi, inputs, cx),
        Op::Gather { axis } => index::gather(*axis, inputs),
        Op::GatherElements { axis } => index::gather_elements(*axis, inputs, cx),
        Op::GatherNd { batch_dims } => index::gather_nd(*batch_dims, inputs, cx),
        Op::ScatterElements { axis, mode } => index::scatter_elements(*axis, *mode, inputs, cx),
        Op::ScatterNd { mode } => index::scatter_nd(*mode, inputs, cx),
        Op::Resize(spec, dims) => movement::resize(spec, dims, inputs, cx),
        Op::RegionPool(spec) => window::region_pool(spec, inputs, cx),
        Op::Recurrent(spec) => sequence::recurrent(spec, inputs, cx),
        Op::Suppress => index::suppress(inputs, cx),
        Op::CumSum { axis, .. } => reduce::cum_sum(*axis, inputs),
        Op::TopK { axis, k, .. } => reduce::top_k(*axis, k, inputs, cx),
        Op::Range { count } => sequence::range(count, inputs, cx),
        Op::Extents { values, rank } => sequence::extents(values, *rank, inputs),
        Op::RunCount => sequence::run_count(inputs),
        Op::If { then_region, else_region } => control::branch(then_region, else_region, inputs, cx),
        Op::Loop { body, carried, most } => control::repeat(body, *carried, most, inputs, cx),
    }
}

impl Inference<'_> {
    /// The common value of two extents that must be equal; the more specific formula of the two. Records a constraint
    /// where compiling cannot tell; fails where they never are.
    pub fn equal(&mut self, a: &Expr, b: &Expr) -> Result<Expr, String> {
        if a == b {
            return Ok(a.clone());
        }
        let (x, y) = ((self.range)(a), (self.range)(b));
        if x.1 < y.0 || y.1 < x.0 {
            return Err(format!("the extents {a} and {b} differ"));
        }
        let decided = x.0 == x.1 && x == y;
        if !decided {
            self.record(ConstraintKind::Equal, a, b);
        }
        Ok(if rank_of_detail(b) < rank_of_detail(a) { b.clone() } else { a.clone() })
    }

    /// The extent of two axes that broadcast ([`Expr::broadcast`]), as specific as the bounds allow.
    pub fn broadcast(&mut self, a: &Expr, b: &Expr) -> Result<Expr, String> {
        let (x, y) = ((self.range)(a), (self.range)(b));
        if a == b || y == (1, 1) {
            return Ok(a.clone());
        }
        if x == (1, 1) {
            return Ok(b.clone());
        }
        let no_match = x.1 < y.0 || y.1 < x.0;
        let (a_may_be_one, b_may_be_one) = (contains_one(x), contains_one(y));
        if !a_may_be_one && !b_may_be_one {
            return self.equal(a, b).map_err(|_| format!("the extents {a} and {b} do not broadcast"));
        }
        if no_match {
            // Only one way is left: the one that may be 1 is.
            let (one, other) = if a_may_be_one { (a, b) } else { (b, a) };
            self.equal(one, &Expr::constant(1))?;
            return Ok(other.clone());
        }
        self.record(ConstraintKind::Broadcast, a, b);
        // The side that is never 1 is the extent, whatever the other is.
        Ok(match (a_may_be_one, b_may_be_one) {
            (true, false) => b.clone(),
            (false, true) => a.clone(),
            (_, _) => {
                // As a set, so that meeting an extent again adds nothing.
                let extents: BTreeSet<Expr> = broadcast_of(a).chain(broadcast_of(b)).collect();
                extents.iter().fold(Expr::constant(1), |all, extent| all.broadcast(extent))
            }
        })
    }

    /// The same as [`Inference::equal`] with an error that says what the extents are.
    fn agree(&mut self, what: &str, a: &Expr, b: &Expr) -> Result<Expr, String> {
        self.equal(a, b).map_err(|_| format!("{what} differ: {a} and {b}"))
    }

    /// Checks that `ty` broadcasts to `dims` without enlarging it.
    fn fits(&mut self, name: &str, ty: &Type, dims: &[Expr]) -> Result<(), String> {
        if ty.dims.len() > dims.len() {
            return Err(format!("{name} has rank {}, which is more than the result's {}", ty.dims.len(), dims.len()));
        }
        let skip = dims.len() - ty.dims.len();
        for (axis, (dim, target)) in ty.dims.iter().zip(&dims[skip..]).enumerate() {
            self.fits_axis(dim, target)
                .map_err(|_| format!("extent {dim} of axis {axis} of {name} does not broadcast to {target}"))?;
        }
        Ok(())
    }

    fn fits_axis(&mut self, dim: &Expr, target: &Expr) -> Result<(), String> {
        let extent = self.broadcast(dim, target)?;
        // The relation of broadcasting is symmetric; this one is not: a target of 1 must not grow.
        self.equal(&extent, target).map(|_| ())
    }

    /// Checks that a formula is never below `least`; where that is open, it becomes a constraint.
    fn at_least(&mut self, what: &str, value: &Expr, least: i64) -> Result<(), String> {
        let (low, high) = (self.range)(value);
        if high < least {
            return Err(format!("{what} is {value}, which is less than {least}"));
        }
        if low < least {
            let clamped = value.larger(&Expr::constant(least));
            self.record(ConstraintKind::Equal, &clamped, value);
        }
        Ok(())
    }

    /// Whether `a` is larger than `b` for every shape.
    fn exceeds(&self, a: &Expr, b: &Expr) -> bool {
        (self.range)(&(a.clone() - b.clone())).0 > 0
    }

    fn record(&mut self, kind: ConstraintKind, a: &Expr, b: &Expr) {
        let constraint = (kind, a.clone(), b.clone());
        if !self.constraints.contains(&constraint) {
            self.constraints.push(constraint);
        }
    }
}

fn contains_one((low, high): (i64, i64)) -> bool {
    low <= 1 && high >= 1
}

/// The extents that a formula is the broadcast of: itself, if it is no broadcast.
fn broadcast_of(expr: &Expr) -> Box<dyn Iterator<Item = Expr> + '_> {
    let mut terms = expr.terms();
    match (terms.next(), terms.next()) {
        (Some(([Atom::Broadcast(a, b)], 1)), None) => Box::new(broadcast_of(a).chain(broadcast_of(b))),
        (_, _) => Box::new(std::iter::once(expr.clone())),
    }
}

/// Constants before symbols before formulas.
fn rank_of_detail(expr: &Expr) -> usize {
    if expr.as_const().is_some() {
        0
    } else if expr.as_symbol().is_some() {
        1
    } else {
        1 + expr.terms().count()
    }
}

/// The operands of one operation, by name.
struct Operands<'t> {
    types: &'t [Option<&'t Type>],
    names: &'static [&'static str],
}

impl<'t> Operands<'t> {
    /// Operands of which the first `required` must be there; `names` says how many there can be.
    fn new(
        types: &'t [Option<&'t Type>],
        names: &'static [&'static str],
        required: usize,
    ) -> Result<Operands<'t>, String> {
        if types.len() > names.len() {
            return Err(format!("there are {} operands, and at most {} can be", types.len(), names.len()));
        }
        let operands = Operands { types, names };
        for k in 0..required {
            operands.get(k)?;
        }
        Ok(operands)
    }

    /// A required operand.
    fn get(&self, k: usize) -> Result<&'t Type, String> {
        self.optional(k).ok_or_else(|| format!("operand {} is missing", self.names[k]))
    }

    fn optional(&self, k: usize) -> Option<&'t Type> {
        self.types.get(k).copied().flatten()
    }

    /// The one operand of an operation that has one.
    fn only(types: &'t [Option<&'t Type>]) -> Result<&'t Type, String> {
        Operands::new(types, &["x"], 1)?.get(0)
    }
}

/// Whether arithmetic is defined on the type; the other types are for storage and conversion.
fn is_arithmetic(dtype: DType) -> bool {
    is_arithmetic_float(dtype) || is_arithmetic_int(dtype)
}

fn is_arithmetic_float(dtype: DType) -> bool {
    matches!(dtype, DType::F64 | DType::F32 | DType::F16 | DType::BF16)
}

fn is_arithmetic_int(dtype: DType) -> bool {
    dtype.is_int() && dtype.bits() >= 8
}

fn is_index(dtype: DType) -> bool {
    matches!(dtype, DType::I32 | DType::I64)
}

/// Checks an operand's type against a predicate, whose name `kind` is for the error.
fn check_dtype(name: &str, ty: &Type, kind: &str, holds: fn(DType) -> bool) -> Result<(), String> {
    if holds(ty.dtype) { Ok(()) } else { Err(format!("{name} is {}, and {kind} is needed", ty.dtype)) }
}

fn check_same_dtype(name: &str, ty: &Type, expected: DType) -> Result<(), String> {
    if ty.dtype == expected { Ok(()) } else { Err(format!("{name} is {}, and {expected} is needed", ty.dtype)) }
}

fn check_rank(name: &str, ty: &Type, rank: usize) -> Result<(), String> {
    if ty.dims.len() == rank { Ok(()) } else { Err(format!("{name} has rank {}, and {rank} is needed", ty.dims.len())) }
}

/// An axis as an index, inside the rank of `ty`.
fn check_axis(axis: u8, ty: &Type) -> Result<usize, String> {
    let axis = usize::from(axis);
    if axis < ty.dims.len() { Ok(axis) } else { Err(format!("axis {axis} is outside rank {}", ty.dims.len())) }
}

fn tensor(dtype: DType, dims: Vec<Expr>) -> Type {
    Type { dtype, dims }
}
