//! SUPPORTED.md: which operators are taken, from which operator set on, with which types and on which targets, and what
//! is refused of them. It is made from the list of operators, the ledger, and the models of the cases.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::Arc;

use lapidary::diag::Place;
use lapidary::onnx::proto::type_proto::Value;
use lapidary::onnx::proto::{GraphProto, ModelProto, NodeProto, ValueInfoProto};
use lapidary::onnx::{OPSETS, dtype_of, operators};
use lapidary_runtime::DType;
use prost::Message;

use super::case::{Case, Group};
use super::ledger::{Ledger, Verdict};
use super::runner::RunnerKind;

/// Domain and name of an operator; the domain is empty for `ai.onnx`.
type Key = (String, String);

/// What the cases say of an operator on a runner.
#[derive(Default)]
struct Tally {
    /// Cases with the operator that end right, or as a statistical test wants.
    right: usize,
    /// Cases that are refused because of it.
    refused: usize,
    /// Places in [`DType::ALL`] of the types that its first operand and its first result have in those cases.
    types: BTreeSet<usize>,
}

#[derive(Default)]
struct Row {
    /// The operator set versions of its definitions.
    since: BTreeSet<i64>,
    tallies: BTreeMap<RunnerKind, Tally>,
    /// What is refused, without the names in it; on which runners, and in how many cases.
    refusals: BTreeMap<String, BTreeMap<RunnerKind, usize>>,
}

/// The page.
pub fn page(ledger: &Ledger, cases: &[Arc<Case>]) -> String {
    let mut rows: BTreeMap<Key, Row> = BTreeMap::new();
    for operator in operators() {
        rows.entry((operator.domain.to_owned(), operator.name.to_owned())).or_default().since.insert(operator.since);
    }
    for case in cases {
        let read = std::fs::read(case.dir.join("model.onnx"));
        let Some(model) = read.ok().and_then(|bytes| ModelProto::decode(bytes.as_slice()).ok()) else { continue };
        count(&mut rows, ledger, case, &model);
    }
    let mut page = head(ledger);
    table(&mut page, &rows);
    restrictions(&mut page, &rows);
    refused_operators(&mut page, &rows);
    page
}

/// Adds a case to the rows of the operators in it.
fn count(rows: &mut BTreeMap<Key, Row>, ledger: &Ledger, case: &Case, model: &ModelProto) {
    let Some(graph) = &model.graph else { return };
    let used = used(graph);
    for runner in RunnerKind::ALL {
        match ledger.verdict(case.group, &case.name, runner) {
            None => {}
            Some(Verdict::Ok | Verdict::Fixed(_) | Verdict::Random(_)) => {
                for (key, types) in &used {
                    let tally = rows.entry(key.clone()).or_default().tallies.entry(runner).or_default();
                    tally.right += 1;
                    tally.types.extend(types);
                }
            }
            Some(Verdict::Unsupported(why)) => {
                let Some((key, what)) = blamed(why, &used) else { continue };
                let row = rows.entry(key).or_default();
                row.tallies.entry(runner).or_default().refused += 1;
                let refusal = row.refusals.entry(without_names(&what)).or_default();
                *refusal.entry(runner).or_default() += 1;
            }
        }
    }
}

/// The operator of the case that a line of the ledger is about, and what the line says of it. A line that names none of
/// them is about the only one there is, if that is so; one that refuses the model's version (E0105) is about none.
fn blamed(why: &str, used: &BTreeMap<Key, BTreeSet<usize>>) -> Option<(Key, String)> {
    let (code, what) = why.split_once(' ')?;
    if code == "E0105" {
        return None;
    }
    let named = used.keys().find_map(|key| {
        let (domain, name) = key;
        let shown = if domain.is_empty() { format!("{name}: ") } else { format!("{domain}::{name}: ") };
        Some((key, what.strip_prefix(&shown)?))
    });
    match named {
        Some((key, what)) => Some((key.clone(), what.to_owned())),
        None if used.len() == 1 => used.keys().next().map(|key| (key.clone(), what.to_owned())),
        None => None,
    }
}

/// The operators of a graph and the graphs in it, and the types of their first operands and results, where the file has
/// them.
fn used(graph: &GraphProto) -> BTreeMap<Key, BTreeSet<usize>> {
    let mut types: BTreeMap<&str, i32> = BTreeMap::new();
    for info in graph.input.iter().chain(&graph.output) {
        types.extend(elem_type(info).map(|elem| (info.name(), elem)));
    }
    types.extend(graph.initializer.iter().map(|tensor| (tensor.name(), tensor.data_type())));
    let mut used: BTreeMap<Key, BTreeSet<usize>> = BTreeMap::new();
    for node in &graph.node {
        let names = node.input.first().into_iter().chain(node.output.first());
        let found = names.filter_map(|name| place(*types.get(name.as_str())?));
        used.entry(key(node)).or_default().extend(found);
        for inner in
            node.attribute.iter().flat_map(|attribute| attribute.g.as_deref().into_iter().chain(&attribute.graphs))
        {
            for (key, types) in self::used(inner) {
                used.entry(key).or_default().extend(types);
            }
        }
    }
    used
}

fn key(node: &NodeProto) -> Key {
    let domain = if node.domain() == "ai.onnx" { "" } else { node.domain() };
    (domain.to_owned(), node.op_type().to_owned())
}

fn elem_type(info: &ValueInfoProto) -> Option<i32> {
    match info.r#type.as_ref()?.value.as_ref()? {
        Value::TensorType(tensor) => Some(tensor.elem_type()),
        _ => None,
    }
}

/// The place in [`DType::ALL`] of ONNX's type number.
fn place(elem_type: i32) -> Option<usize> {
    let dtype = dtype_of(elem_type, &Place::Model).ok()?;
    DType::ALL.iter().position(|&other| other == dtype)
}

fn head(ledger: &Ledger) -> String {
    let mut page = format!(
        "# What is supported\n\n\
         Generated by `LAPIDARY_BLESS=1 cargo test --release -p lapidary-tests --test conformance`; a test holds it \
         current.\n\nModels of operator sets {} to {} are read. What stands here was seen in the cases of ONNX's own \
         backend suite (onnx 1.23.2; [the ledger](tests/conformance/ledger.txt) has each): right by ONNX's rule of \
         comparison, or refused with a diagnostic (a case of an older operator set too). A wrong result fails the test. *Random* cases hold numpy's random \
         numbers, and are judged by statistical tests. A target without figures has not been run.\n\n\
         | Cases | runner | right | random | refused |\n|---|---|--:|--:|--:|\n",
        OPSETS.start(),
        OPSETS.end()
    );
    for group in Group::ALL {
        for runner in RunnerKind::ALL {
            let [right, random, refused] = ledger.counts(group, runner);
            if right + random + refused > 0 {
                say(&mut page, format_args!("| {group} | {runner} | {right} | {random} | {refused} |"));
            }
        }
    }
    page
}

fn table(page: &mut String, rows: &BTreeMap<Key, Row>) {
    page.push_str(
        "\n## Operators\n\n\
         *Types*: those of the first operand and the first result in cases that are right on `cpu`; `cuda:` where it has \
         others. *Cases*: right, and of how many where some are refused because of the operator. An operator without \
         cases has none in the suite.\n\n\
         | Operator | Operator sets | Types | reference | cpu | cuda |\n|---|---|---|--:|--:|--:|\n",
    );
    for ((domain, name), row) in rows.iter().filter(|(_, row)| !row.since.is_empty()) {
        let shown = if domain.is_empty() { name.clone() } else { format!("{domain}::{name}") };
        let since = row.since.first().copied().unwrap_or(1).max(if domain.is_empty() { *OPSETS.start() } else { 1 });
        let sets = if domain.is_empty() { format!("{since}-{}", OPSETS.end()) } else { format!("{since}-") };
        let types = |runner| row.tallies.get(&runner).map(|tally| type_names(&tally.types)).unwrap_or_default();
        let (cpu, cuda) = (types(RunnerKind::Cpu), types(RunnerKind::Cuda));
        let types = if cuda.is_empty() || cuda == cpu { cpu } else { format!("{cpu}; cuda: {cuda}") };
        let [reference, cpu, cuda] = RunnerKind::ALL.map(|runner| figure(row.tallies.get(&runner)));
        say(page, format_args!("| {shown} | {sets} | {types} | {reference} | {cpu} | {cuda} |"));
    }
}

fn type_names(types: &BTreeSet<usize>) -> String {
    types.iter().map(|&place| DType::ALL[place].name()).collect::<Vec<_>>().join(" ")
}

fn figure(tally: Option<&Tally>) -> String {
    match tally {
        None => String::new(),
        Some(Tally { right, refused: 0, .. }) => right.to_string(),
        Some(Tally { right, refused, .. }) => format!("{right} of {}", right + refused),
    }
}

fn restrictions(page: &mut String, rows: &BTreeMap<Key, Row>) {
    page.push_str("\n## Restrictions\n\nWhat is refused of these operators, in how many cases:\n\n");
    for ((domain, name), row) in rows.iter().filter(|(_, row)| !row.since.is_empty()) {
        let shown = if domain.is_empty() { name.clone() } else { format!("{domain}::{name}") };
        for (what, runners) in &row.refusals {
            let runners: Vec<String> = runners.iter().map(|(runner, count)| format!("{runner} {count}")).collect();
            say(page, format_args!("- **{shown}** ({}): {what}", runners.join(", ")));
        }
    }
}

fn refused_operators(page: &mut String, rows: &BTreeMap<Key, Row>) {
    page.push_str("\n## Operators of the suite that are not supported\n\n");
    let refused = rows.iter().filter(|(_, row)| row.since.is_empty() && !row.refusals.is_empty());
    let names =
        refused.map(|((domain, name), _)| if domain.is_empty() { name.clone() } else { format!("{domain}::{name}") });
    say(page, format_args!("{}.", names.collect::<Vec<_>>().join(", ")));
}

fn say(page: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(page, "{line}").expect("a string takes every line");
}

/// `what` with an ellipsis for each quoted name, which differ from case to case, and without the count of what else is
/// refused.
fn without_names(what: &str) -> String {
    let what = what.rsplit_once(" (and ").map_or(what, |(what, _)| what);
    let parts = what.split('"').enumerate();
    parts.map(|(k, part)| if k % 2 == 0 { part } else { "…" }).collect()
}
