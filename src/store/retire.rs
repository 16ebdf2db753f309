//! Series that are retired: they keep their numbers and rows and get a name that no metric can have (R2).
//!
//! In: metrics whose name belongs to others of another scale or unit. Out: renamed rows of table `series` and of its index.
//! Invariants: all of it in one transaction, which is no commit and can be done again; what is stored under the numbers is
//! not touched, so that history stays; the old names are free.

use super::error::{StoreError, corrupt};
use super::format::*;
use super::ledger::{KEY_STORE, Ledger};
use super::read::scan;
use super::series::{SeriesDef, decode_series, encode_series};
use super::state::Store;
use super::write::{Change, put};
use crate::event::{Metric, series_hash};
use std::sync::Arc;

/// What stands between a name and the mark of its retirement: in no metric's name.
const MARK: char = '@';

/// True for the name of a retired series.
pub(super) fn is_retired_name(name: &str) -> bool {
    name.contains(MARK)
}

/// The name that the series of a metric get.
fn retired_name(name: &str, mark: u64) -> Arc<str> {
    format!("{name}{MARK}{mark}").into()
}

impl Ledger {
    /// Gives the series that `is_retired` picks another name, unique by `mark`; how many there were.
    ///
    /// # Errors
    /// Any; the ledger is then broken, and what was asked for has happened as a whole or not at all.
    pub fn retire(&mut self, is_retired: &dyn Fn(&SeriesDef) -> bool, mark: u64) -> Result<usize, StoreError> {
        let mut change = Change::new(&self.meta);
        let mut count = 0;
        self.with(|db| {
            let mut rows: Vec<(u32, Vec<SeriesDef>)> = Vec::new();
            scan(db, Table::Series, &self.meta, |key, content| {
                let first = u32_of(key)?;
                let mut defs = Vec::new();
                decode_series(first, content, |def| defs.push(def))?;
                if defs.iter().any(is_retired) {
                    rows.push((first, defs));
                }
                Ok(())
            })?;
            if rows.is_empty() {
                return Ok(());
            }
            let mut txn = db.begin_write()?;
            txn.set_durability(redb::Durability::Immediate)?;
            txn.set_quick_repair(true);
            let mut by_hash = txn.open_table(SERIES_BY_HASH)?;
            let mut contents = Vec::with_capacity(rows.len());
            for (first, mut defs) in rows {
                for def in defs.iter_mut().filter(|def| is_retired(def)) {
                    let old = def.hash.to_be_bytes();
                    let gone = by_hash.remove(&old)?.map(|gone| *gone.value());
                    let gone = gone.ok_or_else(|| corrupt("a series that is not in the index"))?;
                    change.meta.index_xor ^= index_id(&old, &gone)?.1;
                    def.name = retired_name(&def.name, mark);
                    def.hash = series_hash(def.kind, &def.name, &def.labels);
                    let key = def.hash.to_be_bytes();
                    let value = index_value(&key, def.id.0);
                    change.meta.index_xor ^= index_id(&key, &value)?.1;
                    if by_hash.insert(&key, &value)?.is_some() {
                        return Err(corrupt("two retired series of one name"));
                    }
                    count += 1;
                }
                let mut content = Vec::new();
                // Names stand once in a row, so that a longer one leaves room for as many series as before.
                assert_eq!(encode_series(&defs, &mut content), defs.len(), "a row is written again as it was read");
                contents.push((first.to_be_bytes(), Some(content)));
            }
            drop(by_hash);
            put(&txn, Table::Series, contents, &mut change)?;
            seal(Table::Meta, KEY_STORE, &change.meta.encode(), &mut change.sealed);
            txn.open_table(Table::Meta.rows())?.insert(KEY_STORE, change.sealed.as_slice())?;
            Ok(txn.commit()?)
        })?;
        self.meta = change.meta;
        Ok(count)
    }
}

impl Store {
    /// Retires the series of metrics: what is stored of them, what waits, what is in memory and what is still to come.
    /// To be called while nobody can resolve a series of theirs by the new rules.
    ///
    /// # Errors
    /// While the store cannot commit; nothing has changed then.
    pub fn retire_metrics(&mut self, metrics: &[Arc<Metric>]) -> Result<(), StoreError> {
        self.nothing_is_tried()?;
        let mark = self.next_mark();
        let is_of = |def: &SeriesDef| metrics.iter().any(|metric| metric.kind == def.kind && metric.name == def.name);
        self.ledger_mut().retire(&is_of, mark)?;
        for metric in metrics {
            let renamed = Arc::new(Metric { name: retired_name(&metric.name, mark), ..(**metric).clone() });
            self.rename_pending(&renamed);
            self.table().retire_metric(&renamed);
        }
        Ok(())
    }
}
