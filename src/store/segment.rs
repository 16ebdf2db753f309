//! Folding the log rows of a slice into a segment, in bounded steps (H1, H5).
//!
//! In: a slice whose log rows all totals have seen. Out: [`SegmentStep`]s for the commits that write them.
//! Owns: at most one chunk of each run, and the rows of one step. Invariants: a segment equals the merge of
//! the rows it replaces; nothing is visible before the last step, which removes those rows.

use super::error::{Fault, StoreError, corrupt};
use super::format::*;
use super::ledger::Ledger;
use super::merge::Merged;
use super::read::{log_range, segment_range};
use crate::delta::part::{PartCursor, PartPosition, PartWriter, Scratch};
use crate::event::{Kind, SeriesId, Slice};
use redb::{ReadTransaction, ReadableDatabase};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// A segment row ends when it has grown to this: one more row of a series usually fits below 64 KiB, by which redb
/// allocates. Not longer, since the job that pages a span holds a row of each of its 360 slices.
const ROW_BYTES: usize = (62 << 10) - 256;
/// A step ends early when it has produced this much, whatever the number of rows.
const STEP_BYTES: usize = 8 << 20;
/// Slices, and bytes of their parts, that one commit makes segments of without a worker.
const SMALL_SLICES: usize = 8;
const SMALL_BYTES: u64 = 256 << 10;
/// Log rows beyond which a slice that still gets late rows is folded nevertheless.
const LATE_ROWS_MAX: u64 = 512;

/// The work of folding one slice, between two steps.
pub struct SegmentJob {
    slice: Slice,
    generation: u32,
    through: u64,
    runs: Vec<Run>,
    /// The next row of every run that has one: least (kind, id) first, then the oldest run.
    heads: BinaryHeap<Reverse<(Kind, SeriesId, usize)>>,
    folded: Manifest,
    written: Manifest,
    /// The newest commit whose rows are taken.
    limit: u64,
    has_started: bool,
}

/// What one commit writes for a [`SegmentJob`]. Committing it twice is harmless.
#[derive(Debug)]
pub struct SegmentStep {
    pub(super) slice: Slice,
    pub(super) generation: u32,
    pub(super) is_first: bool,
    pub(super) rows: Vec<SegmentRow>,
    pub(super) finish: Option<Finish>,
}

#[derive(Debug)]
pub(super) struct SegmentRow {
    pub(super) key: [u8; 13],
    pub(super) sum: u64,
    pub(super) part: Vec<u8>,
}

#[derive(Debug)]
pub(super) struct Finish {
    pub(super) through: u64,
    /// The log rows that go.
    pub(super) folded: Manifest,
    /// The segment rows that take their place.
    pub(super) written: Manifest,
}

impl SegmentStep {
    /// True for the step that makes the segment visible; the job is then spent.
    pub fn is_last(&self) -> bool {
        self.finish.is_some()
    }

    /// Of which slice.
    pub fn slice(&self) -> Slice {
        self.slice
    }

    /// Bytes of parts it writes.
    pub fn bytes(&self) -> usize {
        self.rows.iter().map(|row| row.part.len()).sum()
    }
}

/// Chunks whose rows ascend: a part of the log, or the segment so far.
struct Run {
    table: Table,
    chunks: VecDeque<Vec<u8>>,
    bytes: Vec<u8>,
    position: Option<PartPosition>,
    scratch: Scratch,
}

impl Run {
    /// Moves to the next row and says whose it is.
    fn head(&mut self, txn: &ReadTransaction) -> Result<Option<(Kind, SeriesId)>, Fault> {
        loop {
            if let Some(position) = self.position {
                let next = PartCursor::resume(&self.bytes, position).peek()?;
                if next.is_some() {
                    return Ok(next);
                }
            }
            let Some(key) = self.chunks.pop_front() else {
                (self.bytes, self.position) = (Vec::new(), None);
                return Ok(None);
            };
            let value = txn.open_table(self.table.rows())?.get(key.as_slice())?;
            let value = value.ok_or_else(|| corrupt(format_args!("a row of {} vanished", self.table.name())))?;
            self.bytes.clear();
            self.bytes.extend_from_slice(unseal(self.table, &key, value.value())?);
            self.position = Some(PartCursor::new(&self.bytes)?.position());
        }
    }
}

impl Ledger {
    /// The oldest slice before `open` whose log should be folded now: it has log rows that all totals have
    /// seen, and has been quiet since (or has very many).
    pub fn segment_candidate(&self, open: Slice) -> Option<Slice> {
        self.segment_candidates(open).next().map(|(slice, _)| slice)
    }

    fn segment_candidates(&self, open: Slice) -> impl Iterator<Item = (Slice, &Span)> {
        let through = self.totals_through().0;
        let is_due = move |span: &Span| {
            span.log.rows > 0 && (span.newest <= through || (span.log.rows > LATE_ROWS_MAX && span.through < through))
        };
        let due = self.spans.range(..open.0).filter(move |(slice, span)| is_due(span) && !self.is_rubbish(**slice));
        due.map(|(slice, span)| (Slice(*slice), span))
    }

    /// Whole segments of the oldest slices whose logs should be folded now, as long as they are short: a worker would make one
    /// in two commits, and slices may be as short as a commit.
    ///
    /// # Errors
    /// I/O, or a corrupt row.
    pub(super) fn small_segments(&self, open: Slice) -> Result<Vec<SegmentStep>, StoreError> {
        let mut left = SMALL_BYTES;
        let mut steps = Vec::new();
        for (slice, span) in self.segment_candidates(open).take(SMALL_SLICES) {
            let bytes = span.log.bytes + span.segments.bytes;
            if bytes > left {
                break;
            }
            left -= bytes;
            let step = self.segment_step(&mut self.segment_job(slice), usize::MAX)?;
            if !step.is_last() {
                break;
            }
            steps.push(step);
        }
        Ok(steps)
    }

    /// Begins to fold a slice: all its log rows up to [`totals_through`](Ledger::totals_through), and the
    /// segment that stands. Drop the job when the slice is expired; at most one job of a slice at a time.
    pub fn segment_job(&self, slice: Slice) -> SegmentJob {
        let span = self.spans.get(&slice.0).copied().unwrap_or_default();
        SegmentJob {
            slice,
            generation: span.generation + 1,
            through: span.through,
            runs: Vec::new(),
            heads: BinaryHeap::new(),
            folded: Manifest::default(),
            written: Manifest::default(),
            limit: self.totals_through().0,
            has_started: false,
        }
    }

    /// True while a step may be committed: the slice is as it was when its job began, but for newer log rows.
    pub(super) fn is_current_segment(&self, step: &SegmentStep) -> bool {
        let span = self.spans.get(&step.slice.0).copied().unwrap_or_default();
        let is_whole = step.finish.as_ref().is_none_or(|finish| span.log.rows >= finish.folded.rows);
        span.generation + 1 == step.generation && is_whole
    }

    /// Merges about `rows_max` more series of a job. Commit the step (again, if a commit failed) before the
    /// next one is asked for.
    ///
    /// # Errors
    /// I/O, or a corrupt row; begin a new job then.
    pub fn segment_step(&self, job: &mut SegmentJob, rows_max: usize) -> Result<SegmentStep, StoreError> {
        self.with(|db| job.step(&db.begin_read()?, rows_max))
    }

    /// Folds a slice at once, in commits of its own steps: for tests and tools.
    ///
    /// # Errors
    /// As [`commit`](Ledger::commit).
    pub fn fold_slice(&mut self, slice: Slice, rows_max: usize) -> Result<(), StoreError> {
        let mut job = self.segment_job(slice);
        loop {
            let step = self.segment_step(&mut job, rows_max)?;
            self.commit(&super::CommitBatch { segment: Some(&step), ..self.next_batch() })?;
            if step.is_last() {
                return Ok(());
            }
        }
    }
}

impl Run {
    fn new(table: Table) -> Run {
        let (chunks, scratch) = (VecDeque::new(), Scratch::default());
        Run { table, chunks, bytes: Vec::new(), position: None, scratch }
    }
}

impl SegmentJob {
    /// Which slice it folds.
    pub fn slice(&self) -> Slice {
        self.slice
    }

    /// Lists what is to be merged.
    fn begin(&mut self, txn: &ReadTransaction) -> Result<(), Fault> {
        let mut run = Run::new(Table::Segments);
        if self.generation > 1 {
            let (first, last) = segment_range(self.slice.0, self.generation - 1);
            for row in txn.open_table(Table::Segments.rows())?.range(first.as_slice()..=last.as_slice())? {
                run.chunks.push_back(row?.0.value().to_vec());
            }
        }
        self.runs.push(run);
        let (first, last) = log_range(self.slice.0, self.limit);
        for row in txn.open_table(Table::Log.rows())?.range(first.as_slice()..=last.as_slice())? {
            let (key, value) = row?;
            let (_, commit, _, chunk) = log_key_of(key.value())?;
            self.folded.add(claimed(value.value())?, value.value().len() - 8);
            self.through = self.through.max(commit.0);
            if chunk == 0 {
                self.runs.push(Run::new(Table::Log));
            }
            self.runs.last_mut().expect("the first run was pushed above").chunks.push_back(key.value().to_vec());
        }
        for (number, run) in self.runs.iter_mut().enumerate() {
            if let Some((kind, id)) = run.head(txn)? {
                self.heads.push(Reverse((kind, id, number)));
            }
        }
        Ok(())
    }

    pub(super) fn step(&mut self, txn: &ReadTransaction, rows_max: usize) -> Result<SegmentStep, Fault> {
        let is_first = !std::mem::replace(&mut self.has_started, true);
        if is_first {
            self.begin(txn)?;
        }
        let mut output = Output { job: (self.slice.0, self.generation), rows: Vec::new(), row: None };
        let (mut taken, mut bytes) = (0, 0);
        let mut merged = Merged::new();
        while taken < rows_max.max(1)
            && bytes < STEP_BYTES
            && let Some(Reverse((kind, id, first))) = self.heads.pop()
        {
            let is_alone = self.heads.peek().is_none_or(|Reverse((k, i, _))| (*k, *i) != (kind, id));
            let writer = output.writer(kind, id, &mut self.written);
            if is_alone {
                self.take(txn, first, |value| {
                    writer.row(id, value);
                    Ok(())
                })?;
            } else {
                self.take(txn, first, |value| merged.begin(value))?;
                while let Some(Reverse((k, i, number))) = self.heads.peek().copied()
                    && (k, i) == (kind, id)
                {
                    self.heads.pop();
                    self.take(txn, number, |value| merged.add(value))?;
                }
                merged.write(id, writer);
            }
            taken += 1;
            bytes = output.rows.iter().map(|row| row.part.len()).sum::<usize>();
        }
        // A row of the file ends with the step: its last bytes would otherwise wait for the next one.
        output.end_row(&mut self.written);
        let finish = self.heads.is_empty().then_some(Finish {
            through: self.through,
            folded: self.folded,
            written: self.written,
        });
        Ok(SegmentStep { slice: self.slice, generation: self.generation, is_first, rows: output.rows, finish })
    }

    /// Gives the next row of a run to `use_row` and puts the run's new head into the heap.
    fn take(
        &mut self,
        txn: &ReadTransaction,
        number: usize,
        use_row: impl FnOnce(&crate::delta::part::RowValue<'_>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let run = &mut self.runs[number];
        let position = run.position.ok_or_else(|| corrupt("a run without rows"))?;
        let mut cursor = PartCursor::resume(&run.bytes, position);
        let row = cursor.next(&mut run.scratch)?.ok_or_else(|| corrupt("a run ended early"))?;
        let last = (row.value.kind(), row.id);
        use_row(&row.value)?;
        drop(row);
        run.position = Some(cursor.position());
        if let Some((kind, id)) = run.head(txn)? {
            if (kind, id) <= last {
                return Err(corrupt(format_args!("rows of slice {} are out of order", self.slice.0)));
            }
            self.heads.push(Reverse((kind, id, number)));
        }
        Ok(())
    }
}

/// The rows of one step; each is a part of one kind.
struct Output {
    job: (u32, u32),
    rows: Vec<SegmentRow>,
    row: Option<(Kind, SeriesId, PartWriter)>,
}

impl Output {
    fn writer(&mut self, kind: Kind, id: SeriesId, written: &mut Manifest) -> &mut PartWriter {
        if self.row.as_ref().is_some_and(|(k, _, writer)| *k != kind || writer.bytes_len() >= ROW_BYTES) {
            self.end_row(written);
        }
        &mut self.row.get_or_insert_with(|| (kind, id, PartWriter::new(Vec::new()))).2
    }

    fn end_row(&mut self, written: &mut Manifest) {
        if let Some((kind, id, writer)) = self.row.take() {
            let part = writer.finish();
            let key = segment_key(self.job.0, self.job.1, kind, id.0);
            let sum = checksum(Table::Segments.name(), &key, &part);
            written.add(sum, part.len());
            self.rows.push(SegmentRow { key, sum, part });
        }
    }
}
