//! Which work of the history is due: what may be paged, rolled up, folded, and what has been kept long enough.
//!
//! In: what the ledger knows of slices and spans, and how far windows read back. Out: specs of jobs, steps of expiry.
//! Owns nothing. Invariants: no slice is paged that a window may still read; a span is rolled up once it gets no more but
//! late data; spans go oldest first, and only those that are rolled, or whose sums are in `base`.

use super::format::Span;
use super::job::{HistorySpec, Purpose, SegmentSource};
use super::ledger::Ledger;
use super::tier::{History, Tier, TierChange, TierPlan, TierSpan, span_end, span_start};
use crate::event::Slice;
use std::collections::BTreeMap;

/// Generations of a span beyond which they are folded.
const GENERATIONS_MAX: usize = 8;
/// A span that is over is folded into one generation when no commit changed it for so long: a quarter of an hour of
/// commits a second.
const QUIET_COMMITS: u64 = 900;
/// Spans that one commit may drop.
const EXPIRE_SPANS_MAX: usize = 64;

/// Spans of a tier to drop. Valid for the very next commit only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TierExpiry {
    pub(super) prepared_at: u64,
    pub(super) resolution: u32,
    /// The first slice that is kept.
    pub(super) from: u32,
    /// First slices of the spans that go; all are rolled.
    pub(super) spans: Vec<u32>,
}

impl TierExpiry {
    /// Of which tier, in slices.
    pub fn resolution(&self) -> u32 {
        self.resolution
    }

    /// How many spans go.
    pub fn spans(&self) -> usize {
        self.spans.len()
    }
}

/// What expiry needs next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ExpiryDue {
    /// These spans can go at once.
    Drop(TierExpiry),
    /// This span's sums must go to `base` before.
    ToBase(HistorySpec),
}

impl Ledger {
    /// What must change in table `tiers` before history goes on by this plan.
    pub fn tier_change(&self, plan: &[TierPlan]) -> Option<TierChange> {
        // A store that had no tiers yet may have dropped slices: it holds history from its oldest slice on.
        let is_first =
            self.history.tiers.is_empty() && self.meta.manifests[super::format::Table::Base as usize].rows > 0;
        let oldest = if is_first { self.spans.keys().next().copied() } else { None };
        self.history.change(plan, oldest)
    }

    /// The job of the history that is due: `until` is the first slice that must stay a segment. None while rows wait to be
    /// cleared.
    pub(super) fn history_due(&self, until: Slice) -> Option<HistorySpec> {
        if self.has_rubbish() {
            return None;
        }
        self.page_due(until.0).or_else(|| self.roll_due(until.0)).or_else(|| self.fold_due(until.0))
    }

    /// The oldest span of the first tier whose segments should become pages.
    fn page_due(&self, until: u32) -> Option<HistorySpec> {
        let end = span_start(1, until);
        let mut spans: BTreeMap<u32, bool> = BTreeMap::new();
        for (slice, span) in self.spans.range(..end) {
            let is_late = span_end(1, span_end(1, span_start(1, *slice))) <= end;
            let waits = span.log.rows > 0 && !is_late;
            *spans.entry(span_start(1, *slice)).or_default() |= waits;
        }
        let is_due = |start: &u32| self.history.holds(*start) && !segments(&self.spans, *start).is_empty();
        let start = spans.into_iter().filter(|(_, waits)| !waits).map(|(start, _)| start).find(is_due)?;
        self.page_spec(start)
    }

    /// Paging every segment of a span of the first tier.
    pub(super) fn page_spec(&self, start: u32) -> Option<HistorySpec> {
        let segments = segments(&self.spans, start);
        let (targets, to_base) = self.history.targets(0, start);
        (!segments.is_empty()).then(|| HistorySpec {
            purpose: Purpose::Page,
            resolution: 1,
            start,
            segments,
            generations: Vec::new(),
            targets,
            to_base,
        })
    }

    /// The oldest span, finest tier first, that is complete and not rolled, and has somewhere to go.
    fn roll_due(&self, until: u32) -> Option<HistorySpec> {
        let is_due = |((resolution, start), span): &(&(u32, u32), &TierSpan)| {
            let end = span_end(*resolution, *start);
            let has_finer = || {
                let finer = self.history.tiers.range(..*resolution);
                finer.flat_map(|(finer, _)| self.history.spans_of(*finer, *start..end)).any(|(_, span)| !span.is_rolled)
            };
            // The first pages of a span of the first tier that are still to come.
            let has_unpaged = || {
                let mut unpaged = self.spans.range(*start..end);
                unpaged.any(|(slice, _)| !self.history.spans.contains_key(&(1, span_start(1, *slice))))
            };
            !span.is_rolled
                && end <= until
                && self.history.has_next(*resolution, *start)
                && !has_finer()
                && !has_unpaged()
        };
        let ((resolution, start), _) = self.history.spans.iter().find(is_due)?;
        Some(self.roll_spec(*resolution, *start))
    }

    /// Rolling a span up, into `base` where no tier is left.
    pub(super) fn roll_spec(&self, resolution: u32, start: u32) -> HistorySpec {
        let (targets, to_base) = self.history.targets(resolution, start);
        let generations = self.history.spans.get(&(resolution, start)).map(|span| span.generations.clone());
        HistorySpec {
            purpose: Purpose::Roll,
            resolution,
            start,
            segments: Vec::new(),
            generations: generations.unwrap_or_default(),
            targets,
            to_base,
        }
    }

    /// A span with too many generations, or one that is over and quiet and has more than one.
    fn fold_due(&self, until: u32) -> Option<HistorySpec> {
        let is_due = |((resolution, start), span): &(&(u32, u32), &TierSpan)| {
            let is_over =
                span_end(*resolution, *start) <= until && self.meta.last_commit >= span.newest + QUIET_COMMITS;
            span.generations.len() > GENERATIONS_MAX || (span.generations.len() > 1 && is_over)
        };
        let ((resolution, start), _) = self.history.spans.iter().find(is_due)?;
        let is_over = span_end(*resolution, *start) <= until;
        Some(self.fold_spec(*resolution, *start, is_over))
    }

    /// Folding the generations of a span into one: all of them, or, while more will come, only small ones, so that a large
    /// one is not written again for each few.
    pub(super) fn fold_spec(&self, resolution: u32, start: u32, all: bool) -> HistorySpec {
        let span = self.history.spans.get(&(resolution, start)).cloned().unwrap_or_default();
        let (_, bytes) = span.size();
        let is_small = |rows: u64| all || rows <= bytes / 2;
        let generations: Vec<_> = span.generations.iter().filter(|g| is_small(g.rows.bytes)).copied().collect();
        let target = super::tier::Target { resolution, start, generation: span.generation + 1 };
        HistorySpec {
            purpose: Purpose::Fold,
            resolution,
            start,
            segments: Vec::new(),
            generations,
            targets: vec![target],
            to_base: false,
        }
    }

    /// True while a spec is what it would be if it were made now: its inputs stand and go where they did.
    pub(super) fn is_current(&self, spec: &HistorySpec) -> bool {
        match spec.purpose {
            Purpose::Page => self.page_spec(spec.start).as_ref() == Some(spec),
            Purpose::Roll => {
                let span = self.history.spans.get(&(spec.resolution, spec.start));
                span.is_some_and(|span| !span.is_rolled) && self.roll_spec(spec.resolution, spec.start) == *spec
            }
            Purpose::Fold => {
                let span = self.history.spans.get(&(spec.resolution, spec.start));
                span.is_some_and(|span| {
                    let is_next = spec.targets.iter().all(|target| target.generation == span.generation + 1);
                    is_next && spec.generations.iter().all(|generation| span.generations.contains(generation))
                })
            }
        }
    }

    /// The next expiry by what each tier keeps: `slice_of` gives the slice that lies a number of nanoseconds back.
    pub(super) fn expiry_due(&self, slice_of: impl Fn(i64) -> Slice) -> Option<ExpiryDue> {
        let planned = self.history.tiers.iter().filter(|(_, tier)| tier.until == u32::MAX);
        planned.into_iter().find_map(|(resolution, tier)| {
            let kept = u64::from(slice_of(tier.keep).0);
            let step = self.history.expiry_step(*resolution);
            self.expiry_until(*resolution, tier, (kept / step * step) as u32)
        })
    }

    /// Dropping a tier's spans before `until`, as far as that goes.
    pub(super) fn expiry_until(&self, resolution: u32, tier: &Tier, until: u32) -> Option<ExpiryDue> {
        if until <= tier.from {
            return None;
        }
        let step = self.history.expiry_step(resolution);
        let mut expiry = TierExpiry { prepared_at: self.meta.last_commit, resolution, from: until, spans: Vec::new() };
        for (start, span) in self.history.spans_of(resolution, 0..until) {
            // The span's group begins here: `from` can move up to it.
            let group = (u64::from(start) / step * step) as u32;
            if !span.is_rolled {
                if self.history.has_next(resolution, start) || group > tier.from && !expiry.spans.is_empty() {
                    expiry.from = group;
                    break;
                }
                return Some(ExpiryDue::ToBase(self.roll_spec(resolution, start)));
            }
            if expiry.spans.len() >= EXPIRE_SPANS_MAX && group > expiry.spans[expiry.spans.len() - 1] {
                expiry.from = group;
                break;
            }
            expiry.spans.push(start);
        }
        expiry.spans.retain(|start| *start < expiry.from);
        (expiry.from > tier.from).then_some(ExpiryDue::Drop(expiry))
    }
}

/// Every segment that stands in a span of the first tier.
fn segments(spans: &BTreeMap<u32, Span>, start: u32) -> Vec<SegmentSource> {
    let standing = spans.range(start..span_end(1, start)).filter(|(_, span)| span.generation > 0);
    let source = |(slice, span): (&u32, &Span)| SegmentSource {
        slice: *slice,
        generation: span.generation,
        rows: span.segments,
    };
    standing.map(source).collect()
}

impl History {
    /// Bytes of all pages, as redb allocates them.
    pub(super) fn allocated(&self) -> u64 {
        self.spans.values().map(TierSpan::allocated).sum()
    }
}
