//! Why a command ends without success.

use std::fmt;
use std::path::Path;

use lapidary::diag::Diagnostics;

/// A failure, and whose it is.
#[derive(Debug)]
pub enum Failure {
    /// What is wrong with the model.
    Model(Diagnostics),
    /// What is wrong with a result: one line.
    Result(String),
    /// What is wrong with the call or its files: what, and what to do.
    Usage { what: String, help: String },
}

impl Failure {
    /// A failure of the call.
    pub fn usage(what: impl Into<String>, help: impl Into<String>) -> Failure {
        Failure::Usage { what: what.into(), help: help.into() }
    }

    /// A file that cannot be read or written.
    pub fn file(path: &Path, error: impl fmt::Display) -> Failure {
        Failure::usage(format!("{}: {error}", path.display()), "check the path and its permissions")
    }

    /// 1 for a model or a result, 2 for the call.
    pub fn exit_code(&self) -> u8 {
        match self {
            Failure::Model(_) | Failure::Result(_) => 1,
            Failure::Usage { .. } => 2,
        }
    }
}

impl From<Diagnostics> for Failure {
    fn from(diagnostics: Diagnostics) -> Failure {
        Failure::Model(diagnostics)
    }
}

impl From<lapidary_runtime::Error> for Failure {
    fn from(error: lapidary_runtime::Error) -> Failure {
        Failure::Result(format!("error: {error}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Model(diagnostics) => diagnostics.fmt(f),
            Failure::Result(what) => f.write_str(what),
            Failure::Usage { what, help } => write!(f, "error: {what}\n  = help: {help}"),
        }
    }
}
