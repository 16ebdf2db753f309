//! Mergeable summaries of values: HDR sketches for distributions and HyperLogLog for sets.
//!
//! In: cells (`layout::cell_of` of integer scale units) with counts, and member hashes. Out: quantiles with a stated
//! bound, distinct counts, and the cells themselves in ascending order. Owns no I/O, no clock, no randomness.
//! Invariant: every state is a function of the multiset it was given, so merging is associative and commutative to
//! the bit and any schedule of batches, shards and ticks gives the same sketch.
//!
//! Reading order: `layout` (value to cell and back), `sketch` (the type), `form` (how it is held) with
//! `sparse`, `blocks` and `dense`, `quantile` (what is asked of it), `distinct`.

mod blocks;
mod dense;
pub mod distinct;
mod form;
pub mod layout;
pub mod quantile;
#[expect(clippy::module_inception, reason = "the folder is named after its main type")]
pub mod sketch;
mod sparse;

pub use distinct::{Distinct, member_hash};
pub use quantile::{bound, rank};
pub use sketch::{Sketch, Underflow, WEIGHT_ONE};

/// Significant decimal digits that a sketch keeps of every value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Digits {
    /// ±10 %
    One = 1,
    /// ±1 %
    Two = 2,
    /// ±0.1 %
    Three = 3,
}

impl Digits {
    /// The digits that a configuration or a stored byte names; `None` outside 1..=3.
    pub const fn from_u8(digits: u8) -> Option<Digits> {
        match digits {
            1 => Some(Digits::One),
            2 => Some(Digits::Two),
            3 => Some(Digits::Three),
            _ => None,
        }
    }

    /// The relative error that these digits promise: 10^-digits.
    pub const fn relative_error(self) -> f64 {
        match self {
            Digits::One => 0.1,
            Digits::Two => 0.01,
            Digits::Three => 0.001,
        }
    }
}

/// An unsigned integer that can hold the count of a cell; the narrowest that fits is chosen by the contents.
trait Count: Copy + Default + Eq {
    /// Its bytes as they lie in a block without alignment.
    type Raw: Copy;
    /// Largest count this width holds.
    const COUNT_MAX: u64;
    /// Largest count of the next narrower width; for the narrowest one no count is larger.
    const NARROWER_MAX: u64;
    fn get(self) -> u64;
    /// The count in this width; the caller has compared it with `COUNT_MAX`.
    fn of(count: u64) -> Self;
    /// The counts that lie in these bytes.
    fn raws(bytes: &[u8]) -> &[Self::Raw];
    /// The same, to be changed.
    fn raws_mut(bytes: &mut [u8]) -> &mut [Self::Raw];
    fn from_raw(raw: Self::Raw) -> u64;
    fn to_raw(self) -> Self::Raw;
    /// Sum of a block's counts, in the narrowest lanes that hold it; blocks never count in 64 bits.
    fn sum(counts: &[Self; blocks::BLOCK_CELLS]) -> u64;
}

macro_rules! count {
    ($($width:ty, $narrower_max:expr, $sum:ty;)*) => {$(
        impl Count for $width {
            type Raw = [u8; size_of::<$width>()];
            const COUNT_MAX: u64 = <$width>::MAX as u64;
            const NARROWER_MAX: u64 = $narrower_max;
            #[inline(always)]
            fn get(self) -> u64 {
                self as u64
            }
            #[inline(always)]
            fn of(count: u64) -> Self {
                debug_assert!(count <= Self::COUNT_MAX);
                count as $width
            }
            #[inline(always)]
            fn raws(bytes: &[u8]) -> &[Self::Raw] {
                bytes.as_chunks().0
            }
            #[inline(always)]
            fn raws_mut(bytes: &mut [u8]) -> &mut [Self::Raw] {
                bytes.as_chunks_mut().0
            }
            #[inline(always)]
            fn from_raw(raw: Self::Raw) -> u64 {
                <$width>::from_le_bytes(raw) as u64
            }
            #[inline(always)]
            fn to_raw(self) -> Self::Raw {
                self.to_le_bytes()
            }
            #[inline(always)]
            fn sum(counts: &[Self; blocks::BLOCK_CELLS]) -> u64 {
                counts.iter().fold(0 as $sum, |sum, &count| sum.wrapping_add(count as $sum)) as u64
            }
        }
    )*};
}

count! {
    u8, u64::MAX, u16;
    u16, u8::MAX as u64, u32;
    u32, u16::MAX as u64, u64;
    u64, u32::MAX as u64, u64;
}

/// Bytes of the narrowest count that holds `count_max`.
const fn width_of(count_max: u64) -> usize {
    match count_max {
        0..=0xff => 1,
        0x100..=0xffff => 2,
        0x1_0000..=0xffff_ffff => 4,
        _ => 8,
    }
}
