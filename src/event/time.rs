//! Times as producers write them: RFC 3339, or a number since the epoch in s, ms, µs or ns; and as we write them.
//!
//! In: text or a number. Out: a [`Timestamp`]; and the way back. Invariants: nothing is rounded but below a nanosecond;
//! what is no time, or lies outside 1677 to 2262, is `None`; what is written reads back as the same moment.

use super::{Number, Timestamp};

/// Nanoseconds of a second.
const SECOND: i64 = 1_000_000_000;
/// The first number of seconds that is read as milliseconds (year 5138; as milliseconds it is 1973).
const MILLIS_FROM: u64 = 100_000_000_000;
/// The first number of milliseconds that is read as microseconds.
const MICROS_FROM: u64 = MILLIS_FROM * 1000;
/// The first number of microseconds that is read as nanoseconds.
const NANOS_FROM: u64 = MICROS_FROM * 1000;

/// A moment from a number since the epoch, whose unit its size tells.
pub fn from_epoch(value: Number) -> Option<Timestamp> {
    let magnitude = if value.is_negative() { value.negated() } else { value };
    let is_below = |limit: u64| magnitude.compare(Number::from_u64(limit)).is_lt();
    let exponent = match () {
        () if is_below(MILLIS_FROM) => 9,
        () if is_below(MICROS_FROM) => 6,
        () if is_below(NANOS_FROM) => 3,
        () => 0,
    };
    value.to_i64(exponent).map(Timestamp)
}

/// A moment as RFC 3339 in UTC, with as many digits of a second as it has.
pub fn rfc3339(time: Timestamp) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(time.0)).expect("every i64 of nanoseconds is a moment").to_string()
}

/// A moment from RFC 3339 text: `2024-05-01T12:00:00.5Z`, `...+02:00`; a space may stand for the `T`, case does not
/// matter, a leap second is the second before it.
pub fn parse_rfc3339(text: &[u8]) -> Option<Timestamp> {
    let (date, rest) = text.split_at_checked(10)?;
    let [y0, y1, y2, y3, b'-', mo0, mo1, b'-', d0, d1] = *date.first_chunk::<10>()? else { return None };
    let (clock, rest) = rest.split_at_checked(9)?;
    let [b'T' | b't' | b' ', h0, h1, b':', m0, m1, b':', s0, s1] = *clock.first_chunk::<9>()? else { return None };
    let year = two(y0, y1)? * 100 + two(y2, y3)?;
    let (month, day) = (two(mo0, mo1)?, two(d0, d1)?);
    let (hour, minute, second) = (two(h0, h1)?, two(m0, m1)?, two(s0, s1)?);
    if !(1..=12).contains(&month) || day < 1 || day > days_of(year, month) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (nanos, zone) = match rest {
        [b'.', rest @ ..] => {
            let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            if count == 0 {
                return None;
            }
            let digits = rest[..count].iter().chain(std::iter::repeat(&b'0')).take(9);
            (digits.fold(0i64, |sum, digit| sum * 10 + i64::from(digit - b'0')), &rest[count..])
        }
        _ => (0, rest),
    };
    let offset = match *zone {
        [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), oh0, oh1, b':', om0, om1] => {
            let (hours, minutes) = (two(oh0, oh1)?, two(om0, om1)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let offset = hours * 3600 + minutes * 60;
            if sign == b'-' { -offset } else { offset }
        }
        _ => return None,
    };
    let seconds = days_since_epoch(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second.min(59) - offset;
    // The first second of all begins before the least i64, and its end is inside.
    let nanos = i128::from(seconds) * i128::from(SECOND) + i128::from(nanos);
    i64::try_from(nanos).ok().map(Timestamp)
}

fn two(tens: u8, ones: u8) -> Option<i64> {
    (tens.is_ascii_digit() && ones.is_ascii_digit()).then(|| i64::from(tens - b'0') * 10 + i64::from(ones - b'0'))
}

fn days_of(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 in the Gregorian calendar (Howard Hinnant, "chrono-compatible low-level date algorithms").
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(text: &str) -> Option<i64> {
        from_epoch(Number::parse(text.as_bytes()).expect("a number")).map(|time| time.0)
    }

    #[test]
    fn the_size_of_a_number_tells_its_unit() {
        let expected = Some(1_700_000_000_123_456_789);
        assert_eq!(epoch("1700000000.123456789"), expected);
        assert_eq!(epoch("1700000000123.456789"), expected);
        assert_eq!(epoch("1700000000123456.789"), expected);
        assert_eq!(epoch("1700000000123456789"), expected);
        assert_eq!(epoch("1700000000"), Some(1_700_000_000_000_000_000));
        assert_eq!((epoch("0"), epoch("-1")), (Some(0), Some(-1_000_000_000)));
        assert_eq!((epoch("1e30"), epoch("99999999999")), (None, None));
    }

    #[test]
    fn rfc3339_is_what_jiff_reads() {
        for text in [
            "2024-02-29T23:59:59.999999999Z",
            "1970-01-01T00:00:00Z",
            "1969-12-31T23:59:59.5+00:00",
            "2023-11-14 22:13:20-07:30",
            "2100-03-01t00:00:00.25z",
            "1900-02-28T12:00:00+14:00",
        ] {
            let expected: jiff::Timestamp = text.parse().expect("jiff reads it");
            let expected = i64::try_from(expected.as_nanosecond()).expect("in range");
            assert_eq!(parse_rfc3339(text.as_bytes()), Some(Timestamp(expected)), "{text}");
        }
        for text in [
            "2023-02-29T00:00:00Z",
            "2024-01-01",
            "2024-01-01T00:00:00",
            "2024-1-01T00:00:00Z",
            "2024-01-01T25:00:00Z",
            "2024-01-01T00:00:00.Z",
            "2024-01-01T00:00:00Zx",
        ] {
            assert_eq!(parse_rfc3339(text.as_bytes()), None, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn rfc3339_reads_back(nanos in proptest::prelude::any::<i64>(), digits in 0u32..=9) {
            let unit = 10i64.pow(digits);
            for nanos in [i64::MIN, i64::MAX, 0, nanos, nanos / unit * unit] {
                let text = rfc3339(Timestamp(nanos));
                proptest::prop_assert_eq!(parse_rfc3339(text.as_bytes()), Some(Timestamp(nanos)), "{}", text);
            }
        }
    }
}
