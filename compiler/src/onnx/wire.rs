//! A walk over the bytes of a model before they are decoded: bounds what decoding will take, and says where a damaged
//! file breaks.
//!
//! A message of two bytes becomes a struct of 300, so a small file could ask for more memory than there is; the number
//! of messages is limited before one is made. Nothing is allocated here, and nested messages that `proto` does not read
//! are not entered. Source: https://protobuf.dev/programming-guides/encoding.

use std::fmt;

/// Messages that one file may hold. The largest models here have 4,000; a million nodes do not compile in useful time.
/// At up to 304 bytes a message, decoding takes less than 1 GiB beside what strings and numbers take, which is
/// proportional to the file.
pub const MOST_MESSAGES: usize = 1 << 20;

/// Messages inside messages; the decoder's own limit is 100.
const DEEPEST: usize = 100;

/// Walks over `bytes`, which should be a `ModelProto`.
///
/// # Errors
/// The first thing that is wrong, and where.
pub fn walk(bytes: &[u8]) -> Result<(), Fault> {
    let mut walk = Walk { bytes, at: 0, messages: 0, path: Vec::new() };
    walk.message(bytes.len(), &MODEL).map_err(|kind| {
        let path = walk.path.join(".");
        Fault { kind, offset: walk.at, path }
    })
}

/// Why bytes are not a model that can be decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub kind: FaultKind,
    /// The byte where it was found.
    pub offset: usize,
    /// The message in which it was found, such as `graph.node`; empty for the outermost.
    pub path: String,
}

/// The kinds of [`Fault`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// A field is longer than what is left of its message.
    CutShort,
    /// No field begins like that.
    NotAField,
    /// Beyond [`MOST_MESSAGES`].
    TooManyMessages,
    /// Beyond the decoder's recursion limit.
    TooDeep,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fault { kind, offset, path } = self;
        match kind {
            FaultKind::CutShort => write!(f, "byte {offset}: a field runs past the end of its message")?,
            FaultKind::NotAField => write!(f, "byte {offset}: no field begins like that")?,
            FaultKind::TooManyMessages => write!(f, "byte {offset}: there are more than {MOST_MESSAGES} messages")?,
            FaultKind::TooDeep => write!(f, "byte {offset}: messages are nested more than {DEEPEST} deep")?,
        }
        if path.is_empty() { Ok(()) } else { write!(f, ", in {path}") }
    }
}

/// The fields of a message that are messages themselves: number, name, kind.
struct Kind(&'static [(u64, &'static str, &'static Kind)]);

static MODEL: Kind = Kind(&[
    (7, "graph", &GRAPH),
    (8, "opset_import", &LEAF),
    (14, "metadata_props", &LEAF),
    (25, "functions", &FUNCTION),
]);
static GRAPH: Kind = Kind(&[
    (1, "node", &NODE),
    (5, "initializer", &TENSOR),
    (11, "input", &VALUE_INFO),
    (12, "output", &VALUE_INFO),
    (15, "sparse_initializer", &SPARSE),
]);
static FUNCTION: Kind = Kind(&[(7, "node", &NODE), (9, "opset_import", &LEAF), (11, "attribute_proto", &ATTRIBUTE)]);
static NODE: Kind = Kind(&[(5, "attribute", &ATTRIBUTE)]);
static ATTRIBUTE: Kind = Kind(&[
    (5, "t", &TENSOR),
    (6, "g", &GRAPH),
    (10, "tensors", &TENSOR),
    (11, "graphs", &GRAPH),
    (14, "tp", &TYPE),
    (15, "type_protos", &TYPE),
    (22, "sparse_tensor", &SPARSE),
    (23, "sparse_tensors", &SPARSE),
]);
static TENSOR: Kind = Kind(&[(3, "segment", &LEAF), (13, "external_data", &LEAF)]);
static SPARSE: Kind = Kind(&[(1, "values", &TENSOR), (2, "indices", &TENSOR)]);
static VALUE_INFO: Kind = Kind(&[(2, "type", &TYPE)]);
static TYPE: Kind = Kind(&[
    (1, "tensor_type", &TYPE_TENSOR),
    (4, "sequence_type", &TYPE_ELEMENT),
    (5, "map_type", &TYPE_MAP),
    (7, "opaque_type", &LEAF),
    (8, "sparse_tensor_type", &TYPE_TENSOR),
    (9, "optional_type", &TYPE_ELEMENT),
]);
static TYPE_TENSOR: Kind = Kind(&[(2, "shape", &SHAPE)]);
static TYPE_ELEMENT: Kind = Kind(&[(1, "elem_type", &TYPE)]);
static TYPE_MAP: Kind = Kind(&[(2, "value_type", &TYPE)]);
static SHAPE: Kind = Kind(&[(1, "dim", &LEAF)]);
static LEAF: Kind = Kind(&[]);

struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
    messages: usize,
    /// Where the walk is; left as it is when it fails.
    path: Vec<&'static str>,
}

impl Walk<'_> {
    /// Walks over the message that ends at `end`.
    fn message(&mut self, end: usize, kind: &'static Kind) -> Result<(), FaultKind> {
        while self.at < end {
            let start = self.at;
            let key = self.varint(end)?;
            match key & 7 {
                0 => drop(self.varint(end)?),
                1 => self.skip(8, end)?,
                5 => self.skip(4, end)?,
                2 => {
                    let length = usize::try_from(self.varint(end)?).map_err(|_| FaultKind::CutShort)?;
                    match kind.0.iter().find(|(number, ..)| *number == key >> 3) {
                        Some((_, name, inner)) => self.nested(name, inner, length, end)?,
                        None => self.skip(length, end)?,
                    }
                }
                // Groups (3, 4) are older than ONNX; 6 and 7 are nothing.
                _ => {
                    self.at = start;
                    return Err(FaultKind::NotAField);
                }
            }
        }
        Ok(())
    }

    fn nested(&mut self, name: &'static str, kind: &'static Kind, length: usize, end: usize) -> Result<(), FaultKind> {
        if length > end - self.at {
            return Err(FaultKind::CutShort);
        }
        self.path.push(name);
        self.messages += 1;
        if self.messages > MOST_MESSAGES {
            return Err(FaultKind::TooManyMessages);
        }
        if self.path.len() > DEEPEST {
            return Err(FaultKind::TooDeep);
        }
        self.message(self.at + length, kind)?;
        self.path.pop();
        Ok(())
    }

    fn skip(&mut self, length: usize, end: usize) -> Result<(), FaultKind> {
        if length > end - self.at {
            return Err(FaultKind::CutShort);
        }
        self.at += length;
        Ok(())
    }

    fn varint(&mut self, end: usize) -> Result<u64, FaultKind> {
        let start = self.at;
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            if self.at == end {
                return Err(FaultKind::CutShort);
            }
            let byte = self.bytes[self.at];
            self.at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        self.at = start;
        Err(FaultKind::NotAField)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::path::Path;

    /// The tables above against the file that `proto` is generated from.
    #[test]
    fn every_message_field_is_walked() {
        let root = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it");
        let text = std::fs::read_to_string(Path::new(&root).join("proto/onnx.proto")).expect("the schema");
        let mut expected = BTreeSet::new();
        let mut open: Vec<&str> = Vec::new();
        for line in text.lines() {
            let words: Vec<&str> = line.trim().trim_end_matches(';').split_whitespace().collect();
            match words.as_slice() {
                ["message" | "enum" | "oneof", name, "{"] => open.push(name),
                ["}"] => drop(open.pop()),
                [.., kind, name, "=", number] if kind.starts_with(char::is_uppercase) => {
                    let message = *open.iter().rfind(|name| name.starts_with(char::is_uppercase)).expect("a message");
                    let enumeration = ["AttributeType", "DataType", "DataLocation"].contains(kind);
                    if !enumeration && message != "AttributeType" {
                        expected.insert((message.to_owned(), number.parse().expect("a number"), (*name).to_owned()));
                    }
                }
                _ => {}
            }
        }
        let mut walked = BTreeSet::new();
        for (message, kind) in [
            ("ModelProto", &MODEL),
            ("GraphProto", &GRAPH),
            ("FunctionProto", &FUNCTION),
            ("NodeProto", &NODE),
            ("AttributeProto", &ATTRIBUTE),
            ("TensorProto", &TENSOR),
            ("SparseTensorProto", &SPARSE),
            ("ValueInfoProto", &VALUE_INFO),
            ("TypeProto", &TYPE),
            ("Tensor", &TYPE_TENSOR),
            ("Sequence", &TYPE_ELEMENT),
            ("Optional", &TYPE_ELEMENT),
            ("Map", &TYPE_MAP),
            ("TensorShapeProto", &SHAPE),
        ] {
            walked.extend(kind.0.iter().map(|(number, name, _)| (message.to_owned(), *number, (*name).to_owned())));
        }
        assert_eq!(walked, expected);
    }

    #[test]
    fn a_fault_says_where() {
        // graph { node { <a field of 5 bytes, 1 there> } }
        let fault = walk(&[0x3a, 5, 0x0a, 3, 0x0a, 5, b'x']).expect_err("it is cut short");
        assert_eq!(fault.to_string(), "byte 6: a field runs past the end of its message, in graph.node");
        let fault = walk(&[8, 8, 0xa3, 6]).expect_err("a group");
        assert_eq!(fault.to_string(), "byte 2: no field begins like that");
        assert_eq!(walk(&[0xff; 20]).expect_err("too long").kind, FaultKind::NotAField);
    }
}
