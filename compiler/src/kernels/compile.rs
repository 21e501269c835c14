//! Kernels to cubins, on all cores.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use lapidary_templates::Arch;

use super::{Kernel, KernelSet, Toolchain};
use crate::diag::{Diagnostic, Diagnostics, Place, Result};

/// Why a kernel was not compiled.
#[derive(Debug)]
pub enum Failure {
    /// The compiler is too old for the architecture.
    UnknownArch(String),
    /// The compiler could not work: no host compiler, no room on the disk.
    Tool(String),
    /// The compiler does not accept the source.
    Rejected(String),
}

/// Compiles every kernel of a set: one cubin each, in the set's order. Tells `progress` after each how many are done.
/// The bytes depend on the sources, the architecture and the compiler's build alone.
///
/// # Errors
/// E0602 if the compiler does not know the architecture, E0603 if it cannot work. A source that it does not accept is
/// a bug of ours.
pub fn compile(set: &KernelSet, arch: Arch, toolchain: &Toolchain, progress: &dyn Fn(usize)) -> Result<Vec<Vec<u8>>> {
    let kernels = &set.kernels;
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(kernels.len());
    let next = AtomicUsize::new(0);
    let mut cubins = vec![Vec::new(); kernels.len()];
    let mut diagnostics = Diagnostics::new();
    std::thread::scope(|scope| {
        let (sender, results) = mpsc::channel();
        for _ in 0..threads {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                while let Some((k, kernel)) = take(next, kernels) {
                    // The receiver is gone only if this thread's result no longer matters.
                    let _ = sender.send((k, toolchain.cubin(kernel, arch)));
                }
            });
        }
        drop(sender);
        for (done, (k, result)) in results.iter().enumerate() {
            match result {
                Ok(cubin) => cubins[k] = cubin,
                Err(failure) => {
                    // What is wrong with the compiler is said once, not once a kernel.
                    next.store(kernels.len(), Ordering::Relaxed);
                    diagnostics.push(explain(failure, &kernels[k], arch, toolchain));
                }
            }
            progress(done + 1);
        }
    });
    diagnostics.or(cubins)
}

fn take<'k>(next: &AtomicUsize, kernels: &'k [Kernel]) -> Option<(usize, &'k Kernel)> {
    let k = next.fetch_add(1, Ordering::Relaxed);
    kernels.get(k).map(|kernel| (k, kernel))
}

fn explain(failure: Failure, kernel: &Kernel, arch: Arch, toolchain: &Toolchain) -> Diagnostic {
    match failure {
        Failure::UnknownArch(log) => {
            let what = format!("{toolchain} does not know the architecture {arch}");
            Diagnostic::error("E0602", Place::Model, what)
                .why(log.trim())
                .help("use CUDA 12.0 or newer, or another --target")
        }
        Failure::Tool(log) => Diagnostic::error("E0603", Place::Model, format!("{toolchain} cannot compile"))
            .why(log.trim())
            .help("nvcc needs a host compiler (gcc) on PATH and a writable temporary folder; NVRTC needs neither"),
        Failure::Rejected(log) => crate::bug!(
            dump: format!("{log}\n--- {}.cu ---\n{}", kernel.entry, kernel.text);
            "{toolchain} does not compile the kernel {} for {arch}", kernel.entry
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn set() -> KernelSet {
        let kernel = |k: usize| Kernel {
            entry: format!("fill_{k}"),
            text: format!(
                "#include \"lapidary/prelude.cuh\"\n\
                 extern \"C\" __global__ void fill_{k}(float* y, int n) {{\n  \
                 int i = blockIdx.x * blockDim.x + threadIdx.x;\n  if (i < n) y[i] = {k}.0f;\n}}\n"
            ),
        };
        KernelSet { kernels: (0..5).map(kernel).collect(), ..KernelSet::default() }
    }

    fn arch(name: &str) -> Arch {
        name.parse().expect("a known architecture")
    }

    /// Every compiler of this machine. Tests that need one say so and pass where there is none.
    fn toolchains() -> Vec<Toolchain> {
        let nvcc = std::env::var_os("CUDA_HOME").map(|home| std::path::Path::new(&home).join("bin/nvcc"));
        let found: Vec<Toolchain> =
            [Toolchain::find(None), nvcc.and_then(|nvcc| Toolchain::find(Some(&nvcc)))].into_iter().flatten().collect();
        if found.is_empty() {
            eprintln!("SKIPPED: no CUDA compiler; set CUDA_HOME");
        }
        found
    }

    #[test]
    fn cubins_are_the_same_whenever_they_are_made() {
        for (one, two) in toolchains().iter().zip(&toolchains()) {
            for arch in ["sm_80", "sm_90a"].map(arch) {
                let told = Cell::new(0);
                let first = compile(&set(), arch, one, &|done| told.set(done)).expect("it compiles");
                let second = compile(&set(), arch, two, &|_| {}).expect("it compiles");
                assert!(first == second, "{one}: two runs for {arch} differ");
                assert_eq!(told.get(), set().kernels.len());
                assert!(first.iter().all(|cubin| cubin.starts_with(b"\x7fELF")), "{arch}: no ELF file");
                let again = compile(&set(), arch, one, &|_| {}).expect("it is in the cache");
                assert!(first == again);
            }
        }
    }

    #[test]
    fn a_kernel_that_does_not_compile_is_a_bug() {
        let kernel = Kernel { entry: "wrong".to_owned(), text: "extern \"C\" __global__ void wrong( {".to_owned() };
        let set = KernelSet { kernels: vec![kernel], ..KernelSet::default() };
        for toolchain in toolchains() {
            let compiled = std::panic::AssertUnwindSafe(|| compile(&set, arch("sm_80"), &toolchain, &|_| {}));
            let panic = std::panic::catch_unwind(compiled).expect_err("it does not compile");
            let text = panic.downcast_ref::<String>().expect("a message");
            assert!(text.starts_with("internal error: ") && text.contains("error: "), "{text}");
            assert!(text.contains("--- wrong.cu ---\nextern"), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_with_the_compiler_is_said_to_the_user() {
        let failure = Failure::UnknownArch("nvcc fatal: Unsupported gpu architecture 'compute_90a'\n".to_owned());
        let found = toolchains();
        let Some(toolchain) = found.first() else { return };
        let text = explain(failure, &set().kernels[0], arch("sm_90a"), toolchain).to_string();
        assert!(
            text.starts_with(&format!("error[E0602]: {toolchain} does not know the architecture sm_90a")),
            "{text}"
        );
        assert!(text.contains("Unsupported gpu architecture"), "{text}");
    }
}
