//! NVRTC: CUDA C++ to machine code in memory, through cudarc's bindings.
//!
//! Contract: cudarc finds the library by name and panics where it or a function of it is missing. So the library is
//! opened here first, by its full path where one is known (the loader then answers cudarc's request for the name with
//! the library that is there already), and every function that is used is looked up before cudarc is. Compiling is
//! thread-safe. Nothing of CUDA's own headers is used: the sources bring theirs.

use std::ffi::{CStr, CString, c_char, c_int};
use std::path::Path;
use std::ptr;

use cudarc::nvrtc::sys;
use lapidary_templates::{Arch, headers};
use libloading::Library;

use super::{Failure, Kernel};

/// The NVRTC of this process.
#[derive(Debug)]
pub struct Nvrtc {
    version: String,
}

/// The functions of NVRTC that are called.
const FUNCTIONS: [&str; 10] = [
    "nvrtcVersion",
    "nvrtcCreateProgram",
    "nvrtcCompileProgram",
    "nvrtcDestroyProgram",
    "nvrtcGetCUBIN",
    "nvrtcGetCUBINSize",
    "nvrtcGetPTX",
    "nvrtcGetPTXSize",
    "nvrtcGetProgramLog",
    "nvrtcGetProgramLogSize",
];

impl Nvrtc {
    /// Opens the library at `path`, with the built-in functions that lie next to it. `None` if it cannot be loaded,
    /// is too old, or if another NVRTC serves this process already.
    pub fn open(path: &Path) -> Option<Nvrtc> {
        if let Some(builtins) = builtins_next_to(path) {
            // SAFETY: the initializers of NVIDIA's library have no preconditions. Never unloaded.
            std::mem::forget(unsafe { Library::new(builtins) }.ok()?);
        }
        // SAFETY: as above.
        let library = unsafe { Library::new(path) }.ok()?;
        let mine = addresses(&library)?;
        std::mem::forget(library);
        let found = Nvrtc::by_name()?;
        // SAFETY: `by_name` has checked that there is one.
        let bound = addresses(unsafe { sys::culib() })?;
        (bound == mine).then_some(found)
    }

    /// The NVRTC that the system's loader finds, or that this process has loaded.
    pub fn by_name() -> Option<Nvrtc> {
        // SAFETY: the initializers of NVIDIA's library have no preconditions; `culib` is called only if there is one.
        let library = unsafe { sys::is_culib_present().then(|| sys::culib()) }?;
        addresses(library)?;
        Some(Nvrtc { version: version()? })
    }

    /// Such as `13.0.88`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Compiles a kernel to a cubin.
    pub fn compile(&self, kernel: &Kernel, arch: Arch) -> Result<Vec<u8>, Failure> {
        let headers = headers::closure(&kernel.text);
        let program = Program::new(&kernel.text, &format!("{}.cu", kernel.entry), &headers)?;
        // Without the second, generic lambdas and constexpr functions count as host functions, which NVRTC refuses.
        let options =
            [c"-std=c++17".to_owned(), c"-default-device".to_owned(), option("--gpu-architecture", &arch.to_string())?];
        program.compile(&options)?;
        program.read(sys::nvrtcGetCUBINSize, sys::nvrtcGetCUBIN)
    }
}

/// The addresses of all functions in use; `None` if one is missing.
fn addresses(library: &Library) -> Option<[*const (); FUNCTIONS.len()]> {
    let mut found = [ptr::null(); FUNCTIONS.len()];
    for (address, name) in found.iter_mut().zip(FUNCTIONS) {
        // SAFETY: only the address is taken.
        *address = *unsafe { library.get::<*const ()>(name) }.ok()?;
    }
    Some(found)
}

/// NVRTC opens this one by its bare name, which is not found outside of the loader's folders.
fn builtins_next_to(path: &Path) -> Option<std::path::PathBuf> {
    let entries = std::fs::read_dir(path.parent()?).ok()?;
    let mut found: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            name.starts_with("libnvrtc-builtins.so") || name.starts_with("nvrtc-builtins64_")
        })
        .collect();
    found.sort();
    found.pop()
}

/// The full version, which NVRTC tells only in the PTX that it writes: `// Cuda compilation tools, release 13.0,
/// V13.0.88`.
fn version() -> Option<String> {
    let program = Program::new("extern \"C\" __global__ void probe() {}", "probe.cu", &[]).ok()?;
    program.compile(&[]).ok()?;
    let ptx = program.read(sys::nvrtcGetPTXSize, sys::nvrtcGetPTX).ok()?;
    let ptx = String::from_utf8_lossy(&ptx).into_owned();
    let build = super::toolchain::build_in(&ptx);
    build.or_else(|| {
        let (mut major, mut minor) = (0, 0);
        // SAFETY: both outlive the call.
        let result = unsafe { sys::nvrtcVersion(&mut major, &mut minor) };
        (result == sys::nvrtcResult::NVRTC_SUCCESS).then(|| format!("{major}.{minor}"))
    })
}

fn option(name: &str, value: &str) -> Result<CString, Failure> {
    c_string(&format!("{name}={value}"))
}

fn c_string(text: &str) -> Result<CString, Failure> {
    CString::new(text).map_err(|error| Failure::Rejected(error.to_string()))
}

/// The strings' addresses; valid while the strings are.
fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|string| string.as_ptr()).collect()
}

/// An `nvrtcProgram`, destroyed when dropped.
struct Program(sys::nvrtcProgram);

type SizeOf = unsafe fn(sys::nvrtcProgram, *mut usize) -> sys::nvrtcResult;
type BytesOf = unsafe fn(sys::nvrtcProgram, *mut c_char) -> sys::nvrtcResult;

impl Program {
    fn new(text: &str, name: &str, headers: &[(&str, &str)]) -> Result<Program, Failure> {
        let (text, name) = (c_string(text)?, c_string(name)?);
        let names = headers.iter().map(|(name, _)| c_string(name)).collect::<Result<Vec<_>, _>>()?;
        let texts = headers.iter().map(|(_, text)| c_string(text)).collect::<Result<Vec<_>, _>>()?;
        let (name_list, text_list) = (pointers(&names), pointers(&texts));
        let mut program = ptr::null_mut();
        // SAFETY: the strings end with a zero and outlive the call, which copies them; the two lists have the length
        // that is given.
        let result = unsafe {
            sys::nvrtcCreateProgram(
                &mut program,
                text.as_ptr(),
                name.as_ptr(),
                headers.len() as c_int,
                text_list.as_ptr(),
                name_list.as_ptr(),
            )
        };
        called("nvrtcCreateProgram", result)?;
        Ok(Program(program))
    }

    fn compile(&self, options: &[CString]) -> Result<(), Failure> {
        let list = pointers(options);
        // SAFETY: the program is alive, the options end with a zero and outlive the call.
        let result = unsafe { sys::nvrtcCompileProgram(self.0, list.len() as c_int, list.as_ptr()) };
        match result {
            sys::nvrtcResult::NVRTC_SUCCESS => Ok(()),
            sys::nvrtcResult::NVRTC_ERROR_INVALID_OPTION => Err(Failure::UnknownArch(self.log())),
            _ => Err(Failure::Rejected(self.log())),
        }
    }

    fn log(&self) -> String {
        let bytes = self.read(sys::nvrtcGetProgramLogSize, sys::nvrtcGetProgramLog).unwrap_or_default();
        let text = CStr::from_bytes_until_nul(&bytes).map(|text| text.to_string_lossy().into_owned());
        text.unwrap_or_default()
    }

    fn read(&self, size_of: SizeOf, bytes_of: BytesOf) -> Result<Vec<u8>, Failure> {
        let mut size = 0;
        // SAFETY: the program is alive, `size` outlives the call.
        called("size", unsafe { size_of(self.0, &mut size) })?;
        let mut bytes = vec![0u8; size];
        // SAFETY: the buffer has the size that NVRTC asked for.
        called("bytes", unsafe { bytes_of(self.0, bytes.as_mut_ptr().cast()) })?;
        Ok(bytes)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: made by `nvrtcCreateProgram`, destroyed once.
        let _ = unsafe { sys::nvrtcDestroyProgram(&mut self.0) };
    }
}

fn called(function: &str, result: sys::nvrtcResult) -> Result<(), Failure> {
    match result {
        sys::nvrtcResult::NVRTC_SUCCESS => Ok(()),
        error => Err(Failure::Rejected(format!("{function}: {error:?}"))),
    }
}
