//! The GPU that tests run on, if there is one.

use std::sync::Arc;

use lapidary_runtime::cuda::{Device, DriverError};
use lapidary_templates::Arch;

/// The first GPU. The caller says what is skipped where there is none.
///
/// # Errors
/// Why there is none.
///
/// # Panics
/// With `LAPIDARY_GPU=require` where there is none.
pub fn gpu() -> Result<Arc<Device>, DriverError> {
    let device = Device::open(0);
    if let Err(error) = &device {
        let required = std::env::var_os("LAPIDARY_GPU").is_some_and(|value| value == "require");
        assert!(!required, "LAPIDARY_GPU=require, and there is no GPU: {error}");
    }
    device
}

/// The architecture that kernels for a device are compiled for.
///
/// # Panics
/// For a GPU that Lapidary does not support.
pub fn arch(device: &Device) -> Arch {
    let (major, minor) = device.facts().compute_capability;
    Arch::for_device(major * 10 + minor).expect("a supported GPU")
}
