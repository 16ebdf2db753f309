//! Reading and verifying a whole file as one snapshot sees it, while a store may be writing to it (H3, C5).
//!
//! In: a snapshot. Out: an [`Audit`]: how much was read, and the sums of everything ever committed, to be compared with
//! totals. Owns: nothing. Invariants: every value is verified against its checksum and decoded, every row that a manifest
//! counts is counted; nothing is written. What it cannot see are redb's own pages that hold no row.

use super::base::{SumMap, add_row, add_sums, decode_base};
use super::error::{Fault, StoreError, corrupt, guard};
use super::fold::TotalsBlock;
use super::format::*;
use super::page::{Page, PageBuffers, Wanted};
use super::read::{StoredKind, decode_totals, replay_pages, replay_parts};
use super::reader::Snapshot;
use super::series::decode_series;
use super::tier::{SPAN_SLOTS, Tier, TierSpan};
use crate::delta::part::{PartCursor, Scratch};
use crate::event::{CommitId, Slice};
use redb::{ReadTransaction, ReadableTable, ReadableTableMetadata};

/// What a whole reading found to be sound.
#[derive(Debug, Default)]
pub struct Audit {
    /// The commit that it is of.
    pub commit: CommitId,
    /// Series that ever got an id.
    pub series: u32,
    /// Slices in the log or in segments.
    pub slices: u64,
    /// Spans of all tiers.
    pub spans: u64,
    /// Rows of all tables but `meta`.
    pub rows: u64,
    /// Bytes of their contents.
    pub bytes: u64,
    /// base + logs + segments + pages, per series.
    pub history: SumMap,
    /// Of these what the log holds and the stored totals lack.
    pub unfolded: SumMap,
}

impl Snapshot<'_> {
    /// Reads and verifies everything. `progress` gets the share that is done, in [0, 1].
    ///
    /// # Errors
    /// I/O, or `Corrupt` with the first thing found.
    pub fn audit(&self, progress: &mut dyn FnMut(f64)) -> Result<Audit, StoreError> {
        guard(self.path(), || audit(self.txn(), progress))
    }

    /// Every stored block of totals.
    ///
    /// # Errors
    /// I/O, or a corrupt row.
    pub fn all_totals(&self, visit: &mut dyn FnMut(TotalsBlock)) -> Result<(), StoreError> {
        guard(self.path(), || {
            for row in self.txn().open_table(Table::Totals.rows())?.iter()? {
                let (key, value) = row?;
                let content = unseal(Table::Totals, key.value(), value.value())?;
                visit(decode_totals(u32_of(key.value())?, content)?);
            }
            Ok(())
        })
    }
}

fn audit(txn: &ReadTransaction, progress: &mut dyn FnMut(f64)) -> Result<Audit, Fault> {
    let row = txn.open_table(Table::Meta.rows())?.get(super::ledger::KEY_STORE)?;
    let row = row.ok_or_else(|| corrupt("the row that describes the store is missing"))?;
    let meta = Meta::decode(unseal(Table::Meta, super::ledger::KEY_STORE, row.value())?, VERSION)?;
    let mut audit = Audit { commit: CommitId(meta.last_commit), series: meta.next_series, ..Audit::default() };
    series(txn, &meta, &mut audit)?;
    for table in [Table::Positions, Table::State, Table::Pairs, Table::Recent] {
        scan(txn, table, &meta, &mut audit, |_, _| Ok(()))?;
    }
    scan(txn, Table::Tiers, &meta, &mut audit, |_, content| Tier::decode(content).map(drop))?;
    let mut as_of = vec![0; meta.next_series.div_ceil(BLOCK_SERIES) as usize];
    scan(txn, Table::Totals, &meta, &mut audit, |key, content| {
        let block = decode_totals(u32_of(key)?, content)?;
        let slot = as_of.get_mut(block.block as usize);
        *slot.ok_or_else(|| corrupt(format_args!("totals of block {} without series", block.block)))? = block.as_of.0;
        Ok(())
    })?;
    let mut history = SumMap::new();
    scan(txn, Table::Base, &meta, &mut audit, |key, content| {
        decode_base(u32_of(key)?, content, |id, more| add_sums(&mut history, id, &more))
    })?;
    audit.history = history;
    let mut slices: Vec<(u32, Span)> = Vec::new();
    scan(txn, Table::Spans, &meta, &mut audit, |key, content| {
        slices.push((u32_of(key)?, Span::decode(content)?));
        Ok(())
    })?;
    let mut spans: Vec<((u32, u32), TierSpan)> = Vec::new();
    scan(txn, Table::TierSpans, &meta, &mut audit, |key, content| {
        spans.push((tier_span_of(key)?, TierSpan::decode(content)?));
        Ok(())
    })?;
    let bytes_of = |span: &Span| span.log.bytes + span.segments.bytes;
    let all = slices.iter().map(|(_, span)| bytes_of(span)).chain(spans.iter().map(|(_, span)| span.size().1));
    let all = all.sum::<u64>().max(1) as f64;
    let mut done = 0;
    (audit.slices, audit.spans) = (slices.len() as u64, spans.len() as u64);
    let mut log_rows = 0;
    for (slice, span) in &slices {
        parts(txn, *slice, span, &as_of, &mut audit)?;
        log_rows += span.log.rows;
        done += bytes_of(span);
        progress(done as f64 / all);
    }
    // Rows of segments and pages that nothing lists are rubbish of an unfinished job; a row of the log never is.
    let stored = txn.open_table(Table::Log.rows())?.len()?;
    if stored != log_rows {
        return Err(corrupt(format_args!("{stored} rows in table log, and slices count {log_rows}")));
    }
    let mut buffers = PageBuffers::default();
    for ((resolution, start), span) in &spans {
        pages(txn, (*resolution, *start), span, &mut buffers, &mut audit)?;
        done += span.size().1;
        progress(done as f64 / all);
    }
    Ok(audit)
}

/// Every series in the order of ids, and each of them looked up by its hash.
fn series(txn: &ReadTransaction, meta: &Meta, audit: &mut Audit) -> Result<(), Fault> {
    let (mut next, mut known) = (0, Vec::with_capacity(meta.next_series as usize));
    scan(txn, Table::Series, meta, audit, |key, content| {
        let first = u32_of(key)?;
        if first != next {
            return Err(corrupt(format_args!("series {next} is missing")));
        }
        next += decode_series(first, content, |def| known.push((def.hash, def.id.0)))?;
        Ok(())
    })?;
    if next != meta.next_series {
        return Err(corrupt(format_args!("{} series were given ids, {next} are there", meta.next_series)));
    }
    known.sort_unstable();
    let index = txn.open_table(SERIES_BY_HASH)?;
    if index.len()? != known.len() as u64 {
        return Err(corrupt(format_args!("{} series but {} in the index", known.len(), index.len()?)));
    }
    let mut xor = 0;
    for (hash, id) in &known {
        let key = hash.to_be_bytes();
        let value = index.get(&key)?.ok_or_else(|| corrupt(format_args!("series {id} is not in the index")))?;
        let (found, sum) = index_id(&key, value.value())?;
        xor ^= sum;
        if found != *id {
            return Err(corrupt(format_args!("series {id} stands in the index as {found}")));
        }
    }
    if xor == meta.index_xor { Ok(()) } else { Err(corrupt("the sum of the index of series")) }
}

/// The log and the segment of a slice.
fn parts(txn: &ReadTransaction, slice: u32, span: &Span, as_of: &[u64], audit: &mut Audit) -> Result<(), Fault> {
    let mut scratch = Scratch::default();
    // What is visited answers for the bytes only; a sum that does not fit is told afterwards.
    let mut failed = Ok(());
    replay_parts(txn, Slice(slice), span, &mut |part| {
        let mut cursor = PartCursor::new(part.bytes)?;
        while let Some(row) = cursor.next(&mut scratch)? {
            if failed.is_err() {
                break;
            }
            failed = add_row(&mut audit.history, row.id, &row.value);
            let folded = as_of.get((row.id.0 / BLOCK_SERIES) as usize).copied().unwrap_or(0);
            if failed.is_ok() && part.kind == StoredKind::Log && part.through.0 > folded {
                failed = add_row(&mut audit.unfolded, row.id, &row.value);
            }
        }
        Ok(())
    })?;
    audit.rows += span.log.rows + span.segments.rows;
    audit.bytes += span.log.bytes + span.segments.bytes;
    failed
}

/// Every page of a span. What is rolled stands in a coarser tier, too: it is verified and not added.
fn pages(
    txn: &ReadTransaction,
    (resolution, start): (u32, u32),
    span: &TierSpan,
    buffers: &mut PageBuffers,
    audit: &mut Audit,
) -> Result<(), Fault> {
    replay_pages(txn, resolution, start, span, &mut |bytes| {
        let page = Page::new(bytes)?;
        let mut failed = Ok(());
        page.read(Wanted::All, 0..SPAN_SLOTS as u16, true, buffers, &mut |id, _, value| {
            if failed.is_ok() && !span.is_rolled {
                failed = add_row(&mut audit.history, id, value);
            }
            Ok(())
        })?;
        failed
    })?;
    let (rows, bytes) = span.size();
    (audit.rows, audit.bytes) = (audit.rows + rows, audit.bytes + bytes);
    Ok(())
}

/// Every verified row of a table that has its manifest in `meta`.
fn scan(
    txn: &ReadTransaction,
    table: Table,
    meta: &Meta,
    audit: &mut Audit,
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut seen = Manifest::default();
    for row in txn.open_table(table.rows())?.iter()? {
        let (key, value) = row?;
        let content = unseal(table, key.value(), value.value())?;
        seen.add(claimed(value.value())?, content.len());
        visit(key.value(), content)?;
    }
    (audit.rows, audit.bytes) = (audit.rows + seen.rows, audit.bytes + seen.bytes);
    meta.manifests[table as usize].expect(&seen, &format!("table {}", table.name()))
}
