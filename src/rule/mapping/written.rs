//! The mapping file as written. Keys that do nothing here are kept apart, so that they can be warned of.
//!
//! In: YAML. Out: plain values; nothing is judged but types. Durations are Go's (`1m20s`).

use super::MappingError;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny};
use std::collections::BTreeMap;

#[derive(Debug, Default, Deserialize)]
pub(super) struct FileWritten {
    #[serde(default)]
    pub(super) defaults: DefaultsWritten,
    #[serde(default)]
    pub(super) mappings: Vec<RuleWritten>,
    #[serde(flatten)]
    pub(super) unknown: BTreeMap<String, IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct DefaultsWritten {
    pub(super) observer_type: Option<ObserverWritten>,
    pub(super) timer_type: Option<ObserverWritten>,
    pub(super) buckets: Option<Vec<f64>>,
    pub(super) quantiles: Option<Vec<QuantileWritten>>,
    pub(super) histogram_options: Option<HistogramWritten>,
    pub(super) summary_options: Option<SummaryWritten>,
    pub(super) match_type: Option<MatchTypeWritten>,
    #[serde(default)]
    pub(super) glob_disable_ordering: bool,
    pub(super) ttl: Option<DurationWritten>,
    #[serde(flatten)]
    pub(super) unknown: BTreeMap<String, IgnoredAny>,
}

#[derive(Debug, Deserialize)]
pub(super) struct RuleWritten {
    #[serde(rename = "match")]
    pub(super) pattern: String,
    pub(super) match_type: Option<MatchTypeWritten>,
    pub(super) match_metric_type: Option<MetricTypeWritten>,
    #[serde(default)]
    pub(super) action: ActionWritten,
    pub(super) name: Option<String>,
    #[serde(default)]
    pub(super) labels: BTreeMap<String, String>,
    pub(super) help: Option<String>,
    pub(super) observer_type: Option<ObserverWritten>,
    pub(super) timer_type: Option<ObserverWritten>,
    pub(super) buckets: Option<Vec<f64>>,
    pub(super) quantiles: Option<Vec<QuantileWritten>>,
    pub(super) histogram_options: Option<HistogramWritten>,
    pub(super) summary_options: Option<SummaryWritten>,
    pub(super) ttl: Option<DurationWritten>,
    pub(super) scale: Option<f64>,
    #[serde(default)]
    pub(super) honor_labels: bool,
    #[serde(flatten)]
    pub(super) unknown: BTreeMap<String, IgnoredAny>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ObserverWritten {
    Histogram,
    Summary,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum MatchTypeWritten {
    Glob,
    Regex,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum MetricTypeWritten {
    Counter,
    Gauge,
    #[serde(alias = "timer")]
    Observer,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ActionWritten {
    #[default]
    Map,
    Drop,
}

/// `error` is read and not used: the bound of a quantile is that of the cells, which is tighter or said.
#[derive(Debug, Deserialize)]
pub(super) struct QuantileWritten {
    pub(super) quantile: f64,
}

/// `native_histogram_*` is read over: native histograms are always there in protobuf.
#[derive(Debug, Deserialize)]
pub(super) struct HistogramWritten {
    pub(super) buckets: Option<Vec<f64>>,
}

/// `age_buckets` and `buf_cap` tune an implementation that is not used here.
#[derive(Debug, Deserialize)]
pub(super) struct SummaryWritten {
    pub(super) quantiles: Option<Vec<QuantileWritten>>,
    pub(super) max_age: Option<DurationWritten>,
}

/// Nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DurationWritten(pub(super) i64);

impl<'de> Deserialize<'de> for DurationWritten {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<DurationWritten, D::Error> {
        let text = String::deserialize(deserializer)?;
        duration(&text)
            .map(DurationWritten)
            .ok_or_else(|| D::Error::custom(format!("{text:?} is not a duration such as 1m20s")))
    }
}

/// A duration as Go writes it: numbers with units, largest first by custom but in any order.
fn duration(text: &str) -> Option<i64> {
    if text == "0" {
        return Some(0);
    }
    const UNITS: [(&str, f64); 7] =
        [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 6e10), ("h", 3.6e12)];
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.bytes().take_while(|byte| !byte.is_ascii_digit() && *byte != b'.').count();
        let (_, nanos) = UNITS.iter().find(|(unit, _)| *unit == &rest[..letters])?;
        rest = &rest[letters..];
        total += number * nanos;
    }
    (!text.is_empty() && total < 9e18).then_some(total as i64)
}

/// Reads a file; an empty one is a file without rules.
pub(super) fn read(text: &str) -> Result<FileWritten, MappingError> {
    if text.lines().all(|line| matches!(line.trim(), "" | "---") || line.trim_start().starts_with('#')) {
        return Ok(FileWritten::default());
    }
    serde_saphyr::from_str(text).map_err(|error| MappingError {
        line: error.location().map(|location| location.line() as usize),
        message: error.without_snippet().to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::duration;

    #[test]
    fn durations_are_those_of_go() {
        let cases: [(&str, Option<i64>); 8] = [
            ("1m20s", Some(80_000_000_000)),
            ("1.5h", Some(5_400_000_000_000)),
            ("250µs", Some(250_000)),
            ("0", Some(0)),
            ("10", None),
            ("", None),
            ("s", None),
            ("1d", None),
        ];
        for (text, expected) in cases {
            assert_eq!(duration(text), expected, "{text:?}");
        }
    }
}
