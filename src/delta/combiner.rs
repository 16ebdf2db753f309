//! The combiner: everything that arrived between two ticks, by slot, ready to be drained.
//!
//! In: resolved samples from one shard. Out: through [`super::encode()`], parts. Owns: the records, their
//! chunks, the side maps, the tallies. Invariant: `add_*` never fails and never loses: what does not fit
//! the compact record (overflow, weight, three digits, another slice) goes to a side map that is exact.

use super::bucket::BucketRule;
use super::dense::{DenseCells, HotPool};
use super::kept::KeptEvents;
use super::pair::PairOps;
use super::prefetch;
use super::record::{ChunkPool, CounterRecord, DistributionRecord, FOLD_EVERY, GaugeRecord};
use super::segment::Segmented;
use super::side::{CounterSum, DistributionSum, GaugeSum, add_below};
use super::tally::SourceTally;
use crate::event::{Slice, Slot, SourceIndex, WEIGHT_ONE};
use crate::sketch::{Digits, Distinct};
use std::collections::HashMap;

/// Segments of distributions, 64 KiB each and as much again in chunks, that fit a second-level cache.
const WIDE_SEGMENTS: usize = 4;

type SlotMap<V> = HashMap<u32, V, foldhash::fast::FixedState>;

/// One aggregate of a slice that is not the hot one.
#[derive(Clone, Debug)]
pub(super) enum SideSum {
    Counter(CounterSum),
    Gauge(GaugeRecord),
    Distribution(Box<DistributionSum>),
    Set(Distinct),
}

/// What one shard combined since the last tick.
pub struct Combiner {
    /// The slice of every record outside the side map.
    slice: Slice,
    pub(super) counters: Segmented<CounterRecord>,
    /// Fractions of counters, in 10⁻⁹, beside their whole part.
    pub(super) fractions: Segmented<CounterRecord>,
    pub(super) gauges: Segmented<GaugeRecord>,
    pub(super) distributions: Segmented<DistributionRecord>,
    pub(super) chunks: ChunkPool,
    pub(super) hot: HotPool,
    pub(super) dense: SlotMap<DenseCells>,
    /// Sums that left i64: (kind code, slot) → what was spilled, in scale units.
    pub(super) spilled: HashMap<(u8, u32), i128, foldhash::fast::FixedState>,
    /// Declared bounds: slot → counts at or below a straddled bound, unweighted records only.
    pub(super) below: SlotMap<Vec<(u16, u64)>>,
    /// Weighted samples, and sketches of one or three digits, of the hot slice.
    pub(super) wide: SlotMap<DistributionSum>,
    pub(super) sets: SlotMap<Distinct>,
    /// Everything for other slices: (slice, kind code, slot).
    pub(super) side: HashMap<(u32, u8, u32), SideSum, foldhash::fast::FixedState>,
    /// True when relative operations came.
    pub(super) has_adjusted: bool,
    /// Starts and ends of pairs (V8).
    pub(super) pairs: PairOps,
    /// Whole events of schemas with `keep`.
    pub(super) kept: KeptEvents,
    tallies: Vec<SourceTally>,
}

impl Combiner {
    /// An empty combiner whose hot slice is `slice`.
    pub fn new(slice: Slice) -> Combiner {
        Combiner {
            slice,
            counters: Segmented::new(),
            fractions: Segmented::new(),
            gauges: Segmented::new(),
            distributions: Segmented::new(),
            chunks: ChunkPool::new(),
            hot: HotPool::new(),
            dense: SlotMap::default(),
            spilled: HashMap::default(),
            below: SlotMap::default(),
            wide: SlotMap::default(),
            sets: SlotMap::default(),
            side: HashMap::default(),
            has_adjusted: false,
            pairs: PairOps::default(),
            kept: KeptEvents::default(),
            tallies: Vec::new(),
        }
    }

    /// The hot slice.
    pub fn slice(&self) -> Slice {
        self.slice
    }

    /// Sets the hot slice of an empty combiner.
    pub fn start(&mut self, slice: Slice) {
        debug_assert!(self.is_empty(), "the hot slice of a combiner with records cannot change");
        self.slice = slice;
    }

    /// The tally of a source.
    #[inline]
    pub fn tally(&mut self, source: SourceIndex) -> &mut SourceTally {
        let index = usize::from(source.0);
        if self.tallies.len() <= index {
            self.tallies.resize_with(index + 1, SourceTally::default);
        }
        &mut self.tallies[index]
    }

    /// All tallies, by source index.
    pub fn tallies(&self) -> &[SourceTally] {
        &self.tallies
    }

    pub(super) fn clear_tallies(&mut self) {
        self.tallies.clear();
    }

    /// Entries of the side map and operations on pairs: a shard asks for an early tick when there are many.
    pub fn side_len(&self) -> usize {
        self.side.len() + self.pairs.ops.len()
    }

    /// True when it holds nothing, not even a count.
    pub fn is_empty(&self) -> bool {
        self.counters.is_clean()
            && self.fractions.is_clean()
            && self.gauges.is_clean()
            && self.distributions.is_clean()
            && self.wide.is_empty()
            && self.sets.is_empty()
            && self.side.is_empty()
            && self.spilled.is_empty()
            && self.pairs.ops.is_empty()
            && self.kept.is_empty()
            && self.tallies.iter().all(SourceTally::is_zero)
    }

    /// Bytes on the heap, about.
    pub fn heap_bytes(&self) -> usize {
        self.counters.heap_bytes()
            + self.fractions.heap_bytes()
            + self.gauges.heap_bytes()
            + self.distributions.heap_bytes()
            + self.chunks.heap_bytes()
            + self.hot.heap_bytes()
            + self.dense.values().map(|dense| dense.counts.capacity() * 4).sum::<usize>()
            + self.side.capacity() * 64
            + self.pairs.heap_bytes()
            + self.kept.bytes()
    }

    /// True when its distributions are too many for the second-level cache, so that prefetching pays.
    pub fn is_wide(&self) -> bool {
        self.distributions.segment_count() > WIDE_SEGMENTS
    }

    /// Brings a counter's record closer.
    #[inline(always)]
    pub fn prefetch_counter(&self, slot: u32) {
        if let Some(record) = self.counters.peek(slot) {
            prefetch(record);
        }
    }

    /// Brings a gauge's record closer.
    #[inline(always)]
    pub fn prefetch_gauge(&self, slot: u32) {
        if let Some(record) = self.gauges.peek(slot) {
            prefetch(record);
        }
    }

    /// Brings a distribution's record closer.
    #[inline(always)]
    pub fn prefetch_distribution(&self, slot: u32) {
        if let Some(record) = self.distributions.peek(slot) {
            prefetch(record);
        }
    }

    /// Brings the chunk closer that the next cell moves the record's to; the record should already be near.
    #[inline(always)]
    pub fn prefetch_tail(&self, slot: u32) {
        if let Some(record) = self.distributions.peek(slot)
            && let Some(at) = record.moves_to()
            && !record.is_hot()
        {
            prefetch(&self.chunks.get(record.chunk).0[at]);
        }
    }

    /// Brings the newest chunk closer, for whoever reads it.
    #[inline(always)]
    pub(super) fn prefetch_list(&self, slot: u32) {
        if let Some(record) = self.distributions.peek(slot)
            && record.chunk != 0
            && !record.is_hot()
        {
            self.chunks.prefetch(record.chunk);
        }
    }

    /// As [`prefetch_tail`](Self::prefetch_tail), also of a series that counts its cells: where this one is counted.
    #[inline(always)]
    pub fn prefetch_cell(&self, slot: u32, cell: impl FnOnce() -> i16) {
        match self.distributions.peek(slot) {
            Some(record) if record.is_hot() => prefetch(self.hot.peek(record.chunk, cell())),
            _ => self.prefetch_tail(slot),
        }
    }

    /// Adds a whole increment to a counter of the hot slice.
    #[inline(always)]
    pub fn add_whole(&mut self, slot: u32, whole: i64) {
        let record = self.counters.touch(slot, |record| record.0 == 0);
        match record.0.checked_add(whole) {
            Some(sum) => record.0 = sum,
            None => self.spill_counter(slot, whole),
        }
    }

    #[cold]
    fn spill_counter(&mut self, slot: u32, whole: i64) {
        let record = self.counters.touch(slot, |_| true);
        let spilled = i128::from(std::mem::replace(&mut record.0, whole)) * 1_000_000_000;
        *self.spilled.entry((0, slot)).or_insert(0) += spilled;
    }

    /// Adds an increment of `whole + nano / 10⁹` to a counter of the hot slice, `|nano| < 10⁹`.
    pub fn add_fraction(&mut self, slot: u32, whole: i64, nano: i64) {
        self.add_whole(slot, whole);
        if nano != 0 {
            // 9.2 × 10⁹ fractions fit an i64; a tick ends long before.
            self.fractions.touch(slot, |record| record.0 == 0).0 += nano;
        }
    }

    /// Adds an unweighted value to a distribution of two digits of the hot slice.
    #[inline(always)]
    pub fn add_value(&mut self, slot: u32, units: i64, cell: i16) {
        let record = self.distributions.touch(slot, |record| record.count == 0);
        let listed = record.count;
        record.count += 1;
        record.min = record.min.min(units);
        record.max = record.max.max(units);
        match record.sum.checked_add(units) {
            Some(sum) => record.sum = sum,
            None => {
                let spilled = i128::from(std::mem::replace(&mut record.sum, units));
                *self.spilled.entry((2, slot)).or_insert(0) += spilled;
            }
        }
        if record.is_hot() {
            if !self.hot.count(record, cell) {
                self.hot.beside(record, cell, self.dense.entry(slot).or_default());
            }
            return;
        }
        record.list(listed, cell, &mut self.chunks);
        if listed == FOLD_EVERY - 1 {
            self.hot.heat(record, &mut self.chunks, self.dense.entry(slot).or_default());
        }
    }

    /// Adds a value that the compact record cannot hold: weighted, or of one or three digits.
    pub fn add_wide(&mut self, slot: u32, digits: Digits, units: i64, cell: i32, weight: u64) {
        self.wide.entry(slot).or_insert_with(|| DistributionSum::new(digits)).add_of(digits, units, cell, weight);
    }

    /// Adds a value to a distribution with declared buckets.
    pub fn add_bucketed(&mut self, slot: u32, digits: Digits, units: i64, cell: i32, weight: u64, rule: &BucketRule) {
        if weight == WEIGHT_ONE && digits == Digits::Two {
            self.add_value(slot, units, cell as i16);
            rule.exact_below(cell, units, |bound| add_below(self.below.entry(slot).or_default(), bound, 1));
        } else {
            self.add_wide(slot, digits, units, cell, weight);
            let sum = self.wide.get_mut(&slot).expect("added above");
            rule.exact_below(cell, units, |bound| sum.add_below(bound, weight));
        }
    }

    /// Sets a gauge of the hot slice; `units` is the value in scale units.
    #[inline]
    pub fn set_gauge(&mut self, slot: u32, value: f64, units: i64, time: i64, position: u64) {
        set(self.gauges.touch(slot, is_clean), value, units, time, position);
    }

    /// Applies a relative operation to a gauge of the hot slice (V6).
    pub fn adjust_gauge(&mut self, slot: u32, by: f64) {
        adjust(self.gauges.touch(slot, is_clean), by);
        self.has_adjusted = true;
    }

    /// Applies a relative operation to a gauge of another slice: behind the sets that came for it.
    pub fn adjust_gauge_at(&mut self, slice: Slice, slot: u32, by: f64) {
        if slice == self.slice {
            return self.adjust_gauge(slot, by);
        }
        adjust(self.side_gauge(slice, slot), by);
        self.has_adjusted = true;
    }

    /// True when relative operations came since the last drain.
    pub fn has_adjusted(&self) -> bool {
        self.has_adjusted
    }

    /// Adds a member to a set of the hot slice.
    pub fn add_member(&mut self, slot: u32, hash: u64) {
        self.sets.entry(slot).or_default().insert(hash);
    }

    /// Adds an increment to a counter of another slice.
    pub fn add_whole_at(&mut self, slice: Slice, slot: u32, nanos: i128) {
        if slice == self.slice {
            let whole = nanos.div_euclid(1_000_000_000);
            if let Ok(whole) = i64::try_from(whole) {
                return self.add_fraction(slot, whole, (nanos - i128::from(whole) * 1_000_000_000) as i64);
            }
            // The record must be touched, or nobody would ask for what was spilled.
            self.add_whole(slot, 0);
            *self.spilled.entry((0, slot)).or_insert(0) += nanos;
            return;
        }
        let sum = self.side.entry((slice.0, 0, slot)).or_insert(SideSum::Counter(CounterSum::default()));
        let SideSum::Counter(sum) = sum else { unreachable!("the key holds the kind") };
        sum.nanos += nanos;
    }

    /// Sets a gauge of another slice.
    pub fn set_gauge_at(&mut self, slice: Slice, slot: u32, value: f64, units: i64, time: i64, position: u64) {
        if slice == self.slice {
            return self.set_gauge(slot, value, units, time, position);
        }
        set(self.side_gauge(slice, slot), value, units, time, position);
        if slice > self.slice && self.has_adjusted && self.gauges.peek(slot).is_some_and(|record| record.is_adjusted) {
            // What moved the gauge before is behind this set, as it would be in one slice.
            let record = self.gauges.touch(slot, |_| false);
            (record.is_adjusted, record.adjust) = (false, 0.0);
        }
    }

    /// Everything that was set, by slot.
    pub fn gauge_sets(&self, mut visit: impl FnMut(Slot, GaugeSum)) {
        let mut slots = Vec::new();
        self.gauges.touched(|slot| slots.push(slot));
        let hot = slots.into_iter().filter_map(|slot| Some((slot, self.gauges.peek(slot)?)));
        let side = self.side.iter().filter_map(|((_, _, slot), sum)| match sum {
            SideSum::Gauge(record) => Some((*slot, record)),
            _ => None,
        });
        for (slot, record) in hot.chain(side).filter(|(_, record)| record.is_set) {
            visit(Slot(slot), GaugeSum::from(record.clone()));
        }
    }

    fn side_gauge(&mut self, slice: Slice, slot: u32) -> &mut GaugeRecord {
        let sum = self.side.entry((slice.0, 1, slot)).or_insert_with(|| SideSum::Gauge(GaugeRecord::default()));
        let SideSum::Gauge(record) = sum else { unreachable!("the key holds the kind") };
        record
    }

    /// Adds a value to a distribution of another slice.
    #[expect(clippy::too_many_arguments, reason = "the terms of one sample; a struct would only be taken apart again")]
    pub fn add_value_at(
        &mut self,
        slice: Slice,
        slot: u32,
        digits: Digits,
        units: i64,
        cell: i32,
        weight: u64,
        rule: Option<&BucketRule>,
    ) {
        if slice == self.slice {
            return match rule {
                Some(rule) => self.add_bucketed(slot, digits, units, cell, weight, rule),
                None if weight == WEIGHT_ONE && digits == Digits::Two => self.add_value(slot, units, cell as i16),
                None => self.add_wide(slot, digits, units, cell, weight),
            };
        }
        let sum = self
            .side
            .entry((slice.0, 2, slot))
            .or_insert_with(|| SideSum::Distribution(Box::new(DistributionSum::new(digits))));
        let SideSum::Distribution(sum) = sum else { unreachable!("the key holds the kind") };
        sum.add_of(digits, units, cell, weight);
        if let Some(rule) = rule {
            rule.exact_below(cell, units, |bound| sum.add_below(bound, weight));
        }
    }

    /// Adds a member to a set of another slice.
    pub fn add_member_at(&mut self, slice: Slice, slot: u32, hash: u64) {
        if slice == self.slice {
            return self.add_member(slot, hash);
        }
        let sum = self.side.entry((slice.0, 3, slot)).or_insert_with(|| SideSum::Set(Distinct::default()));
        let SideSum::Set(distinct) = sum else { unreachable!("the key holds the kind") };
        distinct.insert(hash);
    }
}

fn is_clean(record: &GaugeRecord) -> bool {
    !record.is_set && !record.is_adjusted
}

fn adjust(record: &mut GaugeRecord, by: f64) {
    record.is_adjusted = true;
    record.adjust += by;
}

fn set(record: &mut GaugeRecord, value: f64, units: i64, time: i64, position: u64) {
    record.count += 1;
    record.min = record.min.min(value);
    record.max = record.max.max(value);
    record.sum += i128::from(units);
    if !record.is_set || (record.time, record.position) <= (time, position) {
        record.is_set = true;
        record.last = value;
        record.time = time;
        record.position = position;
        record.is_adjusted = false;
        record.adjust = 0.0;
    }
}
