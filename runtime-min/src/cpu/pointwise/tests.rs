//! Programs run by the interpreter, against the same formulas element by element.

use super::*;
use crate::cpu::memory::Tensor;
use crate::cpu::memory::TensorMut;
use crate::cpu::testing::{Random, tensor, tensor_mut};
use crate::dtype::Element;
use crate::op::{Arg, Instr, ScalarOp};
use crate::table::Program;

fn raw(tensor: &mut TensorMut<'_>) -> Raw {
    Raw { dtype: tensor.dtype, dims: tensor.dims, start: tensor.bytes.as_mut_ptr(), bytes: tensor.bytes.len() }
}

fn run_program(program: &Program<'_>, inputs: &[Tensor<'_>], outputs: &mut [TensorMut<'_>]) {
    let stored: Vec<DType> = outputs.iter().map(|out| out.dtype).collect();
    let compiled = compile(program, &stored).unwrap();
    let outs: Vec<Raw> = outputs.iter_mut().map(raw).collect();
    // SAFETY: distinct slices.
    unsafe { run(&compiled, &mut Team::new(2), &inputs.iter().map(Raw::of).collect::<Vec<_>>(), &outs) };
}

/// The result of one operation on whole tensors of one type.
fn apply<A: Element + Plain, R: Element + Plain>(op: ScalarOp, operands: &[&[A]]) -> Vec<R> {
    let dims = [operands[0].len()];
    let inputs = vec![A::DTYPE; operands.len()];
    let args = [Arg::Input(0), Arg::Input(1.min(operands.len() as u16 - 1)), Arg::Input(0)];
    let steps = [Instr { op, dtype: R::DTYPE, args }];
    let outputs = [Arg::Step(0)];
    let program = Program { inputs: &inputs, steps: &steps, outputs: &outputs };
    let tensors: Vec<Tensor<'_>> = operands.iter().map(|data| tensor(data, &dims)).collect();
    let mut out = vec![R::default(); dims[0]];
    run_program(&program, &tensors, &mut [tensor_mut(&mut out, &dims)]);
    out
}

const F: DType = DType::F32;

/// `tanh(a * b + c) - a`, stored with `a * b`.
const FUSED: Program<'static> = Program {
    inputs: &[F, F, F],
    steps: &[
        Instr::binary(ScalarOp::Mul, F, Arg::Input(0), Arg::Input(1)),
        Instr::binary(ScalarOp::Add, F, Arg::Step(0), Arg::Input(2)),
        Instr::unary(ScalarOp::Tanh, F, Arg::Step(1)),
        Instr::binary(ScalarOp::Sub, F, Arg::Step(2), Arg::Input(0)),
    ],
    outputs: &[Arg::Step(3), Arg::Step(0)],
};

/// `x * clamp(x * scale + shift)` in the spellings of exporters, and with a value from between as a second result, where each
/// step is a loop of its own.
#[test]
fn a_gate_has_the_bits_of_its_steps() {
    let constant = |value: f64| Arg::Imm(Scalar::float(F, value));
    let step = |op, a, b| Instr::binary(op, F, a, b);
    let (x, zero) = (Arg::Input(0), constant(0.0));
    let scaled = [
        step(ScalarOp::Mul, x, constant(f64::from(1.0f32 / 6.0))),
        step(ScalarOp::Add, Arg::Step(0), constant(0.5)),
        step(ScalarOp::Min, Arg::Step(1), constant(1.0)),
        step(ScalarOp::Max, Arg::Step(2), zero),
        step(ScalarOp::Mul, x, Arg::Step(3)),
    ];
    let shifted = [
        step(ScalarOp::Add, constant(3.0), x),
        step(ScalarOp::Max, Arg::Step(0), zero),
        step(ScalarOp::Min, Arg::Step(1), constant(6.0)),
        step(ScalarOp::Mul, Arg::Step(2), x),
        step(ScalarOp::Div, Arg::Step(3), constant(6.0)),
    ];
    let mut values = Random::new(2).floats(3000);
    values.iter_mut().for_each(|value| *value *= 8.0);
    values[..4].copy_from_slice(&[f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0]);
    for (steps, loops) in [(scaled, 1), (shifted, 2)] {
        let compiled = |outputs: &[Arg]| {
            let program = Program { inputs: &[F], steps: &steps, outputs };
            compile(&program, &vec![F; outputs.len()]).unwrap().steps.len()
        };
        assert_eq!((compiled(&[Arg::Step(4)]), compiled(&[Arg::Step(4), Arg::Step(1)])), (loops, 5));
        let [mut together, mut apart, mut between] = [(); 3].map(|()| vec![0f32; values.len()]);
        let dims = [values.len()];
        let program = |outputs: &'static [Arg]| Program { inputs: &[F], steps: &steps, outputs };
        run_program(&program(&[Arg::Step(4)]), &[tensor(&values, &dims)], &mut [tensor_mut(&mut together, &dims)]);
        let both = &mut [tensor_mut(&mut apart, &dims), tensor_mut(&mut between, &dims)];
        run_program(&program(&[Arg::Step(4), Arg::Step(1)]), &[tensor(&values, &dims)], both);
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&together), bits(&apart));
    }
}

#[test]
fn operands_broadcast_in_every_way() {
    let mut random = Random::new(1);
    let dims = [3, 5, 7, 40];
    let count: usize = dims.iter().product();
    let shapes: [&[usize]; 9] =
        [&[3, 5, 7, 40], &[40], &[], &[5, 1, 1], &[3, 1, 1, 1], &[7, 1], &[1, 1, 7, 40], &[3, 1, 7, 1], &[1, 5, 1, 40]];
    for left in shapes {
        for right in shapes {
            let a = random.floats(count);
            let b = random.floats(left.iter().product());
            let c = random.floats(right.iter().product());
            let (mut out, mut product) = (vec![0f32; count], vec![0f32; count]);
            let inputs = [tensor(&a, &dims), tensor(&b, left), tensor(&c, right)];
            run_program(&FUSED, &inputs, &mut [tensor_mut(&mut out, &dims), tensor_mut(&mut product, &dims)]);
            let (of_b, of_c) = (Layout::new(&dims, left), Layout::new(&dims, right));
            for k in 0..count {
                let expected = a[k] * b[of_b.at(k)];
                assert_eq!(product[k], expected);
                assert_eq!(out[k], math::tanh(expected + c[of_c.at(k)]) - a[k], "{left:?} {right:?} {k}");
            }
        }
    }
}

#[test]
fn results_may_lie_where_operands_lie() {
    let mut random = Random::new(2);
    let dims = [2500];
    let (mut a, b) = (random.floats(2500), random.floats(2500));
    let expected: Vec<f32> = a.iter().zip(&b).map(|(a, b)| math::tanh(a * b + b) - a).collect();
    let compiled = compile(&FUSED, &[F, F]).unwrap();
    let mut product = vec![0f32; 2500];
    let place = raw(&mut tensor_mut(&mut a, &dims));
    let other = Raw::of(&tensor(&b, &dims));
    let outputs = [place, raw(&mut tensor_mut(&mut product, &dims))];
    // SAFETY: the first result is the first operand, of one shape.
    unsafe { run(&compiled, &mut Team::default(), &[place, other, other], &outputs) };
    assert_eq!(a, expected);
}

#[test]
fn empty_tensors_and_scalars() {
    let mut out: [f32; 0] = [];
    let mut product: [f32; 0] = [];
    let empty: [f32; 0] = [];
    let inputs = [tensor(&empty, &[0, 3]), tensor(&[1.0f32], &[1]), tensor(&[1.0f32], &[])];
    run_program(&FUSED, &inputs, &mut [tensor_mut(&mut out, &[0, 3]), tensor_mut(&mut product, &[0, 3])]);
    assert_eq!(apply::<f32, f32>(ScalarOp::Neg, &[&[2.0]]), [-2.0]);
}

#[test]
fn integers_wrap_at_their_width() {
    assert_eq!(apply::<i8, i8>(ScalarOp::Add, &[&[127, -128], &[1, -1]]), [-128, 127]);
    assert_eq!(apply::<u8, u8>(ScalarOp::Sub, &[&[0], &[1]]), [255]);
    assert_eq!(apply::<i32, i32>(ScalarOp::Div, &[&[7, -7, i32::MIN, 5], &[2, 2, -1, 0]]), [3, -3, i32::MIN, 0]);
    assert_eq!(apply::<i32, i32>(ScalarOp::Mod, &[&[7, -7, 7, 5], &[3, 3, -3, 0]]), [1, 2, -2, 0]);
    assert_eq!(apply::<i64, i64>(ScalarOp::Fmod, &[&[7, -7, 7], &[3, 3, -3]]), [1, -1, 1]);
    assert_eq!(apply::<u8, u8>(ScalarOp::ShiftLeft, &[&[3, 1, 1], &[7, 8, 200]]), [128, 0, 0]);
    assert_eq!(apply::<u16, u16>(ScalarOp::ShiftRight, &[&[0x8000, 5], &[15, 16]]), [1, 0]);
    assert_eq!(apply::<i8, i8>(ScalarOp::ShiftRight, &[&[-128, -1], &[3, 100]]), [-16, -1]);
    // A negative distance moves every bit out, too.
    assert_eq!(apply::<i32, i32>(ScalarOp::ShiftLeft, &[&[5, 5], &[-1, i32::MIN]]), [0, 0]);
    assert_eq!(apply::<i32, i32>(ScalarOp::ShiftRight, &[&[5, -5], &[-1, i32::MIN]]), [0, -1]);
    assert_eq!(apply::<u64, u64>(ScalarOp::ShiftLeft, &[&[1, 1], &[64, u64::MAX]]), [0, 0]);
    assert_eq!(apply::<i16, i16>(ScalarOp::BitNot, &[&[0, 5]]), [-1, -6]);
    assert_eq!(apply::<i32, i32>(ScalarOp::Pow, &[&[3, -2], &[4, 3]]), [81, -8]);
    // Exponents beyond those of an `i64`: 3 has the order 2^62.
    assert_eq!(apply::<u64, u64>(ScalarOp::Pow, &[&[3, 2], &[(1 << 63) + 2, 1 << 63]]), [9, 0]);
}

#[test]
fn floats_follow_their_rules() {
    let nan = f32::NAN;
    assert_eq!(apply::<f32, f32>(ScalarOp::Round, &[&[0.5, 1.5, 2.5, -0.5]]), [0.0, 2.0, 2.0, -0.0]);
    assert_eq!(apply::<f32, f32>(ScalarOp::Mod, &[&[7.5, -7.5], &[2.0, 2.0]]), [1.5, 0.5]);
    assert_eq!(apply::<f32, f32>(ScalarOp::Fmod, &[&[7.5, -7.5], &[2.0, 2.0]]), [1.5, -1.5]);
    assert!(apply::<f32, f32>(ScalarOp::Max, &[&[nan, 1.0], &[1.0, nan]]).iter().all(|x| x.is_nan()));
    assert!(apply::<f32, f32>(ScalarOp::Sign, &[&[nan]])[0].is_nan());
    assert_eq!(apply::<f64, f64>(ScalarOp::Pow, &[&[2.0, 9.0], &[-1.0, 0.5]]), [0.5, 3.0]);
    assert_eq!(apply::<f64, f64>(ScalarOp::Rsqrt, &[&[4.0]]), [0.5]);
}

fn predicate(op: ScalarOp, operands: &[&[f32]]) -> Vec<u8> {
    let dims = [operands[0].len()];
    let inputs = vec![F; operands.len()];
    let args = [Arg::Input(0), Arg::Input(1.min(operands.len() as u16 - 1)), Arg::Input(0)];
    let steps = [Instr { op, dtype: DType::Bool, args }];
    let program = Program { inputs: &inputs, steps: &steps, outputs: &[Arg::Step(0)] };
    let tensors: Vec<Tensor<'_>> = operands.iter().map(|data| tensor(data, &dims)).collect();
    let mut out = vec![0u8; dims[0]];
    let result = TensorMut { dtype: DType::Bool, dims: Extents::new(&dims), bytes: &mut out };
    run_program(&program, &tensors, &mut [result]);
    out
}

#[test]
fn predicates() {
    let nan = f32::NAN;
    assert_eq!(predicate(ScalarOp::Less, &[&[1.0, 2.0, nan], &[2.0, 1.0, 1.0]]), [1, 0, 0]);
    assert_eq!(predicate(ScalarOp::NotEqual, &[&[1.0, nan], &[1.0, nan]]), [0, 1]);
    assert_eq!(predicate(ScalarOp::IsNan, &[&[nan, 1.0]]), [1, 0]);
    assert_eq!(predicate(ScalarOp::IsNegInf, &[&[f32::NEG_INFINITY, f32::INFINITY]]), [1, 0]);
}

#[test]
fn casts_saturate_wrap_and_round() {
    assert_eq!(apply::<f32, i8>(ScalarOp::Cast, &[&[1.9, -1.9, 300.0, f32::NAN]]), [1, -1, 127, 0]);
    assert_eq!(apply::<i32, u8>(ScalarOp::Cast, &[&[-1, 257]]), [255, 1]);
    assert_eq!(apply::<u64, f32>(ScalarOp::Cast, &[&[u64::MAX]]), [u64::MAX as f32]);
    // 1 + 2^-11 + 2^-40 lies above the tie of two halves; rounded to f32 first it would fall on it.
    let above = 1.0 + 2f64.powi(-11) + 2f64.powi(-40);
    assert_eq!(apply::<f64, F16>(ScalarOp::Cast, &[&[above]])[0].to_f32(), 1.0 + 2f32.powi(-10));
    assert_eq!(
        apply::<i64, BF16>(ScalarOp::Cast, &[&[(1 << 40) + (1 << 32) + 1]])[0].to_f32(),
        2f32.powi(40) + 2f32.powi(33)
    );
    assert_eq!(apply::<f32, BF16>(ScalarOp::Cast, &[&[2.7172]])[0].to_f32(), 2.71875);
}

#[test]
fn halves_are_rounded_where_the_program_says() {
    // (x + 1) - x: in f32 throughout, or with a cast between.
    let half = DType::F16;
    let add = Instr::binary(ScalarOp::Add, half, Arg::Input(0), Arg::Imm(Scalar::float(half, 1.0)));
    let cast = Instr::unary(ScalarOp::Cast, half, Arg::Step(0));
    let sub = |from| Instr::binary(ScalarOp::Sub, half, Arg::Step(from), Arg::Input(0));
    let x = [F16::from_f32(2048.0); 3];
    for (steps, last, expected) in [(&[add, cast, sub(0)][..], 2, 1.0), (&[add, cast, sub(1)][..], 2, 0.0)] {
        let program = Program { inputs: &[half], steps, outputs: &[Arg::Step(last)] };
        let mut out = [F16::default(); 3];
        run_program(&program, &[tensor(&x, &[3])], &mut [tensor_mut(&mut out, &[3])]);
        assert_eq!(out.map(F16::to_f32), [expected; 3]);
    }
}

#[test]
fn packed_integers_are_spread_and_packed() {
    let program = Program {
        inputs: &[DType::I4],
        steps: &[
            Instr::unary(ScalarOp::Cast, F, Arg::Input(0)),
            Instr::binary(ScalarOp::Mul, F, Arg::Step(0), Arg::Imm(Scalar::float(F, 2.0))),
            Instr::unary(ScalarOp::Cast, DType::U4, Arg::Step(1)),
        ],
        outputs: &[Arg::Step(1), Arg::Step(2)],
    };
    let x = Tensor { dtype: DType::I4, dims: Extents::new(&[3]), bytes: &[0x7f, 0x08] };
    let (mut wide, mut narrow) = ([0f32; 3], [0u8; 2]);
    let packed = TensorMut { dtype: DType::U4, dims: Extents::new(&[3]), bytes: &mut narrow };
    run_program(&program, &[x], &mut [tensor_mut(&mut wide, &[3]), packed]);
    assert_eq!(wide, [-2.0, 14.0, -16.0]);
    assert_eq!(narrow, [0xe0, 0x00]);
}

#[test]
fn floats_saturate_packed_integers_and_whole_ones_wrap() {
    fn stored<T: Element + Plain>(dtype: DType, x: &[T; 4], bytes: usize) -> Vec<u8> {
        let steps = [Instr::unary(ScalarOp::Cast, dtype, Arg::Input(0))];
        let program = Program { inputs: &[T::DTYPE], steps: &steps, outputs: &[Arg::Step(0)] };
        let mut out = vec![0u8; bytes];
        let to = TensorMut { dtype, dims: Extents::new(&[4]), bytes: &mut out };
        run_program(&program, &[tensor(x, &[4])], &mut [to]);
        out
    }
    assert_eq!(stored(DType::I4, &[-9f32, 11.0, f32::NAN, 300.0], 2), [0x78, 0x70]);
    assert_eq!(stored(DType::U4, &[-9f64, 17.0, 14.9, 300.0], 2), [0xf0, 0xfe]);
    assert_eq!(stored(DType::I2, &[-3f32, 2.0, -1.5, 1.0], 1), [0b01_11_01_10]);
    assert_eq!(stored(DType::U2, &[-3f32, 4.0, 2.0, 1.0], 1), [0b01_10_11_00]);
    assert_eq!(stored(DType::I4, &[-9i32, 11, 0, 300], 2), [0xb7, 0xc0]);
    // Powers of two are rounded up.
    assert_eq!(stored(DType::F8E8M0, &[1.1f32, -0.124, 0.0, f32::INFINITY], 4), [128, 124, 0, 254]);
    assert_eq!(stored(DType::F8E8M0, &[1f32, 2.0, 2.0001, f32::NAN], 4), [127, 128, 129, 255]);
}

#[test]
fn powers_of_mixed_types() {
    fn power<A: Element + Plain, B: Element + Plain>(base: A, exponent: B) -> A {
        let inputs = [A::DTYPE, B::DTYPE];
        let steps = [Instr::binary(ScalarOp::Pow, A::DTYPE, Arg::Input(0), Arg::Input(1))];
        let program = Program { inputs: &inputs, steps: &steps, outputs: &[Arg::Step(0)] };
        let (base, exponent, mut out) = ([base], [exponent], [A::default()]);
        run_program(&program, &[tensor(&base, &[1]), tensor(&exponent, &[1])], &mut [tensor_mut(&mut out, &[1])]);
        out[0]
    }
    assert_eq!(power(2.0f32, 3i64), 8.0);
    assert_eq!(power(9i32, 0.5f32), 3);
    assert_eq!(power(2i64, 10u8), 1024);
    assert_eq!(power(4.0f32, 0.5f64), 2.0);
    assert_eq!(power(F16::from_f32(3.0), 2i32).to_f32(), 9.0);
}

#[test]
fn selections_take_the_type_of_their_branches() {
    let program = Program {
        inputs: &[DType::I64, DType::I64],
        steps: &[
            Instr::binary(ScalarOp::Greater, DType::Bool, Arg::Input(0), Arg::Input(1)),
            Instr::ternary(
                ScalarOp::Select,
                DType::I64,
                Arg::Step(0),
                Arg::Input(0),
                Arg::Imm(Scalar::int(DType::I64, -9)),
            ),
        ],
        outputs: &[Arg::Step(1)],
    };
    let (a, b, mut out) = ([5i64, 1], [2i64, 2], [0i64; 2]);
    run_program(&program, &[tensor(&a, &[2]), tensor(&b, &[2])], &mut [tensor_mut(&mut out, &[2])]);
    assert_eq!(out, [5, -9]);
}

#[test]
fn programs_without_a_loop_are_found() {
    let steps = [Instr::unary(ScalarOp::Sqrt, DType::I32, Arg::Input(0))];
    let program = Program { inputs: &[DType::I32], steps: &steps, outputs: &[Arg::Step(0)] };
    assert_eq!(compile(&program, &[DType::I32]).unwrap_err(), "step 0, Sqrt: no loop from i32 to i32");
    let program = Program { inputs: &[F], steps: &[], outputs: &[Arg::Input(0)] };
    assert_eq!(compile(&program, &[DType::I32]).unwrap_err(), "result 0 is f32 but stored as i32");
}

#[test]
fn operands_and_constants_may_be_results() {
    let outputs = [Arg::Input(0), Arg::Imm(Scalar::float(F, 3.0)), Arg::Input(1)];
    let program = Program { inputs: &[F, DType::Bool], steps: &[], outputs: &outputs };
    let x = [1.0f32, 2.0];
    let flags = Tensor { dtype: DType::Bool, dims: Extents::new(&[]), bytes: &[1] };
    let (mut a, mut b, mut c) = ([0f32; 2], [0f32; 2], [0u8; 2]);
    let last = TensorMut { dtype: DType::Bool, dims: Extents::new(&[2]), bytes: &mut c };
    run_program(&program, &[tensor(&x, &[2]), flags], &mut [tensor_mut(&mut a, &[2]), tensor_mut(&mut b, &[2]), last]);
    assert_eq!((a, b, c), ([1.0, 2.0], [3.0, 3.0], [1, 1]));
}
