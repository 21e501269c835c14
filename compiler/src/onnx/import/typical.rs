//! Typical shapes that the model accepts: behind import, each profile's `OPT` shape satisfies the graph's constraints.
//!
//! A dimension without a stated range has been given [`DEFAULT`], whose typical value may break what the model relies
//! on (a squeezed axis, a fixed number of rows behind strides). Such a dimension gets the smallest value in its range
//! with which all constraints hold; a stated one is the user's, and is reported if it breaks one. Ranges stay as they
//! are: a run checks the constraints of its own shape.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lapidary_runtime::table::ConstraintKind;

use crate::diag::{Diagnostic, Diagnostics, Place, Result, quoted};
use crate::ir::{Constraint, Graph, Range, Symbol, SymbolSource};
use crate::profiles::Profiles;

/// How many shapes are tried for one profile. What is left open after that is left to the run.
const MOST_TRIED: usize = 1 << 16;

/// Gives every dimension without a stated range a typical value that satisfies the constraints.
///
/// # Errors
/// E0411 for each profile in which no such values are.
pub(super) fn settle(graph: &mut Graph, profiles: &Profiles) -> Result<()> {
    let stated: BTreeSet<&str> = profiles.names().collect();
    let mut errors = Diagnostics::new();
    for profile in 0..graph.profile_count() {
        let shape = Shape::typical(&graph.symbols, profile);
        if shape.broken(&graph.constraints).is_none() {
            continue;
        }
        match search(graph, profile, &|name| !stated.contains(name)) {
            Search::Found(values) => {
                for (name, value) in values {
                    let symbol = graph.symbols.get_mut(&name).and_then(|symbol| symbol.ranges.get_mut(profile));
                    if let Some(range) = symbol {
                        range.opt = value;
                    }
                }
            }
            Search::None(best) => errors.push(refused(graph, profile, &best)),
            Search::TooMany => {}
        }
    }
    errors.or(())
}

/// Values for the symbols of a graph.
#[derive(Clone)]
struct Shape(BTreeMap<Arc<str>, i64>);

impl Shape {
    fn typical(symbols: &BTreeMap<Arc<str>, Symbol>, profile: usize) -> Shape {
        Shape(inputs(symbols).map(|(name, symbol)| (name.clone(), range_in(symbol, profile).opt)).collect())
    }

    /// The first constraint that does not hold; those over counts, which only a run knows, are left out.
    fn broken<'c>(&self, constraints: impl IntoIterator<Item = &'c Constraint>) -> Option<&'c Constraint> {
        constraints.into_iter().find(|constraint| self.knows(constraint) && !constraint.holds(&|name| self.value(name)))
    }

    fn value(&self, name: &str) -> i64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    fn sides(&self, constraint: &Constraint) -> (i64, i64) {
        (constraint.left.eval(&|name| self.value(name)), constraint.right.eval(&|name| self.value(name)))
    }

    fn knows(&self, constraint: &Constraint) -> bool {
        symbols_of(constraint).iter().all(|name| self.0.contains_key(name))
    }
}

fn inputs(symbols: &BTreeMap<Arc<str>, Symbol>) -> impl Iterator<Item = (&Arc<str>, &Symbol)> {
    symbols.iter().filter(|(_, symbol)| matches!(symbol.source, SymbolSource::Input { .. }))
}

fn range_in(symbol: &Symbol, profile: usize) -> Range {
    symbol.ranges.get(profile).or(symbol.ranges.last()).copied().unwrap_or(crate::profiles::DEFAULT)
}

fn symbols_of(constraint: &Constraint) -> BTreeSet<Arc<str>> {
    constraint.left.symbols().into_iter().chain(constraint.right.symbols()).collect()
}

enum Search {
    /// Values of the free symbols in the constraints.
    Found(BTreeMap<Arc<str>, i64>),
    /// There are none; the shape came closest.
    None(Shape),
    TooMany,
}

/// Depth first over the values of the symbols that are `free`, ascending, each constraint checked as soon as its
/// symbols have values.
fn search(graph: &Graph, profile: usize, free: &dyn Fn(&str) -> bool) -> Search {
    let used: BTreeSet<Arc<str>> = graph.constraints.iter().flat_map(symbols_of).collect();
    let shape = Shape::typical(&graph.symbols, profile);
    let open = inputs(&graph.symbols).filter(|(name, _)| used.contains(*name) && free(name));
    let open: Vec<(Arc<str>, Range)> = open.map(|(name, s)| (name.clone(), range_in(s, profile))).collect();
    // Of each depth, the constraints that the symbol there is the last to decide.
    let mut decided: Vec<Vec<&Constraint>> = vec![Vec::new(); open.len() + 1];
    for constraint in graph.constraints.iter().filter(|constraint| shape.knows(constraint)) {
        let names = symbols_of(constraint);
        let depth = open.iter().rposition(|(name, _)| names.contains(name)).map_or(0, |k| k + 1);
        decided[depth].push(constraint);
    }
    let mut walk = Walk { open, decided, shape: shape.clone(), best: (0, shape), tried: 0 };
    match walk.from(0) {
        _ if walk.tried > MOST_TRIED => Search::TooMany,
        false => Search::None(walk.best.1),
        true => Search::Found(walk.open.iter().map(|(name, _)| (name.clone(), walk.shape.0[name])).collect()),
    }
}

struct Walk<'g> {
    open: Vec<(Arc<str>, Range)>,
    decided: Vec<Vec<&'g Constraint>>,
    shape: Shape,
    /// The deepest shape so far.
    best: (usize, Shape),
    tried: usize,
}

impl Walk<'_> {
    /// Whether the symbols from `depth` on have values with those before.
    fn from(&mut self, depth: usize) -> bool {
        self.tried += 1;
        if self.tried > MOST_TRIED || self.shape.broken(self.decided[depth].iter().copied()).is_some() {
            return false;
        }
        if depth > self.best.0 {
            self.best = (depth, self.shape.clone());
        }
        let Some((name, range)) = self.open.get(depth).cloned() else { return true };
        for value in range.min..=range.max {
            self.shape.0.insert(name.clone(), value);
            if self.from(depth + 1) {
                return true;
            }
            if self.tried > MOST_TRIED {
                return false;
            }
        }
        self.shape.0.insert(name, range.opt);
        false
    }
}

/// What the user is told about a profile without a typical shape.
fn refused(graph: &Graph, profile: usize, best: &Shape) -> Diagnostic {
    let (shape, constraint) = match best.broken(&graph.constraints) {
        Some(constraint) => (best.clone(), constraint),
        None => crate::bug!(dump: crate::ir::text::print(graph); "a shape is refused that breaks nothing"),
    };
    let names = symbols_of(constraint);
    let values: Vec<String> = names.iter().map(|name| format!("{} = {}", quoted(name), shape.0[name])).collect();
    let (left, right) = shape.sides(constraint);
    let relation = match constraint.kind {
        ConstraintKind::Equal => "equal",
        ConstraintKind::Broadcast => "equal, or one of them 1",
    };
    let of_profile = if graph.profile_count() > 1 { format!(" of profile {}", profile + 1) } else { String::new() };
    let what = format!("the model does not accept the typical shape{of_profile}: {}", values.join(", "));
    let why = format!(
        "{} needs {} and {} to be {relation}, and they are {left} and {right}",
        quoted(&constraint.why),
        constraint.left,
        constraint.right
    );
    // What would do, if the ranges that the user stated were only stated with another typical value.
    let help = match search(graph, profile, &|name| names.contains(name)) {
        Search::Found(found) => {
            let options = found.iter().map(|(name, value)| {
                let range = graph.symbols.get(name).map_or(crate::profiles::DEFAULT, |s| range_in(s, profile));
                format!("--dim {}={}:{value}:{}", quoted(name).trim_matches('"'), range.min, range.max)
            });
            format!("state a typical shape that it accepts: {}", options.collect::<Vec<_>>().join(" "))
        }
        Search::None(_) | Search::TooMany => {
            let open: Vec<String> =
                names.iter().map(|name| format!("--dim {}=MIN:OPT:MAX", quoted(name).trim_matches('"'))).collect();
            format!("give the dimensions ranges in which they are: {}", open.join(" "))
        }
    };
    Diagnostic::error("E0411", Place::Model, what).why(why).help(help)
}
