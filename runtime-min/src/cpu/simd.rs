//! Loops compiled for the vector unit of the machine at hand.
//!
//! Rust compiles for the oldest machine of a target; [`vectorize`] compiles a piece of code a second time for a later
//! one, and picks at run time. The code must be `#[inline(always)]` all the way down, or it stays narrow (and right).

/// Runs `work` compiled for AVX2 and FMA where the machine has both.
#[inline(always)]
pub fn vectorize<R>(work: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: the machine has both.
        return unsafe { avx2(work) };
    }
    work()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn avx2<R>(work: impl FnOnce() -> R) -> R {
    work()
}
