//! The command line: the only place of the compiler that prints, and that writes files.
//!
//! Exit codes: 0 all is well; 1 the model or a result is at fault; 2 the call is, with the files that it names and the
//! machine that it runs on. A mistake of ours ends with 101, as panics do.

mod bench;
mod case;
mod check;
mod compare;
mod compile;
mod engine;
mod failure;
mod golden;
mod inputs;
mod inspect;
mod npy;
mod output;
mod progress;
mod run;
mod spread;
mod verify;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use lapidary::diag::Diagnostics;
use lapidary::onnx::{self, Format as IoFormat, Model, Numbers};
use lapidary::passes::{Limits, PassName, Precision, Reason};
use lapidary::profiles::Profiles;

pub use failure::Failure;

const EXIT_CODES: &str = "Exit codes:
  0  all is well
  1  the model or a result is at fault
  2  the call is: its arguments, the files that it names, a GPU or CUDA compiler that is not there
  101  a mistake of Lapidary's; please report it";

/// Compiles ONNX models to standalone Rust crates.
#[derive(Parser)]
#[command(name = "lapidary", version, about, disable_help_subcommand = true, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write a model as a Rust crate.
    Compile(compile::Compile),
    /// Run a model on inputs from .npy files.
    Run(run::Run),
    /// Run a model on test cases and compare with their expected outputs.
    Verify(verify::Verify),
    /// Measure a model's speed.
    Bench(bench::Bench),
    /// Say whether a model is supported, and everything that is not.
    Check(check::Check),
    /// Print what a stage of the compiler makes of a model.
    Inspect(inspect::Inspect),
}

/// How a command prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Text,
    Json,
}

/// What every command that compiles takes.
#[derive(Args, Clone)]
struct ModelArgs {
    /// The .onnx file.
    model: PathBuf,
    #[command(flatten)]
    shape: ShapeArgs,
    /// Replace weights in external files by seeded numbers, to plan or time a model without them.
    #[arg(long)]
    seeded_weights: bool,
}

impl ModelArgs {
    fn load(&self) -> Result<Model, Failure> {
        let mut model = onnx::load(&self.model)?;
        if self.seeded_weights {
            model.seed_weights();
        }
        self.shape.state_structure(&mut model)?;
        self.shape.fix(&mut model)?;
        model.formats.clone_from(&self.shape.formats);
        Ok(model)
    }
}

/// How a model is specialized.
#[derive(Args, Clone)]
struct ShapeArgs {
    /// The range of a symbolic dimension; repeated for one name, each is a further optimization profile.
    #[arg(long = "dim", value_name = "NAME=MIN:OPT:MAX", value_parser = Profiles::parse)]
    dims: Vec<(String, lapidary::ir::Range)>,
    /// The elements of an input that has the same value in every run; it becomes a constant of the compiled model.
    #[arg(long = "value", value_name = "NAME=VALUE,VALUE,..", value_parser = Numbers::parse)]
    values: Vec<(String, Numbers)>,
    /// The number of elements of an input that is a sequence, which becomes the inputs NAME.0, NAME.1 and so on; for an
    /// optional input, 0 says that it is absent.
    #[arg(long = "elements", value_name = "NAME=COUNT", value_parser = parse_count)]
    elements: Vec<(String, usize)>,
    /// The rank of an input without a shape, whose dimensions are then NAME.0, NAME.1 and so on.
    #[arg(long = "rank", value_name = "NAME=RANK", value_parser = parse_count)]
    ranks: Vec<(String, usize)>,
    /// The order of the axes in which an image is given or taken that the model has in the other: nhwc for [n, h, w, c] of an
    /// input or output [n, c, h, w], nchw for the reverse.
    #[arg(long = "io-format", value_name = "NAME=FORMAT", value_parser = IoFormat::parse)]
    formats: Vec<(String, IoFormat)>,
    /// The type that f32 arithmetic is done in: fp32, tf32, fp16, bf16.
    #[arg(long, default_value = "fp32")]
    precision: Precision,
    #[command(flatten)]
    limits: LimitArgs,
}

/// Which passes run: for finding the rewrite that makes a result wrong.
#[derive(Args, Clone)]
struct LimitArgs {
    /// Leave out a rule; repeated, several. `inspect --stage passes --explain` names those that fired.
    #[arg(long = "disable", value_name = "RULE")]
    disabled: Vec<PassName>,
    /// Make the first N rewrites alone, by the numbers of `inspect --stage passes --explain`.
    #[arg(long, value_name = "N")]
    stop_after_rewrite: Option<usize>,
}

impl LimitArgs {
    fn limits(&self) -> Limits {
        Limits { disabled: self.disabled.iter().copied().collect(), stop_after: self.stop_after_rewrite }
    }
}

/// What must not be left apart.
#[derive(Args, Clone)]
struct DenyArgs {
    /// Make it an error that neighbours stay apart for this reason, such as unfused-attention; repeated, several.
    #[arg(long = "deny", value_name = "REASON")]
    deny: Vec<Reason>,
}

impl DenyArgs {
    fn reasons(&self) -> BTreeSet<Reason> {
        self.deny.iter().copied().collect()
    }
}

fn parse_count(text: &str) -> Result<(String, usize), String> {
    let (name, count) = text.rsplit_once('=').ok_or("expected NAME=NUMBER")?;
    let count = count.trim().parse().map_err(|error| format!("`{count}`: {error}; expected NAME=NUMBER"))?;
    Ok((name.trim().to_owned(), count))
}

impl ShapeArgs {
    fn profiles(&self) -> Profiles {
        let mut profiles = Profiles::new();
        for (name, range) in &self.dims {
            profiles.add(name, *range);
        }
        profiles
    }

    fn fix(&self, model: &mut Model) -> Result<(), Failure> {
        let mut wrong = Diagnostics::new();
        for (name, value) in &self.values {
            wrong.keep(model.fix_input(name, value));
        }
        Ok(wrong.check()?)
    }

    /// What the model leaves open of its inputs.
    fn state_structure(&self, model: &mut Model) -> Result<(), Failure> {
        let mut wrong = Diagnostics::new();
        for (name, count) in &self.elements {
            wrong.keep(model.set_elements(name, *count));
        }
        for (name, rank) in &self.ranks {
            wrong.keep(model.set_rank(name, *rank));
        }
        Ok(wrong.check()?)
    }
}

/// Runs the command that the process was called with.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Command::Compile(command) => command.run(),
        Command::Run(command) => command.run(),
        Command::Verify(command) => command.run(),
        Command::Bench(command) => command.run(),
        Command::Check(command) => command.run(),
        Command::Inspect(command) => command.run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}
