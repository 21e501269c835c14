//! The ledger: how each case ends on each runner.
//!
//! A section a group, `[node]`; in it a line for each case and each set of runners on which it ends alike: the case, the
//! runners, the verdict. Lines stand in the cases' order; `#` begins a comment at a line's start.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use super::case::Group;
use super::runner::RunnerKind;

/// How a case ends that does not end wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every output is as expected.
    Ok,
    /// Every output is as expected; these inputs were fixed to the case's values, as the compiler asked for.
    Fixed(String),
    /// The compiler refuses the model: the diagnostic's code, the operator, and the first line.
    Unsupported(String),
    /// The outputs are random, and a statistical test of this name holds.
    Random(String),
}

impl Verdict {
    fn parse(text: &str) -> Option<Verdict> {
        if text == "ok" {
            return Some(Verdict::Ok);
        }
        let (kind, rest) = text.split_once(": ")?;
        match kind {
            "ok, fixed" => Some(Verdict::Fixed(rest.to_owned())),
            "unsupported" => Some(Verdict::Unsupported(rest.to_owned())),
            "random" => Some(Verdict::Random(rest.to_owned())),
            _ => None,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Ok => f.write_str("ok"),
            Verdict::Fixed(names) => write!(f, "ok, fixed: {names}"),
            Verdict::Unsupported(what) => write!(f, "unsupported: {what}"),
            Verdict::Random(test) => write!(f, "random: {test}"),
        }
    }
}

/// The verdicts, by case and runner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger(BTreeMap<(Group, String), BTreeMap<RunnerKind, Verdict>>);

impl Ledger {
    /// Reads the file; one that is not there is an empty ledger.
    pub fn read(path: &Path) -> Result<Ledger, String> {
        if !path.exists() {
            return Ok(Ledger::default());
        }
        Ledger::parse(&std::fs::read_to_string(path).map_err(|error| error.to_string())?)
    }

    fn parse(text: &str) -> Result<Ledger, String> {
        let mut ledger = Ledger::default();
        let mut group = None;
        for (number, line) in text.lines().enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let said = |what: &str| format!("line {}: {what}: {line}", number + 1);
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                let known = Group::ALL.into_iter().find(|group| group.name() == name);
                group = Some(known.ok_or_else(|| said("no such group"))?);
                continue;
            }
            let group = group.ok_or_else(|| said("a case outside a group"))?;
            let (name, mut rest) = line.split_once(' ').ok_or_else(|| said("no runner"))?;
            let mut runners = Vec::new();
            loop {
                rest = rest.trim_start();
                let word = rest.split(' ').next().unwrap_or("");
                let Some(runner) = RunnerKind::ALL.into_iter().find(|runner| runner.name() == word) else { break };
                runners.push(runner);
                rest = &rest[word.len()..];
            }
            let verdict = Verdict::parse(rest).ok_or_else(|| said("no verdict"))?;
            for runner in runners {
                ledger.set(group, name, runner, verdict.clone());
            }
        }
        Ok(ledger)
    }

    pub fn set(&mut self, group: Group, name: &str, runner: RunnerKind, verdict: Verdict) {
        self.0.entry((group, name.to_owned())).or_default().insert(runner, verdict);
    }

    pub fn verdict(&self, group: Group, name: &str, runner: RunnerKind) -> Option<&Verdict> {
        self.0.get(&(group, name.to_owned()))?.get(&runner)
    }

    pub fn cases(&self) -> impl Iterator<Item = (Group, &str)> {
        self.0.keys().map(|(group, name)| (*group, name.as_str()))
    }

    pub fn lines(&self) -> impl Iterator<Item = (Group, &str, RunnerKind, &Verdict)> {
        self.0.iter().flat_map(|((group, name), verdicts)| {
            verdicts.iter().map(|(runner, verdict)| (*group, name.as_str(), *runner, verdict))
        })
    }

    /// How many cases of a group end right, as a statistical test wants, and refused on a runner.
    pub fn counts(&self, group: Group, runner: RunnerKind) -> [usize; 3] {
        let mut counts = [0; 3];
        for (_, _, _, verdict) in self.lines().filter(|line| (line.0, line.2) == (group, runner)) {
            counts[match verdict {
                Verdict::Ok | Verdict::Fixed(_) => 0,
                Verdict::Random(_) => 1,
                Verdict::Unsupported(_) => 2,
            }] += 1;
        }
        counts
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "# How the cases of ONNX's backend suite end, runner by runner. tests/tests/conformance writes this file"
        )?;
        writeln!(f, "# under LAPIDARY_BLESS=1, and fails where it no longer holds. A wrong result is never listed.")?;
        for group in Group::ALL {
            writeln!(f, "\n[{group}]")?;
            for ((_, name), verdicts) in self.0.iter().filter(|((of, _), _)| *of == group) {
                let mut shown: Vec<(&Verdict, Vec<&str>)> = Vec::new();
                for (runner, verdict) in verdicts {
                    match shown.iter_mut().find(|(other, _)| *other == verdict) {
                        Some((_, runners)) => runners.push(runner.name()),
                        None => shown.push((verdict, vec![runner.name()])),
                    }
                }
                for (verdict, runners) in shown {
                    writeln!(f, "{name:<60} {:<18} {verdict}", runners.join(" "))?;
                }
            }
        }
        Ok(())
    }
}

/// What is written reads back the same.
pub fn self_test() -> Result<(), String> {
    let mut ledger = Ledger::default();
    let long = "test_".to_owned() + &"x".repeat(80);
    let refused = Verdict::Unsupported("E0401 Foo: what: it \"says\"".to_owned());
    for runner in RunnerKind::ALL {
        ledger.set(Group::Node, &long, runner, Verdict::Ok);
    }
    ledger.set(Group::Node, "test_a", RunnerKind::Cpu, Verdict::Fixed("axes, k".to_owned()));
    ledger.set(Group::Node, "test_b", RunnerKind::Reference, Verdict::Random("bernoulli".to_owned()));
    ledger.set(Group::Node, "test_b", RunnerKind::Cpu, refused.clone());
    ledger.set(Group::Light, "light_b", RunnerKind::Cpu, refused);
    let text = ledger.to_string();
    let read = Ledger::parse(&text)?;
    if read != ledger {
        return Err(format!("{text}\nis read as {read:?}"));
    }
    for bad in ["test_a cpu ok", "[nodes]", "[node]\ntest_a cpu fine", "[node]\ntest_a"] {
        if Ledger::parse(bad).is_ok() {
            return Err(format!("{bad} is read"));
        }
    }
    Ok(())
}
