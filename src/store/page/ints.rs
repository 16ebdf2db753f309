//! Whole numbers whose size wanders, as tokens and bits.
//!
//! In: unsigned numbers, small ones more often. Out: (context, token) pairs for the entropy coder and raw bits, and the
//! numbers again. Invariant: both sides derive context and shift from the numbers before, so neither is stored.
//!
//! The running mean of the numbers' bit lengths tells the scale. Numbers of a small scale are tokens as they are. Of a
//! larger one the lowest bits are noise: they are stored raw, and the rest, now of a size around 16, is the token. So a
//! few tables serve every series of a page, whatever its scale. The mean is one of logarithms, because a mean of values
//! would need a hundred numbers to forget one outlier.
//!
//! ```text
//! token 0        the number 0
//! token 1 + y    y < 32: the number is y << shift, or'ed with `shift` raw bits
//! token 33 + 2·(L − 5) + h    the upper part has L + 1 bits, L in 5..15, h is the second of them; raw: the rest
//! token 53       6 raw bits: the number's bit length less one; raw: its bits but the highest
//! ```

use super::bits::{BitReader, BitWriter};
use super::rans::{Counts, Pair, Tokens, default_cost};

/// Contexts of these numbers.
pub(super) const INT_CONTEXTS: usize = 20;
/// The upper part is a token as it is below this.
const DIRECT: u64 = 32;
/// The first token of an upper part that is not.
const WIDE: u32 = 33;
/// The token of a number that no other fits.
const ESCAPE: u32 = 53;
/// One bit of length in the running mean.
const ONE: u32 = 4096;
/// From this mean on, numbers are shifted.
const SHIFTED: u32 = 4 * ONE;

/// What both sides know about the next number.
#[derive(Clone, Copy)]
pub(super) struct Scale {
    /// The mean of bit lengths × 4,096, the newest with weight 1/16.
    mean: u32,
    was_zero: bool,
}

impl Scale {
    /// From the byte that a column stores.
    pub(super) fn from_byte(byte: u8) -> Scale {
        Scale { mean: u32::from(byte) << 10, was_zero: false }
    }

    /// The byte for numbers whose bit lengths sum to `bits`.
    pub(super) fn byte_for(bits: u32, count: usize) -> u8 {
        let quarters = u64::from(bits) * 4 / (count as u64).max(1);
        quarters.min(255) as u8
    }

    #[inline(always)]
    fn context(self) -> (usize, u32) {
        let Scale { mean, was_zero } = self;
        if mean >= SHIFTED {
            let quarter = mean >> 10 & 3;
            return ((12 + quarter + u32::from(was_zero) * 4) as usize, (mean >> 12).wrapping_sub(4));
        }
        let context = if mean >= ONE {
            6 + (mean.wrapping_sub(ONE) >> 11)
        } else {
            u32::from(mean >= 128)
                + u32::from(mean >= 384)
                + u32::from(mean >= 1024)
                + u32::from(mean >= 2048)
                + u32::from(mean >= 3072)
        };
        (context as usize, 0)
    }

    #[inline(always)]
    fn note(&mut self, number: u64) {
        let length = 64u32.wrapping_sub(number.leading_zeros());
        self.mean = self.mean.wrapping_sub(self.mean >> 4).wrapping_add(length << 8);
        self.was_zero = number == 0;
    }
}

/// Where tokens and bits of a block gather until the page is finished.
#[derive(Default)]
pub(super) struct Sink {
    pub(super) pairs: Vec<Pair>,
    pub(super) bits: BitWriter,
    /// What the tokens cost under the built-in tables, in 1/16 bits.
    pub(super) cost: u64,
}

impl Sink {
    #[inline(always)]
    pub(super) fn token(&mut self, counts: &mut Counts, context: usize, token: u32) {
        let pair = Pair { context: context as u8, token: token as u8 };
        counts.add(pair);
        self.cost = self.cost.wrapping_add(u64::from(default_cost(pair)));
        self.pairs.push(pair);
    }

    /// Most bytes that it takes when it is written.
    pub(super) fn bytes_len(&self) -> usize {
        (self.cost / 128) as usize + self.bits.bytes_len() + 16
    }

    /// Writes the next number of a column.
    #[inline(always)]
    pub(super) fn number(&mut self, counts: &mut Counts, scale: &mut Scale, number: u64) {
        let (context, shift) = scale.context();
        self.shifted(counts, context, shift, number);
        scale.note(number);
    }

    /// Writes a number whose context and shift both sides know.
    #[inline(always)]
    pub(super) fn shifted(&mut self, counts: &mut Counts, context: usize, shift: u32, number: u64) {
        if number == 0 {
            return self.token(counts, context, 0);
        }
        let upper = number >> shift;
        if upper < DIRECT {
            self.token(counts, context, 1 + upper as u32);
            self.bits.put(number, shift);
            return;
        }
        let length = 63u32.wrapping_sub(upper.leading_zeros());
        if length < 15 {
            let half = (upper >> length.wrapping_sub(1)) as u32 & 1;
            self.token(counts, context, WIDE + (length - 5) * 2 + half);
            self.bits.put(number, length.wrapping_add(shift).wrapping_sub(1));
        } else {
            let length = 63 - number.leading_zeros();
            self.token(counts, context, ESCAPE);
            self.bits.put(u64::from(length), 6);
            self.bits.put(number, length);
        }
    }
}

/// Tokens and bits of a block, to be read in the order they were written.
pub(super) struct Source<'a> {
    pub(super) tokens: Tokens<'a>,
    pub(super) bits: BitReader<'a>,
}

impl Source<'_> {
    /// Reads the next number of a column.
    #[inline(always)]
    pub(super) fn number(&mut self, scale: &mut Scale) -> u64 {
        let (context, shift) = scale.context();
        let number = self.shifted(context, shift);
        scale.note(number);
        number
    }

    /// Reads a number whose context and shift both sides know.
    #[inline(always)]
    pub(super) fn shifted(&mut self, context: usize, shift: u32) -> u64 {
        let token = self.tokens.next(context);
        if token == 0 {
            return 0;
        }
        if token < WIDE {
            return u64::from(token.wrapping_sub(1)) << shift | self.bits.take(shift);
        }
        if token < ESCAPE {
            let (length, half) =
                ((token.wrapping_sub(WIDE) >> 1).wrapping_add(5), u64::from(token.wrapping_sub(WIDE) & 1));
            // A hostile shift is at most 60, so the number may lose its highest bits but the arithmetic stands.
            let raw = length.wrapping_add(shift).wrapping_sub(1);
            if raw > 62 {
                return self.bits.take(64);
            }
            return (2 | half) << raw | self.bits.take(raw);
        }
        let length = self.bits.take(6) as u32;
        1 << length | self.bits.take(length)
    }

    /// Whether more was read than there is.
    pub(super) fn is_past_end(&self) -> bool {
        self.tokens.is_past_end() || self.bits.is_past_end()
    }
}
