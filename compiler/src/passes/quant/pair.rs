//! Integers that become numbers and the same integers again.
//!
//! Does: `quantize(dequantize(q)) -> q` for equal scales and zero points. Needs: one step a node, or whole programs.
//! Keeps: every bit: `(q - zero) * scale / scale` is off by less than 2^-14, and is rounded. Not here: numbers that become
//! integers and numbers again, which loses what the integers do not hold.

use super::linear::{self, dequantized, quantized};
use crate::ir::{Graph, NodeId, Patch};
use crate::passes::matching::result;

/// `saturate(round((q - z) * s / s) + z) -> q`
pub fn rewrite(graph: &Graph, id: NodeId) -> Option<Patch> {
    let y = result(graph, id)?;
    let outer = quantized(graph, y)?;
    let inner = dequantized(graph, outer.x)?;
    let same = (inner.scale, inner.zero) == (outer.scale, outer.zero) && graph.ty(inner.x) == graph.ty(y);
    if !same || !linear::is_ordinary(graph, inner.scale) || graph.ty(outer.x).dtype != lapidary_runtime::DType::F32 {
        return None;
    }
    Some(Patch::new(&[id]).replace(y, inner.x))
}
