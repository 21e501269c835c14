//! Emitted crates: built by cargo as a user would, run, and compared with the reference evaluator by their own tests.

#[path = "emit/model.rs"]
mod model;

use std::path::{Path, PathBuf};
use std::process::Command;

use lapidary::emit::{Array, Code, CrateFiles, Emission, EmittedTarget, Golden, ModelFacts, Runtime, emit};
use lapidary::ir::eval::{self, Tensor};
use lapidary::lower::Target;
use lapidary::passes::Precision;
use lapidary::profiles::Profiles;
use lapidary::{Options, onnx};
use lapidary_runtime::DType;
use lapidary_tests::root;

/// A model, and what a user would ask for.
struct Case {
    package: &'static str,
    onnx: Vec<u8>,
    targets: &'static [&'static str],
    dims: &'static [&'static str],
    /// The inputs of the golden case.
    inputs: Vec<Tensor>,
    runtime: Source,
}

#[derive(Clone, Copy)]
enum Source {
    Workspace,
    Vendored,
}

fn dense(package: &'static str, runtime: Source) -> Case {
    let x: Vec<f64> = (0..12).map(|k| f64::from(k) / 4.0 - 1.0).collect();
    let inputs = vec![Tensor::from_f64s(DType::F32, vec![2, 6], &x), Tensor::from_i64s(DType::I64, vec![2], &[2, 0])];
    Case { package, onnx: model::dense(), targets: &["cpu"], dims: &["batch-size=1:2:8"], inputs, runtime }
}

impl Case {
    fn files(&self) -> CrateFiles {
        let model = onnx::load_bytes(self.onnx.clone().into(), None).expect("a model");
        let mut profiles = Profiles::new();
        for dim in self.dims {
            let (name, range) = Profiles::parse(dim).expect("a range");
            profiles.add(&name, range);
        }
        let targets: Vec<Target> = self.targets.iter().map(|target| target.parse().expect("a target")).collect();
        let options = Options { targets, profiles, ..Options::default() };
        let compiled = lapidary::compile(&model, &options).unwrap_or_else(|errors| panic!("{errors}"));
        let golden = (!self.inputs.is_empty()).then(|| Golden {
            inputs: arrays(self.inputs.clone()),
            outputs: arrays(eval::run(&compiled.graph, &self.inputs).expect("the reference evaluates it")),
        });
        let facts = ModelFacts {
            file: format!("{}.onnx", self.package),
            sha256: model.sha256().iter().map(|byte| format!("{byte:02x}")).collect(),
            opset: 21,
            producer: "tests".to_owned(),
            fixed: Vec::new(),
            precision: Precision::default(),
        };
        let targets: Vec<EmittedTarget<'_>> =
            compiled.plans.iter().map(|plan| EmittedTarget { plan, code: Code::Sources }).collect();
        let folder = root().canonicalize().expect("a checkout").join("runtime-min");
        emit(&Emission {
            package: self.package,
            model: &facts,
            targets: &targets,
            runtime: match self.runtime {
                Source::Workspace => Runtime::Path(folder.to_str().expect("a path of text")),
                Source::Vendored => Runtime::Vendored,
            },
            report: &compiled.report,
            golden: golden.as_ref(),
        })
    }

    /// Writes the crate, in place of an older one.
    fn write(&self) -> PathBuf {
        let folder = root().join("target/emitted").join(self.package);
        let _ = std::fs::remove_dir_all(&folder);
        for (path, bytes) in self.files() {
            write(&folder.join(path), &bytes);
        }
        folder
    }
}

fn arrays(tensors: Vec<Tensor>) -> Vec<Array> {
    let array = |tensor: Tensor| Array { dtype: tensor.dtype, dims: tensor.dims, bytes: tensor.bytes.to_vec() };
    tensors.into_iter().map(array).collect()
}

fn write(path: &Path, bytes: &[u8]) {
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("a writable folder");
    std::fs::write(path, bytes).expect("a writable file");
}

/// Runs cargo in an emitted crate. All share one target folder, so that the runtime is built once.
fn cargo(folder: &Path, args: &[&str]) -> (bool, String) {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(args)
        .env("CARGO_NET_OFFLINE", "true")
        .current_dir(folder)
        .env("CARGO_TARGET_DIR", root().canonicalize().expect("a checkout").join("target/emitted/target"))
        .output()
        .expect("cargo runs");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.success(), said)
}

fn passes(folder: &Path, args: &[&str]) -> String {
    let (success, said) = cargo(folder, args);
    assert!(success, "cargo {} in {}:\n{said}", args.join(" "), folder.display());
    said
}

#[test]
fn a_crate_builds_and_agrees_with_the_reference() {
    let folder = dense("dense", Source::Workspace).write();
    let said = passes(&folder, &["test"]);
    assert!(said.contains("test it_runs ... ok"), "{said}");
    assert!(!said.contains("warning"), "{said}");
    let said = passes(&folder, &["run", "--example", "run"]);
    assert!(said.contains("type [2, 5]") && said.contains("session.run() [2, 5]"), "{said}");
    // Without the weights in the binary, the program must give their path.
    let (success, said) = cargo(&folder, &["run", "--example", "run", "--no-default-features"]);
    assert!(!success && said.contains("Weights"), "{said}");
}

#[test]
fn a_crate_with_its_own_runtime_stands_alone() {
    let folder = dense("vendored", Source::Vendored).write();
    let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).expect("a manifest");
    assert!(manifest.contains("path = \"vendor/lapidary-runtime\""), "{manifest}");
    let said = passes(&folder, &["check", "--tests"]);
    assert!(!said.contains("warning"), "{said}");
}

#[test]
fn the_same_model_gives_the_same_bytes() {
    for case in [dense("twice", Source::Vendored), on_gpus("twice_on_gpus")] {
        let (one, two) = (case.files(), case.files());
        assert_eq!(one.keys().collect::<Vec<_>>(), two.keys().collect::<Vec<_>>());
        for (path, bytes) in &one {
            assert!(two[path] == *bytes, "{path} differs");
        }
    }
}

/// What a caller must not do does not compile.
#[test]
fn wrong_types_do_not_compile() {
    let folder = dense("misuse", Source::Workspace).write();
    let uses = [
        ("dtype", "View::<f64, (BatchSize, C<6>)>::new(&[], (batch, C))?", "View<'_, f64"),
        ("rank", "View::<f32, (BatchSize,)>::new(&[], (batch,))?", "expected a tuple with 2 elements"),
        ("extent", "View::<f32, (BatchSize, C<7>)>::new(&[], (batch, C))?", "expected `6`, found `7`"),
        ("unchecked", "View::<f32, (BatchSize, C<6>)>::new(&[], (BatchSize(2), C))?", "private"),
        ("symbol", "View::<f32, (Dyn, C<6>)>::new(&[], (Dyn(2), C))?", "expected `View<'_, f32, (BatchSize, C<6>)>`"),
    ];
    for (name, view, expected) in uses {
        let text = format!(
            "use misuse::*;\n\nfn main() -> Result<(), Error> {{\n    let batch = BatchSize::new(2)?;\n    \
             let _ = batch;\n    let rows = View::new(&[0_i64, 1], (batch,))?;\n    \
             let _ = Inputs {{ serving_default_input: {view}, input_1252: rows }};\n    Ok(())\n}}\n"
        );
        write(&folder.join(format!("examples/wrong_{name}.rs")), text.as_bytes());
        let (success, said) = cargo(&folder, &["check", "--example", &format!("wrong_{name}")]);
        assert!(!success && said.contains(expected), "{name}:\n{said}");
    }
}

/// A model may use every name that the crate, its test and its example use.
#[test]
fn the_names_of_the_crate_may_be_the_models() {
    let case = Case {
        package: "lapidary_runtime",
        onnx: model::namesake(),
        targets: &["cpu"],
        dims: &[],
        inputs: model::NAMES.iter().map(|_| Tensor::from_f64s(DType::F32, vec![1, 2], &[0.5, 1.0])).collect(),
        runtime: Source::Workspace,
    };
    let said = passes(&case.write(), &["test", "--all-targets"]);
    assert!(said.contains("test it_runs ... ok") && !said.contains("warning"), "{said}");
}

fn on_gpus(package: &'static str) -> Case {
    let targets = &["cpu", "sm_80", "sm_90a"];
    Case { package, onnx: model::fixed(), targets, dims: &[], inputs: vec![], runtime: Source::Workspace }
}

/// The crate for GPUs depends on the runtime and on nothing else, and says clearly what it lacks to be built.
#[test]
fn a_crate_for_gpus_has_one_dependency() {
    let folder = Case { targets: &["sm_90a"], ..on_gpus("for_one_gpu") }.write();
    let tree = passes(&folder, &["tree", "--edges", "normal", "--prefix", "none", "--quiet"]);
    let crates: Vec<&str> = tree.lines().map(|line| line.split(' ').next().unwrap_or("")).collect();
    assert_eq!(crates, ["for_one_gpu", "lapidary-runtime"], "{tree}");
    let nvcc = std::env::var_os("CUDA_HOME").map(|home| Path::new(&home).join("bin/nvcc").is_file());
    let (success, said) = cargo(&folder, &["check", "--tests"]);
    if nvcc == Some(true) {
        assert!(success && !said.contains("warning"), "{said}");
    } else {
        eprintln!("SKIPPED: no nvcc; set CUDA_HOME");
        assert!(success || said.contains("set CUDA_HOME to a CUDA toolkit"), "{said}");
    }
}

/// One crate for a processor and for two GPUs: where there is no GPU, its tests say so and check the processor.
#[test]
fn a_crate_for_several_targets_builds() {
    if !std::env::var_os("CUDA_HOME").is_some_and(|home| Path::new(&home).join("bin/nvcc").is_file()) {
        eprintln!("SKIPPED: no nvcc; set CUDA_HOME");
        return;
    }
    let x: Vec<f64> = (0..24).map(|k| f64::from(k) / 8.0 - 1.0).collect();
    let inputs = vec![Tensor::from_f64s(DType::F32, vec![4, 6], &x)];
    let folder = Case { inputs, ..on_gpus("for_all") }.write();
    let said = passes(&folder, &["test", "--", "--nocapture"]);
    assert!(said.contains("it_runs_on_the_processor ... ok"), "{said}");
    assert!(!said.contains("warning"), "{said}");
}

/// Tables, not code: a model of a thousand steps is built like one of ten.
#[test]
fn many_steps_build() {
    let onnx = model::chain(1000);
    let case =
        Case { package: "chain", onnx, targets: &["cpu"], dims: &[], inputs: vec![], runtime: Source::Workspace };
    let folder = case.write();
    let plan = std::fs::read_to_string(folder.join("src/plan/cpu.rs")).expect("a plan");
    assert!(plan.contains("//! The plan for `cpu`: 1000 steps"), "{}", &plan[..200]);
    passes(&folder, &["check"]);
}
