//! Test cases on disk: a folder with `model.onnx` and its inputs and expected outputs.
//!
//! Two forms are read: `manifest.json` with `golden.npz`, and ONNX's `test_data_set_N/{input,output}_K.pb`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lapidary::diag::{Place, quoted};
use lapidary::ir::eval::Tensor;
use lapidary::onnx::proto::ValueInfoProto;
use lapidary::onnx::{self, Fixed, Format, Model, Numbers, Stored, Structure, structure};
use lapidary::profiles::Profiles;
use serde::Deserialize;

use super::{Failure, ShapeArgs, npy};

/// The share of max |expected| by which a float output may be off where nothing says otherwise: what another order of
/// additions in `f32` does to a network, with room.
const SHARE: f64 = 1e-4;

/// The bar of ONNX's own cases, as its test runner has it.
const ELEMENTWISE: Bar = Bar::Elementwise { relative: 1e-3, absolute: 1e-7 };

/// A folder of cases.
pub struct CaseDir {
    pub cases: Vec<Case>,
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
    /// How far a float output may be off.
    pub bar: Bar,
}

/// How far a float output may be off.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bar {
    /// max |difference| at most this share of max |expected|.
    OfRange(f64, Yardstick),
    /// |difference| at most `absolute + relative * |expected|`, element by element: ONNX's rule.
    Elementwise { relative: f64, absolute: f64 },
    /// ||difference|| / ||expected|| at most this, and the cosine at least that.
    Relative { l2: f64, cosine: f64 },
}

/// What says how large a share may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Yardstick {
    /// [`SHARE`].
    Usual,
    /// The manifest's `sensitivity`: how far a jitter of 1e-6 of weights and inputs moved the output.
    Jitter,
    /// The manifest's `opt_vs_noopt`: how far the golden's maker is from itself with other kernels.
    Spread,
    /// As [`Yardstick::Jitter`], measured here on the case at hand.
    Measured,
}

impl Bar {
    /// The bar of a model about which nothing is said.
    pub const USUAL: Bar = Bar::OfRange(SHARE, Yardstick::Usual);
}

impl std::fmt::Display for Bar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Bar::OfRange(share, yardstick) => {
                let whence = match yardstick {
                    Yardstick::Usual => "",
                    Yardstick::Jitter => ", as far as the manifest's jitter of 1e-6 moves it",
                    Yardstick::Spread => ", as far apart as the manifest's two right results are",
                    Yardstick::Measured => ", as far as a jitter of 1e-6 moves it in this case",
                };
                write!(f, "{share:.1e} of the range{whence}")
            }
            Bar::Elementwise { relative, absolute } => write!(f, "{absolute:e} + {relative:e} of each element"),
            Bar::Relative { l2, cosine } => write!(f, "rel-L2 {l2:e}, cosine {cosine}"),
        }
    }
}

#[derive(Deserialize)]
struct Manifest {
    cases: Vec<ManifestCase>,
    tolerance: Option<Tolerance>,
    /// Of each jitter of weights and inputs, how far each output moved, as a share of its range.
    #[serde(default)]
    sensitivity: BTreeMap<String, Vec<Option<f64>>>,
}

/// The jitter that stands for another order of `f32` additions, as manifests name it.
const REORDERED: &str = "1e-6";

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
    /// How far the golden's own maker is from it with another choice of kernels.
    opt_vs_noopt: Option<Spread>,
}

#[derive(Deserialize)]
struct Spread {
    max_rel_to_range: Option<f64>,
}

impl Manifest {
    /// The bar of output `k` of the model, which `expected` describes. Two right implementations are as far apart as
    /// the manifest says, so no closer agreement can be asked for.
    fn bar(&self, k: usize, expected: &ManifestTensor) -> Bar {
        if let Some(Tolerance { rel_l2, cosine }) = self.tolerance {
            return Bar::Relative { l2: rel_l2, cosine };
        }
        let jitter = self.sensitivity.iter().find(|(jitter, _)| jitter.starts_with(REORDERED));
        let moved = jitter.and_then(|(_, moved)| *moved.get(k)?).map(|share| (share, Yardstick::Jitter));
        let spread = expected.opt_vs_noopt.as_ref().and_then(|spread| spread.max_rel_to_range);
        let spread = spread.map(|share| (share, Yardstick::Spread));
        let stated = [moved, spread].into_iter().flatten().filter(|(share, _)| *share > SHARE);
        let widest = stated.max_by(|(a, _), (b, _)| a.total_cmp(b));
        widest.map_or(Bar::USUAL, |(share, yardstick)| Bar::OfRange(share, yardstick))
    }
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
            CaseDir { cases: data_sets(dir, model)? }
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

    /// Brings the tensors of the cases, which are as the model has them, into the formats of the interface.
    pub fn take_formats(&mut self, inputs: &[onnx::Input], formats: &[(String, Format)]) {
        let asked = |name: &str| formats.iter().find(|(asked, _)| asked == name).map(|(_, format)| *format);
        for case in &mut self.cases {
            let given = inputs.iter().map(|input| input.name.as_str()).zip(&mut case.inputs);
            let expected = case.outputs.iter_mut().map(|expected| (expected.name.as_str(), &mut expected.tensor));
            for (name, tensor) in given.chain(expected) {
                if let Some(format) = asked(name) {
                    *tensor = format.tensor(tensor.clone());
                }
            }
        }
    }

    /// Profiles that hold every case: from the smallest to the largest extent of each symbolic dimension.
    pub fn profiles(&self, model: &Model) -> Result<Profiles, Failure> {
        let inputs = onnx::interface(model)?;
        let shapes = self.cases.iter().flat_map(|case| inputs.iter().zip(&case.inputs));
        Ok(Profiles::holding(shapes.map(|(input, tensor)| (input.symbols.as_slice(), tensor.dims.as_slice()))))
    }
}

/// Which of the model's outputs has this name: one that it lists, or an element of a sequence that it lists.
fn place_of_output(outputs: &[ValueInfoProto], name: &str) -> Option<usize> {
    outputs.iter().position(|info| match structure(info.r#type.as_ref()) {
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
    let manifest: Manifest = serde_json::from_str(&finite(&text)).map_err(|error| Failure::file(&path, error))?;
    let golden = npy::read_archive(&dir.join("golden.npz"))?;
    let mut wrong = Vec::new();
    let mut cases = Vec::new();
    for (k, case) in manifest.cases.iter().enumerate() {
        let mut tensors = |what: &str, items: &[ManifestTensor], place: &dyn Fn(&str) -> Option<usize>| {
            let mut found = BTreeMap::new();
            for item in items {
                match (place(&item.name), golden.get(&item.key)) {
                    (Some(k), Some(tensor)) => {
                        drop(found.insert(item.name.clone(), (tensor.clone(), manifest.bar(k, item))));
                    }
                    (Some(_), None) => wrong.push(format!("case {k}: golden.npz has no array {}", quoted(&item.key))),
                    (None, _) => wrong.push(format!("case {k}: the model has no {what} {}", quoted(&item.name))),
                }
            }
            found
        };
        let mut given = tensors("input", &case.inputs, &|name| inputs.iter().position(|input| input == name));
        let expected = tensors("output", &case.outputs, &|name| place_of_output(outputs, name));
        let missing = inputs.iter().filter(|name| !given.contains_key(*name));
        wrong.extend(missing.map(|name| format!("case {k}: the input {} has no array", quoted(name))));
        cases.push(Case {
            name: format!("case {k}: {}", case.description),
            inputs: inputs.iter().filter_map(|name| given.remove(name)).map(|(tensor, _)| tensor).collect(),
            outputs: expected.into_iter().map(|(name, (tensor, bar))| Expected { name, tensor, bar }).collect(),
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
    Ok(CaseDir { cases })
}

/// JSON as Python writes it, without its numbers that are none: `NaN`, `Infinity` and `-Infinity` become `null`.
fn finite(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(quote) = rest.find('"') {
        let (plain, quoted) = rest.split_at(quote);
        out.push_str(&without_names(plain));
        let mut escaped = false;
        let end = quoted.char_indices().skip(1).find(|&(_, c)| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        let (string, behind) = quoted.split_at(end.map_or(quoted.len(), |(at, _)| at + 1));
        out.push_str(string);
        rest = behind;
    }
    out.push_str(&without_names(rest));
    out
}

fn without_names(plain: &str) -> String {
    plain.replace("-Infinity", "null").replace("Infinity", "null").replace("NaN", "null")
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
            outputs: outputs.into_iter().map(|(name, tensor)| Expected { name, tensor, bar: ELEMENTWISE }).collect(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_are_none_are_left_out() {
        let text = r#"{"min": NaN, "note": "NaN \" -Infinity", "max": [-Infinity, Infinity, 1]}"#;
        let expected = r#"{"min": null, "note": "NaN \" -Infinity", "max": [null, null, 1]}"#;
        assert_eq!(finite(text), expected);
    }

    #[test]
    fn the_manifest_says_how_far_an_output_may_be_off() {
        let of = |text: &str, k: usize| {
            let manifest: Manifest = serde_json::from_str(text).unwrap();
            manifest.bar(k, &manifest.cases[0].outputs[k])
        };
        let case = r#""cases": [{"inputs": [], "outputs": [
            {"name": "a", "key": "a"},
            {"name": "b", "key": "b", "opt_vs_noopt": {"max_rel_to_range": 0.03}},
            {"name": "c", "key": "c", "opt_vs_noopt": {"max_rel_to_range": 1e-6}}]}]"#;
        let sensitivity = r#""sensitivity": {"1e-6 (fp32 reordering)": [0.004, 0.01, null], "5e-4 (TF32)": [1, 1, 1]}"#;
        let text = format!("{{{case}, {sensitivity}}}");
        assert_eq!(of(&text, 0), Bar::OfRange(0.004, Yardstick::Jitter));
        assert_eq!(of(&text, 1), Bar::OfRange(0.03, Yardstick::Spread));
        assert_eq!(of(&text, 2), Bar::USUAL);
        assert_eq!(of(&format!("{{{case}}}"), 0), Bar::USUAL);
        let stated = format!(r#"{{{case}, {sensitivity}, "tolerance": {{"rel_l2": 0.5, "cosine": 0.9}}}}"#);
        assert_eq!(of(&stated, 0), Bar::Relative { l2: 0.5, cosine: 0.9 });
    }
}
