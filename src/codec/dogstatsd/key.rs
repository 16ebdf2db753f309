//! The hash of a line's key, for tables that live only in this process.
//!
//! In: name, type and raw tags. Out: 64 bits. Invariant: it depends on the seed in every step (multiply,
//! then xor the two halves of the 128-bit product, as wyhash and foldhash do), so a client that does not
//! know the seed cannot aim lines at one table slot. Never persisted and not stable between versions.

use crate::event::WireType;

/// Odd, with about half of the bits set: fractional digits of π, e, √2 and φ.
const PI: u64 = 0x243f_6a88_85a3_08d3;
const E: u64 = 0xb7e1_5162_8aed_2a6b;
const SQRT: u64 = 0x6a09_e667_f3bc_c909;
const PHI: u64 = 0x9e37_79b9_7f4a_7c15;

#[inline(always)]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

/// Hashes what decides which series a line belongs to. `seed` should be random per process.
#[inline]
pub fn key_hash(name: &[u8], wire: WireType, tags: &[u8], seed: u64) -> u64 {
    // Name and tags do not wait for each other: two chains of multiplications run side by side.
    let name_hash = absorb(name, seed ^ PI);
    let tags_hash = absorb(tags, seed.rotate_left(32) ^ E);
    let shape = (name.len() as u64) << 32 ^ (tags.len() as u64) << 8 ^ wire as u64;
    fold(name_hash ^ shape ^ PHI, tags_hash ^ seed)
}

#[inline(always)]
fn word(bytes: &[u8], at: usize) -> u64 {
    let chunk: [u8; 8] = bytes[at..at + 8].try_into().expect("eight bytes");
    u64::from_le_bytes(chunk)
}

/// 32 bytes a step in two chains; the last step overlaps the one before, so nothing is read byte by byte
/// and lengths make few branches. Lengths are told apart by the caller. Both factors of every product hold
/// the key: with a known factor a client could make products that are zero, whatever came before.
#[inline(always)]
fn absorb(bytes: &[u8], key: u64) -> u64 {
    let length = bytes.len();
    let other = key.rotate_left(17) ^ SQRT;
    let (mut first, mut second) = (key, key.rotate_left(41) ^ PHI);
    if length >= 16 {
        let mut at = 0;
        while at + 32 < length {
            first = fold(word(bytes, at) ^ first, word(bytes, at + 8) ^ other);
            second = fold(word(bytes, at + 16) ^ second, word(bytes, at + 24) ^ other);
            at += 32;
        }
        // 16 to 32 bytes are left, or the whole is that short.
        let at = at.min(length - 16);
        first = fold(word(bytes, at) ^ first, word(bytes, at + 8) ^ other);
        second = fold(word(bytes, length - 16) ^ second, word(bytes, length - 8) ^ other);
        return first ^ second.rotate_left(23);
    }
    let (low, high) = if length >= 8 {
        (word(bytes, 0), word(bytes, length - 8))
    } else if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        (u64::from(u32::from_le_bytes(*first)), u64::from(u32::from_le_bytes(*last)))
    } else if let (Some(first), Some(last)) = (bytes.first(), bytes.last()) {
        (u64::from(*first) | u64::from(bytes[length / 2]) << 8, u64::from(*last))
    } else {
        (0, 0)
    };
    fold(low ^ first, high ^ other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_part_of_the_key_counts() {
        let base = key_hash(b"name", WireType::Count, b"a:b", 1);
        assert_eq!(base, key_hash(b"name", WireType::Count, b"a:b", 1));
        assert_ne!(base, key_hash(b"nama", WireType::Count, b"a:b", 1));
        assert_ne!(base, key_hash(b"name", WireType::Gauge, b"a:b", 1));
        assert_ne!(base, key_hash(b"name", WireType::Count, b"a:c", 1));
        assert_ne!(base, key_hash(b"name", WireType::Count, b"a:b", 2));
        assert_ne!(key_hash(b"ab", WireType::Count, b"c", 1), key_hash(b"a", WireType::Count, b"bc", 1));
        assert_ne!(key_hash(b"", WireType::Count, b"", 1), key_hash(b"\0", WireType::Count, b"", 1));
    }

    /// 200,000 keys that differ in few bytes: no full collision, and both ends of the hash spread evenly.
    #[test]
    fn similar_keys_spread() {
        let mut seen = HashSet::new();
        let mut low = vec![0u32; 1024];
        let mut high = vec![0u32; 1024];
        for n in 0..200_000u32 {
            let tags = format!("region:eu-west,host:web-{n:06},code:{}", 200 + n % 5);
            let hash = key_hash(b"checkout.request.latency", WireType::Timing, tags.as_bytes(), 42);
            seen.insert(hash);
            low[hash as usize % 1024] += 1;
            high[(hash >> 54) as usize] += 1;
        }
        assert_eq!(seen.len(), 200_000);
        // Expected 195 a bucket, standard deviation 14.
        for count in low.iter().chain(&high) {
            assert!((110..290).contains(count), "{count}");
        }
    }

    #[test]
    fn flipping_any_bit_changes_about_half() {
        for length in 1..70usize {
            let mut tags: Vec<u8> = (0..length).map(|n| (n * 37) as u8).collect();
            let base = key_hash(b"n", WireType::Count, &tags, 7);
            for bit in 0..length * 8 {
                tags[bit / 8] ^= 1 << (bit % 8);
                let changed = (base ^ key_hash(b"n", WireType::Count, &tags, 7)).count_ones();
                assert!((8..=56).contains(&changed), "length {length} bit {bit}: {changed}");
                tags[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }
}
