//! What can go wrong between this crate and the NVIDIA driver.
//!
//! Contract: every failure of a driver call arrives as a value of [`DriverError`]; nothing panics and nothing is
//! printed. Errors of the caller's tensors are not here.

use core::fmt;

/// A failure of the driver, or of finding it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DriverError {
    /// The driver library could not be opened under any of its names.
    LibraryNotFound { tried: &'static [&'static str], reason: String },
    /// The driver has no function of this name; it is older than the function.
    SymbolMissing { name: &'static str },
    /// The driver is older than this crate needs. Both versions as CUDA counts them: 1000 * major + 10 * minor.
    DriverTooOld { have: i32, need: i32 },
    /// The driver works, and there is no device with this number.
    NoDevice { ordinal: u32, count: u32 },
    /// A driver call failed. `detail` is what the call knows beyond the code, such as the log of the PTX compiler.
    Call { function: &'static str, code: i32, name: String, text: String, detail: String },
    /// A host slice does not fit into the memory that it is copied to or from. All in bytes.
    OutOfRange { offset: usize, bytes: usize, len: usize },
    /// An object of one device was given to another.
    WrongDevice { function: &'static str },
    /// An extent is larger than the kernel's parameter or the grid can hold.
    Extent { value: i64 },
    /// A plan for the `cuda` target holds a step that is not a kernel launch.
    NotALaunch,
}

impl DriverError {
    /// Whether the driver has no memory left of the kind that was asked for.
    pub fn is_out_of_memory(&self) -> bool {
        matches!(self, DriverError::Call { code: super::ffi::ERROR_OUT_OF_MEMORY, .. })
    }
}

impl fmt::Display for DriverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DriverError::LibraryNotFound { tried, reason } => {
                write!(f, "the NVIDIA driver library was not found (tried {}): {reason}", tried.join(", "))
            }
            DriverError::SymbolMissing { name } => {
                write!(f, "the NVIDIA driver has no function `{name}`: it is too old for this model")
            }
            DriverError::DriverTooOld { have, need } => {
                let [have, need] = [have, need].map(|v| (v / 1000, v % 1000 / 10));
                write!(
                    f,
                    "the NVIDIA driver supports CUDA {}.{}, this model needs CUDA {}.{} or newer",
                    have.0, have.1, need.0, need.1
                )
            }
            DriverError::NoDevice { ordinal, count } => match count {
                0 => f.write_str("the NVIDIA driver reports no CUDA device"),
                1 => write!(f, "there is no CUDA device {ordinal}: the one device is number 0"),
                _ => write!(f, "there is no CUDA device {ordinal}: the devices are 0 to {}", count - 1),
            },
            DriverError::Extent { value } => {
                write!(f, "extent {value} does not fit the 32 bits that the kernel takes")
            }
            DriverError::NotALaunch => f.write_str("the plan holds a step of the cpu target"),
            DriverError::Call { function, code, name, text, detail } => {
                write!(f, "{function} failed: {text} ({name}, {code})")?;
                if detail.is_empty() { Ok(()) } else { write!(f, ": {detail}") }
            }
            DriverError::OutOfRange { offset, bytes, len } => {
                write!(f, "{bytes} bytes at offset {offset} do not lie in a buffer of {len} bytes")
            }
            DriverError::WrongDevice { function } => {
                write!(f, "{function}: the objects belong to different devices")
            }
        }
    }
}

impl std::error::Error for DriverError {}

#[cfg(test)]
mod tests {
    use super::DriverError;

    #[test]
    fn texts_name_the_cause() {
        let cases = [
            (
                DriverError::DriverTooOld { have: 11080, need: 12000 },
                "the NVIDIA driver supports CUDA 11.8, this model needs CUDA 12.0 or newer",
            ),
            (DriverError::NoDevice { ordinal: 0, count: 0 }, "the NVIDIA driver reports no CUDA device"),
            (DriverError::NoDevice { ordinal: 2, count: 2 }, "there is no CUDA device 2: the devices are 0 to 1"),
            (
                DriverError::Call {
                    function: "cuMemAlloc_v2",
                    code: 2,
                    name: "CUDA_ERROR_OUT_OF_MEMORY".into(),
                    text: "out of memory".into(),
                    detail: "1024 bytes".into(),
                },
                "cuMemAlloc_v2 failed: out of memory (CUDA_ERROR_OUT_OF_MEMORY, 2): 1024 bytes",
            ),
        ];
        for (error, text) in cases {
            assert_eq!(error.to_string(), text);
        }
    }
}
