//! Finding a line's structure 64 bytes at a time: one bit per byte, the first byte in the lowest bit.
//!
//! In: 64 bytes. Out: bit masks. Invariant: the SSE2 form (part of every x86-64) and the portable one give
//! equal masks.

/// Where the bytes that structure a line stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Structure {
    pub(super) newlines: u64,
    pub(super) pipes: u64,
    pub(super) colons: u64,
}

/// Newlines, pipes and colons.
#[inline(always)]
pub(super) fn structure(block: &[u8; 64]) -> Structure {
    #[cfg(target_arch = "x86_64")]
    {
        let lanes = sse2::load(block);
        Structure {
            newlines: sse2::equal(lanes, b'\n'),
            pipes: sse2::equal(lanes, b'|'),
            colons: sse2::equal(lanes, b':'),
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        portable(block)
    }
}

/// Newlines and pipes only: what can end a field.
#[inline(always)]
pub(super) fn ends(block: &[u8; 32]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    {
        sse2::newline_or_pipe(block)
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        portable_ends(block)
    }
}

#[cfg(any(test, not(target_arch = "x86_64")))]
fn portable_ends(block: &[u8; 32]) -> u32 {
    block.iter().rev().fold(0, |mask, byte| mask << 1 | u32::from(matches!(byte, b'\n' | b'|')))
}

#[cfg(any(test, not(target_arch = "x86_64")))]
fn portable(block: &[u8; 64]) -> Structure {
    let mask = |wanted: u8| block.iter().rev().fold(0u64, |mask, byte| mask << 1 | u64::from(*byte == wanted));
    Structure { newlines: mask(b'\n'), pipes: mask(b'|'), colons: mask(b':') }
}

#[cfg(target_arch = "x86_64")]
mod sse2 {
    use std::arch::x86_64::{__m128i, _mm_cmpeq_epi8, _mm_loadu_si128, _mm_movemask_epi8, _mm_or_si128, _mm_set1_epi8};

    #[inline(always)]
    pub(super) fn load(block: &[u8; 64]) -> [__m128i; 4] {
        let (quarters, _) = block.as_chunks::<16>();
        // SAFETY: each quarter is 16 readable bytes, and the load asks for no alignment.
        std::array::from_fn(|n| unsafe { _mm_loadu_si128(quarters[n].as_ptr().cast()) })
    }

    #[inline(always)]
    pub(super) fn equal(lanes: [__m128i; 4], wanted: u8) -> u64 {
        let mask = |lane| {
            // SAFETY: SSE2 is part of x86-64.
            let bits = unsafe { _mm_movemask_epi8(_mm_cmpeq_epi8(lane, _mm_set1_epi8(wanted as i8))) };
            u64::from(bits as u16)
        };
        mask(lanes[0]) | mask(lanes[1]) << 16 | mask(lanes[2]) << 32 | mask(lanes[3]) << 48
    }

    #[inline(always)]
    pub(super) fn newline_or_pipe(block: &[u8; 32]) -> u32 {
        let (halves, _) = block.as_chunks::<16>();
        let mask = |half: &[u8; 16]| {
            // SAFETY: 16 readable bytes, no alignment asked for; SSE2 is part of x86-64.
            let bits = unsafe {
                let lane = _mm_loadu_si128(half.as_ptr().cast());
                let newline = _mm_cmpeq_epi8(lane, _mm_set1_epi8(b'\n' as i8));
                _mm_movemask_epi8(_mm_or_si128(newline, _mm_cmpeq_epi8(lane, _mm_set1_epi8(b'|' as i8))))
            };
            u32::from(bits as u16)
        };
        mask(&halves[0]) | mask(&halves[1]) << 16
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_forms_agree(bytes in proptest::collection::vec(
            prop_oneof![Just(b'\n'), Just(b'|'), Just(b':'), any::<u8>()], 64)) {
            let block: [u8; 64] = bytes.try_into().expect("64 bytes");
            let expected = portable(&block);
            prop_assert_eq!(structure(&block), expected);
            let (halves, _) = block.as_chunks::<32>();
            let both = u64::from(ends(&halves[0])) | u64::from(ends(&halves[1])) << 32;
            prop_assert_eq!(both, expected.newlines | expected.pipes);
            prop_assert_eq!(ends(&halves[0]), portable_ends(&halves[0]));
        }
    }
}
