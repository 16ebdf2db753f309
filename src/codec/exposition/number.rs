//! Numbers as text.
//!
//! In: integers of scale units, floats. Out: the shortest decimal that is exactly the value. Invariant:
//! an integer never passes through a float, so 42,000,000 nanoseconds read 0.042.

/// Powers of ten that a scale can have.
const TENS: [u64; 13] = {
    let mut tens = [1u64; 13];
    let mut at = 1;
    while at < tens.len() {
        tens[at] = tens[at - 1] * 10;
        at += 1;
    }
    tens
};

/// Writes `units / 10^exponent`, `exponent` at most 12.
#[inline]
pub fn put_units(out: &mut Vec<u8>, units: i128, exponent: u8) {
    if units < 0 {
        out.push(b'-');
    }
    let magnitude = units.unsigned_abs();
    let ten = TENS[usize::from(exponent)];
    let (whole, fraction) = match u64::try_from(magnitude) {
        // 128-bit division is a call of 25 ns; a constant divisor is a multiplication.
        Ok(small) if exponent == 9 => (u128::from(small / 1_000_000_000), small % 1_000_000_000),
        Ok(small) => (u128::from(small / ten), small % ten),
        Err(_) => (magnitude / u128::from(ten), (magnitude % u128::from(ten)) as u64),
    };
    match u64::try_from(whole) {
        Ok(whole) => put_u64(out, whole),
        Err(_) => put_u128(out, whole),
    }
    if fraction > 0 {
        let mut digits = [b'0'; 13];
        digits[0] = b'.';
        let (mut rest, mut last) = (fraction, 0);
        for at in (1..=usize::from(exponent)).rev() {
            digits[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if last == 0 && digits[at] != b'0' {
                last = at;
            }
        }
        out.extend_from_slice(&digits[..=last]);
    }
}

/// Writes an integer.
#[inline]
pub fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Writes an integer.
pub fn put_u128(out: &mut Vec<u8>, value: u128) {
    match u64::try_from(value) {
        Ok(small) => put_u64(out, small),
        Err(_) => out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes()),
    }
}

/// Writes a float: shortest form that reads back the same, `NaN`, `+Inf`, `-Inf`.
pub fn put_f64(out: &mut Vec<u8>, value: f64) {
    if value.is_nan() {
        out.extend_from_slice(b"NaN");
    } else if value.is_infinite() {
        out.extend_from_slice(if value > 0.0 { b"+Inf" } else { b"-Inf" });
    } else if value.fract() == 0.0 && value.abs() < 1e16 {
        out.extend_from_slice(itoa::Buffer::new().format(value as i64).as_bytes());
    } else {
        out.extend_from_slice(ryu::Buffer::new().format_finite(value).as_bytes());
    }
}

/// Writes a float as OpenMetrics wants the values of `le` and `quantile`: `1` is `1.0`.
pub(super) fn put_canonical(out: &mut Vec<u8>, value: f64) {
    let from = out.len();
    put_f64(out, value);
    if out[from..].iter().all(|byte| byte.is_ascii_digit() || *byte == b'-') {
        out.extend_from_slice(b".0");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(units: i128, exponent: u8, expected: &str) {
        let mut out = Vec::new();
        put_units(&mut out, units, exponent);
        assert_eq!(String::from_utf8(out).expect("ascii"), expected);
    }

    #[test]
    fn units_are_exact_decimals() {
        check(42_000_000, 9, "0.042");
        check(0, 9, "0");
        check(-1_500_000, 6, "-1.5");
        check(123, 0, "123");
        check(1, 12, "0.000000000001");
        check(7_000_000_000, 9, "7");
        check(i128::from(u64::MAX) * 1_000_000_000 + 1, 9, "18446744073709551615.000000001");
        check(-3_402_823_669_209_384_634_633_746_074_317, 0, "-3402823669209384634633746074317");
    }

    #[test]
    fn floats_are_shortest_and_integers_plain() {
        for (value, expected) in [
            (0.1, "0.1"),
            (1e15, "1000000000000000"),
            (1e16, "1e16"),
            (-3.0, "-3"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "+Inf"),
            (-0.5, "-0.5"),
        ] {
            let mut out = Vec::new();
            put_f64(&mut out, value);
            assert_eq!(String::from_utf8(out).expect("ascii"), expected);
        }
        let mut out = Vec::new();
        put_canonical(&mut out, 10.0);
        assert_eq!(out, b"10.0");
    }

    proptest! {
        #[test]
        fn units_read_back(units in any::<i64>(), exponent in 0u8..=12) {
            let mut out = Vec::new();
            put_units(&mut out, i128::from(units), exponent);
            let text = String::from_utf8(out).expect("ascii");
            let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
            prop_assert!(!fraction.ends_with('0'));
            let padded = format!("{}{:0<width$}", whole, fraction, width = usize::from(exponent));
            prop_assert_eq!(padded.parse::<i128>().ok(), Some(i128::from(units)));
        }

        #[test]
        fn floats_read_back(value in any::<f64>()) {
            let mut out = Vec::new();
            put_f64(&mut out, value);
            let read: f64 = std::str::from_utf8(&out).expect("ascii").parse().expect("a number");
            prop_assert!(read == value || (read.is_nan() && value.is_nan()));
        }
    }
}
