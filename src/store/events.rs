//! What the store must know of typed rules: which pairs it joins, which events it keeps.
//!
//! In: the pipeline file's events and pairs. Out: plain values. Invariant: none of its own; whoever gives a plan at a
//! reload keeps names at their places, since operations that are under way name places.

use super::kept::KeptPlan;
use super::pairs::{PAIRS_MAX, PairPlan};
use super::state::StoreLimits;
use crate::event::{Metric, MetricId};
use crate::rule::typed::{EventSpec, PairSpec, Typed, TypedConfig};
use std::sync::Arc;

/// What a pipeline file says to the store beside its limits. Places in the lists are the indices that
/// combiners name; a name keeps its place for the life of the process.
#[derive(Clone, Debug)]
pub struct EventsPlan {
    /// Pairs of events.
    pub pairs: Vec<PairPlan>,
    /// Pairs that may be open; past them starts are dropped and counted. Ends that wait have a share of their own.
    pub pairs_max: usize,
    /// Schemas with `keep`; those without have 0.
    pub kept: Vec<KeptPlan>,
}

impl EventsPlan {
    /// The plan of compiled rules, which know the places of names that a reload took away.
    pub fn following(typed: &Typed, pairs_max: u32) -> EventsPlan {
        let pairs = typed.pairs().iter().map(|pair| PairPlan { name: (*pair.name).into(), timeout: pair.timeout });
        let kept = typed.events().iter().map(|event| KeptPlan { name: event.name().into(), keep: event.keep() });
        EventsPlan { pairs: pairs.collect(), pairs_max: pairs_max as usize, kept: kept.collect() }
    }

    /// The plan of typed rules: pairs and events in the order of the file, which is how their plans number them.
    pub fn of(typed: &TypedConfig, pairs_max: u32) -> EventsPlan {
        let pair = |pair: &PairSpec| PairPlan { name: pair.name.as_str().into(), timeout: pair.timeout };
        let kept = |event: &EventSpec| KeptPlan { name: event.name.as_str().into(), keep: event.keep };
        EventsPlan {
            pairs: typed.pairs.iter().map(pair).collect(),
            pairs_max: pairs_max as usize,
            kept: typed.events.iter().map(kept).collect(),
        }
    }
}

impl Default for EventsPlan {
    fn default() -> Self {
        EventsPlan { pairs: Vec::new(), pairs_max: PAIRS_MAX, kept: Vec::new() }
    }
}

/// What a reload changes for the store and its fold; takes effect between two commits.
pub struct StoreReload {
    /// Pairs and kept schemas.
    pub events: EventsPlan,
    /// Times and limits; the width of a slice stays.
    pub limits: StoreLimits,
    /// Nanoseconds between ticks.
    pub commit_every: i64,
    /// Sketch cells that the fold may keep.
    pub cells: usize,
    /// Name and codec of each source, by index.
    pub sources: Vec<(String, &'static str)>,
    /// Metrics that are meant otherwise.
    pub metrics: Vec<Arc<Metric>>,
    /// Metrics that are not shown any more.
    pub retired: Vec<MetricId>,
}
