//! What the store tells the fold (the view) after a commit, and at recovery in the same words.
//!
//! In: durable rows. Out: calls in commit order. Invariant: a fold sees every durable row exactly once
//! between two restarts, in commit order.

use super::gauges::NewestSet;
use crate::delta::EncodedPart;
use crate::delta::part::Corrupt;
use crate::event::{CommitId, Kind, Labels, Metric, MetricId, SeriesId, Slice, Slot, Timestamp};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A series as table `series` keeps it, with its place in this process.
#[derive(Clone, Debug)]
pub struct SeriesRow {
    /// Durable number.
    pub id: SeriesId,
    /// Durable identity.
    pub hash: u128,
    /// Its family.
    pub metric: Arc<Metric>,
    /// Its labels.
    pub labels: Labels,
    /// Its place in this process.
    pub slot: Slot,
    /// Time of the commit that gave it its id (S2).
    pub created: Timestamp,
}

/// One durable commit.
pub struct Committed<'a> {
    /// Its number.
    pub id: CommitId,
    /// Wall clock of the commit.
    pub time: Timestamp,
    /// Series that appeared or returned with it; always before rows that name them.
    pub series: &'a [SeriesRow],
    /// Series whose totals begin anew with it (R3): its parts belong to the new life, older ones do not.
    pub resets: &'a [SeriesId],
    /// Its parts, in the order of their log keys.
    pub parts: &'a [EncodedPart],
}

/// Series that begin a new life with the commit that totals are encoded for (R3).
#[derive(Clone, Copy, Debug, Default)]
pub struct Resetting<'a> {
    /// Which; of any block.
    pub ids: &'a [SeriesId],
    /// Wall clock of that commit: their new creation time.
    pub at: Timestamp,
}

/// The totals of 1,024 consecutive series ids, as table `totals` keeps them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TotalsBlock {
    /// `id / 1024`.
    pub block: u32,
    /// The last commit folded in.
    pub as_of: CommitId,
    /// Encoded by the fold; opaque to the store but for the checksum around it.
    pub bytes: Vec<u8>,
}

/// A fold of durable commits. Called by the store's thread only.
pub trait Fold: Send {
    /// Recovery: a series of the file that is live again in this process.
    fn restore_series(&mut self, series: &SeriesRow);
    /// Recovery: a stored block of totals; rows of later commits follow through [`replay`](Self::replay).
    ///
    /// # Errors
    /// [`Corrupt`] when the bytes are not a block.
    fn restore_totals(&mut self, block: &TotalsBlock) -> Result<(), Corrupt>;
    /// Recovery: one stored part of a slice. It counts for a block's totals iff `through` (the newest
    /// commit it holds) is after the block's `as_of` and `for_totals`; it counts for windows always.
    ///
    /// # Errors
    /// [`Corrupt`] when the bytes are not a part.
    fn replay(&mut self, slice: Slice, through: CommitId, part: &[u8], for_totals: bool) -> Result<(), Corrupt>;
    /// Recovery: false when no window holds a slice, whose segments then need not be read.
    fn wants(&self, slice: Slice) -> bool {
        let _ = slice;
        true
    }
    /// A commit that just became durable.
    ///
    /// # Errors
    /// [`Corrupt`] cannot happen for bytes that this process encoded; recovery shares the code.
    fn commit(&mut self, committed: &Committed<'_>) -> Result<(), Corrupt>;
    /// The window moves on to `open` (the slice that holds the wall clock): which slices must now be
    /// taken out of windows. Each is then read from the store and given to [`expire`](Self::expire).
    fn leaving(&mut self, open: Slice) -> Vec<Slice>;
    /// Takes a slice out of the windows that it has left. `parts` are all its rows, late ones included.
    ///
    /// # Errors
    /// [`Corrupt`] when the bytes are not parts.
    fn expire(&mut self, slice: Slice, parts: &[Vec<u8>]) -> Result<(), Corrupt>;
    /// The newest set of a gauge, for relative operations (V6).
    fn gauge(&self, id: SeriesId) -> Option<NewestSet>;
    /// Encodes the totals of a block as of the last commit. `stored` is what the file holds: totals of
    /// series that are not in memory are carried over from it. Those of `resetting` are encoded as they will be when
    /// [`commit`](Self::commit) names them: at 0, with what they were kept beside. `None` when the block has no series.
    ///
    /// # Errors
    /// [`Corrupt`] when `stored` is not a block.
    fn encode_totals(
        &self,
        block: u32,
        stored: Option<&[u8]>,
        resetting: Resetting<'_>,
    ) -> Result<Option<Vec<u8>>, Corrupt>;
    /// Series without a sample since their metric's `idle`, at `now` (S2).
    fn idle(&self, now: Timestamp) -> Vec<(Kind, Slot, SeriesId)>;
    /// A series that left memory.
    fn forget(&mut self, id: SeriesId);
    /// The pipeline was reloaded (R2): these metrics are meant otherwise from here on, and those numbers belong to
    /// metrics that are not shown any more. A fold that shows nothing has nothing to do. The blocks whose totals are
    /// others by it: the next commit stores them, so that a restart finds them and not only what they were made of.
    fn reload(&mut self, metrics: &[Arc<Metric>], retired: &[MetricId]) -> BTreeSet<u32> {
        let _ = (metrics, retired);
        BTreeSet::new()
    }
    /// Other limits: so many sketch cells. A fold without sketches has nothing to do.
    fn set_cells(&mut self, cells_max: usize) {
        let _ = cells_max;
    }
}
