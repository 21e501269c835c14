//! Tests of the executor on the driver of `fake`: what it computes, in which order, and what it must not do.

use std::sync::Arc;

use super::fake::{self, Call, with};
use super::*;
use crate::error::Error;
use crate::model::{LaunchMode, TimingMode};
use crate::shapes::{Change, Extents, Shapes};
use crate::table::*;
use crate::view::InputRef;
use crate::weights::Weights;
use crate::{DType, table};

/// y[i] = x[i] * factor
fn scale(call: &Call) {
    let n = call.i32(2) as usize;
    assert_eq!(call.blocks[0] as usize, n.div_ceil(4));
    let factor = call.f32(3);
    let x = call.floats(0, n).to_vec();
    for (y, x) in call.floats(1, n).iter_mut().zip(x) {
        *y = x * factor;
    }
}

/// y[i] = x[i] + w[0]
fn add(call: &Call) {
    let n = call.i64(3) as usize;
    let w = call.floats(1, 1)[0];
    let x = call.floats(0, n).to_vec();
    for (y, x) in call.floats(2, n).iter_mut().zip(x) {
        *y = x + w;
    }
}

fn set(handle: usize, value: bool) {
    with(|fake| fake.conditions[handle] = u32::from(value));
}

/// Sets the condition of one of two branches.
fn decide(call: &Call) {
    let taken = call.bytes(0, 1)[0] != 0;
    set(call.handle(1), taken);
    set(call.handle(2), !taken);
}

/// Numbers the next round: 0 in front of the loop, else one more; asks for it.
fn number(call: &Call) {
    let round = call.bytes(1, 8);
    let next = if call.i64(4) == 0 { 0 } else { i64::from_ne_bytes((&*round).try_into().expect("eight bytes")) + 1 };
    round.copy_from_slice(&next.to_ne_bytes());
    set(call.handle(2), next < call.i64(3) && call.bytes(0, 1)[0] != 0);
}

/// rows[round] = row
fn collect(call: &Call) {
    let bytes = call.i64(3) as usize;
    let round = i64::from_ne_bytes((&*call.bytes(2, 8)).try_into().expect("eight bytes")) as usize;
    call.bytes(1, (round + 1) * bytes)[round * bytes..].copy_from_slice(call.bytes(0, bytes));
}

const N: Dim = Dim::Slot(0);
const BLOCKS: Dim = Dim::Slot(1);
const ZERO: Dim = Dim::Const(0);
const ONE: Dim = Dim::Const(1);

const fn scale_launch(grid: Dim, params: &'static [Param]) -> Action<'static> {
    Action::Launch(Launch { kernel: 0, grid: [grid, ONE, ONE], block: [4, 1, 1], shared: 0, params })
}

const TIMES_2: &[Param] = &[Param::Input(0, ZERO), Param::Output(0, ZERO), Param::I32(N), Param::F32(2.0)];
const TIMES_3: &[Param] = &[Param::Input(0, ZERO), Param::Output(0, ZERO), Param::I32(ONE), Param::F32(3.0)];
const NEGATED: &[Param] = &[Param::Input(0, ZERO), Param::Output(0, ZERO), Param::I32(N), Param::F32(-1.0)];

const ADD: Action<'static> = Action::Launch(Launch {
    kernel: 1,
    grid: [BLOCKS, ONE, ONE],
    block: [4, 1, 1],
    shared: 64,
    params: &[Param::Input(0, ZERO), Param::Input(1, Dim::Const(4)), Param::Output(0, ZERO), Param::I64(N)],
});

const fn tensor(dims: &'static [Dim], place: Place) -> Tensor<'static> {
    Tensor { dtype: DType::F32, dims, place, at: ZERO }
}

/// derived = w * 3 (element 0 alone); y = x * 2 + w[1]; if a condition is asked for, y = -(x * 2) instead.
const TENSORS: &[Tensor<'static>] = &[
    tensor(&[N], Place::Arena(0)),
    tensor(&[N], Place::Arena(1)),
    tensor(&[N], Place::Arena(2)),
    tensor(&[Dim::Const(2)], Place::Weight(0)),
    tensor(&[Dim::Const(2)], Place::Derived(0)),
    Tensor { dtype: DType::Bool, dims: &[], place: Place::Weight(256), at: ZERO },
];

const DOUBLE: Step<'static> =
    Step { action: scale_launch(BLOCKS, TIMES_2), inputs: &[0], outputs: &[1], label: "double" };
const SHIFT: Step<'static> = Step { action: ADD, inputs: &[1, 3], outputs: &[2], label: "shift" };
const NEGATE: Step<'static> =
    Step { action: scale_launch(BLOCKS, NEGATED), inputs: &[1], outputs: &[2], label: "negate" };
const PACK: Step<'static> = Step { action: scale_launch(ONE, TIMES_3), inputs: &[3], outputs: &[4], label: "pack" };
const BRANCH: Step<'static> = Step {
    action: Action::If { then_segment: 2, else_segment: 3, decide: &[DECIDE] },
    inputs: &[5],
    outputs: &[2],
    label: "branch",
};

const KERNELS: &[Kernel<'static>] = &[
    Kernel { entry: "scale" },
    Kernel { entry: "add" },
    Kernel { entry: "decide" },
    Kernel { entry: "count" },
    Kernel { entry: "collect" },
];
const IMAGES: &[Images<'static>] = &[Images {
    arch: Arch { sm: 90, kind: ArchKind::CubinExact },
    code: &[b"scale", b"add", b"decide", b"count", b"collect"],
}];

const PLAIN: &[Segment<'static>] = &[Segment { steps: &[PACK] }, Segment { steps: &[DOUBLE, SHIFT] }];
const BRANCHED: &[Segment<'static>] = &[
    Segment { steps: &[] },
    Segment { steps: &[DOUBLE, BRANCH] },
    Segment { steps: &[SHIFT] },
    Segment { steps: &[NEGATE] },
];

const fn single(kernel: u32, params: &'static [Param]) -> Launch<'static> {
    Launch { kernel, grid: [ONE, ONE, ONE], block: [1, 1, 1], shared: 0, params }
}
const DECIDE: Launch<'static> = single(2, &[Param::Input(0, ZERO), Param::Handle(0), Param::Handle(1)]);
const ROUNDS: Param = Param::I64(Dim::Const(3));
const FIRST: Launch<'static> =
    single(3, &[Param::Input(0, ZERO), Param::Output(1, ZERO), Param::Handle(0), ROUNDS, Param::I64(ZERO)]);
const NEXT: Launch<'static> =
    single(3, &[Param::Input(0, ZERO), Param::Output(1, ZERO), Param::Handle(0), ROUNDS, Param::I64(ONE)]);
const COLLECT: Launch<'static> =
    single(4, &[Param::Input(2, ZERO), Param::Output(0, ZERO), Param::Output(1, ZERO), Param::I64(Dim::Slot(2))]);

const fn tables(segments: &'static [Segment<'static>]) -> PlanTables<'static> {
    PlanTables {
        name: "test",
        target: Target::Cuda,
        symbols: &[Symbol { name: "n", source: Source::Extent { input: 0, axis: 0 } }],
        profiles: &[
            Profile { ranges: &[table::Range { min: 0, opt: 8, max: 64 }], arena_bytes: 768, offsets: &[0, 256, 512] },
            Profile {
                ranges: &[table::Range { min: 65, opt: 100, max: 128 }],
                arena_bytes: 1536,
                offsets: &[512, 1024, 0],
            },
        ],
        slots: &[
            Formula { code: &[FormulaOp::Symbol(0)], text: "n" },
            Formula {
                code: &[
                    FormulaOp::Symbol(0),
                    FormulaOp::Const(3),
                    FormulaOp::Add,
                    FormulaOp::Const(4),
                    FormulaOp::FloorDiv,
                ],
                text: "ceil(n / 4)",
            },
            Formula { code: &[FormulaOp::Const(4), FormulaOp::Symbol(0), FormulaOp::Mul], text: "4 * n" },
        ],
        constraints: &[],
        inputs: &[Port { name: "x", tensor: 0 }],
        outputs: &[Port { name: "y", tensor: 2 }],
        run_count: NONE,
        tensors: TENSORS,
        weight_bytes: 260,
        derived_bytes: 8,
        counter_bytes: 0,
        segments,
        kernels: KERNELS,
        images: IMAGES,
    }
}

/// y = x * 2 * 2 ..; two elements a round, of which each round's are collected. Tensor 6 is the limit, 7 the condition.
const REPEATED: &[Segment<'static>] = &[
    Segment { steps: &[] },
    Segment { steps: &[DOUBLE, REPEAT] },
    Segment { steps: &[NEGATE, Step { inputs: &[2], outputs: &[1], ..NEGATE }] },
];
const REPEAT: Step<'static> = Step {
    action: Action::Loop { body: 2, most: Dim::Const(3), begin: &[FIRST], next: &[COLLECT, NEXT] },
    inputs: &[5, NONE, 2],
    outputs: &[6, 7],
    label: "repeat",
};

static PLAIN_TABLES: PlanTables<'static> = tables(PLAIN);
static BRANCHED_TABLES: PlanTables<'static> = tables(BRANCHED);

/// Weights: 10, 20, and the condition.
fn weights(condition: bool) -> Vec<u8> {
    let mut bytes = vec![0; 260];
    bytes[..4].copy_from_slice(&10f32.to_ne_bytes());
    bytes[4..8].copy_from_slice(&20f32.to_ne_bytes());
    bytes[256] = u8::from(condition);
    bytes
}

fn device() -> Arc<Device> {
    with(|fake| {
        fake.kernels = vec![
            ("scale", 4, scale),
            ("add", 4, add),
            ("decide", 3, decide),
            ("count", 5, number),
            ("collect", 4, collect),
            ("count_up", 4, count_up),
        ];
    });
    Device::open_with(fake::driver(), 0).expect("the fake has a device")
}

/// An engine, a session and its shapes.
struct Rig {
    exec: Exec<'static>,
    shapes: Shapes<'static>,
}

impl Rig {
    fn new(tables: &'static PlanTables<'static>, condition: bool, mode: LaunchMode) -> Rig {
        let bytes = weights(condition);
        let engine = Engine::load_on(&device(), tables, Weights::borrowed(&bytes), mode).expect("loads");
        Rig { exec: Exec::new(Arc::new(engine)).expect("memory"), shapes: Shapes::new(tables) }
    }

    fn resolve(&mut self, n: usize) -> Change {
        let extents = Extents::new(&[n]);
        self.shapes.resolve(|_| &extents).expect("in a profile")
    }

    fn run(&mut self, x: &[f32]) -> Result<Vec<f32>, Error> {
        let change = self.resolve(x.len());
        self.exec.run(&self.shapes, change, &[InputRef::new(x, Extents::new(&[x.len()]))])?;
        let bytes = self.exec.output(0);
        Ok(bytes.chunks_exact(4).map(|b| f32::from_ne_bytes([b[0], b[1], b[2], b[3]])).collect())
    }
}

fn ramp(n: usize) -> Vec<f32> {
    (0..n).map(|i| i as f32).collect()
}

fn expected(n: usize) -> Vec<f32> {
    ramp(n).iter().map(|x| x * 2.0 + 20.0).collect()
}

#[test]
fn both_modes_compute_every_shape_of_every_profile() {
    for mode in [LaunchMode::Graph, LaunchMode::Stream] {
        let mut rig = Rig::new(&PLAIN_TABLES, false, mode);
        assert!(rig.exec.output(0).is_empty(), "before the first run");
        for n in [8, 8, 3, 64, 0, 5, 100, 128, 7, 0, 0, 100, 65] {
            assert_eq!(rig.run(&ramp(n)).expect("runs"), expected(n), "{mode:?}, n = {n}");
        }
    }
}

#[test]
fn each_run_is_told_how_many_there_were() {
    const COUNT: Tensor<'static> = Tensor { dtype: DType::U64, dims: &[], place: Place::Arena(3), at: ZERO };
    static TABLES: PlanTables<'static> = PlanTables {
        profiles: &[Profile {
            ranges: &[table::Range { min: 0, opt: 8, max: 64 }],
            arena_bytes: 1024,
            offsets: &[0, 256, 512, 768],
        }],
        tensors: &[TENSORS[0], TENSORS[1], TENSORS[2], TENSORS[3], TENSORS[4], COUNT],
        outputs: &[Port { name: "y", tensor: 2 }, Port { name: "count", tensor: 5 }],
        run_count: 5,
        ..tables(PLAIN)
    };
    for mode in [LaunchMode::Graph, LaunchMode::Stream] {
        let mut rig = Rig::new(&TABLES, false, mode);
        let count = |rig: &mut Rig| {
            assert_eq!(rig.run(&ramp(8)).expect("runs"), expected(8));
            u64::from_le_bytes(rig.exec.output(1).try_into().expect("eight bytes"))
        };
        assert_eq!([count(&mut rig), count(&mut rig), count(&mut rig)], [0, 1, 2]);
        rig.exec.runs = (7 << 32) + 1;
        assert_eq!([count(&mut rig), count(&mut rig)], [(7 << 32) + 1, (7 << 32) + 2]);
    }
}

/// y[i] = x[i] + the counters' value, which grows by one.
fn count_up(call: &Call) {
    let n = call.i64(3) as usize;
    let counter = call.bytes(2, 4);
    let value = u32::from_ne_bytes((&*counter).try_into().expect("four bytes"));
    let x = call.floats(0, n).to_vec();
    for (y, x) in call.floats(1, n).iter_mut().zip(x) {
        *y = x + value as f32;
    }
    counter.copy_from_slice(&(value + 1).to_ne_bytes());
}

#[test]
fn each_session_has_counters_of_its_own_that_begin_at_zero() {
    const COUNTED: Step<'static> = Step {
        action: Action::Launch(single(
            5,
            &[Param::Input(0, ZERO), Param::Output(0, ZERO), Param::Counters, Param::I64(N)],
        )),
        inputs: &[0],
        outputs: &[2],
        label: "counted",
    };
    static TABLES: PlanTables<'static> = PlanTables {
        counter_bytes: 4,
        kernels: &[KERNELS[0], KERNELS[1], KERNELS[2], KERNELS[3], KERNELS[4], Kernel { entry: "count_up" }],
        images: &[Images {
            arch: IMAGES[0].arch,
            code: &[b"scale", b"add", b"decide", b"count", b"collect", b"count_up"],
        }],
        ..tables(&[Segment { steps: &[] }, Segment { steps: &[COUNTED] }])
    };
    for mode in [LaunchMode::Graph, LaunchMode::Stream] {
        let mut rig = Rig::new(&TABLES, false, mode);
        let mut other = Exec::new(rig.exec.engine.clone()).expect("memory");
        let mut runs = 0.0;
        // Both profiles' graphs use the same ones.
        for n in [8, 100, 8] {
            let expected: Vec<f32> = ramp(n).iter().map(|x| x + runs).collect();
            assert_eq!(rig.run(&ramp(n)).expect("runs"), expected, "{mode:?}");
            runs += 1.0;
        }
        std::mem::swap(&mut rig.exec, &mut other);
        rig.shapes = Shapes::new(&TABLES);
        assert_eq!(rig.run(&ramp(8)).expect("runs"), ramp(8), "{mode:?}: another session");
    }
}

#[test]
fn init_steps_fill_the_derived_memory_once() {
    let rig = Rig::new(&PLAIN_TABLES, false, LaunchMode::Graph);
    assert_eq!(with(|fake| fake.launches), 1);
    let arena = DeviceBuffer::new(rig.exec.engine.device(), 1).expect("memory");
    let shapes = Shapes::new(rig.exec.engine.tables);
    let address = rig.exec.engine.memory(&arena, &arena, &shapes).address(4);
    let mut value = [0f32];
    // SAFETY: one float of the derived memory, which the fake keeps in host memory.
    unsafe { rig.exec.stream.copy_to_host(value.as_mut_ptr().cast(), address, 4) }.expect("copies");
    assert_eq!(value, [30.0]);
}

#[test]
fn a_run_waits_once_and_allocates_nothing_after_the_first() {
    for mode in [LaunchMode::Graph, LaunchMode::Stream] {
        let mut rig = Rig::new(&PLAIN_TABLES, false, mode);
        rig.run(&ramp(64)).expect("runs");
        let before = with(|fake| (fake.waits, fake.allocations, fake.live, fake.graphs_made));
        for n in [64, 64, 12, 64] {
            rig.run(&ramp(n)).expect("runs");
        }
        let after = with(|fake| (fake.waits, fake.allocations, fake.live, fake.graphs_made));
        assert_eq!((after.0 - before.0, after.1, after.2, after.3), (4, before.1, before.2, before.3), "{mode:?}");
    }
}

/// Three times the last element of x * 2: of the second launch nothing but where its operand begins depends on n.
#[test]
fn a_part_moves_with_the_shapes() {
    const LAST: &[FormulaOp] =
        &[FormulaOp::Const(4), FormulaOp::Symbol(0), FormulaOp::Mul, FormulaOp::Const(-4), FormulaOp::Add];
    const SLOTS: &[Formula<'static>] =
        &[tables(PLAIN).slots[0], tables(PLAIN).slots[1], Formula { code: LAST, text: "4*n - 4" }];
    const PARTS: &[Tensor<'static>] = &[
        TENSORS[0],
        TENSORS[1],
        tensor(&[ONE], Place::Arena(2)),
        Tensor { at: Dim::Slot(2), ..tensor(&[ONE], Place::Arena(1)) },
    ];
    const TRIPLE: Step<'static> =
        Step { action: scale_launch(ONE, TIMES_3), inputs: &[3], outputs: &[2], label: "triple" };
    static PART: PlanTables<'static> = PlanTables {
        slots: SLOTS,
        tensors: PARTS,
        ..tables(&[Segment { steps: &[] }, Segment { steps: &[DOUBLE, TRIPLE] }])
    };
    for mode in [LaunchMode::Graph, LaunchMode::Stream] {
        let mut rig = Rig::new(&PART, false, mode);
        for n in [8, 3, 64, 100, 1, 128] {
            assert_eq!(rig.run(&ramp(n)).expect("runs"), [(n - 1) as f32 * 6.0], "{mode:?}, n = {n}");
        }
    }
}

#[test]
fn a_profile_has_one_graph_that_follows_the_shapes() {
    let mut rig = Rig::new(&PLAIN_TABLES, false, LaunchMode::Graph);
    for n in [8, 8, 9, 100, 8, 100] {
        rig.run(&ramp(n)).expect("runs");
    }
    with(|fake| {
        assert_eq!((fake.graphs_made, fake.graph_launches), (2, 6));
        // Two nodes at each of: 8 -> 9, back to profile 0, back to profile 1.
        assert_eq!(fake.node_updates, 6);
        assert_eq!(fake.launches, 1, "the init step alone");
    });
}

#[test]
fn a_refused_update_builds_the_graph_anew() {
    let mut rig = Rig::new(&PLAIN_TABLES, false, LaunchMode::Graph);
    rig.run(&ramp(8)).expect("runs");
    with(|fake| fake.refuse_updates = true);
    assert_eq!(rig.run(&ramp(9)).expect("runs"), expected(9));
    assert_eq!(with(|fake| fake.graphs_made), 2);
}

/// Who decides branches and loops: the version of the driver, the mode, and whether there is a graph.
const DECIDERS: [(i32, LaunchMode, bool); 3] =
    [(13000, LaunchMode::Graph, true), (12030, LaunchMode::Graph, false), (13000, LaunchMode::Stream, false)];

/// How often the host waited, and the graphs there are by now.
fn waits_and_graphs<T>(f: impl FnOnce() -> T) -> (T, u32, u32) {
    let before = with(|fake| (fake.waits, fake.graph_launches));
    let value = f();
    let after = with(|fake| (fake.waits, fake.graph_launches));
    (value, after.0 - before.0, after.1 - before.1)
}

#[test]
fn branches_are_decided_in_the_graph_or_by_the_host() {
    for (version, mode, graph) in DECIDERS {
        with(|fake| fake.version = version);
        for (condition, factor, offset) in [(true, 2.0, 20.0), (false, -2.0, 0.0)] {
            let mut rig = Rig::new(&BRANCHED_TABLES, condition, mode);
            for n in [5, 5, 2, 0, 7] {
                let (y, waits, graphs) = waits_and_graphs(|| rig.run(&ramp(n)).expect("runs"));
                let result: Vec<f32> = ramp(n).iter().map(|x| x * factor + offset).collect();
                assert_eq!(y, result, "{version} {mode:?}");
                assert_eq!((waits, graphs), if graph { (1, 1) } else { (2, 0) });
            }
        }
    }
}

/// Kernels that name the driver's function for conditions are loaded only where the driver has it.
#[test]
fn what_decides_in_a_graph_is_not_loaded_without_one() {
    let bytes = weights(false);
    for (version, loads) in [(13000, false), (12030, true)] {
        with(|fake| fake.version = version);
        let device = device();
        with(|fake| fake.kernels.truncate(2));
        let engine = Engine::load_on(&device, &BRANCHED_TABLES, Weights::borrowed(&bytes), LaunchMode::Graph);
        assert_eq!(engine.is_ok(), loads, "{version}");
    }
}

/// The condition stays what it is: the rounds are those of `most`, or none.
#[test]
fn rounds_are_counted_and_their_rows_collected() {
    static ROWS: &[Tensor<'static>] = &[
        TENSORS[0],
        TENSORS[1],
        TENSORS[2],
        TENSORS[3],
        TENSORS[4],
        TENSORS[5],
        tensor(&[Dim::Const(3), N], Place::Arena(3)),
        Tensor { dtype: DType::I64, dims: &[], place: Place::Arena(4), at: ZERO },
    ];
    const RANGES: &[table::Range] = &[table::Range { min: 0, opt: 8, max: 64 }];
    static TABLES: PlanTables<'static> = PlanTables {
        tensors: ROWS,
        outputs: &[Port { name: "y", tensor: 1 }, Port { name: "rows", tensor: 6 }],
        profiles: &[Profile { ranges: RANGES, arena_bytes: 1792, offsets: &[0, 256, 512, 768, 1536] }],
        ..tables(REPEATED)
    };
    for (version, mode, graph) in DECIDERS {
        with(|fake| fake.version = version);
        for (condition, rows) in [(true, [0.0, -2.0, 0.0, -2.0, 0.0, -2.0]), (false, [f32::NAN; 6])] {
            let mut rig = Rig::new(&TABLES, condition, mode);
            let (y, waits, graphs) = waits_and_graphs(|| rig.run(&ramp(2)).expect("runs"));
            assert_eq!(y, [0.0, 2.0]);
            let given: Vec<f32> =
                rig.exec.output(1).chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
            // What no round writes is as it was: the fake's memory is NaN.
            assert!(given.iter().zip(rows).all(|(a, b)| *a == b || a.is_nan() && b.is_nan()), "{given:?}");
            assert_eq!(graphs, u32::from(graph));
            // The host waits for the outputs, and for the condition of each of three rounds, or of none.
            let asked = if condition { 3 } else { 1 };
            assert_eq!(waits, if graph { 1 } else { 1 + asked }, "{version} {mode:?}");
        }
    }
}

#[test]
fn a_branch_that_does_not_take_the_shapes_harms_nothing() {
    const FIVE: Constraint<'static> = Constraint {
        segment: 2,
        counts: &[],
        kind: ConstraintKind::Equal,
        left: N,
        right: Dim::Const(5),
        why: "the branch",
    };
    static TABLES: PlanTables<'static> = PlanTables { constraints: &[FIVE], ..tables(BRANCHED) };
    let mut rig = Rig::new(&TABLES, true, LaunchMode::Graph);
    assert!(matches!(rig.run(&ramp(4)), Err(Error::Constraint { left: 4, right: 5, .. })));
    assert_eq!(rig.run(&ramp(5)).expect("runs"), expected(5));
    assert_eq!(with(|fake| fake.graph_launches), 1, "a graph where either branch takes the shapes, else the host");
    let mut other = Rig::new(&TABLES, false, LaunchMode::Graph);
    assert_eq!(other.run(&ramp(2)).expect("the other branch takes all"), [0.0, -2.0]);
}

#[test]
fn an_observer_sees_each_result() {
    let mut rig = Rig::new(&BRANCHED_TABLES, true, LaunchMode::Graph);
    let (x, change) = (ramp(2), rig.resolve(2));
    let mut seen = Vec::new();
    let inputs = [InputRef::new(&x, Extents::new(&[2]))];
    rig.exec
        .run_observed(&rig.shapes, change, &inputs, &mut |label, tensor, value| {
            seen.push((label.to_owned(), tensor, value.data::<f32>().expect("f32").to_vec()));
        })
        .expect("runs");
    assert_eq!(seen, [("double".to_owned(), 1, vec![0.0, 2.0]), ("shift".to_owned(), 2, vec![20.0, 22.0])]);
}

#[test]
fn a_profiled_run_times_each_launch() {
    let mut rig = Rig::new(&PLAIN_TABLES, true, LaunchMode::Graph);
    let (x, change) = (ramp(2), rig.resolve(2));
    let mut seen = Vec::new();
    let inputs = [InputRef::new(&x, Extents::new(&[2]))];
    let mut observe = |label: &str, ms| seen.push((label.to_owned(), ms));
    rig.exec.run_profiled(&rig.shapes, change, &inputs, &mut observe).expect("runs");
    assert_eq!(seen, [("double".to_owned(), 0.25), ("shift".to_owned(), 0.25)]);
    assert_eq!(rig.run(&ramp(3)).expect("runs"), expected(3));
}

#[test]
fn timing_is_measured_on_request() {
    let mut rig = Rig::new(&PLAIN_TABLES, true, LaunchMode::Graph);
    rig.run(&ramp(4)).expect("runs");
    assert_eq!(rig.exec.timing(), None);
    rig.exec.set_timing(TimingMode::On).expect("events");
    rig.run(&ramp(4)).expect("runs");
    let timing = rig.exec.timing().expect("measured");
    assert_eq!(timing.compute_ms, 0.25);
    assert!(timing.enqueue_ms >= 0.0);
    rig.exec.set_timing(TimingMode::Off).expect("nothing to do");
    assert_eq!(rig.exec.timing(), None);
}

#[test]
fn a_failure_of_the_device_poisons_the_session() {
    let mut rig = Rig::new(&PLAIN_TABLES, true, LaunchMode::Graph);
    with(|fake| fake.fail_wait = Some(fake::ILLEGAL_ADDRESS));
    let first = rig.run(&ramp(4)).expect_err("fails");
    assert_eq!(
        first.to_string(),
        "running the model: cuStreamSynchronize failed: the driver gives no text (CUDA_ERROR_FAKE, 700)"
    );
    with(|fake| fake.fail_wait = None);
    let Err(Error::Poisoned { cause }) = rig.run(&ramp(4)) else { panic!("not poisoned") };
    assert_eq!(cause, first.to_string());
}

#[test]
fn enqueue_hands_the_buffers_back() {
    let mut rig = Rig::new(&PLAIN_TABLES, true, LaunchMode::Graph);
    let device = rig.exec.engine.device().clone();
    let stream = Stream::new(&device).expect("a stream");
    let buffer = |bytes| DeviceBuffer::new(&device, bytes).expect("memory");
    let mut x = buffer(12);
    let data: Vec<u8> = ramp(3).iter().flat_map(|v| v.to_ne_bytes()).collect();
    x.upload(&stream, 0, &data).expect("copies");
    let change = rig.resolve(3);

    let short = Buffers { inputs: vec![buffer(8)], outputs: vec![buffer(12)] };
    let Err(Error::Bytes { expected: 12, given: 8, .. }) = rig.exec.enqueue(&rig.shapes, change, short) else {
        panic!("accepted a short buffer")
    };
    let before = with(|fake| fake.waits);
    let buffers = Buffers { inputs: vec![x], outputs: vec![buffer(16)] };
    let pending = rig.exec.enqueue(&rig.shapes, change, buffers).expect("enqueues");
    assert_eq!(with(|fake| fake.waits), before, "enqueueing does not wait");
    let buffers = pending.wait().expect("runs");
    let mut y = [0u8; 12];
    buffers.outputs[0].download(&stream, 0, &mut y).expect("copies");
    let expected: Vec<u8> = expected(3).iter().flat_map(|v| v.to_ne_bytes()).collect();
    assert_eq!(y[..], expected);

    let [input, output] = [&buffers.inputs[0], &buffers.outputs[0]].map(DeviceBuffer::address);
    // SAFETY: both buffers are long enough and live; the stream is the device's.
    let raw = unsafe { rig.exec.enqueue_raw(&rig.shapes, Change::None, &[input], &[output], stream.handle()) };
    raw.expect("enqueues");
    with(|fake| fake.fail_wait = Some(fake::ILLEGAL_ADDRESS));
    let pending = rig.exec.enqueue(&rig.shapes, Change::None, buffers).expect("enqueues");
    assert!(matches!(pending.wait(), Err(Error::Cuda { .. })));
    with(|fake| fake.fail_wait = None);
    assert!(matches!(rig.run(&ramp(3)), Err(Error::Poisoned { .. })));
}

#[test]
fn copies_outside_of_a_buffer_are_refused() {
    let device = device();
    let stream = Stream::new(&device).expect("a stream");
    let mut buffer = DeviceBuffer::new(&device, 8).expect("memory");
    let refused = DriverError::OutOfRange { offset: 6, bytes: 4, len: 8 };
    assert_eq!(buffer.upload(&stream, 6, &[0; 4]), Err(refused.clone()));
    assert_eq!(buffer.download(&stream, 6, &mut [0; 4]), Err(refused));
    assert!(DeviceBuffer::new(&device, 0).expect("nothing to allocate").is_empty());
    assert_eq!(PinnedBuffer::new(&device, 16).expect("memory").as_slice(), [0; 16]);
}

#[test]
fn memory_that_runs_out_says_how_much_was_asked_for() {
    let device = device();
    with(|fake| fake.capacity = 1000);
    let error = DeviceBuffer::new(&device, 1001).expect_err("too much");
    assert!(error.is_out_of_memory());
    assert!(error.to_string().ends_with("1001 bytes were asked for"), "{error}");
}

#[test]
fn no_image_for_the_device_is_told_by_name() {
    static TABLES: PlanTables<'static> = PlanTables {
        images: &[Images { arch: Arch { sm: 80, kind: ArchKind::Cubin }, code: &[b"scale", b"add"] }],
        ..tables(PLAIN)
    };
    let bytes = weights(false);
    let loaded = Engine::load_on(&device(), &TABLES, Weights::borrowed(&bytes), LaunchMode::Graph);
    let error = loaded.err().expect("no image");
    assert_eq!(error.to_string(), "no kernels for Fake GPU (sm_90) in this crate; it holds sm_80");
}

#[test]
fn a_kernel_that_needs_more_shared_memory_than_there_is_fits_no_device() {
    const LARGE: Launch<'static> =
        Launch { kernel: 0, grid: [BLOCKS, ONE, ONE], block: [4, 1, 1], shared: 1 << 20, params: TIMES_2 };
    const STEP: Step<'static> = Step { action: Action::Launch(LARGE), ..DOUBLE };
    static TABLES: PlanTables<'static> = tables(&[Segment { steps: &[] }, Segment { steps: &[STEP] }]);
    let bytes = weights(false);
    let loaded = Engine::load_on(&device(), &TABLES, Weights::borrowed(&bytes), LaunchMode::Graph);
    assert!(matches!(loaded.err(), Some(Error::NoImage { .. })));
}

#[test]
fn a_missing_kernel_is_told_by_name() {
    let device = device();
    with(|fake| fake.kernels.truncate(1));
    let bytes = weights(false);
    let loaded = Engine::load_on(&device, &PLAIN_TABLES, Weights::borrowed(&bytes), LaunchMode::Graph);
    let text = loaded.err().expect("no kernel").to_string();
    assert!(text.starts_with("loading kernel `add` for sm_90a: cuModuleGetFunction failed"), "{text}");
    assert!(text.ends_with(": kernel `add`"), "{text}");
}

#[test]
fn the_former_context_of_the_thread_comes_back_and_nothing_leaks() {
    with(|fake| fake.set_current(0xbeef));
    {
        let mut rig = Rig::new(&PLAIN_TABLES, true, LaunchMode::Graph);
        rig.run(&ramp(4)).expect("runs");
        rig.run(&ramp(100)).expect("runs");
    }
    with(|fake| {
        assert_eq!(fake.current(), 0xbeef);
        assert_eq!((fake.retained, fake.live, fake.live_bytes()), (0, 0, 0));
    });
}

#[test]
fn there_is_no_second_fake_device() {
    let error = Device::open_with(fake::driver(), 1).expect_err("one device");
    assert_eq!(error, DriverError::NoDevice { ordinal: 1, count: 1 });
}

/// Holds the promise of the types: an engine is shared, a session moves between threads.
#[test]
fn engines_are_shared_and_sessions_move() {
    fn shared<T: Send + Sync>() {}
    fn moves<T: Send>() {}
    shared::<Engine<'static>>();
    shared::<Device>();
    shared::<DeviceBuffer>();
    moves::<Exec<'static>>();
    moves::<Pending>();
}
