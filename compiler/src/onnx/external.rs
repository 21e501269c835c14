//! The files beside a model that hold tensors too large for it, each mapped once (ONNX: docs/ExternalData.md).
//!
//! A model names these files, so it is not trusted with the name: a file is opened only if it is a regular file inside
//! the model's folder after every symbolic link is followed. `checksum` entries are not verified.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use memmap2::Mmap;

use super::proto::tensor_proto::DataLocation;
use super::proto::{StringStringEntryProto, TensorProto};
use crate::diag::{Diagnostic, Diagnostics, Place, Result, quoted};

/// The external data files of a model, or why one could not be had, by the location that tensors give.
#[derive(Debug, Default)]
pub struct External {
    files: BTreeMap<String, Result<Bytes>>,
    seeded: bool,
}

impl External {
    /// Maps the files that `tensors` refer to. What goes wrong is kept, and told by [`External::data`].
    pub fn open<'a>(tensors: impl Iterator<Item = &'a TensorProto>, dir: Option<&Path>) -> External {
        let mut folder = Folder::of(dir);
        let mut files = BTreeMap::new();
        for tensor in tensors.filter(|tensor| is_external(tensor)) {
            let Some(location) = entry(tensor, "location") else {
                continue;
            };
            if !files.contains_key(location) {
                files.insert(location.to_owned(), folder.map(location));
            }
        }
        External { files, seeded: false }
    }

    /// Makes every tensor with external data a seeded stand-in; the files are not read any more.
    pub fn seed(&mut self) {
        self.seeded = true;
    }

    /// Whether tensors with external data are seeded stand-ins.
    pub fn is_seeded(&self) -> bool {
        self.seeded
    }

    /// The locations of the files that were mapped, relative to the model's folder.
    pub fn mapped(&self) -> impl Iterator<Item = &str> {
        self.files.iter().filter(|(_, file)| file.is_ok()).map(|(location, _)| location.as_str())
    }

    /// Whether every file that tensors refer to was mapped.
    pub fn is_complete(&self) -> bool {
        self.files.values().all(Result::is_ok)
    }

    /// The bytes of `tensor`, which has external data and needs `need` bytes; a view of the mapped file.
    ///
    /// # Errors
    /// E0210 to E0213: the file is outside the model's folder, or cannot be read, or is too short, or the entries make
    /// no sense. A `length` that is not `need` is for the caller to find.
    pub fn data(&self, tensor: &TensorProto, need: usize, at: &Place) -> Result<Bytes> {
        let Some(location) = entry(tensor, "location") else {
            let what = "the tensor's external data has no location";
            return Err(malformed(what.into(), at));
        };
        let offset = number(tensor, "offset", at)?.unwrap_or(0);
        // Without a length the tensor's dimensions say it.
        let length = number(tensor, "length", at)?.unwrap_or(need);
        let file = match self.files.get(location) {
            Some(file) => file.clone()?,
            None => return Err(unopened(location, at)),
        };
        match offset.checked_add(length) {
            Some(end) if end <= file.len() => Ok(file.slice(offset..end)),
            _ => {
                let what = "the tensor's external data is not in its file";
                let why = format!(
                    "it is said to be {length} bytes at byte {offset} of {}, which has {} bytes",
                    quoted(location),
                    file.len()
                );
                let help = "fetch the file again: it is cut short, or belongs to another model";
                Err(Diagnostic::error("E0212", at.clone(), what).why(why).help(help).into())
            }
        }
    }
}

/// Whether a tensor's data is in another file.
pub(super) fn is_external(tensor: &TensorProto) -> bool {
    tensor.data_location() == DataLocation::External
}

/// A read-only map of a regular file.
///
/// # Errors
/// Whatever the system says; also where `path` is a folder, a device or a pipe.
pub(super) fn map_file(path: &Path) -> io::Result<Bytes> {
    // Before it is opened: opening a pipe waits for somebody to write.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let file = File::open(path)?;
    if file.metadata()?.len() == 0 {
        return Ok(Bytes::new());
    }
    // SAFETY: the map is read-only and private to this process. Another process that changes the file changes what
    // these bytes are while they are read, and one that cuts it short ends this process; `load` says so. Any byte is a
    // valid `u8`, and no length is read twice.
    let map = unsafe { Mmap::map(&file)? };
    Ok(Bytes::from_owner(map))
}

fn number(tensor: &TensorProto, key: &str, at: &Place) -> Result<Option<usize>> {
    let Some(text) = entry(tensor, key) else {
        return Ok(None);
    };
    text.parse().map(Some).map_err(|_| {
        let what = format!("the {key} of the tensor's external data is {}", quoted(text));
        malformed(what, at)
    })
}

fn malformed(what: String, at: &Place) -> Diagnostics {
    Diagnostic::error("E0213", at.clone(), what)
        .why("external data is told by a \"location\", and by an \"offset\" and a \"length\" in bytes")
        .help("save the model again with onnx.save_model(..., save_as_external_data=True)")
        .into()
}

/// A tensor that was not among those of [`External::open`], such as one of a file of test data.
fn unopened(location: &str, at: &Place) -> Diagnostics {
    let what = format!("the tensor's data is in {}, which is not a file of the model", quoted(location));
    Diagnostic::error("E0211", at.clone(), what)
        .why("only tensors of a model may have external data")
        .help("save the tensor with its data inside")
        .into()
}

fn entry<'a>(tensor: &'a TensorProto, key: &str) -> Option<&'a str> {
    tensor.external_data.iter().find(|e| e.key() == key).map(StringStringEntryProto::value)
}

/// The model's folder while its files are opened.
struct Folder {
    /// Without symbolic links.
    root: std::result::Result<PathBuf, String>,
    /// Locations may spell one file in several ways; it is mapped once all the same.
    mapped: BTreeMap<PathBuf, Bytes>,
}

impl Folder {
    fn of(dir: Option<&Path>) -> Folder {
        let root = match dir {
            Some(dir) => dir.canonicalize().map_err(|error| error.to_string()),
            None => Err("the model was given as bytes, without a folder".to_owned()),
        };
        Folder { root, mapped: BTreeMap::new() }
    }

    fn map(&mut self, location: &str) -> Result<Bytes> {
        let unreadable = |why: String| unreadable(location, why);
        if location.is_empty() {
            return Err(unreadable("the location is empty".into()));
        }
        // Locations are told to people and to cargo, a line each.
        if location.contains(char::is_control) {
            return Err(outside(location, "a location has no control characters"));
        }
        let inside = |c: Component<'_>| matches!(c, Component::Normal(_) | Component::CurDir);
        // A backslash or a drive letter is a path on some systems: refused on all, so that a model means one thing.
        let foreign = location.contains('\\') || location.as_bytes().get(1) == Some(&b':');
        if foreign || !Path::new(location).components().all(inside) {
            return Err(outside(location, "a location is a relative path, with '/' and without '..'"));
        }
        let root = self.root.as_ref().map_err(|why| unreadable(why.clone()))?;
        let path = root.join(location).canonicalize().map_err(|e| unreadable(e.to_string()))?;
        if !path.starts_with(root) {
            return Err(outside(location, "a symbolic link leads out of it"));
        }
        if let Some(bytes) = self.mapped.get(&path) {
            return Ok(bytes.clone());
        }
        let bytes = map_file(&path).map_err(|e| unreadable(e.to_string()))?;
        self.mapped.insert(path, bytes.clone());
        Ok(bytes)
    }
}

fn outside(location: &str, why: &str) -> Diagnostics {
    let what = "an external data file lies outside the model's folder";
    Diagnostic::error("E0210", Place::file(location), what)
        .why(why)
        .help("put the file itself (no link) into the model's folder, and name it by a relative path")
        .into()
}

fn unreadable(location: &str, why: String) -> Diagnostics {
    let what = "an external data file of the model cannot be read";
    Diagnostic::error("E0211", Place::file(location), what)
        .why(why)
        .help("put the file into the model's folder, under the name that the model gives")
        .into()
}
