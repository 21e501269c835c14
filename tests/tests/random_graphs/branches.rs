//! What a branch relies on is asked of the shapes when it is taken, and only then.

use lapidary::ir::eval::Tensor;
use lapidary::ir::{Graph, text, verify};
use lapidary::lower::Target;
use lapidary_runtime::{DType, Error};

use super::session;

/// The then-branch needs two extents that broadcast; the other does not.
const SUM_OR_FIRST: &str = r#"
graph "g" {
  symbol m = input 2 axis 0, 1..2..4
  symbol n = input 1 axis 0, 2..2..4
  input %0 "which" bool[]
  input %1 "a" f32[n]
  input %2 "b" f32[m]
  %3 "y" f32[n] = if(%0, %1, %2) {
    then "then" {
      constraint broadcast(n, m) "Add"
      constraint equal(bcast(n, m), n) "Add"
      input %0 "a" f32[n]
      input %1 "b" f32[m]
      %2 "r" f32[n] = pointwise(%0, %1) { in f32 f32; s0 = add f32 in0 in1; out s0 } from "Add"
      output "r" %2
    } else "else" {
      input %0 "a" f32[n]
      input %1 "b" f32[m]
      output "r" %0
    }
  } from "If"
  output "y" %3
}
"#;

fn graph() -> Graph {
    let graph = text::parse(SUM_OR_FIRST, &|_| None).expect("a graph");
    verify::verify(&graph).expect("a sound graph");
    graph
}

fn inputs(which: i64, n: usize, m: usize) -> Vec<Tensor> {
    let ones = |count| Tensor::from_f64s(DType::F32, vec![count], &vec![1.0; count]);
    vec![Tensor::from_i64s(DType::Bool, vec![], &[which]), ones(n), ones(m)]
}

#[test]
fn constraints_of_a_branch_are_checked_when_it_is_taken() {
    let runs = [inputs(1, 3, 3), inputs(1, 3, 2), inputs(0, 3, 2), inputs(1, 3, 1), inputs(1, 2, 4), inputs(0, 2, 4)];
    let outcomes = session::run(&graph(), Target::Cpu, &runs).expect("compiles");
    let values = |k: usize| outcomes[k].as_ref().map(|outputs| outputs[0].to_f64s());
    assert_eq!(values(0).expect("3 and 3"), [2.0; 3]);
    assert_eq!(values(2).expect("not taken"), [1.0; 3]);
    assert_eq!(values(3).expect("3 and 1"), [2.0; 3]);
    assert_eq!(values(5).expect("not taken"), [1.0; 2]);
    for (k, extents) in [(1, (3, 2)), (4, (2, 4))] {
        match values(k) {
            Err(Error::Constraint { why, left, right }) => {
                assert_eq!((why.as_str(), (*left, *right)), ("Add", extents));
            }
            other => panic!("run {k} gave {other:?}"),
        }
    }
}
