//! Test cases on disk: a folder with `model.onnx` and its inputs and expected outputs.
//!
//! Two forms are read: `manifest.json` with `golden.npz`, and ONNX's `test_data_set_N/{input,output}_K.pb`.

use std::collections::BTreeMap;
use std::path::Path;

use lapidary::diag::{Place, quoted};
use lapidary::ir::eval::Tensor;
use lapidary::onnx::{self, Fixed, Model, Numbers};
use lapidary::profiles::Profiles;
use prost::Message;
use serde::Deserialize;

use super::{Failure, npy};

/// A folder of cases.
pub struct CaseDir {
    pub cases: Vec<Case>,
    pub bar: Bar,
}

/// Inputs, in the order of the model's, and expected outputs by name.
pub struct Case {
    pub name: String,
    pub inputs: Vec<Tensor>,
    pub outputs: Vec<Expected>,
}

/// An expected output.
pub struct Expected {
    pub name: String,
    pub tensor: Tensor,
}

/// How far a float output may be off.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bar {
    /// max |difference| at most this share of max |expected|.
    OfRange(f64),
    /// |difference| at most `absolute + relative * |expected|`, element by element: ONNX's rule.
    Elementwise { relative: f64, absolute: f64 },
    /// ||difference|| / ||expected|| at most this, and the cosine at least that.
    Relative { l2: f64, cosine: f64 },
}

#[derive(Deserialize)]
struct Manifest {
    cases: Vec<ManifestCase>,
    tolerance: Option<Tolerance>,
}

#[derive(Deserialize)]
struct Tolerance {
    rel_l2: f64,
    cosine: f64,
}

#[derive(Deserialize)]
struct ManifestCase {
    #[serde(default)]
    description: String,
    inputs: Vec<ManifestTensor>,
    outputs: Vec<ManifestTensor>,
}

#[derive(Deserialize)]
struct ManifestTensor {
    name: String,
    key: String,
}

impl CaseDir {
    /// Reads the cases in `dir`: at least one, and each names inputs and outputs that the model has.
    ///
    /// # Errors
    /// The folder, or a file in it, is not what it should be: the call is at fault.
    pub fn read(dir: &Path, model: &Model) -> Result<CaseDir, Failure> {
        let inputs = onnx::inputs(model)?;
        let found = if dir.join("manifest.json").is_file() {
            let names: Vec<String> = inputs.iter().map(|input| input.name.clone()).collect();
            let mut found = from_manifest(dir, &names, &output_names(model))?;
            for case in &mut found.cases {
                for (tensor, input) in case.inputs.iter_mut().zip(&inputs) {
                    // Archives hold a scalar as a vector of one.
                    if input.dims.is_empty() && tensor.dims == [1] {
                        tensor.dims.clear();
                    }
                }
            }
            found
        } else {
            let cases = data_sets(dir, model, inputs.len())?;
            CaseDir { cases, bar: Bar::Elementwise { relative: 1e-3, absolute: 1e-7 } }
        };
        if found.cases.is_empty() {
            return Err(Failure::usage(
                format!("{} has no cases", dir.display()),
                "it needs manifest.json with golden.npz, or test_data_set_0/ with input_0.pb and output_0.pb",
            ));
        }
        Ok(found)
    }

    /// Leaves out the inputs that are constants of the model now; the cases must agree with them.
    ///
    /// # Errors
    /// A case gives a fixed input another value.
    pub fn take_fixed(&mut self, inputs: &[onnx::Input], fixed: &[Fixed]) -> Result<(), Failure> {
        for case in &mut self.cases {
            let mut kept = Vec::with_capacity(inputs.len());
            for (input, tensor) in inputs.iter().zip(case.inputs.drain(..)) {
                match fixed.iter().find(|fixed| fixed.name == input.name) {
                    None => kept.push(tensor),
                    Some(fixed) if fixed.value == tensor => {}
                    Some(_) => {
                        let what = format!("{}: {} has another value than is fixed", case.name, quoted(&input.name));
                        let stated = Numbers::from(&tensor);
                        let help = format!("the case needs --value {}={stated}", quoted(&input.name).trim_matches('"'));
                        return Err(Failure::usage(what, help));
                    }
                }
            }
            case.inputs = kept;
        }
        Ok(())
    }

    /// Profiles that hold every case: from the smallest to the largest extent of each symbolic dimension.
    pub fn profiles(&self, model: &Model) -> Result<Profiles, Failure> {
        let mut ranges: BTreeMap<String, lapidary::ir::Range> = BTreeMap::new();
        for (k, input) in onnx::inputs(model)?.into_iter().enumerate() {
            for case in &self.cases {
                let Some(tensor) = case.inputs.get(k) else { continue };
                for (name, &extent) in input.symbols.iter().zip(&tensor.dims) {
                    let Some(name) = name else { continue };
                    let value = i64::try_from(extent).unwrap_or(i64::MAX);
                    let first = lapidary::ir::Range { min: value, opt: value, max: value };
                    let range = ranges.entry(name.clone()).or_insert(first);
                    range.min = range.min.min(value);
                    range.max = range.max.max(value);
                }
            }
        }
        let mut profiles = Profiles::new();
        for (name, range) in ranges {
            profiles.add(&name, range);
        }
        Ok(profiles)
    }
}

/// The names of the model's outputs, in order.
fn output_names(model: &Model) -> Vec<String> {
    model.graph().output.iter().map(|info| info.name().to_owned()).collect()
}

fn from_manifest(dir: &Path, inputs: &[String], outputs: &[String]) -> Result<CaseDir, Failure> {
    let path = dir.join("manifest.json");
    let text = std::fs::read_to_string(&path).map_err(|error| Failure::file(&path, error))?;
    let manifest: Manifest = serde_json::from_str(&text).map_err(|error| Failure::file(&path, error))?;
    let golden = npy::read_archive(&dir.join("golden.npz"))?;
    let mut wrong = Vec::new();
    let mut cases = Vec::new();
    for (k, case) in manifest.cases.iter().enumerate() {
        let mut tensors = |what: &str, items: &[ManifestTensor], names: &[String]| {
            let mut found = BTreeMap::new();
            for item in items {
                match (names.contains(&item.name), golden.get(&item.key)) {
                    (true, Some(tensor)) => drop(found.insert(item.name.clone(), tensor.clone())),
                    (true, None) => wrong.push(format!("case {k}: golden.npz has no array {}", quoted(&item.key))),
                    (false, _) => wrong.push(format!("case {k}: the model has no {what} {}", quoted(&item.name))),
                }
            }
            found
        };
        let mut given = tensors("input", &case.inputs, inputs);
        let expected = tensors("output", &case.outputs, outputs);
        let missing = inputs.iter().filter(|name| !given.contains_key(*name));
        wrong.extend(missing.map(|name| format!("case {k}: the input {} has no array", quoted(name))));
        cases.push(Case {
            name: format!("case {k}: {}", case.description),
            inputs: inputs.iter().filter_map(|name| given.remove(name)).collect(),
            outputs: expected.into_iter().map(|(name, tensor)| Expected { name, tensor }).collect(),
        });
    }
    if !wrong.is_empty() {
        let list = |names: &[String]| names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ");
        return Err(Failure::usage(
            format!("{}: {}", path.display(), wrong.join("; ")),
            format!("the model has the inputs {} and the outputs {}", list(inputs), list(outputs)),
        ));
    }
    let bar = manifest
        .tolerance
        .map_or(Bar::OfRange(1e-4), |tolerance| Bar::Relative { l2: tolerance.rel_l2, cosine: tolerance.cosine });
    Ok(CaseDir { cases, bar })
}

fn data_sets(dir: &Path, model: &Model, inputs: usize) -> Result<Vec<Case>, Failure> {
    let names = output_names(model);
    let mut cases = Vec::new();
    for k in 0.. {
        let set = dir.join(format!("test_data_set_{k}"));
        if !set.is_dir() {
            break;
        }
        let given = tensors(&set, "input", model)?;
        let expected = tensors(&set, "output", model)?;
        if given.len() != inputs || expected.len() > names.len() {
            return Err(Failure::usage(
                format!("{} has {} inputs and {} outputs", set.display(), given.len(), expected.len()),
                format!("the model takes {inputs} and has {}: input_0.pb.., output_0.pb..", names.len()),
            ));
        }
        let outputs = names.iter().cloned().zip(expected);
        cases.push(Case {
            name: format!("test_data_set_{k}"),
            inputs: given,
            outputs: outputs.map(|(name, tensor)| Expected { name, tensor }).collect(),
        });
    }
    Ok(cases)
}

fn tensors(set: &Path, what: &str, model: &Model) -> Result<Vec<Tensor>, Failure> {
    let mut tensors = Vec::new();
    for k in 0.. {
        let path = set.join(format!("{what}_{k}.pb"));
        if !path.is_file() {
            if let Some(later) = later(set, what, k) {
                let help = "number the files from 0, one for each of the model's";
                return Err(Failure::usage(format!("{} is there, and {} is not", later, path.display()), help));
            }
            break;
        }
        let bytes = std::fs::read(&path).map_err(|error| Failure::file(&path, error))?;
        let proto = onnx::proto::TensorProto::decode(bytes.as_slice()).map_err(|error| Failure::file(&path, error))?;
        let tensor = model.tensor(&proto, &Place::file(path.display().to_string()))?;
        let tensor = Tensor::new(tensor.dtype, tensor.dims, tensor.data);
        tensors.push(tensor.map_err(|error| Failure::file(&path, error))?);
    }
    Ok(tensors)
}

/// A file of the set with a number above `k`.
fn later(set: &Path, what: &str, k: usize) -> Option<String> {
    let names = std::fs::read_dir(set).ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let number = |name: &str| name.strip_prefix(what)?.strip_prefix('_')?.strip_suffix(".pb")?.parse::<usize>().ok();
    names.filter(|name| number(name).is_some_and(|number| number > k)).min()
}
