//! How far rounding moves a result: the graph evaluated with small errors where kernels make them.
//!
//! An operation that adds up many numbers rounds otherwise in every order of additions, so each element of its result is
//! moved by a small share of itself, at random. Everything else is exact. Regions are left as they are.

use super::{EvalError, Node, Op, Symbols, Tensor, run_graph};
use crate::ir::Graph;

/// Evaluates the graph as [`super::run`] does, with every element of every sum moved by up to `share` of itself. The
/// same `seed` gives the same errors.
///
/// # Errors
/// As [`super::run`].
pub fn run_jittered(graph: &Graph, inputs: &[Tensor], share: f64, seed: u64) -> Result<Vec<Tensor>, EvalError> {
    let symbols = Symbols::of_inputs(graph, inputs, 0)?;
    let mut random = Random(seed);
    run_graph(graph, inputs, &symbols, &mut |_, _| {}, &mut |node, result| {
        if sums(node) && result.dtype.is_float() {
            let moved: Vec<f64> = result.to_f64s().iter().map(|x| x * (1.0 + share * random.next())).collect();
            *result = Tensor::from_f64s(result.dtype, result.dims.clone(), &moved);
        }
    })
}

fn sums(node: &Node) -> bool {
    matches!(
        node.op,
        Op::MatMul(..)
            | Op::Conv(..)
            | Op::ConvTranspose(..)
            | Op::Reduce(_)
            | Op::Softmax(_)
            | Op::Attention(_)
            | Op::Norm(..)
            | Op::GroupNorm(..)
            | Op::Recurrent(_)
    )
}

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    /// From -1 to 1.
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        (z >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::text;
    use lapidary_runtime::DType;

    #[test]
    fn sums_move_and_the_rest_does_not() {
        let graph = r#"graph "g" {
  input %0 "x" f32[1, 2]
  input %1 "w" f32[2, 1]
  %2 "a" f32[1, 1] = matmul(%0, %1) from "A"
  %3 "b" f32[1, 2] = pointwise(%0) { in f32; s0 = neg f32 in0; out s0 } from "B"
  output "a" %2
  output "b" %3
}"#;
        let graph = text::parse(graph, &|_| None).unwrap();
        let inputs = [vec![1, 2], vec![2, 1]].map(|dims| Tensor::from_f64s(DType::F32, dims, &[3.0, 4.0]));
        let run = |seed| run_jittered(&graph, &inputs, 1e-2, seed).unwrap();
        let (one, other) = (run(1), run(2));
        assert!(one[0] != other[0] && (one[0].to_f64s()[0] - 25.0).abs() < 0.26, "{one:?}");
        assert_eq!(one[1].to_f64s(), [-3.0, -4.0]);
        assert_eq!(one, run(1));
    }
}
