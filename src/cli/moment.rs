//! Moments and spans as people write them on a command line.
//!
//! In: RFC 3339, seconds since the epoch, or `-1h`, which is before now; `5m`. Out: nanoseconds. Invariant: what the
//! routes understand is understood here too, so that a line can be moved from one to the other.

use crate::event::time::parse_rfc3339;
use crate::event::{Clock, SystemClock, Timestamp};
use crate::http::parse_duration;

/// A moment, as it was written: it is one of the clock's times only when the verb runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Moment {
    /// That time.
    At(Timestamp),
    /// So many nanoseconds before now.
    Ago(i64),
}

impl std::str::FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Moment, String> {
        let wrong = || format!("{text:?} is no time: write RFC 3339, seconds since 1970, -1h or now");
        if text == "now" {
            return Ok(Moment::Ago(0));
        }
        // A minus before a unit is a span before now; before a bare number it is a time before 1970.
        if let Some(ago) = text.strip_prefix('-').filter(|ago| ago.parse::<f64>().is_err()) {
            return parse_duration(ago).map(Moment::Ago).map_err(|_| wrong());
        }
        if let Ok(seconds) = text.parse::<f64>() {
            let nanos = seconds * 1e9;
            return match nanos.abs() <= i64::MAX as f64 {
                true => Ok(Moment::At(Timestamp((seconds * 1e3).round() as i64 * 1_000_000))),
                false => Err(wrong()),
            };
        }
        parse_rfc3339(text.as_bytes()).map(Moment::At).ok_or_else(wrong)
    }
}

impl Moment {
    /// The time that it is now.
    pub(super) fn time(self) -> Timestamp {
        match self {
            Moment::At(time) => time,
            Moment::Ago(nanos) => Timestamp(SystemClock.wall().0.saturating_sub(nanos)),
        }
    }
}

/// A span above nothing.
pub(super) fn span(text: &str) -> Result<i64, String> {
    match parse_duration(text) {
        Ok(nanos) if nanos > 0 => Ok(nanos),
        _ => Err(format!("{text:?} is no span above 0: write 30s, 5m, 1h30m or seconds")),
    }
}

/// Seconds since the epoch to the millisecond, as the routes read them.
pub(super) fn epoch(time: Timestamp) -> String {
    let millis = time.0.div_euclid(1_000_000);
    format!(
        "{}{}.{:03}",
        if millis < 0 { "-" } else { "" },
        millis.unsigned_abs() / 1_000,
        millis.unsigned_abs() % 1_000
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_and_spans_as_people_write_them() {
        let check = |text: &str, expected: Option<Moment>| assert_eq!(text.parse::<Moment>().ok(), expected, "{text}");
        check("now", Some(Moment::Ago(0)));
        check("-1h30m", Some(Moment::Ago(5_400_000_000_000)));
        check("-90s", Some(Moment::Ago(90_000_000_000)));
        check("1700000000.5", Some(Moment::At(Timestamp(1_700_000_000_500_000_000))));
        check("-1", Some(Moment::At(Timestamp(-1_000_000_000))));
        check("2023-11-14T22:13:20Z", Some(Moment::At(Timestamp(1_700_000_000_000_000_000))));
        for wrong in ["", "1h", "yesterday", "-", "-1x", "1e300", "NaN"] {
            check(wrong, None);
        }
        assert_eq!(span("5m"), Ok(300_000_000_000));
        assert_eq!(span("2.5"), Ok(2_500_000_000));
        assert!(span("0").is_err() && span("-1").is_err() && span("x").is_err());
        assert_eq!(epoch(Timestamp(1_700_000_000_500_999_999)), "1700000000.500");
        assert_eq!(epoch(Timestamp(-1_500_000_000)), "-1.500");
    }
}
