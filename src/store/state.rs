//! The store's state without its thread: what is sealed, what waits, what is durable. Time is an argument.
//!
//! In: sealed combiners. Out: commits, folded. Owns: the ledger, durable ids, everything pending.
//! Invariants: a combiner is drained and given back at once, whether the disk works or not (C1, C4); a
//! commit that failed is tried again byte for byte until it is known to have landed (C4); the fold sees a
//! commit only after it is durable (C3).

mod ids;
mod pending;
mod reset;
mod restore;
mod shed;
mod upkeep;
mod work;

use self::pending::{Attempt, Pending};
use self::restore::{Restored, restore, restore_hidden};
use self::shed::Shedding;
use self::work::Work;
use super::error::StoreError;
use super::events::{EventsPlan, StoreReload};
use super::fold::{Committed, Fold, Resetting, TotalsBlock};
use super::format::BLOCK_SERIES;
use super::gauges::Gauges;
use super::kept::{Kept, KeptView};
use super::lanes::{GivenBack, Lanes};
use super::laws::{self, Laws};
use super::ledger::{Ledger, SliceState};
use super::merge::merge_parts;
use super::pairs::Pairs;
use super::read::StoredKind;
use super::series::SeriesDef;
use super::tier::TierPlan;
use super::worker::Step;
use super::write::CommitBatch;
use crate::delta::epoch::{PartitionPosition, Sealed};
use crate::delta::part;
use crate::delta::{Combiner, CounterSum, Edge, EncodedPart, Encoder, GaugeSum, IdMap, SeriesTable, SourceTally};
use crate::event::{
    CommitId, DropReason, Kind, Metric, SeriesId, Slice, SliceWidth, Slot, SourceIndex, Timestamp, series_hash,
};
use crate::rule::Rules;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// Parts of one slice that may wait before they are merged into one (C4).
const PENDING_PARTS_MAX: usize = 16;
/// Every commit rewrites this share of the totals (C5).
const TOTALS_SHARE: usize = 60;
/// What a series that is to be reset counts among what waits.
const RESET_BYTES: usize = 32;
/// Slices that one commit may drop.
const EXPIRE_SLICES_MAX: usize = 4;

/// The times and limits of a store, in nanoseconds and bytes.
#[derive(Clone, Debug)]
pub struct StoreLimits {
    /// Width of a slice.
    pub slice: SliceWidth,
    /// T2.
    pub lateness: i64,
    /// T2.
    pub hold_max: i64,
    /// How long closed slices stay slices behind the wall clock: windows read them back, and late samples come to them.
    /// Older ones become pages of the tiers, or, where no tier holds them, leave the file.
    pub keep: i64,
    /// The tiers of history, finest first.
    pub tiers: Vec<TierPlan>,
    /// What the file may take: from 85 % of it the oldest spans go, whatever their tier keeps (H4).
    pub max_size: u64,
    /// What may wait in memory while nothing can be committed.
    pub pending: usize,
}

/// What a successful commit tells the actor.
#[derive(Clone, Debug)]
pub struct Done {
    /// Its number.
    pub id: CommitId,
    /// The live epoch it includes.
    pub live_epoch: u64,
    /// What its sources did.
    pub tallies: Vec<SourceTally>,
    /// It wrote a step of a job beside.
    pub has_step: bool,
}

/// See the file's head.
pub struct Store {
    ledger: Ledger,
    fold: Box<dyn Fold>,
    table: Arc<SeriesTable>,
    laws: Laws,
    limits: StoreLimits,
    /// Until when as much is kept as before a reload.
    kept_until: Option<(Timestamp, i64)>,
    ids: IdMap,
    next_id: u32,
    /// True once a series left memory: then a new slot may be an old series.
    has_stored_only: bool,
    /// Blocks of totals that a reload changed, until they are stored.
    totals_due: BTreeSet<u32>,
    pending: Pending,
    attempt: Option<Attempt>,
    /// What was sealed and is not drained.
    lanes: Lanes,
    /// Where each partition stands, commits under way included.
    positions: BTreeMap<Arc<str>, PartitionPosition>,
    /// Newest clock of each replayable partition (T1).
    clocks: BTreeMap<Arc<str>, Timestamp>,
    shards: usize,
    gauges: Gauges,
    pairs: Pairs,
    kept: Kept,
    encoder: Encoder,
    watermark: Timestamp,
    /// Wall clock when the windows slid last.
    slid_at: Timestamp,
    /// Series that are to leave memory.
    leaving: Vec<(Kind, Slot)>,
    /// Segments, pages, roll-ups.
    work: Work,
    may_step: bool,
    /// Spans may go because their time is over.
    may_expire: bool,
    shedding: Shedding,
    /// The last commit wrote a step.
    has_stepped: bool,
    /// Of the last retirement.
    mark: u64,
}

impl Store {
    /// Opens and recovers: folds what the ledger holds with the code that folds live commits.
    ///
    /// # Errors
    /// The ledger's.
    #[expect(clippy::too_many_arguments, reason = "the parts of a store, each used once")]
    pub fn recover(
        mut ledger: Ledger,
        mut fold: Box<dyn Fold>,
        table: Arc<SeriesTable>,
        rules: &Arc<Rules>,
        sources: Vec<(String, &'static str)>,
        limits: StoreLimits,
        shards: usize,
        now: Timestamp,
    ) -> Result<Store, StoreError> {
        // A damaged branch of the index would give a known series a second id.
        ledger.verify_index()?;
        let mut ids = IdMap::new();
        let mut has_stored_only = false;
        let mut rescaled = None;
        let mut pairs = Pairs::new(limits.lateness);
        ledger.pairs(|key, content| pairs.load(key, content))?;
        let mut kept = Kept::new();
        ledger.recent(|key, content| kept.load(key, content))?;
        let paired: HashSet<SeriesId> = pairs.series().into_iter().collect();
        let mut paired_slots = HashMap::new();
        let mut hidden = HashSet::new();
        ledger.all_series(|def| match restore(&def, rules, &table, &mut rescaled) {
            Restored::Live(row) => {
                if paired.contains(&def.id) {
                    paired_slots.insert(def.id, row.slot);
                }
                ids.set(def.kind, row.slot, def.id);
                fold.restore_series(&row);
            }
            Restored::Hidden => {
                has_stored_only = true;
                hidden.insert(def.id);
            }
            Restored::Gone => has_stored_only = true,
        })?;
        if let Some(source) = rescaled {
            return Err(ledger.rescaled(source));
        }
        pairs.bind(&paired_slots, &table);
        // Sets the windows to where the wall clock stands before anything is folded into them.
        fold.leaving(limits.slice.slice_of(now));
        let mut as_of = HashMap::new();
        ledger.all_totals(|block| {
            as_of.insert(block.block, block.as_of);
            fold.restore_totals(&block)
        })?;
        let hidden = restore_hidden(&ledger, &mut *fold, rules, &hidden, &as_of)?;
        // Segments that no window holds, because they wait for their span to end, say nothing to the fold.
        let is_wanted = |state: &SliceState| state.log_rows > 0 || fold.wants(state.slice);
        let slices: Vec<Slice> = ledger.slices().filter(is_wanted).map(|state| state.slice).collect();
        for slice in slices {
            ledger.replay_slice(slice, |part| {
                let for_totals = part.kind == StoredKind::Log;
                fold.replay(part.slice, part.through, part.bytes, for_totals)
            })?;
        }
        // A part without rows, by which the fold knows how far it has come.
        fold.replay(limits.slice.slice_of(now), ledger.last_commit(), &[part::VERSION], false)
            .map_err(|source| ledger.corrupt_part(source))?;
        // What they gained since their block was written is kept until the block is written again.
        hidden.into_iter().for_each(|id| fold.forget(id));
        let stored = ledger.positions()?;
        let positions = stored.iter().map(|p| (Arc::clone(&p.partition), p.clone())).collect();
        let clocks = stored.into_iter().map(|p| (p.partition, p.clock)).collect();
        let next_id = ledger.next_series().0;
        let watermark = ledger.watermark();
        let laws = Laws::new(Arc::clone(rules), Arc::clone(&table), sources);
        Ok(Store {
            ledger,
            fold,
            table,
            laws,
            limits,
            kept_until: None,
            ids,
            next_id,
            has_stored_only,
            totals_due: BTreeSet::new(),
            pending: Pending::default(),
            attempt: None,
            lanes: Lanes::default(),
            positions,
            clocks,
            shards,
            gauges: Gauges::default(),
            pairs,
            kept,
            encoder: Encoder::default(),
            watermark,
            slid_at: now,
            leaving: Vec::new(),
            work: Work::default(),
            may_step: true,
            may_expire: true,
            shedding: Shedding::default(),
            has_stepped: false,
            mark: 0,
        })
    }

    /// Says which pairs and kept schemas there are. Before the first call, and for what is in no list, operations
    /// and events are refused.
    pub fn set_plan(&mut self, plan: EventsPlan) {
        self.pairs.plan(&plan.pairs, plan.pairs_max);
        self.kept.plan(plan.kept);
    }

    /// The pipeline was reloaded: everything that is folded from here on is meant so.
    pub fn reload(&mut self, reload: StoreReload) {
        self.set_plan(reload.events);
        if reload.limits.keep < self.limits.keep {
            // Windows may still hold what was kept so far, and it is read back when it leaves them.
            self.kept_until = Some((self.slid_at.plus_nanos(self.limits.keep), self.limits.keep));
        }
        self.pairs.set_lateness(reload.limits.lateness);
        self.laws.set_sources(reload.sources);
        self.limits = reload.limits;
        let changed = self.fold.reload(&reload.metrics, &reload.retired);
        self.totals_due.extend(changed);
        self.fold.set_cells(reload.cells);
    }

    /// Open pairs, and ends that wait for their start.
    pub fn pair_counts(&self) -> (usize, usize) {
        (self.pairs.open_count(), self.pairs.early_count())
    }

    /// Readers of kept events have this end.
    pub(super) fn share_kept(&mut self, view: &KeptView) {
        self.kept.share(view);
    }

    /// The ledger, for figures.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Bytes that wait for the disk.
    pub fn pending_bytes(&self) -> usize {
        let attempt = self.attempt.as_ref().map_or(0, |a| a.parts.iter().map(|part| part.bytes.len()).sum());
        self.pending.bytes
            + self.pending.resets.len() * RESET_BYTES
            + attempt
            + self.pairs.waiting_bytes()
            + self.kept.waiting_bytes()
    }

    /// What was accepted and is not in a commit that landed, by source: what waits, the attempt under way, and what could
    /// not be drained.
    pub fn uncommitted(&self) -> Vec<SourceTally> {
        let mut sum = Pending::default();
        sum.add_tallies(&self.pending.tallies);
        if let Some(attempt) = self.attempt.as_ref().filter(|attempt| self.ledger.last_commit() < attempt.id) {
            sum.add_tallies(&attempt.tallies);
        }
        self.lanes.combiners().for_each(|combiner| sum.add_tallies(combiner.tallies()));
        sum.tallies
    }

    /// True while more may wait.
    pub fn has_room(&self) -> bool {
        self.pending_bytes() < self.limits.pending
    }

    /// Takes a sealed combiner in; [`settle`](Self::settle) drains it. What is discarded comes back (C2).
    pub fn take(&mut self, sealed: Sealed) -> Vec<GivenBack> {
        self.lanes.push(sealed)
    }

    /// Drains everything that can be drained, and hands the combiners back empty: live ones as they come,
    /// replayable ones once all shards sealed their epoch and while more may wait (they are never dropped).
    /// The error is that of reading ids of series that left memory: what is left waits for another call.
    pub fn settle(&mut self, now: Timestamp) -> (Vec<GivenBack>, Result<(), StoreError>) {
        let mut given_back = Vec::new();
        while let Some(sealed) = self.lanes.live() {
            let unknown = sealed.combiner.unknown_slots(&self.ids);
            if let Err(error) = self.give_ids(&unknown, now) {
                return (given_back, Err(error));
            }
            let Some(mut sealed) = self.lanes.pop_live() else { break };
            let has_room = self.has_room();
            self.drain(&mut sealed.combiner, sealed.sealed_at, has_room);
            given_back.push((usize::from(sealed.shard.0), sealed.group, sealed.combiner));
        }
        for source in self.lanes.whole(self.shards) {
            if !self.has_room() {
                break;
            }
            let mut unknown: Vec<_> =
                self.lanes.parts(source).iter().flat_map(|part| part.combiner.unknown_slots(&self.ids)).collect();
            unknown.sort_unstable();
            unknown.dedup();
            if let Err(error) = self.give_ids(&unknown, now) {
                return (given_back, Err(error));
            }
            for mut part in self.lanes.pop_whole(source) {
                self.drain(&mut part.combiner, part.sealed_at, true);
                for position in part.barrier.iter().flat_map(|barrier| barrier.positions.iter()) {
                    self.positions.insert(Arc::clone(&position.partition), position.clone());
                    self.pending.positions.insert(Arc::clone(&position.partition), position.clone());
                }
                given_back.push((usize::from(part.shard.0), part.group, part.combiner));
            }
        }
        (given_back, Ok(()))
    }

    /// A replayable source lost its assignment: nothing of an older incarnation counts from here on (C2).
    /// The positions are those that it must seek to: everything before them is committed, or will be.
    pub fn begin_incarnation(
        &mut self,
        source: SourceIndex,
        incarnation: u32,
    ) -> (Vec<GivenBack>, Vec<PartitionPosition>) {
        (self.lanes.begin_incarnation(source, incarnation), self.positions())
    }

    /// The last epoch of a replayable source that is drained: its next one may begin (C1).
    pub fn epoch_done(&self, source: SourceIndex) -> u64 {
        self.lanes.done(source)
    }

    /// True while sealed live combiners cannot be drained: their shards have no spare.
    pub fn has_stuck(&self) -> bool {
        self.lanes.has_live()
    }

    /// All shards have answered this live epoch.
    pub fn end_live_epoch(&mut self, epoch: u64) {
        self.pending.live_epoch = epoch;
    }

    fn drain(&mut self, combiner: &mut Combiner, sealed_at: Timestamp, has_room: bool) {
        let Store { fold, gauges, pending, attempt, table, ids, pairs, kept, laws, encoder, .. } = self;
        let mut refused = 0;
        let mut dropped = Vec::new();
        pairs.take(combiner.take_pairs(), ids, table, sealed_at, has_room, &mut dropped);
        kept.take(combiner.take_kept(), |source| laws.source(source));
        if has_room && combiner.has_adjusted() {
            let attempted = attempt.iter().flat_map(|attempt| &attempt.parts);
            gauges.cover(pending.parts.values().flatten().chain(attempted));
            // Operations come behind the sets of their own combiner, whatever slice those are for.
            combiner.gauge_sets(|slot, sum| {
                if let Some(id) = ids.get(Kind::Gauge, slot) {
                    gauges.note(id, &sum);
                }
            });
        }
        let mut resolve = |id: SeriesId, slot: Slot, mut sum: GaugeSum| {
            if !has_room {
                // It is dropped below, so nothing may be built on it.
                return GaugeSum::default();
            }
            if sum.adjust.is_some() {
                let scale = table.lock().get(Kind::Gauge, slot).map_or(1.0, |entry| entry.metric.scale.per_one());
                refused += u64::from(gauges.apply(id, &mut sum, fold.gauge(id), scale, sealed_at));
            }
            gauges.note(id, &sum);
            sum
        };
        let (parts, mut tallies) = encoder.encode(combiner, ids, &mut resolve);
        if has_room {
            parts.into_iter().for_each(|part| pending.add_part(part));
        } else {
            // C4: nothing more may wait. The samples are dropped, and that is counted.
            for tally in &mut tallies {
                tally.drop_recorded(Edge::Store, DropReason::Pending);
            }
        }
        for tally in &mut tallies {
            // Which source a refused operation came from is not kept: those with gauges share them.
            let share = refused.min(tally.recorded[Kind::Gauge as usize]);
            tally.recorded[Kind::Gauge as usize] -= share;
            tally.drop_samples(Edge::Store, DropReason::OutOfRange, share);
            refused -= share;
        }
        pending.add_tallies(&tallies);
        pending.add_tallies(&dropped);
    }

    /// Commits what waits. `Ok(None)` when there is nothing to say.
    ///
    /// # Errors
    /// The ledger's; everything is kept for another try after [`reopen`](Self::reopen).
    pub fn commit(&mut self, now: Timestamp) -> Result<Option<Done>, StoreError> {
        if self.attempt.is_none() && !self.prepare(now)? {
            return Ok(None);
        }
        let attempt = self.attempt.as_ref().expect("prepared above");
        if self.ledger.last_commit() < attempt.id {
            self.write()?;
        }
        let mut attempt = self.attempt.take().expect("written above");
        self.kept.landed(std::mem::take(&mut attempt.kept));
        // They are in the file, and a fold of many new series needs memory itself.
        attempt.defs = Vec::new();
        let Attempt { id, time, series, resets, parts, .. } = &attempt;
        let committed = Committed { id: *id, time: *time, series, resets, parts };
        self.fold.commit(&committed).map_err(|source| self.ledger.corrupt_part(source))?;
        if self.pending.is_empty() {
            self.gauges.clear();
        }
        self.encoder.recycle(std::mem::take(&mut attempt.parts));
        let Attempt { id, live_epoch, tallies, .. } = attempt;
        Ok(Some(Done { id, live_epoch, tallies, has_step: std::mem::take(&mut self.has_stepped) }))
    }

    /// Moves what is pending into an attempt; false when nothing happened at all.
    fn prepare(&mut self, now: Timestamp) -> Result<bool, StoreError> {
        self.join_pairs(now);
        self.begin_resets(now);
        let mut increments = self.laws.increments(&self.pending.tallies);
        let outcomes = self.pairs.take_outcomes();
        for (pair, outcome, count) in &outcomes {
            increments.extend(self.laws.outcome(pair, outcome.as_str(), *count));
        }
        // Before the tallies are taken: they must not be lost when this fails.
        let unknown: Vec<(Kind, Slot)> = increments
            .iter()
            .map(|(slot, _)| (Kind::Counter, *slot))
            .filter(|(kind, slot)| self.ids.get(*kind, *slot).is_none())
            .collect();
        if let Err(error) = self.give_ids(&unknown, now) {
            self.pairs.return_outcomes(outcomes);
            return Err(error);
        }
        let tallies = std::mem::take(&mut self.pending.tallies);
        if !increments.is_empty() {
            self.add_laws(&increments, now);
        }
        if self.pending.is_empty() && self.pairs.is_empty() && self.kept.is_empty() {
            return Ok(false);
        }
        let mut kept = self.kept.change();
        let resets = std::mem::take(&mut self.pending.resets);
        let fresh = Pending { live_epoch: self.pending.live_epoch, resets, ..Pending::default() };
        let mut pending = std::mem::replace(&mut self.pending, fresh);
        for position in pending.positions.values() {
            let clock = self.clocks.entry(Arc::clone(&position.partition)).or_insert(position.clock);
            *clock = (*clock).max(position.clock);
        }
        self.watermark = self.watermark.max(self.next_watermark(now));
        let stored = self.ledger.next_series();
        for row in pending.series.iter_mut().filter(|row| row.id >= stored) {
            // S2: of the commit, not of the tick that brought the series.
            row.created = now;
        }
        let mut defs: Vec<SeriesDef> = Vec::with_capacity(pending.series.iter().filter(|row| row.id >= stored).count());
        for row in pending.series.iter().filter(|row| row.id >= stored) {
            let mut def = SeriesDef::new(row.id, row.hash, &row.metric, row.labels.clone(), row.created);
            if let Some(last) = defs.last().filter(|last| last.unit == def.unit) {
                def.unit = Arc::clone(&last.unit);
            }
            defs.push(def);
        }
        self.attempt = Some(Attempt {
            id: CommitId(self.ledger.last_commit().0 + 1),
            time: now,
            watermark: self.watermark,
            series: pending.series,
            defs,
            parts: pending.parts.into_values().flatten().collect(),
            resets: pending.resetting,
            tallies,
            positions: pending.positions.into_values().collect(),
            pairs: self.pairs.take_rows().into_iter().map(|(key, content)| (key.to_bytes(), content)).collect(),
            recent: std::mem::take(&mut kept.rows).into_iter().collect(),
            kept,
            live_epoch: pending.live_epoch,
        });
        Ok(true)
    }

    /// V8: what starts and ends make of their metrics, behind everything else of this commit. From here on it is pending
    /// like any sample, so that a commit that fails is tried again with the same effects.
    fn join_pairs(&mut self, now: Timestamp) {
        let width = self.limits.slice;
        let clock = self.next_watermark(now).plus_nanos(self.limits.lateness);
        let mut tallies = vec![SourceTally::default()];
        self.pairs.join(clock, width, &self.table, &mut tallies);
        for part in self.pairs.parts(now, width, &*self.fold, &self.table, &mut tallies[0]) {
            self.pending.add_part(part);
        }
        if tallies.iter().any(|tally| !tally.is_zero()) {
            self.pending.add_tallies(&tallies);
        }
    }

    /// The laws' counters as one more part of the open slice.
    fn add_laws(&mut self, increments: &[(Slot, CounterSum)], now: Timestamp) {
        let mut rows: Vec<(SeriesId, CounterSum)> =
            increments.iter().filter_map(|(slot, sum)| Some((self.ids.get(Kind::Counter, *slot)?, *sum))).collect();
        rows.sort_unstable_by_key(|(id, _)| *id);
        let part = laws::part(&rows, self.limits.slice.slice_of(now));
        self.pending.add_part(part);
    }

    /// T2: the least clock, minus lateness.
    fn next_watermark(&self, now: Timestamp) -> Timestamp {
        let held = now.plus_nanos(-self.limits.hold_max);
        let clocks = self.clocks.values().copied().filter(|clock| *clock > held);
        clocks.chain([now]).min().unwrap_or(now).plus_nanos(-self.limits.lateness)
    }

    fn write(&mut self) -> Result<(), StoreError> {
        let as_of = self.ledger.last_commit();
        let blocks = self.ledger.next_series().0.div_ceil(1024) as usize;
        let mut totals = Vec::new();
        let attempt = self.attempt.as_ref().expect("a commit is prepared");
        let resetting = Resetting { ids: &attempt.resets, at: attempt.time };
        let mut due: BTreeSet<u32> = attempt.resets.iter().map(|id| id.0 / BLOCK_SERIES).collect();
        due.extend(&self.totals_due);
        due.extend(self.ledger.stalest_totals(blocks.div_ceil(TOTALS_SHARE)));
        for block in due {
            let stored = if self.has_stored_only { self.ledger.totals_block(block)? } else { None };
            let bytes = self.fold.encode_totals(block, stored.as_ref().map(|block| block.bytes.as_slice()), resetting);
            if let Some(bytes) = bytes.map_err(|source| self.ledger.corrupt_part(source))? {
                totals.push(TotalsBlock { block, as_of, bytes });
            }
        }
        let (time, watermark) = self.attempt.as_ref().map(|a| (a.time, a.watermark)).expect("a commit is prepared");
        let chores = self.chores(time, watermark)?;
        let attempt = self.attempt.as_ref().expect("a commit is prepared");
        let mut batch = CommitBatch::new(attempt.id, attempt.time, attempt.watermark);
        batch.new_series = &attempt.defs;
        batch.log = &attempt.parts;
        batch.positions = &attempt.positions;
        batch.pairs = &attempt.pairs;
        batch.recent = &attempt.recent;
        batch.totals = &totals;
        (batch.expire, batch.expire_spans) = (chores.expire.as_ref(), chores.expire_spans.as_ref());
        (batch.tiers, batch.clears) = (chores.tiers.as_ref(), chores.clears);
        batch.segments = &chores.segments;
        match self.work.front().filter(|_| chores.has_step) {
            Some(Step::Segment(step)) => batch.segment = Some(step),
            Some(Step::History(step)) => batch.history = Some(step),
            None => {}
        }
        self.ledger.commit(&batch)?;
        self.totals_due.clear();
        self.has_stepped = chores.has_step || chores.clears || !chores.segments.is_empty();
        if chores.has_step {
            self.work.landed();
        }
        self.count_shed(&chores);
        Ok(())
    }

    fn oldest_kept(&self, now: Timestamp) -> Slice {
        let former = self.kept_until.filter(|(until, _)| now < *until).map_or(0, |(_, keep)| keep);
        self.limits.slice.slice_of(now.plus_nanos(-self.limits.keep.max(former)))
    }
}
