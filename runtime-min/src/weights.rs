//! The bytes of `weights.bin`: embedded in the binary, mapped from a file, or owned.

use std::path::Path;
use std::sync::Arc;

use crate::error::Error;

/// The weights of a model. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Weights<'a>(Source<'a>);

#[derive(Clone, Debug)]
enum Source<'a> {
    Borrowed(&'a [u8]),
    Mapped(Arc<Map>),
}

impl<'a> Weights<'a> {
    /// Weights in memory, such as an `include_bytes!`.
    pub const fn borrowed(bytes: &'a [u8]) -> Weights<'a> {
        Weights(Source::Borrowed(bytes))
    }

    /// Weights in a file, mapped into memory where the system can, else read.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open(path: impl AsRef<Path>) -> Result<Weights<'static>, Error> {
        let path = path.as_ref();
        match Map::open(path) {
            Ok(map) => Ok(Weights(Source::Mapped(Arc::new(map)))),
            Err(source) => Err(Error::Io { path: path.display().to_string(), source }),
        }
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        match &self.0 {
            Source::Borrowed(bytes) => bytes,
            Source::Mapped(map) => map.bytes(),
        }
    }
}

#[cfg(unix)]
mod map {
    //! A private read-only mapping by `mmap` of the C library that std links anyway.

    use std::ffi::{c_int, c_void};
    use std::fs::File;
    use std::io::{Error, Result};
    use std::os::fd::AsRawFd;
    use std::path::Path;

    unsafe extern "C" {
        fn mmap(addr: *mut c_void, len: usize, prot: c_int, flags: c_int, fd: c_int, offset: i64) -> *mut c_void;
        fn munmap(addr: *mut c_void, len: usize) -> c_int;
    }

    const PROT_READ: c_int = 1;
    const MAP_PRIVATE: c_int = 2;

    #[derive(Debug)]
    pub struct Map {
        start: *mut c_void,
        len: usize,
    }

    // SAFETY: the mapping is read-only and owned; any thread may read or unmap it.
    unsafe impl Send for Map {}
    // SAFETY: as above.
    unsafe impl Sync for Map {}

    impl Map {
        pub fn open(path: &Path) -> Result<Map> {
            let file = File::open(path)?;
            let len = usize::try_from(file.metadata()?.len()).map_err(Error::other)?;
            if len == 0 {
                return Ok(Map { start: std::ptr::null_mut(), len });
            }
            // SAFETY: a fresh mapping of an open file; the kernel checks the arguments.
            let start = unsafe { mmap(std::ptr::null_mut(), len, PROT_READ, MAP_PRIVATE, file.as_raw_fd(), 0) };
            if start as isize == -1 { Err(Error::last_os_error()) } else { Ok(Map { start, len }) }
        }

        pub fn bytes(&self) -> &[u8] {
            if self.len == 0 {
                return &[];
            }
            // SAFETY: the mapping is `len` bytes long and lives as long as `self`.
            unsafe { std::slice::from_raw_parts(self.start.cast::<u8>(), self.len) }
        }
    }

    impl Drop for Map {
        fn drop(&mut self) {
            if self.len > 0 {
                // SAFETY: `start` and `len` are those of the mapping made in `open`.
                unsafe { munmap(self.start, self.len) };
            }
        }
    }
}

#[cfg(not(unix))]
mod map {
    //! Without `mmap` the file is read into memory.

    use std::io::Result;
    use std::path::Path;

    #[derive(Debug)]
    pub struct Map(Vec<u64>, usize);

    impl Map {
        pub fn open(path: &Path) -> Result<Map> {
            let bytes = std::fs::read(path)?;
            let words = bytes.chunks(8).map(|chunk| {
                let mut word = [0; 8];
                word[..chunk.len()].copy_from_slice(chunk);
                u64::from_ne_bytes(word)
            });
            Ok(Map(words.collect(), bytes.len()))
        }

        pub fn bytes(&self) -> &[u8] {
            // SAFETY: the words hold at least this many initialized bytes.
            unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast::<u8>(), self.1) }
        }
    }
}

use map::Map;

/// Bytes aligned as weights need to be, for `include_bytes!` in an emitted crate.
#[repr(C, align(256))]
pub struct Aligned<T: ?Sized>(pub T);
