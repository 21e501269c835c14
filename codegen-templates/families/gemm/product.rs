//! A matrix product as the kernels see it: up to three batch axes, and the two matrices' layouts.
//!
//! Does: merges batch axes that lie behind one another, takes those that b does not have into m, turns a product with
//! a column vector into one with a row, and a transposed vector into a plain one. Keeps: the order of the outputs, and
//! with it what an epilogue reads.

use lapidary_runtime::DType;
use lapidary_runtime::op::MatMul;

use crate::candidate::Shapes;
use crate::epilogue::Epilogue;
use crate::extent::Expr;
use crate::print;
use crate::problem::{Operand, Problem};
use crate::program::Program;
use crate::tile::{self, Contiguous};

/// `C[b, m, n] = A[b, m, k] B[b, k, n]`.
#[derive(Clone, Debug)]
pub struct Product {
    pub a: Factor,
    pub b: Factor,
    pub m: Expr,
    pub n: Expr,
    pub k: Expr,
    /// Outermost first, at most [`BATCH_AXES`].
    pub batch: Vec<Axis>,
    pub epilogue: Epilogue,
}

/// An operand of the product.
#[derive(Clone, Debug)]
pub struct Factor {
    /// Number among the problem's inputs.
    pub input: usize,
    pub dtype: DType,
    /// Stored with its two axes swapped: a as `[k, m]`, b as `[n, k]`.
    pub transposed: bool,
}

/// A batch axis: its extent, and how far apart its elements lie in either operand (0: shared by all).
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    pub extent: Expr,
    pub a_stride: Expr,
    pub b_stride: Expr,
}

/// The batch axes that a kernel has.
pub const BATCH_AXES: usize = 3;

impl Product {
    /// The product of a [`crate::Kind::MatMul`].
    ///
    /// # Errors
    /// In words, why no kernel forms it.
    pub fn of_matmul(problem: &Problem, spec: &MatMul, program: Option<&Program>) -> Result<Product, String> {
        let (a, b, out) = (problem.input(0)?, problem.input(1)?, problem.output(0)?);
        let ([.., a0, a1], [.., b0, b1], [.., m, n]) = (&a.dims[..], &b.dims[..], &out.dims[..]) else {
            return Err("the operands are no matrices".to_owned());
        };
        let k = if spec.transpose_a { a0 } else { a1 };
        let batch = batch_axes(a, b, out, [a0.clone() * a1.clone(), b0.clone() * b1.clone()]);
        let epilogue = Epilogue::of(problem, program, out.dims.len() - 1, sums_of(a, b)?)?;
        let product = Product {
            a: Factor { input: 0, dtype: a.dtype, transposed: spec.transpose_a },
            b: Factor { input: 1, dtype: b.dtype, transposed: spec.transpose_b },
            m: m.clone(),
            n: n.clone(),
            k: k.clone(),
            batch,
            epilogue,
        };
        product.normalized()
    }

    /// The product that a convolution without padding is whose window covers its whole input: x `[m, k]` and w
    /// `[n, k]`. `None` where the window slides.
    pub fn of_conv(problem: &Problem, epilogue: Epilogue) -> Option<Result<Product, String>> {
        let (x, w) = (problem.optional_input(0)?, problem.optional_input(1)?);
        let ([m, x_row @ ..], [n, w_row @ ..]) = (&x.dims[..], &w.dims[..]) else { return None };
        if x_row != w_row {
            return None;
        }
        let k = w_row.iter().cloned().fold(Expr::from(1i64), |k, dim| k * dim);
        let product = Product {
            a: Factor { input: 0, dtype: x.dtype, transposed: false },
            b: Factor { input: 1, dtype: w.dtype, transposed: true },
            m: m.clone(),
            n: n.clone(),
            k,
            batch: Vec::new(),
            epilogue,
        };
        Some(product.normalized())
    }

    fn normalized(mut self) -> Result<Product, String> {
        self.batch = merged(std::mem::take(&mut self.batch));
        // Rows of all batches are rows of one matrix where b is the same for all of them.
        while let Some(axis) = self.batch.last() {
            let adjacent = !self.a.transposed && axis.a_stride == self.m.clone() * self.k.clone();
            if !(adjacent && axis.b_stride.is(0)) {
                break;
            }
            self.m = self.m.clone() * axis.extent.clone();
            self.batch.pop();
        }
        // A x = (x^T A^T)^T, whose outputs lie alike; an epilogue does not see the one column.
        if self.n.is(1) && !self.m.is(1) {
            self.a.transposed ^= true;
            self.b.transposed ^= true;
            std::mem::swap(&mut self.a, &mut self.b);
            std::mem::swap(&mut self.m, &mut self.n);
            for axis in &mut self.batch {
                std::mem::swap(&mut axis.a_stride, &mut axis.b_stride);
            }
        }
        // A vector is stored alike either way.
        self.a.transposed &= !self.m.is(1);
        self.b.transposed |= self.n.is(1);
        if self.batch.len() > BATCH_AXES {
            return Err(format!("{} batch axes remain of which no two lie behind one another", self.batch.len()));
        }
        Ok(self)
    }

    /// The number of matrices.
    pub fn batches(&self) -> Expr {
        self.batch.iter().fold(Expr::from(1i64), |count, axis| count * axis.extent.clone())
    }

    /// The number of outputs.
    pub fn outputs(&self) -> Expr {
        self.batches() * self.m.clone() * self.n.clone()
    }

    /// The number of elements of b that are multiplied, once for each batch.
    pub fn b_elements(&self) -> Expr {
        self.batches() * self.n.clone() * self.k.clone()
    }

    pub fn a_contiguous(&self) -> Contiguous {
        if self.a.transposed { Contiguous::Free } else { Contiguous::K }
    }

    pub fn b_contiguous(&self) -> Contiguous {
        if self.b.transposed { Contiguous::K } else { Contiguous::Free }
    }

    /// Elements between the rows of a as it is stored, and the entry's name for them.
    pub fn lda(&self) -> (&Expr, &'static str) {
        if self.a.transposed { (&self.m, "m") } else { (&self.k, "k") }
    }

    /// Elements between the rows of b as it is stored, and the entry's name for them.
    pub fn ldb(&self) -> (&Expr, &'static str) {
        if self.b.transposed { (&self.k, "k") } else { (&self.n, "n") }
    }

    /// The elements that one load of a may take, at most `most`.
    pub fn vec_a(&self, shapes: &Shapes<'_>, most: u32) -> u32 {
        let strides: Vec<&Expr> =
            self.batch.iter().map(|axis| &axis.a_stride).chain(std::iter::once(self.lda().0)).collect();
        tile::vector(shapes, self.a.dtype, &strides, most)
    }

    /// The elements that one load of b may take, at most `most`.
    pub fn vec_b(&self, shapes: &Shapes<'_>, most: u32) -> u32 {
        let strides: Vec<&Expr> =
            self.batch.iter().map(|axis| &axis.b_stride).chain(std::iter::once(self.ldb().0)).collect();
        tile::vector(shapes, self.b.dtype, &strides, most)
    }
}

/// The type of the sums.
fn sums_of(a: &Operand, b: &Operand) -> Result<DType, String> {
    print::check_type(a.dtype)?;
    print::check_type(b.dtype)?;
    let sums = tile::accumulator(a.dtype);
    if sums != tile::accumulator(b.dtype) || a.dtype == DType::Bool {
        return Err(format!("there are no products of {} and {}", a.dtype, b.dtype));
    }
    Ok(sums)
}

/// The batch axes of the result, without those of extent 1. `matrices`: elements of a matrix of a and of b.
fn batch_axes(a: &Operand, b: &Operand, out: &Operand, matrices: [Expr; 2]) -> Vec<Axis> {
    let [mut a_next, mut b_next] = matrices;
    let batches = &out.dims[..out.dims.len() - 2];
    let mut axes: Vec<Axis> = Vec::new();
    for (k, extent) in batches.iter().rev().enumerate() {
        let a_stride = advance(&mut a_next, a, k, extent);
        let b_stride = advance(&mut b_next, b, k, extent);
        if !extent.is(1) {
            axes.push(Axis { extent: extent.clone(), a_stride, b_stride });
        }
    }
    axes.reverse();
    axes
}

/// The stride of an operand along its batch axis `k`, counted from the innermost, where the result's extent is
/// `extent`; moves `next` on to the next axis.
fn advance(next: &mut Expr, operand: &Operand, k: usize, extent: &Expr) -> Expr {
    let Some(own) = operand.dims.len().checked_sub(3 + k).map(|at| &operand.dims[at]) else {
        return Expr::from(0i64);
    };
    let stride = next.clone();
    *next = next.clone() * own.clone();
    if own == extent {
        stride
    } else if own.as_const().is_some() {
        // It differs from the result's, so that it is 1.
        Expr::from(0i64)
    } else {
        // 1 or the result's extent, which only the shapes at hand tell.
        stride * Expr::from(1i64).smaller(&(own.clone() - Expr::from(1i64)))
    }
}

/// Axes that lie behind one another in both operands become one.
fn merged(axes: Vec<Axis>) -> Vec<Axis> {
    let mut merged: Vec<Axis> = Vec::new();
    for inner in axes {
        match merged.last_mut() {
            Some(outer)
                if outer.a_stride == inner.a_stride.clone() * inner.extent.clone()
                    && outer.b_stride == inner.b_stride.clone() * inner.extent.clone() =>
            {
                *outer = Axis { extent: outer.extent.clone() * inner.extent.clone(), ..inner };
            }
            Some(_) | None => merged.push(inner),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::Kind;

    fn product(a: &str, b: &str, out: &str, transpose: [bool; 2]) -> Result<Product, String> {
        let operand = |dims: &str| {
            Some(Operand { dtype: DType::F16, dims: dims.split(' ').map(|dim| dim.parse().unwrap()).collect() })
        };
        let [transpose_a, transpose_b] = transpose;
        let spec = MatMul { transpose_a, transpose_b, math: Default::default() };
        let problem = Problem {
            kind: Kind::MatMul(spec, None),
            inputs: vec![operand(a), operand(b)],
            outputs: vec![operand(out)],
        };
        Product::of_matmul(&problem, &spec, None)
    }

    fn batch(product: &Product) -> String {
        let axis = |axis: &Axis| format!("{}: {} {}", axis.extent, axis.a_stride, axis.b_stride);
        product.batch.iter().map(axis).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn batches_without_their_own_b_are_rows() {
        let p = product("b s 64", "64 32", "b s 32", [false, false]).unwrap();
        assert_eq!((p.m.to_string(), p.batch.len()), ("b*s".to_owned(), 0));
        let p = product("b 64 s", "64 32", "b s 32", [true, false]).unwrap();
        assert_eq!((p.m.to_string(), batch(&p)), ("s".to_owned(), "b: 64*s 0".to_owned()));
    }

    #[test]
    fn batch_axes_merge_where_they_lie_behind_one_another() {
        let p = product("b 12 s 64", "b 12 64 s", "b 12 s s", [false, false]).unwrap();
        assert_eq!(batch(&p), "12*b: 64*s 64*s");
        let p = product("b 12 s 64", "b 1 64 s", "b 12 s s", [false, false]).unwrap();
        assert_eq!((p.m.to_string(), batch(&p)), ("12*s".to_owned(), "b: 768*s 64*s".to_owned()));
        let p = product("b 12 s 64", "12 64 s", "b 12 s s", [false, false]).unwrap();
        assert_eq!(batch(&p), "b: 768*s 0; 12: 64*s 64*s");
    }

    #[test]
    fn an_extent_that_may_be_one_is_asked_at_run_time() {
        let p = product("a 4 8", "b 8 2", "bcast(a,b) 4 2", [false, false]).unwrap();
        let at = |a, b| {
            let value = |e: &Expr| e.eval(&|name| if name == "a" { a } else { b });
            (value(&p.batch[0].extent), value(&p.batch[0].a_stride), value(&p.batch[0].b_stride))
        };
        assert_eq!(at(1, 5), (5, 0, 16));
        assert_eq!(at(5, 1), (5, 32, 0));
        assert_eq!(at(3, 3), (3, 32, 16));
    }

    #[test]
    fn a_column_vector_becomes_a_row() {
        let p = product("b s 64", "64 1", "b s 1", [false, false]).unwrap();
        assert_eq!((p.m.to_string(), p.n.to_string()), ("1".to_owned(), "b*s".to_owned()));
        assert_eq!((p.a.input, p.a.transposed, p.b.input, p.b.transposed), (1, false, 0, true));
    }

    #[test]
    fn axes_that_do_not_merge_are_counted() {
        let a = product("2 1 2 1 2 4 4", "1 2 1 2 1 4 4", "2 2 2 2 2 4 4", [false, false]);
        assert_eq!(a.unwrap_err(), "4 batch axes remain of which no two lie behind one another");
    }
}
