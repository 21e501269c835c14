//! The builder: what is compiled, and the compilation.

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};

use lapidary::Options;
use lapidary::emit::{self, Code, Emission, EmittedTarget, Runtime};
use lapidary::folder::{self, Stale};
use lapidary::ir::Range;
use lapidary::lower::Target;
use lapidary::onnx::{self, Format, Model, Numbers};
use lapidary::passes::Precision;
use lapidary::profiles::Profiles;

use crate::{Error, cargo, cuda};

/// The variable that asks for types alone.
const STUB: &str = "LAPIDARY_STUB";

/// Compiles one model.
#[derive(Clone, Debug)]
#[must_use = "`emit` compiles the model"]
pub struct Compiler {
    model: PathBuf,
    name: Option<String>,
    targets: Vec<String>,
    precision: String,
    dims: Vec<(String, Range)>,
    values: Vec<(String, String)>,
    elements: Vec<(String, usize)>,
    ranks: Vec<(String, usize)>,
    formats: Vec<(String, String)>,
    cuda: Option<PathBuf>,
    contents: Contents,
    out_dir: Option<PathBuf>,
}

/// What a module holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Contents {
    Plans,
    /// The types alone.
    Stub,
}

/// What was written.
#[derive(Clone, Debug)]
pub struct Emitted {
    /// The module's name.
    pub name: String,
    /// The file to include, `OUT_DIR/NAME.rs`.
    pub include: PathBuf,
    /// The folder of the module's files, `OUT_DIR/NAME`.
    pub folder: PathBuf,
    /// The weights, for programs that load them from a file: those of models whose weights have more than 128 MiB,
    /// which are not embedded. `None` for a stub.
    pub weights: Option<PathBuf>,
    /// The model's own metadata, such as the alphabet of a text recognizer.
    pub metadata: BTreeMap<String, String>,
}

impl Compiler {
    /// Compiles the `.onnx` file at `model`, relative to the package's folder.
    pub fn new(model: impl Into<PathBuf>) -> Compiler {
        Compiler {
            model: model.into(),
            name: None,
            targets: Vec::new(),
            precision: "fp32".to_owned(),
            dims: Vec::new(),
            values: Vec::new(),
            elements: Vec::new(),
            ranks: Vec::new(),
            formats: Vec::new(),
            cuda: None,
            contents: Contents::Plans,
            out_dir: None,
        }
    }

    /// The module's name; by default that of the file.
    pub fn name(mut self, name: impl Into<String>) -> Compiler {
        self.name = Some(name.into());
        self
    }

    /// Adds a target: `cpu`, `sm_80`, `sm_90a`. Without any it is `cpu`.
    pub fn target(mut self, target: impl Into<String>) -> Compiler {
        self.targets.push(target.into());
        self
    }

    /// Adds several targets.
    pub fn targets<T: Into<String>>(mut self, targets: impl IntoIterator<Item = T>) -> Compiler {
        self.targets.extend(targets.into_iter().map(Into::into));
        self
    }

    /// The type that f32 arithmetic is done in: `fp32` (the default), `tf32`, `fp16`, `bf16`.
    pub fn precision(mut self, precision: impl Into<String>) -> Compiler {
        self.precision = precision.into();
        self
    }

    /// The smallest, typical and largest value of a symbolic dimension; said again for one name, each is a further
    /// optimization profile. A dimension that is not named takes 1 to 64.
    pub fn dim(mut self, name: impl Into<String>, min: i64, opt: i64, max: i64) -> Compiler {
        self.dims.push((name.into(), Range { min, opt, max }));
        self
    }

    /// Makes an input that has the same value in every run a constant: its elements, such as `0,2` or `1,1,2.5`.
    pub fn value(mut self, input: impl Into<String>, elements: impl Into<String>) -> Compiler {
        self.values.push((input.into(), elements.into()));
        self
    }

    /// How many elements an input that is a sequence has: it becomes the inputs `NAME.0`, `NAME.1`, .. For an optional
    /// input, 0 says that it is absent.
    pub fn elements(mut self, input: impl Into<String>, count: usize) -> Compiler {
        self.elements.push((input.into(), count));
        self
    }

    /// The rank of an input without a shape, whose dimensions are then `NAME.0`, `NAME.1`, ..
    pub fn rank(mut self, input: impl Into<String>, rank: usize) -> Compiler {
        self.ranks.push((input.into(), rank));
        self
    }

    /// The order of axes, `nchw` or `nhwc`, in which an image is given or taken that the model has in the other of the two.
    pub fn io_format(mut self, name: impl Into<String>, format: impl Into<String>) -> Compiler {
        self.formats.push((name.into(), format.into()));
        self
    }

    /// The CUDA toolkit (or the NVRTC library, or the nvcc) that compiles the kernels; by default what `CUDA_HOME` or
    /// else `NVCC` names.
    pub fn cuda(mut self, toolkit: impl Into<PathBuf>) -> Compiler {
        self.cuda = Some(toolkit.into());
        self
    }

    /// Writes the module's types alone, as `LAPIDARY_STUB=1` in the environment does.
    pub fn stub(mut self) -> Compiler {
        self.contents = Contents::Stub;
        self
    }

    /// Writes below this folder instead of `OUT_DIR`.
    pub fn out_dir(mut self, folder: impl Into<PathBuf>) -> Compiler {
        self.out_dir = Some(folder.into());
        self
    }

    /// Compiles the model, writes the module, and tells cargo what it depends on.
    ///
    /// # Errors
    /// Everything that is wrong with the call, or with the model; a CUDA compiler that is missing or does not know a
    /// target; files that cannot be written, or whose names cargo cannot be told.
    pub fn emit(self) -> Result<Emitted, Error> {
        // First of all: whatever fails below, correcting one of these must run the script again.
        for variable in cuda::variables().iter().map(String::as_str).chain([STUB]) {
            println!("cargo::rerun-if-env-changed={variable}");
        }
        cargo::rerun_if_changed(&self.model)?;
        let (out_dir, options) = self.checked()?;
        let mut model = onnx::load(&self.model)?;
        for (input, count) in &self.elements {
            model.set_elements(input, *count)?;
        }
        for (input, rank) in &self.ranks {
            model.set_rank(input, *rank)?;
        }
        self.fix_inputs(&mut model)?;
        self.set_formats(&mut model)?;
        let beside = self.model.parent().unwrap_or(Path::new(""));
        for location in model.external.mapped() {
            cargo::rerun_if_changed(&beside.join(location))?;
        }
        let asked = env::var_os(STUB).is_some_and(|value| value != "0" && !value.is_empty());
        let module = match if asked { Contents::Stub } else { self.contents } {
            Contents::Plans => self.module(&model, &options)?,
            Contents::Stub => self.stub_of(&mut model, &options)?,
        };
        let folder = out_dir.join(&module.name);
        folder::write(&folder, &module.files, Stale::Everything)?;
        let include = out_dir.join(format!("{}.rs", module.name));
        folder::write_one(&include, declaration(&module.name).as_bytes())?;
        Ok(Emitted {
            weights: module.files.contains_key("weights.bin").then(|| folder.join("weights.bin")),
            name: module.name,
            include,
            folder,
            metadata: metadata(&model),
        })
    }

    fn fix_inputs(&self, model: &mut Model) -> Result<(), Error> {
        let mut wrong = Vec::new();
        for (name, elements) in &self.values {
            match elements.parse::<Numbers>() {
                Ok(value) => model.fix_input(name, &value)?,
                Err(why) => wrong.push(format!("value {name:?}: {why}")),
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(Error::Call(wrong)) }
    }

    fn set_formats(&self, model: &mut Model) -> Result<(), Error> {
        let mut wrong = Vec::new();
        for (name, format) in &self.formats {
            match format.parse::<Format>() {
                Ok(format) => model.formats.push((name.clone(), format)),
                Err(why) => wrong.push(format!("io_format {name:?}: {why}")),
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(Error::Call(wrong)) }
    }

    /// What the strings mean, or everything that is wrong with them.
    fn checked(&self) -> Result<(PathBuf, Options), Error> {
        let mut wrong = Vec::new();
        let mut targets = Vec::new();
        for name in &self.targets {
            match name.parse::<Target>() {
                Ok(target) => targets.push(target),
                Err(error) => wrong.push(format!("target {name:?}: {error}")),
            }
        }
        if self.targets.is_empty() {
            targets.push(Target::Cpu);
        }
        let precision = match self.precision.parse::<Precision>() {
            Ok(precision) => Some(precision),
            Err(error) => {
                wrong.push(format!("precision {:?}: {error}", self.precision));
                None
            }
        };
        let mut profiles = Profiles::new();
        for (name, range) in &self.dims {
            let Range { min, opt, max } = *range;
            if !(0 <= min && min <= opt && opt <= max) {
                wrong.push(format!("dim {name:?}: {min}, {opt}, {max}: the range must satisfy 0 <= min <= opt <= max"));
            }
            profiles.add(name, *range);
        }
        let out_dir = self.out_dir.clone().or_else(|| env::var_os("OUT_DIR").map(PathBuf::from));
        if out_dir.is_none() {
            wrong.push("OUT_DIR is not set: call this from a build script, or name a folder by `out_dir`".to_owned());
        }
        match (out_dir, precision) {
            (Some(out_dir), Some(precision)) if wrong.is_empty() => {
                Ok((out_dir, Options { targets, precision, profiles, ..Options::default() }))
            }
            _ => Err(Error::Call(wrong)),
        }
    }

    fn module(&self, model: &Model, options: &Options) -> Result<emit::Module, Error> {
        let compiled = lapidary::compile(model, options)?;
        let on_gpu = compiled.plans.iter().any(|plan| plan.target != Target::Cpu);
        let toolchain = if on_gpu { Some(cuda::toolchain(self.cuda.as_deref())?) } else { None };
        if let Some(file) = toolchain.as_ref().and_then(|toolchain| toolchain.file()) {
            cargo::rerun_if_changed(file)?;
        }
        let compiler = toolchain.as_ref().map(ToString::to_string).unwrap_or_default();
        let mut cubins = Vec::new();
        for plan in &compiled.plans {
            cubins.push(cuda::cubins(plan, toolchain.as_ref())?);
        }
        let code = |cubins| Code::Cubins { cubins, compiler: &compiler };
        let plans = compiled.plans.iter().zip(&cubins);
        let targets: Vec<_> = plans.map(|(plan, cubins)| EmittedTarget { plan, code: code(cubins) }).collect();
        Ok(emit::module(&Emission {
            package: &self.package(),
            model: &lapidary::facts(&self.model, model, options.precision),
            targets: &targets,
            runtime: Runtime::Version(env!("CARGO_PKG_VERSION")),
            report: &compiled.report,
            golden: None,
        }))
    }

    /// The types follow from the imported graph: no pass, no plan. Where weights are missing, as in a checkout without
    /// its large files, stand-ins serve: few models' types depend on what is in an external file.
    fn stub_of(&self, model: &mut Model, options: &Options) -> Result<emit::Module, Error> {
        if !model.external.is_complete() {
            model.seed_weights();
        }
        let graph = onnx::import(model, &options.profiles)?;
        Ok(emit::stub(
            &self.package(),
            &lapidary::facts(&self.model, model, options.precision),
            &graph,
            &options.targets,
        ))
    }

    fn package(&self) -> String {
        let stem = || self.model.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        self.name.clone().unwrap_or_else(stem)
    }
}

/// The text that a user includes. The path is relative to the file's own folder.
fn declaration(name: &str) -> String {
    format!(
        "#[allow(clippy::all, dead_code, unused_imports)]\n#[rustfmt::skip]\n#[path = \"{name}/src/lib.rs\"]\npub mod {name};\n"
    )
}

fn metadata(model: &Model) -> BTreeMap<String, String> {
    let entries = model.proto.metadata_props.iter();
    entries.map(|entry| (entry.key().to_owned(), entry.value().to_owned())).collect()
}
