//! The text form of a graph: one line a node, for people, for tests, and for dumps.
//!
//! ```text
//! graph "mnist" {
//!   symbol batch = input 0 axis 0, 1..1..8
//!   constraint equal(floor(batch, 2), 4) "Reshape_3 (Reshape)"
//!   input %0 "x" f32[batch, 3, 224, 224]
//!   const %1 "w" f32[64, 3, 7, 7] = init "w"
//!   const %2 "zero" f32[] = hex 00000000
//!   %3 "c" f32[batch, 64, 112, 112] = conv(%0, %1) { window 7x7 stride 2x2 pad_lo 3x3 pad_hi 3x3 } from "Conv_0 (Conv)"
//!   %4 "y" f32[batch, 64, 112, 112] = pointwise(%3, %2) { in f32 f32; s0 = max f32 in0 in1; out s0 }
//!   output "y" %4
//! }
//! ```
//!
//! Contract: `print(parse(print(g))) == print(g)`. Values are numbered in the order of the text; constants that
//! nothing uses are left out. The bytes of a constant stand in the text where they are few and the compiler made them;
//! otherwise the text names them, and the reader of the text asks for them by that name. `#` begins a comment.
//! Reading checks the text alone: whether the graph is right is for [`super::verify`].

mod fields;
mod graph;
mod names;
mod reader;
#[cfg(test)]
mod tests;
mod value;

use std::collections::BTreeMap;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use self::reader::Reader;
use super::{Constant, Def, Graph};

/// The text of a graph.
pub fn print(graph: &Graph) -> String {
    let mut out = Printer::default();
    out.text.push_str("graph ");
    graph::print(graph, &mut out);
    out.text.push('\n');
    out.text
}

/// The graph that a text describes. `resolve` gives the bytes of a constant that the text only names: by the
/// initializer's name, or `sha256:` and the hash of the bytes. An error starts with the line.
pub fn parse(text: &str, resolve: &dyn Fn(&str) -> Option<Bytes>) -> Result<Graph, String> {
    let mut reader = Reader::new(text, resolve);
    let result = parse_whole(&mut reader);
    result.map_err(|reason| format!("line {}: {reason}", reader.line()))
}

fn parse_whole(reader: &mut Reader<'_>) -> Result<Graph, String> {
    reader.expect_word("graph")?;
    let graph = graph::read(reader)?;
    reader.expect_end()?;
    Ok(graph)
}

/// The constants of a graph and its regions that its text only names, by the name that [`parse`] asks for.
pub fn named_constants(graph: &Graph) -> BTreeMap<String, Bytes> {
    let mut found = BTreeMap::new();
    collect_constants(graph, &mut found);
    found
}

fn collect_constants(graph: &Graph, found: &mut BTreeMap<String, Bytes>) {
    for id in graph.value_ids() {
        if let Def::Constant(constant) = &graph.value(id).def
            && let Place::Named(name) = place(constant)
        {
            found.insert(name, constant.bytes.clone());
        }
    }
    for id in graph.order() {
        for (_, region) in graph.node(id).op.regions() {
            collect_constants(&region.0, found);
        }
    }
}

/// How many bytes of a constant stand in the text itself.
const MAX_INLINE: usize = 256;

/// Where a constant's bytes are.
enum Place {
    Inline,
    /// With whom the text is read.
    Named(String),
}

fn place(constant: &Constant) -> Place {
    match &constant.initializer {
        Some(name) => Place::Named(name.to_string()),
        None if constant.bytes.len() <= MAX_INLINE => Place::Inline,
        None => Place::Named(format!("sha256:{}", hex(&Sha256::digest(&constant.bytes)))),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The text so far, and how deep in braces it is.
#[derive(Default)]
struct Printer {
    text: String,
    depth: usize,
}

impl Printer {
    fn line(&mut self) {
        self.text.push('\n');
        for _ in 0..self.depth {
            self.text.push_str("  ");
        }
    }
}
