//! What a source's input became: the terms of the conservation laws (C6).
//!
//! In: one call per batch. Out: sums that ride in the combiner, so that a commit holds exactly the counts
//! of the samples it holds. Laws: `inputs = events + Σ rejected`; `samples = committed + Σ dropped + in flight`.

use crate::event::{DropReason, Kind, MetricId, RejectReason};

/// Where a sample may be dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Edge {
    /// Between a producer's ring or a reader's queue and its shard.
    Queue = 0,
    /// In the shard: acceptance and limits.
    Shard = 1,
    /// In the store, while it cannot commit.
    Store = 2,
}

impl Edge {
    /// Every edge, in the order of its code.
    pub const ALL: [Edge; 3] = [Edge::Queue, Edge::Shard, Edge::Store];

    /// The label value.
    pub fn as_str(self) -> &'static str {
        match self {
            Edge::Queue => "queue",
            Edge::Shard => "shard",
            Edge::Store => "store",
        }
    }
}

/// The counts of one source. Every field is a number of things since the tally was cleared.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct SourceTally {
    /// Lines, frames' lines or calls that arrived.
    pub inputs: u64,
    /// Of these, those that are known to be JSON: events, samples and CloudEvents, understood or refused.
    pub json: u64,
    /// Inputs that were understood.
    pub events: u64,
    /// Inputs that were refused, by reason; `inputs = events + Σ rejected`.
    pub rejected: [u64; RejectReason::COUNT],
    /// Samples emitted, by kind.
    pub samples: [u64; Kind::ALL.len()],
    /// Samples dropped, by edge and reason.
    pub dropped: [[u64; DropReason::COUNT]; Edge::ALL.len()],
    /// Samples recorded, by kind, counted where they are recorded: `samples = Σ recorded + Σ dropped`.
    pub recorded: [u64; Kind::ALL.len()],
    /// Samples for a slice before the open one.
    pub late: u64,
    /// Distribution values beyond the range, clamped to its end (V4).
    pub clamped: u64,
    /// Unknown `|x` fields of lines.
    pub unknown_fields: u64,
    /// Extra tags of declared metrics that were dropped, by metric, ascending.
    pub labels_dropped: Vec<(MetricId, u64)>,
    /// DogStatsD events (`_e`) and service checks (`_sc`).
    pub notices: u64,
    /// Datagrams the kernel dropped on our own sockets (`SO_RXQ_OVFL`).
    pub kernel_drops: u64,
    /// Connections closed at once: too many open, or no descriptor left.
    pub refused_connections: u64,
}

impl SourceTally {
    /// Adds another tally.
    pub fn merge(&mut self, other: &SourceTally) {
        self.inputs += other.inputs;
        self.json += other.json;
        self.events += other.events;
        add_all(&mut self.rejected, &other.rejected);
        add_all(&mut self.samples, &other.samples);
        for (mine, theirs) in self.dropped.iter_mut().zip(&other.dropped) {
            add_all(mine, theirs);
        }
        add_all(&mut self.recorded, &other.recorded);
        self.late += other.late;
        self.clamped += other.clamped;
        self.unknown_fields += other.unknown_fields;
        other.labels_dropped.iter().for_each(|(metric, count)| self.drop_labels(*metric, *count));
        self.notices += other.notices;
        self.kernel_drops += other.kernel_drops;
        self.refused_connections += other.refused_connections;
    }

    /// Counts tags of a metric that were dropped.
    pub fn drop_labels(&mut self, metric: MetricId, count: u64) {
        match self.labels_dropped.binary_search_by_key(&metric, |(known, _)| *known) {
            Ok(at) => self.labels_dropped[at].1 += count,
            Err(at) => self.labels_dropped.insert(at, (metric, count)),
        }
    }

    /// Counts dropped samples; they must also be counted as samples.
    pub fn drop_samples(&mut self, edge: Edge, reason: DropReason, count: u64) {
        self.dropped[edge as usize][reason as usize] += count;
    }

    /// Turns every recorded sample into a dropped one: the store could not keep them.
    pub fn drop_recorded(&mut self, edge: Edge, reason: DropReason) {
        let count = std::mem::take(&mut self.recorded).iter().sum();
        self.drop_samples(edge, reason, count);
    }

    /// Inputs refused, all reasons.
    pub fn rejected_total(&self) -> u64 {
        self.rejected.iter().sum()
    }

    /// Samples emitted, all kinds.
    pub fn samples_total(&self) -> u64 {
        self.samples.iter().sum()
    }

    /// Samples dropped, all edges and reasons.
    pub fn dropped_total(&self) -> u64 {
        self.dropped.iter().flatten().sum()
    }

    /// Samples recorded, all kinds.
    pub fn recorded_total(&self) -> u64 {
        self.recorded.iter().sum()
    }

    /// True when nothing was counted.
    pub fn is_zero(&self) -> bool {
        *self == SourceTally::default()
    }
}

fn add_all(mine: &mut [u64], theirs: &[u64]) {
    for (a, b) in mine.iter_mut().zip(theirs) {
        *a += b;
    }
}
