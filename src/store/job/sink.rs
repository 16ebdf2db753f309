//! Rows on their way into one span: merged by slot, written as pages.
//!
//! In: rows by (kind, id, slice). Out: rows of table `pages`. Owns: the page that is being written, the row that may still
//! grow. Invariants: a page holds series of one kind and of one block of 1,024 ids; it is cut between two series below
//! [`CHUNK_BYTES`] unless one series alone is longer.

use super::super::error::Fault;
use super::super::format::{BLOCK_SERIES, CHUNK_BYTES, Manifest, Table, allocated, checksum, page_key};
use super::super::merge::Merged;
use super::super::page::PageWriter;
use super::super::tier::{Generation, Target};
use super::PageRow;
use crate::delta::part::RowValue;
use crate::event::{Kind, SeriesId};

/// The page that is being written.
struct Open {
    kind: Kind,
    first: SeriesId,
    last: SeriesId,
    /// How long it was before its last series.
    before: usize,
    writer: PageWriter,
}

/// See the file's head.
pub(super) struct Sink {
    target: Target,
    /// No two rows fall into one slot.
    is_plain: bool,
    merged: Merged,
    /// Whose row `merged` is.
    held: Option<(SeriesId, u16)>,
    open: Option<Open>,
    rows: Vec<PageRow>,
    bytes: usize,
    written: Generation,
}

impl Sink {
    pub(super) fn new(target: Target, is_plain: bool) -> Sink {
        let written = Generation { number: target.generation, allocated: 0, rows: Manifest::default() };
        Sink { target, is_plain, merged: Merged::new(), held: None, open: None, rows: Vec::new(), bytes: 0, written }
    }

    /// Bytes of pages that are finished and not taken.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn push(&mut self, id: SeriesId, slice: u32, value: &RowValue<'_>) -> Result<(), Fault> {
        let slot = ((slice - self.target.start) / self.target.resolution) as u16;
        if self.is_plain {
            self.write(id, slot, value);
        } else if self.held == Some((id, slot)) {
            self.merged.add(value)?;
        } else {
            self.flush();
            self.merged.begin(value)?;
            self.held = Some((id, slot));
        }
        Ok(())
    }

    fn flush(&mut self) {
        if let Some((id, slot)) = self.held.take() {
            let merged = std::mem::take(&mut self.merged);
            self.write(id, slot, &merged.value());
            self.merged = merged;
        }
    }

    fn write(&mut self, id: SeriesId, slot: u16, value: &RowValue<'_>) {
        let kind = value.kind();
        if let Some(open) = &mut self.open
            && open.last != id
        {
            let len = open.writer.bytes_len();
            // The next series is taken to be as long as this one.
            let is_full = len + len.saturating_sub(open.before) >= CHUNK_BYTES;
            let is_other = open.kind != kind || open.first.0 / BLOCK_SERIES != id.0 / BLOCK_SERIES;
            if is_other || is_full {
                self.end_page();
            } else {
                (open.last, open.before) = (id, len);
            }
        }
        let fresh = || Open { kind, first: id, last: id, before: 0, writer: PageWriter::new(kind) };
        self.open.get_or_insert_with(fresh).writer.row(id, slot, value);
    }

    fn end_page(&mut self) {
        let Some(open) = self.open.take() else { return };
        let bytes = open.writer.finish();
        let Target { resolution, start, generation } = self.target;
        let key = page_key(resolution, start, generation, open.kind as u8, open.first.0);
        let sum = checksum(Table::Pages.name(), &key, &bytes);
        self.written.rows.add(sum, bytes.len());
        self.written.allocated += allocated(key.len(), 8 + bytes.len());
        self.bytes += bytes.len();
        self.rows.push(PageRow { key, sum, bytes });
    }

    /// Ends the last page; what was written in all.
    pub(super) fn finish(&mut self) -> Result<Generation, Fault> {
        self.flush();
        self.end_page();
        Ok(self.written)
    }

    /// The finished pages.
    pub(super) fn take(&mut self) -> Vec<PageRow> {
        self.bytes = 0;
        std::mem::take(&mut self.rows)
    }
}
