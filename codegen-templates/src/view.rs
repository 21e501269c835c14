//! Views of contiguous tensors as axes with strides, with neighbouring axes merged where every view allows it.
//!
//! A stride is in elements. Whether an axis broadcasts may be known at run time alone; its stride is then a formula
//! that is 0 where the extent is 1.

use crate::candidate::Shapes;
use crate::extent::Expr;

/// Some tensors over the same axes, outermost first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    pub dims: Vec<Expr>,
    /// For each tensor the stride of each axis.
    pub strides: Vec<Vec<Expr>>,
}

/// How a kernel counts elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Index {
    I32,
    I64,
}

impl Index {
    /// 32 bits where every tensor stays below 2^30 elements: sums of two positions do not overflow either.
    pub fn of<'e>(counts: impl IntoIterator<Item = &'e Expr>, shapes: &Shapes<'_>) -> Index {
        let fits = counts.into_iter().all(|count| shapes.max(count) < 1 << 30);
        if fits { Index::I32 } else { Index::I64 }
    }

    /// The type's name in CUDA C++.
    pub fn name(self) -> &'static str {
        match self {
            Index::I32 => "i32",
            Index::I64 => "i64",
        }
    }
}

/// The product of extents.
pub fn product(dims: &[Expr]) -> Expr {
    dims.iter().cloned().fold(Expr::constant(1), |count, dim| count * dim)
}

/// The strides of a contiguous tensor.
pub fn contiguous(dims: &[Expr]) -> Vec<Expr> {
    (0..dims.len()).map(|axis| product(&dims[axis + 1..])).collect()
}

/// The strides by which a contiguous tensor of shape `from` is read along the axes of `to`, to which it broadcasts.
pub fn broadcast(from: &[Expr], to: &[Expr], shapes: &Shapes<'_>) -> Vec<Expr> {
    let lead = to.len().saturating_sub(from.len());
    let extents: Vec<Expr> = to
        .iter()
        .enumerate()
        .map(|(axis, result)| match axis.checked_sub(lead) {
            None => Expr::constant(1),
            Some(k) => known_extent(&from[k], result, shapes),
        })
        .collect();
    let strides = contiguous(&extents);
    let one = Expr::constant(1);
    let along = |((extent, result), stride): ((&Expr, &Expr), Expr)| {
        if extent == result {
            stride
        } else if extent.is(1) {
            Expr::constant(0)
        } else {
            // 1 where the axis has more than one element, 0 where it broadcasts.
            stride * (extent.clone() - one.clone()).smaller(&one)
        }
    };
    extents.iter().zip(to).zip(strides).map(along).collect()
}

/// The extent of an axis that broadcasts to `result`, as `result` or 1 where its range decides which.
fn known_extent(extent: &Expr, result: &Expr, shapes: &Shapes<'_>) -> Expr {
    match (shapes.range)(extent) {
        (low, _) if low > 1 => result.clone(),
        (1, 1) => Expr::constant(1),
        _ => extent.clone(),
    }
}

impl View {
    /// The same elements in the same order along as few axes as possible, at least one.
    pub fn merged(&self) -> View {
        let tensors = self.strides.len();
        let mut dims: Vec<Expr> = Vec::new();
        let mut strides: Vec<Vec<Expr>> = vec![Vec::new(); tensors];
        for (axis, dim) in self.dims.iter().enumerate() {
            if dim.is(1) {
                continue;
            }
            let follows = |k: usize| {
                let outer = strides[k].last();
                outer.is_some_and(|outer| *outer == self.strides[k][axis].clone() * dim.clone())
            };
            let merges = !dims.is_empty() && (0..tensors).all(follows);
            match dims.last_mut() {
                Some(last) if merges => *last = last.clone() * dim.clone(),
                _ => dims.push(dim.clone()),
            }
            for (own, all) in strides.iter_mut().zip(&self.strides) {
                if merges {
                    own.pop();
                }
                own.push(all[axis].clone());
            }
        }
        if dims.is_empty() {
            dims.push(Expr::constant(1));
            strides.iter_mut().for_each(|own| own.push(Expr::constant(1)));
        }
        View { dims, strides }
    }

    /// The number of elements.
    pub fn count(&self) -> Expr {
        product(&self.dims)
    }
}

/// The powers of two up to `most`, largest first.
pub fn powers_of_two(most: i64) -> impl Iterator<Item = i64> {
    (0..=most.max(1).ilog2()).rev().map(|bits| 1 << bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exprs(text: &str) -> Vec<Expr> {
        text.split(' ').map(|dim| dim.parse().expect("a formula")).collect()
    }

    fn shapes<'a>(range: &'a dyn Fn(&Expr) -> (i64, i64), typical: &'a dyn Fn(&Expr) -> i64) -> Shapes<'a> {
        Shapes { range, typical }
    }

    #[test]
    fn what_is_contiguous_becomes_one_axis() {
        let dims = exprs("b 3 1 s 5");
        let view = View { strides: vec![contiguous(&dims), contiguous(&dims)], dims };
        let merged = view.merged();
        assert_eq!(merged.dims, exprs("15*b*s"));
        assert_eq!(merged.strides, [exprs("1"), exprs("1")]);
    }

    #[test]
    fn a_channel_keeps_the_axes_around_it_apart() {
        let range = |expr: &Expr| expr.range(&|_| (1, 64));
        let typical = |_: &Expr| 1;
        let dims = exprs("b 3 h w");
        let bias = broadcast(&exprs("3 1 1"), &dims, &shapes(&range, &typical));
        assert_eq!(bias, exprs("0 1 0 0"));
        let view = View { strides: vec![bias, contiguous(&dims)], dims }.merged();
        assert_eq!(view.dims, exprs("b 3 h*w"));
        assert_eq!(view.strides[0], exprs("0 1 0"));
    }

    #[test]
    fn what_compiling_cannot_tell_is_a_formula() {
        let range = |expr: &Expr| expr.range(&|name| if name == "big" { (2, 64) } else { (1, 64) });
        let typical = |_: &Expr| 1;
        let shapes = shapes(&range, &typical);
        let strides = broadcast(&exprs("a 4"), &exprs("bcast(a,b) 4"), &shapes);
        assert_eq!(strides[0].eval(&|_| 1), 0);
        assert_eq!(strides[0].eval(&|name| if name == "a" { 9 } else { 1 }), 4);
        assert_eq!(broadcast(&exprs("big 4"), &exprs("bcast(b,big) 4"), &shapes), exprs("4 1"));
    }

    #[test]
    fn a_scalar_has_one_axis() {
        let view = View { dims: Vec::new(), strides: vec![Vec::new()] }.merged();
        assert_eq!((view.dims, view.strides), (exprs("1"), vec![exprs("1")]));
    }

    #[test]
    fn powers_come_largest_first() {
        assert_eq!(powers_of_two(9).collect::<Vec<_>>(), [8, 4, 2, 1]);
        assert_eq!(powers_of_two(0).collect::<Vec<_>>(), [1]);
    }
}
