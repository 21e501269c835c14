use lapidary_runtime::op::{Math, Scalar};

use super::*;

const SPEC: Attention =
    Attention { scale: Scalar::float(DType::F32, 0.125), causal: false, unseen: Unseen::Nan, math: Math::Exact };

fn operand(dtype: DType, dims: &str) -> Operand {
    Operand { dtype, dims: exprs(dims) }
}

fn exprs(text: &str) -> Vec<Expr> {
    text.split(' ').map(|dim| dim.parse().expect("a formula")).collect()
}

/// Attention on whole tensors.
fn whole(dtype: DType, [q, k, v]: [&str; 3], mask: Option<&str>) -> (Problem, [Strided; 4]) {
    let [q, k, v] = [q, k, v].map(|dims| operand(dtype, dims));
    let mut y = q.clone();
    y.dims[3] = v.dims[3].clone();
    let places = [&q, &k, &v, &y].map(|whole| Strided::contiguous(&whole.dims));
    let inputs = [q, k, v].into_iter().map(Some).chain(mask.map(|dims| Some(operand(dtype, dims))));
    let kind = Kind::Attention(SPEC, Box::new(places.clone()));
    (Problem { kind, inputs: inputs.collect(), outputs: vec![Some(y)] }, places)
}

fn answer_to(problem: &Problem) -> Answer {
    let range = |expr: &Expr| expr.range(&|_| (1, 512));
    let typical = |expr: &Expr| expr.eval(&|_| 128);
    let arch = "sm_80".parse().expect("a known architecture");
    answer(problem, arch, &Shapes { range: &range, typical: &typical })
}

fn kernels(answer: &Answer) -> Vec<&str> {
    let mut names: Vec<&str> =
        answer.candidates.iter().filter_map(|candidate| candidate.key.split('/').next()).collect();
    names.dedup();
    names
}

/// The reason against all kernels of a name.
fn reason<'a>(answer: &'a Answer, kernel: &str) -> Option<&'a str> {
    answer.refusals.iter().find(|refusal| refusal.key == kernel).map(|refusal| refusal.reason.as_str())
}

fn viewed(q: Strided) -> Problem {
    let (problem, [_, k, v, y]) = whole(DType::F16, ["2 3 n 64"; 3], None);
    Problem { kind: Kind::Attention(SPEC, Box::new([q, k, v, y])), ..problem }
}

#[test]
fn halves_have_all_kernels_and_floats_those_of_scalar_units() {
    let (halves, _) = whole(DType::BF16, ["b 12 s 64"; 3], None);
    assert_eq!(kernels(&answer_to(&halves)), ["attention_mma", "attention_simt", "attention_direct"]);
    let (floats, _) = whole(DType::F32, ["b 12 s 64"; 3], None);
    let answer = answer_to(&floats);
    assert_eq!(kernels(&answer), ["attention_simt", "attention_direct"]);
    let expected = "its tensor core kernels multiply f16 and bf16, and this is f32";
    assert_eq!(reason(&answer, "attention_mma"), Some(expected));
}

#[test]
fn packed_projections_are_read_in_place() {
    let packed = viewed(Strided { offset: Expr::constant(192), strides: exprs("576*n 64 576 1") });
    let answer = answer_to(&packed);
    assert_eq!(kernels(&answer)[0], "attention_mma");
    let params = &answer.candidates[0].launches[0].params;
    assert_eq!(params[0], crate::Param::Input(0, Expr::constant(192)));
    assert!(params.contains(&crate::Param::I64("576*n".parse().expect("a formula"))), "{params:?}");
}

#[test]
fn what_copies_of_16_bytes_cannot_read_is_left_to_scalar_units() {
    let place = |offset: i64, strides: &str| Strided { offset: Expr::constant(offset), strides: exprs(strides) };
    for (place, expected) in [
        (place(4, "576*n 64 576 1"), "the queries have rows that begin at multiples of 4, which 8 does not divide"),
        (place(0, "579*n 64 579 1"), "the queries have rows that begin at multiples of 579*n, which 8 does not divide"),
        (
            place(0, "192*n 64*n 1 n"),
            "the queries have elements n apart, and rows are copied 8 adjacent ones at a time",
        ),
    ] {
        let answer = answer_to(&viewed(place));
        assert_eq!(reason(&answer, "attention_mma"), Some(expected));
        assert_eq!(kernels(&answer), ["attention_simt", "attention_direct"]);
    }
}

#[test]
fn depths_without_tiles_have_a_kernel() {
    for (depth, expected) in [
        ("300", "a depth is 300, and tiles are for 1 to 256"),
        ("d", "a depth, d, is not constant"),
        ("7", "rows are copied 8 elements at a time, and a depth is 7"),
    ] {
        let dims = format!("b 2 s {depth}");
        let (problem, _) = whole(DType::F16, [&dims; 3], None);
        let answer = answer_to(&problem);
        assert_eq!(reason(&answer, "attention_mma"), Some(expected));
        assert!(kernels(&answer).contains(&"attention_direct"), "{depth}");
    }
}

#[test]
fn a_tile_is_at_least_half_full() {
    let (one, _) = whole(DType::F16, ["b 12 1 64", "b 12 s 64", "b 12 s 64"], None);
    let answer = answer_to(&one);
    let mma = answer.candidates.iter().filter(|candidate| candidate.key.starts_with("attention_mma"));
    let keys: Vec<&str> = mma.map(|candidate| candidate.key.as_str()).collect();
    assert_eq!(keys, ["attention_mma/m16n128w1x4s2", "attention_mma/m16n64w1x4s2"]);
    let refusal = answer.refusals.iter().find(|refusal| refusal.key == "attention_mma/m64n64w4x1s2");
    let expected = "there are at most 1 queries, which leaves half of a tile of 64 empty";
    assert_eq!(refusal.map(|refusal| refusal.reason.as_str()), Some(expected));
}

#[test]
fn masks_are_read_by_what_they_have() {
    let policy = |mask: Option<&str>| {
        let (problem, _) = whole(DType::F16, ["b 12 s 64"; 3], mask);
        let text = answer_to(&problem).candidates[0].launches[0].source.text.clone();
        let has = |line: &str| text.contains(line);
        (["MASK = 0", "MASK = 1", "MASK = 2"].map(has), has("MASK_PAIRED = true"))
    };
    assert_eq!(policy(None), ([true, false, false], false));
    assert_eq!(policy(Some("b 1 1 s")), ([false, true, false], false));
    assert_eq!(policy(Some("s s")), ([false, false, true], false));
    let (even, _) = whole(DType::F16, ["b 12 64 64"; 3], Some("64 64"));
    assert!(answer_to(&even).candidates[0].launches[0].source.text.contains("MASK_PAIRED = true"));
}
