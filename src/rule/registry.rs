//! The metrics of this process: one name, one type, one number.
//!
//! In: metrics without a number. Out: `Arc<Metric>`s with one. Owns: the list, the map by name and the map of
//! claimed exposition names. Invariant: the list only grows, an entry's id, name, kind and scale never change
//! (its words may, once, when a metric restored from the store is first seen again), and no exposition name
//! belongs to two metrics.

use super::name::claims;
use crate::event::{Kind, Metric, MetricId, RejectReason, WireType};
use hashbrown::HashMap;
use std::sync::Arc;

#[derive(Default)]
pub(super) struct Registry {
    metrics: Vec<Entry>,
    by_name: HashMap<Arc<str>, MetricId, foldhash::fast::RandomState>,
    claimed: HashMap<Box<str>, MetricId, foldhash::fast::RandomState>,
    /// What names on the wire came to, by type; at most as many of each as there may be metrics. New series
    /// mostly come under old names, and need not be escaped and looked up again.
    by_wire: [HashMap<Box<[u8]>, MetricId, foldhash::fast::RandomState>; 6],
}

struct Entry {
    metric: Arc<Metric>,
    /// Known from the store only: help, unit and group are guesses until a sample or a handle says better.
    provisional: bool,
}

impl Registry {
    /// The metric of an exposed name, and whether its words are still guesses.
    pub(super) fn get(&self, name: &str) -> Option<(&Arc<Metric>, bool)> {
        let id = self.by_name.get(name)?;
        let entry = &self.metrics[id.0 as usize];
        Some((&entry.metric, entry.provisional))
    }

    /// The metric that a name on the wire came to before.
    pub(super) fn known(&self, wire: WireType, name: &[u8]) -> Option<&Arc<Metric>> {
        let id = self.by_wire[wire as usize].get(name)?;
        Some(&self.metrics[id.0 as usize].metric)
    }

    /// Remembers it, while fewer than `most` are.
    pub(super) fn remember(&mut self, wire: WireType, name: &[u8], id: MetricId, most: usize) {
        let names = &mut self.by_wire[wire as usize];
        if names.len() < most {
            names.insert(name.into(), id);
        }
    }

    /// The metrics in order of their numbers.
    pub(super) fn all(&self) -> Vec<Arc<Metric>> {
        self.metrics.iter().map(|entry| entry.metric.clone()).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.metrics.len()
    }

    /// Adds a metric; its `id` is replaced by the next one.
    ///
    /// # Errors
    /// `TypeConflict` when one of its exposition names is taken.
    pub(super) fn insert(&mut self, mut metric: Metric, provisional: bool) -> Result<Arc<Metric>, RejectReason> {
        let names = claims(&metric.name, metric.kind, metric.unit, metric.expose);
        if names.iter().any(|name| self.claimed.contains_key(name.as_str())) {
            return Err(RejectReason::TypeConflict);
        }
        let id = MetricId(u32::try_from(self.metrics.len()).expect("the caller bounds the number of metrics"));
        metric.id = id;
        let metric = Arc::new(metric);
        for name in names {
            self.claimed.insert(name.into_boxed_str(), id);
        }
        self.by_name.insert(metric.name.clone(), id);
        self.metrics.push(Entry { metric: metric.clone(), provisional });
        Ok(metric)
    }

    /// Gives a provisional metric the words it really has; identity stays.
    pub(super) fn settle(&mut self, mut metric: Metric) -> Option<Arc<Metric>> {
        let id = *self.by_name.get(&metric.name)?;
        let entry = &self.metrics[id.0 as usize];
        if !entry.provisional {
            return Some(entry.metric.clone());
        }
        let known: (Kind, _) = (entry.metric.kind, entry.metric.scale);
        if known != (metric.kind, metric.scale) {
            return None;
        }
        let names = claims(&metric.name, metric.kind, metric.unit, metric.expose);
        if names.iter().any(|name| self.claimed.get(name.as_str()).is_some_and(|owner| *owner != id)) {
            return None;
        }
        let guessed = &entry.metric;
        for name in claims(&guessed.name, guessed.kind, guessed.unit, guessed.expose) {
            self.claimed.remove(name.as_str());
        }
        for name in names {
            self.claimed.insert(name.into_boxed_str(), id);
        }
        metric.id = id;
        let metric = Arc::new(metric);
        self.metrics[id.0 as usize] = Entry { metric: metric.clone(), provisional: false };
        Some(metric)
    }
}
