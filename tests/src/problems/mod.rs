//! Kernel problems for tests: every kind of kernel, with odd extents, tails, and extents that only the run tells.

mod attention;
mod data;
mod dense;
mod graph;
mod memory;
mod pairs;
mod places;
mod storage;

use lapidary_runtime::DType;
use lapidary_templates::{Operand, Problem};

pub use data::inputs;
pub use graph::{Spread, graph};
pub use places::{gathered, seen_through, spread};

/// Every problem with a name; names are not unique.
pub fn all() -> Vec<(&'static str, Problem)> {
    let groups = [
        dense::matmuls(),
        dense::convs(),
        dense::transposed(),
        attention::problems(),
        memory::problems(),
        pairs::problems(),
        storage::problems(),
    ];
    groups.concat()
}

/// Operands are written as their extents: `b s 64`.
fn operand(dtype: DType, dims: &str) -> Operand {
    let dims = dims.split_whitespace().map(|dim| dim.parse().expect("a formula")).collect();
    Operand { dtype, dims }
}

/// A symbol's smallest, typical and largest value.
pub fn range(symbol: &str) -> (i64, i64, i64) {
    match symbol {
        "t" => (1, 4, 8),
        _ => (1, 96, 1024),
    }
}
