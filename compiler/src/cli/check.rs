//! `lapidary check`: whether a model is supported.

use clap::Args;
use lapidary::Options;
use lapidary::ir::Type;
use lapidary::lower::Target;

use super::{Failure, ModelArgs, engine, output};

/// The command's arguments.
#[derive(Args)]
pub struct Check {
    #[command(flatten)]
    model: ModelArgs,
    /// The targets to check for: cpu, sm_80, sm_90a.
    #[arg(long, value_delimiter = ',', default_value = "cpu")]
    target: Vec<Target>,
}

impl Check {
    /// Reports everything that is not supported.
    pub fn run(self) -> Result<(), Failure> {
        let model = self.model.load()?;
        let options = Options { targets: self.target.clone(), ..engine::options(&self.model.shape) };
        let compiled = lapidary::compile(&model, &options)?;
        let targets: Vec<String> = compiled.plans.iter().map(|plan| plan.target.to_string()).collect();
        output::line(format_args!("{}: supported on {}", self.model.model.display(), targets.join(", ")))?;
        let graph = &compiled.graph;
        for &input in graph.inputs() {
            self.port("input", &graph.value(input).name, graph.ty(input))?;
        }
        for (name, value) in graph.outputs() {
            self.port("output", name, graph.ty(*value))?;
        }
        let of_inputs = graph.symbols.iter().filter(|(_, symbol)| symbol.is_of_input());
        for (name, symbol) in of_inputs {
            let ranges: Vec<String> =
                symbol.ranges.iter().map(|range| format!("{}:{}:{}", range.min, range.opt, range.max)).collect();
            output::line(format_args!("  --dim {}={}", name.escape_debug(), ranges.join(" ")))?;
        }
        Ok(())
    }

    fn port(&self, what: &str, name: &str, ty: &Type) -> Result<(), Failure> {
        let dims: Vec<String> = ty.dims.iter().map(ToString::to_string).collect();
        output::line(format_args!("  {what} {}: {}[{}]", name.escape_debug(), ty.dtype, dims.join(", ")))
    }
}
