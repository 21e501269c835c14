//! Two orders of axes, and how a tensor goes from one to the other.

use lapidary_runtime::op::{MAX_RANK, Transpose};

use crate::ir::{Expr, Graph, Type};

/// One of the two orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Order {
    /// In front of the transpose that was asked about.
    Front,
    /// Behind it.
    Behind,
}

impl Order {
    pub fn other(self) -> Order {
        match self {
            Order::Front => Order::Behind,
            Order::Behind => Order::Front,
        }
    }
}

/// The transposes from each order to the other.
#[derive(Clone, Copy, Debug)]
pub struct Orders {
    from_front: Transpose,
    from_behind: Transpose,
}

impl Orders {
    /// The orders in front of a transpose and behind it.
    pub fn of(spec: Transpose) -> Orders {
        let mut back = Transpose { rank: spec.rank, perm: [0; MAX_RANK] };
        axes(&spec).enumerate().for_each(|(k, axis)| back.perm[axis] = k as u8);
        Orders { from_front: spec, from_behind: back }
    }

    /// What takes a tensor from an order to the other.
    pub fn from(&self, order: Order) -> Transpose {
        match order {
            Order::Front => self.from_front,
            Order::Behind => self.from_behind,
        }
    }
}

/// For each axis of the result the operand's.
pub fn axes(spec: &Transpose) -> impl Iterator<Item = usize> + use<> {
    let Transpose { rank, perm } = *spec;
    (0..usize::from(rank)).map(move |k| usize::from(perm[k]))
}

/// What the axes of the operand have, as the result has it.
pub fn permuted<T: Clone>(spec: &Transpose, of: &[T]) -> Vec<T> {
    axes(spec).map(|axis| of[axis].clone()).collect()
}

/// Where an axis of the operand is in the result.
pub fn place(spec: &Transpose, axis: usize) -> Option<usize> {
    axes(spec).position(|from| from == axis)
}

/// Whether the elements stay where they are, as only axes of extent 1 move.
pub fn moves_nothing(spec: &Transpose, dims: &[Expr]) -> bool {
    let kept: Vec<usize> = axes(spec).filter(|&axis| !dims[axis].is(1)).collect();
    kept.is_sorted()
}

/// The elements of a tensor at the typical shape; no more than 2^32, so that sums of them stay numbers.
pub fn elements(graph: &Graph, ty: &Type) -> u64 {
    let typical =
        |name: &str| graph.symbols.get(name).and_then(|symbol| symbol.ranges.first()).map_or(1, |range| range.opt);
    let extents = ty.dims.iter().map(|dim| dim.eval(&typical).max(0) as u64);
    extents.fold(1, |count: u64, extent| count.saturating_mul(extent)).min(1 << 32)
}
