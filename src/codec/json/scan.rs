//! The bytes of a string that need a look, 16 at a time: one bit per byte, the first byte in the lowest bit.
//!
//! In: 16 bytes. Out: bit masks. Invariant: the SSE2 form (part of every x86-64) and the portable one give
//! equal masks.

/// What 16 bytes of a string hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Quotes, backslashes and control characters.
    pub(super) stops: u32,
    /// Bytes that are not ASCII.
    pub(super) high: u32,
}

/// Looks at 16 bytes.
#[inline(always)]
pub(super) fn look(block: &[u8; 16]) -> Found {
    #[cfg(target_arch = "x86_64")]
    {
        sse2(block)
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        portable(block)
    }
}

#[cfg(any(test, not(target_arch = "x86_64")))]
fn portable(block: &[u8; 16]) -> Found {
    let mask = |is: fn(u8) -> bool| block.iter().rev().fold(0, |mask, byte| mask << 1 | u32::from(is(*byte)));
    Found { stops: mask(|byte| byte == b'"' || byte == b'\\' || byte < 0x20), high: mask(|byte| byte >= 0x80) }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn sse2(block: &[u8; 16]) -> Found {
    use std::arch::x86_64::{
        _mm_cmpeq_epi8, _mm_loadu_si128, _mm_min_epu8, _mm_movemask_epi8, _mm_or_si128, _mm_set1_epi8,
    };
    // SAFETY: 16 readable bytes, no alignment asked for; SSE2 is part of x86-64.
    let (stops, high) = unsafe {
        let lane = _mm_loadu_si128(block.as_ptr().cast());
        let quote = _mm_cmpeq_epi8(lane, _mm_set1_epi8(b'"' as i8));
        let backslash = _mm_cmpeq_epi8(lane, _mm_set1_epi8(b'\\' as i8));
        let control = _mm_cmpeq_epi8(_mm_min_epu8(lane, _mm_set1_epi8(0x1f)), lane);
        let stops = _mm_or_si128(_mm_or_si128(quote, backslash), control);
        (_mm_movemask_epi8(stops), _mm_movemask_epi8(lane))
    };
    Found { stops: u32::from(stops as u16), high: u32::from(high as u16) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_forms_agree(bytes in proptest::collection::vec(
            prop_oneof![Just(b'"'), Just(b'\\'), Just(0x1f), Just(0x20), Just(0x7f), any::<u8>()], 16)) {
            let block: [u8; 16] = bytes.try_into().expect("16 bytes");
            prop_assert_eq!(look(&block), portable(&block));
        }
    }
}
