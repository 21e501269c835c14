//! What is not supported, gathered: a model that uses an unknown operator mostly uses it many times, and one paragraph
//! says so better than seventy.
//!
//! Contract: every node is counted; those of one operator with one reason, whatever tensors it names, share a
//! diagnostic at the first of them.

use std::collections::BTreeMap;

use crate::diag::{Diagnostic, Place, quoted};

/// How many nodes are named before the rest is counted.
const NAMED: usize = 3;

/// Nodes that are not supported, by operator and reason.
#[derive(Clone, Default)]
pub(super) struct Unsupported {
    groups: BTreeMap<Key, Group>,
}

/// Domain, operator, the reason without the names in it, and the help.
type Key = (String, String, String, String);

#[derive(Clone)]
struct Group {
    first: Place,
    what: String,
    /// The first nodes, as the user knows them.
    names: Vec<String>,
    count: usize,
}

impl Unsupported {
    /// Adds a node at `at`, and why it is not supported.
    pub(super) fn add(&mut self, at: Place, what: String, help: String) {
        let (domain, op, name) = match &at {
            Place::Node { name, op, domain, output } => {
                let name = if name.is_empty() { output } else { name };
                (domain.clone(), op.clone(), quoted(name))
            }
            Place::Model | Place::File { .. } | Place::Tensor { .. } | Place::Value { .. } => {
                (String::new(), String::new(), at.to_string())
            }
        };
        let key = (domain, op, without_names(&what), help);
        let group = self.groups.entry(key).or_insert_with(|| Group { first: at, what, names: Vec::new(), count: 0 });
        group.count += 1;
        if group.names.len() < NAMED {
            group.names.push(name);
        }
    }

    /// One diagnostic a group.
    pub(super) fn diagnostics(self) -> impl Iterator<Item = Diagnostic> {
        self.groups.into_iter().map(|((.., help), Group { first, what, names, count })| {
            let one = Diagnostic::error("E0401", first, what).help(help);
            if count == 1 {
                return one;
            }
            let rest = count - names.len();
            let list = match rest {
                0 => names.join(", "),
                _ => format!("{} and {rest} more", names.join(", ")),
            };
            one.why(format!("{count} nodes are refused for this: {list}"))
        })
    }
}

/// `what` with an empty string for each quoted name.
fn without_names(what: &str) -> String {
    let mut text = String::with_capacity(what.len());
    let (mut inside, mut escaped) = (false, false);
    for c in what.chars() {
        let quote = c == '"' && !escaped;
        escaped = inside && c == '\\' && !escaped;
        if quote || !inside {
            text.push(c);
        }
        inside ^= quote;
    }
    text
}
