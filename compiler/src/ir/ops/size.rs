//! How large a formula is. Formulas that are built from each other can double at every step, so whoever builds one
//! from a model's operations bounds it.

use lapidary_templates::Atom;

use crate::ir::{Expr, Type};

/// The number of terms and atoms, nested ones too.
pub(super) fn parts(expr: &Expr) -> usize {
    expr.terms().fold(0usize, |sum, (product, _)| {
        product.iter().fold(sum.saturating_add(1), |sum, atom| {
            sum.saturating_add(match atom {
                Atom::Symbol(_) => 1,
                Atom::FloorDiv(a, b) | Atom::Min(a, b) | Atom::Max(a, b) | Atom::Broadcast(a, b) => {
                    1 + parts(a).saturating_add(parts(b))
                }
            })
        })
    })
}

/// The most terms that the number of elements may have.
const MAX_TERMS: usize = 4096;

/// The number of elements; an error if the product of the extents has too many terms to be formed.
pub(super) fn elements(ty: &Type) -> Result<Expr, String> {
    let terms = ty.dims.iter().fold(1usize, |terms, dim| terms.saturating_mul(dim.terms().count().max(1)));
    if terms > MAX_TERMS {
        return Err(format!("the number of elements is a formula of {terms} terms, and the most are {MAX_TERMS}"));
    }
    Ok(ty.count())
}
