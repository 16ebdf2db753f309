//! Resets (R3): series whose totals begin at 0 with a commit.
//!
//! In: series that somebody wants reset. Out: those that the next commit resets, and a set to 0 for gauges. Owns nothing.
//! Invariants: the totals of a series are stored as of the commit before, reset, in the very transaction that says so: a
//! crash leaves all of it or nothing, and rows of the log count for the new life from that commit on, however late they
//! are. History, sums and the laws know nothing of it, but for the set of a gauge, which is a sample of `internal`.

use super::super::gauges::Gauges;
use super::Store;
use crate::delta::part::PartWriter;
use crate::delta::{EncodedPart, SourceTally};
use crate::event::{Kind, SeriesId, Timestamp};
use crate::store::format::BLOCK_SERIES;

/// Blocks of totals that a commit writes because of resets: 65,536 series, at most some 20 MB. More go into the next.
const RESET_BLOCKS_MAX: usize = 64;

impl Store {
    /// These series are reset by the next commits; what is drained before the next one belongs to their new life.
    pub fn ask_reset(&mut self, series: &[(Kind, SeriesId)]) {
        let known = self.ledger.next_series();
        self.pending.resets.extend(series.iter().filter(|(_, id)| *id < known).map(|(kind, id)| (*id, *kind)));
    }

    /// True while some were asked for and are not durable.
    pub fn has_resets(&self) -> bool {
        let attempted = self.attempt.as_ref().is_some_and(|attempt| !attempt.resets.is_empty());
        attempted || !self.pending.resets.is_empty() || !self.pending.resetting.is_empty()
    }

    /// Moves as many as fit into the commit that is prepared. From here on a gauge's 0 is pending like any sample.
    pub(super) fn begin_resets(&mut self, now: Timestamp) {
        if self.pending.resets.is_empty() || !self.pending.resetting.is_empty() {
            return;
        }
        let mut blocks = 0;
        let mut last = None;
        let mut writer = PartWriter::new(Vec::new());
        let mut tally = SourceTally::default();
        let mut waiting = Gauges::default();
        waiting.cover(self.pending.parts.values().flatten());
        while let Some(entry) = self.pending.resets.first_entry() {
            let block = entry.key().0 / BLOCK_SERIES;
            blocks += usize::from(last != Some(block));
            last = Some(block);
            if blocks > RESET_BLOCKS_MAX {
                break;
            }
            let (id, kind) = entry.remove_entry();
            if kind == Kind::Gauge {
                let sum = waiting.zero(id, self.fold.gauge(id), now);
                self.gauges.note(id, &sum);
                writer.gauge(id, &sum);
                tally.samples[Kind::Gauge as usize] += 1;
                tally.recorded[Kind::Gauge as usize] += 1;
            }
            self.pending.resetting.push(id);
        }
        if writer.rows() > 0 {
            let (slice, rows) = (self.limits.slice.slice_of(now), writer.rows());
            self.pending.add_part(EncodedPart { slice, bytes: writer.finish(), rows });
            self.pending.add_tallies(&[tally]);
        }
    }
}
