//! Whether stored totals are what base and history add up to (C5).
//!
//! In: a snapshot and the sums of everything in it. Out: the series where they differ. Owns: nothing. Invariant: a series
//! that is in neither is in order; what the log holds and the totals lack is taken into account.

use super::totals::{StoredRow, Totals, decode};
use crate::event::{Kind, SeriesId};
use crate::store::{Audit, BLOCK_SERIES, BaseSums, Snapshot, StoreError};
use std::collections::BTreeSet;

/// Differences that are named.
const NAMED_MAX: usize = 10;

/// One figure of one series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Whose.
    pub id: SeriesId,
    /// `sum`, `weight` or `count`, as in [`BaseSums`].
    pub what: &'static str,
    /// What the stored totals say.
    pub totals: i128,
    /// What base and history add up to, without what the totals have still to get from the log.
    pub history: i128,
}

/// What a comparison found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compared {
    /// Series with totals or history.
    pub series: u64,
    /// Figures that differ.
    pub differing: u64,
    /// The first of them.
    pub differences: Vec<Difference>,
}

/// Compares the totals of a snapshot with the sums of an audit of the same snapshot.
///
/// # Errors
/// I/O, or a corrupt row.
pub fn compare(snapshot: &Snapshot<'_>, audit: &Audit) -> Result<Compared, StoreError> {
    let mut compared = Compared::default();
    let mut seen = BTreeSet::new();
    let mut failed = Ok(());
    snapshot.all_totals(&mut |block| {
        let stored = match decode(&block.bytes) {
            Ok(stored) => stored,
            Err(source) => {
                failed = Err(snapshot.corrupt_part(source));
                return;
            }
        };
        for (offset, row) in stored.rows() {
            let id = SeriesId(block.block * BLOCK_SERIES + u32::from(*offset));
            seen.insert(id);
            compared.check(audit, id, Some(row));
        }
    })?;
    failed?;
    let without: Vec<SeriesId> = audit.history.keys().filter(|id| !seen.contains(id)).copied().collect();
    without.into_iter().for_each(|id| compared.check(audit, id, None));
    Ok(compared)
}

impl Compared {
    fn check(&mut self, audit: &Audit, id: SeriesId, row: Option<&StoredRow>) {
        let zero = BaseSums { kind: Kind::Counter, count: 0, weight: 0, sum: 0 };
        let history = audit.history.get(&id).unwrap_or(&zero);
        let unfolded = audit.unfolded.get(&id).unwrap_or(&zero);
        let figures = row.map_or(Figures::default(), StoredRow::figures);
        self.series += 1;
        let mut expect = |what, totals: Option<i128>, history: i128| {
            let Some(totals) = totals.filter(|totals| *totals != history) else { return };
            self.differing += 1;
            if self.differences.len() < NAMED_MAX {
                self.differences.push(Difference { id, what, totals, history });
            }
        };
        let known = |figure: Option<i128>| if row.is_some() { figure } else { Some(0) };
        expect("sum", known(figures.sum), history.sum - unfolded.sum);
        expect("weight", known(figures.weight), i128::from(history.weight) - i128::from(unfolded.weight));
        expect("count", known(figures.count), i128::from(history.count) - i128::from(unfolded.count));
    }
}

/// The figures of a row that [`BaseSums`] have too, of all lives together; `None` where a life that ended did not keep it.
#[derive(Clone, Copy, Debug, Default)]
struct Figures {
    sum: Option<i128>,
    weight: Option<i128>,
    count: Option<i128>,
}

impl StoredRow {
    fn figures(&self) -> Figures {
        let earlier = self.earlier();
        let (sum, weight) = earlier.map_or((0, 0), |reset| (reset.total, reset.weight as i128));
        match self.totals() {
            Totals::Counter(total) => Figures { sum: Some(total + sum), weight: Some(0), count: Some(0) },
            Totals::Gauge(gauge) => match earlier {
                Some(_) => Figures { weight: Some(0), ..Figures::default() },
                None => Figures { sum: Some(gauge.sum), weight: Some(0), count: Some(i128::from(gauge.count)) },
            },
            Totals::Distribution(totals, _) => Figures {
                sum: Some(totals.sum + sum),
                weight: Some(totals.weight as i128 + weight),
                count: earlier.is_none().then_some(i128::from(totals.samples)),
            },
            // What a set has seen does not add up.
            Totals::Set => Figures { sum: Some(0), weight: Some(0), count: Some(0) },
        }
    }
}
