//! Every conversion between two element types, on every target that is here, bit for bit what the reference evaluator
//! gives; of a NaN only that it is one.
//!
//! Types of at most 16 bits are read in all of their codes. Of the wider ones, numbers are taken on both sides of where
//! some narrower type rounds, saturates or wraps.

#[path = "random_graphs/session.rs"]
mod session;

use lapidary::ir::builder::Builder;
use lapidary::ir::eval::{self, Tensor};
use lapidary::ir::{Expr, Graph, Origin, Type};
use lapidary::lower::Target;
use lapidary_runtime::DType;

#[test]
fn every_conversion_is_the_reference() {
    let targets = [Some(Target::Cpu), session::gpu().map(Target::Cuda)];
    for from in DType::ALL {
        let x = operand(from);
        let graph = casts(&x);
        let expected = eval::run(&graph, std::slice::from_ref(&x)).expect("the evaluator casts everything");
        for target in targets.into_iter().flatten() {
            let mut outcomes = session::run(&graph, target, &[vec![x.clone()]]).expect("a plan for casts");
            let given = outcomes.remove(0).unwrap_or_else(|error| panic!("{from}: {error}"));
            for (given, expected) in given.iter().zip(&expected) {
                same(from, given, expected);
            }
        }
    }
}

/// `x` converted to each type.
fn casts(x: &Tensor) -> Graph {
    let mut graph = Graph::new("casts");
    let input = graph.add_input("x", Type { dtype: x.dtype, dims: vec![Expr::from(x.dims[0])] });
    for dtype in DType::ALL {
        let mut builder = Builder::new(&mut graph, Origin(vec!["cast".into()]), dtype.name());
        let y = builder.cast(input, dtype).expect("a cast");
        graph.add_output(dtype.name(), y);
    }
    graph
}

fn operand(dtype: DType) -> Tensor {
    let bits = dtype.bits();
    if dtype == DType::Bool {
        return Tensor::from_i64s(dtype, vec![2], &[0, 1]);
    }
    if bits <= 16 {
        // One more than fills a byte, so that the last one is partly used.
        let codes: Vec<i64> = (0..(1 << bits) + 1).collect();
        let codes = Tensor::from_i64s(unsigned(dtype), vec![codes.len()], &codes);
        return Tensor::new(dtype, codes.dims, codes.bytes).expect("as many bytes");
    }
    if dtype.is_float() {
        // Every pattern of the upper 16 bits of an f32, with what lies at and beside the middles below them.
        let low = [0u32, 1, 0x4000, 0x7fff, 0x8000, 0x8001, 0xffff];
        let singles = (0..1u32 << 16).flat_map(|high| low.map(|low| f64::from(f32::from_bits(high << 16 | low))));
        // Doubles beside them that no f32 holds.
        let beside = |value: f64| [value, value * (1.0 - 1e-12), value * (1.0 + 1e-12)];
        let values: Vec<f64> = match dtype {
            DType::F64 => singles.flat_map(beside).collect(),
            _ => singles.collect(),
        };
        return Tensor::from_f64s(dtype, vec![values.len()], &values);
    }
    // Around the sums of two powers of two: where types end, and the middles of numbers with few bits.
    let powers = |k: u32| (0..=k).map(move |l| (1i64 << k).wrapping_add(if l == k { 0 } else { 1 << l }));
    let sums = (0..64).flat_map(powers).flat_map(|sum| [-1, 0, 1].map(|d| sum.wrapping_add(d)));
    let values: Vec<i64> = sums.flat_map(|value| [value, value.wrapping_neg()]).collect();
    Tensor::from_i64s(dtype, vec![values.len()], &values)
}

/// The unsigned integer type of as many bits, of at most 16.
fn unsigned(dtype: DType) -> DType {
    match dtype.bits() {
        2 => DType::U2,
        4 => DType::U4,
        8 => DType::U8,
        _ => DType::U16,
    }
}

fn same(from: DType, given: &Tensor, expected: &Tensor) {
    assert_eq!((given.dtype, &given.dims), (expected.dtype, &expected.dims));
    if given.bytes == expected.bytes {
        return;
    }
    let to = expected.dtype;
    let bits = |values: Vec<f64>| values.into_iter().map(|v| if v.is_nan() { None } else { Some(v.to_bits()) });
    let pairs = bits(given.to_f64s()).zip(bits(expected.to_f64s()));
    for (k, (g, e)) in pairs.enumerate() {
        let [g, e] = [g, e].map(|bits| bits.map(f64::from_bits));
        assert!(g.map(f64::to_bits) == e.map(f64::to_bits), "{from} to {to}, element {k}: {g:?} instead of {e:?}");
    }
    let used = expected.count() * to.bits() % 8;
    let last = |tensor: &Tensor| tensor.bytes.last().map_or(0, |last| if used == 0 { 0 } else { last >> used });
    assert_eq!(last(given), 0, "{from} to {to}: the bits behind the last element");
    assert!(to.is_float() || given.to_i64s() == expected.to_i64s(), "{from} to {to}: integers that a double rounds");
}
