//! The segments of a span, merged: for each series its rows slice by slice.
//!
//! In: segments that stand. Out: rows by (kind, id, slice). Owns: at most [`PIECE_BYTES`] of each segment, or one block of
//! a row that an older program wrote longer. Invariant: every row of every segment comes out once, and what was read is
//! what its manifest says.

use super::super::error::{Fault, corrupt};
use super::super::format::{Manifest, Table, claimed, segment_key, unseal};
use super::super::read::segment_range;
use super::{Progress, Push, SegmentSource, Source};
use crate::delta::part::{PartCursor, PartPosition, Scratch, VERSION, block_ranges};
use crate::event::{Kind, SeriesId};
use std::ops::Bound;

/// What is held of a segment: about a row of it as this program writes them.
const PIECE_BYTES: usize = 64 << 10;
/// No further row.
const END: u64 = u64::MAX;

/// One segment.
struct Run {
    source: SegmentSource,
    /// The row that is held in part, with how many of its blocks were taken.
    row: Option<([u8; 13], usize)>,
    /// Blocks of that row are left.
    has_more: bool,
    bytes: Vec<u8>,
    position: Option<PartPosition>,
    seen: Manifest,
}

/// All segments of a span.
pub(super) struct Gather {
    runs: Vec<Run>,
    /// Kind and id of each run's next row, in one number; apart from the runs, since all are looked at for each series.
    heads: Vec<u64>,
    scratch: Scratch,
    has_begun: bool,
}

fn number(kind: Kind, id: SeriesId) -> u64 {
    u64::from(kind as u8) << 32 | u64::from(id.0)
}

impl Gather {
    pub(super) fn new(segments: &[SegmentSource]) -> Gather {
        let run = |source: &SegmentSource| Run {
            source: *source,
            row: None,
            has_more: false,
            bytes: Vec::new(),
            position: None,
            seen: Manifest::default(),
        };
        let runs: Vec<Run> = segments.iter().map(run).collect();
        let heads = vec![END; runs.len()];
        Gather { runs, heads, scratch: Scratch::default(), has_begun: false }
    }

    /// Gives all rows of the next series.
    pub(super) fn pump(&mut self, table: &Source, push: &mut Push<'_>) -> Result<Progress, Fault> {
        if !self.has_begun {
            for (run, head) in self.runs.iter_mut().zip(&mut self.heads) {
                match run.load(table)? {
                    Some(next) => *head = next,
                    None => return Ok(Progress::Stale),
                }
            }
            self.has_begun = true;
        }
        let next = self.heads.iter().copied().min().unwrap_or(END);
        if next == END {
            return Ok(Progress::Done);
        }
        let id = SeriesId(next as u32);
        for (run, head) in self.runs.iter_mut().zip(&mut self.heads).filter(|(_, head)| **head == next) {
            let position = run.position.ok_or_else(|| corrupt("a run without rows"))?;
            let mut cursor = PartCursor::resume(&run.bytes, position);
            let row = cursor.next(&mut self.scratch)?.ok_or_else(|| corrupt("a run ended early"))?;
            push(id, run.source.slice, &row.value)?;
            drop(row);
            let ahead = cursor.peek()?;
            run.position = Some(cursor.position());
            *head = match ahead {
                Some((kind, id)) => number(kind, id),
                None => match run.load(table)? {
                    Some(next) => next,
                    None => return Ok(Progress::Stale),
                },
            };
            if *head <= next {
                return Err(corrupt(format_args!("rows of slice {} are out of order", run.source.slice)));
            }
        }
        Ok(Progress::More)
    }
}

impl Run {
    /// Takes the next piece; its first row, [`END`] behind the last, `None` when rows are missing.
    fn load(&mut self, table: &Source) -> Result<Option<u64>, Fault> {
        self.position = None;
        let (first, last) = segment_range(self.source.slice, self.source.generation);
        let (from, taken) = match &self.row {
            None => (Bound::Included(first.as_slice()), 0),
            Some((key, taken)) if self.has_more => (Bound::Included(key.as_slice()), *taken),
            Some((key, _)) => (Bound::Excluded(key.as_slice()), 0),
        };
        let is_again = taken > 0;
        let row = table.range::<&[u8]>((from, Bound::Included(last.as_slice())))?.next();
        let Some((key, value)) = row.transpose()? else {
            self.bytes = Vec::new();
            let is_whole = self.seen == self.source.rows && !is_again;
            return Ok(is_whole.then_some(END));
        };
        let found: [u8; 13] = key.value().try_into().map_err(|_| corrupt("a key of table segments"))?;
        if is_again && self.row.is_none_or(|(key, _)| key != found) {
            return Ok(None);
        }
        let part = unseal(Table::Segments, &found, value.value())?;
        if !is_again {
            self.seen.add(claimed(value.value())?, part.len());
        }
        self.bytes.clear();
        if part.len() <= PIECE_BYTES * 2 && !is_again {
            self.bytes.extend_from_slice(part);
            (self.row, self.has_more) = (Some((found, 0)), false);
        } else {
            let blocks = block_ranges(part)?;
            let mut next = taken;
            self.bytes.push(VERSION);
            while next < blocks.len() && (next == taken || self.bytes.len() < PIECE_BYTES) {
                self.bytes.extend_from_slice(&part[blocks[next].clone()]);
                next += 1;
            }
            (self.row, self.has_more) = (Some((found, next)), next < blocks.len());
        }
        let cursor = PartCursor::new(&self.bytes)?;
        let (kind, id) = cursor.peek()?.ok_or_else(|| corrupt("a segment row without rows"))?;
        self.position = Some(cursor.position());
        debug_assert!(found >= segment_key(self.source.slice, self.source.generation, Kind::Counter, 0));
        Ok(Some(number(kind, id)))
    }
}
