//! The fold: durable commits into chunks, the same code live and at recovery.
//!
//! In: what the store tells through [`Fold`]. Out: states that readers see under one chunk's lock at a
//! time. Owned by the store's thread. Invariants: totals hold every row once; a window holds exactly the
//! rows of the slices inside it; nothing is shown before it is durable (C3).

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
use crate::event::{CommitId, Kind, Metric, SeriesId, Slice, Slot, Timestamp};
use crate::sketch::Digits;
use crate::store::{Committed, Fold, NewestSet, SeriesRow, TotalsBlock};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The writing end of the view.
pub struct ViewFold {
    shared: Arc<Shared>,
    /// The fold's own list of the chunks, so that it asks nobody for it.
    chunks: Vec<Option<Arc<Mutex<Chunk>>>>,
    /// Per block the commit up to which restored totals count.
    as_of: Vec<CommitId>,
    /// By metric number.
    rules: Vec<Option<Rule>>,
    clock: WindowClock,
    last_commit: CommitId,
    /// False until the first commit of this process: what is replayed fills windows from their beginning.
    is_live: bool,
    /// Heap bytes of all window sketches.
    cell_bytes: usize,
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
            clock: WindowClock::default(),
            last_commit: CommitId(0),
            is_live: false,
            cell_bytes: 0,
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
                bounds: metric.buckets.as_ref().map(|buckets| Bounds::new(&buckets.units)),
            });
        }
    }

    /// The pipeline was reloaded: these metrics, which keep their numbers, may be shown in another way, cover
    /// another window or count other buckets (R2). Buckets keep what old and new bounds have in common. A
    /// window of another length begins anew with the next slice: its rows would have to be read back.
    pub fn reload(&mut self, metrics: &[Arc<Metric>]) {
        for metric in metrics {
            let at = metric.id.0 as usize;
            if let Some(old) = self.rules.get_mut(at).and_then(Option::take) {
                self.learn(metric);
                let rule = self.rules[at].as_ref().expect("learned above");
                let from = (rule.length != old.length || rule.digits != old.digits).then(|| self.clock.open() + 1);
                for chunk in self.chunks.iter().flatten() {
                    for state in &mut lock(chunk).distributions {
                        if state.identity.metric != metric.id.0 {
                            continue;
                        }
                        state.totals.adopt(old.bounds.as_ref(), rule.bounds.as_ref());
                        if let Some(from) = from {
                            self.cell_bytes = self.cell_bytes.saturating_sub(state.window.sketch.heap_bytes());
                            state.window = Window::new(rule.digits, from);
                        }
                    }
                }
            }
            self.shared.redeclare(metric);
        }
        self.shared.revision.fetch_add(1, Ordering::Release);
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

    /// Takes a series in. `from` as in [`Window`].
    fn insert(&mut self, series: &SeriesRow, awaits_totals: bool, from: u32) {
        self.learn(&series.metric);
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
                totals::restore(&mut chunk, rows, &self.rules).expect("a series returns as the kind it was");
                departed.remove(block, offset);
            }
        }
        drop(chunk);
        self.shared.enlist(series);
    }

    /// Runs a pass over every row of a part.
    fn pass(&mut self, part: &[u8], pass: Pass<'_>) -> Result<(), Corrupt> {
        let place = Place { chunks: &self.chunks, rules: &self.rules, as_of: &self.as_of };
        let cells_delta = place.run(part, pass, &mut self.spare)?;
        self.cell_bytes = self.cell_bytes.saturating_add_signed(cells_delta);
        Ok(())
    }

    /// Past `limits.cells` the widest sketches drop to one digit; their answers' bound says so.
    fn coarsen(&mut self) {
        if self.cell_bytes <= self.cell_bytes_max {
            return;
        }
        let mut sizes = Vec::new();
        for chunk in self.chunks.iter().flatten() {
            let chunk = lock(chunk);
            let fine = chunk.distributions.iter().filter(|state| state.window.sketch.digits() > Digits::One);
            sizes.extend(fine.map(|state| state.window.sketch.heap_bytes()));
        }
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        // One digit takes about an eighth of the cells; a tenth more than needed, so that this is rare.
        let mut excess = self.cell_bytes - self.cell_bytes_max / 10 * 9;
        let mut threshold = usize::MAX;
        for size in sizes {
            threshold = size;
            if excess == 0 || size == 0 {
                break;
            }
            excess = excess.saturating_sub(size - size / 8);
        }
        let mut coarsened = 0u64;
        for chunk in self.chunks.iter().flatten() {
            for state in &mut lock(chunk).distributions {
                let sketch = &mut state.window.sketch;
                let before = sketch.heap_bytes();
                if sketch.digits() > Digits::One
                    && before >= threshold.max(1)
                    && self.cell_bytes > self.cell_bytes_max / 10 * 9
                {
                    sketch.coarsen(Digits::One);
                    self.cell_bytes = self.cell_bytes.saturating_sub(before) + sketch.heap_bytes();
                    coarsened += 1;
                }
            }
        }
        self.shared.coarsened.fetch_add(coarsened, Ordering::Relaxed);
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
        self.insert(series, true, from);
    }

    fn restore_totals(&mut self, block: &TotalsBlock) -> Result<(), Corrupt> {
        let stored = totals::decode(&block.bytes)?;
        let at = block.block as usize;
        if self.as_of.len() <= at {
            self.as_of.resize(at + 1, CommitId(0));
        }
        self.as_of[at] = self.as_of[at].max(block.as_of);
        if let Some(Some(chunk)) = self.chunks.get(at) {
            totals::restore(&mut lock(chunk), &stored, &self.rules)?;
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
        for series in committed.series {
            let has_returned = series.created < committed.time;
            self.insert(series, has_returned, if has_returned { self.clock.open() } else { 0 });
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

    fn encode_totals(&self, block: u32, stored: Option<&[u8]>) -> Result<Option<Vec<u8>>, Corrupt> {
        let stored = stored.map(totals::decode).transpose()?;
        let mut departed = self.departed.lock().unwrap_or_else(PoisonError::into_inner);
        let mut chunk = self.chunks.get(block as usize).and_then(Option::as_ref).map(|chunk| lock(chunk));
        if let Some(chunk) = &mut chunk {
            // A series that returned takes its stored total over now, or the next call would add it again.
            if let Some(stored) = &stored {
                totals::restore(chunk, stored, &self.rules)?;
            }
            chunk.settle();
        }
        let bytes = totals::encode(chunk.as_deref(), departed.rows(block), stored, &self.rules);
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

    fn forget(&mut self, id: SeriesId) {
        let (block, offset) = place_of(id);
        let Some(Some(shared)) = self.chunks.get(block as usize) else { return };
        let mut chunk = lock(shared);
        if let Some(index) = chunk.index(Kind::Distribution, offset) {
            let bytes = chunk.distributions[index].window.sketch.heap_bytes();
            self.cell_bytes = self.cell_bytes.saturating_sub(bytes);
        }
        if let Some(state) = chunk.get(offset) {
            let departed = self.departed.get_mut().unwrap_or_else(PoisonError::into_inner);
            departed.add(block, |rows| rows.put_state(&state, &self.rules));
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
