//! Rows of a commit as lines: whose they are, which are shown.
//!
//! In: the parts of a commit. Out: lines. Owns: which series an id is, learned from the view as ids come. Invariants: a
//! row is shown or counted as left out; where there are more rows than the limit takes, each is as likely to be shown.
//!
//! A commit brings all its rows at one moment, so that the first ones would always be the same series. So rows are drawn:
//! algorithm R (Vitter, "Random sampling with a reservoir", 1985).

use super::shown;
use super::{STORE_EDGE, TapLine, rfc3339};
use crate::delta::part::{PartCursor, RowValue, Scratch};
use crate::event::{Kind, Labels, Metric, SeriesId, Slice, Slot, Timestamp};
use crate::shard::tap::{SeriesSubject, TapCommit, TapReader};
use crate::view::View;
use std::collections::HashMap;
use std::sync::Arc;

/// What a row says, without its series.
struct Drawn {
    /// Among the rows that passed: the order in which they are shown.
    at: u64,
    kind: Kind,
    id: SeriesId,
    slice: Slice,
    figures: shown::Figures,
}

/// See the file's head.
pub(super) struct Deltas {
    view: View,
    /// By id: its slot and its metric.
    series: HashMap<u32, (Slot, Arc<Metric>), foldhash::fast::FixedState>,
    /// Verdicts of the filter.
    verdicts: HashMap<u32, bool, foldhash::fast::FixedState>,
    /// By metric number: version of its family, and how many of it are known.
    families: HashMap<u32, (u64, usize)>,
    dice: u64,
}

impl Deltas {
    pub(super) fn new(view: View, seed: u64) -> Deltas {
        Deltas {
            view,
            series: HashMap::default(),
            verdicts: HashMap::default(),
            families: HashMap::new(),
            dice: seed | 1,
        }
    }

    /// The rows of a commit that are shown, at most `most`.
    pub(super) fn take(&mut self, commit: &TapCommit, reader: &TapReader, now: Timestamp, most: usize) -> Vec<TapLine> {
        let room = usize::try_from(reader.limiter().available(now)).unwrap_or(usize::MAX).min(most);
        let rows: u64 = commit.parts.iter().map(|part| part.rows).sum();
        if room == 0 && !reader.is_filtered() {
            reader.leave_out(rows);
            return Vec::new();
        }
        self.learn();
        let mut drawn: Vec<Drawn> = Vec::new();
        let mut passed = 0;
        let mut scratch = Scratch::default();
        for part in &commit.parts {
            // The bytes were encoded in this process and are durable: they can be read.
            let Ok(mut cursor) = PartCursor::new(&part.bytes) else { continue };
            while let Ok(Some(row)) = cursor.next(&mut scratch) {
                let kind = row.value.kind();
                if !self.accepts(kind, row.id, reader) {
                    continue;
                }
                let place = if drawn.len() < room { drawn.len() as u64 } else { self.roll() % (passed + 1) };
                passed += 1;
                if place < room as u64 {
                    let figures = self.figures(row.id, &row.value);
                    let new = Drawn { at: passed, kind, id: row.id, slice: part.slice, figures };
                    match drawn.get_mut(place as usize) {
                        Some(old) => *old = new,
                        None => drawn.push(new),
                    }
                }
            }
        }
        drawn.sort_unstable_by_key(|row| row.at);
        // Somebody else cannot have taken from the bucket more than it held: those are left out too.
        drawn.retain(|_| reader.limiter().take(now));
        reader.leave_out(passed - drawn.len() as u64);
        let start = |slice| rfc3339(self.view.slice_width().start(slice));
        let lines = drawn.into_iter().map(|row| {
            let (metric, labels) = self.series_of(row.kind, row.id);
            shown::delta(
                (rfc3339(commit.time), STORE_EDGE.to_owned(), commit.id.0, start(row.slice)),
                (row.kind, metric.map_or_else(String::new, |metric| metric.name.to_string()), &labels),
                row.figures,
            )
        });
        lines.collect()
    }

    /// Series that appeared since the last look.
    fn learn(&mut self) {
        for metric in self.view.metrics() {
            let (version, known) = self.families.get(&metric.id.0).copied().unwrap_or((0, 0));
            let (family, continues) = self.view.series_since(&metric, version, known);
            for (id, slot) in &family.series {
                self.series.insert(id.0, (*slot, Arc::clone(&family.metric)));
            }
            let before = if continues { known } else { 0 };
            self.families.insert(metric.id.0, (family.version, before + family.series.len()));
        }
    }

    fn series_of(&self, kind: Kind, id: SeriesId) -> (Option<Arc<Metric>>, Labels) {
        let Some((slot, metric)) = self.series.get(&id.0) else { return (None, Labels::empty()) };
        let mut labels = Labels::empty();
        self.view.labels(kind, &[(id, *slot)], |found| labels = found.clone());
        (Some(Arc::clone(metric)), labels)
    }

    fn accepts(&mut self, kind: Kind, id: SeriesId, reader: &TapReader) -> bool {
        if !reader.is_filtered() {
            return true;
        }
        if let Some(verdict) = self.verdicts.get(&id.0) {
            return *verdict;
        }
        let (metric, labels) = self.series_of(kind, id);
        let Some(metric) = metric else { return false };
        let verdict = reader.accepts(&SeriesSubject { name: &metric.name, labels: &labels });
        self.verdicts.insert(id.0, verdict);
        verdict
    }

    fn figures(&self, id: SeriesId, value: &RowValue<'_>) -> shown::Figures {
        let scale = self.series.get(&id.0).map_or(crate::event::Scale::ONE, |(_, metric)| metric.scale);
        shown::Figures::of(value, scale)
    }

    /// The next of a row of numbers that begins at the seed (xorshift64*).
    fn roll(&mut self) -> u64 {
        self.dice ^= self.dice >> 12;
        self.dice ^= self.dice << 25;
        self.dice ^= self.dice >> 27;
        self.dice.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }
}
