//! LEB128 integers, the alphabet of every stored format.
//!
//! In: integers, or bytes with a place in them. Out: bytes, or integers and the place after them. Signed ones are
//! zigzag: small magnitudes of either sign are short. Invariants: what is written is the shortest form; reading never
//! goes beyond the bytes, and a number too long for its width is none.

/// Writes an unsigned integer.
#[inline(always)]
pub fn put_u64(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Writes an unsigned integer; one that fits 64 bits has the same bytes as from [`put_u64`].
pub fn put_u128(out: &mut Vec<u8>, mut value: u128) {
    while value >= 0x80 {
        if value <= u128::from(u64::MAX) {
            return put_u64(out, value as u64);
        }
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Writes a signed integer.
pub fn put_i64(out: &mut Vec<u8>, value: i64) {
    put_u64(out, ((value << 1) ^ (value >> 63)) as u64);
}

/// Writes a signed integer; one that fits 64 bits has the same bytes as from [`put_i64`], so that a reader needs no flag.
pub fn put_i128(out: &mut Vec<u8>, value: i128) {
    match i64::try_from(value) {
        Ok(small) if small.unsigned_abs() < 1 << 62 => put_i64(out, small),
        _ => put_u128(out, ((value << 1) ^ (value >> 127)) as u128),
    }
}

/// Reads an unsigned integer at a place and moves it; `None` where there is none.
pub fn read_u64(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        if shift == 63 && byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7F) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// Reads an unsigned integer at a place and moves it; `None` where there is none.
pub fn read_u128(bytes: &[u8], at: &mut usize) -> Option<u128> {
    let mut value = 0u128;
    for shift in (0..128).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        if shift == 126 && byte > 3 {
            return None;
        }
        value |= u128::from(byte & 0x7F) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// The signed integer of a zigzag one.
#[inline(always)]
pub fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// The signed integer of a zigzag one.
#[inline(always)]
pub fn unzigzag_128(value: u128) -> i128 {
    (value >> 1) as i128 ^ -((value & 1) as i128)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn integers_read_back(value in any::<i128>(), shift in 0u32..128, tail in any::<u8>()) {
            let value = value >> shift.min(127);
            let mut out = Vec::new();
            put_i128(&mut out, value);
            put_u128(&mut out, value as u128);
            let length = out.len();
            out.push(tail);
            let mut at = 0;
            prop_assert_eq!(read_u128(&out, &mut at).map(unzigzag_128), Some(value));
            prop_assert_eq!(read_u128(&out, &mut at), Some(value as u128));
            prop_assert_eq!(at, length);
            if let Ok(small) = i64::try_from(value) {
                let mut short = Vec::new();
                put_i64(&mut short, small);
                put_u64(&mut short, small as u64);
                let mut at = 0;
                prop_assert_eq!(read_u64(&short, &mut at).map(unzigzag), Some(small));
                prop_assert_eq!(read_u64(&short, &mut at), Some(small as u64));
                let mut wide = Vec::new();
                put_i128(&mut wide, value);
                prop_assert!(small.unsigned_abs() >= 1 << 62 || short.starts_with(&wide), "one form for both widths");
            }
        }

        #[test]
        fn no_bytes_are_read_beyond_their_end(bytes in proptest::collection::vec(any::<u8>(), 0..24)) {
            let (mut at, mut wide) = (0, 0);
            let (short, long) = (read_u64(&bytes, &mut at), read_u128(&bytes, &mut wide));
            prop_assert!(at <= bytes.len() && wide <= bytes.len());
            prop_assert!(short.is_none() || short.map(u128::from) == long);
        }
    }
}
