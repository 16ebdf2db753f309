//! Expiry: slices leave the file, their sums stay in `base` (C5).
//!
//! In: slices past their retention. Out: an [`ExpireStep`] for the next commit. Invariant: base + what is
//! left = the sums of everything ever committed, before and after each commit.

use super::error::{Fault, StoreError, corrupt, guard};
use super::format::*;
use super::ledger::Ledger;
use super::page::{Page, PageBuffers, Wanted};
use super::read::{get, replay_pages, scan};
use super::series::{Reader, decode_whole};
use super::tier::SPAN_SLOTS;
use crate::delta::part::{PartCursor, RowValue, Scratch};
use crate::event::{Kind, SeriesId, Slice, WEIGHT_ONE};
use redb::ReadableDatabase;
use std::collections::BTreeMap;

/// The sums of a series, in units that add up whatever the rows were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BaseSums {
    /// Of what.
    pub kind: Kind,
    /// Samples (distributions and gauges).
    pub count: u64,
    /// Σ weight in 1/4096 (distributions).
    pub weight: u64,
    /// Counters: 10⁻⁹. Gauges: scale units. Distributions: scale units × 4096.
    pub sum: i128,
}

impl BaseSums {
    /// The sums of a row; sets have none.
    fn of(row: &RowValue<'_>) -> Option<BaseSums> {
        let (count, weight, sum) = match row {
            RowValue::Counter(counter) => (0, 0, counter.nanos),
            RowValue::Gauge(gauge) => (gauge.count, 0, gauge.sum),
            RowValue::Distribution(row) => {
                let factor = if row.weighted { 1 } else { WEIGHT_ONE };
                let cells = row.cells.iter().try_fold(0u64, |sum, (_, n)| sum.checked_add(*n))?;
                (row.count, cells.checked_mul(factor)?, row.sum.checked_mul(i128::from(factor))?)
            }
            RowValue::Set(_) => (0, 0, 0),
        };
        Some(BaseSums { kind: row.kind(), count, weight, sum })
    }

    fn add(&mut self, other: &BaseSums) -> Option<()> {
        if self.kind != other.kind {
            return None;
        }
        self.count = self.count.checked_add(other.count)?;
        self.weight = self.weight.checked_add(other.weight)?;
        self.sum = self.sum.checked_add(other.sum)?;
        Some(())
    }
}

/// Sums per series.
pub type SumMap = BTreeMap<SeriesId, BaseSums>;

/// Adds the sums of a part to a map.
///
/// # Errors
/// Bytes that are not a part, or sums that do not fit.
fn add_part(bytes: &[u8], sums: &mut SumMap) -> Result<(), Fault> {
    let mut cursor = PartCursor::new(bytes)?;
    let mut scratch = Scratch::default();
    while let Some(row) = cursor.next(&mut scratch)? {
        add_row(sums, row.id, &row.value)?;
    }
    Ok(())
}

/// Adds what `base` keeps of a row; sets have no sums.
pub(super) fn add_row(sums: &mut SumMap, id: SeriesId, value: &RowValue<'_>) -> Result<(), Fault> {
    if matches!(value, RowValue::Set(_)) {
        return Ok(());
    }
    let more = BaseSums::of(value).ok_or_else(|| corrupt("a sum does not fit its field"))?;
    add_sums(sums, id, &more)
}

pub(super) fn add_sums(sums: &mut SumMap, id: SeriesId, more: &BaseSums) -> Result<(), Fault> {
    match sums.entry(id) {
        std::collections::btree_map::Entry::Vacant(entry) => {
            entry.insert(*more);
            Ok(())
        }
        std::collections::btree_map::Entry::Occupied(mut entry) => {
            entry.get_mut().add(more).ok_or_else(|| corrupt(format_args!("the base of series {}", id.0)))
        }
    }
}

/// Slices to drop and what `base` becomes. Valid for the very next commit only.
#[derive(Debug)]
pub struct ExpireStep {
    pub(super) prepared_at: u64,
    pub(super) slices: Vec<Slice>,
    pub(super) base: Vec<(u32, Vec<u8>)>,
}

impl ExpireStep {
    /// The slices that go.
    pub fn slices(&self) -> &[Slice] {
        &self.slices
    }
}

impl Ledger {
    /// Prepares the expiry of the oldest slices before `keep_from` that no tier holds, at most `slices_max` of them and none
    /// that totals still need; `None` when there is nothing to do. Commit it in the next commit or drop it.
    /// The cost is that of reading the slices and rewriting the base of every series in them: expire
    /// several slices at a time.
    ///
    /// # Errors
    /// I/O, or a corrupt row.
    pub fn expire_step(&self, keep_from: Slice, slices_max: usize) -> Result<Option<ExpireStep>, StoreError> {
        self.expire(keep_from, slices_max, |slice| !self.history.holds(slice))
    }

    /// As [`expire_step`](Self::expire_step), of slices that a tier waits for too.
    ///
    /// # Errors
    /// I/O, or a corrupt row.
    pub(super) fn expire_any(&self, keep_from: Slice, slices_max: usize) -> Result<Option<ExpireStep>, StoreError> {
        self.expire(keep_from, slices_max, |_| true)
    }

    fn expire(
        &self,
        keep_from: Slice,
        slices_max: usize,
        is_wanted: impl Fn(u32) -> bool,
    ) -> Result<Option<ExpireStep>, StoreError> {
        let through = self.totals_through().0;
        let old = self.spans.range(..keep_from.0).filter(|(_, span)| span.log.rows == 0 || span.newest <= through);
        let old = old.filter(|(slice, _)| is_wanted(**slice));
        let slices: Vec<Slice> = old.take(slices_max).map(|(slice, _)| Slice(*slice)).collect();
        if slices.is_empty() {
            return Ok(None);
        }
        let mut sums = SumMap::new();
        for slice in &slices {
            let parts = self.read_slice(*slice)?;
            guard(self.disk.name(), || parts.iter().try_for_each(|part| add_part(part, &mut sums)))?;
        }
        let mut blocks: BTreeMap<u32, SumMap> = BTreeMap::new();
        for (id, more) in sums {
            blocks.entry(id.0 / BLOCK_SERIES).or_default().insert(id, more);
        }
        let mut base = Vec::with_capacity(blocks.len());
        for (block, mut sums) in blocks {
            self.with(|db| {
                if let Some(stored) = get(db, Table::Base, &block.to_be_bytes())? {
                    decode_base(block, &stored, |id, old| add_sums(&mut sums, id, &old))?;
                }
                base.push((block, encode_base(block, &sums)));
                Ok(())
            })?;
        }
        Ok(Some(ExpireStep { prepared_at: self.meta.last_commit, slices, base }))
    }

    /// The sums of all slices that have left the file, per series.
    ///
    /// # Errors
    /// I/O, a corrupt row, or one that is missing.
    pub fn base(&self) -> Result<SumMap, StoreError> {
        let mut sums = SumMap::new();
        self.with(|db| {
            scan(db, Table::Base, &self.meta, |key, content| {
                decode_base(u32_of(key)?, content, |id, more| add_sums(&mut sums, id, &more))
            })
        })?;
        Ok(sums)
    }

    /// The sums of everything ever committed, from base and history: what totals must equal (C5). Reads the
    /// whole history.
    ///
    /// # Errors
    /// I/O, a corrupt row, or one that is missing.
    pub fn sums(&self) -> Result<SumMap, StoreError> {
        let mut sums = self.base()?;
        for state in self.slices() {
            let parts = self.read_slice(state.slice)?;
            guard(self.disk.name(), || parts.iter().try_for_each(|part| add_part(part, &mut sums)))?;
        }
        let spans = self.history.spans.iter().filter(|(_, span)| !span.is_rolled);
        for ((resolution, start), span) in spans {
            self.with(|db| {
                let mut buffers = PageBuffers::default();
                let all = 0..SPAN_SLOTS as u16;
                replay_pages(&db.begin_read()?, *resolution, *start, span, &mut |bytes| {
                    let page = Page::new(bytes)?;
                    let mut failed = Ok(());
                    page.read(Wanted::All, all.clone(), true, &mut buffers, &mut |id, _, value| {
                        if failed.is_ok() {
                            failed = add_row(&mut sums, id, value);
                        }
                        Ok(())
                    })?;
                    failed
                })
            })?;
        }
        Ok(sums)
    }
}

pub(super) fn encode_base(block: u32, sums: &SumMap) -> Vec<u8> {
    let mut out = Vec::with_capacity(sums.len() * 35);
    for (id, base) in sums {
        out.extend_from_slice(&((id.0 - block * BLOCK_SERIES) as u16).to_le_bytes());
        out.push(base.kind as u8);
        out.extend_from_slice(&base.count.to_le_bytes());
        out.extend_from_slice(&base.weight.to_le_bytes());
        out.extend_from_slice(&base.sum.to_le_bytes());
    }
    out
}

pub(super) fn decode_base(
    block: u32,
    content: &[u8],
    mut visit: impl FnMut(SeriesId, BaseSums) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut rows = Vec::new();
    let read = |reader: &mut Reader<'_>| {
        while !reader.is_empty() {
            let id = SeriesId(block.checked_mul(BLOCK_SERIES)?.checked_add(u32::from(reader.u16()?))?);
            let kind = Kind::from_code(reader.u8()?)?;
            let (count, weight) = (reader.u64()?, reader.u64()?);
            rows.push((id, BaseSums { kind, count, weight, sum: i128::from_le_bytes(reader.array()?) }));
        }
        Some(())
    };
    decode_whole(content, read).ok_or_else(|| corrupt(format_args!("the base of block {block}")))?;
    rows.into_iter().try_for_each(|(id, sums)| visit(id, sums))
}
