//! Rust identifiers from ONNX names, which may be anything: `serving_default_input_2:0`, `1252`, `type`, none at all.

use std::collections::BTreeSet;

/// Words that cannot be an identifier in edition 2024 (The Rust Reference, "Keywords").
const KEYWORDS: [&str; 53] = [
    "_", "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "crate", "do", "dyn",
    "else", "enum", "extern", "false", "final", "fn", "for", "gen", "if", "impl", "in", "let", "loop", "macro",
    "match", "mod", "move", "mut", "override", "priv", "pub", "ref", "return", "self", "static", "struct", "super",
    "trait", "true", "try", "type", "typeof", "union", "unsafe", "unsized", "use", "virtual", "where", "while",
    "yield",
];

/// Types that the emitted crate, its test and its example name: their own, the runtime's and the prelude's.
const TYPES: &str = "Aligned BF16 Box Builder C Clone Copy Debug Default Dimension DriverError Dyn Element Eq Err Error F16 \
                     Hash InputRef Inputs Instant Into LaunchMode Model None Number Ok Option Options Ord OutputRef Outputs \
                     PartialEq PartialOrd PathBuf PlanTables Range Result Self Session Shape Some String Target Vec View \
                     Weights Write";

/// Longer names are cut.
const LONGEST: usize = 60;

/// Hands out identifiers, each once.
#[derive(Debug, Default)]
pub struct Names {
    taken: BTreeSet<String>,
}

impl Names {
    /// A `snake_case` identifier for a field; `prefix` leads where the name alone is none.
    pub fn field(&mut self, name: &str, prefix: &str) -> String {
        // TensorFlow numbers the outputs of an operation; the first is the usual one.
        let words = words(name.strip_suffix(":0").unwrap_or(name)).join("_");
        let field = match words.as_str() {
            "" => prefix.to_owned(),
            words if words.starts_with(|c: char| c.is_ascii_digit()) => format!("{prefix}_{words}"),
            words if KEYWORDS.contains(&words) => format!("{words}_"),
            words => words.to_owned(),
        };
        let separator = if field.ends_with('_') { "" } else { "_" };
        self.unique(field, separator)
    }

    /// A `PascalCase` identifier for a type; `prefix` leads where the name alone is none, or is another type's.
    pub fn ty(&mut self, name: &str, prefix: &str) -> String {
        let words: String = words(name).iter().map(|word| capitalized(word)).collect();
        let usable =
            words.starts_with(|c: char| c.is_ascii_alphabetic()) && TYPES.split_whitespace().all(|ty| ty != words);
        self.unique(if usable { words } else { format!("{prefix}{words}") }, "")
    }

    /// The name, or the name with the first number that makes it new.
    fn unique(&mut self, name: String, separator: &str) -> String {
        let numbered = (2..).map(|k| format!("{name}{separator}{k}"));
        let candidates = std::iter::once(name.clone()).chain(numbered);
        let free = candidates.into_iter().find(|candidate| !self.taken.contains(candidate));
        let Some(free) = free else { crate::bug!("no name like {name} is free") };
        self.taken.insert(free.clone());
        free
    }
}

/// A package name: `text` with what cargo does not take replaced.
pub fn package(text: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c.to_ascii_lowercase() } else { '-' };
    let name: String = text.chars().map(allowed).take(LONGEST).collect();
    let name = name.trim_matches(['-', '_']);
    let is_word = KEYWORDS.contains(&name)
        || ["core", "std", "alloc", "test", "lapidary-runtime", "lapidary_runtime"].contains(&name);
    match name {
        "" => "model".to_owned(),
        name if is_word || name.starts_with(|c: char| c.is_ascii_digit()) => format!("model-{name}"),
        name => name.to_owned(),
    }
}

/// The runs of ASCII letters and digits in lower case, split where a capital follows a small letter.
fn words(name: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut before = ' ';
    for c in name.chars().take(LONGEST) {
        if c.is_ascii_alphanumeric() {
            let starts = !before.is_ascii_alphanumeric() || before.is_ascii_lowercase() && c.is_ascii_uppercase();
            if starts {
                words.push(String::new());
            }
            if let Some(word) = words.last_mut() {
                word.push(c.to_ascii_lowercase());
            }
        }
        before = c;
    }
    words
}

fn capitalized(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(chars).collect()
}

/// A name from the model in Markdown or a doc comment: in backticks, on one line, and unable to end them.
pub fn code(name: &str) -> String {
    let text: String = name.escape_debug().collect();
    format!("`{}`", text.replace("\\\"", "\"").replace("\\'", "'").replace('`', "'").replace('|', "\u{a6}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_become_fields() {
        let mut names = Names::default();
        let expected = [
            ("serving_default_input_2:0", "serving_default_input_2"),
            ("serving_default_input_2:1", "serving_default_input_2_1"),
            ("1252", "input_1252"),
            ("type", "type_"),
            ("self", "self_"),
            ("Self", "self_2"),
            ("", "input"),
            ("画像", "input_2"),
            ("_", "input_3"),
            ("softmax_11.tmp_0", "softmax_11_tmp_0"),
            ("softmax/11/tmp/0", "softmax_11_tmp_0_2"),
            ("lastHiddenState", "last_hidden_state"),
            ("a\n} pub fn x() {", "a_pub_fn_x"),
        ];
        for (name, field) in expected {
            assert_eq!(names.field(name, "input"), field, "{name:?}");
        }
    }

    #[test]
    fn hostile_names_become_types() {
        let mut names = Names::default();
        let expected = [
            ("batch_size", "BatchSize"),
            ("DynamicDimension.0", "DynamicDimension0"),
            ("unk__617", "Unk617"),
            ("s0", "S0"),
            ("Session", "DimSession"),
            ("c", "DimC"),
            ("7", "Dim7"),
            ("?", "Dim"),
            ("", "Dim2"),
            ("BATCH", "Batch"),
            ("Batch", "Batch2"),
        ];
        for (name, ty) in expected {
            assert_eq!(names.ty(name, "Dim"), ty, "{name:?}");
        }
    }

    #[test]
    fn packages_are_what_cargo_takes() {
        assert_eq!(package("ResNet 50"), "resnet-50");
        assert_eq!(package("2d.onnx"), "model-2d-onnx");
        assert_eq!(package("fn"), "model-fn");
        assert_eq!(package("../../x"), "x");
        assert_eq!(package("é"), "model");
    }

    #[test]
    fn code_stays_on_its_line() {
        assert_eq!(code("a`b\nc|\"d\""), "`a'b\\nc\u{a6}\"d\"`");
    }
}
