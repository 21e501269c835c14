//! `lapidary run`: a model on the user's inputs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use clap::Args;
use lapidary::diag::quoted;
use lapidary::ir::eval::{self, Tensor};
use lapidary::{Options, onnx};
use lapidary_runtime::{InputRef, LaunchMode, Session};

use super::engine::{self, Place};
use super::{Failure, ModelArgs, npy, output};

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
        let ports = onnx::interface(&model)?;
        let inputs = self.read(&ports)?;
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
        let names = file_names(outputs.iter().map(|(name, _)| name.as_str()));
        for ((name, tensor), stem) in outputs.iter().zip(names) {
            let file = self.output.join(format!("{stem}.npy"));
            npy::write(&file, tensor)?;
            let name = name.escape_debug();
            output::line(format_args!("{name} {}{:?} -> {}", tensor.dtype, tensor.dims, file.display()))?;
        }
        Ok(())
    }

    /// The inputs in the model's order; each must be given, once, and nothing else.
    fn read(&self, ports: &[onnx::Input]) -> Result<Vec<Tensor>, Failure> {
        let mut wrong = Vec::new();
        let mut given: BTreeMap<&str, &Path> = BTreeMap::new();
        for (name, path) in &self.inputs {
            if !ports.iter().any(|port| port.name == *name) {
                wrong.push(format!("the model has no input {}", quoted(name)));
            } else if given.insert(name, path).is_some() {
                wrong.push(format!("the input {} is given twice", quoted(name)));
            }
        }
        let missing = ports.iter().filter(|port| !given.contains_key(port.name.as_str()));
        wrong.extend(missing.map(|port| format!("the input {} is not given", quoted(&port.name))));
        if !wrong.is_empty() {
            let names: Vec<String> = ports.iter().map(|port| quoted(&port.name)).collect();
            let help = format!("give --input NAME=FILE.npy once for each of: {}", names.join(", "));
            return Err(Failure::usage(wrong.join("; "), help));
        }
        ports.iter().filter_map(|port| given.get(port.name.as_str())).map(|path| npy::read(path)).collect()
    }
}

/// A file's name, without its ending, for each output: its ONNX name where that can be one. Different on systems that
/// take upper and lower case for the same, too.
fn file_names<'n>(names: impl Iterator<Item = &'n str>) -> Vec<String> {
    const LONGEST: usize = 100;
    let mut taken = BTreeSet::new();
    let mut stems = Vec::new();
    for name in names {
        let plain = |c: char| if c.is_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '_' };
        let mut base: String = name.chars().take(LONGEST).map(plain).collect();
        // Neither nothing, nor hidden, nor the folder above.
        if base.is_empty() || base.starts_with('.') {
            base.insert(0, '_');
        }
        let mut stem = base.clone();
        for k in 2.. {
            if taken.insert(stem.to_lowercase()) {
                break;
            }
            stem = format!("{base}__{k}");
        }
        stems.push(stem);
    }
    stems
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
        let values = eval::run(&graph, inputs)?;
        return Ok(graph.outputs().iter().map(|(name, _)| name.clone()).zip(values).collect());
    }
    let compiled = engine::compile(model, place, options)?;
    engine::with_session(&compiled, LaunchMode::default(), |session, tables| {
        session.run(&refs(inputs)?)?;
        let names = tables.outputs.iter().map(|port| port.name.to_owned());
        names.enumerate().map(|(k, name)| Ok((name, output_of(session, k)?))).collect()
    })
}

/// Tensors as the runtime takes them.
pub fn refs(inputs: &[Tensor]) -> Result<Vec<InputRef<'_>>, Failure> {
    inputs.iter().map(|x| Ok(InputRef::from_bytes(x.dtype, x.dims.as_slice().try_into()?, &x.bytes))).collect()
}

/// An output of the session's last run.
pub fn output_of(session: &Session<'_>, index: usize) -> Result<Tensor, Failure> {
    let output = session.output(index)?;
    let tensor = Tensor::new(output.dtype(), output.dims().to_vec(), output.bytes().to_vec());
    match tensor {
        Ok(tensor) => Ok(tensor),
        Err(why) => lapidary::bug!("the runtime's output {index}: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_get_files_of_their_own() {
        let names = ["a/b", "a_b", "A_B", "", "..", "logits", "\n", "日本"];
        let stems = file_names(names.into_iter());
        assert_eq!(stems, ["a_b", "a_b__2", "A_B__3", "_", "_..", "logits", "___2", "日本"]);
        assert!(file_names(["x".repeat(1000).as_str()].into_iter())[0].len() < 255);
    }
}
