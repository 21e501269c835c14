//! Loops compiled for the vector unit of the machine at hand.
//!
//! Rust compiles for the oldest machine of a target; [`vectorize`] compiles a piece of code again for later ones, and
//! picks at run time. The code must be `#[inline(always)]` all the way down, or it stays narrow (and right).

/// Runs `work` compiled for AVX-512, or for AVX2 and FMA, where the machine has them.
#[inline(always)]
pub fn vectorize<R>(work: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        if is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
        {
            // SAFETY: the machine has all of them.
            return unsafe { avx512(work) };
        }
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

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
fn avx512<R>(work: impl FnOnce() -> R) -> R {
    work()
}
