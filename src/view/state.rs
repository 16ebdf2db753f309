//! What the view keeps of one series, and how a row of a part changes it.
//!
//! In: rows. Out: the same numbers whatever the order of the rows (V1). Owns: totals since the beginning
//! and, for distributions and sets, the window. Invariants: weights, sums and buckets of totals are
//! always × 4096, so that a first weighted sample changes nothing (V2); the window's sketch is the sum of
//! the rows of the slices inside, to the bit.

use super::adopt::Adopted;
use super::native::NativeTotals;
use super::window::Extremes;
use crate::delta::GaugeSum;
use crate::delta::part::DistributionRow;
use crate::event::{Buckets, Kind, WEIGHT_ONE};
use crate::sketch::{Digits, Distinct, Sketch, layout};

/// What every state begins with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Identity {
    /// Nanoseconds since the epoch (S2).
    pub(super) created: i64,
    /// Time of the last commit (at recovery: slice) with a sample; `created` before the first.
    pub(super) seen: i64,
    pub(super) slot: u32,
    /// A `MetricId`.
    pub(super) metric: u32,
    /// The place in the chunk.
    pub(super) offset: u16,
    /// The file may hold totals of this series that have not been read.
    pub(super) awaits_totals: bool,
}

/// A counter.
#[derive(Debug)]
pub(super) struct CounterState {
    /// In 10⁻⁹.
    pub(super) total: i128,
    pub(super) identity: Identity,
}

/// A gauge.
#[derive(Debug)]
pub(super) struct GaugeState {
    /// Since the beginning.
    pub(super) sum: GaugeSum,
    pub(super) identity: Identity,
}

/// The totals of a distribution; weights, sum and buckets × 4096.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct DistributionTotals {
    /// Samples seen.
    pub(super) samples: u64,
    pub(super) weight: u128,
    pub(super) sum: i128,
    pub(super) min: i64,
    pub(super) max: i64,
    /// Per declared bound the weight not above it; empty without declared buckets. 128 bits, because an
    /// hour of datagrams with the least rate would overflow 64.
    pub(super) buckets: Box<[u128]>,
    /// Of metrics that were ever exposed as histograms; `None` also while some samples came before there was one,
    /// because a native histogram that lacks samples would not add up.
    pub(super) native: Option<Box<NativeTotals>>,
    /// What reloads did to `buckets`; `None` while all of them are exact (R2).
    pub(super) adopted: Option<Box<Adopted>>,
}

/// A distribution.
pub(super) struct DistributionState {
    pub(super) totals: DistributionTotals,
    pub(super) window: Window,
    pub(super) identity: Identity,
}

/// The window of a distribution.
pub(super) struct Window {
    pub(super) sketch: Sketch,
    /// Samples seen.
    pub(super) samples: u64,
    pub(super) extremes: Extremes,
    /// Rows of slices before this one are not in it: the series was not in memory when they came.
    pub(super) from: u32,
}

/// A set: members per slice, merged when somebody asks.
pub(super) struct SetState {
    pub(super) slices: Vec<(u32, Distinct)>,
    pub(super) identity: Identity,
}

const _: () = assert!(size_of::<CounterState>() <= 48, "a million counters are 48 MB");
const _: () = assert!(size_of::<DistributionState>() <= 224, "the view's memory is planned with this");

/// What a metric's rows are compared with.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Bounds {
    /// The number of the first, as parts count them.
    first: u16,
    /// In scale units.
    pub(super) units: Box<[i64]>,
    /// Per digits (1, 2, 3) and bound the last cell that lies wholly at or below it.
    covered: [Box<[i32]>; 3],
}

impl Bounds {
    pub(super) fn new(buckets: &Buckets) -> Bounds {
        let units = &buckets.units;
        let covered = |digits: Digits| {
            let last = |bound: &i64| {
                let cell = layout::cell_of(digits, *bound);
                if layout::highest(digits, cell) <= *bound { cell } else { cell - 1 }
            };
            units.iter().map(last).collect()
        };
        let covered = [covered(Digits::One), covered(Digits::Two), covered(Digits::Three)];
        Bounds { first: buckets.first, units: units.clone(), covered }
    }

    /// Adds a row to cumulative counts, exactly: whole cells by the cells, straddled ones by `below` (V5). What was
    /// counted for bounds before a reload has other numbers; of such a row straddled cells lie above the bound. Recovery
    /// begins to number anew, so what was counted of another cell or of too many samples is not of this bound either.
    fn add(&self, buckets: &mut [u128], row: &DistributionRow<'_>, factor: u64) {
        let covered = &self.covered[row.digits as usize - 1];
        let (mut at, mut prefix, mut below, mut highest) = (0, 0u128, row.below.iter().peekable(), 0);
        for (index, (bucket, last)) in buckets.iter_mut().zip(covered).enumerate() {
            let index = usize::from(self.first) + index;
            while let Some((cell, count)) = row.cells.get(at)
                && cell <= last
            {
                prefix += u128::from(*count);
                at += 1;
            }
            while below.next_if(|(bound, _)| usize::from(*bound) < index).is_some() {}
            let is_of_next = |n: u64| row.cells.get(at).is_some_and(|(cell, count)| *cell == last + 1 && n <= *count);
            let straddling = below.next_if(|(bound, _)| usize::from(*bound) == index);
            let straddling = straddling.map(|(_, n)| *n).filter(|n| is_of_next(*n)).unwrap_or(0);
            highest = (prefix + u128::from(straddling)).max(highest);
            *bucket += highest * u128::from(factor);
        }
    }
}

impl DistributionTotals {
    pub(super) fn new(bounds: Option<&Bounds>) -> DistributionTotals {
        let buckets = bounds.map_or(0, |bounds| bounds.units.len());
        DistributionTotals {
            samples: 0,
            weight: 0,
            sum: 0,
            min: i64::MAX,
            max: i64::MIN,
            buckets: vec![0; buckets].into(),
            native: None,
            adopted: None,
        }
    }

    /// Adds a row. `exponent` is that of the metric's scale; `begins` says that it has a native histogram. One that was
    /// begun goes on while the metric is shown as something else, and so is there when it is a histogram again.
    #[inline]
    pub(super) fn add(&mut self, row: &DistributionRow<'_>, bounds: Option<&Bounds>, exponent: u8, begins: bool) {
        if self.native.is_some() || (begins && self.samples == 0) {
            self.native.get_or_insert_default().add(row, exponent);
        }
        self.samples += row.count;
        self.min = self.min.min(row.min);
        self.max = self.max.max(row.max);
        if row.weighted {
            self.sum += row.sum;
            self.weight += row.cells.iter().map(|(_, count)| u128::from(*count)).sum::<u128>();
        } else {
            self.sum += row.sum * i128::from(WEIGHT_ONE);
            self.weight += u128::from(row.count) * u128::from(WEIGHT_ONE);
        }
        if let Some(bounds) = bounds {
            bounds.add(&mut self.buckets, row, factor(row.weighted, true));
        }
    }

    /// Heap bytes of the native histogram.
    #[inline]
    pub(super) fn native_bytes(&self) -> usize {
        self.native.as_ref().map_or(0, |native| native.heap_bytes())
    }

    /// Adds totals of the same bounds.
    pub(super) fn merge(&mut self, other: &DistributionTotals) {
        self.native = match (self.native.take(), &other.native) {
            (mine, _) if other.samples == 0 => mine,
            (_, theirs) if self.samples == 0 => theirs.clone(),
            (Some(mut mine), Some(theirs)) => {
                mine.merge(theirs);
                Some(mine)
            }
            _ => None,
        };
        self.adopted = Adopted::merged(self.adopted.take(), other.adopted.as_deref());
        self.samples += other.samples;
        self.weight += other.weight;
        self.sum += other.sum;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += theirs;
        }
    }
}

/// What unweighted counts are multiplied with beside weighted ones.
pub(super) fn factor(is_weighted: bool, beside_weighted: bool) -> u64 {
    if beside_weighted && !is_weighted { WEIGHT_ONE } else { 1 }
}

impl Window {
    pub(super) fn new(digits: Digits, from: u32) -> Window {
        Window { sketch: Sketch::new(digits), samples: 0, extremes: Extremes::default(), from }
    }

    /// Adds a row of a slice. `spare` is memory for cells in another form.
    #[inline]
    pub(super) fn add(&mut self, slice: u32, row: &DistributionRow<'_>, spare: &mut Vec<(i32, u64)>) {
        if slice < self.from {
            return;
        }
        if row.digits < self.sketch.digits() {
            self.sketch.coarsen(row.digits);
        }
        if row.weighted && !self.sketch.weighted() {
            self.sketch.make_weighted();
        }
        self.samples += row.count;
        self.extremes.add(slice, row.min, row.max);
        let cells = adapt(&self.sketch, row, spare);
        self.sketch.add_sorted(cells);
    }

    /// Takes a row of a slice out; false when it was not in it, which empties the window: one that heals
    /// within its length is better than one that is wrong for good.
    pub(super) fn expire(
        &mut self,
        slice: u32,
        row: &DistributionRow<'_>,
        digits: Digits,
        spare: &mut Vec<(i32, u64)>,
    ) -> bool {
        if slice < self.from {
            return true;
        }
        self.extremes.expire(slice);
        let cells = adapt(&self.sketch, row, spare);
        let held = self.samples.checked_sub(row.count).filter(|_| self.sketch.subtract_sorted(cells).is_ok());
        match held {
            Some(0) => self.clear(digits),
            Some(samples) => self.samples = samples,
            None => self.clear(digits),
        }
        held.is_some()
    }

    /// Empties it; it may have been coarser or weighted, which only its contents explained.
    fn clear(&mut self, digits: Digits) {
        self.sketch = Sketch::new(digits);
        self.samples = 0;
        self.extremes.clear();
    }

    /// The least and greatest value in scale units.
    pub(super) fn extremes(&self) -> Option<(i64, i64)> {
        self.extremes.ends()
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.sketch.heap_bytes() + self.extremes.heap_bytes()
    }
}

/// A row's cells in a sketch's digits and weighting; the row must not be coarser or weighted alone.
#[inline]
fn adapt<'a>(sketch: &Sketch, row: &DistributionRow<'a>, spare: &'a mut Vec<(i32, u64)>) -> &'a [(i32, u64)] {
    let factor = factor(row.weighted, sketch.weighted());
    if factor == 1 && row.digits <= sketch.digits() {
        return row.cells;
    }
    spare.clear();
    for (cell, count) in row.cells {
        let cell = layout::coarsen(*cell, row.digits, sketch.digits());
        match spare.last_mut() {
            Some((last, sum)) if *last == cell => *sum += count * factor,
            _ => spare.push((cell, count * factor)),
        }
    }
    spare
}

impl SetState {
    /// The members of a slice.
    pub(super) fn add(&mut self, slice: u32, distinct: &Distinct) {
        match self.slices.binary_search_by_key(&slice, |(s, _)| *s) {
            Ok(at) => self.slices[at].1.merge(distinct),
            Err(at) => self.slices.insert(at, (slice, distinct.clone())),
        }
    }

    pub(super) fn expire(&mut self, slice: u32) {
        self.slices.retain(|(s, _)| *s > slice);
    }

    /// Distinct members of the slices from `lowest` on (V7).
    pub(super) fn estimate(&self, lowest: u32) -> u64 {
        let mut inside = self.slices.iter().filter(|(s, _)| *s >= lowest);
        let Some((_, first)) = inside.next() else { return 0 };
        let mut rest = inside.peekable();
        if rest.peek().is_none() {
            return first.estimate();
        }
        let mut all = first.clone();
        rest.for_each(|(_, distinct)| all.merge(distinct));
        all.estimate()
    }
}

/// A reference to any state.
pub(super) enum StateRef<'a> {
    Counter(&'a CounterState),
    Gauge(&'a GaugeState),
    Distribution(&'a DistributionState),
    Set(&'a SetState),
}

impl StateRef<'_> {
    pub(super) fn identity(&self) -> &Identity {
        match self {
            StateRef::Counter(state) => &state.identity,
            StateRef::Gauge(state) => &state.identity,
            StateRef::Distribution(state) => &state.identity,
            StateRef::Set(state) => &state.identity,
        }
    }

    pub(super) fn kind(&self) -> Kind {
        match self {
            StateRef::Counter(_) => Kind::Counter,
            StateRef::Gauge(_) => Kind::Gauge,
            StateRef::Distribution(_) => Kind::Distribution,
            StateRef::Set(_) => Kind::Set,
        }
    }
}
