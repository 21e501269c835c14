//! What is said to the user: diagnostics with a place, a reason and a help, collected rather than thrown one by one.
//!
//! A mistake in what the user gave is a [`Diagnostic`]; a mistake of ours is [`bug!`](crate::bug). There is no third
//! kind. Every code is a line of [`CODES`]; tests hold the table unique and complete. Texts quote names from the
//! model through [`quoted`], so a hostile name can neither forge a line nor fill the terminal. This file prints
//! nothing and decides no exit status: the CLI does.

use std::collections::BTreeSet;
use std::fmt;

/// A value, or everything that is wrong with what it would have been made from.
pub type Result<T> = std::result::Result<T, Diagnostics>;

/// One thing that the user should know. Ordered by severity, then place, so that a sorted list is the report.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Diagnostic {
    /// How grave it is.
    pub severity: Severity,
    /// Where it is.
    pub at: Place,
    /// Its entry in [`CODES`], such as `E0102`.
    pub code: &'static str,
    /// What is wrong, in one line.
    pub what: String,
    /// Why that is wrong, or how it came about; empty where `what` says all.
    pub why: String,
    /// What to do about it; empty where nothing can be done.
    pub help: String,
}

/// How grave a diagnostic is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Nothing is compiled.
    Error,
    /// It is compiled, but perhaps not as the user wants.
    Warning,
    /// For information.
    Note,
}

/// Where in the user's input something is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The model as a whole.
    Model,
    /// A file, and the byte in it where that is known. The path is as the user or the model gave it.
    File {
        /// The path.
        path: String,
        /// Bytes from the start of the file.
        offset: Option<u64>,
    },
    /// A tensor that the model stores.
    Tensor {
        /// Its name; empty for one that has none.
        name: String,
    },
    /// A graph input, a graph output or the result of a node.
    Value {
        /// Its name.
        name: String,
    },
    /// A node of a graph.
    Node {
        /// Its name; often empty.
        name: String,
        /// The operator.
        op: String,
        /// The operator's domain; empty for `ai.onnx`.
        domain: String,
        /// The first value it produces: names the node where it has no name.
        output: String,
    },
}

/// Diagnostics, each once, in a fixed order: errors first, then by place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnostics {
    items: BTreeSet<Diagnostic>,
}

/// A kind of diagnostic.
#[derive(Clone, Copy, Debug)]
pub struct Code {
    /// Such as `E0102`; never given to another meaning.
    pub code: &'static str,
    /// What it stands for, in one line.
    pub meaning: &'static str,
}

/// Every code there is, ascending. E01: files and models; E02: stored tensors; E03: attributes of nodes; E04: graphs and operators.
pub const CODES: &[Code] = &[
    Code { code: "E0101", meaning: "a file cannot be read" },
    Code { code: "E0102", meaning: "the bytes are not an ONNX model" },
    Code { code: "E0103", meaning: "the model has no graph" },
    Code { code: "E0104", meaning: "the model's IR version is not supported" },
    Code { code: "E0105", meaning: "the model's operator set version is missing or not supported" },
    Code { code: "E0106", meaning: "a domain is imported with two different versions" },
    Code { code: "E0107", meaning: "the model is too large in structure" },
    Code { code: "E0201", meaning: "an element type is not supported" },
    Code { code: "E0202", meaning: "a tensor's dimensions are impossible" },
    Code { code: "E0203", meaning: "a tensor has more or less data than its dimensions ask for" },
    Code { code: "E0204", meaning: "a tensor's data is not where its element type is stored" },
    Code { code: "E0205", meaning: "a stored number does not fit its element type" },
    Code { code: "E0206", meaning: "a tensor is stored in segments" },
    Code { code: "E0210", meaning: "an external data file lies outside the model's folder" },
    Code { code: "E0211", meaning: "an external data file cannot be read" },
    Code { code: "E0212", meaning: "a tensor's external data runs past the end of its file" },
    Code { code: "E0213", meaning: "a tensor's external data entry is malformed" },
    Code { code: "E0220", meaning: "a sparse tensor is malformed" },
    Code { code: "E0221", meaning: "a model's sparse tensors are too large to be stored densely" },
    Code { code: "E0301", meaning: "a required attribute is missing" },
    Code { code: "E0302", meaning: "an attribute has another type than its operator defines" },
    Code { code: "E0303", meaning: "an attribute has a value that its operator does not define" },
    Code { code: "E0304", meaning: "a node gives an attribute twice" },
    Code { code: "E0305", meaning: "a node has an attribute that its operator does not define" },
    Code { code: "E0306", meaning: "an attribute refers to an attribute of a function that is not there" },
    Code { code: "E0401", meaning: "an operator, or something that a node asks of one, is not supported" },
    Code { code: "E0402", meaning: "a value is defined twice" },
    Code { code: "E0403", meaning: "the nodes form a cycle" },
    Code { code: "E0404", meaning: "a tensor has too many axes" },
    Code { code: "E0405", meaning: "an input is not a tensor of known rank" },
    Code { code: "E0406", meaning: "a profile names a dimension that the model does not have" },
    Code { code: "E0407", meaning: "a node and its operands do not fit together" },
    Code { code: "E0408", meaning: "nothing computes an output" },
    Code { code: "E0409", meaning: "a function of the model cannot be expanded" },
    Code { code: "E0410", meaning: "an input has no name" },
    Code {
        code: "E0411",
        meaning: "no shape, or not the typical one of a profile, satisfies what the model relies on",
    },
    Code { code: "E0412", meaning: "an input is too large for any memory" },
    Code { code: "E0413", meaning: "an input cannot be given the value that the caller fixes" },
    Code { code: "E0414", meaning: "an input cannot have the elements or the rank that the caller states" },
    Code { code: "E0415", meaning: "an input or output cannot have the format that the caller asks for" },
    Code { code: "E0501", meaning: "a target has no kernel for an operation" },
    Code { code: "E0502", meaning: "neighbours were not fused, for a reason that the caller denies" },
    Code { code: "E0601", meaning: "kernels must be compiled and no CUDA compiler was found" },
    Code { code: "E0602", meaning: "the CUDA compiler does not know an architecture" },
    Code { code: "E0603", meaning: "the CUDA compiler cannot work" },
];

impl Diagnostic {
    /// An error. Add the reason and the help with [`why`](Self::why) and [`help`](Self::help).
    pub fn error(code: &'static str, at: Place, what: impl Into<String>) -> Diagnostic {
        Diagnostic::new(Severity::Error, code, at, what.into())
    }

    /// A warning.
    pub fn warning(code: &'static str, at: Place, what: impl Into<String>) -> Diagnostic {
        Diagnostic::new(Severity::Warning, code, at, what.into())
    }

    /// A note.
    pub fn note(code: &'static str, at: Place, what: impl Into<String>) -> Diagnostic {
        Diagnostic::new(Severity::Note, code, at, what.into())
    }

    /// Says why it is wrong.
    #[must_use]
    pub fn why(mut self, why: impl Into<String>) -> Diagnostic {
        self.why = why.into();
        self
    }

    /// Says what to do.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Diagnostic {
        self.help = help.into();
        self
    }

    fn new(severity: Severity, code: &'static str, at: Place, what: String) -> Diagnostic {
        Diagnostic { severity, at, code, what, why: String::new(), help: String::new() }
    }
}

impl Place {
    /// A stored tensor, by name.
    pub fn tensor(name: &str) -> Place {
        Place::Tensor { name: name.to_owned() }
    }

    /// A value, by name.
    pub fn value(name: &str) -> Place {
        Place::Value { name: name.to_owned() }
    }

    /// A whole file.
    pub fn file(path: impl Into<String>) -> Place {
        Place::File { path: path.into(), offset: None }
    }
}

impl Diagnostics {
    /// None yet.
    pub fn new() -> Diagnostics {
        Diagnostics::default()
    }

    /// Adds one.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.items.insert(diagnostic);
    }

    /// Adds all of another collection.
    pub fn append(&mut self, other: Diagnostics) {
        self.items.extend(other.items);
    }

    /// The value of `result`; where it failed, its diagnostics are added here, and the caller goes on to find more.
    pub fn keep<T>(&mut self, result: Result<T>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(found) => {
                self.append(found);
                None
            }
        }
    }

    /// Fails with everything collected if an error is among it; warnings and notes alone stay here.
    ///
    /// # Errors
    /// What was collected, which leaves `self` empty.
    pub fn check(&mut self) -> Result<()> {
        if self.has_errors() { Err(std::mem::take(self)) } else { Ok(()) }
    }

    /// `value`, unless an error was collected. Warnings and notes are dropped; use [`check`](Self::check) to keep them.
    ///
    /// # Errors
    /// What was collected.
    pub fn or<T>(self, value: T) -> Result<T> {
        if self.has_errors() { Err(self) } else { Ok(value) }
    }

    /// Whether an error is among them.
    pub fn has_errors(&self) -> bool {
        self.items.first().is_some_and(|first| first.severity == Severity::Error)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// All of them, errors first.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.items.iter()
    }
}

impl From<Diagnostic> for Diagnostics {
    fn from(diagnostic: Diagnostic) -> Diagnostics {
        Diagnostics { items: BTreeSet::from([diagnostic]) }
    }
}

impl FromIterator<Diagnostic> for Diagnostics {
    fn from_iter<I: IntoIterator<Item = Diagnostic>>(items: I) -> Diagnostics {
        Diagnostics { items: items.into_iter().collect() }
    }
}

impl Extend<Diagnostic> for Diagnostics {
    fn extend<I: IntoIterator<Item = Diagnostic>>(&mut self, items: I) {
        self.items.extend(items);
    }
}

impl IntoIterator for Diagnostics {
    type Item = Diagnostic;
    type IntoIter = std::collections::btree_set::IntoIter<Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.items.into_iter()
    }
}

impl std::error::Error for Diagnostic {}
impl std::error::Error for Diagnostics {}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]: {}\n  --> {}", self.severity, self.code, cut(&self.what), self.at)?;
        for (label, text) in [("why", &self.why), ("help", &self.help)] {
            if !text.is_empty() {
                write!(f, "\n  = {label}: {}", cut(text).replace('\n', "\n    "))?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, diagnostic) in self.items.iter().enumerate() {
            if i > 0 {
                f.write_str("\n\n")?;
            }
            write!(f, "{diagnostic}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Model => f.write_str("the model"),
            Place::File { path, offset: None } => write!(f, "file {}", quoted(path)),
            Place::File { path, offset: Some(offset) } => {
                write!(f, "file {} at byte {offset}", quoted(path))
            }
            Place::Tensor { name } if name.is_empty() => f.write_str("a tensor without a name"),
            Place::Tensor { name } => write!(f, "tensor {}", quoted(name)),
            Place::Value { name } => write!(f, "value {}", quoted(name)),
            Place::Node { name, op, domain, output } => {
                if name.is_empty() {
                    write!(f, "node that produces {}", quoted(output))?;
                } else {
                    write!(f, "node {}", quoted(name))?;
                }
                // An operator's name is printed bare, so it must not be able to carry anything else.
                let bare = |text: &str| quoted(text).trim_matches('"').to_owned();
                if domain.is_empty() {
                    write!(f, " ({})", bare(op))
                } else {
                    write!(f, " ({}::{})", bare(domain), bare(op))
                }
            }
        }
    }
}

/// `text`, cut where it is longer than anybody reads: formulas hold names from the model.
fn cut(text: &str) -> std::borrow::Cow<'_, str> {
    const LONGEST: usize = 4000;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &text[..end]).into(),
        None => text.into(),
    }
}

/// `text` in double quotes, control characters escaped, cut after 120 characters.
pub fn quoted(text: &str) -> String {
    const LONGEST: usize = 120;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// Ends the process with an internal error: Lapidary broke its own rule, and the user's model is not at fault.
///
/// `bug!("format", args..)`, or `bug!(dump: value; "format", args..)`, where `value` implements `Display` and is what
/// somebody needs to see who mends it: the IR, the plan.
#[macro_export]
macro_rules! bug {
    (dump: $dump:expr; $($message:tt)+) => {
        $crate::diag::internal_error(&::std::format!($($message)+), &::std::format!("\n--- dump ---\n{}\n--- end of dump ---", $dump))
    };
    ($($message:tt)+) => {
        $crate::diag::internal_error(&::std::format!($($message)+), "")
    };
}

/// What [`bug!`](crate::bug) expands to.
#[cold]
#[track_caller]
#[doc(hidden)]
pub fn internal_error(message: &str, dump: &str) -> ! {
    let version = env!("CARGO_PKG_VERSION");
    panic!(
        "internal error: {message}\n  = why: this is a mistake in lapidary {version}, not in the model\n  \
         = help: please report it, with this text and the model if you can share it{dump}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn conv() -> Place {
        Place::Node { name: "Conv_3".into(), op: "Conv".into(), domain: String::new(), output: "y".into() }
    }

    #[test]
    fn it_reads_like_a_compiler() {
        let text = Diagnostic::error("E0301", conv(), "attribute \"axis\" is missing")
            .why("Conv needs it")
            .help("export again\nwith an axis")
            .to_string();
        assert_eq!(
            text,
            "error[E0301]: attribute \"axis\" is missing\n  --> node \"Conv_3\" (Conv)\n  \
             = why: Conv needs it\n  = help: export again\n    with an axis"
        );
    }

    #[test]
    fn places_name_what_they_can() {
        let node = |name: &str, domain: &str| {
            Place::Node { name: name.into(), op: "Gelu".into(), domain: domain.into(), output: "y".into() }.to_string()
        };
        assert_eq!(node("", ""), "node that produces \"y\" (Gelu)");
        assert_eq!(node("n", "com.microsoft"), "node \"n\" (com.microsoft::Gelu)");
        assert_eq!(Place::file("m.onnx").to_string(), "file \"m.onnx\"");
        assert_eq!(Place::File { path: "m.onnx".into(), offset: Some(7) }.to_string(), "file \"m.onnx\" at byte 7");
    }

    #[test]
    fn names_cannot_forge_lines_or_flood() {
        assert_eq!(quoted("a\n\x1b[31merror"), r#""a\n\u{1b}[31merror""#);
        assert!(quoted(&"é".repeat(1 << 20)).len() < 300);
        let mut place = conv();
        if let Place::Node { op, .. } = &mut place {
            *op = "x\n  --> y".into();
        }
        assert!(!place.to_string().contains('\n'));
        let long = Diagnostic::error("E0407", conv(), "é".repeat(1 << 20)).why("x".repeat(1 << 20));
        assert!(long.to_string().len() < 20_000);
    }

    #[test]
    fn order_does_not_depend_on_arrival() {
        let warning = Diagnostic::warning("E0102", Place::Model, "w");
        let error = Diagnostic::error("E0301", conv(), "e");
        let mut one = Diagnostics::from(warning.clone());
        assert!(!one.has_errors());
        assert!(one.check().is_ok() && one.len() == 1);
        one.push(error.clone());
        let two: Diagnostics = [error.clone(), warning, error.clone()].into_iter().collect();
        assert_eq!(one, two);
        assert_eq!(two.iter().next(), Some(&error));
        assert!(one.check().is_err() && one.is_empty());
    }

    #[test]
    fn keep_goes_on_after_a_failure() {
        let mut all = Diagnostics::new();
        assert_eq!(all.keep(Ok(1)), Some(1));
        let failed: Result<i32> = Err(Diagnostic::error("E0301", conv(), "e").into());
        assert_eq!(all.keep(failed), None);
        assert!(all.or(()).is_err());
    }

    #[test]
    #[should_panic(expected = "internal error: 2 regions\n  = why: this is a mistake in lapidary")]
    fn a_bug_asks_to_be_reported() {
        bug!(dump: "graph { }"; "{} regions", 2)
    }

    #[test]
    fn codes_are_unique_and_ascending() {
        for pair in CODES.windows(2) {
            assert!(pair[0].code < pair[1].code, "{} before {}", pair[0].code, pair[1].code);
        }
    }

    /// A code in the sources that is not in the table has no meaning; one in the table alone is dead.
    #[test]
    fn the_table_holds_exactly_the_codes_in_use() {
        let mut used = BTreeSet::new();
        let root = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it");
        let root = Path::new(&root).join("src");
        assert!(root.is_dir(), "sources are missing: {}", root.display());
        collect_codes(&root, &mut used);
        let table: BTreeSet<String> = CODES.iter().map(|c| c.code.to_owned()).collect();
        let unknown: Vec<_> = used.difference(&table).collect();
        let dead: Vec<_> = table.difference(&used).collect();
        assert!(unknown.is_empty(), "not in diag::CODES: {unknown:?}");
        assert!(dead.is_empty(), "in diag::CODES, used nowhere: {dead:?}");
    }

    fn collect_codes(folder: &Path, used: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).expect("a readable folder") {
            let path = entry.expect("a readable entry").path();
            if path.is_dir() {
                collect_codes(&path, used);
            } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("src/diag.rs") {
                let text = std::fs::read_to_string(&path).expect("a readable file");
                for (at, _) in text.match_indices("\"E") {
                    let digits = text.get(at + 2..at + 6).unwrap_or("");
                    let closed = text.get(at + 6..at + 7) == Some("\"");
                    if closed && digits.bytes().all(|b| b.is_ascii_digit()) {
                        used.insert(format!("E{digits}"));
                    }
                }
            }
        }
    }
}
