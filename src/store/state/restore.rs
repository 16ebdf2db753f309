//! Recovery: which stored series are in memory again, and what becomes of the newest increments of the others.
//!
//! In: rows of table `series`. Out: slots in the table of live series. Invariant: a series that no longer fits the limits
//! is hidden, but loses nothing: rows of the log that its stored totals do not hold yet are folded before the
//! next writing of those totals would leave them behind.

use super::super::error::StoreError;
use super::super::fold::{Fold, SeriesRow};
use super::super::ledger::Ledger;
use super::super::read::StoredKind;
use super::super::retire::is_retired_name;
use super::super::series::SeriesDef;
use crate::delta::part::{PartCursor, Scratch};
use crate::delta::{Interned, SeriesTable};
use crate::event::{CommitId, Metric, SeriesId, Slice, Slot};
use crate::rule::{RestoreError, Rules, is_reserved_name, unit_of_name};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// What became of a stored series.
pub(super) enum Restored {
    /// It is in memory.
    Live(SeriesRow),
    /// It does not fit the limits any more.
    Hidden,
    /// The pipeline file cannot show it.
    Gone,
}

fn row(def: &SeriesDef, metric: Arc<Metric>, slot: Slot) -> SeriesRow {
    SeriesRow { id: def.id, hash: def.hash, metric, labels: def.labels.clone(), slot, created: def.created }
}

/// Takes those of the hidden series into the fold that have rows newer than their stored totals; they are to be
/// forgotten again when the log was replayed.
pub(super) fn restore_hidden(
    ledger: &Ledger,
    fold: &mut dyn Fold,
    rules: &Rules,
    hidden: &HashSet<SeriesId>,
    as_of: &HashMap<u32, CommitId>,
) -> Result<Vec<SeriesId>, StoreError> {
    let mut behind = BTreeSet::new();
    if hidden.is_empty() {
        return Ok(Vec::new());
    }
    let mut scratch = Scratch::default();
    ledger.replay(Slice(0), |part| {
        let mut cursor = PartCursor::new(part.bytes)?;
        while part.kind == StoredKind::Log
            && let Some(row) = cursor.next(&mut scratch)?
        {
            let is_newer = as_of.get(&(row.id.0 / 1024)).is_none_or(|as_of| part.through > *as_of);
            if is_newer && hidden.contains(&row.id) {
                behind.insert(row.id);
            }
        }
        Ok(())
    })?;
    ledger.all_series(|def| {
        if behind.contains(&def.id)
            && let Ok(metric) = rules.restore(&def.name, def.kind, def.scale)
        {
            // It has no slot; nobody can ask for it before it is forgotten.
            fold.restore_series(&row(&def, metric, Slot(u32::MAX)));
        }
    })?;
    let blocks: BTreeSet<u32> = behind.iter().map(|id| id.0 / 1024).collect();
    for block in blocks {
        if let Some(block) = ledger.totals_block(block)? {
            // Only series that were just restored take something from it.
            fold.restore_totals(&block).map_err(|source| ledger.corrupt_part(source))?;
        }
    }
    Ok(behind.into_iter().collect())
}

/// Puts a stored series back into the table.
pub(super) fn restore(
    def: &SeriesDef,
    rules: &Rules,
    table: &SeriesTable,
    rescaled: &mut Option<RestoreError>,
) -> Restored {
    let metric = match rules.restore(&def.name, def.kind, def.scale) {
        Ok(metric) => metric,
        // Retired: it keeps its rows, and nobody asks for it.
        Err(_) if is_retired_name(&def.name) => return Restored::Gone,
        Err(error @ RestoreError::Scale { .. }) => {
            rescaled.get_or_insert(error);
            return Restored::Gone;
        }
        Err(error) => {
            tracing::warn!(%error, "a stored series is not shown");
            return Restored::Gone;
        }
    };
    // The unit of what nothing declared was only guessed, by the name.
    let was_guessed = *def.unit == *unit_of_name(&def.name).as_str();
    if metric.declared && *def.unit != *metric.unit.as_str() && !was_guessed {
        let (name, stored, now) = (def.name.to_string(), def.unit.to_string(), metric.unit.as_str().to_owned());
        rescaled.get_or_insert(RestoreError::Unit { name, stored, now });
        return Restored::Gone;
    }
    let slot = if is_reserved_name(&def.name) {
        table.intern_own(&metric, &def.labels)
    } else {
        match table.intern(&metric, &def.labels) {
            Interned::Slot(slot) | Interned::Overflow(slot) => slot,
            Interned::Refused => return Restored::Hidden,
        }
    };
    let mut guard = table.lock();
    // Past the limit another series answers, unless this is the overflow series itself.
    let Some(entry) = guard.get_mut(def.kind, slot).filter(|entry| entry.hash == def.hash) else {
        return Restored::Hidden;
    };
    entry.id = Some(def.id);
    Restored::Live(row(def, metric, slot))
}
