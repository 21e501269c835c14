//! Mutation testing of the optimizer. Draws small changes of `passes/`, `select/` and `plan/` by seed, weaves all of
//! them into one copy of the checkout, each behind a switch that an environment variable turns, builds the tests there
//! once, and runs them once for each change. A change that no test notices has survived, and is listed.
//!
//! Exits with 0 if the share of changes that was noticed is at least `--bar`.

mod judge;
mod sites;
mod weave;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// What is broken on purpose, below the checkout.
const FOLDERS: [&str; 3] = ["compiler/src/passes", "compiler/src/select", "compiler/src/plan"];

#[derive(Parser)]
struct Args {
    /// The checkout.
    #[arg(long, default_value = ".")]
    root: PathBuf,
    /// The folder for the copy; it is made, or written over.
    #[arg(long, default_value = "target/mutants")]
    copy: PathBuf,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[arg(long, default_value_t = 80)]
    count: usize,
    /// The least share of changes that tests must notice, in percent.
    #[arg(long, default_value_t = 85)]
    bar: usize,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("lapidary-mutants: {why}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &Args) -> Result<bool, String> {
    let mut sites = Vec::new();
    for folder in FOLDERS {
        sites.extend(sites::below(&args.root, folder)?);
    }
    println!("{} places to change; {} drawn by seed {}", sites.len(), args.count, args.seed);
    fastrand::Rng::with_seed(args.seed).shuffle(&mut sites);
    let drawn = weave::compiling(&args.root, &args.copy, sites, args.count)?;
    let tests = judge::build(&args.copy)?;
    judge::unchanged_passes(&tests, &args.copy)?;
    let mut survivors = Vec::new();
    for (number, site) in drawn.iter().enumerate() {
        let verdict = judge::noticed_by(&tests, &args.copy, number)?;
        let by = verdict.as_deref().unwrap_or("nothing");
        println!("{number:4}  {}:{}  {}  noticed by {by}", site.file, site.line, site.what);
        if verdict.is_none() {
            survivors.push(site);
        }
    }
    let noticed = drawn.len() - survivors.len();
    println!("\n{noticed} of {} changes noticed ({}%)", drawn.len(), 100 * noticed / drawn.len().max(1));
    for site in survivors {
        println!("survived: {}:{}  {}", site.file, site.line, site.what);
    }
    Ok(100 * noticed >= args.bar * drawn.len())
}
