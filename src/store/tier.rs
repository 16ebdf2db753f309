//! Tiers of history as plain values: which of them hold a time, and where a sample of it must go.
//!
//! In: the tiers that the pipeline file wants, what is stored of each. Out: targets of jobs, changes of table `tiers`.
//! Owns: one entry per tier and per span. Invariants: spans of a tier nest in those of the next; a span that is *rolled*
//! has all its samples in coarser tiers (or in `base`) too, so that the sums of the history are those of logs, segments
//! and the spans that are **not** rolled.

use super::error::{Fault, corrupt};
use super::format::Manifest;
use super::series::{Reader, decode_whole};
use std::collections::BTreeMap;
use std::ops::Range;

/// Slots of a span, whatever the resolution: 1 h of 10 s, 6 h of 1 min, 15 d of 1 h.
pub const SPAN_SLOTS: u32 = 360;
/// The coarsest resolution, in slices: a span of it still has its end in a [`Slice`](crate::event::Slice).
pub const RESOLUTION_MAX: u32 = 1 << 22;

/// One tier as the pipeline file wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TierPlan {
    /// Slices of one slot; 1 in the first tier, and a multiple of the tier before in each other one.
    pub resolution: u32,
    /// Nanoseconds.
    pub keep: i64,
}

/// A row of table `tiers`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tier {
    /// The first slice that it still holds.
    pub(super) from: u32,
    /// The first slice that it gets nothing of any more: `u32::MAX` while the pipeline file has it.
    pub(super) until: u32,
    pub(super) keep: i64,
}

/// Rows of one job in one span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Generation {
    pub(super) number: u32,
    /// What its rows take in the file, by redb's allocation.
    pub(super) allocated: u64,
    pub(super) rows: Manifest,
}

/// A row of table `tier_spans`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TierSpan {
    /// Its samples are in coarser tiers too.
    pub(super) is_rolled: bool,
    /// The highest number given so far.
    pub(super) generation: u32,
    /// The commit that changed its contents last.
    pub(super) newest: u64,
    pub(super) generations: Vec<Generation>,
}

/// Where a job writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) resolution: u32,
    pub(super) start: u32,
    pub(super) generation: u32,
}

impl Tier {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(16);
        out.extend_from_slice(&self.from.to_le_bytes());
        out.extend_from_slice(&self.until.to_le_bytes());
        out.extend_from_slice(&self.keep.to_le_bytes());
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Tier, Fault> {
        let read = |r: &mut Reader<'_>| Some(Tier { from: r.u32()?, until: r.u32()?, keep: r.i64()? });
        decode_whole(bytes, read).ok_or_else(|| corrupt("a row of table tiers does not decode"))
    }

    fn holds(&self, slice: u32) -> bool {
        (self.from..self.until).contains(&slice)
    }
}

impl TierSpan {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(13 + self.generations.len() * 36);
        out.push(u8::from(self.is_rolled));
        out.extend_from_slice(&self.generation.to_le_bytes());
        out.extend_from_slice(&self.newest.to_le_bytes());
        for generation in &self.generations {
            out.extend_from_slice(&generation.number.to_le_bytes());
            out.extend_from_slice(&generation.allocated.to_le_bytes());
            generation.rows.put(&mut out);
        }
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<TierSpan, Fault> {
        let read = |r: &mut Reader<'_>| {
            let is_rolled = match r.u8()? {
                0 => false,
                1 => true,
                _ => return None,
            };
            let (generation, newest) = (r.u32()?, r.u64()?);
            let mut generations = Vec::new();
            while !r.is_empty() {
                let (number, allocated) = (r.u32()?, r.u64()?);
                generations.push(Generation { number, allocated, rows: Manifest::take(r)? });
            }
            Some(TierSpan { is_rolled, generation, newest, generations })
        };
        decode_whole(bytes, read).ok_or_else(|| corrupt("a row of table tier_spans does not decode"))
    }

    pub(super) fn allocated(&self) -> u64 {
        self.generations.iter().map(|generation| generation.allocated).sum()
    }

    /// Rows and bytes of all generations.
    pub(super) fn size(&self) -> (u64, u64) {
        let rows = self.generations.iter().map(|generation| generation.rows);
        rows.fold((0, 0), |sum, rows| (sum.0 + rows.rows, sum.1 + rows.bytes))
    }
}

/// Slices of a span.
pub(super) fn span_slices(resolution: u32) -> u32 {
    resolution.saturating_mul(SPAN_SLOTS)
}

/// The first slice of the span that holds a slice.
pub(super) fn span_start(resolution: u32, slice: u32) -> u32 {
    slice - slice % span_slices(resolution)
}

/// The first slice behind a span.
pub(super) fn span_end(resolution: u32, start: u32) -> u32 {
    start.saturating_add(span_slices(resolution))
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn lcm(a: u32, b: u32) -> u64 {
    u64::from(a) / gcd(u64::from(a), u64::from(b)) * u64::from(b)
}

fn round_up(slice: u32, step: u64) -> u32 {
    u32::try_from(u64::from(slice).div_ceil(step) * step).unwrap_or(u32::MAX)
}

/// What is stored of all tiers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct History {
    /// By resolution in slices.
    pub(super) tiers: BTreeMap<u32, Tier>,
    /// By resolution and first slice.
    pub(super) spans: BTreeMap<(u32, u32), TierSpan>,
}

/// What a new list of tiers makes of the stored ones. Valid until the next commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TierChange {
    /// `None` for one that goes.
    pub(super) rows: Vec<(u32, Option<Tier>)>,
    /// Tiers whose old spans go, because they begin anew.
    pub(super) emptied: Vec<u32>,
}

impl History {
    /// The spans of a tier, ascending.
    pub(super) fn spans_of(&self, resolution: u32, range: Range<u32>) -> impl Iterator<Item = (u32, &TierSpan)> {
        let spans = self.spans.range((resolution, range.start)..(resolution, range.end.max(range.start)));
        spans.map(|((_, start), span)| (*start, span))
    }

    /// Where samples of a slice go that are in no tier up to `after` (0: in none at all); and whether they belong in `base`,
    /// because every tier that holds the time has passed its own on already, or none holds it.
    pub(super) fn targets(&self, after: u32, slice: u32) -> (Vec<Target>, bool) {
        let mut targets = Vec::new();
        for (resolution, _) in self.tiers.range(after + 1..).filter(|(_, tier)| tier.holds(slice)) {
            let start = span_start(*resolution, slice);
            let span = self.spans.get(&(*resolution, start));
            let generation = span.map_or(0, |span| span.generation) + 1;
            targets.push(Target { resolution: *resolution, start, generation });
            if !span.is_some_and(|span| span.is_rolled) {
                return (targets, false);
            }
        }
        (targets, true)
    }

    /// True when some tier holds this slice.
    pub(super) fn holds(&self, slice: u32) -> bool {
        self.tiers.values().any(|tier| tier.holds(slice))
    }

    /// True when a tier coarser than this one holds the slice.
    pub(super) fn has_next(&self, resolution: u32, slice: u32) -> bool {
        self.tiers.range(resolution + 1..).any(|(_, tier)| tier.holds(slice))
    }

    /// Slices by which `from` of a tier moves: whole spans of its own that are whole slots of the next.
    pub(super) fn expiry_step(&self, resolution: u32) -> u64 {
        let next =
            self.tiers.range(resolution + 1..).map(|(next, _)| *next).find(|next| next.is_multiple_of(resolution));
        lcm(span_slices(resolution), next.unwrap_or(resolution))
    }

    /// What must change in table `tiers`; `None` when it says what the plan says. `oldest` is the first slice that the
    /// file holds anything of, when older ones may have gone.
    pub(super) fn change(&self, plan: &[TierPlan], oldest: Option<u32>) -> Option<TierChange> {
        let mut change = TierChange::default();
        let mut after = self.tiers.clone();
        let is_planned = |resolution: u32| plan.iter().any(|tier| tier.resolution == resolution);
        for (resolution, tier) in self.tiers.iter().filter(|(r, tier)| tier.until == u32::MAX && !is_planned(**r)) {
            // It gets what belongs in the spans it has begun, so that none of them is half of one tier and half of another.
            let last = self.spans_of(*resolution, 0..u32::MAX).last();
            match last {
                Some((start, _)) => {
                    let frozen = Tier { until: span_end(*resolution, start), ..*tier };
                    after.insert(*resolution, frozen);
                    change.rows.push((*resolution, Some(frozen)));
                }
                None => {
                    after.remove(resolution);
                    change.rows.push((*resolution, None));
                }
            }
        }
        for wanted in plan {
            let resolution = wanted.resolution;
            let begin = self.begin(&after, resolution, oldest);
            let stored = after.get(&resolution).copied();
            let tier = match stored {
                Some(tier) if tier.until == u32::MAX => Tier { keep: wanted.keep, ..tier },
                Some(tier) if begin <= tier.until => Tier { keep: wanted.keep, until: u32::MAX, ..tier },
                Some(tier) => {
                    // It missed something. Once what it has is in coarser tiers too, it begins anew.
                    if self.spans_of(resolution, 0..u32::MAX).any(|(_, span)| !span.is_rolled) {
                        continue;
                    }
                    change.emptied.push(resolution);
                    Tier { from: begin.max(tier.until), until: u32::MAX, keep: wanted.keep }
                }
                None => Tier { from: begin, until: u32::MAX, keep: wanted.keep },
            };
            if stored != Some(tier) {
                after.insert(resolution, tier);
                change.rows.push((resolution, Some(tier)));
            }
        }
        (change != TierChange::default()).then_some(change)
    }

    /// The first slice from which on a tier that begins now gets everything: nothing of it was rolled past it, and none of
    /// its spans is another tier's that was given up.
    fn begin(&self, tiers: &BTreeMap<u32, Tier>, resolution: u32, oldest: Option<u32>) -> u32 {
        let oldest = oldest.filter(|_| resolution == 1);
        let mut begin = oldest.unwrap_or(0);
        let mut alignment = u64::from(span_slices(resolution));
        for (other, tier) in tiers.iter().filter(|(other, _)| **other != resolution) {
            begin = begin.max(tier.from);
            if tier.until != u32::MAX {
                begin = begin.max(tier.until);
            }
            if *other < resolution {
                if resolution.is_multiple_of(*other) {
                    alignment = lcm(span_slices(*other), resolution);
                }
                let rolled = self.spans_of(*other, 0..u32::MAX).filter(|(_, span)| span.is_rolled).last();
                begin = begin.max(rolled.map_or(0, |(start, _)| span_end(*other, start)));
            }
        }
        match oldest {
            // What is there of the first span belongs in it.
            Some(oldest) if begin == oldest => span_start(1, oldest),
            _ => round_up(begin, alignment),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000_000_000;

    fn plan(tiers: &[(u32, i64)]) -> Vec<TierPlan> {
        tiers.iter().map(|(resolution, hours)| TierPlan { resolution: *resolution, keep: hours * HOUR }).collect()
    }

    fn apply(history: &mut History, plan: &[TierPlan]) {
        for (resolution, tier) in history.change(plan, None).map(|change| change.rows).unwrap_or_default() {
            match tier {
                Some(tier) => drop(history.tiers.insert(resolution, tier)),
                None => drop(history.tiers.remove(&resolution)),
            }
        }
    }

    fn put(history: &mut History, resolution: u32, start: u32, is_rolled: bool) {
        history.spans.insert((resolution, start), TierSpan { is_rolled, generation: 1, ..TierSpan::default() });
    }

    fn resolutions(history: &History, slice: u32) -> (Vec<u32>, bool) {
        let (targets, to_base) = history.targets(0, slice);
        (targets.iter().map(|target| target.resolution).collect(), to_base)
    }

    #[test]
    fn h1_a_late_sample_goes_to_every_tier_where_its_span_stands() {
        let mut history = History::default();
        assert_eq!(resolutions(&history, 5), (vec![], true), "no tier: base");
        apply(&mut history, &plan(&[(1, 24), (6, 100), (360, 1000)]));
        assert_eq!(history.change(&plan(&[(1, 24), (6, 100), (360, 1000)]), None), None);
        assert_eq!(resolutions(&history, 5), (vec![1], false));
        put(&mut history, 1, 0, true);
        assert_eq!(resolutions(&history, 5), (vec![1, 6], false));
        put(&mut history, 6, 0, true);
        assert_eq!(resolutions(&history, 5), (vec![1, 6, 360], false));
        history.tiers.get_mut(&1).expect("is there").from = 360;
        assert_eq!(resolutions(&history, 5), (vec![6, 360], false));
        history.tiers.get_mut(&360).expect("is there").from = 129_600;
        assert_eq!(resolutions(&history, 5), (vec![6], true), "what the coarsest has given up is in base");
        assert_eq!(resolutions(&history, 400), (vec![1], false));
        assert!(history.has_next(1, 5) && !history.has_next(6, 5) && history.has_next(6, 129_600));
        assert_eq!(history.targets(1, 5).0, [Target { resolution: 6, start: 0, generation: 2 }]);
    }

    #[test]
    fn a_tier_moves_by_whole_slots_of_the_next() {
        let mut history = History::default();
        apply(&mut history, &plan(&[(1, 24), (7, 100), (8640 * 7, 1000)]));
        assert_eq!(
            (history.expiry_step(1), history.expiry_step(7), history.expiry_step(60_480)),
            (360 * 7, 60_480, 21_772_800)
        );
    }

    #[test]
    fn a_tier_that_is_added_gets_what_was_not_rolled_past_it() {
        let mut history = History::default();
        apply(&mut history, &plan(&[(1, 24), (360, 1000)]));
        (0..30).for_each(|n| put(&mut history, 1, n * 360, n < 7));
        put(&mut history, 360, 0, false);
        apply(&mut history, &plan(&[(1, 24), (6, 100), (360, 1000)]));
        assert_eq!(history.tiers[&6].from, 2520, "seven spans were rolled past it");
        assert_eq!(history.targets(1, 2160).0[0].resolution, 360);
        assert_eq!(history.targets(1, 2520).0[0].resolution, 6);
    }

    #[test]
    fn a_tier_that_is_removed_ends_with_its_last_span_and_may_come_back() {
        let mut history = History::default();
        let all = plan(&[(1, 24), (6, 100), (360, 1000)]);
        apply(&mut history, &all);
        put(&mut history, 6, 0, true);
        put(&mut history, 6, 2160, false);
        apply(&mut history, &plan(&[(1, 24), (360, 1000)]));
        assert_eq!(history.tiers[&6].until, 4320);
        assert_eq!((history.targets(1, 4000).0[0].resolution, history.targets(1, 4320).0[0].resolution), (6, 360));
        apply(&mut history, &all);
        assert_eq!(history.tiers[&6].until, u32::MAX, "nothing was missed");
        apply(&mut history, &plan(&[(1, 24), (360, 1000)]));
        put(&mut history, 1, 4320, true);
        apply(&mut history, &all);
        assert_eq!(history.tiers[&6].until, 4320, "what it has must be rolled first");
        put(&mut history, 6, 2160, true);
        let change = history.change(&all, None).expect("it begins anew");
        assert_eq!(change.emptied, [6]);
        assert_eq!(change.rows[0].1.expect("a row").from, 4680);
        // One without spans leaves no trace.
        apply(&mut history, &plan(&[(1, 24), (6, 100), (8640, 10_000)]));
        assert!(!history.tiers.contains_key(&360) && history.tiers.contains_key(&8640));
    }

    #[test]
    fn rows_decode_as_they_were_encoded() {
        let tier = Tier { from: 7, until: u32::MAX, keep: HOUR };
        assert_eq!(Tier::decode(&tier.encode()).expect("decodes"), tier);
        let rows = Manifest { rows: 3, bytes: 4, xor: 5 };
        let generations = vec![Generation { number: 2, allocated: 8192, rows }; 3];
        let span = TierSpan { is_rolled: true, generation: 9, newest: 12, generations };
        assert_eq!(TierSpan::decode(&span.encode()).expect("decodes"), span);
        assert!(TierSpan::decode(&span.encode()[..20]).is_err() && Tier::decode(&[0; 3]).is_err());
    }
}
