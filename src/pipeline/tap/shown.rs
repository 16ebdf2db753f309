//! The lines of a tap: what is written to the wire, and read back by the command line.
//!
//! In: items in the pipeline's words. Out: [`TapLine`], one JSON object each. Invariant: values are in the metric's base
//! unit, as they are exposed; what an item does not have is left out.

use crate::delta::part::RowValue;
use crate::event::{DropReason, Kind, Labels, Metric, Scale, Timestamp, WEIGHT_ONE};
use crate::rule::typed::Amount;
use crate::shard::tap::TapKind;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// An edge of the running pipeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TapEdge {
    /// Its name: of a source, or `store`.
    pub edge: String,
    /// What it is: `socket`, `http`, `host`, `process`, `gpu`, `internal`, `calls`, `store`.
    #[serde(rename = "type")]
    pub is: String,
    /// What is looked at there.
    #[serde(with = "kind_words")]
    pub kinds: Vec<TapKind>,
}

impl TapEdge {
    /// True for the one that deltas pass.
    pub(super) fn is_store(&self) -> bool {
        self.kinds == [TapKind::Deltas]
    }
}

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum TapLine {
    /// The first.
    Open {
        /// What is looked at.
        #[serde(with = "kind_words")]
        kinds: Vec<TapKind>,
        /// Where.
        edges: Vec<TapEdge>,
        /// Patterns that no edge matched.
        unmatched: Vec<String>,
        /// Items a second.
        limit: u32,
    },
    /// An input that was understood.
    Event {
        /// When it was read.
        time: String,
        /// Where from.
        edge: String,
        /// The name it was sent under.
        name: String,
        /// As it was sent.
        text: String,
    },
    /// A sample.
    Sample {
        /// Its event time.
        time: String,
        /// Where from.
        edge: String,
        /// `counter`, `gauge`, `distribution`, `set`.
        #[serde(rename = "type")]
        is: String,
        /// The exposed name of its metric.
        metric: String,
        /// Its labels.
        labels: BTreeMap<String, String>,
        /// In the exposed unit; a counter's increment has its weight in it.
        #[serde(skip_serializing_if = "Option::is_none")]
        value: Option<f64>,
        /// `add` for a gauge that is moved, not set.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        op: Option<String>,
        /// What a distribution's value stands for, if not for itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        weight: Option<f64>,
        /// The hash of a set's member, in hexadecimal digits.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        member: Option<String>,
        /// Why it was dropped.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        dropped: Option<String>,
    },
    /// What a commit added to a series in a slice.
    Delta {
        /// Of the commit.
        time: String,
        /// `store`
        edge: String,
        /// Number of the commit.
        commit: u64,
        /// The start of the slice.
        slice: String,
        /// `counter`, `gauge`, `distribution`, `set`.
        #[serde(rename = "type")]
        is: String,
        /// The exposed name of its metric.
        metric: String,
        /// Its labels.
        labels: BTreeMap<String, String>,
        /// The figures of its kind.
        #[serde(flatten)]
        figures: Figures,
    },
    /// An input that was refused.
    Reject {
        /// When it was read.
        time: String,
        /// Where from.
        edge: String,
        /// The word of `hydrograph_rejected_total{reason}`.
        reason: String,
        /// What was wrong and what would be right.
        hint: String,
        /// As it was sent.
        text: String,
    },
    /// Items that passed the filter and are not shown, since the last such line.
    LeftOut {
        /// How long that is.
        seconds: f64,
        /// Beyond the limit.
        limit: u64,
        /// The reader was too slow.
        queue: u64,
    },
    /// The last.
    End {
        /// Why.
        reason: String,
        /// Items shown.
        shown: u64,
        /// Items beyond the limit, since the beginning.
        left_out_by_limit: u64,
        /// Items that found the queue full.
        left_out_by_queue: u64,
    },
}

/// What a delta adds up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Samples of a distribution, sets of a gauge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// Σ of a counter's increments, of a distribution's values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sum: Option<f64>,
    /// A gauge's newest value; a set's distinct members, about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    /// Least value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// Greatest value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
}

impl Figures {
    /// Of a row whose sums are in this scale.
    pub(super) fn of(value: &RowValue<'_>, scale: Scale) -> Figures {
        match value {
            RowValue::Counter(sum) => Figures { sum: Some(Scale::NANO.value_of(sum.nanos)), ..Figures::default() },
            RowValue::Gauge(sum) => Figures {
                count: Some(sum.count),
                sum: None,
                value: Some(sum.last),
                min: Some(sum.min),
                max: Some(sum.max),
            },
            RowValue::Distribution(row) => {
                let weight = if row.weighted { WEIGHT_ONE as f64 } else { 1.0 };
                Figures {
                    count: Some(row.count),
                    sum: Some(scale.value_of(row.sum) / weight),
                    value: None,
                    min: Some(scale.value_of(row.min.into())),
                    max: Some(scale.value_of(row.max.into())),
                }
            }
            RowValue::Set(distinct) => Figures { value: Some(distinct.estimate() as f64), ..Figures::default() },
        }
    }
}

/// RFC 3339 in UTC, to the millisecond; a moment that no calendar holds is the epoch.
pub fn rfc3339(time: Timestamp) -> String {
    let millis = jiff::Timestamp::from_millisecond(time.0.div_euclid(1_000_000)).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    format!("{millis:.3}")
}

/// The line of a sample.
pub(super) fn sample(
    edge: String,
    metric: &Metric,
    labels: &Labels,
    amount: Amount,
    weight: u64,
    time: Timestamp,
    dropped: Option<DropReason>,
) -> TapLine {
    let value = match amount {
        Amount::Count { whole, nanos } => {
            Some(Scale::NANO.value_of(i128::from(whole) * 1_000_000_000 + i128::from(nanos)))
        }
        Amount::Set { value, .. } | Amount::Adjust(value) => Some(value),
        Amount::Units { units, .. } => Some(metric.scale.value_of(units.into())),
        Amount::Member(_) => None,
    };
    let is_weighted = matches!(amount, Amount::Units { .. }) && weight != WEIGHT_ONE;
    TapLine::Sample {
        time: rfc3339(time),
        edge,
        is: metric.kind.as_str().to_owned(),
        metric: metric.name.to_string(),
        labels: map_of(labels),
        value,
        op: matches!(amount, Amount::Adjust(_)).then(|| "add".to_owned()),
        weight: is_weighted.then(|| weight as f64 / WEIGHT_ONE as f64),
        member: if let Amount::Member(hash) = amount { Some(format!("{hash:016x}")) } else { None },
        dropped: dropped.map(|reason| reason.as_str().to_owned()),
    }
}

/// The line of a row: (time, edge, commit, slice), (kind, metric, labels), figures.
pub(super) fn delta(
    (time, edge, commit, slice): (String, String, u64, String),
    (kind, metric, labels): (Kind, String, &Labels),
    figures: Figures,
) -> TapLine {
    let is = kind.as_str().to_owned();
    TapLine::Delta { time, edge, commit, slice, is, metric, labels: map_of(labels), figures }
}

fn map_of(labels: &Labels) -> BTreeMap<String, String> {
    labels.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// Kinds as their words.
mod kind_words {
    use super::TapKind;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(kinds: &[TapKind], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(kinds.iter().map(|kind| kind.as_str()))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<TapKind>, D::Error> {
        let words = Vec::<String>::deserialize(deserializer)?;
        let kind = |word: &String| TapKind::ALL.into_iter().find(|kind| kind.as_str() == word);
        words
            .iter()
            .map(|word| kind(word).ok_or_else(|| serde::de::Error::custom(format!("unknown kind {word:?}"))))
            .collect()
    }
}
