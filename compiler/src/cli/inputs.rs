//! Made-up inputs of a model: seeded, so that the same model gets the same.

use lapidary::ir::eval::Tensor;
use lapidary::ir::{Expr, Graph};

/// The extents that symbolic dimensions take, of their first profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extents {
    Typical,
    Smallest,
}

/// What integers are; floats are uniform in -1..1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Integers {
    /// 0 or 1.
    Random,
    /// An index that is valid wherever any is.
    Zeros,
}

impl Extents {
    /// The extent of a symbol.
    pub fn of(self, graph: &Graph, symbol: &str) -> i64 {
        let range = graph.symbols.get(symbol).and_then(|symbol| symbol.ranges.first());
        range.map_or(1, |range| match self {
            Extents::Typical => range.opt,
            Extents::Smallest => range.min,
        })
    }

    /// A shape in numbers.
    pub fn dims(self, graph: &Graph, dims: &[Expr]) -> Vec<usize> {
        let extent = |dim: &Expr| usize::try_from(dim.eval(&|name| self.of(graph, name))).unwrap_or(0);
        dims.iter().map(extent).collect()
    }

    /// Whether the model takes these extents together.
    pub fn fit(self, graph: &Graph) -> bool {
        graph.constraints.iter().all(|constraint| constraint.holds(&|name| self.of(graph, name)))
    }
}

/// One tensor an input.
pub fn made_up(graph: &Graph, extents: Extents, integers: Integers) -> Vec<Tensor> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        // Xorshift64*: S. Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled".
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1u64 << 53) as f64
    };
    let mut tensors = Vec::new();
    for input in graph.inputs().iter().map(|&input| graph.ty(input)) {
        let dims = extents.dims(graph, &input.dims);
        let count: usize = dims.iter().product();
        tensors.push(if input.dtype.is_float() {
            let values: Vec<f64> = (0..count).map(|_| next() * 2.0 - 1.0).collect();
            Tensor::from_f64s(input.dtype, dims, &values)
        } else {
            let values: Vec<i64> = match integers {
                Integers::Random => (0..count).map(|_| next().round() as i64).collect(),
                Integers::Zeros => vec![0; count],
            };
            Tensor::from_i64s(input.dtype, dims, &values)
        });
    }
    tensors
}
