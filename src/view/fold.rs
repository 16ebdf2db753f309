//! The fold: durable commits into chunks, the same code live and at recovery.
//!
//! In: what the store tells through [`Fold`]. Out: states that readers see under one chunk's lock at a
//! time. Owned by the store's thread. Invariants: totals hold every row once; a window holds exactly the
//! rows of the slices inside it; nothing is shown before it is durable (C3).

use super::adopt::Shape;
use super::chunk::{CHUNK_LEN, Chunk, State};
use super::departed::Departed;
use super::rows::{Pass, Place, Rule};
use super::state::{
    Bounds, CounterState, DistributionState, DistributionTotals, GaugeState, Identity, SetState, StateRef, Window,
};
use super::window::WindowClock;
use super::{Shared, View, place_of, totals};
use crate::delta::GaugeSum;
use crate::delta::part::Corrupt;
use crate::event::{CommitId, Kind, Metric, MetricId, SeriesId, Slice, Slot, Timestamp};
use crate::sketch::Digits;
use crate::store::{Committed, Fold, NewestSet, Resetting, SeriesRow, TotalsBlock};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicIsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Windows are told apart by size in steps of so many bytes, when the widest are looked for.
const SIZE_STEP: usize = 16;
/// Steps; what is larger counts as the last.
const SIZES: usize = 4096;

/// The writing end of the view.
pub struct ViewFold {
    shared: Arc<Shared>,
    /// The fold's own list of the chunks, so that it asks nobody for it.
    chunks: Vec<Option<Arc<Mutex<Chunk>>>>,
    /// Per block the commit up to which restored totals count.
    as_of: Vec<CommitId>,
    /// By metric number.
    rules: Vec<Option<Rule>>,
    /// What a reload said of metrics, by number: a series may come by words of before.
    redeclared: HashMap<u32, Arc<Metric>>,
    clock: WindowClock,
    last_commit: CommitId,
    /// False until the first commit of this process: what is replayed fills windows from their beginning.
    is_live: bool,
    /// Heap bytes of all window sketches and native histograms.
    cell_bytes: usize,
    /// What native histograms grew while the fold was only borrowed; goes to `cell_bytes` at the next commit.
    restored_bytes: AtomicIsize,
    cell_bytes_max: usize,
    spare: Vec<(i32, u64)>,
    pub(super) departed: Mutex<Departed>,
}

impl ViewFold {
    pub(super) fn new(shared: Arc<Shared>, cells_max: usize) -> ViewFold {
        ViewFold {
            shared,
            chunks: Vec::new(),
            as_of: Vec::new(),
            rules: Vec::new(),
            redeclared: HashMap::new(),
            clock: WindowClock::default(),
            last_commit: CommitId(0),
            is_live: false,
            cell_bytes: 0,
            restored_bytes: AtomicIsize::new(0),
            cell_bytes_max: cells_max.saturating_mul(4),
            spare: Vec::new(),
            departed: Mutex::default(),
        }
    }

    /// A reading end.
    pub fn view(&self) -> View {
        View { shared: Arc::clone(&self.shared) }
    }

    /// Learns a metric with its first series; what a reload changes comes through [`reload`](Self::reload).
    fn learn(&mut self, metric: &Metric) {
        let at = metric.id.0 as usize;
        if self.rules.len() <= at {
            self.rules.resize_with(at + 1, || None);
        }
        if self.rules[at].is_none() {
            self.rules[at] = Some(Rule {
                length: self.clock.length(metric.window_slices),
                digits: metric.digits,
                bounds: metric.buckets.as_ref().map(|buckets| Bounds::new(buckets)),
                exponent: metric.scale.exponent(),
                has_native: metric.expose.histogram,
            });
        }
    }

    /// The pipeline was reloaded: these metrics, which keep their numbers, may be shown in another way, cover
    /// another window or count other buckets (R2). Buckets keep what is known, and estimate the rest. A
    /// window of another length or of more digits begins anew with the next slice: its rows would have to be read back.
    /// The blocks whose totals it changed.
    pub fn reload(&mut self, metrics: &[Arc<Metric>], retired: &[MetricId]) -> BTreeSet<u32> {
        let mut changed = BTreeSet::new();
        // Per metric how many series hold estimates now.
        let mut estimated: BTreeMap<u32, u64> = BTreeMap::new();
        self.shared.retire(metrics, retired);
        // Old rules of metrics whose series have to go over, so that all chunks are walked once.
        let mut old_rules: HashMap<u32, Rule> = HashMap::new();
        for metric in metrics {
            let number = metric.id.0;
            self.redeclared.insert(number, Arc::clone(metric));
            if let Some(old) = self.rules.get_mut(number as usize).and_then(Option::take) {
                self.learn(metric);
                let rule = self.rules[number as usize].as_ref().expect("learned above");
                let is_same = rule.length == old.length && rule.digits == old.digits && rule.bounds == old.bounds;
                if metric.kind == Kind::Distribution && !is_same {
                    old_rules.insert(number, old);
                }
            }
            self.shared.redeclare(metric);
        }
        if !old_rules.is_empty() {
            for (block, chunk) in self.chunks.iter().enumerate() {
                let Some(chunk) = chunk else { continue };
                let chunk = &mut *lock(chunk);
                // Only what recovery put there; a reload in between takes the first estimate.
                chunk.unsettled.clear();
                for state in &mut chunk.distributions {
                    let Some(old) = old_rules.get(&state.identity.metric) else { continue };
                    let rule = self.rules[state.identity.metric as usize].as_ref().expect("learned above");
                    let was = old.bounds.as_ref().map_or(&[][..], |bounds| &bounds.units);
                    let is = rule.bounds.as_ref().map(|bounds| &*bounds.units);
                    let shape = Shape::of(&state.totals, Some(&state.window), rule.exponent);
                    if is.map_or(!was.is_empty(), |is| is != was) {
                        state.totals.adopt(was, is, &shape);
                        changed.insert(block as u32);
                        if state.totals.has_estimates() {
                            *estimated.entry(state.identity.metric).or_default() += 1;
                            self.shared.has_estimates.store(true, Ordering::Relaxed);
                        }
                    }
                    if let Some(resets) = chunk.resets.get_mut(&state.identity.offset) {
                        resets.adopt(was, is, &shape);
                    }
                    if rule.length == old.length && rule.digits < old.digits {
                        let before = state.window.sketch.heap_bytes();
                        state.window.sketch.coarsen(rule.digits);
                        self.cell_bytes = (self.cell_bytes + state.window.sketch.heap_bytes()).saturating_sub(before);
                    } else if rule.length != old.length || rule.digits != old.digits {
                        self.cell_bytes = self.cell_bytes.saturating_sub(state.window.sketch.heap_bytes());
                        state.window = Window::new(rule.digits, self.clock.open() + 1);
                    }
                }
            }
        }
        for (metric, series) in estimated {
            let metric = self.redeclared.get(&metric).map_or("", |metric| &metric.name);
            tracing::warn!(metric, series, "buckets of samples from before they were declared are estimated");
        }
        self.shared.revision.fetch_add(1, Ordering::Release);
        changed
    }

    fn chunk(&mut self, block: u32) -> Arc<Mutex<Chunk>> {
        let at = block as usize;
        if self.chunks.len() <= at {
            self.chunks.resize(at + 1, None);
        }
        if let Some(chunk) = &self.chunks[at] {
            return Arc::clone(chunk);
        }
        let chunk = Arc::new(Mutex::new(Chunk::new()));
        self.chunks[at] = Some(Arc::clone(&chunk));
        let mut shared = self.shared.chunks.write().unwrap_or_else(PoisonError::into_inner);
        if shared.len() <= at {
            shared.resize(at + 1, None);
        }
        shared[at] = Some(Arc::clone(&chunk));
        chunk
    }

    /// Takes a series in, without showing it. `from` as in [`Window`].
    fn insert(&mut self, series: &SeriesRow, awaits_totals: bool, from: u32) -> Arc<Metric> {
        let metric = Arc::clone(self.redeclared.get(&series.metric.id.0).unwrap_or(&series.metric));
        self.learn(&metric);
        let (block, offset) = place_of(series.id);
        let chunk = self.chunk(block);
        let mut chunk = lock(&chunk);
        let identity = Identity {
            created: series.created.0,
            seen: series.created.0,
            slot: series.slot.0,
            metric: series.metric.id.0,
            offset,
            awaits_totals,
        };
        if let Some(known) = chunk.identity_mut(offset) {
            // It returned before it was forgotten: only its place in the process may be new.
            (known.slot, known.metric) = (identity.slot, identity.metric);
        } else {
            let rule = self.rules[series.metric.id.0 as usize].as_ref().expect("learned above");
            let state = match series.metric.kind {
                Kind::Counter => State::Counter(CounterState { total: 0, identity }),
                Kind::Gauge => State::Gauge(GaugeState { sum: GaugeSum::default(), identity }),
                Kind::Distribution => State::Distribution(DistributionState {
                    totals: DistributionTotals::new(rule.bounds.as_ref()),
                    window: Window::new(rule.digits, from),
                    identity,
                }),
                Kind::Set => State::Set(SetState { slices: Vec::new(), identity }),
            };
            chunk.insert(offset, state);
            let departed = self.departed.get_mut().unwrap_or_else(PoisonError::into_inner);
            if let Some(rows) = departed.rows(block) {
                // Newer than the file: what it holds of the series must not be added as well.
                let restored = totals::restore(&mut chunk, rows, &self.rules);
                let grown = restored.expect("a series returns as the kind it was");
                self.restored_bytes.fetch_add(grown, Ordering::Relaxed);
                self.shared.note_estimates(&chunk);
                departed.remove(block, offset);
                // It is shown from now on: no better estimate may take anything back.
                chunk.unsettled.remove(&offset);
            }
        }
        metric
    }

    /// Begins a new life of a series, in memory or just left (R3).
    fn reset(&mut self, id: SeriesId, at: Timestamp) {
        let (block, offset) = place_of(id);
        let chunk = self.chunks.get(block as usize).and_then(Option::as_ref).map(|chunk| lock(chunk));
        match chunk.filter(|chunk| chunk.contains(offset)) {
            Some(mut chunk) => {
                let shrunk = totals::reset(&mut chunk, offset, at.0, &self.rules);
                self.cell_bytes = self.cell_bytes.saturating_sub(shrunk);
            }
            None => {
                let departed = self.departed.get_mut().unwrap_or_else(PoisonError::into_inner);
                departed.reset(block, offset, at.0);
            }
        }
    }

    /// Runs a pass over every row of a part.
    fn pass(&mut self, part: &[u8], pass: Pass<'_>) -> Result<(), Corrupt> {
        let place = Place { chunks: &self.chunks, rules: &self.rules, as_of: &self.as_of };
        let cells_delta = place.run(part, pass, &mut self.spare)?;
        self.cell_bytes = self.cell_bytes.saturating_add_signed(cells_delta);
        Ok(())
    }

    /// Past `limits.cells` the widest sketches drop to one digit, and where that is not enough native histograms to
    /// half their resolution; the bound of an answer says so, and the schema.
    fn coarsen(&mut self) {
        let restored = std::mem::take(self.restored_bytes.get_mut());
        self.cell_bytes = self.cell_bytes.saturating_add_signed(restored);
        if self.cell_bytes <= self.cell_bytes_max {
            return;
        }
        // Counted by size and not sorted: with a million windows this runs at every other tick until all are coarse.
        let mut by_size = vec![0usize; SIZES];
        for chunk in self.chunks.iter().flatten() {
            let chunk = lock(chunk);
            let fine = chunk.distributions.iter().filter(|state| state.window.sketch.digits() > Digits::One);
            fine.for_each(|state| by_size[(state.window.sketch.heap_bytes() / SIZE_STEP).min(SIZES - 1)] += 1);
        }
        // One digit takes about an eighth of the cells; a tenth more than needed, so that this is rare.
        let mut excess = self.cell_bytes - self.cell_bytes_max / 10 * 9;
        let mut threshold = usize::MAX;
        for (step, count) in by_size.iter().enumerate().skip(1).rev().filter(|(_, count)| **count > 0) {
            let size = step * SIZE_STEP;
            threshold = size;
            excess = excess.saturating_sub((size - size / 8) * count);
            if excess == 0 {
                break;
            }
        }
        let mut coarsened = 0u64;
        for chunk in self.chunks.iter().flatten() {
            for state in &mut lock(chunk).distributions {
                let sketch = &mut state.window.sketch;
                let before = sketch.heap_bytes();
                if sketch.digits() > Digits::One
                    && before >= threshold
                    && self.cell_bytes > self.cell_bytes_max / 10 * 9
                {
                    sketch.coarsen(Digits::One);
                    self.cell_bytes = self.cell_bytes.saturating_sub(before) + sketch.heap_bytes();
                    coarsened += 1;
                }
            }
        }
        for chunk in self.chunks.iter().flatten() {
            if self.cell_bytes <= self.cell_bytes_max {
                break;
            }
            for state in &mut lock(chunk).distributions {
                let before = state.totals.native_bytes();
                if state.totals.native.as_mut().is_some_and(|native| native.coarsen()) {
                    self.cell_bytes = self.cell_bytes.saturating_sub(before) + state.totals.native_bytes();
                }
            }
        }
        self.shared.coarsened.fetch_add(coarsened, Ordering::Relaxed);
    }
}

impl Shared {
    /// Looks whether what came back from the file holds estimates (R2).
    fn note_estimates(&self, chunk: &Chunk) {
        let has_any = chunk.distributions.iter().any(|state| state.totals.has_estimates());
        if has_any && !self.has_estimates.swap(true, Ordering::Relaxed) {
            tracing::warn!("buckets of histograms hold estimates of samples from before they were declared");
        }
    }
}

/// The lock of a chunk. Rows are applied one field at a time, so a panic under it can leave a series
/// half-way; the process stops on a panic of the store's thread anyway, and readers may look meanwhile.
pub(super) fn lock(chunk: &Mutex<Chunk>) -> MutexGuard<'_, Chunk> {
    chunk.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Fold for ViewFold {
    fn restore_series(&mut self, series: &SeriesRow) {
        let from = if self.is_live { self.clock.open() } else { 0 };
        let metric = self.insert(series, true, from);
        // One that returns later is shown by the commit that brings it, when its totals are there.
        if !self.is_live {
            self.shared.enlist(series, &metric, true);
        }
    }

    fn restore_totals(&mut self, block: &TotalsBlock) -> Result<(), Corrupt> {
        let stored = totals::decode(&block.bytes)?;
        let at = block.block as usize;
        if self.as_of.len() <= at {
            self.as_of.resize(at + 1, CommitId(0));
        }
        self.as_of[at] = self.as_of[at].max(block.as_of);
        if let Some(Some(chunk)) = self.chunks.get(at) {
            let mut chunk = lock(chunk);
            let grown = totals::restore(&mut chunk, &stored, &self.rules)?;
            self.restored_bytes.fetch_add(grown, Ordering::Relaxed);
            self.shared.note_estimates(&chunk);
        }
        Ok(())
    }

    fn replay(&mut self, slice: Slice, through: CommitId, part: &[u8], for_totals: bool) -> Result<(), Corrupt> {
        let inside = self.clock.inside(slice);
        self.clock.note(slice, &inside);
        let seen = self.shared.width.end(slice).0;
        let totals_of = for_totals.then_some(through);
        self.pass(part, Pass::Add { slice: slice.0, totals_of, seen, inside: &inside })?;
        self.last_commit = self.last_commit.max(through);
        self.coarsen();
        Ok(())
    }

    fn commit(&mut self, committed: &Committed<'_>) -> Result<(), Corrupt> {
        if !self.is_live {
            // What recovery has not found in stored totals has none.
            self.chunks.iter().flatten().for_each(|chunk| lock(chunk).settle());
            self.is_live = true;
        }
        self.shared.begin();
        for series in committed.series {
            let (block, offset) = place_of(series.id);
            let is_restored = self.chunks.get(block as usize).and_then(Option::as_ref);
            let is_restored = is_restored.is_some_and(|chunk| lock(chunk).contains(offset));
            let has_returned = is_restored || series.created < committed.time;
            let metric = self.insert(series, has_returned, if has_returned { self.clock.open() } else { 0 });
            self.shared.enlist(series, &metric, has_returned);
        }
        // What this commit brings belongs to the new life: totals were stored as of the commit before.
        for id in committed.resets {
            self.reset(*id, committed.time);
        }
        for part in committed.parts {
            let inside = self.clock.inside(part.slice);
            self.clock.note(part.slice, &inside);
            let (slice, totals_of) = (part.slice.0, Some(committed.id));
            self.pass(&part.bytes, Pass::Add { slice, totals_of, seen: committed.time.0, inside: &inside })?;
        }
        self.coarsen();
        self.last_commit = committed.id;
        self.departed.get_mut().unwrap_or_else(PoisonError::into_inner).committed(committed.id);
        self.shared.cell_bytes.store(self.cell_bytes as u64, Ordering::Relaxed);
        self.shared.publish(committed.id, committed.time);
        Ok(())
    }

    fn wants(&self, slice: Slice) -> bool {
        self.clock.inside(slice).contains(&true)
    }

    fn leaving(&mut self, open: Slice) -> Vec<Slice> {
        let leaving = self.clock.advance(open);
        if self.shared.open.swap(open.0, Ordering::Relaxed) != open.0 {
            self.shared.revision.fetch_add(1, Ordering::Release);
        }
        leaving
    }

    fn expire(&mut self, slice: Slice, parts: &[Vec<u8>]) -> Result<(), Corrupt> {
        let Some(leaving) = self.clock.expire(slice) else { return Ok(()) };
        for part in parts {
            self.pass(part, Pass::Expire { slice: slice.0, leaving: &leaving })?;
        }
        self.shared.revision.fetch_add(1, Ordering::Release);
        Ok(())
    }

    fn gauge(&self, id: SeriesId) -> Option<NewestSet> {
        let (block, offset) = place_of(id);
        let chunk = lock(self.chunks.get(block as usize)?.as_ref()?);
        let sum = &chunk.gauges[chunk.index(Kind::Gauge, offset)?].sum;
        NewestSet::of(sum)
    }

    fn encode_totals(
        &self,
        block: u32,
        stored: Option<&[u8]>,
        resetting: Resetting<'_>,
    ) -> Result<Option<Vec<u8>>, Corrupt> {
        let stored = stored.map(totals::decode).transpose()?;
        let mut departed = self.departed.lock().unwrap_or_else(PoisonError::into_inner);
        let mut chunk = self.chunks.get(block as usize).and_then(Option::as_ref).map(|chunk| lock(chunk));
        if let Some(chunk) = &mut chunk {
            // A series that returned takes its stored total over now, or the next call would add it again.
            if let Some(stored) = &stored {
                let grown = totals::restore(chunk, stored, &self.rules)?;
                self.restored_bytes.fetch_add(grown, Ordering::Relaxed);
            }
            chunk.settle();
        }
        let resets = resetting.ids.iter().map(|id| place_of(*id)).filter(|place| place.0 == block).map(|place| place.1);
        let at = resetting.at.0;
        let bytes = totals::encode(chunk.as_deref(), departed.rows(block), stored, &self.rules, resets, at);
        departed.encoded(block, self.last_commit);
        Ok(bytes)
    }

    fn idle(&self, now: Timestamp) -> Vec<(Kind, Slot, SeriesId)> {
        let idle_after = self.shared.idle_by_metric();
        let mut idle = Vec::new();
        for (block, chunk) in self.chunks.iter().enumerate() {
            let Some(chunk) = chunk else { continue };
            let is_idle = |identity: &Identity| {
                let after = idle_after.get(identity.metric as usize).copied().flatten();
                after.is_some_and(|after| identity.seen.saturating_add(after) < now.0)
            };
            let chunk = lock(chunk);
            idle.extend(chunk.iter().filter(|state| is_idle(state.identity())).map(|state: StateRef<'_>| {
                let identity = state.identity();
                let id = SeriesId(block as u32 * CHUNK_LEN + u32::from(identity.offset));
                (state.kind(), Slot(identity.slot), id)
            }));
        }
        idle
    }

    fn reload(&mut self, metrics: &[Arc<Metric>], retired: &[MetricId]) -> BTreeSet<u32> {
        ViewFold::reload(self, metrics, retired)
    }

    fn set_cells(&mut self, cells_max: usize) {
        self.cell_bytes_max = cells_max.saturating_mul(4);
    }

    fn forget(&mut self, id: SeriesId) {
        let (block, offset) = place_of(id);
        let Some(Some(shared)) = self.chunks.get(block as usize) else { return };
        let mut chunk = lock(shared);
        if let Some(index) = chunk.index(Kind::Distribution, offset) {
            let state = &chunk.distributions[index];
            let bytes = state.window.sketch.heap_bytes() + state.totals.native_bytes();
            self.cell_bytes = self.cell_bytes.saturating_sub(bytes);
        }
        if let Some(state) = chunk.get(offset) {
            let departed = self.departed.get_mut().unwrap_or_else(PoisonError::into_inner);
            departed.add(block, |rows| rows.put_state(&state, chunk.resets_of(offset), &self.rules));
        }
        let metric = chunk.remove(offset);
        let is_empty = chunk.is_empty();
        drop(chunk);
        if is_empty {
            self.chunks[block as usize] = None;
            self.shared.chunks.write().unwrap_or_else(PoisonError::into_inner)[block as usize] = None;
        }
        if let Some(metric) = metric {
            self.shared.delist(id, metric);
        }
    }
}
