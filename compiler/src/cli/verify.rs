//! `lapidary verify`: a model against expected outputs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use lapidary::diag::quoted;
use lapidary::ir::eval::{self, Tensor};
use lapidary::ir::{Def, Graph, Op, ValueId};
use lapidary::passes::Precision;
use lapidary::profiles::Profiles;
use lapidary::{Options, onnx};
use lapidary_runtime::op::{Arg, ScalarOp};
use lapidary_runtime::{DType, LaunchMode};

use super::case::{Bar, Case, CaseDir, Expected};
use super::compare::Distance;
use super::engine::{self, Place};
use super::spread::{MOST_JITTERS, Spread, rounds};
use super::{Failure, ShapeArgs, npy, output, progress, run};

/// The command's arguments.
#[derive(Args)]
pub struct Verify {
    /// A folder with model.onnx and either manifest.json and golden.npz, or test_data_set_N/.
    case_dir: PathBuf,
    /// Where to run.
    #[arg(long, value_enum, default_value = "cpu")]
    target: Place,
    #[command(flatten)]
    shape: ShapeArgs,
    /// Name the first tensor that differs from the reference evaluator's.
    #[arg(long)]
    bisect: bool,
    /// Launch kernel by kernel instead of as one CUDA graph.
    #[arg(long)]
    no_graph: bool,
    /// Write what this run took and gave: case_K/input_N.npy and output_N.npy, and the profiles as `--dim` arguments
    /// to dims.txt.
    #[arg(long, value_name = "DIR")]
    save: Option<PathBuf>,
}

/// The bar of a model that computes in 16-bit floats.
const NARROW: Bar = Bar::Relative { l2: 1e-2, cosine: 0.9995 };

impl Verify {
    /// Compares every case; fails if one is off.
    pub fn run(self) -> Result<(), Failure> {
        let mut model = onnx::load(&self.case_dir.join("model.onnx"))?;
        let mut dir = CaseDir::read(&self.case_dir, &mut model, &self.shape)?;
        let inputs = onnx::inputs(&model)?;
        model.formats.clone_from(&self.shape.formats);
        dir.take_formats(&inputs, &model.formats);
        self.shape.fix(&mut model)?;
        dir.take_fixed(&inputs, &model.fixed)?;
        let mut profiles = self.shape.profiles();
        if profiles.names().next().is_none() {
            profiles = dir.profiles(&model)?;
        }
        let graph = onnx::import(&model, &profiles)?;
        let saved = self.save.as_deref().map(|folder| Saved::new(folder, &profiles)).transpose()?;
        let options = Options { profiles, ..engine::options(&self.shape) };
        let checks = if self.target == Place::Reference {
            self.reference(&graph, &dir.cases, saved.as_ref())?
        } else {
            self.compiled(&model, &graph, &dir.cases, options, saved.as_ref())?
        };
        self.judge(&dir.cases, &graph, &checks)
    }

    /// Prints the comparisons, and what was not compared. A case in which nothing was has shown nothing, and fails.
    fn judge(&self, cases: &[Case], graph: &Graph, checks: &[Check]) -> Result<(), Failure> {
        for check in checks {
            output::line(format_args!("{:4} {}", if check.passed { "ok" } else { "FAIL" }, check.text))?;
        }
        let mut unexpected = 0;
        for case in cases {
            for (name, _) in graph.outputs() {
                if !case.outputs.iter().any(|expected| expected.name == *name) {
                    unexpected += 1;
                    output::line(format_args!("-    {}: nothing is expected of {}", case.name, quoted(name)))?;
                }
            }
        }
        let at = format!("file {}", quoted(&self.case_dir.display().to_string()));
        for case in cases {
            let is_output = |name: &str| graph.outputs().iter().any(|(output, _)| output == name);
            if let Some(extra) = case.outputs.iter().find(|expected| !is_output(&expected.name)) {
                let what = format!("{}: the model gives no {}, which is expected", case.name, quoted(&extra.name));
                let has: Vec<String> = graph.outputs().iter().map(|(name, _)| quoted(name).to_string()).collect();
                return Err(Failure::result(what, at, format!("its outputs are: {}", has.join(", "))));
            }
        }
        let failed = checks.iter().filter(|check| !check.passed).count();
        if failed > 0 {
            let what = format!("{failed} of {} comparisons failed on {}", checks.len(), self.target);
            return Err(Failure::result(what, at, "--bisect names the first tensor that differs from the reference"));
        }
        if let Some(empty) = cases.iter().find(|case| case.outputs.is_empty()) {
            let what = format!("{}: nothing was compared", empty.name);
            return Err(Failure::result(what, at, "give the case an expected output"));
        }
        let without =
            if unexpected == 0 { String::new() } else { format!(", {unexpected} outputs without expectation") };
        output::line(format_args!("{} comparisons ok on {}{without}", checks.len(), self.target))
    }

    fn bar(&self, graph: &Graph, stated: Bar) -> Bar {
        let narrow_model = graph.outputs().iter().any(|(_, value)| {
            let dtype = graph.ty(*value).dtype;
            dtype.is_float() && dtype.bits() == 16
        });
        let narrow =
            narrow_model || matches!(self.shape.precision, Precision::Fp16 | Precision::Bf16 | Precision::Tf32);
        if narrow && !matches!(stated, Bar::Relative { .. }) { NARROW } else { stated }
    }

    /// Compares the outputs of a case with what it expects.
    fn against<'o>(
        &self,
        graph: &Graph,
        case: &Case,
        outputs: impl Iterator<Item = (&'o str, &'o Tensor)> + Clone,
    ) -> Result<BTreeMap<String, Check>, Failure> {
        let compare = |measured: Option<&Spread>| -> BTreeMap<String, Check> {
            let compare = |(name, given): (&str, &Tensor)| {
                let Expected { tensor, bar, .. } = case.outputs.iter().find(|expected| expected.name == name)?;
                let bar = self.bar(graph, *bar);
                let bar = measured.map_or(bar, |measured| measured.bar(name, tensor, bar));
                Some((name.to_owned(), Check::new(format!("{}: {name}", case.name), given, tensor, bar)))
            };
            outputs.clone().filter_map(compare).collect()
        };
        let mut checks = compare(None);
        if checks.values().all(|check| check.passed) || !rounds(graph) {
            return Ok(checks);
        }
        // One rounding that goes the other way moves everything behind it by a step. How far is the model's own affair,
        // and of this case: it is measured before the result is called wrong.
        let mut spread = Spread::start(graph, &case.inputs)?;
        for seed in 0..MOST_JITTERS {
            let spinner = progress::spinner(format!("measuring how far rounding moves {}", case.name));
            spread.widen(graph, &case.inputs, seed)?;
            spinner.finish_and_clear();
            checks = compare(Some(&spread));
            if checks.values().all(|check| check.passed) {
                break;
            }
        }
        Ok(checks)
    }

    fn reference(&self, graph: &Graph, cases: &[Case], saved: Option<&Saved>) -> Result<Vec<Check>, Failure> {
        let mut checks = Vec::new();
        for (number, case) in cases.iter().enumerate() {
            let spinner = progress::spinner(format!("evaluating {}", case.name));
            let values = eval::run(graph, &case.inputs)?;
            spinner.finish_and_clear();
            let names = graph.outputs().iter().map(|(name, _)| name.as_str());
            checks.extend(self.against(graph, case, names.zip(&values))?.into_values());
            saved.map(|saved| saved.case(number, &case.inputs, &values)).transpose()?;
        }
        Ok(checks)
    }

    fn compiled(
        &self,
        model: &onnx::Model,
        graph: &Graph,
        cases: &[Case],
        options: Options,
        saved: Option<&Saved>,
    ) -> Result<Vec<Check>, Failure> {
        let spinner = progress::spinner("compiling".to_owned());
        let compiled = engine::compile(model, self.target, options)?;
        spinner.finish_and_clear();
        let launch = if self.no_graph { LaunchMode::Stream } else { LaunchMode::Graph };
        let Some(plan) = compiled.plans.first().map(|plan| &plan.plan) else { lapidary::bug!("nothing was compiled") };
        let program = &plan.chosen.program;
        engine::with_session(&compiled, launch, |session, tables| {
            let mut checks = Vec::new();
            for (number, case) in cases.iter().enumerate() {
                // Each case is a session's first run: with the same random numbers as on the reference.
                session.set_run_count(0);
                session.run(&run::refs(&case.inputs)?)?;
                let outputs: Vec<Tensor> =
                    (0..tables.outputs.len()).map(|k| run::output_of(session, k)).collect::<Result<_, _>>()?;
                let given = tables.outputs.iter().map(|port| port.name).zip(&outputs);
                let compared = self.against(graph, case, given)?;
                let bars: BTreeMap<String, Bar> =
                    compared.iter().map(|(name, check)| (name.clone(), check.bar)).collect();
                checks.extend(compared.into_values());
                saved.map(|saved| saved.case(number, &case.inputs, &outputs)).transpose()?;
                let watched = if self.bisect { Watched::All } else { Watched::Saturated };
                let expected = reference_values(graph, &case.inputs, watched)?;
                if expected.is_empty() {
                    continue;
                }
                let mut off = Vec::new();
                session.set_run_count(0);
                session.run_observed(&run::refs(&case.inputs)?, &mut |label, tensor, output| {
                    let Some(inner) = program.tensors.get(tensor as usize) else { return };
                    let Some((expected, behind)) = expected.get(&*inner.name) else { return };
                    let given = Tensor::new(output.dtype(), output.dims().to_vec(), output.bytes().to_vec());
                    let Ok(given) = given else { return };
                    let comparable = given.dtype == expected.dtype && given.count() == expected.count();
                    if comparable {
                        let given = Tensor { dims: expected.dims.clone(), ..given };
                        let text = format!("{}: {} (inner, of {label})", case.name, inner.name);
                        let usual = || self.bar(graph, Bar::USUAL);
                        let bar = behind.as_ref().and_then(|name| bars.get(name)).copied().unwrap_or_else(usual);
                        let check = Check::new(text, &given, expected, bar);
                        // A step of several launches shows its result after each, a loop in every round; the last
                        // one counts.
                        off.retain(|(earlier, _)| *earlier != tensor);
                        off.push((tensor, check));
                    }
                })?;
                match watched {
                    Watched::Saturated => checks.extend(off.into_iter().map(|(_, check)| check)),
                    Watched::All => match off.iter().map(|(_, check)| check).find(|check| !check.passed) {
                        Some(first) => output::line(format_args!("first diverging tensor: {}", first.text))?,
                        None => {
                            let count = off.len();
                            output::line(format_args!("{}: no inner tensor diverges ({count} compared)", case.name))?;
                        }
                    },
                }
            }
            Ok(checks)
        })
    }
}

/// One comparison.
struct Check {
    text: String,
    passed: bool,
    /// By what it was judged.
    bar: Bar,
}

impl Check {
    fn new(what: String, given: &Tensor, expected: &Tensor, bar: Bar) -> Check {
        let distance = Distance::of(given, expected, bar);
        let rule = if bar == Bar::USUAL { String::new() } else { format!(" (allowed: {bar})") };
        Check { text: format!("{what}: {distance}{rule}"), passed: distance.within(bar), bar }
    }
}

/// Where `--save` writes.
struct Saved(PathBuf);

impl Saved {
    fn new(folder: &Path, profiles: &Profiles) -> Result<Saved, Failure> {
        std::fs::create_dir_all(folder).map_err(|error| Failure::file(folder, error))?;
        let path = folder.join("dims.txt");
        std::fs::write(&path, profiles.to_string()).map_err(|error| Failure::file(&path, error))?;
        Ok(Saved(folder.to_owned()))
    }

    fn case(&self, number: usize, inputs: &[Tensor], outputs: &[Tensor]) -> Result<(), Failure> {
        let folder = self.0.join(format!("case_{number}"));
        std::fs::create_dir_all(&folder).map_err(|error| Failure::file(&folder, error))?;
        for (what, tensors) in [("input", inputs), ("output", outputs)] {
            for (k, tensor) in tensors.iter().enumerate() {
                npy::write(&folder.join(format!("{what}_{k}.npy")), tensor)?;
            }
        }
        Ok(())
    }
}

/// Which inner values are compared with the reference evaluator's.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Watched {
    /// The operands of a final softmax or sigmoid, whose saturation would hide errors.
    Saturated,
    All,
}

/// Inner values of the reference evaluation, by name, each with the output that it saturates in.
type Inner = BTreeMap<String, (Tensor, Option<String>)>;

fn reference_values(graph: &Graph, inputs: &[Tensor], watched: Watched) -> Result<Inner, Failure> {
    let wanted: BTreeMap<ValueId, Option<String>> = match watched {
        Watched::All => graph.value_ids().map(|value| (value, None)).collect(),
        Watched::Saturated => {
            let operand = |(name, value): &(String, ValueId)| Some((saturating_operand(graph, *value)?, name.clone()));
            graph.outputs().iter().filter_map(operand).map(|(value, name)| (value, Some(name))).collect()
        }
    };
    let mut values = Inner::new();
    if wanted.is_empty() {
        return Ok(values);
    }
    eval::run_observed(graph, inputs, &mut |value, tensor: &Tensor| {
        let computed = matches!(graph.value(value).def, Def::Node(..));
        if let Some(output) = wanted.get(&value)
            && computed
            && tensor.dtype != DType::Bool
        {
            values.insert(graph.value(value).name.to_string(), (tensor.clone(), output.clone()));
        }
    })?;
    Ok(values)
}

/// The operand of the softmax or sigmoid that an output comes from, looking through views.
fn saturating_operand(graph: &Graph, output: ValueId) -> Option<ValueId> {
    let node = graph.node(graph.producer(output)?);
    let first = node.inputs.first().copied().flatten()?;
    if matches!(node.op, Op::Softmax(_)) {
        return Some(first);
    }
    let view = match &node.op {
        Op::Pointwise(program) => match program.steps.as_slice() {
            [step] if step.op == ScalarOp::Sigmoid && step.operands() == [Arg::Input(0)] => return Some(first),
            _ => program.is_identity(),
        },
        other => matches!(other, Op::Reshape(_) | Op::Transpose(_)),
    };
    if view { saturating_operand(graph, first) } else { None }
}
