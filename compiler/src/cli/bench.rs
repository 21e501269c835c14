//! `lapidary bench`: a model's throughput and latency, by `trtexec`'s names.
//!
//! One session, made-up inputs at the typical shapes of the first profile, transfers included, the L2 cache warm from
//! the run before. What was measured stands beside the figures, so that they can be kept.

use std::time::{Duration, Instant, SystemTime};

use clap::Args;
use lapidary::ir::Graph;
use lapidary_runtime::{Error, LaunchMode, TimingMode};
use serde_json::{Value, json};

use super::engine::{self, Place};
use super::inputs::{self, Extents, Integers};
use super::{Failure, Format, ModelArgs, output, run};

/// The command's arguments.
#[derive(Args)]
pub struct Bench {
    #[command(flatten)]
    model: ModelArgs,
    /// Where to run.
    #[arg(long, value_enum, default_value = "cpu")]
    target: Place,
    /// Milliseconds of warm-up.
    #[arg(long, value_name = "MS", default_value_t = 200)]
    warm_up: u64,
    /// Seconds of measuring: more than 0, at most 3600.
    #[arg(long, value_name = "SECONDS", default_value = "3", value_parser = seconds)]
    duration: Duration,
    /// Launch kernel by kernel instead of as one CUDA graph.
    #[arg(long)]
    no_graph: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|error| format!("{error}"))?;
    if !(seconds > 0.0 && seconds <= 3600.0) {
        return Err("it must be more than 0 and at most 3600".to_owned());
    }
    Ok(Duration::from_secs_f64(seconds))
}

impl Bench {
    /// Measures and prints.
    pub fn run(self) -> Result<(), Failure> {
        if self.target == Place::Reference {
            return Err(Failure::usage("the reference evaluator has no speed", "give --target cpu or cuda"));
        }
        let model = self.model.load()?;
        let options = engine::options(&self.model.shape);
        let start = Instant::now();
        let compiled = engine::compile(&model, self.target, options)?;
        let compile_s = start.elapsed().as_secs_f64();
        let launch = if self.no_graph { LaunchMode::Stream } else { LaunchMode::Graph };
        let samples = engine::with_session(&compiled, launch, |session, _| {
            session.set_timing(TimingMode::On)?;
            let mut tensors = inputs::made_up(&compiled.graph, Extents::Typical, Integers::Random);
            match session.run(&run::refs(&tensors)?) {
                // Zero is a valid index wherever any is.
                Err(Error::Index { .. }) => {
                    tensors = inputs::made_up(&compiled.graph, Extents::Typical, Integers::Zeros);
                }
                done => done?,
            }
            let inputs = run::refs(&tensors)?;
            let warm = Instant::now();
            while warm.elapsed() < Duration::from_millis(self.warm_up) {
                session.run(&inputs)?;
            }
            let mut samples = Samples::default();
            let begin = Instant::now();
            // At least one, however long it takes.
            while samples.latency.is_empty() || begin.elapsed() < self.duration {
                let one = Instant::now();
                session.run(&inputs)?;
                samples.latency.push(one.elapsed().as_secs_f64() * 1e3);
                if let Some(timing) = session.timing() {
                    samples.enqueue.push(timing.enqueue_ms);
                    samples.compute.push(timing.compute_ms);
                }
            }
            samples.seconds = begin.elapsed().as_secs_f64();
            Ok(samples)
        })?;
        let subject = self.subject(&compiled.graph, &compiled, compile_s);
        samples.print(if self.json { Format::Json } else { Format::Text }, subject)
    }

    /// What is measured, and how: everything that somebody needs to measure it again.
    fn subject(&self, graph: &Graph, compiled: &lapidary::Compiled, compile_s: f64) -> Value {
        let plan = compiled.plans.first();
        let shapes: serde_json::Map<String, Value> = graph
            .inputs()
            .iter()
            .map(|&input| {
                let dims = Extents::Typical.dims(graph, &graph.ty(input).dims);
                (graph.value(input).name.to_string(), json!(dims))
            })
            .collect();
        let graph_mode = match (self.target, self.no_graph) {
            (Place::Cpu | Place::Reference, _) => "none",
            (Place::Cuda, false) => "cuda graph",
            (Place::Cuda, true) => "kernel by kernel",
        };
        let file = self.model.model.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        json!({
            "lapidary": env!("CARGO_PKG_VERSION"),
            "date": date(SystemTime::now()),
            "model": file,
            "seeded_weights": self.model.seeded_weights,
            "target": plan.map(|plan| plan.target.to_string()),
            "device": engine::device_name(self.target),
            "precision": self.model.shape.precision.to_string(),
            "pass_limits": compiled.report.limits.to_string(),
            "inputs": shapes,
            "graph_mode": graph_mode,
            "l2": "warm",
            "warm_up_ms": self.warm_up,
            "duration_s": self.duration.as_secs_f64(),
            "compile_s": compile_s,
            "nodes": plan.map_or(0, |plan| plan.plan.step_count()),
        })
    }
}

/// The day in UTC, such as `2026-11-21` (H. Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn date(now: SystemTime) -> String {
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    // Days since the first of March of the year 0; eras have 400 years.
    let days = seconds / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = era * 400 + year + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

/// Times in milliseconds.
#[derive(Default)]
struct Samples {
    seconds: f64,
    latency: Vec<f64>,
    enqueue: Vec<f64>,
    compute: Vec<f64>,
}

impl Samples {
    fn print(mut self, format: Format, mut subject: Value) -> Result<(), Failure> {
        let throughput = self.latency.len() as f64 / self.seconds;
        let rows = [
            ("latency", Summary::of(&mut self.latency)),
            ("enqueue", Summary::of(&mut self.enqueue)),
            ("gpu_compute", Summary::of(&mut self.compute)),
        ];
        match format {
            Format::Json => {
                subject["throughput_qps"] = json!(throughput);
                subject["units"] =
                    json!({ "throughput_qps": "runs/s", "latency": "ms", "enqueue": "ms", "gpu_compute": "ms" });
                for (name, summary) in rows {
                    subject[name] = summary.map_or(Value::Null, |summary| summary.json());
                }
                output::line(format_args!("{subject:#}"))
            }
            Format::Text => {
                let text = |key: &str| subject[key].as_str().unwrap_or_default().to_owned();
                output::line(format_args!(
                    "{} on {} ({}), {}, {}, launches: {}",
                    text("model"),
                    text("device"),
                    text("target"),
                    text("precision"),
                    text("date"),
                    text("graph_mode")
                ))?;
                output::line(format_args!("inputs {}", subject["inputs"]))?;
                let compiled = subject["compile_s"].as_f64().unwrap_or_default();
                output::line(format_args!("compiled in {compiled:.2} s, {} nodes", subject["nodes"]))?;
                output::line(format_args!(
                    "throughput {throughput:.1} runs/s (one session, transfers included, L2 warm)"
                ))?;
                for (name, summary) in rows {
                    if let Some(s) = summary {
                        output::line(format_args!(
                            "{name:<12} min {:.4}  mean {:.4}  median {:.4}  p90 {:.4}  p95 {:.4}  p99 {:.4}  max {:.4} ms",
                            s.min, s.mean, s.median, s.p90, s.p95, s.p99, s.max
                        ))?;
                    }
                }
                Ok(())
            }
        }
    }
}

struct Summary {
    min: f64,
    mean: f64,
    median: f64,
    p90: f64,
    p95: f64,
    p99: f64,
    max: f64,
    samples: usize,
}

impl Summary {
    /// The summary of some times; `None` of none.
    fn of(times: &mut [f64]) -> Option<Summary> {
        times.sort_by(f64::total_cmp);
        let at = |share: f64| times.get(((times.len() as f64 - 1.0) * share).round() as usize).copied();
        Some(Summary {
            min: at(0.0)?,
            mean: times.iter().sum::<f64>() / times.len() as f64,
            median: at(0.5)?,
            p90: at(0.9)?,
            p95: at(0.95)?,
            p99: at(0.99)?,
            max: at(1.0)?,
            samples: times.len(),
        })
    }

    fn json(&self) -> Value {
        json!({
            "min": self.min, "mean": self.mean, "median": self.median, "p90": self.p90, "p95": self.p95,
            "p99": self.p99, "max": self.max, "samples": self.samples,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_dates() {
        let day = |days: u64| date(SystemTime::UNIX_EPOCH + Duration::from_secs(days * 86_400 + 1));
        assert_eq!([0, 59, 11_016, 20_778].map(day), ["1970-01-01", "1970-03-01", "2000-02-29", "2026-11-21"]);
    }

    #[test]
    fn summaries_are_of_the_sorted_times() {
        let mut times: Vec<f64> = (0..101).rev().map(f64::from).collect();
        let summary = Summary::of(&mut times).expect("times");
        let figures = [summary.min, summary.mean, summary.median, summary.p90, summary.p99, summary.max];
        assert_eq!(figures, [0.0, 50.0, 50.0, 90.0, 99.0, 100.0]);
        assert!(Summary::of(&mut []).is_none());
    }

    #[test]
    fn a_duration_is_more_than_nothing() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for text in ["0", "-1", "nan", "inf", "1e9", "x"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
