//! Reading the file from other threads than the store's, by snapshots that live as long as one call.
//!
//! In: slices. Out: their parts, verified as everything is (H3). Owns: a share of the handle. Invariants: a snapshot
//! sees one commit and nothing of a later one; the store closes a broken handle (C4) only when no snapshot is held, so
//! a snapshot is short: whatever is slow happens outside.

use super::error::{Fault, StoreError, corrupt, guard};
use super::fold::TotalsBlock;
use super::format::{BLOCK_SERIES, Meta, Span, Table, VERSION, page_key, tier_span_key, tier_span_of, u32_of, unseal};
use super::ledger::KEY_STORE;
use super::read::{StoredPart, decode_totals, replay_parts};
use super::series::{SeriesDef, decode_series_of};
use super::tier::{Tier, TierSpan, span_end, span_slices, span_start};
use crate::delta::part::Corrupt;
use crate::event::{CommitId, Kind, Scale, SeriesId, Slice};
use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable};
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock};

/// The handle as the ledger and its readers share it.
pub(super) type SharedDatabase = Arc<RwLock<Option<Database>>>;

/// Reads a running store's file; cloned freely.
#[derive(Clone)]
pub struct StoreReader {
    db: SharedDatabase,
    path: String,
}

/// What the file holds of one slice, as a snapshot sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SliceRow {
    /// Which.
    pub slice: Slice,
    /// The newest commit that touched it: while it stands, so do the slice's rows.
    pub newest: CommitId,
}

/// A tier of history, as a snapshot sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TierInfo {
    /// Slices of one slot.
    pub resolution: u32,
    /// Slices of one span: 360 slots, aligned to the epoch.
    pub span: u32,
    /// The first slice that it holds: everything before has expired, or came before the tier did.
    pub from: Slice,
    /// The first slice that it gets nothing of any more; 2³² − 1 while the pipeline file has it.
    pub until: Slice,
    /// The end of its newest span; `from` when there is none.
    pub to: Slice,
}

/// A span of a tier that stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageSpan {
    /// Of its tier.
    pub resolution: u32,
    /// Its first slice.
    pub start: Slice,
    /// The newest commit that changed what it says: while it stands, so do the span's samples.
    pub newest: CommitId,
    /// Everything in it is in the coarser tiers, too.
    pub is_rolled: bool,
}

/// The file as of one commit.
pub struct Snapshot<'a> {
    txn: ReadTransaction,
    last_commit: CommitId,
    path: &'a str,
}

impl StoreReader {
    pub(super) fn new(db: SharedDatabase, path: String) -> StoreReader {
        StoreReader { db, path }
    }

    /// Runs `call` on a snapshot.
    ///
    /// # Errors
    /// `Broken` while the store has no handle, I/O, a corrupt row, or what `call` returned.
    pub fn snapshot<T>(&self, call: impl FnOnce(&Snapshot<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let held = self.db.read().unwrap_or_else(PoisonError::into_inner);
        let Some(db) = held.as_ref() else {
            return Err(StoreError::Broken { path: self.path.clone() });
        };
        let snapshot = guard(&self.path, || {
            let txn = db.begin_read()?;
            let row = txn.open_table(Table::Meta.rows())?.get(KEY_STORE)?;
            let row = row.ok_or_else(|| corrupt("the row that describes the store is missing"))?;
            let meta = Meta::decode(unseal(Table::Meta, KEY_STORE, row.value())?, VERSION)?;
            Ok(Snapshot { txn, last_commit: CommitId(meta.last_commit), path: &self.path })
        })?;
        call(&snapshot)
    }

    /// Runs a step of a job on a snapshot.
    pub(super) fn step<T>(&self, step: impl FnOnce(&ReadTransaction) -> Result<T, Fault>) -> Result<T, StoreError> {
        let held = self.db.read().unwrap_or_else(PoisonError::into_inner);
        let Some(db) = held.as_ref() else {
            return Err(StoreError::Broken { path: self.path.clone() });
        };
        guard(&self.path, || step(&db.begin_read()?))
    }

    /// What to say when bytes that a snapshot gave are not a part.
    pub fn corrupt_part(&self, source: Corrupt) -> StoreError {
        StoreError::Corrupt { path: self.path.clone(), what: source.to_string() }
    }
}

impl Snapshot<'_> {
    /// The newest commit in it.
    pub fn last_commit(&self) -> CommitId {
        self.last_commit
    }

    /// The slices of a range that hold anything, ascending.
    ///
    /// # Errors
    /// I/O, or a corrupt row.
    pub fn slices(&self, range: Range<Slice>) -> Result<Vec<SliceRow>, StoreError> {
        guard(self.path, || {
            let (from, to) = (range.start.0.to_be_bytes(), range.end.0.to_be_bytes());
            let mut rows = Vec::new();
            for row in self.txn.open_table(Table::Spans.rows())?.range(from.as_slice()..to.as_slice())? {
                let (key, value) = row?;
                let span = Span::decode(unseal(Table::Spans, key.value(), value.value())?)?;
                rows.push(SliceRow { slice: Slice(u32_of(key.value())?), newest: CommitId(span.newest) });
            }
            Ok(rows)
        })
    }

    /// The tiers, finest first. A slice is told by the finest that holds it (`from..to`), by all its pages, and by the
    /// slices that stand beside them ([`slices`](Self::slices)): logs and segments, recent ones and late ones.
    ///
    /// # Errors
    /// I/O, or a corrupt row.
    pub fn tiers(&self) -> Result<Vec<TierInfo>, StoreError> {
        guard(self.path, || {
            let spans = self.txn.open_table(Table::TierSpans.rows())?;
            let mut tiers = Vec::new();
            for row in self.txn.open_table(Table::Tiers.rows())?.iter()? {
                let (key, value) = row?;
                let resolution = u32_of(key.value())?;
                let tier = Tier::decode(unseal(Table::Tiers, key.value(), value.value())?)?;
                let (first, last) = (tier_span_key(resolution, 0), tier_span_key(resolution, u32::MAX));
                let newest = spans.range::<&[u8]>(first.as_slice()..=last.as_slice())?.next_back();
                let to = match newest {
                    Some(row) => span_end(resolution, tier_span_of(row?.0.value())?.1),
                    None => tier.from,
                };
                let (from, until, to) = (Slice(tier.from), Slice(tier.until), Slice(to.max(tier.from)));
                tiers.push(TierInfo { resolution, span: span_slices(resolution), from, until, to });
            }
            Ok(tiers)
        })
    }

    /// The spans of a tier that touch a range of slices and hold anything, ascending.
    ///
    /// # Errors
    /// I/O, or a corrupt row.
    pub fn page_spans(&self, resolution: u32, range: Range<Slice>) -> Result<Vec<PageSpan>, StoreError> {
        if range.is_empty() || resolution == 0 {
            return Ok(Vec::new());
        }
        guard(self.path, || {
            let first = tier_span_key(resolution, span_start(resolution, range.start.0));
            let last = tier_span_key(resolution, range.end.0);
            let mut spans = Vec::new();
            for row in
                self.txn.open_table(Table::TierSpans.rows())?.range::<&[u8]>(first.as_slice()..last.as_slice())?
            {
                let (key, value) = row?;
                let span = TierSpan::decode(unseal(Table::TierSpans, key.value(), value.value())?)?;
                let start = Slice(tier_span_of(key.value())?.1);
                if !span.generations.is_empty() {
                    let newest = CommitId(span.newest);
                    spans.push(PageSpan { resolution, start, newest, is_rolled: span.is_rolled });
                }
            }
            Ok(spans)
        })
    }

    /// The verified pages (see `Page`) of a span that hold series of a kind with ids in a range, and perhaps others of the
    /// same blocks of 1,024. Generation by generation, ascending by id in each; one series may have slots, and the same
    /// slot, in several generations: they are disjoint in samples and merge. Calls nothing when the span is gone.
    ///
    /// # Errors
    /// I/O, a corrupt row; `visit`'s own error as `Corrupt`.
    pub fn read_pages(
        &self,
        span: PageSpan,
        kind: Kind,
        ids: Range<SeriesId>,
        visit: &mut dyn FnMut(&[u8]) -> Result<(), Corrupt>,
    ) -> Result<(), StoreError> {
        if ids.is_empty() {
            return Ok(());
        }
        guard(self.path, || {
            let key = tier_span_key(span.resolution, span.start.0);
            let Some(value) = self.txn.open_table(Table::TierSpans.rows())?.get(key.as_slice())? else { return Ok(()) };
            let row = TierSpan::decode(unseal(Table::TierSpans, &key, value.value())?)?;
            let table = self.txn.open_table(Table::Pages.rows())?;
            for generation in &row.generations {
                let key = |id: u32| page_key(span.resolution, span.start.0, generation.number, kind as u8, id);
                // The page that holds the first id begins at or before it, in its block.
                let block = key(ids.start.0 - ids.start.0 % BLOCK_SERIES);
                let before = table.range::<&[u8]>(block.as_slice()..=key(ids.start.0).as_slice())?.next_back();
                let first = match before {
                    Some(row) => row?.0.value().to_vec(),
                    None => block.to_vec(),
                };
                for row in table.range::<&[u8]>(first.as_slice()..key(ids.end.0).as_slice())? {
                    let (key, value) = row?;
                    visit(unseal(Table::Pages, key.value(), value.value())?)?;
                }
            }
            Ok(())
        })
    }

    /// The series of the wanted kinds, names and scales, in memory or not, ascending by id. Passes over every row of the
    /// table, wanted or not: its time grows with the series there ever were.
    ///
    /// # Errors
    /// I/O, or a corrupt row.
    pub fn series(
        &self,
        is_wanted: impl Fn(Kind, &str, Scale) -> bool,
        mut visit: impl FnMut(SeriesDef),
    ) -> Result<(), StoreError> {
        guard(self.path, || {
            for row in self.txn.open_table(Table::Series.rows())?.iter()? {
                let (key, value) = row?;
                let content = unseal(Table::Series, key.value(), value.value())?;
                decode_series_of(u32_of(key.value())?, content, &is_wanted, &mut visit)?;
            }
            Ok(())
        })
    }

    /// The stored totals of one block.
    ///
    /// # Errors
    /// I/O, or a corrupt row.
    pub fn totals_block(&self, block: u32) -> Result<Option<TotalsBlock>, StoreError> {
        guard(self.path, || {
            let key = block.to_be_bytes();
            let Some(value) = self.txn.open_table(Table::Totals.rows())?.get(key.as_slice())? else { return Ok(None) };
            Ok(Some(decode_totals(block, unseal(Table::Totals, &key, value.value())?)?))
        })
    }

    /// Every part of a slice: segment rows, then log rows in the order of commits. Each sample is in one of them.
    ///
    /// # Errors
    /// I/O, a corrupt row or one that is missing; `visit`'s own error as `Corrupt`.
    pub fn read_slice(
        &self,
        slice: Slice,
        visit: &mut dyn FnMut(StoredPart<'_>) -> Result<(), Corrupt>,
    ) -> Result<(), StoreError> {
        guard(self.path, || {
            let key = slice.0.to_be_bytes();
            let Some(value) = self.txn.open_table(Table::Spans.rows())?.get(key.as_slice())? else { return Ok(()) };
            let span = Span::decode(unseal(Table::Spans, &key, value.value())?)?;
            replay_parts(&self.txn, slice, &span, visit)
        })
    }
}
