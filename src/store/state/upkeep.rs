//! What the store does between commits: windows slide, idle series leave, a broken handle is opened again.
//!
//! In: the time. Out: a changed state. Invariant: nothing here takes a sample in.

use super::*;

impl Store {
    /// Takes slices that left the window out of the view. Called when the wall clock is in a new slice.
    ///
    /// # Errors
    /// Reading them.
    pub fn slide(&mut self, now: Timestamp) -> Result<(), StoreError> {
        for slice in self.fold.leaving(self.limits.slice.slice_of(now)) {
            let parts = self.ledger.read_slice(slice)?;
            self.fold.expire(slice, &parts).map_err(|source| self.ledger.corrupt_part(source))?;
        }
        self.slid_at = now;
        Ok(())
    }

    /// Opens the ledger again after an error (C4).
    ///
    /// # Errors
    /// As opening; may be called again.
    pub fn reopen(&mut self) -> Result<(), StoreError> {
        self.work.stop();
        self.ledger.reopen()
    }

    /// True while the ledger must be reopened.
    pub fn is_broken(&self) -> bool {
        self.ledger.is_broken()
    }

    /// Keeps the memory of what waits small: merges the parts of a slice when there are many (C4).
    pub fn squeeze(&mut self) {
        let mut bytes = 0;
        for (slice, parts) in &mut self.pending.parts {
            if parts.len() > PENDING_PARTS_MAX
                && let Ok((bytes, rows)) =
                    merge_parts(&parts.iter().map(|part| part.bytes.as_slice()).collect::<Vec<_>>())
            {
                *parts = vec![EncodedPart { slice: *slice, bytes, rows }];
            }
            bytes += parts.iter().map(|part| part.bytes.len()).sum::<usize>();
        }
        self.pending.bytes = bytes;
    }

    /// Idle series, marked to leave memory (S2): what every shard must forget before they may.
    pub fn mark_idle(&mut self, now: Timestamp) -> Vec<(Kind, Slot)> {
        let idle = self.fold.idle(now);
        self.leaving = self.table.lock().mark_retiring(idle.into_iter().map(|(kind, slot, _)| (kind, slot)));
        self.leaving.clone()
    }

    /// Lets the marked series leave that nobody used since. To be called once no shard's cache or combiner
    /// can name them any more; false while samples of theirs may wait to be committed, and then to be
    /// called again.
    pub fn retire(&mut self, now: Timestamp) -> bool {
        if !self.pending.is_empty() || !self.pairs.is_empty() || self.attempt.is_some() {
            return false;
        }
        // A cache may have brought samples between the mark and the forgetting: those series stay.
        let idle: HashSet<(Kind, Slot)> = self.fold.idle(now).into_iter().map(|(kind, slot, _)| (kind, slot)).collect();
        let slots: Vec<_> = std::mem::take(&mut self.leaving).into_iter().filter(|slot| idle.contains(slot)).collect();
        for (kind, slot, id) in self.table.lock().retire(&slots) {
            self.ids.remove(kind, slot);
            if let Some(id) = id {
                self.has_stored_only = true;
                self.fold.forget(id);
            }
        }
        true
    }

    /// Where each partition stands: what a replayable source seeks to.
    pub fn positions(&self) -> Vec<PartitionPosition> {
        self.positions.values().cloned().collect()
    }

    /// See [`Ledger::check_place`].
    ///
    /// # Errors
    /// `Displaced`.
    pub fn check_place(&self) -> Result<(), StoreError> {
        self.ledger.check_place()
    }

    /// Takes the last figures and closes the file.
    pub fn close(&mut self) {
        self.ledger.close();
    }

    /// See [`Ledger::prune`].
    ///
    /// # Errors
    /// While the store cannot commit, and those of pruning.
    pub fn prune(&mut self) -> Result<Vec<u32>, StoreError> {
        self.nothing_is_tried()?;
        self.work.stop();
        self.ledger.prune()
    }

    /// For renames in the file: a commit that was tried is tried again byte for byte, with the names it had.
    pub(in crate::store) fn nothing_is_tried(&self) -> Result<(), StoreError> {
        match self.attempt {
            Some(_) => Err(self.ledger.broken()),
            None => Ok(()),
        }
    }

    pub(in crate::store) fn ledger_mut(&mut self) -> &mut Ledger {
        &mut self.ledger
    }

    pub(in crate::store) fn table(&self) -> &SeriesTable {
        &self.table
    }

    /// A number that no earlier retirement has.
    pub(in crate::store) fn next_mark(&mut self) -> u64 {
        // Even; those of a start are odd.
        self.mark = (2 * self.ledger.last_commit().0).max(self.mark) + 2;
        self.mark
    }

    /// Series that wait to be written get the name of a retired metric.
    pub(in crate::store) fn rename_pending(&mut self, to: &Arc<Metric>) {
        for row in self.pending.series.iter_mut().filter(|row| row.metric.id == to.id) {
            row.metric = Arc::clone(to);
            row.hash = series_hash(to.kind, &to.name, &row.labels);
        }
    }
}
