//! Extents as formulas over symbols: `Expr`, an integer polynomial in canonical form.
//!
//! Two formulas that are equal as polynomials are equal as values of this type, so that `batch * seq / seq` meets
//! `batch` by `==`. What is not a polynomial (a rounded division, a minimum) is an atom over canonical formulas.
//! Extents are never negative; formulas in between may be.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Add, Mul, Neg, Sub};
use std::sync::Arc;

use lapidary_runtime::floor_div;

/// A formula: a sum of products of atoms, each with a coefficient.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Expr {
    /// Coefficient of each product; never zero. The empty product is the constant.
    terms: BTreeMap<Product, i64>,
}

/// A product of atoms, sorted.
type Product = Vec<Atom>;

/// A factor that the polynomial does not look into.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Atom {
    /// A dimension of the inputs, or a count that the device knows.
    Symbol(Arc<str>),
    /// Rounded toward negative infinity; a zero divisor gives 0.
    FloorDiv(Box<Expr>, Box<Expr>),
    Min(Box<Expr>, Box<Expr>),
    Max(Box<Expr>, Box<Expr>),
    /// The extent of two axes that broadcast: `b` if `a` is 1, else `a`.
    Broadcast(Box<Expr>, Box<Expr>),
}

impl Expr {
    /// A constant.
    pub fn constant(value: i64) -> Expr {
        let mut terms = BTreeMap::new();
        if value != 0 {
            terms.insert(Vec::new(), value);
        }
        Expr { terms }
    }

    /// A symbol.
    pub fn symbol(name: &str) -> Expr {
        Expr::atom(Atom::Symbol(name.into()))
    }

    fn atom(atom: Atom) -> Expr {
        Expr { terms: BTreeMap::from([(vec![atom], 1)]) }
    }

    /// The value, if it is a constant.
    pub fn as_const(&self) -> Option<i64> {
        match self.terms.len() {
            0 => Some(0),
            1 => self.terms.get(&Vec::new() as &Product).copied(),
            _ => None,
        }
    }

    /// The symbol, if it is nothing but one.
    pub fn as_symbol(&self) -> Option<&str> {
        let (product, &coefficient) = self.terms.iter().next()?;
        match (self.terms.len(), coefficient, product.as_slice()) {
            (1, 1, [Atom::Symbol(name)]) => Some(name),
            _ => None,
        }
    }

    /// Whether it is the constant `value`.
    pub fn is(&self, value: i64) -> bool {
        self.as_const() == Some(value)
    }

    /// The products and their coefficients, in canonical order.
    pub fn terms(&self) -> impl Iterator<Item = (&[Atom], i64)> {
        self.terms.iter().map(|(product, &coefficient)| (product.as_slice(), coefficient))
    }

    /// `self / other` rounded toward negative infinity.
    pub fn floor_div(&self, other: &Expr) -> Expr {
        if let (Some(a), Some(b)) = (self.as_const(), other.as_const()) {
            return Expr::constant(floor_div(a, b));
        }
        if other.is(1) {
            return self.clone();
        }
        if let Some(exact) = self.exact_div(other) {
            return exact;
        }
        if let Some(divisor) = other.as_const().filter(|&d| d > 1) {
            return self.floor_div_const(divisor);
        }
        Expr::atom(Atom::FloorDiv(Box::new(self.clone()), Box::new(other.clone())))
    }

    /// Takes the multiples of `divisor` out: `(d * q + r) / d = q + r / d`.
    fn floor_div_const(&self, divisor: i64) -> Expr {
        let mut whole = Expr::constant(0);
        let mut rest = Expr::constant(0);
        for (product, &coefficient) in &self.terms {
            // The constant part keeps its remainder in 0..divisor, so that equal formulas look equal.
            let quotient =
                if product.is_empty() || coefficient % divisor == 0 { floor_div(coefficient, divisor) } else { 0 };
            whole.add_term(product.clone(), quotient);
            rest.add_term(product.clone(), coefficient - quotient * divisor);
        }
        if let Some(value) = rest.as_const() {
            return whole + Expr::constant(floor_div(value, divisor));
        }
        // floor((floor(x / a) + c) / b) = floor((x + a c) / (a b))
        if let Some((inner, a, c)) = rest.as_floor_div_const() {
            let shifted = inner.clone() + Expr::constant(a.saturating_mul(c));
            return whole + shifted.floor_div(&Expr::constant(a.saturating_mul(divisor)));
        }
        whole + Expr::atom(Atom::FloorDiv(Box::new(rest), Box::new(Expr::constant(divisor))))
    }

    /// `(x, a, c)` if this is `floor(x / a) + c` with a positive constant `a`.
    fn as_floor_div_const(&self) -> Option<(&Expr, i64, i64)> {
        let constant = self.terms.get(&Vec::new() as &Product).copied().unwrap_or(0);
        let mut others = self.terms.iter().filter(|(product, _)| !product.is_empty());
        let (product, &coefficient) = others.next()?;
        match (others.next(), coefficient, product.as_slice()) {
            (None, 1, [Atom::FloorDiv(x, a)]) => a.as_const().filter(|&a| a > 0).map(|a| (x.as_ref(), a, constant)),
            _ => None,
        }
    }

    /// `self / other` rounded up.
    pub fn ceil_div(&self, other: &Expr) -> Expr {
        match other.as_const() {
            // The form that windows and strides have.
            Some(divisor) if divisor > 0 => (self.clone() + Expr::constant(divisor - 1)).floor_div(other),
            Some(_) | None => -(-self.clone()).floor_div(other),
        }
    }

    /// `self / other` where the division leaves no rest as polynomials; `None` if it does.
    pub fn exact_div(&self, other: &Expr) -> Option<Expr> {
        let (lead, &lead_coefficient) = other.terms.iter().next_back()?;
        let mut rest = self.clone();
        let mut quotient = Expr::constant(0);
        // Each round cancels the leading term; a divisor with more terms than the rest cannot divide it.
        for _ in 0..=self.terms.len() * 2 {
            let Some((product, &coefficient)) = rest.terms.iter().next_back() else {
                return Some(quotient);
            };
            let product = divide_product(product, lead)?;
            if coefficient.checked_rem(lead_coefficient) != Some(0) {
                return None;
            }
            let factor = Expr { terms: BTreeMap::from([(product, coefficient.checked_div(lead_coefficient)?)]) };
            rest = rest - factor.clone() * other.clone();
            quotient = quotient + factor;
        }
        None
    }

    /// The smaller of two.
    pub fn smaller(&self, other: &Expr) -> Expr {
        match (self.clone() - other.clone()).as_const() {
            Some(difference) if difference <= 0 => self.clone(),
            Some(_) => other.clone(),
            None => {
                let (a, b) = ordered(self, other);
                Expr::atom(Atom::Min(a, b))
            }
        }
    }

    /// The larger of two.
    pub fn larger(&self, other: &Expr) -> Expr {
        match (self.clone() - other.clone()).as_const() {
            Some(difference) if difference >= 0 => self.clone(),
            Some(_) => other.clone(),
            None => {
                let (a, b) = ordered(self, other);
                Expr::atom(Atom::Max(a, b))
            }
        }
    }

    /// The extent of two axes that broadcast.
    pub fn broadcast(&self, other: &Expr) -> Expr {
        if self == other || other.is(1) {
            return self.clone();
        }
        if self.is(1) {
            return other.clone();
        }
        // A constant other than 1 decides: the other axis is equal to it or 1.
        if self.as_const().is_some() {
            return self.clone();
        }
        if other.as_const().is_some() {
            return other.clone();
        }
        let (a, b) = ordered(self, other);
        Expr::atom(Atom::Broadcast(a, b))
    }

    /// The value for given symbols; saturates.
    pub fn eval(&self, symbol: &dyn Fn(&str) -> i64) -> i64 {
        self.terms.iter().fold(0i64, |sum, (product, &coefficient)| {
            let value = product.iter().fold(coefficient, |value, atom| value.saturating_mul(atom.eval(symbol)));
            sum.saturating_add(value)
        })
    }

    /// Bounds of the value for symbols within the given bounds. Sound, not always tight.
    pub fn range(&self, symbol: &dyn Fn(&str) -> (i64, i64)) -> (i64, i64) {
        self.terms.iter().fold((0, 0), |sum, (product, &coefficient)| {
            let start = (coefficient, coefficient);
            let (low, high) = product.iter().fold(start, |range, atom| multiply(range, atom.range(symbol)));
            (sum.0.saturating_add(low), sum.1.saturating_add(high))
        })
    }

    /// Each symbol in it, once, in order.
    pub fn symbols(&self) -> Vec<Arc<str>> {
        let mut found = std::collections::BTreeSet::new();
        self.visit_symbols(&mut |name| {
            found.insert(name.clone());
        });
        found.into_iter().collect()
    }

    fn visit_symbols(&self, visit: &mut dyn FnMut(&Arc<str>)) {
        for atom in self.terms.keys().flatten() {
            match atom {
                Atom::Symbol(name) => visit(name),
                Atom::FloorDiv(a, b) | Atom::Min(a, b) | Atom::Max(a, b) | Atom::Broadcast(a, b) => {
                    a.visit_symbols(visit);
                    b.visit_symbols(visit);
                }
            }
        }
    }

    /// The formula with symbols replaced where `replacement` knows one.
    pub fn substitute(&self, replacement: &dyn Fn(&str) -> Option<Expr>) -> Expr {
        self.terms.iter().fold(Expr::constant(0), |sum, (product, &coefficient)| {
            let value = product.iter().fold(Expr::constant(coefficient), |value, atom| {
                value
                    * match atom {
                        Atom::Symbol(name) => {
                            replacement(name).unwrap_or_else(|| Expr::atom(Atom::Symbol(name.clone())))
                        }
                        Atom::FloorDiv(a, b) => a.substitute(replacement).floor_div(&b.substitute(replacement)),
                        Atom::Min(a, b) => a.substitute(replacement).smaller(&b.substitute(replacement)),
                        Atom::Max(a, b) => a.substitute(replacement).larger(&b.substitute(replacement)),
                        Atom::Broadcast(a, b) => a.substitute(replacement).broadcast(&b.substitute(replacement)),
                    }
            });
            sum + value
        })
    }

    fn add_term(&mut self, product: Product, coefficient: i64) {
        let entry = self.terms.entry(product);
        match entry {
            std::collections::btree_map::Entry::Vacant(slot) => {
                if coefficient != 0 {
                    slot.insert(coefficient);
                }
            }
            std::collections::btree_map::Entry::Occupied(mut slot) => {
                let sum = slot.get().saturating_add(coefficient);
                if sum == 0 {
                    slot.remove();
                } else {
                    *slot.get_mut() = sum;
                }
            }
        }
    }
}

impl Atom {
    fn eval(&self, symbol: &dyn Fn(&str) -> i64) -> i64 {
        match self {
            Atom::Symbol(name) => symbol(name),
            Atom::FloorDiv(a, b) => floor_div(a.eval(symbol), b.eval(symbol)),
            Atom::Min(a, b) => a.eval(symbol).min(b.eval(symbol)),
            Atom::Max(a, b) => a.eval(symbol).max(b.eval(symbol)),
            Atom::Broadcast(a, b) => match a.eval(symbol) {
                1 => b.eval(symbol),
                extent => extent,
            },
        }
    }

    fn range(&self, symbol: &dyn Fn(&str) -> (i64, i64)) -> (i64, i64) {
        match self {
            Atom::Symbol(name) => symbol(name),
            Atom::FloorDiv(a, b) => {
                let (a, b) = (a.range(symbol), b.range(symbol));
                let corners = [(a.0, b.0), (a.0, b.1), (a.1, b.0), (a.1, b.1)].map(|(a, b)| floor_div(a, b));
                let (low, high) = (corners.into_iter().min().unwrap_or(0), corners.into_iter().max().unwrap_or(0));
                if b.0 > 0 || b.1 < 0 {
                    return (low, high);
                }
                // A divisor range that crosses zero reaches every quotient up to |a|.
                let reach = a.0.saturating_abs().max(a.1.saturating_abs());
                (low.min(-reach), high.max(reach))
            }
            Atom::Min(a, b) => {
                let (a, b) = (a.range(symbol), b.range(symbol));
                (a.0.min(b.0), a.1.min(b.1))
            }
            Atom::Max(a, b) => {
                let (a, b) = (a.range(symbol), b.range(symbol));
                (a.0.max(b.0), a.1.max(b.1))
            }
            Atom::Broadcast(a, b) => {
                let (a, b) = (a.range(symbol), b.range(symbol));
                (a.0.min(b.0), a.1.max(b.1))
            }
        }
    }
}

fn ordered(a: &Expr, b: &Expr) -> (Box<Expr>, Box<Expr>) {
    if a <= b { (Box::new(a.clone()), Box::new(b.clone())) } else { (Box::new(b.clone()), Box::new(a.clone())) }
}

fn multiply(a: (i64, i64), b: (i64, i64)) -> (i64, i64) {
    let corners = [(a.0, b.0), (a.0, b.1), (a.1, b.0), (a.1, b.1)].map(|(a, b)| a.saturating_mul(b));
    (corners.into_iter().min().unwrap_or(0), corners.into_iter().max().unwrap_or(0))
}

/// The factors of `product` without those of `divisor`; `None` if one is not there.
fn divide_product(product: &Product, divisor: &Product) -> Option<Product> {
    let mut rest = product.clone();
    for atom in divisor {
        let at = rest.iter().position(|candidate| candidate == atom)?;
        rest.remove(at);
    }
    Some(rest)
}

impl Add for Expr {
    type Output = Expr;

    fn add(mut self, other: Expr) -> Expr {
        for (product, coefficient) in other.terms {
            self.add_term(product, coefficient);
        }
        self
    }
}

impl Neg for Expr {
    type Output = Expr;

    fn neg(mut self) -> Expr {
        for coefficient in self.terms.values_mut() {
            *coefficient = coefficient.saturating_neg();
        }
        self
    }
}

impl Sub for Expr {
    type Output = Expr;

    fn sub(self, other: Expr) -> Expr {
        self + -other
    }
}

impl Mul for Expr {
    type Output = Expr;

    fn mul(self, other: Expr) -> Expr {
        let mut out = Expr::constant(0);
        for (a, &x) in &self.terms {
            for (b, &y) in &other.terms {
                let mut product = [a.as_slice(), b.as_slice()].concat();
                product.sort();
                out.add_term(product, x.saturating_mul(y));
            }
        }
        out
    }
}

impl From<i64> for Expr {
    fn from(value: i64) -> Expr {
        Expr::constant(value)
    }
}

impl From<usize> for Expr {
    fn from(value: usize) -> Expr {
        Expr::constant(i64::try_from(value).unwrap_or(i64::MAX))
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.terms.is_empty() {
            return f.write_str("0");
        }
        // The constant comes first in canonical order, and reads best last.
        let constant = self.terms.iter().filter(|(product, _)| product.is_empty());
        let products = self.terms.iter().filter(|(product, _)| !product.is_empty());
        for (k, (product, &coefficient)) in products.chain(constant).enumerate() {
            let sign = if coefficient < 0 { "-" } else { "+" };
            match (k, coefficient < 0) {
                (0, false) => {}
                (0, true) => f.write_str("-")?,
                (_, _) => write!(f, " {sign} ")?,
            }
            let magnitude = coefficient.unsigned_abs();
            if product.is_empty() {
                write!(f, "{magnitude}")?;
                continue;
            }
            if magnitude != 1 {
                write!(f, "{magnitude}*")?;
            }
            for (k, atom) in product.iter().enumerate() {
                if k > 0 {
                    f.write_str("*")?;
                }
                write!(f, "{atom}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Atom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Atom::Symbol(name) => {
                let plain = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                    && name.chars().all(|c| c.is_ascii_alphanumeric() || "_.".contains(c));
                if plain { f.write_str(name) } else { write!(f, "`{}`", escaped(name)) }
            }
            Atom::FloorDiv(a, b) => write!(f, "floor({a}, {b})"),
            Atom::Min(a, b) => write!(f, "min({a}, {b})"),
            Atom::Max(a, b) => write!(f, "max({a}, {b})"),
            Atom::Broadcast(a, b) => write!(f, "bcast({a}, {b})"),
        }
    }
}

impl std::str::FromStr for Expr {
    type Err = String;

    /// Reads what `Display` writes.
    fn from_str(text: &str) -> Result<Expr, String> {
        let mut parser = Parser { rest: text };
        let expr = parser.sum(0)?;
        if parser.peek().is_some() { Err(format!("unexpected `{}` in `{text}`", parser.rest)) } else { Ok(expr) }
    }
}

/// The name of a symbol as it stands between backticks: what could end it, or its line, as `\u{..}`, and `\` doubled.
fn escaped(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '`' | '\u{2028}' | '\u{2029}' => text.extend(c.escape_unicode()),
            c if c.is_control() => text.extend(c.escape_unicode()),
            c => text.push(c),
        }
    }
    text
}

/// The name that stands escaped between backticks; `None` for an escape that is none.
pub fn unescaped(text: &str) -> Option<String> {
    let mut name = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((plain, escape)) = rest.split_once('\\') {
        name.push_str(plain);
        if let Some(after) = escape.strip_prefix('\\') {
            name.push('\\');
            rest = after;
        } else {
            let (code, after) = escape.strip_prefix("u{")?.split_once('}')?;
            name.push(u32::from_str_radix(code, 16).ok().and_then(char::from_u32)?);
            rest = after;
        }
    }
    name.push_str(rest);
    Some(name)
}

/// Recursive descent over `sum := ['-'] product (('+' | '-') product)*`.
struct Parser<'a> {
    rest: &'a str,
}

/// Deeper nesting than this is refused rather than risking the stack.
const MAX_DEPTH: usize = 64;

impl<'a> Parser<'a> {
    fn peek(&mut self) -> Option<char> {
        self.rest = self.rest.trim_start();
        self.rest.chars().next()
    }

    fn eat(&mut self, expected: char) -> bool {
        let found = self.peek() == Some(expected);
        if found {
            self.rest = &self.rest[expected.len_utf8()..];
        }
        found
    }

    fn expect(&mut self, expected: char) -> Result<(), String> {
        if self.eat(expected) { Ok(()) } else { Err(format!("expected `{expected}` before `{}`", self.rest)) }
    }

    fn sum(&mut self, depth: usize) -> Result<Expr, String> {
        if depth > MAX_DEPTH {
            return Err("the formula is nested too deeply".to_owned());
        }
        let sign = if self.eat('-') { "-" } else { "" };
        let mut total = self.product(sign, depth)?;
        loop {
            total = if self.eat('+') {
                total + self.product("", depth)?
            } else if self.eat('-') {
                total + self.product("-", depth)?
            } else {
                return Ok(total);
            };
        }
    }

    fn product(&mut self, sign: &str, depth: usize) -> Result<Expr, String> {
        let mut total = self.factor(sign, depth)?;
        while self.eat('*') {
            total = total * self.factor("", depth)?;
        }
        Ok(total)
    }

    /// A factor with a sign, which is read with the digits: the least number has no positive counterpart.
    fn factor(&mut self, sign: &str, depth: usize) -> Result<Expr, String> {
        let signed = |expr: Expr| if sign.is_empty() { expr } else { -expr };
        match self.peek() {
            Some(c) if c.is_ascii_digit() => {
                let digits = self.take(|c| c.is_ascii_digit());
                format!("{sign}{digits}").parse().map(Expr::constant).map_err(|e| format!("`{sign}{digits}`: {e}"))
            }
            Some('`') => {
                self.expect('`')?;
                let name = self.take(|c| c != '`');
                self.expect('`')?;
                Ok(signed(Expr::symbol(&unescaped(name).ok_or_else(|| format!("`{name}` has an unknown escape"))?)))
            }
            Some(c) if c.is_ascii_alphabetic() || c == '_' => {
                let name = self.take(|c| c.is_ascii_alphanumeric() || "_.".contains(c));
                let expr = if self.peek() == Some('(') { self.call(name, depth)? } else { Expr::symbol(name) };
                Ok(signed(expr))
            }
            other => Err(format!("expected a formula, found {other:?}")),
        }
    }

    fn call(&mut self, name: &str, depth: usize) -> Result<Expr, String> {
        self.expect('(')?;
        let a = self.sum(depth + 1)?;
        self.expect(',')?;
        let b = self.sum(depth + 1)?;
        self.expect(')')?;
        match name {
            "floor" => Ok(a.floor_div(&b)),
            "min" => Ok(a.smaller(&b)),
            "max" => Ok(a.larger(&b)),
            "bcast" => Ok(a.broadcast(&b)),
            other => Err(format!("unknown function `{other}`")),
        }
    }

    fn take(&mut self, keep: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !keep(c)).unwrap_or(self.rest.len());
        let (head, tail) = self.rest.split_at(end);
        self.rest = tail;
        head
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Expr {
        text.parse().unwrap()
    }

    #[test]
    fn equal_polynomials_are_equal() {
        assert_eq!(parse("b*s + s*b"), parse("2*b*s"));
        assert_eq!(parse("3*h").floor_div(&parse("h")), parse("3"));
        assert_eq!(parse("b*s*384").floor_div(&parse("b*12")), parse("32*s"));
        assert_eq!((parse("b + 1") * parse("b - 1")).exact_div(&parse("b + 1")), Some(parse("b - 1")));
        assert_eq!(parse("b*s").exact_div(&parse("t")), None);
    }

    #[test]
    fn divisions_by_constants_combine() {
        // Two convolutions of stride 2 with padding 1.
        let once = parse("floor(h - 1, 2) + 1");
        let twice = (once - Expr::constant(1)).floor_div(&Expr::constant(2)) + Expr::constant(1);
        assert_eq!(twice, parse("floor(h - 1, 4) + 1"));
        assert_eq!(parse("4*h + 6").floor_div(&Expr::constant(4)), parse("h + 1"));
        assert_eq!(parse("h").ceil_div(&Expr::constant(8)).eval(&|_| 17), 3);
    }

    #[test]
    fn text_round_trips() {
        for text in ["0", "-3", "h", "2*`x.y:0`*h - 7", "bcast(a, b) + max(1, a)", "floor(h + 3, 4)*c", "-h + 1"] {
            let expr = parse(text);
            assert_eq!(parse(&expr.to_string()), expr, "{text}");
        }
        for name in ["", "a`b", "a\nb", "\\", "a\\u{60}", "\u{1b}[31m", "\u{2028}", "é,)]", "%1 # x"] {
            let expr = Expr::symbol(name).floor_div(&Expr::constant(7));
            let text = expr.to_string();
            assert_eq!((text.lines().count(), parse(&text)), (1, expr), "{name:?}");
        }
        assert!("`\\n`".parse::<Expr>().is_err());
        assert!("floor(a)".parse::<Expr>().is_err());
        assert!("a +".parse::<Expr>().is_err());
        assert!("99999999999999999999".parse::<Expr>().is_err());
        assert!("min(a,".repeat(100).parse::<Expr>().is_err());
    }

    #[test]
    fn ranges_hold_every_value() {
        let expr = parse("floor(3*h - 7, 2) - max(h, 4) + min(w, 5)*h");
        let (low, high) = expr.range(&|name| if name == "h" { (1, 9) } else { (2, 30) });
        for h in 1..=9 {
            for w in 2..=30 {
                let value = expr.eval(&|name| if name == "h" { h } else { w });
                assert!((low..=high).contains(&value));
            }
        }
    }

    #[test]
    fn a_quotient_is_bounded_as_its_corners_are() {
        let range = |text: &str| parse(text).range(&|_| (288, 576));
        assert_eq!(range("floor(h + 320, 512)"), (1, 1));
        assert_eq!(range("floor(-h, 100)"), (-6, -3));
        assert_eq!(parse("floor(7, h - 2)").range(&|_| (1, 4)), (-7, 7));
    }

    #[test]
    fn a_quotient_of_positive_numbers_keeps_its_lower_bound() {
        assert_eq!(parse("floor(i + 64, 128)").range(&|_| (288, 576)), (2, 5));
        assert!(parse("a").exact_div(&parse("-9223372036854775807*a - a")).is_none());
    }

    /// Found by the fuzzer.
    #[test]
    fn the_least_number_reads_back() {
        for text in ["-9223372036854775808", "-9223372036854775808*n", "n - 9223372036854775808", "-n - 2"] {
            let expr: Expr = text.parse().unwrap();
            assert_eq!(expr.to_string().parse::<Expr>().unwrap(), expr, "{text}");
        }
        assert_eq!("-9223372036854775808".parse::<Expr>().unwrap(), Expr::constant(i64::MIN));
    }

    #[test]
    fn a_constant_decides_a_broadcast() {
        assert_eq!(parse("a").broadcast(&parse("1")), parse("a"));
        assert_eq!(parse("a").broadcast(&parse("7")), parse("7"));
        assert_eq!(parse("a").broadcast(&parse("b")), parse("b").broadcast(&parse("a")));
    }
}
