//! Source `process`: calls of the embedding program, one ring per thread.
//!
//! In: calls on handles. Out: events of one or two words in the thread's ring, increments in its counter slots.
//! Owns: nothing but the writing ends. Invariants: a call takes no lock, allocates nothing and never
//! waits for another producer; a handle resolves its series once, when it is made.
//!
//! [`Producer`] and the handles it gives stay on one thread and are the fastest (a counter 0.25 ns).
//! The handles of [`shared`] may travel between threads; they find the thread's producer by themselves.

mod event;
mod handle;
pub mod shared;
mod timer;

pub use event::{Event, EventBuilder, EventError, EventValue};
pub use handle::{LocalCounter, LocalGauge, LocalHistogram, LocalSet};
pub use timer::{LocalTimer, Timed, TimedExt, Timer};

use crate::delta::{Interned, SeriesTable};
use crate::event::{Clock, Kind, Labels, Metric, RejectReason, Slot, SourceIndex, WireType};
use crate::rule::{MetricSpec, SharedRules};
use crate::shard::ring::{Ring, RingPolicy, RingWriter};
use crate::shard::{Gone, RecentRejects, ShardHandle};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Words (events of one word) a ring holds by default: 10 M/s × 2 ms of poll gap, rounded up; 256 KiB, so that ring and
/// records share a second-level cache.
pub const RING_CAPACITY: usize = 1 << 15;

/// Why a handle could not be made.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum HandleError {
    /// The name or the labels are refused.
    #[error("refused: {0} ({hint})", hint = .0.hint())]
    Refused(RejectReason),
    /// A gauge past the limits of S3.
    #[error("the limit of series is reached")]
    SeriesLimit,
    /// A sample rate outside [2⁻¹⁰, 1].
    #[error("a sample rate lies between 1/1024 and 1, not at {0}")]
    Rate(f64),
    /// The pipeline has stopped.
    #[error(transparent)]
    Stopped(#[from] Gone),
}

/// What every producer of a pipeline shares.
pub struct Producers {
    rules: Arc<SharedRules>,
    table: Arc<SeriesTable>,
    shards: Vec<ShardHandle>,
    clock: Arc<dyn Clock>,
    source: SourceIndex,
    next_shard: AtomicUsize,
    ring_capacity: usize,
    policy: RingPolicy,
    /// Where refused events are shown.
    recent: Option<Arc<RecentRejects>>,
}

/// A handle's series, pinned in memory while the handle lives.
pub(super) struct Pinned {
    table: Arc<SeriesTable>,
    pub(super) metric: Arc<Metric>,
    pub(super) slot: Slot,
}

impl Drop for Pinned {
    fn drop(&mut self) {
        self.table.unpin(self.metric.kind, self.slot);
    }
}

impl Producers {
    /// Producers that feed these shards in turn.
    ///
    /// # Panics
    /// Without any shard.
    pub fn new(
        rules: Arc<SharedRules>,
        table: Arc<SeriesTable>,
        shards: Vec<ShardHandle>,
        clock: Arc<dyn Clock>,
        source: SourceIndex,
        ring_capacity: usize,
        policy: RingPolicy,
    ) -> Producers {
        assert!(!shards.is_empty(), "a pipeline has at least one shard");
        let next_shard = AtomicUsize::new(0);
        Producers { rules, table, shards, clock, source, next_shard, ring_capacity, policy, recent: None }
    }

    /// Shows refused events there.
    pub fn with_recent(mut self, recent: Arc<RecentRejects>) -> Producers {
        self.recent = Some(recent);
        self
    }

    /// A producer for the calling thread.
    ///
    /// # Errors
    /// [`Gone`] when the pipeline has stopped.
    pub fn producer(self: &Arc<Self>) -> Result<Producer, Gone> {
        let shard = &self.shards[self.next_shard.fetch_add(1, Ordering::Relaxed) % self.shards.len()];
        let ring = Ring::new(self.ring_capacity, shard.waker().clone());
        shard.attach(self.source, Arc::clone(&ring))?;
        let writer = Rc::new(RingWriter::new(ring, self.policy));
        Ok(Producer { producers: Arc::clone(self), writer })
    }

    fn pin(&self, name: &str, wire: WireType, labels: &[(&str, &str)]) -> Result<Pinned, HandleError> {
        let resolved = self.rules.load().resolve_handle(name, wire, labels).map_err(HandleError::Refused)?;
        self.pin_series(resolved.metric, &resolved.labels)
    }

    /// As [`pin`](Self::pin), for a metric that was registered under exactly this name.
    fn pin_exact(&self, name: &str, kind: Kind, labels: &[(&str, &str)]) -> Result<Pinned, HandleError> {
        let spec = MetricSpec::new(name, kind, "", "internal");
        let rules = self.rules.load();
        let metric = rules.metric(&spec).map_err(HandleError::Refused)?;
        let labels = rules.labels_from(self.source, &metric, labels).map_err(HandleError::Refused)?;
        self.pin_series(metric, &labels)
    }

    fn pin_series(&self, metric: Arc<Metric>, labels: &Labels) -> Result<Pinned, HandleError> {
        let slot = match self.table.intern_pinned(&metric, labels) {
            Interned::Slot(slot) | Interned::Overflow(slot) => slot,
            Interned::Refused => return Err(HandleError::SeriesLimit),
        };
        if metric.kind == Kind::Distribution && metric.buckets.is_some() {
            for shard in &self.shards {
                shard.note_buckets(slot, Arc::clone(&metric));
            }
        }
        Ok(Pinned { table: Arc::clone(&self.table), metric, slot })
    }
}

/// One thread's way in. It stays on its thread; when it is dropped, what it wrote is still counted.
pub struct Producer {
    producers: Arc<Producers>,
    writer: Rc<RingWriter>,
}

impl Producer {
    /// A counter of this series.
    ///
    /// # Errors
    /// [`HandleError`].
    pub fn counter(&self, name: &str, labels: &[(&str, &str)]) -> Result<LocalCounter, HandleError> {
        let pinned = self.producers.pin(name, WireType::Count, labels)?;
        Ok(LocalCounter::new(pinned, Rc::clone(&self.writer)))
    }

    /// A gauge of this series.
    ///
    /// # Errors
    /// [`HandleError`].
    pub fn gauge(&self, name: &str, labels: &[(&str, &str)]) -> Result<LocalGauge, HandleError> {
        let pinned = self.producers.pin(name, WireType::Gauge, labels)?;
        Ok(LocalGauge::new(pinned, Rc::clone(&self.writer)))
    }

    /// A histogram (any distribution) of this series; values in the metric's base unit.
    ///
    /// # Errors
    /// [`HandleError`].
    pub fn histogram(&self, name: &str, labels: &[(&str, &str)]) -> Result<LocalHistogram, HandleError> {
        let pinned = self.producers.pin(name, WireType::Histogram, labels)?;
        Ok(LocalHistogram::new(pinned, Rc::clone(&self.writer), Arc::clone(&self.producers.clock)))
    }

    /// A histogram of durations: named and scaled as a StatsD timing is, in seconds.
    ///
    /// # Errors
    /// [`HandleError`].
    pub fn timing(&self, name: &str, labels: &[(&str, &str)]) -> Result<LocalHistogram, HandleError> {
        let pinned = self.producers.pin(name, WireType::Timing, labels)?;
        Ok(LocalHistogram::new(pinned, Rc::clone(&self.writer), Arc::clone(&self.producers.clock)))
    }

    /// A set of this series.
    ///
    /// # Errors
    /// [`HandleError`].
    pub fn set(&self, name: &str, labels: &[(&str, &str)]) -> Result<LocalSet, HandleError> {
        let pinned = self.producers.pin(name, WireType::Set, labels)?;
        Ok(LocalSet::new(pinned, Rc::clone(&self.writer)))
    }

    /// A gauge of a metric that the program keeps itself, under exactly its name.
    pub(crate) fn gauge_exact(&self, name: &str, labels: &[(&str, &str)]) -> Result<LocalGauge, HandleError> {
        let pinned = self.producers.pin_exact(name, Kind::Gauge, labels)?;
        Ok(LocalGauge::new(pinned, Rc::clone(&self.writer)))
    }

    /// A counter of a metric that the program keeps itself.
    pub(crate) fn counter_exact(&self, name: &str, labels: &[(&str, &str)]) -> Result<LocalCounter, HandleError> {
        let pinned = self.producers.pin_exact(name, Kind::Counter, labels)?;
        Ok(LocalCounter::new(pinned, Rc::clone(&self.writer)))
    }

    /// A distribution of a metric that the program keeps itself.
    pub(crate) fn histogram_exact(&self, name: &str, labels: &[(&str, &str)]) -> Result<LocalHistogram, HandleError> {
        let pinned = self.producers.pin_exact(name, Kind::Distribution, labels)?;
        Ok(LocalHistogram::new(pinned, Rc::clone(&self.writer), Arc::clone(&self.producers.clock)))
    }
}
