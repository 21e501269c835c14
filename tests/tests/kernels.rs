//! Every candidate of every family on the GPU that is here, against the reference evaluator.
//!
//! Each problem is planned once for each of its candidates and run at several extents on one session. Without a GPU the
//! problems are planned and evaluated, and the test says that no kernel ran; with `LAPIDARY_GPU=require` it fails.
//! `LAPIDARY_PROBLEM=NAME` runs one.

use std::collections::{BTreeMap, BTreeSet};

use bumpalo::Bump;
use lapidary::ir::eval::{self, Tensor};
use lapidary::ir::{Graph, verify};
use lapidary::kernels::{self, KernelSet, Toolchain};
use lapidary::lower::{Program, Step, Target, lower};
use lapidary::plan::{self, CheckedPlan, tables};
use lapidary::select::select_by;
use lapidary_runtime::op::{Math, ResizeMode, ScalarOp};
use lapidary_runtime::table::{self, ArchKind, Images};
use lapidary_runtime::{DType, Error, InputRef, LaunchMode, Model, Options, Weights};
use lapidary_templates::{Arch, Kind, Problem, Source};
use lapidary_tests::problems::{self, Spread};

/// An arena larger than this is not asked for; the problem is planned with narrower ranges instead.
const MAX_ARENA: u64 = 8 << 30;

/// Multiplications that the evaluator is given at most; larger extents are left out.
const MAX_WORK: f64 = 4e9;

/// The values of the symbols, one set a run: odd ones, the smallest, and round ones.
fn values(set: usize) -> impl Fn(&str) -> i64 {
    move |symbol| match (set, symbol) {
        (0, "t") => 5,
        (0, "s") => 37,
        (0, "h") => 13,
        (0, "w") => 11,
        (0, "c") => 1,
        (0, _) => 2,
        (1, _) => 1,
        (_, "t") => 8,
        (_, "s") => 128,
        (_, "h" | "w") => 16,
        (_, _) => 1,
    }
}

/// A problem as it is tested: its graph, and what the evaluator says at each set of values.
struct Case {
    name: String,
    problem: Problem,
    program: Program,
    runs: Vec<(Vec<Tensor>, Vec<Tensor>)>,
}

fn case(name: &str, problem: Problem, arch: Arch) -> Result<Case, String> {
    let wide = planned(&problem, arch, Spread::Wide);
    let (graph, program) = match wide {
        Ok((graph, program)) if arena(&program) <= MAX_ARENA => (graph, program),
        // The narrow ranges say what is wrong if it is not the memory.
        Ok(_) | Err(_) => planned(&problem, arch, Spread::Narrow)?,
    };
    let mut runs = Vec::new();
    for set in 0..3 {
        let symbol = values(set);
        if work(&problem, &symbol) > MAX_WORK {
            continue;
        }
        let inputs = problems::inputs(&problem, &graph, &symbol, set as u64 + 1);
        let outputs = eval::run(&graph, &inputs).map_err(|error| format!("set {set}: {error}"))?;
        let spread = |(k, input)| problems::spread(&problem, k, input);
        runs.push((inputs.into_iter().enumerate().map(spread).collect(), outputs));
        if graph.symbols.is_empty() {
            break;
        }
    }
    if runs.is_empty() {
        return Err("too much work at every set of values".to_owned());
    }
    Ok(Case { name: name.to_owned(), problem, program, runs })
}

fn planned(problem: &Problem, arch: Arch, spread: Spread) -> Result<(Graph, Program), String> {
    let graph = problems::graph(problem, spread)?;
    verify::verify(&graph).map_err(|errors| errors.join("; "))?;
    let program = lower(&graph, Target::Cuda(arch)).map_err(|errors| errors.to_string())?;
    if let Kind::Pair(_) = problem.kind
        && program.segment(Program::MAIN).len() != 1
    {
        return Err("its two operations are not one kernel".to_owned());
    }
    Ok((graph, problems::seen_through(problem, program, arch)))
}

/// Bytes of the arena with the first candidate.
fn arena(program: &Program) -> u64 {
    let plan = plan::plan(select_by(program.clone(), &mut |_, _| 0));
    plan.arenas.iter().map(|arena| arena.bytes).max().unwrap_or(0)
}

/// The number of products that are summed into one result, which sets how exact a sum in f32 can be.
fn summed(problem: &Problem, symbol: &dyn Fn(&str) -> i64) -> f64 {
    let extents = |k: usize| -> Vec<f64> {
        let operand = problem.inputs.get(k).and_then(Option::as_ref);
        operand.map(|operand| operand.dims.iter().map(|dim| dim.eval(symbol) as f64).collect()).unwrap_or_default()
    };
    let count = |dims: &[f64]| dims.iter().product::<f64>();
    match &problem.kind {
        Kind::MatMul(spec, _) => {
            let a = extents(0);
            a[if spec.transpose_a { a.len() - 2 } else { a.len() - 1 }]
        }
        Kind::Conv(..) | Kind::ConvTranspose(_) => count(&extents(1)[1..]),
        // A score is a sum over the depth, a result one over the keys.
        Kind::Attention(..) => extents(1)[3] + extents(2)[2],
        // A step works on the last one's result, twice rounded.
        Kind::Recurrent(spec) => 4.0 * (f64::from(spec.hidden) + 40.0) * extents(0)[0],
        Kind::Reduce(_) | Kind::CumSum { .. } | Kind::Softmax(_) | Kind::Norm(..) | Kind::GroupNorm(..) => {
            count(&extents(0))
        }
        Kind::Pair(pair) => summed(&pair.first, symbol) + summed(&pair.second, symbol),
        Kind::Pointwise(_)
        | Kind::Pool(_)
        | Kind::ArgReduce(_)
        | Kind::Transpose(_)
        | Kind::Expand
        | Kind::Slice { .. }
        | Kind::Concat { .. }
        | Kind::Pad { .. }
        | Kind::Gather { .. }
        | Kind::GatherElements { .. }
        | Kind::GatherNd { .. }
        | Kind::Suppress
        | Kind::ScatterElements { .. }
        | Kind::ScatterNd { .. }
        | Kind::Resize(_)
        | Kind::RegionPool(_)
        | Kind::TopK { .. }
        | Kind::Range
        | Kind::Extents(_)
        | Kind::Copy => 1.0,
    }
}

fn work(problem: &Problem, symbol: &dyn Fn(&str) -> i64) -> f64 {
    let elements = |operand: &lapidary_templates::Operand| operand.count().eval(symbol) as f64;
    let largest = problem.outputs.iter().flatten().map(elements).fold(0.0, f64::max);
    match &problem.kind {
        Kind::MatMul(..) | Kind::Conv(..) | Kind::ConvTranspose(_) => largest * summed(problem, symbol),
        Kind::Attention(..) => {
            let keys = problem.inputs[1].as_ref().map_or(1, |keys| keys.dims[2].eval(symbol));
            2.0 * largest * keys as f64
        }
        _ => largest,
    }
}

/// The largest distance of a result, relative to its norm (testing of kernels: docs/facts.md says where these stand).
fn tolerance(problem: &Problem, result: DType, symbol: &dyn Fn(&str) -> i64) -> f64 {
    if converts(problem) {
        return 0.0;
    }
    let operands = problem.inputs.iter().chain(&problem.outputs).flatten();
    let narrowest = operands.map(|operand| operand.dtype).chain([result]).filter(|dtype| dtype.is_float());
    let math = match &problem.kind {
        Kind::MatMul(spec, _) => spec.math,
        Kind::Conv(spec, _) => spec.math,
        _ => Math::Exact,
    };
    let of = |dtype| match (dtype, math) {
        (DType::F64, _) => 1e-11,
        (DType::BF16, _) => 8e-3,
        (DType::F16, _) | (_, Math::Tf32) => 1e-3,
        (_, Math::Exact) => 1e-6 * (summed(problem, symbol) / 256.0).sqrt().max(1.0),
    };
    narrowest.map(of).fold(0.0, f64::max)
}

/// Whether results are exact: only conversions, or results of types in which no sum of roundings hides.
fn converts(problem: &Problem) -> bool {
    let Kind::Pointwise(program) = &problem.kind else { return false };
    let moves = |op| matches!(op, ScalarOp::Cast | ScalarOp::Identity | ScalarOp::Select);
    program.steps.iter().all(|step| moves(step.op)) || problem.outputs.iter().flatten().all(|y| y.dtype.is_storage())
}

/// What is wanted of integers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whole {
    Exact,
    OneOff,
}

impl Whole {
    fn of(problem: &Problem, result: DType) -> Whole {
        match &problem.kind {
            Kind::Resize(spec) if !result.is_float() && !matches!(spec.mode, ResizeMode::Nearest(_)) => Whole::OneOff,
            _ => Whole::Exact,
        }
    }
}

/// How far `given` is from `expected`: the distance relative to the norm, or why no distance tells it.
fn distance(given: &Tensor, expected: &Tensor, whole: Whole, tolerance: f64) -> Result<f64, String> {
    if given.dtype != expected.dtype || given.dims != expected.dims {
        return Err(format!("{}{:?} instead of {}{:?}", given.dtype, given.dims, expected.dtype, expected.dims));
    }
    let behind = |tensor: &Tensor| match tensor.count() * tensor.dtype.bits() % 8 {
        0 => 0,
        used => tensor.bytes[tensor.bytes.len() - 1] >> used,
    };
    if behind(given) != 0 {
        return Err("the bits behind the last element are not zero".to_owned());
    }
    let (given_values, expected_values) = (given.to_f64s(), expected.to_f64s());
    let (mut off, mut norm, mut largest, mut worst) = (0.0_f64, 0.0_f64, 0.0_f64, (0.0_f64, 0));
    for (k, (g, e)) in given_values.iter().zip(&expected_values).enumerate() {
        // Where nothing may be off, the sign of a zero may not be either.
        let same = g == e && (tolerance > 0.0 || g.is_sign_negative() == e.is_sign_negative());
        if same || g.is_nan() && e.is_nan() {
            norm += if e.is_finite() { e * e } else { 0.0 };
            largest = if e.is_finite() { largest.max(e.abs()) } else { largest };
            continue;
        }
        // A weighted mean that is stored whole may be cut on either side of a number.
        if whole == Whole::OneOff && (g - e).abs() <= 1.0 {
            continue;
        }
        if !given.dtype.is_float() || !g.is_finite() || !e.is_finite() || g == e {
            return Err(format!("element {k} is {g} instead of {e}"));
        }
        (off, norm, largest) = (off + (g - e) * (g - e), norm + e * e, largest.max(e.abs()));
        if (g - e).abs() > worst.0 {
            worst = ((g - e).abs(), k);
        }
    }
    // One element may be off by more than the whole, but not by much more than the largest is allowed to.
    if worst.0 > 16.0 * tolerance * largest {
        let k = worst.1;
        return Err(format!("element {k} is {} instead of {}", given_values[k], expected_values[k]));
    }
    let relative = (off / norm.max(f64::MIN_POSITIVE)).sqrt();
    if relative > tolerance { Err(format!("rel-L2 {relative:.1e}, more than {tolerance:.1e}")) } else { Ok(relative) }
}

/// The candidates of the problem's own step.
fn candidates(program: &Program) -> usize {
    program
        .segments
        .iter()
        .flatten()
        .map(|step| match step {
            Step::Work(work) => match &work.alternatives {
                lapidary::lower::Alternatives::Cuda { candidates, .. } => candidates.len(),
                lapidary::lower::Alternatives::Cpu => 0,
            },
            Step::If { .. } | Step::Loop(_) | Step::Count { .. } => 0,
        })
        .max()
        .unwrap_or(0)
}

/// A plan that uses candidate `number`, where there are as many, at each step.
fn plan_with(program: &Program, number: usize) -> Result<(CheckedPlan, KernelSet), String> {
    let chosen = select_by(program.clone(), &mut |_, candidates| number.min(candidates.len() - 1));
    let kernels = KernelSet::of(&chosen);
    let plan = plan::check(plan::plan(chosen)).map_err(|errors| errors.join("; "))?;
    Ok((plan, kernels))
}

#[test]
fn every_candidate_is_right() {
    let device = lapidary_tests::gpu();
    let arch = match &device {
        Ok(device) => lapidary_tests::arch(device),
        Err(error) => {
            eprintln!("SKIPPED running the kernels: {error}");
            "sm_90a".parse().expect("a known architecture")
        }
    };
    let only = std::env::var("LAPIDARY_PROBLEM").ok();
    let chosen = problems::all().into_iter().filter(|(name, _)| only.as_ref().is_none_or(|only| only == name));
    let mut failures = Vec::new();
    let mut cases = Vec::new();
    for (name, problem) in chosen {
        let types: Vec<String> = problem.inputs.iter().flatten().map(|operand| operand.dtype.to_string()).collect();
        let name = format!("{name} {}", types.join(" "));
        match case(&name, problem, arch) {
            Ok(case) => cases.push(case),
            Err(error) => failures.push(format!("{name}: {error}")),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    println!(
        "{} problems, {} candidates",
        cases.len(),
        cases.iter().map(|case| candidates(&case.program)).sum::<usize>()
    );
    if device.is_ok() {
        run(&cases, arch);
    }
}

fn run(cases: &[Case], arch: Arch) {
    let toolchain = Toolchain::find(None).expect("NVRTC or nvcc, by CUDA_HOME");
    let code = compiled(cases, arch, &toolchain);
    let (mut right, mut wrong) = (0, Vec::new());
    let mut worst: BTreeMap<String, f64> = BTreeMap::new();
    for case in cases {
        for number in 0..candidates(&case.program) {
            let key = key(&case.program, number);
            match one(case, number, arch, &code) {
                Ok(distance) => {
                    right += 1;
                    let family = key.split('/').next().unwrap_or("").to_owned();
                    let worst = worst.entry(family).or_default();
                    *worst = worst.max(distance);
                }
                Err(error) => wrong.push(format!("{} by {key}: {error}", case.name)),
            }
        }
    }
    for (family, distance) in worst {
        println!("{family:<24} worst rel-L2 {distance:.1e}");
    }
    println!("{right} candidates right, {} wrong", wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn key(program: &Program, number: usize) -> String {
    let mut key = String::new();
    select_by(program.clone(), &mut |_, candidates| {
        let number = number.min(candidates.len() - 1);
        key.clone_from(&candidates[number].key);
        number
    });
    key
}

/// The machine code of every kernel of every candidate, by the kernel's name.
fn compiled(cases: &[Case], arch: Arch, toolchain: &Toolchain) -> BTreeMap<String, Vec<u8>> {
    let mut sources: BTreeSet<&Source> = BTreeSet::new();
    for step in cases.iter().flat_map(|case| case.program.segments.iter().flatten()) {
        if let Step::Work(work) = step
            && let lapidary::lower::Alternatives::Cuda { candidates, .. } = &work.alternatives
        {
            sources.extend(candidates.iter().flat_map(|candidate| &candidate.launches).map(|launch| &launch.source));
        }
    }
    let set = KernelSet::named(sources);
    let cubins = kernels::compile(&set, arch, toolchain, &|_| {}).expect("the compiler works");
    println!("{} kernels compiled for {arch} by {toolchain}", set.kernels.len());
    set.kernels.into_iter().map(|kernel| kernel.entry).zip(cubins).collect()
}

/// How often a run is repeated.
const REPLAYS: usize = 3;

/// The bytes of all outputs.
fn results(session: &lapidary_runtime::Session<'_>, count: usize) -> Result<Vec<Vec<u8>>, Error> {
    (0..count).map(|k| Ok(session.output(k)?.bytes().to_vec())).collect()
}

/// Runs one candidate at every set of values; the largest distance from the reference.
fn one(case: &Case, number: usize, arch: Arch, code: &BTreeMap<String, Vec<u8>>) -> Result<f64, String> {
    let (plan, set) = plan_with(&case.program, number)?;
    let code: Vec<&[u8]> = set.kernels.iter().map(|kernel| code[&kernel.entry].as_slice()).collect();
    let kind = if arch.exact { ArchKind::CubinExact } else { ArchKind::Cubin };
    let images = [Images { arch: table::Arch { sm: arch.sm, kind }, code: &code }];
    let bump = Bump::new();
    let tables = tables(&plan, table::Target::Cuda, &set, &images, &bump);
    let weights = plan.weight_file();
    let said = |error: Error| error.to_string();
    let options = Options { launch: LaunchMode::Graph, ..Options::default() };
    let model = Model::load(&tables, Weights::borrowed(&weights), options).map_err(said)?;
    let mut session = model.session().map_err(said)?;
    let mut worst = 0.0_f64;
    for (set, (inputs, expected)) in case.runs.iter().enumerate() {
        let refs = inputs
            .iter()
            .map(|x| Ok(InputRef::from_bytes(x.dtype, x.dims.as_slice().try_into()?, &x.bytes)))
            .collect::<Result<Vec<_>, Error>>();
        let refs = refs.map_err(said)?;
        session.run(&refs).map_err(said)?;
        let first = results(&session, expected.len()).map_err(said)?;
        // The same graph again: what the blocks of a launch meet at must be as it was, and the bits with it.
        for _ in 0..REPLAYS {
            session.run(&refs).map_err(said)?;
            if results(&session, expected.len()).map_err(said)? != first {
                return Err(format!("set {set}: another run gives other bits"));
            }
        }
        for (k, expected) in expected.iter().enumerate() {
            let output = session.output(k).map_err(said)?;
            let given = Tensor::new(output.dtype(), output.dims().to_vec(), output.bytes().to_vec())?;
            let given = problems::gathered(&case.problem, k, given);
            let tolerance = tolerance(&case.problem, expected.dtype, &values(set));
            let distance = distance(&given, expected, Whole::of(&case.problem, expected.dtype), tolerance);
            worst = worst.max(distance.map_err(|error| format!("set {set}, output {k}: {error}"))?);
        }
    }
    Ok(worst)
}
