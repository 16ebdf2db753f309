//! The decoder: raw buffers of lines → samples in a combiner. The hot path of the whole program.
//!
//! In: whole buffers. Out: records, and a tally. Owns: the key cache. Invariants: every line is counted
//! once, as an event or as a refusal with its reason; nothing allocates for a key seen before.
//!
//! A line passes five steps, each [`STEP`] lines behind the one before and prefetching for the next: parse and hash |
//! table place | key and record | verify, chunk tail | add. At a million series that is 61–65 ns a line instead of 223.

mod events;
mod mapped;
mod other;
mod sample;
mod tapped;
mod traced;
mod typed;
mod values;

pub use events::{EventsVerdict, RefusedEvent};
pub use typed::{JsonOptions, OwnedEvent};

use super::ShardReload;
use super::acceptance::Acceptance;
use super::cache::{Entry, KeyCache, Meta, Probe};
use super::recent::{Allowance, RecentRejects};
use super::tap::Watcher;
use crate::codec::dogstatsd::{self, Line, Parsed, key_hash};
use crate::codec::number::Number;
use crate::delta::{BucketRule, Combiner, Edge, Interned, SeriesTable, SourceTally};
use crate::event::{
    DropReason, Group, Kind, Metric, MetricId, RejectReason, Slice, Slot, SourceIndex, Timestamp, WEIGHT_ONE,
};
use crate::rule::typed::Amount;
use crate::rule::{CLIENT_TELEMETRY, Resolved, Rules};
use crate::sketch::{layout, member_hash};
use arrayvec::ArrayVec;
use mapped::MappedCaches;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use typed::TypedState;

/// How many lines a step is behind the one before: their work hides what memory takes to answer a prefetch.
const STEP: usize = 8;
/// Lines in flight: parsed and not yet added.
const FLIGHT: usize = 4 * STEP;

/// Where a buffer comes from.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    /// Which source.
    pub source: SourceIndex,
    /// Which reader of the process: orders gauges that were set at the same moment (V6).
    pub reader: u16,
}

/// What one line became, for whoever sent it and asks.
#[derive(Clone, Debug)]
pub enum LineOutcome {
    /// It was understood.
    Accepted {
        /// The family.
        metric: Arc<Metric>,
        /// The series; `None` when the sample was dropped afterwards (see `dropped`).
        slot: Option<Slot>,
        /// Samples in the line.
        samples: u32,
        /// Why they were dropped.
        dropped: Option<DropReason>,
        /// The value; `None` for a line, which may pack several.
        recorded: Option<(Amount, u64, Timestamp)>,
    },
    /// An event: counted, nothing to show.
    Notice,
    /// It was refused; of a JSON event, which event and field it is about, where known.
    Refused(RejectReason, String),
}

/// What a line was recorded as.
struct Applied {
    meta: Meta,
    slot: Option<Slot>,
    /// Known when the line was resolved anew.
    metric: Option<Arc<Metric>>,
    samples: u32,
}

struct Staged<'a> {
    line: Line<'a>,
    hash: u64,
    candidate: Option<(Entry, Probe)>,
}

/// The lines in flight, the newest last, in a ring: a step finds what the step before left.
struct Flight<'a> {
    lines: ArrayVec<Staged<'a>, FLIGHT>,
    parsed: usize,
}

impl<'a> Flight<'a> {
    /// Returns the index of the line.
    #[inline(always)]
    fn push(&mut self, staged: Staged<'a>) -> usize {
        let index = self.parsed;
        if index < FLIGHT {
            self.lines.push(staged);
        } else {
            self.lines[index % FLIGHT] = staged;
        }
        self.parsed += 1;
        index
    }

    #[inline(always)]
    fn at(&mut self, index: usize) -> &mut Staged<'a> {
        &mut self.lines[index % FLIGHT]
    }
}

/// Decodes for one shard.
pub struct Decoder {
    rules: Arc<Rules>,
    table: Arc<SeriesTable>,
    recent: Arc<RecentRejects>,
    acceptance: Acceptance,
    cache: KeyCache,
    cache_bytes: usize,
    /// The caches of other mappings than the selected one: equal bytes may come to other series by another mapping.
    caches: MappedCaches,
    /// Bounds of the slots that have declared buckets.
    bucket_rules: HashMap<u32, Arc<BucketRule>, foldhash::fast::FixedState>,
    allowance: Allowance,
    notice_allowance: Allowance,
    /// The metrics of slots whose lines bring tags that are dropped.
    shortened: HashMap<(u8, u32), MetricId, foldhash::fast::FixedState>,
    /// Of the last gauge that was set.
    position: u64,
    /// The slice of the last arrival, and the times it holds.
    open: (Slice, Range<Timestamp>),
    typed: TypedState,
    /// What it knows of the open taps; taken out while a batch is shown to them.
    watcher: Option<Box<Watcher>>,
}

/// The state of one call: everything that is the same for all its lines.
struct Batch<'c> {
    combiner: &'c mut Combiner,
    origin: Origin,
    arrival: Timestamp,
    slice: Slice,
    /// True when the arrival's slice is the combiner's: then records need no slice.
    is_hot: bool,
    /// Whose tally the rare cases go to: the origin's, but for what clients say of themselves.
    counted: SourceIndex,
    /// Lines of the common case, by kind: one event and one recorded sample each. A whole tally would cost
    /// more to clear than a datagram of one line to decode.
    plain: [u64; Kind::ALL.len()],
}

impl Batch<'_> {
    fn tally(&mut self) -> &mut SourceTally {
        self.combiner.tally(self.counted)
    }

    /// Adds the common case to the tally.
    fn finish(self) {
        let lines = self.plain.iter().sum::<u64>();
        if lines > 0 {
            let tally = self.combiner.tally(self.origin.source);
            tally.inputs += lines;
            tally.events += lines;
            for (kind, count) in self.plain.into_iter().enumerate() {
                tally.samples[kind] += count;
                tally.recorded[kind] += count;
            }
        }
    }
}

impl Decoder {
    /// A decoder with an empty cache. `seed` keys its hash against chosen collisions; `cache_bytes`
    /// bounds the raw text it keeps.
    pub fn new(
        rules: Arc<Rules>,
        table: Arc<SeriesTable>,
        recent: Arc<RecentRejects>,
        acceptance: Acceptance,
        seed: u64,
        cache_bytes: usize,
    ) -> Decoder {
        Decoder {
            typed: TypedState::new(Arc::clone(&rules)),
            acceptance,
            caches: MappedCaches::new(&rules, seed, cache_bytes),
            cache: KeyCache::new(seed, cache_bytes),
            cache_bytes,
            bucket_rules: HashMap::default(),
            allowance: Allowance::default(),
            notice_allowance: Allowance::default(),
            shortened: HashMap::default(),
            position: 0,
            open: (Slice(0), Timestamp(0)..Timestamp(0)),
            watcher: Some(Box::new(Watcher::new(seed))),
            rules,
            table,
            recent,
        }
    }

    /// Other rules take over, between two batches: what was resolved by the old ones is forgotten.
    pub fn reload(&mut self, reload: ShardReload) {
        let ShardReload { rules, bounds, json, acceptance, cache_bytes } = reload;
        let seed = self.cache.seed();
        self.cache_bytes = cache_bytes;
        self.cache = KeyCache::new(seed, cache_bytes);
        self.caches = MappedCaches::new(&rules, seed, cache_bytes);
        self.shortened.clear();
        self.forget_verdicts();
        self.typed.reload(Arc::clone(&rules));
        self.set_json_options(json);
        self.acceptance = acceptance;
        self.rules = rules;
        for (slot, rule) in bounds.iter() {
            match rule {
                Some(rule) => drop(self.bucket_rules.insert(slot.0, Arc::clone(rule))),
                None => drop(self.bucket_rules.remove(&slot.0)),
            }
        }
    }

    /// Heap bytes of the cache, about.
    pub fn heap_bytes(&self) -> usize {
        self.cache.heap_bytes() + self.caches.heap_bytes()
    }

    /// Keys cached.
    pub fn cached_keys(&self) -> usize {
        self.cache.len() + self.caches.len()
    }

    /// The table it resolves into.
    pub(super) fn table(&self) -> &Arc<SeriesTable> {
        &self.table
    }

    /// The times it decides by.
    pub fn acceptance(&self) -> Acceptance {
        self.acceptance
    }

    /// Decodes a buffer of lines into `combiner`.
    pub fn ingest(&mut self, combiner: &mut Combiner, origin: Origin, payload: &[u8], arrival: Timestamp) {
        if self.is_tapped() {
            return self.ingest_tapped(combiner, origin, payload, arrival);
        }
        self.ingest_lines(combiner, origin, payload, arrival);
    }

    #[inline]
    fn ingest_lines(&mut self, combiner: &mut Combiner, origin: Origin, payload: &[u8], arrival: Timestamp) {
        let mut batch = self.batch(combiner, origin, arrival);
        let mut at = 0;
        let mut flight = Flight { lines: ArrayVec::new(), parsed: 0 };
        loop {
            match dogstatsd::parse_next(payload, &mut at) {
                Some(Ok(Parsed::Sample(line))) => {
                    let hash = key_hash(line.name, line.wire, line.tags, self.cache.seed());
                    self.cache.prefetch_place(hash);
                    let parsed = flight.push(Staged { line, hash, candidate: None });
                    // One line a step, so that prefetches come one by one: a burst is more than a core keeps in flight.
                    if parsed >= STEP {
                        self.find(&batch, flight.at(parsed - STEP));
                    }
                    if parsed >= 2 * STEP {
                        self.verify(&batch, flight.at(parsed - 2 * STEP));
                    }
                    if parsed >= 3 * STEP {
                        self.add(&mut batch, flight.at(parsed - 3 * STEP));
                        if self.cache.take_forgotten() {
                            flight.lines.iter_mut().for_each(|staged| staged.candidate = None);
                        }
                    }
                }
                Some(other) => {
                    // Order matters between lines of one series, so what is in flight goes first.
                    self.land(&mut batch, &mut flight);
                    self.apply_other(&mut batch, other);
                }
                None => break,
            }
        }
        self.land(&mut batch, &mut flight);
        batch.finish();
    }

    fn batch<'c>(&mut self, combiner: &'c mut Combiner, origin: Origin, arrival: Timestamp) -> Batch<'c> {
        self.caches.select(&mut self.cache, origin.source);
        let slice = self.slice_of(arrival);
        let is_hot = slice == combiner.slice();
        Batch { combiner, origin, arrival, slice, is_hot, counted: origin.source, plain: [0; Kind::ALL.len()] }
    }

    /// The slice of an arrival: mostly that of the one before, and a comparison is cheaper than a division.
    #[inline]
    pub(super) fn slice_of(&mut self, arrival: Timestamp) -> Slice {
        if !self.open.1.contains(&arrival) {
            let width = self.acceptance.slice;
            let slice = width.slice_of(arrival);
            self.open = (slice, width.start(slice)..width.end(slice));
        }
        self.open.0
    }

    /// The steps that are left, for every line in flight.
    fn land(&mut self, batch: &mut Batch<'_>, flight: &mut Flight<'_>) {
        let parsed = flight.parsed;
        for index in parsed.saturating_sub(STEP)..parsed {
            self.find(batch, flight.at(index));
        }
        for index in parsed.saturating_sub(2 * STEP)..parsed {
            self.verify(batch, flight.at(index));
        }
        for index in parsed.saturating_sub(3 * STEP)..parsed {
            self.add(batch, flight.at(index));
        }
        flight.lines.clear();
        flight.parsed = 0;
    }

    /// The second step: a line's place in the table, which says where its key and its record are.
    #[inline(always)]
    fn find(&self, batch: &Batch<'_>, staged: &mut Staged<'_>) {
        staged.candidate = self.cache.candidate(staged.hash);
        if let Some((entry, _)) = &staged.candidate {
            self.cache.prefetch_key(entry);
            match entry.meta.kind() {
                Kind::Counter => batch.combiner.prefetch_counter(entry.slot().0),
                Kind::Gauge => batch.combiner.prefetch_gauge(entry.slot().0),
                Kind::Distribution => batch.combiner.prefetch_distribution(entry.slot().0),
                Kind::Set => {}
            }
        }
    }

    /// The third: is that the line's key?
    #[inline(always)]
    fn verify(&self, batch: &Batch<'_>, staged: &mut Staged<'_>) {
        let Some(candidate) = staged.candidate else { return };
        let line = &staged.line;
        let found = self.cache.verify(staged.hash, candidate, line.name, line.wire, line.tags);
        if let Some(entry) = &found
            && entry.meta.kind() == Kind::Distribution
        {
            batch.combiner.prefetch_tail(entry.slot().0);
        }
        staged.candidate = found.map(|entry| (entry, candidate.1));
    }

    /// The last: adds its samples.
    #[inline(always)]
    fn add(&mut self, batch: &mut Batch<'_>, staged: &mut Staged<'_>) {
        let line = &staged.line;
        if let Some((entry, _)) = &staged.candidate
            && batch.is_hot
            && is_plain(line)
            && entry.meta.is_plain()
            && self.apply_plain(batch, line, entry)
        {
            return;
        }
        if let Err(reason) = self.apply_line(batch, line, staged.hash, staged.candidate.map(|(entry, _)| entry)) {
            self.refuse_line(batch, reason, line);
        }
    }

    /// The common case: one value, rate 1, no time, series known. False when it is not that after all.
    #[inline(always)]
    fn apply_plain(&mut self, batch: &mut Batch<'_>, line: &Line<'_>, entry: &Entry) -> bool {
        let slot = entry.slot().0;
        match entry.meta.kind() {
            Kind::Counter => match line.value.whole_and_nano() {
                Some((whole, 0)) => batch.combiner.add_whole(slot, whole),
                _ => return false,
            },
            Kind::Distribution => match line.value.to_units(entry.meta.exponent()) {
                Ok(units) if entry.meta.is_compact() => {
                    batch.combiner.add_value(slot, units, layout::cell_of_2(units));
                }
                _ => return false,
            },
            Kind::Gauge | Kind::Set => return false,
        }
        batch.plain[entry.meta.kind() as usize] += 1;
        true
    }

    /// Any line: resolves it if it is new, checks all its values, then records all of them or none. What the clients
    /// say of themselves is counted as input of `internal`, so that the laws speak of what somebody sends.
    fn apply_line(
        &mut self,
        batch: &mut Batch<'_>,
        line: &Line<'_>,
        hash: u64,
        known: Option<Entry>,
    ) -> Result<Applied, RejectReason> {
        if !line.name.starts_with(CLIENT_TELEMETRY.as_bytes()) {
            return self.apply_any(batch, line, hash, known);
        }
        batch.counted = SourceIndex(0);
        let applied = self.apply_any(batch, line, hash, known);
        batch.counted = batch.origin.source;
        applied
    }

    fn apply_any(
        &mut self,
        batch: &mut Batch<'_>,
        line: &Line<'_>,
        hash: u64,
        known: Option<Entry>,
    ) -> Result<Applied, RejectReason> {
        let known = known.or_else(|| {
            let candidate = self.cache.candidate(hash)?;
            self.cache.verify(hash, candidate, line.name, line.wire, line.tags)
        });
        let (samples, place, slot, meta, metric) = match known {
            Some(entry) => {
                let (samples, place) = self.accept(batch, line, entry.meta)?;
                (samples, place, Some(entry.slot()), entry.meta, None)
            }
            None => {
                let tags = dogstatsd::tags(line.tags);
                let resolved = self.rules.resolve_from(batch.origin.source, line.name, line.wire, tags)?;
                // A line that brings no sample must not take a series' place: nothing would ever free it.
                let (samples, place) = self.accept(batch, line, meta_of(&resolved))?;
                let slot = place.and_then(|_| self.intern(&resolved, Some((hash, line))));
                (samples, place, slot, meta_of(&resolved), Some(resolved.metric))
            }
        };
        if let Some(place) = place {
            self.record(batch, line, samples, place, slot, meta)?;
        }
        let tally = batch.tally();
        tally.inputs += 1;
        tally.events += 1;
        tally.unknown_fields += u64::from(line.unknown_fields);
        tally.samples[meta.kind() as usize] += u64::from(samples);
        if meta.labels_dropped() > 0 {
            let of_slot = || self.shortened.get(&(meta.kind() as u8, slot?.0)).copied();
            if let Some(metric) = metric.as_ref().map(|metric| metric.id).or_else(of_slot) {
                tally.drop_labels(metric, u64::from(meta.labels_dropped()));
            }
        }
        Ok(Applied { meta, slot, metric, samples })
    }

    fn metric_of(&self, applied: &Applied) -> Arc<Metric> {
        match (&applied.metric, applied.slot) {
            (Some(metric), _) => Arc::clone(metric),
            (None, Some(slot)) => {
                let table = self.table.lock();
                Arc::clone(&table.get(applied.meta.kind(), slot).expect("a cached slot is live").metric)
            }
            (None, None) => unreachable!("a line without a slot was resolved anew"),
        }
    }

    /// A slot for a resolved series; `None` past a limit. An overflow verdict is not cached (S3).
    fn intern(&mut self, resolved: &Resolved, key: Option<(u64, &Line<'_>)>) -> Option<Slot> {
        let metric = &resolved.metric;
        let (slot, is_own) = match self.table.intern(metric, &resolved.labels) {
            Interned::Slot(slot) => (slot, true),
            Interned::Overflow(slot) => (slot, false),
            Interned::Refused => return None,
        };
        if metric.kind == Kind::Distribution {
            self.note_buckets(slot, metric);
        }
        if resolved.labels_dropped > 0 {
            self.shortened.insert((metric.kind as u8, slot.0), metric.id);
        }
        // A cached series may take the plain path, which counts for the source of the line.
        let is_telemetry = metric.group == Group::InternalOnly;
        if let (true, false, Some((hash, line))) = (is_own, is_telemetry, key) {
            self.cache.insert(hash, line.name, line.wire, line.tags, slot, meta_of(resolved));
        }
        Some(slot)
    }

    /// Checks the values and the time of a line: how many samples it has, and where they belong unless
    /// they come too late or too early, which is then counted.
    fn accept(
        &mut self,
        batch: &mut Batch<'_>,
        line: &Line<'_>,
        meta: Meta,
    ) -> Result<(u32, Option<(Slice, Timestamp)>), RejectReason> {
        let samples = if line.packed { dogstatsd::values(line).count() as u32 } else { 1 };
        self.check_values(line, meta)?;
        match self.acceptance.place(batch.arrival, line.time) {
            Ok(place) => Ok((samples, Some(place))),
            Err(reason) => {
                batch.tally().drop_samples(Edge::Shard, reason, u64::from(samples));
                Ok((samples, None))
            }
        }
    }

    /// Records every value of an accepted line.
    fn record(
        &mut self,
        batch: &mut Batch<'_>,
        line: &Line<'_>,
        samples: u32,
        (slice, time): (Slice, Timestamp),
        slot: Option<Slot>,
        meta: Meta,
    ) -> Result<(), RejectReason> {
        let Some(slot) = slot else {
            batch.tally().drop_samples(Edge::Shard, DropReason::SeriesLimit, u64::from(samples));
            return Ok(());
        };
        if slice < batch.slice {
            batch.tally().late += u64::from(samples);
        }
        if line.packed {
            for value in dogstatsd::values(line) {
                self.record_value(batch, line, value?, slot, meta, slice, time);
            }
        } else {
            self.record_value(batch, line, line.value, slot, meta, slice, time);
        }
        Ok(())
    }

    /// Forgets slots that leave memory.
    pub fn forget(&mut self, slots: &[(Kind, Slot)]) {
        let gone: std::collections::HashSet<(Kind, u32)> = slots.iter().map(|(kind, slot)| (*kind, slot.0)).collect();
        self.cache.forget(|kind, slot| gone.contains(&(kind, slot.0)));
        self.caches.forget(|kind, slot| gone.contains(&(kind, slot.0)));
        self.forget_verdicts();
        let table = self.table.lock();
        for (kind, slot) in slots {
            // A handle may have asked for the series since: its bounds were told once and stay.
            if *kind == Kind::Distribution && table.is_retiring(*kind, *slot) {
                self.bucket_rules.remove(&slot.0);
            }
        }
    }

    /// Bounds of a slot, from whoever was given it.
    pub(super) fn note_buckets(&mut self, slot: Slot, metric: &Metric) {
        // Who resolved it before a reload has the old bounds.
        let current = self.rules.numbered(metric.id);
        let metric = current.as_deref().unwrap_or(metric);
        let Some(buckets) = &metric.buckets else { return };
        let is_known = self.bucket_rules.get(&slot.0).is_some_and(|rule| Arc::ptr_eq(rule.buckets(), buckets));
        if !is_known {
            self.bucket_rules.insert(slot.0, Arc::new(BucketRule::new(Arc::clone(buckets), metric.digits)));
        }
    }

    pub(super) fn bucket_rule(&self, slot: Slot) -> Option<&Arc<BucketRule>> {
        self.bucket_rules.get(&slot.0)
    }

    /// The order of a gauge's set among those of equal time (V6): by arrival, which also orders the sets of
    /// other readers and of an earlier process, then by index.
    pub(super) fn next_position(&mut self, arrival: Timestamp) -> u64 {
        self.position = (self.position + 1).max(arrival.0.max(0) as u64);
        self.position
    }
}

/// How samples of a resolved series are recorded.
fn meta_of(resolved: &Resolved) -> Meta {
    let metric = &resolved.metric;
    Meta::new(
        metric.kind,
        metric.digits,
        metric.buckets.is_some(),
        resolved.input_exponent,
        resolved.shift,
        resolved.labels_dropped,
    )
}

#[inline(always)]
fn is_plain(line: &Line<'_>) -> bool {
    line.weight == WEIGHT_ONE && !line.packed && line.time.is_none() && line.unknown_fields == 0
}
