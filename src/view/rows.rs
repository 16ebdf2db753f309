//! One pass over the rows of a part, with the states on the way before they are needed.
//!
//! In: a part, where the states are. Out: changed states. Owns nothing. A hundred thousand series do not
//! fit any cache, so every row would wait for memory four times; asking ahead halves the time of a fold.

use super::chunk::Chunk;
use super::fold::lock;
use super::place_of;
use super::state::{Bounds, DistributionState};
use crate::delta::part::{Corrupt, PartCursor, Row, RowValue, Scratch};
use crate::delta::prefetch;
use crate::event::{CommitId, Kind};
use crate::sketch::Digits;
use std::sync::{Arc, Mutex, MutexGuard};

/// Rows that are decoded before the first of them is applied.
const AHEAD: usize = 8;
/// Rows before its own at which a sketch's cells are asked for.
const CELLS_AHEAD: usize = 2;

/// What the fold needs of a metric for every row.
pub(super) struct Rule {
    /// Index of its window length.
    pub(super) length: u8,
    pub(super) digits: Digits,
    pub(super) bounds: Option<Bounds>,
    /// Of its scale.
    pub(super) exponent: u8,
    /// It is exposed as a histogram and so has a native one.
    pub(super) has_native: bool,
}

/// What a pass over a part does with its rows.
#[derive(Clone, Copy)]
pub(super) enum Pass<'a> {
    /// Adds. `totals_of` is the commit of the part, `None` when totals hold it already; `seen` is the
    /// time of its samples.
    Add { slice: u32, totals_of: Option<CommitId>, seen: i64, inside: &'a [bool] },
    /// Takes out of windows.
    Expire { slice: u32, leaving: &'a [bool] },
}

/// Where a pass finds what it needs.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    /// By block.
    pub(super) chunks: &'a [Option<Arc<Mutex<Chunk>>>],
    /// By metric number.
    pub(super) rules: &'a [Option<Rule>],
    /// By block the commit that restored totals hold.
    pub(super) as_of: &'a [CommitId],
}

impl Place<'_> {
    /// Runs a pass over every row; how many bytes the windows' sketches and the native histograms grew. `spare` is memory.
    pub(super) fn run(self, part: &[u8], pass: Pass<'_>, spare: &mut Vec<(i32, u64)>) -> Result<isize, Corrupt> {
        let mut cursor = PartCursor::new(part)?;
        let mut scratches: [Scratch; AHEAD] = Default::default();
        let mut cells_delta = 0isize;
        let mut held: Option<(u32, MutexGuard<'_, Chunk>)> = None;
        loop {
            let mut rows: [Option<Row<'_>>; AHEAD] = [const { None }; AHEAD];
            let mut count = 0;
            for (row, scratch) in rows.iter_mut().zip(&mut scratches) {
                *row = cursor.next(scratch)?;
                let Some(row) = row else { break };
                count += 1;
                if let Some((block, chunk)) = &held {
                    bring_closer(chunk, *block, row);
                }
            }
            if let Some((block, chunk)) = &held {
                rows[..CELLS_AHEAD].iter().flatten().for_each(|row| bring_cells_closer(chunk, *block, row));
            }
            for (at, row) in rows[..count].iter().flatten().enumerate() {
                if let (Some((block, chunk)), Some(Some(next))) = (&held, rows.get(at + CELLS_AHEAD)) {
                    bring_cells_closer(chunk, *block, next);
                }
                let (block, offset) = place_of(row.id);
                if held.as_ref().is_none_or(|(of, _)| *of != block) {
                    // The old lock goes first: a reader may wait for the chunk we leave, never the reverse.
                    drop(held.take());
                    // A row without a series is a series that this process does not keep.
                    let Some(Some(chunk)) = self.chunks.get(block as usize) else { continue };
                    held = Some((block, lock(chunk)));
                }
                let (_, chunk) = held.as_mut().expect("taken above");
                apply(chunk, offset, block, row, pass, self, spare, &mut cells_delta);
            }
            if count < AHEAD {
                break;
            }
        }
        Ok(cells_delta)
    }
}

/// The state of a row's distribution, when its chunk is the one that is held.
#[inline(always)]
fn state_of<'a>(chunk: &'a Chunk, held: u32, row: &Row<'_>) -> Option<&'a DistributionState> {
    let (block, offset) = place_of(row.id);
    if block != held || !matches!(row.value, RowValue::Distribution(_)) {
        return None;
    }
    Some(&chunk.distributions[chunk.index(Kind::Distribution, offset)?])
}

/// First step, when a row is decoded: its state.
#[inline(always)]
fn bring_closer(chunk: &Chunk, held: u32, row: &Row<'_>) {
    if let Some(state) = state_of(chunk, held, row) {
        // The state spans four lines; the window's sketch begins in the second half.
        prefetch(&state.totals);
        prefetch(&state.window.sketch);
        prefetch(&state.window.from);
    }
}

/// Second step, when the state has come, and only a few rows ahead, because a sketch has many lines: its cells.
#[inline(always)]
fn bring_cells_closer(chunk: &Chunk, held: u32, row: &Row<'_>) {
    if let Some(state) = state_of(chunk, held, row) {
        state.window.sketch.prefetch();
    }
}

#[expect(clippy::too_many_arguments, reason = "the terms of one row; a struct would only be taken apart again")]
#[inline(always)]
fn apply(
    chunk: &mut Chunk,
    offset: u16,
    block: u32,
    row: &Row<'_>,
    pass: Pass<'_>,
    place: Place<'_>,
    spare: &mut Vec<(i32, u64)>,
    cells_delta: &mut isize,
) {
    let Some(index) = chunk.index(row.value.kind(), offset) else { return };
    let rule = |metric: u32| place.rules[metric as usize].as_ref().expect("a metric is learned with its first series");
    let counts = |totals_of: Option<CommitId>| {
        totals_of.is_some_and(|commit| place.as_of.get(block as usize).is_none_or(|as_of| commit > *as_of))
    };
    match (&row.value, pass) {
        (RowValue::Counter(sum), Pass::Add { totals_of, seen, .. }) => {
            let state = &mut chunk.counters[index];
            if counts(totals_of) {
                state.total = state.total.saturating_add(sum.nanos);
                state.identity.seen = state.identity.seen.max(seen);
            }
        }
        (RowValue::Gauge(sum), Pass::Add { totals_of, seen, .. }) => {
            let state = &mut chunk.gauges[index];
            if counts(totals_of) {
                state.sum.merge(sum);
                state.identity.seen = state.identity.seen.max(seen);
            }
        }
        (RowValue::Distribution(row), Pass::Add { slice, totals_of, seen, inside }) => {
            let state = &mut chunk.distributions[index];
            let rule = rule(state.identity.metric);
            if counts(totals_of) {
                let before = state.totals.native_bytes() as isize;
                state.totals.add(row, rule.bounds.as_ref(), rule.exponent, rule.has_native);
                *cells_delta += state.totals.native_bytes() as isize - before;
                state.identity.seen = state.identity.seen.max(seen);
            }
            if inside[usize::from(rule.length)] {
                let before = state.window.sketch.heap_bytes() as isize;
                state.window.add(slice, row, spare);
                *cells_delta += state.window.sketch.heap_bytes() as isize - before;
            }
        }
        (RowValue::Distribution(row), Pass::Expire { slice, leaving }) => {
            let state = &mut chunk.distributions[index];
            let rule = rule(state.identity.metric);
            if leaving[usize::from(rule.length)] {
                let before = state.window.sketch.heap_bytes() as isize;
                state.window.expire(slice, row, rule.digits, spare);
                *cells_delta += state.window.sketch.heap_bytes() as isize - before;
            }
        }
        (RowValue::Set(distinct), Pass::Add { slice, totals_of, seen, inside }) => {
            let state = &mut chunk.sets[index];
            if counts(totals_of) {
                state.identity.seen = state.identity.seen.max(seen);
            }
            if inside[usize::from(rule(state.identity.metric).length)] {
                state.add(slice, distinct);
            }
        }
        (RowValue::Set(_), Pass::Expire { slice, leaving }) => {
            let state = &mut chunk.sets[index];
            if leaving[usize::from(rule(state.identity.metric).length)] {
                state.expire(slice);
            }
        }
        (RowValue::Counter(_) | RowValue::Gauge(_), Pass::Expire { .. }) => {}
    }
}
