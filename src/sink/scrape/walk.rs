//! The series of a family one by one, with their labels: what JSON, CSV and line protocol are written from.
//!
//! In: a family and its ids. Out: [`Sample`]s in the order of the ids. Owns nothing. Invariant: a series that leaves
//! meanwhile is left out.

use super::Exposed;
use super::render::{FamilyText, RUN};
use crate::codec::exposition::FamilyType;
use crate::event::{Labels, Timestamp};
use crate::view::read::Distributions;
use crate::view::{DistributionValue, Value, View};

/// The value of one series.
pub(super) enum SampleValue<'a> {
    /// In units of `10^-exponent`.
    Units(i128, u8),
    /// A gauge's.
    Float(f64),
    /// A distribution's, with its quantiles (as the metric lists them) and the counts not above its bounds.
    Distribution(&'a DistributionValue, &'a [i64], &'a [u128]),
}

/// One series.
pub(super) struct Sample<'a> {
    pub(super) labels: &'a Labels,
    /// Of its newest value; `None` before the first.
    pub(super) time: Option<Timestamp>,
    pub(super) value: SampleValue<'a>,
}

/// Calls `visit` with every series; with `zero` labels, for a declared metric that has none yet, with that one.
pub(super) fn walk(
    view: &View,
    family: &Exposed,
    text: &FamilyText,
    zero: Option<&Labels>,
    mut visit: impl FnMut(&Sample<'_>),
) {
    let metric = &*family.metric;
    if let Some(labels) = zero {
        return match family.kind {
            FamilyType::Counter | FamilyType::Gauge => {
                visit(&Sample { labels, time: None, value: SampleValue::Units(0, 0) });
            }
            FamilyType::Summary | FamilyType::Histogram => {
                let bounds = metric.buckets.as_ref().map_or(0, |buckets| buckets.bounds.len());
                let (quantiles, buckets) = (vec![0; metric.quantiles.len()], vec![0; bounds]);
                let empty = DistributionValue::empty(metric.digits);
                let value = SampleValue::Distribution(&empty, &quantiles, &buckets);
                visit(&Sample { labels, time: None, value });
            }
        };
    }
    let mut column = Distributions::default();
    let mut values = Vec::new();
    let (quantiles, bounds) =
        (metric.quantiles.len(), metric.buckets.as_ref().map_or(0, |buckets| buckets.bounds.len()));
    for (ids, slots) in text.ids.chunks(RUN).zip(text.slots.chunks(RUN)) {
        values.clear();
        view.read(metric, ids, &mut values);
        view.read_distributions(ids, &metric.quantiles, bounds, &mut column);
        let series: Vec<_> = ids.iter().copied().zip(slots.iter().copied()).collect();
        let mut at = 0;
        view.labels(metric.kind, &series, |labels| {
            let index = at;
            at += 1;
            let (time, value) = match values[index] {
                Some(Value::Counter(value)) => (value.seen, SampleValue::Units(value.nanos, 9)),
                Some(Value::Gauge(value)) => {
                    let Some(last) = value.last else { return };
                    (value.time, SampleValue::Float(last))
                }
                Some(Value::Set(value)) => (value.seen, SampleValue::Units(i128::from(value.distinct), 0)),
                Some(Value::Distribution(_)) => {
                    let Some(value) = &column.values[index] else { return };
                    let quantiles = &column.quantiles[index * quantiles..][..quantiles];
                    let buckets = &column.buckets[index * bounds..][..bounds];
                    (value.seen, SampleValue::Distribution(value, quantiles, buckets))
                }
                None => return,
            };
            visit(&Sample { labels, time: Some(time), value });
        });
    }
}
