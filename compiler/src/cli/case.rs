//! Test cases on disk: a folder with `model.onnx` and its inputs and expected outputs.
//!
//! Two forms are read: `manifest.json` with `golden.npz`, and ONNX's `test_data_set_N/{input,output}_K.pb`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lapidary::diag::{Place, quoted};
use lapidary::ir::eval::Tensor;
use lapidary::onnx::proto::ValueInfoProto;
use lapidary::onnx::{self, Fixed, Model, Numbers, Stored, Structure, structure};
use lapidary::profiles::Profiles;
use serde::Deserialize;

use super::{Failure, ShapeArgs, npy};

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
    /// Reads the cases in `dir`: at least one, and each names inputs and outputs that the model has. What
    /// the model leaves open of its inputs is what `shape` states, or where `dir` has ONNX's data sets what the first shows.
    ///
    /// # Errors
    /// The folder, or a file in it, is not what it should be: the call is at fault.
    pub fn read(dir: &Path, model: &mut Model, shape: &ShapeArgs) -> Result<CaseDir, Failure> {
        let found = if dir.join("manifest.json").is_file() {
            shape.state_structure(model)?;
            let inputs = onnx::inputs(model)?;
            let names: Vec<String> = inputs.iter().map(|input| input.name.clone()).collect();
            let mut found = from_manifest(dir, &names, &model.graph().output)?;
            for case in &mut found.cases {
                for (tensor, input) in case.inputs.iter_mut().zip(&inputs) {
                    // Archives hold a scalar as a vector of one.
                    if input.dims.is_empty() && tensor.dims == [1] {
                        tensor.dims.clear();
                    }
                }
            }
            found
        } else if !shape.elements.is_empty() || !shape.ranks.is_empty() {
            let what = "--elements or --rank is given for data sets";
            return Err(Failure::usage(what, "leave it out: the values in them tell"));
        } else {
            let cases = data_sets(dir, model)?;
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

/// Whether the model may have an output of this name: one that it lists, or an element of a sequence that it lists.
fn may_be_output(outputs: &[ValueInfoProto], name: &str) -> bool {
    outputs.iter().any(|info| match structure(info.r#type.as_ref()) {
        Structure::Sequence(_) | Structure::OptionalSequence(_) => {
            let element = name.strip_prefix(info.name()).and_then(|rest| rest.strip_prefix('.'));
            element.is_some_and(|element| element.parse::<usize>().is_ok())
        }
        Structure::Tensor | Structure::OptionalTensor(_) | Structure::Other => info.name() == name,
    })
}

fn from_manifest(dir: &Path, inputs: &[String], outputs: &[ValueInfoProto]) -> Result<CaseDir, Failure> {
    let path = dir.join("manifest.json");
    let text = std::fs::read_to_string(&path).map_err(|error| Failure::file(&path, error))?;
    let manifest: Manifest = serde_json::from_str(&text).map_err(|error| Failure::file(&path, error))?;
    let golden = npy::read_archive(&dir.join("golden.npz"))?;
    let mut wrong = Vec::new();
    let mut cases = Vec::new();
    for (k, case) in manifest.cases.iter().enumerate() {
        let mut tensors = |what: &str, items: &[ManifestTensor], is_name: &dyn Fn(&str) -> bool| {
            let mut found = BTreeMap::new();
            for item in items {
                match (is_name(&item.name), golden.get(&item.key)) {
                    (true, Some(tensor)) => drop(found.insert(item.name.clone(), tensor.clone())),
                    (true, None) => wrong.push(format!("case {k}: golden.npz has no array {}", quoted(&item.key))),
                    (false, _) => wrong.push(format!("case {k}: the model has no {what} {}", quoted(&item.name))),
                }
            }
            found
        };
        let mut given = tensors("input", &case.inputs, &|name| inputs.iter().any(|input| input == name));
        let expected = tensors("output", &case.outputs, &|name| may_be_output(outputs, name));
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
        let outputs: Vec<String> = outputs.iter().map(|info| info.name().to_owned()).collect();
        return Err(Failure::usage(
            format!("{}: {}", path.display(), wrong.join("; ")),
            format!("the model has the inputs {} and the outputs {}", list(inputs), list(&outputs)),
        ));
    }
    let bar = manifest
        .tolerance
        .map_or(Bar::OfRange(1e-4), |tolerance| Bar::Relative { l2: tolerance.rel_l2, cosine: tolerance.cosine });
    Ok(CaseDir { cases, bar })
}

fn data_sets(dir: &Path, model: &mut Model) -> Result<Vec<Case>, Failure> {
    let graph = model.graph();
    let stored: Vec<&str> = graph.initializer.iter().map(|tensor| tensor.name()).collect();
    let ports: Vec<ValueInfoProto> =
        graph.input.iter().filter(|info| !stored.contains(&info.name())).cloned().collect();
    let results = graph.output.clone();
    let mut cases = Vec::new();
    for k in 0.. {
        let set = dir.join(format!("test_data_set_{k}"));
        if !set.is_dir() {
            break;
        }
        let (given, expected) = (files(&set, "input")?, files(&set, "output")?);
        if given.len() != ports.len() || expected.len() > results.len() {
            return Err(Failure::usage(
                format!("{} has {} inputs and {} outputs", set.display(), given.len(), expected.len()),
                format!("the model takes {} and has {}: input_0.pb.., output_0.pb..", ports.len(), results.len()),
            ));
        }
        let (given, expected) = (values(&given, &ports, model)?, values(&expected, &results, model)?);
        if k == 0 {
            for (info, value) in ports.iter().zip(&given) {
                model.take_structure(info.name(), value)?;
            }
        }
        let given = tensors(&set, &ports, given)?;
        let names: Vec<String> = onnx::inputs(model)?.into_iter().map(|input| input.name).collect();
        if !given.iter().map(|(name, _)| name).eq(&names) {
            return Err(Failure::usage(
                format!("{} has sequences of other lengths than the first data set", set.display()),
                "a model is compiled for one number of elements; put the others into folders of their own",
            ));
        }
        let outputs = tensors(&set, &results, expected)?;
        cases.push(Case {
            name: format!("test_data_set_{k}"),
            inputs: given.into_iter().map(|(_, tensor)| tensor).collect(),
            outputs: outputs.into_iter().map(|(name, tensor)| Expected { name, tensor }).collect(),
        });
    }
    Ok(cases)
}

/// The files of a set, numbered from 0.
fn files(set: &Path, what: &str) -> Result<Vec<PathBuf>, Failure> {
    let mut files = Vec::new();
    for k in 0.. {
        let path = set.join(format!("{what}_{k}.pb"));
        if !path.is_file() {
            if let Some(later) = later(set, what, k) {
                let help = "number the files from 0, one for each of the model's";
                return Err(Failure::usage(format!("{} is there, and {} is not", later, path.display()), help));
            }
            break;
        }
        files.push(path);
    }
    Ok(files)
}

fn values(files: &[PathBuf], infos: &[ValueInfoProto], model: &Model) -> Result<Vec<Stored>, Failure> {
    let value = |(path, info): (&PathBuf, &ValueInfoProto)| -> Result<Stored, Failure> {
        let bytes = std::fs::read(path).map_err(|error| Failure::file(path, error))?;
        Ok(model.stored(&bytes, info.r#type.as_ref(), &Place::file(path.display().to_string()))?)
    };
    files.iter().zip(infos).map(value).collect()
}

/// The tensors that values are for a compiled model, by name.
fn tensors(set: &Path, infos: &[ValueInfoProto], values: Vec<Stored>) -> Result<Vec<(String, Tensor)>, Failure> {
    let mut tensors = Vec::new();
    for (info, value) in infos.iter().zip(values) {
        for (name, tensor) in value.tensors(info.name()) {
            let tensor = Tensor::new(tensor.dtype, tensor.dims, tensor.data);
            tensors.push((name, tensor.map_err(|error| Failure::file(set, error))?));
        }
    }
    Ok(tensors)
}

/// A file of the set with a number above `k`.
fn later(set: &Path, what: &str, k: usize) -> Option<String> {
    let names = std::fs::read_dir(set).ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let number = |name: &str| name.strip_prefix(what)?.strip_prefix('_')?.strip_suffix(".pb")?.parse::<usize>().ok();
    names.filter(|name| number(name).is_some_and(|number| number > k)).min()
}
