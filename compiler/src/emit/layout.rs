//! Tokens and table literals as text that a person reads.

use proc_macro2::TokenStream;

/// Formats the items of a file and sets them apart by blank lines, which a token stream does not have.
pub fn pretty(items: Vec<TokenStream>) -> String {
    let file: TokenStream = items.into_iter().collect();
    let text = match syn::parse2(file.clone()) {
        Ok(file) => prettyplease::unparse(&file),
        Err(error) => crate::bug!(dump: file; "the emitted Rust does not parse: {error}"),
    };
    let mut out = String::with_capacity(text.len() + text.len() / 16);
    let mut before = "";
    for line in text.lines() {
        if is_apart(before, line) {
            out.push('\n');
        }
        out.push_str(line);
        out.push('\n');
        before = line;
    }
    out
}

/// Whether a blank line goes between two lines: behind an item or a method that ends, before the next one begins.
fn is_apart(before: &str, line: &str) -> bool {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let (last, next) = (before.trim_start(), line.trim_start());
    let begins =
        ["///", "#[", "pub ", "impl ", "fn ", "mod ", "static ", "use "].iter().any(|word| next.starts_with(word));
    // Imports stand together, those of std apart.
    let import = |line: &str| {
        line.strip_prefix("pub ").unwrap_or(line).strip_prefix("use ").map(|path| path.starts_with("std::"))
    };
    let same_imports = import(last).is_some() && import(last) == import(next);
    let ends = last == "}" || last.ends_with(';') && !same_imports;
    let inner_attributes_end = last.starts_with("//!") && next.starts_with("#!") || last.starts_with("#![");
    indent(before) == indent(line) && (ends && begins || inner_attributes_end && !next.is_empty())
}

/// A table's literal without the commas that end a list on one line.
pub fn tidy(literal: &str) -> String {
    let mut out = String::with_capacity(literal.len());
    let mut in_string = false;
    let mut escaped = false;
    for c in literal.chars() {
        if !in_string && (c == ')' || c == '}' || c == ']') && out.ends_with(", ") {
            out.truncate(out.len() - 2);
            if c == '}' {
                out.push(' ');
            }
        }
        if c == '"' && !escaped {
            in_string = !in_string;
        }
        escaped = in_string && c == '\\' && !escaped;
        out.push(c);
    }
    out
}

/// The widest line of a table.
const WIDTH: usize = 140;

/// Breaks a tidy literal into lines, `indent` spaces in, of which the first `used` columns are taken: what does not
/// fit on a line gets one line a part, lists of numbers as many parts a line as fit.
pub fn wrap(literal: &str, indent: usize, used: usize) -> String {
    if used + literal.chars().count() <= WIDTH {
        return literal.to_owned();
    }
    let Some((open, parts, close)) = split(literal) else { return literal.to_owned() };
    // A call around one value stays on the value's first line.
    if let (true, [part]) = (open.ends_with('('), parts.as_slice()) {
        return format!("{open}{}{close}", wrap(part, indent, used + open.chars().count()));
    }
    let inner = indent + 4;
    let pad = " ".repeat(inner);
    let is_number = |part: &&str| *part == "NONE" || part.bytes().all(|b| b.is_ascii_digit() || b == b'-');
    let numeric = parts.iter().all(is_number);
    let mut body = String::new();
    let mut column = 0;
    for part in parts {
        if numeric && column > inner && column + part.len() + 2 <= WIDTH {
            body.push(' ');
            body.push_str(part);
            column += part.len() + 2;
        } else {
            body.push('\n');
            body.push_str(&pad);
            // The name of a field stays in front of its value.
            let (name, value) = field(part);
            body.push_str(name);
            body.push_str(&wrap(value, inner, inner + name.len() + 1));
            column = inner + part.len() + 1;
        }
        body.push(',');
    }
    format!("{}{body}\n{}{close}", open.trim_end(), " ".repeat(indent))
}

/// `Step { a: 1, b: 2 }` as `Step {`, its parts, and `}`; `None` where nothing can be broken.
fn split(literal: &str) -> Option<(&str, Vec<&str>, &str)> {
    let open = scan(literal).find(|&(_, c, _)| matches!(c, '(' | '[' | '{')).map(|(at, ..)| at)?;
    let (start, end) = (open + 1, literal.len() - 1);
    let inside = literal.get(start..end)?;
    let mut parts = Vec::new();
    let mut from = 0;
    for (at, c, depth) in scan(inside) {
        if c == ',' && depth == 0 {
            parts.push(inside[from..at].trim());
            from = at + 1;
        }
    }
    parts.push(inside[from..].trim());
    parts.retain(|part| !part.is_empty());
    (!parts.is_empty()).then(|| (&literal[..start], parts, &literal[end..]))
}

/// The name of a field with its colon and a space, and the value.
fn field(part: &str) -> (&str, &str) {
    let end = part.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(part.len());
    if part[end..].starts_with(": ") { part.split_at(end + 2) } else { ("", part) }
}

/// The characters outside of strings, with their places and how deep in brackets they stand.
fn scan(text: &str) -> impl Iterator<Item = (usize, char, u32)> {
    let (mut in_string, mut escaped, mut depth) = (false, false, 0u32);
    text.char_indices().filter_map(move |(at, c)| {
        let was_in_string = in_string;
        if c == '"' && !escaped {
            in_string = !in_string;
        }
        escaped = in_string && c == '\\' && !escaped;
        if was_in_string || in_string {
            return None;
        }
        let before = depth;
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        Some((at, c, before))
    })
}

/// A name from the model in a line comment: on one line, and not endless.
pub fn comment(name: &str) -> String {
    const LONGEST: usize = 80;
    let escaped: String = name.escape_debug().collect();
    // A backslash at the end of a line would join the next one to a C comment.
    let text = escaped.replace("\\\"", "\"").replace("\\'", "'").replace('\\', "/");
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// Bytes for a reader, such as `1.2 MiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} bytes");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_stand_apart() {
        let items = quote::quote! {
            #![doc = " The file."]
            #![forbid(unsafe_code)]
            mod plan;
            use std::fmt;
            use std::io;
            #[doc = " A pair."]
            pub struct A { #[doc = " One."] pub x: u32, #[doc = " Two."] pub y: u32 }
            impl A {
                #[doc = " Sum."]
                pub fn sum(&self) -> u32 { let x = self.x; if x > 1 { return 1; } x + self.y }
                pub fn none() {}
            }
        };
        let expected = "\
//! The file.

#![forbid(unsafe_code)]

mod plan;

use std::fmt;
use std::io;

/// A pair.
pub struct A {
    /// One.
    pub x: u32,
    /// Two.
    pub y: u32,
}

impl A {
    /// Sum.
    pub fn sum(&self) -> u32 {
        let x = self.x;
        if x > 1 {
            return 1;
        }
        x + self.y
    }

    pub fn none() {}
}
";
        assert_eq!(pretty(vec![items]), expected);
    }

    #[test]
    fn literals_lose_their_last_commas() {
        let literal = r#"Step { dims: &[Dim::Const(1, ), Dim::Slot(0, )], label: "a, ) \", }", scale: None, }"#;
        let expected = r#"Step { dims: &[Dim::Const(1), Dim::Slot(0)], label: "a, ) \", }", scale: None }"#;
        assert_eq!(tidy(literal), expected);
    }

    #[test]
    fn long_literals_break_at_their_parts() {
        let numbers: Vec<String> = (1000..1060).map(|n| n.to_string()).collect();
        let literal = format!("Step {{ inputs: &[{}], label: \"a, {{b\" }}", numbers.join(", "));
        let text = wrap(&literal, 4, 4);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "Step {");
        assert_eq!(lines[1], "        inputs: &[");
        assert!(lines[2].starts_with("            1000, 1001, ") && lines[2].len() <= WIDTH);
        assert_eq!(lines[lines.len() - 3..], ["        ],", "        label: \"a, {b\",", "    }"]);
        assert_eq!(wrap("Dim::Const(1)", 4, 4), "Dim::Const(1)");
        let call = wrap(&format!("A::B(C {{ x: \"{}\" }})", "-".repeat(WIDTH)), 0, 0);
        assert_eq!(call.lines().next(), Some("A::B(C {"));
        assert_eq!(call.lines().last(), Some("})"));
    }

    #[test]
    fn comments_end_with_their_line() {
        assert_eq!(comment("a\n#define x\\"), "a/n#define x//");
    }

    #[test]
    fn sizes_read_well() {
        assert_eq!([0, 1536, 5 << 20, 3 << 30].map(size), ["0 bytes", "1.5 KiB", "5.0 MiB", "3.0 GiB"]);
    }
}
