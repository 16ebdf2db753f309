//! What waits for a commit, and a commit that was tried.
//!
//! In: encoded parts, new series, tallies, positions. Out: the same in one attempt. Invariant: an attempt never changes,
//! so that trying it again is trying the same (C4).

use super::super::fold::SeriesRow;
use super::super::kept::KeptChange;
use super::super::series::SeriesDef;
use crate::delta::epoch::PartitionPosition;
use crate::delta::{EncodedPart, SourceTally};
use crate::event::{CommitId, Kind, SeriesId, Slice, Timestamp};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Everything a commit needs beside what the ledger adds.
#[derive(Default)]
pub(super) struct Pending {
    pub(super) series: Vec<SeriesRow>,
    pub(super) parts: BTreeMap<Slice, Vec<EncodedPart>>,
    pub(super) bytes: usize,
    pub(super) tallies: Vec<SourceTally>,
    pub(super) positions: BTreeMap<Arc<str>, PartitionPosition>,
    /// Series that are to be reset (R3), and those of them that the next commit resets.
    pub(super) resets: BTreeMap<SeriesId, Kind>,
    pub(super) resetting: Vec<SeriesId>,
    /// Live epochs whose shards have all answered, and replayable ones.
    pub(super) live_epoch: u64,
}

impl Pending {
    pub(super) fn add_tallies(&mut self, tallies: &[SourceTally]) {
        if self.tallies.len() < tallies.len() {
            self.tallies.resize_with(tallies.len(), SourceTally::default);
        }
        for (mine, new) in self.tallies.iter_mut().zip(tallies) {
            mine.merge(new);
        }
    }

    pub(super) fn add_part(&mut self, part: EncodedPart) {
        self.bytes += part.bytes.len();
        self.parts.entry(part.slice).or_default().push(part);
    }

    pub(super) fn is_empty(&self) -> bool {
        let is_empty = self.series.is_empty() && self.parts.is_empty() && self.positions.is_empty();
        is_empty && self.resetting.is_empty()
    }
}

/// A commit as it was first tried: it must be tried again exactly so.
pub(super) struct Attempt {
    pub(super) id: CommitId,
    pub(super) time: Timestamp,
    pub(super) watermark: Timestamp,
    pub(super) series: Vec<SeriesRow>,
    pub(super) defs: Vec<SeriesDef>,
    pub(super) parts: Vec<EncodedPart>,
    pub(super) resets: Vec<SeriesId>,
    pub(super) tallies: Vec<SourceTally>,
    pub(super) positions: Vec<PartitionPosition>,
    /// Rows of `pairs` and `recent`.
    pub(super) pairs: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    pub(super) recent: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    pub(super) kept: KeptChange,
    pub(super) live_epoch: u64,
}
