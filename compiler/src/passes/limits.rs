//! Which passes run, and how many rewrites they make: for finding the one behind a wrong result.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use super::PIPELINE;

/// What is left out of [`PIPELINE`]; by default nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Left out wherever they stand.
    pub disabled: BTreeSet<PassName>,
    /// How many rewrites are made before the passes end; a sweep that changes something is one.
    pub stop_after: Option<usize>,
}

/// The name of a pass of [`PIPELINE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PassName(&'static str);

impl FromStr for PassName {
    type Err = String;

    fn from_str(text: &str) -> Result<PassName, String> {
        if let Some(pass) = PIPELINE.iter().find(|pass| pass.name == text) {
            return Ok(PassName(pass.name));
        }
        let mut names: Vec<&str> = Vec::new();
        for pass in PIPELINE {
            if !names.contains(&pass.name) {
                names.push(pass.name);
            }
        }
        Err(format!("there is no such rule; the rules are {}", names.join(", ")))
    }
}

impl fmt::Display for PassName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Limits {
    /// Whether the pass of this name runs.
    pub fn allow(&self, name: &'static str) -> bool {
        !self.disabled.contains(&PassName(name))
    }

    /// Whether no rewrite is made behind so many.
    pub fn end_at(&self, rewrites: usize) -> bool {
        self.stop_after.is_some_and(|most| rewrites >= most)
    }
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said: Vec<String> = self.disabled.iter().map(|name| format!("--disable {name}")).collect();
        said.extend(self.stop_after.map(|most| format!("--stop-after-rewrite {most}")));
        f.write_str(&said.join(" "))
    }
}
