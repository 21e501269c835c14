//! Test cases on disk: a folder with `model.onnx` and its inputs and expected outputs.
//!
//! Two forms are read: `manifest.json` with `golden.npz`, and ONNX's `test_data_set_N/{input,output}_K.pb`.

use std::collections::BTreeMap;
use std::path::Path;

use lapidary::diag::Place;
use lapidary::ir::eval::Tensor;
use lapidary::onnx::{self, Model};
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
    /// Reads the cases in `dir`. `inputs` are the names of the model's inputs, in order.
    pub fn read(dir: &Path, model: &Model) -> Result<CaseDir, Failure> {
        let inputs = onnx::inputs(model)?;
        if dir.join("manifest.json").is_file() {
            let names: Vec<String> = inputs.iter().map(|input| input.name.clone()).collect();
            let mut found = from_manifest(dir, &names)?;
            for case in &mut found.cases {
                for (tensor, input) in case.inputs.iter_mut().zip(&inputs) {
                    // Archives hold a scalar as a vector of one.
                    if input.dims.is_empty() && tensor.dims == [1] {
                        tensor.dims.clear();
                    }
                }
            }
            return Ok(found);
        }
        let cases = data_sets(dir, model)?;
        if cases.is_empty() {
            return Err(Failure::usage(
                format!("{} has no cases", dir.display()),
                "it needs manifest.json with golden.npz, or test_data_set_0/ with input_0.pb and output_0.pb",
            ));
        }
        Ok(CaseDir { cases, bar: Bar::Elementwise { relative: 1e-3, absolute: 1e-7 } })
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

fn from_manifest(dir: &Path, names: &[String]) -> Result<CaseDir, Failure> {
    let path = dir.join("manifest.json");
    let text = std::fs::read_to_string(&path).map_err(|error| Failure::file(&path, error))?;
    let manifest: Manifest = serde_json::from_str(&text).map_err(|error| Failure::file(&path, error))?;
    let golden = npy::read_archive(&dir.join("golden.npz"))?;
    let tensor = |item: &ManifestTensor| {
        golden.get(&item.key).cloned().ok_or_else(|| {
            Failure::usage(format!("golden.npz has no array {}", item.key), "the manifest names its arrays")
        })
    };
    let mut cases = Vec::new();
    for (k, case) in manifest.cases.iter().enumerate() {
        let mut inputs = Vec::new();
        for name in names {
            let item = case.inputs.iter().find(|item| item.name == *name).ok_or_else(|| {
                Failure::usage(format!("case {k} has no input {name}"), "the manifest must name every input")
            })?;
            inputs.push(tensor(item)?);
        }
        let mut outputs = Vec::new();
        for item in &case.outputs {
            outputs.push(Expected { name: item.name.clone(), tensor: tensor(item)? });
        }
        cases.push(Case { name: format!("case {k}: {}", case.description), inputs, outputs });
    }
    let bar = manifest
        .tolerance
        .map_or(Bar::OfRange(1e-4), |tolerance| Bar::Relative { l2: tolerance.rel_l2, cosine: tolerance.cosine });
    Ok(CaseDir { cases, bar })
}

fn data_sets(dir: &Path, model: &Model) -> Result<Vec<Case>, Failure> {
    let output_names: Vec<String> = model.graph().output.iter().map(|info| info.name().to_owned()).collect();
    let mut cases = Vec::new();
    for k in 0.. {
        let set = dir.join(format!("test_data_set_{k}"));
        if !set.is_dir() {
            break;
        }
        let inputs = tensors(&set, "input", model)?;
        let outputs = tensors(&set, "output", model)?;
        let outputs = output_names.iter().cloned().zip(outputs);
        cases.push(Case {
            name: format!("test_data_set_{k}"),
            inputs,
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
