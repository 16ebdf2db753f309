//! The generations of a span, merged block by block.
//!
//! In: listed generations. Out: rows by (kind, id, slice); those of one place in several generations follow each other.
//! Owns: the pages of one block of 1,024 ids, and one further page of each generation. Invariant: every row of every
//! generation comes out once, and what was read is what its manifest says.

use super::super::error::{Fault, corrupt};
use super::super::format::{BLOCK_SERIES, Manifest, Table, claimed, page_key, page_of, unseal};
use super::super::page::{Page, PageBuffers, Wanted};
use super::super::tier::{Generation, SPAN_SLOTS};
use super::rows::RowBuffer;
use super::{Progress, Push, Source};
use crate::delta::part::{Corrupt, RowValue};
use crate::event::{Kind, SeriesId};
use std::ops::Bound;

/// Series that are merged at once: rows of so many are held decoded. Few of those that are wide.
fn group_of(kind: Kind) -> usize {
    match kind {
        Kind::Counter | Kind::Gauge => 128,
        Kind::Distribution | Kind::Set => 16,
    }
}

/// One generation.
struct Lane {
    generation: Generation,
    /// The page behind those that were taken.
    ahead: Option<Ahead>,
    seen: Manifest,
}

struct Ahead {
    kind: Kind,
    first: u32,
    bytes: Vec<u8>,
}

/// All generations of a span.
pub(super) struct Blocks {
    resolution: u32,
    start: u32,
    lanes: Vec<Lane>,
    has_begun: bool,
    /// The block that is under way.
    kind: Kind,
    /// Its pages, by generation.
    pages: Vec<Vec<Vec<u8>>>,
    /// Its series, ascending, and how many are done.
    ids: Vec<SeriesId>,
    done: usize,
    rows: RowBuffer,
    buffers: PageBuffers,
}

impl Blocks {
    pub(super) fn new(resolution: u32, start: u32, generations: &[Generation]) -> Blocks {
        let lane = |generation: &Generation| Lane { generation: *generation, ahead: None, seen: Manifest::default() };
        Blocks {
            resolution,
            start,
            lanes: generations.iter().map(lane).collect(),
            has_begun: false,
            kind: Kind::Counter,
            pages: Vec::new(),
            ids: Vec::new(),
            done: 0,
            rows: RowBuffer::default(),
            buffers: PageBuffers::default(),
        }
    }

    /// Gives all rows of the next few series.
    pub(super) fn pump(&mut self, table: &Source, push: &mut Push<'_>) -> Result<Progress, Fault> {
        if !self.has_begun {
            for lane in &mut self.lanes {
                lane.load(self.resolution, self.start, table)?;
            }
            self.has_begun = true;
        }
        if self.done == self.ids.len() && !self.next_block(table)? {
            let is_whole = self.lanes.iter().all(|lane| lane.seen == lane.generation.rows);
            return Ok(if is_whole { Progress::Done } else { Progress::Stale });
        }
        let group = &self.ids[self.done..self.ids.len().min(self.done + group_of(self.kind))];
        let Blocks { pages, rows, buffers, resolution, start, .. } = self;
        let slice_of = |slot: u16| *start + u32::from(slot) * *resolution;
        let has_one = pages.iter().filter(|pages| !pages.is_empty()).count() == 1;
        // A visitor may only say that bytes are wrong; what else went wrong is kept beside.
        let mut failed = Ok(());
        for bytes in pages.iter().flatten() {
            let mut visit = |id: SeriesId, slot: u16, value: &RowValue<'_>| {
                if has_one {
                    if failed.is_ok() {
                        failed = push(id, slice_of(slot), value);
                    }
                } else {
                    rows.add(id, slice_of(slot), value);
                }
                if failed.is_ok() { Ok(()) } else { Err(Corrupt { at: 0 }) }
            };
            let read = Page::new(bytes)?.read(Wanted::Ids(group), 0..SPAN_SLOTS as u16, true, buffers, &mut visit);
            std::mem::replace(&mut failed, Ok(()))?;
            read?;
        }
        if !has_one {
            rows.drain(push)?;
        }
        self.done += group.len();
        Ok(Progress::More)
    }

    /// Takes the pages of the next block; false behind the last.
    fn next_block(&mut self, table: &Source) -> Result<bool, Fault> {
        let block_of = |ahead: &Ahead| (ahead.kind as u8, ahead.first / BLOCK_SERIES);
        let Some(block) = self.lanes.iter().filter_map(|lane| lane.ahead.as_ref()).map(block_of).min() else {
            return Ok(false);
        };
        self.pages.clear();
        self.ids.clear();
        for lane in &mut self.lanes {
            let mut pages = Vec::new();
            while let Some(ahead) = lane.ahead.take_if(|ahead| block_of(ahead) == block) {
                self.kind = ahead.kind;
                let page = Page::new(&ahead.bytes)?;
                let before = self.ids.len();
                page.ids(&mut self.ids)?;
                let is_of = |id: &SeriesId| id.0 / BLOCK_SERIES == block.1 && id.0 >= ahead.first;
                if page.kind() != ahead.kind || !self.ids[before..].iter().all(is_of) {
                    return Err(corrupt("a page that stands under another page's key"));
                }
                lane.load_behind(&ahead, self.resolution, self.start, table)?;
                pages.push(ahead.bytes);
            }
            self.pages.push(pages);
        }
        self.ids.sort_unstable();
        self.ids.dedup();
        self.done = 0;
        Ok(true)
    }
}

impl Lane {
    fn load(&mut self, resolution: u32, start: u32, table: &Source) -> Result<(), Fault> {
        let first = page_key(resolution, start, self.generation.number, 0, 0);
        self.find(Bound::Included(first.as_slice()), resolution, start, table)
    }

    fn load_behind(&mut self, last: &Ahead, resolution: u32, start: u32, table: &Source) -> Result<(), Fault> {
        let key = page_key(resolution, start, self.generation.number, last.kind as u8, last.first);
        self.find(Bound::Excluded(key.as_slice()), resolution, start, table)
    }

    fn find(&mut self, from: Bound<&[u8]>, resolution: u32, start: u32, table: &Source) -> Result<(), Fault> {
        let last = page_key(resolution, start, self.generation.number, 0xFF, u32::MAX);
        let row = table.range::<&[u8]>((from, Bound::Included(last.as_slice())))?.next();
        let Some((key, value)) = row.transpose()? else { return Ok(()) };
        let (kind, first) = page_of(key.value())?;
        let bytes = unseal(Table::Pages, key.value(), value.value())?;
        self.seen.add(claimed(value.value())?, bytes.len());
        self.ahead = Some(Ahead { kind, first, bytes: bytes.to_vec() });
        Ok(())
    }
}
