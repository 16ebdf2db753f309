//! Reading the file from other threads than the store's, by snapshots that live as long as one call.
//!
//! In: slices. Out: their parts, verified as everything is (H3). Owns: a share of the handle. Invariants: a snapshot
//! sees one commit and nothing of a later one; the store closes a broken handle (C4) only when no snapshot is held, so
//! a snapshot is short: whatever is slow happens outside.

use super::error::{StoreError, corrupt, guard};
use super::format::{Meta, Span, Table, VERSION, u32_of, unseal};
use super::ledger::KEY_STORE;
use super::read::{StoredPart, replay_parts};
use crate::delta::part::Corrupt;
use crate::event::{CommitId, Slice};
use redb::{Database, ReadTransaction, ReadableDatabase};
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
