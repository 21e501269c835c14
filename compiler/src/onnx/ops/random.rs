//! Random numbers (ONNX RandomNormal, RandomUniform, their Like forms, Bernoulli, Multinomial), and the mask of a Dropout
//! that trains.
//!
//! The generator is Philox 4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", 2011): a
//! function of a counter and a key, composed of integer steps, so that all targets give the same numbers. The counter is
//! the element's index and the number of runs that the session has done; each element takes one block. The key is the
//! node's seed and how many times the node was imported, as the body of a loop is for each round; or, of a node without a
//! seed, its number among the model's nodes. So a session repeats what another gave, a run of it gives other numbers than
//! the run before, and nodes agree where the model gives them the same seed.

use std::f64::consts::TAU;

use lapidary_runtime::DType;
use lapidary_runtime::op::{Arg, ReduceKind, Scalar, ScalarOp};

use super::entry::{op, unary};
use super::positions::positions;
use super::{Cx, Fault, Imported, OpDef, Turn, one};
use crate::ir::builder::ProgramWriter;
use crate::ir::{Expr, Op, ValueId};
use crate::onnx::dtype_of;

pub const DEFS: &[OpDef] = &[
    unary("Bernoulli", 15, bernoulli),
    unary("Multinomial", 7, multinomial),
    op("RandomNormal", 1, (0, 0), |cx| of_shape(cx, normal)),
    unary("RandomNormalLike", 1, |cx| like(cx, normal)),
    op("RandomUniform", 1, (0, 0), |cx| of_shape(cx, uniform)),
    unary("RandomUniformLike", 1, |cx| like(cx, uniform)),
];

/// What tells a node's numbers from those of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key([u32; 2]);

impl Key {
    /// Keys of seeds have the highest bit, those without do not.
    fn new(seed: Option<f32>, turn: Turn) -> Key {
        match seed {
            Some(seed) => Key([seed.to_bits(), 1 << 31 | turn.round]),
            None => Key([0, turn.node & !(1 << 31)]),
        }
    }

    fn of(cx: &Cx<'_, '_>) -> Result<Key, Fault> {
        Key::of_seed(cx, cx.attrs.float_opt("seed")?)
    }

    fn of_seed(cx: &Cx<'_, '_>, seed: Option<f32>) -> Result<Key, Fault> {
        if cx.repeats {
            return Err(Fault::unsupported(
                "random numbers in a loop that is not unrolled would be the same in each round",
                "draw the numbers of all rounds before the loop, and take a part of them in each",
            ));
        }
        Ok(Key::new(seed, cx.turn))
    }
}

/// A distribution: from the attributes, what makes a number of a block of random bits.
type Distribution = fn(&Cx<'_, '_>) -> Result<Formula, Fault>;

/// Numbers of a distribution.
#[derive(Clone, Copy)]
enum Formula {
    /// From `low` up to, and without, `high`; up to rounding of the sum.
    Uniform {
        low: f64,
        high: f64,
    },
    Normal {
        mean: f64,
        scale: f64,
    },
}

fn uniform(cx: &Cx<'_, '_>) -> Result<Formula, Fault> {
    let [low, high] = [("low", 0.0), ("high", 1.0)].map(|(name, default)| cx.attrs.float_or(name, default));
    Ok(Formula::Uniform { low: low?.into(), high: high?.into() })
}

fn normal(cx: &Cx<'_, '_>) -> Result<Formula, Fault> {
    let [mean, scale] = [("mean", 0.0), ("scale", 1.0)].map(|(name, default)| cx.attrs.float_or(name, default));
    Ok(Formula::Normal { mean: mean?.into(), scale: scale?.into() })
}

fn of_shape(cx: &mut Cx<'_, '_>, distribution: Distribution) -> Imported {
    let shape = cx.attrs.ints("shape")?;
    if shape.iter().any(|&extent| extent < 0) {
        return Err(cx.attrs.bad_value("shape", format!("is {shape:?}"), "no extent may be negative").into());
    }
    let dims = shape.iter().map(|&extent| Expr::constant(extent)).collect();
    let dtype = result_type(cx, DType::F32)?;
    drawn(cx, dims, dtype, distribution)
}

fn like(cx: &mut Cx<'_, '_>, distribution: Distribution) -> Imported {
    let x = cx.input(0)?;
    let (dims, own) = (cx.b.dims(x), cx.b.dtype(x));
    let dtype = result_type(cx, own)?;
    drawn(cx, dims, dtype, distribution)
}

/// The attribute `dtype`, or a default.
fn result_type(cx: &Cx<'_, '_>, default: DType) -> Result<DType, Fault> {
    match cx.attrs.int_opt("dtype")? {
        None => Ok(default),
        Some(number) => Ok(dtype_of(i32::try_from(number).unwrap_or(i32::MAX), cx.attrs.at())?),
    }
}

fn drawn(cx: &mut Cx<'_, '_>, dims: Vec<Expr>, dtype: DType, distribution: Distribution) -> Imported {
    if !matches!(dtype, DType::F64 | DType::F32 | DType::F16 | DType::BF16) {
        return Err(format!("the result is {dtype}, and must be a float").into());
    }
    let (key, formula) = (Key::of(cx)?, distribution(cx)?);
    let draws = Draws::new(cx, dims)?;
    let values = cx.b.program(&draws.operands(), |p| {
        let words = draws.words(p, key);
        let number = match formula {
            Formula::Uniform { low, high } => {
                let share = short_share(p, [words[0], words[1]], dtype);
                affine(p, share, high - low, low)
            }
            Formula::Normal { mean, scale } => {
                let number = deviate(p, words);
                affine(p, number, scale, mean)
            }
        };
        p.cast(number, dtype)
    })?;
    one(draws.shaped(cx, values)?)
}

/// x * factor + shift
fn affine(p: &mut ProgramWriter, x: Arg, factor: f64, shift: f64) -> Arg {
    let scaled = p.push(ScalarOp::Mul, &[x, p.imm(x, factor)]);
    p.push(ScalarOp::Add, &[scaled, p.imm(scaled, shift)])
}

fn bernoulli(cx: &mut Cx<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    let own = cx.b.dtype(x);
    let dtype = result_type(cx, own)?;
    let key = Key::of(cx)?;
    let draws = Draws::new(cx, cx.b.dims(x))?;
    let flat = cx.b.reshape(x, vec![draws.count.clone()])?;
    let operands = [draws.index, draws.runs, flat];
    let values = cx.b.program(&operands, |p| {
        let words = draws.words(p, key);
        let share = share(p, [words[0], words[1]]);
        let probability = p.cast(Arg::Input(2), DType::F64);
        let hit = p.push(ScalarOp::Less, &[share, probability]);
        p.cast(hit, dtype)
    })?;
    one(draws.shaped(cx, values)?)
}

/// The mask of a Dropout that trains: true where an element is kept. `ratio` is a scalar.
pub(super) fn kept(cx: &mut Cx<'_, '_>, x: ValueId, ratio: Option<ValueId>) -> Result<ValueId, Fault> {
    // The seed is an integer here; its low bits are told from those of other nodes as those of a float are.
    let seed = cx.attrs.int_opt("seed")?.map(|seed| f32::from_bits(seed as u32));
    let key = Key::of_seed(cx, seed)?;
    let draws = Draws::new(cx, cx.b.dims(x))?;
    let operands: Vec<ValueId> = [Some(draws.index), Some(draws.runs), ratio].into_iter().flatten().collect();
    let mask = cx.b.program(&operands, |p| {
        let words = draws.words(p, key);
        let share = share(p, [words[0], words[1]]);
        let ratio = if ratio.is_some() { p.cast(Arg::Input(2), DType::F64) } else { p.imm(share, 0.5) };
        p.push(ScalarOp::GreaterEqual, &[share, ratio])
    })?;
    draws.shaped(cx, mask)
}

/// Classes, drawn by their unnormalized log-probabilities `[batch, classes]`: the first whose cumulated share is beyond
/// the number drawn.
fn multinomial(cx: &mut Cx<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    let samples = cx.attrs.int_or("sample_size", 1)?;
    let dtype = result_type(cx, DType::I32)?;
    if !matches!(dtype, DType::I32 | DType::I64) {
        return Err(format!("the result is {dtype}, and must be i32 or i64").into());
    }
    let dims = cx.b.dims(x);
    let [batch, classes] = dims.as_slice() else {
        return Err(format!("the operand has rank {}, and 2 is needed", dims.len()).into());
    };
    if samples < 0 || cx.b.range(classes).0 < 1 {
        return Err(format!("{samples} samples of {classes} classes cannot be drawn").into());
    }
    let (batch, classes) = (batch.clone(), classes.clone());
    let wide = cx.b.cast(x, DType::F64)?;
    let highest = cx.b.reduce(ReduceKind::Max, wide, &[1])?;
    let weights = cx.b.program(&[wide, highest], |p| {
        let below = p.push(ScalarOp::Sub, &[Arg::Input(0), Arg::Input(1)]);
        p.push(ScalarOp::Exp, &[below])
    })?;
    let ends = cx.b.node(Op::CumSum { axis: 1, exclusive: false, reverse: false }, &[weights])?;
    let whole = cx.b.slice_axis(ends, 1, classes.clone() - Expr::constant(1), Expr::constant(1))?;
    let key = Key::of(cx)?;
    let draws = Draws::new(cx, vec![batch.clone(), Expr::constant(samples), Expr::constant(1)])?;
    let shares = cx.b.program(&draws.operands(), |p| {
        let words = draws.words(p, key);
        share(p, [words[0], words[1]])
    })?;
    let shares = draws.shaped(cx, shares)?;
    let one_class = Expr::constant(1);
    let ends = cx.b.reshape(ends, vec![batch.clone(), one_class.clone(), classes.clone()])?;
    let whole = cx.b.reshape(whole, vec![batch.clone(), one_class.clone(), one_class])?;
    let passed = cx.b.program(&[shares, whole, ends], |p| {
        let at = p.push(ScalarOp::Mul, &[Arg::Input(0), Arg::Input(1)]);
        let passed = p.push(ScalarOp::LessEqual, &[Arg::Input(2), at]);
        p.cast(passed, DType::I64)
    })?;
    let class = cx.b.reduce(ReduceKind::Sum, passed, &[2])?;
    let class = cx.b.reshape(class, vec![batch, Expr::constant(samples)])?;
    let last = cx.b.extents(vec![classes - Expr::constant(1)], 0)?;
    one(cx.b.program(&[class, last], |p| {
        // A number that was rounded up to the whole.
        let class = p.push(ScalarOp::Min, &[Arg::Input(0), Arg::Input(1)]);
        p.cast(class, dtype)
    })?)
}

/// Where the numbers of a tensor come from: `[count]` indices, and the session's runs.
struct Draws {
    index: ValueId,
    runs: ValueId,
    count: Expr,
    dims: Vec<Expr>,
}

impl Draws {
    fn new(cx: &mut Cx<'_, '_>, dims: Vec<Expr>) -> Result<Draws, Fault> {
        let count = dims.iter().cloned().fold(Expr::constant(1), |count, dim| count * dim);
        let index = positions(&mut cx.b, count.clone(), 0, 1)?;
        let runs = cx.b.node(Op::RunCount, &[])?;
        Ok(Draws { index, runs, count, dims })
    }

    /// The operands of a program that calls [`Draws::words`].
    fn operands(&self) -> [ValueId; 2] {
        [self.index, self.runs]
    }

    /// A block of random bits: four numbers of 32 bits, as `u64`.
    fn words(&self, p: &mut ProgramWriter, key: Key) -> [Arg; 4] {
        let halves = |p: &mut ProgramWriter, number: Arg| {
            let number = p.cast(number, DType::U64);
            [low(p, number), high(p, number)]
        };
        let ([a, b], [c, d]) = (halves(p, Arg::Input(0)), halves(p, Arg::Input(1)));
        philox(p, [a, b, c, d], key.0)
    }

    fn shaped(self, cx: &mut Cx<'_, '_>, values: ValueId) -> Result<ValueId, Fault> {
        Ok(cx.b.reshape(values, self.dims)?)
    }
}

fn word(value: u64) -> Arg {
    Arg::Imm(Scalar::int(DType::U64, value as i64))
}

fn low(p: &mut ProgramWriter, number: Arg) -> Arg {
    p.push(ScalarOp::BitAnd, &[number, word(0xffff_ffff)])
}

fn high(p: &mut ProgramWriter, number: Arg) -> Arg {
    p.push(ScalarOp::ShiftRight, &[number, word(32)])
}

/// Philox 4x32-10. The words are `u64` numbers below 2^32, whose products fit.
fn philox(p: &mut ProgramWriter, mut counter: [Arg; 4], mut key: [u32; 2]) -> [Arg; 4] {
    for _ in 0..10 {
        let [a, b, c, d] = counter;
        let [x, y] = [(a, 0xd251_1f53), (c, 0xcd9e_8d57)].map(|(x, by)| p.push(ScalarOp::Mul, &[x, word(by)]));
        let mut mixed = |product: Arg, with: Arg, key: u32| {
            let high = high(p, product);
            let mixed = p.push(ScalarOp::BitXor, &[high, with]);
            p.push(ScalarOp::BitXor, &[mixed, word(key.into())])
        };
        let (first, third) = (mixed(y, b, key[0]), mixed(x, d, key[1]));
        counter = [first, low(p, y), third, low(p, x)];
        key = [key[0].wrapping_add(0x9e37_79b9), key[1].wrapping_add(0xbb67_ae85)];
    }
    counter
}

/// A number from 0 up to 1, of 53 random bits.
fn share(p: &mut ProgramWriter, [a, b]: [Arg; 2]) -> Arg {
    let a = p.push(ScalarOp::ShiftRight, &[a, word(5)]);
    let b = p.push(ScalarOp::ShiftRight, &[b, word(6)]);
    let a = p.push(ScalarOp::ShiftLeft, &[a, word(26)]);
    let bits = p.push(ScalarOp::BitOr, &[a, b]);
    let number = p.cast(bits, DType::F64);
    p.push(ScalarOp::Mul, &[number, p.imm(number, 2f64.powi(-53))])
}

/// A number from 0 up to 1, of as many random bits as `dtype` holds below 1, so that rounding to it does not give 1.
fn short_share(p: &mut ProgramWriter, words: [Arg; 2], dtype: DType) -> Arg {
    let bits = match dtype {
        DType::F16 => 11,
        DType::BF16 => 8,
        DType::F32 => 24,
        _ => return share(p, words),
    };
    let kept = p.push(ScalarOp::ShiftRight, &[words[0], word(32 - bits)]);
    let number = p.cast(kept, DType::F64);
    p.push(ScalarOp::Mul, &[number, p.imm(number, 2f64.powi(-(bits as i32)))])
}

/// A number of the standard normal distribution, by the method of Box and Muller: sqrt(-2 ln(1 - u)) cos(2 pi v).
fn deviate(p: &mut ProgramWriter, [a, b, c, d]: [Arg; 4]) -> Arg {
    let (u, v) = (share(p, [a, b]), share(p, [c, d]));
    let rest = p.push(ScalarOp::Sub, &[p.imm(u, 1.0), u]);
    let log = p.push(ScalarOp::Log, &[rest]);
    let square = p.push(ScalarOp::Mul, &[log, p.imm(log, -2.0)]);
    let radius = p.push(ScalarOp::Sqrt, &[square]);
    let angle = p.push(ScalarOp::Mul, &[v, p.imm(v, TAU)]);
    let cosine = p.push(ScalarOp::Cos, &[angle]);
    p.push(ScalarOp::Mul, &[radius, cosine])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::Program;
    use crate::ir::eval::{self, Tensor};

    /// The vectors of the authors' library Random123 (`kat_vectors`, philox4x32 10).
    #[test]
    fn the_generator_gives_its_authors_numbers() {
        let vectors: [([u32; 4], [u32; 2], [u32; 4]); 3] = [
            ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([u32::MAX; 4], [u32::MAX; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ];
        for (counter, key, expected) in vectors {
            let mut writer = ProgramWriter::new(vec![DType::U64; 4]);
            let words = philox(&mut writer, [0, 1, 2, 3].map(Arg::Input), key);
            let program = Program { outputs: words.to_vec(), ..writer.finish() };
            let counter = counter.map(|word| Tensor::from_i64s(DType::U64, Vec::new(), &[word.into()]));
            let operands: Vec<Option<&Tensor>> = counter.iter().map(Some).collect();
            let given = eval::eval_node(&Op::Pointwise(program), &operands, &|_| 0).expect("values");
            let given: Vec<i64> = given.iter().flat_map(Tensor::to_i64s).collect();
            assert_eq!(given, expected.map(i64::from));
        }
    }
}
