//! The table of live series: who has which slot.
//!
//! In: a metric and canonical labels, on a decoder's miss. Out: a [`Slot`], dense per kind. Owns: the only
//! copy of live series' labels in memory. One lock, taken on a miss and by the store for new slots; the
//! hot path never comes here. Invariants: equal (metric, labels) give the same slot; past a limit, of series or of the
//! bytes of their labels, counters, distributions and sets get the metric's overflow series, so that Σ stays exact (S3).

use crate::event::{Kind, Labels, LabelsBuilder, Metric, SeriesId, Slot, series_hash};
use hashbrown::HashTable;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The limits of S3 on live series.
#[derive(Clone, Copy, Debug, Default)]
pub struct TableLimits {
    /// Live series in all, overflow series not counted.
    pub series: u32,
    /// Live series of one metric.
    pub series_per_metric: u32,
}

impl TableLimits {
    /// Bytes that the labels of live series may take in all: [`SERIES_KEY_BYTES`] for each series of the limit. Without
    /// this, 64 labels of 1 KiB each would let a twentieth of the series take all memory that was computed for them.
    pub fn key_bytes(self) -> u64 {
        (u64::from(self.series) * SERIES_KEY_BYTES).max(KEY_BYTES_MIN)
    }

    /// The share of one metric: four times the mean for each of its series, so that one flood leaves room to others.
    pub fn key_bytes_per_metric(self) -> u64 {
        (u64::from(self.series_per_metric) * SERIES_KEY_BYTES * 4).max(KEY_BYTES_MIN).min(self.key_bytes())
    }
}

/// Bytes of labels that a live series may have in the mean; ten labels of 8 and 16 bytes are 270.
pub const SERIES_KEY_BYTES: u64 = 280;

/// However few series there may be, a dozen of the longest labels are let in.
const KEY_BYTES_MIN: u64 = 1 << 20;

/// What the labels of a series take: their bytes with the counts in front, as the allocator rounds them.
fn key_bytes(labels: &Labels) -> u64 {
    (labels.as_bytes().len() as u64 + 16).next_multiple_of(16)
}

/// Which limit a new series met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// The number of series, in all or of its metric.
    Series,
    /// The bytes of their labels, in all or of its metric.
    KeyBytes,
}

/// A metric that met a limit.
#[derive(Clone, Debug)]
pub struct Overflowed {
    /// The metric.
    pub metric: Arc<Metric>,
    /// Resolutions that were refused a series.
    pub count: u64,
    /// What the last of them met.
    pub limit: Limit,
    /// That was the limit of all series together, and the metric was below its own.
    pub is_shared: bool,
}

/// What a metric has in the table.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    series: u32,
    key_bytes: u64,
    /// Its place in `overflowed`, once it met a limit: past one every sample comes here.
    overflowed: Option<u32>,
}

/// What a metric and labels became.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interned {
    /// A series of its own.
    Slot(Slot),
    /// The metric's overflow series; the verdict must not be cached (S3).
    Overflow(Slot),
    /// Past the limit a gauge is dropped.
    Refused,
}

/// One live series.
pub struct SeriesEntry {
    /// Its durable identity (S1).
    pub hash: u128,
    /// Its family.
    pub metric: Arc<Metric>,
    /// Its labels, constant labels included.
    pub labels: Labels,
    /// Its place.
    pub slot: Slot,
    /// Its durable number, once the store has given it one.
    pub id: Option<SeriesId>,
    /// Handles and declared series keep it in memory however long it is idle.
    pub pins: u32,
    /// Chosen to leave memory; asking for it again cancels that.
    is_retiring: bool,
    is_overflow: bool,
}

/// Tables of the index; a power of two. The upper bits of a hash choose one.
const INDEX_TABLES: usize = 1024;

/// The table of the index that a hash belongs to.
fn table_of(hash: u128) -> usize {
    (hash >> (128 - INDEX_TABLES.ilog2())) as usize
}

/// Entries by slot, in segments: nothing moves when it grows, and a million entries need no million allocations.
#[derive(Default)]
struct Entries(Vec<Vec<Option<SeriesEntry>>>);

const SEGMENT_LEN: usize = 1024;

impl Entries {
    fn len(&self) -> usize {
        self.0.last().map_or(0, |last| (self.0.len() - 1) * SEGMENT_LEN + last.len())
    }

    fn get(&self, slot: u32) -> Option<&SeriesEntry> {
        self.0.get(slot as usize / SEGMENT_LEN)?.get(slot as usize % SEGMENT_LEN)?.as_ref()
    }

    /// The place of a slot that was given out once.
    fn place(&mut self, slot: u32) -> Option<&mut Option<SeriesEntry>> {
        self.0.get_mut(slot as usize / SEGMENT_LEN)?.get_mut(slot as usize % SEGMENT_LEN)
    }

    fn push(&mut self, entry: SeriesEntry) {
        match self.0.last_mut() {
            Some(last) if last.len() < SEGMENT_LEN => last.push(Some(entry)),
            _ => {
                let mut segment = Vec::with_capacity(SEGMENT_LEN);
                segment.push(Some(entry));
                self.0.push(segment);
            }
        }
    }

    fn iter(&self) -> impl Iterator<Item = &SeriesEntry> {
        self.0.iter().flatten().flatten()
    }

    fn heap_bytes(&self) -> usize {
        self.0.len() * SEGMENT_LEN * size_of::<Option<SeriesEntry>>()
    }
}

#[derive(Default)]
struct Inner {
    /// (kind, slot) by durable hash, in [`INDEX_TABLES`] small tables: one that doubles holds a decoder up
    /// for some microseconds, where a single table of a million entries took 150 ms.
    index: Box<[HashTable<(Kind, u32)>]>,
    by_slot: [Entries; Kind::ALL.len()],
    free: [Vec<u32>; Kind::ALL.len()],
    per_metric: Vec<Share>,
    live: u32,
    /// Of the labels of live series.
    key_bytes: u64,
    /// Metrics that met a limit, with how many samples asked in vain.
    overflowed: Vec<Overflowed>,
    constant_labels: Labels,
    limits: TableLimits,
    /// What metrics are called now whose series were retired, by number (R2).
    retired: HashMap<u32, Arc<Metric>>,
}

impl Inner {
    fn share(&mut self, metric: &Metric) -> &mut Share {
        let at = metric.id.0 as usize;
        if self.per_metric.len() <= at {
            self.per_metric.resize(at + 1, Share::default());
        }
        &mut self.per_metric[at]
    }
}

/// The table; cheap to share, one lock inside.
pub struct SeriesTable {
    inner: Mutex<Inner>,
}

impl SeriesTable {
    /// An empty table. `constant_labels` are the only labels of an overflow series beside `overflow`.
    pub fn new(limits: TableLimits, constant_labels: Labels) -> SeriesTable {
        let index = std::iter::repeat_with(HashTable::new).take(INDEX_TABLES).collect();
        SeriesTable { inner: Mutex::new(Inner { index, constant_labels, limits, ..Inner::default() }) }
    }

    /// The lock. A panic while it was held cannot have left an entry half written, so poison is entered.
    pub fn lock(&self) -> SeriesTableGuard<'_> {
        SeriesTableGuard { inner: self.inner.lock().unwrap_or_else(PoisonError::into_inner) }
    }

    /// The slot of a series, given one if it is new.
    pub fn intern(&self, metric: &Arc<Metric>, labels: &Labels) -> Interned {
        self.lock().intern(metric, labels)
    }

    /// As [`intern`](Self::intern), and keeps the series in memory until it is unpinned as often.
    pub fn intern_pinned(&self, metric: &Arc<Metric>, labels: &Labels) -> Interned {
        let mut guard = self.lock();
        let interned = guard.intern(metric, labels);
        if let Interned::Slot(slot) | Interned::Overflow(slot) = interned
            && let Some(entry) = guard.get_mut(metric.kind, slot)
        {
            entry.pins += 1;
        }
        interned
    }

    /// The slot of one of the pipeline's own series, for good and past every limit: their number is bounded by the
    /// code that names them, and the laws have to be told when a limit is reached more than ever.
    pub fn intern_own(&self, metric: &Arc<Metric>, labels: &Labels) -> Slot {
        let mut guard = self.lock();
        let hash = series_hash(metric.kind, &metric.name, labels);
        let slot = match guard.find(hash) {
            Some(slot) => slot,
            None => guard.insert(metric, labels.clone(), hash, false),
        };
        guard.get_mut(metric.kind, slot).expect("it was found or inserted").pins += 1;
        slot
    }

    /// Other limits, for series that are not there yet.
    pub fn set_limits(&self, limits: TableLimits) {
        self.lock().inner.limits = limits;
    }

    /// The series of a metric, those there are and those still to come, belong to `to` from here on: the same metric under
    /// another name. Whoever has their slots goes on using them (R2).
    ///
    /// # Panics
    /// When `to` has another number or kind: bad code.
    pub fn retire_metric(&self, to: &Arc<Metric>) {
        let mut guard = self.lock();
        let inner = &mut *guard.inner;
        inner.retired.insert(to.id.0, Arc::clone(to));
        let entries = &mut inner.by_slot[to.kind as usize];
        let of_metric = entries.iter().filter(|entry| entry.metric.id == to.id);
        let slots: Vec<(u32, u128)> = of_metric.map(|entry| (entry.slot.0, entry.hash)).collect();
        for (slot, old) in slots {
            if let Ok(found) = inner.index[table_of(old)].find_entry(old as u64, |key| *key == (to.kind, slot)) {
                found.remove();
            }
            let entries = &mut inner.by_slot[to.kind as usize];
            let entry = entries.place(slot).and_then(Option::as_mut).expect("it was just seen");
            assert_eq!(entry.metric.kind, to.kind, "a number has one kind");
            entry.metric = Arc::clone(to);
            entry.hash = series_hash(to.kind, &to.name, &entry.labels);
            let hash = entry.hash;
            let by_slot = &inner.by_slot;
            inner.index[table_of(hash)].insert_unique(hash as u64, (to.kind, slot), |(kind, slot)| {
                by_slot[*kind as usize].get(*slot).map_or(0, |entry| entry.hash as u64)
            });
        }
    }

    /// Undoes one [`intern_pinned`](Self::intern_pinned).
    pub fn unpin(&self, kind: Kind, slot: Slot) {
        if let Some(entry) = self.lock().get_mut(kind, slot) {
            entry.pins = entry.pins.saturating_sub(1);
        }
    }
}

/// The table while it is locked.
pub struct SeriesTableGuard<'a> {
    inner: MutexGuard<'a, Inner>,
}

impl SeriesTableGuard<'_> {
    /// See [`SeriesTable::intern`].
    pub fn intern(&mut self, metric: &Arc<Metric>, labels: &Labels) -> Interned {
        let renamed = if self.inner.retired.is_empty() { None } else { self.inner.retired.get(&metric.id.0).cloned() };
        let metric = renamed.as_ref().unwrap_or(metric);
        let hash = series_hash(metric.kind, &metric.name, labels);
        if let Some(slot) = self.find(hash) {
            return Interned::Slot(slot);
        }
        if let Some((limit, is_shared)) = self.limit_met(metric, labels) {
            return self.overflow(metric, limit, is_shared);
        }
        Interned::Slot(self.insert(metric, labels.clone(), hash, false))
    }

    /// The limit that one more series of these labels would pass, and whether it is that of all metrics together.
    fn limit_met(&self, metric: &Metric, labels: &Labels) -> Option<(Limit, bool)> {
        let of_metric = self.inner.per_metric.get(metric.id.0 as usize).copied().unwrap_or_default();
        let (limits, more) = (&self.inner.limits, key_bytes(labels));
        if of_metric.series >= limits.series_per_metric {
            return Some((Limit::Series, false));
        }
        if self.inner.live >= limits.series {
            return Some((Limit::Series, true));
        }
        if of_metric.key_bytes + more > limits.key_bytes_per_metric() {
            return Some((Limit::KeyBytes, false));
        }
        (self.inner.key_bytes + more > limits.key_bytes()).then_some((Limit::KeyBytes, true))
    }

    fn find(&mut self, hash: u128) -> Option<Slot> {
        let inner = &mut *self.inner;
        let (kind, slot) = *inner.index[table_of(hash)].find(hash as u64, |(kind, slot)| {
            inner.by_slot[*kind as usize].get(*slot).is_some_and(|entry| entry.hash == hash)
        })?;
        let entry = inner.by_slot[kind as usize].place(slot).and_then(Option::as_mut).expect("indexed entries exist");
        entry.is_retiring = false;
        Some(Slot(slot))
    }

    fn insert(&mut self, metric: &Arc<Metric>, labels: Labels, hash: u128, is_overflow: bool) -> Slot {
        let inner = &mut *self.inner;
        let kind = metric.kind;
        let key_bytes = key_bytes(&labels);
        let slot = inner.free[kind as usize].pop().unwrap_or(inner.by_slot[kind as usize].len() as u32);
        let entry = SeriesEntry {
            hash,
            metric: Arc::clone(metric),
            labels,
            slot: Slot(slot),
            id: None,
            pins: 0,
            is_retiring: false,
            is_overflow,
        };
        let entries = &mut inner.by_slot[kind as usize];
        match entries.place(slot) {
            Some(place) => *place = Some(entry),
            None => entries.push(entry),
        }
        let by_slot = &inner.by_slot;
        inner.index[table_of(hash)].insert_unique(hash as u64, (kind, slot), |(kind, slot)| {
            by_slot[*kind as usize].get(*slot).map_or(0, |entry| entry.hash as u64)
        });
        if !is_overflow {
            let share = inner.share(metric);
            share.series += 1;
            share.key_bytes += key_bytes;
            inner.live += 1;
            inner.key_bytes += key_bytes;
        }
        Slot(slot)
    }

    #[cold]
    fn overflow(&mut self, metric: &Arc<Metric>, limit: Limit, is_shared: bool) -> Interned {
        let inner = &mut *self.inner;
        let next = inner.overflowed.len() as u32;
        let share = inner.share(metric);
        match share.overflowed {
            Some(at) => {
                let known = &mut inner.overflowed[at as usize];
                (known.count, known.limit, known.is_shared) = (known.count + 1, limit, is_shared);
            }
            None => {
                share.overflowed = Some(next);
                inner.overflowed.push(Overflowed { metric: Arc::clone(metric), count: 1, limit, is_shared });
            }
        }
        if metric.kind == Kind::Gauge {
            return Interned::Refused;
        }
        let mut builder = LabelsBuilder::new();
        for (key, value) in self.inner.constant_labels.iter() {
            builder.push(key, value);
        }
        builder.push("overflow", "true");
        let labels = builder.build_reserved().expect("constant labels were checked by the plan");
        let hash = series_hash(metric.kind, &metric.name, &labels);
        let slot = self.find(hash).unwrap_or_else(|| self.insert(metric, labels, hash, true));
        Interned::Overflow(slot)
    }

    /// A live series.
    pub fn get(&self, kind: Kind, slot: Slot) -> Option<&SeriesEntry> {
        self.inner.by_slot[kind as usize].get(slot.0)
    }

    /// The live series of a kind.
    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &SeriesEntry> {
        self.inner.by_slot[kind as usize].iter()
    }

    /// True while a series is chosen to leave memory and nobody asked for it since.
    pub fn is_retiring(&self, kind: Kind, slot: Slot) -> bool {
        self.get(kind, slot).is_none_or(|entry| entry.is_retiring)
    }

    /// A live series, to note its durable id or its pins.
    pub fn get_mut(&mut self, kind: Kind, slot: Slot) -> Option<&mut SeriesEntry> {
        self.inner.by_slot[kind as usize].place(slot.0)?.as_mut()
    }

    /// The slot of a series that is in memory, without making one.
    pub fn lookup(&self, metric: &Metric, labels: &Labels) -> Option<Slot> {
        let hash = series_hash(metric.kind, &metric.name, labels);
        let inner = &*self.inner;
        let found = inner.index[table_of(hash)].find(hash as u64, |(kind, slot)| {
            inner.by_slot[*kind as usize].get(*slot).is_some_and(|entry| entry.hash == hash)
        })?;
        Some(Slot(found.1))
    }

    /// Live series, overflow series not counted.
    pub fn live(&self) -> u32 {
        self.inner.live
    }

    /// Bytes of the labels of live series; at most [`TableLimits::key_bytes`], the pipeline's own series apart.
    pub fn key_bytes(&self) -> u64 {
        self.inner.key_bytes
    }

    /// Metrics that met a limit, and how many resolutions each was refused.
    pub fn overflowed(&self) -> &[Overflowed] {
        &self.inner.overflowed
    }

    /// The metric that has the most of what a limit counts, live series or bytes of their labels, and how many.
    pub fn greediest(&self, limit: Limit) -> Option<(Arc<Metric>, u64)> {
        let of = |share: &Share| match limit {
            Limit::Series => u64::from(share.series),
            Limit::KeyBytes => share.key_bytes,
        };
        let (id, most) = self.inner.per_metric.iter().map(of).enumerate().max_by_key(|(_, most)| *most)?;
        let mut entries = self.inner.by_slot.iter().flat_map(|entries| entries.iter());
        let entry = entries.find(|entry| entry.metric.id.0 as usize == id && !entry.is_overflow)?;
        Some((Arc::clone(&entry.metric), most))
    }

    /// The label of a metric with the most distinct values: the culprit of an overflow. Looks at the first
    /// 100,000 series of the metric, so that asking is cheap whatever the limit.
    pub fn widest_label(&self, metric: &Metric) -> Option<String> {
        let mut values: HashMap<&str, HashSet<&str>> = HashMap::new();
        let entries = self.inner.by_slot[metric.kind as usize].iter();
        // The overflow series itself says nothing about where series come from.
        let is_counted = |entry: &&SeriesEntry| entry.metric.id == metric.id && !entry.is_overflow;
        for entry in entries.filter(is_counted).take(100_000) {
            for (key, value) in entry.labels.iter() {
                values.entry(key).or_default().insert(value);
            }
        }
        values
            .into_iter()
            .max_by_key(|(key, seen)| (seen.len(), std::cmp::Reverse(*key)))
            .map(|(key, _)| key.to_owned())
    }

    /// The label of a metric whose values take the most bytes: the culprit when those met a limit. Looks no further than
    /// [`widest_label`](Self::widest_label).
    pub fn longest_label(&self, metric: &Metric) -> Option<String> {
        let mut bytes: HashMap<&str, usize> = HashMap::new();
        let entries = self.inner.by_slot[metric.kind as usize].iter();
        let is_counted = |entry: &&SeriesEntry| entry.metric.id == metric.id && !entry.is_overflow;
        for entry in entries.filter(is_counted).take(100_000) {
            for (key, value) in entry.labels.iter() {
                *bytes.entry(key).or_default() += key.len() + value.len();
            }
        }
        bytes.into_iter().max_by_key(|(key, bytes)| (*bytes, std::cmp::Reverse(*key))).map(|(key, _)| key.to_owned())
    }

    /// First half of leaving memory (S2): marks idle series. Asking for one again before
    /// [`retire`](Self::retire) cancels it. Returns what was marked.
    pub fn mark_retiring(&mut self, idle: impl IntoIterator<Item = (Kind, Slot)>) -> Vec<(Kind, Slot)> {
        let mut marked = Vec::new();
        for (kind, slot) in idle {
            if let Some(entry) = self.get_mut(kind, slot)
                && entry.pins == 0
                && !entry.is_overflow
            {
                entry.is_retiring = true;
                marked.push((kind, slot));
            }
        }
        marked
    }

    /// Second half, once no decoder's cache and no combiner can name the slots any more: frees those that
    /// nobody asked for since. Returns what was freed, with its durable id.
    pub fn retire(&mut self, marked: &[(Kind, Slot)]) -> Vec<(Kind, Slot, Option<SeriesId>)> {
        let mut freed = Vec::new();
        for (kind, slot) in marked {
            let inner = &mut *self.inner;
            let Some(place) = inner.by_slot[*kind as usize].place(slot.0) else { continue };
            if !place.as_ref().is_some_and(|entry| entry.is_retiring && entry.pins == 0) {
                continue;
            }
            let entry = place.take().expect("checked above");
            if let Ok(found) =
                inner.index[table_of(entry.hash)].find_entry(entry.hash as u64, |key| *key == (*kind, slot.0))
            {
                found.remove();
            }
            inner.free[*kind as usize].push(slot.0);
            let (share, key_bytes) = (&mut inner.per_metric[entry.metric.id.0 as usize], key_bytes(&entry.labels));
            share.series -= 1;
            share.key_bytes -= key_bytes;
            inner.live -= 1;
            inner.key_bytes -= key_bytes;
            freed.push((*kind, *slot, entry.id));
        }
        freed
    }

    /// Heap bytes, about.
    pub fn heap_bytes(&self) -> usize {
        let entries: usize = self.inner.by_slot.iter().map(Entries::heap_bytes).sum();
        let places: usize = self.inner.index.iter().map(HashTable::capacity).sum();
        entries + self.inner.key_bytes as usize + places * 9
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::metric;
    use super::*;

    fn labels(value: &str) -> Labels {
        let mut builder = LabelsBuilder::new();
        builder.push("k", value);
        builder.build().expect("valid")
    }

    #[test]
    fn s1_equal_series_share_a_slot_and_slots_are_dense() {
        let table = SeriesTable::new(TableLimits { series: 10, series_per_metric: 10 }, Labels::empty());
        let counter = metric(0, "a_total", Kind::Counter);
        let first = table.intern(&counter, &labels("1"));
        assert_eq!(first, Interned::Slot(Slot(0)));
        assert_eq!(table.intern(&counter, &labels("2")), Interned::Slot(Slot(1)));
        assert_eq!(table.intern(&counter, &labels("1")), first);
        assert_eq!(table.lock().live(), 2);
    }

    #[test]
    fn s3_past_a_limit_sums_go_to_overflow_and_gauges_are_refused() {
        let table = SeriesTable::new(TableLimits { series: 3, series_per_metric: 2 }, Labels::empty());
        let counter = metric(0, "a_total", Kind::Counter);
        let gauge = metric(1, "g", Kind::Gauge);
        for value in ["1", "2"] {
            assert!(matches!(table.intern(&counter, &labels(value)), Interned::Slot(_)));
        }
        let Interned::Overflow(slot) = table.intern(&counter, &labels("3")) else { panic!("over the metric's limit") };
        assert_eq!(table.intern(&counter, &labels("4")), Interned::Overflow(slot));
        assert_eq!(table.lock().get(Kind::Counter, slot).expect("live").labels.get("overflow"), Some("true"));
        assert!(matches!(table.intern(&gauge, &labels("1")), Interned::Slot(_)));
        assert_eq!(table.intern(&gauge, &labels("2")), Interned::Refused);
        assert_eq!(table.lock().overflowed().iter().map(|known| known.count).sum::<u64>(), 3);
    }

    #[test]
    fn s3_the_bytes_of_labels_are_a_limit_too_and_come_back() {
        let limits = TableLimits { series: 40_000, series_per_metric: 1000 };
        let table = SeriesTable::new(limits, Labels::empty());
        let attacked = metric(0, "a_total", Kind::Counter);
        let long = |metric: &Arc<Metric>, n: u32| {
            let mut builder = LabelsBuilder::new();
            for key in 0..60 {
                builder.push(format!("k{key}"), format!("{n:0>1000}"));
            }
            table.intern(metric, &builder.build().expect("valid"))
        };
        let mut kept = Vec::new();
        for n in 0..100 {
            if let Interned::Slot(slot) = long(&attacked, n) {
                kept.push((Kind::Counter, slot));
            }
        }
        // 1000 × 4 × 280 B for the metric, about 60.3 kB each.
        assert_eq!(kept.len(), 18);
        assert!(table.lock().key_bytes() <= limits.key_bytes_per_metric());
        let overflowed = table.lock().overflowed()[0].clone();
        assert_eq!((overflowed.count, overflowed.limit), (82, Limit::KeyBytes));
        assert_eq!(table.lock().longest_label(&attacked).as_deref(), Some("k10"));
        // Others have their share, and all together no more than what was computed.
        assert!(matches!(table.intern(&metric(1, "b_total", Kind::Counter), &labels("1")), Interned::Slot(_)));
        for n in 0..100 {
            for other in 2..40 {
                long(&metric(other, &format!("m{other}_total"), Kind::Counter), n);
            }
        }
        // However their samples mix, each metric stands there once, with its own count.
        let known: Vec<(u32, u64)> =
            table.lock().overflowed().iter().map(|known| (known.metric.id.0, known.count)).collect();
        let of = |id: u32| known.iter().filter(|(known, _)| *known == id).map(|(_, count)| *count).collect::<Vec<_>>();
        let taken = table.lock().of_kind(Kind::Counter).filter(|e| e.metric.id.0 >= 2 && !e.is_overflow).count();
        let refused = 38 * 100 - taken as u64;
        assert_eq!(of(0), [82]);
        assert_eq!(known.iter().map(|(_, count)| count).sum::<u64>(), 82 + refused);
        assert!((2..40).all(|id| of(id).len() == 1), "{known:?}");
        assert!(table.lock().key_bytes() <= limits.key_bytes());
        assert!(table.lock().key_bytes() > limits.key_bytes() - 70_000);
        let before = table.lock().key_bytes();
        let marked = table.lock().mark_retiring(kept.iter().copied());
        assert_eq!(table.lock().retire(&marked).len(), 18);
        assert!(table.lock().key_bytes() < before - 1_000_000);
        assert!(matches!(long(&attacked, 99), Interned::Slot(_)));
    }

    #[test]
    fn s2_a_retired_slot_is_reused_unless_somebody_asked_for_it() {
        let table = SeriesTable::new(TableLimits { series: 10, series_per_metric: 10 }, Labels::empty());
        let counter = metric(0, "a_total", Kind::Counter);
        let Interned::Slot(idle) = table.intern(&counter, &labels("idle")) else { panic!("a slot") };
        let Interned::Slot(back) = table.intern(&counter, &labels("back")) else { panic!("a slot") };
        let marked = table.lock().mark_retiring([(Kind::Counter, idle), (Kind::Counter, back)]);
        table.intern(&counter, &labels("back"));
        let freed = table.lock().retire(&marked);
        assert_eq!(freed, vec![(Kind::Counter, idle, None)]);
        assert_eq!(table.intern(&counter, &labels("new")), Interned::Slot(idle));
    }
}
