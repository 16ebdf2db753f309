//! Reading the file from other threads than the store's, by snapshots that live as long as one call.
//!
//! In: slices. Out: their parts, verified as everything is (H3). Owns: a share of the handle. Invariants: a snapshot
//! sees one commit and nothing of a later one; the store closes a broken handle (C4) only when no snapshot is held, so
//! a snapshot is short: whatever is slow happens outside.

use super::error::{StoreError, corrupt, guard};
use super::fold::TotalsBlock;
use super::format::{Meta, Span, Table, VERSION, u32_of, unseal};
use super::ledger::KEY_STORE;
use super::read::{StoredPart, decode_totals, replay_parts};
use super::series::{SeriesDef, decode_series_of};
use crate::delta::part::Corrupt;
use crate::event::{CommitId, Kind, Scale, Slice};
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
