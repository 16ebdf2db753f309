//! Bits behind each other, the least significant first: the parts of numbers that no table predicts.
//!
//! In: numbers with their widths. Out: bytes, and the numbers again. Invariant: a reader past its end gives zeros and
//! knows that it is there; it never reads other bytes.

/// Widest number that one step reads; wider ones are cut in two.
const STEP_BITS: u32 = 56;

/// Collects bits.
#[derive(Default)]
pub(super) struct BitWriter {
    words: Vec<u64>,
    held: u64,
    /// Below 64.
    held_bits: u32,
}

impl BitWriter {
    /// Appends the low `width` bits of a number, at most 64.
    #[inline(always)]
    pub(super) fn put(&mut self, value: u64, width: u32) {
        debug_assert!(width <= 64);
        let value = if width < 64 { value & (1u64 << width).wrapping_sub(1) } else { value };
        self.held |= value << self.held_bits;
        let bits = self.held_bits.wrapping_add(width);
        if bits >= 64 {
            self.words.push(self.held);
            self.held = if self.held_bits == 0 { 0 } else { value >> 64u32.wrapping_sub(self.held_bits) };
        }
        self.held_bits = bits & 63;
    }

    /// Bytes that [`finish`](Self::finish) would append.
    pub(super) fn bytes_len(&self) -> usize {
        self.words.len() * 8 + self.held_bits.div_ceil(8) as usize
    }

    /// Appends everything to `out` and is empty again.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        out.extend(self.words.iter().flat_map(|word| word.to_le_bytes()));
        out.extend_from_slice(&self.held.to_le_bytes()[..self.held_bits.div_ceil(8) as usize]);
        *self = BitWriter::default();
    }
}

/// Reads what a [`BitWriter`] wrote.
pub(super) struct BitReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> BitReader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> BitReader<'a> {
        BitReader { bytes, at: 0 }
    }

    /// The next `width` bits, at most 64; zeros past the end.
    #[inline(always)]
    pub(super) fn take(&mut self, width: u32) -> u64 {
        if width <= STEP_BITS { self.step(width) } else { self.step(32) | self.step(width.wrapping_sub(32)) << 32 }
    }

    #[inline(always)]
    fn step(&mut self, width: u32) -> u64 {
        let byte = self.at >> 3;
        let word = match self.bytes.get(byte..).and_then(|rest| rest.first_chunk::<8>()) {
            Some(word) => u64::from_le_bytes(*word),
            None => self.tail(byte),
        };
        let value = word >> (self.at & 7) & (1u64 << width).wrapping_sub(1);
        self.at = self.at.wrapping_add(width as usize);
        value
    }

    #[cold]
    fn tail(&self, byte: usize) -> u64 {
        let mut word = [0; 8];
        if let Some(rest) = self.bytes.get(byte..) {
            word[..rest.len()].copy_from_slice(rest);
        }
        u64::from_le_bytes(word)
    }

    /// Whether more was taken than there is.
    pub(super) fn is_past_end(&self) -> bool {
        self.at > self.bytes.len() << 3
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Rng;
    use super::*;

    #[test]
    fn numbers_of_any_width_come_back() {
        let mut rng = Rng(3);
        for _ in 0..200 {
            let numbers: Vec<(u64, u32)> = (0..rng.below(60))
                .map(|_| {
                    let width = rng.below(65) as u32;
                    let mask = if width == 64 { u64::MAX } else { (1 << width) - 1 };
                    (rng.next() & mask, width)
                })
                .collect();
            let mut writer = BitWriter::default();
            numbers.iter().for_each(|(value, width)| writer.put(*value, *width));
            let mut bytes = Vec::new();
            let length = writer.bytes_len();
            writer.finish(&mut bytes);
            assert_eq!(bytes.len(), length);
            let mut reader = BitReader::new(&bytes);
            numbers.iter().for_each(|(value, width)| assert_eq!(reader.take(*width), *value, "{width}"));
            assert!(!reader.is_past_end());
            let _ = reader.take(8);
            assert!(reader.is_past_end());
            assert_eq!(reader.take(64), 0);
        }
    }
}
