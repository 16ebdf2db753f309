//! Declared metrics whose only series needs no sample to be known: they count 0 from the start, as a scrape shows them.
//!
//! In: the declared metrics, the labels that stand on every series, and when they were declared. Out: the metrics by name,
//! and that series until it has samples. Owns: since when each counts. Invariants: a gauge is none of them, since it has
//! no value before its first; a series that came later has counted since its metric was declared, so that its first sample
//! ends no history.

use crate::event::{Kind, Labels, Metric, SeriesId, SliceWidth, Timestamp};
use crate::query::data::{DataError, DistributionTotals, Rows, SeriesRows, Visit};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The number of such a series within its metric, which has no other then. The store will not give it for years, and the
/// overlay, which gives from here down, has gauges only.
pub(super) const ZERO: SeriesId = SeriesId(u32::MAX);

/// What a pipeline declares.
#[derive(Clone, Default)]
pub(super) struct Declared {
    /// By name, with the edge since which it counts.
    metrics: BTreeMap<Arc<str>, (Arc<Metric>, Timestamp)>,
    constant: Labels,
}

/// A series without samples.
pub(super) struct Zero {
    labels: Labels,
    pub(super) since: Timestamp,
    /// As many zeros as the metric has declared bounds.
    buckets: Vec<u128>,
}

impl Declared {
    /// The next declaration: what stood before goes on, the rest begins with the slice of `now`, so that an expression sees
    /// it from the first slice on.
    pub(super) fn followed_by(
        &self,
        metrics: impl IntoIterator<Item = Arc<Metric>>,
        constant: Labels,
        width: SliceWidth,
        now: Timestamp,
    ) -> Declared {
        let is_known = |metric: &Metric| {
            let names = metric.label_names.as_ref();
            let has_one = names.is_some_and(|names| names.iter().all(|name| constant.get(name).is_some()));
            has_one && metric.kind != Kind::Gauge
        };
        let begin = width.start(width.slice_of(Timestamp(now.0.max(0))));
        let since = |metric: &Metric| match self.metrics.get(&metric.name) {
            Some((before, since)) if before.kind == metric.kind => *since,
            _ => begin,
        };
        let metrics = metrics.into_iter().filter(|metric| is_known(metric));
        let metrics = metrics.map(|metric| (Arc::clone(&metric.name), (Arc::clone(&metric), since(&metric)))).collect();
        Declared { metrics, constant }
    }

    /// The metric of this name.
    pub(super) fn metric(&self, name: &str) -> Option<&Arc<Metric>> {
        self.metrics.get(name).map(|(metric, _)| metric)
    }

    /// All of them.
    pub(super) fn metrics(&self) -> impl Iterator<Item = &Arc<Metric>> {
        self.metrics.values().map(|(metric, _)| metric)
    }

    /// The series of a metric that is one of them.
    pub(super) fn zero(&self, metric: &Metric) -> Option<Zero> {
        let (_, since) = self.metrics.get(&metric.name).filter(|(known, _)| known.kind == metric.kind)?;
        let buckets = vec![0; metric.buckets.as_ref().map_or(0, |buckets| buckets.units.len())];
        Some(Zero { labels: self.constant.clone(), since: *since, buckets })
    }
}

impl Zero {
    /// Whether a condition on labels accepts it.
    pub(super) fn is_selected(&self, is_match: impl Fn(&Labels) -> bool) -> bool {
        is_match(&self.labels)
    }

    /// What stands on it.
    pub(super) fn labels(&self) -> &Labels {
        &self.labels
    }

    /// Visits it, whatever slices are asked for.
    pub(super) fn read(&self, place: usize, kind: Kind, visit: &mut Visit<'_>) -> Result<(), DataError> {
        let rows = match kind {
            Kind::Counter => Rows::Counter { total: 0, increments: &[] },
            Kind::Gauge => Rows::Gauge(&[]),
            Kind::Distribution => {
                let totals = DistributionTotals { weight: 0, sum: 0, buckets: &self.buckets };
                Rows::Distribution { totals, rows: &[] }
            }
            Kind::Set => Rows::Set(&[]),
        };
        let (labels, created) = (&self.labels, self.since);
        visit(place, &SeriesRows { labels, created, resets: &[], last: Timestamp(i64::MAX), rows })
    }
}
