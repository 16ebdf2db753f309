//! Drains a combiner into parts: one for its hot slice, one for every other slice it saw.
//!
//! In: a sealed [`Combiner`], the map from slots to durable ids. Out: sorted, encoded parts; the combiner
//! is empty afterwards. Runs on the store's thread: encoding in place would stall the reader for
//! 112–183 ms at a million series.

use super::cells::CellCounter;
use super::combiner::{Combiner, SideSum};
use super::part::{DistributionRow, PartWriter};
use super::record::{DistributionRecord, GaugeRecord};
use super::side::{CounterSum, DistributionSum, GaugeSum};
use super::tally::SourceTally;
use crate::event::{Kind, SeriesId, Slice, Slot};
use crate::sketch::Digits;
use std::collections::BTreeMap;

/// The durable id of every slot that has one.
#[derive(Default)]
pub struct IdMap {
    by_slot: [Vec<u32>; Kind::ALL.len()],
}

const NO_ID: u32 = u32::MAX;

impl IdMap {
    /// No ids.
    pub fn new() -> IdMap {
        IdMap::default()
    }

    /// The id of a slot.
    #[inline(always)]
    pub fn get(&self, kind: Kind, slot: Slot) -> Option<SeriesId> {
        match self.by_slot[kind as usize].get(slot.0 as usize) {
            Some(id) if *id != NO_ID => Some(SeriesId(*id)),
            _ => None,
        }
    }

    /// Gives a slot its id.
    pub fn set(&mut self, kind: Kind, slot: Slot, id: SeriesId) {
        let ids = &mut self.by_slot[kind as usize];
        if ids.len() <= slot.0 as usize {
            ids.resize(slot.0 as usize + 1, NO_ID);
        }
        ids[slot.0 as usize] = id.0;
    }

    /// Forgets a slot that was freed.
    pub fn remove(&mut self, kind: Kind, slot: Slot) {
        if let Some(id) = self.by_slot[kind as usize].get_mut(slot.0 as usize) {
            *id = NO_ID;
        }
    }
}

/// One encoded part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedPart {
    /// The slice of all its rows.
    pub slice: Slice,
    /// See [`super::part`].
    pub bytes: Vec<u8>,
    /// How many rows.
    pub rows: u64,
}

/// Buffers whose memory is kept from tick to tick: most ticks have one large part a shard.
const BUFFERS_MAX: usize = 8;
/// A buffer that was hardly used goes back to the allocator when it is larger.
const BUFFER_BYTES_KEPT: usize = 1 << 20;
/// The same of the lists, in slots.
const LISTED_KEPT: usize = 1 << 16;

/// What draining needs beside the combiner, kept from tick to tick. A million series make a part of 20 MB and lists of
/// 12 MB; asked for anew at each tick, the kernel clears their pages each time.
#[derive(Default)]
pub struct Encoder {
    slots: Vec<u32>,
    /// By id.
    pairs: Vec<(SeriesId, u32)>,
    /// Most slots of a kind in this call.
    listed_max: usize,
    buffers: Vec<Vec<u8>>,
}

impl Encoder {
    /// Drains `combiner` into parts (hot slice first, then the others ascending) and its tallies.
    ///
    /// Every touched slot must have an id; pair operations and kept events must have been taken. `resolve` is asked for
    /// every gauge and turns what it saw into sets: it applies relative operations to the stored value (V6).
    ///
    /// # Panics
    /// When a touched slot has no id.
    pub fn encode(
        &mut self,
        combiner: &mut Combiner,
        ids: &IdMap,
        resolve: &mut dyn FnMut(SeriesId, Slot, GaugeSum) -> GaugeSum,
    ) -> (Vec<EncodedPart>, Vec<SourceTally>) {
        let mut parts = Vec::new();
        self.listed_max = 0;
        let mut writer = PartWriter::new(self.buffers.pop().unwrap_or_default());
        self.encode_counters(combiner, ids, &mut writer);
        self.encode_gauges(combiner, ids, resolve, &mut writer);
        self.encode_distributions(combiner, ids, &mut writer);
        let mut sets: Vec<_> = combiner.sets.drain().map(|(slot, set)| (id_of(ids, Kind::Set, slot), set)).collect();
        sets.sort_unstable_by_key(|(id, _)| *id);
        for (id, set) in &sets {
            writer.set(*id, set);
        }
        self.finish(combiner.slice(), writer, &mut parts);
        self.encode_side(combiner, ids, resolve, &mut parts);
        let kept = self.listed_max.saturating_mul(4).max(LISTED_KEPT);
        self.slots.shrink_to(kept);
        self.pairs.shrink_to(kept);
        let tallies = combiner.tallies().to_vec();
        combiner.clear_tallies();
        combiner.has_adjusted = false;
        debug_assert!(combiner.is_empty(), "a drained combiner is empty");
        (parts, tallies)
    }

    /// Takes parts back that nobody needs any more, for their memory.
    pub fn recycle(&mut self, parts: Vec<EncodedPart>) {
        for part in parts {
            let is_wasteful = part.bytes.capacity() > part.bytes.len().saturating_mul(4).max(BUFFER_BYTES_KEPT);
            if self.buffers.len() < BUFFERS_MAX && !is_wasteful {
                self.buffers.push(part.bytes);
            }
        }
        // The largest is taken first.
        self.buffers.sort_unstable_by_key(Vec::capacity);
    }

    /// Lists the touched slots of a kind by id. Slots are mostly given in the order of ids, so the sort usually only
    /// checks.
    fn list(&mut self, ids: &IdMap, kind: Kind, touched: impl FnOnce(&mut Vec<u32>)) {
        self.slots.clear();
        touched(&mut self.slots);
        self.listed_max = self.listed_max.max(self.slots.len());
        self.pairs.clear();
        self.pairs.extend(self.slots.iter().map(|slot| (id_of(ids, kind, *slot), *slot)));
        if !self.pairs.is_sorted() {
            self.pairs.sort_unstable();
        }
    }

    fn encode_counters(&mut self, combiner: &mut Combiner, ids: &IdMap, writer: &mut PartWriter) {
        self.list(ids, Kind::Counter, |slots| combiner.counters.touched(|slot| slots.push(slot)));
        let has_fractions = !combiner.fractions.is_clean();
        for (id, slot) in self.pairs.drain(..) {
            let whole = combiner.counters.take(slot).0;
            let fraction = if has_fractions && combiner.fractions.peek(slot).is_some() {
                combiner.fractions.take(slot).0
            } else {
                0
            };
            let spilled =
                if combiner.spilled.is_empty() { 0 } else { combiner.spilled.remove(&(0, slot)).unwrap_or(0) };
            if fraction == 0 && spilled == 0 && whole >= 0 {
                writer.counter_whole(id, whole as u64);
            } else {
                let nanos = i128::from(whole) * 1_000_000_000 + i128::from(fraction) + spilled;
                writer.counter(id, CounterSum { nanos });
            }
        }
        combiner.counters.finish();
        combiner.fractions.finish();
    }

    fn encode_gauges(
        &mut self,
        combiner: &mut Combiner,
        ids: &IdMap,
        resolve: &mut dyn FnMut(SeriesId, Slot, GaugeSum) -> GaugeSum,
        writer: &mut PartWriter,
    ) {
        self.list(ids, Kind::Gauge, |slots| combiner.gauges.touched(|slot| slots.push(slot)));
        for (id, slot) in self.pairs.drain(..) {
            write_gauge(id, Slot(slot), combiner.gauges.take(slot), resolve, writer);
        }
        combiner.gauges.finish();
    }

    fn encode_distributions(&mut self, combiner: &mut Combiner, ids: &IdMap, writer: &mut PartWriter) {
        let is_plain = combiner.wide.is_empty() && combiner.below.is_empty();
        self.list(ids, Kind::Distribution, |slots| {
            combiner.distributions.touched(|slot| slots.push(slot));
            if !combiner.wide.is_empty() {
                slots.extend(combiner.wide.keys());
                slots.sort_unstable();
                slots.dedup();
            }
        });
        let mut counter = CellCounter::new();
        let mut cells = Vec::new();
        let pairs = &self.pairs;
        for (at, (id, slot)) in pairs.iter().enumerate() {
            if let Some((_, ahead)) = pairs.get(at + 8) {
                combiner.prefetch_distribution(*ahead);
            }
            if let Some((_, ahead)) = pairs.get(at + 4) {
                combiner.prefetch_list(*ahead);
            }
            let touched = combiner.distributions.peek(*slot).is_some_and(|record| record.count > 0);
            let record = if touched { combiner.distributions.take(*slot) } else { DistributionRecord::default() };
            let dense = if combiner.dense.is_empty() { None } else { combiner.dense.remove(slot) };
            counter.count(&record, &combiner.chunks, &combiner.hot, dense.as_ref(), &mut cells);
            let spilled =
                if combiner.spilled.is_empty() { 0 } else { combiner.spilled.remove(&(2, *slot)).unwrap_or(0) };
            let mut row = DistributionRow {
                digits: Digits::Two,
                count: u64::from(record.count),
                weighted: false,
                sum: i128::from(record.sum) + spilled,
                min: record.min,
                max: record.max,
                cells: &cells,
                below: &[],
            };
            if is_plain {
                writer.distribution(*id, &row);
                continue;
            }
            let below = combiner.below.remove(slot).unwrap_or_default();
            row.below = &below;
            match combiner.wide.remove(slot) {
                None => writer.distribution(*id, &row),
                Some(mut wide) => {
                    if record.count > 0 {
                        wide.merge(&row.to_sum());
                    }
                    write_distribution(*id, &wide, &mut Vec::new(), writer);
                }
            }
        }
        combiner.distributions.finish();
        combiner.chunks.reset();
        combiner.hot.reset();
    }

    fn encode_side(
        &mut self,
        combiner: &mut Combiner,
        ids: &IdMap,
        resolve: &mut dyn FnMut(SeriesId, Slot, GaugeSum) -> GaugeSum,
        parts: &mut Vec<EncodedPart>,
    ) {
        let mut slices: BTreeMap<u32, Vec<(Kind, SeriesId, Slot, SideSum)>> = BTreeMap::new();
        for ((slice, code, slot), sum) in combiner.side.drain() {
            let kind = Kind::from_code(code).expect("side keys hold kind codes");
            slices.entry(slice).or_default().push((kind, id_of(ids, kind, slot), Slot(slot), sum));
        }
        for (slice, mut rows) in slices {
            rows.sort_unstable_by_key(|(kind, id, _, _)| (*kind, *id));
            let mut writer = PartWriter::new(self.buffers.pop().unwrap_or_default());
            let mut cells = Vec::new();
            for (_, id, slot, sum) in rows {
                match sum {
                    SideSum::Counter(sum) => writer.counter(id, sum),
                    SideSum::Gauge(record) => write_gauge(id, slot, record, resolve, &mut writer),
                    SideSum::Distribution(sum) => write_distribution(id, &sum, &mut cells, &mut writer),
                    SideSum::Set(distinct) => writer.set(id, &distinct),
                }
            }
            self.finish(Slice(slice), writer, parts);
        }
    }

    fn finish(&mut self, slice: Slice, writer: PartWriter, parts: &mut Vec<EncodedPart>) {
        let rows = writer.rows();
        let bytes = writer.finish();
        if rows > 0 {
            parts.push(EncodedPart { slice, bytes, rows });
        } else {
            self.buffers.push(bytes);
        }
    }
}

impl Combiner {
    /// Every touched (kind, slot) that has no durable id yet: the store resolves them before encoding.
    pub fn unknown_slots(&self, ids: &IdMap) -> Vec<(Kind, Slot)> {
        let mut unknown = Vec::new();
        let mut keep = |kind: Kind, slot: u32| {
            if ids.get(kind, Slot(slot)).is_none() {
                unknown.push((kind, Slot(slot)));
            }
        };
        self.counters.touched(|slot| keep(Kind::Counter, slot));
        self.gauges.touched(|slot| keep(Kind::Gauge, slot));
        self.distributions.touched(|slot| keep(Kind::Distribution, slot));
        self.wide.keys().for_each(|slot| keep(Kind::Distribution, *slot));
        self.sets.keys().for_each(|slot| keep(Kind::Set, *slot));
        for (_, code, slot) in self.side.keys() {
            keep(Kind::from_code(*code).expect("side keys hold kind codes"), *slot);
        }
        for feed in self.pairs.sets.iter().flatten() {
            keep(feed.role.kind(), feed.slot.0);
        }
        unknown.sort_unstable();
        unknown.dedup();
        unknown
    }
}

/// [`Encoder::encode`] with memory of its own.
pub fn encode(
    combiner: &mut Combiner,
    ids: &IdMap,
    resolve: &mut dyn FnMut(SeriesId, Slot, GaugeSum) -> GaugeSum,
) -> (Vec<EncodedPart>, Vec<SourceTally>) {
    Encoder::default().encode(combiner, ids, resolve)
}

fn id_of(ids: &IdMap, kind: Kind, slot: u32) -> SeriesId {
    ids.get(kind, Slot(slot)).expect("unknown slots are resolved before encoding")
}

fn write_gauge(
    id: SeriesId,
    slot: Slot,
    record: GaugeRecord,
    resolve: &mut dyn FnMut(SeriesId, Slot, GaugeSum) -> GaugeSum,
    writer: &mut PartWriter,
) {
    let sum = resolve(id, slot, GaugeSum::from(record));
    if sum.count > 0 {
        writer.gauge(id, &sum);
    }
}

/// Writes an owned aggregate; `cells` is memory to work in.
pub fn write_distribution(id: SeriesId, sum: &DistributionSum, cells: &mut Vec<(i32, u64)>, writer: &mut PartWriter) {
    cells.clear();
    cells.extend(sum.sketch.cells());
    let row = DistributionRow {
        digits: sum.sketch.digits(),
        count: sum.count,
        weighted: sum.weighted,
        sum: sum.sum,
        min: sum.min,
        max: sum.max,
        cells,
        below: &sum.below,
    };
    writer.distribution(id, &row);
}
