//! Which extents are the same, given what a graph states about its symbols.
//!
//! Sound, not complete: a `true` follows from the constraints and the symbols' bounds; a `false` may be an equation
//! that needs more algebra than substitution and one division.

use std::collections::BTreeMap;
use std::sync::Arc;

use lapidary_runtime::table::ConstraintKind;
use lapidary_templates::Atom;

use crate::ir::{Constraint, Expr, Graph};

/// The equations and broadcasts that hold.
pub(super) struct Equalities<'g> {
    /// The graph that declares the symbols.
    outer: &'g Graph,
    /// What a symbol is equal to. No replaced symbol is in a replacement.
    replaced: BTreeMap<Arc<str>, Expr>,
    /// Formulas that are 0.
    zeros: Vec<Expr>,
    broadcasts: Vec<(Expr, Expr)>,
}

impl<'g> Equalities<'g> {
    pub(super) fn new(constraints: impl Iterator<Item = &'g Constraint>, outer: &'g Graph) -> Equalities<'g> {
        let mut found = Equalities { outer, replaced: BTreeMap::new(), zeros: Vec::new(), broadcasts: Vec::new() };
        for constraint in constraints {
            let never_one = |expr: &Expr| outer.range(expr).0 > 1;
            let (a, b) = (&constraint.left, &constraint.right);
            match constraint.kind {
                ConstraintKind::Equal => found.add_equation(a, b),
                // Two extents that broadcast and are both more than 1 are equal.
                ConstraintKind::Broadcast if never_one(a) && never_one(b) => found.add_equation(a, b),
                ConstraintKind::Broadcast => found.broadcasts.push((a.clone(), b.clone())),
            }
        }
        found
    }

    /// Whether two extents are equal for every shape that the graph admits.
    pub(super) fn same(&self, a: &Expr, b: &Expr) -> bool {
        if a == b {
            return true;
        }
        let difference = self.normal(a) - self.normal(b);
        // a - b = q (x - y) with x = y.
        difference.is(0) || self.zeros.iter().any(|zero| difference.exact_div(&self.normal(zero)).is_some())
    }

    /// Whether a relation follows.
    pub(super) fn implied(&self, kind: ConstraintKind, a: &Expr, b: &Expr) -> bool {
        let broadcast =
            |(x, y): &(Expr, Expr)| (self.same(x, a) && self.same(y, b)) || (self.same(x, b) && self.same(y, a));
        match kind {
            ConstraintKind::Equal => self.same(a, b),
            ConstraintKind::Broadcast => {
                let one = Expr::constant(1);
                self.same(a, b) || self.same(a, &one) || self.same(b, &one) || self.broadcasts.iter().any(broadcast)
            }
        }
    }

    fn add_equation(&mut self, a: &Expr, b: &Expr) {
        let (a, b) = (self.normal(a), self.normal(b));
        if a == b {
            return;
        }
        for (symbol, formula) in [(&a, &b), (&b, &a)] {
            let Some(name) = symbol.as_symbol() else { continue };
            let name: Arc<str> = name.into();
            if formula.symbols().contains(&name) {
                continue;
            }
            let formula = formula.clone();
            for replacement in self.replaced.values_mut() {
                *replacement = replacement.substitute(&|other| (*other == *name).then(|| formula.clone()));
            }
            self.replaced.insert(name, formula);
            return;
        }
        self.zeros.push(a - b);
    }

    fn normal(&self, expr: &Expr) -> Expr {
        self.refine(&expr.substitute(&|name| self.replaced.get(name).cloned()))
    }

    /// The formula with every broadcast, minimum and maximum decided that the bounds decide.
    fn refine(&self, expr: &Expr) -> Expr {
        expr.terms().fold(Expr::constant(0), |sum, (product, coefficient)| {
            sum + product.iter().fold(Expr::constant(coefficient), |value, atom| value * self.refine_atom(atom))
        })
    }

    fn refine_atom(&self, atom: &Atom) -> Expr {
        let below = |a: &Expr, b: &Expr| self.outer.range(&(a.clone() - b.clone())).1 <= 0;
        match atom {
            Atom::Symbol(name) => Expr::symbol(name),
            Atom::FloorDiv(a, b) => self.refine(a).floor_div(&self.refine(b)),
            Atom::Min(a, b) => match (self.refine(a), self.refine(b)) {
                (a, b) if below(&a, &b) => a,
                (a, b) if below(&b, &a) => b,
                (a, b) => a.smaller(&b),
            },
            Atom::Max(a, b) => match (self.refine(a), self.refine(b)) {
                (a, b) if below(&a, &b) => b,
                (a, b) if below(&b, &a) => a,
                (a, b) => a.larger(&b),
            },
            Atom::Broadcast(a, b) => {
                let (a, b) = (self.refine(a), self.refine(b));
                let (x, y) = (self.outer.range(&a), self.outer.range(&b));
                if x.0 > 1 || y == (1, 1) {
                    a
                } else if y.0 > 1 || x == (1, 1) {
                    b
                } else {
                    a.broadcast(&b)
                }
            }
        }
    }
}
