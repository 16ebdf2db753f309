//! What an expression will ask for, found by evaluating it over a world without samples.
//!
//! In: expressions. Out: the metrics they select. Owns: the list. Invariant: a metric that an evaluation over a real
//! world reads was selected here, because names are resolved by the same code over the same metrics.

use super::declared::Declared;
use crate::event::{Metric, SeriesId, SliceWidth};
use crate::query::cover::Zones;
use crate::query::data::{Data, DataError, Extent, Need, Visit};
use crate::query::matcher::Matcher;
use crate::view::View;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

pub(super) struct Probe<'v> {
    view: &'v View,
    metrics: BTreeMap<Arc<str>, Arc<Metric>>,
    selected: RefCell<BTreeMap<u32, Arc<Metric>>>,
    zones: Zones,
}

impl<'v> Probe<'v> {
    pub(super) fn new(view: &'v View, declared: &Declared) -> Probe<'v> {
        // What has had series is known by its own words.
        let metrics = declared.metrics().cloned().chain(view.metrics());
        let metrics = metrics.map(|metric| (Arc::clone(&metric.name), metric)).collect();
        Probe { view, metrics, selected: RefCell::default(), zones: Zones::default() }
    }

    /// Takes what was selected since the last call.
    pub(super) fn take(&self) -> Vec<Arc<Metric>> {
        self.selected.take().into_values().collect()
    }
}

impl Data for Probe<'_> {
    fn slice_width(&self) -> SliceWidth {
        self.view.slice_width()
    }

    fn zones(&self) -> &Zones {
        &self.zones
    }

    fn metric(&self, name: &str) -> Option<Arc<Metric>> {
        self.metrics.get(name).cloned()
    }

    fn metrics(&self) -> Vec<Arc<Metric>> {
        self.metrics.values().cloned().collect()
    }

    fn select(&self, metric: &Metric, _: &[Matcher]) -> Result<Arc<[SeriesId]>, DataError> {
        let known = self.metrics.get(&metric.name).filter(|known| known.id == metric.id);
        let known = known.cloned().unwrap_or_else(|| Arc::new(metric.clone()));
        self.selected.borrow_mut().insert(metric.id.0, known);
        Ok(Arc::from([]))
    }

    fn read(&self, _: &Metric, _: &[SeriesId], _: Extent<'_>, _: Need, _: &mut Visit<'_>) -> Result<(), DataError> {
        Ok(())
    }
}
