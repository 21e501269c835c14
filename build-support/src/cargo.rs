//! What is told to cargo about files (The Cargo Book, "Build Scripts").

use std::path::Path;

use crate::Error;

/// Runs the build script again when `path` changes.
///
/// # Errors
/// A path that is no single line of text: a model names its external files, and a line of its own could tell cargo
/// anything.
pub fn rerun_if_changed(path: &Path) -> Result<(), Error> {
    println!("{}", line(path)?);
    Ok(())
}

fn line(path: &Path) -> Result<String, Error> {
    match path.to_str() {
        Some(text) if !text.contains(char::is_control) => Ok(format!("cargo::rerun-if-changed={text}")),
        Some(_) | None => Err(Error::Call(vec![format!(
            "cargo cannot be told to watch {path:?}: give the file a name of text without control characters"
        )])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_line() {
        assert_eq!(line(Path::new("a b/w.bin")).expect("a path"), "cargo::rerun-if-changed=a b/w.bin");
        for path in ["w.bin\ncargo::rustc-env=PWNED=1", "w.bin\r", "w\0.bin"] {
            let error = line(Path::new(path)).expect_err("no line").to_string();
            assert!(error.contains("control characters") && !error.contains(char::is_control), "{error}");
        }
    }
}
