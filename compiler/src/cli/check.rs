//! `lapidary check`: whether a model is supported.

use clap::Args;
use lapidary::Options;
use lapidary::lower::Target;

use super::{Failure, ModelArgs};

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
        let options = Options {
            targets: self.target.clone(),
            precision: self.model.shape.precision,
            profiles: self.model.shape.profiles(),
        };
        let compiled = lapidary::compile(&model, &options)?;
        let targets: Vec<String> = self.target.iter().map(Target::to_string).collect();
        println!("{}: supported on {}", self.model.model.display(), targets.join(", "));
        for (name, symbol) in &compiled.graph.symbols {
            let ranges: Vec<String> =
                symbol.ranges.iter().map(|range| format!("{}:{}:{}", range.min, range.opt, range.max)).collect();
            println!("  --dim {name}={}", ranges.join(" "));
        }
        Ok(())
    }
}
