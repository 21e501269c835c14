//! The plan for `cpu`: 4 steps, 17.2 KiB of weights.
//!
//! Steps name tensors by their number in `TENSORS`, extents are constants or numbers in `SLOTS`.
//! `lapidary_runtime::table` documents the records.

#![allow(unused_imports, reason = "every plan uses some of the records")]

use lapidary_runtime::{Aligned, DType, op::*, table::*};

/// All of the plan.
pub static PLAN: PlanTables<'static> = PlanTables {
    name: "digits",
    target: Target::Cpu,
    symbols: SYMBOLS,
    profiles: PROFILES,
    slots: SLOTS,
    constraints: CONSTRAINTS,
    inputs: INPUTS,
    outputs: OUTPUTS,
    run_count: NONE,
    tensors: TENSORS,
    weight_bytes: 17664,
    derived_bytes: 6144,
    counter_bytes: 0,
    segments: &[Segment { steps: INIT }, Segment { steps: MAIN }],
    kernels: KERNELS,
    images: IMAGES,
};

/// The dimensions that callers choose, and where they are read.
#[rustfmt::skip]
static SYMBOLS: &[Symbol<'static>] = &[
    /* 0 */ Symbol { name: "batch", source: Source::Extent { input: 0, axis: 0 } },
];

/// The ranges of the dimensions, and where each buffer lies in the arena.
#[rustfmt::skip]
static PROFILES: &[Profile<'static>] = &[
    /* 0 */ Profile { ranges: &[Range { min: 1, opt: 1, max: 64 }], arena_bytes: 163840, offsets: &[131072, 0, 131072, 0, 65536] },
];

/// Extents that follow from the dimensions.
#[rustfmt::skip]
static SLOTS: &[Formula<'static>] = &[
    /* 0 */ Formula { code: &[FormulaOp::Symbol(0)], text: "batch" },
];

/// What must hold of the shapes.
static CONSTRAINTS: &[Constraint<'static>] = &[];

/// What the model takes.
#[rustfmt::skip]
static INPUTS: &[Port<'static>] = &[
    /* 0 */ Port { name: "image", tensor: 0 },
];

/// What the model gives.
#[rustfmt::skip]
static OUTPUTS: &[Port<'static>] = &[
    /* 0 */ Port { name: "logits", tensor: 27 },
];

/// Every tensor: its type, its shape, and where it lies.
#[rustfmt::skip]
static TENSORS: &[Tensor<'static>] = &[
    /*  0 */ Tensor {
        dtype: DType::F32,
        dims: &[Dim::Slot(0), Dim::Const(1), Dim::Const(8), Dim::Const(8)],
        place: Place::Arena(0),
        at: Dim::Const(0),
    }, // image
    /*  1 */ Tensor { dtype: DType::F32, dims: &[Dim::Const(8)], place: Place::Weight(0), at: Dim::Const(0) }, // bn1.scale
    /*  2 */ Tensor { dtype: DType::F32, dims: &[Dim::Const(8)], place: Place::Weight(256), at: Dim::Const(0) }, // bn1.var
    /*  3 */ Tensor { dtype: DType::F32, dims: &[Dim::Const(8)], place: Place::Derived(0), at: Dim::Const(0) }, // bn1
    /*  4 */ Tensor { dtype: DType::F32, dims: &[Dim::Const(8)], place: Place::Weight(512), at: Dim::Const(0) }, // bn1.bias
    /*  5 */ Tensor { dtype: DType::F32, dims: &[Dim::Const(8)], place: Place::Weight(768), at: Dim::Const(0) }, // bn1.mean
    /*  6 */ Tensor { dtype: DType::F32, dims: &[Dim::Const(8)], place: Place::Derived(256), at: Dim::Const(0) }, // bn1
    /*  7 */ Tensor {
        dtype: DType::F32,
        dims: &[Dim::Const(8), Dim::Const(1), Dim::Const(1)],
        place: Place::Derived(256),
        at: Dim::Const(0),
    }, // bn1
    /*  8 */ Tensor { dtype: DType::F32, dims: &[Dim::Const(16)], place: Place::Weight(1024), at: Dim::Const(0) }, // bn2.scale
    /*  9 */ Tensor { dtype: DType::F32, dims: &[Dim::Const(16)], place: Place::Weight(1280), at: Dim::Const(0) }, // bn2.var
    /* 10 */ Tensor { dtype: DType::F32, dims: &[Dim::Const(16)], place: Place::Derived(512), at: Dim::Const(0) }, // bn2
    /* 11 */ Tensor { dtype: DType::F32, dims: &[Dim::Const(16)], place: Place::Weight(1536), at: Dim::Const(0) }, // bn2.bias
    /* 12 */ Tensor { dtype: DType::F32, dims: &[Dim::Const(16)], place: Place::Weight(1792), at: Dim::Const(0) }, // bn2.mean
    /* 13 */ Tensor { dtype: DType::F32, dims: &[Dim::Const(16)], place: Place::Derived(768), at: Dim::Const(0) }, // bn2
    /* 14 */ Tensor {
        dtype: DType::F32,
        dims: &[Dim::Const(16), Dim::Const(1), Dim::Const(1)],
        place: Place::Derived(768),
        at: Dim::Const(0),
    }, // bn2
    /* 15 */ Tensor {
        dtype: DType::F32,
        dims: &[Dim::Const(8), Dim::Const(1), Dim::Const(1), Dim::Const(1)],
        place: Place::Derived(0),
        at: Dim::Const(0),
    }, // bn1
    /* 16 */ Tensor {
        dtype: DType::F32,
        dims: &[Dim::Const(8), Dim::Const(1), Dim::Const(3), Dim::Const(3)],
        place: Place::Weight(2048),
        at: Dim::Const(0),
    }, // conv1.weight
    /* 17 */ Tensor {
        dtype: DType::F32,
        dims: &[Dim::Const(8), Dim::Const(1), Dim::Const(3), Dim::Const(3)],
        place: Place::Derived(1024),
        at: Dim::Const(0),
    }, // bn1
    /* 18 */ Tensor {
        dtype: DType::F32,
        dims: &[Dim::Slot(0), Dim::Const(8), Dim::Const(8), Dim::Const(8)],
        place: Place::Arena(1),
        at: Dim::Const(0),
    }, // relu1
    /* 19 */ Tensor {
        dtype: DType::F32,
        dims: &[Dim::Slot(0), Dim::Const(8), Dim::Const(4), Dim::Const(4)],
        place: Place::Arena(2),
        at: Dim::Const(0),
    }, // pool
    /* 20 */ Tensor {
        dtype: DType::F32,
        dims: &[Dim::Const(16), Dim::Const(1), Dim::Const(1), Dim::Const(1)],
        place: Place::Derived(512),
        at: Dim::Const(0),
    }, // bn2
    /* 21 */ Tensor {
        dtype: DType::F32,
        dims: &[Dim::Const(16), Dim::Const(8), Dim::Const(3), Dim::Const(3)],
        place: Place::Weight(2560),
        at: Dim::Const(0),
    }, // conv2.weight
    /* 22 */ Tensor {
        dtype: DType::F32,
        dims: &[Dim::Const(16), Dim::Const(8), Dim::Const(3), Dim::Const(3)],
        place: Place::Derived(1536),
        at: Dim::Const(0),
    }, // bn2
    /* 23 */ Tensor {
        dtype: DType::F32,
        dims: &[Dim::Slot(0), Dim::Const(16), Dim::Const(4), Dim::Const(4)],
        place: Place::Arena(3),
        at: Dim::Const(0),
    }, // relu2
    /* 24 */ Tensor { dtype: DType::F32, dims: &[Dim::Slot(0), Dim::Const(256)], place: Place::Arena(3), at: Dim::Const(0) }, // flat
    /* 25 */ Tensor { dtype: DType::F32, dims: &[Dim::Const(10), Dim::Const(256)], place: Place::Weight(7168), at: Dim::Const(0) }, // fc.weight
    /* 26 */ Tensor { dtype: DType::F32, dims: &[Dim::Const(10)], place: Place::Weight(17408), at: Dim::Const(0) }, // fc.bias
    /* 27 */ Tensor { dtype: DType::F32, dims: &[Dim::Slot(0), Dim::Const(10)], place: Place::Arena(4), at: Dim::Const(0) }, // logits
];

/// Runs once at load: what depends on the weights alone.
#[rustfmt::skip]
static INIT: &[Step<'static>] = &[
    // 0: f32[8], f32[8] -> f32[8]
    Step {
        action: Action::Cpu(CpuOp::Pointwise(Program {
            inputs: &[DType::F32, DType::F32],
            steps: &[
                Instr {
                    op: ScalarOp::Add,
                    dtype: DType::F32,
                    args: [Arg::Input(1), Arg::Imm(Scalar::float(DType::F32, 9.999999747378752e-6)), Arg::Input(1)],
                },
                Instr { op: ScalarOp::Sqrt, dtype: DType::F32, args: [Arg::Step(0), Arg::Step(0), Arg::Step(0)] },
                Instr { op: ScalarOp::Div, dtype: DType::F32, args: [Arg::Input(0), Arg::Step(1), Arg::Input(0)] },
            ],
            outputs: &[Arg::Step(2)],
        })),
        inputs: &[1, 2],
        outputs: &[3],
        label: "bn1 (BatchNormalization)",
    },
    // 1: f32[8], f32[8], f32[8], f32[8] -> f32[8]
    Step {
        action: Action::Cpu(CpuOp::Pointwise(Program {
            inputs: &[DType::F32, DType::F32, DType::F32, DType::F32],
            steps: &[
                Instr {
                    op: ScalarOp::Add,
                    dtype: DType::F32,
                    args: [Arg::Input(3), Arg::Imm(Scalar::float(DType::F32, 9.999999747378752e-6)), Arg::Input(3)],
                },
                Instr { op: ScalarOp::Sqrt, dtype: DType::F32, args: [Arg::Step(0), Arg::Step(0), Arg::Step(0)] },
                Instr { op: ScalarOp::Div, dtype: DType::F32, args: [Arg::Input(2), Arg::Step(1), Arg::Input(2)] },
                Instr { op: ScalarOp::Mul, dtype: DType::F32, args: [Arg::Input(1), Arg::Step(2), Arg::Input(1)] },
                Instr { op: ScalarOp::Sub, dtype: DType::F32, args: [Arg::Input(0), Arg::Step(3), Arg::Input(0)] },
            ],
            outputs: &[Arg::Step(4)],
        })),
        inputs: &[4, 5, 1, 2],
        outputs: &[6],
        label: "bn1 (BatchNormalization)",
    },
    // 2: f32[16], f32[16] -> f32[16]
    Step {
        action: Action::Cpu(CpuOp::Pointwise(Program {
            inputs: &[DType::F32, DType::F32],
            steps: &[
                Instr {
                    op: ScalarOp::Add,
                    dtype: DType::F32,
                    args: [Arg::Input(1), Arg::Imm(Scalar::float(DType::F32, 9.999999747378752e-6)), Arg::Input(1)],
                },
                Instr { op: ScalarOp::Sqrt, dtype: DType::F32, args: [Arg::Step(0), Arg::Step(0), Arg::Step(0)] },
                Instr { op: ScalarOp::Div, dtype: DType::F32, args: [Arg::Input(0), Arg::Step(1), Arg::Input(0)] },
            ],
            outputs: &[Arg::Step(2)],
        })),
        inputs: &[8, 9],
        outputs: &[10],
        label: "bn2 (BatchNormalization)",
    },
    // 3: f32[16], f32[16], f32[16], f32[16] -> f32[16]
    Step {
        action: Action::Cpu(CpuOp::Pointwise(Program {
            inputs: &[DType::F32, DType::F32, DType::F32, DType::F32],
            steps: &[
                Instr {
                    op: ScalarOp::Add,
                    dtype: DType::F32,
                    args: [Arg::Input(3), Arg::Imm(Scalar::float(DType::F32, 9.999999747378752e-6)), Arg::Input(3)],
                },
                Instr { op: ScalarOp::Sqrt, dtype: DType::F32, args: [Arg::Step(0), Arg::Step(0), Arg::Step(0)] },
                Instr { op: ScalarOp::Div, dtype: DType::F32, args: [Arg::Input(2), Arg::Step(1), Arg::Input(2)] },
                Instr { op: ScalarOp::Mul, dtype: DType::F32, args: [Arg::Input(1), Arg::Step(2), Arg::Input(1)] },
                Instr { op: ScalarOp::Sub, dtype: DType::F32, args: [Arg::Input(0), Arg::Step(3), Arg::Input(0)] },
            ],
            outputs: &[Arg::Step(4)],
        })),
        inputs: &[11, 12, 8, 9],
        outputs: &[13],
        label: "bn2 (BatchNormalization)",
    },
    // 4: f32[8, 1, 3, 3], f32[8, 1, 1, 1] -> f32[8, 1, 3, 3]
    Step {
        action: Action::Cpu(CpuOp::Pointwise(Program {
            inputs: &[DType::F32, DType::F32],
            steps: &[Instr { op: ScalarOp::Mul, dtype: DType::F32, args: [Arg::Input(0), Arg::Input(1), Arg::Input(0)] }],
            outputs: &[Arg::Step(0)],
        })),
        inputs: &[16, 15],
        outputs: &[17],
        label: "conv1 (Conv) + bn1 (BatchNormalization)",
    },
    // 5: f32[16, 8, 3, 3], f32[16, 1, 1, 1] -> f32[16, 8, 3, 3]
    Step {
        action: Action::Cpu(CpuOp::Pointwise(Program {
            inputs: &[DType::F32, DType::F32],
            steps: &[Instr { op: ScalarOp::Mul, dtype: DType::F32, args: [Arg::Input(0), Arg::Input(1), Arg::Input(0)] }],
            outputs: &[Arg::Step(0)],
        })),
        inputs: &[21, 20],
        outputs: &[22],
        label: "conv2 (Conv) + bn2 (BatchNormalization)",
    },
];

/// Runs at every request.
#[rustfmt::skip]
static MAIN: &[Step<'static>] = &[
    // 0: f32[batch, 1, 8, 8], f32[8, 1, 3, 3], f32[8, 1, 1] -> f32[batch, 8, 8, 8]
    Step {
        action: Action::Cpu(CpuOp::Conv {
            spec: Conv {
                window: Window { rank: 2, size: [3, 3, 1], stride: [1, 1, 1], dilation: [1, 1, 1], pad_lo: [1, 1, 0], pad_hi: [1, 1, 0] },
                groups: 1,
                math: Math::Exact,
            },
            epilogue: Some(Program {
                inputs: &[DType::F32, DType::F32],
                steps: &[
                    Instr { op: ScalarOp::Add, dtype: DType::F32, args: [Arg::Input(0), Arg::Input(1), Arg::Input(0)] },
                    Instr {
                        op: ScalarOp::Max,
                        dtype: DType::F32,
                        args: [Arg::Step(0), Arg::Imm(Scalar::float(DType::F32, 0.0)), Arg::Step(0)],
                    },
                ],
                outputs: &[Arg::Step(1)],
            }),
        }),
        inputs: &[0, 17, 7],
        outputs: &[18],
        label: "conv1 (Conv) + bn1 (BatchNormalization) + relu1 (Relu)",
    },
    // 1: f32[batch, 8, 8, 8] -> f32[batch, 8, 4, 4], -
    Step {
        action: Action::Cpu(CpuOp::Pool(Pool {
            kind: PoolKind::Max,
            window: Window { rank: 2, size: [2, 2, 1], stride: [2, 2, 1], dilation: [1, 1, 1], pad_lo: [0, 0, 0], pad_hi: [0, 0, 0] },
            index_order: 0,
        })),
        inputs: &[18],
        outputs: &[19, NONE],
        label: "pool (MaxPool)",
    },
    // 2: f32[batch, 8, 4, 4], f32[16, 8, 3, 3], f32[16, 1, 1] -> f32[batch, 16, 4, 4]
    Step {
        action: Action::Cpu(CpuOp::Conv {
            spec: Conv {
                window: Window { rank: 2, size: [3, 3, 1], stride: [1, 1, 1], dilation: [1, 1, 1], pad_lo: [1, 1, 0], pad_hi: [1, 1, 0] },
                groups: 1,
                math: Math::Exact,
            },
            epilogue: Some(Program {
                inputs: &[DType::F32, DType::F32],
                steps: &[
                    Instr { op: ScalarOp::Add, dtype: DType::F32, args: [Arg::Input(0), Arg::Input(1), Arg::Input(0)] },
                    Instr {
                        op: ScalarOp::Max,
                        dtype: DType::F32,
                        args: [Arg::Step(0), Arg::Imm(Scalar::float(DType::F32, 0.0)), Arg::Step(0)],
                    },
                ],
                outputs: &[Arg::Step(1)],
            }),
        }),
        inputs: &[19, 22, 14],
        outputs: &[23],
        label: "conv2 (Conv) + bn2 (BatchNormalization) + relu2 (Relu)",
    },
    // 3: f32[batch, 256], f32[10, 256], f32[10] -> f32[batch, 10]
    Step {
        action: Action::Cpu(CpuOp::MatMul {
            spec: MatMul { transpose_a: false, transpose_b: true, math: Math::Exact },
            epilogue: Some(Program {
                inputs: &[DType::F32, DType::F32],
                steps: &[Instr { op: ScalarOp::Add, dtype: DType::F32, args: [Arg::Input(0), Arg::Input(1), Arg::Input(0)] }],
                outputs: &[Arg::Step(0)],
            }),
        }),
        inputs: &[24, 25, 26],
        outputs: &[27],
        label: "fc (Gemm)",
    },
];

/// The kernels, by the names of their files.
static KERNELS: &[Kernel<'static>] = &[];

/// Compiled kernels: none.
static IMAGES: &[Images<'static>] = &[];
