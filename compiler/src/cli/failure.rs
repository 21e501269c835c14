//! Why a command ends without success: what, where, what helps, and whose fault it is.

use std::fmt;
use std::path::Path;

use lapidary::diag::{Diagnostics, quoted};
use lapidary::folder::FileError;
use lapidary::ir::eval::EvalError;
use lapidary_runtime::Error;

/// A failure.
#[derive(Debug)]
pub enum Failure {
    /// What is wrong with the model or with what was asked for it, all together.
    Model(Diagnostics),
    /// One thing.
    Told(Told),
}

/// One thing that went wrong.
#[derive(Debug)]
pub struct Told {
    fault: Fault,
    what: String,
    /// Where; empty for the call itself.
    at: String,
    help: String,
}

/// Who is to mend it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// The model or a result: exit code 1.
    Model,
    /// The call, with the files that it names and the machine that it runs on: exit code 2.
    Call,
}

/// The diagnostics of a call: a model's file that cannot be read, a `--dim` that the model does not have, a `--value`,
/// `--elements` or `--rank` that does not fit, no CUDA compiler, or one that does not know the target or cannot work.
const OF_THE_CALL: [&str; 7] = ["E0101", "E0406", "E0413", "E0414", "E0601", "E0602", "E0603"];

impl Failure {
    /// A failure of the call.
    pub fn usage(what: impl Into<String>, help: impl Into<String>) -> Failure {
        Failure::told(Fault::Call, what, String::new(), help)
    }

    /// A file that cannot be read or written, or that the call gives for something that it is not.
    pub fn file(path: &Path, error: impl fmt::Display) -> Failure {
        let at = format!("file {}", quoted(&path.display().to_string()));
        Failure::told(Fault::Call, error.to_string(), at, "check the path, its permissions, and what is in it")
    }

    /// A result that is not what it has to be.
    pub fn result(what: impl Into<String>, at: impl Into<String>, help: impl Into<String>) -> Failure {
        Failure::told(Fault::Model, what, at.into(), help)
    }

    fn told(fault: Fault, what: impl Into<String>, at: String, help: impl Into<String>) -> Failure {
        Failure::Told(Told { fault, what: what.into(), at, help: help.into() })
    }

    /// 1 where the model or a result is at fault, 2 where the call is.
    pub fn exit_code(&self) -> u8 {
        let fault = match self {
            Failure::Model(found) if found.iter().all(|one| OF_THE_CALL.contains(&one.code)) => Fault::Call,
            Failure::Model(_) => Fault::Model,
            Failure::Told(told) => told.fault,
        };
        match fault {
            Fault::Model => 1,
            Fault::Call => 2,
        }
    }
}

impl From<Diagnostics> for Failure {
    fn from(diagnostics: Diagnostics) -> Failure {
        Failure::Model(diagnostics)
    }
}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Failure {
        Failure::file(&error.path, error.source)
    }
}

impl From<EvalError> for Failure {
    fn from(error: EvalError) -> Failure {
        let value = |what: &str, name: &str| format!("{what} {}", quoted(name));
        let (fault, at, help) = match &error {
            EvalError::InputCount { .. } => (Fault::Call, "the inputs".to_owned(), INPUTS),
            EvalError::Input { name, .. } => (Fault::Call, value("input", name), INPUTS),
            EvalError::Node { origin, .. } => (
                Fault::Model,
                value("node", origin),
                "the model does not take these values: check indices and shapes among the inputs' elements",
            ),
            EvalError::Value { name, .. } => {
                (Fault::Model, value("value", name), "check that the extents of the inputs go together, see --dim")
            }
        };
        Failure::told(fault, error.to_string(), at, help)
    }
}

const INPUTS: &str = "`lapidary check MODEL` lists the inputs with their types, shapes and ranges";

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let (fault, at, help) = explained(&error);
        Failure::told(fault, error.to_string(), at, help)
    }
}

/// Whose fault an error of the runtime is, where it is, and what to do.
fn explained(error: &Error) -> (Fault, String, String) {
    let named = |what: &str, name: &str| format!("{what} {}", quoted(name));
    let (fault, at, help) = match error {
        Error::InputCount { .. } => (Fault::Call, "the inputs".to_owned(), INPUTS),
        Error::InputType { input, .. } | Error::InputShape { input, .. } => {
            (Fault::Call, named("input", input), INPUTS)
        }
        Error::Length { tensor, .. } | Error::Bytes { tensor, .. } => (Fault::Call, named("tensor", tensor), INPUTS),
        Error::Rank { .. } => (Fault::Call, "an input".to_owned(), INPUTS),
        Error::OutOfMemory { .. } => (
            Fault::Call,
            "this machine".to_owned(),
            "give the dimensions smaller ranges by --dim: memory is laid out for the largest shape",
        ),
        Error::OutsideProfiles { symbol, .. } => {
            let help = format!("give a range that holds it: --dim {}=MIN:OPT:MAX", symbol.escape_debug());
            return (Fault::Call, named("dimension", symbol), help);
        }
        Error::Constraint { .. } => {
            (Fault::Call, "the extents of the inputs".to_owned(), "give inputs whose extents go together")
        }
        Error::Index { step, .. } => (
            Fault::Model,
            named("step", step),
            "an index comes from the inputs or is computed from them: check the inputs' elements",
        ),
        Error::Unsupported { step, .. } => {
            (Fault::Model, named("step", step), "please report it, with the model if you can share it")
        }
        Error::Cuda { during, .. } => (
            Fault::Model,
            named("call", during),
            "nvidia-smi shows whether the GPU is well and has memory; --no-graph launches kernel by kernel",
        ),
        Error::NoImage { device, .. } => {
            (Fault::Call, named("device", device), "run on another GPU, or with --target cpu")
        }
        // The others are not of what the CLI does; and the runtime may have more one day.
        _ => (Fault::Model, "the model's run".to_owned(), "please report it, with the model if you can share it"),
    };
    (fault, at, help.to_owned())
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told = match self {
            Failure::Model(diagnostics) => return diagnostics.fmt(f),
            Failure::Told(told) => told,
        };
        write!(f, "error: {}", told.what)?;
        if !told.at.is_empty() {
            write!(f, "\n  --> {}", told.at)?;
        }
        write!(f, "\n  = help: {}", told.help)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_a_run_say_where_and_what_helps() {
        let index = Failure::from(Error::Index { step: "Gather#1".to_owned(), index: 5, extent: 1 });
        assert_eq!(
            index.to_string(),
            "error: Gather#1: index 5 is out of range for an axis of 1\n  --> step \"Gather#1\"\n  = help: an index \
             comes from the inputs or is computed from them: check the inputs' elements"
        );
        assert_eq!(index.exit_code(), 1);
        let shape =
            Error::InputShape { input: "image".to_owned(), expected: "[batch, 8]".to_owned(), given: vec![1, 9] };
        let shape = Failure::from(shape);
        assert!(shape.to_string().contains("\n  --> input \"image\"\n  = help: "), "{shape}");
        assert_eq!(shape.exit_code(), 2);
        let outside = Error::OutsideProfiles { symbol: "batch".to_owned(), given: 65, ranges: Vec::new() };
        assert!(Failure::from(outside).to_string().contains("--dim batch=MIN:OPT:MAX"));
    }

    #[test]
    fn a_missing_file_is_the_calls_fault_and_a_bad_model_is_not() {
        let missing = lapidary::onnx::load(Path::new("no/such.onnx")).expect_err("no file");
        assert_eq!(Failure::from(missing).exit_code(), 2);
        let bad = lapidary::onnx::load_bytes(Vec::new().into(), None).expect_err("no model");
        assert_eq!(Failure::from(bad).exit_code(), 1);
    }
}
