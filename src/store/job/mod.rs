//! Jobs of the history: segments become pages, spans are rolled up, generations are folded into one (H1, H5).
//!
//! In: a [`HistorySpec`], snapshots of the file. Out: [`HistoryStep`]s for the commits that write them. Owns: a piece of
//! each run it merges, and the rows of one step. Invariants: memory is bounded by the number of runs and the rows of one
//! step, not by the history; rows come out by (kind, id, slot), and two of the same place are merged exactly; nothing is
//! visible before the last step. A job whose inputs were changed is *stale* and is begun anew.

mod blocks;
mod gather;
mod rows;
mod sink;

use self::blocks::Blocks;
use self::gather::Gather;
use self::sink::Sink;
use super::base::{SumMap, add_row};
use super::error::{Fault, corrupt};
use super::format::{Manifest, PAGE_KEY, Span, Table, tier_span_key, unseal};
use super::tier::{Generation, Target, TierSpan};
use crate::delta::part::RowValue;
use crate::event::SeriesId;
use redb::{ReadOnlyTable, ReadTransaction};
use std::sync::Arc;

/// A step ends when it has produced so many bytes of pages: a bounded commit (H5).
const STEP_BYTES: usize = 4 << 20;
/// A step ends when it has read so many rows, whatever came out of them: a short snapshot.
const STEP_ROWS: usize = 400_000;

/// A table of byte rows as a snapshot sees it.
pub(super) type Source = ReadOnlyTable<&'static [u8], &'static [u8]>;
/// What takes the rows of an input: id, slice and value, ascending by (kind, id, slice).
pub(super) type Push<'p> = dyn FnMut(SeriesId, u32, &RowValue<'_>) -> Result<(), Fault> + 'p;

/// What a job is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Segments of a span of the first tier become pages.
    Page,
    /// A span is added to coarser tiers, or to `base`.
    Roll,
    /// Generations of a span become one.
    Fold,
}

/// A segment as it stood when a job began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentSource {
    pub(super) slice: u32,
    pub(super) generation: u32,
    pub(super) rows: Manifest,
}

/// What a job reads and where it writes. Two equal specs are the same work on the same rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HistorySpec {
    pub(super) purpose: Purpose,
    /// Of the span that is read; of segments that of the first tier.
    pub(super) resolution: u32,
    pub(super) start: u32,
    /// Read for [`Purpose::Page`]: every one that stands in the span, ascending.
    pub(super) segments: Vec<SegmentSource>,
    /// Read for the others.
    pub(super) generations: Vec<Generation>,
    pub(super) targets: Vec<Target>,
    pub(super) to_base: bool,
}

/// A row of table `pages` that is to be written.
#[derive(Debug)]
pub(super) struct PageRow {
    pub(super) key: [u8; PAGE_KEY],
    pub(super) sum: u64,
    pub(super) bytes: Vec<u8>,
}

/// What one commit writes for a job of the history. Committing it twice is harmless.
#[derive(Debug)]
pub struct HistoryStep {
    pub(super) spec: Arc<HistorySpec>,
    pub(super) is_first: bool,
    pub(super) rows: Vec<PageRow>,
    pub(super) finish: Option<HistoryFinish>,
}

#[derive(Debug)]
pub(super) struct HistoryFinish {
    /// One for each target; without rows where nothing came out.
    pub(super) written: Vec<Generation>,
    /// What `base` gains.
    pub(super) sums: SumMap,
}

impl HistoryStep {
    /// True for the step that makes the pages visible; the job is then spent.
    pub fn is_last(&self) -> bool {
        self.finish.is_some()
    }

    /// Bytes of pages it writes.
    pub fn bytes(&self) -> usize {
        self.rows.iter().map(|row| row.bytes.len()).sum()
    }
}

/// How far an input has come.
pub(super) enum Progress {
    More,
    Done,
    /// What it reads is not there any more.
    Stale,
}

enum Input {
    Segments(Gather),
    Pages(Box<Blocks>),
}

/// The work of one spec, between two steps.
pub(super) struct HistoryJob {
    spec: Arc<HistorySpec>,
    input: Input,
    sinks: Vec<Sink>,
    sums: SumMap,
    has_started: bool,
    /// Bytes and rows after which a step ends.
    limits: (usize, usize),
}

impl HistoryJob {
    pub(super) fn new(spec: HistorySpec) -> HistoryJob {
        let input = match spec.purpose {
            Purpose::Page => Input::Segments(Gather::new(&spec.segments)),
            Purpose::Roll | Purpose::Fold => {
                Input::Pages(Box::new(Blocks::new(spec.resolution, spec.start, &spec.generations)))
            }
        };
        // Slices of a segment are slots of the first tier: nothing meets there.
        let is_plain = |target: &Target| spec.purpose == Purpose::Page && target.resolution == 1;
        let sinks = spec.targets.iter().map(|target| Sink::new(*target, is_plain(target))).collect();
        let limits = (STEP_BYTES, STEP_ROWS);
        HistoryJob { spec: Arc::new(spec), input, sinks, sums: SumMap::new(), has_started: false, limits }
    }

    /// The same in smaller steps.
    #[cfg(test)]
    pub(super) fn limited(self, bytes: usize, rows: usize) -> HistoryJob {
        HistoryJob { limits: (bytes, rows), ..self }
    }

    /// Merges on until a step is full; `None` when the job is stale. Commit the step before the one after the next is
    /// asked for.
    pub(super) fn step(&mut self, txn: &ReadTransaction) -> Result<Option<HistoryStep>, Fault> {
        let HistoryJob { spec, input, sinks, sums, limits: (bytes_max, rows_max), .. } = self;
        let (bytes_max, rows_max) = (*bytes_max, *rows_max);
        let table = match input {
            Input::Segments(_) => Table::Segments,
            Input::Pages(_) => Table::Pages,
        };
        let source = txn.open_table(table.rows())?;
        let mut rows_read = 0;
        let mut is_done = false;
        while rows_read < rows_max && sinks.iter().map(Sink::bytes).sum::<usize>() < bytes_max {
            let mut push = |id: SeriesId, slice: u32, value: &RowValue<'_>| {
                rows_read += 1;
                if spec.to_base {
                    add_row(sums, id, value)?;
                }
                sinks.iter_mut().try_for_each(|sink| sink.push(id, slice, value))
            };
            let progress = match input {
                Input::Segments(gather) => gather.pump(&source, &mut push)?,
                Input::Pages(blocks) => blocks.pump(&source, &mut push)?,
            };
            match progress {
                Progress::More => {}
                Progress::Done => {
                    is_done = true;
                    break;
                }
                Progress::Stale if is_present(spec, txn)? => {
                    let HistorySpec { resolution, start, .. } = **spec;
                    let what = format_args!("rows of the span {start} of resolution {resolution} are not all there");
                    return Err(corrupt(what));
                }
                Progress::Stale => return Ok(None),
            }
        }
        let finish = match is_done {
            true => {
                let written = sinks.iter_mut().map(Sink::finish).collect::<Result<_, _>>()?;
                Some(HistoryFinish { written, sums: std::mem::take(sums) })
            }
            false => None,
        };
        let rows = sinks.iter_mut().flat_map(Sink::take).collect();
        let is_first = !std::mem::replace(&mut self.has_started, true);
        Ok(Some(HistoryStep { spec: Arc::clone(&self.spec), is_first, rows, finish }))
    }
}

/// Whether a snapshot still lists everything that a job reads.
fn is_present(spec: &HistorySpec, txn: &ReadTransaction) -> Result<bool, Fault> {
    if spec.purpose == Purpose::Page {
        let spans = txn.open_table(Table::Spans.rows())?;
        for segment in &spec.segments {
            let key = segment.slice.to_be_bytes();
            let Some(value) = spans.get(key.as_slice())? else { return Ok(false) };
            let span = Span::decode(unseal(Table::Spans, &key, value.value())?)?;
            if (span.generation, span.segments) != (segment.generation, segment.rows) {
                return Ok(false);
            }
        }
        return Ok(true);
    }
    let key = tier_span_key(spec.resolution, spec.start);
    let spans = txn.open_table(Table::TierSpans.rows())?;
    let Some(value) = spans.get(key.as_slice())? else { return Ok(false) };
    let span = TierSpan::decode(unseal(Table::TierSpans, &key, value.value())?)?;
    Ok(spec.generations.iter().all(|generation| span.generations.contains(generation)))
}
