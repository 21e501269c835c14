//! A case of the suite: a folder with a model and data sets, as `scripts/onnx-cases` writes it.
//!
//! Nothing here judges: what a data set cannot be read as is an error with its file's name.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use lapidary::diag::Place;
use lapidary::ir::eval::Tensor;
use lapidary::onnx::proto::ValueInfoProto;
use lapidary::onnx::{Input, Model, Stored};
use lapidary::profiles::Profiles;
use lapidary_runtime::DType;

/// A folder of the suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    Node,
    Simple,
    PytorchConverted,
    PytorchOperator,
    Light,
}

impl Group {
    pub const ALL: [Group; 5] =
        [Group::Node, Group::Simple, Group::PytorchConverted, Group::PytorchOperator, Group::Light];

    /// The folder's name.
    pub fn name(self) -> &'static str {
        match self {
            Group::Node => "node",
            Group::Simple => "simple",
            Group::PytorchConverted => "pytorch-converted",
            Group::PytorchOperator => "pytorch-operator",
            Group::Light => "light",
        }
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How far an element may be off: `|given - expected| <= atol + rtol * |expected|`.
#[derive(Clone, Copy, Debug)]
pub struct Tolerance {
    pub rtol: f64,
    pub atol: f64,
    /// Instead of `rtol` for f16, where it is larger.
    pub half: f64,
}

/// Operators that round many times where they are given halves. The suite's halves come from numpy, which rounds each
/// step to f16 and so strays from the exact result by more than it should; ours keep f32 inside.
const ACCUMULATING: [&str; 2] = ["Attention", "MatMul"];

/// Operators that sum numbers of a magnitude around 1 which cancel: the suite's f32 zeros come out of numpy's FFT as a few
/// units of 1, beyond the absolute tolerance of ONNX's rule.
const TRANSFORMING: [&str; 2] = ["DFT", "STFT"];

/// A few units of an f32 at 1.
const TRANSFORMED: f64 = 1e-6;

/// What ONNX's rule gives a bf16.
const TWO_BF16_UNITS: f64 = 1.0 / 64.0;

/// Two units of an f16, as ONNX's rule gives a bf16 two of its own.
const TWO_HALF_UNITS: f64 = 1.0 / 512.0;

impl Tolerance {
    /// The relative part for results of a type.
    pub fn rtol_of(&self, dtype: DType) -> f64 {
        if dtype == DType::BF16 {
            self.rtol.max(TWO_BF16_UNITS)
        } else if dtype == DType::F16 {
            self.rtol.max(self.half)
        } else {
            self.rtol
        }
    }
}

/// A case.
#[derive(Clone, Debug)]
pub struct Case {
    pub group: Group,
    pub name: String,
    pub dir: PathBuf,
}

/// Inputs and expected outputs, in the model's order; of sequences the elements.
pub struct DataSet {
    pub inputs: Vec<Tensor>,
    /// The names of the outputs.
    pub names: Vec<String>,
    pub outputs: Vec<Tensor>,
}

/// Every case in `dir`, by group and name; none of a group whose folder is missing.
pub fn all(dir: &Path) -> Vec<Case> {
    let mut cases = Vec::new();
    for group in Group::ALL {
        let folders = std::fs::read_dir(dir.join(group.name())).into_iter().flatten().flatten();
        let names = folders.filter_map(|entry| entry.file_name().into_string().ok());
        let mut names: Vec<String> = names.collect();
        names.sort();
        cases.extend(names.into_iter().map(|name| Case { group, dir: dir.join(group.name()).join(&name), name }));
    }
    cases
}

impl Case {
    /// The case's tolerance: ONNX's, unless `data.json` has another, or an operator asks for one.
    pub fn tolerance(&self, model: &Model) -> Result<Tolerance, String> {
        let mut tolerance = Tolerance { rtol: 1e-3, atol: 1e-7, half: 0.0 };
        if model.graph().node.iter().any(|node| ACCUMULATING.contains(&node.op_type())) {
            tolerance.half = TWO_HALF_UNITS;
        }
        if model.graph().node.iter().any(|node| TRANSFORMING.contains(&node.op_type())) {
            tolerance.atol = TRANSFORMED;
        }
        let path = self.dir.join("data.json");
        if !path.is_file() {
            return Ok(tolerance);
        }
        let said = |error: &dyn fmt::Display| format!("{}: {error}", path.display());
        let text = std::fs::read_to_string(&path).map_err(|error| said(&error))?;
        let stated: BTreeMap<String, f64> = serde_json::from_str(&text).map_err(|error| said(&error))?;
        tolerance.rtol = stated.get("rtol").copied().unwrap_or(tolerance.rtol);
        tolerance.atol = stated.get("atol").copied().unwrap_or(tolerance.atol);
        Ok(tolerance)
    }

    /// The data sets, at least one, each with a value for every input and output; the model is told what it
    /// leaves open of its inputs and the first shows.
    pub fn data_sets(&self, model: &mut Model) -> Result<Vec<DataSet>, String> {
        let graph = model.graph();
        let stored: Vec<&str> = graph.initializer.iter().map(|tensor| tensor.name()).collect();
        let inputs: Vec<ValueInfoProto> =
            graph.input.iter().filter(|info| !stored.contains(&info.name())).cloned().collect();
        let outputs = graph.output.clone();
        let mut sets = Vec::new();
        for number in 0.. {
            let dir = self.dir.join(format!("test_data_set_{number}"));
            if !dir.is_dir() {
                break;
            }
            let given = values(&dir, "input", &inputs, model)?;
            if number == 0 {
                for (info, value) in inputs.iter().zip(&given) {
                    model.take_structure(info.name(), value).map_err(|error| error.to_string())?;
                }
            }
            let expected = values(&dir, "output", &outputs, model)?;
            let (_, inputs) = tensors(&inputs, given)?;
            let (names, outputs) = tensors(&outputs, expected)?;
            sets.push(DataSet { inputs, names, outputs });
        }
        if sets.is_empty() { Err("it has no data set".to_owned()) } else { Ok(sets) }
    }
}

fn values(dir: &Path, what: &str, infos: &[ValueInfoProto], model: &Model) -> Result<Vec<Stored>, String> {
    let value = |(k, info): (usize, &ValueInfoProto)| {
        let path = dir.join(format!("{what}_{k}.pb"));
        let bytes = std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let at = Place::file(path.display().to_string());
        model.stored(&bytes, info.r#type.as_ref(), &at).map_err(|error| error.to_string())
    };
    infos.iter().enumerate().map(value).collect()
}

/// The tensors that values are for a compiled model, and their names.
fn tensors(infos: &[ValueInfoProto], values: Vec<Stored>) -> Result<(Vec<String>, Vec<Tensor>), String> {
    let (mut names, mut tensors) = (Vec::new(), Vec::new());
    for (info, value) in infos.iter().zip(values) {
        for (name, tensor) in value.tensors(info.name()) {
            names.push(name);
            tensors.push(Tensor::new(tensor.dtype, tensor.dims, tensor.data)?);
        }
    }
    Ok((names, tensors))
}

/// One profile that holds every data set: from the smallest to the largest extent of each symbolic dimension.
pub fn profiles(inputs: &[Input], sets: &[DataSet]) -> Profiles {
    let shapes = sets.iter().flat_map(|set| inputs.iter().zip(&set.inputs));
    Profiles::holding(shapes.map(|(input, tensor)| (input.symbols.as_slice(), tensor.dims.as_slice())))
}
