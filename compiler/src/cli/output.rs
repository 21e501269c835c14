//! Standard output and notes.

use std::io::{ErrorKind, Write};

use super::Failure;

/// Prints `text` and a line's end. A reader that has seen enough (`| head`) is no error.
pub fn line(text: impl std::fmt::Display) -> Result<(), Failure> {
    match writeln!(std::io::stdout().lock(), "{text}") {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::usage(format!("standard output: {error}"), "check where it goes"))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Says on standard error what the user should know of a command that succeeds.
pub fn note(text: impl std::fmt::Display) {
    // Where even that cannot be written, nobody is told.
    let _ = writeln!(std::io::stderr().lock(), "note: {text}");
}
