//! Where source text can be changed, and into what: operators, conditions, numbers, calls that have an opposite,
//! statements, and results.
//!
//! Not changed: tests, constants and statics, patterns, types, and what stands in macros.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use proc_macro2::Span;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{BinOp, Expr, ImplItemFn, Item, ItemFn, Lit, ReturnType, Stmt, Type, UnOp};

/// One change.
#[derive(Clone, Debug)]
pub struct Site {
    /// Below the checkout's root.
    pub file: String,
    pub line: usize,
    /// The bytes that are replaced.
    pub range: Range<usize>,
    /// By what, when the switch is on; else the text stays.
    pub change: Change,
    /// For people: `a == b -> a != b`.
    pub what: String,
}

#[derive(Clone, Debug)]
pub enum Change {
    /// An expression in place of an expression.
    Expr(String),
    /// A statement that is left out.
    Omit,
    /// An early return at the start of a body.
    Return(String),
}

/// All changes of the Rust files below a folder, ordered by file and place.
pub fn below(root: &Path, folder: &str) -> Result<Vec<Site>, String> {
    let mut files = Vec::new();
    list(&root.join(folder), &mut files)?;
    files.sort();
    let mut sites = Vec::new();
    for path in files {
        let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let parsed = syn::parse_file(&text).map_err(|e| format!("{}: {e}", path.display()))?;
        let file = path.strip_prefix(root).unwrap_or(&path).display().to_string();
        let mut finder = Finder { text: &text, file, sites: Vec::new() };
        finder.visit_file(&parsed);
        sites.append(&mut finder.sites);
    }
    Ok(sites)
}

fn list(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), String> {
    let entries = fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    for entry in entries {
        let path = entry.map_err(|e| format!("{}: {e}", folder.display()))?.path();
        let named = |name: &str| path.file_stem().is_some_and(|stem| stem == name);
        if named("tests") {
            continue;
        }
        if path.is_dir() {
            list(&path, files)?;
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

struct Finder<'a> {
    text: &'a str,
    file: String,
    sites: Vec<Site>,
}

impl Finder<'_> {
    fn source(&self, span: Span) -> &str {
        &self.text[span.byte_range()]
    }

    fn push(&mut self, span: Span, change: Change, what: String) {
        let line = span.start().line;
        let what = what.split_whitespace().collect::<Vec<_>>().join(" ");
        self.sites.push(Site { file: self.file.clone(), line, range: span.byte_range(), change, what });
    }

    fn replace(&mut self, span: Span, by: String) {
        let what = format!("{} -> {by}", self.source(span));
        self.push(span, Change::Expr(by), what);
    }

    fn negate(&mut self, condition: &Expr) {
        if !has_let(condition) {
            self.replace(condition.span(), format!("!({})", self.source(condition.span())));
        }
    }

    /// A body that returns at once, where its type has a plain value.
    fn give_up(&mut self, name: &str, output: &ReturnType, body: &syn::Block) {
        let ReturnType::Type(_, ty) = output else { return };
        let Type::Path(path) = &**ty else { return };
        let Some(last) = path.path.segments.last() else { return };
        let values: &[&str] = match last.ident.to_string().as_str() {
            "bool" => &["true", "false"],
            "Option" => &["None"],
            "Vec" => &["Vec::new()"],
            "usize" | "u64" | "i64" => &["0"],
            _ => &[],
        };
        for value in values {
            let at = body.brace_token.span.open();
            let what = format!("fn {name} returns {value}");
            self.push(at, Change::Return((*value).to_owned()), what);
        }
    }
}

/// Whether an expression binds names (`if let ... && ...`), and so cannot be wrapped.
fn has_let(expr: &Expr) -> bool {
    struct Lets(bool);
    impl<'ast> Visit<'ast> for Lets {
        fn visit_expr_let(&mut self, _: &'ast syn::ExprLet) {
            self.0 = true;
        }
        fn visit_expr_closure(&mut self, _: &'ast syn::ExprClosure) {}
        fn visit_block(&mut self, _: &'ast syn::Block) {}
    }
    let mut lets = Lets(false);
    lets.visit_expr(expr);
    lets.0
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|a| {
        a.path().is_ident("test")
            || (a.path().is_ident("cfg") && a.meta.require_list().is_ok_and(|l| l.tokens.to_string().contains("test")))
    })
}

fn opposite(op: &BinOp) -> Option<&'static str> {
    match op {
        BinOp::Eq(_) => Some("!="),
        BinOp::Ne(_) => Some("=="),
        BinOp::Lt(_) => Some("<="),
        BinOp::Le(_) => Some("<"),
        BinOp::Gt(_) => Some(">="),
        BinOp::Ge(_) => Some(">"),
        BinOp::And(_) => Some("||"),
        BinOp::Or(_) => Some("&&"),
        BinOp::Add(_) => Some("-"),
        BinOp::Sub(_) | BinOp::Mul(_) => Some("+"),
        BinOp::Div(_) | BinOp::Rem(_) => Some("*"),
        _ => None,
    }
}

fn opposite_call(name: &str) -> Option<&'static str> {
    let pairs = [
        ("any", "all"),
        ("min", "max"),
        ("is_some", "is_none"),
        ("first", "last"),
        ("skip", "take"),
        ("min_by", "max_by"),
        ("min_by_key", "max_by_key"),
        ("is_some_and", "is_none_or"),
        ("starts_with", "ends_with"),
    ];
    pairs.iter().find_map(|&(a, b)| if name == a { Some(b) } else { (name == b).then_some(a) })
}

impl<'ast> Visit<'ast> for Finder<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        match item {
            Item::Const(_) | Item::Static(_) | Item::Macro(_) => {}
            Item::Mod(module) if is_test(&module.attrs) => {}
            Item::Fn(function) if is_test(&function.attrs) || function.sig.constness.is_some() => {}
            _ => visit::visit_item(self, item),
        }
    }

    fn visit_item_fn(&mut self, function: &'ast ItemFn) {
        self.give_up(&function.sig.ident.to_string(), &function.sig.output, &function.block);
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast ImplItemFn) {
        if function.sig.constness.is_none() {
            self.give_up(&function.sig.ident.to_string(), &function.sig.output, &function.block);
            visit::visit_impl_item_fn(self, function);
        }
    }

    fn visit_impl_item_const(&mut self, _: &'ast syn::ImplItemConst) {}

    fn visit_pat(&mut self, pat: &'ast syn::Pat) {
        if let syn::Pat::Guard(guarded) = pat {
            self.negate(&guarded.guard);
            self.visit_expr(&guarded.guard);
        }
    }

    fn visit_type(&mut self, _: &'ast Type) {}

    fn visit_stmt(&mut self, stmt: &'ast Stmt) {
        if let Stmt::Expr(Expr::MethodCall(_) | Expr::Call(_), Some(_)) = stmt {
            self.push(stmt.span(), Change::Omit, format!("{} -> (left out)", self.source(stmt.span())));
        }
        visit::visit_stmt(self, stmt);
    }

    fn visit_expr(&mut self, expr: &'ast Expr) {
        match expr {
            Expr::Binary(binary) => {
                if let Some(op) = opposite(&binary.op).filter(|_| !has_let(expr)) {
                    let (left, right) = (self.source(binary.left.span()), self.source(binary.right.span()));
                    self.replace(expr.span(), format!("{left} {op} {right}"));
                }
            }
            Expr::Unary(unary) if matches!(unary.op, UnOp::Not(_)) => {
                self.replace(expr.span(), self.source(unary.expr.span()).to_owned());
            }
            Expr::If(if_) => self.negate(&if_.cond),
            Expr::Lit(lit) => {
                if let Lit::Int(int) = &lit.lit
                    && let Ok(number) = int.base10_parse::<u64>()
                {
                    self.replace(expr.span(), format!("{}{}", number + 1, int.suffix()));
                }
            }
            Expr::MethodCall(call) => {
                if let Some(other) = opposite_call(&call.method.to_string()) {
                    let (whole, name) = (expr.span().byte_range(), call.method.span().byte_range());
                    let text =
                        format!("{}{other}{}", &self.text[whole.start..name.start], &self.text[name.end..whole.end]);
                    self.replace(expr.span(), text);
                }
            }
            _ => {}
        }
        visit::visit_expr(self, expr);
    }
}
