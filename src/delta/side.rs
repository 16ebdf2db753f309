//! Aggregates outside the hot path: other slices, weighted samples, three-digit sketches.
//!
//! In: samples of one series. Out: one mergeable aggregate per kind, also used by the store to fold
//! parts into segments. Invariant: merging is associative and commutative to the bit; a weighted
//! aggregate counts cells and sum × 4096, and merging shifts the unweighted side (V2).

use super::record::GaugeRecord;
use crate::event::WEIGHT_ONE;
use crate::sketch::{Digits, Sketch, layout};

/// A counter's increment in nano-units (10⁻⁹), the fixed scale of counters (V1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CounterSum {
    /// Increment × 10⁹.
    pub nanos: i128,
}

/// What a gauge saw: the terms of V6.
#[derive(Clone, Debug, PartialEq)]
pub struct GaugeSum {
    /// Sets seen.
    pub count: u64,
    /// The newest set by (time, position); meaningless when `count` is 0.
    pub last: f64,
    /// Event time of the newest set in nanoseconds.
    pub time: i64,
    /// Order among equal times.
    pub position: u64,
    /// Least value set.
    pub min: f64,
    /// Greatest value set.
    pub max: f64,
    /// Σ of the values set, in scale units.
    pub sum: i128,
    /// Σ of relative operations after the newest set of the same shard; `None` when there was none.
    pub adjust: Option<f64>,
}

impl Default for GaugeSum {
    fn default() -> Self {
        GaugeSum::from(GaugeRecord::default())
    }
}

impl From<GaugeRecord> for GaugeSum {
    fn from(record: GaugeRecord) -> Self {
        GaugeSum {
            count: u64::from(record.count),
            last: record.last,
            time: record.time,
            position: record.position,
            min: record.min,
            max: record.max,
            sum: record.sum,
            adjust: record.is_adjusted.then_some(record.adjust),
        }
    }
}

impl GaugeSum {
    /// Merges the sets of another aggregate. Relative operations do not commute with sets: the store
    /// resolves them to sets before anything is merged (V6), so neither side may have one here.
    pub fn merge(&mut self, other: &GaugeSum) {
        debug_assert!(self.adjust.is_none() && other.adjust.is_none(), "operations are resolved at commit");
        if other.count == 0 {
            return;
        }
        if self.count == 0 || (self.time, self.position) < (other.time, other.position) {
            (self.last, self.time, self.position) = (other.last, other.time, other.position);
        }
        self.count += other.count;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.sum += other.sum;
    }
}

/// What a distribution saw.
#[derive(Clone, Debug, PartialEq)]
pub struct DistributionSum {
    /// Samples seen, without weights.
    pub count: u64,
    /// True when `sum`, `cells` and `below` are × 4096.
    pub weighted: bool,
    /// Σ value (× weight when weighted), in scale units.
    pub sum: i128,
    /// Least value in scale units.
    pub min: i64,
    /// Greatest value in scale units.
    pub max: i64,
    /// The cells.
    pub sketch: Sketch,
    /// Per declared bound, the weight of samples in the cell that straddles it and not above it (V5);
    /// empty without declared buckets.
    pub below: Vec<(u16, u64)>,
}

impl DistributionSum {
    /// Nothing seen.
    pub fn new(digits: Digits) -> DistributionSum {
        DistributionSum {
            count: 0,
            weighted: false,
            sum: 0,
            min: i64::MAX,
            max: i64::MIN,
            sketch: Sketch::new(digits),
            below: Vec::new(),
        }
    }

    /// Adds one sample of a weight in 1/4096 (`WEIGHT_ONE` = an unweighted sample).
    pub fn add(&mut self, units: i64, cell: i32, weight: u64) {
        if weight != WEIGHT_ONE && !self.weighted {
            self.make_weighted();
        }
        let weight = if self.weighted { weight } else { 1 };
        self.count += 1;
        self.sum += i128::from(units) * i128::from(weight);
        self.min = self.min.min(units);
        self.max = self.max.max(units);
        self.sketch.add(cell, weight);
    }

    /// As [`add`](Self::add), of a cell in the layout of `digits`: layouts nest, and two of them meet at the lower (R2).
    pub fn add_of(&mut self, digits: Digits, units: i64, cell: i32, weight: u64) {
        let mut cell = cell;
        if digits != self.sketch.digits() {
            self.sketch.coarsen(digits);
            cell = layout::cell_of(self.sketch.digits(), units);
        }
        self.add(units, cell, weight);
    }

    /// Counts a sample as not above a bound that its cell straddles; call after [`add`](Self::add).
    pub fn add_below(&mut self, bound: u16, weight: u64) {
        let weight = if self.weighted { weight } else { 1 };
        add_below(&mut self.below, bound, weight);
    }

    /// Merges another aggregate.
    pub fn merge(&mut self, other: &DistributionSum) {
        if other.weighted && !self.weighted {
            self.make_weighted();
        }
        let factor = if self.weighted && !other.weighted { WEIGHT_ONE } else { 1 };
        self.count += other.count;
        self.sum += other.sum * i128::from(factor);
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.sketch.merge(&other.sketch);
        for (bound, n) in &other.below {
            add_below(&mut self.below, *bound, n * factor);
        }
    }

    fn make_weighted(&mut self) {
        self.weighted = true;
        self.sum *= i128::from(WEIGHT_ONE);
        self.sketch.make_weighted();
        for (_, n) in &mut self.below {
            *n *= WEIGHT_ONE;
        }
    }
}

/// Adds to a sorted list of (bound, weight).
pub(super) fn add_below(below: &mut Vec<(u16, u64)>, bound: u16, weight: u64) {
    match below.binary_search_by_key(&bound, |(b, _)| *b) {
        Ok(at) => below[at].1 += weight,
        Err(at) => below.insert(at, (bound, weight)),
    }
}
