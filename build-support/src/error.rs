//! Why a model was not compiled.

use std::fmt;
use std::path::PathBuf;

use lapidary::diag::Diagnostics;
use lapidary::folder::FileError;

/// An error of this crate. `Debug` prints the same text as `Display`, so that a `main` that returns it reads well.
#[non_exhaustive]
pub enum Error {
    /// What is wrong with the model, everything at once, or with the CUDA compiler.
    Model(Diagnostics),
    /// What is wrong with the call: one line each.
    Call(Vec<String>),
    /// A file or folder that cannot be written or removed.
    File { path: PathBuf, source: std::io::Error },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Model(diagnostics) => diagnostics.fmt(f),
            Error::Call(lines) => write!(f, "error: {}", lines.join("\nerror: ")),
            Error::File { path, source } => write!(f, "error: {}: {source}", path.display()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the model was not compiled\n{self}")
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::File { source, .. } => Some(source),
            Error::Model(_) | Error::Call(_) => None,
        }
    }
}

impl From<FileError> for Error {
    fn from(error: FileError) -> Error {
        Error::File { path: error.path, source: error.source }
    }
}

impl From<Diagnostics> for Error {
    fn from(diagnostics: Diagnostics) -> Error {
        Error::Model(diagnostics)
    }
}
