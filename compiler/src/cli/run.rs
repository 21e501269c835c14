//! `lapidary run`: a model on the user's inputs.

use std::path::PathBuf;

use clap::Args;
use lapidary::ir::eval::{self, Tensor};
use lapidary::{Options, onnx};
use lapidary_runtime::{InputRef, LaunchMode, Session};

use super::engine::{self, Place};
use super::{Failure, ModelArgs, npy};

/// The command's arguments.
#[derive(Args)]
pub struct Run {
    #[command(flatten)]
    model: ModelArgs,
    /// Where to run.
    #[arg(long, value_enum, default_value = "cpu")]
    target: Place,
    /// An input and the .npy file that holds it.
    #[arg(long = "input", value_name = "NAME=FILE.npy", value_parser = parse_input)]
    inputs: Vec<(String, PathBuf)>,
    /// The folder that gets NAME.npy for each output.
    #[arg(short, long)]
    output: PathBuf,
}

fn parse_input(text: &str) -> Result<(String, PathBuf), String> {
    let (name, path) = text.rsplit_once('=').ok_or("expected NAME=FILE.npy")?;
    Ok((name.to_owned(), path.into()))
}

impl Run {
    /// Runs the model once and writes its outputs.
    pub fn run(self) -> Result<(), Failure> {
        let model = self.model.load()?;
        let ports = onnx::inputs(&model)?;
        let mut inputs = Vec::new();
        for port in &ports {
            let path = self.inputs.iter().find(|(name, _)| *name == port.name).map(|(_, path)| path);
            let path = path.ok_or_else(|| {
                let names: Vec<&str> = ports.iter().map(|port| port.name.as_str()).collect();
                Failure::usage(
                    format!("the input {} is not given", port.name),
                    format!("give --input NAME=FILE.npy for each of: {}", names.join(", ")),
                )
            })?;
            inputs.push(npy::read(path)?);
        }
        let mut options = engine::options(&self.model.shape);
        // Dimensions that no --dim names take the extents of the inputs.
        for (port, tensor) in ports.iter().zip(&inputs) {
            for (symbol, &extent) in port.symbols.iter().zip(&tensor.dims) {
                if let Some(symbol) = symbol
                    && !options.profiles.names().any(|name| name == symbol)
                {
                    let value = i64::try_from(extent).unwrap_or(i64::MAX);
                    options.profiles.add(symbol, lapidary::ir::Range { min: value, opt: value, max: value });
                }
            }
        }
        let outputs = outputs(&model, self.target, options, &inputs)?;
        std::fs::create_dir_all(&self.output).map_err(|error| Failure::file(&self.output, error))?;
        for (name, tensor) in outputs {
            let file = self.output.join(format!("{}.npy", name.replace(['/', '\\', ':'], "_")));
            npy::write(&file, &tensor)?;
            println!("{name} {}{:?} -> {}", tensor.dtype, tensor.dims, file.display());
        }
        Ok(())
    }
}

/// The outputs of one run, by name.
fn outputs(
    model: &onnx::Model,
    place: Place,
    options: Options,
    inputs: &[Tensor],
) -> Result<Vec<(String, Tensor)>, Failure> {
    if place == Place::Reference {
        let graph = onnx::import(model, &options.profiles)?;
        let values = eval::run(&graph, inputs).map_err(|error| Failure::Result(format!("error: {error}")))?;
        return Ok(graph.outputs().iter().map(|(name, _)| name.clone()).zip(values).collect());
    }
    let compiled = engine::compile(model, place, options)?;
    engine::with_session(&compiled, LaunchMode::default(), |session, tables| {
        session.run(&refs(inputs)?)?;
        let names = tables.outputs.iter().map(|port| port.name.to_owned());
        names.enumerate().map(|(k, name)| Ok((name, output(session, k)?))).collect()
    })
}

/// Tensors as the runtime takes them.
pub fn refs(inputs: &[Tensor]) -> Result<Vec<InputRef<'_>>, Failure> {
    inputs.iter().map(|x| Ok(InputRef::from_bytes(x.dtype, x.dims.as_slice().try_into()?, &x.bytes))).collect()
}

/// An output of the session's last run.
pub fn output(session: &Session<'_>, index: usize) -> Result<Tensor, Failure> {
    let output = session.output(index)?;
    Tensor::new(output.dtype(), output.dims().to_vec(), output.bytes().to_vec())
        .map_err(|error| Failure::Result(format!("error: {error}")))
}
