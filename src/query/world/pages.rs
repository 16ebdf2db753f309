//! Rows out of pages: what tiers hold of some series, read span by span while an evaluation asks for it.
//!
//! In: series and the runs of slots that are wanted of them. Out: their rows. Owns: which spans there were when the world was
//! made; rows of series that were read before, shared by all worlds. Invariants: a snapshot of the store is held for copying
//! the pages of one span and never for decoding; a span that says something else than when the world was made ends the
//! reading, and the question is asked over a new world; what is kept is bounded by [`PAGE_ROWS_BYTES_MAX`], and what is read
//! at once by [`BATCH_BYTES`].

use super::column::{Head, Lists};
use super::{Worlds, failed, failed_part};
use crate::delta::part::{DistributionRow, RowValue};
use crate::event::{Kind, SeriesId, Slice};
use crate::query::cover::{Run, Tier, Zones, cover, joined};
use crate::query::data::{DataError, GaugeRow};
use crate::sketch::Distinct;
use crate::store::{BLOCK_SERIES, Page, PageBuffers, PageSpan, Snapshot, StoreError, Wanted};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, PoisonError};

/// Bytes of rows that are kept for the next question: a day of ten-second slices of 240 counters.
pub(super) const PAGE_ROWS_BYTES_MAX: usize = 64 << 20;

/// A question that reads more is not kept: it would only drive out what others ask again.
const KEPT_AT_ONCE: usize = PAGE_ROWS_BYTES_MAX / 4;

/// Bytes of rows that are read at once: series are read in batches of so much.
const BATCH_BYTES: usize = 32 << 20;

/// Slots of a span.
const SLOTS: u32 = 360;

/// The tiers as they were when a world was made.
#[derive(Default)]
pub(super) struct History {
    /// Spans of each tier, ascending, and how many slices one has.
    spans: Vec<(u32, Vec<PageSpan>)>,
    tiers: Vec<Tier>,
    pub(super) zones: Zones,
}

impl History {
    /// Reads what there is from a slice on; and the slice from which on, since times may be floored to coarser slots.
    pub(super) fn read(snapshot: &Snapshot<'_>, from: Slice) -> Result<(History, Slice), StoreError> {
        let infos = snapshot.tiers()?;
        let mut tiers: Vec<Tier> = infos
            .iter()
            .map(|tier| Tier { resolution: tier.resolution, from: tier.from.0, until: tier.until.0, lacks: Vec::new() })
            .collect();
        let zones = Zones::of(&tiers);
        let from = Slice(zones.reach_back(from.0));
        let (mut spans, mut lacks) = (Vec::with_capacity(infos.len()), Vec::new());
        for (info, tier) in infos.iter().zip(&mut tiers) {
            tier.lacks.clone_from(&lacks);
            let found = snapshot.page_spans(info.resolution, from..Slice(u32::MAX))?;
            let unrolled = found.iter().filter(|span| !span.is_rolled);
            lacks.extend(unrolled.map(|span| span.start.0..span.start.0.saturating_add(info.span)));
            lacks = joined(lacks);
            spans.push((info.span, found));
        }
        Ok((History { spans, tiers, zones }, from))
    }

    /// The runs that windows are read by.
    pub(super) fn cover(&self, windows: &[Range<u32>], edges: Option<&[u32]>) -> Vec<Run> {
        cover(&self.tiers, windows, edges)
    }

    /// The end of the newest span.
    pub(super) fn end(&self) -> u32 {
        let ends = self.spans.iter().filter_map(|(slices, spans)| Some(spans.last()?.start.0.saturating_add(*slices)));
        ends.max().unwrap_or(0)
    }

    /// The spans that runs touch, with what of each is wanted, ascending.
    fn wanted<'h>(&'h self, runs: &[Run]) -> Vec<(&'h PageSpan, Vec<Range<u32>>)> {
        let mut wanted = Vec::new();
        for (tier, (slices, spans)) in self.spans.iter().enumerate() {
            let own: Vec<&Run> = runs.iter().filter(|run| run.tier == Some(tier)).collect();
            for span in spans {
                let (start, end) = (span.start.0, span.start.0.saturating_add(*slices));
                let from = own.partition_point(|run| run.to <= start);
                let inside = own[from..].iter().take_while(|run| run.from < end);
                let inside: Vec<Range<u32>> = inside.map(|run| run.from.max(start)..run.to.min(end)).collect();
                if !inside.is_empty() {
                    wanted.push((span, inside));
                }
            }
        }
        wanted
    }

    /// True when pages stand in any of the runs.
    pub(super) fn has_pages(&self, runs: &[Run]) -> bool {
        self.spans.iter().any(|(_, spans)| !spans.is_empty()) && !self.wanted(runs).is_empty()
    }
}

/// Rows of one series, in the order of tiers and spans.
#[derive(Default)]
pub(super) struct PageRows {
    pub(super) increments: Vec<(Slice, i128)>,
    pub(super) gauges: Vec<GaugeRow>,
    heads: Vec<(Slice, Head)>,
    lists: Lists,
    pub(super) sets: Vec<(Slice, Distinct)>,
}

impl PageRows {
    fn push(&mut self, slice: Slice, value: &RowValue<'_>) {
        match value {
            RowValue::Counter(sum) => self.increments.push((slice, sum.nanos)),
            RowValue::Gauge(sum) => self.gauges.push(GaugeRow {
                slice,
                last: sum.last,
                order: (sum.time, sum.position),
                min: sum.min,
                max: sum.max,
                sum: sum.sum,
                count: sum.count,
            }),
            RowValue::Distribution(row) => self.heads.push((slice, self.lists.push(row))),
            RowValue::Set(set) => self.sets.push((slice, set.clone())),
        }
    }

    /// The distributions by slice.
    pub(super) fn distributions(&self) -> impl Iterator<Item = (Slice, DistributionRow<'_>)> {
        self.heads.iter().map(|(slice, head)| (*slice, self.lists.row(head)))
    }

    /// Takes what lies in these slices over.
    fn extend(&mut self, other: &PageRows, inside: &[Range<u32>]) {
        let is_in = |slice: Slice| {
            let at = inside.partition_point(|range| range.end <= slice.0);
            inside.get(at).is_some_and(|range| range.start <= slice.0)
        };
        self.increments.extend(other.increments.iter().filter(|(slice, _)| is_in(*slice)));
        self.gauges.extend(other.gauges.iter().filter(|row| is_in(row.slice)));
        self.sets.extend(other.sets.iter().filter(|(slice, _)| is_in(*slice)).cloned());
        for (slice, row) in other.distributions().filter(|(slice, _)| is_in(*slice)) {
            self.heads.push((slice, self.lists.push(&row)));
        }
    }

    fn heap_bytes(&self) -> usize {
        self.increments.capacity() * size_of::<(Slice, i128)>()
            + self.gauges.capacity() * size_of::<GaugeRow>()
            + self.heads.capacity() * size_of::<(Slice, Head)>()
            + self.lists.heap_bytes()
            // A dense one has 4 KiB of registers; most are small.
            + self.sets.capacity() * (size_of::<Distinct>() + 512)
            + size_of::<PageRows>()
    }
}

/// Rows of one series and span that were read before.
struct Kept {
    span: PageSpan,
    has_cells: bool,
    rows: Arc<PageRows>,
    used: u64,
}

/// What was read before, by tier, span and series.
#[derive(Default)]
pub(super) struct PageCache {
    rows: HashMap<(u32, u32, u32), Kept, foldhash::fast::FixedState>,
    bytes: usize,
    clock: u64,
}

impl PageCache {
    fn get(&mut self, span: &PageSpan, id: SeriesId, cells: bool) -> Option<Arc<PageRows>> {
        let clock = self.clock;
        let kept = self.rows.get_mut(&(span.resolution, span.start.0, id.0))?;
        if kept.span.newest != span.newest || (cells && !kept.has_cells) {
            return None;
        }
        kept.used = clock;
        Some(Arc::clone(&kept.rows))
    }

    fn keep(&mut self, span: PageSpan, id: SeriesId, has_cells: bool, rows: Arc<PageRows>) {
        self.bytes += rows.heap_bytes();
        let kept = Kept { span, has_cells, rows, used: self.clock };
        if let Some(old) = self.rows.insert((span.resolution, span.start.0, id.0), kept) {
            self.bytes -= old.rows.heap_bytes();
        }
    }

    /// Lets a quarter go of those that were used least recently, once there is too much.
    fn trim(&mut self) {
        if self.bytes <= PAGE_ROWS_BYTES_MAX {
            return;
        }
        let mut by_use: Vec<(u64, (u32, u32, u32))> = self.rows.iter().map(|(key, kept)| (kept.used, *key)).collect();
        by_use.sort_unstable();
        for (_, key) in by_use {
            if self.bytes <= PAGE_ROWS_BYTES_MAX / 4 * 3 {
                break;
            }
            if let Some(old) = self.rows.remove(&key) {
                self.bytes -= old.rows.heap_bytes();
            }
        }
    }
}

/// What a row takes, about.
fn row_bytes(kind: Kind) -> usize {
    match kind {
        Kind::Counter => size_of::<(Slice, i128)>(),
        Kind::Gauge => size_of::<GaugeRow>(),
        Kind::Distribution => 1024,
        Kind::Set => size_of::<Distinct>() + 512,
    }
}

/// How many series may be read at once by these runs.
pub(super) fn batch_len(kind: Kind, runs: &[&[Run]]) -> usize {
    let slots: usize = runs.iter().flat_map(|runs| runs.iter()).map(slots_of).sum();
    (BATCH_BYTES / (slots.max(1) * row_bytes(kind))).clamp(1, 16 * BLOCK_SERIES as usize)
}

fn slots_of(run: &Run) -> usize {
    (run.to.saturating_sub(run.from)).div_ceil(run.resolution) as usize
}

impl Worlds {
    /// What pages hold of these series in these runs, in the order of `ids`. Counts against nothing: whoever asks keeps
    /// `ids` within [`batch_len`].
    pub(super) fn gather(
        &self,
        history: &History,
        kind: Kind,
        ids: &[SeriesId],
        runs: &[Run],
        cells: bool,
    ) -> Result<Vec<PageRows>, DataError> {
        let mut gathered: Vec<PageRows> = Vec::new();
        gathered.resize_with(ids.len(), PageRows::default);
        let mut order: Vec<(SeriesId, usize)> = ids.iter().copied().zip(0..).collect();
        order.sort_unstable();
        let wanted = history.wanted(runs);
        let is_kept = wanted.len() * ids.len() * SLOTS as usize * row_bytes(kind) <= KEPT_AT_ONCE;
        for (span, inside) in wanted {
            let mut missing = order.clone();
            if is_kept {
                let mut cache = self.page_cache();
                cache.clock += 1;
                missing.retain(|(id, place)| match cache.get(span, *id, cells) {
                    Some(rows) => {
                        gathered[*place].extend(&rows, &inside);
                        false
                    }
                    None => true,
                });
            }
            if missing.is_empty() {
                continue;
            }
            let mut strips: Vec<PageRows> = Vec::new();
            if is_kept {
                strips.resize_with(missing.len(), PageRows::default);
            }
            self.read_span(span, kind, &missing, &inside, is_kept, cells, &mut |at, slice, value| match is_kept {
                true => strips[at].push(slice, value),
                false => gathered[missing[at].1].push(slice, value),
            })?;
            let mut cache = self.page_cache();
            for ((id, place), strip) in missing.iter().zip(strips) {
                gathered[*place].extend(&strip, &inside);
                cache.keep(*span, *id, cells, Arc::new(strip));
            }
            cache.trim();
        }
        Ok(gathered)
    }

    fn page_cache(&self) -> std::sync::MutexGuard<'_, PageCache> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the pages of a span and hands over the rows of these series, each by its place among them: of the whole span,
    /// or of what lies inside.
    #[expect(clippy::too_many_arguments, reason = "what is read, of whom, and how much of it")]
    fn read_span(
        &self,
        span: &PageSpan,
        kind: Kind,
        series: &[(SeriesId, usize)],
        inside: &[Range<u32>],
        is_whole: bool,
        cells: bool,
        hand: &mut dyn FnMut(usize, Slice, &RowValue<'_>),
    ) -> Result<(), DataError> {
        let ids: Vec<SeriesId> = series.iter().map(|(id, _)| *id).collect();
        let copied = self.reader.snapshot(|snapshot| {
            let found = snapshot.page_spans(span.resolution, span.start..Slice(span.start.0.saturating_add(1)))?;
            if !found.iter().any(|found| (found.start, found.newest) == (span.start, span.newest)) {
                return Ok(None);
            }
            let mut pages = Vec::new();
            for run in ids.chunk_by(|a, b| b.0 / BLOCK_SERIES - a.0 / BLOCK_SERIES <= 1) {
                let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
                let range = *first..SeriesId(last.0.saturating_add(1));
                snapshot.read_pages(*span, kind, range, &mut |bytes| {
                    pages.push(bytes.to_vec());
                    Ok(())
                })?;
            }
            Ok(Some(pages))
        });
        let Some(pages) = copied.map_err(failed)? else {
            return Err(DataError {
                is_stale: true,
                ..DataError::new("the history has been moved while it was read; ask again")
            });
        };
        let slots = match (is_whole, inside.first(), inside.last()) {
            (false, Some(first), Some(last)) => {
                let slot = |slice: u32| (slice - span.start.0) / span.resolution;
                slot(first.start) as u16..slot(last.end - 1) as u16 + 1
            }
            _ => 0..SLOTS as u16,
        };
        let (mut buffers, mut place) = (PageBuffers::default(), 0);
        for bytes in &pages {
            let read = Page::new(bytes).and_then(|page| {
                page.read(Wanted::Ids(&ids), slots.clone(), cells, &mut buffers, &mut |id, slot, value| {
                    if ids.get(place) != Some(&id) {
                        place = ids.partition_point(|known| *known < id);
                    }
                    let slice = span.start.0 + u32::from(slot) * span.resolution;
                    let at = inside.partition_point(|range| range.end <= slice);
                    if is_whole || inside.get(at).is_some_and(|range| range.start <= slice) {
                        hand(place, Slice(slice), value);
                    }
                    Ok(())
                })
            });
            read.map_err(|source| failed(failed_part(self, source)))?;
        }
        Ok(())
    }
}
