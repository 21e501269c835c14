//! Statistical tests for the cases whose expected outputs came out of numpy's generator, which nothing else can repeat.
//!
//! A test knows what the operator's definition says of every element, and bounds sums over the elements by [`SIGMAS`]
//! standard deviations. That a second run gives the same is asked by the runner.

use lapidary::ir::eval::Tensor;
use lapidary_runtime::DType;

/// How many standard deviations a sum may be from its mean: one in two million honest runs is farther off.
const SIGMAS: f64 = 5.0;

/// What the outputs are a sample of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statistic {
    /// Output 0 is one with the probability that input 0 gives, else zero.
    Bernoulli,
    /// Output 0 is input 0 scaled, or zero with the probability that input 1 gives (one half without it); output 1,
    /// where it is, says what was kept.
    Dropout,
}

/// The cases that embed numpy's generator.
const CASES: &[(&str, Statistic)] = &[
    ("test_bernoulli", Statistic::Bernoulli),
    ("test_bernoulli_double", Statistic::Bernoulli),
    ("test_bernoulli_double_expanded", Statistic::Bernoulli),
    ("test_bernoulli_expanded", Statistic::Bernoulli),
    ("test_bernoulli_seed", Statistic::Bernoulli),
    ("test_bernoulli_seed_expanded", Statistic::Bernoulli),
    ("test_training_dropout", Statistic::Dropout),
    ("test_training_dropout_default", Statistic::Dropout),
    ("test_training_dropout_default_mask", Statistic::Dropout),
    ("test_training_dropout_mask", Statistic::Dropout),
];

impl Statistic {
    /// The test of a case; `None` where the expected outputs are to be had exactly.
    pub fn of(case: &str) -> Option<Statistic> {
        CASES.iter().find(|(name, _)| *name == case).map(|(_, statistic)| *statistic)
    }

    /// Its name in the ledger.
    pub fn name(self) -> &'static str {
        match self {
            Statistic::Bernoulli => "bernoulli: 0 and 1, mean and variance within 5 sigma",
            Statistic::Dropout => "dropout: kept elements scaled, share dropped within 5 sigma",
        }
    }

    /// Why the outputs are no such sample.
    pub fn check(self, inputs: &[Tensor], outputs: &[Tensor]) -> Result<(), String> {
        let (Some(x), Some(y)) = (inputs.first(), outputs.first()) else {
            return Err("an input or an output is missing".to_owned());
        };
        if x.dims != y.dims {
            return Err(format!("{:?} instead of {:?}", y.dims, x.dims));
        }
        let (x, y) = (x.to_f64s(), y.to_f64s());
        match self {
            Statistic::Bernoulli => bernoulli(&x, &y),
            Statistic::Dropout => {
                let ratio = inputs.get(1).and_then(|ratio| ratio.to_f64s().first().copied()).unwrap_or(0.5);
                dropout(&x, &y, ratio, outputs.get(1))
            }
        }
    }
}

fn bernoulli(p: &[f64], y: &[f64]) -> Result<(), String> {
    if let Some(value) = y.iter().find(|&&y| y != 0.0 && y != 1.0) {
        return Err(format!("{value} is neither 0 nor 1"));
    }
    let pairs = || p.iter().zip(y);
    if let Some((p, y)) = pairs().find(|(p, y)| **p <= 0.0 && **y != 0.0 || **p >= 1.0 && **y != 1.0) {
        return Err(format!("{y} with the probability {p}"));
    }
    let variance = |p: &f64| p * (1.0 - p);
    let deviation = p.iter().map(variance).sum::<f64>().sqrt();
    within("the sum", y.iter().sum(), p.iter().sum(), deviation)?;
    let squares = pairs().map(|(p, y)| (y - p).powi(2)).sum();
    let deviation = p.iter().map(|p| variance(p) * (1.0 - 2.0 * p).powi(2)).sum::<f64>().sqrt();
    within("the sum of squared deviations", squares, p.iter().map(variance).sum(), deviation)
}

fn dropout(x: &[f64], y: &[f64], ratio: f64, mask: Option<&Tensor>) -> Result<(), String> {
    let mut dropped = 0.0;
    let kept = mask.map(Tensor::to_i64s);
    for (k, (&x, &y)) in x.iter().zip(y).enumerate() {
        let expected = x / (1.0 - ratio);
        let is_kept = (y - expected).abs() <= 1e-7 + 1e-3 * expected.abs();
        if !is_kept && y != 0.0 {
            return Err(format!("element {k} is {y}, neither 0 nor {expected}"));
        }
        if let Some(kept) = &kept
            && kept.get(k).is_none_or(|&kept| (kept != 0) != is_kept)
        {
            return Err(format!("the mask is wrong at element {k}"));
        }
        dropped += f64::from(u8::from(!is_kept));
    }
    let count = x.len() as f64;
    within("the number of dropped elements", dropped, count * ratio, (count * ratio * (1.0 - ratio)).sqrt())
}

fn within(what: &str, value: f64, mean: f64, deviation: f64) -> Result<(), String> {
    if (value - mean).abs() <= SIGMAS * deviation + 1e-9 {
        return Ok(());
    }
    Err(format!("{what} is {value}, expected {mean} with a standard deviation of {deviation}"))
}

/// Samples pass, and what is none does not.
pub fn self_test() -> Result<(), String> {
    let tensor = |values: &[f64]| Tensor::from_f64s(DType::F32, vec![values.len()], values);
    let p = vec![0.25; 400];
    let every = |n: usize| (0..400).map(|k| if k % n == 0 { 1.0 } else { 0.0 }).collect::<Vec<f64>>();
    let ramp: Vec<f64> = (1..=400).map(f64::from).collect();
    let dropped = |n: usize| ramp.iter().zip(every(n)).map(|(x, d)| x * 2.0 * (1.0 - d)).collect::<Vec<f64>>();
    let kept =
        |n: usize| Tensor::from_f64s(DType::Bool, vec![400], &every(n).iter().map(|d| 1.0 - d).collect::<Vec<_>>());
    let table = [
        (Statistic::Bernoulli, vec![tensor(&p)], vec![tensor(&every(4))], true),
        (Statistic::Bernoulli, vec![tensor(&p)], vec![tensor(&every(2))], false),
        (Statistic::Bernoulli, vec![tensor(&p)], vec![tensor(&p)], false),
        (Statistic::Bernoulli, vec![tensor(&[0.0, 1.0])], vec![tensor(&[1.0, 0.0])], false),
        (Statistic::Dropout, vec![tensor(&ramp)], vec![tensor(&dropped(2)), kept(2)], true),
        (Statistic::Dropout, vec![tensor(&ramp)], vec![tensor(&dropped(2)), kept(4)], false),
        (Statistic::Dropout, vec![tensor(&ramp)], vec![tensor(&dropped(10))], false),
        (Statistic::Dropout, vec![tensor(&ramp)], vec![tensor(&ramp)], false),
    ];
    for (row, (statistic, inputs, outputs, right)) in table.into_iter().enumerate() {
        let said = statistic.check(&inputs, &outputs);
        if said.is_ok() != right {
            return Err(format!("row {row}, {statistic:?}: {said:?}"));
        }
    }
    Ok(())
}
