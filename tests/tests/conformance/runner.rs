//! The runners: the reference evaluator on the imported graph, and the targets behind the whole pipeline, in this process
//! and by the tables that an emitted crate holds.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use bumpalo::Bump;
use lapidary::diag::{Diagnostics, Place, quoted};
use lapidary::ir::Graph;
use lapidary::ir::eval::{self, Tensor};
use lapidary::kernels::{self, KernelSet, Toolchain};
use lapidary::lower::Target;
use lapidary::onnx::{self, Input, Numbers};
use lapidary::passes::Precision;
use lapidary::plan::tables;
use lapidary::profiles::Profiles;
use lapidary_runtime::table::{self, ArchKind, Images};
use lapidary_runtime::{Error, InputRef, Model, Options, Session, Weights};
use lapidary_templates::Arch;

use super::case::{Case, DataSet, profiles};
use super::compare::compare;
use super::ledger::Verdict;
use super::statistics::Statistic;

/// What runs a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RunnerKind {
    Reference,
    Cpu,
    Cuda,
}

impl RunnerKind {
    pub const ALL: [RunnerKind; 3] = [RunnerKind::Reference, RunnerKind::Cpu, RunnerKind::Cuda];

    pub fn name(self) -> &'static str {
        match self {
            RunnerKind::Reference => "reference",
            RunnerKind::Cpu => "cpu",
            RunnerKind::Cuda => "cuda",
        }
    }
}

impl fmt::Display for RunnerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A runner that works on this machine.
pub enum Runner {
    Reference,
    Cpu,
    Cuda(Gpu),
}

/// The GPU, its compiler, and the machine code of every kernel so far, by its source.
pub struct Gpu {
    arch: Arch,
    toolchain: Toolchain,
    code: Mutex<BTreeMap<String, Arc<[u8]>>>,
}

/// How a case that runs may not end.
enum Stop {
    Refused(Diagnostics),
    Wrong(String),
}

impl From<String> for Stop {
    fn from(why: String) -> Stop {
        Stop::Wrong(why)
    }
}

impl From<Diagnostics> for Stop {
    fn from(diagnostics: Diagnostics) -> Stop {
        Stop::Refused(diagnostics)
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Wrong(error.to_string())
    }
}

impl Runner {
    /// The runners of this machine. That there is no GPU is said, but for a list, whose reader wants names alone.
    ///
    /// # Panics
    /// With `LAPIDARY_GPU=require` where there is no GPU, and where there is one and no CUDA compiler.
    pub fn all(list: bool) -> Vec<Arc<Runner>> {
        let mut runners = vec![Arc::new(Runner::Reference), Arc::new(Runner::Cpu)];
        match lapidary_tests::gpu() {
            Ok(device) => {
                let arch = lapidary_tests::arch(&device);
                let toolchain = Toolchain::find(None).expect("a CUDA compiler: scripts/setup-cuda, or set CUDA_HOME");
                runners.push(Arc::new(Runner::Cuda(Gpu { arch, toolchain, code: Mutex::default() })));
            }
            Err(error) => {
                if !list {
                    eprintln!("SKIPPED conformance on cuda: {error}");
                }
            }
        }
        runners
    }

    pub fn kind(&self) -> RunnerKind {
        match self {
            Runner::Reference => RunnerKind::Reference,
            Runner::Cpu => RunnerKind::Cpu,
            Runner::Cuda(_) => RunnerKind::Cuda,
        }
    }

    /// How the case ends; an error if it ends wrong.
    pub fn run(&self, case: &Case) -> Result<Verdict, String> {
        match self.outcome(case) {
            Ok(verdict) => Ok(verdict),
            Err(Stop::Refused(diagnostics)) => Ok(Verdict::Unsupported(first_line(&diagnostics))),
            Err(Stop::Wrong(why)) => Err(why),
        }
    }

    fn outcome(&self, case: &Case) -> Result<Verdict, Stop> {
        let mut model = onnx::load(&case.dir.join("model.onnx"))?;
        // The importer has more to say than what is wrong with the inputs, or with data that are not made of tensors.
        let refused = |model: &onnx::Model, why: String| {
            onnx::import(model, &Profiles::new()).err().map_or(Stop::Wrong(why), Stop::from)
        };
        let sets = case.data_sets(&mut model);
        let Ok(inputs) = onnx::inputs(&model) else {
            return Err(refused(&model, "its inputs are refused and imported".to_owned()));
        };
        let sets = sets.map_err(|why| refused(&model, why))?;
        let (model, graph, sets) = self.imported(model, inputs, sets)?;
        if let Some(statistic) = Statistic::of(&case.name) {
            let (once, again) = (self.outputs(&graph, &sets)?, self.outputs(&graph, &sets)?);
            if once != again {
                return Err(Stop::Wrong("a second session gives something else".to_owned()));
            }
            for (set, outputs) in sets.iter().zip(&once) {
                types_agree(set, outputs)?;
                statistic.check(&set.inputs, outputs)?;
            }
            return Ok(Verdict::Random(statistic.name().to_owned()));
        }
        let tolerance = case.tolerance(&model)?;
        for (set, outputs) in sets.iter().zip(self.outputs(&graph, &sets)?) {
            let names: Vec<&String> = graph.outputs().iter().map(|(name, _)| name).collect();
            if !names.iter().copied().eq(&set.names) || outputs.len() != set.outputs.len() {
                return Err(Stop::Wrong(format!("the outputs {names:?} instead of {:?}", set.names)));
            }
            for (k, (given, expected)) in outputs.iter().zip(&set.outputs).enumerate() {
                compare(given, expected, tolerance).map_err(|why| format!("output {k}: {why}"))?;
            }
        }
        let fixed: Vec<&str> = model.fixed.iter().map(|fixed| fixed.name.as_str()).collect();
        Ok(if fixed.is_empty() { Verdict::Ok } else { Verdict::Fixed(fixed.join(", ")) })
    }

    /// The model with its data sets. Where it is refused because the compiler has to know the value of an input, and all
    /// data sets agree on one, that is what the model is compiled for.
    fn imported(
        &self,
        mut model: onnx::Model,
        mut inputs: Vec<Input>,
        mut sets: Vec<DataSet>,
    ) -> Result<(onnx::Model, Graph, Vec<DataSet>), Stop> {
        loop {
            let refused = match onnx::import(&model, &profiles(&inputs, &sets)) {
                Ok(graph) => return Ok((model, graph, sets)),
                Err(refused) => refused,
            };
            let asked = |input: &Input| {
                let option = format!("--value {}=", quoted(&input.name).trim_matches('"'));
                refused.iter().any(|diagnostic| diagnostic.help.contains(&option))
            };
            let agreed = |k: usize| sets.windows(2).all(|pair| pair[0].inputs[k] == pair[1].inputs[k]);
            let Some(k) = (0..inputs.len()).find(|&k| asked(&inputs[k]) && agreed(k)) else {
                return Err(refused.into());
            };
            let name = inputs.remove(k).name;
            model.fix_input(&name, &Numbers::from(&sets[0].inputs[k]))?;
            for set in &mut sets {
                set.inputs.remove(k);
            }
        }
    }

    /// The outputs for each data set.
    fn outputs(&self, graph: &Graph, sets: &[DataSet]) -> Result<Vec<Vec<Tensor>>, Stop> {
        match self {
            Runner::Reference => {
                // One run behind the other, as a session does them.
                let run = |(runs, set): (usize, &DataSet)| eval::run_after(graph, &set.inputs, runs as u64);
                sets.iter()
                    .enumerate()
                    .map(run)
                    .collect::<Result<_, _>>()
                    .map_err(|error| Stop::Wrong(error.to_string()))
            }
            Runner::Cpu => compiled(graph, sets, Target::Cpu, |_| Ok(Vec::new())),
            Runner::Cuda(gpu) => compiled(graph, sets, Target::Cuda(gpu.arch), |set| gpu.compile(set)),
        }
    }
}

fn compiled(
    graph: &Graph,
    sets: &[DataSet],
    target: Target,
    compile: impl Fn(&KernelSet) -> Result<Vec<Arc<[u8]>>, Stop>,
) -> Result<Vec<Vec<Tensor>>, Stop> {
    let (graph, _) = lapidary::optimize(graph.clone(), Precision::default());
    let compiled = lapidary::plan_for(&graph, target)?;
    let code = compile(&compiled.kernels)?;
    let code: Vec<&[u8]> = code.iter().map(|code| &**code).collect();
    let (target, images) = match target {
        Target::Cpu => (table::Target::Cpu, Vec::new()),
        Target::Cuda(arch) => {
            let kind = if arch.exact { ArchKind::CubinExact } else { ArchKind::Cubin };
            (table::Target::Cuda, vec![Images { arch: table::Arch { sm: arch.sm, kind }, code: &code }])
        }
    };
    let bump = Bump::new();
    let tables = tables(&compiled.plan, target, &compiled.kernels, &images, &bump);
    let weights = compiled.plan.weight_file();
    let model = Model::load(&tables, Weights::borrowed(&weights), Options::default())?;
    let mut session = model.session()?;
    sets.iter().map(|set| run_once(&mut session, graph.outputs().len(), &set.inputs)).collect()
}

fn run_once(session: &mut Session<'_>, outputs: usize, inputs: &[Tensor]) -> Result<Vec<Tensor>, Stop> {
    let given = |x: &Tensor| -> Result<_, Error> { Ok((x.dtype, x.dims.as_slice().try_into()?)) };
    let mut refs = Vec::new();
    for input in inputs {
        let (dtype, dims) = given(input)?;
        refs.push(InputRef::from_bytes(dtype, dims, &input.bytes));
    }
    session.run(&refs)?;
    let mut tensors = Vec::new();
    for k in 0..outputs {
        let output = session.output(k)?;
        tensors.push(Tensor::new(output.dtype(), output.dims().to_vec(), output.bytes().to_vec())?);
    }
    Ok(tensors)
}

impl Gpu {
    /// The machine code of a plan's kernels; each is compiled once a process.
    fn compile(&self, set: &KernelSet) -> Result<Vec<Arc<[u8]>>, Stop> {
        let mut missing = set.clone();
        {
            let known = self.code.lock().expect("no panic");
            missing.kernels.retain(|kernel| !known.contains_key(&kernel.text));
        }
        let made = kernels::compile(&missing, self.arch, &self.toolchain, &|_| {});
        let made = made.map_err(|errors| Stop::Wrong(errors.to_string()))?;
        let mut known = self.code.lock().expect("no panic");
        for (kernel, code) in missing.kernels.into_iter().zip(made) {
            known.insert(kernel.text, code.into());
        }
        Ok(set.kernels.iter().map(|kernel| known[&kernel.text].clone()).collect())
    }
}

/// The first diagnostic as the ledger has it: its code, the operator it is about, and what is wrong; where a target has no
/// kernel also why not, which otherwise is the same line for everything.
fn first_line(diagnostics: &Diagnostics) -> String {
    let Some(first) = diagnostics.iter().next() else { return "no diagnostic".to_owned() };
    let op = match &first.at {
        Place::Node { op, domain, .. } if domain.is_empty() => format!("{op}: "),
        Place::Node { op, domain, .. } => format!("{domain}::{op}: "),
        Place::Model | Place::File { .. } | Place::Tensor { .. } | Place::Value { .. } => String::new(),
    };
    let reason = match first.why.split_once("; ") {
        Some((_, reason)) if first.code == "E0501" => format!(": {reason}"),
        Some(_) | None => String::new(),
    };
    let more = match diagnostics.len() {
        0 | 1 => String::new(),
        count => format!(" (and {} more)", count - 1),
    };
    format!("{} {op}{}{reason}{more}", first.code, first.what).replace('\n', " ")
}

fn types_agree(set: &DataSet, outputs: &[Tensor]) -> Result<(), Stop> {
    let types = |tensors: &[Tensor]| tensors.iter().map(|x| (x.dtype, x.dims.clone())).collect::<Vec<_>>();
    let (given, expected) = (types(outputs), types(&set.outputs));
    if given == expected { Ok(()) } else { Err(Stop::Wrong(format!("{given:?} instead of {expected:?}"))) }
}
