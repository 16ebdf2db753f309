//! What joining makes of metrics: durations, expiries and the number of open pairs, as plain parts.
//!
//! In: effects by set of series. Out: parts like any shard's, in the transaction of the rows that caused them, so that view,
//! recovery and history need not know pairs. Owns: the number of open pairs by gauge. Invariants: a sample made
//! here is counted once in `internal`'s samples and once as committed or dropped (C6); a gauge with open pairs
//! is set again in every slice, so that looking back finds it however quiet it is (Q1).

use super::PairRole;
use super::sets::{SetIndex, Sets};
use crate::delta::part::PartWriter;
use crate::delta::write_distribution;
use crate::delta::{BucketRule, CounterSum, DistributionSum, Edge, EncodedPart, GaugeSum, SeriesTable, SourceTally};
use crate::event::{DropReason, Kind, Metric, SeriesId, Slice, SliceWidth, Slot, Timestamp, UNITS_MAX, WEIGHT_ONE};
use crate::sketch::layout;
use crate::store::fold::Fold;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The open pairs behind one gauge.
#[derive(Debug, Default)]
struct Gauge {
    slot: Option<Slot>,
    /// How many there are by the bits of their feed's scale: nearly always one entry.
    counts: BTreeMap<u64, i64>,
    /// (time, position) of the newest set that was written.
    newest: Option<(i64, u64)>,
}

impl Gauge {
    fn value(&self) -> f64 {
        self.counts.iter().map(|(scale, count)| f64::from_bits(*scale) * *count as f64).sum()
    }
}

/// Nanoseconds of pairs that closed, by their feed's scale.
type Durations = BTreeMap<(Slice, SeriesId), (Option<Slot>, Vec<(f64, i64)>)>;

/// See the file's head.
#[derive(Default)]
pub(super) struct Effects {
    gauges: BTreeMap<SeriesId, Gauge>,
    changed: BTreeSet<SeriesId>,
    durations: Durations,
    expired: BTreeMap<SeriesId, (Option<Slot>, f64, u64)>,
    /// The slice in which gauges were set again last.
    set_in: Option<Slice>,
}

impl Effects {
    /// Pairs of this set that opened, or were closed.
    pub(super) fn count_open(&mut self, sets: &Sets, set: SetIndex, by: i64) {
        for feed in sets.feeds(set).iter().filter(|feed| feed.stored.role == PairRole::Open) {
            let gauge = self.gauges.entry(feed.stored.id).or_default();
            gauge.slot = feed.slot.or(gauge.slot);
            let count = gauge.counts.entry(feed.stored.scale).or_default();
            *count += by;
            debug_assert!(*count >= 0, "a pair closes once");
            if *count == 0 {
                gauge.counts.remove(&feed.stored.scale);
            }
            self.changed.insert(feed.stored.id);
        }
    }

    /// Recovery: what was counted is what the stored gauges say already.
    pub(super) fn settle(&mut self, sets: &Sets) {
        self.changed.clear();
        for feed in sets.all_feeds() {
            if let Some(gauge) = self.gauges.get_mut(&feed.stored.id) {
                gauge.slot = feed.slot.or(gauge.slot);
            }
        }
    }

    /// A pair that closed in time.
    pub(super) fn add_duration(&mut self, sets: &Sets, set: SetIndex, slice: Slice, nanos: i64) {
        for feed in sets.feeds(set).iter().filter(|feed| feed.stored.role == PairRole::Duration) {
            let (slot, values) = self.durations.entry((slice, feed.stored.id)).or_default();
            *slot = feed.slot.or(*slot);
            values.push((feed.scale(), nanos));
        }
    }

    /// A pair whose time was over.
    pub(super) fn add_expired(&mut self, sets: &Sets, set: SetIndex) {
        for feed in sets.feeds(set).iter().filter(|feed| feed.stored.role == PairRole::Expired) {
            let (slot, sum, count) = self.expired.entry(feed.stored.id).or_default();
            *slot = feed.slot.or(*slot);
            *sum += feed.scale();
            *count += 1;
        }
    }

    /// Everything since the last call, as parts.
    pub(super) fn parts(
        &mut self,
        now: Timestamp,
        width: SliceWidth,
        fold: &dyn Fold,
        table: &SeriesTable,
        tally: &mut SourceTally,
    ) -> Vec<EncodedPart> {
        let open = width.slice_of(now);
        if self.set_in != Some(open) {
            self.set_in = Some(open);
            self.changed.extend(self.gauges.iter().filter(|(_, gauge)| gauge.slot.is_some()).map(|(id, _)| *id));
        }
        let mut writers: BTreeMap<Slice, PartWriter> = BTreeMap::new();
        let writer = |writers: &mut BTreeMap<Slice, PartWriter>, slice, write: &mut dyn FnMut(&mut PartWriter)| {
            write(writers.entry(slice).or_insert_with(|| PartWriter::new(Vec::new())));
        };
        for (id, (slot, sum, count)) in std::mem::take(&mut self.expired) {
            let nanos = (sum * 1e9).round();
            let is_valid = nanos >= 0.0 && sum <= UNITS_MAX as f64;
            if emit(tally, Kind::Counter, slot, is_valid, count) {
                writer(&mut writers, open, &mut |writer| writer.counter(id, CounterSum { nanos: nanos as i128 }));
            }
        }
        for id in std::mem::take(&mut self.changed) {
            let Some(gauge) = self.gauges.get_mut(&id) else { continue };
            let value = gauge.value();
            let metric = gauge.slot.and_then(|slot| metric_of(table, Kind::Gauge, slot));
            let is_valid = value.is_finite() && value.abs() <= UNITS_MAX as f64;
            if emit(tally, Kind::Gauge, gauge.slot, is_valid, 1) {
                let per_one = metric.map_or(1.0, |metric| metric.scale.per_one());
                let (time, position) = gauge.next_set(now, fold.gauge(id).map(|set| (set.time, set.position)));
                let units = (value * per_one).round().clamp(-(UNITS_MAX as f64), UNITS_MAX as f64) as i128;
                let sum = GaugeSum {
                    count: 1,
                    last: value,
                    time,
                    position,
                    min: value,
                    max: value,
                    sum: units,
                    adjust: None,
                };
                writer(&mut writers, open, &mut |writer| writer.gauge(id, &sum));
            }
            if gauge.counts.is_empty() {
                self.gauges.remove(&id);
            }
        }
        let mut rules = BTreeMap::new();
        for ((slice, id), (slot, values)) in std::mem::take(&mut self.durations) {
            let metric = slot.and_then(|slot| metric_of(table, Kind::Distribution, slot));
            if !emit(tally, Kind::Distribution, slot.filter(|_| metric.is_some()), true, values.len() as u64) {
                continue;
            }
            let metric = metric.expect("else nothing is emitted");
            let rule = rules.entry(id).or_insert_with(|| {
                let buckets = metric.buckets.as_ref();
                buckets.map(|buckets| BucketRule::new(Arc::clone(buckets), metric.digits))
            });
            let sum = distribution(&metric, rule.as_ref(), &values, tally);
            writer(&mut writers, slice, &mut |writer| write_distribution(id, &sum, &mut Vec::new(), writer));
        }
        let finish = |(slice, writer): (Slice, PartWriter)| {
            let rows = writer.rows();
            EncodedPart { slice, bytes: writer.finish(), rows }
        };
        writers.into_iter().map(finish).collect()
    }
}

impl Gauge {
    /// Time and order of a set at `now` that is newer than every other: the wall clock may have stepped back, and
    /// what somebody set by hand may lie ahead of it.
    fn next_set(&mut self, now: Timestamp, folded: Option<(i64, u64)>) -> (i64, u64) {
        let next = match self.newest.max(folded) {
            Some((time, position)) if time >= now.0 => (time, position.saturating_add(1)),
            _ => (now.0, 0),
        };
        self.newest = Some(next);
        next
    }
}

/// Counts samples that joining made; false when they are dropped: their series is not in memory, because a limit
/// was lowered, or their value is out of range.
fn emit(tally: &mut SourceTally, kind: Kind, slot: Option<Slot>, is_valid: bool, count: u64) -> bool {
    tally.samples[kind as usize] += count;
    match (slot, is_valid) {
        (Some(_), true) => tally.recorded[kind as usize] += count,
        (None, _) => tally.drop_samples(Edge::Store, DropReason::SeriesLimit, count),
        (_, false) => tally.drop_samples(Edge::Store, DropReason::OutOfRange, count),
    }
    slot.is_some() && is_valid
}

fn metric_of(table: &SeriesTable, kind: Kind, slot: Slot) -> Option<Arc<Metric>> {
    table.lock().get(kind, slot).map(|entry| Arc::clone(&entry.metric))
}

/// Values as a shard would have recorded them: rounded once (V1), clamped (V4), exact at declared bounds (V5).
fn distribution(
    metric: &Metric,
    rule: Option<&BucketRule>,
    values: &[(f64, i64)],
    tally: &mut SourceTally,
) -> DistributionSum {
    let mut sum = DistributionSum::new(metric.digits);
    for (scale, nanos) in values {
        let units = if *scale == 1.0 {
            // Whole numbers all the way, so that a nanosecond more or less cannot come of an f64.
            let per_second = 10i128.pow(u32::from(metric.scale.exponent()));
            (i128::from(*nanos) * per_second * 2 + 1_000_000_000).div_euclid(2_000_000_000)
        } else {
            (*nanos as f64 / 1e9 * scale * metric.scale.per_one()).round() as i128
        };
        let clamped = units.clamp(-i128::from(UNITS_MAX), i128::from(UNITS_MAX)) as i64;
        tally.clamped += u64::from(i128::from(clamped) != units);
        let cell = layout::cell_of(metric.digits, clamped);
        sum.add(clamped, cell, WEIGHT_ONE);
        if let Some(rule) = rule {
            rule.exact_below(cell, clamped, |bound| sum.add_below(bound, WEIGHT_ONE));
        }
    }
    sum
}
