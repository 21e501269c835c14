//! Extents as formulas: slices, shapes and splits of symbolic axes.

use lapidary_runtime::DType;

use super::fixture::{Attr, Case, counted, floats};
use crate::ir::eval::Tensor;

/// x `[batch, seq]`, sliced along `seq`.
fn sliced(start: i64, end: i64, step: i64) -> Case {
    Case::new(17)
        .input("x", DType::F32, &["batch", "seq"])
        .ints("start", &[start])
        .ints("end", &[end])
        .ints("axis", &[1])
        .ints("step", &[step])
        .node("Slice", "x start end axis step", "y", &[])
}

#[test]
fn slices_are_plain_where_the_ranges_allow() {
    let of = |start, end, step| sliced(start, end, step).dim("seq=4:8:16").dims()[1].clone();
    assert_eq!(of(1, -1, 1), "seq - 2");
    assert_eq!(of(0, i64::MAX, 1), "seq");
    assert_eq!(of(-3, i64::MAX, 1), "3");
    assert_eq!(of(-1, i64::MIN, -1), "seq");
    assert_eq!(of(i64::MAX, 0, -1), "seq - 1");
    assert_eq!(of(0, 4, 1), "4");
    assert_eq!(of(0, i64::MAX, 2), "floor(seq + 1, 2)");
    assert_eq!(of(3, 2, 1), "0");
    // Only here the sequence may be too short.
    assert_eq!(of(0, 5, 1), "min(5, seq)");
}

#[test]
fn a_whole_axis_stays_plain_whatever_its_formula() {
    // Nothing says that seq is at least 9, but an extent is never negative.
    let case = Case::new(17)
        .input("x", DType::F32, &["seq"])
        .ints("from", &[9])
        .ints("back", &[-1])
        .ints("none", &[0])
        .ints("past", &[i64::MAX])
        .ints("before", &[i64::MIN])
        .node("Shape", "x", "seq", &[])
        .node("Sub", "seq from", "shorter", &[])
        .node("Expand", "one shorter", "cut", &[])
        .constant("one", counted(&[1]))
        .node("Slice", "cut none past", "whole", &[])
        .node("Slice", "whole past before none back", "y", &[]);
    assert_eq!(case.dims(), ["seq - 9"]);
    assert_eq!(case.run(&[counted(&[12])]).dims, [3]);
}

#[test]
fn slices_take_what_numpy_takes() {
    let reference = |seq: i64, start: i64, end: i64, step: i64| -> Vec<i64> {
        let place = |at: i64| if at < 0 { at.saturating_add(seq) } else { at };
        let (low, high) = if step > 0 { (0, seq) } else { (-1, seq - 1) };
        let (mut at, end) = (place(start).clamp(low.max(0), high), place(end).clamp(low, high));
        let mut taken = Vec::new();
        while (step > 0 && at < end) || (step < 0 && at > end) {
            taken.push(at);
            at += step;
        }
        taken
    };
    let ends = [i64::MIN, -9, -3, -1, 0, 1, 2, 5, 9, i64::MAX];
    for step in [-3, -1, 1, 2] {
        for start in ends {
            for end in ends {
                let case = sliced(start, end, step);
                for seq in [1, 2, 6] {
                    let x =
                        Tensor::from_f64s(DType::F32, vec![1, seq], &(0..seq).map(|i| i as f64).collect::<Vec<_>>());
                    let taken: Vec<f64> = reference(seq as i64, start, end, step).iter().map(|&at| at as f64).collect();
                    assert_eq!(case.run(&[x]).to_f64s(), taken, "[{start}:{end}:{step}] of {seq}");
                }
            }
        }
    }
}

#[test]
fn a_start_of_either_sign_counts_from_the_right_end() {
    // x[seq - 5:]
    let case = Case::new(17)
        .input("x", DType::F32, &["seq"])
        .node("Shape", "x", "shape", &[])
        .ints("five", &[5])
        .node("Sub", "shape five", "start", &[])
        .ints("end", &[i64::MAX])
        .node("Slice", "x start end", "y", &[]);
    assert_eq!(case.run(&[counted(&[8])]).dims, [5]);
    // -2 means the last two.
    assert_eq!(case.run(&[counted(&[3])]).dims, [2]);
    assert_eq!(case.run(&[counted(&[5])]).dims, [5]);
}

#[test]
fn reshape_solves_for_the_open_extent() {
    let case = |target: &[i64]| {
        Case::new(17).input("x", DType::F32, &["batch", "seq", "12"]).ints("target", target).node(
            "Reshape",
            "x target",
            "y",
            &[],
        )
    };
    assert_eq!(case(&[0, -1, 4]).dims(), ["batch", "3*seq", "4"]);
    assert_eq!(case(&[-1, 12]).dims(), ["batch*seq", "12"]);
    assert_eq!(case(&[0, 0, 3, -1]).dims(), ["batch", "seq", "3", "4"]);
    assert_eq!(case(&[-1, -1]).fault(), "the shape has more than one -1");
    assert_eq!(case(&[1, 1, 1, 0]).fault(), "extent 3 of the shape is 0, and the operand has rank 3");
}

#[test]
fn reshape_follows_shape_arithmetic() {
    let case = Case::new(17)
        .input("x", DType::F32, &["batch", "seq", "12"])
        .node("Shape", "x", "outer", &[("end", Attr::Int(2))])
        .ints("heads", &[3, -1])
        .node("Concat", "outer heads", "target", &[("axis", Attr::Int(0))])
        .node("Reshape", "x target", "y", &[]);
    assert_eq!(case.dims(), ["batch", "seq", "3", "4"]);
}

#[test]
fn a_shape_from_data_is_refused_by_name() {
    let case = Case::new(17).input("x", DType::F32, &["4"]).input("target", DType::I64, &["2"]).node(
        "Reshape",
        "x target",
        "y",
        &[],
    );
    assert_eq!(case.fault(), "the shape in \"target\" depends on the data of a run");
}

#[test]
fn squeezing_a_symbol_is_a_constraint_or_a_fault() {
    let with_axes = Case::new(17).input("x", DType::F32, &["batch", "1", "n"]).ints("axes", &[0]).node(
        "Squeeze",
        "x axes",
        "y",
        &[],
    );
    assert_eq!(with_axes.dims(), ["1", "n"]);
    let graph = with_axes.import().expect("a graph");
    let required = graph.constraints.iter().any(|c| c.left.to_string() == "batch" && c.right.is(1));
    assert!(required, "{:?}", graph.constraints);
    let without = Case::new(17).input("x", DType::F32, &["batch", "1", "n"]).node("Squeeze", "x", "y", &[]);
    assert!(without.fault().starts_with("whether axis 0 of \"x\" is squeezed depends on batch"));
    let bounded = without.dim("batch=2:4:8").dim("n=2:4:8");
    assert_eq!(bounded.dims(), ["batch", "n"]);
}

#[test]
fn split_of_a_symbol() {
    let case = |opset| {
        Case::new(opset).input("x", DType::F32, &["seq"]).node("Split", "x", "a b", &[]).node(
            "Concat",
            "b a",
            "y",
            &[("axis", Attr::Int(0))],
        )
    };
    let swapped = |seq: usize, first: usize| {
        let values = counted(&[seq]).to_f64s();
        [&values[first..], &values[..first]].concat()
    };
    for seq in [1, 2, 7, 8] {
        assert_eq!(case(18).run(&[counted(&[seq])]).to_f64s(), swapped(seq, seq.div_ceil(2)), "{seq}");
    }
    // Before operator set 18 the parts are equal, or the model does not run.
    assert_eq!(case(13).run(&[counted(&[8])]).to_f64s(), swapped(8, 4));
    assert!(!case(13).import().expect("a graph").constraints.is_empty());
    let odd = Case::new(13).input("x", DType::F32, &["7"]).node("Split", "x", "y b", &[]);
    assert_eq!(odd.fault(), "an extent of 7 does not split into 2 equal parts");
}

#[test]
fn tile_beyond_the_largest_rank() {
    let case = Case::new(17).input("x", DType::F32, &["1", "2", "n", "2", "2"]).ints("repeats", &[2, 2, 3, 1, 2]).node(
        "Tile",
        "x repeats",
        "y",
        &[],
    );
    let x = counted(&[1, 2, 3, 2, 2]);
    let y = case.run(std::slice::from_ref(&x));
    assert_eq!(y.dims, [2, 4, 9, 2, 4]);
    let (x, y) = (x.to_f64s(), y.to_f64s());
    let mut at = 0;
    for _ in 0..2 {
        for b in 0..4 {
            for c in 0..9 {
                for d in 0..2 {
                    for e in 0..4 {
                        assert_eq!(y[at], x[(((b % 2) * 3 + c % 3) * 2 + d) * 2 + e % 2]);
                        at += 1;
                    }
                }
            }
        }
    }
}

#[test]
fn expand_keeps_what_is_larger() {
    let case = Case::new(17)
        .input("x", DType::F32, &["batch", "1", "3"])
        .input("like", DType::F32, &["seq", "1"])
        .node("Shape", "like", "shape", &[])
        .node("Expand", "x shape", "y", &[]);
    assert_eq!(case.dims(), ["batch", "seq", "3"]);
}

#[test]
fn ranges_count_in_formulas() {
    let case = Case::new(17)
        .input("x", DType::F32, &["past", "seq"])
        .node("Shape", "x", "past", &[("end", Attr::Int(1))])
        .node("Size", "x", "size", &[])
        .ints("none", &[])
        .node("Reshape", "past none", "start", &[])
        .node("Add", "start size", "limit", &[])
        .constant("two", Tensor::from_i64s(DType::I64, vec![], &[2]))
        .node("Range", "start limit two", "y", &[]);
    assert_eq!(case.dims(), ["floor(past*seq + 1, 2)"]);
    assert_eq!(case.run(&[counted(&[3, 3])]).to_i64s(), [3, 5, 7, 9, 11]);
}

#[test]
fn ranges_of_floats_follow_from_constants() {
    let case = Case::new(17)
        .constant("n", Tensor::from_i64s(DType::I64, vec![], &[5]))
        .constant("zero", Tensor::from_f64s(DType::F32, vec![], &[0.0]))
        .constant("half", Tensor::from_f64s(DType::F32, vec![], &[0.5]))
        .node("Cast", "n", "n_float", &[("to", Attr::Int(1))])
        .node("Mul", "n_float half", "limit", &[])
        .node("Range", "zero limit half", "y", &[]);
    assert_eq!(case.run(&[]).to_f64s(), [0.0, 0.5, 1.0, 1.5, 2.0]);
}

/// x `[1, 2, 4]` of two positions and two heads of a pair each; row p of the caches is the angle p * 90 degrees.
fn turned(places: &[i64], rank: usize, attrs: &[(&str, Attr)]) -> Vec<f64> {
    let mut dims = vec![1; rank - 1];
    dims.push(places.len());
    let case = Case::new(17).input("x", DType::F32, &["1", "2", "4"]);
    let case = case.constant("at", Tensor::from_i64s(DType::I64, dims, places));
    let case = case.constant("cos", floats(&[4, 1], &[1.0, 0.0, -1.0, 0.0]));
    let case = case.constant("sin", floats(&[4, 1], &[0.0, 1.0, 0.0, -1.0]));
    let case = case.node("com.microsoft::RotaryEmbedding", "x at cos sin", "y", attrs);
    case.run(&[floats(&[1, 2, 4], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0])]).to_f64s()
}

#[test]
fn a_rotary_embedding_with_caches_counts_on_from_one_position() {
    // (a, b) by 90 degrees is (-b, a), by 180 degrees (-a, -b).
    let expected = [-2.0, 1.0, -4.0, 3.0, -5.0, -6.0, -7.0, -8.0];
    assert_eq!(turned(&[1], 1, &[]), expected);
    assert_eq!(turned(&[1, 2], 2, &[("num_heads", Attr::Int(2))]), expected);
    assert_eq!(turned(&[3, 0], 2, &[])[..4], [2.0, -1.0, 4.0, -3.0]);
    let packed = Case::new(17).input("x", DType::F32, &["1", "2", "4"]).input("at", DType::I64, &["1"]);
    let packed = packed.input("cos", DType::F32, &["4", "1"]);
    let attrs = [("is_packed_batching", Attr::Int(1))];
    let packed = packed.node("com.microsoft::RotaryEmbedding", "x at cos cos", "y", &attrs);
    assert_eq!(packed.fault(), "RotaryEmbedding of packed batches is not supported");
}
