//! The views that moves are made of, walked element by element.

use lapidary_runtime::DType;
use lapidary_runtime::op::Transpose;

use super::*;

fn dims(text: &str) -> Vec<Expr> {
    text.split_whitespace().map(|dim| dim.parse().expect("a formula")).collect()
}

fn operand(text: &str) -> Operand {
    Operand { dtype: DType::F32, dims: dims(text) }
}

fn with_shapes<R>(test: impl FnOnce(&Shapes<'_>) -> R) -> R {
    let range = |expr: &Expr| expr.range(&|_| (1, 64));
    let typical = |expr: &Expr| expr.eval(&|_| 4);
    test(&Shapes { range: &range, typical: &typical })
}

/// The numbers of the elements of all operands, in turn, that the result consists of; `n` is the extent of `n`.
fn moved(kind: Kind, inputs: &[&str], output: &str, n: i64) -> Vec<i64> {
    let problem = Problem {
        kind,
        inputs: inputs.iter().map(|dims| Some(operand(dims))).collect(),
        outputs: vec![Some(operand(output))],
    };
    let eval = |expr: &Expr| expr.eval(&|_| n);
    let count = |operand: &Option<Operand>| operand.as_ref().map_or(0, |operand| eval(&operand.count()));
    let mut result = vec![-1; count(&problem.outputs[0]) as usize];
    let (_, moves) = with_shapes(|shapes| moves(&problem, shapes)).expect("a move").expect("a move");
    for moved in &moves {
        let Place::Input(k, _) = moved.from else { panic!("{moved:?} reads no operand") };
        let before: i64 = problem.inputs[..k].iter().map(count).sum();
        let dims: Vec<i64> = moved.view.dims.iter().map(eval).collect();
        for element in 0..dims.iter().product() {
            let mut rest = element;
            let [mut from, mut to] = [0, 1].map(|side| eval(&moved.offsets[side]));
            for (axis, dim) in dims.iter().enumerate().rev() {
                from += rest % dim * eval(&moved.view.strides[0][axis]);
                to += rest % dim * eval(&moved.view.strides[1][axis]);
                rest /= dim;
            }
            result[to as usize] = before + from;
        }
    }
    result
}

#[test]
fn a_transpose_moves_axes() {
    let spec = Transpose { rank: 3, perm: [2, 0, 1, 0, 0, 0, 0, 0] };
    let result = moved(Kind::Transpose(spec), &["n 3 2"], "2 n 3", 2);
    // result[k, i, j] = x[i, j, k]
    assert_eq!(result, [0, 2, 4, 6, 8, 10, 1, 3, 5, 7, 9, 11]);
}

#[test]
fn a_slice_starts_and_steps() {
    let kind = Kind::Slice { starts: dims("n-1 0"), steps: vec![-1, 2] };
    assert_eq!(moved(kind, &["n 5"], "n 3", 2), [5, 7, 9, 0, 2, 4]);
}

#[test]
fn an_expand_repeats() {
    assert_eq!(moved(Kind::Expand, &["n 1"], "2 n 2", 2), [0, 0, 1, 1, 0, 0, 1, 1]);
    // Whether it repeats is known when n is.
    assert_eq!(moved(Kind::Expand, &["n"], "bcast(n,m)", 3), [0, 1, 2]);
}

#[test]
fn a_concat_puts_its_parts_side_by_side() {
    let result = moved(Kind::Concat { axis: 1 }, &["2 n", "2 1", "2 2"], "2 n+3", 2);
    assert_eq!(result, [0, 1, 4, 6, 7, 2, 3, 5, 8, 9]);
}

/// One launch for all parts: each has blocks of its own, and axes in front where it has fewer than another.
#[test]
fn parts_are_copied_by_one_launch() {
    let parts = ["8 1 64", "8 3 64", "8 n 64"];
    let problem = Problem {
        kind: Kind::Concat { axis: 1 },
        inputs: parts.iter().map(|dims| Some(operand(dims))).collect(),
        outputs: vec![Some(operand("8 n+4 64"))],
    };
    let arch = "sm_90a".parse().expect("an architecture");
    let answer = with_shapes(|shapes| answer(&problem, arch, shapes));
    let keys: Vec<&str> = answer.candidates.iter().map(|candidate| candidate.key.as_str()).collect();
    assert!(keys.contains(&"copy_parts/concat_v4"), "{keys:?}");
    let candidate = answer.candidates.iter().find(|candidate| candidate.key.starts_with("copy_parts")).expect("there");
    let [launch] = &candidate.launches[..] else { panic!("{} launches", candidate.launches.len()) };
    let ends: Vec<i64> = launch.params[launch.params.len() - 3..]
        .iter()
        .map(|param| match param {
            crate::candidate::Param::I64(end) => end.eval(&|_| 100),
            other => panic!("{other:?} is no number of blocks"),
        })
        .collect();
    assert!(ends[0] > 0 && ends[0] < ends[1] && ends[1] < ends[2], "{ends:?}");
    assert_eq!(launch.grid[0].eval(&|_| 100), ends[2]);
}

#[test]
fn vectors_need_alignment_on_both_sides() {
    with_shapes(|shapes| {
        let widest_of = |kind: Kind, from: &str, to: &str| {
            let problem = Problem { kind, inputs: vec![Some(operand(from))], outputs: vec![Some(operand(to))] };
            let (_, moves) = moves(&problem, shapes).expect("a move").expect("a move");
            widest(&moves[0], shapes)
        };
        let slice = |starts: &str| Kind::Slice { starts: dims(starts), steps: vec![1, 1] };
        assert_eq!(widest_of(slice("0 4"), "n 64", "n 32"), 4);
        assert_eq!(widest_of(slice("0 2"), "n 64", "n 32"), 2);
        assert_eq!(widest_of(slice("0 0"), "n 63", "n 32"), 1);
        assert_eq!(widest_of(slice("1 0"), "n 64", "n-1 64"), 4);
    });
}
