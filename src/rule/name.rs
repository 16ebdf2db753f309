//! Names: from what a client wrote to what Prometheus may read.
//!
//! In: names and tag keys as text. Out: escaped names, the suffix of a kind, the unit a name ends with,
//! the names an exposition writes for a metric. Pure functions. Invariant: escaping a valid name changes
//! nothing, so names that went through once may go through again (recovery relies on it).

use crate::event::{Expose, Kind, Unit, WireType};
use std::borrow::Cow;
use std::sync::Mutex;

/// Longest metric name in bytes, on the wire and as exposed.
pub const NAME_BYTES_MAX: usize = 200;

/// True for `[a-zA-Z_:][a-zA-Z0-9_:]*`.
pub fn is_metric_name(name: &str) -> bool {
    is_name(name, true)
}

/// True for `[a-zA-Z_][a-zA-Z0-9_]*`.
pub fn is_label_name(name: &str) -> bool {
    is_name(name, false)
}

fn is_name(name: &str, colon: bool) -> bool {
    !name.is_empty() && !name.as_bytes()[0].is_ascii_digit() && name.bytes().all(|b| is_name_byte(b, colon))
}

fn is_name_byte(byte: u8, colon: bool) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || (colon && byte == b':')
}

/// A metric name in Prometheus's character set: each character outside it becomes `_`, and a leading digit
/// gets a `_` before it (replacing the digit would make one metric of `404.hits` and `504.hits`).
pub fn escape_metric_name(name: &str) -> Cow<'_, str> {
    escape(name, true)
}

/// A tag key in the character set of label names, by the same rule.
pub fn escape_label_name(key: &str) -> Cow<'_, str> {
    escape(key, false)
}

fn escape(name: &str, colon: bool) -> Cow<'_, str> {
    if name.is_empty() || is_name(name, colon) {
        return Cow::Borrowed(name);
    }
    let mut out = String::with_capacity(name.len() + 1);
    if name.as_bytes()[0].is_ascii_digit() {
        out.push('_');
    }
    for c in name.chars() {
        out.push(if c.is_ascii() && is_name_byte(c as u8, colon) { c } else { '_' });
    }
    Cow::Owned(out)
}

/// An escaped name with the suffix that samples of this type get while nothing declares them: `_total` for
/// counters, `_seconds` for timings (a last part `_ms`, `_millis` or `_milliseconds` is replaced).
pub fn with_suffix(name: &str, wire: WireType) -> Cow<'_, str> {
    match wire {
        WireType::Count if name.ends_with("_total") => Cow::Borrowed(name),
        WireType::Count => Cow::Owned(format!("{name}_total")),
        WireType::Timing if name.ends_with("_seconds") => Cow::Borrowed(name),
        WireType::Timing => {
            let stem = ["_milliseconds", "_millis", "_ms"]
                .iter()
                .find_map(|end| name.strip_suffix(end).filter(|stem| !stem.is_empty()))
                .unwrap_or(name);
            Cow::Owned(format!("{stem}_seconds"))
        }
        _ => Cow::Borrowed(name),
    }
}

/// Units that a name may end with, besides seconds and bytes.
const UNIT_WORDS: [&str; 18] = [
    "ratio",
    "percent",
    "celsius",
    "volts",
    "amperes",
    "watts",
    "joules",
    "grams",
    "meters",
    "hertz",
    "bits",
    "tokens",
    "milliseconds",
    "microseconds",
    "nanoseconds",
    "minutes",
    "hours",
    "days",
];

/// The unit that the last part of a name says, `_total` left out.
pub fn unit_of_name(name: &str) -> Unit {
    let stem = name.strip_suffix("_total").unwrap_or(name);
    let Some((_, last)) = stem.rsplit_once('_') else { return Unit::None };
    match last {
        "seconds" => Unit::Seconds,
        "bytes" => Unit::Bytes,
        _ => UNIT_WORDS.iter().find(|word| **word == last).map_or(Unit::None, |word| Unit::Other(word)),
    }
}

/// The unit with this word: `seconds` (`s`), `bytes` (`By`), nothing, or any other word.
///
/// Words outside the known list are kept for the life of the process; they come from pipeline files only,
/// each once, so there are as many as people have written down.
pub fn unit_of_word(word: &str) -> Unit {
    match word {
        "" => Unit::None,
        "seconds" | "s" => Unit::Seconds,
        "bytes" | "By" => Unit::Bytes,
        "ms" => Unit::Other("milliseconds"),
        "us" => Unit::Other("microseconds"),
        "ns" => Unit::Other("nanoseconds"),
        _ => match UNIT_WORDS.iter().find(|known| **known == word) {
            Some(known) => Unit::Other(known),
            None => Unit::Other(intern(word)),
        },
    }
}

fn intern(word: &str) -> &'static str {
    static WORDS: Mutex<Vec<&'static str>> = Mutex::new(Vec::new());
    let mut words = WORDS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(known) = words.iter().find(|known| **known == word) {
        return known;
    }
    let kept: &'static str = Box::leak(word.to_owned().into_boxed_str());
    words.push(kept);
    kept
}

/// The name of a distribution's summary where it is exposed as a histogram too: `_window` stands before the
/// unit, so that the name still ends with it (`x_seconds` → `x_window_seconds`).
pub fn window_name(name: &str, unit: Unit) -> String {
    match name.strip_suffix(unit.as_str()).and_then(|stem| stem.strip_suffix('_')) {
        Some(stem) if unit != Unit::None && !stem.is_empty() => format!("{stem}_window_{}", unit.as_str()),
        _ => format!("{name}_window"),
    }
}

/// Every family and sample name that an exposition may write for a metric: no two metrics may share one.
///
/// OpenMetrics names a counter's family without `_total`, and its strict parsers refuse a family whose name,
/// bare or with a suffix of its type, stands already (`_created` too, written or not).
pub fn claims(name: &str, kind: Kind, unit: Unit, expose: Expose) -> Vec<String> {
    match kind {
        Kind::Counter => match name.strip_suffix("_total").filter(|stem| !stem.is_empty()) {
            Some(stem) => vec![stem.to_owned(), name.to_owned(), format!("{stem}_created")],
            None => vec![name.to_owned()],
        },
        Kind::Gauge | Kind::Set => vec![name.to_owned()],
        Kind::Distribution => {
            let family = |name: &str, bucket: bool| {
                let mut out = vec![name.to_owned()];
                let suffixes: &[&str] =
                    if bucket { &["_sum", "_count", "_created", "_bucket"] } else { &["_sum", "_count", "_created"] };
                out.extend(suffixes.iter().map(|suffix| format!("{name}{suffix}")));
                out
            };
            let mut out = family(name, expose.histogram);
            if expose.histogram && expose.summary {
                out.extend(family(&window_name(name, unit), false));
            }
            out
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_metric(name: &str, wire: WireType, expected: &str) {
        assert_eq!(with_suffix(&escape_metric_name(name), wire), expected, "{name}|{}", wire.as_str());
    }

    #[test]
    fn names_become_prometheus_names() {
        check_metric("checkout.latency", WireType::Timing, "checkout_latency_seconds");
        check_metric("checkout.latency_ms", WireType::Timing, "checkout_latency_seconds");
        check_metric("checkout.latency.millis", WireType::Timing, "checkout_latency_seconds");
        check_metric("took_milliseconds", WireType::Timing, "took_seconds");
        check_metric("took_seconds", WireType::Timing, "took_seconds");
        check_metric("ms", WireType::Timing, "ms_seconds");
        check_metric("alarms", WireType::Timing, "alarms_seconds");
        check_metric("orders", WireType::Count, "orders_total");
        check_metric("orders.total", WireType::Count, "orders_total");
        check_metric("a-b c", WireType::Gauge, "a_b_c");
        check_metric("größe", WireType::Histogram, "gr__e");
        check_metric("404.hits", WireType::Gauge, "_404_hits");
        check_metric("job:x:rate", WireType::Gauge, "job:x:rate");
        check_metric("size_ms", WireType::Distribution, "size_ms");
    }

    #[test]
    fn label_names_have_no_colon() {
        assert_eq!(escape_label_name("a:b.c"), "a_b_c");
        assert_eq!(escape_label_name("0"), "_0");
        assert!(is_label_name("a_1") && !is_label_name("a:b") && !is_label_name("1a") && !is_label_name(""));
    }

    #[test]
    fn escaping_twice_changes_nothing() {
        for name in ["ü.x", "1.2", "a b", "", "x_y", ":"] {
            let once = escape_metric_name(name).into_owned();
            assert_eq!(escape_metric_name(&once), once);
        }
    }

    #[test]
    fn units_come_from_the_last_part() {
        let check = |name: &str, unit: &str| assert_eq!(unit_of_name(name).as_str(), unit, "{name}");
        check("x_seconds", "seconds");
        check("x_bytes_total", "bytes");
        check("x_percent", "percent");
        check("seconds", "");
        check("x_secondss", "");
        assert_eq!(unit_of_word("parsec"), unit_of_word("parsec"));
        assert_eq!(unit_of_word("s"), Unit::Seconds);
    }

    #[test]
    fn the_window_stands_before_the_unit() {
        assert_eq!(window_name("a_seconds", Unit::Seconds), "a_window_seconds");
        assert_eq!(window_name("a", Unit::None), "a_window");
        assert_eq!(window_name("a", Unit::Seconds), "a_window");
        assert_eq!(window_name("seconds", Unit::Seconds), "seconds_window");
    }
}
