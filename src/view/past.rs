//! What stored totals tell of series that are not in memory: for questions about the past.
//!
//! In: a block as the file holds it. Out: the figures of one series, of all its lives together. Owns: the decoded block.
//! Invariant: they are told in the metric's present bounds, as those of a series in memory are.

use super::place_of;
use super::reset::Reset;
use super::state::Bounds;
use super::totals::{Stored, decode};
use crate::delta::part::Corrupt;
use crate::event::{Metric, SeriesId, Timestamp};

/// The totals of a block of series as a commit left them.
pub struct PastTotals(Stored);

/// Cumulative figures of one series, of all its lives together, and since when.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PastRow {
    /// `_created` of its first life.
    pub born: Timestamp,
    /// Of the newest sample, about: its commit.
    pub seen: Timestamp,
    /// Ascending in time (R3).
    pub resets: Box<[Reset]>,
    /// Counters: 10⁻⁹. Distributions: scale units × 4096. Else 0.
    pub total: i128,
    /// Σ weight × 4096 of distributions.
    pub weight: u128,
    /// Per declared bound the weight not above it.
    pub buckets: Box<[u128]>,
}

impl PastTotals {
    /// Decodes a block.
    ///
    /// # Errors
    /// [`Corrupt`] when the bytes are not one.
    pub fn new(block: &[u8]) -> Result<PastTotals, Corrupt> {
        decode(block).map(PastTotals)
    }

    /// A series of a metric; `None` when the block does not hold it.
    pub fn get(&self, id: SeriesId, metric: &Metric) -> Option<PastRow> {
        let bounds = metric.buckets.as_deref().map(Bounds::new);
        let own = bounds.as_ref().map(|bounds| &*bounds.units);
        let mut row = self.0.past(place_of(id).1, own, metric.scale.exponent())?;
        if let Some(earlier) = row.resets.last() {
            row.total += earlier.total;
            row.weight += earlier.weight;
            row.buckets.iter_mut().zip(&earlier.buckets).for_each(|(sum, before)| *sum += before);
        }
        Some(row)
    }
}
