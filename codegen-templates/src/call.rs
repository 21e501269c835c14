//! A call of a kernel under construction: its policy, its arguments with the parameters behind them, in the end its
//! launch.
//!
//! Contract: arguments are added in the order of the kernel's `Params`, so that an argument, its parameter and what the
//! launch passes for it cannot part. Not here: which kernel and which policy, which the families know.

use crate::candidate::{Launch, Param};
use crate::entry::{Args, Entry, source, wrap};
use crate::extent::Expr;
use crate::view::Index;

/// Where an operand of a kernel lies.
#[derive(Clone, Debug, PartialEq)]
pub enum Place {
    /// Operand `0` of the problem, from its element `1` on.
    Input(usize, Expr),
    /// Result `0` of the problem, from its element `1` on.
    Output(usize, Expr),
    /// Scratch buffer `0` of the candidate.
    Workspace(usize),
    /// Nowhere: an optional operand or result that is not there.
    Absent,
}

impl Place {
    /// A whole operand.
    pub fn input(k: usize) -> Place {
        Place::Input(k, Expr::constant(0))
    }

    /// A whole result.
    pub fn output(k: usize) -> Place {
        Place::Output(k, Expr::constant(0))
    }

    /// The same place, `elements` further on. Scratch buffers are used from their start alone.
    pub fn offset(self, elements: &Expr) -> Place {
        match self {
            Place::Input(k, at) => Place::Input(k, at + elements.clone()),
            Place::Output(k, at) => Place::Output(k, at + elements.clone()),
            Place::Workspace(_) | Place::Absent => self,
        }
    }
}

/// The type that an extent has in the kernel's `Params`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum As {
    /// `i64`.
    Wide,
    /// `int`.
    Int,
    /// The policy's type of positions.
    Index(Index),
}

/// A call under construction.
#[derive(Clone, Debug)]
pub struct Call {
    header: String,
    stem: String,
    title: String,
    declarations: Vec<String>,
    members: Vec<String>,
    args: Args,
    arguments: Vec<String>,
}

impl Call {
    /// A call of a family's kernel. `stem` goes into the kernel's name, `title` says in one line what it computes.
    pub fn new(family: &str, stem: impl Into<String>, title: impl Into<String>) -> Call {
        Call {
            header: format!("families/{family}/kernel.cuh"),
            stem: stem.into(),
            title: title.into(),
            declarations: Vec::new(),
            members: Vec::new(),
            args: Args::default(),
            arguments: Vec::new(),
        }
    }

    /// Text in front of the policy.
    pub fn declare(&mut self, text: String) {
        self.declarations.push(text);
    }

    /// A type of the policy.
    pub fn using(&mut self, name: &str, is: &str) {
        self.members.push(format!("using {name} = {is};"));
    }

    /// Integer constants of the policy, in one line.
    pub fn ints(&mut self, values: &[(&str, i64)]) {
        let values: Vec<String> = values.iter().map(|(name, value)| format!("{name} = {value}")).collect();
        self.constant("int", &values.join(", "));
    }

    /// A constant of the policy; `definition` is its name and value, such as `LOG = true`.
    pub fn constant(&mut self, ty: &str, definition: &str) {
        self.members.push(format!("static constexpr {ty} {definition};"));
    }

    /// The next argument: a pointer to `ctype`, such as `const void`.
    pub fn pointer(&mut self, ctype: &str, name: &str, place: &Place) {
        let argument = self.place(ctype, name, place);
        self.arguments.push(argument);
    }

    /// The next argument: an array of pointers named `<prefix>0` and so on.
    pub fn pointers(&mut self, ctype: &str, prefix: &str, places: &[Place]) {
        let named = places.iter().enumerate();
        let mut inner: Vec<String> =
            named.map(|(k, place)| self.place(ctype, &format!("{prefix}{k}"), place)).collect();
        if inner.is_empty() {
            inner.push("nullptr".to_owned());
        }
        self.arguments.push(braced(&inner));
    }

    fn place(&mut self, ctype: &str, name: &str, place: &Place) -> String {
        let value = match place {
            Place::Input(k, at) => Param::Input(*k, at.clone()),
            Place::Output(k, at) => Param::Output(*k, at.clone()),
            Place::Workspace(k) => Param::Workspace(*k, Expr::constant(0)),
            Place::Absent => return "nullptr".to_owned(),
        };
        self.args.pointer(ctype, name, value);
        name.to_owned()
    }

    /// The next argument: an extent, a stride, a count.
    pub fn extent(&mut self, name: &str, value: &Expr, ty: As) {
        let argument = self.number(name.to_owned(), value, ty);
        self.arguments.push(argument);
    }

    /// The next argument: an array of extents named `<prefix>0` and so on.
    pub fn extents(&mut self, prefix: &str, values: &[Expr], ty: As) {
        let argument = self.list(prefix, values, ty);
        self.arguments.push(argument);
    }

    /// The next argument: an array of arrays of extents, those of the `k`-th named `<prefix><k>_0` and so on; `None`
    /// is an array that the kernel does not read.
    pub fn lists(&mut self, prefix: &str, lists: &[Option<&[Expr]>], ty: As) {
        let list = |(k, values): (usize, &Option<&[Expr]>)| match values {
            Some(values) => self.list(&format!("{prefix}{k}_"), values, ty),
            None => "{}".to_owned(),
        };
        let all: Vec<String> = lists.iter().enumerate().map(list).collect();
        let read = lists.iter().any(Option::is_some);
        self.arguments.push(if read { braced(&all) } else { "{}".to_owned() });
    }

    fn list(&mut self, prefix: &str, values: &[Expr], ty: As) -> String {
        let named = values.iter().enumerate();
        let inner: Vec<String> = named.map(|(k, value)| self.number(format!("{prefix}{k}"), value, ty)).collect();
        braced(&inner)
    }

    fn number(&mut self, name: String, value: &Expr, ty: As) -> String {
        match ty {
            As::Wide | As::Index(Index::I64) => self.args.long(&name, value),
            As::Int | As::Index(Index::I32) => self.args.int(&name, value),
        }
        name
    }

    /// The next argument: a float.
    pub fn float(&mut self, name: &str, value: f32) {
        self.args.float(name, value);
        self.arguments.push(name.to_owned());
    }

    /// The next argument: an array of floats named `<prefix>0` and so on.
    pub fn floats(&mut self, prefix: &str, values: &[f32]) {
        let mut inner = Vec::new();
        for (k, &value) in values.iter().enumerate() {
            let name = format!("{prefix}{k}");
            self.args.float(&name, value);
            inner.push(name);
        }
        self.arguments.push(braced(&inner));
    }

    /// The next argument: the handle of conditional node `k` of the step.
    pub fn handle(&mut self, name: &str, k: usize) {
        self.args.handle(name, k);
        self.arguments.push(name.to_owned());
    }

    /// The next argument, as text that needs no parameter.
    pub fn literal(&mut self, text: &str) {
        self.arguments.push(text.to_owned());
    }

    /// The launch of `function`, such as `copy::run`, on `blocks` thread blocks of `threads` threads.
    pub fn launch(self, function: &str, threads: u32, blocks: Expr) -> Launch {
        self.launch_with(function, threads, blocks, 0)
    }

    /// The launch with `shared` bytes of dynamic shared memory.
    pub fn launch_with(mut self, function: &str, threads: u32, blocks: Expr, shared: u32) -> Launch {
        let members: String = self.members.iter().map(|member| format!("  {member}\n")).collect();
        self.declarations.push(format!("struct Policy {{\n{members}}};"));
        let template = if self.declarations.len() > 1 { "<Policy, Program>" } else { "<Policy>" };
        let opening = format!("{function}{template}({{");
        let entry = Entry {
            title: self.title,
            headers: &[&self.header],
            declarations: self.declarations,
            threads,
            call: format!("{opening}{}}})", wrap(&self.arguments, opening.len() + 2, "      ")),
        };
        Launch {
            source: source(self.stem, &entry, &self.args),
            grid: [blocks, Expr::constant(1), Expr::constant(1)],
            block: [threads, 1, 1],
            shared,
            params: self.args.params,
        }
    }
}

fn braced(items: &[String]) -> String {
    format!("{{{}}}", items.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_parameters_and_values_go_together() {
        let mut call = Call::new("copy", "copy_b32", "Copies a view");
        call.using("Index", "i32");
        call.ints(&[("RANK", 1), ("VEC", 4)]);
        call.pointer("const void", "x", &Place::input(0).offset(&Expr::constant(3)));
        call.pointer("const void", "value", &Place::Absent);
        call.pointer("void", "y", &Place::Workspace(1));
        call.extents("d", &[Expr::symbol("n")], As::Index(Index::I32));
        call.lists("s", &[None, Some(&[Expr::constant(1)])], As::Wide);
        call.float("p", 0.5);
        let launch = call.launch("copy::run", 256, Expr::constant(7));
        assert_eq!(
            launch.source.text,
            "// Copies a view\n#include \"families/copy/kernel.cuh\"\nusing namespace lapidary;\n\n\
             struct Policy {\n  using Index = i32;\n  static constexpr int RANK = 1, VEC = 4;\n};\n\n\
             extern \"C\" __global__ __launch_bounds__(256, 1)\n\
             void LAPIDARY_ENTRY(const void* x, void* y, int d0, i64 s1_0, float p LAPIDARY_TRACE_PARAM) {\n  \
             LAPIDARY_TRACE_BEGIN;\n  copy::run<Policy>({x, nullptr, y, {d0}, {{}, {s1_0}}, p});\n  \
             LAPIDARY_TRACE_END;\n}\n"
        );
        let expected = [
            Param::Input(0, Expr::constant(3)),
            Param::Workspace(1, Expr::constant(0)),
            Param::I32(Expr::symbol("n")),
            Param::I64(Expr::constant(1)),
            Param::F32(0.5),
        ];
        assert_eq!(launch.params, expected);
    }
}
