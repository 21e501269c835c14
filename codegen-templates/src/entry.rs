//! The text of an entry: the few lines that instantiate a family's template, and the parameters of its launch.
//!
//! Contract: [`Args`] declares a parameter and says what the launch passes for it in one call, so that the two cannot
//! disagree. Not here: what the lines say, which the families know.

use std::sync::LazyLock;

use serde::Serialize;
use tera::{Context, Tera};

use crate::candidate::{ENTRY, Param, Source};
use crate::extent::Expr;

/// An entry, to be printed by [`source`].
#[derive(Debug, Serialize)]
pub struct Entry<'a> {
    /// What it computes, in one line.
    pub title: String,
    pub headers: &'a [&'a str],
    /// Structs in front of the entry: policy, epilogue, checks of what the launch relies on.
    pub declarations: Vec<String>,
    /// The most threads of a block.
    pub threads: u32,
    /// The statement that runs the kernel, without its semicolon.
    pub call: String,
}

/// The parameters of an entry, and what a launch passes for them.
#[derive(Clone, Debug, Default)]
pub struct Args {
    declared: Vec<String>,
    pub params: Vec<Param>,
}

impl Args {
    /// A pointer to elements of `ctype`, such as `const f16` or `float`.
    pub fn pointer(&mut self, ctype: &str, name: &str, param: Param) {
        self.add(&format!("{ctype}*"), name, param);
    }

    /// An extent below 2^31.
    pub fn int(&mut self, name: &str, value: &Expr) {
        self.add("int", name, Param::I32(value.clone()));
    }

    /// An extent or a stride of any size.
    pub fn long(&mut self, name: &str, value: &Expr) {
        self.add("i64", name, Param::I64(value.clone()));
    }

    /// A constant of the model.
    pub fn float(&mut self, name: &str, value: f32) {
        self.add("float", name, Param::F32(value));
    }

    /// The handle of conditional node `k` of the step.
    pub fn handle(&mut self, name: &str, k: usize) {
        self.add("u64", name, Param::Handle(k));
    }

    fn add(&mut self, ctype: &str, name: &str, param: Param) {
        self.declared.push(format!("{ctype} {name}"));
        self.params.push(param);
    }
}

/// Operand `k` from its first element on.
pub fn input(k: usize) -> Param {
    Param::Input(k, Expr::constant(0))
}

/// Result `k` from its first element on.
pub fn output(k: usize) -> Param {
    Param::Output(k, Expr::constant(0))
}

/// The columns that a line of a printed text stays within, as far as its words allow.
const WIDTH: usize = 110;

/// `items` with commas between them, broken into lines that continue behind `indent`; the first begins at `column`.
pub fn wrap<S: AsRef<str>>(items: &[S], column: usize, indent: &str) -> String {
    let mut text = String::new();
    let mut at = column;
    for (k, item) in items.iter().enumerate() {
        let item = item.as_ref();
        let comma = usize::from(k + 1 < items.len());
        if k > 0 && at + 1 + item.len() + comma > WIDTH {
            text.push('\n');
            text.push_str(indent);
            at = indent.len();
        } else if k > 0 {
            text.push(' ');
            at += 1;
        }
        text.push_str(item);
        text.push_str(&","[..comma]);
        at += item.len() + comma;
    }
    text
}

const TEMPLATE: &str = "entry.cu";

static TEMPLATES: LazyLock<Tera> = LazyLock::new(|| {
    let mut tera = Tera::new();
    match tera.add_raw_template(TEMPLATE, include_str!("entry.cu.tera")) {
        Ok(()) => tera,
        Err(error) => panic!("internal error: the entry's template is wrong: {error}"),
    }
});

/// Prints an entry. `stem` says what the kernel does, in words that fit an identifier.
pub fn source(stem: String, entry: &Entry<'_>, args: &Args) -> Source {
    let text = Context::from_serialize(entry).and_then(|mut context| {
        context.insert("entry", ENTRY);
        context.insert("parameters", &wrap(&args.declared, "void name_of_the_kernel_01234567(".len(), "    "));
        TEMPLATES.render(TEMPLATE, &context)
    });
    match text {
        Ok(text) => Source { stem, text },
        Err(error) => panic!("internal error: the entry of {stem} does not print: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_reads_like_code() {
        let mut args = Args::default();
        args.pointer("const f16", "x", input(0));
        args.pointer("f16", "y", output(0));
        args.int("n", &Expr::symbol("n"));
        let entry = Entry {
            title: "y = 2 x".to_owned(),
            headers: &["families/double/kernel.cuh"],
            declarations: vec!["struct Policy {\n  using T = f16;\n};".to_owned()],
            threads: 256,
            call: "twice<Policy>({x, y, n})".to_owned(),
        };
        let source = source("double".to_owned(), &entry, &args);
        let expected = "// y = 2 x
#include \"families/double/kernel.cuh\"
using namespace lapidary;

struct Policy {
  using T = f16;
};

extern \"C\" __global__ __launch_bounds__(256, 1)
void LAPIDARY_ENTRY(const f16* x, f16* y, int n LAPIDARY_TRACE_PARAM) {
  LAPIDARY_TRACE_BEGIN;
  twice<Policy>({x, y, n});
  LAPIDARY_TRACE_END;
}
";
        assert_eq!(source.text, expected);
        assert_eq!(args.params, [input(0), output(0), Param::I32(Expr::symbol("n"))]);
    }

    #[test]
    fn long_lists_go_over_several_lines() {
        let items: Vec<String> = (0..20).map(|k| format!("int extent{k}")).collect();
        let text = wrap(&items, 40, "    ");
        assert!(text.lines().count() == 3 && text.lines().skip(1).all(|line| line.starts_with("    int")), "{text}");
        assert!(text.lines().all(|line| line.len() <= WIDTH));
        assert_eq!(text.split_whitespace().count(), 40);
    }
}
