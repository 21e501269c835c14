//! The runtime's `cuda` half on a real driver: the binding, the executor, and what a device failure does.
//!
//! Needs a GPU (compute capability 8.0 or newer) and nothing else: the kernels are PTX, which the driver compiles.
//! Without one the test says that it was skipped and why; with `LAPIDARY_GPU=require` it fails instead.
//! One test, since its last part leaves the process's context unusable.

use std::sync::Arc;

use lapidary_runtime::cuda::{Buffers, Device, DeviceBuffer, DriverError, Event, EventUse, Image, Module, Stream};
use lapidary_runtime::table::{
    Action, Arch, ArchKind, Dim, Formula, FormulaOp, Images, Kernel, Launch, NONE, Param, Place, PlanTables, Port,
    Profile, Range, Segment, Source, Step, Symbol, Target, Tensor,
};
use lapidary_runtime::{DType, Error, Extents, InputRef, LaunchMode, Model, Options, Session, TimingMode, Weights};

const SCALE: &[u8] = include_bytes!("cuda_runtime/scale.ptx");
const ADD: &[u8] = include_bytes!("cuda_runtime/add.ptx");
const DECIDE: &[u8] = include_bytes!("cuda_runtime/decide.ptx");
const FAULT: &[u8] = include_bytes!("cuda_runtime/fault.ptx");

const N: Dim = Dim::Slot(0);
const BLOCKS: Dim = Dim::Slot(1);
const ZERO: Dim = Dim::Const(0);
const ONE: Dim = Dim::Const(1);
const THREADS: i64 = 128;

const fn launch(kernel: u32, grid: Dim, params: &'static [Param]) -> Action<'static> {
    let block = [THREADS as u32, 1, 1];
    Action::Launch(Launch { kernel, grid: [grid, ONE, ONE], block, shared: 0, params })
}

/// Tensor 1 = x * 2.
const DOUBLE: Step<'static> = Step {
    action: launch(0, BLOCKS, &[Param::Input(0, ZERO), Param::Output(0, ZERO), Param::I32(N), Param::F32(2.0)]),
    inputs: &[0],
    outputs: &[1],
    label: "double",
};
/// y = tensor 1 + derived[1]
const SHIFT: Step<'static> = Step {
    action: launch(
        1,
        BLOCKS,
        &[Param::Input(0, ZERO), Param::Input(1, Dim::Const(4)), Param::Output(0, ZERO), Param::I64(N)],
    ),
    inputs: &[1, 4],
    outputs: &[2],
    label: "shift",
};
/// y = -tensor 1
const NEGATE: Step<'static> = Step {
    action: launch(0, BLOCKS, &[Param::Input(0, ZERO), Param::Output(0, ZERO), Param::I32(N), Param::F32(-1.0)]),
    inputs: &[1],
    outputs: &[2],
    label: "negate",
};
/// derived = weights * 3
const PACK: Step<'static> = Step {
    action: launch(
        0,
        ONE,
        &[Param::Input(0, ZERO), Param::Output(0, ZERO), Param::I32(Dim::Const(2)), Param::F32(3.0)],
    ),
    inputs: &[3],
    outputs: &[4],
    label: "pack",
};
const NAME_BRANCH: Launch<'static> = Launch {
    kernel: 3,
    grid: [ONE, ONE, ONE],
    block: [1, 1, 1],
    shared: 0,
    params: &[Param::Input(0, ZERO), Param::Handle(0), Param::Handle(1)],
};
const BRANCH: Step<'static> = Step {
    action: Action::If { then_segment: 2, else_segment: 3, decide: &[NAME_BRANCH] },
    inputs: &[5],
    outputs: &[2],
    label: "branch",
};
const CRASH: Step<'static> =
    Step { action: launch(2, ONE, &[Param::Output(0, ZERO)]), inputs: &[], outputs: &[2], label: "crash" };

const fn tensor(dims: &'static [Dim], place: Place) -> Tensor<'static> {
    Tensor { dtype: DType::F32, dims, place, at: ZERO }
}

const TENSORS: &[Tensor<'static>] = &[
    tensor(&[N], Place::Arena(0)),
    tensor(&[N], Place::Arena(1)),
    tensor(&[N], Place::Arena(2)),
    tensor(&[Dim::Const(2)], Place::Weight(0)),
    tensor(&[Dim::Const(2)], Place::Derived(0)),
    Tensor { dtype: DType::Bool, dims: &[], place: Place::Weight(256), at: ZERO },
];

const fn tables(segments: &'static [Segment<'static>]) -> PlanTables<'static> {
    PlanTables {
        name: "test",
        target: Target::Cuda,
        symbols: &[Symbol { name: "n", source: Source::Extent { input: 0, axis: 0 } }],
        profiles: &[
            Profile { ranges: &[Range { min: 0, opt: 8, max: 1024 }], arena_bytes: 12288, offsets: &[0, 4096, 8192] },
            Profile {
                ranges: &[Range { min: 1025, opt: 100_000, max: 1_000_000 }],
                arena_bytes: 12_000_768,
                offsets: &[8_000_512, 4_000_256, 0],
            },
        ],
        slots: &[
            Formula { code: &[FormulaOp::Symbol(0)], text: "n" },
            Formula {
                code: &[
                    FormulaOp::Symbol(0),
                    FormulaOp::Const(THREADS - 1),
                    FormulaOp::Add,
                    FormulaOp::Const(THREADS),
                    FormulaOp::FloorDiv,
                ],
                text: "ceil(n / 128)",
            },
        ],
        constraints: &[],
        inputs: &[Port { name: "x", tensor: 0 }],
        outputs: &[Port { name: "y", tensor: 2 }],
        run_count: NONE,
        tensors: TENSORS,
        weight_bytes: 257,
        derived_bytes: 8,
        counter_bytes: 0,
        segments,
        kernels: &[
            Kernel { entry: "scale" },
            Kernel { entry: "add" },
            Kernel { entry: "fault" },
            Kernel { entry: "decide" },
        ],
        images: &[Images { arch: Arch { sm: 80, kind: ArchKind::Ptx }, code: &[SCALE, ADD, FAULT, DECIDE] }],
    }
}

static PLAIN: PlanTables<'static> = tables(&[Segment { steps: &[PACK] }, Segment { steps: &[DOUBLE, SHIFT] }]);
static BRANCHED: PlanTables<'static> = tables(&[
    Segment { steps: &[PACK] },
    Segment { steps: &[DOUBLE, BRANCH] },
    Segment { steps: &[SHIFT] },
    Segment { steps: &[NEGATE] },
]);
static CRASHING: PlanTables<'static> = tables(&[Segment { steps: &[] }, Segment { steps: &[DOUBLE, CRASH] }]);

/// Weights: 10, 20, and the condition of the branch.
fn weights(condition: u8) -> Vec<u8> {
    let mut bytes = vec![0; 257];
    bytes[..4].copy_from_slice(&10f32.to_ne_bytes());
    bytes[4..8].copy_from_slice(&20f32.to_ne_bytes());
    bytes[256] = condition;
    bytes
}

fn ramp(n: usize) -> Vec<f32> {
    (0..n).map(|i| i as f32).collect()
}

fn shifted(n: usize) -> Vec<f32> {
    ramp(n).iter().map(|x| x * 2.0 + 60.0).collect()
}

fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_ne_bytes()).collect()
}

fn run(session: &mut Session<'_>, x: &[f32]) -> Result<Vec<f32>, Error> {
    session.run(&[InputRef::new(x, Extents::new(&[x.len()]))])?;
    Ok(session.output(0)?.data::<f32>()?.to_vec())
}

#[test]
fn the_runtime_on_a_gpu() {
    let device = match lapidary_tests::gpu() {
        Ok(device) => device,
        Err(error) => {
            eprintln!("SKIPPED the_runtime_on_a_gpu: {error}");
            return;
        }
    };
    println!("{device:?}");
    memory_streams_and_events(&device).expect("driver");
    kernels_and_their_errors(&device).expect("driver");
    every_shape_in_both_modes().expect("runs");
    branches().expect("runs");
    observing_and_timing().expect("runs");
    device_buffers(&device).expect("runs");
    the_best_of_several_plans().expect("runs");
    several_threads().expect("runs");
    // Last: the context is lost afterwards.
    a_failure_poisons();
}

fn memory_streams_and_events(device: &Arc<Device>) -> Result<(), DriverError> {
    let facts = device.facts();
    assert!(facts.compute_capability.0 >= 8 && facts.sm_count > 0 && facts.memory_bytes > 1 << 30, "{facts:?}");
    assert!(facts.shared_bytes_per_block >= 99 * 1024 && facts.l2_bytes > 0 && !facts.name.is_empty(), "{facts:?}");
    let (free, total) = device.memory()?;
    assert!(free <= total);
    let stream = Stream::new(device)?;
    let [start, end] = [Event::new(device, EventUse::Time)?, Event::new(device, EventUse::Time)?];
    let mut buffer = DeviceBuffer::new(device, 1 << 20)?;
    start.record(&stream)?;
    // SAFETY: the whole buffer, which outlives the waits below.
    unsafe { stream.fill(buffer.address(), 0xa5, buffer.len())? };
    end.record(&stream)?;
    buffer.upload(&stream, 1000, &[1, 2, 3])?;
    assert!(end.milliseconds_since(&start)? > 0.0);
    let mut back = [0; 6];
    buffer.download(&stream, 999, &mut back)?;
    assert_eq!(back, [0xa5, 1, 2, 3, 0xa5, 0xa5]);
    let other = Stream::new(device)?;
    other.wait(&end)?;
    other.synchronize()?;
    let error = DeviceBuffer::new(device, 1 << 50).expect_err("a petabyte");
    assert!(error.is_out_of_memory(), "{error}");
    device.synchronize()
}

fn kernels_and_their_errors(device: &Arc<Device>) -> Result<(), DriverError> {
    // SAFETY: PTX, which the driver parses as text.
    let load = |text| unsafe { Module::load(device, Image::Ptx(text)) };
    let function = load(SCALE)?.function("scale")?;
    let facts = function.facts()?;
    assert!(facts.registers_per_thread > 0 && facts.local_bytes == 0 && facts.max_threads_per_block >= 128);
    assert!(function.blocks_per_sm(128, 0)? > 0);
    function.allow_shared_bytes(64 * 1024)?;
    let missing = load(SCALE)?.function("absent").expect_err("absent");
    assert!(missing.to_string().contains("CUDA_ERROR_NOT_FOUND"), "{missing}");
    let wrong = load(b".version 7.0\n.target sm_80\nnonsense\n").expect_err("nonsense");
    let DriverError::Call { detail, .. } = &wrong else { panic!("{wrong}") };
    assert!(detail.contains("line 3"), "{wrong}");
    Ok(())
}

fn every_shape_in_both_modes() -> Result<(), Error> {
    for launch in [LaunchMode::Graph, LaunchMode::Stream] {
        let bytes = weights(0);
        let model = Model::load(&PLAIN, Weights::borrowed(&bytes), Options { launch, ..Options::default() })?;
        let (mut a, mut b) = (model.session()?, model.session()?);
        for n in [8, 8, 1024, 0, 3, 1_000_000, 5, 1025, 0, 0, 200_000, 1] {
            assert_eq!(run(&mut a, &ramp(n))?, shifted(n), "{launch:?}, n = {n}");
        }
        assert_eq!(run(&mut b, &ramp(77))?, shifted(77));
        assert!(matches!(run(&mut a, &ramp(1_000_001)), Err(Error::OutsideProfiles { .. })));
        assert_eq!(run(&mut a, &ramp(9))?, shifted(9));
    }
    Ok(())
}

fn branches() -> Result<(), Error> {
    for (condition, launch) in
        [(0, LaunchMode::Graph), (1, LaunchMode::Graph), (0, LaunchMode::Stream), (1, LaunchMode::Stream)]
    {
        let bytes = weights(condition);
        let model = Model::load(&BRANCHED, Weights::borrowed(&bytes), Options { launch, ..Options::default() })?;
        let mut session = model.session()?;
        for n in [50, 50, 0, 7, 5000] {
            let expected = if condition == 1 { shifted(n) } else { ramp(n).iter().map(|x| -2.0 * x).collect() };
            assert_eq!(run(&mut session, &ramp(n))?, expected, "{launch:?}, n = {n}");
        }
    }
    Ok(())
}

fn observing_and_timing() -> Result<(), Error> {
    let bytes = weights(0);
    let model = Model::load(&PLAIN, Weights::borrowed(&bytes), Options::default())?;
    let mut session = model.session()?;
    let x = ramp(3);
    let mut seen = Vec::new();
    session.run_observed(&[InputRef::new(&x, Extents::new(&[3]))], &mut |label, _, value| {
        seen.push((label.to_owned(), value.bytes().to_vec()));
    })?;
    let expected = [("double".to_owned(), bytes_of(&[0.0, 2.0, 4.0])), ("shift".to_owned(), bytes_of(&shifted(3)))];
    assert_eq!(seen, expected);
    session.set_timing(TimingMode::On)?;
    let mut best = f64::INFINITY;
    for _ in 0..20 {
        run(&mut session, &ramp(1000))?;
        let timing = session.timing().expect("timing is on");
        assert!(timing.enqueue_ms > 0.0 && timing.compute_ms > 0.0, "{timing:?}");
        best = best.min(timing.compute_ms);
    }
    println!("two dependent kernels in a graph: {best} ms");
    assert!(best < 10.0);
    Ok(())
}

/// The forms that take device memory.
fn device_buffers(device: &Arc<Device>) -> Result<(), Error> {
    let failed = |source| Error::Cuda { during: "the test".to_owned(), source };
    let bytes = weights(0);
    let model = Model::load(&PLAIN, Weights::borrowed(&bytes), Options::default())?;
    assert_eq!(model.device().map(|device| device.facts()), Some(device.facts()));
    let mut session = model.session()?;
    let n = 100_000;
    let extents = [Extents::new(&[n])];
    let stream = Stream::new(device).map_err(failed)?;
    let mut input = DeviceBuffer::new(device, 4 * n).map_err(failed)?;
    input.upload(&stream, 0, &bytes_of(&ramp(n))).map_err(failed)?;
    let buffers = Buffers { inputs: vec![input], outputs: vec![DeviceBuffer::new(device, 4 * n).map_err(failed)?] };
    let buffers = session.enqueue(&extents, buffers)?.wait()?;
    let mut back = vec![0; 4 * n];
    buffers.outputs[0].download(&stream, 0, &mut back).map_err(failed)?;
    assert_eq!(back, bytes_of(&shifted(n)));

    // SAFETY: the output is as long, and the stream is waited for by the download.
    unsafe { stream.fill(buffers.outputs[0].address(), 0xff, 4 * n) }.map_err(failed)?;
    let [from, to] = [buffers.inputs[0].address(), buffers.outputs[0].address()];
    // SAFETY: both buffers are long enough and outlive the download, which follows in the same stream.
    unsafe { session.enqueue_raw(&extents, &[from], &[to], stream.handle())? };
    buffers.outputs[0].download(&stream, 0, &mut back).map_err(failed)?;
    assert_eq!(back, bytes_of(&shifted(n)));

    let few = Buffers { inputs: buffers.inputs, outputs: Vec::new() };
    assert!(matches!(session.enqueue(&extents, few), Err(Error::OutputCount { expected: 1, given: 0 })));
    assert!(matches!(session.enqueue(&[], Buffers::default()), Err(Error::InputCount { expected: 1, given: 0 })));

    let x = ramp(n);
    let mut steps = Vec::new();
    let inputs = [InputRef::new(&x, extents[0])];
    session.run_profiled(&inputs, &mut |label, ms| steps.push((label.to_owned(), ms)))?;
    println!("{steps:?}");
    assert!(steps.len() == 2 && steps.iter().all(|(_, ms)| *ms > 0.0));
    assert_eq!(session.output(0)?.data::<f32>()?, shifted(n));
    Ok(())
}

/// Of several plans the one for this device.
fn the_best_of_several_plans() -> Result<(), Error> {
    static OTHER: PlanTables<'static> = PlanTables {
        name: "other",
        images: &[Images { arch: Arch { sm: 121, kind: ArchKind::Cubin }, code: &[SCALE, ADD, FAULT, DECIDE] }],
        ..tables(&[Segment { steps: &[PACK] }, Segment { steps: &[DOUBLE, SHIFT] }])
    };
    let bytes = weights(0);
    let model = Model::load_best(&[&OTHER, &PLAIN], Weights::borrowed(&bytes), Options::default())?;
    assert_eq!(model.tables().name, PLAIN.name);
    assert_eq!(run(&mut model.session()?, &ramp(9))?, shifted(9));
    let none = Model::load_best(&[&OTHER], Weights::borrowed(&bytes), Options::default());
    assert!(matches!(none.err(), Some(Error::NoImage { .. })));
    Ok(())
}

/// One model, a session a thread, and shapes that change on each.
fn several_threads() -> Result<(), Error> {
    let bytes = weights(0);
    let model = Model::load(&PLAIN, Weights::borrowed(&bytes), Options::default())?;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|k| {
                let model = &model;
                scope.spawn(move || {
                    let mut session = model.session()?;
                    for n in (0..100).map(|i| (i * 37 + k * 501) % 3000) {
                        assert_eq!(run(&mut session, &ramp(n))?, shifted(n));
                    }
                    Ok(())
                })
            })
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("no panic"))
    })
}

fn a_failure_poisons() {
    let bytes = weights(0);
    let model = Model::load(&CRASHING, Weights::borrowed(&bytes), Options::default()).expect("loads");
    let mut session = model.session().expect("memory");
    let Err(Error::Cuda { source, .. }) = run(&mut session, &ramp(4)) else { panic!("a store to address 64 worked") };
    assert!(source.to_string().contains("CUDA_ERROR_ILLEGAL_ADDRESS"), "{source}");
    assert!(matches!(run(&mut session, &ramp(4)), Err(Error::Poisoned { .. })));
    println!("as expected: {source}");
}
