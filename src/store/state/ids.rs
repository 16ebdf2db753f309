//! Durable ids for the series of a tick (S1, S2).
//!
//! In: slots without an id. Out: ids in the table and the map, rows for the next commit. Owns nothing. Invariants: an
//! id is given once and ids are dense, so whatever may fail comes before the first new one.

use super::super::error::StoreError;
use super::super::fold::SeriesRow;
use super::Store;
use crate::event::{Kind, SeriesId, Slot, Timestamp};
use std::sync::Arc;

impl Store {
    /// When a pair expires, or may: the time of the clocks at which a commit should look.
    pub fn pairs_due(&self) -> Option<Timestamp> {
        self.pairs.next_due()
    }

    /// Gives durable ids to slots: old ones to series that left memory, else the next.
    pub(super) fn give_ids(&mut self, unknown: &[(Kind, Slot)], now: Timestamp) -> Result<(), StoreError> {
        if unknown.is_empty() {
            return Ok(());
        }
        let mut rows = Vec::with_capacity(unknown.len());
        {
            let table = self.table.lock();
            for (kind, slot) in unknown {
                let entry = table.get(*kind, *slot).expect("a slot in a combiner is live");
                let (metric, labels) = (Arc::clone(&entry.metric), entry.labels.clone());
                rows.push(SeriesRow { id: SeriesId(0), hash: entry.hash, metric, labels, slot: *slot, created: now });
            }
        }
        let known = if self.has_stored_only {
            let hashes: Vec<u128> = rows.iter().map(|row| row.hash).collect();
            self.ledger.series_by_hashes(&hashes)?
        } else {
            vec![None; rows.len()]
        };
        // What may fail comes first, so that no new id is given and then lost: ids are dense.
        for (row, known) in rows.iter_mut().zip(&known) {
            if let Some(id) = known {
                self.resume(row, *id)?;
            }
        }
        for (row, _) in rows.iter_mut().zip(&known).filter(|(_, known)| known.is_none()) {
            row.id = SeriesId(self.next_id);
            self.next_id += 1;
        }
        let mut table = self.table.lock();
        for row in &rows {
            self.ids.set(row.metric.kind, row.slot, row.id);
            if let Some(entry) = table.get_mut(row.metric.kind, row.slot) {
                entry.id = Some(row.id);
            }
        }
        drop(table);
        // A million new series are a hundred megabytes of rows: once is enough.
        if self.pending.series.is_empty() {
            self.pending.series = rows;
        } else {
            self.pending.series.append(&mut rows);
        }
        Ok(())
    }

    /// S2: a series that returns resumes its total and creation time.
    fn resume(&mut self, row: &mut SeriesRow, id: SeriesId) -> Result<(), StoreError> {
        row.id = id;
        if let Some(def) = self.ledger.series_def(id)? {
            row.created = def.created;
        }
        self.fold.restore_series(row);
        if let Some(block) = self.ledger.totals_block(id.0 / 1024)? {
            // Only series that were just restored and not folded since take something from the block.
            let _ = self.fold.restore_totals(&block);
        }
        Ok(())
    }
}
