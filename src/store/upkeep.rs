//! What `hydrograph store` does with a file that nobody serves: compact it, prune it, copy it.
//!
//! In: an open ledger. Out: a smaller file, or a consistent copy. Invariant: a copy that was not finished
//! is not a store: its row `store`, without which nothing opens, is written last, and then it is renamed.

use super::disk::{create_private, drop_quietly, rename_new};
use super::error::{Fault, StoreError, guard};
use super::format::{SERIES_BY_HASH, Table};
use super::job::{HistoryJob, HistorySpec};
use super::ledger::Ledger;
use super::tier::TierChange;
use super::write::CommitBatch;
use crate::event::CommitId;
use redb::{Database, Durability, ReadTransaction, ReadableDatabase, ReadableTable, WriteTransaction};
use std::path::Path;

/// Bytes after which a copy begins a new transaction, so that it needs little memory.
const COPY_BYTES: usize = 32 << 20;

impl Ledger {
    /// Gives unused space back to the file system; true when it moved anything. Takes as long as writing
    /// the file does, and needs it for itself.
    ///
    /// # Errors
    /// I/O, or `Corrupt`.
    pub fn compact(&mut self) -> Result<bool, StoreError> {
        self.with_mut(|db| {
            let mut has_moved = false;
            while db.compact()? {
                has_moved = true;
            }
            Ok(has_moved)
        })
    }

    /// Takes the tiers out of the file that the pipeline file has no more; their resolutions. What only they hold goes to
    /// coarser tiers first, or its sums to `base`. Takes as long as that does; to be called between commits, while no job
    /// runs.
    ///
    /// # Errors
    /// I/O, or `Corrupt`; what was done so far is whole, and the rest may be done by another call.
    pub fn prune(&mut self) -> Result<Vec<u32>, StoreError> {
        let gone = self.history.tiers.iter().filter(|(_, tier)| tier.until != u32::MAX);
        let gone: Vec<u32> = gone.map(|(resolution, _)| *resolution).collect();
        for resolution in &gone {
            let unrolled = |ledger: &Ledger| {
                let mut spans = ledger.history.spans_of(*resolution, 0..u32::MAX);
                spans.find(|(_, span)| !span.is_rolled).map(|(start, _)| start)
            };
            while let Some(start) = unrolled(self) {
                self.clear_rubbish()?;
                self.run_history(self.roll_spec(*resolution, start))?;
            }
            let change = TierChange { rows: vec![(*resolution, None)], emptied: vec![*resolution] };
            self.commit(&CommitBatch { tiers: Some(&change), ..self.next_batch() })?;
        }
        self.clear_rubbish()?;
        Ok(gone)
    }

    /// A commit of nothing.
    pub(super) fn next_batch(&self) -> CommitBatch<'static> {
        CommitBatch::new(CommitId(self.meta.last_commit + 1), self.commit_time(), self.watermark())
    }

    /// Runs a job of the history to its end, in commits of its own steps.
    pub(super) fn run_history(&mut self, spec: HistorySpec) -> Result<(), StoreError> {
        let mut job = HistoryJob::new(spec);
        loop {
            let step = self.with(|db| job.step(&db.begin_read()?))?;
            let step = step.expect("nothing else is committed meanwhile");
            self.commit(&CommitBatch { history: Some(&step), ..self.next_batch() })?;
            if step.is_last() {
                return Ok(());
            }
        }
    }

    /// Writes a whole, compact copy of the last commit to a new file.
    ///
    /// # Errors
    /// I/O, `Corrupt`, or `Io` when `to` exists.
    pub fn copy_to(&self, to: &Path) -> Result<(), StoreError> {
        let name = to.display().to_string();
        if to.exists() {
            return Err(StoreError::from_io(&name, std::io::ErrorKind::AlreadyExists.into()));
        }
        let fresh = create_private(to).map_err(|error| StoreError::from_io(&name, error))?;
        let database = guard(&name, || Ok(Database::create(&fresh)?))?;
        let copied = self.with(|db| copy(&db.begin_read()?, &database));
        drop_quietly(database);
        copied?;
        let synced = std::fs::File::open(&fresh).and_then(|file| file.sync_all());
        synced.and_then(|()| rename_new(&fresh, to)).map_err(|error| StoreError::from_io(&name, error))
    }
}

fn copy(from: &ReadTransaction, to: &Database) -> Result<(), Fault> {
    let begin = || -> Result<WriteTransaction, Fault> {
        let mut txn = to.begin_write()?;
        txn.set_durability(Durability::Immediate)?;
        Ok(txn)
    };
    let mut txn = begin()?;
    let mut bytes = 0;
    // `meta` is last.
    for table in Table::ALL.into_iter().filter(|table| *table != Table::Meta).chain([Table::Meta]) {
        if table == Table::Meta {
            let mut index = txn.open_table(SERIES_BY_HASH)?;
            for row in from.open_table(SERIES_BY_HASH)?.iter()? {
                let (key, value) = row?;
                index.insert(key.value(), value.value())?;
            }
        }
        txn.open_table(table.rows())?;
        for row in from.open_table(table.rows())?.iter()? {
            let (key, value) = row?;
            txn.open_table(table.rows())?.insert(key.value(), value.value())?;
            bytes += key.value().len() + value.value().len();
            if bytes > COPY_BYTES {
                bytes = 0;
                txn.commit()?;
                txn = begin()?;
            }
        }
    }
    Ok(txn.commit()?)
}
