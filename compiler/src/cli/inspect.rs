//! `lapidary inspect`: what a stage makes of a model.

use clap::{Args, ValueEnum};
use lapidary::lower::{Alternatives, Program, Residency, SegmentId, Step, Target};
use lapidary::select::Pick;
use lapidary::{TargetPlan, ir, onnx};
use serde_json::json;

use super::{Failure, ModelArgs, engine};

/// The command's arguments.
#[derive(Args)]
pub struct Inspect {
    #[command(flatten)]
    model: ModelArgs,
    /// The stage whose product is printed.
    #[arg(long, value_enum, default_value = "plan")]
    stage: Stage,
    /// What to compile for.
    #[arg(long, default_value = "cpu")]
    target: Target,
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
        let model = self.model.load()?;
        let options = engine::options(&self.model.shape);
        let graph = onnx::import(&model, &options.profiles)?;
        if self.stage == Stage::Import {
            return self.text_or_json(ir::text::print(&graph));
        }
        let (graph, report) = lapidary::optimize(graph, options.precision);
        if self.stage == Stage::Passes {
            let mut text = ir::text::print(&graph);
            for firing in &report.firings {
                text.push_str(&format!("# {}: {}\n", firing.pass, firing.at));
            }
            return self.text_or_json(text);
        }
        let plan = lapidary::plan_for(&graph, self.target)?;
        let steps = steps(&plan, self.stage);
        let summary = summary(&plan);
        if self.json {
            println!("{:#}", json!({ "summary": summary, "steps": steps }));
            return Ok(());
        }
        for step in &steps {
            println!("{}", line(step));
        }
        println!("{summary:#}");
        Ok(())
    }

    fn text_or_json(&self, text: String) -> Result<(), Failure> {
        if self.json {
            println!("{:#}", json!({ "text": text }));
        } else {
            print!("{text}");
        }
        Ok(())
    }
}

fn summary(plan: &TargetPlan) -> serde_json::Value {
    let arenas: Vec<u64> = plan.plan.arenas.iter().map(|arena| arena.bytes).collect();
    let init = plan.plan.chosen.program.segment(Program::INIT).len();
    json!({
        "target": plan.target.to_string(),
        "nodes": plan.plan.step_count(),
        "init_steps": init,
        "kernels": plan.kernels.kernels.len(),
        "weight_bytes": plan.plan.weight_bytes,
        "derived_bytes": plan.plan.derived_bytes,
        "arena_bytes": arenas,
    })
}

fn steps(plan: &TargetPlan, stage: Stage) -> Vec<serde_json::Value> {
    let program = &plan.plan.chosen.program;
    let mut out = Vec::new();
    for (segment, items) in program.segments.iter().enumerate() {
        for (k, step) in items.iter().enumerate() {
            let place = format!("{}.{k}", segment_name(segment));
            match step {
                Step::If { label, .. } => out.push(json!({ "step": place, "op": "if", "onnx": label })),
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
    format!("{place}{} {}{:?}", tensor.name, tensor.ty.dtype, tensor.ty.dims)
}

fn line(step: &serde_json::Value) -> String {
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
