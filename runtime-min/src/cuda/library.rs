//! Opens a shared library at run time and looks up its functions.
//!
//! Contract: works without any crate, through the C library that `std` links already (`kernel32` on Windows).
//! A library is never closed: the driver starts threads and exit handlers that must not lose their code.

use core::ffi::{CStr, c_void};

/// An open shared library.
pub struct Library {
    handle: *mut c_void,
}

impl Library {
    /// Opens the first of `names` that the system's loader finds; else returns what the loader says of the first.
    pub fn open(names: &[&CStr]) -> Result<Library, String> {
        let mut reason = None;
        for name in names {
            match os::open(name) {
                Ok(handle) => return Ok(Library { handle }),
                Err(text) => reason = reason.or(Some(text)),
            }
        }
        Err(reason.unwrap_or_default())
    }

    /// The address of `name`, or `None` if the library does not export it.
    pub fn symbol(&self, name: &CStr) -> Option<*mut c_void> {
        let address = os::symbol(self.handle, name);
        (!address.is_null()).then_some(address)
    }
}

#[cfg(unix)]
mod os {
    use core::ffi::{CStr, c_char, c_int, c_void};

    unsafe extern "C" {
        fn dlopen(name: *const c_char, flags: c_int) -> *mut c_void;
        fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
        fn dlerror() -> *const c_char;
    }

    /// Resolve everything at once; symbols stay private to the handle. The same value on Linux, macOS and the BSDs.
    const RTLD_NOW: c_int = 2;

    pub fn open(name: &CStr) -> Result<*mut c_void, String> {
        // SAFETY: `name` is a C string; the initializers that run are those of the library that the caller asks for.
        let handle = unsafe { dlopen(name.as_ptr(), RTLD_NOW) };
        if !handle.is_null() {
            return Ok(handle);
        }
        // SAFETY: `dlerror` has no precondition; its text is valid until this thread's next call of the loader.
        let text = unsafe { dlerror() };
        if text.is_null() {
            return Err(String::from("the loader gives no reason"));
        }
        // SAFETY: not null, so a C string, as POSIX says.
        Err(unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
    }

    pub fn symbol(handle: *mut c_void, name: &CStr) -> *mut c_void {
        // SAFETY: `handle` came from `dlopen` and is never closed; `name` is a C string.
        unsafe { dlsym(handle, name.as_ptr()) }
    }
}

#[cfg(windows)]
mod os {
    use core::ffi::{CStr, c_char, c_void};

    #[link(name = "kernel32")]
    unsafe extern "system" {
        fn LoadLibraryA(name: *const c_char) -> *mut c_void;
        fn GetProcAddress(module: *mut c_void, name: *const c_char) -> *mut c_void;
    }

    pub fn open(name: &CStr) -> Result<*mut c_void, String> {
        // SAFETY: `name` is a C string; the initializers that run are those of the library that the caller asks for.
        let handle = unsafe { LoadLibraryA(name.as_ptr()) };
        if handle.is_null() { Err(std::io::Error::last_os_error().to_string()) } else { Ok(handle) }
    }

    pub fn symbol(handle: *mut c_void, name: &CStr) -> *mut c_void {
        // SAFETY: `handle` came from `LoadLibraryA` and is never closed; `name` is a C string.
        unsafe { GetProcAddress(handle, name.as_ptr()) }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::Library;

    #[test]
    fn finds_a_function_and_reports_a_missing_one() {
        let library = Library::open(&[c"liblapidary-is-not-there.so", c"libc.so.6"]).expect("libc is there");
        assert!(library.symbol(c"strlen").is_some());
        assert!(library.symbol(c"lapidary_is_not_there").is_none());
    }

    #[test]
    fn a_missing_library_gives_the_reason_of_the_loader() {
        let Err(reason) = Library::open(&[c"liblapidary-is-not-there.so"]) else { panic!("opened") };
        assert!(reason.contains("liblapidary-is-not-there.so"), "{reason}");
    }
}
