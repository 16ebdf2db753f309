//! Buckets of samples that came before their bounds did (R2).
//!
//! In: totals with the counts of old bounds, and whatever tells how their samples lie. Out: counts of new bounds.
//! Owns: which counts are estimates, and the counts of bounds that are not counted any more. Invariants: a bound that
//! stays, or comes back before another sample, keeps its count; an estimate contradicts no count that is known, so
//! counts never fall from bound to bound and never exceed the weight; what was estimated says so until a reset.
//!
//! The estimate goes from one known count to the next in the shape of the best that there is: the window when it holds
//! every sample, the native histogram, the window, and a straight line between two known counts (at worst the least and
//! the greatest value).

use super::native::NativeTotals;
use super::state::{Bounds, DistributionTotals, Window};
use super::totals::Reader;
use crate::delta::part::Corrupt;
use crate::delta::varint::{put_i128 as put_signed, put_u128 as put};
use crate::sketch::layout;

/// Counts of bounds that are gone which a series remembers; those that have not been counted for longest go first.
const KEPT_MAX: usize = 160;

/// What reloads did to the buckets of one series.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Adopted {
    /// Present bounds whose counts hold an estimate, ascending.
    pub(super) estimated: Vec<i64>,
    /// Bounds that are not counted now, ascending.
    kept: Vec<Kept>,
}

/// A count that is known of some moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Kept {
    /// In scale units.
    pub(super) bound: i64,
    /// The weight not above it, × 4096.
    pub(super) count: u128,
    /// The weight of all samples when it was counted last, × 4096.
    pub(super) at: u128,
    pub(super) is_estimated: bool,
}

impl Kept {
    /// The most that the count can be when all samples weigh `weight`.
    fn most(&self, weight: u128) -> u128 {
        self.count.saturating_add(weight.saturating_sub(self.at)).min(weight)
    }

    /// No sample came since it was counted.
    fn is_current(&self, weight: u128) -> bool {
        self.at >= weight
    }
}

/// How samples lie: weights by span, with no scale of their own.
#[derive(Debug, Default)]
pub(super) struct Shape {
    /// (beyond this, up to this, weight of the spans before) in scale units, ascending and disjoint.
    spans: Vec<(f64, f64, f64)>,
    weight: f64,
    /// It holds all samples that it is the shape of.
    is_whole: bool,
}

impl Shape {
    /// The best that is known of totals. `exponent` is that of the metric's scale.
    pub(super) fn of(totals: &DistributionTotals, window: Option<&Window>, exponent: u8) -> Shape {
        let mut shape = Shape::default();
        if totals.samples == 0 {
            return shape;
        }
        let ends = (totals.min as f64 - 1.0, totals.max as f64);
        let window = window.filter(|window| window.samples > 0);
        let is_recent = window.is_some_and(|window| window.samples == totals.samples);
        match (&totals.native, window) {
            (Some(native), _) if !is_recent => {
                native.spans(exponent, |low, high, weight| shape.push(low, high, weight, ends));
                shape.is_whole = true;
            }
            (_, Some(window)) => {
                let digits = window.sketch.digits();
                for (cell, count) in window.sketch.cells() {
                    let (a, b) = (layout::lowest(digits, cell), layout::highest(digits, cell));
                    shape.push(a.min(b) as f64 - 1.0, a.max(b) as f64, count as f64, ends);
                }
                shape.is_whole = is_recent;
            }
            _ => {}
        }
        shape
    }

    fn push(&mut self, low: f64, high: f64, weight: f64, (least, greatest): (f64, f64)) {
        self.spans.push((low.clamp(least, greatest), high.clamp(least, greatest), self.weight));
        self.weight += weight;
    }

    /// The weight not above a value.
    fn below(&self, value: f64) -> f64 {
        let at = self.spans.partition_point(|(_, high, _)| *high <= value);
        let Some((low, high, before)) = self.spans.get(at) else { return self.weight };
        let after = self.spans.get(at + 1).map_or(self.weight, |(_, _, before)| *before);
        before + (after - before) * ((value - low) / (high - low)).max(0.0)
    }

    /// The least and the greatest value that it knows of.
    pub(super) fn ends(&self) -> Option<(f64, f64)> {
        Some((self.spans.first()?.0, self.spans.last()?.1))
    }
}

/// Where all samples lie.
#[derive(Clone, Copy)]
pub(super) enum Ends {
    /// The least and the greatest value.
    Known(i64, i64),
    /// About: above the first, and not above the second.
    Guessed(f64, f64),
}

/// For each of `bounds` (ascending) the weight not above it, and whether that is an estimate. `known` ascends, too.
pub(super) fn estimate(known: &[Kept], weight: u128, ends: Ends, shape: &Shape, bounds: &[i64]) -> Vec<(u128, bool)> {
    let (mut least, mut greatest) = match ends {
        Ends::Known(min, max) => (min as f64 - 1.0, max as f64),
        Ends::Guessed(low, high) => (low, high),
    };
    if let (Ends::Guessed(..), Some(first), Some(last)) = (ends, known.first(), known.last()) {
        least = least.min(first.bound as f64 - 1.0);
        greatest = greatest.max(last.bound as f64 + 1.0);
    }
    // Points that the estimate goes through. Counts that are out of date only limit it where the shape holds what came
    // since; else what came since is taken to lie like what came before.
    let mut points = vec![(least, 0.0f64)];
    for one in known {
        let bound = one.bound as f64;
        if bound <= least || bound >= greatest || (shape.is_whole && !one.is_current(weight)) {
            continue;
        }
        let share = one.count as f64 / one.at.max(1) as f64;
        let count = if one.is_current(weight) { one.count as f64 } else { share * weight as f64 };
        let before = points.last().map_or(0.0, |(_, count)| *count);
        points.push((bound, count.clamp(before, before.max(weight as f64))));
    }
    points.push((greatest, weight as f64));
    let inside = |bound: f64| {
        let at = points.partition_point(|(x, _)| *x <= bound);
        let Some((end, after)) = points.get(at) else { return weight as f64 };
        let Some((start, before)) = at.checked_sub(1).map(|at| points[at]) else { return 0.0 };
        let (low, high) = (shape.below(start), shape.below(*end));
        let share =
            if high > low { (shape.below(bound) - low) / (high - low) } else { (bound - start) / (end - start) };
        before + (after - before) * share
    };
    let is_known = known.iter().all(|one| !one.is_estimated);
    let mut floor = 0;
    let one = |bound: &i64| {
        // What is known of this bound, of lower ones and of higher ones.
        let at = known.partition_point(|one| one.bound < *bound);
        let same = known.get(at).filter(|one| one.bound == *bound);
        let up_to = at + usize::from(same.is_some());
        let mut low = known[..up_to].iter().map(|one| one.count).max().unwrap_or(0).min(weight);
        let mut high = known[at..].iter().map(|one| one.most(weight)).min().unwrap_or(weight);
        match ends {
            Ends::Known(_, max) if *bound >= max => low = high,
            Ends::Known(min, _) if *bound < min => high = low,
            _ => {}
        }
        let count = (inside(*bound as f64).round() as u128).max(low).min(high).max(floor);
        floor = count;
        let is_exact = match same.filter(|one| one.is_current(weight)) {
            Some(one) => !one.is_estimated,
            None => low >= high && is_known,
        };
        (count, !is_exact)
    };
    bounds.iter().map(one).collect()
}

impl DistributionTotals {
    /// Goes over from old to new bounds; `None` is none.
    pub(super) fn adopt(&mut self, old: &[i64], new: Option<&[i64]>, shape: &Shape) {
        let is_same = new.map_or(old.is_empty(), |new| new == old) && old.len() == self.buckets.len();
        if is_same && new.is_some() {
            return;
        }
        let adopted = self.adopted.take().map(|adopted| *adopted).unwrap_or_default();
        let new = new.unwrap_or(&[]);
        if self.samples == 0 {
            self.buckets = vec![0; new.len()].into();
            return;
        }
        let mut known = adopted.kept;
        for (bound, count) in old.iter().zip(&self.buckets) {
            let is_estimated = adopted.estimated.binary_search(bound).is_ok();
            let one = Kept { bound: *bound, count: *count, at: self.weight, is_estimated };
            match known.binary_search_by_key(bound, |one| one.bound) {
                Ok(at) => known[at] = one,
                Err(at) => known.insert(at, one),
            }
        }
        let counts = estimate(&known, self.weight, Ends::Known(self.min, self.max), shape, new);
        let estimated = new.iter().zip(&counts).filter(|(_, (_, is_estimated))| *is_estimated);
        let estimated: Vec<i64> = estimated.map(|(bound, _)| *bound).collect();
        self.buckets = counts.iter().map(|(count, _)| *count).collect();
        known.retain(|one| new.binary_search(&one.bound).is_err());
        while known.len() > KEPT_MAX {
            let oldest = known.iter().enumerate().min_by_key(|(_, one)| one.at).map_or(0, |(at, _)| at);
            known.remove(oldest);
        }
        if !estimated.is_empty() || !known.is_empty() {
            self.adopted = Some(Box::new(Adopted { estimated, kept: known }));
        }
    }

    /// Some count of a bucket holds an estimate.
    pub(super) fn has_estimates(&self) -> bool {
        self.adopted.as_ref().is_some_and(|adopted| !adopted.estimated.is_empty())
    }
}

impl Adopted {
    /// Of the sum of two totals.
    pub(super) fn merged(mine: Option<Box<Adopted>>, theirs: Option<&Adopted>) -> Option<Box<Adopted>> {
        let Some(theirs) = theirs else { return mine };
        let Some(mut mine) = mine else { return Some(Box::new(theirs.clone())) };
        for bound in &theirs.estimated {
            if let Err(at) = mine.estimated.binary_search(bound) {
                mine.estimated.insert(at, *bound);
            }
        }
        for one in &theirs.kept {
            match mine.kept.binary_search_by_key(&one.bound, |one| one.bound) {
                Ok(at) => {
                    let sum = &mut mine.kept[at];
                    sum.count = sum.count.saturating_add(one.count);
                    sum.at = sum.at.saturating_add(one.at);
                    sum.is_estimated |= one.is_estimated;
                }
                Err(at) => mine.kept.insert(at, *one),
            }
        }
        Some(mine)
    }

    pub(super) fn heap_bytes(&self) -> usize {
        size_of::<Adopted>() + self.estimated.capacity() * 8 + self.kept.capacity() * size_of::<Kept>()
    }

    pub(super) fn write(adopted: Option<&Adopted>, out: &mut Vec<u8>) {
        let Some(adopted) = adopted else { return put(out, 0) };
        put(out, adopted.estimated.len() as u128 + 1);
        adopted.estimated.iter().for_each(|bound| put_signed(out, i128::from(*bound)));
        put(out, adopted.kept.len() as u128);
        for one in &adopted.kept {
            put_signed(out, i128::from(one.bound));
            put(out, one.count);
            put(out, one.at);
            put(out, u128::from(one.is_estimated));
        }
    }

    /// Reads what [`write`](Self::write) wrote.
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Option<Box<Adopted>>, Corrupt> {
        let Some(estimated) = reader.length()?.checked_sub(1) else { return Ok(None) };
        let mut adopted = Adopted::default();
        for _ in 0..estimated {
            let bound = reader.signed_64()?;
            if adopted.estimated.last().is_some_and(|last| *last >= bound) {
                return Err(reader.corrupt());
            }
            adopted.estimated.push(bound);
        }
        for _ in 0..reader.length()? {
            let bound = reader.signed_64()?;
            if adopted.kept.last().is_some_and(|last| last.bound >= bound) {
                return Err(reader.corrupt());
            }
            let (count, at) = (reader.unsigned()?, reader.unsigned()?);
            let is_estimated = match reader.unsigned()? {
                0 => false,
                1 => true,
                _ => return Err(reader.corrupt()),
            };
            adopted.kept.push(Kept { bound, count, at, is_estimated });
        }
        Ok(Some(Box::new(adopted)))
    }
}

/// Totals whose buckets were estimated while recovery had not filled the window yet.
pub(super) struct Unsettled {
    /// As the file had them.
    stored: DistributionTotals,
    old: Box<[i64]>,
    new: Box<[i64]>,
    /// The estimate that stands in their buckets.
    first: Box<[u128]>,
}

impl Unsettled {
    /// Takes stored totals over; with what a window could tell better later, if anything.
    pub(super) fn adopt(
        stored: &DistributionTotals,
        old: &[i64],
        own: Option<&Bounds>,
        exponent: u8,
    ) -> (DistributionTotals, Option<Unsettled>) {
        let new = own.map(|own| &*own.units);
        let mut totals = stored.clone();
        totals.adopt(old, new, &Shape::of(stored, None, exponent));
        let is_settled = stored.native.is_some() || !totals.has_estimates() || new.is_none_or(|new| new == old);
        let unsettled = (!is_settled).then(|| Unsettled {
            stored: stored.clone(),
            old: old.into(),
            new: new.unwrap_or(&[]).into(),
            first: totals.buckets.clone(),
        });
        (totals, unsettled)
    }

    /// The window is there: puts the better estimate in place of the first.
    pub(super) fn settle(mut self, totals: &mut DistributionTotals, window: &Window) {
        let shape = Shape::of(&self.stored, Some(window), 0);
        self.stored.adopt(&self.old, Some(&self.new), &shape);
        for ((sum, first), better) in totals.buckets.iter_mut().zip(&self.first).zip(&self.stored.buckets) {
            *sum = sum.saturating_sub(*first).saturating_add(*better);
        }
    }
}

impl NativeTotals {
    /// Calls `visit` with (beyond this, up to this, weight) in scale units, ascending.
    fn spans(&self, exponent: u8, mut visit: impl FnMut(f64, f64, f64)) {
        let per_one = 10f64.powi(i32::from(exponent));
        for (key, weight) in self.keys.iter().zip(&self.weights) {
            let (low, high) = match self.magnitudes(*key) {
                None => (-1.0, 0.0),
                Some((low, high)) if *key > 0 => (low * per_one, high * per_one),
                Some((low, high)) => (-high * per_one, -low * per_one),
            };
            visit(low, high, *weight as f64);
        }
    }
}
