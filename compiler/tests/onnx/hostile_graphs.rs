//! Whole models that decode and mean harm: each is answered by a diagnostic, of its code and in its words, in bounded
//! time and memory.

use lapidary::diag::{Diagnostics, Result};
use lapidary::ir::Graph;
use lapidary::onnx::proto::attribute_proto::AttributeType;
use lapidary::onnx::proto::tensor_proto::DataLocation;
use lapidary::onnx::proto::{AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto};
use lapidary::onnx::{import, load};
use lapidary::profiles::Profiles;
use prost::Message;

use super::bounds::bounded;
use super::control::{graph, i64s, integer, plain, symbolic};
use super::functions::{input, named, node, output};
use super::{entry, loaded, opset, raw};

const FLOAT: i32 = 1;

/// A graph with one output, `y`.
fn model(nodes: Vec<NodeProto>, stored: Vec<TensorProto>) -> ModelProto {
    let graph = GraphProto {
        node: nodes,
        input: vec![input("x", FLOAT, &[2, 3])],
        initializer: stored,
        output: vec![output("y")],
        ..GraphProto::default()
    };
    ModelProto { ir_version: Some(8), opset_import: vec![opset("", 17)], graph: Some(graph), ..ModelProto::default() }
}

fn imported(proto: &ModelProto) -> Result<Graph> {
    bounded(|| import(&loaded(proto)?, &Profiles::new()))
}

/// Every code and its line, in the order in which they are printed.
#[track_caller]
fn faults(proto: &ModelProto) -> Vec<(&'static str, String)> {
    let found: Diagnostics = imported(proto).err().expect("this must be refused");
    assert!(found.iter().all(|one| one.to_string().len() < 2000), "{found}");
    found.iter().map(|one| (one.code, one.what.clone())).collect()
}

#[track_caller]
fn refused(proto: &ModelProto, code: &str, words: &str) {
    let found = faults(proto);
    assert!(found.len() == 1 && found[0].0 == code && found[0].1.contains(words), "{found:?}");
}

#[test]
fn cycles() {
    refused(&model(vec![plain("Neg", "y", "y")], vec![]), "E0403", "cycle");
    refused(&model(vec![plain("Add", "x b", "y"), plain("Neg", "y", "b")], vec![]), "E0403", "cycle");
    // Through what a branch reads from around it.
    let branch = || vec![plain("Neg", "y", "r")];
    let graphs = vec![graph("then_branch", branch()), graph("else_branch", branch())];
    refused(&model(vec![node("", "If", "x", "y", graphs)], vec![]), "E0403", "cycle");
}

#[test]
fn functions_that_call_each_other() {
    let calls = |name: &str, other: &str| FunctionProto {
        name: Some(name.to_owned()),
        domain: Some("my".to_owned()),
        input: vec!["a".to_owned()],
        output: vec!["b".to_owned()],
        node: vec![node("my", other, "a", "b", vec![])],
        opset_import: vec![opset("my", 1)],
        ..FunctionProto::default()
    };
    let mut proto = model(vec![node("my", "F", "x", "y", vec![])], vec![]);
    proto.opset_import.push(opset("my", 1));
    proto.functions = vec![calls("F", "G"), calls("G", "F")];
    assert_eq!(faults(&proto)[0], ("E0409", "function \"F\" calls itself".to_owned()));
    // 2^60 nodes, had each call been expanded.
    let twice = |k: usize| FunctionProto {
        node: vec![
            node("my", &format!("F{}", k + 1), "a", "t", vec![]),
            node("my", &format!("F{}", k + 1), "t", "b", vec![]),
        ],
        ..calls(&format!("F{k}"), "")
    };
    proto.functions =
        (0..60).map(twice).chain([FunctionProto { node: vec![plain("Neg", "a", "b")], ..calls("F60", "") }]).collect();
    proto.graph = model(vec![node("my", "F0", "x", "y", vec![])], vec![]).graph;
    proto.functions.iter_mut().for_each(|function| function.opset_import.push(opset("", 17)));
    refused(&proto, "E0409", "expand to too much");
}

#[test]
fn absurd_extents_of_inputs() {
    let sized = |dims: &[i64]| {
        let mut proto = model(vec![plain("Neg", "x", "y")], vec![]);
        if let Some(graph) = &mut proto.graph {
            graph.input = vec![input("x", FLOAT, dims)];
        }
        proto
    };
    for dims in [&[i64::MAX][..], &[1 << 40], &[1 << 32, 1 << 32], &[i64::MAX, i64::MAX, i64::MAX], &[1 << 21; 3]] {
        let found = faults(&sized(dims));
        assert_eq!(found[0], ("E0412", "the input is too large".to_owned()), "{dims:?}");
    }
    // A negative extent is an unknown one, as some exporters write -1.
    assert!(imported(&sized(&[-1, i64::MIN])).is_ok());
    assert!(imported(&sized(&[0, 1 << 62])).is_ok());
    refused(&sized(&[1; 9]), "E0404", "rank 9");
}

#[test]
fn a_range_that_no_memory_holds() {
    let mut proto = model(vec![plain("Neg", "x", "y")], vec![]);
    if let Some(graph) = &mut proto.graph {
        graph.input = vec![symbolic("x", &["n", "n"])];
    }
    let mut profiles = Profiles::new();
    let (name, range) = Profiles::parse(&format!("n=1:1:{}", i64::MAX)).expect("a profile");
    profiles.add(&name, range);
    let found = bounded(|| import(&loaded(&proto).expect("a model"), &profiles)).err().expect("this must be refused");
    assert!(found.iter().any(|one| one.code == "E0412" && one.help.contains("--dim")), "{found}");
}

#[test]
fn stored_tensors_that_are_not_there() {
    let claims = |dims: &[i64], data: &[u8]| {
        let stored = TensorProto { name: Some("w".to_owned()), ..raw(FLOAT, dims, data) };
        model(vec![plain("Neg", "w", "y")], vec![stored])
    };
    // 2 GiB in a file of 100 bytes.
    refused(&claims(&[1 << 29], &[0; 4]), "E0203", "");
    refused(&claims(&[i64::MAX, 2], &[0; 4]), "E0202", "");
    refused(&claims(&[-1], &[0; 4]), "E0202", "");
    refused(&claims(&[1 << 32, 1 << 32, 1 << 32], &[]), "E0202", "");
}

#[test]
fn names_that_are_wrong() {
    refused(&model(vec![plain("Add", "x nothing", "y")], vec![]), "E0407", "nothing defines \"nothing\"");
    refused(&model(vec![plain("Neg", "x", "z")], vec![]), "E0408", "nothing computes this output");
    refused(&model(vec![plain("Neg", "x", "y"), plain("Abs", "x", "y")], vec![]), "E0402", "defined twice");
    let over_input = model(vec![plain("Neg", "w", "x"), plain("Neg", "x", "y")], vec![raw(FLOAT, &[1], &[0; 4])]);
    refused(&over_input, "E0402", "\"x\" is defined twice");
    let edited = |edit: fn(&mut GraphProto)| {
        let mut proto = model(vec![plain("Neg", "x", "y")], vec![]);
        proto.graph.iter_mut().for_each(edit);
        proto
    };
    refused(&edited(|graph| graph.output.push(output("y"))), "E0402", "an output twice");
    refused(&edited(|graph| graph.input.push(input("x", FLOAT, &[2]))), "E0402", "defined twice");
    refused(&edited(|graph| graph.input.push(input("", FLOAT, &[2]))), "E0410", "input 1 has no name");
    refused(&edited(|graph| graph.output.clear()), "E0408", "no outputs");
    refused(&edited(|graph| graph.output.push(output(""))), "E0408", "nothing computes");
    refused(&edited(|graph| graph.input[0].r#type = None), "E0405", "not a tensor");
    // A name of a megabyte floods no terminal, and one with lines forges none.
    let long = "n".repeat(1 << 20);
    let found = imported(&model(vec![plain("Add", &format!("x {long}"), "y")], vec![])).err().expect("refused");
    assert!(found.to_string().len() < 10_000);
    let mut forged = plain("Wat", "x", "y");
    forged.name = Some("a\nerror[E0101]: b".to_owned());
    let found = imported(&model(vec![forged], vec![])).err().expect("refused");
    assert!(found.to_string().lines().filter(|line| line.starts_with("error")).count() == 1, "{found}");
}

#[test]
fn wrong_types_and_counts() {
    let truth = || TensorProto { name: Some("w".to_owned()), ..raw(9, &[2, 3], &[1; 6]) };
    refused(&model(vec![plain("Add", "x w", "y")], vec![truth()]), "E0407", "");
    refused(&model(vec![plain("MatMul", "x w", "y")], vec![truth()]), "E0407", "");
    refused(&model(vec![plain("Reshape", "x w", "y")], vec![truth()]), "E0401", "");
    refused(&model(vec![plain("Neg", "x x x", "y")], vec![]), "E0407", "it has 3 operands, the operator takes 1");
    refused(&model(vec![plain("Add", "x", "y")], vec![]), "E0407", "it has 1 operands, the operator takes 2");
    refused(&model(vec![plain("Neg", "x", "y z")], vec![]), "E0407", "it has 2 results, the operator takes 1");
    refused(&model(vec![plain("Add", "x _", "y")], vec![]), "E0407", "operand 1 is missing");
    let strings =
        TensorProto { data_type: Some(8), name: Some("w".to_owned()), dims: vec![1], ..TensorProto::default() };
    refused(&model(vec![plain("Neg", "w", "y")], vec![strings]), "E0201", "");
}

#[test]
fn operators_that_claim_huge_results() {
    const HUGE: i64 = 1 << 40;
    let shape = |values: &[i64]| vec![i64s("s", &[values.len() as i64], values)];
    let one = |op: &str, operands: &str, stored: Vec<TensorProto>| model(vec![plain(op, operands, "y")], stored);
    let pads = i64s("p", &[4], &[HUGE, 0, HUGE, 0]);
    let range = ["a", "b", "c"].map(|name| i64s(name, &[], &[if name == "b" { HUGE } else { 1 }]));
    for proto in [
        one("Expand", "x s", shape(&[HUGE, 2, 3])),
        one("ConstantOfShape", "s", shape(&[HUGE])),
        one("ConstantOfShape", "s", shape(&[i64::MAX, i64::MAX])),
        one("Tile", "x s", shape(&[HUGE, HUGE])),
        one("Pad", "x p", vec![pads]),
        one("Range", "a b c", range.to_vec()),
        one("OneHot", "i d v", vec![i64s("i", &[1], &[0]), i64s("d", &[], &[HUGE]), i64s("v", &[2], &[0, 1])]),
        model(
            vec![plain("Unsqueeze", "x s", "z"), plain("Resize", "z _ _ r", "y")],
            [shape(&[0, 1]), vec![i64s("r", &[4], &[1, 1, HUGE, HUGE])]].concat(),
        ),
    ] {
        let found = faults(&proto);
        assert!(found.len() == 1 && found[0].0 == "E0407" && found[0].1.contains("more than a TiB"), "{found:?}");
    }
    let endless = ["a", "b", "c"].map(|name| i64s(name, &[], &[if name == "b" { i64::MAX } else { 1 }]));
    refused(&one("Range", "a b c", endless.to_vec()), "E0407", "there is no number of elements");
    refused(&one("ConstantOfShape", "s", shape(&[-1])), "E0407", "");
    refused(&one("Expand", "x s", shape(&[i64::MIN])), "E0407", "");
    refused(&one("Reshape", "x s", shape(&[i64::MAX, i64::MAX])), "E0407", "");
    refused(&one("Tile", "x s", shape(&[-1, 1])), "E0407", "");
}

#[test]
fn windows_that_make_no_sense() {
    let ints =
        |name: &str, values: &[i64]| AttributeProto { ints: values.to_vec(), ..named(name, AttributeType::Ints) };
    let pool = |attributes: Vec<AttributeProto>| {
        let mut proto = model(vec![node("", "MaxPool", "x", "y", attributes)], vec![]);
        if let Some(graph) = &mut proto.graph {
            graph.input = vec![input("x", FLOAT, &[1, 1, 8, 8])];
        }
        proto
    };
    for attributes in [
        vec![ints("kernel_shape", &[i64::MAX, 1])],
        vec![ints("kernel_shape", &[0, 0])],
        vec![ints("kernel_shape", &[-1, 2])],
        vec![ints("kernel_shape", &[2, 2]), ints("strides", &[0, 1])],
        vec![ints("kernel_shape", &[2, 2]), ints("dilations", &[i64::MAX, i64::MAX])],
        vec![ints("kernel_shape", &[2, 2]), ints("pads", &[i64::MAX, 0, i64::MAX, 0])],
        vec![ints("kernel_shape", &[2, 2]), ints("pads", &[i64::MIN, 0, 0, 0])],
    ] {
        let found = faults(&pool(attributes.clone()));
        assert!(found.iter().all(|(code, _)| ["E0303", "E0401", "E0407"].contains(code)), "{attributes:?}: {found:?}");
    }
    let split = node("", "Split", "x", "y", vec![integer("axis", i64::MIN)]);
    refused(&model(vec![split], vec![]), "E0407", "");
}

/// Graphs in graphs: as deep as a file may nest them, and no deeper.
#[test]
fn branches_in_branches() {
    let nested = |depth: usize| {
        let mut body = vec![plain("Neg", "x", "r")];
        for _ in 0..depth {
            body = vec![node(
                "",
                "If",
                "flag",
                "r",
                vec![graph("then_branch", body.clone()), graph("else_branch", vec![plain("Abs", "x", "r")])],
            )];
        }
        body.push(plain("Abs", "r", "y"));
        let mut proto = model(body, vec![]);
        if let Some(graph) = &mut proto.graph {
            graph.input.push(input("flag", 9, &[]));
        }
        proto
    };
    assert!(imported(&nested(20)).is_ok());
    refused(&nested(60), "E0107", "too large in structure");
}

#[test]
fn data_outside_the_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let inner = folder.path().join("inner");
    std::fs::create_dir(&inner).expect("a folder");
    std::fs::write(folder.path().join("secret"), [0; 24]).expect("written");
    let path = inner.join("m.onnx");
    let open = |location: &str, length: &str| {
        let stored = TensorProto {
            name: Some("w".to_owned()),
            raw_data: None,
            data_location: Some(DataLocation::External as i32),
            external_data: vec![entry("location", location), entry("length", length)],
            ..raw(FLOAT, &[2, 3], &[])
        };
        std::fs::write(&path, model(vec![plain("Add", "x w", "y")], vec![stored]).encode_to_vec()).expect("written");
        let found = bounded(|| import(&load(&path)?, &Profiles::new())).err().expect("this must be refused");
        found.iter().map(|one| one.code).collect::<Vec<_>>()
    };
    let absolute = folder.path().join("secret");
    for location in ["../secret", "/etc/passwd", "x/../../secret", &absolute.to_string_lossy()] {
        assert_eq!(open(location, "24"), ["E0210"], "{location}");
    }
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(&absolute, inner.join("link")).expect("a link");
        std::os::unix::fs::symlink(folder.path(), inner.join("up")).expect("a link");
        assert_eq!(open("link", "24"), ["E0210"]);
        assert_eq!(open("up/secret", "24"), ["E0210"]);
    }
    std::fs::write(inner.join("short"), [0; 8]).expect("written");
    assert_eq!(open("short", "24"), ["E0212"]);
    assert_eq!(open("short", "-1"), ["E0213"]);
    assert_eq!(open("missing", "24"), ["E0211"]);
}

/// One paragraph for what many nodes share, and every reason there is.
#[test]
fn unsupported_operators_are_told_once_each() {
    let mut nodes: Vec<NodeProto> = (0..70).map(|k| plain("Wat", "x", &format!("w{k}"))).collect();
    nodes.extend((0..2).map(|k| plain("Huh", "x", &format!("h{k}"))));
    // Of matrices: those of vectors are for callers to fix, each by itself.
    nodes.extend((0..3).map(|k| plain("Squeeze", &format!("x{k}"), &format!("s{k}"))));
    nodes.extend((0..3).map(|k| plain("Reshape", &format!("x s{k}"), &format!("r{k}"))));
    nodes.push(plain("Neg", "x", "y"));
    let mut proto = model(nodes, vec![]);
    if let Some(graph) = &mut proto.graph {
        graph.input.extend((0..3).map(|k| input(&format!("x{k}"), 7, &[2, 1])));
    }
    let found = imported(&proto).err().expect("this must be refused");
    let texts: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "error[E0401]: the operator ai.onnx::Huh is not supported\n  --> node that produces \"h0\" (Huh)\n  \
             = why: 2 nodes are refused for this: \"h0\", \"h1\"\n  \
             = help: express it by supported operators when exporting (SUPPORTED.md lists them)",
            "error[E0401]: the shape in \"s0\" depends on the data of a run\n  --> node that produces \"r0\" (Reshape)\n  \
             = why: 3 nodes are refused for this: \"r0\", \"r1\", \"r2\"\n  \
             = help: compute the shape from shapes and constants only, or give it as a constant",
            "error[E0401]: the operator ai.onnx::Wat is not supported\n  --> node that produces \"w0\" (Wat)\n  \
             = why: 70 nodes are refused for this: \"w0\", \"w1\", \"w2\" and 67 more\n  \
             = help: express it by supported operators when exporting (SUPPORTED.md lists them)",
        ]
    );
}
