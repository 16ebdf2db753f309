//! The conservation laws as series: tallies of a commit become counters in the same commit (C3, C6).
//!
//! In: tallies by source. Out: counter rows of `hydrograph_*{source, ...}`. Owns: the slots of those
//! series. Invariant: at every commit, `events_received = events + Σ rejected` and `samples = committed +
//! Σ dropped` hold to the unit, also after a crash, because the counts are in the transaction of what
//! they count.

use crate::delta::part::PartWriter;
use crate::delta::{CounterSum, Edge, EncodedPart, SeriesTable, SourceTally};
use crate::event::{DropReason, Kind, Labels, LabelsBuilder, Metric, RejectReason, SeriesId, Slice, Slot};
use crate::rule::{MetricSpec, Rules};
use std::collections::HashMap;
use std::sync::Arc;

/// Families of the laws, with what they count.
const FAMILIES: [(&str, &str, &[&str]); 14] = [
    ("hydrograph_events_received_total", "Inputs that arrived: lines, frames, calls", &["source", "codec"]),
    ("hydrograph_events_total", "Inputs that were understood", &["source"]),
    ("hydrograph_rejected_total", "Inputs that were refused", &["source", "reason"]),
    ("hydrograph_samples_total", "Samples emitted", &["source", "kind"]),
    ("hydrograph_samples_committed_total", "Samples committed to the store", &["source", "kind"]),
    ("hydrograph_dropped_total", "Samples dropped after they had been accepted", &["source", "edge", "reason"]),
    ("hydrograph_samples_late_total", "Samples for a slice before the open one", &["source"]),
    ("hydrograph_samples_clamped_total", "Distribution values clamped to the range", &["source"]),
    ("hydrograph_unknown_fields_total", "Fields of lines that no version of the protocol defines", &["source"]),
    ("hydrograph_notices_total", "DogStatsD events and service checks", &["source"]),
    ("hydrograph_kernel_drops_total", "Datagrams the kernel dropped on our own sockets", &["source"]),
    (
        "hydrograph_connections_refused_total",
        "Connections closed: too many, no descriptor left, or half a frame for too long",
        &["source"],
    ),
    ("hydrograph_labels_dropped_total", "Tags that a declared metric does not name", &["metric"]),
    (
        "hydrograph_pairs_total",
        "Starts and ends of pairs by what became of them: opened = closed + expired + restarted + open now",
        &["pair", "outcome"],
    ),
];
/// The place of the pairs' family.
const PAIRS: usize = 13;

/// Turns tallies into increments of own counters.
pub(super) struct Laws {
    rules: Arc<Rules>,
    table: Arc<SeriesTable>,
    /// Name and codec of each source, by index.
    sources: Vec<(String, &'static str)>,
    metrics: Vec<Option<Arc<Metric>>>,
    slots: HashMap<(usize, Labels), Slot, foldhash::fast::FixedState>,
}

impl Laws {
    pub(super) fn new(rules: Arc<Rules>, table: Arc<SeriesTable>, sources: Vec<(String, &'static str)>) -> Laws {
        let metrics = FAMILIES
            .iter()
            .map(|(name, help, labels)| {
                let mut spec = MetricSpec::new(name, Kind::Counter, help, "internal");
                spec.label_names = Some(labels);
                rules.metric(&spec).ok()
            })
            .collect();
        Laws { rules, table, sources, metrics, slots: HashMap::default() }
    }

    /// Sources came, left or changed; an index keeps its name.
    pub(super) fn set_sources(&mut self, sources: Vec<(String, &'static str)>) {
        self.sources = sources;
    }

    /// The increments of these tallies: (slot, increment), a slot at most once.
    pub(super) fn increments(&mut self, tallies: &[SourceTally]) -> Vec<(Slot, CounterSum)> {
        let mut out = Vec::new();
        for (index, tally) in tallies.iter().enumerate().filter(|(_, tally)| !tally.is_zero()) {
            let (source, codec) = self.sources.get(index).cloned().unwrap_or_else(|| (index.to_string(), "call"));
            let mut add = |laws: &mut Laws, family: usize, labels: &[(&str, &str)], count: u64| {
                if count > 0
                    && let Some(slot) = laws.slot(family, ("source", &source), labels)
                {
                    out.push((slot, CounterSum { nanos: i128::from(count) * 1_000_000_000 }));
                }
            };
            // What never came to a decoder (dropped by a full queue, too long) counts as what the source mostly takes.
            add(self, 0, &[("codec", codec)], tally.inputs - tally.json);
            add(self, 0, &[("codec", "json")], tally.json);
            add(self, 1, &[], tally.events);
            for reason in RejectReason::ALL {
                add(self, 2, &[("reason", reason.as_str())], tally.rejected[*reason as usize]);
            }
            for kind in Kind::ALL {
                add(self, 3, &[("kind", kind.as_str())], tally.samples[kind as usize]);
                add(self, 4, &[("kind", kind.as_str())], tally.recorded[kind as usize]);
            }
            for edge in Edge::ALL {
                for reason in DropReason::ALL {
                    let labels = [("edge", edge.as_str()), ("reason", reason.as_str())];
                    add(self, 5, &labels, tally.dropped[edge as usize][*reason as usize]);
                }
            }
            add(self, 6, &[], tally.late);
            add(self, 7, &[], tally.clamped);
            add(self, 8, &[], tally.unknown_fields);
            add(self, 9, &[], tally.notices);
            add(self, 10, &[], tally.kernel_drops);
            add(self, 11, &[], tally.refused_connections);
        }
        self.labels_dropped(tallies, &mut out);
        out
    }

    /// The increment of an outcome of a pair.
    pub(super) fn outcome(&mut self, pair: &str, outcome: &str, count: u64) -> Option<(Slot, CounterSum)> {
        let slot = self.slot(PAIRS, ("pair", pair), &[("outcome", outcome)])?;
        Some((slot, CounterSum { nanos: i128::from(count) * 1_000_000_000 }))
    }

    /// The name of a source.
    pub(super) fn source(&self, index: u16) -> Arc<str> {
        self.sources.get(usize::from(index)).map_or("", |(name, _)| name).into()
    }

    /// Dropped tags by metric: of all sources together, so that a slot comes once.
    fn labels_dropped(&mut self, tallies: &[SourceTally], out: &mut Vec<(Slot, CounterSum)>) {
        let mut sum = SourceTally::default();
        let all = tallies.iter().flat_map(|tally| &tally.labels_dropped);
        all.for_each(|(metric, count)| sum.drop_labels(*metric, *count));
        for (metric, count) in sum.labels_dropped {
            if let Some(metric) = self.rules.numbered(metric)
                && let Some(slot) = self.slot(12, ("metric", &metric.name), &[])
            {
                out.push((slot, CounterSum { nanos: i128::from(count) * 1_000_000_000 }));
            }
        }
    }

    fn slot(&mut self, family: usize, of: (&str, &str), labels: &[(&str, &str)]) -> Option<Slot> {
        let metric = self.metrics[family].clone()?;
        let mut builder = LabelsBuilder::new();
        builder.push(of.0, of.1);
        for (key, value) in labels {
            builder.push(*key, *value);
        }
        let key = (family, builder.build().ok()?);
        if let Some(slot) = self.slots.get(&key) {
            return Some(*slot);
        }
        let pairs: Vec<(&str, &str)> = key.1.iter().collect();
        let full = self.rules.labels_of(&metric, &pairs).ok()?;
        // Outside the limits: the laws must hold above all when series flood in, and an overflow series
        // would be the slot of several of them.
        let slot = self.table.intern_own(&metric, &full);
        self.slots.insert(key, slot);
        Some(slot)
    }
}

/// Rows in ascending order of their ids as a part of a slice.
pub(super) fn part(rows: &[(SeriesId, CounterSum)], slice: Slice) -> EncodedPart {
    let mut writer = PartWriter::new(Vec::new());
    for (id, sum) in rows {
        writer.counter(*id, *sum);
    }
    let rows = writer.rows();
    EncodedPart { slice, bytes: writer.finish(), rows }
}
