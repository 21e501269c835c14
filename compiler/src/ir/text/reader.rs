//! The cursor over a text: words, numbers, strings, punctuation, and the place of an error.

use bytes::Bytes;
use lapidary_runtime::DType;
use lapidary_templates::unescaped;

use crate::ir::Expr;

/// Regions nested deeper than this are refused rather than risking the stack.
const MAX_DEPTH: usize = 32;

/// A place in a text.
pub(super) struct Reader<'a> {
    text: &'a str,
    at: usize,
    /// Where a token was not what had to be there.
    unexpected: Option<usize>,
    depth: usize,
    pub(super) resolve: &'a dyn Fn(&str) -> Option<Bytes>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a str, resolve: &'a dyn Fn(&str) -> Option<Bytes>) -> Reader<'a> {
        Reader { text, at: 0, unexpected: None, depth: 0, resolve }
    }

    /// The number, from 1, of the line of an error: that of the unexpected token, or else of the last one read.
    pub(super) fn line(&self) -> usize {
        let at = self.unexpected.unwrap_or_else(|| self.text[..self.at].trim_end().len());
        1 + self.text.as_bytes()[..at].iter().filter(|&&byte| byte == b'\n').count()
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// The text ahead, past spaces and comments.
    fn ahead(&mut self) -> &'a str {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start();
            self.at += rest.len() - trimmed.len();
            if !trimmed.starts_with('#') {
                return trimmed;
            }
            self.at += trimmed.find('\n').unwrap_or(trimmed.len());
        }
    }

    pub(super) fn at_char(&mut self, c: char) -> bool {
        self.ahead().starts_with(c)
    }

    pub(super) fn eat(&mut self, mark: &str) -> bool {
        let found = self.ahead().starts_with(mark);
        if found {
            self.at += mark.len();
        }
        found
    }

    pub(super) fn expect(&mut self, mark: &str) -> Result<(), String> {
        if self.eat(mark) { Ok(()) } else { Err(self.expected(&format!("`{mark}`"))) }
    }

    pub(super) fn expect_end(&mut self) -> Result<(), String> {
        if self.ahead().is_empty() { Ok(()) } else { Err(self.expected("the end of the text")) }
    }

    /// The message that something else was there.
    pub(super) fn expected(&mut self, what: &str) -> String {
        let ahead = self.ahead();
        self.unexpected = Some(self.at);
        let found: String = ahead.chars().take_while(|&c| c != '\n').take(24).collect();
        if found.is_empty() { format!("expected {what}") } else { format!("expected {what} before `{found}`") }
    }

    /// The run of characters that belong to words, names and numbers; may be empty.
    fn peek_run(&mut self, extra: &str) -> &'a str {
        let ahead = self.ahead();
        let end = ahead.find(|c: char| !c.is_ascii_alphanumeric() && !extra.contains(c)).unwrap_or(ahead.len());
        &ahead[..end]
    }

    pub(super) fn at_word(&mut self, word: &str) -> bool {
        self.peek_run("_.") == word
    }

    pub(super) fn eat_word(&mut self, word: &str) -> bool {
        let found = self.at_word(word);
        if found {
            self.at += word.len();
        }
        found
    }

    pub(super) fn expect_word(&mut self, word: &str) -> Result<(), String> {
        if self.eat_word(word) { Ok(()) } else { Err(self.expected(&format!("`{word}`"))) }
    }

    /// A word: letters, digits, `_` and `.`.
    pub(super) fn word(&mut self, what: &str) -> Result<&'a str, String> {
        self.run("_.", what)
    }

    /// A number with a sign, a point and a suffix, as they come; or a word.
    pub(super) fn literal(&mut self, what: &str) -> Result<&'a str, String> {
        self.run("_.+-", what)
    }

    fn run(&mut self, extra: &str, what: &str) -> Result<&'a str, String> {
        let run = self.peek_run(extra);
        if run.is_empty() {
            return Err(self.expected(what));
        }
        self.at += run.len();
        Ok(run)
    }

    /// One of a closed set of words; `find` knows them.
    pub(super) fn one_of<T>(&mut self, what: &str, find: impl Fn(&str) -> Option<T>) -> Result<T, String> {
        let word = self.peek_run("_.");
        match find(word) {
            Some(value) => {
                self.at += word.len();
                Ok(value)
            }
            None => Err(self.expected(what)),
        }
    }

    /// An integer; it ends before `..`.
    pub(super) fn int(&mut self) -> Result<i64, String> {
        let run = self.peek_run("-");
        let value = run.parse().map_err(|_| self.expected("an integer"))?;
        self.at += run.len();
        Ok(value)
    }

    pub(super) fn dtype(&mut self) -> Result<DType, String> {
        self.one_of("an element type", DType::from_name)
    }

    /// The number of a value, `%7`.
    pub(super) fn value_number(&mut self) -> Result<u32, String> {
        if !self.at_char('%') {
            return Err(self.expected("a value"));
        }
        self.at += 1;
        let digits = self.rest();
        let digits = &digits[..digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len())];
        let number = digits.parse().map_err(|_| self.expected("the number of a value"))?;
        self.at += digits.len();
        Ok(number)
    }

    /// A quoted string, with the escapes of Rust's `Debug`.
    pub(super) fn string(&mut self) -> Result<String, String> {
        self.expect("\"")?;
        let mut text = String::new();
        let mut chars = self.rest().char_indices();
        loop {
            match chars.next() {
                Some((end, '"')) => {
                    self.at += end + 1;
                    return Ok(text);
                }
                Some((at, '\\')) => match escape(&mut chars) {
                    Some(c) => text.push(c),
                    None => {
                        self.at += at;
                        return Err(self.expected("an escape"));
                    }
                },
                Some((_, '\n')) | None => return Err("the string has no end on its line".to_owned()),
                Some((_, c)) => text.push(c),
            }
        }
    }

    /// A formula, up to the comma or bracket that ends it.
    pub(super) fn expr(&mut self) -> Result<Expr, String> {
        let ahead = self.ahead();
        let (mut depth, mut quoted) = (0usize, false);
        let end = ahead.find(|c: char| {
            match c {
                '`' => quoted = !quoted,
                '\n' => return true,
                _ if quoted => {}
                '(' => depth += 1,
                ')' if depth > 0 => depth -= 1,
                ')' | ']' => return true,
                ',' => return depth == 0,
                _ => {}
            }
            false
        });
        let text = &ahead[..end.unwrap_or(ahead.len())];
        let value = text.trim_end().parse()?;
        self.at += text.len();
        Ok(value)
    }

    /// The name of a symbol, as formulas write it.
    pub(super) fn symbol(&mut self) -> Result<String, String> {
        if !self.eat("`") {
            return self.word("the name of a symbol").map(str::to_owned);
        }
        let rest = self.rest();
        let Some(end) = rest.find(['`', '\n']).filter(|&end| rest[end..].starts_with('`')) else {
            return Err("the name of the symbol has no end on its line".to_owned());
        };
        let Some(name) = unescaped(&rest[..end]) else {
            return Err(format!("the name of the symbol, `{}`, has an unknown escape", &rest[..end]));
        };
        self.at += end + 1;
        Ok(name)
    }

    /// Hexadecimal digits, two a byte; may be none. They end with the line: the next one may begin with such a letter.
    pub(super) fn hex(&mut self) -> Result<Vec<u8>, String> {
        let rest = self.rest();
        let trimmed = rest.trim_start_matches(' ');
        self.at += rest.len() - trimmed.len();
        let rest = trimmed;
        let run = &rest[..rest.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(rest.len())];
        let nibble = |c: u8| char::from(c).to_digit(16).unwrap_or(0) as u8;
        let bytes = run.as_bytes().chunks(2).map(|pair| match pair {
            [high, low] => Ok(nibble(*high) << 4 | nibble(*low)),
            _ => Err("the number of hexadecimal digits is odd".to_owned()),
        });
        let bytes = bytes.collect::<Result<_, _>>()?;
        self.at += run.len();
        Ok(bytes)
    }

    /// Reads what is one level deeper.
    pub(super) fn deeper<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, String>) -> Result<T, String> {
        if self.depth == MAX_DEPTH {
            return Err(format!("regions are nested deeper than {MAX_DEPTH}"));
        }
        self.depth += 1;
        let value = read(self);
        self.depth -= 1;
        value
    }
}

/// What follows a backslash.
fn escape(chars: &mut std::str::CharIndices<'_>) -> Option<char> {
    match chars.next()?.1 {
        'n' => Some('\n'),
        'r' => Some('\r'),
        't' => Some('\t'),
        '0' => Some('\0'),
        c @ ('\\' | '"' | '\'') => Some(c),
        'u' => {
            if chars.next()?.1 != '{' {
                return None;
            }
            let mut code = 0u32;
            loop {
                match chars.next()?.1 {
                    '}' => return char::from_u32(code),
                    c => code = code.checked_mul(16)?.checked_add(c.to_digit(16)?)?,
                }
            }
        }
        _ => None,
    }
}
