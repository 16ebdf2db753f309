//! Which stored series a selector means, whatever they were at any time: for those who do something to series.
//!
//! In: the text of a selector. Out: series of the view. Owns nothing. Invariant: names are resolved as evaluation does it,
//! so that a name that can be asked can be named here.

use super::Worlds;
use super::declared::Declared;
use super::probe::Probe;
use crate::event::{Metric, SeriesId};
use crate::query::matcher::Matcher;
use crate::query::plan::Selector;
use crate::query::select::targets;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Series of a metric, never none.
pub type Meant = (Arc<Metric>, Vec<SeriesId>);

impl Worlds {
    /// The live series that a selector means (`orders_total{region="eu"}`), by metric.
    ///
    /// # Errors
    /// Words for the person who wrote it, where the text is no plain selector.
    pub fn matching(&self, text: &str) -> Result<Vec<Meant>, String> {
        let selector = &Selector::of_series(text)?;
        let view = self.view();
        let probe = Probe::new(view, &Declared::default());
        let metrics: BTreeMap<u32, Arc<Metric>> =
            targets(&probe, selector).into_iter().map(|target| (target.metric.id.0, target.metric)).collect();
        let is_match = |matcher: &Matcher, value: Option<&str>| matcher.accepts(value.unwrap_or(""));
        let series_of = |metric: Arc<Metric>| {
            let (family, _) = view.series_since(&metric, u64::MAX, 0);
            let mut places = family.series.iter();
            let mut found = Vec::new();
            view.labels(metric.kind, &family.series, |labels| {
                let is_meant = selector.matchers.iter().all(|matcher| is_match(matcher, labels.get(matcher.name())));
                found.extend(places.next().filter(|_| is_meant).map(|(id, _)| *id));
            });
            (metric, found)
        };
        Ok(metrics.into_values().map(series_of).filter(|(_, series)| !series.is_empty()).collect())
    }
}
