//! The view's fold, with an ear for taps: what was committed is shown once it is durable and folded.
//!
//! In: the store's calls. Out: the same calls to the view, and each commit to the taps. Owns nothing of its own.
//! Invariant: without a tap a commit costs one relaxed load more.

use crate::delta::part::Corrupt;
use crate::event::{CommitId, Kind, Metric, MetricId, SeriesId, Slice, Slot, Timestamp};
use crate::shard::tap::TapHub;
use crate::store::{Committed, Fold, NewestSet, Resetting, SeriesRow, TotalsBlock};
use std::sync::Arc;

/// See the file's head.
pub(in crate::pipeline) struct TappedFold<F> {
    fold: F,
    taps: Arc<TapHub>,
}

impl<F: Fold> TappedFold<F> {
    pub(in crate::pipeline) fn new(fold: F, taps: Arc<TapHub>) -> TappedFold<F> {
        TappedFold { fold, taps }
    }
}

impl<F: Fold> Fold for TappedFold<F> {
    fn commit(&mut self, committed: &Committed<'_>) -> Result<(), Corrupt> {
        self.fold.commit(committed)?;
        self.taps.commit(committed.id, committed.time, committed.parts);
        Ok(())
    }

    fn restore_series(&mut self, series: &SeriesRow) {
        self.fold.restore_series(series);
    }

    fn restore_totals(&mut self, block: &TotalsBlock) -> Result<(), Corrupt> {
        self.fold.restore_totals(block)
    }

    fn replay(&mut self, slice: Slice, through: CommitId, part: &[u8], for_totals: bool) -> Result<(), Corrupt> {
        self.fold.replay(slice, through, part, for_totals)
    }

    fn wants(&self, slice: Slice) -> bool {
        self.fold.wants(slice)
    }

    fn leaving(&mut self, open: Slice) -> Vec<Slice> {
        self.fold.leaving(open)
    }

    fn expire(&mut self, slice: Slice, parts: &[Vec<u8>]) -> Result<(), Corrupt> {
        self.fold.expire(slice, parts)
    }

    fn gauge(&self, id: SeriesId) -> Option<NewestSet> {
        self.fold.gauge(id)
    }

    fn encode_totals(
        &self,
        block: u32,
        stored: Option<&[u8]>,
        resetting: Resetting<'_>,
    ) -> Result<Option<Vec<u8>>, Corrupt> {
        self.fold.encode_totals(block, stored, resetting)
    }

    fn idle(&self, now: Timestamp) -> Vec<(Kind, Slot, SeriesId)> {
        self.fold.idle(now)
    }

    fn forget(&mut self, id: SeriesId) {
        self.fold.forget(id);
    }

    fn reload(&mut self, metrics: &[Arc<Metric>], retired: &[MetricId]) -> std::collections::BTreeSet<u32> {
        self.fold.reload(metrics, retired)
    }

    fn set_cells(&mut self, cells_max: usize) {
        self.fold.set_cells(cells_max);
    }
}
