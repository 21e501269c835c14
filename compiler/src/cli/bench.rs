//! `lapidary bench`: a model's throughput and latency, by `trtexec`'s names.

use std::time::{Duration, Instant};

use clap::Args;
use lapidary::ir::Graph;
use lapidary::ir::eval::Tensor;
use lapidary_runtime::{LaunchMode, TimingMode};
use serde_json::json;

use super::engine::{self, Place};
use super::{Failure, ModelArgs, run};

/// The command's arguments.
#[derive(Args)]
pub struct Bench {
    #[command(flatten)]
    model: ModelArgs,
    /// Where to run.
    #[arg(long, value_enum, default_value = "cpu")]
    target: Place,
    /// Milliseconds of warm-up.
    #[arg(long, default_value_t = 200)]
    warm_up: u64,
    /// Seconds of measuring.
    #[arg(long, default_value_t = 3.0)]
    duration: f64,
    /// Launch kernel by kernel instead of as one CUDA graph.
    #[arg(long)]
    no_graph: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
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
        let inputs = random_inputs(&compiled.graph, |range| range.opt);
        let launch = if self.no_graph { LaunchMode::Stream } else { LaunchMode::Graph };
        let nodes = compiled.plans.first().map_or(0, |plan| plan.plan.step_count());
        let samples = engine::with_session(&compiled, launch, |session, _| {
            session.set_timing(TimingMode::On)?;
            let inputs = run::refs(&inputs)?;
            let warm = Instant::now();
            while warm.elapsed() < Duration::from_millis(self.warm_up) {
                session.run(&inputs)?;
            }
            let mut samples = Samples::default();
            let begin = Instant::now();
            while begin.elapsed().as_secs_f64() < self.duration {
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
        samples.print(self.json, compile_s, nodes);
        Ok(())
    }
}

#[derive(Default)]
struct Samples {
    seconds: f64,
    latency: Vec<f64>,
    enqueue: Vec<f64>,
    compute: Vec<f64>,
}

impl Samples {
    fn print(mut self, as_json: bool, compile_s: f64, nodes: usize) {
        let throughput = self.latency.len() as f64 / self.seconds;
        let rows = [
            ("latency", Summary::of(&mut self.latency)),
            ("enqueue", Summary::of(&mut self.enqueue)),
            ("gpu_compute", Summary::of(&mut self.compute)),
        ];
        if as_json {
            let mut out = json!({ "throughput_qps": throughput, "compile_s": compile_s, "nodes": nodes, "l2": "warm" });
            for (name, summary) in rows {
                if let Some(s) = summary {
                    out[name] = json!({
                        "min": s.min, "mean": s.mean, "median": s.median, "p90": s.p90, "p95": s.p95, "p99": s.p99,
                        "samples": s.samples,
                    });
                }
            }
            println!("{out:#}");
            return;
        }
        println!("compiled in {compile_s:.2} s, {nodes} nodes");
        println!("throughput {throughput:.1} runs/s (one session, transfers included, L2 warm)");
        for (name, summary) in rows {
            if let Some(s) = summary {
                println!(
                    "{name:<12} min {:.4}  mean {:.4}  median {:.4}  p90 {:.4}  p95 {:.4}  p99 {:.4} ms",
                    s.min, s.mean, s.median, s.p90, s.p95, s.p99
                );
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
            samples: times.len(),
        })
    }
}

/// Seeded inputs at shapes of the first profile: floats normal-like in -1..1, integers 0 or 1.
pub fn random_inputs(graph: &Graph, extent: fn(&lapidary::ir::Range) -> i64) -> Vec<Tensor> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        // Xorshift64*: S. Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled".
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1u64 << 53) as f64
    };
    let mut tensors = Vec::new();
    for input in graph.inputs().iter().map(|&input| graph.ty(input)) {
        let dims: Vec<usize> = input
            .dims
            .iter()
            .map(|dim| dim.eval(&|name| extent_of(graph, name, extent)))
            .map(|dim| usize::try_from(dim).unwrap_or(0))
            .collect();
        let count = dims.iter().product();
        let float = input.dtype.is_float();
        let values: Vec<f64> = (0..count).map(|_| if float { next() * 2.0 - 1.0 } else { next().round() }).collect();
        let ints: Vec<i64> = values.iter().map(|&value| value as i64).collect();
        tensors.push(match float {
            true => Tensor::from_f64s(input.dtype, dims, &values),
            false => Tensor::from_i64s(input.dtype, dims, &ints),
        });
    }
    tensors
}

/// The extent that a symbol has in the first profile.
pub fn extent_of(graph: &Graph, symbol: &str, extent: fn(&lapidary::ir::Range) -> i64) -> i64 {
    graph.symbols.get(symbol).and_then(|symbol| symbol.ranges.first()).map_or(1, extent)
}
