//! Bytes of an ONNX file to a [`Model`] that is known to be one: it decodes, has a graph, and speaks versions that
//! this compiler reads.
//!
//! The file is mapped, not read; `raw_data` of tensors stays where it is. External data files are mapped as well, but
//! what is wrong with them is reported when a tensor is decoded, so that a model can be inspected without its
//! weights. Not here: the meaning of nodes, and whether their operators are supported (`import`).

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use bytes::Bytes;
use prost::Message;
use sha2::{Digest, Sha256};

use super::external::{External, map_file};
use super::proto::{GraphProto, ModelProto, NodeProto, OperatorSetIdProto, SparseTensorProto, TensorProto};
use super::{Fixed, Format, TensorRef, sparse, tensor, wire};
use crate::diag::{Diagnostic, Diagnostics, Place, Result, quoted};

/// Versions of the `ai.onnx` operator set that are read.
pub const OPSETS: RangeInclusive<i64> = 6..=28;

/// Versions of the file format that are read. Version 3 (2017) is the first with operator sets.
const IR_VERSIONS: RangeInclusive<i64> = 3..=14;

/// An ONNX model and the files it lies in. Read-only, but for inputs that become constants ([`Model::fix_input`]),
/// and for what the interface is to be.
#[derive(Debug)]
pub struct Model {
    /// The decoded file.
    pub proto: ModelProto,
    /// The mapped files that tensors with external data refer to.
    pub external: External,
    /// The model's folder; `None` for a model that was given as bytes without one.
    pub dir: Option<PathBuf>,
    /// The inputs that were made constants, in the order of the calls.
    pub fixed: Vec<Fixed>,
    /// The inputs and outputs that the interface has in another order of axes than the model.
    pub formats: Vec<(String, Format)>,
    bytes: Bytes,
    sha256: OnceLock<[u8; 32]>,
}

/// Maps the file at `path`, and decodes and checks it. External data is looked for in the file's folder.
///
/// The file must not be changed while the model is in use: the mapping shows the change, and a file cut short ends
/// the process.
///
/// # Errors
/// E0101 where it cannot be read, else those of [`load_bytes`].
pub fn load(path: &Path) -> Result<Model> {
    let shown = path.display().to_string();
    let bytes = map_file(path).map_err(|error| {
        Diagnostic::error("E0101", Place::file(&*shown), "the model cannot be read")
            .why(error.to_string())
            .help("give the path of an .onnx file that you may read")
    })?;
    let dir = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    checked(bytes, Some(dir), Place::file(shown))
}

/// Decodes and checks a model that is in memory. External data is looked for in `dir`.
///
/// # Errors
/// E0102 to E0107 (not a model, no graph, versions, size), E0221 (sparse tensors that are too large); see `diag::CODES`.
pub fn load_bytes(bytes: Bytes, dir: Option<&Path>) -> Result<Model> {
    checked(bytes, dir, Place::Model)
}

impl Model {
    /// The main graph.
    pub fn graph(&self) -> &GraphProto {
        match &self.proto.graph {
            Some(graph) => graph,
            None => crate::bug!("a model without a graph was loaded"),
        }
    }

    /// The version of `domain`'s operators that the model's graphs mean (functions have their own); `""` and
    /// `ai.onnx` are the same domain.
    pub fn opset(&self, domain: &str) -> Option<i64> {
        let import = self.proto.opset_import.iter().find(|o| same_domain(o.domain(), domain))?;
        Some(import.version())
    }

    /// The data of a stored tensor; `at` is where a diagnostic says it is.
    ///
    /// # Errors
    /// See [`tensor::decode`].
    pub fn tensor(&self, tensor: &TensorProto, at: &Place) -> Result<TensorRef> {
        tensor::decode(tensor, &self.external, at)
    }

    /// The data of a stored sparse tensor, made dense.
    ///
    /// # Errors
    /// See [`sparse::densify`].
    pub fn sparse_tensor(&self, tensor: &SparseTensorProto, at: &Place) -> Result<TensorRef> {
        sparse::densify(tensor, &self.external, at)
    }

    /// Makes weights in external files seeded stand-ins, for planning and timing a model without them.
    pub fn seed_weights(&mut self) {
        self.external.seed();
    }

    /// SHA-256 of the model's bytes, external data not included. Computed once, at the first call.
    pub fn sha256(&self) -> &[u8; 32] {
        self.sha256.get_or_init(|| Sha256::digest(&self.bytes).into())
    }
}

fn checked(bytes: Bytes, dir: Option<&Path>, at: Place) -> Result<Model> {
    let proto = decode(&bytes, &at)?;
    let mut found = Diagnostics::new();
    check_ir_version(&proto, &at, &mut found);
    check_opsets(&proto, &mut found);
    let stored = Stored::of(&proto);
    found.keep(sparse::check_total(&stored.sparse));
    found.check()?;
    let external = External::open(stored.tensors.iter().copied(), dir);
    let dir = dir.map(Path::to_owned);
    Ok(Model { proto, external, dir, fixed: Vec::new(), formats: Vec::new(), bytes, sha256: OnceLock::new() })
}

fn decode(bytes: &Bytes, at: &Place) -> Result<ModelProto> {
    if let Err(fault) = wire::walk(bytes) {
        return Err(refused(bytes, at, fault));
    }
    let proto = ModelProto::decode(bytes.clone()).map_err(|error| not_a_model(bytes, at.clone(), error.to_string()))?;
    if proto.graph.is_some() {
        return Ok(proto);
    }
    if bytes.is_empty() {
        return Err(not_a_model(bytes, at.clone(), "the file is empty".into()));
    }
    if other_format(bytes).is_some() {
        return Err(not_a_model(bytes, at.clone(), String::new()));
    }
    Err(Diagnostic::error("E0103", at.clone(), "the model has no graph")
        .why("an ONNX model holds one graph, with its nodes and weights")
        .help("check that the file is a model, and not a tensor or a part of one")
        .into())
}

/// What a fault of the walk means to the user.
fn refused(bytes: &[u8], at: &Place, fault: wire::Fault) -> Diagnostics {
    let at = match at {
        Place::File { path, .. } => Place::File { path: path.clone(), offset: Some(fault.offset as u64) },
        other => other.clone(),
    };
    match fault.kind {
        wire::FaultKind::TooManyMessages | wire::FaultKind::TooDeep if other_format(bytes).is_none() => {
            Diagnostic::error("E0107", at, "the model is too large in structure")
                .why(fault.to_string())
                .help("move repeated parts into a Loop or a function, and data into tensors")
                .into()
        }
        wire::FaultKind::TooManyMessages | wire::FaultKind::TooDeep | wire::FaultKind::NotAField => {
            not_a_model(bytes, at, fault.to_string())
        }
        wire::FaultKind::CutShort => {
            not_a_model(bytes, at, format!("{fault}; the file has {} bytes: is it cut short?", bytes.len()))
        }
    }
}

fn not_a_model(bytes: &[u8], at: Place, why: String) -> Diagnostics {
    let (why, help) = match other_format(bytes) {
        Some((format, help)) => (format!("it looks like {format}"), help),
        None => (why, "fetch it again, or export it again with the ONNX exporter of its framework"),
    };
    Diagnostic::error("E0102", at, "this is not an ONNX model").why(why).help(help).into()
}

/// What bytes that are not a model may be, and what to do then.
fn other_format(bytes: &[u8]) -> Option<(&'static str, &'static str)> {
    let lower = bytes.get(..16).unwrap_or(bytes).to_ascii_lowercase();
    let tag = bytes.get(4..8).unwrap_or(&[]);
    if bytes.starts_with(b"version https://git-lfs") {
        Some(("a Git LFS pointer", "fetch the file itself: git lfs pull"))
    } else if bytes.starts_with(b"PK\x03\x04") {
        Some(("a zip archive, such as a PyTorch checkpoint", "export it with torch.onnx.export"))
    } else if bytes.starts_with(b"\x1f\x8b") {
        Some(("a gzip archive", "unpack it first"))
    } else if lower.starts_with(b"<!doctype") || lower.starts_with(b"<html") {
        Some(("a web page", "download the file itself, not the page about it"))
    } else if tag == b"TFL3" {
        Some(("a TensorFlow Lite model", "convert it with tf2onnx"))
    } else if tag == b"ORTM" {
        Some(("an ONNX Runtime model (.ort)", "give the .onnx file that it was made from"))
    } else {
        None
    }
}

fn check_ir_version(proto: &ModelProto, at: &Place, found: &mut Diagnostics) {
    let version = proto.ir_version();
    if IR_VERSIONS.contains(&version) {
        return;
    }
    let (oldest, newest) = (IR_VERSIONS.start(), IR_VERSIONS.end());
    let what = match proto.ir_version {
        Some(version) => format!("the model's IR version is {version}"),
        None => "the model has no IR version".to_owned(),
    };
    let help = if version > *newest {
        format!("export it again with an older onnx package (for torch.onnx or onnx.save: IR version {newest})")
    } else {
        "load and save it with a current onnx package, after onnx.version_converter".to_owned()
    };
    let why = format!("IR versions {oldest} to {newest} are read");
    found.push(Diagnostic::error("E0104", at.clone(), what).why(why).help(help));
}

/// Imports of domains that no node uses are never looked at: real files list many.
fn check_opsets(proto: &ModelProto, found: &mut Diagnostics) {
    let graphs = proto.graph.iter().flat_map(|g| nodes_within(&g.node));
    check_imports("the model", &proto.opset_import, graphs, found);
    for function in &proto.functions {
        let owner = format!("function {}", quoted(function.name()));
        check_imports(&owner, &function.opset_import, nodes_within(&function.node), found);
    }
}

fn check_imports<'a>(
    owner: &str,
    imports: &[OperatorSetIdProto],
    mut nodes: impl Iterator<Item = &'a NodeProto>,
    found: &mut Diagnostics,
) {
    let mut versions = BTreeMap::new();
    for import in imports {
        let domain = if is_onnx(import.domain()) { "" } else { import.domain() };
        let first = *versions.entry(domain).or_insert(import.version());
        if first != import.version() {
            let domain = if domain.is_empty() { "ai.onnx" } else { domain };
            let what = format!(
                "{owner} imports the operators of {} twice: versions {first} and {}",
                quoted(domain),
                import.version()
            );
            found.push(
                Diagnostic::error("E0106", Place::Model, what)
                    .why("a node does not say which of the two it means")
                    .help("leave one opset_import entry of the domain"),
            );
        }
    }
    if !nodes.any(|node| is_onnx(node.domain())) {
        return;
    }
    let (oldest, newest) = (OPSETS.start(), OPSETS.end());
    let reads = format!("versions {oldest} to {newest} of the ai.onnx operators are read");
    match versions.get("") {
        Some(version) if OPSETS.contains(version) => {}
        Some(version) => found.push(
            Diagnostic::error("E0105", Place::Model, format!("{owner} uses ai.onnx opset {version}")).why(reads).help(
                format!(
                    "convert it: onnx.version_converter.convert_version(model, {}), or export it with that opset",
                    if version < oldest { 17 } else { *newest }
                ),
            ),
        ),
        None => found.push(
            Diagnostic::error("E0105", Place::Model, format!("{owner} does not say which opset it uses"))
                .why(format!("it has ai.onnx nodes but no opset_import entry for them; {reads}"))
                .help("export it again, or add the entry with onnx.helper.make_opsetid"),
        ),
    }
}

/// Whether `domain` is one of the two spellings of the standard's own.
fn is_onnx(domain: &str) -> bool {
    domain.is_empty() || domain == "ai.onnx"
}

fn same_domain(a: &str, b: &str) -> bool {
    a == b || is_onnx(a) && is_onnx(b)
}

/// All nodes, those of nested graphs included. Decoding bounds the depth (prost: 100 messages).
fn nodes_within(nodes: &[NodeProto]) -> Box<dyn Iterator<Item = &NodeProto> + '_> {
    Box::new(nodes.iter().flat_map(|node| {
        let inner = node.attribute.iter().flat_map(|a| a.g.as_deref().into_iter().chain(&a.graphs));
        std::iter::once(node).chain(inner.flat_map(|graph| nodes_within(&graph.node)))
    }))
}

/// Every tensor that a model stores, wherever it is.
struct Stored<'a> {
    tensors: Vec<&'a TensorProto>,
    sparse: Vec<&'a SparseTensorProto>,
}

impl<'a> Stored<'a> {
    fn of(proto: &'a ModelProto) -> Stored<'a> {
        let mut stored = Stored { tensors: Vec::new(), sparse: Vec::new() };
        if let Some(graph) = &proto.graph {
            stored.graph(graph);
        }
        for function in &proto.functions {
            stored.attributes(&function.attribute_proto);
            stored.nodes(&function.node);
        }
        let parts = stored.sparse.iter().flat_map(|s| s.values.iter().chain(&s.indices).map(|part| &**part));
        stored.tensors.extend(parts);
        stored
    }

    fn graph(&mut self, graph: &'a GraphProto) {
        self.tensors.extend(&graph.initializer);
        self.sparse.extend(&graph.sparse_initializer);
        self.nodes(&graph.node);
    }

    fn nodes(&mut self, nodes: &'a [NodeProto]) {
        for node in nodes {
            self.attributes(&node.attribute);
        }
    }

    fn attributes(&mut self, attributes: &'a [super::proto::AttributeProto]) {
        for attribute in attributes {
            self.tensors.extend(attribute.t.as_deref().into_iter().chain(&attribute.tensors));
            let sparse = attribute.sparse_tensor.as_deref();
            self.sparse.extend(sparse.into_iter().chain(&attribute.sparse_tensors));
            for graph in attribute.g.as_deref().into_iter().chain(&attribute.graphs) {
                self.graph(graph);
            }
        }
    }
}
