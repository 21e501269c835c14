//! The command line as a user meets it: outputs, exit codes and messages of every command, on small models.

#[path = "emit/model.rs"]
#[allow(dead_code)]
mod model;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use lapidary::onnx::proto::type_proto::{self, Value};
use lapidary::onnx::proto::{GraphProto, ModelProto, NodeProto, TensorProto, TypeProto};
use lapidary_tests::{lapidary, root};
use model::Builder;
use prost::Message;

const FLOAT: i32 = 1;
const INT64: i32 = 7;

/// What a command said, and its exit code.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

fn said(command: &mut Command) -> Said {
    let output = command.output().expect("the command starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Said { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
}

/// A folder with files in which the command is called.
struct Scratch(tempfile::TempDir);

impl Scratch {
    fn with(model: Vec<u8>) -> Scratch {
        let scratch = Scratch(tempfile::tempdir().expect("a folder"));
        scratch.write("model.onnx", &model);
        scratch
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a writable folder");
        std::fs::write(path, bytes).expect("a writable file");
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Calls `lapidary` with these words.
    fn call(&self, words: &str) -> Said {
        said(Command::new(lapidary().canonicalize().expect("a program")).args(words.split(' ')).current_dir(&self.0))
    }

    /// Calls it, and wants this exit code and these parts of what it says on standard error.
    #[track_caller]
    fn refused(&self, words: &str, code: i32, parts: &[&str]) {
        let said = self.call(words);
        assert_eq!(said.code, Some(code), "{words}: {said:?}");
        for part in parts {
            assert!(said.err.contains(part), "{words} does not say {part:?}:\n{}", said.err);
        }
        assert!(
            code == 2 && said.err.contains("For more information, try") || said.err.contains("= help: "),
            "{words}: {}",
            said.err
        );
    }

    #[track_caller]
    fn done(&self, words: &str) -> Said {
        let said = self.call(words);
        assert_eq!(said.code, Some(0), "{words}: {said:?}");
        said
    }

    /// All files below a folder.
    fn files(&self, folder: &str) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut found = BTreeMap::new();
        let mut folders = vec![self.path(folder)];
        while let Some(next) = folders.pop() {
            for entry in std::fs::read_dir(&next).expect("a readable folder") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let relative = path.strip_prefix(self.path(folder)).expect("below it").to_owned();
                    found.insert(relative, std::fs::read(&path).expect("a readable file"));
                }
            }
        }
        found
    }
}

/// `y` and `z` of `x`: f32[n, 3].
fn two_outputs() -> Vec<u8> {
    let model = Builder::new("two").input("x", FLOAT, &["n", "3"]);
    model.node("Relu", &["x"], "y").node("Neg", &["x"], "z").output("y").output("z").bytes()
}

/// Rows of a table of `rows` by four indices, to which `offset` is added.
fn rows(rows: usize, offset: i64) -> Vec<u8> {
    let model = Builder::new("rows").input("indices", INT64, &["4"]).weight("table", &[rows, 3]);
    let mut graph = model.node("Add", &["indices", "offset"], "moved").node("Gather", &["table", "moved"], "y");
    graph = graph.output("y");
    let mut model = ModelProto::decode(graph.bytes().as_slice()).expect("a model");
    let offset = TensorProto {
        name: Some("offset".to_owned()),
        data_type: Some(INT64),
        raw_data: Some(offset.to_le_bytes().to_vec().into()),
        ..TensorProto::default()
    };
    model.graph.get_or_insert_default().initializer.push(offset);
    model.encode_to_vec()
}

fn npy(descr: &str, dims: &str, data: &[u8]) -> Vec<u8> {
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({dims}), }}");
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let length = u16::try_from(header.len()).expect("a short header").to_le_bytes();
    [b"\x93NUMPY\x01\x00", length.as_slice(), header.as_bytes(), data].concat()
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn tensor(dims: &[i64], values: &[f32]) -> Vec<u8> {
    let raw_data = Some(floats(values).into());
    TensorProto { data_type: Some(FLOAT), dims: dims.to_vec(), raw_data, ..TensorProto::default() }.encode_to_vec()
}

/// A zip archive without entries.
const EMPTY_ZIP: &[u8] = b"PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

#[test]
fn verify_wants_something_to_compare() {
    let scratch = Scratch::with(two_outputs());
    let x = [1.0, -2.0, 3.0];
    scratch.refused("verify .", 2, &["has no cases", "test_data_set_0/"]);
    scratch.write("test_data_set_0/input_0.pb", &tensor(&[1, 3], &x));
    for target in ["cpu", "reference"] {
        let words = format!("verify . --target {target}");
        scratch.refused(&words, 1, &["test_data_set_0: nothing was compared", "give the case an expected output"]);
    }
    // The second output's file alone: it would be taken for the first's.
    scratch.write("test_data_set_0/output_1.pb", &tensor(&[1, 3], &[-1.0, 2.0, -3.0]));
    scratch.refused("verify .", 2, &["output_1.pb is there, and", "output_0.pb is not"]);
    std::fs::remove_file(scratch.path("test_data_set_0/output_1.pb")).expect("a file");
    scratch.write("test_data_set_0/output_0.pb", &tensor(&[1, 3], &[1.0, 0.0, 3.0]));
    let said = scratch.done("verify .");
    assert!(said.out.contains("-    test_data_set_0: nothing is expected of \"z\"\n"), "{}", said.out);
    assert!(said.out.ends_with("1 comparisons ok on cpu, 1 outputs without expectation\n"), "{}", said.out);
    scratch.write("test_data_set_0/output_1.pb", &tensor(&[1, 3], &[-1.0, 2.0, -3.5]));
    scratch.refused("verify .", 1, &["1 of 2 comparisons failed on cpu", "--> file \".\"", "--bisect"]);
    scratch.write("test_data_set_0/output_2.pb", &tensor(&[1], &[0.0]));
    scratch.refused("verify .", 2, &["1 inputs and 3 outputs", "takes 1 and has 2"]);
}

/// y = ReduceSum(x, axes), x of shape [1, 3].
fn summed() -> Vec<u8> {
    let model = Builder::new("summed").input("x", FLOAT, &["1", "3"]).input("axes", INT64, &["1"]);
    model.node("ReduceSum", &["x", "axes"], "y").output("y").bytes()
}

#[test]
fn an_input_can_be_fixed() {
    let scratch = Scratch::with(summed());
    let axes = TensorProto {
        data_type: Some(INT64),
        dims: vec![1],
        raw_data: Some(1i64.to_le_bytes().to_vec().into()),
        ..TensorProto::default()
    };
    scratch.write("test_data_set_0/input_0.pb", &tensor(&[1, 3], &[1.0, 2.0, 4.0]));
    scratch.write("test_data_set_0/input_1.pb", &axes.encode_to_vec());
    scratch.write("test_data_set_0/output_0.pb", &tensor(&[1, 1], &[7.0]));
    scratch.refused("verify .", 1, &["the axes in \"axes\" are not constant", "--value axes=VALUE,.."]);
    assert!(scratch.done("verify . --value axes=1").out.ends_with("1 comparisons ok on cpu\n"));
    scratch.refused("verify . --value axes=0", 2, &["\"axes\" has another value", "--value axes=1"]);
    scratch.refused("check model.onnx --value axes=0,1", 2, &["E0413", "2 elements do not fill"]);
    scratch.done("compile model.onnx -o crate --target cpu --value axes=1");
    assert!(scratch.read("crate/README.md").contains("| input `axes`, fixed | `1` |\n| written by |"));
}

/// Images `y` of images `x`: f32[n, 2, 1, 3].
fn images() -> Vec<u8> {
    let model = Builder::new("images").input("x", FLOAT, &["n", "2", "1", "3"]);
    model.node("Relu", &["x"], "y").output("y").bytes()
}

/// The cases of a folder are as the model has its tensors, whatever the interface has.
#[test]
fn the_interface_has_the_format_that_was_asked_for() {
    let scratch = Scratch::with(images());
    let (nchw, nhwc) = ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    scratch.write("x.npy", &npy("<f4", "1, 1, 3, 2", &floats(&nhwc)));
    scratch.write("test_data_set_0/input_0.pb", &tensor(&[1, 2, 1, 3], &nchw));
    scratch.write("test_data_set_0/output_0.pb", &tensor(&[1, 2, 1, 3], &nchw));
    let written = |dims: &str, values: &[f32]| npy("<f4", dims, &floats(values));
    for target in ["reference", "cpu"] {
        let run = format!("run model.onnx --target {target} --input x=x.npy -o out --io-format x=nhwc");
        scratch.done(&run);
        assert_eq!(scratch.files("out")[&PathBuf::from("y.npy")], written("1, 2, 1, 3,", &nchw), "{target}");
        scratch.done(&format!("{run} --io-format y=nhwc"));
        assert_eq!(scratch.files("out")[&PathBuf::from("y.npy")], written("1, 1, 3, 2,", &nhwc), "{target}");
        scratch.done(&format!("verify . --target {target} --io-format x=nhwc --io-format y=nhwc"));
        scratch.done(&format!("verify . --target {target} --io-format y=nchw"));
    }
    let inspect = "inspect model.onnx --stage passes --io-format x=nhwc";
    assert!(scratch.done(inspect).out.contains("= transpose("));
    assert!(!scratch.done(&format!("{inspect} --io-format y=nhwc")).out.contains("= transpose("));
    scratch.done("bench model.onnx --duration 0.01 --io-format x=nhwc --dim n=2");
    scratch.done("compile model.onnx -o crate --target cpu --dim n=2:3:4 --io-format x=nhwc");
    assert!(
        scratch.read("crate/README.md").contains("| input | `x` | `x` | f32 | `[n, 1, 3, 2]` |"),
        "{}",
        scratch.read("crate/README.md")
    );
    scratch.refused("check model.onnx --io-format x=nchw16", 2, &["\"nchw16\" is no format", "nchw and nhwc"]);
    scratch.refused(&format!("{inspect} --io-format x=nchw"), 1, &["E0415", "two formats"]);
    scratch.refused("inspect model.onnx --io-format z=nhwc", 1, &["E0415", "no input or output \"z\"", "\"x\", \"y\""]);
    scratch.write("flat.onnx", &two_outputs());
    scratch.refused("inspect flat.onnx --io-format x=nhwc", 1, &["E0415", "\"x\" has 2 axes"]);
}

/// y = x with z behind it, where x and y are sequences of f32[3].
fn inserted() -> Vec<u8> {
    let model = Builder::new("inserted").input("x", FLOAT, &["3"]).input("z", FLOAT, &["3"]);
    let bytes = model.node("SequenceInsert", &["x", "z"], "y").output("y").bytes();
    let mut model = ModelProto::decode(bytes.as_slice()).expect("a model");
    let graph = model.graph.as_mut().expect("a graph");
    let element = graph.input[0].r#type.clone().map(Box::new);
    let sequence = Value::SequenceType(Box::new(type_proto::Sequence { elem_type: element }));
    let sequence = Some(TypeProto { value: Some(sequence) });
    graph.input[0].r#type = sequence.clone();
    graph.output[0].r#type = sequence;
    model.encode_to_vec()
}

/// A SequenceProto: its tensors are field 3.
fn sequence(tensors: &[Vec<u8>]) -> Vec<u8> {
    let field =
        |tensor: &Vec<u8>| [&[3 << 3 | 2, u8::try_from(tensor.len()).expect("a small tensor")], &tensor[..]].concat();
    tensors.iter().flat_map(field).collect()
}

#[test]
fn sequences_are_tensors_by_element() {
    let scratch = Scratch::with(inserted());
    scratch.refused(
        "check model.onnx",
        1,
        &["E0405", "of which is not said how many elements it has", "--elements x=COUNT"],
    );
    scratch.refused("check model.onnx --elements z=2", 2, &["E0414", "\"z\" cannot have 2 elements"]);
    scratch.done("compile model.onnx -o crate --target cpu --elements x=2");
    let readme = scratch.read("crate/README.md");
    assert!(readme.contains("`x.0`") && readme.contains("`x.1`") && readme.contains("`y.2`"), "{readme}");
    let [a, b, c] = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]].map(|values| tensor(&[3], &values));
    scratch.write("test_data_set_0/input_0.pb", &sequence(&[a.clone(), b.clone()]));
    scratch.write("test_data_set_0/input_1.pb", &c);
    scratch.write("test_data_set_0/output_0.pb", &sequence(&[a.clone(), b.clone(), c.clone()]));
    for target in ["cpu", "reference"] {
        let said = scratch.done(&format!("verify . --target {target}"));
        assert!(said.out.ends_with(&format!("3 comparisons ok on {target}\n")), "{}", said.out);
    }
    scratch.refused("verify . --elements x=2", 2, &["--elements or --rank is given for data sets"]);
    scratch.write("test_data_set_0/output_0.pb", &sequence(&[a.clone(), c.clone(), b]));
    scratch.refused("verify .", 1, &["2 of 3 comparisons failed on cpu"]);
    scratch.write("test_data_set_0/output_0.pb", &sequence(&[a.clone(), a.clone(), a.clone(), a.clone()]));
    scratch.refused("verify .", 1, &["the model gives no \"y.3\", which is expected"]);
    for (file, value) in
        [("input_0", sequence(std::slice::from_ref(&a))), ("input_1", c), ("output_0", sequence(&[a.clone(), a]))]
    {
        scratch.write(&format!("test_data_set_1/{file}.pb"), &value);
    }
    scratch.refused("verify .", 2, &["test_data_set_1 has sequences of other lengths"]);
}

#[test]
fn a_manifest_names_what_the_model_has() {
    let scratch = Scratch::with(two_outputs());
    scratch.write("golden.npz", EMPTY_ZIP);
    scratch.write("manifest.json", br#"{ "cases": [] }"#);
    scratch.refused("verify .", 2, &["has no cases"]);
    let case =
        r#"{ "cases": [{ "inputs": [], "outputs": [{ "name": "Y", "key": "a" }, { "name": "z", "key": "b" }] }] }"#;
    scratch.write("manifest.json", case.as_bytes());
    scratch.refused(
        "verify .",
        2,
        &[
            "case 0: the model has no output \"Y\"",
            "case 0: golden.npz has no array \"b\"",
            "case 0: the input \"x\" has no array",
            "the outputs \"y\", \"z\"",
        ],
    );
}

#[test]
fn a_target_is_planned_once() {
    let scratch = Scratch::with(two_outputs());
    scratch.done("compile model.onnx -o crate --target cpu,cpu");
    assert_eq!(scratch.read("crate/src/plan.rs").matches("pub mod cpu;").count(), 1);
    assert!(scratch.done("check model.onnx --target cpu,cpu").out.contains("supported on cpu\n"));
}

/// Whatever was emitted into a folder before: afterwards it holds what a new folder would.
#[test]
fn a_crate_is_emitted_over_another() {
    let scratch = Scratch::with(two_outputs());
    scratch.write("other.onnx", &rows(3, 7));
    let kinds = [
        "compile model.onnx --target sm_80,cpu --kernel-sources",
        "compile model.onnx --target cpu --runtime-path ../runtime",
        "compile other.onnx --target sm_90a --kernel-sources --runtime-version 0.1.0",
    ];
    for (k, kind) in kinds.iter().enumerate() {
        scratch.done(&format!("{kind} --name digits -o fresh_{k}"));
    }
    for before in kinds {
        for (k, kind) in kinds.iter().enumerate() {
            scratch.done(&format!("{before} --name digits -o crate"));
            scratch.write("crate/src/mine.rs", b"// of the user");
            scratch.done(&format!("{kind} --name digits -o crate"));
            let mut files = scratch.files("crate");
            assert!(files.remove(Path::new("src/mine.rs")).is_some(), "{before}, {kind}: the user's file is gone");
            let fresh = scratch.files(&format!("fresh_{k}"));
            assert_eq!(files.keys().collect::<Vec<_>>(), fresh.keys().collect::<Vec<_>>(), "{before}, {kind}");
            assert!(files == fresh, "{before}, {kind}");
        }
    }
}

#[test]
fn a_folder_of_somebody_else_is_left_alone() {
    let scratch = Scratch::with(two_outputs());
    scratch.write("mine/build.rs", b"fn main() {}");
    scratch.refused("compile model.onnx -o mine", 2, &["mine holds something that is no emitted crate", "--force"]);
    scratch.done("compile model.onnx -o mine --force");
    assert_eq!(scratch.read("mine/build.rs"), "fn main() {}");
}

#[test]
fn a_golden_case_takes_typical_shapes_and_valid_indices() {
    let scratch = Scratch::with(two_outputs());
    scratch.done("compile model.onnx -o typical --dim n=1:5:9");
    assert_eq!(scratch.files("typical/tests/golden")[Path::new("input_x.bin")].len(), 5 * 3 * 4);
    assert!(scratch.read("typical/README.md").contains("cargo test                          # compares with"));
    // Too large to be in a crate where it is typical, not where it is smallest.
    scratch.done("compile model.onnx -o smallest --dim n=2:100000:200000");
    assert_eq!(scratch.files("smallest/tests/golden")[Path::new("input_x.bin")].len(), 2 * 3 * 4);
    // Of a table of one row, 1 is no row.
    scratch.write("rows.onnx", &rows(1, 0));
    let said = scratch.done("compile rows.onnx -o rows");
    assert!(!said.err.contains("note:"), "{}", said.err);
    assert!(scratch.files("rows/tests/golden")[Path::new("input_indices.bin")] == [0; 4 * 8]);
    // Here nothing that is made up is.
    scratch.write("none.onnx", &rows(3, 7));
    let said = scratch.done("compile none.onnx -o none");
    assert!(said.err.contains("note: the crate's test only runs the model") && said.err.contains("index"), "{said:?}");
    assert!(!scratch.path("none/tests/golden").exists());
    assert!(scratch.read("none/README.md").contains("cargo test                          # runs the model once"));
}

/// README's commands, as they stand there, on a model of that name: they end in a crate that builds.
#[test]
fn the_readme_compiles_a_model() {
    let readme = std::fs::read_to_string(root().join("README.md")).expect("README");
    let (_, section) = readme.split_once("\n## Compile your model\n").expect("the section");
    let block = section.split("```").nth(1).expect("a block of commands");
    let model = std::fs::read(root().join("examples/01-quickstart/model.onnx")).expect("the quickstart's model");
    let scratch = Scratch::with(model);
    let commands: Vec<&str> = block.lines().filter_map(|line| line.strip_prefix("lapidary ")).collect();
    assert!(commands.iter().any(|words| words.starts_with("compile ")), "{block}");
    for command in commands {
        let (words, _) = command.split_once('#').unwrap_or((command, ""));
        scratch.done(&words.split_whitespace().collect::<Vec<_>>().join(" "));
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let target = root().canonicalize().expect("a checkout").join("target/emitted/target");
    let said = said(
        Command::new(cargo)
            .args(["check", "--offline", "--tests"])
            .current_dir(scratch.path("digits"))
            .env("CARGO_TARGET_DIR", target),
    );
    assert_eq!(said.code, Some(0), "{}", said.err);
}

#[test]
fn a_toolkit_that_is_none_is_refused() {
    let scratch = Scratch::with(two_outputs());
    let words = "compile model.onnx -o crate --target sm_80,sm_90a";
    scratch.refused(&format!("{words} --toolkit /nonexistent"), 2, &["/nonexistent holds neither NVRTC nor nvcc"]);
    assert!(!scratch.path("crate").exists());
    let said = scratch.done(&format!("{words} --kernel-sources"));
    assert_eq!(said.err, "", "sources were asked for");
    scratch.refused(&format!("{words} --kernel-sources --toolkit x"), 2, &["cannot be used with"]);
}

#[test]
fn run_takes_each_input_once() {
    let scratch = Scratch::with(two_outputs());
    scratch.write("x.npy", &npy("<f4", "1, 3", &floats(&[1.0, -2.0, 3.0])));
    let said = scratch.done("run model.onnx --input x=x.npy -o out");
    assert_eq!(said.out, "y f32[1, 3] -> out/y.npy\nz f32[1, 3] -> out/z.npy\n");
    let written = std::fs::read(scratch.path("out/z.npy")).expect("an output");
    assert!(written.ends_with(&floats(&[-1.0, 2.0, -3.0])));
    scratch.refused(
        "run model.onnx --input X=x.npy -o out",
        2,
        &["the model has no input \"X\"; the input \"x\" is not given", "once for each of: \"x\""],
    );
    let twice = "run model.onnx --input x=x.npy --input x=y.npy -o out";
    scratch.refused(twice, 2, &["the input \"x\" is given twice"]);
    scratch.refused("run model.onnx --input x=y.npy -o out", 2, &["No such file", "--> file \"y.npy\""]);
    scratch.refused("run model.onnx -o out --input x", 2, &["expected NAME=FILE.npy"]);
}

#[test]
fn outputs_do_not_overwrite_each_other() {
    let model = Builder::new("names").input("x", FLOAT, &["3"]);
    let model = model.node("Relu", &["x"], "a/b").node("Neg", &["x"], "a_b").output("a/b").output("a_b").bytes();
    let scratch = Scratch::with(model);
    scratch.write("x.npy", &npy("<f4", "3,", &floats(&[1.0, -2.0, 3.0])));
    let said = scratch.done("run model.onnx --input x=x.npy -o out");
    assert_eq!(said.out, "a/b f32[3] -> out/a_b.npy\na_b f32[3] -> out/a_b__2.npy\n");
    assert_eq!(scratch.files("out").len(), 2);
}

/// What goes wrong in a run has a place and a help, on every target.
#[test]
fn errors_of_a_run_have_a_place_and_a_help() {
    let scratch = Scratch::with(rows(3, 0));
    let indices = |values: &[i64]| npy("<i8", "4,", &values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>());
    scratch.write("5.npy", &indices(&[0, 1, 5, 2]));
    scratch.write("f.npy", &npy("<f4", "4,", &[0; 16]));
    scratch.write("short.npy", &npy("<i8", "3,", &[0; 24]));
    let run = |target: &str, file: &str| format!("run model.onnx --target {target} --input indices={file}.npy -o out");
    scratch.refused(
        &run("cpu", "5"),
        1,
        &["index 5 is out of range for an axis of 3", "--> step \"", "check the inputs"],
    );
    scratch.refused(&run("reference", "5"), 1, &["index 5", "--> node \"", "check indices"]);
    for target in ["cpu", "reference"] {
        scratch.refused(&run(target, "f"), 2, &["--> input \"indices\"", "lapidary check MODEL"]);
        scratch.refused(&run(target, "short"), 2, &["--> input \"indices\"", "lapidary check MODEL"]);
    }
    scratch.write("two.onnx", &two_outputs());
    scratch.write("x.npy", &npy("<f4", "2, 3", &[0; 24]));
    let outside = "run two.onnx --dim n=3:4:5 --input x=x.npy -o out";
    scratch.refused(outside, 2, &["dimension `n` = 2", "--> dimension \"n\"", "--dim n=MIN:OPT:MAX"]);
}

#[test]
fn exit_codes_say_whose_fault_it_is() {
    let scratch = Scratch::with(two_outputs());
    scratch.write("bad.onnx", b"no model");
    for command in ["compile FILE -o out", "run FILE -o out", "bench FILE", "check FILE", "inspect FILE"] {
        scratch.refused(&command.replace("FILE", "none.onnx"), 2, &["error[E0101]", "No such file"]);
        scratch.refused(&command.replace("FILE", "bad.onnx"), 1, &["error[E0102]"]);
    }
    scratch.refused("verify none", 2, &["error[E0101]"]);
    scratch.refused("check model.onnx --dim m=4", 2, &["E0406", "\"m\""]);
    scratch.refused("check model.onnx --dim n", 2, &["expected NAME=MIN:OPT:MAX"]);
    scratch.refused("check model.onnx --target sm_12", 2, &["`sm_12` is not an architecture", "sm_80", "cpu"]);
    scratch.refused("inspect model.onnx --stage nothing", 2, &["[possible values: import, passes, plan, kernels]"]);
    scratch.refused("bench model.onnx --target reference", 2, &["has no speed"]);
    let help = scratch.done("--help").out;
    assert!(help.contains("Exit codes:") && help.contains("  2  the call is"), "{help}");
}

#[test]
fn check_says_everything_at_once() {
    let scratch = Scratch::with(two_outputs());
    let said = scratch.done("check model.onnx --dim n=1:2:8");
    let expected = "model.onnx: supported on cpu\n  input x: f32[n, 3]\n  output y: f32[n, 3]\n  output z: f32[n, 3]\n  \
                    --dim n=1:2:8\n";
    assert_eq!(said.out, expected);
    let bad = Builder::new("bad").input("x", FLOAT, &["3"]);
    let bad =
        bad.node("TfIdfVectorizer", &["x"], "a").node("NoSuchOperator", &["x"], "b").output("a").output("b").bytes();
    scratch.write("bad.onnx", &bad);
    scratch.refused("check bad.onnx", 1, &["E0401", "TfIdfVectorizer", "NoSuchOperator"]);
}

#[test]
fn bench_says_what_it_measured() {
    let scratch = Scratch::with(rows(1, 0));
    let said = scratch.done("bench model.onnx --duration 0.01 --warm-up 0 --json");
    let report: serde_json::Value = serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {said:?}"));
    for key in ["device", "date", "compile_s", "nodes", "units", "lapidary"] {
        assert!(!report[key].is_null(), "{key}: {report:#}");
    }
    let stated =
        [("model", "model.onnx"), ("target", "cpu"), ("precision", "fp32"), ("graph_mode", "none"), ("l2", "warm")];
    for (key, value) in stated {
        assert_eq!(report[key], value, "{report:#}");
    }
    assert_eq!(report["inputs"]["indices"], serde_json::json!([4]));
    assert_eq!(report["duration_s"], 0.01);
    assert!(report["throughput_qps"].as_f64() > Some(0.0), "{report:#}");
    let latency: Vec<f64> = ["min", "median", "p90", "p95", "p99", "max"]
        .iter()
        .map(|key| report["latency"][key].as_f64().unwrap_or_else(|| panic!("{key}: {report:#}")))
        .collect();
    assert!(latency.is_sorted() && latency[0] > 0.0, "{latency:?}");
    // Only a GPU measures these.
    assert!(report["enqueue"].is_null() && report["gpu_compute"].is_null(), "{report:#}");

    let text = scratch.done("bench model.onnx --duration 0.01 --warm-up 0").out;
    assert!(text.starts_with("model.onnx on ") && text.contains("(cpu), fp32, 20"), "{text}");
    assert!(text.contains("throughput ") && text.contains("latency ") && text.contains(" max "), "{text}");
    for nothing in ["0", "-1", "nan"] {
        let words = format!("bench model.onnx --duration={nothing}");
        scratch.refused(&words, 2, &["more than 0 and at most 3600"]);
    }
}

#[test]
fn inspect_prints_each_stage_for_people_and_for_programs() {
    let scratch = Scratch::with(model::fixed());
    let text = |stage: &str| scratch.done(&format!("inspect model.onnx --target sm_80 --stage {stage}")).out;
    let json = |stage: &str| -> serde_json::Value {
        let said = scratch.done(&format!("inspect model.onnx --target sm_80 --json --stage {stage}"));
        serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{stage}: {error}: {said:?}"))
    };
    assert!(text("import").starts_with("graph \"fixed\" {\n"));
    let import = json("import");
    assert_eq!(import["nodes"][0]["op"], "matmul", "{import:#}");
    assert_eq!(import["nodes"][0]["results"][0]["dims"], serde_json::json!(["4", "5"]));
    assert_eq!(import["inputs"][0]["name"], "x");
    assert_eq!(import["outputs"][0]["name"], "y");

    assert!(text("passes").contains("\n# "), "the passes that fired");
    let passes = json("passes");
    assert!(passes["firings"].as_array().is_some_and(|firings| !firings.is_empty()), "{passes:#}");
    assert_eq!(passes["nodes"].as_array().map(Vec::len), Some(1), "the sigmoid is an epilogue: {passes:#}");

    let plan = text("plan");
    assert!(plan.contains("main.0 matmul") && plan.contains("\n# target: sm_80\n"), "{plan}");
    assert!(!plan.contains('{') || !plan.lines().any(|line| line == "{"), "{plan}");
    assert_eq!(json("plan")["summary"]["target"], "sm_80");
    assert!(text("kernels").contains("candidates: "));
    assert!(json("kernels")["steps"][0]["candidates"].is_array());
}

/// y = exp(p), where p = x w is an output too: steps that are no epilogue.
fn apart() -> Vec<u8> {
    let model = Builder::new("apart").input("x", FLOAT, &["2", "3"]).weight("w", &[3, 4]);
    let model = model.node("MatMul", &["x", "w"], "p").node("Exp", &["p"], "e").node("Neg", &["e"], "y");
    model.output("p").output("y").bytes()
}

#[test]
fn inspect_explains_what_fused_and_what_did_not() {
    let scratch = Scratch::with(apart());
    let explain = "inspect model.onnx --stage passes --explain";
    let text = scratch.done(explain).out;
    let expected = "# Rewrites, numbered in order\n    \
                    1 pointwise: Exp of\\ne (Exp) + Neg of\\ny (Neg)\n\n\
                    # Neighbours that stay apart, and why\n\
                    unfused-epilogue: matmul `MatMul of\\np (MatMul)` -> pointwise `Exp of\\ne (Exp), Neg of\\ny (Neg)`, \
                    at \"p\"\n    \"p\" has several readers: pointwise `Exp of\\ne (Exp), Neg of\\ny (Neg)`, the output \
                    \"p\"\n";
    assert_eq!(text, expected);
    assert_eq!(scratch.done(explain).out, text);
    let json = scratch.done(&format!("{explain} --json --disable pointwise --stop-after-rewrite 7")).out;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap_or_else(|error| panic!("{error}: {json}"));
    assert_eq!(json["disabled"], serde_json::json!(["pointwise"]));
    assert_eq!(json["stop_after_rewrite"], 7);
    assert_eq!(json["firings"], serde_json::json!([]));
    assert_eq!(json["apart"][1]["reason"], "unfused-pointwise", "{json:#}");
    assert_eq!(json["apart"][1]["kernels"][0]["op"], "pointwise");
    assert_eq!(json["apart"][1]["kernels"][0]["onnx"], serde_json::json!(["Exp of\ne (Exp)"]));
    assert_eq!(json["apart"][1]["value"], "e");
    assert!(json["apart"][1]["why"].as_str().is_some_and(|why| why.starts_with("`pointwise` takes")), "{json:#}");
    let firings: serde_json::Value =
        serde_json::from_str(&scratch.done("inspect model.onnx --stage passes --json").out).expect("JSON");
    let one = serde_json::json!({
        "number": 1, "pass": "pointwise", "onnx": ["Exp of\ne (Exp)", "Neg of\ny (Neg)"], "changes": 1,
    });
    assert_eq!(firings["firings"], serde_json::json!([one]));
    scratch.refused("inspect model.onnx --explain", 2, &["--explain is about the passes", "--stage passes"]);
    let help = scratch.done("inspect --help").out;
    assert!(help.contains("stop_after_rewrite") && help.contains("apart"), "{help}");
}

#[test]
fn compile_writes_the_report_beside_the_sources() {
    let scratch = Scratch::with(apart());
    scratch.done("compile model.onnx -o crate");
    let report = scratch.read("crate/passes.txt");
    assert_eq!(report, scratch.done("inspect model.onnx --stage passes --explain").out);
    scratch.done("compile model.onnx -o again/crate");
    assert_eq!(scratch.read("again/crate/passes.txt"), report);
    assert!(scratch.read("crate/README.md").contains("\n| `passes.txt` | "));
    scratch.done("compile model.onnx -o crate --disable pointwise");
    assert!(scratch.read("crate/passes.txt").starts_with("# Rewrites, numbered in order, with --disable pointwise\n"));
}

#[test]
fn a_denied_reason_is_an_error_that_lists_where() {
    let scratch = Scratch::with(apart());
    for command in ["compile model.onnx -o crate", "inspect model.onnx --stage plan"] {
        scratch.done(&format!("{command} --deny unfused-attention --deny unfused-norm"));
        let words = format!("{command} --deny unfused-attention --deny unfused-epilogue");
        scratch.refused(
            &words,
            1,
            &["error[E0502]: unfused-epilogue: matmul", "--> value \"p\"", "has several readers"],
        );
        scratch.refused(
            &format!("{command} --deny unfused"),
            2,
            &["there is no such reason", "unfused-attention, unfused-epilogue, unfused-pointwise, unfused-norm"],
        );
    }
}

/// A wrong result is bisected by the numbers of the report, on whatever command shows that it is wrong.
#[test]
fn rewrites_can_be_limited_wherever_a_model_is_compiled() {
    let scratch = Scratch::with(apart());
    let x = [1.0, -2.0, 3.0, 0.5, 0.25, -1.0];
    scratch.write("x.npy", &npy("<f4", "2, 3", &floats(&x)));
    scratch.write("test_data_set_0/input_0.pb", &tensor(&[2, 3], &x));
    scratch.done("run model.onnx --target reference --input x=x.npy -o expected");
    for (k, name) in ["p", "y"].into_iter().enumerate() {
        let file = scratch.files("expected").remove(Path::new(&format!("{name}.npy"))).expect("an output");
        let values: Vec<f32> = file[file.len() - 32..]
            .chunks(4)
            .map(|bytes| f32::from_le_bytes(bytes.try_into().expect("four bytes")))
            .collect();
        scratch.write(&format!("test_data_set_0/output_{k}.pb"), &tensor(&[2, 4], &values));
    }
    for limit in ["--disable pointwise", "--stop-after-rewrite 0", "--disable pointwise --disable epilogue"] {
        let plan = scratch.done(&format!("inspect model.onnx --stage plan --json {limit}")).out;
        let plan: serde_json::Value = serde_json::from_str(&plan).expect("JSON");
        assert_eq!(plan["summary"]["nodes"], 3, "{limit}: {plan:#}");
        scratch.done(&format!("compile model.onnx -o crate {limit}"));
        scratch.done(&format!("run model.onnx --input x=x.npy -o out {limit}"));
        assert!(scratch.done(&format!("verify . {limit}")).out.ends_with("2 comparisons ok on cpu\n"));
        let bench = scratch.done(&format!("bench model.onnx --duration 0.01 --warm-up 0 --json {limit}")).out;
        let bench: serde_json::Value = serde_json::from_str(&bench).expect("JSON");
        assert_eq!(bench["nodes"], 3, "{limit}: {bench:#}");
        // Rules are named in their order.
        let said = limit.replace("--disable pointwise --disable epilogue", "--disable epilogue --disable pointwise");
        assert_eq!(bench["pass_limits"], said);
    }
    for command in
        ["inspect model.onnx", "compile model.onnx -o no", "verify .", "run model.onnx -o no", "bench model.onnx"]
    {
        let words = format!("{command} --disable fusion");
        scratch.refused(
            &words,
            2,
            &["there is no such rule; the rules are fold, identity", "attention, causal, epilogue"],
        );
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let scratch = Scratch::with(model::chain(500));
    let mut command = Command::new(lapidary().canonicalize().expect("a program"));
    command.args(["inspect", "model.onnx"]).current_dir(&scratch.0).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the command starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A location with a line of its own reaches no build script, and no terminal.
#[test]
fn names_from_the_model_stay_on_their_line() {
    let node = NodeProto {
        op_type: Some("Relu\n= help: ".to_owned()),
        input: vec!["x\u{1b}[31m".to_owned()],
        output: vec!["y".to_owned()],
        ..NodeProto::default()
    };
    let bytes = Builder::new("hostile").input("x\u{1b}[31m", FLOAT, &["3"]).output("y").bytes();
    let mut model = ModelProto::decode(bytes.as_slice()).expect("a model");
    model.graph.get_or_insert_with(GraphProto::default).node.push(node);
    let scratch = Scratch::with(model.encode_to_vec());
    let said = scratch.call("check model.onnx");
    assert_eq!(said.code, Some(1));
    assert!(!said.err.contains('\u{1b}') && !said.err.contains("Relu\n"), "{}", said.err);
}
