//! Relative operations on gauges: what they are applied to (V6).
//!
//! In: what shards saw of a gauge. Out: sets only. Owns: values that are newer than the fold's, because
//! their commit is not durable yet. Invariant: an operation is applied to the newest set by (time,
//! position), whichever shard, slice or commit it came with, and its result is newer than that set.

use crate::delta::part::{PartCursor, RowValue, Scratch, VERSION, block_ranges};
use crate::delta::{EncodedPart, GaugeSum};
use crate::event::{Kind, SeriesId, Timestamp, UNITS_MAX};
use std::collections::HashMap;

/// A gauge's newest set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NewestSet {
    /// Its value.
    pub value: f64,
    /// Event time in nanoseconds.
    pub time: i64,
    /// Order among equal times.
    pub position: u64,
}

impl NewestSet {
    /// The newest set of an aggregate, if it has one.
    pub fn of(sum: &GaugeSum) -> Option<NewestSet> {
        (sum.count > 0).then_some(NewestSet { value: sum.last, time: sum.time, position: sum.position })
    }

    fn is_after(&self, other: &NewestSet) -> bool {
        (self.time, self.position) > (other.time, other.position)
    }
}

fn newer(a: Option<NewestSet>, b: Option<NewestSet>) -> Option<NewestSet> {
    match (a, b) {
        (Some(a), Some(b)) => Some(if b.is_after(&a) { b } else { a }),
        (a, b) => a.or(b),
    }
}

/// The newest sets of what waits to be committed, known only while relative operations come.
#[derive(Default)]
pub(super) struct Gauges {
    ahead: HashMap<SeriesId, NewestSet>,
    /// True when `ahead` holds every set that waits.
    covers_all: bool,
}

impl Gauges {
    /// Sets of a gauge that will be committed.
    pub(super) fn note(&mut self, id: SeriesId, sum: &GaugeSum) {
        if self.covers_all
            && let Some(set) = NewestSet::of(sum)
        {
            self.keep(id, set);
        }
    }

    fn keep(&mut self, id: SeriesId, set: NewestSet) {
        let kept = self.ahead.entry(id).or_insert(set);
        if set.is_after(kept) {
            *kept = set;
        }
    }

    /// Relative operations are about to be applied: reads the sets that wait, unless they are known.
    pub(super) fn cover<'p>(&mut self, waiting: impl Iterator<Item = &'p EncodedPart>) {
        if self.covers_all {
            return;
        }
        self.covers_all = true;
        let mut scratch = Scratch::default();
        for part in waiting {
            // These bytes were encoded by this process, so none of the reads below fails.
            let blocks = block_ranges(&part.bytes).unwrap_or_default();
            for block in blocks.into_iter().filter(|block| part.bytes[block.start] == Kind::Gauge as u8) {
                let gauges = [&[VERSION], &part.bytes[block]].concat();
                let Ok(mut cursor) = PartCursor::new(&gauges) else { continue };
                while let Ok(Some(row)) = cursor.next(&mut scratch) {
                    if let RowValue::Gauge(sum) = &row.value
                        && let Some(set) = NewestSet::of(sum)
                    {
                        self.keep(row.id, set);
                    }
                }
            }
        }
    }

    /// Applies the relative operations of `sum`, which become one more set. `folded` is the newest durable
    /// set. True when they left the range and were refused.
    pub(super) fn apply(
        &self,
        id: SeriesId,
        sum: &mut GaugeSum,
        folded: Option<NewestSet>,
        per_one: f64,
        sealed_at: Timestamp,
    ) -> bool {
        let Some(by) = sum.adjust.take() else { return false };
        let present = newer(newer(folded, self.ahead.get(&id).copied()), NewestSet::of(sum));
        let to = present.map_or(0.0, |set| set.value) + by;
        if to.is_nan() || to.abs() > UNITS_MAX as f64 {
            return true;
        }
        sum.min = sum.min.min(to);
        sum.max = sum.max.max(to);
        sum.count += 1;
        sum.sum += (to * per_one).round().clamp(-(UNITS_MAX as f64), UNITS_MAX as f64) as i128;
        sum.last = to;
        // A set may lie ahead of the wall clock; what moved it must still be newer.
        (sum.time, sum.position) = match present {
            Some(set) if set.time >= sealed_at.0 => (set.time, set.position.saturating_add(1)),
            _ => (sealed_at.0, 0),
        };
        false
    }

    /// A set to 0 that is newer than every other of the gauge (R3).
    pub(super) fn zero(&self, id: SeriesId, folded: Option<NewestSet>, now: Timestamp) -> GaugeSum {
        let (time, position) = match newer(folded, self.ahead.get(&id).copied()) {
            Some(set) if set.time >= now.0 => (set.time, set.position.saturating_add(1)),
            _ => (now.0, 0),
        };
        GaugeSum { count: 1, last: 0.0, time, position, min: 0.0, max: 0.0, sum: 0, adjust: None }
    }

    /// Everything that waited is folded.
    pub(super) fn clear(&mut self) {
        self.ahead.clear();
        self.covers_all = false;
    }
}
