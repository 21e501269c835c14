//! Whole plans, written by hand, through [`crate::Model`] and [`crate::Session`].

use crate::dtype::DType;
use crate::op::{Arg, Conv, Instr, MatMul, Math, Scalar, ScalarOp, Window};
use crate::table::{
    Action, Constraint, CpuOp, Dim, Formula, FormulaOp, NONE, Place, PlanTables, Port, Profile, Program, Range,
    Segment, Source, Step, Symbol, Target, Tensor,
};
use crate::{Error, Extents, InputRef, Model, Options, Weights};

const F: DType = DType::F32;

/// A plan without symbols: tensors in an arena of 256-byte buffers, numbered like the tensors.
const FIXED: PlanTables<'static> = PlanTables {
    name: "fixed",
    target: Target::Cpu,
    symbols: &[],
    profiles: &[Profile { ranges: &[], arena_bytes: 256 * 8, offsets: &[0, 256, 512, 768, 1024, 1280, 1536, 1792] }],
    slots: &[],
    constraints: &[] as &[Constraint<'static>],
    inputs: &[],
    outputs: &[],
    run_count: NONE,
    tensors: &[],
    weight_bytes: 0,
    derived_bytes: 0,
    counter_bytes: 0,
    segments: &[],
    kernels: &[],
    images: &[],
};

const fn tensor(dtype: DType, dims: &'static [Dim], place: Place) -> Tensor<'static> {
    Tensor { dtype, dims, place, at: Dim::Const(0) }
}

fn input(data: &[f32]) -> InputRef<'_> {
    InputRef::new(data, Extents::new(&[data.len()]))
}

const DOUBLE: Program<'static> = Program {
    inputs: &[F],
    steps: &[Instr::binary(ScalarOp::Add, F, Arg::Input(0), Arg::Input(0))],
    outputs: &[Arg::Step(0)],
};

const NEGATE: Program<'static> =
    Program { inputs: &[F], steps: &[Instr::unary(ScalarOp::Neg, F, Arg::Input(0))], outputs: &[Arg::Step(0)] };

const fn step(action: Action<'static>, inputs: &'static [u32], outputs: &'static [u32]) -> Step<'static> {
    Step { action, inputs, outputs, label: "node" }
}

const TWO: &[Dim] = &[Dim::Const(2)];

#[test]
fn init_steps_fill_the_derived_memory_once() {
    // y = x * (w + w)
    const MUL: Program<'static> = Program {
        inputs: &[F, F],
        steps: &[Instr::binary(ScalarOp::Mul, F, Arg::Input(0), Arg::Input(1))],
        outputs: &[Arg::Step(0)],
    };
    let tables = PlanTables {
        tensors: &[
            tensor(F, TWO, Place::Arena(0)),
            tensor(F, TWO, Place::Weight(0)),
            tensor(F, TWO, Place::Derived(0)),
            tensor(F, TWO, Place::Arena(1)),
        ],
        inputs: &[Port { name: "x", tensor: 0 }],
        outputs: &[Port { name: "y", tensor: 3 }],
        weight_bytes: 8,
        derived_bytes: 8,
        segments: &[
            Segment { steps: &[step(Action::Cpu(CpuOp::Pointwise(DOUBLE)), &[1], &[2])] },
            Segment { steps: &[step(Action::Cpu(CpuOp::Pointwise(MUL)), &[0, 2], &[3])] },
        ],
        ..FIXED
    };
    let mut bytes = crate::Aligned([0u8; 16]);
    // In place, and one byte off, so that the weights have to be copied.
    for shift in [0, 1] {
        bytes.0[shift..shift + 4].copy_from_slice(&3f32.to_le_bytes());
        bytes.0[shift + 4..shift + 8].copy_from_slice(&5f32.to_le_bytes());
        let model = Model::load(&tables, Weights::borrowed(&bytes.0[shift..shift + 8]), Options::default()).unwrap();
        let mut session = model.session().unwrap();
        for factor in [1.0, 2.0] {
            session.run(&[input(&[factor, -factor])]).unwrap();
            assert_eq!(session.output(0).unwrap().data::<f32>().unwrap(), [6.0 * factor, -10.0 * factor]);
        }
    }
}

#[test]
fn a_condition_picks_its_segment() {
    let tables = PlanTables {
        tensors: &[
            tensor(DType::Bool, &[], Place::Arena(0)),
            tensor(F, TWO, Place::Arena(1)),
            tensor(F, TWO, Place::Arena(2)),
        ],
        inputs: &[Port { name: "c", tensor: 0 }, Port { name: "x", tensor: 1 }],
        outputs: &[Port { name: "y", tensor: 2 }],
        segments: &[
            Segment { steps: &[] },
            Segment { steps: &[step(Action::If { then_segment: 2, else_segment: 3, decide: &[] }, &[0], &[])] },
            Segment { steps: &[step(Action::Cpu(CpuOp::Pointwise(DOUBLE)), &[1], &[2])] },
            Segment { steps: &[step(Action::Cpu(CpuOp::Pointwise(NEGATE)), &[1], &[2])] },
        ],
        ..FIXED
    };
    let model = Model::load(&tables, Weights::borrowed(&[]), Options::default()).unwrap();
    let mut session = model.session().unwrap();
    for (condition, expected) in [(0, [-1.0, -2.0]), (1, [2.0, 4.0]), (77, [2.0, 4.0])] {
        let scalar = Extents::new(&[]);
        let flag = [condition];
        let flag = InputRef::from_bytes(DType::Bool, scalar, &flag);
        session.run(&[flag, input(&[1.0, 2.0])]).unwrap();
        assert_eq!(session.output(0).unwrap().data::<f32>().unwrap(), expected);
    }
}

/// x = x * 2 while the condition holds, at most as often as the limit says and as there are rows; the rows are -x.
#[test]
fn a_loop_ends_by_its_limit_by_its_bound_or_by_its_condition() {
    const ROWS: &[Dim] = &[Dim::Const(3), Dim::Const(2)];
    let tables = PlanTables {
        tensors: &[
            tensor(DType::Bool, &[], Place::Arena(0)),
            tensor(DType::I64, &[], Place::Arena(1)),
            tensor(F, TWO, Place::Arena(2)),
            tensor(F, TWO, Place::Arena(3)),
            tensor(F, TWO, Place::Arena(4)),
            tensor(F, ROWS, Place::Arena(5)),
        ],
        profiles: &[Profile { ranges: &[], arena_bytes: 1536, offsets: &[0, 256, 512, 768, 1024, 1280] }],
        inputs: &[Port { name: "c", tensor: 0 }, Port { name: "n", tensor: 1 }, Port { name: "x", tensor: 2 }],
        outputs: &[Port { name: "x", tensor: 2 }, Port { name: "rows", tensor: 5 }],
        segments: &[
            Segment { steps: &[] },
            Segment {
                steps: &[step(Action::Loop { body: 2, most: Dim::Const(3), begin: &[], next: &[] }, &[0, 1, 4], &[5])],
            },
            Segment {
                steps: &[
                    step(Action::Cpu(CpuOp::Pointwise(DOUBLE)), &[2], &[3]),
                    step(Action::Cpu(CpuOp::Pointwise(NEGATE)), &[3], &[4]),
                    step(Action::Cpu(CpuOp::Copy), &[3], &[2]),
                ],
            },
        ],
        ..FIXED
    };
    let model = Model::load(&tables, Weights::borrowed(&[]), Options::default()).unwrap();
    for (condition, limit, x, rows) in [
        (1, 2i64, 4.0, [-2.0, -2.0, -4.0, -4.0, 0.0, 0.0]),
        (1, 9, 8.0, [-2.0, -2.0, -4.0, -4.0, -8.0, -8.0]),
        (1, -1, 1.0, [0.0; 6]),
        (0, 2, 1.0, [0.0; 6]),
    ] {
        let mut session = model.session().unwrap();
        let (flag, limit) = ([condition], [limit]);
        let flag = InputRef::from_bytes(DType::Bool, Extents::new(&[]), &flag);
        session.run(&[flag, InputRef::new(&limit, Extents::new(&[])), input(&[1.0, 1.0])]).unwrap();
        assert_eq!(session.output(0).unwrap().data::<f32>().unwrap(), [x, x]);
        assert_eq!(session.output(1).unwrap().data::<f32>().unwrap(), rows);
    }
}

#[test]
fn calls_that_make_no_sense_are_errors() {
    let tables = PlanTables {
        tensors: &[tensor(F, TWO, Place::Arena(0)), tensor(F, TWO, Place::Arena(1))],
        inputs: &[Port { name: "x", tensor: 0 }],
        outputs: &[Port { name: "y", tensor: 1 }],
        segments: &[Segment { steps: &[] }, Segment { steps: &[step(Action::Cpu(CpuOp::Copy), &[0], &[1])] }],
        ..FIXED
    };
    let model = Model::load(&tables, Weights::borrowed(&[]), Options::default()).unwrap();
    let mut session = model.session().unwrap();
    assert!(model.device().is_none());
    assert!(matches!(session.output(0), Err(Error::NotRun)));
    session.run(&[input(&[1.0, 2.0])]).unwrap();
    assert!(matches!(session.output(1), Err(Error::NoOutput { index: 1, count: 1 })));
    // What is refused leaves the last outputs.
    assert!(matches!(session.run(&[input(&[1.0])]), Err(Error::InputShape { .. })));
    let short = InputRef::from_bytes(F, Extents::new(&[2]), &[0; 7]);
    assert!(matches!(session.run(&[short]), Err(Error::Bytes { expected: 8, given: 7, .. })));
    let refused = session.enqueue(&[Extents::new(&[2])], Default::default());
    assert!(matches!(refused.err(), Some(Error::NotOnTarget { call: "enqueue", target: "cpu" })));
    assert_eq!(session.output(0).unwrap().data::<f32>().unwrap(), [1.0, 2.0]);
}

#[test]
fn an_arena_beyond_memory_is_an_error() {
    const PROFILES: &[Profile<'static>] = &[Profile { ranges: &[], arena_bytes: u64::MAX, offsets: &[0] }];
    let tables =
        PlanTables { profiles: PROFILES, segments: &[Segment { steps: &[] }, Segment { steps: &[] }], ..FIXED };
    let model = Model::load(&tables, Weights::borrowed(&[]), Options::default()).unwrap();
    assert!(matches!(model.session().err(), Some(Error::OutOfMemory { bytes: u64::MAX })));
}

#[test]
fn other_bytes_than_0_and_1_are_no_bools() {
    let tables = PlanTables {
        tensors: &[tensor(DType::Bool, TWO, Place::Arena(0)), tensor(DType::Bool, TWO, Place::Arena(1))],
        inputs: &[Port { name: "x", tensor: 0 }],
        outputs: &[Port { name: "y", tensor: 1 }],
        segments: &[Segment { steps: &[] }, Segment { steps: &[step(Action::Cpu(CpuOp::Copy), &[0], &[1])] }],
        ..FIXED
    };
    let model = Model::load(&tables, Weights::borrowed(&[]), Options::default()).unwrap();
    let mut session = model.session().unwrap();
    session.run(&[InputRef::from_bytes(DType::Bool, Extents::new(&[2]), &[2, 0])]).unwrap();
    assert_eq!(session.output(0).unwrap().data::<bool>().unwrap(), [true, false]);
}

#[test]
fn shapes_change_from_run_to_run() {
    const N: &[Dim] = &[Dim::Slot(0)];
    let tables = PlanTables {
        symbols: &[Symbol { name: "n", source: Source::Extent { input: 0, axis: 0 } }],
        profiles: &[
            Profile { ranges: &[Range { min: 0, opt: 8, max: 64 }], arena_bytes: 512, offsets: &[0, 256] },
            Profile { ranges: &[Range { min: 65, opt: 99, max: 999 }], arena_bytes: 8192, offsets: &[4096, 0] },
        ],
        slots: &[Formula { code: &[FormulaOp::Symbol(0)], text: "n" }],
        tensors: &[tensor(F, N, Place::Arena(0)), tensor(F, N, Place::Arena(1))],
        inputs: &[Port { name: "x", tensor: 0 }],
        outputs: &[Port { name: "y", tensor: 1 }],
        segments: &[
            Segment { steps: &[] },
            Segment { steps: &[step(Action::Cpu(CpuOp::Pointwise(NEGATE)), &[0], &[1])] },
        ],
        ..FIXED
    };
    let model = Model::load(&tables, Weights::borrowed(&[]), Options::default()).unwrap();
    let mut session = model.session().unwrap();
    for len in [3, 999, 0, 64, 65] {
        let x: Vec<f32> = (0..len).map(|x| x as f32).collect();
        session.run(&[input(&x)]).unwrap();
        let expected: Vec<f32> = x.iter().map(|x| -x).collect();
        assert_eq!(session.output(0).unwrap().data::<f32>().unwrap(), expected);
    }
    assert!(matches!(session.run(&[input(&[0.0; 1000])]), Err(Error::OutsideProfiles { .. })));
}

#[test]
fn parts_of_a_tensor_are_written_and_read_in_their_places() {
    // c = [-x, x + x]; y is the last element of c, negated.
    const N: &[Dim] = &[Dim::Slot(0)];
    const PAIR: &[Dim] = &[Dim::Slot(1)];
    const ONE: &[Dim] = &[Dim::Const(1)];
    const fn part(dims: &'static [Dim], at: Dim) -> Tensor<'static> {
        Tensor { at, ..tensor(F, dims, Place::Arena(1)) }
    }
    const TIMES: fn(i64, i64) -> [FormulaOp; 5] = |factor, more| {
        [FormulaOp::Const(factor), FormulaOp::Symbol(0), FormulaOp::Mul, FormulaOp::Const(more), FormulaOp::Add]
    };
    let (pair, second, last) = (TIMES(2, 0), TIMES(4, 0), TIMES(8, -4));
    let tables = PlanTables {
        symbols: &[Symbol { name: "n", source: Source::Extent { input: 0, axis: 0 } }],
        profiles: &[Profile {
            ranges: &[Range { min: 1, opt: 8, max: 64 }],
            arena_bytes: 1024,
            offsets: &[0, 256, 768],
        }],
        slots: &[
            Formula { code: &[FormulaOp::Symbol(0)], text: "n" },
            Formula { code: &pair, text: "2*n" },
            Formula { code: &second, text: "4*n" },
            Formula { code: &last, text: "8*n - 4" },
        ],
        tensors: &[
            tensor(F, N, Place::Arena(0)),
            part(N, Dim::Const(0)),
            part(N, Dim::Slot(2)),
            tensor(F, PAIR, Place::Arena(1)),
            part(ONE, Dim::Slot(3)),
            tensor(F, ONE, Place::Arena(2)),
        ],
        inputs: &[Port { name: "x", tensor: 0 }],
        outputs: &[Port { name: "c", tensor: 3 }, Port { name: "y", tensor: 5 }, Port { name: "z", tensor: 2 }],
        segments: &[
            Segment { steps: &[] },
            Segment {
                steps: &[
                    step(Action::Cpu(CpuOp::Pointwise(NEGATE)), &[0], &[1]),
                    step(Action::Cpu(CpuOp::Pointwise(DOUBLE)), &[0], &[2]),
                    step(Action::Cpu(CpuOp::Pointwise(NEGATE)), &[4], &[5]),
                ],
            },
        ],
        ..FIXED
    };
    let model = Model::load(&tables, Weights::borrowed(&[]), Options::default()).unwrap();
    let mut session = model.session().unwrap();
    for x in [&[1.0, 2.0, 3.0][..], &[5.0], &[7.0; 64]] {
        session.run(&[input(x)]).unwrap();
        let doubled: Vec<f32> = x.iter().map(|x| x + x).collect();
        let pair: Vec<f32> = x.iter().map(|x| -x).chain(doubled.iter().copied()).collect();
        assert_eq!(session.output(0).unwrap().data::<f32>().unwrap(), pair);
        assert_eq!(session.output(1).unwrap().data::<f32>().unwrap(), [-doubled[doubled.len() - 1]]);
        assert_eq!(session.output(2).unwrap().data::<f32>().unwrap(), doubled);
    }
}

/// relu(x + bias + residual)
const EPILOGUE: Program<'static> = Program {
    inputs: &[F, F, F],
    steps: &[
        Instr::binary(ScalarOp::Add, F, Arg::Input(0), Arg::Input(1)),
        Instr::binary(ScalarOp::Add, F, Arg::Step(0), Arg::Input(2)),
        Instr::binary(ScalarOp::Max, F, Arg::Step(1), Arg::Imm(Scalar::float(F, 0.0))),
    ],
    outputs: &[Arg::Step(2)],
};

#[test]
fn epilogues_see_bias_and_residual() {
    const WINDOW: Window =
        Window { rank: 1, size: [3, 1, 1], stride: [1; 3], dilation: [1; 3], pad_lo: [1, 0, 0], pad_hi: [1, 0, 0] };
    const CONV: CpuOp<'static> =
        CpuOp::Conv { spec: Conv { window: WINDOW, groups: 1, math: Math::Exact }, epilogue: Some(EPILOGUE) };
    const X: &[Dim] = &[Dim::Const(1), Dim::Const(1), Dim::Const(4)];
    const Y: &[Dim] = &[Dim::Const(1), Dim::Const(2), Dim::Const(4)];
    let tables = PlanTables {
        tensors: &[
            tensor(F, X, Place::Arena(0)),
            tensor(F, &[Dim::Const(2), Dim::Const(1), Dim::Const(3)], Place::Arena(1)),
            tensor(F, &[Dim::Const(2), Dim::Const(1)], Place::Arena(2)),
            tensor(F, Y, Place::Arena(3)),
            tensor(F, Y, Place::Arena(4)),
        ],
        inputs: &[
            Port { name: "x", tensor: 0 },
            Port { name: "w", tensor: 1 },
            Port { name: "b", tensor: 2 },
            Port { name: "r", tensor: 3 },
        ],
        outputs: &[Port { name: "y", tensor: 4 }],
        segments: &[Segment { steps: &[] }, Segment { steps: &[step(Action::Cpu(CONV), &[0, 1, 2, 3], &[4])] }],
        ..FIXED
    };
    let model = Model::load(&tables, Weights::borrowed(&[]), Options::default()).unwrap();
    let mut session = model.session().unwrap();
    let x = InputRef::new(&[1.0f32, 2.0, 3.0, 4.0], Extents::new(&[1, 1, 4]));
    let w = InputRef::new(&[1.0f32, 1.0, 1.0, 0.0, -1.0, 0.0], Extents::new(&[2, 1, 3]));
    let b = InputRef::new(&[10.0f32, 2.0], Extents::new(&[2, 1]));
    let r = InputRef::new(&[0.0f32, 0.0, 0.0, -100.0, 0.0, 1.0, 2.0, 3.0], Extents::new(&[1, 2, 4]));
    session.run(&[x, w, b, r]).unwrap();
    assert_eq!(session.output(0).unwrap().data::<f32>().unwrap(), [13.0, 16.0, 19.0, 0.0, 1.0, 1.0, 1.0, 1.0]);
}

#[test]
fn products_without_elements_run_no_epilogue() {
    const SPEC: MatMul = MatMul { transpose_a: false, transpose_b: false, math: Math::Exact };
    const PRODUCT: CpuOp<'static> = CpuOp::MatMul { spec: SPEC, epilogue: Some(EPILOGUE) };
    const EMPTY: &[Dim] = &[Dim::Const(0), Dim::Const(2)];
    let tables = PlanTables {
        tensors: &[
            tensor(F, EMPTY, Place::Arena(0)),
            tensor(F, &[Dim::Const(2), Dim::Const(2)], Place::Arena(1)),
            tensor(F, TWO, Place::Arena(2)),
            tensor(F, &[], Place::Arena(3)),
            tensor(F, EMPTY, Place::Arena(4)),
        ],
        inputs: &[Port { name: "x", tensor: 0 }],
        outputs: &[Port { name: "y", tensor: 4 }],
        segments: &[Segment { steps: &[] }, Segment { steps: &[step(Action::Cpu(PRODUCT), &[0, 1, 2, 3], &[4])] }],
        ..FIXED
    };
    let model = Model::load(&tables, Weights::borrowed(&[]), Options::default()).unwrap();
    let mut session = model.session().unwrap();
    session.run(&[InputRef::new(&[] as &[f32], Extents::new(&[0, 2]))]).unwrap();
    assert_eq!(session.output(0).unwrap().dims(), [0, 2]);
}

#[test]
fn epilogues_of_integer_products_change_the_type() {
    // f32(a b) * 0.5 + bias
    const SCALE: Program<'static> = Program {
        inputs: &[DType::I32, F],
        steps: &[
            Instr::unary(ScalarOp::Cast, F, Arg::Input(0)),
            Instr::binary(ScalarOp::Mul, F, Arg::Step(0), Arg::Imm(Scalar::float(F, 0.5))),
            Instr::binary(ScalarOp::Add, F, Arg::Step(1), Arg::Input(1)),
        ],
        outputs: &[Arg::Step(2)],
    };
    const SPEC: MatMul = MatMul { transpose_a: false, transpose_b: false, math: Math::Exact };
    const PRODUCT: CpuOp<'static> = CpuOp::MatMul { spec: SPEC, epilogue: Some(SCALE) };
    const SQUARE: &[Dim] = &[Dim::Const(2), Dim::Const(2)];
    let tables = PlanTables {
        tensors: &[
            tensor(DType::U8, SQUARE, Place::Arena(0)),
            tensor(DType::I8, SQUARE, Place::Arena(1)),
            tensor(F, TWO, Place::Arena(2)),
            tensor(F, SQUARE, Place::Arena(3)),
        ],
        inputs: &[Port { name: "a", tensor: 0 }, Port { name: "b", tensor: 1 }, Port { name: "c", tensor: 2 }],
        outputs: &[Port { name: "y", tensor: 3 }],
        segments: &[Segment { steps: &[] }, Segment { steps: &[step(Action::Cpu(PRODUCT), &[0, 1, 2], &[3])] }],
        ..FIXED
    };
    let model = Model::load(&tables, Weights::borrowed(&[]), Options::default()).unwrap();
    let mut session = model.session().unwrap();
    let square = Extents::new(&[2, 2]);
    let a = InputRef::new(&[255u8, 1, 2, 3], square);
    let b = InputRef::new(&[-128i8, 1, 0, 5], square);
    session.run(&[a, b, input(&[0.25, 0.5])]).unwrap();
    assert_eq!(session.output(0).unwrap().data::<f32>().unwrap(), [-16319.75, 130.5, -127.75, 9.0]);
}

#[test]
fn indices_of_the_caller_are_checked() {
    const GATHER: CpuOp<'static> = CpuOp::Gather { axis: 0 };
    let tables = PlanTables {
        tensors: &[
            tensor(F, TWO, Place::Arena(0)),
            tensor(DType::I64, TWO, Place::Arena(1)),
            tensor(F, TWO, Place::Arena(2)),
        ],
        inputs: &[Port { name: "x", tensor: 0 }, Port { name: "i", tensor: 1 }],
        outputs: &[Port { name: "y", tensor: 2 }],
        segments: &[Segment { steps: &[] }, Segment { steps: &[step(Action::Cpu(GATHER), &[0, 1], &[2])] }],
        ..FIXED
    };
    let model = Model::load(&tables, Weights::borrowed(&[]), Options::default()).unwrap();
    let mut session = model.session().unwrap();
    let mut run = |indices: &[i64]| session.run(&[input(&[7.0, 8.0]), InputRef::new(indices, Extents::new(&[2]))]);
    assert!(run(&[1, -2]).is_ok());
    let error = run(&[0, 2]).unwrap_err();
    assert_eq!(error.to_string(), "node: index 2 is out of range for an axis of 2");
    assert!(run(&[0, 0]).is_ok());
}

#[test]
fn elements_below_a_byte_are_moved() {
    const TRANSPOSE: CpuOp<'static> =
        CpuOp::Transpose(crate::op::Transpose { rank: 2, perm: [1, 0, 0, 0, 0, 0, 0, 0] });
    let tables = PlanTables {
        tensors: &[
            tensor(DType::U4, &[Dim::Const(2), Dim::Const(3)], Place::Arena(0)),
            tensor(DType::U4, &[Dim::Const(3), Dim::Const(2)], Place::Arena(1)),
            tensor(DType::U4, &[Dim::Const(6), Dim::Const(2)], Place::Arena(2)),
        ],
        inputs: &[Port { name: "x", tensor: 0 }],
        outputs: &[Port { name: "y", tensor: 1 }, Port { name: "z", tensor: 2 }],
        segments: &[
            Segment { steps: &[] },
            Segment {
                steps: &[
                    step(Action::Cpu(TRANSPOSE), &[0], &[1]),
                    step(Action::Cpu(CpuOp::Concat { axis: 0 }), &[1, 1], &[2]),
                ],
            },
        ],
        ..FIXED
    };
    let model = Model::load(&tables, Weights::borrowed(&[]), Options::default()).unwrap();
    let mut session = model.session().unwrap();
    session.run(&[InputRef::from_bytes(DType::U4, Extents::new(&[2, 3]), &[0x21, 0x43, 0x65])]).unwrap();
    assert_eq!(session.output(0).unwrap().bytes(), [0x41, 0x52, 0x63]);
    assert_eq!(session.output(1).unwrap().bytes(), [0x41, 0x52, 0x63, 0x41, 0x52, 0x63]);
}

#[test]
fn every_result_is_observed() {
    let tables = PlanTables {
        tensors: &[tensor(F, TWO, Place::Arena(0)), tensor(F, TWO, Place::Arena(1)), tensor(F, TWO, Place::Arena(2))],
        inputs: &[Port { name: "x", tensor: 0 }],
        outputs: &[Port { name: "y", tensor: 2 }],
        segments: &[
            Segment { steps: &[] },
            Segment {
                steps: &[
                    step(Action::Cpu(CpuOp::Pointwise(DOUBLE)), &[0], &[1]),
                    // In place.
                    step(Action::Cpu(CpuOp::Pointwise(NEGATE)), &[1], &[1]),
                    step(Action::Cpu(CpuOp::TopK { axis: 0, largest: true }), &[1], &[2, NONE]),
                ],
            },
        ],
        ..FIXED
    };
    let model = Model::load(&tables, Weights::borrowed(&[]), Options::default()).unwrap();
    let mut session = model.session().unwrap();
    let mut seen = Vec::new();
    let mut observe = |label: &str, tensor: u32, value: crate::OutputRef<'_>| {
        seen.push((label.to_owned(), tensor, value.data::<f32>().unwrap().to_vec()));
    };
    session.run_observed(&[input(&[1.0, -2.0])], &mut observe).unwrap();
    let node = "node".to_owned();
    let expected = [(node.clone(), 1, vec![2.0, -4.0]), (node.clone(), 1, vec![-2.0, 4.0]), (node, 2, vec![4.0, -2.0])];
    assert_eq!(seen, expected);
}

#[test]
fn each_run_is_told_how_many_there_were() {
    let tables = PlanTables {
        tensors: &[tensor(DType::U64, &[], Place::Arena(0))],
        outputs: &[Port { name: "count", tensor: 0 }],
        run_count: 0,
        segments: &[Segment { steps: &[] }, Segment { steps: &[] }],
        ..FIXED
    };
    let model = Model::load(&tables, Weights::borrowed(&[]), Options::default()).unwrap();
    let mut session = model.session().unwrap();
    let mut count = || {
        session.run(&[]).unwrap();
        session.output(0).unwrap().data::<u64>().unwrap()[0]
    };
    assert_eq!([count(), count(), count()], [0, 1, 2]);
    session.set_run_count(u64::MAX);
    session.run(&[]).unwrap();
    assert_eq!(session.output(0).unwrap().data::<u64>().unwrap(), [u64::MAX]);
}

#[test]
fn plans_without_a_function_are_refused_at_load() {
    let tables = PlanTables {
        tensors: &[tensor(DType::I32, TWO, Place::Arena(0)), tensor(DType::I32, TWO, Place::Arena(1))],
        segments: &[
            Segment { steps: &[] },
            Segment {
                steps: &[step(Action::Cpu(CpuOp::Softmax(crate::op::Softmax { axis: 0, log: false })), &[0], &[1])],
            },
        ],
        ..FIXED
    };
    let error = Model::load(&tables, Weights::borrowed(&[]), Options::default()).err().unwrap();
    assert_eq!(error.to_string(), "node: no function for i32; compile the model again with this version");
}

#[test]
fn models_are_shared_and_sessions_sent() {
    fn shared<T: Send + Sync>() {}
    fn sent<T: Send>() {}
    shared::<Model<'static>>();
    sent::<crate::Session<'static>>();
}
