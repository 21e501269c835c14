//! `lapidary inspect`: what a stage makes of a model.

use clap::{Args, ValueEnum};
use lapidary::ir::{Graph, Origin, ValueId};
use lapidary::lower::{Alternatives, Program, Residency, SegmentId, Step, Target};
use lapidary::passes::{Firing, Kernel, Report};
use lapidary::select::Pick;
use lapidary::{TargetPlan, ir, onnx};
use serde_json::{Value, json};

use super::{DenyArgs, Failure, Format, ModelArgs, engine, output};

const REPORT_JSON: &str = "JSON of --stage passes --explain:
  disabled            the rules of --disable
  stop_after_rewrite  the number of --stop-after-rewrite, or null
  firings             in order, each with number (from 1), pass, onnx (the names of the ONNX nodes that it rewrote), and
                      changes (1; of a sweep, how often it changed something)
  apart               in the graph's order, each with reason (what --deny takes), kernels (in the order of the data, each
                      with op and onnx), value (the ONNX name of the tensor between them), and why
Without --explain, firings stand beside the graph.";

/// The command's arguments.
#[derive(Args)]
#[command(after_long_help = REPORT_JSON)]
pub struct Inspect {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    deny: DenyArgs,
    /// The stage whose product is printed.
    #[arg(long, value_enum, default_value = "plan")]
    stage: Stage,
    /// What to compile for.
    #[arg(long, default_value = "cpu")]
    target: Target,
    /// With --stage passes: instead of the graph, print each rewrite with its number, and for neighbours that stay apart
    /// the reason.
    #[arg(long)]
    explain: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// A stage of the compiler.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Stage {
    /// The imported graph, as text.
    Import,
    /// The graph behind the passes, and what fired.
    Passes,
    /// Steps, memory and weights.
    Plan,
    /// For each problem the candidates, and why others were refused.
    Kernels,
}

impl Inspect {
    /// Prints the product of the stage.
    pub fn run(self) -> Result<(), Failure> {
        let format = if self.json { Format::Json } else { Format::Text };
        if self.explain && self.stage != Stage::Passes {
            return Err(Failure::usage("--explain is about the passes", "give --stage passes with it"));
        }
        let model = self.model.load()?;
        let options = engine::options(&self.model.shape);
        let graph = onnx::import(&model, &options.profiles)?;
        if self.stage == Stage::Import {
            return match format {
                Format::Json => output::line(format_args!("{:#}", graph_json(&graph))),
                Format::Text => output::line(ir::text::print(&graph).trim_end()),
            };
        }
        let (graph, report) = lapidary::optimize_within(graph, options.precision, &options.limits);
        report.denied(&self.deny.reasons()).check()?;
        if self.stage == Stage::Passes && self.explain {
            return explain(&report, format);
        }
        if self.stage == Stage::Passes {
            return passes(&graph, &report, format);
        }
        let plan = lapidary::plan_for(&graph, self.target)?;
        let steps = steps(&plan, self.stage);
        let summary = summary(&plan);
        if format == Format::Json {
            return output::line(format_args!("{:#}", json!({ "summary": summary, "steps": steps })));
        }
        for step in &steps {
            output::line(line(step))?;
        }
        let entries = summary.as_object().into_iter().flatten();
        for (name, value) in entries {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            output::line(format_args!("# {name}: {value}"))?;
        }
        Ok(())
    }
}

fn passes(graph: &Graph, report: &Report, format: Format) -> Result<(), Failure> {
    match format {
        Format::Json => {
            let mut out = graph_json(graph);
            out["firings"] = firings(report);
            output::line(format_args!("{out:#}"))
        }
        Format::Text => {
            output::line(ir::text::print(graph).trim_end())?;
            for firing in &report.firings {
                output::line(format_args!("# {firing}"))?;
            }
            Ok(())
        }
    }
}

fn explain(report: &Report, format: Format) -> Result<(), Failure> {
    if format == Format::Text {
        return output::line(report.to_string().trim_end());
    }
    let kernel = |kernel: &Kernel| json!({ "op": kernel.op, "onnx": names(&kernel.onnx) });
    let apart = report.apart.iter().map(|apart| {
        json!({
            "reason": apart.reason.id(),
            "kernels": apart.kernels.iter().map(kernel).collect::<Vec<_>>(),
            "value": apart.value,
            "why": apart.why,
        })
    });
    let out = json!({
        "disabled": report.limits.disabled.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "stop_after_rewrite": report.limits.stop_after,
        "firings": firings(report),
        "apart": apart.collect::<Vec<_>>(),
    });
    output::line(format_args!("{out:#}"))
}

fn firings(report: &Report) -> Value {
    let one = |(k, firing): (usize, &Firing)| json!({ "number": k + 1, "pass": firing.pass, "onnx": names(&firing.onnx), "changes": firing.changes });
    report.firings.iter().enumerate().map(one).collect()
}

fn names(origin: &Origin) -> Vec<&str> {
    origin.0.iter().map(|name| &**name).collect()
}

/// A graph or a region for a program: values by their numbers, each with name and type where it is made.
fn graph_json(graph: &Graph) -> Value {
    let value = |id: ValueId| {
        let dims: Vec<String> = graph.ty(id).dims.iter().map(ToString::to_string).collect();
        json!({
            "id": id.index(), "name": *graph.value(id).name, "type": graph.ty(id).dtype.to_string(), "dims": dims,
        })
    };
    let constants = graph.value_ids().filter(|&id| graph.constant(id).is_some());
    let nodes: Vec<Value> = graph
        .order()
        .into_iter()
        .map(|id| {
            let node = graph.node(id);
            let operands: Vec<Option<usize>> = node.inputs.iter().map(|id| id.map(ValueId::index)).collect();
            let results: Vec<Option<Value>> = node.outputs.iter().map(|id| id.map(value)).collect();
            let mut out = json!({
                "op": node.op.name(), "operands": operands, "results": results, "onnx": node.origin.to_string(),
            });
            for (name, region) in node.op.regions() {
                out[name] = graph_json(&region.0);
            }
            out
        })
        .collect();
    let ranges = |symbol: &ir::Symbol| -> Vec<[i64; 3]> {
        symbol.ranges.iter().map(|range| [range.min, range.opt, range.max]).collect()
    };
    let symbols: serde_json::Map<String, Value> =
        graph.symbols.iter().map(|(name, symbol)| (name.to_string(), json!(ranges(symbol)))).collect();
    let outputs = graph.outputs().iter().map(|(name, id)| json!({ "name": name, "value": id.index() }));
    json!({
        "name": graph.name,
        "symbols": symbols,
        "constraints": graph.constraints.iter().map(|constraint| &*constraint.why).collect::<Vec<_>>(),
        "inputs": graph.inputs().iter().map(|&id| value(id)).collect::<Vec<_>>(),
        "constants": constants.map(value).collect::<Vec<_>>(),
        "nodes": nodes,
        "outputs": outputs.collect::<Vec<_>>(),
    })
}

fn summary(plan: &TargetPlan) -> Value {
    let arenas: Vec<u64> = plan.plan.arenas.iter().map(|arena| arena.bytes).collect();
    let init = plan.plan.chosen.program.segment(Program::INIT).len();
    json!({
        "target": plan.target.to_string(),
        "nodes": plan.plan.step_count(),
        "init_steps": init,
        "kernels": plan.kernels.kernels.len(),
        "weight_bytes": plan.plan.weight_bytes,
        "derived_bytes": plan.plan.derived_bytes,
        "counter_bytes": plan.plan.counter_bytes,
        "arena_bytes": arenas,
    })
}

fn steps(plan: &TargetPlan, stage: Stage) -> Vec<Value> {
    let program = &plan.plan.chosen.program;
    let mut out = Vec::new();
    for (segment, items) in program.segments.iter().enumerate() {
        for (k, step) in items.iter().enumerate() {
            let place = format!("{}.{k}", segment_name(segment));
            match step {
                Step::Count { label, .. } => out.push(json!({ "step": place, "op": "count", "onnx": label })),
                Step::If { label, .. } => out.push(json!({ "step": place, "op": "if", "onnx": label })),
                Step::Loop(step) => out.push(json!({ "step": place, "op": "loop", "onnx": step.label })),
                Step::Work(work) => {
                    let results: Vec<String> =
                        work.outputs.iter().flatten().map(|tensor| describe(program, *tensor)).collect();
                    let operands: Vec<String> =
                        work.inputs.iter().flatten().map(|tensor| describe(program, *tensor)).collect();
                    let pick = plan.plan.chosen.pick(SegmentId(segment as u32), k);
                    let mut entry = json!({
                        "step": place,
                        "op": lapidary::lower::kind_name(&work.problem.kind),
                        "operands": operands,
                        "results": results,
                        "onnx": work.label,
                    });
                    if let Pick::Kernels(candidate) = pick {
                        entry["tactic"] = json!(candidate.key);
                        entry["predicted_us"] = json!(candidate.cost);
                        entry["launches"] = json!(candidate.launches.len());
                    }
                    if let (Stage::Kernels, Alternatives::Cuda { candidates, refusals }) = (stage, &work.alternatives) {
                        let offered: Vec<_> =
                            candidates.iter().map(|c| json!({ "tactic": c.key, "predicted_us": c.cost })).collect();
                        let refused: Vec<_> =
                            refusals.iter().map(|r| json!({ "tactic": r.key, "reason": r.reason })).collect();
                        entry["candidates"] = json!(offered);
                        entry["refused"] = json!(refused);
                    }
                    out.push(entry);
                }
            }
        }
    }
    out
}

fn segment_name(segment: usize) -> String {
    match SegmentId(segment as u32) {
        Program::INIT => "init".to_owned(),
        Program::MAIN => "main".to_owned(),
        SegmentId(k) => format!("branch{k}"),
    }
}

fn describe(program: &Program, id: lapidary::lower::TensorId) -> String {
    let tensor = program.tensor(id);
    let place = match program.buffer(tensor.buffer).residency {
        Residency::Weight(_) => "weight ",
        Residency::Derived => "derived ",
        Residency::Arena => "",
    };
    let at = tensor.at.as_ref().map_or_else(String::new, |at| format!(" at byte {at}"));
    format!("{place}{} {}{:?}{at}", tensor.name, tensor.ty.dtype, tensor.ty.dims)
}

fn line(step: &Value) -> String {
    let text = |key: &str| step[key].as_str().unwrap_or_default().to_owned();
    let list = |key: &str| {
        let items = step[key].as_array().map(Vec::as_slice).unwrap_or_default();
        items.iter().filter_map(|item| item.as_str()).collect::<Vec<_>>().join(", ")
    };
    let mut line = format!("{:>10} {:<14} {} <- {}", text("step"), text("op"), list("results"), list("operands"));
    if step["tactic"].is_string() {
        line.push_str(&format!("  [{} {:.2} us]", text("tactic"), step["predicted_us"].as_f64().unwrap_or_default()));
    }
    for (key, note) in [("candidates", "predicted_us"), ("refused", "reason")] {
        for item in step[key].as_array().map(Vec::as_slice).unwrap_or_default() {
            line.push_str(&format!("\n{:>14}{key}: {} {}", "", item["tactic"], item[note]));
        }
    }
    line.push_str(&format!("  from {}", text("onnx")));
    line
}
