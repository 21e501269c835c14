//! Random numbers: the generator's own test vectors are beside it; here is what makes of its bits, and what differs from run
//! to run, node to node and round to round.

use lapidary_runtime::DType;

use super::fixture::{Attr, Case, floats};
use crate::ir::eval::{self, Tensor};
use crate::passes::Precision;

fn drawn(op: &str, attrs: &[(&str, Attr)]) -> Case {
    Case::new(22).node(op, "", "y", attrs)
}

/// The first output in the run behind `before` others, of the graph as imported and as optimized.
fn after(case: &Case, inputs: &[Tensor], before: u64) -> Vec<f64> {
    let graph = case.import().unwrap_or_else(|found| panic!("{found}"));
    let values = eval::run_after(&graph, inputs, before).unwrap_or_else(|error| panic!("{error}"))[0].to_f64s();
    let (optimized, _) = crate::optimize(graph, Precision::default());
    let again = eval::run_after(&optimized, inputs, before).unwrap_or_else(|error| panic!("{error}"))[0].to_f64s();
    assert_eq!(values, again, "optimizing changes the numbers");
    values
}

fn mean_and_variance(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    (mean, values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count)
}

#[test]
fn uniform_numbers_fill_their_range() {
    let attrs = [("shape", Attr::Ints(&[64, 64])), ("low", Attr::Float(-2.0)), ("high", Attr::Float(4.0))];
    let values = after(&drawn("RandomUniform", &attrs), &[], 0);
    assert!(values.iter().all(|&x| (-2.0..4.0).contains(&x)));
    let (mean, variance) = mean_and_variance(&values);
    // 5 standard deviations of the mean and of the variance of 4096 numbers.
    assert!((mean - 1.0).abs() < 5.0 * (3.0f64 / 4096.0).sqrt(), "{mean}");
    assert!((variance - 3.0).abs() < 5.0 * 3.0 * (0.8f64 / 4096.0).sqrt(), "{variance}");
    for (number, dtype) in [(10, DType::F16), (11, DType::F64), (16, DType::BF16)] {
        let attrs = [("shape", Attr::Ints(&[4096])), ("dtype", Attr::Int(number))];
        let got = drawn("RandomUniform", &attrs).run(&[]);
        assert_eq!(got.dtype, dtype);
        let values = got.to_f64s();
        assert!(values.iter().all(|&x| (0.0..1.0).contains(&x)));
        assert!((mean_and_variance(&values).0 - 0.5).abs() < 0.03);
    }
}

#[test]
fn normal_numbers_have_the_moments_of_their_distribution() {
    let attrs = [("shape", Attr::Ints(&[8192])), ("mean", Attr::Float(3.0)), ("scale", Attr::Float(2.0))];
    let values = after(&drawn("RandomNormal", &attrs), &[], 0);
    let (mean, variance) = mean_and_variance(&values);
    assert!((mean - 3.0).abs() < 5.0 * 2.0 / 8192f64.sqrt(), "{mean}");
    assert!((variance - 4.0).abs() < 5.0 * 4.0 * (2.0f64 / 8192.0).sqrt(), "{variance}");
    let within = values.iter().filter(|&&x| (x - 3.0).abs() < 2.0).count() as f64 / 8192.0;
    assert!((within - 0.6827).abs() < 0.03, "{within} of the numbers within one standard deviation");
    let fourth = values.iter().map(|x| ((x - mean) / variance.sqrt()).powi(4)).sum::<f64>() / 8192.0;
    assert!((fourth - 3.0).abs() < 0.3, "{fourth}");
}

#[test]
fn classes_are_drawn_by_their_shares() {
    let case = Case::new(22).input("x", DType::F32, &["n", "4"]);
    let attrs = [("sample_size", Attr::Int(4000)), ("dtype", Attr::Int(7))];
    let case = case.node("Multinomial", "x", "y", &attrs);
    assert_eq!(case.dims(), ["n", "4000"]);
    let shares = [0.1f64, 0.0, 0.6, 0.3];
    let rows: Vec<f64> = [0.0, 50.0].iter().flat_map(|shift| shares.map(|share| share.ln() + shift)).collect();
    let x = floats(&[2, 4], &rows);
    let values = after(&case, &[x], 0);
    for row in values.chunks(4000) {
        for (class, share) in shares.into_iter().enumerate() {
            let count = row.iter().filter(|&&value| value == class as f64).count() as f64;
            let deviation = (4000.0 * share * (1.0 - share)).sqrt();
            assert!((count - 4000.0 * share).abs() <= 5.0 * deviation, "{count} of class {class}");
        }
    }
    assert_ne!(values[..4000], values[4000..]);
}

#[test]
fn dropout_scales_what_it_keeps() {
    let case = Case::new(22).input("x", DType::F32, &["n"]).constant("ratio", floats(&[], &[0.25]));
    let case = case.constant("train", Tensor::from_i64s(DType::Bool, Vec::new(), &[1])).outputs("y mask");
    let case = case.node("Dropout", "x ratio train", "y mask", &[("seed", Attr::Int(7))]);
    let x: Vec<f64> = (1..=2000).map(f64::from).collect();
    let got = case.run_all(&[floats(&[2000], &x)]);
    let (y, mask) = (got[0].1.to_f64s(), got[1].1.to_i64s());
    let kept = mask.iter().sum::<i64>() as f64;
    assert!((kept - 1500.0).abs() < 5.0 * 375f64.sqrt(), "{kept} of 2000 are kept");
    for ((x, y), kept) in x.iter().zip(y).zip(mask) {
        assert!((y - x / 0.75 * kept as f64).abs() < 1e-3);
    }
    let open = Case::new(22).input("x", DType::F32, &["n"]).input("train", DType::Bool, &[]);
    let open = open.node("Dropout", "x _ train", "y", &[]);
    assert_eq!(open.fault(), "the mode in \"train\" depends on the data of a run");
}

#[test]
fn runs_and_nodes_differ_and_seeds_repeat() {
    let shape = || ("shape", Attr::Ints(&[8]));
    let two = |first: &[(&str, Attr)], second: &[(&str, Attr)]| {
        let case = Case::new(22).outputs("y z");
        case.node("RandomNormal", "", "y", first).node("RandomNormal", "", "z", second)
    };
    let case = two(&[shape()], &[shape()]);
    let got = case.run_all(&[]);
    assert_ne!(got[0].1, got[1].1, "two nodes without seeds");
    assert_eq!(case.run_all(&[]), got, "the same run of another session");
    assert_ne!(after(&case, &[], 1), after(&case, &[], 0), "two runs");
    assert_ne!(after(&case, &[], 1 << 32), after(&case, &[], 0), "the high bits of the run count");
    let seeded = |seed: f32| [shape(), ("seed", Attr::Float(seed))];
    let same = two(&seeded(2.5), &seeded(2.5)).run_all(&[]);
    assert_eq!(same[0].1, same[1].1, "two nodes of one seed");
    let other = two(&seeded(2.5), &seeded(2.25)).run_all(&[]);
    assert_ne!(other[0].1, other[1].1, "two seeds");
    assert_eq!(other[0].1, same[0].1, "a seed means the same in every model");
}

#[test]
fn the_rounds_of_a_loop_differ() {
    for attrs in [vec![], vec![("seed", Attr::Float(1.0))]] {
        let drawn = Case::new(22).input("round", DType::I64, &[]).input("on", DType::Bool, &[]).outputs("on r");
        let drawn = drawn.node("RandomUniformLike", "x", "r", &attrs);
        let looped = |rounds: i64| {
            let case = Case::new(22).input("x", DType::F32, &["4"]);
            let case = case.constant("count", Tensor::from_i64s(DType::I64, Vec::new(), &[rounds]));
            case.node("Loop", "count _", "y", &[("body", Attr::graph(drawn.clone()))])
        };
        let values = after(&looped(2), &[floats(&[4], &[0.0; 4])], 0);
        assert_ne!(values[..4], values[4..]);
        assert_eq!(
            looped(5000).fault(),
            "random numbers in a loop that is not unrolled would be the same in each round"
        );
    }
}

#[test]
fn numbers_that_cannot_be_drawn_are_refused() {
    let shape = || ("shape", Attr::Ints(&[8]));
    assert_eq!(drawn("RandomNormal", &[]).fault(), "attribute \"shape\" (INTS) is missing");
    assert_eq!(
        drawn("RandomNormal", &[shape(), ("dtype", Attr::Int(7))]).fault(),
        "the result is i64, and must be a float"
    );
    let negative = drawn("RandomUniform", &[("shape", Attr::Ints(&[-1]))]);
    assert_eq!(negative.fault(), "attribute \"shape\" is [-1]");
    let like = Case::new(22).input("x", DType::I32, &["2"]).node("RandomUniformLike", "x", "y", &[]);
    assert_eq!(like.fault(), "the result is i32, and must be a float");
}
