//! An emission on disk: makes a folder hold the files of a crate or a module, and none of an earlier emission.
//!
//! The one place of the library that writes into a user's folders; the CLI and `lapidary-build` both call it. A file
//! that has its bytes already is not touched, so that cargo builds nothing anew where nothing changed. Not here: what
//! is written ([`crate::emit`]), and whether the user wants it there (the callers ask).

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::emit::CrateFiles;

/// Which files of a folder are removed because the emission does not have them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stale {
    /// All others: the folder is the emission's own, such as one below `OUT_DIR`.
    Everything,
    /// Those in [`PLACES`]: the folder is an emitted crate, to which its user may have added files.
    Emitted,
    /// None: the folder holds something else.
    Nothing,
}

/// Where the files are that some emissions have and others do not; folders end with `/`. Nothing of a user's lies
/// here. All other files of an emission are written each time.
pub const PLACES: [&str; 5] = ["build.rs", "kernels/", "src/plan/", "tests/golden/", "vendor/lapidary-runtime/"];

/// A file or folder that cannot be read, written or removed.
#[derive(Debug)]
pub struct FileError {
    pub path: PathBuf,
    pub source: io::Error,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.source)
    }
}

impl std::error::Error for FileError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Writes `files` into `folder` and removes what is stale there.
///
/// # Errors
/// The first file that cannot be written or removed.
pub fn write(folder: &Path, files: &CrateFiles, stale: Stale) -> Result<(), FileError> {
    let wanted: BTreeSet<PathBuf> = files.keys().map(|path| folder.join(path)).collect();
    let places = match stale {
        Stale::Everything => vec![folder.to_owned()],
        Stale::Emitted => PLACES.iter().map(|place| folder.join(place)).collect(),
        Stale::Nothing => Vec::new(),
    };
    for place in places {
        for path in below(&place)?.into_iter().filter(|path| !wanted.contains(path)) {
            remove(&path, folder)?;
        }
    }
    for (path, bytes) in files {
        write_one(&folder.join(path), bytes)?;
    }
    Ok(())
}

/// Writes one file, unless it has these bytes already.
///
/// # Errors
/// The file or its folder cannot be written.
pub fn write_one(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        |source| FileError { path, source }
    };
    if std::fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed(folder))?;
    }
    std::fs::write(path, bytes).map_err(failed(path))
}

/// Removes a file, and the folders up to `root` that it leaves empty.
fn remove(path: &Path, root: &Path) -> Result<(), FileError> {
    std::fs::remove_file(path).map_err(|source| FileError { path: path.to_owned(), source })?;
    for folder in path.ancestors().skip(1).take_while(|folder| *folder != root) {
        // One that is not empty stays.
        if std::fs::remove_dir(folder).is_err() {
            break;
        }
    }
    Ok(())
}

/// The file at `place`, or every file below the folder there; links are not followed. None if nothing is there.
fn below(place: &Path) -> Result<Vec<PathBuf>, FileError> {
    let mut found = Vec::new();
    let mut places = vec![place.to_owned()];
    while let Some(place) = places.pop() {
        let failed = |source| FileError { path: place.clone(), source };
        match std::fs::symlink_metadata(&place) {
            Ok(entry) if entry.is_dir() => {
                for entry in std::fs::read_dir(&place).map_err(failed)? {
                    places.push(entry.map_err(failed)?.path());
                }
            }
            Ok(_) => found.push(place),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // A file where a folder would be: nothing is below it.
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(paths: &[&str]) -> CrateFiles {
        paths.iter().map(|path| ((*path).to_owned(), path.as_bytes().to_vec())).collect()
    }

    fn listed(folder: &Path) -> Vec<String> {
        let name = |path: PathBuf| path.strip_prefix(folder).expect("below it").to_string_lossy().into_owned();
        let mut names: Vec<String> = below(folder).expect("a readable folder").into_iter().map(name).collect();
        names.sort();
        names
    }

    #[test]
    fn what_an_earlier_emission_wrote_goes_and_what_the_user_added_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path();
        write(
            folder,
            &files(&["build.rs", "kernels/include/a.cuh", "src/lib.rs", "src/plan/sm_80.rs"]),
            Stale::Emitted,
        )
        .expect("written");
        write_one(&folder.join("src/mine.rs"), b"// mine").expect("written");
        write(folder, &files(&["src/lib.rs", "src/plan/cpu.rs"]), Stale::Emitted).expect("written");
        assert_eq!(listed(folder), ["src/lib.rs", "src/mine.rs", "src/plan/cpu.rs"]);
        assert!(!folder.join("kernels").exists());
        write(folder, &files(&["src/lib.rs"]), Stale::Everything).expect("written");
        assert_eq!(listed(folder), ["src/lib.rs"]);
    }

    #[test]
    fn in_a_folder_of_somebody_else_nothing_is_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        write_one(&folder.path().join("kernels/mine.cu"), b"mine").expect("written");
        write(folder.path(), &files(&["src/lib.rs"]), Stale::Nothing).expect("written");
        assert_eq!(listed(folder.path()), ["kernels/mine.cu", "src/lib.rs"]);
    }

    #[test]
    fn the_error_names_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        write_one(&folder.path().join("src"), b"a file").expect("written");
        let error = write(folder.path(), &files(&["src/lib.rs"]), Stale::Emitted).expect_err("src is a file");
        assert!(error.to_string().contains("src"), "{error}");
    }
}
