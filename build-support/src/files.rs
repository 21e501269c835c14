//! Writes a module's files so that cargo builds nothing anew where nothing changed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use lapidary::emit::CrateFiles;

use crate::Error;

/// Makes `folder` hold exactly `files`. A file that has its bytes already is not touched.
pub fn write(folder: &Path, files: &CrateFiles) -> Result<(), Error> {
    let wanted: BTreeSet<PathBuf> = files.keys().map(|path| folder.join(path)).collect();
    for stale in below(folder)?.into_iter().filter(|path| !wanted.contains(path)) {
        std::fs::remove_file(&stale).map_err(|source| Error::File { path: stale, source })?;
    }
    for (path, bytes) in files {
        write_one(&folder.join(path), bytes)?;
    }
    Ok(())
}

/// Writes one file, unless it has these bytes already.
pub fn write_one(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let failed = |source| Error::File { path: path.to_owned(), source };
    if std::fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    std::fs::write(path, bytes).map_err(failed)
}

/// Every file below a folder; none if the folder is not there.
fn below(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        if !folder.is_dir() {
            continue;
        }
        let failed = |source| Error::File { path: folder.clone(), source };
        for entry in std::fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let is_folder = entry.file_type().map_err(failed)?.is_dir();
            if is_folder { folders.push(entry.path()) } else { found.push(entry.path()) }
        }
    }
    Ok(found)
}
