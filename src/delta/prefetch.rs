//! The one instruction that stable Rust has no safe word for: a cache prefetch.
//!
//! In: a reference. Out: nothing that can be observed. With it a line costs the same at a million series
//! as at a thousand (measured without staging: 6 times more).

/// Asks the processor to bring the cache line of `target` closer.
#[inline(always)]
pub fn prefetch<T>(target: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        let pointer: *const T = target;
        // SAFETY: a prefetch never faults and writes nothing; the pointer comes from a live reference.
        unsafe { std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(pointer.cast()) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = target;
}
