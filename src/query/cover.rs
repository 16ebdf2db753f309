//! Which resolution is held when, and which rows an answer is made of: as few as give the same bits.
//!
//! In: the tiers of a store, the windows that are looked at, and the edges that no row may reach across. Out: [`Zones`] and
//! runs of slots. Pure. Invariants: every slot begins at a multiple of its resolution, counted from the epoch; a coarser
//! tier is used where a finer one is there only if it holds all that the finer one holds; where none finer is there, times
//! are floored to its edges, so that neighbouring ranges neither share a sample nor lose one.

use std::ops::Range;

/// A stretch of time, up to the next one, and the finest resolution that is held in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Zone {
    /// The first slice.
    pub from: u32,
    /// Slices of a slot, at least one.
    pub resolution: u32,
}

/// All stretches, ascending: the oldest is the coarsest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Zones(Vec<Zone>);

/// A tier of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tier {
    /// Slices of a slot, at least one.
    pub resolution: u32,
    /// The first slice it holds.
    pub from: u32,
    /// The first slice that it holds no more of; 2³² − 1 while it goes on.
    pub until: u32,
    /// Ascending: slices of which the finer tiers hold something that this one does not.
    pub lacks: Vec<Range<u32>>,
}

/// Slots of one tier, one after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The first slice.
    pub from: u32,
    /// The slice after the last.
    pub to: u32,
    /// Slices of a slot.
    pub resolution: u32,
    /// The place of the tier; `None` where none holds anything, so that only what was not paged yet can be there.
    pub tier: Option<usize>,
}

impl Tier {
    fn holds(&self, slice: u32) -> bool {
        self.from <= slice && (slice < self.until || self.until == u32::MAX)
    }
}

impl Run {
    /// The first slice of the slot that holds a slice of this run.
    pub fn slot(&self, slice: u32) -> u32 {
        (slice - slice % self.resolution).max(self.from)
    }
}

impl Zones {
    /// Of tiers, the finest first.
    pub fn of(tiers: &[Tier]) -> Zones {
        let mut begins: Vec<u32> = tiers.iter().flat_map(|tier| [tier.from, tier.until]).collect();
        begins.retain(|begin| *begin != u32::MAX);
        begins.sort_unstable();
        let mut zones: Vec<Zone> = Vec::with_capacity(begins.len());
        for from in begins {
            let Some(finest) = tiers.iter().find(|tier| tier.holds(from)) else { continue };
            let resolution = finest.resolution.max(1);
            if zones.last().is_none_or(|zone| zone.resolution != resolution) {
                zones.push(Zone { from, resolution });
            }
        }
        Zones(zones)
    }

    /// The first slice that is held: what was before it is known as a sum only.
    pub fn first(&self) -> u32 {
        self.0.first().map_or(0, |zone| zone.from)
    }

    /// Slices of the slot that holds a slice.
    pub fn resolution_at(&self, slice: u32) -> u32 {
        let at = self.0.partition_point(|zone| zone.from <= slice);
        self.0[..at].last().or(self.0.first()).map_or(1, |zone| zone.resolution)
    }

    /// The edge at a moment or before it, where a slot begins.
    pub fn floor(&self, edge: u32) -> u32 {
        edge - edge % self.resolution_at(edge)
    }

    /// The edge that lies at least so many slices before another: a range is rounded up to whole slots.
    pub fn before(&self, edge: u32, slices: u32) -> u32 {
        self.floor(edge.saturating_sub(slices))
    }

    /// The end of the slot that holds a slice.
    pub fn slot_end(&self, slice: u32) -> u32 {
        let resolution = self.resolution_at(slice);
        (slice - slice % resolution).saturating_add(resolution)
    }

    /// Slices that flooring a time, a range and a window may reach further back than they say, from a slice on.
    pub fn reach_back(&self, from: u32) -> u32 {
        (0..3).fold(from, |from, _| match self.resolution_at(from) {
            1 => from,
            resolution => self.before(from, resolution),
        })
    }
}

/// The slots that the windows are made of: of each stretch the coarsest tier whose slot reaches across no edge. Without
/// edges every slot is as fine as there is. Windows ascend and stand apart; so do the runs.
pub fn cover(tiers: &[Tier], windows: &[Range<u32>], edges: Option<&[u32]>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let mut push = |run: Run| match runs.last_mut() {
        Some(last) if last.to == run.from && (last.tier, last.resolution) == (run.tier, run.resolution) => {
            last.to = run.to;
        }
        _ => runs.push(run),
    };
    let mut next_edge = 0;
    for window in windows {
        let mut at = window.start;
        while at < window.end {
            let finest = tiers.iter().position(|tier| tier.holds(at));
            let Some(finest) = finest else {
                // Older than everything that is held, or nothing is held in tiers at all.
                let begin = tiers.iter().map(|tier| tier.from).filter(|from| *from > at).min().unwrap_or(u32::MAX);
                let to = window.end.min(begin);
                push(Run { from: at, to, resolution: 1, tier: None });
                at = to;
                continue;
            };
            let limit = match edges {
                None => at,
                Some(edges) => {
                    next_edge += edges[next_edge..].iter().take_while(|edge| **edge <= at).count();
                    edges.get(next_edge).copied().unwrap_or(u32::MAX).min(window.end)
                }
            };
            let fits = |tier: &Tier| {
                let end = at.saturating_add(tier.resolution);
                let blocked = tier.lacks.partition_point(|lacks| lacks.end <= at);
                tier.holds(at)
                    && tier.holds(end - 1)
                    && at % tier.resolution == 0
                    && end <= limit
                    && tier.lacks.get(blocked).is_none_or(|lacks| end <= lacks.start)
            };
            let place = tiers.iter().rposition(fits).filter(|place| *place > finest).unwrap_or(finest);
            let resolution = tiers[place].resolution.max(1);
            let to = (at - at % resolution).saturating_add(resolution).min(window.end);
            push(Run { from: at, to, resolution, tier: Some(place) });
            at = to;
        }
    }
    runs
}

/// Windows in any order as windows that ascend and stand apart.
pub fn joined(mut windows: Vec<Range<u32>>) -> Vec<Range<u32>> {
    windows.retain(|window| window.start < window.end);
    windows.sort_unstable_by_key(|window| (window.start, window.end));
    let mut joined: Vec<Range<u32>> = Vec::new();
    for window in windows {
        match joined.last_mut() {
            Some(last) if window.start <= last.end => last.end = last.end.max(window.end),
            _ => joined.push(window),
        }
    }
    joined
}

#[cfg(test)]
#[expect(clippy::single_range_in_vec_init, reason = "a list of one range is meant")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tier(resolution: u32, from: u32) -> Tier {
        Tier { resolution, from, until: u32::MAX, lacks: Vec::new() }
    }

    #[test]
    fn q1_times_are_floored_to_what_is_held() {
        let zones = Zones::of(&[tier(1, 720), tier(6, 360), tier(360, 0)]);
        for (edge, floored, next) in
            [(1000, 1000, 1001), (720, 720, 721), (719, 714, 720), (361, 360, 366), (359, 0, 360), (5, 0, 360)]
        {
            assert_eq!((zones.floor(edge), zones.slot_end(edge)), (floored, next), "{edge}");
        }
        assert_eq!((zones.before(725, 1), zones.before(725, 6), zones.before(721, 400)), (724, 714, 0));
        assert_eq!((zones.first(), Zones::default().floor(17), Zones::default().before(17, 5)), (0, 17, 12));
        // One that the pipeline file lost holds what it had.
        let lost = [tier(1, 720), Tier { until: 360, ..tier(6, 180) }, tier(60, 0)];
        assert_eq!(
            [725, 719, 361, 359, 181, 179].map(|edge| Zones::of(&lost).floor(edge)),
            [725, 660, 360, 354, 180, 120]
        );
        // A coarser tier that holds no more than a finer one is no zone.
        assert_eq!(Zones::of(&[tier(1, 0), tier(6, 0)]).floor(17), 17);
        assert_eq!(zones.reach_back(1000), 1000);
        assert!(zones.reach_back(400) <= 382 && zones.reach_back(715) <= 697 && zones.reach_back(361) <= 240);
    }

    #[test]
    fn the_coarsest_slots_between_the_edges() {
        let tiers = [tier(1, 0), tier(6, 0), tier(60, 0)];
        let runs = cover(&tiers, &[4..200], Some(&[4, 150, 200]));
        let shown: Vec<_> = runs.iter().map(|run| (run.from, run.to, run.resolution)).collect();
        assert_eq!(shown, [(4, 6, 1), (6, 60, 6), (60, 120, 60), (120, 198, 6), (198, 200, 1)]);
        // An edge inside a slot, or something that the coarse tier lacks, keeps it out.
        let lacking = [tier(1, 0), Tier { lacks: vec![12..14], ..tier(6, 0) }];
        let runs = cover(&lacking, &[0..24], Some(&[0, 20, 24]));
        let shown: Vec<_> = runs.iter().map(|run| (run.from, run.to, run.resolution)).collect();
        assert_eq!(shown, [(0, 12, 6), (12, 24, 1)]);
        assert_eq!(cover(&tiers, &[3..9], None), [Run { from: 3, to: 9, resolution: 1, tier: Some(0) }]);
        assert_eq!(cover(&[], &[3..9], None), [Run { from: 3, to: 9, resolution: 1, tier: None }]);
    }

    proptest! {
        #[test]
        fn h1_runs_are_the_windows_and_no_slot_reaches_across_an_edge(
            windows in proptest::collection::vec((0u32..2_000, 1u32..400), 1..6),
            edges in proptest::collection::btree_set(0u32..2_500, 0..30),
            (first, second) in (0u32..20, 0u32..10),
            lacks in proptest::collection::vec((0u32..300, 1u32..20), 0..3),
        ) {
            let (second, first) = (second * 60, second * 60 + first * 60);
            let lacks = joined(lacks.into_iter().map(|(from, len)| from * 6..(from + len) * 6).collect());
            let tiers =
                [tier(1, first), Tier { lacks, ..tier(6, second) }, Tier { lacks: vec![100..2_000], ..tier(60, 0) }];
            let zones = Zones::of(&tiers);
            // As the evaluator asks: edges and windows are floored.
            let windows =
                joined(windows.into_iter().map(|(from, len)| zones.floor(from)..zones.floor(from + len)).collect());
            let edges: std::collections::BTreeSet<u32> = edges.into_iter().map(|edge| zones.floor(edge)).collect();
            let edges: Vec<u32> =
                edges.into_iter().chain(windows.iter().flat_map(|window| [window.start, window.end])).collect();
            let edges: Vec<u32> = std::collections::BTreeSet::from_iter(edges).into_iter().collect();
            let runs = cover(&tiers, &windows, Some(&edges));
            prop_assert_eq!(joined(runs.iter().map(|run| run.from..run.to).collect()), windows);
            prop_assert!(runs.windows(2).all(|pair| pair[0].to <= pair[1].from));
            for run in &runs {
                let tier = &tiers[run.tier.expect("the last tier holds everything")];
                prop_assert!(tier.from <= run.from && run.from % run.resolution == 0 && run.to % run.resolution == 0);
                let is_finest = tier.resolution == zones.resolution_at(run.from);
                for slot in (run.from..run.to).step_by(run.resolution as usize) {
                    let end = slot + run.resolution;
                    prop_assert!(!edges.iter().any(|edge| slot < *edge && *edge < end), "{run:?} {slot}");
                    let is_lacking = tier.lacks.iter().any(|lacks| lacks.start < end && slot < lacks.end);
                    prop_assert!(is_finest || !is_lacking, "{run:?} {slot}");
                }
            }
        }
    }
}
