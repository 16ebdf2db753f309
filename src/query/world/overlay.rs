//! Results of recorded expressions that the store does not hold yet, over a world that does not change.
//!
//! In: a metric and the values of one time. Out: rows beside those of the store. Invariant: series that the store does
//! not know have ids from the top of the range down, which it will not give for years.

use crate::event::{Labels, Metric, SeriesId, Slice, Timestamp};
use crate::query::data::{DataError, GaugeRow, Rows, SeriesRows, Span, Visit};
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Default)]
pub(super) struct Overlay {
    metrics: BTreeMap<Arc<str>, Recorded>,
    fresh: u32,
}

struct Recorded {
    metric: Arc<Metric>,
    slice: Slice,
    time: Timestamp,
    known: BTreeMap<SeriesId, f64>,
    fresh: BTreeMap<SeriesId, (Labels, f64)>,
}

impl Recorded {
    fn row(&self, value: f64) -> GaugeRow {
        let order = (self.time.0, u64::MAX);
        let sum = (value * self.metric.scale.per_one()).round() as i128;
        GaugeRow { slice: self.slice, last: value, order, min: value, max: value, sum, count: 1 }
    }
}

impl Overlay {
    /// Takes the result of an expression; what the metric had before is forgotten.
    pub(super) fn record(
        &mut self,
        metric: &Arc<Metric>,
        slice: Slice,
        time: Timestamp,
        values: &[(Labels, f64)],
        known: impl Fn(&Labels) -> Option<SeriesId>,
    ) {
        let metric = Arc::clone(metric);
        let mut recorded = Recorded { metric, slice, time, known: BTreeMap::new(), fresh: BTreeMap::new() };
        for (labels, value) in values {
            match known(labels) {
                Some(id) => {
                    recorded.known.insert(id, *value);
                }
                None => {
                    let id = SeriesId(u32::MAX - self.fresh);
                    self.fresh += 1;
                    recorded.fresh.insert(id, (labels.clone(), *value));
                }
            }
        }
        self.metrics.insert(Arc::clone(&recorded.metric.name), recorded);
    }

    /// A recorded metric.
    pub(super) fn metric(&self, name: &str) -> Option<Arc<Metric>> {
        self.metrics.get(name).map(|recorded| Arc::clone(&recorded.metric))
    }

    /// The series of a recorded metric that the store does not know.
    pub(super) fn fresh(&self, metric: &Metric, is_match: impl Fn(&Labels) -> bool) -> impl Iterator<Item = SeriesId> {
        let recorded = self.metrics.get(&metric.name);
        let fresh = recorded.into_iter().flat_map(|recorded| recorded.fresh.iter());
        fresh.filter(move |(_, (labels, _))| is_match(labels)).map(|(id, _)| *id)
    }

    /// The row of a series that the store knows.
    pub(super) fn row(&self, metric: &Metric, id: SeriesId, span: Span) -> Option<GaugeRow> {
        let recorded = self.metrics.get(&metric.name).filter(|recorded| span.contains(recorded.slice))?;
        recorded.known.get(&id).map(|value| recorded.row(*value))
    }

    /// Visits the series of a recorded metric that the store does not know.
    pub(super) fn read_fresh(
        &self,
        metric: &Metric,
        ids: &[SeriesId],
        span: Span,
        visit: &mut Visit<'_>,
    ) -> Result<(), DataError> {
        let Some(recorded) = self.metrics.get(&metric.name).filter(|recorded| span.contains(recorded.slice)) else {
            return Ok(());
        };
        for (place, id) in ids.iter().enumerate() {
            if let Some((labels, value)) = recorded.fresh.get(id) {
                let rows = [recorded.row(*value)];
                let (created, last) = (recorded.time, recorded.time);
                visit(place, &SeriesRows { labels, created, resets: &[], last, rows: Rows::Gauge(&rows) })?;
            }
        }
        Ok(())
    }
}
